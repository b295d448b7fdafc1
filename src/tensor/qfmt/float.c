/* F32, F16 and BF16 weights: a row is its values, one after the other. */
#include "tensor/qfmt/formats.h"

static fa_dtype dtype_of(const fa_weight *w) {
    return w->fmt == FA_FMT_F16 ? FA_F16 : w->fmt == FA_FMT_BF16 ? FA_BF16 : FA_F32;
}

void fa_float_row_to_f32(const fa_weight *w, int64_t row, int64_t k0, int64_t n, float *out) {
    const fa_dtype t = dtype_of(w);
    fa_to_f32(t, w->codes + (size_t)row * w->row_bytes + (size_t)k0 * fa_dtype_size(t), n, out);
}

void fa_quant_f32(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    memcpy(codes, x, (size_t)w->cols * 4);
}

void fa_quant_f16(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    for (int64_t k = 0; k < w->cols; k++) fa_store_f16(codes + 2 * k, x[k]);
}

void fa_quant_bf16(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    (void)scales, (void)biases;
    for (int64_t k = 0; k < w->cols; k++) {
        const uint16_t h = fa_f32_to_bf16(x[k]);
        memcpy(codes + 2 * k, &h, 2);
    }
}
