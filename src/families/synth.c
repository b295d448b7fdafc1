/* Random weights: codes and floats straight from the counter-based generator where the format's layout is planar,
 * through the format's own encoder where it is not. */
#define _GNU_SOURCE
#include "families/synth.h"
#include "base/alloc.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int fa_synth_parse(fa_synth *s, const char *text, fa_error *err) {
    int bits, group, used = 0;
    *s = (fa_synth){0};
    if (sscanf(text, "affine%dg%d%n", &bits, &group, &used) == 2 && !text[used]) {
        fa_weight probe = {.rows = 1,
                           .cols = 128,
                           .fmt = FA_FMT_AFFINE,
                           .bits = (uint8_t)bits,
                           .group = (uint16_t)group,
                           .scale_dtype = FA_F16,
                           .name = text};
        *s = (fa_synth){FA_FMT_AFFINE, (uint8_t)bits, (uint16_t)group};
        return bits < 1 || bits > 8 || group < 1 || group > 128
                   ? fa_fail(err, FFAI_EINVAL, "synthetic: \"%s\": bits 2 3 4 5 6 8, groups 32 64 128", text)
                   : fa_weight_check(&probe, err);
    }
    for (int f = 0; f < FA_FMT_COUNT; f++) {
        if (f == FA_FMT_AFFINE || strcmp(fa_qfmts[f].name, text) || (!fa_qfmts[f].quant_row && f != FA_FMT_MXFP4))
            continue;
        *s = (fa_synth){(uint8_t)f, f == FA_FMT_MXFP4 ? 4 : 0, f == FA_FMT_MXFP4 ? 32 : 0};
        return 0;
    }
    return fa_fail(err, FFAI_EINVAL,
                   "synthetic: \"%s\" is not affine{2,3,4,5,6,8}g{32,64,128}, mxfp4, f32, f16, bf16, q4_0, q4_1, q5_0, "
                   "q5_1 or q8_0",
                   text);
}

static void random_bytes(uint8_t *p, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = fa_rng_at(seed, i / 8);
        memcpy(p + i, &v, n - i < 8 ? n - i : 8);
    }
}

/* A uniform value of unit variance. */
static float unit(uint64_t seed, uint64_t i) {
    return ((float)(fa_rng_at(seed, i) >> 40) * 0x1p-24f - 0.5f) * 3.4641016f;
}

static uint8_t *plane(fa_mem *mem, int64_t rows, size_t row_bytes) {
    return (uint8_t *)fa_mem_calloc(mem, (size_t)rows, row_bytes);
}

/* Affine: codes are uniform, so scale = width / standard deviation of a code, bias = -scale * middle. */
static int affine(fa_weight *w, uint64_t seed, fa_mem *mem) {
    size_t n = (size_t)w->rows * (size_t)(w->cols / w->group);
    uint8_t *codes = plane(mem, w->rows, w->row_bytes), *scales = plane(mem, w->rows, w->scale_row_bytes),
            *biases = plane(mem, w->rows, w->scale_row_bytes);
    if (!codes || !scales || !biases) return -1;
    random_bytes(codes, (size_t)w->rows * w->row_bytes, seed);
    float levels = (float)(1 << w->bits), deviation = sqrtf((levels * levels - 1) / 12),
          width = 1 / sqrtf((float)w->cols);
    for (size_t i = 0; i < n; i++) {
        float scale = width / deviation * (1 + 0.2f * unit(seed + 1, i));
        uint16_t s = fa_f32_to_f16(scale), b = fa_f32_to_f16(-scale * (levels - 1) / 2);
        memcpy(scales + 2 * i, &s, 2);
        memcpy(biases + 2 * i, &b, 2);
    }
    w->codes = codes;
    w->scales = scales;
    w->biases = biases;
    return 0;
}

/* mxfp4: uniform codes have a standard deviation of about 2.9. */
static int mxfp4(fa_weight *w, uint64_t seed, fa_mem *mem) {
    uint8_t *codes = plane(mem, w->rows, w->row_bytes), *scales = plane(mem, w->rows, w->scale_row_bytes);
    if (!codes || !scales) return -1;
    random_bytes(codes, (size_t)w->rows * w->row_bytes, seed);
    memset(scales, 127 + (int)lroundf(log2f(1 / (2.9f * sqrtf((float)w->cols)))), (size_t)w->rows * w->scale_row_bytes);
    w->codes = codes;
    w->scales = scales;
    return 0;
}

static int encoded(fa_weight *w, uint64_t seed, fa_mem *mem) {
    uint8_t *codes = plane(mem, w->rows, w->row_bytes);
    float *x = FA_NEWN(float, (size_t)w->cols), width = 1 / sqrtf((float)w->cols);
    w->codes = codes;
    for (int64_t r = 0; x && codes && r < w->rows; r++) {
        for (int64_t i = 0; i < w->cols; i++) x[i] = width * unit(seed, (uint64_t)(r * w->cols + i));
        fa_qfmts[w->fmt].quant_row(w, x, codes + (size_t)r * w->row_bytes, NULL, NULL);
    }
    int rc = x && codes ? 0 : -1;
    fa_free(x);
    return rc;
}

void fa_synth_shape(const fa_synth *s, fa_weight *w) {
    w->fmt = s->fmt;
    w->bits = s->bits;
    w->group = s->group;
    w->scale_dtype = s->fmt == FA_FMT_MXFP4 ? FA_U8 : FA_F16;
    int64_t unit_cols = s->group ? s->group : fa_qfmts[s->fmt].block;
    if (w->cols % unit_cols) {
        w->fmt = FA_FMT_BF16;
        w->bits = 0;
        w->group = 0;
    }
    w->row_bytes = fa_qfmt_row_bytes((fa_fmt)w->fmt, w->bits, w->cols);
    w->scale_row_bytes = w->group ? (size_t)(w->cols / w->group) * fa_dtype_size((fa_dtype)w->scale_dtype) : 0;
}

int fa_synth_matrix(const fa_synth *s, fa_weight *w, uint64_t seed, fa_mem *mem, fa_error *err) {
    fa_synth_shape(s, w);
    int rc = w->fmt == FA_FMT_AFFINE  ? affine(w, seed, mem)
             : w->fmt == FA_FMT_MXFP4 ? mxfp4(w, seed, mem)
                                      : encoded(w, seed, mem);
    return rc ? fa_fail(err, FFAI_ENOMEM, "synthetic: no memory for %s [%lld, %lld]", w->name, (long long)w->rows,
                        (long long)w->cols)
              : 0;
}

void fa_synth_fill(float *p, int64_t n, float mean, float spread, uint64_t seed) {
    for (int64_t i = 0; i < n; i++) p[i] = mean + spread * 0.57735027f * unit(seed, (uint64_t)i);
}

const float *fa_synth_vector(int64_t n, float mean, float spread, uint64_t seed, fa_mem *mem) {
    float *p = (float *)fa_mem_calloc(mem, (size_t)n, sizeof *p);
    if (p) fa_synth_fill(p, n, mean, spread, seed);
    return p;
}
