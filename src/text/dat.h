/* Double array: a set of byte strings with ids, walked byte by byte. What the Unigram and WordPiece models look tokens
 * up in: all tokens that begin at a place of the text are found in one walk. */
#ifndef FA_TEXT_DAT_H
#define FA_TEXT_DAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fa_dat_unit {
    uint32_t base;  /* the child by byte c is unit base ^ c, if its `check` is this unit */
    uint32_t check; /* the parent; UINT32_MAX = free */
    int32_t id;     /* of the string that ends here; -1 none */
} fa_dat_unit;

typedef struct fa_dat {
    fa_dat_unit *unit; /* unit[0] is the root */
    size_t n;          /* a multiple of 256, so that base ^ c never leaves the array; 0 = empty set */
} fa_dat;

typedef struct fa_dat_key {
    const char *s;
    uint32_t len;
    int32_t id;
} fa_dat_key;

/* Builds the set; key[0..n) is reordered. Of equal strings the highest id stays; empty strings are left out. False: out
 * of memory. */
bool fa_dat_build(fa_dat *d, fa_dat_key *key, size_t n);
void fa_dat_free(fa_dat *d);

/* The child of `node` by byte c, or 0 (the root is nobody's child). */
static inline uint32_t fa_dat_step(const fa_dat *d, uint32_t node, uint8_t c) {
    uint32_t kid = d->unit[node].base ^ c;
    return d->unit[kid].check == node ? kid : 0;
}

#endif
