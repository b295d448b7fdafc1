/* The row operations on vectors, one text for all ISAs: include a vocabulary (kern_simd_<isa>.h) first. Ends in
 * vec_init, which overlays the table. Every loop handles its tail with partial loads and stores, so nothing outside [0,
 * n) is touched. */
#ifndef FA_CPU_KERN_BODY_VEC_H
#define FA_CPU_KERN_BODY_VEC_H

#include "backend/cpu/kern_attend.h"
#include "backend/cpu/kern_body_math.h"

#include <math.h>

static float inverse_rms_wide(const float *x, float eps, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * x[i];
    return (float)(1 / sqrt(s / (double)n + (double)eps));
}

/* 1 / sqrt(mean(x^2) + eps). Four sums, so that adds overlap. Sums outside the comfortable range of float are taken
 * again in double. */
static float inverse_rms(const float *x, float eps, int64_t n) {
    vf s[4] = {v_set1(0), v_set1(0), v_set1(0), v_set1(0)};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        V_UNROLL for (int j = 0; j < 4; j++) {
            vf v = v_load(x + i + j * VL);
            s[j] = v_fma(v, v, s[j]);
        }
    }
    for (; i < n; i += VL) {
        vf v = row_load(x + i, n - i);
        s[0] = v_fma(v, v, s[0]);
    }
    float sum = v_sum(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
    return sum > 1e-30f && sum < 1e37f ? 1 / sqrtf(sum / (float)n + eps) : inverse_rms_wide(x, eps, n);
}

static void vec_rms_norm(const float *x, const float *w, float offset, float eps, int64_t n, float *out) {
    vf r = v_set1(inverse_rms(x, eps, n)), o = v_set1(offset);
    if (w) {
        for (int64_t i = 0; i < n; i += VL) {
            vf g = v_add(row_load(w + i, n - i), o);
            row_store(out + i, v_mul(v_mul(row_load(x + i, n - i), r), g), n - i);
        }
    } else {
        for (int64_t i = 0; i < n; i += VL) row_store(out + i, v_mul(row_load(x + i, n - i), r), n - i);
    }
}

static void rope_pair(float *a, float *b, float c, float s) {
    float u = *a, v = *b;
    *a = u * c - v * s;
    *b = v * c + u * s;
}

static void vec_rope(float *x, const float *cs, const float *sn, int64_t n, bool interleaved) {
    const int64_t half = n / 2;
    int64_t i = 0;
    if (interleaved) {
        for (; i + VL <= half; i += VL) {
            vf c = v_load(cs + i), s = v_load(sn + i), u, v;
            v_ld2(x + 2 * i, &u, &v);
            v_st2(x + 2 * i, v_fnma(v, s, v_mul(u, c)), v_fma(u, s, v_mul(v, c)));
        }
        for (; i < half; i++) rope_pair(x + 2 * i, x + 2 * i + 1, cs[i], sn[i]);
        return;
    }
    for (; i < half; i += VL) {
        int64_t left = half - i;
        vf c = row_load(cs + i, left), s = row_load(sn + i, left);
        vf u = row_load(x + i, left), v = row_load(x + half + i, left);
        row_store(x + i, v_fnma(v, s, v_mul(u, c)), left);
        row_store(x + half + i, v_fma(u, s, v_mul(v, c)), left);
    }
}

/* x sigmoid(x) as x / (1 + e^-x): a large e^-x is infinite, which gives the right 0. */
static void vec_silu_mul(const float *gate, const float *up, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i += VL) {
        vf g = row_load(gate + i, n - i);
        vf y = v_div(g, v_add(v_set1(1.0f), v_exp(v_sub(v_set1(0.0f), g))));
        row_store(out + i, v_mul(y, row_load(up + i, n - i)), n - i);
    }
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
static void vec_gelu_tanh_mul(const float *gate, const float *up, int64_t n, float *out) {
    const vf c1 = v_set1(-2 * 0.7978845608028654f), c3 = v_set1(-2 * 0.7978845608028654f * 0.044715f);
    for (int64_t i = 0; i < n; i += VL) {
        vf g = row_load(gate + i, n - i);
        vf u = v_mul(g, v_fma(v_mul(g, g), c3, c1));
        vf y = v_div(g, v_add(v_set1(1.0f), v_exp(u)));
        row_store(out + i, v_mul(y, row_load(up + i, n - i)), n - i);
    }
}

static void vec_gelu_erf_mul(const float *gate, const float *up, int64_t n, float *out) {
    const vf half = v_set1(0.5f), one = v_set1(1.0f), r = v_set1(0.70710678f);
    for (int64_t i = 0; i < n; i += VL) {
        vf g = row_load(gate + i, n - i);
        vf y = v_mul(v_mul(half, g), v_add(one, v_erf(v_mul(g, r))));
        row_store(out + i, v_mul(y, row_load(up + i, n - i)), n - i);
    }
}

static void vec_relu_mul(const float *gate, const float *up, int64_t n, float *out) {
    const vf zero = v_set1(0);
    for (int64_t i = 0; i < n; i += VL) {
        vf g = v_max(zero, row_load(gate + i, n - i));
        row_store(out + i, v_mul(g, row_load(up + i, n - i)), n - i);
    }
}

static void vec_add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += VL) row_store(y + i, v_add(row_load(y + i, n - i), row_load(x + i, n - i)), n - i);
}

V_INLINE void narrow_row(const float *x, const fa_dtype t, int64_t n, void *out) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) v_st(out, i, t, v_load(x + i));
    if (i < n) v_stn(out, i, t, v_loadn(x + i, (int)(n - i)), (int)(n - i));
}

static void vec_convert(const float *x, fa_dtype t, int64_t n, void *out) {
    if (t == FA_F32) {
        memmove(out, x, (size_t)n * sizeof *x);
    } else if (t == FA_F16) {
        narrow_row(x, FA_F16, n, out);
    } else {
        narrow_row(x, FA_BF16, n, out);
    }
}

static void vec_init(fa_kernels *k) {
    k->rms_norm = vec_rms_norm;
    k->rope = vec_rope;
    k->silu_mul = vec_silu_mul;
    k->gelu_tanh_mul = vec_gelu_tanh_mul;
    k->gelu_erf_mul = vec_gelu_erf_mul;
    k->relu_mul = vec_relu_mul;
    k->add = vec_add;
    k->convert = vec_convert;
}

#endif
