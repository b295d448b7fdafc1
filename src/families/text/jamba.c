/* Jamba (AI21: v0.1, 1.5, 1.6, 1.7, Reasoning 3B).
 *
 * The dense decoder with Mamba 1 mixers (blocks/mamba1.h, with norms of dt, B and C) in most layers, attention without
 * rotation in layers attn_layer_offset + k attn_layer_period, and experts instead of the MLP in layers
 * expert_layer_offset + k expert_layer_period. Reference: transformers models/jamba. What bites: experts are chosen by
 * a softmax over all of them, whose weights stay as they are (mlx-lm takes a softmax over the chosen ones, and counts
 * expert layers from the other end); with one expert every layer has an MLP; the second norm is pre_ff_layernorm, the
 * final one final_layernorm; GGUF files say which layers attend by their number of key heads. */
#include "blocks/mamba1.h"

#include <string.h>

/* Sets `is` in layers offset + k * period. */
static void every(fa_cfg *r, uint8_t *is, int64_t n_layer, const char *period, int64_t period_otherwise,
                  const char *offset, int64_t offset_otherwise, uint8_t value) {
    int64_t p = fa_cfg_int(r, period, period_otherwise, 1, INT32_MAX),
            o = fa_cfg_int(r, offset, offset_otherwise, 0, INT32_MAX);
    if (o >= p) fa_cfg_fail(r, "\"%s\" is %lld of %lld", offset, (long long)o, (long long)p);
    for (int64_t i = o; !r->err.code && i < n_layer; i += p) is[i] = value;
}

/* A list of the config that says for each layer whether it is one of those (GGUF). False: there is none. */
static bool listed(fa_cfg *r, uint8_t *is, int64_t n_layer, const char *key) {
    const fa_jnode *list = fa_cfg_node(r, key), *n = fa_jfirst(list);
    if (!list) return false;
    if ((int64_t)fa_jlen(list) < n_layer)
        fa_cfg_fail(r, "\"%s\" lists %zu of %lld layers", key, fa_jlen(list), (long long)n_layer);
    for (int64_t i = 0; !r->err.code && i < n_layer; i++, n = fa_jnext(n)) is[i] = fa_jbool(n, false);
    return true;
}

static void read_experts(fa_cfg *r, fa_dense_cfg *c) {
    const char *key = fa_cfg_node(r, "num_experts") ? "num_experts" : "num_local_experts";
    if (fa_cfg_int(r, key, 16, 0, 65536) < 2) return; /* whatever num_experts_per_tok says */
    fa_moe_read(r, &c->moe, 16, 2);
    c->moe.ff_dim = c->ff_dim;
    c->moe.act = c->act;
    c->moe.router = "feed_forward.router";
    c->moe.block = "feed_forward";
    c->layer_moe = (uint8_t *)fa_mem_calloc(r->mem, (size_t)c->n_layer, 1);
    if (!c->layer_moe) fa_cfg_no_memory(r);
    if (r->err.code || listed(r, c->layer_moe, c->n_layer, "ffai_expert_layers")) return;
    every(r, c->layer_moe, c->n_layer, "expert_layer_period", 2, "expert_layer_offset", 1, 1);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 65536,
                                               .dim = 4096,
                                               .ff_dim = 14336,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .n_kv_head = 8,
                                               .max_ctx = 262144,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    static const fa_mamba1_keys keys = {
        NULL, "mamba_expand", "mamba_d_state", "mamba_d_conv", "mamba_dt_rank", "mamba_proj_bias", "mamba_conv_bias"};
    fa_mamba1_cfg m = {.block = "mamba", .norms = true};
    fa_dense_read(r, c, dims, &defaults);
    m.eps = c->eps;
    fa_mamba1_read(r, &m, c->dim, &keys);
    fa_mamba1_mix(r, c, &m);
    if (r->err.code) return;
    if (!listed(r, c->layer_mix, c->n_layer, "ffai_mixer_layers")) {
        memset(c->layer_mix, 1, (size_t)c->n_layer);
        every(r, c->layer_mix, c->n_layer, "attn_layer_period", 8, "attn_layer_offset", 4, 0);
    }
    read_experts(r, c);
}

static const fa_rename renames[] = {{"post_attention_layernorm", "pre_ff_layernorm"},
                                    {"model.norm", "model.final_layernorm"},
                                    {"mlp.", "feed_forward."},
                                    {NULL, NULL}};

const fa_family fa_family_jamba = {
    .name = "jamba",
    .model_types = "jamba",
    .archs = "JambaForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
