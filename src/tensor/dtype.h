/* Element types of plain (not quantized) arrays and their conversion to float. */
#ifndef FA_TENSOR_DTYPE_H
#define FA_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* X(id, bytes, safetensors name) */
#define FA_DTYPES(X)                                                                                                   \
    X(F32, 4, "F32")                                                                                                   \
    X(F16, 2, "F16")                                                                                                   \
    X(BF16, 2, "BF16")                                                                                                 \
    X(F64, 8, "F64")                                                                                                   \
    X(F8_E4M3, 1, "F8_E4M3")                                                                                           \
    X(F8_E5M2, 1, "F8_E5M2")                                                                                           \
    X(F8_E8M0, 1, "F8_E8M0")                                                                                           \
    X(I8, 1, "I8")                                                                                                     \
    X(U8, 1, "U8")                                                                                                     \
    X(I16, 2, "I16")                                                                                                   \
    X(U16, 2, "U16")                                                                                                   \
    X(I32, 4, "I32")                                                                                                   \
    X(U32, 4, "U32")                                                                                                   \
    X(I64, 8, "I64")                                                                                                   \
    X(U64, 8, "U64")                                                                                                   \
    X(BOOL, 1, "BOOL")

typedef enum fa_dtype {
#define FA_X(id, bytes, name) FA_##id,
    FA_DTYPES(FA_X)
#undef FA_X
        FA_DTYPE_COUNT
} fa_dtype;

size_t fa_dtype_size(fa_dtype t);
const char *fa_dtype_name(fa_dtype t);
int fa_dtype_from_name(const char *name, size_t len); /* fa_dtype or -1 */

static inline float fa_bf16_to_f32(uint16_t v) {
    uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t fa_f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}

float fa_f16_to_f32(uint16_t v);
uint16_t fa_f32_to_f16(float f);   /* round to nearest even */
float fa_f8e4m3_to_f32(uint8_t v); /* OCP E4M3FN: no infinities, 0x7F is NaN */
float fa_f8e5m2_to_f32(uint8_t v);

/* n values of a float type (F32 F16 BF16 F64 F8_*) at any byte alignment to float. */
void fa_to_f32(fa_dtype t, const void *src, int64_t n, float *out);

#endif
