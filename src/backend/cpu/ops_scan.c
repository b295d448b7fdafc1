/* Recurrent layers on the CPU: convolutions with a state, the scans of Mamba 1 and 2 and of the gated delta rule, row
 * by row as backend/program.h defines them, and the gates that stand behind them. An item is one sequence and some
 * channels or a head, so nothing is shared between threads. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum { CHANNELS = 64 /* of an item */ };

static int64_t blocks(int64_t n) { return (n + CHANNELS - 1) / CHANNELS; }

static float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }
static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/* One sequence's part of a record: rows [from, to), where its state comes from and goes to. */
typedef struct part {
    int64_t from, to;
    const float *in; /* NULL: zeros */
    float *out;
} part;

static part part_of(const fa_batch *b, int seq, const float *states, int64_t stride) {
    int32_t in = b->state_in[seq];
    return (part){b->row_start[seq], b->row_start[seq + 1], in < 0 ? NULL : states + in * stride,
                  (float *)(uintptr_t)states + b->state_out[seq] * stride};
}

/* Rows of n floats, `ld` apart, from one state to another. */
static void copy_cells(float *to, const float *from, int64_t rows, int64_t ld, int64_t n) {
    for (int64_t i = 0; i < rows && to != from; i++) {
        if (from)
            memcpy(to + i * ld, from + i * ld, (size_t)n * sizeof *to);
        else
            memset(to + i * ld, 0, (size_t)n * sizeof *to);
    }
}

/* ---- convolution ---- */

static int64_t conv_items(const cpu_task *t, int phase) {
    (void)phase;
    return t->b->n_seq * blocks(t->r->p.conv.w->n);
}

/* Input j rows before the sequence's first new one, of channel c: j in [1, kernel). */
static float before(const part *p, const fa_conv *w, int64_t j, int64_t c) {
    return p->in ? p->in[(w->kernel - 1 - j) * w->n + c] : 0;
}

static float conv_input(const part *p, const fa_conv *w, const fa_view *x, int64_t row, int64_t c) {
    return row < p->from ? before(p, w, p->from - row, c) : x->at[row * x->stride + c];
}

/* The state after row `row`; tail: scratch for one channel. */
static void conv_keep(const part *p, const fa_conv *w, const fa_view *x, int64_t row, int64_t c, float *to,
                      float *tail) {
    for (int j = 0; j < w->kernel - 1; j++) tail[j] = conv_input(p, w, x, row - w->kernel + 2 + j, c);
    for (int j = 0; j < w->kernel - 1; j++) to[j * w->n + c] = tail[j];
}

static void conv_run(const cpu_task *t, int phase, int64_t item) {
    const fa_conv *w = t->r->p.conv.w;
    const fa_state *st = t->r->p.conv.state;
    const fa_view *x = &t->r->p.conv.x;
    int64_t n_block = blocks(w->n), c0 = item % n_block * CHANNELS, c1 = cpu_min(c0 + CHANNELS, w->n);
    float *states = st->conv + w->state_at;
    part p = part_of(t->b, (int)(item / n_block), states, st->stride);
    float *tail = (float *)t->scratch;
    (void)phase;
    for (int64_t i = p.from; i < p.to; i++) {
        float *y = fa_f32(t->r->out) + i * w->n;
        for (int64_t c = c0; c < c1; c++) {
            float sum = w->bias ? w->bias[c] : 0;
            for (int j = 0; j < w->kernel; j++)
                sum += w->w[c * w->kernel + j] * conv_input(&p, w, x, i - w->kernel + 1 + j, c);
            y[c] = w->act == FA_ACT_SILU ? sum * sigmoid(sum) : sum;
        }
        for (int64_t c = c0; t->b->keep[i] >= 0 && c < c1; c++)
            conv_keep(&p, w, x, i, c, states + t->b->keep[i] * st->stride, tail);
    }
    for (int64_t c = c0; p.to > p.from && c < c1; c++) conv_keep(&p, w, x, p.to - 1, c, p.out, tail);
}

static void conv_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)work;
    *scratch = (size_t)r->p.conv.w->kernel * sizeof(float);
}
const cpu_op cpu_conv = {1, conv_items, conv_run, conv_needs};

/* ---- Mamba 1 ---- */

static int64_t ssm1_items(const cpu_task *t, int phase) {
    (void)phase;
    return t->b->n_seq * blocks(t->r->p.ssm1.w->dim);
}

static void ssm1_run(const cpu_task *t, int phase, int64_t item) {
    const fa_ssm1 *w = t->r->p.ssm1.w;
    const fa_state *st = t->r->p.ssm1.state;
    const fa_view *x = &t->r->p.ssm1.x, *dt = &t->r->p.ssm1.dt, *bv = &t->r->p.ssm1.b, *cv = &t->r->p.ssm1.c;
    int64_t n_block = blocks(w->dim), d0 = item % n_block * CHANNELS, n = cpu_min(CHANNELS, w->dim - d0);
    part p = part_of(t->b, (int)(item / n_block), st->scan, st->stride);
    float *h = p.out + d0; /* [n_state] rows of n, dim apart */
    (void)phase;
    copy_cells(h, p.in ? p.in + d0 : NULL, w->n_state, w->dim, n);
    for (int64_t i = p.from; i < p.to; i++) {
        const float *b = bv->at + i * bv->stride, *c = cv->at + i * cv->stride;
        for (int64_t d = 0; d < n; d++) {
            float v = x->at[i * x->stride + d0 + d], delta = softplus(dt->at[i * dt->stride + d0 + d]), y = 0;
            for (int64_t s = 0; s < w->n_state; s++) {
                float *cell = h + s * w->dim + d;
                *cell = expf(delta * w->a[s * w->dim + d0 + d]) * *cell + delta * b[s] * v;
                y += c[s] * *cell;
            }
            fa_f32(t->r->out)[i * w->dim + d0 + d] = y + w->d[d0 + d] * v;
        }
        if (t->b->keep[i] >= 0) copy_cells(st->scan + t->b->keep[i] * st->stride + d0, h, w->n_state, w->dim, n);
    }
}
const cpu_op cpu_ssm1 = {1, ssm1_items, ssm1_run, NULL};

/* ---- Mamba 2 ---- */

static int64_t ssd_items(const cpu_task *t, int phase) {
    (void)phase;
    return (int64_t)t->b->n_seq * t->r->p.ssd.w->n_head;
}

static float clamp(float x, float min, float max) { return x < min ? min : x > max ? max : x; }

static void ssd_run(const cpu_task *t, int phase, int64_t item) {
    const fa_ssd *w = t->r->p.ssd.w;
    const fa_state *st = t->r->p.ssd.state;
    const fa_view *xv = &t->r->p.ssd.x, *dtv = &t->r->p.ssd.dt, *bv = &t->r->p.ssd.b, *cv = &t->r->p.ssd.c;
    int64_t head = item % w->n_head, P = w->head_dim, N = w->n_state, size = P * N;
    int64_t g = head / (w->n_head / w->n_group);
    part p = part_of(t->b, (int)(item / w->n_head), st->scan, st->stride);
    float *h = p.out + head * size;
    (void)phase;
    copy_cells(h, p.in ? p.in + head * size : NULL, 1, 0, size);
    for (int64_t i = p.from; i < p.to; i++) {
        const float *x = xv->at + i * xv->stride + head * P, *b = bv->at + i * bv->stride + g * N,
                    *c = cv->at + i * cv->stride + g * N;
        float *y = fa_f32(t->r->out) + i * w->n_head * P + head * P;
        float delta = clamp(softplus(dtv->at[i * dtv->stride + head] + w->dt_bias[head]), w->dt_min, w->dt_max);
        float decay = expf(delta * w->a[head]);
        for (int64_t j = 0; j < P; j++) y[j] = w->d[head] * x[j];
        for (int64_t s = 0; s < N; s++) {
            float by = delta * b[s];
            for (int64_t j = 0; j < P; j++) {
                h[s * P + j] = decay * h[s * P + j] + by * x[j];
                y[j] += c[s] * h[s * P + j];
            }
        }
        if (t->b->keep[i] >= 0) copy_cells(st->scan + t->b->keep[i] * st->stride + head * size, h, 1, 0, size);
    }
}
const cpu_op cpu_ssd = {1, ssd_items, ssd_run, NULL};

/* ---- gated delta rule ---- */

static int64_t delta_items(const cpu_task *t, int phase) {
    (void)phase;
    return (int64_t)t->b->n_seq * t->r->p.delta.w->n_v_head;
}

static float inverse_length(const float *x, int64_t n, float eps) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return 1 / sqrtf(sum + eps);
}

/* One row of one head; u: [V] */
static void delta_row(const fa_delta *w, float *S, const float *q, const float *k, const float *v, float b, float g,
                      float *u, float *y) {
    int64_t K = w->k_dim, V = w->v_dim;
    float by_k = inverse_length(k, K, w->eps), by_q = inverse_length(q, K, w->eps) / sqrtf((float)K);
    memset(u, 0, (size_t)V * sizeof *u);
    memset(y, 0, (size_t)V * sizeof *y);
    for (int64_t s = 0; s < K; s++)
        for (int64_t j = 0; j < V; j++) {
            S[s * V + j] *= g;
            u[j] += S[s * V + j] * k[s] * by_k;
        }
    for (int64_t j = 0; j < V; j++) u[j] = b * (v[j] - u[j]);
    for (int64_t s = 0; s < K; s++)
        for (int64_t j = 0; j < V; j++) {
            S[s * V + j] += k[s] * by_k * u[j];
            y[j] += S[s * V + j] * q[s] * by_q;
        }
}

static void delta_run(const cpu_task *t, int phase, int64_t item) {
    const fa_delta *w = t->r->p.delta.w;
    const fa_state *st = t->r->p.delta.state;
    const fa_view *q = &t->r->p.delta.q, *k = &t->r->p.delta.k, *v = &t->r->p.delta.v, *beta = &t->r->p.delta.beta,
                  *a = &t->r->p.delta.a;
    int64_t head = item % w->n_v_head, K = w->k_dim, V = w->v_dim;
    int64_t kh = w->tiled ? head % w->n_k_head : head / (w->n_v_head / w->n_k_head);
    part p = part_of(t->b, (int)(item / w->n_v_head), st->scan, st->stride);
    float *S = p.out + head * K * V;
    (void)phase;
    copy_cells(S, p.in ? p.in + head * K * V : NULL, 1, 0, K * V);
    for (int64_t i = p.from; i < p.to; i++) {
        float b = w->beta_scale * sigmoid(beta->at[i * beta->stride + head]);
        float g = expf(w->decay[head] * softplus(a->at[i * a->stride + head] + w->dt_bias[head]));
        delta_row(w, S, q->at + i * q->stride + kh * K, k->at + i * k->stride + kh * K,
                  v->at + i * v->stride + head * V, b, g, (float *)t->scratch,
                  fa_f32(t->r->out) + (i * w->n_v_head + head) * V);
        if (t->b->keep[i] >= 0) copy_cells(st->scan + t->b->keep[i] * st->stride + head * K * V, S, 1, 0, K * V);
    }
}

static void delta_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)work;
    *scratch = (size_t)r->p.delta.w->v_dim * sizeof(float);
}
const cpu_op cpu_delta = {1, delta_items, delta_run, delta_needs};

/* ---- gates ---- */

static int64_t row_items(const cpu_task *t, int phase) {
    (void)phase;
    return cpu_row_items(t->r->out.dim[0]);
}

static void gate_row(const cpu_task *t, const fa_gate *w, const float *z, int64_t n, float *y) {
    if (!w->norm_first || !w->group) cpu_glu_row(t->k, w->act, z, y, n, y);
    for (int64_t g = 0; w->group && g < n; g += w->group)
        t->k->rms_norm(y + g, w->shared ? w->w : w->w + g, 0, w->eps, w->group, y + g);
    if (w->norm_first && w->group) cpu_glu_row(t->k, w->act, z, y, n, y);
}

static void gate_run(const cpu_task *t, int phase, int64_t item) {
    const fa_view *z = &t->r->p.gate_norm.z;
    int64_t n = t->r->out.dim[1];
    (void)phase;
    for (int64_t i = item * CPU_ROWS, end = cpu_min(i + CPU_ROWS, t->r->out.dim[0]); i < end; i++)
        gate_row(t, t->r->p.gate_norm.w, z->at + i * z->stride, n, fa_f32(t->r->out) + i * n);
}
const cpu_op cpu_gate_norm = {1, row_items, gate_run, NULL};

static void scale_cols_run(const cpu_task *t, int phase, int64_t item) {
    int64_t n = t->r->out.dim[1];
    (void)phase;
    for (int64_t i = item * CPU_ROWS, end = cpu_min(i + CPU_ROWS, t->r->out.dim[0]); i < end; i++)
        for (int64_t j = 0; j < n; j++) fa_f32(t->r->out)[i * n + j] *= t->r->p.scale_cols[j];
}
const cpu_op cpu_scale_cols = {1, row_items, scale_cols_run, NULL};
