/* One model, several engines at once, each in its own thread: the same tokens, and (with the thread sanitizer) no race
 * on what they share, the tokenizer that is loaded on first use included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "ffai.h"

#define MODEL_DIR FFAI_SOURCE_DIR "/models/ffai-demo-6m"
enum { THREADS = 3, NEW = 12 };

typedef struct job {
    ffai_model *m;
    char text[400];
    size_t len;
    int rc;
    ffai_error err;
} job;

static int run(job *j, ffai_engine **e, ffai_request **r, int32_t **ids) {
    size_t n;
    ffai_engine_opts eo = {.n_thread = 2, .n_ctx = 64};
    int rc = ffai_engine_create(e, j->m, &eo, &j->err);
    if (!rc) rc = ffai_tokenize(j->m, "The old house", 13, FFAI_TOK_SPECIAL, ids, &n, &j->err);
    if (rc) return rc;
    ffai_request_opts o = {.ids = *ids, .n_ids = n, .max_new = NEW, .sampling = {.top_p = 1}, .ignore_eos = true};
    rc = ffai_submit(*e, &o, r, &j->err);
    while (!rc) {
        ffai_event ev;
        int more = ffai_engine_step(*e, &j->err);
        if (more < 0) return more;
        ffai_request_poll(*r, &ev);
        if (ev.text_len < sizeof j->text - j->len) {
            memcpy(j->text + j->len, ev.text, ev.text_len);
            j->len += ev.text_len;
        }
        if (ev.finish != FFAI_RUNNING) return 0;
    }
    return rc;
}

static void *thread_main(void *arg) {
    job *j = arg;
    ffai_engine *e = NULL;
    ffai_request *r = NULL;
    int32_t *ids = NULL;
    j->rc = run(j, &e, &r, &ids);
    ffai_free(ids);
    ffai_engine_free(e); /* frees its request */
    return NULL;
}

static void engines_share_a_model(void **state) {
    (void)state;
    ffai_error err;
    ffai_model *m;
    job j[THREADS];
    pthread_t t[THREADS];
    assert_int_equal(ffai_model_open(&m, MODEL_DIR, NULL, &err), 0);
    for (int i = 0; i < THREADS; i++) {
        j[i] = (job){.m = m};
        assert_int_equal(pthread_create(&t[i], NULL, thread_main, &j[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        if (j[i].rc) fail_msg("%s", j[i].err.msg);
        assert_true(j[i].len > 0);
        assert_string_equal(j[i].text, j[0].text);
    }
    ffai_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(engines_share_a_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
