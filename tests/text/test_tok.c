/* Tokenizers against HuggingFace `tokenizers`: tests/data/tok (tools/make_tokenizer_fixtures.py) holds small tokenizers
 * with the pipelines of published models and what the reference does with a list of nasty texts. Also GGUF metadata,
 * streaming, errors, memory and time. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "io/json.h"
#include "text/tok.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define DATA FFAI_SOURCE_DIR "/tests/data/tok/"

static const char *const names[] = {"llama2", "gemma3",    "llama3",   "qwen3",   "gptoss", "deepseek_v3", "gpt2",
                                    "tekken", "starcoder", "patterns", "prepend", "words",  "metaspace",   "affix"};
static const char *const ggufs[] = {"llama2", "gemma3", "llama3", "qwen3", "gptoss", "deepseek_v3", "tekken"};
enum { N_NAME = sizeof names / sizeof *names, N_GGUF = sizeof ggufs / sizeof *ggufs };

static fa_json *load(const char *name, const char *file) {
    char path[512];
    fa_error err;
    fa_json *j;
    snprintf(path, sizeof path, DATA "%s%s%s", name, *name ? "/" : "", file);
    if (fa_json_load(&j, path, &err)) fail_msg("%s", err.msg);
    return j;
}

static fa_tok *open_dir(const char *name) {
    char path[512];
    fa_error err;
    fa_tok *t;
    snprintf(path, sizeof path, DATA "%s", name);
    if (fa_tok_from_dir(&t, path, &err)) fail_msg("%s", err.msg);
    return t;
}

static fa_tok *open_gguf(const char *name) {
    char path[512];
    fa_error err;
    fa_gguf *g;
    fa_tok *t;
    snprintf(path, sizeof path, DATA "%s.gguf", name);
    if (fa_gguf_open(&g, path, &err)) fail_msg("%s", err.msg);
    if (fa_tok_from_gguf(&t, g, &err)) fail_msg("%s: %s", name, err.msg);
    fa_gguf_free(g);
    return t;
}

static int nibble(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/* "hex" or ["hex", repeat] */
static fa_buf text_of(const fa_jnode *n) {
    fa_buf b = {0};
    int64_t times = 1;
    if (fa_jtype_of(n) == FA_JARR) {
        times = fa_jint(fa_jnext(fa_jfirst(n)), 1);
        n = fa_jfirst(n);
    }
    size_t len;
    const char *s = fa_jstr(n, &len);
    assert_non_null(s);
    while (times--)
        for (size_t i = 0; i + 1 < len; i += 2) {
            char c = (char)(nibble(s[i]) * 16 + nibble(s[i + 1]));
            fa_buf_add(&b, &c, 1);
        }
    return b;
}

static uint64_t fnv(const void *data, size_t n) {
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)data)[i]) * UINT64_C(0x100000001B3);
    return h;
}

static bool is_digest(const char *want, size_t count, const void *data, size_t bytes) {
    char s[64];
    snprintf(s, sizeof s, "%zu:%016" PRIx64, count, fnv(data, bytes));
    return strcmp(s, want) == 0;
}

static bool same_ids(const fa_jnode *want, const int32_t *ids, size_t n) {
    const char *digest = fa_jstr(want, NULL);
    if (digest) return is_digest(digest, n, ids, n * 4);
    if (fa_jlen(want) != n) return false;
    size_t i = 0;
    for (const fa_jnode *k = fa_jfirst(want); k; k = fa_jnext(k), i++)
        if (fa_jint(k, -1) != ids[i]) return false;
    return true;
}

static void show(const char *name, size_t i, const fa_buf *text, const int32_t *ids, size_t n) {
    fprintf(stderr, "%s, text %zu: \"%.60s\":", name, i, text->data ? text->data : "");
    for (size_t k = 0; k < n && k < 30; k++) fprintf(stderr, " %d", (int)ids[k]);
    fprintf(stderr, "\n");
}

/* Streams ids; after each push what has come out is a prefix of whole characters of the decoded text. */
static void check_stream(const fa_tok *t, const int32_t *ids, size_t n, const fa_buf *whole) {
    fa_tok_stream *s;
    fa_buf out = {0};
    assert_int_equal(fa_tok_stream_new(&s, t, true, NULL), 0);
    for (int round = 0; round < 2; round++) { /* after a flush it begins anew */
        out.len = 0;
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(fa_tok_stream_push(s, ids[i], &out, NULL), 0);
            assert_true(out.len <= whole->len);
            if (out.len < whole->len) assert_int_not_equal((unsigned char)whole->data[out.len] & 0xC0, 0x80);
        }
        assert_int_equal(fa_tok_stream_flush(s, &out, NULL), 0);
        assert_int_equal(out.len, whole->len);
        if (out.len) assert_memory_equal(out.data, whole->data, out.len);
    }
    fa_buf_free(&out);
    fa_tok_stream_free(s);
}

static void check_decode(const fa_tok *t, const char *name, size_t i, const fa_jnode *want, const fa_buf *text,
                         const int32_t *ids, size_t n) {
    fa_buf out = {0};
    assert_int_equal(fa_tok_decode(t, ids, n, true, &out, NULL), 0);
    size_t len;
    const char *s = fa_jstr(want, &len);
    bool good = s ? (out.len == len && memcmp(out.data ? out.data : "", s, len) == 0) ||
                        is_digest(s, out.len, out.data, out.len)
                  : true;
    if (!s) { /* 0: the text itself, with U+FFFD where it is not UTF-8 */
        fa_buf fixed = {0};
        for (size_t k = 0; k < text->len;) {
            uint32_t cp;
            char c[4];
            k += (size_t)fa_utf8_decode(text->data + k, text->len - k, &cp);
            fa_buf_add(&fixed, c, (size_t)fa_utf8_encode(cp, c));
        }
        good = out.len == fixed.len && (!out.len || memcmp(out.data, fixed.data, out.len) == 0);
        fa_buf_free(&fixed);
    }
    if (!good)
        fail_msg("%s, text %zu: decoded \"%.200s\", not \"%.200s\"", name, i, out.data ? out.data : "",
                 s ? s : text->data);
    check_stream(t, ids, n, &out);
    fa_buf_free(&out);
}

static int check_text(const fa_tok *t, const char *name, size_t i, const fa_buf *text, const fa_jnode *row) {
    fa_error err;
    int32_t *ids;
    size_t n;
    const fa_jnode *want = fa_jfirst(row), *before = fa_jnext(want), *after = fa_jnext(before);
    const char *s = text->data ? text->data : "";
    if (fa_tok_encode(t, s, text->len, 0, &ids, &n, &err)) fail_msg("%s, text %zu: %s", name, i, err.msg);
    bool good = same_ids(want, ids, n);
    if (!good) show(name, i, text, ids, n);
    fa_free(ids);
    if (fa_tok_encode(t, s, text->len, FA_TOK_SPECIAL, &ids, &n, &err)) fail_msg("%s, text %zu: %s", name, i, err.msg);
    size_t nb = fa_jlen(before), na = fa_jlen(after);
    if (good && (n < nb + na || !same_ids(before, ids, nb) || !same_ids(want, ids ? ids + nb : NULL, n - nb - na) ||
                 !same_ids(after, ids ? ids + n - na : NULL, na))) {
        show(name, i, text, ids, n);
        good = false;
    }
    if (good) check_decode(t, name, i, fa_jnext(after), text, ids, n);
    fa_free(ids);
    return !good;
}

static void check_all(const fa_tok *t, const char *name, const char *label) {
    fa_json *texts = load("", "texts.json"), *expected = load(name, "expected.json");
    const fa_jnode *text = fa_jfirst(fa_json_root(texts)), *row = fa_jfirst(fa_json_root(expected));
    int bad = 0;
    size_t i = 0;
    for (; text && row; text = fa_jnext(text), row = fa_jnext(row), i++) {
        fa_buf b = text_of(text);
        bad += check_text(t, label, i, &b, row);
        fa_buf_free(&b);
    }
    assert_true(i > 80 && !text && !row);
    fa_json_free(texts);
    fa_json_free(expected);
    if (bad) fail_msg("%s: %d texts differ from the reference", label, bad);
}

static void test_reference(void **state) {
    (void)state;
    for (size_t i = 0; i < N_NAME; i++) {
        fa_tok *t = open_dir(names[i]);
        check_all(t, names[i], names[i]);
        check_all(t, names[i], names[i]); /* with a warm cache */
        fa_tok_free(t);
    }
}

static void test_gguf(void **state) {
    (void)state;
    for (size_t i = 0; i < N_GGUF; i++) {
        char label[64];
        snprintf(label, sizeof label, "%s.gguf", ggufs[i]);
        fa_tok *t = open_gguf(ggufs[i]);
        check_all(t, ggufs[i], label);
        fa_tok_free(t);
    }
}

static void test_lookups(void **state) {
    (void)state;
    fa_tok *t = open_dir("llama3"), *g = open_gguf("gemma3");
    size_t len;
    int32_t eot = fa_tok_id(t, "<|eot_id|>", 10);
    assert_true(eot > 0 && fa_tok_is_special(t, eot) && !fa_tok_is_special(t, 0) && !fa_tok_is_special(t, -1) &&
                !fa_tok_is_special(t, 1 << 30));
    assert_string_equal(fa_tok_piece(t, eot, &len), "<|eot_id|>");
    assert_int_equal(len, 10);
    assert_int_equal(fa_tok_size(t), (size_t)eot + 1);
    assert_null(fa_tok_piece(t, -1, NULL));
    assert_null(fa_tok_piece(t, (int32_t)fa_tok_size(t), NULL));
    assert_int_equal(fa_tok_id(t, "no such token", 13), -1);
    assert_int_equal(fa_tok_bos(t), -1); /* no tokenizer_config.json */
    assert_int_equal(fa_tok_bos(g), 2);
    assert_int_equal(fa_tok_unk(g), 3);
    assert_int_equal(fa_tok_id(g, "\xE2\x96\x81\xE2\x96\x81", 6), 5); /* stored as two spaces */
    char text[80];
    fa_tok_describe(g, text, sizeof text);
    assert_non_null(strstr(text, "SentencePiece BPE"));
    fa_tok_free(t);
    fa_tok_free(g);
}

static void test_config(void **state) {
    (void)state;
    static const char json[] = "{\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true}],\"model\":{"
                               "\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    static const char config[] =
        "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"b\",\"pad_token\":null,\"unk_token\":\"zz\"}";
    fa_tok *t;
    fa_error err;
    assert_int_equal(fa_tok_from_json(&t, json, strlen(json), config, strlen(config), "test", &err), 0);
    assert_int_equal(fa_tok_bos(t), 2);
    assert_int_equal(fa_tok_eos(t), 1);
    assert_int_equal(fa_tok_pad(t), -1);
    assert_int_equal(fa_tok_unk(t), -1);
    int32_t *ids, bad[2] = {1, 7};
    size_t n;
    assert_int_equal(fa_tok_encode(t, "a<s>b", 5, 0, &ids, &n, &err), 0);
    assert_int_equal(n, 3);
    fa_free(ids);
    assert_int_equal(fa_tok_encode(t, "a<s>b", 5, FA_TOK_NO_PARSE_SPECIAL, &ids, &n, &err), 0);
    assert_int_equal(n, 2); /* <, s and > are not in the vocabulary */
    fa_free(ids);
    fa_buf out = {0};
    assert_int_not_equal(fa_tok_decode(t, bad, 2, false, &out, &err), 0);
    assert_string_equal(err.msg, "token id 7 at place 1: the tokenizer has no such token (ids are 0 to 2)");
    bad[1] = -1;
    assert_int_not_equal(fa_tok_decode(t, bad, 2, false, &out, &err), 0);
    bad[1] = 0;
    assert_int_equal(fa_tok_decode(t, bad, 2, false, &out, &err), 0);
    assert_string_equal(out.data, "b a"); /* no decoder: joined by spaces */
    fa_buf_free(&out);
    fa_tok_free(t);
}

static void test_errors(void **state) {
    (void)state;
#define MODEL(rest) "{" rest "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}"
    static const struct {
        const char *json, *msg;
    } row[] = {
        {"[]", "t: not a JSON object"},
        {"{}", "t: no model"},
        {"{\"model\":{\"type\":\"Markov\"}}", "t: model.type \"Markov\" is not supported"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "t: model.vocab is not an object with tokens"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "t: model.vocab: token \"a\" has no usable id"},
        {"{\"model\":{\"vocab\":{\"a\":4000000000},\"merges\":[]}}", "t: model.vocab: token \"a\" has no usable id"},
        {"{\"model\":{\"vocab\":{\"a\":0.5},\"merges\":[]}}", "t: model.vocab: token \"a\" has no usable id"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}}}", "t: model.merges is not an array"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "t: model.merges[0] is not a pair of tokens"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]}}",
         "t: model.merges[0] is not a pair of tokens"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\"]]}}",
         "t: model.merges[0]: \"aa\" is not in the vocabulary"},
        {MODEL("\"normalizer\":{\"type\":\"Odd\"},"), "t: normalizer: type \"Odd\" is not supported"},
        {MODEL("\"pre_tokenizer\":{\"type\":\"Odd\"},"), "t: pre_tokenizer: type \"Odd\" is not supported"},
        {MODEL("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}},"),
         "t: pattern \"(\": missing closing parenthesis at byte 1"},
        {MODEL("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"},"),
         "t: pre_tokenizer: behavior \"Odd\" is not supported"},
        {MODEL("\"post_processor\":{\"type\":\"X\"},"), "t: post_processor: type \"X\" is not supported"},
        {MODEL("\"decoder\":{\"type\":\"Odd\"},"), "t: decoder: type \"Odd\" is not supported"},
        {MODEL("\"added_tokens\":[{\"id\":2}],"), "t: added_tokens[0] has no content"},
        {MODEL("\"added_tokens\":[{\"content\":\"x\",\"id\":-1}],"), "t: added_tokens[0] \"x\" has no usable id"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        fa_tok *t = (fa_tok *)&t;
        fa_error err = {0};
        assert_int_not_equal(fa_tok_from_json(&t, row[i].json, strlen(row[i].json), NULL, 0, "t", &err), 0);
        assert_null(t);
        assert_string_equal(err.msg, row[i].msg);
    }
    fa_tok *t;
    fa_error err;
    assert_int_not_equal(fa_tok_from_dir(&t, DATA "nowhere", &err), 0);
    assert_non_null(strstr(err.msg, "nowhere/tokenizer.json"));
    fa_tok_free(NULL);
    fa_tok_stream_free(NULL);
}

/* Every allocation fails once: an error or a full result, never a crash or a leak. */
static void test_no_memory(void **state) {
    (void)state;
    static const char text[] =
        "It\xCC\x81 isn't 42 <|im_start|> \xFF caf\xC3\xA9 "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char *const which[] = {"qwen3", "gemma3", "patterns", "affix"};
    for (size_t k = 0; k < sizeof which / sizeof *which; k++) {
        bool done = false;
        for (long at = 1; !done; at += at < 40 ? 1 : 7) {
            char path[512];
            snprintf(path, sizeof path, DATA "%s", which[k]);
            fa_tok *t;
            int32_t *ids = NULL;
            size_t n = 0;
            fa_buf out = {0};
            fa_alloc_fail_at(at);
            int rc = fa_tok_from_dir(&t, path, NULL);
            if (!rc) rc = fa_tok_encode(t, text, strlen(text), FA_TOK_SPECIAL, &ids, &n, NULL);
            if (!rc) rc = fa_tok_decode(t, ids, n, false, &out, NULL);
            done = !rc && n > 0;
            fa_alloc_fail_at(0);
            fa_buf_free(&out);
            fa_free(ids);
            fa_tok_free(t);
            assert_true(at < 5000);
        }
    }
}

static void *encode_often(void *arg) {
    const fa_tok *t = (const fa_tok *)arg;
    int32_t *first, *ids;
    size_t n_first, n;
    static const char text[] = "don't stop 123 caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87 <|im_end|> the of and";
    if (fa_tok_encode(t, text, strlen(text), 0, &first, &n_first, NULL)) return arg;
    bool same = true;
    for (int i = 0; i < 300; i++) {
        if (fa_tok_encode(t, text, strlen(text), 0, &ids, &n, NULL)) return arg;
        same = same && n == n_first && memcmp(ids, first, n * 4) == 0;
        fa_free(ids);
    }
    fa_free(first);
    return same ? NULL : arg;
}

static void test_threads(void **state) {
    (void)state;
    fa_tok *t = open_dir("qwen3");
    pthread_t id[4];
    void *bad;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&id[i], NULL, encode_often, t), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(id[i], &bad), 0);
        assert_null(bad);
    }
    fa_tok_free(t);
}

/* Degenerate texts take no more than linear time; the bound is 50 times what they need, for slow machines and
 * sanitizers. */
static void test_linear(void **state) {
    (void)state;
    static const char *const unit[] = {"a",  " ",  "ab", "\n", "1",          "\xCC\x81\xCC\xA3", "\xE4\xB8\xAD",
                                       "aA", "'s", "<",  " a", "<|im_start|"};
    enum { BYTES = 300000 };
    char *s = malloc(BYTES + 16);
    for (size_t k = 0; k < N_NAME; k++) {
        fa_tok *t = open_dir(names[k]);
        for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
            size_t n = 0, len = strlen(unit[u]), n_ids;
            int32_t *ids;
            for (; n + len <= BYTES; n += len) memcpy(s + n, unit[u], len);
            clock_t from = clock(); /* of the processor: others may be using it */
            assert_int_equal(fa_tok_encode(t, s, n, 0, &ids, &n_ids, NULL), 0);
            double took = (double)(clock() - from) / CLOCKS_PER_SEC;
            if (took > 5) fail_msg("%s: %zu bytes of \"%s\" took %.1f s", names[k], n, unit[u], took);
            fa_free(ids);
        }
        fa_tok_free(t);
    }
    free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_gguf),    cmocka_unit_test(test_lookups),
        cmocka_unit_test(test_config),    cmocka_unit_test(test_errors),  cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_linear),    cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
