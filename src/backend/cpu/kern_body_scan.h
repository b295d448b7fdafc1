/* Recurrent layers on vectors, one text for all ISAs: include a vocabulary (kern_simd_<isa>.h) first. Ends in
 * scan_init, which overlays the table. Vectors go along channels (columns of a head), which neither the scans nor the
 * products mix. */
#ifndef FA_CPU_KERN_BODY_SCAN_H
#define FA_CPU_KERN_BODY_SCAN_H

#include "backend/cpu/kern_body_math.h"
#include "backend/cpu/kern_scan.h"

/* One vector of channels from c on. */
V_INLINE void conv_block(const fa_conv_args *a, int64_t c, int64_t left) {
    const vf bias = a->bias ? row_load(a->bias + c, left) : v_set1(0);
    for (int64_t i = 0; i < a->rows; i++) {
        vf sum = bias;
        for (int j = 0; j < a->kernel; j++) {
            int64_t row = i - a->kernel + 1 + j;
            const float *x = row >= 0  ? a->x + row * a->ldx
                             : a->tail ? a->tail + (a->kernel - 1 + row) * a->ld_tail
                                       : 0;
            if (x) sum = v_fma(row_load(a->w + j * a->n + c, left), row_load(x + c, left), sum);
        }
        if (a->silu) sum = v_mul(sum, v_sigmoid(sum));
        row_store(a->y + i * a->ldy + c, sum, left);
    }
}

static void scan_conv(const fa_conv_args *a) {
    for (int64_t c = 0; c < a->n; c += VL) conv_block(a, c, a->n - c);
}

V_INLINE void ssm1_block(const fa_ssm1_args *a, int64_t d, int64_t left) {
    for (int64_t i = 0; i < a->rows; i++) {
        const float *b = a->b + i * a->ldb, *c = a->c + i * a->ldc;
        vf x = row_load(a->x + i * a->ldx + d, left), delta = row_load(a->delta + i * a->ld_delta + d, left);
        vf in = v_mul(delta, x), y = v_mul(row_load(a->d + d, left), x);
        for (int64_t s = 0; s < a->n_state; s++) {
            float *at = a->h + s * a->ldh + d;
            vf decay = v_exp(v_mul(delta, row_load(a->a + s * a->lda + d, left)));
            vf h = v_fma(decay, row_load(at, left), v_mul(in, v_set1(b[s])));
            row_store(at, h, left);
            y = v_fma(v_set1(c[s]), h, y);
        }
        row_store(a->y + i * a->ldy + d, y, left);
    }
}

static void scan_ssm1(const fa_ssm1_args *a) {
    for (int64_t d = 0; d < a->n; d += VL) ssm1_block(a, d, a->n - d);
}

static void scan_softplus(const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i += VL) row_store(out + i, v_softplus(row_load(x + i, n - i)), n - i);
}

/* M rows of nv vectors; left: columns from the last vector on. */
V_INLINE void product_tile(const int M, const int nv, const float *a, int64_t a_row, int64_t a_col, int64_t K,
                           const float *b, int64_t ldb, float *y, int64_t ldy, bool add, int64_t left) {
    vf sum[V_MR][V_NV];
    V_UNROLL for (int i = 0; i < M; i++) V_UNROLL for (int j = 0; j < nv; j++) sum[i][j] = v_set1(0);
    for (int64_t k = 0; k < K; k++) {
        vf w[V_NV];
        V_UNROLL for (int j = 0; j < nv; j++) w[j] =
            j + 1 < nv ? v_load(b + k * ldb + j * VL) : row_load(b + k * ldb + j * VL, left);
        V_UNROLL for (int i = 0; i < M; i++) {
            vf s = v_set1(a[i * a_row + k * a_col]);
            V_UNROLL for (int j = 0; j < nv; j++) sum[i][j] = v_fma(s, w[j], sum[i][j]);
        }
    }
    V_UNROLL for (int i = 0; i < M; i++) V_UNROLL for (int j = 0; j < nv; j++) {
        float *at = y + i * ldy + j * VL;
        int64_t n = j + 1 < nv ? VL : left;
        row_store(at, add ? v_add(row_load(at, n), sum[i][j]) : sum[i][j], n);
    }
}

V_INLINE void product_rows(const int nv, const float *a, int64_t a_row, int64_t a_col, int64_t m, int64_t K,
                           const float *b, int64_t ldb, float *y, int64_t ldy, bool add, int64_t left) {
    int64_t i = 0;
    for (; i + V_MR <= m; i += V_MR)
        product_tile(V_MR, nv, a + i * a_row, a_row, a_col, K, b, ldb, y + i * ldy, ldy, add, left);
    for (; i < m; i++) product_tile(1, nv, a + i * a_row, a_row, a_col, K, b, ldb, y + i * ldy, ldy, add, left);
}

static void scan_product(const float *a, int64_t a_row, int64_t a_col, int64_t m, int64_t K, const float *b,
                         int64_t ldb, int64_t n, float *y, int64_t ldy, bool add) {
    int64_t j = 0;
    for (; j + VL < n; j += 2 * VL) {
        int64_t left = n - j - VL < VL ? n - j - VL : VL;
        product_rows(2, a, a_row, a_col, m, K, b + j, ldb, y + j, ldy, add, left);
    }
    if (j < n) product_rows(1, a, a_row, a_col, m, K, b + j, ldb, y + j, ldy, add, n - j);
}

/* Four sums at a time; those behind the diagonal of a row's last four are thrown away. */
V_INLINE void gram_four(const float *a, const float *b, int64_t ldb, int64_t K, int64_t n, float *y) {
    vf s[4] = {v_set1(0), v_set1(0), v_set1(0), v_set1(0)};
    float out[4];
    for (int64_t k = 0; k < K; k += VL) {
        vf x = row_load(a + k, K - k);
        for (int j = 0; j < 4; j++) /* missing rows: the first again */
            s[j] = v_fma(x, row_load(b + (j < n ? j : 0) * ldb + k, K - k), s[j]);
    }
    v_sum4(s[0], s[1], s[2], s[3], out);
    for (int j = 0; j < n; j++) y[j] = out[j];
}

static void scan_gram(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m, int64_t K, float *y,
                      int64_t ldy) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j <= i; j += 4)
            gram_four(a + i * lda, b + j * ldb, ldb, K, i + 1 - j < 4 ? i + 1 - j : 4, y + i * ldy + j);
}

enum { SCAN_NV = 4 /* vectors of a head that are walked together */ };

V_INLINE int64_t lanes(int64_t n, int64_t from) { return n - from < VL ? n - from : VL; }

/* Columns [0, nv vectors) of a head; left: of the last vector. */
V_INLINE void ssd_block(const int nv, float *h, int64_t n_state, int64_t n, float decay, float delta, const float *b,
                        const float *c, const float *x, float d, float *y, int64_t left) {
    vf in[SCAN_NV], sum[SCAN_NV], by = v_set1(decay);
    V_UNROLL for (int j = 0; j < nv; j++) {
        vf v = row_load(x + j * VL, j + 1 < nv ? VL : left);
        in[j] = v_mul(v_set1(delta), v);
        sum[j] = v_mul(v_set1(d), v);
    }
    for (int64_t s = 0; s < n_state; s++) {
        vf bs = v_set1(b[s]), cs = v_set1(c[s]);
        V_UNROLL for (int j = 0; j < nv; j++) {
            float *at = h + s * n + j * VL;
            int64_t some = j + 1 < nv ? VL : left;
            vf v = v_fma(by, row_load(at, some), v_mul(bs, in[j]));
            row_store(at, v, some);
            sum[j] = v_fma(cs, v, sum[j]);
        }
    }
    V_UNROLL for (int j = 0; j < nv; j++) row_store(y + j * VL, sum[j], j + 1 < nv ? VL : left);
}

static void scan_ssd_row(float *h, int64_t n_state, int64_t n, float decay, float delta, const float *b, const float *c,
                         const float *x, float d, float *y) {
    int64_t j = 0;
    for (; j + SCAN_NV * VL <= n; j += SCAN_NV * VL)
        ssd_block(SCAN_NV, h + j, n_state, n, decay, delta, b, c, x + j, d, y + j, VL);
    for (; j < n; j += VL) ssd_block(1, h + j, n_state, n, decay, delta, b, c, x + j, d, y + j, lanes(n, j));
}

V_INLINE void delta_block(const int nv, float *S, int64_t k_dim, int64_t n, float decay, float beta, const float *q,
                          const float *k, const float *v, float *y, int64_t left) {
    vf u[SCAN_NV], sum[SCAN_NV], by = v_set1(decay);
    V_UNROLL for (int j = 0; j < nv; j++) u[j] = sum[j] = v_set1(0);
    for (int64_t s = 0; s < k_dim; s++)
        V_UNROLL for (int j = 0; j < nv; j++) u[j] =
            v_fma(v_set1(k[s]), row_load(S + s * n + j * VL, j + 1 < nv ? VL : left), u[j]);
    V_UNROLL for (int j = 0; j < nv; j++) u[j] =
        v_mul(v_set1(beta), v_fnma(by, u[j], row_load(v + j * VL, j + 1 < nv ? VL : left)));
    for (int64_t s = 0; s < k_dim; s++) V_UNROLL for (int j = 0; j < nv; j++) {
            float *at = S + s * n + j * VL;
            int64_t some = j + 1 < nv ? VL : left;
            vf cell = v_fma(by, row_load(at, some), v_mul(v_set1(k[s]), u[j]));
            row_store(at, cell, some);
            sum[j] = v_fma(v_set1(q[s]), cell, sum[j]);
        }
    V_UNROLL for (int j = 0; j < nv; j++) row_store(y + j * VL, sum[j], j + 1 < nv ? VL : left);
}

static void scan_delta_row(float *S, int64_t k_dim, int64_t n, float decay, float beta, const float *q, const float *k,
                           const float *v, float *u, float *y) {
    int64_t j = 0;
    (void)u;
    for (; j + SCAN_NV * VL <= n; j += SCAN_NV * VL)
        delta_block(SCAN_NV, S + j, k_dim, n, decay, beta, q, k, v + j, y + j, VL);
    for (; j < n; j += VL) delta_block(1, S + j, k_dim, n, decay, beta, q, k, v + j, y + j, lanes(n, j));
}

static void scan_init(fa_kernels *k) {
    k->conv = scan_conv;
    k->ssm1 = scan_ssm1;
    k->softplus = scan_softplus;
    k->product = scan_product;
    k->gram = scan_gram;
    k->ssd_row = scan_ssd_row;
    k->delta_row = scan_delta_row;
}

#endif
