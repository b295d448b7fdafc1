/* SentencePiece models in a repository whose tokenizer_config.json names a class: the tokenizer that transformers
 * builds from the pieces. It differs from SentencePiece in how it normalizes (the charsmap by graphemes), where the
 * word sign goes, which tokens it cuts out of the text, and for some in the ids. */
#include "text/tok_spm.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

#define WORD_SIGN "\xE2\x96\x81"

enum { LLAMA, INTERN, GEMMA, T5, XLMR }; /* INTERN: a word sign in front of every text, also one that has it */

static const struct class_row {
    const char *classes; /* without Tokenizer or Fast, between blanks */
    int how, unk;        /* unk: the id that unknown text has; -1: unk_token's */
    const char *special; /* where the files name none */
} rows[] = {
    {"Llama CodeLlama Phi3", LLAMA, -1, "<unk> <s> </s>"},  {"InternLM2", INTERN, -1, "<unk> <s> </s>"},
    {"Gemma", GEMMA, -1, "<unk> <bos> <eos> <pad> <mask>"}, {"T5 MT5 UMT5", T5, 2, "</s> <unk> <pad>"},
    {"XLMRoberta", XLMR, 3, "<s> </s> <unk> <pad> <mask>"},
};

static const struct class_row *find_class(const fa_tok_about *about) {
    const char *name = about ? fa_jstr(fa_jget(about->config, "tokenizer_class"), NULL) : NULL;
    for (size_t i = 0; name && i < sizeof rows / sizeof *rows; i++)
        for (const char *p = rows[i].classes; *p;) {
            size_t k = strcspn(p, " ");
            if (strncmp(p, name, k) == 0 && (strcmp(name + k, "Tokenizer") == 0 || !strcmp(name + k, "TokenizerFast")))
                return &rows[i];
            p += k + (p[k] == ' ');
        }
    return NULL;
}

bool fa_spm_hf_known(const fa_tok_about *about) { return find_class(about) != NULL; }

static int no_memory(const fa_spm_model *m, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", m->t->what);
}

/* ---- BPE ---- */

/* Merges are all ways to cut a piece in two pieces: by the piece's id, then by the length of the first part. Counts
 * them; with `to`, the pieces that they make, also puts them (SIZE_MAX: the table cannot). */
static size_t walk_merges(fa_tok *t, uint32_t *to) {
    size_t n = 0;
    for (size_t i = 0; i < t->name.n_id; i++) {
        const char *s = t->name.pool + t->name.span[i].off;
        size_t len = t->name.span[i].len;
        for (size_t k = len ? fa_utf8_char_len(s) : 0; k < len; k += fa_utf8_char_len(s + k)) {
            int32_t a = fa_strtab_find(&t->name, s, k), b = fa_strtab_find(&t->name, s + k, len - k);
            if (a < 0 || b < 0) continue;
            if (to && !fa_bpe_put_pair(&t->bpe, (uint32_t)a, (uint32_t)b, (uint32_t)n)) return SIZE_MAX;
            if (to) to[n] = (uint32_t)i;
            n++;
        }
    }
    return n;
}

static int put_sign_decoder(fa_tok *t, bool prefix, fa_error *err) {
    int rc = fa_tok_put_decoder(t, FA_DEC_REPLACE, WORD_SIGN, 3, " ", 1, 0, 0, err);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_BYTE_FALLBACK, NULL, 0, NULL, 0, 0, 0, err);
    if (!rc) rc = fa_tok_put_decoder(t, FA_DEC_FUSE, NULL, 0, NULL, 0, 0, 0, err);
    if (!rc && prefix) rc = fa_tok_put_decoder(t, FA_DEC_STRIP, " ", 1, NULL, 0, 1, 0, err);
    return rc;
}

/* Word signs for blanks, and in front of the text. */
static int put_signs(fa_tok *t, int how, bool prefix, bool legacy, fa_error *err) {
    if (how == LLAMA) return fa_tok_put_metaspace(t, WORD_SIGN, 3, !prefix ? 0 : legacy ? 2 : 1, false, err);
    int rc = how == INTERN && prefix ? fa_tok_put_prepend(t, WORD_SIGN, 3, err) : 0;
    return rc ? rc : fa_tok_put_replace(t, " ", 1, WORD_SIGN, 3, err);
}

static int build_bpe(fa_spm_model *m, const struct class_row *row, const fa_tok_about *about, fa_error *err) {
    fa_tok *t = m->t;
    bool prefix = row->how != GEMMA && fa_jbool(fa_jget(about->config, "add_prefix_space"), true);
    size_t n = walk_merges(t, NULL);
    uint32_t *to = n < UINT32_MAX ? FA_NEWN(uint32_t, n + 1) : NULL;
    if (!to || !fa_bpe_reserve_pairs(&t->bpe, n, to)) {
        fa_free(to);
        return no_memory(m, err);
    }
    if (walk_merges(t, to) != n)
        return fa_fail(err, FFAI_ELIMIT, "%s: %zu pieces with %zu merges are too many", t->what, t->name.n_id, n);
    t->bpe.byte_fallback = t->bpe.fuse_unk = true;
    t->bpe.unk = row->how == GEMMA ? m->unk : -1;
    int rc = put_signs(t, row->how, prefix, fa_jbool(fa_jget(about->config, "legacy"), false), err);
    if (!rc) rc = fa_tok_prepare_words(t, err);
    return rc ? rc : put_sign_decoder(t, prefix, err);
}

/* ---- Unigram ---- */

static int build_unigram(fa_spm_model *m, const struct class_row *row, const fa_tok_about *about, fa_error *err) {
    fa_tok *t = m->t;
    bool prefix = row->how == T5 || fa_jbool(fa_jget(about->config, "add_prefix_space"), true);
    double *score = FA_NEWN(double, t->name.n_id + 1);
    if (!score) return no_memory(m, err);
    for (size_t i = 0; i < m->n; i++) score[i] = (double)m->score[i];
    fa_unigram_opts o = {.score = score, .unk = row->unk};
    int rc = fa_strtab_has(&t->name, row->unk)
                 ? fa_unigram_build(t, &o, err)
                 : fa_fail(err, FFAI_EFORMAT, "%s: %zu pieces are too few for this class", t->what, m->n);
    fa_free(score);
    if (!rc && m->spm->norm.map) {
        rc = fa_tok_put_precompiled(t, m->spm->norm.map, err);
        m->spm->norm.map = NULL; /* taken */
    }
    if (!rc) rc = fa_tok_put_white_split(t, err);
    if (!rc) rc = fa_tok_put_metaspace(t, WORD_SIGN, 3, prefix ? 2 : 0, true, err);
    return rc ? rc : fa_tok_put_decoder(t, FA_DEC_METASPACE, WORD_SIGN, 3, NULL, 0, prefix, 0, err);
}

/* XLM-RoBERTa: four tokens of its own, the pieces from the fourth on, and <mask>. */
static int renumber(fa_spm_model *m, fa_error *err) {
    static const char *const front[] = {"<s>", "<pad>", "</s>", "<unk>"};
    fa_strtab to = {0}, *from = &m->t->name;
    size_t n = m->n > 3 ? m->n - 3 + 4 : 4, i;
    float *score = FA_NEWN(float, n + 1);
    uint8_t *type = FA_NEWN(uint8_t, n + 1);
    bool ok = score && type;
    for (i = 0; i < 4 && ok; i++) ok = fa_strtab_set(&to, (uint32_t)i, front[i], strlen(front[i]));
    for (; i < n && ok; i++) {
        ok = fa_strtab_set(&to, (uint32_t)i, from->pool + from->span[i - 1].off, from->span[i - 1].len);
        score[i] = m->score[i - 1];
        type[i] = m->spm->type[i - 1];
    }
    ok = ok && fa_strtab_set(&to, (uint32_t)n, "<mask>", 6);
    if (!ok) {
        fa_free(score);
        fa_free(type);
        fa_strtab_free(&to);
        return no_memory(m, err);
    }
    fa_strtab_free(from);
    *from = to;
    fa_free(m->score);
    fa_free(m->spm->type);
    m->score = score;
    m->spm->type = type;
    m->n = n + 1;
    return FFAI_OK;
}

/* ---- tokens that are cut out ---- */

static int add(fa_tok *t, const char *s, size_t n, int64_t id, bool special, fa_error *err) {
    int32_t have = fa_strtab_find(&t->name, s, n);
    fa_added a = {.text = (char *)s, .len = n, .id = have >= 0 ? have : (int32_t)id, .special = special};
    return fa_tok_add(t, &a, err);
}

static int add_pieces(fa_spm_model *m, fa_error *err) {
    fa_tok *t = m->t;
    int rc = FFAI_OK;
    for (size_t i = 0; i < m->n && !rc; i++) {
        int type = m->spm->type[i];
        if (type != FA_PIECE_CONTROL && type != FA_PIECE_USER_DEFINED) continue;
        fa_buf copy = {0}; /* the pool that the text lies in may move */
        fa_buf_add(&copy, t->name.pool + t->name.span[i].off, t->name.span[i].len);
        rc = copy.failed ? no_memory(m, err) : add(t, copy.data, copy.len, (int64_t)i, type == FA_PIECE_CONTROL, err);
        fa_buf_free(&copy);
    }
    return rc;
}

/* The class's own special tokens; one that the vocabulary lacks comes behind it. */
static int add_named(fa_tok *t, const struct class_row *row, const fa_tok_about *about, fa_error *err) {
    static const char *const key[] = {"unk_token", "bos_token", "eos_token", "pad_token", "mask_token"};
    bool named = false;
    int rc = FFAI_OK;
    for (size_t i = 0; i < sizeof key / sizeof *key; i++) named |= fa_jget(about->config, key[i]) != NULL;
    for (const char *p = row->special; *p && !rc;) {
        size_t n = strcspn(p, " ");
        bool there = fa_strtab_find(&t->name, p, n) >= 0;
        if (there || !named) rc = add(t, p, n, (int64_t)t->name.n_id, true, err);
        p += n + (p[n] == ' ');
    }
    return rc;
}

static int64_t count_extra(const struct class_row *row, const fa_tok_about *about) {
    int64_t n = row->how == T5 ? fa_jint(fa_jget(about->config, "extra_ids"), 100) : 0;
    return n > 0 && n < 10000 ? n : 0;
}

static int add_all(fa_spm_model *m, const struct class_row *row, const fa_tok_about *about, fa_error *err) {
    int64_t extra = count_extra(row, about);
    int rc = fa_tok_beside_added(m->t, about, m->n + (size_t)extra + 8, err);
    if (!rc) rc = add_pieces(m, err);
    for (int64_t i = extra; i-- > 0 && !rc;) {
        char name[32];
        int n = snprintf(name, sizeof name, "<extra_id_%d>", (int)i);
        rc = add(m->t, name, (size_t)n, (int64_t)m->t->name.n_id, true, err);
    }
    return rc ? rc : add_named(m->t, row, about, err);
}

/* ---- the whole ---- */

static int32_t piece(const fa_tok *t, const char *s) { return fa_tok_id(t, s, strlen(s)); }

int fa_spm_hf_build(fa_spm_model *m, const fa_tok_about *about, fa_error *err) {
    const struct class_row *row = find_class(about);
    fa_tok *t = m->t;
    int rc = row->how == XLMR ? renumber(m, err) : FFAI_OK;
    if (!rc && !fa_strtab_index(&t->name, NULL)) rc = no_memory(m, err);
    if (rc) return rc;
    m->unk = -1;
    for (size_t i = 0; i < m->n; i++)
        if (m->spm->type[i] == FA_PIECE_UNKNOWN) m->unk = (int32_t)i;
    rc = row->how <= GEMMA ? build_bpe(m, row, about, err) : build_unigram(m, row, about, err);
    if (!rc) rc = add_all(m, row, about, err);
    if (rc) return rc;
    t->bos = piece(t, row->how == GEMMA ? "<bos>" : "<s>");
    t->eos = piece(t, row->how == GEMMA ? "<eos>" : "</s>");
    t->pad = piece(t, "<pad>");
    t->unk = piece(t, "<unk>");
    rc = fa_tok_beside_wrap(t, about, row->how == XLMR, row->how == T5 || row->how == XLMR, err);
    return rc ? rc : fa_tok_finish(t, err);
}
