/* Recurrent layers in decode steps: CONV, then SSD or DELTA on what it gives, then GATE_NORM of that, as one kernel
 * instead of three, where a program has them one after the other. Everything that the three write is written, so nobody
 * can tell but by the time: between kernels a step waits for the slowest block and for memory to answer, which takes as
 * long as reading the state of one sequence.
 *
 * A block has 32 columns of one head of one sequence, as in scan_rows.cu, and convolves for itself the channels that it
 * needs; those that several blocks share are written by one of them. This takes that a step's states are not changed in
 * place, which holds on devices (cache/state.h). State, inputs before the row, and weights are fetched before the
 * projection in front has ended.
 *
 * A norm of all columns behind the gate is left to the projection that follows, which normalises its input like any
 * other layer behind a norm: this kernel puts the gated rows into that record's work memory. Otherwise the last block
 * of a norm's group to finish normalises; it has two answers of memory to wait for, one block's work. */
#include "backend/cuda/scan.h"
#include "backend/cuda/skinny.h"

#include <stdlib.h>

enum {
    COLS = CU_WARP,
    WARPS = CU_SCAN_WARPS,
    THREADS = WARPS * CU_WARP,
    TAPS = 4,    /* most of the convolution */
    WIDEST = 16, /* columns of a norm's group that a thread has at most */
    MOST = 256   /* states of a column */
};

/* Both scans in the terms of Mamba 2: C and q, B and k, x and v. */
typedef struct step_args {
    cu_view x; /* of the convolution */
    float *u;  /* [n_tok, n_ch], what it gives */
    float *conv, *scan;
    int64_t stride;
    const float *cw, *cb;
    int n_ch, kernel, silu, at_c, at_b, at_x; /* at: first channels */
    cu_view dt, beta;
    float *y; /* [n_tok, n_head * P] */
    const float *rate, *bias, *skip;
    int n_head, n_group, tiled, P, N;
    float dt_min, dt_max, beta_scale, eps;
    cu_view z;
    const float *w;
    int gated, group, shared, norm_first, act; /* group: columns of a norm, 0: none */
    float gate_eps;
    uint32_t *counter; /* [n_seq, n_head * P / group] */
} step_args;

/* What a thread knows of one channel before its input is there. */
typedef struct channel {
    int at; /* -1: none */
    float last[TAPS - 1], w[TAPS], bias;
} channel;

/* Entry e of the block's channels: N of C, N of B, 32 of x. */
CU_DEV int channel_at(const step_args &a, int e, int head, int group, int col0) {
    if (e < a.N) return a.at_c + group * a.N + e;
    if (e < 2 * a.N) return a.at_b + group * a.N + e - a.N;
    const int col = col0 + e - 2 * a.N;
    return e < 2 * a.N + COLS && col < a.P ? a.at_x + head * a.P + col : -1;
}

CU_DEV channel get_channel(const step_args &a, const float *state, int at) {
    channel c;
    c.at = at;
    c.bias = at >= 0 && a.cb ? a.cb[at] : 0.0f;
#pragma unroll
    for (int j = 0; j < TAPS; j++) {
        const bool there = at >= 0 && j < a.kernel;
        c.w[j] = there ? a.cw[(int64_t)at * a.kernel + j] : 0.0f;
        if (j < TAPS - 1) c.last[j] = there && j < a.kernel - 1 && state ? state[(int64_t)j * a.n_ch + at] : 0.0f;
    }
    return c;
}

/* The state after the row: the inputs move up by one. */
CU_DEV void put_channel(const step_args &a, const channel &c, float x, float *state) {
#pragma unroll
    for (int j = 0; j < TAPS - 1; j++)
        if (j < a.kernel - 1)
            state[(int64_t)j * a.n_ch + c.at] = j + 1 < a.kernel - 1 ? c.last[j + 1 < TAPS - 1 ? j + 1 : 0] : x;
}

CU_DEV float convolve(const step_args &a, const channel &c, float x) {
    float sum = c.bias;
#pragma unroll
    for (int j = 0; j < TAPS; j++)
        if (j < a.kernel) sum = fmaf(c.w[j], j < a.kernel - 1 ? c.last[j < TAPS - 1 ? j : 0] : x, sum);
    return a.silu ? cu_act_silu(sum) : sum;
}

/* The last block of a group: norm of y [group], gated before or after; a thread reads once what it writes. All loads
 * stand before the first store: behind it they would wait for each other, which took 13 us for 4,096 columns. */
CU_DEV void finish_group(const step_args &a, int row, int at, double *part) {
    float *y = a.y + (int64_t)row * a.n_head * a.P + at, v[WIDEST], by[WIDEST], s = 0;
    const float *z = a.z.at + row * a.z.ld + at, *w = a.shared ? a.w : a.w + at;
    bool wide;
#pragma unroll
    for (int k = 0; k < WIDEST; k++) {
        const int i = (int)threadIdx.x + k * THREADS;
        v[k] = i < a.group ? __ldcg(y + i) : 0.0f;
        by[k] = i < a.group ? w[i] : 0.0f;
    }
    if (a.norm_first)
#pragma unroll
        for (int k = 0; k < WIDEST; k++) {
            const int i = (int)threadIdx.x + k * THREADS;
            if (i < a.group) by[k] *= cu_act(a.act, z[i]);
        }
#pragma unroll
    for (int k = 0; k < WIDEST; k++) s = fmaf(v[k], v[k], s);
    float r = cu_inv_rms(cu_block_sum(s, (float *)part), a.group, a.gate_eps, &wide);
    if (wide) {
        double d = 0;
#pragma unroll
        for (int k = 0; k < WIDEST; k++) d += (double)v[k] * (double)v[k];
        r = cu_inv_rms_wide(cu_block_sum_wide(d, part), a.group, a.gate_eps);
    }
#pragma unroll
    for (int k = 0; k < WIDEST; k++) {
        const int i = (int)threadIdx.x + k * THREADS;
        if (i < a.group) y[i] = v[k] * r * by[k];
    }
}

template <bool DELTA, int NJ> static __global__ void __launch_bounds__(THREADS) step_kernel(step_args a, cu_batch b) {
    constexpr int N = WARPS * NJ, ROUNDS = (2 * N + COLS + THREADS - 1) / THREADS;
    __shared__ float ch[2 * N + COLS]; /* of C, B (both [a.N]), x */
    __shared__ float2 part[WARPS][CU_WARP];
    __shared__ float3 sums[WARPS];
    __shared__ double wide[CU_WARP];
    __shared__ int last;
    const int tid = (int)threadIdx.x, lane = tid % CU_WARP, warp = tid / CU_WARP;
    const int head = (int)blockIdx.y, seq = (int)blockIdx.z, col0 = (int)blockIdx.x * COLS, col = col0 + lane;
    const int per = a.n_head / a.n_group, group = a.tiled ? head % a.n_group : head / per;
    const bool first = blockIdx.x == 0 && (a.tiled ? head < a.n_group : head % per == 0); /* of its group's blocks */
    const int64_t size = (int64_t)head * a.N * a.P;
    const int row = b.row_start[seq], from = b.state_in[seq], keep = b.keep[row];
    const float *conv_in = from < 0 ? NULL : a.conv + from * a.stride;
    float *conv_out = a.conv + b.state_out[seq] * a.stride, *out = a.scan + b.state_out[seq] * a.stride + size;
    float h[NJ];
    channel c[ROUNDS];
    cu_pdl_launch();
#pragma unroll
    for (int k = 0; k < ROUNDS; k++)
        c[k] = get_channel(a, conv_in, channel_at(a, tid + k * THREADS, head, group, col0));
    cu_scan_get<NJ>(h, from < 0 ? NULL : a.scan + from * a.stride + size, a.N, a.P, col);
    const float bias = a.bias[head], rate = a.rate[head], skip = DELTA ? 0.0f : a.skip[head];
    cu_pdl_wait();
    const float dt = a.dt.at[row * a.dt.ld + head], beta = DELTA ? a.beta.at[row * a.beta.ld + head] : 0.0f;
    const int at = head * a.P + col;
    const bool ends = warp == 0 && col < a.P, gates = ends && a.gated && (!a.group || !a.norm_first);
    const float z = gates ? a.z.at[row * a.z.ld + at] : 0.0f;
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
        const int e = tid + k * THREADS;
        const float x = c[k].at >= 0 ? a.x.at[row * a.x.ld + c[k].at] : 0.0f,
                    v = c[k].at >= 0 ? convolve(a, c[k], x) : 0.0f;
        if (e < 2 * a.N + COLS) ch[e] = v;
        if (c[k].at < 0 || (e < 2 * a.N && !first)) continue;
        a.u[(int64_t)row * a.n_ch + c[k].at] = v;
        put_channel(a, c[k], x, conv_out);
        if (keep >= 0) put_channel(a, c[k], x, a.conv + keep * a.stride);
    }
    __syncthreads();
    auto put_state = [&] {
        cu_scan_put<NJ>(h, out, a.N, a.P, col);
        if (keep >= 0) cu_scan_put<NJ>(h, a.scan + keep * a.stride + size, a.N, a.P, col);
    };
    const float *C = ch, *B = ch + a.N;
    const float x = ch[2 * a.N + lane];
    float y = 0;
    if constexpr (DELTA) {
        float kk = 0, qq = 0, both = 0, sk = 0, sq = 0;
        for (int n = tid; n < a.N; n += THREADS) {
            const float k = B[n], q = C[n];
            kk = fmaf(k, k, kk), qq = fmaf(q, q, qq), both = fmaf(k, q, both);
        }
        kk = cu_warp_sum(kk), qq = cu_warp_sum(qq), both = cu_warp_sum(both);
        if (lane == 0) sums[warp] = make_float3(kk, qq, both);
#pragma unroll
        for (int j = 0; j < NJ; j++) {
            const int n = warp + WARPS * j;
            if (n < a.N) sk = fmaf(h[j], B[n], sk), sq = fmaf(h[j], C[n], sq);
        }
        part[warp][lane] = make_float2(sk, sq);
        __syncthreads();
        kk = qq = both = sk = sq = 0;
        for (int w = 0; w < WARPS; w++) {
            kk += sums[w].x, qq += sums[w].y, both += sums[w].z;
            sk += part[w][lane].x, sq += part[w][lane].y;
        }
        const float by_k = 1.0f / sqrtf(kk + a.eps), by_q = 1.0f / (sqrtf(qq + a.eps) * sqrtf((float)a.N));
        const float g = expf(rate * cu_softplus(dt + bias));
        const float u = a.beta_scale * cu_sigmoid(beta) * (x - g * by_k * sk);
        y = fmaf(both * by_k * by_q, u, g * by_q * sq);
#pragma unroll
        for (int j = 0; j < NJ; j++) {
            const int n = warp + WARPS * j;
            if (n < a.N) h[j] = fmaf(g, h[j], B[n] * (by_k * u));
        }
        if (!a.group) put_state(); /* else what is waited for goes first */
    } else {
        const float step = fminf(fmaxf(cu_softplus(dt + bias), a.dt_min), a.dt_max), decay = expf(step * rate);
#pragma unroll
        for (int j = 0; j < NJ; j++) {
            const int n = warp + WARPS * j;
            if (n < a.N) h[j] = fmaf(decay, h[j], step * B[n] * x), y = fmaf(C[n], h[j], y);
        }
        part[warp][lane] = make_float2(y, 0);
        if (!a.group) put_state();
        __syncthreads();
        y = skip * x;
        for (int w = 0; w < WARPS; w++) y += part[w][lane].x;
    }
    if (ends) a.y[(int64_t)row * a.n_head * a.P + at] = gates ? y * cu_act(a.act, z) : y;
    if (a.group) { /* warp 0 wrote, and its lane 0 counts */
        const int n_group = a.n_head * a.P / a.group, g = head * a.P / a.group;
        __syncthreads();
        if (tid == 0) {
            uint32_t *count = a.counter + seq * n_group + g;
            __threadfence();
            last = atomicAdd(count, 1u) + 1 == (uint32_t)(a.group / a.P) * gridDim.x;
            if (last) *count = 0;
            __threadfence();
        }
    }
    if (!a.group) return;
    put_state();
    __syncthreads();
    if (last) finish_group(a, row, head * a.P / a.group * a.group, wide);
}

/* ---- which records ---- */

/* The first column of v in the tensor that CONV puts out; -1: it lies elsewhere. */
static int inside(const fa_view *v, const fa_rec *conv) {
    const float *at = fa_f32(conv->out);
    const int64_t n = conv->out.dim[1];
    return v->stride == n && v->at >= at && v->at < at + n ? (int)(v->at - at) : -1;
}
static bool apart(const fa_view *v, fa_tensor t) {
    const float *at = fa_f32(t);
    return v->at < at || v->at >= at + t.dim[0] * t.dim[1];
}

static bool take_conv(step_args *a, const fa_rec *r) {
    const fa_conv *w = r->p.conv.w;
    a->x = cu_view_of(&r->p.conv.x), a->u = fa_f32(r->out);
    a->conv = r->p.conv.state->conv + w->state_at, a->stride = r->p.conv.state->stride;
    a->cw = w->w, a->cb = w->bias;
    a->n_ch = (int)w->n, a->kernel = w->kernel, a->silu = w->act == FA_ACT_SILU;
    return w->kernel <= TAPS;
}

static bool take_ssd(step_args *a, const fa_rec *conv, const fa_rec *r) {
    const fa_ssd *w = r->p.ssd.w;
    a->at_c = inside(&r->p.ssd.c, conv), a->at_b = inside(&r->p.ssd.b, conv), a->at_x = inside(&r->p.ssd.x, conv);
    a->dt = cu_view_of(&r->p.ssd.dt);
    a->scan = r->p.ssd.state->scan, a->y = fa_f32(r->out);
    a->rate = w->a, a->bias = w->dt_bias, a->skip = w->d;
    a->n_head = w->n_head, a->n_group = w->n_group, a->P = w->head_dim, a->N = w->n_state;
    a->dt_min = w->dt_min, a->dt_max = w->dt_max;
    return r->p.ssd.state == conv->p.conv.state && apart(&r->p.ssd.dt, conv->out);
}

static bool take_delta(step_args *a, const fa_rec *conv, const fa_rec *r) {
    const fa_delta *w = r->p.delta.w;
    a->at_c = inside(&r->p.delta.q, conv), a->at_b = inside(&r->p.delta.k, conv);
    a->at_x = inside(&r->p.delta.v, conv);
    a->dt = cu_view_of(&r->p.delta.a), a->beta = cu_view_of(&r->p.delta.beta);
    a->scan = r->p.delta.state->scan, a->y = fa_f32(r->out);
    a->rate = w->decay, a->bias = w->dt_bias;
    a->n_head = w->n_v_head, a->n_group = w->n_k_head, a->tiled = w->tiled, a->P = w->v_dim, a->N = w->k_dim;
    a->beta_scale = w->beta_scale, a->eps = w->eps;
    return r->p.delta.state == conv->p.conv.state && apart(&r->p.delta.a, conv->out) &&
           apart(&r->p.delta.beta, conv->out);
}

/* Without a gate that fits the kernel ends before it. */
static bool take_gate(step_args *a, const fa_rec *conv, const fa_rec *scan, const fa_rec *r, int n_seq) {
    if (r->op != FA_OP_GATE_NORM || r->out.data != scan->out.data) return false;
    const fa_gate *w = r->p.gate_norm.w;
    const int64_t all = r->out.dim[1], group = w->group;
    if (!apart(&r->p.gate_norm.z, conv->out) || !apart(&r->p.gate_norm.z, scan->out)) return false;
    if (group && (group % a->P || group > WIDEST * THREADS || n_seq * (all / group) > CU_COUNTERS)) return false;
    a->z = cu_view_of(&r->p.gate_norm.z), a->w = w->w;
    a->gated = 1, a->group = (int)group, a->shared = w->shared, a->norm_first = w->norm_first, a->act = w->act;
    a->gate_eps = w->eps;
    return true;
}

/* Do the rows of v lie apart from n floats at p? */
static bool view_apart(const cu_view *v, int rows, const float *p, int64_t n) {
    return v->at + rows * v->ld <= p || p + n <= v->at;
}

/* Is r the projection of what the gate r[-1] has made, which can normalise its input by itself? Then y goes to its work
 * memory, and it is told so. */
static bool leave_norm(fa_cuda *cu, step_args *a, const fa_rec *r, int n_seq) {
    const fa_tensor *in = &r->in[0];
    const int64_t all = (int64_t)a->n_head * a->P, n = n_seq * all;
    if (r->op != FA_OP_LINEAR_ADD || r->p.linear_add.post || n_seq > CU_FEW || !r->work) return false;
    if (!cu_linear_streams(cu, r)) return false;
    if (in->data != r[-1].out.data || in->dtype != FA_F32 || in->dim[0] != n_seq || in->dim[1] != all) return false;
    if (a->group != all || a->norm_first) return false;
    const float *to = (const float *)r->work;
    const cu_view u = {a->u, a->n_ch}, y = {a->y, all};
    const cu_view *views[] = {&a->x, &a->dt, &a->z, &u, &y};
    for (const cu_view *v : views)
        if (!view_apart(v, n_seq, to, n)) return false;
    a->y = (float *)r->work, a->group = 0;
    cu->gated = r, cu->gate = r[-1].p.gate_norm.w;
    return true;
}

/* Is every channel somebody's, and one part's only? */
static bool each_channel_once(const step_args *a) {
    const int bc = a->n_group * a->N, x = a->n_head * a->P;
    return 2 * bc + x == a->n_ch && abs(a->at_c - a->at_b) >= bc &&
           (a->at_c + bc <= a->at_x || a->at_x + x <= a->at_c) && (a->at_b + bc <= a->at_x || a->at_x + x <= a->at_b);
}

template <bool DELTA> static void launch(fa_cuda *cu, const step_args &a, const cu_batch *b) {
    const dim3 grid(cu_blocks(a.P, COLS), (unsigned)a.n_head, (unsigned)b->n_seq);
    if (a.N <= 64)
        CU_LAUNCH(cu, (step_kernel<DELTA, 8>), grid, THREADS, 0, a, *b);
    else if (a.N <= 128)
        CU_LAUNCH(cu, (step_kernel<DELTA, 16>), grid, THREADS, 0, a, *b);
    else
        CU_LAUNCH(cu, (step_kernel<DELTA, 32>), grid, THREADS, 0, a, *b);
}

int cu_scan_step(fa_cuda *cu, const fa_rec *r, int n, const cu_batch *b) {
    if (r->op != FA_OP_CONV || n < 2 || b->n_tok != b->n_seq) return 0;
    const bool delta = r[1].op == FA_OP_DELTA;
    step_args a = {};
    if ((!delta && r[1].op != FA_OP_SSD) || !take_conv(&a, r)) return 0;
    if (!(delta ? take_delta(&a, r, &r[1]) : take_ssd(&a, r, &r[1]))) return 0;
    if (a.at_c < 0 || a.at_b < 0 || a.at_x < 0 || a.N > MOST) return 0;
    if (!each_channel_once(&a)) return 0;
    const bool gate = n > 2 && take_gate(&a, r, &r[1], &r[2], b->n_seq);
    if (gate && n > 3) leave_norm(cu, &a, &r[3], b->n_seq);
    a.counter = cu->counter;
    if (delta)
        launch<true>(cu, a, b);
    else
        launch<false>(cu, a, b);
    return gate ? 3 : 2;
}
