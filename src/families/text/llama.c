/* Llama 2, 3, 3.1-3.3 and everything that is published as one: Yi, SmolLM 1 and 2, TinyLlama, ...
 *
 * The dense decoder (blocks/dense.h): RMS norms, grouped-query attention with half-split rotary embedding, SwiGLU.
 * Reference: transformers models/llama. What bites: tie_word_embeddings is false when the key is absent; attention_bias
 * puts biases on q, k, v and o; GGUF files store q and k rows permuted for interleaved rotation. */
#include "blocks/dense.h"

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_read(r, c, dims, &fa_dense_llama);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->mlp_bias = fa_cfg_bool(r, "mlp_bias", false);
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

/* Yi's first repositories */
static const fa_rename renames[] = {{"input_layernorm", "ln1"}, {"post_attention_layernorm", "ln2"}, {NULL, NULL}};

const fa_family fa_family_llama = {
    .name = "llama",
    .model_types = "llama,yi,Yi,smollm,smollm2,idefics3,smolvlm,llava",
    .archs = "LlamaForCausalLM,YiForCausalLM,Idefics3ForConditionalGeneration,SmolVLMForConditionalGeneration,"
             "LlavaForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
