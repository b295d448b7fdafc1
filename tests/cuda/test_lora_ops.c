/* Adapters on the device against the CPU: ranks around the sizes that kernels work in pieces of, all types, several on
 * one matrix of which sequences use some, outputs instead of all rows, both input types, embeddings; magnitudes;
 * experts of which adapters change some. */
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
static void make_loras(ctx *c, int n, const int64_t *rank, bool table, bool bias, bool dora) {
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
        const bool by_token = table && i % 3 == 2;
        const int64_t n_mag = !dora || i == 1 ? 0 : by_token ? c->in : c->out;
        float *mag = n_mag ? hn_floats(c->h, 4 * n_mag, 1) : NULL;
        for (int64_t j = 0; j < 2 * n_mag; j++) mag[j] = fabsf(mag[j]) + 0.5f;
        const float *mags[2] = {mag, mag ? hn_upload(c->h, mag, (size_t)n_mag * 16) : NULL};
        for (int s = 0; s < 2; s++) {
            fa_loras *l = &list[s][table ? 3 : 1];
            l->dora = l->dora || mag;
            item[s][i] = (fa_lora){.a = a->at[s],
                                   .mag = mags[s],
                                   .n_mag = n_mag,
                                   .by_token = by_token,
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

/* kind % 4: 0 plain, 1 bf16 rows, 2 outputs, 3 an embedding; from 4 on with magnitudes. */
static void one(harness *h, int64_t in, int64_t out, int n, const int64_t *rank, const hn_seq *seq, int n_seq,
                int kind) {
    const bool dora = kind >= 4;
    kind %= 4;
    ctx c = {
        .h = h, .in = in, .out = out, .type = kind == 1 ? FA_BF16 : FA_F32, .outputs = kind == 2, .embed = kind == 3};
    hn_case(h, "%d adapters of [%lld, %lld], rank %lld, %d sequences, kind %d%s", n, (long long)out, (long long)in,
            (long long)rank[0], n_seq, kind, dora ? " with magnitudes" : "");
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
        c.w = hn_make_linear(h, (fa_weight){.fmt = FA_FMT_F32}, out, in, dora);
        c.w->at[0].w.id = c.w->at[1].w.id = 1;
    }
    make_loras(&c, n, rank, c.embed, kind != 1 && !c.embed && !dora, dora);
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
        for (int kind = 0; kind < 8; kind++) {
            const int64_t *r = ranks[(i + kind) % 4];
            one(h, sizes[i][0], sizes[i][1], 1 + (i + kind) % MOST, r, few, 3, kind);
            one(h, sizes[i][0], sizes[i][1], MOST - (i + kind) % MOST, r, many, 5, kind);
        }
}

/* ---- experts ---- */

typedef struct experts {
    harness *h;
    fa_moe moe[2];
    fa_adapted at[2];
    int64_t rows, dim;
    int n_used;
    const float *x, *choice;
} experts;

static void moe_body(fa_cx *cx, int side, void *arg) {
    experts *c = (experts *)arg;
    cx->adapted = &c->at[side];
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->dim, FA_F32);
    fa_tensor choice = hn_input(c->h, cx, side, c->choice, c->rows, 2 * c->n_used, FA_F32);
    fa_tensor h = hn_input(c->h, cx, side, c->x, c->rows, c->dim, FA_F32);
    fa_moe_add(cx, h, x, choice, &c->moe[side], 0.5f);
    hn_expect(c->h, side, "h", h);
}

/* A stack with id `id`, and what n adapters change on it: adapter i has matrices for the experts e with (e + i) % 3. */
static void make_experts(experts *c, uint32_t id, fa_weight kind, int n_expert, int64_t rows, int64_t cols, int n,
                         const int64_t *rank, fa_experts *cpu, fa_experts *dev) {
    hn_weight *all = hn_make_weight(c->h, kind, n_expert * rows, cols);
    fa_lora *item[2] = {hn_host(c->h, MOST * sizeof(fa_lora)), hn_host(c->h, MOST * sizeof(fa_lora))};
    for (int side = 0; side < 2; side++) {
        fa_experts *e = side ? dev : cpu;
        *e = (fa_experts){.n = n_expert, .w = (fa_weight *)hn_host(c->h, (size_t)n_expert * sizeof *e->w)};
        for (int i = 0; i < n_expert; i++) {
            e->w[i] = all->at[side];
            e->w[i].rows = rows;
            e->w[i].codes += (size_t)(i * rows) * e->w[i].row_bytes;
            if (e->w[i].scales) e->w[i].scales += (size_t)(i * rows) * e->w[i].scale_row_bytes;
            if (e->w[i].biases) e->w[i].biases += (size_t)(i * rows) * e->w[i].scale_row_bytes;
        }
        e->w[0].id = id;
    }
    fa_loras l = {.n = n};
    for (int i = 0; i < n; i++) {
        int32_t *map = hn_ints(c->h, n_expert, 1), k = 0;
        for (int e = 0; e < n_expert; e++) map[e] = (e + i) % 3 ? k++ : -1;
        hn_weight *a = hn_make_weight(c->h, (fa_weight){.fmt = i ? FA_FMT_BF16 : FA_FMT_F32}, (k + 1) * rank[i], cols),
                  *b = hn_make_weight(c->h, (fa_weight){.fmt = i ? FA_FMT_F16 : FA_FMT_F32}, (k + 1) * rows, rank[i]);
        const int32_t *maps[2] = {map, hn_upload(c->h, map, (size_t)n_expert * 4)};
        for (int s = 0; s < 2; s++)
            item[s][i] = (fa_lora){.a = a->at[s],
                                   .b = b->at[s],
                                   .expert = maps[s],
                                   .scale = 0.25f * (float)(i + 1),
                                   .adapter = i,
                                   .u_from = l.rank};
        l.rank += rank[i];
        if (rank[i] > l.max_rank) l.max_rank = rank[i];
    }
    for (int s = 0; s < 2; s++) {
        l.item = item[s];
        l.dev_item = s ? (const fa_lora *)hn_upload(c->h, item[s], (size_t)n * sizeof(fa_lora)) : NULL;
        ((fa_loras *)(uintptr_t)c->at[s].linear)[id] = l;
    }
}

/* which: bits of gate, up, down that adapters change; without bit 3 there are no gates. */
static void one_moe(harness *h, fa_weight kind, int64_t dim, int64_t ff, int n_expert, int n_used, const hn_seq *seq,
                    int n_seq, unsigned which) {
    static const int64_t ranks[] = {3, 70, 8};
    experts c = {.h = h, .dim = dim, .n_used = n_used};
    hn_case(h, "%d of %d experts [%lld, %lld], changes %u, %d sequences", n_used, n_expert, (long long)ff,
            (long long)dim, which, n_seq);
    hn_seqs(h, seq, n_seq);
    choose(h, n_seq, 3);
    c.rows = hn_batch(h, 0)->n_tok;
    for (int s = 0; s < 2; s++) {
        c.at[s] = (fa_adapted){(fa_loras *)hn_host(h, 4 * sizeof(fa_loras)), NULL, 4};
        c.moe[s].act = FA_ACT_SILU;
    }
    if (which & 8)
        make_experts(&c, which & 1 ? 1 : 0, kind, n_expert, ff, dim, 2, ranks, &c.moe[0].gate, &c.moe[1].gate);
    make_experts(&c, which & 2 ? 2 : 0, kind, n_expert, ff, dim, 3, ranks, &c.moe[0].up, &c.moe[1].up);
    make_experts(&c, which & 4 ? 3 : 0, kind, n_expert, dim, ff, 1, ranks, &c.moe[0].down, &c.moe[1].down);
    float *x = hn_floats(h, c.rows * dim, 1), *choice = hn_floats(h, c.rows * 2 * n_used, 1);
    for (int64_t i = 0; i < c.rows * dim; i++) x[i] = floorf(x[i] * 64) / 64;
    for (int64_t m = 0; m < c.rows; m++) {
        int32_t *id = (int32_t *)(void *)(choice + (m * 2 + 1) * n_used), *from = hn_ints(h, 1, n_expert);
        for (int k = 0; k < n_used; k++) id[k] = (*from + k) % n_expert;
    }
    c.x = x, c.choice = choice;
    hn_run(h, moe_body, &c);
}

static void test_experts(void **state) {
    harness *h = (harness *)*state;
    static const fa_weight kinds[] = {{.fmt = FA_FMT_BF16},
                                      {.fmt = FA_FMT_F32},
                                      {.fmt = FA_FMT_AFFINE, .bits = 4, .group = 64, .scale_dtype = FA_BF16},
                                      {.fmt = FA_FMT_Q8_0}};
    static const hn_seq few[] = {{.past = 3, .n = 1}, {.n = 1}, {.past = 9, .n = 1}},
                        many[] = {{.past = 1, .n = 1}, {.n = 1}, {.n = 19}, {.n = 13}, {.past = 2, .n = 40}};
    for (int k = 0; k < 4; k++)
        for (unsigned which = 1; which < 16; which += k ? 3 : 1) {
            if (!(which & 7)) continue;
            one_moe(h, kinds[k], k > 1 ? 128 : 72, k > 1 ? 192 : 41, 7, 3, few, 3, which);
            one_moe(h, kinds[k], k > 1 ? 192 : 130, k > 1 ? 64 : 40, 5, 2, many, 5, which);
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
    one(h, 96, 64, 2, rank, few, 3, 4);
    one_moe(h, (fa_weight){.fmt = FA_FMT_BF16}, 64, 96, 6, 2, few, 3, 15);
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
                                       cmocka_unit_test_setup_teardown(test_experts, open_exact, shut),
                                       cmocka_unit_test_setup_teardown(test_experts, open_fast, shut),
                                       cmocka_unit_test_setup_teardown(test_repeats, open_exact, shut)};
    return cmocka_run_group_tests_name("adapters", tests, NULL, NULL);
}
