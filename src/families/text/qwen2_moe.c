/* Qwen 1.5 and 2 mixture of experts (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B).
 *
 * Qwen 2's decoder with experts instead of the MLP, and a shared expert that every token goes to, multiplied by
 * sigmoid(shared_expert_gate x). Softmax over all experts, the best num_experts_per_tok, not normalised unless
 * norm_topk_prob. Reference: transformers models/qwen2_moe. What bites: with use_sliding_window, windows are on every
 * other layer (0, 2, ...) below max_window_layers, not above as in Qwen 2; qkv_bias is true when absent; layers without
 * experts (decoder_sparse_step, mlp_only_layers) have an MLP of intermediate_size and no shared expert. */
#include "blocks/dense.h"

static bool early_even(const void *user, int64_t layer) { return layer % 2 == 0 && layer < *(const int64_t *)user; }

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 151936,
                                               .dim = 2048,
                                               .ff_dim = 5632,
                                               .n_layer = 24,
                                               .n_head = 16,
                                               .n_kv_head = 16,
                                               .max_ctx = 32768,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = fa_cfg_bool(r, "qkv_bias", true);
    bool slides = fa_cfg_bool(r, "use_sliding_window", false);
    int64_t window = fa_cfg_int(r, "sliding_window", 4096, 0, INT32_MAX),
            below = fa_cfg_int(r, "max_window_layers", 28, 0, INT32_MAX);
    fa_dense_windows(r, c, slides ? window : 0, early_even, &below);
    fa_dense_qwen_experts(r, c, 60, 4, 1408);
    c->moe.route.normalise = fa_cfg_bool(r, "norm_topk_prob", false);
    c->moe.shared_ff = fa_cfg_int(r, "shared_expert_intermediate_size", 5632, 1, 1 << 24);
    c->moe.shared_gate = true;
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

const fa_family fa_family_qwen2_moe = {
    .name = "qwen2_moe",
    .model_types = "qwen2_moe",
    .archs = "Qwen2MoeForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
