/* Expression trees: what the readers of GBNF, regular expressions and JSON Schema build, and the messages that point
 * into their text. */
#include "text/grammar/gram_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fa_gb_free(fa_gb *b) {
    fa_free(b->x);
    fa_free(b->range);
    fa_free(b->rule);
    fa_buf_free(&b->lit);
}

uint32_t fa_gb_fail(fa_gb *b, int code, size_t at, const char *fmt, ...) {
    char msg[400];
    size_t line = 1, col = 1;
    va_list ap;
    if (b->rc) return 0;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    for (char *p = msg; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?'; /* one line, whatever the text held */
    for (size_t i = 0; i < at && i < b->len; i++) {
        if (b->text[i] == '\n') {
            line++;
            col = 1;
        } else if (((unsigned char)b->text[i] & 0xC0) != 0x80) {
            col++;
        }
    }
    b->rc = at == SIZE_MAX ? fa_fail(b->err, code, "%s: %s", b->what, msg)
                           : fa_fail(b->err, code, "%s: line %zu, column %zu: %s", b->what, line, col, msg);
    return 0;
}

uint32_t fa_gb_nomem(fa_gb *b) { return fa_gb_fail(b, FFAI_ENOMEM, SIZE_MAX, "no memory"); }

static bool grow(fa_gb *b, void **p, size_t *cap, size_t want, size_t size) {
    if (want <= *cap) return true;
    size_t c = *cap ? *cap * 2 : 64;
    while (c < want) c *= 2;
    void *q = fa_realloc(*p, c, size);
    if (!q) return fa_gb_nomem(b), false;
    *p = q;
    *cap = c;
    return true;
}

uint32_t fa_gx_new(fa_gb *b, fa_gx_kind kind, size_t at) {
    if (b->rc) return 0;
    if (!b->n_x) b->n_x = 1;
    if (b->n_x >= FA_GX_MAX_NODES)
        return fa_gb_fail(b, FFAI_ELIMIT, at, "the grammar is too large (more than %d parts)", FA_GX_MAX_NODES);
    void *x = b->x;
    if (!grow(b, &x, &b->cap_x, b->n_x + 1, sizeof *b->x)) return 0;
    b->x = (fa_gx *)x;
    b->x[b->n_x] = (fa_gx){.kind = (uint8_t)kind, .at = (uint32_t)at};
    return (uint32_t)b->n_x++;
}

void fa_gx_add(fa_gb *b, uint32_t parent, uint32_t child) {
    if (b->rc || !parent || !child) return;
    fa_gx *p = &b->x[parent];
    if (p->a)
        b->x[p->b].next = child;
    else
        p->a = child;
    p->b = child;
}

uint32_t fa_gx_lit(fa_gb *b, const char *s, size_t n, size_t at) {
    uint32_t x = fa_gx_new(b, n ? FA_GX_LIT : FA_GX_EMPTY, at);
    if (!x || !n) return x;
    b->x[x].a = (uint32_t)b->lit.len;
    b->x[x].b = (uint32_t)n;
    fa_buf_add(&b->lit, s, n);
    return b->lit.failed ? fa_gb_nomem(b) : x;
}

static int by_first(const void *a, const void *b) {
    const uint32_t *x = (const uint32_t *)a, *y = (const uint32_t *)b;
    return x[0] < y[0] ? -1 : x[0] > y[0];
}

size_t fa_ranges_tidy(uint32_t (*r)[2], size_t n, bool negate) {
    if (n) qsort(r, n, sizeof *r, by_first);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (r[i][0] > r[i][1]) continue;
        if (k && r[i][0] <= r[k - 1][1] + 1) {
            if (r[i][1] > r[k - 1][1]) r[k - 1][1] = r[i][1];
        } else {
            r[k][0] = r[i][0];
            r[k++][1] = r[i][1];
        }
    }
    if (!negate) return k;
    uint32_t from = 0;
    size_t m = 0;
    for (size_t i = 0; i < k; i++) { /* writes behind what it reads: result m never passes i */
        uint32_t lo = r[i][0], hi = r[i][1];
        if (lo > from) {
            r[m][0] = from;
            r[m++][1] = lo - 1;
        }
        from = hi + 1;
    }
    if (from <= 0x10FFFF) {
        r[m][0] = from;
        r[m++][1] = 0x10FFFF;
    }
    return m;
}

static uint32_t raw_set(fa_gb *b, uint32_t (*r)[2], size_t n, size_t at) {
    if (!n) return fa_gx_new(b, FA_GX_NEVER, at);
    uint32_t x = fa_gx_new(b, FA_GX_SET, at);
    void *p = b->range;
    if (!x || !grow(b, &p, &b->cap_range, b->n_range + 2 * n, sizeof *b->range)) return 0;
    b->range = (uint32_t *)p;
    if (b->n_range + 2 * n > UINT32_MAX / 2) return fa_gb_fail(b, FFAI_ELIMIT, at, "too many character ranges");
    b->x[x].a = (uint32_t)b->n_range;
    b->x[x].b = (uint32_t)n;
    memcpy(b->range + b->n_range, r, n * sizeof *r);
    b->n_range += 2 * n;
    return x;
}

static bool has(uint32_t (*r)[2], size_t n, uint32_t cp) {
    for (size_t i = 0; i < n; i++)
        if (r[i][0] <= cp && cp <= r[i][1]) return true;
    return false;
}

/* Characters that a JSON string cannot hold as they are, each by its one usual escape. */
static uint32_t json_escapes(fa_gb *b, uint32_t (*r)[2], size_t n, size_t at) {
    static const char names[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    uint32_t alt = 0;
    for (uint32_t cp = 0; cp <= '\\'; cp++) {
        if (cp == 0x20) cp = '"';
        if (cp == '"' + 1) cp = '\\';
        if (!has(r, n, cp)) continue;
        char text[8];
        const char *p = cp ? strchr(names, (int)cp) : NULL;
        int k =
            p ? snprintf(text, sizeof text, "\\%c", letters[p - names]) : snprintf(text, sizeof text, "\\u%04x", cp);
        if (!alt) alt = fa_gx_new(b, FA_GX_ALT, at);
        fa_gx_add(b, alt, fa_gx_lit(b, text, (size_t)k, at));
    }
    return alt;
}

uint32_t fa_gx_set(fa_gb *b, uint32_t (*ranges)[2], size_t n, bool negate, size_t at) {
    if (b->rc) return 0;
    n = fa_ranges_tidy(ranges, n, negate);
    if (!b->json || !n || (ranges[0][0] > '\\')) return raw_set(b, ranges, n, at);
    uint32_t esc = json_escapes(b, ranges, n, at);
    if (!esc) return raw_set(b, ranges, n, at);
    /* what is left: ranges without 00..1F, '"' and '\' */
    static const uint32_t out[3][2] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    uint32_t(*left)[2] = (uint32_t(*)[2])fa_calloc(n + 4, sizeof *left);
    if (!left) return fa_gb_nomem(b);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t lo = ranges[i][0], hi = ranges[i][1];
        for (int k = 0; k < 3; k++) {
            if (hi < out[k][0] || lo > out[k][1]) continue;
            if (lo < out[k][0]) {
                left[m][0] = lo;
                left[m++][1] = out[k][0] - 1;
            }
            lo = out[k][1] + 1;
        }
        if (lo <= hi) {
            left[m][0] = lo;
            left[m++][1] = hi;
        }
    }
    if (m) {
        uint32_t raw = raw_set(b, left, m, at);
        fa_gx_add(b, esc, raw);
    }
    fa_free(left);
    return b->rc ? 0 : esc;
}

uint32_t fa_gx_cp(fa_gb *b, uint32_t cp, size_t at) {
    uint32_t r[2][2] = {{cp, cp}};
    if (b->json) return fa_gx_set(b, r, 1, false, at);
    char s[4];
    return fa_gx_lit(b, s, (size_t)fa_utf8_encode(cp, s), at);
}

uint32_t fa_gx_rep(fa_gb *b, uint32_t child, uint32_t min, uint32_t max, size_t at) {
    if (!child) return 0;
    if (min == 1 && max == 1) return child;
    uint32_t x = fa_gx_new(b, max ? FA_GX_REP : FA_GX_EMPTY, at);
    if (!x || !max) return x;
    b->x[x].a = child;
    b->x[x].min = min;
    b->x[x].max = max;
    return x;
}

uint32_t fa_gx_rule(fa_gb *b, uint32_t rule, size_t at) {
    uint32_t x = fa_gx_new(b, FA_GX_RULE, at);
    if (x) b->x[x].a = rule;
    return x;
}

uint32_t fa_gx_seq2(fa_gb *b, uint32_t first, uint32_t second) {
    if (!first || !second) return 0;
    uint32_t x = fa_gx_new(b, FA_GX_SEQ, b->x[first].at);
    fa_gx_add(b, x, first);
    fa_gx_add(b, x, second);
    return x;
}

uint32_t fa_gb_rule(fa_gb *b, const char *name, size_t n_name, size_t at) {
    if (b->rc) return UINT32_MAX;
    void *p = b->rule;
    if (!grow(b, &p, &b->cap_rule, b->n_rule + 1, sizeof *b->rule)) return UINT32_MAX;
    b->rule = (fa_grule *)p;
    b->rule[b->n_rule] = (fa_grule){name, n_name, 0, (uint32_t)at};
    return (uint32_t)b->n_rule++;
}
