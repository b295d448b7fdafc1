/* mxfp4 as mlx stores it (source: OCP Microscaling Formats 1.0, mlx quantize/dequantize mode "mxfp4").
 *
 * codes:  E2M1 nibbles, value k in the low nibble of byte k / 2 when k is even, in the high nibble when it is odd.
 * scales: one E8M0 byte per 32 values: 2^(e - 127); 255 is NaN.
 *
 * Canonical code = 2 * value + 12 (0..24), scale = stored scale / 2, min = -12 * scale. Exact up to e = 251; above,
 * products overflow f32 to infinity or NaN (mlx: infinity from 254 on), far outside of what weights hold. Minus zero
 * becomes zero. */
#include "tensor/qfmt/formats.h"

#include <math.h>

/* 2^(e - 128), the canonical scale; subnormal for e = 0 and 1. */
static float half_scale(uint8_t e) {
    const uint32_t u = e == 255 ? 0x7FC00000u : e > 1 ? (uint32_t)(e - 1) << 23 : 0x200000u << e;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

void fa_unpack_mxfp4(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    static const uint8_t code_of[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    const uint8_t *s = w->scales + (size_t)row * w->scale_row_bytes;
    for (int64_t k = 0; k < w->cols; k += 2, p++) {
        codes[k] = code_of[*p & 15];
        codes[k + 1] = code_of[*p >> 4];
    }
    for (int64_t g = 0; g < w->cols / 32; g++) {
        scale[g] = half_scale(s[g]);
        min[g] = -12.0f * scale[g];
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

/* Exponent of the smallest power of two that brings amax within 6; 0 for a group of zeros (and for what is not finite).
 */
static int group_exponent(float amax) {
    int e;
    if (!(amax > 0) || isinf(amax)) return 0;
    const float m = frexpf(amax / 6.0f, &e);
    if (m == 0.5f) e--;
    return m == 0 || e < -127 ? -127 : e;
}

void fa_quant_mxfp4(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)biases;
    for (int64_t k = 0; k < w->cols; k += 32) {
        float amax = 0;
        for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[k + i]));
        const int e = group_exponent(amax);
        const float inv = ldexpf(1.0f, -e);
        *scales++ = (uint8_t)(e + 127);
        for (int i = 0; i < 32; i += 2) *codes++ = (uint8_t)(e2m1(x[k + i] * inv) | e2m1(x[k + i + 1] * inv) << 4);
    }
}
