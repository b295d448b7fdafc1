/* The table of weight formats and what can be said about any of them. A format's own knowledge is in qfmt/<family>.c.
 */
#include "tensor/qfmt.h"

#include <inttypes.h>
#include <stdio.h>

#include "tensor/qfmt/formats.h"

const fa_qfmt fa_qfmts[FA_FMT_COUNT] = {
    [FA_FMT_F32] = {"f32", 1, 4, 0, NULL, fa_float_row_to_f32, fa_quant_f32},
    [FA_FMT_F16] = {"f16", 1, 2, 0, NULL, fa_float_row_to_f32, fa_quant_f16},
    [FA_FMT_BF16] = {"bf16", 1, 2, 0, NULL, fa_float_row_to_f32, fa_quant_bf16},
    [FA_FMT_AFFINE] = {"affine", 32, 0, 32, fa_unpack_affine, NULL, fa_quant_affine},
    [FA_FMT_MXFP4] = {"mxfp4", 32, 0, 32, fa_unpack_mxfp4, NULL, fa_quant_mxfp4},
    [FA_FMT_NVFP4] = {"nvfp4", 16, 0, 16, fa_unpack_nvfp4, NULL, fa_quant_nvfp4},
    [FA_FMT_MXFP8] = {"mxfp8", 32, 32, 0, NULL, fa_fp8_row_to_f32, fa_quant_mxfp8},
    [FA_FMT_FP8] = {"fp8", 1, 1, 0, NULL, fa_fp8_row_to_f32, fa_quant_fp8},
    [FA_FMT_Q4_0] = {"q4_0", 32, 18, 32, fa_unpack_q4_0, NULL, fa_quant_q4_0},
    [FA_FMT_Q4_1] = {"q4_1", 32, 20, 32, fa_unpack_q4_1, NULL, fa_quant_q4_1},
    [FA_FMT_Q5_0] = {"q5_0", 32, 22, 32, fa_unpack_q5_0, NULL, fa_quant_q5_0},
    [FA_FMT_Q5_1] = {"q5_1", 32, 24, 32, fa_unpack_q5_1, NULL, fa_quant_q5_1},
    [FA_FMT_Q8_0] = {"q8_0", 32, 34, 32, fa_unpack_q8_0, NULL, fa_quant_q8_0},
    [FA_FMT_Q2_K] = {"q2_k", 256, 84, 16, fa_unpack_q2_k, NULL, NULL},
    [FA_FMT_Q3_K] = {"q3_k", 256, 110, 16, fa_unpack_q3_k, NULL, NULL},
    [FA_FMT_Q4_K] = {"q4_k", 256, 144, 32, fa_unpack_q4_k, NULL, NULL},
    [FA_FMT_Q5_K] = {"q5_k", 256, 176, 32, fa_unpack_q5_k, NULL, NULL},
    [FA_FMT_Q6_K] = {"q6_k", 256, 210, 16, fa_unpack_q6_k, NULL, NULL},
    [FA_FMT_IQ1_S] = {"iq1_s", 256, 50, 32, fa_unpack_iq1_s, NULL, NULL},
    [FA_FMT_IQ1_M] = {"iq1_m", 256, 56, 16, fa_unpack_iq1_m, NULL, NULL},
    [FA_FMT_IQ2_XXS] = {"iq2_xxs", 256, 66, 32, fa_unpack_iq2_xxs, NULL, NULL},
    [FA_FMT_IQ2_XS] = {"iq2_xs", 256, 74, 16, fa_unpack_iq2_xs, NULL, NULL},
    [FA_FMT_IQ2_S] = {"iq2_s", 256, 82, 16, fa_unpack_iq2_s, NULL, NULL},
    [FA_FMT_IQ3_XXS] = {"iq3_xxs", 256, 98, 32, fa_unpack_iq3_xxs, NULL, NULL},
    [FA_FMT_IQ3_S] = {"iq3_s", 256, 110, 32, fa_unpack_iq3_s, NULL, NULL},
    [FA_FMT_IQ4_NL] = {"iq4_nl", 32, 18, 32, fa_unpack_iq4_nl, NULL, NULL},
    [FA_FMT_IQ4_XS] = {"iq4_xs", 256, 136, 32, fa_unpack_iq4_xs, NULL, NULL},
    [FA_FMT_TQ1_0] = {"tq1_0", 256, 54, 32, fa_unpack_tq1_0, NULL, NULL},
    [FA_FMT_TQ2_0] = {"tq2_0", 256, 66, 32, fa_unpack_tq2_0, NULL, NULL},
    [FA_FMT_MXFP4_B] = {"mxfp4_b", 32, 17, 32, fa_unpack_mxfp4_b, NULL, NULL},
    [FA_FMT_NVFP4_B] = {"nvfp4_b", 64, 36, 16, fa_unpack_nvfp4_b, NULL, NULL},
};

#define FA_COLS_MAX INT32_MAX

size_t fa_qfmt_row_bytes(fa_fmt fmt, int bits, int64_t cols) {
    if ((unsigned)fmt >= FA_FMT_COUNT || cols <= 0) return 0;
    if (fmt == FA_FMT_AFFINE) return (size_t)cols / 8 * (size_t)bits;
    if (fmt == FA_FMT_MXFP4 || fmt == FA_FMT_NVFP4) return (size_t)cols / 2;
    return (size_t)cols / fa_qfmts[fmt].block * fa_qfmts[fmt].block_bytes;
}

/* bits, group and scale type of planar formats; the others have none. */
static int check_params(const fa_weight *w, const char *name, fa_error *err) {
    const fa_dtype t = (fa_dtype)w->scale_dtype;
    bool ok = true;
    const char *known = "";
    if (w->fmt == FA_FMT_AFFINE) {
        if (w->bits < 2 || w->bits > 8 || w->bits == 7)
            return fa_fail(err, FFAI_ENOTSUP, "%s: affine with %d bits (known: 2 3 4 5 6 8)", name, w->bits);
        if (w->group != 32 && w->group != 64 && w->group != 128)
            return fa_fail(err, FFAI_ENOTSUP, "%s: affine with groups of %d (known: 32 64 128)", name, w->group);
        if (t != FA_F32 && t != FA_F16 && t != FA_BF16)
            return fa_fail(err, FFAI_ENOTSUP, "%s: affine with %s scales (known: F32 F16 BF16)", name,
                           fa_dtype_name(t));
    } else if (w->fmt == FA_FMT_MXFP4) {
        ok = w->bits == 4 && w->group == 32 && t == FA_U8;
        known = "4, 32, U8";
    } else if (w->fmt == FA_FMT_MXFP8) {
        ok = w->bits == 8 && w->group == 32 && t == FA_U8;
        known = "8, 32, U8";
    } else if (w->fmt == FA_FMT_NVFP4) {
        ok = w->bits == 4 && w->group == 16 && (t == FA_F8_E4M3 || t == FA_F32);
        known = "4, 16, F8_E4M3 or F32";
    } else if (w->fmt == FA_FMT_FP8) {
        ok = w->bits == 8 && (w->group == 0 || w->group == 32 || w->group == 64 || w->group == 128) && t == FA_F32;
        known = "8, 0 32 64 or 128, F32";
    } else if (w->bits || w->group) {
        return fa_fail(err, FFAI_EINVAL, "%s: %s with %d bits and groups of %d: the format takes neither", name,
                       fa_qfmts[w->fmt].name, w->bits, w->group);
    }
    return ok ? 0
              : fa_fail(err, FFAI_ENOTSUP, "%s: %s with %d bits, groups of %d and %s scales (known: %s)", name,
                        fa_qfmts[w->fmt].name, w->bits, w->group, fa_dtype_name(t), known);
}

/* Strides are checked once they are set, so that a shape can be checked before its planes are known. */
int fa_weight_check(const fa_weight *w, fa_error *err) {
    const char *name = w->name ? w->name : "weight";
    if (w->fmt >= FA_FMT_COUNT) return fa_fail(err, FFAI_EINVAL, "%s: no weight format %d", name, w->fmt);
    if (w->rows <= 0 || w->cols <= 0 || w->cols > FA_COLS_MAX)
        return fa_fail(err, FFAI_EFORMAT, "%s: shape [%" PRId64 ", %" PRId64 "]", name, w->rows, w->cols);
    const int rc = check_params(w, name, err);
    if (rc) return rc;
    const int block = w->fmt == FA_FMT_AFFINE ? w->group : fa_qfmts[w->fmt].block;
    if (w->cols % block)
        return fa_fail(err, FFAI_EFORMAT, "%s: %" PRId64 " columns in %s are not a multiple of %d", name, w->cols,
                       fa_qfmts[w->fmt].name, block);
    const size_t need = fa_qfmt_row_bytes((fa_fmt)w->fmt, w->bits, w->cols);
    if (w->rows > INT64_MAX / (int64_t)need)
        return fa_fail(err, FFAI_ELIMIT, "%s: shape [%" PRId64 ", %" PRId64 "] is too large", name, w->rows, w->cols);
    if (w->row_bytes && w->row_bytes < need)
        return fa_fail(err, FFAI_EFORMAT, "%s: rows of %zu bytes, %s needs %zu", name, w->row_bytes,
                       fa_qfmts[w->fmt].name, need);
    const size_t scales =
        fa_fmt_planar(w->fmt) ? (size_t)fa_weight_scales(w) * fa_dtype_size((fa_dtype)w->scale_dtype) : 0;
    if (w->scale_row_bytes && w->scale_row_bytes < scales)
        return fa_fail(err, FFAI_EFORMAT, "%s: scale rows of %zu bytes, %s needs %zu", name, w->scale_row_bytes,
                       fa_qfmts[w->fmt].name, scales);
    return 0;
}

/* codes [cols], then scale and min [cols / 16]; cols is a multiple of 16 for quantized formats, so floats stay aligned
 * in aligned scratch. */
size_t fa_dequant_scratch(int64_t cols) {
    return cols <= 0 ? 0 : ((size_t)cols + 3) / 4 * 4 + (size_t)cols / 16 * 2 * sizeof(float);
}

void fa_dequant_row(const fa_weight *w, int64_t row, float *out, void *scratch) {
    const fa_qfmt *f = &fa_qfmts[w->fmt];
    if (f->to_f32) {
        f->to_f32(w, row, 0, w->cols, out);
        return;
    }
    uint8_t *codes = scratch;
    float *scale = (float *)(void *)(codes + w->cols), *min = scale + w->cols / 16;
    f->unpack(w, row, codes, scale, min);
    const int n = f->ugroup;
    for (int64_t g = 0; g < w->cols / n; g++)
        for (int i = 0; i < n; i++) out[g * n + i] = (float)codes[g * n + i] * scale[g] + min[g];
}

const char *fa_weight_fmt_text(const fa_weight *w, char buf[32]) {
    if (w->fmt == FA_FMT_AFFINE)
        snprintf(buf, 32, "affine %d-bit g%d", w->bits, w->group);
    else if (w->fmt == FA_FMT_FP8 && w->group)
        snprintf(buf, 32, "fp8 g%d", w->group);
    else
        snprintf(buf, 32, "%s", w->fmt < FA_FMT_COUNT ? fa_qfmts[w->fmt].name : "?");
    return buf;
}
