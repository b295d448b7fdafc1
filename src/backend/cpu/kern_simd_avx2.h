/* The vector vocabulary (kern_simd.h) in AVX2, FMA and F16C. */
#ifndef FA_CPU_KERN_SIMD_AVX2_H
#define FA_CPU_KERN_SIMD_AVX2_H

#include "backend/cpu/kern_simd.h"

#include <immintrin.h>

typedef __m256 vf;
enum { VL = 8, V_MR = 6, V_NV = 2, V_DR = 2 };

V_INLINE __m256i v_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
V_INLINE vf v_set1(float x) { return _mm256_set1_ps(x); }
V_INLINE vf v_iota(void) { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
V_INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
V_INLINE vf v_loadn(const float *p, int n) { return _mm256_maskload_ps(p, v_first(n)); }
V_INLINE void v_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
V_INLINE void v_storen(float *p, vf x, int n) { _mm256_maskstore_ps(p, v_first(n), x); }

V_INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
V_INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
V_INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
V_INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
V_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
V_INLINE vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
V_INLINE vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_INLINE vf v_lt(vf a, vf b, vf x, vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
V_INLINE vf v_sign(vf x, vf s) {
    const __m256 top = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(top, x), _mm256_and_ps(top, s));
}
/* In two steps, each a normal power of two: one step could not reach below 2^-126 or above 2^127. A NaN n yields NaN
 * through p. */
V_INLINE vf v_ldexp(vf p, vf n) {
    __m256i k = _mm256_cvtps_epi32(n), k1 = _mm256_srai_epi32(k, 1), k2 = _mm256_sub_epi32(k, k1);
    const __m256i bias = _mm256_set1_epi32(127);
    vf s1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k1, bias), 23));
    vf s2 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k2, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(p, s1), s2);
}
V_INLINE float v_sum(vf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
V_INLINE float v_top(vf a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
/* In two halves: the places of the lanes to keep, of four each, by their bits. */
V_INLINE int v_pack(float *out, int32_t *id, vf x, vf lo, vf hi, int32_t first) {
    static const int32_t kept[16][4] = {
        {0, 0, 0, 0}, {0, 0, 0, 0}, {1, 0, 0, 0}, {0, 1, 0, 0}, {2, 0, 0, 0}, {0, 2, 0, 0}, {1, 2, 0, 0}, {0, 1, 2, 0},
        {3, 0, 0, 0}, {0, 3, 0, 0}, {1, 3, 0, 0}, {0, 1, 3, 0}, {2, 3, 0, 0}, {0, 2, 3, 0}, {1, 2, 3, 0}, {0, 1, 2, 3}};
    const __m256 in = _mm256_and_ps(_mm256_cmp_ps(x, lo, _CMP_GE_OQ), _mm256_cmp_ps(x, hi, _CMP_LE_OQ));
    const int m = _mm256_movemask_ps(in), n = __builtin_popcount((unsigned)m & 15);
    if (m == 0) return 0;
    __m128i low = _mm_loadu_si128((const void *)kept[m & 15]), high = _mm_loadu_si128((const void *)kept[m >> 4]);
    _mm_storeu_ps(out, _mm_permutevar_ps(_mm256_castps256_ps128(x), low));
    _mm_storeu_ps(out + n, _mm_permutevar_ps(_mm256_extractf128_ps(x, 1), high));
    _mm_storeu_si128((void *)id, _mm_add_epi32(low, _mm_set1_epi32(first)));
    _mm_storeu_si128((void *)(id + n), _mm_add_epi32(high, _mm_set1_epi32(first + 4)));
    return n + __builtin_popcount((unsigned)m >> 4);
}

/* Two rounds of pairwise adds leave [a b c d] in both 128-bit lanes. */
V_INLINE void v_sum4(vf a, vf b, vf c, vf d, float *out) {
    vf s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

V_INLINE vf v_widen(__m128i h, fa_dtype t) {
    if (t == FA_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
V_INLINE vf v_ld(const void *p, int64_t i, fa_dtype t) {
    if (t == FA_F32) return _mm256_loadu_ps((const void *)((const char *)p + 4 * i));
    return v_widen(_mm_loadu_si128((const void *)((const char *)p + 2 * i)), t);
}
V_INLINE vf v_ldn(const void *p, int64_t i, fa_dtype t, int n) {
    if (t == FA_F32) return _mm256_maskload_ps((const void *)((const char *)p + 4 * i), v_first(n));
    uint16_t h[VL] = {0};
    memcpy(h, (const char *)p + 2 * i, 2 * (size_t)n);
    return v_widen(_mm_loadu_si128((const void *)h), t);
}

/* VL integers of 8 bits. */
V_INLINE vf v_ldi8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

V_INLINE vf v_low_half(vf x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16)); }
V_INLINE vf v_high_half(vf x) {
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32((int)0xFFFF0000u)));
}
V_INLINE void v_ldp(const void *p, int64_t i, fa_dtype t, vf *a, vf *b) {
    if (t == FA_BF16) {
        vf x = v_ld((const char *)p + 2 * i, 0, FA_F32);
        *a = v_low_half(x);
        *b = v_high_half(x);
    } else {
        *a = v_ld(p, i, t);
        *b = v_ld(p, i + VL, t);
    }
}

/* A NaN keeps its upper bits and gets its quiet bit, so that cutting never makes it an infinity. */
V_INLINE __m128i v_narrow(vf x, fa_dtype t) {
    if (t == FA_F16) return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i u = _mm256_castps_si256(x), cut = _mm256_srli_epi32(u, 16);
    __m256i up = _mm256_add_epi32(_mm256_and_si256(cut, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7FFF));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, up), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(cut, _mm256_set1_epi32(0x40)), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
V_INLINE void v_st(void *p, int64_t i, fa_dtype t, vf x) {
    _mm_storeu_si128((void *)((char *)p + 2 * i), v_narrow(x, t));
}
V_INLINE void v_stn(void *p, int64_t i, fa_dtype t, vf x, int n) {
    uint16_t h[VL];
    _mm_storeu_si128((void *)h, v_narrow(x, t));
    memcpy((char *)p + 2 * i, h, 2 * (size_t)n);
}

V_INLINE void v_ld2(const float *p, vf *even, vf *odd) {
    vf a = v_load(p), b = v_load(p + VL);
    __m256d e = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), o = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xDD));
    *even = _mm256_castpd_ps(_mm256_permute4x64_pd(e, 0xD8));
    *odd = _mm256_castpd_ps(_mm256_permute4x64_pd(o, 0xD8));
}
V_INLINE void v_st2(float *p, vf even, vf odd) {
    vf lo = _mm256_unpacklo_ps(even, odd), hi = _mm256_unpackhi_ps(even, odd);
    v_store(p, _mm256_permute2f128_ps(lo, hi, 0x20));
    v_store(p + VL, _mm256_permute2f128_ps(lo, hi, 0x31));
}

V_INLINE void v_transpose(vf r[VL]) {
    vf t[VL];
    V_UNROLL for (int i = 0; i < VL; i += 4) {
        vf a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        vf c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xEE);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xEE);
    }
    V_UNROLL for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

#endif
