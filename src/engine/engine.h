/* The engine's inside: backend, arena, cache, the batch buffers, recorded programs, and the step that everything else
 * is made of; slots and the tokens that their caches hold. */
#ifndef FA_ENGINE_ENGINE_H
#define FA_ENGINE_ENGINE_H

#include "backend/registry.h"
#include "engine/model.h"

enum { FA_PROGRAMS = 32 /* recorded shapes kept */ };

/* The adapters of an engine (adapter.c). A sequence's choice of them is FA_ADAPTERS scales, one for each; 0: not used.
 */
typedef struct fa_adapters {
    ffai_adapter *at[FA_ADAPTERS]; /* NULL: free */
    int n;                         /* all from here on are free */
    uint64_t n_loaded;             /* so far */
    float use[FA_ADAPTERS];        /* what sequences use that say nothing */
    fa_adapted table;              /* what they change */
    fa_mem mem;                    /* its memory */
    void *dev_mem;                 /* and on the device */
} fa_adapters;

/* What a program's shape depends on. */
typedef struct fa_program_key {
    int n_tok, n_seq, n_out, n_dec, max_q, n_tile, n_cut;
    bool taps, hidden, adapted;
} fa_program_key;

typedef struct fa_program_slot {
    fa_program_key key;
    fa_program prog;
    int64_t used; /* step number of the last use; 0: free */
    int n_run;    /* since it was recorded, as far as HOST_WARM */
} fa_program_slot;

/* Rows that one sequence adds in a step. */
typedef struct fa_seq_rows {
    int slot;
    const int32_t *ids; /* [n] */
    int n;
    int n_out;         /* the last n_out rows give logits (or hidden states) */
    int32_t final_len; /* length that the sequence is known to reach, 0: unknown */
    const float *use;  /* [FA_ADAPTERS] scales of adapters; NULL: the engine's */
    int32_t keep[2];   /* recurrent states after so many tokens are kept for other prompts; 0: none */
    bool whole;        /* every row sees all of them, those behind it too */
} fa_seq_rows;

/* A step that was begun and is yet to be read: schedule.c. */
typedef struct fa_flight {
    int n;              /* requests with rows of logits; 0: there is none */
    int n_row;          /* of all of them */
    ffai_request **who; /* [n_slot] each one; NULL: it has ended */
    int *fed;           /* [n_slot] tokens that it was fed */
    int *out;           /* [n_slot] its rows: 1 but for blocks */
    fa_tensor logits;
    bool picks; /* the device picks from all rows */
} fa_flight;

/* Engine options with their defaults filled in. */
typedef struct fa_settings {
    fa_device_name device;
    int n_thread, n_ctx, n_slot, n_chunk;
    bool exact;
    fa_dtype kv;
    const char *kv_name, *cpu, *cuda_module;
    fa_pin pin;
    bool composed, profile;
} fa_settings;

struct ffai_engine {
    ffai_model *m;
    fa_device *dev; /* NULL: everything is in host memory */
    fa_backend *be;
    fa_arena arena;
    fa_kv_cache *kv;
    fa_lm lm;
    fa_batch batch;
    int cap_rows, cap_seq; /* of the batch buffers */
    bool batch_adapted;    /* some of its sequences use adapters */
    fa_mem mem;            /* batch buffers */
    fa_program_slot prog[FA_PROGRAMS];
    fa_adapters adapters;
    int64_t n_step;
    double checked; /* when the model's files were looked at last */
    int n_ahead;    /* steps begun since the last wait */
    int n_ctx, n_slot, n_chunk;
    int64_t weight_bytes; /* on the device */
    const char *precision, *kv_name;
    bool composed;
    bool inputs;        /* taps of what goes into linear layers: for calibration */
    ffai_request **req; /* [n_req] all that are not freed */
    int n_req, cap_req;
    bool in_events;          /* a step is calling the requests' callbacks */
    ffai_request **slot;     /* [n_slot] who holds a slot, or NULL */
    int32_t *kept;           /* [n_slot, n_ctx] the tokens whose keys are in the cache: kv->len[slot] of them */
    int32_t *kept_len;       /* [n_slot, n_ctx] length that chose each one's rotation; NULL: it depends on none */
    int64_t *slot_used;      /* [n_slot] n_step of the last use */
    float *slot_use;         /* [n_slot, FA_ADAPTERS] scales of the adapters that made what a slot holds */
    fa_seq_rows *step_seq;   /* [n_slot] what the step in progress feeds */
    ffai_request **step_who; /* [n_slot] and for whom */
    fa_flight flight[2];     /* under way: the one to be read next, and the one after it while a step is made */
    fa_pick_opts *pick;      /* [n_slot] of the picks that are being begun */
    int32_t *picked;         /* [n_slot] of those that are being read */
    int32_t *ahead_tok;      /* [n_slot] what a step is fed that is begun before its tokens are known */
    void *sample_work;       /* [vocab] of FA_SAMPLER_WORK bytes, touched only when it samples */
    float *fetched;          /* [cap_fetched] rows of results that a device gave */
    size_t cap_fetched;
    fa_pin pin;            /* what came of the setting, CPU only */
    char passed_over[508]; /* why "auto" did not take a GPU, "": it did, or was not asked */
    ffai_engine_stats stats;
    fa_op_time *times;       /* [FA_OP_COUNT] or NULL */
    fa_kernel_time *kernels; /* [FA_KERNEL_TIMES] or NULL */
};

/* Checks the options against the model, whose device is chosen by the caller: defaults differ between them. */
int fa_settings_read(fa_settings *s, const ffai_model *m, const ffai_engine_opts *o, fa_error *err);
void fa_settings_for(fa_settings *s, const ffai_model *m, const ffai_engine_opts *o, bool gpu);
fa_kv_opts fa_settings_kv(const fa_settings *s);
/* Can this engine, whose backend and batch stand, be had on its device? Bytes of weights that are there already do not
 * count. Refused with what is needed and what there is. */
int fa_engine_fits(ffai_engine *e, const fa_settings *s, const fa_module *mod, fa_error *err);

/* Buffers for rows tokens of n_seq sequences. */
int fa_engine_make_batch(ffai_engine *e, int rows, int n_seq, int n_page, int n_group, fa_error *err);
/* Records forward for the batch's shape into prog; adapted: some of its sequences use adapters. */
int fa_engine_record(ffai_engine *e, fa_program *prog, bool taps, bool hidden, bool adapted, fa_error *err);
void fa_engine_drop_programs(ffai_engine *e);
/* Runs one step; sequences with one row come first. *logits: [sum of n_out (or more), vocab], valid until the next
 * step, in the backend's memory. A device has only begun it. */
int fa_engine_run(ffai_engine *e, const fa_seq_rows *seq, int n_seq, const fa_run_opts *opts, fa_tensor *logits,
                  fa_error *err);
/* The same with hidden states after the final norm instead of logits: *rows [sum of n_out, dim]. */
int fa_engine_hidden(ffai_engine *e, const fa_seq_rows *seq, int n_seq, fa_tensor *rows, fa_error *err);
/* The first n rows of what a step gave, as f32 in host memory until the next call: waits for them. */
int fa_engine_rows(ffai_engine *e, fa_tensor t, int64_t n, float **out, fa_error *err);
/* Until all that was begun is done. */
int fa_engine_wait(ffai_engine *e, fa_error *err);
/* The model's logits can be had, or the reason why not. */
int fa_engine_has_head(const ffai_engine *e, fa_error *err);
/* Are there running requests? Then whoever wants slots 0..n of its own is refused; else they are emptied. */
int fa_engine_take_slots(ffai_engine *e, int n, fa_error *err);
/* Rejects ids that the embedding table does not have. */
int fa_engine_check_ids(const ffai_engine *e, const int32_t *ids, size_t n, fa_error *err);

/* ---- slots (slots.c) ---- */

/* Memory of the lists above. */
int fa_slots_create(ffai_engine *e, fa_error *err);
void fa_slots_free(ffai_engine *e);
/* A step is about to put ids [n] behind what the slot holds; len: the sequence length that chooses their rotation. */
void fa_slot_append(ffai_engine *e, int slot, const int32_t *ids, int n, int32_t len);
/* The free slot for a prompt of n ids, cut to what the prompt can go on from: *reused of its tokens, at most n - 1. The
 * slot that shares most with it, if that is a good part of either; else the oldest. fresh: reuse nothing. -1: no slot
 * is free. use: scales of its adapters; what other ones made is no beginning of it. *parted: tokens that it shares with
 * some slot, but that are no place to begin at: a recurrent state of it is worth keeping for the next one. */
int fa_slot_take(ffai_engine *e, const int32_t *ids, int64_t n, const float *use, bool fresh, int64_t *reused,
                 int32_t *parted);
/* Were the keys in the slot rotated with LongRoPE's other factors than a sequence of length len needs? Keys of
 * dynamically scaled rotation never are: transformers leaves them as they were made. */
bool fa_slot_outgrown(const ffai_engine *e, int slot, int32_t len);
/* The free slot that is emptiest or was not used for longest; -1: none is free. */
int fa_slot_oldest(const ffai_engine *e);
/* The free slot that holds the first tokens of ids [n], made with these adapters, and nothing else, the most of them;
 * -1: there is none. */
int fa_slot_holding(const ffai_engine *e, const int32_t *ids, int64_t n, const float *use);

/* ---- adapters (adapter.c) ---- */

void fa_adapters_free(ffai_engine *e);
/* A list of adapters as scales [FA_ADAPTERS]. */
int fa_adapters_scales(const ffai_engine *e, const ffai_adapter_use *use, size_t n, float *scales, fa_error *err);
/* What an adapter is, for sessions; the adapter of this engine that is it, or -1. */
uint64_t fa_adapter_hash(const ffai_engine *e, int adapter);
int fa_adapter_find(const ffai_engine *e, uint64_t hash);

/* ---- requests (request.c, schedule.c) ---- */

int fa_flights_create(ffai_engine *e, fa_error *err);

/* What a session needs of a request: its tokens [*n]; the slot that holds it or -1; its adapters' scales; whether it
 * waits for its first step. */
const int32_t *fa_request_tokens(const ffai_request *r, ffai_engine **e, int64_t *n, int *slot, const float **use,
                                 bool *waits);
/* Unfinished requests that use an adapter. */
int fa_requests_using(const ffai_engine *e, int adapter);
/* It goes: what finished requests left cannot be found by it any more. */
void fa_requests_forget(ffai_engine *e, int adapter);
void fa_requests_free(ffai_engine *e);

#endif
