/* mlx's affine format (source: mlx quantize/dequantize, checked against mlx's own output).
 *
 * codes:  one little-endian bit stream per row: value k occupies bits [k * bits, (k + 1) * bits), bits = 2 3 4 5 6 8.
 * Files call it a U32 array; on little-endian machines that is the same stream of bytes for every width. 8 values are
 * exactly `bits` bytes. scales, biases: [cols / group] of f32, f16 or bf16; value = code * scale + bias.
 *
 * The canonical group is 32: a stored group of 64 or 128 repeats its scale and bias. */
#include "tensor/qfmt/formats.h"

#include <math.h>

/* n codes, 8 from `bits` bytes. */
static inline void unstream(const uint8_t *p, const int bits, int64_t n, uint8_t *codes) {
    for (int64_t k = 0; k < n; k += 8, p += bits) {
        uint64_t v = 0;
        for (int b = 0; b < bits; b++) v |= (uint64_t)p[b] << (8 * b);
        for (int i = 0; i < 8; i++) codes[k + i] = (uint8_t)(v >> (i * bits) & ((1u << bits) - 1));
    }
}

void fa_unpack_affine(const fa_weight *w, int64_t row, uint8_t *codes, float *scale, float *min) {
    const fa_dtype t = (fa_dtype)w->scale_dtype;
    const size_t step = fa_dtype_size(t);
    const uint8_t *p = w->codes + (size_t)row * w->row_bytes;
    const uint8_t *s = w->scales + (size_t)row * w->scale_row_bytes;
    const uint8_t *b = w->biases + (size_t)row * w->scale_row_bytes;
    const int rep = w->group / 32;
    switch (w->bits) { /* constants, so that the compiler unrolls */
    case 2: unstream(p, 2, w->cols, codes); break;
    case 3: unstream(p, 3, w->cols, codes); break;
    case 4: unstream(p, 4, w->cols, codes); break;
    case 5: unstream(p, 5, w->cols, codes); break;
    case 6: unstream(p, 6, w->cols, codes); break;
    default: unstream(p, 8, w->cols, codes); break;
    }
    for (int64_t g = 0; g < w->cols / w->group; g++) {
        float fs, fb;
        fa_to_f32(t, s + (size_t)g * step, 1, &fs);
        fa_to_f32(t, b + (size_t)g * step, 1, &fb);
        for (int r = 0; r < rep; r++) *scale++ = fs, *min++ = fb;
    }
}

static void store(fa_dtype t, uint8_t *p, float f) {
    const uint16_t h = t == FA_F16 ? fa_f32_to_f16(f) : fa_f32_to_bf16(f);
    if (t == FA_F32)
        memcpy(p, &f, 4);
    else
        memcpy(p, &h, 2);
}

typedef struct grid {
    float scale, bias;
} grid;

/* mlx's rule: the end of the range with the larger magnitude (the edge) is hit exactly and zero is on the grid. Codes
 * are then rounded with the float scale, not with its stored rounding. */
static grid affine_grid(const float *x, int n, float n_bins) {
    float lo = INFINITY, hi = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (x[i] > hi) hi = x[i];
        if (x[i] < lo) lo = x[i];
    }
    const int low_edge = fabsf(lo) > fabsf(hi);
    const float edge = low_edge ? lo : hi;
    grid g = {fmaxf((hi - lo) / n_bins, 1e-7f), 0};
    if (!low_edge) g.scale = -g.scale;
    const float q0 = rintf(edge / g.scale);
    if (q0 != 0) {
        g.scale = edge / q0;
        g.bias = edge;
    }
    return g;
}

void fa_quant_affine(const fa_weight *w, const float *x, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    const fa_dtype t = (fa_dtype)w->scale_dtype;
    const float n_bins = (float)((1 << w->bits) - 1);
    for (int64_t k = 0; k < w->cols; k += w->group) {
        const grid g = affine_grid(x + k, w->group, n_bins);
        for (int i = 0; i < w->group; i += 8) {
            uint64_t v = 0;
            for (int j = 0; j < 8; j++) {
                const float q = rintf((x[k + i + j] - g.bias) / g.scale);
                v |= (uint64_t)(q > 0 ? q < n_bins ? q : n_bins : 0) << (j * w->bits);
            }
            for (int b = 0; b < w->bits; b++) *codes++ = (uint8_t)(v >> (8 * b));
        }
        store(t, scales, g.scale);
        store(t, biases, g.bias);
        scales += fa_dtype_size(t);
        biases += fa_dtype_size(t);
    }
}
