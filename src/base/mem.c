/* Owner-lifetime memory: a list of blocks. */
#include "base/mem.h"
#include "base/alloc.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Room for one more block in the list */
static bool grow(fa_mem *m) {
    if (m->n < m->cap) return true;
    size_t cap = m->cap ? 2 * m->cap : 32;
    void **grown = (void **)fa_realloc(m->block, cap, sizeof *grown);
    if (!grown) return false;
    m->block = grown;
    m->cap = cap;
    return true;
}

void *fa_mem_calloc(fa_mem *m, size_t n, size_t size) {
    if ((size && n > SIZE_MAX / size) || !grow(m)) return NULL;
    void *p = fa_aligned_calloc(64, n * size);
    if (p) m->block[m->n++] = p;
    return p;
}

void *fa_mem_huge(fa_mem *m, size_t bytes) {
    void *p = grow(m) ? fa_huge_alloc(bytes) : NULL;
    if (p) m->block[m->n++] = p;
    return p;
}

char *fa_mem_printf(fa_mem *m, const char *fmt, ...) {
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : (char *)fa_mem_calloc(m, (size_t)n + 1, 1);
    if (s) vsnprintf(s, (size_t)n + 1, fmt, ap2);
    va_end(ap2);
    return s;
}

void fa_mem_free(fa_mem *m) {
    for (size_t i = 0; i < m->n; i++) fa_free(m->block[i]);
    fa_free(m->block);
    memset(m, 0, sizeof *m);
}
