/* The matcher: a byte trie of a format's tags and a model's special tokens. A walk is as long as the longest of them at
 * most, so that matching at every byte stays linear. */
#include "text/answer/answer_int.h"
#include "base/alloc.h"

#include <string.h>

enum { MAX_LEN = 128 }; /* longer special tokens are not looked for */

void fa_ans_trie_free(fa_ans_trie *t) {
    fa_free(t->node);
    memset(t, 0, sizeof *t);
}

/* Node 0 stands for "none". */
static uint32_t fresh(fa_ans_trie *t, uint8_t byte) {
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 256;
        fa_ans_node *p = (fa_ans_node *)fa_realloc(t->node, cap, sizeof *p);
        if (!p) return 0;
        t->node = p;
        t->cap = cap;
        if (!t->n) t->node[t->n++] = (fa_ans_node){0};
    }
    t->node[t->n] = (fa_ans_node){0, 0, FA_ANS_NONE, byte};
    return t->n++;
}

static uint32_t child(const fa_ans_trie *t, uint32_t at, uint8_t byte) {
    uint32_t k = t->node[at].child;
    while (k && t->node[k].byte != byte) k = t->node[k].next;
    return k;
}

bool fa_ans_trie_add(fa_ans_trie *t, const char *s, size_t n, int tag) {
    if (n == 0 || n > MAX_LEN) return true;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t b = (uint8_t)s[i];
        uint32_t k = i == 0 ? t->root[b] : child(t, at, b);
        if (!k) {
            k = fresh(t, b);
            if (!k) return false;
            if (i == 0) {
                t->root[b] = k;
            } else {
                t->node[k].next = t->node[at].child;
                t->node[at].child = k;
            }
        }
        at = k;
    }
    if (t->node[at].tag == FA_ANS_NONE) t->node[at].tag = (int16_t)tag;
    t->special |= tag == FA_ANS_SPECIAL;
    return true;
}

size_t fa_ans_trie_match(const fa_ans_trie *t, const char *s, size_t n, int *tag, bool *more) {
    size_t best = 0;
    uint32_t at = t->root[(uint8_t)s[0]];
    *more = false;
    for (size_t i = 1; at; i++) {
        if (t->node[at].tag != FA_ANS_NONE) {
            best = i;
            *tag = t->node[at].tag;
        }
        if (i == n) {
            *more = t->node[at].child != 0;
            break;
        }
        at = child(t, at, (uint8_t)s[i]);
    }
    return best;
}
