/* Answers split into text, reasoning and calls: what real templates render comes back as it was (rendered.json, made by
 * tools/make_answer_fixtures.py), transcripts with all that models get wrong (transcripts.json, by hand), every one
 * whole, byte by byte and cut at random; limits, speed, failing memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "io/json.h"
#include "text/answer/answer_int.h"

typedef struct got {
    fa_buf text, reasoning, calls, order; /* calls: name, id and arguments, a line each; order: T, R, C */
} got;

static void got_free(got *g) {
    fa_buf_free(&g->text);
    fa_buf_free(&g->reasoning);
    fa_buf_free(&g->calls);
    fa_buf_free(&g->order);
}

static void take(fa_answer *a, got *g) {
    fa_answer_part p;
    while (fa_answer_next(a, &p)) {
        static const char letters[] = "TRC";
        char k = letters[p.kind];
        assert_true(p.len > 0);
        assert_int_equal(p.text[p.len], 0);
        if (p.kind == FA_ANSWER_CALL) {
            fa_json *j;
            assert_int_equal(fa_json_parse(&j, p.text, p.len, "arguments", NULL), 0);
            assert_int_equal(fa_jtype_of(fa_json_root(j)), FA_JOBJ);
            fa_json_free(j);
            fa_buf_printf(&g->calls, "%s|%s|%s\n", p.name, p.id ? p.id : "", p.text);
        } else {
            fa_buf_add(p.kind == FA_ANSWER_TEXT ? &g->text : &g->reasoning, p.text, p.len);
        }
        if (k == 'C' || !g->order.len || g->order.data[g->order.len - 1] != k) fa_buf_add(&g->order, &k, 1);
    }
}

/* One way to feed: cut 0 whole, 1 byte by byte, else a seed of random pieces. */
static int feed(const fa_answer_opts *o, const char *text, size_t n, uint32_t cut, got *g, fa_error *err) {
    fa_answer *a;
    int rc = fa_answer_new(&a, o, err);
    memset(g, 0, sizeof *g);
    for (size_t i = 0, k; !rc && i < n; i += k) {
        cut = cut < 2 ? cut : cut * 1664525u + 1013904223u;
        k = cut == 0 ? n : cut == 1 ? 1 : 1 + (cut >> 24) % 13;
        if (k > n - i) k = n - i;
        rc = fa_answer_push(a, text + i, k, err);
        if (!rc) take(a, g);
    }
    if (!rc) rc = fa_answer_finish(a, err);
    if (!rc) take(a, g);
    if (a) assert_false(a->n > a->first && !rc);
    fa_answer_free(a);
    fa_buf *const all[] = {&g->text, &g->reasoning, &g->calls, &g->order};
    for (int i = 0; i < 4; i++) fa_buf_add(all[i], "", 0);
    return rc;
}

static bool same(const fa_buf *a, const fa_buf *b) { return a->len == b->len && memcmp(a->data, b->data, a->len) == 0; }

static bool is(const fa_buf *b, const char *s, size_t n) { return b->len == n && memcmp(b->data, s, n) == 0; }

/* ---- transcripts ---- */

static const char *data_file(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/tests/data/answer/%s", FFAI_SOURCE_DIR, name);
    return path;
}

/* A tokenizer that knows nothing but the case's special tokens; NULL without any. */
static fa_tok *make_tok(const fa_jnode *list) {
    if (!fa_jlen(list)) return NULL;
    fa_buf b = {0};
    fa_tok *t;
    fa_error err;
    fa_buf_puts(&b, "{\"added_tokens\": [");
    int id = 0;
    for (const fa_jnode *k = fa_jfirst(list); k; k = fa_jnext(k), id++) {
        size_t n;
        const char *s = fa_jstr(k, &n);
        fa_buf_printf(&b, "%s{\"id\": %d, \"special\": true, \"content\": ", id ? ", " : "", id);
        fa_ans_quoted(&b, s, n);
        fa_buf_puts(&b, "}");
    }
    fa_buf_printf(&b, "], \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": %d}, \"merges\": []}}", id);
    if (fa_tok_from_json(&t, b.data, b.len, NULL, 0, "special tokens", &err)) fail_msg("%s", err.msg);
    fa_buf_free(&b);
    return t;
}

/* want.calls: [name, arguments] or [name, arguments, id]. */
static void want_calls(const fa_jnode *calls, bool ids, fa_buf *out) {
    for (const fa_jnode *c = fa_jfirst(calls); c; c = fa_jnext(c)) {
        const fa_jnode *name = fa_jfirst(c), *args = fa_jnext(name), *id = fa_jnext(args);
        if (ids)
            fa_buf_printf(out, "%s|%s|%s\n", fa_jstr(name, NULL), fa_jstr(id, NULL) ? fa_jstr(id, NULL) : "",
                          fa_jstr(args, NULL));
        else
            fa_buf_printf(out, "%s|%s\n", fa_jstr(name, NULL), fa_jstr(args, NULL));
    }
    fa_buf_add(out, "", 0);
}

static void without_ids(fa_buf *calls) {
    fa_buf out = {0};
    for (const char *p = calls->data; *p;) {
        const char *end = strchr(p, '\n'), *bar = strchr(p, '|'), *bar2 = strchr(bar + 1, '|');
        fa_buf_add(&out, p, (size_t)(bar - p));
        fa_buf_add(&out, bar2, (size_t)(end - bar2) + 1);
        p = end + 1;
    }
    fa_buf_add(&out, "", 0);
    fa_buf_free(calls);
    *calls = out;
}

static int check_case(const fa_jnode *c, const char *tools, const char *what, size_t index) {
    fa_answer_opts o = {.format = fa_jstr(fa_jget(c, "format"), NULL)};
    const fa_jnode *want = fa_jget(c, "want");
    size_t n, len;
    const char *text = fa_jstr(fa_jget(c, "text"), &n), *s;
    o.prompt = fa_jstr(fa_jget(c, "prompt"), &o.prompt_len);
    o.tools = fa_jbool(fa_jget(c, "no_tools"), false) ? NULL : tools;
    fa_tok *tok = make_tok(fa_jget(c, "special"));
    o.tok = tok;
    got whole, g;
    fa_buf calls = {0};
    fa_error err;
    if (feed(&o, text, n, 0, &whole, &err)) fail_msg("%s %zu: %s", what, index, err.msg);
    for (uint32_t cut = 1; cut < 20; cut++) {
        assert_int_equal(feed(&o, text, n, cut, &g, NULL), 0);
        if (!same(&g.text, &whole.text) || !same(&g.reasoning, &whole.reasoning) || !same(&g.calls, &whole.calls) ||
            !same(&g.order, &whole.order))
            fail_msg("%s %zu: cut %u gives other parts: \"%s\" \"%s\" \"%s\", whole \"%s\" \"%s\" \"%s\"", what, index,
                     cut, g.text.data, g.reasoning.data, g.calls.data, whole.text.data, whole.reasoning.data,
                     whole.calls.data);
        got_free(&g);
    }
    bool ids = fa_jbool(fa_jget(c, "ids"), false);
    want_calls(fa_jget(want, "calls"), ids, &calls);
    if (!ids) without_ids(&whole.calls);
    s = fa_jstr(fa_jget(want, "text"), &len);
    bool good = is(&whole.text, s ? s : "", s ? len : 0);
    s = fa_jstr(fa_jget(want, "reasoning"), &len);
    good &= is(&whole.reasoning, s ? s : "", s ? len : 0) && same(&whole.calls, &calls);
    s = fa_jstr(fa_jget(want, "order"), NULL);
    good &= !s || strcmp(s, whole.order.data) == 0;
    if (!good)
        fprintf(stderr,
                "%s %zu (%s): text \"%s\", reasoning \"%s\", calls \"%s\", order %s; calls wanted \"%s\"; of: %s\n",
                what, index, o.format, whole.text.data, whole.reasoning.data, whole.calls.data, whole.order.data,
                calls.data, text);
    fa_buf_free(&calls);
    got_free(&whole);
    fa_tok_free(tok);
    return !good;
}

static void check_file(const char *name) {
    fa_json *j;
    fa_error err;
    int bad = 0;
    if (fa_json_load(&j, data_file(name), &err)) fail_msg("%s", err.msg);
    const fa_jnode *root = fa_json_root(j), *tool = fa_jget(root, "tools");
    const char *tools = fa_jstr(tool, NULL);
    size_t i = 0;
    for (const fa_jnode *c = fa_jfirst(fa_jget(root, "cases")); c; c = fa_jnext(c), i++)
        bad += check_case(c, tools, name, i);
    assert_true(i > 20);
    fa_json_free(j);
    assert_int_equal(bad, 0);
}

static void rendered(void **state) {
    (void)state;
    check_file("rendered.json");
}

static void transcripts(void **state) {
    (void)state;
    check_file("transcripts.json");
}

/* ---- formats ---- */

static void detection(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"{{ messages }}", "none"},
        {"...'<think>\n' ... '</think>'", "think"},
        {"<tool_call>\n{\"name\": ... </tool_call> <think>", "hermes"},
        {"<tool_call>\n<function=example>\n<parameter=a>", "qwen3_coder"},
        {"<tool_call>{name}\n<arg_key>", "glm"},
        {"'<|start|>assistant<|channel|>analysis<|message|>'", "harmony"},
        {"[TOOL_CALLS]", "mistral"},
        {"<|start_header_id|>ipython {\"name\": .., \"parameters\": }", "llama3_json"},
        {"'<|tool_call>call:'", "gemma4"},
        {"<start_function_call>", "function_gemma"},
        {"<TOOLCALL>", "nemotron"},
        {"<|start_of_role|> <|tool_call|>", "granite"},
        {"message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>'", "phi4_mini"},
        {"<｜tool▁calls▁begin｜>", "deepseek"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(fa_answer_detect(rows[i][0]), rows[i][1]);
    assert_string_equal(fa_answer_detect(NULL), "none");
    assert_string_equal(fa_answer_format_at(0), "none");
    size_t n = 0;
    while (fa_answer_format_at(n)) {
        const fa_ans_format *f = fa_ans_find(fa_answer_format_at(n++));
        assert_non_null(f);
        int k = 0;
        while (k < FA_ANS_MAX_TAG && f->tags[k].text) {
            assert_true((f->tags[k].call != NULL) ==
                        (f->tags[k].kind == FA_ANS_CALL || f->tags[k].kind == FA_ANS_SECTION_CALL));
            k++;
        }
        assert_true(k < FA_ANS_MAX_TAG); /* a NULL ends the list */
    }
    assert_true(n > 30);
}

static void bad_options(void **state) {
    (void)state;
    fa_error err;
    fa_answer *a;
    fa_answer_opts o = {.format = "nonsense"};
    assert_int_equal(fa_answer_new(&a, &o, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "nonsense"));
    o = (fa_answer_opts){.format = "hermes", .tools = "{\"name\": 1}"};
    assert_int_equal(fa_answer_new(&a, &o, &err), FFAI_EINVAL);
    o.tools = "[{";
    assert_int_not_equal(fa_answer_new(&a, &o, &err), 0);
    assert_null(a);
    /* tools that are no objects are no tools */
    o = (fa_answer_opts){.format = "qwen3_coder",
                         .tools = "[1, null, \"x\", {\"function\": 3}, {\"name\": \"f\", \"parameters\": []}]"};
    got g;
    const char *s = "<tool_call><function=f><parameter=a>1</parameter></function></tool_call>";
    assert_int_equal(feed(&o, s, strlen(s), 1, &g, NULL), 0);
    assert_string_equal(g.calls.data, "f||{\"a\": 1}\n");
    got_free(&g);
    assert_int_equal(fa_answer_new(&a, &o, &err), 0);
    assert_int_equal(fa_answer_finish(a, &err), 0);
    assert_int_equal(fa_answer_push(a, "x", 1, &err), FFAI_EINVAL);
    assert_int_equal(fa_answer_finish(a, &err), 0);
    fa_answer_free(a);
    fa_answer_free(NULL);
}

/* Text comes out as it streams: nothing waits that cannot be a tag. */
static void streaming(void **state) {
    (void)state;
    fa_answer_opts o = {.format = "hermes"};
    static const char *const steps[][2] = {
        {"Hel", "Hel"},        {"lo <", "lo"},       {"b", " <b"},       {"><tool", ">"},
        {"_cat", "<tool_cat"}, {" \xF0\x9F", ""},    {"\x98\x80", " 😀"}, {"<think", ""},
        {">so", "so"},         {" it </thi", " it"}, {"nk>", ""}};
    fa_answer *a;
    fa_answer_part p;
    assert_int_equal(fa_answer_new(&a, &o, NULL), 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_int_equal(fa_answer_push(a, steps[i][0], strlen(steps[i][0]), NULL), 0);
        fa_buf b = {0};
        while (fa_answer_next(a, &p)) fa_buf_add(&b, p.text, p.len);
        fa_buf_add(&b, "", 0);
        assert_string_equal(b.data, steps[i][1]);
        fa_buf_free(&b);
    }
    fa_answer_free(a);
}

/* ---- limits ---- */

/* `times` copies of unit behind head, in pieces: linear, whatever it is. */
static double flood(const char *format, const char *head, const char *unit, size_t times) {
    fa_answer_opts o = {.format = format};
    fa_answer *a;
    fa_buf b = {0};
    fa_answer_part p;
    size_t in = strlen(head), n = strlen(unit), piece = 4096;
    for (size_t i = 0; i < piece; i++) fa_buf_add(&b, unit, n);
    assert_int_equal(fa_answer_new(&a, &o, NULL), 0);
    double t = fa_now();
    assert_int_equal(fa_answer_push(a, head, in, NULL), 0);
    for (size_t i = 0; i < times; i += piece) {
        assert_int_equal(fa_answer_push(a, b.data, b.len, NULL), 0);
        while (fa_answer_next(a, &p)) {
        }
    }
    assert_int_equal(fa_answer_finish(a, NULL), 0);
    while (fa_answer_next(a, &p)) {
    }
    t = fa_now() - t;
    fa_answer_free(a);
    fa_buf_free(&b);
    return t;
}

static void linear(void **state) {
    (void)state;
    static const char *const rows[][3] = {
        {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"", "aaaaaaaaaaaaaaaa"},
        {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"", "</tool_call>"},
        {"hermes", "", "<tool_call>{\"a\": \""},
        {"hermes", "<tool_call>", "[[[[[[[[{\"a\":"},
        {"hermes", "", "<tool_call></tool_call>"},
        {"hermes", "x", "\n \n        "},
        {"hermes", "", "<<<<<tool_cal"},
        {"qwen3_coder", "<tool_call><function=f>", "<parameter=a>1</parameter>"},
        {"qwen3_coder", "<tool_call><function=f>", "<parameter=a>"},
        {"glm", "<tool_call>f", "<arg_key>a</arg_key><arg_value>1"},
        {"llama3_json", "{\"name\": \"f\", \"parameters\": ", "{\"a\": "},
        {"llama3_json", "", "{\"name\": \"f\", \"parameters\": {}};"},
        {"pythonic", "[f(a=", "((((["},
        {"mistral", "[TOOL_CALLS]", "name "},
        {"harmony", "", "<|channel|>analysis"},
        {"harmony", "", "<|channel|>final<|message|>x<|end|>"},
        {"gemma4", "<|tool_call>call:f{a:<|\"|>", "<|\"<|\""},
        {"minimax_m3", "]<]minimax[>[<tool_call>]<]minimax[>[<invoke name=\"f\">", "]<]minimax[>[<a>"},
        {"deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"},
        {"kimi_k3", "", "<|open|>call tool=\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double t = flood(rows[i][0], rows[i][1], rows[i][2], 1 << 16);
        if (t > 5) fail_msg("%s, \"%s\" and many \"%s\": %.1f s", rows[i][0], rows[i][1], rows[i][2], t);
    }
}

static void deep(void **state) {
    (void)state;
    fa_buf b = {0};
    fa_answer_opts o = {.format = "hermes"};
    got g;
    for (int depth = 100; depth <= 100000; depth *= 10) {
        b.len = 0;
        fa_buf_puts(&b, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ");
        for (int i = 0; i < depth; i++) fa_buf_puts(&b, "[");
        for (int i = 0; i < depth; i++) fa_buf_puts(&b, "]");
        fa_buf_puts(&b, "}}</tool_call>");
        assert_int_equal(feed(&o, b.data, b.len, 0, &g, NULL), 0);
        assert_int_equal(g.order.data[0], depth == 100 ? 'C' : 'T');
        if (depth > 100) assert_true(same(&g.text, &b));
        got_free(&g);
    }
    fa_buf_free(&b);
}

/* Arguments are JSON that any reader takes: a call with a number beyond a double is no call. */
static void numbers(void **state) {
    (void)state;
    static const char *const good[] = {"1e308", "-1.5E+300", "1e-400", "0e99", "12345678901234567890"};
    static const char *const bad[] = {"1e309", "-1e309", "1187044e64473709551616", "0.1e400"};
    char text[900], zeros[401];
    memset(zeros, '0', 400);
    zeros[400] = 0;
    fa_answer_opts o = {.format = "hermes"};
    got g;
    for (size_t i = 0; i < 11; i++) {
        bool ok = i < 5 || i == 9;
        snprintf(text, sizeof text, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": %s%s}}</tool_call>",
                 i < 5    ? good[i]
                 : i < 9  ? bad[i - 5]
                 : i < 10 ? "0."
                          : "1",
                 i < 9 ? "" : zeros);
        assert_int_equal(feed(&o, text, strlen(text), 0, &g, NULL), 0);
        assert_int_equal(g.order.data[0], ok ? 'C' : 'T');
        got_free(&g);
    }
}

static void no_memory(void **state) {
    (void)state;
    static const char tools[] =
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": {\"type\": \"integer\"}}}}]";
    static const char *const rows[][2] = {
        {"hermes", "a <think>b</think> c <tool_call>{\"name\": \"f\", \"id\": \"1\", \"x\": [1], \"arguments\": "
                   "\"{\\\"a\\\": 1}\"}</tool_call> d <tool_call>no</tool_call>"},
        {"qwen3_coder",
         "<tool_call><function=f><parameter=a>1</parameter><parameter=b>[x]</parameter></function></tool_call>"},
        {"harmony", "<|channel|>analysis<|message|>x<|end|><|start|>assistant to=functions.f<|channel|>commentary "
                    "json<|message|>{\"a\": 1}<|call|>"},
        {"glm", "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>"},
        {"apertus", "<|tools_prefix|>[{\"f\": {}}, {\"g\": {\"a\": 1}}]<|tools_suffix|>"},
        {"llama3_json", "[f(a=1), g(b='x')]"},
        {"minimax_m3", "]<]minimax[>[<tool_call>]<]minimax[>[<invoke name=\"f\">]<]minimax[>[<a>1]<]minimax[>[</a>"
                       "]<]minimax[>[</invoke>"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fa_answer_opts o = {.format = rows[i][0], .tools = tools};
        got want;
        size_t len = strlen(rows[i][1]);
        assert_int_equal(feed(&o, rows[i][1], len, 1, &want, NULL), 0);
        for (long n = 1;; n++) {
            fa_error err = {0};
            fa_answer *a;
            fa_answer_part p;
            fa_buf all = {0};
            fa_alloc_fail_at(n);
            int rc = fa_answer_new(&a, &o, &err);
            for (size_t k = 0; !rc && k < len; k++) rc = fa_answer_push(a, rows[i][1] + k, 1, &err);
            if (!rc) rc = fa_answer_finish(a, &err);
            bool came = fa_alloc_fail_left() == 0;
            fa_alloc_fail_at(0);
            while (a && fa_answer_next(a, &p)) {
                assert_non_null(p.text);
                if (p.kind == FA_ANSWER_CALL) fa_buf_puts(&all, p.text);
            }
            fa_answer_free(a);
            if (rc) assert_int_equal(rc, FFAI_ENOMEM);
            if (!rc) { /* a block that could not shrink is no failure */
                size_t n_args = 0;
                for (const char *q = want.calls.data; (q = strstr(q, "|{")); q++) n_args++;
                for (const char *q = all.data; q && (q = strchr(q, '{')); q++) n_args -= q == all.data || q[-1] == '}';
                assert_int_equal(n_args, 0);
            }
            fa_buf_free(&all);
            if (!came) break;
        }
        got_free(&want);
    }
}

/* Bytes that are no UTF-8 come out as U+FFFD, the same for any cut. */
static void bytes(void **state) {
    (void)state;
    static const char s[] = "a\xFF\xC3(\xE2\x82 b\xF0\x9F\x98<think>\xED\xA0\x80</think>\xE2\x82\xAC\xC3";
    fa_answer_opts o = {.format = "hermes"};
    for (uint32_t cut = 0; cut < 50; cut++) {
        got g;
        assert_int_equal(feed(&o, s, sizeof s - 1, cut, &g, NULL), 0);
        assert_string_equal(g.text.data, "a\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD b\xEF\xBF\xBD€\xEF\xBF\xBD");
        assert_string_equal(g.reasoning.data, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
        got_free(&g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rendered),    cmocka_unit_test(transcripts), cmocka_unit_test(detection),
        cmocka_unit_test(bad_options), cmocka_unit_test(streaming),   cmocka_unit_test(linear),
        cmocka_unit_test(deep),        cmocka_unit_test(no_memory),   cmocka_unit_test(bytes),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
