/* Matrix operations on the CPU: linear layers and the fused records around them. */
#include "backend/cpu/matmul.h"

#include <string.h>

/* ---- work memory: the input's normalised rows (when there is a norm) and forms, one after the other ---- */

/* The one way in which all products of an input want it turned, else 0. */
static int turn_in(unsigned forms) {
    const unsigned ways = forms / CPU_TURN;
    return ways == 1u << 1 ? 32 : ways == 1u << 2 ? 64 : 0;
}

static size_t input_bytes(int64_t M, int64_t K, bool norm, unsigned forms) {
    return (norm ? cpu_up64((size_t)(M * K) * 4) : 0) + (forms & CPU_Q8 ? cpu_act_bytes(M, K) : 0) +
           (turn_in(forms) ? cpu_up64(fa_turned_bytes(M, K)) : 0) +
           (forms & CPU_BF16 ? cpu_up64((size_t)(M * K) * 2) : 0);
}

static cpu_input input_at(const fa_rec *r, uint8_t *mem, bool norm, unsigned forms) {
    int64_t M = r->in[0].dim[0], K = r->in[0].dim[1];
    cpu_input in = {.x = fa_f32(r->in[0])};
    if (norm) {
        in.x = in.normed = (float *)(void *)mem;
        mem += cpu_up64((size_t)(M * K) * 4);
    }
    if (forms & CPU_Q8) {
        in.act = cpu_act_at(mem, M, K);
        mem += cpu_act_bytes(M, K);
        if ((in.act.turn = turn_in(forms))) {
            in.act.turned = mem;
            mem += cpu_up64(fa_turned_bytes(M, K));
        }
    }
    if (forms & CPU_BF16) in.bf16 = (uint16_t *)(void *)mem;
    return in;
}

/* One item of the preparing phase. */
static void input_rows(const cpu_task *t, cpu_input *in, const fa_norm *norm, int64_t item) {
    int64_t M = t->r->in[0].dim[0], K = t->r->in[0].dim[1], n = cpu_few_rows(t->cpu, M), m0 = item * n,
            m1 = cpu_min(m0 + n, M);
    if (norm)
        for (int64_t m = m0; m < m1; m++) cpu_norm_row(t->k, norm, fa_f32(t->r->in[0]) + m * K, in->normed + m * K);
    if (in->act.q) t->k->quant_act(in->x, K, m0, m1, &in->act);
    if (in->act.turned) t->k->turn_act(&in->act, m0, m1);
    if (in->bf16) t->k->convert(in->x + m0 * K, FA_BF16, (m1 - m0) * K, in->bf16 + m0 * K);
}

/* A single row is so little work that every thread prepares it for itself, in its scratch, instead of waiting for the
 * one that would do it for all. */
static int64_t input_items(const fa_cpu *cpu, int64_t M) { return M == 1 ? 0 : cpu_few_items(cpu, M); }

static size_t linear_scratch(const fa_kernels *k, int64_t K, int64_t M, size_t in_bytes) {
    return cpu_up64(k->linear_scratch(K, M)) + (M == 1 ? in_bytes : 0);
}

/* The input as the multiplying phase finds it. */
static cpu_input input_ready(const cpu_task *t, const fa_norm *norm, unsigned forms) {
    int64_t M = t->r->in[0].dim[0], K = t->r->in[0].dim[1];
    if (M != 1) return input_at(t->r, (uint8_t *)t->r->work, norm != NULL, forms);
    cpu_input in = input_at(t->r, (uint8_t *)t->scratch + cpu_up64(t->k->linear_scratch(K, M)), norm != NULL, forms);
    if (!*t->prepared) input_rows(t, &in, norm, 0);
    *t->prepared = true;
    return in;
}

/* One item of the preparing phase. */
static void input_prepare(const cpu_task *t, const fa_norm *norm, unsigned forms, int64_t item) {
    cpu_input in = input_at(t->r, (uint8_t *)t->r->work, norm != NULL, forms);
    input_rows(t, &in, norm, item);
}

/* ---- row ranges of a weight as work items ---- */

static int64_t weight_items(const fa_cpu *cpu, const fa_weight *w, int64_t M) {
    int64_t n = cpu_item_rows(cpu, w, M);
    return (w->rows + n - 1) / n;
}

/* y[:, r0:r1] (+)= input x lin */
static void linear_range(const cpu_task *t, const cpu_input *in, const fa_linear *lin, int64_t r0, int64_t r1,
                         int64_t M, float *y, int64_t ldy, bool add) {
    cpu_linear_range(t, cpu_form_of(t->cpu, &lin->w, M), in, lin, r0, r1, M, y, ldy, add);
}

static void linear_item(const cpu_task *t, const cpu_input *in, const fa_linear *lin, int64_t item, int64_t M, float *y,
                        int64_t ldy, bool add) {
    int64_t n = cpu_item_rows(t->cpu, &lin->w, M), r0 = item * n;
    linear_range(t, in, lin, r0, cpu_min(r0 + n, lin->w.rows), M, y, ldy, add);
}

/* ---- linear: prepare, multiply ---- */

static unsigned linear_forms(const fa_cpu *cpu, const fa_rec *r) {
    return cpu_forms_of(cpu, &r->p.linear->w, r->in[0].dim[0]);
}

static int64_t linear_items(const cpu_task *t, int phase) {
    int64_t M = t->r->in[0].dim[0];
    if (phase == 0) return linear_forms(t->cpu, t->r) ? input_items(t->cpu, M) : 0;
    return M ? weight_items(t->cpu, &t->r->p.linear->w, M) : 0;
}
static void linear_run(const cpu_task *t, int phase, int64_t item) {
    unsigned forms = linear_forms(t->cpu, t->r);
    if (phase == 0) {
        input_prepare(t, NULL, forms, item);
        return;
    }
    cpu_input in = input_ready(t, NULL, forms);
    linear_item(t, &in, t->r->p.linear, item, t->r->in[0].dim[0], fa_f32(t->r->out), t->r->out.dim[1], false);
}
static void linear_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    int64_t M = r->in[0].dim[0], K = r->in[0].dim[1];
    *work = input_bytes(M, K, false, linear_forms(cpu, r));
    *scratch = linear_scratch(&cpu->k, K, M, *work);
}
const cpu_op cpu_linear = {2, linear_items, linear_run, linear_needs};

/* ---- linear_add: prepare, multiply into out or work, [normalise and add] ---- */

static unsigned linear_add_forms(const fa_cpu *cpu, const fa_rec *r) {
    return cpu_forms_of(cpu, &r->p.linear_add.lin->w, r->in[0].dim[0]);
}
/* Where the product goes before the post norm: behind the cpu_input in work. */
static float *post_rows(const cpu_task *t, unsigned forms) {
    return (float *)(void *)((uint8_t *)t->r->work + input_bytes(t->r->in[0].dim[0], t->r->in[0].dim[1], false, forms));
}
static int64_t linear_add_items(const cpu_task *t, int phase) {
    int64_t M = t->r->in[0].dim[0];
    if (phase == 0) return linear_add_forms(t->cpu, t->r) ? input_items(t->cpu, M) : 0;
    if (phase == 1) return weight_items(t->cpu, &t->r->p.linear_add.lin->w, M);
    return t->r->p.linear_add.post ? cpu_few_items(t->cpu, M) : 0;
}
static void linear_add_run(const cpu_task *t, int phase, int64_t item) {
    const fa_linear *lin = t->r->p.linear_add.lin;
    const fa_norm *post = t->r->p.linear_add.post;
    unsigned forms = linear_add_forms(t->cpu, t->r);
    int64_t M = t->r->in[0].dim[0], N = t->r->out.dim[1];
    if (phase == 0) {
        input_prepare(t, NULL, forms, item);
    } else if (phase == 1) {
        cpu_input in = input_ready(t, NULL, forms);
        linear_item(t, &in, lin, item, M, post ? post_rows(t, forms) : fa_f32(t->r->out), N, !post);
    } else {
        float *y = post_rows(t, forms);
        for (int64_t n = cpu_few_rows(t->cpu, M), m = item * n, end = cpu_min(m + n, M); m < end; m++) {
            cpu_norm_row(t->k, post, y + m * N, y + m * N);
            t->k->add(fa_f32(t->r->out) + m * N, y + m * N, N);
        }
    }
}
static void linear_add_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    int64_t M = r->in[0].dim[0], K = r->in[0].dim[1];
    *work = input_bytes(M, K, false, linear_add_forms(cpu, r));
    *scratch = linear_scratch(&cpu->k, K, M, *work);
    if (r->p.linear_add.post) *work += (size_t)(M * r->out.dim[1]) * sizeof(float);
}
const cpu_op cpu_linear_add = {3, linear_add_items, linear_add_run, linear_add_needs};

/* ---- norm_qkv: normalise, multiply q/k/v, per row head norms + rotation + cache write ---- */

static unsigned qkv_forms(const fa_cpu *cpu, const fa_qkv_param *p, int64_t M) {
    unsigned q = cpu_forms_of(cpu, &p->q->w, M);
    return p->k ? q | cpu_forms_of(cpu, &p->k->w, M) | cpu_forms_of(cpu, &p->v->w, M) : q;
}

static int64_t qkv_items(const cpu_task *t, int phase) {
    const fa_qkv_param *p = &t->r->p.qkv;
    int64_t M = t->r->in[0].dim[0];
    if (phase == 0) return input_items(t->cpu, M);
    if (phase == 2) return cpu_few_items(t->cpu, M);
    int64_t q = weight_items(t->cpu, &p->q->w, M);
    return p->k ? q + weight_items(t->cpu, &p->k->w, M) + weight_items(t->cpu, &p->v->w, M) : q;
}

static void qkv_finish(const cpu_task *t, float *k, float *v, int64_t item) {
    const fa_qkv_param *p = &t->r->p.qkv;
    const fa_kv *kv = p->kv;
    const fa_batch *b = t->b;
    int64_t M = t->r->in[0].dim[0], nq = t->r->out.dim[1], nk = kv->n_head * kv->head_dim, hd = kv->head_dim;
    for (int64_t n = cpu_few_rows(t->cpu, M), m = item * n, end = cpu_min(m + n, M); m < end; m++) {
        const float *table = p->rope_table ? p->rope_table + m * 2 * p->n_pair : NULL;
        const int32_t *pages = b->page[kv->group] + (int64_t)cpu_row_seq(b, m) * b->page_stride;
        int32_t pos = b->place[m];
        cpu_heads_row(t->k, fa_f32(t->r->out) + m * nq, nq / hd, hd, p->q_norm, table, p->n_pair, p->interleaved);
        if (!p->k) continue;
        cpu_heads_row(t->k, k + m * nk, kv->n_head, hd, p->k_norm, table, p->n_pair, p->interleaved);
        cpu_heads_row(t->k, v + m * nk, kv->n_head, hd, p->v_norm, NULL, 0, false);
        cpu_append_row(t->k, kv, kv->k, pages, pos, k + m * nk);
        cpu_append_row(t->k, kv, kv->v, pages, pos, v + m * nk);
    }
}

static void qkv_run(const cpu_task *t, int phase, int64_t item) {
    const fa_qkv_param *p = &t->r->p.qkv;
    int64_t M = t->r->in[0].dim[0], K = t->r->in[0].dim[1], nk = p->k ? p->k->w.rows : 0;
    unsigned forms = qkv_forms(t->cpu, p, M);
    float *k = (float *)(void *)((uint8_t *)t->r->work + input_bytes(M, K, true, forms)), *v = k + M * nk;
    if (phase == 0) {
        input_prepare(t, p->norm, forms, item);
    } else if (phase == 1) {
        cpu_input in = input_ready(t, p->norm, forms);
        int64_t n_q = weight_items(t->cpu, &p->q->w, M), n_k = p->k ? weight_items(t->cpu, &p->k->w, M) : 0;
        if (item < n_q)
            linear_item(t, &in, p->q, item, M, fa_f32(t->r->out), t->r->out.dim[1], false);
        else if (item < n_q + n_k)
            linear_item(t, &in, p->k, item - n_q, M, k, nk, false);
        else
            linear_item(t, &in, p->v, item - n_q - n_k, M, v, nk, false);
    } else {
        qkv_finish(t, k, v, item);
    }
}
static void qkv_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    int64_t M = r->in[0].dim[0], K = r->in[0].dim[1];
    *work = input_bytes(M, K, true, qkv_forms(cpu, &r->p.qkv, M));
    *scratch = linear_scratch(&cpu->k, K, M, *work);
    if (r->p.qkv.k) *work += 2 * (size_t)(M * r->p.qkv.k->w.rows) * sizeof(float);
}
const cpu_op cpu_norm_qkv = {3, qkv_items, qkv_run, qkv_needs};

/* ---- norm_mlp_up: normalise, then per row range gate, up and activation ---- */

static unsigned mlp_forms(const fa_cpu *cpu, const fa_rec *r) {
    int64_t M = r->in[0].dim[0];
    return cpu_forms_of(cpu, &r->p.mlp_up.gate->w, M) | cpu_forms_of(cpu, &r->p.mlp_up.up->w, M);
}

static int64_t mlp_items(const cpu_task *t, int phase) {
    int64_t M = t->r->in[0].dim[0];
    return phase == 0 ? input_items(t->cpu, M) : weight_items(t->cpu, &t->r->p.mlp_up.gate->w, M);
}

/* gate and up go to compact tiles [M, n] in scratch, which stay in the thread's cache until the activation has read
 * them. */
static void mlp_run(const cpu_task *t, int phase, int64_t item) {
    const fa_rec *r = t->r;
    int64_t M = r->in[0].dim[0], K = r->in[0].dim[1], N = r->out.dim[1];
    unsigned forms = mlp_forms(t->cpu, r);
    if (phase == 0) {
        input_prepare(t, r->p.mlp_up.norm, forms, item);
        return;
    }
    cpu_input in = input_ready(t, r->p.mlp_up.norm, forms);
    int64_t n = cpu_item_rows(t->cpu, &r->p.mlp_up.gate->w, M), r0 = item * n, r1 = cpu_min(r0 + n, N);
    float *gate = (float *)(void *)((uint8_t *)t->scratch +
                                    cpu_up64(linear_scratch(t->k, K, M, input_bytes(M, K, true, forms)))),
          *up = gate + M * n;
    fa_linear gate_part = cpu_linear_slice(r->p.mlp_up.gate, r0, r1),
              up_part = cpu_linear_slice(r->p.mlp_up.up, r0, r1);
    linear_range(t, &in, &gate_part, 0, r1 - r0, M, gate, n, false);
    linear_range(t, &in, &up_part, 0, r1 - r0, M, up, n, false);
    for (int64_t m = 0; m < M; m++)
        cpu_glu_row(t->k, r->p.mlp_up.act, gate + m * n, up + m * n, r1 - r0, fa_f32(r->out) + m * N + r0);
}
static void mlp_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    int64_t M = r->in[0].dim[0], K = r->in[0].dim[1];
    *work = input_bytes(M, K, true, mlp_forms(cpu, r));
    *scratch = cpu_up64(linear_scratch(&cpu->k, K, M, *work)) +
               2 * (size_t)(M * cpu_item_rows(cpu, &r->p.mlp_up.gate->w, M)) * sizeof(float);
}
const cpu_op cpu_norm_mlp_up = {2, mlp_items, mlp_run, mlp_needs};
