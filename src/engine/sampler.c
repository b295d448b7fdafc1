/* The sampler of a request: its state, the chain from a row of logits to a token, log-probabilities. */
#include "engine/sampler.h"
#include "backend/backend.h"
#include "base/alloc.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/sample_int.h"

#include <stdlib.h>
#include <string.h>

struct fa_sampler {
    ffai_sampling opts; /* its arrays are copies in mem; strings are not kept */
    fa_mem mem;
    fa_kernels k;
    int64_t vocab, n_prompt, max_ids;
    int32_t *eos;
    int n_eos;
    uint8_t order[FA_SAMPLE_KINDS];
    int n_order;
    fa_penalty penalty;
    fa_dry *dry;
    fa_mirostat mirostat;
    int32_t *bias_id; /* [n_merged] opts.bias by rising id, each once */
    float *bias;
    int32_t n_merged;
    int32_t *z; /* [max_ids] match lengths of DRY and n-gram bans, or NULL */
    fa_pick last;
};

/* ---- making ---- */

static void *copy(fa_sampler *s, const void *from, size_t n, size_t size, bool *failed) {
    if (!n) return NULL;
    void *to = fa_mem_calloc(&s->mem, n, size);
    if (to)
        memcpy(to, from, n * size);
    else
        *failed = true;
    return to;
}

static int by_id(const void *a, const void *b) {
    int32_t x = ((const ffai_logit_bias *)a)->id, y = ((const ffai_logit_bias *)b)->id;
    return (x > y) - (x < y);
}

/* Biases as a device wants them: each token once. */
static void merge_bias(fa_sampler *s, bool *failed) {
    size_t n = s->opts.n_bias;
    if (!n || *failed) return;
    ffai_logit_bias *b = (ffai_logit_bias *)copy(s, s->opts.bias, n, sizeof *b, failed);
    s->bias_id = (int32_t *)fa_mem_calloc(&s->mem, n, sizeof *s->bias_id);
    s->bias = (float *)fa_mem_calloc(&s->mem, n, sizeof *s->bias);
    *failed = *failed || !s->bias_id || !s->bias;
    if (*failed) return;
    qsort(b, n, sizeof *b, by_id);
    for (size_t i = 0; i < n; i++) {
        if (!i || b[i].id != b[i - 1].id) s->bias_id[s->n_merged++] = b[i].id;
        s->bias[s->n_merged - 1] += b[i].bias;
    }
}

static int copy_arrays(fa_sampler *s, const fa_sampler_env *env, fa_error *err) {
    ffai_sampling *o = &s->opts;
    bool failed = false;
    o->bias = (const ffai_logit_bias *)copy(s, o->bias, o->n_bias, sizeof *o->bias, &failed);
    o->begin_suppress =
        (const int32_t *)copy(s, o->begin_suppress, o->n_begin_suppress, sizeof *o->begin_suppress, &failed);
    s->eos = (int32_t *)copy(s, env->eos, (size_t)env->n_eos, sizeof *env->eos, &failed);
    s->n_eos = env->n_eos;
    ffai_token_list *words = (ffai_token_list *)copy(s, o->bad_words, o->n_bad_word, sizeof *o->bad_words, &failed);
    for (size_t i = 0; words && i < o->n_bad_word; i++)
        words[i].ids = (const int32_t *)copy(s, words[i].ids, words[i].n, sizeof *words[i].ids, &failed);
    o->bad_words = words;
    merge_bias(s, &failed);
    o->dry_breakers = NULL;
    o->samplers = NULL;
    if ((s->dry || o->no_repeat_ngram > 0) && !failed)
        failed = !(s->z = (int32_t *)fa_mem_calloc(&s->mem, (size_t)env->max_ids + 1, sizeof *s->z));
    return failed ? fa_fail(err, FFAI_ENOMEM, "no memory for a sampler") : 0;
}

int fa_sampler_new(fa_sampler **out, const ffai_sampling *o, const fa_sampler_env *env, fa_error *err) {
    *out = NULL;
    int rc = fa_sampling_check(o, env->vocab, err);
    if (rc) return rc;
    fa_sampler *s = FA_NEW(fa_sampler);
    if (!s) return fa_fail(err, FFAI_ENOMEM, "no memory for a sampler");
    s->opts = *o;
    s->vocab = env->vocab;
    s->n_prompt = env->n_prompt;
    s->max_ids = env->max_ids;
    s->mirostat = (fa_mirostat){o->mirostat_tau, o->mirostat_eta > 0 ? o->mirostat_eta : 0.1f, 2 * o->mirostat_tau};
    if (!(o->temp_exponent > 0)) s->opts.temp_exponent = 1;
    if (!(o->xtc_threshold > 0)) s->opts.xtc_threshold = 0.1f;
    rc = fa_sampler_order(o->samplers, s->order, &s->n_order, err);
    if (!rc && fa_kernels_init(&s->k, env->isa, NULL)) rc = fa_kernels_init(&s->k, NULL, err); /* not a CPU's name */
    if (!rc) rc = fa_penalty_init(&s->penalty, o, env->vocab, err);
    if (!rc) rc = fa_dry_new(&s->dry, o, env, err);
    if (!rc) rc = copy_arrays(s, env, err);
    if (rc) {
        fa_sampler_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void fa_sampler_free(fa_sampler *s) {
    if (!s) return;
    fa_penalty_free(&s->penalty);
    fa_dry_free(s->dry);
    fa_mem_free(&s->mem);
    fa_free(s);
}

/* ---- bans and bias ---- */

/* 32 values, without branches and without a shift by the lane, which few machines have for vectors. */
static void mask_word(float *x, uint32_t bits, const uint32_t *bit) {
    uint32_t u[32];
    memcpy(u, x, sizeof u);
    for (int i = 0; i < 32; i++) {
        uint32_t drop = (bits & bit[i]) ? 0 : UINT32_MAX;
        u[i] = (u[i] & ~drop) | (UINT32_C(0xFF800000) & drop); /* -inf */
    }
    memcpy(x, u, sizeof u);
}

static void apply_mask(float *x, int64_t vocab, const uint32_t *mask) {
    uint32_t bit[32];
    for (int i = 0; i < 32; i++) bit[i] = UINT32_C(1) << i;
    for (int64_t w = 0; w * 32 < vocab; w++) {
        float *at = x + w * 32;
        if (mask[w] == UINT32_MAX) continue;
        if (w * 32 + 32 <= vocab) {
            mask_word(at, mask[w], bit);
            continue;
        }
        for (int64_t i = 0; w * 32 + i < vocab; i++)
            if (!(mask[w] & bit[i])) at[i] = -INFINITY;
    }
}

/* Of a sequence that must not come to be, the last token, when all before it stand at the end of ids. */
static void ban_words(fa_sampler *s, float *x, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < s->opts.n_bad_word; i++) {
        ffai_token_list w = s->opts.bad_words[i];
        size_t head = w.n - 1;
        if (head <= n && (!head || !memcmp(ids + n - head, w.ids, head * sizeof *ids))) x[w.ids[head]] = -INFINITY;
    }
}

/* at: the place of the token, n or behind it */
static void prepare(fa_sampler *s, float *x, const int32_t *ids, int64_t n, int64_t at, const uint32_t *mask) {
    const ffai_sampling *o = &s->opts;
    int64_t n_new = at - s->n_prompt;
    for (size_t i = 0; i < o->n_bias; i++) x[o->bias[i].id] += o->bias[i].bias;
    if (mask) apply_mask(x, s->vocab, mask);
    for (size_t i = 0; n_new == 0 && i < o->n_begin_suppress; i++) x[o->begin_suppress[i]] = -INFINITY;
    for (int i = 0; (n_new < o->min_new || at < o->min_length) && i < s->n_eos; i++)
        if (s->eos[i] >= 0 && s->eos[i] < s->vocab) x[s->eos[i]] = -INFINITY;
    ban_words(s, x, ids, (size_t)n);
    if (o->no_repeat_ngram > 0) fa_ban_ngrams(x, s->vocab, ids, n, o->no_repeat_ngram, s->z);
}

/* ---- the chain ---- */

/* Random numbers of a token depend on the seed and the token's place in the sequence only: a text continued from any of
 * its own tokens goes on as it would have. */
static double draw_at(uint64_t seed, uint64_t stream, int64_t place) {
    uint64_t own = fa_rng_at(seed, stream);
    return (double)(fa_rng_at(own, (uint64_t)place) >> 11) * 0x1p-53;
}

static void run_temp(const ffai_sampling *o, fa_pick *p) {
    if (o->temp_range > 0)
        fa_temp_dynamic(p, o->temp, o->temp_range, o->temp_exponent);
    else
        fa_temp(p, o->temp);
}

static void run_cut(fa_sampler *s, fa_sampler_kind kind, fa_pick *p, int64_t n) {
    const ffai_sampling *o = &s->opts;
    switch (kind) {
    case FA_SAMPLE_TOP_N_SIGMA:
        if (o->top_n_sigma > 0) fa_cut_top_n_sigma(p, o->top_n_sigma);
        break;
    case FA_SAMPLE_TOP_H:
        if (o->top_h > 0 && o->top_h < 1) fa_cut_top_h(p, o->top_h);
        break;
    case FA_SAMPLE_TOP_K:
        if (o->top_k > 0) fa_cut_top_k(p, o->top_k);
        break;
    case FA_SAMPLE_TOP_P:
        if (o->top_p > 0 && o->top_p < 1) fa_cut_top_p(p, o->top_p);
        break;
    case FA_SAMPLE_MIN_P:
        if (o->min_p > 0) fa_cut_min_p(p, o->min_p);
        break;
    case FA_SAMPLE_TYPICAL:
        if (o->typical > 0 && o->typical < 1) fa_cut_typical(p, o->typical);
        break;
    case FA_SAMPLE_EPSILON:
        if (o->epsilon_cutoff > 0) fa_cut_prob(p, (double)o->epsilon_cutoff);
        break;
    case FA_SAMPLE_ETA:
        if (o->eta_cutoff > 0) fa_cut_eta(p, o->eta_cutoff);
        break;
    case FA_SAMPLE_XTC:
        if (o->xtc_prob > 0 && o->xtc_threshold <= 0.5f && draw_at(o->seed, 1, n) < (double)o->xtc_prob)
            fa_cut_xtc(p, o->xtc_threshold);
        break;
    case FA_SAMPLE_PENALTIES:
    case FA_SAMPLE_DRY:
    case FA_SAMPLE_TEMP:
    case FA_SAMPLE_KINDS: break;
    }
}

/* Greedy decoding sees the reshaping by history only; mirostat replaces the cuts. */
static int run_chain(fa_sampler *s, fa_pick *p, const int32_t *ids, int64_t n) {
    const bool greedy = !(s->opts.temp > 0), cuts = !greedy && !(s->opts.mirostat_tau > 0);
    int rc = 0;
    for (int i = 0; !rc && i < s->n_order; i++) {
        fa_sampler_kind kind = (fa_sampler_kind)s->order[i];
        if (kind == FA_SAMPLE_PENALTIES)
            fa_penalty_apply(&s->penalty, p, ids, n);
        else if (kind == FA_SAMPLE_DRY)
            rc = fa_dry_apply(s->dry, p, ids, n, s->z);
        else if (kind == FA_SAMPLE_TEMP && !greedy)
            run_temp(&s->opts, p);
        else if (cuts)
            run_cut(s, kind, p, n);
    }
    return rc;
}

int32_t fa_sampler_pick(fa_sampler *s, float *logits, const int32_t *ids, size_t n_ids, const uint32_t *mask,
                        void *work) {
    fa_pick *p = &s->last;
    int64_t n = (int64_t)n_ids;
    if (n > s->max_ids) ids += n - s->max_ids, n = s->max_ids;
    fa_pick_begin(p, &s->k, logits, s->vocab, work);
    prepare(s, logits, ids, n, n, mask);
    if (run_chain(s, p, ids, n)) return FA_PICK_NOMEM;
    float prob, max = fa_pick_max(p);
    if (!(max > -INFINITY)) return FA_PICK_NONE;
    if (!(s->opts.temp > 0) || max == INFINITY) fa_pick_only(p, fa_pick_argmax(p));
    double u = draw_at(s->opts.seed, 0, n);
    if (s->opts.mirostat_tau > 0 && s->opts.temp > 0) return fa_mirostat_draw(&s->mirostat, p, u);
    return fa_pick_draw(p, u, &prob);
}

int32_t fa_sampler_candidate(fa_sampler *s, float *logits, const int32_t *ids, size_t n_ids, int ahead, int turn,
                             float *prob, void *work) {
    fa_pick *p = &s->last;
    int64_t n = (int64_t)n_ids;
    fa_pick_begin(p, &s->k, logits, s->vocab, work);
    prepare(s, logits, ids, n, n + ahead, NULL);
    if (run_chain(s, p, ids, n)) return FA_PICK_NOMEM;
    float max = fa_pick_max(p);
    if (!(max > -INFINITY)) return FA_PICK_NONE;
    if (!(s->opts.temp > 0) || max == INFINITY) {
        *prob = max == INFINITY ? 1 : (float)exp((double)max - fa_pick_lse(p));
        return fa_pick_argmax(p);
    }
    return fa_pick_draw(p, draw_at(s->opts.seed, 2 + (uint64_t)turn, n + ahead), prob);
}

const char *fa_sampler_order_bound(const fa_sampler *s) {
    const ffai_sampling *o = &s->opts;
    for (size_t i = 0; i < o->n_bad_word; i++)
        if (o->bad_words[i].n > 1) return "bad words of several tokens";
    return s->dry                   ? "DRY"
           : o->no_repeat_ngram > 0 ? "a ban of repeated n-grams"
           : o->mirostat_tau > 0    ? "mirostat"
                                    : NULL;
}

void fa_sampler_reseed(fa_sampler *s, uint64_t seed) {
    s->opts.seed = seed;
    s->mirostat.mu = 2 * s->mirostat.tau;
}

size_t fa_sampler_last(const fa_sampler *s, const int32_t **ids, const float **prob) {
    fa_pick *p = (fa_pick *)(uintptr_t)&s->last;
    fa_pick_softmax(p);
    for (int64_t i = 0; i < p->n; i++) p->p[i] = (float)((double)p->p[i] / p->z);
    *ids = p->id;
    *prob = p->p;
    return (size_t)p->n;
}

float *fa_sampler_raw(void *work, int64_t vocab) { return (float *)work + 7 * vocab; }

bool fa_sampler_forbids(const fa_sampler *s) {
    const ffai_sampling *o = &s->opts;
    bool bias = false;
    for (size_t i = 0; i < o->n_bias; i++) bias |= o->bias[i].bias == -INFINITY;
    return bias || o->n_begin_suppress || o->min_new > 0 || o->min_length > 0 || o->n_bad_word ||
           o->no_repeat_ngram > 0;
}

/* ---- on a device ---- */

static bool in_order(const fa_sampler *s, fa_sampler_kind kind) {
    for (int i = 0; i < s->n_order; i++)
        if (s->order[i] == (uint8_t)kind) return true;
    return false;
}

/* Nothing but what a device does: docs/cuda.md lists it. Of a greedy sampler only what changes logits counts. */
static bool device_can(const fa_sampler *s) {
    const ffai_sampling *o = &s->opts;
    if (s->dry || o->no_repeat_ngram > 0 || o->n_bad_word || o->n_begin_suppress || o->min_new > 0 || o->min_length > 0)
        return false;
    if (!(o->temp > 0)) return true;
    for (int i = 1; i < s->n_order; i++)
        if (s->order[i] < s->order[i - 1]) return false;
    return !(o->mirostat_tau > 0 || o->temp_range > 0 || (o->top_h > 0 && o->top_h < 1) ||
             (o->typical > 0 && o->typical < 1) || o->epsilon_cutoff > 0 || o->eta_cutoff > 0 ||
             (o->xtc_prob > 0 && o->xtc_threshold <= 0.5f));
}

bool fa_sampler_device(const fa_sampler *s, int64_t n, fa_pick_opts *p) {
    const ffai_sampling *o = &s->opts;
    if (!device_can(s)) return false;
    if (!p) return true;
    *p = (fa_pick_opts){.n_history = (int32_t)n, .repeat = 1, .seed = o->seed};
    if (o->temp > 0) {
        p->temp = in_order(s, FA_SAMPLE_TEMP) ? o->temp : 1;
        if (in_order(s, FA_SAMPLE_TOP_N_SIGMA)) p->top_n_sigma = o->top_n_sigma;
        if (in_order(s, FA_SAMPLE_TOP_K)) p->top_k = o->top_k;
        if (in_order(s, FA_SAMPLE_TOP_P)) p->top_p = o->top_p;
        if (in_order(s, FA_SAMPLE_MIN_P)) p->min_p = o->min_p;
    }
    if (s->penalty.count && in_order(s, FA_SAMPLE_PENALTIES)) {
        p->repeat = s->penalty.repeat;
        p->presence = s->penalty.presence;
        p->frequency = s->penalty.frequency;
        p->repeat_from = s->penalty.last > 0 && n > s->penalty.last ? (int32_t)(n - s->penalty.last) : 0;
    }
    p->bias_id = s->bias_id;
    p->bias = s->bias;
    p->n_bias = s->n_merged;
    return true;
}

/* ---- log-probabilities ---- */

void fa_sampler_logprobs(fa_sampler *s, const float *logits, int n_top, ffai_logprob *top, double *lse, void *work) {
    fa_pick p;
    fa_pick_begin(&p, &s->k, (float *)(uintptr_t)logits, s->vocab, work); /* a cut does not write to the row */
    double all = fa_pick_lse(&p);
    *lse = all;
    if (n_top > 0) fa_cut_top_k(&p, n_top);
    if (n_top > 0) fa_pick_list(&p);
    int64_t n = n_top > 0 ? p.n : 0;
    for (int64_t i = 0; i < n; i++) { /* by insertion: n is small */
        int64_t j = i;
        for (; j > 0 && p.l[i] > p.l[j - 1]; j--) {
        }
        float l = p.l[i];
        int32_t id = p.id[i];
        memmove(&p.l[j + 1], &p.l[j], (size_t)(i - j) * sizeof *p.l);
        memmove(&p.id[j + 1], &p.id[j], (size_t)(i - j) * sizeof *p.id);
        p.l[j] = l;
        p.id[j] = id;
    }
    for (int64_t i = 0; i < n_top; i++)
        top[i] = i < n ? (ffai_logprob){p.id[i], (float)((double)p.l[i] - all)} : (ffai_logprob){-1, -INFINITY};
}
