/* Front end of the primitives: shape rules, outputs, records. */
#include "ops/internal.h"

static double n_elem(fa_tensor t) { return (double)t.dim[0] * (double)t.dim[1]; }

fa_tensor fa_embed(fa_cx *cx, const fa_weight *w, float scale) {
    int64_t n = cx->batch->n_tok;
    fa_rec r = {.out = fa_cx_tensor(cx, FA_OP_EMBED, n, w->cols)};
    r.p.embed.w = w;
    r.p.embed.scale = scale;
    r.bytes = (double)n * (fa_weight_traffic(w) / (double)w->rows + 4.0 * (double)w->cols);
    fa_cx_record(cx, FA_OP_EMBED, &r);
    fa_cx_lora_embed(cx, r.out, w, scale);
    return r.out;
}

fa_tensor fa_rope_table(fa_cx *cx, const fa_rope *rope) {
    fa_rec r = {0};
    if (rope->n_pair == 0) return r.out;
    r.out = fa_cx_tensor(cx, FA_OP_ROPE_TABLE, cx->batch->n_tok, 2 * rope->n_pair);
    r.p.rope_table = rope;
    r.bytes = 4 * n_elem(r.out);
    r.flops = 20 * n_elem(r.out);
    fa_cx_record(cx, FA_OP_ROPE_TABLE, &r);
    return r.out;
}

fa_tensor fa_norm_op(fa_cx *cx, fa_tensor x, const fa_norm *w) {
    fa_rec r = {.in = {x}};
    if (!fa_cx_check_cols(cx, FA_OP_NORM, x, w->dim, "the norm weight")) return r.out;
    r.out = fa_cx_tensor(cx, FA_OP_NORM, x.dim[0], x.dim[1]);
    r.p.norm = w;
    r.bytes = 8 * n_elem(x);
    r.flops = 4 * n_elem(x);
    fa_cx_record(cx, FA_OP_NORM, &r);
    return r.out;
}

fa_tensor fa_pick_cols(fa_cx *cx, fa_tensor x, const float *order, int64_t n) {
    fa_rec r = {.in = {x}};
    if (!fa_cx_check_cols(cx, FA_OP_PICK_COLS, x, n, "the order of columns")) return r.out;
    r.out = fa_cx_tensor(cx, FA_OP_PICK_COLS, x.dim[0], n);
    r.p.pick_cols = order;
    r.bytes = 8 * n_elem(r.out);
    fa_cx_record(cx, FA_OP_PICK_COLS, &r);
    return r.out;
}

void fa_cx_linear(fa_cx *cx, fa_tensor y, fa_tensor x, const fa_linear *w) {
    if (!fa_cx_ok(cx)) return;
    const size_t mark = fa_arena_mark(cx->arena);
    fa_rec r = {.in = {w->order ? fa_pick_cols(cx, x, w->order, w->w.cols) : x}, .out = y};
    r.p.linear = w;
    r.bytes = fa_weight_traffic(&w->w) + 4 * (n_elem(x) + n_elem(y));
    r.flops = 2 * (double)x.dim[0] * (double)w->w.rows * (double)w->w.cols;
    fa_cx_record(cx, FA_OP_LINEAR, &r);
    fa_arena_reset(cx->arena, mark);
    fa_cx_lora(cx, y, x, w);
}

fa_tensor fa_linear_op(fa_cx *cx, fa_tensor x, const fa_linear *w) {
    fa_rec r = {.in = {x}};
    if (!fa_cx_check_cols(cx, FA_OP_LINEAR, x, w->w.cols, w->w.name ? w->w.name : "the weight")) return r.out;
    if (cx->inputs) fa_tap(cx, w->w.name, x);
    r.out = fa_cx_tensor(cx, FA_OP_LINEAR, x.dim[0], w->w.rows);
    fa_cx_linear(cx, r.out, x, w);
    return r.out;
}

void fa_head_norm(fa_cx *cx, fa_tensor x, const fa_norm *w) {
    if (!fa_cx_ok(cx)) return;
    if (w->dim <= 0 || x.dim[1] % w->dim) {
        fa_cx_fail(cx, FA_OP_HEAD_NORM, "heads of %lld do not divide rows of %lld", (long long)w->dim,
                   (long long)x.dim[1]);
        return;
    }
    fa_rec r = {.out = x};
    r.p.norm = w;
    r.bytes = 8 * n_elem(x);
    r.flops = 4 * n_elem(x);
    fa_cx_record(cx, FA_OP_HEAD_NORM, &r);
}

void fa_rope_apply(fa_cx *cx, fa_tensor x, fa_tensor table, int64_t head_dim, bool interleaved) {
    if (!fa_cx_ok(cx) || !table.data) return;
    if (head_dim <= 0 || x.dim[1] % head_dim || table.dim[1] > head_dim || table.dim[0] != x.dim[0]) {
        fa_cx_fail(cx, FA_OP_ROPE, "x [%lld, %lld], head_dim %lld, table [%lld, %lld]", (long long)x.dim[0],
                   (long long)x.dim[1], (long long)head_dim, (long long)table.dim[0], (long long)table.dim[1]);
        return;
    }
    fa_rec r = {.out = x};
    r.p.rope.table = fa_f32(table);
    r.p.rope.n_pair = table.dim[1] / 2;
    r.p.rope.head_dim = head_dim;
    r.p.rope.interleaved = interleaved;
    r.bytes = 8 * n_elem(x);
    r.flops = 3 * n_elem(x);
    fa_cx_record(cx, FA_OP_ROPE, &r);
}

void fa_append(fa_cx *cx, fa_tensor k, fa_tensor v, const fa_kv *kv) {
    if (!fa_cx_check_cols(cx, FA_OP_APPEND, k, kv->n_head * kv->head_dim, "the key cache")) return;
    if (!fa_cx_check_cols(cx, FA_OP_APPEND, v, kv->n_head * kv->head_dim, "the value cache")) return;
    fa_rec r = {.in = {k, v}};
    r.p.append.kv = kv;
    r.bytes = 2 * (4 * n_elem(k) + (double)(k.dim[0] * kv->n_head * fa_kv_row_bytes(kv->dtype, kv->head_dim)));
    fa_cx_record(cx, FA_OP_APPEND, &r);
}

fa_tensor fa_glu(fa_cx *cx, fa_tensor gate, fa_tensor up, fa_act_fn act) {
    fa_rec r = {.in = {gate, up}};
    if (up.data && !fa_cx_check_cols(cx, FA_OP_GLU, up, gate.dim[1], "the gate")) return r.out;
    r.out = fa_cx_tensor(cx, FA_OP_GLU, gate.dim[0], gate.dim[1]);
    r.p.glu = act;
    r.bytes = 12 * n_elem(gate);
    r.flops = 10 * n_elem(gate);
    fa_cx_record(cx, FA_OP_GLU, &r);
    return r.out;
}

void fa_add(fa_cx *cx, fa_tensor y, fa_tensor x, float scale) {
    if (!fa_cx_check_cols(cx, FA_OP_ADD, x, y.dim[1], "y")) return;
    fa_rec r = {.out = y, .in = {x}};
    r.p.add = scale;
    r.bytes = 12 * n_elem(x);
    r.flops = n_elem(x);
    fa_cx_record(cx, FA_OP_ADD, &r);
}

fa_tensor fa_out_rows(fa_cx *cx, fa_tensor x) {
    fa_rec r = {.in = {x}, .out = fa_cx_tensor(cx, FA_OP_ROWS, cx->batch->n_out, x.dim[1])};
    r.bytes = 8 * n_elem(r.out);
    fa_cx_record(cx, FA_OP_ROWS, &r);
    return r.out;
}

void fa_softcap(fa_cx *cx, fa_tensor x, float cap) {
    if (cap == 0.0f) return;
    fa_rec r = {.out = x};
    r.p.softcap = cap;
    r.bytes = 8 * n_elem(x);
    r.flops = 10 * n_elem(x);
    fa_cx_record(cx, FA_OP_SOFTCAP, &r);
}

void fa_scale(fa_cx *cx, fa_tensor x, float scale) {
    if (scale == 1.0f) return;
    fa_rec r = {.out = x};
    r.p.scale = scale;
    r.bytes = 8 * n_elem(x);
    r.flops = n_elem(x);
    fa_cx_record(cx, FA_OP_SCALE, &r);
}

void fa_clamp(fa_cx *cx, fa_tensor x, float limit) {
    if (limit == 0.0f) return;
    fa_rec r = {.out = x};
    r.p.clamp = limit;
    r.bytes = 8 * n_elem(x);
    r.flops = 2 * n_elem(x);
    fa_cx_record(cx, FA_OP_CLAMP, &r);
}

fa_tensor fa_cols(fa_cx *cx, fa_tensor x, int64_t from, int64_t n) {
    fa_rec r = {.in = {x}};
    if (!fa_cx_ok(cx)) return r.out;
    if (from < 0 || n < 1 || from > x.dim[1] - n) {
        fa_cx_fail(cx, FA_OP_COLS, "columns %lld to %lld of %lld", (long long)from, (long long)(from + n),
                   (long long)x.dim[1]);
        return r.out;
    }
    r.out = fa_cx_tensor(cx, FA_OP_COLS, x.dim[0], n);
    r.p.cols = from;
    r.bytes = 8 * n_elem(r.out);
    fa_cx_record(cx, FA_OP_COLS, &r);
    return r.out;
}

void fa_row_gate(fa_cx *cx, fa_tensor x, fa_tensor gate, fa_act_fn act) {
    if (!fa_cx_check_cols(cx, FA_OP_ROW_GATE, gate, 1, "a gate per row")) return;
    fa_rec r = {.out = x, .in = {gate}};
    r.p.row_gate = act;
    r.bytes = 8 * n_elem(x);
    r.flops = n_elem(x);
    fa_cx_record(cx, FA_OP_ROW_GATE, &r);
}

/* Decode steps with few (sequence, kv head) pairs are cut along the keys so that every thread has work. A device finds
 * its own cut: it knows the lengths when it runs, a program does not. */
static int split_count(const fa_cx *cx, const fa_attn *a) {
    const fa_batch *b = cx->batch;
    if (b->max_q != 1 || cx->be->n_thread == 1 || cx->be->dev) return 1;
    int pairs = b->n_seq * a->n_kv_head, want = (2 * cx->be->n_thread + pairs - 1) / pairs;
    return want < 1 ? 1 : want > 32 ? 32 : want;
}

fa_tensor fa_attend(fa_cx *cx, fa_tensor q, const fa_kv *kv, const fa_attn *a) {
    fa_rec r = {.in = {q}};
    if (!fa_cx_check_cols(cx, FA_OP_ATTEND, q, (int64_t)a->n_head * a->head_dim, "q")) return r.out;
    if (kv->n_head != a->n_kv_head || kv->head_dim != a->head_dim || a->n_head % a->n_kv_head) {
        fa_cx_fail(cx, FA_OP_ATTEND, "cache has %lld heads of %lld, attention %d of %d for %d query heads",
                   (long long)kv->n_head, (long long)kv->head_dim, a->n_kv_head, a->head_dim, a->n_head);
        return r.out;
    }
    r.out = fa_cx_activation(cx, FA_OP_ATTEND, q.dim[0], q.dim[1]);
    r.p.attend = (fa_attend_param){kv, a->sink, a->scale, a->softcap, a->n_head, a->head_dim, split_count(cx, a)};
    r.bytes = 8 * n_elem(q); /* the keys are counted by the engine, which knows the lengths */
    fa_cx_record(cx, FA_OP_ATTEND, &r);
    return r.out;
}
