/* Linear records with few input rows: GGUF's blocks in stream.cuh's kernel. stream_quant.cuh tells how codes are
 * multiplied.
 *
 * A slot holds for each of 8 rows the blocks of 256 columns as stored, from the multiple of 16 bytes at or before the
 * first on (blocks begin at multiples of 2), and behind the rows room for scale and min of every group of every row:
 * they are unpacked once a step, each by one lane, instead of by every lane that needs them. */
#include "backend/cuda/stream_quant.cuh"

template <int KIND> struct fmt_gguf {
    typedef cu_kind_info<KIND> I;
    enum {
        COLS = CU_QCOLS,
        WARPS = 8,
        CODES = I::group,
        ROW = CU_QCOLS / I::block * I::block_bytes, /* bytes of 256 columns */
        SHIFT = ROW % 16 == 0  ? 0
                : ROW % 4 == 0 ? 12
                               : 14, /* at most, between the multiple of 16 and the first */
        PIECES = (ROW + SHIFT + 15) / 16,
        PITCH = cu_odd16(PIECES * 16),
        GROUPS = COLS / I::group,
        AT_SCALES = CU_TILE * PITCH, /* [GROUPS][8 rows] scale and min */
        SLOT = AT_SCALES + GROUPS * CU_TILE * 8,
        RING = cu_qring(SLOT)
    };
    typedef cu_qcursor cursor;

    CU_FMT cursor at(const cu_mat &w, cu_tile tile, int lane) {
        cursor c;
        cu_qcodes_at(c, w, tile, lane, w.cols / I::block * I::block_bytes);
        c.scales = NULL;
        c.ns = 0;
        return c;
    }
    CU_FMT void fetch(uint8_t *slot, const cu_mat &, const cursor &c, int step, int lane) {
        cu_qcodes_fetch<PIECES>(slot + lane / 4 * PITCH, c, step * ROW & ~15, lane);
    }

    CU_FMT void unpack_scales(uint8_t *slot, int shift, int lane) {
        float2 *out = (float2 *)(slot + AT_SCALES);
#pragma unroll
        for (int i = lane; i < GROUPS * CU_TILE; i += CU_WARP) {
            cu_wrow r;
            r.codes = slot + i % CU_TILE * PITCH + shift;
            r.scales = r.biases = NULL;
            out[i] = cu_scale_min<KIND>(r, i / CU_TILE * I::group, 0, 0);
        }
        __syncwarp();
    }

    /* 32 columns, one group */
    CU_FMT void block32(uint2 c, const float4 s, const uint16_t *x, float sum, float *acc) {
        cu_qacc q;
        cu_q_begin(q, I::wide ? 256.0f : 128.0f, sum);
        cu_q_mma(q, cu_pairs_of_bytes(c, 0x7F), x);
        if (I::wide) cu_q_mma(q, cu_pairs_of_bytes(c, 0x80), x);
        cu_q_end(q, s, sum, acc);
    }

    /* 32 columns, two groups: those of lanes t < 2 and of lanes t >= 2. Rows g of a are the input with the second
     * group's columns zero, rows g + 8 with the first's, so that one product keeps their sums apart. */
    CU_FMT void block16(const uint4 b, const float4 s, const float4 s2, int t, const uint16_t *x, const float *xs,
                        float &acc0, float &acc1) {
        const uint4 v = *(const uint4 *)(x + 8 * t);
        const uint32_t m = t < 2 ? 0xFFFFFFFFu : 0u, n = ~m;
        const uint32_t a0[4] = {v.x & m, v.x & n, v.y & m, v.y & n}, a1[4] = {v.z & m, v.z & n, v.w & m, v.w & n};
        const uint32_t b0[2] = {b.x, b.y}, b1[2] = {b.z, b.w};
        float d[4] = {-128.0f * xs[0], -128.0f * xs[0], -128.0f * xs[1], -128.0f * xs[1]};
        cu_mma_bf16(d, a0, b0);
        cu_mma_bf16(d, a1, b1);
        acc0 = fmaf(s.x, d[0], fmaf(s.y, xs[0], fmaf(s2.x, d[2], fmaf(s2.y, xs[1], acc0))));
        acc1 = fmaf(s.z, d[1], fmaf(s.w, xs[0], fmaf(s2.z, d[3], fmaf(s2.w, xs[1], acc1))));
    }

    template <bool HI>
    CU_FMT void fast(uint8_t *slot, const cu_mat &, int step, int lane, const uint16_t *x, const uint16_t *xh,
                     const float *xs, const float *xsh, float acc[2][4]) {
        const int t = lane % 4, shift = step * ROW & 15;
        const uint8_t *row = slot + lane / 4 * PITCH + shift;
        unpack_scales(slot, shift, lane);
        const float4 *s = (const float4 *)(slot + AT_SCALES) + t; /* of rows 2t and 2t + 1: 4 apart for groups */
#pragma unroll 4
        for (int i = 0; i < 8; i++) {
            const uint2 c = cu_codes8<KIND>(row, 32 * i + 8 * t);
            if constexpr (I::group == 32) {
                const float4 s1 = s[4 * i];
                block32(c, s1, x + 32 * i + 8 * t, xs[i], acc[i & 1]);
                if (HI) block32(c, s1, xh + 32 * i + 8 * t, xsh[i], acc[i & 1] + 2);
            } else {
                const uint4 b = cu_pairs_of_bytes(c, 0x7F);
                const float4 s1 = s[8 * i], s2 = s[8 * i + 4];
                block16(b, s1, s2, t, x + 32 * i, xs + 2 * i, acc[i & 1][0], acc[i & 1][1]);
                if (HI) block16(b, s1, s2, t, xh + 32 * i, xsh + 2 * i, acc[i & 1][2], acc[i & 1][3]);
            }
        }
    }
};

/* In the order of fa_fmt. */
static const cu_stream_fmt gguf_fmts[] = {CU_STREAM_QFMT("stream q4_0", fmt_gguf<CU_K_Q4_0>),
                                          CU_STREAM_QFMT("stream q4_1", fmt_gguf<CU_K_Q4_1>),
                                          CU_STREAM_QFMT("stream q5_0", fmt_gguf<CU_K_Q5_0>),
                                          CU_STREAM_QFMT("stream q5_1", fmt_gguf<CU_K_Q5_1>),
                                          CU_STREAM_QFMT("stream q8_0", fmt_gguf<CU_K_Q8_0>),
                                          CU_STREAM_QFMT("stream q2_k", fmt_gguf<CU_K_Q2_K>),
                                          CU_STREAM_QFMT("stream q3_k", fmt_gguf<CU_K_Q3_K>),
                                          CU_STREAM_QFMT("stream q4_k", fmt_gguf<CU_K_Q4_K>),
                                          CU_STREAM_QFMT("stream q5_k", fmt_gguf<CU_K_Q5_K>),
                                          CU_STREAM_QFMT("stream q6_k", fmt_gguf<CU_K_Q6_K>),
#define ROW_OF(id, name, values, bytes, group, at, offset) CU_STREAM_QFMT("stream " #name, fmt_gguf<CU_K_##id>),
                                          FA_IQ_FMTS(ROW_OF)
#undef ROW_OF
};

const cu_stream_fmt *cu_stream_find_gguf(const fa_weight *w) {
    return w->fmt >= FA_FMT_Q4_0 && w->fmt < FA_FMT_COUNT ? &gguf_fmts[w->fmt - FA_FMT_Q4_0] : NULL;
}
