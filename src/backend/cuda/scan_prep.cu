/* What the chunked form of scans needs of each piece before any state is known (scan_chunk.cu has the equations): step
 * sizes and decays summed up, products of pairs of rows, and for the delta rule T, the inverse of a lower triangular
 * matrix. A block: one piece of one group (Mamba 2) or value head (delta rule). */
#include "backend/cuda/scan_chunk.h"

/* x of lane i to the sum of those up to and with i. */
CU_DEV float warp_running(float x) {
    const int lane = (int)threadIdx.x % CU_WARP;
    for (int d = 1; d < CU_WARP; d *= 2) {
        const float y = __shfl_up_sync(0xffffffffu, x, (unsigned)d);
        if (lane >= d) x += y;
    }
    return x;
}

/* A warp: sums of two values per lane, of rows lane and lane + 32, in the order of rows. */
CU_DEV void running(float *x) {
    x[0] = warp_running(x[0]);
    x[1] = warp_running(x[1]) + __shfl_sync(0xffffffffu, x[0], CU_WARP - 1);
}

CU_DEV float *coef_of(const cu_chunk &a, int k, int head, int row) {
    return a.coef + ((int64_t)k * a.n_head + head) * a.n_tok + row;
}

/* ---- Mamba 2 ---- */

/* A warp: one head's numbers of a piece. */
CU_DEV void ssd_coef(const cu_chunk &a, int head, int row, int n) {
    const int lane = (int)threadIdx.x % CU_WARP;
    float step[2], s[2];
    for (int h = 0; h < 2; h++) {
        const int i = lane + h * CU_WARP;
        step[h] = 0;
        if (i < n) {
            const float dt = cu_softplus(a.dt.at[(row + i) * a.dt.ld + head] + a.bias[head]);
            step[h] = fminf(fmaxf(dt, a.dt_min), a.dt_max);
        }
        s[h] = step[h] * a.rate[head] * CU_LOG2E;
    }
    running(s);
    for (int h = 0; h < 2; h++) {
        const int i = lane + h * CU_WARP;
        if (i < n) *coef_of(a, 0, head, row + i) = s[h], *coef_of(a, 1, head, row + i) = step[h];
    }
}

template <bool EXACT> static __global__ void __launch_bounds__(SC_THREADS) ssd_prep_kernel(cu_chunk a, cu_batch b) {
    CU_DYN_SMEM(smem);
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP, pitch = a.N + 4;
    const int cut = a.first + (int)blockIdx.x, group = (int)blockIdx.y, mt = warp % 4, col = warp / 4 * 32;
    float *C = (float *)smem, *B = C + FA_SCAN * pitch, acc[4][4] = {};
    cu_pdl_launch();
    cu_pdl_wait();
    const int row = b.cut[cut], n = b.cut[cut + 1] - row;
    sc_copy(C, pitch, a.c.at + row * a.c.ld + (int64_t)group * a.N, a.c.ld, n, a.N, a.N);
    sc_copy(B, pitch, a.b.at + row * a.b.ld + (int64_t)group * a.N, a.b.ld, n, a.N, a.N);
    cu_cp_commit();
    for (int h = warp, per = a.n_head / a.n_group; h < per; h += SC_WARPS) ssd_coef(a, group * per + h, row, n);
    cu_cp_wait<0>();
    __syncthreads();
    sc_product_turned<EXACT, 4>(acc, C + 16 * mt * pitch, pitch, B + col * pitch, pitch, a.N / 8);
#pragma unroll
    for (int e = 0; e < 8; e++) {
        const int i = 16 * mt + lane / 4 + e % 2 * 8, j = col + e / 2 * 8 + 2 * (lane % 4);
        if (i < n)
            *(float2 *)(a.m + ((int64_t)(row + i) * a.n_group + group) * FA_SCAN + j) =
                make_float2(acc[e / 2][e % 2 * 2], acc[e / 2][e % 2 * 2 + 1]);
    }
}

/* ---- gated delta rule ---- */

enum { TMP = 32 + 1 /* pitch */ };

/* 1 / |x| of the rows of x [64, N], four lanes a row. */
CU_DEV float row_inv_length(const float *x, int pitch, int N, float eps) {
    const int i = (int)threadIdx.x / 4, part = (int)threadIdx.x % 4;
    float s = 0;
    for (int k = part; k < N; k += 4) s = fmaf(x[i * pitch + k], x[i * pitch + k], s);
    s += __shfl_xor_sync(0xffffffffu, s, 1);
    s += __shfl_xor_sync(0xffffffffu, s, 2);
    return 1.0f / sqrtf(s + eps);
}

/* T, within the diagonal blocks of 16: a thread has a column, by forward substitution. L: lower triangular without the
 * diagonal; T's other elements are zero. */
CU_DEV void invert_blocks(float *T, const float *L) {
    const int at = (int)threadIdx.x / 16 * 16, c = (int)threadIdx.x % 16;
    float x[16];
    if (threadIdx.x >= FA_SCAN) return;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        float v = i == c ? 1.0f : 0.0f;
#pragma unroll
        for (int j = 0; j < i; j++) v = fmaf(-L[(at + i) * SC_SQUARE + at + j], x[j], v);
        x[i] = v;
        T[(at + i) * SC_SQUARE + at + c] = v;
    }
}

/* From inverses of blocks of W to those of 2 W: the block below the diagonal is -T22 L21 T11. All threads. */
template <int W> CU_DEV void join_blocks(float *T, const float *L, float *tmp) {
    constexpr int N = FA_SCAN / 2 * W; /* elements of all such blocks */
    for (int e = (int)threadIdx.x; e < N; e += SC_THREADS) {
        const int at = e / (W * W) * 2 * W, i = e / W % W, j = e % W;
        float v = 0;
        for (int k = j; k < W; k++) v = fmaf(L[(at + W + i) * SC_SQUARE + at + k], T[(at + k) * SC_SQUARE + at + j], v);
        tmp[(e / (W * W) * W + i) * TMP + j] = v;
    }
    __syncthreads();
    for (int e = (int)threadIdx.x; e < N; e += SC_THREADS) {
        const int at = e / (W * W) * 2 * W, i = e / W % W, j = e % W;
        float v = 0;
        for (int k = 0; k <= i; k++)
            v = fmaf(-T[(at + W + i) * SC_SQUARE + at + W + k], tmp[(e / (W * W) * W + k) * TMP + j], v);
        T[(at + W + i) * SC_SQUARE + at + j] = v;
    }
    __syncthreads();
}

/* Warp 0: the numbers of a piece's rows, in shared memory ([SC_COEF, 64]) and where scan_chunk.cu finds them; 1 / |k|
 * and 1 / |q| are there already. */
CU_DEV void delta_coef(const cu_chunk &a, int head, int row, int n, float *coef) {
    const int lane = (int)threadIdx.x;
    float s[2], beta[2];
    for (int h = 0; h < 2; h++) {
        const int i = lane + h * CU_WARP;
        s[h] = beta[h] = 0;
        if (i < n) {
            s[h] = CU_LOG2E * a.rate[head] * cu_softplus(a.dt.at[(row + i) * a.dt.ld + head] + a.bias[head]);
            beta[h] = a.beta_scale * cu_sigmoid(a.beta.at[(row + i) * a.beta.ld + head]);
        }
    }
    running(s);
    for (int h = 0; h < 2; h++) {
        const int i = lane + h * CU_WARP;
        coef[i] = s[h], coef[3 * FA_SCAN + i] = beta[h];
        for (int k = 0; i < n && k < SC_COEF; k++) *coef_of(a, k, head, row + i) = coef[k * FA_SCAN + i];
    }
}

/* acc, products of rows i with k_j: to exp(s_i - s_j) by_i / |k_j| times them where `lower` holds, 0 elsewhere. */
template <typename F>
CU_DEV void decayed(float (*acc)[4], const float *coef, const float *by, int mt, int col, F lower) {
    const int lane = (int)threadIdx.x % CU_WARP;
#pragma unroll
    for (int e = 0; e < 16; e++) {
        const int i = 16 * mt + lane / 4 + e / 2 % 2 * 8, j = col + e / 4 * 8 + 2 * (lane % 4) + e % 2;
        const float f = cu_exp2(coef[i] - coef[j]) * by[i] * coef[FA_SCAN + j];
        acc[e / 4][e % 4] = lower(i, j) ? f * acc[e / 4][e % 4] : 0.0f;
    }
}

template <bool EXACT> static __global__ void __launch_bounds__(SC_THREADS) delta_prep_kernel(cu_chunk a, cu_batch b) {
    CU_DYN_SMEM(smem);
    const int tid = (int)threadIdx.x, warp = tid / CU_WARP, lane = tid % CU_WARP, pitch = a.N + 4;
    const int cut = a.first + (int)blockIdx.x, head = (int)blockIdx.y, group = sc_group(a, head);
    const int mt = warp % 4, col = warp / 4 * 32;
    float *Q = (float *)smem, *K = Q + FA_SCAN * pitch, *L = K + FA_SCAN * pitch, *T = L + FA_SCAN * SC_SQUARE,
          *tmp = T + FA_SCAN * SC_SQUARE, *coef = tmp + 32 * TMP, acc[4][4] = {};
    cu_pdl_launch();
    cu_pdl_wait();
    const int row = b.cut[cut], n = b.cut[cut + 1] - row;
    sc_copy(Q, pitch, a.c.at + row * a.c.ld + (int64_t)group * a.N, a.c.ld, n, a.N, a.N);
    sc_copy(K, pitch, a.b.at + row * a.b.ld + (int64_t)group * a.N, a.b.ld, n, a.N, a.N);
    cu_cp_commit();
    for (int e = tid; e < FA_SCAN * SC_SQUARE; e += SC_THREADS) T[e] = 0;
    cu_cp_wait<0>();
    __syncthreads();
    const float by_k = row_inv_length(K, pitch, a.N, a.eps), by_q = row_inv_length(Q, pitch, a.N, a.eps);
    if (tid % 4 == 0) coef[FA_SCAN + tid / 4] = by_k, coef[2 * FA_SCAN + tid / 4] = by_q / sqrtf((float)a.N);
    __syncthreads();
    if (warp == 0) delta_coef(a, head, row, n, coef);
    __syncthreads();
    sc_product_turned<EXACT, 4>(acc, K + 16 * mt * pitch, pitch, K + col * pitch, pitch, a.N / 8);
    decayed(acc, coef, coef + FA_SCAN, mt, col, [](int i, int j) { return j < i; });
#pragma unroll
    for (int e = 0; e < 16; e++) {
        const int i = 16 * mt + lane / 4 + e / 2 % 2 * 8, j = col + e / 4 * 8 + 2 * (lane % 4) + e % 2;
        L[i * SC_SQUARE + j] = coef[3 * FA_SCAN + i] * acc[e / 4][e % 4];
        acc[e / 4][e % 4] = 0;
    }
    sc_product_turned<EXACT, 4>(acc, Q + 16 * mt * pitch, pitch, K + col * pitch, pitch, a.N / 8);
    decayed(acc, coef, coef + 2 * FA_SCAN, mt, col, [](int i, int j) { return j <= i; });
#pragma unroll
    for (int e = 0; e < 8; e++) {
        const int i = 16 * mt + lane / 4 + e % 2 * 8, j = col + e / 2 * 8 + 2 * (lane % 4);
        if (i < n)
            *(float2 *)(a.m + ((int64_t)(row + i) * a.n_head + head) * FA_SCAN + j) =
                make_float2(acc[e / 2][e % 2 * 2], acc[e / 2][e % 2 * 2 + 1]);
    }
    __syncthreads();
    invert_blocks(T, L);
    __syncthreads();
    join_blocks<16>(T, L, tmp);
    join_blocks<32>(T, L, tmp);
    for (int e = tid; e < n * FA_SCAN; e += SC_THREADS)
        a.t[((int64_t)(row + e / FA_SCAN) * a.n_head + head) * FA_SCAN + e % FA_SCAN] =
            T[e / FA_SCAN * SC_SQUARE + e % FA_SCAN];
}

/* ---- host ---- */

size_t cu_chunk_prepare_smem(int n, bool delta) {
    const int rows = 2 * FA_SCAN * (n + 4);
    return sizeof(float) * (size_t)(delta ? rows + 2 * FA_SCAN * SC_SQUARE + 32 * TMP + SC_COEF * FA_SCAN : rows);
}

void cu_chunk_prepare(fa_cuda *cu, const cu_chunk *c, bool delta, const cu_batch *b) {
    const dim3 grid((unsigned)(b->n_cut - c->first), (unsigned)(delta ? c->n_head : c->n_group));
    const size_t smem = cu_chunk_prepare_smem(c->N, delta);
    const bool exact = cu->be.exact;
    if (delta && exact)
        CU_LAUNCH(cu, delta_prep_kernel<true>, grid, SC_THREADS, smem, *c, *b);
    else if (delta)
        CU_LAUNCH(cu, delta_prep_kernel<false>, grid, SC_THREADS, smem, *c, *b);
    else if (exact)
        CU_LAUNCH(cu, ssd_prep_kernel<true>, grid, SC_THREADS, smem, *c, *b);
    else
        CU_LAUNCH(cu, ssd_prep_kernel<false>, grid, SC_THREADS, smem, *c, *b);
}
