/* Sampling: from one row of logits to one token, by the samplers and in the order that ffai_sampling names; and the
 * log-probabilities that events report. */
#ifndef FA_ENGINE_SAMPLER_H
#define FA_ENGINE_SAMPLER_H

#include "base/err.h"
#include "text/tok.h"

/* Of one request: options, random numbers, what has been counted and what mirostat has learnt. Nothing here depends on
 * other requests, so a request gives the same tokens alone and in a batch. */
typedef struct fa_sampler fa_sampler;

/* What a sampler must know about its request. */
typedef struct fa_sampler_env {
    int64_t vocab;
    int64_t n_prompt, max_ids; /* tokens of the prompt; most tokens that a pick may ever be given */
    const fa_tok *tok;         /* for DRY's breakers, may be NULL; outlives the sampler */
    const int32_t *eos;        /* [n_eos], copied */
    int n_eos;
    const char *isa; /* kernels to use; NULL: all that the machine has */
} fa_sampler_env;

enum {
    FA_SAMPLER_WORK = 32, /* bytes of work memory per token of the vocabulary; touched only as far as needed */
    FA_PICK_NONE = -1,    /* no token is left: none is allowed and has a logit above minus infinity */
    FA_PICK_NOMEM = -2
};

/* Checks and copies the options (errors name the option and the value). */
int fa_sampler_new(fa_sampler **out, const ffai_sampling *s, const fa_sampler_env *env, fa_error *err);
void fa_sampler_free(fa_sampler *s);
/* Picks a token from logits [vocab], which it changes; < 0: FA_PICK_*. ids [n]: the sequence so far. mask: allowed
 * tokens, bit id % 32 of mask[id / 32]; NULL: all. work: vocab * FA_SAMPLER_WORK bytes, 64-byte aligned. */
int32_t fa_sampler_pick(fa_sampler *s, float *logits, const int32_t *ids, size_t n, const uint32_t *mask, void *work);

/* The same for a token `ahead` positions behind the next one, of which nothing between is known; other random numbers
 * in every turn. *prob: its probability in the distribution that it was drawn from, greedy: in the whole one. */
int32_t fa_sampler_candidate(fa_sampler *s, float *logits, const int32_t *ids, size_t n, int ahead, int turn,
                             float *prob, void *work);
/* An option that looks at the tokens right before the next one, which candidates have not; NULL: there is none. */
const char *fa_sampler_order_bound(const fa_sampler *s);

/* Natural logarithms of softmax(logits): the n_top likeliest to top [n_top], falling, equal ones by id (ids that do not
 * exist for want of usable logits are -1); *lse: what to subtract from a logit to have its logarithm. logits stay. */
void fa_sampler_logprobs(fa_sampler *s, const float *logits, int n_top, ffai_logprob *top, double *lse, void *work);

/* [vocab] of the work memory that a pick leaves alone. */
float *fa_sampler_raw(void *work, int64_t vocab);
/* Whether options of this sampler forbid tokens. */
bool fa_sampler_forbids(const fa_sampler *s);

struct fa_pick_opts; /* backend/backend.h */
/* Can a device pick as this sampler does? Then *o (unless NULL) is set for the token behind a sequence of n, but for
 * slot and mask. */
bool fa_sampler_device(const fa_sampler *s, int64_t n, struct fa_pick_opts *o);

/* Tests: begins anew with another seed. */
void fa_sampler_reseed(fa_sampler *s, uint64_t seed);
/* Tests: the distribution that the last pick drew from. Candidates in rising id order. */
size_t fa_sampler_last(const fa_sampler *s, const int32_t **ids, const float **p);

#endif
