/* Keys and values of 16 bits, as attend_decode multiplies them: left factors by ldmatrix, values transposed. */
#ifndef FA_CUDA_ATTEND_KEYS16_CUH
#define FA_CUDA_ATTEND_KEYS16_CUH

#include "backend/cuda/attend_few.cuh"

template <int HD, int WARPS, int DEEP, int KV, int NT> struct keys16 : few_rows<HD / WARPS, NT, KV> {
    static constexpr int WD = WARPS, DIMS = HD / WD, STAGES = DEEP;
    static constexpr int STAGE = 2 * 16 * DIMS / 8; /* pieces of 16 keys, then of 16 values */
    static constexpr int BLOCKS = 2, ASIDE = 1;
    using few = few_rows<DIMS, NT, KV>;
    using few::acc, few::p, few::SCORES;

    uint32_t q[NT][DIMS / 32][4]; /* columns [32 i, + 32) of row 8 n + g, as two right factors */

    /* A lane has column piece c of every 32 / CH-th row. */
    CU_DEV void copy(const cu_att &a, int64_t at, int pos, int lo, int to, int dim0, uint8_t *smem, int stage) {
        constexpr int CH = DIMS / 8, ROWS = CU_WARP / CH;
        const int lane = (int)threadIdx.x % CU_WARP, r0 = lane / CH, c = lane % CH;
        const int64_t from = at + 2 * ((pos % FA_PAGE + r0) * a.hd + dim0 + 8 * c); /* 16 positions lie in one page */
        const int first = dim0 + 8 * c < a.hd ? lo - pos : 16, end = to - pos;
        uint4 *k = (uint4 *)(smem + stage), *v = k + 16 * CH;
#pragma unroll
        for (int i = 0; i < CH / 2; i++) {
            const int r = r0 + i * ROWS, n = r >= first && r < end ? 16 : 0;
            const int64_t row = from + i * (2 * ROWS * a.hd);
            cu_cp_async(k + piece<DIMS>(r, c), a.k + row, n);
            cu_cp_async(v + piece<DIMS>(r, c), a.v + row, n);
        }
    }

    __device__ __forceinline__ void begin(const cu_att &a, const cu_att_item &it, int dim0, uint4 *x, float *) {
        const int lane = (int)threadIdx.x % CU_WARP;
        stage_q<DIMS, 8 * NT, KV>(a, it, dim0, x);
        __syncwarp();
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < DIMS / 32; i++)
                cu_ldmatrix_x4(q[n][i], x + piece<DIMS>(8 * n + lane % 8, 4 * i + lane / 8));
        __syncwarp();
        few::clear();
    }

    __device__ __forceinline__ void scores(const cu_att &, const uint8_t *smem, int stage, const float *,
                                           float *s) const {
        const uint4 *k = (const uint4 *)(smem + stage);
        const int lane = (int)threadIdx.x % CU_WARP, r = lane / 8 % 2 * 8 + lane % 8, half = lane / 16;
        float odd[SCORES]; /* two chains of products instead of one */
#pragma unroll
        for (int e = 0; e < SCORES; e++) s[e] = odd[e] = 0;
#pragma unroll
        for (int i = 0; i < DIMS / 16; i++) {
            uint32_t left[4];
            cu_ldmatrix_x4(left, k + piece<DIMS>(r, 2 * i + half));
#pragma unroll
            for (int n = 0; n < NT; n++) cu_att_mma<KV>((i % 2 ? odd : s) + 4 * n, left, q[n][i / 2] + i % 2 * 2);
        }
#pragma unroll
        for (int e = 0; e < SCORES; e++) s[e] += odd[e];
    }

    /* acc += values times weights */
    __device__ __forceinline__ void add_values(const cu_att &, const uint8_t *smem, int stage, int, int) {
        const int lane = (int)threadIdx.x % CU_WARP, r = lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
        const uint4 *v = (const uint4 *)(smem + stage) + STAGE / 2;
#pragma unroll
        for (int i = 0; i < DIMS / 16; i++) {
            uint32_t left[4];
            cu_ldmatrix_x4_trans(left, v + piece<DIMS>(r, 2 * i + half));
#pragma unroll
            for (int n = 0; n < NT; n++) cu_att_mma<KV>(acc[n][i], left, p[n]);
        }
    }

    /* The lane's columns of its row number i, from dim0 on. */
    __device__ __forceinline__ void put(int i, int dim0, int n_col, float *row) const {
#pragma unroll
        for (int j = 0; j < DIMS / 8; j++) {
            const int c = dim0 + 8 * j + (int)threadIdx.x % CU_WARP / 4;
            if (c < n_col) row[c] = acc[i / 2][j / 2][j % 2 * 2 + i % 2];
        }
    }
};

#endif
