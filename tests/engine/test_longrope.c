/* LongRoPE: short or long factors follow the length of the sequence, for all of its tokens. Greedy generation across
 * the original context gives at each token what the whole sequence so far gives when it is evaluated afresh; so does
 * everything that goes on from a cache: slots side by side, chats, prompts that are cut back, sessions. Random weights.
 *
 *     test_longrope [DEVICE]     "cpu" by default; the module of "cuda:0" is $FFAI_CUDA_MODULE, or the emulated one */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/run.h"
#include "ffai.h"

#define FIXTURES FFAI_SOURCE_DIR "/tests/data/families/"
enum { MAX_IDS = 256 };

static const char *device = "cpu", *cuda_module;

/* A model with LongRoPE and the length up to which its short factors hold. */
static const struct kind {
    const char *name;
    int original;
} kinds[] = {{"phi3_mini4_long", 24}, {"llama_rope_longrope", 64}};
static int n_kind = sizeof kinds / sizeof kinds[0]; /* fewer on an emulated device, which is slow */

static ffai_model *open_model(const char *name) {
    ffai_error err = {0};
    ffai_model *m = NULL;
    char path[600];
    snprintf(path, sizeof path, "%s%s", FIXTURES, name);
    ffai_model_opts o = {.synthetic = "bf16"};
    if (ffai_model_open(&m, path, &o, &err)) fail_msg("%s", err.msg);
    return m;
}

static ffai_engine *engine_on(const char *where, ffai_model *m, int n_slot, int n_chunk) {
    ffai_error err = {0};
    ffai_engine *e = NULL;
    ffai_engine_opts o = {.precision = "exact",
                          .n_ctx = 200,
                          .n_thread = 1,
                          .n_slot = n_slot,
                          .n_chunk = n_chunk,
                          .device = where,
                          .cuda_module = cuda_module};
    if (ffai_engine_create(&e, m, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static ffai_engine *engine(ffai_model *m, int n_slot, int n_chunk) { return engine_on(device, m, n_slot, n_chunk); }

static void any_ids(int32_t *ids, int n, uint32_t seed) {
    for (int i = 0; i < n; i++) ids[i] = (int32_t)(((seed = seed * 1664525u + 1013904223u) >> 8) % 300u);
}

static ffai_request *submit(ffai_engine *e, const int32_t *ids, int n, int max_new) {
    ffai_error err = {0};
    ffai_request *r = NULL;
    ffai_request_opts o = {.ids = ids, .n_ids = (size_t)n, .max_new = max_new, .ignore_eos = true};
    if (ffai_submit(e, &o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static int take(ffai_request *r, int32_t *out, int *reused) {
    const int32_t *all;
    size_t n, n_prompt, n_reused;
    ffai_request_ids(r, &all, &n, &n_prompt, &n_reused);
    memcpy(out, all, n * sizeof *out);
    if (reused) *reused = (int)n_reused;
    ffai_request_free(r);
    return (int)n;
}

static int ask(ffai_engine *e, const int32_t *ids, int n, int max_new, int32_t *out, int *reused) {
    ffai_request *r = submit(e, ids, n, max_new);
    run_out(e);
    return take(r, out, reused);
}

typedef struct last_row {
    int64_t row;
    int32_t best;
} last_row;

static void keep_best(void *user, int64_t row, const float *logits, int64_t n) {
    last_row *l = user;
    if (row != l->row) return;
    l->best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[l->best]) l->best = (int32_t)i;
}

/* Each token after the prompt is the likeliest one after a whole evaluation of all before it, on the CPU. */
static void check(ffai_model *m, const int32_t *ids, int n_prompt, int n, const char *what) {
    ffai_engine *e = engine_on("cpu", m, 1, 0);
    ffai_error err = {0};
    for (int i = n_prompt; i < n; i++) {
        last_row l = {.row = i - 1, .best = -1};
        ffai_eval_opts o = {.ids = ids, .n_ids = (size_t)i, .logits = keep_best, .user = &l};
        if (ffai_eval(e, &o, &err)) fail_msg("%s", err.msg);
        if (l.best != ids[i])
            fail_msg("%s: token %d of %d is %d, a whole evaluation gives %d", what, i, n, ids[i], l.best);
    }
    ffai_engine_free(e);
}

/* From well before the limit, from at it, and from beyond; in whole and in small chunks. */
static void test_crossing(void **state) {
    (void)state;
    for (int k = 0; k < n_kind; k++) {
        ffai_model *m = open_model(kinds[k].name);
        int at = kinds[k].original;
        for (int d = -9; d <= 3; d += 3) {
            ffai_engine *e = engine(m, 1, d % 2 ? 0 : 7);
            int32_t ids[MAX_IDS];
            any_ids(ids, at + d, (uint32_t)(d + 50));
            int n = ask(e, ids, at + d, 14, ids, NULL);
            check(m, ids, at + d, n, kinds[k].name);
            ffai_engine_free(e);
        }
        ffai_model_free(m);
    }
}

/* Two at once: they cross at different times, one while the other decodes, is fed, or waits. */
static void test_two(void **state) {
    (void)state;
    for (int k = 0; k < n_kind; k++) {
        ffai_model *m = open_model(kinds[k].name);
        ffai_engine *e = engine(m, 2, 9);
        int n[4] = {kinds[k].original - 10, kinds[k].original - 4, kinds[k].original + 5, 3};
        int32_t ids[4][MAX_IDS];
        ffai_request *r[4];
        for (int i = 0; i < 4; i++) {
            any_ids(ids[i], n[i], 70u + (uint32_t)i);
            r[i] = submit(e, ids[i], n[i], 16 + i);
        }
        run_out(e);
        for (int i = 0; i < 4; i++) {
            int all = take(r[i], ids[i], NULL);
            check(m, ids[i], n[i], all, kinds[k].name);
        }
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* A chat that crosses in an answer goes on from the long cache; cut back below the limit, it begins anew; and a request
 * that was ended while it was fed again leaves what the next one can use. */
static void test_reuse(void **state) {
    (void)state;
    for (int k = 0; k < n_kind; k++) {
        ffai_model *m = open_model(kinds[k].name);
        ffai_engine *e = engine(m, 1, 8);
        int at = kinds[k].original, reused;
        int32_t ids[MAX_IDS], out[MAX_IDS];
        any_ids(ids, at, 5);
        int n = ask(e, ids, at - 5, 12, ids, NULL);
        check(m, ids, at - 5, n, "before");
        any_ids(ids + n, 6, 6);
        int all = ask(e, ids, n + 6, 5, out, &reused);
        assert_int_equal(reused, n - 1);
        check(m, out, n + 6, all, "the next turn");
        all = ask(e, ids, at - 8, 4, out, &reused);
        assert_int_equal(reused, 0);
        check(m, out, at - 8, all, "cut back");
        all = ask(e, ids, at - 6, 10, out, &reused);
        assert_true(reused > 0 && reused < at - 6);
        check(m, out, at - 6, all, "cut back and across again");

        ffai_request *r = submit(e, ids, at - 3, 50);
        for (const int32_t *p; ffai_engine_step(e, NULL) > 0;) {
            size_t have, n_prompt, n_reused;
            ffai_request_ids(r, &p, &have, &n_prompt, &n_reused);
            if (have == (size_t)at + 1) break;
        }
        ffai_engine_step(e, NULL); /* the first chunk of the second time */
        ffai_request_cancel(r);
        take(r, ids, NULL);
        all = ask(e, ids, at + 1, 6, out, &reused);
        assert_int_equal(reused, 8);
        check(m, out, at + 1, all, "after a cancel");
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* Saved before, at and after the crossing; gone on elsewhere. */
static void test_session(void **state) {
    (void)state;
    char file[600];
    const char *dir = getenv("TMPDIR");
    snprintf(file, sizeof file, "%s/ffai-longrope-%ld", dir ? dir : "/tmp", (long)getpid());
    for (int k = 0; k < n_kind; k++) {
        ffai_model *m = open_model(kinds[k].name);
        int at = kinds[k].original;
        for (int gen = 2; gen <= 10; gen += 2) {
            ffai_error err = {0};
            ffai_engine *a = engine(m, 2, 16), *b = engine(m, 2, 5);
            int32_t ids[MAX_IDS], out[MAX_IDS], *back = NULL;
            size_t n_back;
            any_ids(ids, at - 6, (uint32_t)gen);
            ffai_request *r = submit(a, ids, at - 6, gen);
            run_out(a);
            if (ffai_session_save(r, file, &err)) fail_msg("%s", err.msg);
            int n = take(r, ids, NULL), reused;
            if (ffai_session_load(b, file, &back, &n_back, &err)) fail_msg("%s", err.msg);
            assert_int_equal(n_back, n);
            ffai_free(back);
            int all = ask(b, ids, n, 12, out, &reused);
            assert_int_equal(reused, n == at + 1 ? 0 : n - 1); /* what was saved last was rotated for a token less */
            check(m, out, n, all, "a session");
            ffai_engine_free(a);
            ffai_engine_free(b);
        }
        ffai_model_free(m);
    }
    unlink(file);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_crossing), cmocka_unit_test(test_two),
                                       cmocka_unit_test(test_reuse), cmocka_unit_test(test_session)};
    if (argc > 1) device = argv[1];
    cuda_module = getenv("FFAI_CUDA_MODULE");
#ifdef FFAI_CUDA_EMU_MODULE
    if (!cuda_module) {
        cuda_module = FFAI_CUDA_EMU_MODULE;
        if (strcmp(device, "cpu")) n_kind = 1;
    }
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
