/* GPT-OSS 20B and 120B.
 *
 * A decoder with biases on all projections, windows on every other layer (0, 2, ...), YaRN, a sink logit per head that
 * takes part in the softmax of the attention and nothing else, and experts instead of the MLP: router with bias, the
 * best num_experts_per_tok by logits, softmax over those; gate and up are clamped to swiglu_limit and the product is
 * gate sigmoid(1.702 gate) (up + 1). Reference: transformers models/gpt_oss. What bites: rows of the fused gate_up
 * alternate (gate, up, gate, ...); published experts are mxfp4 blocks with rows first, float ones transposed
 * ([E, H, 2I] and [E, I, H], also where that is square); mlx splits gate and up into stacks of their own; YaRN with
 * "truncate": false. */
#include "blocks/dense.h"

#include <math.h>

static bool even(const void *user, int64_t layer) {
    (void)user;
    return layer % 2 == 0;
}

static void bind_attn(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    fa_dense_bind_attn(b, c, l, i);
    l->sink = fa_bind_vector(b, c->n_head, 0, "model.layers.%d.self_attn.sinks", i);
}

static void experts(fa_cfg *r, fa_dense_cfg *c) {
    fa_moe_read(r, &c->moe, 128, 4);
    double alpha = fa_cfg_num(r, "swiglu_alpha", 1.702), limit = fa_cfg_num(r, "swiglu_limit", 7);
    if (fabs(alpha - 1.702) > 1e-6) fa_cfg_fail(r, "\"swiglu_alpha\" is %g: only 1.702 is known", alpha);
    if (!(limit > 0)) fa_cfg_fail(r, "\"swiglu_limit\" is %g, not positive", limit);
    c->moe.ff_dim = c->ff_dim;
    c->moe.act = FA_ACT_GELU_QUICK;
    c->moe.limit = (float)limit;
    c->moe.route.score = FA_SCORE_TOP_SOFTMAX;
    c->moe.router = "mlp.router";
    c->moe.router_bias = c->moe.expert_bias = true;
    c->moe.interleaved = c->moe.turned = c->moe.own_fused = true;
    fa_dense_all_experts(r, c);
}

/* YaRN also where the config does not speak of it. */
static void read_rope(fa_cfg *r, fa_dense_cfg *c) {
    static const char own[] = "{\"rope_type\":\"yarn\",\"factor\":32,\"beta_fast\":32,\"beta_slow\":1,"
                              "\"truncate\":false,\"original_max_position_embeddings\":4096}";
    fa_json *doc = NULL;
    if (!r->err.code) fa_json_parse(&doc, own, sizeof own - 1, "rope", &r->err);
    r->rope_default = fa_json_root(doc);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 150000.0), true);
    r->rope_default = NULL;
    fa_json_free(doc);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 201088,
                                               .dim = 2880,
                                               .ff_dim = 2880,
                                               .n_layer = 36,
                                               .n_head = 64,
                                               .n_kv_head = 8,
                                               .head_dim = 64,
                                               .max_ctx = 131072,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    if (!fa_cfg_node(r, "rms_norm_eps")) c->eps = 1e-5;
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", true);
    c->bind_attn = bind_attn;
    fa_dense_windows(r, c, fa_cfg_int(r, "sliding_window", 128, 0, INT32_MAX), even, NULL);
    experts(r, c);
    read_rope(r, c);
}

const fa_family fa_family_gpt_oss = {
    .name = "gpt_oss",
    .model_types = "gpt_oss",
    .archs = "GptOssForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
