/* Qwen 3 Next, and the text part of Qwen 3.5 and 3.6, dense and with experts.
 *
 * Qwen 3's decoder in which three of four layers have a gated delta net (blocks/gdn.h) instead of attention, and
 * attention has an output gate: q_proj has a head's queries, then its gates, head by head, and attention's result is
 * multiplied by the sigmoid of the gates. Reference: transformers models/qwen3_next, qwen3_5 and qwen3_5_moe.
 *
 * What bites: norms multiply by 1 + w, but those of the delta net by w. mlx's conversion adds the 1; it is recognised
 * by the layout of the convolution, which the same conversion turns, and GGUF's says so itself. A quarter of each head
 * rotates when nothing is said. The three position axes of Qwen 3.5's interleaved rotation are equal on text, which
 * makes it the plain one. Without layer_types every full_attention_interval-th layer attends. Qwen 3.5 normalises the
 * weights of experts always; Qwen 3 Next has norm_topk_prob, layers with a plain MLP, and fused projections. Published
 * experts are fused stacks (3.5) or one by one (Next); transformers 5 saves them one by one. Layers for the prediction
 * of several tokens (mtp) and the vision tower are not used. GGUF has the value heads of Qwen 3.5 in another order. */
#include "blocks/gdn.h"

/* What stands behind fa_dense_cfg.mix_cfg. */
typedef struct hybrid_cfg {
    fa_gdn_cfg gdn; /* first, as the block looks for it */
    int64_t n_next; /* layers behind the others in GGUF, which predict further tokens */
} hybrid_cfg;

/* Rows of q_proj: a head's queries, then its gates. */
static void bind_attn(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    const int64_t hd = c->head_dim, rows = c->n_head * hd, kv = c->n_kv_head * hd;
    const fa_bias bias = c->qkv_bias ? FA_BIAS : FA_NO_BIAS;
    const fa_stripe q = {2 * hd, 0, hd}, gate = {2 * hd, hd, hd};
    fa_bind_stripes(b, &l->qkv.q, c->dim, 2 * rows, bias, 1, &q, "model.layers.%d.self_attn.q_proj", i);
    fa_bind_stripes(b, &l->attn_gate, c->dim, 2 * rows, bias, 1, &gate, "model.layers.%d.self_attn.q_proj", i);
    fa_bind_linear(b, &l->qkv.k, kv, c->dim, bias, "model.layers.%d.self_attn.k_proj", i);
    fa_bind_linear(b, &l->qkv.v, kv, c->dim, bias, "model.layers.%d.self_attn.v_proj", i);
    fa_bind_linear(b, &l->o, c->dim, rows, bias, "model.layers.%d.self_attn.o_proj", i);
}

static void bind(fa_binder *b, const void *cfg, void *weights) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)cfg;
    fa_dense *w = (fa_dense *)weights;
    bool mlx = false;
    fa_dense_bind(b, cfg, weights);
    for (int64_t i = 0; w->layer && i < c->n_layer; i++) mlx |= w->layer[i].mix && ((fa_gdn *)w->layer[i].mix)->mlx;
    if (mlx) fa_dense_norms_applied(c, w);
    for (int64_t i = 0; i < ((const hybrid_cfg *)c->mix_cfg)->n_next; i++) fa_bind_unused_layer(b, c->n_layer + i);
}

static bool between(const void *user, int64_t layer) { return (layer + 1) % *(const int64_t *)user != 0; }

/* What all three have. */
static void config_hybrid(fa_cfg *r, fa_dense_cfg *c, fa_lm_dims *dims, const fa_dense_defaults *d, fa_gdn_kind kind) {
    const fa_gdn_cfg defaults = {.kind = kind,
                                 .n_k_head = 16,
                                 .n_v_head = 32,
                                 .k_dim = 128,
                                 .v_dim = 128,
                                 .kernel = 4,
                                 .beta_scale = 1,
                                 .tiled = fa_cfg_bool(r, "ffai_linear_heads_tiled", false),
                                 .decay_applied = fa_cfg_bool(r, "ffai_decay_applied", false)};
    fa_dense_read(r, c, dims, d);
    hybrid_cfg *h = (hybrid_cfg *)fa_gdn_in_dense(r, c, sizeof *h);
    if (!h) return;
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->qk_norm = true;
    c->norm_offset = fa_cfg_bool(r, "ffai_norm_offset_applied", false) ? 0 : 1;
    c->bind_attn = bind_attn;
    int64_t interval = fa_cfg_int(r, "full_attention_interval", 4, 1, INT32_MAX);
    fa_gdn_read(r, &h->gdn, &defaults);
    h->gdn.norm_eps = c->eps;
    h->n_next = fa_cfg_int(r, "num_nextn_predict_layers", 0, 0, 65536);
    fa_gdn_layers(r, c, between, &interval);
    fa_cfg_partial_rope(r, &c->rope[0], NULL, c->head_dim, 0.25, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

static const fa_dense_defaults dense_defaults = {.vocab = 248320,
                                                 .dim = 4096,
                                                 .ff_dim = 12288,
                                                 .n_layer = 32,
                                                 .n_head = 16,
                                                 .n_kv_head = 4,
                                                 .head_dim = 256,
                                                 .max_ctx = 32768,
                                                 .act_key = "hidden_act",
                                                 .act = "silu"};

static void config_dense(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    config_hybrid(r, (fa_dense_cfg *)cfg, dims, &dense_defaults, FA_GDN_SPLIT);
}

static void shared_expert(fa_cfg *r, fa_dense_cfg *c) {
    c->moe.shared_ff = fa_cfg_int(r, "shared_expert_intermediate_size", 512, 1, 1 << 24);
    c->moe.shared_gate = true;
}

static void config_moe(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_defaults d = dense_defaults;
    d.dim = 2048;
    d.ff_dim = 512;
    d.n_layer = 40;
    d.n_kv_head = 2;
    config_hybrid(r, c, dims, &d, FA_GDN_SPLIT);
    fa_moe_read(r, &c->moe, 256, 8);
    c->moe.ff_dim = fa_cfg_int(r, "moe_intermediate_size", 512, 1, 1 << 24);
    c->moe.act = c->act;
    c->moe.route.normalise = true;
    shared_expert(r, c);
    fa_dense_all_experts(r, c);
    dims->ff_dim = c->moe.ff_dim;
}

static void config_next(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults d = {.vocab = 151936,
                                        .dim = 2048,
                                        .ff_dim = 5632,
                                        .n_layer = 48,
                                        .n_head = 16,
                                        .n_kv_head = 2,
                                        .head_dim = 256,
                                        .max_ctx = 32768,
                                        .act_key = "hidden_act",
                                        .act = "silu"};
    config_hybrid(r, c, dims, &d, FA_GDN_GROUPED);
    fa_dense_qwen_experts(r, c, 512, 10, 512);
    c->moe.route.normalise = fa_cfg_bool(r, "norm_topk_prob", true);
    shared_expert(r, c);
}

#define HYBRID                                                                                                         \
    .modality = "text", .task = "generate", .repos = "", .parity = true, .cfg_size = sizeof(fa_dense_cfg),             \
    .weights_size = sizeof(fa_dense), .bind = bind, .caches = fa_dense_caches, .embed = fa_dense_embed,                \
    .body = fa_dense_body, .norm = fa_dense_norm, .head = fa_dense_head

const fa_family fa_family_qwen3_5 = {
    .name = "qwen3_5",
    .model_types = "qwen3_5,qwen3_5_text",
    .archs = "Qwen3_5ForConditionalGeneration,Qwen3_5ForCausalLM",
    .config = config_dense,
    HYBRID,
};

const fa_family fa_family_qwen3_5_moe = {
    .name = "qwen3_5_moe",
    .model_types = "qwen3_5_moe,qwen3_5_moe_text",
    .archs = "Qwen3_5MoeForConditionalGeneration,Qwen3_5MoeForCausalLM",
    .config = config_moe,
    HYBRID,
};

const fa_family fa_family_qwen3_next = {
    .name = "qwen3_next",
    .model_types = "qwen3_next",
    .archs = "Qwen3NextForCausalLM",
    .config = config_next,
    HYBRID,
};
