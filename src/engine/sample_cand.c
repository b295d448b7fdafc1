/* Candidates of one pick: from the row to a list, selection, softmax, the draw. See sample_int.h. */
#include "engine/sample_int.h"
#include "base/rng.h"

void fa_pick_begin(fa_pick *p, const fa_kernels *k, float *x, int64_t vocab, void *work) {
    *p = (fa_pick){.k = k, .vocab = vocab, .dense = true, .x = x, .temp = 1};
    float *w = (float *)work; /* FA_SAMPLER_WORK / 4 = 8 arrays of a vocabulary: 1 + 1 + 1 + 3 + 1 + 1 */
    p->l = w;
    p->p = w + vocab;
    p->id = (int32_t *)(void *)(w + 2 * vocab);
    p->rank = (fa_rank *)(void *)(w + 3 * vocab);
    p->top = p->key = w + 6 * vocab;
    p->raw = w + 7 * vocab;
}

void fa_pick_tops(fa_pick *p) {
    if (p->have_top) return;
    p->k->block_max(p->x, p->vocab, p->top);
    p->max = -INFINITY;
    for (int64_t b = 0; b * FA_BLOCK < p->vocab; b++)
        if (p->top[b] > p->max) p->max = p->top[b];
    p->have_top = true;
}

float fa_pick_max(fa_pick *p) {
    if (p->dense) {
        fa_pick_tops(p);
        return p->max / p->temp;
    }
    float max = -INFINITY;
    for (int64_t i = 0; i < p->n; i++)
        if (p->l[i] > max) max = p->l[i];
    return max;
}

int32_t fa_pick_argmax(fa_pick *p) {
    if (p->dense) {
        fa_pick_tops(p);
        if (!(p->max > -INFINITY)) return -1;
        int64_t b = 0;
        while (p->top[b] != p->max) b++;
        for (int64_t i = b * FA_BLOCK;; i++) /* the first of equals, as torch.argmax */
            if (p->x[i] == p->max) return (int32_t)i;
    }
    float max = fa_pick_max(p);
    for (int64_t i = 0; i < p->n; i++)
        if (p->l[i] == max) return p->id[i];
    return -1;
}

void fa_pick_only(fa_pick *p, int32_t id) {
    p->dense = false;
    p->n = 1;
    p->l[0] = 0;
    p->id[0] = id;
}

void fa_pick_above(fa_pick *p, float t) {
    int64_t n = 0;
    if (!p->dense) {
        for (int64_t i = 0; i < p->n; i++) {
            if (!(p->l[i] >= t && p->l[i] > -INFINITY)) continue;
            p->l[n] = p->l[i];
            p->id[n++] = p->id[i];
        }
        p->n = n;
        return;
    }
    fa_pick_tops(p);
    const float temp = p->temp;
    for (int64_t b = 0; b * FA_BLOCK < p->vocab; b++) {
        if (!(p->top[b] / temp >= t)) continue;
        int64_t end = (b + 1) * FA_BLOCK < p->vocab ? (b + 1) * FA_BLOCK : p->vocab;
        for (int64_t i = b * FA_BLOCK; i < end; i++) { /* without branches: blocks may be full of candidates */
            float l = p->x[i] / temp;
            p->l[n] = l;
            p->id[n] = (int32_t)i;
            n += (l >= t) & (l > -INFINITY);
        }
    }
    p->n = n;
    p->dense = false;
}

void fa_pick_list(fa_pick *p) {
    if (p->dense) fa_pick_above(p, -INFINITY);
}

void fa_pick_softmax(fa_pick *p) {
    fa_pick_list(p);
    float max = fa_pick_max(p);
    if (max == INFINITY) {
        fa_pick_only(p, fa_pick_argmax(p));
        max = 0;
    }
    p->z = p->k->exp_sum(p->l, p->n, max, 1, p->p);
}

double fa_pick_lse(fa_pick *p) {
    float max = fa_pick_max(p);
    if (!isfinite(max)) return (double)max;
    double z =
        p->dense ? p->k->exp_sum(p->x, p->vocab, p->max, 1 / p->temp, NULL) : p->k->exp_sum(p->l, p->n, max, 1, NULL);
    return (double)max + log(z);
}

/* Sum of p (x - base), and how many x there are, in eight lanes of 64 at a time. */
static double weighted_sum(const float *x, const float *p, int64_t n, float base, int64_t *n_live) {
    double sum = 0;
    int64_t live = 0;
    for (int64_t i = 0; i < n; i += FA_BLOCK) {
        int64_t end = i + FA_BLOCK < n ? i + FA_BLOCK : n, j = i;
        float part[8] = {0};
        int32_t count[8] = {0};
        for (; j + 8 <= end; j += 8)
            for (int t = 0; t < 8; t++) {
                float d = x[j + t] - base;
                part[t] += p[j + t] > 0 ? p[j + t] * d : 0;
                count[t] += x[j + t] > -INFINITY;
            }
        for (; j < end; j++) {
            part[0] += p[j] > 0 ? p[j] * (x[j] - base) : 0;
            count[0] += x[j] > -INFINITY;
        }
        for (int t = 0; t < 8; t++) sum += (double)part[t], live += count[t];
    }
    *n_live = live;
    return sum;
}

double fa_pick_entropy(fa_pick *p, int64_t *n_live, double *lse) {
    float max = fa_pick_max(p);
    *n_live = 1;
    *lse = (double)max;
    if (!isfinite(max)) return 0;
    const float *l = p->dense ? p->x : p->l;
    const float base = p->dense ? p->max : max, scale = p->dense ? 1 / p->temp : 1;
    int64_t n = p->dense ? p->vocab : p->n;
    double z = p->k->exp_sum(l, n, base, scale, p->p);
    *lse = (double)max + log(z);
    return log(z) - weighted_sum(l, p->p, n, base, n_live) * (double)scale / z;
}

/* ---- selection ---- */

static inline bool rank_before(fa_rank a, fa_rank b) { return fa_before(a.key, a.id, b.key, b.id); }

static void swap(fa_rank *r, int64_t a, int64_t b) {
    fa_rank t = r[a];
    r[a] = r[b];
    r[b] = t;
}

/* Puts a median of three places that no input can aim at to r[hi - 1]. */
static void choose_pivot(fa_rank *r, int64_t lo, int64_t hi, uint64_t round) {
    int64_t at[3];
    for (uint64_t j = 0; j < 3; j++) at[j] = lo + (int64_t)(fa_rng_at(round, j) % (uint64_t)(hi - lo));
    if (rank_before(r[at[1]], r[at[0]])) swap(r, at[0], at[1]);
    if (rank_before(r[at[2]], r[at[1]])) swap(r, at[1], at[2]);
    if (rank_before(r[at[1]], r[at[0]])) swap(r, at[0], at[1]);
    swap(r, at[1], hi - 1);
}

/* The place of the last one to keep lies in [lo, hi); all that precedes lo is kept and weighs `taken`. */
fa_rank fa_select(fa_rank *r, int64_t n, double target) {
    int64_t lo = 0, hi = n;
    double taken = 0;
    for (uint64_t round = 0; lo < hi; round++) {
        if (hi - lo == 1) return r[lo];
        choose_pivot(r, lo, hi, round);
        const fa_rank pivot = r[hi - 1];
        int64_t m = lo;
        double sum = 0;
        for (int64_t i = lo; i < hi - 1; i++) {
            fa_rank t = r[i];
            bool b = rank_before(t, pivot);
            r[i] = r[m];
            r[m] = t;
            sum += b ? (double)t.w : 0;
            m += b;
        }
        swap(r, m, hi - 1);
        if (m > lo && taken + sum >= target) {
            hi = m;
        } else if (taken + sum + (double)pivot.w >= target) {
            return pivot;
        } else {
            taken += sum + (double)pivot.w;
            lo = m + 1;
        }
    }
    return (fa_rank){-INFINITY, 0, INT32_MAX}; /* all together do not reach the target */
}

/* Many candidates first fall into buckets by key; only the one where the target is reached is selected from. */
fa_rank fa_pick_last(fa_pick *p, const float *key, const float *w, double target) {
    enum { BUCKETS = 1024, FEW = 4096 };
    float hi = -INFINITY, lo = INFINITY;
    for (int64_t i = 0; i < p->n; i++) hi = key[i] > hi ? key[i] : hi, lo = key[i] < lo ? key[i] : lo;
    float scale = BUCKETS / (hi - lo);
    bool few = p->n <= FEW || !(scale > 0 && isfinite(scale)); /* one value, or values too far apart */
    double sum[BUCKETS] = {0}, before = 0;
    int at = 0;
    for (int64_t i = 0; !few && i < p->n; i++) {
        int b = (int)((hi - key[i]) * scale); /* never less for a smaller key */
        sum[b < BUCKETS ? b : BUCKETS - 1] += w ? (double)w[i] : 1;
    }
    while (!few && at < BUCKETS - 1 && before + sum[at] < target) before += sum[at++];
    int64_t m = 0;
    for (int64_t i = 0; i < p->n; i++) {
        int b = few ? 0 : (int)((hi - key[i]) * scale);
        p->rank[m] = (fa_rank){key[i], w ? w[i] : 1.0f, p->id[i]};
        m += few || (b < BUCKETS ? b : BUCKETS - 1) == at;
    }
    return fa_select(p->rank, m, target - before);
}

void fa_pick_keep(fa_pick *p, const float *key, fa_rank last) {
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        float l = p->l[i];
        int32_t id = p->id[i];
        bool drop = fa_before(last.key, last.id, key[i], id);
        p->l[n] = l; /* n <= i: key may be l itself */
        p->id[n] = id;
        n += !drop;
    }
    p->n = n;
}

void fa_pick_bake(fa_pick *p) {
    if (!p->dense || p->temp == 1) return;
    for (int64_t i = 0; i < p->vocab; i++) p->x[i] /= p->temp;
    p->temp = 1;
    p->have_top = false;
}

/* ---- the draw ---- */

/* Dense: finds the run of blocks, then the token in it, so that only one run is walked one by one. */
static int32_t draw_dense(fa_pick *p, double u, float *prob) {
    enum { RUN = 4096 };
    float scale = 1 / p->temp;
    double total = p->k->exp_sum(p->x, p->vocab, p->max, scale, p->p), at = u * total, sum = 0;
    int32_t last = -1;
    *prob = 0;
    for (int64_t i = 0; i < p->vocab; i += RUN) {
        int64_t end = i + RUN < p->vocab ? i + RUN : p->vocab;
        double run = 0;
        float part[8] = {0};
        int64_t j = i;
        for (; j + 8 <= end; j += 8)
            for (int t = 0; t < 8; t++) part[t] += p->p[j + t];
        for (; j < end; j++) part[0] += p->p[j];
        for (int t = 0; t < 8; t++) run += (double)part[t];
        if (at >= sum + run && end < p->vocab) {
            sum += run;
            continue;
        }
        for (j = i; j < end; j++) {
            if (!(p->p[j] > 0)) continue;
            last = (int32_t)j;
            *prob = (float)((double)p->p[j] / total);
            sum += (double)p->p[j];
            if (at < sum) return last;
        }
    }
    return last >= 0 ? last : fa_pick_argmax(p); /* rounding at the very end */
}

int32_t fa_pick_draw(fa_pick *p, double u, float *prob) {
    *prob = 1;
    if (!isfinite(fa_pick_max(p))) return fa_pick_argmax(p);
    if (p->dense) return draw_dense(p, u, prob);
    fa_pick_softmax(p);
    double at = u * p->z, sum = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (!(p->p[i] > 0)) continue;
        last = i;
        sum += (double)p->p[i];
        if (at < sum) break;
    }
    *prob = (float)((double)p->p[last] / p->z);
    return p->id[last];
}
