/* Picks of the device against the CPU sampler's, which define them: the same tokens for the same seeds, over random
 * rows, options, histories and masks; ties, hopeless rows, many rows at once, vocabularies of odd and of large size.
 * Cut and draw fall on one side of a rounding error now and then, so a few picks in thousands may differ. With
 * --bench: time of picks over 262144 tokens, read back one by one. */
#include "cuda/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/sampler.h"

enum { SLOTS = 40, CTX = 64 };

typedef struct bench {
    harness *h;
    int64_t vocab;
    void *work;
    float *x, *copy; /* [SLOTS, vocab] */
    uint32_t *mask;  /* [SLOTS, (vocab + 31) / 32] */
    int32_t *ids;    /* [SLOTS, CTX] */
    ffai_logit_bias bias[4];
    long picks, differ;
} bench;

static bench open_bench(int64_t vocab) {
    bench b = {.h = hn_open(&(hn_opts){.vocab = vocab, .max_seq = SLOTS, .max_ctx = CTX}), .vocab = vocab};
    size_t n = (size_t)SLOTS * (size_t)vocab;
    b.work = aligned_alloc(64, ((size_t)vocab * FA_SAMPLER_WORK + 63) / 64 * 64);
    b.x = malloc(n * sizeof *b.x);
    b.copy = malloc(n * sizeof *b.x);
    b.mask = malloc(SLOTS * ((size_t)vocab + 31) / 32 * 4 + SLOTS * 4);
    b.ids = malloc(SLOTS * CTX * sizeof *b.ids);
    assert_true(b.work && b.x && b.copy && b.mask && b.ids);
    return b;
}

static void close_bench(bench *b) {
    hn_close(b->h);
    free(b->work);
    free(b->x);
    free(b->copy);
    free(b->mask);
    free(b->ids);
}

static uint64_t some(bench *b, uint64_t below) { return fa_rng_next(hn_rng(b->h)) % below; }
static float one_of(bench *b, const float *v, int n) { return v[some(b, (uint64_t)n)]; }

/* Sum of uniform numbers: bell-shaped, deviation 1. */
static float bell(bench *b) {
    uint64_t r = fa_rng_next(hn_rng(b->h));
    float s = 0;
    for (int i = 0; i < 4; i++) s += (float)(r >> 16 * i & 0xFFFF) / 65536.0f - 0.5f;
    return s * 1.7320508f;
}

enum { ROW_PLAIN, ROW_FLAT, ROW_PEAKED, ROW_TIES, ROW_HOLES, ROW_EQUAL, ROW_FAR, ROW_INFINITE, ROW_NONE, ROW_KINDS };

static void fill_row(bench *b, float *x, int kind) {
    for (int64_t i = 0; i < b->vocab; i++) {
        float v = bell(b);
        x[i] = kind == ROW_FLAT ? 0.01f * v : kind == ROW_EQUAL ? 1.5f : kind == ROW_FAR ? 300 * v : 3 * v;
        if (kind == ROW_TIES) x[i] = roundf(2 * v) / 2;
        if (kind == ROW_NONE) x[i] = i % 2 ? NAN : -INFINITY;
        if (kind == ROW_HOLES && some(b, 4) == 0) x[i] = some(b, 2) ? NAN : -INFINITY;
    }
    if (kind == ROW_PEAKED) x[some(b, (uint64_t)b->vocab)] = 40;
    for (int i = 0; kind == ROW_INFINITE && i < 2; i++) x[some(b, (uint64_t)b->vocab)] = INFINITY;
}

#define ONE_OF(...) one_of(b, (const float[]){__VA_ARGS__}, (int)(sizeof((float[]){__VA_ARGS__}) / sizeof(float)))

static ffai_sampling some_options(bench *b) {
    ffai_sampling o = {.seed = fa_rng_next(hn_rng(b->h))};
    o.temp = ONE_OF(0, 0.2f, 0.7f, 1, 1, 1, 1.7f, 1.7f, 60, 1e-39f);
    if (some(b, 2)) o.top_k = (int)ONE_OF(1, 2, 5, 40, 40, 500, 5000, 1e6f);
    if (some(b, 2)) o.top_p = ONE_OF(0.001f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999f, 1);
    if (some(b, 3) == 0) o.min_p = ONE_OF(0.001f, 0.05f, 0.5f, 1);
    if (some(b, 4) == 0) o.top_n_sigma = ONE_OF(0.1f, 1, 3);
    if (some(b, 3) == 0) {
        o.repeat_penalty = ONE_OF(0, 1, 1.3f, 0.7f);
        o.presence_penalty = ONE_OF(0, 0.5f, -1);
        o.frequency_penalty = ONE_OF(0, 0.25f, -0.5f);
        o.repeat_last = (int)ONE_OF(0, 1, 7, 1000);
    }
    return o;
}

static fa_pick_opts device_options(const ffai_sampling *o, int slot, int32_t n) {
    return (fa_pick_opts){.slot = slot,
                          .n_history = n,
                          .temp = o->temp,
                          .top_p = o->top_p,
                          .min_p = o->min_p,
                          .top_n_sigma = o->top_n_sigma,
                          .top_k = o->top_k,
                          .repeat = o->repeat_penalty > 0 ? o->repeat_penalty : 1,
                          .presence = o->presence_penalty,
                          .frequency = o->frequency_penalty,
                          .repeat_from = o->repeat_last > 0 && n > o->repeat_last ? n - o->repeat_last : 0,
                          .seed = o->seed};
}

static void check(int rc, const fa_error *err) {
    if (rc) fail_msg("%s", err->msg);
}

static void describe(char *to, size_t n, const ffai_sampling *o, int kind) {
    snprintf(to, n, "row kind %d temp %g k %d p %g min %g sigma %g penalties %g %g %g last %d", kind, (double)o->temp,
             o->top_k, (double)o->top_p, (double)o->min_p, (double)o->top_n_sigma, (double)o->repeat_penalty,
             (double)o->presence_penalty, (double)o->frequency_penalty, o->repeat_last);
}

/* One pick of n rows, then a second one of the tokens that follow: the device appends the first to its histories. kind
 * < 0: any. opts NULL: random ones for each row. */
static void round_of(bench *b, int n, int kind, const ffai_sampling *opts) {
    fa_backend *be = hn_backend(b->h, HN_DEV);
    ffai_sampling o[SLOTS];
    fa_pick_opts po[SLOTS];
    fa_sampler *s[SLOTS];
    int kinds[SLOTS];
    int32_t got[SLOTS];
    int32_t bias_id[SLOTS][4];
    float bias[SLOTS][4];
    ffai_logit_bias lists[SLOTS][4];
    fa_error err;
    size_t words = ((size_t)b->vocab + 31) / 32;
    int first = (int)some(b, SLOTS);
    for (int i = 0; i < n; i++) {
        o[i] = opts ? *opts : some_options(b);
        if (opts) o[i].seed = fa_rng_next(hn_rng(b->h));
        kinds[i] = kind >= 0 ? kind : (int)some(b, ROW_KINDS);
        fill_row(b, b->x + i * b->vocab, kinds[i]);
        int32_t *ids = b->ids + i * CTX, n_ids = (int32_t)some(b, CTX - 2);
        for (int j = 0; j < n_ids; j++) ids[j] = (int32_t)some(b, j % 3 ? 10 : (uint64_t)b->vocab);
        po[i] = device_options(&o[i], (first + 7 * i) % SLOTS, n_ids);
        check(be->history(be, po[i].slot, ids, n_ids, &err), &err);
        if (!opts && some(b, 4) == 0) {
            for (size_t w = 0; w < words; w++) b->mask[i * words + w] = (uint32_t)fa_rng_next(hn_rng(b->h));
            po[i].mask = b->mask + i * words;
        }
        if (!opts && some(b, 4) == 0) {
            po[i].n_bias = b->vocab < 8 ? 1 : 1 + (int)some(b, 4);
            for (int j = 0; j < po[i].n_bias; j++) {
                bias_id[i][j] =
                    (int32_t)((int64_t)(some(b, (uint64_t)b->vocab / 4 + 1)) * 4 % b->vocab / 4 + j * (b->vocab / 4));
                bias[i][j] = ONE_OF(-INFINITY, -5, 3, 20);
                lists[i][j] = (ffai_logit_bias){bias_id[i][j], bias[i][j]};
            }
            o[i].bias = lists[i];
            o[i].n_bias = (size_t)po[i].n_bias;
            po[i].bias_id = bias_id[i];
            po[i].bias = bias[i];
        }
        fa_sampler_env env = {.vocab = b->vocab, .max_ids = CTX};
        check(fa_sampler_new(&s[i], &o[i], &env, &err), &err);
    }
    void *dev = hn_upload(b->h, b->x, (size_t)(n * b->vocab) * 4),
         *dev2 = hn_upload(b->h, b->x, (size_t)(n * b->vocab) * 4);
    fa_tensor t = {.data = dev, .dim = {n, b->vocab, 1, 1}, .n_dim = 2, .dtype = FA_F32};
    check(be->pick(be, t, po, n, &err), &err);
    for (int i = 0; i < n; i++) {
        po[i].n_history++;
        po[i].repeat_from =
            o[i].repeat_last > 0 && po[i].n_history > o[i].repeat_last ? po[i].n_history - o[i].repeat_last : 0;
    }
    t.data = dev2;
    check(be->pick(be, t, po, n, &err), &err); /* two are under way */
    for (int pass = 0; pass < 2; pass++) {
        check(be->picked(be, got, n, &err), &err);
        for (int i = 0; i < n; i++) {
            int32_t *ids = b->ids + i * CTX, n_ids = po[i].n_history - 1 + pass;
            memcpy(b->copy, b->x + i * b->vocab, (size_t)b->vocab * 4);
            int32_t want = fa_sampler_pick(s[i], b->copy, ids, (size_t)n_ids, po[i].mask, b->work);
            b->picks++;
            if (want != got[i]) {
                char text[200];
                describe(text, sizeof text, &o[i], kinds[i]);
                printf("pick %ld: %d, must be %d: %s%s, %d in the history\n", b->picks, got[i], want, text,
                       po[i].mask ? ", masked" : "", n_ids);
                b->differ++;
            }
            if (want < 0) { /* the device takes no such token into its history */
                assert_int_equal(got[i], FA_PICK_NONE);
                ids[n_ids] = -1;
                check(be->history(be, po[i].slot, ids, n_ids + 1, &err), &err);
            } else {
                ids[n_ids] = got[i];
            }
        }
    }
    for (int i = 0; i < n; i++) fa_sampler_free(s[i]);
}

static void few_differ(const bench *b) {
    if (b->differ * 500 > b->picks) fail_msg("%ld of %ld picks differ from the CPU's", b->differ, b->picks);
}

/* ---- tests ---- */

static void many_rounds(int64_t vocab, int rounds, int most) {
    bench b = open_bench(vocab);
    for (int i = 0; i < rounds; i++) {
        hn_case(b.h, "vocabulary of %lld, round %d", (long long)vocab, i);
        round_of(&b, 1 + (int)some(&b, (uint64_t)most), -1, NULL);
    }
    few_differ(&b);
    close_bench(&b);
}

static void test_small(void **state) {
    (void)state;
    static const int64_t vocabs[] = {1, 2, 31, 257, 1000};
    for (int i = 0; i < 5; i++) many_rounds(vocabs[i], 12, SLOTS);
}

static void test_middle(void **state) {
    (void)state;
    many_rounds(4096, 8, SLOTS);
    many_rounds(12289, 8, 12);
    many_rounds(32000, 6, 8);
}

static void test_large(void **state) {
    (void)state;
    many_rounds(262144, 3, 3);
}

/* Each cut by itself and together, on each kind of row: which of the three ways a row takes depends on these. */
static void test_cuts(void **state) {
    (void)state;
    static const ffai_sampling opts[] = {{.temp = 0},
                                         {.temp = 1},
                                         {.temp = 1, .top_k = 40},
                                         {.temp = 1, .top_k = 6000},
                                         {.temp = 1, .top_p = 0.9f},
                                         {.temp = 1, .top_p = 0.9999f},
                                         {.temp = 1, .min_p = 0.01f},
                                         {.temp = 0.1f, .top_k = 40, .top_p = 0.9f},
                                         {.temp = 2, .top_k = 7000, .top_p = 0.5f, .min_p = 0.001f},
                                         {.temp = 1, .top_n_sigma = 1, .top_p = 0.8f},
                                         {.temp = 3, .top_n_sigma = 1, .top_k = 3000}};
    bench b = open_bench(9001);
    for (int kind = 0; kind < ROW_KINDS; kind++)
        for (size_t i = 0; i < sizeof opts / sizeof opts[0]; i++) {
            hn_case(b.h, "cuts %zu, rows of kind %d", i, kind);
            round_of(&b, 3, kind, &opts[i]);
        }
    few_differ(&b);
    close_bench(&b);
}

/* Draws follow the distribution: chi-square over 8 tokens. */
static void test_distribution(void **state) {
    (void)state;
    enum { N = 8, DRAWS = 4000 };
    bench b = open_bench(5000);
    fa_backend *be = hn_backend(b.h, HN_DEV);
    const float p[N] = {0.3f, 0.05f, 0.2f, 0.1f, 0.15f, 0.02f, 0.08f, 0.1f};
    long count[N] = {0};
    fa_error err;
    hn_case(b.h, "distribution");
    for (int64_t i = 0; i < b.vocab; i++) b.x[i] = -INFINITY;
    for (int i = 0; i < N; i++) b.x[600 * i + 11] = logf(p[i]);
    for (int i = 1; i < SLOTS; i++) memcpy(b.x + i * b.vocab, b.x, (size_t)b.vocab * 4);
    fa_tensor t = {.data = hn_upload(b.h, b.x, (size_t)(SLOTS * b.vocab) * 4),
                   .dim = {SLOTS, b.vocab, 1, 1},
                   .n_dim = 2,
                   .dtype = FA_F32};
    for (int d = 0; d < DRAWS / SLOTS; d++) {
        fa_pick_opts o[SLOTS];
        int32_t got[SLOTS];
        for (int i = 0; i < SLOTS; i++)
            o[i] = (fa_pick_opts){.slot = i, .n_history = d, .temp = 1, .repeat = 1, .seed = (uint64_t)i};
        check(be->pick(be, t, o, SLOTS, &err), &err);
        check(be->picked(be, got, SLOTS, &err), &err);
        for (int i = 0; i < SLOTS; i++) {
            assert_true(got[i] >= 0 && got[i] % 600 == 11);
            count[got[i] / 600]++;
        }
    }
    double chi = 0;
    for (int i = 0; i < N; i++) {
        double want = DRAWS * (double)p[i], d = (double)count[i] - want;
        chi += d * d / want;
    }
    assert_true(chi < 24.3); /* 7 degrees of freedom, 1 in 1000 */
    close_bench(&b);
}

/* The next step's embedding takes the picked token from the device. */
typedef struct fed {
    harness *h;
    hn_weight *w;
    fa_tensor out;
} fed;

static void embed_body(fa_cx *cx, int side, void *arg) {
    fed *f = (fed *)arg;
    f->out = fa_embed(cx, &f->w->at[side], 1);
}

static void test_fed_back(void **state) {
    (void)state;
    bench b = open_bench(300);
    fa_backend *be = hn_backend(b.h, HN_DEV);
    fa_error err;
    hn_case(b.h, "fed back");
    hn_seqs(b.h, (hn_seq[]){{.past = 1, .n = 1}, {.past = 2, .n = 1}}, 2);
    fed f = {.h = b.h, .w = hn_make_weight(b.h, (fa_weight){.fmt = FA_FMT_F32}, 300, 24)};
    fill_row(&b, b.x, ROW_PLAIN);
    fill_row(&b, b.x + 300, ROW_NONE);
    b.x[77] = 90;
    fa_pick_opts o[2] = {{.slot = 31, .repeat = 1}, {.slot = 5, .repeat = 1}};
    int32_t got[2];
    fa_tensor t = {.data = hn_upload(b.h, b.x, 2400), .dim = {2, 300, 1, 1}, .n_dim = 2, .dtype = FA_F32};
    check(be->pick(be, t, o, 2, &err), &err);
    hn_batch(b.h, HN_DEV)->tok[0] = -1 - 31;
    hn_batch(b.h, HN_DEV)->tok[1] = -1 - 5; /* nothing was picked: any row, but no fault */
    check(hn_run_device(b.h, embed_body, &f, &err), &err);
    float *y = hn_values(b.h, HN_DEV, f.out), want[24];
    uint8_t scratch[4096];
    check(be->picked(be, got, 2, &err), &err);
    assert_int_equal(got[0], 77);
    assert_int_equal(got[1], FA_PICK_NONE);
    fa_dequant_row(&f.w->at[HN_CPU], 77, want, scratch);
    hn_compare(b.h, "embedding", want, y, 24);
    close_bench(&b);
}

static void test_misuse(void **state) {
    (void)state;
    bench b = open_bench(64);
    fa_backend *be = hn_backend(b.h, HN_DEV);
    fa_error err;
    int32_t got[2];
    hn_case(b.h, "misuse");
    fill_row(&b, b.x, ROW_PLAIN);
    fill_row(&b, b.x + 64, ROW_PLAIN);
    fa_tensor t = {.data = hn_upload(b.h, b.x, 512), .dim = {2, 64, 1, 1}, .n_dim = 2, .dtype = FA_F32};
    fa_pick_opts o[2] = {{.slot = 0, .repeat = 1}, {.slot = 1, .repeat = 1.5f}};
    assert_int_equal(be->picked(be, got, 1, &err), FFAI_EINTERNAL);
    assert_int_equal(be->pick(be, t, o, 2, &err), FFAI_EINTERNAL); /* penalties, and no history was given */
    o[1].repeat = 1;
    o[1].slot = SLOTS;
    assert_int_equal(be->pick(be, t, o, 2, &err), FFAI_EINTERNAL);
    o[1].slot = 1;
    check(be->pick(be, t, o, 2, &err), &err);
    check(be->pick(be, t, o, 1, &err), &err);
    assert_int_equal(be->pick(be, t, o, 2, &err), FFAI_EINTERNAL);  /* a third */
    assert_int_equal(be->picked(be, got, 1, &err), FFAI_EINTERNAL); /* the oldest has two */
    check(be->picked(be, got, 2, &err), &err);
    check(be->picked(be, got, 1, &err), &err);
    hn_device(b.h)->inject(hn_device(b.h), FA_INJECT_LAUNCH, 1);
    assert_true(be->pick(be, t, o, 2, &err) < 0);
    check(be->pick(be, t, o, 2, &err), &err);
    check(be->picked(be, got, 2, &err), &err);
    close_bench(&b);
}

/* ---- speed ---- */

static int bench_picks(int n_pick) {
    static const struct {
        const char *name;
        ffai_sampling o;
    } kinds[] = {{"greedy", {.temp = 0}},
                 {"temperature", {.temp = 0.8f}},
                 {"top-k 40", {.temp = 0.8f, .top_k = 40}},
                 {"top-p 0.95", {.temp = 0.8f, .top_p = 0.95f}},
                 {"top-k, top-p, min-p", {.temp = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f}}};
    bench b = open_bench(262144);
    fa_backend *be = hn_backend(b.h, HN_DEV);
    fa_error err;
    int32_t got[32];
    fa_pick_opts o[32];
    hn_case(b.h, "speed");
    for (int i = 0; i < 32; i++) fill_row(&b, b.x + i * b.vocab, ROW_PLAIN);
    fa_tensor t = {.data = hn_upload(b.h, b.x, (size_t)(32 * b.vocab) * 4),
                   .dim = {32, b.vocab, 1, 1},
                   .n_dim = 2,
                   .dtype = FA_F32};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        for (int n = 1; n <= 32; n = n == 1 ? 8 : n * 4) {
            double t0 = 0;
            for (int j = -2; j < n_pick; j++) {
                if (j == 0) t0 = fa_now();
                for (int i = 0; i < n; i++) o[i] = device_options(&kinds[k].o, i, j + 2);
                check(be->pick(be, t, o, n, &err), &err);
                check(be->picked(be, got, n, &err), &err);
            }
            printf("%-20s %2d rows  %7.1f us\n", kinds[k].name, n, (fa_now() - t0) / n_pick * 1e6);
        }
    close_bench(&b);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench_picks(hn_emulated() ? 1 : 200);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),  cmocka_unit_test(test_cuts),         cmocka_unit_test(test_middle),
        cmocka_unit_test(test_large),  cmocka_unit_test(test_distribution), cmocka_unit_test(test_fed_back),
        cmocka_unit_test(test_misuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
