/* A loaded model: checkpoint, family, config, bound weights, tokenizer. Immutable after load (the tokenizer is loaded
 * once, on first use). */
#ifndef FA_ENGINE_MODEL_H
#define FA_ENGINE_MODEL_H

#include "engine/pooling.h"
#include "families/bind.h"
#include "text/tok.h"

#include <pthread.h>

enum { FA_MAX_EOS = 16 };

struct ffai_model {
    fa_ckpt *ckpt;
    fa_mem mem;
    const fa_family *family;
    void *cfg, *w;
    fa_lm_dims dims;
    fa_kv_spec *spec; /* [n_layer] */
    uint8_t *used;    /* [tensors], see fa_binder */
    int64_t n_param, weight_bytes;
    const char *model_type, *arch, *format;
    char *config_text;
    bool bound;
    bool headless;          /* no output head: embeds, does not generate */
    fa_pooling *pooling;    /* how embeddings are pooled, loaded once, on first use */
    fa_synth synth;         /* format of random weights */
    const fa_st_item *item; /* [n_item] random weights, NULL: a checkpoint's own */
    size_t n_item;
    int32_t eos[FA_MAX_EOS];
    int n_eos;
    ffai_sampling sampling; /* what ffai_sampling_default hands on */
    const char *ignored;    /* see ffai_model_info; NULL: nothing */
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
