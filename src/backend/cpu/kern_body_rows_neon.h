/* Weight rows multiplied as they are stored, for products with few input rows: nothing of a row goes through memory a
 * second time: the twin of kern_body_rows256.h. Included by kern_body_linear.h, to which it gives DECODED_KINDS,
 * decoded_kind and decoded_rows; formats that are not here go through unpack. Nothing is read past a row.
 *
 * A row is walked in blocks of 256 columns: eight groups of 32 with a scale and a min each, or for Q6_K sixteen of 16.
 * Codes of 8 bits are signed here (code - 128), and the mins make up for it. Codes of affine 4-bit weights come as even
 * and odd columns; split_group puts the activations in that order.
 *
 * With PAIRS and two or more input rows, two weight rows meet two input rows: SMMLA sums [x0 w0, x0 w1, x1 w0, x1 w1],
 * which takes half the products, and a quarter of the conversions and scalings, of one dot product each. */
#ifndef FA_CPU_KERN_BODY_ROWS_NEON_H
#define FA_CPU_KERN_BODY_ROWS_NEON_H

#include "backend/cpu/kern_arm_neon_codes.h"

/* X(kind, bytes of 256 codes) */
#define DECODED_KINDS(X)                                                                                               \
    X(DIRECT_Q8_0, 8 * 34)                                                                                             \
    X(DIRECT_Q4_0, 8 * 18)                                                                                             \
    X(DIRECT_Q4_1, 8 * 20)                                                                                             \
    X(DIRECT_Q5_0, 8 * 22)                                                                                             \
    X(DIRECT_Q5_1, 8 * 24)                                                                                             \
    X(DIRECT_Q4_K, 144)                                                                                                \
    X(DIRECT_Q5_K, 176)                                                                                                \
    X(DIRECT_Q6_K, 210)                                                                                                \
    X(DIRECT_AFFINE4, 128)                                                                                             \
    X(DIRECT_AFFINE8, 256)

enum {
#define KIND_NAME(kind, bytes) kind,
    DECODED_KINDS(KIND_NAME)
#undef KIND_NAME
        DIRECT_NONE
};

INLINE int decoded_kind(const fa_weight *w) {
    switch (w->fmt) {
    case FA_FMT_Q8_0: return DIRECT_Q8_0;
    case FA_FMT_Q4_0: return DIRECT_Q4_0;
    case FA_FMT_Q4_1: return DIRECT_Q4_1;
    case FA_FMT_Q5_0: return DIRECT_Q5_0;
    case FA_FMT_Q5_1: return DIRECT_Q5_1;
    case FA_FMT_Q4_K: return DIRECT_Q4_K;
    case FA_FMT_Q5_K: return DIRECT_Q5_K;
    case FA_FMT_Q6_K: return DIRECT_Q6_K;
    case FA_FMT_AFFINE: return w->bits == 4 ? DIRECT_AFFINE4 : w->bits == 8 ? DIRECT_AFFINE8 : DIRECT_NONE;
    default: return DIRECT_NONE;
    }
}

/* ---- codes and scales ---- */

/* The 32 codes of group g of a block of 256 columns at p */
INLINE void direct_codes(const int kind, const uint8_t *p, const int g, uint8x16_t *a, uint8x16_t *b) {
    const int bytes = kind == DIRECT_Q4_0 ? 18 : kind == DIRECT_Q4_1 ? 20 : kind == DIRECT_Q5_0 ? 22 : 24;
    switch (kind) {
    case DIRECT_Q4_0:
    case DIRECT_Q4_1:
    case DIRECT_Q5_0:
    case DIRECT_Q5_1: {
        const uint8x16_t v = vld1q_u8(p + bytes * (g + 1) - 16);
        *a = low4(v), *b = high4(v);
        if (kind == DIRECT_Q5_0 || kind == DIRECT_Q5_1) {
            *a = vorrq_u8(*a, fifth_bit(p + bytes * (g + 1) - 20));
            *b = vorrq_u8(*b, fifth_bit(p + bytes * (g + 1) - 18));
        }
        break;
    }
    case DIRECT_Q8_0: *a = vld1q_u8(p + 34 * g + 2), *b = vld1q_u8(p + 34 * g + 18); break;
    case DIRECT_Q4_K:
    case DIRECT_Q5_K: {
        const uint8_t *at = p + (kind == DIRECT_Q4_K ? 16 : 48) + 32 * (g / 2);
        *a = vld1q_u8(at), *b = vld1q_u8(at + 16);
        *a = g & 1 ? high4(*a) : low4(*a);
        *b = g & 1 ? high4(*b) : low4(*b);
        if (kind == DIRECT_Q5_K) {
            const uint8x16_t bit = vdupq_n_u8((uint8_t)(1 << g)), four = vdupq_n_u8(16);
            *a = vorrq_u8(*a, vandq_u8(vtstq_u8(vld1q_u8(p + 16), bit), four));
            *b = vorrq_u8(*b, vandq_u8(vtstq_u8(vld1q_u8(p + 32), bit), four));
        }
        break;
    }
    case DIRECT_Q6_K: {
        /* half g / 4 of 128 columns; its planes 0 and 1 are low nibbles, 2 and 3 the high ones of the same bytes */
        const int plane = g & 3;
        const uint8_t *low = p + 64 * (g / 4) + 32 * (plane & 1), *high = p + 128 + 32 * (g / 4);
        const uint8x16_t two = vdupq_n_u8(48);
        uint8x16_t h[2];
        for (int i = 0; i < 2; i++) {
            h[i] = vld1q_u8(high + 16 * i);
            h[i] = plane == 0   ? vshlq_n_u8(h[i], 4)
                   : plane == 1 ? vshlq_n_u8(h[i], 2)
                   : plane == 3 ? vshrq_n_u8(h[i], 2)
                                : h[i];
            h[i] = vandq_u8(h[i], two);
        }
        *a = vld1q_u8(low), *b = vld1q_u8(low + 16);
        *a = vorrq_u8(plane < 2 ? low4(*a) : high4(*a), h[0]);
        *b = vorrq_u8(plane < 2 ? low4(*b) : high4(*b), h[1]);
        break;
    }
    case DIRECT_AFFINE4: {
        const uint8x16_t v = vld1q_u8(p + 16 * g);
        *a = low4(v), *b = high4(v);
        break;
    }
    default: {
        const uint8x16_t flip = vdupq_n_u8(0x80);
        *a = veorq_u8(vld1q_u8(p + 32 * g), flip), *b = veorq_u8(vld1q_u8(p + 32 * g + 16), flip);
    }
    }
}

/* Where the stored scale and min of a group of 32 in a row's blocks lie: bytes of such a block */
INLINE int direct_block(const int kind) {
    return kind == DIRECT_Q8_0   ? 34
           : kind == DIRECT_Q4_0 ? 18
           : kind == DIRECT_Q4_1 ? 20
           : kind == DIRECT_Q5_0 ? 22
           : kind == DIRECT_Q5_1 ? 24
                                 : 0;
}

/* min of formats that store none is this times the scale; 0: they store one, or need none (Q8_0 with signed codes) */
INLINE float direct_factor(const int kind) {
    return kind == DIRECT_Q4_0 ? -8.0f : kind == DIRECT_Q5_0 ? -16.0f : kind == DIRECT_Q6_K ? -32.0f : 0.0f;
}

/* Eight groups of 32 out of stored groups of 32, 64 or 128 */
INLINE void affine_eight(const uint8_t *p, const fa_dtype t, int group, vf *out) {
    if (group == 32) {
        out[0] = scales4(p, t), out[1] = scales4(p + 4 * fa_dtype_size(t), t);
    } else if (group == 64) {
        const vf v = scales4(p, t);
        out[0] = vzip1q_f32(v, v), out[1] = vzip2q_f32(v, v);
    } else {
        uint8_t two[16] = {0};
        memcpy(two, p, 2 * fa_dtype_size(t));
        const vf v = scales4(two, t);
        out[0] = vdupq_laneq_f32(v, 0), out[1] = vdupq_laneq_f32(v, 1);
    }
}

INLINE const uint8_t *affine_at(const fa_weight *w, const uint8_t *plane, int64_t r, int64_t g) {
    return plane + (size_t)r * w->scale_row_bytes +
           (size_t)(g * 32 / w->group) * fa_dtype_size((fa_dtype)w->scale_dtype);
}

/* Scales and mins of the eight groups from g on; p: their block. Q6_K: 16 of them. */
INLINE void direct_scales(const int kind, const fa_weight *w, int64_t r, int64_t g, const uint8_t *p, vf *s, vf *min) {
    const int block = direct_block(kind);
    if (block) {
        for (int i = 0; i < 2; i++) {
            const uint8_t *at = p + 4 * i * block;
            s[i] = halves4(at, (size_t)block);
            min[i] = kind == DIRECT_Q4_1 || kind == DIRECT_Q5_1 ? halves4(at + 2, (size_t)block)
                                                                : vmulq_n_f32(s[i], direct_factor(kind));
        }
    } else if (kind == DIRECT_Q4_K || kind == DIRECT_Q5_K) {
        q45_scales(p, s, min);
    } else if (kind == DIRECT_Q6_K) {
        q6_scales(p, s);
        for (int i = 0; i < 4; i++) min[i] = vmulq_n_f32(s[i], direct_factor(kind));
    } else {
        const fa_dtype t = (fa_dtype)w->scale_dtype;
        affine_eight(affine_at(w, w->scales, r, g), t, w->group, s);
        affine_eight(affine_at(w, w->biases, r, g), t, w->group, min);
        for (int i = 0; kind == DIRECT_AFFINE8 && i < 2; i++) min[i] = vfmaq_n_f32(min[i], s[i], 128.0f);
    }
}

/* The same of one group of the last, partial block */
INLINE float direct_scale(const int kind, const fa_weight *w, int64_t r, int64_t g, const uint8_t *p, float *min) {
    float s;
    if (direct_block(kind)) {
        s = half1(p);
        *min = kind == DIRECT_Q4_1 || kind == DIRECT_Q5_1 ? half1(p + 2) : s * direct_factor(kind);
    } else {
        const fa_dtype t = (fa_dtype)w->scale_dtype;
        uint8_t one[32] = {0};
        memcpy(one, affine_at(w, w->scales, r, g), fa_dtype_size(t));
        memcpy(one + 16, affine_at(w, w->biases, r, g), fa_dtype_size(t));
        s = vgetq_lane_f32(scales4(one, t), 0);
        *min = vgetq_lane_f32(scales4(one + 16, t), 0);
        if (kind == DIRECT_AFFINE8) *min += 128.0f * s;
    }
    return s;
}

INLINE int8x16_t signed_codes(uint8x16_t v) { return vreinterpretq_s8_u8(v); }
INLINE vi as_vi(int8x16_t v) { return vreinterpretq_s32_s8(v); }

/* 32 activations in the order of a kind's codes */
INLINE int8x16x2_t split_group(const int kind, const int8_t *q) {
    if (kind == DIRECT_AFFINE4) return vld2q_s8(q);
    const int8x16x2_t v = {{vld1q_s8(q), vld1q_s8(q + 16)}};
    return v;
}

/* ---- one weight row ---- */

/* acc[i][.] += 32 columns; s[i]: scales of its halves times those of the input row, in lanes l0 and l1 */
#define DIRECT_GROUP(g, s0, l0, s1, l1)                                                                                \
    {                                                                                                                  \
        uint8x16_t a, b;                                                                                               \
        direct_codes(kind, p, g, &a, &b);                                                                              \
        const vi w0 = as_vi(signed_codes(a)), w1 = as_vi(signed_codes(b));                                             \
        for (int i = 0; i < MR; i++) {                                                                                 \
            const int8_t *at = q + i * K + 32 * (g);                                                                   \
            vi c = vi_dps(vi_zero(), w0, vi_load(at));                                                                 \
            if (kind == DIRECT_Q6_K) {                                                                                 \
                acc[i][0] = vfmaq_laneq_f32(acc[i][0], vf_cvt(c), s0, l0);                                             \
                c = vi_dps(vi_zero(), w1, vi_load(at + 16));                                                           \
                acc[i][1] = vfmaq_laneq_f32(acc[i][1], vf_cvt(c), s1, l1);                                             \
            } else {                                                                                                   \
                c = vi_dps(c, w1, vi_load(at + 16));                                                                   \
                acc[i][(g)&1] = vfmaq_laneq_f32(acc[i][(g)&1], vf_cvt(c), s0, l0);                                     \
            }                                                                                                          \
        }                                                                                                              \
    }

/* Groups [4 quad, 4 quad + 4) of the block at p; q and as point at the block's first column and group */
INLINE void direct_quad(const int MR, const int kind, const int quad, const uint8_t *p, const vf *s, const int8_t *q,
                        int64_t K, const float *as, vf acc[][2]) {
    vf d[4][2];
    for (int i = 0; i < MR; i++) {
        const vf a = vld1q_f32(as + i * (K / 32) + 4 * quad);
        if (kind == DIRECT_Q6_K) {
            d[i][0] = vmulq_f32(s[2 * quad], vzip1q_f32(a, a));
            d[i][1] = vmulq_f32(s[2 * quad + 1], vzip2q_f32(a, a));
        } else {
            d[i][0] = d[i][1] = vmulq_f32(s[quad], a);
        }
    }
    if (kind == DIRECT_Q6_K) {
        DIRECT_GROUP(4 * quad, d[i][0], 0, d[i][0], 1)
        DIRECT_GROUP(4 * quad + 1, d[i][0], 2, d[i][0], 3)
        DIRECT_GROUP(4 * quad + 2, d[i][1], 0, d[i][1], 1)
        DIRECT_GROUP(4 * quad + 3, d[i][1], 2, d[i][1], 3)
    } else {
        DIRECT_GROUP(4 * quad, d[i][0], 0, d[i][0], 0)
        DIRECT_GROUP(4 * quad + 1, d[i][0], 1, d[i][0], 1)
        DIRECT_GROUP(4 * quad + 2, d[i][0], 2, d[i][0], 2)
        DIRECT_GROUP(4 * quad + 3, d[i][0], 3, d[i][0], 3)
    }
}

/* mins[i] += min x sums of activations, of a whole block from group g on */
INLINE void direct_mins(const int kind, const vf *min, const fa_act *x, int64_t m, int64_t g, vf *sum) {
    if (kind == DIRECT_Q8_0) return;
    const float *at = kind == DIRECT_Q6_K ? x->sum16 + m * (x->K / 16) + 2 * g : x->sum32 + m * (x->K / 32) + g;
    for (int h = 0; h < (kind == DIRECT_Q6_K ? 4 : 2); h++) *sum = vfmaq_f32(*sum, min[h], vld1q_f32(at + 4 * h));
}

/* Row r of w times input rows [m, m + MR), whose codes lie at q in the order of the kind */
INLINE void direct_dot(const int MR, const int kind, const int bytes, const fa_weight *w, int64_t r, const int8_t *q,
                       const fa_act *x, int64_t m, float *out) {
    const int64_t K = x->K, G = K / 32;
    const uint8_t *p = w->codes + (size_t)r * w->row_bytes;
    const float *as = x->scale + m * G;
    vf acc[4][2], low[4];
    for (int i = 0; i < MR; i++) acc[i][0] = acc[i][1] = low[i] = vf_zero();
    int64_t g = 0;
    for (; g + 8 <= G; g += 8, p += bytes, q += 256) {
        vf s[4], min[4];
        for (int at = 0; at < bytes; at += 64) __builtin_prefetch(p + AHEAD + at);
        direct_scales(kind, w, r, g, p, s, min);
        for (int i = 0; i < MR; i++) direct_mins(kind, min, x, m + i, g, &low[i]);
        direct_quad(MR, kind, 0, p, s, q, K, as + g, acc);
        direct_quad(MR, kind, 1, p, s, q, K, as + g, acc);
    }
    float rest[4] = {0};
    for (; kind != DIRECT_Q6_K && g < G; g++, p += bytes / 8, q += 32) {
        float min;
        const vf s = vdupq_n_f32(direct_scale(kind, w, r, g, p, &min));
        for (int i = 0; i < MR; i++) rest[i] += min * x->sum32[(m + i) * G + g];
        vf d[4];
        for (int i = 0; i < MR; i++) d[i] = vmulq_n_f32(s, as[i * G + g]);
        DIRECT_GROUP(0, d[i], 0, d[i], 0)
    }
    for (int i = 0; i < MR; i++) out[i] = vf_sum(vf_add(vf_add(acc[i][0], acc[i][1]), low[i])) + rest[i];
}

/* ---- two weight rows times pairs of input rows ---- */

#if PAIRS

/* Input rows in pairs (a last odd one with itself), in scratch: codes [pair][K / 8][2][8] in the order of the kind, and
 * scales [pair][K / 32][a a b b]. */
typedef struct direct_pairs {
    int8_t *q;
    float *as;
    int64_t row[4]; /* input row of each of the up to four places */
} direct_pairs;

static direct_pairs direct_pair_inputs(const int kind, const fa_act *x, const qrow *b) {
    direct_pairs d = {.q = b->split, .as = b->prod}; /* K floats: 4 ld >= K / 4 of 16 bytes, two pairs of G */
    const int64_t K = x->K, G = K / 32;
    for (int64_t i = 0; i < 4; i++) d.row[i] = i < x->M ? i : x->M - 1;
    for (int64_t p = 0; p < (x->M + 1) / 2; p++) {
        const int64_t m = d.row[2 * p], n = d.row[2 * p + 1];
        int8_t *out = d.q + p * 2 * K;
        for (int64_t k = 0; k < K; k += 32, out += 64) {
            const int8x16x2_t u = split_group(kind, x->q + m * K + k), v = split_group(kind, x->q + n * K + k);
            for (int h = 0; h < 2; h++) {
                const int64x2_t a = vreinterpretq_s64_s8(u.val[h]), c = vreinterpretq_s64_s8(v.val[h]);
                vst1q_s8(out + 32 * h, vreinterpretq_s8_s64(vzip1q_s64(a, c)));
                vst1q_s8(out + 32 * h + 16, vreinterpretq_s8_s64(vzip2q_s64(a, c)));
            }
        }
        for (int64_t g = 0; g < G; g++)
            vst1q_f32(d.as + 4 * (p * G + g),
                      vcombine_f32(vdup_n_f32(x->scale[m * G + g]), vdup_n_f32(x->scale[n * G + g])));
    }
    return d;
}

/* 16 columns of two weight rows times an input pair */
INLINE int32x4_t pair_16(int32x4_t c, uint8x16_t a, uint8x16_t b, const int8_t *q) {
    const int64x2_t u = vreinterpretq_s64_u8(a), v = vreinterpretq_s64_u8(b);
    c = vmmlaq_s32(c, vld1q_s8(q), vreinterpretq_s8_s64(vzip1q_s64(u, v)));
    return vmmlaq_s32(c, vld1q_s8(q + 16), vreinterpretq_s8_s64(vzip2q_s64(u, v)));
}

/* f[p] += 32 columns at p0 and p1, group g of their blocks; s0, s1: [a b a b], scales of both rows for its halves */
INLINE void pair_group(const int NP, const int kind, const int g, const uint8_t *const *p, vf s0, vf s1,
                       const int8_t *q, int64_t K, const float *as, vf *f) {
    uint8x16_t a[2], b[2];
    direct_codes(kind, p[0], g, &a[0], &a[1]);
    direct_codes(kind, p[1], g, &b[0], &b[1]);
    for (int i = 0; i < NP; i++) {
        const int8_t *at = q + i * 2 * K + 64 * g;
        const vf by = vld1q_f32(as + 4 * (i * (K / 32) + g));
        vi c = pair_16(vi_zero(), a[0], b[0], at);
        if (kind == DIRECT_Q6_K) {
            f[i] = vfmaq_f32(f[i], vf_cvt(c), vmulq_f32(s0, by));
            c = pair_16(vi_zero(), a[1], b[1], at + 32);
            f[i] = vfmaq_f32(f[i], vf_cvt(c), vmulq_f32(s1, by));
        } else {
            c = pair_16(c, a[1], b[1], at + 32);
            f[i] = vfmaq_f32(f[i], vf_cvt(c), vmulq_f32(s0, by));
        }
    }
}

/* [a b a b] of lane i of two rows' scales */
INLINE vf pair_scale(vf a, vf b, const int i) {
    const float64x2_t v = vreinterpretq_f64_f32(i < 2 ? vzip1q_f32(a, b) : vzip2q_f32(a, b));
    return vreinterpretq_f32_f64(i & 1 ? vzip2q_f64(v, v) : vzip1q_f64(v, v));
}

INLINE void pair_quad(const int NP, const int kind, const int quad, const uint8_t *const *p, vf s[2][4],
                      const int8_t *q, int64_t K, const float *as, vf *f) {
    const int v = kind == DIRECT_Q6_K ? 2 * quad : quad;
    const vf a = s[0][v], b = s[1][v];
    if (kind == DIRECT_Q6_K) {
        const vf c = s[0][v + 1], d = s[1][v + 1];
        pair_group(NP, kind, 4 * quad, p, pair_scale(a, b, 0), pair_scale(a, b, 1), q, K, as, f);
        pair_group(NP, kind, 4 * quad + 1, p, pair_scale(a, b, 2), pair_scale(a, b, 3), q, K, as, f);
        pair_group(NP, kind, 4 * quad + 2, p, pair_scale(c, d, 0), pair_scale(c, d, 1), q, K, as, f);
        pair_group(NP, kind, 4 * quad + 3, p, pair_scale(c, d, 2), pair_scale(c, d, 3), q, K, as, f);
    } else {
        pair_group(NP, kind, 4 * quad, p, pair_scale(a, b, 0), a, q, K, as, f);
        pair_group(NP, kind, 4 * quad + 1, p, pair_scale(a, b, 1), a, q, K, as, f);
        pair_group(NP, kind, 4 * quad + 2, p, pair_scale(a, b, 2), a, q, K, as, f);
        pair_group(NP, kind, 4 * quad + 3, p, pair_scale(a, b, 3), a, q, K, as, f);
    }
}

/* Rows r[0] and r[1] of w times NP input pairs: out[place][row] */
INLINE void pair_dot(const int NP, const int kind, const int bytes, const fa_weight *w, const int64_t r[2],
                     const direct_pairs *d, const fa_act *x, float out[4][2]) {
    const int64_t K = x->K, G = K / 32;
    const uint8_t *p[2] = {w->codes + (size_t)r[0] * w->row_bytes, w->codes + (size_t)r[1] * w->row_bytes};
    const int8_t *q = d->q;
    vf f[2], low[4][2];
    for (int i = 0; i < NP; i++) f[i] = vf_zero();
    for (int i = 0; i < 2 * NP; i++) low[i][0] = low[i][1] = vf_zero();
    int64_t g = 0;
    for (; g + 8 <= G; g += 8, q += 512) {
        vf s[2][4], min[4];
        for (int j = 0; j < 2; j++) {
            for (int at = 0; at < bytes; at += 64) __builtin_prefetch(p[j] + AHEAD + at);
            direct_scales(kind, w, r[j], g, p[j], s[j], min);
            for (int i = 0; i < 2 * NP; i++) direct_mins(kind, min, x, d->row[i], g, &low[i][j]);
        }
        pair_quad(NP, kind, 0, p, s, q, K, d->as + 4 * g, f);
        pair_quad(NP, kind, 1, p, s, q, K, d->as + 4 * g, f);
        p[0] += bytes, p[1] += bytes;
    }
    float rest[4][2] = {{0}};
    for (; kind != DIRECT_Q6_K && g < G; g++, q += 64) {
        float s[2], min[2];
        for (int j = 0; j < 2; j++) s[j] = direct_scale(kind, w, r[j], g, p[j], &min[j]);
        for (int i = 0; i < 2 * NP; i++)
            for (int j = 0; j < 2; j++) rest[i][j] += min[j] * x->sum32[d->row[i] * G + g];
        const vf both = {s[0], s[1], s[0], s[1]};
        pair_group(NP, kind, 0, p, both, both, q, K, d->as + 4 * g, f);
        p[0] += bytes / 8, p[1] += bytes / 8;
    }
    for (int i = 0; i < 2 * NP; i++)
        for (int j = 0; j < 2; j++) out[i][j] = f[i / 2][2 * (i % 2) + j] + vf_sum(low[i][j]) + rest[i][j];
}

INLINE void pair_rows(const int NP, const int kind, const int bytes, const fa_weight *w, int64_t r0, int64_t r1,
                      const direct_pairs *d, const fa_act *x, float *y, int64_t ldy, bool add) {
    for (int64_t r = r0; r < r1; r += 2) {
        const int64_t two[2] = {r, r + 1 < r1 ? r + 1 : r};
        float out[4][2];
        pair_dot(NP, kind, bytes, w, two, d, x, out);
        for (int64_t m = 0; m < x->M; m++)
            for (int64_t j = 0; j < 2 && r + j < r1; j++) {
                float *at = y + m * ldy + r + j;
                *at = add ? *at + out[m][j] : out[m][j];
            }
    }
}

#endif

/* ---- all rows ---- */

/* Activations in the order of the kind */
static const int8_t *direct_inputs(const int kind, const fa_act *x, const qrow *b) {
    if (kind != DIRECT_AFFINE4) return x->q;
    for (int64_t k = 0; k < x->M * x->K; k += 32) {
        const int8x16x2_t v = split_group(kind, x->q + k);
        vst1q_s8(b->split + k, v.val[0]);
        vst1q_s8(b->split + k + 16, v.val[1]);
    }
    return b->split;
}

/* Weight, buffers and activations come as copies: the compiler then knows that no store changes them. */
INLINE void decoded_rows(const int kind, const int bytes, const fa_weight w, int64_t r0, int64_t r1, const qrow b,
                         const fa_act x, float *y, int64_t ldy, bool add) {
#if PAIRS
    if (x.M > 1) {
        const direct_pairs d = direct_pair_inputs(kind, &x, &b);
        if (x.M > 2)
            pair_rows(2, kind, bytes, &w, r0, r1, &d, &x, y, ldy, add);
        else
            pair_rows(1, kind, bytes, &w, r0, r1, &d, &x, y, ldy, add);
        return;
    }
#endif
    const int8_t *q = direct_inputs(kind, &x, &b);
    for (int64_t r = r0; r < r1; r++) {
        float out[4];
        int n = 0;
        for (int64_t m = 0; m < x.M; m += n) {
            n = x.M - m >= 4 ? 4 : x.M - m >= 2 ? 2 : 1;
            if (n == 4 && !PAIRS)
                direct_dot(4, kind, bytes, &w, r, q + m * x.K, &x, m, out);
            else if (n == 2 && !PAIRS)
                direct_dot(2, kind, bytes, &w, r, q + m * x.K, &x, m, out);
            else
                direct_dot(1, kind, bytes, &w, r, q + m * x.K, &x, m, out);
            qrow_put(n, out, y + m * ldy + r, ldy, add);
        }
    }
}

#endif
