/* The methods of str. */
#include "base/utf8.h"
#include "text/jinja/int.h"
#include "text/ucd.h"

#include <stdlib.h>
#include <string.h>

/* An argument that must be a string. */
static fa_jjstr *want(fa_jj *m, fa_jjv v, const char *msg) {
    if (v.t != FA_JJ_STR) fa_jj_type_error(m, "%s, not %s", msg, v.t == FA_JJ_NONE ? "None" : fa_jj_type(v));
    return v.u.s;
}

/* slice-like positions: code points, negative from the end; byte offsets out */
static bool window(fa_jj *m, fa_jjstr *s, const fa_jjargs *a, size_t i, size_t *from, size_t *to) {
    int64_t n = fa_jj_ncp(m, s), lo = 0, hi = n;
    fa_jjv x = fa_jj_arg(a, i, fa_jj_none()), y = fa_jj_arg(a, i + 1, fa_jj_none());
    if (x.t != FA_JJ_NONE) lo = fa_jj_index(m, x);
    if (y.t != FA_JJ_NONE) hi = fa_jj_index(m, y);
    if (lo < 0) lo = lo < -n ? 0 : lo + n;
    if (hi < 0) hi = hi < -n ? 0 : hi + n;
    if (hi > n) hi = n;
    if (lo > n || lo > hi) return false;
    *from = fa_jj_offset(m, s, (size_t)lo);
    *to = fa_jj_offset(m, s, (size_t)hi);
    return true;
}

#define CASE(name, how)                                                                                                \
    static fa_jjv name(fa_jj *m, fa_jjv self, const fa_jjargs *a) {                                                    \
        (void)a;                                                                                                       \
        return fa_jj_strv(fa_jj_case(m, self.u.s, how));                                                               \
    }
CASE(s_upper, 'u')
CASE(s_lower, 'l')
CASE(s_title, 't')
CASE(s_capitalize, 'c')
CASE(s_swapcase, 's')
CASE(s_casefold, 'f')

static fa_jjv strip(fa_jj *m, fa_jjv self, const fa_jjargs *a, int side) {
    fa_jjv c = fa_jj_arg(a, 0, fa_jj_none());
    static const char *const msg[] = {"", "lstrip arg must be None or str", "rstrip arg must be None or str",
                                      "strip arg must be None or str"};
    if (c.t != FA_JJ_NONE && c.t != FA_JJ_STR) fa_jj_type_error(m, "%s", msg[side]);
    const fa_jjstr *chars = c.t == FA_JJ_STR ? want(m, c, "") : NULL;
    return fa_jj_strv(fa_jj_strip(m, self.u.s, chars, side));
}

static fa_jjv s_strip(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return strip(m, self, a, 3); }
static fa_jjv s_lstrip(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return strip(m, self, a, 1); }
static fa_jjv s_rstrip(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return strip(m, self, a, 2); }

/* ---- cutting ---- */

static size_t char_len(const fa_jjstr *s, size_t at) {
    uint32_t cp;
    return (size_t)fa_utf8_decode(s->p + at, s->n - at, &cp);
}

static bool space_at(const fa_jjstr *s, size_t at) {
    uint32_t cp;
    fa_utf8_decode(s->p + at, s->n - at, &cp);
    return fa_jj_space(cp);
}

static size_t back(const fa_jjstr *s, size_t at) {
    do at--;
    while (at > 0 && ((unsigned char)s->p[at] & 0xC0) == 0x80);
    return at;
}

static fa_jjlist *split_space(fa_jj *m, fa_jjstr *s, int64_t max) {
    fa_jjlist *l = fa_jj_list(m, 0);
    size_t at = 0;
    fa_jj_step(m, s->n / 16);
    for (;;) {
        while (at < s->n && space_at(s, at)) at += char_len(s, at);
        if (at >= s->n) return l;
        size_t from = at;
        if (max == 0) {
            fa_jj_push(m, l, fa_jj_strv(fa_jj_strip(m, fa_jj_sub(m, s, from, s->n), NULL, 2)));
            return l;
        }
        while (at < s->n && !space_at(s, at)) at += char_len(s, at);
        fa_jj_step(m, 1);
        fa_jj_push(m, l, fa_jj_strv(fa_jj_sub(m, s, from, at)));
        if (max > 0) max--;
    }
}

static void reverse(fa_jjlist *l) {
    for (size_t i = 0; i < l->n / 2; i++) {
        fa_jjv v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static fa_jjlist *rsplit_space(fa_jj *m, fa_jjstr *s, int64_t max) {
    fa_jjlist *l = fa_jj_list(m, 0);
    size_t at = s->n;
    fa_jj_step(m, s->n / 16);
    for (;;) {
        while (at > 0 && space_at(s, back(s, at))) at = back(s, at);
        if (!at) break;
        size_t to = at;
        if (max == 0) {
            fa_jj_push(m, l, fa_jj_strv(fa_jj_strip(m, fa_jj_sub(m, s, 0, to), NULL, 1)));
            break;
        }
        while (at > 0 && !space_at(s, back(s, at))) at = back(s, at);
        fa_jj_step(m, 1);
        fa_jj_push(m, l, fa_jj_strv(fa_jj_sub(m, s, at, to)));
        if (max > 0) max--;
    }
    reverse(l);
    return l;
}

/* The last occurrence that ends at or before `end`. */
static size_t find_last(fa_jj *m, const fa_jjstr *s, const fa_jjstr *what, size_t from, size_t end) {
    if (what->n > end - from) return SIZE_MAX;
    for (size_t at = end - what->n + 1; at-- > from;) {
        if (!(at & 63)) fa_jj_step(m, 1);
        if (!what->n) return at;
        if (s->p[at] != what->p[0]) continue;
        fa_jj_step(m, what->n / 64);
        if (memcmp(s->p + at, what->p, what->n) == 0) return at;
    }
    return SIZE_MAX;
}

static fa_jjlist *split_at(fa_jj *m, fa_jjstr *s, const fa_jjstr *sep, int64_t max, bool right) {
    fa_jjlist *l = fa_jj_list(m, 0);
    size_t from = 0, to = s->n, hit;
    if (!sep->n) fa_jj_fail(m, FFAI_EINVAL, "empty separator");
    for (; max != 0; max -= max > 0) {
        hit = right ? find_last(m, s, sep, 0, to) : fa_jj_find(m, s, sep, from);
        if (hit == SIZE_MAX) break;
        fa_jj_step(m, 1);
        fa_jj_push(m, l, fa_jj_strv(right ? fa_jj_sub(m, s, hit + sep->n, to) : fa_jj_sub(m, s, from, hit)));
        if (right)
            to = hit;
        else
            from = hit + sep->n;
    }
    fa_jj_push(m, l, fa_jj_strv(fa_jj_sub(m, s, from, to)));
    if (right) reverse(l);
    return l;
}

static fa_jjv split(fa_jj *m, fa_jjv self, const fa_jjargs *a, bool right) {
    fa_jjv sep = fa_jj_arg(a, 0, fa_jj_none());
    int64_t max = fa_jj_index(m, fa_jj_arg(a, 1, fa_jj_int(-1)));
    if (sep.t == FA_JJ_NONE) return fa_jj_listv(right ? rsplit_space(m, self.u.s, max) : split_space(m, self.u.s, max));
    if (sep.t != FA_JJ_STR) fa_jj_type_error(m, "must be str or None, not %s", fa_jj_type(sep));
    return fa_jj_listv(split_at(m, self.u.s, want(m, sep, ""), max, right));
}

static fa_jjv s_split(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return split(m, self, a, false); }
static fa_jjv s_rsplit(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return split(m, self, a, true); }

static fa_jjv s_splitlines(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    return fa_jj_listv(fa_jj_splitlines(m, self.u.s, fa_jj_truth(m, fa_jj_arg(a, 0, fa_jj_bool(false)))));
}

static fa_jjv partition(fa_jj *m, fa_jjv self, const fa_jjargs *a, bool right) {
    fa_jjstr *s = self.u.s, *sep = want(m, a->v[0], "must be str"), *empty = fa_jj_sub(m, s, 0, 0);
    if (!sep->n) fa_jj_fail(m, FFAI_EINVAL, "empty separator");
    size_t hit = right ? find_last(m, s, sep, 0, s->n) : fa_jj_find(m, s, sep, 0);
    fa_jjlist *l = fa_jj_list(m, 3);
    bool none = hit == SIZE_MAX;
    fa_jj_push(m, l, fa_jj_strv(none ? (right ? empty : s) : fa_jj_sub(m, s, 0, hit)));
    fa_jj_push(m, l, fa_jj_strv(none ? empty : sep));
    fa_jj_push(m, l, fa_jj_strv(none ? (right ? s : empty) : fa_jj_sub(m, s, hit + sep->n, s->n)));
    return fa_jj_tuplev(l);
}

static fa_jjv s_partition(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return partition(m, self, a, false); }
static fa_jjv s_rpartition(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return partition(m, self, a, true); }

static bool begins(const fa_jjstr *s, size_t from, size_t to, const fa_jjstr *what, bool end) {
    if (what->n > to - from) return false;
    return !what->n || memcmp(s->p + (end ? to - what->n : from), what->p, what->n) == 0;
}

static fa_jjv affix(fa_jj *m, fa_jjv self, const fa_jjargs *a, bool end) {
    size_t from = 0, to = self.u.s->n;
    const char *name = end ? "endswith" : "startswith";
    fa_jjv v = a->v[0];
    bool inside = window(m, self.u.s, a, 1, &from, &to);
    if (v.t == FA_JJ_TUPLE) {
        for (size_t i = 0; i < v.u.l->n; i++) {
            fa_jjv x = v.u.l->v[i];
            if (x.t != FA_JJ_STR)
                fa_jj_type_error(m, "tuple for %s must only contain str, not %s", name, fa_jj_type(x));
            if (inside && begins(self.u.s, from, to, x.u.s, end)) return fa_jj_bool(true);
        }
        return fa_jj_bool(false);
    }
    if (v.t != FA_JJ_STR)
        fa_jj_type_error(m, "%s first arg must be str or a tuple of str, not %s", name, fa_jj_type(v));
    return fa_jj_bool(inside && begins(self.u.s, from, to, v.u.s, end));
}

static fa_jjv s_startswith(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return affix(m, self, a, false); }
static fa_jjv s_endswith(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return affix(m, self, a, true); }

static fa_jjv s_removeprefix(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjstr *p = want(m, a->v[0], "removeprefix() argument must be str");
    return fa_jj_strv(begins(self.u.s, 0, self.u.s->n, p, false) ? fa_jj_sub(m, self.u.s, p->n, self.u.s->n)
                                                                 : self.u.s);
}

static fa_jjv s_removesuffix(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjstr *p = want(m, a->v[0], "removesuffix() argument must be str");
    return fa_jj_strv(begins(self.u.s, 0, self.u.s->n, p, true) ? fa_jj_sub(m, self.u.s, 0, self.u.s->n - p->n)
                                                                : self.u.s);
}

/* ---- searching ---- */

static int64_t find(fa_jj *m, fa_jjv self, const fa_jjargs *a, bool right) {
    size_t from, to;
    if (a->v[0].t != FA_JJ_STR) fa_jj_type_error(m, "must be str, not %s", fa_jj_type(a->v[0]));
    fa_jjstr *what = a->v[0].u.s;
    if (!window(m, self.u.s, a, 1, &from, &to)) return -1;
    fa_jjstr part = {.p = self.u.s->p, .n = (uint32_t)to};
    size_t hit = right ? find_last(m, self.u.s, what, from, to) : fa_jj_find(m, &part, what, from);
    return hit == SIZE_MAX ? -1 : (int64_t)fa_jj_cp_at(m, self.u.s, hit);
}

static fa_jjv s_find(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return fa_jj_int(find(m, self, a, false)); }
static fa_jjv s_rfind(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return fa_jj_int(find(m, self, a, true)); }

static fa_jjv found(fa_jj *m, int64_t i) {
    if (i < 0) fa_jj_fail(m, FFAI_EINVAL, "substring not found");
    return fa_jj_int(i);
}

static fa_jjv s_index(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return found(m, find(m, self, a, false)); }
static fa_jjv s_rindex(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return found(m, find(m, self, a, true)); }

static fa_jjv s_count(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    size_t from, to;
    int64_t n = 0;
    if (a->v[0].t != FA_JJ_STR) fa_jj_type_error(m, "must be str, not %s", fa_jj_type(a->v[0]));
    fa_jjstr *what = a->v[0].u.s;
    if (!window(m, self.u.s, a, 1, &from, &to)) return fa_jj_int(0);
    fa_jjstr part = {.p = self.u.s->p, .n = (uint32_t)to, .ncp = UINT32_MAX};
    if (!what->n) {
        part.p += from;
        part.n -= (uint32_t)from;
        return fa_jj_int((int64_t)fa_jj_ncp(m, &part) + 1);
    }
    for (size_t at = from; (at = fa_jj_find(m, &part, what, at)) != SIZE_MAX; at += what->n, n++) fa_jj_step(m, 1);
    return fa_jj_int(n);
}

static fa_jjv s_replace(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjstr *from = want(m, a->v[0], "replace() argument 1 must be str");
    fa_jjstr *to = want(m, a->v[1], "replace() argument 2 must be str");
    if (self.u.s->markup) to = fa_jj_escape(m, fa_jj_strv(to));
    return fa_jj_strv(fa_jj_replace(m, self.u.s, from, to, fa_jj_index(m, fa_jj_arg(a, 2, fa_jj_int(-1)))));
}

/* ---- joining, padding, formatting ---- */

static fa_jjv s_join(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjv x;
    size_t i = 0;
    if (!fa_jj_iterable(a->v[0])) fa_jj_type_error(m, "can only join an iterable");
    fa_jjlist *l = fa_jj_to_list(m, a->v[0]); /* first: the items may be computed by the template */
    size_t mark = m->out.len;
    for (i = 0; i < l->n; i++) {
        x = l->v[i];
        if (self.u.s->markup)
            x = fa_jj_strv(fa_jj_escape(m, x));
        else if (x.t != FA_JJ_STR)
            fa_jj_type_error(m, "sequence item %zu: expected str instance, %s found", i, fa_jj_type(x));
        if (i) fa_jj_puts(m, &m->out, self.u.s->p, self.u.s->n);
        fa_jj_puts(m, &m->out, x.u.s->p, x.u.s->n);
    }
    fa_jjstr *r = fa_jj_take(m, mark);
    r->markup = self.u.s->markup;
    return fa_jj_strv(r);
}

static fa_jjv pad(fa_jj *m, fa_jjv self, const fa_jjargs *a, int align) {
    fa_jjv fill = fa_jj_arg(a, 1, fa_jj_missing());
    if (fill.t != FA_JJ_MISSING && fill.t != FA_JJ_STR)
        fa_jj_type_error(m, "The fill character must be a unicode character, not %s", fa_jj_type(fill));
    if (fill.t == FA_JJ_STR && fa_jj_ncp(m, fill.u.s) != 1)
        fa_jj_type_error(m, "The fill character must be exactly one character long");
    return fa_jj_strv(fa_jj_pad(m, self.u.s, fa_jj_index(m, a->v[0]), fill.t == FA_JJ_STR ? fill.u.s->p : " ",
                                fill.t == FA_JJ_STR ? fill.u.s->n : 1, align));
}

static fa_jjv s_center(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return pad(m, self, a, 'c'); }
static fa_jjv s_ljust(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return pad(m, self, a, '<'); }
static fa_jjv s_rjust(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return pad(m, self, a, '>'); }

static fa_jjv s_zfill(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjstr *s = self.u.s;
    int64_t width = fa_jj_index(m, a->v[0]);
    bool sign = s->n && (s->p[0] == '-' || s->p[0] == '+');
    if (!sign) return fa_jj_strv(fa_jj_pad(m, s, width, "0", 1, '>'));
    fa_jjstr *digits = fa_jj_pad(m, fa_jj_sub(m, s, 1, s->n), width - 1, "0", 1, '>');
    return fa_jj_concat(m, fa_jj_sub(m, s, 0, 1), digits);
}

static fa_jjv s_expandtabs(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    int64_t size = fa_jj_index(m, fa_jj_arg(a, 0, fa_jj_int(8))), col = 0;
    size_t mark = m->out.len;
    fa_jjstr *s = self.u.s;
    for (size_t i = 0; i < s->n; i++) {
        if (s->p[i] == '\t') {
            for (int64_t k = size > 0 ? size - col % size : 0; k > 0; k--, col++) fa_jj_puts(m, &m->out, " ", 1);
            fa_jj_step(m, size > 0 ? (size_t)size / 8 : 0);
            continue;
        }
        fa_jj_puts(m, &m->out, s->p + i, 1);
        col += ((unsigned char)s->p[i] & 0xC0) != 0x80;
        if (s->p[i] == '\n' || s->p[i] == '\r') col = 0;
    }
    fa_jj_step(m, s->n / 8);
    return fa_jj_strv(fa_jj_take(m, mark));
}

static fa_jjv s_format(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return fa_jj_format(m, self.u.s, a, NULL); }

static fa_jjv s_format_map(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjargs none = {0};
    return fa_jj_format(m, self.u.s, &none, &a->v[0]);
}

/* ---- what it consists of ---- */

static bool is_decimal(uint32_t cp) { return (fa_ucd(cp) & FA_UCD_GC) == FA_GC_ND; }

static bool is_digit(uint32_t cp) {
    return is_decimal(cp) || cp == 0xB2 || cp == 0xB3 || cp == 0xB9 || cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) ||
           (cp >= 0x2080 && cp <= 0x2089) || (cp >= 0x2460 && cp <= 0x2468) || (cp >= 0x2474 && cp <= 0x247C) ||
           (cp >= 0x2488 && cp <= 0x2490) || cp == 0x24EA || (cp >= 0x24F5 && cp <= 0x24FD) || cp == 0x24FF ||
           (cp >= 0x2776 && cp <= 0x277E) || (cp >= 0x2780 && cp <= 0x2788) || (cp >= 0x278A && cp <= 0x2792);
}

static bool is_alpha(uint32_t cp) { return FA_GC_BIT(fa_ucd(cp) & FA_UCD_GC) & FA_SET_L; }

static bool is_numeric(uint32_t cp) {
    unsigned g = fa_ucd(cp) & FA_UCD_GC;
    return g == FA_GC_ND || g == FA_GC_NL || g == FA_GC_NO || is_digit(cp);
}

static bool is_alnum(uint32_t cp) { return is_alpha(cp) || is_numeric(cp); }
static bool is_ascii(uint32_t cp) { return cp < 128; }

static bool is_printable(uint32_t cp) {
    unsigned g = fa_ucd(cp) & FA_UCD_GC;
    return cp == ' ' || (g != FA_GC_CN && g != FA_GC_CC && g != FA_GC_CF && g != FA_GC_CO && g != FA_GC_ZS &&
                         g != FA_GC_ZL && g != FA_GC_ZP);
}

static fa_jjv all(fa_jj *m, fa_jjv self, bool (*is)(uint32_t), bool empty) {
    const fa_jjstr *s = self.u.s;
    uint32_t cp;
    fa_jj_step(m, s->n / 16);
    for (size_t i = 0; i < s->n;) {
        i += (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        if (!is(cp)) return fa_jj_bool(false);
    }
    return fa_jj_bool(s->n ? true : empty);
}

#define ALL(name, is, empty)                                                                                           \
    static fa_jjv name(fa_jj *m, fa_jjv self, const fa_jjargs *a) {                                                    \
        (void)a;                                                                                                       \
        return all(m, self, is, empty);                                                                                \
    }
ALL(s_isdigit, is_digit, false)
ALL(s_isdecimal, is_decimal, false)
ALL(s_isnumeric, is_numeric, false)
ALL(s_isalpha, is_alpha, false)
ALL(s_isalnum, is_alnum, false)
ALL(s_isspace, fa_jj_space, false)
ALL(s_isascii, is_ascii, true)
ALL(s_isprintable, is_printable, true)

/* all cased characters are upper (or lower), and there is one */
static fa_jjv one_case(fa_jj *m, fa_jjv self, bool upper) {
    const fa_jjstr *s = self.u.s;
    bool any = false;
    uint32_t cp;
    fa_jj_step(m, s->n / 16);
    for (size_t i = 0; i < s->n;) {
        i += (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        bool up = fa_jj_is_upper(cp), low = fa_jj_is_lower(cp), title = (fa_ucd(cp) & FA_UCD_GC) == FA_GC_LT;
        if (title || (upper ? low : up)) return fa_jj_bool(false);
        any = any || up || low;
    }
    return fa_jj_bool(any);
}

static fa_jjv s_isupper(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)a;
    return one_case(m, self, true);
}
static fa_jjv s_islower(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)a;
    return one_case(m, self, false);
}

static fa_jjv s_istitle(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    const fa_jjstr *s = self.u.s;
    bool any = false, before = false;
    uint32_t cp;
    (void)a;
    fa_jj_step(m, s->n / 16);
    for (size_t i = 0; i < s->n;) {
        i += (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        bool up = fa_jj_is_upper(cp) || (fa_ucd(cp) & FA_UCD_GC) == FA_GC_LT, low = fa_jj_is_lower(cp);
        if ((up && before) || (low && !before)) return fa_jj_bool(false);
        before = up || low;
        any = any || before;
    }
    return fa_jj_bool(any);
}

static fa_jjv s_isidentifier(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    const fa_jjstr *s = self.u.s;
    (void)m, (void)a;
    if (!s->n || (s->p[0] >= '0' && s->p[0] <= '9')) return fa_jj_bool(false);
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        i += (size_t)fa_utf8_decode(s->p + i, s->n - i, &cp);
        if (!(cp == '_' || is_alnum(cp))) return fa_jj_bool(false);
    }
    return fa_jj_bool(true);
}

static fa_jjv refuse(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)self, (void)a;
    fa_jj_fail(m, FFAI_ENOTSUP, "encode, translate and maketrans are not supported in chat templates");
}

static const fa_jjfunc methods[] = {{"upper", s_upper, "", "str.upper", true},
                                    {"lower", s_lower, "", "str.lower", true},
                                    {"title", s_title, "", "str.title", true},
                                    {"capitalize", s_capitalize, "", "str.capitalize", true},
                                    {"swapcase", s_swapcase, "", "str.swapcase", true},
                                    {"casefold", s_casefold, "", "str.casefold", true},
                                    {"strip", s_strip, "chars=", "str.strip", true},
                                    {"lstrip", s_lstrip, "chars=", "str.lstrip", true},
                                    {"rstrip", s_rstrip, "chars=", "str.rstrip", true},
                                    {"split", s_split, "sep=,maxsplit=", "split", false},
                                    {"rsplit", s_rsplit, "sep=,maxsplit=", "rsplit", false},
                                    {"splitlines", s_splitlines, "keepends=", "splitlines", false},
                                    {"partition", s_partition, "sep", "str.partition", true},
                                    {"rpartition", s_rpartition, "sep", "str.rpartition", true},
                                    {"startswith", s_startswith, "prefix,start=,end=", "startswith", true},
                                    {"endswith", s_endswith, "suffix,start=,end=", "endswith", true},
                                    {"removeprefix", s_removeprefix, "prefix", "str.removeprefix", true},
                                    {"removesuffix", s_removesuffix, "suffix", "str.removesuffix", true},
                                    {"find", s_find, "sub,start=,end=", "find", true},
                                    {"rfind", s_rfind, "sub,start=,end=", "rfind", true},
                                    {"index", s_index, "sub,start=,end=", "index", true},
                                    {"rindex", s_rindex, "sub,start=,end=", "rindex", true},
                                    {"count", s_count, "sub,start=,end=", "count", true},
                                    {"replace", s_replace, "old,new,count=", "replace", true},
                                    {"join", s_join, "iterable", "str.join", true},
                                    {"center", s_center, "width,fillchar=", "center", true},
                                    {"ljust", s_ljust, "width,fillchar=", "ljust", true},
                                    {"rjust", s_rjust, "width,fillchar=", "rjust", true},
                                    {"zfill", s_zfill, "width", "str.zfill", true},
                                    {"expandtabs", s_expandtabs, "tabsize=", "expandtabs", false},
                                    {"format", s_format, NULL, "format", false},
                                    {"format_map", s_format_map, "mapping", "format_map", true},
                                    {"isdigit", s_isdigit, "", "str.isdigit", true},
                                    {"isdecimal", s_isdecimal, "", "str.isdecimal", true},
                                    {"isnumeric", s_isnumeric, "", "str.isnumeric", true},
                                    {"isalpha", s_isalpha, "", "str.isalpha", true},
                                    {"isalnum", s_isalnum, "", "str.isalnum", true},
                                    {"isspace", s_isspace, "", "str.isspace", true},
                                    {"isascii", s_isascii, "", "str.isascii", true},
                                    {"isprintable", s_isprintable, "", "str.isprintable", true},
                                    {"isupper", s_isupper, "", "str.isupper", true},
                                    {"islower", s_islower, "", "str.islower", true},
                                    {"istitle", s_istitle, "", "str.istitle", true},
                                    {"isidentifier", s_isidentifier, "", "str.isidentifier", true},
                                    {"encode", refuse, NULL, "encode", false},
                                    {"translate", refuse, NULL, "translate", false},
                                    {"maketrans", refuse, NULL, "maketrans", false}};

const fa_jjfunc *fa_jj_str_method(const fa_jjstr *name) {
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (fa_jj_is(name, methods[i].name)) return &methods[i];
    return NULL;
}
