/* A slow recogniser of grammars that shares nothing with the automata: it walks the expression tree over positions of a
 * text. For tests of src/text/grammar. */
#ifndef FA_TEST_GRAM_REF_H
#define FA_TEST_GRAM_REF_H

#include "base/utf8.h"
#include "text/grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

enum { REF_MAX = 62 /* bytes of a text: positions are bits */ };

typedef struct ref {
    const fa_gb *b;
    const char *s;
    size_t n;
    bool more;      /* a byte behind the end was wanted */
    uint64_t *memo; /* [n_x][n + 1] ends of a rule; */
    uint8_t *known;
    uint8_t *good; /* [n_rule] rules that can end */
} ref;

/* Positions at which `node` may end when it begins at i. */
static uint64_t ref_ends(ref *r, uint32_t node, size_t i);

/* Can this end at all, given the rules that can (ends[rule])? */
static bool ref_good(const fa_gb *b, uint32_t node, const uint8_t *ends) {
    const fa_gx *x = &b->x[node];
    bool all = true, any = false;
    switch ((fa_gx_kind)x->kind) {
    case FA_GX_SEQ:
    case FA_GX_ALT:
        for (uint32_t k = x->a; k; k = b->x[k].next) {
            bool good = ref_good(b, k, ends);
            all = all && good;
            any = any || good;
        }
        return x->kind == FA_GX_SEQ ? all : any;
    case FA_GX_REP: return !x->min || ref_good(b, x->a, ends);
    case FA_GX_RULE: return ends[x->a];
    case FA_GX_NEVER: return false;
    default: return true;
    }
}

static void ref_find_good(const fa_gb *b, uint8_t *ends) {
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < b->n_rule; i++)
            if (!ends[i] && ref_good(b, b->rule[i].body, ends)) {
                ends[i] = 1;
                more = true;
            }
    }
}

static uint64_t ref_set(ref *r, const fa_gx *x, size_t i) {
    const uint32_t *range = r->b->range + x->a;
    uint32_t cp;
    if (i == r->n) {
        r->more = true;
        return 0;
    }
    int k = fa_utf8_decode(r->s + i, r->n - i, &cp);
    bool bad = cp == 0xFFFD && !(k == 3 && memcmp(r->s + i, "\xEF\xBF\xBD", 3) == 0);
    for (uint32_t j = 0; j < x->b; j++) {
        uint32_t lo = range[2 * j], hi = range[2 * j + 1];
        if (!bad && lo <= cp && cp <= hi) return UINT64_C(1) << (i + (size_t)k);
        if (!bad || fa_utf8_partial_tail(r->s, r->n) < r->n - i) continue;
        /* the text ends inside a character: is there one in the range that goes on so? */
        size_t have = r->n - i;
        unsigned char c = (unsigned char)r->s[i];
        size_t len = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
        uint32_t first = c & (0xFFu >> (len + 1));
        for (size_t m = 1; m < have; m++) first = first << 6 | ((unsigned char)r->s[i + m] & 63);
        uint32_t shift = (uint32_t)(6 * (len - have)), a = first << shift, z = a | ((UINT32_C(1) << shift) - 1);
        uint32_t least = len == 2 ? 0x80 : len == 3 ? 0x800 : 0x10000;
        for (uint32_t v = a < least ? least : a; v <= z && v <= 0x10FFFF; v++)
            if (v >= lo && v <= hi && !(v >= 0xD800 && v <= 0xDFFF)) {
                r->more = true;
                break;
            }
    }
    return 0;
}

static uint64_t ref_from_all(ref *r, uint32_t node, uint64_t starts) {
    uint64_t out = 0;
    for (size_t i = 0; i <= r->n; i++)
        if (starts >> i & 1) out |= ref_ends(r, node, i);
    return out;
}

static uint64_t ref_rep(ref *r, const fa_gx *x, size_t i) {
    uint64_t now = UINT64_C(1) << i, out = x->min ? 0 : now;
    if (!ref_good(r->b, x->a, r->good)) return out;
    uint64_t seen[REF_MAX * 2 + 4];
    size_t n_seen = 0;
    for (uint32_t k = 0; k < x->max && now; k++) {
        now = ref_from_all(r, x->a, now);
        if (k + 1 >= x->min) out |= now;
        if (k + 1 < x->min) {
            bool again = n_seen && seen[n_seen - 1] == now; /* a fixed point of empty rounds */
            if (again) k = x->min - 2;
            if (n_seen < sizeof seen / sizeof *seen) seen[n_seen++] = now;
            continue;
        }
        size_t j = 0;
        while (j < n_seen && seen[j] != now) j++;
        if (j < n_seen && (x->max == FA_GX_INF || seen[n_seen - 1] == now)) break;
        if (n_seen < sizeof seen / sizeof *seen) seen[n_seen++] = now;
    }
    return out;
}

static uint64_t ref_ends(ref *r, uint32_t node, size_t i) {
    const fa_gx *x = &r->b->x[node];
    uint64_t out = 0;
    if (!ref_good(r->b, node, r->good)) return 0;
    switch ((fa_gx_kind)x->kind) {
    case FA_GX_EMPTY: return UINT64_C(1) << i;
    case FA_GX_LIT:
        for (uint32_t k = 0; k < x->b; k++) {
            if (i + k == r->n) {
                r->more = true;
                return 0;
            }
            if (r->s[i + k] != r->b->lit.data[x->a + k]) return 0;
        }
        return UINT64_C(1) << (i + x->b);
    case FA_GX_SET: return ref_set(r, x, i);
    case FA_GX_SEQ:
        out = UINT64_C(1) << i;
        for (uint32_t k = x->a; k && out; k = r->b->x[k].next) out = ref_from_all(r, k, out);
        return out;
    case FA_GX_ALT:
        for (uint32_t k = x->a; k; k = r->b->x[k].next) out |= ref_ends(r, k, i);
        return out;
    case FA_GX_REP: return ref_rep(r, x, i);
    case FA_GX_RULE: {
        size_t at = x->a * (r->n + 1) + i;
        if (!r->known[at]) {
            r->memo[at] = ref_ends(r, r->b->rule[x->a].body, i);
            r->known[at] = 1;
        }
        return r->memo[at];
    }
    default: return 0;
    }
}

typedef struct ref_answer {
    bool whole, viable; /* the text matches; it is the beginning of one that does */
} ref_answer;

static ref_answer ref_match(const fa_gb *b, const char *s, size_t n) {
    ref r = {.b = b, .s = s, .n = n};
    r.memo = (uint64_t *)calloc(b->n_rule * (n + 1) + 1, sizeof *r.memo);
    r.known = (uint8_t *)calloc(b->n_rule * (n + 1) + 1, 1);
    r.good = (uint8_t *)calloc(b->n_rule + 1, 1);
    ref_find_good(b, r.good);
    uint64_t ends = ref_ends(&r, b->rule[b->root].body, 0);
    free(r.memo);
    free(r.known);
    free(r.good);
    ref_answer a = {(ends >> n & 1) != 0, (ends >> n & 1) || r.more};
    return a;
}

#endif
