/* Slots: which tokens the cache of each one holds, and which one a prompt gets. A slot keeps its cache when its request
 * ends; a prompt that begins with the same tokens goes on from there. */
#include "engine/engine.h"
#include "base/alloc.h"

#include <string.h>

static bool depends_on_length(const fa_rope *r) { return r && r->original_ctx > 0 && (r->dynamic || r->inv_freq_long); }

int fa_slots_create(ffai_engine *e, fa_error *err) {
    bool depends = false;
    for (int64_t i = 0; i < e->m->dims.n_layer; i++) depends = depends || depends_on_length(e->m->spec[i].rope);
    size_t n = (size_t)e->n_slot, tokens = n * (size_t)e->n_ctx; /* at most 2^30: fa_kv_create has checked */
    e->slot = FA_NEWN(ffai_request *, n);
    e->slot_used = FA_NEWN(int64_t, n);
    e->kept = FA_NEWN(int32_t, tokens); /* resident as it is used */
    if (depends) e->kept_len = FA_NEWN(int32_t, tokens);
    e->slot_use = FA_NEWN(float, n *FA_ADAPTERS);
    if (e->slot && e->slot_used && e->slot_use && e->kept && (e->kept_len || !depends)) return 0;
    return fa_fail(err, FFAI_ENOMEM, "no memory for %d slots", e->n_slot);
}

void fa_slots_free(ffai_engine *e) {
    fa_free(e->slot);
    fa_free(e->slot_used);
    fa_free(e->slot_use);
    fa_free(e->kept);
    fa_free(e->kept_len);
}

void fa_slot_append(ffai_engine *e, int slot, const int32_t *ids, int n, int32_t len) {
    int64_t at = (int64_t)slot * e->n_ctx + e->kv->len[slot] - n; /* the pages are there already */
    memcpy(e->kept + at, ids, (size_t)n * sizeof *ids);
    for (int i = 0; e->kept_len && i < n; i++) e->kept_len[at + i] = len;
    e->slot_used[slot] = e->n_step + 1;
}

/* Was what the slot holds made with these adapters? */
static bool same_use(const ffai_engine *e, int slot, const float *use) {
    const float *own = e->slot_use + (int64_t)slot * FA_ADAPTERS;
    for (int i = 0; i < e->adapters.n; i++)
        if (own[i] != use[i]) return false;
    return true;
}

/* Would keys that were rotated in a sequence of length a be the same in one of length b? */
static bool same_rotation(const ffai_engine *e, int32_t a, int32_t b) {
    for (int64_t i = 0; i < e->m->dims.n_layer; i++) {
        const fa_rope *r = e->m->spec[i].rope;
        if (!depends_on_length(r)) continue;
        bool grown = a > r->original_ctx;
        if (grown != (b > r->original_ctx) || (grown && r->dynamic && a != b)) return false;
    }
    return true;
}

bool fa_slot_outgrown(const ffai_engine *e, int slot, int32_t len) {
    int32_t n = e->kv->len[slot];
    if (!e->kept_len || !n) return false;
    int32_t was = e->kept_len[(int64_t)slot * e->n_ctx + n - 1]; /* the others agree with the last one */
    for (int64_t i = 0; i < e->m->dims.n_layer; i++) {
        const fa_rope *r = e->m->spec[i].rope;
        if (r && r->inv_freq_long && (was > r->original_ctx) != (len > r->original_ctx)) return true;
    }
    return false;
}

/* Leading tokens of ids [n] that the slot holds. */
static int32_t common(const ffai_engine *e, int slot, const int32_t *ids, int64_t n) {
    const int32_t *kept = e->kept + (int64_t)slot * e->n_ctx;
    int32_t k = 0, max = e->kv->len[slot] < n ? e->kv->len[slot] : (int32_t)n;
    while (k < max && kept[k] == ids[k]) k++;
    return k;
}

/* Tokens that a prompt of n ids would not have to feed in this slot. One is always fed: it gives the logits. */
static int32_t usable(const ffai_engine *e, int slot, const int32_t *ids, int64_t n, const float *use) {
    if (!same_use(e, slot, use)) return 0;
    const int32_t *len = e->kept_len ? e->kept_len + (int64_t)slot * e->n_ctx : NULL;
    int32_t k = common(e, slot, ids, n - 1);
    for (int32_t i = 0; len && i < k; i++)
        if ((i == 0 || len[i] != len[i - 1]) && !same_rotation(e, len[i], (int32_t)n)) k = i;
    return fa_kv_resume(e->kv, slot, k);
}

int fa_slot_oldest(const ffai_engine *e) {
    int best = -1;
    int64_t best_used = 0;
    for (int s = 0; s < e->n_slot; s++) {
        int64_t used = e->kv->len[s] ? e->slot_used[s] : -1;
        if (e->slot[s] || (best >= 0 && used >= best_used)) continue;
        best = s;
        best_used = used;
    }
    return best;
}

enum { PARTED = 16 /* fewer tokens than that are evaluated again, and no state of them is kept */ };

static int32_t parted_at(const ffai_engine *e, const int32_t *ids, int64_t n, const float *use) {
    int32_t most = 0;
    for (int s = 0; e->kv->states && s < e->n_slot; s++) {
        int32_t k = same_use(e, s, use) ? common(e, s, ids, n - 1) : 0;
        if (k > most) most = k;
    }
    return most < PARTED ? 0 : most;
}

int fa_slot_take(ffai_engine *e, const int32_t *ids, int64_t n, const float *use, bool fresh, int64_t *reused,
                 int32_t *parted) {
    *parted = parted_at(e, ids, n, use);
    int best = fa_slot_oldest(e);
    int32_t best_k = best < 0 || fresh ? 0 : usable(e, best, ids, n, use);
    for (int s = 0; best >= 0 && !fresh && s < e->n_slot; s++) {
        int32_t k = e->slot[s] ? 0 : usable(e, s, ids, n, use);
        /* a few tokens that all prompts begin with are not worth another conversation's cache */
        if (k <= best_k || (k < (n - 1) / 2 && k < e->kv->len[s] / 2)) continue;
        best = s;
        best_k = k;
    }
    *reused = best_k;
    if (best >= 0 && (!best_k || fa_kv_truncate(e->kv, best, best_k, NULL))) {
        fa_kv_reset(e->kv, best);
        *reused = 0;
    }
    if (best >= 0) memcpy(e->slot_use + (int64_t)best * FA_ADAPTERS, use, FA_ADAPTERS * sizeof *use);
    return best;
}

int fa_slot_holding(const ffai_engine *e, const int32_t *ids, int64_t n, const float *use) {
    int best = -1;
    for (int s = 0; s < e->n_slot; s++) {
        int32_t len = e->kv->len[s];
        if (e->slot[s] || !len || !same_use(e, s, use) || common(e, s, ids, n) < len ||
            (best >= 0 && len <= e->kv->len[best]))
            continue;
        best = s;
    }
    return best;
}
