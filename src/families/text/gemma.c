/* Gemma 1: 2B and 7B, 1.0 and 1.1, CodeGemma, and the text part of PaliGemma, which is run causally.
 *
 * The dense decoder with (1 + w) norms, tanh-GELU, embeddings scaled by sqrt(hidden) and a head_dim of its own (256).
 * Reference: transformers models/gemma. What bites: "hidden_act": "gelu" of the first checkpoints means the tanh form
 * (and "hidden_activation" beside it is not read any more); GGUF files hold 1 + w already. */
#include "blocks/dense.h"

#include <math.h>

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 256000,
                                               .dim = 3072,
                                               .ff_dim = 24576,
                                               .n_layer = 28,
                                               .n_head = 16,
                                               .n_kv_head = 16,
                                               .head_dim = 256,
                                               .max_ctx = 8192,
                                               .act_key = "hidden_act",
                                               .act = "gelu_pytorch_tanh",
                                               .tied = true};
    fa_dense_read(r, c, dims, &defaults);
    if (c->act == FA_ACT_GELU_ERF) c->act = FA_ACT_GELU_TANH;
    c->norm_offset = fa_cfg_bool(r, "ffai_norm_offset_applied", false) ? 0.0f : 1.0f;
    c->embed_scale = sqrtf((float)c->dim);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    if (fa_cfg_bool(r, "use_bidirectional_attention", false) && !fa_cfg_within(r, "paligemma"))
        fa_cfg_fail(r, "\"use_bidirectional_attention\" is not supported");
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

const fa_family fa_family_gemma = {
    .name = "gemma",
    .model_types = "gemma,paligemma",
    .archs = "GemmaForCausalLM,PaliGemmaForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
