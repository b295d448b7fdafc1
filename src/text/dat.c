/* Building double arrays. Keys are sorted, then the tree over them is laid out from the root: the children of a node go
 * to one block of 256 units, at base ^ byte each. Which bases of a block suit a set of bytes is found for all 256 at
 * once, as a set of bits; nodes with one child fill what is left over in old blocks. */
#include "text/dat.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 256, NEWEST = 8 };
#define FREE_UNIT UINT32_MAX

typedef struct bits { /* 256 */
    uint64_t w[4];
} bits;

typedef struct block { /* of the list of blocks that are not full, by index + 1 */
    bits free;
    uint32_t n_free, prev, next;
} block;

typedef struct todo { /* a node, and the keys below it: those that share its first `depth` bytes */
    uint32_t node, from, to, depth;
} todo;

typedef struct builder {
    fa_dat *d;
    const fa_dat_key *key;
    block *block;
    size_t cap; /* blocks */
    uint32_t head, tail;
    todo *stack;
    size_t n_stack, cap_stack;
} builder;

/* ---- sorting ---- */

static uint64_t first8(const char *s, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < 8; i++) v = v << 8 | (i < n ? (uint8_t)s[i] : 0);
    return v;
}

typedef struct item {
    uint64_t first; /* 8 bytes of the key, and its index */
    uint32_t at;
} item;

/* Least significant byte first; with eight passes the result is in v. */
static void sort_by_first(item *v, item *tmp, size_t n) {
    for (int shift = 0; shift < 64; shift += 8) {
        size_t at[257] = {0};
        for (size_t i = 0; i < n; i++) at[(v[i].first >> shift & 255) + 1]++;
        for (size_t i = 0; i < 256; i++) at[i + 1] += at[i];
        for (size_t i = 0; i < n; i++) tmp[at[v[i].first >> shift & 255]++] = v[i];
        item *swap = v;
        v = tmp;
        tmp = swap;
    }
}

static int by_string(const void *a_, const void *b_) {
    const fa_dat_key *a = (const fa_dat_key *)a_, *b = (const fa_dat_key *)b_;
    size_t n = a->len < b->len ? a->len : b->len;
    int c = n ? memcmp(a->s, b->s, n) : 0;
    if (c) return c;
    if (a->len != b->len) return a->len < b->len ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* By string, then by id: sorted by the first 8 bytes, then within those that share them. */
static bool sort_keys(fa_dat_key *key, size_t n) {
    item *v = FA_NEWN(item, n * 2 + 1);
    fa_dat_key *own = FA_NEWN(fa_dat_key, n + 1);
    bool ok = v && own;
    for (size_t i = 0; i < n && ok; i++) v[i] = (item){first8(key[i].s, key[i].len), (uint32_t)i};
    if (ok) sort_by_first(v, v + n, n);
    for (size_t i = 0; i < n && ok; i++) own[i] = key[v[i].at];
    for (size_t i = 0, z; i < n && ok; i = z) {
        for (z = i + 1; z < n && v[z].first == v[i].first;) z++;
        if (z - i > 1) qsort(own + i, z - i, sizeof *own, by_string);
    }
    if (ok && n) memcpy(key, own, n * sizeof *key);
    fa_free(v);
    fa_free(own);
    return ok;
}

/* ---- blocks ---- */

/* The set with each member m in place of m ^ c. */
static bits xored(const bits *b, unsigned c) {
    static const uint64_t low[6] = {UINT64_C(0x5555555555555555), UINT64_C(0x3333333333333333),
                                    UINT64_C(0x0F0F0F0F0F0F0F0F), UINT64_C(0x00FF00FF00FF00FF),
                                    UINT64_C(0x0000FFFF0000FFFF), UINT64_C(0x00000000FFFFFFFF)};
    bits r;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t v = b->w[i ^ c >> 6];
        for (unsigned k = 0; k < 6; k++)
            if (c >> k & 1) v = (v & low[k]) << (1u << k) | (v >> (1u << k) & low[k]);
        r.w[i] = v;
    }
    return r;
}

static int lowest(const bits *b) {
    for (int i = 0; i < 4; i++)
        if (b->w[i]) return i * 64 + __builtin_ctzll(b->w[i]);
    return -1;
}

static bool add_block(builder *w) {
    size_t n = w->d->n / BLOCK;
    if (n == w->cap) {
        size_t cap = w->cap * 2 + 16;
        fa_dat_unit *u = (fa_dat_unit *)fa_realloc(w->d->unit, cap * BLOCK, sizeof *u);
        if (!u) return false;
        w->d->unit = u;
        block *b = (block *)fa_realloc(w->block, cap, sizeof *b);
        if (!b) return false;
        w->block = b;
        w->cap = cap;
    }
    if (n >= UINT32_MAX / BLOCK - 1) return false;
    for (size_t i = n * BLOCK; i < (n + 1) * BLOCK; i++) w->d->unit[i] = (fa_dat_unit){0, FREE_UNIT, -1};
    w->d->n += BLOCK;
    w->block[n] = (block){{{~UINT64_C(0), ~UINT64_C(0), ~UINT64_C(0), ~UINT64_C(0)}}, BLOCK, w->tail, 0};
    if (w->tail) w->block[w->tail - 1].next = (uint32_t)n + 1;
    w->tail = (uint32_t)n + 1;
    if (!w->head) w->head = w->tail;
    return true;
}

static void take_unit(builder *w, uint32_t at, uint32_t parent) {
    block *b = &w->block[at / BLOCK];
    b->free.w[at % BLOCK >> 6] &= ~(UINT64_C(1) << (at & 63));
    w->d->unit[at].check = parent;
    if (--b->n_free) return;
    if (b->prev)
        w->block[b->prev - 1].next = b->next;
    else
        w->head = b->next;
    if (b->next)
        w->block[b->next - 1].prev = b->prev;
    else
        w->tail = b->prev;
}

/* A base for children by the bytes c[0..k); UINT32_MAX: out of memory. */
static uint32_t find_base(builder *w, const uint8_t *c, unsigned k) {
    if (k == 1 && w->head) {
        uint32_t b = w->head - 1;
        return (b * BLOCK + (uint32_t)lowest(&w->block[b].free)) ^ c[0];
    }
    uint32_t at = w->tail;
    for (int i = 0; i < NEWEST && at; i++, at = w->block[at - 1].prev) {
        const block *b = &w->block[at - 1];
        if (b->n_free < k) continue;
        bits fit = xored(&b->free, c[0]);
        for (unsigned j = 1; j < k; j++) {
            bits x = xored(&b->free, c[j]);
            for (int q = 0; q < 4; q++) fit.w[q] &= x.w[q];
        }
        int lo = lowest(&fit);
        if (lo >= 0) return (at - 1) * BLOCK + (uint32_t)lo;
    }
    return add_block(w) ? (uint32_t)(w->d->n - BLOCK) : UINT32_MAX;
}

/* ---- the tree ---- */

static bool push(builder *w, todo t) {
    if (w->n_stack == w->cap_stack) {
        size_t cap = w->cap_stack * 2 + 256;
        todo *p = (todo *)fa_realloc(w->stack, cap, sizeof *p);
        if (!p) return false;
        w->stack = p;
        w->cap_stack = cap;
    }
    w->stack[w->n_stack++] = t;
    return true;
}

static bool place(builder *w, todo t) {
    uint8_t c[BLOCK];
    uint32_t beg[BLOCK + 1];
    unsigned k = 0;
    while (t.from < t.to && w->key[t.from].len == t.depth) w->d->unit[t.node].id = w->key[t.from++].id;
    if (t.from == t.to) return true;
    for (uint32_t i = t.from; i < t.to;) {
        uint8_t byte = (uint8_t)w->key[i].s[t.depth];
        c[k] = byte;
        beg[k++] = i;
        if ((uint8_t)w->key[t.to - 1].s[t.depth] == byte) break; /* the last group */
        while ((uint8_t)w->key[i].s[t.depth] == byte) i++;
    }
    beg[k] = t.to;
    uint32_t base = find_base(w, c, k);
    if (base == UINT32_MAX) return false;
    w->d->unit[t.node].base = base;
    for (unsigned i = 0; i < k; i++) take_unit(w, base ^ c[i], t.node);
    for (unsigned i = 0; i < k; i++)
        if (!push(w, (todo){base ^ c[i], beg[i], beg[i + 1], t.depth + 1})) return false;
    return true;
}

bool fa_dat_build(fa_dat *d, fa_dat_key *key, size_t n) {
    builder w = {.d = d, .key = key};
    *d = (fa_dat){0};
    size_t empty = 0;
    bool ok = n < UINT32_MAX && sort_keys(key, n) && add_block(&w);
    while (ok && empty < n && !key[empty].len) empty++;
    if (ok) take_unit(&w, 0, FREE_UNIT);
    if (ok && empty < n) ok = push(&w, (todo){0, (uint32_t)empty, (uint32_t)n, 0});
    while (ok && w.n_stack) ok = place(&w, w.stack[--w.n_stack]);
    fa_free(w.block);
    fa_free(w.stack);
    if (!ok) fa_dat_free(d);
    return ok;
}

void fa_dat_free(fa_dat *d) {
    fa_free(d->unit);
    *d = (fa_dat){0};
}
