/* Byte-pair encoding of one word. A word becomes symbols (one per byte or character), then the pair with the best rank,
 * leftmost among equals, is joined until none is left: exactly the order of the reference. Words of up to SHORT symbols
 * are merged by scanning an array, longer ones with the queues of bpe_long.c, so that no text costs more than linear
 * time. The word cache (words.c) answers nearly all words of natural text before they come here. */
#include "text/bpe_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

enum { SHORT = 64 };

bool fa_bpe_reserve_pairs(fa_bpe *m, size_t n, uint32_t *to) {
    size_t cap = 16;
    while (cap * 3 < n * 4) cap *= 2;
    m->rank_bits = 1;
    while (n >> m->rank_bits) m->rank_bits++;
    m->id_bits = (64 - m->rank_bits) / 2 < 31 ? (64 - m->rank_bits) / 2 : 31;
    m->pair = (uint64_t *)fa_table_calloc(cap, sizeof *m->pair);
    m->pair_bits = FA_NEWN(uint64_t, cap / 16);
    if (!m->pair || !m->pair_bits) return false;
    m->rank_to = to;
    m->n_rank = (uint32_t)n;
    m->n_pair = cap;
    return true;
}

void fa_bpe_prefetch_pair(const fa_bpe *m, uint32_t a, uint32_t b) {
    __builtin_prefetch(&m->pair[fa_pair_slot(fa_pair_hash(a, b), m->n_pair - 1)], 1);
}

bool fa_bpe_put_pair(fa_bpe *m, uint32_t a, uint32_t b, uint32_t rank) {
    if ((a | b) >> m->id_bits) return false;
    uint64_t h = fa_pair_hash(a, b), key = (uint64_t)a << m->id_bits | b;
    size_t mask = m->n_pair - 1, i = fa_pair_slot(h, mask), bit = fa_pair_bit(h, mask);
    while (m->pair[i] && m->pair[i] >> m->rank_bits != key) i = (i + 1) & mask;
    m->pair[i] = key << m->rank_bits | (rank + 1);
    m->pair_bits[bit >> 6] |= UINT64_C(1) << (bit & 63);
    return true;
}

/* ---- symbols ---- */

typedef struct symbols {
    int32_t *id;   /* -1: a character without a token (by score only) */
    uint32_t *beg; /* first byte in the word */
    size_t n;
    bool unk_open; /* an unknown token waits to be added (it may grow when unknown tokens are fused) */
    uint32_t unk_beg;
} symbols;

static void add_symbol(symbols *y, int32_t id, size_t beg) {
    y->id[y->n] = id;
    y->beg[y->n++] = (uint32_t)beg;
}

static void close_unk(const fa_bpe *m, symbols *y) {
    if (y->unk_open) add_symbol(y, m->unk, y->unk_beg);
    y->unk_open = false;
}

/* Token of the character s[0..n) with the prefix and suffix that its place in the word asks for. */
static int32_t affixed(fa_enc *e, const char *s, size_t n, bool first, bool last) {
    const fa_bpe *m = &e->t->bpe;
    e->word.len = 0;
    if (!first && m->prefix) fa_buf_puts(&e->word, m->prefix);
    char two[2];
    if (m->byte_level)
        fa_buf_add(&e->word, two, (size_t)fa_char_of_byte((unsigned char)*s, two));
    else
        fa_buf_add(&e->word, s, n);
    if (last && m->suffix) fa_buf_puts(&e->word, m->suffix);
    if (e->word.failed) return e->rc = FFAI_ENOMEM, -1;
    return fa_strtab_find(&e->t->name, e->word.data, e->word.len);
}

/* A character s[0..n) without a token, at byte `at` of the word: byte tokens, an unknown token, or nothing, in this
 * order. The byte tokens do not close a waiting unknown token: neither does the reference. */
static void add_unknown(const fa_bpe *m, symbols *y, const char *s, size_t at, size_t n) {
    bool all = m->byte_fallback;
    for (size_t i = 0; all && i < n; i++) all = m->byte_token[(unsigned char)s[i]] >= 0;
    if (all) {
        for (size_t i = 0; i < n; i++) add_symbol(y, m->byte_token[(unsigned char)s[i]], at);
    } else if (m->unk >= 0) {
        if (y->unk_open && !m->fuse_unk) close_unk(m, y);
        if (!y->unk_open) y->unk_beg = (uint32_t)at;
        y->unk_open = true;
    }
}

static void begin_symbols(fa_enc *e, symbols *y, const char *s, size_t n) {
    const fa_bpe *m = &e->t->bpe;
    bool affix = m->prefix || m->suffix;
    for (size_t at = 0; at < n && !e->rc;) {
        size_t len = m->byte_level ? 1 : fa_utf8_char_len(s + at);
        if (len > n - at) len = n - at;
        unsigned char c = (unsigned char)s[at];
        int32_t id;
        if (affix)
            id = affixed(e, s + at, len, at == 0, at + len == n);
        else if (m->byte_level || c < 0x80)
            id = m->first[c];
        else
            id = fa_strtab_find(m->word, s + at, len);
        if (m->by_score && id >= 0 && m->id_rank[id] == UINT32_MAX) id = -1;
        if (id >= 0) {
            close_unk(m, y);
            add_symbol(y, id, at);
        } else if (m->by_score) {
            add_symbol(y, -1, at); /* may still become part of a token; what is left over is resolved at the end */
        } else {
            if (affix)
                add_unknown(m, y, e->word.data, at, e->word.len);
            else
                add_unknown(m, y, s + at, at, len);
        }
        at += len;
    }
    close_unk(m, y);
    y->beg[y->n] = (uint32_t)n;
}

/* ---- merging ---- */

static size_t merge_short(const fa_bpe *m, const char *s, int32_t *id, uint32_t *beg, size_t n) {
    uint32_t rank[SHORT];
    int32_t to[SHORT];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = fa_bpe_rank(m, id[i], id[i + 1], s + beg[i], beg[i + 2] - beg[i], &to[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        id[best] = to[best];
        n--; /* symbol best + 1 goes; the pair (best, best + 1) takes the place of the pair that began there */
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            beg[i] = beg[i + 1];
            rank[i - 1] = rank[i];
            to[i - 1] = to[i];
        }
        beg[n] = beg[n + 1];
        if (best + 1 < n)
            rank[best] = fa_bpe_rank(m, id[best], id[best + 1], s + beg[best], beg[best + 2] - beg[best], &to[best]);
        if (best)
            rank[best - 1] =
                fa_bpe_rank(m, id[best - 1], id[best], s + beg[best - 1], beg[best + 1] - beg[best - 1], &to[best - 1]);
    }
    return n;
}

/* Smallest of key[0..n), n a multiple of 8. */
static inline uint32_t smallest(const uint32_t *key, size_t n) {
    uint32_t m[8];
    memcpy(m, key, sizeof m);
    for (size_t i = 8; i < n; i += 8)
        for (size_t k = 0; k < 8; k++) m[k] = key[i + k] < m[k] ? key[i + k] : m[k];
    for (size_t k = 0; k < 4; k++) m[k] = m[k] < m[k + 4] ? m[k] : m[k + 4];
    m[0] = m[0] < m[2] ? m[0] : m[2];
    m[1] = m[1] < m[3] ? m[1] : m[3];
    return m[0] < m[1] ? m[0] : m[1];
}

/* The key of symbol a and its right neighbour b, whose pair hashes to h. */
static inline uint32_t pair_key(const fa_bpe *m, const int32_t *id, size_t a, size_t b, uint64_t h) {
    uint32_t rank = fa_pair_rank_hashed(m, (uint32_t)id[a], (uint32_t)id[b], h);
    if (rank == UINT32_MAX) return rank;
    __builtin_prefetch(&m->rank_to[rank]); /* for when its turn comes */
    return rank << 6 | (uint32_t)a;
}

/* Merges id[0..n) by the merge list, n <= SHORT, in place; returns how many are left. key[i] is the rank of joining
 * symbol i with its right neighbour, above the place i, so that the smallest key is the leftmost of the best; it comes
 * in filled. Which symbols are still there is a bit each. */
static size_t merge_pairs(const fa_bpe *m, int32_t *id, uint32_t *key, size_t n) {
    uint64_t there = n < 64 ? (UINT64_C(1) << n) - 1 : ~UINT64_C(0);
    size_t n_key = (n + 7) & ~(size_t)7, k = 0;
    for (size_t i = n - 1; i < n_key; i++) key[i] = UINT32_MAX;
    for (uint32_t best; (best = smallest(key, n_key)) != UINT32_MAX;) {
        size_t i = best & 63, j = i + 1 + (size_t)__builtin_ctzll(there >> i >> 1);
        id[i] = (int32_t)m->rank_to[best >> 6];
        there &= ~(UINT64_C(1) << j);
        key[j] = UINT32_MAX;
        uint64_t right = there >> i >> 1, left = there & ((UINT64_C(1) << i) - 1);
        size_t r = right ? i + 1 + (size_t)__builtin_ctzll(right) : i,
               l = left ? 63 - (size_t)__builtin_clzll(left) : i;
        uint64_t hr = fa_pair_hash((uint32_t)id[i], (uint32_t)id[r]),
                 hl = fa_pair_hash((uint32_t)id[l], (uint32_t)id[i]);
        fa_pair_fetch(m, hr); /* all four reads are far away: they are begun together */
        fa_pair_fetch(m, hl);
        key[i] = right ? pair_key(m, id, i, r, hr) : UINT32_MAX;
        if (left) key[l] = pair_key(m, id, l, i, hl);
    }
    for (; there; there &= there - 1) id[k++] = id[__builtin_ctzll(there)];
    return k;
}

/* A short word of bytes or ASCII characters that all have a token: no question of unknown ones or of affixes. False:
 * it is not such a word. */
static bool plain_word(fa_enc *e, const char *s, size_t n) {
    const fa_bpe *m = &e->t->bpe;
    int32_t id[SHORT], bad = 0;
    uint32_t key[SHORT + 8];
    if (n > SHORT || !m->pair_ascii || !fa_enc_room(e, n)) return false;
    unsigned char top = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        id[i] = m->first[c];
        bad |= id[i];
        top |= c;
    }
    if (bad < 0 || (top >= 0x80 && !m->byte_level)) return false;
    for (size_t i = 0; i + 1 < n; i++) {
        unsigned char a = (unsigned char)s[i], b = (unsigned char)s[i + 1];
        uint32_t rank =
            (a | b) < 0x80 ? m->pair_ascii[b << 7 | a] : fa_pair_rank(m, (uint32_t)id[i], (uint32_t)id[i + 1]);
        key[i] = rank == UINT32_MAX ? rank : rank << 6 | (uint32_t)i;
    }
    size_t k = merge_pairs(m, id, key, n);
    memcpy(e->ids + e->n, id, k * sizeof *id);
    e->n += k;
    return true;
}

/* Merging symbols of any kind by the merge list. */
static size_t merge_listed(const fa_bpe *m, int32_t *id, size_t n) {
    uint32_t key[SHORT + 8];
    for (size_t i = 0; i + 1 < n; i++)
        key[i] = pair_key(m, id, i, i + 1, fa_pair_hash((uint32_t)id[i], (uint32_t)id[i + 1]));
    return merge_pairs(m, id, key, n);
}

bool fa_bpe_finish(fa_bpe *m) {
    if (m->by_score || !m->n_pair || m->prefix || m->suffix || m->n_rank >= (1u << 26) - 1) return true;
    m->pair_ascii = FA_NEWN(uint32_t, 128 * 128);
    if (!m->pair_ascii) return false;
    for (unsigned b = 0; b < 128; b++)
        for (unsigned a = 0; a < 128; a++)
            m->pair_ascii[b << 7 | a] = m->first[a] < 0 || m->first[b] < 0
                                            ? UINT32_MAX
                                            : fa_pair_rank(m, (uint32_t)m->first[a], (uint32_t)m->first[b]);
    return true;
}

/* Merging by score ends with characters that are in no token. */
static void put_left_over(fa_enc *e, const char *s, const int32_t *id, const uint32_t *beg, size_t n) {
    const fa_bpe *m = &e->t->bpe;
    int32_t store[8];
    uint32_t at[9];
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        symbols y = {store, at, 0, open, 0};
        if (id[i] >= 0 && m->unused && m->unused[id[i]]) {
            if (open && fa_enc_room(e, 1)) e->ids[e->n++] = m->unk;
            open = fa_bpe_take_apart(e, s + beg[i], beg[i + 1] - beg[i]);
            continue;
        }
        if (id[i] >= 0) {
            close_unk(m, &y);
            add_symbol(&y, id[i], 0);
        } else {
            add_unknown(m, &y, s + beg[i], beg[i], beg[i + 1] - beg[i]);
        }
        open = y.unk_open;
        if (!fa_enc_room(e, y.n + 1)) return;
        memcpy(e->ids + e->n, store, y.n * sizeof *store);
        e->n += y.n;
    }
    if (open) e->ids[e->n++] = m->unk; /* room: one more than used was asked for */
}

/* Unknown characters become bytes with their prefix and suffix, as in the reference. */
static size_t symbols_per_byte(const fa_bpe *m) {
    if (!m->byte_fallback) return 1;
    return 1 + (m->prefix ? strlen(m->prefix) : 0) + (m->suffix ? strlen(m->suffix) : 0);
}

static void merge_word(fa_enc *e, const char *s, size_t n) {
    const fa_bpe *m = &e->t->bpe;
    int32_t short_id[SHORT + 1], *id = short_id;
    uint32_t short_beg[SHORT + 2], *beg = short_beg;
    if (n >= INT32_MAX) {
        e->rc = fa_fail(e->err, FFAI_ELIMIT, "tokenizer: a word of %zu bytes is too long", n);
        return;
    }
    size_t room = n * symbols_per_byte(m);
    if (room >= INT32_MAX) {
        e->rc = fa_fail(e->err, FFAI_ELIMIT, "tokenizer: a word of %zu bytes is too long", n);
        return;
    }
    if (room > SHORT && !fa_bpe_long_room(e, room, &id, &beg)) return;
    symbols y = {id, beg, 0, false, 0};
    begin_symbols(e, &y, s, n);
    if (e->rc || !y.n) return;
    size_t k = y.n > SHORT     ? fa_bpe_merge_long(e, s, id, beg, y.n)
               : m->pair_ascii ? merge_listed(m, id, y.n)
                               : merge_short(m, s, id, beg, y.n);
    if (e->rc || !fa_enc_room(e, k)) return;
    if (m->by_score) {
        put_left_over(e, s, id, beg, k);
    } else {
        memcpy(e->ids + e->n, id, k * sizeof *id);
        e->n += k;
    }
}

void fa_bpe_merge(fa_enc *e, const char *s, size_t n) {
    const fa_bpe *m = &e->t->bpe;
    int32_t whole = m->ignore_merges ? fa_strtab_find(m->word, s, n) : -1;
    if (whole >= 0) {
        if (fa_enc_room(e, 1)) e->ids[e->n++] = whole;
    } else if (!plain_word(e, s, n) && !e->rc) {
        merge_word(e, s, n);
    }
}
