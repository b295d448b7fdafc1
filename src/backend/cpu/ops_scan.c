/* Recurrent layers on the CPU: convolutions with a state, the scans of Mamba 1 and 2 and of the gated delta rule as
 * backend/program.h defines them, and the gates that stand behind them. An item is one sequence and some channels or a
 * head, so nothing is shared between threads.
 *
 * Few rows go through the recurrence one by one. More are taken PIECE at a time in matrix form (docs/scans.md): what
 * the piece's rows do to each other is a lower triangular matrix, what came before them is the state at its beginning,
 * and both are products. Rows whose state is kept end a piece. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum {
    CHANNELS = 64, /* of an item */
    PIECE = 32,    /* rows in matrix form at a time */
    FEW = 6        /* rows that are cheaper one by one */
};

static int64_t blocks(int64_t n) { return (n + CHANNELS - 1) / CHANNELS; }

/* One sequence's part of a record: rows [from, to), where its state comes from and goes to. */
typedef struct part {
    int64_t from, to;
    const float *in; /* NULL: zeros */
    float *out;
} part;

static part part_of(const fa_batch *b, int seq, float *states, int64_t stride) {
    int32_t in = b->state_in[seq];
    return (part){b->row_start[seq], b->row_start[seq + 1], in < 0 ? NULL : states + in * stride,
                  states + b->state_out[seq] * stride};
}

/* Rows of n floats, `ld` apart, from one state to another; from NULL: zeros. */
static void copy_cells(float *to, const float *from, int64_t rows, int64_t ld, int64_t n) {
    for (int64_t i = 0; i < rows && to != from; i++) {
        if (from)
            memcpy(to + i * ld, from + i * ld, (size_t)n * sizeof *to);
        else
            memset(to + i * ld, 0, (size_t)n * sizeof *to);
    }
}

/* One past the last row of the piece that begins at row i. */
static int64_t piece_end(const fa_batch *b, const part *p, int64_t i) {
    int64_t end = cpu_min(i + PIECE, p->to);
    for (int64_t j = i; j < end; j++)
        if (b->keep[j] >= 0) return j + 1;
    return end;
}

static const float *at(const fa_view *v, int64_t row) { return v->at + row * v->stride; }

/* ---- convolution ---- */

static int64_t conv_items(const cpu_task *t, int phase) {
    (void)phase;
    return t->b->n_seq * blocks(t->r->p.conv.w->n);
}

/* The state after row `row`: for n channels from c on the inputs of the last kernel - 1 rows, some of which may be
 * those of the state before. tail: [(kernel - 1) * n] scratch, since `to` may be that state. */
static void conv_keep(const part *p, const fa_conv *w, const fa_view *x, int64_t row, int64_t c, int64_t n, float *to,
                      float *tail) {
    const int64_t before = w->kernel - 1;
    for (int64_t j = 0; j < before; j++) {
        int64_t from = row - before + 1 + j;
        const float *src = from >= p->from ? at(x, from) + c
                           : p->in         ? p->in + (before + from - p->from) * w->n + c
                                           : NULL;
        copy_cells(tail + j * n, src, 1, 0, n);
    }
    for (int64_t j = 0; j < before; j++) copy_cells(to + j * w->n + c, tail + j * n, 1, 0, n);
}

static void conv_run(const cpu_task *t, int phase, int64_t item) {
    const fa_conv *w = t->r->p.conv.w;
    const fa_state *st = t->r->p.conv.state;
    const fa_view *x = &t->r->p.conv.x;
    int64_t n_block = blocks(w->n), c = item % n_block * CHANNELS, n = cpu_min(CHANNELS, w->n - c);
    float *states = st->conv + w->state_at;
    part p = part_of(t->b, (int)(item / n_block), states, st->stride);
    float *turned = (float *)t->scratch, *tail = turned + w->kernel * CHANNELS;
    (void)phase;
    if (p.from == p.to) return;
    for (int64_t j = 0; j < n; j++)
        for (int k = 0; k < w->kernel; k++) turned[k * n + j] = w->w[(c + j) * w->kernel + k];
    t->k->conv(&(fa_conv_args){.x = at(x, p.from) + c,
                               .ldx = x->stride,
                               .tail = p.in ? p.in + c : NULL,
                               .ld_tail = w->n,
                               .w = turned,
                               .bias = w->bias ? w->bias + c : NULL,
                               .n = n,
                               .rows = p.to - p.from,
                               .kernel = w->kernel,
                               .silu = w->act == FA_ACT_SILU,
                               .y = fa_f32(t->r->out) + p.from * w->n + c,
                               .ldy = w->n});
    for (int64_t i = p.from; i < p.to; i++)
        if (t->b->keep[i] >= 0) conv_keep(&p, w, x, i, c, n, states + t->b->keep[i] * st->stride, tail);
    conv_keep(&p, w, x, p.to - 1, c, n, p.out, tail);
}

static void conv_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)work;
    *scratch = 2 * CHANNELS * (size_t)r->p.conv.w->kernel * sizeof(float);
}
const cpu_op cpu_conv = {1, conv_items, conv_run, conv_needs};

/* ---- Mamba 1: there is no matrix form, every channel and state has a decay of its own ---- */

static int64_t ssm1_items(const cpu_task *t, int phase) {
    (void)phase;
    return t->b->n_seq * blocks(t->r->p.ssm1.w->dim);
}

static void ssm1_run(const cpu_task *t, int phase, int64_t item) {
    const fa_ssm1 *w = t->r->p.ssm1.w;
    const fa_state *st = t->r->p.ssm1.state;
    const fa_view *x = &t->r->p.ssm1.x, *dt = &t->r->p.ssm1.dt, *b = &t->r->p.ssm1.b, *c = &t->r->p.ssm1.c;
    int64_t n_block = blocks(w->dim), d = item % n_block * CHANNELS, n = cpu_min(CHANNELS, w->dim - d);
    part p = part_of(t->b, (int)(item / n_block), st->scan, st->stride);
    float *h = p.out + d, *delta = (float *)t->scratch; /* [PIECE, n] */
    (void)phase;
    copy_cells(h, p.in ? p.in + d : NULL, w->n_state, w->dim, n);
    for (int64_t i = p.from, end; i < p.to; i = end) {
        end = piece_end(t->b, &p, i);
        for (int64_t j = i; j < end; j++) t->k->softplus(at(dt, j) + d, n, delta + (j - i) * n);
        t->k->ssm1(&(fa_ssm1_args){.x = at(x, i) + d,
                                   .delta = delta,
                                   .b = at(b, i),
                                   .c = at(c, i),
                                   .ldx = x->stride,
                                   .ld_delta = n,
                                   .ldb = b->stride,
                                   .ldc = c->stride,
                                   .a = w->a + d,
                                   .lda = w->dim,
                                   .d = w->d + d,
                                   .h = h,
                                   .ldh = w->dim,
                                   .n = n,
                                   .n_state = w->n_state,
                                   .rows = end - i,
                                   .y = fa_f32(t->r->out) + i * w->dim + d,
                                   .ldy = w->dim});
        int32_t keep = t->b->keep[end - 1];
        if (keep >= 0) copy_cells(st->scan + keep * st->stride + d, h, w->n_state, w->dim, n);
    }
}

static void ssm1_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)r, (void)work;
    *scratch = PIECE * CHANNELS * sizeof(float);
}
const cpu_op cpu_ssm1 = {1, ssm1_items, ssm1_run, ssm1_needs};

/* ---- what the matrix forms share ---- */

/* How rows of a piece decay: fall[i] is the sum of -log decay over rows up to i, which only grows, so that what row j
 * left is exp(fall[j] - fall[i]) of itself at row i, and never more than itself. */
typedef struct decays {
    float fall[PIECE], since[PIECE] /* exp(-fall) */, until[PIECE]; /* exp(fall - fall of the last row) */
} decays;

static void fill_decays(const fa_kernels *k, decays *d, int64_t n) {
    float zero[PIECE];
    for (int64_t i = 0; i < n; i++) zero[i] = -d->fall[i];
    k->exp_sum(zero, n, 0, 1, d->since);
    k->exp_sum(d->fall, n, d->fall[n - 1], 1, d->until);
}

/* Lower triangle m[i, j] *= exp(fall[j] - fall[i]) * by[j] (or, without by, * 1); zeros above the diagonal. */
static void weigh_triangle(const fa_kernels *k, const decays *d, const float *by, int64_t n, float *m) {
    float e[PIECE];
    for (int64_t i = 0; i < n; i++) {
        k->exp_sum(d->fall, i + 1, d->fall[i], 1, e);
        for (int64_t j = 0; j <= i; j++) m[i * PIECE + j] *= by ? e[j] * by[j] : e[j];
        for (int64_t j = i + 1; j < n; j++) m[i * PIECE + j] = 0;
    }
}

static void scale_row(float *y, float by, int64_t n) {
    for (int64_t j = 0; j < n; j++) y[j] *= by;
}

/* ---- Mamba 2 ---- */

static int64_t ssd_items(const cpu_task *t, int phase) {
    (void)phase;
    return (int64_t)t->b->n_seq * t->r->p.ssd.w->n_head;
}

/* One head of a record. */
typedef struct ssd_head {
    const fa_kernels *k;
    const fa_ssd *w;
    const fa_rec *r;
    int64_t head, group;
    float *h; /* [n_state, head_dim] */
} ssd_head;

static const float *ssd_x(const ssd_head *s, int64_t i) { return at(&s->r->p.ssd.x, i) + s->head * s->w->head_dim; }
static const float *ssd_b(const ssd_head *s, int64_t i) { return at(&s->r->p.ssd.b, i) + s->group * s->w->n_state; }
static const float *ssd_c(const ssd_head *s, int64_t i) { return at(&s->r->p.ssd.c, i) + s->group * s->w->n_state; }
static float *ssd_y(const ssd_head *s, int64_t i) {
    return fa_f32(s->r->out) + (i * s->w->n_head + s->head) * s->w->head_dim;
}

static float clamp(float x, float min, float max) { return x < min ? min : x > max ? max : x; }

static void ssd_delta(const ssd_head *s, int64_t i, int64_t n, float *delta) {
    for (int64_t j = 0; j < n; j++) delta[j] = at(&s->r->p.ssd.dt, i + j)[s->head] + s->w->dt_bias[s->head];
    s->k->softplus(delta, n, delta);
    for (int64_t j = 0; j < n; j++) delta[j] = clamp(delta[j], s->w->dt_min, s->w->dt_max);
}

/* Rows i .. i + n in matrix form. scratch: [PIECE, PIECE + head_dim] */
static void ssd_piece(const ssd_head *s, int64_t i, int64_t n, const float *delta, float *scratch) {
    const fa_ssd *w = s->w;
    const int64_t P = w->head_dim, N = w->n_state, ldx = s->r->p.ssd.x.stride, ldb = s->r->p.ssd.b.stride,
                  ldc = s->r->p.ssd.c.stride, ldy = w->n_head * P;
    float *m = scratch, *left = m + PIECE * PIECE; /* what rows leave behind: [n, P] */
    decays d;
    for (int64_t j = 0; j < n; j++) d.fall[j] = (j ? d.fall[j - 1] : 0) - delta[j] * w->a[s->head];
    fill_decays(s->k, &d, n);
    s->k->gram(ssd_c(s, i), ldc, ssd_b(s, i), ldb, n, N, m, PIECE);
    weigh_triangle(s->k, &d, delta, n, m);
    s->k->product(ssd_c(s, i), ldc, 1, n, N, s->h, P, P, ssd_y(s, i), ldy, false);
    for (int64_t j = 0; j < n; j++) {
        const float *x = ssd_x(s, i + j);
        float *y = ssd_y(s, i + j), skip = w->d[s->head], by = delta[j] * d.until[j];
        for (int64_t p = 0; p < P; p++) {
            y[p] = y[p] * d.since[j] + skip * x[p];
            left[j * P + p] = x[p] * by;
        }
    }
    s->k->product(m, PIECE, 1, n, n, ssd_x(s, i), ldx, P, ssd_y(s, i), ldy, true);
    scale_row(s->h, d.since[n - 1], N * P);
    s->k->product(ssd_b(s, i), 1, ldb, N, n, left, P, P, s->h, P, true);
}

static void ssd_run(const cpu_task *t, int phase, int64_t item) {
    const fa_ssd *w = t->r->p.ssd.w;
    const fa_state *st = t->r->p.ssd.state;
    int64_t head = item % w->n_head, size = (int64_t)w->head_dim * w->n_state;
    part p = part_of(t->b, (int)(item / w->n_head), st->scan, st->stride);
    ssd_head s = {t->k, w, t->r, head, head / (w->n_head / w->n_group), p.out + head * size};
    float delta[PIECE];
    (void)phase;
    copy_cells(s.h, p.in ? p.in + head * size : NULL, 1, 0, size);
    for (int64_t i = p.from, end; i < p.to; i = end) {
        end = piece_end(t->b, &p, i);
        ssd_delta(&s, i, end - i, delta);
        if (end - i > FEW)
            ssd_piece(&s, i, end - i, delta, (float *)t->scratch);
        else
            for (int64_t j = i; j < end; j++)
                t->k->ssd_row(s.h, w->n_state, w->head_dim, expf(delta[j - i] * w->a[head]), delta[j - i], ssd_b(&s, j),
                              ssd_c(&s, j), ssd_x(&s, j), w->d[head], ssd_y(&s, j));
        int32_t keep = t->b->keep[end - 1];
        if (keep >= 0) copy_cells(st->scan + keep * st->stride + head * size, s.h, 1, 0, size);
    }
}

static void ssd_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)work;
    *scratch = PIECE * (PIECE + (size_t)r->p.ssd.w->head_dim) * sizeof(float);
}
const cpu_op cpu_ssd = {1, ssd_items, ssd_run, ssd_needs};

/* ---- gated delta rule ---- */

static int64_t delta_items(const cpu_task *t, int phase) {
    (void)phase;
    return (int64_t)t->b->n_seq * t->r->p.delta.w->n_v_head;
}

/* One head of a record, and a piece of its rows. */
typedef struct delta_head {
    const fa_kernels *k;
    const fa_delta *w;
    const fa_rec *r;
    int64_t head, k_head;
    float *S;                       /* [k_dim, v_dim] */
    float *q, *key;                 /* [PIECE, k_dim] normalised */
    float *u;                       /* [PIECE, v_dim] */
    float *m, *qk;                  /* [PIECE, PIECE] */
    float beta[PIECE], drop[PIECE]; /* drop: -log decay of a row */
} delta_head;

static const float *delta_v(const delta_head *s, int64_t i) { return at(&s->r->p.delta.v, i) + s->head * s->w->v_dim; }
static float *delta_y(const delta_head *s, int64_t i) {
    return fa_f32(s->r->out) + (i * s->w->n_v_head + s->head) * s->w->v_dim;
}

/* out = x * by * rsqrt(sum of x^2 + eps) */
static void unit(const float *x, int64_t n, float eps, float by, float *out) {
    float sum[4] = {0, 0, 0, 0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) sum[j] += x[i + j] * x[i + j];
    for (; i < n; i++) sum[0] += x[i] * x[i];
    by /= sqrtf(sum[0] + sum[1] + sum[2] + sum[3] + eps);
    for (i = 0; i < n; i++) out[i] = x[i] * by;
}

static void delta_inputs(delta_head *s, int64_t i, int64_t n) {
    const fa_delta *w = s->w;
    const int64_t K = w->k_dim;
    for (int64_t j = 0; j < n; j++) {
        unit(at(&s->r->p.delta.q, i + j) + s->k_head * K, K, w->eps, 1 / sqrtf((float)K), s->q + j * K);
        unit(at(&s->r->p.delta.k, i + j) + s->k_head * K, K, w->eps, 1, s->key + j * K);
        s->beta[j] = w->beta_scale / (1 + expf(-at(&s->r->p.delta.beta, i + j)[s->head]));
        s->drop[j] = at(&s->r->p.delta.a, i + j)[s->head] + w->dt_bias[s->head];
    }
    s->k->softplus(s->drop, n, s->drop);
    for (int64_t j = 0; j < n; j++) s->drop[j] *= -w->decay[s->head];
}

/* Rows i .. i + n in matrix form: u = what each row adds, from (I + m) u = beta (v - decayed k S) by substitution. */
static void delta_piece(delta_head *s, int64_t i, int64_t n) {
    const int64_t K = s->w->k_dim, V = s->w->v_dim, ldy = s->w->n_v_head * V;
    decays d;
    for (int64_t j = 0; j < n; j++) d.fall[j] = (j ? d.fall[j - 1] : 0) + s->drop[j];
    fill_decays(s->k, &d, n);
    s->k->gram(s->key, K, s->key, K, n, K, s->m, PIECE);
    s->k->gram(s->q, K, s->key, K, n, K, s->qk, PIECE);
    weigh_triangle(s->k, &d, NULL, n, s->m);
    weigh_triangle(s->k, &d, NULL, n, s->qk);
    s->k->product(s->key, K, 1, n, K, s->S, V, V, s->u, V, false);
    for (int64_t j = 0; j < n; j++) {
        const float *v = delta_v(s, i + j);
        float *u = s->u + j * V, *m = s->m + j * PIECE;
        for (int64_t p = 0; p < V; p++) u[p] = s->beta[j] * (v[p] - d.since[j] * u[p]);
        for (int64_t l = 0; l < j; l++) m[l] *= -s->beta[j];
        if (j) s->k->product(m, PIECE, 1, 1, j, s->u, V, V, u, V, true);
    }
    s->k->product(s->q, K, 1, n, K, s->S, V, V, delta_y(s, i), ldy, false);
    for (int64_t j = 0; j < n; j++) scale_row(delta_y(s, i + j), d.since[j], V);
    s->k->product(s->qk, PIECE, 1, n, n, s->u, V, V, delta_y(s, i), ldy, true);
    for (int64_t j = 0; j < n; j++) scale_row(s->u + j * V, d.until[j], V);
    scale_row(s->S, d.since[n - 1], K * V);
    s->k->product(s->key, 1, K, K, n, s->u, V, V, s->S, V, true);
}

static void delta_run(const cpu_task *t, int phase, int64_t item) {
    const fa_delta *w = t->r->p.delta.w;
    const fa_state *st = t->r->p.delta.state;
    const int64_t head = item % w->n_v_head, K = w->k_dim, V = w->v_dim, size = K * V;
    part p = part_of(t->b, (int)(item / w->n_v_head), st->scan, st->stride);
    float *at_scratch = (float *)t->scratch;
    delta_head s = {t->k,
                    w,
                    t->r,
                    head,
                    w->tiled ? head % w->n_k_head : head / (w->n_v_head / w->n_k_head),
                    p.out + head * size,
                    NULL,
                    NULL,
                    NULL,
                    NULL,
                    NULL,
                    {0},
                    {0}};
    (void)phase;
    s.q = at_scratch, s.key = s.q + PIECE * K, s.u = s.key + PIECE * K;
    s.m = s.u + PIECE * V, s.qk = s.m + PIECE * PIECE;
    copy_cells(s.S, p.in ? p.in + head * size : NULL, 1, 0, size);
    for (int64_t i = p.from, end; i < p.to; i = end) {
        end = piece_end(t->b, &p, i);
        delta_inputs(&s, i, end - i);
        if (end - i > FEW)
            delta_piece(&s, i, end - i);
        else
            for (int64_t j = i; j < end; j++)
                t->k->delta_row(s.S, K, V, expf(-s.drop[j - i]), s.beta[j - i], s.q + (j - i) * K, s.key + (j - i) * K,
                                delta_v(&s, j), s.u, delta_y(&s, j));
        int32_t keep = t->b->keep[end - 1];
        if (keep >= 0) copy_cells(st->scan + keep * st->stride + head * size, s.S, 1, 0, size);
    }
}

static void delta_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    const fa_delta *w = r->p.delta.w;
    (void)cpu, (void)work;
    *scratch = PIECE * (2 * (size_t)w->k_dim + (size_t)w->v_dim + 2 * PIECE) * sizeof(float);
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
