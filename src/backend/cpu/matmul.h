/* What operations with matrix products share: the forms that inputs are multiplied in, their place in memory, and the
 * cut of weight rows into work items. Precision is decided here, per weight: exact mode multiplies in f32; otherwise a
 * weight may want its input in another form (int8, bf16), which is prepared once per record and shared by all weights
 * that read it. */
#ifndef FA_BACKEND_CPU_MATMUL_H
#define FA_BACKEND_CPU_MATMUL_H

#include "backend/cpu/cpu.h"

enum { CPU_FEW_ROWS = 4 /* input rows up to which the kernels go weight row by weight row */ };

/* Forms of the input besides f32 (0); a record's are a set. */
enum { CPU_Q8 = 1, CPU_BF16 = 2, CPU_TURN = 4 /* and the bits above it: ways of turning (fa_act), 1 << way / 32 */ };

/* The form that w multiplies M input rows in. */
unsigned cpu_form_of(const fa_cpu *cpu, const fa_weight *w, int64_t M);

/* The same with the way in which the product wants its input turned, if any: for inputs made once for all products. */
unsigned cpu_forms_of(const fa_cpu *cpu, const fa_weight *w, int64_t M);

static inline size_t cpu_up64(size_t n) { return (n + 63) / 64 * 64; }

/* [M, K] activations in int8: planes one after the other, each 64-byte aligned. */
size_t cpu_act_bytes(int64_t M, int64_t K);
fa_act cpu_act_at(uint8_t *mem, int64_t M, int64_t K);
/* Rows [m, m + n) of a */
fa_act cpu_act_slice(const fa_act *a, int64_t m, int64_t n);

/* The input of products as they find it. */
typedef struct cpu_input {
    const float *x; /* [M, K] */
    float *normed;  /* where the normalised rows go, = x then; NULL without norm */
    fa_act act;     /* q NULL: not needed */
    uint16_t *bf16; /* [M, K]; NULL: not needed */
} cpu_input;

/* Weight rows per item. Every thread should get several items, so that none waits long for the last one. Few input
 * rows: about 64 KiB of weights at most. Many: one or two of the kernels' tiles. */
int64_t cpu_item_rows(const fa_cpu *cpu, const fa_weight *w, int64_t M);

/* Rows [r0, r1) of a layer as a layer of its own */
fa_linear cpu_linear_slice(const fa_linear *lin, int64_t r0, int64_t r1);

/* y[:, r0:r1] (+)= input x lin, multiplied in `form`; scratch: of the kernels' linear_scratch */
void cpu_linear_range(const cpu_task *t, unsigned form, const cpu_input *in, const fa_linear *lin, int64_t r0,
                      int64_t r1, int64_t M, float *y, int64_t ldy, bool add);

#endif
