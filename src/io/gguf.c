/* The GGUF reader: one pass over the header with a bounded cursor. Counts are believed only as far as the bytes that
 * are left could hold them, and tables grow with what was really read. */
#include "io/gguf.h"
#include "base/alloc.h"
#include "base/map.h"
#include "base/smap.h"

#include <stdlib.h>
#include <string.h>

struct fa_gguf {
    fa_map map; /* empty for fa_gguf_parse */
    char *what;
    fa_gguf_value *kv;
    size_t n_kv, cap_kv;
    fa_gguf_tensor *tensor;
    size_t n_tensor, cap_tensor;
    uint64_t *offset; /* per tensor, until the data area is known */
    size_t cap_offset;
    fa_smap by_key, by_name;
};

/* The unread rest of the header. Once anything failed, `failed` stays set and the error is filled. */
typedef struct cursor {
    const uint8_t *p, *end;
    const char *what;
    fa_error *err;
} cursor;

enum {
    MAX_NAME = 65535, /* bytes in a key or tensor name (the format's limit for keys) */
    MAX_ALIGN = 1 << 20,
    MIN_KV_BYTES = 8 + 4 + 1, /* key length, type, the smallest value */
    MIN_TENSOR_BYTES = 8 + 4 + 4 + 8,
    MAX_ENTRIES = 1 << 24
};

static const uint8_t scalar_bytes[] = {
    [FA_GGUF_U8] = 1,  [FA_GGUF_I8] = 1,  [FA_GGUF_U16] = 2,  [FA_GGUF_I16] = 2, [FA_GGUF_U32] = 4,
    [FA_GGUF_I32] = 4, [FA_GGUF_F32] = 4, [FA_GGUF_BOOL] = 1, [FA_GGUF_STR] = 0, [FA_GGUF_ARR] = 0,
    [FA_GGUF_U64] = 8, [FA_GGUF_I64] = 8, [FA_GGUF_F64] = 8,
};

static size_t left(const cursor *c) { return (size_t)(c->end - c->p); }

static int truncated(cursor *c, const char *where) {
    return fa_fail(c->err, FFAI_EFORMAT, "%s: the header ends inside %.200s (truncated file?)", c->what, where);
}

static uint64_t load_le(const uint8_t *p, int n) {
    uint64_t v = 0;
    while (n-- > 0) v = v << 8 | p[n];
    return v;
}

static int take_u32(cursor *c, uint32_t *v, const char *where) {
    if (left(c) < 4) return truncated(c, where);
    *v = (uint32_t)load_le(c->p, 4);
    c->p += 4;
    return FFAI_OK;
}

static int take_u64(cursor *c, uint64_t *v, const char *where) {
    if (left(c) < 8) return truncated(c, where);
    *v = load_le(c->p, 8);
    c->p += 8;
    return FFAI_OK;
}

/* A string in place. */
static int take_str(cursor *c, const uint8_t **s, uint64_t *n, const char *where) {
    int rc = take_u64(c, n, where);
    if (rc) return rc;
    if (*n > left(c))
        return fa_fail(c->err, FFAI_EFORMAT, "%s: %.200s: a string of %llu bytes with %zu bytes left in the file",
                       c->what, where, (unsigned long long)*n, left(c));
    *s = c->p;
    c->p += *n;
    return FFAI_OK;
}

/* A key or tensor name: copied, NUL-terminated, without inner NUL. */
static int take_name(cursor *c, char **name, const char *where) {
    const uint8_t *s = NULL;
    uint64_t n = 0;
    *name = NULL;
    int rc = take_str(c, &s, &n, where);
    if (rc) return rc;
    if (n == 0 || n > MAX_NAME || memchr(s, 0, (size_t)n))
        return fa_fail(c->err, FFAI_EFORMAT, "%s: %s: a name of %llu bytes, or with a NUL in it", c->what, where,
                       (unsigned long long)n);
    if (!(*name = fa_strndup((const char *)s, (size_t)n)))
        return fa_fail(c->err, FFAI_ENOMEM, "%s: no memory", c->what);
    return FFAI_OK;
}

static double scalar_num(fa_gguf_type t, const uint8_t *p, int64_t *i, bool *fits) {
    uint64_t u = load_le(p, scalar_bytes[t]);
    float f;
    double d;
    uint32_t u32 = (uint32_t)u;
    *fits = true;
    *i = 0;
    switch (t) {
    case FA_GGUF_F32: memcpy(&f, &u32, 4); return (double)f;
    case FA_GGUF_F64: memcpy(&d, &u, 8); return d;
    case FA_GGUF_I8: *i = (int8_t)u; break;
    case FA_GGUF_I16: *i = (int16_t)u; break;
    case FA_GGUF_I32: *i = (int32_t)u32; break;
    case FA_GGUF_BOOL: *i = u != 0; break;
    case FA_GGUF_U64:
        *fits = u <= INT64_MAX;
        *i = (int64_t)u;
        return (double)u;
    default: *i = (int64_t)u; break;
    }
    return (double)*i;
}

static int take_array(cursor *c, fa_gguf_value *v) {
    uint32_t elem = 0;
    int rc = take_u32(c, &elem, v->key);
    if (!rc) rc = take_u64(c, &v->n, v->key);
    if (rc) return rc;
    if (elem == FA_GGUF_ARR)
        return fa_fail(c->err, FFAI_ENOTSUP, "%s: key %.200s: an array of arrays", c->what, v->key);
    if (elem > FA_GGUF_F64)
        return fa_fail(c->err, FFAI_EFORMAT, "%s: key %.200s: array of unknown type %u", c->what, v->key, elem);
    v->elem = (fa_gguf_type)elem;
    v->data = c->p;
    size_t min = elem == FA_GGUF_STR ? 8 : scalar_bytes[elem];
    if (v->n > left(c) / min)
        return fa_fail(c->err, FFAI_EFORMAT,
                       "%s: key %.200s: an array of %llu elements with %zu bytes left in the file", c->what, v->key,
                       (unsigned long long)v->n, left(c));
    if (elem != FA_GGUF_STR) c->p += v->n * min;
    for (uint64_t i = 0; elem == FA_GGUF_STR && i < v->n; i++) {
        const uint8_t *s = NULL;
        uint64_t n = 0;
        if ((rc = take_str(c, &s, &n, v->key)) != 0) return rc;
    }
    v->i = (int64_t)(c->p - v->data);
    return FFAI_OK;
}

static int take_value(cursor *c, fa_gguf_value *v) {
    uint32_t type = 0;
    int rc = take_u32(c, &type, v->key);
    if (rc) return rc;
    if (type > FA_GGUF_F64)
        return fa_fail(c->err, FFAI_EFORMAT, "%s: key %.200s: unknown type %u", c->what, v->key, type);
    v->type = (fa_gguf_type)type;
    if (type == FA_GGUF_STR) return take_str(c, &v->data, &v->n, v->key);
    if (type == FA_GGUF_ARR) return take_array(c, v);
    bool fits;
    if (left(c) < scalar_bytes[type]) return truncated(c, v->key);
    v->f = scalar_num(v->type, c->p, &v->i, &fits);
    c->p += scalar_bytes[type];
    if (!fits)
        return fa_fail(c->err, FFAI_EFORMAT, "%s: key %.200s: %.0f does not fit a signed 64-bit integer", c->what,
                       v->key, v->f);
    return FFAI_OK;
}

/* The table with room for one more entry; NULL (and the table unchanged) when out of memory. */
static void *grown(void *table, size_t *cap, size_t n, size_t entry) {
    if (n < *cap) return table;
    size_t want = *cap ? *cap * 2 : 64;
    void *p = fa_realloc(table, want, entry);
    if (p) *cap = want;
    return p;
}

static int take_kv(fa_gguf *g, cursor *c) {
    char *key;
    int rc = take_name(c, &key, "a metadata key");
    if (rc) return rc;
    fa_gguf_value *table = (fa_gguf_value *)grown(g->kv, &g->cap_kv, g->n_kv, sizeof *g->kv);
    if (!table) {
        fa_free(key);
        return fa_fail(c->err, FFAI_ENOMEM, "%s: no memory for the metadata", c->what);
    }
    g->kv = table;
    fa_gguf_value *v = &g->kv[g->n_kv++]; /* from here on freed with g */
    memset(v, 0, sizeof *v);
    v->key = key;
    int put = fa_smap_put(&g->by_key, key, strlen(key), (uint32_t)(g->n_kv - 1));
    if (put == 0) return fa_fail(c->err, FFAI_EFORMAT, "%s: key %.200s stands twice in the metadata", c->what, key);
    if (put < 0) return fa_fail(c->err, FFAI_ENOMEM, "%s: no memory for the metadata", c->what);
    return take_value(c, v);
}

/* Dimensions, outermost first in t->dim; *bytes is what the data take. */
static int take_dims(cursor *c, fa_gguf_tensor *t, uint64_t dims[4], uint32_t n_dim) {
    if (n_dim > 4)
        return fa_fail(c->err, FFAI_EFORMAT, "%s: tensor %.200s: %u dimensions, the limit is 4", c->what, t->name,
                       n_dim);
    t->n_dim = (uint8_t)n_dim;
    for (int i = 0; i < 4; i++) t->dim[i] = 1;
    for (uint32_t i = 0; i < n_dim; i++) {
        int rc = take_u64(c, &dims[i], t->name);
        if (rc) return rc;
        if (dims[i] > INT64_MAX)
            return fa_fail(c->err, FFAI_EFORMAT, "%s: tensor %.200s: dimension %llu", c->what, t->name,
                           (unsigned long long)dims[i]);
        t->dim[n_dim - 1 - i] = (int64_t)dims[i];
    }
    return FFAI_OK;
}

static int size_tensor(cursor *c, fa_gguf_tensor *t) {
    int values, bytes;
    uint64_t total = 1, inner = t->n_dim ? (uint64_t)t->dim[t->n_dim - 1] : 1;
    if (!fa_ggml_type_block(t->type, &values, &bytes))
        return fa_fail(c->err, FFAI_ENOTSUP,
                       "%s: tensor %.200s: ggml type %u is unknown or was removed from the format", c->what, t->name,
                       t->type);
    if (inner % (uint64_t)values)
        return fa_fail(c->err, FFAI_EFORMAT,
                       "%s: tensor %.200s: rows of %llu values are no multiple of %s blocks of %d", c->what, t->name,
                       (unsigned long long)inner, fa_ggml_type_name(t->type), values);
    /* outer dims times blocks per row times bytes per block; a zero dimension wins over an overflow elsewhere */
    bool overflow = __builtin_mul_overflow(inner / (uint64_t)values, (uint64_t)bytes, &total), zero = inner == 0;
    for (int i = 0; i + 1 < t->n_dim; i++) {
        zero |= t->dim[i] == 0;
        overflow |= __builtin_mul_overflow(total, (uint64_t)t->dim[i], &total);
    }
    if (!zero && (overflow || total > SIZE_MAX / 2))
        return fa_fail(c->err, FFAI_EFORMAT, "%s: tensor %.200s: its size overflows", c->what, t->name);
    t->bytes = zero ? 0 : (size_t)total;
    return FFAI_OK;
}

static int take_tensor(fa_gguf *g, cursor *c) {
    char *name;
    uint32_t n_dim = 0;
    uint64_t dims[4] = {0};
    int rc = take_name(c, &name, "a tensor name");
    if (rc) return rc;
    uint64_t *offset = (uint64_t *)grown(g->offset, &g->cap_offset, g->n_tensor, sizeof *g->offset);
    if (offset) g->offset = offset;
    fa_gguf_tensor *table = (fa_gguf_tensor *)grown(g->tensor, &g->cap_tensor, g->n_tensor, sizeof *g->tensor);
    if (table) g->tensor = table;
    if (!offset || !table) {
        fa_free(name);
        return fa_fail(c->err, FFAI_ENOMEM, "%s: no memory for the tensor table", c->what);
    }
    fa_gguf_tensor *t = &g->tensor[g->n_tensor++]; /* from here on freed with g */
    memset(t, 0, sizeof *t);
    t->name = name;
    int put = fa_smap_put(&g->by_name, name, strlen(name), (uint32_t)(g->n_tensor - 1));
    if (put == 0) return fa_fail(c->err, FFAI_EFORMAT, "%s: tensor %.200s stands twice", c->what, name);
    if (put < 0) return fa_fail(c->err, FFAI_ENOMEM, "%s: no memory for the tensor table", c->what);
    rc = take_u32(c, &n_dim, name);
    if (!rc) rc = take_dims(c, t, dims, n_dim);
    if (!rc) rc = take_u32(c, &t->type, name);
    if (!rc) rc = take_u64(c, &g->offset[g->n_tensor - 1], name);
    return rc ? rc : size_tensor(c, t);
}

static int alignment(const fa_gguf *g, cursor *c, uint64_t *align) {
    const fa_gguf_value *v = fa_gguf_find(g, "general.alignment");
    *align = 32;
    if (!v) return FFAI_OK;
    bool integer = v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR && v->type != FA_GGUF_F32 &&
                   v->type != FA_GGUF_F64 && v->type != FA_GGUF_BOOL;
    if (!integer || v->i <= 0 || v->i > MAX_ALIGN || (v->i & (v->i - 1)))
        return fa_fail(c->err, FFAI_EFORMAT, "%s: key general.alignment: %lld is not a power of two up to %d", c->what,
                       (long long)v->i, MAX_ALIGN);
    *align = (uint64_t)v->i;
    return FFAI_OK;
}

typedef struct span {
    uint64_t begin, end;
    size_t index;
} span;

static int by_begin(const void *a, const void *b) {
    const span *x = (const span *)a, *y = (const span *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int check_overlap(const fa_gguf *g, cursor *c) {
    span *s = FA_NEWN(span, g->n_tensor);
    if (!s) return fa_fail(c->err, FFAI_ENOMEM, "%s: no memory for the tensor table", c->what);
    for (size_t i = 0; i < g->n_tensor; i++) s[i] = (span){g->offset[i], g->offset[i] + g->tensor[i].bytes, i};
    qsort(s, g->n_tensor, sizeof *s, by_begin);
    int rc = FFAI_OK;
    for (size_t i = 1; i < g->n_tensor && !rc; i++)
        if (s[i].begin < s[i - 1].end)
            rc = fa_fail(c->err, FFAI_EFORMAT, "%s: tensors %.150s and %.150s overlap", c->what,
                         g->tensor[s[i - 1].index].name, g->tensor[s[i].index].name);
    fa_free(s);
    return rc;
}

/* The header is read; places the tensors in [base, base + size). */
static int place_tensors(fa_gguf *g, cursor *c, const uint8_t *base, size_t size) {
    uint64_t align;
    int rc = alignment(g, c, &align);
    if (rc) return rc;
    size_t head = (size_t)(c->p - base), pad = (align - head % align) % align;
    size_t room = size - head >= pad ? size - head - pad : 0;
    for (size_t i = 0; i < g->n_tensor; i++) {
        fa_gguf_tensor *t = &g->tensor[i];
        if (g->offset[i] % align)
            return fa_fail(c->err, FFAI_EFORMAT, "%s: tensor %.200s: offset %llu is no multiple of the alignment %llu",
                           c->what, t->name, (unsigned long long)g->offset[i], (unsigned long long)align);
        if (g->offset[i] > room || t->bytes > room - g->offset[i])
            return fa_fail(c->err, FFAI_EFORMAT,
                           "%s: tensor %.200s: %zu bytes at offset %llu of a data area of %zu bytes (truncated file?)",
                           c->what, t->name, t->bytes, (unsigned long long)g->offset[i], room);
        t->data = t->bytes ? c->p + pad + g->offset[i] : c->p;
    }
    return check_overlap(g, c);
}

static int parse(fa_gguf *g, const uint8_t *data, size_t size, fa_error *err) {
    uint32_t version = 0;
    uint64_t n_tensor = 0, n_kv = 0;
    if (size < 4 || memcmp(data, "GGUF", 4) != 0) return fa_fail(err, FFAI_EFORMAT, "%s: not a GGUF file", g->what);
    cursor c = {data + 4, data + size, g->what, err};
    int rc = take_u32(&c, &version, "the file header");
    if (rc) return rc;
    if (version != 2 && version != 3)
        return fa_fail(err, FFAI_ENOTSUP, "%s: GGUF version %u%s; 2 and 3 are read", g->what, version,
                       version & 0xFFFF ? "" : " (big-endian file)");
    if ((rc = take_u64(&c, &n_tensor, "the file header")) != 0 || (rc = take_u64(&c, &n_kv, "the file header")) != 0)
        return rc;
    if (n_kv > left(&c) / MIN_KV_BYTES || n_kv > MAX_ENTRIES)
        return fa_fail(err, FFAI_EFORMAT, "%s: claims %llu metadata keys in %zu bytes", g->what,
                       (unsigned long long)n_kv, size);
    if (n_tensor > left(&c) / MIN_TENSOR_BYTES || n_tensor > MAX_ENTRIES)
        return fa_fail(err, FFAI_EFORMAT, "%s: claims %llu tensors in %zu bytes", g->what, (unsigned long long)n_tensor,
                       size);
    for (uint64_t i = 0; i < n_kv && !rc; i++) rc = take_kv(g, &c);
    for (uint64_t i = 0; i < n_tensor && !rc; i++) rc = take_tensor(g, &c);
    if (!rc) rc = place_tensors(g, &c, data, size);
    fa_free(g->offset);
    g->offset = NULL;
    return rc;
}

int fa_gguf_parse(fa_gguf **out, const uint8_t *data, size_t size, const char *what, fa_error *err) {
    *out = NULL;
    fa_gguf *g = FA_NEW(fa_gguf);
    if (!g || !(g->what = fa_strdup(what))) {
        fa_gguf_free(g);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    }
    int rc = parse(g, data, size, err);
    if (rc) {
        fa_gguf_free(g);
        return rc;
    }
    *out = g;
    return FFAI_OK;
}

int fa_gguf_open(fa_gguf **out, const char *path, fa_error *err) {
    fa_map m;
    *out = NULL;
    int rc = fa_map_open(&m, path, err);
    if (rc) return rc;
    rc = fa_gguf_parse(out, m.data, m.size, path, err);
    if (rc)
        fa_map_close(&m);
    else
        (*out)->map = m;
    return rc;
}

void fa_gguf_free(fa_gguf *g) {
    if (!g) return;
    for (size_t i = 0; i < g->n_kv; i++) fa_free((char *)(uintptr_t)g->kv[i].key);
    for (size_t i = 0; i < g->n_tensor; i++) fa_free((char *)(uintptr_t)g->tensor[i].name);
    fa_smap_free(&g->by_key);
    fa_smap_free(&g->by_name);
    fa_free(g->kv);
    fa_free(g->tensor);
    fa_free(g->offset);
    fa_free(g->what);
    fa_map_close(&g->map);
    fa_free(g);
}

const fa_map *fa_gguf_map(const fa_gguf *g) { return &g->map; }

size_t fa_gguf_n_tensor(const fa_gguf *g) { return g ? g->n_tensor : 0; }
const fa_gguf_tensor *fa_gguf_tensor_at(const fa_gguf *g, size_t i) {
    return i < fa_gguf_n_tensor(g) ? &g->tensor[i] : NULL;
}
size_t fa_gguf_n_kv(const fa_gguf *g) { return g ? g->n_kv : 0; }
const fa_gguf_value *fa_gguf_kv_at(const fa_gguf *g, size_t i) { return i < fa_gguf_n_kv(g) ? &g->kv[i] : NULL; }

const fa_gguf_value *fa_gguf_find(const fa_gguf *g, const char *key) {
    uint32_t i;
    return g && fa_smap_get(&g->by_key, key, strlen(key), &i) ? &g->kv[i] : NULL;
}

bool fa_gguf_next_str(const fa_gguf_value *v, size_t *pos, const char **s, size_t *len) {
    if (!v || v->type != FA_GGUF_ARR || v->elem != FA_GGUF_STR || *pos >= (size_t)v->i) return false;
    const uint8_t *p = v->data + *pos;
    *len = (size_t)load_le(p, 8);
    *s = (const char *)p + 8;
    *pos += 8 + *len;
    return true;
}

double fa_gguf_num_at(const fa_gguf_value *v, uint64_t i) {
    int64_t integer;
    bool fits;
    if (!v || v->type != FA_GGUF_ARR || v->elem == FA_GGUF_STR || i >= v->n) return 0;
    return scalar_num(v->elem, v->data + i * scalar_bytes[v->elem], &integer, &fits);
}
