/* Keys and values of 16 bits, as attend_decode multiplies them. Scores are [16 rows of the unit, 16 keys], results [16
 * rows, columns]; q and the weights are left factors. Here g = lane / 4 and t = lane % 4. */
#ifndef FA_CUDA_ATTEND_KEYS16_CUH
#define FA_CUDA_ATTEND_KEYS16_CUH

#include "backend/cuda/attend_few.cuh"

template <int HD, int WARPS, int DEEP, int KV> struct keys16 {
    static constexpr int WD = WARPS, DIMS = HD / WD, STAGES = DEEP;
    static constexpr int STAGE = 2 * 16 * DIMS / 8; /* pieces of 16 keys, then of 16 values */
    static constexpr int BLOCKS = 2, SCORES = 8, SEEN = 2, ASIDE = 1;

    uint32_t q[DIMS / 16][4], p[4];
    float m[SEEN], l[SEEN]; /* of rows g and g + 8; l: this lane's part */
    float acc[DIMS / 8][4];

    CU_DEV int key_of(int e) { return 2 * ((int)threadIdx.x % 4) + e % 2 + e / 4 * 8; }
    CU_DEV int seen_of(int e) { return e / 2 % 2; }
    CU_DEV int row_of(int i) { return (int)threadIdx.x % CU_WARP / 4 + 8 * i; }

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
        const int lane = (int)threadIdx.x % CU_WARP, r = lane / 8 % 2 * 8 + lane % 8, half = lane / 16;
        stage_q<DIMS, ATT_ROWS, KV>(a, it, dim0, x);
        __syncwarp();
#pragma unroll
        for (int j = 0; j < DIMS / 16; j++) cu_ldmatrix_x4(q[j], x + piece<DIMS>(r, 2 * j + half));
        __syncwarp();
        m[0] = m[1] = -INFINITY;
        l[0] = l[1] = 0;
#pragma unroll
        for (int i = 0; i < DIMS / 8 * 4; i++) acc[i / 4][i % 4] = 0;
    }

    __device__ __forceinline__ void scores(const cu_att &, const uint8_t *smem, int stage, const float *,
                                           float *s) const {
        const uint4 *k = (const uint4 *)(smem + stage);
        const int lane = (int)threadIdx.x % CU_WARP, r = lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
#pragma unroll
        for (int e = 0; e < SCORES; e++) s[e] = 0;
#pragma unroll
        for (int i = 0; i < DIMS / 16; i++) {
            uint32_t b[4];
            cu_ldmatrix_x4(b, k + piece<DIMS>(r, 2 * i + half));
            cu_att_mma<KV>(s, q[i], b);
            cu_att_mma<KV>(s + 4, q[i], b + 2);
        }
    }

    /* Scores to weights; earlier sums are scaled. */
    __device__ __forceinline__ void soften(const float *s) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float *lo = s + 2 * h, *hi = lo + 4;
            float top = fmaxf(fmaxf(lo[0], lo[1]), fmaxf(hi[0], hi[1]));
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
            top = fmaxf(top, m[h]);
            const float base = top == -INFINITY ? 0.0f : top;
            const float keep = cu_exp2(m[h] - base);
            m[h] = top;
            l[h] *= keep;
#pragma unroll
            for (int i = 0; i < DIMS / 8; i++) {
                acc[i][2 * h] *= keep;
                acc[i][2 * h + 1] *= keep;
            }
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const float x = cu_exp2(s[4 * n + 2 * h] - base), y = cu_exp2(s[4 * n + 2 * h + 1] - base);
                l[h] += x + y;
                p[2 * n + h] = cu_att_pack<KV>(x, y);
            }
        }
    }

    /* acc += weights times values */
    __device__ __forceinline__ void add_values(const cu_att &, const uint8_t *smem, int stage, int, int) {
        const int lane = (int)threadIdx.x % CU_WARP, r = lane / 8 % 2 * 8 + lane % 8, half = lane / 16;
        const uint4 *v = (const uint4 *)(smem + stage) + STAGE / 2;
#pragma unroll
        for (int i = 0; i < DIMS / 16; i++) {
            uint32_t b[4];
            cu_ldmatrix_x4_trans(b, v + piece<DIMS>(r, 2 * i + half));
            cu_att_mma<KV>(acc[2 * i], p, b);
            cu_att_mma<KV>(acc[2 * i + 1], p, b + 2);
        }
    }

    /* Sums of the rows, in all lanes that have them. */
    __device__ __forceinline__ void end() {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            l[h] += __shfl_xor_sync(0xFFFFFFFFu, l[h], 1);
            l[h] += __shfl_xor_sync(0xFFFFFFFFu, l[h], 2);
        }
    }

    CU_DEV bool names_row() { return threadIdx.x % 4 == 0; } /* one lane of those with the same rows */

    /* The lane's columns of its row number i, from dim0 on. */
    __device__ __forceinline__ void put(int i, int dim0, int n_col, float *row) const {
#pragma unroll
        for (int j = 0; j < DIMS / 8; j++) {
            const int c = dim0 + 8 * j + 2 * ((int)threadIdx.x % 4);
            if (c < n_col) *(float2 *)(row + c) = make_float2(acc[j][2 * i], acc[j][2 * i + 1]);
        }
    }
};

#endif
