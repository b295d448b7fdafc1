/* Adapters of experts. The model has stacks of experts: gate, up and down (fa_bind_stack), however its checkpoint
 * stores them. A file has modules for them in one of three ways:
 *
 *   mlx_lm/tuner/lora.py, LoRASwitchLinear: "switch_mlp.gate_proj", a [n, rank, in], b [n, out, rank]
 *   peft/tuners/lora/layer.py, ParamWrapper (target_parameters): a stacked parameter of the module "experts", which has
 *     one wrapper around the other for each of its parameters, the last parameter's outermost: "experts" and
 *     "experts.base_layer" for down_proj and gate_up_proj. a [n rank, in], expert by expert, b [out, rank n], expert
 *     after expert in each rank. Before 0.19 a parameter [n, out, in] was taken for [n, in, out]: a has `out` columns,
 *     b `in` rows, and the change is the product turned.
 *   one module for each expert: "experts.3.gate_proj"
 *
 * Each becomes changes of stacks: experts with the same rank, scale and types go into one. */
#include "base/alloc.h"
#include "engine/adapter.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum layout { ONE, STACK_MLX, STACK_PEFT, STACK_OLD } layout;

/* A module of the file and the stack that it is of. */
struct fa_expert_part {
    const fa_adapter_module *m;
    uint32_t target; /* first of those with the name */
    int64_t expert;  /* of ONE */
    layout layout;
};

/* ---- finding the stack ---- */

static const fa_target *stack_at(const fa_finder *f, const char *name, uint32_t *index) {
    const fa_target *t = fa_finder_get(f, name, index);
    return t && t->n_expert ? t : NULL;
}

/* "X.experts.3.gate_proj" to "X.experts.gate_proj" and 3. */
static bool split_number(const char *name, char out[FA_NAME_MAX], int64_t *expert) {
    const char *at = strstr(name, "experts.");
    if (!at || !isdigit((unsigned char)at[8])) return false;
    char *rest;
    long long n = strtoll(at + 8, &rest, 10);
    if (*rest != '.' || rest - at > 8 + 9) return false;
    snprintf(out, FA_NAME_MAX, "%.*s%s", (int)(at + 8 - name), name, rest + 1);
    *expert = n;
    return true;
}

/* mlx: what stands for "experts." in a model's stacks. */
static const char *switched(const char *name, char out[FA_NAME_MAX]) {
    static const char *const words[] = {"switch_mlp.", "switch_glu."};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const char *at = strstr(name, words[i]);
        if (!at) continue;
        snprintf(out, FA_NAME_MAX, "%.*sexperts.%s", (int)(at - name), name, at + strlen(words[i]));
        return out;
    }
    return name;
}

/* Do the matrices of a stack have the sizes of t? For stacks of PEFT *p tells in which way. */
static bool stack_fits(const fa_adapter_file *file, const fa_adapter_module *m, const fa_target *t, layout *l) {
    const int64_t *a = m->a->dim, *b = m->b->dim, in = t->cols, out = t->part.total, n = t->n_expert;
    if (*l == STACK_MLX) return m->a->n_dim == 3 && a[0] == n && a[2] == in && b[1] == out;
    if (m->a->n_dim != 2 || a[0] % n) return false;
    const bool now = a[1] == in && b[0] == out, old = a[1] == out && b[0] == in;
    *l = old && (!now || (!t->part.turned && fa_adapter_file_old_stacks(file))) ? STACK_OLD : STACK_PEFT;
    return now || old;
}

/* The parameter of the module `base` (as the file spells it: `spelled`) that the wrapper `depth` layers inside is for.
 * key: its name in the file. NULL: none. */
static const fa_target *wrapped(const fa_finder *f, const fa_adapter_file *file, const fa_adapter_module *m,
                                const char *base, const char *spelled, int depth, char key[FA_NAME_MAX],
                                uint32_t *index) {
    static const char *const params[] = {"gate_up_proj", "gate_proj", "up_proj", "down_proj"};
    enum { N = sizeof params / sizeof *params };
    const fa_target *all[N], *t = NULL;
    uint32_t at[N];
    const char *name[N];
    char full[FA_NAME_MAX];
    int n = 0, n_asked = 0, asked[N];
    for (int i = 0; i < N; i++) {
        snprintf(full, sizeof full, "%s.%s", base, params[i]);
        if (!(all[n] = stack_at(f, full, &at[n]))) continue;
        snprintf(full, sizeof full, "%s.%s", spelled, params[i]);
        if (fa_adapter_file_targets(file, full)) asked[n_asked++] = n;
        name[n++] = params[i];
    }
    layout l = STACK_PEFT;
    int pick = n_asked > depth ? asked[n_asked - 1 - depth] : -1;
    for (int i = 0; i < n && (pick < 0 || !stack_fits(file, m, all[pick], &l)); i++)
        if (stack_fits(file, m, all[i], &l)) pick = i;
    if (pick < 0 && n) pick = n - 1; /* whose sizes will be told */
    if (pick < 0) return NULL;
    snprintf(key, FA_NAME_MAX, "%s.%s", spelled, name[pick]);
    *index = at[pick];
    t = all[pick];
    return t;
}

/* The stack that a module is of, NULL: none. */
static const fa_target *find_stack(const fa_finder *f, const fa_adapter_file *file, const fa_adapter_module *m,
                                   struct fa_expert_part *p, char key[FA_NAME_MAX]) {
    static const char inner[] = ".base_layer";
    char spelled[FA_NAME_MAX], name[FA_NAME_MAX], other[FA_NAME_MAX];
    int depth = 0;
    snprintf(spelled, sizeof spelled, "%s", m->name);
    for (size_t n; (n = strlen(spelled)) > sizeof inner && !strcmp(spelled + n - (sizeof inner - 1), inner); depth++)
        spelled[n - (sizeof inner - 1)] = 0;
    snprintf(key, FA_NAME_MAX, "%s", m->name);
    for (int turn = 0; fa_bind_module(f->e->m->family->renames, spelled, turn, name); turn++) {
        const fa_target *t = NULL;
        p->layout = file->mlx ? STACK_MLX : STACK_PEFT;
        if (file->mlx) {
            t = stack_at(f, switched(name, other), &p->target);
        } else if (split_number(name, other, &p->expert)) {
            p->layout = ONE;
            t = stack_at(f, other, &p->target);
        } else if ((t = stack_at(f, name, &p->target))) {
            snprintf(key, FA_NAME_MAX, "%s.weight", spelled);
        } else {
            t = wrapped(f, file, m, name, spelled, depth, key, &p->target);
        }
        if (t) return t;
    }
    return NULL;
}

/* ---- gathering ---- */

static bool remember(fa_expert_list *list, const struct fa_expert_part *p) {
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        struct fa_expert_part *grown = (struct fa_expert_part *)fa_realloc(list->at, cap, sizeof *grown);
        if (!grown) return false;
        list->at = grown;
        list->cap = cap;
    }
    list->at[list->n++] = *p;
    return true;
}

void fa_expert_list_free(fa_expert_list *list) {
    fa_free(list->at);
    memset(list, 0, sizeof *list);
}

static void note(fa_buf *wrong, const fa_adapter_module *m, const fa_target *t, const struct fa_expert_part *p) {
    const fa_st_tensor *of[2] = {m->a, m->b};
    fa_buf_printf(wrong, "%s%s: matrices ", wrong->len ? "; " : "", m->name);
    for (int i = 0; i < 2; i++) {
        fa_buf_printf(wrong, "%s[", i ? " and " : "");
        for (int d = 0; d < (int)of[i]->n_dim; d++)
            fa_buf_printf(wrong, "%s%lld", d ? ", " : "", (long long)of[i]->dim[d]);
        fa_buf_printf(wrong, "]");
    }
    if (p->layout == ONE) fa_buf_printf(wrong, " for number %lld", (long long)p->expert);
    fa_buf_printf(wrong, " of %lld experts of [%lld, %lld]", (long long)t->n_expert, (long long)t->part.total,
                  (long long)t->cols);
}

int fa_adapter_expert(const fa_finder *f, const fa_adapter_file *file, fa_adapter_module *m, fa_expert_list *list,
                      fa_buf *wrong, fa_error *err) {
    struct fa_expert_part p = {.m = m};
    char key[FA_NAME_MAX] = {0};
    const fa_target *t = find_stack(f, file, m, &p, key);
    if (!t) return 0;
    if (m->mag || m->bias || m->base)
        return fa_fail(err, FFAI_ENOTSUP, "%s: module %s: %s of experts are not supported", fa_st_what(file->st),
                       m->name,
                       m->mag    ? "magnitudes"
                       : m->bias ? "biases"
                                 : "whole matrices");
    bool ok;
    if (p.layout == ONE)
        ok = p.expert < t->n_expert && m->a->dim[1] == t->cols && m->b->dim[0] == t->part.total;
    else
        ok = stack_fits(file, m, t, &p.layout);
    if (!ok) {
        note(wrong, m, t, &p);
        return 1;
    }
    int rc = fa_adapter_file_scale(file, m, key, p.layout == ONE ? 0 : t->n_expert, err);
    if (!rc && !remember(list, &p)) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for its experts", m->name);
    return rc ? rc : 1;
}

/* ---- changes ---- */

/* Those that can be one change stand together, experts in order. */
static int compare(const void *x, const void *y) {
    const struct fa_expert_part *a = (const struct fa_expert_part *)x, *b = (const struct fa_expert_part *)y;
    if (a->target != b->target) return a->target < b->target ? -1 : 1;
    if (a->layout != b->layout) return a->layout < b->layout ? -1 : 1;
    if (a->m->rank != b->m->rank) return a->m->rank < b->m->rank ? -1 : 1;
    if (a->m->scale != b->m->scale) return a->m->scale < b->m->scale ? -1 : 1;
    if (a->m->a->dtype != b->m->a->dtype) return a->m->a->dtype < b->m->a->dtype ? -1 : 1;
    if (a->m->b->dtype != b->m->b->dtype) return a->m->b->dtype < b->m->b->dtype ? -1 : 1;
    return a->expert < b->expert ? -1 : a->expert > b->expert;
}

/* May q be in the change that p begins? */
static bool together(const struct fa_expert_part *p, const struct fa_expert_part *q) {
    struct fa_expert_part r = *q;
    r.expert = p->expert;
    return p->layout == ONE && compare(p, &r) == 0;
}

/* A matrix of one expert as it is stored: element [x, y] is the (from + x * row + y * col)-th of t. */
typedef struct view {
    const fa_st_tensor *t;
    int64_t from, row, col;
} view;

/* a [rank, in] of the k-th of n experts, */
static view view_of_a(const struct fa_expert_part *p, int64_t k, int64_t n, const fa_target *t) {
    const int64_t rank = p->m->rank;
    if (p->layout == STACK_OLD) return (view){p->m->b, k, n, rank * n}; /* [in, rank n] */
    return (view){p->m->a, p->layout == ONE ? 0 : k * rank * t->cols, t->cols, 1};
}
/* and b [out, rank], of the rows that the stack has. */
static view view_of_b(const struct fa_expert_part *p, int64_t k, int64_t n, const fa_target *t) {
    const int64_t rank = p->m->rank, total = t->part.total;
    view v = {p->m->b, 0, rank, 1};
    if (p->layout == STACK_MLX) v.from = k * total * rank;
    if (p->layout == STACK_PEFT) v = (view){p->m->b, k, rank * n, n};
    if (p->layout == STACK_OLD) v = (view){p->m->a, k * rank * total, 1, total}; /* [n rank, out] */
    v.from += t->part.from * v.row;
    v.row *= t->part.step;
    return v;
}

static void copy_row(uint8_t *to, const view *v, int64_t row, int64_t n, size_t size) {
    const uint8_t *from = v->t->data + (size_t)(v->from + row * v->row) * size;
    if (v->col == 1) memcpy(to, from, (size_t)n * size);
    for (int64_t i = 0; i < n && v->col != 1; i++)
        memcpy(to + (size_t)i * size, from + (size_t)(i * v->col) * size, size);
}

/* The matrices a, or b, of n experts [rows, cols] each, one after the other: of p [n] modules, or of p's stack. */
static bool copy(ffai_adapter *a, fa_weight *w, const struct fa_expert_part *p, int64_t n, const fa_target *t,
                 int64_t rows, int64_t cols,
                 view (*view_of)(const struct fa_expert_part *, int64_t, int64_t, const fa_target *)) {
    const view first = view_of(p, 0, n, t);
    const size_t size = fa_dtype_size((fa_dtype)first.t->dtype);
    uint8_t *to = (uint8_t *)fa_mem_calloc(&a->mem, (size_t)(n * rows * cols), size);
    *w = (fa_weight){.rows = n * rows, .cols = cols, .codes = to, .row_bytes = (size_t)cols * size};
    w->fmt = (uint8_t)fa_adapter_fmt(first.t);
    for (int64_t k = 0; to && k < n; k++) {
        const view v = view_of(p->layout == ONE ? p + k : p, k, n, t);
        for (int64_t r = 0; r < rows; r++, to += (size_t)cols * size) copy_row(to, &v, r, cols, size);
    }
    return w->codes != NULL;
}

/* Which of n matrices each expert has. */
static const int32_t *experts_of(ffai_adapter *a, const struct fa_expert_part *p, int64_t n, const fa_target *t) {
    int32_t *map = (int32_t *)fa_mem_calloc(&a->mem, (size_t)t->n_expert, sizeof *map);
    for (int64_t e = 0; map && e < t->n_expert; e++) map[e] = p->layout == ONE ? -1 : (int32_t)e;
    for (int64_t k = 0; map && p->layout == ONE && k < n; k++) map[p[k].expert] = (int32_t)k;
    return map;
}

/* One change for each stack that the name stands for. */
static int change(ffai_adapter *a, const fa_finder *f, const struct fa_expert_part *p, int64_t n_part, fa_error *err) {
    const fa_target *t = &f->all->at[p->target];
    const int64_t n = p->layout == ONE ? n_part : t->n_expert;
    const size_t first = a->n;
    if (p->m->rank > a->rank) a->rank = p->m->rank;
    for (uint32_t i = p->target;;) {
        t = &f->all->at[i];
        bool again = false;
        for (size_t k = first; k < a->n; k++) again = again || a->change[k].id == t->id;
        fa_change *c = again ? NULL : fa_adapter_change(a, t->id, false, p->m->scale, err);
        if (!c && !again) return FFAI_ENOMEM;
        bool ok = true;
        if (c && a->n - 1 > first)
            c->lora.a = a->change[first].lora.a, c->lora.expert = a->change[first].lora.expert;
        else if (c)
            ok = copy(a, &c->lora.a, p, n, t, p->m->rank, t->cols, view_of_a) &&
                 (c->lora.expert = experts_of(a, p, n, t));
        if (c) c->n_expert = (size_t)t->n_expert;
        if (ok && c) ok = copy(a, &c->lora.b, p, n, t, t->rows, p->m->rank, view_of_b);
        if (!ok) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for %s", a->path, p->m->name);
        if (!(i = f->next[i])) return 0;
    }
}

int fa_adapter_experts(ffai_adapter *a, const fa_finder *f, fa_expert_list *list, fa_error *err) {
    int rc = 0;
    if (list->n) qsort(list->at, list->n, sizeof *list->at, compare);
    for (size_t i = 0, n; i < list->n && !rc; i += n) {
        const struct fa_expert_part *p = &list->at[i];
        for (n = 1; i + n < list->n && together(p, &p[n]); n++)
            if (p[n].expert == p[n - 1].expert)
                return fa_fail(err, FFAI_EFORMAT, "%s: %s and %s are the same expert's matrix", a->path,
                               p[n - 1].m->name, p[n].m->name);
        rc = change(a, f, p, (int64_t)n, err);
    }
    return rc;
}
