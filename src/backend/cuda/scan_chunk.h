/* The chunked form of scans: what its kernels share (scan_chunk.cu, scan_prep.cu). Equations: scan_chunk.cu. */
#ifndef FA_CUDA_SCAN_CHUNK_H
#define FA_CUDA_SCAN_CHUNK_H

#include "backend/cuda/scan.h"

enum {
    SC_COLS = 32 /* columns of a state that a block has */,
    SC_PITCH = SC_COLS + 8 /* of rows of so many floats: right factors, 4 rows of 8 columns meet all banks */,
    SC_SQUARE = FA_SCAN + 4 /* pitch of [64, 64] */,
    SC_WARPS = 8,
    SC_THREADS = SC_WARPS * CU_WARP,
    SC_COEF = 4
};

/* Both scans in the terms of Mamba 2: C and q, B and k, x and v. */
typedef struct cu_chunk {
    cu_view c, b, x;  /* [n_tok, n_group * N] twice, [n_tok, n_head * P]; aligned to 16 bytes, as are their rows */
    cu_view dt, beta; /* what step sizes or decays are made of; DELTA: beta */
    float *y;         /* [n_tok, n_head * P] */
    float *state;     /* of state 0 */
    int64_t stride;
    /* work: products of pairs of a piece's rows, [n_tok, n_group (DELTA: n_head), 64], DELTA: T [n_tok, n_head, 64];
     * numbers of each row and head, [SC_COEF, n_head, n_tok]: log2 of the piece's decay up to and with the row; delta
     * or 1 / |k|; DELTA: 1 / (|q| sqrt(N)), b */
    float *m, *t, *coef;
    const float *rate, *bias, *skip; /* [n_head] */
    int n_head, n_group, P, N, n_tok;
    int tiled; /* heads of a group are n_group apart, not neighbours */
    int first; /* sequence; those before have one row each */
    int twice; /* what the end of a piece reads has two buffers */
    float dt_min, dt_max, beta_scale, eps;
} cu_chunk;

/* Launches the chunked form for the sequences from c.first on. delta: the gated delta rule */
void cu_chunk_launch(fa_cuda *cu, cu_chunk c, bool delta, const cu_batch *b);
/* Does the chunked form take this record? */
bool cu_chunk_takes(const fa_cuda *cu, const cu_chunk *c, bool delta);
int64_t cu_chunk_work(const cu_chunk *c, bool delta); /* bytes */
/* scan_prep.cu: fills m, t, coef. */
void cu_chunk_prepare(fa_cuda *cu, const cu_chunk *c, bool delta, const cu_batch *b);
size_t cu_chunk_prepare_smem(int n, bool delta);

CU_DEV int sc_group(const cu_chunk &a, int head) { return a.tiled ? head % a.n_group : head / (a.n_head / a.n_group); }

/* ---- products ----
 * On tensor cores, of f32 rounded to 11 bits (fast), or as a sum of two such numbers each, of whose four products the
 * smallest is left out (exact: 21 bits). Lane (g, t) = (lane / 4, lane % 4); fragments as in cu_mma_tf32. */
template <bool EXACT> CU_DEV void sc_mul(float *d, const float *a, const float *b) {
    uint32_t ah[4], bh[2];
#pragma unroll
    for (int i = 0; i < 4; i++) ah[i] = cu_to_tf32(a[i]);
#pragma unroll
    for (int i = 0; i < 2; i++) bh[i] = cu_to_tf32(b[i]);
    if constexpr (EXACT) {
        uint32_t al[4], bl[2];
#pragma unroll
        for (int i = 0; i < 4; i++) al[i] = cu_to_tf32(a[i] - __uint_as_float(ah[i]));
#pragma unroll
        for (int i = 0; i < 2; i++) bl[i] = cu_to_tf32(b[i] - __uint_as_float(bh[i]));
        cu_mma_tf32(d, al, bh);
        cu_mma_tf32(d, ah, bl);
    }
    cu_mma_tf32(d, ah, bh);
}

/* A left fragment of rows 0 .. 15 and columns k .. k + 7 of `a`. */
CU_DEV void sc_left(float *f, const float *a, int pitch, int k) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const float *p = a + lane / 4 * pitch + k + lane % 4;
    f[0] = p[0], f[1] = p[8 * pitch], f[2] = p[4], f[3] = p[8 * pitch + 4];
}
/* A right fragment of rows k .. k + 7 and columns 0 .. 7 of `b`. */
CU_DEV void sc_right(float *f, const float *b, int pitch, int k) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const float *p = b + (k + lane % 4) * pitch + lane / 4;
    f[0] = p[0], f[1] = p[4 * pitch];
}

/* acc += a [16, 8 steps] b [8 steps, 8 NT] */
template <bool EXACT, int NT>
CU_DEV void sc_product(float (*acc)[4], const float *a, int pa, const float *b, int pb, int steps) {
    float fa[4], fb[2];
#pragma unroll 4
    for (int s = 0; s < steps; s++) {
        sc_left(fa, a, pa, 8 * s);
#pragma unroll
        for (int i = 0; i < NT; i++) {
            sc_right(fb, b + 8 * i, pb, 8 * s);
            sc_mul<EXACT>(acc[i], fa, fb);
        }
    }
}
/* acc += a [16, 8 steps] b^T, b [8 NT, 8 steps] */
template <bool EXACT, int NT>
CU_DEV void sc_product_turned(float (*acc)[4], const float *a, int pa, const float *b, int pb, int steps) {
    const int lane = (int)threadIdx.x % CU_WARP;
    float fa[4], fb[2];
#pragma unroll 4
    for (int s = 0; s < steps; s++) {
        sc_left(fa, a, pa, 8 * s);
#pragma unroll
        for (int i = 0; i < NT; i++) {
            const float *p = b + (8 * i + lane / 4) * pb + 8 * s + lane % 4;
            fb[0] = p[0], fb[1] = p[4];
            sc_mul<EXACT>(acc[i], fa, fb);
        }
    }
}

/* Begins to copy a piece's n rows of `width` floats, a multiple of 4, from src on; zeros behind them up to 64 rows, and
 * up to `room` columns. */
CU_DEV void sc_copy(float *to, int pitch, const float *src, int64_t ld, int n, int width, int room) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP;
    const int per = room >= 128 ? 32 : room >= 64 ? 16 : 8, rows = CU_WARP / per; /* lanes of a row, rows of a warp */
    for (int r = warp * rows + lane / per; r < FA_SCAN; r += SC_WARPS * rows)
        for (int c = lane % per * 4; c < room; c += per * 4) {
            const bool there = r < n && c < width;
            cu_cp_async(to + r * pitch + c, there ? src + r * ld + c : src, there ? 16 : 0);
        }
}
/* The numbers of a piece's rows: [SC_COEF, 64], zeros behind. */
CU_DEV void sc_copy_coef(float *to, const cu_chunk &a, int head, int row, int n) {
    const int k = (int)threadIdx.x / FA_SCAN, i = (int)threadIdx.x % FA_SCAN;
    const float *from = a.coef + ((int64_t)k * a.n_head + head) * a.n_tok + row;
    cu_cp_async4(to + k * FA_SCAN + i, i < n ? from + i : from, i < n ? 4 : 0);
}

#endif
