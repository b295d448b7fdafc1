/* Loads the tokenizer of a GGUF file from its tokenizer.ggml.* metadata: "llama" (SentencePiece BPE: tokens with
 * scores) and "gpt2" (byte-level BPE: tokens with merges, the pre-tokenizer by name). The result gives the same ids as
 * the tokenizer.json the file was converted from. */
#include "text/tok_steps.h"
#include "base/alloc.h"

#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 }; /* tokenizer.ggml.token_type */

#define WORD_SIGN "\xE2\x96\x81"

static int no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

/* ---- pre-tokenizers by name ---- */

#define GPT2      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TAIL      "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SHORTENED "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA3    SHORTENED "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL
#define QWEN2     SHORTENED "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL
#define UPPER     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER     "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define FRONT     "[^\\r\\n\\p{L}\\p{N}]?"
#define TAIL_O    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K     FRONT UPPER "*" LOWER "+" SHORTENED "?|" FRONT UPPER "+" LOWER "*" SHORTENED "?|\\p{N}{1,3}" TAIL_O
#define TEKKEN    FRONT UPPER "*" LOWER "+|" FRONT UPPER "+" LOWER "*|\\p{N}" TAIL_O
#define DEEPSEEK3                                                                                                      \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "                \
    "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|"                                                                 \
    "\\s+"
#define POEM          " ?[^(\\s|.,!?\xE2\x80\xA6\xE3\x80\x82\xEF\xBC\x8C\xE3\x80\x81\xE0\xA5\xA4\xDB\x94\xD8\x8C)]+"
#define DEFAULT_PUNCT "[\\p{P}\\$\\+<=>\\^~\\|]+"
#define FALCON_PUNCT  "[\\p{P}\\$\\+<=>\\^~\\|`]+"

/* The patterns split in this order, each isolating its matches. */
static const struct pre_row {
    const char *names; /* separated by spaces */
    const char *pattern[4];
    bool ignore_merges, bos, nfc; /* bos: added unless the file says otherwise */
} pre_row[] = {
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais trillion "
     "granite-docling",
     {GPT2},
     0,
     0,
     0},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", {LLAMA3}, 1, 1, 0},
    {"dbrx smaug-bpe chatglm-bpe glm4", {LLAMA3}, 0, 0, 0},
    {"qwen2 deepseek-r1-qwen kormo stablelm2 hunyuan megrez", {QWEN2}, 0, 0, 1},
    {"gpt-4o llama4 kanana2", {O200K}, 1, 0, 0},
    {"tekken", {TEKKEN}, 1, 1, 0},
    {"deepseek-v3 hunyuan-dense joyai-llm",
     {"\\p{N}{1,3}", "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+", DEEPSEEK3},
     0,
     0,
     0},
    {"deepseek-coder",
     {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
      "[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+"},
     0,
     0,
     0},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b granite bailingmoe", {"\\p{N}", GPT2}, 0, 0, 0},
    {"falcon", {FALCON_PUNCT, GPT2, "[0-9][0-9][0-9]"}, 0, 0, 0},
    {"default", {DEFAULT_PUNCT, GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, 0, 0, 0},
    {"poro-chat bloom gpt3-finnish", {POEM}, 0, 0, 0},
    {"viking", {POEM, "\\p{N}"}, 0, 0, 0},
};

static bool listed(const char *names, const char *name, size_t n) {
    for (const char *p = names; *p;) {
        size_t k = strcspn(p, " ");
        if (k == n && memcmp(p, name, n) == 0) return true;
        p += k + (p[k] == ' ');
    }
    return false;
}

static const struct pre_row *find_pre(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof pre_row / sizeof *pre_row; i++)
        if (listed(pre_row[i].names, name, n)) return &pre_row[i];
    return NULL;
}

/* ---- metadata ---- */

static int find_array(const fa_gguf_value **out, const fa_gguf *g, const char *key, bool text, uint64_t n,
                      const fa_tok *t, fa_error *err) {
    const fa_gguf_value *v = *out = fa_gguf_find(g, key);
    if (!v) return FFAI_OK;
    bool is_text = v->elem == FA_GGUF_STR;
    if (v->type != FA_GGUF_ARR || is_text != text || v->elem == FA_GGUF_ARR)
        return fa_fail(err, FFAI_EFORMAT, "%s: %s has the wrong type", t->what, key);
    if (n && v->n != n)
        return fa_fail(err, FFAI_EFORMAT, "%s: %s has %llu entries for %llu tokens", t->what, key,
                       (unsigned long long)v->n, (unsigned long long)n);
    return FFAI_OK;
}

static bool flag(const fa_gguf *g, const char *key, bool otherwise) {
    const fa_gguf_value *v = fa_gguf_find(g, key);
    return v && v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR ? v->i != 0 : otherwise;
}

/* An id of the vocabulary, or -1 (absent). */
static int read_id(int32_t *id, const fa_gguf *g, const char *key, const fa_tok *t, fa_error *err) {
    const fa_gguf_value *v = fa_gguf_find(g, key);
    *id = -1;
    if (!v) return FFAI_OK;
    if (v->type == FA_GGUF_STR || v->type == FA_GGUF_ARR)
        return fa_fail(err, FFAI_EFORMAT, "%s: %s has the wrong type", t->what, key);
    if (v->i == -1 || v->i == UINT32_MAX) return FFAI_OK;
    if (!fa_strtab_has(&t->name, v->i))
        return fa_fail(err, FFAI_EFORMAT, "%s: %s is %lld, the vocabulary has %zu tokens", t->what, key,
                       (long long)v->i, t->name.n_id);
    *id = (int32_t)v->i;
    return FFAI_OK;
}

/* ---- tokens ---- */

/* 0 for what is no type. */
static int type_at(const fa_gguf_value *types, uint64_t i) {
    double v = types ? fa_gguf_num_at(types, i) : NORMAL;
    return v >= NORMAL && v <= BYTE ? (int)v : 0;
}

/* Converters write the spaces of user-defined SentencePiece tokens as spaces. Runs of spaces are pieces like others in
 * the original: the word sign again. */
static bool space_run(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ') return false;
    return n > 0;
}

static bool set_name(fa_tok *t, uint32_t id, const char *s, size_t n, bool spaces, fa_buf *b) {
    b->len = 0;
    if (spaces)
        for (size_t i = 0; i < n; i++) fa_buf_puts(b, WORD_SIGN);
    else
        fa_tok_repair(b, s, n);
    return !b->failed && fa_strtab_set(&t->name, id, b->data ? b->data : "", b->len);
}

static int read_tokens(fa_tok *t, const fa_gguf_value *tokens, const fa_gguf_value *types, bool spm, fa_error *err) {
    size_t pos = 0, len;
    const char *s;
    fa_buf b = {0};
    uint8_t *keep = FA_NEWN(uint8_t, tokens->n);
    bool ok = keep != NULL;
    for (uint64_t i = 0; ok && i < tokens->n && fa_gguf_next_str(tokens, &pos, &s, &len); i++) {
        int type = type_at(types, i);
        keep[i] = type == NORMAL || type == USER_DEFINED || type == BYTE;
        ok = set_name(t, (uint32_t)i, s, len, spm && type == USER_DEFINED && space_run(s, len), &b);
    }
    ok = ok && fa_strtab_index(&t->name, keep);
    fa_free(keep);
    fa_buf_free(&b);
    return ok ? FFAI_OK : no_memory(t, err);
}

/* Control, unknown and user-defined tokens are cut out of the text first. */
static int read_added(fa_tok *t, const fa_gguf_value *types, fa_error *err) {
    size_t n = 0;
    for (uint64_t i = 0; types && i < types->n; i++) {
        int type = type_at(types, i);
        n += type == CONTROL || type == UNKNOWN || type == USER_DEFINED;
    }
    if (!n) return FFAI_OK;
    t->added = FA_NEWN(fa_added, n);
    if (!t->added || !fa_smap_reserve(&t->added_id, n)) return no_memory(t, err);
    for (uint64_t i = 0; i < types->n; i++) {
        int type = type_at(types, i);
        if (type != CONTROL && type != UNKNOWN && type != USER_DEFINED) continue;
        fa_added a = {.id = (int32_t)i, .special = type != USER_DEFINED, .len = t->name.span[i].len};
        fa_buf copy = {0}; /* the pool that the text lies in may move */
        fa_buf_add(&copy, t->name.pool + t->name.span[i].off, a.len);
        a.text = copy.data;
        int rc = copy.failed ? no_memory(t, err) : fa_tok_add(t, &a, err);
        fa_buf_free(&copy);
        if (rc) return rc;
    }
    return FFAI_OK;
}

/* ---- scores ---- */

/* Sort key of a token: smaller merges first. User-defined tokens come before all others, longer ones first. */
static uint32_t score_key(const fa_tok *t, uint64_t id, int type, float score) {
    if (type == USER_DEFINED) return t->name.span[id].len < 0xFFFF ? 0xFFFF - t->name.span[id].len : 0;
    return fa_tok_score_key(score);
}

/* Ranks the tokens that text may become. */
static int read_scores(fa_tok *t, const fa_gguf_value *scores, const fa_gguf_value *types, fa_error *err) {
    size_t n = t->name.n_id, k = 0;
    uint64_t *v = FA_NEWN(uint64_t, n * 2 + 1);
    if (!v) return no_memory(t, err);
    for (size_t i = 0; i < n; i++) {
        int type = type_at(types, i);
        if (type != NORMAL && type != USER_DEFINED) continue;
        v[k++] = (uint64_t)score_key(t, i, type, scores ? (float)fa_gguf_num_at(scores, i) : 0.0f) << 32 | i;
    }
    int rc = fa_tok_put_ranks(t, v, k, err);
    fa_free(v);
    return rc;
}

/* ---- the two kinds ---- */

static int load_spm(fa_tok *t, const fa_gguf *g, const fa_gguf_value *types, fa_error *err) {
    const fa_gguf_value *scores;
    bool prefix = flag(g, "tokenizer.ggml.add_space_prefix", true);
    t->bpe.by_score = t->bpe.byte_fallback = t->bpe.fuse_unk = true;
    t->bpe.unk = t->unk;
    t->bpe.word = &t->name;
    int rc = find_array(&scores, g, "tokenizer.ggml.scores", false, t->name.n_id, t, err);
    if (!rc && !scores) rc = fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.scores is missing", t->what);
    if (!rc) rc = read_scores(t, scores, types, err);
    if (!rc && prefix) rc = fa_tok_put_prepend(t, WORD_SIGN, 3, err);
    if (!rc) rc = fa_tok_put_replace(t, " ", 1, WORD_SIGN, 3, err);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_REPLACE, WORD_SIGN, 3, " ", 1, 0, 0, err);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_BYTE_FALLBACK, NULL, 0, NULL, 0, 0, 0, err);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_FUSE, NULL, 0, NULL, 0, 0, 0, err);
    if (!rc && prefix) rc = fa_tok_put_decoder(t, FA_DEC_STRIP, " ", 1, NULL, 0, 1, 0, err);
    return rc;
}

static int load_merges(fa_tok *t, const fa_gguf *g, fa_error *err) {
    const fa_gguf_value *list;
    size_t pos = 0, len, i = 0;
    const char *s;
    void *m;
    int rc = find_array(&list, g, "tokenizer.ggml.merges", true, 0, t, err);
    if (rc) return rc;
    if (!list) return fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.merges is missing", t->what);
    rc = fa_tok_merges_begin(&m, t, (size_t)list->n, err);
    for (; !rc && fa_gguf_next_str(list, &pos, &s, &len); i++) rc = fa_tok_merge_text(m, s, len, i, err);
    return fa_tok_merges_end(m, rc, err);
}

static int load_gpt2(fa_tok *t, const fa_gguf *g, bool *bos, fa_error *err) {
    const fa_gguf_value *pre = fa_gguf_find(g, "tokenizer.ggml.pre");
    const char *name = pre && pre->type == FA_GGUF_STR ? (const char *)pre->data : "default";
    size_t n = pre && pre->type == FA_GGUF_STR ? (size_t)pre->n : strlen(name);
    const struct pre_row *row = find_pre(name, n);
    if (!row)
        return fa_fail(err, FFAI_ENOTSUP, "%s: tokenizer.ggml.pre \"%.*s\" is not supported", t->what,
                       (int)(n > 60 ? 60 : n), name);
    int rc = row->nfc ? fa_tok_put_unicode(t, true, false, err) : FFAI_OK;
    for (int i = 0; i < 4 && !rc && row->pattern[i]; i++)
        rc = fa_tok_put_pattern(t, row->pattern[i], strlen(row->pattern[i]), FA_ISOLATED, false, err);
    t->bpe.byte_level = true;
    t->bpe.ignore_merges = row->ignore_merges;
    *bos = row->bos;
    if (!rc) rc = load_merges(t, g, err);
    if (!rc) rc = fa_tok_prepare_words(t, err);
    return rc ? rc : fa_tok_put_decoder(t, FA_DEC_BYTE_LEVEL, NULL, 0, NULL, 0, 0, 0, err);
}

static int load(fa_tok *t, const fa_gguf *g, fa_error *err) {
    const fa_gguf_value *model = fa_gguf_find(g, "tokenizer.ggml.model"), *tokens, *types;
    if (!model || model->type != FA_GGUF_STR)
        return fa_fail(err, FFAI_EFORMAT, "%s: the file has no tokenizer (tokenizer.ggml.model)", t->what);
    bool spm = model->n == 5 && memcmp(model->data, "llama", 5) == 0, bos = spm;
    if (!spm && !(model->n == 4 && memcmp(model->data, "gpt2", 4) == 0))
        return fa_fail(err, FFAI_ENOTSUP, "%s: tokenizer.ggml.model \"%.*s\" is not supported (llama and gpt2 are)",
                       t->what, (int)(model->n > 60 ? 60 : model->n), (const char *)model->data);
    int rc = find_array(&tokens, g, "tokenizer.ggml.tokens", true, 0, t, err);
    if (!rc && (!tokens || !tokens->n || tokens->n > INT32_MAX))
        rc = fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.tokens is missing or empty", t->what);
    if (!rc) rc = find_array(&types, g, "tokenizer.ggml.token_type", false, tokens->n, t, err);
    if (!rc) rc = read_tokens(t, tokens, types, spm, err);
    if (!rc) rc = read_id(&t->bos, g, "tokenizer.ggml.bos_token_id", t, err);
    if (!rc) rc = read_id(&t->eos, g, "tokenizer.ggml.eos_token_id", t, err);
    if (!rc) rc = read_id(&t->pad, g, "tokenizer.ggml.padding_token_id", t, err);
    if (!rc) rc = read_id(&t->unk, g, "tokenizer.ggml.unknown_token_id", t, err);
    if (!rc) rc = spm ? load_spm(t, g, types, err) : load_gpt2(t, g, &bos, err);
    if (!rc) rc = read_added(t, types, err);
    if (rc) return rc;
    bos = flag(g, "tokenizer.ggml.add_bos_token", bos) && t->bos >= 0;
    bool eos = flag(g, "tokenizer.ggml.add_eos_token", false) && t->eos >= 0;
    rc = fa_tok_wrap(t, &t->bos, bos, &t->eos, eos, err);
    return rc ? rc : fa_tok_finish(t, err);
}

int fa_tok_from_gguf(fa_tok **out, const fa_gguf *g, fa_error *err) {
    *out = NULL;
    fa_tok *t = fa_tok_alloc("GGUF metadata");
    int rc = t ? load(t, g, err) : fa_fail(err, FFAI_ENOMEM, "GGUF metadata: no memory for the tokenizer");
    if (rc)
        fa_tok_free(t);
    else
        *out = t;
    return rc;
}
