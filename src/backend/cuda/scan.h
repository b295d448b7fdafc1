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
typedef struct cu_part {
    int from, to;
    const float *in; /* NULL: zeros */
    float *out;
} cu_part;

CU_DEV cu_part cu_part_of(const cu_batch &b, int seq, float *states, int64_t stride) {
    cu_part p;
    const int in = b.state_in[seq];
    p.from = b.row_start[seq], p.to = b.row_start[seq + 1];
    p.in = in < 0 ? NULL : states + in * stride;
    p.out = states + b.state_out[seq] * stride;
    return p;
}

CU_DEV float cu_softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }
CU_DEV float cu_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

#define CU_LOG2E 1.4426950408889634f

#endif
