/* Expression trees to automata: every rule becomes one automaton over bytes (characters as their UTF-8) whose edges may
 * call other rules. Small repetitions are written out, large ones are calls with counters, so that {1000000} costs
 * nothing; small rules without loops are copied to where they are used. What cannot end is cut off, left recursion is
 * found here. */
#include "text/grammar/gram_int.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_STATES = 1 << 21,
    MAX_EDGES = 1 << 22,
    WRITE_OUT = 96,   /* a repetition of at most so many states is written out */
    INLINE_COST = 40, /* a rule of at most so many states is copied */
    INLINE_DEPTH = 32
};

typedef struct raw_edge {
    uint32_t from;
    fa_gedge e;
} raw_edge;

typedef struct builder {
    fa_gb *b;
    fa_gnet *net;
    raw_edge *edge;
    size_t n_edge, cap_edge, cap_call;
    uint32_t *body; /* [n_rule] node of each rule, those of counted repetitions behind the grammar's own */
    size_t n_rule, cap_rule;
    uint32_t n_state;
    uint16_t *cost; /* [grammar's rules] of a copy; UINT16_MAX: is called; 0: not known */
} builder;

static bool grow(builder *n, void **p, size_t *cap, size_t want, size_t size) {
    if (want <= *cap) return true;
    size_t c = *cap ? *cap * 2 : 64;
    void *q = fa_realloc(*p, c, size);
    if (!q) return fa_gb_nomem(n->b), false;
    *p = q;
    *cap = c;
    return true;
}

static uint32_t state(builder *n) {
    if (n->n_state >= MAX_STATES)
        fa_gb_fail(n->b, FFAI_ELIMIT, SIZE_MAX, "the grammar is too large (more than %d states)", MAX_STATES);
    return n->n_state++;
}

static void edge(builder *n, uint32_t from, uint32_t to, fa_gedge_kind kind, uint32_t arg, unsigned lo, unsigned hi) {
    void *p = n->edge;
    if (n->b->rc) return;
    if (n->n_edge >= MAX_EDGES) {
        fa_gb_fail(n->b, FFAI_ELIMIT, SIZE_MAX, "the grammar is too large (more than %d edges)", MAX_EDGES);
        return;
    }
    if (!grow(n, &p, &n->cap_edge, n->n_edge + 1, sizeof *n->edge)) return;
    n->edge = (raw_edge *)p;
    n->edge[n->n_edge++] = (raw_edge){from, {to, arg, (uint8_t)kind, (uint8_t)lo, (uint8_t)hi}};
}

static void eps(builder *n, uint32_t from, uint32_t to) { edge(n, from, to, FA_GE_EPS, 0, 0, 0); }

/* ---- UTF-8 ---- */

typedef struct utf8_path {
    int n;
    uint8_t lo[4], hi[4];
} utf8_path;

typedef struct utf8_paths {
    utf8_path *p;
    size_t n, cap;
} utf8_paths;

static void put_bytes(uint32_t cp, uint8_t *s, int n) {
    static const uint8_t lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = n - 1; i > 0; i--, cp >>= 6) s[i] = (uint8_t)(0x80 | (cp & 63));
    s[0] = (uint8_t)(lead[n] | cp);
}

/* Cuts lo..hi into runs whose bytes are ranges of their own, as Unicode's table of well-formed sequences does it. */
static void utf8_split(builder *n, utf8_paths *out, uint32_t lo, uint32_t hi) {
    static const uint32_t last[3] = {0x7F, 0x7FF, 0xFFFF};
    if (lo > hi || n->b->rc) return;
    if (lo <= 0xDFFF && hi >= 0xD800) { /* surrogates have no form */
        if (lo < 0xD800) utf8_split(n, out, lo, 0xD7FF);
        if (hi > 0xDFFF) utf8_split(n, out, 0xE000, hi);
        return;
    }
    for (int i = 0; i < 3; i++)
        if (lo <= last[i] && last[i] < hi) {
            utf8_split(n, out, lo, last[i]);
            utf8_split(n, out, last[i] + 1, hi);
            return;
        }
    int len = hi <= 0x7F ? 1 : hi <= 0x7FF ? 2 : hi <= 0xFFFF ? 3 : 4;
    for (int i = 1; i < len; i++) {
        uint32_t m = (UINT32_C(1) << (6 * i)) - 1;
        if ((lo & ~m) == (hi & ~m)) continue;
        uint32_t cut = lo & m ? lo | m : (hi & m) != m ? (hi & ~m) - 1 : hi;
        if (cut == hi) continue;
        utf8_split(n, out, lo, cut);
        utf8_split(n, out, cut + 1, hi);
        return;
    }
    void *p = out->p;
    if (!grow(n, &p, &out->cap, out->n + 1, sizeof *out->p)) return;
    out->p = (utf8_path *)p;
    utf8_path *u = &out->p[out->n++];
    u->n = len;
    put_bytes(lo, u->lo, len);
    put_bytes(hi, u->hi, len);
}

/* Paths i..j agree in their bytes before k; tail[m]: a state that takes m continuation bytes, 0 while there is none. */
static void utf8_edges(builder *n, const utf8_paths *u, size_t i, size_t j, int k, uint32_t from, uint32_t to,
                       uint32_t *tail) {
    while (i < j && k < 4 && !n->b->rc) {
        const utf8_path *p = &u->p[i];
        if (k == p->n - 1 || k == 3) { /* the second says the same, to a compiler that counts array bounds */
            edge(n, from, to, FA_GE_BYTES, 0, p->lo[k], p->hi[k]);
            i++;
            continue;
        }
        size_t e = i + 1;
        while (e < j && u->p[e].n == p->n && u->p[e].lo[k] == p->lo[k] && u->p[e].hi[k] == p->hi[k]) e++;
        bool all = e == i + 1;
        for (int m = k + 1; m < p->n; m++) all = all && p->lo[m] == 0x80 && p->hi[m] == 0xBF;
        uint32_t mid = all ? tail[p->n - 1 - k] : 0;
        if (!mid) {
            mid = state(n);
            if (all) tail[p->n - 1 - k] = mid;
            utf8_edges(n, u, i, e, k + 1, mid, to, tail);
        }
        edge(n, from, mid, FA_GE_BYTES, 0, p->lo[k], p->hi[k]);
        i = e;
    }
}

static void build_set(builder *n, const fa_gx *x, uint32_t from, uint32_t to) {
    utf8_paths u = {0};
    uint32_t tail[4] = {0};
    const uint32_t *r = n->b->range + x->a;
    for (uint32_t i = 0; i < x->b; i++) utf8_split(n, &u, r[2 * i], r[2 * i + 1]);
    utf8_edges(n, &u, 0, u.n, 0, from, to, tail);
    fa_free(u.p);
}

/* ---- expressions ---- */

static uint32_t rule_cost(builder *n, uint32_t rule, int depth);

/* About how many states a node becomes, at most `cap`; UINT32_MAX: it must not be copied into another rule. */
static uint32_t cost(builder *n, uint32_t node, uint32_t cap, int depth, bool copy) {
    const fa_gx *x = &n->b->x[node];
    uint32_t sum = 0, c;
    switch (x->kind) {
    case FA_GX_LIT: return x->b < cap ? x->b : cap;
    case FA_GX_SET: return x->b < cap / 2 ? (n->b->range[x->a + 2 * x->b - 1] < 0x80 ? 1 : 4) + x->b : cap;
    case FA_GX_SEQ:
    case FA_GX_ALT:
        for (uint32_t k = x->a; k && sum < cap; k = n->b->x[k].next) {
            c = cost(n, k, cap, depth, copy);
            if (c == UINT32_MAX) return c;
            sum += c;
        }
        return sum < cap ? sum : cap;
    case FA_GX_REP:
        if (copy && x->max == FA_GX_INF) return UINT32_MAX;
        c = cost(n, x->a, cap, depth, copy);
        if (c == UINT32_MAX || x->max == FA_GX_INF) return c;
        return (uint64_t)(c + 1) * x->max < cap ? (c + 1) * x->max : cap;
    case FA_GX_RULE: c = rule_cost(n, x->a, depth); return c != UINT32_MAX ? c : copy ? UINT32_MAX : 1;
    default: return 1;
    }
}

/* UINT32_MAX: the rule is called. */
static uint32_t rule_cost(builder *n, uint32_t rule, int depth) {
    if (n->cost[rule] == UINT16_MAX) return UINT32_MAX;
    if (n->cost[rule]) return n->cost[rule];
    if (depth >= INLINE_DEPTH) return UINT32_MAX;
    n->cost[rule] = UINT16_MAX; /* while it is looked at: recursive rules are called */
    uint32_t c = cost(n, n->b->rule[rule].body, INLINE_COST + 1, depth + 1, true);
    if (c <= INLINE_COST) n->cost[rule] = (uint16_t)(c ? c : 1);
    return c <= INLINE_COST ? n->cost[rule] : UINT32_MAX;
}

static uint32_t new_rule(builder *n, uint32_t body) {
    void *p = n->body;
    if (!grow(n, &p, &n->cap_rule, n->n_rule + 1, sizeof *n->body)) return 0;
    n->body = (uint32_t *)p;
    n->body[n->n_rule] = body;
    return (uint32_t)n->n_rule++;
}

static void call(builder *n, uint32_t rule, uint32_t min, uint32_t max, uint32_t from, uint32_t to) {
    void *p = n->net->call;
    if (n->b->rc || !grow(n, &p, &n->cap_call, n->net->n_call + 1, sizeof *n->net->call)) return;
    n->net->call = (fa_gcall *)p;
    n->net->call[n->net->n_call] = (fa_gcall){rule, to, min, max};
    edge(n, from, to, FA_GE_CALL, (uint32_t)n->net->n_call++, 0, 0);
}

static void build(builder *n, uint32_t node, uint32_t from, uint32_t to);

static void build_rep(builder *n, const fa_gx *x, uint32_t from, uint32_t to) {
    uint32_t min = x->min, max = x->max, times = max == FA_GX_INF ? min : max;
    uint32_t c = times > 1 ? cost(n, x->a, WRITE_OUT + 1, 0, false) + 1 : 1;
    if (times > 1 && (uint64_t)c * times > WRITE_OUT) {
        call(n, new_rule(n, x->a), min, max, from, to);
        return;
    }
    bool last_loops = max == FA_GX_INF && min > 0;
    for (uint32_t i = 0; i + last_loops < min; i++) {
        uint32_t next = i + 1 == min && max == min ? to : state(n);
        build(n, x->a, from, next);
        from = next;
    }
    if (max == FA_GX_INF) {
        uint32_t loop = state(n), end = loop;
        eps(n, from, loop);
        if (min) {
            end = state(n);
            eps(n, end, loop);
        }
        build(n, x->a, loop, end);
        eps(n, end, to);
        return;
    }
    for (uint32_t i = min; i < max; i++) {
        uint32_t next = i + 1 == max ? to : state(n);
        eps(n, from, to);
        build(n, x->a, from, next);
        from = next;
    }
    if (!max) eps(n, from, to);
}

static void build_lit(builder *n, const fa_gx *x, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < x->b && !n->b->rc; i++) {
        uint32_t next = i + 1 == x->b ? to : state(n);
        unsigned c = (unsigned char)n->b->lit.data[x->a + i];
        edge(n, from, next, FA_GE_BYTES, 0, c, c);
        from = next;
    }
}

static void build_net(builder *n, const fa_gx *x, uint32_t from, uint32_t to) {
    uint32_t base = n->n_state;
    for (uint32_t i = 0; i < x->min && !n->b->rc; i++) state(n);
    eps(n, from, base);
    for (uint32_t k = x->a; k && !n->b->rc; k = n->b->x[k].next) {
        const fa_gx *e = &n->b->x[k];
        build(n, k, base + e->min, e->max == FA_GX_INF ? to : base + e->max);
    }
}

/* Adds what leads from `from` to `to` on exactly this expression: only edges out of `from` and into `to`. */
static void build(builder *n, uint32_t node, uint32_t from, uint32_t to) {
    if (n->b->rc) return;
    const fa_gx *x = &n->b->x[node];
    switch ((fa_gx_kind)x->kind) {
    case FA_GX_EMPTY: eps(n, from, to); break;
    case FA_GX_LIT: build_lit(n, x, from, to); break;
    case FA_GX_SET: build_set(n, x, from, to); break;
    case FA_GX_SEQ:
        if (!x->a) eps(n, from, to);
        for (uint32_t k = x->a; k && !n->b->rc; k = n->b->x[k].next) {
            uint32_t next = n->b->x[k].next ? state(n) : to;
            build(n, k, from, next);
            from = next;
        }
        break;
    case FA_GX_ALT:
        for (uint32_t k = x->a; k && !n->b->rc; k = n->b->x[k].next) build(n, k, from, to);
        break;
    case FA_GX_REP: build_rep(n, x, from, to); break;
    case FA_GX_RULE:
        if (rule_cost(n, x->a, 0) != UINT32_MAX)
            build(n, n->b->rule[x->a].body, from, to);
        else
            call(n, x->a, 1, 1, from, to);
        break;
    case FA_GX_NET: build_net(n, x, from, to); break;
    case FA_GX_TOKEN: edge(n, from, to, FA_GE_TOKEN, x->a, 0, 0); break;
    case FA_GX_NOT_TOKEN: edge(n, from, to, FA_GE_NOT_TOKEN, x->a, 0, 0); break;
    case FA_GX_NEVER:
    case FA_GX_BEGIN:
    case FA_GX_END: break;
    }
}

/* ---- the finished net ---- */

/* Edges in the order of their states; ends[]: states that an end can be reached from; others are cut off. */
static bool pack(builder *n, const uint8_t *alive) {
    fa_gnet *t = n->net;
    size_t kept = 0;
    for (size_t i = 0; i < n->n_edge; i++)
        if (alive[i]) n->edge[kept++] = n->edge[i];
    t->edge_of = FA_NEWN(uint32_t, t->n_state + 2);
    t->edge = FA_NEWN(fa_gedge, kept + 1);
    if (!t->edge_of || !t->edge) return fa_gb_nomem(n->b), false;
    for (size_t i = 0; i < kept; i++) t->edge_of[n->edge[i].from + 2]++;
    for (size_t i = 2; i < t->n_state + 2; i++) t->edge_of[i] += t->edge_of[i - 1];
    for (size_t i = 0; i < kept; i++) t->edge[t->edge_of[n->edge[i].from + 1]++] = n->edge[i].e;
    t->n_edge = kept;
    return true;
}

typedef struct walker {
    uint32_t *seen, *stack, mark;
    uint32_t *in, *list;       /* edges by where they lead: list[in[s + 1] .. in[s + 2]) lead to s */
    uint32_t *waits, *waiting; /* calls that wait for their rule: a list per rule through waits[edge] */
    uint32_t *owner;           /* [n_state] rule + 1 that begins here */
    uint8_t *good, *alive;
} walker;

static bool walker_init(builder *n, walker *w) {
    fa_gnet *t = n->net;
    w->seen = FA_NEWN(uint32_t, t->n_state + 1);
    w->stack = FA_NEWN(uint32_t, t->n_state + 1);
    w->in = FA_NEWN(uint32_t, t->n_state + 3);
    w->list = FA_NEWN(uint32_t, n->n_edge + 1);
    w->waits = FA_NEWN(uint32_t, n->n_edge + 1);
    w->waiting = FA_NEWN(uint32_t, t->n_rule + 1);
    w->owner = FA_NEWN(uint32_t, t->n_state + 1);
    w->good = FA_NEWN(uint8_t, t->n_state + 1);
    w->alive = FA_NEWN(uint8_t, n->n_edge + 1);
    if (!w->seen || !w->stack || !w->in || !w->list || !w->waits || !w->waiting || !w->owner || !w->good || !w->alive)
        return fa_gb_nomem(n->b), false;
    for (size_t i = 0; i < n->n_edge; i++) w->in[n->edge[i].e.to + 2]++;
    for (size_t i = 0; i <= t->n_state; i++) w->in[i + 2] += w->in[i + 1];
    for (size_t i = 0; i < n->n_edge; i++) w->list[w->in[n->edge[i].e.to + 1]++] = (uint32_t)i;
    /* now in[s] is where the edges into s begin, in[s + 1] where they end */
    for (size_t i = 0; i < t->n_rule; i++) w->owner[t->rule[i].start] = (uint32_t)i + 1;
    return true;
}

static void walker_free(walker *w) {
    fa_free(w->seen), fa_free(w->stack), fa_free(w->in), fa_free(w->list), fa_free(w->waits);
    fa_free(w->waiting), fa_free(w->owner), fa_free(w->good), fa_free(w->alive);
}

/* Sets good[] of the states that reach the end of their rule, on any way or (empty) without text: backwards from the
 * ends. A call counts once its rule is good, or when it may be left out. */
static void backwards(builder *n, walker *w, bool empty) {
    fa_gnet *t = n->net;
    size_t top = 0;
    memset(w->good, 0, t->n_state);
    memset(w->waiting, 0, t->n_rule * sizeof *w->waiting);
    for (size_t i = 0; i < t->n_rule; i++) {
        w->good[t->rule[i].end] = 1;
        w->stack[top++] = t->rule[i].end;
    }
    while (top) {
        uint32_t s = w->stack[--top];
        for (uint32_t i = w->in[s]; i < w->in[s + 1]; i++) {
            const raw_edge *e = &n->edge[w->list[i]];
            const fa_gcall *c = e->e.kind == FA_GE_CALL ? &t->call[e->e.arg] : NULL;
            if (w->good[e->from] || (empty && !c && e->e.kind != FA_GE_EPS)) continue;
            if (c && c->min && !w->good[t->rule[c->rule].start]) {
                w->waits[w->list[i]] = w->waiting[c->rule];
                w->waiting[c->rule] = w->list[i] + 1;
                continue;
            }
            w->good[e->from] = 1;
            w->stack[top++] = e->from;
        }
        if (!w->owner[s]) continue;
        for (uint32_t k = w->waiting[w->owner[s] - 1]; k; k = w->waits[k - 1]) {
            uint32_t from = n->edge[k - 1].from;
            if (w->good[from]) continue;
            w->good[from] = 1;
            w->stack[top++] = from;
        }
    }
}

/* Finds the rules that match the empty text (their calls may be left out) and cuts off what cannot end. */
static bool trim(builder *n, walker *w) {
    fa_gnet *t = n->net;
    backwards(n, w, true);
    for (size_t i = 0; i < t->n_rule; i++) t->rule[i].nullable = w->good[t->rule[i].start];
    for (size_t i = 0; i < t->n_call; i++)
        if (t->rule[t->call[i].rule].nullable) t->call[i].min = 0;
    backwards(n, w, false);
    for (size_t i = 0; i < n->n_edge; i++) {
        fa_gedge *e = &n->edge[i].e;
        bool runs = e->kind != FA_GE_CALL || w->good[t->rule[t->call[e->arg].rule].start];
        if (!runs && !t->call[e->arg].min) e->kind = FA_GE_EPS, runs = true;
        w->alive[i] = w->good[e->to] && runs;
    }
    if (!w->good[t->rule[t->root].start]) {
        fa_gb_fail(n->b, FFAI_EFORMAT, n->b->rule[t->root].at,
                   "no text can ever match: every way goes on for ever or into nothing");
        return false;
    }
    return pack(n, w->alive);
}

/* Appends the rules that `r` may call before any text. */
static void left_calls(const fa_gnet *t, walker *w, const fa_gnet_rule *r, uint32_t **list, size_t *n, size_t *cap,
                       fa_gb *b) {
    size_t top = 0;
    w->mark++;
    w->seen[r->start] = w->mark;
    w->stack[top++] = r->start;
    while (top && !b->rc) {
        uint32_t s = w->stack[--top];
        for (uint32_t i = t->edge_of[s]; i < t->edge_of[s + 1]; i++) {
            const fa_gedge *e = &t->edge[i];
            if (e->kind == FA_GE_CALL) {
                if (*n == *cap) {
                    uint32_t *q = (uint32_t *)fa_realloc(*list, *cap ? *cap * 2 : 64, sizeof *q);
                    if (!q) {
                        fa_gb_nomem(b);
                        return;
                    }
                    *list = q;
                    *cap = *cap ? *cap * 2 : 64;
                }
                (*list)[(*n)++] = t->call[e->arg].rule;
            }
            if (!(e->kind == FA_GE_EPS || (e->kind == FA_GE_CALL && !t->call[e->arg].min)) || w->seen[e->to] == w->mark)
                continue;
            w->seen[e->to] = w->mark;
            w->stack[top++] = e->to;
        }
    }
}

static void left_recursive(builder *n, uint32_t rule) {
    const fa_grule *g = rule < n->b->n_rule ? &n->b->rule[rule] : NULL;
    if (g && g->name)
        fa_gb_fail(n->b, FFAI_EFORMAT, g->at, "rule \"%.*s\" is left recursive: it can begin with itself",
                   (int)(g->n_name < 100 ? g->n_name : 100), g->name);
    else
        fa_gb_fail(n->b, FFAI_EFORMAT, g ? g->at : n->b->x[n->body[rule]].at,
                   "left recursion: this can begin with itself");
}

/* Ranks by depth-first search over "may begin by calling"; a cycle is left recursion. */
static void find_ranks(builder *n, walker *w) {
    fa_gnet *t = n->net;
    size_t *from = FA_NEWN(size_t, t->n_rule + 1), *next = FA_NEWN(size_t, t->n_rule + 1);
    uint32_t *path = FA_NEWN(uint32_t, t->n_rule + 1), *list = NULL;
    uint8_t *colour = FA_NEWN(uint8_t, t->n_rule + 1);
    size_t n_list = 0, cap = 0, depth = 0, rank = t->n_rule;
    if (!from || !next || !path || !colour) fa_gb_nomem(n->b);
    for (uint32_t i = 0; i < t->n_rule && !n->b->rc; i++) {
        if (colour[i]) continue;
        path[depth++] = i;
        while (depth && !n->b->rc) {
            uint32_t r = path[depth - 1];
            if (!colour[r]) {
                colour[r] = 1;
                from[r] = next[r] = n_list;
                left_calls(t, w, &t->rule[r], &list, &n_list, &cap, n->b);
            }
            if (next[r] == n_list) {
                colour[r] = 2;
                t->rule[r].rank = (uint32_t)--rank;
                t->by_rank[rank] = r;
                n_list = from[r];
                depth--;
                continue;
            }
            uint32_t c = list[next[r]++];
            if (colour[c] == 1)
                left_recursive(n, c);
            else if (!colour[c])
                path[depth++] = c;
        }
    }
    fa_free(from), fa_free(next), fa_free(path), fa_free(list), fa_free(colour);
}

/* Bytes that no edge tells apart are one class. */
static void find_classes(fa_gnet *t) {
    uint8_t cut[257] = {1};
    for (size_t i = 0; i < t->n_edge; i++)
        if (t->edge[i].kind == FA_GE_BYTES) cut[t->edge[i].lo] = cut[t->edge[i].hi + 1] = 1;
    for (int c = 0; c < 256; c++) {
        if (cut[c]) t->rep[t->n_cls++] = (uint8_t)c;
        t->cls[c] = (uint8_t)(t->n_cls - 1);
    }
}

static void build_rules(builder *n) {
    fa_gb *b = n->b;
    fa_gnet *t = n->net;
    size_t cap = 0;
    for (uint32_t i = 0; i < b->n_rule; i++) new_rule(n, b->rule[i].body);
    for (size_t i = 0; i < n->n_rule && !b->rc; i++) { /* grows while repetitions are met */
        void *p = t->rule;
        if (!grow(n, &p, &cap, i + 1, sizeof *t->rule)) return;
        t->rule = (fa_gnet_rule *)p;
        uint32_t start = state(n), end = state(n);
        t->rule[i] = (fa_gnet_rule){.start = start, .end = end};
        t->n_rule = i + 1;
        build(n, n->body[i], start, end);
    }
}

static void finish(builder *n) {
    fa_gnet *t = n->net;
    walker w = {0};
    t->n_state = n->n_state;
    t->is_end = FA_NEWN(uint8_t, t->n_state + 1);
    t->by_rank = FA_NEWN(uint32_t, t->n_rule + 1);
    if (!t->is_end || !t->by_rank) fa_gb_nomem(n->b);
    if (!n->b->rc && walker_init(n, &w) && trim(n, &w)) {
        for (size_t i = 0; i < t->n_rule; i++) t->is_end[t->rule[i].end] = 1;
        for (uint32_t s = 0; s < t->n_state; s++)
            for (uint32_t i = t->edge_of[s]; i < t->edge_of[s + 1]; i++)
                if (t->edge[i].kind != FA_GE_EPS) t->is_end[s] |= 2;
        find_ranks(n, &w);
        find_classes(t);
    }
    walker_free(&w);
}

int fa_gnet_build(fa_gnet *net, fa_gb *b) {
    builder n = {.b = b, .net = net};
    *net = (fa_gnet){.root = b->root};
    n.cost = FA_NEWN(uint16_t, b->n_rule + 1);
    if (!n.cost) fa_gb_nomem(b);
    if (!b->rc) build_rules(&n);
    if (!b->rc) finish(&n);
    fa_free(n.edge);
    fa_free(n.body);
    fa_free(n.cost);
    if (b->rc) fa_gnet_free(net);
    return b->rc;
}

void fa_gnet_free(fa_gnet *t) {
    fa_free(t->edge_of);
    fa_free(t->edge);
    fa_free(t->call);
    fa_free(t->rule);
    fa_free(t->is_end);
    fa_free(t->by_rank);
    *t = (fa_gnet){0};
}
