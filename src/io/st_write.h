/* Writing a safetensors file from arrays in memory. */
#ifndef FA_IO_ST_WRITE_H
#define FA_IO_ST_WRITE_H

#include "base/err.h"
#include "tensor/dtype.h"

typedef struct fa_st_item {
    const char *name;
    const void *data;
    int64_t dim[3];
    int n_dim;
    fa_dtype dtype;
} fa_st_item;

/* Replaces path. The header is padded to 64 bytes, so that every array whose predecessors are so sized starts aligned.
 */
int fa_st_write(const char *path, const fa_st_item *item, size_t n, fa_error *err);

#endif
