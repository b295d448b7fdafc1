/* Fused ops. Each function's composed branch is the definition; the other branch records one operation that the backend
 * must compute alike (tests/ops/test_fused.c). */
#include "ops/internal.h"

static double linear_flops(fa_tensor x, const fa_linear *w) {
    return 2 * (double)x.dim[0] * (double)w->w.rows * (double)w->w.cols;
}

static bool fuse(const fa_cx *cx, fa_op op) { return !cx->composed && cx->be->has_op[op]; }

/* What backends fuse: a plain RMS norm. */
static bool fuses_norm(const fa_norm *n) { return n && !n->center; }

/* ... of every head, if there is one. */
static bool fuses_head_norm(const fa_norm *n, int64_t head_dim) { return !n || (fuses_norm(n) && n->dim == head_dim); }

static bool fuses_qkv(const fa_cx *cx, const fa_norm *norm, const fa_qkv *w, const fa_kv *kv) {
    if (fa_cx_loras(cx, &w->q.w) || fa_cx_loras(cx, &w->k.w) || fa_cx_loras(cx, &w->v.w)) return false;
    if (w->q.order || w->k.order || w->v.order) return false;
    int64_t hd = kv->head_dim;
    return fuses_norm(norm) && w->clip == 0 && fuses_head_norm(w->q_norm, hd) && fuses_head_norm(w->k_norm, hd) &&
           fuses_head_norm(w->v_norm, hd);
}

/* In place: the norm of each head, or of the whole width. */
static void inner_norm(fa_cx *cx, fa_tensor x, const fa_norm *n) {
    if (!n || !fa_cx_ok(cx)) return;
    if (n->dim != x.dim[1]) {
        fa_head_norm(cx, x, n);
        return;
    }
    fa_rec r = {.in = {x}, .out = x, .bytes = 8.0 * (double)x.dim[0] * (double)x.dim[1]};
    r.p.norm = n;
    fa_cx_record(cx, FA_OP_NORM, &r);
}

fa_tensor fa_norm_qkv(fa_cx *cx, fa_tensor h, const fa_norm *norm, const fa_qkv *w, fa_tensor table, bool interleaved,
                      const fa_kv *kv) {
    if (!fuse(cx, FA_OP_NORM_QKV) || !fuses_qkv(cx, norm, w, kv)) {
        fa_tensor q = {0};
        if (fa_cx_ok(cx))
            q = fa_cx_tensor(cx, FA_OP_NORM_QKV, h.dim[0], w->q.w.rows); /* outlives the temporaries below */
        size_t mark = fa_arena_mark(cx->arena);
        bool own = w->k.w.rows > 0;
        fa_tensor n = norm ? fa_norm_op(cx, h, norm) : h, k = {0}, v = {0};
        if (own) k = fa_linear_op(cx, n, &w->k);
        if (own) v = fa_linear_op(cx, n, &w->v);
        fa_cx_linear(cx, q, n, &w->q);
        fa_tap(cx, "q_proj", q);
        fa_clamp(cx, q, w->clip);
        inner_norm(cx, q, w->q_norm);
        fa_rope_apply(cx, q, table, kv->head_dim, interleaved);
        if (own) {
            fa_tap(cx, "k_proj", k);
            fa_tap(cx, "v_proj", v);
            fa_clamp(cx, k, w->clip);
            fa_clamp(cx, v, w->clip);
            inner_norm(cx, k, w->k_norm);
            inner_norm(cx, v, w->v_norm);
            fa_rope_apply(cx, k, table, kv->head_dim, interleaved);
            fa_append(cx, k, v, kv);
        }
        fa_arena_reset(cx->arena, mark);
        return q;
    }
    fa_rec r = {.in = {h}};
    const fa_linear *lin[3] = {&w->q, &w->k, &w->v};
    const int n_lin = w->k.w.rows || w->v.w.rows ? 3 : 1;
    for (int i = 0; i < n_lin; i++)
        if (!fa_cx_check_cols(cx, FA_OP_NORM_QKV, h, lin[i]->w.cols, lin[i]->w.name ? lin[i]->w.name : "a projection"))
            return r.out;
    if (!fa_cx_check_cols(cx, FA_OP_NORM_QKV, h, norm->dim, "the norm weight")) return r.out;
    if ((n_lin == 3 && w->k.w.rows != kv->n_head * kv->head_dim) || w->v.w.rows != w->k.w.rows ||
        w->q.w.rows % kv->head_dim) {
        fa_cx_fail(cx, FA_OP_NORM_QKV, "q %lld, k %lld, v %lld rows for %lld kv heads of %lld", (long long)w->q.w.rows,
                   (long long)w->k.w.rows, (long long)w->v.w.rows, (long long)kv->n_head, (long long)kv->head_dim);
        return r.out;
    }
    r.out = fa_cx_tensor(cx, FA_OP_NORM_QKV, h.dim[0], w->q.w.rows); /* attention rounds it as it needs */
    r.p.qkv = (fa_qkv_param){.norm = norm,
                             .q = &w->q,
                             .k = n_lin == 3 ? &w->k : NULL,
                             .v = n_lin == 3 ? &w->v : NULL,
                             .q_norm = w->q_norm,
                             .k_norm = w->k_norm,
                             .v_norm = w->v_norm,
                             .kv = kv,
                             .rope_table = fa_f32(table),
                             .n_pair = table.data ? table.dim[1] / 2 : 0,
                             .interleaved = interleaved};
    for (int i = 0; i < n_lin; i++) {
        r.flops += linear_flops(h, lin[i]);
        r.bytes += fa_weight_traffic(&lin[i]->w) + 4.0 * (double)h.dim[0] * (double)lin[i]->w.rows;
    }
    fa_cx_record(cx, FA_OP_NORM_QKV, &r);
    return r.out;
}

void fa_linear_add(fa_cx *cx, fa_tensor h, fa_tensor x, const fa_linear *w, const fa_norm *post, float scale) {
    if (!fa_cx_ok(cx)) return;
    const fa_loras *l = fa_cx_loras(cx, &w->w);
    if (!fuse(cx, FA_OP_LINEAR_ADD) || scale != 1.0f || w->order || (l && (l->dora || post)) ||
        (post && !fuses_norm(post))) {
        size_t mark = fa_arena_mark(cx->arena);
        fa_tensor y = fa_linear_op(cx, x, w);
        if (post) y = fa_norm_op(cx, y, post);
        fa_add(cx, h, y, scale);
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
    fa_cx_lora(cx, h, x, w);
}

fa_tensor fa_norm_mlp_up(fa_cx *cx, fa_tensor h, const fa_norm *norm, const fa_linear *gate, const fa_linear *up,
                         fa_act_fn act) {
    fa_rec r = {.in = {h}};
    if (!fa_cx_ok(cx)) return r.out;
    if (up->w.rows && gate->w.rows != up->w.rows) {
        fa_cx_fail(cx, FA_OP_NORM_MLP_UP, "gate has %lld rows, up %lld", (long long)gate->w.rows,
                   (long long)up->w.rows);
        return r.out;
    }
    bool own = fa_cx_loras(cx, &gate->w) || fa_cx_loras(cx, &up->w) || gate->order || up->order;
    if (!fuse(cx, FA_OP_NORM_MLP_UP) || !fuses_norm(norm) || !up->w.rows || own) {
        r.out = fa_cx_tensor(cx, FA_OP_NORM_MLP_UP, h.dim[0], gate->w.rows); /* outlives the temporaries below */
        size_t mark = fa_arena_mark(cx->arena);
        fa_tensor n = norm ? fa_norm_op(cx, h, norm) : h, u = {0};
        fa_tensor g = fa_linear_op(cx, n, gate);
        if (up->w.rows) u = fa_linear_op(cx, n, up);
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
