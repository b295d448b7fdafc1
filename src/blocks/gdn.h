/* The gated delta net (Yang, Kautz, Hatamizadeh 2024): a recurrent mixer that stands in for attention. Of normalised
 * rows x, with [q | k | v] = act(conv(in_proj_qkv x)), a causal convolution of each channel,
 *
 *     y = out_proj(norm(delta_rule(q, k, v, in_proj_b x, in_proj_a x)) * silu(in_proj_z x))
 *
 * norm being an RMS norm of each value head whose weights all heads share, and delta_rule what backend/program.h says
 * of fa_delta (docs/scans.md). Checkpoints have the projections apart (Qwen 3.5), fused with the rows of each key head
 * together (Qwen 3 Next), or q, k and v with a convolution each (OLMo Hybrid); the binder of this block takes what is
 * there. */
#ifndef FA_BLOCKS_GDN_H
#define FA_BLOCKS_GDN_H

#include "blocks/dense.h"

typedef enum fa_gdn_kind {
    FA_GDN_SPLIT,   /* in_proj_qkv, in_proj_z, in_proj_b, in_proj_a */
    FA_GDN_GROUPED, /* in_proj_qkvz: for each key head its q, k, v and z rows; in_proj_ba: its b and a rows */
    FA_GDN_EACH     /* q_proj, k_proj, v_proj, g_proj, b_proj, a_proj, o_proj; q_conv1d, k_conv1d, v_conv1d; o_norm */
} fa_gdn_kind;

typedef struct fa_gdn_cfg {
    fa_gdn_kind kind; /* what the family's checkpoints have; GGUF splits grouped rows */
    int n_k_head, n_v_head, k_dim, v_dim, kernel;
    fa_act_fn act; /* behind the convolution; the gate is always SiLU */
    double norm_eps;
    float beta_scale;   /* 2: eigenvalues of the transition may be negative */
    bool tiled;         /* see fa_delta */
    bool decay_applied; /* A_log is -exp(A_log) already */
} fa_gdn_cfg;

typedef struct fa_gdn {
    const fa_gdn_cfg *cfg;
    fa_linear qkv, z, b, a; /* [2 keys + values, dim], [values, dim], [n_v_head, dim] twice */
    fa_linear q, k, v;      /* FA_GDN_EACH: instead of qkv */
    fa_conv conv[3];        /* of [q | k | v]; FA_GDN_EACH: of q, k and v */
    fa_delta delta;
    fa_gate gate;
    fa_linear out; /* [dim, values] */
    bool mlx;      /* the convolution is stored as mlx stores them, so mlx's conversion has changed other tensors too */
} fa_gdn;

/* linear_num_key_heads, linear_num_value_heads, linear_key_head_dim, linear_value_head_dim (0: no default of its own,
 * the caller's), linear_conv_kernel_dim. d: the defaults. */
void fa_gdn_read(fa_cfg *r, fa_gdn_cfg *c, const fa_gdn_cfg *d);
/* Lets a dense decoder have such layers (fa_dense_mixers): a config of `size` zeros that begins with fa_gdn_cfg, to be
 * filled. NULL after an error. */
void *fa_gdn_in_dense(fa_cfg *r, fa_dense_cfg *c, size_t size);
/* ... where layer_types (else `linear(layer)`) says "linear_attention". */
void fa_gdn_layers(fa_cfg *r, fa_dense_cfg *c, bool (*linear)(const void *user, int64_t layer), const void *user);
/* "model.layers.%d.linear_attn" */
void fa_gdn_bind(fa_binder *b, const fa_gdn_cfg *c, fa_gdn *w, int64_t dim, int layer);
/* Floats of state. */
void fa_gdn_spec(const fa_gdn_cfg *c, fa_kv_spec *spec);
/* From normalised rows x [n_tok, dim] to out_proj's input [n_tok, n_v_head * v_dim]. */
fa_tensor fa_gdn_op(fa_cx *cx, const fa_gdn *w, fa_tensor x, const fa_state *st);

#endif
