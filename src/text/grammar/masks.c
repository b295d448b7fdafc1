/* Masks: which tokens lead on from a state. The trie of the vocabulary is walked once for the top of a state alone,
 * whatever lies below on its stack; where that walk leaves the rule on top, only the tokens behind that point are
 * looked at again for each stack. So the inside of a JSON string is worked out once, and every string of a document
 * uses it. */
#include "text/grammar/machine.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum {
    FULL_BYTES = 4 << 20, /* of remembered whole masks */
    MAX_GROUPS = 8,       /* a state on more stacks than these is walked as it is */
    MAX_ESCAPE = 3000,    /* trie nodes behind the escapes of a mask; with more, the next frame below is part of it */
    MAX_DEPTH = 3,        /* frames taken in so */
    MAX_COUNTERS = 6
};

static size_t words(const fa_gm *m) { return fa_mask_words(m->v->n_id); }

static void set(uint32_t *bits, uint32_t id) { bits[id / 32] |= UINT32_C(1) << (id % 32); }

static void set_range(const fa_gm *m, uint32_t *bits, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; i++) set(bits, m->v->order[i]);
}

static bool add_escape(fa_gm *m, fa_grel *r, size_t *cap, uint32_t at) {
    void *p = r->escape;
    if (!fa_gm_grow(m, &p, cap, r->n_escape + 1, sizeof *r->escape)) return false;
    r->escape = (uint32_t *)p;
    r->escape[r->n_escape++] = at;
    r->weight += m->v->node[at].skip - at - 1;
    return true;
}

/* Sets the bits of the tokens below trie node `root` that lead on from `state`; r: where escapes go, or NULL. */
static void walk(fa_gm *m, uint32_t root, uint32_t state, uint32_t *bits, fa_grel *r) {
    const fa_vnode *v = m->v->node;
    const uint8_t *cls = m->net->cls;
    uint32_t end = v[root].skip, base = v[root].depth;
    size_t cap = 0;
    m->path[0] = state;
    for (uint32_t i = root + 1; i < end && !m->rc;) {
        uint32_t depth = v[i].depth - base;
        uint32_t to = fa_gm_delta(m, m->path[depth - 1], cls[v[i].byte]);
        if (to == FA_G_DEAD) {
            i = v[i].skip;
            continue;
        }
        if (v[i].tok != v[i + 1].tok) set_range(m, bits, v[i].tok, v[i + 1].tok);
        if (r && (m->state[to].flags & FA_G_ESCAPE) && v[i].skip > i + 1 && !add_escape(m, r, &cap, i)) return;
        m->path[depth] = to;
        i++;
    }
}

/* Tokens that the grammar names. */
static void set_named(fa_gm *m, uint32_t state, uint32_t *bits) {
    const fa_vocab *v = m->v;
    if (!fa_gm_expand(m, state)) return;
    for (uint32_t i = 0; i < m->state[state].n_scan; i++) {
        uint32_t q = m->conf[m->state[state].scan + i].q;
        for (uint32_t k = m->net->edge_of[q]; k < m->net->edge_of[q + 1]; k++) {
            const fa_gedge *e = &m->net->edge[k];
            if (e->kind == FA_GE_TOKEN) set(bits, e->arg);
            if (e->kind != FA_GE_NOT_TOKEN) continue;
            for (size_t t = 0; t < v->n_order; t++)
                if (v->order[t] != e->arg) set(bits, v->order[t]);
        }
    }
}

static uint32_t clamp(const fa_gm *m, uint32_t n) {
    return n == FA_GX_INF || n <= m->v->max_len ? n : m->v->max_len + 1;
}

/* The node as seen from above: `depth` frames, and counters (as far as one token can count) as long as there is one way
 * down; *base is what lies below, for which BASE stands. */
static uint32_t view(fa_gm *m, uint32_t node, int depth, int counters, uint32_t *base) {
    *base = node;
    if (node < FA_G_NODES) return FA_G_BASE;
    fa_gnode n = m->node[node];
    uint32_t parent = m->frame[n.off].parent;
    bool counts = true;
    if (n.n > 64) return FA_G_BASE;
    for (uint32_t i = 0; i < n.n; i++) {
        fa_gframe f = m->frame[n.off + i];
        if (f.parent != parent) return FA_G_BASE;
        counts = counts && (f.min || f.max);
    }
    if (counts ? !counters : !depth) return FA_G_BASE;
    uint32_t below = view(m, parent, counts ? depth : depth - 1, counts ? counters - 1 : counters, base);
    m->n_fwork = 0;
    for (uint32_t i = 0; i < n.n; i++) {
        fa_gframe f = m->frame[n.off + i];
        f = (fa_gframe){f.call, clamp(m, f.min), clamp(m, f.max), below};
        if (m->rc) return FA_G_BASE;
        void *p = m->fwork;
        if (!fa_gm_grow(m, &p, &m->cap_fwork, m->n_fwork + 1, sizeof *m->fwork)) return FA_G_BASE;
        m->fwork = (fa_gframe *)p;
        m->fwork[m->n_fwork++] = f;
    }
    return fa_gm_node(m);
}

/* The mask of a state as a beginning above BASE: worked out once. */
static const fa_grel *rel_of(fa_gm *m, uint32_t state) {
    if (m->state[state].rel) return &m->rel[m->state[state].rel - 1];
    void *p = m->rel;
    if (!fa_gm_grow(m, &p, &m->cap_rel, m->n_rel + 1, sizeof *m->rel)) return NULL;
    m->rel = (fa_grel *)p;
    fa_grel r = {.bits = FA_NEWN(uint32_t, words(m) + 1)};
    if (!r.bits) return fa_gm_fail(m, FFAI_ENOMEM, "no memory"), NULL;
    walk(m, 0, state, r.bits, &r);
    if (!m->rc) set_named(m, state, r.bits);
    if (m->rc) {
        fa_free(r.bits);
        fa_free(r.escape);
        return NULL;
    }
    m->mask_bytes += (words(m) + r.n_escape) * 4;
    m->rel[m->n_rel++] = r;
    m->state[state].rel = (uint32_t)m->n_rel;
    return &m->rel[m->n_rel - 1];
}

/* Adds the tokens of the places c[0..n), which stand on one node. */
static void add_group(fa_gm *m, const fa_gconf *c, size_t n, uint32_t *bits) {
    uint32_t base = 0, last = FA_G_UNKNOWN;
    const fa_grel *r = NULL;
    for (int depth = 0; depth <= MAX_DEPTH && !m->rc; depth++) {
        uint32_t node = view(m, c->node, depth, MAX_COUNTERS, &base);
        if (base == last) break;
        last = base;
        m->n_work = 0;
        for (size_t i = 0; i < n && !m->rc; i++) {
            void *p = m->work;
            if (!fa_gm_grow(m, &p, &m->cap_work, m->n_work + 1, sizeof *m->work)) return;
            m->work = (fa_gconf *)p;
            m->work[m->n_work++] = (fa_gconf){c[i].q, node};
        }
        uint32_t s = fa_gm_state(m, 0);
        r = m->rc ? NULL : rel_of(m, s);
        if (!r || r->weight <= MAX_ESCAPE) break;
    }
    if (!r || m->rc) return;
    for (size_t i = 0; i < words(m); i++) bits[i] |= r->bits[i];
    uint32_t after = r->n_escape ? fa_gm_after(m, base) : FA_G_DEAD;
    if (m->rc || !m->state[after].n) return;
    size_t k = (size_t)(r - m->rel);
    for (size_t i = 0; i < m->rel[k].n_escape && !m->rc; i++) walk(m, m->rel[k].escape[i], after, bits, NULL);
}

static int by_node(const void *a, const void *b) {
    const fa_gconf *x = (const fa_gconf *)a, *y = (const fa_gconf *)b;
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return x->q < y->q ? -1 : x->q > y->q;
}

static void fill(fa_gm *m, uint32_t state, uint32_t *bits) {
    size_t n = m->state[state].n, groups = 0;
    fa_gconf few[32], *c = n <= 32 ? few : FA_NEWN(fa_gconf, n);
    if (!c) {
        fa_gm_fail(m, FFAI_ENOMEM, "no memory");
        return;
    }
    if (n) memcpy(c, m->conf + m->state[state].off, n * sizeof *c);
    qsort(c, n, sizeof *c, by_node);
    for (size_t i = 0; i < n; i++) groups += !i || c[i].node != c[i - 1].node;
    if (groups > MAX_GROUPS) {
        walk(m, 0, state, bits, NULL);
        if (!m->rc) set_named(m, state, bits);
    } else {
        for (size_t i = 0, j; i < n && !m->rc; i = j) {
            for (j = i + 1; j < n && c[j].node == c[i].node; j++) {
            }
            add_group(m, c + i, j - i, bits);
        }
    }
    if (c != few) fa_free(c);
}

/* The first token of a text loses a space in front: tokens that begin with one count as what is behind it. */
static void fill_first(fa_gm *m, uint32_t state, uint32_t *bits) {
    const fa_vnode *v = m->v->node;
    for (uint32_t i = 1; i < v[0].skip; i = v[i].skip) {
        if (v[i].byte != ' ') continue;
        for (uint32_t k = v[i].tok; k < v[v[i].skip].tok; k++)
            bits[m->v->order[k] / 32] &= ~(UINT32_C(1) << (m->v->order[k] % 32));
        walk(m, i, state, bits, NULL);
    }
}

const fa_gfull *fa_gm_mask(fa_gm *m, uint32_t state, bool first) {
    size_t w = words(m);
    if (!m->full) {
        size_t n = FULL_BYTES / (w * 4 + 1);
        n = n < 16 ? 16 : n > 1024 ? 1024 : n;
        if (!(m->full = FA_NEWN(fa_gfull, n))) return fa_gm_fail(m, FFAI_ENOMEM, "no memory"), NULL;
        m->n_full = n;
    }
    fa_gfull *f = &m->full[state % m->n_full];
    first = first && m->v->eat_space;
    if (f->bits && f->state == state && state && !first) return f;
    if (!f->bits && !(f->bits = FA_NEWN(uint32_t, w + 1))) return fa_gm_fail(m, FFAI_ENOMEM, "no memory"), NULL;
    memset(f->bits, 0, w * 4);
    f->state = FA_G_DEAD;
    fill(m, state, f->bits);
    if (!m->rc && first) fill_first(m, state, f->bits);
    if (m->rc) return NULL;
    uint32_t n = 0;
    for (size_t i = 0; i < w; i++) n += (uint32_t)__builtin_popcount(f->bits[i]);
    f->n = n;
    if (m->state[state].flags & FA_G_ACCEPT)
        for (size_t i = 0; i < m->v->n_eos; i++)
            if ((size_t)m->v->eos[i] < m->v->n_id) set(f->bits, (uint32_t)m->v->eos[i]);
    f->state = first ? FA_G_DEAD : state;
    return f;
}

/* ---- another machine of the same net ---- */

uint32_t fa_gm_carry(fa_gm *to, const fa_gm *from, uint32_t state) {
    const fa_gmstate *s = &from->state[state];
    uint32_t *map = FA_NEWN(uint32_t, from->n_node + 1); /* 0: not needed */
    if (!map) return fa_gm_fail(to, FFAI_ENOMEM, "no memory"), FA_G_DEAD;
    for (uint32_t i = 0; i < s->n; i++) map[from->conf[s->off + i].node] = 1;
    for (size_t i = from->n_node; i-- > FA_G_NODES;) /* parents have lower numbers */
        for (uint32_t k = 0; map[i] && k < from->node[i].n; k++) map[from->frame[from->node[i].off + k].parent] = 1;
    map[FA_G_BOTTOM] = FA_G_BOTTOM;
    map[FA_G_BASE] = FA_G_BASE;
    for (size_t i = FA_G_NODES; i < from->n_node && !to->rc; i++) {
        if (!map[i]) continue;
        to->n_fwork = 0;
        void *p = to->fwork;
        if (!fa_gm_grow(to, &p, &to->cap_fwork, from->node[i].n, sizeof *to->fwork)) break;
        to->fwork = (fa_gframe *)p;
        for (uint32_t k = 0; k < from->node[i].n; k++) {
            fa_gframe f = from->frame[from->node[i].off + k];
            f.parent = map[f.parent];
            to->fwork[to->n_fwork++] = f;
        }
        map[i] = fa_gm_node(to);
    }
    void *p = to->work;
    to->n_work = 0;
    if (!to->rc && fa_gm_grow(to, &p, &to->cap_work, s->n + 1, sizeof *to->work)) {
        to->work = (fa_gconf *)p;
        for (uint32_t i = 0; i < s->n; i++) {
            fa_gconf c = from->conf[s->off + i];
            to->work[to->n_work++] = (fa_gconf){c.q, map[c.node]};
        }
    }
    fa_free(map);
    return fa_gm_state(to, s->flags);
}
