/* Log-probabilities, perplexity and KL divergence; sums are in double. */
#include "cli/divergence.h"

#include <math.h>
#include <stdlib.h>

double div_log_softmax(float *x, int64_t vocab, int32_t token) {
    float top = x[0];
    double sum = 0;
    for (int64_t i = 1; i < vocab; i++) top = x[i] > top ? x[i] : top;
    for (int64_t i = 0; i < vocab; i++) sum += (double)expf(x[i] - top);
    const double norm = (double)top + log(sum), nll = norm - (double)x[token];
    for (int64_t i = 0; i < vocab; i++) x[i] = (float)((double)x[i] - norm);
    return nll;
}

void div_nll_add(nll_sum *s, double nll) {
    s->sum += nll;
    s->squares += nll * nll;
    s->n++;
}

double div_perplexity(const nll_sum *s) { return s->n ? exp(s->sum / (double)s->n) : NAN; }

double div_perplexity_error(const nll_sum *s) {
    if (s->n < 2) return NAN;
    const double n = (double)s->n, mean = s->sum / n, var = (s->squares - n * mean * mean) / (n - 1);
    return exp(mean) * sqrt((var > 0 ? var : 0) / n);
}

bool div_kl_add(kl_values *v, const float *base, const float *other, int64_t vocab, int32_t token) {
    if (v->n == v->cap) {
        const size_t cap = v->cap ? 2 * v->cap : 4096;
        float *grown = (float *)realloc(v->kl, cap * sizeof *grown);
        if (!grown) return false;
        v->kl = grown;
        v->cap = cap;
    }
    double kl = 0;
    int64_t a = 0, b = 0;
    for (int64_t i = 0; i < vocab; i++) {
        if (base[i] > base[a]) a = i;
        if (other[i] > other[b]) b = i;
        if (base[i] > -40.0f) kl += (double)expf(base[i]) * ((double)base[i] - (double)other[i]);
    }
    const double moved = exp((double)other[token]) - exp((double)base[token]);
    v->kl[v->n++] = (float)(kl > 0 ? kl : 0);
    v->same_top += a == b;
    v->moved += moved * moved;
    return true;
}

static int rising(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double at_share(const kl_values *v, double share) {
    return (double)v->kl[(size_t)(share * (double)(v->n - 1) + 0.5)];
}

kl_summary div_kl_summary(kl_values *v) {
    kl_summary s = {0};
    double sum = 0, squares = 0;
    if (!v->n) return s;
    const double n = (double)v->n;
    qsort(v->kl, v->n, sizeof *v->kl, rising);
    for (size_t i = 0; i < v->n; i++) {
        sum += (double)v->kl[i];
        squares += (double)v->kl[i] * (double)v->kl[i];
    }
    const double var = v->n > 1 ? (squares - sum * sum / n) / (n - 1) : 0;
    s.mean = sum / n;
    s.error = sqrt((var > 0 ? var : 0) / n);
    s.median = at_share(v, 0.5);
    s.p90 = at_share(v, 0.9);
    s.p95 = at_share(v, 0.95);
    s.p99 = at_share(v, 0.99);
    s.p999 = at_share(v, 0.999);
    s.max = (double)v->kl[v->n - 1];
    s.same_top = (double)v->same_top / n;
    s.rms_moved = sqrt(v->moved / n);
    return s;
}
