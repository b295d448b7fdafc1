/* Regular expressions: what ECMAScript and Python's re have in common, read into expressions. Where the two differ in
 * what matches, the smaller set is taken (\d and \w are ASCII, \D and \W leave out all of Unicode's digits and word
 * characters), so that what is generated passes both. */
#include "text/grammar/gram_int.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "text/ucd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ranges {
    uint32_t (*r)[2];
    size_t n, cap;
} ranges;

typedef struct reader {
    fa_gb *b;
    const char *s;
    size_t n, i;
    int depth;
    bool fold, dot_all; /* (?i), (?s) */
    bool anchors;       /* there are some */
    bool search;
} reader;

static int at(const reader *r, size_t k) { return r->i + k < r->n ? (unsigned char)r->s[r->i + k] : -1; }

static uint32_t fail(reader *r, int code, size_t i, const char *what) {
    size_t col = 1;
    if (!r->b->where) return fa_gb_fail(r->b, code, i, "%s", what);
    for (size_t k = 0; k < i && k < r->n; k++) col += ((unsigned char)r->s[k] & 0xC0) != 0x80;
    return fa_gb_fail(r->b, code, SIZE_MAX, "%s: column %zu of the pattern: %s", r->b->where, col, what);
}

static void put(reader *r, ranges *s, uint32_t lo, uint32_t hi) {
    if (s->n + 2 > s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        void *p = fa_realloc(s->r, cap, sizeof *s->r);
        if (!p) {
            fa_gb_nomem(r->b);
            return;
        }
        s->r = (uint32_t(*)[2])p;
        s->cap = cap;
    }
    s->r[s->n][0] = lo;
    s->r[s->n++][1] = hi;
}

/* ---- classes ---- */

static bool in_class(int kind, uint32_t cp) {
    uint32_t set = fa_ucd_set(cp);
    switch (kind) {
    case 'd': return cp >= '0' && cp <= '9';
    case 'w': return cp < 0x80 && (cp == '_' || (set & (FA_SET_L | FA_SET_N)));
    case 's': return cp == ' ' || (cp >= 9 && cp <= 13);
    case 'D': return !(set & FA_GC_BIT(FA_GC_ND));
    case 'W': return !(set & (FA_SET_L | FA_SET_M | FA_SET_N | FA_GC_BIT(FA_GC_PC))) && !(fa_ucd(cp) & FA_UCD_WORD);
    default: return !(set & FA_SET_SPACE) && cp != 0xFEFF && !(cp >= 0x1C && cp <= 0x1F);
    }
}

/* Adds the characters for which `set` has a bit (kind 0) or that the class has. In a negated class (wide) it is the
 * larger form of a class that leaves the smaller set. */
static void put_matching(reader *r, ranges *s, int kind, uint32_t set, bool negate, bool wide) {
    uint32_t from = UINT32_MAX, top = kind && (kind & 32) && !wide ? 0x80 : 0x110000;
    for (uint32_t cp = 0; cp <= top; cp++) {
        bool in = cp < top && (!kind  ? !(fa_ucd_set(cp) & set) == negate
                               : wide ? !in_class(kind ^ 32, cp)
                                      : in_class(kind, cp));
        if (in && from == UINT32_MAX) from = cp;
        if (in || from == UINT32_MAX) continue;
        put(r, s, from, cp - 1);
        from = UINT32_MAX;
    }
}

static uint32_t category(const char *s, size_t n) {
    static const struct {
        char name[3];
        uint32_t set;
    } rows[] = {{"L", FA_SET_L},
                {"M", FA_SET_M},
                {"N", FA_SET_N},
                {"P", FA_SET_P},
                {"S", FA_SET_S},
                {"Z", FA_GC_BIT(FA_GC_ZS) | FA_GC_BIT(FA_GC_ZL) | FA_GC_BIT(FA_GC_ZP)},
                {"Lu", FA_GC_BIT(FA_GC_LU)},
                {"Ll", FA_GC_BIT(FA_GC_LL)},
                {"Lt", FA_GC_BIT(FA_GC_LT)},
                {"Lm", FA_GC_BIT(FA_GC_LM)},
                {"Lo", FA_GC_BIT(FA_GC_LO)},
                {"Mn", FA_GC_BIT(FA_GC_MN)},
                {"Mc", FA_GC_BIT(FA_GC_MC)},
                {"Nd", FA_GC_BIT(FA_GC_ND)},
                {"Nl", FA_GC_BIT(FA_GC_NL)},
                {"No", FA_GC_BIT(FA_GC_NO)},
                {"Pc", FA_GC_BIT(FA_GC_PC)},
                {"Pd", FA_GC_BIT(FA_GC_PD)},
                {"Ps", FA_GC_BIT(FA_GC_PS)},
                {"Pe", FA_GC_BIT(FA_GC_PE)},
                {"Pi", FA_GC_BIT(FA_GC_PI)},
                {"Pf", FA_GC_BIT(FA_GC_PF)},
                {"Po", FA_GC_BIT(FA_GC_PO)},
                {"Sm", FA_GC_BIT(FA_GC_SM)},
                {"Sc", FA_GC_BIT(FA_GC_SC)},
                {"Sk", FA_GC_BIT(FA_GC_SK)},
                {"So", FA_GC_BIT(FA_GC_SO)},
                {"Zs", FA_GC_BIT(FA_GC_ZS)}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strlen(rows[i].name) == n && memcmp(rows[i].name, s, n) == 0) return rows[i].set;
    return 0;
}

/* \p{L}, \PN: from behind the letter. */
static void property(reader *r, ranges *s, bool negate, size_t from) {
    size_t a = r->i, n = 1;
    if (at(r, 0) == '{') {
        a = ++r->i;
        for (n = 0; at(r, n) >= 0 && at(r, n) != '}'; n++) {
        }
        r->i += n;
    }
    uint32_t set = a + n <= r->n ? category(r->s + a, n) : 0;
    r->i++;
    if (!set)
        fail(r, FFAI_ENOTSUP, from, "unknown property; general categories such as \\p{L} and \\p{Nd} are supported");
    else
        put_matching(r, s, 0, set, negate, false);
}

static int hex(int c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* \xHH, \uHHHH (two for a pair), \u{H...}, \UHHHHHHHH: from behind the letter. */
static uint32_t code_point(reader *r, int kind, size_t from) {
    uint32_t cp = 0;
    size_t n = kind == 'x' ? 2 : kind == 'u' ? 4 : 8, k = 0;
    bool braces = kind != 'U' && at(r, 0) == '{';
    if (braces) r->i++;
    for (; k < (braces ? 7 : n) && hex(at(r, 0)) >= 0; k++) cp = cp << 4 | (uint32_t)hex((unsigned char)r->s[r->i++]);
    if (braces ? !k || at(r, 0) != '}' : k < n) return fail(r, FFAI_EFORMAT, from, "hexadecimal digits are missing");
    r->i += braces;
    if (kind == 'u' && cp >= 0xD800 && cp <= 0xDBFF && at(r, 0) == '\\' && at(r, 1) == 'u') {
        uint32_t low = 0;
        for (k = 2; k < 6 && hex(at(r, k)) >= 0; k++) low = low << 4 | (uint32_t)hex(at(r, k));
        if (k == 6 && low >= 0xDC00 && low <= 0xDFFF) {
            r->i += 6;
            cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
        return fail(r, FFAI_EFORMAT, from, "there is no such character");
    return cp;
}

/* Behind a backslash: one character (true, *cp) or the characters of a class, added to s. */
static bool escape(reader *r, ranges *s, uint32_t *cp, bool inside, bool wide) {
    size_t from = r->i++;
    int c = at(r, 0);
    static const char names[] = "tnrfv", values[] = "\t\n\r\f\v";
    const char *p = c > 0 ? strchr(names, c) : NULL;
    *cp = 0;
    if (c < 0) return fail(r, FFAI_EFORMAT, from, "a backslash at the end"), true;
    r->i++;
    if (c && strchr("dwsDWS", c)) {
        put_matching(r, s, c, 0, false, wide);
        return false;
    }
    if (c == 'p' || c == 'P') {
        property(r, s, c == 'P', from);
        return false;
    }
    if (p) {
        *cp = (unsigned char)values[p - names];
    } else if (c == 'x' || c == 'u' || c == 'U') {
        *cp = code_point(r, c, from);
    } else if (c == '0' && !(at(r, 0) >= '0' && at(r, 0) <= '9')) {
        *cp = 0;
    } else if (c == 'c' && ((at(r, 0) | 32) >= 'a' && (at(r, 0) | 32) <= 'z')) {
        *cp = (uint32_t)r->s[r->i++] & 31;
    } else if (c == 'b' && inside) {
        *cp = 8;
    } else if (c >= '0' && c <= '9') {
        fail(r, FFAI_ENOTSUP, from, c == '0' ? "octal escapes are not supported" : "backreferences are not supported");
    } else if (c == 'k') {
        fail(r, FFAI_ENOTSUP, from, "backreferences are not supported");
    } else if (c == 'b' || c == 'B') {
        fail(r, FFAI_ENOTSUP, from, "word boundaries (\\b, \\B) are not supported");
    } else if ((c | 32) >= 'a' && (c | 32) <= 'z') {
        fail(r, FFAI_EFORMAT, from, "unknown escape");
    } else {
        r->i--;
        r->i += (size_t)fa_utf8_decode(r->s + r->i, r->n - r->i, cp);
    }
    return true;
}

/* Adds the other case of ASCII letters; the few others that fold to them are left out of negated sets. */
static void fold(reader *r, ranges *s, bool negate) {
    for (size_t i = 0, n = s->n; i < n && !r->b->rc; i++) {
        uint32_t lo = s->r[i][0], hi = s->r[i][1];
        for (uint32_t c = lo; c <= hi && c < 0x80; c++)
            if ((c | 32) >= 'a' && (c | 32) <= 'z') put(r, s, c ^ 32, c ^ 32);
    }
    if (!negate) return;
    static const uint32_t kin[] = {0x130, 0x131, 0x17F, 0x212A};
    for (int i = 0; i < 4; i++) put(r, s, kin[i], kin[i]);
}

static uint32_t finish_set(reader *r, ranges *s, bool negate, size_t from) {
    if (r->fold) {
        for (size_t i = 0; negate && i < s->n; i++) /* elsewhere the letter itself is all that is taken */
            if (s->r[i][1] > 0x7F && s->r[i][1] - s->r[i][0] < 0x400 && (fa_ucd_set(s->r[i][0]) & FA_SET_L))
                return fail(r, FFAI_ENOTSUP, from,
                            "(?i) is not supported for a negated class with letters beyond ASCII");
        fold(r, s, negate);
    }
    if (!s->n) put(r, s, 1, 0); /* no character at all */
    return r->b->rc ? 0 : fa_gx_set(r->b, s->r, s->n, negate, from);
}

static uint32_t char_class(reader *r) {
    size_t from = r->i++;
    ranges s = {0};
    bool negate = at(r, 0) == '^';
    r->i += negate;
    for (bool first = true; !r->b->rc && (first || at(r, 0) != ']'); first = false) {
        uint32_t lo, hi;
        size_t c = r->i;
        bool single = true;
        if (at(r, 0) < 0) {
            fail(r, FFAI_EFORMAT, from, "a character class that is not closed");
            break;
        }
        if (at(r, 0) == '\\')
            single = escape(r, &s, &lo, true, negate);
        else
            r->i += (size_t)fa_utf8_decode(r->s + r->i, r->n - r->i, &lo);
        if (!single) continue;
        hi = lo;
        if (at(r, 0) == '-' && at(r, 1) != ']' && at(r, 1) >= 0) {
            r->i++;
            if (at(r, 0) == '\\')
                single = escape(r, &s, &hi, true, negate);
            else
                r->i += (size_t)fa_utf8_decode(r->s + r->i, r->n - r->i, &hi);
            if (!r->b->rc && (!single || hi < lo)) fail(r, FFAI_EFORMAT, c, "a range that ends before it begins");
        }
        put(r, &s, lo, hi);
    }
    r->i++;
    uint32_t x = r->b->rc ? 0 : finish_set(r, &s, negate, from);
    fa_free(s.r);
    return x;
}

/* ---- items ---- */

static uint32_t one(reader *r, uint32_t cp, size_t from) {
    if (!r->fold) return fa_gx_cp(r->b, cp, from);
    ranges s = {0};
    put(r, &s, cp, cp);
    uint32_t x = finish_set(r, &s, false, from);
    fa_free(s.r);
    return x;
}

static uint32_t any(reader *r, bool lines, size_t from) {
    uint32_t set[5][2] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
    return fa_gx_set(r->b, set, lines ? 0 : 3, true, from);
}

static uint32_t anchor(reader *r, bool begin, size_t n) {
    uint32_t x = fa_gx_new(r->b, begin ? FA_GX_BEGIN : FA_GX_END, r->i);
    r->i += n;
    r->anchors = true;
    return x;
}

static uint32_t backslash(reader *r) {
    size_t from = r->i;
    int c = at(r, 1);
    ranges s = {0};
    uint32_t cp, x;
    if (c == 'A') return anchor(r, true, 2);
    if (c == 'z' || c == 'Z') return anchor(r, false, 2);
    if (escape(r, &s, &cp, false, false))
        x = r->b->rc ? 0 : one(r, cp, from);
    else
        x = r->b->rc ? 0 : finish_set(r, &s, false, from);
    fa_free(s.r);
    return x;
}

static uint32_t alternatives(reader *r);

/* (?i) and (?i: : the letters, up to ) or :. */
static void flags(reader *r, size_t from) {
    for (bool on = true;; r->i++) {
        switch (at(r, 0)) {
        case 'i': r->fold = on; break;
        case 's': r->dot_all = on; break;
        case 'u': break;
        case '-': on = false; break;
        case ':':
        case ')': return;
        default: fail(r, FFAI_ENOTSUP, from, "this kind of group is not supported; flags are i and s"); return;
        }
    }
}

/* Behind "(?": 0 and true for a group whose inside follows; true in *done when nothing follows. */
static void special_group(reader *r, size_t from, bool *done) {
    int c = at(r, 0), d = at(r, 1);
    if (c == '=' || c == '!') {
        fail(r, FFAI_ENOTSUP, from, "lookahead is not supported");
    } else if (c == '<' && (d == '=' || d == '!')) {
        fail(r, FFAI_ENOTSUP, from, "lookbehind is not supported");
    } else if (c == '>') {
        fail(r, FFAI_ENOTSUP, from, "atomic groups are not supported");
    } else if (c == '(') {
        fail(r, FFAI_ENOTSUP, from, "conditional groups are not supported");
    } else if (c == 'P' && (d == '=' || d == '>')) {
        fail(r, FFAI_ENOTSUP, from, "backreferences are not supported");
    } else if (c == '#') {
        while (at(r, 0) >= 0 && at(r, 0) != ')') r->i++;
        *done = true;
    } else if (c == '<' || (c == 'P' && d == '<')) {
        r->i += c == 'P' ? 2 : 1;
        size_t a = r->i;
        while (at(r, 0) >= 0 && at(r, 0) != '>' && at(r, 0) != ')') r->i++;
        if (at(r, 0) != '>' || r->i == a) fail(r, FFAI_EFORMAT, from, "the name of a group is not closed");
        r->i++;
    } else if (c == ':') {
        r->i++;
    } else {
        flags(r, from);
        *done = at(r, 0) == ')';
        if (!*done) r->i++;
    }
}

static uint32_t group(reader *r) {
    size_t from = r->i++;
    bool done = false, fold_before = r->fold, dot_before = r->dot_all;
    uint32_t x = 0;
    if (++r->depth > FA_GX_MAX_DEPTH) return fail(r, FFAI_ELIMIT, from, "groups nest too deep");
    if (at(r, 0) == '?') {
        r->i++;
        special_group(r, from, &done);
    }
    if (r->b->rc) return 0;
    if (!done) {
        x = alternatives(r);
        r->fold = fold_before; /* flags set inside end with the group */
        r->dot_all = dot_before;
    } else {
        x = fa_gx_new(r->b, FA_GX_EMPTY, from);
    }
    if (!r->b->rc && at(r, 0) != ')') return fail(r, FFAI_EFORMAT, from, "a group that is not closed");
    r->i++;
    r->depth--;
    return x;
}

static uint32_t item(reader *r) {
    size_t from = r->i;
    uint32_t cp;
    switch (at(r, 0)) {
    case '(': return group(r);
    case '[': return char_class(r);
    case '\\': return backslash(r);
    case '.': r->i++; return any(r, r->dot_all, from);
    case '^': return anchor(r, true, 1);
    case '$': return anchor(r, false, 1);
    default: break;
    }
    int k = fa_utf8_decode(r->s + r->i, r->n - r->i, &cp);
    if (cp == 0xFFFD && k < 3) return fail(r, FFAI_EFORMAT, from, "not UTF-8");
    r->i += (size_t)k;
    return one(r, cp, from);
}

/* {m}, {m,}, {m,n}, {,n}: its length, 0 when the brace is a character. */
static size_t braces(const reader *r, uint64_t *min, uint64_t *max) {
    size_t k = 1, digits = 0, digits2 = 0;
    *min = *max = 0;
    for (; at(r, k) >= '0' && at(r, k) <= '9'; k++, digits++)
        if (*min <= INT32_MAX) *min = *min * 10 + (uint64_t)(at(r, k) - '0');
    if (at(r, k) == '}' && digits) {
        *max = *min;
        return k + 1;
    }
    if (at(r, k++) != ',') return 0;
    for (; at(r, k) >= '0' && at(r, k) <= '9'; k++, digits2++)
        if (*max <= INT32_MAX) *max = *max * 10 + (uint64_t)(at(r, k) - '0');
    if (at(r, k) != '}' || !(digits + digits2)) return 0;
    if (!digits2) *max = FA_GX_INF;
    return k + 1;
}

/* The quantifier behind an item, if there is one. */
static uint32_t quantified(reader *r, uint32_t x) {
    uint64_t min = 0, max = FA_GX_INF;
    size_t from = r->i, n = 1;
    int c = at(r, 0);
    if (r->b->rc || (c != '*' && c != '+' && c != '?' && c != '{')) return x;
    if (c == '+') min = 1;
    if (c == '?') max = 1;
    if (c == '{' && !(n = braces(r, &min, &max))) return x;
    r->i += n;
    if (min > INT32_MAX || (max > INT32_MAX && max != FA_GX_INF))
        return fail(r, FFAI_ELIMIT, from, "a repetition of more than 2147483647");
    if (min > max) return fail(r, FFAI_EFORMAT, from, "a repetition that ends before it begins");
    if (r->b->x[x].kind == FA_GX_BEGIN || r->b->x[x].kind == FA_GX_END)
        return fail(r, FFAI_EFORMAT, from, "an anchor cannot be repeated");
    if (at(r, 0) == '+') return fail(r, FFAI_ENOTSUP, r->i, "possessive repetitions are not supported");
    if (at(r, 0) == '?') r->i++; /* lazy: the same texts */
    uint64_t no, no2;
    if (at(r, 0) == '*' || at(r, 0) == '+' || at(r, 0) == '?' || (at(r, 0) == '{' && braces(r, &no, &no2)))
        return fail(r, FFAI_EFORMAT, r->i, "a repetition of a repetition; put brackets around it");
    return fa_gx_rep(r->b, x, (uint32_t)min, (uint32_t)max, from);
}

static uint32_t sequence(reader *r) {
    uint32_t seq = fa_gx_new(r->b, FA_GX_SEQ, r->i);
    for (int c = at(r, 0); !r->b->rc && c >= 0 && c != '|' && c != ')'; c = at(r, 0)) {
        uint64_t min, max;
        if (c == '*' || c == '+' || c == '?' || (c == '{' && braces(r, &min, &max)))
            return fail(r, FFAI_EFORMAT, r->i, "a repetition with nothing in front that it could repeat");
        uint32_t x = quantified(r, item(r));
        if (!r->b->rc && r->b->x[x].kind != FA_GX_EMPTY) fa_gx_add(r->b, seq, x);
    }
    return seq;
}

static uint32_t alternatives(reader *r) {
    uint32_t first = sequence(r), alt = 0;
    while (!r->b->rc && at(r, 0) == '|') {
        size_t from = r->i++;
        if (!alt) {
            alt = fa_gx_new(r->b, FA_GX_ALT, from);
            fa_gx_add(r->b, alt, first);
        }
        fa_gx_add(r->b, alt, sequence(r));
    }
    return alt ? alt : first;
}

/* ---- anchors ---- */

static bool has_anchor(const fa_gb *b, uint32_t x) {
    const fa_gx *n = &b->x[x];
    if (n->kind == FA_GX_BEGIN || n->kind == FA_GX_END) return true;
    if (n->kind != FA_GX_SEQ && n->kind != FA_GX_ALT && n->kind != FA_GX_REP) return false;
    for (uint32_t k = n->a; k; k = b->x[k].next)
        if (has_anchor(b, k)) return true;
    return false;
}

/* x with any text in front (left) and behind (right) when the pattern may match anywhere. */
static uint32_t among(reader *r, uint32_t x, bool left, bool right) {
    if (!r->search || (!left && !right)) return x;
    uint32_t seq = fa_gx_new(r->b, FA_GX_SEQ, 0);
    if (left) fa_gx_add(r->b, seq, fa_gx_rep(r->b, any(r, true, 0), 0, FA_GX_INF, 0));
    fa_gx_add(r->b, seq, x);
    if (right) fa_gx_add(r->b, seq, fa_gx_rep(r->b, any(r, true, 0), 0, FA_GX_INF, 0));
    return seq;
}

/* Takes the anchors out. left, right: nothing of the pattern stands on that side, so an anchor is right there and
 * without one any text may stand there. */
static uint32_t unanchor(reader *r, uint32_t x, bool left, bool right) {
    fa_gb *b = r->b;
    if (b->rc) return 0;
    fa_gx n = b->x[x];
    b->x[x].next = 0;
    if (!has_anchor(b, x)) return among(r, x, left, right);
    if (n.kind == FA_GX_BEGIN || n.kind == FA_GX_END) {
        bool begin = n.kind == FA_GX_BEGIN;
        if (begin ? !left : !right)
            return fail(r, FFAI_ENOTSUP, n.at, "an anchor is supported at the beginning (^) or the end ($) alone");
        return among(r, fa_gx_new(b, FA_GX_EMPTY, n.at), left && !begin, right && begin);
    }
    if (n.kind == FA_GX_REP) {
        if (n.min || n.max != 1) return fail(r, FFAI_ENOTSUP, n.at, "an anchor in a repetition is not supported");
        uint32_t alt = fa_gx_new(b, FA_GX_ALT, n.at);
        fa_gx_add(b, alt, among(r, fa_gx_new(b, FA_GX_EMPTY, n.at), left, right));
        fa_gx_add(b, alt, unanchor(r, n.a, left, right));
        return alt;
    }
    uint32_t out = fa_gx_new(b, (fa_gx_kind)n.kind, n.at);
    bool first = true;
    for (uint32_t k = n.a, next; k && !b->rc; k = next) {
        next = b->x[k].next;
        bool last = !next;
        /* `^^a`, `a$$`: what consists of anchors does not stand between */
        uint32_t y = n.kind == FA_GX_ALT ? unanchor(r, k, left, right) : unanchor(r, k, left && first, right && last);
        fa_gx_add(b, out, y);
        first = false;
    }
    return out;
}

uint32_t fa_regex_tree(fa_gb *b, const char *pattern, size_t len, bool search) {
    reader r = {.b = b, .s = pattern, .n = len, .search = search};
    uint32_t x = alternatives(&r);
    if (!b->rc && r.i < r.n) return fail(&r, FFAI_EFORMAT, r.i, "a bracket that was not opened");
    return b->rc ? 0 : r.anchors ? unanchor(&r, x, true, true) : among(&r, x, true, true);
}

void fa_regex_read(fa_gb *b) {
    uint32_t rule = fa_gb_rule(b, NULL, 0, 0), body = fa_regex_tree(b, b->text, b->len, false);
    if (b->rc) return;
    b->rule[rule].body = body;
    b->root = rule;
}
