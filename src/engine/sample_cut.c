/* The samplers that keep a part of the candidates. Each keeps at least one; equal candidates are ranked by id. Formulas
 * and sources: docs/sampling.md. */
#include "engine/sample_int.h"

/* ---- top-k ---- */

/* A logit that at least k candidates reach: the k-th greatest block maximum. Few more than k do, in practice. */
static float kth_block(fa_pick *p, int64_t k, int64_t n_block) {
    return fa_pick_last(p, p->top, NULL, NULL, n_block, (double)n_block, (double)k).key;
}

void fa_cut_top_k(fa_pick *p, int64_t k) {
    int64_t n_block = (p->vocab + FA_BLOCK - 1) / FA_BLOCK;
    if (k < 1 || (p->dense && k >= p->vocab)) return;
    if (p->dense) {
        fa_pick_tops(p);
        fa_pick_above(p, 2 * k <= n_block ? kth_block(p, k, n_block) / p->temp : -INFINITY);
    }
    if (k >= p->n) return;
    fa_pick_keep(p, p->l, fa_pick_last(p, p->l, NULL, p->id, p->n, (double)p->n, (double)k));
}

/* ---- top-p ---- */

/* The smallest set of the likeliest whose probabilities reach the share. Dense: looks at ever more of the row until
 * what it holds weighs enough. */
void fa_cut_top_p(fa_pick *p, float top_p) {
    static const float depth[] = {4, 8, 16, INFINITY};
    double target;
    if (!p->dense) {
        fa_pick_softmax(p);
        target = (double)top_p * p->z;
    } else {
        float max = fa_pick_max(p);
        if (!isfinite(max)) return;
        target = (double)top_p * p->k->exp_sum(p->x, p->vocab, p->max, 1 / p->temp, NULL);
        for (int i = 0; i < 4; i++) {
            p->dense = true;
            fa_pick_above(p, max - depth[i]);
            p->z = p->k->exp_sum(p->l, p->n, max, 1, p->p);
            if (p->z >= target) break;
        }
    }
    if (p->n < 2) return;
    fa_pick_keep(p, p->l, fa_pick_last(p, p->l, p->p, p->id, p->n, p->z, target));
}

/* ---- thresholds ---- */

void fa_cut_min_p(fa_pick *p, float min_p) {
    float max = fa_pick_max(p);
    if (isfinite(max)) fa_pick_above(p, fminf(max, max + logf(min_p)));
}

/* Those of at least this probability; lse: fa_pick_lse. */
static void cut_below(fa_pick *p, double lse, double prob) {
    float max = fa_pick_max(p);
    if (isfinite(max)) fa_pick_above(p, fminf(max, (float)(lse + log(prob))));
}

void fa_cut_prob(fa_pick *p, double prob) { cut_below(p, fa_pick_lse(p), prob); }

void fa_cut_eta(fa_pick *p, float eta) {
    int64_t n;
    double lse, h = fa_pick_entropy(p, &n, &lse);
    cut_below(p, lse, fmin((double)eta, sqrt((double)eta) * exp(-h)));
}

void fa_cut_top_n_sigma(fa_pick *p, float n_sigma) {
    double s1, s2;
    float max = fa_pick_max(p);
    if (!isfinite(max) || (!p->dense && p->n < 2)) return;
    bool dense = p->dense;
    int64_t n = p->k->moments(dense ? p->x : p->l, dense ? p->vocab : p->n, dense ? p->max : max, &s1, &s2);
    double mean = s1 / (double)n, var = fmax(0, s2 / (double)n - mean * mean);
    float t = max - (float)((double)n_sigma * sqrt(var) / (double)(dense ? p->temp : 1));
    if (isfinite(t)) fa_pick_above(p, fminf(max, t));
}

/* ---- locally typical ---- */

/* The surprise -l + lse is nearest to the entropy where l is nearest to lse - h. Dense: looks ever farther from there
 * until what it holds weighs enough; what lies above is few and comes along. */
void fa_cut_typical(fa_pick *p, float mass) {
    static const float depth[] = {1, 4, 16, INFINITY};
    const bool dense = p->dense;
    const float max = fa_pick_max(p);
    int64_t n;
    double lse, h = fa_pick_entropy(p, &n, &lse), centre = lse - h;
    double target = (double)mass * exp(lse - (double)max), near = 0, sum[FA_MASSES];
    float t[FA_MASSES];
    if (!isfinite(max) || n < 2) return;
    for (int i = dense ? 0 : 3; i < 4 && near < target; i++) {
        p->dense = dense;
        fa_pick_above(p, fminf(max, (float)centre - depth[i]));
        p->z = p->k->exp_sum(p->l, p->n, max, 1, p->p);
        for (int64_t j = 0; j < p->n; j++) p->key[j] = (float)-fabs((double)p->l[j] - centre);
        for (int j = 0; j < FA_MASSES; j++) t[j] = -depth[i];
        p->k->masses(p->key, p->p, p->n, t, sum);
        near = sum[0];
        p->have_top = false; /* the keys have taken their place */
    }
    fa_pick_keep(p, p->key, fa_pick_last(p, p->key, p->p, p->id, p->n, p->z, target));
}

/* ---- exclude top choices ---- */

/* Few tokens can be this likely: they are made a list, the rest of a dense row stays as it is. */
void fa_cut_xtc(fa_pick *p, float threshold) {
    float max = fa_pick_max(p), t = (float)(fa_pick_lse(p) + log((double)threshold));
    if (!isfinite(max) || !(max >= t)) return;
    bool dense = p->dense;
    int64_t n = p->n, m = 0, last = -1;
    if (dense) {
        fa_pick_above(p, t);
        n = p->n;
    }
    for (int64_t i = 0; i < n; i++) /* of equals the one with the greatest id */
        if (p->l[i] >= t && (last < 0 || p->l[i] <= p->l[last])) last = i;
    for (int64_t i = 0; i < n; i++) {
        bool drop = p->l[i] >= t && i != last;
        if (dense && drop) fa_pick_drop(p, p->id[i]);
        p->l[m] = p->l[i];
        p->id[m] = p->id[i];
        m += !drop;
    }
    p->n = m;
    p->dense = dense;
    if (dense) p->max = p->x[p->id[0]]; /* the only one left of that likely */
}

/* ---- top-h ---- */

/* As transformers: of the 100 likeliest, taken from the likeliest on, those whose entropy terms add up to at most
 * top_h times the entropy of the 100. */
void fa_cut_top_h(fa_pick *p, float top_h) {
    enum { MOST = 100 };
    fa_rank sorted[MOST];
    fa_cut_top_k(p, MOST);
    fa_pick_softmax(p);
    int64_t n = p->n;
    if (n < 2 || n > MOST) return;
    double h = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double q = (double)p->p[i] / p->z;
        fa_rank r = {p->l[i], q > 0 ? (float)(-q * log(q)) : 0, p->id[i]};
        int64_t j = i;
        for (; j > 0 && fa_before(r.key, r.id, sorted[j - 1].key, sorted[j - 1].id); j--) sorted[j] = sorted[j - 1];
        sorted[j] = r;
        h += (double)r.w;
    }
    int64_t kept = 0;
    while (kept < n && (kept == 0 || sum + (double)sorted[kept].w <= h * (double)top_h))
        sum += (double)sorted[kept++].w;
    fa_pick_keep(p, p->l, sorted[kept - 1]);
}
