/* A tensor value: a view that owns nothing and is passed by value. Row-major, outermost dimension first, as in papers
 * and checkpoints. */
#ifndef FA_TENSOR_TENSOR_H
#define FA_TENSOR_TENSOR_H

#include "tensor/dtype.h"

typedef struct fa_tensor {
    void *data;     /* NULL: an empty tensor (what an op returns after an error) */
    int64_t dim[4]; /* dim[0] outermost; unused trailing dims are 1 */
    uint8_t n_dim;
    uint8_t dtype; /* fa_dtype */
} fa_tensor;

static inline int64_t fa_tensor_len(fa_tensor t) { return t.dim[0] * t.dim[1] * t.dim[2] * t.dim[3]; }
static inline float *fa_f32(fa_tensor t) { return (float *)t.data; }

#endif
