/* The string map. */
#include "base/smap.h"
#include "base/alloc.h"

#include <string.h>

/* Multiply-fold over 8-byte words (the construction of wyhash, in its simplest form). */
static uint64_t mix(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 u128;
    u128 p = (u128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
#else
    uint64_t x = a * b;
    return x ^ (x >> 32) ^ (a >> 29) ^ (b << 7);
#endif
}

uint64_t fa_hash(const void *data, size_t n) {
    const uint8_t *p = (const uint8_t *)data;
    uint64_t h = UINT64_C(0xA0761D6478BD642F) ^ n, w;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&w, p, 8);
        h = mix(h ^ w, UINT64_C(0xE7037ED1A0B428DB));
    }
    w = 0;
    if (n) memcpy(&w, p, n);
    return mix(h ^ w, UINT64_C(0x8EBC6AF09C88C6E3));
}

static fa_smap_slot *find(fa_smap_slot *slot, size_t cap, const char *key, size_t len, uint64_t hash) {
    for (size_t i = hash & (cap - 1);; i = (i + 1) & (cap - 1)) {
        fa_smap_slot *s = &slot[i];
        if (!s->key || (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0)) return s;
    }
}

bool fa_smap_reserve(fa_smap *m, size_t n) {
    size_t cap = m->cap ? m->cap : 16;
    while (cap < n + n / 2) cap *= 2;
    if (cap == m->cap) return true;
    fa_smap_slot *slot = FA_NEWN(fa_smap_slot, cap);
    if (!slot) return false;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slot[i].key) *find(slot, cap, m->slot[i].key, m->slot[i].len, m->slot[i].hash) = m->slot[i];
    fa_free(m->slot);
    m->slot = slot;
    m->cap = cap;
    return true;
}

int fa_smap_put(fa_smap *m, const char *key, size_t len, uint32_t value) {
    if (len > UINT32_MAX || !fa_smap_reserve(m, m->n + 1)) return -1;
    uint64_t hash = fa_hash(key, len);
    fa_smap_slot *s = find(m->slot, m->cap, key, len, hash);
    if (s->key) return 0;
    *s = (fa_smap_slot){key, (uint32_t)len, value, hash};
    m->n++;
    return 1;
}

bool fa_smap_get(const fa_smap *m, const char *key, size_t len, uint32_t *value) {
    if (!m->n) return false;
    fa_smap_slot *s = find(m->slot, m->cap, key, len, fa_hash(key, len));
    if (s->key) *value = s->value;
    return s->key != NULL;
}

void fa_smap_free(fa_smap *m) {
    fa_free(m->slot);
    memset(m, 0, sizeof *m);
}
