/* Products of affine weights of 4 or 8 bits in groups of 64 as integers on tensor cores: what stream_int.cu (linear
 * layers) and moe_int.cu (experts) share. Integer products need the fewest instructions: codes are operands as they lie
 * (8 bits) or after one logical operation for 4 of them (4 bits). digits.cuh tells what the input becomes.
 *
 * Products. 16 weight rows are operand a. One input row is all 8 columns of b: column 2 u + d has the digits d (0 high,
 * 1 low) of group u of a step of 4 groups, and zeros where a lane's columns belong to another group, so lane (g, t)
 * ends with both digits' sums of group t for weight rows g and g + 8. Other input rows are further products with the
 * same a. Integer sums are exact: a row's result cannot depend on the rows beside it. Then bias * sum and (scale *
 * power) * products are added to the total; lanes and warps are added up in a fixed order.
 *
 * A slot: [piece][lane] 16 bytes of codes as lanes load and use them, then 16 bytes per row: 4 scales, 4 biases. */
#ifndef FA_CUDA_STREAM_INT_CUH
#define FA_CUDA_STREAM_INT_CUH

#include "backend/cuda/stream_quant.cuh"

enum {
    CU_WIDE = 2 * CU_TILE,                   /* weight rows of a product */
    CU_STEP_GROUPS = CU_QCOLS / CU_INT_GROUP /* one for each lane of a row */
};

/* ---- weights ---- */

template <int BITS> struct cu_int_shape {
    enum {
        ROW = CU_QCOLS / 8 * BITS, /* bytes of a row's codes in a step */
        PIECES = ROW / 64,         /* of 16 bytes, that a lane loads of a row */
        SCALES = CU_WIDE * ROW,    /* where they begin in a slot */
        SLOT = SCALES + CU_WIDE * 16,
        OPS = 8 / PIECES /* products of a piece */
    };
};

/* ---- a step ---- */

template <int TYPE> CU_DEV float cu_int_scale(const uint8_t *p) {
    return TYPE == FA_F16 ? cu_f16(*(const uint16_t *)p) : cu_bf16(*(const uint16_t *)p);
}

/* The operands a of piece i of rows g and g + 8: 4 (4 bits) or 2 products. */
template <int BITS> CU_DEV void cu_int_operand(const uint8_t *slot, int lane, int i, uint32_t (*op)[4]) {
    typedef cu_int_shape<BITS> S;
    const uint4 *piece = (const uint4 *)slot + lane;
    const uint4 p = piece[i * CU_WARP], q = piece[(S::PIECES + i) * CU_WARP];
    const uint32_t u[4] = {p.x, p.y, p.z, p.w}, v[4] = {q.x, q.y, q.z, q.w};
    if constexpr (BITS == 4) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            op[j][0] = u[j] & 0x0F0F0F0Fu, op[j][2] = u[j] >> 4 & 0x0F0F0F0Fu;
            op[j][1] = v[j] & 0x0F0F0F0Fu, op[j][3] = v[j] >> 4 & 0x0F0F0F0Fu;
        }
    } else {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            op[j][0] = u[2 * j], op[j][2] = u[2 * j + 1];
            op[j][1] = v[2 * j], op[j][3] = v[2 * j + 1];
        }
    }
}

/* The lane's place in a step's input: which pieces meet columns of the group that its column of b is for (-1: none),
 * and where these columns begin, bytes. */
struct cu_int_lane {
    int piece, at;
};
template <int BITS> CU_DEV cu_int_lane cu_int_place(int lane) {
    const int g = lane / 4, t = lane % 4, u = g / 2;
    cu_int_lane l;
    l.piece = BITS == 8 ? u : t / 2 == u % 2 ? u / 2 : -1;
    l.at = (BITS == 8 ? u * 64 + t * 16 : u / 2 * 128 + t * 32) * 2 + g % 2 * 16;
    return l;
}

/* Piece i times one input row's columns of a step. x: the step's digits; none: zeros. */
template <int BITS>
CU_DEV void cu_int_products(const uint32_t (*op)[4], int i, const uint8_t *x, cu_int_lane l, const uint8_t *none,
                            int d[2][4]) {
    const uint8_t *p = l.piece == i ? x + l.at : none;
#pragma unroll
    for (int h = 0; h < (BITS == 4 ? 2 : 1); h++) {
        const uint4 v = *(const uint4 *)(p + 32 * h);
        const uint32_t b0[2] = {v.x, v.y}, b1[2] = {v.z, v.w};
        cu_mma_u8s8(d[0], op[2 * h], b0);
        cu_mma_u8s8(d[1], op[2 * h + 1], b1);
    }
}
/* acc [2] += rows g and g + 8 times the lane's group t. s [4]: scale and bias of g, of g + 8. */
CU_DEV void cu_int_scaled(const int d[2][4], float2 group, const float s[4], float *acc) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int n = (d[0][2 * h] + d[1][2 * h]) * 256 + (d[0][2 * h + 1] + d[1][2 * h + 1]);
        acc[h] = fmaf(s[2 * h] * group.x, (float)n, fmaf(s[2 * h + 1], group.y, acc[h]));
    }
}

#endif
