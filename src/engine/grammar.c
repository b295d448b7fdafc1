/* Grammars of a model's output: the public side of text/grammar, and what requests ask of it. */
#include "engine/grammar.h"
#include "base/alloc.h"

struct ffai_grammar {
    ffai_model *m;
    fa_gram *g;
};

/* The vocabulary as a trie, made for the first grammar of a model. */
static const fa_vocab *vocab_of(ffai_model *m, fa_error *err) {
    const fa_tok *tok = fa_model_tok(m, err);
    if (!tok) return NULL;
    size_t n = m->dims.vocab > 0 ? (size_t)m->dims.vocab : fa_tok_size(tok);
    pthread_mutex_lock(&m->tok_lock);
    if (!m->vocab) fa_vocab_new(&m->vocab, tok, n, m->eos, (size_t)m->n_eos, err);
    pthread_mutex_unlock(&m->tok_lock);
    return m->vocab;
}

int ffai_grammar_compile(ffai_grammar **out, ffai_model *m, const char *kind, const char *text, size_t len,
                         ffai_error *err) {
    fa_error e = {0};
    *out = NULL;
    const fa_vocab *v = vocab_of(m, &e);
    if (!v) {
        if (err) *err = e;
        return e.code;
    }
    ffai_grammar *g = FA_NEW(ffai_grammar);
    if (!g) return fa_fail(err, FFAI_ENOMEM, "grammar: no memory");
    g->m = m;
    int rc = fa_gram_compile(&g->g, v, kind, text, len, err);
    if (rc)
        fa_free(g);
    else
        *out = g;
    return rc;
}

void ffai_grammar_free(ffai_grammar *g) {
    if (!g) return;
    fa_gram_free(g->g);
    fa_free(g);
}

int fa_constraint_new(fa_gram_run **out, const ffai_grammar *g, const ffai_model *m, fa_error *err) {
    *out = NULL;
    if (g->m != m) return fa_fail(err, FFAI_EINVAL, "grammar: it was compiled for another model");
    return fa_gram_run_new(out, g->g, err);
}

int fa_constraint_mask(fa_gram_run *r, const ffai_model *m, bool ignore_eos, uint32_t *bits, fa_error *err) {
    const uint32_t *mask;
    size_t n, words = fa_mask_words((size_t)m->dims.vocab);
    int rc = fa_gram_mask(r, &mask, &n, err);
    if (rc) return rc;
    if (!n && fa_gram_complete(r)) return 1;
    if (!n) return fa_fail(err, FFAI_EINVAL, "grammar: the vocabulary has no token that could go on here");
    for (size_t i = 0; i < words; i++) bits[i] &= mask[i];
    for (int i = 0; ignore_eos && i < m->n_eos; i++)
        if (m->eos[i] >= 0 && m->eos[i] < m->dims.vocab) bits[m->eos[i] / 32] &= ~(UINT32_C(1) << (m->eos[i] % 32));
    return 0;
}
