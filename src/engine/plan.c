/* What an engine needs: steps are recorded with weights and a cache that are not there, into an arena that only counts.
 * The same numbers decide whether a model is loaded to a device at all. */
#include "base/alloc.h"
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>

/* What modules take for themselves later: libraries of matrix products, kernels loaded on first use. */
enum { ALLOWANCE = 96 << 20 };

/* Keys and values that a row at the end of a context of n_ctx tokens reads, for every sequence. */
static double kv_traffic(const ffai_model *m, const fa_settings *s) {
    double bytes = 0;
    for (int64_t i = 0; i < m->dims.n_layer; i++) {
        int32_t w = m->spec[i].window, n = w && w < s->n_ctx ? w : s->n_ctx;
        bytes += 2.0 * n * (double)(m->spec[i].n_head * m->spec[i].head_dim) * (double)fa_dtype_size(s->kv);
    }
    return bytes * s->n_slot;
}

/* Records a step: n_seq sequences of one row, or one of n_tok rows. */
static int plan_shape(ffai_engine *e, int n_tok, int n_seq, int *n_record, double *flops, double *bytes,
                      fa_error *err) {
    fa_program prog = {0};
    fa_batch *b = &e->batch;
    b->n_tok = n_tok;
    b->n_seq = b->n_out = n_seq;
    b->max_q = n_tok == n_seq ? 1 : n_tok;
    b->n_dec = n_tok == n_seq ? n_seq : 0;
    b->n_tile = n_tok == n_seq ? n_seq : (n_tok + e->be->attend_tile - 1) / e->be->attend_tile;
    b->n_cut = n_tok == n_seq ? n_seq : (n_tok + FA_SCAN - 1) / FA_SCAN;
    int rc = fa_engine_record(e, &prog, false, false, false, err);
    *flops = *bytes = 0;
    for (int i = 0; !rc && i < prog.n; i++) {
        *flops += prog.rec[i].flops;
        *bytes += prog.rec[i].bytes;
    }
    *n_record = prog.n;
    fa_free(prog.rec);
    return rc;
}

/* Fills the plan for an engine whose backend and settings stand; pitch: of weight rows on devices, 1: none. */
static int plan_steps(ffai_engine *e, const fa_settings *s, size_t pitch, ffai_plan *plan, fa_error *err) {
    ffai_model *m = e->m;
    fa_kv_opts ko = fa_settings_kv(s);
    fa_arena kept = e->arena;
    fa_weights shapes = {0};
    fa_kv *kv = FA_NEWN(fa_kv, (size_t)m->dims.n_layer);
    fa_state *state = FA_NEWN(fa_state, (size_t)m->dims.n_layer);
    ko.dev = e->dev;
    memset(plan, 0, sizeof *plan);
    int rc = kv && state
                 ? fa_kv_size(m->spec, (int)m->dims.n_layer, &ko, &plan->cache_bytes, &plan->cache_bytes_per_token, err)
                 : fa_fail(err, FFAI_ENOMEM, "no memory for a plan");
    if (!rc) rc = fa_kv_layers(m->spec, (int)m->dims.n_layer, &ko, kv, err);
    if (!rc) rc = fa_model_shapes(m, pitch, &shapes, err);
    if (!rc) rc = fa_arena_create(&e->arena, (size_t)1 << 38, NULL, err);
    if (!rc) {
        e->arena.dry = true;
        e->lm = (fa_lm){m->cfg, shapes.w, kv, state};
        e->be->max_pages = (s->n_ctx + FA_PAGE - 1) / FA_PAGE * (e->batch.n_group ? e->batch.n_group : 1);
        rc = plan_shape(e, s->n_chunk, 1, &plan->n_record, &plan->prefill_flops, &plan->prefill_bytes, err);
        if (!rc)
            rc = plan_shape(e, s->n_slot, s->n_slot, &plan->n_record, &plan->decode_flops, &plan->decode_bytes, err);
        plan->arena_bytes = (int64_t)e->arena.peak;
        fa_arena_destroy(&e->arena);
    }
    e->arena = kept;
    plan->decode_bytes += kv_traffic(m, s);
    plan->weight_bytes = pitch > 1 ? (int64_t)shapes.bytes : m->weight_bytes;
    plan->total_bytes = plan->weight_bytes + plan->cache_bytes + plan->arena_bytes;
    plan->n_ctx = s->n_ctx;
    plan->n_slot = s->n_slot;
    plan->n_chunk = s->n_chunk;
    fa_model_weights_free(&shapes);
    fa_free(state);
    fa_free(kv);
    return rc;
}

/* ---- does it fit? ---- */

int fa_engine_fits(ffai_engine *e, const fa_settings *s, const fa_module *mod, fa_error *err) {
    ffai_plan p;
    int64_t total, avail;
    int rc = plan_steps(e, s, FA_DEVICE_PITCH, &p, err);
    if (!rc) rc = e->dev->memory(e->dev, &total, &avail, err);
    if (rc) return rc;
    int64_t load = fa_model_is_on(e->m, mod, s->device.index) ? 0 : p.weight_bytes;
    int64_t need = load + p.cache_bytes + p.arena_bytes + ALLOWANCE;
    if (need <= avail) return 0;
    const double gib = 1.0 / (1 << 30);
    return fa_fail(err, FFAI_ENOMEM,
                   "%s needs %.2f GiB (weights %.2f%s, cache %.2f, work %.2f), %s has %.2f GiB free of %.2f",
                   fa_ckpt_path(e->m->ckpt), (double)need * gib, (double)load * gib, load ? "" : ": loaded already",
                   (double)p.cache_bytes * gib, (double)(p.arena_bytes + ALLOWANCE) * gib, e->dev->name,
                   (double)avail * gib, (double)total * gib);
}

/* ---- plans ---- */

static int no_needs(const fa_backend *be, const fa_rec *rec, size_t *work, size_t *scratch, fa_error *err) {
    (void)be, (void)rec, (void)err;
    *work = *scratch = 0;
    return 0;
}

/* In place of a GPU that is not there: what records tell without it. */
static void stand_in(fa_backend *be, bool exact) {
    *be = (fa_backend){.name = "cuda",
                       .exact = exact,
                       .attend_tile = 64,
                       .n_thread = 1,
                       .act = exact ? FA_F32 : FA_BF16,
                       .needs = no_needs};
    for (int i = 0; i < FA_OP_COUNT; i++) be->has_op[i] = true;
}

/* The device of a plan, if it can be had: then the plan knows what its kernels need. */
static void try_device(ffai_engine *e, const fa_settings *s) {
    const fa_module *mod;
    fa_backend_opts bo = {s->exact, s->n_slot, s->n_ctx, e->m->dims.vocab, &e->batch};
    if (fa_module_open(&mod, s->cuda_module, NULL)) return;
    if (mod->open(&e->dev, s->device.index, NULL)) return;
    if (e->dev->backend(e->dev, &e->be, &bo, NULL)) e->be = NULL;
}

int ffai_engine_plan(ffai_model *m, const ffai_engine_opts *opts, ffai_plan *plan, ffai_error *err) {
    fa_settings s;
    fa_backend absent;
    int n_group;
    int32_t n_page;
    memset(plan, 0, sizeof *plan);
    int rc = fa_settings_read(&s, m, opts, err);
    if (rc) return rc;
    ffai_engine e = {.m = m, .n_ctx = s.n_ctx, .n_slot = s.n_slot, .composed = s.composed};
    bool gpu = s.device.kind != FA_ON_CPU;
    if (gpu) {
        fa_settings_for(&s, m, opts, true);
        fa_kv_opts ko = fa_settings_kv(&s);
        rc = fa_kv_shape(m->spec, (int)m->dims.n_layer, &ko, &n_group, &n_page, err);
        if (!rc) rc = fa_engine_make_batch(&e, s.n_chunk + s.n_slot, s.n_slot, n_page, n_group, err);
        if (!rc) try_device(&e, &s);
        if (!e.be && s.device.kind == FA_ON_CUDA) {
            stand_in(&absent, s.exact);
            e.be = &absent;
        }
    }
    if (!rc && !e.be) {
        gpu = false;
        fa_settings_for(&s, m, opts, false);
        rc = fa_backend_cpu_create(&e.be, 1, s.cpu, s.exact, err);
    }
    e.n_chunk = s.n_chunk;
    if (!rc) rc = plan_steps(&e, &s, gpu ? FA_DEVICE_PITCH : 1, plan, err);
    if (e.be && e.be != &absent) e.be->free(e.be);
    if (e.dev) e.dev->free(e.dev);
    fa_mem_free(&e.mem);
    return rc;
}
