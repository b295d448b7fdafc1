/* Model files that change below a host of the library: written ones are an error of the next steps; for those that
 * become shorter the host has a handler of SIGBUS that asks ffai_model_lost_page. Other requests and models go on. */
#define _GNU_SOURCE
#include "robust/broken.h"

#include <signal.h>
#include <stdatomic.h>
#include <time.h>

static ffai_model *_Atomic known[2];
static atomic_int faults;

static void on_bus(int sig, siginfo_t *info, void *context) {
    (void)context;
    atomic_fetch_add(&faults, 1);
    for (int i = 0; i < 2; i++)
        if (known[i] && ffai_model_lost_page(known[i], info->si_addr)) return;
    signal(sig, SIG_DFL); /* not ours */
}

typedef struct run {
    char dir[256], file[512];
    ffai_model *m;
    ffai_engine *e;
} run;

static void start(run *r, const char *weights) {
    struct sigaction a; /* in each test: cmocka has handlers of its own */
    memset(&a, 0, sizeof a);
    a.sa_sigaction = on_bus;
    a.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &a, NULL);
    ffai_error err;
    ffai_model_opts mo = {.weights = weights};
    ffai_engine_opts eo = {.n_thread = 2, .n_ctx = 256};
    demo_copy(r->dir);
    path_in(r->file, r->dir, "model.safetensors");
    assert_ok(ffai_model_open(&r->m, r->dir, &mo, &err), &err);
    assert_ok(ffai_engine_create(&r->e, r->m, &eo, &err), &err);
}

static void stop(run *r) {
    ffai_engine_free(r->e);
    ffai_model_free(r->m);
    remove_dir(r->dir);
}

/* n tokens on the engine's thread. */
static int text(run *r, int n, ffai_error *err) {
    static const int32_t ids[] = {1, 2, 3};
    ffai_request *q;
    ffai_request_opts o = {.ids = ids, .n_ids = 3, .max_new = n, .sampling = {.top_p = 1}, .ignore_eos = true};
    memset(err, 0, sizeof *err);
    int rc = ffai_submit(r->e, &o, &q, err);
    for (int more = 1; !rc && more > 0;)
        if ((more = ffai_engine_step(r->e, err)) < 0) rc = more;
    ffai_request_free(q);
    return rc;
}

/* Files are looked at every 100 ms. */
static void wait_a_while(void) {
    struct timespec t = {0, 150000000};
    nanosleep(&t, NULL);
}

static void written_in_place(void **state) {
    (void)state;
    ffai_error err;
    run r;
    start(&r, NULL);
    assert_ok(text(&r, 2, &err), &err);
    FILE *f = fopen(r.file, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, 100000, SEEK_SET), 0);
    assert_true(fputc('x', f) == 'x' && fclose(f) == 0);
    wait_a_while();
    for (int i = 0; i < 2; i++) assert_failed(text(&r, 2, &err), &err, FFAI_EIO, "model.safetensors|was written");
    stop(&r);
}

static void replaced_or_gone(void **state) {
    (void)state;
    ffai_error err;
    run r;
    char other[600];
    start(&r, NULL);
    path_in(other, r.dir, "other");
    put_file(r.dir, "other", "something else", 14);
    assert_int_equal(rename(other, r.file), 0);
    wait_a_while();
    assert_ok(text(&r, 2, &err), &err);
    assert_int_equal(unlink(r.file), 0);
    wait_a_while();
    assert_ok(text(&r, 2, &err), &err);
    stop(&r);
}

static void shorter(void **state) {
    (void)state;
    ffai_error err;
    run bad, good;
    start(&bad, NULL);
    start(&good, NULL);
    known[0] = good.m;
    known[1] = bad.m;
    assert_ok(text(&bad, 2, &err), &err);
    faults = 0;
    assert_int_equal(truncate(bad.file, 70000), 0);
    for (int i = 0; i < 3; i++) assert_failed(text(&bad, 2, &err), &err, FFAI_EIO, "model.safetensors|became shorter");
    assert_ok(text(&good, 20, &err), &err);
    assert_false(ffai_model_lost_page(good.m, &bad));
    assert_false(ffai_model_lost_page(NULL, &bad));
    assert_ok(text(&good, 2, &err), &err);
    stop(&good);
    known[0] = NULL;
    stop(&bad);
    known[1] = NULL;
}

/* Within a step: the page is read after the step began, so the handler is what helps. Measured steps look at the files
 * like all others. */
static void shorter_within_a_step(void **state) {
    (void)state;
    ffai_error err;
    run r;
    start(&r, NULL);
    known[0] = r.m;
    assert_ok(text(&r, 2, &err), &err); /* looks at the files, and then not for a while */
    faults = 0;
    assert_int_equal(truncate(r.file, 70000), 0);
    int rc = text(&r, 2, &err);
    assert_failed(rc, &err, FFAI_EIO, "model.safetensors|became shorter");
    print_message("%d faults\n", faults);
    stop(&r);
    known[0] = NULL;
}

static void private_copy(void **state) {
    (void)state;
    ffai_error err;
    run r;
    start(&r, "private");
    assert_int_equal(truncate(r.file, 0), 0);
    wait_a_while();
    assert_ok(text(&r, 5, &err), &err);
    stop(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(written_in_place), cmocka_unit_test(replaced_or_gone),
                                       cmocka_unit_test(shorter), cmocka_unit_test(shorter_within_a_step),
                                       cmocka_unit_test(private_copy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
