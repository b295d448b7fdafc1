/* The safetensors reader. */
#include "io/safetensors.h"
#include "base/alloc.h"
#include "base/map.h"
#include "base/smap.h"
#include "tensor/dtype.h"

#include <stdlib.h>
#include <string.h>

struct fa_st {
    fa_map map; /* empty for fa_st_parse */
    char *what;
    fa_json *header; /* owns the names */
    const fa_jnode *metadata;
    fa_st_tensor *tensor;
    size_t n_tensor;
    fa_smap by_name;
};

/* A tensor's place in the data area, to prove that all of them tile it. */
typedef struct span {
    size_t begin, end, index;
} span;

static const struct {
    const char *name;
    uint8_t bits;
    int8_t dtype;
} types[] = {
    {"BOOL", 8, FA_BOOL},
    {"U8", 8, FA_U8},
    {"I8", 8, FA_I8},
    {"F8_E5M2", 8, FA_F8_E5M2},
    {"F8_E4M3", 8, FA_F8_E4M3},
    {"F8_E8M0", 8, FA_F8_E8M0},
    {"I16", 16, FA_I16},
    {"U16", 16, FA_U16},
    {"F16", 16, FA_F16},
    {"BF16", 16, FA_BF16},
    {"I32", 32, FA_I32},
    {"U32", 32, FA_U32},
    {"F32", 32, FA_F32},
    {"F64", 64, FA_F64},
    {"I64", 64, FA_I64},
    {"U64", 64, FA_U64},
    {"F4", 4, -1},
    {"F6_E2M3", 6, -1},
    {"F6_E3M2", 6, -1},
    {"C64", 64, -1},
    {"F8_E4M3FNUZ", 8, -1},
    {"F8_E5M2FNUZ", 8, -1},
};

static int bad(const fa_st *s, fa_error *err, const char *name, const char *why) {
    return fa_fail(err, FFAI_EFORMAT, "%s: tensor %.200s: %s", s->what, name, why);
}

/* "shape": non-negative integers; *values is their product. */
static int read_shape(const fa_st *s, const fa_jnode *shape, fa_st_tensor *t, int64_t *values, fa_error *err) {
    if (fa_jtype_of(shape) != FA_JARR) return bad(s, err, t->name, "no \"shape\" array");
    if (fa_jlen(shape) > FA_ST_MAX_DIM)
        return fa_fail(err, FFAI_ELIMIT, "%s: tensor %.200s: %zu dimensions, the limit is %d", s->what, t->name,
                       fa_jlen(shape), FA_ST_MAX_DIM);
    *values = 1;
    bool overflow = false, zero = false;
    for (const fa_jnode *n = fa_jfirst(shape); n; n = fa_jnext(n)) {
        int64_t d = fa_jint(n, -1);
        if (fa_jtype_of(n) != FA_JINT || d < 0)
            return bad(s, err, t->name, "a dimension is not a non-negative integer");
        t->dim[t->n_dim++] = d;
        zero |= d == 0;
        overflow |= __builtin_mul_overflow(*values, d ? d : 1, values);
    }
    if (overflow) return bad(s, err, t->name, "the shape has more values than fit 64 bits");
    if (zero) *values = 0;
    return FFAI_OK;
}

static int read_type(const fa_st *s, const fa_jnode *dtype, fa_st_tensor *t, unsigned *bits, fa_error *err) {
    size_t len;
    const char *name = fa_jstr(dtype, &len);
    if (!name) return bad(s, err, t->name, "no \"dtype\" string");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(types[i].name) != len || memcmp(types[i].name, name, len) != 0) continue;
        t->type_name = types[i].name;
        t->dtype = types[i].dtype;
        *bits = types[i].bits;
        return FFAI_OK;
    }
    return fa_fail(err, FFAI_EFORMAT, "%s: tensor %.200s: unknown dtype \"%.40s\"", s->what, t->name, name);
}

/* One header entry: everything that can be said about it without the other tensors. */
static int read_tensor(const fa_st *s, const fa_jnode *n, size_t data_size, fa_st_tensor *t, span *at, fa_error *err) {
    size_t len;
    int64_t values = 0;
    uint64_t total;
    unsigned bits = 0;
    t->name = fa_jkey(n, &len);
    if (strlen(t->name) != len) return bad(s, err, t->name, "the name holds a NUL character");
    if (fa_jtype_of(n) != FA_JOBJ) return bad(s, err, t->name, "the entry is not an object");
    int rc = read_type(s, fa_jget(n, "dtype"), t, &bits, err);
    if (!rc) rc = read_shape(s, fa_jget(n, "shape"), t, &values, err);
    if (rc) return rc;
    const fa_jnode *off = fa_jget(n, "data_offsets"), *first = fa_jfirst(off), *second = fa_jnext(first);
    if (fa_jtype_of(off) != FA_JARR || fa_jlen(off) != 2 || fa_jtype_of(first) != FA_JINT ||
        fa_jtype_of(second) != FA_JINT)
        return bad(s, err, t->name, "\"data_offsets\" is not a pair of integers");
    int64_t b = fa_jint(first, -1), e = fa_jint(second, -1);
    if (b < 0 || e < b)
        return fa_fail(err, FFAI_EFORMAT, "%s: tensor %.200s: data_offsets [%lld, %lld] are not a range", s->what,
                       t->name, (long long)b, (long long)e);
    if ((uint64_t)e > data_size)
        return fa_fail(err, FFAI_EFORMAT,
                       "%s: tensor %.200s: data ends at byte %lld of a data area of %zu bytes (truncated file?)",
                       s->what, t->name, (long long)e, data_size);
    if (__builtin_mul_overflow((uint64_t)values, (uint64_t)bits, &total))
        return bad(s, err, t->name, "shape times dtype overflows 64 bits");
    if (total % 8) return bad(s, err, t->name, "the values do not fill whole bytes");
    if (total / 8 != (uint64_t)(e - b))
        return fa_fail(err, FFAI_EFORMAT, "%s: tensor %.200s: %lld bytes of data, but %s and its shape need %llu",
                       s->what, t->name, (long long)(e - b), t->type_name, (unsigned long long)(total / 8));
    t->bytes = (size_t)(e - b);
    *at = (span){(size_t)b, (size_t)e, 0};
    return FFAI_OK;
}

static int by_begin(const void *a, const void *b) {
    const span *x = (const span *)a, *y = (const span *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* The tensors must cover [0, data_size) one after the other. */
static int check_tiling(const fa_st *s, span *spans, size_t n, size_t data_size, fa_error *err) {
    qsort(spans, n, sizeof *spans, by_begin);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name = s->tensor[spans[i].index].name;
        if (spans[i].begin != at)
            return fa_fail(err, FFAI_EFORMAT, "%s: tensor %.200s: data begins at byte %zu where %zu was due (%s)",
                           s->what, name, spans[i].begin, at, spans[i].begin < at ? "overlap" : "hole");
        at = spans[i].end;
    }
    if (at != data_size)
        return fa_fail(err, FFAI_EFORMAT, "%s: %zu bytes after the last tensor", s->what, data_size - at);
    return FFAI_OK;
}

static int check_metadata(const fa_st *s, fa_error *err) {
    if (fa_jtype_of(s->metadata) != FA_JOBJ)
        return fa_fail(err, FFAI_EFORMAT, "%s: __metadata__ is not an object", s->what);
    for (const fa_jnode *n = fa_jfirst(s->metadata); n; n = fa_jnext(n))
        if (fa_jtype_of(n) != FA_JSTR)
            return fa_fail(err, FFAI_EFORMAT, "%s: __metadata__ \"%.100s\" is not a string", s->what, fa_jkey(n, NULL));
    return FFAI_OK;
}

static int read_entries(fa_st *s, const uint8_t *data, size_t data_size, span *spans, fa_error *err) {
    const fa_jnode *root = fa_json_root(s->header);
    for (const fa_jnode *n = fa_jfirst(root); n; n = fa_jnext(n)) {
        if (strcmp(fa_jkey(n, NULL), "__metadata__") == 0) {
            if (s->metadata) return fa_fail(err, FFAI_EFORMAT, "%s: __metadata__ stands twice in the header", s->what);
            s->metadata = n;
            int rc = check_metadata(s, err);
            if (rc) return rc;
            continue;
        }
        size_t i = s->n_tensor;
        fa_st_tensor *t = &s->tensor[i];
        int rc = read_tensor(s, n, data_size, t, &spans[i], err);
        if (rc) return rc;
        spans[i].index = i;
        t->data = data + spans[i].begin;
        int put = fa_smap_put(&s->by_name, t->name, strlen(t->name), (uint32_t)i);
        if (put == 0) return bad(s, err, t->name, "stands twice in the header");
        if (put < 0) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tensor index", s->what);
        s->n_tensor++;
    }
    return check_tiling(s, spans, s->n_tensor, data_size, err);
}

static int parse(fa_st *s, const uint8_t *data, size_t size, fa_error *err) {
    uint64_t n = 0;
    if (size < 8) return fa_fail(err, FFAI_EFORMAT, "%s: %zu bytes, too short for a safetensors file", s->what, size);
    for (int i = 7; i >= 0; i--) n = n << 8 | data[i];
    if (n > FA_ST_MAX_HEADER)
        return fa_fail(err, FFAI_EFORMAT, "%s: header length %llu, the limit is %d", s->what, (unsigned long long)n,
                       FA_ST_MAX_HEADER);
    if (n > size - 8)
        return fa_fail(err, FFAI_EFORMAT, "%s: header length %llu in a file of %zu bytes (truncated file?)", s->what,
                       (unsigned long long)n, size);
    if (n < 2 || data[8] != '{') return fa_fail(err, FFAI_EFORMAT, "%s: the header does not begin with '{'", s->what);
    int rc = fa_json_parse(&s->header, (const char *)data + 8, (size_t)n, s->what, err);
    if (rc) return rc;
    size_t count = fa_jlen(fa_json_root(s->header)); /* __metadata__ may be one too many */
    span *spans = FA_NEWN(span, count);
    s->tensor = FA_NEWN(fa_st_tensor, count);
    if (spans && s->tensor && fa_smap_reserve(&s->by_name, count))
        rc = read_entries(s, data + 8 + n, size - 8 - (size_t)n, spans, err);
    else
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", s->what, count);
    fa_free(spans);
    return rc;
}

int fa_st_parse(fa_st **out, const uint8_t *data, size_t size, const char *what, fa_error *err) {
    *out = NULL;
    fa_st *s = FA_NEW(fa_st);
    if (!s || !(s->what = fa_strdup(what))) {
        fa_st_free(s);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    }
    int rc = parse(s, data, size, err);
    if (rc) {
        fa_st_free(s);
        return rc;
    }
    *out = s;
    return FFAI_OK;
}

int fa_st_open(fa_st **out, const char *path, fa_error *err) {
    fa_map m;
    *out = NULL;
    int rc = fa_map_open(&m, path, err);
    if (rc) return rc;
    rc = fa_st_parse(out, m.data, m.size, path, err);
    if (rc)
        fa_map_close(&m);
    else
        (*out)->map = m;
    return rc;
}

void fa_st_free(fa_st *s) {
    if (!s) return;
    fa_smap_free(&s->by_name);
    fa_free(s->tensor);
    fa_json_free(s->header);
    fa_free(s->what);
    fa_map_close(&s->map);
    fa_free(s);
}

size_t fa_st_count(const fa_st *s) { return s ? s->n_tensor : 0; }
const fa_st_tensor *fa_st_at(const fa_st *s, size_t i) { return i < fa_st_count(s) ? &s->tensor[i] : NULL; }
const fa_jnode *fa_st_metadata(const fa_st *s) { return s ? s->metadata : NULL; }
const char *fa_st_what(const fa_st *s) { return s ? s->what : NULL; }
const fa_map *fa_st_map(const fa_st *s) { return &s->map; }

const fa_st_tensor *fa_st_find(const fa_st *s, const char *name) {
    uint32_t i;
    return s && fa_smap_get(&s->by_name, name, strlen(name), &i) ? &s->tensor[i] : NULL;
}
