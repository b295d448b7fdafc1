/* Requests: making and freeing them, stop conditions and the text that comes out. Steps are in schedule.c. */
#include "engine/diffuse.h"
#include "base/alloc.h"

#include <math.h>
#include <string.h>

enum { FA_MAX_LOGPROB = 1000 /* likeliest tokens reported for each */ };

/* ---- making and freeing ---- */

static int copy_stop(ffai_request *r, const char *text, fa_error *err) {
    size_t len = strlen(text);
    if (!len) return fa_fail(err, FFAI_EINVAL, "stop: an empty string");
    if (!(r->stop[r->n_stop] = fa_strdup(text))) return fa_fail(err, FFAI_ENOMEM, "no memory for stop strings");
    r->n_stop++;
    if (len > r->max_stop) r->max_stop = len;
    return 0;
}

/* Those of the request, and those that the checkpoint names beside its EOS. */
static int copy_stops(ffai_request *r, const ffai_request_opts *o, fa_error *err) {
    const fa_jnode *own = o->ignore_eos || !r->stream ? NULL : fa_model_stop_strings(r->e->m);
    size_t n_own = fa_jtype_of(own) == FA_JSTR ? 1 : fa_jlen(own);
    int rc = 0;
    r->stop = FA_NEWN(char *, o->n_stop + n_own + 1);
    if (!r->stop) return fa_fail(err, FFAI_ENOMEM, "no memory for stop strings");
    for (size_t i = 0; i < o->n_stop && !rc; i++) rc = copy_stop(r, o->stop[i], err);
    if (fa_jtype_of(own) == FA_JSTR && !rc) rc = copy_stop(r, fa_jstr(own, NULL), err);
    for (const fa_jnode *s = fa_jtype_of(own) == FA_JARR ? fa_jfirst(own) : NULL; s && !rc; s = fa_jnext(s))
        rc = copy_stop(r, fa_jstr(s, NULL), err);
    if (!rc && o->n_stop && !r->stream)
        rc = fa_fail(err, FFAI_EINVAL, "stop: the model has no tokenizer, so there is no text to stop at");
    return rc;
}

/* Room for what is kept per token (logprobs) and made anew for each (allowed). */
static int fill_sampling(ffai_request *r, const ffai_request_opts *o, fa_error *err) {
    int64_t vocab = r->e->m->dims.vocab;
    if (o->n_logprob < -1) return fa_fail(err, FFAI_EINVAL, "logprobs: %d is negative", o->n_logprob);
    if (o->n_logprob > FA_MAX_LOGPROB)
        return fa_fail(err, FFAI_ELIMIT, "logprobs: %d, at most %d are possible", o->n_logprob, FA_MAX_LOGPROB);
    int n_top = o->n_logprob > vocab ? (int)vocab : o->n_logprob > 0 ? o->n_logprob : 0;
    if (o->n_logprob) r->n_logprob = 1 + n_top;
    if (r->n_logprob && !(r->logprob = FA_NEWN(ffai_logprob, (size_t)r->max_new * (size_t)r->n_logprob)))
        return fa_fail(err, FFAI_ENOMEM, "no memory for the logprobs of %lld tokens", (long long)r->max_new);
    r->mask = o->mask;
    r->user = o->user;
    r->fresh = o->fresh;
    int rc = o->grammar ? fa_constraint_new(&r->grammar, o->grammar, r->e->m, err) : 0;
    if (rc) return rc;
    if ((r->mask || r->grammar) && !(r->allowed = FA_NEWN(uint32_t, (size_t)(vocab + 31) / 32)))
        return fa_fail(err, FFAI_ENOMEM, "no memory for a token mask");
    fa_sampler_env env = {.vocab = vocab,
                          .n_prompt = r->n_prompt,
                          .max_ids = r->cap,
                          .tok = fa_model_tok(r->e->m, NULL),
                          .eos = r->e->m->eos,
                          .n_eos = r->e->m->n_eos,
                          .isa = r->e->be->isa};
    rc = fa_sampler_new(&r->sampler, &o->sampling, &env, err);
    r->device_picks = !rc && r->e->be->pick && !r->n_logprob && fa_sampler_device(r->sampler, 0, NULL);
    return rc;
}

static int fill_request(ffai_request *r, const ffai_request_opts *o, fa_error *err) {
    ffai_engine *e = r->e;
    int64_t room = e->n_ctx - (int64_t)o->n_ids;
    r->max_new = o->max_new > 0 && o->max_new < room ? o->max_new : room;
    r->n = r->n_prompt = (int64_t)o->n_ids;
    r->cap = r->n + r->max_new + 1;
    r->ignore_eos = o->ignore_eos;
    r->event = o->event;
    r->user = o->user;
    r->slot = -1;
    memcpy(r->use, e->adapters.use, sizeof r->use);
    if (o->adapters) {
        int rc = fa_adapters_scales(e, o->adapters, o->n_adapter, r->use, err);
        if (rc) return rc;
    }
    if (!(r->ids = FA_NEWN(int32_t, (size_t)r->cap)))
        return fa_fail(err, FFAI_ENOMEM, "no memory for %lld tokens", (long long)r->cap);
    memcpy(r->ids, o->ids, o->n_ids * sizeof *r->ids);
    const fa_tok *tok = fa_model_tok(e->m, NULL);
    int rc = fill_sampling(r, o, err);
    if (!rc) rc = fa_diffuse_new(r, o, err);
    if (!rc && tok) rc = fa_tok_stream_new(&r->stream, tok, !o->keep_special, err);
    if (rc) return rc;
    return copy_stops(r, o, err);
}

int ffai_submit(ffai_engine *e, const ffai_request_opts *o, ffai_request **out, ffai_error *err) {
    *out = NULL;
    if (!o->n_ids) return fa_fail(err, FFAI_EINVAL, "the prompt is empty: it has no tokens");
    if (o->n_ids >= (size_t)e->n_ctx)
        return fa_fail(err, FFAI_ELIMIT,
                       "the prompt has %zu tokens, the context holds %d (one is needed for the answer)", o->n_ids,
                       e->n_ctx);
    int rc = fa_engine_has_head(e, err);
    if (!rc) rc = fa_engine_check_ids(e, o->ids, o->n_ids, err);
    if (rc) return rc;
    if (e->n_req == e->cap_req) {
        int cap = e->cap_req ? 2 * e->cap_req : 8;
        ffai_request **grown = (ffai_request **)fa_realloc(e->req, (size_t)cap, sizeof *grown);
        if (!grown) return fa_fail(err, FFAI_ENOMEM, "no memory for %d requests", cap);
        e->req = grown;
        e->cap_req = cap;
    }
    ffai_request *r = FA_NEW(ffai_request);
    if (!r) return fa_fail(err, FFAI_ENOMEM, "no memory for a request");
    r->e = e;
    e->req[e->n_req++] = r;
    rc = fill_request(r, o, err);
    if (rc) {
        ffai_request_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

static void free_request(ffai_request *r) {
    fa_request_release(r);
    for (size_t i = 0; i < r->n_stop; i++) fa_free(r->stop[i]);
    fa_free(r->stop);
    fa_free(r->ids);
    fa_sampler_free(r->sampler);
    fa_diffuse_free(r->diffuse);
    fa_free(r->allowed);
    fa_gram_run_free(r->grammar);
    fa_free(r->logprob);
    fa_tok_stream_free(r->stream);
    fa_buf_free(&r->text);
    fa_free(r);
}

void ffai_request_free(ffai_request *r) {
    if (!r) return;
    ffai_engine *e = r->e;
    if (e->in_events) { /* the list is being walked */
        r->doomed = true;
        fa_request_finish(r, FFAI_FINISH_CANCEL);
        return;
    }
    for (int i = 0; i < e->n_req; i++) {
        if (e->req[i] != r) continue;
        memmove(&e->req[i], &e->req[i + 1], (size_t)(e->n_req - i - 1) * sizeof *e->req); /* keeps the queue's order */
        e->n_req--;
        break;
    }
    free_request(r);
}

void fa_requests_free(ffai_engine *e) {
    for (int i = 0; i < e->n_req; i++) free_request(e->req[i]);
    fa_free(e->req);
    e->req = NULL;
    e->n_req = 0;
}

/* ---- text ---- */

void fa_request_finish(ffai_request *r, ffai_finish why) {
    if (r->finish != FFAI_RUNNING) return;
    r->finish = why;
    if (r->stream && why != FFAI_FINISH_STOP && why != FFAI_FINISH_ERROR)
        fa_tok_stream_flush(r->stream, &r->text, NULL);
    fa_request_release(r);
}

void fa_request_fail(ffai_request *r, const fa_error *err) {
    r->err = *err;
    if (r->slot >= 0) fa_kv_reset(r->e->kv, r->slot);
    fa_request_finish(r, FFAI_FINISH_ERROR);
}

/* Looks for stop strings that end in the text added since `from`; cuts the text there. */
static bool hit_stop(ffai_request *r, size_t from) {
    size_t start = from + 1 > r->max_stop ? from + 1 - r->max_stop : 0, best = (size_t)-1;
    for (size_t s = 0; s < r->n_stop; s++) {
        size_t len = strlen(r->stop[s]);
        for (size_t i = start; i + len <= r->text.len; i++)
            if (memcmp(r->text.data + i, r->stop[s], len) == 0 && i < best) best = i;
    }
    if (best == (size_t)-1) return false;
    r->text.len = best;
    r->text.data[best] = 0;
    return true;
}

static void why_none(ffai_request *r, int32_t why, fa_error *err) {
    long long at = (long long)r->n;
    bool any = !r->allowed;
    for (int64_t i = 0; !any && i < r->e->m->dims.vocab; i++) any = r->allowed[i / 32] >> (i % 32) & 1;
    if (why == FA_PICK_NOMEM)
        fa_fail(err, FFAI_ENOMEM, "token %lld: no memory to sample", at);
    else if (!any)
        fa_fail(err, FFAI_EINVAL, "token %lld: the token mask allows none", at);
    else if (fa_sampler_forbids(r->sampler) || r->allowed)
        fa_fail(err, FFAI_EINVAL,
                "token %lld: none is left: all have usable logits no more or are forbidden by mask, bias or bans", at);
    else
        fa_fail(err, FFAI_EFORMAT, "token %lld: the model gives no usable logits (its weights hold NaN or infinity)",
                at);
}

void fa_request_accept(ffai_request *r, int32_t id) {
    fa_error err = {0};
    if (id < 0) {
        why_none(r, id, &err);
        fa_request_fail(r, &err);
        return;
    }
    if (!r->ignore_eos && fa_model_is_eos(r->e->m, id)) {
        fa_request_finish(r, FFAI_FINISH_EOS);
        return;
    }
    r->ids[r->n++] = id;
    r->e->stats.gen_tokens++;
    size_t from = r->text.len;
    if (r->stream && fa_tok_stream_push(r->stream, id, &r->text, &err))
        fa_request_fail(r, &err);
    else if (r->n_stop && hit_stop(r, from))
        fa_request_finish(r, FFAI_FINISH_STOP);
    else if (r->grammar && fa_gram_accept(r->grammar, id, &err))
        fa_request_fail(r, &err);
    else if (r->grammar && fa_gram_ended(r->grammar))
        fa_request_finish(r, FFAI_FINISH_EOS); /* the one token that could follow */
    else if (r->n - r->n_prompt >= r->max_new)
        fa_request_finish(r, FFAI_FINISH_LENGTH);
}

/* ---- the next token ---- */

/* The tokens that may come next, *bits NULL: all. Every source clears bits of what the one before it has left. False:
 * there is none, the request has ended. */
bool fa_request_allowed(ffai_request *r, const uint32_t **bits) {
    fa_error err = {0};
    *bits = r->allowed;
    if (!r->allowed) return true;
    memset(r->allowed, 0xff, (size_t)(r->e->m->dims.vocab + 31) / 32 * sizeof *r->allowed);
    int rc = r->grammar ? fa_constraint_mask(r->grammar, r->e->m, r->ignore_eos, r->allowed, &err) : 0;
    if (rc > 0) fa_request_finish(r, FFAI_FINISH_EOS);
    if (rc < 0) fa_request_fail(r, &err);
    if (!rc && r->mask) r->mask(r->user, r->ids, (size_t)r->n, r->allowed);
    return !rc;
}

/* Log-probabilities of the token `ahead` positions behind the next: the likeliest; then its own, from the row as it
 * was, of which the sampler leaves a copy alone. */
static double note_likeliest(ffai_request *r, int ahead, const float *row, void *work) {
    int64_t vocab = r->e->m->dims.vocab;
    double lse = 0;
    if (!r->n_logprob) return lse;
    ffai_logprob *lp = r->logprob + (r->n - r->n_prompt + ahead) * r->n_logprob;
    fa_sampler_logprobs(r->sampler, row, r->n_logprob - 1, lp + 1, &lse, work);
    memcpy(fa_sampler_raw(work, vocab), row, (size_t)vocab * sizeof *row);
    return lse;
}

static void note_own(ffai_request *r, int ahead, int32_t id, double lse, void *work) {
    if (!r->n_logprob || id < 0) return;
    float own = fa_sampler_raw(work, r->e->m->dims.vocab)[id];
    r->logprob[(r->n - r->n_prompt + ahead) * r->n_logprob] = (ffai_logprob){id, (float)((double)own - lse)};
}

/* From a row of logits to the next token, one of `allowed`, and its log-probabilities; < 0: FA_PICK_*. */
int32_t fa_request_next(ffai_request *r, float *row, const uint32_t *allowed, void *work) {
    double lse = note_likeliest(r, 0, row, work);
    int32_t id = fa_sampler_pick(r->sampler, row, r->ids, (size_t)r->n, allowed, work);
    note_own(r, 0, id, lse, work);
    return id;
}

int32_t fa_request_candidate(ffai_request *r, int ahead, int turn, float *row, float *prob, void *work) {
    double lse = note_likeliest(r, ahead, row, work);
    int32_t id = fa_sampler_candidate(r->sampler, row, r->ids, (size_t)r->n, ahead, turn, prob, work);
    note_own(r, ahead, id, lse, work);
    return id;
}

/* Bytes at the end of the text that may still turn out to be the beginning of a stop string. */
static size_t held_back(const ffai_request *r) {
    size_t hold = 0;
    for (size_t s = 0; r->finish == FFAI_RUNNING && s < r->n_stop; s++) {
        size_t len = strlen(r->stop[s]);
        for (size_t k = len - 1 < r->text.len ? len - 1 : r->text.len; k > hold; k--)
            if (memcmp(r->text.data + r->text.len - k, r->stop[s], k) == 0) hold = k;
    }
    return hold;
}

void ffai_request_poll(ffai_request *r, ffai_event *ev) {
    size_t end = r->text.len - held_back(r);
    int64_t n_gen = r->n - r->n_prompt;
    *ev = (ffai_event){.text = "",
                       .ids = r->ids + r->n_prompt + r->ids_given,
                       .n_ids = (size_t)(n_gen - r->ids_given),
                       .logprobs = r->logprob ? r->logprob + r->ids_given * r->n_logprob : NULL,
                       .n_top = r->logprob ? (size_t)r->n_logprob - 1 : 0,
                       .finish = r->finish};
    if (end > r->text_given) {
        ev->text = r->text.data + r->text_given;
        ev->text_len = end - r->text_given;
        r->text_given = end;
    }
    r->ids_given = n_gen;
}

void ffai_request_ids(const ffai_request *r, const int32_t **ids, size_t *n, size_t *n_prompt, size_t *n_reused) {
    *ids = r->ids;
    *n = (size_t)r->n;
    *n_prompt = (size_t)r->n_prompt;
    *n_reused = (size_t)r->n_reused;
}

int fa_requests_using(const ffai_engine *e, int adapter) {
    int n = 0;
    for (int i = 0; i < e->n_req; i++) {
        const ffai_request *r = e->req[i];
        n += r->finish == FFAI_RUNNING && (r->use[adapter] != 0 || fa_diffuse_uses(r, adapter));
    }
    return n;
}

void fa_requests_forget(ffai_engine *e, int adapter) {
    for (int i = 0; i < e->n_req; i++)
        if (e->req[i]->use[adapter] != 0) e->req[i]->use[adapter] = NAN;
}

const int32_t *fa_request_tokens(const ffai_request *r, ffai_engine **e, int64_t *n, int *slot, const float **use,
                                 bool *waits) {
    *use = r->use;
    *e = r->e;
    *n = r->n;
    *slot = r->slot;
    *waits = r->finish == FFAI_RUNNING && r->n_fed == 0;
    return r->ids;
}

const ffai_error *ffai_request_error(const ffai_request *r) { return &r->err; }

void ffai_request_cancel(ffai_request *r) { fa_request_finish(r, FFAI_FINISH_CANCEL); }
