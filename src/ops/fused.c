/* Fused ops. Each function's composed branch is the definition; the other branch records one operation that the backend
 * must compute alike (tests/ops/test_fused.c). */
#include "ops/internal.h"

static double linear_flops(fa_tensor x, const fa_linear *w) {
    return 2 * (double)x.dim[0] * (double)w->w.rows * (double)w->w.cols;
}

static bool fuse(const fa_cx *cx, fa_op op) { return !cx->composed && cx->be->has_op[op]; }

fa_tensor fa_norm_qkv(fa_cx *cx, fa_tensor h, const fa_norm *norm, const fa_qkv *w, fa_tensor table, bool interleaved,
                      const fa_kv *kv) {
    if (!fuse(cx, FA_OP_NORM_QKV)) {
        fa_tensor q = {0};
        if (fa_cx_ok(cx))
            q = fa_cx_tensor(cx, FA_OP_NORM_QKV, h.dim[0], w->q.w.rows); /* outlives the temporaries below */
        size_t mark = fa_arena_mark(cx->arena);
        fa_tensor n = fa_rms_norm(cx, h, norm);
        fa_tensor k = fa_linear_op(cx, n, &w->k);
        fa_tensor v = fa_linear_op(cx, n, &w->v);
        fa_rec r = {.in = {n}, .out = q};
        r.p.linear = &w->q;
        r.flops = linear_flops(h, &w->q);
        r.bytes = fa_weight_traffic(&w->q.w);
        fa_cx_record(cx, FA_OP_LINEAR, &r);
        fa_tap(cx, "q_proj", q);
        fa_tap(cx, "k_proj", k);
        fa_tap(cx, "v_proj", v);
        if (w->q_norm) fa_head_norm(cx, q, w->q_norm);
        if (w->k_norm) fa_head_norm(cx, k, w->k_norm);
        fa_rope_apply(cx, q, table, kv->head_dim, interleaved);
        fa_rope_apply(cx, k, table, kv->head_dim, interleaved);
        fa_append(cx, k, v, kv);
        fa_arena_reset(cx->arena, mark);
        return q;
    }
    fa_rec r = {.in = {h}};
    const fa_linear *lin[3] = {&w->q, &w->k, &w->v};
    for (int i = 0; i < 3; i++)
        if (!fa_cx_check_cols(cx, FA_OP_NORM_QKV, h, lin[i]->w.cols, lin[i]->w.name ? lin[i]->w.name : "a projection"))
            return r.out;
    if (!fa_cx_check_cols(cx, FA_OP_NORM_QKV, h, norm->dim, "the norm weight")) return r.out;
    if (w->k.w.rows != kv->n_head * kv->head_dim || w->v.w.rows != w->k.w.rows || w->q.w.rows % kv->head_dim ||
        (w->q_norm && w->q_norm->dim != kv->head_dim) || (w->k_norm && w->k_norm->dim != kv->head_dim)) {
        fa_cx_fail(cx, FA_OP_NORM_QKV, "q %lld, k %lld, v %lld rows for %lld kv heads of %lld", (long long)w->q.w.rows,
                   (long long)w->k.w.rows, (long long)w->v.w.rows, (long long)kv->n_head, (long long)kv->head_dim);
        return r.out;
    }
    r.out = fa_cx_tensor(cx, FA_OP_NORM_QKV, h.dim[0], w->q.w.rows); /* attention rounds it as it needs */
    r.p.qkv = (fa_qkv_param){.norm = norm,
                             .q = &w->q,
                             .k = &w->k,
                             .v = &w->v,
                             .q_norm = w->q_norm,
                             .k_norm = w->k_norm,
                             .kv = kv,
                             .rope_table = fa_f32(table),
                             .n_pair = table.data ? table.dim[1] / 2 : 0,
                             .interleaved = interleaved};
    for (int i = 0; i < 3; i++) {
        r.flops += linear_flops(h, lin[i]);
        r.bytes += fa_weight_traffic(&lin[i]->w) + 4.0 * (double)h.dim[0] * (double)lin[i]->w.rows;
    }
    fa_cx_record(cx, FA_OP_NORM_QKV, &r);
    return r.out;
}

void fa_linear_add(fa_cx *cx, fa_tensor h, fa_tensor x, const fa_linear *w, const fa_norm *post) {
    if (!fa_cx_ok(cx)) return;
    if (!fuse(cx, FA_OP_LINEAR_ADD)) {
        size_t mark = fa_arena_mark(cx->arena);
        fa_tensor y = fa_linear_op(cx, x, w);
        if (post) y = fa_rms_norm(cx, y, post);
        fa_add(cx, h, y);
        fa_arena_reset(cx->arena, mark);
        return;
    }
    if (!fa_cx_check_cols(cx, FA_OP_LINEAR_ADD, x, w->w.cols, w->w.name ? w->w.name : "the weight")) return;
    if (!fa_cx_check_cols(cx, FA_OP_LINEAR_ADD, h, w->w.rows, "the output")) return;
    fa_rec r = {.in = {x}, .out = h};
    r.p.linear_add.lin = w;
    r.p.linear_add.post = post;
    r.flops = linear_flops(x, w);
    r.bytes = fa_weight_traffic(&w->w) + 4.0 * (double)x.dim[0] * (double)(w->w.cols + 2 * w->w.rows);
    fa_cx_record(cx, FA_OP_LINEAR_ADD, &r);
}

fa_tensor fa_norm_mlp_up(fa_cx *cx, fa_tensor h, const fa_norm *norm, const fa_linear *gate, const fa_linear *up,
                         fa_act_fn act) {
    fa_rec r = {.in = {h}};
    if (!fa_cx_ok(cx)) return r.out;
    if (gate->w.rows != up->w.rows) {
        fa_cx_fail(cx, FA_OP_NORM_MLP_UP, "gate has %lld rows, up %lld", (long long)gate->w.rows,
                   (long long)up->w.rows);
        return r.out;
    }
    if (!fuse(cx, FA_OP_NORM_MLP_UP)) {
        r.out = fa_cx_tensor(cx, FA_OP_NORM_MLP_UP, h.dim[0], gate->w.rows); /* outlives the temporaries below */
        size_t mark = fa_arena_mark(cx->arena);
        fa_tensor n = fa_rms_norm(cx, h, norm);
        fa_tensor g = fa_linear_op(cx, n, gate);
        fa_tensor u = fa_linear_op(cx, n, up);
        fa_rec glu = {.in = {g, u}, .out = r.out};
        glu.p.glu = act;
        fa_cx_record(cx, FA_OP_GLU, &glu);
        fa_arena_reset(cx->arena, mark);
        return r.out;
    }
    if (!fa_cx_check_cols(cx, FA_OP_NORM_MLP_UP, h, gate->w.cols, gate->w.name ? gate->w.name : "the gate"))
        return r.out;
    if (!fa_cx_check_cols(cx, FA_OP_NORM_MLP_UP, h, up->w.cols, up->w.name ? up->w.name : "up")) return r.out;
    if (!fa_cx_check_cols(cx, FA_OP_NORM_MLP_UP, h, norm->dim, "the norm weight")) return r.out;
    r.out = fa_cx_activation(cx, FA_OP_NORM_MLP_UP, h.dim[0], gate->w.rows);
    r.p.mlp_up.norm = norm;
    r.p.mlp_up.gate = gate;
    r.p.mlp_up.up = up;
    r.p.mlp_up.act = act;
    r.flops = linear_flops(h, gate) + linear_flops(h, up);
    r.bytes = fa_weight_traffic(&gate->w) + fa_weight_traffic(&up->w) +
              4.0 * (double)h.dim[0] * (double)(h.dim[1] + gate->w.rows);
    fa_cx_record(cx, FA_OP_NORM_MLP_UP, &r);
    return r.out;
}
