/* Granite 3 mixture of experts (granite-3.0/3.1-1b-a400m, 3b-a800m).
 *
 * Granite's decoder (four multipliers) with experts instead of the MLP: the best num_experts_per_tok by logits, softmax
 * over those. Reference: transformers models/granitemoe. What bites: all multipliers are 1 when absent, also
 * attention_multiplier, which stands where others have 1 / sqrt(head_dim); logits are divided by logits_scaling; one
 * stack input_linear [E, 2I, H] holds gates, then ups. */
#include "blocks/dense.h"

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_read(r, c, dims, &fa_dense_llama);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    fa_dense_granite_scales(r, c);
    fa_dense_granite_experts(r, c);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

/* as transformers 5 has them in memory */
static const fa_rename renames[] = {{"router.layer", "router"},
                                    {"input_linear", "experts.gate_up_proj"},
                                    {"output_linear", "experts.down_proj"},
                                    {NULL, NULL}};

const fa_family fa_family_granitemoe = {
    .name = "granitemoe",
    .model_types = "granitemoe",
    .archs = "GraniteMoeForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
