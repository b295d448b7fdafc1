/* The step: batch integers, pages, the program for the batch's shape, and the run; rows of results for the host.
 *
 * On a device a decode step is padded to one of few numbers of sequences, so that few programs, and the graphs that the
 * backend makes of them, serve all. The added sequences see one token of a page that belongs to nobody. */
#include "base/alloc.h"
#include "base/clock.h"
#include "cache/state.h"
#include "engine/engine.h"

#include <string.h>

/* ---- batch buffers ---- */

int fa_engine_make_batch(ffai_engine *e, int rows, int n_seq, int n_page, int n_group, fa_error *err) {
    fa_batch *b = &e->batch;
    e->cap_rows = rows;
    e->cap_seq = n_seq;
    b->n_axes = 1;
    b->n_group = n_group;
    b->page_stride = n_page * n_group;
    fa_batch_lay_out(b, rows, n_seq); /* how much there is */
    if (!(b->block = (uint8_t *)fa_mem_calloc(&e->mem, b->block_bytes, 1)))
        return fa_fail(err, FFAI_ENOMEM, "no memory for batches of %d rows", rows);
    fa_batch_lay_out(b, rows, n_seq);
    return 0;
}

/* ---- filling ---- */

static void fill_rows(ffai_engine *e, const fa_seq_rows *s, int i, int32_t from) {
    fa_batch *b = &e->batch;
    int row = b->row_start[i];
    for (int j = 0; j < s->n; j++) {
        int32_t pos = from + j;
        b->tok[row + j] = s->ids[j];
        b->pos[row + j] = pos;
        b->row_seq[row + j] = i;
        b->place[row + j] = pos;
        b->kv_hi[row + j] = s->whole ? from + s->n : pos + 1;
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
    const float *use = s->use ? s->use : e->adapters.use;
    for (int k = 0; k < b->n_adapt; k++) {
        b->adapt[i * b->n_adapt + k] = use[k];
        e->batch_adapted = e->batch_adapted || use[k] != 0;
    }
    for (int g = 0; g < b->n_group; g++)
        memcpy(b->page[g] + (int64_t)i * b->page_stride, e->kv->group[g].table + (int64_t)s->slot * e->kv->page_stride,
               (size_t)e->kv->page_stride * sizeof(int32_t));
}

/* Recurrent states of a sequence that goes from position `from` on, and the pieces that scans take of it. */
static int fill_states(ffai_engine *e, const fa_seq_rows *s, int i, int32_t from, fa_error *err) {
    fa_batch *b = &e->batch;
    fa_states *st = e->kv->states;
    int row = b->row_start[i];
    b->seq_cut[i] = b->n_cut;
    if (!st) return 0;
    int rc = fa_states_step(st, s->slot, from, from + s->n, &b->state_in[i], &b->state_out[i], err);
    for (int j = 0; j < s->n; j++) b->keep[row + j] = -1;
    for (size_t k = 0; !rc && k < sizeof s->keep / sizeof *s->keep; k++)
        if (s->keep[k] > from && s->keep[k] < from + s->n)
            b->keep[row + s->keep[k] - from - 1] =
                fa_states_keep(st, s->slot, s->keep[k], b->state_in[i], b->state_out[i]);
    for (int j = 0, last = 0; j < s->n; j++) {
        if (j && j - last < FA_SCAN && b->keep[row + j - 1] < 0) continue;
        b->cut[b->n_cut++] = row + j;
        last = j;
    }
    return rc;
}

/* Adds sequences of one token until there are as many as a program is made for. Their logits, where all sequences have
 * some, come last. */
static void pad_batch(ffai_engine *e) {
    fa_batch *b = &e->batch;
    int want = b->max_q == 1 && e->be->bucket ? e->be->bucket(e->be, b->n_seq) : 0;
    if (want > e->cap_seq) return;
    for (bool out = b->n_out == b->n_seq; b->n_seq < want; b->n_seq++) {
        int i = b->n_seq, row = b->n_tok++;
        b->row_start[i] = b->row_seq[row] = row;
        b->slot[i] = b->tok[row] = b->pos[row] = b->place[row] = 0;
        b->len[i] = b->rope_len[i] = b->kv_hi[row] = 1;
        b->n_dec++;
        if (out) b->out_row[b->n_out++] = row;
        b->seq_cut[i] = b->n_cut;
        if (e->kv->states) {
            b->state_in[i] = b->keep[row] = -1;
            b->state_out[i] = e->kv->states->spare;
            b->cut[b->n_cut++] = row;
        }
        for (int k = 0; k < b->n_adapt; k++) b->adapt[i * b->n_adapt + k] = 0;
        b->tile_seq[b->n_tile] = i;
        b->tile_row[b->n_tile++] = row;
        for (int g = 0; g < b->n_group; g++) {
            int32_t *page = b->page[g] + (int64_t)i * b->page_stride;
            b->kv_lo[g][row] = 0;
            memset(page, 0xFF, (size_t)e->kv->page_stride * sizeof *page);
            page[0] = e->kv->group[g].spare;
        }
    }
}

static int fill_batch(ffai_engine *e, const fa_seq_rows *seq, int n_seq, fa_error *err) {
    fa_batch *b = &e->batch;
    b->n_tok = b->n_out = b->n_dec = b->max_q = b->n_tile = b->n_cut = 0;
    b->n_seq = n_seq;
    b->n_adapt = e->adapters.n;
    e->batch_adapted = false;
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
        rc = fill_states(e, s, i, from, err);
        if (rc) return rc;
        b->n_tok += s->n;
    }
    pad_batch(e);
    b->row_start[b->n_seq] = b->n_tok;
    b->seq_cut[b->n_seq] = b->n_cut;
    b->cut[b->n_cut] = b->n_tok;
    b->used = (size_t)((uint8_t *)(b->page[0] + (int64_t)b->n_seq * b->page_stride) - b->block);
    return 0;
}

/* ---- programs ---- */

int fa_engine_record(ffai_engine *e, fa_program *prog, bool taps, bool hidden, bool adapted, fa_error *err) {
    fa_cx cx = {.be = e->be,
                .arena = &e->arena,
                .prog = prog,
                .batch = &e->batch,
                .layer = -1,
                .taps = taps,
                .inputs = taps && e->inputs,
                .composed = e->composed || taps,
                .adapted = adapted ? &e->adapters.table : NULL};
    const fa_family *f = e->m->family;
    if (e->be->forget) e->be->forget(e->be, prog);
    prog->n = 0;
    prog->scratch = 0;
    prog->repeats = e->batch.max_q == 1 && !taps && !hidden;
    fa_arena_reset(&e->arena, 0);
    fa_tensor h = f->embed(&cx, &e->lm);
    f->body(&cx, &e->lm, h);
    prog->out = e->batch.n_out ? f->norm(&cx, &e->lm, h) : (fa_tensor){0};
    if (e->batch.n_out && !hidden && !e->m->headless) prog->out = f->head(&cx, &e->lm, prog->out);
    if (!cx.err.code) return 0;
    if (e->be->dev) fa_fail_prefix(&cx.err, cx.err.code, "%s", e->be->dev->name);
    if (err) *err = cx.err;
    return cx.err.code;
}

static int find_program(ffai_engine *e, bool taps, bool hidden, fa_program_slot **out, fa_error *err) {
    const fa_batch *b = &e->batch;
    fa_program_key key = {b->n_tok,  b->n_seq, b->n_out, b->n_dec, b->max_q,
                          b->n_tile, b->n_cut, taps,     hidden,   e->batch_adapted};
    fa_program_slot *oldest = &e->prog[0];
    e->n_step++;
    for (int i = 0; i < FA_PROGRAMS; i++) {
        fa_program_slot *s = &e->prog[i];
        if (s->used && s->key.n_tok == key.n_tok && s->key.n_seq == key.n_seq && s->key.n_out == key.n_out &&
            s->key.n_dec == key.n_dec && s->key.max_q == key.max_q && s->key.n_tile == key.n_tile &&
            s->key.n_cut == key.n_cut && s->key.taps == key.taps && s->key.hidden == key.hidden &&
            s->key.adapted == key.adapted) {
            s->used = e->n_step;
            *out = s;
            return 0;
        }
        if (s->used < oldest->used) oldest = s;
    }
    oldest->used = 0;
    int rc = fa_engine_record(e, &oldest->prog, taps, hidden, key.adapted, err);
    if (rc) return rc;
    oldest->key = key;
    oldest->used = e->n_step;
    oldest->n_run = 0;
    *out = oldest;
    return 0;
}

void fa_engine_drop_programs(ffai_engine *e) {
    for (int i = 0; i < FA_PROGRAMS; i++) {
        if (e->be && e->be->forget) e->be->forget(e->be, &e->prog[i].prog);
        fa_free(e->prog[i].prog.rec);
        memset(&e->prog[i], 0, sizeof e->prog[i]);
    }
}

/* ---- running ---- */

/* What attention read and multiplied in a step: records do not know the lengths, so it is added to the profile here. A
 * sequence's keys and values count once, however many rows see them. */
static void count_attention(ffai_engine *e) {
    const fa_batch *b = &e->batch;
    fa_op_time *t = &e->times[FA_OP_ATTEND];
    for (int64_t l = 0; l < e->m->dims.n_layer; l++) {
        const fa_kv *kv = &e->kv->layer[l];
        if (!kv->n_head) continue; /* a layer without attention; where no layer has any there are no page groups */
        const int32_t *lo = b->kv_lo[kv->group];
        double row = (double)(kv->n_head * fa_kv_row_bytes(kv->dtype, kv->head_dim)), pairs = 0, keys = 0;
        for (int i = 0; i < b->n_tok; i++) pairs += b->kv_hi[i] - lo[i];
        for (int i = 0; i < b->n_seq; i++) keys += b->len[i] - lo[b->row_start[i]];
        t->bytes += 2 * keys * row;
        t->flops += 4 * pairs * (double)(e->m->dims.n_head * kv->head_dim);
    }
}

enum { HOST_WARM = 3 /* runs of a program until it is a graph */, HOST_TIMED = 4 };

/* Only the first few steps ahead of the device count: later ones may wait for it. */
static void count_host(ffai_engine *e, fa_program_slot *s, double seconds) {
    if (s->n_run < HOST_WARM) {
        s->n_run++;
    } else if (e->n_ahead++ < HOST_TIMED) {
        e->stats.host_steps++;
        e->stats.host_s += seconds;
    }
}

/* Weights that are read from mapped files: are those what they were? Now and then, for it costs a system call for each
 * file; at once after a page was lost, because what was computed from it is wrong. */
static int check_files(ffai_engine *e, double now, fa_error *err) {
    const double often = 0.1; /* s */
    if (e->dev || !e->m->mapped) return 0;
    if (!fa_ckpt_lost(e->m->ckpt) && now - e->checked < often) return 0;
    e->checked = now;
    return fa_ckpt_check(e->m->ckpt, err);
}

static int run(ffai_engine *e, const fa_seq_rows *seq, int n_seq, const fa_run_opts *opts, bool hidden, fa_tensor *out,
               fa_error *err) {
    fa_program_slot *s;
    fa_run_opts o = opts ? *opts : (fa_run_opts){0};
    o.times = e->times;
    o.kernels = e->kernels;
    double t0 = fa_now();
    int rc = check_files(e, t0, err);
    if (!rc) rc = fill_batch(e, seq, n_seq, err);
    if (!rc) rc = find_program(e, o.tap != NULL, hidden, &s, err);
    if (!rc) rc = e->be->run(e->be, &s->prog, &e->batch, &o, err);
    if (!rc) rc = check_files(e, t0, err);
    if (!rc) *out = s->prog.out;
    if (!rc && e->times) count_attention(e);
    if (!rc && e->dev && s->prog.repeats && !opts) count_host(e, s, fa_now() - t0);
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

int fa_engine_rows(ffai_engine *e, fa_tensor t, int64_t n, float **out, fa_error *err) {
    *out = fa_f32(t);
    if (!e->be->fetch || !n) return 0;
    size_t need = (size_t)n * (size_t)t.dim[1];
    if (need > e->cap_fetched) {
        float *grown = FA_NEWN(float, need);
        if (!grown) return fa_fail(err, FFAI_ENOMEM, "no memory for %lld rows of results", (long long)n);
        fa_free(e->fetched);
        e->fetched = grown;
        e->cap_fetched = need;
    }
    *out = e->fetched;
    e->n_ahead = 0;
    return e->be->fetch(e->be, t, 0, n, e->fetched, err);
}

int fa_engine_wait(ffai_engine *e, fa_error *err) {
    e->n_ahead = 0;
    return e->be->wait ? e->be->wait(e->be, err) : 0;
}
