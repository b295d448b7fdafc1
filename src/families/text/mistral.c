/* Mistral 7B v0.1-v0.3, Nemo, Ministral 8B, and the text part of Mistral Small 3 and Pixtral.
 *
 * Llama's decoder; sliding_window, when set, holds for every layer, or in the type ministral for those that layer_types
 * names. Reference: transformers models/mistral. What bites:
 * the key's default is 4096 when it is absent and null switches it off; head_dim of Nemo is not hidden / heads; GGUF
 * files are of architecture llama. */
#include "blocks/dense.h"

#include <string.h>

static bool every_layer(const void *user, int64_t layer) {
    (void)user;
    (void)layer;
    return true;
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 32000,
                                               .dim = 4096,
                                               .ff_dim = 14336,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .n_kv_head = 8,
                                               .max_ctx = 131072,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    int64_t window = fa_cfg_int(r, "sliding_window", fa_cfg_has(r, "sliding_window") ? 0 : 4096, 0, INT32_MAX);
    if (strcmp(fa_cfg_type(r), "ministral") == 0)
        fa_dense_windows(r, c, window, every_layer, NULL);
    else
        for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->window[i] = (int32_t)window;
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

/* Ministral 3: queries are multiplied by 1 + beta log(1 + floor(position / original context)). */
static void config_ministral3(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
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
    int64_t window = fa_cfg_int(r, "sliding_window", 0, 0, INT32_MAX);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->window[i] = (int32_t)window;
    if (!fa_cfg_node(r, "rope_parameters") && !fa_cfg_node(r, "rope_scaling"))
        fa_cfg_fail(r, "\"rope_parameters\" is missing");
    fa_dense_q_growth(r, c, dims->max_ctx);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 1e6), true);
}

const fa_family fa_family_mistral = {
    .name = "mistral",
    .model_types = "mistral,ministral,mistral3,pixtral",
    .archs = "MistralForCausalLM,MinistralForCausalLM,Mistral3ForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};

const fa_family fa_family_ministral3 = {
    .name = "ministral3",
    .model_types = "ministral3",
    .archs = "Ministral3ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config_ministral3,
    FA_DENSE_FORWARD,
};
