/* SSD and DELTA: decides between the chunked form (scan_chunk.cu) and the scans row by row, as they are defined, which
 * are here: for decode steps and few rows, and for shapes that the chunked form does not take.
 *
 * A block has 32 columns (p or v) of one head of one sequence: a lane has a column, warp w the states n = w + 8 j, in
 * registers. So a state is read and written once in rows of 128 bytes, all loads of a thread are under way together,
 * and they begin before the kernel in front has ended. Sums over states meet in shared memory: two barriers a row. */
#include "backend/cuda/scan_chunk.h"

enum { COLS = CU_WARP, WARPS = CU_SCAN_WARPS, THREADS = WARPS * CU_WARP, FEW = 8 /* rows of a sequence */ };

/* Sequences done row by row: all, or those in front of the others that have one row each. */
static int by_rows(const fa_cuda *cu, const cu_chunk *c, bool delta, const cu_batch *b) {
    return b->max_q > FEW && cu_chunk_takes(cu, c, delta) ? b->n_dec : b->n_seq;
}

template <int NJ> static __global__ void __launch_bounds__(THREADS) ssd_rows_kernel(cu_chunk a, cu_batch b) {
    __shared__ float2 bc[WARPS * NJ]; /* of a row: delta B and C */
    __shared__ float part[WARPS][CU_WARP];
    const int tid = (int)threadIdx.x, lane = tid % CU_WARP, warp = tid / CU_WARP;
    const int head = (int)blockIdx.y, col = (int)blockIdx.x * COLS + lane, g = sc_group(a, head);
    const int64_t size = (int64_t)a.P * a.N;
    cu_scan_part p = cu_scan_part_of(b, (int)blockIdx.z, a.state, a.stride);
    float h[NJ];
    cu_pdl_launch();
    cu_scan_get<NJ>(h, p.in ? p.in + head * size : NULL, a.N, a.P, col);
    const float bias = a.bias[head], rate = a.rate[head], skip = a.skip[head];
    cu_pdl_wait();
    for (int i = p.from; i < p.to; i++) {
        const float x = col < a.P ? a.x.at[i * a.x.ld + (int64_t)head * a.P + col] : 0.0f;
        const float step = fminf(fmaxf(cu_softplus(a.dt.at[i * a.dt.ld + head] + bias), a.dt_min), a.dt_max);
        const float decay = expf(step * rate);
        float y = 0;
        for (int n = tid; n < WARPS * NJ; n += THREADS) {
            const bool there = n < a.N;
            bc[n] = make_float2(there ? step * a.b.at[i * a.b.ld + (int64_t)g * a.N + n] : 0.0f,
                                there ? a.c.at[i * a.c.ld + (int64_t)g * a.N + n] : 0.0f);
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < NJ; j++) {
            const float2 v = bc[warp + WARPS * j];
            h[j] = fmaf(decay, h[j], v.x * x);
            y = fmaf(v.y, h[j], y);
        }
        part[warp][lane] = y;
        __syncthreads();
        if (warp == 0 && col < a.P) {
            y = skip * x;
            for (int w = 0; w < WARPS; w++) y += part[w][lane];
            a.y[((int64_t)i * a.n_head + head) * a.P + col] = y;
        }
        if (b.keep[i] >= 0) cu_scan_put<NJ>(h, a.state + b.keep[i] * a.stride + head * size, a.N, a.P, col);
    }
    cu_scan_put<NJ>(h, p.out + head * size, a.N, a.P, col);
}

/* The gated delta rule. With S the state before a row: y = (g S + k u^T)^T q = g S^T q + (k q) u, so that both products
 * with S are taken in one pass. Buffers of a row's k and q take turns: one warp may be a row ahead. */
template <int NJ> static __global__ void __launch_bounds__(THREADS) delta_rows_kernel(cu_chunk a, cu_batch b) {
    __shared__ float2 kq[2][WARPS * NJ];
    __shared__ float3 sums[2][WARPS]; /* of k k, q q, k q */
    __shared__ float2 part[WARPS][CU_WARP];
    const int tid = (int)threadIdx.x, lane = tid % CU_WARP, warp = tid / CU_WARP;
    const int head = (int)blockIdx.y, col = (int)blockIdx.x * COLS + lane, kh = sc_group(a, head);
    const int64_t size = (int64_t)a.N * a.P;
    cu_scan_part p = cu_scan_part_of(b, (int)blockIdx.z, a.state, a.stride);
    float S[NJ];
    cu_pdl_launch();
    cu_scan_get<NJ>(S, p.in ? p.in + head * size : NULL, a.N, a.P, col);
    const float bias = a.bias[head], rate = a.rate[head], by_dim = 1.0f / sqrtf((float)a.N);
    cu_pdl_wait();
    for (int i = p.from; i < p.to; i++) {
        const int turn = i & 1;
        float kk = 0, qq = 0, both = 0, sk = 0, sq = 0;
        for (int n = tid; n < WARPS * NJ; n += THREADS) {
            const bool there = n < a.N;
            const float k = there ? a.b.at[i * a.b.ld + (int64_t)kh * a.N + n] : 0.0f,
                        q = there ? a.c.at[i * a.c.ld + (int64_t)kh * a.N + n] : 0.0f;
            kq[turn][n] = make_float2(k, q);
            kk = fmaf(k, k, kk), qq = fmaf(q, q, qq), both = fmaf(k, q, both);
        }
        kk = cu_warp_sum(kk), qq = cu_warp_sum(qq), both = cu_warp_sum(both);
        if (lane == 0) sums[turn][warp] = make_float3(kk, qq, both);
        const float v = col < a.P ? a.x.at[i * a.x.ld + (int64_t)head * a.P + col] : 0.0f;
        const float beta = a.beta_scale * cu_sigmoid(a.beta.at[i * a.beta.ld + head]);
        const float g = expf(rate * cu_softplus(a.dt.at[i * a.dt.ld + head] + bias));
        __syncthreads();
        kk = qq = both = 0;
        for (int w = 0; w < WARPS; w++) {
            const float3 s = sums[turn][w];
            kk += s.x, qq += s.y, both += s.z;
        }
        const float by_k = 1.0f / sqrtf(kk + a.eps), by_q = by_dim / sqrtf(qq + a.eps);
#pragma unroll
        for (int j = 0; j < NJ; j++) {
            const float2 t = kq[turn][warp + WARPS * j];
            sk = fmaf(S[j], t.x, sk), sq = fmaf(S[j], t.y, sq);
        }
        part[warp][lane] = make_float2(sk, sq);
        __syncthreads();
        sk = sq = 0;
        for (int w = 0; w < WARPS; w++) sk += part[w][lane].x, sq += part[w][lane].y;
        const float u = beta * (v - g * by_k * sk);
        if (warp == 0 && col < a.P)
            a.y[((int64_t)i * a.n_head + head) * a.P + col] = fmaf(both * by_k * by_q, u, g * by_q * sq);
#pragma unroll
        for (int j = 0; j < NJ; j++) S[j] = fmaf(g, S[j], kq[turn][warp + WARPS * j].x * (by_k * u));
        if (b.keep[i] >= 0) cu_scan_put<NJ>(S, a.state + b.keep[i] * a.stride + head * size, a.N, a.P, col);
    }
    cu_scan_put<NJ>(S, p.out + head * size, a.N, a.P, col);
}

/* ---- both ---- */

template <int NJ> static void rows_launch(fa_cuda *cu, const cu_chunk &c, bool delta, const cu_batch *b) {
    const dim3 grid(cu_blocks(c.P, COLS), (unsigned)c.n_head, (unsigned)c.first);
    if (delta)
        CU_LAUNCH(cu, delta_rows_kernel<NJ>, grid, THREADS, 0, c, *b);
    else
        CU_LAUNCH(cu, ssd_rows_kernel<NJ>, grid, THREADS, 0, c, *b);
}

static void launch(fa_cuda *cu, cu_chunk c, bool delta, const cu_batch *b) {
    c.first = by_rows(cu, &c, delta, b);
    (c.N <= 64 ? rows_launch<8> : c.N <= 128 ? rows_launch<16> : rows_launch<32>)(cu, c, delta, b);
    if (c.first < b->n_seq) cu_chunk_launch(cu, c, delta, b);
}

enum { MOST = 256 /* states of a column */ };

static int64_t work(const cu_chunk &c, bool delta, fa_error *err) {
    if (c.N <= MOST) return cu_chunk_work(&c, delta);
    return fa_fail(err, FFAI_ENOTSUP, "no kernel for %d states of a column, at most %d", c.N, MOST);
}

static cu_chunk ssd_chunk(const fa_rec *r) {
    const fa_ssd *w = r->p.ssd.w;
    cu_chunk c = {};
    c.c = cu_view_of(&r->p.ssd.c), c.b = cu_view_of(&r->p.ssd.b), c.x = cu_view_of(&r->p.ssd.x);
    c.dt = cu_view_of(&r->p.ssd.dt);
    c.y = fa_f32(r->out);
    c.state = r->p.ssd.state->scan, c.stride = r->p.ssd.state->stride;
    c.rate = w->a, c.bias = w->dt_bias, c.skip = w->d;
    c.n_head = w->n_head, c.n_group = w->n_group, c.P = w->head_dim, c.N = w->n_state;
    c.n_tok = (int)r->out.dim[0];
    c.dt_min = w->dt_min, c.dt_max = w->dt_max;
    return c;
}

static void ssd_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) { launch(cu, ssd_chunk(r), false, b); }
static int64_t ssd_work(const fa_cuda *, const fa_rec *r, fa_error *err) { return work(ssd_chunk(r), false, err); }
extern const cu_op cu_op_ssd = {ssd_launch, ssd_work};

static cu_chunk delta_chunk(const fa_rec *r) {
    const fa_delta *w = r->p.delta.w;
    cu_chunk c = {};
    c.c = cu_view_of(&r->p.delta.q), c.b = cu_view_of(&r->p.delta.k), c.x = cu_view_of(&r->p.delta.v);
    c.dt = cu_view_of(&r->p.delta.a), c.beta = cu_view_of(&r->p.delta.beta);
    c.y = fa_f32(r->out);
    c.state = r->p.delta.state->scan, c.stride = r->p.delta.state->stride;
    c.rate = w->decay, c.bias = w->dt_bias;
    c.n_head = w->n_v_head, c.n_group = w->n_k_head, c.tiled = w->tiled, c.P = w->v_dim, c.N = w->k_dim;
    c.n_tok = (int)r->out.dim[0];
    c.beta_scale = w->beta_scale, c.eps = w->eps;
    return c;
}

static void delta_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) { launch(cu, delta_chunk(r), true, b); }
static int64_t delta_work(const fa_cuda *, const fa_rec *r, fa_error *err) { return work(delta_chunk(r), true, err); }
extern const cu_op cu_op_delta = {delta_launch, delta_work};
