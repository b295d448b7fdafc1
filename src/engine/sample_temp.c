/* Temperature, fixed and by entropy, and mirostat 2. */
#include "engine/sample_int.h"

/* The limit of ever smaller temperatures is the likeliest alone; so is what overflows. */
void fa_temp(fa_pick *p, float temp) {
    if (temp == 1) return;
    float max = fa_pick_max(p);
    if (!(max > -INFINITY)) return;
    if (!(temp > 0) || !isfinite(max / temp) || !isfinite(1 / (p->temp * temp))) {
        fa_pick_only(p, fa_pick_argmax(p));
    } else if (p->dense) {
        p->temp *= temp;
    } else {
        for (int64_t i = 0; i < p->n; i++) p->l[i] /= temp;
    }
}

/* https://arxiv.org/abs/2309.02772: the entropy as a share of the greatest possible moves the temperature between
 * temp - range and temp + range. */
void fa_temp_dynamic(fa_pick *p, float temp, float range, float exponent) {
    int64_t n;
    double lse, h = fa_pick_entropy(p, &n, &lse);
    if (n < 2) return;
    double lo = fmax(0, (double)temp - (double)range), hi = (double)temp + (double)range;
    double share = fmin(1, fmax(0, h / log((double)n)));
    fa_temp(p, (float)(lo + (hi - lo) * pow(share, (double)exponent)));
}

/* Mirostat 2: candidates of at most mu bits of surprise; after the draw mu follows the error against tau. */
int32_t fa_mirostat_draw(fa_mirostat *m, fa_pick *p, double u) {
    float prob;
    fa_cut_prob(p, exp2(-(double)m->mu));
    int32_t id = fa_pick_draw(p, u, &prob);
    m->mu -= m->eta * (-log2f(prob) - m->tau);
    return id;
}
