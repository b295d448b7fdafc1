/* The decoder that most text families are variations of. Per layer, with n = [attn_norm](h) and m = [mlp_norm](h),
 *
 *     h += s * [post_attn_norm](o_proj(attention(rope([q_norm] q_proj(n)), rope([k_norm] k_proj(n)), v_proj(n))))
 *     h += s * [post_mlp_norm](down_proj(act(gate_proj(m)) * up_proj(m)))     or the experts (blocks/moe.h) of m
 *
 * Bracketed norms exist where the family has them; in some layers a recurrent mixer stands in for attention. A
 * family file reads its config into fa_dense_cfg and says which tensors there are; where its checkpoints fuse or rename
 * projections it binds them itself (bind_attn, bind_mlp) or lists other names (fa_family.renames). */
#ifndef FA_BLOCKS_DENSE_H
#define FA_BLOCKS_DENSE_H

#include "blocks/moe.h"

enum { FA_DENSE_ROPES = 2 };

typedef struct fa_dense_cfg fa_dense_cfg;
typedef struct fa_dense_layer fa_dense_layer;

/* A recurrent mixer that stands in for attention: floats of state of a layer, its weights (bind makes l->mix), and
 * h += residual_scale * mixer(attn_norm(h)). */
typedef struct fa_dense_mixer {
    void (*spec)(const fa_dense_cfg *c, fa_kv_spec *spec);
    void (*bind)(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i);
    void (*add)(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h, const fa_state *st);
} fa_dense_mixer;

struct fa_dense_cfg {
    int64_t dim, n_layer, n_head, n_kv_head, head_dim, ff_dim, vocab;
    double eps;
    float norm_offset;                              /* 1 for (1 + w) norms */
    float embed_scale, residual_scale, logit_scale; /* logits are multiplied by it */
    float clip_qkv;                                 /* > 0: projections are clamped to it */
    float attn_scale, attn_softcap, final_softcap;
    fa_act_fn act;
    bool qkv_bias, o_bias, mlp_bias;
    bool layer_norm;           /* LayerNorm instead of RMSNorm */
    bool norm_bias, norm_bare; /* ... with biases; without weights */
    bool qk_norm;              /* before rotation, per head */
    bool wide_qk_norm;         /* ... over the whole projection */
    bool sandwich;             /* norms before and after, Gemma style names */
    bool post_only;            /* norms after only, in layers that attend */
    bool plain_mlp;            /* down(act(up)), no gate; up is in `gate` */
    bool no_mlp;               /* layers are attention or a mixer alone */
    bool tied;
    fa_moe_cfg moe;     /* what layers with experts have */
    uint8_t *layer_moe; /* [n_layer] 1: experts instead of the MLP; NULL: no layer */
    /* NULL: q_proj, k_proj, v_proj, o_proj; gate_proj, up_proj, down_proj */
    void (*bind_attn)(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i);
    void (*bind_mlp)(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i);
    uint8_t *layer_mix;  /* [n_layer] not 0: a mixer in place of attention; NULL: no layer */
    const void *mix_cfg; /* the mixer's own */
    const fa_dense_mixer *mixer;
    fa_rope rope[FA_DENSE_ROPES];
    uint8_t *layer_rope; /* [n_layer] index into rope */
    fa_rope q_growth;    /* n_pair 1: queries are multiplied by its cosine, which grows with the position */
    int32_t *window;     /* [n_layer], 0: full attention */
};

struct fa_dense_layer {
    fa_norm attn_norm, mlp_norm, post_attn_norm, post_mlp_norm; /* [dim] */
    fa_norm q_norm, k_norm;                                     /* [head_dim], or the projections' width */
    const float *sink;                                          /* [n_head] or NULL */
    fa_qkv qkv;          /* [n_head * head_dim, dim], [n_kv_head * head_dim, dim] twice */
    fa_linear o;         /* [dim, n_head * head_dim] */
    fa_linear attn_gate; /* [n_head * head_dim, dim]: o's input is multiplied by sigmoid(attn_gate n); no rows: it is
                            not. Bound by bind_attn */
    fa_linear gate, up;  /* [ff_dim, dim] */
    fa_linear down;      /* [dim, ff_dim] */
    fa_moe_layer *moe;   /* instead of gate, up, down; or NULL */
    void *mix;           /* instead of q, k, v, o: what mixer->bind made; or NULL */
};

typedef struct fa_dense {
    fa_weight embed; /* [vocab, dim] */
    fa_linear head;  /* [vocab, dim]; the embedding when tied; nothing in a base model without one */
    fa_norm norm;    /* [dim] */
    fa_dense_layer *layer;
} fa_dense;

/* Keys that all these families share. Defaults are those of transformers' config class. */
typedef struct fa_dense_defaults {
    int64_t vocab, dim, ff_dim, n_layer, n_head, n_kv_head; /* n_kv_head 0: as many as heads */
    int64_t head_dim;                                       /* 0: dim / heads */
    int64_t max_ctx;
    double eps; /* 0: 1e-6 */
    const char *act_key, *act;
    bool tied;
} fa_dense_defaults;

extern const fa_dense_defaults fa_dense_llama; /* Llama's, which Granite and others have taken over */

void fa_dense_read(fa_cfg *r, fa_dense_cfg *c, fa_lm_dims *dims, const fa_dense_defaults *d);
/* The same for models of layers that are a norm and a recurrent mixer, with the keys of Mamba: no heads, no MLP. */
void fa_dense_read_mixers(fa_cfg *r, fa_dense_cfg *c, fa_lm_dims *dims, const fa_dense_defaults *d);
/* layer_types ("sliding_attention" / "full_attention") into window[]; absent: sliding(i) decides, or nothing slides
 * when NULL. */
void fa_dense_windows(fa_cfg *r, fa_dense_cfg *c, int64_t window, bool (*sliding)(const void *user, int64_t layer),
                      const void *user);

/* Lets layers have this mixer: mix_cfg of `size` zeros, which is returned, and layer_mix without any. NULL after an
 * error. */
void *fa_dense_mixers(fa_cfg *r, fa_dense_cfg *c, size_t size, const fa_dense_mixer *mixer);
/* The windows of Qwen 2 and 3: with use_sliding_window, layers from max_window_layers (default: first) on, or those of
 * layer_types. */
void fa_dense_late_windows(fa_cfg *r, fa_dense_cfg *c, int64_t first);
/* Granite's four multipliers: of embeddings, scores, what layers add, and (divided) logits.
 * Each is 1 without its key. */
void fa_dense_granite_scales(fa_cfg *r, fa_dense_cfg *c);
/* The experts of Granite, of intermediate_size; 0 of them: none. */
void fa_dense_granite_experts(fa_cfg *r, fa_dense_cfg *c);
/* Ministral 3's queries: multiplied by 1 + llama_4_scaling_beta log(1 + floor(position / original context)); without
 * the key they are not. otherwise: the original context when it is not told. */
void fa_dense_q_growth(fa_cfg *r, fa_dense_cfg *c, int64_t otherwise);
/* Experts in every layer. */
void fa_dense_all_experts(fa_cfg *r, fa_dense_cfg *c);
/* The experts of Qwen 2 and 3: num_experts (num_local_experts) of moe_intermediate_size, in the layers that
 * decoder_sparse_step and mlp_only_layers leave. */
void fa_dense_qwen_experts(fa_cfg *r, fa_dense_cfg *c, int64_t n_expert, int64_t n_used, int64_t ff_dim);

/* Norms that a family multiplies by 1 + w have weights w + 1 in this checkpoint. */
void fa_dense_norms_applied(const fa_dense_cfg *c, fa_dense *w);
/* What fa_dense_bind does for a layer's attention and MLP when there is no hook. */
void fa_dense_bind_attn(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i);
void fa_dense_bind_mlp(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i);
void fa_dense_bind(fa_binder *b, const void *cfg, void *w);
void fa_dense_caches(const void *cfg, fa_kv_spec *spec);
fa_tensor fa_dense_embed(fa_cx *cx, const fa_lm *m);
void fa_dense_body(fa_cx *cx, const fa_lm *m, fa_tensor h);
fa_tensor fa_dense_norm(fa_cx *cx, const fa_lm *m, fa_tensor h);
fa_tensor fa_dense_head(fa_cx *cx, const fa_lm *m, fa_tensor n);

#define FA_DENSE_FORWARD                                                                                               \
    .cfg_size = sizeof(fa_dense_cfg), .weights_size = sizeof(fa_dense), .bind = fa_dense_bind,                         \
    .caches = fa_dense_caches, .embed = fa_dense_embed, .body = fa_dense_body, .norm = fa_dense_norm,                  \
    .head = fa_dense_head

#endif
