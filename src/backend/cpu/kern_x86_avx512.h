/* 512-bit vectors for kern_body_linear.h: all but the byte products, which differ with and without VNNI. */
#ifndef FA_CPU_KERN_X86_AVX512_H
#define FA_CPU_KERN_X86_AVX512_H

#include "backend/cpu/kern.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LN               16
#define QNV              3
#define QMR              4
#define FNV              3
#define FMR              8
#define TNV              3
#define TILES_MR(X, nv)  X(1, nv) X(2, nv) X(4, nv)
#define TILES(X)         TILES_MR(X, 1) TILES_MR(X, 2) TILES_MR(X, 3)
#define FTILES_MR(X, nv) TILES_MR(X, nv) X(8, nv)
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
static inline vi vf_bits(vf v) { return _mm512_castps_si512(v); }
static inline vf vf_from_bits(vi v) { return _mm512_castsi512_ps(v); }
static inline vf vf_near_inverse(vf v) {
    return _mm512_maskz_rcp14_ps(_mm512_test_epi32_mask(vf_bits(v), vf_bits(v)), v);
}
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

static inline void transpose(const void *src, size_t src_stride, void *dst, size_t dst_stride, int64_t n) {
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

/* ---- quantization of activations, 16 groups of 32 at a time ---- */

/* v[i] <- lane-wise op of all lanes of the 16 vectors: lane i of the result belongs to vector i */
static inline __m512i max_across(__m512i v[16]) {
    for (int i = 0; i < 8; i++)
        v[i] = _mm512_max_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        v[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]));
    for (int n = 2; n; n /= 2)
        for (int i = 0; i < n; i++)
            v[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x88),
                                    _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xDD));
    return v[0];
}

/* Largest magnitudes of n groups, as bit patterns (a NaN wins), 0 in the other lanes */
static inline vf amax_groups(const float *x, int n) {
    const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i v[16];
    for (int g = 0; g < 16; g++) {
        v[g] = _mm512_setzero_si512();
        if (g < n)
            v[g] = _mm512_max_epi32(_mm512_and_si512(_mm512_loadu_si512(x + 32 * g), mask),
                                    _mm512_and_si512(_mm512_loadu_si512(x + 32 * g + 16), mask));
    }
    return _mm512_castsi512_ps(max_across(v));
}

static inline __m512i scaled_ints(const float *x, float inv) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inv)));
}

/* Two groups to 64 bytes at q; returns sums of four neighbours. The second group is left out where `two` is false. */
static inline __m512i quant_pair(const float *x, const float *inv, bool two, int8_t *q) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i a = _mm512_packs_epi32(scaled_ints(x, inv[0]), scaled_ints(x + 16, inv[0])), b = _mm512_setzero_si512();
    if (two) b = _mm512_packs_epi32(scaled_ints(x + 32, inv[1]), scaled_ints(x + 48, inv[1]));
    __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(a, b));
    if (two)
        _mm512_storeu_si512(q, bytes);
    else
        _mm256_storeu_si256((__m256i *)(void *)q, _mm512_castsi512_si256(bytes));
    return _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_set1_epi8(1), bytes), _mm512_set1_epi16(1));
}

/* Sums of 16 halves, in order, from the sums of fours of 8 groups */
static inline __m512i half_sums(const __m512i *v) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    return _mm512_permutexvar_epi32(order, c);
}

/* n <= 16 groups; the outputs are those of the C definition, bit for bit */
static inline void quant_groups(const float *x, int n, int8_t *q, float *scale, float *sum32, float *sum16) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const vf amax = amax_groups(x, n);
    const __mmask16 live = _mm512_cmp_ps_mask(amax, _mm512_set1_ps(0x1p-118f), _CMP_NLT_UQ);
    const vf s = _mm512_maskz_div_ps(live, amax, _mm512_set1_ps(127.0f));
    float inv[16];
    __m512i four[8];
    vf_store(inv, _mm512_maskz_div_ps(live, _mm512_set1_ps(127.0f), amax));
    for (int g = 0; g < 16; g += 2) {
        four[g / 2] = _mm512_setzero_si512();
        if (g < n) four[g / 2] = quant_pair(x + 32 * g, inv + g, g + 1 < n, q + 32 * g);
    }
    const __m512i h0 = half_sums(four), h1 = half_sums(four + 4);
    const __m512i at0 = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                  at1 = _mm512_add_epi32(at0, _mm512_set1_epi32(8));
    vf_storen(scale, s, n);
    vf_storen(sum32,
              vf_mul(s, vf_cvt(_mm512_add_epi32(_mm512_permutex2var_epi32(h0, even, h1),
                                                _mm512_permutex2var_epi32(h0, odd, h1)))),
              n);
    vf_storen(sum16, vf_mul(_mm512_permutexvar_ps(at0, s), vf_cvt(h0)), n >= 8 ? 16 : 2 * n);
    if (n > 8) vf_storen(sum16 + 16, vf_mul(_mm512_permutexvar_ps(at1, s), vf_cvt(h1)), 2 * n - 16);
}

#define QUANT_ACT quant_act
static inline void quant_act(const float *x, int64_t ldx, int64_t m0, int64_t m1, fa_act *a) {
    const int64_t K = a->K, G = K / 32;
    for (int64_t m = m0; m < m1; m++)
        for (int64_t g = 0; g < G; g += 16)
            quant_groups(x + m * ldx + 32 * g, G - g < 16 ? (int)(G - g) : 16, a->q + m * K + 32 * g,
                         a->scale + m * G + g, a->sum32 + m * G + g, a->sum16 + 2 * (m * G + g));
}

#endif
