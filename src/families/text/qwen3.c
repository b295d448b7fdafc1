/* Qwen 3 (dense).
 *
 * Llama's decoder without biases, with an RMS norm over every query and key head before rotation. Reference:
 * transformers models/qwen3. What bites: head_dim is 128 unless said otherwise, whatever hidden / heads is; windows as
 * in Qwen 2. */
#include "blocks/dense.h"

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 151936,
                                               .dim = 4096,
                                               .ff_dim = 22016,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .n_kv_head = 32,
                                               .head_dim = 128,
                                               .max_ctx = 32768,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->qk_norm = true;
    fa_dense_late_windows(r, c);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

const fa_family fa_family_qwen3 = {
    .name = "qwen3",
    .model_types = "qwen3",
    .archs = "Qwen3ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
