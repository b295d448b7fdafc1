/* Mixture of experts on the CPU: the choice of experts, and the experts' products, row by row. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* ---- choice ---- */

/* s[i]: what the weights are made of; c[i]: what is chosen by. */
static void scores(const fa_route *o, const float *logits, float *s, float *c) {
    int n = o->n_expert;
    memcpy(s, logits, (size_t)n * sizeof *s);
    if (o->score == FA_SCORE_SIGMOID)
        for (int i = 0; i < n; i++) s[i] = 1 / (1 + expf(-s[i]));
    if (o->score == FA_SCORE_SOFTMAX) {
        float max = s[0], sum = 0;
        for (int i = 1; i < n; i++) max = s[i] > max ? s[i] : max;
        for (int i = 0; i < n; i++) sum += s[i] = expf(s[i] - max);
        for (int i = 0; i < n; i++) s[i] /= sum;
    }
    for (int i = 0; i < n; i++) c[i] = o->bias ? s[i] + o->bias[i] : s[i];
}

/* Experts outside of the best groups count as 0. */
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
        if (!(taken[g / 64 % 16] >> g % 64 & 1)) memset(c + g * per, 0, (size_t)per * sizeof *c);
}

static void choose(const fa_route *o, const float *s, float *c, float *weight, int32_t *expert) {
    float sum = 0;
    for (int k = 0; k < o->n_used; k++) {
        int best = -1;
        for (int i = 0; i < o->n_expert; i++)
            if (!isnan(c[i]) && (best < 0 || c[i] > c[best])) best = i;
        if (best < 0) best = 0;
        c[best] = NAN; /* taken */
        expert[k] = best;
        weight[k] = o->score == FA_SCORE_TOP_SOFTMAX ? expf(s[best] - s[expert[0]]) : s[best];
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
    float *s = (float *)t->scratch, *c = s + o->n_expert;
    (void)phase;
    for (int64_t i = item * CPU_ROWS, end = cpu_min(i + CPU_ROWS, t->r->out.dim[0]); i < end; i++) {
        float *out = fa_f32(t->r->out) + i * 2 * o->n_used;
        scores(o, fa_f32(t->r->in[0]) + i * o->n_expert, s, c);
        limit_groups(o, c);
        choose(o, s, c, out, (int32_t *)(void *)(out + o->n_used));
    }
}
static void route_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)work;
    *scratch = 2 * (size_t)r->p.route->n_expert * sizeof(float);
}
const cpu_op cpu_route = {1, route_items, route_run, route_needs};

/* ---- experts ---- */

static size_t up64(size_t n) { return (n + 63) / 64 * 64; }

static void expert_linear(const cpu_task *t, const fa_experts *e, int32_t i, const float *x, float *y, void *scratch) {
    const fa_weight *w = &e->w[i];
    t->k->linear_f32(t->k, w, 0, w->rows, x, w->cols, 1, y, w->rows, false, scratch);
    if (e->bias) t->k->add(y, e->bias + i * w->rows, w->rows);
}

static void expert_act(const cpu_task *t, const fa_moe *m, float *gate, float *up, int64_t n) {
    for (int64_t i = 0; m->limit > 0 && i < n; i++) {
        float l = m->limit;
        gate[i] = gate[i] > l ? l : gate[i];
        up[i] = (up[i] > l ? l : up[i] < -l ? -l : up[i]) + 1;
    }
    if (m->gate.n)
        cpu_glu_row(t->k, m->act, gate, up, n, up);
    else
        cpu_glu_row(t->k, m->act, up, NULL, n, up);
}

static int64_t moe_items(const cpu_task *t, int phase) {
    (void)phase;
    return t->r->in[0].dim[0];
}
static void moe_run(const cpu_task *t, int phase, int64_t row) {
    const fa_moe *m = t->r->p.moe.moe;
    int64_t dim = t->r->out.dim[1], ff = m->up.w[0].rows, n = t->r->p.moe.n_used, max = dim > ff ? dim : ff;
    const float *x = fa_f32(t->r->in[0]) + row * dim, *weight = fa_f32(t->r->in[1]) + row * 2 * n;
    const int32_t *expert = (const int32_t *)(const void *)(weight + n);
    float *out = fa_f32(t->r->out) + row * dim;
    float *gate = (float *)(void *)((uint8_t *)t->scratch + up64(t->k->linear_scratch(max, 1))), *up = gate + ff,
          *y = up + ff, *sum = y + dim;
    (void)phase;
    memset(sum, 0, (size_t)dim * sizeof *sum);
    for (int64_t k = 0; k < n; k++) {
        if (m->gate.n) expert_linear(t, &m->gate, expert[k], x, gate, t->scratch);
        expert_linear(t, &m->up, expert[k], x, up, t->scratch);
        expert_act(t, m, gate, up, ff);
        expert_linear(t, &m->down, expert[k], up, y, t->scratch);
        for (int64_t i = 0; i < dim; i++) sum[i] += weight[k] * y[i];
    }
    for (int64_t i = 0; i < dim; i++) out[i] = (t->r->p.moe.add ? out[i] : 0) + t->r->p.moe.scale * sum[i];
}
static void moe_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    int64_t dim = r->out.dim[1], ff = r->p.moe.moe->up.w[0].rows;
    (void)work;
    *scratch = up64(cpu->k.linear_scratch(dim > ff ? dim : ff, 1)) + 2 * (size_t)(ff + dim) * sizeof(float);
}
const cpu_op cpu_moe = {1, moe_items, moe_run, moe_needs};
