/* Scans of Mamba 2 and of the gated delta rule in the chunked matrix form, for sequences of many rows. Pieces of at
 * most 64 rows (fa_batch.cut) are done one after the other, with everything within a piece as products of matrices.
 *
 * With s_i the logarithm of the piece's decay up to and with row i, H [N, P] the state before the piece:
 *
 *   Mamba 2 (Dao, Gu 2024, section 6):
 *     y_i = exp(s_i) H^T C_i + sum over j <= i of exp(s_i - s_j) delta_j (C_i B_j) x_j + d x_i
 *     H'  = exp(s_L) H + sum over j of exp(s_L - s_j) delta_j B_j x_j^T
 *   gated delta rule (Yang, Kautz, Hatamizadeh 2024; the WY form of Yang, Wang, Zhang, Shen, Kim 2024):
 *     U   = T (b v - b exp(s) K H),  T = (1 + A)^-1,  A_ij = b_i exp(s_i - s_j) (k_i k_j) for j < i
 *     y_i = exp(s_i) H^T q_i + sum over j <= i of exp(s_i - s_j) (q_i k_j) u_j
 *     H'  = exp(s_L) H + sum over j of exp(s_L - s_j) k_j u_j^T
 *
 * What no state is needed for, the products of pairs of rows and T, is prepared for all pieces at once (scan_prep.cu).
 * Then a block goes through the pieces of one sequence with 32 columns of one head's state in shared memory. Each
 * array of the next piece is fetched (cp.async) as soon as the present one's is done with. */
#include "backend/cuda/scan_chunk.h"

/* Shared memory in floats. */
struct room {
    int pc, pb; /* pitches of C and B: left factors lie 4 rows of 8 banks apart, turned ones 8 */
    int c, b, x, u, m, t, h, coef, all;
};

static __host__ __device__ room room_of(int N, bool delta, int twice) {
    const int two = 1 + twice;
    room o;
    o.pc = N + 4, o.pb = delta ? N + 4 : N + 8;
    o.c = 0;
    o.b = o.c + FA_SCAN * o.pc;
    o.x = o.b + two * FA_SCAN * o.pb;
    o.u = o.x + (delta ? 1 : two) * FA_SCAN * SC_PITCH;
    o.m = o.u + (delta ? FA_SCAN * SC_PITCH : 0);
    o.t = o.m + (delta ? two : 1) * FA_SCAN * SC_SQUARE;
    o.h = o.t + (delta ? FA_SCAN * SC_SQUARE : 0);
    o.coef = o.h + N * SC_PITCH;
    o.all = o.coef + 2 * SC_COEF * FA_SCAN;
    return o;
}

/* What a block works on. */
struct where {
    int head, group, col; /* first column */
};

CU_DEV void copy_c(const cu_chunk &a, const where &w, const room &o, float *mem, int row, int n) {
    sc_copy(mem + o.c, o.pc, a.c.at + row * a.c.ld + (int64_t)w.group * a.N, a.c.ld, n, a.N, a.N);
}
CU_DEV void copy_b(const cu_chunk &a, const where &w, const room &o, float *mem, int row, int n, int turn) {
    sc_copy(mem + o.b + turn * FA_SCAN * o.pb, o.pb, a.b.at + row * a.b.ld + (int64_t)w.group * a.N, a.b.ld, n, a.N,
            a.N);
}
CU_DEV void copy_x(const cu_chunk &a, const where &w, const room &o, float *mem, int row, int n, int turn) {
    sc_copy(mem + o.x + turn * FA_SCAN * SC_PITCH, SC_PITCH, a.x.at + row * a.x.ld + (int64_t)w.head * a.P + w.col,
            a.x.ld, n, min((int)SC_COLS, a.P - w.col), SC_COLS);
}
/* m or t: a piece's square of matrix `at` of n_at */
CU_DEV void copy_square(float *to, const float *src, int at, int n_at, int row, int n) {
    sc_copy(to, SC_SQUARE, src + ((int64_t)row * n_at + at) * FA_SCAN, (int64_t)n_at * FA_SCAN, n, FA_SCAN, FA_SCAN);
}

/* acc += M x for rows [16 mt, + 16) and 16 columns, M_ij = m_ij exp2(s_i - s_j) delta_j for j <= i. */
template <bool EXACT>
CU_DEV void product_decayed(float (*acc)[4], const float *m, const float *x, const float *coef, int mt, int steps) {
    const int lane = (int)threadIdx.x % CU_WARP, g = lane / 4, t = lane % 4, i0 = 16 * mt + g;
    const float s0 = coef[i0], s1 = coef[i0 + 8];
    float fa[4], fb[2];
#pragma unroll 2
    for (int s = 0; s < steps; s++) {
        sc_left(fa, m + 16 * mt * SC_SQUARE, SC_SQUARE, 8 * s);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int j = 8 * s + t + 4 * h;
            const float sj = coef[j], d = coef[FA_SCAN + j];
            fa[2 * h] = j <= i0 ? fa[2 * h] * cu_exp2(s0 - sj) * d : 0.0f;
            fa[2 * h + 1] = j <= i0 + 8 ? fa[2 * h + 1] * cu_exp2(s1 - sj) * d : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sc_right(fb, x + 8 * i, SC_PITCH, 8 * s);
            sc_mul<EXACT>(acc[i], fa, fb);
        }
    }
}

/* The state after a piece, rows [16 tile, + 16): H = exp2(s_L) H + sum over j of w_j B_j x_j^T, w_j = exp2(s_L - s_j)
 * times delta_j or 1 / |k_j|. save, keep: [N, P] at the block's column, or NULL. */
template <bool EXACT>
CU_DEV void next_state(const cu_chunk &a, const where &w, float *h, const float *b, int pb, const float *x,
                       const float *coef, int n, int tile, float *save, float *keep) {
    const int lane = (int)threadIdx.x % CU_WARP, g = lane / 4, t = lane % 4;
    const float last = coef[n - 1], decay = cu_exp2(last);
    float acc[4][4], fa[4], fb[2];
    h += (16 * tile + g) * SC_PITCH + 2 * t;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) acc[i][e] = decay * h[(e / 2 * 8) * SC_PITCH + 8 * i + e % 2];
#pragma unroll 2
    for (int s = 0; 8 * s < n; s++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int j = 8 * s + t + 4 * e;
            const float by = cu_exp2(last - coef[j]) * coef[FA_SCAN + j]; /* behind the last row: times 0 */
            fa[2 * e] = b[j * pb + 16 * tile + g] * by;
            fa[2 * e + 1] = b[j * pb + 16 * tile + g + 8] * by;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sc_right(fb, x + 8 * i, SC_PITCH, 8 * s);
            sc_mul<EXACT>(acc[i], fa, fb);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int row = e / 2 * 8, col = 8 * i + e % 2;
            const int64_t at = (int64_t)(16 * tile + g + row) * a.P + w.col + 2 * t + col;
            h[row * SC_PITCH + col] = acc[i][e];
            if (w.col + 2 * t + col < a.P) {
                if (save) save[at] = acc[i][e];
                if (keep) keep[at] = acc[i][e];
            }
        }
}

/* Results of rows [16 mt, + 16) and 16 columns from `col` of the block's on; skip * x is added. */
CU_DEV void put_rows(const cu_chunk &a, const where &w, float (*acc)[4], int row, int n, int mt, int col,
                     const float *x, float skip) {
    const int lane = (int)threadIdx.x % CU_WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int r = 16 * mt + g + 8 * e, c = col + 8 * i + 2 * t;
            if (r >= n || w.col + c >= a.P) continue; /* P is a multiple of 4, c even */
            float2 v = make_float2(acc[i][2 * e], acc[i][2 * e + 1]);
            if (x) v.x = fmaf(skip, x[r * SC_PITCH + c], v.x), v.y = fmaf(skip, x[r * SC_PITCH + c + 1], v.y);
            *(float2 *)(a.y + ((int64_t)(row + r) * a.n_head + w.head) * a.P + w.col + c) = v;
        }
}

/* acc times f(row) */
template <typename F> CU_DEV void times_rows(float (*acc)[4], int mt, F f) {
    const int g = (int)threadIdx.x % CU_WARP / 4;
    const float f0 = f(16 * mt + g), f1 = f(16 * mt + g + 8);
#pragma unroll
    for (int i = 0; i < 2; i++) acc[i][0] *= f0, acc[i][1] *= f0, acc[i][2] *= f1, acc[i][3] *= f1;
}

template <bool DELTA, bool EXACT>
static __global__ void __launch_bounds__(SC_THREADS, 1) chunk_kernel(cu_chunk a, cu_batch b) {
    CU_DYN_SMEM(smem);
    float *mem = (float *)smem;
    const room o = room_of(a.N, DELTA, a.twice);
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP;
    const int mt = warp % 4, col = warp / 4 * 16; /* of the block's rows and columns, the warp's results */
    const int seq = a.first + (int)blockIdx.z, cut0 = b.seq_cut[seq], cut1 = b.seq_cut[seq + 1];
    where w;
    w.head = (int)blockIdx.y, w.group = sc_group(a, w.head), w.col = (int)blockIdx.x * SC_COLS;
    const cu_scan_part p = cu_scan_part_of(b, seq, a.state, a.stride);
    const int64_t size = (int64_t)w.head * a.N * a.P;
    float *H = mem + o.h;
    cu_pdl_launch();
    for (int n = warp; n < a.N; n += SC_WARPS)
        H[n * SC_PITCH + lane] = p.in && w.col + lane < a.P ? p.in[size + (int64_t)n * a.P + w.col + lane] : 0.0f;
    const float skip = DELTA ? 0.0f : a.skip[w.head];
    const int m_at = DELTA ? w.head : w.group, n_m = DELTA ? a.n_head : a.n_group;
    cu_pdl_wait();
    int row = b.cut[cut0], n = b.cut[cut0 + 1] - row;
    copy_c(a, w, o, mem, row, n);
    copy_b(a, w, o, mem, row, n, 0);
    copy_x(a, w, o, mem, row, n, 0);
    copy_square(mem + o.m, a.m, m_at, n_m, row, n);
    if (DELTA) copy_square(mem + o.t, a.t, w.head, a.n_head, row, n);
    sc_copy_coef(mem + o.coef, a, w.head, row, n);
    cu_cp_commit();
    for (int cut = cut0; cut < cut1; cut++) {
        const int turn = (cut - cut0) & 1, now = a.twice ? turn : 0, next = a.twice ? turn ^ 1 : 0;
        const bool more = cut + 1 < cut1;
        const int row2 = row + n, n2 = more ? b.cut[cut + 2] - row2 : 0, steps = (n + 7) / 8;
        const float *coef = mem + o.coef + turn * SC_COEF * FA_SCAN, *B = mem + o.b + now * FA_SCAN * o.pb;
        float *X = mem + o.x + (DELTA ? 0 : now) * FA_SCAN * SC_PITCH;
        const float *M = mem + o.m + (DELTA ? now : 0) * FA_SCAN * SC_SQUARE, *U = X;
        float acc[2][4] = {};
        /* what the end of a piece reads */
        auto fetch_late = [&]() {
            copy_b(a, w, o, mem, row2, n2, next);
            if (DELTA)
                copy_square(mem + o.m + next * FA_SCAN * SC_SQUARE, a.m, m_at, n_m, row2, n2);
            else
                copy_x(a, w, o, mem, row2, n2, next);
        };
        cu_cp_wait<0>();
        __syncthreads();
        if (more) {
            sc_copy_coef(mem + o.coef + (turn ^ 1) * SC_COEF * FA_SCAN, a, w.head, row2, n2);
            if (a.twice) fetch_late();
            cu_cp_commit();
        }
        if constexpr (DELTA) {
            const int causal = min(steps, 2 * mt + 2);
            float r[2][4] = {};
            sc_product<EXACT, 2>(r, B + 16 * mt * o.pb, o.pb, H + col, SC_PITCH, a.N / 8);
            sc_product<EXACT, 2>(acc, mem + o.c + 16 * mt * o.pc, o.pc, H + col, SC_PITCH, a.N / 8);
            times_rows(acc, mt, [&](int i) { return cu_exp2(coef[i]) * coef[2 * FA_SCAN + i]; });
            times_rows(r, mt, [&](int i) { return cu_exp2(coef[i]) * coef[FA_SCAN + i]; });
#pragma unroll
            for (int e = 0; e < 8; e++) { /* b (v - K H), in place: the warp's own */
                const int i = 16 * mt + lane / 4 + e % 4 / 2 * 8;
                float *v = X + i * SC_PITCH + col + 8 * (e / 4) + 2 * (lane % 4) + e % 2;
                *v = coef[3 * FA_SCAN + i] * (*v - r[e / 4][e % 4]);
                r[e / 4][e % 4] = 0;
            }
            __syncthreads();
            if (more) {
                copy_c(a, w, o, mem, row2, n2);
                cu_cp_commit();
            }
            sc_product<EXACT, 2>(r, mem + o.t + 16 * mt * SC_SQUARE, SC_SQUARE, X + col, SC_PITCH, causal);
#pragma unroll
            for (int e = 0; e < 8; e++)
                mem[o.u + (16 * mt + lane / 4 + e % 4 / 2 * 8) * SC_PITCH + col + 8 * (e / 4) + 2 * (lane % 4) +
                    e % 2] = r[e / 4][e % 4];
            __syncthreads();
            if (more) {
                copy_x(a, w, o, mem, row2, n2, 0);
                copy_square(mem + o.t, a.t, w.head, a.n_head, row2, n2);
                cu_cp_commit();
            }
            U = mem + o.u;
            sc_product<EXACT, 2>(acc, M + 16 * mt * SC_SQUARE, SC_SQUARE, U + col, SC_PITCH, causal);
            put_rows(a, w, acc, row, n, mt, col, NULL, 0);
        } else {
            sc_product<EXACT, 2>(acc, mem + o.c + 16 * mt * o.pc, o.pc, H + col, SC_PITCH, a.N / 8);
            times_rows(acc, mt, [&](int i) { return cu_exp2(coef[i]); });
            product_decayed<EXACT>(acc, M, X + col, coef, mt, min(steps, 2 * mt + 2));
            put_rows(a, w, acc, row, n, mt, col, X, skip);
            __syncthreads();
            if (more) {
                copy_c(a, w, o, mem, row2, n2);
                copy_square(mem + o.m, a.m, m_at, n_m, row2, n2);
                cu_cp_commit();
            }
        }
        const int keep = b.keep[row + n - 1];
        for (int tile = warp; tile < a.N / 16; tile += SC_WARPS)
            next_state<EXACT>(a, w, H, B, o.pb, U, coef, n, tile, more ? NULL : p.out + size,
                              keep >= 0 ? a.state + keep * a.stride + size : NULL);
        if (!a.twice) {
            __syncthreads();
            if (more) {
                fetch_late();
                cu_cp_commit();
            }
        }
        row = row2, n = n2;
    }
}

/* ---- host ---- */

static size_t smem_of(int N, bool delta, int twice) { return sizeof(float) * (size_t)room_of(N, delta, twice).all; }

static bool aligned(cu_view v) { return (uintptr_t)v.at % 16 == 0 && v.ld % 4 == 0; }

bool cu_chunk_takes(const fa_cuda *cu, const cu_chunk *c, bool delta) {
    return c->N % 16 == 0 && c->N <= 256 && c->P % 4 == 0 && aligned(c->c) && aligned(c->b) && aligned(c->x) &&
           smem_of(c->N, delta, 0) <= cu->smem_max && cu_chunk_prepare_smem(c->N, delta) <= cu->smem_max;
}

static int64_t squares(const cu_chunk *c, bool delta) {
    return (int64_t)c->n_tok * (delta ? c->n_head : c->n_group) * FA_SCAN;
}

int64_t cu_chunk_work(const cu_chunk *c, bool delta) {
    return (int64_t)sizeof(float) * ((delta ? 2 : 1) * squares(c, delta) + (int64_t)SC_COEF * c->n_head * c->n_tok);
}

template <bool DELTA, bool EXACT> static void launch(fa_cuda *cu, const cu_chunk &c, const cu_batch *b) {
    const dim3 grid(cu_blocks(c.P, SC_COLS), (unsigned)c.n_head, (unsigned)(b->n_seq - c.first));
    CU_LAUNCH(cu, (chunk_kernel<DELTA, EXACT>), grid, SC_THREADS, smem_of(c.N, DELTA, c.twice), c, *b);
}

void cu_chunk_launch(fa_cuda *cu, cu_chunk c, bool delta, const cu_batch *b) {
    float *work = (float *)cu->rec->work;
    c.m = work;
    c.t = work + squares(&c, delta); /* DELTA */
    c.coef = work + (delta ? 2 : 1) * squares(&c, delta);
    c.twice = smem_of(c.N, delta, 1) <= cu->smem_max;
    cu_chunk_prepare(cu, &c, delta, b);
    const bool exact = cu->be.exact;
    if (delta && exact)
        launch<true, true>(cu, c, b);
    else if (delta)
        launch<true, false>(cu, c, b);
    else if (exact)
        launch<false, true>(cu, c, b);
    else
        launch<false, false>(cu, c, b);
}
