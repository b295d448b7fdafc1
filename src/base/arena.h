/* The step arena: activations of one step. Address space is reserved once and committed as recordings need it, so it
 * never moves and the same recording always gets the same addresses. Allocation is a bump; layers release what they
 * used by resetting to a mark. */
#ifndef FA_BASE_ARENA_H
#define FA_BASE_ARENA_H

#include "base/err.h"

enum { FA_ARENA_ALIGN = 256, FA_ARENA_STEP = 1 << 21 /* memory is committed in multiples of this */ };

/* Where the memory comes from, if not from the host's own. */
typedef struct fa_arena_source {
    void *user;
    void *(*reserve)(void *user, size_t *bytes, fa_error *err); /* may lower *bytes */
    int (*commit)(void *user, void *base, size_t from, size_t to);
    void (*unreserve)(void *user, void *base, size_t bytes, size_t committed);
} fa_arena_source;

typedef struct fa_arena {
    uint8_t *base;
    size_t reserved, committed, used, peak;
    fa_arena_source source;
    bool dry; /* counts only: nothing is committed, addresses are not to be followed */
} fa_arena;

/* source NULL: host memory. */
int fa_arena_create(fa_arena *a, size_t reserve, const fa_arena_source *source, fa_error *err);
void fa_arena_destroy(fa_arena *a);
/* FA_ARENA_ALIGN-byte aligned, contents undefined; NULL when the reservation is exhausted or the machine has no memory
 * left. */
void *fa_arena_alloc(fa_arena *a, size_t bytes);
static inline size_t fa_arena_mark(const fa_arena *a) { return a->used; }
static inline void fa_arena_reset(fa_arena *a, size_t mark) { a->used = mark; }

#endif
