/* Nemotron-Labs-Diffusion 3B, 8B, 14B: one set of weights that goes on from left to right, or fills in blocks of masks.
 *
 * Ministral 3's decoder (YaRN, queries that grow with the position) under other names: encoder.*, and diffusion_head
 * for the output; mlx: language_model.model.*, language_model.diffusion_head. Read causally it is a language model like
 * any other; engine/diffuse.c does the rest, whose facts are mask_token_id and block_size. Reference: the published
 * description and mlx-vlm's models/nemotron_labs_diffusion; the code that comes with the checkpoints is not in
 * transformers. tools/fixtures/ref_nemotron_diffusion.py is both modes on transformers' Ministral 3.
 *
 * What bites: row i of a block predicts position i itself, not the one after it; keys of a block that is being filled
 * are not kept; logits of a prompt are the causal ones. Scales of an FP8 cache (k_scale, v_scale) are of no use here. A
 * YaRN factor may be below 1. */
#include "blocks/dense.h"

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 131072,
                                               .dim = 4096,
                                               .ff_dim = 14336,
                                               .n_layer = 34,
                                               .n_head = 32,
                                               .n_kv_head = 8,
                                               .head_dim = 128,
                                               .max_ctx = 262144,
                                               .eps = 1e-5,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    fa_dense_q_growth(r, c, dims->max_ctx);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 1e6), true);
    dims->mask_token = (int32_t)fa_cfg_int(r, "mask_token_id", 100, 0, c->vocab - 1);
    dims->block = (int32_t)fa_cfg_int(r, "block_size", 32, 1, 1 << 20);
}

static void bind(fa_binder *b, const void *cfg, void *w) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)cfg;
    fa_dense_bind(b, cfg, w);
    for (int i = 0; i < c->n_layer; i++) {
        fa_bind_unused(b, "model.layers.%d.self_attn.k_scale", i);
        fa_bind_unused(b, "model.layers.%d.self_attn.v_scale", i);
    }
}

static const fa_rename renames[] = {{"lm_head", "diffusion_head"}, {NULL, NULL}};

const fa_family fa_family_nemotron_diffusion = {
    .name = "nemotron_diffusion",
    .model_types = "nemotron_labs_diffusion",
    .archs = "NemotronLabsDiffusionModel",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    .cfg_size = sizeof(fa_dense_cfg),
    .weights_size = sizeof(fa_dense),
    .bind = bind,
    .caches = fa_dense_caches,
    .embed = fa_dense_embed,
    .body = fa_dense_body,
    .norm = fa_dense_norm,
    .head = fa_dense_head,
};
