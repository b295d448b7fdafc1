/* String formatting: the % operator and str.format, with Python's rules for numbers. */
#include "base/utf8.h"
#include "text/jinja/int.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PRECISION = 1000, MAX_WIDTH = 1 << 24 };

typedef struct spec {
    char fill[4];
    size_t n_fill;
    char align; /* 0: not given */
    char sign;  /* 0, '+', '-', ' ' */
    bool alt, zero;
    char group;               /* 0, ',', '_' */
    int64_t width, precision; /* -1: not given */
    char type;
} spec;

/* ---- numbers ---- */

/* |f| with C's conversion `type` (e f g and capitals), the decimal point always '.' */
static fa_jjstr *digits_of(fa_jj *m, double f, char type, int64_t precision, bool alt) {
    char buf[MAX_PRECISION + 400], fmt[16];
    snprintf(fmt, sizeof fmt, alt ? "%%#.*%c" : "%%.*%c", type);
    if (precision > MAX_PRECISION) fa_jj_fail(m, FFAI_ELIMIT, "a precision of %lld is too large", (long long)precision);
    int n = snprintf(buf, sizeof buf, fmt, (int)precision, fabs(f));
    for (int i = 0; i < n; i++)
        if (buf[i] == ',') buf[i] = '.';
    return fa_jj_copy(m, buf, (size_t)n);
}

static fa_jjstr *int_digits(fa_jj *m, uint64_t u, int base, bool upper) {
    char buf[72], *p = buf + sizeof buf;
    const char *set = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    do *--p = set[u % (unsigned)base];
    while (u /= (unsigned)base);
    return fa_jj_copy(m, p, (size_t)(buf + sizeof buf - p));
}

/* 1234567.5 -> 1,234,567.5 */
static fa_jjstr *grouped(fa_jj *m, fa_jjstr *s, char sep, int every) {
    size_t whole = 0, mark = m->out.len;
    while (whole < s->n && isxdigit((unsigned char)s->p[whole]) && !(every == 3 && (s->p[whole] | 32) == 'e')) whole++;
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % (size_t)every == 0) fa_jj_puts(m, &m->out, &sep, 1);
        fa_jj_puts(m, &m->out, s->p + i, 1);
    }
    fa_jj_puts(m, &m->out, s->p + whole, s->n - whole);
    return fa_jj_take(m, mark);
}

/* Sign, prefix and digits in a field. */
static fa_jjstr *number_field(fa_jj *m, const spec *f, bool minus, const char *prefix, fa_jjstr *digits) {
    char head[8];
    char sign = minus ? '-' : f->sign == '+' || f->sign == ' ' ? f->sign : 0;
    snprintf(head, sizeof head, "%.1s%s", (char[]){sign, 0}, prefix);
    fa_jjstr *h = fa_jj_copy(m, head, strlen(head));
    char align = f->align ? f->align : f->zero ? '=' : '>';
    if (align == '=')
        digits = fa_jj_pad(m, digits, f->width - h->n, f->align ? f->fill : "0", f->align ? f->n_fill : 1, '>');
    fa_jjstr *all = fa_jj_concat(m, h, digits).u.s;
    return fa_jj_pad(m, all, f->width, f->fill, f->n_fill, align == '=' ? '>' : align);
}

static fa_jjstr *format_float(fa_jj *m, const spec *f, double v) {
    fa_jjstr *d;
    char type = f->type;
    int64_t precision = f->precision;
    if (isnan(v) || isinf(v)) {
        bool up = type == 'E' || type == 'F' || type == 'G';
        d = fa_jj_text(m, isnan(v) ? (up ? "NAN" : "nan") : (up ? "INF" : "inf")).u.s;
        if (type == '%') d = fa_jj_concat(m, d, fa_jj_ref(m, "%", 1)).u.s;
        return number_field(m, f, v < 0, "", d);
    }
    if (type == 0 && precision < 0) {
        size_t mark = m->out.len;
        fa_jj_puts(m, &m->out, "", 0);
        fa_jj_put_float(&m->out, fabs(v));
        d = fa_jj_take(m, mark);
    } else if (type == '%') {
        d = fa_jj_concat(m, digits_of(m, v * 100, 'f', precision < 0 ? 6 : precision, f->alt), fa_jj_ref(m, "%", 1))
                .u.s;
    } else {
        char c = type == 0 || type == 'n' ? 'g' : type;
        d = digits_of(m, v, c, precision < 0 ? 6 : precision, f->alt);
        if (type == 0 && !memchr(d->p, '.', d->n) && !memchr(d->p, 'e', d->n))
            d = fa_jj_concat(m, d, fa_jj_ref(m, ".0", 2)).u.s;
    }
    if (f->group) d = grouped(m, d, f->group, 3);
    return number_field(m, f, signbit(v), "", d);
}

static fa_jjstr *format_int(fa_jj *m, const spec *f, int64_t v) {
    char type = f->type ? f->type : 'd';
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    if (strchr("eEfFgG%", type)) return format_float(m, f, (double)v);
    if (f->precision >= 0) fa_jj_fail(m, FFAI_EINVAL, "Precision not allowed in integer format specifier");
    if (type == 'c') {
        char buf[4];
        if (v < 0 || v > 0x10FFFF) fa_jj_fail(m, FFAI_EINVAL, "%%c arg not in range(0x110000)");
        fa_jjstr *s = fa_jj_copy(m, buf, (size_t)fa_utf8_encode((uint32_t)v, buf));
        return fa_jj_pad(m, s, f->width, f->fill, f->n_fill, f->align ? f->align : '<');
    }
    int base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    const char *prefix = !f->alt || base == 10 ? ""
                         : type == 'b'         ? "0b"
                         : type == 'o'         ? "0o"
                         : type == 'x'         ? "0x"
                                               : "0X";
    fa_jjstr *d = int_digits(m, u, base, type == 'X');
    if (f->group) d = grouped(m, d, f->group, base == 10 ? 3 : 4);
    return number_field(m, f, v < 0, prefix, d);
}

/* ---- str.format ---- */

static int64_t number_at(fa_jj *m, const fa_jjstr *s, size_t *i) {
    int64_t v = -1;
    for (; *i < s->n && s->p[*i] >= '0' && s->p[*i] <= '9'; ++*i) {
        v = (v < 0 ? 0 : v) * 10 + (s->p[*i] - '0');
        if (v > MAX_WIDTH) fa_jj_fail(m, FFAI_ELIMIT, "a width in a format is too large");
    }
    return v;
}

static spec parse_spec(fa_jj *m, fa_jjstr *s, const char *type_name) {
    spec f = {.fill = " ", .n_fill = 1, .width = -1, .precision = -1};
    size_t i = 0, first = 0;
    uint32_t cp;
    if (s->n) first = (size_t)fa_utf8_decode(s->p, s->n, &cp);
    if (s->n > first && strchr("<>=^", s->p[first])) {
        memcpy(f.fill, s->p, first);
        f.n_fill = first;
        f.align = s->p[first];
        i = first + 1;
    } else if (s->n && strchr("<>=^", s->p[0])) {
        f.align = s->p[0];
        i = 1;
    }
    if (i < s->n && strchr("+- ", s->p[i])) f.sign = s->p[i++];
    if (i < s->n && s->p[i] == '#') f.alt = true, i++;
    if (i < s->n && s->p[i] == '0') f.zero = true, i++;
    f.width = number_at(m, s, &i);
    if (i < s->n && (s->p[i] == ',' || s->p[i] == '_')) f.group = s->p[i++];
    if (i < s->n && s->p[i] == '.') {
        i++;
        f.precision = number_at(m, s, &i);
        if (f.precision < 0) fa_jj_fail(m, FFAI_EINVAL, "Format specifier missing precision");
    }
    if (i < s->n) f.type = s->p[i++];
    if (i < s->n)
        fa_jj_fail(m, FFAI_EINVAL, "Invalid format specifier '%.*s' for object of type '%s'", (int)s->n, s->p,
                   type_name);
    return f;
}

_Noreturn static void bad_code(fa_jj *m, char type, const char *name) {
    fa_jj_fail(m, FFAI_EINVAL, "Unknown format code '%c' for object of type '%s'", type, name);
}

/* format(v, s) */
static fa_jjstr *format_value(fa_jj *m, fa_jjv v, fa_jjstr *s) {
    if (!s->n) return fa_jj_str(m, v);
    if (v.t != FA_JJ_STR && !fa_jj_is_num(v))
        fa_jj_type_error(m, "unsupported format string passed to %s.__format__", fa_jj_type(v));
    spec f = parse_spec(m, s, fa_jj_type(v));
    if (v.t == FA_JJ_STR) {
        if (f.type && f.type != 's') bad_code(m, f.type, "str");
        if (f.sign) fa_jj_fail(m, FFAI_EINVAL, "Sign not allowed in string format specifier");
        if (f.align == '=') fa_jj_fail(m, FFAI_EINVAL, "'=' alignment not allowed in string format specifier");
        fa_jjstr *t = fa_jj_str(m, v);
        if (f.precision >= 0) t = fa_jj_sub(m, t, 0, fa_jj_offset(m, t, (size_t)f.precision));
        bool zero = f.zero && !f.align;
        return fa_jj_pad(m, t, f.width, zero ? "0" : f.fill, zero ? 1 : f.n_fill, f.align ? f.align : '<');
    }
    if (v.t == FA_JJ_FLOAT) {
        if (f.type && !strchr("eEfFgGn%", f.type)) bad_code(m, f.type, "float");
        return format_float(m, &f, v.u.f);
    }
    if (f.type && !strchr("bcdoxXneEfFgG%", f.type)) bad_code(m, f.type, "int");
    return format_int(m, &f, fa_jj_as_int(v));
}

typedef struct fields {
    const fa_jjargs *a;
    const fa_jjv *map;
    int64_t next; /* of {}; -1: numbers were given */
} fields;

static fa_jjv lookup(fa_jj *m, fields *x, fa_jjstr *name) {
    int64_t i = -1;
    size_t at = 0;
    if (!name->n) {
        if (x->next < 0)
            fa_jj_fail(m, FFAI_EINVAL, "cannot switch from manual field specification to automatic field numbering");
        i = x->next++;
    } else if ((i = number_at(m, name, &at)) >= 0 && at == name->n) {
        if (x->next > 0)
            fa_jj_fail(m, FFAI_EINVAL, "cannot switch from manual field specification to automatic field numbering");
        x->next = -1;
    } else {
        for (size_t k = 0; k < x->a->n_kw; k++)
            if (fa_jj_same(x->a->key[k].u.s, name)) return x->a->val[k];
        fa_jjv *v = x->map && x->map->t == FA_JJ_DICT ? fa_jj_dict_get(m, x->map->u.d, fa_jj_strv(name)) : NULL;
        if (v) return *v;
        fa_jj_fail(m, FFAI_EINVAL, "'%.*s'", (int)(name->n < 100 ? name->n : 100), name->p);
    }
    if ((size_t)i >= x->a->n)
        fa_jj_fail(m, FFAI_EINVAL, "Replacement index %lld out of range for positional args tuple", (long long)i);
    return x->a->v[i];
}

/* name.attr[item]... */
static fa_jjv field(fa_jj *m, fields *x, fa_jjstr *s) {
    size_t i = 0, from;
    while (i < s->n && s->p[i] != '.' && s->p[i] != '[') i++;
    fa_jjv v = lookup(m, x, fa_jj_sub(m, s, 0, i));
    while (i < s->n) {
        bool attr = s->p[i] == '.';
        from = ++i;
        while (i < s->n && (attr ? s->p[i] != '.' && s->p[i] != '[' : s->p[i] != ']')) i++;
        fa_jjstr *part = fa_jj_sub(m, s, from, i);
        if (!part->n) fa_jj_fail(m, FFAI_EINVAL, "Empty attribute in format string");
        if (attr) {
            v = fa_jj_getattr(m, v, part);
            continue;
        }
        if (i >= s->n) fa_jj_fail(m, FFAI_EINVAL, "Missing ']' in format string");
        size_t at = 0;
        int64_t n = number_at(m, part, &at);
        v = fa_jj_getitem(m, v, n >= 0 && at == part->n ? fa_jj_int(n) : fa_jj_strv(part));
        i++;
        if (i < s->n && s->p[i] != '.' && s->p[i] != '[')
            fa_jj_fail(m, FFAI_EINVAL, "Only '.' or '[' may follow ']' in format field specifier");
    }
    return v;
}

static fa_jjstr *expand(fa_jj *m, fa_jjstr *s, fields *x, int depth);

/* {name!r:spec}, without the braces */
static fa_jjstr *replacement(fa_jj *m, fa_jjstr *s, fields *x, int depth) {
    size_t name = 0;
    int brackets = 0;
    for (; name < s->n; name++) {
        brackets += (s->p[name] == '[') - (s->p[name] == ']');
        if (brackets <= 0 && (s->p[name] == '!' || s->p[name] == ':')) break;
    }
    fa_jjv v = field(m, x, fa_jj_sub(m, s, 0, name));
    if (name < s->n && s->p[name] == '!') {
        char how = name + 1 < s->n ? s->p[name + 1] : 0;
        name += 2;
        if (name < s->n && s->p[name] != ':') fa_jj_fail(m, FFAI_EINVAL, "expected ':' after conversion specifier");
        if (how == 'r' || how == 'a')
            v = fa_jj_strv(fa_jj_repr(m, v));
        else if (how == 's')
            v = fa_jj_strv(fa_jj_str(m, v));
        else
            fa_jj_fail(m, FFAI_EINVAL, "Unknown conversion specifier %c", how ? how : ' ');
    }
    fa_jjstr *spec_text = name < s->n ? fa_jj_sub(m, s, name + 1, s->n) : fa_jj_ref(m, "", 0);
    if (spec_text->n) spec_text = expand(m, spec_text, x, depth - 1);
    return format_value(m, v, spec_text);
}

static fa_jjstr *expand(fa_jj *m, fa_jjstr *s, fields *x, int depth) {
    fa_jjstr *r = fa_jj_ref(m, "", 0);
    if (depth < 0) fa_jj_fail(m, FFAI_EINVAL, "Max string recursion exceeded");
    for (size_t i = 0, from = 0; i <= s->n; i++) {
        if (i < s->n && s->p[i] != '{' && s->p[i] != '}') continue;
        bool twice = i + 1 < s->n && s->p[i + 1] == s->p[i];
        r = fa_jj_concat(m, r, fa_jj_sub(m, s, from, i + (i < s->n && twice))).u.s;
        fa_jj_step(m, 1);
        if (i >= s->n) break;
        if (twice) {
            from = ++i + 1;
            continue;
        }
        if (s->p[i] == '}') fa_jj_fail(m, FFAI_EINVAL, "Single '}' encountered in format string");
        size_t end = i + 1;
        int open = 1;
        for (; end < s->n; end++) {
            open += (s->p[end] == '{') - (s->p[end] == '}');
            if (!open) break;
        }
        if (open)
            fa_jj_fail(m, FFAI_EINVAL,
                       i + 1 < s->n ? "expected '}' before end of string" : "Single '{' encountered in format string");
        fa_jjstr *text = replacement(m, fa_jj_sub(m, s, i + 1, end), x, depth);
        r = fa_jj_concat(m, r, text).u.s;
        i = end;
        from = end + 1;
    }
    return r;
}

fa_jjv fa_jj_format(fa_jj *m, fa_jjstr *fmt, const fa_jjargs *a, const fa_jjv *map) {
    fields x = {a, map, 0};
    fa_jjstr *plain = fa_jj_str(m, fa_jj_strv(fmt)), *r;
    if (!fmt->markup) return fa_jj_strv(expand(m, plain, &x, 2));
    fa_jjargs esc = *a; /* a Markup escapes what it is given */
    esc.v = (fa_jjv *)fa_jj_alloc(m, a->n + 1, sizeof *esc.v);
    esc.val = (fa_jjv *)fa_jj_alloc(m, a->n_kw + 1, sizeof *esc.val);
    for (size_t i = 0; i < a->n; i++)
        esc.v[i] = a->v[i].t == FA_JJ_STR ? fa_jj_strv(fa_jj_escape(m, a->v[i])) : a->v[i];
    for (size_t i = 0; i < a->n_kw; i++)
        esc.val[i] = a->val[i].t == FA_JJ_STR ? fa_jj_strv(fa_jj_escape(m, a->val[i])) : a->val[i];
    x.a = &esc;
    r = expand(m, plain, &x, 2);
    return fa_jj_strv(fa_jj_mark(m, r));
}

/* ---- the % operator ---- */

typedef struct operands {
    fa_jjv all;
    size_t next;
    bool named; /* a %(name) was used */
} operands;

static fa_jjv next_operand(fa_jj *m, operands *o) {
    if (o->all.t == FA_JJ_TUPLE) {
        if (o->next < o->all.u.l->n) return o->all.u.l->v[o->next++];
    } else if (o->next++ == 0) {
        return o->all;
    }
    fa_jj_type_error(m, "not enough arguments for format string");
}

static int64_t star(fa_jj *m, operands *o) {
    fa_jjv v = next_operand(m, o);
    if (!fa_jj_is_int(v)) fa_jj_type_error(m, "* wants int");
    int64_t i = fa_jj_as_int(v);
    if (i > MAX_WIDTH || i < -MAX_WIDTH) fa_jj_fail(m, FFAI_ELIMIT, "a width in a format is too large");
    return i;
}

/* %(name) at s[*i] == '(' */
static fa_jjv named(fa_jj *m, fa_jjstr *s, size_t *i, operands *o) {
    size_t from = ++*i;
    int open = 1;
    if (o->all.t != FA_JJ_DICT) fa_jj_type_error(m, "format requires a mapping");
    for (; *i < s->n; ++*i) {
        open += (s->p[*i] == '(') - (s->p[*i] == ')');
        if (!open) break;
    }
    if (open) fa_jj_fail(m, FFAI_EINVAL, "incomplete format key");
    fa_jjstr *key = fa_jj_sub(m, s, from, *i);
    fa_jjv *v = fa_jj_dict_get(m, o->all.u.d, fa_jj_strv(key));
    ++*i;
    o->named = true;
    if (!v) fa_jj_fail(m, FFAI_EINVAL, "'%.*s'", (int)(key->n < 100 ? key->n : 100), key->p);
    return *v;
}

static fa_jjstr *percent_int(fa_jj *m, spec *f, fa_jjv v) {
    bool real = v.t == FA_JJ_FLOAT && strchr("diu", f->type);
    if (v.t == FA_JJ_UNDEF && strchr("diu", f->type)) fa_jj_undef_fail(m, v);
    if (!fa_jj_is_int(v) && !real)
        fa_jj_type_error(m,
                         strchr("diu", f->type) ? "%%%c format: a real number is required, not %s"
                                                : "%%%c format: an integer is required, not %s",
                         f->type, fa_jj_type(v));
    if (real && !(fabs(v.u.f) < 0x1p63)) fa_jj_fail(m, FFAI_ELIMIT, "%%d of a number past 64 bits");
    int64_t i = real ? (int64_t)v.u.f : fa_jj_as_int(v), precision = f->precision;
    int base = f->type == 'o' ? 8 : (f->type | 32) == 'x' ? 16 : 10;
    fa_jjstr *d = int_digits(m, i < 0 ? 0 - (uint64_t)i : (uint64_t)i, base, f->type == 'X');
    if (precision >= 0) d = fa_jj_pad(m, d, precision, "0", 1, '>');
    const char *prefix = !f->alt || base == 10 ? "" : base == 8 ? "0o" : f->type == 'x' ? "0x" : "0X";
    return number_field(m, f, i < 0, prefix, d);
}

static fa_jjstr *percent_char(fa_jj *m, fa_jjv v) {
    char buf[4];
    if (v.t == FA_JJ_STR && fa_jj_ncp(m, v.u.s) == 1) return v.u.s;
    if (!fa_jj_is_int(v)) fa_jj_type_error(m, "%%c requires int or char");
    if (fa_jj_as_int(v) < 0 || fa_jj_as_int(v) > 0x10FFFF) fa_jj_fail(m, FFAI_EINVAL, "%%c arg not in range(0x110000)");
    return fa_jj_copy(m, buf, (size_t)fa_utf8_encode((uint32_t)fa_jj_as_int(v), buf));
}

static fa_jjstr *convert(fa_jj *m, fa_jjstr *fmt, spec *f, fa_jjv v, size_t at) {
    fa_jjstr *s;
    bool esc = fmt->markup;
    switch (f->type) {
    case 's':
    case 'r':
    case 'a':
        s = f->type == 's' ? fa_jj_soft(m, v) : fa_jj_repr(m, v);
        s = esc ? fa_jj_escape(m, fa_jj_strv(s)) : fa_jj_str(m, fa_jj_strv(s));
        if (f->precision >= 0) s = fa_jj_sub(m, s, 0, fa_jj_offset(m, s, (size_t)f->precision));
        break;
    case 'c': s = percent_char(m, v); break;
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X': return percent_int(m, f, v);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (v.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, v);
        if (!fa_jj_is_num(v)) fa_jj_type_error(m, "must be real number, not %s", fa_jj_type(v));
        return format_float(m, f, fa_jj_as_num(v));
    default:
        fa_jj_fail(m, FFAI_EINVAL, "unsupported format character '%c' (0x%x) at index %zu",
                   f->type >= 32 && f->type < 127 ? f->type : '?', (unsigned)(unsigned char)f->type, at);
    }
    return fa_jj_pad(m, s, f->width, " ", 1, f->align == '<' ? '<' : '>');
}

/* One conversion; *i stands behind '%'. */
static fa_jjstr *conversion(fa_jj *m, fa_jjstr *s, size_t *i, operands *o) {
    spec f = {.fill = " ", .n_fill = 1, .width = -1, .precision = -1};
    fa_jjv v = fa_jj_missing();
    if (*i < s->n && s->p[*i] == '(') v = named(m, s, i, o);
    for (; *i < s->n && strchr("-+ #0", s->p[*i]) && s->p[*i]; ++*i) {
        char c = s->p[*i];
        if (c == '-') f.align = '<';
        if (c == '+' || (c == ' ' && f.sign != '+')) f.sign = c;
        f.alt = f.alt || c == '#';
        f.zero = f.zero || c == '0';
    }
    if (*i < s->n && s->p[*i] == '*') {
        f.width = star(m, o);
        ++*i;
        if (f.width < 0) {
            f.align = '<';
            f.width = -f.width;
        }
    } else {
        f.width = number_at(m, s, i);
    }
    if (*i < s->n && s->p[*i] == '.') {
        ++*i;
        if (*i < s->n && s->p[*i] == '*') {
            f.precision = star(m, o);
            ++*i;
        } else {
            f.precision = number_at(m, s, i);
        }
        if (f.precision < 0) f.precision = 0;
    }
    while (*i < s->n && strchr("hlL", s->p[*i]) && s->p[*i]) ++*i;
    if (*i >= s->n) fa_jj_fail(m, FFAI_EINVAL, "incomplete format");
    f.type = s->p[*i];
    size_t at = *i;
    ++*i;
    if (f.type == '%') return fa_jj_ref(m, "%", 1);
    if (v.t == FA_JJ_MISSING) v = next_operand(m, o);
    return convert(m, s, &f, v, at);
}

fa_jjv fa_jj_percent(fa_jj *m, fa_jjstr *fmt, fa_jjv arg) {
    operands o = {.all = arg};
    fa_jjstr *r = fa_jj_ref(m, "", 0);
    for (size_t i = 0;;) {
        const char *p = i < fmt->n ? (const char *)memchr(fmt->p + i, '%', fmt->n - i) : NULL;
        size_t to = p ? (size_t)(p - fmt->p) : fmt->n;
        r = fa_jj_concat(m, r, fa_jj_ref(m, fmt->p + i, to - i)).u.s;
        fa_jj_step(m, 1);
        if (!p) break;
        i = to + 1;
        fa_jjstr *text = conversion(m, fmt, &i, &o);
        r = fa_jj_concat(m, r, text).u.s;
    }
    bool mapping = arg.t == FA_JJ_DICT || arg.t == FA_JJ_LIST || arg.t == FA_JJ_RANGE || arg.t == FA_JJ_UNDEF;
    size_t n = arg.t == FA_JJ_TUPLE ? arg.u.l->n : mapping || o.named ? 0 : 1;
    if (o.next < n) fa_jj_type_error(m, "not all arguments converted during string formatting");
    return fa_jj_strv(fmt->markup ? fa_jj_mark(m, r) : r);
}
