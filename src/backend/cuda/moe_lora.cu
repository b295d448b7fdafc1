/* Adapters of experts on the GPU: what they change on the products of MOE, for the rows whose sequences use them. The
 * definition is src/backend/cpu/ops_moe.c. moe.cu and moe_many.cu make the products of gate and up apart, without the
 * activation, when an adapter changes one of them; then come u = scale * (a x), += b u, and the activation. For `down`
 * u is made of the hidden rows; b u goes to the products before they are summed up (many rows), or, weighted, to the
 * sum (few rows). All in f32; products of down alone may be stored as bf16.
 *
 * Places are those of the products: choices (row, k) sorted by expert, or as they come. Neighbours mostly have the same
 * expert, so a block that works on several reads its matrices once. */
#include "backend/cuda/lora.cuh"
#include "backend/cuda/moe.h"

enum { THREADS = 128, WARPS = THREADS / CU_WARP, ROWS = 8 /* places of a block when there are many */, CHUNK = 64 };

/* What the kernels look up of a place. */
typedef struct places {
    const fa_lora *item;
    int n_item, n_used, n_expert;
    const float *choice;    /* [M, 2 n_used] */
    const int32_t *list;    /* choice at a place; NULL: they are in order */
    const int32_t *out_row; /* of the batch, when rows are outputs; or NULL */
    int64_t M, P;
} places;

/* The number of the expert's matrix in a stack, -1: the adapter does not change it there, or the row does not use the
 * adapter; *s: the scale. */
CU_DEV int matrix_at(const places &p, const fa_lora &l, const cu_batch &b, int64_t place, float *s) {
    *s = 0;
    if (place >= p.P) return -1;
    const int64_t pair = p.list ? p.list[place] : place, m = pair / p.n_used;
    const unsigned e = (unsigned)__float_as_int(p.choice[m * 2 * p.n_used + p.n_used + pair % p.n_used]);
    *s = cu_lora_scale(l, b, p.out_row, m, p.M);
    return *s != 0 && e < (unsigned)p.n_expert ? l.expert[e] : -1;
}

/* The matrix that places which are still to do share with the first of them; -1: none is to do. mine: which share it.
 */
template <int R> CU_DEV int next_matrix(int at[R], bool mine[R]) {
    int k = -1;
#pragma unroll
    for (int j = 0; j < R; j++) k = k < 0 ? at[j] : k;
#pragma unroll
    for (int j = 0; j < R; j++) {
        mine[j] = k >= 0 && at[j] == k;
        if (mine[j]) at[j] = -1;
    }
    return k;
}

/* A warp: one row of one adapter's a, times R places' rows of x: row of x = place, or `by_row` the row of the choice.
 */
template <int R>
static __global__ void moe_lora_first(places p, cu_batch b, const void *x, int x_type, int64_t ldx, int by_row,
                                      int64_t K, int vec, float *u, int64_t ldu) {
    const fa_lora &l = p.item[blockIdx.y];
    const int lane = (int)threadIdx.x % CU_WARP, type = cu_lora_type(l.a);
    const int64_t p0 = (int64_t)blockIdx.x * R, r = (int64_t)blockIdx.z * WARPS + threadIdx.x / CU_WARP;
    const int64_t rank = l.b.cols;
    cu_pdl_launch();
    cu_pdl_wait();
    if (r >= rank) return; /* the whole warp */
    float s[R], acc[R];
    int at[R];
    const uint8_t *row[R];
    bool mine[R];
#pragma unroll
    for (int j = 0; j < R; j++) {
        at[j] = matrix_at(p, l, b, p0 + j, &s[j]);
        const int64_t i = at[j] < 0 ? 0 : by_row ? (p.list ? p.list[p0 + j] : p0 + j) / p.n_used : p0 + j;
        row[j] = (const uint8_t *)x + i * ldx * (x_type == FA_F32 ? 4 : 2);
    }
    for (int k; (k = next_matrix<R>(at, mine)) >= 0;) { /* the same for all lanes */
        const uint8_t *a = l.a.codes + (size_t)(k * rank + r) * l.a.row_bytes;
#pragma unroll
        for (int j = 0; j < R; j++) acc[j] = 0;
        for (int64_t c = 4 * lane; vec && c < K; c += 4 * CU_WARP) {
            const float4 w = cu_get4(a, type, c);
#pragma unroll
            for (int j = 0; j < R; j++)
                if (mine[j]) acc[j] = cu_dot4(w, cu_get4(row[j], x_type, c), acc[j]);
        }
        for (int64_t c = lane; !vec && c < K; c += CU_WARP) {
            const float w = cu_get(a, type, c);
#pragma unroll
            for (int j = 0; j < R; j++)
                if (mine[j]) acc[j] = fmaf(w, cu_get(row[j], x_type, c), acc[j]);
        }
#pragma unroll
        for (int j = 0; j < R; j++) {
            const float sum = cu_warp_sum(acc[j]);
            if (lane == 0 && mine[j]) u[(p0 + j) * ldu + l.u_from + r] = s[j] * sum;
        }
    }
}

/* acc[j] += row n of b's k-th matrix, times u of the places that share it. A block's threads have a column n each. */
template <int R>
CU_DEV void add_matrix(const fa_lora &l, int k, const bool mine[R], int64_t p0, int64_t n, int64_t N, const float *u,
                       int64_t ldu, float part[R][CHUNK], float acc[R]) {
    const uint8_t *row = l.b.codes + (size_t)(k * N + (n < N ? n : 0)) * l.b.row_bytes;
    const int type = cu_lora_type(l.b);
    const int64_t rank = l.b.cols;
    for (int64_t r0 = 0; r0 < rank; r0 += CHUNK) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < R; j++)
            for (int c = (int)threadIdx.x; c < CHUNK; c += THREADS)
                part[j][c] = mine[j] && r0 + c < rank ? u[(p0 + j) * ldu + l.u_from + r0 + c] : 0;
        __syncthreads();
        const int end = rank - r0 < CHUNK ? (int)(rank - r0) : (int)CHUNK;
        for (int c = 0; c < end; c += 4) {
            const float4 w = cu_get4(row, type, r0 + c);
#pragma unroll
            for (int j = 0; j < R; j++)
                acc[j] = cu_dot4(w, make_float4(part[j][c], part[j][c + 1], part[j][c + 2], part[j][c + 3]), acc[j]);
        }
    }
}

/* A block: THREADS columns of R places' rows of y. */
template <int R>
static __global__ void moe_lora_add(places p, cu_batch b, const float *u, int64_t ldu, int64_t N, void *y, int y_type,
                                    int64_t ldy) {
    __shared__ float part[R][CHUNK];
    const int64_t p0 = (int64_t)blockIdx.x * R, n = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    cu_pdl_launch();
    cu_pdl_wait();
    float acc[R], s;
    bool used[R], mine[R];
#pragma unroll
    for (int j = 0; j < R; j++) acc[j] = 0, used[j] = false;
    for (int i = 0; i < p.n_item; i++) {
        const fa_lora &l = p.item[i];
        int at[R];
#pragma unroll
        for (int j = 0; j < R; j++) {
            at[j] = matrix_at(p, l, b, p0 + j, &s);
            used[j] = used[j] || at[j] >= 0;
        }
        for (int k; (k = next_matrix<R>(at, mine)) >= 0;) /* the same for all threads */
            add_matrix<R>(l, k, mine, p0, n, N, u, ldu, part, acc);
    }
#pragma unroll
    for (int j = 0; j < R; j++)
        if (used[j] && n < N) cu_put(y, y_type, (p0 + j) * ldy + n, cu_get(y, y_type, (p0 + j) * ldy + n) + acc[j]);
}

/* A block: THREADS columns of one row of out, which gets the weighted sum over its choices, times scale. Places are in
 * order. */
static __global__ void moe_lora_out(places p, cu_batch b, const float *u, int64_t ldu, int64_t N, float scale,
                                    float *out) {
    __shared__ float part[1][CHUNK];
    const int64_t m = blockIdx.x, n = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    cu_pdl_launch();
    cu_pdl_wait();
    float sum = 0, s;
    const bool mine[1] = {true};
    bool used = false;
    for (int c = 0; c < p.n_used; c++) {
        float acc[1] = {0};
        for (int i = 0; i < p.n_item; i++) {
            const int k = matrix_at(p, p.item[i], b, m * p.n_used + c, &s);
            if (k < 0) continue; /* the same for all threads */
            used = true;
            add_matrix<1>(p.item[i], k, mine, m * p.n_used + c, n, N, u, ldu, part, acc);
        }
        sum = fmaf(p.choice[m * 2 * p.n_used + c], acc[0], sum);
    }
    if (used && n < N) out[m * N + n] += scale * sum;
}

/* h = act(gate) * up, or act(up) without gates, as fa_moe says; zeros in columns [n, ld). h may be up. */
static __global__ void moe_lora_act(const float *gate, const float *up, void *h, int type, int64_t n, int64_t ld,
                                    int act, float limit) {
    const int64_t c = (int64_t)blockIdx.y * THREADS + threadIdx.x, at = (int64_t)blockIdx.x * ld + c;
    cu_pdl_launch();
    cu_pdl_wait();
    if (c >= ld) return;
    float v = 0;
    if (c < n) {
        v = up[at];
        if (limit > 0) v = fminf(fmaxf(v, -limit), limit) + 1.0f;
        v = gate ? cu_act(act, limit > 0 ? fminf(gate[at], limit) : gate[at]) * v : cu_act(act, v);
    }
    cu_put(h, type, at, v);
}

/* ---- host ---- */

static places places_of(const fa_rec *r, const cu_batch *b, const fa_loras *l, const int32_t *list) {
    places p;
    p.item = l->dev_item, p.n_item = l->n;
    p.n_used = r->p.moe.n_used, p.n_expert = (int)r->p.moe.moe->up.n;
    p.choice = (const float *)r->in[1].data, p.list = list;
    p.out_row = r->p.moe.out_rows ? b->out_row : NULL;
    p.M = r->in[0].dim[0], p.P = p.M * p.n_used;
    return p;
}

bool cu_moe_lora_on(const fa_rec *r, bool first) {
    return (first && (r->p.moe.lora[0] || r->p.moe.lora[1])) || (!first && r->p.moe.lora[2]);
}

int64_t cu_moe_lora_bytes(const fa_rec *r) {
    int64_t most = 0;
    for (int i = 0; i < 3; i++)
        if (r->p.moe.lora[i] && r->p.moe.lora[i]->rank > most) most = r->p.moe.lora[i]->rank;
    return most * r->in[0].dim[0] * r->p.moe.n_used * (int64_t)sizeof(float);
}

/* u of a product whose input rows are x. */
static void first(fa_cuda *cu, const fa_loras *l, const places &p, const cu_batch *b, cu_moe_lora_rows x, float *u) {
    const int64_t K = l->item[0].a.cols;
    const int vec = K % 4 == 0 && x.ld % 4 == 0 && (uintptr_t)x.at % 16 == 0;
    const bool few = p.M <= CU_FEW;
    const dim3 grid(cu_blocks(p.P, few ? 1 : (int64_t)ROWS), (unsigned)l->n, cu_blocks(l->max_rank, WARPS));
    if (few)
        CU_LAUNCH(cu, moe_lora_first<1>, grid, THREADS, 0, p, *b, (const void *)x.at, x.type, x.ld, (int)x.by_row, K,
                  vec, u, l->rank);
    else
        CU_LAUNCH(cu, moe_lora_first<ROWS>, grid, THREADS, 0, p, *b, (const void *)x.at, x.type, x.ld, (int)x.by_row, K,
                  vec, u, l->rank);
}

void cu_moe_lora(fa_cuda *cu, const fa_rec *r, const cu_batch *b, int mat, const int32_t *list, cu_moe_lora_rows x,
                 cu_moe_lora_rows y, float *u) {
    const fa_loras *l = r->p.moe.lora[mat];
    if (!l) return;
    const places p = places_of(r, b, l, list);
    const int64_t N = mat == 2 ? r->p.moe.moe->down.w[0].rows : r->p.moe.moe->up.w[0].rows;
    first(cu, l, p, b, x, u);
    if (p.M <= CU_FEW && !y.at)
        CU_LAUNCH(cu, moe_lora_out, dim3((unsigned)p.M, cu_blocks(N, THREADS)), THREADS, 0, p, *b, (const float *)u,
                  l->rank, N, r->p.moe.scale, fa_f32(r->out));
    else if (p.M <= CU_FEW)
        CU_LAUNCH(cu, moe_lora_add<1>, dim3((unsigned)p.P, cu_blocks(N, THREADS)), THREADS, 0, p, *b, (const float *)u,
                  l->rank, N, (void *)y.at, y.type, y.ld);
    else
        CU_LAUNCH(cu, moe_lora_add<ROWS>, dim3(cu_blocks(p.P, ROWS), cu_blocks(N, THREADS)), THREADS, 0, p, *b,
                  (const float *)u, l->rank, N, (void *)y.at, y.type, y.ld);
}

void cu_moe_lora_activate(fa_cuda *cu, const fa_rec *r, cu_moe_lora_rows gate, cu_moe_lora_rows up,
                          cu_moe_lora_rows h) {
    const fa_moe *m = r->p.moe.moe;
    const int64_t P = r->in[0].dim[0] * r->p.moe.n_used;
    CU_LAUNCH(cu, moe_lora_act, dim3((unsigned)P, cu_blocks(h.ld, THREADS)), THREADS, 0, (const float *)gate.at,
              (const float *)up.at, h.at, h.type, m->up.w[0].rows, h.ld, (int)m->act, m->limit);
}
