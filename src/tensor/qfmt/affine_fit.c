/* Affine quantization that minimises a weighted error: of each group the grid (scale, bias) whose nearest codes give
 * the least sum of h (x - value)^2, where h says how much a column matters (the mean square of what it is multiplied
 * with, so that the sum is the error of the product, columns taken as independent).
 *
 * The search begins with the range of the group and with shrunken ones (outliers may be cut off when that helps the
 * rest), fits scale and bias to the codes by weighted least squares, rounds again, and keeps the best; mlx's own grid
 * takes part, so the result is never worse than that. Codes are rounded with scale and bias as they are stored. */
#include "tensor/qfmt/formats.h"

#include <math.h>

enum { MAX_GROUP = 128, N_SHRINK = 7, N_FIT = 2 };

typedef struct fit {
    float scale, bias;
    double err;
    float q[MAX_GROUP];
} fit;

static float stored(fa_dtype t, float f) {
    return t == FA_F16 ? fa_f16_to_f32(fa_f32_to_f16(f)) : t == FA_BF16 ? fa_bf16_to_f32(fa_f32_to_bf16(f)) : f;
}

/* Nearest codes, as floats. Adding and taking away 1.5 * 2^23 rounds to even. */
static void nearest(const float *x, int n, float scale, float bias, float top, float *q) {
    const float inv = scale != 0 ? 1.0f / scale : 0;
    for (int i = 0; i < n; i++) {
        float v = (x[i] - bias) * inv;
        v = v > 0 ? v : 0;
        v = v < top ? v : top;
        q[i] = (v + 12582912.0f) - 12582912.0f;
    }
}

static float error_of(const float *x, const float *h, int n, const float *q, float scale, float bias) {
    float part[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) {
            const float d = x[i + j] - (q[i + j] * scale + bias);
            part[j] += h[i + j] * d * d;
        }
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

/* Scale and bias that fit the codes best; false: all codes are equal. */
static bool refit(const float *x, const float *h, int n, const float *q, float *scale, float *bias) {
    float sh[8] = {0}, sq[8] = {0}, sqq[8] = {0}, sx[8] = {0}, sqx[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) {
            const float w = h[i + j], k = q[i + j], v = x[i + j];
            sh[j] += w;
            sq[j] += w * k;
            sqq[j] += w * k * k;
            sx[j] += w * v;
            sqx[j] += w * k * v;
        }
    double s[5] = {0};
    for (int j = 0; j < 8; j++) {
        s[0] += (double)sh[j];
        s[1] += (double)sq[j];
        s[2] += (double)sqq[j];
        s[3] += (double)sx[j];
        s[4] += (double)sqx[j];
    }
    const double det = s[0] * s[2] - s[1] * s[1];
    if (!(det > 1e-12 * s[0] * s[2])) return false;
    const double a = (s[0] * s[4] - s[1] * s[3]) / det;
    *scale = (float)a;
    *bias = (float)((s[3] - a * s[1]) / s[0]);
    return true;
}

static void consider(const float *x, const float *h, int n, fa_dtype t, float top, float scale, float bias, fit *best) {
    fit f = {.scale = stored(t, scale), .bias = stored(t, bias)};
    if (!(fabsf(f.scale) > 0) || isinf(f.scale) || isinf(f.bias)) return;
    nearest(x, n, f.scale, f.bias, top, f.q);
    f.err = (double)error_of(x, h, n, f.q, f.scale, f.bias);
    if (f.err < best->err) *best = f;
}

static void search(const float *x, const float *h, int n, fa_dtype t, float top, float scale, float bias, fit *best) {
    static const float shrink[N_SHRINK] = {1.0f, 0.96f, 0.92f, 0.88f, 0.82f, 0.75f, 0.66f};
    float lo = x[0], hi = x[0], q[MAX_GROUP];
    for (int i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    best->err = INFINITY;
    consider(x, h, n, t, top, scale, bias, best);
    for (int k = 0; k < N_SHRINK && hi > lo; k++) {
        const float mid = 0.5f * (lo + hi), half = 0.5f * (hi - lo) * shrink[k];
        float b = mid - half, s = 2 * half / top;
        for (int turn = 0; turn < N_FIT; turn++) {
            nearest(x, n, s, b, top, q);
            if (!refit(x, h, n, q, &s, &b)) break;
        }
        consider(x, h, n, t, top, s, b, best);
    }
}

double fa_quant_affine_fit(const fa_weight *w, const float *x, const float *h, uint8_t *codes, uint8_t *scales,
                           uint8_t *biases) {
    const fa_dtype t = (fa_dtype)w->scale_dtype;
    const size_t size = fa_dtype_size(t);
    const float top = (float)((1 << w->bits) - 1);
    double err = 0;
    uint8_t plane[MAX_GROUP + 8], s8[8], b8[8];
    for (int64_t k = 0; k < w->cols; k += w->group, x += w->group, h += w->group) {
        fa_weight one = *w;
        fit best;
        float s, b;
        one.cols = w->group;
        fa_quant_affine(&one, x, plane, s8, b8); /* mlx's */
        fa_to_f32(t, s8, 1, &s);
        fa_to_f32(t, b8, 1, &b);
        search(x, h, w->group, t, top, s, b, &best);
        const bool found = isfinite(best.err);
        err += found ? best.err : 0;
        if (!codes) continue;
        for (int i = 0; found && i < w->group; i += 8) {
            uint64_t v = 0;
            for (int j = 0; j < 8; j++) v |= (uint64_t)best.q[i + j] << (j * w->bits);
            for (int j = 0; j < w->bits; j++) plane[i / 8 * w->bits + j] = (uint8_t)(v >> (8 * j));
        }
        if (found) {
            const uint16_t hs = t == FA_F16 ? fa_f32_to_f16(best.scale) : fa_f32_to_bf16(best.scale),
                           hb = t == FA_F16 ? fa_f32_to_f16(best.bias) : fa_f32_to_bf16(best.bias);
            memcpy(s8, t == FA_F32 ? (const void *)&best.scale : (const void *)&hs, size);
            memcpy(b8, t == FA_F32 ? (const void *)&best.bias : (const void *)&hb, size);
        }
        memcpy(codes, plane, (size_t)w->group * w->bits / 8);
        memcpy(scales, s8, size);
        memcpy(biases, b8, size);
        codes += (size_t)w->group * w->bits / 8;
        scales += size;
        biases += size;
    }
    return err;
}
