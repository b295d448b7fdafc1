/* Sampling: temperature, top-k, top-p, min-p, in transformers' order, over a candidate list that is never sorted
 * further than needed. */
#define _GNU_SOURCE
#include "engine/sampler.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "engine/model.h"

#include <math.h>
#include <stdlib.h>

typedef struct cand {
    float p; /* logit, later probability */
    int32_t id;
} cand;

/* -1 when there is nothing to choose from: no logit is a number above minus infinity. */
static int32_t argmax(const float *x, int64_t n) {
    int64_t best = -1;
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] > top)) continue; /* the first of equals, as torch.argmax on the CPU; never a NaN */
        top = x[i];
        best = i;
    }
    return (int32_t)best;
}

/* Greater first; equal values by id, so that results do not depend on the selection's path. */
static bool before(cand a, cand b) { return a.p > b.p || (a.p == b.p && a.id < b.id); }

static int by_rank(const void *a, const void *b) {
    cand x = *(const cand *)a, y = *(const cand *)b;
    return before(x, y) ? -1 : before(y, x) ? 1 : 0;
}

/* Moves the k first-ranked of c[n] to the front, in any order. */
static void select_top(cand *c, int64_t n, int64_t k) {
    int64_t lo = 0, hi = n - 1;
    while (lo < hi && k > lo && k <= hi) {
        cand pivot = c[lo + (hi - lo) / 2];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (before(c[i], pivot)) i++;
            while (before(pivot, c[j])) j--;
            if (i <= j) {
                cand t = c[i];
                c[i++] = c[j];
                c[j--] = t;
            }
        }
        if (k <= j + 1)
            hi = j;
        else if (k > i)
            lo = i;
        else
            break;
    }
}

/* Turns logits c[n] into probabilities. */
static void softmax(cand *c, int64_t n) {
    float max = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].p > max) max = c[i].p;
    for (int64_t i = 0; i < n; i++) sum += c[i].p = expf(c[i].p - max);
    for (int64_t i = 0; i < n; i++) c[i].p = (float)(c[i].p / sum);
}

/* Keeps the smallest set of most likely candidates whose probabilities reach top_p (at least one); c[0..result) is
 * sorted. */
static int64_t keep_top_p(cand *c, int64_t n, float top_p) {
    double sum = 0;
    int64_t done = 0;
    for (int64_t k = 64; done < n; k *= 4) {
        if (k > n) k = n;
        select_top(c + done, n - done, k - done);
        qsort(c + done, (size_t)(k - done), sizeof *c, by_rank);
        for (; done < k; done++) {
            sum += c[done].p;
            if (sum >= top_p) return done + 1;
        }
    }
    return n;
}

struct fa_sampler {
    ffai_sampling opts;
    int64_t vocab;
    fa_rng rng;
};

static int check_sampling(const ffai_sampling *s, fa_error *err) {
    if (!(s->temp >= 0 && s->temp <= 1000))
        return fa_fail(err, FFAI_EINVAL, "temp: %g is not between 0 and 1000", (double)s->temp);
    if (s->top_k < 0) return fa_fail(err, FFAI_EINVAL, "top-k: %d is negative", s->top_k);
    if (!(s->top_p >= 0 && s->top_p <= 1))
        return fa_fail(err, FFAI_EINVAL, "top-p: %g is not between 0 and 1", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return fa_fail(err, FFAI_EINVAL, "min-p: %g is not between 0 and 1", (double)s->min_p);
    return 0;
}

int fa_sampler_new(fa_sampler **out, const ffai_sampling *s, int64_t vocab, const fa_tok *tok, fa_error *err) {
    *out = NULL;
    (void)tok;
    int rc = check_sampling(s, err);
    if (rc) return rc;
    fa_sampler *n = FA_NEW(fa_sampler);
    if (!n) return fa_fail(err, FFAI_ENOMEM, "no memory for a sampler");
    n->opts = *s;
    if (n->opts.top_p <= 0) n->opts.top_p = 1;
    n->vocab = vocab;
    n->rng.seed = s->seed;
    *out = n;
    return 0;
}

void fa_sampler_free(fa_sampler *s) { fa_free(s); }

int32_t fa_sampler_pick(fa_sampler *sampler, float *logits, const int32_t *ids, size_t n_ids, const uint32_t *mask,
                        void *work) {
    const ffai_sampling *s = &sampler->opts;
    int64_t n = sampler->vocab;
    float draw = fa_rng_f32(&sampler->rng);
    (void)ids, (void)n_ids, (void)mask;
    int32_t likeliest = argmax(logits, n);
    /* an infinite logit, and the limit of ever smaller temperatures, leave nothing to draw */
    if (likeliest < 0 || !(s->temp > 0) || !isfinite(logits[likeliest] / s->temp)) return likeliest;
    cand *c = (cand *)work;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i])) continue;
        c[kept++] = (cand){logits[i] / s->temp, (int32_t)i};
    }
    if (s->top_k > 0 && s->top_k < kept) {
        select_top(c, kept, s->top_k);
        kept = s->top_k;
    }
    softmax(c, kept);
    if (s->top_p < 1) kept = keep_top_p(c, kept, s->top_p);
    if (s->min_p > 0) {
        float max = 0;
        for (int64_t i = 0; i < kept; i++)
            if (c[i].p > max) max = c[i].p;
        int64_t m = 0;
        for (int64_t i = 0; i < kept; i++)
            if (c[i].p >= s->min_p * max) c[m++] = c[i];
        kept = m;
    }
    double total = 0;
    for (int64_t i = 0; i < kept; i++) total += c[i].p;
    double at = draw * total;
    for (int64_t i = 0; i < kept; i++) {
        at -= c[i].p;
        if (at < 0) return c[i].id;
    }
    return c[kept - 1].id;
}

void ffai_sampling_default(const ffai_model *m, ffai_sampling *s) {
    const fa_jnode *g = fa_ckpt_generation_config(m->ckpt);
    bool sample = fa_jbool(fa_jget(g, "do_sample"), false);
    *s = (ffai_sampling){.temp = 0, .top_p = 1};
    if (!sample) return;
    s->temp = (float)fa_jnum(fa_jget(g, "temperature"), 1);
    s->top_k = (int)fa_jnum(fa_jget(g, "top_k"), 50); /* the loader checked the ranges */
    if (s->top_k < 0) s->top_k = 0;
    s->top_p = (float)fa_jnum(fa_jget(g, "top_p"), 1);
    if (s->top_p < 1e-9f) s->top_p = 1e-9f; /* 0: the likeliest token alone */
    s->min_p = (float)fa_jnum(fa_jget(g, "min_p"), 0);
}
