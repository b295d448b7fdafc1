/* Chat templates against transformers' renderer: tests/data/jinja/cases.jsonl (tools/make_jinja_cases.py) holds
 * templates, contexts and what the reference makes of them. Also limits, hostile templates, large messages, failing
 * allocations, and where the templates of a checkpoint come from. */
#define _GNU_SOURCE
#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/map.h"
#include "io/json.h"
#include "text/jinja/jinja.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define DATA FFAI_SOURCE_DIR "/tests/data/jinja/"

/* Renders; NULL: failed, *err says why. */
static char *render(const char *source, size_t n_source, const char *json, size_t n_json, const fa_jinja_opts *o,
                    size_t *n, fa_error *err) {
    fa_jinja *t;
    char *text = NULL;
    if (fa_jinja_parse(&t, source, n_source, "t", err)) return NULL;
    if (fa_jinja_render(t, json, n_json, o, &text, n, err)) assert_null(text);
    fa_jinja_free(t);
    return text;
}

static char *simple(const char *source, const char *json, fa_error *err) {
    size_t n;
    return render(source, strlen(source), json, strlen(json), NULL, &n, err);
}

/* ---- the reference's cases ---- */

static int check_case(const fa_jnode *c, const fa_jnode *context) {
    size_t n_source, n_json, n_text, n;
    fa_error err = {0};
    const char *source = fa_jstr(fa_jget(c, "template"), &n_source), *json = fa_jstr(context, &n_json),
               *want = fa_jstr(fa_jget(c, "text"), &n_text), *words = fa_jstr(fa_jget(c, "error"), NULL);
    fa_jinja_opts o = {.chat = fa_jbool(fa_jget(c, "chat"), false)};
    assert_true(source && json && (want || words));
    char *text = render(source, n_source, json, n_json, &o, &n, &err);
    bool ok = want ? text && n == n_text && memcmp(text, want, n) == 0 : !text && strstr(err.msg, words) != NULL;
    if (!ok) print_message("template: %s\nwant: %s\ngot:  %s\n", source, want ? want : words, text ? text : err.msg);
    assert_null(strchr(err.msg, '\n'));
    fa_free(text);
    return !ok;
}

static void test_cases(void **state) {
    char *file;
    size_t len, n_context = 0, n_case = 0;
    fa_error err;
    fa_json *context[80], *j;
    int bad = 0;
    (void)state;
    if (fa_read_file(&file, &len, DATA "cases.jsonl", 16 << 20, &err)) fail_msg("%s", err.msg);
    for (char *p = file, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) {
        if (fa_json_parse(&j, p, (size_t)(end - p), "cases.jsonl", &err)) fail_msg("%s", err.msg);
        const fa_jnode *root = fa_json_root(j);
        if (fa_jget(root, "context")) {
            assert_true(n_context < 80);
            context[n_context++] = j;
            continue;
        }
        size_t c = (size_t)fa_jint(fa_jget(root, "c"), -1);
        assert_true(c < n_context);
        bad += check_case(root, fa_jget(fa_json_root(context[c]), "context"));
        n_case++;
        fa_json_free(j);
    }
    while (n_context > 0) fa_json_free(context[--n_context]);
    fa_free(file);
    assert_true(n_case > 600);
    assert_int_equal(bad, 0);
}

/* ---- limits ---- */

/* Fails with these words, soon. */
static void refused(const char *source, const char *json, int code, const char *words) {
    fa_error err = {0};
    double t = fa_now();
    char *text = simple(source, json, &err);
    if (text) fail_msg("%s: gave %.100s", source, text);
    if (err.code != code || !strstr(err.msg, words)) fail_msg("%s: %d %s", source, err.code, err.msg);
    assert_true(fa_now() - t < 30);
}

static void test_hostile(void **state) {
    (void)state;
    refused("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "{}", FFAI_ELIMIT,
            "steps");
    refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{}", FFAI_ELIMIT, "deeper");
    refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "{}", FFAI_ELIMIT, "deeper");
    refused("{{ 'a' * 100000000000 }}", "{}", FFAI_ELIMIT, "too large");
    refused("{{ [0] * 4000000000 }}", "{}", FFAI_ELIMIT, "");
    refused("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "{}", FFAI_ELIMIT, "");
    refused("{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
            "{}", FFAI_ELIMIT, "deeper");
    refused("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "{}", FFAI_ELIMIT, "deeper");
    refused("{{ 9223372036854775807 + 1 }}", "{}", FFAI_ELIMIT, "64 bits");
    refused("{{ 2 ** 64 }}", "{}", FFAI_ELIMIT, "64 bits");
    refused("{{ 99999999999999999999 }}", "{}", FFAI_ELIMIT, "too large");
    refused("{{ '%9999999999d' % 1 }}", "{}", FFAI_ELIMIT, "too large");
    refused("{{ '{:9999999999}'.format(1) }}", "{}", FFAI_ELIMIT, "too large");
    refused("{{ 'x'.center(9999999999) }}", "{}", FFAI_ELIMIT, "too large");
    refused("{{ range(10 ** 9) }}", "{}", FFAI_ELIMIT, "Range too big");
    refused("{% include 'x' %}", "{}", FFAI_ENOTSUP, "include");
    refused("{% extends 'x' %}", "{}", FFAI_ENOTSUP, "extends");
    refused("{% import 'x' as y %}", "{}", FFAI_ENOTSUP, "import");
    refused("{{ lipsum() }}", "{}", FFAI_ENOTSUP, "lipsum");
    refused("{{ [1]|random }}", "{}", FFAI_ENOTSUP, "random");
    refused("x\n\n  {{ 1 + }}", "{}", FFAI_EFORMAT, "t: line 3, column 10");
    refused("a\n{{ x.y.z }}", "{}", FFAI_EINVAL, "t: line 2");
    refused("{{ x }}", "{\"x\": }", FFAI_EFORMAT, "line 1, column 7");
    refused("{{ x }}", "[]", FFAI_EFORMAT, "no JSON object");
    refused("{{ x }}", "{\"x\": 1} x", FFAI_EFORMAT, "behind");
}

/* n times `piece` */
static fa_buf times(const char *piece, size_t n, const char *end) {
    fa_buf b = {0};
    for (size_t i = 0; i < n; i++) fa_buf_puts(&b, piece);
    fa_buf_puts(&b, end);
    assert_false(b.failed);
    return b;
}

static void test_deep(void **state) {
    static const char *const pieces[] = {
        "{{ (",    "{{ [",          "{{ -",   "{{ not ",         "{% if x %}",      "{% for x in y %}",
        "{{ x[",   "{{ x|default(", "{{ {1:", "{% macro m() %}", "{{ 1 if 2 else ", "{{ a(",
        "{{ x ~ ("};
    fa_error err;
    fa_jinja *t;
    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        fa_buf b = {0};
        fa_buf_puts(&b, pieces[i]);
        const char *rest = strncmp(pieces[i], "{{ ", 3) == 0 ? pieces[i] + 3 : pieces[i];
        for (int k = 0; k < 20000; k++) fa_buf_puts(&b, rest);
        assert_int_not_equal(fa_jinja_parse(&t, b.data, b.len, "t", &err), 0);
        assert_null(t);
        fa_buf_free(&b);
    }
    /* long chains are no nesting for the parser; evaluation has its limit */
    fa_buf b = times("1 + ", 300, "1 }}");
    fa_buf c = {0};
    fa_buf_printf(&c, "{{ %s", b.data);
    char *text = simple(c.data, "{}", &err);
    assert_non_null(text);
    assert_string_equal(text, "301");
    fa_free(text);
    fa_buf_free(&b);
    fa_buf_free(&c);
    b = times("[", 1000, "");
    c.len = 0;
    fa_buf_printf(&c, "{\"x\": %s", b.data);
    refused("{{ x }}", c.data, FFAI_EFORMAT, "deeper than 256");
    fa_buf_free(&b);
    fa_buf_free(&c);
}

/* Ten megabytes in a message: linear, whatever the template does with it. */
static void test_large(void **state) {
    static const char *const templates[] = {
        "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}",
        "{% for m in messages %}{{ m.content.split('x')[-1] }}{{ m.content.replace('a', 'b') }}{% endfor %}",
        "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content %}{% endfor %}{{ ns.t }}",
        "{{ messages | tojson }}{{ messages[0].content[5:100] }}{{ 'zz' in messages[0].content }}",
        "{% for m in messages %}{% set c %}{{ m.content }}{% endset %}{{ c.strip().upper() }}{% endfor %}"};
    static const char *const pieces[] = {"abcdefg hij\\n", "K\xC3\xA4se \xE6\x97\xA5 "};
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        fa_buf b = {0};
        fa_buf_puts(&b, "{\"messages\": [{\"role\": \"user\", \"content\": \"");
        while (b.len < 10000000) fa_buf_puts(&b, pieces[k]);
        fa_buf_puts(&b, "\"}]}");
        for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
            fa_error err;
            size_t n;
            double t = (double)clock() / CLOCKS_PER_SEC; /* of the processor: others may be using it */
            fa_jinja_opts o = {.chat = true};
            char *text = render(templates[i], strlen(templates[i]), b.data, b.len, &o, &n, &err);
            if (!text) fail_msg("%s: %s", templates[i], err.msg);
            assert_true(n > 5000000);
            assert_true((double)clock() / CLOCKS_PER_SEC - t < 20);
            fa_free(text);
        }
        fa_buf_free(&b);
    }
}

/* Text that grows by one piece after the other is not copied again and again. */
static void test_growing(void **state) {
    static const char source[] =
        "{% set ns = namespace(a='x', b='y') %}{% for i in range(100000) %}{% set ns.a = ns.a ~ "
        "'0123456789' %}{% set ns.b = ns.b + 'abcde' %}{% endfor %}{{ ns.a|length + "
        "ns.b|length }}";
    fa_error err;
    (void)state;
    char *text = simple(source, "{}", &err);
    if (!text) fail_msg("%s", err.msg);
    assert_string_equal(text, "1500002");
    fa_free(text);
}

static void test_strftime(void **state) {
    static const char source[] = "{{ strftime_now('%Y-%m-%d %H:%M:%S %j') }}";
    fa_error err;
    size_t n;
    fa_jinja_opts o = {.now = 1700000000};
    (void)state;
    setenv("TZ", "UTC", 1);
    char *text = render(source, strlen(source), "{}", 2, &o, &n, &err);
    assert_string_equal(text, "2023-11-14 22:13:20 318");
    fa_free(text);
}

/* ---- failing memory ---- */

static void test_fault(void **state) {
    static const char source[] =
        "{% macro m(x, y=2) %}[{{ x ~ y }}{{ caller() if caller }}]{% endmacro %}{% set ns = namespace(t='') %}{% for "
        "k, v in d|dictsort %}{% set ns.t = ns.t + k %}{{ m(v, *l) if false else m(v) }}{{ loop.last }}{% endfor %}{{ "
        "d|tojson(indent=2) }}{{ l|map('string')|join(',') }}{% call m(1) %}c{% endcall %}{{ '%s %5.1f' % ('a', 2) "
        "}}{{ '{:>5}'.format(s) }}{{ s.upper().split('L') }}{{ undefd }}{% if s is nosuch %}{% elif x %}{% endif %}";
    static const char json[] =
        "{\"d\": {\"b\": 1, \"a\": [1.5, null]}, \"l\": [1, 2], \"s\": \"he\\u006clo\", \"x\": 0}";
    static const char broken[] = "{% if s is odd %}";
    (void)state;
    for (long k = 1;; k++) {
        fa_error err = {0};
        fa_alloc_fail_at(k);
        char *text = simple(source, json, &err);
        bool came = fa_alloc_fail_left() == 0;
        fa_alloc_fail_at(0);
        if (came) {
            assert_null(text);
            assert_int_equal(err.code, FFAI_ENOMEM);
        }
        fa_free(text);
        fa_alloc_fail_at(k);
        assert_null(simple(broken, json, &err));
        fa_alloc_fail_at(0);
        if (!came) break;
    }
}

/* ---- checkpoints ---- */

static char folder[300];

static void put(const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void drop(const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    remove(path);
}

/* The folder's template `name` on a small conversation. */
static void expect(const char *name, const char *json, const char *want) {
    ffai_model *m;
    ffai_error err = {0};
    ffai_model_opts o = {.tokenizer_only = true};
    char *text = NULL;
    size_t n;
    if (ffai_model_open(&m, folder, &o, &err)) {
        if (!strstr(err.msg, want)) fail_msg("open: %s", err.msg);
        return;
    }
    int rc = ffai_chat_render(m, name, json, strlen(json), &text, &n, &err);
    if (rc ? !strstr(err.msg, want) : strcmp(text, want) != 0) fail_msg("%s: %s", want, rc ? err.msg : text);
    ffai_free(text);
    ffai_model_free(m);
}

static void test_sources(void **state) {
    static const char one[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}";
    static const char tools[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": [{}]}";
    char path[600];
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ffai-jinja-%ld", (long)getpid());
    assert_int_equal(mkdir(folder, 0700), 0);
    put("processor_config.json", "{\"chat_template\": \"processor\"}");
    expect(NULL, one, "processor");
    put("chat_template.json", "{\"chat_template\": \"json {{ messages[0].content }}\"}");
    expect(NULL, one, "json hi");
    put("tokenizer_config.json",
        "{\"chat_template\": \"config {{ bos_token }}{{ eos_token }}{{ image_token }}{{ pad_token }}{{ add_bos_token "
        "}}\", "
        "\"bos_token\": \"<b>\", \"eos_token\": {\"content\": \"<e>\"}, \"pad_token\": null, \"add_bos_token\": true, "
        "\"extra_special_tokens\": {\"image_token\": \"<i>\"}}");
    expect(NULL, one, "config <b><e><i>");
    expect(NULL, "{\"messages\": [{}], \"bos_token\": \"mine\"}", "config mine<e><i>");
    put("special_tokens_map.json", "{\"eos_token\": \"<E>\"}");
    expect(NULL, one, "config <b><E><i>");
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"plain\"}, {\"name\": "
        "\"tool_use\", \"template\": \"tools\"}, {\"name\": \"rag\", \"template\": \"docs\"}]}");
    expect(NULL, one, "plain");
    expect(NULL, tools, "tools");
    expect("rag", tools, "docs");
    expect("nosuch", one, "there are: default, tool_use, rag");
    put("chat_template.jinja", "jinja\r\n{{ eos_token }}\n");
    expect(NULL, tools, "jinja\n<E>");
    snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    put("additional_chat_templates/tool_use.jinja", "more");
    expect(NULL, tools, "more");
    expect("default", tools, "jinja\n<E>");
    put("chat_template.jinja", "{% if %}");
    expect("default", one, "chat_template.jinja: line 1, column 7");
    put("tokenizer_config.json", "{\"chat_template\": 5}");
    drop("chat_template.jinja");
    drop("additional_chat_templates/tool_use.jinja");
    expect(NULL, one, "");
    static const char *const names[] = {"additional_chat_templates", "chat_template.json",    "processor_config.json",
                                        "special_tokens_map.json",   "tokenizer_config.json", "."};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) drop(names[i]);
    rmdir(folder);
}

static void test_public(void **state) {
    ffai_template *t;
    ffai_error err;
    char *text;
    size_t n;
    (void)state;
    assert_int_equal(ffai_template_parse(&t, "{{ x }", 6, "mine.jinja", &err), FFAI_EFORMAT);
    assert_null(t);
    assert_non_null(strstr(err.msg, "mine.jinja: line 1"));
    assert_int_equal(ffai_template_parse(&t, "{{ messages|length }}{{ tools }}", 32, "mine.jinja", &err), 0);
    static const char ok[] = "{\"messages\": [{}]}", empty[] = "{\"messages\": []}",
                      tools[] = "{\"messages\": [{}], "
                                "\"tools\": [\"f\"]}";
    assert_int_equal(ffai_template_render(t, ok, strlen(ok), &text, &n, &err), 0);
    assert_string_equal(text, "1None");
    ffai_free(text);
    assert_int_equal(ffai_template_render(t, empty, strlen(empty), &text, &n, &err), FFAI_EINVAL);
    assert_null(text);
    assert_int_equal(ffai_template_render(t, tools, strlen(tools), &text, &n, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "tools[0] is str, not an object"));
    ffai_template_free(t);
    ffai_template_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases), cmocka_unit_test(test_hostile), cmocka_unit_test(test_deep),
        cmocka_unit_test(test_large), cmocka_unit_test(test_growing), cmocka_unit_test(test_strftime),
        cmocka_unit_test(test_fault), cmocka_unit_test(test_sources), cmocka_unit_test(test_public),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
