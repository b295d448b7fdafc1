/* Mixtral 8x7B and 8x22B, and other mixtures of Mistral models.
 *
 * Mistral's decoder with experts instead of the MLP: softmax over all of them, the best num_experts_per_tok, weights
 * divided by their sum. Reference: transformers models/mixtral. What bites: an expert's matrices are w1 (gate), w3 (up)
 * and w2 (down) under block_sparse_moe; sliding_window is null unless set, and then holds for every layer; rope_theta
 * is 1e6 and rms_norm_eps 1e-5 when absent; GGUF files are of architecture llama. */
#include "blocks/dense.h"

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
    if (!fa_cfg_node(r, "rms_norm_eps")) c->eps = 1e-5;
    int64_t window = fa_cfg_int(r, "sliding_window", 0, 0, INT32_MAX);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->window[i] = (int32_t)window;
    fa_moe_read(r, &c->moe, 8, 2);
    c->moe.ff_dim = c->ff_dim;
    c->moe.act = c->act;
    c->moe.route.normalise = true;
    c->moe.router = "block_sparse_moe.gate";
    c->moe.block = "block_sparse_moe";
    c->moe.name[0] = "w1";
    c->moe.name[1] = "w3";
    c->moe.name[2] = "w2";
    fa_dense_all_experts(r, c);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 1e6), true);
}

/* as transformers 5 has them in memory */
static const fa_rename renames[] = {{"block_sparse_moe.", "mlp."}, {NULL, NULL}};

const fa_family fa_family_mixtral = {
    .name = "mixtral",
    .model_types = "mixtral",
    .archs = "MixtralForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
