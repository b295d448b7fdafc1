/* The quick way through tokenizer.json (tok_fast.c): it gives what the common way gives, takes what it should, and
 * leaves everything else to the other. The same file with merges in front of the vocabulary is one that it leaves. */
#include "base/alloc.h"
#include "text/tok_steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const vocabs[] = {
    "{\"a\":0,\"b\":1,\"ab\":2,\"abb\":3,\"\xE2\x96\x81\":4,\"\xE2\x96\x81"
    "a\":5,\"c\":6,\"abab\":7,\"<0x41>\":8,\"aba\":9}",
    "{ \"\\u0061\" : 0 ,\n\t\"b\":1, \"\\u0061b\":2,\"a\\u0062b\":3, \"\\u2581\":4, \"\xE2\x96\x81\\u0061\" :5,\"c\" : "
    "6, "
    "\"\\ud83d\\ude00\":7, \"\\\"\\\\\\/\\b\\f\\n\\r\\t\":8, \"long long long token\":9, \"abab\":10, \"aba\":700}",
};
static const char *const lists[] = {
    "[[\"a\",\"b\"],[\"ab\",\"b\"],[\"\xE2\x96\x81\",\"a\"],[\"ab\",\"ab\"],[\"ab\",\"a\"]]",
    "[\"a b\",\"ab b\",\"\xE2\x96\x81 a\",\"ab ab\",\"ab a\"]",
    "[\n  [\n    \"a\",\n    \"b\"\n  ],\n  [\n    \"ab\",\n    \"b\"\n  ],\n  [\"\\u2581\" , \"\\u0061\"],\n  [\n    "
    "\"ab\",\n    "
    "\"ab\"\n  ],\n  [\n    \"\\u0061b\",\n    \"a\"\n  ]\n]",
};
static const char *const texts[] = {
    "a",    "ab", "abb ab abab", "aaab abbabb", "  a ab", "\xF0\x9F\x98\x80 cab", "xaby<x>ab", "ababababababababab",
    "A\nb", ""};
#define REST                                                                                                           \
    "\"added_tokens\":[{\"id\":20,\"content\":\"<x>\",\"special\":true}],\"normalizer\":{\"type\":\"Replace\","        \
    "\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}"

static char *document(const char *vocab, const char *list, bool quick_one) {
    size_t cap = strlen(vocab) + strlen(list) + 512;
    char *s = malloc(cap);
    snprintf(s, cap, "{" REST ",\"model\":{\"type\":\"BPE\",\"unk_token\":null,\"%s\":%s,\"%s\":%s}}",
             quick_one ? "vocab" : "merges", quick_one ? vocab : list, quick_one ? "merges" : "vocab",
             quick_one ? list : vocab);
    return s;
}

/* Whether the quick way takes it. */
static bool quick(const char *json, size_t n) {
    fa_tok *t;
    fa_json *rest;
    fa_error err;
    assert_int_equal(fa_tok_fast(&t, &rest, json, n, "t", &err), 0);
    assert_true((t != NULL) == (rest != NULL));
    fa_tok_free(t);
    fa_json_free(rest);
    return t != NULL;
}

static void compare(const fa_tok *a, const fa_tok *b) {
    assert_int_equal(fa_tok_size(a), fa_tok_size(b));
    for (size_t i = 0; i < fa_tok_size(a); i++) {
        const char *x = fa_tok_piece(a, (int32_t)i, NULL), *y = fa_tok_piece(b, (int32_t)i, NULL);
        assert_true((x == NULL) == (y == NULL));
        if (x) assert_string_equal(x, y);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t *x, *y;
        size_t n, k;
        assert_int_equal(fa_tok_encode(a, texts[i], strlen(texts[i]), 0, &x, &n, NULL), 0);
        assert_int_equal(fa_tok_encode(b, texts[i], strlen(texts[i]), 0, &y, &k, NULL), 0);
        assert_int_equal(n, k);
        if (n) assert_memory_equal(x, y, n * sizeof *x);
        fa_free(x);
        fa_free(y);
    }
}

static void test_same(void **state) {
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        for (size_t l = 0; l < 3; l++) {
            char *a = document(vocabs[v], lists[l], true), *b = document(vocabs[v], lists[l], false);
            fa_tok *x, *y;
            fa_error err;
            assert_true(quick(a, strlen(a)));
            assert_false(quick(b, strlen(b)));
            if (fa_tok_from_json(&x, a, strlen(a), NULL, 0, "t", &err)) fail_msg("%s", err.msg);
            if (fa_tok_from_json(&y, b, strlen(b), NULL, 0, "t", &err)) fail_msg("%s", err.msg);
            compare(x, y);
            fa_tok_free(x);
            fa_tok_free(y);
            free(a);
            free(b);
        }
    }
}

static void test_left(void **state) {
    (void)state;
    static const char *const row[][2] = {
        {"{}", "[]"},
        {"[\"a\"]", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[]"},
        {"{\"a\":0,\"b\":1,\"ab\":2,}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":01,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":-1,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1.0,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1e0,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":null,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":0,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":4000000000,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":99999999999999999999,\"ab\":2}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2 \"c\":3}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2,\"\n\":3}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2,\"\\x\":3}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2,\"\\ud800\":3}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2,\"\\u12\":3}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2,\"\xFF\":3}", "[\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a  b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b c\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\",[\"a\",\"b\"]]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[[\"a\",\"b\"],\"a b\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[[\"a\",\"b\",\"c\"]]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[[\"a\"]]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"b a\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a z\"]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"],\"vocab\":{\"a\":0}"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"],\"merges\":[]"},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"],\"continuing_subword_prefix\":\"#\""},
        {"{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"],\"x\":[1,}"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char *s = document(row[i][0], row[i][1], true);
        if (quick(s, strlen(s))) fail_msg("taken: %s", s);
        free(s);
    }
    static const char *const whole[] = {
        "",
        "[]",
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}",
        "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}} x",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]},\"model\":{}}",
        "{\"x\":\"\\\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}",
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (quick(whole[i], strlen(whole[i]))) fail_msg("taken: %s", whole[i]);
}

/* Lines of a merges.txt that begin with #version are no merges, even where the vocabulary could make one of them. */
static void test_version(void **state) {
    (void)state;
    static const char *const with[] = {"[\"#version: 0.2\",\"a b\",\"#version b\"]", "[\"#version b\",\"a b\"]"};
    const char *vocab = "{\"a\":0,\"b\":1,\"ab\":2,\"#version\":3,\"#versionb\":4}";
    for (size_t i = 0; i < 2; i++) {
        char *a = document(vocab, with[i], true), *b = document(vocab, "[\"a b\"]", true);
        fa_tok *x, *y;
        fa_error err;
        assert_false(quick(a, strlen(a)));
        if (fa_tok_from_json(&x, a, strlen(a), NULL, 0, "t", &err)) fail_msg("%s", err.msg);
        if (fa_tok_from_json(&y, b, strlen(b), NULL, 0, "t", &err)) fail_msg("%s", err.msg);
        compare(x, y);
        fa_tok_free(x);
        fa_tok_free(y);
        free(a);
        free(b);
    }
}

/* What is cut off is never taken, and nothing behind the end is read (the sanitizers see that). */
static void test_truncated(void **state) {
    (void)state;
    char *s = document(vocabs[1], lists[2], true);
    for (size_t n = 0, all = strlen(s); n < all; n++) {
        char *part = malloc(n + !n);
        memcpy(part, s, n);
        assert_false(quick(part, n));
        fa_tok *t;
        assert_int_not_equal(fa_tok_from_json(&t, part, n, NULL, 0, "t", NULL), 0);
        assert_null(t);
        free(part);
    }
    free(s);
}

static void test_no_memory(void **state) {
    (void)state;
    char *s = document(vocabs[1], lists[2], true);
    bool done = false;
    for (long at = 1; !done; at++) {
        fa_tok *t;
        int32_t *ids = NULL;
        size_t n = 0;
        fa_alloc_fail_at(at);
        int rc = fa_tok_from_json(&t, s, strlen(s), NULL, 0, "t", NULL);
        if (!rc) rc = fa_tok_encode(t, texts[2], strlen(texts[2]), 0, &ids, &n, NULL);
        done = fa_alloc_fail_left() > 0;
        fa_alloc_fail_at(0);
        assert_true(rc == 0 || rc == FFAI_ENOMEM);
        assert_true(!done || rc == 0);
        fa_free(ids);
        fa_tok_free(t);
        assert_true(at < 5000);
    }
    free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),      cmocka_unit_test(test_left),      cmocka_unit_test(test_version),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
