/* Weight rows decoded straight into 256-bit registers, for products with few input rows: the avx2 and avxvnni twin of
 * kern_x86_avx512_rows.h, for the formats that files mostly have. Included by kern_body_linear.h after its rows; gives
 * it DECODED_KINDS, decoded_kind and decoded_rows. Scales are those of the unpack kernels.
 *
 * Columns go in steps of 64, which are two vectors of codes. Of nibbles whose neighbours share a byte (mlx) the two are
 * the even and the odd columns; one sum takes both, and the activations are put into that order once per call. */
#ifndef FA_CPU_KERN_BODY_ROWS256_H
#define FA_CPU_KERN_BODY_ROWS256_H

#include "backend/cpu/kern_unpack_x86.h"

/* X(kind, bytes per 64 columns) */
#define DECODED_KINDS(X)                                                                                               \
    X(DIRECT_AFFINE4, 32)                                                                                              \
    X(DIRECT_AFFINE8, 64)                                                                                              \
    X(DIRECT_Q4_0, 36)                                                                                                 \
    X(DIRECT_Q8_0, 68)                                                                                                 \
    X(DIRECT_Q4_K, 32)

enum {
#define KIND_NAME(kind, bytes) kind,
    DECODED_KINDS(KIND_NAME)
#undef KIND_NAME
        DIRECT_NONE
};

static int decoded_kind(const fa_weight *w) {
    if (w->cols % 64) return DIRECT_NONE;
    switch (w->fmt) {
    case FA_FMT_AFFINE: return w->bits == 4 ? DIRECT_AFFINE4 : w->bits == 8 ? DIRECT_AFFINE8 : DIRECT_NONE;
    case FA_FMT_Q4_0: return DIRECT_Q4_0;
    case FA_FMT_Q8_0: return DIRECT_Q8_0;
    case FA_FMT_Q4_K: return DIRECT_Q4_K;
    default: return DIRECT_NONE;
    }
}

INLINE void direct_blocks(const uint8_t *p, int64_t n, const size_t bytes, const float factor, float *scale,
                          float *min) {
    for (; n >= 8; n -= 8, p += 8 * bytes, scale += 8, min += 8) block_scales8(p, bytes, factor, scale, min);
    for (; n > 0; n--, p += bytes, scale++, min++) block_scale1(p, factor, scale, min);
}

/* Scales and mins of row r by groups of 32 */
INLINE void direct_scales(const int kind, const fa_weight *w, int64_t r, const qrow *b) {
    const uint8_t *p = w->codes + (size_t)r * w->row_bytes;
    switch (kind) {
    case DIRECT_Q4_0: direct_blocks(p, w->cols / 32, 18, -8.0f, b->scale, b->min); break;
    case DIRECT_Q8_0: direct_blocks(p, w->cols / 32, 34, -128.0f, b->scale, b->min); break;
    case DIRECT_Q4_K:
        for (int64_t i = 0; i < w->cols / 256; i++) q45_scales(p + 144 * i, b->scale + 8 * i, b->min + 8 * i);
        break;
    default: affine_plane(w, w->scales, r, b->scale); affine_plane(w, w->biases, r, b->min);
    }
}

INLINE bool direct_paired(const int kind) { return kind == DIRECT_AFFINE4; }

/* Codes above 127, where the byte product does not take them: they come 128 lower, as signed bytes. */
INLINE bool direct_wide(const int kind) { return !WIDE_CODES && (kind == DIRECT_AFFINE8 || kind == DIRECT_Q8_0); }

INLINE vi low_nibbles(vi v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE vi high_nibbles(vi v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }
INLINE vi halves_nibbles(const uint8_t *p) { /* the low nibbles of 16 bytes, then the high ones */
    const __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
    return low_nibbles(_mm256_srlv_epi64(v, _mm256_setr_epi64x(0, 0, 4, 4)));
}

/* The two vectors of the 64 columns at p */
INLINE void direct_codes(const int kind, const uint8_t *p, vi *a, vi *b) {
    switch (kind) {
    case DIRECT_Q4_0:
        *a = halves_nibbles(p + 2);
        *b = halves_nibbles(p + 20);
        return;
    case DIRECT_Q8_0: /* stored signed */
        *a = WIDE_CODES ? vi_flip(vi_load(p + 2)) : vi_load(p + 2);
        *b = WIDE_CODES ? vi_flip(vi_load(p + 36)) : vi_load(p + 36);
        return;
    case DIRECT_AFFINE8:
        *a = WIDE_CODES ? vi_load(p) : vi_flip(vi_load(p));
        *b = WIDE_CODES ? vi_load(p + 32) : vi_flip(vi_load(p + 32));
        return;
    default: {
        const vi v = vi_load(p);
        *a = low_nibbles(v);
        *b = high_nibbles(v);
    }
    }
}

/* acc[i], odd[i] += 64 columns from k on */
INLINE void direct_64(const int MR, const int kind, const uint8_t *p, const qrow *b, const int8_t *q, int64_t ldq,
                      int64_t k, vf *acc, vf *odd) {
    const bool wide = direct_wide(kind);
    vi v0, v1;
    direct_codes(kind, p, &v0, &v1);
    for (int i = 0; i < MR; i++) {
        const int8_t *x = q + i * ldq + k;
        const float *prod = b->prod + i * b->ld + k / 32;
        if (direct_paired(kind)) {
            const vi c = vi_dp2(v0, vi_load(x), v1, vi_load(x + 32));
            acc[i] = vf_fma(vf_cvt(c), vf_spread(prod, 16), acc[i]);
            continue;
        }
        acc[i] = vf_fma(vf_cvt(dp(wide, vi_zero(), v0, vi_load(x))), vf_set1(prod[0]), acc[i]);
        odd[i] = vf_fma(vf_cvt(dp(wide, vi_zero(), v1, vi_load(x + 32))), vf_set1(prod[1]), odd[i]);
    }
}

/* out[i] = row times input row m + i; scales are in b */
INLINE void direct_dot(const int MR, const int kind, const int bytes, const uint8_t *p, const qrow *b, const fa_act *x,
                       int64_t m, float *out) {
    const int64_t K = x->K;
    const int8_t *q = (direct_paired(kind) ? b->split : x->q) + m * K;
    vf acc[4], odd[4];
    qrow_scales(MR, direct_wide(kind), 32, b, x, m, acc);
    for (int i = 0; i < MR; i++) odd[i] = vf_zero();
    int64_t k = 0;
    if (kind == DIRECT_Q4_K) p += 16;
    for (; k + 128 <= K; k += 128, p += 2 * bytes) {
        __builtin_prefetch(p + AHEAD);
        if (bytes > 32) __builtin_prefetch(p + AHEAD + 64);
        direct_64(MR, kind, p, b, q, K, k, acc, odd);
        direct_64(MR, kind, p + bytes, b, q, K, k + 64, direct_paired(kind) ? odd : acc, odd);
        if (kind == DIRECT_Q4_K && k % 256) p += 16;
    }
    if (k < K) direct_64(MR, kind, p, b, q, K, k, acc, odd);
    for (int i = 0; i < MR; i++) out[i] = vf_sum(vf_add(acc[i], odd[i]));
}

/* Of every 64 columns the even ones, then the odd ones */
static void split_columns(const int8_t *q, int64_t K, int8_t *out) {
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    for (int64_t k = 0; k < K; k += 64) {
        const __m256i a = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(vi_load(q + k), order), 0xD8),
                      b = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(vi_load(q + k + 32), order), 0xD8);
        _mm256_storeu_si256((__m256i *)(void *)(out + k), _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_storeu_si256((__m256i *)(void *)(out + k + 32), _mm256_permute2x128_si256(a, b, 0x31));
    }
}

/* Weight, buffers and activations come as copies: the compiler then knows that no store changes them. */
INLINE void decoded_rows(const int kind, const int bytes, const fa_weight w, int64_t r0, int64_t r1, const qrow b,
                         const fa_act x, float *y, int64_t ldy, bool add) {
    float out[4];
    for (int64_t m = 0; direct_paired(kind) && m < x.M; m++) split_columns(x.q + m * x.K, x.K, b.split + m * x.K);
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *p = w.codes + (size_t)r * w.row_bytes;
        direct_scales(kind, &w, r, &b);
        int n = 0;
        for (int64_t m = 0; m < x.M; m += n) {
            n = x.M - m >= 4 ? 4 : x.M - m >= 2 ? 2 : 1;
            if (n == 4)
                direct_dot(4, kind, bytes, p, &b, &x, m, out);
            else if (n == 2)
                direct_dot(2, kind, bytes, p, &b, &x, m, out);
            else
                direct_dot(1, kind, bytes, p, &b, &x, m, out);
            qrow_put(n, out, y + m * ldy + r, ldy, add);
        }
    }
}

#endif
