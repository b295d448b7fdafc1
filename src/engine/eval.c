/* Evaluation of known sequences: logits and taps for inspection and tests, timed steps for benchmarks, machine limits.
 */
#include "engine/engine.h"
#include "backend/cpu/kern.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/pool.h"
#include "base/rng.h"

#include <string.h>

enum { LOGITS_MAX = 128 << 20 /* bytes of logits in one step of an evaluation */ };

static void forward_tap(void *user, const char *name, int layer, fa_tensor t) {
    const ffai_eval_opts *o = (const ffai_eval_opts *)user;
    o->tap(o->user, name, layer, fa_f32(t), t.dim, t.n_dim);
}

/* Feeds n more ids to `batch` sequences at once, in one step, and reports the logits of sequence 0. */
static int feed(ffai_engine *e, const ffai_eval_opts *o, fa_seq_rows *seq, int batch, int64_t from, int n,
                fa_error *err) {
    fa_run_opts ro = {.tap = o->tap ? forward_tap : NULL, .tap_user = (void *)(uintptr_t)o};
    fa_tensor logits = {0};
    for (int i = 0; i < batch; i++)
        seq[i] = (fa_seq_rows){i, o->ids + from, n, i == 0 && o->logits ? n : 0, (int32_t)o->n_ids};
    int rc = fa_engine_run(e, seq, batch, &ro, &logits, err);
    for (int j = 0; !rc && o->logits && j < n; j++)
        o->logits(o->user, from + j, fa_f32(logits) + j * logits.dim[1], logits.dim[1]);
    return rc;
}

int ffai_eval(ffai_engine *e, const ffai_eval_opts *o, ffai_error *err) {
    int batch = o->batch > 0 ? o->batch : 1, rc = fa_engine_take_slots(e, 0, err);
    int64_t n = (int64_t)o->n_ids, vocab = e->m->dims.vocab;
    if (!rc && !n) rc = fa_fail(err, FFAI_EINVAL, "there are no token ids");
    if (!rc && n > e->n_ctx)
        rc = fa_fail(err, FFAI_ELIMIT, "%lld token ids do not fit the context of %d", (long long)n, e->n_ctx);
    if (!rc && batch > e->n_slot)
        rc = fa_fail(err, FFAI_ELIMIT, "a batch of %d does not fit %d slots", batch, e->n_slot);
    if (!rc) rc = fa_engine_check_ids(e, o->ids, o->n_ids, err);
    if (!rc && o->logits) rc = fa_engine_has_head(e, err);
    if (rc) return rc;
    int64_t chunk = o->chunk > 0 && o->chunk < e->n_chunk ? o->chunk : e->n_chunk,
            single = o->decode_from > 0 && o->decode_from < n ? o->decode_from : n;
    if (chunk > e->cap_rows / batch) chunk = e->cap_rows / batch;
    if (o->logits && chunk > LOGITS_MAX / 4 / vocab) chunk = LOGITS_MAX / 4 / vocab;
    if (chunk < 1) chunk = 1;
    fa_seq_rows *seq = FA_NEWN(fa_seq_rows, (size_t)batch);
    if (!seq) return fa_fail(err, FFAI_ENOMEM, "no memory for a batch of %d", batch);
    rc = fa_engine_take_slots(e, batch, err);
    for (int64_t i = 0; !rc && i < n;) {
        int64_t m = i >= single ? 1 : single - i < chunk ? single - i : chunk;
        rc = feed(e, o, seq, batch, i, (int)m, err);
        i += m;
    }
    for (int i = 0; i < batch; i++) fa_kv_reset(e->kv, i);
    fa_free(seq);
    return rc;
}

/* ---- timed steps ---- */

/* One step of n tokens per sequence, cut into engine chunks; logits for the last row of each. */
static int bench_step(ffai_engine *e, fa_seq_rows *seq, int batch, const int32_t *ids, int n, fa_error *err) {
    int chunk = e->cap_rows / batch < e->n_chunk ? e->cap_rows / batch : e->n_chunk, rc = 0;
    for (int done = 0; !rc && done < n; done += chunk) {
        int m = n - done < chunk ? n - done : chunk;
        fa_tensor logits = {0};
        for (int i = 0; i < batch; i++) seq[i] = (fa_seq_rows){i, ids + done, m, done + m == n, 0};
        rc = fa_engine_run(e, seq, batch, NULL, &logits, err);
    }
    return rc;
}

int ffai_bench(ffai_engine *e, int batch, int depth, int n_tok, int n_step, double *seconds, ffai_error *err) {
    int rc = fa_engine_take_slots(e, 0, err);
    if (!rc && (batch < 1 || batch > e->n_slot || depth < 0 || n_tok < 1 || n_step < 1))
        rc = fa_fail(err, FFAI_EINVAL, "bench: batch %d (slots %d), depth %d, %d tokens, %d steps", batch, e->n_slot,
                     depth, n_tok, n_step);
    if (!rc && (int64_t)depth + (int64_t)n_tok * n_step > e->n_ctx)
        rc = fa_fail(err, FFAI_ELIMIT, "bench: %d + %d x %d tokens do not fit the context of %d", depth, n_step, n_tok,
                     e->n_ctx);
    if (rc) return rc;
    int n = depth > n_tok ? depth : n_tok;
    int32_t *ids = FA_NEWN(int32_t, (size_t)n);
    fa_seq_rows *seq = FA_NEWN(fa_seq_rows, (size_t)batch);
    if (!ids || !seq) rc = fa_fail(err, FFAI_ENOMEM, "bench: no memory");
    for (int i = 0; !rc && i < n; i++) ids[i] = (int32_t)(fa_rng_at(1, (uint64_t)i) % (uint64_t)e->m->dims.vocab);
    if (!rc) rc = fa_engine_take_slots(e, batch, err);
    if (!rc && depth) rc = bench_step(e, seq, batch, ids, depth, err);
    for (int s = 0; !rc && s < n_step; s++) {
        double t0 = fa_now();
        rc = bench_step(e, seq, batch, ids + (n_tok == 1 ? s % n : 0), n_tok, err);
        seconds[s] = fa_now() - t0;
    }
    for (int i = 0; i < batch && i < e->n_slot; i++) fa_kv_reset(e->kv, i);
    fa_free(ids);
    fa_free(seq);
    return rc;
}

/* ---- machine limits ---- */

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

static void limits_run(void *arg, int ith, int n_thread) {
    limits_job *j = (limits_job *)arg;
    (void)n_thread;
    if (j->what == 0) {
        const int64_t block = 1 << 17, n = STREAM_BYTES / 8 / block;
        uint64_t a = 0, b = 0, c = 0, d = 0;
        for (int64_t i; (i = fa_pool_take(j->pool, 1)) < n;) {
            const uint64_t *p = j->data + i * block;
            for (int64_t t = 0; t < block; t += 8)
                a += p[t] ^ p[t + 1], b += p[t + 2] ^ p[t + 3], c += p[t + 4] ^ p[t + 5], d += p[t + 6] ^ p[t + 7];
        }
        j->sink[ith % 64] += a + b + c + d;
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

int ffai_device_limits(int n_thread, double *read_bytes_s, double *int8_ops_s, double *f32_ops_s, ffai_error *err) {
    fa_kernels k;
    fa_mem mem = {0};
    limits_job *j = (limits_job *)fa_aligned_calloc(64, sizeof *j);
    if (!j) return fa_fail(err, FFAI_ENOMEM, "no memory for the measurement");
    n_thread = n_thread ? n_thread : fa_cpu_count();
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
                          LIM_COLS};
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
            *read_bytes_s = STREAM_BYTES / best_time(j, 0);
            *int8_ops_s = ops / best_time(j, 1);
            *f32_ops_s = ops / best_time(j, 2);
        }
    }
    fa_pool_free(j->pool);
    fa_mem_free(&mem);
    fa_free(j);
    return rc;
}
