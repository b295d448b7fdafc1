/* The sampler by itself: small cases by hand, laws (order, seeds, windows, masks, hopeless logits), worst cases, and
 * every allocation failing. Distributions are in test_sampler_dist.c. With --bench: time of a pick over 262144 tokens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "engine/sample_int.h"
#include "engine/sampler.h"
#include "ffai.h"

enum { BIG = 262144, WORDS = BIG / 32 };

static float *row, *keep;
static void *work;

static int set_up(void **state) {
    (void)state;
    row = aligned_alloc(64, BIG * sizeof *row);
    keep = aligned_alloc(64, BIG * sizeof *row);
    work = aligned_alloc(64, (size_t)BIG * FA_SAMPLER_WORK);
    return row && keep && work ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    free(row);
    free(keep);
    free(work);
    return 0;
}

static fa_sampler *make(ffai_sampling o, int64_t vocab, int64_t max_ids) {
    fa_error err;
    fa_sampler *s;
    fa_sampler_env env = {.vocab = vocab, .max_ids = max_ids};
    if (fa_sampler_new(&s, &o, &env, &err)) fail_msg("%s", err.msg);
    return s;
}

/* The distribution of one pick from x [n], [n]. */
static void distribution(ffai_sampling o, const float *x, int n, const int32_t *ids, size_t n_ids, double *p) {
    fa_sampler *s = make(o, n, 64);
    const int32_t *id;
    const float *q;
    memcpy(row, x, (size_t)n * sizeof *x);
    assert_true(fa_sampler_pick(s, row, ids, n_ids, NULL, work) >= 0);
    size_t m = fa_sampler_last(s, &id, &q);
    for (int i = 0; i < n; i++) p[i] = 0;
    for (size_t i = 0; i < m; i++) p[id[i]] = (double)q[i];
    fa_sampler_free(s);
}

static void expect(ffai_sampling o, const float *x, int n, const int32_t *ids, size_t n_ids, const double *want) {
    double p[16];
    distribution(o, x, n, ids, n_ids, p);
    for (int i = 0; i < n; i++)
        if (fabs(p[i] - want[i]) > 1e-5) fail_msg("token %d: %g, must be %g", i, p[i], want[i]);
}

/* ---- by hand ---- */

#define L(p) logf(p)

static void test_by_hand(void **state) {
    (void)state;
    const float x[5] = {L(0.1f), L(0.4f), L(0.2f), L(0.25f), L(0.05f)};
#define CASE(...) expect((ffai_sampling){.temp = 1, __VA_ARGS__}, x, 5, NULL, 0, (double[5])
    CASE(.top_k = 2) {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0});
    CASE(.top_p = 0.64f) {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0});
    CASE(.top_p = 0.66f) {0, 0.4 / 0.85, 0.2 / 0.85, 0.25 / 0.85, 0});
    CASE(.top_p = 1e-9f) {0, 1, 0, 0, 0});
    CASE(.min_p = 0.45f) {0, 0.4 / 0.85, 0.2 / 0.85, 0.25 / 0.85, 0});
    CASE(.min_p = 1) {0, 1, 0, 0, 0});
    CASE(.xtc_prob = 1, .xtc_threshold = 0.15f) {0.1 / 0.35, 0, 0.2 / 0.35, 0, 0.05 / 0.35});
    CASE(.xtc_prob = 1, .xtc_threshold = 0.3f) {0.1, 0.4, 0.2, 0.25, 0.05}); /* one alone stays */
    CASE(.xtc_prob = 1, .xtc_threshold = 0.51f) {0.1, 0.4, 0.2, 0.25, 0.05});
    CASE(.epsilon_cutoff = 0.15f) {0, 0.4 / 0.85, 0.2 / 0.85, 0.25 / 0.85, 0});
    CASE(.epsilon_cutoff = 0.9f) {0, 1, 0, 0, 0});
    CASE(.top_k = 3, .samplers = "top_p") {0.1, 0.4, 0.2, 0.25, 0.05}); /* not named: off */
    /* the order matters: of the two that top_k leaves, the first has 0.615 */
    CASE(.top_k = 2, .top_p = 0.5f, .samplers = "top_k,top_p") {0, 1, 0, 0, 0});
    CASE(.top_k = 2, .top_p = 0.5f, .samplers = "top_p,top_k") {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0});
    /* surprise nearest to the entropy (1.4208): 0.25 (1.386), then 0.2 (1.609) */
    CASE(.typical = 0.2f) {0, 0, 0, 1, 0});
    CASE(.typical = 0.3f) {0, 0, 0.2 / 0.45, 0.25 / 0.45, 0});
    const ffai_logit_bias bias[] = {{1, -INFINITY}, {0, logf(2)}};
    CASE(.bias = bias, .n_bias = 2) {0.2 / 0.7, 0, 0.2 / 0.7, 0.25 / 0.7, 0.05 / 0.7});
#undef CASE
    const float t[3] = {0, 2 * L(2), L(2)};
    expect((ffai_sampling){.temp = 2}, t, 3, NULL, 0,
           (double[3]){1 / (3 + sqrt(2)), 2 / (3 + sqrt(2)), sqrt(2) / (3 + sqrt(2))});
}

static void test_history_by_hand(void **state) {
    (void)state;
    const float x[4] = {2, -1, 0.5f, 0};
    const int32_t ids[] = {0, 1, 1, 3};
    double e[4], z = 0;
    for (int i = 0; i < 4; i++)
        e[i] = exp((double[]){2 / 1.25 - 0.3 - 0.1, -1.25 - 0.6 - 0.1, 0.5, -0.4}[i]), z += e[i];
    expect((ffai_sampling){.temp = 1, .repeat_penalty = 1.25f, .frequency_penalty = 0.3f, .presence_penalty = 0.1f}, x,
           4, ids, 4, (double[4]){e[0] / z, e[1] / z, e[2] / z, e[3] / z});
    z = exp(2) + exp(-1) + exp(0.5) + exp(-0.5);
    expect((ffai_sampling){.temp = 1, .presence_penalty = 0.5f, .repeat_last = 1}, x, 4, ids, 4,
           (double[4]){exp(2) / z, exp(-1) / z, exp(0.5) / z, exp(-0.5) / z});
    /* "0 1 2 0 1": 2 would make three, at 1 * 2 ^ (2 - 2); "1 2" alone never counts */
    const int32_t loop[] = {0, 1, 2, 0, 1};
    const float flat[4] = {0};
    z = 3 + exp(-1);
    expect((ffai_sampling){.temp = 1, .dry_multiplier = 1, .dry_base = 2}, flat, 4, loop, 5,
           (double[4]){1 / z, 1 / z, exp(-1) / z, 1 / z});
    expect((ffai_sampling){.temp = 1, .no_repeat_ngram = 3}, flat, 4, loop, 5, (double[4]){1 / 3., 1 / 3., 0, 1 / 3.});
    const ffai_token_list words[] = {{(const int32_t[]){1, 3}, 2}, {(const int32_t[]){0}, 1}, {loop, 2}};
    expect((ffai_sampling){.temp = 1, .bad_words = words, .n_bad_word = 3}, flat, 4, loop, 5,
           (double[4]){0, 0.5, 0.5, 0});
    const int32_t none_first[] = {2, 3};
    expect((ffai_sampling){.temp = 1, .begin_suppress = none_first, .n_begin_suppress = 2}, flat, 4, NULL, 0,
           (double[4]){0.5, 0.5, 0, 0});
    expect((ffai_sampling){.temp = 1, .begin_suppress = none_first, .n_begin_suppress = 2}, flat, 4, loop, 1,
           (double[4]){0.25, 0.25, 0.25, 0.25});
}

/* The window slides with the sequence, and a sampler that saw every step knows what a new one would. */
static void test_window(void **state) {
    (void)state;
    enum { V = 50, N = 300 };
    int32_t ids[N];
    float x[V], a[V], b[V];
    fa_rng g = {9, 0};
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(fa_rng_next(&g) % V);
    for (int i = 0; i < V; i++) x[i] = 4 * fa_rng_f32(&g) - 2;
    ffai_sampling o = {.repeat_penalty = 1.3f, .frequency_penalty = 0.1f, .repeat_last = 17};
    fa_sampler *s = make(o, V, N);
    for (size_t n = 0; n <= N; n += n == 100 ? 60 : n == 200 ? 1 : 3) {
        if (n == 250) n = 90; /* and is cut back */
        fa_sampler *fresh = make(o, V, N);
        memcpy(a, x, sizeof x);
        memcpy(b, x, sizeof x);
        assert_int_equal(fa_sampler_pick(s, a, ids, n, NULL, work), fa_sampler_pick(fresh, b, ids, n, NULL, work));
        assert_memory_equal(a, b, sizeof a);
        fa_sampler_free(fresh);
        if (n == 90 || n > 280) break;
    }
    fa_sampler_free(s);
}

/* ---- options ---- */

static void refused(ffai_sampling o, const char *part) {
    fa_error err = {0};
    fa_sampler *s = (fa_sampler *)&err;
    fa_sampler_env env = {.vocab = 100, .max_ids = 10};
    int rc = fa_sampler_new(&s, &o, &env, &err);
    if (rc >= 0 || s || !strstr(err.msg, part)) fail_msg("%d \"%s\" does not tell of \"%s\"", rc, err.msg, part);
}

static void test_options(void **state) {
    (void)state;
    refused((ffai_sampling){.temp = -1}, "temp: -1");
    refused((ffai_sampling){.temp = NAN}, "temp: nan");
    refused((ffai_sampling){.top_p = 1.5f}, "top-p: 1.5");
    refused((ffai_sampling){.min_p = -0.5f}, "min-p: -0.5");
    refused((ffai_sampling){.top_k = -3}, "top-k: -3");
    refused((ffai_sampling){.typical = 2}, "typical: 2");
    refused((ffai_sampling){.xtc_prob = 1.25f}, "xtc-prob: 1.25");
    refused((ffai_sampling){.repeat_penalty = -1}, "repeat-penalty: -1");
    refused((ffai_sampling){.frequency_penalty = INFINITY}, "frequency-penalty: inf");
    refused((ffai_sampling){.dry_multiplier = 1, .dry_base = 0.5f}, "dry-base: 0.5");
    refused((ffai_sampling){.repeat_last = -1}, "repeat-last: -1");
    refused((ffai_sampling){.mirostat_tau = -2}, "mirostat-tau: -2");
    refused((ffai_sampling){.samplers = "temp,foo"}, "\"foo\" is none of penalties, dry, top_n_sigma");
    refused((ffai_sampling){.samplers = "temp,temp"}, "\"temp\" is named twice");
    refused((ffai_sampling){.samplers = "temp,temperature"}, "named twice");
    refused((ffai_sampling){.samplers = "temp,"}, "\"\" is none of");
    refused((ffai_sampling){.samplers = "an_endless_name_that_no_sampler_would_ever_have_in_this_world"}, "is none of");
    const ffai_logit_bias far = {100, 1}, nan = {1, NAN};
    refused((ffai_sampling){.bias = &far, .n_bias = 1}, "logit-bias: token 100");
    refused((ffai_sampling){.bias = &nan, .n_bias = 1}, "logit-bias");
    const char *const breaker = "x";
    refused((ffai_sampling){.dry_multiplier = 1, .dry_breakers = &breaker, .n_dry_breaker = 1}, "no tokenizer");
}

/* Every order of three and its spelling variants parse to what was said. */
static void test_orders(void **state) {
    (void)state;
    uint8_t order[FA_SAMPLE_KINDS];
    char text[64];
    int n;
    for (size_t a = 0; a < FA_SAMPLE_KINDS; a++)
        for (size_t b = 0; b < FA_SAMPLE_KINDS; b++)
            for (size_t c = 0; c < FA_SAMPLE_KINDS; c++) {
                snprintf(text, sizeof text, "%s, %s;%s", ffai_sampler_at(a), ffai_sampler_at(b), ffai_sampler_at(c));
                int rc = fa_sampler_order(text, order, &n, NULL);
                if (a == b || b == c || a == c) {
                    assert_true(rc < 0);
                    continue;
                }
                assert_int_equal(rc, 0);
                assert_int_equal(n, 3);
                assert_true(order[0] == a && order[1] == b && order[2] == c);
            }
    assert_null(ffai_sampler_at(FA_SAMPLE_KINDS));
    assert_int_equal(fa_sampler_order(" top-k ,typ_p,temperature", order, &n, NULL), 0);
    assert_true(n == 3 && order[0] == FA_SAMPLE_TOP_K && order[1] == FA_SAMPLE_TYPICAL && order[2] == FA_SAMPLE_TEMP);
    assert_int_equal(fa_sampler_order("", order, &n, NULL), 0);
    assert_int_equal(n, 0);
}

/* ---- laws ---- */

static void fill(float *x, int64_t n, uint64_t seed, float scale) {
    fa_rng g = {seed, 0};
    for (int64_t i = 0; i < n; i++)
        x[i] = scale * (fa_rng_f32(&g) + fa_rng_f32(&g) + fa_rng_f32(&g) + fa_rng_f32(&g) - 2);
}

/* One seed, one text; a text that is continued from its middle goes on as it did; another seed, another text. */
static void test_seeds(void **state) {
    (void)state;
    enum { V = 1000, N = 60 };
    int32_t ids[3][N];
    ffai_sampling o = {.temp = 1, .top_p = 0.9f, .xtc_prob = 0.5f, .repeat_penalty = 1.1f, .seed = 5};
    for (int r = 0; r < 3; r++) {
        o.seed = r == 2 ? 6 : 5;
        fa_sampler *s = make(o, V, N);
        int n = 0;
        if (r == 1) memcpy(ids[1], ids[0], 30 * sizeof(int32_t)), n = 30;
        for (; n < N; n++) {
            fill(row, V, (uint64_t)n, 5);
            ids[r][n] = fa_sampler_pick(s, row, ids[r], (size_t)n, NULL, work);
            assert_in_range(ids[r][n], 0, V - 1);
        }
        fa_sampler_free(s);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    int same = 0;
    for (int i = 0; i < N; i++) same += ids[0][i] == ids[2][i];
    assert_true(same < N / 2);
}

static const ffai_sampling all_on = {.temp = 0.9f,
                                     .temp_range = 0.3f,
                                     .top_k = 50,
                                     .top_p = 0.95f,
                                     .min_p = 0.02f,
                                     .typical = 0.9f,
                                     .top_n_sigma = 2,
                                     .xtc_prob = 1,
                                     .xtc_threshold = 0.05f,
                                     .repeat_penalty = 1.2f,
                                     .presence_penalty = 0.1f,
                                     .frequency_penalty = 0.1f,
                                     .dry_multiplier = 0.8f,
                                     .top_h = 0.9f,
                                     .epsilon_cutoff = 1e-3f,
                                     .eta_cutoff = 1e-3f};

/* Whatever the logits hold, in any order of the samplers, what comes out is allowed and no NaN, or nothing is left. */
static void test_any_order_any_logits(void **state) {
    (void)state;
    enum { V = 333, ROUNDS = 4000 };
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 0, -0.0f, 1e-45f, 88, -104, 1e20f};
    fa_rng g = {77, 0};
    int32_t ids[40];
    for (int r = 0; r < ROUNDS; r++) {
        char order[256] = "";
        uint8_t perm[FA_SAMPLE_KINDS];
        for (int i = 0; i < FA_SAMPLE_KINDS; i++) perm[i] = (uint8_t)i;
        for (int i = FA_SAMPLE_KINDS - 1; i > 0; i--) {
            int j = (int)(fa_rng_next(&g) % (uint64_t)(i + 1));
            uint8_t t = perm[i];
            perm[i] = perm[j];
            perm[j] = t;
        }
        int n = (int)(fa_rng_next(&g) % (FA_SAMPLE_KINDS + 1));
        for (int i = 0; i < n; i++) {
            if (i) strcat(order, ",");
            strcat(order, ffai_sampler_at(perm[i]));
        }
        ffai_sampling o = all_on;
        o.samplers = order;
        o.seed = (uint64_t)r;
        if (r % 5 == 0) o.mirostat_tau = 3;
        if (r % 7 == 0) o.temp = 0;
        if (r % 11 == 0) o.temp = 1e-30f;
        for (int i = 0; i < 40; i++) ids[i] = (int32_t)(fa_rng_next(&g) % (r % 3 ? 5 : V));
        fill(row, V, (uint64_t)r, r % 4 ? 10 : 0);
        uint64_t share = r % 3 == 0 ? 0 : r % 3 == 1 ? 3 : 1;
        bool any = false;
        for (int i = 0; i < V; i++) {
            if (share && fa_rng_next(&g) % share == 0) row[i] = odd[fa_rng_next(&g) % (r % 2 ? 11 : 3)];
            any |= row[i] > -INFINITY;
        }
        memcpy(keep, row, V * sizeof *row);
        fa_sampler *s = make(o, V, 40);
        int32_t id = fa_sampler_pick(s, row, ids, (size_t)(r % 41), NULL, work);
        if (any && (id < 0 || id >= V || !(keep[id] > -INFINITY)))
            fail_msg("round %d, order %s: token %d", r, order, (int)id);
        if (!any) assert_int_equal(id, FA_PICK_NONE);
        fa_sampler_free(s);
    }
}

static void test_mask(void **state) {
    (void)state;
    enum { V = 1001 };
    uint32_t mask[(V + 31) / 32];
    for (int r = 0; r < V; r += 50) {
        for (int hot = 0; hot < 2; hot++) {
            ffai_sampling o = all_on;
            if (!hot) o = (ffai_sampling){0};
            fa_sampler *s = make(o, V, 10);
            memset(mask, 0, sizeof mask);
            mask[r / 32] = UINT32_C(1) << r % 32;
            fill(row, V, 3, 5);
            assert_int_equal(fa_sampler_pick(s, row, NULL, 0, mask, work), r);
            memset(mask, 0, sizeof mask);
            fill(row, V, 3, 5);
            assert_int_equal(fa_sampler_pick(s, row, NULL, 0, mask, work), FA_PICK_NONE);
            memset(mask, 0xff, sizeof mask); /* bits behind the vocabulary mean nothing */
            fill(row, V, 3, 5);
            memcpy(keep, row, V * sizeof *row);
            int32_t a = fa_sampler_pick(s, row, NULL, 0, mask, work);
            assert_int_equal(fa_sampler_pick(s, keep, NULL, 0, NULL, work), a);
            fa_sampler_free(s);
        }
    }
}

/* Greedy: the likeliest after penalties, bias and mask, the first of equals. */
static void test_greedy(void **state) {
    (void)state;
    const float x[6] = {1, 3, 3, 2, NAN, -INFINITY};
    const int32_t ids[] = {1, 2};
    const ffai_logit_bias bias = {3, 1.5f};
    const uint32_t mask = 0x39;
#define PICK(o, n, m)                                                                                                  \
    (memcpy(row, x, sizeof x), s = make(o, 6, 4), got = fa_sampler_pick(s, row, ids, n, m, work), fa_sampler_free(s),  \
     got)
    fa_sampler *s;
    int32_t got;
    assert_int_equal(PICK((ffai_sampling){0}, 0, NULL), 1);
    assert_int_equal(PICK(((ffai_sampling){.top_k = 1, .seed = 4}), 0, NULL), 1);
    assert_int_equal(PICK(((ffai_sampling){.repeat_penalty = 2}), 1, NULL), 2);
    assert_int_equal(PICK(((ffai_sampling){.repeat_penalty = 2}), 2, NULL), 3);
    assert_int_equal(PICK(((ffai_sampling){.bias = &bias, .n_bias = 1}), 0, NULL), 3);
    assert_int_equal(PICK((ffai_sampling){0}, 0, &mask), 3);
    assert_int_equal(PICK(((ffai_sampling){.repeat_penalty = 2, .samplers = "temp"}), 2, NULL), 1);
#undef PICK
}

/* Mirostat's mu follows the surprise of what was drawn. */
static void test_mirostat(void **state) {
    (void)state;
    enum { V = 64, N = 3000 };
    fa_sampler *s = make((ffai_sampling){.temp = 1, .mirostat_tau = 2.5f, .mirostat_eta = 0.1f, .seed = 2}, V, N);
    double bits = 0;
    static int32_t ids[N];
    for (int n = 0; n < N; n++) {
        const int32_t *id;
        const float *p;
        fill(row, V, (uint64_t)n, 4);
        ids[n] = fa_sampler_pick(s, row, ids, (size_t)n, NULL, work);
        size_t m = fa_sampler_last(s, &id, &p);
        for (size_t i = 0; i < m; i++)
            if (id[i] == ids[n]) bits -= log2((double)p[i]) / N;
    }
    fa_sampler_free(s);
    print_message("mean surprise %.3f bits, target 2.5\n", bits);
    assert_true(fabs(bits - 2.5) < 0.1);
}

/* ---- log-probabilities ---- */

static void test_logprobs(void **state) {
    (void)state;
    enum { V = 2000, K = 20 };
    ffai_logprob top[K];
    double lse, z = 0;
    fa_sampler *s = make((ffai_sampling){0}, V, 4);
    fill(keep, V, 8, 9);
    keep[17] = NAN;
    keep[18] = -INFINITY;
    keep[30] = keep[1500] = 20;
    for (int i = 0; i < V; i++)
        if (keep[i] > -INFINITY) z += exp((double)keep[i]);
    fa_sampler_logprobs(s, keep, K, top, &lse, work);
    assert_true(fabs(lse - log(z)) < 1e-5);
    assert_true(top[0].id == 30 && top[1].id == 1500);
    for (int k = 0; k < K; k++) {
        int better = 0;
        assert_true(fabs((double)top[k].logprob - ((double)keep[top[k].id] - log(z))) < 1e-5);
        for (int i = 0; i < V; i++)
            better += keep[i] > keep[top[k].id] || (keep[i] == keep[top[k].id] && i < top[k].id);
        assert_int_equal(better, k);
    }
    for (int i = 0; i < V; i++) keep[i] = i == 7 ? 1.0f : -INFINITY;
    fa_sampler_logprobs(s, keep, 2, top, &lse, work);
    assert_true(top[0].id == 7 && fabsf(top[0].logprob) < 1e-6f && top[1].id == -1);
    fa_sampler_free(s);
}

/* ---- worst cases ---- */

static void test_dry_is_linear(void **state) {
    (void)state;
    enum { N = 100000, V = 1000 };
    int32_t *ids = calloc(N, sizeof *ids);
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < N; i++) ids[i] = kind == 0 ? 7 : kind == 1 ? i % 3 : (i & i >> 1) % 2;
        ffai_sampling o = {.dry_multiplier = 0.8f, .no_repeat_ngram = 0};
        fa_sampler *s = make(o, V, N);
        memset(row, 0, V * sizeof *row);
        double t0 = fa_now();
        assert_true(fa_sampler_pick(s, row, ids, N, NULL, work) >= 0);
        double t = fa_now() - t0;
        print_message("DRY over %d tokens, kind %d: %.2f ms\n", N, kind, t * 1e3);
        assert_true(t < 0.5);
        assert_true(kind || row[7] < -1e30f);
        fa_sampler_free(s);
        o = (ffai_sampling){.no_repeat_ngram = 50000};
        s = make(o, V, N);
        memset(row, 0, V * sizeof *row);
        t0 = fa_now();
        assert_true(fa_sampler_pick(s, row, ids, N, NULL, work) >= 0);
        assert_true(fa_now() - t0 < 0.5);
        fa_sampler_free(s);
    }
    free(ids);
}

/* Match lengths against their definition. */
static void test_suffix_lengths(void **state) {
    (void)state;
    int32_t ids[80], z[80];
    fa_rng g = {4, 0};
    for (int r = 0; r < 3000; r++) {
        int n = 1 + (int)(fa_rng_next(&g) % 80), kinds = 1 + (int)(fa_rng_next(&g) % 3);
        for (int i = 0; i < n; i++) ids[i] = (int32_t)(fa_rng_next(&g) % (uint64_t)kinds);
        fa_suffix_lengths(ids, n, z);
        for (int k = 1; k < n; k++) {
            int m = 0;
            while (k + m < n && ids[n - 1 - m] == ids[n - 1 - k - m]) m++;
            assert_int_equal(z[k], m);
        }
    }
}

/* Selection against sorting, with weights, ties and all of one value. */
static int by_rank(const void *a, const void *b) {
    const fa_rank *x = a, *y = b;
    return fa_before(x->key, x->id, y->key, y->id) ? -1 : 1;
}

static void test_select(void **state) {
    (void)state;
    enum { MAX = 500 };
    fa_rank r[MAX], sorted[MAX];
    fa_rng g = {6, 0};
    for (int t = 0; t < 3000; t++) {
        int n = 1 + (int)(fa_rng_next(&g) % MAX);
        double total = 0, sum = 0;
        for (int i = 0; i < n; i++) {
            float key = t % 3 ? fa_rng_f32(&g) : (float)(fa_rng_next(&g) % 4);
            r[i] = (fa_rank){key, t % 2 ? 1 : (float)(fa_rng_next(&g) % 8), i};
            total += (double)r[i].w;
        }
        memcpy(sorted, r, sizeof r);
        qsort(sorted, (size_t)n, sizeof *sorted, by_rank);
        double target = floor((double)fa_rng_f32(&g) * total) + 1;
        int last = 0;
        for (; last < n && sum < target; last++) sum += (double)sorted[last].w;
        fa_rank got = fa_select(r, n, target);
        if (sum < target) continue; /* all of them do not reach it: anything that keeps all */
        if (got.id != sorted[last - 1].id) fail_msg("round %d: %d, must be %d", t, got.id, sorted[last - 1].id);
    }
}

/* The same over whole rows, at every CPU level: hills, few values, values far away, one infinite, equal ones; weights
 * are integers, so that sums are exact. What is kept follows. */
static void last_of(const fa_kernels *k, fa_rng *g, int t) {
    enum { MAX = 20000 };
    static fa_rank sorted[MAX];
    static float key[MAX], w[MAX], x[MAX];
    static int32_t id[MAX];
    const int n = 1 + (int)(fa_rng_next(g) % (t % 5 ? 3000 : MAX)), few = 1 << t % 7;
    const bool weights = t % 2, ids = t % 3;
    double total = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        key[i] = t % 4 == 0   ? fa_rng_f32(g)
                 : t % 4 == 1 ? (float)(fa_rng_next(g) % (uint64_t)few)
                              : powf(2 * fa_rng_f32(g) - 1, 5);
        if (t % 4 == 3 && fa_rng_next(g) % 100 == 0) key[i] = fa_rng_next(g) % 2 ? 1e30f : -3e38f;
        if (t % 11 == 0 && i == n / 2) key[i] = INFINITY;
        w[i] = (float)(fa_rng_next(g) % 8);
        id[i] = 3 * i + 1;
        sorted[i] = (fa_rank){key[i], weights ? w[i] : 1, ids ? id[i] : i};
        total += (double)sorted[i].w;
    }
    qsort(sorted, (size_t)n, sizeof *sorted, by_rank);
    double target = floor((double)fa_rng_f32(g) * total) + 1;
    int last = 0;
    for (; last < n && sum < target; last++) sum += (double)sorted[last].w;
    fa_pick p;
    fa_pick_begin(&p, k, x, MAX, work);
    fa_rank got = fa_pick_last(&p, key, weights ? w : NULL, ids ? id : NULL, n, total, target);
    if (sum >= target && got.id != sorted[last - 1].id)
        fail_msg("%s, round %d: %d, must be %d", k->isa, t, got.id, sorted[last - 1].id);
    if (sum < target && got.key > sorted[n - 1].key) fail_msg("%s, round %d: not all are kept", k->isa, t);
    p.dense = false;
    p.n = n;
    memcpy(p.l, w, (size_t)n * sizeof *w);
    memcpy(p.id, id, (size_t)n * sizeof *id);
    if (!ids) got.id = 3 * got.id + 1;
    fa_pick_keep(&p, key, got);
    int64_t m = 0;
    for (int i = 0; i < n; i++) {
        if (fa_before(got.key, got.id, key[i], id[i])) continue;
        assert_true(p.id[m] == id[i] && p.l[m] == w[i]);
        m++;
    }
    assert_int_equal(p.n, m);
}

static void test_select_rows(void **state) {
    (void)state;
    static const char *const isas[] = {"c", "avx2", "avx512", "neon"};
    fa_kernels k;
    for (int l = 0; l < 4; l++) {
        fa_rng g = {7, 0};
        if (fa_kernels_init(&k, isas[l], NULL)) continue;
        for (int t = 0; t < 600; t++) last_of(&k, &g, t);
    }
}

/* ---- failing allocations ---- */

static void test_fault(void **state) {
    (void)state;
    fa_error err;
    const ffai_logit_bias bias = {1, 1};
    const int32_t begin = 3;
    const ffai_token_list word = {&begin, 1};
    fa_tok *tok;
    assert_int_equal(fa_tok_from_dir(&tok, FFAI_SOURCE_DIR "/models/ffai-demo-6m", &err), 0);
    static const char *const breakers[] = {" the", "\n"};
    ffai_sampling o = all_on;
    o.bias = &bias, o.n_bias = 1, o.begin_suppress = &begin, o.n_begin_suppress = 1, o.bad_words = &word;
    o.n_bad_word = 1, o.dry_breakers = breakers, o.n_dry_breaker = 2;
    int32_t ids[50];
    for (int i = 0; i < 50; i++) ids[i] = 300 + i % 7;
    fa_sampler_env env = {.vocab = 4096, .max_ids = 50, .tok = tok, .eos = &begin, .n_eos = 1};
    int failed = 0;
    for (long n = 1;; n++) {
        fa_sampler *s = NULL;
        fill(row, 4096, 1, 5);
        fa_alloc_fail_at(n);
        int rc = fa_sampler_new(&s, &o, &env, &err);
        int32_t id = rc ? 0 : fa_sampler_pick(s, row, ids, 50, NULL, work);
        long left = fa_alloc_fail_left();
        fa_alloc_fail_at(0);
        if (rc) assert_int_equal(rc, FFAI_ENOMEM);
        if (id == FA_PICK_NOMEM) { /* and a second try goes well */
            fill(row, 4096, 1, 5);
            assert_true(fa_sampler_pick(s, row, ids, 50, NULL, work) >= 0);
        }
        failed += rc || id == FA_PICK_NOMEM;
        fa_sampler_free(s);
        if (left > 0) break;
    }
    print_message("%d allocations failed\n", failed);
    assert_true(failed > 10);
    fa_tok_free(tok);
}

/* ---- --bench ---- */

static double bench_one(const char *what, ffai_sampling o, const uint32_t *mask, const char *isa) {
    enum { REPS = 40 };
    fa_sampler *s;
    fa_sampler_env env = {.vocab = BIG, .max_ids = 4096, .isa = isa};
    static int32_t ids[4096];
    if (fa_sampler_new(&s, &o, &env, NULL)) return -1;
    double best = 1e9;
    for (int i = 0; i < 4096; i++) ids[i] = (int32_t)(fa_rng_at(1, (uint64_t)i) % 5000);
    for (int r = 0; r < REPS; r++) {
        memcpy(row, keep, BIG * sizeof *row);
        double t0 = fa_now();
        fa_sampler_pick(s, row, ids, 4000 + (size_t)r, mask, work);
        double t = fa_now() - t0;
        if (t < best) best = t;
    }
    printf("%-10s %-34s %8.1f us\n", isa, what, best * 1e6);
    fa_sampler_free(s);
    return best;
}

static int bench(void) {
    static const char *const isas[] = {"avx512", "avx2", "c"};
    set_up(NULL);
    /* like a language model's: most logits in a hill, one token in 500 well above it, a few far above */
    fill(keep, BIG, 1, 4.5f);
    for (int i = 0; i < BIG; i += 499) keep[i] += 6;
    for (int i = 0; i < 30; i++)
        keep[fa_rng_at(3, (uint64_t)i) % BIG] = 14 + 10 * (float)(fa_rng_at(4, (uint64_t)i) >> 40) * 0x1p-24f;
    static uint32_t few[WORDS], half[WORDS];
    for (int i = 0; i < WORDS; i++) half[i] = (uint32_t)fa_rng_at(5, (uint64_t)i);
    for (int i = 0; i < 400; i++) few[fa_rng_at(6, (uint64_t)i) % WORDS] |= 1u << i % 32;
    for (int i = 0; i < 3; i++) {
        bench_one("greedy, mask of 400", (ffai_sampling){0}, few, isas[i]);
        bench_one("greedy, mask of half", (ffai_sampling){0}, half, isas[i]);
        bench_one("greedy", (ffai_sampling){0}, NULL, isas[i]);
        bench_one("temp 0.8", (ffai_sampling){.temp = 0.8f}, NULL, isas[i]);
        bench_one("temp, top-k 40, top-p, min-p",
                  (ffai_sampling){.temp = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f}, NULL, isas[i]);
        bench_one("temp, top-k 1000", (ffai_sampling){.temp = 0.8f, .top_k = 1000}, NULL, isas[i]);
        bench_one("temp, top-p 0.95", (ffai_sampling){.temp = 0.8f, .top_p = 0.95f}, NULL, isas[i]);
        bench_one("temp, min-p 0.05", (ffai_sampling){.temp = 0.8f, .min_p = 0.05f}, NULL, isas[i]);
        bench_one("temp, top-p, min-p", (ffai_sampling){.temp = 0.8f, .top_p = 0.95f, .min_p = 0.05f}, NULL, isas[i]);
        bench_one("temp 2, top-p 0.95 (flat)", (ffai_sampling){.temp = 2, .top_p = 0.95f}, NULL, isas[i]);
        bench_one("top-n-sigma 1, temp", (ffai_sampling){.temp = 0.8f, .top_n_sigma = 1}, NULL, isas[i]);
        bench_one("temp, typical 0.9", (ffai_sampling){.temp = 0.8f, .typical = 0.9f}, NULL, isas[i]);
        bench_one("temp, xtc", (ffai_sampling){.temp = 0.8f, .xtc_prob = 1, .xtc_threshold = 0.1f}, NULL, isas[i]);
        bench_one("mirostat 5", (ffai_sampling){.temp = 0.8f, .mirostat_tau = 5}, NULL, isas[i]);
        bench_one("dynatemp", (ffai_sampling){.temp = 0.8f, .temp_range = 0.5f, .top_k = 40}, NULL, isas[i]);
        bench_one("penalties, temp, top-k 40", (ffai_sampling){.repeat_penalty = 1.1f, .temp = 0.8f, .top_k = 40}, NULL,
                  isas[i]);
        bench_one("dry, temp, top-k 40", (ffai_sampling){.dry_multiplier = 0.8f, .temp = 0.8f, .top_k = 40}, NULL,
                  isas[i]);
    }
    tear_down(NULL);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_history_by_hand),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_any_order_any_logits),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_mirostat),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_dry_is_linear),
        cmocka_unit_test(test_suffix_lengths),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_select_rows),
        cmocka_unit_test(test_fault),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
