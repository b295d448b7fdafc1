/* What tok_gguf.c (metadata, tokens) and tok_gguf_kinds.c (one loader for each tokenizer.ggml.model) share. */
#ifndef FA_TEXT_TOK_GGUF_H
#define FA_TEXT_TOK_GGUF_H

#include "text/tok_steps.h"

#define FA_WORD_SIGN "\xE2\x96\x81"

typedef struct fa_tgguf {
    fa_tok *t;
    const fa_gguf *g;
    const fa_gguf_value *tokens, *types, *scores; /* types, scores: NULL when the file has none */
    int32_t sep, cls;                             /* ids; -1 none */
    bool bos, eos, add_sep;                       /* put around a text unless the file says otherwise */
} fa_tgguf;

/* A tokenizer.ggml.* array of strings or numbers with n entries (0: any); *out is NULL when it is not there. */
int fa_tgguf_array(const fa_gguf_value **out, const fa_gguf *g, const char *key, bool text, uint64_t n, const fa_tok *t,
                   fa_error *err);
bool fa_tgguf_flag(const fa_gguf *g, const char *key, bool otherwise);
/* fa_piece_type of token i, 0 for what is no type. */
int fa_tgguf_type(const fa_gguf_value *types, uint64_t i);

/* The loaders: fill the model and the pipeline of k->t. */
int fa_tgguf_llama(fa_tgguf *k, fa_error *err);
int fa_tgguf_gpt2(fa_tgguf *k, fa_error *err);
int fa_tgguf_gemma4(fa_tgguf *k, fa_error *err);
int fa_tgguf_bert(fa_tgguf *k, fa_error *err);
int fa_tgguf_t5(fa_tgguf *k, fa_error *err);
int fa_tgguf_rwkv(fa_tgguf *k, fa_error *err);
int fa_tgguf_plamo2(fa_tgguf *k, fa_error *err);

#endif
