/* Matrices of small floats, E2M1, as other quantizers store them: two codes a byte, the lower half first, which is
 * mlx's order too, so codes stay where they lie.
 *
 *   compressed-tensors  X.weight_packed U8 [rows, cols / 2] with X.weight_scale: E4M3 [rows, cols / 16] and
 *                       X.weight_global_scale F32, value = code * (scale / global) ("nvfp4-pack-quantized"); or U8
 *                       [rows, cols / 32], a power of two, value = code * 2^(scale - 127) ("mxfp4-pack-quantized")
 *   modelopt            X.weight U8 [rows, cols / 2], X.weight_scale E4M3 [rows, cols / 16], X.weight_scale_2 F32,
 *                       value = code * (scale * scale_2) */
#include "families/bind.h"

#include <math.h>
#include <string.h>

static bool is_plane(const fa_ckpt_tensor *t, int dtype, int64_t rows, int64_t cols) {
    return t && t->dtype == dtype && t->n_dim == 2 && t->dim[0] == rows && t->dim[1] == cols;
}

/* One F32 for the whole matrix; false, and an error: it is something else. */
static bool whole_scale(fa_binder *b, const fa_ckpt_tensor *t, float *out) {
    if (t->dtype != FA_F32 || t->n_dim > 1 || (t->n_dim == 1 && t->dim[0] != 1)) {
        fa_bind_wrong(b, t, "the scale of a whole matrix is %s and no single F32", t->type_name);
        return false;
    }
    memcpy(out, t->data, 4);
    fa_bind_used(b, t, FA_USE_FLOATS);
    if (*out > 0 && *out < INFINITY) return true;
    fa_bind_fail(b, FFAI_EFORMAT, t, "the scale of a whole matrix is %g", (double)*out);
    return false;
}

/* Scales of 16 columns times the one of the whole. */
static bool scale_plane(fa_binder *b, fa_weight *w, fa_source *s, float whole, bool divide) {
    const size_t n = (size_t)w->rows * (size_t)(w->cols / 16);
    w->scale_dtype = FA_F32;
    w->scale_row_bytes = (size_t)(w->cols / 16) * 4;
    s->made_scales = true;
    float *to = (float *)(void *)fa_bind_host(b, n * 4);
    w->scales = (const uint8_t *)to;
    for (size_t i = 0; to && i < n; i++) {
        const float f = fa_f8e4m3_to_f32(s->scales->data[i]);
        to[i] = divide ? f / whole : f * whole;
    }
    return to || fa_bind_dry(b);
}

bool fa_bind_is_fp4(const fa_ckpt_tensor *codes) { return codes->dtype == FA_U8; }

bool fa_bind_import_fp4(fa_binder *b, fa_weight *w, fa_source *s, const char *name) {
    const fa_ckpt_tensor *packed = s->t, *scales = s->scales;
    const fa_ckpt_tensor *global = fa_bind_find(b, name, ".weight_global_scale"),
                         *second = fa_bind_find(b, name, ".weight_scale_2");
    const bool nv = is_plane(scales, FA_F8_E4M3, w->rows, w->cols / 16) && w->cols % 16 == 0,
               mx = is_plane(scales, FA_U8, w->rows, w->cols / 32) && w->cols % 32 == 0;
    if (!is_plane(packed, FA_U8, w->rows, w->cols / 2) || (!nv && !mx)) {
        fa_bind_wrong(b, packed, "with its scales it is no nvfp4 or mxfp4 [%lld, %lld]", (long long)w->rows,
                      (long long)w->cols);
        return false;
    }
    w->fmt = nv ? FA_FMT_NVFP4 : FA_FMT_MXFP4;
    w->bits = 4;
    w->group = nv ? 16 : 32;
    w->codes = packed->data;
    w->row_bytes = (size_t)w->cols / 2;
    w->scales = scales->data;
    w->scale_row_bytes = (size_t)(w->cols / w->group);
    w->scale_dtype = nv ? FA_F8_E4M3 : FA_U8;
    float whole = 1;
    if (mx || (!global && !second)) return true;
    return whole_scale(b, global ? global : second, &whole) && scale_plane(b, w, s, whole, global != NULL);
}
