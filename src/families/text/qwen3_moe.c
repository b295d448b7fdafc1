/* Qwen 3 mixture of experts, and the text part of Qwen 3 VL MoE.
 *
 * Qwen 3's decoder (norms over query and key heads) with experts instead of the MLP: softmax over all of them, the best
 * num_experts_per_tok, their weights divided by their sum when norm_topk_prob is set. Reference: transformers
 * models/qwen3_moe and qwen3_vl_moe. What bites: norm_topk_prob is false when the key is absent, but the VL model
 * normalises always; layers of mlp_only_layers, and those that decoder_sparse_step skips, have a plain MLP of
 * intermediate_size; head_dim has no default of its own; a window holds for every layer; transformers 5 saves
 * num_local_experts; the VL checkpoints store their stacks transposed, [E, H, 2I] and [E, I, H], the text ones an
 * expert each, mlx stacks [E, out, in]. */
#include "blocks/dense.h"

#include <string.h>

/* Is this the text part of the VL model, whose config class has other defaults? */
static bool is_vl(fa_cfg *r) {
    const char *type = fa_jstr(fa_cfg_node(r, "model_type"), NULL);
    return r->text || (type && strncmp(type, "qwen3_vl_moe", 12) == 0);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_defaults defaults = {.vocab = 151936,
                                  .dim = 2048,
                                  .ff_dim = 6144,
                                  .n_layer = 24,
                                  .n_head = 32,
                                  .n_kv_head = 4,
                                  .max_ctx = 32768,
                                  .act_key = "hidden_act",
                                  .act = "silu"};
    const bool vl = is_vl(r);
    if (vl) {
        defaults.ff_dim = 5632;
        defaults.n_head = defaults.n_kv_head = 16;
        defaults.max_ctx = 128000;
        defaults.tied = true;
    }
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->qk_norm = true;
    bool slides = !vl && fa_cfg_bool(r, "use_sliding_window", false);
    int64_t window = fa_cfg_int(r, "sliding_window", 4096, 0, INT32_MAX);
    for (int64_t i = 0; slides && !r->err.code && i < c->n_layer; i++) c->window[i] = (int32_t)window;
    if (vl)
        fa_dense_qwen_experts(r, c, 60, 4, 1408);
    else
        fa_dense_qwen_experts(r, c, 128, 8, 768);
    c->moe.route.normalise = vl || fa_cfg_bool(r, "norm_topk_prob", false);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", vl ? 500000.0 : 10000.0), true);
}

const fa_family fa_family_qwen3_moe = {
    .name = "qwen3_moe",
    .model_types = "qwen3_moe,qwen3_vl_moe,qwen3_vl_moe_text",
    .archs = "Qwen3MoeForCausalLM,Qwen3VLMoeForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
