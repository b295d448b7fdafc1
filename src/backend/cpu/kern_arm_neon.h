/* 128-bit vectors for kern_body_linear.h, the same at every NEON level. What differs is the product of bytes, chosen by
 * the flags of the including file:
 *   baseline armv8-a  vmull_s8 and pairwise adds
 *   dotprod           SDOT: four products a lane; in tiles the four activations are a lane of a vector that holds 16 of
 *                     an input row, so that a load serves four instructions
 *   i8mm              tiles by SMMLA, which multiplies two input rows by two weight rows over eight columns: twice the
 *                     products of SDOT. An accumulator of a tile then holds [x0 w0, x0 w1, x1 w0, x1 w1]; accumulator
 *                     (i, v) belongs to input rows i & ~1 and i | 1 and to weight rows 4 v + 2 (i & 1) and the next.
 * Codes of 8 bits are lowered to signed bytes (WIDE_CODES 0), so that all three multiply signed by signed. Tiles are 4
 * input rows by 12 weight rows: 12 integer and 12 float accumulators leave 8 registers for operands. */
#ifndef FA_CPU_KERN_ARM_NEON_H
#define FA_CPU_KERN_ARM_NEON_H

#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

#include <arm_neon.h>
#include <string.h>

#define LN               4
#define QNV              3
#define QMR              4
#define FNV              3
#define FMR              8
#define TNV              3
#define TILES_MR(X, nv)  X(1, nv) X(2, nv) X(4, nv)
#define TILES(X)         TILES_MR(X, 1) TILES_MR(X, 2) TILES_MR(X, 3)
#define FTILES_MR(X, nv) TILES_MR(X, nv) X(8, nv)
#define FTILES(X)        FTILES_MR(X, 1) FTILES_MR(X, 2) FTILES_MR(X, 3)
#define WIDE_CODES       0
#define DOT_M            4
#define ROW_BODY         "backend/cpu/kern_body_rows_neon.h"

typedef float32x4_t vf;
typedef int32x4_t vi;

static inline vf vf_zero(void) { return vdupq_n_f32(0); }
static inline vf vf_set1(float x) { return vdupq_n_f32(x); }
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline void vf_store(float *p, vf v) { vst1q_f32(p, v); }
static inline vf vf_loadn(const float *p, int n) {
    float part[4] = {0};
    for (int i = 0; i < n; i++) part[i] = p[i];
    return vld1q_f32(part);
}
static inline void vf_storen(float *p, vf v, int n) {
    float part[4];
    vst1q_f32(part, v);
    for (int i = 0; i < n; i++) p[i] = part[i];
}
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline float vf_sum(vf v) { return vaddvq_f32(v); }
static inline vf vf_cvt(vi v) { return vcvtq_f32_s32(v); }
static inline vi vf_bits(vf v) { return vreinterpretq_s32_f32(v); }
static inline vf vf_from_bits(vi v) { return vreinterpretq_f32_s32(v); }
static inline vf vf_near_inverse(vf v) { /* 8 bits and two Newton steps; 0 for 0 */
    vf r = vrecpeq_f32(v);
    r = vmulq_f32(r, vrecpsq_f32(v, r));
    r = vmulq_f32(r, vrecpsq_f32(v, r));
    return vbslq_f32(vceqzq_f32(v), vdupq_n_f32(0), r);
}
static inline vf vf_u8(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, 4);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
static inline vf vf_f32(const uint8_t *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
static inline vf vf_f16(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
static inline vf vf_bf16(const uint8_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
/* p[0] p[0] p[1] p[1]: n values, the lanes after them 0 */
static inline vf vf_twice(const float *p, int n) {
    vf v = vf_loadn(p, n);
    return vzip1q_f32(v, v);
}
static inline vf vf_spread(const float *p, int ug) {
    (void)ug;
    return vdupq_n_f32(p[0]);
}

static inline vi vi_zero(void) { return vdupq_n_s32(0); }
static inline vi vi_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)p)); }
static inline vi vi_loadn(const void *p, int n) {
    (void)n;
    return vi_load(p);
} /* a chunk is half a group: no partial ones */
static inline vi vi_bcast4(const int8_t *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return vdupq_n_s32(v);
}
static inline vi vi_flip(vi v) { return veorq_s32(v, vdupq_n_s32((int32_t)0x80808080)); }
static inline vi vi_dps(vi acc, vi w, vi x) {
    int8x16_t a = vreinterpretq_s8_s32(w), b = vreinterpretq_s8_s32(x);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, a, b);
#else
    /* |product| <= 128 * 127, so the sum of two neighbours is taken in 32 bits: pairs of pairs by two widening adds */
    int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), hi = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(acc, vpaddq_s32(lo, hi));
#endif
}
static inline vi vi_dp(vi acc, vi w, vi x) {
    return vi_dps(acc, w, x);
} /* codes up to 127 are signed bytes as they are */

static inline void transpose(const void *src, size_t src_stride, void *dst, size_t dst_stride, int64_t n) {
    for (int64_t k = 0; k < n; k += 4) {
        const uint8_t *p = (const uint8_t *)src + 4 * k;
        uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(p)), b = vreinterpretq_u32_u8(vld1q_u8(p + src_stride));
        uint32x4_t c = vreinterpretq_u32_u8(vld1q_u8(p + 2 * src_stride)),
                   d = vreinterpretq_u32_u8(vld1q_u8(p + 3 * src_stride));
        uint64x2_t ab0 = vreinterpretq_u64_u32(vtrn1q_u32(a, b)), ab1 = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
        uint64x2_t cd0 = vreinterpretq_u64_u32(vtrn1q_u32(c, d)), cd1 = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
        const uint64x2_t r[4] = {vtrn1q_u64(ab0, cd0), vtrn1q_u64(ab1, cd1), vtrn2q_u64(ab0, cd0),
                                 vtrn2q_u64(ab1, cd1)};
        uint8_t *out = (uint8_t *)dst + (size_t)k * dst_stride;
        for (size_t i = 0; i < 4; i++)
            if ((int64_t)i < n - k) vst1q_u8(out + i * dst_stride, vreinterpretq_u8_u64(r[i]));
    }
}

static inline float amax32(const float *x) {
    uint32x4_t m = vdupq_n_u32(0);
    for (int i = 0; i < 32; i += 4)
        m = vmaxq_u32(m, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), vdupq_n_u32(0x7FFFFFFF)));
    uint32_t top = vmaxvq_u32(m);
    float f;
    memcpy(&f, &top, 4);
    return f;
}

/* q = round(x * inv) and the sums of both halves */
static inline void quant32(const float *x, float inv, int8_t *q, int half[2]) {
    for (int h = 0; h < 2; h++) {
        int32x4_t v[4], s = vdupq_n_s32(0);
        for (int i = 0; i < 4; i++) {
            v[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 16 * h + 4 * i), inv));
            s = vaddq_s32(s, v[i]);
        }
        int16x8_t a = vcombine_s16(vqmovn_s32(v[0]), vqmovn_s32(v[1])),
                  b = vcombine_s16(vqmovn_s32(v[2]), vqmovn_s32(v[3]));
        vst1q_s8(q + 16 * h, vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
        half[h] = vaddvq_s32(s);
    }
}

/* ---- register tiles ---- */

#if defined(__ARM_FEATURE_MATMUL_INT8) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
/* Two accumulators to four weight rows of two input rows */
INLINE void tile_untangle(vf *a, vf *b) {
    const float64x2_t x = vreinterpretq_f64_f32(*a), y = vreinterpretq_f64_f32(*b);
    *a = vreinterpretq_f32_f64(vzip1q_f64(x, y));
    *b = vreinterpretq_f32_f64(vzip2q_f64(x, y));
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)

#define PAIRS 1

/* Four rows of K codes to [K / 8][rows / 2][2][8]: n eights of columns, dst_stride apart */
static inline void interleave(const void *src, size_t src_stride, void *dst, size_t dst_stride, int64_t n) {
    for (int64_t k = 0; k < n; k += 2)
        for (size_t i = 0; i < 4; i += 2) {
            const uint8_t *p = (const uint8_t *)src + i * src_stride + 8 * k;
            const uint64x2_t a = vreinterpretq_u64_u8(vld1q_u8(p)), b = vreinterpretq_u64_u8(vld1q_u8(p + src_stride));
            uint8_t *out = (uint8_t *)dst + (size_t)k * dst_stride + 8 * i;
            vst1q_u8(out, vreinterpretq_u8_u64(vzip1q_u64(a, b)));
            vst1q_u8(out + dst_stride, vreinterpretq_u8_u64(vzip2q_u64(a, b)));
        }
}

/* Values of four weight rows, n times and ld apart, become those of two accumulators: 0 1 0 1 2 3 2 3 */
static inline void plane_pairs(float *p, int64_t ld, int64_t n) {
    for (; n > 0; n--, p += ld) {
        const float64x2_t v = vreinterpretq_f64_f32(vld1q_f32(p));
        vst1q_f32(p, vreinterpretq_f32_f64(vzip1q_f64(v, v)));
        vst1q_f32(p + 4, vreinterpretq_f32_f64(vzip2q_f64(v, v)));
    }
}

/* Values of accumulator i's weight rows, and of its input rows, ld apart */
INLINE vf tile_weights(const float *p, const int i) { return vld1q_f32(p + 4 * (i & 1)); }
INLINE vf tile_inputs(const float *p, int64_t ld, const int i) {
    const vf v = {p[(i & ~1) * ld], p[(i | 1) * ld], 0, 0};
    return vzip1q_f32(v, v);
}

/* c[i][v] += dot over `steps` fours of columns, a multiple of four fours */
#define QTILE_DOTS
INLINE void qtile_dots(const int acc, const int NV, const bool wide, const int steps, const uint8_t *codes,
                       const int8_t *q, int64_t ldq, vi c[][TNV]) {
    (void)wide;
    for (int k = 0; k < 4 * steps; k += 16) {
        int8x16_t x[QMR / 2][2];
        for (int i = 0; i < acc; i += 2) {
            const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(q + i * ldq + k)),
                            b = vreinterpretq_s64_s8(vld1q_s8(q + (i + 1) * ldq + k));
            x[i / 2][0] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
            x[i / 2][1] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
        }
        for (int h = 0; h < 2; h++)
            for (int v = 0; v < NV; v++)
                for (int j = 0; j < 2; j++) {
                    const int8x16_t w = vreinterpretq_s8_s32(vi_load(codes + ((k / 8 + h) * NV + v) * 32 + 16 * j));
                    for (int i = 0; i < acc; i += 2) c[i + j][v] = vmmlaq_s32(c[i + j][v], x[i / 2][h], w);
                }
    }
}

#elif defined(__ARM_FEATURE_DOTPROD)

/* four columns of all rows: those of lane `lane` of x */
#define DOT_STEP(lane)                                                                                                 \
    for (int v = 0; v < NV; v++) {                                                                                     \
        const int8x16_t w = vreinterpretq_s8_s32(vi_load(codes + ((s + lane) * NV + v) * 16));                         \
        for (int i = 0; i < MR; i++) c[i][v] = vdotq_laneq_s32(c[i][v], w, x[i], lane);                                \
    }

/* c[i][v] += dot over `steps` fours of columns, a multiple of four fours */
#define QTILE_DOTS
INLINE void qtile_dots(const int MR, const int NV, const bool wide, const int steps, const uint8_t *codes,
                       const int8_t *q, int64_t ldq, vi c[][TNV]) {
    (void)wide;
    for (int s = 0; s < steps; s += 4) {
        int8x16_t x[QMR];
        for (int i = 0; i < MR; i++) x[i] = vld1q_s8(q + i * ldq + s * 4);
        DOT_STEP(0)
        DOT_STEP(1)
        DOT_STEP(2)
        DOT_STEP(3)
    }
}

#endif

#endif
