/* Linear records with few input rows: planar weights in stream.cuh's kernel. stream_quant.cuh tells how codes
 * are multiplied.
 *
 * A slot holds for each of 8 rows the codes of 256 columns and behind them, for affine, the scales and then the biases
 * of these columns' groups, as stored. */
#include "backend/cuda/stream_quant.cuh"

/* ---- affine ---- */

/* G64: groups of 64 with scales of 2 bytes, the common case; otherwise any group and type, at the price of finishing
 * sums every 32 columns. */
template <int BITS, bool G64> struct fmt_affine {
    enum {
        COLS = CU_QCOLS,
        WARPS = 8,
        CODES = G64 ? 64 : 32,
        ROW = COLS / 8 * BITS, /* bytes of codes */
        PLANE = G64 ? 8 : 32,  /* bytes of scales; of biases (at most) */
        PITCH = cu_odd16(ROW + 2 * PLANE),
        SLOT = CU_TILE * PITCH,
        RING = cu_qring(SLOT)
    };
    typedef cu_qcursor cursor;

    CU_FMT int size_of(const cu_mat &w) { return G64 || w.scale_dtype != FA_F32 ? 2 : 4; }
    CU_FMT int plane_of(const cu_mat &w) { return G64 ? PLANE : COLS / w.group * size_of(w); }

    /* Lanes with even q load scales, with odd q biases: words q / 2, q / 2 + 2, ... of the row. */
    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) {
        const int row = cu_tile_row(tile, lane / 4), q = lane % 4, group = G64 ? 64 : w.group;
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
            if (G64 || q / 2 * 4 + i < plane) cu_cp_async4(to + i, c.scales + at, c.ns > at ? 4 : 0);
        }
    }

    /* Of weight rows 2t and 2t + 1, scale and bias of each; p: the scales of row 2t. */
    template <int TYPE> CU_FMT void scales64(const uint8_t *p, float4 s[4]) {
        const uint4 a = *(const uint4 *)p, b = *(const uint4 *)(p + PITCH);
        s[0] = make_float4(of<TYPE>(a.x, 0), of<TYPE>(a.z, 0), of<TYPE>(b.x, 0), of<TYPE>(b.z, 0));
        s[1] = make_float4(of<TYPE>(a.x, 1), of<TYPE>(a.z, 1), of<TYPE>(b.x, 1), of<TYPE>(b.z, 1));
        s[2] = make_float4(of<TYPE>(a.y, 0), of<TYPE>(a.w, 0), of<TYPE>(b.y, 0), of<TYPE>(b.w, 0));
        s[3] = make_float4(of<TYPE>(a.y, 1), of<TYPE>(a.w, 1), of<TYPE>(b.y, 1), of<TYPE>(b.w, 1));
    }
    template <int TYPE> CU_FMT float of(uint32_t v, int high) {
        if (TYPE == FA_F16) return high ? cu_f16_hi(v) : cu_f16_lo(v);
        return high ? cu_bf16_hi(v) : cu_bf16_lo(v);
    }
    CU_FMT float4 scales(const uint8_t *p, int i, int type) {
        return make_float4(cu_scale_at(p, i, type), cu_scale_at(p + PLANE, i, type), cu_scale_at(p + PITCH, i, type),
                           cu_scale_at(p + PITCH + PLANE, i, type));
    }

    /* 32 columns */
    template <bool HI>
    CU_FMT void products(const uint8_t *codes, int t, const uint16_t *x, const uint16_t *xh, cu_qacc &q, cu_qacc &qh) {
        if constexpr (BITS == 8) {
            const uint2 c = *(const uint2 *)(codes + 8 * t);
            const uint4 low = cu_pairs_of_bytes(c, 0x7F), top = cu_pairs_of_bytes(c, 0x80);
            cu_q_mma(q, low, x);
            cu_q_mma(q, top, x);
            if (HI) cu_q_mma(qh, low, xh);
            if (HI) cu_q_mma(qh, top, xh);
        } else {
            const uint4 b = cu_pairs_of_stream<BITS>(codes, t);
            cu_q_mma(q, b, x);
            if (HI) cu_q_mma(qh, b, xh);
        }
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &w, int, int lane, const uint16_t *x, const uint16_t *xh,
                     const float *xs, const float *xsh, float acc[2][4]) {
        constexpr float offset = BITS == 8 ? 256.0f : 128.0f;
        const int t = lane % 4;
        const uint8_t *codes = slot + lane / 4 * PITCH, *sc = slot + 2 * t * PITCH + ROW;
        float4 s[4];
        if (!G64)
            ;
        else if (w.scale_dtype == FA_F16)
            scales64<FA_F16>(sc, s);
        else
            scales64<FA_BF16>(sc, s);
        const int per = G64 ? 1 : w.group / 32; /* 32 columns with one scale */
        x += 8 * t;
        xh += 8 * t;
#pragma unroll
        for (int u = 0; u < COLS / CODES; u++) {
            const float sum = xs[u], sumh = HI ? xsh[u] : 0.0f;
            cu_qacc q, qh;
            cu_q_begin(q, offset, sum);
            if (HI) cu_q_begin(qh, offset, sumh);
#pragma unroll
            for (int i = u * CODES; i < (u + 1) * CODES; i += 32)
                products<HI>(codes + i / 8 * BITS, t, x + i, xh + i, q, qh);
            const float4 v = G64 ? s[u & 3] : scales(sc, u / per, w.scale_dtype);
            cu_q_end(q, v, sum, acc[u & 1]);
            if (HI) cu_q_end(qh, v, sumh, acc[u & 1] + 2);
        }
    }
};

/* ---- mxfp4 ---- */

/* 2^(e - 127); NaN for 255 */
CU_DEV float e8m0(uint32_t e) { return __uint_as_float(e == 255 ? 0x7FC00000u : e ? e << 23 : 0x400000u); }

struct fmt_mxfp4 {
    enum {
        COLS = CU_QCOLS,
        WARPS = 8,
        CODES = 64, /* sums are not needed */
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
        if (lane % 4 < 2) cu_cp_async4(row + ROW + lane % 4 * 4, c.scales + step * 8, c.ns > step * 8 ? 4 : 0);
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &, int, int lane, const uint16_t *x, const uint16_t *xh,
                     const float *, const float *, float acc[2][4]) {
        const int t = lane % 4;
        const uint32_t *codes = (const uint32_t *)(slot + lane / 4 * PITCH) + t;
        const uint2 s0 = *(const uint2 *)(slot + 2 * t * PITCH + ROW);
        const uint2 s1 = *(const uint2 *)(slot + (2 * t + 1) * PITCH + ROW);
#pragma unroll 4
        for (int i = 0; i < 8; i++) {
            const uint32_t v = codes[4 * i];
            const uint4 b =
                make_uint4(cu_e2m1_pair(v << 12), cu_e2m1_pair(v << 8), cu_e2m1_pair(v << 4), cu_e2m1_pair(v));
            const float4 s = make_float4(e8m0((i < 4 ? s0.x : s0.y) >> i % 4 * 8 & 255), 0.0f,
                                         e8m0((i < 4 ? s1.x : s1.y) >> i % 4 * 8 & 255), 0.0f);
            cu_qacc q;
            cu_q_begin(q, 0.0f, 0.0f);
            cu_q_mma(q, b, x + 32 * i + 8 * t);
            cu_q_end(q, s, 0.0f, acc[i & 1]);
            if (HI) {
                cu_q_begin(q, 0.0f, 0.0f);
                cu_q_mma(q, b, xh + 32 * i + 8 * t);
                cu_q_end(q, s, 0.0f, acc[i & 1] + 2);
            }
        }
    }
};

/* ---- as floats: nvfp4, mxfp8, fp8 ---- */

/* Rows are read where they lie, as in exact mode; a value is two bf16 (stream.cuh). */
template <int KIND> struct fmt_values {
    enum { COLS = CU_QCOLS, SLOT = 128, WARPS = 8, RING = 3, CODES = 0 };
    typedef cu_fmt_exact::cursor cursor;
    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) { return cu_fmt_exact::at(w, tile, lane); }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &w, const cursor &c, int step, int lane) {
        cu_fmt_exact::fetch(slot, w, c, step, lane);
    }
    template <bool HI>
    CU_FMT void fast(const uint8_t *slot, const cu_mat &m, int step, int lane, const uint16_t *x, const uint16_t *xh,
                     float acc[2][4]) {
        const int row = ((const int *)slot)[lane], t = lane % 4;
        cu_wmat w;
        cu_wrow r;
        cu_mat_row(m, row < m.rows ? row : 0, w, r);
#pragma unroll 2
        for (int i = 0; i < CU_QCOLS; i += 32) {
            const int k = step * CU_QCOLS + i + 8 * t;
            float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            if (k < m.cols && row < m.rows) cu_values8<KIND>(w, r, k, v);
            cu_mma_split<HI>(v, x + i + 8 * t, xh + i + 8 * t, acc);
        }
    }
};

/* ---- the table ---- */

/* Any group and scales, by width; and the common ones, of which 4 and 8 bits are stream_int.cu's. */
#define ANY(bits) CU_STREAM_QFMT("stream affine" #bits, fmt_affine<bits, false>)
#define G64(bits) CU_STREAM_QFMT("stream affine" #bits "g64", fmt_affine<bits, true>)
static const cu_stream_fmt any_fmts[] = {ANY(2), ANY(3), ANY(4), ANY(5), ANY(6), ANY(8)};
static const cu_stream_fmt g64_fmts[] = {G64(2), G64(3), G64(5), G64(6)};
static const cu_stream_fmt nvfp4_fmt = CU_STREAM_QFMT("stream nvfp4", fmt_values<CU_K_NVFP4>);
static const cu_stream_fmt fp8_fmt = CU_STREAM_QFMT("stream fp8", fmt_values<CU_K_F8>);
static const cu_stream_fmt mxfp4_fmt = CU_STREAM_QFMT("stream mxfp4", fmt_mxfp4);

const cu_stream_fmt *cu_stream_find_quant(const fa_weight *w) {
    fa_error err;
    if (cu_weight_ok(w, &err)) return NULL;
    if (w->fmt == FA_FMT_MXFP4) return &mxfp4_fmt;
    if (w->fmt == FA_FMT_NVFP4) return &nvfp4_fmt;
    if (w->fmt == FA_FMT_MXFP8 || w->fmt == FA_FMT_FP8) return &fp8_fmt;
    if (w->fmt != FA_FMT_AFFINE) return cu_stream_find_gguf(w);
    const bool common = w->group == 64 && w->scale_dtype != FA_F32;
    if (common && (w->bits == 4 || w->bits == 8)) return cu_stream_find_int(w);
    if (common) return &g64_fmts[w->bits < 4 ? w->bits - 2 : w->bits - 3];
    return cu_stream_find_any(w);
}

const cu_stream_fmt *cu_stream_find_any(const fa_weight *w) { return &any_fmts[w->bits == 8 ? 5 : w->bits - 2]; }
