/* OLMo Hybrid.
 *
 * OLMo 3's decoder in which three of four layers have a gated delta net (blocks/gdn.h) instead of attention. Reference:
 * transformers models/olmo_hybrid. What bites: layers that attend have norms after attention and MLP, the others norms
 * before them, under other names in published files; q, k and v of the delta net have a projection and a convolution
 * each; beta is between 0 and 2 unless linear_allow_neg_eigval is false; the delta net's norm has an epsilon of its
 * own, 1e-5; a rope_theta of null, which the published model has, means no rotation at all, an absent one 10000; key
 * heads are 3/4 of hidden_size wide together, value heads twice as wide, when nothing is said. */
#include "blocks/gdn.h"

/* Does the config say that nothing rotates? */
static bool unrotated(fa_cfg *r) {
    const fa_jnode *own = fa_jget(fa_cfg_node(r, "rope_parameters"), "rope_theta");
    if (!own) own = fa_jget(fa_cfg_node(r, "rope_scaling"), "rope_theta");
    return own ? fa_jtype_of(own) == FA_JNULL : fa_cfg_has(r, "rope_theta") && !fa_cfg_node(r, "rope_theta");
}

/* The last one attends where no fourth one does. */
static bool not_every_fourth(const void *user, int64_t layer) {
    int64_t n_layer = *(const int64_t *)user;
    return layer % 4 != 3 && (n_layer > 3 || layer != n_layer - 1);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 100352,
                                               .dim = 3840,
                                               .ff_dim = 11008,
                                               .n_layer = 32,
                                               .n_head = 30,
                                               .max_ctx = 65536,
                                               .eps = 1e-6,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    fa_gdn_cfg *gdn = (fa_gdn_cfg *)fa_gdn_in_dense(r, c, sizeof *gdn);
    if (!gdn) return;
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->post_only = true;
    c->wide_qk_norm = true;
    fa_gdn_cfg d = {.kind = FA_GDN_EACH, .n_k_head = (int)c->n_head, .n_v_head = (int)c->n_head, .kernel = 4};
    d.k_dim = (int)(3 * c->dim / (4 * fa_cfg_int(r, "linear_num_key_heads", c->n_head, 1, 65536)));
    d.norm_eps = 1e-5;
    d.beta_scale = fa_cfg_bool(r, "linear_allow_neg_eigval", true) ? 2 : 1;
    fa_gdn_read(r, gdn, &d);
    fa_gdn_layers(r, c, not_every_fourth, &c->n_layer);
    if (!unrotated(r)) fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

static const fa_rename renames[] = {
    {"input_layernorm", "attention_layer_norm"}, {"post_attention_layernorm", "feedforward_layer_norm"}, {NULL, NULL}};

const fa_family fa_family_olmo_hybrid = {
    .name = "olmo_hybrid",
    .model_types = "olmo_hybrid",
    .archs = "OlmoHybridForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
