/* Attention on a device against the CPU: the general, the decode and the prompt kernels at odd sizes. Caches hold NaN
 * wherever nothing was written; pages lie in a shuffled order. */
#include "cuda/harness.h"

#include <math.h>
#include <string.h>

typedef struct shape {
    int n_kv, group, head_dim;
    fa_dtype kv, q;
    float softcap;
    bool sink, tree;
    int window; /* page group 1 has it */
} shape;

typedef struct att_case {
    harness *h;
    const shape *s;
    hn_kv *kv;
    const float *q;
    float *sink[2];
    int n_tok;
} att_case;

static void body(fa_cx *cx, int side, void *arg) {
    att_case *c = arg;
    const shape *s = c->s;
    const int n_head = s->n_kv * s->group;
    const fa_attn attn = {n_head, s->n_kv, s->head_dim, 1.7f / sqrtf((float)s->head_dim), s->softcap, c->sink[side]};
    fa_tensor q = hn_input(c->h, cx, side, c->q, c->n_tok, (int64_t)n_head * s->head_dim, s->q);
    hn_expect(c->h, side, "attend", fa_attend(cx, q, &c->kv->at[side], &attn));
}

/* A cache that holds the new positions too. */
static hn_kv *full_kv(harness *h, const shape *s) {
    fa_batch *b = hn_batch(h, HN_CPU);
    for (int i = 0; i < b->n_seq; i++) b->len[i] += b->row_start[i + 1] - b->row_start[i];
    hn_kv *kv = hn_make_kv(h, s->n_kv, s->head_dim, s->kv, s->window ? 1 : 0);
    for (int i = 0; i < b->n_seq; i++) b->len[i] -= b->row_start[i + 1] - b->row_start[i];
    return kv;
}

/* Every new row sees itself, and of the new rows before it those that chance says. */
static void grow_tree(harness *h) {
    fa_batch *b = hn_batch(h, HN_CPU);
    uint64_t *tree = hn_host(h, (size_t)b->n_tok * sizeof *tree);
    for (int i = 0; i < b->n_seq; i++)
        for (int j = 0, n = b->row_start[i + 1] - b->row_start[i]; j < n && j < 64; j++)
            tree[b->row_start[i] + j] = (fa_rng_next(hn_rng(h)) & (((uint64_t)1 << j) - 1)) | (uint64_t)1 << j;
    for (int side = 0; side < 2; side++) hn_batch(h, side)->tree = tree;
}

static void run(harness *h, const shape *s, const hn_seq *seq, int n_seq) {
    att_case c = {.h = h, .s = s};
    hn_case(h, "%d x %d heads of %d, cache %s, q %s, softcap %g, sink %d, tree %d, window %d, %d sequences of %d + %d",
            s->n_kv, s->group, s->head_dim, fa_kv_type_name(s->kv), fa_dtype_name(s->q), (double)s->softcap, s->sink,
            s->tree, s->window, n_seq, seq[0].past, seq[0].n);
    hn_seqs(h, seq, n_seq);
    c.n_tok = hn_batch(h, HN_CPU)->n_tok;
    if (s->tree) grow_tree(h);
    c.kv = full_kv(h, s);
    c.q = hn_floats(h, (int64_t)c.n_tok * s->n_kv * s->group * s->head_dim, 2);
    if (s->sink) {
        c.sink[HN_CPU] = hn_floats(h, s->n_kv * s->group, 3);
        c.sink[HN_DEV] = hn_upload(h, c.sink[HN_CPU], (size_t)(s->n_kv * s->group) * sizeof(float));
    }
    hn_run(h, body, &c);
}

static harness *open_mode(bool exact) {
    harness *h =
        hn_open(&(hn_opts){.exact = exact, .max_rows = 600, .max_ctx = 3200, .n_group = 2, .window = {0, 100}});
    if (!exact) hn_limits(h, 6e-2, 1e-4);
    return h;
}

#define N(a) (int)(sizeof(a) / sizeof *(a))

/* ---- batches ---- */
static const hn_seq one[] = {{.past = 0, .n = 1}}, short63[] = {{.past = 62, .n = 1}},
                    short64[] = {{.past = 63, .n = 1}}, short65[] = {{.past = 64, .n = 1}},
                    mid[] = {{.past = 699, .n = 1}}, far[] = {{.past = 2999, .n = 1}};
static const hn_seq decode[] = {
    {.past = 5, .n = 1}, {.past = 1500, .n = 1}, {.past = 64, .n = 1}, {.past = 0, .n = 1}, {.past = 300, .n = 1}};
static const hn_seq few[] = {{.past = 130, .n = 3}, {.past = 1023, .n = 16}, {.past = 0, .n = 1}, {.past = 63, .n = 5}};
static const hn_seq prompt[] = {{.past = 0, .n = 150}}, chunk[] = {{.past = 318, .n = 70}};
static const hn_seq mixed[] = {
    {.past = 700, .n = 1}, {.past = 63, .n = 1}, {.past = 10, .n = 65}, {.past = 0, .n = 1}, {.past = 400, .n = 40}};

static void all_batches(harness *h, const shape *s) {
    run(h, s, one, N(one));
    run(h, s, decode, N(decode));
    run(h, s, few, N(few));
    run(h, s, chunk, N(chunk));
    run(h, s, mixed, N(mixed));
}

static void test_lengths(void **state) {
    (void)state;
    harness *h = open_mode(false);
    const shape s = {2, 4, 128, FA_F16, FA_BF16, 0, false, false, 0};
    run(h, &s, one, 1);
    run(h, &s, short63, 1);
    run(h, &s, short64, 1);
    run(h, &s, short65, 1);
    run(h, &s, mid, 1);
    run(h, &s, far, 1);
    run(h, &s, decode, N(decode));
    run(h, &s, few, N(few));
    run(h, &s, prompt, 1);
    run(h, &s, chunk, 1);
    run(h, &s, mixed, N(mixed));
    hn_repeats(h, 3); /* graphs; counters are zero again */
    run(h, &s, decode, N(decode));
    run(h, &s, far, 1);
    hn_close(h);
}

/* An 8-bit cache: tensor cores for heads of whole 16-byte pieces, else the general kernel. */
static void test_q8(void **state) {
    (void)state;
    static const shape s[] = {
        {2, 4, 128, FA_I8, FA_BF16, 0, false, false, 0},  {1, 2, 64, FA_I8, FA_F32, 0, true, false, 100},
        {1, 3, 80, FA_I8, FA_BF16, 20, false, false, 0},  {1, 1, 256, FA_I8, FA_BF16, 0, false, true, 0},
        {1, 2, 512, FA_I8, FA_BF16, 0, false, false, 70}, {2, 1, 16, FA_I8, FA_BF16, 0, false, false, 0},
        {1, 2, 36, FA_I8, FA_F32, 0, false, false, 0},    {1, 1, 192, FA_I8, FA_BF16, 0, true, false, 0},
        {1, 8, 96, FA_I8, FA_BF16, 0, false, false, 0},   {1, 9, 128, FA_I8, FA_F32, 0, true, false, 0},
        {2, 16, 64, FA_I8, FA_BF16, 3, false, false, 70}, {1, 32, 112, FA_I8, FA_BF16, 0, false, false, 0},
        {1, 2, 240, FA_I8, FA_F32, 0, false, false, 0},   {1, 3, 384, FA_I8, FA_BF16, 0, true, false, 100},
        {1, 12, 272, FA_I8, FA_BF16, 0, false, true, 0},  {1, 4, 48, FA_I8, FA_BF16, 0, false, true, 0}};
    for (int exact = 0; exact < 2; exact++) {
        harness *h = open_mode(exact);
        for (int i = 0; i < N(s); i++) {
            shape e = s[i];
            if (exact) e.q = FA_F32;
            run(h, &e, decode, N(decode));
            run(h, &e, few, 2);
            run(h, &e, chunk, 1);
            if (i < 2) {
                run(h, &e, mixed, N(mixed));
                run(h, &e, one, 1);
                run(h, &e, far, 1);
                run(h, &e, short64, 1);
            }
        }
        hn_close(h);
    }
}

static void test_heads(void **state) {
    (void)state;
    harness *h = open_mode(false);
    static const int dims[] = {8, 32, 64, 80, 96, 112, 160, 192, 256, 512, 2, 36, 66, 130, 500};
    static const int groups[] = {1, 2, 3, 5, 8, 16, 32};
    for (int i = 0; i < N(dims); i++) {
        const shape s = {1, 2, dims[i], i % 2 ? FA_F16 : FA_BF16, i % 3 ? FA_BF16 : FA_F32, 0, i % 4 == 3, false, 0};
        run(h, &s, decode, 2);
        run(h, &s, mixed, 3);
    }
    for (int i = 0; i < N(groups); i++) {
        const shape s = {2, groups[i], 64, i % 2 ? FA_BF16 : FA_F16, FA_BF16, 0, i % 2 == 0, false, 0};
        run(h, &s, decode, N(decode));
        run(h, &s, few, N(few));
        run(h, &s, chunk, 1);
    }
    hn_close(h);
}

/* More sequences than a warp has lanes, short and long ones side by side. */
static void test_many(void **state) {
    (void)state;
    harness *h = open_mode(false);
    static const shape s[] = {{1, 4, 64, FA_F16, FA_BF16, 0, false, false, 0},
                              {2, 2, 36, FA_BF16, FA_F32, 0, true, false, 100},
                              {1, 4, 64, FA_I8, FA_BF16, 0, false, false, 0}};
    hn_seq seq[40];
    for (int few_rows = 0; few_rows < 2; few_rows++)
        for (int i = 0; i < N(s); i++) {
            for (int j = 0; j < N(seq); j++)
                seq[j] = (hn_seq){.past = j % 7 == 3 ? 900 + 40 * j : 5 * j, .n = few_rows && j > 2 ? 1 + j % 3 : 1};
            run(h, &s[i], seq, N(seq));
        }
    hn_close(h);
}

static void test_masks(void **state) {
    (void)state;
    harness *h = open_mode(false);
    static const shape s[] = {
        {2, 2, 64, FA_F16, FA_BF16, 0, false, false, 100}, {1, 4, 128, FA_BF16, FA_F32, 5, true, false, 100},
        {2, 3, 96, FA_F16, FA_BF16, 2, true, true, 0},     {1, 2, 128, FA_F16, FA_BF16, 0, true, true, 100},
        {1, 2, 256, FA_BF16, FA_BF16, 50, true, false, 0}, {1, 2, 36, FA_F32, FA_BF16, 3, true, true, 100},
        {1, 1, 512, FA_F16, FA_BF16, 0, false, true, 100}};
    static const hn_seq few_new[] = {{.past = 700, .n = 8}, {.past = 0, .n = 3}, {.past = 65, .n = 1}};
    static const hn_seq more_new[] = {{.past = 90, .n = 33}, {.past = 400, .n = 64}, {.past = 0, .n = 2}};
    for (int i = 0; i < N(s); i++) {
        if (!s[i].tree) {
            all_batches(h, &s[i]);
            continue;
        }
        run(h, &s[i], few_new, N(few_new));
        run(h, &s[i], more_new, N(more_new));
    }
    hn_close(h);
}

/* Tiles in pairs (groups of an odd number of heads), pairs of different sequences among them, several blocks of keys.
 */
static void test_pairs(void **state) {
    (void)state;
    harness *h = open_mode(false);
    static const shape s[] = {
        {3, 1, 128, FA_F16, FA_BF16, 0, false, false, 0},  {1, 3, 64, FA_BF16, FA_F32, 0, true, false, 100},
        {2, 1, 256, FA_BF16, FA_BF16, 0, true, false, 0},  {1, 5, 96, FA_F16, FA_F32, 20, false, false, 100},
        {1, 1, 192, FA_F16, FA_BF16, 0, false, false, 70}, {1, 6, 128, FA_BF16, FA_BF16, 0, true, false, 100}};
    static const hn_seq seq[] = {{.past = 300, .n = 131}, {.past = 0, .n = 150}, {.past = 37, .n = 64},
                                 {.past = 5, .n = 20},    {.past = 0, .n = 1},   {.past = 511, .n = 65}};
    static const hn_seq chunk_far[] = {{.past = 1000, .n = 1}, {.past = 1021, .n = 200}};
    for (int i = 0; i < N(s); i++) {
        run(h, &s[i], seq, N(seq));
        run(h, &s[i], chunk_far, N(chunk_far));
    }
    hn_repeats(h, 3); /* counters are zero again */
    run(h, &s[0], seq, N(seq));
    hn_close(h);
}

static void test_exact(void **state) {
    (void)state;
    harness *h = open_mode(true);
    static const shape s[] = {
        {2, 4, 64, FA_F32, FA_F32, 0, false, false, 0},   {1, 2, 128, FA_F16, FA_F32, 4, true, false, 100},
        {2, 1, 80, FA_BF16, FA_F32, 0, true, false, 0},   {1, 16, 32, FA_F32, FA_F32, 0, false, false, 100},
        {1, 3, 256, FA_F32, FA_F32, 30, false, false, 0}, {1, 1, 512, FA_F16, FA_F32, 0, true, false, 0},
        {3, 2, 18, FA_F32, FA_F32, 0, false, false, 100}};
    for (int i = 0; i < N(s); i++) all_batches(h, &s[i]);
    run(h, &s[0], far, 1);
    hn_repeats(h, 3);
    run(h, &s[1], decode, N(decode));
    hn_close(h);
}

/* Rows that see nothing, as those that pad a decode step, give zeros. */

static void test_blind_rows(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        harness *h = open_mode(exact);
        const shape s = {1, 2, 64, FA_F16, FA_F32, 0, false, false, 0};
        att_case c = {.h = h, .s = &s};
        hn_case(h, "rows that see nothing");
        hn_seqs(h, mixed, N(mixed));
        for (int side = 0; side < 2; side++) {
            fa_batch *b = hn_batch(h, side);
            for (int i = 0; i < b->n_tok; i += 3) b->kv_lo[0][i] = b->kv_hi[i] = 0;
        }
        c.n_tok = hn_batch(h, HN_CPU)->n_tok;
        c.kv = full_kv(h, &s);
        c.q = hn_floats(h, (int64_t)c.n_tok * 2 * 64, 2);
        hn_run(h, body, &c);
        hn_close(h);
    }
}

/* Rows of a block see all of it, those of other sequences beside them nothing behind themselves. */
static void test_blocks(void **state) {
    (void)state;
    static const hn_seq blocks[][3] = {{{.past = 700, .n = 8}, {.past = 0, .n = 3}, {.past = 65, .n = 16}},
                                       {{.past = 90, .n = 33}, {.past = 400, .n = 64}, {.past = 0, .n = 70}}};
    for (int k = 0; k < 4; k++) {
        const bool exact = k / 2;
        harness *h = open_mode(exact);
        const shape s = {2, 2, 64, FA_F16, exact ? FA_F32 : FA_BF16, 0, false, false, 0};
        att_case c = {.h = h, .s = &s};
        hn_case(h, "blocks, case %d", k);
        hn_seqs(h, blocks[k % 2], 3);
        for (int side = 0; side < 2; side++) {
            fa_batch *b = hn_batch(h, side);
            for (int i = 0; i < b->n_tok; i++)
                if (b->row_seq[i] != 1) b->kv_hi[i] = b->len[b->row_seq[i]];
        }
        c.n_tok = hn_batch(h, HN_CPU)->n_tok;
        c.kv = full_kv(h, &s);
        c.q = hn_floats(h, (int64_t)c.n_tok * 4 * 64, 2);
        hn_run(h, body, &c);
        hn_close(h);
    }
}

static void test_refused(void **state) {
    (void)state;
    harness *h = open_mode(false);
    static const shape s[] = {{1, 1, 33, FA_F32, FA_F32, 0, false, false, 0},
                              {1, 1, 514, FA_F16, FA_F32, 0, false, false, 0}};
    for (int i = 0; i < N(s); i++) {
        att_case c = {.h = h, .s = &s[i]};
        hn_case(h, "head_dim %d", s[i].head_dim);
        hn_seqs(h, one, 1);
        c.n_tok = 1;
        c.kv = full_kv(h, &s[i]);
        c.q = hn_floats(h, s[i].head_dim, 1);
        assert_non_null(strstr(hn_refused(h, body, &c), "head_dim"));
    }
    hn_close(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lengths), cmocka_unit_test(test_q8),
                                       cmocka_unit_test(test_heads),   cmocka_unit_test(test_many),
                                       cmocka_unit_test(test_masks),   cmocka_unit_test(test_pairs),
                                       cmocka_unit_test(test_exact),   cmocka_unit_test(test_blind_rows),
                                       cmocka_unit_test(test_blocks),  cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests_name("cuda.attend", tests, NULL, NULL);
}
