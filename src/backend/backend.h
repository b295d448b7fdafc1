/* A backend runs step programs. The operations it lacks are NULL in its table, which recording reports by name. */
#ifndef FA_BACKEND_BACKEND_H
#define FA_BACKEND_BACKEND_H

#include "backend/program.h"
#include "base/arena.h"

typedef struct fa_backend fa_backend;

typedef void fa_tap_sink(void *user, const char *name, int layer, fa_tensor t);

typedef struct fa_op_time {
    int64_t calls;
    double seconds, bytes, flops;
} fa_op_time;

typedef struct fa_run_opts {
    fa_tap_sink *tap; /* receives TAP records; may be NULL */
    void *tap_user;
    fa_op_time *times; /* [FA_OP_COUNT] added to, or NULL */
} fa_run_opts;

struct fa_backend {
    const char *name; /* "cpu" */
    const char *isa;
    bool exact;      /* precision mode: see docs/precision.md */
    int attend_tile; /* most query rows of an attention tile */
    int max_pages;   /* page_stride of the batches to come; set by the engine before recording */
    int n_thread;
    bool has_op[FA_OP_COUNT];
    /* Bytes of work memory (in the step arena) and of scratch (per thread) that a record needs. */
    void (*needs)(const fa_backend *be, const fa_rec *rec, size_t *work, size_t *scratch);
    int (*run)(fa_backend *be, const fa_program *prog, const fa_batch *batch, const fa_run_opts *opts, fa_error *err);
    void (*free)(fa_backend *be);
};

/* cpu: highest instruction set to use or NULL. */
int fa_backend_cpu_create(fa_backend **out, int n_thread, const char *cpu, bool exact, fa_error *err);

#endif
