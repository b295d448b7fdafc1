/* Strings with ids: the vocabulary. One pool for the bytes, offsets by id, and a hash table from string to id whose
 * slots are 8 bytes, so that the table of a 262,144-token vocabulary is 4 MB. Indexing and batched look-ups prefetch:
 * at that size each access is a cache miss. */
#include "text/tok_int.h"
#include "base/alloc.h"

#include <string.h>

void fa_strtab_free(fa_strtab *t) {
    fa_free(t->pool);
    fa_free(t->span);
    fa_free(t->slot);
    memset(t, 0, sizeof *t);
}

static bool grow_ids(fa_strtab *t, size_t n) {
    if (n <= t->n_id) return true;
    if (n > t->cap_id) {
        size_t cap = t->cap_id * 2 > n ? t->cap_id * 2 : n;
        fa_span *span = (fa_span *)fa_realloc(t->span, cap, sizeof *span);
        if (!span) return false;
        t->span = span;
        t->cap_id = cap;
    }
    for (size_t i = t->n_id; i < n; i++) t->span[i] = (fa_span){UINT32_MAX, 0};
    t->n_id = n;
    return true;
}

bool fa_strtab_set(fa_strtab *t, uint32_t id, const char *s, size_t len) {
    size_t need = t->pool_len + len + 1;
    if (!grow_ids(t, (size_t)id + 1) || need >= UINT32_MAX) return false;
    if (need > t->pool_cap) {
        size_t cap = need + need / 2 + 64;
        char *p = (char *)fa_realloc(t->pool, cap, 1);
        if (!p) return false;
        t->pool = p;
        t->pool_cap = cap;
    }
    t->span[id].off = (uint32_t)t->pool_len;
    t->span[id].len = (uint32_t)len;
    if (len) memcpy(t->pool + t->pool_len, s, len);
    t->pool[t->pool_len + len] = 0;
    t->pool_len = need;
    if (len > t->max_len) t->max_len = (uint32_t)len;
    return true;
}

uint64_t fa_strtab_hash(const char *s, size_t len) { return fa_hash(s, len); }

void fa_strtab_prefetch(const fa_strtab *t, uint64_t hash, int depth) {
    const fa_strslot *e = &t->slot[hash & (t->n_slot - 1)];
    if (depth == 0)
        __builtin_prefetch(e);
    else if (e->id1 && depth == 1)
        __builtin_prefetch(&t->span[e->id1 - 1]);
    else if (e->id1)
        __builtin_prefetch(t->pool + t->span[e->id1 - 1].off);
}

/* The slot that holds the string, or the free one where it belongs. */
static fa_strslot *find_slot(const fa_strtab *t, const char *s, size_t len, uint64_t hash) {
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & (t->n_slot - 1);; i = (i + 1) & (t->n_slot - 1)) {
        fa_strslot *e = &t->slot[i];
        if (!e->id1) return e;
        uint32_t id = e->id1 - 1;
        if (e->tag == tag && t->span[id].len == len && memcmp(t->pool + t->span[id].off, s, len) == 0) return e;
    }
}

bool fa_strtab_index(fa_strtab *t, const uint8_t *keep) {
    enum { AHEAD = 16 };
    uint64_t hash[AHEAD];
    size_t n = 16;
    while (n < t->n_id * 2) n *= 2;
    fa_free(t->slot);
    t->n_slot = 0;
    t->slot = FA_NEWN(fa_strslot, n);
    if (!t->slot) return false;
    t->n_slot = n;
    for (size_t i = 0; i < t->n_id; i += AHEAD) {
        size_t z = i + AHEAD < t->n_id ? i + AHEAD : t->n_id;
        for (size_t k = i; k < z; k++) {
            if (t->span[k].off == UINT32_MAX) continue;
            hash[k - i] = fa_hash(t->pool + t->span[k].off, t->span[k].len);
            __builtin_prefetch(&t->slot[hash[k - i] & (n - 1)], 1);
        }
        for (size_t k = i; k < z; k++) {
            if (t->span[k].off == UINT32_MAX || (keep && !keep[k])) continue;
            fa_strslot *e = find_slot(t, t->pool + t->span[k].off, t->span[k].len, hash[k - i]);
            e->tag = (uint32_t)(hash[k - i] >> 32);
            e->id1 = (uint32_t)k + 1;
        }
    }
    return true;
}

int32_t fa_strtab_find_hashed(const fa_strtab *t, const char *s, size_t len, uint64_t hash) {
    if (!t->n_slot || len > t->max_len) return -1;
    return (int32_t)find_slot(t, s, len, hash)->id1 - 1;
}

int32_t fa_strtab_find(const fa_strtab *t, const char *s, size_t len) {
    if (len > t->max_len) return -1;
    return fa_strtab_find_hashed(t, s, len, fa_hash(s, len));
}
