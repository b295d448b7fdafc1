/* NumPy files: .npy arrays read and written, .npz archives (stored, not compressed) written. For results that scripts
 * compare (logits, taps), for token ids from files, and for the goldens of tests. Little-endian, C order. */
#ifndef FA_IO_NPY_H
#define FA_IO_NPY_H

#include "base/err.h"
#include "tensor/dtype.h"

enum { FA_NPY_MAX_DIM = 8 };

typedef struct fa_npy {
    fa_dtype dtype; /* FA_F32 FA_F64 FA_I32 FA_I64 */
    int n_dim;      /* 0: one value */
    int64_t dim[FA_NPY_MAX_DIM];
    int64_t n;           /* values */
    const uint8_t *data; /* any alignment */
    char *owned;         /* the file's bytes; NULL after fa_npy_parse */
} fa_npy;

int fa_npy_read(fa_npy *a, const char *path, fa_error *err);
/* The same on bytes in memory that outlive *a. */
int fa_npy_parse(fa_npy *a, const uint8_t *data, size_t size, const char *what, fa_error *err);
void fa_npy_free(fa_npy *a);
/* Value i, 0 <= i < n, converted. A float that is no integer in range is cut off (clamped, NaN is 0). */
int64_t fa_npy_int(const fa_npy *a, int64_t i);
double fa_npy_num(const fa_npy *a, int64_t i);

/* A .npy that is written piece by piece: all of its shape is said at the beginning, then the values come in any
 * portions. dtype: FA_F32 or FA_I32. After an error the writer is gone. */
typedef struct fa_npy_writer fa_npy_writer;
int fa_npy_begin(fa_npy_writer **out, const char *path, fa_dtype dtype, int n_dim, const int64_t *dim, fa_error *err);
int fa_npy_put(fa_npy_writer *w, const void *data, int64_t n, fa_error *err);
int fa_npy_end(fa_npy_writer *w,
               fa_error *err);       /* fails when fewer values came than the shape says; frees w in any case */
void fa_npy_abort(fa_npy_writer *w); /* frees w, leaves an incomplete file */
/* All at once. */
int fa_npy_write(const char *path, fa_dtype dtype, int n_dim, const int64_t *dim, const void *data, fa_error *err);

/* A .npz: each array becomes the member "<name>.npy". Names must differ. Below 4 GiB and 65536 members in all. After an
 * error in add the archive is gone. */
typedef struct fa_npz fa_npz;
int fa_npz_begin(fa_npz **out, const char *path, fa_error *err);
int fa_npz_add(fa_npz *z, const char *name, fa_dtype dtype, int n_dim, const int64_t *dim, const void *data,
               fa_error *err);
int fa_npz_end(fa_npz *z, fa_error *err); /* writes the directory; frees z in any case */
void fa_npz_abort(fa_npz *z);

#endif
