/* Merging of long words in linear time for natural and degenerate text.
 *
 * Symbols form a linked list; each remembers the rank of joining it with its right neighbour. What waits to be joined
 * stands in one queue per rank, in order of position, and a heap holds only the head of each queue: a run of a million
 * equal letters is a handful of queues, and the heap never grows. An entry that would break the order of its queue goes
 * into the heap by itself. Entries are never searched: one whose rank is no longer its symbol's rank is stale and is
 * dropped when it comes up. Each merge makes two entries at most, so all is O(n log(ranks in use)). */
#include "text/bpe_int.h"
#include "base/alloc.h"

#include <string.h>

enum { NONE = -1 };

typedef struct symbol {
    int32_t id, to; /* to: the token that joining with the right neighbour makes */
    uint32_t beg, rank;
    int32_t prev, next;
} symbol;

typedef struct entry { /* of a queue; links are index + 1 */
    uint32_t pos, next;
} entry;

typedef struct queue {
    uint32_t head, tail; /* entry + 1, 0 = empty */
} queue;

struct fa_long {
    int32_t *id;
    uint32_t *beg;
    symbol *sym;
    size_t cap, cap_sym;
    queue *queue; /* one per rank; all empty between calls */
    size_t n_queue;
    entry *entry;
    size_t n_entry, cap_entry;
    uint32_t free_entry; /* + 1 */
    uint64_t *heap;      /* rank << 32 | pos, smallest first */
    size_t n_heap, cap_heap;
};

void fa_bpe_long_free(fa_long *w) {
    if (!w) return;
    fa_free(w->id);
    fa_free(w->beg);
    fa_free(w->sym);
    fa_free(w->queue);
    fa_free(w->entry);
    fa_free(w->heap);
    fa_free(w);
}

bool fa_bpe_long_room(fa_enc *e, size_t n, int32_t **id, uint32_t **beg) {
    if (!e->lw) e->lw = FA_NEW(fa_long);
    fa_long *w = e->lw;
    if (w && n > w->cap) {
        fa_free(w->id);
        fa_free(w->beg);
        w->cap = 0;
        w->id = FA_NEWN(int32_t, n + 1);
        w->beg = FA_NEWN(uint32_t, n + 2);
        if (w->id && w->beg) w->cap = n;
    }
    if (!w || n > w->cap)
        return e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for a word of %zu bytes", n), false;
    *id = w->id;
    *beg = w->beg;
    return true;
}

/* ---- the heap ---- */

static void sift_down(fa_long *w, uint64_t key) {
    size_t at = 0, n = w->n_heap;
    for (size_t kid; (kid = at * 2 + 1) < n; at = kid) {
        if (kid + 1 < n && w->heap[kid + 1] < w->heap[kid]) kid++;
        if (w->heap[kid] >= key) break;
        w->heap[at] = w->heap[kid];
    }
    w->heap[at] = key;
}

static bool heap_push(fa_long *w, uint64_t key) {
    if (w->n_heap == w->cap_heap) {
        size_t cap = w->cap_heap * 2 + 256;
        uint64_t *p = (uint64_t *)fa_realloc(w->heap, cap, sizeof *p);
        if (!p) return false;
        w->heap = p;
        w->cap_heap = cap;
    }
    size_t at = w->n_heap++;
    for (; at && w->heap[(at - 1) / 2] > key; at = (at - 1) / 2) w->heap[at] = w->heap[(at - 1) / 2];
    w->heap[at] = key;
    return true;
}

static void heap_drop(fa_long *w) {
    if (--w->n_heap) sift_down(w, w->heap[w->n_heap]);
}

/* ---- queues ---- */

static bool new_entry(fa_long *w, uint32_t pos, uint32_t *index1) {
    if (w->free_entry) {
        *index1 = w->free_entry;
        w->free_entry = w->entry[*index1 - 1].next;
    } else {
        if (w->n_entry == w->cap_entry) {
            size_t cap = w->cap_entry * 2 + 256;
            entry *p = (entry *)fa_realloc(w->entry, cap, sizeof *p);
            if (!p) return false;
            w->entry = p;
            w->cap_entry = cap;
        }
        *index1 = (uint32_t)++w->n_entry;
    }
    w->entry[*index1 - 1] = (entry){pos, 0};
    return true;
}

static bool push(fa_long *w, uint32_t rank, uint32_t pos) {
    queue *q = &w->queue[rank];
    uint64_t key = (uint64_t)rank << 32 | pos;
    uint32_t i;
    if (q->head && w->entry[q->tail - 1].pos >= pos) return heap_push(w, key);
    if (!new_entry(w, pos, &i)) return false;
    if (q->head) {
        w->entry[q->tail - 1].next = i;
        q->tail = i;
        return true;
    }
    q->head = q->tail = i;
    return heap_push(w, key);
}

/* Takes the best entry; the next of its queue, if it was the head of one, comes into the heap. */
static uint64_t pop(fa_long *w) {
    uint64_t key = w->heap[0];
    queue *q = &w->queue[key >> 32];
    uint32_t i = q->head;
    if (!i || w->entry[i - 1].pos != (uint32_t)key) return heap_drop(w), key;
    q->head = w->entry[i - 1].next;
    w->entry[i - 1].next = w->free_entry;
    w->free_entry = i;
    if (q->head)
        sift_down(w, (key & ~UINT64_C(0xFFFFFFFF)) | w->entry[q->head - 1].pos);
    else
        heap_drop(w);
    return key;
}

/* ---- merging ---- */

/* Ranks the pair that begins at symbol i and queues it. `end` is the byte behind the word. */
static bool rank_pair(fa_enc *e, const char *s, int32_t i, uint32_t end) {
    fa_long *w = e->lw;
    symbol *a = &w->sym[i];
    a->rank = UINT32_MAX;
    if (a->next == NONE) return true;
    symbol *b = &w->sym[a->next];
    uint32_t z = b->next == NONE ? end : w->sym[b->next].beg;
    a->rank = fa_bpe_rank(&e->t->bpe, a->id, b->id, s + a->beg, z - a->beg, &a->to);
    return a->rank == UINT32_MAX || push(w, a->rank, (uint32_t)i);
}

static void join(fa_long *w, int32_t i) {
    symbol *a = &w->sym[i], *b = &w->sym[a->next];
    a->id = a->to;
    a->next = b->next;
    b->rank = UINT32_MAX; /* makes its entries stale */
    if (a->next != NONE) w->sym[a->next].prev = i;
}

static bool prepare(fa_enc *e, const int32_t *id, const uint32_t *beg, size_t n) {
    fa_long *w = e->lw;
    if (!w->queue) {
        w->queue = FA_NEWN(queue, (size_t)e->t->bpe.n_rank + 1);
        if (!w->queue) return false;
    }
    if (n > w->cap_sym) {
        fa_free(w->sym);
        w->cap_sym = 0;
        w->sym = FA_NEWN(symbol, n);
        if (!w->sym) return false;
        w->cap_sym = n;
    }
    w->n_entry = w->n_heap = 0;
    w->free_entry = 0;
    for (size_t i = 0; i < n; i++)
        w->sym[i] = (symbol){id[i], 0, beg[i], UINT32_MAX, (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : NONE};
    return true;
}

size_t fa_bpe_merge_long(fa_enc *e, const char *s, int32_t *id, uint32_t *beg, size_t n) {
    fa_long *w = e->lw;
    uint32_t end = beg[n];
    bool ok = prepare(e, id, beg, n);
    for (size_t i = 0; ok && i + 1 < n; i++) ok = rank_pair(e, s, (int32_t)i, end);
    while (ok && w->n_heap) {
        uint64_t key = pop(w);
        int32_t i = (int32_t)(uint32_t)key;
        if (w->sym[i].rank != key >> 32) continue;
        join(w, i);
        ok = rank_pair(e, s, i, end);
        if (ok && w->sym[i].prev != NONE) ok = rank_pair(e, s, w->sym[i].prev, end);
    }
    if (!ok) {
        fa_bpe_long_free(w); /* its queues are not empty */
        e->lw = NULL;
        e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for a word of %zu symbols", n);
        return 0;
    }
    size_t k = 0;
    for (int32_t i = 0; i != NONE; i = w->sym[i].next, k++) {
        id[k] = w->sym[i].id;
        beg[k] = w->sym[i].beg;
    }
    beg[k] = end;
    return k;
}
