/* A backend runs step programs. The operations it lacks are NULL in its table, which recording reports by name. */
#ifndef FA_BACKEND_BACKEND_H
#define FA_BACKEND_BACKEND_H

#include "backend/program.h"
#include "base/arena.h"
#include "base/pool.h"

typedef struct fa_backend fa_backend;
typedef struct fa_device fa_device; /* backend/device.h */

typedef void fa_tap_sink(void *user, const char *name, int layer, fa_tensor t);

typedef struct fa_op_time {
    int64_t calls;
    double seconds, bytes, flops;
} fa_op_time;

/* Time of one kernel within one operation (devices only). */
typedef struct fa_kernel_time {
    const char *kernel; /* static text */
    int op;
    int64_t calls;
    double seconds;
} fa_kernel_time;

enum { FA_KERNEL_TIMES = 128 };

typedef struct fa_run_opts {
    fa_tap_sink *tap; /* receives TAP records, as f32 in host memory; may be NULL */
    void *tap_user;
    fa_op_time *times;       /* [FA_OP_COUNT] added to, or NULL. A device then runs record by record and waits */
    fa_kernel_time *kernels; /* [FA_KERNEL_TIMES] added to, the first with kernel NULL is the end; or NULL */
} fa_run_opts;

/* How a device picks the next token of one row of logits: what fa_sampler_pick does with these options, in the default
 * order of samplers. Bits of `mask` as there. */
typedef struct fa_pick_opts {
    int32_t slot;      /* whose token it is: the next step may take it from there (fa_batch.tok) */
    int32_t n_history; /* tokens of the sequence so far; the pick's is at this place */
    float temp, top_p, min_p, top_n_sigma;
    int32_t top_k;
    float repeat, presence, frequency; /* 1, 0, 0: off */
    int32_t repeat_from;               /* the penalties look at history [repeat_from, n_history) */
    uint64_t seed;
    const uint32_t *mask;   /* host, [(vocab + 31) / 32], NULL: all are allowed */
    const int32_t *bias_id; /* host, [n_bias] tokens whose logits are changed first, each once; -inf: banned */
    const float *bias;
    int32_t n_bias;
} fa_pick_opts;

struct fa_backend {
    const char *name; /* "cpu" */
    const char *isa;
    bool exact;      /* precision mode: see docs/precision.md */
    int attend_tile; /* most query rows of an attention tile */
    int max_pages;   /* page_stride of the batches to come; set by the engine before recording */
    int n_thread;
    fa_device *dev;     /* where tensors, caches and weights lie; NULL: host memory */
    size_t panel_bytes; /* devices: most memory for weights that are unpacked for a matrix product at a time */
    fa_dtype act;       /* element type of what fused operations hand on: F32, or BF16 where that is faster */
    bool has_op[FA_OP_COUNT];
    /* Bytes of work memory (in the step arena) and of scratch (per thread) that a record needs; fails when the backend
     * cannot run it (a format or a shape without a kernel). */
    int (*needs)(const fa_backend *be, const fa_rec *rec, size_t *work, size_t *scratch, fa_error *err);
    /* A device only begins it: results are there after wait or fetch. */
    int (*run)(fa_backend *be, fa_program *prog, const fa_batch *batch, const fa_run_opts *opts, fa_error *err);

    /* ---- devices only: NULL on the CPU ---- */
    int (*wait)(fa_backend *be, fa_error *err);
    /* Rows [row, row + n) of t (f32 or bf16) as f32 to the host, after all that runs. */
    int (*fetch)(fa_backend *be, fa_tensor t, int64_t row, int64_t n, float *out, fa_error *err);
    /* Sequences that a decode step of n is padded to, so that few step programs serve all sizes. */
    int (*bucket)(const fa_backend *be, int n_seq);
    /* A program's shape is about to be recorded anew, or it goes: drop what was built for it (prog->replay). */
    void (*forget)(fa_backend *be, fa_program *prog);
    /* The tokens so far of a slot's sequence, for penalties: before its first pick, and whenever it is another. */
    int (*history)(fa_backend *be, int slot, const int32_t *ids, int64_t n, fa_error *err);
    /* Begins picking a token from each of the first n rows of logits, which it may change. */
    int (*pick)(fa_backend *be, fa_tensor logits, const fa_pick_opts *o, int n, fa_error *err);
    /* Waits for the oldest pick that was not taken yet: ids [n]; < 0: FA_PICK_NONE of engine/sampler.h. Two may be
     * under way. */
    int (*picked)(fa_backend *be, int32_t *ids, int n, fa_error *err);
    void (*free)(fa_backend *be);
};

/* cpu: highest instruction set to use or NULL. */
int fa_backend_cpu_create(fa_backend **out, int n_thread, const char *cpu, bool exact, fa_error *err);
/* Where its threads run; see fa_pool_pin. */
fa_pin fa_backend_cpu_pin(fa_backend *be, fa_pin pin);

#endif
