/* Sampling through requests, on the carried model: log-probabilities against the logits of an evaluation, masks, the
 * same tokens whatever shares the batch and however many threads run, what generation_config.json asks for, and
 * messages. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/sample_int.h"
#include "ffai.h"
#include "io/gguf_make.h"

#define MODEL_DIR FFAI_SOURCE_DIR "/models/ffai-demo-6m"
enum { VOCAB_MAX = 8192, N_NEW = 40 };

static ffai_model *model;
static int64_t vocab;
static int32_t *prompt;
static size_t n_prompt;

static int set_up(void **state) {
    (void)state;
    ffai_error err;
    static const char text[] = "In the old house by the sea there was";
    if (ffai_model_open(&model, MODEL_DIR, NULL, &err) ||
        ffai_tokenize(model, text, strlen(text), FFAI_TOK_SPECIAL, &prompt, &n_prompt, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    ffai_model_info info;
    ffai_model_get_info(model, &info);
    vocab = info.vocab;
    return vocab <= VOCAB_MAX ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    ffai_free(prompt);
    ffai_model_free(model);
    return 0;
}

static ffai_engine *engine(int n_thread, int n_slot) {
    ffai_error err;
    ffai_engine *e;
    ffai_engine_opts o = {.precision = "exact", .n_ctx = 256, .n_thread = n_thread, .n_slot = n_slot};
    if (ffai_engine_create(&e, model, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static ffai_request_opts usual(ffai_sampling s) {
    return (ffai_request_opts){.ids = prompt, .n_ids = n_prompt, .max_new = N_NEW, .sampling = s, .ignore_eos = true};
}

static ffai_request *submit(ffai_engine *e, const ffai_request_opts *o) {
    ffai_error err;
    ffai_request *r;
    if (ffai_submit(e, o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static void run_out(ffai_engine *e) {
    ffai_error err;
    int rc;
    while ((rc = ffai_engine_step(e, &err)) > 0) {
    }
    if (rc < 0) fail_msg("%s", err.msg);
}

static const int32_t *tokens(ffai_request *r, size_t *n) {
    const int32_t *ids;
    size_t all, before, reused;
    ffai_request_ids(r, &ids, &all, &before, &reused);
    *n = all - before;
    return ids + before;
}

/* ---- log-probabilities ---- */

typedef struct rows {
    int64_t from; /* row of the last prompt token */
    double *lse;  /* [N_NEW] */
    float *x;     /* [N_NEW, vocab] */
} rows;

static void on_row(void *user, int64_t row, const float *logits, int64_t n) {
    rows *r = user;
    int64_t i = row - r->from;
    if (i < 0 || i >= N_NEW) return;
    double z = 0;
    for (int64_t j = 0; j < n; j++) z += exp((double)logits[j]);
    r->lse[i] = log(z);
    memcpy(r->x + i * n, logits, (size_t)n * sizeof *logits);
}

/* What the events say is the log softmax of the raw logits, whatever the samplers do. */
static void test_logprobs(void **state) {
    (void)state;
    enum { K = 4 };
    ffai_error err;
    ffai_engine *e = engine(2, 1);
    ffai_logit_bias bias = {100, -5};
    ffai_request_opts o = usual(
        (ffai_sampling){.temp = 0.7f, .top_k = 30, .repeat_penalty = 1.4f, .bias = &bias, .n_bias = 1, .seed = 3});
    o.n_logprob = K;
    ffai_request *r = submit(e, &o);
    static ffai_logprob got[N_NEW][1 + K];
    size_t n_got = 0, n;
    for (int more = 1; more > 0;) {
        ffai_event ev;
        more = ffai_engine_step(e, &err);
        ffai_request_poll(r, &ev);
        if (!ev.n_ids) continue;
        assert_int_equal(ev.n_top, K);
        for (size_t i = 0; i < ev.n_ids; i++) assert_int_equal(ev.logprobs[i * (1 + K)].id, ev.ids[i]);
        memcpy(got[n_got], ev.logprobs, ev.n_ids * sizeof got[0]);
        n_got += ev.n_ids;
    }
    assert_int_equal(n_got, N_NEW);
    const int32_t *ids = tokens(r, &n);
    assert_int_equal(n, N_NEW);
    rows w = {(int64_t)n_prompt - 1, calloc(N_NEW, sizeof(double)), calloc((size_t)(N_NEW * vocab), sizeof(float))};
    int32_t all[128];
    memcpy(all, prompt, n_prompt * sizeof *all);
    memcpy(all + n_prompt, ids, n * sizeof *all);
    ffai_request_free(r);
    ffai_engine_free(e);
    e = engine(2, 1);
    ffai_eval_opts eo = {.ids = all, .n_ids = n_prompt + n, .decode_from = (int)n_prompt, .logits = on_row, .user = &w};
    if (ffai_eval(e, &eo, &err)) fail_msg("%s", err.msg);
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k <= K; k++) {
            ffai_logprob lp = got[i][k];
            double want = (double)w.x[(int64_t)i * vocab + lp.id] - w.lse[i];
            if (fabs((double)lp.logprob - want) > 1e-3)
                fail_msg("token %zu, place %d: %g, must be %g", i, k, (double)lp.logprob, want);
            assert_true(k < 2 || got[i][k - 1].logprob >= lp.logprob);
        }
    free(w.lse);
    free(w.x);
    ffai_engine_free(e);
}

static void test_logprob_options(void **state) {
    (void)state;
    ffai_error err;
    ffai_engine *e = engine(1, 1);
    ffai_request_opts o = usual((ffai_sampling){0});
    ffai_event ev;
    o.max_new = 3;
    ffai_request *r = submit(e, &o);
    run_out(e);
    ffai_request_poll(r, &ev);
    assert_true(ev.n_ids == 3 && !ev.logprobs && ev.n_top == 0);
    ffai_request_free(r);
    o.n_logprob = -1;
    r = submit(e, &o);
    run_out(e);
    ffai_request_poll(r, &ev);
    assert_true(ev.n_ids == 3 && ev.logprobs && ev.n_top == 0 && ev.logprobs[2].id == ev.ids[2]);
    ffai_request_free(r);
    for (int i = 0; i < 2; i++) {
        o.n_logprob = i ? 100000 : -2;
        assert_true(ffai_submit(e, &o, &r, &err) < 0);
        assert_null(r);
        assert_non_null(strstr(err.msg, i ? "logprobs: 100000" : "logprobs: -2"));
    }
    ffai_engine_free(e);
}

/* ---- masks ---- */

typedef struct mask_user {
    int calls, allow; /* allow: every token whose id is a multiple of it; 0: none */
    size_t n;
} mask_user;

static void multiples(void *user, const int32_t *ids, size_t n, uint32_t *bits) {
    mask_user *u = user;
    u->calls++;
    u->n = n;
    assert_memory_equal(ids, prompt, n_prompt * sizeof *ids);
    for (int64_t i = 0; i < vocab; i++) {
        assert_true(bits[i / 32] >> (i % 32) & 1);
        if (!u->allow || i % u->allow) bits[i / 32] &= ~(UINT32_C(1) << i % 32);
    }
}

static void test_mask(void **state) {
    (void)state;
    ffai_engine *e = engine(1, 1);
    for (int hot = 0; hot < 2; hot++) {
        mask_user u = {.allow = 7};
        ffai_request_opts o = usual((ffai_sampling){.temp = (float)hot, .top_p = 0.9f});
        o.mask = multiples;
        o.user = &u;
        o.n_logprob = hot;
        ffai_request *r = submit(e, &o);
        run_out(e);
        size_t n;
        const int32_t *ids = tokens(r, &n);
        assert_int_equal(n, N_NEW);
        assert_int_equal(u.calls, N_NEW);
        assert_int_equal(u.n, n_prompt + N_NEW - 1);
        for (size_t i = 0; i < n; i++) assert_int_equal(ids[i] % 7, 0);
        ffai_request_free(r);
    }
    mask_user none = {0};
    ffai_request_opts o = usual((ffai_sampling){.temp = 1});
    ffai_event ev;
    o.mask = multiples;
    o.user = &none;
    ffai_request *r = submit(e, &o);
    run_out(e);
    ffai_request_poll(r, &ev);
    assert_int_equal(ev.finish, FFAI_FINISH_ERROR);
    assert_non_null(strstr(ffai_request_error(r)->msg, "mask allows none"));
    ffai_request_free(r);
    /* an allowed token that a bias forbids */
    ffai_logit_bias ban = {0, -INFINITY};
    none.allow = VOCAB_MAX;
    o.sampling = (ffai_sampling){.temp = 1, .bias = &ban, .n_bias = 1};
    r = submit(e, &o);
    run_out(e);
    assert_non_null(strstr(ffai_request_error(r)->msg, "forbidden"));
    ffai_engine_free(e);
}

/* ---- the same tokens ---- */

static void test_reproducible(void **state) {
    (void)state;
    enum { WAYS = 5 };
    static int32_t got[WAYS][N_NEW];
    const ffai_sampling s = {.temp = 0.9f,
                             .top_p = 0.9f,
                             .repeat_penalty = 1.1f,
                             .dry_multiplier = 0.8f,
                             .xtc_prob = 0.5f,
                             .typical = 0.95f,
                             .seed = 12};
    for (int way = 0; way < WAYS; way++) {
        ffai_engine *e = engine(way == 1 ? 3 : 1, way >= 2 ? 3 : 1);
        ffai_request_opts mine = usual(s), other = usual((ffai_sampling){.temp = 1, .seed = 4});
        ffai_request *o1 = NULL, *o2 = NULL, *r;
        ffai_error err;
        other.n_ids = n_prompt - 2;
        if (way >= 2) o1 = submit(e, &other);
        for (int i = 0; way == 3 && i < 9; i++) assert_true(ffai_engine_step(e, &err) > 0);
        int32_t longer[128];
        if (way == 4) { /* from the middle of what it wrote itself */
            memcpy(longer, prompt, n_prompt * sizeof *longer);
            memcpy(longer + n_prompt, got[0], 15 * sizeof *longer);
            mine.ids = longer;
            mine.n_ids = n_prompt + 15;
            mine.max_new = N_NEW - 15;
            memcpy(got[4], got[0], 15 * sizeof *longer);
        }
        r = submit(e, &mine);
        if (way >= 2) o2 = submit(e, &other);
        run_out(e);
        size_t n, from = way == 4 ? 15 : 0;
        const int32_t *ids = tokens(r, &n);
        assert_int_equal(n, N_NEW - from);
        memcpy(got[way] + from, ids, n * sizeof *ids);
        if (memcmp(got[way], got[0], sizeof got[0])) fail_msg("way %d gives other tokens", way);
        ffai_request_free(o1);
        ffai_request_free(o2);
        ffai_engine_free(e);
    }
}

/* ---- generation_config.json ---- */

static void write_file(const char *dir, const char *name, const char *text) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* The sampling of a folder that holds the carried model's config.json and this generation_config.json. */
static void config_of(const char *text, ffai_sampling *s, char *ignored, ffai_model **keep) {
    static const char copy[] = "cp '" MODEL_DIR "/config.json' '%s'";
    char dir[] = "/tmp/ffai-sampling-XXXXXX", cmd[500];
    ffai_error err;
    ffai_model_opts o = {.config_only = true};
    ffai_model_info info;
    assert_non_null(mkdtemp(dir));
    snprintf(cmd, sizeof cmd, copy, dir);
    assert_int_equal(system(cmd), 0);
    write_file(dir, "generation_config.json", text);
    if (ffai_model_open(keep, dir, &o, &err)) fail_msg("%s", err.msg);
    ffai_sampling_default(*keep, s);
    ffai_model_get_info(*keep, &info);
    snprintf(ignored, 200, "%s", info.ignored);
    snprintf(cmd, sizeof cmd, "rm -r '%s'", dir);
    assert_int_equal(system(cmd), 0);
}

static void test_config(void **state) {
    (void)state;
    ffai_sampling s;
    char ignored[200];
    ffai_model *m;
    config_of("{}", &s, ignored, &m);
    assert_true(s.temp == 0 && s.top_k == 0 && s.top_p == 1 && !s.bias && !*ignored);
    ffai_model_free(m);
    config_of("{\"do_sample\": true}", &s, ignored, &m);
    assert_true(s.temp == 1 && s.top_k == 50); /* as transformers */
    ffai_model_free(m);
    config_of("{\"temperature\": 0.6, \"top_k\": 20, \"repetition_penalty\": 1.05}", &s, ignored, &m);
    assert_true(s.temp == 0 && s.top_k == 20 && s.repeat_penalty == 1.05f && s.repeat_last == 0);
    ffai_model_free(m);
    config_of("{\"do_sample\": true, \"temperature\": 0.6, \"top_k\": -1, \"top_p\": 0.95, \"min_p\": 0.1, "
              "\"typical_p\": 0.8,"
              "\"top_h\": 0.4, \"epsilon_cutoff\": 0.001, \"eta_cutoff\": 0.002, \"repetition_penalty\": 1.1,"
              "\"no_repeat_ngram_size\": 3, \"min_new_tokens\": 5, \"min_length\": 9, \"suppress_tokens\": [7, -1, 9],"
              "\"begin_suppress_tokens\": [11], \"bad_words_ids\": [[1], [5], [6, 7]],"
              "\"sequence_bias\": [[[8], -2.5], [[8, 9], 1]], \"num_beams\": 1, \"penalty_alpha\": 0.6,"
              "\"guidance_scale\": 1.0, \"stop_strings\": [\"x\"]}",
              &s, ignored, &m);
    assert_true(s.temp == 0.6f && s.top_k == 0 && s.top_p == 0.95f && s.min_p == 0.1f && s.typical == 0.8f);
    assert_true(s.top_h == 0.4f && s.epsilon_cutoff == 0.001f && s.eta_cutoff == 0.002f && s.repeat_penalty == 1.1f);
    assert_true(s.no_repeat_ngram == 3 && s.min_new == 5 && s.min_length == 0);
    assert_true(s.n_bias == 3 && s.bias[0].id == 7 && s.bias[1].id == 9 && s.bias[1].bias == -INFINITY);
    assert_true(s.bias[2].id == 8 && s.bias[2].bias == -2.5f);
    assert_true(s.n_begin_suppress == 1 && s.begin_suppress[0] == 11);
    assert_true(s.n_bad_word == 2 && s.bad_words[0].n == 1 && s.bad_words[0].ids[0] == 5); /* 1 is the end of text */
    assert_true(s.bad_words[1].n == 2 && s.bad_words[1].ids[1] == 7);
    assert_string_equal(ignored, "penalty_alpha, stop_strings, sequence_bias");
    ffai_model_free(m);
}

/* general.sampling.* of GGUF files. */
static int from_gguf(gguf_make *mk, ffai_sampling *s, fa_buf *order, fa_buf *ignored, fa_error *err) {
    fa_buf file = mk_file(mk, 3);
    fa_gguf *g;
    memset(s, 0, sizeof *s);
    fa_buf_free(order);
    fa_buf_free(ignored);
    if (fa_gguf_parse(&g, (const uint8_t *)file.data, file.len, "m.gguf", err)) fail_msg("%s", err->msg);
    int rc = fa_sampling_from_gguf(g, s, order, ignored, err);
    fa_gguf_free(g);
    fa_buf_free(&file);
    return rc;
}

static void test_gguf(void **state) {
    (void)state;
    ffai_sampling s;
    fa_buf order = {0}, ignored = {0};
    fa_error err;
    gguf_make m = {0};
    assert_int_equal(from_gguf(&m, &s, &order, &ignored, &err), 0);
    assert_true(s.temp == 0 && s.top_k == 0 && s.top_p == 1 && !order.len && !ignored.len);
    m = (gguf_make){0};
    mk_f32(&m, "general.sampling.temp", 0.6f);
    mk_u32(&m, "general.sampling.top_k", 20);
    mk_f32(&m, "general.sampling.top_p", 0.95f);
    mk_f32(&m, "general.sampling.min_p", 0.05f);
    mk_f32(&m, "general.sampling.xtc_probability", 0.5f);
    mk_f32(&m, "general.sampling.xtc_threshold", 0.2f);
    mk_f32(&m, "general.sampling.penalty_repeat", 1.1f);
    mk_u32(&m, "general.sampling.penalty_last_n", 64);
    mk_u32(&m, "general.sampling.mirostat", 2);
    mk_f32(&m, "general.sampling.mirostat_tau", 4);
    mk_text(&m, "general.sampling.sequence", "top_k;typ_p;temperature");
    assert_int_equal(from_gguf(&m, &s, &order, &ignored, &err), 0);
    assert_true(s.temp == 0.6f && s.top_k == 20 && s.top_p == 0.95f && s.min_p == 0.05f && s.xtc_prob == 0.5f);
    assert_true(s.xtc_threshold == 0.2f && s.repeat_penalty == 1.1f && s.repeat_last == 64 && s.mirostat_tau == 4);
    assert_string_equal(order.data, "top_k;typ_p;temperature");
    assert_int_equal(ignored.len, 0);
    m = (gguf_make){0};
    mk_u32(&m, "general.sampling.mirostat", 1);
    mk_u32(&m, "general.sampling.penalty_last_n", 0);
    mk_f32(&m, "general.sampling.penalty_repeat", 1.1f);
    mk_text(&m, "general.sampling.sequence", "top_k;infill");
    assert_int_equal(from_gguf(&m, &s, &order, &ignored, &err), 0);
    assert_true(s.mirostat_tau == 0 && s.repeat_penalty == 0 && !order.len);
    assert_string_equal(ignored.data, "mirostat 1, sampling.sequence");
    m = (gguf_make){0};
    mk_f32(&m, "general.sampling.top_p", 2);
    assert_int_equal(from_gguf(&m, &s, &order, &ignored, &err), FFAI_EFORMAT);
    assert_non_null(strstr(err.msg, "general.sampling.top_p"));
    m = (gguf_make){0};
    mk_text(&m, "general.sampling.temp", "hot");
    assert_int_equal(from_gguf(&m, &s, &order, &ignored, &err), FFAI_EFORMAT);
    fa_buf_free(&order);
    fa_buf_free(&ignored);
}

/* Bans hold in what is generated. */
static void test_bans(void **state) {
    (void)state;
    ffai_engine *e = engine(1, 1);
    ffai_sampling s = {0};
    ffai_request_opts o = usual(s);
    ffai_request *r = submit(e, &o);
    run_out(e);
    size_t n;
    const int32_t *ids = tokens(r, &n);
    int32_t first = ids[0], word[2] = {ids[4], ids[5]};
    ffai_token_list w = {word, 2};
    o.sampling = (ffai_sampling){
        .begin_suppress = &first, .n_begin_suppress = 1, .bad_words = &w, .n_bad_word = 1, .no_repeat_ngram = 2};
    ffai_request *b = submit(e, &o);
    first = word[0] = word[1] = -5; /* copied by submit */
    run_out(e);
    const int32_t *got = tokens(b, &n);
    assert_int_equal(n, N_NEW);
    assert_int_not_equal(got[0], ids[0]);
    for (size_t i = 1; i < n; i++) {
        assert_false(got[i - 1] == ids[4] && got[i] == ids[5]);
        for (size_t j = i + 1; j < n; j++) assert_false(got[j - 1] == got[i - 1] && got[j] == got[i]);
    }
    ffai_engine_free(e);
}

/* min_new keeps the end away. */
static void test_min_new(void **state) {
    (void)state;
    ffai_engine *e = engine(1, 1);
    ffai_logit_bias end = {1, 100}; /* the model's end of text */
    for (int min = 0; min < 8; min += 7)
        for (int all = 0; all < 2; all++) {
            ffai_sampling s = {.bias = &end, .n_bias = 1};
            if (all)
                s.min_length = min ? (int)n_prompt + min : 0;
            else
                s.min_new = min;
            ffai_request_opts o = usual(s);
            o.ignore_eos = false;
            ffai_event ev;
            ffai_request *r = submit(e, &o);
            run_out(e);
            ffai_request_poll(r, &ev);
            assert_int_equal(ev.n_ids, min);
            assert_int_equal(ev.finish, FFAI_FINISH_EOS);
            ffai_request_free(r);
        }
    ffai_engine_free(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logprobs),     cmocka_unit_test(test_logprob_options), cmocka_unit_test(test_mask),
        cmocka_unit_test(test_reproducible), cmocka_unit_test(test_config),          cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_bans),         cmocka_unit_test(test_min_new),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
