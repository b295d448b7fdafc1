/* Mixture of experts on the CPU: no loop over rows. The choices (row, rank) are dealt out once, sorted by expert and
 * then row; the place of a choice in that order is its slot. The rows are then copied to their slots in the form that
 * the weights multiply, and each expert is one matrix product over its slots, whatever their number:
 *
 *   deal      one thread, a few ns per choice
 *   gather    rows quantized (or rounded, or copied) to their slots
 *   up        item = expert x range of weight rows: gate and up into tiles that stay in the cache, activation, result
 *             stored by slot in the form that `down` multiplies
 *   down      item = range of output columns, over all experts: products added by weight into a tile of all rows. A row
 *             meets its experts in rising order, so its sum depends neither on the threads nor on other rows.
 *
 * Where adapters change experts, scale * (a x) of each slot is made in a phase before `up`, and of the activations in
 * one before `down`; b times that is added to the tiles. Neighbouring slots with the same scale go together. */
#include "backend/cpu/matmul.h"

#include <string.h>

enum { DEAL, GATHER, LORA_UP, UP, LORA_DOWN, DOWN, N_PHASE };

/* Who computes what. E experts, C = M * n_used choices. */
typedef struct deal {
    int32_t *n;      /* [1] experts that have rows */
    int32_t *expert; /* [E] they, rising */
    int32_t *start;  /* [E + 1] expert[i] has slots start[i] <= s < start[i + 1] */
    int32_t *at;     /* [E] while dealing: rows of an expert, then its next slot */
    int32_t *slot;   /* [C] of the choices, row by row */
    int32_t *row;    /* [C] row in a slot */
    float *weight;   /* [C] weight of that row's choice */
} deal;

/* A record's sizes, forms and memory. */
typedef struct plan {
    const fa_moe *m;
    int64_t M, dim, ff, n_used, C, E;
    unsigned up_forms, down_form; /* F32, CPU_Q8, CPU_BF16: up_forms is a set */
    deal d;
    cpu_input in, act;           /* by slot: [C, dim], [C, ff] */
    size_t bytes;                /* of work memory */
    int64_t up_n, down_n;        /* weight rows per item */
    size_t tiles, per_task;      /* in scratch: where tiles begin, all */
    const fa_loras *const *lora; /* of gate, up, down; NULL each: nothing */
    float *u[3];                 /* by slot: [C, lora->rank] */
} plan;

enum { F32 = 4 };
static unsigned form_bit(unsigned form) { return form ? form : F32; }

/* ---- memory ---- */

static void *take(uint8_t *base, size_t *at, size_t bytes) {
    void *p = base ? base + *at : NULL;
    *at += cpu_up64(bytes);
    return p;
}

static cpu_input rows_at(uint8_t *base, size_t *at, int64_t M, int64_t K, unsigned forms) {
    cpu_input in = {0};
    if (forms & CPU_Q8) {
        uint8_t *mem = (uint8_t *)take(base, at, cpu_act_bytes(M, K));
        if (mem) in.act = cpu_act_at(mem, M, K);
    }
    if (forms & CPU_BF16) in.bf16 = (uint16_t *)take(base, at, (size_t)(M * K) * 2);
    if (forms & F32) in.x = in.normed = (float *)take(base, at, (size_t)(M * K) * 4);
    return in;
}

/* Columns that a tile of `up` has: whole tiles of the kernels and whole groups of quantized activations. */
static int64_t up_step(const fa_kernels *k) {
    int64_t n = k->row_tile;
    while (n % 32) n += k->row_tile;
    return n;
}

enum { FEW_BYTES = 64 << 10, FEW_DOWN = 256 << 10 /* weights of an item when rows are few */ };

static int64_t row_bytes(const fa_experts *e) {
    return e->n ? (int64_t)(e->w[0].row_bytes + 2 * e->w[0].scale_row_bytes) : 0;
}

static void cut(const fa_cpu *cpu, plan *p) {
    p->up_n = up_step(&cpu->k);
    p->down_n = cpu_item_rows(cpu, &p->m->down.w[0], p->M);
    if (p->M <= CPU_FEW_ROWS) {
        int64_t n = FEW_BYTES / (row_bytes(&p->m->up) + row_bytes(&p->m->gate) + 1);
        p->up_n = n < 32 ? 32 : n / 32 * 32;
        n = FEW_DOWN / (row_bytes(&p->m->down) * cpu_min(p->C, p->E) + 1);
        p->down_n = cpu_min(n, p->dim / (8 * cpu->be.n_thread)) / 16 * 16;
        if (p->down_n < 16) p->down_n = 16;
    }
    p->up_n = cpu_min(p->up_n, (p->ff + 31) / 32 * 32);
    p->down_n = cpu_min(p->down_n, p->dim);
}

static plan plan_of(const fa_cpu *cpu, const fa_rec *r) {
    const fa_moe *m = r->p.moe.moe;
    plan p = {.m = m, .M = r->in[0].dim[0], .dim = r->out.dim[1], .ff = m->up.w[0].rows, .n_used = r->p.moe.n_used};
    p.C = p.M * p.n_used;
    p.E = m->up.n;
    p.lora = r->p.moe.lora;
    p.up_forms = form_bit(cpu_form_of(cpu, &m->up.w[0], p.M));
    if (m->gate.n) p.up_forms |= form_bit(cpu_form_of(cpu, &m->gate.w[0], p.M));
    if (p.lora[0] || p.lora[1]) p.up_forms |= F32;
    p.down_form = form_bit(cpu_form_of(cpu, &m->down.w[0], p.M));
    cut(cpu, &p);

    uint8_t *w = (uint8_t *)r->work;
    p.d.n = (int32_t *)take(w, &p.bytes, 4);
    p.d.expert = (int32_t *)take(w, &p.bytes, (size_t)p.E * 4);
    p.d.start = (int32_t *)take(w, &p.bytes, (size_t)(p.E + 1) * 4);
    p.d.at = (int32_t *)take(w, &p.bytes, (size_t)p.E * 4);
    p.d.slot = (int32_t *)take(w, &p.bytes, (size_t)p.C * 4);
    p.d.row = (int32_t *)take(w, &p.bytes, (size_t)p.C * 4);
    p.d.weight = (float *)take(w, &p.bytes, (size_t)p.C * 4);
    p.in = rows_at(w, &p.bytes, p.C, p.dim, p.up_forms);
    p.act = rows_at(w, &p.bytes, p.C, p.ff, p.down_form | (p.lora[2] ? F32 : 0));

    int64_t wide = p.dim > p.ff ? p.dim : p.ff, widest = wide;
    for (int i = 0; i < 3; i++) {
        if (!p.lora[i]) continue;
        p.u[i] = (float *)take(w, &p.bytes, (size_t)(p.C * p.lora[i]->rank) * 4);
        if (p.lora[i]->max_rank > widest) widest = p.lora[i]->max_rank;
    }
    size_t few = (p.up_forms | p.down_form) & CPU_BF16 ? CPU_FEW_ROWS * (size_t)wide * 4 : 0;
    size_t up = 2 * cpu_up64((size_t)(p.M * p.up_n) * 4) + cpu_act_bytes(p.M, p.up_n),
           down = 2 * cpu_up64((size_t)(p.M * p.down_n) * 4);
    p.tiles = cpu_up64(cpu->k.linear_scratch(widest, p.M)) + cpu_up64(few);
    p.per_task = p.tiles + (up > down ? up : down);
    return p;
}

/* ---- deal ---- */

static const int32_t *chosen(const fa_rec *r, int64_t row) {
    return (const int32_t *)(const void *)(fa_f32(r->in[1]) + (2 * row + 1) * r->p.moe.n_used);
}

static void deal_out(const fa_rec *r, const plan *p) {
    const deal *d = &p->d;
    int32_t n = 0, next = 0;
    memset(d->at, 0, (size_t)p->E * 4);
    for (int64_t i = 0; i < p->M; i++)
        for (int64_t k = 0; k < p->n_used; k++) d->at[chosen(r, i)[k]]++;
    for (int32_t e = 0; e < p->E; e++) {
        int32_t rows = d->at[e];
        d->at[e] = next;
        if (!rows) continue;
        d->expert[n] = e;
        d->start[n++] = next;
        next += rows;
    }
    d->start[n] = next;
    *d->n = n;
    for (int64_t i = 0; i < p->M; i++)
        for (int64_t k = 0; k < p->n_used; k++) {
            int32_t s = d->at[chosen(r, i)[k]]++;
            d->slot[i * p->n_used + k] = s;
            d->row[s] = (int32_t)i;
            d->weight[s] = fa_f32(r->in[1])[2 * i * p->n_used + k];
        }
}

/* ---- gather ---- */

static void copy_act(const fa_act *from, const fa_act *to, int64_t m, int64_t k0) {
    const int64_t g = from->K / 32, at = m * (to->K / 32) + k0 / 32;
    memcpy(to->q + m * to->K + k0, from->q, (size_t)from->K);
    memcpy(to->scale + at, from->scale, (size_t)g * 4);
    memcpy(to->sum32 + at, from->sum32, (size_t)g * 4);
    memcpy(to->sum16 + 2 * at, from->sum16, (size_t)g * 8);
}

static void gather_row(const cpu_task *t, const plan *p, int64_t i) {
    const float *x = fa_f32(t->r->in[0]) + i * p->dim;
    const int32_t *slot = p->d.slot + i * p->n_used;
    int64_t first = slot[0], dim = p->dim;
    if (p->up_forms & CPU_Q8) {
        fa_act a = cpu_act_slice(&p->in.act, first, 1);
        t->k->quant_act(x, dim, 0, 1, &a);
        for (int64_t k = 1; k < p->n_used; k++) copy_act(&a, &p->in.act, slot[k], 0);
    }
    if (p->up_forms & CPU_BF16) {
        t->k->convert(x, FA_BF16, dim, p->in.bf16 + first * dim);
        for (int64_t k = 1; k < p->n_used; k++)
            memcpy(p->in.bf16 + slot[k] * dim, p->in.bf16 + first * dim, (size_t)dim * 2);
    }
    for (int64_t k = 0; p->in.normed && k < p->n_used; k++) memcpy(p->in.normed + slot[k] * dim, x, (size_t)dim * 4);
}

/* ---- products ---- */

/* Slots [s, s + n) of rows of K values */
static cpu_input slots(const cpu_input *in, int64_t s, int64_t n, int64_t K) {
    cpu_input part = {0};
    if (in->act.q) part.act = cpu_act_slice(&in->act, s, n);
    if (in->bf16) part.bf16 = in->bf16 + s * K;
    if (in->x) part.x = in->x + s * K;
    return part;
}

/* y [n, r1 - r0] = rows of `in` times weight rows [r0, r1) of expert e. The bf16 kernel does not take few rows: those
 * are multiplied in f32, as they were rounded. */
static void product(const cpu_task *t, const plan *p, const cpu_input *in, const fa_experts *x, int32_t e, int64_t r0,
                    int64_t r1, int64_t n, float *y) {
    const fa_weight *w = &x->w[e];
    const fa_linear whole = {*w, x->bias ? x->bias + e * w->rows : NULL, NULL}, part = cpu_linear_slice(&whole, r0, r1);
    unsigned form = cpu_form_of(t->cpu, w, p->M);
    cpu_input few = {0};
    if (form == CPU_BF16 && n <= CPU_FEW_ROWS) {
        float *f = (float *)(void *)((uint8_t *)t->scratch + p->tiles -
                                     cpu_up64(CPU_FEW_ROWS * 4 * (size_t)(p->dim > p->ff ? p->dim : p->ff)));
        for (int64_t i = 0; i < n * w->cols; i++) f[i] = fa_bf16_to_f32(in->bf16[i]);
        few.x = f;
        in = &few;
        form = 0;
    }
    cpu_linear_range(t, form, in, &part, 0, r1 - r0, n, y, r1 - r0, false);
}

/* ---- adapters ---- */

/* The scale of an adapter in a slot; 0: the row's sequence does not use it. */
static float lora_scale(const cpu_task *t, const plan *p, const fa_lora *l, int64_t slot) {
    const fa_batch *b = t->b;
    int64_t row = p->d.row[slot];
    if (t->r->p.moe.out_rows) row = b->out_row[row];
    return l->scale * b->adapt[(int64_t)b->row_seq[row] * b->n_adapt + l->adapter];
}

/* The next slots in [*s, end) with one scale that is not 0; their number, 0: none. */
static int64_t lora_run(const cpu_task *t, const plan *p, const fa_lora *l, int64_t *s, int64_t end, float *scale) {
    while (*s < end && (*scale = lora_scale(t, p, l, *s)) == 0) ++*s;
    int64_t n = *s < end;
    while (*s + n < end && n && lora_scale(t, p, l, *s + n) == *scale) n++;
    return n;
}

static fa_weight lora_rows(const fa_weight *w, int64_t from, int64_t n) {
    fa_weight part = *w;
    part.rows = n;
    part.codes += (size_t)from * w->row_bytes;
    return part;
}

/* u = scale * (a x) of the slots of the i-th expert, for one of gate, up and down; x: rows by slot. */
static void lora_first(const cpu_task *t, const plan *p, int mat, int64_t i, const float *x) {
    const fa_loras *list = p->lora[mat];
    for (int k = 0; k < list->n; k++) {
        const fa_lora *l = &list->item[k];
        const int64_t at = l->expert[p->d.expert[i]], rank = l->b.cols, K = l->a.cols, ld = list->rank;
        const fa_weight a = lora_rows(&l->a, (at < 0 ? 0 : at) * rank, rank);
        float scale, *u = p->u[mat] + l->u_from;
        int64_t s = p->d.start[i], end = at < 0 ? s : p->d.start[i + 1];
        for (int64_t n; (n = lora_run(t, p, l, &s, end, &scale)) > 0; s += n) {
            t->k->linear_f32(t->k, &a, 0, rank, x + s * K, K, n, u + s * ld, ld, false, t->scratch);
            for (int64_t j = s; j < s + n; j++)
                for (int64_t r = 0; r < rank; r++) u[j * ld + r] *= scale;
        }
    }
}

/* y [slots of the i-th expert, c1 - c0] += columns [c0, c1) of b u */
static void lora_add(const cpu_task *t, const plan *p, int mat, int64_t i, int64_t c0, int64_t c1, float *y) {
    const fa_loras *list = p->lora[mat];
    const int64_t N = mat == 2 ? p->dim : p->ff, w = c1 - c0, first = p->d.start[i];
    for (int k = 0; list && k < list->n; k++) {
        const fa_lora *l = &list->item[k];
        const int64_t at = l->expert[p->d.expert[i]], ld = list->rank;
        if (at < 0) continue;
        const fa_weight b = lora_rows(&l->b, at * N + c0, w);
        const float *u = p->u[mat] + l->u_from;
        float scale;
        int64_t s = first, end = p->d.start[i + 1];
        for (int64_t n; (n = lora_run(t, p, l, &s, end, &scale)) > 0; s += n)
            t->k->linear_f32(t->k, &b, 0, w, u + s * ld, ld, n, y + (s - first) * w, w, true, t->scratch);
    }
}

/* ---- activations ---- */

/* up = act(gate) * up or act(up), over n values */
static void activate(const cpu_task *t, const fa_moe *m, float *gate, float *up, int64_t n) {
    const float l = m->limit;
    for (int64_t i = 0; l > 0 && m->gate.n && i < n; i++) gate[i] = gate[i] > l ? l : gate[i];
    for (int64_t i = 0; l > 0 && i < n; i++) up[i] = (up[i] > l ? l : up[i] < -l ? -l : up[i]) + 1;
    if (m->gate.n)
        cpu_glu_row(t->k, m->act, gate, up, n, up);
    else
        cpu_glu_row(t->k, m->act, up, NULL, n, up);
}

/* Columns [c0, c1) of the activations in slots [s, s + n), from a tile [n, c1 - c0], in the form that they are wanted
 * in; mem: room for the tile in int8 */
static void put_act(const cpu_task *t, const plan *p, const float *tile, int64_t s, int64_t n, int64_t c0, int64_t c1,
                    uint8_t *mem) {
    const int64_t w = c1 - c0;
    if (p->down_form == CPU_Q8) {
        fa_act a = cpu_act_at(mem, n, w);
        t->k->quant_act(tile, w, 0, n, &a);
        for (int64_t i = 0; i < n; i++) {
            fa_act one = cpu_act_slice(&a, i, 1);
            copy_act(&one, &p->act.act, s + i, c0);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        if (p->down_form == CPU_BF16) t->k->convert(tile + i * w, FA_BF16, w, p->act.bf16 + (s + i) * p->ff + c0);
        if (p->act.normed) memcpy(p->act.normed + (s + i) * p->ff + c0, tile + i * w, (size_t)w * 4);
    }
}

static int64_t up_items(const plan *p) { return (p->ff + p->up_n - 1) / p->up_n; } /* of one expert */

static void up_run(const cpu_task *t, const plan *p, int64_t item) {
    const fa_moe *m = p->m;
    const int64_t i = item / up_items(p), c0 = item % up_items(p) * p->up_n, c1 = cpu_min(c0 + p->up_n, p->ff),
                  s = p->d.start[i], n = p->d.start[i + 1] - s;
    const int32_t e = p->d.expert[i];
    size_t at = p->tiles;
    float *gate = (float *)take((uint8_t *)t->scratch, &at, (size_t)(p->M * p->up_n) * 4),
          *up = (float *)take((uint8_t *)t->scratch, &at, (size_t)(p->M * p->up_n) * 4);
    cpu_input in = slots(&p->in, s, n, p->dim);
    if (m->gate.n) product(t, p, &in, &m->gate, e, c0, c1, n, gate);
    lora_add(t, p, 0, i, c0, c1, gate);
    product(t, p, &in, &m->up, e, c0, c1, n, up);
    lora_add(t, p, 1, i, c0, c1, up);
    activate(t, m, gate, up, n * (c1 - c0));
    put_act(t, p, up, s, n, c0, c1, (uint8_t *)t->scratch + at);
}

static void down_run(const cpu_task *t, const plan *p, int64_t item) {
    const int64_t c0 = item * p->down_n, c1 = cpu_min(c0 + p->down_n, p->dim), w = c1 - c0;
    const float scale = t->r->p.moe.scale;
    size_t at = p->tiles;
    float *sum = (float *)take((uint8_t *)t->scratch, &at, (size_t)(p->M * p->down_n) * 4),
          *y = (float *)take((uint8_t *)t->scratch, &at, (size_t)(p->M * p->down_n) * 4);
    memset(sum, 0, (size_t)(p->M * w) * 4);
    for (int32_t i = 0; i < *p->d.n; i++) {
        int64_t s = p->d.start[i], n = p->d.start[i + 1] - s;
        cpu_input in = slots(&p->act, s, n, p->ff);
        product(t, p, &in, &p->m->down, p->d.expert[i], c0, c1, n, y);
        lora_add(t, p, 2, i, c0, c1, y);
        for (int64_t j = 0; j < n; j++) {
            const float by = p->d.weight[s + j], *from = y + j * w;
            float *to = sum + p->d.row[s + j] * w;
            for (int64_t c = 0; c < w; c++) to[c] += by * from[c];
        }
    }
    for (int64_t i = 0; i < p->M; i++) {
        float *out = fa_f32(t->r->out) + i * p->dim + c0;
        for (int64_t c = 0; c < w; c++) out[c] = (t->r->p.moe.add ? out[c] : 0) + scale * sum[i * w + c];
    }
}

/* ---- the operation ---- */

static int64_t moe_items(const cpu_task *t, int phase) {
    const plan p = plan_of(t->cpu, t->r);
    if (p.M == 0) return 0;
    switch (phase) {
    case DEAL: return 1;
    case GATHER: return cpu_row_items(p.M);
    case LORA_UP: return p.lora[0] || p.lora[1] ? 2 * (int64_t)*p.d.n : 0;
    case LORA_DOWN: return p.lora[2] ? *p.d.n : 0;
    case UP: return *p.d.n * up_items(&p); /* dealt out before the last barrier: the same for all threads */
    default: return (p.dim + p.down_n - 1) / p.down_n;
    }
}
static void moe_run(const cpu_task *t, int phase, int64_t item) {
    const plan p = plan_of(t->cpu, t->r);
    switch (phase) {
    case DEAL: deal_out(t->r, &p); break;
    case GATHER:
        for (int64_t i = item * CPU_ROWS, end = cpu_min(i + CPU_ROWS, p.M); i < end; i++) gather_row(t, &p, i);
        break;
    case LORA_UP:
        if (p.lora[item % 2]) lora_first(t, &p, (int)(item % 2), item / 2, p.in.normed);
        break;
    case LORA_DOWN: lora_first(t, &p, 2, item, p.act.normed); break;
    case UP: up_run(t, &p, item); break;
    default: down_run(t, &p, item); break;
    }
}
static void moe_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    const plan p = plan_of(cpu, r);
    *work = p.bytes;
    *scratch = p.per_task;
}
const cpu_op cpu_moe = {N_PHASE, moe_items, moe_run, moe_needs};
