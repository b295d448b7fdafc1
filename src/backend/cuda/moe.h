/* Mixture of experts on the GPU: what moe.cu (few rows, and which way a record goes) and moe_many.cu share. */
#ifndef FA_CUDA_MOE_H
#define FA_CUDA_MOE_H

#include "backend/cuda/cu.h"

/* The matrices of a stack: expert e's planes are e strides behind the first's. */
typedef struct cu_moe_stack {
    const fa_weight *w; /* the first one */
    int64_t stride, scale_stride;
    const float *bias; /* [n, rows] or NULL */
} cu_moe_stack;

cu_moe_stack cu_moe_stack_of(const fa_experts *e);

int64_t cu_moe_many_work(const fa_cuda *cu, const fa_rec *r, fa_error *err); /* moe_many.cu */
void cu_moe_many_launch(fa_cuda *cu, const fa_rec *r);

#endif
