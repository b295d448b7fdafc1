/* Pages, page tables and window groups of the KV cache. */
#include "base/alloc.h"
#include "cache/mem.h"
#include "cache/state.h"

#include <string.h>

enum { MAX_TABLE = 1 << 24 /* entries of one group's page tables: a thousand sequences of a million tokens */ };

static int32_t pages_for(int64_t tokens) { return (int32_t)((tokens + FA_PAGE - 1) / FA_PAGE); }

/* Pages that one slot of a group can hold at once. */
static int32_t group_pages(int32_t window, const fa_kv_opts *o) {
    int32_t all = pages_for(o->n_ctx);
    if (!window) return all;
    int32_t need = pages_for((int64_t)window + o->n_chunk) + 2;
    return need < all ? need : all;
}

/* Finds or adds the group of a window; -1: too many. */
static int group_of(fa_kv_group *group, int *n, int32_t window) {
    for (int i = 0; i < *n; i++)
        if (group[i].window == window) return i;
    if (*n == FA_MAX_GROUP) return -1;
    group[*n].window = window;
    return (*n)++;
}

static int64_t layer_page_bytes(const fa_kv_spec *s, fa_dtype t) {
    return s->n_head * FA_PAGE * fa_kv_row_bytes(t, s->head_dim);
}

/* With the spare one. */
static int64_t all_pages(const fa_kv_group *g) { return (int64_t)g->n_page + (g->spare >= 0); }

/* Fills group windows, page counts and per-page bytes. */
static int lay_out(fa_kv_group *group, int *n_group, const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o,
                   fa_error *err) {
    *n_group = 0;
    if (o->n_ctx < 1 || o->n_ctx > (1 << 28) || o->n_slot < 1 || o->n_slot > 65536)
        return fa_fail(err, FFAI_EINVAL, "cache: context of %d tokens for %d sequences", o->n_ctx, o->n_slot);
    if ((int64_t)pages_for(o->n_ctx) * o->n_slot > MAX_TABLE)
        return fa_fail(err, FFAI_ELIMIT, "cache: %d sequences of %d tokens are more than the page tables hold",
                       o->n_slot, o->n_ctx);
    for (int i = 0; i < n_layer; i++) {
        if (spec[i].shared || !spec[i].n_head) continue;
        int g = group_of(group, n_group, spec[i].window);
        if (g < 0)
            return fa_fail(err, FFAI_ENOTSUP, "cache: layer %d: more than %d different attention windows", i,
                           FA_MAX_GROUP);
        group[g].page_bytes += 2 * layer_page_bytes(&spec[i], o->dtype); /* < 2^50: families bound heads and layers */
    }
    int64_t total = 0, bytes;
    for (int g = 0; g < *n_group; g++) {
        group[g].n_page = group_pages(group[g].window, o) * o->n_slot;
        group[g].spare = o->dev ? group[g].n_page : -1;
        if (__builtin_mul_overflow(group[g].page_bytes, all_pages(&group[g]), &bytes) ||
            __builtin_add_overflow(total, bytes, &total))
            return fa_fail(err, FFAI_ELIMIT, "cache: %d sequences of %d tokens do not fit any memory", o->n_slot,
                           o->n_ctx);
    }
    return 0;
}

int fa_kv_size(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, int64_t *bytes, int64_t *per_token,
               fa_error *err) {
    fa_kv_group group[FA_MAX_GROUP] = {0};
    int64_t state;
    *bytes = *per_token = 0;
    int n_group, rc = lay_out(group, &n_group, spec, n_layer, o, err);
    if (!rc) rc = fa_states_size(spec, n_layer, o, &state, bytes, err);
    for (int g = 0; !rc && g < n_group; g++) {
        *bytes += group[g].page_bytes * all_pages(&group[g]);
        *per_token += group[g].page_bytes / FA_PAGE;
    }
    return rc;
}

int fa_kv_shape(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, int *n_group, int32_t *n_page,
                fa_error *err) {
    fa_kv_group group[FA_MAX_GROUP] = {0};
    *n_page = pages_for(o->n_ctx);
    return lay_out(group, n_group, spec, n_layer, o, err);
}

/* Layers with keys and values of their own lie one after the other from mem on: all pages of K, then of V. NULL: there
 * is no memory. */
static void place_layers(fa_kv *layer, const fa_kv_spec *spec, int n_layer, fa_dtype t, fa_kv_group *group, int n_group,
                         uint8_t *mem) {
    for (int i = 0; i < n_layer; i++) {
        if (spec[i].shared) {
            layer[i] = layer[spec[i].shared - 1];
            continue;
        }
        if (!spec[i].n_head) continue;
        const int g = group_of(group, &n_group, spec[i].window);
        const size_t page = (size_t)layer_page_bytes(&spec[i], t), plane = page * (size_t)all_pages(&group[g]);
        layer[i] = (fa_kv){.k = mem,
                           .v = mem ? mem + plane : NULL,
                           .page_bytes = page,
                           .n_head = spec[i].n_head,
                           .head_bytes = page / (size_t)spec[i].n_head,
                           .head_dim = spec[i].head_dim,
                           .n_page = all_pages(&group[g]),
                           .group = g,
                           .dtype = t};
        if (mem) mem += 2 * plane;
    }
}

int fa_kv_layers(const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, fa_kv *layer, fa_error *err) {
    fa_kv_group group[FA_MAX_GROUP] = {0};
    int n_group, rc = lay_out(group, &n_group, spec, n_layer, o, err);
    memset(layer, 0, (size_t)n_layer * sizeof *layer);
    if (!rc) place_layers(layer, spec, n_layer, o->dtype, group, n_group, NULL);
    return rc;
}

static int fill_group(fa_kv_group *g, const fa_kv_cache *c) {
    g->free = FA_NEWN(int32_t, (size_t)g->n_page);
    g->table = FA_NEWN(int32_t, (size_t)c->n_slot * (size_t)c->page_stride);
    if (!g->free || !g->table) return -1;
    for (int32_t i = 0; i < g->n_page; i++) g->free[i] = g->n_page - 1 - i;
    g->n_free = g->n_page;
    memset(g->table, 0xFF, (size_t)c->n_slot * (size_t)c->page_stride * sizeof(int32_t));
    return 0;
}

int fa_kv_create(fa_kv_cache **out, const fa_kv_spec *spec, int n_layer, const fa_kv_opts *o, fa_error *err) {
    *out = NULL;
    fa_kv_cache *c = FA_NEW(fa_kv_cache);
    if (!c) goto nomem;
    int rc = lay_out(c->group, &c->n_group, spec, n_layer, o, err);
    if (rc) {
        fa_kv_free(c);
        return rc;
    }
    c->n_layer = n_layer;
    c->n_slot = o->n_slot;
    c->n_ctx = o->n_ctx;
    c->dtype = o->dtype;
    c->page_stride = pages_for(o->n_ctx);
    c->layer = FA_NEWN(fa_kv, (size_t)n_layer);
    c->own = FA_NEWN(const fa_kv *, (size_t)n_layer);
    c->len = FA_NEWN(int32_t, (size_t)o->n_slot);
    if (!c->layer || !c->own || !c->len) goto nomem;
    for (int g = 0; g < c->n_group; g++) {
        if (fill_group(&c->group[g], c)) goto nomem;
        c->bytes += (size_t)(c->group[g].page_bytes * all_pages(&c->group[g]));
    }
    c->dev = o->dev;
    rc = fa_cache_reserve(o->dev, &c->mem, c->bytes, "the cache", err);
    if (!rc) rc = fa_states_create(&c->states, spec, n_layer, o, err);
    if (rc) {
        fa_kv_free(c);
        return rc;
    }
    place_layers(c->layer, spec, n_layer, o->dtype, c->group, c->n_group, (uint8_t *)c->mem);
    for (int i = 0; i < n_layer; i++)
        if (spec[i].n_head && !spec[i].shared) c->own[c->n_own++] = &c->layer[i];
    *out = c;
    return 0;
nomem:
    fa_kv_free(c);
    return fa_fail(err, FFAI_ENOMEM, "cache: no memory for the page tables of %d tokens x %d sequences", o->n_ctx,
                   o->n_slot);
}

void fa_kv_free(fa_kv_cache *c) {
    if (!c) return;
    fa_states_free(c->states);
    for (int g = 0; g < FA_MAX_GROUP; g++) {
        fa_free(c->group[g].free);
        fa_free(c->group[g].table);
    }
    fa_cache_release(c->dev, c->mem, c->bytes);
    fa_free(c->layer);
    fa_free(c->own);
    fa_free(c->len);
    fa_free(c);
}

static void give_back(fa_kv_group *g, int32_t *entry) {
    if (*entry < 0) return;
    g->free[g->n_free++] = *entry;
    *entry = -1;
}

int fa_kv_extend(fa_kv_cache *c, int slot, int32_t from, int32_t to, fa_error *err) {
    if (to > c->n_ctx)
        return fa_fail(err, FFAI_ELIMIT, "sequence of %d tokens does not fit the context of %d", to, c->n_ctx);
    for (int i = 0; i < c->n_group; i++) {
        fa_kv_group *g = &c->group[i];
        int32_t *table = g->table + (int64_t)slot * c->page_stride;
        if (g->window) {
            int32_t lowest = from - g->window + 1; /* the first new row sees this far back */
            int32_t seen = lowest > 0 ? lowest / FA_PAGE : 0, kept = pages_for(to) - g->n_page / c->n_slot;
            /* what the slot's share has room for stays, so that the sequence can be cut a little further back */
            for (int32_t p = 0; p < seen && p < kept; p++) give_back(g, &table[p]);
        }
        for (int32_t p = from / FA_PAGE; p <= (to - 1) / FA_PAGE; p++) {
            if (table[p] >= 0) continue;
            if (!g->n_free)
                return fa_fail(err, FFAI_ELIMIT, "cache: no free page (window %d, slot %d, position %d)", g->window,
                               slot, p * FA_PAGE);
            table[p] = g->free[--g->n_free];
        }
    }
    c->len[slot] = to;
    return 0;
}

/* Group whose window would reach behind its pages if the sequence were cut at len; NULL: none. */
static const fa_kv_group *lost_window(const fa_kv_cache *c, int slot, int32_t len) {
    for (int i = 0; i < c->n_group; i++) {
        const int32_t *table = c->group[i].table + (int64_t)slot * c->page_stride;
        int32_t lowest = len - c->group[i].window + 1;
        if (c->group[i].window && lowest < len && table[lowest > 0 ? lowest / FA_PAGE : 0] < 0) return &c->group[i];
    }
    return NULL;
}

static bool has_state(const fa_kv_cache *c, int slot, int32_t len) {
    return !c->states || !len || fa_states_find(c->states, slot, len) >= 0;
}

bool fa_kv_can_truncate(const fa_kv_cache *c, int slot, int32_t len) {
    return len <= c->len[slot] && has_state(c, slot, len) && !lost_window(c, slot, len);
}

int32_t fa_kv_resume(const fa_kv_cache *c, int slot, int32_t len) {
    if (c->states) len = fa_states_at(c->states, slot, len);
    return fa_kv_can_truncate(c, slot, len) ? len : 0; /* pages behind a window are gone for shorter lengths too */
}

int fa_kv_truncate(fa_kv_cache *c, int slot, int32_t len, fa_error *err) {
    const fa_kv_group *lost = lost_window(c, slot, len);
    if (lost)
        return fa_fail(err, FFAI_ENOTSUP, "cache: cannot go back to position %d: its window of %d has been given back",
                       len, lost->window);
    if (!has_state(c, slot, len))
        return fa_fail(err, FFAI_ENOTSUP, "cache: cannot go back to position %d: no recurrent state of it was kept",
                       len);
    if (c->states) fa_states_cut(c->states, slot, len);
    for (int i = 0; i < c->n_group; i++) {
        int32_t *table = c->group[i].table + (int64_t)slot * c->page_stride;
        for (int32_t p = pages_for(len); p < c->page_stride; p++) give_back(&c->group[i], &table[p]);
    }
    c->len[slot] = len;
    return 0;
}

void fa_kv_reset(fa_kv_cache *c, int slot) {
    if (c->states) fa_states_cut(c->states, slot, 0);
    for (int i = 0; i < c->n_group; i++)
        for (int32_t p = 0; p < c->page_stride; p++)
            give_back(&c->group[i], &c->group[i].table[(int64_t)slot * c->page_stride + p]);
    c->len[slot] = 0;
}

int fa_kv_restore(fa_kv_cache *c, int slot, const uint32_t *first, int32_t len, fa_error *err) {
    fa_kv_reset(c, slot);
    for (int i = 0; i < c->n_group; i++) {
        fa_kv_group *g = &c->group[i];
        int32_t *table = g->table + (int64_t)slot * c->page_stride, end = pages_for(len), from = pages_for(first[i]),
                most = g->n_page / c->n_slot;
        if (end - from > most) from = end - most;
        for (int32_t p = from; p < end; p++) {
            if (!g->n_free) { /* cannot be: no slot ever holds more than its share */
                fa_kv_reset(c, slot);
                return fa_fail(err, FFAI_EINTERNAL, "cache: no free page (window %d, slot %d)", g->window, slot);
            }
            table[p] = g->free[--g->n_free];
        }
    }
    c->len[slot] = len;
    const fa_kv_group *lost = lost_window(c, slot, len);
    if (!lost) return 0;
    fa_kv_reset(c, slot);
    return fa_fail(err, FFAI_ENOTSUP, "cache: %d positions do not fill the window of %d", len, lost->window);
}
