/* Every step and model of tokenizer.json against HuggingFace `tokenizers`: tests/data/tok/steps
 * (tools/make_pipeline_fixtures.py) holds small tokenizers, texts and id lists with the reference's answers. Also what
 * is wrong in such files, failing memory, and time. */
#include "base/alloc.h"
#include "base/err.h"
#include "io/json.h"
#include "text/charsmap.h"
#include "text/dat.h"
#include "text/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define DATA FFAI_SOURCE_DIR "/tests/data/tok/steps/"

static const char *const sections[] = {"normalizers", "pre_tokenizers", "decoders", "processors",
                                       "added",       "models",         "mixed"};
enum { N_SECTION = sizeof sections / sizeof *sections };

static fa_json *load(const char *section) {
    char path[512];
    fa_error err;
    fa_json *j;
    snprintf(path, sizeof path, DATA "%s.json", section);
    if (fa_json_load(&j, path, &err)) fail_msg("%s", err.msg);
    return j;
}

/* ---- the reference's answers ---- */

static bool same_ids(const fa_jnode *want, const int32_t *ids, size_t n) {
    size_t i = 0;
    if (fa_jlen(want) != n) return false;
    for (const fa_jnode *k = fa_jfirst(want); k; k = fa_jnext(k), i++)
        if (fa_jint(k, -1) != ids[i]) return false;
    return true;
}

static bool check_text(const fa_tok *t, const char *text, size_t n, unsigned flags, const fa_jnode *want) {
    int32_t *ids;
    size_t n_ids;
    fa_error err;
    int rc = fa_tok_encode(t, text, n, flags, &ids, &n_ids, &err);
    if (fa_jtype_of(want) == FA_JNULL) { /* the reference fails: ours may, with a message */
        fa_free(ids);
        return !rc || *err.msg;
    }
    bool good = !rc && same_ids(want, ids, n_ids);
    if (!good && rc) fprintf(stderr, "%s\n", err.msg);
    for (size_t i = 0; !good && i < n_ids && i < 40; i++) fprintf(stderr, "%d ", (int)ids[i]);
    fa_free(ids);
    return good;
}

static int stream(const fa_tok *t, const int32_t *ids, size_t n, fa_buf *out) {
    fa_tok_stream *s;
    int rc = fa_tok_stream_new(&s, t, false, NULL);
    for (size_t i = 0; i < n && !rc; i++) rc = fa_tok_stream_push(s, ids[i], out, NULL);
    if (!rc) rc = fa_tok_stream_flush(s, out, NULL);
    fa_tok_stream_free(s);
    return rc;
}

static bool check_ids(const fa_tok *t, const fa_jnode *list, int mode, const fa_jnode *want) {
    size_t n = fa_jlen(list), i = 0, len;
    int32_t *ids = FA_NEWN(int32_t, n + 1);
    fa_buf out = {0};
    for (const fa_jnode *k = fa_jfirst(list); k; k = fa_jnext(k)) ids[i++] = (int32_t)fa_jint(k, -1);
    int rc = mode == 2 ? stream(t, ids, n, &out) : fa_tok_decode(t, ids, n, mode == 0, &out, NULL);
    const char *s = fa_jstr(want, &len);
    bool good = !s || (!rc && out.len == len && memcmp(out.data ? out.data : "", s, len) == 0);
    if (!good) fprintf(stderr, "\"%.200s\", not \"%.200s\"\n", out.data ? out.data : "", s);
    fa_buf_free(&out);
    fa_free(ids);
    return good;
}

static int check_row(const fa_tok *t, const char *name, size_t i, const fa_jnode *row) {
    static const unsigned flags[3] = {0, FA_TOK_SPECIAL, FA_TOK_NO_PARSE_SPECIAL};
    const fa_jnode *what = fa_jfirst(row), *want = fa_jnext(what), *answer = want;
    size_t len;
    const char *text = fa_jstr(what, &len);
    int bad = 0;
    for (int mode = 0; mode < 3; mode++, answer = fa_jnext(answer)) {
        if (fa_jtype_of(answer) != FA_JINT) want = answer; /* 0: as before */
        if (text ? check_text(t, text, len, flags[mode], want) : check_ids(t, what, mode, want)) continue;
        fprintf(stderr, "  %s, row %zu, answer %d\n", name, i, mode);
        bad++;
    }
    return bad;
}

static void test_reference(void **state) {
    (void)state;
    int bad = 0, cases = 0;
    for (int i = 0; i < N_SECTION; i++) {
        fa_json *j = load(sections[i]);
        for (const fa_jnode *c = fa_jfirst(fa_json_root(j)); c; c = fa_jnext(c), cases++) {
            size_t len, k = 0;
            fa_error err;
            fa_tok *t;
            const char *name = fa_jstr(fa_jget(c, "name"), NULL), *json = fa_jstr(fa_jget(c, "tokenizer"), &len);
            if (fa_tok_from_json(&t, json, len, NULL, 0, name, &err)) fail_msg("%s: %s", sections[i], err.msg);
            for (int round = 0; round < 2; round++) /* the second time with a warm cache */
                for (const fa_jnode *r = fa_jfirst(fa_jget(c, "rows")); r; r = fa_jnext(r), k++)
                    bad += check_row(t, name, k, r);
            fa_tok_free(t);
        }
        fa_json_free(j);
    }
    assert_true(cases > 200);
    if (bad) fail_msg("%d answers differ from the reference", bad);
}

/* ---- bad files ---- */

static void test_errors(void **state) {
    (void)state;
#define WITH(rest) "{" rest "\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"b\":1},\"unk_token\":\"a\"}}"
#define UNI(rest)  "{\"model\":{\"type\":\"Unigram\"," rest "}}"
#define MAP(s)     WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" s "\"},")
#define WHERE      "t: normalizer: precompiled_charsmap"
    static const struct {
        const char *json, *msg;
    } row[] = {
        {UNI("\"unk_id\":0"), "t: model.vocab is not an array with tokens"},
        {UNI("\"vocab\":[]"), "t: model.vocab is not an array with tokens"},
        {UNI("\"vocab\":{\"a\":1}"), "t: model.vocab is not an array with tokens"},
        {UNI("\"vocab\":[[\"a\",1.5],[\"b\"]]"), "t: model.vocab[1] is not a token and its score"},
        {UNI("\"vocab\":[[\"a\",1.5],[3,1.0]]"), "t: model.vocab[1] is not a token and its score"},
        {UNI("\"vocab\":[[\"a\",\"x\"]]"), "t: model.vocab[0] is not a token and its score"},
        {UNI("\"unk_id\":1,\"vocab\":[[\"a\",0]]"), "t: model.unk_id is not one of the 1 tokens of model.vocab"},
        {UNI("\"unk_id\":-1,\"vocab\":[[\"a\",0]]"), "t: model.unk_id is not one of the 1 tokens of model.vocab"},
        {UNI("\"byte_fallback\":3,\"vocab\":[[\"a\",0]]"), "t: model.byte_fallback is not true or false"},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"b\":0}}}",
         "t: model.vocab: \"a\" and \"b\" both have the id 0"},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":3000000}}}",
         "t: model.vocab: token \"a\" has no usable id"},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0},\"unk_token\":4}}",
         "t: model.unk_token is not a string"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"continuing_subword_prefix\":4}}",
         "t: model.continuing_subword_prefix is not a string"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"max_input_chars_per_word\":-4}}",
         "t: model.max_input_chars_per_word is not a length"},
        {MAP("AAA"), WHERE " is not base64 at character 3"},
        {MAP("AA*A"), WHERE " is not base64 at character 2"},
        {MAP("AAB="), WHERE " is not base64 at character 0"},
        {MAP("AAAA"), WHERE ": 3 bytes cannot hold a double array of 0 bytes"},
        {MAP("/////w=="), WHERE ": 4 bytes cannot hold a double array of 4294967295 bytes"},
        {MAP("BAAAAAD8/w8="), WHERE ": unit 0 leads to unit 262143 of 1"},
        {MAP("BAAAAAAAAIA="), WHERE ": unit 0 has no replacement at byte 0"},
        {MAP("BAAAAAAAAAD/"), WHERE ": the replacements are not UTF-8 at byte 0"},
        {WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":7},"), WHERE " is not a string"},
        {WITH("\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0},"),
         "t: pre_tokenizer: FixedLength.length is not a positive integer"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"},"),
         "t: pre_tokenizer: Split has no pattern"},
        {WITH("\"decoder\":{\"type\":\"WordPiece\"},"), "t: decoder: WordPiece has no prefix"},
        {WITH("\"decoder\":{\"type\":\"CTC\",\"pad_token\":\"x\"},"), "t: decoder: CTC has no word_delimiter_token"},
        {WITH("\"decoder\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"},"),
         "t: pattern \"(\": missing closing parenthesis at byte 1"},
        {WITH("\"decoder\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a)++++\"},\"content\":\"\"},"),
         "t: pattern \"a)++++\": unmatched closing parenthesis at byte 1"},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}]},"),
         "t: post_processor: TemplateProcessing.single has a part that is neither a special token nor sequence A"},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\"},"),
         "t: post_processor: TemplateProcessing.single is not an array"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        fa_tok *t = (fa_tok *)&t;
        fa_error err = {0};
        if (!fa_tok_from_json(&t, row[i].json, strlen(row[i].json), NULL, 0, "t", &err)) fail_msg("%s", row[i].json);
        assert_null(t);
        assert_string_equal(err.msg, row[i].msg);
    }
}

/* 65 steps where 64 are allowed, in each of the sections. */
static void test_limits(void **state) {
    (void)state;
    static const char *const part[][2] = {
        {"\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[", "{\"type\":\"NFC\"}"},
        {"\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[", "{\"type\":\"WhitespaceSplit\"}"},
        {"\"decoder\":{\"type\":\"Sequence\",\"decoders\":[", "{\"type\":\"Fuse\"}"}};
    for (int i = 0; i < 3; i++) {
        for (int n = 64; n <= 65; n++) {
            fa_buf b = {0};
            fa_tok *t;
            fa_error err;
            fa_buf_printf(&b, "{%s", part[i][0]);
            for (int k = 0; k < n; k++) fa_buf_printf(&b, "%s%s", k ? "," : "", part[i][1]);
            fa_buf_puts(&b, "]},\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}");
            int rc = fa_tok_from_json(&t, b.data, b.len, NULL, 0, "t", &err);
            assert_int_equal(rc, n == 64 ? FFAI_OK : FFAI_ELIMIT);
            fa_tok_free(t);
            fa_buf_free(&b);
        }
    }
}

static void test_unknown(void **state) {
    (void)state;
    static const char *const json[] = {
        "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}",
        "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}",
        "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}",
    };
    static const char *const msg[] = {
        "t: the text has a character without a token, and model.unk_id is not set",
        "t: the text has an unknown word, and model.unk_token is not in the vocabulary",
        "t: the text has an unknown word, and model.unk_token is not in the vocabulary",
    };
    for (int i = 0; i < 3; i++) {
        fa_tok *t;
        fa_error err;
        int32_t *ids;
        size_t n;
        assert_int_equal(fa_tok_from_json(&t, json[i], strlen(json[i]), NULL, 0, "t", &err), 0);
        assert_int_equal(fa_tok_encode(t, "a", 1, 0, &ids, &n, &err), 0);
        assert_int_equal(n, 1);
        fa_free(ids);
        assert_int_equal(fa_tok_encode(t, "b", 1, 0, &ids, &n, &err), FFAI_EINVAL);
        assert_string_equal(err.msg, msg[i]);
        fa_tok_free(t);
    }
}

/* ---- the double array ---- */

static void test_double_array(void **state) {
    (void)state;
    enum { N = 20000 };
    char(*s)[12] = calloc(N, sizeof *s);
    fa_dat_key *key = calloc(N, sizeof *key);
    uint32_t x = 1;
    assert_true(s && key);
    for (int i = 0; i < N; i++) {
        size_t len = 1 + (size_t)i % 9;
        for (size_t k = 0; k < len; k++) s[i][k] = (char)((x = x * 1664525u + 1013904223u) >> (i % 2 ? 24 : 30));
        key[i] = (fa_dat_key){s[i], (uint32_t)len, i};
    }
    fa_dat d;
    assert_true(fa_dat_build(&d, key, N));
    for (int i = 0; i < N; i++) {
        uint32_t node = 0;
        for (size_t k = 0; k < 1 + (size_t)i % 9; k++) {
            node = fa_dat_step(&d, node, (uint8_t)s[i][k]);
            assert_int_not_equal(node, 0);
        }
        int32_t id = d.unit[node].id;
        assert_true(id >= i && id % 9 == i % 9 && memcmp(s[id], s[i], 12) == 0); /* the last of equal strings */
    }
    assert_true(d.n < (size_t)4 * N + 4096);
    fa_dat_free(&d);
    assert_true(fa_dat_build(&d, key, 0));
    assert_int_equal(fa_dat_step(&d, 0, 'a'), 0);
    fa_dat_free(&d);
    free(s);
    free(key);
}

/* ---- memory and time ---- */

/* Every allocation fails once: an error or a full result, never a crash or a leak. */
static void test_no_memory(void **state) {
    (void)state;
    for (int i = 0; i < N_SECTION; i++) {
        fa_json *j = load(sections[i]);
        int n = 0;
        for (const fa_jnode *c = fa_jfirst(fa_json_root(j)); c; c = fa_jnext(c)) {
            size_t len;
            const char *json = fa_jstr(fa_jget(c, "tokenizer"), &len);
            if (n++ % 9 != i % 9) continue;
            bool done = false;
            for (long at = 1; !done && at < 3000; at += at < 60 ? 1 : 13) {
                fa_tok *t;
                int32_t *ids = NULL;
                size_t n_ids = 0;
                fa_buf out = {0};
                fa_alloc_fail_at(at);
                int rc = fa_tok_from_json(&t, json, len, NULL, 0, "t", NULL);
                if (!rc) rc = fa_tok_encode(t, " the ab<x> \xC3\x89 ab ", 16, FA_TOK_SPECIAL, &ids, &n_ids, NULL);
                if (!rc) rc = fa_tok_decode(t, ids, n_ids, false, &out, NULL);
                done = fa_alloc_fail_left() > 0;
                fa_alloc_fail_at(0);
                assert_true(rc == FFAI_OK || rc == FFAI_ENOMEM || rc == FFAI_EINVAL); /* EINVAL: unknown text */
                fa_buf_free(&out);
                fa_free(ids);
                fa_tok_free(t);
            }
            assert_true(done);
        }
        fa_json_free(j);
    }
}

/* A megabyte of one letter, with each model. The bound is far above the 0.2 s that an idle machine must keep. */
static void test_linear(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    static const char *const model[] = {
        "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-3],[\"aa\",-4],[\"aaa\",-5],[\"aaaaaaaa\",-"
        "7]]",
        "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"b\",-3]]",
        "\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1,\"##aa\":2,\"##a\":3},\"max_input_chars_per_word\":"
        "9999999",
        "\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1}",
        "\"type\":\"WordLevel\",\"vocab\":{\"<unk>\":0,\"a\":1}",
        "\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\"]",
    };
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, 'a', N);
    for (size_t i = 0; i < sizeof model / sizeof *model; i++) {
        fa_buf b = {0};
        fa_tok *t;
        fa_error err;
        int32_t *ids;
        size_t n;
        fa_buf_printf(
            &b, "{\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{%s}}",
            model[i]);
        if (fa_tok_from_json(&t, b.data, b.len, NULL, 0, "t", &err)) fail_msg("%s", err.msg);
        clock_t from = clock();
        assert_int_equal(fa_tok_encode(t, text, N, 0, &ids, &n, &err), 0);
        double took = (double)(clock() - from) / CLOCKS_PER_SEC;
        if (getenv("FFAI_TIMES")) fprintf(stderr, "%.60s: %zu ids in %.3f s\n", model[i], n, took);
        assert_true(took < 4.0);
        fa_free(ids);
        fa_tok_free(t);
        fa_buf_free(&b);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_errors),       cmocka_unit_test(test_limits),
        cmocka_unit_test(test_unknown),   cmocka_unit_test(test_double_array), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
