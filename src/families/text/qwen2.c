/* Qwen 2 and 2.5, and the text part of Qwen 2 VL, 2.5 VL and FastVLM.
 *
 * Llama's decoder with biases on q, k and v. Text has the same position on all three axes of the VL models' rotation,
 * so it is the plain one. Reference: transformers models/qwen2, models/qwen2_vl, models/qwen2_5_vl. What bites:
 * sliding_window counts only when use_sliding_window is set, and then from layer max_window_layers on (or as
 * layer_types says); the embedding table has more rows than the tokenizer has tokens. */
#include "blocks/dense.h"

#include <string.h>

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
    static const fa_dense_defaults vl = {.vocab = 152064,
                                         .dim = 8192,
                                         .ff_dim = 29568,
                                         .n_layer = 80,
                                         .n_head = 64,
                                         .n_kv_head = 8,
                                         .max_ctx = 32768,
                                         .eps = 1e-5,
                                         .act_key = "hidden_act",
                                         .act = "silu"};
    bool is_vl = strncmp(fa_cfg_type(r), "qwen2_vl", 8) == 0 || strncmp(fa_cfg_type(r), "qwen2_5_vl", 10) == 0;
    fa_dense_read(r, c, dims, is_vl ? &vl : &defaults);
    c->qkv_bias = true;
    fa_dense_late_windows(r, c, is_vl ? 80 : 28);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", is_vl ? 1e6 : 10000.0), true);
}

const fa_family fa_family_qwen2 = {
    .name = "qwen2",
    .model_types = "qwen2,qwen2_vl,qwen2_vl_text,qwen2_5_vl,qwen2_5_vl_text,llava_qwen2,fast_vlm",
    .archs = "Qwen2ForCausalLM,Qwen2VLForConditionalGeneration,Qwen2_5_VLForConditionalGeneration,"
             "LlavaQwen2ForCausalLM,FastVlmForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
