/* Scales of random blocks: which bytes make blocks of random bits into values of a wanted width. The host and the
 * device make the same weights of it (synth.c, backend/cuda/synth.cu). */
#ifndef FA_TENSOR_SYNTH_FIELDS_H
#define FA_TENSOR_SYNTH_FIELDS_H

#include <math.h>

#include "tensor/qfmt.h"

/* Byte `at` of every block becomes (what it is & keep) | byte. */
typedef struct fa_synth_fields {
    int n;
    struct {
        uint8_t at, keep, byte;
    } f[8];
} fa_synth_fields;

static inline void fa_synth_field(fa_synth_fields *s, int at, int keep, unsigned byte) {
    s->f[s->n].at = (uint8_t)at;
    s->f[s->n].keep = (uint8_t)keep;
    s->f[s->n++].byte = (uint8_t)byte;
}

static inline void fa_synth_half(fa_synth_fields *s, int at, float v) {
    const uint16_t h = fa_f32_to_f16(v);
    fa_synth_field(s, at, 0, h & 255u);
    fa_synth_field(s, at + 1, 0, h >> 8);
}

/* The E4M3 byte nearest to v > 0. */
static inline uint8_t fa_synth_e4m3(float v) {
    uint8_t best = 1;
    for (uint8_t e = 2; e < 127; e++)
        if (fabsf(fa_f8e4m3_to_f32(e) - v) < fabsf(fa_f8e4m3_to_f32(best) - v)) best = e;
    return best;
}

/* rms: standard deviation of random blocks whose scale is 1 and whose min, which is `mins` times that, centres them.
 * n 0: the format has an encoder, or is planar. */
static inline fa_synth_fields fa_synth_fields_of(int fmt, float width) {
    static const struct {
        uint8_t fmt, at, at_min;
        float rms, mins;
    } halves[] = {
        {FA_FMT_Q2_K, 80, 82, 13.96f, 1.5f}, {FA_FMT_Q3_K, 108, 0, 43.41f, 0},  {FA_FMT_Q4_K, 0, 2, 259.8f, 7.5f},
        {FA_FMT_Q5_K, 0, 2, 508.4f, 15.5f},  {FA_FMT_Q6_K, 208, 0, 1372.0f, 0}, {FA_FMT_IQ1_S, 0, 0, 7.17f, 0},
        {FA_FMT_IQ2_XXS, 0, 0, 53.2f, 0},    {FA_FMT_IQ2_XS, 0, 0, 55.2f, 0},   {FA_FMT_IQ2_S, 0, 0, 57.1f, 0},
        {FA_FMT_IQ3_XXS, 0, 0, 146.6f, 0},   {FA_FMT_IQ3_S, 0, 0, 139.2f, 0},   {FA_FMT_IQ4_NL, 0, 0, 68.2f, 0},
        {FA_FMT_IQ4_XS, 0, 0, 1230.0f, 0},   {FA_FMT_TQ1_0, 52, 0, 0.82f, 0},   {FA_FMT_TQ2_0, 64, 0, 1.12f, 0}};
    fa_synth_fields s = {0, {{0, 0, 0}}};
    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++) {
        if (halves[i].fmt != fmt) continue;
        fa_synth_half(&s, halves[i].at, width / halves[i].rms);
        if (halves[i].mins > 0) fa_synth_half(&s, halves[i].at_min, width / halves[i].rms * halves[i].mins);
    }
    if (fmt == FA_FMT_IQ1_M) {
        const unsigned h = fa_f32_to_f16(width / 7.29f);
        for (int i = 0; i < 4; i++) fa_synth_field(&s, 49 + 2 * i, 15, (h >> 4 * i & 15u) << 4);
    }
    if (fmt == FA_FMT_MXFP4_B) fa_synth_field(&s, 0, 0, (unsigned)(128 + (int)lroundf(log2f(width / 5.9f))));
    if (fmt == FA_FMT_NVFP4_B)
        for (int i = 0; i < 4; i++) fa_synth_field(&s, i, 0, fa_synth_e4m3(2.0f * width / 5.9f));
    return s;
}

/* The scale of planar small floats: E8M0 or E4M3 byte, or the bits of a float; random codes of mxfp8 and fp8 lose the
 * bit `FA_SYNTH_E4M3_MASK` lacks, so that none is NaN. */
#define FA_SYNTH_E4M3_MASK 0xBFu
static inline uint32_t fa_synth_scale(int fmt, float width) {
    const float f = width / 0.598f;
    uint32_t u;
    if (fmt == FA_FMT_NVFP4) return fa_synth_e4m3(width / 2.74f);
    if (fmt == FA_FMT_MXFP8) return (uint32_t)(127 + (int)lroundf(log2f(f)));
    memcpy(&u, &f, 4);
    return u;
}

#endif
