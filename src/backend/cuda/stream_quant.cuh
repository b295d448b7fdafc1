/* What the quantized formats of stream.cuh have in common: codes in pairs for the tensor cores, scales applied to
 * accumulators, slots, and exact mode.
 *
 * Codes. A bf16 number between 128 and 256 has a last place of 1: 0x4300 | q is exactly 128 + q for q <= 127. So one
 * logical operation makes operands out of two codes that lie 16 bits apart in a word. What is too much is taken off
 * again through the sum of the input: accumulators of a group start at -128 * (sum of x) and end at the sum of q * x.
 * Codes of 8 bits are taken apart: (128 + low 7 bits) + (bit 7, which is an exponent bit: 128 or 256) = 256 + q, two
 * products. Lane (g, t) has columns 8 t .. 8 t + 7 of each 32 columns of weight row g; its 8 codes make the pairs (0,
 * 4), (1, 5), (2, 6), (3, 7), and the input is staged in that order (stream.cuh, CODES).
 *
 * Slots. A row's bytes of a step lie PITCH bytes from the next row's, an odd multiple of 16: the 8 rows then begin in
 * different banks, and a word per lane (4 neighbouring words of each of 8 rows) is read without conflicts.
 *
 * Exact mode does not use the ring: rows are read where they lie, as the floats of dequant.cuh. */
#ifndef FA_CUDA_STREAM_QUANT_CUH
#define FA_CUDA_STREAM_QUANT_CUH

#include "backend/cuda/dequant.cuh"
#include "backend/cuda/moe_few.cuh"

enum {
    CU_QCOLS = 256,          /* columns of a step */
    CU_QRING = 72 * 1024 / 8 /* bytes of a warp's ring at most: beside 8 of them 14336 columns of input find room */
};

static constexpr int cu_odd16(int n) { return ((n + 15) / 16 | 1) * 16; }
static constexpr int cu_qring(int slot) { return CU_QRING / slot < 12 ? CU_QRING / slot : 12; }

/* ---- codes to pairs ---- */

/* 128 + code, twice: the codes are the bits of `mask` in both halves of v. */
CU_DEV uint32_t cu_pair(uint32_t v, uint32_t mask) { return cu_and_or(v, mask | mask << 16, 0x43004300u); }

/* The pairs of 8 codes that lie one a byte, with the bits of `mask`. */
CU_DEV uint4 cu_pairs_of_bytes(uint2 c, uint32_t mask) {
    return make_uint4(cu_pair(__byte_perm(c.x, c.y, 0x4400), mask), cu_pair(__byte_perm(c.x, c.y, 0x5511), mask),
                      cu_pair(__byte_perm(c.x, c.y, 0x6622), mask), cu_pair(__byte_perm(c.x, c.y, 0x7733), mask));
}

/* Lane t's 8 codes of a B-bit stream, out of the 4 B bytes of 32 columns (16-byte aligned rows: p is a multiple of 4).
 */
template <int B> CU_DEV uint4 cu_pairs_of_stream(const uint8_t *p, int t) {
    constexpr uint32_t m = (1u << B) - 1;
    const uint32_t *w = (const uint32_t *)p;
    if constexpr (B == 4) {
        const uint32_t v = w[t];
        return make_uint4(cu_pair(v, m), cu_pair(v >> 4, m), cu_pair(v >> 8, m), cu_pair(v >> 12, m));
    } else if constexpr (B == 2) {
        const uint32_t v = __byte_perm(((const uint16_t *)p)[t], 0, 0x4140); /* codes 0..3 and 4..7 in two halves */
        return make_uint4(cu_pair(v, m), cu_pair(v >> 2, m), cu_pair(v >> 4, m), cu_pair(v >> 6, m));
    } else {
        /* B bytes from byte B t on lie in two words; lo and hi are those 8 B bits */
        const int i = B * t >> 2, shift = (B * t & 3) * 8;
        const uint32_t w0 = w[i], w1 = w[B == 3 && t == 3 ? i : i + 1];
        const uint32_t lo = __funnelshift_r(w0, w1, (unsigned)shift), hi = w1 >> shift;
        /* codes 0..3 from bit 0 of lo, codes 4..7 from bit 0 of up */
        const uint32_t up = __funnelshift_r(lo, hi, 4 * B), v = __byte_perm(lo, up, 0x5410);
        if constexpr (B == 3)
            return make_uint4(cu_pair(v, m), cu_pair(v >> 3, m), cu_pair(v >> 6, m), cu_pair(v >> 9, m));
        constexpr int cut = B == 5 ? 15 : 12; /* the first bit that is taken from another word */
        const uint32_t u = __byte_perm(lo >> cut, up >> cut, 0x5410);
        if constexpr (B == 5) return make_uint4(cu_pair(v, m), cu_pair(v >> 5, m), cu_pair(v >> 10, m), cu_pair(u, m));
        return make_uint4(cu_pair(v, m), cu_pair(v >> 6, m), cu_pair(u, m), cu_pair(u >> 6, m));
    }
}

/* ---- accumulators ----
 * A lane's 16 bytes of staged input are the operand a as they lie in registers: rows g get the pairs (0, 4), (2, 6) of
 * input row g and rows g + 8 the pairs (1, 5), (3, 7) of the same row. So two products, whose b are the codes' pairs of
 * one and of the other, give one half of the sum in their rows g, the other in their rows g + 8; the other halves are
 * not looked at. A second input row g + 8 (HI) takes two products more and the result of no row depends on others. */
struct cu_qacc {
    float d[2][4];
};

/* What belongs to a group's codes begins at -offset * sum. */
CU_DEV void cu_q_begin(cu_qacc &q, float offset, float sum) {
    q.d[0][0] = q.d[0][1] = -offset * sum;
    q.d[0][2] = q.d[0][3] = 0.0f;
    q.d[1][0] = q.d[1][1] = q.d[1][2] = q.d[1][3] = 0.0f;
}
/* 32 columns; b: the lane's pairs, x: its 8 columns. */
CU_DEV void cu_q_mma(cu_qacc &q, const uint4 b, const uint16_t *x) {
    const uint4 v = *(const uint4 *)x;
    const uint32_t a[4] = {v.x, v.y, v.z, v.w}, b0[2] = {b.x, b.z}, b1[2] = {b.y, b.w};
    cu_mma_bf16(q.d[0], a, b0);
    cu_mma_bf16(q.d[1], a, b1);
}
/* acc [2] += scale * codes + min * sum; s: scale and min of weight rows 2t and 2t + 1: x, y and z, w. */
CU_DEV void cu_q_end(const cu_qacc &q, float4 s, float sum, float *acc) {
    acc[0] = fmaf(s.x, q.d[0][0] + q.d[1][2], fmaf(s.y, sum, acc[0]));
    acc[1] = fmaf(s.z, q.d[0][1] + q.d[1][3], fmaf(s.w, sum, acc[1]));
}

/* ---- loading ---- */

/* The lane's place in rows that are copied in 16-byte pieces: lane (g, q) takes pieces q, q + 4, ... of row g. */
struct cu_qcursor {
    const uint8_t *codes, *scales;
    int n, ns; /* bytes from there to the end of the row; <= 0: nothing is read */
};

CU_DEV void cu_qcodes_at(cu_qcursor &c, const cu_mat &w, cu_tile tile, int lane, int row_bytes) {
    const int row = cu_tile_row(tile, lane / 4);
    c.codes = w.codes + (int64_t)min(row, w.rows - 1) * w.row_bytes + lane % 4 * 16;
    c.n = row < w.rows ? (row_bytes + 15) / 16 * 16 - lane % 4 * 16 : 0;
}
/* N pieces from byte `from` of the row on (a multiple of 16) to `to`. */
template <int N> CU_DEV void cu_qcodes_fetch(uint8_t *to, const cu_qcursor &c, int from, int lane) {
    const int q = lane % 4;
#pragma unroll
    for (int i = 0; i < (N + 3) / 4; i++) {
        const int at = from + 64 * i;
        if (N % 4 == 0 || i < N / 4 || q < N % 4) cu_cp_async(to + (q + 4 * i) * 16, c.codes + at, c.n > at ? 16 : 0);
    }
}

/* ---- exact mode ---- */

/* Row `row` of m, to read where it lies. */
CU_DEV void cu_mat_row(const cu_mat &m, int row, cu_wmat &w, cu_wrow &r) {
    w.cols = m.cols;
    w.group_log = (uint8_t)cu_group_log(m.group);
    w.scale_dtype = (uint8_t)m.scale_dtype;
    r.codes = m.codes + row * m.row_bytes;
    r.scales = m.scales + row * m.scale_row_bytes;
    r.biases = m.biases + row * m.scale_row_bytes;
}

/* Row g's columns of a step as floats, times the input rows. */
template <int KIND, int R>
CU_DEV void cu_exact_step(const cu_mat &m, int row, int step, int t, const float *x, int ldx, int M, float *acc) {
    cu_wmat w;
    cu_wrow r;
    cu_mat_row(m, row, w, r);
#pragma unroll 1
    for (int i = 0; i < CU_QCOLS; i += 32) {
        const int k = step * CU_QCOLS + i + 8 * t;
        float v[8];
        if (k >= m.cols) break;
        cu_values8<KIND>(w, r, k, v);
        cu_dot8<R>(v, x + i + 8 * t, ldx, M, acc);
    }
}

/* The kernels of exact mode for all quantized formats; a slot holds the lanes' rows. */
struct cu_fmt_exact {
    enum { COLS = CU_QCOLS, SLOT = 128, WARPS = 8, RING = 3, CODES = 0 };
    struct cursor {
        int row;
    };
    CU_FMT cursor at(const cu_mat &, cu_tile tile, int lane) {
        cursor c;
        c.row = cu_tile_row(tile, lane / 4);
        return c;
    }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &, const cursor &c, int, int lane) { ((int *)slot)[lane] = c.row; }
    template <bool HI>
    CU_FMT void fast(const uint8_t *, const cu_mat &, int, int, const uint16_t *, const uint16_t *, float[2][4]) {}
    template <int R>
    CU_FMT void exact(const uint8_t *slot, const cu_mat &w, int step, int lane, const float *x, int ldx, int M,
                      float *acc) {
        const int row = ((const int *)slot)[lane];
        if (row >= w.rows) return;
        switch (cu_kind_at(w.fmt, w.bits)) {
            CU_WITH_QUANT_CASES(cu_exact_step<KIND, R>(w, row, step, lane % 4, x, ldx, M, acc))
        default: break;
        }
    }
};

/* A format's row: its own kernels in fast mode, those above in exact mode. */
#define CU_STREAM_QFMT(text, ...)                                                                                      \
    {                                                                                                                  \
        text, __VA_ARGS__::COLS, __VA_ARGS__::SLOT, __VA_ARGS__::WARPS, __VA_ARGS__::RING,                             \
            cu_stream_line(__VA_ARGS__::COLS, __VA_ARGS__::CODES), 0,                                                  \
            {cu_stream_kernel<__VA_ARGS__, CU_FAST8>, cu_stream_kernel<__VA_ARGS__, CU_FAST8>,                         \
             cu_stream_kernel<__VA_ARGS__, CU_FAST16>, cu_stream_kernel<cu_fmt_exact, CU_EXACT1>,                      \
             cu_stream_kernel<cu_fmt_exact, CU_EXACT16>},                                                              \
            CU_MOE_KERNELS_OF(cu_fmt_exact, __VA_ARGS__)                                                               \
    }

const cu_stream_fmt *cu_stream_find_gguf(const fa_weight *w); /* stream_gguf.cu */

#endif
