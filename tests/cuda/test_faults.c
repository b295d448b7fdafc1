/* What a user meets when there is no usable GPU, too little memory, or a step that fails beside another engine's. The
 * first three are the emulated device's: a real machine does not change while a test runs. */
#define _DEFAULT_SOURCE
#include "cuda/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

enum { N_ID = 24, N_NEW = 6 };

static ffai_model *model;
static int32_t ids[N_ID];

static int set_up(void **state) {
    (void)state;
    ffai_error err;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/models/ffai-demo-6m", hn_source_dir());
    if (ffai_model_open(&model, dir, NULL, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    for (int i = 0; i < N_ID; i++) ids[i] = (int32_t)(fa_rng_at(3, (uint64_t)i) % 1000);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    ffai_model_free(model);
    return 0;
}

static int create(ffai_engine **e, const char *device, ffai_error *err) {
    const ffai_engine_opts o = {.device = device, .n_ctx = 128, .n_thread = 1, .cuda_module = hn_module_path()};
    return ffai_engine_create(e, model, &o, err);
}

/* Refused on "cuda", with these words; "auto" runs on the CPU and says why. */
static void passed_over(const char *a, const char *b) {
    ffai_error err = {0};
    ffai_engine *e = NULL;
    ffai_engine_info in;
    assert_true(create(&e, "cuda:0", &err) < 0);
    assert_null(e);
    if (!strstr(err.msg, a) || !strstr(err.msg, b)) fail_msg("\"%s\" lacks %s or %s", err.msg, a, b);
    if (create(&e, "auto", &err)) fail_msg("%s", err.msg);
    ffai_engine_get_info(e, &in);
    assert_string_equal(in.device, "cpu");
    if (!strstr(in.passed_over, a)) fail_msg("\"%s\" lacks %s", in.passed_over, a);
    ffai_engine_free(e);
}

static void test_no_device(void **state) {
    (void)state;
    if (!hn_emulated()) skip();
    hn_emu_control("devices", 0);
    passed_over("GPU", "");
    hn_emu_control("devices", 1);
}

static void test_old_driver(void **state) {
    (void)state;
    if (!hn_emulated()) skip();
    hn_emu_control("driver", 11040);
    passed_over("driver", "11.4");
    hn_emu_control("driver", 13000);
}

/* Too little memory is refused before anything is loaded, with both numbers. */
static void test_small_device(void **state) {
    (void)state;
    if (!hn_emulated()) skip();
    const long long used = hn_emu_control("used", 0);
    hn_emu_control("mem", used + (3 << 20));
    passed_over("needs", "free of");
    hn_emu_control("mem", (long long)8 << 30);
    assert_int_equal(hn_emu_control("used", 0), used);
}

static void answer(ffai_engine *e, int32_t *out) {
    ffai_error err = {0};
    ffai_request *r = NULL;
    ffai_event ev;
    const ffai_request_opts o = {
        .ids = ids, .n_ids = N_ID, .max_new = N_NEW, .sampling = {.top_p = 1}, .ignore_eos = true};
    int rc = ffai_submit(e, &o, &r, &err);
    if (!rc)
        while ((rc = ffai_engine_step(e, &err)) > 0) {
        }
    if (rc < 0) fail_msg("%s", err.msg);
    ffai_request_poll(r, &ev);
    assert_int_equal(ev.n_ids, N_NEW);
    memcpy(out, ev.ids, N_NEW * sizeof *out);
    ffai_request_free(r);
}

/* A step of one engine that fails in its middle leaves another engine, whose request is half done, as it was. */
static void test_beside(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *a = NULL, *b = NULL;
    int32_t want[N_NEW], got[N_NEW];
    if (create(&a, "cuda:0", &err) || create(&b, "cuda:0", &err)) fail_msg("%s", err.msg);
    answer(b, want);
    for (int n = 1; n <= 7; n += 3) { /* which launch of the other one fails */
        ffai_request *ra = NULL, *rb = NULL;
        ffai_event ev;
        const ffai_request_opts o = {
            .ids = ids, .n_ids = N_ID, .max_new = N_NEW, .sampling = {.top_p = 1}, .ignore_eos = true};
        assert_int_equal(ffai_submit(b, &o, &rb, &err), 0);
        for (int i = 0; i < 3; i++) assert_true(ffai_engine_step(b, &err) >= 0);
        assert_int_equal(ffai_submit(a, &o, &ra, &err), 0);
        a->dev->inject(a->dev, FA_INJECT_LAUNCH, n);
        int rc;
        while ((rc = ffai_engine_step(a, &err)) > 0) {
        }
        a->dev->inject(a->dev, FA_INJECT_LAUNCH, 0);
        assert_true(rc < 0);
        assert_non_null(strstr(err.msg, "cuda:0"));
        while ((rc = ffai_engine_step(b, &err)) > 0) {
        }
        if (rc < 0) fail_msg("%s", err.msg);
        ffai_request_poll(rb, &ev);
        assert_int_equal(ev.n_ids, N_NEW);
        assert_memory_equal(ev.ids, want, sizeof want);
        ffai_request_free(ra);
        ffai_request_free(rb);
        answer(a, got); /* and the one that failed goes on */
        assert_memory_equal(got, want, sizeof want);
    }
    ffai_engine_free(a);
    ffai_engine_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_device), cmocka_unit_test(test_old_driver),
                                       cmocka_unit_test(test_small_device), cmocka_unit_test(test_beside)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
