/* Tokenizer files besides tokenizer.json against the libraries they belong to: tests/data/tokfiles
 * (tools/make_tokenizer_file_fixtures.py). Also errors, memory, time, and which file of a folder is taken. */
#define _POSIX_C_SOURCE 200809L
#include "base/clock.h"
#include "tok_expect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define DATA FFAI_SOURCE_DIR "/tests/data/tokfiles/"

static const char *const names[] = {"sp_bpe",           "sp_bpe_llama",     "sp_bpe_user",
                                    "sp_bpe_plain",     "sp_bpe_unused",    "sp_unigram",
                                    "sp_unigram_llama", "sp_unigram_user",  "sp_unigram_suffix",
                                    "sp_unigram_back",  "sp_char",          "sp_word",
                                    "tekken_v3",        "tekken_v11",       "rank_llama3",
                                    "rank_whisper",     "rank_qwen",        "rank_o200k",
                                    "vocab_gpt2",       "vocab_qwen2",      "vocab_roberta",
                                    "vocab_bert",       "vocab_bert_cased", "hf_llama",
                                    "hf_llama_legacy",  "hf_internlm2",     "hf_t5",
                                    "hf_xlmr",          "gguf_bert",        "gguf_t5",
                                    "gguf_gemma4",      "gguf_rwkv",        "gguf_plamo2"};
enum { N_NAME = sizeof names / sizeof *names };

static fa_json *load(const char *path) {
    fa_error err;
    fa_json *j;
    if (fa_json_load(&j, path, &err)) fail_msg("%s", err.msg);
    return j;
}

static int open_tok(fa_tok **t, const char *name, fa_error *err) {
    char path[512];
    fa_gguf *g;
    *t = NULL;
    if (strncmp(name, "gguf", 4) != 0) {
        snprintf(path, sizeof path, DATA "%s", name);
        return fa_tok_from_dir(t, path, err);
    }
    snprintf(path, sizeof path, DATA "%s.gguf", name);
    int rc = fa_gguf_open(&g, path, err);
    if (rc) return rc;
    rc = fa_tok_from_gguf(t, g, err);
    fa_gguf_free(g);
    return rc;
}

static void test_reference(void **state) {
    (void)state;
    fa_json *texts = load(FFAI_SOURCE_DIR "/tests/data/tok/texts.json");
    int bad = 0;
    for (size_t i = 0; i < N_NAME; i++) {
        char path[512];
        fa_tok *t;
        fa_error err;
        if (open_tok(&t, names[i], &err)) fail_msg("%s: %s", names[i], err.msg);
        snprintf(path, sizeof path, DATA "%s/expected.json", names[i]);
        fa_json *rows = load(path);
        int n = expect_all(t, names[i], fa_json_root(texts), fa_json_root(rows));
        if (!n) n = expect_all(t, names[i], fa_json_root(texts), fa_json_root(rows)); /* with a warm cache */
        if (n) fprintf(stderr, "%s: %d texts differ\n", names[i], n);
        bad += n;
        fa_json_free(rows);
        fa_tok_free(t);
    }
    fa_json_free(texts);
    assert_int_equal(bad, 0);
}

/* ---- special tokens ---- */

static void expect_count(const fa_tok *t, const char *text, unsigned flags, int32_t first, size_t count) {
    int32_t *ids;
    size_t n;
    assert_int_equal(fa_tok_encode(t, text, strlen(text), flags, &ids, &n, NULL), 0);
    if (count) assert_int_equal(n, count);
    if (first >= 0) assert_int_equal(ids[0], first);
    fa_free(ids);
}

static void test_special(void **state) {
    (void)state;
    fa_tok *t;
    char text[80];
    assert_int_equal(open_tok(&t, "tekken_v11", NULL), 0);
    assert_int_equal(fa_tok_bos(t), 1);
    assert_int_equal(fa_tok_eos(t), 2);
    assert_int_equal(fa_tok_pad(t), 5);
    assert_int_equal(fa_tok_id(t, "<SPECIAL_9>", 11), 9);
    expect_count(t, "[INST]", FA_TOK_PARSE_SPECIAL, 3, 1); /* a rendered template */
    int32_t *ids;
    size_t n;
    assert_int_equal(fa_tok_encode(t, "[INST]", 6, 0, &ids, &n, NULL), 0);
    assert_true(n > 1);
    fa_free(ids);
    int32_t some[] = {1, 12 + 0xE2, 3, 12 + 0x82}; /* a special token ends the text before it, shown or not */
    fa_buf out = {0};
    assert_int_equal(fa_tok_decode(t, some, 4, true, &out, NULL), 0);
    assert_string_equal(out.data, "\xEF\xBF\xBD\xEF\xBF\xBD");
    out.len = 0;
    assert_int_equal(fa_tok_decode(t, some, 4, false, &out, NULL), 0);
    assert_string_equal(out.data, "<s>\xEF\xBF\xBD[INST]\xEF\xBF\xBD");
    fa_buf_free(&out);
    fa_tok_describe(t, text, sizeof text);
    assert_non_null(strstr(text, "tiktoken BPE"));
    fa_tok_free(t);
    assert_int_equal(open_tok(&t, "rank_llama3", NULL), 0);
    assert_int_equal(fa_tok_id(t, "<|eot_id|>", 10), 380 + 9);
    assert_int_equal(fa_tok_size(t), 380 + 256);
    expect_count(t, "<|eot_id|>", 0, 389, 1);
    assert_true(fa_tok_is_special(t, 389));
    fa_tok_free(t);
    assert_int_equal(open_tok(&t, "sp_bpe_user", NULL), 0);
    assert_int_equal(fa_tok_unk(t), 0);
    assert_int_equal(fa_tok_pad(t), 3);
    expect_count(t, "[INST]", FA_TOK_PARSE_SPECIAL, fa_tok_id(t, "[INST]", 6), 1);
    fa_tok_free(t);
}

/* ---- files ---- */

static void put(const char *dir, const char *name, const void *data, size_t n) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void drop(const char *dir, const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void copy(const char *dir, const char *name, const char *from) {
    char path[600], *data;
    size_t n;
    snprintf(path, sizeof path, DATA "%s", from);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    n = (size_t)ftell(f);
    rewind(f);
    data = malloc(n);
    assert_int_equal(fread(data, 1, n, f), n);
    fclose(f);
    put(dir, name, data, n);
    free(data);
}

static void kind_of(const char *path, bool file, char *text, size_t cap) {
    fa_tok *t;
    fa_error err;
    int rc = file ? fa_tok_from_file(&t, path, &err) : fa_tok_from_dir(&t, path, &err);
    if (rc) fail_msg("%s", err.msg);
    fa_tok_describe(t, text, cap);
    fa_tok_free(t);
}

/* A folder that fills up: each file goes before those that were there. */
static void test_order(void **state) {
    (void)state;
    char dir[] = "/tmp/ffai-tok-XXXXXX", text[100];
    assert_non_null(mkdtemp(dir));
    static const struct {
        const char *name, *from, *also, *also_from, *kind;
    } row[] = {
        {"any.tiktoken", "rank_o200k/o200k_base.tiktoken", NULL, NULL, "tiktoken BPE"},
        {"vocab.txt", "vocab_bert/vocab.txt", NULL, NULL, "WordPiece"},
        {"vocab.json", "vocab_gpt2/vocab.json", "merges.txt", "vocab_gpt2/merges.txt", "byte-level BPE"},
        {"tokenizer.model", "sp_unigram/tokenizer.model", NULL, NULL, "SentencePiece Unigram"},
        {"tekken.json", "tekken_v3/tekken.json", NULL, NULL, "tiktoken BPE, 414 tokens, 24"},
        {"tokenizer.json", "../tok/llama2/tokenizer.json", NULL, NULL, "character BPE"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        copy(dir, row[i].name, row[i].from);
        if (row[i].also) copy(dir, row[i].also, row[i].also_from);
        kind_of(dir, false, text, sizeof text);
        if (!strstr(text, row[i].kind)) fail_msg("%s: %s", row[i].name, text);
    }
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        drop(dir, row[i].name);
        if (row[i].also) drop(dir, row[i].also);
    }
    rmdir(dir);
    static const char *const file[][2] = {
        {"sp_bpe/tokenizer.model", "SentencePiece BPE"}, {"rank_llama3/tokenizer.model", "tiktoken BPE"},
        {"tekken_v3/tekken.json", "tiktoken BPE"},       {"vocab_bert/vocab.txt", "WordPiece"},
        {"vocab_gpt2/vocab.json", "byte-level BPE"},     {"../tok/llama2/tokenizer.json", "character BPE"}};
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        char path[600];
        snprintf(path, sizeof path, DATA "%s", file[i][0]);
        assert_true(fa_tok_is_file(path));
        kind_of(path, true, text, sizeof text);
        if (!strstr(text, file[i][1])) fail_msg("%s: %s", path, text);
    }
}

/* ---- errors ---- */

static char scratch_dir[] = "/tmp/ffai-tok-XXXXXX";

static void expect_error(const char *file, const void *data, size_t n, const char *msg) {
    fa_tok *t = (fa_tok *)&t;
    fa_error err = {0};
    put(scratch_dir, file, data, n);
    int rc = fa_tok_from_dir(&t, scratch_dir, &err);
    drop(scratch_dir, file);
    if (rc == 0 || t) fail_msg("%s: taken, not \"%s\"", file, msg);
    if (!strstr(err.msg, msg) || !strstr(err.msg, file)) fail_msg("%s: \"%s\", not \"%s\"", file, err.msg, msg);
}

/* tekken.json with 256 bytes and what `tail` has behind them. */
static void expect_tekken(const char *config, const char *special, const char *tail, const char *msg) {
    fa_buf b = {0};
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    fa_buf_printf(&b, "{\"config\":{%s},%s\"vocab\":[", config, special);
    for (int i = 0; i < 256; i++)
        fa_buf_printf(&b, "%s{\"rank\":%d,\"token_bytes\":\"%c%c==\",\"token_str\":null}", i ? "," : "", i,
                      digit[i >> 2], digit[(i & 3) << 4]);
    fa_buf_printf(&b, "%s]}", tail);
    expect_error("tekken.json", b.data, b.len, msg);
    fa_buf_free(&b);
}

static void test_tekken_errors(void **state) {
    (void)state;
#define SIZES(size, special)                                                                                           \
    "\"pattern\":\".\",\"version\":\"v3\",\"default_vocab_size\":" size ",\"default_num_special_tokens\":" special
    expect_error("tekken.json", "{", 1, "tekken.json");
    expect_error("tekken.json", "[]", 2, "config is not an object");
    expect_tekken("\"version\":\"x\"", "", "", "config.version is \"x\"");
    expect_tekken("\"version\":\"v11\"", "", "", "special_tokens is missing, which version v11 needs");
    expect_tekken(SIZES("9999", "3"), "", "", "default_vocab_size is 9999 with 3 special tokens and a vocab of 256");
    expect_tekken(SIZES("259", "-3"), "", "", "default_num_special_tokens is -3");
    expect_tekken(SIZES("259", "99999999"), "", "", "default_num_special_tokens is 99999999");
    expect_tekken(SIZES("259", "3"), "", "", "20 special tokens, config.default_num_special_tokens is 3");
    expect_tekken(SIZES("277", "20"), "", ",{\"rank\":256,\"token_bytes\":\"!!!!\"}",
                  "vocab[256].token_bytes is not base64");
    expect_tekken(SIZES("277", "20"), "", ",{\"rank\":256,\"token_bytes\":\"YQ\"}",
                  "vocab[256].token_bytes is not base64");
    expect_tekken(SIZES("277", "20"), "", ",{\"rank\":256,\"token_bytes\":\"\"}", "vocab[256].token_bytes is empty");
    expect_tekken(SIZES("277", "20"), "", ",{\"rank\":256,\"token_bytes\":\"YQ==\"}", "are the same bytes");
    expect_tekken(SIZES("277", "20"), "", ",{\"rank\":258,\"token_bytes\":\"YWI=\"}", "vocab[256].rank is 258");
    expect_tekken(SIZES("259", "3"),
                  "\"special_tokens\":[{\"rank\":0,\"token_str\":\"a\"},{\"rank\":1,\"token_str\":\"a\"}],", "",
                  "special token \"a\" is empty or there twice");
    expect_tekken(SIZES("259", "3"),
                  "\"special_tokens\":[{\"rank\":0,\"token_str\":\"a\"},{\"rank\":0,\"token_str\":\"b\"}],", "",
                  "special token \"b\" has the rank 0 of another");
    expect_tekken(SIZES("259", "3"), "\"special_tokens\":[{\"rank\":7,\"token_str\":\"a\"}],", "", "has rank 7 of 3");
    expect_tekken(SIZES("200", "20"), "", "", "no token is the single byte 0xB4");
}

static void test_rank_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *msg;
    } row[] = {
        {"", "the file has no tokens"},
        {"YQ==\n", "line 1 is not a token in base64 and a rank: \"YQ==\""},
        {"YQ== 0\nYQ= 1\n", "line 2 is not base64"},
        {"YQ== 0\nYg== 0\n", "line 2: rank 0 is there twice"},
        {"YQ== 0\nYQ== 1\n", "are the same bytes"},
        {"YQ== 0\nYg== 9999999\n", "line 2: rank 9999999 is too large for 3 lines"},
        {"YQ== 0\nYg== 1x\n", "line 2 is not a token in base64 and a rank"},
        {"YQ== 0\nYg== 5\n", "no token is the single byte 0x00"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        expect_error("x.tiktoken", row[i].text, strlen(row[i].text), row[i].msg);
}

/* A piece: field 1 of the model, with its text, no score, and a type. */
static void put_piece(fa_buf *b, const char *text, int type) {
    char head[] = {0x0A, (char)(strlen(text) + 4), 0x0A, (char)strlen(text)}, tail[] = {0x18, (char)type};
    fa_buf_add(b, head, 4);
    fa_buf_puts(b, text);
    fa_buf_add(b, tail, 2);
}

static void test_spm_errors(void **state) {
    (void)state;
    static const struct {
        const char *text[4];
        int type[4];
        const char *msg;
    } row[] = {
        {{"a"}, {1}, "no piece is the unknown piece"},
        {{"<unk>", "a", "a"}, {2, 1, 1}, "pieces[1] \"a\" is there twice"},
        {{"<unk>", "<un2>"}, {2, 2}, "pieces[1] \"<un2>\" is unknown as pieces[0] is"},
        {{"<unk>", "<0x41>"}, {2, 6}, "is a byte piece, but byte_fallback is off"},
        {{"<unk>", ""}, {2, 1}, "pieces[1] is empty"},
        {{"<unk>", "\xFF"}, {2, 1}, "pieces[1] is not UTF-8"},
        {{"<unk>", "a"}, {2, 9}, "pieces[1] has type 9"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        fa_buf b = {0};
        for (int k = 0; k < 4 && row[i].text[k]; k++) put_piece(&b, row[i].text[k], row[i].type[k]);
        expect_error("tokenizer.model", b.data, b.len, row[i].msg);
        fa_buf_free(&b);
    }
    fa_buf b = {0};
    put_piece(&b, "<unk>", 2);
    put_piece(&b, "a", 1);
    expect_error("tokenizer.model", b.data, b.len - 1, "not a SentencePiece model: the file is broken at byte 13");
    fa_buf_add(&b, "\x12\x02\x18\x07", 4);
    expect_error("tokenizer.model", b.data, b.len, "trainer_spec.model_type 0 is not supported");
    fa_buf_free(&b);
    expect_error("tokenizer.model", "hello", 5, "not a SentencePiece model");
    expect_error("tokenizer.model", "", 0, "not a SentencePiece model: it has no pieces");
    expect_error("tokenizer.model", "\x0A\xFF\xFF\xFF\xFF\x0F", 6, "the file is broken");
}

static void test_folder_errors(void **state) {
    (void)state;
    fa_tok *t;
    fa_error err;
    assert_int_not_equal(fa_tok_from_dir(&t, scratch_dir, &err), 0);
    assert_non_null(strstr(err.msg, "tokenizer.json: no such file, nor tekken.json, tokenizer.model"));
    put(scratch_dir, "merges.txt", "a b\n", 4);
    expect_error("vocab.json", "{\"a\":0,\"b\":-1}", 14, "token \"b\" has no usable id");
    expect_error("vocab.json", "[]", 2, "not an object with tokens");
    put(scratch_dir, "vocab.json", "{\"a\":0,\"b\":1}", 13);
    assert_int_not_equal(fa_tok_from_dir(&t, scratch_dir, &err), 0);
    assert_non_null(strstr(err.msg, "model.merges[0]: \"ab\" is not in the vocabulary"));
    drop(scratch_dir, "vocab.json");
    drop(scratch_dir, "merges.txt");
    expect_error("vocab.txt", "", 0, "the file has no tokens");
    put(scratch_dir, "vocab.txt", "a\n", 2);
    expect_error("tokenizer_config.json", "{", 1, "not closed");
    drop(scratch_dir, "vocab.txt");
}

/* CLIP: a letter that the vocabulary lacks at the end of a word is unk_token; without one it is left out. */
static void test_clip_unknown(void **state) {
    (void)state;
    static const struct {
        const char *config;
        int32_t id[3];
        size_t n;
    } row[] = {{"{\"tokenizer_class\":\"CLIPTokenizer\",\"unk_token\":\"<u>\"}", {2, 1, 0}, 3},
               {"{\"tokenizer_class\":\"CLIPTokenizer\",\"unk_token\":null}", {2, 0}, 2}};
    static const char vocab[] = "{\"a</w>\":0,\"<u>\":1,\"b\":2}";
    put(scratch_dir, "vocab.json", vocab, sizeof vocab - 1);
    put(scratch_dir, "merges.txt", "", 0);
    for (size_t i = 0; i < 2; i++) {
        fa_tok *t;
        fa_error err;
        int32_t *ids;
        size_t n;
        put(scratch_dir, "tokenizer_config.json", row[i].config, strlen(row[i].config));
        if (fa_tok_from_dir(&t, scratch_dir, &err)) fail_msg("%s", err.msg);
        assert_int_equal(fa_tok_encode(t, "bc a", 4, 0, &ids, &n, &err), 0);
        assert_int_equal(n, row[i].n);
        assert_memory_equal(ids, row[i].id, n * sizeof *ids);
        fa_free(ids);
        fa_tok_free(t);
    }
    drop(scratch_dir, "tokenizer_config.json");
    drop(scratch_dir, "vocab.json");
    drop(scratch_dir, "merges.txt");
}

/* ---- memory, time ---- */

static void test_no_memory(void **state) {
    (void)state;
    static const char text[] =
        "It\xCC\x81 isn't 42 [INST]<|im_start|> \xFF caf\xC3\xA9 "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (size_t k = 0; k < N_NAME; k++) {
        bool done = false;
        for (long at = 1; !done; at += at < 60 ? 1 : 1 + at / 8) {
            fa_tok *t;
            int32_t *ids = NULL;
            size_t n = 0;
            fa_buf out = {0};
            fa_alloc_fail_at(at);
            int rc = open_tok(&t, names[k], NULL);
            if (!rc) rc = fa_tok_encode(t, text, strlen(text), FA_TOK_SPECIAL, &ids, &n, NULL);
            if (!rc) rc = fa_tok_decode(t, ids, n, false, &out, NULL);
            done = fa_alloc_fail_left() > 0;
            fa_alloc_fail_at(0);
            if (done && rc) fail_msg("%s: %d", names[k], rc);
            fa_buf_free(&out);
            fa_free(ids);
            fa_tok_free(t);
            assert_true(at < 100000);
        }
    }
}

/* Degenerate texts take no more than linear time; the bound is 50 times what they need, for slow machines and
 * sanitizers. */
static void test_linear(void **state) {
    (void)state;
    static const char *const unit[] = {"a", " ", "ab", "1", "\xCC\x81\xCC\xA3", "\xE4\xB8\xAD", " a", "<", "\n"};
    enum { BYTES = 300000 };
    char *s = malloc(BYTES + 16);
    for (size_t k = 0; k < N_NAME; k++) {
        fa_tok *t;
        assert_int_equal(open_tok(&t, names[k], NULL), 0);
        for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
            size_t n = 0, len = strlen(unit[u]), n_ids;
            int32_t *ids;
            for (; n + len <= BYTES; n += len) memcpy(s + n, unit[u], len);
            double from = fa_now();
            assert_int_equal(fa_tok_encode(t, s, n, 0, &ids, &n_ids, NULL), 0);
            if (fa_now() - from > 5)
                fail_msg("%s: %zu bytes of \"%s\" took %.1f s", names[k], n, unit[u], fa_now() - from);
            fa_free(ids);
        }
        fa_tok_free(t);
    }
    free(s);
}

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(scratch_dir) ? 0 : -1;
}

static int drop_dir(void **state) {
    (void)state;
    return rmdir(scratch_dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),     cmocka_unit_test(test_special),      cmocka_unit_test(test_order),
        cmocka_unit_test(test_tekken_errors), cmocka_unit_test(test_rank_errors),  cmocka_unit_test(test_spm_errors),
        cmocka_unit_test(test_folder_errors), cmocka_unit_test(test_clip_unknown), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
