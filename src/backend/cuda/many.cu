/* Linear records with many input rows (prefill, large batches): matrix products with little kernels around them.
 *
 *     LINEAR       out = x W^T + bias
 *     LINEAR_ADD   out += x W^T + bias, or += norm(x W^T + bias)
 *     NORM_QKV     y = norm(h) [Wq Wk Wv]^T in work memory, then a warp per head: bias, norm, rotation, q out, k and v
 *                  to the cache
 *     NORM_MLP_UP  y = norm(h) [Wgate Wup]^T in work memory, then act(gate) up
 *
 * Fast mode multiplies bf16, exact mode f32. Weights of that type are read where they lie. Others are unpacked, up to
 * panel_bytes of rows at a time, into work memory, where rows of several weights may stand together; weights that are
 * neighbours in memory are taken as one. So the list of weights of a record becomes few, large products.
 *
 * Memory traffic beside the products, bytes per row in fast mode: a norm 4 K + 2 K, q k v 2 * 2 (Nq + 2 Nkv), mlp 4 I +
 * 2 I. In a layer of Llama 8B that is 0.16 MB a row beside 436 MFLOP: a tenth of the products' time.
 */
#include "backend/cuda/cu_rows.h"
#include "backend/cuda/skinny.h"

enum { THREADS = 256, MAX_LIN = 3, PANEL_ALIGN = 16 /* rows of panels are multiples of it */ };

/* ---- what a record needs ---- */

/* A record as products: y [M, N] = x [M, K] times the rows of lin[0..n), one after the other. Work memory holds x when
 * it is not the input as it is, a panel when a weight is unpacked, and y when it is not the output. */
typedef struct plan {
    uint8_t type; /* fa_dtype of x and of weights in products; results are f32 */
    bool x_work, y_work, add;
    int64_t M, K, N, ldx, panel_rows; /* panel_rows 0: nothing is unpacked */
    int n;
    const fa_linear *lin[MAX_LIN];
    const fa_norm *norm; /* of the input, or NULL */
    bool bias;           /* lin[0]'s is added by the product */
    bool skinny, glu;    /* the products are those of skinny.h; glu: with gates, too, y is the output */
    size_t panel_at, y_at, bytes;
} plan;

static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static bool in_place(const plan *p, const fa_weight *w) {
    const size_t e = fa_dtype_size((fa_dtype)p->type);
    return w->fmt == (p->type == FA_BF16 ? FA_FMT_BF16 : FA_FMT_F32) && w->row_bytes % e == 0 &&
           (uintptr_t)w->codes % e == 0;
}

static void list_weights(plan *p, const fa_rec *r) {
    switch (r->op) {
    case FA_OP_NORM_QKV:
        p->lin[0] = r->p.qkv.q, p->lin[1] = r->p.qkv.k, p->lin[2] = r->p.qkv.v, p->n = r->p.qkv.k ? 3 : 1;
        p->norm = r->p.qkv.norm;
        break;
    case FA_OP_NORM_MLP_UP:
        p->lin[0] = r->p.mlp_up.gate, p->lin[1] = r->p.mlp_up.up, p->n = 2;
        p->norm = r->p.mlp_up.norm;
        break;
    case FA_OP_LINEAR_ADD: p->lin[0] = r->p.linear_add.lin, p->n = 1; break;
    default: p->lin[0] = r->p.linear, p->n = 1; break;
    }
}

static plan plan_of(const fa_cuda *cu, const fa_rec *r) {
    plan p = {};
    list_weights(&p, r);
    const bool post = r->op == FA_OP_LINEAR_ADD && r->p.linear_add.post;
    p.type = cu->be.exact ? FA_F32 : FA_BF16;
    p.M = r->in[0].dim[0], p.K = r->in[0].dim[1];
    p.x_work = p.norm || r->in[0].dtype != p.type;
    p.y_work = p.n > 1 || post || r->op == FA_OP_NORM_QKV;
    p.add = r->op == FA_OP_LINEAR_ADD && !post;
    p.bias = p.n == 1 && r->op != FA_OP_NORM_QKV;
    for (int i = 0; i < p.n; i++) p.N += p.lin[i]->w.rows;
    if ((p.skinny = cu_skinny_fits(cu, p.lin, p.n, p.M))) {
        p.glu = r->op == FA_OP_NORM_MLP_UP && cu_skinny_same(p.lin[0], p.lin[1]);
        p.y_work = p.y_work && !p.glu;
        p.y_at = up(cu_skinny_bytes(cu, p.lin, p.n, p.M, p.K), 256);
        p.bytes = p.y_at + (p.y_work ? (size_t)(p.M * p.N) * sizeof(float) : 0);
        return p;
    }
    const size_t e = fa_dtype_size((fa_dtype)p.type), row = up((size_t)p.K * e, 16);
    p.ldx = p.x_work ? (int64_t)(row / e) : p.K;
    int64_t unpack = 0;
    for (int i = 0; i < p.n; i++)
        if (!in_place(&p, &p.lin[i]->w)) unpack += p.lin[i]->w.rows;
    if (unpack) {
        int64_t most = (int64_t)(cu->be.panel_bytes / ((size_t)p.K * e)) / PANEL_ALIGN * PANEL_ALIGN;
        if (most < PANEL_ALIGN) most = PANEL_ALIGN;
        p.panel_rows = unpack < most ? unpack : most;
    }
    p.panel_at = p.x_work ? up((size_t)p.M * row, 256) : 0;
    p.y_at = p.panel_at + up((size_t)p.panel_rows * (size_t)p.K * e, 256);
    p.bytes = p.y_at + (p.y_work ? (size_t)(p.M * p.N) * sizeof(float) : 0);
    return p;
}

int64_t cu_many_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    const plan p = plan_of(cu, r);
    for (int i = 0; i < p.n; i++)
        if (cu_weight_ok(&p.lin[i]->w, err)) return -1;
    if ((r->in[0].dtype != FA_F32 && r->in[0].dtype != FA_BF16) ||
        (r->out.dtype != FA_F32 && (r->out.dtype != FA_BF16 || p.n == 1)))
        return fa_fail(err, FFAI_ENOTSUP, "%s: no kernel multiplies rows of %s to %s", p.lin[0]->w.name,
                       fa_dtype_name((fa_dtype)r->in[0].dtype), fa_dtype_name((fa_dtype)r->out.dtype));
    if (!p.skinny && cu_blas_ready(cu, err)) return -1;
    return (int64_t)p.bytes;
}

/* ---- input rows ---- */

/* out [M, ldo] of `type` = x [M, K] of x_type, normalised when norm.on. A block per row; vec: K and both pitches are
 * multiples of 4 elements. */
static __global__ void __launch_bounds__(THREADS)
    input_rows(const void *x, int x_type, int64_t K, cu_norm norm, void *out, int type, int64_t ldo, int vec) {
    __shared__ float sums[32];
    __shared__ double wide_sums[32];
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t in = (int64_t)blockIdx.x * K, at = (int64_t)blockIdx.x * ldo;
    const int64_t first = threadIdx.x, step = blockDim.x;
    float r = 1;
    if (norm.on) {
        float s = 0;
        bool wide;
        if (vec)
            for (int64_t i = first * 4; i < K; i += step * 4) {
                const float4 v = cu_get4(x, x_type, in + i);
                s = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, s))));
            }
        else
            for (int64_t i = first; i < K; i += step) s = fmaf(cu_get(x, x_type, in + i), cu_get(x, x_type, in + i), s);
        r = cu_inv_rms(cu_block_sum(s, sums), K, norm.eps, &wide);
        if (wide) { /* the same for all threads */
            double d = 0;
            for (int64_t i = first; i < K; i += step) {
                const double v = cu_get(x, x_type, in + i);
                d += v * v;
            }
            r = cu_inv_rms_wide(cu_block_sum_wide(d, wide_sums), K, norm.eps);
        }
    }
    if (vec) {
        for (int64_t i = first * 4; i < K; i += step * 4) {
            float4 v = cu_get4(x, x_type, in + i);
            if (norm.on) {
                float4 w = make_float4(1, 1, 1, 1);
                if (norm.w) {
                    w = ((const float4 *)norm.w)[i / 4];
                    w = make_float4(w.x + norm.offset, w.y + norm.offset, w.z + norm.offset, w.w + norm.offset);
                }
                v = make_float4(v.x * r * w.x, v.y * r * w.y, v.z * r * w.z, v.w * r * w.w);
            }
            cu_put4(out, type, at + i, v);
        }
        return;
    }
    for (int64_t i = first; i < K; i += step) {
        const float w = norm.w ? norm.w[i] + norm.offset : 1.0f;
        cu_put(out, type, at + i, cu_get(x, x_type, in + i) * r * w);
    }
}

/* The input of the products: in work memory when it has to be made. */
static const void *input(fa_cuda *cu, const plan *p, const fa_rec *r) {
    if (!p->x_work) return r->in[0].data;
    const cu_norm norm = cu_norm_of(p->norm);
    const int vec = p->K % 4 == 0 && (uintptr_t)norm.w % 16 == 0;
    CU_LAUNCH(cu, input_rows, dim3((unsigned)p->M), THREADS, 0, (const void *)r->in[0].data, (int)r->in[0].dtype, p->K,
              norm, r->work, (int)p->type, p->ldx, vec);
    return r->work;
}

/* ---- products ---- */

/* Are the rows of b the ones after those of a? */
static bool follows(const fa_weight *a, const fa_weight *b) {
    return b->codes == a->codes + (size_t)a->rows * a->row_bytes && b->row_bytes == a->row_bytes;
}

/* Rows [row, row + n) of the weights lin[0..) as one, unpacked to `to`. */
static void unpack(fa_cuda *cu, const plan *p, const fa_linear *const *lin, int64_t row, int64_t n, uint8_t *to) {
    const size_t row_bytes = (size_t)p->K * fa_dtype_size((fa_dtype)p->type);
    for (; n > 0; lin++) {
        const fa_weight *w = &(*lin)->w;
        const int64_t here = row >= w->rows ? 0 : w->rows - row < n ? w->rows - row : n;
        if (here) cu_dequant(cu, w, row, here, to, (fa_dtype)p->type);
        to += (size_t)here * row_bytes;
        n -= here;
        row = here ? 0 : row - w->rows;
    }
}

/* Columns [n0, n0 + rows) of y, times w or, w NULL, weights lin[0..) in panels. */
static void product_run(fa_cuda *cu, const plan *p, cu_product m, const fa_rec *r, const fa_linear *const *lin,
                        int64_t rows, const fa_weight *w) {
    uint8_t *panel = (uint8_t *)r->work + p->panel_at, *y = (uint8_t *)m.y;
    const float *bias = m.bias;
    const int64_t step = w ? rows : p->panel_rows;
    for (int64_t row = 0; row < rows; row += step) {
        m.N = rows - row < step ? rows - row : step;
        m.w = w ? (const void *)w->codes : panel;
        m.ldw = w ? (int64_t)(w->row_bytes / fa_dtype_size((fa_dtype)p->type)) : p->K;
        m.y = y + (size_t)row * sizeof(float);
        m.bias = bias ? bias + row : NULL;
        if (!w) unpack(cu, p, lin, row, m.N, panel);
        cu_gemm(cu, &m);
    }
}

/* y [M, N] = x times all weights. Weights that are unpacked share panels; neighbours in memory are one product. */
static void products(fa_cuda *cu, const plan *p, const fa_rec *r, const void *x, void *y) {
    cu_product m = {};
    m.M = p->M, m.K = p->K, m.ldx = p->ldx, m.ldy = p->N;
    m.x = x, m.type = p->type, m.y_type = FA_F32, m.add = p->add;
    m.bias = p->bias ? p->lin[0]->bias : NULL;
    int64_t n0 = 0;
    for (int i = 0, j; i < p->n; i = j) {
        const fa_weight *w = &p->lin[i]->w;
        const bool place = in_place(p, w);
        int64_t rows = w->rows;
        for (j = i + 1; j < p->n && in_place(p, &p->lin[j]->w) == place; j++) {
            if (place && !follows(&p->lin[j - 1]->w, &p->lin[j]->w)) break;
            rows += p->lin[j]->w.rows;
        }
        m.y = (uint8_t *)y + (size_t)n0 * sizeof(float);
        product_run(cu, p, m, r, p->lin + i, rows, place ? w : NULL);
        n0 += rows;
    }
}

/* ---- after the products ---- */

/* h [M, N] += norm(y [M, N]), f32. A block per row. */
static __global__ void __launch_bounds__(THREADS) add_normed(const float *y, int64_t N, cu_norm norm, float *h) {
    __shared__ float sums[32];
    __shared__ double wide_sums[32];
    cu_pdl_launch();
    cu_pdl_wait();
    y += (int64_t)blockIdx.x * N, h += (int64_t)blockIdx.x * N;
    const int64_t first = threadIdx.x, step = blockDim.x;
    float s = 0;
    bool wide;
    for (int64_t i = first; i < N; i += step) s = fmaf(y[i], y[i], s);
    float r = cu_inv_rms(cu_block_sum(s, sums), N, norm.eps, &wide);
    if (wide) {
        double d = 0;
        for (int64_t i = first; i < N; i += step) d += (double)y[i] * (double)y[i];
        r = cu_inv_rms_wide(cu_block_sum_wide(d, wide_sums), N, norm.eps);
    }
    for (int64_t i = first; i < N; i += step) h[i] += y[i] * r * (norm.w ? norm.w[i] + norm.offset : 1.0f);
}

typedef struct glu_param {
    const float *y; /* [M, 2 N] gate, up */
    void *out;      /* [M, N] */
    int64_t N;
    const float *gate_bias, *up_bias; /* [N] or NULL */
    int act, type;
} glu_param;

/* Four elements at i of the row. */
CU_DEV float4 biased(float4 v, const float *bias, int64_t i) {
    if (!bias) return v;
    return make_float4(v.x + bias[i], v.y + bias[i + 1], v.z + bias[i + 2], v.w + bias[i + 3]);
}

/* Block (row, columns): a thread does VEC neighbouring columns. ACT: a common activation, or < 0: any. */
template <int ACT, int VEC> static __global__ void __launch_bounds__(THREADS) glu_rows(glu_param p) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int act = ACT < 0 ? p.act : ACT;
    const int64_t i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * VEC;
    const int64_t gate = (int64_t)blockIdx.x * 2 * p.N + i, up = gate + p.N, at = (int64_t)blockIdx.x * p.N + i;
    if (i >= p.N) return;
    if constexpr (VEC == 1) {
        const float g = p.y[gate] + (p.gate_bias ? p.gate_bias[i] : 0.0f);
        const float u = p.y[up] + (p.up_bias ? p.up_bias[i] : 0.0f);
        cu_put(p.out, p.type, at, cu_act(act, g) * u);
    } else {
        float4 v[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const float4 g = biased(cu_get4(p.y, FA_F32, gate + 4 * j), p.gate_bias, i + 4 * j);
            const float4 u = biased(cu_get4(p.y, FA_F32, up + 4 * j), p.up_bias, i + 4 * j);
            v[j] = make_float4(cu_act(act, g.x) * u.x, cu_act(act, g.y) * u.y, cu_act(act, g.z) * u.z,
                               cu_act(act, g.w) * u.w);
        }
        if (p.type == FA_BF16) {
            *(uint4 *)((uint16_t *)p.out + at) = make_uint4(cu_to_bf16x2(v[0].x, v[0].y), cu_to_bf16x2(v[0].z, v[0].w),
                                                            cu_to_bf16x2(v[1].x, v[1].y), cu_to_bf16x2(v[1].z, v[1].w));
        } else {
            cu_put4(p.out, FA_F32, at, v[0]);
            cu_put4(p.out, FA_F32, at + 4, v[1]);
        }
    }
}

static void glu(fa_cuda *cu, const plan *p, const fa_rec *r, const float *y) {
    const int64_t N = p->N / 2;
    glu_param g;
    g.y = y, g.out = r->out.data, g.N = N;
    g.gate_bias = p->lin[0]->bias, g.up_bias = p->lin[1]->bias;
    g.act = r->p.mlp_up.act, g.type = r->out.dtype;
    const dim3 grid((unsigned)p->M, cu_blocks(N, THREADS * 8));
    if (N % 8)
        CU_LAUNCH(cu, (glu_rows<-1, 1>), dim3((unsigned)p->M, cu_blocks(N, THREADS)), THREADS, 0, g);
    else if (g.act == FA_ACT_SILU)
        CU_LAUNCH(cu, (glu_rows<FA_ACT_SILU, 8>), grid, THREADS, 0, g);
    else if (g.act == FA_ACT_GELU_TANH)
        CU_LAUNCH(cu, (glu_rows<FA_ACT_GELU_TANH, 8>), grid, THREADS, 0, g);
    else
        CU_LAUNCH(cu, (glu_rows<-1, 8>), grid, THREADS, 0, g);
}

typedef struct qkv_param {
    const float *y; /* [M, N] the heads of q, k and v */
    int64_t N;
    const float *bias[3]; /* of q, k, v, or NULL */
    cu_qkv_finish finish;
} qkv_param;

/* Block (row, heads): a warp per head, which it brings to shared memory as f32, [dim] a warp. */
static __global__ void __launch_bounds__(THREADS) qkv_heads(qkv_param p) {
    CU_DYN_SMEM(smem);
    cu_pdl_launch();
    cu_pdl_wait();
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, dim = p.finish.dim;
    const int head = (int)(blockIdx.y * (THREADS / CU_WARP)) + warp, row = (int)blockIdx.x;
    const int n_q = p.finish.n_q, n_kv = p.finish.n_kv;
    if (head >= n_q + 2 * n_kv) return; /* the whole warp; no barriers of the block follow */
    float *x = (float *)smem + warp * dim;
    const int part = head < n_q ? 0 : head < n_q + n_kv ? 1 : 2;
    const float *bias = p.bias[part];
    if (bias) bias += (head - (part == 0 ? 0 : part == 1 ? n_q : n_q + n_kv)) * dim;
    const int64_t at = (int64_t)row * p.N + (int64_t)head * dim;
    if (dim % 4 == 0) {
        for (int i = lane * 4; i < dim; i += CU_WARP * 4)
            *(float4 *)(x + i) = biased(cu_get4(p.y, FA_F32, at + i), bias, i);
    } else {
        for (int i = lane; i < dim; i += CU_WARP) x[i] = p.y[at + i] + (bias ? bias[i] : 0.0f);
    }
    __syncwarp();
    cu_warp_finish_head(p.finish, row, head, x);
}

static void finish_qkv(fa_cuda *cu, const plan *p, const fa_rec *r, const cu_batch *b, const float *y) {
    const int per_block = THREADS / CU_WARP;
    qkv_param q;
    q.y = y, q.N = p->N;
    for (int i = 0; i < 3; i++) q.bias[i] = i < p->n ? p->lin[i]->bias : NULL;
    q.finish = cu_qkv_finish_of(r, b);
    CU_LAUNCH(cu, qkv_heads, dim3((unsigned)p->M, cu_blocks(q.finish.n_q + 2 * q.finish.n_kv, per_block)), THREADS,
              (size_t)(per_block * q.finish.dim) * sizeof(float), q);
}

static void skinny(fa_cuda *cu, const plan *p, const fa_rec *r, void *y) {
    cu_skinny_product s = {};
    s.lin = p->lin, s.n = p->n, s.bias = p->bias || p->glu;
    s.M = p->M, s.K = p->K;
    s.x = r->in[0].data, s.x_type = r->in[0].dtype, s.norm = cu_norm_of(p->norm);
    s.work = r->work;
    s.end = p->glu ? CU_SKINNY_GLU : p->add ? CU_SKINNY_ADD : CU_SKINNY_STORE;
    s.out = y, s.out_type = FA_F32, s.ld = p->N;
    if (p->glu) s.act = r->p.mlp_up.act, s.out_type = r->out.dtype, s.ld = p->N / 2;
    cu_skinny_run(cu, &s);
}

void cu_many_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const plan p = plan_of(cu, r);
    float *y = p.y_work ? (float *)((uint8_t *)r->work + p.y_at) : (float *)r->out.data;
    if (p.skinny)
        skinny(cu, &p, r, y);
    else
        products(cu, &p, r, input(cu, &p, r), y);
    if (r->op == FA_OP_NORM_QKV)
        finish_qkv(cu, &p, r, b, y);
    else if (r->op == FA_OP_NORM_MLP_UP && !p.glu)
        glu(cu, &p, r, y);
    else if (p.y_work)
        CU_LAUNCH(cu, add_normed, dim3((unsigned)p.M), THREADS, 0, y, p.N, cu_norm_of(r->p.linear_add.post),
                  (float *)r->out.data);
}
