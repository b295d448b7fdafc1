/* Random stored weights of every format, for tests: random bytes as codes, then believable scales over those that are
 * scales, so that values are roughly within -1 .. 1 and never infinite. */
#ifndef FFAI_TEST_QFMT_FILL_H
#define FFAI_TEST_QFMT_FILL_H

#include "base/rng.h"
#include "tensor/qfmt.h"

static inline void fill_float(fa_dtype t, uint8_t *out, float v) {
    const uint16_t s = t == FA_F16 ? fa_f32_to_f16(v) : fa_f32_to_bf16(v);
    if (t == FA_F32)
        memcpy(out, &v, 4);
    else
        memcpy(out, &s, 2);
}

/* Scales inside a block. */
static inline void fill_block(int fmt, uint8_t *p, fa_rng *r) {
    static const struct {
        int16_t at[2]; /* f16 fields; -1: none */
        float size;
    } scale[FA_FMT_COUNT] = {
        [FA_FMT_Q4_0] = {{0, -1}, 0.1f},      [FA_FMT_Q4_1] = {{0, 2}, 0.1f},      [FA_FMT_Q5_0] = {{0, -1}, 0.06f},
        [FA_FMT_Q5_1] = {{0, 2}, 0.06f},      [FA_FMT_Q8_0] = {{0, -1}, 0.008f},   [FA_FMT_Q2_K] = {{80, 82}, 0.03f},
        [FA_FMT_Q3_K] = {{108, -1}, 0.01f},   [FA_FMT_Q4_K] = {{0, 2}, 0.002f},    [FA_FMT_Q5_K] = {{0, 2}, 0.001f},
        [FA_FMT_Q6_K] = {{208, -1}, 0.0005f}, [FA_FMT_IQ1_S] = {{0, -1}, 0.06f},   [FA_FMT_IQ2_XXS] = {{0, -1}, 0.006f},
        [FA_FMT_IQ2_XS] = {{0, -1}, 0.006f},  [FA_FMT_IQ2_S] = {{0, -1}, 0.006f},  [FA_FMT_IQ3_XXS] = {{0, -1}, 0.002f},
        [FA_FMT_IQ3_S] = {{0, -1}, 0.002f},   [FA_FMT_IQ4_NL] = {{0, -1}, 0.008f}, [FA_FMT_IQ4_XS] = {{0, -1}, 0.0003f},
        [FA_FMT_TQ1_0] = {{52, -1}, 0.5f},    [FA_FMT_TQ2_0] = {{64, -1}, 0.5f}};
    if (fmt == FA_FMT_IQ1_M) { /* the parts of an f16 in the top bits of four words: 0x2C00 and more is 1 / 16 */
        const unsigned h = 0x2C00u | (unsigned)(fa_rng_next(r) % 0x200) | (unsigned)(fa_rng_next(r) % 2) << 15;
        for (int i = 0; i < 4; i++) p[49 + 2 * i] = (uint8_t)((p[49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
    } else if (fmt == FA_FMT_MXFP4_B) {
        p[0] = (uint8_t)(122 + fa_rng_next(r) % 5);
    } else if (fmt == FA_FMT_NVFP4_B) {
        for (int i = 0; i < 4; i++) p[i] = (uint8_t)(16 + fa_rng_next(r) % 24);
    } else {
        for (int j = 0; j < 2 && scale[fmt].size > 0; j++)
            if (scale[fmt].at[j] >= 0)
                fill_float(FA_F16, p + scale[fmt].at[j], (fa_rng_f32(r) - 0.3f) * 2 * scale[fmt].size);
    }
}

static inline void fill_codes(const fa_weight *w, uint8_t *codes, fa_rng *r) {
    const size_t n = (size_t)w->rows * w->row_bytes, size = fa_qfmts[w->fmt].block_bytes;
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)fa_rng_next(r);
    if (fa_fmt_plain(w->fmt)) {
        const fa_dtype t = w->fmt == FA_FMT_F32 ? FA_F32 : w->fmt == FA_FMT_F16 ? FA_F16 : FA_BF16;
        for (size_t i = 0; i < n; i += size) fill_float(t, codes + i, 2 * fa_rng_f32(r) - 1);
    } else if (w->fmt == FA_FMT_MXFP8 || w->fmt == FA_FMT_FP8) {
        for (size_t i = 0; i < n; i++)
            if ((codes[i] & 127) == 127) codes[i] ^= 1; /* no NaN */
    } else if (!fa_fmt_planar(w->fmt)) {
        for (size_t i = 0; i < n; i += size) fill_block(w->fmt, codes + i, r);
    }
}

static inline void fill_scales(const fa_weight *w, uint8_t *scales, uint8_t *biases, fa_rng *r) {
    const fa_dtype t = (fa_dtype)w->scale_dtype;
    const size_t size = fa_dtype_size(t), n = (size_t)w->rows * w->scale_row_bytes;
    for (size_t i = 0; i < n; i += size) {
        if (w->fmt == FA_FMT_MXFP4)
            scales[i] = (uint8_t)(122 + fa_rng_next(r) % 5);
        else if (w->fmt == FA_FMT_MXFP8)
            scales[i] = (uint8_t)(116 + fa_rng_next(r) % 5);
        else if (t == FA_F8_E4M3)
            scales[i] = (uint8_t)(16 + fa_rng_next(r) % 24 + (fa_rng_next(r) % 8 == 0 ? 128 : 0));
        else
            fill_float(t, scales + i,
                       (fa_rng_f32(r) - 0.3f) * (w->fmt == FA_FMT_FP8 ? 0.004f : 2.0f / (float)(1 << w->bits)));
        if (biases) fill_float(t, biases + i, fa_rng_f32(r) - 0.5f);
    }
}

/* Strides of a weight whose format, rows and cols are set. */
static inline void fill_sizes(fa_weight *w) {
    w->row_bytes = fa_qfmt_row_bytes((fa_fmt)w->fmt, w->bits, w->cols);
    w->scale_row_bytes =
        (size_t)fa_weight_scales(w) * (fa_fmt_planar(w->fmt) ? fa_dtype_size((fa_dtype)w->scale_dtype) : 0);
}

/* The row lengths that a kind takes are multiples of it. */
static inline int64_t fill_unit(const fa_weight *kind) {
    return kind->fmt == FA_FMT_AFFINE ? kind->group : fa_qfmts[kind->fmt].block;
}

#define FILL_PLANAR_KINDS                                                                                              \
    {.fmt = FA_FMT_MXFP4, .bits = 4, .group = 32, .scale_dtype = FA_U8},                                               \
        {.fmt = FA_FMT_NVFP4, .bits = 4, .group = 16, .scale_dtype = FA_F8_E4M3},                                      \
        {.fmt = FA_FMT_NVFP4, .bits = 4, .group = 16, .scale_dtype = FA_F32},                                          \
        {.fmt = FA_FMT_MXFP8, .bits = 8, .group = 32, .scale_dtype = FA_U8},                                           \
        {.fmt = FA_FMT_FP8, .bits = 8, .group = 128, .scale_dtype = FA_F32},                                           \
        {.fmt = FA_FMT_FP8, .bits = 8, .group = 32, .scale_dtype = FA_F32}, {                                          \
        .fmt = FA_FMT_FP8, .bits = 8, .group = 0, .scale_dtype = FA_F32                                                \
    }
#define FILL_TABLE_KINDS                                                                                               \
    {.fmt = FA_FMT_IQ1_S}, {.fmt = FA_FMT_IQ1_M}, {.fmt = FA_FMT_IQ2_XXS}, {.fmt = FA_FMT_IQ2_XS},                     \
        {.fmt = FA_FMT_IQ2_S}, {.fmt = FA_FMT_IQ3_XXS}, {.fmt = FA_FMT_IQ3_S}, {.fmt = FA_FMT_IQ4_NL},                 \
        {.fmt = FA_FMT_IQ4_XS}, {.fmt = FA_FMT_TQ1_0}, {.fmt = FA_FMT_TQ2_0}, {.fmt = FA_FMT_MXFP4_B}, {               \
        .fmt = FA_FMT_NVFP4_B                                                                                          \
    }

#endif
