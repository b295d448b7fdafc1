/* The vector vocabulary (kern_simd.h) in AArch64 Advanced SIMD (baseline: no FP16 arithmetic, no BF16). */
#ifndef FA_CPU_KERN_SIMD_NEON_H
#define FA_CPU_KERN_SIMD_NEON_H

#include "backend/cpu/kern_simd.h"

#include <arm_neon.h>

typedef float32x4_t vf;
enum { VL = 4, V_MR = 6, V_NV = 4, V_DR = 4 };

V_INLINE vf v_set1(float x) { return vdupq_n_f32(x); }
V_INLINE vf v_load(const float *p) { return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); }
V_INLINE vf v_iota(void) {
    const float i[4] = {0, 1, 2, 3};
    return vld1q_f32(i);
}
V_INLINE vf v_loadn(const float *p, int n) {
    float t[VL] = {0};
    memcpy(t, p, sizeof *p * (size_t)n);
    return vld1q_f32(t);
}
V_INLINE void v_store(float *p, vf x) { vst1q_u8((uint8_t *)p, vreinterpretq_u8_f32(x)); }
V_INLINE void v_storen(float *p, vf x, int n) {
    float t[VL];
    vst1q_f32(t, x);
    memcpy(p, t, sizeof *p * (size_t)n);
}

V_INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
V_INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
V_INLINE vf v_min(vf a, vf b) { return vminq_f32(a, b); }
V_INLINE vf v_max(vf a, vf b) { return vmaxq_f32(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
V_INLINE vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
V_INLINE vf v_abs(vf a) { return vabsq_f32(a); }
V_INLINE vf v_round(vf a) { return vrndnq_f32(a); }
V_INLINE vf v_lt(vf a, vf b, vf x, vf y) { return vbslq_f32(vcltq_f32(a, b), x, y); }
V_INLINE vf v_sign(vf x, vf s) { return vbslq_f32(vdupq_n_u32(0x80000000u), s, x); }
/* In two steps, each a normal power of two: one step could not reach below 2^-126 or above 2^127. A NaN n yields NaN
 * through p. */
V_INLINE vf v_ldexp(vf p, vf n) {
    int32x4_t k = vcvtq_s32_f32(n), k1 = vshrq_n_s32(k, 1), k2 = vsubq_s32(k, k1);
    const int32x4_t bias = vdupq_n_s32(127);
    vf s1 = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k1, bias), 23));
    vf s2 = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k2, bias), 23));
    return vmulq_f32(vmulq_f32(p, s1), s2);
}
V_INLINE float v_sum(vf a) { return vaddvq_f32(a); }
V_INLINE float v_top(vf a) { return vmaxvq_f32(a); }
V_INLINE int v_pack(float *out, int32_t *id, vf x, vf lo, vf hi, int32_t first) {
    uint32x4_t in = vandq_u32(vcgeq_f32(x, lo), vcleq_f32(x, hi));
    if (vmaxvq_u32(in) == 0) return 0;
    float v[VL];
    uint32_t bit[VL];
    int m = 0;
    vst1q_f32(v, x);
    vst1q_u32(bit, in);
    for (int j = 0; j < VL; j++) {
        out[m] = v[j];
        id[m] = first + j;
        m += (int)(bit[j] & 1);
    }
    return m;
}
V_INLINE void v_sum4(vf a, vf b, vf c, vf d, float *out) {
    v_store(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}

V_INLINE vf v_widen(uint16x4_t h, fa_dtype t) {
    if (t == FA_F16) return vcvt_f32_f16(vreinterpret_f16_u16(h));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}
V_INLINE vf v_ld(const void *p, int64_t i, fa_dtype t) {
    const uint8_t *b = p;
    if (t == FA_F32) return vreinterpretq_f32_u8(vld1q_u8(b + 4 * i));
    return v_widen(vreinterpret_u16_u8(vld1_u8(b + 2 * i)), t);
}
V_INLINE vf v_ldn(const void *p, int64_t i, fa_dtype t, int n) {
    uint8_t b[4 * VL] = {0};
    size_t size = t == FA_F32 ? 4 : 2;
    memcpy(b, (const uint8_t *)p + size * (size_t)i, size * (size_t)n);
    return v_ld(b, 0, t);
}

/* VL integers of 8 bits. */
V_INLINE vf v_ldi8(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}

V_INLINE vf v_low_half(vf x) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 16)); }
V_INLINE vf v_high_half(vf x) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0xFFFF0000u)));
}
V_INLINE void v_ldp(const void *p, int64_t i, fa_dtype t, vf *a, vf *b) {
    if (t == FA_BF16) {
        vf x = v_ld((const char *)p + 2 * i, 0, FA_F32);
        *a = v_low_half(x);
        *b = v_high_half(x);
    } else {
        *a = v_ld(p, i, t);
        *b = v_ld(p, i + VL, t);
    }
}

/* A NaN keeps its upper bits and gets its quiet bit, so that cutting never makes it an infinity. */
V_INLINE uint16x4_t v_narrow(vf x, fa_dtype t) {
    if (t == FA_F16) return vreinterpret_u16_f16(vcvt_f16_f32(x));
    uint32x4_t u = vreinterpretq_u32_f32(x), cut = vshrq_n_u32(u, 16);
    uint32x4_t r = vshrq_n_u32(vaddq_u32(u, vaddq_u32(vandq_u32(cut, vdupq_n_u32(1)), vdupq_n_u32(0x7FFF))), 16);
    return vmovn_u32(vbslq_u32(vceqq_f32(x, x), r, vorrq_u32(cut, vdupq_n_u32(0x40))));
}
V_INLINE void v_st(void *p, int64_t i, fa_dtype t, vf x) {
    vst1_u8((uint8_t *)p + 2 * i, vreinterpret_u8_u16(v_narrow(x, t)));
}
V_INLINE void v_stn(void *p, int64_t i, fa_dtype t, vf x, int n) {
    uint8_t h[2 * VL];
    v_st(h, 0, t, x);
    memcpy((uint8_t *)p + 2 * i, h, 2 * (size_t)n);
}

V_INLINE void v_ld2(const float *p, vf *even, vf *odd) {
    vf a = v_load(p), b = v_load(p + VL);
    *even = vuzp1q_f32(a, b);
    *odd = vuzp2q_f32(a, b);
}
V_INLINE void v_st2(float *p, vf even, vf odd) {
    v_store(p, vzip1q_f32(even, odd));
    v_store(p + VL, vzip2q_f32(even, odd));
}

V_INLINE void v_transpose(vf r[VL]) {
    float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])), b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])), d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

#endif
