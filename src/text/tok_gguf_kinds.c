/* The kinds of tokenizers in GGUF files: "llama" (SentencePiece BPE: tokens with scores), "gpt2" (byte-level BPE:
 * tokens with merges, the pre-tokenizer by name), "gemma4" (merges over text with word signs), "bert" (WordPiece), "t5"
 * (SentencePiece Unigram), "rwkv" and "plamo2". */
#include "text/gguf_pre.h"
#include "text/tok_gguf.h"
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

static int no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

static int need_scores(const fa_tgguf *k, fa_error *err) {
    return k->scores ? FFAI_OK : fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.scores is missing", k->t->what);
}

/* ---- scores ---- */

/* Sort key of a token: smaller merges first. User-defined tokens come before all others, longer ones first. */
static uint32_t score_key(const fa_tok *t, uint64_t id, int type, float score) {
    if (type == FA_PIECE_USER_DEFINED) return t->name.span[id].len < 0xFFFF ? 0xFFFF - t->name.span[id].len : 0;
    return fa_tok_score_key(score);
}

/* Ranks the tokens that text may become. */
static int read_scores(fa_tok *t, const fa_gguf_value *scores, const fa_gguf_value *types, fa_error *err) {
    size_t n = t->name.n_id, k = 0;
    uint64_t *v = FA_NEWN(uint64_t, n * 2 + 1);
    if (!v) return no_memory(t, err);
    for (size_t i = 0; i < n; i++) {
        int type = fa_tgguf_type(types, i);
        if (type != FA_PIECE_NORMAL && type != FA_PIECE_USER_DEFINED) continue;
        v[k++] = (uint64_t)score_key(t, i, type, scores ? (float)fa_gguf_num_at(scores, i) : 0.0f) << 32 | i;
    }
    int rc = fa_tok_put_ranks(t, v, k, err);
    fa_free(v);
    return rc;
}

/* Word signs back to spaces, byte tokens to bytes, and the space of the prefix off the front. */
static int put_sign_decoder(fa_tok *t, bool prefix, fa_error *err) {
    int rc = fa_tok_put_decoder(t, FA_DEC_REPLACE, FA_WORD_SIGN, 3, " ", 1, 0, 0, err);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_BYTE_FALLBACK, NULL, 0, NULL, 0, 0, 0, err);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_FUSE, NULL, 0, NULL, 0, 0, 0, err);
    if (!rc && prefix) rc = fa_tok_put_decoder(t, FA_DEC_STRIP, " ", 1, NULL, 0, 1, 0, err);
    return rc;
}

int fa_tgguf_llama(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    bool prefix = fa_tgguf_flag(k->g, "tokenizer.ggml.add_space_prefix", true);
    t->bpe.by_score = t->bpe.byte_fallback = t->bpe.fuse_unk = true;
    t->bpe.unk = t->unk;
    t->bpe.word = &t->name;
    int rc = need_scores(k, err);
    if (!rc) rc = read_scores(t, k->scores, k->types, err);
    if (!rc && prefix) rc = fa_tok_put_prepend(t, FA_WORD_SIGN, 3, err);
    if (!rc) rc = fa_tok_put_replace(t, " ", 1, FA_WORD_SIGN, 3, err);
    return rc ? rc : put_sign_decoder(t, prefix, err);
}

static int load_merges(fa_tok *t, const fa_gguf *g, fa_error *err) {
    const fa_gguf_value *list;
    size_t pos = 0, len, i = 0;
    const char *s;
    void *m;
    int rc = fa_tgguf_array(&list, g, "tokenizer.ggml.merges", true, 0, t, err);
    if (rc) return rc;
    if (!list) return fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.merges is missing", t->what);
    rc = fa_tok_merges_begin(&m, t, (size_t)list->n, err);
    for (; !rc && fa_gguf_next_str(list, &pos, &s, &len); i++) rc = fa_tok_merge_text(m, s, len, i, err);
    return fa_tok_merges_end(m, rc, err);
}

/* Merges over text with word signs in place of spaces. */
int fa_tgguf_gemma4(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    t->bpe.byte_fallback = t->bpe.fuse_unk = true;
    t->bpe.unk = t->unk;
    int rc = fa_tok_put_replace(t, " ", 1, FA_WORD_SIGN, 3, err);
    if (!rc) rc = load_merges(t, k->g, err);
    if (!rc) rc = fa_tok_prepare_words(t, err);
    return rc ? rc : put_sign_decoder(t, false, err);
}

int fa_tgguf_gpt2(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    const fa_gguf_value *pre = fa_gguf_find(k->g, "tokenizer.ggml.pre");
    const char *name = pre && pre->type == FA_GGUF_STR ? (const char *)pre->data : "default";
    size_t n = pre && pre->type == FA_GGUF_STR ? (size_t)pre->n : strlen(name);
    const fa_gguf_pre *row = fa_gguf_find_pre(name, n);
    if (!row)
        return fa_fail(err, FFAI_ENOTSUP, "%s: tokenizer.ggml.pre \"%.*s\" is not supported", t->what,
                       (int)(n > 60 ? 60 : n), name);
    k->bos = row->bos;
    k->add_sep = row->sep;
    if (row->words == FA_GGUF_SIGNS) return fa_tgguf_gemma4(k, err);
    int rc = row->nfc ? fa_tok_put_unicode(t, true, false, err) : FFAI_OK;
    for (int i = 0; i < FA_GGUF_PATTERNS && !rc && row->pattern[i]; i++)
        rc = fa_tok_put_pattern(t, row->pattern[i], strlen(row->pattern[i]), FA_ISOLATED, false, err);
    if (!rc && row->words == FA_GGUF_PLAIN) rc = fa_tok_put_pattern(t, "\\s+", 3, FA_REMOVED, false, err);
    t->bpe.byte_level = row->words == FA_GGUF_BYTES;
    t->bpe.ignore_merges = row->ignore_merges;
    t->bpe.unk = t->bpe.byte_level ? -1 : t->unk;
    if (!rc) rc = load_merges(t, k->g, err);
    if (!rc) rc = fa_tok_prepare_words(t, err);
    if (rc || row->words == FA_GGUF_PLAIN) return rc;
    return fa_tok_put_decoder(t, FA_DEC_BYTE_LEVEL, NULL, 0, NULL, 0, 0, 0, err);
}

int fa_tgguf_bert(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    bool lower = fa_tgguf_flag(k->g, "tokenizer.ggml.normalizer.lowercase", true);
    bool strip = fa_tgguf_flag(k->g, "tokenizer.ggml.normalizer.strip_accents", lower);
    int rc = fa_tok_put_bert(t, true, true, strip, lower, err);
    if (!rc) rc = fa_tok_put_bert_words(t, err);
    if (!rc) rc = fa_wordpiece_build(t, "##", 2, 100, t->unk, err);
    return rc ? rc : fa_tok_put_decoder(t, FA_DEC_WORDPIECE, "##", 2, NULL, 0, 1, 0, err);
}

/* ---- Unigram ---- */

/* Copies scores and types out of the file; the caller frees both. */
static int copy_pieces(const fa_tgguf *k, double **score, uint8_t **type, fa_error *err) {
    size_t n = k->t->name.n_id;
    *score = FA_NEWN(double, n + 1);
    *type = FA_NEWN(uint8_t, n + 1);
    if (!*score || !*type) return no_memory(k->t, err);
    for (size_t i = 0; i < n; i++) {
        (*score)[i] = fa_gguf_num_at(k->scores, i);
        (*type)[i] = (uint8_t)fa_tgguf_type(k->types, i);
        if (!((*score)[i] > -1e30 && (*score)[i] < 1e30))
            return fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.scores[%zu] is %g", k->t->what, i, (*score)[i]);
    }
    return FFAI_OK;
}

static int read_charsmap(fa_tgguf *k, fa_error *err) {
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    const fa_gguf_value *v;
    fa_charsmap *map;
    int rc = fa_tgguf_array(&v, k->g, key, false, 0, k->t, err);
    if (rc || !v || !v->n) return rc;
    if (v->elem != FA_GGUF_U8 && v->elem != FA_GGUF_I8)
        return fa_fail(err, FFAI_EFORMAT, "%s: %s has the wrong type", k->t->what, key);
    rc = fa_charsmap_new(&map, v->data, (size_t)v->n, k->t->what, key, err);
    return rc ? rc : fa_tok_put_precompiled(k->t, map, err);
}

/* As the converted tokenizer.json of T5 and XLM-RoBERTa has it: words between white space, each with its sign. */
int fa_tgguf_t5(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    double *score = NULL;
    uint8_t *type = NULL;
    bool prefix = fa_tgguf_flag(k->g, "tokenizer.ggml.add_space_prefix", true);
    int rc = need_scores(k, err);
    if (!rc) rc = copy_pieces(k, &score, &type, err);
    if (!rc) rc = read_charsmap(k, err);
    if (!rc && fa_tgguf_flag(k->g, "tokenizer.ggml.remove_extra_whitespaces", true))
        rc = fa_tok_put_white_split(t, err);
    if (!rc) rc = fa_tok_put_metaspace(t, FA_WORD_SIGN, 3, prefix ? 2 : 0, true, err);
    for (size_t i = 0; i < t->name.n_id && !rc && t->unk < 0; i++)
        if (type[i] == FA_PIECE_UNKNOWN) t->unk = (int32_t)i;
    if (!rc) {
        fa_unigram_opts o = {.score = score, .unk = t->unk};
        rc = fa_unigram_build(t, &o, err);
    }
    fa_free(score);
    fa_free(type);
    return rc ? rc : fa_tok_put_decoder(t, FA_DEC_METASPACE, FA_WORD_SIGN, 3, NULL, 0, prefix, 0, err);
}

/* ---- RWKV, PLaMo 2 ---- */

int fa_tgguf_rwkv(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    int rc = fa_rwkv_build(t, t->unk, err);
    return rc ? rc : fa_tok_put_decoder(t, FA_DEC_BYTE_LEVEL, NULL, 0, NULL, 0, 0, 0, err);
}

int fa_tgguf_plamo2(fa_tgguf *k, fa_error *err) {
    fa_tok *t = k->t;
    double *score = NULL;
    uint8_t *type = NULL;
    int rc = need_scores(k, err);
    if (!rc) rc = copy_pieces(k, &score, &type, err);
    for (unsigned c = 0; c < 256 && !rc; c++) {
        char s[8];
        snprintf(s, sizeof s, "<0x%02X>", c);
        t->bpe.byte_token[c] = fa_strtab_find(&t->name, s, 6);
        if (t->bpe.byte_token[c] < 0)
            rc = fa_fail(err, FFAI_EFORMAT, "%s: tokenizer.ggml.tokens has no %s", t->what, s);
    }
    if (!rc) rc = fa_plamo_build(t, score, type, err);
    fa_free(score);
    fa_free(type);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_BYTE_FALLBACK, NULL, 0, NULL, 0, 0, 0, err);
    return rc ? rc : fa_tok_put_decoder(t, FA_DEC_FUSE, NULL, 0, NULL, 0, 0, 0, err);
}
