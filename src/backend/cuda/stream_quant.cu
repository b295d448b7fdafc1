/* Linear records with few input rows: affine and mxfp4 weights in stream.cuh's kernel. stream_quant.cuh tells how codes
 * are multiplied.
 *
 * A slot holds for each of 8 rows the codes of 256 columns and behind them, for affine, the scales and then the biases
 * of these columns' groups, as stored. */
#include "backend/cuda/stream_quant.cuh"

/* ---- affine ---- */

/* GROUP columns share a scale of SIZE bytes; GROUP 0: any group and type, at the price of finishing sums every 32
 * columns. */
template <int BITS, int GROUP, int SIZE> struct fmt_affine {
    enum {
        COLS = CU_QCOLS,
        WARPS = 8,
        CODES = 1,
        ROW = COLS / 8 * BITS,                        /* bytes of codes */
        PLANE = GROUP ? COLS / (GROUP + !GROUP) * SIZE : 32, /* bytes of scales; of biases (at most, GROUP 0) */
        PITCH = cu_odd16(ROW + 2 * PLANE),
        SLOT = CU_TILE * PITCH,
        RING = cu_qring(SLOT)
    };
    typedef cu_qcursor cursor;

    CU_FMT int size_of(const cu_mat &w) { return GROUP ? SIZE : w.scale_dtype == FA_F32 ? 4 : 2; }
    CU_FMT int plane_of(const cu_mat &w) { return GROUP ? PLANE : COLS / w.group * size_of(w); }

    /* Lanes with even q load scales, with odd q biases: words q / 2, q / 2 + 2, ... of the row. */
    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) {
        const int row = cu_tile_row(tile, lane / 4), q = lane % 4, group = GROUP ? GROUP : w.group;
        cursor c;
        cu_qcodes_at(c, w, tile, lane, w.cols / 8 * BITS);
        c.scales = (q & 1 ? w.biases : w.scales) + (int64_t)min(row, w.rows - 1) * w.scale_row_bytes + q / 2 * 4;
        c.ns = row < w.rows ? w.cols / group * size_of(w) - q / 2 * 4 : 0;
        return c;
    }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &w, const cursor &c, int step, int lane) {
        const int q = lane % 4, plane = plane_of(w);
        uint8_t *row = slot + lane / 4 * PITCH, *to = row + ROW + (q & 1) * PLANE + q / 2 * 4;
        cu_qcodes_fetch<2 * BITS>(row, c, step * ROW, lane);
#pragma unroll
        for (int i = 0; i < PLANE; i += 8) {
            const int at = step * plane + i;
            if (GROUP || q / 2 * 4 + i < plane) cu_cp_async4(to + i, c.ns > at ? c.scales + at : c.scales, c.ns > at ? 4 : 0);
        }
    }

    /* Scale and bias number i of this step for weight rows 2t and 2t + 1; p: the scales of row 2t. */
    CU_FMT float4 scales(const uint8_t *p, int i, int type) {
        return make_float4(cu_scale_at(p, i, type), cu_scale_at(p + PLANE, i, type), cu_scale_at(p + PITCH, i, type),
                           cu_scale_at(p + PITCH + PLANE, i, type));
    }
    template <bool HI> CU_FMT void products(const uint8_t *codes, int t, const uint16_t *x, const uint16_t *xh, float d[4]) {
        if constexpr (BITS == 8) {
            const uint2 c = *(const uint2 *)(codes + 8 * t);
            cu_mma8<HI>(cu_pairs_of_bytes(c, 0x7F), x + 8 * t, xh + 8 * t, d);
            cu_mma8<HI>(cu_pairs_of_bytes(c, 0x80), x + 8 * t, xh + 8 * t, d);
        } else {
            cu_mma8<HI>(cu_pairs_of_stream<BITS>(codes, t), x + 8 * t, xh + 8 * t, d);
        }
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &w, int, int lane, const uint16_t *x, const uint16_t *xh,
                     const float *xs, const float *xsh, float acc[2][4]) {
        constexpr int unit = GROUP ? GROUP : 32; /* columns whose sums are finished together */
        const int t = lane % 4, type = SIZE == 4 ? FA_F32 : w.scale_dtype;
        const uint8_t *codes = slot + lane / 4 * PITCH, *sc = slot + 2 * t * PITCH + ROW;
        const int per = GROUP ? 1 : w.group / 32; /* units with one scale */
#pragma unroll
        for (int u = 0; u < COLS / unit; u++) {
            float d[4], sum = 0, sumh = 0;
#pragma unroll
            for (int i = 0; i < unit / 16; i++) {
                sum += xs[u * (unit / 16) + i];
                if (HI) sumh += xsh[u * (unit / 16) + i];
            }
            cu_group_begin<HI>(d, BITS == 8 ? 256.0f : 128.0f, sum, sumh);
#pragma unroll
            for (int i = u * unit; i < (u + 1) * unit; i += 32)
                products<HI>(codes + i / 8 * BITS, t, x + i, xh + i, d);
            cu_group_end<HI>(acc[u & 1], d, scales(sc, u / per, type), sum, sumh);
        }
    }
};

/* ---- mxfp4 ---- */

/* The pair of E2M1 numbers in the upper 4 bits of both halves of v as bf16. Sign, exponent and mantissa are moved to
 * their places; the exponents differ by 126, as do the places of the smallest number below normal ones. */
CU_DEV uint32_t e2m1_pair(uint32_t v) {
    const uint32_t r = cu_and_or(v >> 6, 0x01C001C0u, v & 0x80008000u);
    return cu_bf16x2_fma(r, 0x7E807E80u, 0x80008000u);
}

/* 2^(e - 127); NaN for 255 */
CU_DEV float e8m0(uint32_t e) { return __uint_as_float(e == 255 ? 0x7FC00000u : e ? e << 23 : 0x400000u); }

struct fmt_mxfp4 {
    enum {
        COLS = CU_QCOLS,
        WARPS = 8,
        CODES = 1,
        ROW = 128,
        PITCH = cu_odd16(ROW + 8),
        SLOT = CU_TILE * PITCH,
        RING = cu_qring(SLOT)
    };
    typedef cu_qcursor cursor;

    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) {
        const int row = cu_tile_row(tile, lane / 4), q = lane % 4;
        cursor c;
        cu_qcodes_at(c, w, tile, lane, w.cols / 2);
        c.scales = w.scales + (int64_t)min(row, w.rows - 1) * w.scale_row_bytes + q * 4;
        c.ns = row < w.rows && q < 2 ? w.cols / 32 - q * 4 : 0;
        return c;
    }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &, const cursor &c, int step, int lane) {
        uint8_t *row = slot + lane / 4 * PITCH;
        cu_qcodes_fetch<8>(row, c, step * ROW, lane);
        if (lane % 4 < 2)
            cu_cp_async4(row + ROW + lane % 4 * 4, c.ns > step * 8 ? c.scales + step * 8 : c.scales,
                         c.ns > step * 8 ? 4 : 0);
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &, int, int lane, const uint16_t *x, const uint16_t *xh,
                     const float *, const float *, float acc[2][4]) {
        const int t = lane % 4;
        const uint32_t *codes = (const uint32_t *)(slot + lane / 4 * PITCH) + t;
        const uint2 s0 = *(const uint2 *)(slot + 2 * t * PITCH + ROW);
        const uint2 s1 = *(const uint2 *)(slot + (2 * t + 1) * PITCH + ROW);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float d[4] = {0, 0, 0, 0};
            const uint32_t v = codes[4 * i];
            const uint4 b = make_uint4(e2m1_pair(v << 12), e2m1_pair(v << 8), e2m1_pair(v << 4), e2m1_pair(v));
            cu_mma8<HI>(b, x + 32 * i + 8 * t, xh + 32 * i + 8 * t, d);
            const float a = e8m0((i < 4 ? s0.x : s0.y) >> i % 4 * 8 & 255), c = e8m0((i < 4 ? s1.x : s1.y) >> i % 4 * 8 & 255);
            float *to = acc[i & 1];
            to[0] = fmaf(a, d[0], to[0]);
            to[1] = fmaf(c, d[1], to[1]);
            if (HI) {
                to[2] = fmaf(a, d[2], to[2]);
                to[3] = fmaf(c, d[3], to[3]);
            }
        }
    }
};

/* ---- the table ---- */

/* By width: the common group and scales, and all others. */
#define AFFINE(bits)                                                                                                   \
    {                                                                                                                  \
        CU_STREAM_QFMT("stream affine" #bits "g64", fmt_affine<bits, 64, 2>),                                          \
            CU_STREAM_QFMT("stream affine" #bits, fmt_affine<bits, 0, 0>)                                              \
    }
static const cu_stream_fmt affine_fmts[][2] = {AFFINE(2), AFFINE(3), AFFINE(4), AFFINE(5), AFFINE(6), AFFINE(8)};
static const cu_stream_fmt mxfp4_fmt = CU_STREAM_QFMT("stream mxfp4", fmt_mxfp4);

const cu_stream_fmt *cu_stream_find_quant(const fa_weight *w) {
    fa_error err;
    if (cu_weight_ok(w, &err)) return NULL;
    if (w->fmt == FA_FMT_MXFP4) return &mxfp4_fmt;
    if (w->fmt != FA_FMT_AFFINE) return cu_stream_find_gguf(w);
    return &affine_fmts[w->bits == 8 ? 5 : w->bits - 2][w->group == 64 && w->scale_dtype != FA_F32 ? 0 : 1];
}
