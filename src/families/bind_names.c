/* Names of tensors: a family's and a checkpoint's spelling of them (wrappers' prefixes, other names of a family,
 * modules of adapters), and lists of them for messages, in which layers and experts are ranges. */
#include "base/alloc.h"
#include "families/bind.h"

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
                {"backbone.", ""},
                {"encoder.", ""},
                {"language_model.encoder.", "language_model."},
                {"", ""},
                {"model.language_model.model.", "model.language_model."}};

/* ---- one name ---- */

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

void fa_bind_prefixed(const fa_binder *b, char out[FA_REAL_MAX], const char *name, const char *suffix) {
    bool body = strncmp(name, "model.", 6) == 0;
    snprintf(out, FA_REAL_MAX, "%s%.*s%s", body ? b->body : b->head, FA_NAME_MAX, body ? name + 6 : name, suffix);
}

const fa_ckpt_tensor *fa_bind_find(fa_binder *b, const char *name, const char *suffix) {
    char real[FA_REAL_MAX], other[FA_NAME_MAX];
    const char *n;
    for (int i = 0; (n = other_name(b, name, i, other)); i++) {
        fa_bind_prefixed(b, real, n, suffix);
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
            fa_bind_prefixed(b, probe, n, kinds[k]);
            if (!fa_ckpt_find(b->ckpt, probe)) continue;
            fa_bind_prefixed(b, out, n, suffix);
            return;
        }
    fa_bind_prefixed(b, out, name, suffix);
}

void fa_bind_choose_prefix(fa_binder *b) {
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        b->body = prefixes[i].body;
        b->head = prefixes[i].head;
        if (fa_bind_find(b, "model.embed_tokens", ".weight")) break;
        b->body = prefixes[0].body;
        b->head = prefixes[0].head;
    }
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

/* ---- lists ---- */

/* Gathers names that differ in their layer number only, and in it by one. A name that was the last of its kind is there
 * already: the parts of a fused tensor miss it one after the other. Layers name their tensors in the same order, so the
 * search goes on from the last hit; and not for ever, since a config may promise millions. */
void fa_name_list_add(fa_names *l, const char *name) {
    enum { LOOK_AT = 512 };
    size_t digits = strcspn(name, "0123456789");
    int used = 0;
    long long number = -1;
    if (sscanf(name + digits, "%9lld%n", &number, &used) != 1) number = -1;
    for (size_t k = 0; k < l->n && k < LOOK_AT; k++) {
        const size_t i = (l->at + k) % l->n;
        const char *first = l->item[i].name;
        const int64_t last = l->item[i].last;
        if ((last != number && last + 1 != number) || strncmp(first, name, digits)) continue;
        const char *rest = first + digits + strspn(first + digits, "0123456789");
        if (strcmp(rest, name + digits + used)) continue;
        l->at = i;
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
    if (l->item[l->n].name) l->at = l->n++;
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
