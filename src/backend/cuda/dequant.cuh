/* Weight formats on the device: what src/tensor/qfmt defines, as device functions that look at 8 consecutive columns of
 * one row. Everything that reads weights (embedding rows, panels for matrix products, weight streaming) goes through
 * them, so that layouts are written down once.
 *
 * The canonical form is that of qfmt.h: value = code * scale + min, product and sum rounded separately (never fused:
 * affine weights with f32 scales have products that are not exact), codes 0..255. 8 columns that begin at a multiple
 * of 8 never straddle a group (16, 32, 64 or 128 columns). E4M3 bytes are floats and have no canonical form.
 *
 * Alignment: rows begin at multiples of 16 bytes (global memory) and so do copies of them in shared memory. Blocks
 * within rows begin at multiples of 2 (GGUF) and 8 columns of a b-bit stream at multiples of b bytes. */
#ifndef FA_CUDA_DEQUANT_CUH
#define FA_CUDA_DEQUANT_CUH

#include "backend/cuda/cu.h"

#define FA_IQ_FN    CU_DEV
#define FA_IQ_TABLE static __device__ const
#include "tensor/qfmt/gguf_iq.h"

/* The storage layouts: as fa_fmt, but affine is one for each bit width, and mxfp8 and fp8 are one. (Formatting would
 * break one more line each time.) */
/* clang-format off */
#define CU_KINDS(X)                                                                                                    \
    X(F32) X(F16) X(BF16) X(A2) X(A3) X(A4) X(A5) X(A6) X(A8) X(MXFP4) X(NVFP4) X(F8)                                  \
    X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K)                                    \
    X(IQ1_S) X(IQ1_M) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S) X(IQ4_NL) X(IQ4_XS) X(TQ1_0) X(TQ2_0)          \
    X(MXFP4_B) X(NVFP4_B)
/* clang-format on */

#define CU_BOTH __host__ __device__

typedef enum cu_kind {
#define CU_X(id) CU_K_##id,
    CU_KINDS(CU_X)
#undef CU_X
        CU_KIND_COUNT
} cu_kind;

/* A weight as kernels take it, by value. */
typedef struct cu_wmat {
    const uint8_t *codes, *scales, *biases;
    int64_t row_bytes, scale_row_bytes; /* pitches */
    int64_t rows, cols;
    uint8_t kind;        /* cu_kind */
    uint8_t group_log;   /* of planar kinds: 4 .. 7; 31: a scale a row */
    uint8_t scale_dtype; /* fa_dtype */
} cu_wmat;

/* From a fa_fmt and its bits. */
static inline CU_BOTH int cu_kind_at(int fmt, int bits) {
    if (fmt >= FA_FMT_Q4_0) return fmt - FA_FMT_Q4_0 + CU_K_Q4_0; /* in the same order */
    switch (fmt) {
    case FA_FMT_F32: return CU_K_F32;
    case FA_FMT_F16: return CU_K_F16;
    case FA_FMT_BF16: return CU_K_BF16;
    case FA_FMT_MXFP4: return CU_K_MXFP4;
    case FA_FMT_NVFP4: return CU_K_NVFP4;
    case FA_FMT_AFFINE: return bits == 8 ? CU_K_A8 : bits - 2 + CU_K_A2;
    default: return CU_K_F8;
    }
}
static inline CU_BOTH int cu_group_log(int group) {
    return group == 128 ? 7 : group == 64 ? 6 : group == 32 ? 5 : group == 16 ? 4 : 31;
}

static inline cu_wmat cu_wmat_of(const fa_weight *w) {
    cu_wmat m = {};
    m.codes = w->codes;
    m.scales = w->scales;
    m.biases = w->biases;
    m.row_bytes = (int64_t)w->row_bytes;
    m.scale_row_bytes = (int64_t)w->scale_row_bytes;
    m.rows = w->rows;
    m.cols = w->cols;
    m.kind = (uint8_t)cu_kind_at(w->fmt, w->bits);
    m.group_log = (uint8_t)cu_group_log(w->group);
    m.scale_dtype = w->scale_dtype;
    return m;
}

/* One row of a weight: plane addresses. Codes and scales may lie in global or shared memory. */
typedef struct cu_wrow {
    const uint8_t *codes, *scales, *biases;
} cu_wrow;

CU_DEV cu_wrow cu_row_of(const cu_wmat &w, int64_t row) {
    cu_wrow r;
    r.codes = w.codes + row * w.row_bytes;
    r.scales = w.scales + row * w.scale_row_bytes;
    r.biases = w.biases + row * w.scale_row_bytes;
    return r;
}

/* ---- what a kind is made of ---- */

template <int KIND> struct cu_kind_info {
    static constexpr bool is_float = KIND <= CU_K_BF16;
    static constexpr int bits = KIND == CU_K_A2   ? 2
                                : KIND == CU_K_A3 ? 3
                                : KIND == CU_K_A4 ? 4
                                : KIND == CU_K_A5 ? 5
                                : KIND == CU_K_A6 ? 6
                                : KIND == CU_K_A8 ? 8
                                                  : 0; /* of an affine code stream */
    static constexpr bool is_k = KIND >= CU_K_Q2_K && KIND <= CU_K_Q6_K;
    static constexpr bool is_table = KIND >= CU_K_IQ1_S; /* gguf_iq.h */
    static constexpr bool wide = KIND == CU_K_A8 || KIND == CU_K_Q8_0 || KIND == CU_K_IQ4_NL || KIND == CU_K_IQ4_XS;
    /* GGUF: columns and bytes of a block */
    static constexpr int block =
#define CU_X(id, name, values, bytes, group, at, offset) KIND == CU_K_##id ? (values):
        FA_IQ_FMTS(CU_X)(is_k ? 256 : 32);
#undef CU_X
    static constexpr int block_bytes = KIND == CU_K_Q4_0   ? 18
                                       : KIND == CU_K_Q4_1 ? 20
                                       : KIND == CU_K_Q5_0 ? 22
                                       : KIND == CU_K_Q5_1 ? 24
                                       : KIND == CU_K_Q8_0 ? 34
                                       : KIND == CU_K_Q2_K ? 84
                                       : KIND == CU_K_Q3_K ? 110
                                       : KIND == CU_K_Q4_K ? 144
                                       : KIND == CU_K_Q5_K ? 176
                                       : KIND == CU_K_Q6_K ? 210
#define CU_X(id, name, values, bytes, group, at, offset) : KIND == CU_K_##id ? (bytes)
                                           FA_IQ_FMTS(CU_X)
#undef CU_X
                                                           : 0;
    /* columns per canonical scale: 16 or 32 */
    static constexpr int group =
#define CU_X(id, name, values, bytes, group, at, offset) KIND == CU_K_##id ? (group):
        FA_IQ_FMTS(CU_X)(KIND == CU_K_Q2_K || KIND == CU_K_Q3_K || KIND == CU_K_Q6_K || KIND == CU_K_NVFP4 ? 16 : 32);
#undef CU_X
};

/* ---- pieces of rows ---- */

CU_DEV uint32_t cu_ld16(const uint8_t *p) { return *(const uint16_t *)p; }
/* 4 bytes at an address that is a multiple of 2 */
CU_DEV uint32_t cu_ld32h(const uint8_t *p) { return cu_ld16(p) | cu_ld16(p + 2) << 16; }
/* 8 bytes at an address that is a multiple of A */
template <int A> CU_DEV uint2 cu_ld64(const uint8_t *p) {
    if constexpr (A >= 8)
        return *(const uint2 *)p;
    else if constexpr (A == 4)
        return make_uint2(*(const uint32_t *)p, *(const uint32_t *)(p + 4));
    else
        return make_uint2(cu_ld32h(p), cu_ld32h(p + 4));
}
/* Bit i of the low 4 bits of v to bit 8 i. */
CU_DEV uint32_t cu_spread_bits(uint32_t v) { return ((v & 15) * 0x00204081u) & 0x01010101u; }
/* (v >> shift) & mask in both words */
CU_DEV uint2 cu_plane8(uint2 v, int shift, uint32_t mask) {
    return make_uint2(v.x >> shift & mask, v.y >> shift & mask);
}
CU_DEV uint2 cu_add_plane8(uint2 c, uint2 v, int shift, uint32_t mask, int to) {
    return make_uint2(c.x | (v.x >> shift & mask) << to, c.y | (v.y >> shift & mask) << to);
}

/* 8 codes of a B-bit stream: B bytes at p (a multiple of B from a 16-byte boundary) as bytes. */
template <int B> CU_DEV uint2 cu_unstream8(const uint8_t *p) {
    if constexpr (B == 8) return *(const uint2 *)p;
    if constexpr (B == 4) {
        const uint32_t v = *(const uint32_t *)p, lo = v & 0x0F0F0F0Fu, hi = v >> 4 & 0x0F0F0F0Fu;
        return make_uint2(__byte_perm(lo, hi, 0x5140), __byte_perm(lo, hi, 0x7362));
    }
    uint32_t lo, hi; /* codes 0..3 and 4..7 as bit streams */
    if constexpr (B == 2) {
        const uint32_t v = cu_ld16(p);
        lo = v;
        hi = v >> 8;
    } else if constexpr (B == 3) {
        const uint32_t v = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
        lo = v;
        hi = v >> 12;
    } else if constexpr (B == 5) {
        lo = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
        hi = (uint32_t)(p[2] >> 4) | (uint32_t)p[3] << 4 | (uint32_t)p[4] << 12;
    } else {
        lo = cu_ld16(p) | (uint32_t)p[2] << 16;
        hi = p[3] | cu_ld16(p + 4) << 8;
    }
    constexpr uint32_t m = (1u << B) - 1;
    return make_uint2((lo & m) | (lo >> B & m) << 8 | (lo >> 2 * B & m) << 16 | (lo >> 3 * B & m) << 24,
                      (hi & m) | (hi >> B & m) << 8 | (hi >> 2 * B & m) << 16 | (hi >> 3 * B & m) << 24);
}

/* mxfp4's canonical codes (2 * value + 12) of the E2M1 nibbles 0..7 and 8..15, one a byte. */
CU_DEV uint32_t cu_e2m1_codes(uint32_t nib4) { /* 4 nibbles, one in the low half of each byte */
    const uint32_t sel = (nib4 & 7) | (nib4 >> 4 & 0x70) | (nib4 >> 8 & 0x700) | (nib4 >> 12 & 0x7000);
    const uint32_t pos = __byte_perm(0x0F0E0D0Cu, 0x18141210u, sel), neg = __byte_perm(0x090A0B0Cu, 0x00040608u, sel);
    const uint32_t sign = (nib4 >> 3 & 0x01010101u) * 0xFFu;
    return (pos & ~sign) | (neg & sign);
}

/* The pair of E2M1 numbers in the upper 4 bits of both halves of v as bf16. Sign, exponent and mantissa are moved to
 * their places; the exponents differ by 126, as do the places of the smallest number below normal ones. */
CU_DEV uint32_t cu_e2m1_pair(uint32_t v) {
    const uint32_t r = cu_and_or(v >> 6, 0x01C001C0u, v & 0x80008000u);
    return cu_bf16x2_fma(r, 0x7E807E80u, 0x80008000u);
}

/* ---- canonical codes ---- */

/* Codes of columns [k, k + 8), k a multiple of 8, one a byte. codes: the row's first byte, 16-byte aligned. */
template <int KIND> CU_DEV uint2 cu_codes8(const uint8_t *codes, int64_t k) {
    typedef cu_kind_info<KIND> I;
    if constexpr (I::bits != 0) {
        return cu_unstream8<I::bits>(codes + k / 8 * I::bits);
    } else if constexpr (I::is_table) {
        const uint8_t *p = codes + k / I::block * I::block_bytes;
        const int i = (int)(k % I::block) / 8;
        uint64_t c = 0;
#define CU_X(id, name, values, bytes, group, at, offset)                                                               \
    if constexpr (KIND == CU_K_##id) c = fa_##name##_codes(p, i);
        FA_IQ_FMTS(CU_X)
#undef CU_X
        return make_uint2((uint32_t)c, (uint32_t)(c >> 32));
    } else if constexpr (KIND == CU_K_MXFP4 || KIND == CU_K_NVFP4) {
        const uint2 n = cu_unstream8<4>(codes + k / 2);
        return make_uint2(cu_e2m1_codes(n.x), cu_e2m1_codes(n.y));
    } else if constexpr (!I::is_k) {
        const uint8_t *p = codes + k / 32 * I::block_bytes;
        const int j = (int)(k & 31);
        if constexpr (KIND == CU_K_Q8_0) {
            const uint2 v = cu_ld64<2>(p + 2 + j);
            return make_uint2(v.x ^ 0x80808080u, v.y ^ 0x80808080u);
        }
        constexpr int head = I::block_bytes - 16;
        uint2 c = cu_plane8(cu_ld64<2>(p + head + (j & 15)), j >> 4 << 2, 0x0F0F0F0Fu);
        if constexpr (KIND == CU_K_Q5_0 || KIND == CU_K_Q5_1) {
            const uint32_t h = p[head - 4 + (j >> 3)];
            c.x |= cu_spread_bits(h) << 4;
            c.y |= cu_spread_bits(h >> 4) << 4;
        }
        return c;
    } else {
        /* A block of 256: plane i of 32 columns, l within it. */
        const uint8_t *p = codes + (k >> 8) * I::block_bytes;
        const int i = (int)(k & 255) >> 5, l = (int)(k & 31);
        if constexpr (KIND == CU_K_Q2_K) return cu_plane8(cu_ld64<4>(p + 16 + i / 4 * 32 + l), i % 4 * 2, 0x03030303u);
        if constexpr (KIND == CU_K_Q3_K) {
            const uint2 c = cu_plane8(cu_ld64<2>(p + 32 + i / 4 * 32 + l), i % 4 * 2, 0x03030303u);
            return cu_add_plane8(c, cu_ld64<2>(p + l), i, 0x01010101u, 2);
        }
        if constexpr (KIND == CU_K_Q4_K) return cu_plane8(cu_ld64<8>(p + 16 + i / 2 * 32 + l), i % 2 * 4, 0x0F0F0F0Fu);
        if constexpr (KIND == CU_K_Q5_K) {
            const uint2 c = cu_plane8(cu_ld64<8>(p + 48 + i / 2 * 32 + l), i % 2 * 4, 0x0F0F0F0Fu);
            return cu_add_plane8(c, cu_ld64<8>(p + 16 + l), i, 0x01010101u, 4);
        }
        const int h = i / 4, q = i % 4; /* Q6_K: half and plane within it */
        const uint2 c = cu_plane8(cu_ld64<2>(p + 64 * h + 32 * (q & 1) + l), q / 2 * 4, 0x0F0F0F0Fu);
        return cu_add_plane8(c, cu_ld64<2>(p + 128 + 32 * h + l), 2 * q, 0x03030303u, 4);
    }
}

/* ---- canonical scales ---- */

CU_DEV float cu_scale_at(const uint8_t *p, int64_t i, int dtype) {
    if (dtype == FA_F32) return ((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];
    return dtype == FA_F16 ? cu_f16(h) : cu_bf16(h);
}

/* 2^(e - 128): half of what an E8M0 byte stands for; subnormal for 0 and 1, NaN for 255. */
CU_DEV float cu_half_e8m0(uint32_t e) {
    return __uint_as_float(e == 255 ? 0x7FC00000u : e > 1 ? (e - 1) << 23 : 0x200000u << e);
}

/* Moved to the place of an f16, an E4M3 byte is worth 2^-8 of what it is; only NaN has to be made. */
CU_DEV float cu_e4m3(uint32_t v) {
    const uint32_t mag = v & 127u;
    return cu_f16((uint16_t)((v & 128u) << 8 | (mag == 127u ? 0x7E00u : mag << 7))) * 256.0f;
}
/* The scale of mxfp8 (2^(e - 127), 255 is infinite) or fp8. */
CU_DEV float cu_fp8_scale(const uint8_t *scales, int64_t g, int dtype) {
    if (dtype != FA_U8) return ((const float *)scales)[g];
    const uint32_t e = scales[g];
    return __uint_as_float(e ? e << 23 : 0x400000u);
}

/* What gguf_iq.h calls d times step. */
#define fa_mxfp4_b_step(p, g) __uint_as_float(fa_mxfp4_b_scale_bits(p))
#define fa_nvfp4_b_step(p, g) fa_nvfp4_b_scale(p, g)
template <int KIND> CU_DEV float cu_table_d(const uint8_t *p) {
    if constexpr (KIND == CU_K_IQ1_M) return cu_f16((uint16_t)fa_iq1_m_d(p));
#define CU_X(id, name, values, bytes, group, at, offset)                                                               \
    if constexpr (KIND == CU_K_##id && at >= 0) return cu_f16((uint16_t)fa_iq_u16(p + at));
    FA_IQ_FMTS(CU_X)
#undef CU_X
    return 1.0f;
}

/* x: scale, y: min of the group that column k is in. */
template <int KIND> CU_DEV float2 cu_scale_min(const cu_wrow &r, int64_t k, int group_log, int scale_dtype) {
    typedef cu_kind_info<KIND> I;
    if constexpr (I::bits != 0) {
        const int64_t g = k >> group_log;
        return make_float2(cu_scale_at(r.scales, g, scale_dtype), cu_scale_at(r.biases, g, scale_dtype));
    } else if constexpr (I::is_table) {
        const uint8_t *p = r.codes + k / I::block * I::block_bytes;
        const int g = (int)(k % I::block) / I::group;
        const float d = cu_table_d<KIND>(p);
#define CU_X(id, name, values, bytes, group, at, offset)                                                               \
    if constexpr (KIND == CU_K_##id) {                                                                                 \
        const float s = d * fa_##name##_step(p, g);                                                                    \
        return make_float2(s, -(float)(offset)*s);                                                                     \
    }
        FA_IQ_FMTS(CU_X)
#undef CU_X
    } else if constexpr (KIND == CU_K_NVFP4) {
        const float s = 0.5f * (scale_dtype == FA_F32 ? ((const float *)r.scales)[k >> 4] : cu_e4m3(r.scales[k >> 4]));
        return make_float2(s, -12.0f * s);
    } else if constexpr (KIND == CU_K_MXFP4) {
        const float s = cu_half_e8m0(r.scales[k >> 5]);
        return make_float2(s, -12.0f * s);
    } else if constexpr (!I::is_k) {
        const uint8_t *p = r.codes + k / 32 * I::block_bytes;
        const float d = cu_f16((uint16_t)cu_ld16(p));
        if constexpr (KIND == CU_K_Q4_1 || KIND == CU_K_Q5_1) return make_float2(d, cu_f16((uint16_t)cu_ld16(p + 2)));
        return make_float2(d, (KIND == CU_K_Q4_0 ? -8.0f : KIND == CU_K_Q5_0 ? -16.0f : -128.0f) * d);
    } else {
        const uint8_t *p = r.codes + (k >> 8) * I::block_bytes;
        const int g = (int)(k & 255) / I::group;
        if constexpr (KIND == CU_K_Q2_K) {
            const float d = cu_f16((uint16_t)cu_ld16(p + 80)), dmin = cu_f16((uint16_t)cu_ld16(p + 82));
            return make_float2(d * (float)(p[g] & 15), -(dmin * (float)(p[g] >> 4)));
        }
        if constexpr (KIND == CU_K_Q3_K) {
            const uint8_t *s = p + 96;
            const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
            const int q = (low | (s[8 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32;
            const float scale = cu_f16((uint16_t)cu_ld16(p + 108)) * (float)q;
            return make_float2(scale, -4.0f * scale);
        }
        if constexpr (KIND == CU_K_Q6_K) {
            const float scale = cu_f16((uint16_t)cu_ld16(p + 208)) * (float)(int8_t)p[192 + g];
            return make_float2(scale, -32.0f * scale);
        }
        /* Q4_K, Q5_K: groups 0..3 in the low 6 bits of bytes 0..3 and 4..7, groups 4..7 in pieces */
        const uint32_t dm = *(const uint32_t *)p;
        const uint8_t *s = p + 4;
        int a, b;
        if (g < 4) {
            a = s[g] & 63;
            b = s[4 + g] & 63;
        } else {
            a = (s[4 + g] & 15) | (s[g - 4] >> 6) << 4;
            b = s[4 + g] >> 4 | (s[g] >> 6) << 4;
        }
        return make_float2(cu_f16_lo(dm) * (float)a, -(cu_f16_hi(dm) * (float)b));
    }
}

/* ---- values ---- */

/* code * scale + min as qfmt.h rounds it */
CU_DEV float cu_value(uint32_t code, float2 sm) { return __fadd_rn(__fmul_rn((float)code, sm.x), sm.y); }

/* Columns [k, k + 8) of a row as floats, k a multiple of 8. Float kinds may end within the 8: what lies beyond cols is
 * not meaningful and not read past the row's pitch. */
template <int KIND> CU_DEV void cu_values8(const cu_wmat &w, const cu_wrow &r, int64_t k, float v[8]) {
    if constexpr (KIND == CU_K_F32) {
        const float4 a = *(const float4 *)(r.codes + 4 * k);
        const float4 b = k + 4 < w.cols ? *(const float4 *)(r.codes + 4 * k + 16) : make_float4(0, 0, 0, 0);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else if constexpr (KIND == CU_K_F16 || KIND == CU_K_BF16) {
        const uint4 a = *(const uint4 *)(r.codes + 2 * k);
        const uint32_t u[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] = KIND == CU_K_F16 ? cu_f16_lo(u[i]) : cu_bf16_lo(u[i]);
            v[2 * i + 1] = KIND == CU_K_F16 ? cu_f16_hi(u[i]) : cu_bf16_hi(u[i]);
        }
    } else if constexpr (KIND == CU_K_F8) {
        const uint2 c = *(const uint2 *)(r.codes + k);
        const float s = cu_fp8_scale(r.scales, k >> w.group_log, w.scale_dtype);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[i] = __fmul_rn(cu_e4m3(c.x >> 8 * i & 255), s);
            v[4 + i] = __fmul_rn(cu_e4m3(c.y >> 8 * i & 255), s);
        }
    } else {
        const uint2 c = cu_codes8<KIND>(r.codes, k);
        const float2 sm = cu_scale_min<KIND>(r, k, w.group_log, w.scale_dtype);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[i] = cu_value(c.x >> 8 * i & 255, sm);
            v[4 + i] = cu_value(c.y >> 8 * i & 255, sm);
        }
    }
}

/* Runs `call` with KIND as a constant: CU_WITH_KIND(kind, f<KIND>(...)). */
#define CU_CASE_KIND(id, ...)                                                                                          \
    case CU_K_##id: {                                                                                                  \
        constexpr int KIND = CU_K_##id;                                                                                \
        __VA_ARGS__;                                                                                                   \
    } break;
#define CU_WITH_KIND(kind, ...)                                                                                        \
    switch (kind) {                                                                                                    \
        CU_CASE_KIND(F32, __VA_ARGS__)                                                                                 \
        CU_CASE_KIND(F16, __VA_ARGS__)                                                                                 \
        CU_CASE_KIND(BF16, __VA_ARGS__)                                                                                \
        CU_WITH_QUANT_CASES(__VA_ARGS__)                                                                               \
    default: break;                                                                                                    \
    }
#define CU_WITH_QUANT_CASES(...)                                                                                       \
    CU_CASE_KIND(A2, __VA_ARGS__)                                                                                      \
    CU_CASE_KIND(A3, __VA_ARGS__)                                                                                      \
    CU_CASE_KIND(A4, __VA_ARGS__)                                                                                      \
    CU_CASE_KIND(A5, __VA_ARGS__)                                                                                      \
    CU_CASE_KIND(A6, __VA_ARGS__)                                                                                      \
    CU_CASE_KIND(A8, __VA_ARGS__)                                                                                      \
    CU_CASE_KIND(MXFP4, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(NVFP4, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(F8, __VA_ARGS__)                                                                                      \
    CU_CASE_KIND(Q4_0, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q4_1, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q5_0, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q5_1, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q8_0, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q2_K, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q3_K, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q4_K, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q5_K, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(Q6_K, __VA_ARGS__)                                                                                    \
    CU_CASE_KIND(IQ1_S, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(IQ1_M, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(IQ2_XXS, __VA_ARGS__)                                                                                 \
    CU_CASE_KIND(IQ2_XS, __VA_ARGS__)                                                                                  \
    CU_CASE_KIND(IQ2_S, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(IQ3_XXS, __VA_ARGS__)                                                                                 \
    CU_CASE_KIND(IQ3_S, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(IQ4_NL, __VA_ARGS__)                                                                                  \
    CU_CASE_KIND(IQ4_XS, __VA_ARGS__)                                                                                  \
    CU_CASE_KIND(TQ1_0, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(TQ2_0, __VA_ARGS__)                                                                                   \
    CU_CASE_KIND(MXFP4_B, __VA_ARGS__)                                                                                 \
    CU_CASE_KIND(NVFP4_B, __VA_ARGS__)

#endif
