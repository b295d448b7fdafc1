/* JSON: the tree, the getters, and text that must be refused. */
#define _GNU_SOURCE
#include "io/util.h"

#include "io/json.h"

static fa_json *parse(const char *text) {
    fa_json *j;
    fa_error err = {0};
    assert_ok(fa_json_parse(&j, text, strlen(text), "t.json", &err), &err);
    return j;
}

static void tree(void **state) {
    (void)state;
    fa_json *j = parse(" {\"a\": [1, -2.5, \"x\\u00e9\\n\", true, false, null, [], {}], \"b\": {\"c\": "
                       "9223372036854775807}, \"a2\": -9223372036854775808} \n");
    const fa_jnode *r = fa_json_root(j), *a = fa_jget(r, "a"), *n = fa_jfirst(a);
    size_t len;
    assert_int_equal(fa_jtype_of(r), FA_JOBJ);
    assert_int_equal(fa_jlen(r), 3);
    assert_int_equal(fa_jlen(a), 8);
    assert_int_equal(fa_jint(n, 0), 1);
    n = fa_jnext(n);
    assert_true(fa_jnum(n, 0) == -2.5);
    assert_int_equal(fa_jint(n, 7), 7);
    n = fa_jnext(n);
    assert_string_equal(fa_jstr(n, &len), "x\xC3\xA9\n");
    assert_int_equal(len, 4);
    n = fa_jnext(n);
    assert_true(fa_jbool(n, false));
    n = fa_jnext(n);
    assert_false(fa_jbool(n, true));
    n = fa_jnext(n);
    assert_int_equal(fa_jtype_of(n), FA_JNULL);
    n = fa_jnext(n);
    assert_int_equal(fa_jtype_of(n), FA_JARR);
    assert_null(fa_jfirst(n));
    n = fa_jnext(n);
    assert_int_equal(fa_jtype_of(n), FA_JOBJ);
    assert_null(fa_jnext(n));
    assert_true(fa_jint(fa_jget(fa_jget(r, "b"), "c"), 0) == INT64_MAX);
    assert_true(fa_jint(fa_jget(r, "a2"), 0) == INT64_MIN);
    assert_string_equal(fa_jkey(fa_jget(r, "b"), &len), "b");
    assert_null(fa_jkey(fa_jfirst(a), &len));
    fa_json_free(j);
}

/* Getters chain over what is absent or of another type. */
static void absent(void **state) {
    (void)state;
    fa_json *j = parse("{\"a\": \"text\"}");
    const fa_jnode *r = fa_json_root(j), *a = fa_jget(r, "a");
    assert_null(fa_jget(fa_jget(fa_jget(r, "x"), "y"), "z"));
    assert_null(fa_jget(a, "a"));
    assert_null(fa_jfirst(a));
    assert_null(fa_jnext(NULL));
    assert_null(fa_jstr(r, NULL));
    assert_int_equal(fa_jlen(a), 0);
    assert_int_equal(fa_jint(a, 5), 5);
    assert_true(fa_jnum(NULL, 0.5) == 0.5);
    assert_true(fa_jbool(a, true));
    assert_null(fa_json_root(NULL));
    fa_json_free(j);
    fa_json_free(NULL);
}

static void duplicates_last_wins(void **state) {
    (void)state;
    fa_json *j = parse("{\"k\": 1, \"k\": 2}");
    assert_int_equal(fa_jint(fa_jget(fa_json_root(j), "k"), 0), 2);
    assert_int_equal(fa_jint(fa_jfirst(fa_json_root(j)), 0), 1);
    fa_json_free(j);
}

static void numbers(void **state) {
    (void)state;
    fa_json *j = parse("[1e3, 1000000000000000019884624838656, 18446744073709551615, 9223372036854775808, 1.5e-400, "
                       "-0, 1E+2, 1e300, 0.1]");
    const fa_jnode *n = fa_jfirst(fa_json_root(j));
    assert_int_equal(fa_jtype_of(n), FA_JNUM);
    assert_int_equal(fa_jint(n, 0), 1000); /* integral value of a float literal */
    n = fa_jnext(n);
    assert_int_equal(fa_jtype_of(n), FA_JNUM);
    assert_true(fa_jnum(n, 0) == 1e30);
    assert_int_equal(fa_jint(n, -1), -1);
    n = fa_jnext(n);
    assert_true(fa_jnum(n, 0) == 18446744073709551616.0);
    n = fa_jnext(n);
    assert_int_equal(fa_jint(n, -1), -1);
    assert_true(fa_jnum(n, 0) == 0x1p63);
    n = fa_jnext(n);
    assert_true(fa_jnum(n, 1) == 0);
    n = fa_jnext(n);
    assert_int_equal(fa_jint(n, 1), 0);
    n = fa_jnext(n);
    assert_int_equal(fa_jint(n, 1), 100);
    n = fa_jnext(n);
    assert_int_equal(fa_jint(n, 1), 1);
    n = fa_jnext(n);
    assert_true(fa_jnum(n, 0) == 0.1);
    fa_json_free(j);
}

static void root_scalars(void **state) {
    (void)state;
    fa_json *j = parse(" \"a line\" ");
    assert_string_equal(fa_jstr(fa_json_root(j), NULL), "a line");
    assert_null(fa_jnext(fa_json_root(j)));
    fa_json_free(j);
    j = parse("\"\"");
    assert_string_equal(fa_jstr(fa_json_root(j), NULL), "");
    fa_json_free(j);
    j = parse("-17");
    assert_int_equal(fa_jint(fa_json_root(j), 0), -17);
    fa_json_free(j);
    j = parse("2.5");
    assert_true(fa_jnum(fa_json_root(j), 0) == 2.5);
    fa_json_free(j);
    j = parse("true");
    assert_true(fa_jbool(fa_json_root(j), false));
    fa_json_free(j);
    j = parse("null");
    assert_int_equal(fa_jtype_of(fa_json_root(j)), FA_JNULL);
    fa_json_free(j);
}

static void strings(void **state) {
    (void)state;
    fa_json *j = parse("{\"\\u0041\\u0000b\": \"\\ud83d\\ude00 \\\"\\\\\\/\\b\\f\\r\\t \xF0\x9F\x98\x80\"}");
    size_t len;
    const fa_jnode *n = fa_jfirst(fa_json_root(j));
    assert_memory_equal(fa_jkey(n, &len), "A\0b", 4);
    assert_int_equal(len, 3);
    assert_string_equal(fa_jstr(n, &len), "\xF0\x9F\x98\x80 \"\\/\b\f\r\t \xF0\x9F\x98\x80");
    fa_json_free(j);
}

static void refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "[",
        "]",
        "{",
        "}",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{\"a\":1]",
        "[1]]",
        "[[1]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "{\"a\":}",
        "{\"a\"}",
        "{,}",
        "{1:2}",
        "{\"a\":1 \"b\":2}",
        "[\"a\"b]",
        "[\"a\" \"b\"]",
        "\"abc",
        "[\"abc]",
        "[\"\\x\"]",
        "[\"\\u12\"]",
        "[\"\\ud800\"]",
        "[\"\\udc00\"]",
        "[\"\\ud800\\u0041\"]",
        "[\"a\nb\"]",
        "[\"\x01\"]",
        "nul",
        "nulll",
        "tru",
        "truee",
        "falsey",
        "[nul]",
        "[nulll]",
        "[truee]",
        "[01]",
        "[1.]",
        "[.5]",
        "[-]",
        "[+1]",
        "[1e]",
        "[0x10]",
        "[1e999]",
        "[-1e999]",
        "[NaN]",
        "[Infinity]",
        "[-Infinity]",
        "NaN",
        "1 2",
        "1,",
        "{} x",
        "{}{}",
        "[]]",
        "\"a\"b",
        "\"a\" \"b\"",
        "null null",
        "null,",
        "truex",
        "1x",
        "'a'",
        "[1]// c",
        "/* c */1",
        "[\"\xFF\"]",
        "[\"\xC0\x80\"]",
        "[\"\xED\xA0\x80\"]",
        "[\"\xF4\x90\x80\x80\"]",
        "\xEF\xBB\xBF{}",
        "[\xC2\xA0 1]",
        "[1]\f",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fa_json *j;
        fa_error err = {0};
        int rc = fa_json_parse(&j, bad[i], strlen(bad[i]), "t.json", &err);
        if (rc != FFAI_EFORMAT) print_error("accepted or odd: %s (%d %s)\n", bad[i], rc, err.msg);
        assert_failed(rc, &err, FFAI_EFORMAT, "t.json");
        assert_null(j);
    }
    fa_json *j;
    fa_error err = {0};
    assert_failed(fa_json_parse(&j, "", 0, "t.json", &err), &err, FFAI_EFORMAT, "t.json|empty");
    assert_failed(fa_json_parse(&j, " \n\t ", 4, "t.json", &err), &err, FFAI_EFORMAT, "empty");
    assert_failed(fa_json_parse(&j, "{\"a\":\0 1}", 9, "t.json", &err), &err, FFAI_EFORMAT, "t.json");
    assert_failed(fa_json_parse(&j, "{}\0", 3, "t.json", &err), &err, FFAI_EFORMAT, "t.json");
    assert_failed(fa_json_parse(&j, "{\n \"a\": [1, 2,, 3]}", 19, "t.json", &err), &err, FFAI_EFORMAT, "line 2");
}

/* Every prefix of a document is refused, and nothing is read past its end (the address sanitizer sees the exact block).
 */
static void prefixes(void **state) {
    (void)state;
    static const char text[] = "{\"ab\": [1, 2.5e1, true, null, \"x\\u00e9\"], \"c\": {\"d\": \"\", \"e\": [[], {}]}}";
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *exact = (char *)malloc(n ? n : 1);
        memcpy(exact, text, n);
        fa_json *j;
        fa_error err = {0};
        assert_failed(fa_json_parse(&j, exact, n, "t.json", &err), &err, FFAI_EFORMAT, "t.json");
        free(exact);
    }
}

static char *nested(size_t depth, char open, char close, bool closed) {
    char *s = (char *)malloc(2 * depth + 2);
    memset(s, open, depth);
    memset(s + depth, close, depth);
    s[closed ? 2 * depth : depth] = 0;
    return s;
}

static void depth(void **state) {
    (void)state;
    fa_json *j;
    fa_error err = {0};
    char *s = nested(FA_JSON_MAX_DEPTH, '[', ']', true);
    assert_ok(fa_json_parse(&j, s, strlen(s), "t.json", &err), &err);
    fa_json_free(j);
    free(s);
    s = nested(FA_JSON_MAX_DEPTH + 1, '[', ']', true);
    assert_failed(fa_json_parse(&j, s, strlen(s), "t.json", &err), &err, FFAI_ELIMIT, "t.json|nested");
    free(s);
    s = nested(1000000, '[', ']', true);
    assert_failed(fa_json_parse(&j, s, strlen(s), "t.json", &err), &err, FFAI_ELIMIT, "nested");
    free(s);
    s = nested(1000000, '[', ']', false);
    assert_int_not_equal(fa_json_parse(&j, s, strlen(s), "t.json", &err), 0);
    free(s);
    fa_buf b = {0};
    for (int i = 0; i < 1000000; i++) fa_buf_puts(&b, "{\"a\":");
    assert_int_not_equal(fa_json_parse(&j, b.data, b.len, "t.json", &err), 0);
    fa_buf_free(&b);
}

/* The arena bound is tight where strings are empty, and the tree survives many moves of its block. */
static void many(void **state) {
    (void)state;
    enum { N = 100000 };
    fa_buf b = {0};
    for (int i = 0; i < N; i++) fa_buf_printf(&b, "%s\"\":\"\"", i ? "," : "{");
    fa_buf_puts(&b, "}");
    fa_json *j;
    fa_error err = {0};
    size_t count = 0;
    assert_ok(fa_json_parse(&j, b.data, b.len, "t.json", &err), &err);
    for (const fa_jnode *n = fa_jfirst(fa_json_root(j)); n; n = fa_jnext(n))
        count += fa_jstr(n, NULL)[0] == 0 && fa_jkey(n, NULL)[0] == 0;
    assert_int_equal(count, N);
    fa_json_free(j);
    fa_buf_free(&b);
    for (int i = 0; i < N; i++) fa_buf_printf(&b, "%s[%d,\"%d\"]", i ? "," : "[", i, i);
    fa_buf_puts(&b, "]");
    assert_ok(fa_json_parse(&j, b.data, b.len, "t.json", &err), &err);
    count = 0;
    for (const fa_jnode *n = fa_jfirst(fa_json_root(j)); n; n = fa_jnext(n), count++) {
        assert_int_equal(fa_jint(fa_jfirst(n), -1), count);
        assert_int_equal(atoi(fa_jstr(fa_jnext(fa_jfirst(n)), NULL)), count);
    }
    assert_int_equal(count, N);
    fa_json_free(j);
    fa_buf_free(&b);
}

static void files(void **state) {
    (void)state;
    char dir[256], path[512];
    fa_json *j;
    fa_error err = {0};
    make_dir(dir);
    put_file(dir, "a.json", "{\"x\": 3}", 8);
    path_in(path, dir, "a.json");
    assert_ok(fa_json_load(&j, path, &err), &err);
    assert_int_equal(fa_jint(fa_jget(fa_json_root(j), "x"), 0), 3);
    fa_json_free(j);
    static const char wide[] = "{\"a\\\\\": [0, Infinity, -Infinity], \"Infinity\": \"\\\"Infinity\"}";
    put_file(dir, "a.json", wide, sizeof wide - 1);
    assert_failed(fa_json_load(&j, path, &err), &err, FFAI_EFORMAT, "a.json");
    assert_ok(fa_json_load_python(&j, path, &err), &err);
    const fa_jnode *n = fa_jnext(fa_jfirst(fa_jfirst(fa_json_root(j))));
    assert_true(fa_jnum(n, 0) == 1e308 && fa_jnum(fa_jnext(n), 0) == -1e308);
    assert_string_equal(fa_jstr(fa_jget(fa_json_root(j), "Infinity"), NULL), "\"Infinity");
    fa_json_free(j);
    put_file(dir, "a.json", "", 0);
    assert_failed(fa_json_load(&j, path, &err), &err, FFAI_EFORMAT, "a.json|empty");
    drop_file(dir, "a.json");
    assert_failed(fa_json_load(&j, path, &err), &err, FFAI_EIO, "a.json|No such file");
    assert_failed(fa_json_load(&j, dir, &err), &err, FFAI_EIO, "not a regular file");
    rmdir(dir);
}

/* The n-th allocation fails: an error, no leak. */
static void no_memory(void **state) {
    (void)state;
    static const char text[] = "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24]";
    for (long n = 1;; n++) {
        fa_json *j;
        fa_error err = {0};
        fa_alloc_fail_at(n);
        int rc = fa_json_parse(&j, text, sizeof text - 1, "t.json", &err);
        fa_alloc_fail_at(0);
        fa_json_free(j);
        if (rc) assert_int_equal(rc, FFAI_ENOMEM);
        if (n > 20) break;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree),    cmocka_unit_test(absent),       cmocka_unit_test(duplicates_last_wins),
        cmocka_unit_test(numbers), cmocka_unit_test(root_scalars), cmocka_unit_test(strings),
        cmocka_unit_test(refused), cmocka_unit_test(prefixes),     cmocka_unit_test(depth),
        cmocka_unit_test(many),    cmocka_unit_test(files),        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
