/* The mixer of Mamba 1: config keys, binding, forward. Formulas: Gu, Dao 2023 (arXiv:2312.00752) and transformers
 * models/mamba, falcon_mamba, jamba. */
#include "blocks/mamba1.h"

#include <stdio.h>
#include <string.h>

enum { NAME = 160 };

/* "auto" is a sixteenth of dim, rounded up. */
static int64_t read_rank(fa_cfg *r, int64_t dim, const char *key) {
    const char *word = fa_jstr(fa_cfg_node(r, key), NULL);
    int64_t otherwise = (dim + 15) / 16;
    return word && strcmp(word, "auto") == 0 ? otherwise : fa_cfg_int(r, key, otherwise, 1, 1 << 20);
}

void fa_mamba1_read(fa_cfg *r, fa_mamba1_cfg *c, int64_t dim, const fa_mamba1_keys *keys) {
    c->dim = dim;
    c->inner = fa_cfg_int(r, keys->expand, 2, 1, 1 << 10) * dim;
    if (keys->inner) c->inner = fa_cfg_int(r, keys->inner, c->inner, 1, 1 << 24);
    c->n_state = fa_cfg_int(r, keys->n_state, 16, 1, 1 << 16);
    c->kernel = fa_cfg_int(r, keys->kernel, 4, 1, 1 << 10);
    c->rank = read_rank(r, dim, keys->rank);
    c->proj_bias = fa_cfg_bool(r, keys->proj_bias, false);
    c->conv_bias = fa_cfg_bool(r, keys->conv_bias, true);
    c->act = fa_cfg_act(r, "hidden_act", "silu");
    c->decay_applied = fa_cfg_bool(r, "ffai_decay_applied", false);
}

void fa_mamba1_spec(const fa_mamba1_cfg *c, fa_kv_spec *spec) {
    *spec = (fa_kv_spec){.n_conv = (c->kernel - 1) * c->inner, .n_scan = c->n_state * c->inner};
}

/* A norm of part of x_proj's output. */
static void bind_norm(fa_binder *b, const fa_mamba1_cfg *c, fa_norm *out, int64_t dim, const char *block,
                      const char *name) {
    if (c->bare)
        *out = (fa_norm){.dim = dim, .eps = (float)c->eps};
    else
        fa_bind_norm(b, out, dim, c->eps, 0, "%s.%s", block, name);
}

void fa_mamba1_bind(fa_binder *b, const fa_mamba1_cfg *c, fa_mamba1 *m, int layer) {
    const fa_bias bias = c->proj_bias ? FA_BIAS : FA_NO_BIAS;
    char at[NAME];
    snprintf(at, sizeof at, "model.layers.%d.%s", layer, c->block);
    fa_bind_linear(b, &m->in, 2 * c->inner, c->dim, bias, "%s.in_proj", at);
    fa_bind_conv(b, &m->conv, c->inner, c->kernel, c->conv_bias ? FA_BIAS : FA_NO_BIAS, NULL, "%s.conv1d", at);
    m->conv.act = c->act;
    fa_bind_linear(b, &m->x, c->rank + 2 * c->n_state, c->inner, FA_NO_BIAS, "%s.x_proj", at);
    m->norms = c->norms;
    if (c->norms) {
        bind_norm(b, c, &m->dt_norm, c->rank, at, "dt_layernorm");
        bind_norm(b, c, &m->b_norm, c->n_state, at, "b_layernorm");
        bind_norm(b, c, &m->c_norm, c->n_state, at, "c_layernorm");
    }
    fa_bind_linear(b, &m->dt, c->inner, c->rank, FA_BIAS, "%s.dt_proj", at);
    m->scan = (fa_ssm1){.dim = c->inner,
                        .n_state = c->n_state,
                        .a = fa_bind_decay(b, c->inner, c->n_state, c->decay_applied, "%s.A_log", at),
                        .d = fa_bind_vector(b, c->inner, 1, "%s.D", at)};
    m->gate = (fa_gate){.act = FA_ACT_SILU};
    fa_bind_linear(b, &m->out, c->dim, c->inner, bias, "%s.out_proj", at);
}

/* Columns [from, from + n->dim) of what x_proj gives, normalised. */
static fa_tensor part(fa_cx *cx, fa_tensor p, int64_t from, const fa_norm *n) {
    return fa_norm_op(cx, fa_cols(cx, p, from, n->dim), n);
}

void fa_mamba1_add(fa_cx *cx, const fa_mamba1 *m, fa_tensor h, fa_tensor n, const fa_state *st, float scale) {
    const int64_t rank = m->dt.w.cols, N = m->scan.n_state;
    fa_tensor xz = fa_linear_op(cx, n, &m->in);
    fa_tensor x = fa_conv_op(cx, fa_from(cx, xz, 0), &m->conv, st);
    fa_tensor p = fa_linear_op(cx, x, &m->x), dt = m->norms ? part(cx, p, 0, &m->dt_norm) : fa_cols(cx, p, 0, rank);
    dt = fa_linear_op(cx, dt, &m->dt);
    fa_view b = m->norms ? fa_from(cx, part(cx, p, rank, &m->b_norm), 0) : fa_from(cx, p, rank),
            c = m->norms ? fa_from(cx, part(cx, p, rank + N, &m->c_norm), 0) : fa_from(cx, p, rank + N);
    fa_tensor y = fa_ssm1_op(cx, fa_from(cx, x, 0), fa_from(cx, dt, 0), b, c, &m->scan, st);
    fa_gate_norm(cx, y, fa_from(cx, xz, m->scan.dim), &m->gate);
    fa_tap(cx, "mixer_out", y);
    fa_linear_add(cx, h, y, &m->out, NULL, scale);
}

/* ---- in a dense decoder ---- */

static void dense_spec(const fa_dense_cfg *c, fa_kv_spec *spec) {
    fa_mamba1_spec((const fa_mamba1_cfg *)c->mix_cfg, spec);
}

static void dense_bind(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    if ((l->mix = fa_bind_alloc(b, 1, sizeof(fa_mamba1))))
        fa_mamba1_bind(b, (const fa_mamba1_cfg *)c->mix_cfg, (fa_mamba1 *)l->mix, i);
}

static void dense_add(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h, const fa_state *st) {
    fa_mamba1_add(cx, (const fa_mamba1 *)l->mix, h, fa_norm_op(cx, h, &l->attn_norm), st, c->residual_scale);
}

void fa_mamba1_mix(fa_cfg *r, fa_dense_cfg *d, const fa_mamba1_cfg *c) {
    static const fa_dense_mixer mixer = {dense_spec, dense_bind, dense_add};
    fa_mamba1_cfg *own = (fa_mamba1_cfg *)fa_dense_mixers(r, d, sizeof *own, &mixer);
    if (own) *own = *c;
}
