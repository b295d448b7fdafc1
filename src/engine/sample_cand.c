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
    p->run_temp = 0;
}

/* Sums of e^((x - base) * scale) over some runs of x [n]; returns their sum. */
static double weigh(fa_pick *p, const float *x, int64_t n, float base, float scale) {
    const int64_t step = 256, all = FA_RUNS * step;
    double total = 0;
    p->run_len = (n + all - 1) / all * step;
    p->run_base = base;
    p->n_run = 0;
    for (int64_t i = 0; i < n; i += p->run_len) {
        const double sum = p->k->exp_sum(x + i, n - i < p->run_len ? n - i : p->run_len, base, scale, NULL);
        p->run[p->n_run++] = sum;
        total += sum;
    }
    return total;
}

/* The same for a dense row, whose runs stay until it or its temperature changes. */
static double weigh_dense(fa_pick *p) {
    double total = 0;
    fa_pick_tops(p);
    if (p->run_temp != p->temp)
        total = weigh(p, p->x, p->vocab, p->max, 1 / p->temp);
    else
        for (int r = 0; r < p->n_run; r++) total += p->run[r];
    p->run_temp = p->temp;
    return total;
}

void fa_pick_drop(fa_pick *p, int32_t id) {
    const int64_t b = id / FA_BLOCK, from = b * FA_BLOCK, left = p->vocab - from;
    p->x[id] = -INFINITY;
    p->k->block_max(p->x + from, left < FA_BLOCK ? left : FA_BLOCK, p->top + b);
    if (p->run_temp != p->temp) return;
    const int64_t r = id / p->run_len, at = r * p->run_len, n = p->vocab - at;
    p->run[r] = p->k->exp_sum(p->x + at, n < p->run_len ? n : p->run_len, p->run_base, 1 / p->temp, NULL);
}

float fa_pick_max(fa_pick *p) {
    if (p->dense) {
        fa_pick_tops(p);
        return p->max / p->temp;
    }
    float min, max;
    p->k->range(p->l, p->n, &min, &max);
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

/* Places in a list, where no selection is under way: the last third of its memory. */
static int32_t *places(const fa_pick *p) { return (int32_t *)(void *)p->rank + 2 * p->vocab; }

void fa_pick_above(fa_pick *p, float t) {
    int64_t n = 0;
    if (!p->dense) {
        int32_t *at = places(p);
        p->n = p->k->between(p->l, p->n, 1, t, INFINITY, 0, p->l, at);
        for (int64_t i = 0; i < p->n; i++) p->id[i] = p->id[at[i]];
        return;
    }
    fa_pick_tops(p);
    const int64_t n_block = (p->vocab + FA_BLOCK - 1) / FA_BLOCK;
    for (int64_t b = 0; b < n_block; b++) {
        const int64_t from = b;
        while (b < n_block && p->top[b] / p->temp >= t) b++;
        if (b == from) continue;
        const int64_t i = from * FA_BLOCK, end = b * FA_BLOCK < p->vocab ? b * FA_BLOCK : p->vocab;
        n += p->k->between(p->x + i, end - i, p->temp, t, INFINITY, (int32_t)i, p->l + n, p->id + n);
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
    const float max = fa_pick_max(p);
    if (!isfinite(max)) return (double)max;
    if (!p->dense) return (double)max + log(p->k->exp_sum(p->l, p->n, max, 1, NULL));
    const double z = weigh_dense(p);
    return (double)p->run_base / (double)p->temp + log(z);
}

double fa_pick_entropy(fa_pick *p, int64_t *n_live, double *lse) {
    float max = fa_pick_max(p);
    *n_live = 1;
    *lse = (double)max;
    if (!isfinite(max)) return 0;
    const float *l = p->dense ? p->x : p->l;
    const float base = p->dense ? p->max : max, scale = p->dense ? 1 / p->temp : 1;
    int64_t n = p->dense ? p->vocab : p->n;
    double dot, z = p->k->exp_mean(l, n, base, scale, &dot, n_live);
    *lse = (double)max + log(z);
    return log(z) - dot * (double)scale / z;
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

/* Descending keys around the one below which r [n], a sample, weighs `below`. Counted from the least key on: what lies
 * there are many of little weight, so that a sample knows them better than the few heavy ones. Reorders r. */
static void guess(fa_rank *r, int n, double below, float *t) {
    static const int offset[FA_MASSES - 1] = {-12, -6, -3, 0, 3, 6, 12};
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const fa_rank v = r[i];
        int j = i;
        for (; j > 0 && v.key > r[j - 1].key; j--) r[j] = r[j - 1];
        r[j] = v;
    }
    int at = n - 1;
    while (at > 0 && (sum += (double)r[at].w) <= below) at--;
    for (int i = 0; i < FA_MASSES - 1; i++) {
        const int k = at + offset[i];
        t[i] = r[k < 0 ? 0 : k < n ? k : n - 1].key;
    }
}

/* The last one to keep is looked for among ever fewer: each round takes the weights above some keys near to where a
 * sample has it, and leaves what lies between two of them. */
fa_rank fa_pick_last(fa_pick *p, const float *key, const float *w, const int32_t *id, int64_t n, double total,
                     double target) {
    enum { FEW = 512, SAMPLE = 128, ROUNDS = 4 };
    int32_t *at = places(p);
    float lo, hi, t[FA_MASSES], *key_there = (float *)(void *)p->rank + p->vocab;
    double sum[FA_MASSES], before = 0, whole = total; /* what weighs above hi, and from lo on */
    int64_t m = n;
    bool narrowed = false;
    p->k->range(key, n, &lo, &hi);
    for (int round = 0; round < ROUNDS && m > FEW && lo < hi; round++) {
        fa_rank sample[SAMPLE];
        for (int j = 0; j < SAMPLE; j++) {
            int64_t i = (int64_t)(fa_rng_at((uint64_t)round, (uint64_t)j) % (uint64_t)m);
            i = round ? at[i] : i;
            sample[j] = (fa_rank){key[i], w ? w[i] : 1, 0};
        }
        guess(sample, SAMPLE, (whole - target) * SAMPLE / (double)m, t);
        t[FA_MASSES - 1] = lo;
        p->k->masses(key, w, n, t, sum);
        int j = 0;
        while (j < FA_MASSES && sum[j] < target) j++;
        if (j == FA_MASSES) return (fa_rank){-INFINITY, 0, INT32_MAX};
        narrowed = true;
        lo = t[j];
        whole = sum[j];
        if (j > 0) hi = nextafterf(t[j - 1], -INFINITY), before = sum[j - 1];
        m = p->k->between(key, n, 1, lo, hi, 0, key_there, at);
    }
    for (int64_t j = 0; j < m; j++) { /* a place is read before a rank lies on it: 12 j + 12 <= 8 vocab + 4 j + 4 */
        const int64_t i = m < n ? at[j] : j;
        p->rank[j] = (fa_rank){key[i], w ? w[i] : 1.0f, id ? id[i] : (int32_t)i};
    }
    fa_rank last = fa_select(p->rank, m, target - before);
    if (narrowed && last.id == INT32_MAX) last.key = lo; /* sums that round otherwise: all of this range */
    return last;
}

void fa_pick_keep(fa_pick *p, const float *key, fa_rank last) {
    int32_t *at = places(p);
    float *kept = (float *)(void *)p->rank;
    int64_t m = p->k->between(key, p->n, 1, last.key, INFINITY, 0, kept, at), n = 0;
    for (int64_t j = 0; j < m; j++) {
        const int32_t id = p->id[at[j]];
        p->l[n] = p->l[at[j]]; /* n <= j <= at[j] */
        p->id[n] = id;
        n += !(kept[j] == last.key && id > last.id);
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

/* Which of x [n] is drawn after weigh; its probability. The run that u falls into is found first, then the place in it.
 */
static int64_t draw_from(fa_pick *p, const float *x, int64_t n, float scale, double total, double u, float *prob) {
    double at = u * total, sum = 0;
    int r = 0;
    for (; r + 1 < p->n_run && at >= p->run[r]; r++) at -= p->run[r];
    while (r > 0 && !(p->run[r] > 0)) r--; /* rounding at the very end */
    const int64_t from = r * p->run_len, end = from + p->run_len < n ? from + p->run_len : n;
    int64_t last = from;
    p->k->exp_sum(x + from, end - from, p->run_base, scale, p->p);
    for (int64_t i = from; i < end && !(sum > 0 && at < sum); i++) {
        const float e = p->p[i - from];
        if (!(e > 0)) continue;
        last = i;
        sum += (double)e;
        *prob = (float)((double)e / total);
    }
    return last;
}

int32_t fa_pick_draw(fa_pick *p, double u, float *prob) {
    *prob = 1;
    const float max = fa_pick_max(p);
    if (!isfinite(max)) return fa_pick_argmax(p);
    if (p->dense) return (int32_t)draw_from(p, p->x, p->vocab, 1 / p->temp, weigh_dense(p), u, prob);
    return p->id[draw_from(p, p->l, p->n, 1, weigh(p, p->l, p->n, max, 1), u, prob)];
}
