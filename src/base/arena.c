/* The arena; its host memory on mmap: PROT_NONE reservation, mprotect to commit. */
#define _DEFAULT_SOURCE
#include "base/arena.h"

#include <string.h>
#include <sys/mman.h>

static void *host_reserve(void *user, size_t *bytes, fa_error *err) {
    (void)user;
    /* an address-space limit (ulimit -v) may refuse a large reservation: halve it down to 64 MiB */
    for (; *bytes >= (size_t)64 << 20; *bytes /= 2) {
        void *p = mmap(NULL, *bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p != MAP_FAILED) return p;
    }
    fa_fail(err, FFAI_ENOMEM, "cannot reserve address space for activations");
    return NULL;
}

static int host_commit(void *user, void *base, size_t from, size_t to) {
    (void)user;
    return mprotect((uint8_t *)base + from, to - from, PROT_READ | PROT_WRITE);
}

static void host_unreserve(void *user, void *base, size_t bytes, size_t committed) {
    (void)user, (void)committed;
    munmap(base, bytes);
}

int fa_arena_create(fa_arena *a, size_t reserve, const fa_arena_source *source, fa_error *err) {
    static const fa_arena_source host = {NULL, host_reserve, host_commit, host_unreserve};
    memset(a, 0, sizeof *a);
    a->source = source ? *source : host;
    a->base = (uint8_t *)a->source.reserve(a->source.user, &reserve, err);
    if (!a->base) return FFAI_ENOMEM;
    a->reserved = reserve;
    return 0;
}

void fa_arena_destroy(fa_arena *a) {
    if (a->base) a->source.unreserve(a->source.user, a->base, a->reserved, a->committed);
    memset(a, 0, sizeof *a);
}

void *fa_arena_alloc(fa_arena *a, size_t bytes) {
    if (bytes > a->reserved - a->used) return NULL;
    size_t need = (bytes + FA_ARENA_ALIGN - 1) / FA_ARENA_ALIGN * FA_ARENA_ALIGN;
    if (need > a->reserved - a->used) return NULL;
    size_t end = a->used + need;
    if (end > a->committed && !a->dry) {
        size_t to = (end + FA_ARENA_STEP - 1) / FA_ARENA_STEP * FA_ARENA_STEP;
        if (to > a->reserved) to = a->reserved;
        if (a->source.commit(a->source.user, a->base, a->committed, to) != 0) return NULL;
        a->committed = to;
    }
    void *p = a->base + a->used;
    a->used = end;
    if (end > a->peak) a->peak = end;
    return p;
}
