/* The Mamba 2 mixer (Dao, Gu 2024) as Mamba 2, Granite 4, Falcon H1 and Nemotron H have it. Of normalised rows n:
 *
 *     [z | u | dt] = in_proj n [* in_scale]      [x | B | C] = act(conv(u))      y = scan(x, dt, B, C)
 *     y = norm(y * silu(z)), norm(y) * silu(z), or y * silu(z)                    mixer(n) = out_proj y
 *
 * The norm is one of n_group groups of columns. The scan is fa_ssd (backend/program.h). */
#ifndef FA_BLOCKS_MAMBA2_H
#define FA_BLOCKS_MAMBA2_H

#include "blocks/dense.h"

typedef struct fa_mamba2_cfg {
    int64_t dim;   /* of the rows that come in and go out */
    int64_t width; /* n_head * head_dim */
    int64_t n_head, head_dim, n_state, n_group, kernel;
    bool norm;       /* behind the scan; without: y * silu(z) */
    bool norm_first; /* ... before the gate */
    double eps;
    float dt_min, dt_max;
    bool in_bias, out_bias, conv_bias;
    fa_act_fn act;      /* behind the convolution; the gate is always SiLU */
    bool decay_applied; /* A_log is -exp(A_log) already: GGUF */
    const char *block;  /* in a dense decoder: what stands behind "model.layers.N." */
} fa_mamba2_cfg;

/* Names of a family's keys; a NULL (never act) is not looked for. */
typedef struct fa_mamba2_keys {
    const char *n_head, *head_dim, *n_state, *n_group, *kernel, *conv_bias, *in_bias, *act;
} fa_mamba2_keys;

/* Those of Granite 4 and Falcon H1. */
extern const fa_mamba2_keys fa_mamba2_hybrid_keys;

typedef struct fa_mamba2 {
    fa_linear in;  /* [2 * width + 2 * n_group * n_state + n_head, dim]: z, x, B, C, dt */
    fa_linear out; /* [dim, width] */
    fa_conv conv;  /* of x, B, C */
    fa_ssd scan;
    fa_gate gate;
    const float *in_scale; /* [rows of in] the family's, or NULL */
} fa_mamba2;

/* What c holds stands for keys that are absent. head_dim "auto", or 0: width / n_head; width 0: n_head * head_dim.
 * in_bias sets out_bias as well. Then time_step_limit, and ffai_decay_applied. */
void fa_mamba2_read(fa_cfg *r, fa_mamba2_cfg *c, const fa_mamba2_keys *k);
/* Rows of in_proj. */
int64_t fa_mamba2_in_rows(const fa_mamba2_cfg *c);
/* Tensors below the name that fmt makes, "model.layers.%d.mamba"; *mlx (or NULL): see fa_bind_conv. */
void fa_mamba2_bind(fa_binder *b, const fa_mamba2_cfg *c, fa_mamba2 *l, bool *mlx, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Sets the sizes of the recurrent state; a layer with attention beside it has the rest of spec as well. */
void fa_mamba2_spec(const fa_mamba2_cfg *c, fa_kv_spec *spec);
/* y of normalised rows: [n_tok, width], what out_proj is to take. */
fa_tensor fa_mamba2_scan(fa_cx *cx, const fa_mamba2_cfg *c, const fa_mamba2 *l, fa_tensor n, const fa_state *st);
/* h += scale * mixer(n) */
void fa_mamba2_add(fa_cx *cx, const fa_mamba2_cfg *c, const fa_mamba2 *l, fa_tensor h, fa_tensor n, const fa_state *st,
                   float scale);

/* ---- in layers of the dense decoder ---- */
/* Gives c a mixer's config to be filled (fa_dense_mixers). NULL after an error. */
fa_mamba2_cfg *fa_mamba2_in_dense(fa_cfg *r, fa_dense_cfg *c);

#endif
