/* GGUF's blocks with value tables as whole rows; gguf_iq.h has the layouts. */
#include "tensor/qfmt/formats.h"
#include "tensor/qfmt/gguf_iq.h"

static float bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static float iq1_m_d(const uint8_t *p) { return fa_f16_to_f32((uint16_t)fa_iq1_m_d(p)); }
static float mxfp4_b_d(const uint8_t *p) { return bits_float(fa_mxfp4_b_scale_bits(p)); }
static float nvfp4_b_d(const uint8_t *p) {
    (void)p;
    return 1.0f;
}
#define fa_mxfp4_b_step(p, g) 1.0f
#define fa_nvfp4_b_step(p, g) fa_nvfp4_b_scale(p, g)

#define HALF_D(name, at)                                                                                               \
    static float name##_d(const uint8_t *p) { return fa_load_f16(p + (at)); }
HALF_D(iq1_s, 0)
HALF_D(iq2_xxs, 0)
HALF_D(iq2_xs, 0)
HALF_D(iq2_s, 0)
HALF_D(iq3_xxs, 0)
HALF_D(iq3_s, 0)
HALF_D(iq4_nl, 0)
HALF_D(iq4_xs, 0)
HALF_D(tq1_0, 52)
HALF_D(tq2_0, 64)

#define UNPACK(ID, name, values, bytes, group, at, offset)                                                             \
    void fa_unpack_##name(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {                 \
        const uint8_t *p = w->codes + (size_t)row * w->row_bytes;                                                      \
        for (int64_t b = 0; b < w->cols / (values); b++, p += (bytes)) {                                               \
            const float d = name##_d(p);                                                                               \
            for (int g = 0; g < (values) / (group); g++, scale++, min++) {                                             \
                *scale = d * fa_##name##_step(p, g);                                                                   \
                *min = -(float)(offset) * *scale;                                                                      \
            }                                                                                                          \
            for (int i = 0; i < (values) / 8; i++, codes += 8) {                                                       \
                const uint64_t c = fa_##name##_codes(p, i);                                                            \
                memcpy(codes, &c, 8);                                                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }
FA_IQ_FMTS(UNPACK)
