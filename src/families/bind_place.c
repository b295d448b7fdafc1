/* Where matrices and vectors lie: in the file mapping, in private copies, or on a device, whose places are handed out
 * here; and random ones in their stead. */
#define _DEFAULT_SOURCE
#include "base/alloc.h"
#include "base/rng.h"
#include "families/bind.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Planes lie one after the other in large blocks, whose pages are large: with small ones a stream of weights waits for
 * the translation of their addresses. */
static uint8_t *private_room(fa_binder *b, size_t bytes) {
    const size_t block = (size_t)64 << 20, need = (bytes + 63) / 64 * 64;
    if (need > b->private_left) {
        const size_t size = need > block ? need : block;
        if (!(b->private_at = (uint8_t *)fa_mem_huge(b->mem, size))) {
            b->private_left = 0;
            return NULL;
        }
        b->private_left = size;
    }
    uint8_t *p = b->private_at;
    b->private_at += need;
    b->private_left -= need;
    return p;
}

/* Moves one plane of a weight to private memory, piece by piece: the kernel drops the mapped pages of a piece before
 * the next is read, so that a large tensor is never resident twice. */
static const uint8_t *private_plane(fa_binder *b, const uint8_t *data, size_t bytes) {
    const size_t piece = (size_t)4 << 20;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uint8_t *p = private_room(b, bytes);
    for (size_t at = 0; p && at < bytes; at += piece) {
        size_t n = bytes - at < piece ? bytes - at : piece;
        memcpy(p + at, data + at, n);
        /* the first page may hold another tensor's bytes: they come back from the file when they are read */
        uintptr_t lo = (uintptr_t)(data + at) / page * page, hi = (uintptr_t)(data + at + n) / page * page;
        if (hi > lo) madvise((void *)lo, hi - lo, MADV_DONTNEED);
    }
    return p;
}

static void copy_private(fa_binder *b, fa_weight *w, const fa_source *s) {
    const size_t scales = (size_t)w->rows * w->scale_row_bytes;
    if (!s->made && !s->t->copied) w->codes = private_plane(b, w->codes, (size_t)w->rows * w->row_bytes);
    if (!s->made_scales && w->codes && w->scales && !s->scales->copied) w->scales = private_plane(b, w->scales, scales);
    if (!s->made_scales && w->codes && w->biases && !s->biases->copied) w->biases = private_plane(b, w->biases, scales);
    bool affine = w->fmt == FA_FMT_AFFINE;
    if (!w->codes || (w->scale_row_bytes && !w->scales) || (affine && !w->biases))
        fa_bind_fail(b, FFAI_ENOMEM, s->t, "no memory for a private copy of %zu bytes", s->t->bytes);
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
        fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu copies", p->n_copy);
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

/* Values are made by whoever calls, in *host [n] of temp memory, unless it stays NULL. */
const float *fa_bind_place_vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, float **host) {
    bool fresh;
    size_t bytes = (size_t)n * sizeof(float);
    fa_placer *p = b->placer;
    if (!p) {
        *host = (float *)fa_mem_calloc(b->mem, (size_t)n, sizeof **host);
        if (!*host) fa_bind_fail(b, FFAI_ENOMEM, t, "no memory for %lld floats", (long long)n);
        return *host;
    }
    uint8_t *to = place(b, t, p->vectors, &p->vector_bytes, bytes, &fresh);
    *host = NULL;
    if (!fresh || p->dry) return (const float *)(const void *)to;
    if ((*host = (float *)fa_mem_calloc(&p->temp, (size_t)n, sizeof **host)))
        add_copy(b, to, *host, 1, bytes, bytes);
    else
        fa_bind_fail(b, FFAI_ENOMEM, t, "no memory for %lld floats", (long long)n);
    return (const float *)(const void *)to;
}

/* Random contents, made by the device. */
static void place_synth(fa_binder *b, fa_weight *w, uint64_t seed) {
    fa_placer *p = b->placer;
    void *list = p->job;
    if (b->synth->widened && !p->dry) {
        fa_bind_fail(b, FFAI_ENOTSUP, NULL, "synthetic: widened formats are made on the cpu only");
        return;
    }
    fa_synth_shape(b->synth, w);
    place_matrix(b, w, NULL, NULL, NULL);
    if (p->dry) return;
    fa_synth_job *j = (fa_synth_job *)append(p, &list, &p->n_job, &p->cap_job, sizeof *j);
    p->job = (fa_synth_job *)list;
    if (j)
        *j = (fa_synth_job){*w, seed};
    else
        fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu matrices", p->n_job);
}

bool fa_bind_dry(const fa_binder *b) { return b->placer && b->placer->dry; }

uint8_t *fa_bind_host(fa_binder *b, size_t bytes) {
    if (fa_bind_dry(b)) return NULL;
    uint8_t *p = (uint8_t *)fa_mem_calloc(b->placer ? &b->placer->temp : b->mem, bytes, 1);
    if (!p) fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for a matrix of %zu bytes", bytes);
    return p;
}

void fa_bind_relocate(fa_binder *b, fa_weight *w, const fa_source *s) {
    if (b->placer)
        place_matrix(b, w, s->made ? NULL : s->t, s->made_scales ? NULL : s->scales, s->made_scales ? NULL : s->biases);
    else if (b->private_copy)
        copy_private(b, w, s);
}

/* ---- random weights (families/synth.h) ---- */

static void add_item(fa_binder *b, const char *name, const char *suffix, const void *data, fa_dtype t, int64_t n,
                     int64_t d0, int64_t d1) {
    if (b->n_item == b->cap_item) {
        size_t cap = b->cap_item ? 2 * b->cap_item : 256;
        fa_st_item *grown = (fa_st_item *)fa_mem_calloc(b->mem, cap, sizeof *grown);
        if (!grown) {
            fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu tensors", cap);
            return;
        }
        if (b->n_item) memcpy(grown, b->item, b->n_item * sizeof *grown);
        b->item = grown;
        b->cap_item = cap;
    }
    char real[FA_REAL_MAX];
    fa_bind_real_name(b, real, name, suffix);
    const char *kept = fa_mem_printf(b->mem, "%s", real);
    if (!kept)
        fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for names");
    else
        b->item[b->n_item++] = n    ? (fa_st_item){kept, data, {n, d0 / n, d1}, 3, t}
                               : d1 ? (fa_st_item){kept, data, {d0, d1, 0}, 2, t}
                                    : (fa_st_item){kept, data, {d0, 0, 0}, 1, t};
    b->bytes += (int64_t)fa_dtype_size(t) * d0 * (d1 ? d1 : 1);
}

/* A checkpoint with more kinds than there is room for counts the rest as the last one. */
void fa_bind_count(fa_binder *b, const fa_weight *w, int64_t bytes) {
    char text[32];
    int i = 0;
    fa_weight_fmt_text(w, text);
    while (i < b->n_kind && strcmp(b->kind[i].text, text) != 0) i++;
    if (i == FA_MAX_KINDS)
        i--;
    else if (i == b->n_kind)
        memcpy(b->kind[b->n_kind++].text, text, sizeof text);
    b->kind[i].n++;
    b->kind[i].n_param += w->rows * w->cols;
    b->kind[i].bytes += bytes;
    b->n_param += w->rows * w->cols;
}

void fa_bind_synth(fa_binder *b, fa_weight *w, int64_t n, const char *name) {
    static const fa_dtype plain[] = {FA_F32, FA_F16, FA_BF16};
    uint64_t seed = fa_rng_at(0, b->n_synth++);
    w->name = "synthetic weight";
    if (b->placer)
        place_synth(b, w, seed);
    else if (fa_synth_matrix(b->synth, w, seed, b->mem, &b->err))
        return;
    bool packed = fa_fmt_planar(w->fmt) && w->fmt != FA_FMT_FP8;
    if (packed) {
        add_item(b, name, ".scales", w->scales, w->biases ? (fa_dtype)w->scale_dtype : FA_U8, n, w->rows,
                 w->cols / w->group);
        if (w->biases)
            add_item(b, name, ".biases", w->biases, (fa_dtype)w->scale_dtype, n, w->rows, w->cols / w->group);
    }
    if (packed)
        add_item(b, name, ".weight", w->codes, FA_U32, n, w->rows, (int64_t)w->row_bytes / 4);
    else if (w->fmt == FA_FMT_FP8) {
        add_item(b, name, ".weight_scale", w->scales, FA_F32, n, w->rows, 1);
        add_item(b, name, ".weight", w->codes, FA_F8_E4M3, n, w->rows, w->cols);
    } else if (w->fmt <= FA_FMT_BF16)
        add_item(b, name, ".weight", w->codes, plain[w->fmt], n, w->rows, w->cols);
    else
        add_item(b, name, ".weight", w->codes, FA_U8, n, w->rows,
                 (int64_t)w->row_bytes); /* block formats: no safetensors type */
    if (b->n_item) w->name = b->item[b->n_item - 1].name;
    fa_bind_count(b, w, w->rows * (int64_t)(w->row_bytes + (w->biases ? 2 : 1) * w->scale_row_bytes));
}

uint64_t fa_bind_synth_seed(fa_binder *b) { return fa_rng_at(1, b->n_synth++); }

const float *fa_bind_synth_vector(fa_binder *b, int64_t n, int64_t each, float mean, const char *name,
                                  const char *suffix) {
    uint64_t seed = fa_bind_synth_seed(b);
    const float *p;
    if (b->placer) {
        float *host;
        p = fa_bind_place_vector(b, NULL, n, &host);
        if (host) fa_synth_fill(host, n, mean, 0.1f, seed);
    } else
        p = fa_synth_vector(n, mean, 0.1f, seed, b->mem);
    if (!p)
        fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %lld floats", (long long)n);
    else
        add_item(b, name, suffix, p, FA_F32, 0, each ? n / each : n, each);
    b->n_param += n;
    return p;
}
