/* Weight rows decoded straight into registers, for products with few input rows: storing a row's codes to L1 and
 * loading them again costs more than decoding them, and these products must keep up with memory. Formats that are not
 * here go through unpack.
 *
 * A format is a kind; `super` is its bytes per 256 codes. row_scales writes canonical scales and mins of a row (up to
 * 15 floats past the end), row_codes gives codes [64 j, 64 j + 64) of the 256 that start at p. Nothing is read past the
 * row. */
#ifndef FA_CPU_KERN_X86_AVX512_ROWS_H
#define FA_CPU_KERN_X86_AVX512_ROWS_H

#include "backend/cpu/kern_x86_avx512.h"
#include "tensor/qfmt.h"

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif

/* X(kind, super) */
#define ROW_KINDS(X)                                                                                                   \
    X(ROW_Q8_0, 8 * 34)                                                                                                \
    X(ROW_Q4_0, 8 * 18)                                                                                                \
    X(ROW_Q4_1, 8 * 20)                                                                                                \
    X(ROW_Q5_0, 8 * 22)                                                                                                \
    X(ROW_Q5_1, 8 * 24)                                                                                                \
    X(ROW_Q4_K, 144)                                                                                                   \
    X(ROW_Q5_K, 176)                                                                                                   \
    X(ROW_Q6_K, 210)                                                                                                   \
    X(ROW_AFFINE4, 128)                                                                                                \
    X(ROW_AFFINE8, 256)

enum {
#define KIND_NAME(kind, super) kind,
    ROW_KINDS(KIND_NAME)
#undef KIND_NAME
        ROW_UNPACKED
};

static inline int row_kind(const fa_weight *w) {
    if (w->cols % 64) return ROW_UNPACKED;
    switch (w->fmt) {
    case FA_FMT_Q8_0: return ROW_Q8_0;
    case FA_FMT_Q4_0: return ROW_Q4_0;
    case FA_FMT_Q4_1: return ROW_Q4_1;
    case FA_FMT_Q5_0: return ROW_Q5_0;
    case FA_FMT_Q5_1: return ROW_Q5_1;
    case FA_FMT_Q4_K: return ROW_Q4_K;
    case FA_FMT_Q5_K: return ROW_Q5_K;
    case FA_FMT_Q6_K: return ROW_Q6_K;
    case FA_FMT_AFFINE: return w->bits == 4 ? ROW_AFFINE4 : w->bits == 8 ? ROW_AFFINE8 : ROW_UNPACKED;
    default: return ROW_UNPACKED;
    }
}

/* ---- codes ---- */

static inline __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline __m512i twice32(const uint8_t *p) { return _mm512_broadcast_i64x4(load32(p)); }
static inline __m512i low_nibbles(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }

/* 16 nibble bytes at a and at b: the low nibbles of a, its high nibbles, the same of b */
static inline __m512i nibbles16(const uint8_t *a, const uint8_t *b) {
    const __m512i by = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    __m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)a));
    v = _mm512_mask_broadcast_i32x4(v, 0xFF00, _mm_loadu_si128((const __m128i *)(const void *)b));
    return low_nibbles(_mm512_srlv_epi64(v, by));
}

/* adds 16 where a bit of the two 32-bit words is set */
static inline __m512i fifth_bits(__m512i v, const uint8_t *a, const uint8_t *b) {
    uint32_t lo, hi;
    memcpy(&lo, a, 4);
    memcpy(&hi, b, 4);
    return _mm512_mask_add_epi8(v, (uint64_t)hi << 32 | lo, v, _mm512_set1_epi8(16));
}

static inline __m512i codes_q45_k(const uint8_t *nibbles, int j) {
    return low_nibbles(_mm512_srlv_epi64(twice32(nibbles + 32 * j), _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4)));
}

static inline __m512i codes_q6_k(const uint8_t *p, int j) {
    const int half = j / 2, high = 4 * (j % 2);
    /* the two high bits of a code go to bits 4 and 5: rotate left by 4 or 2, for the second pair of planes right by 0
     * or 2 */
    const __m512i by = _mm512_setr_epi64((60 + high) & 63, (60 + high) & 63, (60 + high) & 63, (60 + high) & 63,
                                         (62 + high) & 63, (62 + high) & 63, (62 + high) & 63, (62 + high) & 63);
    __m512i low = _mm512_loadu_si512(p + 64 * half), top = _mm512_rorv_epi64(twice32(p + 128 + 32 * half), by);
    if (high) low = _mm512_srli_epi16(low, 4);
    __m512i v = _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), low, top, 0xCA); /* bits 0..3 of low, others of top */
    return _mm512_and_si512(v, _mm512_set1_epi8(63));
}

INLINE vi row_codes(const int kind, const uint8_t *p, const int j) {
    switch (kind) {
    case ROW_Q8_0:
        p += 68 * j;
        return vi_flip(_mm512_inserti64x4(_mm512_castsi256_si512(load32(p + 2)), load32(p + 36), 1));
    case ROW_Q4_0: return nibbles16(p + 36 * j + 2, p + 36 * j + 20);
    case ROW_Q4_1: return nibbles16(p + 40 * j + 4, p + 40 * j + 24);
    case ROW_Q5_0: return fifth_bits(nibbles16(p + 44 * j + 6, p + 44 * j + 28), p + 44 * j + 2, p + 44 * j + 24);
    case ROW_Q5_1: return fifth_bits(nibbles16(p + 48 * j + 8, p + 48 * j + 32), p + 48 * j + 4, p + 48 * j + 28);
    case ROW_Q4_K: return codes_q45_k(p + 16, j);
    case ROW_Q5_K: {
        const __m512i bit =
            _mm512_inserti64x4(_mm512_set1_epi8((char)(1 << 2 * j)), _mm256_set1_epi8((char)(2 << 2 * j)), 1);
        __m512i v = codes_q45_k(p + 48, j);
        return _mm512_mask_add_epi8(v, _mm512_test_epi8_mask(twice32(p + 16), bit), v, _mm512_set1_epi8(16));
    }
    case ROW_Q6_K: return codes_q6_k(p, j);
    case ROW_AFFINE4: {
        __m512i v = _mm512_cvtepu8_epi16(load32(p + 32 * j)); /* a byte's low nibble is the earlier code */
        return low_nibbles(_mm512_or_si512(v, _mm512_slli_epi16(v, 4)));
    }
    default: return vi_load(p + 64 * j);
    }
}

/* Paired kinds: 64 bytes at p hold 128 codes, of which two neighbours share a byte. even and odd are the codes of even
 * and of odd columns; lane i of both belongs to columns [8 i, 8 i + 8), so that one sum takes both. */
INLINE bool row_paired(const int kind) { return kind == ROW_AFFINE4; }

INLINE void row_pair(const int kind, const uint8_t *p, vi *even, vi *odd) {
    (void)kind;
    const vi v = vi_load(p);
    *even = low_nibbles(v);
    *odd = low_nibbles(_mm512_srli_epi16(v, 4));
}

/* The activations that go with them: of every 128 columns the even ones, then the odd ones. What is left stays. */
static inline void split_columns(const int8_t *q, int64_t K, int8_t *out) {
    int64_t k = 0;
    for (; k + 128 <= K; k += 128)
        for (int64_t h = 0; h < 128; h += 64) {
            const __m512i v = _mm512_loadu_si512(q + k + h);
            _mm256_storeu_si256((__m256i *)(void *)(out + k + h / 2), _mm512_cvtepi16_epi8(v));
            _mm256_storeu_si256((__m256i *)(void *)(out + k + 64 + h / 2),
                                _mm512_cvtepi16_epi8(_mm512_srli_epi16(v, 8)));
        }
    if (k < K) memcpy(out + k, q + k, (size_t)(K - k));
}

/* ---- scales ---- */

static inline __m512 half_words(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

static inline float load_half(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}

/* n <= 16 blocks of `size` bytes that begin with an f16 scale and, where there is no offset, an f16 min. */
INLINE vf scales_blocks(const uint8_t *p, const int size, const float offset, int n, vf *min) {
    const __m512i at = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                          _mm512_set1_epi32(size));
    __m512i v = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), first_n(n), at, p, 1);
    vf s = half_words(v);
    *min = offset != 0 ? vf_mul(s, vf_set1(-offset)) : half_words(_mm512_srli_epi32(v, 16));
    return s;
}

/* Eight 6-bit scales and mins as bytes; see the format's definition. */
static inline void bytes_q45_k(const uint8_t *p, uint64_t *s8, uint64_t *m8) {
    uint32_t a, b, c;
    memcpy(&a, p + 4, 4);
    memcpy(&b, p + 8, 4);
    memcpy(&c, p + 12, 4);
    *s8 = (a & 0x3F3F3F3Fu) | (uint64_t)((c & 0x0F0F0F0Fu) | (a >> 2 & 0x30303030u)) << 32;
    *m8 = (b & 0x3F3F3F3Fu) | (uint64_t)((c >> 4 & 0x0F0F0F0Fu) | (b >> 2 & 0x30303030u)) << 32;
}

static inline vf bytes_times(uint64_t lo, uint64_t hi, float by_lo, float by_hi) {
    __m512i v = _mm512_cvtepu8_epi32(_mm_set_epi64x((int64_t)hi, (int64_t)lo));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v),
                         _mm512_mask_mov_ps(_mm512_set1_ps(by_lo), 0xFF00, _mm512_set1_ps(by_hi)));
}

/* One block (n = 8) or two */
INLINE vf scales_q45_k(const uint8_t *p, const int size, int n, vf *min) {
    uint64_t s0, s1 = 0, m0, m1 = 0;
    float d1 = 0, dmin1 = 0;
    bytes_q45_k(p, &s0, &m0);
    if (n > 8) {
        bytes_q45_k(p + size, &s1, &m1);
        d1 = load_half(p + size);
        dmin1 = -load_half(p + size + 2);
    }
    *min = bytes_times(m0, m1, -load_half(p + 2), dmin1);
    return bytes_times(s0, s1, load_half(p), d1);
}

static inline vf scales_q6_k(const uint8_t *p, vf *min) {
    __m512i i = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + 192)));
    vf s = vf_mul(_mm512_cvtepi32_ps(i), vf_set1(load_half(p + 208)));
    *min = vf_mul(s, vf_set1(-32.0f));
    return s;
}

/* n <= 16 canonical groups of 32 out of stored groups of 32, 64 or 128 */
static inline vf scales_affine(const fa_weight *w, const uint8_t *p, int n) {
    const int shift = w->group == 32 ? 0 : w->group == 64 ? 1 : 2;
    const __mmask16 have = first_n(n >> shift);
    vf v;
    if (w->scale_dtype == FA_F32) {
        v = _mm512_maskz_loadu_ps(have, p);
    } else {
        __m256i h = _mm256_maskz_loadu_epi16(have, p);
        v = w->scale_dtype == FA_F16 ? _mm512_cvtph_ps(h)
                                     : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
    }
    return _mm512_permutexvar_ps(
        _mm512_srl_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm_cvtsi32_si128(shift)),
        v);
}

/* Scales and mins of n <= 16 groups of row r from group u on (a multiple of 16), 0 in the lanes after them. */
INLINE vf row_scales(const int kind, const fa_weight *w, int64_t r, int64_t u, int n, vf *min) {
    const uint8_t *p = w->codes + (size_t)r * w->row_bytes;
    switch (kind) {
    case ROW_Q8_0: return scales_blocks(p + u * 34, 34, 128, n, min);
    case ROW_Q4_0: return scales_blocks(p + u * 18, 18, 8, n, min);
    case ROW_Q4_1: return scales_blocks(p + u * 20, 20, 0, n, min);
    case ROW_Q5_0: return scales_blocks(p + u * 22, 22, 16, n, min);
    case ROW_Q5_1: return scales_blocks(p + u * 24, 24, 0, n, min);
    case ROW_Q4_K: return scales_q45_k(p + u / 8 * 144, 144, n, min);
    case ROW_Q5_K: return scales_q45_k(p + u / 8 * 176, 176, n, min);
    case ROW_Q6_K: return scales_q6_k(p + u / 16 * 210, min);
    default: {
        const size_t size = w->scale_dtype == FA_F32 ? 4 : 2,
                     at = (size_t)r * w->scale_row_bytes + (size_t)(u * 32 / w->group) * size;
        *min = scales_affine(w, w->biases + at, n);
        return scales_affine(w, w->scales + at, n);
    }
    }
}

/* ---- panels: up to 16 rows at once, lanes are rows; lanes after the last row repeat it ---- */

typedef struct panel_rows {
    const uint8_t *p[16];
    size_t ahead; /* from there to the codes that come next: 64 bytes of them are asked for per 64 codes */
} panel_rows;

/* 64 codes at p + at, the j-th 64 of 256, to 16 vectors of four codes per row, nr rows apart */
INLINE void panel_64(const int kind, const int super, const panel_rows *rows, size_t at, const int j, uint8_t *out,
                     int64_t nr) {
    __m512i v[16];
    for (int i = 0; i < 16; i++) {
        __builtin_prefetch((const void *)((uintptr_t)rows->p[i] + at + rows->ahead + (size_t)(j * (super / 4))), 0, 2);
        v[i] = row_codes(kind, rows->p[i] + at, j);
    }
    transpose16(v);
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + i * nr * 4, v[i]);
}

/* Codes [k0, k1) of rows [r, r + n); k0 is a multiple of 256. */
INLINE void panel_codes(const int kind, const int super, const fa_weight *w, int64_t r, int n, int64_t k0, int64_t k1,
                        int next, uint8_t *out, int64_t nr) {
    panel_rows rows;
    for (int i = 0; i < 16; i++)
        rows.p[i] = w->codes + (size_t)(r + (i < n ? i : n - 1)) * w->row_bytes + (size_t)(k0 / 256) * (size_t)super;
    const size_t here = (size_t)(k0 / 256) * (size_t)super, size = (size_t)((k1 - k0) / 256) * (size_t)super;
    rows.ahead = k1 < w->cols ? size : (size_t)next * w->row_bytes - here;
    size_t at = 0;
    int64_t k = k0;
    for (; k + 256 <= k1; k += 256, at += (size_t)super, out += 256 * nr) {
        panel_64(kind, super, &rows, at, 0, out, nr);
        panel_64(kind, super, &rows, at, 1, out + 64 * nr, nr);
        panel_64(kind, super, &rows, at, 2, out + 128 * nr, nr);
        panel_64(kind, super, &rows, at, 3, out + 192 * nr, nr);
    }
    for (int j = 0; k < k1; k += 64, j++, out += 64 * nr) panel_64(kind, super, &rows, at, j, out, nr);
}

/* The same of a paired kind, k0 a multiple of 256 and what is left of K one of 64: a vector is four even columns of
 * eight, the next the odd ones. Eight codes a lane are turned around before they are taken apart. */
INLINE void panel_pairs(const int kind, const int super, const fa_weight *w, int64_t r, int n, int64_t k0, int64_t k1,
                        int next, uint8_t *out, int64_t nr) {
    const uint8_t *p[16];
    (void)kind, (void)super;
    for (int i = 0; i < 16; i++) p[i] = w->codes + (size_t)(r + (i < n ? i : n - 1)) * w->row_bytes + (size_t)k0 / 2;
    const size_t ahead = k1 < w->cols ? (size_t)(k1 - k0) / 2 : (size_t)next * w->row_bytes - (size_t)k0 / 2;
    for (int64_t k = k0; k < k1; k += 128) {
        const int vectors = k1 - k < 128 ? 8 : 16;
        __m512i v[16];
        for (int i = 0; i < 16; i++, p[i - 1] += 64) {
            __builtin_prefetch((const void *)((uintptr_t)p[i] + ahead), 0, 2);
            v[i] = vectors == 16 ? vi_load(p[i]) : _mm512_castsi256_si512(load32(p[i]));
        }
        transpose16(v);
        for (int i = 0; i < vectors; i++, out += 8 * nr) {
            _mm512_storeu_si512(out, low_nibbles(v[i]));
            _mm512_storeu_si512(out + 4 * nr, low_nibbles(_mm512_srli_epi16(v[i], 4)));
        }
    }
}

/* The activations that go with them: of every eight columns the even ones, then the odd ones. K is a multiple of 64. */
static inline void split_eights(const int8_t *q, int64_t K, int8_t *out) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    for (int64_t k = 0; k < K; k += 64)
        _mm512_storeu_si512(out + k, _mm512_shuffle_epi8(_mm512_loadu_si512(q + k), order));
}

/* Scales and mins of groups [u0, u1) of the same rows, u0 a multiple of 16: vectors of one group, nr rows apart */
INLINE void panel_scales(const int kind, const fa_weight *w, int64_t r, int rows, int64_t u0, int64_t u1, float *scale,
                         float *min, int64_t nr) {
    for (int64_t u = u0; u < u1; u += 16) {
        const int n = u1 - u < 16 ? (int)(u1 - u) : 16;
        __m512i s[16], m[16];
        for (int i = 0; i < 16; i++) {
            vf low;
            s[i] = vf_bits(row_scales(kind, w, r + (i < rows ? i : rows - 1), u, n, &low));
            m[i] = vf_bits(low);
        }
        transpose16(s);
        transpose16(m);
        for (int i = 0; i < n; i++) {
            _mm512_storeu_si512(scale + (u - u0 + i) * nr, s[i]);
            _mm512_storeu_si512(min + (u - u0 + i) * nr, m[i]);
        }
    }
}

#endif
