/* The engine's inside: backend, arena, cache, the batch buffers, recorded programs, and the step that everything else
 * is made of. */
#ifndef FA_ENGINE_ENGINE_H
#define FA_ENGINE_ENGINE_H

#include "engine/model.h"

enum { FA_PROGRAMS = 32 /* recorded shapes kept */ };

/* What a program's shape depends on. */
typedef struct fa_program_key {
    int n_tok, n_seq, n_out, n_dec, max_q, n_tile;
    bool taps;
} fa_program_key;

typedef struct fa_program_slot {
    fa_program_key key;
    fa_program prog;
    int64_t used; /* step number of the last use; 0: free */
} fa_program_slot;

/* Rows that one sequence adds in a step. */
typedef struct fa_seq_rows {
    int slot;
    const int32_t *ids; /* [n] */
    int n;
    int n_out;         /* the last n_out rows give logits */
    int32_t final_len; /* length that the sequence is known to reach, 0: unknown */
} fa_seq_rows;

struct ffai_engine {
    ffai_model *m;
    fa_backend *be;
    fa_arena arena;
    fa_kv_cache *kv;
    fa_lm lm;
    fa_batch batch;
    int cap_rows, cap_seq; /* of the batch buffers */
    fa_mem mem;            /* batch buffers */
    fa_program_slot prog[FA_PROGRAMS];
    int64_t n_step;
    int n_ctx, n_slot, n_chunk;
    const char *precision, *kv_name;
    bool composed;
    ffai_request **req; /* [n_req] all that are not freed */
    int n_req, cap_req;
    ffai_request **slot;     /* [n_slot] who holds a slot, or NULL */
    fa_seq_rows *step_seq;   /* [n_slot] what the step in progress feeds */
    ffai_request **step_who; /* [n_slot] and for whom */
    void *sample_work;       /* [vocab] of FA_SAMPLER_WORK bytes, touched only when it samples */
    ffai_engine_stats stats;
    fa_op_time *times; /* [FA_OP_COUNT] or NULL */
};

/* Runs one step; sequences with one row come first. *logits: [sum of n_out, vocab], valid until the next step. */
int fa_engine_run(ffai_engine *e, const fa_seq_rows *seq, int n_seq, const fa_run_opts *opts, fa_tensor *logits,
                  fa_error *err);
/* Rejects ids that the embedding table does not have. */
int fa_engine_check_ids(const ffai_engine *e, const int32_t *ids, size_t n, fa_error *err);

/* ---- requests (request.c) ---- */
void fa_requests_free(ffai_engine *e);

#endif
