/* CONV, GATE_NORM, SCALE_COLS: what stands around the scans of recurrent layers. The definitions are in
 * src/backend/cpu/ops_scan.c. All are bound by memory: a convolution reads its input once, with the last rows in
 * registers; a gate with a norm reads its row twice, the second time from the cache. */
#include "backend/cuda/scan.h"

enum { THREADS = 128, WARPS = 8 };

/* ---- convolution ---- */

typedef struct conv_args {
    cu_view x;
    float *y;
    float *state; /* of state 0 */
    int64_t stride;
    const float *w, *bias;
    int n, kernel, silu;
} conv_args;

/* Channel c of row `row` of the sequence, which may lie before its first new one. */
CU_DEV float conv_input(const conv_args &a, const cu_scan_part &p, int row, int c) {
    if (row >= p.from) return a.x.at[row * a.x.ld + c];
    return p.in ? p.in[(int64_t)(a.kernel - 1 - (p.from - row)) * a.n + c] : 0.0f;
}

/* The state after row `row`. In place: what is read lies behind what is written. */
CU_DEV void conv_keep(const conv_args &a, const cu_scan_part &p, int row, int c, float *to) {
    for (int j = 0; j < a.kernel - 1; j++) to[(int64_t)j * a.n + c] = conv_input(a, p, row - a.kernel + 2 + j, c);
}

CU_DEV float conv_end(const conv_args &a, float sum) { return a.silu ? cu_act_silu(sum) : sum; }

/* Rows [lo, hi) of one channel. K: the kernel's width, 0: any */
template <int K>
CU_DEV void conv_rows(const conv_args &a, const cu_batch &b, const cu_scan_part &p, int lo, int hi, int c) {
    const float bias = a.bias ? a.bias[c] : 0.0f;
    if constexpr (K > 0) {
        float w[K], last[K]; /* last: the K - 1 rows before */
#pragma unroll
        for (int j = 0; j < K; j++) w[j] = a.w[(int64_t)c * K + j];
#pragma unroll
        for (int j = 0; j < K - 1; j++) last[j] = conv_input(a, p, lo - K + 1 + j, c);
#pragma unroll 8
        for (int i = lo; i < hi; i++) {
            last[K - 1] = __ldg(a.x.at + i * a.x.ld + c);
            float sum = bias;
#pragma unroll
            for (int j = 0; j < K; j++) sum = fmaf(w[j], last[j], sum);
            a.y[(int64_t)i * a.n + c] = conv_end(a, sum);
#pragma unroll
            for (int j = 0; j < K - 1; j++) last[j] = last[j + 1];
        }
    } else {
        for (int i = lo; i < hi; i++) {
            float sum = bias;
            for (int j = 0; j < a.kernel; j++)
                sum = fmaf(a.w[(int64_t)c * a.kernel + j], conv_input(a, p, i - a.kernel + 1 + j, c), sum);
            a.y[(int64_t)i * a.n + c] = conv_end(a, sum);
        }
    }
    for (int i = lo; i < hi; i++)
        if (b.keep[i] >= 0) conv_keep(a, p, i, c, a.state + b.keep[i] * a.stride);
    if (hi == p.to && hi > lo) conv_keep(a, p, hi - 1, c, p.out);
}

/* A thread: one channel of one piece. A state that is changed in place belongs to the thread of the first piece, which
 * then does all rows. */
template <int K> static __global__ void __launch_bounds__(THREADS) conv_kernel(conv_args a, cu_batch b) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int c = (int)blockIdx.x * THREADS + (int)threadIdx.x;
    if (c >= a.n) return;
    const int lo = b.cut[blockIdx.y], seq = b.row_seq[lo];
    const cu_scan_part p = cu_scan_part_of(b, seq, a.state, a.stride);
    if (p.in != p.out)
        conv_rows<K>(a, b, p, lo, b.cut[blockIdx.y + 1], c);
    else if (lo == p.from)
        conv_rows<K>(a, b, p, lo, p.to, c);
}

static void conv_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_conv *w = r->p.conv.w;
    conv_args a = {};
    a.x = cu_view_of(&r->p.conv.x), a.y = fa_f32(r->out);
    a.state = r->p.conv.state->conv + w->state_at, a.stride = r->p.conv.state->stride;
    a.w = w->w, a.bias = w->bias;
    a.n = (int)w->n, a.kernel = w->kernel, a.silu = w->act == FA_ACT_SILU;
    const dim3 grid(cu_blocks(a.n, THREADS), (unsigned)b->n_cut);
    if (w->kernel == 4)
        CU_LAUNCH(cu, conv_kernel<4>, grid, THREADS, 0, a, *b);
    else if (w->kernel == 3)
        CU_LAUNCH(cu, conv_kernel<3>, grid, THREADS, 0, a, *b);
    else
        CU_LAUNCH(cu, conv_kernel<0>, grid, THREADS, 0, a, *b);
}

extern const cu_op cu_op_conv = {conv_launch, NULL};

/* ---- gates ---- */

typedef struct gate_args {
    float *y; /* [n_row, n] in place */
    cu_view z;
    const float *w;
    int64_t n_row;
    int n, group; /* columns; group 0: no norm */
    int shared, norm_first, act;
    float eps;
} gate_args;

/* Threads of one group of columns: a warp (WIDE false), or the block. r: 1 / rms of what f gives. */
template <bool WIDE, typename F> CU_DEV float group_inv_rms(const gate_args &a, F f, double *part) {
    const int step = WIDE ? (int)blockDim.x : CU_WARP, first = WIDE ? (int)threadIdx.x : (int)threadIdx.x % CU_WARP;
    float s = 0;
    bool wide;
    for (int i = first; i < a.group; i += step) {
        const float v = f(i);
        s = fmaf(v, v, s);
    }
    s = WIDE ? cu_block_sum(s, (float *)part) : cu_warp_sum(s);
    const float r = cu_inv_rms(s, a.group, a.eps, &wide);
    if (!wide) return r;
    double d = 0;
    for (int i = first; i < a.group; i += step) {
        const double v = f(i);
        d += v * v;
    }
    return cu_inv_rms_wide(WIDE ? cu_block_sum_wide(d, part) : cu_warp_sum_wide(d), a.group, a.eps);
}

/* A warp or a block: one group of one row. */
template <bool WIDE> static __global__ void gate_norm_kernel(gate_args a) {
    __shared__ double part[CU_WARP];
    cu_pdl_launch();
    cu_pdl_wait();
    const int per_row = a.n / a.group, step = WIDE ? (int)blockDim.x : CU_WARP,
              first = WIDE ? (int)threadIdx.x : (int)threadIdx.x % CU_WARP;
    const int64_t at = WIDE ? (int64_t)blockIdx.x : (int64_t)blockIdx.x * WARPS + threadIdx.x / CU_WARP;
    if (at >= a.n_row * per_row) return; /* whole warps; no barrier where blocks have several */
    const int64_t row = at / per_row;
    const int col = (int)(at % per_row) * a.group;
    float *y = a.y + row * a.n + col;
    const float *z = a.z.at + row * a.z.ld + col, *w = a.shared ? a.w : a.w + col;
    const bool after = a.norm_first != 0;
    auto value = [&](int i) { return after ? y[i] : y[i] * cu_act(a.act, z[i]); };
    const float r = group_inv_rms<WIDE>(a, value, part);
    for (int i = first; i < a.group; i += step) { /* a thread reads for itself what it writes */
        const float v = value(i) * r * w[i];
        y[i] = after ? v * cu_act(a.act, z[i]) : v;
    }
}

/* A thread: one column of one row. z.at NULL: times w; else times act(z) */
static __global__ void times_kernel(gate_args a) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int i = (int)blockIdx.y * (int)blockDim.x + (int)threadIdx.x;
    const int64_t row = blockIdx.x;
    if (i < a.n) a.y[row * a.n + i] *= a.z.at ? cu_act(a.act, a.z.at[row * a.z.ld + i]) : a.w[i];
}

static void times(fa_cuda *cu, const gate_args &a) {
    CU_LAUNCH(cu, times_kernel, dim3((unsigned)a.n_row, cu_blocks(a.n, 256)), 256, 0, a);
}

static void gate_norm_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_gate *w = r->p.gate_norm.w;
    gate_args a = {};
    a.y = fa_f32(r->out), a.z = cu_view_of(&r->p.gate_norm.z), a.w = w->w;
    a.n_row = r->out.dim[0], a.n = (int)r->out.dim[1], a.group = (int)w->group;
    a.shared = w->shared, a.norm_first = w->norm_first, a.act = w->act, a.eps = w->eps;
    if (!a.group) {
        times(cu, a);
        return;
    }
    const int64_t groups = a.n_row * (a.n / a.group);
    if (a.group <= 256)
        CU_LAUNCH(cu, gate_norm_kernel<false>, dim3(cu_blocks(groups, WARPS)), WARPS * CU_WARP, 0, a);
    else
        CU_LAUNCH(cu, gate_norm_kernel<true>, dim3((unsigned)groups), a.group >= 4096 ? 1024 : 256, 0, a);
}
extern const cu_op cu_op_gate_norm = {gate_norm_launch, NULL};

static void scale_cols_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    gate_args a = {};
    a.y = fa_f32(r->out), a.w = r->p.scale_cols;
    a.n_row = r->out.dim[0], a.n = (int)r->out.dim[1];
    times(cu, a);
}
extern const cu_op cu_op_scale_cols = {scale_cols_launch, NULL};
