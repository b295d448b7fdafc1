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
void cu_moe_many_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b);

/* moe_lora.cu: what adapters change. Rows of places, or of by_row: of what the choices belong to. */
typedef struct cu_moe_lora_rows {
    void *at; /* NULL: there are none */
    int type; /* fa_dtype */
    int64_t ld;
    bool by_row;
} cu_moe_lora_rows;

/* Is gate or up (first), or down, changed? */
bool cu_moe_lora_on(const fa_rec *r, bool first);
int64_t cu_moe_lora_bytes(const fa_rec *r); /* of u */
/* y += what the mat-th of gate, up and down gets for x; y.at NULL (down, few rows): the record's sum gets it. list: see
 * cu_moe_product. */
void cu_moe_lora(fa_cuda *cu, const fa_rec *r, const cu_batch *b, int mat, const int32_t *list, cu_moe_lora_rows x,
                 cu_moe_lora_rows y, float *u);
/* h = act(gate) * up of f32 rows; gate.at NULL: act(up). h may be up. */
void cu_moe_lora_activate(fa_cuda *cu, const fa_rec *r, cu_moe_lora_rows gate, cu_moe_lora_rows up, cu_moe_lora_rows h);

#endif
