/* GGUF's blocks with value tables, 8 columns at a time: plain C that also builds as device code (source: the layouts of
 * ggml, checked against gguf-py). FA_IQ_FN and FA_IQ_TABLE say how functions and tables are declared.
 *
 *   IQ1_S    d f16 | low bytes of grid indices[32] | u16[8]: 4 x 3 high bits, scale << 12, sign of delta << 15     50
 *   IQ1_M    low bytes[32] | nibbles[32]: 3 high bits, sign of delta | u16[4]: 4 x 3 bits of scale, d << 12        56
 *   IQ2_XXS  d f16 | u32[16], a pair for 32 columns: 4 grid indices; 4 x 7 sign bits, scale << 28                  66
 *   IQ2_XS   d f16 | u16[32]: grid index, 7 sign bits << 9 | scale nibbles[16]                                     74
 *   IQ2_S    d f16 | low bytes[32] | signs[32] | high pairs[8] | scale nibbles[16]                                 82
 *   IQ3_XXS  d f16 | grid indices[64] of 4 columns | u32[8]: 4 x 7 sign bits, scale << 28                          98
 *   IQ3_S    d f16 | low bytes[64] | high bits[8] | signs[32] | scale nibbles[8]                                  110
 *   IQ4_NL   d f16 | nibbles[16] (blocks of 32)                                                                    18
 *   IQ4_XS   d f16 | high pairs of scales u16 | low nibbles of scales[4] | nibbles[128]                           136
 *   TQ1_0    base 3 digits, 5 a byte[48], 4 a byte[4] | d f16                                                      54
 *   TQ2_0    2-bit codes[64] | d f16                                                                               66
 *   MXFP4    scale E8M0 | E2M1 nibbles[16] (blocks of 32)                                                          17
 *   NVFP4    scales E4M3[4] | E2M1 nibbles[32] (blocks of 64, groups of 16)                                        36
 *
 * Blocks of 256 where nothing else is said. Sign bits: bit i belongs to column i of 8; of 7 stored bits the eighth is
 * their parity. Of each type there are codes(block, i): columns [8 i, 8 i + 8), one a byte, lowest first; d(block)'s
 * place; step(block, g): the scale of canonical group g is d * step; and an offset: min = -offset * scale. All of these
 * products and their sums with codes are exact in f32. */
#ifndef FA_TENSOR_QFMT_GGUF_IQ_H
#define FA_TENSOR_QFMT_GGUF_IQ_H

#include <stdint.h>

#include "tensor/qfmt/gguf_grids.h"

#ifndef FA_IQ_FN
#define FA_IQ_FN    static inline
#define FA_IQ_TABLE static const
#endif

/* X(id, name, values per block, bytes per block, canonical group, where d is (-1: not an f16 in one place), offset) */
#define FA_IQ_FMTS(X)                                                                                                  \
    X(IQ1_S, iq1_s, 256, 50, 32, 0, 9)                                                                                 \
    X(IQ1_M, iq1_m, 256, 56, 16, -1, 9)                                                                                \
    X(IQ2_XXS, iq2_xxs, 256, 66, 32, 0, 43)                                                                            \
    X(IQ2_XS, iq2_xs, 256, 74, 16, 0, 43)                                                                              \
    X(IQ2_S, iq2_s, 256, 82, 16, 0, 43)                                                                                \
    X(IQ3_XXS, iq3_xxs, 256, 98, 32, 0, 62)                                                                            \
    X(IQ3_S, iq3_s, 256, 110, 32, 0, 15)                                                                               \
    X(IQ4_NL, iq4_nl, 32, 18, 32, 0, 127)                                                                              \
    X(IQ4_XS, iq4_xs, 256, 136, 32, 0, 127)                                                                            \
    X(TQ1_0, tq1_0, 256, 54, 32, 52, 1)                                                                                \
    X(TQ2_0, tq2_0, 256, 66, 32, 64, 1)                                                                                \
    X(MXFP4_B, mxfp4_b, 32, 17, 32, -1, 12)                                                                            \
    X(NVFP4_B, nvfp4_b, 64, 36, 16, -1, 12)

FA_IQ_TABLE uint16_t fa_grid_iq1_s[2048] = {FA_GRID_IQ1_S};
FA_IQ_TABLE uint16_t fa_grid_iq2_xxs[256] = {FA_GRID_IQ2_XXS};
FA_IQ_TABLE uint16_t fa_grid_iq2_xs[512] = {FA_GRID_IQ2_XS};
FA_IQ_TABLE uint16_t fa_grid_iq2_s[1024] = {FA_GRID_IQ2_S};
FA_IQ_TABLE uint16_t fa_grid_iq3_xxs[256] = {FA_GRID_IQ3_XXS};
FA_IQ_TABLE uint16_t fa_grid_iq3_s[512] = {FA_GRID_IQ3_S};

#define FA_BYTES(v) (0x0101010101010101ull * (v)) /* v in each of 8 bytes */

/* ---- pieces ---- */

FA_IQ_FN uint32_t fa_iq_u16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
FA_IQ_FN uint32_t fa_iq_u32(const uint8_t *p) { return fa_iq_u16(p) | fa_iq_u16(p + 2) << 16; }
FA_IQ_FN uint64_t fa_iq_u64(const uint8_t *p) { return fa_iq_u32(p) | (uint64_t)fa_iq_u32(p + 4) << 32; }

/* 8 fields of 2 bits to bytes. */
FA_IQ_FN uint64_t fa_iq_spread2(uint64_t v) {
    v = (v | v << 24) & 0x000000FF000000FFull;
    v = (v | v << 12) & 0x000F000F000F000Full;
    return (v | v << 6) & 0x0303030303030303ull;
}
/* 8 fields of 3 bits, of which the first 4 in a, to bytes. */
FA_IQ_FN uint64_t fa_iq_spread3(uint64_t a, uint64_t b) {
    uint64_t v = a | b << 32;
    v = (v | v << 10) & 0x003F003F003F003Full;
    return (v | v << 5) & 0x0707070707070707ull;
}
/* 8 bits to bytes of 0 or 255: a byte and 0x7F have a top bit together unless the byte is 0, and never carry. */
FA_IQ_FN uint64_t fa_iq_mask(uint32_t bits) {
    const uint64_t v = (FA_BYTES(bits & 255u) & 0x8040201008040201ull) + FA_BYTES(0x7Fu);
    return (v >> 7 & FA_BYTES(1u)) * 255u;
}
/* The eighth sign of 7. */
FA_IQ_FN uint32_t fa_iq_signs7(uint32_t s) {
    uint32_t x = s & 127u;
    x ^= x >> 4;
    x ^= x >> 2;
    x ^= x >> 1;
    return (s & 127u) | (x & 1u) << 7;
}
/* offset +- magnitude */
FA_IQ_FN uint64_t fa_iq_signed(uint64_t mag, uint32_t signs, uint32_t offset) {
    const uint64_t m = fa_iq_mask(signs);
    return ((FA_BYTES(offset) + mag) & ~m) | ((FA_BYTES(offset) - mag) & m);
}
/* Magnitudes 8, 25, 43 of IQ2. */
FA_IQ_FN uint64_t fa_iq2_mag(uint16_t entry) {
    const uint64_t v = fa_iq_spread2(entry);
    return FA_BYTES(8u) + v * 17u + (v >> 1 & FA_BYTES(1u));
}
/* -8 0 8 and a delta of -1 or 1, in eighths and 9 higher. */
FA_IQ_FN uint64_t fa_iq1_codes(uint16_t entry, uint32_t minus) {
    return fa_iq_spread2(entry) * 8u + (minus ? 0 : FA_BYTES(2u));
}
/* A table of 16 bytes at 8 nibbles, one a byte. */
FA_IQ_FN uint64_t fa_iq_lookup(uint64_t nibbles, uint64_t lo, uint64_t hi) {
    uint64_t out = 0;
    for (int i = 0; i < 64; i += 8) {
        const uint32_t n = (uint32_t)(nibbles >> i) & 15u;
        out |= ((n & 8u ? hi : lo) >> 8 * (n & 7u) & 255u) << i;
    }
    return out;
}
/* Codes of the values -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113. */
FA_IQ_FN uint64_t fa_iq4_codes(uint64_t n) { return fa_iq_lookup(n, 0x75695C4E3E2C1700ull, 0xF0D8C4B4A5988C80ull); }
/* Codes of twice the values of E2M1, as mx.c has them. */
FA_IQ_FN uint64_t fa_e2m1_codes(uint64_t n) { return fa_iq_lookup(n, 0x181412100F0E0D0Cull, 0x00040608090A0B0Cull); }
/* Columns [8 i, 8 i + 8) of 32 nibbles of which the low ones come first. */
FA_IQ_FN uint64_t fa_iq_nibbles(const uint8_t *p, int i) {
    return fa_iq_u64(p + (i & 1) * 8) >> (i & 2 ? 4 : 0) & FA_BYTES(15u);
}
FA_IQ_FN int fa_iq_nibble(const uint8_t *p, int i) { return p[i >> 1] >> (i & 1) * 4 & 15; }

/* ---- the types ---- */

FA_IQ_FN uint64_t fa_iq1_s_codes(const uint8_t *p, int i) {
    const uint32_t h = fa_iq_u16(p + 34 + i / 4 * 2);
    return fa_iq1_codes(fa_grid_iq1_s[p[2 + i] | (h >> i % 4 * 3 & 7u) << 8], h & 0x8000u);
}
FA_IQ_FN float fa_iq1_s_step(const uint8_t *p, int g) {
    return (float)(2 * (fa_iq_u16(p + 34 + 2 * g) >> 12 & 7u) + 1) * 0.125f;
}

FA_IQ_FN uint64_t fa_iq1_m_codes(const uint8_t *p, int i) {
    const uint32_t h = (uint32_t)fa_iq_nibble(p + 32, i);
    return fa_iq1_codes(fa_grid_iq1_s[p[i] | (h & 7u) << 8], h & 8u);
}
FA_IQ_FN float fa_iq1_m_step(const uint8_t *p, int g) {
    return (float)(2 * (fa_iq_u16(p + 48 + g / 4 * 2) >> g % 4 * 3 & 7u) + 1) * 0.125f;
}
/* The bits of d. */
FA_IQ_FN uint32_t fa_iq1_m_d(const uint8_t *p) {
    return (fa_iq_u16(p + 48) >> 12) | (fa_iq_u16(p + 50) >> 12) << 4 | (fa_iq_u16(p + 52) >> 12) << 8 |
           (fa_iq_u16(p + 54) >> 12) << 12;
}

FA_IQ_FN uint64_t fa_iq2_xxs_codes(const uint8_t *p, int i) {
    const uint8_t *q = p + 2 + i / 4 * 8;
    const uint32_t s = fa_iq_u32(q + 4) >> i % 4 * 7;
    return fa_iq_signed(fa_iq2_mag(fa_grid_iq2_xxs[q[i % 4]]), fa_iq_signs7(s), 43);
}
FA_IQ_FN float fa_iq2_xxs_step(const uint8_t *p, int g) { return (0.5f + (float)(p[9 + 8 * g] >> 4)) * 0.25f; }

FA_IQ_FN uint64_t fa_iq2_xs_codes(const uint8_t *p, int i) {
    const uint32_t q = fa_iq_u16(p + 2 + 2 * i);
    return fa_iq_signed(fa_iq2_mag(fa_grid_iq2_xs[q & 511u]), fa_iq_signs7(q >> 9), 43);
}
FA_IQ_FN float fa_iq2_xs_step(const uint8_t *p, int g) { return (0.5f + (float)fa_iq_nibble(p + 66, g)) * 0.25f; }

FA_IQ_FN uint64_t fa_iq2_s_codes(const uint8_t *p, int i) {
    const uint32_t e = p[2 + i] | (p[66 + i / 4] >> i % 4 * 2 & 3u) << 8;
    return fa_iq_signed(fa_iq2_mag(fa_grid_iq2_s[e]), p[34 + i], 43);
}
FA_IQ_FN float fa_iq2_s_step(const uint8_t *p, int g) { return (0.5f + (float)fa_iq_nibble(p + 74, g)) * 0.25f; }

FA_IQ_FN uint64_t fa_iq3_xxs_codes(const uint8_t *p, int i) {
    const uint64_t v = fa_iq_spread3(fa_grid_iq3_xxs[p[2 + 2 * i]], fa_grid_iq3_xxs[p[3 + 2 * i]]);
    const uint64_t mag = FA_BYTES(4u) + v * 8u + (v & v >> 1 & v >> 2 & FA_BYTES(1u)) * 2u; /* 4 12 .. 52 62 */
    return fa_iq_signed(mag, fa_iq_signs7(fa_iq_u32(p + 66 + i / 4 * 4) >> i % 4 * 7), 62);
}
FA_IQ_FN float fa_iq3_xxs_step(const uint8_t *p, int g) { return (0.5f + (float)(p[69 + 4 * g] >> 4)) * 0.5f; }

FA_IQ_FN uint64_t fa_iq3_s_codes(const uint8_t *p, int i) {
    const uint32_t h = (uint32_t)p[66 + i / 4] >> i % 4 * 2;
    const uint64_t v =
        fa_iq_spread3(fa_grid_iq3_s[p[2 + 2 * i] | (h & 1u) << 8], fa_grid_iq3_s[p[3 + 2 * i] | (h & 2u) << 7]);
    return fa_iq_signed(FA_BYTES(1u) + v * 2u, p[74 + i], 15);
}
FA_IQ_FN float fa_iq3_s_step(const uint8_t *p, int g) { return (float)(1 + 2 * fa_iq_nibble(p + 106, g)); }

FA_IQ_FN uint64_t fa_iq4_nl_codes(const uint8_t *p, int i) { return fa_iq4_codes(fa_iq_nibbles(p + 2, i)); }
FA_IQ_FN float fa_iq4_nl_step(const uint8_t *p, int g) {
    (void)p, (void)g;
    return 1.0f;
}

FA_IQ_FN uint64_t fa_iq4_xs_codes(const uint8_t *p, int i) {
    return fa_iq4_codes(fa_iq_nibbles(p + 8 + i / 4 * 16, i % 4));
}
FA_IQ_FN float fa_iq4_xs_step(const uint8_t *p, int g) {
    return (float)((fa_iq_nibble(p + 4, g) | (int)(fa_iq_u16(p + 2) >> 2 * g & 3u) << 4) - 32);
}

/* A byte is 256 / 243 of a number of 5 base 3 digits, the first column's digit on top: times 3^n, its upper two bits of
 * 16 are digit n. */
FA_IQ_FN uint64_t fa_tq1_0_codes(const uint8_t *p, int i) {
    const uint32_t pow3 = 0x511B0903u; /* 3 9 27 81 */
    uint64_t out = 0;
    for (int l = 0; l < 8; l++) {
        const int k = 8 * i + l;
        const uint8_t *q = k < 160 ? p + k % 32 : k < 240 ? p + 32 + (k - 160) % 16 : p + 48 + k % 4;
        const int n = k < 160 ? k / 32 : k < 240 ? (k - 160) / 16 : (k - 240) / 4;
        const uint32_t v = *q * (n ? pow3 >> 8 * (n - 1) & 255u : 1u) & 255u;
        out |= (uint64_t)(v * 3u >> 8) << 8 * l;
    }
    return out;
}
FA_IQ_FN float fa_tq1_0_step(const uint8_t *p, int g) {
    (void)p, (void)g;
    return 1.0f;
}

FA_IQ_FN uint64_t fa_tq2_0_codes(const uint8_t *p, int i) {
    return fa_iq_u64(p + i / 16 * 32 + i % 4 * 8) >> i / 4 % 4 * 2 & FA_BYTES(3u);
}
FA_IQ_FN float fa_tq2_0_step(const uint8_t *p, int g) {
    (void)p, (void)g;
    return 1.0f;
}

FA_IQ_FN uint64_t fa_mxfp4_b_codes(const uint8_t *p, int i) { return fa_e2m1_codes(fa_iq_nibbles(p + 1, i)); }
/* The bits of 2^(e - 128), half of what an E8M0 byte stands for; subnormal for 0 and 1. 255, which the standard says is
 * no number, stays 2^127 as in ggml. */
FA_IQ_FN uint32_t fa_mxfp4_b_scale_bits(const uint8_t *p) {
    return p[0] > 1 ? (uint32_t)(p[0] - 1) << 23 : 0x200000u << p[0];
}

FA_IQ_FN uint64_t fa_nvfp4_b_codes(const uint8_t *p, int i) {
    return fa_e2m1_codes(fa_iq_u64(p + 4 + i / 2 * 8) >> (i & 1) * 4 & FA_BYTES(15u));
}
/* Half of an unsigned E4M3 number; the code that the standard says is no number is 0 as in ggml. */
FA_IQ_FN float fa_nvfp4_b_scale(const uint8_t *p, int g) {
    const int e = p[g] >> 3 & 15, m = p[g] & 7;
    const uint32_t power = 1u << (e ? e - 1 : 0);
    return p[g] == 127 ? 0.0f : (float)((e ? 8u + (uint32_t)m : (uint32_t)m) * power) * 0x1p-10f;
}

#endif
