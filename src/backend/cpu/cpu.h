/* The CPU backend's inside: how an operation is cut into phases and items, and what the op files share.
 *
 * A record runs as one or more phases with a barrier after each. A phase is `items` independent pieces of work that the
 * threads take in batches; item counts depend on the record, the batch's integers and what an earlier phase has left,
 * so all threads agree on them without talking. */
#ifndef FA_BACKEND_CPU_CPU_H
#define FA_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/kern.h"
#include "base/pool.h"

typedef struct fa_cpu {
    fa_backend be; /* first */
    fa_kernels k;
    fa_pool *pool;
    uint8_t *scratch; /* [n_thread, scratch_bytes] */
    size_t scratch_bytes;
} fa_cpu;

/* What a thread sees while it works on a record. */
typedef struct cpu_task {
    const fa_cpu *cpu;
    const fa_kernels *k;
    const fa_batch *b;
    const fa_rec *r;
    const fa_run_opts *opts;
    void *scratch;  /* this thread's */
    bool *prepared; /* this thread's, false at the start of a record: see ops_linear.c */
} cpu_task;

typedef struct cpu_op {
    int n_phase;
    int64_t (*items)(const cpu_task *t, int phase);
    void (*run)(const cpu_task *t, int phase, int64_t item);
    void (*needs)(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch); /* NULL: nothing */
} cpu_op;

/* Ops by group. */
extern const cpu_op cpu_embed, cpu_rope_table, cpu_norm, cpu_head_norm, cpu_rope, cpu_append, cpu_glu, cpu_add,
    cpu_rows, cpu_softcap, cpu_scale, cpu_clamp, cpu_cols, cpu_pick_cols, cpu_row_gate, cpu_tap; /* ops_basic.c */
extern const cpu_op cpu_linear, cpu_linear_add, cpu_norm_qkv, cpu_norm_mlp_up;                   /* ops_linear.c */
extern const cpu_op cpu_route;                                                                   /* ops_route.c */
extern const cpu_op cpu_moe;                                                                     /* ops_moe.c */
extern const cpu_op cpu_attend;                                                                  /* ops_attend.c */
extern const cpu_op cpu_lora, cpu_lora_embed;                                                    /* ops_lora.c */
extern const cpu_op cpu_conv, cpu_ssm1, cpu_ssd, cpu_delta, cpu_gate_norm, cpu_scale_cols;       /* ops_scan.c */

/* Shared by ops_basic and ops_linear. */
enum { CPU_ROWS = 8 /* rows per item of row-wise phases */ };
static inline int64_t cpu_row_items(int64_t rows) { return (rows + CPU_ROWS - 1) / CPU_ROWS; }
static inline int64_t cpu_min(int64_t a, int64_t b) { return a < b ? a : b; }
/* The same where a row is much work: fewer rows per item when there would be fewer items than threads. A power of two.
 */
static inline int64_t cpu_few_rows(const fa_cpu *cpu, int64_t rows) {
    int64_t n = CPU_ROWS;
    while (n > 1 && (rows + n - 1) / n < cpu->be.n_thread) n /= 2;
    return n;
}
static inline int64_t cpu_few_items(const fa_cpu *cpu, int64_t rows) {
    const int64_t n = cpu_few_rows(cpu, rows);
    return (rows + n - 1) / n;
}
void cpu_norm_row(const fa_kernels *k, const fa_norm *n, const float *x, float *out);
/* Normalises `heads` heads of head_dim in place (norm may be NULL) and rotates them by the table row (NULL: none). */
void cpu_heads_row(const fa_kernels *k, float *x, int64_t heads, int64_t head_dim, const fa_norm *norm,
                   const float *table_row, int64_t n_pair, bool interleaved);
/* Writes one row of k or v [n_head, head_dim] to position pos of a sequence. */
void cpu_append_row(const fa_kernels *k, const fa_kv *kv, uint8_t *plane, const int32_t *pages, int32_t pos,
                    const float *x);
/* Sequence that row `row` of the batch belongs to. */
int cpu_row_seq(const fa_batch *b, int64_t row);
/* up NULL: act(gate) alone */
void cpu_glu_row(const fa_kernels *k, fa_act_fn act, const float *gate, const float *up, int64_t n, float *out);

#endif
