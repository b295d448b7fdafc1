/* Memory that is freed all at once with its owner (a model's structures). Not for tensors of a step: that is the arena.
 */
#ifndef FA_BASE_MEM_H
#define FA_BASE_MEM_H

#include <stddef.h>

typedef struct fa_mem {
    void **block;
    size_t n, cap;
} fa_mem;

void *fa_mem_calloc(fa_mem *m, size_t n, size_t size); /* zeroed, 64-byte aligned; NULL when out of memory */
void *fa_mem_huge(fa_mem *m, size_t bytes);            /* in pages of 2 MiB where the system has them; holds anything */
char *fa_mem_printf(fa_mem *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fa_mem_free(fa_mem *m);

#endif
