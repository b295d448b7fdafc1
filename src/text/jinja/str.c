/* Strings: code points in UTF-8 bytes, cutting, joining, searching, stripping, escaping. */
#define _GNU_SOURCE
#include "base/utf8.h"
#include "text/jinja/int.h"

#include <string.h>

fa_jjstr *fa_jj_ref(fa_jj *m, const char *p, size_t n) {
    fa_jjstr *s = (fa_jjstr *)fa_jj_alloc(m, 1, sizeof *s);
    if (n >= UINT32_MAX) fa_jj_fail(m, FFAI_ELIMIT, "a string of %zu bytes is too long", n);
    s->p = p;
    s->n = (uint32_t)n;
    s->ncp = UINT32_MAX;
    return s;
}

fa_jjstr *fa_jj_copy(fa_jj *m, const char *p, size_t n) {
    char *q = (char *)fa_jj_alloc(m, n + 1, 1);
    fa_jj_step(m, n / 64);
    if (n) memcpy(q, p, n);
    return fa_jj_ref(m, q, n);
}

fa_jjv fa_jj_text(fa_jj *m, const char *s) { return fa_jj_strv(fa_jj_ref(m, s, strlen(s))); }

fa_jjstr *fa_jj_mark(fa_jj *m, fa_jjstr *s) {
    if (s->markup) return s;
    fa_jjstr *r = fa_jj_ref(m, s->p, s->n);
    r->ncp = s->ncp;
    r->markup = true;
    return r;
}

bool fa_jj_same(const fa_jjstr *a, const fa_jjstr *b) {
    return a->n == b->n && (!a->n || memcmp(a->p, b->p, a->n) == 0);
}

bool fa_jj_is(const fa_jjstr *s, const char *text) { return s->n == strlen(text) && memcmp(s->p, text, s->n) == 0; }

/* ---- code points ---- */

uint32_t fa_jj_ncp(fa_jj *m, fa_jjstr *s) {
    if (s->ncp != UINT32_MAX) return s->ncp;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++) n += ((unsigned char)s->p[i] & 0xC0) != 0x80;
    fa_jj_step(m, s->n / 64);
    return s->ncp = n;
}

/* Strings with other than ASCII are walked from the last place that was asked for, or from an end. */
size_t fa_jj_offset(fa_jj *m, fa_jjstr *s, size_t cp) {
    uint32_t n = fa_jj_ncp(m, s);
    if (cp >= n) return s->n;
    if (n == s->n) return cp;
    size_t at = 0, k = 0;
    if (m->seen == s) {
        k = m->seen_cp;
        at = m->seen_at;
        if (cp < k / 2) k = at = 0;
    }
    size_t from = at;
    for (; k < cp; k++) do
            at++;
        while (at < s->n && ((unsigned char)s->p[at] & 0xC0) == 0x80);
    for (; k > cp; k--) do
            at--;
        while (at > 0 && ((unsigned char)s->p[at] & 0xC0) == 0x80);
    fa_jj_step(m, (at > from ? at - from : from - at) / 16);
    m->seen = s;
    m->seen_cp = (uint32_t)k;
    m->seen_at = (uint32_t)at;
    return at;
}

size_t fa_jj_cp_at(fa_jj *m, fa_jjstr *s, size_t off) {
    size_t n = 0;
    if (fa_jj_ncp(m, s) == s->n) return off;
    for (size_t i = 0; i < off; i++) n += ((unsigned char)s->p[i] & 0xC0) != 0x80;
    fa_jj_step(m, off / 32);
    return n;
}

fa_jjstr *fa_jj_sub(fa_jj *m, fa_jjstr *s, size_t from, size_t to) {
    if (from == 0 && to == s->n) return s;
    if (to < from) to = from;
    fa_jjstr *r = fa_jj_ref(m, s->p + from, to - from);
    if (s->ncp == s->n) r->ncp = r->n;
    r->markup = s->markup;
    return r;
}

fa_jjstr *fa_jj_char(fa_jj *m, fa_jjstr *s, size_t off, size_t *len) {
    unsigned char c = (unsigned char)s->p[off];
    if (c < 128) {
        *len = 1;
        if (!m->one[c]) {
            m->one[c] = fa_jj_copy(m, s->p + off, 1);
            m->one[c]->ncp = 1;
        }
        return m->one[c];
    }
    *len = 1;
    while (off + *len < s->n && ((unsigned char)s->p[off + *len] & 0xC0) == 0x80) ++*len;
    fa_jjstr *r = fa_jj_ref(m, s->p + off, *len);
    r->ncp = 1;
    return r;
}

/* ---- joining ---- */

/* a + b. Where a is the newest text of a buffer with room, b is put behind it: text that grows piece by piece is not
 * copied again and again. */
fa_jjv fa_jj_concat(fa_jj *m, fa_jjstr *a, fa_jjstr *b) {
    size_t n = (size_t)a->n + b->n;
    fa_jjstr *r;
    if (!a->n || !b->n) {
        r = a->n ? a : b;
        return fa_jj_strv(r->markup ? fa_jj_ref(m, r->p, r->n) : r);
    }
    fa_jj_step(m, b->n / 64);
    int g = -1;
    for (int i = 0; i < 4; i++)
        if (m->grow[i].base && a->p >= m->grow[i].base && a->p + a->n == m->grow[i].base + m->grow[i].used &&
            m->grow[i].cap - m->grow[i].used >= b->n)
            g = i;
    if (g < 0) {
        size_t cap = n < 64 ? n : n + n / 2 + 64;
        char *p = (char *)fa_jj_alloc(m, cap, 1);
        fa_jj_step(m, a->n / 64);
        memcpy(p, a->p, a->n);
        memcpy(p + a->n, b->p, b->n);
        if (n >= 64) {
            m->grow[m->grow_next].base = p;
            m->grow[m->grow_next].used = n;
            m->grow[m->grow_next].cap = cap;
            m->grow_next = (m->grow_next + 1) & 3;
        }
        r = fa_jj_ref(m, p, n);
    } else {
        memcpy(m->grow[g].base + m->grow[g].used, b->p, b->n);
        m->grow[g].used += b->n;
        r = fa_jj_ref(m, a->p, n);
    }
    if (a->ncp != UINT32_MAX && b->ncp != UINT32_MAX) r->ncp = a->ncp + b->ncp;
    return fa_jj_strv(r);
}

/* ---- searching ---- */

size_t fa_jj_find(fa_jj *m, const fa_jjstr *s, const fa_jjstr *what, size_t from) {
    if (from > s->n || what->n > s->n - from) return SIZE_MAX;
    if (!what->n) return from;
    const char *p = (const char *)memmem(s->p + from, s->n - from, what->p, what->n);
    size_t at = p ? (size_t)(p - s->p) : SIZE_MAX;
    fa_jj_step(m, ((p ? at + what->n : s->n) - from) / 64);
    return at;
}

fa_jjstr *fa_jj_replace(fa_jj *m, fa_jjstr *s, fa_jjstr *from, fa_jjstr *to, int64_t count) {
    size_t mark = m->out.len, at = 0;
    if (count == 0 || from->n > s->n) return s;
    for (int64_t k = 0; count < 0 || k < count; k++) {
        size_t hit = fa_jj_find(m, s, from, from->n ? at : k ? at + 1 : 0);
        if (hit == SIZE_MAX || (!from->n && k && at >= s->n)) break;
        if (!from->n && k) /* between characters */
            while (hit < s->n && ((unsigned char)s->p[hit] & 0xC0) == 0x80) hit++;
        fa_jj_step(m, 1);
        fa_jj_puts(m, &m->out, s->p + at, hit - at);
        fa_jj_puts(m, &m->out, to->p, to->n);
        at = hit + from->n;
    }
    if (at == 0 && m->out.len == mark) return s;
    fa_jj_puts(m, &m->out, s->p + at, s->n - at);
    fa_jjstr *r = fa_jj_take(m, mark);
    r->markup = s->markup;
    return r;
}

/* ---- white space ---- */

bool fa_jj_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool strips(const char *p, size_t len, const fa_jjstr *chars) {
    uint32_t cp;
    if (chars) { /* is this character among chars? */
        for (size_t i = 0; i + len <= chars->n; i++)
            if (memcmp(chars->p + i, p, len) == 0) return true;
        return false;
    }
    fa_utf8_decode(p, len, &cp);
    return fa_jj_space(cp);
}

fa_jjstr *fa_jj_strip(fa_jj *m, fa_jjstr *s, const fa_jjstr *chars, int side) {
    size_t from = 0, to = s->n;
    while (side & 1 && from < to) {
        size_t len = 1;
        while (from + len < to && ((unsigned char)s->p[from + len] & 0xC0) == 0x80) len++;
        if (!strips(s->p + from, len, chars)) break;
        from += len;
        if (chars) fa_jj_step(m, chars->n / 8);
    }
    while (side & 2 && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)s->p[at] & 0xC0) == 0x80) at--;
        if (!strips(s->p + at, to - at, chars)) break;
        to = at;
        if (chars) fa_jj_step(m, chars->n / 8);
    }
    fa_jj_step(m, (s->n - (to - from)) / 16);
    return fa_jj_sub(m, s, from, to);
}

/* Bytes of a line end at p, 0: none. Python's: \n \r \r\n \v \f \x1c-\x1e \x85 U+2028 U+2029 */
static size_t line_end(const char *p, size_t n) {
    unsigned char c = (unsigned char)*p;
    if (c == '\r') return n > 1 && p[1] == '\n' ? 2 : 1;
    if ((c >= 10 && c <= 12) || (c >= 0x1C && c <= 0x1E)) return 1;
    if (c == 0xC2 && n > 1 && (unsigned char)p[1] == 0x85) return 2;
    if (c == 0xE2 && n > 2 && (unsigned char)p[1] == 0x80 && ((unsigned char)p[2] & 0xFE) == 0xA8) return 3;
    return 0;
}

fa_jjlist *fa_jj_splitlines(fa_jj *m, fa_jjstr *s, bool keep) {
    fa_jjlist *l = fa_jj_list(m, 0);
    size_t from = 0, at = 0;
    while (at < s->n) {
        size_t k = line_end(s->p + at, s->n - at);
        if (!k) {
            at++;
            continue;
        }
        fa_jj_push(m, l, fa_jj_strv(fa_jj_sub(m, s, from, keep ? at + k : at)));
        from = at += k;
    }
    if (from < s->n) fa_jj_push(m, l, fa_jj_strv(fa_jj_sub(m, s, from, s->n)));
    fa_jj_step(m, s->n / 16 + l->n);
    return l;
}

/* ---- escaping ---- */

fa_jjstr *fa_jj_escape(fa_jj *m, fa_jjv v) {
    if (v.t == FA_JJ_STR && v.u.s->markup) return v.u.s;
    fa_jjstr *s = fa_jj_str(m, v);
    size_t mark = m->out.len, done = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *to = s->p[i] == '&'    ? "&amp;"
                         : s->p[i] == '<'  ? "&lt;"
                         : s->p[i] == '>'  ? "&gt;"
                         : s->p[i] == '"'  ? "&#34;"
                         : s->p[i] == '\'' ? "&#39;"
                                           : NULL;
        if (!to) continue;
        fa_jj_puts(m, &m->out, s->p + done, i - done);
        fa_jj_puts(m, &m->out, to, strlen(to));
        done = i + 1;
    }
    fa_jj_step(m, s->n / 16);
    if (!done) return fa_jj_mark(m, s);
    fa_jj_puts(m, &m->out, s->p + done, s->n - done);
    fa_jjstr *r = fa_jj_take(m, mark);
    r->markup = true;
    return r;
}

/* ---- padding ---- */

/* align: '<' '>' '^' as format does it, 'c' as str.center does (the odd one goes to the left when the width is odd) */
fa_jjstr *fa_jj_pad(fa_jj *m, fa_jjstr *s, int64_t width, const char *fill, size_t n_fill, int align) {
    int64_t n = fa_jj_ncp(m, s), left = 0, all = width - n;
    if (all <= 0) return s;
    if (all > UINT32_MAX) fa_jj_fail(m, FFAI_ELIMIT, "a width of %lld is too large", (long long)width);
    if (align == '>') left = all;
    if (align == '^') left = all / 2;
    if (align == 'c') left = all / 2 + (all & width & 1);
    size_t mark = m->out.len;
    for (int64_t i = 0; i < left; i++) fa_jj_puts(m, &m->out, fill, n_fill);
    fa_jj_puts(m, &m->out, s->p, s->n);
    for (int64_t i = left; i < all; i++) fa_jj_puts(m, &m->out, fill, n_fill);
    fa_jj_step(m, (size_t)all / 4);
    fa_jjstr *r = fa_jj_take(m, mark);
    r->markup = s->markup;
    return r;
}
