/* The Mamba 2 mixer: config keys, binding, and what it records. */
#include "blocks/mamba2.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const fa_mamba2_keys fa_mamba2_hybrid_keys = {.n_head = "mamba_n_heads",
                                              .head_dim = "mamba_d_head",
                                              .n_state = "mamba_d_state",
                                              .n_group = "mamba_n_groups",
                                              .kernel = "mamba_d_conv",
                                              .conv_bias = "mamba_conv_bias",
                                              .in_bias = "mamba_proj_bias",
                                              .act = "hidden_act"};

static int64_t read_int(fa_cfg *r, const char *key, int64_t otherwise, int64_t max) {
    return key ? fa_cfg_int(r, key, otherwise, 1, max) : otherwise;
}

/* A number, or infinity as transformers 5 ({"__float__": "Infinity"}) and other writers spell it. */
static float limit(fa_cfg *r, const fa_jnode *n) {
    const char *s = fa_jstr(fa_jtype_of(n) == FA_JOBJ ? fa_jget(n, "__float__") : n, NULL);
    if (s && (strcmp(s, "Infinity") == 0 || strcmp(s, "inf") == 0)) return INFINITY;
    double v = fa_jnum(n, NAN);
    if (!(v >= 0)) fa_cfg_fail(r, "\"time_step_limit\": a limit is not a number from 0 on");
    return v < FLT_MAX ? (float)v : INFINITY;
}

static void read_limits(fa_cfg *r, fa_mamba2_cfg *c) {
    const fa_jnode *n = fa_cfg_node(r, "time_step_limit");
    c->dt_min = 0;
    c->dt_max = INFINITY;
    if (!n) return;
    if (fa_jtype_of(n) != FA_JARR || fa_jlen(n) != 2) {
        fa_cfg_fail(r, "\"time_step_limit\" is no pair");
        return;
    }
    c->dt_min = limit(r, fa_jfirst(n));
    c->dt_max = limit(r, fa_jnext(fa_jfirst(n)));
    if (c->dt_min > c->dt_max)
        fa_cfg_fail(r, "\"time_step_limit\": %g is more than %g", (double)c->dt_min, (double)c->dt_max);
}

/* Sizes that do not fit each other become ones that do, after the error. */
static void check(fa_cfg *r, fa_mamba2_cfg *c, const fa_mamba2_keys *k) {
    if (c->head_dim < 1) {
        fa_cfg_fail(r, "\"%s\" %lld: heads of %lld columns in all", k->n_head, (long long)c->n_head,
                    (long long)c->width);
        c->head_dim = 1;
    }
    if (c->width && c->n_head * c->head_dim != c->width)
        fa_cfg_fail(r, "%lld Mamba heads of %lld columns are not the %lld of the mixer", (long long)c->n_head,
                    (long long)c->head_dim, (long long)c->width);
    c->width = c->n_head * c->head_dim;
    if (c->n_head % c->n_group)
        fa_cfg_fail(r, "\"%s\" %lld is no multiple of \"%s\" %lld", k->n_head, (long long)c->n_head, k->n_group,
                    (long long)c->n_group);
    if (fa_mamba2_in_rows(c) > 1 << 26)
        fa_cfg_fail(r, "the Mamba mixer's %lld rows are too many", (long long)fa_mamba2_in_rows(c));
}

void fa_mamba2_read(fa_cfg *r, fa_mamba2_cfg *c, const fa_mamba2_keys *k) {
    c->n_head = read_int(r, k->n_head, c->n_head, 65536);
    const char *head_dim = k->head_dim ? fa_jstr(fa_cfg_node(r, k->head_dim), NULL) : NULL;
    if (head_dim && strcmp(head_dim, "auto") == 0)
        c->head_dim = 0;
    else
        c->head_dim = read_int(r, k->head_dim, c->head_dim, 65536);
    if (!c->head_dim) c->head_dim = c->width / c->n_head;
    c->n_state = read_int(r, k->n_state, c->n_state, 65536);
    c->n_group = read_int(r, k->n_group, c->n_group, 65536);
    c->kernel = read_int(r, k->kernel, c->kernel, 256);
    if (k->conv_bias) c->conv_bias = fa_cfg_bool(r, k->conv_bias, c->conv_bias);
    if (k->in_bias) c->in_bias = c->out_bias = fa_cfg_bool(r, k->in_bias, c->in_bias);
    c->act = fa_cfg_act(r, k->act, "silu");
    c->decay_applied = fa_cfg_bool(r, "ffai_decay_applied", false);
    read_limits(r, c);
    check(r, c, k);
}

static int64_t channels(const fa_mamba2_cfg *c) { return c->width + 2 * c->n_group * c->n_state; }

int64_t fa_mamba2_in_rows(const fa_mamba2_cfg *c) { return c->width + channels(c) + c->n_head; }

void fa_mamba2_bind(fa_binder *b, const fa_mamba2_cfg *c, fa_mamba2 *l, bool *mlx, const char *fmt, ...) {
    char at[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(at, sizeof at, fmt, ap);
    va_end(ap);
    fa_bind_linear(b, &l->in, fa_mamba2_in_rows(c), c->dim, c->in_bias ? FA_BIAS : FA_NO_BIAS, "%s.in_proj", at);
    fa_bind_conv(b, &l->conv, channels(c), c->kernel, c->conv_bias ? FA_BIAS : FA_NO_BIAS, mlx, "%s.conv1d", at);
    l->conv.act = c->act;
    l->scan = (fa_ssd){.n_head = (int)c->n_head,
                       .head_dim = (int)c->head_dim,
                       .n_state = (int)c->n_state,
                       .n_group = (int)c->n_group,
                       .a = fa_bind_decay(b, c->n_head, 0, c->decay_applied, "%s.A_log", at),
                       .d = fa_bind_vector(b, c->n_head, 1, "%s.D", at),
                       .dt_bias = fa_bind_vector(b, c->n_head, 0, "%s.dt_bias", at),
                       .dt_min = c->dt_min,
                       .dt_max = c->dt_max};
    l->gate = (fa_gate){.act = FA_ACT_SILU, .norm_first = c->norm_first, .eps = (float)c->eps};
    if (c->norm) {
        fa_norm norm;
        fa_bind_norm(b, &norm, c->width, c->eps, 0, "%s.norm", at);
        l->gate.w = norm.w;
        l->gate.group = c->width / c->n_group;
    }
    fa_bind_linear(b, &l->out, c->dim, c->width, c->out_bias ? FA_BIAS : FA_NO_BIAS, "%s.out_proj", at);
}

void fa_mamba2_spec(const fa_mamba2_cfg *c, fa_kv_spec *spec) {
    spec->n_conv = (c->kernel - 1) * channels(c);
    spec->n_scan = c->width * c->n_state;
}

fa_tensor fa_mamba2_scan(fa_cx *cx, const fa_mamba2_cfg *c, const fa_mamba2 *l, fa_tensor n, const fa_state *st) {
    const int64_t bc = c->n_group * c->n_state;
    fa_tensor p = fa_linear_op(cx, n, &l->in);
    fa_scale_cols(cx, p, l->in_scale);
    fa_tensor u = fa_conv_op(cx, fa_from(cx, p, c->width), &l->conv, st);
    fa_tensor y = fa_ssd_op(cx, fa_from(cx, u, 0), fa_from(cx, p, c->width + channels(c)), fa_from(cx, u, c->width),
                            fa_from(cx, u, c->width + bc), &l->scan, st);
    fa_gate_norm(cx, y, fa_from(cx, p, 0), &l->gate);
    fa_tap(cx, "mix_out", y);
    return y;
}

void fa_mamba2_add(fa_cx *cx, const fa_mamba2_cfg *c, const fa_mamba2 *l, fa_tensor h, fa_tensor n, const fa_state *st,
                   float scale) {
    fa_linear_add(cx, h, fa_mamba2_scan(cx, c, l, n, st), &l->out, NULL, scale);
}

/* ---- in a dense decoder ---- */

static void dense_spec(const fa_dense_cfg *c, fa_kv_spec *spec) {
    fa_mamba2_spec((const fa_mamba2_cfg *)c->mix_cfg, spec);
}

static void dense_bind(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    const fa_mamba2_cfg *m = (const fa_mamba2_cfg *)c->mix_cfg;
    if ((l->mix = fa_bind_alloc(b, 1, sizeof(fa_mamba2))))
        fa_mamba2_bind(b, m, (fa_mamba2 *)l->mix, NULL, "model.layers.%d.%s", i, m->block);
}

static void dense_add(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h, const fa_state *st) {
    fa_mamba2_add(cx, (const fa_mamba2_cfg *)c->mix_cfg, (const fa_mamba2 *)l->mix, h, fa_norm_op(cx, h, &l->attn_norm),
                  st, c->residual_scale);
}

fa_mamba2_cfg *fa_mamba2_in_dense(fa_cfg *r, fa_dense_cfg *c) {
    static const fa_dense_mixer mixer = {dense_spec, dense_bind, dense_add};
    return (fa_mamba2_cfg *)fa_dense_mixers(r, c, sizeof(fa_mamba2_cfg), &mixer);
}
