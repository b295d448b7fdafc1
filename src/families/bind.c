/* Binding: names to views. Matrices stay where the file has them; vectors (norms, biases) become f32 in model memory.
 */
#define _DEFAULT_SOURCE
#include "families/bind.h"
#include "base/alloc.h"
#include "base/rng.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NAME_MAX_LEN = 256, REAL_MAX_LEN = NAME_MAX_LEN + 64 /* with prefix and suffix */, MISSING_SHOWN = 6 };

/* Checkpoints of the same family differ in what they put in front: text-only, multimodal wrappers of transformers 4 and
 * mlx, of transformers 5, and base models saved without their head. The embedding table tells which. */
static const struct {
    const char *body, *head;
} prefixes[] = {{"model.", ""},
                {"language_model.model.", "language_model."},
                {"model.language_model.", ""},
                {"", ""},
                {"model.language_model.model.", "model.language_model."}};

int fa_binder_open(fa_binder *b, const fa_ckpt *ckpt, fa_mem *mem, fa_error *err) {
    memset(b, 0, sizeof *b);
    b->ckpt = ckpt;
    b->mem = mem;
    b->body = prefixes[0].body;
    b->head = prefixes[0].head;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        char name[NAME_MAX_LEN];
        snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i].body);
        if (!fa_ckpt_find(ckpt, name)) continue;
        b->body = prefixes[i].body;
        b->head = prefixes[i].head;
        break;
    }
    const fa_jnode *cfg = fa_ckpt_config(ckpt);
    b->quant = fa_jget(cfg, "quantization");
    if (!b->quant) b->quant = fa_jget(cfg, "quantization_config");
    if (!b->quant) b->quant = fa_jget(fa_jget(cfg, "text_config"), "quantization");
    b->used = FA_NEWN(uint8_t, fa_ckpt_count(ckpt) + 1);
    return b->used
               ? 0
               : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", fa_ckpt_path(ckpt), fa_ckpt_count(ckpt));
}

void fa_binder_close(fa_binder *b) {
    fa_free(b->used);
    fa_buf_free(&b->missing);
    b->used = NULL;
}

int fa_binder_finish(fa_binder *b, fa_error *err) {
    if (b->err.code) {
        if (err) *err = b->err;
        return b->err.code;
    }
    if (!b->n_missing) return 0;
    return fa_fail(err, FFAI_EFORMAT, "%s: %d tensor%s missing: %s%s", fa_ckpt_path(b->ckpt), b->n_missing,
                   b->n_missing > 1 ? "s are" : " is", b->missing.data ? b->missing.data : "",
                   b->n_missing > MISSING_SHOWN ? ", ..." : "");
}

static void bind_fail(fa_binder *b, int code, const fa_ckpt_tensor *t, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void bind_fail(fa_binder *b, int code, const fa_ckpt_tensor *t, const char *fmt, ...) {
    if (b->err.code) return;
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (t)
        fa_fail(&b->err, code, "%s: tensor %s: %s", t->file, t->name, text);
    else
        fa_fail(&b->err, code, "%s: %s", fa_ckpt_path(b->ckpt), text);
}

static void bind_missing(fa_binder *b, const char *name) {
    if (b->n_missing++ < MISSING_SHOWN) fa_buf_printf(&b->missing, "%s%s", b->n_missing > 1 ? ", " : "", name);
}

/* The checkpoint's spelling of a family name plus suffix. */
static void real_name(const fa_binder *b, char *out, const char *name, const char *suffix) {
    bool body = strncmp(name, "model.", 6) == 0;
    snprintf(out, REAL_MAX_LEN, "%s%.*s%s", body ? b->body : b->head, NAME_MAX_LEN, body ? name + 6 : name, suffix);
}

static const fa_ckpt_tensor *find(fa_binder *b, const char *name, const char *suffix) {
    char real[REAL_MAX_LEN];
    real_name(b, real, name, suffix);
    return fa_ckpt_find(b->ckpt, real);
}

static void mark_used(fa_binder *b, const fa_ckpt_tensor *t, uint8_t how) {
    size_t i = (size_t)(t - fa_ckpt_at(b->ckpt, 0));
    if (b->used[i]) return;
    b->used[i] = how;
    b->bytes += (int64_t)t->bytes;
}

static bool check_shape(fa_binder *b, const fa_ckpt_tensor *t, int64_t rows, int64_t cols, const char *what) {
    if (t->n_dim == 2 && t->dim[0] == rows && t->dim[1] == cols) return true;
    fa_buf s = {0};
    for (int i = 0; i < t->n_dim; i++) fa_buf_printf(&s, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    bind_fail(b, FFAI_EFORMAT, t, "shape [%s], %s [%lld, %lld]", s.data ? s.data : "", what, (long long)rows,
              (long long)cols);
    fa_buf_free(&s);
    return false;
}

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
        bind_fail(b, FFAI_EFORMAT, t, "config.json: quantization: \"%s\" is not an integer", key);
    else
        bind_fail(b, FFAI_EFORMAT, t,
                  "config.json: quantization: \"%s\" is %lld, but [%lld, %lld] for a matrix of [%lld, %lld] means %lld",
                  key, (long long)fa_jint(n, 0), (long long)t->dim[0], (long long)t->dim[1], (long long)w->rows,
                  (long long)w->cols, (long long)found);
    return false;
}

/* Stored as mlx quantizes: the packed matrix, scales and (affine) biases. Bits and group follow from the shapes; config
 * says the mode. */
static void bind_quantized(fa_binder *b, fa_weight *w, const char *name, const fa_ckpt_tensor *t,
                           const fa_ckpt_tensor *scales) {
    char path[REAL_MAX_LEN];
    real_name(b, path, name, "");
    const fa_jnode *own = fa_jget(b->quant, path), *mode_node = fa_jget(own, "mode");
    if (!mode_node) mode_node = fa_jget(b->quant, "mode");
    const char *mode = fa_jstr(mode_node, NULL);
    if (mode_node && !mode && fa_jtype_of(mode_node) != FA_JNULL) mode = "(no string)";
    const fa_ckpt_tensor *biases = find(b, name, ".biases");
    if (!mode) mode = biases ? "affine" : "mxfp4";
    bool affine = strcmp(mode, "affine") == 0;
    if (!affine && strcmp(mode, "mxfp4") != 0) {
        bind_fail(b, FFAI_ENOTSUP, t, "quantization mode \"%s\" is not supported (affine, mxfp4)", mode);
        return;
    }
    if (t->dtype != FA_U32 || t->n_dim != 2 || scales->n_dim != 2 || t->dim[0] != w->rows ||
        scales->dim[0] != w->rows || w->cols < 1 || scales->dim[1] < 1 || w->cols % scales->dim[1] ||
        w->cols / scales->dim[1] > 128 || t->dim[1] > w->cols || t->dim[1] * 32 % w->cols) {
        bind_fail(b, FFAI_EFORMAT, t, "packed %s [%lld, %lld] with scales [%lld, %lld] is no quantized [%lld, %lld]",
                  t->type_name, (long long)t->dim[0], (long long)t->dim[1], (long long)scales->dim[0],
                  (long long)scales->dim[1], (long long)w->rows, (long long)w->cols);
        return;
    }
    w->fmt = affine ? FA_FMT_AFFINE : FA_FMT_MXFP4;
    w->bits = (uint8_t)(t->dim[1] * 32 / w->cols);
    w->group = (uint16_t)(w->cols / scales->dim[1]);
    const fa_jnode *said = said_of(b, own);
    if (!agrees(b, w, t, said, "bits", w->bits) || !agrees(b, w, t, said, "group_size", w->group)) return;
    if (!affine && (w->bits != 4 || w->group != 32)) {
        bind_fail(b, FFAI_ENOTSUP, t, "%s with %d bits and groups of %d", mode, w->bits, w->group);
        return;
    }
    w->scale_dtype = (uint8_t)scales->dtype;
    if (affine) {
        if (!biases || biases->n_dim != 2 || biases->dim[0] != scales->dim[0] || biases->dim[1] != scales->dim[1] ||
            biases->dtype != scales->dtype ||
            (scales->dtype != FA_F32 && scales->dtype != FA_F16 && scales->dtype != FA_BF16)) {
            bind_fail(b, FFAI_EFORMAT, t, "affine scales (%s) and biases do not match", scales->type_name);
            return;
        }
        w->biases = biases->data;
        mark_used(b, biases, 1);
    } else if (scales->dtype != FA_U8) {
        bind_fail(b, FFAI_EFORMAT, t, "mxfp4 scales are %s, not U8", scales->type_name);
        return;
    }
    w->codes = t->data;
    w->row_bytes = (size_t)t->dim[1] * 4;
    w->scales = scales->data;
    w->scale_row_bytes = (size_t)scales->dim[1] * fa_dtype_size((fa_dtype)scales->dtype);
    mark_used(b, scales, 1);
}

static void bind_plain(fa_binder *b, fa_weight *w, const fa_ckpt_tensor *t) {
    if (!check_shape(b, t, w->rows, w->cols, "expected")) return;
    if (t->fmt < 0) {
        bind_fail(b, FFAI_ENOTSUP, t, "type %s is recognised but not computed", t->type_name);
        return;
    }
    w->fmt = (uint8_t)t->fmt;
    w->codes = t->data;
    w->row_bytes = fa_qfmt_row_bytes((fa_fmt)t->fmt, 0, w->cols);
}

/* Moves one plane of a weight to private memory, piece by piece: the kernel drops the mapped pages of a piece before
 * the next is read, so that a large tensor is never resident twice. */
static const uint8_t *private_plane(fa_binder *b, const uint8_t *data, size_t bytes) {
    const size_t piece = (size_t)4 << 20;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uint8_t *p = (uint8_t *)fa_mem_calloc(b->mem, bytes, 1);
    for (size_t at = 0; p && at < bytes; at += piece) {
        size_t n = bytes - at < piece ? bytes - at : piece;
        memcpy(p + at, data + at, n);
        /* the first page may hold another tensor's bytes: they come back from the file when they are read */
        uintptr_t lo = (uintptr_t)(data + at) / page * page, hi = (uintptr_t)(data + at + n) / page * page;
        if (hi > lo) madvise((void *)lo, hi - lo, MADV_DONTNEED);
    }
    return p;
}

static void copy_private(fa_binder *b, fa_weight *w, const fa_ckpt_tensor *t) {
    w->codes = private_plane(b, w->codes, (size_t)w->rows * w->row_bytes);
    if (w->codes && w->scales) w->scales = private_plane(b, w->scales, (size_t)w->rows * w->scale_row_bytes);
    if (w->codes && w->biases) w->biases = private_plane(b, w->biases, (size_t)w->rows * w->scale_row_bytes);
    bool affine = w->fmt == FA_FMT_AFFINE;
    if (!w->codes || (w->scale_row_bytes && !w->scales) || (affine && !w->biases))
        bind_fail(b, FFAI_ENOMEM, t, "no memory for a private copy of %zu bytes", t->bytes);
}

/* ---- weights that lie elsewhere ---- */

enum { PLACE_ALIGN = FA_ARENA_ALIGN };

int fa_placer_open(fa_placer *p, const fa_ckpt *ckpt, fa_error *err) {
    memset(p, 0, sizeof *p);
    p->row_align = 1;
    p->place = FA_NEWN(size_t, fa_ckpt_count(ckpt) + 1);
    return p->place
               ? 0
               : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", fa_ckpt_path(ckpt), fa_ckpt_count(ckpt));
}

void fa_placer_close(fa_placer *p) {
    fa_free(p->place);
    fa_mem_free(&p->temp);
    memset(p, 0, sizeof *p);
}

/* Room for one more element of a list in temp memory, which only grows; NULL: no memory. */
static void *append(fa_placer *p, void **list, size_t *n, size_t *cap, size_t size) {
    if (*n == *cap) {
        size_t more = *cap ? 2 * *cap : 256;
        void *grown = fa_mem_calloc(&p->temp, more, size);
        if (!grown) return NULL;
        if (*n) memcpy(grown, *list, *n * size);
        *list = grown;
        *cap = more;
    }
    return (uint8_t *)*list + (*n)++ * size;
}

/* Hands out `bytes` of a region; *fresh: nothing was put there yet. t NULL: a tensor of no checkpoint. */
static uint8_t *place(fa_binder *b, const fa_ckpt_tensor *t, uint8_t *region, size_t *used, size_t bytes, bool *fresh) {
    size_t *known = t ? &b->placer->place[t - fa_ckpt_at(b->ckpt, 0)] : NULL;
    *fresh = !known || !*known;
    if (!*fresh) return region + (*known - 1);
    size_t at = (*used + PLACE_ALIGN - 1) / PLACE_ALIGN * PLACE_ALIGN;
    if (known) *known = at + 1;
    *used = at + bytes;
    return region + at;
}

static void add_copy(fa_binder *b, uint8_t *to, const void *host, size_t rows, size_t row_bytes, size_t pitch) {
    fa_placer *p = b->placer;
    void *list = p->copy;
    fa_copy *c = (fa_copy *)append(p, &list, &p->n_copy, &p->cap_copy, sizeof *c);
    p->copy = (fa_copy *)list;
    if (c)
        *c = (fa_copy){to, host, rows, row_bytes, pitch};
    else
        bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu copies", p->n_copy);
}

static size_t pitch_of(const fa_placer *p, size_t row_bytes) {
    return (row_bytes + p->row_align - 1) / p->row_align * p->row_align;
}

static const uint8_t *place_plane(fa_binder *b, const fa_ckpt_tensor *t, const uint8_t *host, int64_t rows,
                                  size_t row_bytes) {
    bool fresh;
    fa_placer *p = b->placer;
    size_t pitch = pitch_of(p, row_bytes);
    uint8_t *to = place(b, t, p->base, &p->bytes, (size_t)rows * pitch, &fresh);
    if (fresh && host && !p->dry) add_copy(b, to, host, (size_t)rows, row_bytes, pitch);
    return to;
}

/* The planes of w, whose host addresses give way to those of their places. Tensors NULL: random weights. */
static void place_matrix(fa_binder *b, fa_weight *w, const fa_ckpt_tensor *t, const fa_ckpt_tensor *scales,
                         const fa_ckpt_tensor *biases) {
    size_t scale_row = w->scale_row_bytes;
    w->codes = place_plane(b, t, w->codes, w->rows, w->row_bytes);
    w->row_bytes = pitch_of(b->placer, w->row_bytes);
    if (!scale_row) return;
    w->scales = place_plane(b, scales, w->scales, w->rows, scale_row);
    if (w->fmt == FA_FMT_AFFINE) w->biases = place_plane(b, biases, w->biases, w->rows, scale_row);
    w->scale_row_bytes = pitch_of(b->placer, scale_row);
}

/* A vector: values are made by whoever calls, in *host [n] of temp memory, unless it stays NULL. */
static const float *place_vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, float **host) {
    bool fresh;
    size_t bytes = (size_t)n * sizeof(float);
    fa_placer *p = b->placer;
    uint8_t *to = place(b, t, p->vectors, &p->vector_bytes, bytes, &fresh);
    *host = NULL;
    if (!fresh || p->dry) return (const float *)(const void *)to;
    if ((*host = (float *)fa_mem_calloc(&p->temp, (size_t)n, sizeof **host)))
        add_copy(b, to, *host, 1, bytes, bytes);
    else
        bind_fail(b, FFAI_ENOMEM, t, "no memory for %lld floats", (long long)n);
    return (const float *)(const void *)to;
}

static void place_synth(fa_binder *b, fa_weight *w, uint64_t seed) {
    fa_placer *p = b->placer;
    void *list = p->job;
    fa_synth_shape(b->synth, w);
    place_matrix(b, w, NULL, NULL, NULL);
    if (p->dry) return;
    fa_synth_job *j = (fa_synth_job *)append(p, &list, &p->n_job, &p->cap_job, sizeof *j);
    p->job = (fa_synth_job *)list;
    if (j)
        *j = (fa_synth_job){*w, seed};
    else
        bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu matrices", p->n_job);
}

/* ---- random weights (families/synth.h) ---- */

static void add_item(fa_binder *b, const char *name, const char *suffix, const void *data, fa_dtype t, int64_t d0,
                     int64_t d1) {
    if (b->n_item == b->cap_item) {
        size_t cap = b->cap_item ? 2 * b->cap_item : 256;
        fa_st_item *grown = (fa_st_item *)fa_mem_calloc(b->mem, cap, sizeof *grown);
        if (!grown) {
            bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu tensors", cap);
            return;
        }
        if (b->n_item) memcpy(grown, b->item, b->n_item * sizeof *grown);
        b->item = grown;
        b->cap_item = cap;
    }
    char real[REAL_MAX_LEN];
    real_name(b, real, name, suffix);
    const char *kept = fa_mem_printf(b->mem, "%s", real);
    if (!kept)
        bind_fail(b, FFAI_ENOMEM, NULL, "no memory for names");
    else
        b->item[b->n_item++] = (fa_st_item){kept, data, {d0, d1}, d1 ? 2 : 1, t};
    b->bytes += (int64_t)fa_dtype_size(t) * d0 * (d1 ? d1 : 1);
}

static void count_format(fa_binder *b, const fa_weight *w, int64_t bytes) {
    b->n_param += w->rows * w->cols;
    b->fmt_bytes[w->fmt] += bytes;
    if (b->fmt_bytes[w->fmt] <= b->format_bytes) return;
    b->format_bytes = b->fmt_bytes[w->fmt];
    fa_weight_fmt_text(w, b->format);
}

static void synth_matrix(fa_binder *b, fa_weight *w, const char *name) {
    static const fa_dtype plain[] = {FA_F32, FA_F16, FA_BF16};
    uint64_t seed = fa_rng_at(0, b->n_item);
    w->name = "synthetic weight";
    if (b->placer)
        place_synth(b, w, seed);
    else if (fa_synth_matrix(b->synth, w, seed, b->mem, &b->err))
        return;
    bool packed = w->fmt == FA_FMT_AFFINE || w->fmt == FA_FMT_MXFP4;
    if (packed) {
        add_item(b, name, ".scales", w->scales, (fa_dtype)w->scale_dtype, w->rows, w->cols / w->group);
        if (w->biases) add_item(b, name, ".biases", w->biases, (fa_dtype)w->scale_dtype, w->rows, w->cols / w->group);
    }
    if (packed)
        add_item(b, name, ".weight", w->codes, FA_U32, w->rows, (int64_t)w->row_bytes / 4);
    else if (w->fmt <= FA_FMT_BF16)
        add_item(b, name, ".weight", w->codes, plain[w->fmt], w->rows, w->cols);
    else
        add_item(b, name, ".weight", w->codes, FA_U8, w->rows,
                 (int64_t)w->row_bytes); /* block formats: no safetensors type */
    if (b->n_item) w->name = b->item[b->n_item - 1].name;
    count_format(b, w, w->rows * (int64_t)(w->row_bytes + (w->biases ? 2 : 1) * w->scale_row_bytes));
}

static const float *synth_vector(fa_binder *b, int64_t n, float mean, const char *name, const char *suffix) {
    uint64_t seed = fa_rng_at(1, b->n_item);
    const float *p;
    if (b->placer) {
        float *host;
        p = place_vector(b, NULL, n, &host);
        if (host) fa_synth_fill(host, n, mean, 0.1f, seed);
    } else
        p = fa_synth_vector(n, mean, 0.1f, seed, b->mem);
    if (!p)
        bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %lld floats", (long long)n);
    else
        add_item(b, name, suffix, p, FA_F32, n, 0);
    b->n_param += n;
    return p;
}

/* ---- matrices and vectors ---- */

static void bind_matrix(fa_binder *b, fa_weight *w, int64_t rows, int64_t cols, const char *name) {
    memset(w, 0, sizeof *w);
    w->rows = rows;
    w->cols = cols;
    if (b->synth) {
        synth_matrix(b, w, name);
        return;
    }
    const fa_ckpt_tensor *t = find(b, name, ".weight"), *scales = find(b, name, ".scales");
    if (!t) {
        char real[REAL_MAX_LEN];
        real_name(b, real, name, ".weight");
        bind_missing(b, real);
        return;
    }
    w->name = t->name;
    if (scales)
        bind_quantized(b, w, name, t, scales);
    else
        bind_plain(b, w, t);
    if (b->err.code) return;
    if (fa_weight_check(w, &b->err)) {
        fa_fail_prefix(&b->err, b->err.code, "%s", t->file);
        return;
    }
    int64_t bytes = (int64_t)(t->bytes + (scales ? 2 * scales->bytes : 0));
    if (!b->used[t - fa_ckpt_at(b->ckpt, 0)]) count_format(b, w, bytes);
    mark_used(b, t, 2);
    if (b->placer)
        place_matrix(b, w, t, scales, w->biases ? find(b, name, ".biases") : NULL);
    else if (b->private_copy)
        copy_private(b, w, t);
}

static const float *vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n) {
    if (t->n_dim != 1 || t->dim[0] != n) {
        bind_fail(b, FFAI_EFORMAT, t, "%d-dimensional with %lld values first, expected [%lld]", t->n_dim,
                  (long long)t->dim[0], (long long)n);
        return NULL;
    }
    if (t->dtype != FA_F32 && t->dtype != FA_F16 && t->dtype != FA_BF16 && t->dtype != FA_F64) {
        bind_fail(b, FFAI_ENOTSUP, t, "type %s cannot be read as floats", t->type_name);
        return NULL;
    }
    float *host;
    const float *p;
    if (b->placer) {
        p = place_vector(b, t, n, &host);
    } else if (!(p = host = (float *)fa_mem_calloc(b->mem, (size_t)n, sizeof *p))) {
        bind_fail(b, FFAI_ENOMEM, t, "no memory for %lld floats", (long long)n);
        return NULL;
    }
    if (host) fa_to_f32((fa_dtype)t->dtype, t->data, n, host);
    if (!b->used[t - fa_ckpt_at(b->ckpt, 0)]) b->n_param += n;
    mark_used(b, t, 1);
    return p;
}

#define FORMAT_NAME(name, fmt)                                                                                         \
    char name[NAME_MAX_LEN];                                                                                           \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    vsnprintf(name, sizeof name, fmt, ap);                                                                             \
    va_end(ap)

void fa_bind_linear(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
    memset(out, 0, sizeof *out);
    if (b->err.code) return;
    bind_matrix(b, &out->w, rows, cols, name);
    if (b->synth) {
        if (bias == FA_BIAS) out->bias = synth_vector(b, rows, 0, name, ".bias");
        return;
    }
    const fa_ckpt_tensor *t = bias == FA_NO_BIAS ? NULL : find(b, name, ".bias");
    if (t && !b->err.code) {
        out->bias = vector(b, t, rows);
    } else if (bias == FA_BIAS) {
        char real[REAL_MAX_LEN];
        real_name(b, real, name, ".bias");
        bind_missing(b, real);
    }
}

void fa_bind_norm(fa_binder *b, fa_norm *out, int64_t dim, double eps, double offset, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
    *out = (fa_norm){NULL, dim, (float)eps, (float)offset};
    if (b->err.code) return;
    if (b->synth) {
        out->w = synth_vector(b, dim, 1 - (float)offset, name, ".weight");
        return;
    }
    const fa_ckpt_tensor *t = find(b, name, ".weight");
    if (t) {
        out->w = vector(b, t, dim);
    } else {
        char real[REAL_MAX_LEN];
        real_name(b, real, name, ".weight");
        bind_missing(b, real);
    }
}

bool fa_bind_has(fa_binder *b, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
    return find(b, name, ".weight") != NULL;
}

bool fa_bind_headless(fa_binder *b) {
    const char *arch = fa_jstr(fa_jfirst(fa_jget(fa_ckpt_config(b->ckpt), "architectures")), NULL);
    size_t n = arch ? strlen(arch) : 0;
    bool base = n > 5 && strcmp(arch + n - 5, "Model") == 0;
    b->headless = !b->synth && (base || !b->body[0]);
    return b->headless;
}

const float *fa_bind_floats(fa_binder *b, int64_t n, const char *name) {
    const fa_ckpt_tensor *t = fa_ckpt_find(b->ckpt, name);
    return t && t->n_dim == 1 && t->dim[0] == n ? vector(b, t, n) : NULL;
}

void *fa_bind_alloc(fa_binder *b, size_t n, size_t size) {
    void *p = fa_mem_calloc(b->mem, n, size);
    if (!p) bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu x %zu bytes", n, size);
    return p;
}
