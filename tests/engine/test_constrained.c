/* Constrained output of the carried model: whatever the sampler draws, what comes out is a sentence of the grammar.
 * Many seeds, high temperature; JSON is read back and looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "ffai.h"
#include "io/json.h"

#define MODEL_DIR FFAI_SOURCE_DIR "/models/ffai-demo-6m"

static ffai_model *model;
static ffai_engine *engine;
static ffai_error err;

static int set_up(void **state) {
    (void)state;
    ffai_engine_opts o = {.n_ctx = 512, .n_slot = 4};
    if (!ffai_model_open(&model, MODEL_DIR, NULL, &err) && !ffai_engine_create(&engine, model, &o, &err)) return 0;
    fprintf(stderr, "%s\n", err.msg);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    ffai_engine_free(engine);
    ffai_model_free(model);
    return 0;
}

static ffai_grammar *compile(const char *kind, const char *text) {
    ffai_grammar *g;
    if (ffai_grammar_compile(&g, model, kind, text, strlen(text), &err)) fail_msg("%s", err.msg);
    return g;
}

/* One answer; how it ended. */
static ffai_finish answer(const ffai_grammar *g, ffai_request_opts o, char *out, size_t cap) {
    static const int32_t prompt[] = {0, 100, 200};
    ffai_request *r;
    ffai_event ev;
    o.ids = prompt;
    o.n_ids = 3;
    o.grammar = g;
    if (ffai_submit(engine, &o, &r, &err)) fail_msg("%s", err.msg);
    while (ffai_engine_step(engine, &err) > 0) {
    }
    ffai_request_poll(r, &ev);
    assert_true(ev.text_len < cap);
    memcpy(out, ev.text, ev.text_len);
    out[ev.text_len] = 0;
    if (ev.finish == FFAI_FINISH_ERROR) fail_msg("%s", ffai_request_error(r)->msg);
    ffai_request_free(r);
    return ev.finish;
}

static void check_person(const char *text) {
    fa_json *j;
    if (fa_json_parse(&j, text, strlen(text), "output", &err)) fail_msg("%s\n%s", text, err.msg);
    const fa_jnode *v = fa_json_root(j), *name = fa_jget(v, "name"), *age = fa_jget(v, "age");
    size_t n;
    assert_int_equal(fa_jtype_of(v), FA_JOBJ);
    const char *s = fa_jstr(name, &n);
    assert_true(s && n >= 2);
    assert_true(fa_jtype_of(age) == FA_JINT && fa_jint(age, -1) >= 0 && fa_jint(age, -1) <= 130);
    for (const fa_jnode *t = fa_jfirst(fa_jget(v, "tags")); t; t = fa_jnext(t)) assert_non_null(fa_jstr(t, NULL));
    assert_true(fa_jlen(fa_jget(v, "tags")) <= 3);
    fa_json_free(j);
}

static void schema(void **state) {
    (void)state;
    ffai_grammar *g =
        compile("json-schema", "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":2,"
                               "\"maxLength\":30},\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":130},"
                               "\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":9},"
                               "\"maxItems\":3}},\"required\":[\"name\",\"age\"],\"additionalProperties\":false}");
    char text[4096];
    for (uint64_t seed = 0; seed < 24; seed++) {
        ffai_request_opts o = {.sampling = {.temp = seed % 2 ? 1.0f : 5.0f, .seed = seed}};
        assert_int_equal(answer(g, o, text, sizeof text), FFAI_FINISH_EOS);
        check_person(text);
    }
    ffai_grammar_free(g);
}

static void any_json(void **state) {
    (void)state;
    ffai_grammar *g = compile("json-schema", "{}");
    char text[16384];
    int whole = 0;
    for (uint64_t seed = 0; seed < 12; seed++) {
        ffai_request_opts o = {.sampling = {.temp = 3, .seed = seed}, .max_new = 300};
        fa_json *j;
        if (answer(g, o, text, sizeof text) != FFAI_FINISH_EOS) continue; /* ran into the limit */
        if (fa_json_parse(&j, text, strlen(text), "output", &err)) fail_msg("%s\n%s", text, err.msg);
        fa_json_free(j);
        whole++;
    }
    assert_true(whole > 2);
    ffai_grammar_free(g);
}

/* The end comes by itself when nothing can follow, also with ignore_eos; and it may come earlier. */
static void ends(void **state) {
    (void)state;
    ffai_grammar *g = compile("regex", "(yes|no)( (indeed|never))?!");
    char text[256];
    for (uint64_t seed = 0; seed < 20; seed++) {
        ffai_request_opts o = {.sampling = {.temp = 2, .seed = seed}, .ignore_eos = seed % 2};
        assert_int_equal(answer(g, o, text, sizeof text), FFAI_FINISH_EOS);
        assert_true(text[strlen(text) - 1] == '!' && (!strncmp(text, "yes", 3) || !strncmp(text, "no", 2)));
    }
    ffai_grammar_free(g);
    g = compile("gbnf", "root ::= \"a\"{5,9}");
    for (uint64_t seed = 0; seed < 20; seed++) {
        ffai_request_opts o = {.sampling = {.temp = seed ? 2 : 0, .seed = seed}};
        assert_int_equal(answer(g, o, text, sizeof text), FFAI_FINISH_EOS);
        assert_true(strlen(text) >= 5 && strlen(text) <= 9 && strspn(text, "a") == strlen(text));
    }
    ffai_request_opts o = {.sampling = {.temp = 0}, .max_new = 1};
    assert_int_equal(answer(g, o, text, sizeof text), FFAI_FINISH_LENGTH);
    ffai_grammar_free(g);
    g = compile("regex", " ?"); /* nothing, or one token */
    o = (ffai_request_opts){.sampling = {.temp = 0}, .ignore_eos = true};
    assert_int_equal(answer(g, o, text, sizeof text), FFAI_FINISH_EOS);
    ffai_grammar_free(g);
    g = compile("regex", "");
    assert_int_equal(answer(g, o, text, sizeof text), FFAI_FINISH_EOS);
    assert_string_equal(text, "");
    ffai_grammar_free(g);
}

static void no_letters(void *user, const int32_t *ids, size_t n, uint32_t *bits) {
    (void)ids, (void)n;
    for (int32_t id = 0; id < 4096; id++) {
        char *text;
        size_t len;
        if (ffai_detokenize((ffai_model *)user, &id, 1, false, &text, &len, NULL)) continue;
        if (strpbrk(text, "abcdefghijklmnopqrstuvwxyz")) bits[id / 32] &= ~(UINT32_C(1) << (id % 32));
        ffai_free(text);
    }
}

/* With a mask of the caller's both hold; several requests share one grammar. */
static void together(void **state) {
    (void)state;
    static const int32_t prompt[] = {0, 7};
    ffai_grammar *g = compile("gbnf", "root ::= [a-z0-9]{6,12} \".\"");
    ffai_request *r[3];
    for (int i = 0; i < 3; i++) {
        ffai_request_opts o = {.ids = prompt, .n_ids = 2, .grammar = g, .sampling = {.temp = 1, .seed = (uint64_t)i}};
        o.mask = i == 1 ? no_letters : NULL;
        o.user = model;
        assert_int_equal(ffai_submit(engine, &o, &r[i], &err), 0);
    }
    while (ffai_engine_step(engine, &err) > 0) {
    }
    for (int i = 0; i < 3; i++) {
        ffai_event ev;
        ffai_request_poll(r[i], &ev);
        assert_int_equal(ev.finish, FFAI_FINISH_EOS);
        assert_true(ev.text_len >= 7 && ev.text_len <= 13 && ev.text[ev.text_len - 1] == '.');
        if (i == 1) assert_true(strspn(ev.text, "0123456789.") >= ev.text_len);
        ffai_request_free(r[i]);
    }
    ffai_grammar_free(g);
}

static void refused(void **state) {
    (void)state;
    ffai_grammar *g;
    assert_int_equal(ffai_grammar_compile(&g, model, "xml", "", 0, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "xml"));
    assert_null(g);
    assert_int_equal(ffai_grammar_compile(&g, model, "json-schema", "{\n \"type\": nothing}", 19, &err), FFAI_EFORMAT);
    assert_non_null(strstr(err.msg, "line 2"));
    assert_int_equal(ffai_grammar_compile(&g, model, "regex", "a(", 2, NULL), FFAI_EFORMAT);
    ffai_grammar_free(NULL);
    /* another model's grammar */
    ffai_model *other;
    ffai_request *r;
    static const int32_t prompt[] = {0};
    assert_int_equal(ffai_model_open(&other, MODEL_DIR, NULL, &err), 0);
    assert_int_equal(ffai_grammar_compile(&g, other, "regex", "a", 1, &err), 0);
    ffai_request_opts o = {.ids = prompt, .n_ids = 1, .grammar = g};
    assert_int_equal(ffai_submit(engine, &o, &r, &err), FFAI_EINVAL);
    assert_null(r);
    ffai_grammar_free(g);
    ffai_model_free(other);
}

static int small_run(void) {
    static const int32_t prompt[] = {0, 7};
    ffai_grammar *g = NULL;
    ffai_request *r = NULL;
    ffai_event ev = {.finish = FFAI_RUNNING};
    int rc = ffai_grammar_compile(&g, model, "regex", "[a-z]{3}\\.", 10, &err);
    ffai_request_opts o = {.ids = prompt, .n_ids = 2, .grammar = g, .sampling = {.temp = 1, .seed = 1}};
    if (!rc) rc = ffai_submit(engine, &o, &r, &err);
    while (!rc && ffai_engine_step(engine, &err) > 0) {
    }
    if (!rc) ffai_request_poll(r, &ev);
    if (!rc && ev.finish == FFAI_FINISH_ERROR) {
        err = *ffai_request_error(r);
        rc = err.code;
    }
    assert_true(rc || ev.finish == FFAI_FINISH_EOS);
    ffai_request_free(r);
    ffai_grammar_free(g);
    return rc;
}

static void allocations(void **state) {
    (void)state;
    long n = 1, failed = 0;
    assert_int_equal(small_run(), 0);
    for (; n < 100000; n++) {
        fa_alloc_fail_at(n);
        int rc = small_run();
        long left = fa_alloc_fail_left();
        fa_alloc_fail_at(0);
        if (left > 0) break;
        failed += rc != 0;
        if (rc && rc != FFAI_ENOMEM) fail_msg("allocation %ld: %d \"%s\"", n, rc, err.msg);
    }
    print_message("%ld allocations, %ld end in an error\n", n, failed);
    assert_true(failed > 20 && n < 100000);
    assert_int_equal(small_run(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(schema),  cmocka_unit_test(any_json),
                                       cmocka_unit_test(ends),    cmocka_unit_test(together),
                                       cmocka_unit_test(refused), cmocka_unit_test(allocations)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
