/* What the kernels of adapters share (lora.cu, moe_lora.cu): types of their matrices, scales of rows.
 *
 * Rows of a and b begin at multiples of 16 bytes, with zeros up to the next one. */
#ifndef FA_CUDA_LORA_CUH
#define FA_CUDA_LORA_CUH

#include "backend/cuda/cu_rows.h"

CU_DEV int cu_lora_type(const fa_weight &w) {
    return w.fmt == FA_FMT_F32 ? FA_F32 : w.fmt == FA_FMT_F16 ? FA_F16 : FA_BF16;
}

/* The scale of an adapter for row m of n of the record; 0: the row's sequence does not use it, or there is no such row.
 */
CU_DEV float cu_lora_scale(const fa_lora &l, const cu_batch &b, const int32_t *out_row, int64_t m, int64_t n) {
    if (m >= n) return 0;
    const int64_t row = out_row ? out_row[m] : m;
    return l.scale * b.adapt[(int64_t)b.row_seq[row] * b.n_adapt + l.adapter];
}

CU_DEV float cu_dot4(float4 w, float4 v, float acc) {
    return fmaf(w.x, v.x, fmaf(w.y, v.y, fmaf(w.z, v.z, fmaf(w.w, v.w, acc))));
}

#endif
