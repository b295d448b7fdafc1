/* Qwen 2 and 2.5.
 *
 * Llama's decoder with biases on q, k and v. Reference: transformers models/qwen2. What bites: sliding_window counts
 * only when use_sliding_window is set, and then from layer max_window_layers on (or as layer_types says); the embedding
 * table has more rows than the tokenizer has tokens. */
#include "blocks/dense.h"

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 151936,
                                               .dim = 4096,
                                               .ff_dim = 22016,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .n_kv_head = 32,
                                               .max_ctx = 32768,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = true;
    fa_dense_late_windows(r, c);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

const fa_family fa_family_qwen2 = {
    .name = "qwen2",
    .model_types = "qwen2",
    .archs = "Qwen2ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
