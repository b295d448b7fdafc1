/* Scales and mins of every format with 8-lane vectors: what the avx2 and avx512 unpack files share, because a row has
 * 16 or 32 times fewer scales than codes. Included once per ISA file; everything is static inline. Results are bit for
 * bit those of the C definitions. */
#ifndef FA_CPU_KERN_UNPACK_X86_H
#define FA_CPU_KERN_UNPACK_X86_H

#include <immintrin.h>

#include "backend/cpu/kern.h"

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif

INLINE const uint8_t *row_codes(const fa_weight *w, int64_t row) { return w->codes + (size_t)row * w->row_bytes; }

INLINE int load_u16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return h;
}

INLINE int load_i32(const uint8_t *p) {
    int v;
    memcpy(&v, p, 4);
    return v;
}

/* Weights stream from memory once per token. While a row is multiplied, the next ones are already coming: measured on
 * Sapphire Rapids with a dot product after each row, one core, prefetching 4 KiB ahead streams 30 to 50 % faster than
 * the hardware's prefetcher alone; 2 and 8 KiB are about as good. Running past the end of the mapping is harmless: a
 * prefetch never faults. */
INLINE void prefetch_ahead(const uint8_t *p, const size_t bytes) {
    const uintptr_t at = (uintptr_t)p + 4096;
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(at + i), _MM_HINT_T0);
}

INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
INLINE __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

/* One f16 in all lanes. */
INLINE __m256 half_all(const uint8_t *p) { return _mm256_cvtph_ps(_mm_set1_epi16((short)load_u16(p))); }
INLINE float half1(const uint8_t *p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(p)))); }

/* --- blocks of 32: d, or d and m, at the start of a block of `bytes`; factor 0 says that m is stored, else min =
 * factor * d --- */

/* The gather instructions are slow on many machines (and slower since their security fixes): 8 inserts. */
INLINE void block_scales8(const uint8_t *p, const size_t bytes, const float factor, float *scale, float *min) {
    if (factor != 0) {
        __m128i h = _mm_cvtsi32_si128(load_u16(p));
        h = _mm_insert_epi16(h, load_u16(p + bytes), 1);
        h = _mm_insert_epi16(h, load_u16(p + 2 * bytes), 2);
        h = _mm_insert_epi16(h, load_u16(p + 3 * bytes), 3);
        h = _mm_insert_epi16(h, load_u16(p + 4 * bytes), 4);
        h = _mm_insert_epi16(h, load_u16(p + 5 * bytes), 5);
        h = _mm_insert_epi16(h, load_u16(p + 6 * bytes), 6);
        h = _mm_insert_epi16(h, load_u16(p + 7 * bytes), 7);
        const __m256 d = _mm256_cvtph_ps(h);
        _mm256_storeu_ps(scale, d);
        _mm256_storeu_ps(min, _mm256_mul_ps(_mm256_set1_ps(factor), d));
        return;
    }
    const __m128i split = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m128i a = _mm_cvtsi32_si128(load_i32(p)), b = _mm_cvtsi32_si128(load_i32(p + 4 * bytes));
    a = _mm_insert_epi32(a, load_i32(p + bytes), 1);
    b = _mm_insert_epi32(b, load_i32(p + 5 * bytes), 1);
    a = _mm_insert_epi32(a, load_i32(p + 2 * bytes), 2);
    b = _mm_insert_epi32(b, load_i32(p + 6 * bytes), 2);
    a = _mm_insert_epi32(a, load_i32(p + 3 * bytes), 3);
    b = _mm_insert_epi32(b, load_i32(p + 7 * bytes), 3);
    a = _mm_shuffle_epi8(a, split);
    b = _mm_shuffle_epi8(b, split);
    _mm256_storeu_ps(scale, _mm256_cvtph_ps(_mm_unpacklo_epi64(a, b)));
    _mm256_storeu_ps(min, _mm256_cvtph_ps(_mm_unpackhi_epi64(a, b)));
}

INLINE void block_scale1(const uint8_t *p, const float factor, float *scale, float *min) {
    const float d = half1(p);
    *scale = d;
    *min = factor != 0 ? factor * d : half1(p + 2);
}

/* --- blocks of 256 --- */

INLINE __m256 bytes_ps(__m128i b) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)); }
INLINE __m256 schars_ps(__m128i b) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)); }
INLINE __m256 negate(__m256 v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }

/* Q4_K, Q5_K: 8 scales and 8 mins of 6 bits as bytes. h: the first 16 bytes of the block: d, dmin, A[4], B[4], C[4]. */
INLINE __m128i q45_scale_bytes(__m128i h) {
    /* [A, C, B, C >> 4] with 6, 4, 6, 4 bits, and the upper two bits of A and B over the second and fourth. */
    const __m128i low = _mm_shuffle_epi8(h, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m128i top = _mm_shuffle_epi8(h, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    const __m128i low_mask = _mm_setr_epi32(0x3F3F3F3F, 0x0F0F0F0F, 0x3F3F3F3F, 0x0F0F0F0F);
    const __m128i a = _mm_and_si128(_mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 0, 4)), low_mask);
    return _mm_or_si128(a, _mm_and_si128(_mm_srli_epi32(top, 2), _mm_set1_epi8(0x30)));
}

INLINE void q45_scales(const uint8_t *p, float *scale, float *min) {
    const __m128i h = load16(p), v = q45_scale_bytes(h);
    const __m128 d = _mm_cvtph_ps(h);
    _mm256_storeu_ps(scale, _mm256_mul_ps(_mm256_broadcastss_ps(d), bytes_ps(v)));
    const __m256 m = _mm256_mul_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(d)), bytes_ps(_mm_srli_si128(v, 8)));
    _mm256_storeu_ps(min, negate(m));
}

/* 16 signed group scales; min = factor * scale. */
INLINE void signed_scales16(__m256 d, __m128i s, const float factor, float *scale, float *min) {
    const __m256 a = _mm256_mul_ps(d, schars_ps(s)), b = _mm256_mul_ps(d, schars_ps(_mm_srli_si128(s, 8)));
    const __m256 f = _mm256_set1_ps(factor);
    _mm256_storeu_ps(scale, a);
    _mm256_storeu_ps(scale + 8, b);
    _mm256_storeu_ps(min, _mm256_mul_ps(f, a));
    _mm256_storeu_ps(min + 8, _mm256_mul_ps(f, b));
}

INLINE void q6_scales(const uint8_t *p, float *scale, float *min) {
    signed_scales16(half_all(p + 208), load16(p + 192), -32.0f, scale, min);
}

/* Q3_K, from 12 bytes: low nibbles of 16 scales in bytes 0..7, their high pairs as four 2-bit planes of bytes 8..11.
 * The load begins two bytes early to end with the block. */
INLINE __m128i q3_scale_bytes(const uint8_t *p) {
    const __m128i h = load16(p + 94);
    const __m128i low = _mm_shuffle_epi8(h, _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    const __m128i top =
        _mm_shuffle_epi8(h, _mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13));
    const __m128i a = _mm_and_si128(_mm_srlv_epi64(low, _mm_set_epi64x(4, 0)), _mm_set1_epi8(15));
    const __m128i b = _mm_and_si128(_mm_srlv_epi32(top, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    return _mm_sub_epi8(_mm_or_si128(a, _mm_slli_epi16(b, 4)), _mm_set1_epi8(32));
}

INLINE void q3_scales(const uint8_t *p, float *scale, float *min) {
    signed_scales16(half_all(p + 108), q3_scale_bytes(p), -4.0f, scale, min);
}

INLINE void q2_scales(const uint8_t *p, float *scale, float *min) {
    const __m128i h = load16(p), low = _mm_set1_epi8(15);
    const __m128i s = _mm_and_si128(h, low), m = _mm_and_si128(_mm_srli_epi16(h, 4), low);
    const __m256 d = half_all(p + 80), dmin = half_all(p + 82);
    _mm256_storeu_ps(scale, _mm256_mul_ps(d, bytes_ps(s)));
    _mm256_storeu_ps(scale + 8, _mm256_mul_ps(d, bytes_ps(_mm_srli_si128(s, 8))));
    _mm256_storeu_ps(min, negate(_mm256_mul_ps(dmin, bytes_ps(m))));
    _mm256_storeu_ps(min + 8, negate(_mm256_mul_ps(dmin, bytes_ps(_mm_srli_si128(m, 8)))));
}

/* --- planar formats --- */

INLINE __m256 load_scales8(const uint8_t *p, const fa_dtype t) {
    if (t == FA_F32) return _mm256_castsi256_ps(load32(p));
    const __m128i h = load16(p);
    if (t == FA_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE float load_scale1(const uint8_t *p, const fa_dtype t) {
    if (t == FA_F32) return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(load_i32(p))));
    if (t == FA_F16) return half1(p);
    return fa_bf16_to_f32((uint16_t)load_u16(p));
}

/* n stored floats, each written rep = 1, 2 or 4 times. */
INLINE void repeat_scales(const uint8_t *p, const fa_dtype t, int64_t n, const int rep, float *out) {
    const size_t size = t == FA_F32 ? 4 : 2;
    int64_t g = 0;
    for (; g + 8 <= n; g += 8, out += 8 * rep) {
        const __m256 v = load_scales8(p + (size_t)g * size, t);
        prefetch_ahead(p + (size_t)g * size, 8 * size);
        for (int r = 0; r < rep; r++) {
            const int b = 8 / rep * r, s = rep == 4 ? 2 : rep == 2 ? 1 : 0;
            const __m256i idx = _mm256_setr_epi32(b, b + (1 >> s), b + (2 >> s), b + (3 >> s), b + (4 >> s),
                                                  b + (5 >> s), b + (6 >> s), b + (7 >> s));
            _mm256_storeu_ps(out + 8 * r, rep == 1 ? v : _mm256_permutevar8x32_ps(v, idx));
        }
    }
    for (; g < n; g++)
        for (int r = 0; r < rep; r++) *out++ = load_scale1(p + (size_t)g * size, t);
}

INLINE void repeat_scales_t(const uint8_t *p, const fa_dtype t, int64_t n, int rep, float *out) {
    if (rep == 1)
        repeat_scales(p, t, n, 1, out);
    else if (rep == 2)
        repeat_scales(p, t, n, 2, out);
    else
        repeat_scales(p, t, n, 4, out);
}

/* One plane (scales or biases) of one row. */
INLINE void affine_plane(const fa_weight *w, const uint8_t *plane, int64_t row, float *out) {
    const uint8_t *p = plane + (size_t)row * w->scale_row_bytes;
    const int64_t n = w->cols / w->group;
    const int rep = w->group / 32;
    if (w->scale_dtype == FA_BF16)
        repeat_scales_t(p, FA_BF16, n, rep, out);
    else if (w->scale_dtype == FA_F16)
        repeat_scales_t(p, FA_F16, n, rep, out);
    else
        repeat_scales_t(p, FA_F32, n, rep, out);
}

/* 8 exponents to 2^(e - 128): a shifted exponent field, two subnormals, NaN for 255. */
INLINE __m256 e8m0_half8(__m256i e) {
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    __m256i v = _mm256_blendv_epi8(tiny, normal, _mm256_cmpgt_epi32(e, one));
    v = _mm256_blendv_epi8(v, _mm256_set1_epi32(0x7FC00000), _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255)));
    return _mm256_castsi256_ps(v);
}

INLINE void mxfp4_scales(const fa_weight *w, int64_t row, float *scale, float *min) {
    const uint8_t *p = w->scales + (size_t)row * w->scale_row_bytes;
    const int64_t n = w->cols / 32;
    const __m256 f = _mm256_set1_ps(-12.0f);
    int64_t g = 0;
    for (; g + 8 <= n; g += 8) {
        prefetch_ahead(p + g, 8);
        const __m256 s = e8m0_half8(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p + g))));
        _mm256_storeu_ps(scale + g, s);
        _mm256_storeu_ps(min + g, _mm256_mul_ps(f, s));
    }
    if (g < n) {
        uint8_t rest[8] = {0};
        for (int64_t i = 0; i < 7 && g + i < n; i++) rest[i] = p[g + i];
        const __m256 s = e8m0_half8(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)rest)));
        _mm256_storeu_ps(scale + g, s); /* up to 7 floats of padding */
        _mm256_storeu_ps(min + g, _mm256_mul_ps(f, s));
    }
}

#endif
