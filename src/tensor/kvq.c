/* The definition of the 8-bit cache: rounding and layout. Vector and GPU versions must give the same bits. */
#include "tensor/kvq.h"

#include <float.h>
#include <math.h>

static uint16_t group_scale(const float *x, int64_t n) {
    float top = 0;
    for (int64_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        if (!(a <= FLT_MAX)) return 0x7E00;
        top = a > top ? a : top;
    }
    top /= 127;
    return fa_f32_to_f16(top > 65504 ? 65504 : top);
}

static int8_t code_of(float x, float inv) {
    const float v = rintf(x * inv);
    return (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
}

void fa_kvq_row(const float *x, int64_t dim, int8_t *codes, uint16_t *scale) {
    for (int64_t c = 0; c < dim; c += FA_KVQ_GROUP, scale++) {
        const int64_t n = dim - c < FA_KVQ_GROUP ? dim - c : FA_KVQ_GROUP;
        *scale = group_scale(x + c, n);
        const float s = fa_f16_to_f32(*scale), inv = s > 0 ? 1 / s : 0;
        for (int64_t i = 0; i < n; i++) codes[c + i] = s > 0 ? code_of(x[c + i], inv) : 0;
        if (s != s) memset(codes + c, 1, (size_t)n);
    }
}

void fa_kvq_to_f32(const void *page, int64_t n_row, int64_t dim, int64_t r0, int64_t r1, float *out) {
    const int64_t groups = fa_kvq_groups(dim);
    const int8_t *codes = page;
    const uint8_t *scales = (const uint8_t *)page + n_row * dim;
    for (int64_t r = r0; r < r1; r++)
        for (int64_t c = 0; c < dim; c++) {
            uint16_t h;
            memcpy(&h, scales + 2 * (r * groups + c / FA_KVQ_GROUP), 2);
            out[r * dim + c] = (float)codes[r * dim + c] * fa_f16_to_f32(h);
        }
}

const char *fa_kv_type_name(fa_dtype t) {
    switch (t) {
    case FA_F32: return "f32";
    case FA_F16: return "f16";
    case FA_BF16: return "bf16";
    case FA_I8: return "q8";
    default: return "of an unknown type";
    }
}
