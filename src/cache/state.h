/* Recurrent states: what the rows of a sequence up to some position have made of it, all layers together. Every slot
 * has a few: the newest, which steps go on from, and on devices the one before it, because a step may be begun before
 * the host knows that its sequence has ended; and some that were kept on the way, which other prompts can begin with. A
 * position that none of them has cannot be gone back to. */
#ifndef FA_CACHE_STATE_H
#define FA_CACHE_STATE_H

#include "cache/kv.h"

enum { FA_STATES_KEPT = 2 /* of a slot */ };

typedef struct fa_state_entry {
    int32_t pos; /* rows that made it; 0: free */
    bool kept;
    int64_t used; /* when it was written */
} fa_state_entry;

typedef struct fa_states {
    fa_state *layer; /* [n_layer], of state 0 */
    int n_slot, per_slot;
    int32_t spare;         /* devices: a state that nobody reads, for added sequences; -1: none */
    int64_t stride;        /* floats of a state */
    fa_state_entry *entry; /* [n_slot * per_slot], slot by slot */
    int64_t clock;
    fa_device *dev; /* whose memory it is; NULL: host memory, resident as it is written */
    float *mem;
    size_t bytes;
} fa_states;

/* Bytes of one state, and of all; 0: no layer has one. */
int fa_states_size(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, int64_t *each, int64_t *all,
                   fa_error *err);
/* *out NULL: no layer has one. */
int fa_states_create(fa_states **out, const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, fa_error *err);
void fa_states_free(fa_states *s);
/* The largest position up to `most` that a slot has a state of; 0: none. */
int32_t fa_states_at(const fa_states *s, int slot, int32_t most);
/* The state of a position; -1: there is none. */
int32_t fa_states_find(const fa_states *s, int slot, int32_t pos);
/* A step takes a slot from position `from` (0, or one that it has a state of) to `to`: the state that it reads (-1:
 * zeros) and the one that it writes. Those behind `from` are forgotten. */
int fa_states_step(fa_states *s, int slot, int32_t from, int32_t to, int32_t *in, int32_t *out, fa_error *err);
/* Where the step that is being made keeps its state of a position before `to`; -1: there is no room. */
int32_t fa_states_keep(fa_states *s, int slot, int32_t pos, int32_t in, int32_t out);
/* Forgets states of positions behind len. */
void fa_states_cut(fa_states *s, int slot, int32_t len);
/* A state for position pos of an empty slot, whose contents are the caller's: [stride] floats at the return value. */
float *fa_states_restore(fa_states *s, int slot, int32_t pos);

#endif
