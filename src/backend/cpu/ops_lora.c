/* Adapters on the CPU: low-rank changes of linear layers and embeddings, for the rows whose sequences use them. All in
 * f32 in both precisions: ranks are small. Neighbouring rows with the same scale are multiplied together. */
#include "backend/cpu/cpu.h"

#include <math.h>

enum { FEW = 4, RANKS = 8 /* rows of a per item of few input rows */, ROWS = 32, OUTS = 512 /* rows of b per item */ };

/* The scale of an adapter for row m of the record; 0: the row's sequence does not use it. */
static float scale_of(const cpu_task *t, const fa_lora *l, int64_t m) {
    const fa_batch *b = t->b;
    int64_t row = t->r->p.lora.out_rows ? b->out_row[m] : m;
    return l->scale * b->adapt[(int64_t)b->row_seq[row] * b->n_adapt + l->adapter];
}

/* The next rows in [*m, end) with one scale that is not 0: *m is the first; their number, 0: none. */
static int64_t next_run(const cpu_task *t, const fa_lora *l, int64_t *m, int64_t end, float *scale) {
    while (*m < end && (*scale = scale_of(t, l, *m)) == 0) ++*m;
    int64_t n = *m < end;
    while (*m + n < end && n && scale_of(t, l, *m + n) == *scale) n++;
    return n;
}

/* What result i is to be multiplied by. A row of zeros has no direction: it stays zero. */
static float magnitude(const fa_lora *l, int64_t i, float scale) {
    const float *m = l->mag + i, slope = m[2 * l->n_mag] * scale + m[3 * l->n_mag];
    const float length = sqrtf(m[l->n_mag] + slope * slope);
    return length > 0 ? m[0] / length : 0;
}

/* ---- linear layers: u = scale * (a x), then out += b u + scale * bias, times magnitudes ---- */

static int64_t pieces(int64_t n, int64_t per) { return (n + per - 1) / per; }

static int64_t lora_items(const cpu_task *t, int phase) {
    const fa_loras *l = t->r->p.lora.list;
    int64_t M = t->r->out.dim[0];
    if (phase == 1) return pieces(M, ROWS) * pieces(t->r->out.dim[1], OUTS);
    return l->n * (M > FEW ? pieces(M, ROWS) : pieces(l->max_rank, RANKS));
}

static void down(const cpu_task *t, int64_t item) {
    const fa_loras *list = t->r->p.lora.list;
    const fa_lora *l = &list->item[item % list->n];
    int64_t M = t->r->out.dim[0], K = l->a.cols, m = 0, end = M, r0 = 0, r1 = l->a.rows;
    float scale, *u = (float *)t->r->work + l->u_from;
    item /= list->n;
    if (M > FEW) {
        m = item * ROWS;
        end = cpu_min(m + ROWS, M);
    } else {
        r0 = item * RANKS;
        r1 = cpu_min(r0 + RANKS, r1);
    }
    for (int64_t n; r0 < r1 && (n = next_run(t, l, &m, end, &scale)) > 0; m += n) {
        t->k->linear_f32(t->k, &l->a, r0, r1, fa_f32(t->r->in[0]) + m * K, K, n, u + m * list->rank, list->rank, false,
                         t->scratch);
        for (int64_t i = m; i < m + n; i++)
            for (int64_t r = r0; r < r1; r++) u[i * list->rank + r] *= scale;
    }
}

/* Columns [r0, r1) of n rows, of which the layer's own bias is no part of what is multiplied. */
static void multiply(const cpu_task *t, const fa_lora *l, int64_t r0, int64_t r1, int64_t n, float scale, float *out) {
    const float *bias = t->r->p.lora.bias;
    int64_t N = t->r->out.dim[1];
    for (int64_t r = r0; r < r1; r++) {
        float by = magnitude(l, r, scale), b = bias ? bias[r] : 0;
        for (int64_t j = 0; j < n; j++) out[j * N + r] = (out[j * N + r] - b) * by + b;
    }
}

static void up(const cpu_task *t, int64_t item) {
    const fa_loras *list = t->r->p.lora.list;
    int64_t M = t->r->out.dim[0], N = t->r->out.dim[1], across = pieces(N, OUTS), r0 = item % across * OUTS,
            r1 = cpu_min(r0 + OUTS, N), first = item / across * ROWS, end = cpu_min(first + ROWS, M);
    float scale, *out = fa_f32(t->r->out);
    for (int i = 0; i < list->n; i++) {
        const fa_lora *l = &list->item[i];
        const float *u = (const float *)t->r->work + l->u_from;
        int64_t m = first;
        for (int64_t n; (n = next_run(t, l, &m, end, &scale)) > 0; m += n) {
            t->k->linear_f32(t->k, &l->b, r0, r1, u + m * list->rank, list->rank, n, out + m * N, N, true, t->scratch);
            for (int64_t j = m; l->bias && j < m + n; j++)
                for (int64_t r = r0; r < r1; r++) out[j * N + r] += scale * l->bias[r];
            if (l->mag) multiply(t, l, r0, r1, n, scale, out + m * N);
        }
    }
}

static void lora_run(const cpu_task *t, int phase, int64_t item) {
    if (phase == 0)
        down(t, item);
    else
        up(t, item);
}
static void lora_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    const fa_loras *l = r->p.lora.list;
    int64_t K = r->in[0].dim[1];
    *work = (size_t)(r->out.dim[0] * l->rank) * sizeof(float);
    *scratch = cpu->k.linear_scratch(K > l->max_rank ? K : l->max_rank, r->out.dim[0]);
}
const cpu_op cpu_lora = {2, lora_items, lora_run, lora_needs};

/* ---- embeddings: out[row] += scale * b a[token], times magnitudes ---- */

static int64_t embed_items(const cpu_task *t, int phase) {
    (void)phase;
    return cpu_row_items(t->r->out.dim[0]);
}
static void embed_run(const cpu_task *t, int phase, int64_t item) {
    const fa_loras *list = t->r->p.lora.list;
    int64_t N = t->r->out.dim[1];
    float *u = (float *)t->scratch;
    void *scratch = u + (list->max_rank + 15) / 16 * 16;
    (void)phase;
    for (int64_t m = item * CPU_ROWS, end = cpu_min(m + CPU_ROWS, t->r->out.dim[0]); m < end; m++) {
        if (t->b->embd_row && t->b->embd_row[m] >= 0) continue;
        for (int i = 0; i < list->n; i++) {
            const fa_lora *l = &list->item[i];
            float scale = scale_of(t, l, m), *out = fa_f32(t->r->out) + m * N;
            if (scale == 0) continue;
            fa_dequant_row(&l->a, t->b->tok[m], u, scratch);
            for (int64_t r = 0; r < l->a.cols; r++) u[r] *= scale * t->r->p.lora.embed;
            t->k->linear_f32(t->k, &l->b, 0, N, u, l->a.cols, 1, out, N, true, scratch);
            for (int64_t c = 0; l->mag && c < N; c++) out[c] *= magnitude(l, l->by_token ? t->b->tok[m] : c, scale);
        }
    }
}
static void embed_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    int64_t rank = r->p.lora.list->max_rank;
    (void)work;
    *scratch = (size_t)(rank + 16) * sizeof(float) + cpu->k.linear_scratch(rank, 1) + fa_dequant_scratch(rank);
}
const cpu_op cpu_lora_embed = {1, embed_items, embed_run, embed_needs};
