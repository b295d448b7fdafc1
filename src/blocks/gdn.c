/* The gated delta net: config keys, binding in three layouts of checkpoints, recording. */
#include "blocks/gdn.h"

#include <stdio.h>
#include <string.h>

static int64_t keys_of(const fa_gdn_cfg *c) { return (int64_t)c->n_k_head * c->k_dim; }
static int64_t values_of(const fa_gdn_cfg *c) { return (int64_t)c->n_v_head * c->v_dim; }

/* ---- config ---- */

void fa_gdn_read(fa_cfg *r, fa_gdn_cfg *c, const fa_gdn_cfg *d) {
    *c = *d;
    c->act = fa_cfg_act(r, "hidden_act", "silu");
    c->n_k_head = (int)fa_cfg_int(r, "linear_num_key_heads", d->n_k_head, 1, 65536);
    c->n_v_head = (int)fa_cfg_int(r, "linear_num_value_heads", d->n_v_head, 1, 65536);
    c->k_dim = (int)fa_cfg_int(r, "linear_key_head_dim", d->k_dim ? d->k_dim : 1, 1, 4096);
    c->v_dim = (int)fa_cfg_int(r, "linear_value_head_dim", d->v_dim ? d->v_dim : 2 * (int64_t)c->k_dim, 1, 8192);
    c->kernel = (int)fa_cfg_int(r, "linear_conv_kernel_dim", d->kernel, 1, 256);
    if (!r->err.code && c->n_v_head % c->n_k_head)
        fa_cfg_fail(r, "linear_num_value_heads %d is no multiple of linear_num_key_heads %d", c->n_v_head, c->n_k_head);
}

static void dense_spec(const fa_dense_cfg *c, fa_kv_spec *spec) { fa_gdn_spec((const fa_gdn_cfg *)c->mix_cfg, spec); }

static void dense_bind(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    fa_gdn *w = (fa_gdn *)fa_bind_alloc(b, 1, sizeof *w);
    if (w) fa_gdn_bind(b, (const fa_gdn_cfg *)c->mix_cfg, w, c->dim, i);
    l->mix = w;
}

static void dense_add(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h, const fa_state *st) {
    const fa_gdn *w = (const fa_gdn *)l->mix;
    fa_tensor y = fa_gdn_op(cx, w, fa_norm_op(cx, h, &l->attn_norm), st);
    fa_tap(cx, "attn_out", y);
    fa_linear_add(cx, h, y, &w->out, NULL, c->residual_scale);
}

void *fa_gdn_in_dense(fa_cfg *r, fa_dense_cfg *c, size_t size) {
    static const fa_dense_mixer mixer = {dense_spec, dense_bind, dense_add};
    return fa_dense_mixers(r, c, size, &mixer);
}

void fa_gdn_layers(fa_cfg *r, fa_dense_cfg *c, bool (*linear)(const void *user, int64_t layer), const void *user) {
    static const fa_layer_kind names[] = {{"full_attention", 0}, {"linear_attention", 1}, {NULL, 0}};
    if (fa_cfg_layer_kinds(r, "layer_types", names, c->n_layer, c->layer_mix)) return;
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->layer_mix[i] = linear(user, i);
}

/* ---- weights ---- */

enum { NAME = 128 };

/* in_proj_qkvz has for each key head its rows of q, of k, of its values, and of their gates. */
static void bind_qkvz(fa_binder *b, const fa_gdn_cfg *c, fa_gdn *w, int64_t dim, const char *name) {
    const int64_t key = c->k_dim, value = (int64_t)(c->n_v_head / c->n_k_head) * c->v_dim, each = 2 * key + 2 * value;
    const fa_stripe qkv[] = {{each, 0, key}, {each, key, key}, {each, 2 * key, value}},
                    z = {each, 2 * key + value, value};
    fa_bind_stripes(b, &w->qkv, dim, c->n_k_head * each, FA_NO_BIAS, 3, qkv, "%s", name);
    fa_bind_stripes(b, &w->z, dim, c->n_k_head * each, FA_NO_BIAS, 1, &z, "%s", name);
}

static void bind_projections(fa_binder *b, const fa_gdn_cfg *c, fa_gdn *w, int64_t dim, const char *block) {
    int64_t share = c->n_v_head / c->n_k_head, keys = keys_of(c), values = values_of(c);
    char name[NAME];
    bool random = fa_bind_random(b) && c->kind == FA_GDN_GROUPED;
    snprintf(name, sizeof name, "%s.in_proj_qkvz", block);
    if (random || fa_bind_has(b, "%s", name)) {
        bind_qkvz(b, c, w, dim, name);
    } else {
        fa_bind_linear(b, &w->qkv, 2 * keys + values, dim, FA_NO_BIAS, "%s.in_proj_qkv", block);
        fa_bind_linear(b, &w->z, values, dim, FA_NO_BIAS, "%s.in_proj_z", block);
    }
    snprintf(name, sizeof name, "%s.in_proj_ba", block);
    if (random || fa_bind_has(b, "%s", name)) {
        const fa_stripe beta = {2 * share, 0, share}, a = {2 * share, share, share};
        fa_bind_stripes(b, &w->b, dim, 2 * (int64_t)c->n_v_head, FA_NO_BIAS, 1, &beta, "%s", name);
        fa_bind_stripes(b, &w->a, dim, 2 * (int64_t)c->n_v_head, FA_NO_BIAS, 1, &a, "%s", name);
    } else {
        fa_bind_linear(b, &w->b, c->n_v_head, dim, FA_NO_BIAS, "%s.in_proj_b", block);
        fa_bind_linear(b, &w->a, c->n_v_head, dim, FA_NO_BIAS, "%s.in_proj_a", block);
    }
    fa_bind_conv(b, &w->conv[0], 2 * keys + values, c->kernel, FA_NO_BIAS, &w->mlx, "%s.conv1d", block);
    fa_bind_linear(b, &w->out, dim, values, FA_NO_BIAS, "%s.out_proj", block);
}

static void bind_each(fa_binder *b, const fa_gdn_cfg *c, fa_gdn *w, int64_t dim, const char *block) {
    static const char letter[] = {'q', 'k', 'v'};
    fa_linear *const to[] = {&w->q, &w->k, &w->v};
    const int64_t rows[] = {keys_of(c), keys_of(c), values_of(c)};
    char name[3][NAME];
    int64_t at = 0;
    for (int i = 0; i < 3; i++) {
        snprintf(name[i], NAME, "%s.%c_conv1d", block, letter[i]);
        fa_bind_linear(b, to[i], rows[i], dim, FA_NO_BIAS, "%s.%c_proj", block, letter[i]);
    }
    fa_bind_conv_parts(b, w->conv, 3, (const char *const[]){name[0], name[1], name[2]}, rows, c->kernel, &w->mlx);
    for (int i = 0; i < 3; i++) {
        w->conv[i].state_at = at;
        at += rows[i] * (c->kernel - 1);
    }
    fa_bind_linear(b, &w->z, values_of(c), dim, FA_NO_BIAS, "%s.g_proj", block);
    fa_bind_linear(b, &w->b, c->n_v_head, dim, FA_NO_BIAS, "%s.b_proj", block);
    fa_bind_linear(b, &w->a, c->n_v_head, dim, FA_NO_BIAS, "%s.a_proj", block);
    fa_bind_linear(b, &w->out, dim, values_of(c), FA_NO_BIAS, "%s.o_proj", block);
}

void fa_gdn_bind(fa_binder *b, const fa_gdn_cfg *c, fa_gdn *w, int64_t dim, int layer) {
    const bool each = c->kind == FA_GDN_EACH;
    char block[NAME / 2];
    snprintf(block, sizeof block, "model.layers.%d.linear_attn", layer);
    w->cfg = c;
    (each ? bind_each : bind_projections)(b, c, w, dim, block);
    for (int i = 0; i < 3; i++) w->conv[i].act = c->act;
    w->delta = (fa_delta){.n_k_head = c->n_k_head,
                          .n_v_head = c->n_v_head,
                          .k_dim = c->k_dim,
                          .v_dim = c->v_dim,
                          .decay = fa_bind_decay(b, c->n_v_head, 0, c->decay_applied, "%s.A_log", block),
                          .dt_bias = fa_bind_vector(b, c->n_v_head, 0, "%s.dt_bias", block),
                          .beta_scale = c->beta_scale,
                          .eps = 1e-6f,
                          .tiled = c->tiled};
    w->gate = (fa_gate){.group = c->v_dim,
                        .w = fa_bind_vector(b, c->v_dim, 1, "%s.%s.weight", block, each ? "o_norm" : "norm"),
                        .shared = true,
                        .norm_first = true,
                        .eps = (float)c->norm_eps,
                        .act = FA_ACT_SILU};
}

/* ---- forward ---- */

void fa_gdn_spec(const fa_gdn_cfg *c, fa_kv_spec *spec) {
    *spec =
        (fa_kv_spec){.n_conv = (c->kernel - 1) * (2 * keys_of(c) + values_of(c)), .n_scan = values_of(c) * c->k_dim};
}

fa_tensor fa_gdn_op(fa_cx *cx, const fa_gdn *w, fa_tensor x, const fa_state *st) {
    const fa_gdn_cfg *c = w->cfg;
    /* first, so that convolution, rule and gate follow each other: devices do them at once */
    fa_tensor z = fa_linear_op(cx, x, &w->z), b = fa_linear_op(cx, x, &w->b), a = fa_linear_op(cx, x, &w->a);
    fa_view part[3];
    if (c->kind == FA_GDN_EACH) {
        const fa_linear *const from[] = {&w->q, &w->k, &w->v};
        for (int i = 0; i < 3; i++)
            part[i] = fa_from(cx, fa_conv_op(cx, fa_from(cx, fa_linear_op(cx, x, from[i]), 0), &w->conv[i], st), 0);
    } else {
        fa_tensor qkv = fa_conv_op(cx, fa_from(cx, fa_linear_op(cx, x, &w->qkv), 0), &w->conv[0], st);
        for (int i = 0; i < 3; i++) part[i] = fa_from(cx, qkv, i * keys_of(c));
    }
    fa_tensor y = fa_delta_op(cx, part[0], part[1], part[2], fa_from(cx, b, 0), fa_from(cx, a, 0), &w->delta, st);
    fa_tap(cx, "scan_out", y);
    fa_gate_norm(cx, y, fa_from(cx, z, 0), &w->gate);
    return y;
}
