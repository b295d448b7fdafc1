/* Filters on text. Their operand is made a string first, as jinja's soft_str does it. */
#include "base/utf8.h"
#include "text/jinja/int.h"
#include "text/ucd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool flag(fa_jj *m, const fa_jjargs *a, size_t i) { return fa_jj_truth(m, fa_jj_arg(a, i, fa_jj_bool(false))); }

/* The method of the same name. */
static fa_jjv as_method(fa_jj *m, fa_jjv v, const char *name, const fa_jjargs *a) {
    fa_jjstr s = {.p = name, .n = (uint32_t)strlen(name)};
    return fa_jj_str_method(&s)->fn(m, fa_jj_strv(fa_jj_soft(m, v)), a);
}

static fa_jjv f_upper(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return as_method(m, v, "upper", a); }
static fa_jjv f_lower(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return as_method(m, v, "lower", a); }
static fa_jjv f_capitalize(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return as_method(m, v, "capitalize", a); }
static fa_jjv f_trim(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return as_method(m, v, "strip", a); }

static fa_jjv f_center(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv args[2] = {fa_jj_arg(a, 0, fa_jj_int(80)), fa_jj_missing()};
    fa_jjargs x = {.v = args, .n = 1};
    return as_method(m, v, "center", &x);
}

static fa_jjv f_string(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return (void)a, fa_jj_strv(fa_jj_soft(m, v)); }

static fa_jjv f_safe(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    return (void)a, fa_jj_strv(fa_jj_mark(m, fa_jj_soft(m, v)));
}

static fa_jjv f_escape(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return (void)a, fa_jj_strv(fa_jj_escape(m, v)); }

static fa_jjv f_forceescape(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    return (void)a, fa_jj_strv(fa_jj_escape(m, fa_jj_strv(fa_jj_str(m, v))));
}

/* replace(old, new, count) */
static fa_jjv f_replace(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv n = fa_jj_arg(a, 2, fa_jj_none());
    fa_jjstr *s = fa_jj_str(m, v), *from = fa_jj_str(m, a->v[0]), *to = fa_jj_str(m, a->v[1]);
    return fa_jj_strv(fa_jj_replace(m, s, from, to, n.t == FA_JJ_NONE ? -1 : fa_jj_index(m, n)));
}

/* Words begin behind white space and -({[< */
static fa_jjv f_title(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjstr *s = fa_jj_soft(m, v);
    fa_jjstr *r = fa_jj_ref(m, "", 0);
    (void)a;
    for (size_t i = 0; i < s->n;) {
        size_t from = i, first = 0;
        uint32_t cp;
        bool sep = false;
        while (i < s->n) { /* a run of separators or of other characters */
            size_t len = (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
            bool is = fa_jj_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
            if (i == from) {
                sep = is;
                first = len;
            }
            if (is != sep) break;
            i += len;
        }
        fa_jjstr *head = fa_jj_ref(m, s->p + from, first), *tail = fa_jj_ref(m, s->p + from + first, i - from - first);
        r = fa_jj_concat(m, r, fa_jj_case(m, head, 'u')).u.s;
        r = fa_jj_concat(m, r, fa_jj_case(m, tail, 'l')).u.s;
    }
    return fa_jj_strv(r);
}

static fa_jjstr *want_str(fa_jj *m, fa_jjv v) {
    if (v.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, v);
    if (v.t != FA_JJ_STR)
        fa_jj_fail(m, FFAI_EINVAL, "unsupported operand type(s) for +=: '%s' and 'str'", fa_jj_type(v));
    return v.u.s;
}

/* indent(width, first, blank) */
static fa_jjv f_indent(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv width = fa_jj_arg(a, 0, fa_jj_int(4));
    fa_jjstr *s = want_str(m, v), *in;
    bool blank = flag(m, a, 2);
    if (width.t == FA_JJ_STR)
        in = width.u.s;
    else
        in = fa_jj_binary(m, FA_JJ_N_MUL, fa_jj_text(m, " "), width).u.s;
    if (s->markup) in = fa_jj_mark(m, in);
    fa_jjlist *l = fa_jj_splitlines(m, fa_jj_concat(m, s, fa_jj_ref(m, "\n", 1)).u.s, false);
    size_t mark = m->out.len;
    for (size_t i = 0; i < l->n; i++) {
        const fa_jjstr *line = l->v[i].u.s;
        if (i) fa_jj_puts(m, &m->out, "\n", 1);
        if (i ? blank || line->n : flag(m, a, 1)) fa_jj_puts(m, &m->out, in->p, in->n);
        fa_jj_puts(m, &m->out, line->p, line->n);
    }
    fa_jjstr *r = fa_jj_take(m, mark);
    r->markup = s->markup;
    return fa_jj_strv(r);
}

/* truncate(length, killwords, end, leeway) */
static fa_jjv f_truncate(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    int64_t length = fa_jj_index(m, fa_jj_arg(a, 0, fa_jj_int(255))), leeway = 5, n, n_end;
    fa_jjv end = fa_jj_arg(a, 2, fa_jj_text(m, "...")), lee = fa_jj_arg(a, 3, fa_jj_none());
    if (lee.t != FA_JJ_NONE) leeway = fa_jj_index(m, lee);
    size_t len;
    if (!fa_jj_len(m, end, &len)) fa_jj_type_error(m, "object of type '%s' has no len()", fa_jj_type(end));
    n_end = (int64_t)len;
    if (length < n_end)
        fa_jj_fail(m, FFAI_EINVAL, "expected length >= %lld, got %lld", (long long)n_end, (long long)length);
    if (leeway < 0) fa_jj_fail(m, FFAI_EINVAL, "expected leeway >= 0, got %lld", (long long)leeway);
    if (!fa_jj_len(m, v, &len)) fa_jj_type_error(m, "object of type '%s' has no len()", fa_jj_type(v));
    n = (int64_t)len;
    if (n <= length || n - length <= leeway) return v;
    if (v.t != FA_JJ_STR) fa_jj_type_error(m, "truncate needs a string, not %s", fa_jj_type(v));
    fa_jjstr *cut = fa_jj_sub(m, v.u.s, 0, fa_jj_offset(m, v.u.s, (size_t)(length - n_end)));
    if (!flag(m, a, 1)) {
        size_t at = cut->n;
        while (at > 0 && cut->p[at - 1] != ' ') at--;
        if (at) cut = fa_jj_sub(m, cut, 0, at - 1);
    }
    return fa_jj_add(m, fa_jj_strv(cut), end);
}

static fa_jjv f_wordcount(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjstr *s = fa_jj_soft(m, v);
    int64_t n = 0;
    bool in = false;
    (void)a;
    fa_jj_step(m, s->n / 16);
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        i += (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        uint32_t set = FA_GC_BIT(fa_ucd(cp) & FA_UCD_GC);
        bool word = cp == '_' || (set & (FA_SET_L | FA_SET_N)) != 0;
        n += word && !in;
        in = word;
    }
    return fa_jj_int(n);
}

/* format(*args | **kwargs): printf style */
static fa_jjv f_format(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjstr *s = fa_jj_soft(m, v);
    if (a->n && a->n_kw) fa_jj_fail(m, FFAI_EINVAL, "can't handle positional and keyword arguments at the same time");
    if (!a->n_kw) {
        fa_jjlist *l = fa_jj_list(m, a->n);
        for (size_t i = 0; i < a->n; i++) fa_jj_push(m, l, a->v[i]);
        return fa_jj_percent(m, s, fa_jj_tuplev(l));
    }
    fa_jjdict *d = fa_jj_dict(m, a->n_kw);
    for (size_t i = 0; i < a->n_kw; i++) fa_jj_dict_set(m, d, a->key[i], a->val[i]);
    return fa_jj_percent(m, s, fa_jj_dictv(d));
}

/* ---- for the web ---- */

static fa_jjstr *quote(fa_jj *m, fa_jjv v, bool query) {
    static const char hex[] = "0123456789ABCDEF";
    fa_jjstr *s = fa_jj_str(m, v);
    size_t mark = m->out.len;
    for (size_t i = 0; i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~", c)) ||
                     (c == '/' && !query);
        char buf[3] = {'%', hex[c >> 4], hex[c & 15]};
        if (plain)
            fa_jj_puts(m, &m->out, s->p + i, 1);
        else
            fa_jj_puts(m, &m->out, c == ' ' && query ? "+" : buf, c == ' ' && query ? 1 : 3);
    }
    fa_jj_step(m, s->n / 8);
    return fa_jj_take(m, mark);
}

static fa_jjv f_urlencode(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv x, key, val;
    (void)a;
    if (v.t == FA_JJ_STR || !fa_jj_iterable(v)) return fa_jj_strv(quote(m, v, false));
    fa_jjlist *out = fa_jj_list(m, 0);
    fa_jjiter *it;
    if (v.t == FA_JJ_DICT) {
        fa_jjview *w = (fa_jjview *)fa_jj_alloc(m, 1, sizeof *w);
        w->d = v.u.d;
        w->kind = 'i';
        v = (fa_jjv){.t = FA_JJ_VIEW, .u.w = w};
    }
    for (it = fa_jj_iter(m, v); fa_jj_next(m, it, &x);) {
        fa_jjlist *pair = fa_jj_to_list(m, x);
        if (pair->n != 2)
            fa_jj_fail(m, FFAI_EINVAL,
                       pair->n > 2 ? "too many values to unpack (expected 2)"
                                   : "not enough values to unpack (expected 2, got %d)",
                       (int)pair->n);
        key = fa_jj_strv(quote(m, pair->v[0], true));
        val = fa_jj_strv(quote(m, pair->v[1], true));
        fa_jj_push(m, out, fa_jj_add(m, fa_jj_add(m, key, fa_jj_text(m, "=")), val));
    }
    fa_jjv arg = fa_jj_listv(out);
    fa_jjargs join = {.v = &arg, .n = 1};
    return as_method(m, fa_jj_text(m, "&"), "join", &join);
}

static fa_jjv f_xmlattr(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    if (v.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, v);
    if (v.t != FA_JJ_DICT) fa_jj_type_error(m, "'%s' object has no attribute 'items'", fa_jj_type(v));
    fa_jjstr *r = fa_jj_ref(m, "", 0);
    bool space = fa_jj_truth(m, fa_jj_arg(a, 0, fa_jj_bool(true)));
    for (size_t i = 0; i < v.u.d->n; i++) {
        const fa_jjent *e = &v.u.d->e[i];
        if (e->val.t == FA_JJ_NONE || e->val.t == FA_JJ_UNDEF) continue;
        if (e->key.t != FA_JJ_STR)
            fa_jj_type_error(m, "expected string or bytes-like object, got '%s'", fa_jj_type(e->key));
        for (size_t k = 0; k < e->key.u.s->n; k++)
            if (strchr(" \t\n\r\f\v/>=", e->key.u.s->p[k]) && e->key.u.s->p[k])
                fa_jj_fail(m, FFAI_EINVAL, "Invalid character in attribute name: '%.*s'", (int)e->key.u.s->n,
                           e->key.u.s->p);
        if (r->n || space) r = fa_jj_concat(m, r, fa_jj_ref(m, " ", 1)).u.s;
        r = fa_jj_concat(m, r, fa_jj_escape(m, e->key)).u.s;
        r = fa_jj_concat(m, r, fa_jj_ref(m, "=\"", 2)).u.s;
        r = fa_jj_concat(m, r, fa_jj_escape(m, e->val)).u.s;
        r = fa_jj_concat(m, r, fa_jj_ref(m, "\"", 1)).u.s;
    }
    return fa_jj_strv(r);
}

/* s without what stands between `open` and `close`, these included */
static fa_jjstr *without(fa_jj *m, fa_jjstr *s, const char *open, const char *close) {
    fa_jjstr o = {.p = open, .n = (uint32_t)strlen(open)}, c = {.p = close, .n = (uint32_t)strlen(close)};
    size_t mark = m->out.len, at = 0;
    for (;;) {
        size_t from = fa_jj_find(m, s, &o, at), to = from == SIZE_MAX ? SIZE_MAX : fa_jj_find(m, s, &c, from);
        if (to == SIZE_MAX) break;
        fa_jj_puts(m, &m->out, s->p + at, from - at);
        at = to + c.n;
    }
    fa_jj_puts(m, &m->out, s->p + at, s->n - at);
    return fa_jj_take(m, mark);
}

/* &amp; &lt; &gt; &quot; &#39; &#x27; ... */
static fa_jjstr *unescape(fa_jj *m, fa_jjstr *s) {
    static const struct {
        const char *name, *text;
    } names[] = {{"amp;", "&"}, {"lt;", "<"}, {"gt;", ">"}, {"quot;", "\""}, {"apos;", "'"}, {"nbsp;", "\xC2\xA0"}};
    size_t mark = m->out.len;
    for (size_t i = 0; i < s->n;) {
        size_t used = 0;
        char buf[4];
        for (size_t k = 0; s->p[i] == '&' && k < sizeof names / sizeof *names && !used; k++)
            if (s->n - i - 1 >= strlen(names[k].name) &&
                memcmp(s->p + i + 1, names[k].name, strlen(names[k].name)) == 0) {
                fa_jj_puts(m, &m->out, names[k].text, strlen(names[k].text));
                used = 1 + strlen(names[k].name);
            }
        if (!used && s->n - i > 3 && s->p[i] == '&' && s->p[i + 1] == '#') {
            bool hex = (s->p[i + 2] | 32) == 'x';
            size_t j = i + 2 + hex, from = j;
            uint32_t cp = 0;
            while (j < s->n && j - from < 7 && strchr("0123456789abcdefABCDEF", s->p[j]) && s->p[j] &&
                   (hex || s->p[j] <= '9')) {
                cp = cp * (hex ? 16 : 10) + (uint32_t)(s->p[j] <= '9' ? s->p[j] - '0' : (s->p[j] | 32) - 'a' + 10);
                j++;
            }
            if (j > from && j < s->n && s->p[j] == ';') {
                fa_jj_puts(m, &m->out, buf, (size_t)fa_utf8_encode(cp, buf));
                used = j + 1 - i;
            }
        }
        if (!used) {
            fa_jj_puts(m, &m->out, s->p + i, 1);
            used = 1;
        }
        i += used;
    }
    return fa_jj_take(m, mark);
}

static fa_jjv f_striptags(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv none[2] = {fa_jj_missing(), fa_jj_missing()};
    fa_jjargs no = {.v = none};
    (void)a;
    fa_jjstr *s = without(m, without(m, fa_jj_str(m, v), "<!--", "-->"), "<", ">");
    fa_jjv words = as_method(m, fa_jj_strv(s), "split", &no);
    fa_jjargs join = {.v = &words, .n = 1};
    return fa_jj_strv(unescape(m, as_method(m, fa_jj_text(m, " "), "join", &join).u.s));
}

/* ---- for people ---- */

/* filesizeformat(binary) */
static fa_jjv f_filesizeformat(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    static const char prefix[] = "kMGTPEZY";
    bool binary = flag(m, a, 0);
    double base = binary ? 1024 : 1000, unit = base, f;
    char buf[64];
    const fa_jjfunc *to_float = fa_jj_filter("float", 5);
    fa_jjv nan = fa_jj_none();
    fa_jjargs arg = {.v = &nan, .n = 1};
    fa_jjv x = to_float->fn(m, v, &arg);
    if (x.t != FA_JJ_FLOAT) fa_jj_fail(m, FFAI_EINVAL, "could not convert %s to float", fa_jj_type(v));
    f = x.u.f;
    if (f == 1) return fa_jj_text(m, "1 Byte");
    if (f < base) {
        snprintf(buf, sizeof buf, "%lld Bytes", (long long)f);
        return fa_jj_strv(fa_jj_copy(m, buf, strlen(buf)));
    }
    for (int i = 0; i < 8; i++) {
        unit *= base;
        if (f >= unit && i < 7) continue;
        snprintf(buf, sizeof buf, "%.1f %c%sB", base * f / unit, binary && i == 0 ? 'K' : prefix[i], binary ? "i" : "");
        for (char *p = buf; *p; p++)
            if (*p == ',') *p = '.';
        break;
    }
    return fa_jj_strv(fa_jj_copy(m, buf, strlen(buf)));
}

/* pprint of what fits one line: as repr, with the keys of dicts in order. */
static fa_jjv in_order(fa_jj *m, fa_jjv v) {
    if (v.t == FA_JJ_LIST || v.t == FA_JJ_TUPLE) {
        fa_jjv r = v;
        r.u.l = fa_jj_list(m, v.u.l->n);
        fa_jj_enter(m);
        for (size_t i = 0; i < v.u.l->n; i++) fa_jj_push(m, r.u.l, in_order(m, v.u.l->v[i]));
        fa_jj_leave(m);
        return r;
    }
    if (v.t != FA_JJ_DICT || v.u.d->n > 80) return v;
    fa_jjdict *d = fa_jj_dict(m, v.u.d->n);
    bool *done = (bool *)fa_jj_alloc(m, v.u.d->n + 1, sizeof *done);
    fa_jj_enter(m);
    for (size_t k = 0; k < v.u.d->n; k++) {
        size_t least = SIZE_MAX;
        for (size_t i = 0; i < v.u.d->n; i++)
            if (!done[i] && (least == SIZE_MAX || fa_jj_cmp(m, v.u.d->e[i].key, v.u.d->e[least].key, "<") == -1))
                least = i;
        done[least] = true;
        fa_jj_dict_set(m, d, v.u.d->e[least].key, in_order(m, v.u.d->e[least].val));
    }
    fa_jj_leave(m);
    return fa_jj_dictv(d);
}

static fa_jjv f_pprint(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    (void)a;
    fa_jjstr *s = fa_jj_repr(m, v);
    if (fa_jj_ncp(m, s) > 80) fa_jj_fail(m, FFAI_ENOTSUP, "the filter \"pprint\" is supported for short values only");
    return fa_jj_strv(fa_jj_repr(m, in_order(m, v)));
}

static fa_jjv f_refuse(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    (void)v, (void)a;
    fa_jj_fail(m, FFAI_ENOTSUP, "the filters \"urlize\" and \"wordwrap\" are not supported in chat templates");
}

const fa_jjfunc fa_jj_text_filters[] = {
    {"trim", f_trim, "chars=", "do_trim", false},
    {"string", f_string, "", "soft_str", false},
    {"upper", f_upper, "", "do_upper", false},
    {"lower", f_lower, "", "do_lower", false},
    {"safe", f_safe, "", "do_mark_safe", false},
    {"replace", f_replace, "old,new,count=", "do_replace", false},
    {"indent", f_indent, "width=,first=,blank=", "do_indent", false},
    {"capitalize", f_capitalize, "", "do_capitalize", false},
    {"title", f_title, "", "do_title", false},
    {"center", f_center, "width=", "do_center", false},
    {"escape", f_escape, "", "escape", false},
    {"e", f_escape, "", "escape", false},
    {"forceescape", f_forceescape, "", "do_forceescape", false},
    {"format", f_format, NULL, "do_format", false},
    {"truncate", f_truncate, "length=,killwords=,end=,leeway=", "do_truncate", false},
    {"wordcount", f_wordcount, "", "do_wordcount", false},
    {"urlencode", f_urlencode, "", "do_urlencode", false},
    {"xmlattr", f_xmlattr, "autospace=", "do_xmlattr", false},
    {"striptags", f_striptags, "", "do_striptags", false},
    {"filesizeformat", f_filesizeformat, "binary=", "do_filesizeformat", false},
    {"pprint", f_pprint, "", "do_pprint", false},
    {"urlize", f_refuse, NULL, "do_urlize", false},
    {"wordwrap", f_refuse, NULL, "do_wordwrap", false},
    {0}};
