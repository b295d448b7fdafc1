/* The trie of added tokens: leftmost, longest match from any byte. */
#include "text/tok_int.h"
#include "base/alloc.h"

#include <string.h>

static uint32_t new_node(fa_trie *t, uint8_t byte) {
    if (t->n + 1 >= t->cap) {
        size_t cap = t->cap * 2 + 64;
        fa_trie_node *p = (fa_trie_node *)fa_realloc(t->node, cap, sizeof *p);
        if (!p) return 0;
        t->node = p;
        t->cap = cap;
    }
    t->node[++t->n] = (fa_trie_node){0, 0, 0, byte};
    return (uint32_t)t->n;
}

bool fa_trie_put(fa_trie *t, const char *s, size_t len, uint32_t index) {
    if (!len) return true;
    uint8_t c = (uint8_t)s[0];
    uint32_t at = t->root[c];
    if (!at) {
        if (!(at = t->root[c] = new_node(t, c))) return false;
        if (t->n_first < FA_TRIE_FIRST) t->first[t->n_first] = c;
        t->n_first++;
    }
    for (size_t i = 1; i < len; i++) {
        uint32_t kid = t->node[at].child;
        while (kid && t->node[kid].byte != (uint8_t)s[i]) kid = t->node[kid].sibling;
        if (!kid) {
            kid = new_node(t, (uint8_t)s[i]);
            if (!kid) return false;
            t->node[kid].sibling = t->node[at].child;
            t->node[at].child = kid;
        }
        at = kid;
    }
    if (!t->node[at].added1) t->node[at].added1 = index + 1;
    return true;
}

size_t fa_trie_next(const fa_trie *t, const char *s, size_t i, size_t n) {
    const uint64_t ones = UINT64_C(0x0101010101010101);
    for (; t->n_first <= FA_TRIE_FIRST && n - i >= 8; i += 8) {
        uint64_t w, hit = 0;
        memcpy(&w, s + i, 8);
        for (size_t k = 0; k < t->n_first; k++) {
            uint64_t x = w ^ ones * t->first[k];
            hit |= (x - ones) & ~x;
        }
        hit &= ones * 0x80;
        if (hit) return i + (size_t)(__builtin_ctzll(hit) >> 3);
    }
    while (i < n && !t->root[(uint8_t)s[i]]) i++;
    return i;
}

void fa_trie_free(fa_trie *t) {
    fa_free(t->node);
    *t = (fa_trie){0};
}
