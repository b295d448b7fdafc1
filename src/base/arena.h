/* The step arena: activations of one step. Address space is reserved once and committed as recordings need it, so it
 * never moves and the same recording always gets the same addresses. Allocation is a bump; layers release what they
 * used by resetting to a mark. */
#ifndef FA_BASE_ARENA_H
#define FA_BASE_ARENA_H

#include "base/err.h"

typedef struct fa_arena {
    uint8_t *base;
    size_t reserved, committed, used, peak;
} fa_arena;

int fa_arena_create(fa_arena *a, size_t reserve, fa_error *err);
void fa_arena_destroy(fa_arena *a);
/* 64-byte aligned, contents undefined; NULL when the reservation is exhausted or the machine has no memory left. */
void *fa_arena_alloc(fa_arena *a, size_t bytes);
static inline size_t fa_arena_mark(const fa_arena *a) { return a->used; }
static inline void fa_arena_reset(fa_arena *a, size_t mark) { a->used = mark; }

#endif
