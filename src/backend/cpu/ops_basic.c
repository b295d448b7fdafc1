/* Row-wise operations on the CPU: embedding, norms, rotation, cache writes, activations, copies, taps. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* ---- helpers that fused operations use too ---- */

/* Mean and variance in double: rows are short, and their mean may be large beside their spread. */
static void layer_norm(const fa_norm *n, const float *x, float *out) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n->dim; i++) sum += x[i];
    double mean = sum / (double)n->dim;
    for (int64_t i = 0; i < n->dim; i++) squares += (x[i] - mean) * (x[i] - mean);
    float m = (float)mean, r = (float)(1 / sqrt(squares / (double)n->dim + n->eps));
    for (int64_t i = 0; i < n->dim; i++) {
        float v = (x[i] - m) * r;
        if (n->w) v *= n->w[i] + n->offset;
        out[i] = n->b ? v + n->b[i] : v;
    }
}

void cpu_norm_row(const fa_kernels *k, const fa_norm *n, const float *x, float *out) {
    if (n->center)
        layer_norm(n, x, out);
    else
        k->rms_norm(x, n->w, n->offset, n->eps, n->dim, out);
}

void cpu_heads_row(const fa_kernels *k, float *x, int64_t heads, int64_t head_dim, const fa_norm *norm,
                   const float *table_row, int64_t n_pair, bool interleaved) {
    for (int64_t h = 0; h < heads; h++) {
        float *xh = x + h * head_dim;
        if (norm) cpu_norm_row(k, norm, xh, xh);
        if (table_row) k->rope(xh, table_row, table_row + n_pair, 2 * n_pair, interleaved);
    }
}

void cpu_append_row(const fa_kernels *k, const fa_kv *kv, uint8_t *plane, const int32_t *pages, int32_t pos,
                    const float *x) {
    const int64_t dim = kv->head_dim, row = pos % FA_PAGE;
    uint8_t *page = plane + (size_t)pages[pos / FA_PAGE] * kv->page_bytes;
    for (int64_t h = 0; h < kv->n_head; h++, page += kv->head_bytes, x += dim) {
        if (kv->dtype == FA_I8)
            fa_kvq_row(x, dim, (int8_t *)page + row * dim,
                       (uint16_t *)(void *)(page + FA_PAGE * dim) + row * fa_kvq_groups(dim));
        else
            k->convert(x, kv->dtype, dim, page + row * dim * (int64_t)fa_dtype_size(kv->dtype));
    }
}

int cpu_row_seq(const fa_batch *b, int64_t row) {
    int lo = 0, hi = b->n_seq - 1;
    while (lo < hi) { /* last sequence that starts at or before row */
        int mid = (lo + hi + 1) / 2;
        if (b->row_start[mid] <= row)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* Activations that no published model of speed interest uses. */
static float rare_act(fa_act_fn act, float x) {
    switch (act) {
    case FA_ACT_RELU2: return x > 0 ? x * x : 0;
    case FA_ACT_RELU6: return x > 6 ? 6 : x > 0 ? x : 0;
    case FA_ACT_LEAKY_RELU: return x > 0 ? x : 0.01f * x;
    case FA_ACT_SIGMOID: return 1 / (1 + expf(-x));
    case FA_ACT_TANH: return tanhf(x);
    case FA_ACT_MISH: return x * tanhf(x > 20 ? x : log1pf(expf(x)));
    default: return x;
    }
}

static void act_row(const fa_kernels *k, fa_act_fn act, const float *x, int64_t n, float *out) {
    enum { PIECE = 64 };
    static const float ones[PIECE] = {
#define TEN 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
        TEN, TEN, TEN, TEN, TEN, TEN,
        1,   1,   1,   1
#undef TEN
    };
    for (int64_t i = 0; i < n; i += PIECE) cpu_glu_row(k, act, x + i, ones, cpu_min(PIECE, n - i), out + i);
}

/* x sigmoid(1.702 x) up = silu(1.702 x) (up / 1.702) */
static void gelu_quick_row(const fa_kernels *k, const float *gate, const float *up, int64_t n, float *out) {
    enum { PIECE = 64 };
    float g[PIECE], u[PIECE];
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t m = cpu_min(PIECE, n - i);
        for (int64_t j = 0; j < m; j++) g[j] = 1.702f * gate[i + j], u[j] = up[i + j] / 1.702f;
        k->silu_mul(g, u, m, out + i);
    }
}

void cpu_glu_row(const fa_kernels *k, fa_act_fn act, const float *gate, const float *up, int64_t n, float *out) {
    if (!up) {
        act_row(k, act, gate, n, out);
        return;
    }
    switch (act) {
    case FA_ACT_SILU: k->silu_mul(gate, up, n, out); break;
    case FA_ACT_GELU_TANH: k->gelu_tanh_mul(gate, up, n, out); break;
    case FA_ACT_GELU_ERF: k->gelu_erf_mul(gate, up, n, out); break;
    case FA_ACT_GELU_QUICK: gelu_quick_row(k, gate, up, n, out); break;
    default:
        for (int64_t i = 0; i < n; i++) out[i] = rare_act(act, gate[i]) * up[i];
        break;
    case FA_ACT_RELU: k->relu_mul(gate, up, n, out); break;
    }
}

static const float *row_in(const fa_rec *r, int i, int64_t row) { return fa_f32(r->in[i]) + row * r->in[i].dim[1]; }
static float *row_out(const fa_rec *r, int64_t row) { return fa_f32(r->out) + row * r->out.dim[1]; }

/* items: blocks of CPU_ROWS rows of out (or of in[0] for operations without output) */
static int64_t out_items(const cpu_task *t, int phase) {
    (void)phase;
    return cpu_row_items(t->r->out.dim[0]);
}
static int64_t in_items(const cpu_task *t, int phase) {
    (void)phase;
    return cpu_row_items(t->r->in[0].dim[0]);
}
#define FOR_ROWS(row, item, n)                                                                                         \
    for (int64_t row = (item)*CPU_ROWS, row##_end = cpu_min(row + CPU_ROWS, (n)); row < row##_end; row++)

/* ---- embedding ---- */

static void embed_run(const cpu_task *t, int phase, int64_t item) {
    const fa_rec *r = t->r;
    float scale = r->p.embed.scale;
    (void)phase;
    FOR_ROWS(i, item, r->out.dim[0]) {
        float *out = row_out(r, i);
        if (t->b->embd_row && t->b->embd_row[i] >= 0) {
            memcpy(out, t->b->embd + t->b->embd_row[i] * r->out.dim[1], (size_t)r->out.dim[1] * sizeof(float));
            continue;
        }
        /* a second table, beside the vocabulary's, may have fewer rows: others stand for row 0 */
        int32_t tok = t->b->tok[i] < r->p.embed.w->rows ? t->b->tok[i] : 0;
        fa_dequant_row(r->p.embed.w, tok, out, t->scratch);
        if (scale != 1.0f)
            for (int64_t j = 0; j < r->out.dim[1]; j++) out[j] *= scale;
    }
}
static void embed_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    (void)cpu, (void)work;
    *scratch = fa_dequant_scratch(r->p.embed.w->cols);
}
const cpu_op cpu_embed = {1, out_items, embed_run, embed_needs};

/* ---- rotation ---- */

/* theta' = theta * (factor * len / ctx - (factor - 1)) ^ (d / (d - 2)), once the sequence is longer than the original
 * context */
static float dynamic_base(const fa_rope *rope, int32_t len) {
    double d = (double)rope->dim, f = rope->factor;
    double ratio = f * (double)len / (double)rope->original_ctx - (f - 1);
    return (float)(rope->theta * pow(ratio, d / (d - 2)));
}

static void rope_table_run(const cpu_task *t, int phase, int64_t item) {
    const fa_rec *r = t->r;
    const fa_rope *rope = r->p.rope_table;
    (void)phase;
    FOR_ROWS(i, item, r->out.dim[0]) {
        float *c = row_out(r, i), *s = c + rope->n_pair, pos = (float)t->b->pos[i];
        const float *inv = rope->inv_freq;
        bool grown = false;
        float base = 0, scale = rope->mscale;
        if (rope->growth != 0) scale *= 1 + rope->growth * logf(1 + floorf(pos / (float)rope->growth_ctx));
        if (rope->original_ctx > 0 && (rope->dynamic || rope->inv_freq_long)) {
            int32_t len = t->b->rope_len[cpu_row_seq(t->b, i)];
            grown = len > rope->original_ctx;
            if (grown && rope->inv_freq_long) inv = rope->inv_freq_long;
            if (grown && rope->dynamic) base = dynamic_base(rope, len);
        }
        for (int64_t j = 0; j < rope->n_pair; j++) {
            float f = grown && rope->dynamic ? 1.0f / powf(base, (float)(2 * j) / (float)rope->dim) : inv[j];
            float angle = pos * f;
            c[j] = cosf(angle) * scale;
            s[j] = sinf(angle) * scale;
        }
    }
}
const cpu_op cpu_rope_table = {1, out_items, rope_table_run, NULL};

static void rope_run(const cpu_task *t, int phase, int64_t item) {
    const fa_rec *r = t->r;
    (void)phase;
    FOR_ROWS(i, item, r->out.dim[0]) {
        int64_t hd = r->p.rope.head_dim, np = r->p.rope.n_pair;
        cpu_heads_row(t->k, row_out(r, i), r->out.dim[1] / hd, hd, NULL, r->p.rope.table + i * 2 * np, np,
                      r->p.rope.interleaved);
    }
}
const cpu_op cpu_rope = {1, out_items, rope_run, NULL};

/* ---- norms ---- */

static void norm_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) { cpu_norm_row(t->k, t->r->p.norm, row_in(t->r, 0, i), row_out(t->r, i)); }
}
const cpu_op cpu_norm = {1, out_items, norm_run, NULL};

static void head_norm_run(const cpu_task *t, int phase, int64_t item) {
    const fa_norm *n = t->r->p.norm;
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        cpu_heads_row(t->k, row_out(t->r, i), t->r->out.dim[1] / n->dim, n->dim, n, NULL, 0, false);
    }
}
const cpu_op cpu_head_norm = {1, out_items, head_norm_run, NULL};

/* ---- cache ---- */

static void append_run(const cpu_task *t, int phase, int64_t item) {
    const fa_kv *kv = t->r->p.append.kv;
    const fa_batch *b = t->b;
    (void)phase;
    FOR_ROWS(i, item, t->r->in[0].dim[0]) {
        const int32_t *pages = b->page[kv->group] + (int64_t)cpu_row_seq(b, i) * b->page_stride;
        cpu_append_row(t->k, kv, kv->k, pages, b->place[i], row_in(t->r, 0, i));
        cpu_append_row(t->k, kv, kv->v, pages, b->place[i], row_in(t->r, 1, i));
    }
}
const cpu_op cpu_append = {1, in_items, append_run, NULL};

/* ---- elementwise ---- */

static void glu_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        float *out = row_out(t->r, i);
        const float *up = t->r->in[1].data ? row_in(t->r, 1, i) : NULL;
        cpu_glu_row(t->k, t->r->p.glu, row_in(t->r, 0, i), up, t->r->out.dim[1], out);
    }
}
const cpu_op cpu_glu = {1, out_items, glu_run, NULL};

static void add_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase;
    float scale = t->r->p.add;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        float *y = row_out(t->r, i);
        const float *x = row_in(t->r, 0, i);
        if (scale == 1.0f)
            t->k->add(y, x, t->r->out.dim[1]);
        else
            for (int64_t j = 0; j < t->r->out.dim[1]; j++) y[j] += scale * x[j];
    }
}
const cpu_op cpu_add = {1, out_items, add_run, NULL};

static void rows_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        memcpy(row_out(t->r, i), row_in(t->r, 0, t->b->out_row[i]), (size_t)t->r->out.dim[1] * sizeof(float));
    }
}
const cpu_op cpu_rows = {1, out_items, rows_run, NULL};

static void softcap_run(const cpu_task *t, int phase, int64_t item) {
    float cap = t->r->p.softcap;
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        float *x = row_out(t->r, i);
        for (int64_t j = 0; j < t->r->out.dim[1]; j++) x[j] = cap * tanhf(x[j] / cap);
    }
}
const cpu_op cpu_softcap = {1, out_items, softcap_run, NULL};

static void scale_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        float *x = row_out(t->r, i);
        for (int64_t j = 0; j < t->r->out.dim[1]; j++) x[j] *= t->r->p.scale;
    }
}
const cpu_op cpu_scale = {1, out_items, scale_run, NULL};

static void clamp_run(const cpu_task *t, int phase, int64_t item) {
    float c = t->r->p.clamp;
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        float *x = row_out(t->r, i);
        for (int64_t j = 0; j < t->r->out.dim[1]; j++) x[j] = x[j] > c ? c : x[j] < -c ? -c : x[j];
    }
}
const cpu_op cpu_clamp = {1, out_items, clamp_run, NULL};

static void cols_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        memcpy(row_out(t->r, i), row_in(t->r, 0, i) + t->r->p.cols, (size_t)t->r->out.dim[1] * sizeof(float));
    }
}
const cpu_op cpu_cols = {1, out_items, cols_run, NULL};

static void pick_cols_run(const cpu_task *t, int phase, int64_t item) {
    const float *order = t->r->p.pick_cols;
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        const float *x = row_in(t->r, 0, i);
        float *out = row_out(t->r, i);
        for (int64_t j = 0; j < t->r->out.dim[1]; j++) out[j] = x[(int64_t)order[j]];
    }
}
const cpu_op cpu_pick_cols = {1, out_items, pick_cols_run, NULL};

static void row_gate_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase;
    FOR_ROWS(i, item, t->r->out.dim[0]) {
        float *x = row_out(t->r, i), g;
        cpu_glu_row(t->k, t->r->p.row_gate, row_in(t->r, 0, i), NULL, 1, &g);
        for (int64_t j = 0; j < t->r->out.dim[1]; j++) x[j] *= g;
    }
}
const cpu_op cpu_row_gate = {1, out_items, row_gate_run, NULL};

/* ---- taps: one item, so that the sink is called by one thread at a time and in program order ---- */

static int64_t one_item(const cpu_task *t, int phase) {
    (void)phase;
    return t->opts->tap ? 1 : 0;
}
static void tap_run(const cpu_task *t, int phase, int64_t item) {
    (void)phase, (void)item;
    t->opts->tap(t->opts->tap_user, t->r->p.tap.name, t->r->layer, t->r->in[0]);
}
const cpu_op cpu_tap = {1, one_item, tap_run, NULL};
