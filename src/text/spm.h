/* What SentencePiece does around its model: the normalizer in front of it and the way back from pieces to text. */
#ifndef FA_TEXT_SPM_H
#define FA_TEXT_SPM_H

#include "text/charsmap.h"
#include "text/tok_int.h"

/* A normalizer_spec or denormalizer_spec. */
typedef struct fa_spm_rules {
    fa_charsmap *map; /* NULL: none */
    bool dummy_prefix, remove_extra, escape;
} fa_spm_rules;

struct fa_spm {
    fa_spm_rules norm, denorm; /* denorm: used when it has a map */
    bool suffix;               /* the word sign ends words */
    bool only_first;           /* the dummy prefix stands in front of the text, not behind tokens that were cut out */
    bool shows_special;        /* control and unknown tokens have their names as text: as transformers has it */
    bool fuse_unk;             /* equal neighbours <unk> become one: models that look up whole words */
    char *unk_surface;
    fa_trie user;  /* user-defined pieces: their text is not normalized */
    uint8_t *type; /* fa_piece_type by id */
    size_t n_type;
};

void fa_spm_free(fa_spm *m);
/* Appends the normalized s[0..n) to *out. first: s begins the text. */
void fa_spm_normalize(const fa_spm *m, const char *s, size_t n, bool first, fa_buf *out);

/* Decoding, one id after the other. */
typedef struct fa_spm_dec {
    fa_buf bytes; /* byte pieces that wait for the rest of a character; with a denormalizer: all text */
    fa_buf text;
    bool any, seen; /* text has come out; the space of the dummy prefix is gone */
} fa_spm_dec;

void fa_spm_dec_free(fa_spm_dec *d);
bool fa_spm_dec_failed(const fa_spm_dec *d);
void fa_spm_dec_push(const fa_tok *t, fa_spm_dec *d, int32_t id, const char *piece, size_t n, bool skip, fa_buf *out);
void fa_spm_dec_flush(const fa_tok *t, fa_spm_dec *d, fa_buf *out);

#endif
