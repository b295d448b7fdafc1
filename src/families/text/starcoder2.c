/* Starcoder 2: 3B, 7B and 15B.
 *
 * The dense decoder with LayerNorm (weights and biases), biases on every projection, a plain MLP
 * c_proj(gelu(c_fc(x))) and, when sliding_window is set, a window on every layer. Reference: transformers
 * models/starcoder2. What bites: the norm's key is norm_epsilon; use_bias is true when absent and never concerns the
 * norms; embeddings are tied when the key is absent; GGUF files do not tell the window. */
#include "blocks/dense.h"

static void bind_mlp(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    const fa_bias bias = c->mlp_bias ? FA_BIAS : FA_NO_BIAS;
    fa_bind_linear(b, &l->gate, c->ff_dim, c->dim, bias, "model.layers.%d.mlp.c_fc", i);
    fa_bind_linear(b, &l->down, c->dim, c->ff_dim, bias, "model.layers.%d.mlp.c_proj", i);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 49152,
                                               .dim = 3072,
                                               .ff_dim = 12288,
                                               .n_layer = 30,
                                               .n_head = 24,
                                               .n_kv_head = 2,
                                               .max_ctx = 4096,
                                               .act_key = "hidden_act",
                                               .act = "gelu_pytorch_tanh",
                                               .tied = true};
    fa_dense_read(r, c, dims, &defaults);
    c->eps = fa_cfg_eps(r, "norm_epsilon", 1e-5);
    c->layer_norm = c->norm_bias = true;
    c->plain_mlp = true;
    c->bind_mlp = bind_mlp;
    c->qkv_bias = c->o_bias = c->mlp_bias = fa_cfg_bool(r, "use_bias", true);
    int64_t window = fa_cfg_int(r, "sliding_window", 0, 0, INT32_MAX);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->window[i] = (int32_t)window;
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

/* as they come out of GGUF */
static const fa_rename renames[] = {{"mlp.c_fc", "mlp.up_proj"}, {"mlp.c_proj", "mlp.down_proj"}, {NULL, NULL}};

const fa_family fa_family_starcoder2 = {
    .name = "starcoder2",
    .model_types = "starcoder2",
    .archs = "Starcoder2ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
