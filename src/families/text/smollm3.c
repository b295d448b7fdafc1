/* SmolLM 3.
 *
 * Llama's decoder in which some layers do not rotate queries and keys at all. Reference: transformers models/smollm3.
 * What bites: no_rope_layers holds 1 where a layer does rotate; without the list every no_rope_layer_interval-th layer
 * does not; rope_theta is 2e6 when absent; embeddings are tied when the key is absent; layer_types decides about
 * windows, and without it use_sliding_window puts them on the layers that do not rotate; GGUF files store q and k rows
 * permuted for interleaved rotation, and llama.cpp takes the interval to be 4. */
#include "blocks/dense.h"

enum { ROTATES = 0, STILL = 1 }; /* fa_dense_cfg.rope: the second has no pairs */

static void read_still_layers(fa_cfg *r, fa_dense_cfg *c) {
    const fa_jnode *list = fa_cfg_node(r, "no_rope_layers"), *n = fa_jfirst(list);
    int64_t every = fa_cfg_int(r, "no_rope_layer_interval", 4, 1, INT32_MAX);
    if (r->err.code) return;
    if (list && (int64_t)fa_jlen(list) < c->n_layer) {
        fa_cfg_fail(r, "\"no_rope_layers\" lists %zu of %lld layers", fa_jlen(list), (long long)c->n_layer);
        return;
    }
    for (int64_t i = 0; i < c->n_layer; i++, n = list ? fa_jnext(n) : NULL) {
        bool rotates =
            list ? fa_jtype_of(n) == FA_JBOOL ? fa_jbool(n, true) : fa_jint(n, 1) != 0 : (i + 1) % every != 0;
        c->layer_rope[i] = rotates ? ROTATES : STILL;
    }
}

static bool is_still(const void *user, int64_t layer) {
    return ((const fa_dense_cfg *)user)->layer_rope[layer] == STILL;
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 128256,
                                               .dim = 2048,
                                               .ff_dim = 11008,
                                               .n_layer = 36,
                                               .n_head = 16,
                                               .n_kv_head = 4,
                                               .max_ctx = 32768,
                                               .act_key = "hidden_act",
                                               .act = "silu",
                                               .tied = true};
    fa_dense_read(r, c, dims, &defaults);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->mlp_bias = fa_cfg_bool(r, "mlp_bias", false);
    read_still_layers(r, c);
    bool slides = fa_cfg_bool(r, "use_sliding_window", false);
    fa_dense_windows(r, c, fa_cfg_int(r, "sliding_window", 0, 0, INT32_MAX), slides ? is_still : NULL, c);
    fa_cfg_rope(r, &c->rope[ROTATES], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 2e6), true);
}

const fa_family fa_family_smollm3 = {
    .name = "smollm3",
    .model_types = "smollm3",
    .archs = "SmolLM3ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .config = config,
    FA_DENSE_FORWARD,
};
