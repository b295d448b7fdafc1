/* Plain C of the kernels of recurrent layers: the definition that every vector version is tested against. */
#include "backend/cpu/kern_scan.h"

#include <math.h>
#include <string.h>

static float input(const fa_conv_args *a, int64_t row, int64_t c) {
    if (row >= 0) return a->x[row * a->ldx + c];
    return a->tail ? a->tail[(a->kernel - 1 + row) * a->ld_tail + c] : 0;
}

static void conv(const fa_conv_args *a) {
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t c = 0; c < a->n; c++) {
            float sum = a->bias ? a->bias[c] : 0;
            for (int j = 0; j < a->kernel; j++) sum += a->w[j * a->n + c] * input(a, i - a->kernel + 1 + j, c);
            a->y[i * a->ldy + c] = a->silu ? sum / (1 + expf(-sum)) : sum;
        }
}

static void ssm1(const fa_ssm1_args *a) {
    for (int64_t i = 0; i < a->rows; i++) {
        const float *b = a->b + i * a->ldb, *c = a->c + i * a->ldc;
        for (int64_t d = 0; d < a->n; d++) {
            float x = a->x[i * a->ldx + d], delta = a->delta[i * a->ld_delta + d], y = a->d[d] * x;
            for (int64_t s = 0; s < a->n_state; s++) {
                float *h = a->h + s * a->ldh + d;
                *h = expf(delta * a->a[s * a->lda + d]) * *h + delta * x * b[s];
                y += c[s] * *h;
            }
            a->y[i * a->ldy + d] = y;
        }
    }
}

static void softplus(const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (x[i] > 0 ? x[i] : 0) + log1pf(expf(-fabsf(x[i])));
}

static void product(const float *a, int64_t a_row, int64_t a_col, int64_t m, int64_t K, const float *b, int64_t ldb,
                    int64_t n, float *y, int64_t ldy, bool add) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = add ? y[i * ldy + j] : 0;
            for (int64_t k = 0; k < K; k++) sum += a[i * a_row + k * a_col] * b[k * ldb + j];
            y[i * ldy + j] = sum;
        }
}

static void gram(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m, int64_t K, float *y,
                 int64_t ldy) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j <= i; j++) {
            float sum = 0;
            for (int64_t k = 0; k < K; k++) sum += a[i * lda + k] * b[j * ldb + k];
            y[i * ldy + j] = sum;
        }
}

static void ssd_row(float *h, int64_t n_state, int64_t n, float decay, float delta, const float *b, const float *c,
                    const float *x, float d, float *y) {
    for (int64_t j = 0; j < n; j++) y[j] = d * x[j];
    for (int64_t s = 0; s < n_state; s++)
        for (int64_t j = 0; j < n; j++) {
            h[s * n + j] = decay * h[s * n + j] + delta * b[s] * x[j];
            y[j] += c[s] * h[s * n + j];
        }
}

static void delta_row(float *S, int64_t k_dim, int64_t n, float decay, float beta, const float *q, const float *k,
                      const float *v, float *u, float *y) {
    memset(u, 0, (size_t)n * sizeof *u);
    memset(y, 0, (size_t)n * sizeof *y);
    for (int64_t s = 0; s < k_dim; s++)
        for (int64_t j = 0; j < n; j++) u[j] += S[s * n + j] * k[s];
    for (int64_t j = 0; j < n; j++) u[j] = beta * (v[j] - decay * u[j]);
    for (int64_t s = 0; s < k_dim; s++)
        for (int64_t j = 0; j < n; j++) {
            S[s * n + j] = decay * S[s * n + j] + k[s] * u[j];
            y[j] += S[s * n + j] * q[s];
        }
}

void fa_scan_init_c(fa_kernels *k) {
    k->conv = conv;
    k->ssm1 = ssm1;
    k->softplus = softplus;
    k->product = product;
    k->gram = gram;
    k->ssd_row = ssd_row;
    k->delta_row = delta_row;
}
