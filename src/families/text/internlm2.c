/* InternLM 2 and 2.5.
 *
 * Llama under other names, with q, k and v of each group of heads side by side in wqkv: for key head g, the query heads
 * that share it, then its key and its value head. Reference: modeling_internlm2.py of the repositories (remote code)
 * and mlx-lm's internlm2.py. What bites: "bias" is true when the key is absent and is of wqkv and wo only; "dynamic"
 * scaling recomputes the base once the sequence is longer than max_position_embeddings; GGUF files split wqkv and
 * permute q and k rows for interleaved rotation. */
#include "blocks/dense.h"

/* The rows of one kind in wqkv: `per` heads of each group, from its head `first` on. */
static void bind_heads(fa_binder *b, const fa_dense_cfg *c, fa_linear *out, int64_t per, int64_t first, int i) {
    const int64_t hd = c->head_dim, total = (c->n_head + 2 * c->n_kv_head) * hd;
    const fa_stripe heads = {total / c->n_kv_head, first * hd, per * hd};
    fa_bind_stripes(b, out, c->dim, total, c->qkv_bias ? FA_BIAS : FA_NO_BIAS, 1, &heads,
                    "model.layers.%d.attention.wqkv", i);
}

static void bind_attn(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    int64_t share = c->n_head / c->n_kv_head;
    if (fa_bind_has(b, "model.layers.%d.self_attn.q_proj", i)) { /* GGUF */
        fa_dense_bind_attn(b, c, l, i);
        return;
    }
    bind_heads(b, c, &l->qkv.q, share, 0, i);
    bind_heads(b, c, &l->qkv.k, 1, share, i);
    bind_heads(b, c, &l->qkv.v, 1, share + 1, i);
    fa_bind_linear(b, &l->o, c->dim, c->n_head * c->head_dim, c->o_bias ? FA_BIAS : FA_NO_BIAS,
                   "model.layers.%d.self_attn.o_proj", i);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_defaults defaults = fa_dense_llama;
    defaults.vocab = 103168;
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "bias", true);
    c->bind_attn = bind_attn;
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

static const fa_rename renames[] = {{"model.embed_tokens", "model.tok_embeddings"},
                                    {"lm_head", "output"},
                                    {"self_attn.o_proj", "attention.wo"},
                                    {"mlp.gate_proj", "feed_forward.w1"},
                                    {"mlp.up_proj", "feed_forward.w3"},
                                    {"mlp.down_proj", "feed_forward.w2"},
                                    {"input_layernorm", "attention_norm"},
                                    {"post_attention_layernorm", "ffn_norm"},
                                    {NULL, NULL}};

const fa_family fa_family_internlm2 = {
    .name = "internlm2",
    .model_types = "internlm2",
    .archs = "InternLM2ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
