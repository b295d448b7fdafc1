/* Random weights: codes and floats straight from the counter-based generator where the format's layout is planar,
 * through the format's own encoder where it is not. */
#define _GNU_SOURCE
#include "families/synth.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "tensor/synth_fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int unknown(const char *text, fa_error *err) {
    fa_buf names = {0};
    for (int f = 0; f < FA_FMT_COUNT; f++)
        if (f != FA_FMT_AFFINE) fa_buf_printf(&names, ", %s", fa_qfmts[f].name);
    const int rc = fa_fail(err, FFAI_EINVAL, "synthetic: \"%s\" is not affine{2,3,4,5,6,8}g{32,64,128}%s", text,
                           names.data ? names.data : "");
    fa_buf_free(&names);
    return rc;
}

int fa_synth_parse(fa_synth *s, const char *text, fa_error *err) {
    int bits, group, used = 0;
    const bool widened = strncmp(text, "f32:", 4) == 0;
    const char *name = text + (widened ? 4 : 0);
    *s = (fa_synth){.widened = widened};
    if (sscanf(name, "affine%dg%d%n", &bits, &group, &used) == 2 && !name[used]) {
        fa_weight probe = {.rows = 1,
                           .cols = 128,
                           .fmt = FA_FMT_AFFINE,
                           .bits = (uint8_t)bits,
                           .group = (uint16_t)group,
                           .scale_dtype = FA_F16,
                           .name = text};
        *s = (fa_synth){FA_FMT_AFFINE, (uint8_t)bits, (uint16_t)group, widened};
        return bits < 1 || bits > 8 || group < 1 || group > 128
                   ? fa_fail(err, FFAI_EINVAL, "synthetic: \"%s\": bits 2 3 4 5 6 8, groups 32 64 128", text)
               : fa_weight_check(&probe, err) ? fa_fail_prefix(err, FFAI_EINVAL, "synthetic")
                                              : 0;
    }
    for (int f = 0; f < FA_FMT_COUNT; f++) {
        if (f == FA_FMT_AFFINE || strcmp(fa_qfmts[f].name, name)) continue;
        s->fmt = (uint8_t)f;
        s->bits = f == FA_FMT_MXFP4 || f == FA_FMT_NVFP4 ? 4 : f == FA_FMT_MXFP8 || f == FA_FMT_FP8 ? 8 : 0;
        s->group = f == FA_FMT_MXFP4 || f == FA_FMT_MXFP8 ? 32 : f == FA_FMT_NVFP4 ? 16 : 0;
        return 0;
    }
    return unknown(text, err);
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

/* nvfp4, mxfp8, fp8: one scale everywhere. */
static int small_float(fa_weight *w, uint64_t seed, fa_mem *mem) {
    const size_t size = fa_dtype_size((fa_dtype)w->scale_dtype), bytes = (size_t)w->rows * w->row_bytes;
    const uint32_t scale = fa_synth_scale(w->fmt, 1 / sqrtf((float)w->cols));
    uint8_t *codes = plane(mem, w->rows, w->row_bytes), *scales = plane(mem, w->rows, w->scale_row_bytes);
    if (!codes || !scales) return -1;
    random_bytes(codes, bytes, seed);
    for (size_t i = 0; w->bits == 8 && i < bytes; i++) codes[i] &= FA_SYNTH_E4M3_MASK;
    for (size_t i = 0; i < (size_t)w->rows * w->scale_row_bytes; i += size) memcpy(scales + i, &scale, size);
    w->codes = codes;
    w->scales = scales;
    return 0;
}

/* Blocks of random bytes, with scales put in. */
static int blocks(fa_weight *w, const fa_synth_fields *fields, uint64_t seed, fa_mem *mem) {
    const size_t size = fa_qfmts[w->fmt].block_bytes, bytes = (size_t)w->rows * w->row_bytes;
    uint8_t *codes = plane(mem, w->rows, w->row_bytes);
    if (!codes) return -1;
    random_bytes(codes, bytes, seed);
    for (size_t b = 0; b < bytes; b += size)
        for (int i = 0; i < fields->n; i++) {
            uint8_t *p = codes + b + fields->f[i].at;
            *p = (uint8_t)((*p & fields->f[i].keep) | fields->f[i].byte);
        }
    w->codes = codes;
    return 0;
}

void fa_synth_shape(const fa_synth *s, fa_weight *w) {
    int64_t unit_cols = s->fmt == FA_FMT_AFFINE ? s->group : fa_qfmts[s->fmt].block;
    w->fmt = s->fmt;
    w->bits = s->bits;
    w->group = s->group;
    w->scale_dtype = s->fmt == FA_FMT_MXFP4 || s->fmt == FA_FMT_MXFP8 ? FA_U8
                     : s->fmt == FA_FMT_NVFP4                         ? FA_F8_E4M3
                     : s->fmt == FA_FMT_FP8                           ? FA_F32
                                                                      : FA_F16;
    if (w->cols % unit_cols || s->widened) {
        w->fmt = s->widened ? FA_FMT_F32 : FA_FMT_BF16;
        w->bits = 0;
        w->group = 0;
    }
    w->row_bytes = fa_qfmt_row_bytes((fa_fmt)w->fmt, w->bits, w->cols);
    w->scale_row_bytes = (size_t)fa_weight_scales(w) * fa_dtype_size((fa_dtype)w->scale_dtype);
}

static int make(fa_weight *w, uint64_t seed, fa_mem *mem) {
    const fa_synth_fields fields = fa_synth_fields_of(w->fmt, 1 / sqrtf((float)w->cols));
    if (w->fmt == FA_FMT_AFFINE) return affine(w, seed, mem);
    if (w->fmt == FA_FMT_MXFP4) return mxfp4(w, seed, mem);
    if (fa_fmt_planar(w->fmt)) return small_float(w, seed, mem);
    return fields.n ? blocks(w, &fields, seed, mem) : encoded(w, seed, mem);
}

/* w's values, as f32. */
static int widen(fa_weight *w, const fa_weight *from, fa_mem *mem) {
    float *to = (float *)fa_mem_calloc(mem, (size_t)(w->rows * w->cols), sizeof *to);
    void *scratch = fa_calloc(fa_dequant_scratch(w->cols) + 1, 1);
    w->codes = (const uint8_t *)to;
    for (int64_t r = 0; to && scratch && r < w->rows; r++) fa_dequant_row(from, r, to + r * w->cols, scratch);
    fa_free(scratch);
    return to && scratch ? 0 : -1;
}

int fa_synth_matrix(const fa_synth *s, fa_weight *w, uint64_t seed, fa_mem *mem, fa_error *err) {
    const fa_synth narrow = {s->fmt, s->bits, s->group, false};
    fa_weight stored = *w;
    fa_synth_shape(&narrow, &stored);
    int rc = make(&stored, seed, mem);
    fa_synth_shape(s, w);
    if (!rc && s->widened)
        rc = widen(w, &stored, mem);
    else
        *w = stored;
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
