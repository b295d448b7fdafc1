/* Front end of adapters: which matrices they change, and the records that add what they change. */
#include "ops/internal.h"

const fa_loras *fa_cx_loras(const fa_cx *cx, const fa_weight *w) {
    const fa_adapted *a = cx->adapted;
    return a && w->id && w->id < a->n && a->linear[w->id].n ? &a->linear[w->id] : NULL;
}

/* Bytes and arithmetic as if every row used every adapter: who does is known when it runs. */
static void estimate(fa_rec *r, const fa_loras *l, int64_t rows, bool table) {
    for (int i = 0; i < l->n; i++) {
        const fa_weight *a = &l->item[i].a, *b = &l->item[i].b;
        double a_rows = (double)(table ? rows : a->rows);
        r->bytes += a_rows * (double)a->row_bytes + fa_weight_traffic(b);
        r->flops += 2 * (double)rows * (double)b->rows * (double)b->cols;
        if (!table) r->flops += 2 * (double)rows * (double)a->rows * (double)a->cols;
    }
}

bool fa_cx_lora_rows(fa_cx *cx, fa_op op, const fa_weight *w, int64_t rows, bool *out_rows) {
    const fa_batch *b = cx->batch;
    *out_rows = rows != b->n_tok; /* as many outputs as rows: output i is row i */
    if (rows == b->n_tok || rows == b->n_out) return true;
    fa_cx_fail(cx, op, "%s: %lld rows are neither the batch's %d nor its %d outputs", w->name ? w->name : "a matrix",
               (long long)rows, b->n_tok, b->n_out);
    return false;
}

void fa_cx_lora(fa_cx *cx, fa_tensor y, fa_tensor x, const fa_linear *lin) {
    const fa_weight *w = &lin->w;
    const fa_loras *l = fa_cx_loras(cx, w);
    fa_rec r = {.in = {x}, .out = y};
    if (!l || !fa_cx_ok(cx) || !fa_cx_lora_rows(cx, FA_OP_LORA, w, x.dim[0], &r.p.lora.out_rows)) return;
    r.p.lora.list = l;
    r.p.lora.bias = lin->bias;
    r.bytes = 4 * (double)x.dim[0] * (double)(x.dim[1] + 2 * y.dim[1] + 2 * l->rank);
    estimate(&r, l, x.dim[0], false);
    fa_cx_record(cx, FA_OP_LORA, &r);
}

void fa_cx_lora_embed(fa_cx *cx, fa_tensor y, const fa_weight *w, float scale) {
    const fa_adapted *a = cx->adapted;
    if (!a || !w->id || w->id >= a->n || !a->embed[w->id].n || !fa_cx_ok(cx)) return;
    fa_rec r = {.out = y};
    r.p.lora.list = &a->embed[w->id];
    r.p.lora.embed = scale;
    r.bytes = 8 * (double)y.dim[0] * (double)y.dim[1];
    estimate(&r, r.p.lora.list, y.dim[0], true);
    fa_cx_record(cx, FA_OP_LORA_EMBED, &r);
}
