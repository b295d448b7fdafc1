/* Small floats with scales in a plane of their own: mxfp4, mxfp8 and nvfp4 as mlx stores them (source: OCP Microscaling
 * Formats 1.0, mlx quantize/dequantize with these modes), and fp8 as checkpoints of transformers have it.
 *
 * mxfp4
 * codes:  E2M1 nibbles, value k in the low nibble of byte k / 2 when k is even, in the high nibble when it is odd.
 * scales: one E8M0 byte per 32 values: 2^(e - 127); 255 is NaN.
 *
 * Canonical code = 2 * value + 12 (0..24), scale = stored scale / 2, min = -12 * scale. Exact up to e = 251; above,
 * products overflow f32 to infinity or NaN (mlx: infinity from 254 on), far outside of what weights hold. Minus zero
 * becomes zero.
 *
 * nvfp4
 * codes:  as mxfp4.
 * scales: one E4M3 byte per 16 values, or an f32 when another scale of the whole tensor was multiplied in. Canonical
 *         codes, scales and mins as in mxfp4.
 *
 * mxfp8, fp8
 * codes:  one E4M3 byte per value.
 * scales: mxfp8: one E8M0 byte per 32 values. fp8: an f32 per 32, 64 or 128 values or per row. Stored blocks of 128 x
 *         128 become rows of scales when they are bound. value = code * scale, rounded once. */
#include "tensor/qfmt/formats.h"

#include <math.h>

/* 2^(e - 128), the canonical scale; subnormal for e = 0 and 1. */
static float half_scale(uint8_t e) {
    const uint32_t u = e == 255 ? 0x7FC00000u : e > 1 ? (uint32_t)(e - 1) << 23 : 0x200000u << e;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static void e2m1_codes(const fa_weight *w, int64_t row, uint8_t *codes) {
    static const uint8_t code_of[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t k = 0; k < w->cols; k += 2, p++) {
        codes[k] = code_of[*p & 15];
        codes[k + 1] = code_of[*p >> 4];
    }
}

void fa_unpack_mxfp4(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *s = w->scales + (size_t)row * w->scale_row_bytes;
    e2m1_codes(w, row, codes);
    for (int64_t g = 0; g < w->cols / 32; g++) {
        scale[g] = half_scale(s[g]);
        min[g] = -12.0f * scale[g];
    }
}

void fa_unpack_nvfp4(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    e2m1_codes(w, row, codes);
    fa_to_f32((fa_dtype)w->scale_dtype, w->scales + (size_t)row * w->scale_row_bytes, w->cols / 16, scale);
    for (int64_t g = 0; g < w->cols / 16; g++) {
        scale[g] *= 0.5f;
        min[g] = -12.0f * scale[g];
    }
}

/* 2^(e - 127); 255 is infinite in mlx. */
static float fp8_scale(const fa_weight *w, int64_t row, int64_t g) {
    const uint8_t *s = w->scales + (size_t)row * w->scale_row_bytes;
    float f;
    if (w->scale_dtype == FA_U8) return s[g] == 255 ? INFINITY : 2.0f * half_scale(s[g]);
    memcpy(&f, s + 4 * g, 4);
    return f;
}

void fa_fp8_row_to_f32(const fa_weight *w, int64_t row, int64_t k0, int64_t n, float *out) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    const int64_t group = w->group ? w->group : w->cols;
    for (int64_t k = k0, end; k < k0 + n; k = end) {
        const float s = fp8_scale(w, row, k / group);
        end = (k / group + 1) * group;
        if (end > k0 + n) end = k0 + n;
        fa_to_f32(FA_F8_E4M3, p + k, end - k, out + (k - k0));
        for (int64_t i = k; i < end; i++) out[i - k0] *= s;
    }
}

/* Nearest E2M1 value, ties towards zero, never minus zero (as mlx encodes). */
static uint8_t e2m1(float x) {
    static const float above[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
    const float a = fabsf(x);
    uint8_t q = 0;
    for (int i = 0; i < 7; i++) q = (uint8_t)(q + (a > above[i]));
    return (uint8_t)(q | (q && signbit(x) ? 8 : 0));
}

/* Exponent of the smallest power of two that brings amax within `top`; 0 for a group of zeros (and for what is not
 * finite). */
static int group_exponent(float amax, float top) {
    int e;
    if (!(amax > 0) || isinf(amax)) return 0;
    const float m = frexpf(amax / top, &e);
    if (m == 0.5f) e--;
    return m == 0 || e < -127 ? -127 : e;
}

static float largest(const float *x, int64_t n) {
    float amax = 0;
    for (int64_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(x[i]));
    return amax;
}

/* Nearest E4M3 value, ties to even, at most 448. */
static uint8_t e4m3(float x) {
    const float a = fabsf(x);
    const uint8_t sign = signbit(x) ? 0x80 : 0;
    int e;
    if (isnan(x)) return sign | 0x7F;
    if (a >= 464.0f) return sign | 0x7E;
    frexpf(a, &e); /* a = [0.5, 1) * 2^e; 8 steps within [2^(e - 1), 2^e) */
    if (a == 0 || e < -5) e = -5;
    const int q = (int)nearbyintf(ldexpf(a, 4 - e)); /* of 2^(e - 4); 16 is the next power of two */
    const int code = q < 8 ? q : q < 16 ? (e + 6) << 3 | (q & 7) : (e + 7) << 3;
    return (uint8_t)(sign | (code < 0x7F ? code : 0x7E));
}

void fa_quant_mxfp4(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)biases;
    for (int64_t k = 0; k < w->cols; k += 32) {
        const float amax = largest(x + k, 32);
        const int e = group_exponent(amax, 6.0f);
        const float inv = ldexpf(1.0f, -e);
        *scales++ = (uint8_t)(e + 127);
        for (int i = 0; i < 32; i += 2) *codes++ = (uint8_t)(e2m1(x[k + i] * inv) | e2m1(x[k + i + 1] * inv) << 4);
    }
}

void fa_quant_nvfp4(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)biases;
    for (int64_t k = 0; k < w->cols; k += 16) {
        const uint8_t e = e4m3(largest(x + k, 16) / 6.0f);
        const float s = fa_f8e4m3_to_f32(e);
        *scales++ = e;
        for (int i = 0; i < 16; i += 2) {
            const float a = s != 0 ? x[k + i] / s : 0, b = s != 0 ? x[k + i + 1] / s : 0;
            *codes++ = (uint8_t)(e2m1(a) | e2m1(b) << 4);
        }
    }
}

void fa_quant_mxfp8(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)biases;
    for (int64_t k = 0; k < w->cols; k += 32) {
        const int e = group_exponent(largest(x + k, 32), 448.0f);
        *scales++ = (uint8_t)(e + 127);
        for (int i = 0; i < 32; i++) *codes++ = e4m3(ldexpf(x[k + i], -e));
    }
}

void fa_quant_fp8(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    const int64_t group = w->group ? w->group : w->cols;
    (void)biases;
    for (int64_t k = 0; k < w->cols; k += group, scales += 4) {
        const int64_t n = w->cols - k < group ? w->cols - k : group;
        const float amax = largest(x + k, n), s = amax > 0 ? amax / 448.0f : 1.0f;
        memcpy(scales, &s, 4);
        for (int64_t i = 0; i < n; i++) *codes++ = e4m3(x[k + i] / s);
    }
}
