/* Unpack with 512-bit vectors (F, BW, DQ, VL): 64 codes at a time, scales as in kern_unpack_x86.h. Source bytes start
 * anywhere; nothing past the end of a row is read. A last odd half vector of 32 codes is written as 64 where the format
 * has blocks: outputs are padded. */
#include "backend/cpu/kern_unpack_x86.h"

INLINE void store64(uint8_t *out, __m512i v) { _mm512_storeu_si512(out, v); }
/* 16 bytes in every lane of 128 bits, 32 bytes in both halves. */
INLINE __m512i both32(const uint8_t *p) { return _mm512_broadcast_i64x4(load32(p)); }
INLINE __m512i low_nibbles(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
/* Shifts the lower and the upper 256 bits by different counts; bits that cross bytes are for the caller to mask. */
INLINE __m512i srl_halves(__m512i v, const int lo, const int hi) {
    return _mm512_srlv_epi64(v, _mm512_setr_epi64(lo, lo, lo, lo, hi, hi, hi, hi));
}

/* --- blocks of 32: two blocks make a vector --- */

typedef __m512i (*pair_fn)(const uint8_t *a, const uint8_t *b);

/* Nibbles of two blocks: low half of a lane pair from the low nibbles, high half from the high ones. */
INLINE __m512i nibble_pair(const uint8_t *a, const uint8_t *b) {
    const __m512i v = _mm512_mask_broadcast_i64x2(_mm512_broadcast_i64x2(load16(a)), 0xF0, load16(b));
    return low_nibbles(_mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)));
}

/* Bit 4 from 32 stored bits per block. */
INLINE __m512i fifth_bit(__m512i v, const uint8_t *a, const uint8_t *b) {
    const uint64_t bits = (uint32_t)load_i32(a) | (uint64_t)(uint32_t)load_i32(b) << 32;
    return _mm512_mask_add_epi8(v, _cvtu64_mask64(bits), v, _mm512_set1_epi8(16));
}

INLINE __m512i pair_q4_0(const uint8_t *a, const uint8_t *b) { return nibble_pair(a + 2, b + 2); }
INLINE __m512i pair_q4_1(const uint8_t *a, const uint8_t *b) { return nibble_pair(a + 4, b + 4); }
INLINE __m512i pair_q5_0(const uint8_t *a, const uint8_t *b) {
    return fifth_bit(nibble_pair(a + 6, b + 6), a + 2, b + 2);
}
INLINE __m512i pair_q5_1(const uint8_t *a, const uint8_t *b) {
    return fifth_bit(nibble_pair(a + 8, b + 8), a + 4, b + 4);
}
INLINE __m512i pair_q8_0(const uint8_t *a, const uint8_t *b) {
    const __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(load32(a + 2)), load32(b + 2), 1);
    return _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80));
}

INLINE void block_row(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min, const size_t bytes,
                      const float factor, const pair_fn pair) {
    const uint8_t *p = row_codes(w, row);
    int64_t n = w->cols / 32;
    for (; n >= 8; n -= 8, p += 8 * bytes, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 8 * bytes);
        block_scales8(p, bytes, factor, scale, min);
        store64(codes, pair(p, p + bytes));
        store64(codes + 64, pair(p + 2 * bytes, p + 3 * bytes));
        store64(codes + 128, pair(p + 4 * bytes, p + 5 * bytes));
        store64(codes + 192, pair(p + 6 * bytes, p + 7 * bytes));
    }
    for (; n > 0; n -= 2, p += 2 * bytes, codes += 64, scale += 2, min += 2) {
        const uint8_t *second = n > 1 ? p + bytes : p;
        block_scale1(p, factor, scale, min);
        if (n > 1) block_scale1(second, factor, scale + 1, min + 1);
        store64(codes, pair(p, second));
    }
}

#define BLOCK_FORMAT(f, bytes, factor)                                                                                 \
    static void unpack_##f(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {                \
        block_row(w, row, codes, scale, min, bytes, factor, pair_##f);                                                 \
    }
BLOCK_FORMAT(q4_0, 18, -8.0f)
BLOCK_FORMAT(q4_1, 20, 0)
BLOCK_FORMAT(q5_0, 22, -16.0f)
BLOCK_FORMAT(q5_1, 24, 0)
BLOCK_FORMAT(q8_0, 34, -128.0f)

/* --- blocks of 256 --- */

/* A half-word in all lanes as floats. */
INLINE __m512 half_all16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)load_u16(p))); }

/* 16 signed group scales; min = factor * scale. */
INLINE void signed_scales(__m512 d, __m128i s, const float factor, float *scale, float *min) {
    const __m512 v = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(s)));
    _mm512_storeu_ps(scale, v);
    _mm512_storeu_ps(min, _mm512_mul_ps(_mm512_set1_ps(factor), v));
}

/* 8 scales, then 8 mins, as bytes; p: the block, which begins with d and dmin. */
INLINE void q45_floats(const uint8_t *p, float *scale, float *min) {
    const __m128i h = load16(p), bytes = q45_scale_bytes(h);
    const __m512i pick = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i sign = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(INT32_MIN), 1);
    const __m512 d = _mm512_permutexvar_ps(pick, _mm512_castps128_ps512(_mm_cvtph_ps(h)));
    const __m512 v = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
    const __m512 r = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), sign));
    _mm256_storeu_ps(scale, _mm512_castps512_ps256(r));
    _mm256_storeu_ps(min, _mm512_extractf32x8_ps(r, 1));
}

INLINE void q2_floats(const uint8_t *p, float *scale, float *min) {
    const __m128i h = load16(p), low = _mm_set1_epi8(15);
    const __m512i s = _mm512_cvtepu8_epi32(_mm_and_si128(h, low));
    const __m512i m = _mm512_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16(h, 4), low));
    _mm512_storeu_ps(scale, _mm512_mul_ps(half_all16(p + 80), _mm512_cvtepi32_ps(s)));
    const __m512 v = _mm512_mul_ps(half_all16(p + 82), _mm512_cvtepi32_ps(m));
    _mm512_storeu_ps(min, _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)));
}

static void unpack_q4_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 144, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 144);
        q45_floats(p, scale, min);
        for (int q = 0; q < 4; q++) store64(codes + 64 * q, low_nibbles(srl_halves(both32(p + 16 + 32 * q), 0, 4)));
    }
}

/* A vector with bit `lo` in the bytes of its lower half and bit `hi` in those of its upper half. */
INLINE __m512i bit_halves(const int lo, const int hi) {
    return _mm512_inserti64x4(_mm512_set1_epi8((char)(1 << lo)), _mm256_set1_epi8((char)(1 << hi)), 1);
}

static void unpack_q5_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    const __m512i sixteen = _mm512_set1_epi8(16);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 176, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 176);
        const __m512i high = both32(p + 16);
        q45_floats(p, scale, min);
#define QUARTER(q)                                                                                                     \
    do {                                                                                                               \
        const __m512i v = low_nibbles(srl_halves(both32(p + 48 + 32 * (q)), 0, 4));                                    \
        const __mmask64 set = _mm512_test_epi8_mask(high, bit_halves(2 * (q), 2 * (q) + 1));                           \
        store64(codes + 64 * (q), _mm512_mask_add_epi8(v, set, v, sixteen));                                           \
    } while (0)
        QUARTER(0);
        QUARTER(1);
        QUARTER(2);
        QUARTER(3);
#undef QUARTER
    }
}

/* Nibbles from a, the two bits above them from b (which has them in place). */
INLINE __m512i six_bits(__m512i a, __m512i b) {
    const __m512i v = _mm512_ternarylogic_epi64(_mm512_set1_epi8(15), a, b, 0xCA); /* mask ? a : b */
    return _mm512_and_si512(v, _mm512_set1_epi8(63));
}

static void unpack_q6_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    const __m512i up = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 210, codes += 256, scale += 16, min += 16) {
        prefetch_ahead(p, 210);
        signed_scales(half_all16(p + 208), load16(p + 192), -32.0f, scale, min);
        for (int h = 0; h < 2; h++) {
            const __m512i low = _mm512_loadu_si512(p + 64 * h), high = both32(p + 128 + 32 * h);
            store64(codes + 128 * h, six_bits(low, _mm512_sllv_epi64(high, up)));
            store64(codes + 128 * h + 64, six_bits(_mm512_srli_epi16(low, 4), srl_halves(high, 0, 2)));
        }
    }
}

INLINE __m512i two_bits(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(3)); }

static void unpack_q2_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 84, codes += 256, scale += 16, min += 16) {
        prefetch_ahead(p, 84);
        q2_floats(p, scale, min);
        for (int h = 0; h < 2; h++) {
            const __m512i v = both32(p + 16 + 32 * h);
            store64(codes + 128 * h, two_bits(srl_halves(v, 0, 2)));
            store64(codes + 128 * h + 64, two_bits(srl_halves(v, 4, 6)));
        }
    }
}

static void unpack_q3_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    const __m512i four = _mm512_set1_epi8(4);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 110, codes += 256, scale += 16, min += 16) {
        prefetch_ahead(p, 110);
        const __m512i high = both32(p), v0 = both32(p + 32), v1 = both32(p + 64);
        signed_scales(half_all16(p + 108), q3_scale_bytes(p), -4.0f, scale, min);
#define QUARTER(q, v, lo, hi)                                                                                          \
    do {                                                                                                               \
        const __m512i low = two_bits(srl_halves(v, lo, hi));                                                           \
        const __mmask64 set = _mm512_test_epi8_mask(high, bit_halves(2 * (q), 2 * (q) + 1));                           \
        store64(codes + 64 * (q), _mm512_mask_add_epi8(low, set, low, four));                                          \
    } while (0)
        QUARTER(0, v0, 0, 2);
        QUARTER(1, v0, 4, 6);
        QUARTER(2, v1, 0, 2);
        QUARTER(3, v1, 4, 6);
#undef QUARTER
    }
}

/* --- bit streams (affine, mxfp4): n codes, a multiple of 32 --- */

/* 32 bytes of nibbles to 64 codes in order: byte b becomes the bytes b & 15, b >> 4. */
INLINE __m512i spread4(__m256i v) {
    const __m512i x = _mm512_cvtepu8_epi16(v);
    return _mm512_ternarylogic_epi64(x, _mm512_slli_epi16(x, 4), _mm512_set1_epi8(15), 0xA8); /* (x | y) & mask */
}

INLINE void stream4(const uint8_t *p, int64_t n, uint8_t *out) {
    for (; n >= 128; n -= 128, p += 64, out += 128) {
        prefetch_ahead(p, 64);
        store64(out, spread4(load32(p)));
        store64(out + 64, spread4(load32(p + 32)));
    }
    for (; n >= 64; n -= 64, p += 32, out += 64) store64(out, spread4(load32(p)));
    if (n) store64(out, spread4(_mm256_castsi128_si256(load16(p))));
}

static void stream8(const uint8_t *p, int64_t n, uint8_t *out) {
    for (; n >= 64; n -= 64, p += 64, out += 64) {
        prefetch_ahead(p, 64);
        store64(out, _mm512_loadu_si512(p));
    }
    if (n) store64(out, _mm512_castsi256_si512(load32(p)));
}

/* 16 bytes to 64 codes: a byte in a 32-bit lane, copied 6, 12 and 18 bits up. */
INLINE __m512i spread2(__m128i v) {
    __m512i x = _mm512_cvtepu8_epi32(v);
    x = _mm512_or_si512(x, _mm512_slli_epi32(x, 12));
    return _mm512_ternarylogic_epi64(x, _mm512_slli_epi32(x, 6), _mm512_set1_epi8(3), 0xA8);
}

static void stream2(const uint8_t *p, int64_t n, uint8_t *out) {
    for (; n >= 64; n -= 64, p += 16, out += 64) {
        prefetch_ahead(p, 16);
        store64(out, spread2(load16(p)));
    }
    if (n) store64(out, spread2(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* 3, 5 and 6 bits. A 128-bit lane makes 16 codes from 2 * bits bytes, a 16-bit lane two codes from its own 16-bit
 * window. */
#define WINDOW(bits, j) (char)((2 * (bits) * (j)) / 8), (char)((2 * (bits) * (j)) / 8 + 1)
#define SHIFT(bits, j)  (short)((2 * (bits) * (j)) % 8)
typedef struct stream_tables {
    __m512i lane, window, shift, low, high;
} stream_tables;

INLINE stream_tables tables_of(const int bits) {
    const __m512i lane0 = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7));
    const int s = bits * 0x10001;
    stream_tables t;
    t.lane = _mm512_add_epi16(
        lane0, _mm512_setr_epi32(0, 0, 0, 0, s, s, s, s, 2 * s, 2 * s, 2 * s, 2 * s, 3 * s, 3 * s, 3 * s, 3 * s));
    t.window =
        _mm512_broadcast_i32x4(_mm_setr_epi8(WINDOW(bits, 0), WINDOW(bits, 1), WINDOW(bits, 2), WINDOW(bits, 3),
                                             WINDOW(bits, 4), WINDOW(bits, 5), WINDOW(bits, 6), WINDOW(bits, 7)));
    t.shift = _mm512_broadcast_i32x4(_mm_setr_epi16(SHIFT(bits, 0), SHIFT(bits, 1), SHIFT(bits, 2), SHIFT(bits, 3),
                                                    SHIFT(bits, 4), SHIFT(bits, 5), SHIFT(bits, 6), SHIFT(bits, 7)));
    t.low = _mm512_set1_epi16((short)((1 << bits) - 1));
    t.high = _mm512_set1_epi8((char)((1 << bits) - 1));
    return t;
}

INLINE __m512i spread_odd(const uint8_t *p, __mmask64 have, const stream_tables *t, const int bits) {
    __m512i v = _mm512_permutexvar_epi16(t->lane, _mm512_maskz_loadu_epi8(have, p));
    v = _mm512_srlv_epi16(_mm512_shuffle_epi8(v, t->window), t->shift);
    const __m512i second = _mm512_slli_epi16(v, (unsigned)(8 - bits));
    /* low mask ? v : second, then the bits of a code */
    return _mm512_and_si512(_mm512_ternarylogic_epi64(t->low, v, second, 0xCA), t->high);
}

INLINE void stream_odd(const uint8_t *p, int64_t n, uint8_t *out, const int bits) {
    const stream_tables t = tables_of(bits);
    const __mmask64 full = (UINT64_C(1) << (8 * bits)) - 1, half = (UINT64_C(1) << (4 * bits)) - 1;
    for (; n >= 64; n -= 64, p += 8 * bits, out += 64) {
        prefetch_ahead(p, 8 * (size_t)bits);
        store64(out, spread_odd(p, full, &t, bits));
    }
    if (n) store64(out, spread_odd(p, half, &t, bits));
}

static void unpack_affine(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    switch (w->bits) {
    case 2: stream2(p, w->cols, codes); break;
    case 3: stream_odd(p, w->cols, codes, 3); break;
    case 4: stream4(p, w->cols, codes); break;
    case 5: stream_odd(p, w->cols, codes, 5); break;
    case 6: stream_odd(p, w->cols, codes, 6); break;
    default: stream8(p, w->cols, codes); break;
    }
    affine_plane(w, w->scales, row, scale);
    affine_plane(w, w->biases, row, min);
}

static void unpack_mxfp4(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const __m512i code_of =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const uint8_t *p = row_codes(w, row);
    int64_t n = w->cols;
    for (; n >= 64; n -= 64, p += 32, codes += 64) {
        prefetch_ahead(p, 32);
        store64(codes, _mm512_shuffle_epi8(code_of, spread4(load32(p))));
    }
    if (n) store64(codes, _mm512_shuffle_epi8(code_of, spread4(_mm256_castsi128_si256(load16(p)))));
    mxfp4_scales(w, row, scale, min);
}

void fa_kern_unpack_init_avx512(fa_kernels *k) {
    k->unpack[FA_FMT_AFFINE] = unpack_affine;
    k->unpack[FA_FMT_MXFP4] = unpack_mxfp4;
    k->unpack[FA_FMT_Q4_0] = unpack_q4_0;
    k->unpack[FA_FMT_Q4_1] = unpack_q4_1;
    k->unpack[FA_FMT_Q5_0] = unpack_q5_0;
    k->unpack[FA_FMT_Q5_1] = unpack_q5_1;
    k->unpack[FA_FMT_Q8_0] = unpack_q8_0;
    k->unpack[FA_FMT_Q2_K] = unpack_q2_k;
    k->unpack[FA_FMT_Q3_K] = unpack_q3_k;
    k->unpack[FA_FMT_Q4_K] = unpack_q4_k;
    k->unpack[FA_FMT_Q5_K] = unpack_q5_k;
    k->unpack[FA_FMT_Q6_K] = unpack_q6_k;
}
