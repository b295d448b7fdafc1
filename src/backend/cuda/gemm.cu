/* Matrix products y [M, N] = x [M, K] w [N, K]^T: by the library where it has a way, else by the kernel here, which
 * takes any shape and any alignment. The kernel is also the definition that the emulated build runs.
 *
 * The kernel: a block of 256 threads computes a 64 x 64 tile of y, a thread 4 x 4 of it, in f32 with one sum per
 * element in the order of k. 16 columns of x and w at a time lie in shared memory as f32, k outermost, so that a thread
 * reads its four rows of either as one float4; rows of 68 floats keep the transposing stores apart. */
#include "backend/cuda/cu.h"

enum { TILE = 64, STEP = 16, THREADS = 256, LD = TILE + 4 };

template <bool BF16> CU_DEV float element(const void *p, int64_t i) {
    return BF16 ? cu_bf16(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

/* Rows [row0, row0 + TILE) of m, columns [k0, k0 + STEP), transposed to s; zeros beyond its n_row rows and K columns. A
 * thread takes four neighbouring columns of one row. */
template <bool BF16>
CU_DEV void load_tile(float (*s)[LD], const void *m, int64_t ld, int64_t row0, int64_t n_row, int64_t k0, int64_t K) {
    const int row = (int)threadIdx.x / 4, k = (int)threadIdx.x % 4 * 4;
    for (int i = 0; i < 4; i++) {
        bool inside = row0 + row < n_row && k0 + k + i < K;
        s[k + i][row] = inside ? element<BF16>(m, (row0 + row) * ld + k0 + k + i) : 0.0f;
    }
}

template <bool BF16> static __global__ void __launch_bounds__(THREADS) gemm_tile(cu_product p) {
    __shared__ __align__(16) float xs[STEP][LD];
    __shared__ __align__(16) float ws[STEP][LD];
    const int tm = (int)threadIdx.x / 16 * 4, tn = (int)threadIdx.x % 16 * 4;
    const int64_t m0 = (int64_t)blockIdx.x * TILE, n0 = (int64_t)blockIdx.y * TILE;
    float acc[4][4] = {};
    cu_pdl_launch();
    cu_pdl_wait();
    for (int64_t k0 = 0; k0 < p.K; k0 += STEP) {
        load_tile<BF16>(xs, p.x, p.ldx, m0, p.M, k0, p.K);
        load_tile<BF16>(ws, p.w, p.ldw, n0, p.N, k0, p.K);
        __syncthreads();
        for (int k = 0; k < STEP; k++) {
            const float4 x = *(const float4 *)&xs[k][tm], w = *(const float4 *)&ws[k][tn];
            const float xa[4] = {x.x, x.y, x.z, x.w}, wa[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = fmaf(xa[i], wa[j], acc[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t m = m0 + tm + i, n = n0 + tn + j, at = m * p.ldy + n;
            if (m >= p.M || n >= p.N) continue;
            float v = acc[i][j] + (p.bias ? p.bias[n] : 0.0f);
            if (p.y_type == FA_F32)
                ((float *)p.y)[at] = p.add ? ((float *)p.y)[at] + v : v;
            else
                ((uint16_t *)p.y)[at] = cu_to_bf16(p.add ? cu_bf16(((uint16_t *)p.y)[at]) + v : v);
        }
    }
}

void cu_gemm_plain(fa_cuda *cu, const cu_product *p) {
    dim3 grid(cu_blocks(p->M, TILE), cu_blocks(p->N, TILE));
    if (p->type == FA_BF16)
        CU_LAUNCH(cu, gemm_tile<true>, grid, THREADS, 0, *p);
    else
        CU_LAUNCH(cu, gemm_tile<false>, grid, THREADS, 0, *p);
}

void cu_gemm(fa_cuda *cu, const cu_product *p) {
    if (cu->err.code || p->M <= 0 || p->N <= 0) return;
    if (!cu_blas_product(cu, p)) cu_gemm_plain(cu, p);
}
