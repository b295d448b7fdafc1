/* Matching an adapter's modules to the model's matrices, and copies of what changes these. Weights are shared by
 * engines and stay as they are. */
#include "base/alloc.h"
#include "engine/adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- finding the matrices of a module ---- */

static int finder_open(fa_finder *f, const ffai_engine *e, fa_error *err) {
    const fa_targets *all = &e->m->targets;
    *f = (fa_finder){.e = e, .all = all, .next = FA_NEWN(uint32_t, all->n + 1)};
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

static void finder_close(fa_finder *f) {
    fa_smap_free(&f->first);
    fa_free(f->next);
}

/* What a module is of the model. */
typedef struct found {
    const fa_target *at;
    uint32_t index;
    int alone; /* >= 0: it is only this one of the targets in the chain: a part of what the model stores fused */
} found;

const fa_target *fa_finder_get(const fa_finder *f, const char *name, uint32_t *index) {
    return fa_smap_get(&f->first, name, strlen(name), index) ? &f->all->at[*index] : NULL;
}

static bool lookup(const fa_finder *f, const char *name, found *out) {
    if (!(out->at = fa_finder_get(f, name, &out->index))) return false;
    out->alone = -1;
    return true;
}

/* A projection by its own name, where the model has it as the i-th part of a fused one. */
static bool lookup_part(const fa_finder *f, const char *name, found *out) {
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
static bool find(const fa_finder *f, const char *module, found *out) {
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
static int64_t stored_row(const fa_finder *f, const found *at, const fa_target *t, int64_t i) {
    int64_t row = at->alone >= 0 ? i : t->row ? t->row[i] : t->part.from + i * t->part.step;
    size_t len = strlen(t->name);
    bool rotated = len > 7 && (!strcmp(t->name + len - 7, ".q_proj") || !strcmp(t->name + len - 7, ".k_proj"));
    if (!f->pairs || !rotated) return row;
    /* pairs (2 i, 2 i + 1) of a head were rows i and i + half of it */
    int64_t dim = f->e->m->dims.head_dim, half = dim / 2, in = row % dim;
    return row - in + in % 2 * half + in / 2;
}

fa_fmt fa_adapter_fmt(const fa_st_tensor *t) {
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
    w->fmt = (uint8_t)fa_adapter_fmt(t);
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

const float *fa_adapter_vector(ffai_adapter *a, const fa_st_tensor *t, const int64_t *rows, int64_t n) {
    float *to = (float *)fa_mem_calloc(&a->mem, (size_t)n, sizeof *to);
    size_t size = fa_dtype_size((fa_dtype)t->dtype);
    for (int64_t r = 0; to && r < n; r++)
        fa_to_f32((fa_dtype)t->dtype, t->data + (size_t)(rows ? rows[r] : r) * size, 1, to + r);
    return to;
}

/* ---- changes ---- */

fa_change *fa_adapter_change(ffai_adapter *a, uint32_t id, bool table, float scale, fa_error *err) {
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        fa_change *grown = (fa_change *)fa_realloc(a->change, cap, sizeof *grown);
        if (!grown) {
            fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu changes", a->path, cap);
            return NULL;
        }
        a->change = grown;
        a->cap = cap;
    }
    fa_change *c = &a->change[a->n++];
    *c = (fa_change){.id = id, .table = table, .lora = {.scale = scale, .adapter = a->index}};
    return c;
}

/* Shapes of a module's matrices against those of the model's; the difference is noted. */
static bool fits(const fa_adapter_file *file, const fa_adapter_module *m, const found *at, fa_buf *wrong) {
    const fa_target *t = at->at;
    int64_t total = at->alone >= 0 ? t->rows : t->part.total, in = m->table ? total : t->cols,
            out = m->table ? t->cols : total, a[2] = {m->rank, in}, b[2] = {out, m->rank};
    if (file->mlx) a[0] = in, a[1] = m->rank, b[0] = m->rank, b[1] = out;
    bool ok = m->a->dim[0] == a[0] && m->a->dim[1] == a[1] && m->b->dim[0] == b[0] && m->b->dim[1] == b[1];
    if (ok) ok = m->a->n_dim == 2 && !t->n_expert;
    if (ok && m->bias) ok = m->bias->dim[0] == out && !m->table;
    if (ok && m->mag && m->mag->dim[0] != (file->mlx && m->table ? in : out)) {
        fa_buf_printf(wrong, "%s%s: %lld magnitudes for %lld", wrong->len ? "; " : "", m->name,
                      (long long)m->mag->dim[0], (long long)(file->mlx && m->table ? in : out));
        return false;
    }
    if (ok && m->base) ok = m->base->n_dim == 2 && m->base->dim[0] == total && m->base->dim[1] == t->cols;
    if (!ok)
        fa_buf_printf(wrong, "%s%s: matrices [%lld, %lld] and [%lld, %lld] for one of [%lld, %lld]",
                      wrong->len ? "; " : "", m->name, (long long)m->a->dim[0], (long long)m->a->dim[1],
                      (long long)m->b->dim[0], (long long)m->b->dim[1], (long long)total, (long long)t->cols);
    return ok;
}

static int no_memory(const ffai_adapter *a, const fa_adapter_module *m, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for %s", a->path, m->name);
}

/* Magnitudes of the change that was made last: those of m in this order (rows NULL: as they are). */
static int add_lengths(ffai_adapter *a, const fa_adapter_module *m, const fa_target *t, const int64_t *rows,
                       fa_error *err) {
    fa_change *c = &a->change[a->n - 1];
    if (!m->mag) return 0;
    if (t->ordered)
        return fa_fail(err, FFAI_ENOTSUP,
                       "%s: %s: magnitudes, but the columns of its matrix have another order (g_idx)", a->path,
                       m->name);
    c->lora.n_mag = rows ? t->rows : m->mag->dim[0];
    c->lora.by_token = c->table && c->lora.n_mag == t->rows && a->mlx;
    const float *v = fa_adapter_vector(a, m->mag, rows, c->lora.n_mag);
    return v ? fa_adapter_lengths(a, c, &t->w, v, m->name, err) : no_memory(a, m, err);
}

/* A table: row by token, then up to the width. */
static int change_table(ffai_adapter *a, const fa_adapter_file *file, const fa_adapter_module *m, const fa_target *t,
                        fa_error *err) {
    fa_change *c = fa_adapter_change(a, t->id, true, m->scale, err);
    if (!c) return FFAI_ENOMEM;
    if (!copy_matrix(a, &c->lora.a, m->a, !file->mlx, NULL, t->rows) ||
        !copy_matrix(a, &c->lora.b, m->b, file->mlx, NULL, t->cols))
        return no_memory(a, m, err);
    int rc = add_lengths(a, m, t, NULL, err);
    if (rc || !file->mlx || !a->e->m->dims.tied) return rc;
    /* mlx: where the head is the embedding it changes with it */
    if (!(c = fa_adapter_change(a, t->id, false, m->scale, err))) return FFAI_ENOMEM;
    if (!copy_matrix(a, &c->lora.a, m->b, false, NULL, m->rank) ||
        !copy_matrix(a, &c->lora.b, m->a, false, NULL, t->rows))
        return no_memory(a, m, err);
    return add_lengths(a, m, t, NULL, err);
}

/* One of the targets that a module's name stands for. first: the change of another one, whose a is the same. */
static int change_linear(ffai_adapter *a, const fa_finder *f, const fa_adapter_file *file, const fa_adapter_module *m,
                         const found *at, const fa_target *t, size_t first, fa_error *err) {
    fa_change *c = fa_adapter_change(a, t->id, false, m->scale, err);
    int64_t *row = c ? FA_NEWN(int64_t, (size_t)t->rows) : NULL;
    bool ok = row != NULL;
    for (int64_t i = 0; ok && i < t->rows; i++) row[i] = stored_row(f, at, t, i);
    if (ok && c != &a->change[first])
        c->lora.a = a->change[first].lora.a;
    else if (ok)
        ok = copy_matrix(a, &c->lora.a, m->a, file->mlx, NULL, m->rank);
    if (ok) ok = copy_matrix(a, &c->lora.b, m->b, file->mlx, row, t->rows);
    if (ok && m->bias) ok = (c->lora.bias = fa_adapter_vector(a, m->bias, row, t->rows)) != NULL;
    int rc = ok ? add_lengths(a, m, t, row, err) : no_memory(a, m, err);
    fa_free(row);
    return rc;
}

static int change_module(ffai_adapter *a, const fa_finder *f, const fa_adapter_file *file, const fa_adapter_module *m,
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
int fa_adapter_match(ffai_adapter *a, fa_adapter_file *file, fa_error *err) {
    fa_finder f;
    fa_names absent = {0};
    fa_expert_list experts = {0};
    fa_buf list = {0}, wrong = {0};
    int rc = finder_open(&f, a->e, err);
    for (size_t i = 0; i < file->n && !rc; i++) {
        fa_adapter_module *m = &file->module[i];
        found at;
        bool there = find(&f, m->name, &at);
        if (!there || at.at->n_expert) {
            int is = fa_adapter_expert(&f, file, m, &experts, &wrong, err);
            if (is < 0) rc = is;
            if (is) continue;
            there = false;
        }
        if (!there || (m->table && at.at->part.total != at.at->rows)) {
            fa_name_list_add(&absent, m->name);
            continue;
        }
        char weight[FA_NAME_MAX] = {0}; /* PEFT's patterns see a parameter's name where that is what it was told */
        snprintf(weight, sizeof weight, "%s.weight", m->name);
        rc = fa_adapter_file_scale(file, m, fa_adapter_file_targets(file, weight) ? weight : m->name, 0, err);
        if (!rc && fits(file, m, &at, &wrong) && !wrong.len && !absent.total)
            rc = change_module(a, &f, file, m, &at, err);
    }
    fa_name_list_print(&absent, &list);
    if (!rc && (absent.total || wrong.len))
        rc = fa_fail(err, FFAI_EFORMAT, "%s: %s%s%s%s", a->path,
                     absent.total ? "modules that the model does not have, or whose matrices adapters cannot change: "
                                  : "",
                     list.data ? list.data : "", absent.total && wrong.len ? "; " : "", wrong.data ? wrong.data : "");
    if (!rc) rc = fa_adapter_experts(a, &f, &experts, err);
    fa_expert_list_free(&experts);
    fa_name_list_free(&absent);
    fa_buf_free(&list);
    fa_buf_free(&wrong);
    finder_close(&f);
    return rc;
}
