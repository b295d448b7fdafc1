/* What kernels of recurrent layers share: where a sequence's rows and states are, and the numbers that a step size
 * becomes. Definitions: src/backend/cpu/ops_scan.c; layouts of states: backend/program.h.
 *
 * States and the batch's integers were written before the step's first kernel began, and only the record itself writes
 * its layer's states. So these may be read before cu_pdl_wait, while the projection in front still runs. */
#ifndef FA_CUDA_SCAN_H
#define FA_CUDA_SCAN_H

#include "backend/cuda/cu_rows.h"

/* A view by value: row i is at + i * ld. */
typedef struct cu_view {
    const float *at;
    int64_t ld;
} cu_view;

static inline cu_view cu_view_of(const fa_view *v) {
    cu_view c = {v->at, v->stride};
    return c;
}

/* A sequence's rows [from, to), where its state comes from and goes to. */
typedef struct cu_scan_part {
    int from, to;
    const float *in; /* NULL: zeros */
    float *out;
} cu_scan_part;

CU_DEV cu_scan_part cu_scan_part_of(const cu_batch &b, int seq, float *states, int64_t stride) {
    cu_scan_part p;
    const int in = b.state_in[seq];
    p.from = b.row_start[seq], p.to = b.row_start[seq + 1];
    p.in = in < 0 ? NULL : states + in * stride;
    p.out = states + b.state_out[seq] * stride;
    return p;
}

CU_DEV float cu_softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }
CU_DEV float cu_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* A block with 32 columns of a state [n_row, ld]: a lane has column `col`, warp w the rows n = w + 8 j, j < NJ. */
enum { CU_SCAN_WARPS = 8 };
template <int NJ> CU_DEV void cu_scan_get(float *h, const float *s, int n_row, int ld, int col) {
    const int warp = (int)threadIdx.x / CU_WARP;
#pragma unroll
    for (int j = 0; j < NJ; j++) {
        const int n = warp + CU_SCAN_WARPS * j;
        h[j] = s && n < n_row && col < ld ? s[(int64_t)n * ld + col] : 0.0f;
    }
}
template <int NJ> CU_DEV void cu_scan_put(const float *h, float *s, int n_row, int ld, int col) {
    const int warp = (int)threadIdx.x / CU_WARP;
#pragma unroll
    for (int j = 0; j < NJ; j++) {
        const int n = warp + CU_SCAN_WARPS * j;
        if (n < n_row && col < ld) s[(int64_t)n * ld + col] = h[j];
    }
}

/* scan_step.cu: launches CONV, SSD or DELTA, and GATE_NORM of a decode step as one kernel where they are the first of
 * the n records from r on. Returns how many records that was; 0: nothing was launched. */
int cu_scan_step(fa_cuda *cu, const fa_rec *r, int n, const cu_batch *b);

#define CU_LOG2E 1.4426950408889634f

#endif
