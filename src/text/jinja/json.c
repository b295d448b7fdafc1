/* JSON as Python's json module reads and writes it: numbers keep their kind, large integers their digits, the last of
 * equal keys wins; tojson is json.dumps with ensure_ascii, indent, separators and sort_keys. */
#include "base/utf8.h"
#include "text/jinja/int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

enum { JSON_DEPTH = 256 };

typedef struct reader {
    fa_jj *m;
    const char *p, *at, *end, *what;
    int depth;
} reader;

_Noreturn static void bad(reader *r, const char *why) {
    size_t line = 1, col = 1;
    for (const char *p = r->p; p < r->at && p < r->end; p++) {
        col = *p == '\n' ? 1 : col + 1;
        line += *p == '\n';
    }
    r->m->what = NULL;
    fa_jj_fail(r->m, FFAI_EFORMAT, "%s: line %zu, column %zu: %s", r->what, line, col, why);
}

static void space(reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')) r->at++;
}

static unsigned hex4(reader *r, const char *p) {
    unsigned v = 0;
    if (r->end - p < 4) bad(r, "invalid \\u escape");
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                            : 16;
        if (d == 16) bad(r, "invalid \\u escape");
        v = v * 16 + d;
    }
    return v;
}

/* \uXXXX at p (behind the u), a pair too; a lone surrogate becomes U+FFFD. Returns the bytes read. */
static size_t unescape_u(reader *r, const char *p, uint32_t *cp) {
    *cp = hex4(r, p);
    if (*cp >= 0xD800 && *cp < 0xDC00 && r->end - p >= 10 && p[4] == '\\' && p[5] == 'u') {
        unsigned low = hex4(r, p + 6);
        if (low >= 0xDC00 && low < 0xE000) {
            *cp = 0x10000 + ((*cp - 0xD800) << 10) + (low - 0xDC00);
            return 10;
        }
    }
    return 4;
}

/* The rest of a string with escapes or ill-formed UTF-8, from `from` on. */
static fa_jjstr *slow_string(reader *r, const char *from, const char *close) {
    static const char names[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
    char *out = (char *)fa_jj_alloc(r->m, (size_t)(close - from) * 3 + 1, 1); /* U+FFFD has three bytes */
    size_t n = 0;
    for (const char *p = from; p < close;) {
        uint32_t cp;
        if (*p != '\\') {
            p += fa_utf8_decode(p, (size_t)(close - p), &cp);
            n += (size_t)fa_utf8_encode(cp, out + n);
            continue;
        }
        const char *k = strchr(names, p[1]);
        r->at = p;
        if (p[1] == 'u') {
            p += 2 + unescape_u(r, p + 2, &cp);
            n += (size_t)fa_utf8_encode(cp, out + n);
        } else {
            if (!k || !p[1]) bad(r, "invalid escape in a string");
            out[n++] = codes[k - names];
            p += 2;
        }
    }
    return fa_jj_ref(r->m, out, n);
}

static bool plain_utf8(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        if ((unsigned char)s[i] < 0x80) {
            i++;
            continue;
        }
        size_t len = (size_t)fa_utf8_decode(s + i, n - i, &cp);
        if (cp == 0xFFFD && (len != 3 || (unsigned char)s[i] != 0xEF)) return false;
        i += len;
    }
    return true;
}

/* Strings without escapes share the text, which outlives the machine's work. */
static fa_jjstr *string(reader *r) {
    const char *from = ++r->at, *p = from;
    bool escaped = false;
    for (;; p++) {
        if (p >= r->end) {
            r->at = p;
            bad(r, "a string does not end");
        }
        if (*p == '"') break;
        if ((unsigned char)*p < 0x20) {
            r->at = p;
            bad(r, "a control character in a string");
        }
        if (*p == '\\') {
            escaped = true;
            p++;
        }
    }
    fa_jj_step(r->m, (size_t)(p - from) / 32);
    fa_jjstr *s;
    if (escaped || !plain_utf8(from, (size_t)(p - from)))
        s = slow_string(r, from, p);
    else
        s = fa_jj_ref(r->m, from, (size_t)(p - from));
    r->at = p + 1;
    return s;
}

static fa_jjv number(reader *r) {
    const char *from = r->at, *p = from;
    bool whole = true, ok;
    p += *p == '-';
    if (r->end - p >= 8 && memcmp(p, "Infinity", 8) == 0) {
        r->at = p + 8;
        return fa_jj_float(*from == '-' ? -INFINITY : INFINITY);
    }
    const char *digits = p;
    while (p < r->end && *p >= '0' && *p <= '9') p++;
    if (p == digits || (*digits == '0' && p > digits + 1)) bad(r, "not a value");
    if (p + 1 < r->end && *p == '.' && p[1] >= '0' && p[1] <= '9') {
        whole = false;
        for (p++; p < r->end && *p >= '0' && *p <= '9'; p++) {
        }
    }
    if (p < r->end && (*p == 'e' || *p == 'E')) {
        const char *x = p + 1;
        if (x < r->end && (*x == '+' || *x == '-')) x++;
        if (x < r->end && *x >= '0' && *x <= '9') {
            whole = false;
            for (p = x; p < r->end && *p >= '0' && *p <= '9'; p++) {
            }
        }
    }
    r->at = p;
    size_t n = (size_t)(p - from);
    if (!whole) {
        double f = fa_jj_strtod(from, n, &ok);
        if (!ok) bad(r, "a number is too long");
        return fa_jj_float(f);
    }
    bool minus = *from == '-';
    int64_t v = 0;
    bool over = false;
    for (const char *q = digits; q < p && !over; q++)
        over =
            __builtin_mul_overflow(v, (int64_t)10, &v) || (minus ? __builtin_sub_overflow(v, (int64_t)(*q - '0'), &v)
                                                                 : __builtin_add_overflow(v, (int64_t)(*q - '0'), &v));
    if (!over) return fa_jj_int(v);
    if (n > 4300) bad(r, "an integer has more than 4300 digits");
    fa_jjv big = fa_jj_strv(fa_jj_ref(r->m, from, n));
    big.t = FA_JJ_BIG;
    return big;
}

static bool word(reader *r, const char *s) {
    size_t n = strlen(s);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, s, n) != 0) return false;
    r->at += n;
    return true;
}

static fa_jjv value(reader *r);

static fa_jjv object(reader *r) {
    fa_jjdict *d = fa_jj_dict(r->m, 0);
    r->at++;
    space(r);
    if (r->at < r->end && *r->at == '}') {
        r->at++;
        return fa_jj_dictv(d);
    }
    for (;;) {
        space(r);
        if (r->at >= r->end || *r->at != '"') bad(r, "a key in double quotes is expected");
        fa_jjv key = fa_jj_strv(string(r));
        space(r);
        if (!word(r, ":")) bad(r, "\":\" is expected");
        fa_jjv v = value(r);
        fa_jj_dict_set(r->m, d, key, v);
        space(r);
        if (word(r, "}")) return fa_jj_dictv(d);
        if (!word(r, ",")) bad(r, "\",\" or \"}\" is expected");
    }
}

static fa_jjv array(reader *r) {
    fa_jjlist *l = fa_jj_list(r->m, 0);
    r->at++;
    space(r);
    if (r->at < r->end && *r->at == ']') {
        r->at++;
        return fa_jj_listv(l);
    }
    for (;;) {
        fa_jj_push(r->m, l, value(r));
        space(r);
        if (word(r, "]")) return fa_jj_listv(l);
        if (!word(r, ",")) bad(r, "\",\" or \"]\" is expected");
    }
}

static fa_jjv value(reader *r) {
    fa_jjv v;
    fa_jj_step(r->m, 1);
    space(r);
    if (r->at >= r->end) bad(r, "the text ends too early");
    if (++r->depth > JSON_DEPTH) bad(r, "nested deeper than 256");
    if (*r->at == '{')
        v = object(r);
    else if (*r->at == '[')
        v = array(r);
    else if (*r->at == '"')
        v = fa_jj_strv(string(r));
    else if (word(r, "true"))
        v = fa_jj_bool(true);
    else if (word(r, "false"))
        v = fa_jj_bool(false);
    else if (word(r, "null"))
        v = fa_jj_none();
    else if (word(r, "NaN"))
        v = fa_jj_float(NAN);
    else if (*r->at == '-' || *r->at == 'I' || (*r->at >= '0' && *r->at <= '9'))
        v = number(r);
    else
        bad(r, "not a value");
    r->depth--;
    return v;
}

fa_jjv fa_jj_from_json(fa_jj *m, const char *text, size_t len, const char *what) {
    reader r = {m, text, text, text + len, what, 0};
    const char *outer = m->what;
    fa_jjv v = value(&r);
    space(&r);
    if (r.at < r.end) bad(&r, "text behind the value");
    m->what = outer;
    return v;
}

/* ---- writing ---- */

typedef struct writer {
    fa_jj *m;
    fa_buf *b;
    bool ascii, sort, pretty;
    fa_jjstr *indent, *item, *colon;
} writer;

static void put(writer *w, const char *s) { fa_jj_puts(w->m, w->b, s, strlen(s)); }

static void put_string(writer *w, const fa_jjstr *s) {
    static const char hex[] = "0123456789abcdef";
    size_t done = 0;
    put(w, "\"");
    for (size_t i = 0; i < s->n;) {
        unsigned char c = (unsigned char)s->p[i];
        char buf[16] = {'\\', 0};
        size_t len = 1;
        if (c == '"' || c == '\\')
            buf[1] = (char)c;
        else if (c == '\n' || c == '\r' || c == '\t' || c == '\b' || c == '\f')
            buf[1] = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : c == '\b' ? 'b' : 'f';
        else if (c < 0x20 || (w->ascii && c == 0x7F))
            memcpy(buf, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15], 0}, 7);
        else if (c >= 0x80 && w->ascii) {
            uint32_t cp;
            len = (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
            if (cp < 0x10000)
                snprintf(buf, sizeof buf, "\\u%04x", (unsigned)cp);
            else
                snprintf(buf, sizeof buf, "\\u%04x\\u%04x", (unsigned)(0xD7C0 + (cp >> 10)),
                         (unsigned)(0xDC00 | (cp & 0x3FF)));
        } else {
            i++;
            continue;
        }
        fa_jj_puts(w->m, w->b, s->p + done, i - done);
        put(w, buf);
        done = i += len;
    }
    fa_jj_puts(w->m, w->b, s->p + done, s->n - done);
    put(w, "\"");
}

static void put_float(writer *w, double f) {
    if (isnan(f) || isinf(f)) {
        put(w, isnan(f) ? "NaN" : f > 0 ? "Infinity" : "-Infinity");
        return;
    }
    fa_jj_puts(w->m, w->b, "", 0);
    fa_jj_put_float(w->b, f);
}

static void newline(writer *w, int level) {
    if (!w->pretty) return;
    put(w, "\n");
    for (int i = 0; i < level; i++) fa_jj_puts(w->m, w->b, w->indent->p, w->indent->n);
}

static void put_value(writer *w, fa_jjv v, int level);

static void put_key(writer *w, fa_jjv k) {
    if (k.t == FA_JJ_STR) {
        put_string(w, k.u.s);
        return;
    }
    if (k.t != FA_JJ_NONE && !fa_jj_is_num(k) && k.t != FA_JJ_BIG)
        fa_jj_type_error(w->m, "keys must be str, int, float, bool or None, not %s", fa_jj_type(k));
    put(w, "\"");
    put_value(w, k, 0);
    put(w, "\"");
}

static int by_key(fa_jj *m, const fa_jjent *a, const fa_jjent *b) { return fa_jj_cmp(m, a->key, b->key, "<"); }

/* Merge sort: stable, and errors of comparisons may leave at any time. */
static void sort_entries(fa_jj *m, fa_jjent *e, fa_jjent *tmp, size_t n) {
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, k = 0;
    sort_entries(m, e, tmp, h);
    sort_entries(m, e + h, tmp, n - h);
    while (i < h && j < n) tmp[k++] = by_key(m, &e[j], &e[i]) < 0 ? e[j++] : e[i++];
    while (i < h) tmp[k++] = e[i++];
    while (j < n) tmp[k++] = e[j++];
    memcpy(e, tmp, n * sizeof *e);
}

static void put_dict(writer *w, const fa_jjdict *d, int level) {
    const fa_jjent *e = d->e;
    if (!d->n) {
        put(w, "{}");
        return;
    }
    if (w->sort) {
        fa_jjent *s = (fa_jjent *)fa_jj_alloc(w->m, d->n * 2, sizeof *s);
        memcpy(s, d->e, d->n * sizeof *s);
        sort_entries(w->m, s, s + d->n, d->n);
        e = s;
    }
    put(w, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) fa_jj_puts(w->m, w->b, w->item->p, w->item->n);
        newline(w, level + 1);
        put_key(w, e[i].key);
        fa_jj_puts(w->m, w->b, w->colon->p, w->colon->n);
        put_value(w, e[i].val, level + 1);
    }
    newline(w, level);
    put(w, "}");
}

static void put_list(writer *w, const fa_jjlist *l, int level) {
    if (!l->n) {
        put(w, "[]");
        return;
    }
    put(w, "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i) fa_jj_puts(w->m, w->b, w->item->p, w->item->n);
        newline(w, level + 1);
        put_value(w, l->v[i], level + 1);
    }
    newline(w, level);
    put(w, "]");
}

static void put_value(writer *w, fa_jjv v, int level) {
    fa_jj_step(w->m, 1);
    fa_jj_enter(w->m);
    switch (v.t) {
    case FA_JJ_NONE: put(w, "null"); break;
    case FA_JJ_BOOL: put(w, v.u.b ? "true" : "false"); break;
    case FA_JJ_INT:
    case FA_JJ_BIG: fa_jj_put_repr(w->m, w->b, v); break;
    case FA_JJ_FLOAT: put_float(w, v.u.f); break;
    case FA_JJ_STR: put_string(w, v.u.s); break;
    case FA_JJ_LIST:
    case FA_JJ_TUPLE: put_list(w, v.u.l, level); break;
    case FA_JJ_DICT: put_dict(w, v.u.d, level); break;
    case FA_JJ_FUNC:
    default: fa_jj_type_error(w->m, "Object of type %s is not JSON serializable", fa_jj_type(v));
    }
    fa_jj_leave(w->m);
}

static fa_jjstr *separator(fa_jj *m, fa_jjv v) {
    if (v.t != FA_JJ_STR) fa_jj_type_error(m, "sequence item 1: expected str instance, %s found", fa_jj_type(v));
    return v.u.s;
}

/* tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False) */
fa_jjv fa_jj_tojson(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjv indent = fa_jj_arg(a, 1, fa_jj_none()), seps = fa_jj_arg(a, 2, fa_jj_none());
    writer w = {.m = m,
                .b = &m->out,
                .ascii = fa_jj_truth(m, fa_jj_arg(a, 0, fa_jj_bool(false))),
                .sort = fa_jj_truth(m, fa_jj_arg(a, 3, fa_jj_bool(false))),
                .pretty = indent.t != FA_JJ_NONE,
                .item = fa_jj_ref(m, ", ", 2),
                .colon = fa_jj_ref(m, ": ", 2)};
    if (w.pretty && self.t == FA_JJ_STR) w.pretty = false; /* Python does not look at it then */
    if (w.pretty) {
        w.item = fa_jj_ref(m, ",", 1);
        if (indent.t == FA_JJ_STR) {
            w.indent = indent.u.s;
        } else {
            if (indent.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, indent);
            if (!fa_jj_is_int(indent))
                fa_jj_type_error(m, "can't multiply sequence by non-int of type '%s'", fa_jj_type(indent));
            w.indent = fa_jj_binary(m, FA_JJ_N_MUL, fa_jj_text(m, " "), indent).u.s;
        }
    }
    if (seps.t != FA_JJ_NONE) {
        fa_jjlist *l = fa_jj_to_list(m, seps);
        if (l->n != 2)
            fa_jj_fail(m, FFAI_EINVAL,
                       l->n > 2 ? "too many values to unpack (expected 2)"
                                : "not enough values to unpack (expected 2, got %d)",
                       (int)l->n);
        w.item = separator(m, l->v[0]);
        w.colon = separator(m, l->v[1]);
    }
    size_t mark = m->out.len;
    put_value(&w, self, 0);
    return fa_jj_strv(fa_jj_take(m, mark));
}
