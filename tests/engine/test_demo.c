/* The carried model from text to text: token ids, greedy continuations and logits against the official implementation's
 * (tests/data/demo, made by tools/demo_model/golden.py with transformers on the dequantized weights). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ffai.h"
#include "io/json.h"
#include "io/npy.h"

#define MODEL_DIR FFAI_SOURCE_DIR "/models/ffai-demo-6m"
#define DATA_DIR  FFAI_SOURCE_DIR "/tests/data/demo"
enum { MAX_IDS = 128 };

static ffai_model *model;
static ffai_engine *engine;
static fa_json *golden;

static int set_up(void **state) {
    (void)state;
    ffai_error err;
    ffai_engine_opts o = {.precision = "exact"};
    if (!ffai_model_open(&model, MODEL_DIR, NULL, &err) && !ffai_engine_create(&engine, model, &o, &err) &&
        !fa_json_load(&golden, DATA_DIR "/golden.json", &err))
        return 0;
    fprintf(stderr, "%s\n", err.msg);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    ffai_engine_free(engine);
    ffai_model_free(model);
    fa_json_free(golden);
    return 0;
}

static size_t read_ids(const fa_jnode *list, int32_t *ids) {
    size_t n = 0;
    for (const fa_jnode *v = fa_jfirst(list); v && n < MAX_IDS; v = fa_jnext(v)) ids[n++] = (int32_t)fa_jint(v, -1);
    return n;
}

static void check_prompt(const fa_jnode *c, const int32_t *want, size_t n_want) {
    ffai_error err;
    int32_t *ids;
    size_t n, len;
    const char *text = fa_jstr(fa_jget(c, "prompt"), &len);
    assert_int_equal(ffai_tokenize(model, text, len, FFAI_TOK_SPECIAL, &ids, &n, &err), 0);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof *ids);
    ffai_free(ids);
}

/* Equal tokens; after a step where the reference's best two are closer than 1e-3 the texts may part. */
static void check_greedy(const fa_jnode *c) {
    ffai_error err;
    int32_t prompt[MAX_IDS], want[MAX_IDS];
    size_t n = read_ids(fa_jget(c, "prompt_ids"), prompt), n_want = read_ids(fa_jget(c, "greedy_ids"), want);
    assert_true(n > 0 && n_want > 0);
    check_prompt(c, prompt, n);
    ffai_request_opts o = {
        .ids = prompt, .n_ids = n, .max_new = (int64_t)n_want, .sampling = {.top_p = 1}, .ignore_eos = true};
    ffai_request *r;
    ffai_event ev;
    assert_int_equal(ffai_submit(engine, &o, &r, &err), 0);
    while (ffai_engine_step(engine, &err) > 0) {
    }
    ffai_request_poll(r, &ev);
    assert_int_equal(ev.n_ids, n_want);
    const fa_jnode *gap = fa_jfirst(fa_jget(c, "top2_gap"));
    size_t i = 0;
    for (; i < n_want && ev.ids[i] == want[i]; i++) gap = fa_jnext(gap);
    if (i < n_want) {
        print_message("parts at token %zu, where the reference's gap is %g\n", i, fa_jnum(gap, -1));
        assert_true(fa_jnum(gap, 1) < 1e-3);
    } else {
        size_t len;
        const char *text = fa_jstr(fa_jget(c, "greedy_text"), &len);
        assert_int_equal(ev.text_len, len);
        assert_memory_equal(ev.text, text, len);
    }
    ffai_request_free(r);
}

static void test_greedy(void **state) {
    (void)state;
    int n = 0;
    for (const fa_jnode *c = fa_jfirst(fa_jget(fa_json_root(golden), "cases")); c; c = fa_jnext(c), n++)
        check_greedy(c);
    assert_true(n >= 3);
}

static void last_row(void *user, int64_t row, const float *logits, int64_t n) {
    (void)row;
    memcpy(user, logits, (size_t)n * sizeof *logits);
}

static void test_logits(void **state) {
    (void)state;
    static float got[8192];
    ffai_error err;
    int32_t ids[MAX_IDS];
    fa_npy want;
    ffai_model_info info;
    ffai_model_get_info(model, &info);
    assert_true(info.vocab <= 8192);
    size_t n = read_ids(fa_jget(fa_jget(fa_json_root(golden), "logits"), "ids"), ids);
    ffai_eval_opts o = {.ids = ids, .n_ids = n, .logits = last_row, .user = got};
    assert_int_equal(ffai_eval(engine, &o, &err), 0);
    assert_int_equal(fa_npy_read(&want, DATA_DIR "/logits.npy", &err), 0);
    assert_int_equal(want.n, info.vocab);
    double max = 0;
    for (int64_t i = 0; i < want.n; i++) max = fmax(max, fabs((double)got[i] - fa_npy_num(&want, i)));
    print_message("largest difference of a logit: %.3g\n", max);
    assert_true(max <= 1e-3);
    fa_npy_free(&want);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_greedy), cmocka_unit_test(test_logits)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
