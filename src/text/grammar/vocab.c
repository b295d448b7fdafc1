/* The vocabulary as bytes: what each token adds to a text, sorted into a trie in depth-first order. */
#include "text/grammar/gram_int.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TOKEN = 4096 /* bytes; a longer token is never written */ };

typedef struct item {
    uint64_t key; /* the first eight bytes, big-endian */
    const char *s;
    uint32_t n, id;
} item;

static int by_bytes(const void *a, const void *b) {
    const item *x = (const item *)a, *y = (const item *)b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    uint32_t n = x->n < y->n ? x->n : y->n;
    int c = n > 8 ? memcmp(x->s + 8, y->s + 8, n - 8) : 0;
    if (c) return c;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static unsigned bucket(const item *x) { return (unsigned)(x->key >> 48); }

/* First into buckets by two bytes, then each bucket by itself. */
static item *sorted(const fa_vocab *v, size_t *n) {
    enum { BUCKETS = 1 << 16 };
    item *it = FA_NEWN(item, v->n_id + 1), *out = FA_NEWN(item, v->n_id + 1);
    uint32_t *start = FA_NEWN(uint32_t, BUCKETS + 2);
    bool ok = it && out && start;
    *n = 0;
    for (size_t i = 0; ok && i < v->n_id; i++) {
        uint32_t len = v->off[i + 1] - v->off[i];
        if (!len) continue;
        item *p = &it[(*n)++];
        *p = (item){.s = v->pool + v->off[i], .n = len, .id = (uint32_t)i};
        for (uint32_t k = 0; k < 8; k++) p->key = p->key << 8 | (k < len ? (unsigned char)p->s[k] : 0);
        start[bucket(p) + 2]++;
    }
    for (size_t k = 2; ok && k < BUCKETS + 2; k++) start[k] += start[k - 1];
    for (size_t i = 0; ok && i < *n; i++) out[start[bucket(&it[i]) + 1]++] = it[i];
    for (size_t k = 0; ok && k < BUCKETS; k++) {
        size_t len = start[k + 1] - start[k];
        if (len > 1) qsort(out + start[k], len, sizeof *out, by_bytes);
    }
    fa_free(it);
    fa_free(start);
    if (ok) return out;
    fa_free(out);
    return NULL;
}

static uint32_t shared(const item *a, const item *b) {
    uint32_t n = a->n < b->n ? a->n : b->n, k = 0;
    while (k < n && a->s[k] == b->s[k]) k++;
    return k;
}

/* Nodes in depth-first order are the tokens in order, each adding what it does not share with the one before. */
static bool build_trie(fa_vocab *v) {
    size_t n, total = 1, at = 0;
    item *it = sorted(v, &n);
    if (!it) return false;
    for (size_t i = 0; i < n; i++) {
        total += it[i].n - (i ? shared(&it[i - 1], &it[i]) : 0);
        if (it[i].n > v->max_len) v->max_len = it[i].n;
    }
    uint32_t *open = FA_NEWN(uint32_t, (size_t)v->max_len + 1); /* the path to the current node */
    v->node = FA_NEWN(fa_vnode, total + 1);
    v->order = FA_NEWN(uint32_t, n + 1);
    bool ok = open && v->node && v->order && total < UINT32_MAX;
    if (ok) {
        v->node[at++] = (fa_vnode){0};
        uint32_t depth = 0;
        for (size_t i = 0; i < n; i++) {
            uint32_t keep = i ? shared(&it[i - 1], &it[i]) : 0;
            for (; depth > keep; depth--) v->node[open[depth]].skip = (uint32_t)at;
            for (uint32_t k = keep; k < it[i].n; k++) {
                open[++depth] = (uint32_t)at;
                v->node[at++] = (fa_vnode){0, (uint32_t)i, (uint16_t)(k + 1), (uint8_t)it[i].s[k]};
            }
            v->order[i] = it[i].id;
        }
        for (; depth; depth--) v->node[open[depth]].skip = (uint32_t)at;
        v->node[0].skip = (uint32_t)at;
        v->node[at].tok = (uint32_t)n;
        v->n_node = at;
        v->n_order = n;
    }
    fa_free(open);
    fa_free(it);
    return ok;
}

static int finish(fa_vocab *v, const int32_t *eos, size_t n_eos, fa_error *err) {
    v->eos = FA_NEWN(int32_t, n_eos + 1);
    if (!v->eos || !build_trie(v)) return fa_fail(err, FFAI_ENOMEM, "grammar: no memory for the vocabulary");
    for (size_t i = 0; i < n_eos; i++)
        if (eos[i] >= 0 && (size_t)eos[i] < v->n_id) v->eos[v->n_eos++] = eos[i];
    return 0;
}

static bool is_eos(const int32_t *eos, size_t n, size_t id) {
    for (size_t i = 0; i < n; i++)
        if ((size_t)eos[i] == id) return true;
    return false;
}

int fa_vocab_new(fa_vocab **out, const fa_tok *t, size_t n_id, const int32_t *eos, size_t n_eos, fa_error *err) {
    fa_buf b = {0};
    fa_vocab *v = FA_NEW(fa_vocab);
    *out = NULL;
    if (!fa_tok_has_bytes(t)) {
        fa_free(v);
        return fa_fail(err, FFAI_ENOTSUP, "grammar: the tokens of this tokenizer have no text of their own");
    }
    if (!v || !(v->off = FA_NEWN(uint32_t, n_id + 2))) {
        fa_free(v);
        return fa_fail(err, FFAI_ENOMEM, "grammar: no memory for the vocabulary");
    }
    v->tok = t;
    v->n_id = n_id;
    v->eat_space = fa_tok_eats_space(t);
    fa_buf_reserve(&b, 8 * n_id);
    for (size_t i = 0; i < n_id && !b.failed; i++) {
        v->off[i] = (uint32_t)b.len;
        if (i < fa_tok_size(t) && !is_eos(eos, n_eos, i)) fa_tok_bytes(t, (int32_t)i, &b);
        if (b.len - v->off[i] > MAX_TOKEN) b.len = v->off[i];
        if (b.len > UINT32_MAX / 2) b.failed = true;
    }
    v->off[n_id] = (uint32_t)b.len;
    v->pool = b.data;
    int rc = b.failed ? fa_fail(err, FFAI_ENOMEM, "grammar: no memory for the vocabulary") : finish(v, eos, n_eos, err);
    if (rc)
        fa_vocab_free(v);
    else
        *out = v;
    return rc;
}

int fa_vocab_from_list(fa_vocab **out, const fa_vocab_token *list, size_t n_id, const int32_t *eos, size_t n_eos,
                       fa_error *err) {
    fa_buf b = {0};
    fa_vocab *v = FA_NEW(fa_vocab);
    *out = NULL;
    if (!v || !(v->off = FA_NEWN(uint32_t, n_id + 2))) {
        fa_free(v);
        return fa_fail(err, FFAI_ENOMEM, "grammar: no memory for the vocabulary");
    }
    v->n_id = n_id;
    for (size_t i = 0; i < n_id; i++) {
        v->off[i] = (uint32_t)b.len;
        if (list[i].n <= MAX_TOKEN && !is_eos(eos, n_eos, i)) fa_buf_add(&b, list[i].s, list[i].n);
    }
    v->off[n_id] = (uint32_t)b.len;
    v->pool = b.data;
    int rc = b.failed ? fa_fail(err, FFAI_ENOMEM, "grammar: no memory for the vocabulary") : finish(v, eos, n_eos, err);
    if (rc)
        fa_vocab_free(v);
    else
        *out = v;
    return rc;
}

void fa_vocab_free(fa_vocab *v) {
    if (!v) return;
    fa_free(v->pool);
    fa_free(v->off);
    fa_free(v->order);
    fa_free(v->node);
    fa_free(v->eos);
    fa_free(v);
}
