/* Decimal numbers between bounds, digit by digit. */
#include "text/grammar/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRAC_DIGITS = 6,
    MOST = 15 /* significant digits: no more than a double holds, so that texts compare as the numbers read from them */
};

static uint32_t digits(fa_gb *b, int lo, int hi, uint32_t min, uint32_t max) {
    uint32_t r[2][2] = {{(uint32_t)('0' + lo), (uint32_t)('0' + hi)}};
    if (lo > hi || min > max) return fa_gx_new(b, FA_GX_NEVER, 0);
    if (!max) return fa_gx_new(b, FA_GX_EMPTY, 0);
    return fa_gx_rep(b, fa_gx_set(b, r, 1, false, 0), min, max, 0);
}

static uint32_t either(fa_gb *b, uint32_t x, uint32_t y) {
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    fa_gx_add(b, alt, x);
    fa_gx_add(b, alt, y);
    return alt;
}

/* ---- whole numbers of a given length: digit strings lo .. hi, both n long ---- */

static uint32_t between(fa_gb *b, const char *lo, const char *hi, size_t n) {
    bool low = true, high = true; /* lo is all zeros, hi all nines */
    for (size_t i = 0; i < n; i++) {
        low = low && lo[i] == '0';
        high = high && hi[i] == '9';
    }
    if (!n) return fa_gx_new(b, FA_GX_EMPTY, 0);
    if (low && high) return digits(b, 0, 9, (uint32_t)n, (uint32_t)n);
    int a = lo[0] - '0', z = hi[0] - '0';
    if (a == z) return fa_gx_seq2(b, digits(b, a, a, 1, 1), between(b, lo + 1, hi + 1, n - 1));
    static const char nines[] = "99999999999999999999", zeros[] = "00000000000000000000";
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, a, a, 1, 1), between(b, lo + 1, nines, n - 1)));
    fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, a + 1, z - 1, 1, 1), digits(b, 0, 9, (uint32_t)n - 1, (uint32_t)n - 1)));
    fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, z, z, 1, 1), between(b, zeros, hi + 1, n - 1)));
    return alt;
}

/* 0 <= lo <= hi without leading zeros. */
static uint32_t whole(fa_gb *b, int64_t lo, int64_t hi) {
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    int64_t from = lo, top = 9;
    fa_gx_add(b, alt, fa_gx_new(b, FA_GX_NEVER, 0));
    for (size_t n = 1; from <= hi && n < 19; n++, top = top * 10 + 9) {
        int64_t to = hi < top ? hi : top;
        char a[24], z[24];
        if (from > to) continue;
        snprintf(a, sizeof a, "%lld", (long long)from);
        snprintf(z, sizeof z, "%lld", (long long)to);
        fa_gx_add(b, alt, between(b, a, z, n));
        from = to + 1;
    }
    return alt;
}

/* ---- fractions: what stands behind the point, given digits `f` (without zeros at the end) ---- */

/* At least `f` (open: more than it). At least one digit has been written when `some`. */
static uint32_t at_least(fa_gb *b, const char *f, bool open, bool some, uint32_t room) {
    if (!*f) {
        if (!open) return digits(b, 0, 9, some ? 0 : 1, room);
        if (!room) return fa_gx_new(b, FA_GX_NEVER, 0);
        uint32_t x = fa_gx_new(b, FA_GX_ALT, 0); /* zeros, then a digit that is none */
        for (uint32_t z = 0; z < room; z++) {
            uint32_t seq = fa_gx_new(b, FA_GX_SEQ, 0);
            fa_gx_add(b, seq, digits(b, 0, 0, z, z));
            fa_gx_add(b, seq, digits(b, 1, 9, 1, 1));
            fa_gx_add(b, seq, digits(b, 0, 9, 0, room - z - 1));
            fa_gx_add(b, x, seq);
        }
        return x;
    }
    if (!room) return fa_gx_new(b, FA_GX_NEVER, 0);
    int d = *f - '0';
    return either(b, fa_gx_seq2(b, digits(b, d + 1, 9, 1, 1), digits(b, 0, 9, 0, room - 1)),
                  fa_gx_seq2(b, digits(b, d, d, 1, 1), at_least(b, f + 1, open, true, room - 1)));
}

/* At most `f` (open: less). */
static uint32_t at_most(fa_gb *b, const char *f, bool open, bool some, uint32_t room) {
    if (!*f) return open ? fa_gx_new(b, FA_GX_NEVER, 0) : digits(b, 0, 0, some ? 0 : 1, room);
    int d = *f - '0';
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    if (some) fa_gx_add(b, alt, fa_gx_new(b, FA_GX_EMPTY, 0)); /* shorter is less */
    if (room) {
        fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, 0, d - 1, 1, 1), digits(b, 0, 9, 0, room - 1)));
        fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, d, d, 1, 1), at_most(b, f + 1, open, true, room - 1)));
    }
    return alt;
}

/* Between `f` and `g`, f < g or both equal and closed. */
static uint32_t inside(fa_gb *b, const char *f, bool f_open, const char *g, bool g_open, bool some, uint32_t room) {
    int d = *f ? *f - '0' : 0, e = *g ? *g - '0' : 0;
    if (!*f && !*g) return f_open || g_open ? fa_gx_new(b, FA_GX_NEVER, 0) : digits(b, 0, 0, some ? 0 : 1, room);
    if (!*f && !f_open) return at_most(b, g, g_open, some, room);
    if (!room) return fa_gx_new(b, FA_GX_NEVER, 0);
    const char *fn = *f ? f + 1 : f, *gn = *g ? g + 1 : g;
    if (d == e) return fa_gx_seq2(b, digits(b, d, d, 1, 1), inside(b, fn, f_open, gn, g_open, true, room - 1));
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, d, d, 1, 1), at_least(b, fn, f_open, true, room - 1)));
    fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, d + 1, e - 1, 1, 1), digits(b, 0, 9, 0, room - 1)));
    fa_gx_add(b, alt, fa_gx_seq2(b, digits(b, e, e, 1, 1), at_most(b, gn, g_open, true, room - 1)));
    return alt;
}

/* ---- numbers that are not negative ---- */

typedef struct decimal {
    int64_t whole;
    char frac[40]; /* without zeros at the end */
    bool open;
} decimal;

/* The shortest text that reads as v, without an exponent. */
static decimal decimal_of(double v, bool open) {
    decimal d = {.open = open};
    char text[80];
    for (int k = 0; k <= 30; k++) {
        snprintf(text, sizeof text, "%.*f", k, v);
        if (strtod(text, NULL) == v) break;
    }
    d.whole = strtoll(text, NULL, 10);
    const char *p = strchr(text, '.');
    size_t n = p ? strlen(p + 1) : 0;
    while (n && p[n] == '0') n--;
    if (n) memcpy(d.frac, p + 1, n);
    return d;
}

static uint32_t room_for(const decimal *lo, const decimal *hi) {
    size_t n = FRAC_DIGITS;
    if (lo && strlen(lo->frac) + 1 > n) n = strlen(lo->frac) + 1;
    if (hi && strlen(hi->frac) + 1 > n) n = strlen(hi->frac) + 1;
    return (uint32_t)(n < MOST ? n : MOST);
}

static uint32_t point(fa_gb *b, uint32_t frac) {
    char dot[] = ".";
    return fa_gx_seq2(b, fa_gx_lit(b, dot, 1, 0), frac);
}

static uint32_t maybe(fa_gb *b, uint32_t x) { return either(b, fa_gx_new(b, FA_GX_EMPTY, 0), x); }

/* The numbers >= 0 between lo and hi, hi NULL: up to fifteen digits. */
static uint32_t positive(fa_gb *b, const decimal *lo, const decimal *hi, bool integer) {
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0), room = room_for(lo, hi);
    int64_t top = hi ? hi->whole : integer ? INT64_C(999999999999999) : INT64_C(999999999);
    int64_t from = lo->whole, to = top;
    bool lo_whole = !lo->open && !lo->frac[0], hi_whole = !hi || !hi->open || hi->frac[0];
    if (!hi && top <= from) top = to = from < INT64_C(99999999999999) ? from * 10 + 9 : from + 9;
    uint32_t long_whole = (uint32_t)snprintf(NULL, 0, "%lld", (long long)top);
    if (room + long_whole > MOST) room = long_whole < MOST ? MOST - long_whole : 0;
    fa_gx_add(b, alt, fa_gx_new(b, FA_GX_NEVER, 0));
    if (integer) {
        if (!lo_whole) from++;
        if (!hi_whole) to--;
        if (from <= to) fa_gx_add(b, alt, whole(b, from, to));
        return alt;
    }
    if (hi && lo->whole > hi->whole) return alt;
    if (hi && lo->whole == hi->whole) {
        int c = strcmp(lo->frac, hi->frac); /* digit strings without zeros at the end order as numbers */
        if (c > 0 || (c == 0 && (lo->open || hi->open))) return alt;
        uint32_t frac = point(b, inside(b, lo->frac, lo->open, hi->frac, hi->open, false, room));
        fa_gx_add(b, alt, fa_gx_seq2(b, whole(b, from, from), lo_whole ? maybe(b, frac) : frac));
        return alt;
    }
    uint32_t first = point(b, at_least(b, lo->frac, lo->open, false, room));
    fa_gx_add(b, alt, fa_gx_seq2(b, whole(b, from, from), lo_whole ? maybe(b, first) : first));
    int64_t last = hi ? hi->whole - 1 : top;
    if (from + 1 <= last)
        fa_gx_add(b, alt, fa_gx_seq2(b, whole(b, from + 1, last), maybe(b, point(b, digits(b, 0, 9, 1, room)))));
    if (hi && hi_whole) {
        uint32_t end = point(b, at_most(b, hi->frac, hi->open, false, room));
        fa_gx_add(b, alt, fa_gx_seq2(b, whole(b, hi->whole, hi->whole), maybe(b, end)));
    }
    return alt;
}

uint32_t fa_decimal_tree(fa_schema *s, const fa_sbounds *k, bool integer) {
    fa_gb *b = s->b;
    bool json = b->json;
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    b->json = false;
    fa_gx_add(b, alt, fa_gx_new(b, FA_GX_NEVER, 0));
    if (!k->has_max || k->max > 0 || (k->max == 0 && !k->max_open)) {
        bool cut = k->has_min && k->min >= 0;
        decimal lo = decimal_of(cut ? k->min : 0, cut && k->min_open),
                hi = decimal_of(k->has_max ? k->max : 0, k->max_open);
        if (!(cut && k->has_max && k->min > k->max))
            fa_gx_add(b, alt, positive(b, &lo, k->has_max ? &hi : NULL, integer));
    }
    if (!k->has_min || k->min < 0) { /* below zero: -x for x between -max and -min, and more than 0 */
        bool cut = k->has_max && k->max < 0;
        decimal lo = decimal_of(cut ? -k->max : 0, cut ? k->max_open : true),
                hi = decimal_of(k->has_min ? -k->min : 0, k->min_open);
        if (!(cut && k->has_min && k->min > k->max))
            fa_gx_add(b, alt, fa_gx_seq2(b, fa_schema_lit(s, "-"), positive(b, &lo, k->has_min ? &hi : NULL, integer)));
    }
    b->json = json;
    return b->rc ? 0 : alt;
}
