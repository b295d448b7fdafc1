/* Gemma 2: 2B, 9B and 27B.
 *
 * Gemma's decoder with four norms per layer, scores and logits capped by tanh, and windows on every other layer,
 * beginning with the first. Reference: transformers models/gemma2. What bites: attention is scaled by
 * query_pre_attn_scalar, not head_dim; scores are capped before they are masked; a cap that is absent has the config
 * class's value, one that is null is off; GGUF files hold 1 + w already. */
#include "blocks/dense.h"

#include <math.h>

static bool even(const void *user, int64_t layer) {
    (void)user;
    return layer % 2 == 0;
}

static float cap(fa_cfg *r, const char *key, double otherwise) {
    double v = fa_cfg_num(r, key, fa_cfg_has(r, key) ? 0 : otherwise);
    if (v < 0) fa_cfg_fail(r, "\"%s\" is %g, not positive", key, v);
    return (float)v;
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 256000,
                                               .dim = 2304,
                                               .ff_dim = 9216,
                                               .n_layer = 26,
                                               .n_head = 8,
                                               .n_kv_head = 4,
                                               .head_dim = 256,
                                               .max_ctx = 8192,
                                               .act_key = "hidden_activation",
                                               .act = "gelu_pytorch_tanh",
                                               .tied = true};
    fa_dense_read(r, c, dims, &defaults);
    c->norm_offset = fa_cfg_bool(r, "ffai_norm_offset_applied", false) ? 0.0f : 1.0f;
    c->embed_scale = sqrtf((float)c->dim);
    double scalar = fa_cfg_num(r, "query_pre_attn_scalar", 256);
    if (!(scalar > 0)) fa_cfg_fail(r, "\"query_pre_attn_scalar\" is %g, not positive", scalar);
    c->attn_scale = (float)(1 / sqrt(scalar));
    c->attn_softcap = cap(r, "attn_logit_softcapping", 50);
    c->final_softcap = cap(r, "final_logit_softcapping", 30);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->sandwich = true;
    if (fa_cfg_bool(r, "use_bidirectional_attention", false) && !fa_cfg_within(r, "paligemma"))
        fa_cfg_fail(r, "\"use_bidirectional_attention\" is not supported");
    int64_t window = fa_cfg_int(r, "sliding_window", fa_cfg_has(r, "sliding_window") ? 0 : 4096, 0, INT32_MAX);
    fa_dense_windows(r, c, window, even, NULL);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

const fa_family fa_family_gemma2 = {
    .name = "gemma2",
    .model_types = "gemma2,gemma2_text,paligemma",
    .archs = "Gemma2ForCausalLM,PaliGemmaForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
