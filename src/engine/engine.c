/* Engines: their options, creating one on the CPU or on a GPU, and what can be asked of it. */
#include "engine/engine.h"
#include "base/alloc.h"
#include "base/cpus.h"
#include "base/pool.h"
#include "cache/state.h"
#include "engine/sampler.h"

#include <string.h>

/* ---- options ---- */

static int range(fa_error *err, const char *what, int v, int min, int max) {
    if (v >= min && v <= max) return 0;
    return fa_fail(err, FFAI_EINVAL, "%s: %d is not between %d and %d", what, v, min, max);
}

static int parse_kv(fa_settings *s, const char *name, fa_error *err) {
    static const fa_dtype kinds[] = {FA_F32, FA_F16, FA_BF16, FA_I8};
    if (!name) name = s->exact ? "f32" : "f16";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(fa_kv_type_name(kinds[i]), name)) continue;
        s->kv = kinds[i];
        s->kv_name = fa_kv_type_name(kinds[i]);
        return 0;
    }
    return fa_fail(err, FFAI_EINVAL, "kv-cache: \"%s\" is not f32, f16, bf16 or q8", name);
}

static const char *const pin_name[] = {[FA_PIN_AUTO] = "auto", [FA_PIN_OFF] = "off", [FA_PIN_ON] = "on"};

static int parse_pin(fa_settings *s, const char *name, fa_error *err) {
    s->pin = FA_PIN_AUTO;
    if (!name) return 0;
    for (size_t i = 0; i < sizeof pin_name / sizeof *pin_name; i++)
        if (!strcmp(name, pin_name[i])) {
            s->pin = (fa_pin)i;
            return 0;
        }
    return fa_fail(err, FFAI_EINVAL, "pin: \"%s\" is not auto, on or off", name);
}

enum {
    CHUNK_CPU = 512,
    CHUNK_GPU = 2048,        /* matrix products are at their best from about there */
    CHUNK_GPU_EXPERTS = 8192 /* ... of which an expert sees a share only */
};

int fa_settings_read(fa_settings *s, const ffai_model *m, const ffai_engine_opts *o, fa_error *err) {
    static const ffai_engine_opts none;
    if (!o) o = &none;
    const char *precision = o->precision ? o->precision : "fast";
    if (!m->bound)
        return fa_fail(err, FFAI_EINVAL, "%s: opened without its weights",
                       m->tok_dir ? m->tok_dir : fa_ckpt_path(m->ckpt));
    if (strcmp(precision, "fast") && strcmp(precision, "exact"))
        return fa_fail(err, FFAI_EINVAL, "precision: \"%s\" is not exact or fast", precision);
    *s = (fa_settings){.n_thread = o->n_thread ? o->n_thread : fa_cpu_threads(),
                       .n_slot = o->n_slot ? o->n_slot : 1,
                       .exact = strcmp(precision, "exact") == 0,
                       .cpu = o->cpu,
                       .cuda_module = o->cuda_module,
                       .composed = o->composed,
                       .profile = o->profile};
    s->n_ctx = o->n_ctx ? o->n_ctx : (int)(m->dims.max_ctx < 4096 ? m->dims.max_ctx : 4096);
    int rc = fa_device_parse(&s->device, o->device, err);
    if (!rc) rc = range(err, "threads", s->n_thread, 1, 1024);
    if (!rc) rc = range(err, "ctx", s->n_ctx, 1, 1 << 28);
    if (!rc) rc = range(err, "slots", s->n_slot, 1, 4096);
    if (!rc) rc = range(err, "chunk", o->n_chunk, 0, 1 << 20);
    if (!rc) rc = parse_kv(s, o->kv_cache, err);
    if (!rc) rc = parse_pin(s, o->pin, err);
    /* who names an instruction set means the processor */
    if (!rc && s->device.kind == FA_ON_AUTO && o->cpu) s->device.kind = FA_ON_CPU;
    if (!rc) fa_settings_for(s, m, o, false);
    return rc;
}

void fa_settings_for(fa_settings *s, const ffai_model *m, const ffai_engine_opts *o, bool gpu) {
    int chunk = !gpu ? CHUNK_CPU : m->n_expert ? CHUNK_GPU_EXPERTS : CHUNK_GPU;
    s->n_chunk = o && o->n_chunk ? o->n_chunk : chunk;
    if (s->n_chunk > (int64_t)s->n_ctx * s->n_slot) s->n_chunk = s->n_ctx * s->n_slot;
    if (gpu) s->n_thread = 1;
}

fa_kv_opts fa_settings_kv(const fa_settings *s) {
    return (fa_kv_opts){.n_slot = s->n_slot, .n_ctx = s->n_ctx, .n_chunk = s->n_chunk, .dtype = s->kv};
}

/* ---- creating ---- */

/* Sequences of a decode step with the added ones: see pad_batch. */
static int batch_seqs(int n_slot, bool gpu) {
    int n = 1;
    while (gpu && n < n_slot) n *= 2;
    return gpu ? n : n_slot;
}

static void *device_reserve(void *user, size_t *bytes, fa_error *err) {
    fa_device *d = (fa_device *)user;
    return d->reserve(d, bytes, err);
}

static int device_commit(void *user, void *base, size_t from, size_t to) {
    fa_device *d = (fa_device *)user;
    return d->commit(d, base, from, to);
}

static void device_unreserve(void *user, void *base, size_t bytes, size_t committed) {
    fa_device *d = (fa_device *)user;
    d->unreserve(d, base, bytes, committed);
}

static const fa_state *states_of(const fa_kv_cache *c) { return c->states ? c->states->layer : NULL; }

static int start_cpu(ffai_engine *e, const fa_settings *s, fa_error *err) {
    fa_kv_opts ko = fa_settings_kv(s);
    const void *w;
    int rc = fa_model_host(e->m, &w, err);
    if (!rc) rc = fa_backend_cpu_create(&e->be, s->n_thread, s->cpu, s->exact, err);
    if (!rc) e->pin = fa_backend_cpu_pin(e->be, s->pin);
    if (!rc) rc = fa_arena_create(&e->arena, (size_t)1 << 38, NULL, err);
    if (!rc) rc = fa_kv_create(&e->kv, e->m->spec, (int)e->m->dims.n_layer, &ko, err);
    if (!rc) e->lm = (fa_lm){e->m->cfg, w, e->kv->layer, states_of(e->kv)};
    return rc;
}

/* The backend comes first: it knows what its kernels need, and so whether the model fits before it is loaded. */
static int start_gpu(ffai_engine *e, const fa_settings *s, const fa_module *mod, fa_error *err) {
    fa_kv_opts ko = fa_settings_kv(s);
    fa_backend_opts bo = {s->exact, s->n_slot, s->n_ctx, e->m->dims.vocab, &e->batch};
    const fa_weights *w;
    int rc = mod->open(&e->dev, s->device.index, err);
    if (!rc) rc = e->dev->backend(e->dev, &e->be, &bo, err);
    if (!rc) rc = fa_engine_fits(e, s, mod, err);
    if (!rc) rc = fa_model_device(e->m, mod, s->device.index, &w, err);
    fa_arena_source source = {e->dev, device_reserve, device_commit, device_unreserve};
    if (!rc) rc = fa_arena_create(&e->arena, (size_t)1 << 38, &source, err);
    ko.dev = e->dev;
    if (!rc) rc = fa_kv_create(&e->kv, e->m->spec, (int)e->m->dims.n_layer, &ko, err);
    if (rc) return rc;
    e->lm = (fa_lm){e->m->cfg, w->w, e->kv->layer, states_of(e->kv)};
    e->weight_bytes = (int64_t)w->bytes;
    return 0;
}

static int allocate(ffai_engine *e, const fa_settings *s, fa_error *err) {
    size_t n = (size_t)s->n_slot;
    e->step_seq = (fa_seq_rows *)fa_mem_calloc(&e->mem, n, sizeof *e->step_seq);
    e->step_who = (ffai_request **)fa_mem_calloc(&e->mem, n, sizeof *e->step_who);
    e->sample_work = fa_calloc((size_t)e->m->dims.vocab, FA_SAMPLER_WORK);
    if (!e->step_seq || !e->step_who || !e->sample_work)
        return fa_fail(err, FFAI_ENOMEM, "no memory for the steps of %d sequences", s->n_slot);
    int rc = fa_slots_create(e, err);
    if (!rc) rc = fa_flights_create(e, err);
    if (rc || !s->profile) return rc;
    e->times = FA_NEWN(fa_op_time, FA_OP_COUNT);
    if (e->dev) e->kernels = FA_NEWN(fa_kernel_time, FA_KERNEL_TIMES);
    return e->times && (e->kernels || !e->dev) ? 0 : fa_fail(err, FFAI_ENOMEM, "no memory for a profile");
}

/* mod NULL: on the CPU. */
static int create(ffai_engine **out, ffai_model *m, const fa_settings *s, const fa_module *mod, fa_error *err) {
    int n_group, n_seq = batch_seqs(s->n_slot, mod != NULL);
    int32_t n_page;
    fa_kv_opts ko = fa_settings_kv(s);
    ffai_engine *e = FA_NEW(ffai_engine);
    if (!e) return fa_fail(err, FFAI_ENOMEM, "no memory for an engine");
    e->m = m;
    e->n_ctx = s->n_ctx;
    e->n_slot = s->n_slot;
    e->n_chunk = s->n_chunk;
    e->precision = s->exact ? "exact" : "fast";
    e->kv_name = s->kv_name;
    e->composed = s->composed;
    int rc = fa_kv_shape(m->spec, (int)m->dims.n_layer, &ko, &n_group, &n_page, err);
    if (!rc) rc = fa_engine_make_batch(e, s->n_chunk + n_seq, n_seq, n_page, n_group, err);
    if (!rc) rc = mod ? start_gpu(e, s, mod, err) : start_cpu(e, s, err);
    if (!rc) e->be->max_pages = e->batch.page_stride;
    if (!rc) rc = allocate(e, s, err);
    if (rc) {
        ffai_engine_free(e);
        return rc;
    }
    *out = e;
    return 0;
}

/* The first GPU that takes the model, else the CPU, which then tells why none did. */
static int create_auto(ffai_engine **out, ffai_model *m, fa_settings *s, const ffai_engine_opts *o, fa_error *err) {
    const fa_module *mod;
    fa_error why = {0};
    int n = fa_module_open(&mod, s->cuda_module, &why) ? 0 : mod->count(&why);
    for (int i = 0; i < n; i++) {
        s->device.index = i;
        fa_settings_for(s, m, o, true);
        if (!create(out, m, s, mod, &why)) return 0;
    }
    s->n_thread = o && o->n_thread ? o->n_thread : fa_cpu_threads();
    fa_settings_for(s, m, o, false);
    int rc = create(out, m, s, NULL, err);
    if (!rc) memcpy((*out)->passed_over, why.msg, sizeof why.msg);
    return rc;
}

int ffai_engine_create(ffai_engine **out, ffai_model *m, const ffai_engine_opts *opts, ffai_error *err) {
    const fa_module *mod = NULL;
    fa_settings s;
    *out = NULL;
    int rc = fa_settings_read(&s, m, opts, err);
    if (rc) return rc;
    if (s.device.kind == FA_ON_AUTO) return create_auto(out, m, &s, opts, err);
    if (s.device.kind == FA_ON_CUDA) {
        rc = fa_module_open(&mod, s.cuda_module, err);
        fa_settings_for(&s, m, opts, true);
    }
    return rc ? rc : create(out, m, &s, mod, err);
}

void ffai_engine_free(ffai_engine *e) {
    if (!e) return;
    fa_requests_free(e);
    fa_engine_drop_programs(e);
    fa_adapters_free(e);
    if (e->be) e->be->free(e->be);
    fa_kv_free(e->kv);
    fa_arena_destroy(&e->arena);
    if (e->dev) e->dev->free(e->dev);
    fa_mem_free(&e->mem);
    fa_slots_free(e);
    fa_free(e->fetched);
    fa_free(e->sample_work);
    fa_free(e->times);
    fa_free(e->kernels);
    fa_free(e);
}

/* ---- what the engine's parts ask ---- */

int fa_engine_has_head(const ffai_engine *e, fa_error *err) {
    if (!e->m->headless) return 0;
    return fa_fail(err, FFAI_ENOTSUP, "%s: a base model without lm_head: it gives embeddings only",
                   fa_ckpt_path(e->m->ckpt));
}

int fa_engine_take_slots(ffai_engine *e, int n, fa_error *err) {
    for (int i = 0; i < e->n_slot; i++)
        if (e->slot[i]) return fa_fail(err, FFAI_EINVAL, "the engine has running requests");
    for (int i = 0; i < n && i < e->n_slot; i++) fa_kv_reset(e->kv, i);
    return 0;
}

int fa_engine_check_ids(const ffai_engine *e, const int32_t *ids, size_t n, fa_error *err) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= e->m->dims.vocab)
            return fa_fail(err, FFAI_EINVAL, "token id %d (number %zu) is not between 0 and %lld", ids[i], i,
                           (long long)e->m->dims.vocab - 1);
    return 0;
}

/* ---- facts ---- */

void ffai_engine_get_info(const ffai_engine *e, ffai_engine_info *info) {
    int64_t cache = (int64_t)(e->kv->bytes + (e->kv->states ? e->kv->states->bytes : 0)),
            arena = (int64_t)(e->dev ? e->arena.committed : e->arena.peak);
    *info = (ffai_engine_info){.device = e->dev ? e->dev->name : e->be->name,
                               .isa = e->be->isa,
                               .precision = e->precision,
                               .kv_cache = e->kv_name,
                               .n_thread = e->be->n_thread,
                               .pin = e->dev ? "" : pin_name[e->pin],
                               .n_ctx = e->n_ctx,
                               .n_slot = e->n_slot,
                               .n_chunk = e->n_chunk,
                               .cache_bytes = cache,
                               .arena_bytes = arena,
                               .device_bytes = (e->dev ? e->weight_bytes : e->m->weight_bytes) + cache + arena,
                               .passed_over = e->passed_over};
}

void ffai_engine_get_stats(const ffai_engine *e, ffai_engine_stats *stats) { *stats = e->stats; }

/* Operations first, then the kernels of a device. */
bool ffai_engine_profile(const ffai_engine *e, size_t i, ffai_profile_row *row) {
    memset(row, 0, sizeof *row);
    if (e->times && i < FA_OP_COUNT) {
        const fa_op_time *t = &e->times[i];
        *row = (ffai_profile_row){fa_op_name((fa_op)i), t->calls, t->seconds, t->bytes, t->flops, NULL};
        return true;
    }
    i -= FA_OP_COUNT;
    if (!e->kernels || i >= FA_KERNEL_TIMES || !e->kernels[i].kernel) return false;
    const fa_kernel_time *k = &e->kernels[i];
    *row = (ffai_profile_row){fa_op_name((fa_op)k->op), k->calls, k->seconds, 0, 0, k->kernel};
    return true;
}
