/* Front end of the recurrent layers: shape rules, outputs, records. */
#include "ops/internal.h"

fa_view fa_from(fa_cx *cx, fa_tensor t, int64_t col) {
    fa_view v = {0};
    if (!fa_cx_ok(cx)) return v;
    if (t.dim[0] != cx->batch->n_tok || col < 0 || col >= t.dim[1] || t.dtype != FA_F32) {
        fa_cx_fail(cx, FA_OP_COLS, "column %lld of [%lld, %lld]", (long long)col, (long long)t.dim[0],
                   (long long)t.dim[1]);
        return v;
    }
    v.at = fa_f32(t) + col;
    v.stride = t.dim[1];
    v.n_col = t.dim[1] - col;
    return v;
}

/* x must have at least n columns. */
static bool wide(fa_cx *cx, fa_op op, fa_view x, int64_t n, const char *what) {
    if (!fa_cx_ok(cx)) return false;
    if (n > 0 && x.n_col >= n) return true;
    fa_cx_fail(cx, op, "%s has %lld columns, %lld are wanted", what, (long long)x.n_col, (long long)n);
    return false;
}

static fa_tensor out_of(fa_cx *cx, fa_op op, int64_t n_col) { return fa_cx_tensor(cx, op, cx->batch->n_tok, n_col); }

/* Bytes of n floats of state, read and written by every sequence. */
static double state_bytes(const fa_cx *cx, int64_t n) { return 8.0 * (double)cx->batch->n_seq * (double)n; }

fa_tensor fa_conv_op(fa_cx *cx, fa_view x, const fa_conv *w, const fa_state *st) {
    fa_rec r = {0};
    if (!wide(cx, FA_OP_CONV, x, w->n, "the input")) return r.out;
    r.out = out_of(cx, FA_OP_CONV, w->n);
    r.p.conv.x = x;
    r.p.conv.w = w;
    r.p.conv.state = st;
    double n = (double)cx->batch->n_tok * (double)w->n;
    r.flops = 2 * n * w->kernel;
    r.bytes = 8 * n + 4 * (double)(w->n * w->kernel) + state_bytes(cx, w->n * (w->kernel - 1));
    fa_cx_record(cx, FA_OP_CONV, &r);
    const bool own = w->act == FA_ACT_SILU || w->act == FA_ACT_LINEAR;
    return own ? r.out : fa_glu(cx, r.out, (fa_tensor){0}, w->act);
}

fa_tensor fa_ssm1_op(fa_cx *cx, fa_view x, fa_view dt, fa_view b, fa_view c, const fa_ssm1 *w, const fa_state *st) {
    fa_rec r = {0};
    if (!wide(cx, FA_OP_SSM1, x, w->dim, "x") || !wide(cx, FA_OP_SSM1, dt, w->dim, "dt") ||
        !wide(cx, FA_OP_SSM1, b, w->n_state, "B") || !wide(cx, FA_OP_SSM1, c, w->n_state, "C"))
        return r.out;
    r.out = out_of(cx, FA_OP_SSM1, w->dim);
    r.p.ssm1.x = x, r.p.ssm1.dt = dt, r.p.ssm1.b = b, r.p.ssm1.c = c;
    r.p.ssm1.w = w;
    r.p.ssm1.state = st;
    double n = (double)cx->batch->n_tok * (double)w->dim, cells = (double)(w->dim * w->n_state);
    r.flops = n * (8 * (double)w->n_state + 10);
    r.bytes = 12 * n + 4 * cells + state_bytes(cx, w->dim * w->n_state);
    fa_cx_record(cx, FA_OP_SSM1, &r);
    return r.out;
}

fa_tensor fa_ssd_op(fa_cx *cx, fa_view x, fa_view dt, fa_view b, fa_view c, const fa_ssd *w, const fa_state *st) {
    fa_rec r = {0};
    int64_t dim = (int64_t)w->n_head * w->head_dim, bc = (int64_t)w->n_group * w->n_state;
    if (!wide(cx, FA_OP_SSD, x, dim, "x") || !wide(cx, FA_OP_SSD, dt, w->n_head, "dt") ||
        !wide(cx, FA_OP_SSD, b, bc, "B") || !wide(cx, FA_OP_SSD, c, bc, "C"))
        return r.out;
    if (w->n_head % w->n_group) {
        fa_cx_fail(cx, FA_OP_SSD, "%d heads in %d groups", w->n_head, w->n_group);
        return r.out;
    }
    r.out = out_of(cx, FA_OP_SSD, dim);
    r.p.ssd.x = x, r.p.ssd.dt = dt, r.p.ssd.b = b, r.p.ssd.c = c;
    r.p.ssd.w = w;
    r.p.ssd.state = st;
    double n = (double)cx->batch->n_tok;
    r.flops = n * (double)dim * (5 * w->n_state + 2);
    r.bytes = 4 * n * (double)(2 * dim + 2 * bc + w->n_head) + state_bytes(cx, dim * w->n_state);
    fa_cx_record(cx, FA_OP_SSD, &r);
    return r.out;
}

fa_tensor fa_delta_op(fa_cx *cx, fa_view q, fa_view k, fa_view v, fa_view beta, fa_view a, const fa_delta *w,
                      const fa_state *st) {
    fa_rec r = {0};
    int64_t keys = (int64_t)w->n_k_head * w->k_dim, values = (int64_t)w->n_v_head * w->v_dim;
    if (!wide(cx, FA_OP_DELTA, q, keys, "q") || !wide(cx, FA_OP_DELTA, k, keys, "k") ||
        !wide(cx, FA_OP_DELTA, v, values, "v") || !wide(cx, FA_OP_DELTA, beta, w->n_v_head, "beta") ||
        !wide(cx, FA_OP_DELTA, a, w->n_v_head, "a"))
        return r.out;
    if (w->n_v_head % w->n_k_head) {
        fa_cx_fail(cx, FA_OP_DELTA, "%d value heads share %d key heads", w->n_v_head, w->n_k_head);
        return r.out;
    }
    r.out = out_of(cx, FA_OP_DELTA, values);
    r.p.delta.q = q, r.p.delta.k = k, r.p.delta.v = v, r.p.delta.beta = beta, r.p.delta.a = a;
    r.p.delta.w = w;
    r.p.delta.state = st;
    double n = (double)cx->batch->n_tok;
    r.flops = n * (double)values * (7 * w->k_dim);
    r.bytes = 4 * n * (double)(2 * keys + 2 * values + 2 * w->n_v_head) + state_bytes(cx, values * w->k_dim);
    fa_cx_record(cx, FA_OP_DELTA, &r);
    return r.out;
}

void fa_gate_norm(fa_cx *cx, fa_tensor y, fa_view z, const fa_gate *w) {
    if (!wide(cx, FA_OP_GATE_NORM, z, y.dim[1], "the gate")) return;
    if (w->group && y.dim[1] % w->group) {
        fa_cx_fail(cx, FA_OP_GATE_NORM, "groups of %lld in rows of %lld", (long long)w->group, (long long)y.dim[1]);
        return;
    }
    fa_rec r = {.out = y};
    r.p.gate_norm.z = z;
    r.p.gate_norm.w = w;
    r.flops = 8 * (double)y.dim[0] * (double)y.dim[1];
    r.bytes = 12 * (double)y.dim[0] * (double)y.dim[1];
    fa_cx_record(cx, FA_OP_GATE_NORM, &r);
}

void fa_scale_cols(fa_cx *cx, fa_tensor x, const float *s) {
    if (!fa_cx_ok(cx) || !s) return;
    fa_rec r = {.out = x, .bytes = 8 * (double)x.dim[0] * (double)x.dim[1]};
    r.p.scale_cols = s;
    r.flops = (double)x.dim[0] * (double)x.dim[1];
    fa_cx_record(cx, FA_OP_SCALE_COLS, &r);
}
