/* Adapters on the device against the CPU: ranks around the sizes that kernels work in pieces of, all types, several on
 * one matrix of which sequences use some, outputs instead of all rows, both input types, embeddings. */
#include "cuda/harness.h"

#include <math.h>
#include <string.h>

enum { MOST = 4 };

typedef struct ctx {
    harness *h;
    int64_t rows, in, out;
    fa_dtype type;
    const float *x, *y;
    hn_linear *w;
    hn_weight *table;
    fa_adapted at[2];
    bool outputs, embed;
} ctx;

/* What `n` adapters change on the matrix with id 1. */
static void make_loras(ctx *c, int n, const int64_t *rank, bool table, bool bias) {
    static const fa_fmt fmts[] = {FA_FMT_F32, FA_FMT_F16, FA_FMT_BF16};
    fa_lora *item[2];
    fa_loras *list[2];
    for (int s = 0; s < 2; s++) {
        item[s] = (fa_lora *)hn_host(c->h, MOST * sizeof(fa_lora));
        list[s] = (fa_loras *)hn_host(c->h, 4 * sizeof(fa_loras));
        fa_loras *l = &list[s][table ? 3 : 1];
        *l = (fa_loras){.n = n, .item = item[s]};
        c->at[s] = (fa_adapted){list[s], list[s] + 2, 2};
    }
    for (int i = 0; i < n; i++) {
        hn_weight *a = table ? hn_make_weight(c->h, (fa_weight){.fmt = (uint8_t)fmts[i % 3]}, c->in, rank[i])
                             : hn_make_weight(c->h, (fa_weight){.fmt = (uint8_t)fmts[i % 3]}, rank[i], c->in);
        hn_linear *b =
            hn_make_linear(c->h, (fa_weight){.fmt = (uint8_t)fmts[(i + 1) % 3]}, c->out, rank[i], bias && i % 2);
        for (int s = 0; s < 2; s++) {
            fa_loras *l = &list[s][table ? 3 : 1];
            item[s][i] = (fa_lora){.a = a->at[s],
                                   .b = b->at[s].w,
                                   .bias = b->at[s].bias,
                                   .scale = 0.25f * (float)(i + 1),
                                   .adapter = i,
                                   .u_from = l->rank};
            l->rank += rank[i];
            if (rank[i] > l->max_rank) l->max_rank = rank[i];
        }
    }
    list[HN_DEV][table ? 3 : 1].dev_item = (const fa_lora *)hn_upload(c->h, item[HN_DEV], (size_t)n * sizeof(fa_lora));
}

/* Sequence s uses adapter i when bit i of its number's pattern is set. */
static void choose(harness *h, int n_seq, int n) {
    static const unsigned patterns[] = {1, 0, 6, 15, 8, 3};
    for (int side = 0; side < 2; side++) {
        fa_batch *b = hn_batch(h, side);
        b->n_adapt = n;
        for (int s = 0; s < n_seq; s++)
            for (int i = 0; i < n; i++) b->adapt[s * n + i] = patterns[s % 6] >> i & 1 ? 0.5f + (float)s * 0.125f : 0;
    }
}

static void body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    cx->adapted = &c->at[side];
    if (c->embed) {
        hn_expect(c->h, side, "rows", fa_embed(cx, &c->table->at[side], 3.0f));
        return;
    }
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->in, c->type);
    hn_expect(c->h, side, "y", fa_linear_op(cx, x, &c->w->at[side]));
}

static void one(harness *h, int64_t in, int64_t out, int n, const int64_t *rank, const hn_seq *seq, int n_seq,
                int kind) {
    ctx c = {
        .h = h, .in = in, .out = out, .type = kind == 1 ? FA_BF16 : FA_F32, .outputs = kind == 2, .embed = kind == 3};
    hn_case(h, "%d adapters of [%lld, %lld], rank %lld, %d sequences, kind %d", n, (long long)out, (long long)in,
            (long long)rank[0], n_seq, kind);
    hn_seqs(h, seq, n_seq);
    choose(h, n_seq, n);
    c.rows = c.outputs ? hn_batch(h, 0)->n_out : hn_batch(h, 0)->n_tok;
    if (c.embed) {
        c.in = 1000; /* the harness's vocabulary */
        c.table = hn_make_weight(h, (fa_weight){.fmt = FA_FMT_F32}, c.in, out);
        c.table->at[0].id = c.table->at[1].id = 1;
    } else {
        float *x = hn_floats(h, c.rows * in, 1);
        for (int64_t j = 0; j < c.rows * in; j++) x[j] = floorf(x[j] * 32) / 32; /* bf16 holds it */
        c.x = x;
        c.w = hn_make_linear(h, (fa_weight){.fmt = FA_FMT_F32}, out, in, false);
        c.w->at[0].w.id = c.w->at[1].w.id = 1;
    }
    make_loras(&c, n, rank, c.embed, kind != 1 && !c.embed);
    hn_run(h, body, &c);
}

static void test_adapters(void **state) {
    harness *h = (harness *)*state;
    static const int64_t ranks[][MOST] = {{1, 3, 8, 16}, {64, 65, 2, 7}, {5, 200, 31, 1}, {128, 4, 63, 9}};
    static const int64_t sizes[][2] = {{64, 40}, {33, 129}, {260, 7}, {1, 1}, {512, 300}};
    static const hn_seq few[] = {{.past = 3, .n = 1}, {.n = 1}, {.past = 9, .n = 1}},
                        many[] = {{.past = 1, .n = 1},
                                  {.n = 1},
                                  {.n = 19, .n_out = 3},
                                  {.n = 13},
                                  {.past = 2, .n = 9, .n_out = 9}};
    for (int i = 0; i < 5; i++)
        for (int kind = 0; kind < 4; kind++) {
            const int64_t *r = ranks[(i + kind) % 4];
            one(h, sizes[i][0], sizes[i][1], 1 + (i + kind) % MOST, r, few, 3, kind);
            one(h, sizes[i][0], sizes[i][1], MOST - (i + kind) % MOST, r, many, 5, kind);
        }
}

/* A graph that was captured with one choice of adapters serves another one. */
static void test_repeats(void **state) {
    harness *h = (harness *)*state;
    static const int64_t rank[] = {12, 5};
    static const hn_seq few[] = {{.past = 3, .n = 1}, {.n = 1}, {.past = 9, .n = 1}};
    hn_repeats(h, 3);
    one(h, 96, 64, 2, rank, few, 3, 0);
    one(h, 96, 64, 2, rank, few, 3, 3);
    hn_repeats(h, 1);
}

static int open_exact(void **state) {
    *state = hn_open(&(hn_opts){.exact = true});
    return *state ? 0 : -1;
}
static int open_fast(void **state) {
    *state = hn_open(&(hn_opts){0});
    return *state ? 0 : -1;
}
static int shut(void **state) {
    hn_close((harness *)*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_adapters, open_exact, shut),
                                       cmocka_unit_test_setup_teardown(test_adapters, open_fast, shut),
                                       cmocka_unit_test_setup_teardown(test_repeats, open_exact, shut)};
    return cmocka_run_group_tests_name("adapters", tests, NULL, NULL);
}
