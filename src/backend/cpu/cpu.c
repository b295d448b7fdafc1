/* The CPU backend: threads walk the step program together. */
#include "backend/cpu/cpu.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <string.h>

static int64_t nop_items(const cpu_task *t, int phase) {
    (void)t, (void)phase;
    return 0;
}
/* Used to measure the cost of walking a program: one phase without work, but with its barrier. */
static const cpu_op cpu_nop = {1, nop_items, NULL, NULL};

static const cpu_op *const ops[FA_OP_COUNT] = {
    [FA_OP_NOP] = &cpu_nop,
    [FA_OP_EMBED] = &cpu_embed,
    [FA_OP_ROPE_TABLE] = &cpu_rope_table,
    [FA_OP_NORM] = &cpu_norm,
    [FA_OP_LINEAR] = &cpu_linear,
    [FA_OP_HEAD_NORM] = &cpu_head_norm,
    [FA_OP_ROPE] = &cpu_rope,
    [FA_OP_APPEND] = &cpu_append,
    [FA_OP_ATTEND] = &cpu_attend,
    [FA_OP_GLU] = &cpu_glu,
    [FA_OP_ADD] = &cpu_add,
    [FA_OP_ROWS] = &cpu_rows,
    [FA_OP_SOFTCAP] = &cpu_softcap,
    [FA_OP_SCALE] = &cpu_scale,
    [FA_OP_CLAMP] = &cpu_clamp,
    [FA_OP_COLS] = &cpu_cols,
    [FA_OP_PICK_COLS] = &cpu_pick_cols,
    [FA_OP_ROW_GATE] = &cpu_row_gate,
    [FA_OP_ROUTE] = &cpu_route,
    [FA_OP_LORA] = &cpu_lora,
    [FA_OP_LORA_EMBED] = &cpu_lora_embed,
    [FA_OP_MOE] = &cpu_moe,
    [FA_OP_CONV] = &cpu_conv,
    [FA_OP_SSM1] = &cpu_ssm1,
    [FA_OP_SSD] = &cpu_ssd,
    [FA_OP_DELTA] = &cpu_delta,
    [FA_OP_GATE_NORM] = &cpu_gate_norm,
    [FA_OP_SCALE_COLS] = &cpu_scale_cols,
    [FA_OP_TAP] = &cpu_tap,
    [FA_OP_NORM_QKV] = &cpu_norm_qkv,
    [FA_OP_LINEAR_ADD] = &cpu_linear_add,
    [FA_OP_NORM_MLP_UP] = &cpu_norm_mlp_up,
};

static int cpu_needs(const fa_backend *be, const fa_rec *rec, size_t *work, size_t *scratch, fa_error *err) {
    const fa_cpu *cpu = (const fa_cpu *)be;
    (void)err;
    *work = *scratch = 0;
    if (ops[rec->op]->needs) ops[rec->op]->needs(cpu, rec, work, scratch);
    return 0;
}

typedef struct walk {
    fa_cpu *cpu;
    const fa_program *prog;
    const fa_batch *batch;
    const fa_run_opts *opts;
} walk;

/* Items are taken a few at a time when there are many, so that the shared counter stays cool. */
static int64_t take_step(int64_t items, int n_thread) {
    int64_t step = items / (n_thread * 16);
    return step < 1 ? 1 : step;
}

/* Items that each thread has for itself: neighbours, so that what it asks memory for ahead is what comes next. The rest
 * are taken by whoever is free. */
static int64_t own_items(int64_t items, int n_thread) { return items * 3 / (4 * n_thread); }

static void walk_record(const walk *w, const fa_rec *r, int ith, void *scratch) {
    fa_pool *pool = w->cpu->pool;
    const int n_thread = w->cpu->be.n_thread;
    const cpu_op *op = ops[r->op];
    bool prepared = false;
    cpu_task t = {w->cpu, &w->cpu->k, w->batch, r, w->opts, scratch, &prepared};
    for (int phase = 0; phase < op->n_phase; phase++) {
        const int64_t n = op->items(&t, phase), own = own_items(n, n_thread), rest = own * n_thread,
                      step = take_step(n, n_thread);
        if (n == 0 && r->op != FA_OP_NOP) continue; /* every thread sees the same n */
        for (int64_t i = own * ith; i < own * (ith + 1); i++) op->run(&t, phase, i);
        for (int64_t i; (i = rest + fa_pool_take(pool, step)) < n;)
            for (int64_t j = i; j < i + step && j < n; j++) op->run(&t, phase, j);
        fa_pool_barrier(pool);
    }
}

static void walk_program(void *arg, int ith, int n_thread) {
    const walk *w = (const walk *)arg;
    void *scratch = w->cpu->scratch + (size_t)ith * w->cpu->scratch_bytes;
    (void)n_thread;
    if (ith != 0 || !w->opts->times) {
        for (int i = 0; i < w->prog->n; i++) walk_record(w, &w->prog->rec[i], ith, scratch);
        return;
    }
    double t0 = fa_now();
    for (int i = 0; i < w->prog->n; i++) {
        const fa_rec *r = &w->prog->rec[i];
        walk_record(w, r, ith, scratch);
        double t1 = fa_now();
        fa_op_time *ot = &w->opts->times[r->op];
        ot->calls++;
        ot->seconds += t1 - t0;
        ot->bytes += r->bytes;
        ot->flops += r->flops;
        t0 = t1;
    }
}

static int cpu_run(fa_backend *be, fa_program *prog, const fa_batch *batch, const fa_run_opts *opts, fa_error *err) {
    static const fa_run_opts none = {0};
    fa_cpu *cpu = (fa_cpu *)be;
    size_t need = (prog->scratch + 127) / 64 * 64;
    if (need > cpu->scratch_bytes) {
        uint8_t *p = (uint8_t *)fa_aligned_calloc(64, need * (size_t)be->n_thread);
        if (!p)
            return fa_fail(err, FFAI_ENOMEM, "no memory for %zu bytes of kernel scratch", need * (size_t)be->n_thread);
        fa_free(cpu->scratch);
        cpu->scratch = p;
        cpu->scratch_bytes = need;
    }
    walk w = {cpu, prog, batch, opts ? opts : &none};
    fa_pool_run(cpu->pool, walk_program, &w);
    return 0;
}

static void cpu_free(fa_backend *be) {
    fa_cpu *cpu = (fa_cpu *)be;
    if (!cpu) return;
    fa_pool_free(cpu->pool);
    fa_free(cpu->scratch);
    fa_free(cpu);
}

fa_pin fa_backend_cpu_pin(fa_backend *be, fa_pin pin) { return fa_pool_pin(((fa_cpu *)be)->pool, pin); }

int fa_backend_cpu_create(fa_backend **out, int n_thread, const char *limit, bool exact, fa_error *err) {
    *out = NULL;
    fa_cpu *cpu = FA_NEW(fa_cpu);
    if (!cpu) return fa_fail(err, FFAI_ENOMEM, "no memory for the cpu backend");
    int rc = fa_kernels_init(&cpu->k, limit, err);
    if (!rc) rc = fa_pool_create(&cpu->pool, n_thread, err);
    if (rc) {
        cpu_free(&cpu->be);
        return rc;
    }
    fa_backend *be = &cpu->be;
    be->name = "cpu";
    be->isa = cpu->k.isa;
    be->exact = exact;
    be->attend_tile = cpu->k.attend_q_tile;
    be->n_thread = n_thread;
    be->act = FA_F32;
    for (int i = 0; i < FA_OP_COUNT; i++) be->has_op[i] = ops[i] != NULL;
    be->needs = cpu_needs;
    be->run = cpu_run;
    be->free = cpu_free;
    *out = be;
    return 0;
}
