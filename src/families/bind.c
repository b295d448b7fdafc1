/* Binding: names to views. Matrices stay where the file has them; vectors (norms, biases) become f32 in model memory.
 */
#define _DEFAULT_SOURCE
#include "families/bind.h"
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Checkpoints of the same family differ in what they put in front: text-only, multimodal wrappers of transformers 4 and
 * mlx, of transformers 5, and base models saved without their head. The embedding table tells which. */
static const struct {
    const char *body, *head;
} prefixes[] = {{"model.", ""},
                {"language_model.model.", "language_model."},
                {"model.language_model.", ""},
                {"model.text_model.", ""},
                {"language_model.", "language_model."},
                {"text_model.", ""},
                {"", ""},
                {"model.language_model.model.", "model.language_model."}};

enum { IGNORED = 4 /* in fa_binder.used */ };

/* ---- names ---- */

/* A family name, or one of its other names where `ours` occurs in it: try 0 is the name itself. NULL: no more. */
static const char *other_name(const fa_binder *b, const char *name, int try, char out[FA_NAME_MAX]) {
    if (try == 0) return name;
    for (const fa_rename *r = b->renames; r && r->ours; r++) {
        const char *at = strstr(name, r->ours);
        if (!at || --try > 0) continue;
        snprintf(out, FA_NAME_MAX, "%.*s%s%s", (int)(at - name), name, r->theirs, at + strlen(r->ours));
        return out;
    }
    return NULL;
}

/* The reverse: what the family calls a tensor that has one of the other names, try 1 on. NULL: no more. */
static const char *reverse_name(const fa_binder *b, const char *name, int try, char out[FA_NAME_MAX]) {
    for (const fa_rename *r = b->renames; r && r->ours; r++) {
        const char *at = strstr(name, r->theirs);
        if (!at || --try > 0) continue;
        snprintf(out, FA_NAME_MAX, "%.*s%s%s", (int)(at - name), name, r->ours, at + strlen(r->theirs));
        return out;
    }
    return NULL;
}

static void prefixed(const fa_binder *b, char out[FA_REAL_MAX], const char *name, const char *suffix) {
    bool body = strncmp(name, "model.", 6) == 0;
    snprintf(out, FA_REAL_MAX, "%s%.*s%s", body ? b->body : b->head, FA_NAME_MAX, body ? name + 6 : name, suffix);
}

const fa_ckpt_tensor *fa_bind_find(fa_binder *b, const char *name, const char *suffix) {
    char real[FA_REAL_MAX], other[FA_NAME_MAX];
    const char *n;
    for (int i = 0; (n = other_name(b, name, i, other)); i++) {
        prefixed(b, real, n, suffix);
        const fa_ckpt_tensor *t = fa_ckpt_find(b->ckpt, real);
        if (t) return t;
    }
    return NULL;
}

/* The name under which the checkpoint has the tensor; without one, the family's own. */
void fa_bind_real_name(const fa_binder *b, char out[FA_REAL_MAX], const char *name, const char *suffix) {
    static const char *const kinds[] = {".weight", ".bias", "", "_blocks", ".qweight", ".weight_packed"};
    char other[FA_NAME_MAX], probe[FA_REAL_MAX];
    const char *n;
    for (int i = 0; !b->synth && (n = other_name(b, name, i, other)); i++)
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            prefixed(b, probe, n, kinds[k]);
            if (!fa_ckpt_find(b->ckpt, probe)) continue;
            prefixed(b, out, n, suffix);
            return;
        }
    prefixed(b, out, name, suffix);
}

/* Gathers names that differ in their layer number only, and in it by one. A name that was the last of its kind is there
 * already: the parts of a fused tensor miss it one after the other. */
void fa_name_list_add(fa_names *l, const char *name) {
    size_t digits = strcspn(name, "0123456789");
    int used = 0;
    long long number = -1;
    if (sscanf(name + digits, "%9lld%n", &number, &used) != 1) number = -1;
    for (size_t i = 0; i < l->n; i++) {
        const char *first = l->item[i].name;
        const int64_t last = l->item[i].last;
        if ((last != number && last + 1 != number) || strncmp(first, name, digits)) continue;
        const char *rest = first + digits + strspn(first + digits, "0123456789");
        if (strcmp(rest, name + digits + used)) continue;
        if (last == number) return;
        l->item[i].last = number;
        l->item[i].n++;
        l->total++;
        return;
    }
    l->total++;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        fa_name *grown = (fa_name *)fa_realloc(l->item, cap, sizeof *l->item);
        if (!grown) return;
        l->item = grown;
        l->cap = cap;
    }
    l->item[l->n].name = fa_strdup(name);
    l->item[l->n].n = 1;
    l->item[l->n].last = number;
    if (l->item[l->n].name) l->n++;
}

/* The number of an expert in its tensor's name; NULL: none. */
static const char *expert_number(const char *name) {
    const char *at = strstr(name, ".experts.");
    return at && at[9] >= '0' && at[9] <= '9' ? at + 9 : NULL;
}

/* Is b's name a's, of the next expert? */
static bool next_expert(const fa_name *a, const fa_name *b) {
    const char *x = expert_number(a->name), *y = expert_number(b->name);
    if (!x || !y || a->n != b->n || a->last != b->last || x - a->name != y - b->name) return false;
    char *x_end, *y_end;
    return !strncmp(a->name, b->name, (size_t)(x - a->name)) && strtoll(x, &x_end, 10) + 1 == strtoll(y, &y_end, 10) &&
           !strcmp(x_end, y_end);
}

/* "{from-to}" in place of the digits at *from, after what stands before them; *from goes behind. */
static void print_range(fa_buf *out, const char **from, const char *number, long long to) {
    int digits = (int)strspn(number, "0123456789");
    fa_buf_printf(out, "%.*s{%.*s-%lld}", (int)(number - *from), *from, digits, number, to);
    *from = number + digits;
}

void fa_name_list_print(const fa_names *l, fa_buf *out) {
    for (size_t i = 0, next; i < l->n; i = next) {
        const char *name = l->item[i].name, *expert = expert_number(name);
        for (next = i + 1; next < l->n && next_expert(&l->item[next - 1], &l->item[next]);) next++;
        if (i) fa_buf_puts(out, ", ");
        if (l->item[i].n > 1) print_range(out, &name, name + strcspn(name, "0123456789"), l->item[i].last);
        if (next - i > 1) print_range(out, &name, expert, strtoll(expert_number(l->item[next - 1].name), NULL, 10));
        fa_buf_puts(out, name);
    }
}

void fa_name_list_free(fa_names *l) {
    for (size_t i = 0; i < l->n; i++) fa_free(l->item[i].name);
    fa_free(l->item);
    *l = (fa_names){0};
}

/* ---- life ---- */

int fa_binder_open(fa_binder *b, const fa_ckpt *ckpt, const fa_rename *renames, fa_mem *mem, fa_error *err) {
    memset(b, 0, sizeof *b);
    b->ckpt = ckpt;
    b->mem = mem;
    b->renames = renames;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        b->body = prefixes[i].body;
        b->head = prefixes[i].head;
        if (fa_bind_find(b, "model.embed_tokens", ".weight")) break;
        b->body = prefixes[0].body;
        b->head = prefixes[0].head;
    }
    const fa_jnode *cfg = fa_ckpt_config(ckpt);
    b->quant = fa_jget(cfg, "quantization");
    if (!b->quant) b->quant = fa_jget(cfg, "quantization_config");
    if (!b->quant) b->quant = fa_jget(fa_jget(cfg, "text_config"), "quantization");
    if (!b->quant) b->quant = fa_jget(fa_jget(cfg, "text_config"), "quantization_config");
    b->used = FA_NEWN(uint8_t, fa_ckpt_count(ckpt) + 1);
    return b->used
               ? 0
               : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", fa_ckpt_path(ckpt), fa_ckpt_count(ckpt));
}

void fa_binder_close(fa_binder *b) {
    fa_free(b->used);
    fa_name_list_free(&b->missing);
    fa_name_list_free(&b->extra);
    fa_buf_free(&b->wrong);
    b->used = NULL;
}

/* Buffers of old implementations, and statistics of quantizers, that no family needs. */
static bool harmless(const char *name) {
    static const char *const ends[] = {"rotary_emb.inv_freq", ".attn.bias", ".masked_bias", ".k_scale", ".v_scale",
                                       ".input_scale",        "_scale_2"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t m = strlen(ends[i]);
        if (n >= m && strcmp(name + n - m, ends[i]) == 0) return true;
    }
    return false;
}

/* What lies where the text model's tensors do. */
static void find_extra(fa_binder *b) {
    char layers[FA_REAL_MAX];
    prefixed(b, layers, "model.layers.", "");
    for (size_t i = 0; !b->synth && i < fa_ckpt_count(b->ckpt); i++) {
        const char *name = fa_ckpt_at(b->ckpt, i)->name;
        bool of_text = strncmp(name, layers, strlen(layers)) == 0 || strncmp(name, "blk.", 4) == 0;
        if (!b->used[i] && of_text && !harmless(name)) fa_name_list_add(&b->extra, name);
    }
}

const char *fa_binder_extra(const fa_binder *b, fa_mem *mem) {
    if (!b->extra.total) return NULL;
    fa_buf list = {0};
    fa_name_list_print(&b->extra, &list);
    const char *text = list.data ? fa_mem_printf(mem, "%s", list.data) : NULL;
    fa_buf_free(&list);
    return text;
}

int fa_binder_finish(fa_binder *b, fa_error *err) {
    if (b->err.code && (b->err.code == FFAI_ENOMEM || !b->n_wrong)) {
        if (err) *err = b->err;
        return b->err.code;
    }
    const char *path = fa_ckpt_path(b->ckpt), *wrong = b->wrong.data ? b->wrong.data : "";
    find_extra(b);
    if (!b->missing.total && !b->n_wrong) return 0;
    if (!b->missing.total) return fa_fail(err, FFAI_EFORMAT, "%s", wrong);
    fa_buf list = {0}, extra = {0};
    fa_name_list_print(&b->missing, &list);
    fa_name_list_print(&b->extra, &extra);
    int n = b->missing.total;
    int rc = fa_fail(err, FFAI_EFORMAT, "%s: %d tensor%s missing: %s%s%s%s%s", path, n, n > 1 ? "s are" : " is",
                     list.data ? list.data : "", b->n_wrong ? "; " : "", wrong, b->extra.n ? "; not known: " : "",
                     extra.data ? extra.data : "");
    fa_buf_free(&list);
    fa_buf_free(&extra);
    return rc;
}

void fa_bind_fail(fa_binder *b, int code, const fa_ckpt_tensor *t, const char *fmt, ...) {
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

/* Does the list say this of the tensor already? Another part of it did. */
static bool said(const char *list, const char *name, const char *text) {
    const size_t n = strlen(name), len = strlen(text);
    for (const char *p = list; p && (p = strstr(p, name)); p += n)
        if (!strncmp(p + n, ": ", 2) && !strncmp(p + n + 2, text, len)) return true;
    return false;
}

void fa_bind_wrong(fa_binder *b, const fa_ckpt_tensor *t, const char *fmt, ...) {
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (said(b->wrong.data, t->name, text)) return;
    uint8_t *used = &b->used[t - fa_ckpt_at(b->ckpt, 0)];
    if (!*used) *used = IGNORED; /* it is named here */
    if (b->n_wrong++)
        fa_buf_printf(&b->wrong, "; tensor %s: %s", t->name, text);
    else
        fa_buf_printf(&b->wrong, "%s: tensor %s: %s", t->file, t->name, text);
}

void fa_bind_used(fa_binder *b, const fa_ckpt_tensor *t, uint8_t how) {
    size_t i = (size_t)(t - fa_ckpt_at(b->ckpt, 0));
    if (b->used[i] & ~IGNORED) return;
    b->used[i] = how;
    b->bytes += (int64_t)t->bytes;
}

void fa_bind_missing(fa_binder *b, const char *name, const char *suffix) {
    char real[FA_REAL_MAX];
    prefixed(b, real, name, suffix);
    fa_name_list_add(&b->missing, real);
}

/* ---- what adapters find ---- */

static void add_target(fa_binder *b, const fa_target *t, const char *name) {
    fa_targets *l = b->targets;
    if (!l) return;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        fa_target *grown = (fa_target *)fa_mem_calloc(b->mem, cap, sizeof *grown);
        if (grown && l->n) memcpy(grown, l->at, l->n * sizeof *grown);
        l->cap = grown ? cap : 0;
        l->at = grown;
    }
    const char *kept = l->at ? fa_mem_printf(b->mem, "%s", name) : NULL;
    if (!kept) {
        l->n = 0;
        fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for names");
        return;
    }
    l->at[l->n] = *t;
    l->at[l->n++].name = kept;
}

/* A linear layer or a table gets its id. row: gathered, or NULL. */
static void linear_target(fa_binder *b, fa_linear *l, const fa_part *part, const int64_t *row, const char *name) {
    if (b->experts) return; /* which adapters cannot change */
    fa_target t = {.id = ++b->n_id, .rows = l->w.rows, .cols = l->w.cols, .part = *part};
    l->w.id = t.id;
    if (row && b->targets) {
        int64_t *kept = (int64_t *)fa_bind_alloc(b, (size_t)t.rows, sizeof *kept);
        if (!kept) return;
        memcpy(kept, row, (size_t)t.rows * sizeof *kept);
        t.row = kept;
    }
    add_target(b, &t, name);
}

const char *fa_bind_module(const fa_rename *renames, const char *module, int turn, char out[FA_NAME_MAX]) {
    const size_t n = sizeof prefixes / sizeof *prefixes;
    fa_binder b = {.renames = renames};
    char name[FA_NAME_MAX];
    /* what the text model is called in wrappers: "model." + rest; for the head the rest alone */
    int at = turn;
    for (size_t i = 0; i < 2 * n; i++) {
        const char *p = i % 2 ? prefixes[i / 2].head : prefixes[i / 2].body;
        if (strncmp(module, p, strlen(p)) || (i % 2 && !*p && i > 1)) continue;
        snprintf(name, sizeof name, "%s%s", i % 2 ? "" : "model.", module + strlen(p));
        for (int k = 0;; k++) {
            const char *real = k ? reverse_name(&b, name, k, out) : name;
            if (!real) break;
            if (at-- > 0) continue;
            if (real != out) snprintf(out, FA_NAME_MAX, "%s", real);
            return out;
        }
    }
    return NULL;
}

/* ---- matrices ---- */

/* The whole of what is stored under a name, where it is to lie: n matrices [rows, cols] (n 0: one). False: absent, or
 * wrong and reported; *there tells which. */
static bool whole(fa_binder *b, fa_weight *w, int64_t n, int64_t rows, int64_t cols, const char *name, bool *there) {
    fa_source src;
    *there = true;
    if (b->last.rows == (n ? n : 1) * rows && b->last.cols == cols && strcmp(b->last_name, name) == 0) {
        *w = b->last;
        return true;
    }
    if (b->synth) {
        *w = (fa_weight){.rows = (n ? n : 1) * rows, .cols = cols};
        fa_bind_synth(b, w, n, name);
    } else {
        if (!fa_bind_stored(b, w, &src, n, rows, cols, name)) {
            *there = src.t != NULL;
            return false;
        }
        if (fa_weight_check(w, &b->err)) {
            fa_fail_prefix(&b->err, b->err.code, "%s", src.t->file);
            return false;
        }
        size_t bytes = src.t->bytes + (src.scales ? 2 * src.scales->bytes : 0);
        if (!b->used[src.t - fa_ckpt_at(b->ckpt, 0)]) fa_bind_count(b, w, (int64_t)bytes);
        fa_bind_used(b, src.t, 2);
        if (src.scales) fa_bind_used(b, src.scales, 1);
        if (src.biases) fa_bind_used(b, src.biases, 1);
        fa_bind_relocate(b, w, &src);
    }
    if (b->err.code) return false;
    snprintf(b->last_name, sizeof b->last_name, "%s", name);
    b->last = *w;
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

static bool check_vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n, int64_t len) {
    bool ok = n ? t->n_dim == 2 && t->dim[0] == n && t->dim[1] == len : t->n_dim == 1 && t->dim[0] == len;
    if (!ok) {
        fa_bind_wrong(b, t, "%d-dimensional with %lld values first, expected [%lld]", t->n_dim, (long long)t->dim[0],
                      (long long)(n ? n : len));
        return false;
    }
    if (t->dtype == FA_F32 || t->dtype == FA_F16 || t->dtype == FA_BF16 || t->dtype == FA_F64) return true;
    fa_bind_fail(b, FFAI_ENOTSUP, t, "type %s cannot be read as floats", t->type_name);
    return false;
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
    if (!b->used[t - fa_ckpt_at(b->ckpt, 0)]) b->n_param += count * total;
    fa_bind_used(b, t, 1);
    return p;
}

static const float *vector(fa_binder *b, const fa_ckpt_tensor *t, int64_t n) {
    return vector_part(b, t, 0, n, 0, 1, n);
}

/* ---- what families call ---- */

#define FORMAT_NAME(name, fmt)                                                                                         \
    char name[FA_NAME_MAX];                                                                                            \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    vsnprintf(name, sizeof name, fmt, ap);                                                                             \
    va_end(ap)

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
    if (whole(b, &w, 0, p->total, cols, name, &there))
        out->w = rows_of(&w, p->from, p->step, rows);
    else if (!there)
        fa_bind_missing(b, name, ".weight");
    linear_target(b, out, p, NULL, name);
    out->bias = bias_of(b, bias, p, rows, name);
}

void fa_bind_linear(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
    bind_part(b, out, rows, cols, bias, &(fa_part){.step = 1, .total = rows}, name);
}

void fa_bind_rows(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, fa_part part, const char *fmt,
                  ...) {
    FORMAT_NAME(name, fmt);
    bind_part(b, out, rows, cols, bias, &part, name);
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
    if (!b->used[t - fa_ckpt_at(b->ckpt, 0)]) b->n_param += total;
    fa_bind_used(b, t, 1);
    return p;
}

void fa_bind_gather(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, int64_t total, fa_bias bias,
                    const int64_t *row, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
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
    if (!fa_bind_stored(b, &w, &src, 0, total, cols, name)) {
        if (!src.t) fa_bind_missing(b, name, ".weight");
        return;
    }
    if (fa_weight_check(&w, &b->err)) return;
    if (!b->used[src.t - fa_ckpt_at(b->ckpt, 0)]) fa_bind_count(b, &w, (int64_t)src.t->bytes);
    fa_bind_used(b, src.t, 2);
    if (src.scales) fa_bind_used(b, src.scales, 1);
    if (src.biases) fa_bind_used(b, src.biases, 1);
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
    linear_target(b, out, &(fa_part){.step = 1, .total = total}, row, name);
}

/* ---- experts ---- */

static void experts_alloc(fa_binder *b, fa_experts *out, int64_t n, int64_t rows, int64_t cols) {
    *out = (fa_experts){.n = n, .w = (fa_weight *)fa_bind_alloc(b, (size_t)n, sizeof *out->w)};
    if (!out->w) out->n = 0;
    for (int64_t e = 0; e < out->n; e++) out->w[e].rows = rows, out->w[e].cols = cols;
}

void fa_bind_experts(fa_binder *b, fa_experts *out, int64_t n, int64_t rows, int64_t cols, bool bias, fa_part part,
                     const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
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
    FORMAT_NAME(name, fmt);
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

void fa_bind_layer_norm(fa_binder *b, fa_norm *out, int64_t dim, double eps, bool bias, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
    fa_bind_norm(b, out, dim, eps, 0, "%s", name);
    out->center = true;
    if (bias && !b->err.code) out->b = bias_of(b, FA_BIAS, &(fa_part){.step = 1, .total = dim}, dim, name);
}

const float *fa_bind_vector(fa_binder *b, int64_t n, float mean, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
    if (b->err.code) return NULL;
    if (b->synth) return fa_bind_synth_vector(b, n, 0, mean, name, "");
    const fa_ckpt_tensor *t = fa_bind_find(b, name, "");
    if (t) return vector(b, t, n);
    fa_bind_missing(b, name, "");
    return NULL;
}

float fa_bind_scalar(fa_binder *b, float mean, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
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
        if (!b->used[t - fa_ckpt_at(b->ckpt, 0)]) b->n_param++;
        fa_bind_used(b, t, 1);
    }
    return v;
}

void fa_bind_unused(fa_binder *b, const char *fmt, ...) {
    static const char *const suffix[] = {".weight", ".bias", ".scales", ".biases"};
    FORMAT_NAME(name, fmt);
    for (size_t i = 0; !b->synth && i < sizeof suffix / sizeof suffix[0]; i++) {
        const fa_ckpt_tensor *t = fa_bind_find(b, name, suffix[i]);
        uint8_t *used = t ? &b->used[t - fa_ckpt_at(b->ckpt, 0)] : NULL;
        if (used && !*used) *used = IGNORED;
    }
}

bool fa_bind_has(fa_binder *b, const char *fmt, ...) {
    FORMAT_NAME(name, fmt);
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
