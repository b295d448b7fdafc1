/* Plain C of the row operations: the definition that every vector version is tested against. */
#include "backend/cpu/kern_attend.h"
#include "backend/cpu/kern_sample.h"
#include "backend/cpu/kern_scan.h"

#include <math.h>

static void rms_norm(const float *x, const float *w, float offset, float eps, int64_t n, float *out) {
    double ss = 0;
    for (int64_t i = 0; i < n; i++) ss += (double)x[i] * x[i];
    float r = (float)(1 / sqrt(ss / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) out[i] = w ? x[i] * r * (w[i] + offset) : x[i] * r;
}

static void rope(float *x, const float *cs, const float *sn, int64_t n, bool interleaved) {
    int64_t half = n / 2;
    for (int64_t i = 0; i < half; i++) {
        float *a = interleaved ? x + 2 * i : x + i;
        float *b = interleaved ? x + 2 * i + 1 : x + i + half;
        float u = *a, v = *b;
        *a = u * cs[i] - v * sn[i];
        *b = v * cs[i] + u * sn[i];
    }
}

static void silu_mul(const float *gate, const float *up, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static void gelu_tanh_mul(const float *gate, const float *up, int64_t n, float *out) {
    const float c = 0.7978845608028654f; /* sqrt(2 / pi) */
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i];
        out[i] = 0.5f * g * (1 + tanhf(c * (g + 0.044715f * g * g * g))) * up[i];
    }
}

static void gelu_erf_mul(const float *gate, const float *up, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = 0.5f * gate[i] * (1 + erff(gate[i] * 0.70710678118654752f)) * up[i];
}

static void relu_mul(const float *gate, const float *up, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (gate[i] > 0 ? gate[i] : 0) * up[i];
}

static void add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

/* out may start at any byte. */
static void convert(const float *x, fa_dtype t, int64_t n, void *out) {
    uint8_t *o = out;
    if (t == FA_F32) {
        memmove(o, x, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t v = t == FA_F16 ? fa_f32_to_f16(x[i]) : fa_f32_to_bf16(x[i]);
        memcpy(o + 2 * i, &v, 2);
    }
}

void fa_kern_vec_init_c(fa_kernels *k) {
    k->rms_norm = rms_norm;
    k->rope = rope;
    k->silu_mul = silu_mul;
    k->gelu_tanh_mul = gelu_tanh_mul;
    k->gelu_erf_mul = gelu_erf_mul;
    k->relu_mul = relu_mul;
    k->add = add;
    k->convert = convert;
    fa_attend_init_c(k);
    fa_scan_init_c(k);
    fa_sample_init_c(k);
}
