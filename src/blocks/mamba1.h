/* The mixer of Mamba 1 (Gu, Dao 2023), of the normalised rows n of a layer:
 *
 *     x, z = in_proj(n)           x = act(conv(x))          dt, B, C = [norms](x_proj(x))
 *     y = scan(x, dt_proj(dt), B, C)                        h += out_proj(y * silu(z))
 *
 * The scan is fa_ssm1 (docs/scans.md). Families differ in the names of keys and tensors, and in the RMS norms of dt, B
 * and C: Mamba has none, Falcon Mamba's have no weights, Jamba's have. */
#ifndef FA_BLOCKS_MAMBA1_H
#define FA_BLOCKS_MAMBA1_H

#include "blocks/dense.h"

typedef struct fa_mamba1_cfg {
    int64_t dim, inner, n_state, kernel, rank; /* rank: of dt */
    bool proj_bias, conv_bias;
    fa_act_fn act;      /* behind the convolution; the gate is always SiLU */
    bool norms, bare;   /* of dt, B and C; without weights */
    double eps;         /* of those */
    bool decay_applied; /* A_log is -exp(A_log) already: GGUF */
    const char *block;  /* what stands behind "model.layers.N." */
} fa_mamba1_cfg;

/* What the config keys are called; inner NULL: always expand times dim. */
typedef struct fa_mamba1_keys {
    const char *inner, *expand, *n_state, *kernel, *rank, *proj_bias, *conv_bias;
} fa_mamba1_keys;

typedef struct fa_mamba1 {
    fa_linear in;                    /* [2 * inner, dim]: x, z */
    fa_conv conv;                    /* of inner channels */
    fa_linear x;                     /* [rank + 2 * n_state, inner]: dt, B, C */
    bool norms;                      /* of dt [rank], B and C [n_state] */
    fa_norm dt_norm, b_norm, c_norm; /* w NULL: without weights */
    fa_linear dt;                    /* [inner, rank], with a bias */
    fa_ssm1 scan;
    fa_gate gate;
    fa_linear out; /* [dim, inner] */
} fa_mamba1;

/* Sizes, biases and hidden_act of a model of `dim` columns; the rest is the family's. */
void fa_mamba1_read(fa_cfg *r, fa_mamba1_cfg *c, int64_t dim, const fa_mamba1_keys *keys);
/* Lets layers of a dense decoder have this mixer (fa_dense_mixers). */
void fa_mamba1_mix(fa_cfg *r, fa_dense_cfg *d, const fa_mamba1_cfg *c);

void fa_mamba1_spec(const fa_mamba1_cfg *c, fa_kv_spec *spec);
void fa_mamba1_bind(fa_binder *b, const fa_mamba1_cfg *c, fa_mamba1 *m, int layer);
/* h += scale * mixer(n) */
void fa_mamba1_add(fa_cx *cx, const fa_mamba1 *m, fa_tensor h, fa_tensor n, const fa_state *st, float scale);

#endif
