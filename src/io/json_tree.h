/* The node tree of a JSON document: what json.c (getters, memory) and json_simd.cpp (the builder) share.
 *
 * One heap block holds everything: the string arena first, then the node array, in document order (a parent stands
 * before its children). Every reference is a distance from the node that holds it, so the block may move while it
 * grows, a node needs 16 bytes only, and a getter needs no handle. A string in the arena is {u32 length, bytes, NUL},
 * unaligned. */
#ifndef FA_IO_JSON_TREE_H
#define FA_IO_JSON_TREE_H

#include "io/json.h"

struct fa_jnode {
    uint32_t next_type; /* nodes to the next sibling (0: none) << 3 | fa_jtype */
    uint32_t key;       /* object member: bytes back to its key in the arena; else 0 */
    union {
        int64_t i;
        double f;
        struct {
            uint32_t back; /* FA_JSTR: bytes back to the string in the arena */
            uint32_t n;    /* FA_JARR, FA_JOBJ: children; the first is the next node */
        } s;
    } v;
};

struct fa_json {
    uint8_t *block;
    size_t str_cap, str_len; /* arena bytes: reserved (a multiple of 16), used */
    size_t n_node, cap_node;
};

/* simdjson reads this many bytes past the text and writes as many past a string. */
enum { FA_JSON_PAD = 64 };
/* More text than this is refused: distances are 32-bit (arena <= 5/3 of the text, nodes <= 8 bytes per byte of text are
 * checked as they come). */
#define FA_JSON_MAX_BYTES ((size_t)1 << 30)
#define FA_JSON_MAX_NODES ((size_t)1 << 28)

static inline struct fa_jnode *fa_json_node(const struct fa_json *j, size_t i) {
    return (struct fa_jnode *)(void *)(j->block + j->str_cap) + i;
}

#ifdef __cplusplus
extern "C" {
#endif
/* Grows the node array so that one more fits; false when out of memory or past FA_JSON_MAX_NODES. */
bool fa_json_grow(fa_json *j);
/* Fills *j (block and str_cap are set) from text[0..len), which has FA_JSON_PAD readable bytes behind it. On failure
 * returns an FFAI_E* code, *why is a static text and *at the byte offset of the trouble (SIZE_MAX: unknown). */
int fa_json_build(fa_json *j, const char *text, size_t len, const char **why, size_t *at);
#ifdef __cplusplus
}
#endif

#endif
