/* The n-th allocation fails, for every n: opening the carried model, its tokenizer, an engine, a memory plan, requests,
 * sessions, embeddings and an evaluation must report that, leave nothing behind (the address sanitizer looks for leaks)
 * and work when asked again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "ffai.h"

#define MODEL_DIR FFAI_SOURCE_DIR "/models/ffai-demo-6m"
enum { FAR = 1000000 };

static const int32_t ids[] = {1, 2, 3, 4, 5};

static char file[600];

typedef struct job {
    const char *weights;
    bool profile;
} job;

static int ask(ffai_engine *e, ffai_error *err) {
    static const char *const stop[] = {"never", "ever"};
    ffai_request_opts o = {.ids = ids,
                           .n_ids = 5,
                           .max_new = 3,
                           .sampling = {.temp = 1, .top_p = 0.9f, .seed = 1},
                           .stop = stop,
                           .n_stop = 2,
                           .ignore_eos = true};
    ffai_request *r[2] = {NULL, NULL};
    int rc = 0, n_done = 0;
    for (int i = 0; !rc && i < 2; i++) rc = ffai_submit(e, &o, &r[i], err);
    for (int more = 1; !rc && more > 0;)
        if ((more = ffai_engine_step(e, err)) < 0) rc = more;
    for (int i = 0; !rc && i < 2; i++) {
        ffai_event ev;
        ffai_request_poll(r[i], &ev);
        n_done += ev.finish == FFAI_FINISH_LENGTH && ev.n_ids == 3;
        if (ev.finish == FFAI_FINISH_ERROR) {
            *err = *ffai_request_error(r[i]);
            rc = err->code;
        }
    }
    assert_true(rc || n_done == 2);
    for (int i = 0; i < 2; i++) ffai_request_free(r[i]);
    return rc;
}

static void on_row(void *user, int64_t row, const float *logits, int64_t vocab) {
    (void)row, (void)logits, (void)vocab;
    ++*(int *)user;
}
static void on_tap(void *user, const char *name, int layer, const float *data, const int64_t *dim, int n_dim) {
    (void)user, (void)name, (void)layer, (void)data, (void)dim, (void)n_dim;
}

static int evaluate(ffai_engine *e, ffai_error *err) {
    int rows = 0;
    ffai_eval_opts o = {.ids = ids, .n_ids = 5, .decode_from = 3, .batch = 2, .logits = on_row, .user = &rows};
    int rc = ffai_eval(e, &o, err);
    o.tap = on_tap;
    o.logits = NULL;
    if (!rc) rc = ffai_eval(e, &o, err);
    double seconds[1];
    if (!rc) rc = ffai_bench(e, 2, 4, 2, 1, seconds, err);
    return rc;
}

static void on_event(void *user, ffai_request *r, const ffai_event *ev) {
    *(ffai_finish *)user = ev->finish;
    (void)r;
}

/* A request with a callback, its session into a file and back, and embeddings. */
static int keep(ffai_model *m, ffai_engine *e, ffai_error *err) {
    ffai_finish finish = FFAI_RUNNING;
    ffai_request *r = NULL;
    ffai_request_opts o = {
        .ids = ids, .n_ids = 5, .max_new = 3, .ignore_eos = true, .event = on_event, .user = &finish};
    int rc = ffai_submit(e, &o, &r, err), more = 1;
    while (!rc && more > 0)
        if ((more = ffai_engine_step(e, err)) < 0) rc = more;
    if (!rc && finish == FFAI_FINISH_ERROR) {
        *err = *ffai_request_error(r);
        rc = err->code;
    }
    if (!rc) rc = ffai_session_save(r, file, err);
    ffai_request_free(r);
    int32_t *back = NULL;
    size_t n = 0;
    if (!rc) rc = ffai_session_load(e, file, &back, &n, err);
    assert_true(!rc == !!back);
    assert_int_equal(n, rc ? 0 : 8);
    ffai_free(back);
    int64_t dim;
    static float x[2 * 256];
    const int32_t *both[] = {ids, ids + 1};
    size_t lens[] = {5, 3};
    if (!rc) rc = ffai_embed_dim(m, &dim, err);
    if (!rc) assert_int_equal(dim, 256);
    if (!rc) rc = ffai_embed_batch(e, both, lens, 2, NULL, x, err);
    return rc;
}

static int whole_run(const job *j, ffai_error *err) {
    ffai_model *m = NULL;
    ffai_engine *e = NULL;
    ffai_model_opts mo = {.weights = j->weights};
    ffai_engine_opts eo = {.n_thread = 2, .n_ctx = 64, .n_slot = 2, .profile = j->profile};
    ffai_plan plan;
    char text[200];
    int32_t *out = NULL;
    char *back = NULL;
    size_t n = 0, len = 0;
    int rc = ffai_model_open(&m, MODEL_DIR, &mo, err);
    assert_true(!rc == !!m);
    if (!rc) ffai_model_config_text(m); /* has no way to fail but an empty text */
    if (!rc) rc = ffai_tokenizer_text(m, text, sizeof text, err);
    if (!rc) rc = ffai_tokenize(m, "In the old house", 16, FFAI_TOK_SPECIAL, &out, &n, err);
    if (!rc) rc = ffai_detokenize(m, out, n, true, &back, &len, err);
    if (!rc) rc = ffai_engine_plan(m, &eo, &plan, err);
    if (!rc) rc = ffai_engine_create(&e, m, &eo, err);
    if (!rc) rc = ask(e, err);
    if (!rc) rc = keep(m, e, err);
    if (!rc) rc = evaluate(e, err);
    ffai_free(out);
    ffai_free(back);
    ffai_engine_free(e);
    ffai_model_free(m);
    return rc;
}

/* Fails allocation 1, 2, 3, ... of the same work until the work no longer reaches the one that would fail. Behind the
 * first thousand, which are nearly all of one kind (entries of the vocabulary), only every 37th. */
static void every_allocation(const job *j) {
    ffai_error err = {0};
    assert_int_equal(whole_run(j, &err), 0);
    long n = 1, failed = 0;
    for (; n < FAR; n += n < 1000 ? 1 : 37) {
        memset(&err, 0, sizeof err);
        fa_alloc_fail_at(n);
        int rc = whole_run(j, &err);
        long left = fa_alloc_fail_left();
        fa_alloc_fail_at(0);
        if (left > 0) { /* never reached */
            assert_int_equal(rc, 0);
            break;
        }
        if (!rc) continue; /* the failure was survived: a cache or a shrinking block that could not be had */
        failed++;
        if (rc != FFAI_ENOMEM || err.code != rc || !err.msg[0]) fail_msg("allocation %ld: %d \"%s\"", n, rc, err.msg);
    }
    assert_true(n < FAR);
    print_message("%ld allocations, %ld of those tried end in an error\n", n, failed);
    assert_true(failed > 100);
    assert_int_equal(whole_run(j, &err), 0);
}

static void mapped(void **state) {
    (void)state;
    const job j = {"map", false};
    every_allocation(&j);
}

static void private_copy(void **state) {
    (void)state;
    const job j = {"private", true};
    every_allocation(&j);
}

/* An engine whose step failed for want of memory goes on. */
static void engine_goes_on(void **state) {
    (void)state;
    ffai_error err;
    ffai_model *m;
    ffai_engine *e;
    ffai_engine_opts eo = {.n_thread = 2, .n_ctx = 64, .n_slot = 2};
    assert_int_equal(ffai_model_open(&m, MODEL_DIR, NULL, &err), 0);
    assert_int_equal(ffai_engine_create(&e, m, &eo, &err), 0);
    for (long n = 1; n < 120; n++) {
        fa_alloc_fail_at(n);
        int rc = n % 2 ? ask(e, &err) : keep(m, e, &err);
        fa_alloc_fail_at(0);
        assert_true(rc == 0 || rc == FFAI_ENOMEM);
        assert_int_equal(ask(e, &err), 0);
    }
    ffai_engine_free(e);
    ffai_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(mapped), cmocka_unit_test(private_copy),
                                       cmocka_unit_test(engine_goes_on)};
    const char *dir = getenv("TMPDIR");
    snprintf(file, sizeof file, "%s/ffai-fault-%ld", dir ? dir : "/tmp", (long)getpid());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(file);
    return failed;
}
