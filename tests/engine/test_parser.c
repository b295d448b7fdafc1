/* The public side of answers: formats by name and from a model, parts, special tokens of a real tokenizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ffai.h"

static void expect(ffai_parser *p, ffai_part_kind kind, const char *text, const char *name) {
    ffai_part part;
    assert_true(ffai_parser_next(p, &part));
    assert_int_equal(part.kind, kind);
    assert_string_equal(part.text, text);
    assert_int_equal(part.len, strlen(text));
    if (name)
        assert_string_equal(part.name, name);
    else
        assert_null(part.name);
    assert_null(part.id);
}

static void by_name(void **state) {
    (void)state;
    static const char out[] = "two\n</think>\n\nI look.\n<tool_call>\n<function=f>\n<parameter=n>\n3\n</parameter>\n"
                              "</function>\n</tool_call>";
    static const char prompt[] = "<|im_start|>assistant\n<think>\n";
    ffai_parser_opts o = {.format = "qwen3_coder", .prompt = prompt, .prompt_len = sizeof prompt - 1};
    o.tools = "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"properties\": {\"n\": "
              "{\"type\": \"string\"}}}}}]";
    ffai_parser *p;
    ffai_part part;
    ffai_error err;
    assert_int_equal(ffai_parser_create(&p, NULL, &o, &err), 0);
    assert_string_equal(ffai_parser_format(p), "qwen3_coder");
    assert_int_equal(ffai_parser_push(p, out, sizeof out - 1, &err), 0);
    assert_int_equal(ffai_parser_finish(p, &err), 0);
    expect(p, FFAI_PART_REASONING, "two", NULL);
    expect(p, FFAI_PART_TEXT, "I look.", NULL);
    expect(p, FFAI_PART_TOOL_CALL, "{\"n\": \"3\"}", "f");
    assert_false(ffai_parser_next(p, &part));
    assert_int_equal(ffai_parser_push(p, "x", 1, &err), FFAI_EINVAL);
    ffai_parser_free(p);
    ffai_parser_free(NULL);
}

static void refused(void **state) {
    (void)state;
    ffai_parser *p;
    ffai_error err;
    assert_int_equal(ffai_parser_create(&p, NULL, NULL, &err), FFAI_EINVAL);
    assert_null(p);
    ffai_parser_opts o = {.format = "no such"};
    assert_int_equal(ffai_parser_create(&p, NULL, &o, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "no such"));
    for (size_t i = 0; ffai_parser_format_at(i); i++) {
        o.format = ffai_parser_format_at(i);
        assert_int_equal(ffai_parser_create(&p, NULL, &o, &err), 0);
        assert_string_equal(ffai_parser_format(p), o.format);
        ffai_parser_free(p);
    }
}

/* The demo model's special tokens are no text, in any format. */
static void with_model(void **state) {
    (void)state;
    ffai_model_opts mo = {.tokenizer_only = true};
    ffai_model *m;
    ffai_error err;
    if (ffai_model_open(&m, FFAI_SOURCE_DIR "/models/ffai-demo-6m", &mo, &err)) fail_msg("%s", err.msg);
    int32_t *ids = NULL;
    size_t n = 0, len = 0;
    char *special = NULL;
    assert_int_equal(ffai_tokenize(m, "a", 1, FFAI_TOK_SPECIAL, &ids, &n, &err), 0);
    assert_int_equal(ffai_detokenize(m, ids, 1, false, &special, &len, &err), 0);
    static const char *const formats[] = {"auto", "none", "hermes"};
    for (size_t i = 0; len > 2 && i < 3; i++) {
        ffai_parser_opts o = {.format = formats[i]};
        ffai_parser *p;
        assert_int_equal(ffai_parser_create(&p, m, &o, &err), 0);
        assert_non_null(ffai_parser_format(p));
        assert_int_equal(ffai_parser_push(p, "Hello ", 6, &err), 0);
        for (size_t k = 0; k < len; k++) assert_int_equal(ffai_parser_push(p, special + k, 1, &err), 0);
        assert_int_equal(ffai_parser_push(p, "there.", 6, &err), 0);
        assert_int_equal(ffai_parser_finish(p, &err), 0);
        expect(p, FFAI_PART_TEXT, "Hello there.", NULL);
        ffai_parser_free(p);
    }
    ffai_free(ids);
    ffai_free(special);
    ffai_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_name),
        cmocka_unit_test(refused),
        cmocka_unit_test(with_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
