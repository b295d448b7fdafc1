/* Engines: creating one, the step (batch integers, pages, program, run), and the memory plan. */
#include "engine/engine.h"
#include "base/alloc.h"
#include "base/pool.h"
#include "engine/sampler.h"

#include <string.h>

/* ---- options ---- */

typedef struct settings {
    int n_thread, n_ctx, n_slot, n_chunk;
    bool exact;
    fa_dtype kv;
    const char *kv_name, *cpu;
    bool composed, profile;
} settings;

static int range(fa_error *err, const char *what, int v, int min, int max) {
    if (v >= min && v <= max) return 0;
    return fa_fail(err, FFAI_EINVAL, "%s: %d is not between %d and %d", what, v, min, max);
}

static int parse_kv(settings *s, const char *name, fa_error *err) {
    static const struct {
        const char *name;
        fa_dtype t;
    } kinds[] = {{"f32", FA_F32}, {"f16", FA_F16}, {"bf16", FA_BF16}};
    if (!name) name = s->exact ? "f32" : "f16";
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(kinds[i].name, name)) continue;
        s->kv = kinds[i].t;
        s->kv_name = kinds[i].name;
        return 0;
    }
    return fa_fail(err, FFAI_EINVAL, "kv-cache: \"%s\" is not f32, f16 or bf16", name);
}

static int read_opts(settings *s, const ffai_model *m, const ffai_engine_opts *o, fa_error *err) {
    static const ffai_engine_opts none;
    if (!o) o = &none;
    const char *device = o->device ? o->device : "auto", *precision = o->precision ? o->precision : "fast";
    if (strcmp(device, "cpu") && strcmp(device, "auto"))
        return fa_fail(err, FFAI_ENOTSUP, "device: \"%s\": this build runs on cpu only", device);
    if (strcmp(precision, "fast") && strcmp(precision, "exact"))
        return fa_fail(err, FFAI_EINVAL, "precision: \"%s\" is not exact or fast", precision);
    *s = (settings){.n_thread = o->n_thread ? o->n_thread : fa_cpu_count(),
                    .n_slot = o->n_slot ? o->n_slot : 1,
                    .n_chunk = o->n_chunk ? o->n_chunk : 512,
                    .exact = strcmp(precision, "exact") == 0,
                    .cpu = o->cpu,
                    .composed = o->composed,
                    .profile = o->profile};
    s->n_ctx = o->n_ctx ? o->n_ctx : (int)(m->dims.max_ctx < 4096 ? m->dims.max_ctx : 4096);
    int rc = range(err, "threads", s->n_thread, 1, 1024);
    if (!rc) rc = range(err, "ctx", s->n_ctx, 1, 1 << 28);
    if (!rc) rc = range(err, "slots", s->n_slot, 1, 4096);
    if (!rc) rc = range(err, "chunk", s->n_chunk, 1, 1 << 20);
    if (!rc) rc = parse_kv(s, o->kv_cache, err);
    if (s->n_chunk > (int64_t)s->n_ctx * s->n_slot) s->n_chunk = s->n_ctx * s->n_slot;
    return rc;
}

static fa_kv_opts kv_opts(const settings *s) { return (fa_kv_opts){s->n_slot, s->n_ctx, s->n_chunk, s->kv}; }

/* ---- batch buffers ---- */

/* Takes n ints out of the block, or only counts them while there is none. */
static int32_t *ints(fa_batch *b, int64_t n) {
    int32_t *p = b->block ? (int32_t *)(void *)(b->block + b->block_bytes) : NULL;
    b->block_bytes += ((size_t)n * sizeof *p + 15) / 16 * 16;
    return p;
}

static void lay_out_batch(fa_batch *b, int64_t rows, int64_t n_seq) {
    b->block_bytes = 0;
    b->tok = ints(b, rows);
    b->pos = ints(b, rows * b->n_axes);
    b->row_start = ints(b, n_seq + 1);
    b->row_seq = ints(b, rows);
    b->slot = ints(b, n_seq);
    b->len = ints(b, n_seq);
    b->rope_len = ints(b, n_seq);
    for (int g = 0; g < b->n_group; g++) b->kv_lo[g] = ints(b, rows);
    b->kv_hi = ints(b, rows);
    b->out_row = ints(b, rows);
    b->tile_seq = ints(b, rows);
    b->tile_row = ints(b, rows);
    int32_t *pages = ints(b, n_seq * b->page_stride);
    for (int g = 0; g < b->n_group; g++) b->page[g] = pages ? pages + g * (b->page_stride / b->n_group) : NULL;
}

/* Buffers for rows tokens of n_seq sequences. */
static int make_batch(ffai_engine *e, int rows, int n_seq, int n_page, int n_group, fa_error *err) {
    fa_batch *b = &e->batch;
    e->cap_rows = rows;
    e->cap_seq = n_seq;
    b->n_axes = 1;
    b->n_group = n_group;
    b->page_stride = n_page * n_group;
    lay_out_batch(b, rows, n_seq); /* how much there is */
    if (!(b->block = (uint8_t *)fa_mem_calloc(&e->mem, b->block_bytes, 1)))
        return fa_fail(err, FFAI_ENOMEM, "no memory for batches of %d rows", rows);
    lay_out_batch(b, rows, n_seq);
    return 0;
}

/* ---- creating ---- */

int ffai_engine_create(ffai_engine **out, ffai_model *m, const ffai_engine_opts *opts, ffai_error *err) {
    *out = NULL;
    settings s;
    if (!m->bound)
        return fa_fail(err, FFAI_EINVAL, "%s: opened without its weights",
                       m->tok_dir ? m->tok_dir : fa_ckpt_path(m->ckpt));
    int rc = read_opts(&s, m, opts, err);
    if (rc) return rc;
    ffai_engine *e = FA_NEW(ffai_engine);
    if (!e) return fa_fail(err, FFAI_ENOMEM, "no memory for an engine");
    e->m = m;
    e->n_ctx = s.n_ctx;
    e->n_slot = s.n_slot;
    e->n_chunk = s.n_chunk;
    e->precision = s.exact ? "exact" : "fast";
    e->kv_name = s.kv_name;
    e->composed = s.composed;
    fa_kv_opts ko = kv_opts(&s);
    rc = fa_backend_cpu_create(&e->be, s.n_thread, s.cpu, s.exact, err);
    if (!rc) rc = fa_arena_create(&e->arena, (size_t)1 << 38, NULL, err);
    if (!rc) rc = fa_kv_create(&e->kv, m->spec, (int)m->dims.n_layer, &ko, err);
    if (!rc) {
        e->be->max_pages = e->kv->page_stride * e->kv->n_group;
        e->lm = (fa_lm){m->cfg, m->w, e->kv->layer};
        rc = make_batch(e, s.n_chunk + s.n_slot, s.n_slot, e->kv->page_stride, e->kv->n_group, err);
    }
    if (!rc) {
        e->step_seq = (fa_seq_rows *)fa_mem_calloc(&e->mem, (size_t)s.n_slot, sizeof *e->step_seq);
        e->step_who = (ffai_request **)fa_mem_calloc(&e->mem, (size_t)s.n_slot, sizeof *e->step_who);
        if (!e->step_seq || !e->step_who || !(e->sample_work = fa_calloc((size_t)m->dims.vocab, FA_SAMPLER_WORK)))
            rc = fa_fail(err, FFAI_ENOMEM, "no memory for the steps of %d sequences", s.n_slot);
    }
    if (!rc) rc = fa_slots_create(e, err);
    if (!rc && s.profile && !(e->times = FA_NEWN(fa_op_time, FA_OP_COUNT)))
        rc = fa_fail(err, FFAI_ENOMEM, "no memory for a profile");
    if (rc) {
        ffai_engine_free(e);
        return rc;
    }
    *out = e;
    return 0;
}

void ffai_engine_free(ffai_engine *e) {
    if (!e) return;
    fa_requests_free(e);
    for (int i = 0; i < FA_PROGRAMS; i++) fa_free(e->prog[i].prog.rec);
    if (e->be) e->be->free(e->be);
    fa_kv_free(e->kv);
    fa_arena_destroy(&e->arena);
    fa_mem_free(&e->mem);
    fa_slots_free(e);
    fa_free(e->sample_work);
    fa_free(e->times);
    fa_free(e);
}

/* ---- the step ---- */

static void fill_rows(ffai_engine *e, const fa_seq_rows *s, int i, int32_t from) {
    fa_batch *b = &e->batch;
    int row = b->row_start[i];
    for (int j = 0; j < s->n; j++) {
        int32_t pos = from + j;
        b->tok[row + j] = s->ids[j];
        b->pos[row + j] = pos;
        b->row_seq[row + j] = i;
        b->kv_hi[row + j] = pos + 1;
        for (int g = 0; g < b->n_group; g++) {
            int32_t w = e->kv->group[g].window;
            b->kv_lo[g][row + j] = w && pos + 1 > w ? pos + 1 - w : 0;
        }
        if (j >= s->n - s->n_out) b->out_row[b->n_out++] = row + j;
        if (j % e->be->attend_tile == 0) {
            b->tile_seq[b->n_tile] = i;
            b->tile_row[b->n_tile++] = row + j;
        }
    }
    for (int g = 0; g < b->n_group; g++)
        memcpy(b->page[g] + (int64_t)i * b->page_stride, e->kv->group[g].table + (int64_t)s->slot * e->kv->page_stride,
               (size_t)e->kv->page_stride * sizeof(int32_t));
}

static int fill_batch(ffai_engine *e, const fa_seq_rows *seq, int n_seq, fa_error *err) {
    fa_batch *b = &e->batch;
    b->n_tok = b->n_out = b->n_dec = b->max_q = b->n_tile = 0;
    b->n_seq = n_seq;
    for (int i = 0; i < n_seq; i++) {
        const fa_seq_rows *s = &seq[i];
        int32_t from = e->kv->len[s->slot];
        int rc = fa_kv_extend(e->kv, s->slot, from, from + s->n, err);
        if (rc) return rc;
        b->row_start[i] = b->n_tok;
        b->slot[i] = s->slot;
        b->len[i] = from + s->n;
        b->rope_len[i] = s->final_len > b->len[i] ? s->final_len : b->len[i];
        fa_slot_append(e, s->slot, s->ids, s->n, b->rope_len[i]);
        if (s->n == 1 && b->n_dec == i) b->n_dec++;
        if (s->n > b->max_q) b->max_q = s->n;
        fill_rows(e, s, i, from);
        b->n_tok += s->n;
    }
    b->row_start[n_seq] = b->n_tok;
    b->used = (size_t)((uint8_t *)(b->page[0] + (int64_t)n_seq * b->page_stride) - b->block);
    return 0;
}

/* Records forward for the batch's shape into prog. */
static int record(ffai_engine *e, fa_program *prog, bool taps, bool hidden, fa_error *err) {
    fa_cx cx = {.be = e->be,
                .arena = &e->arena,
                .prog = prog,
                .batch = &e->batch,
                .layer = -1,
                .taps = taps,
                .composed = e->composed || taps};
    const fa_family *f = e->m->family;
    prog->n = 0;
    prog->scratch = 0;
    fa_arena_reset(&e->arena, 0);
    fa_tensor h = f->embed(&cx, &e->lm);
    f->body(&cx, &e->lm, h);
    prog->out = e->batch.n_out ? f->norm(&cx, &e->lm, h) : (fa_tensor){0};
    if (e->batch.n_out && !hidden && !e->m->headless) prog->out = f->head(&cx, &e->lm, prog->out);
    if (cx.err.code && err) *err = cx.err;
    return cx.err.code;
}

static int find_program(ffai_engine *e, bool taps, bool hidden, fa_program **out, fa_error *err) {
    const fa_batch *b = &e->batch;
    fa_program_key key = {b->n_tok, b->n_seq, b->n_out, b->n_dec, b->max_q, b->n_tile, taps, hidden};
    fa_program_slot *oldest = &e->prog[0];
    e->n_step++;
    for (int i = 0; i < FA_PROGRAMS; i++) {
        fa_program_slot *s = &e->prog[i];
        if (s->used && s->key.n_tok == key.n_tok && s->key.n_seq == key.n_seq && s->key.n_out == key.n_out &&
            s->key.n_dec == key.n_dec && s->key.max_q == key.max_q && s->key.n_tile == key.n_tile &&
            s->key.taps == key.taps && s->key.hidden == key.hidden) {
            s->used = e->n_step;
            *out = &s->prog;
            return 0;
        }
        if (s->used < oldest->used) oldest = s;
    }
    oldest->used = 0;
    int rc = record(e, &oldest->prog, taps, hidden, err);
    if (rc) return rc;
    oldest->key = key;
    oldest->used = e->n_step;
    *out = &oldest->prog;
    return 0;
}

static int run(ffai_engine *e, const fa_seq_rows *seq, int n_seq, const fa_run_opts *opts, bool hidden, fa_tensor *out,
               fa_error *err) {
    fa_program *prog;
    fa_run_opts o = opts ? *opts : (fa_run_opts){0};
    o.times = e->times;
    int rc = fill_batch(e, seq, n_seq, err);
    if (!rc) rc = find_program(e, o.tap != NULL, hidden, &prog, err);
    if (!rc) rc = e->be->run(e->be, prog, &e->batch, &o, err);
    if (!rc) *out = prog->out;
    for (int i = 0; rc && i < n_seq; i++) fa_kv_reset(e->kv, seq[i].slot); /* nobody knows what is in them */
    return rc;
}

int fa_engine_run(ffai_engine *e, const fa_seq_rows *seq, int n_seq, const fa_run_opts *opts, fa_tensor *logits,
                  fa_error *err) {
    return run(e, seq, n_seq, opts, false, logits, err);
}

int fa_engine_hidden(ffai_engine *e, const fa_seq_rows *seq, int n_seq, fa_tensor *rows, fa_error *err) {
    return run(e, seq, n_seq, NULL, true, rows, err);
}

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
    *info = (ffai_engine_info){e->be->name,
                               e->be->isa,
                               e->precision,
                               e->kv_name,
                               e->be->n_thread,
                               e->n_ctx,
                               e->n_slot,
                               e->n_chunk,
                               (int64_t)e->kv->bytes,
                               (int64_t)e->arena.peak};
}

void ffai_engine_get_stats(const ffai_engine *e, ffai_engine_stats *stats) { *stats = e->stats; }

bool ffai_engine_profile(const ffai_engine *e, size_t i, ffai_profile_row *row) {
    memset(row, 0, sizeof *row);
    if (!e->times || i >= FA_OP_COUNT) return false;
    const fa_op_time *t = &e->times[i];
    *row = (ffai_profile_row){fa_op_name((fa_op)i), t->calls, t->seconds, t->bytes, t->flops};
    return true;
}

/* ---- the plan: record without a cache or weights to read ---- */

/* Key and value bytes that a row at the end of a context of n_ctx tokens reads. */
static double kv_traffic(const ffai_model *m, const settings *s) {
    double bytes = 0;
    for (int64_t i = 0; i < m->dims.n_layer; i++) {
        int32_t w = m->spec[i].window, n = w && w < s->n_ctx ? w : s->n_ctx;
        bytes += 2.0 * n * (double)(m->spec[i].n_head * m->spec[i].head_dim) * (double)fa_dtype_size(s->kv);
    }
    return bytes;
}

static int plan_shape(ffai_engine *e, int n_tok, ffai_plan *plan, double *flops, double *bytes, fa_error *err) {
    fa_program prog = {0};
    fa_batch *b = &e->batch;
    b->n_tok = b->max_q = n_tok;
    b->n_seq = b->n_out = 1;
    b->n_dec = n_tok == 1;
    b->n_tile = (n_tok + e->be->attend_tile - 1) / e->be->attend_tile;
    int rc = record(e, &prog, false, false, err);
    *flops = *bytes = 0;
    for (int i = 0; !rc && i < prog.n; i++) {
        *flops += prog.rec[i].flops;
        *bytes += prog.rec[i].bytes;
    }
    plan->n_record = prog.n;
    fa_free(prog.rec);
    return rc;
}

int ffai_engine_plan(ffai_model *m, const ffai_engine_opts *opts, ffai_plan *plan, ffai_error *err) {
    settings s;
    memset(plan, 0, sizeof *plan);
    if (!m->bound)
        return fa_fail(err, FFAI_EINVAL, "%s: opened without its weights",
                       m->tok_dir ? m->tok_dir : fa_ckpt_path(m->ckpt));
    int rc = read_opts(&s, m, opts, err);
    if (rc) return rc;
    ffai_engine e = {.m = m, .n_ctx = s.n_ctx, .n_slot = s.n_slot, .n_chunk = s.n_chunk, .composed = s.composed};
    fa_kv_opts ko = kv_opts(&s);
    fa_kv *kv = FA_NEWN(fa_kv, (size_t)m->dims.n_layer);
    rc = kv ? fa_kv_size(m->spec, (int)m->dims.n_layer, &ko, &plan->cache_bytes, &plan->cache_bytes_per_token, err)
            : fa_fail(err, FFAI_ENOMEM, "no memory for a plan");
    for (int64_t i = 0; kv && i < m->dims.n_layer; i++)
        kv[i] = (fa_kv){.n_head = m->spec[i].n_head, .head_dim = m->spec[i].head_dim, .dtype = s.kv};
    if (!rc) rc = fa_backend_cpu_create(&e.be, 1, s.cpu, s.exact, err);
    if (!rc) rc = fa_arena_create(&e.arena, (size_t)1 << 38, NULL, err);
    if (!rc) {
        e.lm = (fa_lm){m->cfg, m->w, kv};
        e.be->max_pages = (s.n_ctx + FA_PAGE - 1) / FA_PAGE;
        rc = plan_shape(&e, s.n_chunk, plan, &plan->prefill_flops, &plan->prefill_bytes, err);
    }
    if (!rc) rc = plan_shape(&e, 1, plan, &plan->decode_flops, &plan->decode_bytes, err);
    plan->decode_bytes += kv_traffic(m, &s);
    plan->weight_bytes = m->weight_bytes;
    plan->arena_bytes = (int64_t)e.arena.peak;
    plan->total_bytes = plan->weight_bytes + plan->cache_bytes + plan->arena_bytes;
    plan->n_ctx = s.n_ctx;
    plan->n_slot = s.n_slot;
    plan->n_chunk = s.n_chunk;
    if (e.be) e.be->free(e.be);
    fa_arena_destroy(&e.arena);
    fa_mem_free(&e.mem);
    fa_free(kv);
    return rc;
}
