/* What samplers use, on vectors, one text for all ISAs: include a vocabulary (kern_simd_<isa>.h) first. Ends in
 * sample_init, which overlays the table. Float sums run over 256 elements at a time, those are added in double. */
#ifndef FA_CPU_KERN_BODY_SAMPLE_H
#define FA_CPU_KERN_BODY_SAMPLE_H

#include "backend/cpu/kern_body_math.h"
#include "backend/cpu/kern_sample.h"

#include <float.h>
#include <math.h>

enum { SPAN = 256 };

V_INLINE int64_t span_end(int64_t i, int64_t n) { return n - i < SPAN ? n : i + SPAN; }

/* x[0..left), absent ones behind them. */
V_INLINE vf present(const float *x, int64_t left) {
    if (left >= VL) return v_load(x);
    float last[VL];
    for (int j = 0; j < VL; j++) last[j] = j < left ? x[j] : -INFINITY;
    return v_load(last);
}

/* exp_sum and exp_mean: what is NULL is not made. */
V_INLINE double terms(const float *x, int64_t n, float base, float scale, float *out, double *dot, int64_t *live) {
    const vf b = v_set1(base), s = v_set1(scale), absent = v_set1(-INFINITY), zero = v_set1(0), one = v_set1(1);
    double total = 0, dots = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n;) {
        const int64_t end = span_end(i, n);
        vf sum = zero, d_sum = zero, c_sum = zero;
        for (; i < end; i += VL) {
            vf v = present(x + i, end - i), d = v_sub(v, b);
            vf e = v_lt(absent, v, v_exp(v_mul(d, s)), zero);
            if (out && end - i >= VL) v_store(out + i, e);
            if (out && end - i < VL) v_storen(out + i, e, (int)(end - i));
            sum = v_add(sum, e);
            if (dot) d_sum = v_add(d_sum, v_lt(zero, e, v_mul(e, d), zero));
            if (dot) c_sum = v_add(c_sum, v_lt(absent, v, one, zero));
        }
        i = end;
        total += (double)v_sum(sum);
        if (dot) dots += (double)v_sum(d_sum), count += (int64_t)v_sum(c_sum);
    }
    if (dot) *dot = dots, *live = count;
    return total;
}

static double s_exp_sum(const float *x, int64_t n, float base, float scale, float *out) {
    return out ? terms(x, n, base, scale, out, NULL, NULL) : terms(x, n, base, scale, NULL, NULL, NULL);
}

static double s_exp_mean(const float *x, int64_t n, float base, float scale, double *dot, int64_t *live) {
    return terms(x, n, base, scale, NULL, dot, live);
}

static int64_t s_moments(const float *x, int64_t n, float base, double *s1, double *s2) {
    const vf b = v_set1(base), absent = v_set1(-INFINITY), zero = v_set1(0), one = v_set1(1);
    int64_t count = 0;
    *s1 = *s2 = 0;
    for (int64_t i = 0; i < n;) {
        const int64_t end = span_end(i, n);
        vf a = zero, q = zero, c = zero;
        for (; i < end; i += VL) {
            vf v = present(x + i, end - i), d = v_lt(absent, v, v_sub(v, b), zero);
            a = v_add(a, d);
            q = v_fma(d, d, q);
            c = v_add(c, v_lt(absent, v, one, zero));
        }
        i = end;
        *s1 += (double)v_sum(a), *s2 += (double)v_sum(q), count += (int64_t)v_sum(c);
    }
    return count;
}

static void s_range(const float *x, int64_t n, float *min, float *max) {
    const vf absent = v_set1(-INFINITY), none = v_set1(INFINITY);
    vf lo = none, hi = absent;
    for (int64_t i = 0; i < n; i += VL) {
        vf v = present(x + i, n - i), there = v_lt(absent, v, v, none);
        lo = v_lt(there, lo, there, lo);
        hi = v_lt(hi, v, v, hi);
    }
    *min = -v_top(v_sub(v_set1(0), lo));
    *max = v_top(hi);
}

static void s_block_max(const float *x, int64_t n, float *out) {
    int64_t b = 0;
    for (; 64 * b + 64 <= n; b++) {
        vf m = v_set1(-INFINITY);
        V_UNROLL for (int i = 0; i < 64; i += VL) {
            vf v = v_load(x + 64 * b + i);
            m = v_lt(m, v, v, m); /* not v_max: a NaN must not win */
        }
        out[b] = v_top(m);
    }
    if (64 * b < n) out[b] = -INFINITY;
    for (int64_t i = 64 * b; i < n; i++)
        if (x[i] > out[b]) out[b] = x[i];
}

V_INLINE void masses(const float *key, const float *w, int64_t n, const float *t, double *sum) {
    static const float ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const vf zero = v_set1(0);
    vf at[FA_MASSES];
    V_UNROLL for (int j = 0; j < FA_MASSES; j++) at[j] = v_set1(t[j]), sum[j] = 0;
    for (int64_t i = 0; i < n;) {
        const int64_t end = span_end(i, n);
        vf s[FA_MASSES];
        V_UNROLL for (int j = 0; j < FA_MASSES; j++) s[j] = zero;
        for (; i < end; i += VL) {
            const int64_t left = end - i;
            const float *weight = w ? w + i : ones;
            vf k = present(key + i, left), m = left >= VL ? v_load(weight) : v_loadn(weight, (int)left);
            V_UNROLL for (int j = 0; j < FA_MASSES; j++) s[j] = v_add(s[j], v_lt(k, at[j], zero, m));
        }
        i = end;
        V_UNROLL for (int j = 0; j < FA_MASSES; j++) sum[j] += (double)v_sum(s[j]);
    }
}

static void s_masses(const float *key, const float *w, int64_t n, const float t[FA_MASSES], double sum[FA_MASSES]) {
    if (w)
        masses(key, w, n, t, sum);
    else
        masses(key, NULL, n, t, sum);
}

/* A list is never longer than what was read, so a whole vector at its end stays within n. */
V_INLINE int64_t between(const float *x, int64_t n, bool divide, float div, float lo, float hi, int32_t first,
                         float *out, int32_t *id) {
    const vf d = v_set1(div), from = v_set1(lo < -FLT_MAX ? -FLT_MAX : lo), to = v_set1(hi);
    int64_t i = 0, m = 0;
    for (; i + VL <= n; i += VL) {
        vf v = v_load(x + i);
        m += v_pack(out + m, id + m, divide ? v_div(v, d) : v, from, to, first + (int32_t)i);
    }
    for (; i < n; i++) {
        const float v = divide ? x[i] / div : x[i];
        out[m] = v;
        id[m] = first + (int32_t)i;
        m += (v >= lo) & (v <= hi) & (v > -INFINITY);
    }
    return m;
}

static int64_t s_between(const float *x, int64_t n, float div, float lo, float hi, int32_t first, float *out,
                         int32_t *id) {
    return div == 1 ? between(x, n, false, 1, lo, hi, first, out, id)
                    : between(x, n, true, div, lo, hi, first, out, id);
}

static void sample_init(fa_kernels *k) {
    k->exp_sum = s_exp_sum;
    k->exp_mean = s_exp_mean;
    k->moments = s_moments;
    k->range = s_range;
    k->block_max = s_block_max;
    k->masses = s_masses;
    k->between = s_between;
}

#endif
