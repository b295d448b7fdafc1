/* A binding's life and its records: what failed, is missing, has another shape or is not known, what became of the
 * checkpoint's tensors, and the matrices that adapters may name. */
#include "base/alloc.h"
#include "families/bind.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- life ---- */

/* What config.json says about stored formats: mlx's key, or that of transformers, here or in text_config. */
static const fa_jnode *find_quantization(const fa_jnode *cfg) {
    static const char *const keys[] = {"quantization", "quantization_config"};
    for (int i = 0; i < 4; i++) {
        const fa_jnode *n = fa_jget(i < 2 ? cfg : fa_jget(cfg, "text_config"), keys[i % 2]);
        if (n && fa_jtype_of(n) != FA_JNULL) return n;
    }
    return NULL;
}

int fa_binder_open(fa_binder *b, const fa_ckpt *ckpt, const fa_rename *renames, fa_mem *mem, fa_error *err) {
    memset(b, 0, sizeof *b);
    b->ckpt = ckpt;
    b->mem = mem;
    b->renames = renames;
    fa_bind_choose_prefix(b);
    b->quant = find_quantization(fa_ckpt_config(ckpt));
    if (b->quant && fa_jtype_of(b->quant) != FA_JOBJ)
        return fa_fail(err, FFAI_EFORMAT, "%s: config.json: \"quantization\" or \"quantization_config\" is no object",
                       fa_ckpt_path(ckpt));
    b->used = FA_NEWN(uint8_t, fa_ckpt_count(ckpt) + 1);
    return b->used
               ? 0
               : fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", fa_ckpt_path(ckpt), fa_ckpt_count(ckpt));
}

void fa_binder_close(fa_binder *b) {
    fa_free(b->used);
    fa_name_list_free(&b->missing);
    fa_name_list_free(&b->extra);
    fa_name_list_free(&b->widened);
    fa_buf_free(&b->wrong);
    b->used = NULL;
}

/* ---- what is reported ---- */

/* Buffers of old implementations, and statistics of quantizers, that no family needs. */
static bool harmless(const char *name) {
    static const char *const ends[] = {
        "rotary_emb.inv_freq", ".attn.bias", ".masked_bias",       ".k_scale", ".v_scale",
        ".input_scale",        "_scale_2",   ".input_global_scale"};
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
    fa_bind_prefixed(b, layers, "model.layers.", "");
    for (size_t i = 0; !b->synth && i < fa_ckpt_count(b->ckpt); i++) {
        const char *name = fa_ckpt_at(b->ckpt, i)->name;
        bool of_text = strncmp(name, layers, strlen(layers)) == 0 || strncmp(name, "blk.", 4) == 0;
        if (!b->used[i] && of_text && !harmless(name)) fa_name_list_add(&b->extra, name);
    }
}

/* A list of names as text in mem; NULL: it is empty. */
static const char *names_text(const fa_names *names, fa_mem *mem) {
    if (!names->total) return NULL;
    fa_buf list = {0};
    fa_name_list_print(names, &list);
    const char *text = list.data ? fa_mem_printf(mem, "%s", list.data) : NULL;
    fa_buf_free(&list);
    return text;
}

const char *fa_binder_extra(const fa_binder *b, fa_mem *mem) { return names_text(&b->extra, mem); }

const char *fa_binder_widened(const fa_binder *b, fa_mem *mem) { return names_text(&b->widened, mem); }

enum { MOST_MISSING = 100000 /* tensors, behind which the rest is not looked for */ };

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
    const bool more = b->missing.total > MOST_MISSING;
    const int n = more ? MOST_MISSING : b->missing.total;
    int rc = fa_fail(err, FFAI_EFORMAT, "%s: %s%d tensor%s missing: %s%s%s%s%s", path, more ? "more than " : "", n,
                     n > 1 ? "s are" : " is", list.data ? list.data : "", b->n_wrong ? "; " : "", wrong,
                     b->extra.n ? "; not known: " : "", extra.data ? extra.data : "");
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
    if (!*used) *used = FA_USE_NAMED; /* it is named here */
    if (b->n_wrong++)
        fa_buf_printf(&b->wrong, "; tensor %s: %s", t->name, text);
    else
        fa_buf_printf(&b->wrong, "%s: tensor %s: %s", t->file, t->name, text);
}

void fa_bind_used(fa_binder *b, const fa_ckpt_tensor *t, fa_use how) {
    size_t i = (size_t)(t - fa_ckpt_at(b->ckpt, 0));
    if (b->used[i] & ~FA_USE_NAMED) return;
    b->used[i] = (uint8_t)how;
    b->bytes += (int64_t)t->bytes;
}

/* Layers times experts of a config may be any number, more than the largest models have. */
void fa_bind_missing(fa_binder *b, const char *name, const char *suffix) {
    char real[FA_REAL_MAX];
    fa_bind_prefixed(b, real, name, suffix);
    fa_name_list_add(&b->missing, real);
    if (b->missing.total > MOST_MISSING && b->missing.n)
        fa_bind_fail(b, FFAI_EFORMAT, NULL, "more than %d tensors are missing, the first is %s", MOST_MISSING,
                     b->missing.item[0].name);
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

void fa_bind_target(fa_binder *b, fa_linear *l, const fa_part *part, const int64_t *row, const char *name) {
    if (b->experts) return; /* the stack has one */
    fa_target t = {.id = ++b->n_id, .rows = l->w.rows, .cols = l->w.cols, .part = *part, .ordered = l->order != NULL};
    l->w.id = t.id;
    t.w = l->w;
    if (row && b->targets) {
        int64_t *kept = (int64_t *)fa_bind_alloc(b, (size_t)t.rows, sizeof *kept);
        if (!kept) return;
        memcpy(kept, row, (size_t)t.rows * sizeof *kept);
        t.row = kept;
    }
    add_target(b, &t, name);
}

void fa_bind_stack_target(fa_binder *b, fa_experts *e, const fa_part *part, const char *name) {
    fa_weight *w = &e->w[0];
    if (!w->id) w->id = ++b->n_id;
    add_target(b, &(fa_target){.id = w->id, .rows = w->rows, .cols = w->cols, .part = *part, .n_expert = e->n, .w = *w},
               name);
}

/* ---- what a conversion finds ---- */

/* A list in memory that only grows. */
static bool room_for_stored(fa_binder *b, fa_stored_list *l) {
    if (l->n < l->cap) return true;
    size_t cap = l->cap ? 2 * l->cap : 256;
    fa_stored *grown = (fa_stored *)fa_mem_calloc(b->mem, cap, sizeof *grown);
    if (!grown) return false;
    if (l->n) memcpy(grown, l->at, l->n * sizeof *grown);
    l->at = grown;
    l->cap = cap;
    return true;
}

void fa_bind_list_stored(fa_binder *b, const fa_weight *w, const fa_source *src, int64_t n, int64_t rows,
                         const char *name) {
    fa_stored_list *l = b->stored;
    const size_t tensor = (size_t)(src->t - fa_ckpt_at(b->ckpt, 0));
    if (!l || b->used[tensor] & FA_USE_MATRIX) return;
    char real[FA_REAL_MAX];
    fa_bind_real_name(b, real, name, "");
    if (!room_for_stored(b, l)) {
        fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for names");
        return;
    }
    fa_stored *m = &l->at[l->n];
    *m = (fa_stored){.name = fa_mem_printf(b->mem, "%s", name),
                     .real = fa_mem_printf(b->mem, "%s", real),
                     .n = n,
                     .rows = rows,
                     .cols = w->cols,
                     .tensor = tensor,
                     .w = *w,
                     .turned = b->turned,
                     .experts = b->experts,
                     .ordered = src->order != NULL,
                     .by_columns = src->made && fa_fmt_plain(w->fmt) && n};
    m->w.codes = m->w.scales = m->w.biases = NULL;
    if (m->name && m->real)
        l->n++;
    else
        fa_bind_fail(b, FFAI_ENOMEM, NULL, "no memory for names");
}
