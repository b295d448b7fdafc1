/* Qwen 3 (dense), and the text part of Qwen 3 VL.
 *
 * Llama's decoder without biases, with an RMS norm over every query and key head before rotation. Reference:
 * transformers models/qwen3. What bites: head_dim is 128 unless said otherwise, whatever hidden / heads is; windows as
 * in Qwen 2. */
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
                                               .head_dim = 128,
                                               .max_ctx = 32768,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->qk_norm = true;
    bool is_vl = strncmp(fa_cfg_type(r), "qwen3_vl", 8) == 0;
    if (!is_vl) fa_dense_late_windows(r, c, 28);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", is_vl ? 5e5 : 10000.0), true);
}

const fa_family fa_family_qwen3 = {
    .name = "qwen3",
    .model_types = "qwen3,qwen3_vl,qwen3_vl_text",
    .archs = "Qwen3ForCausalLM,Qwen3VLForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
