/* What families call: matrices, parts and rows of them, stacks of experts, and vectors, by name. Matrices stay as the
 * file has them; vectors (norms, biases) become f32. */
#include "families/bind.h"

#include <string.h>

/* ---- matrices ---- */

/* What is stored under a name, in host memory, checked and accounted for. False: absent (src->t NULL), or wrong and
 * reported. */
static bool stored(fa_binder *b, fa_weight *w, fa_source *src, int64_t n, int64_t rows, int64_t cols,
                   const char *name) {
    if (!fa_bind_stored(b, w, src, n, rows, cols, name)) return false;
    if (fa_weight_check(w, &b->err)) {
        fa_fail_prefix(&b->err, b->err.code, "%s", src->t->file);
        return false;
    }
    fa_bind_list_stored(b, w, src, n, rows, name);
    size_t bytes = src->t->bytes + (src->scales ? src->scales->bytes : 0) + (src->biases ? src->biases->bytes : 0);
    if (!b->used[src->t - fa_ckpt_at(b->ckpt, 0)]) fa_bind_count(b, w, (int64_t)bytes);
    fa_bind_used(b, src->t, FA_USE_MATRIX);
    if (src->scales) fa_bind_used(b, src->scales, FA_USE_FLOATS);
    if (src->biases) fa_bind_used(b, src->biases, FA_USE_FLOATS);
    return true;
}

/* The whole of what is stored under a name, where it is to lie: n matrices [rows, cols] (n 0: one). False: absent, or
 * wrong and reported; *there tells which. */
static bool whole(fa_binder *b, fa_weight *w, int64_t n, int64_t rows, int64_t cols, const char *name, bool *there) {
    fa_source src;
    *there = true;
    if (b->last.rows == (n ? n : 1) * rows && b->last.cols == cols && strcmp(b->last_name, name) == 0) {
        *w = b->last;
        return true;
    }
    src.order = NULL;
    if (b->synth) {
        *w = (fa_weight){.rows = (n ? n : 1) * rows, .cols = cols};
        fa_bind_synth(b, w, n, name);
    } else {
        if (!stored(b, w, &src, n, rows, cols, name)) {
            *there = src.t != NULL;
            return false;
        }
        fa_bind_relocate(b, w, &src);
    }
    if (b->err.code) return false;
    snprintf(b->last_name, sizeof b->last_name, "%s", name);
    b->last = *w;
    b->last_order = src.order;
    return true;
}

/* Rows from, from + step, ... of a matrix. */
static fa_weight rows_of(const fa_weight *w, int64_t from, int64_t step, int64_t rows) {
    fa_weight part = *w;
    part.rows = rows;
    part.codes += (size_t)from * w->row_bytes;
    part.row_bytes *= (size_t)step;
    if (w->scales) part.scales += (size_t)from * w->scale_row_bytes;
    if (w->biases) part.biases += (size_t)from * w->scale_row_bytes;
    part.scale_row_bytes *= (size_t)step;
    return part;
}

/* ---- vectors ---- */

bool fa_bind_is_floats(fa_binder *b, const fa_ckpt_tensor *t) {
    if (t->dtype == FA_F32 || t->dtype == FA_F16 || t->dtype == FA_BF16 || t->dtype == FA_F64) return true;
    fa_bind_fail(b, FFAI_ENOTSUP, t, "type %s cannot be read as floats", t->type_name);
    return false;
}

static bool check_vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, int64_t len) {
    bool ok = n ? t->n_dim == 2 && t->dim[0] == n && t->dim[1] == len : t->n_dim == 1 && t->dim[0] == len;
    if (!ok) {
        fa_bind_wrong(b, t, "%d-dimensional with %lld values first, expected [%lld]", t->n_dim, (long long)t->dim[0],
                      (long long)(n ? n : len));
        return false;
    }
    return fa_bind_is_floats(b, t);
}

/* n numbers are bound, which count once however often they are. */
void fa_bind_took_floats(fa_binder *b, const fa_ckpt_tensor *t, int64_t n) {
    if (!b->used[t - fa_ckpt_at(b->ckpt, 0)]) b->n_param += n;
    fa_bind_used(b, t, FA_USE_FLOATS);
}

/* Values from, from + step, ... of each of n vectors of `total` (n 0: of one): [n, len]. */
static const float *vector_part(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, int64_t total, int64_t from,
                                int64_t step, int64_t len) {
    float *host;
    if (!check_vector(b, t, n, total)) return NULL;
    bool all = from == 0 && len == total;
    int64_t count = n ? n : 1;
    const float *p = fa_bind_place_vector(b, all ? t : NULL, count * len, &host);
    if (host && all) fa_to_f32((fa_dtype)t->dtype, t->data, count * len, host);
    size_t size = fa_dtype_size((fa_dtype)t->dtype);
    for (int64_t i = 0; host && !all && i < count * len; i++)
        fa_to_f32((fa_dtype)t->dtype, t->data + (size_t)(i / len * total + from + i % len * step) * size, 1, host + i);
    fa_bind_took_floats(b, t, count * total);
    return p;
}

static const float *vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n) {
    return vector_part(b, t, 0, n, 0, 1, n);
}

/* ---- what families call ---- */

/* bias of rows from, from + step, ... out of `total`; NULL: none. */
static const float *bias_of(fa_binder *b, fa_bias bias, const fa_part *p, int64_t rows, const char *name) {
    if (b->synth) return bias == FA_BIAS ? fa_bind_synth_vector(b, rows, 0, 0, name, ".bias") : NULL;
    const fa_ckpt_tensor *t = bias == FA_NO_BIAS ? NULL : fa_bind_find(b, name, ".bias");
    if (t) return b->err.code ? NULL : vector_part(b, t, 0, p->total, p->from, p->step, rows);
    if (bias == FA_BIAS) fa_bind_missing(b, name, ".bias");
    return NULL;
}

static void bind_part(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, const fa_part *p,
                      const char *name) {
    fa_weight w;
    bool there;
    memset(out, 0, sizeof *out);
    out->w.rows = rows;
    out->w.cols = cols;
    if (b->err.code) return;
    if (whole(b, &w, 0, p->total, cols, name, &there)) {
        out->w = rows_of(&w, p->from, p->step, rows);
        out->order = b->last_order;
    } else if (!there)
        fa_bind_missing(b, name, ".weight");
    fa_bind_target(b, out, p, NULL, name);
    out->bias = bias_of(b, bias, p, rows, name);
}

void fa_bind_linear(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    bind_part(b, out, rows, cols, bias, &(fa_part){.step = 1, .total = rows}, name);
}

void fa_bind_rows(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, fa_part part, const char *fmt,
                  ...) {
    FA_BIND_NAME(name, fmt);
    bind_part(b, out, rows, cols, bias, &part, name);
}

void fa_bind_halves(fa_binder *b, fa_linear *first, fa_linear *second, int64_t rows, int64_t cols, const char *fmt,
                    ...) {
    FA_BIND_NAME(name, fmt);
    fa_part part = {.step = 1, .total = 2 * rows};
    bind_part(b, first, rows, cols, FA_NO_BIAS, &part, name);
    part.from = rows;
    bind_part(b, second, rows, cols, FA_NO_BIAS, &part, name);
}

void fa_bind_embed(fa_binder *b, fa_weight *embed, int64_t vocab, int64_t dim, const char *name) {
    fa_linear table;
    fa_bind_linear(b, &table, vocab, dim, FA_NO_BIAS, "%s", name);
    if (table.order) fa_bind_fail(b, FFAI_ENOTSUP, NULL, "%s: a table whose columns have an order", name);
    *embed = table.w;
}

void fa_bind_head(fa_binder *b, fa_linear *head, const fa_weight *embed, bool tied, const char *name) {
    bool there = fa_bind_has(b, "%s", name);
    *head = (fa_linear){0};
    if (tied && !there)
        head->w = *embed;
    else if (there || !fa_bind_headless(b))
        fa_bind_linear(b, head, embed->rows, embed->cols, FA_NO_BIAS, "%s", name);
}

/* Values row[0], row[1], ... of a bias of `total`. */
static const float *gathered_bias(fa_binder *b, int64_t rows, int64_t total, const int64_t *row, const char *name) {
    const fa_ckpt_tensor *t = fa_bind_find(b, name, ".bias");
    float *host;
    if (!t) {
        fa_bind_missing(b, name, ".bias");
        return NULL;
    }
    if (b->err.code || !check_vector(b, t, 0, total)) return NULL;
    const float *p = fa_bind_place_vector(b, NULL, rows, &host);
    size_t size = fa_dtype_size((fa_dtype)t->dtype);
    for (int64_t i = 0; host && i < rows; i++)
        fa_to_f32((fa_dtype)t->dtype, t->data + (size_t)row[i] * size, 1, host + i);
    fa_bind_took_floats(b, t, total);
    return p;
}

void fa_bind_gather(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, int64_t total, fa_bias bias,
                    const int64_t *row, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    fa_source src;
    fa_weight w;
    memset(out, 0, sizeof *out);
    out->w.rows = rows;
    out->w.cols = cols;
    if (b->err.code) return;
    if (b->synth) { /* random rows need no order */
        bind_part(b, out, rows, cols, bias, &(fa_part){.from = row[0] % (total - rows + 1), .step = 1, .total = total},
                  name);
        return;
    }
    if (bias == FA_BIAS || (bias == FA_OPTIONAL_BIAS && fa_bind_find(b, name, ".bias")))
        out->bias = gathered_bias(b, rows, total, row, name);
    if (!stored(b, &w, &src, 0, total, cols, name)) {
        if (!src.t) fa_bind_missing(b, name, ".weight");
        return;
    }
    fa_weight g = w;
    g.rows = rows;
    const uint8_t *from[3] = {w.codes, w.scales, w.biases};
    uint8_t *to[3] = {NULL, NULL, NULL};
    for (int p = 0; p < 3; p++) {
        size_t bytes = p ? w.scale_row_bytes : w.row_bytes;
        if (!from[p] || fa_bind_dry(b)) continue;
        if (!(to[p] = fa_bind_host(b, (size_t)rows * bytes))) return;
        for (int64_t r = 0; r < rows; r++) memcpy(to[p] + (size_t)r * bytes, from[p] + (size_t)row[r] * bytes, bytes);
    }
    if (!fa_bind_dry(b)) g.codes = to[0], g.scales = to[1], g.biases = to[2];
    src.made = src.made_scales = true;
    fa_bind_relocate(b, &g, &src);
    out->w = g;
    out->order = src.order;
    fa_bind_target(b, out, &(fa_part){.step = 1, .total = total}, row, name);
}

/* Can a matrix that is stored under this name have so many rows? Lists of rows are made for no more than that. */
static bool may_have_rows(fa_binder *b, const char *name, int64_t total) {
    static const char *const suffix[] = {".weight", ".qweight", ".weight_packed", "_blocks"};
    for (size_t i = 0; i < sizeof suffix / sizeof suffix[0]; i++) {
        const fa_ckpt_tensor *t = fa_bind_find(b, name, suffix[i]);
        if (t) return t->bytes >= (size_t)total;
    }
    return b->synth != NULL;
}

void fa_bind_stripes(fa_binder *b, fa_linear *out, int64_t cols, int64_t total, fa_bias bias, int n, const fa_stripe *s,
                     const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    int64_t rows = 0, at = 0;
    for (int i = 0; i < n; i++) rows += total / s[i].each * s[i].per;
    if (!may_have_rows(b, name, total)) {
        fa_bind_linear(b, out, total, cols, bias, "%s", name); /* which tells why */
        return;
    }
    int64_t *row = (int64_t *)fa_bind_alloc(b, (size_t)rows, sizeof *row);
    for (int i = 0; row && i < n; i++)
        for (int64_t k = 0; k < total / s[i].each * s[i].per; k++)
            row[at++] = k / s[i].per * s[i].each + s[i].first + k % s[i].per;
    if (row) fa_bind_gather(b, out, rows, cols, total, bias, row, "%s", name);
}

/* ---- experts ---- */

static void experts_alloc(fa_binder *b, fa_experts *out, int64_t n, int64_t rows, int64_t cols) {
    *out = (fa_experts){.n = n};
    if (!b->err.code) out->w = (fa_weight *)fa_bind_alloc(b, (size_t)n, sizeof *out->w);
    if (!out->w) out->n = 0;
    for (int64_t e = 0; e < out->n; e++) out->w[e].rows = rows, out->w[e].cols = cols;
}

void fa_bind_experts(fa_binder *b, fa_experts *out, int64_t n, int64_t rows, int64_t cols, bool bias, fa_part part,
                     const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    fa_weight w;
    bool there;
    experts_alloc(b, out, n, rows, cols);
    if (b->err.code || !out->n) return;
    b->turned = part.turned;
    if (whole(b, &w, n, part.total, cols, name, &there)) {
        for (int64_t e = 0; e < n; e++) out->w[e] = rows_of(&w, e * part.total + part.from, part.step, rows);
    } else if (!there) {
        fa_bind_missing(b, name, "");
    }
    b->turned = false;
    if (!bias) return;
    if (b->synth) {
        out->bias = fa_bind_synth_vector(b, n * rows, rows, 0, name, ".bias");
        return;
    }
    const fa_ckpt_tensor *t = fa_bind_find(b, name, ".bias");
    if (!t) t = fa_bind_find(b, name, "_bias");
    if (t && !b->err.code)
        out->bias = vector_part(b, t, n, part.total, part.from, part.step, rows);
    else if (!t)
        fa_bind_missing(b, name, "_bias");
}

void fa_bind_stack(fa_binder *b, fa_experts *e, fa_part part, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    if (e->n && !b->err.code) fa_bind_stack_target(b, e, &part, name);
}

void fa_bind_mixture(fa_binder *b, const fa_moe *m, int n_used) {
    const fa_experts *e = &m->up;
    b->n_expert = e->n;
    b->n_expert_used = n_used;
    b->expert_dim = e->n ? e->w[0].rows : 0;
    if (e->n) b->n_idle += (e->n - n_used) * e->w[0].rows * e->w[0].cols * (m->gate.n ? 3 : 2);
}

void fa_bind_each_expert(fa_binder *b, fa_experts *out, int64_t n, int64_t rows, int64_t cols, const char *before,
                         const char *after) {
    experts_alloc(b, out, n, rows, cols);
    b->experts = true;
    for (int64_t e = 0; e < out->n && !b->err.code; e++) {
        fa_linear one;
        fa_bind_linear(b, &one, rows, cols, FA_NO_BIAS, "%s%lld%s", before, (long long)e, after);
        out->w[e] = one.w;
    }
    b->experts = false;
}

/* ---- the rest ---- */

void fa_bind_norm(fa_binder *b, fa_norm *out, int64_t dim, double eps, double offset, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    *out = (fa_norm){.dim = dim, .eps = (float)eps, .offset = (float)offset};
    if (b->err.code) return;
    if (b->synth) {
        out->w = fa_bind_synth_vector(b, dim, 0, 1 - (float)offset, name, ".weight");
        return;
    }
    const fa_ckpt_tensor *t = fa_bind_find(b, name, ".weight");
    if (t)
        out->w = vector(b, t, dim);
    else
        fa_bind_missing(b, name, ".weight");
}

void fa_bind_norm_times(fa_binder *b, fa_norm *out, int64_t dim, double eps, float times, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    float *host = NULL;
    const fa_ckpt_tensor *t = b->err.code || b->synth || times == 1 ? NULL : fa_bind_find(b, name, ".weight");
    if (!t || !check_vector(b, t, 0, dim)) {
        fa_bind_norm(b, out, dim, eps, 0, "%s", name); /* random, as it is, or missing */
        return;
    }
    *out = (fa_norm){.w = fa_bind_place_vector(b, NULL, dim, &host), .dim = dim, .eps = (float)eps};
    if (host) fa_to_f32((fa_dtype)t->dtype, t->data, dim, host);
    for (int64_t i = 0; host && i < dim; i++) host[i] *= times;
    fa_bind_took_floats(b, t, dim);
}

void fa_bind_bias_times(fa_binder *b, fa_linear *l, float times, const float *by, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    const int64_t n = l->w.rows;
    float *host = NULL;
    if (b->err.code || b->synth || !l->bias || (times == 1 && !by)) return;
    const fa_ckpt_tensor *t = fa_bind_find(b, name, ".bias");
    if (!t || t->n_dim != 1 || t->dim[0] != n || !fa_bind_is_floats(b, t)) return;
    l->bias = fa_bind_place_vector(b, NULL, n, &host);
    if (host) fa_to_f32((fa_dtype)t->dtype, t->data, n, host);
    for (int64_t i = 0; host && i < n; i++) host[i] *= by ? times * by[i] : times;
}

void fa_bind_layer_norm(fa_binder *b, fa_norm *out, int64_t dim, double eps, bool bias, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    fa_bind_norm(b, out, dim, eps, 0, "%s", name);
    out->center = true;
    if (bias && !b->err.code) out->b = bias_of(b, FA_BIAS, &(fa_part){.step = 1, .total = dim}, dim, name);
}

const float *fa_bind_vector(fa_binder *b, int64_t n, float mean, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    if (b->err.code) return NULL;
    if (b->synth) return fa_bind_synth_vector(b, n, 0, mean, name, "");
    const fa_ckpt_tensor *t = fa_bind_find(b, name, "");
    if (t) return vector(b, t, n);
    fa_bind_missing(b, name, "");
    return NULL;
}

float fa_bind_scalar(fa_binder *b, float mean, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    float v = mean;
    if (b->err.code) return v;
    if (b->synth) {
        fa_synth_fill(&v, 1, mean, 0.1f, fa_bind_synth_seed(b));
        fa_bind_synth_vector(b, 1, 0, mean, name, "");
        return v;
    }
    const fa_ckpt_tensor *t = fa_bind_find(b, name, "");
    if (!t) {
        fa_bind_missing(b, name, "");
    } else if (check_vector(b, t, 0, 1)) {
        fa_to_f32((fa_dtype)t->dtype, t->data, 1, &v);
        fa_bind_took_floats(b, t, 1);
    }
    return v;
}

void fa_bind_unused(fa_binder *b, const char *fmt, ...) {
    static const char *const suffix[] = {".weight", ".bias", ".scales", ".biases", ""};
    FA_BIND_NAME(name, fmt);
    for (size_t i = 0; !b->synth && i < sizeof suffix / sizeof suffix[0]; i++) {
        const fa_ckpt_tensor *t = fa_bind_find(b, name, suffix[i]);
        uint8_t *used = t ? &b->used[t - fa_ckpt_at(b->ckpt, 0)] : NULL;
        if (used && !*used) *used = FA_USE_NAMED;
    }
}

void fa_bind_unused_layer(fa_binder *b, int64_t layer) {
    char own[FA_NAME_MAX], real[FA_REAL_MAX], gguf[FA_NAME_MAX];
    snprintf(own, sizeof own, "model.layers.%lld.", (long long)layer);
    snprintf(gguf, sizeof gguf, "blk.%lld.", (long long)layer); /* names that GGUF's translation leaves as they are */
    fa_bind_prefixed(b, real, own, "");
    for (size_t i = 0; !b->synth && i < fa_ckpt_count(b->ckpt); i++) {
        const char *name = fa_ckpt_at(b->ckpt, i)->name;
        bool its = strncmp(name, real, strlen(real)) == 0 || strncmp(name, gguf, strlen(gguf)) == 0;
        if (its && !b->used[i]) b->used[i] = FA_USE_NAMED;
    }
}

bool fa_bind_has(fa_binder *b, const char *fmt, ...) {
    FA_BIND_NAME(name, fmt);
    return fa_bind_find(b, name, ".weight") || fa_bind_find(b, name, "") || fa_bind_find(b, name, "_blocks") ||
           fa_bind_find(b, name, ".qweight") || fa_bind_find(b, name, ".weight_packed");
}

bool fa_bind_random(const fa_binder *b) { return b->synth != NULL; }

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
    if (!p) fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for %zu x %zu bytes", n, size);
    return p;
}
