/* The paged key/value cache. Pages hold FA_PAGE tokens of one layer; layers with the same window share a page table (a
 * group), so that pages behind a window can be given back while full-attention layers keep theirs. Slots are sequences.
 */
#ifndef FA_CACHE_KV_H
#define FA_CACHE_KV_H

#include "backend/device.h"

/* What one layer needs. */
typedef struct fa_kv_spec {
    int64_t n_head, head_dim;
    int32_t window;      /* a row at position p sees positions > p - window; 0: all */
    const fa_rope *rope; /* how its keys are rotated; NULL: in no way that depends on the length of the sequence */
    int32_t shared;      /* 0: it has keys and values of its own; else 1 + the earlier layer, alike in all of the above,
                            whose keys and values it reads */
    int64_t n_conv, n_scan; /* floats of recurrent state: fa_state. n_head 0: no keys and values, but these */
} fa_kv_spec;

typedef struct fa_kv_group {
    int32_t window;
    int32_t n_page, n_free;
    int32_t spare;      /* devices: a page for rows that nobody reads, behind the others; -1: none */
    int32_t *free;      /* [n_page] stack of free pages */
    int32_t *table;     /* [n_slot, page_stride], -1: no page */
    int64_t page_bytes; /* of all its layers, K and V */
} fa_kv_group;

typedef struct fa_states fa_states; /* cache/state.h */

typedef struct fa_kv_cache {
    fa_states *states; /* of recurrent layers; NULL: there are none. With them a slot's length is always a position that
                          it has a state of */
    fa_kv *layer;      /* [n_layer] as layers see them: some may be another's */
    const fa_kv **own; /* [n_own] those with memory of their own */
    int n_layer, n_own, n_group, n_slot;
    int32_t n_ctx, page_stride;
    fa_kv_group group[FA_MAX_GROUP];
    int32_t *len; /* [n_slot] tokens whose pages exist */
    fa_dtype dtype;
    fa_device *dev; /* whose memory it is; NULL: host memory, resident as pages are first written */
    void *mem;      /* one reservation */
    size_t bytes;
} fa_kv_cache;

typedef struct fa_kv_opts {
    int n_slot;
    int32_t n_ctx;   /* tokens per slot */
    int32_t n_chunk; /* most rows that one step appends to a slot: window groups keep room for them */
    fa_dtype dtype;
    fa_device *dev; /* where; NULL: host memory */
} fa_kv_opts;

/* Bytes that a cache would reserve, with recurrent states, and bytes per token of one sequence; no allocation. */
int fa_kv_size(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, int64_t *bytes, int64_t *per_token,
               fa_error *err);
/* Page groups, and pages of a slot in each page table. */
int fa_kv_shape(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, int *n_group, int32_t *n_page, fa_error *err);
/* What the layers of such a cache are, without memory. layer: [n_layer] */
int fa_kv_layers(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, fa_kv *layer, fa_error *err);
int fa_kv_create(fa_kv_cache **out, const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, fa_error *err);
void fa_kv_free(fa_kv_cache *c);
/* Makes room for positions [from, to) of a slot (from = its present length) and gives back pages that no row at or
 * after `from` can see, once the slot's share of a window group is used up. */
int fa_kv_extend(fa_kv_cache *c, int slot, int32_t from, int32_t to, fa_error *err);
/* Can positions at and after len be forgotten, so that the sequence goes on from there? */
bool fa_kv_can_truncate(const fa_kv_cache *c, int slot, int32_t len);
/* The largest length up to len that it can be cut to; 0: none but the beginning. */
int32_t fa_kv_resume(const fa_kv_cache *c, int slot, int32_t len);
/* Forgets positions at and after len. Fails when there is no recurrent state of it, or when a window group has already
 * given back pages that the shorter sequence would see. */
int fa_kv_truncate(fa_kv_cache *c, int slot, int32_t len, fa_error *err);
/* Makes an unused or used slot hold positions [first[group], len) and nothing else, as far back as the group has pages
 * for one slot; contents are the caller's. Fails when rows at len would see further back. */
int fa_kv_restore(fa_kv_cache *c, int slot, const uint32_t *first, int32_t len, fa_error *err);
void fa_kv_reset(fa_kv_cache *c, int slot);

#endif
