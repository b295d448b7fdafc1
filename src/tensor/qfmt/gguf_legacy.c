/* GGUF's blocks of 32 values (source: the layouts of ggml, checked against gguf-py).
 *
 *   Q4_0  d f16 | 16 bytes of nibbles                     18 bytes   value = (q - 8) * d
 *   Q4_1  d f16 | m f16 | 16 bytes of nibbles             20         value = q * d + m
 *   Q5_0  d f16 | high bits u32 | 16 bytes of nibbles     22         value = (q - 16) * d
 *   Q5_1  d f16 | m f16 | high bits u32 | 16 nibble bytes 24         value = q * d + m
 *   Q8_0  d f16 | 32 signed bytes                         34         value = q * d
 *
 * Values 0..15 sit in the low nibbles, 16..31 in the high nibbles; bit k of the high bits belongs to value k. All
 * products with a code are exact in f32, so the canonical form gives the values of gguf-py bit for bit (but for the
 * sign of zero). */
#include "tensor/qfmt/formats.h"

#include <math.h>

static void nibbles(const uint8_t *p, uint8_t *out) {
    for (int i = 0; i < 16; i++) {
        out[i] = p[i] & 15;
        out[16 + i] = p[i] >> 4;
    }
}

static void high_bits(const uint8_t *p, uint8_t *out) {
    for (int b = 0; b < 4; b++)
        for (int i = 0; i < 8; i++) out[8 * b + i] = (uint8_t)(out[8 * b + i] | (p[b] >> i & 1) << 4);
}

void fa_unpack_q4_0(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t g = 0; g < w->cols / 32; g++, p += 18) {
        scale[g] = fa_load_f16(p);
        min[g] = -8.0f * scale[g];
        nibbles(p + 2, codes + 32 * g);
    }
}

void fa_unpack_q4_1(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t g = 0; g < w->cols / 32; g++, p += 20) {
        scale[g] = fa_load_f16(p);
        min[g] = fa_load_f16(p + 2);
        nibbles(p + 4, codes + 32 * g);
    }
}

void fa_unpack_q5_0(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t g = 0; g < w->cols / 32; g++, p += 22) {
        scale[g] = fa_load_f16(p);
        min[g] = -16.0f * scale[g];
        nibbles(p + 6, codes + 32 * g);
        high_bits(p + 2, codes + 32 * g);
    }
}

void fa_unpack_q5_1(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t g = 0; g < w->cols / 32; g++, p += 24) {
        scale[g] = fa_load_f16(p);
        min[g] = fa_load_f16(p + 2);
        nibbles(p + 8, codes + 32 * g);
        high_bits(p + 4, codes + 32 * g);
    }
}

void fa_unpack_q8_0(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t g = 0; g < w->cols / 32; g++, p += 34) {
        scale[g] = fa_load_f16(p);
        min[g] = -128.0f * scale[g];
        for (int i = 0; i < 32; i++) codes[32 * g + i] = p[2 + i] ^ 0x80;
    }
}

/* Codes of one block on the grid (q - offset) * d or q * d + m. Rounding is ggml's: half up after the shift to
 * unsigned. */
static void round_codes(const float *x, float sub, float inv, float offset, int top, uint8_t *q) {
    for (int i = 0; i < 32; i++) {
        const float v = (x[i] - sub) * inv + offset;
        q[i] = (uint8_t)(v > 0 ? v < (float)top ? v : (float)top : 0);
    }
}

static void store_nibbles(const uint8_t *q, uint8_t *p) {
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)((q[i] & 15) | (q[16 + i] & 15) << 4);
}

static void store_high_bits(const uint8_t *q, uint8_t *p) {
    for (int b = 0; b < 4; b++) {
        p[b] = 0;
        for (int i = 0; i < 8; i++) p[b] = (uint8_t)(p[b] | (q[8 * b + i] >> 4) << i);
    }
}

/* Q4_0 and Q5_0: the value of largest magnitude becomes code 0, with its sign. */
static void quant_signed(const fa_weight *w, const float *x, int half, uint8_t *p) {
    uint8_t q[32];
    for (int64_t k = 0; k < w->cols; k += 32) {
        float edge = 0;
        for (int i = 0; i < 32; i++)
            if (fabsf(x[k + i]) > fabsf(edge)) edge = x[k + i];
        const float d = edge / (float)-half;
        round_codes(x + k, 0, d != 0 ? 1.0f / d : 0, (float)half + 0.5f, 2 * half - 1, q);
        fa_store_f16(p, d);
        p += 2;
        if (half == 16) store_high_bits(q, p), p += 4;
        store_nibbles(q, p);
        p += 16;
    }
}

/* Q4_1 and Q5_1: smallest value is code 0, largest the top code. */
static void quant_ranged(const fa_weight *w, const float *x, int top, uint8_t *p) {
    uint8_t q[32];
    for (int64_t k = 0; k < w->cols; k += 32) {
        float lo = x[k], hi = x[k];
        for (int i = 1; i < 32; i++) {
            if (x[k + i] < lo) lo = x[k + i];
            if (x[k + i] > hi) hi = x[k + i];
        }
        const float d = (hi - lo) / (float)top;
        round_codes(x + k, lo, d != 0 ? 1.0f / d : 0, 0.5f, top, q);
        fa_store_f16(p, d);
        fa_store_f16(p + 2, lo);
        p += 4;
        if (top == 31) store_high_bits(q, p), p += 4;
        store_nibbles(q, p);
        p += 16;
    }
}

void fa_quant_q4_0(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    quant_signed(w, x, 8, codes);
}

void fa_quant_q5_0(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    quant_signed(w, x, 16, codes);
}

void fa_quant_q4_1(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    quant_ranged(w, x, 15, codes);
}

void fa_quant_q5_1(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    quant_ranged(w, x, 31, codes);
}

void fa_quant_q8_0(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    for (int64_t k = 0; k < w->cols; k += 32, codes += 34) {
        float amax = 0;
        for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[k + i]));
        const float d = amax / 127.0f, inv = d != 0 ? 1.0f / d : 0;
        fa_store_f16(codes, d);
        for (int i = 0; i < 32; i++) {
            const float v = roundf(x[k + i] * inv);
            codes[2 + i] = (uint8_t)(int8_t)(v > -128 ? v < 127 ? v : 127 : v <= -128 ? -128 : 0);
        }
    }
}
