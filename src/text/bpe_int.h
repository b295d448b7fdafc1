/* What bpe.c (words of common length) and bpe_long.c (long ones) share: the rank of joining two neighbours. */
#ifndef FA_TEXT_BPE_INT_H
#define FA_TEXT_BPE_INT_H

#include "text/tok_int.h"

enum { FA_BPE_NO_RANK = -1 };

static inline uint64_t fa_pair_hash(uint32_t a, uint32_t b) {
    uint64_t h = ((uint64_t)a << 32 | b) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}

/* A pair's slot comes from the upper bits of its hash, its bit from the lower ones. */
static inline size_t fa_pair_slot(uint64_t h, size_t mask) { return (size_t)(h >> 24) & mask; }
static inline size_t fa_pair_bit(uint64_t h, size_t mask) { return (size_t)(h >> 8) & (mask * 4 + 3); }

/* What fa_pair_rank_hashed reads. */
static inline void fa_pair_fetch(const fa_bpe *m, uint64_t h) {
    size_t mask = m->n_pair - 1;
    __builtin_prefetch(&m->pair_bits[fa_pair_bit(h, mask) >> 6]);
    __builtin_prefetch(&m->pair[fa_pair_slot(h, mask)]);
}

/* Rank of the pair of tokens a and b, whose hash is h, in the merge list; UINT32_MAX when it is not there. */
static inline uint32_t fa_pair_rank_hashed(const fa_bpe *m, uint32_t a, uint32_t b, uint64_t h) {
    size_t mask = m->n_pair - 1;
    uint64_t key = (uint64_t)a << m->id_bits | b;
    size_t bit = fa_pair_bit(h, mask);
    if (!(m->pair_bits[bit >> 6] >> (bit & 63) & 1)) return UINT32_MAX;
    for (size_t i = fa_pair_slot(h, mask);; i = (i + 1) & mask) {
        uint64_t p = m->pair[i];
        if (!p) return UINT32_MAX;
        if (p >> m->rank_bits == key) return (uint32_t)(p & ((UINT64_C(1) << m->rank_bits) - 1)) - 1;
    }
}

static inline uint32_t fa_pair_rank(const fa_bpe *m, uint32_t a, uint32_t b) {
    return fa_pair_rank_hashed(m, a, b, fa_pair_hash(a, b));
}

/* Rank of joining tokens a and b, which together spell s[0..n) (used by score only); the new token in *id. UINT32_MAX:
 * never joined. Ids below 0 are characters without a token. */
static inline uint32_t fa_bpe_rank(const fa_bpe *m, int32_t a, int32_t b, const char *s, size_t n, int32_t *id) {
    if (m->by_score) {
        *id = fa_strtab_find(m->word, s, n);
        return *id < 0 ? UINT32_MAX : m->id_rank[*id];
    }
    if (a < 0 || b < 0 || !m->n_pair) return UINT32_MAX;
    uint32_t rank = fa_pair_rank(m, (uint32_t)a, (uint32_t)b);
    if (rank != UINT32_MAX) *id = (int32_t)m->rank_to[rank];
    return rank;
}

/* bpe_long.c: merges id[0..n), beginning at the bytes beg[0..n) of s (beg[n] is the end), in place; returns how many
 * are left. */
size_t fa_bpe_merge_long(fa_enc *e, const char *s, int32_t *id, uint32_t *beg, size_t n);
/* bpe_unused.c: appends the tokens of s[0..n), which is an unused token; true when the text ends in unknown characters
 * whose <unk> is still to be written. */
bool fa_bpe_take_apart(fa_enc *e, const char *s, size_t n);
/* Room for n + 1 symbols in the long scratch: *id and *beg. */
bool fa_bpe_long_room(fa_enc *e, size_t n, int32_t **id, uint32_t **beg);
void fa_bpe_long_free(fa_long *w);

#endif
