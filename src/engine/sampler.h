/* Sampling: from one row of logits to one token, by the samplers and in the order that ffai_sampling names. */
#ifndef FA_ENGINE_SAMPLER_H
#define FA_ENGINE_SAMPLER_H

#include "base/err.h"
#include "text/tok.h"

/* Of one request: options, random numbers, what mirostat has learnt. */
typedef struct fa_sampler fa_sampler;

/* Checks the options (errors name the flag and the value). tok: for DRY's breakers, may be NULL. */
int fa_sampler_new(fa_sampler **out, const ffai_sampling *s, int64_t vocab, const fa_tok *tok, fa_error *err);
void fa_sampler_free(fa_sampler *s);
/* Picks a token from logits [vocab], which it changes; -1 when none of them is a number above minus infinity. ids [n]:
 * the sequence so far. mask: allowed tokens, bit id % 32 of mask[id / 32]; NULL: all. work: vocab * 8 bytes. */
int32_t fa_sampler_pick(fa_sampler *s, float *logits, const int32_t *ids, size_t n, const uint32_t *mask, void *work);

#endif
