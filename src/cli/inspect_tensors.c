/* The tensors of a checkpoint as a table. Those of all layers that are alike are one row:
 * "model.layers.[0-7].mlp.up_proj.weight". Sorting finds them, so that a file with many names
 * takes no longer than it must. */
#include "cli/inspect_show.h"
#include "cli/out.h"

#include <stdlib.h>
#include <string.h>

typedef struct row {
    char *key;               /* name with * for numbers, then what else must agree */
    size_t n_name;           /* bytes of the name in it */
    size_t index;            /* of the first tensor */
    int64_t layer, bytes, n; /* layer: the first number of the name, -1: none */
    char layers[32];
} row;

static void shape_text(char *buf, size_t cap, const ffai_tensor_info *t) {
    int k = snprintf(buf, cap, "[");
    for (int i = 0; i < t->n_dim && k < (int)cap - 24; i++)
        k += snprintf(buf + k, cap - (size_t)k, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    snprintf(buf + k, cap - (size_t)k, "]");
}

/* "model.layers.12.mlp.up_proj.weight" -> "model.layers.*.mlp.up_proj.weight", 12 */
static bool make_row(row *r, const ffai_tensor_info *t, size_t index) {
    char shape[200];
    shape_text(shape, sizeof shape, t);
    size_t cap = strlen(t->name) + strlen(shape) + strlen(t->dtype) + strlen(t->format) + 8;
    char *k = r->key = (char *)malloc(cap), *end = k ? k + cap : NULL;
    if (!k) return false;
    r->layer = -1;
    r->index = index;
    r->bytes = t->bytes;
    r->n = 1;
    for (const char *s = t->name; *s;) {
        size_t digits = s == t->name || s[-1] == '.' ? strspn(s, "0123456789") : 0;
        if (digits && digits < 10 && (s[digits] == '.' || !s[digits])) {
            if (r->layer < 0) r->layer = atoll(s);
            *k++ = '*';
            s += digits;
        } else {
            *k++ = *s++;
        }
    }
    r->n_name = (size_t)(k - r->key);
    snprintf(k, (size_t)(end - k), "\1%s\1%s\1%s%d", shape, t->dtype, t->format, t->used);
    return true;
}

static int by_key(const void *a, const void *b) {
    const row *x = (const row *)a, *y = (const row *)b;
    int c = strcmp(x->key, y->key);
    if (c) return c;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int by_index(const void *a, const void *b) {
    const row *x = (const row *)a, *y = (const row *)b;
    return (x->index > y->index) - (x->index < y->index);
}

/* "0-7", "0,3,5-9", or "24 in 0-31" when that would be long; at: rows of one key, in the order of their layers */
static void layers_text(char *buf, size_t cap, const row *at, size_t n) {
    size_t used = 0, n_layer = 0;
    bool fits = true;
    *buf = 0;
    for (size_t i = 0; i < n;) {
        size_t k = i;
        for (n_layer++; k + 1 < n && at[k + 1].layer <= at[k].layer + 1; k++) n_layer += at[k + 1].layer != at[k].layer;
        int w = at[k].layer == at[i].layer
                    ? snprintf(buf + used, cap - used, "%s%lld", i ? "," : "", (long long)at[i].layer)
                    : snprintf(buf + used, cap - used, "%s%lld-%lld", i ? "," : "", (long long)at[i].layer,
                               (long long)at[k].layer);
        if (w < 0 || used + (size_t)w >= 12) {
            fits = false;
            used = 0;
        } else if (fits) {
            used += (size_t)w;
        }
        i = k + 1;
    }
    if (!fits) snprintf(buf, cap, "%zu in %lld-%lld", n_layer, (long long)at[0].layer, (long long)at[n - 1].layer);
}

/* Rows of one key become the first of them. Returns how many are left. */
static size_t merge(row *r, size_t n) {
    size_t out = 0;
    for (size_t i = 0, k; i < n; i = k) {
        row one = r[i];
        for (k = i + 1; k < n && strcmp(r[k].key, one.key) == 0; k++) {
            one.bytes += r[k].bytes;
            one.n++;
            if (r[k].index < one.index) one.index = r[k].index;
        }
        if (one.layer >= 0) layers_text(one.layers, sizeof one.layers, r + i, k - i);
        for (size_t j = i + 1; j < k; j++) free(r[j].key);
        r[out++] = one;
    }
    return out;
}

/* The name with the layers in place of its first number. */
static void row_name(char *buf, size_t cap, const row *r, const char *name) {
    const char *star = (const char *)memchr(r->key, '*', r->n_name);
    if (r->n == 1 || !star)
        snprintf(buf, cap, "%s", name);
    else
        snprintf(buf, cap, "%.*s[%s]%.*s", (int)(star - r->key), r->key, r->layers,
                 (int)(r->n_name - (size_t)(star - r->key) - 1), star + 1);
}

static int print_groups(const cli_opts *o, ffai_model *m, const row *r, size_t n) {
    static const char *const head[] = {"tensor", "shape", "type", "bytes"};
    ffai_tensor_info t;
    out_table table;
    char text[400];
    out_table_begin(&table, head, "lllr");
    for (size_t i = 0; i < n; i++) {
        ffai_model_tensor_at(m, r[i].index, &t);
        row_name(text, sizeof text, &r[i], t.name);
        out_cell(&table, (int)i, 0, "%s", text);
        shape_text(text, sizeof text, &t);
        out_cell(&table, (int)i, 1, "%s", text);
        out_cell(&table, (int)i, 2, "%s%s", t.dtype, t.used ? "" : ", not used");
        out_cell(&table, (int)i, 3, "%s", out_bytes(text, (double)r[i].bytes));
    }
    putchar('\n');
    return out_table_end(&table, stdout) ? 0 : cli_fail(o, "out of memory");
}

static int print_all(const cli_opts *o, ffai_model *m) {
    static const char *const head[] = {"tensor", "dtype", "shape", "bytes", "format"};
    ffai_tensor_info t;
    out_table table;
    out_table_begin(&table, head, "lllrl");
    for (int i = 0; ffai_model_tensor_at(m, (size_t)i, &t); i++) {
        char shape[200];
        shape_text(shape, sizeof shape, &t);
        out_cell(&table, i, 0, "%s", t.name);
        out_cell(&table, i, 1, "%s", t.dtype);
        out_cell(&table, i, 2, "%s", shape);
        out_cell(&table, i, 3, "%lld", (long long)t.bytes);
        out_cell(&table, i, 4, "%s", t.used ? t.format : "not used");
    }
    putchar('\n');
    return out_table_end(&table, stdout) ? 0 : cli_fail(o, "out of memory");
}

int inspect_tensors(const cli_opts *o, ffai_model *m) {
    ffai_model_info in;
    ffai_tensor_info t;
    ffai_model_get_info(m, &in);
    if (cli_has(o, OPT_TENSORS)) return print_all(o, m);
    row *r = (row *)calloc((size_t)in.n_tensor + 1, sizeof *r);
    size_t n = 0, left = 0;
    bool ok = r != NULL;
    for (; ok && n < (size_t)in.n_tensor && ffai_model_tensor_at(m, n, &t); n += ok) ok = make_row(&r[n], &t, n);
    if (ok) {
        qsort(r, n, sizeof *r, by_key);
        left = n = merge(r, n);
        qsort(r, n, sizeof *r, by_index);
    }
    int rc = ok ? print_groups(o, m, r, left) : cli_fail(o, "out of memory");
    for (size_t i = 0; i < n; i++) free(r[i].key);
    free(r);
    return rc;
}
