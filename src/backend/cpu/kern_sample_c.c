/* Plain C of what samplers use: the definition that every vector version is tested against. */
#include "backend/cpu/kern_sample.h"

#include <math.h>

static double exp_sum(const float *x, int64_t n, float base, float scale, float *out) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        float e = x[i] > -INFINITY ? expf((x[i] - base) * scale) : 0;
        if (out) out[i] = e;
        total += (double)e;
    }
    return total;
}

static double exp_mean(const float *x, int64_t n, float base, float scale, double *dot, int64_t *live) {
    double total = 0;
    *dot = 0;
    *live = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] > -INFINITY)) continue;
        float d = x[i] - base, e = expf(d * scale);
        total += (double)e;
        *dot += e > 0 ? (double)(e * d) : 0;
        ++*live;
    }
    return total;
}

static int64_t moments(const float *x, int64_t n, float base, double *s1, double *s2) {
    int64_t live = 0;
    *s1 = *s2 = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] > -INFINITY)) continue;
        float d = x[i] - base;
        *s1 += (double)d;
        *s2 += (double)(d * d);
        live++;
    }
    return live;
}

/* Eight running values in this and in block_max: compilers make vectors of them. */
static void range(const float *x, int64_t n, float *min, float *max) {
    float lo[8], hi[8];
    for (int t = 0; t < 8; t++) lo[t] = INFINITY, hi[t] = -INFINITY;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int t = 0; t < 8; t++) {
            lo[t] = x[i + t] < lo[t] && x[i + t] > -INFINITY ? x[i + t] : lo[t];
            hi[t] = x[i + t] > hi[t] ? x[i + t] : hi[t];
        }
    for (; i < n; i++) {
        lo[0] = x[i] < lo[0] && x[i] > -INFINITY ? x[i] : lo[0];
        hi[0] = x[i] > hi[0] ? x[i] : hi[0];
    }
    for (int t = 1; t < 8; t++) lo[0] = lo[t] < lo[0] ? lo[t] : lo[0], hi[0] = hi[t] > hi[0] ? hi[t] : hi[0];
    *min = lo[0];
    *max = hi[0];
}

static void block_max(const float *x, int64_t n, float *out) {
    for (int64_t b = 0; 64 * b < n; b++) {
        const int64_t len = n - 64 * b < 64 ? n - 64 * b : 64;
        const float *at = x + 64 * b;
        float lane[8];
        for (int t = 0; t < 8; t++) lane[t] = -INFINITY;
        int64_t i = 0;
        for (; i + 8 <= len; i += 8)
            for (int t = 0; t < 8; t++) lane[t] = at[i + t] > lane[t] ? at[i + t] : lane[t];
        for (; i < len; i++) lane[0] = at[i] > lane[0] ? at[i] : lane[0];
        for (int t = 1; t < 8; t++) lane[0] = lane[t] > lane[0] ? lane[t] : lane[0];
        out[b] = lane[0];
    }
}

static void masses(const float *key, const float *w, int64_t n, const float t[FA_MASSES], double sum[FA_MASSES]) {
    for (int j = 0; j < FA_MASSES; j++) sum[j] = 0;
    for (int64_t i = 0; i < n; i++) {
        const double m = w ? (double)w[i] : 1;
        for (int j = 0; j < FA_MASSES; j++) sum[j] += key[i] >= t[j] ? m : 0;
    }
}

static int64_t between(const float *x, int64_t n, float div, float lo, float hi, int32_t first, float *out,
                       int32_t *id) {
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) { /* without branches: any share may pass */
        const float v = x[i] / div;
        out[m] = v;
        id[m] = first + (int32_t)i;
        m += (v >= lo) & (v <= hi) & (v > -INFINITY);
    }
    return m;
}

void fa_sample_init_c(fa_kernels *k) {
    k->exp_sum = exp_sum;
    k->exp_mean = exp_mean;
    k->moments = moments;
    k->range = range;
    k->block_max = block_max;
    k->masses = masses;
    k->between = between;
}
