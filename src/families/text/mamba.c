/* Mamba 1 (state-spaces/mamba-*-hf) and Falcon Mamba.
 *
 * Layers are a norm and a mixer (blocks/mamba1.h), nothing else. References: transformers models/mamba, falcon_mamba,
 * which differ in the norms of dt, B and C, without weights in the latter. What bites: intermediate_size, where the
 * config has one, is the mixer's width whatever expand says (falcon-mamba-7b: 16); embeddings are tied unless the
 * config says otherwise; the final norm is norm_f; first checkpoints say "embedding". */
#include "blocks/mamba1.h"

#include <string.h>

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {
        .vocab = 50280, .dim = 768, .n_layer = 32, .max_ctx = 1 << 20, .eps = 1e-5, .tied = true};
    static const fa_mamba1_keys keys = {"intermediate_size", "expand",   "state_size",   "conv_kernel",
                                        "time_step_rank",    "use_bias", "use_conv_bias"};
    fa_mamba1_cfg m = {.block = "mixer", .bare = true};
    fa_dense_read_mixers(r, c, dims, &defaults);
    fa_mamba1_read(r, &m, c->dim, &keys);
    m.norms = strcmp(fa_cfg_type(r), "falcon_mamba") == 0;
    m.eps = fa_cfg_eps(r, "mixer_rms_eps", 1e-6);
    fa_mamba1_mix(r, c, &m);
    if (!r->err.code) memset(c->layer_mix, 1, (size_t)c->n_layer);
}

static const fa_rename renames[] = {{"embed_tokens", "embeddings"},
                                    {"embed_tokens", "embedding"},
                                    {"input_layernorm", "norm"},
                                    {"model.norm", "model.norm_f"},
                                    {NULL, NULL}};

const fa_family fa_family_mamba = {
    .name = "mamba",
    .model_types = "mamba,falcon_mamba",
    .archs = "MambaForCausalLM,FalconMambaForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
