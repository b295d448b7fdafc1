/* Template source to tokens, with jinja's rules for white space around tags (trim_blocks and lstrip_blocks are on). */
#include "base/utf8.h"
#include "text/jinja/int.h"
#include "text/ucd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct lexer {
    fa_jj *m;
    const char *src;
    size_t n, at;
    fa_jjtoken *tok;
    size_t n_tok, cap;
    size_t line_at; /* line and column are known up to this byte */
    uint32_t line, col;
    bool line_start;                /* what stands before is the end of a line */
    char close[FA_JJ_MAX_NEST + 1]; /* closing brackets that are awaited */
    int n_close;
} lexer;

/* Moves line and column on to byte `at`. */
static void locate(lexer *x, size_t at) {
    for (; x->line_at < at; x->line_at++) {
        unsigned char c = (unsigned char)x->src[x->line_at];
        if (c == '\n') {
            x->line++;
            x->col = 1;
        } else if ((c & 0xC0) != 0x80) {
            x->col++;
        }
    }
    x->m->line = x->line;
    x->m->col = x->col;
}

static fa_jjtoken *push(lexer *x, fa_jjtok t, size_t at) {
    if (x->n_tok == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 256;
        fa_jjtoken *p = (fa_jjtoken *)fa_jj_alloc(x->m, cap, sizeof *p);
        if (x->n_tok) memcpy(p, x->tok, x->n_tok * sizeof *p);
        x->tok = p;
        x->cap = cap;
    }
    locate(x, at);
    fa_jjtoken *k = &x->tok[x->n_tok++];
    k->t = t;
    k->line = x->line;
    k->col = x->col;
    return k;
}

static bool is(const lexer *x, size_t at, const char *s) {
    size_t n = strlen(s);
    return x->n - at >= n && memcmp(x->src + at, s, n) == 0;
}

/* Bytes of white space at `at`. */
static size_t skip_space(const lexer *x, size_t at) {
    size_t from = at;
    while (at < x->n) {
        uint32_t cp;
        size_t len = (size_t)fa_utf8_decode(x->src + at, x->n - at, &cp);
        if (!fa_jj_space(cp)) break;
        at += len;
    }
    return at - from;
}

static void push_data(lexer *x, size_t from, size_t to) {
    if (to <= from) return;
    fa_jjtoken *k = push(x, FA_JJ_T_DATA, from);
    k->v = fa_jj_strv(fa_jj_ref(x->m, x->src + from, to - from));
}

/* The text before a tag, less what the tag strips. sign: '-', '+' or 0; block: no variable tag. */
static size_t strip_before(lexer *x, size_t from, size_t to, char sign, bool block) {
    if (sign == '-') {
        fa_jjstr s = {.p = x->src + from, .n = (uint32_t)(to - from)};
        return from + fa_jj_strip(x->m, &s, NULL, 2)->n;
    }
    if (sign == '+' || !block) return to;
    size_t line = to;
    while (line > from && x->src[line - 1] != '\n') line--;
    if (line == from && !x->line_start) return to;
    return line < to && skip_space(x, line) >= to - line ? line : to;
}

/* Behind the end of a tag: trims what follows. at stands behind the end string. */
static void end_tag(lexer *x, size_t at, bool minus, bool plus, bool block) {
    if (minus)
        at += skip_space(x, at);
    else if (!plus && block && at < x->n && x->src[at] == '\n')
        at++;
    x->line_start = at > 0 && x->src[at - 1] == '\n';
    x->at = at;
}

/* `{%- raw -%}` at `at`: bytes of the tag, 0: none */
static size_t raw_begin(const lexer *x, size_t at) {
    size_t p = at + 2;
    if (p < x->n && (x->src[p] == '-' || x->src[p] == '+')) p++;
    p += skip_space(x, p);
    if (!is(x, p, "raw")) return 0;
    p += 3;
    p += skip_space(x, p);
    if (is(x, p, "-%}")) return p + 3 + skip_space(x, p + 3) - at;
    return is(x, p, "%}") ? p + 2 - at : 0;
}

static void lex_raw(lexer *x, size_t tag) {
    size_t from = x->at, p = from;
    for (;; p++) {
        const char *q = (const char *)memchr(x->src + p, '{', x->n - p);
        if (!q) {
            locate(x, tag);
            fa_jj_fail(x->m, FFAI_EFORMAT, "Missing end of raw directive");
        }
        p = (size_t)(q - x->src);
        if (!is(x, p, "{%")) continue;
        size_t e = p + 2;
        char sign = e < x->n && (x->src[e] == '-' || x->src[e] == '+') ? x->src[e] : 0;
        e += sign != 0;
        e += skip_space(x, e);
        if (!is(x, e, "endraw")) continue;
        e += 6;
        e += skip_space(x, e);
        bool minus = is(x, e, "-%}"), plus = is(x, e, "+%}");
        if (!minus && !plus && !is(x, e, "%}")) continue;
        push_data(x, from, strip_before(x, from, p, sign, true));
        end_tag(x, e + 2 + (minus || plus), minus, plus, true);
        return;
    }
}

static void lex_comment(lexer *x, size_t tag) {
    for (size_t p = x->at;; p++) {
        const char *q = p < x->n ? (const char *)memchr(x->src + p, '#', x->n - p) : NULL;
        if (!q) {
            locate(x, tag);
            fa_jj_fail(x->m, FFAI_EFORMAT, "Missing end of comment tag");
        }
        p = (size_t)(q - x->src);
        if (!is(x, p, "#}")) continue;
        bool minus = p > x->at && x->src[p - 1] == '-', plus = p > x->at && x->src[p - 1] == '+';
        end_tag(x, p + 2, minus, plus, true);
        return;
    }
}

/* ---- inside tags ---- */

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* (\d+_)*\d+ at p: bytes */
static size_t digits(const lexer *x, size_t p) {
    size_t from = p;
    while (p < x->n && (digit(x->src[p]) ||
                        (x->src[p] == '_' && p > from && p + 1 < x->n && digit(x->src[p - 1]) && digit(x->src[p + 1]))))
        p++;
    return p - from;
}

static size_t float_len(const lexer *x, size_t at) {
    size_t p = at, k;
    if (at > 0 && x->src[at - 1] == '.') return 0;
    if (!(k = digits(x, p))) return 0;
    p += k;
    bool frac = p < x->n && x->src[p] == '.' && (k = digits(x, p + 1)) > 0;
    if (frac) p += 1 + k;
    if (p < x->n && (x->src[p] == 'e' || x->src[p] == 'E')) {
        size_t q = p + 1;
        if (q < x->n && (x->src[q] == '+' || x->src[q] == '-')) q++;
        if ((k = digits(x, q)) > 0) return q + k - at;
    }
    return frac ? p - at : 0;
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* Digits of `base` with single underscores between them. */
static size_t base_len(const lexer *x, size_t at, int base) {
    size_t p = at;
    for (;;) {
        size_t q = p + (p < x->n && x->src[p] == '_');
        if (q >= x->n || digit_value(x->src[q]) >= base) return p - at;
        p = q + 1;
    }
}

static size_t int_len(const lexer *x, size_t at, int *base) {
    char c = x->src[at], k = at + 1 < x->n ? (char)(x->src[at + 1] | 0x20) : 0;
    *base = 10;
    if (c == '0' && (k == 'x' || k == 'o' || k == 'b')) {
        int b = k == 'x' ? 16 : k == 'o' ? 8 : 2;
        size_t len = base_len(x, at + 2, b);
        if (len) {
            *base = b;
            return len + 2;
        }
    }
    if (c == '0') { /* 0(_?0)* */
        size_t p = at + 1;
        for (;;) {
            size_t q = p + (p < x->n && x->src[p] == '_');
            if (q >= x->n || x->src[q] != '0') return p - at;
            p = q + 1;
        }
    }
    size_t p = at + 1;
    for (;;) {
        size_t q = p + (p < x->n && x->src[p] == '_');
        if (q >= x->n || !digit(x->src[q])) return p - at;
        p = q + 1;
    }
}

static void lex_number(lexer *x) {
    int base = 10;
    bool ok = true;
    size_t len = float_len(x, x->at), k = 0;
    char buf[320];
    bool real = len > 0;
    if (!real) len = int_len(x, x->at, &base);
    fa_jjtoken *t = push(x, real ? FA_JJ_T_FLOAT : FA_JJ_T_INT, x->at);
    for (size_t i = 0; i < len && k < sizeof buf; i++)
        if (x->src[x->at + i] != '_') buf[k++] = x->src[x->at + i];
    if (real) {
        t->v = fa_jj_float(fa_jj_strtod(buf, k, &ok));
    } else {
        int64_t v = 0;
        for (size_t i = base == 10 ? 0 : 2; i < k && ok; i++)
            ok = !__builtin_mul_overflow(v, (int64_t)base, &v) &&
                 !__builtin_add_overflow(v, (int64_t)digit_value(buf[i]), &v);
        t->v = fa_jj_int(v);
    }
    if (!ok || k == sizeof buf) fa_jj_fail(x->m, FFAI_ELIMIT, "a number is too large");
    x->at += len;
}

static bool name_char(const lexer *x, size_t at, size_t *len) {
    unsigned char c = (unsigned char)x->src[at];
    *len = 1;
    if (c < 0x80) return c == '_' || digit((char)c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    uint32_t cp;
    *len = (size_t)fa_utf8_decode(x->src + at, x->n - at, &cp);
    return (fa_ucd(cp) & FA_UCD_WORD) != 0;
}

/* Hex digits of an escape; returns the code point. */
static uint32_t hex_escape(lexer *x, const char *p, const char *end, int n, char kind) {
    uint32_t v = 0;
    for (int i = 0; i < n; i++) {
        if (p + i >= end || digit_value(p[i]) > 15)
            fa_jj_fail(x->m, FFAI_EFORMAT, "truncated \\%c%s escape", kind,
                       kind == 'x'   ? "XX"
                       : kind == 'u' ? "XXXX"
                                     : "XXXXXXXX");
        v = v * 16 + (uint32_t)digit_value(p[i]);
    }
    if (v > 0x10FFFF) fa_jj_fail(x->m, FFAI_EFORMAT, "illegal Unicode character");
    return v;
}

/* Python's unicode-escape. Escapes that it does not know stay as they are. */
static fa_jjstr *unescape(lexer *x, const char *p, const char *end) {
    static const char names[] = "\\'\"abfnrtv", codes[] = "\\'\"\a\b\f\n\r\t\v";
    char *out = (char *)fa_jj_alloc(x->m, (size_t)(end - p) * 2 + 4, 1);
    size_t n = 0;
    while (p < end) {
        const char *k;
        if (*p != '\\' || p + 1 >= end) {
            out[n++] = *p++;
        } else if (p[1] == '\n') {
            p += 2;
        } else if (p[1] == 'x' || p[1] == 'u' || p[1] == 'U') {
            int len = p[1] == 'x' ? 2 : p[1] == 'u' ? 4 : 8;
            n += (size_t)fa_utf8_encode(hex_escape(x, p + 2, end, len, p[1]), out + n);
            p += 2 + len;
        } else if (p[1] >= '0' && p[1] <= '7') {
            uint32_t v = 0;
            int i = 0;
            for (p++; i < 3 && p < end && *p >= '0' && *p <= '7'; i++, p++) v = v * 8 + (uint32_t)(*p - '0');
            n += (size_t)fa_utf8_encode(v, out + n);
        } else if (p[1] == 'N') {
            fa_jj_fail(x->m, FFAI_ENOTSUP, "\\N{...} escapes are not supported");
        } else if (p[1] && (k = strchr(names, p[1])) != NULL) {
            out[n++] = codes[k - names];
            p += 2;
        } else {
            out[n++] = *p++;
            out[n++] = *p++;
        }
    }
    return fa_jj_ref(x->m, out, n);
}

/* Bytes of a quoted string at `at`, 0 when it does not end. */
static size_t string_len(const lexer *x, size_t at) {
    char quote = x->src[at];
    for (size_t p = at + 1; p < x->n; p++) {
        if (x->src[p] == quote) return p + 1 - at;
        if (x->src[p] == '\\') p++;
    }
    return 0;
}

_Noreturn static void unexpected_char(lexer *x) {
    uint32_t cp;
    size_t pos = 0;
    int len = fa_utf8_decode(x->src + x->at, x->n - x->at, &cp);
    for (size_t i = 0; i < x->at; i++) pos += ((unsigned char)x->src[i] & 0xC0) != 0x80;
    locate(x, x->at);
    const char *q = cp == '\'' ? "\"" : "'";
    fa_jj_fail(x->m, FFAI_EFORMAT, "unexpected char %s%.*s%s at %zu", q, len, x->src + x->at, q, pos);
}

static void lex_operator(lexer *x) {
    static const char two[][3] = {"//", "**", "==", "!=", ">=", "<="};
    char c = x->src[x->at];
    size_t len = 0;
    for (size_t i = 0; i < sizeof two / sizeof *two && !len; i++)
        if (is(x, x->at, two[i])) len = 2;
    if (!len && c && strchr("+-/*%~[](){}><=.:|,;", c)) len = 1;
    if (!len) unexpected_char(x);
    fa_jjtoken *t = push(x, FA_JJ_T_OP, x->at);
    t->op = len == 2 ? (uint32_t)FA_JJ_OP2((unsigned)c, (unsigned)x->src[x->at + 1]) : (uint32_t)c;
    if (len == 1 && strchr("{([", c)) {
        if (x->n_close == FA_JJ_MAX_NEST)
            fa_jj_fail(x->m, FFAI_ELIMIT, "brackets nested deeper than %d", FA_JJ_MAX_NEST);
        x->close[x->n_close++] = c == '{' ? '}' : c == '(' ? ')' : ']';
    } else if (len == 1 && strchr("})]", c)) {
        if (!x->n_close) fa_jj_fail(x->m, FFAI_EFORMAT, "unexpected '%c'", c);
        char want = x->close[--x->n_close];
        if (want != c) fa_jj_fail(x->m, FFAI_EFORMAT, "unexpected '%c', expected '%c'", c, want);
    }
    x->at += len;
}

/* Is this the end of the tag? Not inside brackets. */
static bool lex_end(lexer *x, bool block) {
    if (x->n_close) return false;
    const char *end = block ? "%}" : "}}";
    bool minus = x->src[x->at] == '-' && is(x, x->at + 1, end);
    bool plus = block && x->src[x->at] == '+' && is(x, x->at + 1, end);
    if (!minus && !plus && !is(x, x->at, end)) return false;
    push(x, block ? FA_JJ_T_BLOCK_END : FA_JJ_T_VAR_END, x->at);
    end_tag(x, x->at + 2 + (minus || plus), minus, plus, block);
    return true;
}

static void lex_inside(lexer *x, bool block) {
    size_t len;
    while (x->at < x->n) {
        if (lex_end(x, block)) return;
        if ((len = skip_space(x, x->at)) > 0) {
            x->at += len;
        } else if (digit(x->src[x->at])) {
            lex_number(x);
        } else if (name_char(x, x->at, &len)) {
            size_t from = x->at;
            while (x->at < x->n && name_char(x, x->at, &len)) x->at += len;
            push(x, FA_JJ_T_NAME, from)->v = fa_jj_strv(fa_jj_ref(x->m, x->src + from, x->at - from));
        } else if ((x->src[x->at] == '"' || x->src[x->at] == '\'') && (len = string_len(x, x->at)) > 0) {
            fa_jjtoken *t = push(x, FA_JJ_T_STRING, x->at);
            const char *p = x->src + x->at + 1;
            t->v = fa_jj_strv(memchr(p, '\\', len - 2) ? unescape(x, p, p + len - 2) : fa_jj_ref(x->m, p, len - 2));
            x->at += len;
        } else {
            lex_operator(x);
        }
    }
}

fa_jjtoken *fa_jj_lex(fa_jj *m, const char *src, size_t n) {
    lexer x = {.m = m, .src = src, .n = n, .line = 1, .col = 1, .line_start = true};
    while (x.at < n) {
        size_t from = x.at, p = from, raw = 0;
        for (;; p++) {
            const char *q = (const char *)memchr(src + p, '{', n - p);
            p = q ? (size_t)(q - src) : n;
            if (p + 1 >= n) p = n;
            if (p == n || src[p + 1] == '%' || src[p + 1] == '{' || src[p + 1] == '#') break;
        }
        if (p == n) {
            push_data(&x, from, n);
            break;
        }
        char kind = src[p + 1], sign = p + 2 < n && (src[p + 2] == '-' || src[p + 2] == '+') ? src[p + 2] : 0;
        if (kind == '%') raw = raw_begin(&x, p);
        push_data(&x, from, strip_before(&x, from, p, sign, kind != '{'));
        x.line_start = false;
        x.at = raw ? p + raw : p + 2 + (sign != 0);
        if (raw) {
            x.line_start = src[x.at - 1] == '\n';
            lex_raw(&x, p);
        } else if (kind == '#') {
            lex_comment(&x, p);
        } else {
            push(&x, kind == '%' ? FA_JJ_T_BLOCK_BEGIN : FA_JJ_T_VAR_BEGIN, p);
            x.n_close = 0;
            lex_inside(&x, kind == '%');
        }
    }
    push(&x, FA_JJ_T_EOF, n);
    return x.tok;
}

const char *fa_jj_token_text(const fa_jjtoken *t, char *buf, size_t cap) {
    static const char *const names[] = {"end of template",
                                        "template data / text",
                                        "begin of statement block",
                                        "end of statement block",
                                        "begin of print statement",
                                        "end of print statement",
                                        "",
                                        "string",
                                        "integer",
                                        "float"};
    if (t->t == FA_JJ_T_NAME)
        snprintf(buf, cap, "%.*s", (int)(t->v.u.s->n < 60 ? t->v.u.s->n : 60), t->v.u.s->p);
    else if (t->t == FA_JJ_T_OP)
        snprintf(buf, cap, t->op > 255 ? "%c%c" : "%c", (int)(t->op > 255 ? t->op >> 8 : t->op), (int)(t->op & 255));
    else
        return names[t->t];
    return buf;
}
