/* Words on their way from the pre-tokenizer to BPE. They are not looked up one by one: a word is noted with its key,
 * its place in the word cache is fetched, and a batch later it is there. Nearly all words of natural text are answered
 * by the cache, and nearly all of those by its table of short words, two to a cache line. */
#include "text/words.h"
#include "text/bpe_int.h"
#include "base/alloc.h"

#include <string.h>

enum {
    SMALL_MIN = 1 << 9, /* the tables begin small, so that a short prompt touches little memory */
    SMALL_MAX = 1 << 17,
    WIDE_MIN = 1 << 7,
    WIDE_MAX = 1 << 15,
    WIDE_WORD = 31,
    WIDE_IDS = 7,
    SMALL_IDS = 4,
    COUNT_SHIFT = 30 /* of id[0] */
};

/* n zeroed slots that begin with a cache line; *block is what is to be freed. */
static fa_short_word *new_small(size_t n, void **block) {
    enum { LINE = 64, PER_LINE = LINE / sizeof(fa_short_word) };
    char *p = (char *)fa_table_calloc(n + PER_LINE, sizeof(fa_short_word));
    *block = p;
    return p ? (fa_short_word *)(void *)(p + (LINE - (uintptr_t)p % LINE) % LINE) : NULL;
}

bool fa_words_init(fa_words *w) {
    w->small = new_small(SMALL_MIN, &w->block);
    w->wide = FA_NEWN(fa_wide_word, WIDE_MIN);
    w->n_small = SMALL_MIN;
    w->n_wide = WIDE_MIN;
    return w->small && w->wide;
}

void fa_words_free(fa_words *w) {
    fa_free(w->block);
    fa_free(w->wide);
    memset(w, 0, sizeof *w);
}

/* ---- words of up to 15 bytes and 4 tokens ---- */

/* A word stands in its pair of slots or in the neighbour of that. */
enum { NEIGHBOUR = 2 };

static bool same_short(const fa_short_word *c, const uint64_t key[2]) {
    return c->key[0] == key[0] && c->key[1] == key[1];
}

/* Puts a word in the first slot of its pair; what was there moves on. */
static void put_small(fa_words *w, const fa_short_word *word) {
    size_t i = fa_words_slot(w, fa_words_hash(word->key));
    fa_short_word *c = &w->small[i], *d = &w->small[i ^ NEIGHBOUR];
    if (c[1].key[1]) {
        if (d[0].key[1] && !d[1].key[1])
            d[1] = c[1];
        else
            d[0] = c[1];
    }
    if (c[0].key[1]) c[1] = c[0];
    c[0] = *word;
    w->used_small++;
}

/* A larger table when this one is half full; without memory for it the old one goes on serving. */
static void grow_small(fa_words *w) {
    size_t n = w->n_small;
    if (n >= SMALL_MAX || w->used_small * 2 < n) return;
    void *block, *old_block = w->block;
    fa_short_word *old = w->small, *more = new_small(n * 4, &block);
    if (!more) return;
    w->block = block;
    w->small = more;
    w->n_small = n * 4;
    w->used_small = 0;
    for (size_t i = 0; i < n; i++)
        if (old[i].key[1]) put_small(w, &old[i]);
    fa_free(old_block);
}

/* ---- other words of up to 31 bytes and 7 tokens ---- */

static void wide_key(uint64_t key[4], const char *s, size_t n) {
    memset(key, 0, 32);
    memcpy(key, s, n);
    key[3] |= (uint64_t)n << 56;
}

static size_t wide_slot(const fa_words *w, const uint64_t key[4]) {
    uint64_t h = (key[0] ^ key[2] * UINT64_C(0xD6E8FEB86659FD93)) * UINT64_C(0x9E3779B97F4A7C15);
    h = (h ^ h >> 32 ^ key[1] ^ (key[3] << 7 | key[3] >> 57)) * UINT64_C(0xC2B2AE3D27D4EB4F);
    return (size_t)(h >> 40) & (w->n_wide - 1) & ~(size_t)1;
}

static bool same_key(const fa_wide_word *c, const uint64_t key[4]) {
    return c->key[0] == key[0] && c->key[3] == key[3] && c->key[1] == key[1] && c->key[2] == key[2];
}

static void put_wide(fa_words *w, const fa_wide_word *word) {
    fa_wide_word *c = &w->wide[wide_slot(w, word->key)];
    if (c->key[3]) {
        w->used_wide += !c[1].key[3];
        c[1] = c[0];
    } else {
        w->used_wide++;
    }
    c[0] = *word;
}

static void grow_wide(fa_words *w) {
    size_t n = w->n_wide;
    if (n >= WIDE_MAX || w->used_wide * 2 < n) return;
    fa_wide_word *old = w->wide, *more = (fa_wide_word *)fa_table_calloc(n * 4, sizeof *more);
    if (!more) return;
    w->wide = more;
    w->n_wide = n * 4;
    w->used_wide = 0;
    for (size_t i = 0; i < n; i++)
        if (old[i].key[3]) put_wide(w, &old[i]);
    fa_free(old);
}

/* ---- a word ---- */

/* Where spaces stand for the word sign and tokens are found by their spelling, a word is spelled with it first. */
static void merge(fa_enc *e, const char *s, size_t n) {
    if (!e->t->cut.spaces || !e->t->bpe.by_score) {
        fa_bpe_merge(e, s, n);
        return;
    }
    fa_buf *b = &e->word;
    b->len = 0;
    if (!fa_buf_reserve(b, n * 3 + 1)) {
        e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for a word of %zu bytes", n);
        return;
    }
    char *to = b->data;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == ' ') {
            memcpy(to, "\xE2\x96\x81", 3);
            to += 3;
        } else {
            *to++ = s[i];
        }
    }
    fa_bpe_merge(e, b->data, (size_t)(to - b->data));
}

static int32_t *put_ids(int32_t *out, const fa_short_word *c) {
    memcpy(out, c->id, sizeof c->id);
    *out = c->id[0] & ((1 << COUNT_SHIFT) - 1);
    return out + 1 + ((uint32_t)c->id[0] >> COUNT_SHIFT);
}

/* What is not where it is looked for first. There is room for SMALL_IDS. */
static void slow_word(fa_enc *e, const fa_pending *p) {
    fa_words *w = &e->words;
    fa_wide_word wide;
    size_t from = e->n, k;
    if (p->n <= FA_SHORT_WORD) {
        const fa_short_word *c = &w->small[fa_words_slot(w, p->hash) ^ NEIGHBOUR];
        if (same_short(c, p->key) || same_short(++c, p->key)) {
            e->n = (size_t)(put_ids(e->ids + from, c) - e->ids);
            return;
        }
    }
    if (p->n <= WIDE_WORD) {
        wide_key(wide.key, p->s, p->n);
        const fa_wide_word *c = &w->wide[wide_slot(w, wide.key)];
        if (same_key(c, wide.key) || same_key(++c, wide.key)) {
            if (!fa_enc_room(e, WIDE_IDS)) return;
            memcpy(e->ids + e->n, c->id, sizeof c->id);
            e->n += c->n;
            return;
        }
    }
    merge(e, p->s, p->n);
    if (e->rc || p->n > WIDE_WORD || (k = e->n - from) > WIDE_IDS) return;
    const int32_t *id = e->ids + from;
    if (p->n <= FA_SHORT_WORD && k >= 1 && k <= SMALL_IDS && (uint32_t)id[0] >> COUNT_SHIFT == 0) {
        fa_short_word word = {{p->key[0], p->key[1]}, {0}};
        memcpy(word.id, id, k * sizeof *id);
        word.id[0] = (int32_t)((uint32_t)word.id[0] | (uint32_t)(k - 1) << COUNT_SHIFT);
        put_small(w, &word);
        grow_small(w);
    } else {
        wide.n = (uint32_t)k;
        memset(wide.id, 0, sizeof wide.id);
        if (k) memcpy(wide.id, id, k * sizeof *id);
        put_wide(w, &wide);
        grow_wide(w);
    }
}

void fa_words_flush(fa_enc *e) {
    fa_words *w = &e->words;
    size_t n = w->n_pend;
    w->n_pend = 0;
    if (e->rc || !fa_enc_room(e, n * SMALL_IDS)) return;
    int32_t *out = e->ids + e->n;
    for (size_t i = 0; i < n; i++) {
        const fa_pending *p = &w->pend[i];
        if (p->n <= FA_SHORT_WORD) {
            const fa_short_word *c = &w->small[fa_words_slot(w, p->hash)];
            bool first = same_short(c, p->key);
            if (first || same_short(c + 1, p->key)) {
                out = put_ids(out, c + !first);
                continue;
            }
        }
        e->n = (size_t)(out - e->ids);
        slow_word(e, p);
        if (e->rc || !fa_enc_room(e, (n - i) * SMALL_IDS)) return;
        out = e->ids + e->n;
    }
    e->n = (size_t)(out - e->ids);
}
