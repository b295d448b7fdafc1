/* Nemotron H, Nemotron Nano v2 and Nemotron 3 (Nano, Super).
 *
 * Every layer is h += mixer(norm(h)) with one mixer: a Mamba 2 mixer (M, blocks/mamba2.h), attention without rotation
 * (*), an MLP down(relu(up x)^2) (-), or experts of that kind (E). Experts: s = sigmoid(router x) in f32; the choice by
 * s + e_score_correction_bias among the topk_group best of n_group groups; weights s / (their sum + 1e-20) * scale;
 * with moe_latent_size they work between fc1_latent_proj and fc2_latent_proj, the router and the shared expert do not.
 * Reference: transformers models/nemotron_h. What bites: the list of layers decides how many there are, not
 * num_hidden_layers, and is spelt in three ways (hybrid_override_pattern "M-*E", layers_block_type, layer_types, of
 * mamba or linear_attention, attention or full_attention, mlp, moe); time steps are clamped to time_step_min from below
 * and time_step_limit counts for nothing; a bias of projections is use_bias in Mamba mixers, mlp_bias in MLPs, none in
 * attention; mlx names stacks of experts switch_mlp.fc1 and fc2. */
#include "blocks/mamba2.h"

#include <math.h>
#include <string.h>

/* layer_mix; 0: attention */
enum { MAMBA = 1, MLP, EXPERTS };

typedef struct mixer {
    int kind;
    fa_mamba2 mamba;
    fa_moe_layer moe;
    fa_linear up, down, none; /* [ff_dim, dim], [dim, ff_dim], no rows */
} mixer;

/* ---- weights and forward ---- */

static void mixer_bind(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    mixer *m = (mixer *)fa_bind_alloc(b, 1, sizeof *m);
    fa_bias bias = c->mlp_bias ? FA_BIAS : FA_NO_BIAS;
    if (!m) return;
    m->kind = c->layer_mix[i];
    l->mix = m;
    if (m->kind == MAMBA) {
        fa_mamba2_bind(b, (const fa_mamba2_cfg *)c->mix_cfg, &m->mamba, NULL, "model.layers.%d.mixer", i);
    } else if (m->kind == EXPERTS) {
        fa_moe_bind(b, &c->moe, &m->moe, c->dim, i);
    } else {
        fa_bind_linear(b, &m->up, c->ff_dim, c->dim, bias, "model.layers.%d.mixer.up_proj", i);
        fa_bind_linear(b, &m->down, c->dim, c->ff_dim, bias, "model.layers.%d.mixer.down_proj", i);
    }
}

static void mixer_add(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h, const fa_state *st) {
    const mixer *m = (const mixer *)l->mix;
    if (m->kind == MLP) {
        fa_tensor g = fa_norm_mlp_up(cx, h, &l->attn_norm, &m->up, &m->none, c->act);
        fa_linear_add(cx, h, g, &m->down, NULL, 1);
        return;
    }
    fa_tensor n = fa_norm_op(cx, h, &l->attn_norm);
    if (m->kind == EXPERTS)
        fa_moe_layer_add(cx, h, n, &m->moe, 1);
    else
        fa_mamba2_add(cx, (const fa_mamba2_cfg *)c->mix_cfg, &m->mamba, h, n, st, 1);
}

static void caches(const void *cfg, fa_kv_spec *spec) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)cfg;
    for (int64_t i = 0; i < c->n_layer; i++) {
        spec[i] = (fa_kv_spec){0};
        if (c->layer_mix[i] == MAMBA) fa_mamba2_spec((const fa_mamba2_cfg *)c->mix_cfg, &spec[i]);
        if (!c->layer_mix[i]) spec[i] = (fa_kv_spec){.n_head = c->n_kv_head, .head_dim = c->head_dim};
    }
}

static void bind(fa_binder *b, const void *cfg, void *weights) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)cfg;
    fa_dense_bind(b, cfg, weights);
    fa_bind_unused_layer(b, c->n_layer); /* GGUF: what predicts further tokens */
}

/* ---- config ---- */

static const fa_layer_kind names[] = {{"mamba", MAMBA}, {"linear_attention", MAMBA},
                                      {"attention", 0}, {"full_attention", 0},
                                      {"mlp", MLP},     {"moe", EXPERTS},
                                      {"M", MAMBA},     {"*", 0},
                                      {"-", MLP},       {"E", EXPERTS},
                                      {NULL, 0}};

/* "M*-E" into kind[n] */
static void read_pattern(fa_cfg *r, const char *key, const char *pattern, size_t n, uint8_t *kind) {
    static const char letters[] = "*M-E"; /* as kinds are counted */
    for (size_t i = 0; i < n; i++) {
        const char *at = (const char *)memchr(letters, pattern[i], sizeof letters - 1);
        if (!at) fa_cfg_fail(r, "\"%s\": layer %zu is \"%c\"", key, i, pattern[i]);
        kind[i] = at ? (uint8_t)(at - letters) : 0;
    }
}

/* n_layer and layer_mix; what is said nowhere: one layer of each kind. The mixer's config, to be filled, or NULL. */
static fa_mamba2_cfg *read_layers(fa_cfg *r, fa_dense_cfg *c) {
    static const fa_dense_mixer hooks = {NULL, mixer_bind, mixer_add}; /* caches below knows the states */
    const char *key = "layers_block_type", *pattern = "ME*-";
    const fa_jnode *list = fa_cfg_node(r, key);
    if (!list) list = fa_cfg_node(r, key = "layer_types");
    if (!list) list = fa_cfg_node(r, key = "hybrid_override_pattern");
    if (list) pattern = fa_jstr(list, NULL);
    size_t n = pattern ? strlen(pattern) : fa_jlen(list);
    if (n < 1 || n > 4096) {
        fa_cfg_fail(r, "\"%s\" lists no layers", key);
        pattern = "M";
        n = 1;
    }
    c->n_layer = (int64_t)n;
    c->layer_rope = (uint8_t *)fa_mem_calloc(r->mem, n, 1);
    c->window = (int32_t *)fa_mem_calloc(r->mem, n, sizeof *c->window);
    if (!c->layer_rope || !c->window) fa_cfg_no_memory(r);
    fa_mamba2_cfg *m = (fa_mamba2_cfg *)fa_dense_mixers(r, c, sizeof *m, &hooks);
    if (!m) return NULL;
    if (pattern)
        read_pattern(r, key, pattern, n, c->layer_mix);
    else
        fa_cfg_layer_kinds(r, key, names, c->n_layer, c->layer_mix);
    return m;
}

static bool any(const fa_dense_cfg *c, int kind) {
    return c->layer_mix && memchr(c->layer_mix, kind, (size_t)c->n_layer) != NULL;
}

/* A key under its older name, if the config has that. */
static const char *older(fa_cfg *r, const char *old, const char *key) { return fa_cfg_node(r, old) ? old : key; }

static void read_mamba(fa_cfg *r, const fa_dense_cfg *c, fa_mamba2_cfg *m) {
    const fa_mamba2_keys keys = {.n_head = "mamba_num_heads",
                                 .head_dim = "mamba_head_dim",
                                 .n_state = "ssm_state_size",
                                 .n_group = older(r, "mamba_n_groups", "n_groups"),
                                 .kernel = older(r, "mamba_d_conv", "conv_kernel"),
                                 .conv_bias = older(r, "mamba_conv_bias", "use_conv_bias"),
                                 .in_bias = "use_bias",
                                 .act = "mamba_hidden_act"};
    *m = (fa_mamba2_cfg){.dim = c->dim,
                         .n_head = 128,
                         .head_dim = 64,
                         .n_state = 128,
                         .n_group = 8,
                         .kernel = 4,
                         .norm = true,
                         .eps = c->eps,
                         .conv_bias = true};
    fa_mamba2_read(r, m, &keys);
    m->dt_min = (float)fa_cfg_num(r, older(r, "mamba_dt_min", "time_step_min"), 0.001);
    m->dt_max = INFINITY;
    if (!(m->dt_min >= 0)) fa_cfg_fail(r, "\"time_step_min\" is %g", (double)m->dt_min);
}

static void read_experts(fa_cfg *r, fa_dense_cfg *c) {
    fa_moe_cfg *m = &c->moe;
    const char *count = older(r, "num_local_experts", "n_routed_experts");
    int64_t n = fa_cfg_int(r, count, 8, 1, 65536), used = fa_cfg_int(r, "num_experts_per_tok", 2, 1, 65536),
            groups = fa_cfg_int(r, "n_group", 1, 1, 65536), of = fa_cfg_int(r, "topk_group", 1, 1, 65536);
    if (n % groups || of > groups || used > n / groups * of)
        fa_cfg_fail(r, "%lld of %lld experts cannot be chosen from %lld of %lld groups", (long long)used, (long long)n,
                    (long long)of, (long long)groups);
    m->route = (fa_route){.n_expert = (int)n,
                          .n_used = (int)used,
                          .n_group = (int)groups,
                          .n_group_used = (int)of,
                          .score = FA_SCORE_SIGMOID,
                          .normalise = fa_cfg_bool(r, "norm_topk_prob", true),
                          .norm_eps = 1e-20f,
                          .scale = (float)fa_cfg_num(r, "routed_scaling_factor", 1)};
    m->ff_dim = fa_cfg_int(r, "moe_intermediate_size", 7688, 1, 1 << 24);
    m->shared_ff = fa_cfg_int(r, "moe_shared_expert_intermediate_size", 7688, 1, 1 << 24);
    m->latent = fa_cfg_node(r, "moe_latent_size") ? fa_cfg_int(r, "moe_latent_size", 0, 1, 1 << 20) : 0;
    m->act = c->act;
    m->plain = true;
    m->shared_bias = c->mlp_bias;
    m->router = "mixer.gate";
    m->score_bias = "mixer.gate.e_score_correction_bias";
    m->block = "mixer";
    m->shared = "mixer.shared_experts";
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_mamba2_cfg *mamba = read_layers(r, c);
    if (!mamba) return;
    c->dim = fa_cfg_int(r, "hidden_size", 4096, 1, 1 << 20);
    c->vocab = fa_cfg_int(r, "vocab_size", 131072, 1, 1 << 26);
    c->n_head = fa_cfg_int(r, "num_attention_heads", 32, 1, 65536);
    int64_t kv = fa_cfg_has(r, "num_key_value_heads") ? c->n_head : 8; /* of null */
    c->n_kv_head = fa_cfg_int(r, "num_key_value_heads", kv, 1, 65536);
    c->head_dim = fa_cfg_int(r, fa_cfg_node(r, "head_dim") ? "head_dim" : "attention_head_dim", 128, 1, 4096);
    c->ff_dim = fa_cfg_int(r, "intermediate_size", 21504, 1, 1 << 24);
    c->eps = fa_cfg_eps(r, "layer_norm_epsilon", 1e-5);
    c->act = fa_cfg_act(r, "mlp_hidden_act", "relu2");
    c->mlp_bias = fa_cfg_bool(r, "mlp_bias", false);
    c->tied = fa_cfg_tied(r, false);
    c->embed_scale = c->residual_scale = c->logit_scale = 1;
    c->attn_scale = 1 / sqrtf((float)c->head_dim);
    c->no_mlp = true;
    if (!r->err.code && c->n_head % c->n_kv_head)
        fa_cfg_fail(r, "num_attention_heads %lld is no multiple of num_key_value_heads %lld", (long long)c->n_head,
                    (long long)c->n_kv_head);
    read_mamba(r, c, mamba);
    if (any(c, EXPERTS)) read_experts(r, c);
    *dims = (fa_lm_dims){.n_layer = c->n_layer,
                         .dim = c->dim,
                         .n_head = c->n_head,
                         .n_kv_head = c->n_kv_head,
                         .head_dim = c->head_dim,
                         .ff_dim = c->ff_dim,
                         .vocab = c->vocab,
                         .max_ctx = fa_cfg_int(r, "max_position_embeddings", 4096, 1, INT32_MAX),
                         .tied = c->tied};
}

static const fa_rename renames[] = {{"embed_tokens", "embeddings"},
                                    {"input_layernorm", "norm"},
                                    {"model.norm", "model.norm_f"},
                                    {"self_attn.", "mixer."},
                                    {NULL, NULL}};

const fa_family fa_family_nemotron_h = {
    .name = "nemotron_h",
    .model_types = "nemotron_h",
    .archs = "NemotronHForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .cfg_size = sizeof(fa_dense_cfg),
    .weights_size = sizeof(fa_dense),
    .config = config,
    .bind = bind,
    .caches = caches,
    .embed = fa_dense_embed,
    .body = fa_dense_body,
    .norm = fa_dense_norm,
    .head = fa_dense_head,
};
