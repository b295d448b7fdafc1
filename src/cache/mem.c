/* Memory of caches. */
#define _DEFAULT_SOURCE
#include "cache/mem.h"
#include "base/cpus.h"

#include <sys/mman.h>

/* mmap has no room of no bytes */
static size_t some(size_t bytes) { return bytes ? bytes : 1; }

int fa_cache_reserve(fa_device *dev, void **mem, size_t bytes, const char *what, fa_error *err) {
    bytes = some(bytes);
    if (dev) {
        *mem = dev->alloc(dev, bytes, what, err);
        return *mem ? dev->fill(dev, *mem, 0, bytes, err) : FFAI_ENOMEM;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return fa_fail(err, FFAI_ENOMEM, "cache: cannot reserve %zu bytes for %s", bytes, what);
    fa_nodes_spread(p, bytes);
    *mem = p;
    return 0;
}

void fa_cache_release(fa_device *dev, void *mem, size_t bytes) {
    if (mem && dev)
        dev->release(dev, mem);
    else if (mem)
        munmap(mem, some(bytes));
}
