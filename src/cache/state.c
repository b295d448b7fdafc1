/* Recurrent states: memory, and which state of a slot is which position's. */
#include "cache/state.h"
#include "base/alloc.h"
#include "cache/mem.h"

#include <string.h>

enum { ALIGN = 64 /* floats: 256 bytes, as kernels want it */ };

static int64_t padded(int64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

/* On the CPU a step changes its state in place. */
static int per_slot(const fa_kv_opts *o) { return FA_STATES_KEPT + (o->dev ? 2 : 1); }

static int count(const fa_kv_opts *o) { return o->n_slot * per_slot(o) + (o->dev != NULL); }

int fa_states_size(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, int64_t *each, int64_t *all,
                   fa_error *err) {
    int64_t floats = 0;
    *each = *all = 0;
    for (int i = 0; i < n_layer; i++)
        floats += padded(spec[i].n_conv) + padded(spec[i].n_scan); /* families bound them */
    *each = floats * (int64_t)sizeof(float);
    if (!__builtin_mul_overflow(*each, (int64_t)count(o), all) && *all < (int64_t)1 << 46) return 0;
    return fa_fail(err, FFAI_ELIMIT, "cache: recurrent states of %lld bytes for %d sequences do not fit any memory",
                   (long long)*each, o->n_slot);
}

int fa_states_create(fa_states **out, const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, fa_error *err) {
    int64_t each, all;
    *out = NULL;
    int rc = fa_states_size(spec, n_layer, o, &each, &all, err);
    if (rc || !each) return rc;
    fa_states *s = FA_NEW(fa_states);
    if (!s) return fa_fail(err, FFAI_ENOMEM, "cache: no memory for recurrent states");
    s->n_slot = o->n_slot;
    s->per_slot = per_slot(o);
    s->spare = o->dev ? s->n_slot * s->per_slot : -1;
    s->stride = each / (int64_t)sizeof(float);
    s->bytes = (size_t)all;
    s->layer = FA_NEWN(fa_state, (size_t)n_layer);
    s->entry = FA_NEWN(fa_state_entry, (size_t)s->n_slot * (size_t)s->per_slot);
    s->dev = o->dev;
    void *mem = NULL;
    if (!s->layer || !s->entry)
        rc = fa_fail(err, FFAI_ENOMEM, "cache: no memory for recurrent states");
    else
        rc = fa_cache_reserve(o->dev, &mem, s->bytes, "recurrent states", err);
    s->mem = (float *)mem;
    if (rc) {
        fa_states_free(s);
        return rc;
    }
    float *at = s->mem;
    for (int i = 0; i < n_layer; i++) {
        s->layer[i] = (fa_state){at, at + padded(spec[i].n_conv), s->stride};
        at += padded(spec[i].n_conv) + padded(spec[i].n_scan);
    }
    *out = s;
    return 0;
}

void fa_states_free(fa_states *s) {
    if (!s) return;
    fa_cache_release(s->dev, s->mem, s->bytes);
    fa_free(s->layer);
    fa_free(s->entry);
    fa_free(s);
}

static fa_state_entry *of_slot(const fa_states *s, int slot) { return s->entry + (int64_t)slot * s->per_slot; }

static int32_t number(const fa_states *s, const fa_state_entry *e) { return (int32_t)(e - s->entry); }

int32_t fa_states_at(const fa_states *s, int slot, int32_t most) {
    const fa_state_entry *e = of_slot(s, slot);
    int32_t best = 0;
    for (int i = 0; i < s->per_slot; i++)
        if (e[i].pos <= most && e[i].pos > best) best = e[i].pos;
    return best;
}

int32_t fa_states_find(const fa_states *s, int slot, int32_t pos) {
    const fa_state_entry *e = of_slot(s, slot);
    for (int i = 0; i < s->per_slot; i++)
        if (e[i].pos == pos && pos) return number(s, &e[i]);
    return -1;
}

void fa_states_cut(fa_states *s, int slot, int32_t len) {
    fa_state_entry *e = of_slot(s, slot);
    for (int i = 0; i < s->per_slot; i++)
        if (e[i].pos > len) e[i] = (fa_state_entry){0};
}

/* A state to write to: a free one, else the one that was written longest ago, kept ones last. NULL: all are in use. */
static fa_state_entry *victim(fa_states *s, int slot, int32_t in, int32_t out) {
    fa_state_entry *e = of_slot(s, slot), *best = NULL;
    for (int i = 0; i < s->per_slot; i++) {
        if (number(s, &e[i]) == in || number(s, &e[i]) == out) continue;
        if (!best ||
            (best->pos && (!e[i].pos || e[i].kept < best->kept || (e[i].kept == best->kept && e[i].used < best->used))))
            best = &e[i];
    }
    return best;
}

int fa_states_step(fa_states *s, int slot, int32_t from, int32_t to, int32_t *in, int32_t *out, fa_error *err) {
    fa_states_cut(s, slot, from);
    *in = fa_states_find(s, slot, from);
    if (from && *in < 0)
        return fa_fail(err, FFAI_EINTERNAL, "cache: slot %d has no recurrent state of position %d", slot, from);
    fa_state_entry *e = !s->dev && *in >= 0 && !s->entry[*in].kept ? &s->entry[*in] : victim(s, slot, *in, -1);
    *e = (fa_state_entry){to, false, ++s->clock};
    *out = number(s, e);
    return 0;
}

int32_t fa_states_keep(fa_states *s, int slot, int32_t pos, int32_t in, int32_t out) {
    if (fa_states_find(s, slot, pos) >= 0) return -1;
    fa_state_entry *e = victim(s, slot, in, out);
    if (!e) return -1;
    *e = (fa_state_entry){pos, true, ++s->clock};
    return number(s, e);
}

float *fa_states_restore(fa_states *s, int slot, int32_t pos) {
    fa_states_cut(s, slot, 0);
    *of_slot(s, slot) = (fa_state_entry){pos, false, ++s->clock};
    return s->mem + number(s, of_slot(s, slot)) * s->stride;
}
