/* str() and repr() of values. */
#include "base/utf8.h"
#include "text/jinja/int.h"
#include "text/ucd.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fa_jj_puts(fa_jj *m, fa_buf *b, const char *p, size_t n) {
    fa_jj_step(m, n / 64);
    if (n > m->mem.limit || b->len + n > m->mem.limit)
        fa_jj_fail(m, FFAI_ELIMIT, "the text grows past %zu MB", m->mem.limit >> 20);
    fa_buf_add(b, p, n);
    if (b->failed) {
        b->failed = false;
        fa_jj_fail(m, FFAI_ENOMEM, "no memory for the text");
    }
}

static void puts0(fa_jj *m, fa_buf *b, const char *s) { fa_jj_puts(m, b, s, strlen(s)); }

fa_jjstr *fa_jj_take(fa_jj *m, size_t mark) {
    size_t n = m->out.len - mark;
    fa_jjstr *s = fa_jj_copy(m, n ? m->out.data + mark : "", n);
    m->out.len = mark;
    if (m->out.data) m->out.data[mark] = 0;
    return s;
}

/* ---- numbers ---- */

double fa_jj_strtod(const char *s, size_t n, bool *ok) {
    char buf[400], point[8], *end;
    size_t k = 0;
    *ok = false;
    if (n >= sizeof buf || !n) return 0;
    snprintf(point, sizeof point, "%.1f", 0.5); /* the decimal point of the locale stands at [1] */
    for (size_t i = 0; i < n; i++) buf[k++] = s[i] == '.' ? point[1] : s[i];
    buf[k] = 0;
    double f = strtod(buf, &end);
    *ok = end == buf + k;
    return f;
}

size_t fa_jj_digits(double f, char *digits, int *e) {
    char buf[40];
    size_t n = 0;
    for (int prec = 1; prec <= 17; prec++) {
        snprintf(buf, sizeof buf, "%.*e", prec - 1, f);
        if (strtod(buf, NULL) == f) break;
    }
    char *x = strchr(buf, 'e');
    for (char *p = buf; p < x; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0') n--;
    *e = atoi(x + 1) + 1;
    return n;
}

void fa_jj_put_float(fa_buf *b, double f) {
    char d[40];
    int e;
    if (isnan(f) || isinf(f)) {
        fa_buf_puts(b, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    if (signbit(f)) fa_buf_puts(b, "-");
    f = fabs(f);
    if (f == 0) {
        fa_buf_puts(b, "0.0");
        return;
    }
    int n = (int)fa_jj_digits(f, d, &e);
    if (e > 16 || e < -3) {
        fa_buf_printf(b, "%c%s%.*se%c%02d", d[0], n > 1 ? "." : "", n - 1, d + 1, e - 1 < 0 ? '-' : '+', abs(e - 1));
    } else if (e <= 0) {
        fa_buf_printf(b, "0.%.*s%.*s", -e, "0000", n, d);
    } else if (n <= e) {
        fa_buf_printf(b, "%.*s%.*s.0", n, d, e - n, "0000000000000000");
    } else {
        fa_buf_printf(b, "%.*s.%.*s", e, d, n - e, d + e);
    }
}

/* ---- strings ---- */

/* Python's str.isprintable */
static bool printable(uint32_t cp) {
    if (cp == ' ') return true;
    unsigned g = fa_ucd(cp) & FA_UCD_GC;
    return g != FA_GC_CN && g != FA_GC_CC && g != FA_GC_CF && g != FA_GC_CO && g != FA_GC_ZS && g != FA_GC_ZL &&
           g != FA_GC_ZP;
}

static void put_quoted(fa_jj *m, fa_buf *b, const fa_jjstr *s) {
    bool single = s->n && memchr(s->p, '\'', s->n), two = s->n && memchr(s->p, '"', s->n);
    char quote = single && !two ? '"' : '\'', buf[16];
    fa_jj_puts(m, b, &quote, 1);
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t len = (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        if (cp == (unsigned char)quote || cp == '\\') {
            snprintf(buf, sizeof buf, "\\%c", (char)cp);
            puts0(m, b, buf);
        } else if (cp == '\n' || cp == '\r' || cp == '\t') {
            puts0(m, b, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
        } else if (printable(cp)) {
            fa_jj_puts(m, b, s->p + i, len);
        } else {
            snprintf(buf, sizeof buf, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
            puts0(m, b, buf);
        }
        i += len;
    }
    fa_jj_puts(m, b, &quote, 1);
    fa_jj_step(m, s->n / 8);
}

/* ---- containers ---- */

static void put_list(fa_jj *m, fa_buf *b, const fa_jjlist *l, bool tuple) {
    puts0(m, b, tuple ? "(" : "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i) puts0(m, b, ", ");
        fa_jj_put_repr(m, b, l->v[i]);
    }
    puts0(m, b, tuple ? (l->n == 1 ? ",)" : ")") : "]");
}

static void put_dict(fa_jj *m, fa_buf *b, const fa_jjdict *d) {
    puts0(m, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) puts0(m, b, ", ");
        fa_jj_put_repr(m, b, d->e[i].key);
        puts0(m, b, ": ");
        fa_jj_put_repr(m, b, d->e[i].val);
    }
    puts0(m, b, "}");
}

static void put_view(fa_jj *m, fa_buf *b, const fa_jjview *w) {
    puts0(m, b, w->kind == 'k' ? "dict_keys([" : w->kind == 'v' ? "dict_values([" : "dict_items([");
    for (size_t i = 0; i < w->d->n; i++) {
        if (i) puts0(m, b, ", ");
        if (w->kind == 'i') puts0(m, b, "(");
        if (w->kind != 'v') fa_jj_put_repr(m, b, w->d->e[i].key);
        if (w->kind == 'i') puts0(m, b, ", ");
        if (w->kind != 'k') fa_jj_put_repr(m, b, w->d->e[i].val);
        if (w->kind == 'i') puts0(m, b, ")");
    }
    puts0(m, b, "])");
}

static void put_loop(fa_jj *m, fa_buf *b, fa_jjv v) {
    char buf[64];
    size_t n;
    fa_jj_len(m, v, &n);
    snprintf(buf, sizeof buf, "<LoopContext %zu/%zu>", v.u.lo->index0 + 1, n);
    puts0(m, b, buf);
}

static void put_macro(fa_jj *m, fa_buf *b, const fa_jjmacro *mc) {
    puts0(m, b, "<Macro ");
    if (mc->node->k == FA_JJ_N_MACRO)
        put_quoted(m, b, m->t->sym[mc->node->sym]);
    else
        puts0(m, b, "anonymous");
    puts0(m, b, ">");
}

static void put_object(fa_jj *m, fa_buf *b, fa_jjv v) {
    char buf[96];
    switch (v.t) {
    case FA_JJ_RANGE:
        snprintf(buf, sizeof buf, v.u.r->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                 (long long)v.u.r->start, (long long)v.u.r->stop, (long long)v.u.r->step);
        puts0(m, b, buf);
        return;
    case FA_JJ_VIEW: put_view(m, b, v.u.w); return;
    case FA_JJ_NS:
        puts0(m, b, "<Namespace ");
        put_dict(m, b, v.u.d);
        puts0(m, b, ">");
        return;
    case FA_JJ_MACRO: put_macro(m, b, v.u.m); return;
    case FA_JJ_LOOP: put_loop(m, b, v); return;
    default:
        snprintf(buf, sizeof buf, "<%s object>", fa_jj_type(v)); /* Python writes an address here */
        puts0(m, b, buf);
    }
}

void fa_jj_put_repr(fa_jj *m, fa_buf *b, fa_jjv v) {
    char buf[32];
    fa_jj_step(m, 1);
    fa_jj_enter(m);
    switch (v.t) {
    case FA_JJ_MISSING:
    case FA_JJ_UNDEF: puts0(m, b, "Undefined"); break;
    case FA_JJ_NONE: puts0(m, b, "None"); break;
    case FA_JJ_BOOL: puts0(m, b, v.u.b ? "True" : "False"); break;
    case FA_JJ_INT:
        snprintf(buf, sizeof buf, "%lld", (long long)v.u.i);
        puts0(m, b, buf);
        break;
    case FA_JJ_BIG: fa_jj_puts(m, b, v.u.s->p, v.u.s->n); break;
    case FA_JJ_FLOAT:
        fa_jj_puts(m, b, "", 0);
        fa_jj_put_float(b, v.u.f);
        break;
    case FA_JJ_STR:
        if (v.u.s->markup) puts0(m, b, "Markup(");
        put_quoted(m, b, v.u.s);
        if (v.u.s->markup) puts0(m, b, ")");
        break;
    case FA_JJ_LIST:
    case FA_JJ_TUPLE: put_list(m, b, v.u.l, v.t == FA_JJ_TUPLE); break;
    case FA_JJ_DICT: put_dict(m, b, v.u.d); break;
    default: put_object(m, b, v);
    }
    fa_jj_leave(m);
}

void fa_jj_put_str(fa_jj *m, fa_buf *b, fa_jjv v) {
    if (v.t == FA_JJ_STR)
        fa_jj_puts(m, b, v.u.s->p, v.u.s->n);
    else if (v.t != FA_JJ_UNDEF)
        fa_jj_put_repr(m, b, v);
}

fa_jjstr *fa_jj_soft(fa_jj *m, fa_jjv v) {
    if (v.t == FA_JJ_STR) return v.u.s;
    size_t mark = m->out.len;
    fa_jj_put_str(m, &m->out, v);
    return fa_jj_take(m, mark);
}

fa_jjstr *fa_jj_str(fa_jj *m, fa_jjv v) {
    fa_jjstr *s = fa_jj_soft(m, v);
    if (!s->markup) return s;
    fa_jjstr *plain = fa_jj_ref(m, s->p, s->n);
    plain->ncp = s->ncp;
    return plain;
}

fa_jjstr *fa_jj_repr(fa_jj *m, fa_jjv v) {
    size_t mark = m->out.len;
    fa_jj_put_repr(m, &m->out, v);
    return fa_jj_take(m, mark);
}
