/* How a checkpoint turns hidden states into one embedding: pooling, then dense layers and normalisation, as its
 * sentence-transformers modules say. */
#ifndef FA_ENGINE_POOLING_H
#define FA_ENGINE_POOLING_H

#include "base/mem.h"
#include "io/ckpt.h"

typedef enum fa_pool_kind {
    FA_POOL_MEAN,
    FA_POOL_LAST,
    FA_POOL_CLS,
    FA_POOL_MAX,
    FA_POOL_MEAN_SQRT, /* sum / sqrt(n) */
    FA_POOL_WEIGHTED,  /* token i counts i + 1 times */
    FA_POOL_KINDS
} fa_pool_kind;

enum { FA_POOL_STEPS = 8 };

/* Activations of dense layers. */
typedef enum fa_pool_act {
    FA_POOL_IDENTITY,
    FA_POOL_TANH,
    FA_POOL_RELU,
    FA_POOL_GELU,
    FA_POOL_SIGMOID,
    FA_POOL_SILU
} fa_pool_act;

/* What happens to the pooled vector. */
typedef struct fa_pool_step {
    bool normalize;        /* to length 1; else y = act(w x + bias) */
    const float *w, *bias; /* [out, in], [out] or NULL */
    int64_t in, out;
    fa_pool_act act;
} fa_pool_step;

typedef struct fa_pooling {
    int n_kind; /* several are put one behind the other */
    fa_pool_kind kind[FA_POOL_KINDS];
    int n_step;
    fa_pool_step step[FA_POOL_STEPS];
    int64_t hidden, dim; /* of hidden states; of the embedding */
    fa_mem mem;
} fa_pooling;

/* From modules.json of a folder, pooling_type of a GGUF file; mean when there is neither. dim: of the hidden states. */
int fa_pooling_load(fa_pooling **out, const fa_ckpt *ckpt, int64_t dim, fa_error *err);
void fa_pooling_free(fa_pooling *p);
/* By its public name; false: there is none such. */
bool fa_pool_kind_find(const char *name, fa_pool_kind *kind);
/* Applies the steps to x, a pooled vector of n values, using work; both have room for fa_pooling_width values.
 * normalize: as ffai_embed_opts has it. */
void fa_pooling_finish(const fa_pooling *p, int normalize, float *x, int64_t n, float *work);
/* Of the widest vector on the way. */
int64_t fa_pooling_width(const fa_pooling *p);

#endif
