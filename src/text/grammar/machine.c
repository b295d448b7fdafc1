/* States and nodes of the machine: storing them once, stepping by a byte, entering and leaving rules. */
#include "text/grammar/machine.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_BYTES = 256 << 20, /* of all states together; fa_gm_bytes is looked at between calls, this bounds one call */
    MAX_PLACES = 1 << 15,  /* of one state, frames of one node */
    MAX_STEPS = 60000000   /* of one call: a second or two */
};

static const char no_memory[] = "no memory",
                  too_many[] = "the grammar is too ambiguous here: too many ways to read the text";

int fa_gm_fail(fa_gm *m, int code, const char *why) {
    if (!m->rc) {
        m->rc = code;
        m->why = why;
    }
    return m->rc;
}

void fa_gm_begin(fa_gm *m) {
    m->rc = 0;
    m->steps = 0;
    m->why = NULL;
}

bool fa_gm_grow(fa_gm *m, void **p, size_t *cap, size_t want, size_t size) {
    if (want <= *cap) return true;
    size_t c = *cap ? *cap * 2 : 64;
    while (c < want) c *= 2;
    if (c * size > MAX_BYTES) return fa_gm_fail(m, FFAI_ELIMIT, too_many), false;
    void *q = fa_realloc(*p, c, size);
    if (!q) return fa_gm_fail(m, FFAI_ENOMEM, no_memory), false;
    *p = q;
    *cap = c;
    return true;
}

#define GROW(m, field, want) grow_##field(m, want)
#define GROWS(name, type)                                                                                              \
    static bool grow_##name(fa_gm *m, size_t want) {                                                                   \
        void *p = m->name;                                                                                             \
        bool ok = fa_gm_grow(m, &p, &m->cap_##name, want, sizeof(type));                                               \
        m->name = (type *)p;                                                                                           \
        return ok;                                                                                                     \
    }
GROWS(frame, fa_gframe)
GROWS(node, fa_gnode)
GROWS(conf, fa_gconf)
GROWS(state, fa_gmstate)
GROWS(row, uint32_t)
GROWS(work, fa_gconf)
GROWS(fwork, fa_gframe)
GROWS(pend, fa_gpend)
GROWS(heap, uint32_t)

/* ---- numbers for contents ---- */

/* A free slot for this hash, or the slot of an equal entry. */
typedef bool same_fn(const fa_gm *m, uint32_t number);

static uint32_t *find(fa_gm *m, fa_gtable *t, uint64_t hash, same_fn *same) {
    for (size_t i = (size_t)hash & (t->cap - 1);; i = (i + 1) & (t->cap - 1)) {
        if (!t->slot[i] || same(m, t->slot[i] - 1)) return &t->slot[i];
    }
}

static uint64_t conf_hash(const fa_gconf *c, size_t n, uint8_t flags) {
    return fa_hash(c, n * sizeof *c) + flags * UINT64_C(0x9E3779B97F4A7C15);
}

static bool rehash(fa_gm *m, fa_gtable *t, bool nodes) {
    if ((t->n + 1) * 2 <= t->cap) return true;
    size_t cap = t->cap ? t->cap * 2 : 256;
    uint32_t *slot = FA_NEWN(uint32_t, cap);
    if (!slot) return fa_gm_fail(m, FFAI_ENOMEM, no_memory), false;
    size_t n = nodes ? m->n_node : m->n_state;
    for (size_t i = nodes ? FA_G_NODES : 0; i < n; i++) {
        uint64_t h = nodes ? fa_hash(m->frame + m->node[i].off, m->node[i].n * sizeof *m->frame)
                           : conf_hash(m->conf + m->state[i].off, m->state[i].n, m->state[i].flags);
        size_t at = (size_t)h & (cap - 1);
        while (slot[at]) at = (at + 1) & (cap - 1);
        slot[at] = (uint32_t)i + 1;
    }
    fa_free(t->slot);
    t->slot = slot;
    t->cap = cap;
    return true;
}

static int by_frame(const void *a, const void *b) { return memcmp(a, b, sizeof(fa_gframe)); }

static bool same_node(const fa_gm *m, uint32_t i) {
    const fa_gnode *n = &m->node[i];
    return n->n == m->n_fwork && memcmp(m->frame + n->off, m->fwork, m->n_fwork * sizeof *m->fwork) == 0;
}

uint32_t fa_gm_node(fa_gm *m) {
    if (m->rc) return FA_G_BASE;
    if (m->n_fwork > 1) {
        qsort(m->fwork, m->n_fwork, sizeof *m->fwork, by_frame);
        size_t k = 1;
        for (size_t i = 1; i < m->n_fwork; i++)
            if (memcmp(&m->fwork[i], &m->fwork[k - 1], sizeof *m->fwork) != 0) m->fwork[k++] = m->fwork[i];
        m->n_fwork = k;
    }
    m->steps += m->n_fwork;
    if (m->n_fwork > MAX_PLACES) return fa_gm_fail(m, FFAI_ELIMIT, too_many), FA_G_BASE;
    if (!rehash(m, &m->nodes, true)) return FA_G_BASE;
    uint32_t *slot = find(m, &m->nodes, fa_hash(m->fwork, m->n_fwork * sizeof *m->fwork), same_node);
    if (*slot) return *slot - 1;
    if (!GROW(m, node, m->n_node + 1) || !GROW(m, frame, m->n_frame + m->n_fwork)) return FA_G_BASE;
    m->node[m->n_node] = (fa_gnode){(uint32_t)m->n_frame, (uint32_t)m->n_fwork, FA_G_UNKNOWN};
    memcpy(m->frame + m->n_frame, m->fwork, m->n_fwork * sizeof *m->fwork);
    m->n_frame += m->n_fwork;
    m->nodes.n++;
    *slot = (uint32_t)m->n_node + 1;
    return (uint32_t)m->n_node++;
}

/* Adds a frame to fwork. A call that is the last thing of its rule leaves no trace: it goes on where its rule would, so
 * that lists written as right recursion do not grow the stack. */
void fa_gm_frame(fa_gm *m, fa_gframe f) {
    bool last = !f.max && !f.min && (m->net->is_end[m->net->call[f.call].to] & 1) && f.parent >= FA_G_NODES;
    size_t n = last ? m->node[f.parent].n : 1;
    if (m->rc || !GROW(m, fwork, m->n_fwork + n)) return;
    if (last)
        memcpy(m->fwork + m->n_fwork, m->frame + m->node[f.parent].off, n * sizeof f);
    else
        m->fwork[m->n_fwork] = f;
    m->n_fwork += n;
}

static int by_conf(const void *a, const void *b) {
    const fa_gconf *x = (const fa_gconf *)a, *y = (const fa_gconf *)b;
    if (x->q != y->q) return x->q < y->q ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

static bool same_state(const fa_gm *m, uint32_t i) {
    const fa_gmstate *s = &m->state[i];
    return s->n == m->n_work && s->flags == m->want &&
           memcmp(m->conf + s->off, m->work, m->n_work * sizeof *m->work) == 0;
}

uint32_t fa_gm_state(fa_gm *m, uint8_t flags) {
    if (m->rc) return FA_G_DEAD;
    if (m->n_work > 1) qsort(m->work, m->n_work, sizeof *m->work, by_conf);
    if (m->n_work > MAX_PLACES) return fa_gm_fail(m, FFAI_ELIMIT, too_many), FA_G_DEAD;
    if (!rehash(m, &m->states, false)) return FA_G_DEAD;
    m->want = flags;
    uint32_t *slot = find(m, &m->states, conf_hash(m->work, m->n_work, flags), same_state);
    if (*slot) return *slot - 1;
    if (!GROW(m, state, m->n_state + 1) || !GROW(m, conf, m->n_conf + m->n_work)) return FA_G_DEAD;
    m->state[m->n_state] = (fa_gmstate){.off = (uint32_t)m->n_conf,
                                        .n = (uint32_t)m->n_work,
                                        .scan = FA_G_UNKNOWN,
                                        .row = FA_G_UNKNOWN,
                                        .flags = flags};
    if (m->n_work) memcpy(m->conf + m->n_conf, m->work, m->n_work * sizeof *m->work);
    m->n_conf += m->n_work;
    m->states.n++;
    *slot = (uint32_t)m->n_state + 1;
    return (uint32_t)m->n_state++;
}

/* ---- sets of places ---- */

void fa_gm_clear(fa_gm *m) {
    m->n_work = m->n_fwork = m->n_pend = m->n_heap = m->n_seen = 0;
    if (++m->mark == 0) { /* once in four thousand million calls */
        memset(m->seen, 0, m->cap_seen * sizeof *m->seen);
        m->mark = 1;
    }
}

static bool grow_seen(fa_gm *m) {
    size_t cap = m->cap_seen * 2;
    fa_gseen *grown = FA_NEWN(fa_gseen, cap);
    if (!grown) return fa_gm_fail(m, FFAI_ENOMEM, no_memory), false;
    for (size_t i = 0; i < m->cap_seen; i++) {
        if (m->seen[i].mark != m->mark) continue;
        size_t at = (size_t)(m->seen[i].key * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (cap - 1);
        while (grown[at].mark == m->mark) at = (at + 1) & (cap - 1);
        grown[at] = m->seen[i];
    }
    fa_free(m->seen);
    m->seen = grown;
    m->cap_seen = cap;
    return true;
}

/* True the first time since fa_gm_clear. */
static bool first_time(fa_gm *m, uint32_t q, uint32_t node) {
    uint64_t key = (uint64_t)q << 32 | node;
    if ((m->n_seen + 1) * 2 > m->cap_seen && !grow_seen(m)) return false;
    size_t at = (size_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (m->cap_seen - 1);
    for (; m->seen[at].mark == m->mark; at = (at + 1) & (m->cap_seen - 1))
        if (m->seen[at].key == key) return false;
    m->seen[at] = (fa_gseen){key, m->mark};
    m->n_seen++;
    return true;
}

void fa_gm_push(fa_gm *m, uint32_t q, uint32_t node) {
    if (m->rc || !first_time(m, q, node) || !GROW(m, work, m->n_work + 1)) return;
    m->work[m->n_work++] = (fa_gconf){q, node};
    if (m->n_work > 4 * MAX_PLACES || ++m->steps > MAX_STEPS) fa_gm_fail(m, FFAI_ELIMIT, too_many);
}

/* ---- rules to be entered: their frames are collected first, so that all callers share one node ---- */

static void heap_push(fa_gm *m, uint32_t rank) {
    if (!GROW(m, heap, m->n_heap + 1)) return;
    size_t i = m->n_heap++;
    for (; i && m->heap[(i - 1) / 2] > rank; i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = rank;
}

static uint32_t heap_pop(fa_gm *m) {
    uint32_t top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t c = 1; c < m->n_heap; c = 2 * i + 1) {
        if (c + 1 < m->n_heap && m->heap[c + 1] < m->heap[c]) c++;
        if (m->heap[c] >= last) break;
        m->heap[i] = m->heap[c];
        i = c;
    }
    if (m->n_heap) m->heap[i] = last;
    return top;
}

static uint32_t one_less(uint32_t n) { return n == FA_GX_INF || !n ? n : n - 1; }

/* `call` is to run once more, with the frame's counts after that run. */
static void pend(fa_gm *m, fa_gframe f) {
    uint32_t rule = m->net->call[f.call].rule;
    if (m->rc || !GROW(m, pend, m->n_pend + 1)) return;
    if (!m->head[rule]) heap_push(m, m->net->rule[rule].rank);
    m->pend[m->n_pend] = (fa_gpend){f, rule, m->head[rule]};
    m->head[rule] = (uint32_t)++m->n_pend;
    if (++m->steps > MAX_STEPS) fa_gm_fail(m, FFAI_ELIMIT, too_many);
}

/* Takes the pending rule of the lowest rank: *node holds its frames. */
static uint32_t next_rule(fa_gm *m, uint32_t *node) {
    uint32_t rule = m->net->by_rank[heap_pop(m)];
    m->n_fwork = 0;
    for (uint32_t i = m->head[rule]; i; i = m->pend[i - 1].next) fa_gm_frame(m, m->pend[i - 1].frame);
    m->head[rule] = 0;
    *node = fa_gm_node(m);
    return rule;
}

/* After a failure: forgets what is pending. */
static void drop_pending(fa_gm *m) {
    while (m->n_heap) m->head[m->net->by_rank[m->heap[--m->n_heap]]] = 0;
    for (size_t i = 0; i < m->n_pend; i++) m->head[m->pend[i].rule] = 0;
}

/* Ends the rule above `node`. */
static uint8_t leave(fa_gm *m, uint32_t node) {
    if (node == FA_G_BOTTOM) return FA_G_ACCEPT;
    if (node == FA_G_BASE) return FA_G_ESCAPE;
    for (uint32_t i = 0; i < m->node[node].n && !m->rc; i++) {
        fa_gframe f = m->frame[m->node[node].off + i];
        if (!f.min) fa_gm_push(m, m->net->call[f.call].to, f.parent);
        if (f.max) pend(m, (fa_gframe){f.call, one_less(f.min), one_less(f.max), f.parent});
    }
    return 0;
}

uint32_t fa_gm_settle(fa_gm *m) {
    const fa_gnet *t = m->net;
    uint8_t flags = 0;
    size_t kept = 0;
    for (size_t i = 0; i < m->n_work && !m->rc; i++) {
        fa_gconf c = m->work[i];
        if (t->is_end[c.q] & 1) flags |= leave(m, c.node);
        for (uint32_t k = t->edge_of[c.q]; k < t->edge_of[c.q + 1]; k++) {
            const fa_gedge *e = &t->edge[k];
            if (e->kind == FA_GE_EPS || (e->kind == FA_GE_CALL && !t->call[e->arg].min)) fa_gm_push(m, e->to, c.node);
        }
    }
    for (size_t i = 0; i < m->n_work; i++)
        if (t->is_end[m->work[i].q] & 2) m->work[kept++] = m->work[i];
    m->n_work = kept;
    while (m->n_heap && !m->rc) { /* repetitions that go on: their rule begins again */
        uint32_t node, rule = next_rule(m, &node);
        if (m->rc || !GROW(m, work, m->n_work + 1)) break;
        m->work[m->n_work++] = (fa_gconf){t->rule[rule].start, node};
    }
    if (m->rc) drop_pending(m);
    return fa_gm_state(m, flags);
}

/* Follows the places in work from `from` on without text, as far as they stay in their rules. Those that read something
 * are moved to the front of the part behind `from`; *n_scan grows. */
static void spread(fa_gm *m, size_t from, size_t *n_scan) {
    const fa_gnet *t = m->net;
    for (size_t i = from; i < m->n_work && !m->rc; i++) {
        fa_gconf c = m->work[i];
        bool reads = false;
        for (uint32_t k = t->edge_of[c.q]; k < t->edge_of[c.q + 1] && !m->rc; k++) {
            const fa_gedge *e = &t->edge[k];
            const fa_gcall *call = e->kind == FA_GE_CALL ? &t->call[e->arg] : NULL;
            if (call) pend(m, (fa_gframe){e->arg, one_less(call->min), one_less(call->max), c.node});
            if (e->kind == FA_GE_EPS || (call && !call->min)) fa_gm_push(m, e->to, c.node);
            reads = reads || e->kind == FA_GE_BYTES || e->kind == FA_GE_TOKEN || e->kind == FA_GE_NOT_TOKEN;
        }
        if (!reads) continue;
        m->work[i] = m->work[*n_scan];
        m->work[(*n_scan)++] = c;
    }
}

bool fa_gm_expand(fa_gm *m, uint32_t state) {
    if (m->state[state].scan != FA_G_UNKNOWN) return true;
    size_t n_scan = 0, from = 0;
    fa_gm_clear(m);
    for (uint32_t i = 0; i < m->state[state].n; i++) {
        fa_gconf c = m->conf[m->state[state].off + i];
        fa_gm_push(m, c.q, c.node);
    }
    spread(m, 0, &n_scan);
    while (m->n_heap && !m->rc) {
        uint32_t node, rule = next_rule(m, &node);
        from = m->n_work;
        fa_gm_push(m, m->net->rule[rule].start, node);
        spread(m, from, &n_scan);
    }
    if (m->rc) drop_pending(m);
    if (m->rc || !GROW(m, conf, m->n_conf + n_scan)) return false;
    if (n_scan) memcpy(m->conf + m->n_conf, m->work, n_scan * sizeof *m->work);
    m->state[state].scan = (uint32_t)m->n_conf;
    m->state[state].n_scan = (uint32_t)n_scan;
    m->n_conf += n_scan;
    return true;
}

uint32_t fa_gm_step(fa_gm *m, uint32_t state, unsigned cls) {
    const fa_gnet *t = m->net;
    if (m->rc || !fa_gm_expand(m, state)) return FA_G_DEAD;
    if (m->state[state].row == FA_G_UNKNOWN) {
        if (!GROW(m, row, m->n_row + t->n_cls)) return FA_G_DEAD;
        memset(m->row + m->n_row, 0xFF, t->n_cls * sizeof *m->row);
        m->state[state].row = (uint32_t)m->n_row;
        m->n_row += t->n_cls;
    }
    unsigned byte = t->rep[cls];
    fa_gm_clear(m);
    m->steps += m->state[state].n_scan;
    for (uint32_t i = 0; i < m->state[state].n_scan; i++) {
        fa_gconf c = m->conf[m->state[state].scan + i];
        for (uint32_t k = t->edge_of[c.q]; k < t->edge_of[c.q + 1]; k++) {
            const fa_gedge *e = &t->edge[k];
            if (e->kind == FA_GE_BYTES && e->lo <= byte && byte <= e->hi) fa_gm_push(m, e->to, c.node);
        }
    }
    uint32_t to = m->n_work ? fa_gm_settle(m) : FA_G_DEAD;
    if (m->rc) return FA_G_DEAD;
    m->row[m->state[state].row + cls] = to;
    return to;
}

uint32_t fa_gm_after(fa_gm *m, uint32_t node) {
    if (node >= FA_G_NODES && m->node[node].after != FA_G_UNKNOWN) return m->node[node].after;
    if (node == FA_G_BASE) return FA_G_DEAD;
    fa_gm_clear(m);
    uint8_t flags = leave(m, node);
    uint32_t s = flags ? fa_gm_state(m, flags) : fa_gm_settle(m);
    if (!m->rc && node >= FA_G_NODES) m->node[node].after = s;
    return s;
}

uint32_t fa_gm_start(fa_gm *m) {
    fa_gm_clear(m);
    fa_gm_push(m, m->net->rule[m->net->root].start, FA_G_BOTTOM);
    return fa_gm_settle(m);
}

/* ---- the whole ---- */

fa_gm *fa_gm_new(const fa_gnet *net, const fa_vocab *v) {
    fa_gm *m = FA_NEW(fa_gm);
    if (!m) return NULL;
    m->net = net;
    m->v = v;
    m->refs = 1;
    m->cap_seen = 256;
    m->seen = FA_NEWN(fa_gseen, m->cap_seen);
    m->head = FA_NEWN(uint32_t, net->n_rule + 1);
    m->path = FA_NEWN(uint32_t, v->max_len + 2);
    bool ok = m->seen && m->head && m->path && GROW(m, node, FA_G_NODES) && GROW(m, state, 1) && GROW(m, work, 1) &&
              GROW(m, fwork, 1) && GROW(m, conf, 1) && GROW(m, frame, 1);
    if (ok) {
        memset(m->node, 0, FA_G_NODES * sizeof *m->node);
        m->n_node = FA_G_NODES;
        fa_gm_clear(m);
        fa_gm_state(m, 0); /* number 0: DEAD */
    }
    if (ok && !m->rc) return m;
    fa_gm_free(m);
    return NULL;
}

void fa_gm_free(fa_gm *m) {
    if (!m) return;
    for (size_t i = 0; i < m->n_rel; i++) {
        fa_free(m->rel[i].bits);
        fa_free(m->rel[i].escape);
    }
    for (size_t i = 0; i < m->n_full; i++) fa_free(m->full[i].bits);
    fa_free(m->frame), fa_free(m->node), fa_free(m->conf), fa_free(m->state), fa_free(m->row), fa_free(m->rel);
    fa_free(m->nodes.slot), fa_free(m->states.slot), fa_free(m->full), fa_free(m->work), fa_free(m->fwork);
    fa_free(m->pend), fa_free(m->head), fa_free(m->heap), fa_free(m->seen), fa_free(m->path);
    fa_free(m);
}

size_t fa_gm_bytes(const fa_gm *m) {
    return m->n_frame * sizeof *m->frame + m->n_node * sizeof *m->node + m->n_conf * sizeof *m->conf +
           m->n_state * sizeof *m->state + m->n_row * sizeof *m->row + m->mask_bytes;
}
