/* NumPy .npy: the header is a Python dict in text, padded so that the data begin at a multiple of 64. Only the plain
 * form that NumPy itself writes is read. */
#include "io/npy.h"
#include "base/alloc.h"
#include "base/map.h"
#include "io/npy_head.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *descr;
    fa_dtype dtype;
} types[] = {{"<f4", FA_F32}, {"<f8", FA_F64}, {"<i4", FA_I32}, {"<i8", FA_I64}};

static int value_bytes(fa_dtype t) { return t == FA_F32 || t == FA_I32 ? 4 : 8; }

/* ---- reading ---- */

typedef struct scan {
    const char *p, *end;
} scan;

static void blanks(scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n')) s->p++;
}

static bool eat(scan *s, const char *text) {
    size_t n = strlen(text);
    blanks(s);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, text, n) != 0) return false;
    s->p += n;
    return true;
}

/* A quoted word without escapes; NULL when there is none. */
static const char *word(scan *s, size_t *len) {
    blanks(s);
    if (s->p >= s->end || (*s->p != '\'' && *s->p != '"')) return NULL;
    char quote = *s->p++;
    const char *begin = s->p;
    while (s->p < s->end && *s->p != quote && *s->p != '\\') s->p++;
    if (s->p >= s->end || *s->p != quote) return NULL;
    *len = (size_t)(s->p++ - begin);
    return begin;
}

static bool integer(scan *s, int64_t *v) {
    blanks(s);
    const char *begin = s->p;
    *v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, *s->p - '0', v)) return false;
    return s->p > begin;
}

/* "(2, 3)", "(7,)", "()" */
static bool shape(scan *s, fa_npy *a) {
    a->n_dim = 0;
    if (!eat(s, "(")) return false;
    while (!eat(s, ")")) {
        if (a->n_dim == FA_NPY_MAX_DIM || !integer(s, &a->dim[a->n_dim])) return false;
        a->n_dim++;
        if (!eat(s, ",")) return eat(s, ")");
    }
    return true;
}

enum { HAS_DESCR = 1, HAS_ORDER = 2, HAS_SHAPE = 4 };

/* The dict; *fortran as it says. Returns why it cannot be read, or NULL. */
static const char *dict(scan *s, fa_npy *a, bool *fortran) {
    int has = 0;
    if (!eat(s, "{")) return "the header is not a dict";
    while (!eat(s, "}")) {
        size_t n = 0, k = 0;
        const char *key = word(s, &n);
        if (!key || !eat(s, ":")) return "the header is malformed";
        if (n == 5 && memcmp(key, "descr", 5) == 0) {
            const char *d = word(s, &n);
            while (d && k < 4 && !(n == 3 && memcmp(d, types[k].descr, 3) == 0)) k++;
            if (!d || k == 4) return "the element type is none of <f4 <f8 <i4 <i8";
            a->dtype = types[k].dtype;
            has |= HAS_DESCR;
        } else if (n == 13 && memcmp(key, "fortran_order", 13) == 0) {
            *fortran = eat(s, "True");
            if (!*fortran && !eat(s, "False")) return "fortran_order is no truth value";
            has |= HAS_ORDER;
        } else if (n == 5 && memcmp(key, "shape", 5) == 0) {
            if (!shape(s, a)) return "the shape is malformed, or has more than 8 dimensions";
            has |= HAS_SHAPE;
        } else {
            return "the header has an unknown key";
        }
        if (!eat(s, ",")) {
            if (!eat(s, "}")) return "the header is malformed";
            break;
        }
    }
    blanks(s);
    if (s->p != s->end) return "the header is malformed";
    return has == (HAS_DESCR | HAS_ORDER | HAS_SHAPE) ? NULL : "the header lacks descr, fortran_order or shape";
}

int fa_npy_parse(fa_npy *a, const uint8_t *data, size_t size, const char *what, fa_error *err) {
    bool fortran = false, overflow = false, zero = false;
    size_t head = 10, len;
    memset(a, 0, sizeof *a);
    if (size < 12 || memcmp(data, "\x93NUMPY", 6) != 0) return fa_fail(err, FFAI_EFORMAT, "%s: not a .npy file", what);
    if (data[6] < 1 || data[6] > 3) return fa_fail(err, FFAI_ENOTSUP, "%s: .npy version %d", what, data[6]);
    len = data[8] | (size_t)data[9] << 8;
    if (data[6] > 1) {
        len |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
        head = 12;
    }
    if (len > size - head)
        return fa_fail(err, FFAI_EFORMAT, "%s: a header of %zu bytes in a file of %zu", what, len, size);
    scan s = {(const char *)data + head, (const char *)data + head + len};
    const char *why = dict(&s, a, &fortran);
    if (why) return fa_fail(err, FFAI_EFORMAT, "%s: %s", what, why);
    int64_t bytes = value_bytes(a->dtype);
    for (int i = 0; i < a->n_dim; i++) {
        zero |= a->dim[i] == 0;
        overflow |= __builtin_mul_overflow(bytes, a->dim[i] ? a->dim[i] : 1, &bytes);
    }
    if (overflow) return fa_fail(err, FFAI_EFORMAT, "%s: the shape overflows", what);
    if (fortran && a->n_dim > 1) return fa_fail(err, FFAI_ENOTSUP, "%s: Fortran order", what);
    if (zero) bytes = 0;
    size_t room = size - head - len;
    if ((uint64_t)bytes != room)
        return fa_fail(err, FFAI_EFORMAT, "%s: %zu bytes of data, the shape needs %lld", what, room, (long long)bytes);
    a->n = bytes / value_bytes(a->dtype);
    a->data = data + head + len;
    return FFAI_OK;
}

int fa_npy_read(fa_npy *a, const char *path, fa_error *err) {
    char *bytes;
    size_t size;
    memset(a, 0, sizeof *a);
    int rc = fa_read_file(&bytes, &size, path, (size_t)1 << 36, err);
    if (rc) return rc;
    rc = fa_npy_parse(a, (const uint8_t *)bytes, size, path, err);
    if (rc)
        fa_free(bytes);
    else
        a->owned = bytes;
    return rc;
}

void fa_npy_free(fa_npy *a) {
    fa_free(a->owned);
    memset(a, 0, sizeof *a);
}

double fa_npy_num(const fa_npy *a, int64_t i) {
    float f;
    double d;
    switch (a->dtype) {
    case FA_F32: memcpy(&f, a->data + i * 4, 4); return (double)f;
    case FA_F64: memcpy(&d, a->data + i * 8, 8); return d;
    default: return (double)fa_npy_int(a, i);
    }
}

int64_t fa_npy_int(const fa_npy *a, int64_t i) {
    int32_t v32;
    int64_t v64;
    if (a->dtype == FA_I32) return memcpy(&v32, a->data + i * 4, 4), v32;
    if (a->dtype == FA_I64) return memcpy(&v64, a->data + i * 8, 8), v64;
    double d = fa_npy_num(a, i);
    if (isnan(d)) return 0;
    return d >= 0x1p63 ? INT64_MAX : d < -0x1p63 ? INT64_MIN : (int64_t)d;
}

/* ---- writing ---- */

int fa_npy_header(fa_buf *b, fa_dtype dtype, int n_dim, const int64_t *dim, int64_t *bytes) {
    size_t begin = b->len;
    if ((dtype != FA_F32 && dtype != FA_I32) || n_dim < 0 || n_dim > FA_NPY_MAX_DIM) return FFAI_EINVAL;
    *bytes = 4;
    for (int i = 0; i < n_dim; i++)
        if (dim[i] < 0 || __builtin_mul_overflow(*bytes, dim[i], bytes)) return FFAI_EINVAL;
    fa_buf_add(b, "\x93NUMPY\x01\x00\x00\x00", 10);
    fa_buf_printf(b, "{'descr': '%s', 'fortran_order': False, 'shape': (", dtype == FA_F32 ? "<f4" : "<i4");
    for (int i = 0; i < n_dim; i++)
        fa_buf_printf(b, "%lld%s", (long long)dim[i], i + 1 < n_dim ? ", " : n_dim == 1 ? "," : "");
    fa_buf_puts(b, "), }");
    while (!b->failed && (b->len - begin + 1) % 64) fa_buf_puts(b, " ");
    fa_buf_puts(b, "\n");
    if (b->failed) return FFAI_ENOMEM;
    size_t len = b->len - begin - 10;
    b->data[begin + 8] = (char)(len & 0xFF);
    b->data[begin + 9] = (char)(len >> 8);
    return FFAI_OK;
}

struct fa_npy_writer {
    FILE *f;
    char *path;
    int64_t left; /* values still to come */
};

void fa_npy_abort(fa_npy_writer *w) {
    if (!w) return;
    if (w->f) fclose(w->f);
    fa_free(w->path);
    fa_free(w);
}

static int cannot_write(fa_npy_writer *w, fa_error *err) {
    int rc = fa_fail(err, FFAI_EIO, "%s: cannot write: %s", w->path, strerror(errno));
    fa_npy_abort(w);
    return rc;
}

int fa_npy_begin(fa_npy_writer **out, const char *path, fa_dtype dtype, int n_dim, const int64_t *dim, fa_error *err) {
    fa_buf head = {0};
    int64_t bytes;
    *out = NULL;
    int rc = fa_npy_header(&head, dtype, n_dim, dim, &bytes);
    fa_npy_writer *w = rc ? NULL : FA_NEW(fa_npy_writer);
    if (!w || !(w->path = fa_strdup(path))) {
        fa_buf_free(&head);
        fa_npy_abort(w);
        return fa_fail(err, rc ? rc : FFAI_ENOMEM, "%s: %s", path,
                       rc == FFAI_EINVAL ? "no array that can be written" : "no memory");
    }
    w->left = bytes / 4;
    w->f = fopen(path, "wb");
    bool ok = w->f && fwrite(head.data, 1, head.len, w->f) == head.len;
    fa_buf_free(&head);
    if (!ok) return cannot_write(w, err);
    *out = w;
    return FFAI_OK;
}

int fa_npy_put(fa_npy_writer *w, const void *data, int64_t n, fa_error *err) {
    if (n < 0 || n > w->left) {
        int rc =
            fa_fail(err, FFAI_EINTERNAL, "%s: %lld values, %lld were due", w->path, (long long)n, (long long)w->left);
        fa_npy_abort(w);
        return rc;
    }
    if (n && fwrite(data, 4, (size_t)n, w->f) != (size_t)n) return cannot_write(w, err);
    w->left -= n;
    return FFAI_OK;
}

int fa_npy_end(fa_npy_writer *w, fa_error *err) {
    if (w->left) {
        int rc = fa_fail(err, FFAI_EINTERNAL, "%s: %lld values are missing", w->path, (long long)w->left);
        fa_npy_abort(w);
        return rc;
    }
    FILE *f = w->f;
    w->f = NULL;
    if (fclose(f) != 0) return cannot_write(w, err);
    fa_npy_abort(w);
    return FFAI_OK;
}

int fa_npy_write(const char *path, fa_dtype dtype, int n_dim, const int64_t *dim, const void *data, fa_error *err) {
    fa_npy_writer *w;
    int rc = fa_npy_begin(&w, path, dtype, n_dim, dim, err);
    if (!rc) rc = fa_npy_put(w, data, w->left, err);
    return rc ? rc : fa_npy_end(w, err);
}
