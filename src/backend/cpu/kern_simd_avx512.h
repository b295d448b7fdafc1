/* The vector vocabulary (kern_simd.h) in AVX-512 F, BW, DQ and VL. */
#ifndef FA_CPU_KERN_SIMD_AVX512_H
#define FA_CPU_KERN_SIMD_AVX512_H

#include "backend/cpu/kern_simd.h"

#include <immintrin.h>

typedef __m512 vf;
enum { VL = 16, V_MR = 8, V_NV = 2, V_DR = 4 };

V_INLINE __mmask16 v_first(int n) { return (__mmask16)((1u << n) - 1); }
V_INLINE vf v_set1(float x) { return _mm512_set1_ps(x); }
V_INLINE vf v_iota(void) { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
V_INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
V_INLINE vf v_loadn(const float *p, int n) { return _mm512_maskz_loadu_ps(v_first(n), p); }
V_INLINE void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
V_INLINE void v_storen(float *p, vf x, int n) { _mm512_mask_storeu_ps(p, v_first(n), x); }

V_INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
V_INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
V_INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
V_INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
V_INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
V_INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
V_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
V_INLINE vf v_abs(vf a) { return _mm512_abs_ps(a); }
V_INLINE vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_INLINE vf v_lt(vf a, vf b, vf x, vf y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x); }
V_INLINE vf v_sign(vf x, vf s) {
    const __m512 top = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(top, x), _mm512_and_ps(top, s));
}
V_INLINE vf v_ldexp(vf p, vf n) { return _mm512_scalef_ps(p, n); }
V_INLINE float v_sum(vf a) { return _mm512_reduce_add_ps(a); }
V_INLINE float v_top(vf a) { return _mm512_reduce_max_ps(a); }
V_INLINE int v_pack(float *out, int32_t *id, vf x, vf lo, vf hi, int32_t first) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __mmask16 m = _mm512_cmp_ps_mask(x, lo, _CMP_GE_OQ) & _mm512_cmp_ps_mask(x, hi, _CMP_LE_OQ);
    _mm512_storeu_ps(out, _mm512_maskz_compress_ps(m, x));
    _mm512_storeu_si512(id, _mm512_maskz_compress_epi32(m, _mm512_add_epi32(lane, _mm512_set1_epi32(first))));
    return __builtin_popcount(m);
}

/* Two rounds of pairwise adds leave [a b c d] in every 128-bit lane; then the four lanes are added. */
V_INLINE void v_sum4(vf a, vf b, vf c, vf d, float *out) {
    vf ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    vf cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    vf s = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

V_INLINE vf v_widen(__m256i h, fa_dtype t) {
    if (t == FA_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
V_INLINE vf v_ld(const void *p, int64_t i, fa_dtype t) {
    if (t == FA_F32) return _mm512_loadu_ps((const char *)p + 4 * i);
    return v_widen(_mm256_loadu_si256((const void *)((const char *)p + 2 * i)), t);
}
V_INLINE vf v_ldn(const void *p, int64_t i, fa_dtype t, int n) {
    if (t == FA_F32) return _mm512_maskz_loadu_ps(v_first(n), (const char *)p + 4 * i);
    return v_widen(_mm256_maskz_loadu_epi16(v_first(n), (const char *)p + 2 * i), t);
}

/* VL integers of 8 bits. */
V_INLINE vf v_ldi8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

V_INLINE vf v_low_half(vf x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16)); }
V_INLINE vf v_high_half(vf x) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xFFFF0000u)));
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
V_INLINE __m256i v_narrow(vf x, fa_dtype t) {
    if (t == FA_F16) return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512i u = _mm512_castps_si512(x);
    __m512i up =
        _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7FFF));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, up), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(r);
}
V_INLINE void v_st(void *p, int64_t i, fa_dtype t, vf x) {
    _mm256_storeu_si256((void *)((char *)p + 2 * i), v_narrow(x, t));
}
V_INLINE void v_stn(void *p, int64_t i, fa_dtype t, vf x, int n) {
    _mm256_mask_storeu_epi16((char *)p + 2 * i, v_first(n), v_narrow(x, t));
}

V_INLINE void v_ld2(const float *p, vf *even, vf *odd) {
    const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    vf a = v_load(p), b = v_load(p + VL);
    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}
V_INLINE void v_st2(float *p, vf even, vf odd) {
    const __m512i lo = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    v_store(p, _mm512_permutex2var_ps(even, lo, odd));
    v_store(p + VL, _mm512_permutex2var_ps(even, _mm512_add_epi32(lo, _mm512_set1_epi32(8)), odd));
}

/* 4 x 4 blocks inside the 128-bit lanes first (two rounds of unpack), then the lanes themselves as a 4 x 4 matrix (two
 * rounds of shuffle). */
V_INLINE void v_transpose(vf r[VL]) {
    vf t[VL];
    V_UNROLL for (int i = 0; i < VL; i += 4) {
        vf a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        vf c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
    }
    V_UNROLL for (int i = 0; i < 4; i++) {
        vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xDD);
        vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xDD);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xDD);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
}

#endif
