/* Input rows as integers: what affine weights of 4 or 8 bits in groups of 64 are multiplied with (stream_int.cuh).
 *
 * Input. A group of 64 bf16 columns becomes integers of 16 bits times a power of two: 2^(e - 14), where 2^e <= the
 * largest magnitude < 2^(e + 1). That is exact for what is at least 2^(e - 7), and an error of 2^(e - 15) for what is
 * smaller, far below that of bf16 in the group's norm. An integer is two digits of 8 bits with sign, 256 high + low. In
 * shared memory every 16 columns are 16 bytes of high digits and 16 of low ones; for 4 bits each 8 columns in the order
 * 0 2 4 6 1 3 5 7. */
#ifndef FA_CUDA_DIGITS_CUH
#define FA_CUDA_DIGITS_CUH

#include "backend/cuda/cu_rows.h"

enum { CU_INT_GROUP = 64 };

/* The largest of both halves' magnitudes; as bf16 they are ordered like integers. */
CU_DEV uint32_t cu_int_larger(uint32_t most, uint32_t pair) {
    return max(most, max(pair & 0x7FFF, pair >> 16 & 0x7FFF));
}

/* x / power + 3 2^22 as bits: the integer is the lower half of the word. 32640 would need a digit of 128. */
CU_DEV uint32_t cu_int_rounded(float x, float inv) { return __float_as_uint(fminf(x * inv, 32639.0f) + 12582912.0f); }

CU_DEV uint32_t cu_int_bytes(const uint32_t *q, int a, int b, int c, int d, uint32_t bias, uint32_t pick) {
    return __byte_perm(__byte_perm(q[a] + bias, q[b] + bias, pick), __byte_perm(q[c] + bias, q[d] + bias, pick),
                       0x5410);
}

/* 16 columns as digits, w: 16 high ones, 16 low ones. Four neighbouring threads have a group; all get what its integers
 * are multiplied by, and its sum. Called by whole warps. */
template <int BITS> CU_DEV float2 cu_int_digits(const uint32_t v[8], uint32_t w[8]) {
    uint32_t most = 0, q[16], sum = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) most = cu_int_larger(most, v[j]);
    most = max(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = max(most, __shfl_xor_sync(0xffffffffu, most, 2));
    const uint32_t e = max(most >> 7, 16u);
    const bool bad = e == 255; /* infinity or NaN: so are the results */
    const float inv = bad ? 0.0f : __uint_as_float((268 - e) << 23);
    const float power = __uint_as_float(bad ? 0x7FC00000u : (e - 14) << 23);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        q[2 * j] = cu_int_rounded(cu_bf16_lo(v[j]), inv), q[2 * j + 1] = cu_int_rounded(cu_bf16_hi(v[j]), inv);
        sum += q[2 * j] + q[2 * j + 1];
    }
    sum -= 16 * 0x4B400000u;
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
#pragma unroll
    for (int d = 0; d < 2; d++) {
        const uint32_t bias = d ? 0 : 128, pick = d ? 0x0040 : 0x0051;
#pragma unroll
        for (int h = 0; h < 16; h += 8) {
            uint32_t *to = w + 4 * d + h / 4;
            if (BITS == 4) {
                to[0] = cu_int_bytes(q + h, 0, 2, 4, 6, bias, pick),
                to[1] = cu_int_bytes(q + h, 1, 3, 5, 7, bias, pick);
            } else {
                to[0] = cu_int_bytes(q + h, 0, 1, 2, 3, bias, pick),
                to[1] = cu_int_bytes(q + h, 4, 5, 6, 7, bias, pick);
            }
        }
    }
    return make_float2(power, power * (float)(int)sum);
}

/* Rows of digits in memory, for a kernel that comes later: `line` bytes each, the digits of `cols` columns (a multiple
 * of 256; zeros behind the row's end) and then for each group what its integers are multiplied by and its sum. */
typedef struct cu_digits {
    uint8_t *to; /* NULL: none */
    int bits, cols, line;
} cu_digits;

static inline int cu_digits_line(int cols) { return cols * 2 + cols / CU_INT_GROUP * 8; }

/* 16 columns from column c of a row on; the four threads of a group call it together, in whole warps. */
CU_DEV void cu_put_digits(const cu_digits &d, int row, int c, const float v[16], bool there) {
    uint32_t p[8], w[8];
#pragma unroll
    for (int i = 0; i < 8; i++) p[i] = cu_to_bf16x2(v[2 * i], v[2 * i + 1]);
    const float2 group = d.bits == 4 ? cu_int_digits<4>(p, w) : cu_int_digits<8>(p, w);
    uint8_t *line = d.to + (int64_t)row * d.line;
    if (!there) return;
    ((uint4 *)(line + c * 2))[0] = make_uint4(w[0], w[1], w[2], w[3]);
    ((uint4 *)(line + c * 2))[1] = make_uint4(w[4], w[5], w[6], w[7]);
    if (c % CU_INT_GROUP == 0) ((float2 *)(line + d.cols * 2))[c / CU_INT_GROUP] = group;
}

#endif
