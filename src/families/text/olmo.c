/* OLMo 1: 1B, 7B, 7B-Twin-2T, 7B-0424 (1.7), in HuggingFace's layout and in that of the original hf_olmo package.
 *
 * Llama's decoder with LayerNorm that has neither weights nor biases, and q, k and v clamped to clip_qkv where it is
 * set. Reference: transformers models/olmo. What bites: the norm's eps is 1e-5 and no key of transformers says
 * otherwise; checkpoints hold no norm at all; GGUF files store q and k rows permuted for interleaved rotation.
 *
 * The original layout (model_type hf_olmo, or olmo with an architecture OLMo...) has keys of its own (d_model, n_heads,
 * ...), tensors model.transformer.blocks.N.{att_proj, attn_out, ff_proj, ff_out} and model.transformer.{wte, ff_out}.
 * att_proj is q, k and v; ff_proj is up before gate and mlp_hidden_size counts both; the rows of the embedding are
 * embedding_size, not vocab_size. Facts: ai2-olmo's olmo/config.py and model.py, and transformers' script that converts
 * these checkpoints. */
#include "blocks/dense.h"

#include <math.h>
#include <string.h>

/* Options of the original code that no published model uses would be another model. */
static void refuse_others(fa_cfg *r) {
    static const struct {
        const char *key;
        bool must;
    } flags[] = {{"alibi", false},
                 {"rope", true},
                 {"include_bias", false},
                 {"layer_norm_with_affine", false},
                 {"attention_layer_norm", false}};
    static const struct {
        const char *key, *one, *two;
    } words[] = {{"block_type", "sequential", "sequential"},
                 {"activation_type", "swiglu", "swiglu"},
                 {"layer_norm_type", "default", "low_precision"}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (fa_cfg_bool(r, flags[i].key, flags[i].must) != flags[i].must)
            fa_cfg_fail(r, "\"%s\": %s is not supported", flags[i].key, flags[i].must ? "false" : "true");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const fa_jnode *n = fa_cfg_node(r, words[i].key);
        const char *s = n ? fa_jstr(n, NULL) : words[i].one;
        if (!s) s = "(no string)";
        if (strcmp(s, words[i].one) != 0 && strcmp(s, words[i].two) != 0)
            fa_cfg_fail(r, "\"%s\": \"%s\" is not supported (\"%s\" is)", words[i].key, s, words[i].one);
    }
}

/* The original keys, as defaults of those of HuggingFace. */
static void read_original(fa_cfg *r, fa_dense_defaults *d) {
    refuse_others(r);
    d->dim = fa_cfg_int(r, "d_model", 768, 1, 1 << 20);
    d->n_layer = fa_cfg_int(r, "n_layers", 12, 1, 4096);
    d->n_head = fa_cfg_int(r, "n_heads", 12, 1, 65536);
    d->n_kv_head =
        fa_cfg_int(r, "n_kv_heads", fa_cfg_bool(r, "multi_query_attention", false) ? 1 : d->n_head, 1, 65536);
    int64_t ratio = fa_cfg_int(r, "mlp_ratio", 4, 1, 1024);
    d->ff_dim = fa_cfg_int(r, "mlp_hidden_size", ratio * d->dim, 2, 1 << 25) / 2;
    d->max_ctx = fa_cfg_int(r, "max_sequence_length", 1024, 1, INT32_MAX);
    d->tied = fa_cfg_bool(r, "weight_tying", true);
}

static bool is_original(fa_binder *b) { return fa_bind_has(b, "model.transformer.wte"); }

static void bind_attn(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    static const char name[] = "model.transformer.blocks.%d.att_proj";
    if (!is_original(b)) {
        fa_dense_bind_attn(b, c, l, i);
        return;
    }
    int64_t q = c->n_head * c->head_dim, kv = c->n_kv_head * c->head_dim, all = q + 2 * kv;
    fa_bind_rows(b, &l->qkv.q, q, c->dim, FA_NO_BIAS, (fa_part){.from = 0, .step = 1, .total = all}, name, i);
    fa_bind_rows(b, &l->qkv.k, kv, c->dim, FA_NO_BIAS, (fa_part){.from = q, .step = 1, .total = all}, name, i);
    fa_bind_rows(b, &l->qkv.v, kv, c->dim, FA_NO_BIAS, (fa_part){.from = q + kv, .step = 1, .total = all}, name, i);
    fa_bind_linear(b, &l->o, c->dim, q, FA_NO_BIAS, "model.transformer.blocks.%d.attn_out", i);
}

static void bind_mlp(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    static const char name[] = "model.transformer.blocks.%d.ff_proj";
    if (!is_original(b)) {
        fa_dense_bind_mlp(b, c, l, i);
        return;
    }
    const fa_part up = {.from = 0, .step = 1, .total = 2 * c->ff_dim},
                  gate = {.from = c->ff_dim, .step = 1, .total = 2 * c->ff_dim};
    fa_bind_rows(b, &l->up, c->ff_dim, c->dim, FA_NO_BIAS, up, name, i);
    fa_bind_rows(b, &l->gate, c->ff_dim, c->dim, FA_NO_BIAS, gate, name, i);
    fa_bind_linear(b, &l->down, c->dim, c->ff_dim, FA_NO_BIAS, "model.transformer.blocks.%d.ff_out", i);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_defaults d = {.vocab = 50304,
                           .dim = 4096,
                           .ff_dim = 11008,
                           .n_layer = 32,
                           .n_head = 32,
                           .max_ctx = 2048,
                           .act_key = "hidden_act",
                           .act = "silu"};
    const bool original = fa_cfg_node(r, "d_model") != NULL;
    if (original) read_original(r, &d);
    fa_dense_read(r, c, dims, &d);
    if (original) c->vocab = dims->vocab = fa_cfg_int(r, "embedding_size", c->vocab, 1, 1 << 26);
    if (original && fa_cfg_bool(r, "scale_logits", false)) c->logit_scale = (float)(1 / sqrt((double)c->dim));
    c->eps = original ? fa_cfg_eps(r, "layer_norm_eps", 1e-5) : 1e-5;
    c->layer_norm = c->norm_bare = true;
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    double clip = fa_cfg_num(r, "clip_qkv", INFINITY);
    if (!(clip > 0)) fa_cfg_fail(r, "\"clip_qkv\" is %g, not positive", clip);
    c->clip_qkv = isinf(clip) ? 0 : (float)clip;
    c->bind_attn = bind_attn;
    c->bind_mlp = bind_mlp;
    fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
}

static const fa_rename renames[] = {
    {"model.embed_tokens", "model.transformer.wte"}, {"lm_head", "model.transformer.ff_out"}, {NULL, NULL}};

const fa_family fa_family_olmo = {
    .name = "olmo",
    .model_types = "olmo,hf_olmo",
    .archs = "OlmoForCausalLM,OLMoForCausalLM,OLMoModelForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
