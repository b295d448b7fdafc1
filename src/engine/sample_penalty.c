/* Penalties on tokens that were seen (repetition, presence, frequency), the count of those in the window, and n-gram
 * bans. */
#include "engine/sample_int.h"
#include "base/alloc.h"

static const uint32_t LISTED = UINT32_C(1) << 31; /* of a count: the id stands in `seen` */

int fa_penalty_init(fa_penalty *q, const ffai_sampling *s, int64_t vocab, fa_error *err) {
    *q = (fa_penalty){.repeat = s->repeat_penalty > 0 ? s->repeat_penalty : 1,
                      .presence = s->presence_penalty,
                      .frequency = s->frequency_penalty,
                      .last = s->repeat_last,
                      .vocab = vocab};
    if (q->repeat == 1 && q->presence == 0 && q->frequency == 0) return 0;
    q->count = FA_NEWN(uint32_t, (size_t)vocab);
    q->seen = FA_NEWN(int32_t, (size_t)vocab);
    if (q->count && q->seen) return 0;
    fa_penalty_free(q);
    return fa_fail(err, FFAI_ENOMEM, "no memory for the penalties of %lld tokens", (long long)vocab);
}

void fa_penalty_free(fa_penalty *q) {
    fa_free(q->count);
    fa_free(q->seen);
    q->count = NULL;
    q->seen = NULL;
}

static bool known(const fa_penalty *q, int32_t id) { return id >= 0 && id < q->vocab; }

/* Moves the window to the last `last` of ids [n]. */
static void slide(fa_penalty *q, const int32_t *ids, int64_t n) {
    int64_t from = q->last > 0 && n > q->last ? n - q->last : 0;
    if (n < q->to || from < q->from) { /* the sequence was cut back: count anew */
        for (int64_t i = 0; i < q->n_seen; i++) q->count[q->seen[i]] = 0;
        q->n_seen = q->from = q->to = 0;
    }
    for (; q->from < q->to && q->from < from; q->from++)
        if (known(q, ids[q->from])) q->count[ids[q->from]]--;
    if (q->from < from) q->from = q->to = from;
    for (; q->to < n; q->to++) {
        int32_t id = ids[q->to];
        if (!known(q, id)) continue;
        if (!(q->count[id] & LISTED)) q->seen[q->n_seen++] = id;
        q->count[id] = (q->count[id] | LISTED) + 1;
    }
}

static float penalised(const fa_penalty *q, float l, uint32_t count) {
    l = l <= 0 ? l * q->repeat : l / q->repeat;
    return l - ((float)count * q->frequency + q->presence);
}

void fa_penalty_apply(fa_penalty *q, fa_pick *p, const int32_t *ids, int64_t n) {
    if (!q->count) return;
    slide(q, ids, n);
    if (!p->dense) {
        for (int64_t i = 0; i < p->n; i++) {
            uint32_t c = q->count[p->id[i]] & ~LISTED;
            if (c) p->l[i] = penalised(q, p->l[i], c);
        }
        return;
    }
    fa_pick_bake(p);
    for (int64_t i = 0; i < q->n_seen;) {
        int32_t id = q->seen[i];
        uint32_t c = q->count[id] & ~LISTED;
        if (!c) { /* has left the window */
            q->count[id] = 0;
            q->seen[i] = q->seen[--q->n_seen];
            continue;
        }
        p->x[id] = penalised(q, p->x[id], c);
        i++;
    }
    p->have_top = false;
}

/* The Z-algorithm from the end: [n - right, n - left) backwards is the match that reaches farthest. */
void fa_suffix_lengths(const int32_t *ids, int64_t n, int32_t *z) {
    const int32_t *end = ids + n - 1; /* end[-i]: token i from the end */
    int64_t left = 0, right = 0;      /* end[-left .. -right) equals end[0 .. -(right - left)) */
    for (int64_t k = 1; k < n; k++) {
        int64_t m = 0;
        if (k < right) {
            m = z[k - left];
            if (m < right - k) {
                z[k] = (int32_t)m;
                continue;
            }
            m = right - k;
        }
        while (k + m < n && end[-m] == end[-(k + m)]) m++;
        z[k] = (int32_t)m;
        left = k;
        right = k + m;
    }
}

void fa_ban_ngrams(float *x, int64_t vocab, const int32_t *ids, int64_t n, int g, int32_t *z) {
    if (n < g) return;
    fa_suffix_lengths(ids, n, z);
    for (int64_t k = 1; k <= n; k++) {
        int32_t next = ids[n - k];
        if ((k < n ? z[k] : 0) >= g - 1 && next >= 0 && next < vocab) x[next] = -INFINITY;
    }
}
