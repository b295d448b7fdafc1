/* The machine that runs a net: states that remember themselves. A state is a set of places in automata, each with the
 * stack of calls around it. Stacks are nodes: a node is a set of frames, and a frame says where to go on and on which
 * node, so that all ways to one place share what they have in common. Nodes and states are stored once (equal ones have
 * equal numbers), which turns the net into an automaton that is built as it is used: the step from a state by a byte is
 * looked up after its first time. */
#ifndef FA_TEXT_GRAM_MACHINE_H
#define FA_TEXT_GRAM_MACHINE_H

#include "text/grammar/gram_int.h"

/* Where a called rule goes on. min, max: how often it must and may still run after the run in progress. */
typedef struct fa_gframe {
    uint32_t call, min, max, parent;
} fa_gframe;

typedef struct fa_gconf {
    uint32_t q, node;
} fa_gconf;

/* Nodes that are no sets: below the root rule, and below what a mask was worked out for. */
enum { FA_G_BOTTOM, FA_G_BASE, FA_G_NODES };
enum { FA_G_ACCEPT = 1, FA_G_ESCAPE = 2 };
#define FA_G_DEAD    0u
#define FA_G_UNKNOWN 0xFFFFFFFFu

typedef struct fa_gnode {
    uint32_t off, n;
    uint32_t after; /* the state that ending this node's rule leads to, or UNKNOWN */
} fa_gnode;

typedef struct fa_gmstate {
    uint32_t off, n;       /* places at which a step or a call begins */
    uint32_t scan, n_scan; /* with the rules that they call entered: places that read bytes or tokens; scan UNKNOWN: not
                              yet */
    uint32_t row;          /* of steps, UNKNOWN: none yet */
    uint32_t rel;          /* mask + 1 that was worked out for this state as a beginning */
    uint8_t flags;
} fa_gmstate;

typedef struct fa_gtable { /* numbers by their content's hash */
    uint32_t *slot;
    size_t cap, n;
} fa_gtable;

/* The tokens that lead on from a state above BASE, whatever is below; and where in the trie BASE is reached, so that
 * the tokens behind depend on what is below. */
typedef struct fa_grel {
    uint32_t *bits, *escape;
    size_t n_escape, weight; /* weight: trie nodes behind the escapes */
} fa_grel;

typedef struct fa_gfull {
    uint32_t state; /* DEAD: free */
    uint32_t n;
    uint32_t *bits;
} fa_gfull;

typedef struct fa_gpend {
    fa_gframe frame;
    uint32_t rule, next;
} fa_gpend;

typedef struct fa_gseen {
    uint64_t key;
    uint32_t mark;
} fa_gseen;

typedef struct fa_gm {
    const fa_gnet *net;
    const fa_vocab *v;
    int refs; /* the grammar's, and one for each run */
    fa_gframe *frame;
    fa_gnode *node;
    fa_gconf *conf;
    fa_gmstate *state;
    uint32_t *row;
    fa_grel *rel;
    size_t n_frame, cap_frame, n_node, cap_node, n_conf, cap_conf, n_state, cap_state, n_row, cap_row, n_rel, cap_rel;
    fa_gtable nodes, states;
    size_t mask_bytes; /* of rel */
    fa_gfull *full;    /* [n_full] masks of whole states, by number */
    size_t n_full;
    /* scratch */
    fa_gconf *work;
    fa_gframe *fwork;
    fa_gpend *pend;
    uint32_t *head; /* [n_rule] pending frames of a rule + 1 */
    uint32_t *heap; /* ranks */
    fa_gseen *seen;
    uint32_t *path; /* [max_len + 1] states along the trie */
    size_t n_work, cap_work, n_fwork, cap_fwork, n_pend, cap_pend, n_heap, cap_heap, cap_seen, n_seen;
    uint32_t mark;
    uint64_t steps; /* of work in the current call, bounded */
    uint8_t want;   /* flags that a state is looked for with */
    int rc;         /* sticky within a call */
    const char *why;
} fa_gm;

fa_gm *fa_gm_new(const fa_gnet *net, const fa_vocab *v); /* NULL: out of memory */
void fa_gm_free(fa_gm *m);
size_t fa_gm_bytes(const fa_gm *m);
/* Begins a call: clears the failure and the count of steps. */
void fa_gm_begin(fa_gm *m);
int fa_gm_fail(fa_gm *m, int code, const char *why);
/* All functions below give DEAD or 0 after a failure (m->rc). */
uint32_t fa_gm_start(fa_gm *m);
/* The state that the places work[0..n_work) make. */
uint32_t fa_gm_settle(fa_gm *m);
void fa_gm_push(fa_gm *m, uint32_t q, uint32_t node);
/* Begins a set of places for settle. */
void fa_gm_clear(fa_gm *m);
uint32_t fa_gm_step(fa_gm *m, uint32_t state, unsigned cls); /* works the step out and keeps it */
static inline uint32_t fa_gm_delta(fa_gm *m, uint32_t state, unsigned cls) {
    uint32_t row = m->state[state].row, to = row == FA_G_UNKNOWN ? FA_G_UNKNOWN : m->row[row + cls];
    return to != FA_G_UNKNOWN ? to : fa_gm_step(m, state, cls);
}
/* Enters the rules that a state calls: fills scan. */
bool fa_gm_expand(fa_gm *m, uint32_t state);
/* The state after the rule above this node has ended. */
uint32_t fa_gm_after(fa_gm *m, uint32_t node);
/* A node of frames fwork[0..n_fwork), a state of places work[0..n_work) that are already settled. */
uint32_t fa_gm_node(fa_gm *m);
uint32_t fa_gm_state(fa_gm *m, uint8_t flags);
void fa_gm_frame(fa_gm *m, fa_gframe f);
bool fa_gm_grow(fa_gm *m, void **p, size_t *cap, size_t want, size_t size);

/* masks.c: fills or finds the mask of a state; NULL after a failure. */
const fa_gfull *fa_gm_mask(fa_gm *m, uint32_t state, bool first);
/* Carries a state over to another machine of the same net. */
uint32_t fa_gm_carry(fa_gm *to, const fa_gm *from, uint32_t state);

#endif
