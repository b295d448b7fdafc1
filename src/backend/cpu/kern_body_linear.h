/* Matrix products for any vector width: included once by each kern_linear_<isa>.c after it has defined its vectors.
 * Static only.
 *
 * What the including file provides (LN = lanes of 32 bits; codes are the canonical u8 codes of tensor/qfmt.h):
 *   constants LN, QNV x QMR and FNV x FMR (register tiles: vectors of weight rows x input rows, int8 and f32), DOT_M
 * (most input rows for which walking weight row by weight row wins), WIDE_CODES (1: vi_dp takes codes up to 255; 0: up
 * to 127, larger ones go to vi_dps as code - 128) vf: vf_zero vf_set1 vf_load vf_store vf_loadn(p, n) vf_storen(p, v,
 * n) vf_add vf_mul vf_fma(a, b, c) = a * b + c, vf_sum, vf_cvt(vi), vf_u8(p) vf_f16(p) vf_bf16(p): LN values from any
 * address; vf_spread(p, ug): scale of the group of each lane's four codes, where p points at the scale of the chunk's
 * first group vi: vi_zero, vi_load, vi_loadn(p, n bytes), vi_bcast4(p) (four bytes to every lane), vi_flip(v) (code -
 * 128 as s8), vi_dp(acc, w, x) and vi_dps(acc, w, x): acc += four products of bytes per lane, exact transpose(src,
 * src_stride, dst, dst_stride, n): LN rows of n dwords to n rows of LN dwords, strides in bytes; may read (not use) up
 * to 64 bytes past a row
 *   optional, for formats whose rows are decoded into registers where input rows are few: ROW_KINDS
 * (kern_x86_avx512_rows.h), or ROW_BODY, a header that defines DECODED_KINDS(X), decoded_kind and decoded_rows
 *
 * Two ways through a product:
 *   few input rows: unpack one weight row into L1, dot it with every input row. The speed of memory is the limit.
 *   many: a panel of QNV * LN weight rows is unpacked and interleaved in scratch, [K / 4][rows][4 codes] and
 * [groups][rows] scales and mins, so that lanes are weight rows and activations are broadcast; blocks of KB columns
 * keep panel blocks in L1 while all input rows pass. The value of a row does not depend on the other rows of the same
 * call, only on which way is taken. */
#ifndef FA_CPU_KERN_BODY_LINEAR_H
#define FA_CPU_KERN_BODY_LINEAR_H

#ifndef PAIRS
#define PAIRS 0 /* see "accumulators of a tile" */
#endif

enum {
    KB = 512,     /* columns of a panel block of int8 */
    KBF = 128,    /* columns of a panel block of f32 */
    MB = 128,     /* input rows that pass over one panel before the next block */
    FEW_FROM = 5, /* fewest and most input rows of the products of kern_body_few.h */
    FEW_M = 32,
    CHUNK = 4 * LN /* codes per vector */
};

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Input rows of the next register tile: the largest, or a power of two of those left. */
INLINE int tile_rows(int64_t left, int most) {
    if (left >= most) return most;
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Codes of 8 bits. */
INLINE bool is_wide(const fa_weight *w) {
    if (WIDE_CODES) return false;
    switch (w->fmt) {
    case FA_FMT_AFFINE: return w->bits == 8;
    case FA_FMT_Q8_0:
    case FA_FMT_IQ4_NL:
    case FA_FMT_IQ4_XS: return true;
    default: return false;
    }
}

INLINE vi dp(bool wide, vi acc, vi w, vi x) { return wide ? vi_dps(acc, w, x) : vi_dp(acc, w, x); }

/* ---- quantization of activations ---- */

#ifndef QUANT_ACT
/* The C definition says why the maximum is taken on bit patterns. */
INLINE void quant_scales(float amax, float *s, float *inv) {
    bool tiny = amax < 0x1p-118f;
    *s = tiny ? 0.0f : amax / 127.0f;
    *inv = tiny ? 0.0f : 127.0f / amax;
}

static void quant_act(const float *x, int64_t ldx, int64_t m0, int64_t m1, fa_act *a) {
    const int64_t K = a->K, G = K / 32;
    for (int64_t m = m0; m < m1; m++)
        for (int64_t g = 0; g < G; g++) {
            const float *in = x + m * ldx + g * 32;
            float s, inv;
            int half[2];
            quant_scales(amax32(in), &s, &inv);
            quant32(in, inv, a->q + m * K + g * 32, half);
            a->scale[m * G + g] = s;
            a->sum32[m * G + g] = s * ((float)half[0] + (float)half[1]);
            a->sum16[m * 2 * G + 2 * g] = s * (float)half[0];
            a->sum16[m * 2 * G + 2 * g + 1] = s * (float)half[1];
        }
}
#endif

/* ---- int8, few input rows ---- */

/* Bytes that weight rows are asked for before they are needed: the prefetcher of the machine alone does not keep enough
 * lines on the way to use its memory. */
enum { AHEAD = 4096 };

/* One unpacked weight row; buffers are padded so that a whole vector may be read at any group and chunk. */
typedef struct qrow {
    uint8_t *codes;
    float *scale, *min, *prod; /* prod [4][ld]: weight scale x activation scale per group */
    int64_t ld;                /* floats from one padded row of groups to the next */
    int8_t *split;             /* [DOT_M][K] activations in the order of paired kinds */
} qrow;

INLINE int64_t groups_ld(int64_t K) { return round_up(K / 16 + 2 * LN, 16); }

static size_t qrow_bytes(int64_t K) { return (size_t)(round_up(K + 64, 64) + 6 * groups_ld(K) * 4); }

static qrow qrow_at(void *scratch, int64_t K) {
    qrow b;
    b.ld = groups_ld(K);
    b.scale = (float *)scratch;
    b.min = b.scale + b.ld;
    b.prod = b.min + b.ld;
    b.codes = (uint8_t *)(b.prod + 4 * b.ld);
    b.split = (int8_t *)(b.codes + round_up(K + 64, 64));
    return b;
}

/* prod[i][u] = scale[u] * activation scale; acc[i] = lanes of the sum of min * group sum. With wide codes, codes are
 * 128 lower. */
INLINE void qrow_scales(const int MR, const bool wide, const int ug, const qrow *b, const fa_act *x, int64_t m,
                        vf *acc) {
    const int64_t G = x->K / 32, U = x->K / ug;
    for (int i = 0; i < MR; i++) {
        const float *as = x->scale + (m + i) * G, *sum = ug == 32 ? x->sum32 + (m + i) * G : x->sum16 + (m + i) * 2 * G;
        float *prod = b->prod + i * b->ld;
        acc[i] = vf_zero();
        int64_t u = 0;
        for (; u + LN <= U; u += LN) {
            vf s = vf_load(b->scale + u), mn = vf_load(b->min + u);
            if (wide) mn = vf_fma(vf_set1(128.0f), s, mn);
            acc[i] = vf_fma(mn, vf_load(sum + u), acc[i]);
            vf_store(prod + u, vf_mul(s, ug == 32 ? vf_load(as + u) : vf_twice(as + u / 2, LN / 2)));
        }
        if (u < U) {
            int n = (int)(U - u);
            vf s = vf_loadn(b->scale + u, n), mn = vf_loadn(b->min + u, n);
            if (wide) mn = vf_fma(vf_set1(128.0f), s, mn);
            acc[i] = vf_fma(mn, vf_loadn(sum + u, n), acc[i]);
            vf_store(prod + u, vf_mul(s, ug == 32 ? vf_loadn(as + u, n) : vf_twice(as + u / 2, n / 2)));
        }
    }
}

/* acc[i] += one chunk of codes times input row i from column k on; n columns are there (CHUNK, or 32 of 64) */
INLINE void qrow_chunk(const int MR, const bool wide, const int ug, vi w, const qrow *b, const fa_act *x, int64_t m,
                       int64_t k, int n, vf *acc) {
    for (int i = 0; i < MR; i++) {
        const int8_t *q = x->q + (m + i) * x->K + k;
        vi c = dp(wide, vi_zero(), w, n == CHUNK ? vi_load(q) : vi_loadn(q, 32));
        acc[i] = vf_fma(vf_cvt(c), vf_spread(b->prod + i * b->ld + k / ug, ug), acc[i]);
    }
}

/* The same of a whole group that is several vectors: they meet in one sum. */
INLINE void qrow_group(const int MR, const bool wide, const int ug, const qrow *b, const fa_act *x, int64_t m,
                       int64_t k, vf *acc) {
    vi c[4];
    for (int i = 0; i < MR; i++) c[i] = vi_zero();
    for (int j = 0; j < ug; j += CHUNK) {
        const vi codes = vi_load(b->codes + k + j), w = wide ? vi_flip(codes) : codes;
        for (int i = 0; i < MR; i++) c[i] = dp(wide, c[i], w, vi_load(x->q + (m + i) * x->K + k + j));
    }
    for (int i = 0; i < MR; i++) acc[i] = vf_fma(vf_cvt(c[i]), vf_spread(b->prod + i * b->ld + k / ug, ug), acc[i]);
}

/* The row's codes are in b->codes. */
INLINE void qrow_dot(const int MR, const bool wide, const int ug, const qrow *b, const fa_act *x, int64_t m,
                     float *out) {
    const int64_t K = x->K;
    vf acc[4];
    qrow_scales(MR, wide, ug, b, x, m, acc);
    int64_t k = 0;
    for (; CHUNK < ug && k < K; k += ug) qrow_group(MR, wide, ug, b, x, m, k, acc);
    for (; k + CHUNK <= K; k += CHUNK) {
        vi w = vi_load(b->codes + k);
        qrow_chunk(MR, wide, ug, wide ? vi_flip(w) : w, b, x, m, k, CHUNK, acc);
    }
    if (CHUNK > 32 && k < K) { /* half a vector: the other lanes meet zero activations */
        vi w = vi_load(b->codes + k);
        qrow_chunk(MR, wide, ug, wide ? vi_flip(w) : w, b, x, m, k, 32, acc);
    }
    for (int i = 0; i < MR; i++) out[i] = vf_sum(acc[i]);
}

INLINE void qrow_put(int n, const float *out, float *y, int64_t ldy, bool add) {
    for (int i = 0; i < n; i++) y[i * ldy] = add ? y[i * ldy] + out[i] : out[i];
}

INLINE void qrow_all(const bool wide, const int ug, const qrow *b, const fa_act *x, float *y, int64_t ldy, bool add) {
    float out[4];
    int n = 0;
    for (int64_t m = 0; m < x->M; m += n) {
        n = x->M - m >= 4 ? 4 : x->M - m >= 2 ? 2 : 1;
        if (n == 4)
            qrow_dot(4, wide, ug, b, x, m, out);
        else if (n == 2)
            qrow_dot(2, wide, ug, b, x, m, out);
        else
            qrow_dot(1, wide, ug, b, x, m, out);
        qrow_put(n, out, y + m * ldy, ldy, add);
    }
}

#ifdef ROW_KINDS
/* qrow_scales for a row that is decoded on the way */
INLINE void qrow_kind_scales(const int MR, const int kind, const fa_weight *w, int64_t r, const qrow *b,
                             const fa_act *x, int64_t m, vf *acc) {
    const int ug = kind == ROW_Q6_K ? 16 : 32;
    const int64_t G = x->K / 32, U = x->K / ug;
    for (int i = 0; i < MR; i++) acc[i] = vf_zero();
    for (int64_t u = 0; u < U; u += 16) {
        const int n = U - u < 16 ? (int)(U - u) : 16;
        vf min, s = row_scales(kind, w, r, u, n, &min);
        for (int i = 0; i < MR; i++) {
            const float *as = x->scale + (m + i) * G,
                        *sum = ug == 32 ? x->sum32 + (m + i) * G : x->sum16 + (m + i) * 2 * G;
            acc[i] = vf_fma(min, vf_loadn(sum + u, n), acc[i]);
            vf_store(b->prod + i * b->ld + u, vf_mul(s, ug == 32 ? vf_loadn(as + u, n) : vf_twice(as + u / 2, n / 2)));
        }
    }
}

INLINE void qrow_kind_dot(const int MR, const int kind, const int super, const fa_weight *w, int64_t r, const qrow *b,
                          const fa_act *x, int64_t m, float *out) {
    const int ug = kind == ROW_Q6_K ? 16 : 32;
    const uint8_t *p = w->codes + (size_t)r * w->row_bytes;
    vf acc[4], odd[4]; /* two chains of sums per input row */
    qrow_kind_scales(MR, kind, w, r, b, x, m, acc);
    for (int i = 0; i < MR; i++) odd[i] = vf_zero();
    int64_t k = 0;
    for (; k + 256 <= x->K; k += 256, p += super) {
        qrow_chunk(MR, false, ug, row_codes(kind, p, 0), b, x, m, k, CHUNK, acc);
        qrow_chunk(MR, false, ug, row_codes(kind, p, 1), b, x, m, k + 64, CHUNK, odd);
        qrow_chunk(MR, false, ug, row_codes(kind, p, 2), b, x, m, k + 128, CHUNK, acc);
        qrow_chunk(MR, false, ug, row_codes(kind, p, 3), b, x, m, k + 192, CHUNK, odd);
    }
    for (int j = 0; k < x->K; k += 64, j++) qrow_chunk(MR, false, ug, row_codes(kind, p, j), b, x, m, k, CHUNK, acc);
    for (int i = 0; i < MR; i++) out[i] = vf_sum(vf_add(acc[i], odd[i]));
}

/* 128 codes of a paired kind times input row i from column k on: low and high nibbles meet in the same sums. */
INLINE void qrow_pair(const int MR, const int kind, const uint8_t *p, const qrow *b, const fa_act *x, int64_t m,
                      int64_t k, vf *acc) {
    vi even, odd;
    row_pair(kind, p, &even, &odd);
    __builtin_prefetch(p + AHEAD);
    for (int i = 0; i < MR; i++) {
        const int8_t *q = b->split + (m + i) * x->K + k;
        vi c = vi_dp(vi_dp(vi_zero(), even, vi_load(q)), odd, vi_load(q + CHUNK));
        acc[i] = vf_fma(vf_cvt(c), vf_spread(b->prod + i * b->ld + k / 32, 16), acc[i]);
    }
}

INLINE void qrow_pair_dot(const int MR, const int kind, const fa_weight *w, int64_t r, const qrow *b, const fa_act *x,
                          int64_t m, float *out) {
    const uint8_t *p = w->codes + (size_t)r * w->row_bytes;
    vf acc[4], odd[4];
    qrow_kind_scales(MR, kind, w, r, b, x, m, acc);
    for (int i = 0; i < MR; i++) odd[i] = vf_zero();
    int64_t k = 0;
    for (; k + 256 <= x->K; k += 256, p += 128) {
        qrow_pair(MR, kind, p, b, x, m, k, acc);
        qrow_pair(MR, kind, p + 64, b, x, m, k + 128, odd);
    }
    if (k + 128 <= x->K) {
        qrow_pair(MR, kind, p, b, x, m, k, acc);
        k += 128, p += 64;
    }
    if (k < x->K) qrow_chunk(MR, false, 32, row_codes(kind, p, 0), b, x, m, k, CHUNK, acc);
    for (int i = 0; i < MR; i++) out[i] = vf_sum(vf_add(acc[i], odd[i]));
}

INLINE void qrow_decoded_dot(const int MR, const int kind, const int super, const fa_weight *w, int64_t r,
                             const qrow *b, const fa_act *x, int64_t m, float *out) {
    if (row_paired(kind))
        qrow_pair_dot(MR, kind, w, r, b, x, m, out);
    else
        qrow_kind_dot(MR, kind, super, w, r, b, x, m, out);
}

/* Weight, buffers and activations come as copies: the compiler then knows that no store changes them. */
INLINE void decoded_rows(const int kind, const int super, const fa_weight w, int64_t r0, int64_t r1, const qrow b,
                         const fa_act x, float *y, int64_t ldy, bool add) {
    float out[4];
    for (int64_t m = 0; row_paired(kind) && m < x.M; m++) split_columns(x.q + m * x.K, x.K, b.split + m * x.K);
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *p = w.codes + (size_t)r * w.row_bytes;
        for (size_t i = 0; !row_paired(kind) && i < w.row_bytes; i += 64) __builtin_prefetch(p + AHEAD + i);
        int n = 0;
        for (int64_t m = 0; m < x.M; m += n) {
            n = x.M - m >= 4 ? 4 : x.M - m >= 2 ? 2 : 1;
            if (n == 4)
                qrow_decoded_dot(4, kind, super, &w, r, &b, &x, m, out);
            else if (n == 2)
                qrow_decoded_dot(2, kind, super, &w, r, &b, &x, m, out);
            else
                qrow_decoded_dot(1, kind, super, &w, r, &b, &x, m, out);
            qrow_put(n, out, y + m * ldy + r, ldy, add);
        }
    }
}

#define DECODED_KINDS(X) ROW_KINDS(X)
#define decoded_kind     row_kind
#elif defined(ROW_BODY)
#include ROW_BODY
#endif

#ifdef DECODED_KINDS
/* A function for each kind, so that each gets its own registers. */
#define ROWS_OF_KIND(kind, bytes)                                                                                      \
    static NOINLINE void rows_##kind(const fa_weight *w, int64_t r0, int64_t r1, const qrow *b, const fa_act *x,       \
                                     float *y, int64_t ldy, bool add) {                                                \
        decoded_rows(kind, bytes, *w, r0, r1, *b, *x, y, ldy, add);                                                    \
    }
DECODED_KINDS(ROWS_OF_KIND)

/* false: no such kind */
static bool rows_decoded(const fa_weight *w, int64_t r0, int64_t r1, const qrow *b, const fa_act *x, float *y,
                         int64_t ldy, bool add) {
    switch (decoded_kind(w)) {
#define CASE(kind, bytes)                                                                                              \
    case kind: rows_##kind(w, r0, r1, b, x, y, ldy, add); return true;
        DECODED_KINDS(CASE)
#undef CASE
    default: return false;
    }
}
#else
INLINE bool rows_decoded(const fa_weight *w, int64_t r0, int64_t r1, const qrow *b, const fa_act *x, float *y,
                         int64_t ldy, bool add) {
    (void)w, (void)r0, (void)r1, (void)b, (void)x, (void)y, (void)ldy, (void)add;
    return false;
}
#endif

static void qrow_linear(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x, float *y,
                        int64_t ldy, bool add, void *scratch) {
    const int ug = fa_qfmts[w->fmt].ugroup;
    const bool wide = is_wide(w);
    const int64_t K = w->cols;
    qrow b = qrow_at(scratch, K);
    if (rows_decoded(w, r0, r1, &b, x, y, ldy, add)) return;
    /* what a last half vector reads past the row */
    memset(b.codes + K, 0, 64);
    for (int i = 0; i < 4; i++) memset(b.prod + i * b.ld + K / ug, 0, (size_t)(b.ld - K / ug) * 4);
    for (int64_t r = r0; r < r1; r++) {
        k->unpack[w->fmt](w, r, b.codes, b.scale, b.min);
        if (wide && ug == 32)
            qrow_all(!WIDE_CODES, 32, &b, x, y + r, ldy, add);
        else if (wide)
            qrow_all(!WIDE_CODES, 16, &b, x, y + r, ldy, add);
        else if (ug == 32)
            qrow_all(false, 32, &b, x, y + r, ldy, add);
        else
            qrow_all(false, 16, &b, x, y + r, ldy, add);
    }
}

/* ---- int8, many input rows ---- */

/* Accumulators of a tile. Usually (i, v) is input row i times the LN weight rows of vector v. Where PAIRS is 1,
 * products come as 2 x 2 blocks: the including file says which values of inputs (ld apart) and of a panel's planes
 * accumulator i meets (tile_inputs, tile_weights), how two accumulators become rows (tile_untangle), and how codes and
 * planes lie in a panel (interleave: eights of columns instead of fours; plane_pairs: LN values to 2 LN). A last odd
 * input row is then multiplied as a pair with itself. */
#if !PAIRS
INLINE vf tile_weights(const float *p, const int i) {
    (void)i;
    return vf_load(p);
}
INLINE vf tile_inputs(const float *p, int64_t ld, const int i) { return vf_set1(p[i * ld]); }
INLINE void tile_untangle(vf *a, vf *b) { (void)a, (void)b; }
INLINE void interleave(const void *src, size_t src_stride, void *dst, size_t dst_stride, int64_t n) {
    (void)src, (void)src_stride, (void)dst, (void)dst_stride, (void)n;
}
INLINE void plane_pairs(float *p, int64_t ld, int64_t n) { (void)p, (void)ld, (void)n; }
#endif
enum { PLANE = 1 + PAIRS }; /* floats per weight row and group in a panel's planes */

typedef struct qpanel {
    uint8_t *codes;           /* [K / 4][nr][4] */
    float *scale, *low, *min; /* [K / ug][nr * PLANE] */
    uint8_t *row_codes; /* LN rows of the stored order, row_ld bytes apart: an odd number of cache lines, so that they
                           do not share sets */
    float *row_scale, *row_min; /* [LN][ld] */
    int64_t row_ld, ld;
    float *acc; /* [MB][nr]: sums between blocks of columns */
} qpanel;

INLINE int64_t row_ld(int64_t K) { return round_up(K + 64, 128) + 64; }

static size_t qpanel_bytes(int64_t K) {
    int64_t nr = QNV * LN, k32 = round_up(K, 32);
    return (size_t)(nr * k32 + 3 * nr * PLANE * (k32 / 16) * 4 + LN * row_ld(K) + 2 * LN * groups_ld(K) * 4 +
                    MB * nr * 4);
}

static qpanel qpanel_at(void *scratch, int64_t K) {
    qpanel p;
    int64_t nr = QNV * LN;
    p.row_ld = row_ld(K);
    p.ld = groups_ld(K);
    p.codes = (uint8_t *)scratch;
    p.scale = (float *)(p.codes + nr * K);
    p.low = p.scale + nr * PLANE * (K / 16);
    p.min = p.low + nr * PLANE * (K / 16);
    p.acc = p.min + nr * PLANE * (K / 16);
    p.row_scale = p.acc + MB * nr;
    p.row_min = p.row_scale + LN * p.ld;
    p.row_codes = (uint8_t *)(p.row_min + LN * p.ld);
    return p;
}

/* code - 128 in place, and the min that makes up for it */
static void lower_row(uint8_t *codes, float *scale, float *min, int64_t K, int64_t U) {
    for (int64_t i = 0; i < K; i++) codes[i] ^= 0x80;
    for (int64_t u = 0; u < U; u++) min[u] += 128.0f * scale[u];
}

/* The offset of formats whose min is always -offset * scale, else -1. */
static int offset_of(const fa_weight *w) {
    switch (w->fmt) {
    case FA_FMT_Q3_K: return 4;
    case FA_FMT_Q4_0: return 8;
    case FA_FMT_MXFP4:
    case FA_FMT_NVFP4:
    case FA_FMT_MXFP4_B:
    case FA_FMT_NVFP4_B: return 12;
    case FA_FMT_IQ1_S:
    case FA_FMT_IQ1_M: return 9;
    case FA_FMT_IQ2_XXS:
    case FA_FMT_IQ2_XS:
    case FA_FMT_IQ2_S: return 43;
    case FA_FMT_IQ3_XXS: return 62;
    case FA_FMT_IQ3_S: return 15;
    case FA_FMT_TQ1_0:
    case FA_FMT_TQ2_0: return 1;
    case FA_FMT_IQ4_NL:
    case FA_FMT_IQ4_XS: return WIDE_CODES ? 127 : -1;
    case FA_FMT_Q5_0: return 16;
    case FA_FMT_Q6_K: return 32;
    case FA_FMT_Q8_0: return WIDE_CODES ? 128 : 0; /* lowered by 128 */
    default: return -1;
    }
}

/* Integer to float for nothing: sums of codes times activations start at the bit pattern of MAGIC instead of 0, so that
 * the bits of MAGIC + sum are there when |sum| < 2^22 (at most 255 * 127 * 32), and (MAGIC + sum) * scale - MAGIC *
 * scale is one fma. It is exact when MAGIC * scale is, that is when scale has 22 significant bits: scales made of
 * halves have, others are rounded to that. */
#define MAGIC 12582912.0f /* 1.5 * 2^23 */

static void magic_scales(float *scale, float *low, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, scale + i, 4);
        u = (u + 2) & ~3u;
        memcpy(scale + i, &u, 4);
        low[i] = -MAGIC * scale[i];
    }
}

/* LN rows of U values to a plane */
INLINE void plane_fill(const float *rows, int64_t ld, float *plane, int64_t ld_plane, int64_t U) {
    transpose(rows, (size_t)ld * 4, plane, (size_t)ld_plane * 4, U);
    if (PAIRS) plane_pairs(plane, ld_plane, U);
}

/* Rows [r, r + n) of w, n <= nv * LN, into a panel of nr = nv * LN rows; those past n get scale and min 0. */
static void qpanel_fill(const fa_kernels *k, const fa_weight *w, int64_t r, int n, int nv, const qpanel *p) {
    const int64_t K = w->cols, U = K / fa_qfmts[w->fmt].ugroup, nr = nv * LN;
    const bool wide = is_wide(w);
    for (int v = 0; v < nv; v++) {
        for (int i = 0; i < LN; i++) {
            uint8_t *codes = p->row_codes + i * p->row_ld;
            float *scale = p->row_scale + i * p->ld, *min = p->row_min + i * p->ld;
            if (v * LN + i < n) {
                k->unpack[w->fmt](w, r + v * LN + i, codes, scale, min);
                if (wide) lower_row(codes, scale, min, K, U);
            } else {
                memset(codes, 0, (size_t)K);
                memset(scale, 0, (size_t)U * 4);
                memset(min, 0, (size_t)U * 4);
            }
        }
        if (PAIRS)
            interleave(p->row_codes, (size_t)p->row_ld, p->codes + v * LN * 8, (size_t)nr * 8, K / 8);
        else
            transpose(p->row_codes, (size_t)p->row_ld, p->codes + v * LN * 4, (size_t)nr * 4, K / 4);
        plane_fill(p->row_scale, p->ld, p->scale + v * LN * PLANE, nr * PLANE, U);
        if (offset_of(w) < 0) plane_fill(p->row_min, p->ld, p->min + v * LN * PLANE, nr * PLANE, U);
    }
    magic_scales(p->scale, p->low, U * nr * PLANE);
}

/* One register tile over a block of columns. */
typedef struct qtile {
    const uint8_t *codes; /* panel at the block's first column */
    const float *scale, *low, *min;
    int64_t n;             /* groups of 32 columns in the block */
    const int8_t *q;       /* first input row at that column; rows ldq apart */
    const float *as, *sum; /* its scales, lds apart, and group sums (of ug values), lds * 32 / ug apart */
    int64_t ldq, lds;
    int offset; /* min = -offset * scale, or -1 */
    float *acc; /* [rows][nr] */
    bool first, last, add;
    float *y;
    int64_t ldy;
    int nr_valid;
} qtile;

INLINE void put_tile(const int MR, const int NV, vf f[][TNV], float *acc, bool last, bool add, float *y, int64_t ldy,
                     int n) {
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < NV; v++) {
            float *out = y + i * ldy + v * LN;
            if (!last)
                vf_store(acc + (i * NV + v) * LN, f[i][v]);
            else if ((v + 1) * LN <= n)
                vf_store(out, add ? vf_add(vf_load(out), f[i][v]) : f[i][v]);
            else
                vf_storen(out, add ? vf_add(vf_loadn(out, n - v * LN), f[i][v]) : f[i][v], n - v * LN);
        }
}

#ifndef QTILE_DOTS
/* c[i][v] += dot over `steps` fours of columns */
INLINE void qtile_dots(const int MR, const int NV, const bool wide, const int steps, const uint8_t *codes,
                       const int8_t *q, int64_t ldq, vi c[][TNV]) {
    for (int s = 0; s < steps; s++) {
        vi w[TNV];
        for (int v = 0; v < NV; v++) w[v] = vi_load(codes + (s * NV + v) * CHUNK);
        for (int i = 0; i < MR; i++) {
            vi x = vi_bcast4(q + i * ldq + s * 4);
            for (int v = 0; v < NV; v++) c[i][v] = dp(wide, c[i][v], w[v], x);
        }
    }
}
#endif

/* start[u] = MAGIC - offset * (sum of the activations of group u) as bits. The sum of codes comes back out of the
 * scaled one: it is at most 32 * 127, so a reciprocal that is good to 1e-4 finds the integer. */
INLINE void qtile_starts(const int ug, const qtile *t, int i, float *start) {
    const int64_t U = t->n * (32 / ug);
    const float *as = t->as + i * t->lds, *sum = t->sum + i * t->lds * (32 / ug);
    for (int64_t u = 0; u < U; u += LN) {
        int n = U - u < LN ? (int)(U - u) : LN;
        vf a = ug == 32 ? vf_loadn(as + u, n) : vf_twice(as + u / 2, n / 2);
        vf whole = vf_add(vf_fma(vf_loadn(sum + u, n), vf_near_inverse(a), vf_set1(MAGIC)), vf_set1(-MAGIC));
        vf_store(start + u, vf_fma(whole, vf_set1((float)-t->offset), vf_set1(MAGIC)));
    }
}

INLINE void qtile_run(const int MR, const int NV, const bool wide, const int ug, const bool even, const qtile *t) {
    const int nr = NV * LN, per = 32 / ug;         /* weight groups per activation group */
    const int acc = PAIRS ? (MR + 1) / 2 * 2 : MR; /* accumulators per vector of weight rows */
    const bool twin = acc > MR;                    /* a row that is its own neighbour */
    const int64_t ldq = twin ? 0 : t->ldq, lds = twin ? 0 : t->lds, ld_start = twin ? 0 : KB / 16 + LN;
    float start[QMR][KB / 16 + LN];
    vf f[QMR][TNV];
    if (even)
        for (int i = 0; i < MR; i++) qtile_starts(ug, t, i, start[i]);
    for (int i = 0; i < acc; i++)
        for (int v = 0; v < NV; v++) f[i][v] = t->first ? vf_zero() : vf_load(t->acc + i * nr + v * LN);
    for (int64_t u = 0; u < t->n * per; u++) {
        const int64_t g = u / per;
        vi c[QMR][TNV];
        for (int i = 0; i < acc; i++)
            for (int v = 0; v < NV; v++)
                c[i][v] = vf_bits(even ? tile_inputs(start[0] + u, ld_start, i) : vf_set1(MAGIC));
        qtile_dots(acc, NV, wide, 8 / per, t->codes + u * ug * nr, t->q + u * ug, ldq, c);
        for (int v = 0; v < NV; v++)
            for (int i = 0; i < acc; i++) {
                const int64_t at = (u * nr + v * LN) * PLANE;
                vf d = vf_fma(vf_from_bits(c[i][v]), tile_weights(t->scale + at, i), tile_weights(t->low + at, i));
                f[i][v] = vf_fma(d, tile_inputs(t->as + g, lds, i), f[i][v]);
                if (!even)
                    f[i][v] = vf_fma(tile_weights(t->min + at, i), tile_inputs(t->sum + u, lds * per, i), f[i][v]);
            }
    }
    for (int i = 0; PAIRS && t->last && i < acc; i += 2)
        for (int v = 0; v < NV; v++) tile_untangle(&f[i][v], &f[i + 1][v]);
    if (twin && !t->last)
        put_tile(acc, NV, f, t->acc, false, false, t->y, t->ldy, t->nr_valid);
    else
        put_tile(MR, NV, f, t->acc, t->last, t->add, t->y, t->ldy, t->nr_valid);
}

/* Every register tile as a function, so that each gets its own registers. */
#define QTILE(mr, nv)                                                                                                  \
    static NOINLINE void qtile_##mr##_##nv(const qtile *t, bool wide, int ug) {                                        \
        const bool even = t->offset >= 0;                                                                              \
        if (wide && even)                                                                                              \
            qtile_run(mr, nv, !WIDE_CODES, 32, true, t);                                                               \
        else if (wide)                                                                                                 \
            qtile_run(mr, nv, !WIDE_CODES, 32, false, t);                                                              \
        else if (ug == 32 && even)                                                                                     \
            qtile_run(mr, nv, false, 32, true, t);                                                                     \
        else if (ug == 32)                                                                                             \
            qtile_run(mr, nv, false, 32, false, t);                                                                    \
        else if (even)                                                                                                 \
            qtile_run(mr, nv, false, 16, true, t);                                                                     \
        else                                                                                                           \
            qtile_run(mr, nv, false, 16, false, t);                                                                    \
    }
TILES(QTILE)
#define QTILE_NAME(mr, nv) [nv - 1][mr - 1] = qtile_##mr##_##nv,
static void (*const qtiles[QNV][QMR])(const qtile *t, bool wide, int ug) = {TILES(QTILE_NAME)};

/* Input rows [m0, m1) over the panel's columns of groups [g, g + KB / 32), whose planes begin at p. */
static void qblock_run(const fa_weight *w, const qpanel *p, int64_t g, int nv, int n, const fa_act *x, int64_t m0,
                       int64_t m1, float *y, int64_t ldy, bool add) {
    const int64_t K = x->K, G = K / 32, nr = nv * LN;
    const int ug = fa_qfmts[w->fmt].ugroup;
    const bool wide = is_wide(w);
    qtile t = {.codes = p->codes,
               .scale = p->scale,
               .low = p->low,
               .min = p->min,
               .offset = offset_of(w),
               .ldq = K,
               .lds = G,
               .first = g == 0,
               .last = g + KB / 32 >= G,
               .add = add,
               .ldy = ldy,
               .nr_valid = n};
    t.n = t.last ? G - g : KB / 32;
    for (int64_t m = m0; m < m1;) {
        int mr = tile_rows(m1 - m, QMR);
        t.q = x->q + m * K + g * 32;
        t.as = x->scale + m * G + g;
        t.sum = ug == 32 ? x->sum32 + m * G + g : x->sum16 + (m * G + g) * 2;
        t.acc = p->acc + (m - m0) * nr;
        t.y = y + m * ldy;
        qtiles[nv - 1][mr - 1](&t, wide, ug);
        m += mr;
    }
}

/* Input rows [m0, m1) over the whole panel. */
static void qpanel_run(const fa_weight *w, const qpanel *p, int nv, int n, const fa_act *x, int64_t m0, int64_t m1,
                       float *y, int64_t ldy, bool add) {
    const int64_t nr = nv * LN;
    const int per = 32 / fa_qfmts[w->fmt].ugroup;
    for (int64_t g = 0; g < x->K / 32; g += KB / 32) {
        qpanel part = *p;
        part.codes += g * 32 * nr;
        part.scale += g * per * nr * PLANE;
        part.low += g * per * nr * PLANE;
        part.min += g * per * nr * PLANE;
        qblock_run(w, &part, g, nv, n, x, m0, m1, y, ldy, add);
    }
}

#ifdef ROW_KINDS
/* Rows [r, r + n), n <= LN, columns [k0, k1) to lanes v * LN of a panel that begins at column k0 */
#define PANEL_OF_KIND(kind, super)                                                                                     \
    static NOINLINE void panel_##kind(const fa_weight *w, int64_t r, int n, int64_t k0, int64_t k1, int v, int64_t nr, \
                                      bool pairs, const qpanel *p) {                                                   \
        const int ug = kind == ROW_Q6_K ? 16 : 32;                                                                     \
        if (row_paired(kind) && pairs)                                                                                 \
            panel_pairs(kind, super, w, r, n, k0, k1, QNV *LN, p->codes + v * LN * 4, nr);                             \
        else                                                                                                           \
            panel_codes(kind, super, w, r, n, k0, k1, QNV *LN, p->codes + v * LN * 4, nr);                             \
        panel_scales(kind, w, r, n, k0 / ug, k1 / ug, p->scale + v * LN, p->min + v * LN, nr);                         \
    }
ROW_KINDS(PANEL_OF_KIND)

static void panel_decoded(const fa_weight *w, int64_t r, int n, int64_t k0, int64_t k1, int v, int64_t nr, bool pairs,
                          const qpanel *p) {
    switch (row_kind(w)) {
#define CASE(kind, super)                                                                                              \
    case kind: panel_##kind(w, r, n, k0, k1, v, nr, pairs, p); break;
        ROW_KINDS(CASE)
#undef CASE
    default: break;
    }
}

/* Paired kinds times up to LN input rows leave the codes in pairs: x is then what pair_inputs made of the input. */
INLINE bool in_pairs(const fa_weight *w, int64_t M) { return M <= LN && row_paired(row_kind(w)); }

static fa_act pair_inputs(const fa_act *x, const qpanel *p) {
    fa_act out = *x;
    out.q = (int8_t *)p->row_codes;
    for (int64_t m = 0; m < x->M; m++) split_eights(x->q + m * x->K, x->K, out.q + m * x->K);
    return out;
}

/* Rows [r, r + n) of w times few enough input rows that filling a panel counts: each block of columns is decoded
 * straight into its place, used while it is in L1, and gives way to the next. false: no such kind, or too many rows. */
static bool blocks_decoded(const fa_weight *w, const qpanel *p, int64_t r, int nv, int n, const fa_act *x, float *y,
                           int64_t ldy, bool add) {
    if (x->M > MB || row_kind(w) == ROW_UNPACKED) return false;
    const bool pairs = in_pairs(w, x->M);
    const int64_t K = w->cols, nr = nv * LN;
    for (int64_t k = 0; k < K; k += KB) {
        const int64_t k1 = k + KB < K ? k + KB : K;
        for (int v = 0; v < nv; v++)
            panel_decoded(w, r + v * LN, n - v * LN < LN ? n - v * LN : LN, k, k1, v, nr, pairs, p);
        magic_scales(p->scale, p->low, (k1 - k) / fa_qfmts[w->fmt].ugroup * nr);
        qblock_run(w, p, k / 32, nv, n, x, 0, x->M, y, ldy, add);
    }
    return true;
}
#else
INLINE bool in_pairs(const fa_weight *w, int64_t M) {
    (void)w, (void)M;
    return false;
}
INLINE fa_act pair_inputs(const fa_act *x, const qpanel *p) {
    (void)p;
    return *x;
}
INLINE bool blocks_decoded(const fa_weight *w, const qpanel *p, int64_t r, int nv, int n, const fa_act *x, float *y,
                           int64_t ldy, bool add) {
    (void)w, (void)p, (void)r, (void)nv, (void)n, (void)x, (void)y, (void)ldy, (void)add;
    return false;
}
#endif

#ifdef ROW_KINDS
#include "backend/cpu/kern_body_few.h"
#else
INLINE bool few_linear(const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x, float *y, int64_t ldy, bool add,
                       void *scratch) {
    (void)w, (void)r0, (void)r1, (void)x, (void)y, (void)ldy, (void)add, (void)scratch;
    return false;
}
INLINE size_t few_bytes(int64_t K, int64_t M) {
    (void)K, (void)M;
    return 0;
}
INLINE void few_init(fa_kernels *k) { (void)k; }
#endif

static void linear_q8(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x, float *y,
                      int64_t ldy, bool add, void *scratch) {
    if (few_linear(w, r0, r1, x, y, ldy, add, scratch)) return;
    if (x->M <= DOT_M) {
        qrow_linear(k, w, r0, r1, x, y, ldy, add, scratch);
        return;
    }
    qpanel p = qpanel_at(scratch, w->cols);
    const fa_act few = in_pairs(w, x->M) ? pair_inputs(x, &p) : *x;
    for (int64_t r = r0; r < r1; r += QNV * LN) {
        int n = r1 - r < QNV * LN ? (int)(r1 - r) : QNV * LN, nv = (n + LN - 1) / LN;
        if (blocks_decoded(w, &p, r, nv, n, &few, y + r, ldy, add)) continue;
        qpanel_fill(k, w, r, n, nv, &p);
        for (int64_t m = 0; m < x->M; m += MB)
            qpanel_run(w, &p, nv, n, x, m, m + MB < x->M ? m + MB : x->M, y + r, ldy, add);
    }
}

/* ---- f32 ---- */

/* LN stored values from any address as floats */
INLINE vf vf_stored(const int fmt, const uint8_t *p, int64_t i) {
    return fmt == FA_FMT_F32 ? vf_f32(p + 4 * i) : fmt == FA_FMT_F16 ? vf_f16(p + 2 * i) : vf_bf16(p + 2 * i);
}

/* n < LN of them, the other lanes 0; reads no byte more */
INLINE vf vf_stored_n(const int fmt, const uint8_t *p, int64_t i, int n) {
    uint8_t part[4 * LN] = {0};
    const size_t size = fmt == FA_FMT_F32 ? 4 : 2;
    memcpy(part, p + (size_t)i * size, (size_t)n * size);
    return vf_stored(fmt, part, 0);
}

INLINE void widen(const int fmt, const uint8_t *p, int64_t n, float *out) {
    int64_t i = 0;
    for (; i + LN <= n; i += LN) vf_store(out + i, vf_stored(fmt, p, i));
    if (i < n) vf_storen(out + i, vf_stored_n(fmt, p, i, (int)(n - i)), (int)(n - i));
}

/* Canonical values [k, k + n) as floats; k and n are multiples of 32. */
static void widen_codes(int ug, const uint8_t *codes, const float *scale, const float *min, int64_t k, int64_t n,
                        float *out) {
    for (int64_t i = 0; i < n; i += 16) {
        vf s = vf_set1(scale[(k + i) / ug]), mn = vf_set1(min[(k + i) / ug]);
        for (int j = 0; j < 16; j += LN) vf_store(out + i + j, vf_fma(vf_u8(codes + k + i + j), s, mn));
    }
}

/* Columns [k, k + n) of a row of E4M3 bytes. Moved to the place of an f16 they are worth 2^-8 of what they are, zero
 * and subnormal ones too; only NaN has to be made. */
static void widen_fp8(const fa_weight *w, int64_t r, int64_t k, int64_t n, float *out) {
    const uint8_t *p = w->codes + (size_t)r * w->row_bytes + k, *s = w->scales + (size_t)r * w->scale_row_bytes;
    const int64_t group = w->group ? w->group : w->cols;
    uint16_t half[32];
    for (int64_t i = 0, m; i < n; i += m) {
        const int64_t g = (k + i) / group, left = (g + 1) * group - (k + i);
        m = n - i < 32 ? n - i : 32;
        if (m > left) m = left;
        float scale;
        if (w->scale_dtype == FA_U8) {
            const uint32_t u = s[g] ? (uint32_t)s[g] << 23 : 0x400000u; /* 255: infinite, as in mlx */
            memcpy(&scale, &u, 4);
        } else
            memcpy(&scale, s + 4 * g, 4);
        for (int64_t j = 0; j < m; j++) {
            const unsigned v = p[i + j], mag = v & 127;
            half[j] = (uint16_t)((v & 128) << 8 | (mag == 127 ? 0x7E00u : mag << 7));
        }
        for (int64_t j = m; j < (m + LN - 1) / LN * LN; j++) half[j] = 0;
        for (int64_t j = 0; j < m; j += LN) {
            const vf v = vf_mul(vf_mul(vf_f16((const uint8_t *)(half + j)), vf_set1(256.0f)), vf_set1(scale));
            if (m - j >= LN)
                vf_store(out + i + j, v);
            else
                vf_storen(out + i + j, v, (int)(m - j));
        }
    }
}

/* out[i] = dot(row, x of input row i), MR input rows at once */
INLINE void frow_dot(const int MR, const int fmt, const uint8_t *row, int64_t K, const float *x, int64_t ldx,
                     float *out) {
    vf a[4], b[4];
    for (int i = 0; i < MR; i++) a[i] = b[i] = vf_zero();
    int64_t k = 0;
    for (; k + 2 * LN <= K; k += 2 * LN) {
        vf w0 = vf_stored(fmt, row, k), w1 = vf_stored(fmt, row, k + LN);
        const uint8_t *ahead = row + k * (fmt == FA_FMT_F32 ? 4 : 2) + AHEAD;
        __builtin_prefetch(ahead);
        if (fmt == FA_FMT_F32) __builtin_prefetch(ahead + 4 * LN);
        for (int i = 0; i < MR; i++) {
            a[i] = vf_fma(w0, vf_load(x + i * ldx + k), a[i]);
            b[i] = vf_fma(w1, vf_load(x + i * ldx + k + LN), b[i]);
        }
    }
    for (; k < K; k += LN) {
        int n = K - k < LN ? (int)(K - k) : LN;
        vf w0 = vf_stored_n(fmt, row, k, n);
        for (int i = 0; i < MR; i++) a[i] = vf_fma(w0, vf_loadn(x + i * ldx + k, n), a[i]);
    }
    for (int i = 0; i < MR; i++) out[i] = vf_sum(vf_add(a[i], b[i]));
}

INLINE void frow_all(const int fmt, const uint8_t *row, int64_t K, const float *x, int64_t ldx, int64_t M, float *y,
                     int64_t ldy, bool add) {
    float out[4];
    int n = 0;
    for (int64_t m = 0; m < M; m += n) {
        n = M - m >= 4 ? 4 : M - m >= 2 ? 2 : 1;
        if (n == 4)
            frow_dot(4, fmt, row, K, x + m * ldx, ldx, out);
        else if (n == 2)
            frow_dot(2, fmt, row, K, x + m * ldx, ldx, out);
        else
            frow_dot(1, fmt, row, K, x + m * ldx, ldx, out);
        for (int i = 0; i < n; i++) y[(m + i) * ldy] = add ? y[(m + i) * ldy] + out[i] : out[i];
    }
}

static void frow_linear(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                        int64_t M, float *y, int64_t ldy, bool add, void *scratch) {
    const int64_t K = w->cols;
    const int ug = fa_qfmts[w->fmt].ugroup;
    qrow b = qrow_at(scratch, K);
    float *wide = (float *)(b.codes + round_up(K + 64, 64));
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *row = w->codes + (size_t)r * w->row_bytes;
        if (ug) {
            k->unpack[w->fmt](w, r, b.codes, b.scale, b.min);
            widen_codes(ug, b.codes, b.scale, b.min, 0, K, wide);
            row = (const uint8_t *)wide;
        } else if (!fa_fmt_plain(w->fmt)) {
            widen_fp8(w, r, 0, K, wide);
            row = (const uint8_t *)wide;
        }
        if (row == (const uint8_t *)wide || w->fmt == FA_FMT_F32)
            frow_all(FA_FMT_F32, row, K, x, ldx, M, y + r, ldy, add);
        else if (w->fmt == FA_FMT_F16)
            frow_all(FA_FMT_F16, row, K, x, ldx, M, y + r, ldy, add);
        else
            frow_all(FA_FMT_BF16, row, K, x, ldx, M, y + r, ldy, add);
    }
}

enum { FSTEP = 256, FSTEP_LD = FSTEP + 16 }; /* columns widened before they are interleaved */

typedef struct fpanel {
    float *w;    /* [K][nr] */
    float *acc;  /* [MB][nr] */
    float *step; /* [LN][FSTEP_LD] */
    qpanel q;    /* only row_* are used */
} fpanel;

static size_t fpanel_bytes(int64_t K) {
    int64_t nr = FNV * LN;
    return (size_t)(nr * K * 4 + MB * nr * 4 + LN * (FSTEP_LD + 16) * 4 + LN * row_ld(K) + 2 * LN * groups_ld(K) * 4);
}

static fpanel fpanel_at(void *scratch, int64_t K) {
    fpanel p = {0};
    int64_t nr = FNV * LN;
    p.w = (float *)scratch;
    p.acc = p.w + nr * K;
    p.step = p.acc + MB * nr;
    p.q.row_ld = row_ld(K);
    p.q.ld = groups_ld(K);
    p.q.row_scale = p.step + LN * (FSTEP_LD + 16);
    p.q.row_min = p.q.row_scale + LN * p.q.ld;
    p.q.row_codes = (uint8_t *)(p.q.row_min + LN * p.q.ld);
    return p;
}

/* Columns [k, k + n) of row r of w (row i of the LN that were unpacked) into out. */
static void widen_step(const fa_weight *w, const fpanel *p, int64_t r, int i, int64_t k, int64_t n, float *out) {
    const uint8_t *row = w->codes + (size_t)r * w->row_bytes;
    const qpanel *q = &p->q;
    if (w->fmt == FA_FMT_F32)
        widen(FA_FMT_F32, row + 4 * k, n, out);
    else if (w->fmt == FA_FMT_F16)
        widen(FA_FMT_F16, row + 2 * k, n, out);
    else if (w->fmt == FA_FMT_BF16)
        widen(FA_FMT_BF16, row + 2 * k, n, out);
    else if (w->fmt == FA_FMT_MXFP8 || w->fmt == FA_FMT_FP8)
        widen_fp8(w, r, k, n, out);
    else
        widen_codes(fa_qfmts[w->fmt].ugroup, q->row_codes + i * q->row_ld, q->row_scale + i * q->ld,
                    q->row_min + i * q->ld, k, n, out);
}

static void fpanel_fill(const fa_kernels *k, const fa_weight *w, int64_t r, int n, int nv, const fpanel *p) {
    const int64_t K = w->cols, nr = nv * LN;
    const qpanel *q = &p->q;
    for (int v = 0; v < nv; v++) {
        int rows = n - v * LN < LN ? n - v * LN : LN;
        if (fa_qfmts[w->fmt].ugroup)
            for (int i = 0; i < rows; i++)
                k->unpack[w->fmt](w, r + v * LN + i, q->row_codes + i * q->row_ld, q->row_scale + i * q->ld,
                                  q->row_min + i * q->ld);
        for (int64_t c = 0; c < K; c += FSTEP) {
            int64_t cols = K - c < FSTEP ? K - c : FSTEP;
            for (int i = 0; i < rows; i++) widen_step(w, p, r + v * LN + i, i, c, cols, p->step + i * FSTEP_LD);
            for (int i = rows; i < LN; i++) memset(p->step + i * FSTEP_LD, 0, (size_t)cols * 4);
            transpose(p->step, FSTEP_LD * 4, p->w + c * nr + v * LN, (size_t)nr * 4, cols);
        }
    }
}

/* One register tile over n columns. */
typedef struct ftile {
    const float *w, *x;
    int64_t n, ldx;
    float *acc;
    bool first, last, add;
    float *y;
    int64_t ldy;
    int nr_valid;
} ftile;

INLINE void ftile_run(const int MR, const int NV, const ftile *t) {
    const int nr = NV * LN;
    const int64_t ldx = t->ldx;
    vf f[FMR][TNV];
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < NV; v++) f[i][v] = t->first ? vf_zero() : vf_load(t->acc + i * nr + v * LN);
    const float *w = t->w, *x = t->x;
    for (int64_t k = 0; k < t->n; k++, w += nr, x++) {
        vf b[TNV];
        for (int v = 0; v < NV; v++) b[v] = vf_load(w + v * LN);
        for (int i = 0; i < MR; i++) {
            vf a = vf_set1(x[i * ldx]);
            for (int v = 0; v < NV; v++) f[i][v] = vf_fma(a, b[v], f[i][v]);
        }
    }
    put_tile(MR, NV, f, t->acc, t->last, t->add, t->y, t->ldy, t->nr_valid);
}

#define FTILE(mr, nv)                                                                                                  \
    static NOINLINE void ftile_##mr##_##nv(const ftile *t) { ftile_run(mr, nv, t); }
FTILES(FTILE)
#define FTILE_NAME(mr, nv) [nv - 1][mr - 1] = ftile_##mr##_##nv,
static void (*const ftiles[FNV][FMR])(const ftile *t) = {FTILES(FTILE_NAME)};

static void fpanel_run(const fpanel *p, int64_t K, int nv, int n, const float *x, int64_t ldx, int64_t M, float *y,
                       int64_t ldy, bool add) {
    const int64_t nr = nv * LN;
    for (int64_t k = 0; k == 0 || k < K; k += KBF) {
        ftile t = {.w = p->w + k * nr,
                   .ldx = ldx,
                   .first = k == 0,
                   .last = k + KBF >= K,
                   .add = add,
                   .ldy = ldy,
                   .nr_valid = n};
        t.n = t.last ? K - k : KBF;
        for (int64_t m = 0; m < M;) {
            int mr = tile_rows(M - m, FMR);
            t.x = x + m * ldx + k;
            t.acc = p->acc + m * nr;
            t.y = y + m * ldy;
            ftiles[nv - 1][mr - 1](&t);
            m += mr;
        }
    }
}

static void linear_f32(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                       int64_t M, float *y, int64_t ldy, bool add, void *scratch) {
    if (M <= DOT_M) {
        frow_linear(k, w, r0, r1, x, ldx, M, y, ldy, add, scratch);
        return;
    }
    fpanel p = fpanel_at(scratch, w->cols);
    for (int64_t r = r0; r < r1; r += FNV * LN) {
        int n = r1 - r < FNV * LN ? (int)(r1 - r) : FNV * LN, nv = (n + LN - 1) / LN;
        fpanel_fill(k, w, r, n, nv, &p);
        for (int64_t m = 0; m < M; m += MB)
            fpanel_run(&p, w->cols, nv, n, x + m * ldx, ldx, m + MB < M ? MB : M - m, y + m * ldy + r, ldy, add);
    }
}

static size_t linear_scratch(int64_t cols, int64_t M) {
    size_t few = qrow_bytes(cols) + (size_t)cols * 4, q = qpanel_bytes(cols), f = fpanel_bytes(cols);
    const size_t turned = M <= FEW_M ? few_bytes(cols, M) : 0;
    if (few < turned) few = turned;
    if (M <= DOT_M) return few;
    return few > q ? few > f ? few : f : q > f ? q : f;
}

static void linear_init(fa_kernels *k) {
    k->quant_act = quant_act;
    k->linear_q8 = linear_q8;
    k->linear_f32 = linear_f32;
    k->linear_scratch = linear_scratch;
    k->row_tile = QNV * LN;
    few_init(k);
}

#endif
