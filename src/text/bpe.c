/* Byte-pair encoding of one word. A word becomes symbols (one per byte or character), then the pair with the best rank,
 * leftmost among equals, is joined until none is left: exactly the order of the reference. Words of up to SHORT symbols
 * are merged by scanning an array, longer ones with the queues of bpe_long.c, so that no text costs more than linear
 * time. A word cache in front of it answers nearly all words of natural text. */
#include "text/bpe_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

enum { SHORT = 64 };

bool fa_bpe_reserve_pairs(fa_bpe *m, size_t n) {
    size_t cap = 16;
    while (cap < n * 2) cap *= 2;
    m->pair = FA_NEWN(fa_pair, cap);
    m->pair_bits = FA_NEWN(uint64_t, cap / 16);
    if (!m->pair || !m->pair_bits) return false;
    memset(m->pair, 0xFF, cap * sizeof *m->pair);
    m->n_pair = cap;
    return true;
}

void fa_bpe_prefetch_pair(const fa_bpe *m, uint32_t a, uint32_t b) {
    __builtin_prefetch(&m->pair[fa_pair_slot(fa_pair_hash(a, b), m->n_pair - 1)], 1);
}

void fa_bpe_put_pair(fa_bpe *m, uint32_t a, uint32_t b, uint32_t rank, uint32_t id) {
    uint64_t h = fa_pair_hash(a, b);
    size_t mask = m->n_pair - 1, i = fa_pair_slot(h, mask), bit = fa_pair_bit(h, mask);
    while (m->pair[i].id != UINT32_MAX && (m->pair[i].a != a || m->pair[i].b != b)) i = (i + 1) & mask;
    m->pair[i] = (fa_pair){a, b, rank, id};
    m->pair_bits[bit >> 6] |= UINT64_C(1) << (bit & 63);
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

static inline size_t char_len(const char *s) {
    unsigned char c = (unsigned char)*s;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
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
        size_t len = m->byte_level ? 1 : char_len(s + at);
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

/* Merging by score ends with characters that are in no token. */
static void put_left_over(fa_enc *e, const char *s, const int32_t *id, const uint32_t *beg, size_t n) {
    const fa_bpe *m = &e->t->bpe;
    int32_t store[8];
    uint32_t at[9];
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        symbols y = {store, at, 0, open, 0};
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
    size_t k = y.n <= SHORT ? merge_short(m, s, id, beg, y.n) : fa_bpe_merge_long(e, s, id, beg, y.n);
    if (e->rc || !fa_enc_room(e, k)) return;
    if (m->by_score) {
        put_left_over(e, s, id, beg, k);
    } else {
        memcpy(e->ids + e->n, id, k * sizeof *id);
        e->n += k;
    }
}

/* ---- the word cache ---- */

static inline uint64_t load8(const char *s) {
    uint64_t v;
    memcpy(&v, s, 8);
    return v;
}

/* The word as a zero-padded key; its last byte is the length. */
static inline void make_key(uint64_t key[4], const char *s, size_t n, const char *lim) {
    if (lim - s >= 32) {
        for (size_t i = 0; i < 4; i++) {
            uint64_t mask = n >= 8 * i + 8 ? ~UINT64_C(0) : n <= 8 * i ? 0 : (UINT64_C(1) << (n - 8 * i) * 8) - 1;
            key[i] = load8(s + 8 * i) & mask;
        }
    } else {
        memset(key, 0, 32);
        memcpy(key, s, n);
    }
    key[3] |= (uint64_t)n << 56;
}

/* Index of the first slot of the word's pair of slots. */
static inline size_t cache_slot(const fa_enc *e, const uint64_t key[4]) {
    uint64_t h = (key[0] ^ key[2] * UINT64_C(0xD6E8FEB86659FD93)) * UINT64_C(0x9E3779B97F4A7C15);
    h = (h ^ h >> 32 ^ key[1] ^ (key[3] << 7 | key[3] >> 57)) * UINT64_C(0xC2B2AE3D27D4EB4F);
    return (size_t)(h >> 40) & (e->n_cache - 1) & ~(size_t)1;
}

static inline bool same_key(const fa_cached *c, const uint64_t key[4]) {
    return c->key[0] == key[0] && c->key[3] == key[3] && c->key[1] == key[1] && c->key[2] == key[2];
}

/* Puts a word in the first slot of its pair; what was there moves to the second. */
static void cache_put(fa_enc *e, const fa_cached *word) {
    fa_cached *c = &e->cache[cache_slot(e, word->key)];
    if (c->key[3]) {
        e->n_cached += !c[1].key[3];
        c[1] = c[0];
    } else {
        e->n_cached++;
    }
    c[0] = *word;
}

/* A larger table when this one is half full; without memory for it the old one goes on serving. */
static void cache_grow(fa_enc *e) {
    size_t n = e->n_cache;
    if (n >= FA_CACHE_MAX || e->n_cached * 2 < n) return;
    fa_cached *old = e->cache, *more = FA_NEWN(fa_cached, n * 4 > FA_CACHE_MAX ? FA_CACHE_MAX : n * 4);
    if (!more) return;
    e->cache = more;
    e->n_cache = n * 4 > FA_CACHE_MAX ? FA_CACHE_MAX : n * 4;
    e->n_cached = 0;
    for (size_t i = 0; i < n; i++)
        if (old[i].key[3]) cache_put(e, &old[i]);
    fa_free(old);
}

void fa_bpe_word(fa_enc *e, const char *s, size_t n) {
    const fa_bpe *m = &e->t->bpe;
    fa_cached word;
    bool small = n - 1 < FA_CACHE_WORD;
    if (small) {
        make_key(word.key, s, n, e->lim);
        const fa_cached *c = &e->cache[cache_slot(e, word.key)];
        if (same_key(c, word.key) || same_key(++c, word.key)) {
            if (e->cap - e->n < FA_CACHE_IDS && !fa_enc_room(e, FA_CACHE_IDS)) return;
            memcpy(e->ids + e->n, c->id, sizeof c->id);
            e->n += c->n;
            return;
        }
    } else if (n == 0) {
        return;
    }
    size_t from = e->n;
    int32_t whole = m->ignore_merges ? fa_strtab_find(m->word, s, n) : -1;
    if (e->rc) return;
    if (whole < 0)
        merge_word(e, s, n);
    else if (fa_enc_room(e, 1))
        e->ids[e->n++] = whole;
    if (!small || e->rc || e->n - from > FA_CACHE_IDS) return;
    word.n = (uint32_t)(e->n - from);
    memset(word.id, 0, sizeof word.id);
    memcpy(word.id, e->ids + from, word.n * sizeof *word.id);
    cache_put(e, &word);
    cache_grow(e);
}
