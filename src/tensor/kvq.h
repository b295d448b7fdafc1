/* Keys and values in 8 bits: a row of one head is cut into groups of FA_KVQ_GROUP elements (the last may be shorter),
 * each with a scale: x ~ code * scale, code in [-127, 127]. The dtype of such a cache is FA_I8.
 *
 * A page of one head holds the codes of its rows, [rows, dim] int8, then the scales, [rows, groups] f16. */
#ifndef FA_TENSOR_KVQ_H
#define FA_TENSOR_KVQ_H

#include "tensor/dtype.h"

enum { FA_KVQ_GROUP = 32 };

static inline int64_t fa_kvq_groups(int64_t dim) { return (dim + FA_KVQ_GROUP - 1) / FA_KVQ_GROUP; }

/* Bytes of one row of one head of a cache of type t, scales with them. */
static inline int64_t fa_kv_row_bytes(fa_dtype t, int64_t dim) {
    return dim * (int64_t)fa_dtype_size(t) + (t == FA_I8 ? 2 * fa_kvq_groups(dim) : 0);
}

/* One row. scale = f16(amax / 127), the nearest even; code = x / scale, the nearest even. A group with an infinity or a
 * NaN gets a scale of NaN, one that rounds to a scale of 0 becomes zeros. */
void fa_kvq_row(const float *x, int64_t dim, int8_t *codes, uint16_t *scale);
/* Rows [r0, r1) of a page of n_row rows as f32, [n_row, dim]; the others are not touched. Any alignment. */
void fa_kvq_to_f32(const void *page, int64_t n_row, int64_t dim, int64_t r0, int64_t r1, float *out);
/* Name of a cache type as --kv-cache has it. */
const char *fa_kv_type_name(fa_dtype t);

#endif
