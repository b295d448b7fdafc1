/* Unpack with 256-bit vectors (AVX2, F16C): 32 codes at a time, scales as in kern_unpack_x86.h. Source bytes start
 * anywhere; nothing past the end of a row is read or written. */
#include "backend/cpu/kern_unpack_x86.h"

INLINE void store32(uint8_t *out, __m256i v) { _mm256_storeu_si256((__m256i *)(void *)out, v); }
INLINE __m256i masked(__m256i v, const int mask) { return _mm256_and_si256(v, _mm256_set1_epi8((char)mask)); }

/* --- blocks of 32 --- */

typedef __m256i (*block_fn)(const uint8_t *p);

INLINE __m256i nibbles(const uint8_t *p) {
    const __m256i v = _mm256_broadcastsi128_si256(load16(p));
    return masked(_mm256_srlv_epi64(v, _mm256_setr_epi64x(0, 0, 4, 4)), 15);
}

/* 16 in every byte whose stored bit is set. */
INLINE __m256i fifth_bit(const uint8_t *p) {
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(load_i32(p)), byte), bit);
    return masked(_mm256_cmpeq_epi8(v, bit), 16);
}

INLINE __m256i block_q4_0(const uint8_t *p) { return nibbles(p + 2); }
INLINE __m256i block_q4_1(const uint8_t *p) { return nibbles(p + 4); }
INLINE __m256i block_q5_0(const uint8_t *p) { return _mm256_or_si256(nibbles(p + 6), fifth_bit(p + 2)); }
INLINE __m256i block_q5_1(const uint8_t *p) { return _mm256_or_si256(nibbles(p + 8), fifth_bit(p + 4)); }
INLINE __m256i block_q8_0(const uint8_t *p) { return _mm256_xor_si256(load32(p + 2), _mm256_set1_epi8((char)0x80)); }

/* Values of a table of 16 bytes at 16 bytes of nibbles. */
INLINE __m256i table_nibbles(const uint8_t *p, const __m128i table) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles(p));
}
INLINE __m128i iq4_table(void) {
    return _mm_setr_epi8(0, 23, 44, 62, 78, 92, 105, 117, (char)128, (char)140, (char)152, (char)165, (char)180,
                         (char)196, (char)216, (char)240);
}
INLINE __m128i e2m1_table(void) { return _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0); }
INLINE __m256i block_iq4_nl(const uint8_t *p) { return table_nibbles(p + 2, iq4_table()); }

INLINE void block_row(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min, const size_t bytes,
                      const float factor, const block_fn block) {
    const uint8_t *p = row_codes(w, row);
    int64_t n = w->cols / 32;
    for (; n >= 8; n -= 8, p += 8 * bytes, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 8 * bytes);
        block_scales8(p, bytes, factor, scale, min);
        store32(codes, block(p));
        store32(codes + 32, block(p + bytes));
        store32(codes + 64, block(p + 2 * bytes));
        store32(codes + 96, block(p + 3 * bytes));
        store32(codes + 128, block(p + 4 * bytes));
        store32(codes + 160, block(p + 5 * bytes));
        store32(codes + 192, block(p + 6 * bytes));
        store32(codes + 224, block(p + 7 * bytes));
    }
    for (; n > 0; n--, p += bytes, codes += 32, scale++, min++) {
        block_scale1(p, factor, scale, min);
        store32(codes, block(p));
    }
}

#define BLOCK_FORMAT(f, bytes, factor)                                                                                 \
    static void unpack_##f(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {                \
        block_row(w, row, codes, scale, min, bytes, factor, block_##f);                                                \
    }
BLOCK_FORMAT(q4_0, 18, -8.0f)
BLOCK_FORMAT(q4_1, 20, 0)
BLOCK_FORMAT(q5_0, 22, -16.0f)
BLOCK_FORMAT(q5_1, 24, 0)
BLOCK_FORMAT(q8_0, 34, -128.0f)
BLOCK_FORMAT(iq4_nl, 18, -127.0f)

/* 2^(e - 128); subnormal for 0 and 1, 255 as any other (tensor/qfmt/gguf_iq.h). */
static void unpack_mxfp4_b(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t g = 0; g < w->cols / 32; g++, p += 17) {
        prefetch_ahead(p, 17);
        const uint32_t u = p[0] > 1 ? (uint32_t)(p[0] - 1) << 23 : 0x200000u << p[0];
        memcpy(scale + g, &u, 4);
        min[g] = -12.0f * scale[g];
        store32(codes + 32 * g, table_nibbles(p + 1, e2m1_table()));
    }
}

/* --- blocks of 256 --- */

/* Bits [from, ..) moved to `to`; the caller masks what comes along. */
INLINE __m256i move_bits(__m256i v, const int from, const int to) {
    return from > to ? _mm256_srli_epi16(v, from - to) : _mm256_slli_epi16(v, to - from);
}

static void unpack_q4_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 144, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 144);
        q45_scales(p, scale, min);
        for (int q = 0; q < 4; q++) {
            const __m256i v = load32(p + 16 + 32 * q);
            store32(codes + 64 * q, masked(v, 15));
            store32(codes + 64 * q + 32, masked(_mm256_srli_epi16(v, 4), 15));
        }
    }
}

static void unpack_q5_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 176, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 176);
        const __m256i high = load32(p + 16);
        q45_scales(p, scale, min);
#define QUARTER(q)                                                                                                     \
    do {                                                                                                               \
        const __m256i v = load32(p + 48 + 32 * (q));                                                                   \
        const __m256i h0 = masked(move_bits(high, 2 * (q), 4), 16), h1 = masked(move_bits(high, 2 * (q) + 1, 4), 16);  \
        store32(codes + 64 * (q), _mm256_or_si256(masked(v, 15), h0));                                                 \
        store32(codes + 64 * (q) + 32, _mm256_or_si256(masked(_mm256_srli_epi16(v, 4), 15), h1));                      \
    } while (0)
        QUARTER(0);
        QUARTER(1);
        QUARTER(2);
        QUARTER(3);
#undef QUARTER
    }
}

static void unpack_q6_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 210, codes += 256, scale += 16, min += 16) {
        prefetch_ahead(p, 210);
        q6_scales(p, scale, min);
        for (int h = 0; h < 2; h++) {
            const __m256i a = load32(p + 64 * h), c = load32(p + 64 * h + 32), high = load32(p + 128 + 32 * h);
            uint8_t *out = codes + 128 * h;
            const __m256i a4 = _mm256_srli_epi16(a, 4), c4 = _mm256_srli_epi16(c, 4);
            store32(out, _mm256_or_si256(masked(a, 15), masked(move_bits(high, 0, 4), 48)));
            store32(out + 32, _mm256_or_si256(masked(c, 15), masked(move_bits(high, 2, 4), 48)));
            store32(out + 64, _mm256_or_si256(masked(a4, 15), masked(high, 48)));
            store32(out + 96, _mm256_or_si256(masked(c4, 15), masked(move_bits(high, 6, 4), 48)));
        }
    }
}

static void unpack_q2_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 84, codes += 256, scale += 16, min += 16) {
        prefetch_ahead(p, 84);
        q2_scales(p, scale, min);
        for (int h = 0; h < 2; h++) {
            const __m256i v = load32(p + 16 + 32 * h);
            uint8_t *out = codes + 128 * h;
            store32(out, masked(v, 3));
            store32(out + 32, masked(_mm256_srli_epi16(v, 2), 3));
            store32(out + 64, masked(_mm256_srli_epi16(v, 4), 3));
            store32(out + 96, masked(_mm256_srli_epi16(v, 6), 3));
        }
    }
}

static void unpack_q3_k(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 110, codes += 256, scale += 16, min += 16) {
        prefetch_ahead(p, 110);
        const __m256i high = load32(p), v0 = load32(p + 32), v1 = load32(p + 64);
        q3_scales(p, scale, min);
#define EIGHTH(i, v)                                                                                                   \
    store32(codes + 32 * (i),                                                                                          \
            _mm256_or_si256(masked(move_bits(v, 2 * ((i)&3), 0), 3), masked(move_bits(high, i, 2), 4)))
        EIGHTH(0, v0);
        EIGHTH(1, v0);
        EIGHTH(2, v0);
        EIGHTH(3, v0);
        EIGHTH(4, v1);
        EIGHTH(5, v1);
        EIGHTH(6, v1);
        EIGHTH(7, v1);
#undef EIGHTH
    }
}

static void unpack_iq4_xs(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 136, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 136);
        const __m256i low =
            _mm256_srlv_epi32(_mm256_set1_epi32(load_i32(p + 4)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        const __m256i high =
            _mm256_srlv_epi32(_mm256_set1_epi32(load_u16(p + 2)), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
        const __m256i q = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)),
                                          _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4));
        const __m256 s = _mm256_mul_ps(half_all(p), _mm256_cvtepi32_ps(_mm256_sub_epi32(q, _mm256_set1_epi32(32))));
        _mm256_storeu_ps(scale, s);
        _mm256_storeu_ps(min, _mm256_mul_ps(_mm256_set1_ps(-127.0f), s));
        for (int g = 0; g < 8; g++) store32(codes + 32 * g, table_nibbles(p + 8 + 16 * g, iq4_table()));
    }
}

static void unpack_tq2_0(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const uint8_t *p = row_codes(w, row);
    for (int64_t b = w->cols / 256; b > 0; b--, p += 66, codes += 256, scale += 8, min += 8) {
        prefetch_ahead(p, 66);
        const __m256 d = half_all(p + 64);
        _mm256_storeu_ps(scale, d);
        _mm256_storeu_ps(min, _mm256_mul_ps(_mm256_set1_ps(-1.0f), d));
        for (int h = 0; h < 2; h++) {
            const __m256i v = load32(p + 32 * h);
            store32(codes + 128 * h, masked(v, 3));
            store32(codes + 128 * h + 32, masked(_mm256_srli_epi16(v, 2), 3));
            store32(codes + 128 * h + 64, masked(_mm256_srli_epi16(v, 4), 3));
            store32(codes + 128 * h + 96, masked(_mm256_srli_epi16(v, 6), 3));
        }
    }
}

/* --- bit streams (affine, mxfp4): n codes, a multiple of 32 --- */

/* 16 bytes of nibbles to 32 codes in order: byte b becomes the bytes b & 15, b >> 4. */
INLINE __m256i spread4(const uint8_t *p) {
    const __m256i x = _mm256_cvtepu8_epi16(load16(p));
    return masked(_mm256_or_si256(x, _mm256_slli_epi16(x, 4)), 15);
}

static void stream4(const uint8_t *p, int64_t n, uint8_t *out) {
    for (; n >= 64; n -= 64, p += 32, out += 64) {
        prefetch_ahead(p, 32);
        store32(out, spread4(p));
        store32(out + 32, spread4(p + 16));
    }
    if (n) store32(out, spread4(p));
}

static void stream8(const uint8_t *p, int64_t n, uint8_t *out) {
    for (int64_t k = 0; k < n; k += 32) {
        prefetch_ahead(p + k, 32);
        store32(out + k, load32(p + k));
    }
}

/* A byte in a 32-bit lane, copied 6, 12 and 18 bits up. */
static void stream2(const uint8_t *p, int64_t n, uint8_t *out) {
    for (; n > 0; n -= 32, p += 8, out += 32) {
        prefetch_ahead(p, 8);
        __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
        x = _mm256_or_si256(x, _mm256_slli_epi32(x, 12));
        x = _mm256_or_si256(x, _mm256_slli_epi32(x, 6));
        store32(out, masked(x, 3));
    }
}

/* 3, 5 and 6 bits. A 128-bit lane makes 16 codes from 2 * bits bytes, a 16-bit lane two codes from its own 16-bit
 * window. There is no variable 16-bit shift: a multiplication moves the two codes to the top of the lane. */
#define WINDOW(bits, j) (char)((2 * (bits) * (j)) / 8), (char)((2 * (bits) * (j)) / 8 + 1)
#define FACTOR(bits, j) (short)(1 << (16 - 2 * (bits) - (2 * (bits) * (j)) % 8))

/* Reads 16 bytes from p and from p + 2 * bits. */
INLINE __m256i spread_odd(const uint8_t *p, const int bits) {
    const __m128i window = _mm_setr_epi8(WINDOW(bits, 0), WINDOW(bits, 1), WINDOW(bits, 2), WINDOW(bits, 3),
                                         WINDOW(bits, 4), WINDOW(bits, 5), WINDOW(bits, 6), WINDOW(bits, 7));
    const __m128i factor = _mm_setr_epi16(FACTOR(bits, 0), FACTOR(bits, 1), FACTOR(bits, 2), FACTOR(bits, 3),
                                          FACTOR(bits, 4), FACTOR(bits, 5), FACTOR(bits, 6), FACTOR(bits, 7));
    __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(p)), load16(p + 2 * bits), 1);
    v = _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(window));
    v = _mm256_mullo_epi16(v, _mm256_broadcastsi128_si256(factor));
    const int mask = (1 << bits) - 1;
    const __m256i first = _mm256_and_si256(_mm256_srli_epi16(v, 16 - 2 * bits), _mm256_set1_epi16((short)mask));
    const __m256i second = _mm256_and_si256(_mm256_srli_epi16(v, 8 - bits), _mm256_set1_epi16((short)(mask << 8)));
    return _mm256_or_si256(first, second);
}

/* The last loads would reach past the row: those codes come from a copy. */
INLINE void stream_odd(const uint8_t *p, int64_t n, uint8_t *out, const int bits) {
    const int step = 4 * bits, reach = 2 * bits + 16;
    int64_t left = n / 32 * step;
    for (; left >= reach; left -= step, p += step, out += 32) {
        prefetch_ahead(p, (size_t)step);
        store32(out, spread_odd(p, bits));
    }
    uint8_t rest[64] = {0};
    if (left > 0) memcpy(rest, p, (size_t)left);
    for (int at = 0; at < left; at += step, out += 32) store32(out, spread_odd(rest + at, bits));
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
    const __m256i table = _mm256_broadcastsi128_si256(e2m1_table());
    const uint8_t *p = row_codes(w, row);
    for (int64_t k = 0; k < w->cols; k += 32, p += 16) {
        prefetch_ahead(p, 16);
        store32(codes + k, _mm256_shuffle_epi8(table, spread4(p)));
    }
    mxfp4_scales(w, row, scale, min);
}

/* Rows of a multiple of 16: the last 16 codes may stand alone. */
static void unpack_nvfp4(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const __m256i table = _mm256_broadcastsi128_si256(e2m1_table());
    const uint8_t *p = row_codes(w, row), *s = w->scales + (size_t)row * w->scale_row_bytes;
    int64_t k = 0;
    for (; k + 32 <= w->cols; k += 32, p += 16) {
        prefetch_ahead(p, 16);
        store32(codes + k, _mm256_shuffle_epi8(table, spread4(p)));
    }
    if (k < w->cols) {
        uint8_t rest[16] = {0};
        memcpy(rest, p, 8);
        store32(codes + k, _mm256_shuffle_epi8(table, spread4(rest)));
    }
    fa_to_f32((fa_dtype)w->scale_dtype, s, w->cols / 16, scale);
    for (int64_t g = 0; g < w->cols / 16; g++) {
        scale[g] *= 0.5f;
        min[g] = -12.0f * scale[g];
    }
}

void fa_kern_unpack_init_avx2(fa_kernels *k) {
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
    k->unpack[FA_FMT_NVFP4] = unpack_nvfp4;
    k->unpack[FA_FMT_MXFP4_B] = unpack_mxfp4_b;
    k->unpack[FA_FMT_IQ4_NL] = unpack_iq4_nl;
    k->unpack[FA_FMT_IQ4_XS] = unpack_iq4_xs;
    k->unpack[FA_FMT_TQ2_0] = unpack_tq2_0;
}
