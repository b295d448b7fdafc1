/* Evaluation of known sequences: logits and taps for inspection and tests, timed steps for benchmarks. */
#include "engine/engine.h"
#include "base/alloc.h"
#include "base/clock.h"
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
        seq[i] = (fa_seq_rows){i, o->ids + from, n, i == 0 && o->logits ? n : 0, (int32_t)o->n_ids, NULL, {0}, false};
    float *rows = NULL;
    int rc = fa_engine_run(e, seq, batch, &ro, &logits, err);
    if (!rc) rc = o->logits ? fa_engine_rows(e, logits, n, &rows, err) : fa_engine_wait(e, err);
    for (int j = 0; !rc && o->logits && j < n; j++)
        o->logits(o->user, from + j, rows + j * logits.dim[1], logits.dim[1]);
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

/* One step of n tokens per sequence, cut into engine chunks; logits for the last row of each. A device has only begun
 * it. */
static int bench_step(ffai_engine *e, fa_seq_rows *seq, int batch, const int32_t *ids, int n, fa_error *err) {
    int chunk = e->cap_rows / batch < e->n_chunk ? e->cap_rows / batch : e->n_chunk, rc = 0;
    for (int done = 0; !rc && done < n; done += chunk) {
        int m = n - done < chunk ? n - done : chunk;
        fa_tensor logits = {0};
        for (int i = 0; i < batch; i++) seq[i] = (fa_seq_rows){i, ids + done, m, done + m == n, 0, NULL, {0}, false};
        rc = fa_engine_run(e, seq, batch, NULL, &logits, err);
    }
    return rc;
}

/* Steps as an engine runs them: on a device the next one is prepared while one runs, as when tokens are picked there;
 * all are timed together then, and each one's time is the mean. */
static int timed_steps(ffai_engine *e, fa_seq_rows *seq, int batch, const int32_t *ids, int n_ids, int n_tok,
                       int n_step, double *seconds, fa_error *err) {
    int rc = fa_engine_wait(e, err);
    double begin = fa_now();
    for (int s = 0; !rc && s < n_step; s++) {
        double t0 = fa_now();
        rc = bench_step(e, seq, batch, ids + (n_tok == 1 ? s % n_ids : 0), n_tok, err);
        seconds[s] = fa_now() - t0;
    }
    if (!rc && e->be->wait) {
        rc = fa_engine_wait(e, err);
        double mean = (fa_now() - begin) / n_step;
        for (int s = 0; s < n_step; s++) seconds[s] = mean;
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
    if (!rc) rc = timed_steps(e, seq, batch, ids, n, n_tok, n_step, seconds, err);
    for (int i = 0; i < batch && i < e->n_slot; i++) fa_kv_reset(e->kv, i);
    fa_free(ids);
    fa_free(seq);
    return rc;
}
