/* The choice of experts on the CPU, row by row. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* A NaN among the logits makes every share NaN. */
static void softmax(const fa_kernels *k, float *s, int n) {
    bool nan = false;
    for (int i = 0; i < n; i++) nan |= s[i] != s[i];
    float min, max;
    k->range(s, n, &min, &max);
    float by = nan ? NAN : (float)(1 / k->exp_sum(s, n, max, 1, s));
    for (int i = 0; i < n; i++) s[i] *= by;
}

/* s[i]: what the weights are made of; c[i]: what is chosen by. */
static void scores(const fa_kernels *k, const fa_route *o, const float *logits, float *s, float *c) {
    int n = o->n_expert;
    memcpy(s, logits, (size_t)n * sizeof *s);
    if (o->score == FA_SCORE_SIGMOID)
        for (int i = 0; i < n; i++) s[i] = 1 / (1 + expf(-s[i]));
    if (o->score == FA_SCORE_SOFTMAX) softmax(k, s, n);
    memcpy(c, s, (size_t)n * sizeof *c);
    for (int i = 0; o->bias && i < n; i++) c[i] += o->bias[i];
}

/* Experts outside of the best groups are not chosen. */
static void limit_groups(const fa_route *o, float *c) {
    int per = o->n_expert / o->n_group;
    uint64_t taken[16] = {0}; /* 1,024 groups */
    if (o->n_group == 1) return;
    for (int k = 0; k < o->n_group_used; k++) {
        int best = -1;
        float best_sum = 0;
        for (int g = 0; g < o->n_group; g++) {
            if (taken[g / 64 % 16] >> g % 64 & 1) continue;
            float a = -INFINITY, b = -INFINITY; /* the two largest */
            for (int i = g * per; i < (g + 1) * per; i++) {
                if (c[i] > a)
                    b = a, a = c[i];
                else if (c[i] > b)
                    b = c[i];
            }
            float sum = per > 1 ? a + b : a;
            if (best < 0 || sum > best_sum) best = g, best_sum = sum;
        }
        taken[best / 64 % 16] |= (uint64_t)1 << best % 64;
    }
    for (int g = 0; g < o->n_group; g++)
        for (int i = g * per; !(taken[g / 64 % 16] >> g % 64 & 1) && i < (g + 1) * per; i++) c[i] = -INFINITY;
}

/* NaN comes after everything else, but is chosen when nothing else is left: a row's experts are always different. */
static inline bool before(float a, float b) { return a > b || (b != b && a == a); }

/* The n_used best by falling c, in one pass: few experts get past the last of those found so far. key: [n_used] */
static void choose(const fa_route *o, const float *c, int32_t *expert, float *key) {
    int n = 0;
    for (int i = 0; i < o->n_expert; i++) {
        if (n == o->n_used && !before(c[i], key[n - 1])) continue;
        int j = n < o->n_used ? n++ : n - 1;
        for (; j > 0 && before(c[i], key[j - 1]); j--) key[j] = key[j - 1], expert[j] = expert[j - 1];
        key[j] = c[i];
        expert[j] = i;
    }
}

static void weigh(const fa_route *o, const float *s, const int32_t *expert, float *weight) {
    float sum = 0;
    for (int k = 0; k < o->n_used; k++) {
        weight[k] = o->score == FA_SCORE_TOP_SOFTMAX ? expf(s[expert[k]] - s[expert[0]]) : s[expert[k]];
        sum += weight[k];
    }
    float by = o->score == FA_SCORE_TOP_SOFTMAX ? sum : o->normalise ? sum + o->norm_eps : 1;
    for (int k = 0; k < o->n_used; k++)
        weight[k] = weight[k] / by * o->scale * (o->expert_scale ? o->expert_scale[expert[k]] : 1);
}

static int64_t route_items(const cpu_task *t, int phase) {
    (void)phase;
    return cpu_row_items(t->r->out.dim[0]);
}
static void route_run(const cpu_task *t, int phase, int64_t item) {
    const fa_route *o = t->r->p.route;
    float *s = (float *)t->scratch, *c = s + o->n_expert, *key = c + o->n_expert;
    (void)phase;
    for (int64_t i = item * CPU_ROWS, end = cpu_min(i + CPU_ROWS, t->r->out.dim[0]); i < end; i++) {
        float *weight = fa_f32(t->r->out) + i * 2 * o->n_used;
        int32_t *expert = (int32_t *)(void *)(weight + o->n_used);
        scores(t->k, o, fa_f32(t->r->in[0]) + i * o->n_expert, s, c);
        limit_groups(o, c);
        choose(o, c, expert, key);
        weigh(o, s, expert, weight);
    }
}
static void route_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)work;
    size_t n = (size_t)r->p.route->n_expert;
    *scratch = (2 * n + (size_t)r->p.route->n_used) * sizeof(float);
}
const cpu_op cpu_route = {1, route_items, route_run, route_needs};
