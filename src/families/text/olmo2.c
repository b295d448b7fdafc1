/* OLMo 2 and 3.
 *
 * Llama's decoder with norms after attention and MLP instead of before, and RMS norms over the whole width of the query
 * and key projections before rotation. OLMo 3 adds windows on three of four layers; rope scaling (YaRN) is for its full
 * layers. Reference: transformers models/olmo2 and models/olmo3. What bites: the norms' width is heads * head_dim;
 * without layer_types every fourth layer is full; in the old spelling rope_theta is read for full layers only, the
 * others rotate with 5e5. */
#include "blocks/dense.h"

static void read_both(fa_cfg *r, fa_dense_cfg *c, fa_lm_dims *dims) {
    static const fa_dense_defaults defaults = {.vocab = 50304,
                                               .dim = 4096,
                                               .ff_dim = 11008,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .max_ctx = 2048,
                                               .eps = 1e-5,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->post_only = true;
    c->wide_qk_norm = true;
}

static void config_olmo2(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    read_both(r, c, dims);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

static bool not_every_fourth(const void *user, int64_t layer) {
    (void)user;
    return (layer + 1) % 4 != 0;
}

static void config_olmo3(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    read_both(r, c, dims);
    fa_dense_windows(r, c, fa_cfg_int(r, "sliding_window", 4096, 0, INT32_MAX), not_every_fourth, NULL);
    fa_cfg_rope(r, &c->rope[0], "full_attention", c->head_dim, fa_cfg_num(r, "rope_theta", 500000.0), true);
    fa_cfg_rope(r, &c->rope[1], "sliding_attention", c->head_dim, 500000.0, false);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->layer_rope[i] = c->window[i] > 0;
}

const fa_family fa_family_olmo2 = {
    .name = "olmo2",
    .model_types = "olmo2",
    .archs = "Olmo2ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config_olmo2,
    FA_DENSE_FORWARD,
};

const fa_family fa_family_olmo3 = {
    .name = "olmo3",
    .model_types = "olmo3",
    .archs = "Olmo3ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config_olmo3,
    FA_DENSE_FORWARD,
};
