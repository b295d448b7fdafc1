/* Adapters of an engine: matching a file's modules to the model's matrices, their memory, and the table of what all of
 * them change, which recording looks things up in.
 *
 * Weights are shared by engines and stay as they are. A loaded adapter is copied: into one block of a device's memory,
 * rows at multiples of FA_DEVICE_PITCH, or into host memory. Loading and dropping wait for the device, make the table
 * anew and forget the recorded programs. Which sequence uses what is told by fa_batch.adapt, so programs outlive
 * changes of that. */
#include "engine/adapter_file.h"
#include "engine/engine.h"
#include "base/alloc.h"
#include "base/smap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A change of one of the model's matrices. */
typedef struct change {
    uint32_t id; /* of the matrix */
    bool table;  /* of the embedding, not of the product with it */
    fa_lora lora;
} change;

struct ffai_adapter {
    ffai_engine *e;
    int index; /* in e->adapters */
    char *path;
    bool mlx;
    uint64_t hash;
    change *change; /* [n] */
    size_t n, cap;
    int64_t rank; /* the largest */
    fa_mem mem;   /* what its weights point to; on a device only while they are loaded */
    void *block;  /* on a device */
    size_t bytes;
};

/* ---- finding the matrices of a module ---- */

/* Targets of the same name stand in a chain. */
typedef struct finder {
    const ffai_engine *e;
    const fa_targets *all;
    fa_smap first;  /* name to index of the first target */
    uint32_t *next; /* [all->n] index of the next one of that name, 0: none */
    bool pairs;     /* rows of q and k are in the order of GGUF files */
} finder;

static int finder_open(finder *f, const ffai_engine *e, fa_error *err) {
    const fa_targets *all = &e->m->targets;
    *f = (finder){.e = e, .all = all, .next = FA_NEWN(uint32_t, all->n + 1)};
    f->pairs = fa_jbool(fa_jget(fa_ckpt_config(e->m->ckpt), "ffai_rope_interleaved"), false);
    bool ok = f->next != NULL;
    for (size_t i = 0; ok && i < all->n; i++) {
        const char *name = all->at[i].name;
        uint32_t at = 0;
        int put = fa_smap_put(&f->first, name, strlen(name), (uint32_t)i);
        ok = put >= 0;
        if (put) continue;
        for (fa_smap_get(&f->first, name, strlen(name), &at); f->next[at];) at = f->next[at];
        f->next[at] = (uint32_t)i;
    }
    return ok ? 0 : fa_fail(err, FFAI_ENOMEM, "no memory for %zu matrices", all->n);
}

static void finder_close(finder *f) {
    fa_smap_free(&f->first);
    fa_free(f->next);
}

/* What a module is of the model. */
typedef struct found {
    const fa_target *at;
    uint32_t index;
    int alone; /* >= 0: it is only this one of the targets in the chain: a part of what the model stores fused */
} found;

static bool lookup(const finder *f, const char *name, found *out) {
    if (!fa_smap_get(&f->first, name, strlen(name), &out->index)) return false;
    out->at = &f->all->at[out->index];
    out->alone = -1;
    return true;
}

/* A projection by its own name, where the model has it as the i-th part of a fused one. */
static bool lookup_part(const finder *f, const char *name, found *out) {
    static const struct {
        const char *own, *fused;
        int part;
    } parts[] = {{"q_proj", "qkv_proj", 0},
                 {"k_proj", "qkv_proj", 1},
                 {"v_proj", "qkv_proj", 2},
                 {"gate_proj", "gate_up_proj", 0},
                 {"up_proj", "gate_up_proj", 1}};
    const char *dot = strrchr(name, '.');
    char fused[FA_NAME_MAX];
    for (size_t i = 0; dot && i < sizeof parts / sizeof *parts; i++) {
        if (strcmp(dot + 1, parts[i].own)) continue;
        snprintf(fused, sizeof fused, "%.*s.%s", (int)(dot - name), name, parts[i].fused);
        if (!lookup(f, fused, out)) continue;
        out->alone = parts[i].part;
        for (int k = 0; k < parts[i].part && out->at; k++) {
            out->index = f->next[out->index];
            out->at = out->index ? &f->all->at[out->index] : NULL;
        }
        if (out->at) return true;
    }
    return false;
}

/* False: the model has no such module. */
static bool find(const finder *f, const char *module, found *out) {
    char name[FA_NAME_MAX];
    const fa_rename *renames = f->e->m->family->renames;
    for (int turn = 0; fa_bind_module(renames, module, turn, name); turn++)
        if (lookup(f, name, out)) return true;
    for (int turn = 0; fa_bind_module(renames, module, turn, name); turn++) {
        if (lookup_part(f, name, out)) return true;
        /* a tied head is the embedding's matrix */
        if (!strcmp(name, "lm_head") && f->e->m->dims.tied && lookup(f, "model.embed_tokens", out)) return true;
    }
    return false;
}

/* ---- copies ---- */

/* The row of what the module's name stands for that row i of a target is. */
static int64_t stored_row(const finder *f, const found *at, const fa_target *t, int64_t i) {
    int64_t row = at->alone >= 0 ? i : t->row ? t->row[i] : t->part.from + i * t->part.step;
    size_t len = strlen(t->name);
    bool rotated = len > 7 && (!strcmp(t->name + len - 7, ".q_proj") || !strcmp(t->name + len - 7, ".k_proj"));
    if (!f->pairs || !rotated) return row;
    /* pairs (2 i, 2 i + 1) of a head were rows i and i + half of it */
    int64_t dim = f->e->m->dims.head_dim, half = dim / 2, in = row % dim;
    return row - in + in % 2 * half + in / 2;
}

static fa_fmt fmt_of(const fa_st_tensor *t) {
    return t->dtype == FA_F32 ? FA_FMT_F32 : t->dtype == FA_F16 ? FA_FMT_F16 : FA_FMT_BF16;
}

/* A matrix [rows, cols] in the adapter's memory, elements of t moved as they are; turned: t is [cols, rows]. rows_of
 * NULL: all rows in order. */
static bool copy_matrix(ffai_adapter *a, fa_weight *w, const fa_st_tensor *t, bool turned, const int64_t *rows_of,
                        int64_t rows) {
    const size_t size = fa_dtype_size((fa_dtype)t->dtype);
    const int64_t cols = turned ? t->dim[0] : t->dim[1], pitch = t->dim[1];
    uint8_t *to = (uint8_t *)fa_mem_calloc(&a->mem, (size_t)(rows * cols), size);
    *w = (fa_weight){.rows = rows, .cols = cols, .codes = to, .row_bytes = (size_t)cols * size, .name = t->name};
    w->fmt = (uint8_t)fmt_of(t);
    for (int64_t r = 0; to && r < rows; r++) {
        int64_t from = rows_of ? rows_of[r] : r;
        if (!turned) {
            memcpy(to + (size_t)(r * cols) * size, t->data + (size_t)(from * pitch) * size, (size_t)cols * size);
            continue;
        }
        for (int64_t c = 0; c < cols; c++)
            memcpy(to + (size_t)(r * cols + c) * size, t->data + (size_t)(c * pitch + from) * size, size);
    }
    return to != NULL;
}

static const float *copy_bias(ffai_adapter *a, const fa_st_tensor *t, const int64_t *rows_of, int64_t rows) {
    float *to = (float *)fa_mem_calloc(&a->mem, (size_t)rows, sizeof *to);
    size_t size = fa_dtype_size((fa_dtype)t->dtype);
    for (int64_t r = 0; to && r < rows; r++)
        fa_to_f32((fa_dtype)t->dtype, t->data + (size_t)rows_of[r] * size, 1, to + r);
    return to;
}

/* ---- changes ---- */

static change *new_change(ffai_adapter *a, uint32_t id, bool table, float scale, fa_error *err) {
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        change *grown = (change *)fa_realloc(a->change, cap, sizeof *grown);
        if (!grown) {
            fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu changes", a->path, cap);
            return NULL;
        }
        a->change = grown;
        a->cap = cap;
    }
    change *c = &a->change[a->n++];
    *c = (change){.id = id, .table = table, .lora = {.scale = scale, .adapter = a->index}};
    return c;
}

/* Shapes of a module's matrices against those of the model's; the difference is noted. */
static bool fits(const fa_adapter_file *file, const fa_adapter_module *m, const found *at, fa_buf *wrong) {
    const fa_target *t = at->at;
    int64_t total = at->alone >= 0 ? t->rows : t->part.total, in = m->table ? total : t->cols,
            out = m->table ? t->cols : total, a[2] = {m->rank, in}, b[2] = {out, m->rank};
    if (file->mlx) a[0] = in, a[1] = m->rank, b[0] = m->rank, b[1] = out;
    bool ok = m->a->dim[0] == a[0] && m->a->dim[1] == a[1] && m->b->dim[0] == b[0] && m->b->dim[1] == b[1];
    if (ok && m->bias) ok = m->bias->dim[0] == out && !m->table;
    if (ok && m->base) ok = m->base->n_dim == 2 && m->base->dim[0] == total && m->base->dim[1] == t->cols;
    if (!ok)
        fa_buf_printf(wrong, "%s%s: matrices [%lld, %lld] and [%lld, %lld] for one of [%lld, %lld]",
                      wrong->len ? "; " : "", m->name, (long long)m->a->dim[0], (long long)m->a->dim[1],
                      (long long)m->b->dim[0], (long long)m->b->dim[1], (long long)total, (long long)t->cols);
    return ok;
}

/* A table: row by token, then up to the width. */
static int change_table(ffai_adapter *a, const fa_adapter_file *file, const fa_adapter_module *m, const fa_target *t,
                        fa_error *err) {
    change *c = new_change(a, t->id, true, m->scale, err);
    if (!c) return FFAI_ENOMEM;
    bool ok = copy_matrix(a, &c->lora.a, m->a, !file->mlx, NULL, t->rows) &&
              copy_matrix(a, &c->lora.b, m->b, file->mlx, NULL, t->cols);
    /* mlx: where the head is the embedding it changes with it */
    if (ok && file->mlx && a->e->m->dims.tied) {
        if (!(c = new_change(a, t->id, false, m->scale, err))) return FFAI_ENOMEM;
        ok = copy_matrix(a, &c->lora.a, m->b, false, NULL, m->rank) &&
             copy_matrix(a, &c->lora.b, m->a, false, NULL, t->rows);
    }
    return ok ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %s", a->path, m->name);
}

/* One of the targets that a module's name stands for. first: the change of another one, whose a is the same. */
static int change_linear(ffai_adapter *a, const finder *f, const fa_adapter_file *file, const fa_adapter_module *m,
                         const found *at, const fa_target *t, size_t first, fa_error *err) {
    change *c = new_change(a, t->id, false, m->scale, err);
    int64_t *row = c ? FA_NEWN(int64_t, (size_t)t->rows) : NULL;
    bool ok = row != NULL;
    for (int64_t i = 0; ok && i < t->rows; i++) row[i] = stored_row(f, at, t, i);
    if (ok && c != &a->change[first])
        c->lora.a = a->change[first].lora.a;
    else if (ok)
        ok = copy_matrix(a, &c->lora.a, m->a, file->mlx, NULL, m->rank);
    if (ok) ok = copy_matrix(a, &c->lora.b, m->b, file->mlx, row, t->rows);
    if (ok && m->bias) ok = (c->lora.bias = copy_bias(a, m->bias, row, t->rows)) != NULL;
    fa_free(row);
    return ok ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %s", a->path, m->name);
}

static int change_module(ffai_adapter *a, const finder *f, const fa_adapter_file *file, const fa_adapter_module *m,
                         const found *at, fa_error *err) {
    if (m->rank > a->rank) a->rank = m->rank;
    if (m->table) return change_table(a, file, m, at->at, err);
    size_t first = a->n;
    int rc = 0;
    for (uint32_t i = at->index;;) {
        rc = change_linear(a, f, file, m, at, &f->all->at[i], first, err);
        i = f->next[i];
        if (rc || at->alone >= 0 || !i) return rc;
    }
}

/* All modules, or what is wrong with all of them. */
static int match(ffai_adapter *a, const fa_adapter_file *file, fa_error *err) {
    finder f;
    fa_names absent = {0};
    fa_buf list = {0}, wrong = {0};
    int rc = finder_open(&f, a->e, err);
    for (size_t i = 0; i < file->n && !rc; i++) {
        const fa_adapter_module *m = &file->module[i];
        found at;
        if (!find(&f, m->name, &at) || (m->table && at.at->part.total != at.at->rows))
            fa_name_list_add(&absent, m->name);
        else if (fits(file, m, &at, &wrong) && !wrong.len && !absent.total)
            rc = change_module(a, &f, file, m, &at, err);
    }
    fa_name_list_print(&absent, &list);
    if (!rc && (absent.total || wrong.len))
        rc = fa_fail(err, FFAI_EFORMAT, "%s: %s%s%s%s", a->path,
                     absent.total ? "modules that the model does not have, or whose matrices adapters cannot change: "
                                  : "",
                     list.data ? list.data : "", absent.total && wrong.len ? "; " : "", wrong.data ? wrong.data : "");
    fa_name_list_free(&absent);
    fa_buf_free(&list);
    fa_buf_free(&wrong);
    finder_close(&f);
    return rc;
}

/* ---- on a device ---- */

static size_t aligned(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Hands out a place and lists the copy; base NULL: only counts. */
static void *place(uint8_t *base, size_t *used, fa_copy *copy, size_t *n_copy, const void *host, size_t rows,
                   size_t row_bytes, size_t pitch) {
    uint8_t *to = base + *used;
    *used = aligned(*used + rows * pitch, FA_ARENA_ALIGN);
    if (base) copy[(*n_copy)++] = (fa_copy){to, host, rows, row_bytes, pitch};
    return base ? to : NULL;
}

static void place_matrix(uint8_t *base, size_t *used, fa_copy *copy, size_t *n_copy, fa_weight *w) {
    size_t pitch = aligned(w->row_bytes, FA_DEVICE_PITCH);
    void *to = place(base, used, copy, n_copy, w->codes, (size_t)w->rows, w->row_bytes, pitch);
    if (!base) return;
    w->codes = (const uint8_t *)to;
    w->row_bytes = pitch;
}

/* Places for all; with base their copies too, and addresses change to those of the device. */
static size_t place_all(ffai_adapter *a, uint8_t *base, fa_copy *copy, size_t *n_copy) {
    size_t used = 0;
    const uint8_t *last = NULL; /* the host address of the a before, which parts of a fused module share */
    const fa_weight *last_w = NULL;
    for (size_t i = 0; i < a->n; i++) {
        fa_lora *l = &a->change[i].lora;
        size_t bias = (size_t)l->b.rows * sizeof *l->bias;
        if (l->a.codes == last) {
            if (base) l->a = *last_w;
        } else {
            last = l->a.codes;
            place_matrix(base, &used, copy, n_copy, &l->a);
            last_w = &l->a;
        }
        place_matrix(base, &used, copy, n_copy, &l->b);
        if (!l->bias) continue;
        const void *to = place(base, &used, copy, n_copy, l->bias, 1, bias, bias);
        if (base) l->bias = (const float *)to;
    }
    return used;
}

static int to_device(ffai_adapter *a, fa_error *err) {
    fa_device *d = a->e->dev;
    size_t n_copy = 0;
    a->bytes = place_all(a, NULL, NULL, &n_copy);
    if (!d) return 0;
    fa_copy *copy = FA_NEWN(fa_copy, 3 * a->n);
    int rc = copy ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu copies", a->path, 3 * a->n);
    /* kernels may read a little ahead */
    if (!rc && !(a->block = d->alloc(d, a->bytes + FA_ARENA_ALIGN, "an adapter", err))) rc = FFAI_ENOMEM;
    if (!rc) {
        place_all(a, (uint8_t *)a->block, copy, &n_copy);
        rc = d->upload(d, copy, n_copy, err);
    }
    fa_free(copy);
    if (!rc) fa_mem_free(&a->mem); /* it is there now */
    return rc;
}

/* ---- the table ---- */

static void table_free(const ffai_engine *e, fa_adapted *t, fa_mem *mem, void *dev_mem) {
    if (dev_mem) e->dev->release(e->dev, dev_mem);
    fa_mem_free(mem);
    memset(t, 0, sizeof *t);
}

/* Counts what is changed on each matrix, or with `item` puts it there. */
static void gather(const ffai_engine *e, fa_loras *linear, fa_loras *embed, fa_lora *item) {
    for (int k = 0; k < FA_ADAPTERS; k++) {
        const ffai_adapter *a = e->adapters.at[k];
        for (size_t i = 0; a && i < a->n; i++) {
            const change *c = &a->change[i];
            fa_loras *l = c->table ? &embed[c->id] : &linear[c->id];
            int64_t rank = c->lora.b.cols;
            if (item) {
                fa_lora *to = item + (l->item - item) + l->n;
                *to = c->lora;
                to->u_from = l->rank;
            }
            l->n++;
            l->rank += rank;
            if (rank > l->max_rank) l->max_rank = rank;
        }
    }
}

/* Turns counts into places for that many: *at goes on. */
static void give_places(fa_loras *l, uint32_t n, const fa_lora *item, const fa_lora *dev, size_t *at) {
    for (uint32_t i = 0; i < n; i++) {
        size_t count = (size_t)l[i].n;
        l[i] = (fa_loras){.item = item + *at, .dev_item = dev ? dev + *at : NULL};
        *at += count;
    }
}

/* The table of all that is loaded; the one before goes. Waits for what runs and drops programs, which point to it. */
static int make_table(ffai_engine *e, fa_error *err) {
    fa_adapters *s = &e->adapters;
    fa_mem mem = {0};
    uint32_t n = (uint32_t)e->m->targets.n + 1;
    size_t total = 0, at = 0;
    void *dev_mem = NULL;
    int rc = fa_engine_wait(e, err);
    for (int k = 0; k < FA_ADAPTERS; k++) total += s->at[k] ? s->at[k]->n : 0;
    fa_loras *linear = (fa_loras *)fa_mem_calloc(&mem, n, sizeof *linear);
    fa_loras *embed = (fa_loras *)fa_mem_calloc(&mem, n, sizeof *embed);
    fa_lora *item = (fa_lora *)fa_mem_calloc(&mem, total + 1, sizeof *item);
    if (!rc && (!linear || !embed || !item)) rc = fa_fail(err, FFAI_ENOMEM, "no memory for %zu changes", total);
    if (!rc && e->dev && total && !(dev_mem = e->dev->alloc(e->dev, total * sizeof *item, "adapters", err)))
        rc = FFAI_ENOMEM;
    if (!rc) {
        gather(e, linear, embed, NULL);
        give_places(linear, n, item, (const fa_lora *)dev_mem, &at);
        give_places(embed, n, item, (const fa_lora *)dev_mem, &at);
        gather(e, linear, embed, item);
        if (dev_mem) rc = e->dev->write(e->dev, dev_mem, item, total * sizeof *item, err);
    }
    if (rc) {
        table_free(e, &(fa_adapted){0}, &mem, dev_mem);
        return rc;
    }
    fa_engine_drop_programs(e);
    table_free(e, &s->table, &s->mem, s->dev_mem);
    s->table = (fa_adapted){linear, embed, n};
    s->mem = mem;
    s->dev_mem = dev_mem;
    s->n = 0;
    for (int k = 0; k < FA_ADAPTERS; k++)
        if (s->at[k]) s->n = k + 1;
    return 0;
}

/* ---- loading and dropping ---- */

static void adapter_free(ffai_adapter *a) {
    if (!a) return;
    if (a->block) a->e->dev->release(a->e->dev, a->block);
    fa_mem_free(&a->mem);
    fa_free(a->change);
    fa_free(a->path);
    fa_free(a);
}

static int load(ffai_adapter *a, const char *path, fa_error *err) {
    fa_adapter_file file;
    if (!(a->path = fa_strdup(path))) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for an adapter", path);
    int rc = fa_adapter_file_open(&file, path, err);
    if (rc) return rc;
    a->mlx = file.mlx;
    a->hash = file.hash;
    rc = match(a, &file, err);
    if (!rc) rc = to_device(a, err);
    fa_adapter_file_close(&file);
    for (size_t i = 0; i < a->n; i++) a->change[i].lora.a.name = a->change[i].lora.b.name = NULL; /* of the file */
    return rc;
}

int ffai_adapter_load(ffai_adapter **out, ffai_engine *e, const char *path, ffai_error *err) {
    int index = 0;
    *out = NULL;
    if (!path) return fa_fail(err, FFAI_EINVAL, "ffai_adapter_load: path is NULL");
    if (e->in_events) return fa_fail(err, FFAI_EINVAL, "ffai_adapter_load inside an event of a step");
    while (index < FA_ADAPTERS && e->adapters.at[index]) index++;
    if (index == FA_ADAPTERS) return fa_fail(err, FFAI_ELIMIT, "%s: %d adapters are loaded already", path, FA_ADAPTERS);
    ffai_adapter *a = FA_NEW(ffai_adapter);
    if (!a) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for an adapter", path);
    a->e = e;
    a->index = index;
    int rc = load(a, path, err);
    if (!rc) {
        e->adapters.at[index] = a;
        rc = make_table(e, err);
        if (rc) e->adapters.at[index] = NULL;
    }
    if (rc)
        adapter_free(a);
    else
        *out = a;
    return rc;
}

int ffai_adapter_drop(ffai_adapter *a, ffai_error *err) {
    if (!a) return 0;
    ffai_engine *e = a->e;
    int k = a->index, n = fa_requests_using(e, k);
    if (e->in_events) return fa_fail(err, FFAI_EINVAL, "ffai_adapter_drop inside an event of a step");
    if (n) return fa_fail(err, FFAI_EINVAL, "%s: %d unfinished request%s it", a->path, n, n > 1 ? "s use" : " uses");
    e->adapters.at[k] = NULL;
    int rc = make_table(e, err);
    if (rc) {
        e->adapters.at[k] = a;
        return rc;
    }
    e->adapters.use[k] = 0;
    for (int s = 0; s < e->n_slot; s++) {
        float *use = &e->slot_use[(int64_t)s * FA_ADAPTERS + k];
        if (*use != 0) fa_kv_reset(e->kv, s); /* the next adapter of this number is another one */
        *use = 0;
    }
    fa_requests_forget(e, k);
    adapter_free(a);
    return 0;
}

void fa_adapters_free(ffai_engine *e) {
    for (int k = 0; k < FA_ADAPTERS; k++) adapter_free(e->adapters.at[k]);
    table_free(e, &e->adapters.table, &e->adapters.mem, e->adapters.dev_mem);
    memset(&e->adapters, 0, sizeof e->adapters);
}

void ffai_adapter_get_info(const ffai_adapter *a, ffai_adapter_info *info) {
    *info = (ffai_adapter_info){.path = a->path,
                                .kind = a->mlx ? "mlx" : "peft",
                                .n_matrix = (int64_t)a->n,
                                .rank = a->rank,
                                .bytes = (int64_t)a->bytes};
}

/* ---- using ---- */

int fa_adapters_scales(const ffai_engine *e, const ffai_adapter_use *use, size_t n, float *scales, fa_error *err) {
    float s[FA_ADAPTERS] = {0};
    for (size_t i = 0; i < n; i++) {
        const ffai_adapter *a = use[i].adapter;
        if (!a || a->e != e)
            return fa_fail(err, FFAI_EINVAL, "adapter %zu: %s", i, a ? "it was loaded into another engine" : "NULL");
        s[a->index] += use[i].scale;
        if (!isfinite(s[a->index]))
            return fa_fail(err, FFAI_EINVAL, "%s: the scale %g is no finite number", a->path, (double)s[a->index]);
    }
    memcpy(scales, s, sizeof s);
    return 0;
}

int ffai_engine_use_adapters(ffai_engine *e, const ffai_adapter_use *use, size_t n, ffai_error *err) {
    return fa_adapters_scales(e, use, n, e->adapters.use, err);
}

uint64_t fa_adapter_hash(const ffai_engine *e, int adapter) { return e->adapters.at[adapter]->hash; }

int fa_adapter_find(const ffai_engine *e, uint64_t hash) {
    for (int k = 0; k < FA_ADAPTERS; k++)
        if (e->adapters.at[k] && e->adapters.at[k]->hash == hash) return k;
    return -1;
}
