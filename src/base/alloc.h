/* Allocation: every heap block of the library comes from here, zeroed, with overflow checks, so that tests can make the
 * n-th one fail. */
#ifndef FA_BASE_ALLOC_H
#define FA_BASE_ALLOC_H

#include <stddef.h>

void *fa_calloc(size_t n, size_t size);              /* zeroed; NULL when out of memory or n * size overflows */
void *fa_realloc(void *p, size_t n, size_t size);    /* new bytes are not zeroed; on NULL the old block stays */
void *fa_aligned_calloc(size_t align, size_t bytes); /* zeroed; free with fa_free */
/* Zeroed, for large tables that are read at random: on huge pages where the system has them. Free with fa_free. */
void *fa_table_calloc(size_t n, size_t size);
/* Not zeroed and not touched yet, for weights: begins on a boundary of 2 MiB, on huge pages where the system has them.
 */
void *fa_huge_alloc(size_t bytes);
char *fa_strndup(const char *s, size_t n);
char *fa_strdup(const char *s);
void fa_free(void *p);

#define FA_NEW(type)     ((type *)fa_calloc(1, sizeof(type)))
#define FA_NEWN(type, n) ((type *)fa_calloc((n), sizeof(type)))

/* Tests only: the n-th allocation from now on (1 = the next) returns NULL, once; 0 turns it off. */
void fa_alloc_fail_at(long n);
/* Tests only: allocations left until the one that fails; 0 when it came. */
long fa_alloc_fail_left(void);

#endif
