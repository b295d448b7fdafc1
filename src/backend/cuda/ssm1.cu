/* SSM1, the selective scan of Mamba 1: rows in order, parallel over channels and states. L lanes of a warp share a
 * channel, each with NS of its states in registers, so that a few thousand channels fill the GPU; per row a lane does
 * NS exponentials, of which a multiprocessor has 16 a cycle (a thirtieth of the projections' time at prompts of a 7B
 * shape). Rows come in tiles through shared memory: step sizes are made once per channel, B and C read once per block.
 */
#include "backend/cuda/scan.h"

enum { WARPS = 4, THREADS = WARPS * CU_WARP, TILE = 16 /* rows */, MOST = 256 };

typedef struct ssm1_args {
    cu_view x, dt, b, c;
    float *y;     /* [n_tok, dim] */
    float *state; /* of state 0 */
    int64_t stride;
    const float *a, *d;
    int dim, n_state, lanes; /* L, a power of two */
} ssm1_args;

/* Shared memory: TILE rows of x and delta of the block's channels, then of B and C, n_state rounded up to L * NS. */
static __host__ __device__ int channels_of(int lanes) { return THREADS / lanes; }

template <int NS> CU_DEV void put_state(const ssm1_args &a, const float *h, float *s, int first, int ch) {
#pragma unroll
    for (int j = 0; j < NS; j++)
        if (ch < a.dim && first + j < a.n_state) s[(int64_t)(first + j) * a.dim + ch] = h[j];
}

/* Rows [row, row + n) to shared memory. */
CU_DEV void load_tile(const ssm1_args &a, int row, int n, int c0, int n_ch, int width, float *x, float *b) {
    const int tid = (int)threadIdx.x;
    float *dt = x + TILE * n_ch, *c = b + TILE * width;
    for (int e = tid; e < n * n_ch; e += THREADS) {
        const int i = row + e / n_ch, ch = c0 + e % n_ch;
        x[e] = ch < a.dim ? a.x.at[i * a.x.ld + ch] : 0.0f;
        dt[e] = ch < a.dim ? cu_softplus(a.dt.at[i * a.dt.ld + ch]) : 0.0f;
    }
    for (int e = tid; e < n * width; e += THREADS) {
        const int i = row + e / width, s = e % width;
        b[e] = s < a.n_state ? a.b.at[i * a.b.ld + s] : 0.0f;
        c[e] = s < a.n_state ? a.c.at[i * a.c.ld + s] : 0.0f;
    }
}

template <int NS> static __global__ void __launch_bounds__(THREADS) ssm1_kernel(ssm1_args a, cu_batch b) {
    CU_DYN_SMEM(smem);
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, per_warp = CU_WARP / a.lanes;
    const int n_ch = channels_of(a.lanes), width = a.lanes * NS, c0 = (int)blockIdx.x * n_ch;
    const int mine = warp * per_warp + lane % per_warp, ch = c0 + mine, first = lane / per_warp * NS;
    float *xs = (float *)smem, *ds = xs + TILE * n_ch, *bs = ds + TILE * n_ch, *cs = bs + TILE * width;
    const cu_scan_part p = cu_scan_part_of(b, (int)blockIdx.y, a.state, a.stride);
    float h[NS], rate[NS]; /* rate: log2 of the decay per step size */
    cu_pdl_launch();
#pragma unroll
    for (int j = 0; j < NS; j++) {
        const bool there = ch < a.dim && first + j < a.n_state;
        const int64_t at = (int64_t)(first + j) * a.dim + ch;
        h[j] = there && p.in ? p.in[at] : 0.0f;
        rate[j] = there ? a.a[at] * CU_LOG2E : 0.0f;
    }
    const float skip = ch < a.dim ? a.d[ch] : 0.0f;
    cu_pdl_wait();
    for (int row = p.from; row < p.to; row += TILE) {
        const int n = min((int)TILE, p.to - row);
        __syncthreads();
        load_tile(a, row, n, c0, n_ch, width, xs, bs);
        __syncthreads();
        for (int i = 0; i < n; i++) {
            const float x = xs[i * n_ch + mine], delta = ds[i * n_ch + mine], dx = delta * x;
            float y = 0;
#pragma unroll
            for (int j = 0; j < NS; j++) {
                h[j] = fmaf(cu_exp2(delta * rate[j]), h[j], dx * bs[i * width + first + j]);
                y = fmaf(cs[i * width + first + j], h[j], y);
            }
            for (int d = per_warp; d < CU_WARP; d *= 2) y += __shfl_xor_sync(0xffffffffu, y, d);
            if (lane < per_warp && ch < a.dim) a.y[(int64_t)(row + i) * a.dim + ch] = fmaf(skip, x, y);
            if (b.keep[row + i] >= 0) put_state<NS>(a, h, a.state + b.keep[row + i] * a.stride, first, ch);
        }
    }
    put_state<NS>(a, h, p.out, first, ch);
}

template <int NS> static void launch(fa_cuda *cu, ssm1_args a, const cu_batch *b) {
    a.lanes = 1;
    while (a.lanes * NS < a.n_state) a.lanes *= 2;
    const int n_ch = channels_of(a.lanes);
    const size_t smem = sizeof(float) * 2 * TILE * (size_t)(n_ch + a.lanes * NS);
    CU_LAUNCH(cu, ssm1_kernel<NS>, dim3(cu_blocks(a.dim, n_ch), (unsigned)b->n_seq), THREADS, smem, a, *b);
}

static void ssm1_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_ssm1 *w = r->p.ssm1.w;
    ssm1_args a = {};
    a.x = cu_view_of(&r->p.ssm1.x), a.dt = cu_view_of(&r->p.ssm1.dt);
    a.b = cu_view_of(&r->p.ssm1.b), a.c = cu_view_of(&r->p.ssm1.c);
    a.y = fa_f32(r->out);
    a.state = r->p.ssm1.state->scan, a.stride = r->p.ssm1.state->stride;
    a.a = w->a, a.d = w->d, a.dim = (int)w->dim, a.n_state = (int)w->n_state;
    if (a.n_state <= 64)
        launch<4>(cu, a, b);
    else
        launch<16>(cu, a, b);
}

static int64_t ssm1_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    if (r->p.ssm1.w->n_state <= MOST) return 0;
    return fa_fail(err, FFAI_ENOTSUP, "no kernel for %lld states of a channel, at most %d",
                   (long long)r->p.ssm1.w->n_state, MOST);
}
extern const cu_op cu_op_ssm1 = {ssm1_launch, ssm1_work};
