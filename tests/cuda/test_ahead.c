/* Steps that are begun before the last one is read, and picks of the device, through requests: the same tokens, events,
 * reuse and sessions as on the CPU, where nothing is ahead; requests that end, are cancelled, freed and submitted at
 * any time; failures in the middle. */
#define _DEFAULT_SOURCE
#include "cuda/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/registry.h"
#include "engine/engine.h"

static const char config[] =
    "{\"model_type\": \"qwen3\", \"architectures\": [\"Qwen3ForCausalLM\"], \"hidden_size\": 96, "
    "\"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 6, \"num_key_value_heads\": 2, \"head_dim\": 24, \"intermediate_size\": 160, "
    "\"vocab_size\": "
    "301, \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000.0, \"max_position_embeddings\": 4096, \"eos_token_id\": 7, "
    "\"tie_word_embeddings\": false, \"use_sliding_window\": true, \"sliding_window\": 20, \"max_window_layers\": 1}";
enum { N = 100, EOS = 7, VOCAB = 301, MOST = 16 };

static ffai_model *model;
static char folder[] = "/tmp/ffai_ahead_XXXXXX";
static int32_t ids[N];

static int set_up(void **state) {
    (void)state;
    char path[64];
    ffai_error err;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    if (!f || fputs(config, f) < 0 || fclose(f)) return -1;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(fa_rng_at(7, (uint64_t)i) % VOCAB);
    return ffai_model_open(&model, folder, &(ffai_model_opts){.synthetic = "bf16"}, &err);
}

static int tear_down(void **state) {
    (void)state;
    char path[64];
    ffai_model_free(model);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    return rmdir(folder);
}

static ffai_engine *engine(const char *device, int n_slot, int n_ctx) {
    ffai_error err;
    ffai_engine *e;
    ffai_engine_opts o = {
        .device = device, .cuda_module = hn_module_path(), .precision = "exact", .n_slot = n_slot, .n_ctx = n_ctx};
    if (ffai_engine_create(&e, model, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static ffai_request *submit(ffai_engine *e, ffai_request_opts o) {
    ffai_error err;
    ffai_request *r;
    if (ffai_submit(e, &o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static int step(ffai_engine *e) {
    ffai_error err = {0};
    int rc = ffai_engine_step(e, &err);
    if (rc < 0) fail_msg("%s", err.msg);
    return rc;
}

static ffai_finish finish_of(ffai_request *r) {
    ffai_event ev;
    ffai_request_poll(r, &ev);
    return ev.finish;
}

/* ---- many requests ---- */

/* What a request did. */
typedef struct trace {
    int32_t id[64];
    size_t n, n_prompt, n_reused;
    int n_event, most; /* events; most tokens in one */
    ffai_finish finish;
} trace;

static void on_event(void *user, ffai_request *r, const ffai_event *ev) {
    trace *t = (trace *)user;
    (void)r;
    t->n_event++;
    if ((int)ev->n_ids > t->most) t->most = (int)ev->n_ids;
    t->finish = ev->finish;
}

static void only_even(void *user, const int32_t *all, size_t n, uint32_t *bits) {
    (void)user, (void)all, (void)n;
    for (int i = 0; i < (VOCAB + 31) / 32; i++) bits[i] &= 0x55555555u;
}

static void odd_in_turn(void *user, const int32_t *all, size_t n, uint32_t *bits) {
    (void)user, (void)all;
    for (int i = 0; i < (VOCAB + 31) / 32; i++) bits[i] &= n % 2 ? 0xAAAAAAAAu : 0x0F0F0F0Fu;
}

static const ffai_logit_bias to_end[] = {{EOS, 3}, {EOS, 1.6f}, {3, -INFINITY}};

/* Options that the device samples, some that it does not, some with masks. */
static int all_requests(ffai_request_opts o[MOST]) {
    static const int32_t first[] = {1, 2, 3};
    const ffai_sampling s[MOST] = {{0},
                                   {.temp = 1, .seed = 1},
                                   {.temp = 0.8f, .top_k = 20, .top_p = 0.9f, .seed = 2},
                                   {.repeat_penalty = 1.3f, .frequency_penalty = 0.2f},
                                   {.temp = 1, .min_p = 0.1f, .presence_penalty = 1, .repeat_last = 4, .seed = 3},
                                   {.temp = 1, .typical = 0.9f, .seed = 4},
                                   {.temp = 1, .seed = 5, .bias = to_end, .n_bias = 3},
                                   {.temp = 1, .top_n_sigma = 1, .seed = 6},
                                   {.dry_multiplier = 0.8f},
                                   {.begin_suppress = first, .n_begin_suppress = 3},
                                   {.temp = 1, .seed = 8, .samplers = "top_k", .top_k = 9, .top_p = 0.1f}};
    for (int i = 0; i < MOST; i++) {
        o[i] = (ffai_request_opts){
            .ids = ids + i, .n_ids = (size_t)(1 + 5 * i), .max_new = 3 + i % 5 * 6, .sampling = s[i]};
        o[i].ignore_eos = i % 4 == 0;
        if (i == 11 || i == 12) o[i].mask = i == 11 ? only_even : odd_in_turn;
        if (i == 12) o[i].sampling = (ffai_sampling){.temp = 1, .seed = 9, .repeat_penalty = 1.2f};
        if (i == 13) o[i].n_logprob = 2;
    }
    return MOST;
}

static void run_all(ffai_engine *e, trace t[MOST], int every) {
    ffai_request_opts o[MOST];
    ffai_request *r[MOST];
    int n = all_requests(o), begun = 0;
    bool more = true;
    memset(t, 0, MOST * sizeof *t);
    for (int i = 0; begun < n || more; i++) {
        for (int k = 0; begun < n && (k == 0 || !every) && (!every || i % every == 0); k++) {
            o[begun].event = on_event;
            o[begun].user = &t[begun];
            r[begun] = submit(e, o[begun]);
            begun++;
        }
        more = step(e) > 0;
    }
    for (int i = 0; i < n; i++) {
        const int32_t *all;
        size_t n_all;
        ffai_request_ids(r[i], &all, &n_all, &t[i].n_prompt, &t[i].n_reused);
        t[i].n = n_all - t[i].n_prompt;
        memcpy(t[i].id, all + t[i].n_prompt, t[i].n * sizeof *all);
        ffai_request_free(r[i]);
    }
}

static void test_same_tokens(void **state) {
    (void)state;
    trace want[MOST], got[MOST];
    ffai_engine *cpu = engine("cpu", 1, 200);
    run_all(cpu, want, 0);
    ffai_engine_free(cpu);
    bool eos = false;
    for (int i = 0; i < MOST; i++) eos = eos || want[i].finish == FFAI_FINISH_EOS;
    assert_true(eos);
    for (int n_slot = 1; n_slot <= 7; n_slot += 3)
        for (int every = 0; every < 4; every++) {
            ffai_engine_stats st;
            int64_t n = 0;
            ffai_engine *gpu = engine("cuda", n_slot, 200);
            run_all(gpu, got, every);
            for (int i = 0; i < MOST; i++) {
                if (got[i].n != want[i].n || memcmp(got[i].id, want[i].id, want[i].n * 4) ||
                    got[i].finish != want[i].finish)
                    fail_msg(
                        "%d slots, a request every %d steps: request %d gives %zu tokens, finish %d; must be %zu, %d",
                        n_slot, every, i, got[i].n, (int)got[i].finish, want[i].n, (int)want[i].finish);
                assert_int_equal(got[i].most, got[i].n ? 1 : 0); /* one token a step */
                n += (int64_t)got[i].n;
            }
            ffai_engine_get_stats(gpu, &st);
            assert_int_equal(st.gen_tokens, n);
            assert_true(st.device_picks > 0);
            ffai_engine_free(gpu);
        }
}

/* ---- ends ---- */

/* After k tokens the caches hold the same on both devices. */
static void test_cut_short(void **state) {
    (void)state;
    static const char *const device[] = {"cpu", "cuda"};
    for (int k = 1; k < 6; k++)
        for (int how = 0; how < 3; how++) { /* cancelled, freed, its limit */
            size_t reused[2];
            int32_t len[2];
            for (int d = 0; d < 2; d++) {
                ffai_engine *e = engine(device[d], 2, 200);
                ffai_request *r = submit(
                    e, (ffai_request_opts){.ids = ids, .n_ids = 60, .max_new = how == 2 ? k : 40, .ignore_eos = true});
                int32_t text[70];
                const int32_t *all;
                size_t n, n_prompt;
                for (int i = 0; i < k; i++) step(e);
                ffai_request_ids(r, &all, &n, &n_prompt, &reused[d]);
                assert_int_equal(n, 60 + k);
                memcpy(text, all, n * sizeof *text);
                text[n] = text[n - 1];
                if (how == 0) ffai_request_cancel(r);
                if (how == 1) ffai_request_free(r);
                len[d] = e->kv->len[0] > e->kv->len[1] ? e->kv->len[0] : e->kv->len[1];
                ffai_request *again =
                    submit(e, (ffai_request_opts){.ids = text, .n_ids = n + 1, .max_new = 3, .ignore_eos = true});
                while (step(e)) {
                }
                ffai_request_ids(again, &all, &n, &n_prompt, &reused[d]);
                ffai_request_free(again);
                if (how != 1) ffai_request_free(r);
                ffai_engine_free(e);
            }
            assert_int_equal(reused[0], reused[1]);
            assert_int_equal(len[0], len[1]);
        }
}

/* The context's last place is used, and nothing behind it. */
static void test_context_end(void **state) {
    (void)state;
    ffai_engine *cpu = engine("cpu", 1, 64), *gpu = engine("cuda", 1, 64);
    for (size_t n = 40; n < 64; n += 23) {
        const int32_t *a, *b;
        size_t na, nb, np, nr;
        ffai_request_opts o = {.ids = ids, .n_ids = n, .ignore_eos = true};
        ffai_request *x = submit(cpu, o), *y = submit(gpu, o);
        while (step(cpu)) {
        }
        while (step(gpu)) {
        }
        ffai_request_ids(x, &a, &na, &np, &nr);
        ffai_request_ids(y, &b, &nb, &np, &nr);
        assert_int_equal(na, 64);
        assert_int_equal(nb, 64);
        assert_memory_equal(a, b, 64 * sizeof *a);
        assert_int_equal(finish_of(y), FFAI_FINISH_LENGTH);
        ffai_request_free(x);
        ffai_request_free(y);
    }
    ffai_engine_free(cpu);
    ffai_engine_free(gpu);
}

/* Inside of events: one frees itself, one cancels the other and submits a third. */
typedef struct party {
    ffai_engine *e;
    ffai_request *victim, *third;
    int n;
} party;

static void frees_itself(void *user, ffai_request *r, const ffai_event *ev) {
    party *p = (party *)user;
    (void)ev;
    if (++p->n == 3) ffai_request_free(r);
}

static void makes_trouble(void *user, ffai_request *r, const ffai_event *ev) {
    party *p = (party *)user;
    (void)r;
    if (ev->finish != FFAI_RUNNING || ++p->n != 4) return;
    ffai_request_cancel(p->victim);
    p->third = submit(p->e, (ffai_request_opts){.ids = ids + 3, .n_ids = 9, .max_new = 6, .ignore_eos = true});
}

static void test_events(void **state) {
    (void)state;
    static const char *const device[] = {"cpu", "cuda"};
    int32_t text[2][3][40];
    size_t n[2][3];
    memset(text, 0, sizeof text);
    for (int d = 0; d < 2; d++) {
        ffai_engine *e = engine(device[d], 3, 100);
        party a = {.e = e}, b = {.e = e};
        submit(e, (ffai_request_opts){
                      .ids = ids, .n_ids = 5, .max_new = 20, .ignore_eos = true, .event = frees_itself, .user = &a});
        ffai_request *r[3];
        r[0] = b.victim = submit(e, (ffai_request_opts){.ids = ids + 1, .n_ids = 8, .max_new = 20, .ignore_eos = true});
        r[1] = submit(
            e, (ffai_request_opts){
                   .ids = ids + 2, .n_ids = 3, .max_new = 20, .ignore_eos = true, .event = makes_trouble, .user = &b});
        while (step(e)) {
        }
        r[2] = b.third;
        assert_int_equal(a.n, 3);
        for (int i = 0; i < 3; i++) {
            const int32_t *all;
            size_t n_prompt, n_reused;
            ffai_request_ids(r[i], &all, &n[d][i], &n_prompt, &n_reused);
            memcpy(text[d][i], all, n[d][i] * sizeof *all);
            ffai_request_free(r[i]);
        }
        ffai_engine_free(e);
    }
    assert_memory_equal(n[0], n[1], sizeof n[0]);
    assert_memory_equal(text[0], text[1], sizeof text[0]);
}

/* ---- sessions in the middle ---- */

static void test_session(void **state) {
    (void)state;
    char path[64];
    ffai_error err;
    snprintf(path, sizeof path, "%s/s", folder);
    for (int k = 1; k < 4; k++) {
        ffai_engine *e = engine("cuda", 1, 100), *cpu = engine("cpu", 1, 100);
        ffai_request *r = submit(e, (ffai_request_opts){.ids = ids, .n_ids = 30, .max_new = 12, .ignore_eos = true});
        int32_t *known, text[42];
        const int32_t *all;
        size_t n, n_all, n_prompt, n_reused;
        for (int i = 0; i < k; i++) step(e);
        if (ffai_session_save(r, path, &err)) fail_msg("%s", err.msg);
        while (step(e)) {
        }
        ffai_request_ids(r, &all, &n_all, &n_prompt, &n_reused);
        assert_int_equal(n_all, 42);
        memcpy(text, all, sizeof text);
        if (ffai_session_load(cpu, path, &known, &n, &err)) fail_msg("%s", err.msg);
        assert_int_equal(n, 30 + k);
        assert_memory_equal(known, text, n * sizeof *known);
        ffai_request *q =
            submit(cpu, (ffai_request_opts){.ids = known, .n_ids = n, .max_new = 12 - k, .ignore_eos = true});
        while (step(cpu)) {
        }
        ffai_request_ids(q, &all, &n_all, &n_prompt, &n_reused);
        assert_int_equal(n_reused, n - 1);
        assert_memory_equal(all, text, sizeof text);
        ffai_free(known);
        ffai_request_free(q);
        ffai_request_free(r);
        ffai_engine_free(e);
        ffai_engine_free(cpu);
    }
    unlink(path);
}

/* ---- failures ---- */

/* Whichever launch fails, what came before it is right, the request says so, and the engine goes on. */
static void test_failed_launches(void **state) {
    (void)state;
    ffai_engine *e = engine("cuda", 2, 100);
    ffai_request_opts o = {.ids = ids,
                           .n_ids = 10,
                           .max_new = 8,
                           .ignore_eos = true,
                           .fresh = true,
                           .sampling = {.temp = 1, .top_k = 30, .seed = 4}};
    int32_t want[18];
    int n_failed = 0;
    for (long at = 0; at < 160; at += 1 + at / 12) { /* 0: none */
        ffai_error err = {0};
        const int32_t *all;
        size_t n, n_prompt, n_reused;
        ffai_request *r = submit(e, o),
                     *q = submit(e, (ffai_request_opts){.ids = ids + 9, .n_ids = 3, .max_new = 4, .fresh = true});
        int rc, failed = 0;
        if (at) e->dev->inject(e->dev, FA_INJECT_LAUNCH, at);
        while ((rc = ffai_engine_step(e, &err)) != 0) failed += rc < 0;
        e->dev->inject(e->dev, FA_INJECT_LAUNCH, 0);
        ffai_request_ids(r, &all, &n, &n_prompt, &n_reused);
        if (!at) memcpy(want, all, sizeof want);
        assert_memory_equal(all, want, n * sizeof *all);
        assert_int_equal(n == 18, finish_of(r) == FFAI_FINISH_LENGTH);
        assert_true(failed <= 1 && (failed || n == 18));
        n_failed += failed;
        ffai_request_free(r);
        ffai_request_free(q);
    }
    assert_true(n_failed > 10);
    ffai_engine_free(e);
}

/* No token is left: the error tells which one, whether or not a step is ahead. */
static void test_none_left(void **state) {
    (void)state;
    static ffai_logit_bias all[VOCAB];
    for (int i = 0; i < VOCAB; i++) all[i] = (ffai_logit_bias){i, -INFINITY};
    ffai_engine *e = engine("cuda", 1, 100);
    ffai_request *r =
        submit(e, (ffai_request_opts){.ids = ids, .n_ids = 4, .sampling = {.bias = all, .n_bias = VOCAB}});
    while (step(e)) {
    }
    assert_int_equal(finish_of(r), FFAI_FINISH_ERROR);
    assert_non_null(strstr(ffai_request_error(r)->msg, "token 4: none is left"));
    ffai_request_free(r);
    r = submit(e, (ffai_request_opts){.ids = ids, .n_ids = 4, .max_new = 3, .ignore_eos = true});
    while (step(e)) {
    }
    assert_int_equal(finish_of(r), FFAI_FINISH_LENGTH);
    ffai_request_free(r);
    ffai_engine_free(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_tokens), cmocka_unit_test(test_cut_short), cmocka_unit_test(test_context_end),
        cmocka_unit_test(test_events),      cmocka_unit_test(test_session),   cmocka_unit_test(test_failed_launches),
        cmocka_unit_test(test_none_left),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
