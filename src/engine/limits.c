/* What a device can do at best, measured: the limits that benchmarks compare with. */
#include "backend/cpu/kern.h"
#include "backend/registry.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/cpus.h"
#include "base/pool.h"

#include <string.h>

/* ---- the CPU ---- */

enum { STREAM_BYTES = 1 << 29, LIM_ROWS = 512, LIM_COLS = 2048, LIM_M = 256, LIM_REPS = 4 };

typedef struct limits_job {
    fa_pool *pool;
    const fa_kernels *k;
    const uint64_t *data; /* STREAM_BYTES */
    const fa_weight *w;
    fa_act act;
    const float *x;
    float *y; /* [LIM_M, LIM_ROWS] per thread */
    uint8_t *scratch;
    size_t scratch_bytes;
    int what;
    _Alignas(8) uint64_t sink[64];
} limits_job;

/* The sum of n numbers, read in eight places at once and asked for ahead: one stream of loads leaves a third or more of
 * the memory's rate unused. */
static uint64_t read_block(const uint64_t *p, int64_t n) {
    enum { STREAMS = 8, LINE = 8, AHEAD = 16 * LINE };
    uint64_t sum = 0;
    for (int64_t t = 0; t < n / STREAMS; t += LINE)
        for (int s = 0; s < STREAMS; s++) {
            const uint64_t *q = p + s * (n / STREAMS) + t;
            __builtin_prefetch(q + AHEAD);
            for (int i = 0; i < LINE; i++) sum += q[i];
        }
    return sum;
}

static void limits_run(void *arg, int ith, int n_thread) {
    limits_job *j = (limits_job *)arg;
    (void)n_thread;
    if (j->what == 0) {
        const int64_t block = 1 << 17, n = STREAM_BYTES / 8 / block;
        for (int64_t i; (i = fa_pool_take(j->pool, 1)) < n;)
            j->sink[ith % 64] += read_block(j->data + i * block, block);
        return;
    }
    void *scratch = j->scratch + (size_t)ith * j->scratch_bytes;
    float *y = j->y + (size_t)ith * LIM_M * LIM_ROWS;
    for (int r = 0; r < LIM_REPS; r++) {
        if (j->what == 1)
            j->k->linear_q8(j->k, j->w, 0, LIM_ROWS, &j->act, y, LIM_ROWS, false, scratch);
        else
            j->k->linear_f32(j->k, j->w, 0, LIM_ROWS, j->x, LIM_COLS, LIM_M, y, LIM_ROWS, false, scratch);
    }
}

static double best_time(limits_job *j, int what) {
    double best = 1e9;
    j->what = what;
    for (int i = 0; i < 4; i++) {
        double t0 = fa_now();
        fa_pool_run(j->pool, limits_run, j);
        double t = fa_now() - t0;
        if (t < best) best = t;
    }
    return best;
}

static int cpu_limits(int n_thread, ffai_device_rates *out, fa_error *err) {
    fa_kernels k;
    fa_mem mem = {0};
    limits_job *j = (limits_job *)fa_aligned_calloc(64, sizeof *j);
    if (!j) return fa_fail(err, FFAI_ENOMEM, "no memory for the measurement");
    n_thread = n_thread ? n_thread : fa_cpu_threads();
    int rc = fa_kernels_init(&k, NULL, err);
    if (!rc) rc = fa_pool_create(&j->pool, n_thread, err);
    size_t mk = (size_t)LIM_M * LIM_COLS;
    size_t row = fa_qfmt_row_bytes(FA_FMT_Q8_0, 8, LIM_COLS);
    if (!rc) {
        j->scratch_bytes = (k.linear_scratch(LIM_COLS, LIM_M) + 127) / 64 * 64;
        uint64_t *data = (uint64_t *)fa_mem_calloc(&mem, STREAM_BYTES, 1);
        uint8_t *codes = (uint8_t *)fa_mem_calloc(&mem, LIM_ROWS, row);
        fa_weight w = {.rows = LIM_ROWS,
                       .cols = LIM_COLS,
                       .codes = codes,
                       .row_bytes = row,
                       .fmt = FA_FMT_Q8_0,
                       .name = "measurement"};
        float *x = (float *)fa_mem_calloc(&mem, mk, sizeof *x);
        j->act = (fa_act){(int8_t *)fa_mem_calloc(&mem, mk, 1),
                          (float *)fa_mem_calloc(&mem, mk / 32, 4),
                          (float *)fa_mem_calloc(&mem, mk / 32, 4),
                          (float *)fa_mem_calloc(&mem, mk / 16, 4),
                          LIM_M,
                          LIM_COLS,
                          NULL,
                          0};
        j->y = (float *)fa_mem_calloc(&mem, (size_t)n_thread * LIM_M * LIM_ROWS, sizeof(float));
        j->scratch = (uint8_t *)fa_mem_calloc(&mem, (size_t)n_thread, j->scratch_bytes);
        j->k = &k;
        j->data = data;
        j->x = x;
        j->w = &w;
        if (!data || !codes || !x || !j->act.q || !j->act.scale || !j->act.sum32 || !j->act.sum16 || !j->y ||
            !j->scratch) {
            rc = fa_fail(err, FFAI_ENOMEM, "no memory for the measurement");
        } else {
            memset(data, 1, STREAM_BYTES);
            double ops = 2.0 * LIM_ROWS * LIM_COLS * LIM_M * LIM_REPS * n_thread;
            out->read_bytes_s = STREAM_BYTES / best_time(j, 0);
            out->int8_ops_s = ops / best_time(j, 1);
            out->f32_ops_s = ops / best_time(j, 2);
        }
    }
    fa_pool_free(j->pool);
    fa_mem_free(&mem);
    fa_free(j);
    return rc;
}

/* ---- GPUs ---- */

static int gpu_limits(const char *path, int index, ffai_device_rates *out, fa_error *err) {
    const fa_module *mod;
    fa_device *d = NULL;
    fa_device_rates r = {0};
    int rc = fa_module_open(&mod, path, err);
    if (!rc) rc = mod->open(&d, index, err);
    if (!rc) rc = d->rates(d, &r, err);
    if (!rc)
        *out =
            (ffai_device_rates){.read_bytes_s = r.read_bytes_s, .bf16_ops_s = r.bf16_ops_s, .f32_ops_s = r.f32_ops_s};
    if (d) d->free(d);
    return rc;
}

int ffai_device_limits(const ffai_engine_opts *opts, ffai_device_rates *rates, ffai_error *err) {
    static const ffai_engine_opts none;
    fa_device_name name;
    if (!opts) opts = &none;
    memset(rates, 0, sizeof *rates);
    int rc = fa_device_parse(&name, opts->device, err);
    if (rc) return rc;
    return name.kind == FA_ON_CUDA ? gpu_limits(opts->cuda_module, name.index, rates, err)
                                   : cpu_limits(opts->n_thread, rates, err);
}
