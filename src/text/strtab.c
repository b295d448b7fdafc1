/* Strings with ids: the vocabulary. One pool for the bytes, offsets by id, and a hash table from string to id whose
 * slots hold the beginning of the string: nearly all look-ups end there. The table of a 262,144-token vocabulary is
 * 8 MB, so indexing and batched look-ups prefetch: each access is a cache miss. */
#include "text/tok_int.h"
#include "base/alloc.h"

#include <string.h>

enum { PAD = 8 }; /* so that 8 bytes can be read at any string */

void fa_strtab_free(fa_strtab *t) {
    fa_free(t->pool);
    fa_free(t->span);
    fa_free(t->slot);
    memset(t, 0, sizeof *t);
}

static bool set_cap_id(fa_strtab *t, size_t cap) {
    fa_span *span = (fa_span *)fa_realloc(t->span, cap, sizeof *span);
    if (!span) return false;
    t->span = span;
    t->cap_id = cap;
    return true;
}

static bool set_cap_pool(fa_strtab *t, size_t cap) {
    char *p = (char *)fa_realloc(t->pool, cap, 1);
    if (!p) return false;
    t->pool = p;
    t->pool_cap = cap;
    return true;
}

void fa_strtab_reserve(fa_strtab *t, size_t n_id, size_t bytes) {
    if (n_id > t->cap_id) set_cap_id(t, n_id);
    if (bytes > t->pool_cap && bytes < UINT32_MAX) set_cap_pool(t, bytes);
}

void fa_strtab_shrink(fa_strtab *t) {
    if (t->n_id < t->cap_id) set_cap_id(t, t->n_id);
    if (t->pool_len + PAD < t->pool_cap) set_cap_pool(t, t->pool_len + PAD);
}

static bool grow_ids(fa_strtab *t, size_t n) {
    if (n <= t->n_id) return true;
    if (n > t->cap_id) {
        size_t cap = t->cap_id * 2 > n ? t->cap_id * 2 : n;
        if (!set_cap_id(t, cap)) return false;
    }
    for (size_t i = t->n_id; i < n; i++) t->span[i] = (fa_span){UINT32_MAX, 0};
    t->n_id = n;
    return true;
}

bool fa_strtab_set(fa_strtab *t, uint32_t id, const char *s, size_t len) {
    size_t need = t->pool_len + len + 1;
    if (!grow_ids(t, (size_t)id + 1) || need >= UINT32_MAX) return false;
    if (need + PAD > t->pool_cap) {
        size_t cap = need + need / 2 + 64 + PAD;
        if (!set_cap_pool(t, cap)) return false;
    }
    t->span[id].off = (uint32_t)t->pool_len;
    t->span[id].len = (uint32_t)len;
    if (len) memcpy(t->pool + t->pool_len, s, len);
    t->pool[t->pool_len + len] = 0;
    t->pool_len = need;
    if (len > t->max_len) t->max_len = (uint32_t)len;
    return true;
}

/* ---- string to id ---- */

static inline uint64_t load8(const char *s) {
    uint64_t v;
    memcpy(&v, s, 8);
    return v;
}

static inline uint64_t load4(const char *s) {
    uint32_t v;
    memcpy(&v, s, 4);
    return v;
}

/* The first 8 bytes, zero padded; reads nothing behind the string. Parts that overlap are equal there. */
static inline uint64_t head_of(const char *s, size_t len) {
    const unsigned char *u = (const unsigned char *)s;
    if (len >= 8) return load8(s);
    if (len >= 4) return load4(s) | load4(s + len - 4) << (len - 4) * 8;
    if (!len) return 0;
    return u[0] | (uint64_t)u[len / 2] << len / 2 * 8 | (uint64_t)u[len - 1] << (len - 1) * 8;
}

/* The same where 8 bytes may be read: without branches, which cannot be foretold here. */
static inline uint64_t head_wide(const char *s, size_t len) {
    return load8(s) & (len < 8 ? (UINT64_C(1) << len * 8) - 1 : ~UINT64_C(0));
}

static inline uint64_t hash_of(const char *s, size_t len, uint64_t head) {
    uint64_t h = (head ^ len * UINT64_C(0xD6E8FEB86659FD93)) * UINT64_C(0x9E3779B97F4A7C15);
    for (size_t i = 8; i < len; i += 8) {
        h ^= h >> 32;
        h = (h ^ (len - i >= 8 ? load8(s + i) : load8(s + len - 8))) * UINT64_C(0xE7037ED1A0B428DB);
    }
    h = (h ^ h >> 29) * UINT64_C(0xC2B2AE3D27D4EB4F);
    return h ^ h >> 32;
}

static inline bool equal(const char *a, const char *b, size_t n) {
    for (; n >= 8; n -= 8, a += 8, b += 8)
        if (load8(a) != load8(b)) return false;
    return head_of(a, n) == head_of(b, n);
}

/* The slot that holds the string, or the free one where it belongs. */
static inline fa_strslot *find_slot(const fa_strtab *t, const char *s, size_t len, fa_strkey y) {
    for (size_t i = y.hash & (t->n_slot - 1);; i = (i + 1) & (t->n_slot - 1)) {
        fa_strslot *e = &t->slot[i];
        if (!e->id1) return e;
        if (e->len != len) continue;
        if (len <= 8) {
            if (e->head == y.head) return e;
        } else if (e->head >> 32 == y.hash >> 32 && equal(t->pool + (uint32_t)e->head, s, len)) {
            return e;
        }
    }
}

bool fa_strtab_index(fa_strtab *t, const uint8_t *keep) {
    enum { AHEAD = 16 };
    fa_strkey key[AHEAD];
    size_t n = 16;
    while (n * 3 < t->n_id * 4) n *= 2;
    fa_free(t->slot);
    t->n_slot = 0;
    t->doubles = false;
    t->slot = (fa_strslot *)fa_table_calloc(n, sizeof *t->slot);
    if (!t->slot) return false;
    t->n_slot = n;
    for (size_t i = 0; i < t->n_id; i += AHEAD) {
        size_t z = i + AHEAD < t->n_id ? i + AHEAD : t->n_id;
        for (size_t k = i; k < z; k++) {
            if (t->span[k].off == UINT32_MAX) continue;
            const char *s = t->pool + t->span[k].off;
            key[k - i].head = head_wide(s, t->span[k].len);
            key[k - i].hash = hash_of(s, t->span[k].len, key[k - i].head);
            __builtin_prefetch(&t->slot[key[k - i].hash & (n - 1)], 1);
        }
        for (size_t k = i; k < z; k++) {
            if (t->span[k].off == UINT32_MAX || (keep && !keep[k])) continue;
            size_t len = t->span[k].len;
            fa_strkey y = key[k - i];
            fa_strslot *e = find_slot(t, t->pool + t->span[k].off, len, y);
            t->doubles |= e->id1 != 0;
            uint64_t head = len <= 8 ? y.head : (y.hash >> 32 << 32 | t->span[k].off);
            *e = (fa_strslot){head, (uint32_t)k + 1, (uint32_t)len};
        }
    }
    return true;
}

fa_strkey fa_strtab_begin(const fa_strtab *t, const char *s, size_t len, const char *lim) {
    fa_strkey y = {lim - s >= 8 ? head_wide(s, len) : head_of(s, len), 0};
    if (len <= t->max_len) y.hash = hash_of(s, len, y.head);
    if (t->n_slot) __builtin_prefetch(&t->slot[y.hash & (t->n_slot - 1)]);
    return y;
}

void fa_strtab_fetch_long(const fa_strtab *t, fa_strkey key) {
    if (!t->n_slot) return;
    const fa_strslot *e = &t->slot[key.hash & (t->n_slot - 1)];
    if (e->len > 8) __builtin_prefetch(t->pool + (uint32_t)e->head);
}

int32_t fa_strtab_end(const fa_strtab *t, const char *s, size_t len, fa_strkey key) {
    if (!t->n_slot || len > t->max_len) return -1;
    return (int32_t)find_slot(t, s, len, key)->id1 - 1;
}

int32_t fa_strtab_find(const fa_strtab *t, const char *s, size_t len) {
    if (!t->n_slot || len > t->max_len) return -1;
    fa_strkey y = {head_of(s, len), 0};
    y.hash = hash_of(s, len, y.head);
    return (int32_t)find_slot(t, s, len, y)->id1 - 1;
}

bool fa_strtab_is(const fa_strtab *t, uint32_t id, const char *a, size_t na, fa_strkey ka, const char *b, size_t nb,
                  fa_strkey kb) {
    if (!fa_strtab_has(t, id) || t->span[id].len != na + nb) return false;
    const char *s = t->pool + t->span[id].off;
    if (na && na + nb <= 8) return head_wide(s, na + nb) == (ka.head | (nb ? kb.head << na * 8 : 0));
    return equal(s, a, na) && equal(s + na, b, nb);
}
