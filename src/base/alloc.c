/* Heap blocks with overflow checks and a fault hook. */
#define _DEFAULT_SOURCE
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic long g_fail_at; /* tests: counts down to the allocation that fails; 0 = off */

void fa_alloc_fail_at(long n) { atomic_store(&g_fail_at, n); }

long fa_alloc_fail_left(void) { return atomic_load(&g_fail_at); }

static int must_fail(void) {
    if (atomic_load_explicit(&g_fail_at, memory_order_relaxed) == 0) return 0;
    return atomic_fetch_sub(&g_fail_at, 1) == 1;
}

void *fa_calloc(size_t n, size_t size) {
    if (must_fail()) return NULL;
    return calloc(n ? n : 1, size ? size : 1);
}

void *fa_realloc(void *p, size_t n, size_t size) {
    if (must_fail() || (size && n > SIZE_MAX / size)) return NULL;
    size_t bytes = n * size;
    return realloc(p, bytes ? bytes : 1);
}

void *fa_aligned_calloc(size_t align, size_t bytes) {
    if (must_fail() || bytes > SIZE_MAX - align) return NULL;
    size_t rounded = (bytes + align - 1) / align * align;
    void *p = aligned_alloc(align, rounded ? rounded : align);
    if (p) memset(p, 0, rounded ? rounded : align);
    return p;
}

void *fa_table_calloc(size_t n, size_t size) {
    void *p = fa_calloc(n, size);
#ifdef MADV_HUGEPAGE
    const uintptr_t page = 4096;
    if (p && n * size >= (size_t)2 << 20) { /* a hint: without it the pages are small ones */
        uintptr_t from = ((uintptr_t)p + page - 1) / page * page, to = ((uintptr_t)p + n * size) / page * page;
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
#endif
    return p;
}

void *fa_huge_alloc(size_t bytes) {
    const size_t huge = (size_t)2 << 20;
    if (must_fail() || bytes > SIZE_MAX - huge) return NULL;
    const size_t rounded = (bytes + huge - 1) / huge * huge;
    void *p = aligned_alloc(huge, rounded ? rounded : huge);
#ifdef MADV_HUGEPAGE
    if (p) (void)madvise(p, rounded, MADV_HUGEPAGE); /* before anything is written */
#endif
    return p;
}

char *fa_strndup(const char *s, size_t n) {
    char *p = (char *)fa_calloc(n + 1, 1);
    if (p) memcpy(p, s, n);
    return p;
}

char *fa_strdup(const char *s) { return fa_strndup(s, strlen(s)); }

void fa_free(void *p) { free(p); }
