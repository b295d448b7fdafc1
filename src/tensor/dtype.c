/* Names and sizes of the element types and the exact definitions of their conversions to float. Portable bit arithmetic
 * on purpose: the vector kernels use the machine's own conversions and are tested against these. Signalling NaNs become
 * quiet, as hardware makes them. */
#include "tensor/dtype.h"

#define F32_NAN 0x7FC00000u

static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

size_t fa_dtype_size(fa_dtype t) {
    static const uint8_t bytes[FA_DTYPE_COUNT] = {
#define FA_X(id, size, name) size,
        FA_DTYPES(FA_X)
#undef FA_X
    };
    return (unsigned)t < FA_DTYPE_COUNT ? bytes[t] : 0;
}

const char *fa_dtype_name(fa_dtype t) {
    static const char *const names[FA_DTYPE_COUNT] = {
#define FA_X(id, size, name) name,
        FA_DTYPES(FA_X)
#undef FA_X
    };
    return (unsigned)t < FA_DTYPE_COUNT ? names[t] : "?";
}

int fa_dtype_from_name(const char *name, size_t len) {
    for (int t = 0; t < FA_DTYPE_COUNT; t++) {
        const char *n = fa_dtype_name((fa_dtype)t);
        if (strlen(n) == len && !memcmp(n, name, len)) return t;
    }
    return -1;
}

float fa_f16_to_f32(uint16_t v) {
    const uint32_t sign = (uint32_t)(v & 0x8000) << 16, exp = v >> 10 & 31;
    uint32_t man = v & 0x3FF;
    if (exp == 31) return from_bits(sign | 0x7F800000u | man << 13 | (man ? 0x400000u : 0));
    if (exp) return from_bits(sign | (exp + 112) << 23 | man << 13);
    /* Subnormal or zero: man * 2^-24 is exact in a float. */
    const float f = (float)man * 0x1p-24f;
    return sign ? -f : f;
}

uint16_t fa_f32_to_f16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    const uint32_t sign = u >> 16 & 0x8000;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u) return (uint16_t)(sign | 0x7E00 | (u >> 13 & 0x3FF)); /* NaN keeps its high payload bits */
    if (u >= 0x477FF000u) return (uint16_t)(sign | 0x7C00);                    /* 65520 and up round to infinity */
    if (u < 0x33000001u) return (uint16_t)sign;                                /* 2^-25 and below round to zero */
    if (u >= 0x38800000u) return (uint16_t)(sign | ((u - 0x38000000u + 0xFFF + (u >> 13 & 1)) >> 13));
    /* Subnormal result: the significand shifted so that one unit is 2^-24, rounded to nearest even. */
    const uint32_t shift = 126 - (u >> 23), man = (u & 0x7FFFFF) | 0x800000;
    const uint32_t q = man >> shift, rest = man & ((1u << shift) - 1), half = 1u << (shift - 1);
    return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
}

float fa_f8e4m3_to_f32(uint8_t v) {
    const uint32_t exp = v >> 3 & 15, man = v & 7;
    const uint32_t sign = (uint32_t)(v & 0x80) << 24;
    if ((v & 0x7F) == 0x7F) return from_bits(sign | F32_NAN);
    if (exp) return from_bits(sign | (exp + 120) << 23 | man << 20);
    const float f = (float)man * 0x1p-9f;
    return sign ? -f : f;
}

/* E5M2 is the upper byte of an f16. */
float fa_f8e5m2_to_f32(uint8_t v) { return fa_f16_to_f32((uint16_t)(v << 8)); }

/* 2^(v - 127); 0 is the subnormal 2^-127, 255 is NaN. */
static float e8m0_to_f32(uint8_t v) { return from_bits(v == 255 ? F32_NAN : v ? (uint32_t)v << 23 : 0x400000u); }

void fa_to_f32(fa_dtype t, const void *src, int64_t n, float *out) {
    const uint8_t *p = src;
    uint16_t h;
    double d;
    if (n <= 0) return;
    switch (t) {
    case FA_F32: memcpy(out, p, (size_t)n * 4); break;
    case FA_F16:
        for (int64_t i = 0; i < n; i++) memcpy(&h, p + 2 * i, 2), out[i] = fa_f16_to_f32(h);
        break;
    case FA_BF16:
        for (int64_t i = 0; i < n; i++) memcpy(&h, p + 2 * i, 2), out[i] = fa_bf16_to_f32(h);
        break;
    case FA_F64:
        for (int64_t i = 0; i < n; i++) memcpy(&d, p + 8 * i, 8), out[i] = (float)d;
        break;
    case FA_F8_E4M3:
        for (int64_t i = 0; i < n; i++) out[i] = fa_f8e4m3_to_f32(p[i]);
        break;
    case FA_F8_E5M2:
        for (int64_t i = 0; i < n; i++) out[i] = fa_f8e5m2_to_f32(p[i]);
        break;
    case FA_F8_E8M0:
        for (int64_t i = 0; i < n; i++) out[i] = e8m0_to_f32(p[i]);
        break;
    default: memset(out, 0, (size_t)n * 4); break; /* integers are not weights: callers never ask */
    }
}
