/* A SentencePiece model as it was read, and the way transformers builds a tokenizer from it. */
#ifndef FA_TEXT_TOK_SPM_H
#define FA_TEXT_TOK_SPM_H

#include "text/spm.h"
#include "text/tok_files.h"

typedef struct fa_spm_model {
    fa_tok *t; /* t->name: the pieces, not indexed yet */
    fa_spm *spm;
    int kind; /* trainer_spec.model_type */
    bool byte_fallback;
    int32_t unk;   /* id of the unknown piece; -1 none */
    char *name[4]; /* unk_piece, bos_piece, eos_piece, pad_piece; NULL where the model says nothing */
    float *score;
    size_t n, cap; /* pieces */
} fa_spm_model;

/* tok_spm_hf.c: whether tokenizer_config.json names a class that transformers has a tokenizer of its own for; builds
 * m->t as that class does it, up to fa_tok_finish. */
bool fa_spm_hf_known(const fa_tok_about *about);
int fa_spm_hf_build(fa_spm_model *m, const fa_tok_about *about, fa_error *err);

#endif
