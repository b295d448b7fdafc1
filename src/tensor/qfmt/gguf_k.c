/* GGUF's blocks of 256 values with scales of their own resolution (source: the layouts of ggml, checked against
 * gguf-py).
 *
 *   Q2_K  scales[16] (low nibble scale, high nibble min) | 2-bit codes[64] | d f16 | dmin f16                    84
 * bytes, groups of 16 Q3_K  high bits[32] | 2-bit codes[64] | 6-bit scales[12] | d f16 110, groups of 16 Q4_K  d f16 |
 * dmin f16 | 6-bit scales and mins[12] | nibbles[128]                                            144, groups of 32 Q5_K
 * d f16 | dmin f16 | 6-bit scales and mins[12] | high bits[32] | nibbles[128]                            176, groups of
 * 32 Q6_K  nibbles[128] | 2-bit high parts[64] | signed scales[16] | d f16                                        210,
 * groups of 16
 *
 * scale = d * group scale and min = -(dmin * group min) are exact in f32, and so is every product with a code: a value
 * has one rounding, as in gguf-py. Codes of 2 bits come as planes: half h (128 values) has 32 bytes, value 128 h + 32 j
 * + l is bits 2j of byte l. */
#include "tensor/qfmt/formats.h"

/* 32 codes from the bits at `shift` of 32 bytes. */
static void plane(const uint8_t *p, int shift, int mask, uint8_t *codes) {
    for (int l = 0; l < 32; l++) codes[l] = (uint8_t)(p[l] >> shift & mask);
}

/* Their higher bits, to stand at `to`. */
static void add_plane(const uint8_t *p, int shift, int mask, int to, uint8_t *codes) {
    for (int l = 0; l < 32; l++) codes[l] = (uint8_t)(codes[l] | (p[l] >> shift & mask) << to);
}

void fa_unpack_q2_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t b = 0; b < w->cols / 256; b++, p += 84, codes += 256, scale += 16, min += 16) {
        const float d = fa_load_f16(p + 80), dmin = fa_load_f16(p + 82);
        for (int g = 0; g < 16; g++) {
            scale[g] = d * (float)(p[g] & 15);
            min[g] = -(dmin * (float)(p[g] >> 4));
        }
        for (int i = 0; i < 8; i++) plane(p + 16 + i / 4 * 32, i % 4 * 2, 3, codes + 32 * i);
    }
}

/* The 6-bit scale of group g: low nibbles in bytes 0..7, high pairs in bytes 8..11. */
static int q3_scale(const uint8_t *s, int g) {
    const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
    return (low | (s[8 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32;
}

void fa_unpack_q3_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t b = 0; b < w->cols / 256; b++, p += 110, codes += 256, scale += 16, min += 16) {
        const float d = fa_load_f16(p + 108);
        for (int g = 0; g < 16; g++) {
            scale[g] = d * (float)q3_scale(p + 96, g);
            min[g] = -4.0f * scale[g];
        }
        for (int i = 0; i < 8; i++) {
            plane(p + 32 + i / 4 * 32, i % 4 * 2, 3, codes + 32 * i);
            add_plane(p, i, 1, 2, codes + 32 * i);
        }
    }
}

/* Scales and mins of Q4_K and Q5_K: 0..3 in the low 6 bits of bytes 0..3 and 4..7; 4..7 take a nibble each of
 * bytes 8..11 and, as their upper two bits, the upper two bits of bytes 0..3 and 4..7. */
static void q45_scales(const uint8_t *p, float *scale, float *min) {
    const float d = fa_load_f16(p), dmin = fa_load_f16(p + 2);
    const uint8_t *s = p + 4;
    for (int g = 0; g < 4; g++) {
        scale[g] = d * (float)(s[g] & 63);
        min[g] = -(dmin * (float)(s[4 + g] & 63));
        scale[4 + g] = d * (float)((s[8 + g] & 15) | (s[g] >> 6) << 4);
        min[4 + g] = -(dmin * (float)(s[8 + g] >> 4 | (s[4 + g] >> 6) << 4));
    }
}

/* Byte l of quarter q holds values 64 q + l (low nibble) and 64 q + 32 + l (high nibble). */
static void q45_nibbles(const uint8_t *p, uint8_t *codes) {
    for (int i = 0; i < 8; i++) plane(p + i / 2 * 32, i % 2 * 4, 15, codes + 32 * i);
}

void fa_unpack_q4_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t b = 0; b < w->cols / 256; b++, p += 144, codes += 256, scale += 8, min += 8) {
        q45_scales(p, scale, min);
        q45_nibbles(p + 16, codes);
    }
}

void fa_unpack_q5_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t b = 0; b < w->cols / 256; b++, p += 176, codes += 256, scale += 8, min += 8) {
        q45_scales(p, scale, min);
        q45_nibbles(p + 48, codes);
        for (int i = 0; i < 8; i++) add_plane(p + 16, i, 1, 4, codes + 32 * i);
    }
}

void fa_unpack_q6_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    for (int64_t b = 0; b < w->cols / 256; b++, p += 210, codes += 256, scale += 16, min += 16) {
        const float d = fa_load_f16(p + 208);
        for (int g = 0; g < 16; g++) {
            scale[g] = d * (float)(int8_t)p[192 + g];
            min[g] = -32.0f * scale[g];
        }
        for (int i = 0; i < 8; i++) {
            /* half h of 128 values, plane j: nibbles of bytes 64 h + 32 (j & 1) + l, low for j < 2; high parts are
             * 2-bit planes */
            const int h = i / 4, j = i % 4;
            plane(p + 64 * h + 32 * (j & 1), j / 2 * 4, 15, codes + 32 * i);
            add_plane(p + 128 + 32 * h, 2 * j, 3, 4, codes + 32 * i);
        }
    }
}
