/* Attention over paged KV on vectors, one text for all ISAs: include a vocabulary (kern_simd_<isa>.h) first. Ends in
 * attend_init.
 *
 * A row is one query row and one head of the group: row r = i * n_group + j. Pages are visited in order with a running
 * maximum m, sum l and output o per row. Two ways to do a page:
 *   stream  few rows (decode): K and V are read once, in their own type, and widened in registers, four tokens at a
 *           time against V_DR rows.
 *   pack    many rows (prompt tiles): K is transposed and V widened into scratch once, then two register-tiled matrix
 *           products, S = Q K^T and O = keep O + P V, over tiles of V_MR rows.
 * Columns of q, o and the packed pages are in pair order (v_ldp) as far as whole pairs of vectors go, and in order
 * after that: a dot product does not care, and q and o are reordered once per call. Tokens that no row sees may hold
 * anything, even NaN: scores are masked by selection, and V rows of unseen tokens never reach a product. */
#ifndef FA_CPU_KERN_BODY_ATTEND_H
#define FA_CPU_KERN_BODY_ATTEND_H

#include "backend/cpu/kern_attend.h"
#include "backend/cpu/kern_body_math.h"

#include <math.h>

enum {
    PANEL = V_NV * VL, /* columns of one packed panel */
    STREAM_ROWS = 8,   /* up to here a page is streamed */
};

typedef struct att {
    const fa_attend_args *a;
    int d, dp;           /* head_dim, and rounded up to VL */
    int64_t rows;        /* n_q * n_group; arrays below are padded to a multiple of V_MR rows */
    int paired;          /* columns below this come in pairs of vectors */
    int32_t last;        /* the page that ends the walk */
    float *q, *o;        /* [rows, dp], q scaled, zeros beyond d */
    float *m, *l;        /* [rows] */
    float *keep;         /* [rows] e^(old m - new m) of the current page */
    float *s;            /* [rows, 64] scores, then weights, of the current page */
    float *kt, *v;       /* packed pages: kt [64 / PANEL][dp][PANEL]; v by panels of up to PANEL columns: [64][width] */
    float *wide;         /* an 8-bit page's K and V in f32, [2][64, d] */
    const void *kp, *vp; /* the current page, of type */
    fa_dtype type;
} att;

static int64_t att_rows(int64_t n) { return (n + V_MR - 1) / V_MR * V_MR; }

static size_t vec_attend_scratch(int n_q, int n_group, int head_dim) {
    size_t rows = (size_t)att_rows((int64_t)n_q * n_group), dp = ((size_t)head_dim + VL - 1) / VL * VL;
    size_t per_row = (rows + 15) / 16 * 16;
    return sizeof(float) * (2 * rows * dp + 3 * per_row + rows * FA_PAGE + 4 * FA_PAGE * dp);
}

static void load_q(const att *t, const float *q, float *out) {
    const vf scale = v_set1(t->a->scale);
    int c = 0;
    for (; c < t->paired; c += 2 * VL) {
        vf x = v_load(q + c), y = v_load(q + c + VL);
        if (t->a->kv_dtype == FA_BF16) v_ld2(q + c, &x, &y);
        v_store(out + c, v_mul(x, scale));
        v_store(out + c + VL, v_mul(y, scale));
    }
    for (; c < t->d; c++) out[c] = q[c] * t->a->scale;
}

/* out = o * w in the caller's order */
static void store_o(const att *t, const float *o, float w, float *out) {
    int c = 0;
    for (; c < t->paired; c += 2 * VL) {
        vf x = v_mul(v_load(o + c), v_set1(w)), y = v_mul(v_load(o + c + VL), v_set1(w));
        if (t->a->kv_dtype == FA_BF16) {
            v_st2(out + c, x, y);
        } else {
            v_store(out + c, x);
            v_store(out + c + VL, y);
        }
    }
    for (; c < t->d; c++) out[c] = o[c] * w;
}

static void att_setup(att *t, const fa_attend_args *a, float *scratch) {
    const int64_t rows = att_rows((int64_t)a->n_q * a->n_group), per_row = (rows + 15) / 16 * 16;
    t->a = a;
    t->d = a->head_dim;
    t->dp = (a->head_dim + VL - 1) / VL * VL;
    t->paired = a->head_dim / (2 * VL) * (2 * VL);
    t->rows = (int64_t)a->n_q * a->n_group;
    t->q = scratch;
    t->o = t->q + rows * t->dp;
    t->kt = t->o + rows * t->dp;
    t->v = t->kt + (ptrdiff_t)FA_PAGE * t->dp;
    t->s = t->v + (ptrdiff_t)FA_PAGE * t->dp;
    t->m = t->s + rows * FA_PAGE;
    t->l = t->m + per_row;
    t->keep = t->l + per_row;
    t->wide = t->keep + per_row;
    memset(t->q, 0, sizeof(float) * (size_t)(2 * rows * t->dp));
    for (int64_t r = 0; r < rows; r++) {
        t->m[r] = -INFINITY;
        t->l[r] = 0;
        t->keep[r] = 1;
        if (r >= t->rows) continue;
        const float *q = a->q + r / a->n_group * a->q_stride + r % a->n_group * t->d;
        load_q(t, q, t->q + r * t->dp);
    }
}

/* The tokens [*t0, *t1) of the page that starts at position `first` which query row i sees; false when there are none.
 */
V_INLINE bool window(const fa_attend_args *a, int64_t i, int32_t first, int *t0, int *t1) {
    int32_t lo = a->kv_lo[i] > a->pos0 ? a->kv_lo[i] : a->pos0, hi = a->kv_hi[i] < a->pos1 ? a->kv_hi[i] : a->pos1;
    *t0 = lo > first ? (lo - first < FA_PAGE ? lo - first : FA_PAGE) : 0;
    *t1 = hi > first ? (hi - first < FA_PAGE ? hi - first : FA_PAGE) : 0;
    return *t0 < *t1;
}

static uint64_t token_bits(int t0, int t1) {
    return (t1 == FA_PAGE ? ~UINT64_C(0) : (UINT64_C(1) << t1) - 1) & ~((UINT64_C(1) << t0) - 1);
}

/* Scores of one row's 64 tokens become weights e^(s - new m); [t0, t1) is what the row sees, not empty. Updates m, l
 * and keep. */
V_INLINE void soften(const att *t, int64_t r, int t0, int t1) {
    enum { N = FA_PAGE / VL };
    float *s = t->s + r * FA_PAGE;
    vf x[N], top = v_set1(-INFINITY), sum = v_set1(0);
    V_UNROLL for (int j = 0; j < N; j++) x[j] = v_load(s + j * VL);
    if (t->a->softcap > 0) {
        const vf cap = v_set1(t->a->softcap);
        V_UNROLL for (int j = 0; j < N; j++) x[j] = v_mul(cap, v_tanh(v_div(x[j], cap)));
    }
    if (t1 - t0 < FA_PAGE) {
        const vf lo = v_set1((float)t0 - 0.5f), hi = v_set1((float)t1 - 0.5f), none = v_set1(-INFINITY);
        V_UNROLL for (int j = 0; j < N; j++) {
            vf i = v_add(v_iota(), v_set1((float)(j * VL)));
            x[j] = v_lt(lo, i, v_lt(i, hi, x[j], none), none);
        }
    }
    V_UNROLL for (int j = 0; j < N; j++) top = v_max(top, x[j]);
    float m0 = t->m[r], m1 = v_top(top);
    m1 = m1 > m0 ? m1 : m0;
    const vf base = v_set1(m1 == -INFINITY ? 0 : m1); /* all scores -inf: weights 0, not NaN */
    V_UNROLL for (int j = 0; j < N; j++) {
        x[j] = v_exp(v_sub(x[j], base));
        v_store(s + j * VL, x[j]);
        sum = v_add(sum, x[j]);
    }
    float keep = 1, lanes[VL];
    if (m1 > m0) {
        v_store(lanes, v_exp(v_set1(m0 - m1)));
        keep = lanes[0];
    }
    t->m[r] = m1;
    t->keep[r] = keep;
    t->l[r] = t->l[r] * keep + v_sum(sum);
}

/* c[mr, nv * VL] = keep[mr] * c (or 0 when keep is NULL) + a[mr, n] b[n, nv * VL]. */
V_INLINE void product(const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, int n, float *c, ptrdiff_t ldc,
                      const float *keep, const int nv) {
    vf acc[V_MR][V_NV];
    V_UNROLL for (int i = 0; i < V_MR; i++) {
        V_UNROLL for (int j = 0; j < nv; j++) acc[i][j] =
            keep ? v_mul(v_set1(keep[i]), v_load(c + i * ldc + j * VL)) : v_set1(0);
    }
    for (int k = 0; k < n; k++) {
        vf y[V_NV];
        V_UNROLL for (int j = 0; j < nv; j++) y[j] = v_load(b + k * ldb + j * VL);
        V_UNROLL for (int i = 0; i < V_MR; i++) {
            vf x = v_set1(a[i * lda + k]);
            V_UNROLL for (int j = 0; j < nv; j++) acc[i][j] = v_fma(x, y[j], acc[i][j]);
        }
    }
    V_UNROLL for (int i = 0; i < V_MR; i++) {
        V_UNROLL for (int j = 0; j < nv; j++) v_store(c + i * ldc + j * VL, acc[i][j]);
    }
}

/* The next VL of `left` > 0 values, zeros after them. */
V_INLINE vf load_some(const void *p, int64_t at, const fa_dtype type, int left) {
    return left >= VL ? v_ld(p, at, type) : v_ldn(p, at, type, left);
}

/* VL tokens by 2 VL dims, rows of the page d apart, to 2 VL rows of a panel. For BF16 the transpose works on pairs of
 * values, which halves it: `x` holds both until the end. */
V_INLINE void pack_k_pair(const void *page, int64_t at, int d, const fa_dtype type, float *out) {
    vf x[VL], y[VL];
    if (type == FA_BF16) {
        V_UNROLL for (int i = 0; i < VL; i++) x[i] = v_ld((const char *)page + 2 * (at + (int64_t)i * d), 0, FA_F32);
        v_transpose(x);
        V_UNROLL for (int i = 0; i < VL; i++) {
            v_store(out + (ptrdiff_t)i * PANEL, v_low_half(x[i]));
            v_store(out + (ptrdiff_t)(VL + i) * PANEL, v_high_half(x[i]));
        }
        return;
    }
    V_UNROLL for (int i = 0; i < VL; i++) v_ldp(page, at + (int64_t)i * d, type, &x[i], &y[i]);
    v_transpose(x);
    V_UNROLL for (int i = 0; i < VL; i++) v_store(out + (ptrdiff_t)i * PANEL, x[i]);
    v_transpose(y);
    V_UNROLL for (int i = 0; i < VL; i++) v_store(out + (ptrdiff_t)(VL + i) * PANEL, y[i]);
}

/* Transposes K: VL tokens by VL dims at a time. */
V_INLINE void pack_k(const att *t, const void *page, const fa_dtype type) {
    for (int k = 0; k < FA_PAGE; k += VL) {
        float *panel = t->kt + (ptrdiff_t)(k / PANEL) * PANEL * t->dp + k % PANEL;
        const int64_t at = (int64_t)k * t->d;
        int c = 0;
        for (; c < t->paired; c += 2 * VL) pack_k_pair(page, at + c, t->d, type, panel + (ptrdiff_t)c * PANEL);
        for (; c < t->dp; c += VL) {
            vf x[VL];
            V_UNROLL for (int i = 0; i < VL; i++) x[i] = load_some(page, at + (int64_t)i * t->d + c, type, t->d - c);
            v_transpose(x);
            V_UNROLL for (int i = 0; i < VL; i++) v_store(panel + (ptrdiff_t)(c + i) * PANEL, x[i]);
        }
    }
}

/* Widens V into panels; tokens outside `seen` become zeros. */
V_INLINE void pack_v(const att *t, const void *page, const fa_dtype type, uint64_t seen) {
    for (int c0 = 0; c0 < t->dp; c0 += PANEL) {
        const int width = t->dp - c0 < PANEL ? t->dp - c0 : PANEL,
                  pairs = t->paired - c0 < width ? t->paired - c0 : width;
        for (int k = 0; k < FA_PAGE; k++) {
            float *out = t->v + (ptrdiff_t)c0 * FA_PAGE + (ptrdiff_t)k * width;
            const int64_t at = (int64_t)k * t->d + c0;
            int c = 0;
            if (!(seen >> k & 1)) {
                memset(out, 0, sizeof(float) * (size_t)width);
                continue;
            }
            for (; c < pairs; c += 2 * VL) {
                vf x, y;
                v_ldp(page, at + c, type, &x, &y);
                v_store(out + c, x);
                v_store(out + c + VL, y);
            }
            for (; c < width; c += VL) v_store(out + c, load_some(page, at + c, type, t->d - c0 - c));
        }
    }
}

/* The tokens that any of the rows [r, r + V_MR) sees. */
static bool tile_window(const att *t, int64_t r, int32_t first, int *t0, int *t1) {
    int64_t end = r + V_MR < t->rows ? r + V_MR : t->rows;
    *t0 = FA_PAGE;
    *t1 = 0;
    for (int64_t i = r / t->a->n_group; i <= (end - 1) / t->a->n_group; i++) {
        int lo, hi;
        if (!window(t->a, i, first, &lo, &hi)) continue;
        *t0 = lo < *t0 ? lo : *t0;
        *t1 = hi > *t1 ? hi : *t1;
    }
    return *t0 < *t1;
}

/* Scores and weights of one tile of rows. Rows of the tile that see nothing of the page get weights 0. */
static void packed_weights(const att *t, int64_t r0, int32_t first, int tile0, int tile1) {
    for (int k = tile0 / PANEL * PANEL; k < tile1; k += PANEL)
        product(t->q + r0 * t->dp, t->dp, t->kt + (ptrdiff_t)k * t->dp, PANEL, t->d, t->s + r0 * FA_PAGE + k, FA_PAGE,
                NULL, V_NV);
    for (int64_t r = r0; r < r0 + V_MR; r++) {
        int t0, t1;
        if (r < t->rows && window(t->a, r / t->a->n_group, first, &t0, &t1)) {
            soften(t, r, t0, t1);
        } else {
            memset(t->s + r * FA_PAGE, 0, sizeof(float) * FA_PAGE);
            t->keep[r] = 1;
        }
    }
}

static void page_packed(const att *t, int32_t page, uint64_t seen) {
    const int32_t first = page * FA_PAGE;
    switch (t->type) {
    case FA_F32: pack_k(t, t->kp, FA_F32), pack_v(t, t->vp, FA_F32, seen); break;
    case FA_F16: pack_k(t, t->kp, FA_F16), pack_v(t, t->vp, FA_F16, seen); break;
    default: pack_k(t, t->kp, FA_BF16), pack_v(t, t->vp, FA_BF16, seen); break;
    }
    int t0, t1;
    for (int64_t r = 0; r < t->rows; r += V_MR)
        if (tile_window(t, r, first, &t0, &t1)) packed_weights(t, r, first, t0, t1);
    for (int c = 0; c < t->dp; c += PANEL) {
        const int width = t->dp - c < PANEL ? t->dp - c : PANEL;
        const float *panel = t->v + (ptrdiff_t)c * FA_PAGE;
        for (int64_t r = 0; r < t->rows; r += V_MR) {
            if (!tile_window(t, r, first, &t0, &t1)) continue;
            const float *w = t->s + r * FA_PAGE + t0, *b = panel + (ptrdiff_t)t0 * width;
            float *o = t->o + r * t->dp + c;
            if (width == PANEL) {
                product(w, FA_PAGE, b, PANEL, t1 - t0, o, t->dp, t->keep + r, V_NV);
            } else {
                for (int j = 0; j < width; j += VL)
                    product(w, FA_PAGE, b + j, width, t1 - t0, o + j, t->dp, t->keep + r, 1);
            }
        }
    }
}

/* Rows of the page [64, d] that will be needed in a moment: tokens [k, k + n). They go to the second-level cache. */
V_INLINE void fetch_rows(const att *t, const void *page, const fa_dtype type, int k, int n) {
    const ptrdiff_t row = (ptrdiff_t)t->d * (type == FA_F32 ? 4 : 2);
    if (!page) return;
    for (ptrdiff_t i = k * row; i < (k + n) * row; i += 64) __builtin_prefetch((const char *)page + i, 0, 2);
}

/* s[nr rows][tokens k .. k + 4) = q . K, K read in its own type. */
V_INLINE void stream_dots(const att *t, const void *page, const fa_dtype type, int k, int64_t r, const int nr) {
    vf acc[V_DR][4];
    V_UNROLL for (int i = 0; i < nr; i++) { V_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = v_set1(0); }
    const float *q = t->q + r * t->dp;
    const int64_t at = (int64_t)k * t->d;
    int c = 0;
    for (; c < t->paired; c += 2 * VL) {
        V_UNROLL for (int j = 0; j < 4; j++) {
            vf x, y;
            v_ldp(page, at + (int64_t)j * t->d + c, type, &x, &y);
            V_UNROLL for (int i = 0; i < nr; i++) {
                const float *qi = q + (ptrdiff_t)i * t->dp + c;
                acc[i][j] = v_fma(y, v_load(qi + VL), v_fma(x, v_load(qi), acc[i][j]));
            }
        }
    }
    for (; c < t->d; c += VL) {
        V_UNROLL for (int j = 0; j < 4; j++) {
            vf x = load_some(page, at + (int64_t)j * t->d + c, type, t->d - c);
            V_UNROLL for (int i = 0; i < nr; i++) acc[i][j] = v_fma(x, v_load(q + (ptrdiff_t)i * t->dp + c), acc[i][j]);
        }
    }
    V_UNROLL for (int i = 0; i < nr; i++)
        v_sum4(acc[i][0], acc[i][1], acc[i][2], acc[i][3], t->s + (r + i) * FA_PAGE + k);
}

/* o[nr rows][c .. c + nv * VL) = keep * o + the weights of tokens [t0, t1) times V, read in its own type, in pairs of
 * vectors. */
V_INLINE void stream_sum(const att *t, const void *page, const fa_dtype type, int t0, int t1, int64_t r, const int nr,
                         int c, const int nv) {
    vf acc[V_DR][8];
    V_UNROLL for (int i = 0; i < nr; i++) {
        V_UNROLL for (int j = 0; j < nv; j++) acc[i][j] =
            v_mul(v_set1(t->keep[r + i]), v_load(t->o + (r + i) * t->dp + c + j * VL));
    }
    const float *w = t->s + r * FA_PAGE;
    for (int k = t0; k < t1; k++) {
        V_UNROLL for (int j = 0; j < nv; j += 2) {
            vf x, y;
            v_ldp(page, (int64_t)k * t->d + c + j * VL, type, &x, &y);
            V_UNROLL for (int i = 0; i < nr; i++) {
                vf p = v_set1(w[i * FA_PAGE + k]);
                acc[i][j] = v_fma(p, x, acc[i][j]);
                acc[i][j + 1] = v_fma(p, y, acc[i][j + 1]);
            }
        }
    }
    V_UNROLL for (int i = 0; i < nr; i++) {
        V_UNROLL for (int j = 0; j < nv; j++) v_store(t->o + (r + i) * t->dp + c + j * VL, acc[i][j]);
    }
}

/* The same for the last columns, which are no whole pair: up to VL of them. */
V_INLINE void stream_rest(const att *t, const void *page, const fa_dtype type, int t0, int t1, int64_t r, const int nr,
                          int c) {
    vf acc[V_DR];
    V_UNROLL for (int i = 0; i < nr; i++) acc[i] = v_mul(v_set1(t->keep[r + i]), v_load(t->o + (r + i) * t->dp + c));
    for (int k = t0; k < t1; k++) {
        vf x = load_some(page, (int64_t)k * t->d + c, type, t->d - c);
        V_UNROLL for (int i = 0; i < nr; i++) acc[i] = v_fma(v_set1(t->s[(r + i) * FA_PAGE + k]), x, acc[i]);
    }
    V_UNROLL for (int i = 0; i < nr; i++) v_store(t->o + (r + i) * t->dp + c, acc[i]);
}

V_INLINE void stream_sums(const att *t, const void *page, const fa_dtype type, int t0, int t1, int64_t r,
                          const int nr) {
    const int wide = nr == 1 ? 8 : V_DR * 4 / nr;
    int c = 0;
    for (; c + wide * VL <= t->paired; c += wide * VL) stream_sum(t, page, type, t0, t1, r, nr, c, wide);
    for (; c < t->paired; c += 2 * VL) stream_sum(t, page, type, t0, t1, r, nr, c, 2);
    for (; c < t->d; c += VL) stream_rest(t, page, type, t0, t1, r, nr, c);
}

V_INLINE void page_streamed(const att *t, int32_t page, int t0, int t1, const fa_dtype type) {
    const void *kp = t->kp, *vp = t->vp,
               *next = page < t->last && t->a->kv_dtype == type ? t->a->k_page[page + 1] : NULL;
    for (int k = t0 / 4 * 4; k < t1; k += 4) {
        int64_t r = 0;
        fetch_rows(t, vp, type, k, 4);
        for (; r + V_DR <= t->rows; r += V_DR) stream_dots(t, kp, type, k, r, V_DR);
        for (; r + 2 <= t->rows; r += 2) stream_dots(t, kp, type, k, r, 2);
        if (r < t->rows) stream_dots(t, kp, type, k, r, 1);
    }
    for (int64_t r = 0; r < t->rows; r++) {
        int lo, hi;
        if (window(t->a, r / t->a->n_group, page * FA_PAGE, &lo, &hi)) {
            soften(t, r, lo, hi);
        } else {
            memset(t->s + r * FA_PAGE, 0, sizeof(float) * FA_PAGE);
            t->keep[r] = 1;
        }
    }
    fetch_rows(t, next, type, 0, FA_PAGE);
    int64_t r = 0;
    for (; r + V_DR <= t->rows; r += V_DR) stream_sums(t, vp, type, t0, t1, r, V_DR);
    for (; r + 2 <= t->rows; r += 2) stream_sums(t, vp, type, t0, t1, r, 2);
    if (r < t->rows) stream_sums(t, vp, type, t0, t1, r, 1);
}

static void page_streamed_f32(const att *t, int32_t page, int t0, int t1) { page_streamed(t, page, t0, t1, FA_F32); }
static void page_streamed_f16(const att *t, int32_t page, int t0, int t1) { page_streamed(t, page, t0, t1, FA_F16); }
static void page_streamed_bf16(const att *t, int32_t page, int t0, int t1) { page_streamed(t, page, t0, t1, FA_BF16); }

/* Tokens [t0, t1) of an 8-bit page to f32; lines of `ahead`, the page that comes next (or NULL), are asked for. */
static void widen_page(const att *t, const void *page, const void *ahead, int t0, int t1, float *out) {
    const int d = t->d, groups = (int)fa_kvq_groups(d);
    const int8_t *codes = page;
    const ptrdiff_t scales = (ptrdiff_t)FA_PAGE * d;
    for (int k = t0; k < t1; k++) {
        for (ptrdiff_t i = (ptrdiff_t)k * d; ahead && i < (ptrdiff_t)(k + 1) * d; i += 64)
            __builtin_prefetch((const char *)ahead + i, 0, 2);
        for (int g = 0; g < groups; g++) {
            const ptrdiff_t at = (ptrdiff_t)k * d;
            const int end = (g + 1) * FA_KVQ_GROUP < d ? (g + 1) * FA_KVQ_GROUP : d;
            uint16_t h;
            memcpy(&h, (const char *)page + scales + 2 * ((ptrdiff_t)k * groups + g), 2);
            const float scale = fa_f16_to_f32(h);
            int c = g * FA_KVQ_GROUP;
            for (; c + VL <= end; c += VL) v_store(out + at + c, v_mul(v_ldi8(codes + at + c), v_set1(scale)));
            for (; c < end; c++) out[at + c] = (float)codes[at + c] * scale;
        }
    }
}

/* Sets the current page: what the rows see of it lies in [t0, t1). */
static void enter_page(att *t, int32_t page, int t0, int t1) {
    t->kp = t->a->k_page[page];
    t->vp = t->a->v_page[page];
    t->type = t->a->kv_dtype;
    if (t->type != FA_I8) return;
    float *v = t->wide + (ptrdiff_t)FA_PAGE * t->dp;
    widen_page(t, t->kp, t->vp, t0, t1, t->wide);
    widen_page(t, t->vp, page < t->last ? t->a->k_page[page + 1] : NULL, t0, t1, v);
    t->kp = t->wide;
    t->vp = v;
    t->type = FA_F32;
}

static void att_page(att *t, int32_t page) {
    uint64_t seen = 0;
    int t0 = FA_PAGE, t1 = 0;
    for (int i = 0; i < t->a->n_q; i++) {
        int lo, hi;
        if (!window(t->a, i, page * FA_PAGE, &lo, &hi)) continue;
        seen |= token_bits(lo, hi);
        t0 = lo < t0 ? lo : t0;
        t1 = hi > t1 ? hi : t1;
    }
    if (!seen) return;
    enter_page(t, page, t0, t1);
    if (t->rows > STREAM_ROWS || seen != token_bits(t0, t1)) {
        page_packed(t, page, seen);
    } else if (t->type == FA_F32) {
        page_streamed_f32(t, page, t0, t1);
    } else if (t->type == FA_F16) {
        page_streamed_f16(t, page, t0, t1);
    } else {
        page_streamed_bf16(t, page, t0, t1);
    }
}

static void att_finish(const att *t) {
    const fa_attend_args *a = t->a;
    for (int64_t r = 0; r < t->rows; r++) {
        const float *o = t->o + r * t->dp;
        if (a->partial) {
            float *p = a->partial + r * (t->d + 2);
            p[0] = t->m[r];
            p[1] = t->l[r];
            store_o(t, o, 1, p + 2);
            continue;
        }
        float l = t->l[r], w = 1, *out = a->out + r / a->n_group * a->out_stride + r % a->n_group * t->d;
        if (a->sink) {
            float sink = a->sink[r % a->n_group], m = sink > t->m[r] ? sink : t->m[r];
            w = m == -INFINITY ? 0 : expf(t->m[r] - m);
            l = l * w + (m == -INFINITY ? 0 : expf(sink - m));
        }
        w = l > 0 ? w / l : 0;
        store_o(t, o, w, out);
    }
}

static void vec_attend(const fa_attend_args *a, void *scratch) {
    att t;
    att_setup(&t, a, scratch);
    int32_t lo = INT32_MAX, hi = 0;
    for (int i = 0; i < a->n_q; i++) {
        lo = a->kv_lo[i] < lo ? a->kv_lo[i] : lo;
        hi = a->kv_hi[i] > hi ? a->kv_hi[i] : hi;
    }
    lo = lo > a->pos0 ? lo : a->pos0;
    hi = hi < a->pos1 ? hi : a->pos1;
    t.last = (hi - 1) / FA_PAGE;
    for (int32_t p = lo / FA_PAGE; lo < hi && p <= t.last; p++) att_page(&t, p);
    att_finish(&t);
}

/* Merges one row of n_split partials, stride apart by pointer: weights e^(m_s - m) first, then the columns. */
static void vec_attend_combine(const float *const *partial, int n_split, int64_t rows, int n_group, int head_dim,
                               const float *sink, float *out, int64_t out_stride) {
    for (int64_t r = 0; r < rows; r++) {
        const int64_t at = r * (head_dim + 2);
        float m = sink ? sink[r % n_group] : -INFINITY, *o = out + r / n_group * out_stride + r % n_group * head_dim;
        for (int s = 0; s < n_split; s++) m = partial[s][at] > m ? partial[s][at] : m;
        float l = sink && m > -INFINITY ? expf(sink[r % n_group] - m) : 0;
        memset(o, 0, sizeof *o * (size_t)head_dim);
        for (int s = 0; s < n_split; s++) {
            const float *p = partial[s] + at;
            if (p[0] == -INFINITY) continue;
            const float w = expf(p[0] - m);
            l += w * p[1];
            for (int i = 0; i < head_dim; i++) o[i] += w * p[2 + i];
        }
        const float w = l > 0 ? 1 / l : 0;
        for (int i = 0; i < head_dim; i++) o[i] *= w;
    }
}

static void attend_init(fa_kernels *k) {
    k->attend = vec_attend;
    k->attend_scratch = vec_attend_scratch;
    k->attend_q_tile = 32;
    k->attend_combine = vec_attend_combine;
}

#endif
