/* A layer of a model as a family records it, every operation at once: what one operation's test cannot see (types that
 * operations hand on, the order of launches, graphs), for all formats, exact and fast, plainly and as graphs. */
#include "cuda/harness.h"

typedef struct layer {
    harness *h;
    hn_weight *table;
    hn_linear *q, *k, *v, *o, *gate, *up, *down, *head;
    hn_norm *norm1, *norm2, *post, *q_norm, *k_norm, *last;
    hn_kv *kv;
    fa_rope rope;
    fa_qkv qkv[2]; /* records point to it */
    fa_attn attn;
    int dim;
} layer;

static void body(fa_cx *cx, int side, void *arg) {
    layer *l = arg;
    fa_tensor h = fa_embed(cx, &l->table->at[side], 1.5f);
    fa_tensor rope = fa_rope_table(cx, &l->rope);
    const size_t mark = fa_layer_begin(cx, 3);
    l->qkv[side] = (fa_qkv){.q = l->q->at[side],
                            .k = l->k->at[side],
                            .v = l->v->at[side],
                            .q_norm = &l->q_norm->at[side],
                            .k_norm = &l->k_norm->at[side]};
    fa_tensor q = fa_norm_qkv(cx, h, &l->norm1->at[side], &l->qkv[side], rope, false, &l->kv->at[side]);
    fa_tensor a = fa_attend(cx, q, &l->kv->at[side], &l->attn);
    fa_linear_add(cx, h, a, &l->o->at[side], &l->post->at[side], 1);
    fa_tensor m = fa_norm_mlp_up(cx, h, &l->norm2->at[side], &l->gate->at[side], &l->up->at[side], FA_ACT_SILU);
    fa_linear_add(cx, h, m, &l->down->at[side], NULL, 1);
    fa_layer_end(cx, mark);
    hn_expect(l->h, side, "h", h);
    if (cx->batch->n_out) {
        fa_tensor x = fa_norm_op(cx, fa_out_rows(cx, h), &l->last->at[side]);
        fa_tensor y = fa_linear_op(cx, x, &l->head->at[side]);
        fa_softcap(cx, y, 30);
        hn_expect(l->h, side, "logits", y);
    }
    hn_expect_kv(l->h, side, l->kv);
}

static void make(layer *l, fa_weight kind, fa_dtype kv) {
    enum { HEADS = 4, KV = 2, HEAD = 64, DIM = 256, FFN = 512 };
    static float freq[HEAD / 2];
    harness *h = l->h;
    for (int i = 0; i < HEAD / 2; i++) freq[i] = 1.0f / (float)(1 + i * i);
    l->rope = (fa_rope){.n_pair = HEAD / 2, .inv_freq = freq, .mscale = 1};
    l->attn = (fa_attn){HEADS, KV, HEAD, 0.125f, 0, NULL};
    l->table = hn_make_weight(h, kind, 1000, DIM);
    l->q = hn_make_linear(h, kind, HEADS * HEAD, DIM, true);
    l->k = hn_make_linear(h, kind, KV * HEAD, DIM, true);
    l->v = hn_make_linear(h, kind, KV * HEAD, DIM, false);
    l->o = hn_make_linear(h, kind, DIM, HEADS * HEAD, false);
    l->gate = hn_make_linear(h, kind, FFN, DIM, false);
    l->up = hn_make_linear(h, kind, FFN, DIM, false);
    l->down = hn_make_linear(h, kind, DIM, FFN, false);
    l->head = hn_make_linear(h, kind, 77, DIM, false);
    l->norm1 = hn_make_norm(h, DIM, 1, true), l->norm2 = hn_make_norm(h, DIM, 0, true);
    l->post = hn_make_norm(h, DIM, 0, true), l->last = hn_make_norm(h, DIM, 0, false);
    l->q_norm = hn_make_norm(h, HEAD, 0, true), l->k_norm = hn_make_norm(h, HEAD, 0, true);
    l->kv = hn_make_kv(h, KV, HEAD, kv, 0);
}

static void run_all(bool exact) {
    layer l = {.h = hn_open(&(hn_opts){.exact = exact})};
    /* a decode step, a prompt, and both together */
    const hn_seq decode[3] = {{5, 1, 1}, {0, 1, 1}, {130, 1, 1}}, mixed[3] = {{70, 1, 1}, {3, 21, 2}, {0, 2, -1}};
    for (int i = 0; i < hn_n_kinds; i++)
        for (int s = 0; s < 2; s++) {
            char text[32];
            hn_case(l.h, "%s layer, %s, %s", exact ? "exact" : "fast", fa_weight_fmt_text(&hn_kinds[i], text),
                    s ? "mixed" : "decode");
            hn_seqs(l.h, s ? mixed : decode, 3);
            make(&l, hn_kinds[i], i % 3 == 0 ? FA_F32 : i % 3 == 1 ? FA_F16 : FA_BF16);
            /* the cache rounds: a value near the middle of two 16-bit floats may go either way */
            if (exact)
                hn_limits(l.h, i % 3 ? 2e-2 : 2e-4, i % 3 ? 1e-5 : 1e-9);
            else
                hn_limits(l.h, 0.2, 1e-3);
            hn_repeats(l.h, s ? 1 : 3);
            hn_run(l.h, body, &l);
        }
    hn_close(l.h);
}

static void test_exact(void **state) {
    (void)state;
    run_all(true);
}
static void test_fast(void **state) {
    (void)state;
    run_all(false);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_fast)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
