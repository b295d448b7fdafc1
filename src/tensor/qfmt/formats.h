/* What the format files give to the table in qfmt.c. Not for use elsewhere: everyone else goes through fa_qfmts. */
#ifndef FA_TENSOR_QFMT_FORMATS_H
#define FA_TENSOR_QFMT_FORMATS_H

#include "tensor/qfmt.h"

/* X(row): the functions of one row, named as in fa_qfmt. Formats without an encoder appear in the first list only. */
#define FA_QUANT_UNPACKS(X)                                                                                            \
    X(affine)                                                                                                          \
    X(mxfp4)                                                                                                           \
    X(nvfp4)                                                                                                           \
    X(q4_0)                                                                                                            \
    X(q4_1)                                                                                                            \
    X(q5_0)                                                                                                            \
    X(q5_1)                                                                                                            \
    X(q8_0)                                                                                                            \
    X(q2_k)                                                                                                            \
    X(q3_k)                                                                                                            \
    X(q4_k)                                                                                                            \
    X(q5_k)                                                                                                            \
    X(q6_k)                                                                                                            \
    X(iq1_s)                                                                                                           \
    X(iq1_m)                                                                                                           \
    X(iq2_xxs)                                                                                                         \
    X(iq2_xs)                                                                                                          \
    X(iq2_s)                                                                                                           \
    X(iq3_xxs)                                                                                                         \
    X(iq3_s)                                                                                                           \
    X(iq4_nl)                                                                                                          \
    X(iq4_xs)                                                                                                          \
    X(tq1_0)                                                                                                           \
    X(tq2_0)                                                                                                           \
    X(mxfp4_b)                                                                                                         \
    X(nvfp4_b)
#define FA_QUANT_ENCODERS(X)                                                                                           \
    X(f32) X(f16) X(bf16) X(affine) X(mxfp4) X(mxfp8) X(nvfp4) X(fp8) X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q8_0)

#define FA_X(f) void fa_unpack_##f(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min);
FA_QUANT_UNPACKS(FA_X)
#undef FA_X
#define FA_X(f) void fa_quant_##f(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases);
FA_QUANT_ENCODERS(FA_X)
#undef FA_X
void fa_float_row_to_f32(const fa_weight *w, int64_t row, int64_t k0, int64_t n, float *out);
void fa_fp8_row_to_f32(const fa_weight *w, int64_t row, int64_t k0, int64_t n, float *out);

/* Stored floats at any alignment. */
static inline float fa_load_f16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return fa_f16_to_f32(h);
}
static inline void fa_store_f16(uint8_t *p, float f) {
    const uint16_t h = fa_f32_to_f16(f);
    memcpy(p, &h, 2);
}

#endif
