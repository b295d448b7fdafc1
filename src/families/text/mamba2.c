/* Mamba 2 (state-spaces/mamba2-* as converted for transformers, Mamba-Codestral 7B).
 *
 * Every layer is h += mixer(norm(h)), the mixer that of blocks/mamba2.h: no attention, no MLP, no positions. Reference:
 * transformers models/mamba2. What bites: B and C are shared by groups of heads, and the gated norm behind the scan is
 * one of n_groups groups of columns (as in mamba_ssm; mlx and transformers before 5.x normalise all columns together,
 * which differs when n_groups > 1); the width is expand * hidden_size and must be num_heads * head_dim; time_step_limit
 * is [0, Infinity], which is no JSON. */
#include "blocks/mamba2.h"

#include <string.h>

static const fa_mamba2_keys keys = {.n_head = "num_heads",
                                    .head_dim = "head_dim",
                                    .n_state = "state_size",
                                    .n_group = "n_groups",
                                    .kernel = "conv_kernel",
                                    .conv_bias = "use_conv_bias",
                                    .in_bias = "use_bias",
                                    .act = "hidden_act"};

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {
        .vocab = 32768, .dim = 4096, .n_layer = 64, .max_ctx = 1 << 20, .eps = 1e-5};
    fa_dense_read_mixers(r, c, dims, &defaults);
    fa_mamba2_cfg *m = fa_mamba2_in_dense(r, c);
    if (!m) return;
    *m = (fa_mamba2_cfg){.dim = c->dim,
                         .width = fa_cfg_int(r, "expand", 2, 1, 1024) * c->dim,
                         .n_head = 128,
                         .head_dim = 64,
                         .n_state = 128,
                         .n_group = 8,
                         .kernel = 4,
                         .norm = true,
                         .eps = c->eps,
                         .conv_bias = true,
                         .block = "mixer"};
    fa_mamba2_read(r, m, &keys);
    memset(c->layer_mix, 1, (size_t)c->n_layer);
}

static const fa_rename renames[] = {{"embed_tokens", "embeddings"},
                                    {"embed_tokens", "embedding"},
                                    {"input_layernorm", "norm"},
                                    {"model.norm", "model.norm_f"},
                                    {NULL, NULL}};

const fa_family fa_family_mamba2 = {
    .name = "mamba2",
    .model_types = "mamba2",
    .archs = "Mamba2ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
