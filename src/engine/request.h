/* Requests inside the engine: what request.c (making, text, polling) and schedule.c (steps) share. */
#ifndef FA_ENGINE_REQUEST_H
#define FA_ENGINE_REQUEST_H

#include "engine/engine.h"
#include "engine/grammar.h"
#include "engine/sampler.h"

struct ffai_request {
    ffai_engine *e;
    int32_t *ids; /* prompt, then what was generated */
    int64_t n, cap, n_prompt;
    int64_t n_fed;    /* tokens whose keys are in the cache */
    int64_t n_reused; /* of those, how many were there when the request began */
    int32_t parted;   /* first tokens that it shares with what some slot holds, and cannot begin with */
    int64_t max_new;
    fa_sampler *sampler;
    char **stop;
    size_t n_stop, max_stop; /* max_stop: bytes of the longest */
    bool ignore_eos;
    float use[FA_ADAPTERS]; /* scales of adapters */
    int slot;               /* -1: waiting */
    bool device_picks;      /* options that the device samples by itself */
    bool history_known;     /* to the device, which needs it for penalties */
    ffai_finish finish;
    fa_error err;
    fa_tok_stream *stream; /* NULL: the model has no tokenizer */
    fa_buf text;           /* everything decoded so far, stop string cut off */
    ffai_event_fn *event;  /* NULL: polled only */
    void *user;            /* its first argument */
    bool fresh;            /* reuse no cache */
    bool event_done;       /* the event that tells the finish is out */
    bool doomed;           /* freed inside an event: goes when the step ends */
    size_t text_given;     /* bytes that a poll has handed out */
    int64_t ids_given;     /* generated tokens that a poll has handed out */
    ffai_mask_fn *mask;    /* who forbids tokens, and what they have left: [(vocab + 31) / 32], NULL without a source */
    uint32_t *allowed;
    fa_gram_run *grammar;       /* NULL: none */
    struct fa_diffuse *diffuse; /* how it fills in blocks; NULL: it goes from left to right */
    int n_logprob;              /* entries per token of logprob: the token and the likeliest; 0: none */
    ffai_logprob *logprob;
};

/* It ends; its slot is free for others. */
void fa_request_finish(ffai_request *r, ffai_finish why);
void fa_request_fail(ffai_request *r, const fa_error *err);
/* The next token, < 0: FA_PICK_*. Text, stop conditions, the grammar; the request may end. */
void fa_request_accept(ffai_request *r, int32_t id);
/* The tokens that may come next, *bits NULL: all. False: there is none, the request has ended. */
bool fa_request_allowed(ffai_request *r, const uint32_t **bits);
/* From a row of logits to the next token, one of `allowed`, and its log-probabilities; < 0: FA_PICK_*. */
int32_t fa_request_next(ffai_request *r, float *row, const uint32_t *allowed, void *work);
/* The same for the token `ahead` positions behind the next, a candidate of step `turn` of a block: *prob is its
 * probability in the distribution that it was drawn from. */
int32_t fa_request_candidate(ffai_request *r, int ahead, int turn, float *row, float *prob, void *work);
/* What was fed stays in the slot for a later request that begins with the same tokens; what a step that is under way
 * adds for it is dropped (schedule.c). */
void fa_request_release(ffai_request *r);

#endif
