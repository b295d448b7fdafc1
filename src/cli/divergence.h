/* Statistics of predictions: how well logits foresee tokens, and how far the distributions of two models lie apart. */
#ifndef FFAI_CLI_DIVERGENCE_H
#define FFAI_CLI_DIVERGENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Negative log-likelihoods, added up. */
typedef struct nll_sum {
    double sum, squares;
    int64_t n;
} nll_sum;

/* -log softmax(logits)[token]; all of log softmax is written over logits. */
double div_log_softmax(float *logits, int64_t vocab, int32_t token);
void div_nll_add(nll_sum *s, double nll);
double div_perplexity(const nll_sum *s);
/* Standard error of the perplexity. */
double div_perplexity_error(const nll_sum *s);

/* One value a token. */
typedef struct kl_values {
    float *kl; /* [n] */
    size_t n, cap;
    int64_t same_top;
    double moved; /* sum of squares of what the right token's probability changed by */
} kl_values;

/* KL(base || other) of two rows of log-probabilities. false: no memory. */
bool div_kl_add(kl_values *v, const float *base, const float *other, int64_t vocab, int32_t token);
typedef struct kl_summary {
    double mean, error, median, p90, p95, p99, p999, max, same_top, rms_moved;
} kl_summary;
kl_summary div_kl_summary(kl_values *v); /* sorts */

#endif
