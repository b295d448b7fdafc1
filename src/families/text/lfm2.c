/* LFM2 and LFM2.5 (350M to 2.6B) and their mixture of experts (8B-A1B).
 *
 * A dense decoder in most of whose layers a gated short convolution stands in for attention:
 *
 *     [B | C | x] = in_proj(norm(h))      h += out_proj(C * conv(B * x))
 *
 * with a causal convolution of conv_L_cache steps per channel and no activation. The others attend with norms of each
 * head's q and k before rotation. lfm2_moe: experts from layer num_dense_layers on, chosen by sigmoid(router x) +
 * expert_bias, weighted by the sigmoids alone over (their sum + 1e-6). Reference: transformers models/lfm2,
 * models/lfm2_moe. What bites: model.embedding_norm is the final norm; the width of the MLP is two thirds of what the
 * config says, rounded up, unless block_auto_adjust_ff_dim is false (never in lfm2_moe), and block_ff_dim and
 * tie_embedding win over intermediate_size and tie_word_embeddings; without layer_types, full_attn_idxs lists the
 * layers with attention, and without both all have it; mlx has conv.conv.weight transposed, and renames w1, w2, w3 in
 * lfm2_moe, in dense layers too. */
#include "blocks/dense.h"

#include <string.h>

typedef struct short_conv_cfg {
    int64_t kernel;
    bool bias;
} short_conv_cfg;

typedef struct short_conv {
    fa_linear in, out; /* [3 dim, dim], [dim, dim] */
    fa_conv conv;      /* of dim channels */
    fa_gate times;     /* plain multiplication */
} short_conv;

static void mixer_bind(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    const short_conv_cfg *s = (const short_conv_cfg *)c->mix_cfg;
    fa_bias bias = s->bias ? FA_BIAS : FA_NO_BIAS;
    short_conv *w = (short_conv *)fa_bind_alloc(b, 1, sizeof *w);
    if (!w) return;
    fa_bind_linear(b, &w->in, 3 * c->dim, c->dim, bias, "model.layers.%d.conv.in_proj", i);
    fa_bind_conv(b, &w->conv, c->dim, s->kernel, bias, NULL, "model.layers.%d.conv.conv", i);
    fa_bind_linear(b, &w->out, c->dim, c->dim, bias, "model.layers.%d.conv.out_proj", i);
    w->times.act = FA_ACT_LINEAR;
    l->mix = w;
}

static void mixer_spec(const fa_dense_cfg *c, fa_kv_spec *spec) {
    const short_conv_cfg *s = (const short_conv_cfg *)c->mix_cfg;
    int64_t rows = s->kernel > 1 ? s->kernel - 1 : 1; /* a layer with neither keys nor a state would be none */
    *spec = (fa_kv_spec){.n_conv = rows * c->dim};
}

static void mixer_add(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h, const fa_state *st) {
    const short_conv *w = (const short_conv *)l->mix;
    fa_tensor bcx = fa_linear_op(cx, fa_norm_op(cx, h, &l->attn_norm), &w->in);
    fa_tensor x = fa_cols(cx, bcx, 2 * c->dim, c->dim);
    fa_gate_norm(cx, x, fa_from(cx, bcx, 0), &w->times);
    fa_tensor y = fa_conv_op(cx, fa_from(cx, x, 0), &w->conv, st);
    fa_gate_norm(cx, y, fa_from(cx, bcx, c->dim), &w->times);
    fa_tap(cx, "attn_out", y);
    fa_linear_add(cx, h, y, &w->out, NULL, c->residual_scale);
}

static const fa_dense_mixer mixer = {mixer_spec, mixer_bind, mixer_add};

/* ---- config ---- */

/* Layers that attend: layer_types, or the numbers in full_attn_idxs, or all. */
static void read_layers(fa_cfg *r, fa_dense_cfg *c) {
    static const fa_layer_kind names[] = {{"full_attention", 0}, {"conv", 1}, {NULL, 0}};
    const fa_jnode *full = fa_cfg_node(r, "full_attn_idxs");
    if (full && fa_jtype_of(full) != FA_JARR) fa_cfg_fail(r, "\"full_attn_idxs\" is no list");
    if (fa_cfg_layer_kinds(r, "layer_types", names, c->n_layer, c->layer_mix) || !full) return;
    memset(c->layer_mix, 1, (size_t)c->n_layer);
    for (const fa_jnode *n = fa_jfirst(full); n; n = fa_jnext(n)) {
        int64_t i = fa_jint(n, -1);
        if (i >= 0 && i < c->n_layer) c->layer_mix[i] = 0;
    }
}

/* What both types have in common. */
static void read_common(fa_cfg *r, fa_dense_cfg *c, fa_lm_dims *dims, const fa_dense_defaults *defaults) {
    fa_dense_read(r, c, dims, defaults);
    c->eps = fa_cfg_eps(r, "norm_eps", 1e-5);
    c->act = FA_ACT_SILU;
    c->qk_norm = true;
    dims->tied = c->tied = fa_cfg_bool(r, "tie_embedding", c->tied);
    short_conv_cfg *s = (short_conv_cfg *)fa_dense_mixers(r, c, sizeof *s, &mixer);
    if (!s) return;
    read_layers(r, c);
    s->kernel = fa_cfg_int(r, "conv_L_cache", 3, 1, 4096);
    s->bias = fa_cfg_bool(r, "conv_bias", false);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 1e6), true);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 65536,
                                               .dim = 2560,
                                               .ff_dim = 12288,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .n_kv_head = 8,
                                               .max_ctx = 128000,
                                               .act_key = "hidden_act",
                                               .act = "silu",
                                               .tied = true};
    read_common(r, c, dims, &defaults);
    int64_t ff = fa_cfg_int(r, "block_ff_dim", c->ff_dim, 1, 1 << 24);
    bool round = fa_cfg_node(r, "block_ffn_dim_multiplier") || !fa_cfg_has(r, "block_ffn_dim_multiplier");
    if (fa_cfg_bool(r, "block_auto_adjust_ff_dim", true)) {
        ff = 2 * ff / 3;
        double scaled = fa_cfg_num(r, "block_ffn_dim_multiplier", 1) * (double)ff;
        int64_t multiple = fa_cfg_int(r, "block_multiple_of", 256, 1, 1 << 24);
        if (!(scaled >= 0 && scaled <= 1 << 24)) {
            fa_cfg_fail(r, "\"block_ffn_dim_multiplier\" makes an MLP of %g", scaled);
            scaled = 1;
        }
        if (round) ff = ((int64_t)scaled + multiple - 1) / multiple * multiple;
    }
    if (ff < 1) fa_cfg_fail(r, "\"block_ff_dim\" makes an MLP of %lld", (long long)ff);
    dims->ff_dim = c->ff_dim = ff;
}

static void moe_config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 65536,
                                               .dim = 2048,
                                               .ff_dim = 7168,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .n_kv_head = 8,
                                               .max_ctx = 128000,
                                               .act_key = "hidden_act",
                                               .act = "silu",
                                               .tied = true};
    read_common(r, c, dims, &defaults);
    fa_moe_read(r, &c->moe, 32, 4);
    c->moe.ff_dim = fa_cfg_int(r, "moe_intermediate_size", 1792, 1, 1 << 24);
    c->moe.act = c->act;
    c->moe.route.score = FA_SCORE_SIGMOID;
    c->moe.route.normalise = fa_cfg_bool(r, "norm_topk_prob", true);
    c->moe.route.norm_eps = 1e-6f;
    c->moe.route.scale = (float)fa_cfg_num(r, "routed_scaling_factor", 1);
    c->moe.router = "feed_forward.gate";
    c->moe.block = "feed_forward";
    c->moe.score_bias = fa_cfg_bool(r, "use_expert_bias", true) ? "feed_forward.expert_bias" : NULL;
    c->moe.name[0] = "w1";
    c->moe.name[1] = "w3";
    c->moe.name[2] = "w2";
    fa_dense_all_experts(r, c);
    int64_t dense = fa_cfg_int(r, "num_dense_layers", 2, 0, INT32_MAX);
    for (int64_t i = 0; !r->err.code && i < c->n_layer && i < dense; i++) c->layer_moe[i] = 0;
}

static const fa_rename renames[] = {{"input_layernorm", "operator_norm"},
                                    {"post_attention_layernorm", "ffn_norm"},
                                    {"model.norm", "model.embedding_norm"},
                                    {"self_attn.q_norm", "self_attn.q_layernorm"},
                                    {"self_attn.k_norm", "self_attn.k_layernorm"},
                                    {"self_attn.o_proj", "self_attn.out_proj"},
                                    {"mlp.gate_proj", "feed_forward.w1"},
                                    {"mlp.up_proj", "feed_forward.w3"},
                                    {"mlp.down_proj", "feed_forward.w2"},
                                    {"mlp.", "feed_forward."}, /* mlx, dense layers of lfm2_moe */
                                    {NULL, NULL}};

const fa_family fa_family_lfm2 = {
    .name = "lfm2",
    .model_types = "lfm2",
    .archs = "Lfm2ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};

const fa_family fa_family_lfm2_moe = {
    .name = "lfm2_moe",
    .model_types = "lfm2_moe",
    .archs = "Lfm2MoeForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = moe_config,
    FA_DENSE_FORWARD,
};
