/* The arena on mmap: PROT_NONE reservation, mprotect to commit. */
#define _DEFAULT_SOURCE
#include "base/arena.h"

#include <string.h>
#include <sys/mman.h>

enum { COMMIT_STEP = 1 << 21, ALIGN = 64 };

int fa_arena_create(fa_arena *a, size_t reserve, fa_error *err) {
    memset(a, 0, sizeof *a);
    void *p = MAP_FAILED;
    /* an address-space limit (ulimit -v) may refuse a large reservation: halve it down to 64 MiB */
    for (; reserve >= (size_t)64 << 20; reserve /= 2) {
        p = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p != MAP_FAILED) break;
    }
    if (p == MAP_FAILED) return fa_fail(err, FFAI_ENOMEM, "cannot reserve address space for activations");
    a->base = (uint8_t *)p;
    a->reserved = reserve;
    return 0;
}

void fa_arena_destroy(fa_arena *a) {
    if (a->base) munmap(a->base, a->reserved);
    memset(a, 0, sizeof *a);
}

void *fa_arena_alloc(fa_arena *a, size_t bytes) {
    if (bytes > a->reserved - a->used) return NULL;
    size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (need > a->reserved - a->used) return NULL;
    size_t end = a->used + need;
    if (end > a->committed) {
        size_t to = (end + COMMIT_STEP - 1) / COMMIT_STEP * COMMIT_STEP;
        if (to > a->reserved) to = a->reserved;
        if (mprotect(a->base + a->committed, to - a->committed, PROT_READ | PROT_WRITE) != 0) return NULL;
        a->committed = to;
    }
    void *p = a->base + a->used;
    a->used = end;
    if (end > a->peak) a->peak = end;
    return p;
}
