/* What the products of many rows share (moe_many.cu, moe_wgmma.cu): their arguments, and the way to a weight's row. */
#ifndef FA_CUDA_MOE_MANY_CUH
#define FA_CUDA_MOE_MANY_CUH

#include "backend/cuda/cu_rows.h"
#include "backend/cuda/dequant.cuh"
#include "backend/cuda/moe.h"

typedef struct cu_moe_product {
    cu_wmat w[2]; /* with gates: gate and up */
    int64_t stride[2], scale_stride[2];
    const float *bias[2];
    int paired, activate; /* activate: act and limit are for this product */
    int N, K;             /* of the weights */
    const void *x;        /* rows of ldx elements, bf16 or (exact) f32 */
    int64_t ldx;
    const int32_t *list; /* row of x at a place: list / n_used; NULL: the place */
    int n_used;
    const int4 *tile; /* expert, first place, rows */
    const int32_t *n_tile;
    void *out; /* [places, ld] bf16 or f32 */
    int out_type;
    int64_t ld;
    int act;
    float limit;
} cu_moe_product;

CU_DEV float cu_moe_bias(const cu_moe_product &a, int mat, int e, int n) {
    return a.bias[mat] && n < a.N ? a.bias[mat][(int64_t)e * a.N + n] : 0.0f;
}
/* Row of x at place `at`. */
CU_DEV int cu_moe_source(const cu_moe_product &a, int at) { return a.list ? a.list[at] / a.n_used : at; }

CU_DEV cu_wrow cu_moe_row(const cu_moe_product &a, int mat, int e, int n) {
    cu_wrow r = cu_row_of(a.w[mat], n);
    r.codes += e * a.stride[mat];
    r.scales += e * a.scale_stride[mat];
    r.biases += e * a.scale_stride[mat];
    return r;
}

/* moe_wgmma.cu: Hopper's products. Rows of x and h are in an order of their own: cu_moe_wgmma_rows makes it. */
enum { CU_MOE_WGMMA_ROWS = 128, CU_MOE_WGMMA_STEP = 16 }; /* most rows of a tile; tiles but the last have a multiple */
bool cu_moe_wgmma_fits(const fa_cuda *cu, const fa_moe *m);
void cu_moe_wgmma_rows(fa_cuda *cu, const void *x, int x_type, int64_t M, int64_t K, void *out, int64_t ld);
void cu_moe_wgmma(fa_cuda *cu, const cu_moe_product *a);

#endif
