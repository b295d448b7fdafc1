/* Granite 3 (dense): 2B, 8B, 3.0 to 3.3, and the older Granite Code models of the type.
 *
 * Llama's decoder with four multipliers: the embedding is multiplied by embedding_multiplier, scores by
 * attention_multiplier (instead of 1 / sqrt(head_dim)), what each half of a layer adds by residual_multiplier, and
 * logits are divided by logits_scaling. Reference: transformers models/granite. What bites: each of them is 1 when its
 * key is absent, attention_multiplier too; loaded as Llama the models speak fluent nonsense; GGUF files store q and k
 * rows permuted for interleaved rotation. */
#include "blocks/dense.h"

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_read(r, c, dims, &fa_dense_llama);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->mlp_bias = fa_cfg_bool(r, "mlp_bias", false);
    fa_dense_granite_scales(r, c);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

const fa_family fa_family_granite = {
    .name = "granite",
    .model_types = "granite",
    .archs = "GraniteForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
