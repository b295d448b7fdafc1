/* The models beside BPE: Unigram, WordPiece, WordLevel. A loader fills t->name (spelling by id) and indexes it
 * (fa_strtab_index), then calls one of the build functions, which sets t->kind. Words come from pretok.c. */
#ifndef FA_TEXT_MODELS_H
#define FA_TEXT_MODELS_H

#include "text/dat.h"
#include "text/tok.h"

typedef struct fa_enc fa_enc;

typedef enum fa_model_kind {
    FA_MODEL_BPE,
    FA_MODEL_UNIGRAM,
    FA_MODEL_WORDPIECE,
    FA_MODEL_WORDLEVEL,
    FA_MODEL_RWKV,
    FA_MODEL_PLAMO
} fa_model_kind;

/* What a piece is, as SentencePiece (and GGUF's token_type) numbers it. */
typedef enum fa_piece_type {
    FA_PIECE_NORMAL = 1,
    FA_PIECE_UNKNOWN,
    FA_PIECE_CONTROL,
    FA_PIECE_USER_DEFINED,
    FA_PIECE_UNUSED,
    FA_PIECE_BYTE
} fa_piece_type;

typedef struct fa_unigram {
    fa_dat dat;              /* the pieces that text may become */
    double *score;           /* by id */
    double unk_score;        /* of a character without a piece */
    int32_t unk;             /* -1 none: such a character is an error */
    int32_t byte_token[256]; /* "<0x41>"; -1 none */
    bool byte_fallback;      /* unknown text becomes byte tokens, if there is one for each of its bytes */
    bool spm; /* SentencePiece itself: sums are kept as float, runs of unknown text are never looked up */
} fa_unigram;

typedef struct fa_wordpiece {
    fa_dat dat;
    uint32_t rest;    /* node of `dat` where tokens inside of a word begin (behind the prefix); 0 = there are none */
    bool prefixed;    /* false: continuing_subword_prefix is empty, tokens inside of a word begin at the root */
    size_t max_chars; /* longer words are unknown */
    int32_t unk;      /* -1 none: an unknown word is an error */
} fa_wordpiece;

typedef struct fa_unigram_opts {
    const double *score; /* by id, t->name.n_id of them */
    const uint8_t *type; /* fa_piece_type by id, or NULL: all pieces are matched in text, as `tokenizers` does it. With
                            types only NORMAL and USER_DEFINED ones are, and the unknown score is 10 below the lowest
                            score of the NORMAL ones */
    int32_t unk;         /* -1 none */
    bool byte_fallback;
    bool spm; /* SentencePiece's own arithmetic: float sums; a USER_DEFINED piece scores 0.1 for each byte but one */
} fa_unigram_opts;

int fa_unigram_build(fa_tok *t, const fa_unigram_opts *o, fa_error *err);
/* prefix: continuing_subword_prefix ("##"), may be empty. unk: -1 none. */
int fa_wordpiece_build(fa_tok *t, const char *prefix, size_t n_prefix, size_t max_chars, int32_t unk, fa_error *err);
int fa_wordlevel_build(fa_tok *t, int32_t unk, fa_error *err);

/* more_models.c. RWKV's: the longest token of t->raw; unk -1: none. PLaMo 2's: type as fa_piece_type; every byte has
 * its token in t->bpe.byte_token. */
int fa_rwkv_build(fa_tok *t, int32_t unk, fa_error *err);
int fa_plamo_build(fa_tok *t, const double *score, const uint8_t *type, fa_error *err);

void fa_unigram_free(fa_unigram *m);
void fa_wordpiece_free(fa_wordpiece *m);

/* Append the tokens of one word to e->ids; failures go to e->rc and e->err. */
void fa_unigram_word(fa_enc *e, const char *s, size_t n);
void fa_wordpiece_word(fa_enc *e, const char *s, size_t n);
void fa_wordlevel_word(fa_enc *e, const char *s, size_t n);
void fa_rwkv_word(fa_enc *e, const char *s, size_t n);
void fa_plamo_word(fa_enc *e, const char *s, size_t n);

#endif
