/* String map: byte strings to 32-bit values. Keys are borrowed (they must outlive the map). Open addressing, 64-bit
 * hash. */
#ifndef FA_BASE_SMAP_H
#define FA_BASE_SMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fa_smap_slot {
    const char *key; /* NULL = free */
    uint32_t len, value;
    uint64_t hash;
} fa_smap_slot;

typedef struct fa_smap {
    fa_smap_slot *slot;
    size_t cap, n; /* cap is a power of two or 0 */
} fa_smap;

uint64_t fa_hash(const void *data, size_t n);
bool fa_smap_reserve(fa_smap *m, size_t n); /* false: out of memory */
/* Inserts; an existing key keeps its value. Returns 1 inserted, 0 was there, -1 out of memory. */
int fa_smap_put(fa_smap *m, const char *key, size_t len, uint32_t value);
bool fa_smap_get(const fa_smap *m, const char *key, size_t len, uint32_t *value);
void fa_smap_free(fa_smap *m);

#endif
