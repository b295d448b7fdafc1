/* A loaded model: checkpoint, family, config, bound weights, tokenizer. Immutable after load (the tokenizer is loaded
 * once, on first use). */
#ifndef FA_ENGINE_MODEL_H
#define FA_ENGINE_MODEL_H

#include "engine/pooling.h"
#include "families/bind.h"
#include "text/tok.h"

#include <pthread.h>

enum { FA_MAX_EOS = 16, FA_DEVICE_PITCH = 16 /* rows of weights on devices begin at multiples of it */ };

/* One set of a model's weights (weights.c). */
typedef struct fa_weights {
    void *w; /* the family's struct */
    fa_mem mem;
    const fa_st_item *item; /* [n_item] random weights in host memory */
    size_t n_item;
    /* on a device: `bytes` in one block */
    const fa_module *mod;
    int index;
    fa_device *dev;
    void *block;
    size_t bytes, matrix_bytes; /* matrices come first */
    struct fa_weights *next;
} fa_weights;

struct ffai_model {
    fa_ckpt *ckpt;
    fa_mem mem;
    const fa_family *family;
    void *cfg, *w; /* w: in host memory; of random weights only the shapes: addresses are not to be followed */
    fa_lm_dims dims;
    fa_kv_spec *spec; /* [n_layer] */
    uint8_t *used;    /* [tensors], see fa_binder */
    int64_t n_param, n_active, weight_bytes, n_expert, n_expert_used, expert_dim;
    const char *model_type, *arch;
    struct fa_weight_kind *kind; /* [n_kind] of matrices, the one with most bytes first */
    int n_kind;
    fa_targets targets; /* what adapters can change */
    char *config_text;
    bool bound;
    bool mapped;         /* the CPU's weights are read from the files, step for step */
    bool headless;       /* no output head: embeds, does not generate */
    fa_pooling *pooling; /* how embeddings are pooled, loaded once, on first use */
    bool synthetic;      /* weights are random */
    fa_synth synth;      /* their format */
    pthread_mutex_t weight_lock;
    fa_weights *host;      /* random weights once they were made */
    fa_weights *on_device; /* list */
    int32_t eos[FA_MAX_EOS];
    int n_eos;
    ffai_sampling sampling; /* what ffai_sampling_default hands on */
    const char *ignored;    /* see ffai_model_info; NULL: nothing */
    const char *extra;      /* the same: tensors that the family does not know */
    const char *widened;    /* the same: quantized matrices that became floats */
    pthread_mutex_t tok_lock;
    const char *tok_dir; /* set when only the tokenizer was opened: the folder */
    fa_tok *tok;
    fa_error tok_err; /* why tok is NULL after it was tried */
    bool tok_tried;
    struct fa_vocab *vocab; /* for grammars (grammar.c), made on first use */
    pthread_mutex_t tmpl_lock;
    char *own_template;        /* ffai_model_opts.chat_template or NULL */
    struct fa_templates *tmpl; /* chat templates, loaded once, on first use (template.c) */
};

/* Without looking for weights: for a conversion, which binds in its own way. No engine can be made of it. */
int fa_model_open_unbound(ffai_model **out, const char *path, fa_error *err);

/* ---- weights (weights.c) ---- */

/* The weights in host memory; random ones are made now. */
int fa_model_host(ffai_model *m, const void **w, fa_error *err);
/* Random weights as arrays for a file. */
int fa_model_items(ffai_model *m, const fa_st_item **item, size_t *n, fa_error *err);
/* The weights on GPU `index` of the module, loaded now unless they are there. */
int fa_model_device(ffai_model *m, const fa_module *mod, int index, const fa_weights **out, fa_error *err);
bool fa_model_is_on(ffai_model *m, const fa_module *mod, int index);
/* The weights' shapes, and their size with rows padded to row_align; addresses are not to be followed. */
int fa_model_shapes(ffai_model *m, size_t row_align, fa_weights *out, fa_error *err);
void fa_model_weights_free(fa_weights *w);
void fa_model_weights_free_all(ffai_model *m);

void fa_templates_free(struct fa_templates *t);

/* The tokenizer, loaded on first use; NULL with the reason. */
const fa_tok *fa_model_tok(ffai_model *m, fa_error *err);
/* generation_config.json's stop_strings, a string or an array of non-empty strings (the loader checked), or NULL. */
const fa_jnode *fa_model_stop_strings(const ffai_model *m);
/* How the checkpoint pools embeddings, loaded on first use; NULL with the reason. */
const fa_pooling *fa_model_pooling(ffai_model *m, fa_error *err);
bool fa_model_is_eos(const ffai_model *m, int32_t id);
/* Fills m->sampling from generation_config.json; a value out of range is an error that names it (sample_config.c). */
int fa_model_read_sampling(ffai_model *m, fa_error *err);

#endif
