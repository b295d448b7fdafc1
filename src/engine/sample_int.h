/* Inside the sampler: the candidates of one pick, and what each file offers.
 *
 * Candidates are either dense (every token of the row whose logit is above minus infinity; a temperature waits to be
 * applied) or a list in rising id order. Samplers that keep little turn the row into a list of what they keep, without
 * ever listing the whole vocabulary: block maxima, made in one pass, tell which blocks of the row can hold something.
 * A cut never sorts: it finds the last candidate to keep by weighted selection, then filters the list in its order. So
 * the draw, which walks the list, depends on nothing but values and ids. */
#ifndef FA_ENGINE_SAMPLE_INT_H
#define FA_ENGINE_SAMPLE_INT_H

#include "backend/cpu/kern.h"
#include "engine/sampler.h"
#include "io/gguf.h"

#include <math.h>

enum {
    FA_BLOCK = 64, /* of fa_kernels.block_max */
    FA_RUNS = 64   /* at most, of a draw */
};

/* An element of a selection: greater keys first, equal ones by id. */
typedef struct fa_rank {
    float key, w;
    int32_t id;
} fa_rank;

static inline bool fa_before(float key_a, int32_t a, float key_b, int32_t b) {
    return key_a > key_b || (key_a == key_b && a < b);
}

typedef struct fa_pick {
    const fa_kernels *k;
    int64_t vocab;
    bool dense;
    float *x;   /* [vocab] the row; NaN and -inf are no candidates */
    float temp; /* dense: what the logits are yet to be divided by */
    bool have_top;
    float *top; /* [(vocab + 63) / 64] block maxima of x, valid when have_top */
    float max;  /* greatest of x, valid when have_top; -inf: nothing is left */
    /* what runs of run_len logits weigh, as e^((x - run_base) / temp); of the dense row when run_temp is temp */
    double run[FA_RUNS];
    int n_run;
    int64_t run_len;
    float run_base, run_temp;
    /* the list; logits are divided by the temperature */
    int64_t n;
    float *l;
    int32_t *id;
    float *p;   /* e^(l - greatest) after fa_pick_softmax */
    double z;   /* their sum */
    float *key; /* [vocab] for selections by something else than l; where the block maxima are, which lists need not */
    fa_rank *rank; /* [vocab] for selections */
    float *raw;    /* [vocab] a copy of the row, for its owner */
} fa_pick;

/* ---- candidates (sample_cand.c) ---- */
void fa_pick_begin(fa_pick *p, const fa_kernels *k, float *x, int64_t vocab, void *work);
void fa_pick_tops(fa_pick *p);             /* makes top and max */
void fa_pick_drop(fa_pick *p, int32_t id); /* a token of a dense row, whose block maxima are there; max must follow */
float fa_pick_max(fa_pick *p);             /* the greatest logit, divided by the temperature */
int32_t fa_pick_argmax(fa_pick *p);        /* < 0: none */
void fa_pick_only(fa_pick *p, int32_t id); /* nothing but this one */
/* Keeps logits (divided by the temperature) of at least t; the list if it was dense. */
void fa_pick_above(fa_pick *p, float t);
void fa_pick_list(fa_pick *p); /* makes a list */
/* Makes a list with p and z. An infinite logit leaves nothing but itself. */
void fa_pick_softmax(fa_pick *p);
/* Logarithm of the sum of e^l over all candidates, without making a list. */
double fa_pick_lse(fa_pick *p);
/* Entropy of the distribution in nats, how many candidates there are and fa_pick_lse; makes no list. */
double fa_pick_entropy(fa_pick *p, int64_t *n_live, double *lse);
/* The last element to keep when the best are taken while the weight of those taken is below target. Reorders r. */
fa_rank fa_select(fa_rank *r, int64_t n, double target);
/* The same over key, w (NULL: 1 each) and id (NULL: their places) [n]; n <= vocab. total: about what all weigh. */
fa_rank fa_pick_last(fa_pick *p, const float *key, const float *w, const int32_t *id, int64_t n, double total,
                     double target);
/* Keeps list entries that are `last` or before it; key [n] are their keys. */
void fa_pick_keep(fa_pick *p, const float *key, fa_rank last);
/* The row's own values divided by the temperature, so that samplers after it may change single logits. */
void fa_pick_bake(fa_pick *p);
/* u in [0, 1); sets *weight to the probability of what it returns. */
int32_t fa_pick_draw(fa_pick *p, double u, float *prob);

/* ---- samplers (sample_cut.c, sample_temp.c) ---- */
void fa_cut_top_k(fa_pick *p, int64_t k);
void fa_cut_top_p(fa_pick *p, float top_p);
void fa_cut_min_p(fa_pick *p, float min_p);
void fa_cut_typical(fa_pick *p, float mass);
void fa_cut_top_n_sigma(fa_pick *p, float n_sigma);
void fa_cut_xtc(fa_pick *p, float threshold);
void fa_cut_top_h(fa_pick *p, float top_h);
void fa_cut_prob(fa_pick *p, double prob); /* at least this likely, or the likeliest */
void fa_cut_eta(fa_pick *p, float eta);
void fa_temp(fa_pick *p, float temp);
void fa_temp_dynamic(fa_pick *p, float temp, float range, float exponent);

typedef struct fa_mirostat {
    float tau, eta, mu;
} fa_mirostat;

int32_t fa_mirostat_draw(fa_mirostat *m, fa_pick *p, double u);

/* ---- penalties and bans (sample_penalty.c) ---- */
typedef struct fa_penalty {
    float repeat, presence, frequency;
    int64_t last, from, to; /* the window is ids [from, to) */
    int64_t vocab;
    uint32_t *count; /* [vocab] occurrences in the window, the top bit: stands in seen */
    int32_t *seen;   /* [vocab] */
    int64_t n_seen;
} fa_penalty;

int fa_penalty_init(fa_penalty *q, const ffai_sampling *s, int64_t vocab, fa_error *err);
void fa_penalty_free(fa_penalty *q);
void fa_penalty_apply(fa_penalty *q, fa_pick *p, const int32_t *ids, int64_t n);
/* z[k], 1 <= k < n: how many tokens ending k before the last equal those that end the sequence. Linear. */
void fa_suffix_lengths(const int32_t *ids, int64_t n, int32_t *z);
/* x[next] = -inf for each token that would repeat an n-gram of size g; z [n] is scratch. */
void fa_ban_ngrams(float *x, int64_t vocab, const int32_t *ids, int64_t n, int g, int32_t *z);

/* ---- DRY (sample_dry.c) ---- */
typedef struct fa_dry fa_dry;

int fa_dry_new(fa_dry **out, const ffai_sampling *s, const fa_sampler_env *env, fa_error *err);
void fa_dry_free(fa_dry *d);
int fa_dry_apply(fa_dry *d, fa_pick *p, const int32_t *ids, int64_t n, int32_t *z); /* z [n]; 0 or FFAI_ENOMEM */

/* ---- options (sample_opts.c) ---- */
typedef enum fa_sampler_kind {
    FA_SAMPLE_PENALTIES,
    FA_SAMPLE_DRY,
    FA_SAMPLE_TOP_N_SIGMA,
    FA_SAMPLE_TEMP,
    FA_SAMPLE_TOP_H,
    FA_SAMPLE_TOP_K,
    FA_SAMPLE_TOP_P,
    FA_SAMPLE_MIN_P,
    FA_SAMPLE_TYPICAL,
    FA_SAMPLE_EPSILON,
    FA_SAMPLE_ETA,
    FA_SAMPLE_XTC,
    FA_SAMPLE_KINDS
} fa_sampler_kind;

/* order [FA_SAMPLE_KINDS]; text NULL: the default. */
int fa_sampler_order(const char *text, uint8_t *order, int *n, fa_error *err);
int fa_sampling_check(const ffai_sampling *s, int64_t vocab, fa_error *err);

/* ---- defaults of a GGUF file (sample_gguf.c) ---- */

/* Fills s from general.sampling.*; order: what s->samplers should be, empty for the default; ignored: what is not
 * followed. */
int fa_sampling_from_gguf(const fa_gguf *g, ffai_sampling *s, fa_buf *order, fa_buf *ignored, fa_error *err);

#endif
