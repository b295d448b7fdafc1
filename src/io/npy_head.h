/* What the .npy and .npz writers share. */
#ifndef FA_IO_NPY_HEAD_H
#define FA_IO_NPY_HEAD_H

#include "base/buf.h"
#include "io/npy.h"

/* Appends the .npy header; *bytes is what the data take. FFAI_EINVAL for a type or shape that cannot be written,
 * FFAI_ENOMEM. */
int fa_npy_header(fa_buf *b, fa_dtype dtype, int n_dim, const int64_t *dim, int64_t *bytes);

#endif
