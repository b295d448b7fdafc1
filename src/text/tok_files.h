/* Loaders of the tokenizer files besides tokenizer.json, and what they share: vocabularies of byte strings with ranks
 * (tekken.json, tiktoken files), and what the small JSON files beside a vocabulary say. */
#ifndef FA_TEXT_TOK_FILES_H
#define FA_TEXT_TOK_FILES_H

#include "text/tok_steps.h"

/* What stands beside a vocabulary file; each may be NULL. */
typedef struct fa_tok_about {
    const char *file;        /* base name of the vocabulary file */
    const fa_jnode *model;   /* config.json */
    const fa_jnode *config;  /* tokenizer_config.json */
    const fa_jnode *special; /* special_tokens_map.json */
    const fa_jnode *added;   /* added_tokens.json */
} fa_tok_about;

/* The bytes of a whole file; nothing of them is kept. `what` names the source in messages. */
int fa_tok_from_tekken(fa_tok **out, const char *json, size_t len, const char *what, fa_error *err);
int fa_tok_from_ranks(fa_tok **out, const char *text, size_t len, const fa_tok_about *about, const char *what,
                      fa_error *err);
int fa_tok_from_spm(fa_tok **out, const char *data, size_t len, const fa_tok_about *about, const char *what,
                    fa_error *err);
/* vocab.json with merges.txt; vocab.txt. */
int fa_tok_from_vocab(fa_tok **out, const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                      const fa_tok_about *about, const char *what, fa_error *err);
int fa_tok_from_word_list(fa_tok **out, const char *text, size_t len, const fa_tok_about *about, const char *what,
                          fa_error *err);
/* The first line is base64, a blank and a number. */
bool fa_tok_is_rank_file(const char *text, size_t len);

/* ---- vocabularies of byte strings (tok_ranks.c) ---- */

/* Decodes s[0..n) into *b (emptied first); false when it is not base64 with padding. */
bool fa_base64(const char *s, size_t n, fa_buf *b);
/* The token of an id; an id that has one already is an error that names `where`. */
int fa_tok_put_bytes(fa_tok *t, uint32_t id, const fa_buf *bytes, const char *where, fa_buf *scratch, fa_error *err);
/* After the last one: merging as tiktoken does it, the lowest id first; equal tokens and missing single bytes are
 * errors. */
int fa_tok_ranks_done(fa_tok *t, fa_error *err);
/* The pattern cuts words as tiktoken does: what it does not match is dropped. */
int fa_tok_put_words(fa_tok *t, const char *pattern, size_t n, fa_error *err);
/* A special token behind or in front of the vocabulary. t->added has room. */
int fa_tok_put_special(fa_tok *t, const char *s, size_t n, int64_t id, fa_error *err);

/* ---- what the files beside say (tok_beside.c) ---- */

/* Added tokens of `about` and the named special tokens: before fa_tok_finish. Room for `extra` more tokens is made. */
int fa_tok_beside_added(fa_tok *t, const fa_tok_about *about, size_t extra, fa_error *err);
/* Names of BOS, EOS, PAD, UNK, and the ids around a text: add_bos_token, add_eos_token; `bos` and `eos` say what holds
 * where the files say nothing. */
int fa_tok_beside_wrap(fa_tok *t, const fa_tok_about *about, bool bos, bool eos, fa_error *err);

#endif
