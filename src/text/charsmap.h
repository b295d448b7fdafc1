/* SentencePiece's precompiled_charsmap: a darts-clone double array from character sequences to replacement texts.
 * Layout of the bytes: u32 size of the double array in bytes (little endian), its u32 units, then the replacements,
 * each ended by a NUL; the value of a sequence is the offset of its replacement. A map is immutable and checked when it
 * is made: no bytes can lead outside of it. */
#ifndef FA_TEXT_CHARSMAP_H
#define FA_TEXT_CHARSMAP_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

typedef struct fa_charsmap fa_charsmap;

/* data[0..n) is copied. `what` and `key` name the source in messages. n = 0 is a map without rules. */
int fa_charsmap_new(fa_charsmap **out, const void *data, size_t n, const char *what, const char *key, fa_error *err);
/* The same from base64 (RFC 4648 with padding). */
int fa_charsmap_from_base64(fa_charsmap **out, const char *text, size_t n, const char *what, const char *key,
                            fa_error *err);
void fa_charsmap_free(fa_charsmap *m);

/* Bytes of the longest rule that s[0..n) begins with, 0 for none; its replacement in *to and *n_to. SentencePiece's
 * normalizer applies this from left to right. */
size_t fa_charsmap_longest(const fa_charsmap *m, const char *s, size_t n, const char **to, size_t *n_to);
/* The same for the shortest rule: what the Precompiled normalizer of `tokenizers` takes. */
size_t fa_charsmap_shortest(const fa_charsmap *m, const char *s, size_t n, const char **to, size_t *n_to);

#endif
