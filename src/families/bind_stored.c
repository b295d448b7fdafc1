/* What checkpoints hold: the formats and layouts of stored matrices, as views of host memory. A stack of experts is
 * seen as one tall matrix. */
#include "families/bind.h"

#include <stdio.h>
#include <string.h>

/* What config.json says of a module: its own entry (an object) or the global values. Global values are not held against
 * a model that has entries, as their names may be spelled for another wrapper. */
static const fa_jnode *said_of(const fa_binder *b, const fa_jnode *own) {
    if (fa_jtype_of(own) == FA_JOBJ) return own;
    for (const fa_jnode *n = fa_jfirst(b->quant); n; n = fa_jnext(n))
        if (fa_jtype_of(n) == FA_JOBJ || fa_jtype_of(n) == FA_JBOOL) return NULL;
    return b->quant;
}

/* bits and group follow from the shapes; a config that says something else describes another file. */
static bool agrees(fa_binder *b, const fa_weight *w, const fa_ckpt_tensor *t, const fa_jnode *said, const char *key,
                   int64_t found) {
    const fa_jnode *n = fa_jget(said, key);
    if (!n || fa_jtype_of(n) == FA_JNULL || fa_jint(n, INT64_MIN) == found) return true;
    if (fa_jint(n, INT64_MIN) == INT64_MIN)
        fa_bind_wrong(b, t, "config.json: quantization: \"%s\" is not an integer", key);
    else
        fa_bind_fail(
            b, FFAI_EFORMAT, t,
            "config.json: quantization: \"%s\" is %lld, but [%lld, %lld] for a matrix of [%lld, %lld] means %lld", key,
            (long long)fa_jint(n, 0), (long long)t->dim[0], (long long)t->dim[1], (long long)w->rows,
            (long long)w->cols, (long long)found);
    return false;
}

/* ---- shapes: [rows, cols], or a stack [n, rows, cols], of which `cols` may be packed ---- */

static int64_t last_dim(const fa_ckpt_tensor *t) { return t->n_dim ? t->dim[t->n_dim - 1] : 0; }

/* Are the dimensions before the last those of n matrices with `rows` rows? */
static bool leads(const fa_ckpt_tensor *t, int64_t n, int64_t rows) {
    return n ? t->n_dim == 3 && t->dim[0] == n && t->dim[1] == rows : t->n_dim == 2 && t->dim[0] == rows;
}

static const char *dims_text(const fa_ckpt_tensor *t, char out[128]) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < t->n_dim && at < 100; i++)
        at += (size_t)snprintf(out + at, 128 - at, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    return out;
}

static bool wrong_shape(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, int64_t rows, int64_t cols) {
    char d[128];
    if (n)
        fa_bind_wrong(b, t, "shape [%s], expected [%lld, %lld, %lld]", dims_text(t, d), (long long)n, (long long)rows,
                      (long long)cols);
    else
        fa_bind_wrong(b, t, "shape [%s], expected [%lld, %lld]", dims_text(t, d), (long long)rows, (long long)cols);
    return false;
}

/* ---- mlx ---- */

static bool affine_planes(fa_binder *b, fa_weight *w, const fa_source *s) {
    const fa_ckpt_tensor *scales = s->scales, *biases = s->biases;
    bool alike = biases && biases->n_dim == scales->n_dim && biases->dtype == scales->dtype;
    for (int i = 0; alike && i < scales->n_dim; i++) alike = biases->dim[i] == scales->dim[i];
    if (!alike || (scales->dtype != FA_F32 && scales->dtype != FA_F16 && scales->dtype != FA_BF16)) {
        fa_bind_fail(b, FFAI_EFORMAT, s->t, "affine scales (%s) and biases do not match", scales->type_name);
        return false;
    }
    w->biases = biases->data;
    return true;
}

/* The mode of a module: its own or the global one; "": nobody says. An own entry without one, or biases when nobody
 * says anything, mean affine. */
static const char *mode_of(const fa_binder *b, const fa_source *s, const fa_jnode *own) {
    const fa_jnode *node = fa_jget(own, "mode");
    if (!node && fa_jtype_of(own) != FA_JOBJ) node = fa_jget(b->quant, "mode");
    const char *mode = fa_jstr(node, NULL);
    if (node && !mode && fa_jtype_of(node) != FA_JNULL) mode = "(no string)";
    if (!mode) mode = s->biases ? "affine" : "";
    return mode;
}

/* What modes without biases mean; bits and group are fixed. */
static const struct {
    const char *mode;
    uint8_t fmt, bits, group, scale_dtype;
} small_floats[] = {{"mxfp4", FA_FMT_MXFP4, 4, 32, FA_U8},
                    {"mxfp8", FA_FMT_MXFP8, 8, 32, FA_U8},
                    {"nvfp4", FA_FMT_NVFP4, 4, 16, FA_F8_E4M3}};

/* w's bits and group are those of the shapes. */
static bool small_float(fa_binder *b, fa_weight *w, const fa_source *s, const char *mode) {
    const int n = sizeof small_floats / sizeof small_floats[0];
    int i = 0;
    while (i < n && (mode[0] ? strcmp(mode, small_floats[i].mode) != 0
                             : w->bits != small_floats[i].bits || w->group != small_floats[i].group))
        i++;
    if (i == n && mode[0]) {
        fa_bind_fail(b, FFAI_ENOTSUP, s->t, "quantization mode \"%s\" is not supported (affine, mxfp4, mxfp8, nvfp4)",
                     mode);
        return false;
    }
    if (i == n || w->bits != small_floats[i].bits || w->group != small_floats[i].group) {
        fa_bind_fail(b, FFAI_ENOTSUP, s->t, "%s with %d bits and groups of %d", mode[0] ? mode : "no mode", w->bits,
                     w->group);
        return false;
    }
    w->fmt = small_floats[i].fmt;
    w->scale_dtype = small_floats[i].scale_dtype;
    if (s->scales->dtype == FA_U8) return true;
    fa_bind_fail(b, FFAI_EFORMAT, s->t, "%s scales are %s, not U8", small_floats[i].mode, s->scales->type_name);
    return false;
}

/* nvfp4 with a scale of each whole matrix, X.global_scale: the largest magnitude, which codes and scales at their
 * largest (6 and 448) stand for. */
static bool global_scale(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows, const char *name) {
    const fa_ckpt_tensor *t = fa_bind_find(b, name, ".global_scale");
    if (!t || w->fmt != FA_FMT_NVFP4) return true;
    const int64_t groups = w->cols / 16, count = t->n_dim ? t->dim[0] : 1;
    if (t->dtype != FA_F32 || t->n_dim > 1 || count != (n ? n : 1)) {
        fa_bind_wrong(b, t, "scales of whole matrices: %s [%lld], expected F32 [%lld]", t->type_name, (long long)count,
                      (long long)(n ? n : 1));
        return false;
    }
    fa_bind_used(b, t, FA_USE_FLOATS);
    w->scale_dtype = FA_F32;
    w->scale_row_bytes = (size_t)groups * 4;
    s->made_scales = true;
    float *to = (float *)(void *)fa_bind_host(b, (size_t)w->rows * w->scale_row_bytes);
    const uint8_t *from = w->scales;
    w->scales = (const uint8_t *)to;
    for (int64_t r = 0; to && r < w->rows; r++) {
        float whole;
        memcpy(&whole, t->data + 4 * (r / rows), 4);
        for (int64_t g = 0; g < groups; g++) *to++ = fa_f8e4m3_to_f32(*from++) * (whole / 2688.0f);
    }
    return w->scales || fa_bind_dry(b);
}

/* Stored as mlx quantizes: the packed matrix, scales and (affine) biases. Bits and group follow from the shapes; config
 * says the mode. */
static bool stored_mlx(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows, const char *name) {
    const fa_ckpt_tensor *t = s->t, *scales = s->scales;
    char path[FA_REAL_MAX], d[128], ds[128];
    fa_bind_real_name(b, path, name, "");
    const fa_jnode *own = fa_jget(b->quant, path);
    const char *mode = mode_of(b, s, own);
    int64_t packed = last_dim(t), groups = last_dim(scales);
    if (t->dtype != FA_U32 || !leads(t, n, rows) || !leads(scales, n, rows) || w->cols < 1 || groups < 1 ||
        w->cols % groups || w->cols / groups > 128 || packed > w->cols || packed * 32 % w->cols) {
        fa_bind_wrong(b, t, "packed %s [%s] with scales [%s] is no quantized [%lld, %lld]", t->type_name,
                      dims_text(t, d), dims_text(scales, ds), (long long)rows, (long long)w->cols);
        return false;
    }
    w->bits = (uint8_t)(packed * 32 / w->cols);
    w->group = (uint16_t)(w->cols / groups);
    const fa_jnode *said = said_of(b, own);
    if (!agrees(b, w, t, said, "bits", w->bits) || !agrees(b, w, t, said, "group_size", w->group)) return false;
    w->codes = t->data;
    w->row_bytes = (size_t)packed * 4;
    w->scales = scales->data;
    w->scale_row_bytes = (size_t)groups * fa_dtype_size((fa_dtype)scales->dtype);
    if (strcmp(mode, "affine") != 0) return small_float(b, w, s, mode) && global_scale(b, w, s, n, rows, name);
    w->fmt = FA_FMT_AFFINE;
    w->scale_dtype = (uint8_t)scales->dtype;
    return affine_planes(b, w, s);
}

/* ---- GPT-OSS: mxfp4 as X_blocks [n, rows, groups, 16] and X_scales [n, rows, groups], bytes ---- */

static bool stored_blocks(fa_binder *b, fa_weight *w, const fa_source *s, int64_t n, int64_t rows) {
    const fa_ckpt_tensor *t = s->t, *scales = s->scales;
    char d[128], ds[128];
    int64_t groups = w->cols / 32;
    if (t->dtype != FA_U8 || scales->dtype != FA_U8 || w->cols % 32 || t->n_dim != 4 || t->dim[0] != n ||
        t->dim[1] != rows || t->dim[2] != groups || t->dim[3] != 16 || !leads(scales, n, rows) ||
        last_dim(scales) != groups) {
        fa_bind_wrong(b, t, "blocks [%s] with scales [%s] are no mxfp4 [%lld, %lld, %lld]", dims_text(t, d),
                      dims_text(scales, ds), (long long)n, (long long)rows, (long long)w->cols);
        return false;
    }
    w->fmt = FA_FMT_MXFP4;
    w->bits = 4;
    w->group = 32;
    w->scale_dtype = FA_U8;
    w->codes = t->data;
    w->row_bytes = (size_t)groups * 16;
    w->scales = scales->data;
    w->scale_row_bytes = (size_t)groups;
    return true;
}

/* ---- as it is ---- */

/* A stack whose matrices are stored transposed, [n, cols, rows]: GPT-OSS in bf16, early Qwen 3 VL MoE. */
static bool stored_transposed(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows) {
    const fa_ckpt_tensor *t = s->t;
    size_t size = fa_dtype_size((fa_dtype)t->dtype), row = (size_t)w->cols * size;
    w->fmt = (uint8_t)t->fmt;
    w->row_bytes = row;
    s->made = true;
    uint8_t *to = fa_bind_host(b, (size_t)(n * rows) * row);
    w->codes = to;
    for (int64_t e = 0; to && e < n; e++)
        for (int64_t c = 0; c < w->cols; c++)
            for (int64_t r = 0; r < rows; r++)
                memcpy(to + (size_t)(e * rows + r) * row + (size_t)c * size,
                       t->data + (size_t)((e * w->cols + c) * rows + r) * size, size);
    return to || fa_bind_dry(b);
}

static bool stored_plain(fa_binder *b, fa_weight *w, fa_source *s, int64_t n, int64_t rows) {
    const fa_ckpt_tensor *t = s->t;
    bool row = !n && rows == 1 && t->n_dim == 1; /* GGUF has a matrix of one row as a vector */
    bool straight = (row || leads(t, n, rows)) && last_dim(t) == w->cols;
    bool turned = n && leads(t, n, w->cols) && last_dim(t) == rows;
    if (t->fmt < 0 && (straight || turned)) {
        fa_bind_fail(b, FFAI_ENOTSUP, t, "type %s is recognised but not computed", t->type_name);
        return false;
    }
    size_t len = strlen(t->name);
    bool bare = len < 7 || strcmp(t->name + len - 7, ".weight") != 0; /* mlx and GGUF never store transposed stacks */
    if (straight && turned && b->turned && bare) straight = false;
    if (!straight && turned && t->fmt <= FA_FMT_BF16) return stored_transposed(b, w, s, n, rows);
    if (!straight) return wrong_shape(b, t, n, rows, w->cols);
    w->fmt = (uint8_t)t->fmt;
    w->codes = t->data;
    w->row_bytes = fa_qfmt_row_bytes((fa_fmt)t->fmt, 0, w->cols);
    return true;
}

bool fa_bind_stored(fa_binder *b, fa_weight *w, fa_source *src, int64_t n, int64_t rows, int64_t cols,
                    const char *name) {
    bool ok;
    *w = (fa_weight){.rows = (n ? n : 1) * rows, .cols = cols};
    *src = (fa_source){.t = fa_bind_find(b, name, ".weight"), .scales = fa_bind_find(b, name, ".scales")};
    if (!src->t && n) src->t = fa_bind_find(b, name, ""); /* stacks of transformers have no suffix */
    if ((!src->t || !src->scales) && fa_bind_imports(b, src, n, name)) {
        ok = fa_bind_import(b, w, src, n, rows, name);
    } else if (src->t && src->scales) {
        src->biases = fa_bind_find(b, name, ".biases");
        ok = stored_mlx(b, w, src, n, rows, name);
    } else if (src->t) {
        ok = stored_plain(b, w, src, n, rows);
    } else {
        src->t = fa_bind_find(b, name, "_blocks");
        src->scales = src->t ? fa_bind_find(b, name, "_scales") : NULL;
        ok = src->scales && stored_blocks(b, w, src, n, rows);
    }
    if (ok) w->name = src->t->name;
    return ok;
}
