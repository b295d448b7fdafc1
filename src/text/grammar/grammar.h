/* Constrained output: what a model may write next, as bits over its vocabulary.
 *
 * A fa_vocab holds the bytes that each token adds to a text, sorted into a trie. A fa_gram is a grammar (GBNF, JSON
 * Schema or a regular expression) compiled to recursive automata over bytes, together with what was found out about the
 * vocabulary so far; several threads may use one. A fa_gram_run is one text that is being written. */
#ifndef FA_TEXT_GRAMMAR_H
#define FA_TEXT_GRAMMAR_H

#include "text/tok.h"

typedef struct fa_vocab fa_vocab;
typedef struct fa_gram fa_gram;
typedef struct fa_gram_run fa_gram_run;

/* A token of tests: its bytes; n 0: it can never be written. */
typedef struct fa_vocab_token {
    const char *s;
    size_t n;
} fa_vocab_token;

/* n_id: width of the masks, at least the tokenizer's size or less (ids behind it are left out). eos [n_eos]: ids that
 * end a text. t must outlive the vocabulary. */
int fa_vocab_new(fa_vocab **out, const fa_tok *t, size_t n_id, const int32_t *eos, size_t n_eos, fa_error *err);
/* The same from a list. */
int fa_vocab_from_list(fa_vocab **out, const fa_vocab_token *list, size_t n_id, const int32_t *eos, size_t n_eos,
                       fa_error *err);
void fa_vocab_free(fa_vocab *v);
static inline size_t fa_mask_words(size_t n_id) { return (n_id + 31) / 32; }

/* kind: "gbnf", "json-schema", "regex". Messages name line and column. v must outlive the grammar. */
int fa_gram_compile(fa_gram **out, const fa_vocab *v, const char *kind, const char *text, size_t len, fa_error *err);
/* Runs must have been freed. */
void fa_gram_free(fa_gram *g);
const fa_vocab *fa_gram_vocab(const fa_gram *g);

int fa_gram_run_new(fa_gram_run **out, fa_gram *g, fa_error *err);
void fa_gram_run_free(fa_gram_run *r);
/* The tokens that may come next, EOS among them when the text may end here: *bits [fa_mask_words(n_id)], valid until
 * the next call with this run. *n: how many, without EOS; 0 and not complete: the vocabulary has no way on. */
int fa_gram_mask(fa_gram_run *r, const uint32_t **bits, size_t *n, fa_error *err);
/* The token was written. One that the grammar does not allow is an error, the run stays as it was. */
int fa_gram_accept(fa_gram_run *r, int32_t id, fa_error *err);
/* The text so far is a whole sentence of the grammar. */
bool fa_gram_complete(const fa_gram_run *r);
/* And nothing may follow. */
bool fa_gram_ended(const fa_gram_run *r);

#endif
