/* Keys and values of 8 bits (tensor/kvq.h), as attend_decode multiplies them: codes become f16 in registers, where the
 * tensor cores want them, and scales come after the product (keys) or before it (values).
 *
 * The order of columns within a product is free, so a lane takes neighbours: 8 of a key, 4 of 4 values. (g = lane / 4
 * and t = lane % 4.)
 *
 * Codes of keys are 1152 too large (attend.h) when they are multiplied: a product starts from -1152 times the sum of q
 * instead of 0, which in f32 costs 1e-5 of a score.
 *
 * Instructions of a stage of 16 keys and values of 128 columns, as compiled for sm_90a: about 115 to copy, 150 for
 * scores, 30 for the softmax, 190 for values. Memory needs 320 cycles for it; a multiprocessor has 16 warps, for
 * latencies. */
#ifndef FA_CUDA_ATTEND_KEYS8_CUH
#define FA_CUDA_ATTEND_KEYS8_CUH

#include "backend/cuda/attend_few.cuh"

template <int HD, int WARPS, int DEEP, int NT> struct keys8 : few_rows<HD / WARPS, NT, FA_F16> {
    static constexpr int WD = WARPS, DIMS = HD / WD, STAGES = DEEP, NG = DIMS / FA_KVQ_GROUP;
    static constexpr int CODES = DIMS, SCALES = 2 * cu_kvq_groups(HD); /* pieces of 16 rows */
    static constexpr int STAGE = 2 * (CODES + SCALES);                 /* keys, values, and the scales of both */
    static constexpr int BLOCKS = NT == 1 ? 4 : 2;
    using few = few_rows<DIMS, NT, FA_F16>;
    using few::acc, few::p, few::SCORES;
    static constexpr int ASIDE = NG * 8 * NT; /* [NG, rows] -1152 times the sum of a row's group of q */

    uint4 q[NT][NG]; /* columns [32 b + 8 t, + 8) of row 8 n + g */

    /* Bytes in front of the 32 codes of group 0 of row r; those of group b are at that ^ 32 b. Of any four rows r and
     * on (r % 4 = 0), and of any four r, r + 2.. a group lies in all banks. Row r + 8 is 8 DIMS bytes behind row r. */
    CU_DEV int line(int r) {
        if (DIMS == 64) return r / 2 * 128 + ((r % 2 * 2) ^ (r / 2 % 4)) * 32;
        return r * 128 + (r % 4 ^ r / 4 % 2) * 32;
    }

    /* All scales of a row are taken, by each warp. */
    CU_DEV void copy(const cu_att &a, int64_t at, int pos, int lo, int to, int dim0, uint8_t *smem, int stage) {
        constexpr int CH = DIMS / 16, ROWS = CU_WARP / CH; /* pieces of a row, rows at once: 4 or 8 */
        const int lane = (int)threadIdx.x % CU_WARP, groups = cu_kvq_groups(a.hd), first = pos % FA_PAGE;
        const int r0 = lane / CH, dim = dim0 + lane % CH * 16;
        const unsigned skip = (unsigned)(r0 - (lo - pos)), exist = dim < a.hd && to > lo ? (unsigned)(to - lo) : 0;
        const int row = stage + (line(r0) ^ (lane % CH / 2 * 32)) + lane % 2 * 16;
        const int64_t from = at + (first + r0) * a.hd + dim;
        const uint8_t *k = a.k + from, *v = a.v + from;
#pragma unroll
        for (int i = 0; i < CODES / CU_WARP; i++, k += ROWS * a.hd, v += ROWS * a.hd) {
            const int n = skip + (unsigned)(i * ROWS) < exist ? 16 : 0;
            uint8_t *x = smem + (row ^ (ROWS == 4 ? i % 2 * 32 : 0)) + i * (ROWS * DIMS);
            cu_cp_async(x, k, n);
            cu_cp_async(x + 16 * CODES, v, n);
        }
        if (lane < 2 * groups) { /* of 16 rows: those of a page that is there can be read, whatever they are */
            const int n = pos < to ? 16 : 0;
            const int64_t scales = at + (int64_t)FA_PAGE * a.hd + 2 * first * groups + 16 * lane;
            cu_cp_async(smem + stage + 16 * (2 * CODES + lane), a.k + scales, n);
            cu_cp_async(smem + stage + 16 * (2 * CODES + SCALES + lane), a.v + scales, n);
        }
    }

    __device__ __forceinline__ void begin(const cu_att &a, const cu_att_item &it, int dim0, uint4 *x, float *less) {
        const int lane = (int)threadIdx.x % CU_WARP, g = lane / 4, t = lane % 4;
        stage_q<DIMS, 8 * NT, FA_F16>(a, it, dim0, x);
        __syncwarp();
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int b = 0; b < NG; b++) {
                const uint4 w = q[n][b] = x[piece<DIMS>(8 * n + g, 4 * b + t)];
                float sum = (cu_f16_lo(w.x) + cu_f16_hi(w.x)) + (cu_f16_lo(w.y) + cu_f16_hi(w.y)) +
                            (cu_f16_lo(w.z) + cu_f16_hi(w.z)) + (cu_f16_lo(w.w) + cu_f16_hi(w.w));
                sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
                sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
                if (t == 0) less[b * 8 * NT + 8 * n + g] = -1152.0f * sum;
            }
        __syncwarp();
        few::clear();
    }

    /* The scales of this warp's columns of rows row[0..N), in pairs; 0 for groups that do not exist. */
    template <int N>
    CU_DEV void row_scales(const cu_att &a, const uint8_t *at, const int *row, uint32_t (*out)[NG / 2]) {
        const int groups = cu_kvq_groups(a.hd), g0 = WD > 1 ? (int)threadIdx.x / CU_WARP % WD * NG : 0;
        if (groups % NG == 0 && g0 < groups) {
#pragma unroll
            for (int i = 0; i < N; i++) {
                const uint8_t *s = at + 2 * (row[i] * groups + g0);
                if (NG == 4) {
                    const uint2 v = *(const uint2 *)s;
                    out[i][0] = v.x, out[i][NG / 2 - 1] = v.y;
                } else
                    out[i][0] = *(const uint32_t *)s;
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int b = 0; b < NG; b += 2) {
                const uint16_t *s = (const uint16_t *)at + row[i] * groups + g0 + b;
                out[i][b / 2] = (g0 + b < groups ? s[0] : 0u) | (g0 + b + 1 < groups ? (uint32_t)s[1] << 16 : 0u);
            }
    }

    __device__ __forceinline__ void scores(const cu_att &a, const uint8_t *smem, int stage, const float *less,
                                           float *s) const {
        const int lane = (int)threadIdx.x % CU_WARP, g = lane / 4, t = lane % 4;
        const int row = stage + line(g) + 8 * t, key[2] = {g, g + 8};
        uint32_t scale[2][NG / 2];
        row_scales<2>(a, smem + stage + 16 * 2 * CODES, key, scale);
#pragma unroll
        for (int e = 0; e < SCORES; e++) s[e] = 0;
#pragma unroll
        for (int b = 0; b < NG; b++) {
            const uint8_t *x = smem + (row ^ (32 * b));
            uint2 w[2];
            for (int h = 0; h < 2; h++) {
                w[h] = *(const uint2 *)(x + h * 8 * DIMS);
                w[h].x ^= ATT_TURN, w[h].y ^= ATT_TURN;
            }
            const uint32_t lo[4] = {cu_att_code_lo(w[0].x), cu_att_code_lo(w[1].x), cu_att_code_hi(w[0].x),
                                    cu_att_code_hi(w[1].x)};
            const uint32_t hi[4] = {cu_att_code_lo(w[0].y), cu_att_code_lo(w[1].y), cu_att_code_hi(w[0].y),
                                    cu_att_code_hi(w[1].y)};
            float f[2];
            for (int h = 0; h < 2; h++) f[h] = b % 2 ? cu_f16_hi(scale[h][b / 2]) : cu_f16_lo(scale[h][b / 2]);
#pragma unroll
            for (int n = 0; n < NT; n++) {
                const uint32_t q_lo[2] = {q[n][b].x, q[n][b].y}, q_hi[2] = {q[n][b].z, q[n][b].w};
                const float2 from = *(const float2 *)(less + b * 8 * NT + 8 * n + 2 * t);
                float d[4] = {from.x, from.y, from.x, from.y};
                cu_mma_f16(d, lo, q_lo);
                cu_mma_f16(d, hi, q_hi);
#pragma unroll
                for (int e = 0; e < 4; e++) s[4 * n + e] += d[e] * f[e / 2];
            }
        }
    }

    /* acc += values times weights; values [first, end) of the 16 exist. */
    __device__ __forceinline__ void add_values(const cu_att &a, const uint8_t *smem, int stage, int first, int end) {
        const int lane = (int)threadIdx.x % CU_WARP, g = lane / 4, t = lane % 4;
        const int at[2] = {stage + 16 * CODES + line(2 * t) + 4 * g, stage + 16 * CODES + line(2 * t + 1) + 4 * g};
        const int row[4] = {2 * t, 2 * t + 1, 2 * t + 8, 2 * t + 9};
        uint32_t scale[4][NG / 2];
        row_scales<4>(a, smem + stage + 16 * (2 * CODES + SCALES), row, scale);
        if (first > 0 || end < 16)
            for (int i = 0; i < 4 * (NG / 2); i++)
                if (row[i % 4] < first || row[i % 4] >= end) scale[i % 4][i / 4] = 0;
#pragma unroll
        for (int b = 0; b < NG; b++) {
            uint32_t left[2][4]; /* columns 4 g and 4 g + 1; columns 4 g + 2 and 4 g + 3 */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint32_t x = *(const uint32_t *)(smem + (at[0] ^ (32 * b)) + h * 8 * DIMS);
                const uint32_t y = *(const uint32_t *)(smem + (at[1] ^ (32 * b)) + h * 8 * DIMS);
                const uint32_t f = __byte_perm(scale[2 * h][b / 2], scale[2 * h + 1][b / 2], b % 2 ? 0x7632 : 0x5410);
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const uint32_t both = __byte_perm(x, y, c ? 0x7362 : 0x5140) ^ ATT_TURN;
                    left[c][2 * h] = cu_att_code_scaled(cu_att_code_lo(both), f);
                    left[c][2 * h + 1] = cu_att_code_scaled(cu_att_code_hi(both), f);
                }
            }
#pragma unroll
            for (int n = 0; n < NT; n++)
                for (int c = 0; c < 2; c++) cu_mma_f16(acc[n][2 * b + c], left[c], p[n]);
        }
    }

    __device__ __forceinline__ void put(int i, int dim0, int n_col, float *row) const {
#pragma unroll
        for (int b = 0; b < NG; b++) {
            const float(*x)[4] = &acc[i / 2][2 * b];
            const int c = dim0 + FA_KVQ_GROUP * b + 4 * ((int)threadIdx.x % CU_WARP / 4);
            if (c < n_col)
                *(float4 *)(row + c) = make_float4(x[0][i % 2], x[0][2 + i % 2], x[1][i % 2], x[1][2 + i % 2]);
        }
    }
};

#endif
