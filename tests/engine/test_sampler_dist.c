/* Distributions that the samplers leave, against tests/data/sampler/cases.json (made by tools/make_sampler_vectors.py
 * with transformers, llama.cpp and a definition in double precision): the candidates and probabilities of one pick
 * exactly, and the tokens of many seeds by chi-square. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/sampler.h"
#include "ffai.h"
#include "io/json.h"

#define CASES     FFAI_SOURCE_DIR "/tests/data/sampler/cases.json"
#define MODEL_DIR FFAI_SOURCE_DIR "/models/ffai-demo-6m"
enum { MAX_VOCAB = 5000, MAX_HIST = 256, MAX_LIST = 64 };

static fa_json *file;
static fa_tok *tok;

typedef struct test_case {
    int index;
    int64_t vocab;
    float logits[MAX_VOCAB];
    double want[MAX_VOCAB];
    int32_t hist[MAX_HIST];
    size_t n_hist;
    ffai_sampling s;
    ffai_logit_bias bias[MAX_LIST];
    ffai_token_list words[MAX_LIST];
    int32_t word_ids[MAX_LIST][MAX_LIST];
    const char *breakers[MAX_LIST];
    uint32_t mask[MAX_VOCAB / 32 + 1];
    bool masked, tokenizer;
    void *work;
} test_case;

/* ---- reading a case ---- */

static size_t read_ids(const fa_jnode *list, int32_t *to, size_t max) {
    size_t n = 0;
    for (const fa_jnode *v = fa_jfirst(list); v; v = fa_jnext(v)) {
        assert_true(n < max);
        to[n++] = (int32_t)fa_jint(v, -1);
    }
    return n;
}

static void make_logits(test_case *c, const fa_jnode *n) {
    uint64_t seed = (uint64_t)fa_jint(fa_jget(n, "seed"), 0);
    double scale = fa_jnum(fa_jget(n, "scale"), 1), step = fa_jnum(fa_jget(n, "step"), 0);
    for (int64_t i = 0; i < c->vocab; i++) {
        double u = -2;
        for (uint64_t j = 0; j < 4; j++) u += (double)(fa_rng_at(seed, 4 * (uint64_t)i + j) >> 40) * 0x1p-24;
        double x = scale * u;
        c->logits[i] = (float)(step > 0 ? nearbyint(x / step) * step : x);
    }
}

static void read_numbers(const fa_jnode *o, ffai_sampling *s) {
    const struct {
        const char *key;
        float *to;
    } nums[] = {{"temp", &s->temp},
                {"temp_range", &s->temp_range},
                {"temp_exponent", &s->temp_exponent},
                {"top_p", &s->top_p},
                {"min_p", &s->min_p},
                {"typical", &s->typical},
                {"top_n_sigma", &s->top_n_sigma},
                {"xtc_prob", &s->xtc_prob},
                {"xtc_threshold", &s->xtc_threshold},
                {"repeat_penalty", &s->repeat_penalty},
                {"presence_penalty", &s->presence_penalty},
                {"frequency_penalty", &s->frequency_penalty},
                {"dry_multiplier", &s->dry_multiplier},
                {"dry_base", &s->dry_base},
                {"mirostat_tau", &s->mirostat_tau},
                {"top_h", &s->top_h},
                {"epsilon_cutoff", &s->epsilon_cutoff},
                {"eta_cutoff", &s->eta_cutoff}};
    for (size_t i = 0; i < sizeof nums / sizeof nums[0]; i++) *nums[i].to = (float)fa_jnum(fa_jget(o, nums[i].key), 0);
    s->top_k = (int)fa_jint(fa_jget(o, "top_k"), 0);
    s->repeat_last = (int)fa_jint(fa_jget(o, "repeat_last"), 0);
    s->dry_allowed_length = (int)fa_jint(fa_jget(o, "dry_allowed_length"), 0);
    s->dry_last = (int)fa_jint(fa_jget(o, "dry_last"), 0);
    s->no_repeat_ngram = (int)fa_jint(fa_jget(o, "no_repeat_ngram"), 0);
    s->samplers = fa_jstr(fa_jget(o, "samplers"), NULL);
}

static void read_lists(const fa_jnode *o, test_case *c) {
    ffai_sampling *s = &c->s;
    for (const fa_jnode *v = fa_jfirst(fa_jget(o, "bias")); v; v = fa_jnext(v)) {
        float b = (float)fa_jnum(fa_jnext(fa_jfirst(v)), 0);
        assert_true(s->n_bias < MAX_LIST);
        c->bias[s->n_bias++] = (ffai_logit_bias){(int32_t)fa_jint(fa_jfirst(v), -1),
                                                 b < -1e20f ? -INFINITY : b}; /* JSON has no infinity */
    }
    s->bias = c->bias;
    for (const fa_jnode *v = fa_jfirst(fa_jget(o, "bad_words")); v; v = fa_jnext(v)) {
        size_t i = s->n_bad_word++;
        c->words[i] = (ffai_token_list){c->word_ids[i], read_ids(v, c->word_ids[i], MAX_LIST)};
    }
    s->bad_words = c->words;
    const fa_jnode *br = fa_jget(o, "dry_breakers");
    if (br) s->dry_breakers = c->breakers;
    for (const fa_jnode *v = fa_jfirst(br); v; v = fa_jnext(v)) c->breakers[s->n_dry_breaker++] = fa_jstr(v, NULL);
    const fa_jnode *allowed = fa_jget(o, "mask");
    c->masked = allowed != NULL;
    for (const fa_jnode *v = fa_jfirst(allowed); v; v = fa_jnext(v))
        c->mask[fa_jint(v, 0) / 32] |= UINT32_C(1) << fa_jint(v, 0) % 32;
}

static void read_case(test_case *c, const fa_jnode *n, int index) {
    void *work = c->work;
    memset(c, 0, sizeof *c);
    c->work = work;
    c->index = index;
    c->vocab = fa_jint(fa_jget(n, "vocab"), 0);
    assert_in_range(c->vocab, 1, MAX_VOCAB);
    c->tokenizer = fa_jbool(fa_jget(n, "tokenizer"), false);
    make_logits(c, n);
    c->n_hist = read_ids(fa_jget(n, "history"), c->hist, MAX_HIST);
    read_numbers(fa_jget(n, "options"), &c->s);
    read_lists(fa_jget(n, "options"), c);
    const fa_jnode *p = fa_jfirst(fa_jget(n, "p"));
    for (const fa_jnode *v = fa_jfirst(fa_jget(n, "ids")); v; v = fa_jnext(v), p = fa_jnext(p))
        c->want[fa_jint(v, 0)] = fa_jnum(p, 0);
}

static fa_sampler *sampler(const test_case *c, const ffai_sampling *s, const char *isa) {
    fa_error err;
    fa_sampler *out;
    fa_sampler_env env = {.vocab = c->vocab, .max_ids = MAX_HIST, .tok = c->tokenizer ? tok : NULL, .isa = isa};
    if (fa_sampler_new(&out, s, &env, &err)) fail_msg("case %d: %s", c->index, err.msg);
    return out;
}

static int32_t pick(fa_sampler *s, const test_case *c, float *x) {
    memcpy(x, c->logits, (size_t)c->vocab * sizeof *x);
    return fa_sampler_pick(s, x, c->hist, c->n_hist, c->masked ? c->mask : NULL, c->work);
}

/* ---- one pick exactly ---- */

/* Probabilities of the same pick with xtc and without: a share of the cases has it by chance. */
static void add_distribution(const test_case *c, float xtc_prob, double weight, const char *isa, double *got) {
    static float x[MAX_VOCAB];
    ffai_sampling one = c->s;
    one.xtc_prob = xtc_prob;
    fa_sampler *s = sampler(c, &one, isa);
    const int32_t *ids;
    const float *p;
    assert_true(pick(s, c, x) >= 0);
    size_t n = fa_sampler_last(s, &ids, &p);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++) {
        got[ids[i]] += weight * (double)p[i];
        if (i) assert_true(ids[i - 1] < ids[i]);
    }
    fa_sampler_free(s);
}

static void check_exact(const test_case *c, const char *isa) {
    static double got[MAX_VOCAB];
    memset(got, 0, sizeof got);
    double q = (double)c->s.xtc_prob;
    if (q > 0) add_distribution(c, 1, q, isa, got);
    if (q < 1) add_distribution(c, 0, 1 - q, isa, got);
    for (int64_t i = 0; i < c->vocab; i++)
        if (!(fabs(got[i] - c->want[i]) <= 3e-6 + 3e-5 * c->want[i]))
            fail_msg("case %d (%s): token %d has probability %.9g, must have %.9g", c->index, isa ? isa : "best",
                     (int)i, got[i], c->want[i]);
}

static void for_each(void (*check)(const test_case *c, const char *isa), const char *isa) {
    test_case *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->work = aligned_alloc(64, (size_t)MAX_VOCAB * FA_SAMPLER_WORK / 64 * 64 + 64);
    int n = 0;
    for (const fa_jnode *v = fa_jfirst(fa_json_root(file)); v; v = fa_jnext(v)) {
        read_case(c, v, n++);
        check(c, isa);
    }
    assert_true(n > 100);
    free(c->work);
    free(c);
}

static void test_exact(void **state) {
    (void)state;
    for_each(check_exact, NULL);
}

static void test_exact_plain(void **state) {
    (void)state;
    for_each(check_exact, "c");
}

/* ---- many draws ---- */

/* The value that chi-square with df degrees exceeds once in 2e6 (Wilson and Hilferty). */
static double chi_limit(double df) {
    double t = 1 - 2 / (9 * df) + 4.9 * sqrt(2 / (9 * df));
    return df * t * t * t;
}

static void check_draws(const test_case *c, const char *isa) {
    static int64_t count[MAX_VOCAB];
    static float x[MAX_VOCAB];
    const bool much = c->index % 20 == 0 && c->vocab <= 300;
    const int64_t draws = much ? 200000 : 4000;
    memset(count, 0, sizeof count);
    fa_sampler *s = sampler(c, &c->s, isa);
    for (int64_t i = 0; i < draws; i++) {
        fa_sampler_reseed(s, 77000 + (uint64_t)i);
        int32_t id = pick(s, c, x);
        if (id < 0 || !(c->want[id] > 0)) fail_msg("case %d: token %d was drawn, which cannot be", c->index, (int)id);
        count[id]++;
    }
    fa_sampler_free(s);
    double chi = 0, df = -1, rest = 0, rest_n = 0; /* rare tokens count as one class */
    for (int64_t i = 0; i < c->vocab; i++) {
        double e = c->want[i] * (double)draws;
        if (e < 8) {
            rest += e;
            rest_n += (double)count[i];
            continue;
        }
        chi += ((double)count[i] - e) * ((double)count[i] - e) / e;
        df++;
    }
    if (rest > 3) chi += (rest_n - rest) * (rest_n - rest) / rest, df++;
    if (df > 0 && chi > chi_limit(df))
        fail_msg("case %d: chi-square %.1f over %.0f degrees, limit %.1f", c->index, chi, df, chi_limit(df));
}

static void test_draws(void **state) {
    (void)state;
    for_each(check_draws, NULL);
}

/* ---- set-up ---- */

static int set_up(void **state) {
    (void)state;
    fa_error err;
    if (!fa_json_load(&file, CASES, &err) && !fa_tok_from_dir(&tok, MODEL_DIR, &err)) return 0;
    fprintf(stderr, "%s\n", err.msg);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    fa_json_free(file);
    fa_tok_free(tok);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_exact_plain),
                                       cmocka_unit_test(test_draws)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
