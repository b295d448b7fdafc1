/* Steps: which requests run, what each step feeds, and the tokens that come of it.
 *
 * A step is begun (fed to the backend, and its picks too where the device samples) and later read (ids, text, stop
 * conditions). Between the two it is a flight. While all running requests just decode and the device picks for all of
 * them, the next step is begun before the last one is read: its tokens are named by slot, the device knows them. The
 * host's work on text then costs no time of the device. A request that turns out to have ended has a row too many under
 * way: the cache is cut back, and what is picked for it is not looked at. Everything a device does happens in the order
 * in which it was begun, so the slot may be used again at once. */
#include "base/clock.h"
#include "engine/diffuse.h"

#include <string.h>

int fa_flights_create(ffai_engine *e, fa_error *err) {
    size_t n = (size_t)e->n_slot;
    bool ok = true;
    for (int i = 0; i < 2; i++) {
        fa_flight *f = &e->flight[i];
        f->who = (ffai_request **)fa_mem_calloc(&e->mem, n, sizeof *f->who);
        f->fed = (int *)fa_mem_calloc(&e->mem, n, sizeof *f->fed);
        f->out = (int *)fa_mem_calloc(&e->mem, n, sizeof *f->out);
        ok = ok && f->who && f->fed && f->out;
    }
    e->pick = (fa_pick_opts *)fa_mem_calloc(&e->mem, n, sizeof *e->pick);
    e->picked = (int32_t *)fa_mem_calloc(&e->mem, n, sizeof *e->picked);
    e->ahead_tok = (int32_t *)fa_mem_calloc(&e->mem, n, sizeof *e->ahead_tok);
    ok = ok && e->pick && e->picked && e->ahead_tok;
    return ok ? 0 : fa_fail(err, FFAI_ENOMEM, "no memory for the steps of %d sequences", e->n_slot);
}

void fa_request_release(ffai_request *r) {
    ffai_engine *e = r->e;
    if (r->slot < 0) return;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < e->flight[k].n; i++)
            if (e->flight[k].who[i] == r) e->flight[k].who[i] = NULL;
    /* a row of it may be under way */
    if (e->kv->len[r->slot] > r->n_fed &&
        fa_kv_truncate(e->kv, r->slot, fa_kv_resume(e->kv, r->slot, (int32_t)r->n_fed), NULL))
        fa_kv_reset(e->kv, r->slot);
    e->slot[r->slot] = NULL;
    r->slot = -1;
}

/* ---- what a step feeds ---- */

static void admit(ffai_engine *e) {
    for (int i = 0; i < e->n_req; i++) {
        ffai_request *r = e->req[i];
        if (r->finish != FFAI_RUNNING || r->slot >= 0) continue;
        int s = fa_slot_take(e, r->ids, r->n_prompt, r->use, r->fresh, &r->n_reused, &r->parted);
        if (s < 0) return;
        e->slot[s] = r;
        r->slot = s;
        r->n_fed = r->n_reused;
        e->stats.reused_tokens += r->n_reused;
    }
}

/* A sequence outgrew the length up to which LongRoPE's short factors hold: what is in its cache was rotated with them.
 * It is fed again from its beginning, as transformers does. */
static void begin_again(ffai_request *r) {
    fa_kv_reset(r->e->kv, r->slot);
    r->n_fed = 0;
}

/* What a request feeds when its turn comes, at most `budget` rows of a prompt; blocks are fed whole or not at all. 0
 * rows: not in this pass, or not in this step. */
enum { DECODING, BLOCKS, PROMPTS, PASSES };

static int plan_rows(ffai_request *r, int pass, int budget, fa_seq_rows *s) {
    int64_t left = r->n - r->n_fed;
    if (fa_diffuse_fed(r, s)) return pass == BLOCKS && s->n <= budget ? s->n : 0;
    if (pass != (left == 1 ? DECODING : PROMPTS)) return 0;
    int rows = (int)(left < budget || left == 1 ? left : budget);
    *s = (fa_seq_rows){.slot = r->slot,
                       .ids = r->ids + r->n_fed,
                       .n = rows,
                       .n_out = r->n_fed + rows == r->n,
                       .final_len = (int32_t)r->n,
                       .use = r->use,
                       .keep = {r->parted, (int32_t)r->n_prompt - 1}};
    return rows;
}

/* Decode rows first, then blocks and prompt chunks within the step's budget. */
static int plan_step(ffai_engine *e, fa_seq_rows *seq, ffai_request **who, int *n_prompt_rows) {
    int n = 0, budget = e->n_chunk;
    *n_prompt_rows = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        for (int s = 0; s < e->n_slot; s++) {
            ffai_request *r = e->slot[s];
            if (!r || r->finish != FFAI_RUNNING) continue;
            if (fa_slot_outgrown(e, s, (int32_t)r->n)) begin_again(r);
            fa_seq_rows next;
            int rows = plan_rows(r, pass, budget, &next);
            if (!rows) continue;
            seq[n] = next;
            if (pass != DECODING) budget -= rows;
            if (r->n == r->n_prompt && pass != BLOCKS) *n_prompt_rows += rows;
            who[n++] = r;
        }
    }
    return n;
}

/* The step after flight f, before f is read: one row for each of its requests, but for those whose last token f gives.
 * 0: it cannot be begun, because somebody is not decoding, wants the host between two tokens or has to begin again. */
static int plan_ahead(ffai_engine *e, const fa_flight *f, fa_seq_rows *seq, ffai_request **who) {
    int n = 0, running = 0;
    for (int s = 0; s < e->n_slot; s++) running += e->slot[s] != NULL;
    for (int i = 0; i < f->n; i++) {
        ffai_request *r = f->who[i];
        if (!r) continue;
        running--;
        if (!r->device_picks || r->allowed) return 0;
        if (r->n + 1 - r->n_prompt >= r->max_new) continue;
        if (fa_slot_outgrown(e, r->slot, (int32_t)r->n + 1)) return 0;
        e->ahead_tok[n] = -1 - r->slot;
        who[n] = r;
        seq[n] = (fa_seq_rows){r->slot, &e->ahead_tok[n], 1, 1, (int32_t)r->n + 1, r->use, {0}, false};
        n++;
    }
    return running ? 0 : n;
}

/* ---- beginning ---- */

/* The tokens so far, which penalties look at, go to the device once; it adds what it picks. */
static int send_history(ffai_request *r, const fa_pick_opts *o, fa_error *err) {
    fa_backend *be = r->e->be;
    if (r->history_known || (o->repeat == 1 && o->presence == 0 && o->frequency == 0)) return 0;
    int rc = be->history(be, r->slot, r->ids, r->n, err);
    r->history_known = rc == 0;
    return rc;
}

/* A pick from each row of f, whose requests have `unread` tokens more than they know of. Rows that the host samples are
 * picked from as well, for nothing. */
static int begin_picks(ffai_engine *e, fa_flight *f, int unread, fa_error *err) {
    int rc = 0;
    f->picks = false;
    if (f->n_row != f->n) return 0; /* blocks: the host samples all */
    for (int i = 0; i < f->n && e->be->pick; i++) f->picks = f->picks || f->who[i]->device_picks;
    if (!f->picks) return 0;
    for (int i = 0; i < f->n && !rc; i++) {
        ffai_request *r = f->who[i];
        fa_pick_opts *o = &e->pick[i];
        const uint32_t *mask = NULL;
        *o = (fa_pick_opts){.slot = r->slot, .repeat = 1};
        if (!r->device_picks || !fa_request_allowed(r, &mask)) continue;
        fa_sampler_device(r->sampler, r->n + unread, o);
        o->slot = r->slot;
        o->mask = mask;
        rc = send_history(r, o, err);
    }
    return rc ? rc : e->be->pick(e->be, f->logits, e->pick, f->n, err);
}

static void fail_all(ffai_request **who, int n, const fa_error *err) {
    for (int i = 0; i < n; i++)
        if (who[i] && who[i]->finish == FFAI_RUNNING) fa_request_fail(who[i], err);
}

/* Runs a step and makes it flight f. After an error f is empty, and the step's requests are to fail. */
static int begin(ffai_engine *e, const fa_seq_rows *seq, ffai_request **who, int n, int unread, fa_flight *f,
                 fa_error *err) {
    f->n = f->n_row = 0;
    int rc = fa_engine_run(e, seq, n, NULL, &f->logits, err);
    if (rc) return rc;
    for (int i = 0; i < n; i++) {
        if (!seq[i].n_out) { /* nothing to read of it */
            who[i]->n_fed += seq[i].n;
            continue;
        }
        f->who[f->n] = who[i];
        f->out[f->n] = seq[i].n_out;
        f->fed[f->n++] = seq[i].n;
        f->n_row += seq[i].n_out;
    }
    rc = begin_picks(e, f, unread, err);
    if (rc) f->n = 0;
    return rc;
}

/* ---- reading ---- */

/* One token from a row of logits. */
static void read_row(ffai_request *r, float *row) {
    const uint32_t *allowed;
    r->history_known = false; /* the device has not seen this one */
    if (!fa_request_allowed(r, &allowed)) return;
    fa_request_accept(r, fa_request_next(r, row, allowed, r->e->sample_work));
}

/* Gives their tokens to the requests of f. */
static int read_flight(ffai_engine *e, fa_flight *f, fa_error *err) {
    float *row = NULL;
    bool host = false;
    int rc = 0, n = f->n;
    for (int i = 0; i < n; i++) host = host || (f->who[i] && !(f->picks && f->who[i]->device_picks));
    if (host) rc = fa_engine_rows(e, f->logits, f->n_row, &row, err);
    if (f->picks) { /* also after an error: it is no longer under way then */
        fa_error why;
        int rc2 = e->be->picked(e->be, e->picked, n, &why);
        if (rc2 && !rc && err) *err = why;
        rc = rc ? rc : rc2;
    }
    for (int i = 0, at = 0; i < n && !rc; at += f->out[i++]) {
        ffai_request *r = f->who[i];
        if (!r) continue;
        if (r->diffuse) {
            fa_diffuse_read(r, row + at * e->m->dims.vocab, f->fed[i]);
            continue;
        }
        r->n_fed += f->fed[i];
        if (f->picks && r->device_picks) {
            int s = r->slot;
            e->stats.device_picks++;
            fa_request_accept(r, e->picked[i]);
            /* the row that is under way for it was fed a token without a name */
            if (r->finish == FFAI_RUNNING && e->kv->len[s] > r->n_fed)
                e->kept[(int64_t)s * e->n_ctx + r->n_fed] = e->picked[i];
        } else {
            read_row(r, row + at * e->m->dims.vocab);
        }
    }
    if (!rc) f->n = 0;
    return rc;
}

static bool is_awaited(const fa_flight *f) {
    for (int i = 0; i < f->n; i++)
        if (f->who[i]) return true;
    return false;
}

/* Nobody is interested in it any more. */
static void drop_flight(ffai_engine *e, fa_flight *f) {
    if (f->n && f->picks) e->be->picked(e->be, e->picked, f->n, NULL);
    f->n = 0;
}

/* ---- the step ---- */

/* Begins a step when none is under way. 0: there is nothing to do. */
static int begin_step(ffai_engine *e, fa_flight *f, int *n_prompt, fa_error *err) {
    int n = plan_step(e, e->step_seq, e->step_who, n_prompt);
    if (!n) return 0;
    int rc = begin(e, e->step_seq, e->step_who, n, 0, f, err);
    if (rc) fail_all(e->step_who, n, err); /* the requests of this step fail, the engine goes on */
    return rc ? rc : 1;
}

static int run_step(ffai_engine *e, fa_error *err) {
    fa_flight *now = &e->flight[0], *next = &e->flight[1];
    fa_error why = {0}, late = {0};
    double t0 = fa_now();
    int n_prompt = 0, rc = 1, n_ahead = 0, rc_ahead = 0;
    if (!is_awaited(now)) drop_flight(e, now);
    if (!now->n) rc = begin_step(e, now, &n_prompt, &why);
    if (rc > 0 && now->n && now->picks) n_ahead = plan_ahead(e, now, e->step_seq, e->step_who);
    if (n_ahead) rc_ahead = begin(e, e->step_seq, e->step_who, n_ahead, 1, next, &late);
    if (rc > 0 && now->n) {
        int rc_read = read_flight(e, now, &why);
        if (rc_read) {
            fail_all(now->who, now->n, &why);
            now->n = 0;
            rc = rc_read;
        }
    }
    if (rc_ahead) { /* what was read is right, but it cannot go on */
        fail_all(e->step_who, n_ahead, &late);
        if (rc > 0) rc = rc_ahead, why = late;
    }
    if (!rc) return 0;
    if (rc < 0 && err) *err = why;
    if (e->dev) e->n_ahead = next->n > 0;
    double t = fa_now() - t0;
    e->stats.prompt_tokens += rc > 0 ? n_prompt : 0;
    if (n_prompt)
        e->stats.prefill_s += t;
    else
        e->stats.decode_s += t;
    fa_flight swap = *now;
    *now = *next;
    *next = swap;
    return rc;
}

/* Tells requests that have a callback what is new. It may submit, cancel and free requests. */
static void send_events(ffai_engine *e) {
    e->in_events = true;
    for (int i = 0; i < e->n_req; i++) { /* n_req grows when an event submits */
        ffai_request *r = e->req[i];
        ffai_event ev;
        if (!r->event || r->event_done || r->doomed) continue;
        ffai_request_poll(r, &ev);
        r->event_done = ev.finish != FFAI_RUNNING;
        if (ev.text_len || ev.n_ids || r->event_done) r->event(r->user, r, &ev);
    }
    e->in_events = false;
    for (int i = e->n_req; i-- > 0;)
        if (e->req[i]->doomed) ffai_request_free(e->req[i]);
}

static bool has_work(const ffai_engine *e) {
    for (int i = 0; i < e->n_req; i++)
        if (e->req[i]->finish == FFAI_RUNNING) return true;
    return false;
}

int ffai_engine_step(ffai_engine *e, ffai_error *err) {
    if (e->in_events) return fa_fail(err, FFAI_EINVAL, "ffai_engine_step inside an event of a step");
    admit(e);
    int rc = run_step(e, err);
    send_events(e);
    return rc ? rc : has_work(e);
}
