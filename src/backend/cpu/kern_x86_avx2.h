/* 256-bit vectors for kern_body_linear.h (AVX2, FMA, F16C): all but the byte products, which differ with and without
 * AVX-VNNI. */
#ifndef FA_CPU_KERN_X86_AVX2_H
#define FA_CPU_KERN_X86_AVX2_H

#include "backend/cpu/kern.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LN        8
#define QNV       2
#define QMR       4
#define FNV       2
#define FMR       6
#define TNV       2
#define TILES(X)  X(1, 1) X(2, 1) X(4, 1) X(1, 2) X(2, 2) X(4, 2)
#define FTILES(X) TILES(X) X(6, 1) X(6, 2)

typedef __m256 vf;
typedef __m256i vi;

static inline __m256i first_n(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf vf_loadn(const float *p, int n) { return _mm256_maskload_ps(p, first_n(n)); }
static inline void vf_storen(float *p, vf v, int n) { _mm256_maskstore_ps(p, first_n(n), v); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline float vf_sum(vf v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline vf vf_cvt(vi v) { return _mm256_cvtepi32_ps(v); }
static inline vi vf_bits(vf v) { return _mm256_castps_si256(v); }
static inline vf vf_from_bits(vi v) { return _mm256_castsi256_ps(v); }
static inline vf vf_near_inverse(vf v) { /* 12 bits and a Newton step; 0 for 0 */
    vf r = _mm256_rcp_ps(v);
    r = _mm256_mul_ps(r, _mm256_fnmadd_ps(v, r, _mm256_set1_ps(2.0f)));
    return _mm256_and_ps(r, _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NEQ_UQ));
}
static inline vf vf_u8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
static inline vf vf_f32(const uint8_t *p) { return _mm256_loadu_ps((const float *)(const void *)p); }
static inline vf vf_f16(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
static inline vf vf_bf16(const uint8_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)), 16));
}
/* p[0] p[0] p[1] p[1] ...: n values, the lanes after them 0 */
static inline vf vf_twice(const float *p, int n) {
    return _mm256_permutevar8x32_ps(vf_loadn(p, n), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
static inline vf vf_spread(const float *p, int ug) {
    return ug == 32 ? _mm256_set1_ps(p[0]) : _mm256_insertf128_ps(_mm256_set1_ps(p[0]), _mm_set1_ps(p[1]), 1);
}

static inline vi vi_zero(void) { return _mm256_setzero_si256(); }
static inline vi vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline vi vi_loadn(const void *p, int n) {
    (void)n;
    return vi_load(p);
} /* a chunk is one group: no partial ones */
static inline vi vi_bcast4(const int8_t *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}
static inline vi vi_flip(vi v) { return _mm256_xor_si256(v, _mm256_set1_epi8((char)0x80)); }

static inline void transpose8(__m256i r[8]) {
    __m256i t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = _mm256_unpacklo_epi64(t[i + j], t[i + j + 2]);
            u[i + 2 * j + 1] = _mm256_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x20);
        r[4 + i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x31);
    }
}

static void transpose(const void *src, size_t src_stride, void *dst, size_t dst_stride, int64_t n) {
    for (int64_t k = 0; k < n; k += 8) {
        __m256i r[8];
        for (size_t i = 0; i < 8; i++) r[i] = vi_load((const char *)src + i * src_stride + 4 * k);
        transpose8(r);
        char *out = (char *)dst + (size_t)k * dst_stride;
        for (size_t i = 0; i < 8; i++)
            if ((int64_t)i < n - k) _mm256_storeu_si256((__m256i *)(void *)(out + i * dst_stride), r[i]);
    }
}

static inline float amax32(const float *x) {
    const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8) m = _mm256_max_epi32(m, _mm256_and_si256(vi_load(x + i), mask));
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4E));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(h));
}

/* q = round(x * inv) and the sums of both halves */
static inline void quant32(const float *x, float inv, int8_t *q, int half[2]) {
    for (int h = 0; h < 2; h++) {
        __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * h), _mm256_set1_ps(inv)));
        __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * h + 8), _mm256_set1_ps(inv)));
        __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8), s = _mm256_add_epi32(a, b);
        _mm_storeu_si128((__m128i *)(void *)(q + 16 * h),
                         _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
        __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
        t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4E));
        half[h] = _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xB1)));
    }
}

#endif
