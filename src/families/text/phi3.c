/* Phi 3, 3.5 and 4: mini, medium, and Phi-4-mini. (Phi-3-small is another architecture.)
 *
 * Llama's decoder with q, k and v in one matrix, gate and up in another, a rotation of the leading part of each head,
 * and LongRoPE in the long-context checkpoints: short or long factors, by the sequence's length, and cosines and sines
 * scaled in both cases. Reference: transformers models/phi3. What bites: original_max_position_embeddings stands at the
 * root and wins over the dict's; old configs call LongRoPE "su" or "yarn"; sliding_window holds for every layer;
 * attention_bias means nothing. */
#include "blocks/dense.h"

static void bind_attn(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    int64_t q = c->n_head * c->head_dim, kv = c->n_kv_head * c->head_dim, all = q + 2 * kv;
    fa_part part = {.step = 1, .total = all};
    fa_bind_rows(b, &l->qkv.q, q, c->dim, FA_NO_BIAS, part, "model.layers.%d.self_attn.qkv_proj", i);
    part.from = q;
    fa_bind_rows(b, &l->qkv.k, kv, c->dim, FA_NO_BIAS, part, "model.layers.%d.self_attn.qkv_proj", i);
    part.from = q + kv;
    fa_bind_rows(b, &l->qkv.v, kv, c->dim, FA_NO_BIAS, part, "model.layers.%d.self_attn.qkv_proj", i);
    fa_bind_linear(b, &l->o, c->dim, q, FA_NO_BIAS, "model.layers.%d.self_attn.o_proj", i);
}

static void bind_mlp(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    fa_bind_halves(b, &l->gate, &l->up, c->ff_dim, c->dim, "model.layers.%d.mlp.gate_up_proj", i);
    fa_bind_linear(b, &l->down, c->dim, c->ff_dim, FA_NO_BIAS, "model.layers.%d.mlp.down_proj", i);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 32064,
                                               .dim = 3072,
                                               .ff_dim = 8192,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .max_ctx = 4096,
                                               .eps = 1e-5,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, c, dims, &defaults);
    c->bind_attn = bind_attn;
    c->bind_mlp = bind_mlp;
    int64_t window = fa_cfg_int(r, "sliding_window", 0, 0, INT32_MAX);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->window[i] = (int32_t)window;
    r->original_ctx = fa_cfg_int(r, "original_max_position_embeddings", 4096, 1, INT32_MAX);
    fa_cfg_partial_rope(r, &c->rope[0], NULL, c->head_dim, 1.0, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

const fa_family fa_family_phi3 = {
    .name = "phi3",
    .model_types = "phi3",
    .archs = "Phi3ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
