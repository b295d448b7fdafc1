/* 512-bit vectors for kern_body_linear.h: all but the byte products, which differ with and without VNNI. */
#ifndef FA_CPU_KERN_X86_AVX512_H
#define FA_CPU_KERN_X86_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LN               16
#define QNV              3
#define QMR              4
#define FNV              3
#define FMR              8
#define TNV              3
#define TILES_MR(X, nv)  X(1, nv) X(2, nv) X(3, nv) X(4, nv)
#define TILES(X)         TILES_MR(X, 1) TILES_MR(X, 2) TILES_MR(X, 3)
#define FTILES_MR(X, nv) TILES_MR(X, nv) X(5, nv) X(6, nv) X(7, nv) X(8, nv)
#define FTILES(X)        FTILES_MR(X, 1) FTILES_MR(X, 2) FTILES_MR(X, 3)

typedef __m512 vf;
typedef __m512i vi;

static inline __mmask16 first_n(int n) { return (__mmask16)((1u << n) - 1u); } /* n < 32 */

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf vf_loadn(const float *p, int n) { return _mm512_maskz_loadu_ps(first_n(n), p); }
static inline void vf_storen(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, first_n(n), v); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline float vf_sum(vf v) { return _mm512_reduce_add_ps(v); }
static inline vf vf_cvt(vi v) { return _mm512_cvtepi32_ps(v); }
static inline vf vf_u8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
static inline vf vf_f32(const uint8_t *p) { return _mm512_loadu_ps(p); }
static inline vf vf_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vf vf_bf16(const uint8_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)), 16));
}
/* p[0] p[0] p[1] p[1] ...: n values, the lanes after them 0 */
static inline vf vf_twice(const float *p, int n) {
    const __m512i at = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(at, vf_loadn(p, n));
}
static inline vf vf_spread(const float *p, int ug) {
    if (ug == 32) {
        const __m512i at = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        return _mm512_permutexvar_ps(
            at, _mm512_castpd_ps(_mm512_castpd128_pd512(_mm_load_sd((const double *)(const void *)p))));
    }
    const __m512i at = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(at, _mm512_castps128_ps512(_mm_loadu_ps(p)));
}

static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline vi vi_loadn(const void *p, int n) {
    return _mm512_maskz_loadu_epi8(((__mmask64)1 << n) - 1, p);
} /* n < 64 */
static inline vi vi_bcast4(const int8_t *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}
static inline vi vi_flip(vi v) { return _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80)); }

/* 16 x 16 dwords: unpack pairs, then quarters, then 128-bit lanes twice. */
static inline void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4 a + c], lane b: column 4 b + c of rows 4 a .. 4 a + 3 */
    for (int c = 0; c < 4; c++) {
        __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xDD);
        __m512i d = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88),
                e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xDD);
        t[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, d, 0xDD);
        t[4 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(b, e, 0xDD);
    }
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

static void transpose(const void *src, size_t src_stride, void *dst, size_t dst_stride, int64_t n) {
    for (int64_t k = 0; k < n; k += 16) {
        __m512i r[16];
        for (size_t i = 0; i < 16; i++) r[i] = _mm512_loadu_si512((const char *)src + i * src_stride + 4 * k);
        transpose16(r);
        char *out = (char *)dst + (size_t)k * dst_stride;
        if (n - k >= 16)
            for (size_t i = 0; i < 16; i++) _mm512_storeu_si512(out + i * dst_stride, r[i]);
        else
            for (size_t i = 0; i < (size_t)(n - k); i++) _mm512_storeu_si512(out + i * dst_stride, r[i]);
    }
}

static inline float amax32(const float *x) {
    const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i a = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x)), mask);
    __m512i b = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + 16)), mask);
    uint32_t top = (uint32_t)_mm512_reduce_max_epi32(_mm512_max_epi32(a, b));
    float f;
    memcpy(&f, &top, 4);
    return f;
}

/* q = round(x * inv) and the sums of both halves */
static inline void quant32(const float *x, float inv, int8_t *q, int half[2]) {
    for (int h = 0; h < 2; h++) {
        __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * h), _mm512_set1_ps(inv)));
        _mm_storeu_si128((__m128i *)(void *)(q + 16 * h), _mm512_cvtsepi32_epi8(v));
        half[h] = _mm512_reduce_add_epi32(v);
    }
}

#endif
