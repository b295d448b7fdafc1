/* Makes the arrays of a conversion: threads take blocks of rows, widen them, encode them and put them into their place
 * in the file. What was read is dropped from memory as it goes, so that a model of any size passes through. */
#define _DEFAULT_SOURCE
#include "base/alloc.h"
#include "base/cpus.h"
#include "engine/convert.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    BLOCK = 1 << 17, /* values that a thread makes at a time, about */
    SLAB = 64 << 20, /* bytes of the checkpoint between two looks at what can be dropped */
    FLUSH = 32 << 20 /* bytes of the result between two hints to write them */
};

/* What a thread works in. */
typedef struct room {
    float *y;          /* the same in the order that it is stored in */
    float *x;          /* a row [cols] */
    void *unpack;      /* fa_dequant_scratch(cols) */
    uint8_t *plane[3]; /* a block of rows of each plane */
} room;

typedef struct run {
    cv_plan *p;
    fa_pool *pool;
    fa_binder b;
    fa_st_stream *st;
    room *room; /* [threads] */
    int64_t done;
    int64_t flushed;
    const ffai_convert_opts *o;
    /* the rows in work: of one matrix of one part */
    const cv_item *it;
    const cv_part *part;
    const fa_stored *stored;
    fa_weight w;             /* with addresses; by columns: none */
    int64_t matrix;          /* of the stored stack */
    int64_t first, last, to; /* rows [first, last) of the part, which begin at row `to` of the item */
    int64_t block;
    const float *order; /* stored column k is the layer's column order[k]; NULL: as they are */
    const float *h;     /* weights of columns or NULL */
    float *columns;     /* room for them */
} run;

static size_t plane_row(const cv_item *it, int k) {
    if (fa_fmt_plain(it->f.fmt)) return (size_t)it->cols * fa_qfmts[it->f.fmt].block_bytes;
    if (!k) return (size_t)it->cols * it->f.bits / 8;
    return (size_t)(it->cols / it->f.group) * fa_dtype_size((fa_dtype)it->f.scale_dtype);
}

static int64_t rows_at_a_time(int64_t cols) { return cols >= BLOCK ? 1 : BLOCK / cols; }

/* ---- rows ---- */

/* Row r of n, of so many heads (0: in its order), as it stands among pairs. */
static int64_t unpaired(int64_t heads, int64_t n, int64_t r) {
    if (!heads) return r;
    const int64_t dim = n / heads, i = r % dim;
    return r - i + (i < dim / 2 ? 2 * i : 2 * (i - dim / 2) + 1);
}

/* The stored row behind row r of a part. */
static int64_t stored_row(const cv_part *p, int64_t r) { return p->from + unpaired(p->heads, p->count, r) * p->step; }

/* Rows that are columns of [cols, rows]. */
static void gather_column(const run *u, int64_t row, float *x) {
    const fa_ckpt_tensor *t = fa_ckpt_at(u->p->m->ckpt, u->stored->tensor);
    const size_t size = fa_dtype_size((fa_dtype)t->dtype);
    const uint8_t *p = t->data + ((size_t)u->matrix * (size_t)(u->stored->cols * u->stored->rows) + (size_t)row) * size;
    for (int64_t c = 0; c < u->stored->cols; c++, p += (size_t)u->stored->rows * size)
        fa_to_f32((fa_dtype)t->dtype, p, 1, x + c);
}

static void narrow(fa_dtype t, const float *x, int64_t n, uint8_t *to) {
    if (t == FA_F32) {
        memcpy(to, x, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = t == FA_F16 ? fa_f32_to_f16(x[i]) : fa_f32_to_bf16(x[i]);
        memcpy(to + 2 * i, &h, 2);
    }
}

static void round_to(fa_dtype t, float *x, int64_t n) {
    if (t == FA_BF16)
        for (int64_t i = 0; i < n; i++) x[i] = fa_bf16_to_f32(fa_f32_to_bf16(x[i]));
    else if (t == FA_F16)
        for (int64_t i = 0; i < n; i++) x[i] = fa_f16_to_f32(fa_f32_to_f16(x[i]));
}

static fa_dtype plain_dtype(int fmt) { return fmt == FA_FMT_F32 ? FA_F32 : fmt == FA_FMT_F16 ? FA_F16 : FA_BF16; }

/* Row r of the part as the planes of `shape`. */
static void make_row(const run *u, room *w, const fa_weight *shape, int64_t r, uint8_t *const to[3]) {
    const cv_item *it = u->it;
    const int64_t row = stored_row(u->part, r);
    if (it->f.as_is && u->w.codes) {
        const int64_t at = u->matrix * u->stored->rows + row;
        memcpy(to[0], u->w.codes + (size_t)at * u->w.row_bytes, plane_row(it, 0));
        if (it->n_out > 1) memcpy(to[1], u->w.scales + (size_t)at * u->w.scale_row_bytes, plane_row(it, 1));
        if (it->n_out > 2) memcpy(to[2], u->w.biases + (size_t)at * u->w.scale_row_bytes, plane_row(it, 2));
        return;
    }
    if (u->stored->by_columns)
        gather_column(u, row, w->x);
    else
        fa_dequant_row(&u->w, u->matrix * u->stored->rows + row, u->order ? w->y : w->x, w->unpack);
    for (int64_t c = 0; u->order && c < it->cols; c++) w->x[(int64_t)u->order[c]] = w->y[c];
    if (fa_fmt_plain(it->f.fmt)) {
        narrow(plain_dtype(it->f.fmt), w->x, it->cols, to[0]);
        return;
    }
    if (!fa_fmt_plain(u->w.fmt) || u->w.fmt == FA_FMT_F32 || u->p->dtype >= 0)
        round_to((fa_dtype)it->f.round, w->x, it->cols);
    if (u->h && it->f.fmt == FA_FMT_AFFINE)
        fa_quant_affine_fit(shape, w->x, u->h, to[0], to[1], to[2]);
    else
        fa_qfmts[it->f.fmt].quant_row(shape, w->x, to[0], to[1], to[2]);
}

static void work(void *arg, int ith, int n_thread) {
    run *u = (run *)arg;
    const cv_item *it = u->it;
    room *w = &u->room[ith];
    const fa_weight shape = {.rows = it->rows,
                             .cols = it->cols,
                             .fmt = it->f.fmt,
                             .bits = it->f.bits,
                             .group = it->f.group,
                             .scale_dtype = it->f.scale_dtype};
    (void)n_thread;
    for (int64_t b; (b = fa_pool_take(u->pool, 1) * u->block + u->first) < u->last && !fa_st_stream_failed(u->st);) {
        const int64_t n = b + u->block < u->last ? u->block : u->last - b;
        for (int64_t r = 0; r < n; r++) {
            uint8_t *to[3];
            for (int k = 0; k < 3; k++) to[k] = k < it->n_out ? w->plane[k] + (size_t)r * plane_row(it, k) : NULL;
            make_row(u, w, &shape, b + r, to);
        }
        for (int k = 0; k < it->n_out; k++) {
            const size_t row = plane_row(it, k);
            fa_st_stream_put(u->st, &it->out[k], (size_t)(u->to + b) * row, w->plane[k], (size_t)n * row);
        }
    }
}

size_t cv_locate_row(const cv_plan *p, const cv_item *it, int64_t r, fa_weight *w, int64_t *row) {
    const fa_stored *s = &p->stored.at[it->part[0].source];
    const int64_t each = it->rows * (s->n ? s->n : 1);
    const size_t part = (size_t)(r / each);
    const cv_part *pt = &it->part[part];
    s = &p->stored.at[pt->source];
    const fa_ckpt_tensor *t = fa_ckpt_at(p->m->ckpt, s->tensor);
    *w = s->w;
    w->codes = fa_fmt_planar(s->w.fmt) || s->by_columns ? NULL : t->data;
    *row = r % each / it->rows * s->rows + stored_row(pt, r % it->rows);
    return part;
}

/* ---- a matrix ---- */

static void drop(const uint8_t *p, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), lo = ((uintptr_t)p + page - 1) / page * page,
                    hi = ((uintptr_t)p + bytes) / page * page;
    if (hi > lo) madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

/* Pages of a stored tensor: clean ones of a mapped file, which come back when they are read again. */
static void drop_tensor(const run *u, const fa_ckpt_tensor *t) {
    (void)u;
    if (t) drop(t->data, t->bytes);
}

static int tell(run *u, int64_t bytes, fa_error *err) {
    u->done += bytes;
    if (u->done - u->flushed >= FLUSH) {
        fa_st_stream_flush(u->st);
        u->flushed = u->done;
    }
    if (u->o->progress && !u->o->progress(u->o->user, u->done, u->p->bytes))
        return fa_fail(err, FFAI_ECANCEL, "cancelled");
    return 0;
}

static size_t item_row(const cv_item *it) {
    size_t n = 0;
    for (int k = 0; k < it->n_out; k++) n += plane_row(it, k);
    return n;
}

/* One matrix of a part, slab by slab. */
static int run_rows(run *u, int64_t to, fa_error *err) {
    const size_t row = u->w.row_bytes ? u->w.row_bytes : (size_t)u->stored->cols * 4;
    int64_t slab = (int64_t)(SLAB / row);
    int rc = 0;
    if (slab < u->block) slab = u->block;
    u->to = to;
    for (int64_t r = 0; !rc && r < u->part->count; r += slab) {
        u->first = r;
        u->last = r + slab < u->part->count ? r + slab : u->part->count;
        fa_pool_run(u->pool, work, u);
        const fa_ckpt_tensor *t = fa_ckpt_at(u->p->m->ckpt, u->stored->tensor);
        const uint8_t *from =
            u->w.codes + (size_t)(u->matrix * u->stored->rows + u->part->from + r * u->part->step) * row;
        if (u->w.codes && from >= t->data && from < t->data + t->bytes) {
            const size_t n = (size_t)((u->last - r) * u->part->step) * row, left = (size_t)(t->data + t->bytes - from);
            drop(from, n < left ? n : left);
        }
        rc = tell(u, (int64_t)item_row(u->it) * (u->last - r), err);
    }
    return rc;
}

static int bind_part(run *u, fa_mem *temp, fa_error *err) {
    const fa_stored *s = u->stored;
    fa_source src;
    u->w = (fa_weight){.fmt = s->w.fmt};
    if (s->by_columns) return 0;
    u->b.mem = temp;
    u->b.turned = s->turned;
    u->b.experts = s->experts;
    u->order = NULL;
    const bool ok = fa_bind_stored(&u->b, &u->w, &src, s->n, s->rows, s->cols, s->name);
    u->b.turned = u->b.experts = false;
    if (ok) u->order = src.order;
    if (ok && !u->b.err.code) return 0;
    if (u->b.err.code) {
        if (err) *err = u->b.err;
        return u->b.err.code;
    }
    return fa_fail(err, FFAI_EINTERNAL, "%s: %s was found and is not there now", fa_ckpt_path(u->p->m->ckpt), s->real);
}

static int run_matrix(run *u, const cv_item *it, fa_error *err) {
    int rc = 0;
    int64_t to = 0;
    u->it = it;
    u->block = rows_at_a_time(it->cols);
    for (size_t i = 0; !rc && i < it->n_part; i++) {
        fa_mem temp = {0};
        u->part = &it->part[i];
        u->stored = &u->p->stored.at[u->part->source];
        const double *in = u->p->input ? u->p->input[u->part->source] : NULL;
        for (int64_t c = 0; in && c < it->cols; c++) u->columns[c] = (float)in[c];
        u->h = in ? u->columns : NULL;
        rc = bind_part(u, &temp, err);
        for (int64_t e = 0; !rc && e < (u->stored->n ? u->stored->n : 1); e++, to += it->rows) {
            u->matrix = e;
            rc = run_rows(u, to, err);
        }
        fa_mem_free(&temp);
        if (u->stored->by_columns || !fa_fmt_plain(u->stored->w.fmt))
            drop_tensor(u, fa_ckpt_at(u->p->m->ckpt, u->stored->tensor));
    }
    return rc;
}

/* ---- a vector ---- */

/* n values from `at` on of the result. */
static void make_values(const cv_vector *v, int64_t at, int64_t n, float *x) {
    const fa_dtype t = (fa_dtype)v->t->dtype;
    const size_t size = fa_dtype_size(t);
    if (!v->total) fa_to_f32(t, v->t->data + (size_t)at * size, n, x);
    for (int64_t i = 0; v->total && i < n; i++) {
        const int64_t from =
            (at + i) / v->count * v->total + v->from + unpaired(v->heads, v->count, (at + i) % v->count) * v->step;
        fa_to_f32(t, v->t->data + (size_t)from * size, 1, x + i);
    }
    for (int64_t i = 0; i < n; i++) {
        if (v->log_of_minus) x[i] = logf(-x[i]);
        if (v->add != 0) x[i] += v->add;
    }
}

static int run_vector(run *u, const cv_item *it, fa_error *err) {
    const fa_st_out *out = &it->out[0];
    const cv_vector *v = &it->v;
    const bool as_is = !v->total && !v->log_of_minus && v->add == 0 && (int)out->dtype == v->t->dtype;
    const size_t size = fa_dtype_size(out->dtype);
    const int64_t n = (int64_t)(out->bytes / size), piece = BLOCK;
    room *w = u->room;
    int rc = 0;
    for (int64_t at = 0; !rc && at < n; at += piece) {
        const int64_t k = at + piece < n ? piece : n - at;
        const uint8_t *from = v->t->data + (size_t)at * size;
        if (!as_is) {
            make_values(v, at, k, w->x);
            narrow(out->dtype, w->x, k, w->plane[0]);
            from = w->plane[0];
        }
        fa_st_stream_put(u->st, out, (size_t)at * size, from, (size_t)k * size);
        rc = tell(u, k * (int64_t)size, err);
    }
    drop_tensor(u, v->t);
    return rc;
}

/* ---- files ---- */

static int make_rooms(run *u, fa_mem *mem, fa_error *err) {
    const int n = fa_pool_size(u->pool);
    int64_t cols = BLOCK;
    size_t plane[3] = {4 * BLOCK, 1, 1};
    for (size_t i = 0; i < u->p->n; i++) {
        const cv_item *it = &u->p->item[i];
        if (!it->part) continue;
        if (it->cols > cols) cols = it->cols;
        for (int k = 0; k < it->n_out; k++) {
            const size_t bytes = (size_t)rows_at_a_time(it->cols) * plane_row(it, k);
            if (bytes > plane[k]) plane[k] = bytes;
        }
    }
    u->room = (room *)fa_mem_calloc(mem, (size_t)n, sizeof *u->room);
    if (!(u->columns = (float *)fa_mem_calloc(mem, (size_t)cols + 64, sizeof(float)))) u->room = NULL;
    for (int i = 0; u->room && i < n; i++) {
        room *w = &u->room[i];
        w->x = (float *)fa_mem_calloc(mem, (size_t)cols + 64, sizeof(float));
        w->y = (float *)fa_mem_calloc(mem, (size_t)cols + 64, sizeof(float));
        w->unpack = fa_mem_calloc(mem, fa_dequant_scratch(cols) + 64, 1);
        for (int k = 0; k < 3; k++) w->plane[k] = (uint8_t *)fa_mem_calloc(mem, plane[k] + 64, 1);
        if (!w->x || !w->y || !w->unpack || !w->plane[0] || !w->plane[1] || !w->plane[2]) u->room = NULL;
    }
    return u->room ? 0 : fa_fail(err, FFAI_ENOMEM, "no memory for rows of %lld values", (long long)cols);
}

static void shard_name(const cv_plan *p, int shard, char name[64]) {
    if (p->n_shard == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, p->n_shard);
}

/* The header of a shard, and where its arrays lie. */
static int open_shard(run *u, const fa_out_dir *d, int shard, size_t from, size_t to, fa_error *err) {
    char name[64];
    size_t n = 0;
    shard_name(u->p, shard, name);
    char *path = fa_out_dir_file(d, name, err);
    fa_st_out *out = FA_NEWN(fa_st_out, 3 * (to - from) + 1);
    int rc = path && out ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory for a list of tensors", name);
    for (size_t i = from; !rc && i < to; i++)
        for (int k = 0; k < u->p->item[i].n_out; k++) out[n++] = u->p->item[i].out[k];
    if (!rc) rc = fa_st_stream_open(&u->st, path, out, n, err);
    n = 0;
    for (size_t i = from; !rc && i < to; i++)
        for (int k = 0; k < u->p->item[i].n_out; k++) u->p->item[i].out[k] = out[n++];
    fa_free(path);
    fa_free(out);
    return rc;
}

static int write_index(const cv_plan *p, const fa_out_dir *d, fa_error *err) {
    fa_buf b = {0};
    char name[64];
    bool any = false;
    fa_buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %lld\n  },\n  \"weight_map\": {", (long long)p->bytes);
    for (size_t i = 0; i < p->n; i++)
        for (int k = 0; k < p->item[i].n_out; k++) {
            shard_name(p, p->item[i].shard, name);
            fa_buf_puts(&b, any ? ",\n    " : "\n    ");
            fa_buf_json(&b, p->item[i].out_name[k], strlen(p->item[i].out_name[k]));
            fa_buf_printf(&b, ": \"%s\"", name);
            any = true;
        }
    fa_buf_puts(&b, "\n  }\n}\n");
    int rc = b.failed ? fa_fail(err, FFAI_ENOMEM, "no memory for the index")
                      : fa_out_dir_write(d, "model.safetensors.index.json", b.data, b.len, err);
    fa_buf_free(&b);
    return rc;
}

static int run_shard(run *u, const fa_out_dir *d, int shard, size_t *at, fa_error *err) {
    cv_plan *p = u->p;
    size_t to = *at;
    while (to < p->n && p->item[to].shard == shard) to++;
    int rc = open_shard(u, d, shard, *at, to, err);
    if (rc) return rc;
    for (size_t i = *at; !rc && i < to && !fa_st_stream_failed(u->st); i++)
        rc = p->item[i].part ? run_matrix(u, &p->item[i], err) : run_vector(u, &p->item[i], err);
    const int rc2 = fa_st_stream_close(u->st, rc == 0, err);
    *at = to;
    return rc ? rc : rc2;
}

int cv_run(cv_plan *p, const fa_out_dir *d, const ffai_convert_opts *o, fa_error *err) {
    run u = {.p = p, .o = o};
    fa_mem mem = {0};
    size_t at = 0;
    int rc = fa_pool_create(&u.pool, o->n_thread > 0 ? o->n_thread : fa_cpu_threads(), err);
    if (!rc) rc = make_rooms(&u, &mem, err);
    if (!rc) rc = fa_binder_open(&u.b, p->m->ckpt, p->m->family->renames, &mem, err);
    const bool bound = !rc;
    for (int s = 0; !rc && s < p->n_shard; s++) rc = run_shard(&u, d, s, &at, err);
    if (!rc) rc = fa_ckpt_check(p->m->ckpt, err);
    if (!rc) rc = write_index(p, d, err);
    if (bound) fa_binder_close(&u.b);
    fa_pool_free(u.pool);
    fa_mem_free(&mem);
    return rc;
}
