/* Pieces of stored weights as NEON vectors, for whole rows (kern_unpack_neon.c) and for products over the stored codes
 * (kern_body_rows_neon.h). */
#ifndef FA_CPU_KERN_ARM_NEON_CODES_H
#define FA_CPU_KERN_ARM_NEON_CODES_H

#include <arm_neon.h>
#include <string.h>

#include "backend/cpu/kern.h"
#include "backend/cpu/kern_inline.h"

INLINE uint16_t load_u16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return h;
}

INLINE float32x4_t halves_f32(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
INLINE float half1(const uint8_t *p) { return vgetq_lane_f32(halves_f32(vdup_n_u16(load_u16(p))), 0); }
INLINE uint8x16_t low4(uint8x16_t v) { return vandq_u8(v, vdupq_n_u8(15)); }
INLINE uint8x16_t high4(uint8x16_t v) { return vshrq_n_u8(v, 4); }

/* The f16 at p of four blocks. */
INLINE float32x4_t halves4(const uint8_t *p, const size_t bytes) {
    uint16x4_t h = vdup_n_u16(load_u16(p));
    h = vset_lane_u16(load_u16(p + bytes), h, 1);
    h = vset_lane_u16(load_u16(p + 2 * bytes), h, 2);
    h = vset_lane_u16(load_u16(p + 3 * bytes), h, 3);
    return halves_f32(h);
}

/* 16 in every byte whose bit in the two bytes at p is set. */
INLINE uint8x16_t fifth_bit(const uint8_t *p) {
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t v = vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1]));
    return vandq_u8(vtstq_u8(v, vld1q_u8(bits)), vdupq_n_u8(16));
}

/* 8 scales and 8 mins of 6 bits; bytes 4.. of the block are A[4], B[4], C[4] (tensor/qfmt/gguf_k.c). */
INLINE void q45_scales(const uint8_t *p, float32x4_t *scale, float32x4_t *min) {
    static const uint8_t low_at[16] = {4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15};
    static const uint8_t top_at[16] = {255, 255, 255, 255, 4, 5, 6, 7, 255, 255, 255, 255, 8, 9, 10, 11};
    static const int8_t shift[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -4, -4, -4, -4};
    static const uint8_t mask[16] = {63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63, 15, 15, 15, 15};
    const uint8x16_t h = vld1q_u8(p);
    const uint8x16_t low = vandq_u8(vshlq_u8(vqtbl1q_u8(h, vld1q_u8(low_at)), vld1q_s8(shift)), vld1q_u8(mask));
    const uint8x16_t top = vandq_u8(vshrq_n_u8(vqtbl1q_u8(h, vld1q_u8(top_at)), 2), vdupq_n_u8(48));
    const uint8x16_t v = vorrq_u8(low, top);
    const uint16x8_t s = vmovl_u8(vget_low_u8(v)), m = vmovl_u8(vget_high_u8(v));
    const float d = half1(p), dmin = half1(p + 2);
    scale[0] = vmulq_n_f32(vcvtq_f32_u32(vmovl_u16(vget_low_u16(s))), d);
    scale[1] = vmulq_n_f32(vcvtq_f32_u32(vmovl_u16(vget_high_u16(s))), d);
    min[0] = vnegq_f32(vmulq_n_f32(vcvtq_f32_u32(vmovl_u16(vget_low_u16(m))), dmin));
    min[1] = vnegq_f32(vmulq_n_f32(vcvtq_f32_u32(vmovl_u16(vget_high_u16(m))), dmin));
}

/* 16 scales; the mins are -32 times those. */
INLINE void q6_scales(const uint8_t *p, float32x4_t *scale) {
    const float d = half1(p + 208);
    for (int i = 0; i < 2; i++) {
        const int16x8_t s = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p + 192 + 8 * i)));
        scale[2 * i] = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(s))), d);
        scale[2 * i + 1] = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(s))), d);
    }
}

/* Four stored floats at p. */
INLINE float32x4_t scales4(const uint8_t *p, const fa_dtype t) {
    if (t == FA_F32) return vreinterpretq_f32_u8(vld1q_u8(p));
    const uint16x4_t h = vreinterpret_u16_u8(vld1_u8(p));
    return t == FA_F16 ? halves_f32(h) : vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}

#endif
