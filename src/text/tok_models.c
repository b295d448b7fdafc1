/* Reads the models of tokenizer.json that are not BPE. */
#include "text/tok_steps_util.h"

static int bad(const fa_tok *t, const char *key, const char *want, fa_error *err) {
    return fa_fail(err, FFAI_EFORMAT, "%s: model.%s is not %s", t->what, key, want);
}

const char *fa_tok_model_type(const fa_jnode *model) {
    const char *type = fa_step_type(model);
    if (type) return type;
    /* files older than `type`: the first of these models that its members make */
    if (fa_jget(model, "merges")) return "BPE";
    if (fa_jtype_of(fa_jget(model, "vocab")) == FA_JARR) return "Unigram";
    return fa_jget(model, "max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

/* The id of model.unk_token; -1 when the vocabulary lacks it: then only unknown text is an error. */
static int read_unk(const fa_tok *t, const fa_jnode *model, const char *otherwise, int32_t *unk, fa_error *err) {
    const fa_jnode *v = fa_jget(model, "unk_token");
    size_t len = strlen(otherwise);
    const char *s = v ? fa_jstr(v, &len) : otherwise;
    if (!s) return bad(t, "unk_token", "a string", err);
    *unk = fa_strtab_find(&t->name, s, len);
    return FFAI_OK;
}

int fa_tok_read_wordpiece(fa_tok *t, const fa_jnode *model, fa_error *err) {
    const fa_jnode *p = fa_jget(model, "continuing_subword_prefix"), *m = fa_jget(model, "max_input_chars_per_word");
    size_t n_prefix = 2;
    const char *prefix = p ? fa_jstr(p, &n_prefix) : "##";
    int64_t max = m ? fa_jint(m, -1) : 100;
    int32_t unk = -1;
    if (!prefix) return bad(t, "continuing_subword_prefix", "a string", err);
    if (max < 0) return bad(t, "max_input_chars_per_word", "a length", err);
    int rc = read_unk(t, model, "[UNK]", &unk, err);
    return rc ? rc : fa_wordpiece_build(t, prefix, n_prefix, (size_t)max, unk, err);
}

int fa_tok_read_wordlevel(fa_tok *t, const fa_jnode *model, fa_error *err) {
    int32_t unk = -1;
    int rc = read_unk(t, model, "<unk>", &unk, err);
    return rc ? rc : fa_wordlevel_build(t, unk, err);
}

/* ---- Unigram ---- */

/* [["<unk>", 0.0], ...]: names by index, and their scores. */
static int read_pieces(fa_tok *t, const fa_jnode *vocab, double *score, fa_error *err) {
    uint32_t i = 0;
    for (const fa_jnode *v = fa_jfirst(vocab); v; v = fa_jnext(v), i++) {
        size_t len;
        const fa_jnode *second = fa_jnext(fa_jfirst(v));
        const char *s = fa_jstr(fa_jfirst(v), &len);
        fa_jtype type = fa_jtype_of(second);
        if (fa_jtype_of(v) != FA_JARR || !s || (type != FA_JINT && type != FA_JNUM) || fa_jnext(second))
            return fa_fail(err, FFAI_EFORMAT, "%s: model.vocab[%u] is not a token and its score", t->what, (unsigned)i);
        score[i] = fa_jnum(second, 0);
        if (!fa_strtab_set(&t->name, i, s, len)) return fa_step_no_memory(t, err);
    }
    return fa_strtab_index(&t->name, NULL) ? FFAI_OK : fa_step_no_memory(t, err);
}

int fa_tok_read_unigram(fa_tok *t, const fa_jnode *model, fa_error *err) {
    const fa_jnode *vocab = fa_jget(model, "vocab"), *u = fa_jget(model, "unk_id"),
                   *b = fa_jget(model, "byte_fallback");
    size_t n = fa_jlen(vocab);
    int64_t unk = fa_jint(u, -1);
    if (fa_jtype_of(vocab) != FA_JARR || !n || n >= INT32_MAX) return bad(t, "vocab", "an array with tokens", err);
    if (b && fa_jtype_of(b) != FA_JBOOL) return bad(t, "byte_fallback", "true or false", err);
    if (fa_jtype_of(u) != FA_JNULL && (unk < 0 || (uint64_t)unk >= n))
        return fa_fail(err, FFAI_EFORMAT, "%s: model.unk_id is not one of the %zu tokens of model.vocab", t->what, n);
    double *score = FA_NEWN(double, n);
    int rc = score ? read_pieces(t, vocab, score, err) : fa_step_no_memory(t, err);
    fa_unigram_opts o = {.score = score, .unk = (int32_t)unk, .byte_fallback = fa_jbool(b, false)};
    if (!rc) rc = fa_unigram_build(t, &o, err);
    fa_free(score);
    return rc;
}
