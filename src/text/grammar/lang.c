/* Languages of strings as deterministic automata over code points: for what expressions cannot say, "matches both" and
 * "matches, but is none of these". Sizes are bounded; what needs more is an error. */
#include "text/grammar/gram_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NFA = 20000, MAX_STATES = 20000, MAX_CELLS = 4000000, MAX_WORK = 100000000 };
#define NONE UINT32_MAX

void fa_lang_free(fa_lang *l) {
    fa_free(l->cut);
    fa_free(l->to);
    fa_free(l->accept);
    *l = (fa_lang){0};
}

static bool too_large(fa_gb *b) {
    fa_gb_fail(b, FFAI_ELIMIT, SIZE_MAX, "%s%sthe patterns and lengths together are too large",
               b->where ? b->where : "", b->where ? ": " : "");
    return false;
}

static bool nomem(fa_gb *b) { return fa_gb_nomem(b), false; }

/* ---- expressions to automata that are not deterministic ---- */

typedef struct nedge {
    uint32_t from, to, lo, hi; /* lo > hi: without text */
} nedge;

typedef struct nfa {
    fa_gb *b;
    nedge *e;
    size_t n, cap;
    uint32_t n_state;
} nfa;

static void nput(nfa *a, uint32_t from, uint32_t to, uint32_t lo, uint32_t hi) {
    if (a->b->rc) return;
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 256;
        void *p = fa_realloc(a->e, cap, sizeof *a->e);
        if (!p) {
            nomem(a->b);
            return;
        }
        a->e = (nedge *)p;
        a->cap = cap;
    }
    if (a->n > 4 * MAX_NFA || a->n_state > MAX_NFA)
        too_large(a->b);
    else
        a->e[a->n++] = (nedge){from, to, lo, hi};
}

static void nbuild(nfa *a, uint32_t node, uint32_t from, uint32_t to);

static void nlit(nfa *a, const fa_gx *x, uint32_t from, uint32_t to) {
    const char *s = a->b->lit.data + x->a;
    for (size_t i = 0; i < x->b;) {
        uint32_t cp;
        i += (size_t)fa_utf8_decode(s + i, x->b - i, &cp);
        uint32_t next = i == x->b ? to : a->n_state++;
        nput(a, from, next, cp, cp);
        from = next;
    }
}

static void nrep(nfa *a, const fa_gx *x, uint32_t from, uint32_t to) {
    if ((x->max == FA_GX_INF ? x->min : x->max) > MAX_NFA) {
        too_large(a->b);
        return;
    }
    for (uint32_t i = 0; i < x->min && !a->b->rc; i++) {
        uint32_t next = a->n_state++;
        nbuild(a, x->a, from, next);
        from = next;
    }
    if (x->max == FA_GX_INF) {
        uint32_t loop = a->n_state++;
        nput(a, from, loop, 1, 0);
        nbuild(a, x->a, loop, loop);
        nput(a, loop, to, 1, 0);
        return;
    }
    for (uint32_t i = x->min; i < x->max && !a->b->rc; i++) {
        uint32_t next = a->n_state++;
        nput(a, from, to, 1, 0);
        nbuild(a, x->a, from, next);
        from = next;
    }
    nput(a, from, to, 1, 0);
}

static void nbuild(nfa *a, uint32_t node, uint32_t from, uint32_t to) {
    if (a->b->rc) return;
    const fa_gx *x = &a->b->x[node];
    switch ((fa_gx_kind)x->kind) {
    case FA_GX_EMPTY: nput(a, from, to, 1, 0); break;
    case FA_GX_LIT: nlit(a, x, from, to); break;
    case FA_GX_SET:
        for (uint32_t i = 0; i < x->b; i++) nput(a, from, to, a->b->range[x->a + 2 * i], a->b->range[x->a + 2 * i + 1]);
        break;
    case FA_GX_SEQ:
        if (!x->a) nput(a, from, to, 1, 0);
        for (uint32_t k = x->a; k && !a->b->rc; k = a->b->x[k].next) {
            uint32_t next = a->b->x[k].next ? a->n_state++ : to;
            nbuild(a, k, from, next);
            from = next;
        }
        break;
    case FA_GX_ALT:
        for (uint32_t k = x->a; k && !a->b->rc; k = a->b->x[k].next) nbuild(a, k, from, to);
        break;
    case FA_GX_REP: nrep(a, x, from, to); break;
    default: break;
    }
}

/* ---- classes of code points ---- */

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts, drops doubles and what lies behind the last code point. */
static uint32_t tidy_cuts(uint32_t *cut, size_t n) {
    uint32_t k = 0;
    qsort(cut, n, sizeof *cut, by_value);
    for (size_t i = 0; i < n; i++)
        if (cut[i] <= 0x10FFFF && (!k || cut[i] != cut[k - 1])) cut[k++] = cut[i];
    return k;
}

static uint32_t class_of(const fa_lang *l, uint32_t cp) {
    uint32_t lo = 0, hi = l->n_cls;
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        if (l->cut[mid] <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static bool add_state(fa_gb *b, fa_lang *l, size_t *cap) {
    if (l->n_state >= MAX_STATES || (size_t)(l->n_state + 1) * l->n_cls > MAX_CELLS) return too_large(b);
    if (l->n_state == *cap) {
        size_t c = *cap ? *cap * 2 : 16;
        uint32_t *to = (uint32_t *)fa_realloc(l->to, c * l->n_cls, sizeof *to);
        if (to) l->to = to;
        uint8_t *accept = to ? (uint8_t *)fa_realloc(l->accept, c, 1) : NULL;
        if (accept) l->accept = accept;
        if (!to || !accept) return nomem(b);
        *cap = c;
    }
    memset(l->to + (size_t)l->n_state * l->n_cls, 0xFF, l->n_cls * sizeof *l->to);
    l->accept[l->n_state++] = 0;
    return true;
}

/* ---- subsets ---- */

typedef struct subsets {
    fa_gb *b;
    const nfa *a;
    uint32_t *first; /* [n_state + 1] edges by the state they leave */
    nedge *edge;
    uint32_t *pool; /* members of the subsets, one after the other */
    size_t n_pool, cap_pool;
    uint32_t *off; /* [states + 1] */
    size_t cap_off;
    uint32_t *slot; /* hash table of states + 1 */
    size_t n_slot;
    uint32_t *work, *mark, n_work, round;
    uint64_t steps;
} subsets;

static bool sort_edges(subsets *s) {
    const nfa *a = s->a;
    s->first = FA_NEWN(uint32_t, a->n_state + 2);
    s->edge = FA_NEWN(nedge, a->n + 1);
    s->work = FA_NEWN(uint32_t, a->n_state + 1);
    s->mark = FA_NEWN(uint32_t, a->n_state + 1);
    s->n_slot = 4 * MAX_STATES;
    while (s->n_slot & (s->n_slot - 1)) s->n_slot &= s->n_slot - 1;
    s->n_slot *= 2;
    s->slot = FA_NEWN(uint32_t, s->n_slot);
    if (!s->first || !s->edge || !s->work || !s->mark || !s->slot) return nomem(s->b);
    for (size_t i = 0; i < a->n; i++) s->first[a->e[i].from + 2]++;
    for (size_t i = 2; i < a->n_state + 2; i++) s->first[i] += s->first[i - 1];
    for (size_t i = 0; i < a->n; i++) s->edge[s->first[a->e[i].from + 1]++] = a->e[i];
    return true;
}

static void reach(subsets *s, uint32_t state) {
    if (s->mark[state] == s->round) return;
    s->mark[state] = s->round;
    s->work[s->n_work++] = state;
}

/* The number of the subset in work (closed under edges without text); NONE: empty or a failure. */
static uint32_t subset(subsets *s, fa_lang *l, size_t *cap) {
    for (uint32_t i = 0; i < s->n_work; i++)
        for (uint32_t k = s->first[s->work[i]]; k < s->first[s->work[i] + 1]; k++)
            if (s->edge[k].lo > s->edge[k].hi) reach(s, s->edge[k].to);
    s->steps += s->n_work;
    if (!s->n_work) return NONE;
    qsort(s->work, s->n_work, sizeof *s->work, by_value);
    uint64_t h = fa_hash(s->work, s->n_work * sizeof *s->work);
    size_t at = (size_t)h & (s->n_slot - 1);
    for (; s->slot[at]; at = (at + 1) & (s->n_slot - 1)) {
        uint32_t k = s->slot[at] - 1;
        if (s->off[k + 1] - s->off[k] == s->n_work &&
            memcmp(s->pool + s->off[k], s->work, s->n_work * sizeof *s->work) == 0)
            return k;
    }
    if (s->n_pool + s->n_work > s->cap_pool) {
        size_t c = 2 * (s->n_pool + s->n_work) + 64;
        if (c > MAX_CELLS * (size_t)4) return too_large(s->b), NONE;
        void *p = fa_realloc(s->pool, c, sizeof *s->pool);
        if (!p) return nomem(s->b), NONE;
        s->pool = (uint32_t *)p;
        s->cap_pool = c;
    }
    if (l->n_state + 2 > s->cap_off) {
        size_t c = s->cap_off ? s->cap_off * 2 : 64;
        void *p = fa_realloc(s->off, c, sizeof *s->off);
        if (!p) return nomem(s->b), NONE;
        s->off = (uint32_t *)p;
        s->off[0] = 0;
        s->cap_off = c;
    }
    if (!add_state(s->b, l, cap)) return NONE;
    memcpy(s->pool + s->n_pool, s->work, s->n_work * sizeof *s->work);
    s->n_pool += s->n_work;
    s->off[l->n_state] = (uint32_t)s->n_pool;
    l->accept[l->n_state - 1] = s->mark[1] == s->round;
    s->slot[at] = l->n_state;
    return l->n_state - 1;
}

static bool determine(subsets *s, fa_lang *l) {
    size_t cap = 0;
    if (!sort_edges(s)) return false;
    s->round = 1;
    reach(s, 0);
    subset(s, l, &cap);
    for (uint32_t i = 0; i < l->n_state && !s->b->rc; i++)
        for (uint32_t c = 0; c < l->n_cls && !s->b->rc; c++) {
            s->n_work = 0;
            s->round++;
            for (uint32_t m = s->off[i]; m < s->off[i + 1]; m++)
                for (uint32_t k = s->first[s->pool[m]]; k < s->first[s->pool[m] + 1]; k++)
                    if (s->edge[k].lo <= l->cut[c] && l->cut[c] <= s->edge[k].hi) reach(s, s->edge[k].to);
            s->steps += s->off[i + 1] - s->off[i];
            if (s->steps > MAX_WORK) return too_large(s->b);
            uint32_t to = subset(s, l, &cap);
            l->to[(size_t)i * l->n_cls + c] = to;
        }
    return !s->b->rc;
}

bool fa_lang_from_tree(fa_gb *b, uint32_t node, fa_lang *out) {
    nfa a = {.b = b, .n_state = 2};
    *out = (fa_lang){0};
    nbuild(&a, node, 0, 1);
    out->cut = FA_NEWN(uint32_t, 2 * a.n + 1);
    if (!out->cut) nomem(b);
    size_t n = 1;
    for (size_t i = 0; i < a.n && out->cut; i++)
        if (a.e[i].lo <= a.e[i].hi) {
            out->cut[n++] = a.e[i].lo;
            out->cut[n++] = a.e[i].hi + 1;
        }
    if (out->cut) out->n_cls = tidy_cuts(out->cut, n);
    subsets s = {.b = b, .a = &a};
    bool ok = !b->rc && determine(&s, out);
    fa_free(s.first), fa_free(s.edge), fa_free(s.pool), fa_free(s.off), fa_free(s.slot);
    fa_free(s.work), fa_free(s.mark), fa_free(a.e);
    if (!ok) fa_lang_free(out);
    return ok;
}

bool fa_lang_lengths(fa_gb *b, uint32_t min, uint32_t max, fa_lang *out) {
    size_t cap = 0;
    uint32_t n = max == FA_GX_INF ? min : max;
    *out = (fa_lang){.n_cls = 1, .cut = FA_NEWN(uint32_t, 1)};
    if (!out->cut) return nomem(b);
    if (n >= MAX_STATES) return too_large(b);
    for (uint32_t i = 0; i <= n; i++) {
        if (!add_state(b, out, &cap)) return fa_lang_free(out), false;
        out->to[i] = i < n ? i + 1 : max == FA_GX_INF ? i : NONE;
        out->accept[i] = i >= min;
    }
    return true;
}

/* ---- products ---- */

typedef struct product {
    fa_gb *b;
    const fa_lang *x, *y;
    fa_lang out;
    uint64_t *pair; /* [n_state] */
    size_t cap, cap_pair;
    fa_smap seen;
    bool negate; /* of y */
} product;

/* The state of a pair; y may be NONE when it is negated. */
static uint32_t pair_state(product *p, uint32_t x, uint32_t y, uint32_t *slot, size_t n_slot) {
    uint64_t key = (uint64_t)x << 32 | y;
    size_t at = (size_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 40) & (n_slot - 1);
    for (; slot[at]; at = (at + 1) & (n_slot - 1))
        if (p->pair[slot[at] - 1] == key) return slot[at] - 1;
    if (!add_state(p->b, &p->out, &p->cap)) return NONE;
    p->pair[p->out.n_state - 1] = key;
    bool in_y = y != NONE && p->y->accept[y];
    p->out.accept[p->out.n_state - 1] = p->x->accept[x] && in_y != p->negate;
    slot[at] = p->out.n_state;
    return p->out.n_state - 1;
}

static bool multiply(fa_gb *b, fa_lang *a, const fa_lang *c, bool negate) {
    enum { SLOTS = 1 << 16 };
    product p = {.b = b, .x = a, .y = c, .negate = negate};
    uint32_t *slot = FA_NEWN(uint32_t, SLOTS);
    p.pair = FA_NEWN(uint64_t, MAX_STATES + 1);
    p.out.cut = FA_NEWN(uint32_t, a->n_cls + c->n_cls);
    bool ok = (slot && p.pair && p.out.cut) || nomem(b);
    if (ok) {
        memcpy(p.out.cut, a->cut, a->n_cls * sizeof *a->cut);
        memcpy(p.out.cut + a->n_cls, c->cut, c->n_cls * sizeof *c->cut);
        p.out.n_cls = tidy_cuts(p.out.cut, a->n_cls + c->n_cls);
        if (a->n_state) pair_state(&p, 0, c->n_state ? 0 : NONE, slot, SLOTS);
    }
    for (uint32_t i = 0; ok && i < p.out.n_state; i++)
        for (uint32_t k = 0; k < p.out.n_cls && !b->rc; k++) {
            uint32_t x = (uint32_t)(p.pair[i] >> 32), y = (uint32_t)p.pair[i], cp = p.out.cut[k];
            uint32_t nx = a->to[(size_t)x * a->n_cls + class_of(a, cp)];
            uint32_t ny = y == NONE ? NONE : c->to[(size_t)y * c->n_cls + class_of(c, cp)];
            if (nx == NONE || (ny == NONE && !negate)) continue;
            uint32_t to = pair_state(&p, nx, ny, slot, SLOTS);
            p.out.to[(size_t)i * p.out.n_cls + k] = to;
        }
    fa_free(slot);
    fa_free(p.pair);
    fa_lang_free(a);
    *a = p.out;
    if (b->rc) fa_lang_free(a);
    return !b->rc;
}

bool fa_lang_both(fa_gb *b, fa_lang *a, const fa_lang *c) { return multiply(b, a, c, false); }
bool fa_lang_without(fa_gb *b, fa_lang *a, const fa_lang *c) { return multiply(b, a, c, true); }

bool fa_lang_empty(const fa_lang *l) { /* every state can be reached */
    for (uint32_t i = 0; i < l->n_state; i++)
        if (l->accept[i]) return false;
    return true;
}

bool fa_lang_has(const fa_lang *l, const char *s, size_t n) {
    uint32_t at = l->n_state ? 0 : NONE;
    for (size_t i = 0; i < n && at != NONE;) {
        uint32_t cp;
        i += (size_t)fa_utf8_decode(s + i, n - i, &cp);
        at = l->to[(size_t)at * l->n_cls + class_of(l, cp)];
    }
    return at != NONE && l->accept[at];
}

uint32_t fa_lang_tree(fa_gb *b, const fa_lang *l) {
    if (!l->n_state) return fa_gx_new(b, FA_GX_NEVER, 0);
    uint32_t net = fa_gx_new(b, FA_GX_NET, 0);
    uint32_t(*r)[2] = (uint32_t(*)[2])fa_calloc(l->n_cls + 1, sizeof *r);
    uint8_t *done = FA_NEWN(uint8_t, l->n_cls + 1);
    if (!r || !done) nomem(b);
    if (net) b->x[net].min = l->n_state;
    for (uint32_t i = 0; i < l->n_state && !b->rc; i++) {
        const uint32_t *to = l->to + (size_t)i * l->n_cls;
        memset(done, 0, l->n_cls);
        for (uint32_t c = 0; c <= l->n_cls && !b->rc; c++) {
            if (c == l->n_cls ? !l->accept[i] : done[c] || to[c] == NONE) continue;
            size_t n = 0;
            for (uint32_t k = c; k < l->n_cls; k++) {
                if (to[k] != to[c]) continue;
                done[k] = 1;
                r[n][0] = l->cut[k];
                r[n++][1] = k + 1 < l->n_cls ? l->cut[k + 1] - 1 : 0x10FFFF;
            }
            uint32_t seq = fa_gx_new(b, FA_GX_SEQ, 0);
            if (c < l->n_cls) fa_gx_add(b, seq, fa_gx_set(b, r, n, false, 0));
            if (b->rc) break;
            b->x[seq].min = i;
            b->x[seq].max = c < l->n_cls ? to[c] : FA_GX_INF;
            fa_gx_add(b, net, seq);
        }
    }
    fa_free(r);
    fa_free(done);
    return b->rc ? 0 : net;
}
