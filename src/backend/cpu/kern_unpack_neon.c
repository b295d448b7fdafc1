/* Unpack with 128-bit NEON vectors (baseline armv8-a): the formats that checkpoints use most; affine with 2, 3, 5 and 6
 * bits, Q2_K and Q3_K keep the C definitions. Reads only the row's own bytes; results are bit for bit those of the
 * definitions. */
#include "backend/cpu/kern_arm_neon_codes.h"

INLINE const uint8_t *row_codes(const fa_weight *w, int64_t row) { return w->codes + (size_t)row * w->row_bytes; }

/* --- blocks of 32: factor 0 says that d and m are stored, else min = factor * d --- */

typedef void (*block_fn)(const uint8_t *p, uint8_t *codes);

INLINE void nibbles(const uint8_t *p, uint8_t *codes) {
    const uint8x16_t v = vld1q_u8(p);
    vst1q_u8(codes, low4(v));
    vst1q_u8(codes + 16, high4(v));
}

INLINE void nibbles_fifth(const uint8_t *p, const uint8_t *high, uint8_t *codes) {
    const uint8x16_t v = vld1q_u8(p);
    vst1q_u8(codes, vorrq_u8(low4(v), fifth_bit(high)));
    vst1q_u8(codes + 16, vorrq_u8(high4(v), fifth_bit(high + 2)));
}

INLINE void block_q4_0(const uint8_t *p, uint8_t *codes) { nibbles(p + 2, codes); }
INLINE void block_q4_1(const uint8_t *p, uint8_t *codes) { nibbles(p + 4, codes); }
INLINE void block_q5_0(const uint8_t *p, uint8_t *codes) { nibbles_fifth(p + 6, p + 2, codes); }
INLINE void block_q5_1(const uint8_t *p, uint8_t *codes) { nibbles_fifth(p + 8, p + 4, codes); }
INLINE void block_q8_0(const uint8_t *p, uint8_t *codes) {
    const uint8x16_t flip = vdupq_n_u8(0x80);
    vst1q_u8(codes, veorq_u8(vld1q_u8(p + 2), flip));
    vst1q_u8(codes + 16, veorq_u8(vld1q_u8(p + 18), flip));
}

INLINE void block_row(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min, const size_t bytes,
                      const float factor, const block_fn block) {
    const uint8_t *p = row_codes(w, row);
    int64_t n = w->cols / 32;
    for (; n >= 4; n -= 4, p += 4 * bytes, codes += 128, scale += 4, min += 4) {
        const float32x4_t d = halves4(p, bytes);
        vst1q_f32(scale, d);
        vst1q_f32(min, factor != 0 ? vmulq_n_f32(d, factor) : halves4(p + 2, bytes));
        for (size_t b = 0; b < 4; b++) block(p + b * bytes, codes + 32 * b);
    }
    for (; n > 0; n--, p += bytes, codes += 32, scale++, min++) {
        *scale = half1(p);
        *min = factor != 0 ? factor * *scale : half1(p + 2);
        block(p, codes);
    }
}

#define BLOCK_FORMAT(f, bytes, factor)                                                                                 \
    static void unpack_##f(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {                \
        block_row(w, row, codes, scale, min, bytes, factor, block_##f);                                                \
    }
BLOCK_FORMAT(q4_0, 18, -8.0f)
BLOCK_FORMAT(q4_1, 20, 0)
BLOCK_FORMAT(q5_0, 22, -16.0f)
BLOCK_FORMAT(q5_1, 24, 0)
BLOCK_FORMAT(q8_0, 34, -128.0f)

/* --- blocks of 256 --- */

static void unpack_q4_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 144, codes += 256, scale += 8, min += 8) {
        float32x4_t s[2], m[2];
        q45_scales(p, s, m);
        vst1q_f32(scale, s[0]), vst1q_f32(scale + 4, s[1]);
        vst1q_f32(min, m[0]), vst1q_f32(min + 4, m[1]);
        for (int i = 0; i < 8; i++) {
            /* quarter i / 2 of 64 values, 16 bytes at a time: low nibbles, then high ones 32 further */
            const uint8x16_t v = vld1q_u8(p + 16 + 16 * i);
            uint8_t *out = codes + i / 2 * 64 + i % 2 * 16;
            vst1q_u8(out, low4(v));
            vst1q_u8(out + 32, high4(v));
        }
    }
}

static void unpack_q5_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    const uint8x16_t bit4 = vdupq_n_u8(16);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 176, codes += 256, scale += 8, min += 8) {
        float32x4_t s[2], m[2];
        q45_scales(p, s, m);
        vst1q_f32(scale, s[0]), vst1q_f32(scale + 4, s[1]);
        vst1q_f32(min, m[0]), vst1q_f32(min + 4, m[1]);
        for (int half = 0; half < 2; half++) {
            const uint8x16_t high = vld1q_u8(p + 16 + 16 * half);
            for (int q = 0; q < 4; q++) {
                const uint8x16_t v = vld1q_u8(p + 48 + 32 * q + 16 * half);
                const uint8x16_t h0 = vandq_u8(vtstq_u8(high, vdupq_n_u8((uint8_t)(1 << 2 * q))), bit4);
                const uint8x16_t h1 = vandq_u8(vtstq_u8(high, vdupq_n_u8((uint8_t)(2 << 2 * q))), bit4);
                vst1q_u8(codes + 64 * q + 16 * half, vorrq_u8(low4(v), h0));
                vst1q_u8(codes + 64 * q + 32 + 16 * half, vorrq_u8(high4(v), h1));
            }
        }
    }
}

static void unpack_q6_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    const uint8x16_t two = vdupq_n_u8(48);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 210, codes += 256, scale += 16, min += 16) {
        float32x4_t s[4];
        q6_scales(p, s);
        for (int i = 0; i < 4; i++) {
            vst1q_f32(scale + 4 * i, s[i]);
            vst1q_f32(min + 4 * i, vmulq_n_f32(s[i], -32.0f));
        }
        for (int i = 0; i < 4; i++) {
            /* half i / 2 of 128 values, bytes 16 (i & 1).. of each of its four planes */
            const uint8_t *ql = p + 64 * (i / 2) + 16 * (i & 1);
            const uint8x16_t a = vld1q_u8(ql), c = vld1q_u8(ql + 32);
            const uint8x16_t high = vld1q_u8(p + 128 + 32 * (i / 2) + 16 * (i & 1));
            uint8_t *out = codes + 128 * (i / 2) + 16 * (i & 1);
            vst1q_u8(out, vorrq_u8(low4(a), vandq_u8(vshlq_n_u8(high, 4), two)));
            vst1q_u8(out + 32, vorrq_u8(low4(c), vandq_u8(vshlq_n_u8(high, 2), two)));
            vst1q_u8(out + 64, vorrq_u8(high4(a), vandq_u8(high, two)));
            vst1q_u8(out + 96, vorrq_u8(high4(c), vandq_u8(vshrq_n_u8(high, 2), two)));
        }
    }
}

/* --- planar formats --- */

INLINE void affine_plane(const fa_weight *w, const uint8_t *plane, int64_t row, float *out) {
    const fa_dtype t = (fa_dtype)w->scale_dtype;
    const uint8_t *p = plane + (size_t)row * w->scale_row_bytes;
    const size_t size = fa_dtype_size(t);
    const int64_t n = w->cols / w->group;
    const int rep = w->group / 32;
    int64_t g = 0;
    for (; g + 4 <= n; g += 4, out += 4 * rep) {
        const float32x4_t v = scales4(p + (size_t)g * size, t);
        if (rep == 1) {
            vst1q_f32(out, v);
        } else if (rep == 2) {
            vst1q_f32(out, vzip1q_f32(v, v));
            vst1q_f32(out + 4, vzip2q_f32(v, v));
        } else {
            vst1q_f32(out, vdupq_laneq_f32(v, 0));
            vst1q_f32(out + 4, vdupq_laneq_f32(v, 1));
            vst1q_f32(out + 8, vdupq_laneq_f32(v, 2));
            vst1q_f32(out + 12, vdupq_laneq_f32(v, 3));
        }
    }
    for (; g < n; g++) {
        uint8_t one[16] = {0};
        memcpy(one, p + (size_t)g * size, size);
        const float v = vgetq_lane_f32(scales4(one, t), 0);
        for (int r = 0; r < rep; r++) *out++ = v;
    }
}

/* 16 bytes of nibbles to 32 codes in order. */
INLINE uint8x16x2_t spread4(const uint8_t *p) {
    const uint8x16_t v = vld1q_u8(p);
    const uint8x16x2_t r = {{low4(v), high4(v)}};
    return r;
}

static void unpack_affine(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    if (w->bits == 4) {
        for (int64_t k = 0; k < w->cols; k += 32, p += 16) vst2q_u8(codes + k, spread4(p));
    } else if (w->bits == 8) {
        for (int64_t k = 0; k < w->cols; k += 16) vst1q_u8(codes + k, vld1q_u8(p + k));
    } else {
        fa_qfmts[FA_FMT_AFFINE].unpack(w, row, codes, scale, min);
        return;
    }
    affine_plane(w, w->scales, row, scale);
    affine_plane(w, w->biases, row, min);
}

/* 2^(e - 128): a shifted exponent field, two subnormals, NaN for 255. */
INLINE float32x4_t e8m0_half4(uint32x4_t e) {
    const uint32x4_t one = vdupq_n_u32(1);
    const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x200000), vreinterpretq_s32_u32(vminq_u32(e, one)));
    uint32x4_t v = vbslq_u32(vcgtq_u32(e, one), vshlq_n_u32(vsubq_u32(e, one), 23), tiny);
    v = vbslq_u32(vceqq_u32(e, vdupq_n_u32(255)), vdupq_n_u32(0x7FC00000), v);
    return vreinterpretq_f32_u32(v);
}

static void unpack_mxfp4(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    static const uint8_t code_of[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    const uint8x16_t table = vld1q_u8(code_of);
    const uint8_t *p = row_codes(w, row), *s = w->scales + (size_t)row * w->scale_row_bytes;
    for (int64_t k = 0; k < w->cols; k += 32, p += 16) {
        uint8x16x2_t v = spread4(p);
        v.val[0] = vqtbl1q_u8(table, v.val[0]);
        v.val[1] = vqtbl1q_u8(table, v.val[1]);
        vst2q_u8(codes + k, v);
    }
    for (int64_t g = 0; g < w->cols / 32; g += 4) {
        uint8_t e[8] = {0};
        for (int64_t i = 0; i < 4 && g + i < w->cols / 32; i++) e[i] = s[g + i];
        const float32x4_t v = e8m0_half4(vmovl_u16(vget_low_u16(vmovl_u8(vld1_u8(e)))));
        vst1q_f32(scale + g, v); /* up to 3 floats of padding */
        vst1q_f32(min + g, vmulq_n_f32(v, -12.0f));
    }
}

void fa_kern_unpack_init_neon(fa_kernels *k) {
    k->unpack[FA_FMT_AFFINE] = unpack_affine;
    k->unpack[FA_FMT_MXFP4] = unpack_mxfp4;
    k->unpack[FA_FMT_Q4_0] = unpack_q4_0;
    k->unpack[FA_FMT_Q4_1] = unpack_q4_1;
    k->unpack[FA_FMT_Q5_0] = unpack_q5_0;
    k->unpack[FA_FMT_Q5_1] = unpack_q5_1;
    k->unpack[FA_FMT_Q8_0] = unpack_q8_0;
    k->unpack[FA_FMT_Q4_K] = unpack_q4_k;
    k->unpack[FA_FMT_Q5_K] = unpack_q5_k;
    k->unpack[FA_FMT_Q6_K] = unpack_q6_k;
}
