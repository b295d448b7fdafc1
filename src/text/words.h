/* The batch of words that wait for BPE, and the word cache (words.c). */
#ifndef FA_TEXT_WORDS_H
#define FA_TEXT_WORDS_H

#include "text/tok_int.h"

#include <string.h>

bool fa_words_init(fa_words *w);
void fa_words_free(fa_words *w);
/* Encodes what waits. Before it, the text of the words must not go away, and nothing else may be appended to the ids.
 */
void fa_words_flush(fa_enc *e);

static inline uint64_t fa_words_hash(const uint64_t key[2]) {
    uint64_t h = key[0] * UINT64_C(0x9E3779B97F4A7C15) + key[1] * UINT64_C(0xD6E8FEB86659FD93);
    return ((h ^ h >> 32) * UINT64_C(0xC2B2AE3D27D4EB4F)) >> 40;
}

/* Index of the first slot of a word's pair of slots. */
static inline size_t fa_words_slot(const fa_words *w, uint64_t hash) { return (size_t)hash & (w->n_small - 2); }

/* The word as a zero padded key; its last byte is the length, 1 .. FA_SHORT_WORD. Up to lim bytes may be read. */
static inline void fa_words_key(uint64_t key[2], const char *s, size_t n, const char *lim) {
    if (lim - s >= 16) {
        memcpy(key, s, 16);
        key[0] &= n >= 8 ? ~UINT64_C(0) : (UINT64_C(1) << n * 8) - 1;
        key[1] &= n <= 8 ? 0 : (UINT64_C(1) << (n - 8) * 8) - 1;
    } else {
        memset(key, 0, 16);
        memcpy(key, s, n);
    }
    key[1] |= (uint64_t)n << 56;
}

/* Notes one word for BPE. */
static inline void fa_words_put(fa_enc *e, const char *s, size_t n) {
    fa_words *w = &e->words;
    fa_pending *p = &w->pend[w->n_pend];
    if (!n) return;
    p->s = s;
    p->n = n;
    if (n <= FA_SHORT_WORD) {
        fa_words_key(p->key, s, n, e->lim);
        p->hash = fa_words_hash(p->key);
        __builtin_prefetch(&w->small[fa_words_slot(w, p->hash)]);
    }
    if (++w->n_pend == FA_WORD_BATCH) fa_words_flush(e);
}

#endif
