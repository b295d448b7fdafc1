/* What a family file is written with: reading its config, binding its weights, naming its caches, and the table row
 * that registers it.
 *
 * Errors are sticky here too: after a failed lookup the readers return defaults and the binder binds nothing; the
 * loader looks once. */
#ifndef FA_FAMILIES_FAMILY_H
#define FA_FAMILIES_FAMILY_H

#include "base/mem.h"
#include "cache/kv.h"
#include "io/json.h"
#include "ops/ops.h"

/* ---- config: keys are looked up in text_config first (multimodal wrappers), then at the root ---- */

typedef struct fa_cfg {
    const fa_jnode *root, *text; /* text: NULL when there is no text_config */
    const char *path;            /* for messages */
    fa_mem *mem;                 /* of the model */
    const float *rope_factors;   /* GGUF's rope_freqs.weight: divides the frequencies; [n_rope_factors] or NULL */
    int64_t n_rope_factors;
    const fa_jnode *rope_default; /* a family's own, where the config describes none; or NULL */
    int64_t max_ctx;              /* max_position_embeddings when absent; 0: 2048 */
    int64_t original_ctx;         /* > 0: stands for original_max_position_embeddings wherever that is said */
    fa_error err;                 /* sticky */
} fa_cfg;

void fa_cfg_fail(fa_cfg *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fa_cfg_no_memory(fa_cfg *c);
const fa_jnode *fa_cfg_node(fa_cfg *c, const char *key); /* NULL when absent or null */
bool fa_cfg_has(const fa_cfg *c, const char *key); /* null counts: transformers has defaults for absent keys only */
/* Values outside [min, max] are an error that names the key. */
/* The text model's own type, "" when there is none. */
const char *fa_cfg_type(fa_cfg *c);
int64_t fa_cfg_int(fa_cfg *c, const char *key, int64_t otherwise, int64_t min, int64_t max);
double fa_cfg_num(fa_cfg *c, const char *key, double otherwise);
double fa_cfg_eps(fa_cfg *c, const char *key, double otherwise); /* of a norm: between 0 and 1 */
bool fa_cfg_bool(fa_cfg *c, const char *key, bool otherwise);
/* Is the whole checkpoint a wrapper of this type? */
bool fa_cfg_within(fa_cfg *c, const char *type);
/* tie_word_embeddings; a wrapper's counts as well as its text_config's. */
bool fa_cfg_tied(fa_cfg *c, bool otherwise);
fa_act_fn fa_cfg_act(fa_cfg *c, const char *key, const char *otherwise); /* hidden_act names of transformers */

/* What a list of the config calls a layer, and what that means to the family. */
typedef struct fa_layer_kind {
    const char *name;
    uint8_t kind;
} fa_layer_kind;

/* The list `key` (layer_types) of names out of `names`, which ends with NULL, into kind[n_layer]. A shorter list and a
 * name that is not in `names` are errors. False: there is no list, or an error; kind[] stays. */
bool fa_cfg_layer_kinds(fa_cfg *c, const char *key, const fa_layer_kind *names, int64_t n_layer, uint8_t *kind);

/* RoPE of one layer type in both spellings: rope_parameters (flat, or keyed by layer type) or rope_theta +
 * rope_scaling. layer_type NULL: the flat one. theta is the default of the family. scaled false: rope_scaling does not
 * apply (Gemma 3 local layers). */
void fa_cfg_rope(fa_cfg *c, fa_rope *r, const char *layer_type, int64_t head_dim, double theta, bool scaled);
/* The same for the leading part of each head that partial_rotary_factor tells; share: when the key is absent. Of an odd
 * number of dims the next one rotates too. */
void fa_cfg_partial_rope(fa_cfg *c, fa_rope *r, const char *layer_type, int64_t head_dim, double share, double theta,
                         bool scaled);

/* ---- weights ---- */

typedef struct fa_binder fa_binder; /* families/bind.h */

typedef enum fa_bias { FA_NO_BIAS, FA_BIAS, FA_OPTIONAL_BIAS } fa_bias;

/* Other names of a family's tensors, in other layouts of its checkpoints: where `ours` occurs in a name and the
 * checkpoint lacks it, the one with `theirs` instead is looked for. The list ends with NULL. */
typedef struct fa_rename {
    const char *ours, *theirs;
} fa_rename;

/* Rows from, from + step, ... of the `total` rows that a checkpoint has under one name (fused projections). */
typedef struct fa_part {
    int64_t from, step, total;
    bool turned; /* a stack of floats that is square, and has no ".weight" in its name, is stored transposed; others
                    tell by their shape */
} fa_part;

/* Names are printf formats without ".weight", spelled as in the text-only checkpoint
 * ("model.layers.%d.self_attn.q_proj"); prefixes of wrappers are found by the binder. Shapes are checked. */
void fa_bind_linear(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
void fa_bind_norm(fa_binder *b, fa_norm *out, int64_t dim, double eps, double offset, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The same with weights `times` as large. */
void fa_bind_norm_times(fa_binder *b, fa_norm *out, int64_t dim, double eps, float times, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The bias of a layer that was bound whole, if it has one, anew: each value times `times` and, unless NULL, by[row]. */
void fa_bind_bias_times(fa_binder *b, fa_linear *l, float times, const float *by, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* A part of a fused projection: `rows` rows of it, and of its bias. */
void fa_bind_rows(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, fa_bias bias, fa_part part, const char *fmt,
                  ...) __attribute__((format(printf, 7, 8)));
/* A fused projection [2 * rows, cols], its first half and its second, without biases. */
void fa_bind_halves(fa_binder *b, fa_linear *first, fa_linear *second, int64_t rows, int64_t cols, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The ends of a language model, under names as they are. The embedding, before the layers: [vocab, dim]. */
void fa_bind_embed(fa_binder *b, fa_weight *embed, int64_t vocab, int64_t dim, const char *name);
/* The head, after the final norm: [vocab, dim] like the embedding. One that is stored wins over tying, as in
 * transformers; a base model without one has none (no rows). */
void fa_bind_head(fa_binder *b, fa_linear *head, const fa_weight *embed, bool tied, const char *name);
/* Rows row[0], row[1], ... of `total`, and of its bias, copied together. */
void fa_bind_gather(fa_binder *b, fa_linear *out, int64_t rows, int64_t cols, int64_t total, fa_bias bias,
                    const int64_t *row, const char *fmt, ...) __attribute__((format(printf, 8, 9)));
/* The same for rows that repeat: of every `each` rows `per` from row `first` on, for each of n stripes in turn. */
typedef struct fa_stripe {
    int64_t each, first, per;
} fa_stripe;
void fa_bind_stripes(fa_binder *b, fa_linear *out, int64_t cols, int64_t total, fa_bias bias, int n, const fa_stripe *s,
                     const char *fmt, ...) __attribute__((format(printf, 8, 9)));
/* LayerNorm with weight, and bias. */
void fa_bind_layer_norm(fa_binder *b, fa_norm *out, int64_t dim, double eps, bool bias, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* A stack of n experts [part.total, cols] under one name (X.weight, X, or X_blocks with X_scales; bias X.bias or
 * X_bias [n, part.total]), of which `rows` rows each are wanted. Stacks of floats may be stored transposed. */
void fa_bind_experts(fa_binder *b, fa_experts *out, int64_t n, int64_t rows, int64_t cols, bool bias, fa_part part,
                     const char *fmt, ...) __attribute__((format(printf, 8, 9)));
/* Experts that have a tensor each: before, number, after. */
void fa_bind_each_expert(fa_binder *b, fa_experts *out, int64_t n, int64_t rows, int64_t cols, const char *before,
                         const char *after);
/* Opens a stack of experts to adapters, under one of the names that they may call it by; of one that is fused with
 * another, rows `part` of what the name stands for. All names of a stack come one after the other. */
void fa_bind_stack(fa_binder *b, fa_experts *e, fa_part part, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Says how many of a layer's experts a token goes through; nothing but `inspect` depends on it. */
void fa_bind_mixture(fa_binder *b, const fa_moe *m, int n_used);
/* ---- recurrent layers (bind_state.c) ---- */
/* Weights of a causal convolution of n channels [n, 1, kernel] or, as mlx stores it, [n, kernel, 1] (GGUF: [n,
 * kernel]); *mlx (or NULL): it is stored so, which tells that mlx's conversion has been at work on other tensors as
 * well. */
void fa_bind_conv(fa_binder *b, fa_conv *out, int64_t n, int64_t kernel, fa_bias bias, bool *mlx, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));
/* Convolutions of n[0], n[1], ... channels that stand one after the other in the tensors of these names, which
 * transformers 5 cuts into equal parts instead. Without biases. */
void fa_bind_conv_parts(fa_binder *b, fa_conv *out, int n_name, const char *const *name, const int64_t *n,
                        int64_t kernel, bool *mlx);
/* -exp(v) of a vector [n], or of a matrix [n, cols] turned to [cols, n] (cols 0: a vector); as_is: it is stored so
 * already (GGUF's ssm_a). */
const float *fa_bind_decay(fa_binder *b, int64_t n, int64_t cols, bool as_is, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Numbers of the family's own, where the weights lie. */
const float *fa_bind_constants(fa_binder *b, const float *values, int64_t n);

/* Floats under a full name (no ".weight" is added). mean: of random ones. */
const float *fa_bind_vector(fa_binder *b, int64_t n, float mean, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A vector of one value that forward needs itself, wherever the weights lie. */
float fa_bind_scalar(fa_binder *b, float mean, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Tensors of a module that checkpoints may hold and the family does not need: no word about them. */
void fa_bind_unused(fa_binder *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same of all tensors of a layer behind those that the family has. */
void fa_bind_unused_layer(fa_binder *b, int64_t layer);
/* Is there such a matrix, stack or vector? Never, when weights are random: then the family's first layout is made. */
bool fa_bind_has(fa_binder *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Are weights made up, in want of a checkpoint? */
bool fa_bind_random(const fa_binder *b);
/* Is this a base model, saved without its head (names without "model.", or an architecture "...Model")? Says so to the
 * loader too: the model embeds, but does not generate. For families that lack an untied lm_head. */
bool fa_bind_headless(fa_binder *b);
void *fa_bind_alloc(fa_binder *b, size_t n,
                    size_t size); /* model memory; a dummy after an error, never NULL for small sizes */

/* ---- the family ---- */

/* Facts that the engine and `inspect` need of any language model. */
typedef struct fa_lm_dims {
    int64_t n_layer, dim, n_head, n_kv_head, head_dim, ff_dim, vocab, max_ctx;
    bool tied;
    int32_t block; /* tokens that it can make at a time, by filling in masks; 0: it only goes from left to right */
    int32_t mask_token;
} fa_lm_dims;

/* A bound model as forward sees it. */
typedef struct fa_lm {
    const void *cfg, *w;
    const fa_kv *kv;       /* [n_layer], of the engine that runs */
    const fa_state *state; /* [n_layer], likewise; NULL: the model has no recurrent layers */
} fa_lm;

typedef struct fa_family {
    const char *name;
    const char *model_types, *archs; /* comma-separated */
    const char *modality, *task;
    const char *repos; /* verified repo ids */
    bool parity;
    const fa_rename *renames; /* or NULL */
    size_t cfg_size, weights_size;
    void (*config)(fa_cfg *c, void *cfg, fa_lm_dims *dims);
    void (*bind)(fa_binder *b, const void *cfg, void *w);
    void (*caches)(const void *cfg, fa_kv_spec *spec); /* [n_layer] */
    /* embed: tokens to the residual stream [n_tok, dim]; body: through the layers; norm: rows batch->out_row after the
     * final norm [n_out, dim], which is what embeddings pool; head: those to logits [n_out, vocab] */
    fa_tensor (*embed)(fa_cx *cx, const fa_lm *m);
    void (*body)(fa_cx *cx, const fa_lm *m, fa_tensor h);
    fa_tensor (*norm)(fa_cx *cx, const fa_lm *m, fa_tensor h);
    fa_tensor (*head)(fa_cx *cx, const fa_lm *m, fa_tensor n);
} fa_family;

/* families.inc: every family, one line each. */
extern const fa_family *const fa_families[];
extern const size_t fa_n_family;
/* By model_type, else by architecture string; NULL when unknown. */
const fa_family *fa_family_find(const char *model_type, const char *arch);

#endif
