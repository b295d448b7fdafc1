/* Matrix products in plain C: the definition of quant_act, linear_q8 and linear_f32 and the fallback of machines
 * without vector files.
 *
 * The order of sums here is not a contract: vector versions sum in another order and are compared with a tolerance. */
#include "backend/cpu/kern.h"

#include <math.h>

/* One group of 32. The largest magnitude is found on the bit patterns so that a NaN wins and shows up in the scale
 * instead of vanishing. */
static void quant_group(const float *x, int8_t *q, float *scale, float *sum32, float *sum16) {
    uint32_t top = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t u;
        memcpy(&u, x + i, 4);
        u &= 0x7FFFFFFFu;
        if (u > top) top = u;
    }
    float amax;
    memcpy(&amax, &top, 4);
    float s = amax / 127.0f, inv = 127.0f / amax;
    if (amax < 0x1p-118f) s = inv = 0.0f; /* 127 / amax would overflow; such inputs count as zero */
    int half[2] = {0, 0};
    for (int i = 0; i < 32; i++) {
        float v = rintf(x[i] * inv);
        int n = v >= -127.0f && v <= 127.0f ? (int)v : 0; /* false for NaN */
        q[i] = (int8_t)n;
        half[i >> 4] += n;
    }
    *scale = s;
    *sum32 = s * (float)(half[0] + half[1]);
    sum16[0] = s * (float)half[0];
    sum16[1] = s * (float)half[1];
}

static void quant_act(const float *x, int64_t ldx, int64_t m0, int64_t m1, fa_act *a) {
    const int64_t K = a->K, G = K / 32;
    for (int64_t m = m0; m < m1; m++)
        for (int64_t g = 0; g < G; g++)
            quant_group(x + m * ldx + g * 32, a->q + m * K + g * 32, a->scale + m * G + g, a->sum32 + m * G + g,
                        a->sum16 + m * 2 * G + 2 * g);
}

/* sum_k codes[k] * q[k] in groups, scaled, plus min * (sum of the group). */
static float dot_q8(int ug, int64_t K, const uint8_t *codes, const float *scale, const float *min, const fa_act *x,
                    int64_t m) {
    const int8_t *q = x->q + m * K;
    const float *as = x->scale + m * (K / 32), *sum = ug == 32 ? x->sum32 + m * (K / 32) : x->sum16 + m * (K / 16);
    float acc = 0.0f;
    for (int64_t u = 0; u < K / ug; u++) {
        int32_t s = 0;
        for (int i = 0; i < ug; i++) s += (int32_t)codes[u * ug + i] * q[u * ug + i];
        acc += (float)s * (scale[u] * as[u * ug / 32]) + min[u] * sum[u];
    }
    return acc;
}

static void linear_q8(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const fa_act *x, float *y,
                      int64_t ldy, bool add, void *scratch) {
    const int64_t K = w->cols;
    const int ug = fa_qfmts[w->fmt].ugroup;
    float *scale = (float *)scratch, *min = scale + K / ug;
    uint8_t *codes = (uint8_t *)(min + K / ug);
    for (int64_t r = r0; r < r1; r++) {
        k->unpack[w->fmt](w, r, codes, scale, min);
        for (int64_t m = 0; m < x->M; m++) {
            float v = dot_q8(ug, K, codes, scale, min, x, m), *out = y + m * ldy + r;
            *out = add ? *out + v : v;
        }
    }
}

static void widen_row(const fa_kernels *k, const fa_weight *w, int64_t r, float *row, float *scale, uint8_t *codes) {
    const fa_qfmt *f = &fa_qfmts[w->fmt];
    if (f->to_f32) {
        f->to_f32(w, r, 0, w->cols, row);
        return;
    }
    float *min = scale + w->cols / f->ugroup;
    k->unpack[w->fmt](w, r, codes, scale, min);
    for (int64_t i = 0; i < w->cols; i++) row[i] = (float)codes[i] * scale[i / f->ugroup] + min[i / f->ugroup];
}

static void linear_f32(const fa_kernels *k, const fa_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                       int64_t M, float *y, int64_t ldy, bool add, void *scratch) {
    const int64_t K = w->cols;
    float *row = (float *)scratch, *scale = row + K;
    uint8_t *codes = (uint8_t *)(scale + K / 8);
    for (int64_t r = r0; r < r1; r++) {
        widen_row(k, w, r, row, scale, codes);
        for (int64_t m = 0; m < M; m++) {
            float acc = 0.0f, *out = y + m * ldy + r;
            for (int64_t i = 0; i < K; i++) acc += x[m * ldx + i] * row[i];
            *out = add ? *out + acc : acc;
        }
    }
}

/* A row in f32, its groups' scales and mins (two floats per 16 values), its codes. */
static size_t linear_scratch(int64_t cols, int64_t M) {
    (void)M;
    return (size_t)cols * 5 + (size_t)(cols / 8 + 1) * 4;
}

void fa_kern_linear_init_c(fa_kernels *k) {
    k->quant_act = quant_act;
    k->linear_q8 = linear_q8;
    k->linear_f32 = linear_f32;
    k->linear_scratch = linear_scratch;
    k->row_tile = 16;
}
