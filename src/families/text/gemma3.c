#define _GNU_SOURCE
/* Gemma 3 text, 270M to 27B, also as the text part of the multimodal checkpoints.
 *
 * The dense decoder with four norms per layer of the (1 + w) kind, norms over query and key heads, tanh-GELU,
 * embeddings scaled by sqrt(hidden), and windows on five of six layers. Window layers rotate with rope_local_base_freq
 * unscaled; full layers with rope_theta and its scaling. Reference: transformers models/gemma3. What bites: attention
 * is scaled by query_pre_attn_scalar, not head_dim; GGUF files hold 1 + w already; text_config of the multimodal
 * checkpoints is sparse. transformers rounds the embedding scale to the dtype it runs in; like its f32 runs, this does
 * not. */
#include "blocks/dense.h"

#include <math.h>

static bool not_every_nth(const void *user, int64_t layer) { return (layer + 1) % *(const int64_t *)user != 0; }

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 262208,
                                               .dim = 2304,
                                               .ff_dim = 9216,
                                               .n_layer = 26,
                                               .n_head = 8,
                                               .n_kv_head = 4,
                                               .head_dim = 256,
                                               .max_ctx = 131072,
                                               .act_key = "hidden_activation",
                                               .act = "gelu_pytorch_tanh",
                                               .tied = true};
    fa_dense_read(r, c, dims, &defaults);
    c->norm_offset = fa_cfg_bool(r, "ffai_norm_offset_applied", false) ? 0.0f : 1.0f;
    c->embed_scale = sqrtf((float)c->dim);
    double scalar = fa_cfg_num(r, "query_pre_attn_scalar", 256);
    if (!(scalar > 0)) fa_cfg_fail(r, "\"query_pre_attn_scalar\" is %g, not positive", scalar);
    c->attn_scale = (float)(1 / sqrt(scalar));
    /* as transformers 5 runs them: attn_logit_softcapping never, final_logit_softcapping only in the text class */
    c->final_softcap = r->text ? 0 : (float)fa_cfg_num(r, "final_logit_softcapping", 0);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->qk_norm = true;
    c->sandwich = true;
    if (fa_cfg_bool(r, "use_bidirectional_attention", false))
        fa_cfg_fail(r, "\"use_bidirectional_attention\" is not supported");
    int64_t nth = fa_cfg_int(r, "sliding_window_pattern", 6, 1, INT32_MAX);
    fa_dense_windows(r, c, fa_cfg_int(r, "sliding_window", 4096, 0, INT32_MAX), not_every_nth, &nth);
    fa_cfg_rope(r, &c->rope[0], "full_attention", c->head_dim, fa_cfg_num(r, "rope_theta", 1e6), true);
    fa_cfg_rope(r, &c->rope[1], "sliding_attention", c->head_dim, fa_cfg_num(r, "rope_local_base_freq", 1e4), false);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->layer_rope[i] = c->window[i] > 0;
}

const fa_family fa_family_gemma3 = {
    .name = "gemma3",
    .model_types = "gemma3_text,gemma3",
    .archs = "Gemma3ForCausalLM,Gemma3ForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "google/gemma-3-270m",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
