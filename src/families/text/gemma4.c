#define _GNU_SOURCE
/* Gemma 4 text, E2B to 31B and 26B-A4B, also as the text part of the multimodal checkpoints (gemma4, gemma4_unified).
 *
 * Gemma 3's skeleton with plain (w, not 1 + w) norms. What is new, each where the config has it: two kinds of layers
 * (window and full attention) with heads of different sizes and numbers; values normalised without a weight; values
 * that are the raw key projection (attention_k_eq_v); last layers without keys and values, which read those of the last
 * layer of their kind that has some; embeddings per layer, mixed into the residual stream after the MLP; experts beside
 * the MLP; a factor per layer. Per layer, r being the stream:
 *
 *     r += post_attention_layernorm(attention(input_layernorm(r)))              scores are not scaled
 *     m  = mlp(pre_feedforward_layernorm(r))
 *     m  = post_feedforward_layernorm_1(m) + post_feedforward_layernorm_2(experts(pre_feedforward_layernorm_2(r)))
 *     r += post_feedforward_layernorm(m)
 *     r += post_per_layer_input_norm(per_layer_projection(act(per_layer_input_gate(r)) * p))
 *     r *= layer_scalar
 *
 * with p = (norm(per_layer_model_projection(e) / sqrt(dim)) + embed_tokens_per_layer[id] * sqrt(len)) / sqrt(2), e the
 * scaled embedding. The router sees norm(r) * scale / sqrt(dim). Reference: transformers models/gemma4. What bites: the
 * last layer attends fully whatever layer_types says; per_layer_config (transformers 5) replaces global_head_dim and
 * num_global_key_value_heads; layers without keys may have them in the checkpoint all the same. */
#include "blocks/dense.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { FULL, SLIDING, N_KIND } kind; /* indexes dense.rope */

typedef struct config {
    fa_dense_cfg dense;         /* n_kv_head and head_dim: of window layers */
    int64_t *n_kv_head;         /* [n_layer] */
    int64_t *head_dim;          /* [n_layer] */
    int32_t *shared;            /* [n_layer] 1 + the layer whose keys and values it reads; 0: its own */
    int64_t ple_dim, ple_vocab; /* of embeddings per layer; 0: none */
    bool k_is_v, wide_mlp;      /* in full layers; in layers without keys */
    bool moe;
} config;

typedef struct layer {
    fa_norm attn_norm, post_attn_norm, mlp_norm, post_mlp_norm; /* [dim] */
    fa_norm q_norm, k_norm, v_norm;                             /* [head_dim] */
    fa_qkv qkv;                                                 /* k, v without rows: another layer's; v may be k */
    fa_linear o;                                                /* [dim, n_head * head_dim] */
    fa_linear gate, up;                                         /* [ff_dim or 2 * ff_dim, dim] */
    fa_linear down;
    fa_linear ple_gate, ple;                                      /* [ple_dim, dim], [dim, ple_dim] */
    fa_norm ple_norm;                                             /* [dim] */
    fa_norm mlp_norm_1, moe_norm_2, post_moe_norm_2, router_norm; /* [dim], with experts */
    fa_moe_layer *moe;
    float scalar;
} layer;

typedef struct weights {
    fa_dense dense;        /* its layers are not used */
    fa_weight ple_embed;   /* [ple_vocab, n_layer * ple_dim] */
    fa_linear ple_project; /* [n_layer * ple_dim, dim] */
    fa_norm ple_norm;      /* [ple_dim] */
    layer *layer;
} weights;

/* ---- config ---- */

static bool is_null(const fa_cfg *r, const char *key) {
    const fa_jnode *n = fa_jget(r->text, key);
    if (!n) n = fa_jget(r->root, key);
    return n && fa_jtype_of(n) == FA_JNULL;
}

/* A number of which null means that the feature is off. */
static int64_t optional(fa_cfg *r, const char *key, int64_t otherwise, int64_t max) {
    return is_null(r, key) ? 0 : fa_cfg_int(r, key, otherwise, 0, max);
}

static bool not_every_sixth(const void *user, int64_t i) {
    (void)user;
    return (i + 1) % 6 != 0;
}

/* Overrides of transformers 5 by layer number: {"5": {"head_dim": 512}}. */
static void read_overrides(fa_cfg *r, config *c, const fa_jnode *all) {
    if (fa_jtype_of(all) != FA_JOBJ) fa_cfg_fail(r, "\"per_layer_config\" is no object");
    for (const fa_jnode *l = fa_jfirst(all); l && !r->err.code; l = fa_jnext(l)) {
        const char *key = fa_jkey(l, NULL);
        char *end;
        long long i = strtoll(key, &end, 10);
        if (end == key || *end || i < 0 || i >= c->dense.n_layer || fa_jtype_of(l) != FA_JOBJ) {
            fa_cfg_fail(r, "\"per_layer_config\": \"%.40s\" describes no layer", key);
            return;
        }
        for (const fa_jnode *v = fa_jfirst(l); v && !r->err.code; v = fa_jnext(v)) {
            const char *name = fa_jkey(v, NULL);
            bool dim = strcmp(name, "head_dim") == 0, heads = strcmp(name, "num_key_value_heads") == 0;
            int64_t n = fa_jint(v, 0);
            if (!dim && !heads)
                fa_cfg_fail(r, "\"per_layer_config\": \"%.40s\" of layer %lld is not supported", name, i);
            else if (n < 1 || n > 65536)
                fa_cfg_fail(r, "\"per_layer_config\": \"%s\" of layer %lld is %lld", name, i, (long long)n);
            else
                *(dim ? &c->head_dim[i] : &c->n_kv_head[i]) = n;
        }
    }
}

static void read_heads(fa_cfg *r, config *c) {
    const fa_dense_cfg *d = &c->dense;
    const fa_jnode *overrides = fa_cfg_node(r, "per_layer_config");
    int64_t full_dim = is_null(r, "global_head_dim") ? d->head_dim : fa_cfg_int(r, "global_head_dim", 512, 1, 4096);
    int64_t full_kv = fa_cfg_int(r, "num_global_key_value_heads", d->n_kv_head, 1, 65536);
    for (int64_t i = 0; i < d->n_layer; i++) {
        bool full = !d->window[i];
        c->head_dim[i] = full && !overrides ? full_dim : d->head_dim;
        c->n_kv_head[i] = full && !overrides && c->k_is_v ? full_kv : d->n_kv_head;
    }
    if (overrides) read_overrides(r, c, overrides);
    int64_t dim[N_KIND] = {0};
    for (int64_t i = 0; i < d->n_layer && !r->err.code; i++) {
        int64_t *of_kind = &dim[d->layer_rope[i]];
        if (!*of_kind) *of_kind = c->head_dim[i];
        if (c->head_dim[i] % 2 || c->head_dim[i] > 4096 || c->head_dim[i] != *of_kind)
            fa_cfg_fail(r, "layer %lld: heads of %lld: odd, too large, or not %lld as in layers of its kind",
                        (long long)i, (long long)c->head_dim[i], (long long)*of_kind);
        else if (d->n_head % c->n_kv_head[i])
            fa_cfg_fail(r, "layer %lld: %lld query heads for %lld key and value heads", (long long)i,
                        (long long)d->n_head, (long long)c->n_kv_head[i]);
    }
}

/* The last n layers read the cache of the last layer of their kind before them. */
static void read_sharing(fa_cfg *r, config *c, int64_t n) {
    const fa_dense_cfg *d = &c->dense;
    int32_t last[N_KIND] = {0};
    for (int64_t i = 0; i < d->n_layer && !r->err.code; i++) {
        int32_t *source = &last[d->layer_rope[i]];
        if (i < d->n_layer - n)
            *source = (int32_t)(i + 1);
        else if (!*source)
            fa_cfg_fail(r, "\"num_kv_shared_layers\" is %lld: no layer is left whose keys layer %lld could read",
                        (long long)n, (long long)i);
        else if (c->n_kv_head[i] != c->n_kv_head[*source - 1])
            fa_cfg_fail(r, "layer %lld reads the keys of layer %d, but has other heads", (long long)i, *source - 1);
        else
            c->shared[i] = *source;
    }
}

static void read_ropes(fa_cfg *r, config *c) {
    static const char *const name[N_KIND] = {"full_attention", "sliding_attention"};
    fa_dense_cfg *d = &c->dense;
    for (int k = 0; k < N_KIND && !r->err.code; k++) {
        int64_t i = 0;
        while (i < d->n_layer && d->layer_rope[i] != k) i++;
        if (i == d->n_layer) continue; /* no such layer: no rotation table either */
        fa_cfg_rope(r, &d->rope[k], name[k], c->head_dim[i], k == FULL ? 1e6 : 1e4, k == FULL);
        if (r->err.code || k != FULL || fa_cfg_node(r, "rope_parameters") || r->rope_factors) continue;
        /* without the key, a quarter of the pairs rotates */
        float *inv = (float *)fa_mem_calloc(r->mem, (size_t)d->rope[k].n_pair, sizeof *inv);
        if (!inv) {
            fa_cfg_no_memory(r);
            return;
        }
        memcpy(inv, d->rope[k].inv_freq, (size_t)(d->rope[k].n_pair / 4) * sizeof *inv);
        d->rope[k].inv_freq = inv;
    }
}

static void read_moe(fa_cfg *r, config *c) {
    fa_moe_cfg *m = &c->dense.moe;
    c->moe = fa_cfg_bool(r, "enable_moe_block", false);
    if (!c->moe) return;
    int n = (int)fa_cfg_int(r, "num_experts", 0, 1, 65536), used = (int)fa_cfg_int(r, "top_k_experts", 0, 1, 65536);
    m->ff_dim = fa_cfg_int(r, "moe_intermediate_size", 0, 1, 1 << 24);
    if (used > n) fa_cfg_fail(r, "\"top_k_experts\" is %d of %d experts", used, n);
    m->route = (fa_route){.n_expert = n,
                          .n_used = used,
                          .n_group = 1,
                          .n_group_used = 1,
                          .score = FA_SCORE_SOFTMAX,
                          .normalise = true,
                          .scale = 1};
    m->act = c->dense.act;
    m->router = "router.proj";
    m->block = "";
}

static void read_config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    config *c = (config *)cfg;
    fa_dense_cfg *d = &c->dense;
    static const fa_dense_defaults defaults = {.vocab = 262144,
                                               .dim = 2304,
                                               .ff_dim = 9216,
                                               .n_layer = 30,
                                               .n_head = 8,
                                               .n_kv_head = 4,
                                               .head_dim = 256,
                                               .max_ctx = 131072,
                                               .act_key = "hidden_activation",
                                               .act = "gelu_pytorch_tanh",
                                               .tied = true};
    const char *type = fa_jstr(fa_cfg_node(r, "model_type"), NULL);
    bool unified = type && strncmp(type, "gemma4_unified", 14) == 0;
    fa_dense_defaults own = defaults;
    if (unified) own.max_ctx = 262144;
    fa_dense_read(r, d, dims, &own);
    size_t n = (size_t)d->n_layer;
    c->n_kv_head = (int64_t *)fa_mem_calloc(r->mem, n, sizeof *c->n_kv_head);
    c->head_dim = (int64_t *)fa_mem_calloc(r->mem, n, sizeof *c->head_dim);
    c->shared = (int32_t *)fa_mem_calloc(r->mem, n, sizeof *c->shared);
    if (!c->n_kv_head || !c->head_dim || !c->shared) fa_cfg_no_memory(r);
    if (r->err.code) return;
    d->embed_scale = sqrtf((float)d->dim);
    d->attn_scale = 1;
    d->final_softcap = (float)fa_cfg_num(r, "final_logit_softcapping", 0);
    d->qkv_bias = d->o_bias = fa_cfg_bool(r, "attention_bias", false);
    const fa_jnode *both = fa_cfg_node(r, "use_bidirectional_attention");
    const char *word = fa_jstr(both, NULL);
    if (both && (!word || strcmp(word, "vision") != 0))
        fa_cfg_fail(r, "\"use_bidirectional_attention\" \"%.40s\" is not supported: text is attended causally",
                    word ? word : "(no string)");
    fa_dense_windows(r, d, fa_cfg_int(r, "sliding_window", unified ? 1024 : 512, 1, INT32_MAX), not_every_sixth, NULL);
    if (r->err.code) return;
    d->window[d->n_layer - 1] = 0;
    for (int64_t i = 0; i < d->n_layer; i++) d->layer_rope[i] = d->window[i] ? SLIDING : FULL;
    c->k_is_v = fa_cfg_bool(r, "attention_k_eq_v", false);
    read_heads(r, c);
    read_sharing(r, c, optional(r, "num_kv_shared_layers", 0, d->n_layer));
    read_ropes(r, c);
    c->wide_mlp = fa_cfg_bool(r, "use_double_wide_mlp", false);
    c->ple_dim = optional(r, "hidden_size_per_layer_input", unified ? 0 : 256, 65536);
    c->ple_vocab = fa_cfg_int(r, "vocab_size_per_layer_input", 262144, 1, 1 << 26);
    read_moe(r, c);
}

/* ---- weights ---- */

static void bind_attn(fa_binder *b, const config *c, layer *l, int i) {
    const fa_dense_cfg *d = &c->dense;
    int64_t hd = c->head_dim[i], q_dim = d->n_head * hd, kv_dim = c->n_kv_head[i] * hd;
    fa_bias bias = d->qkv_bias ? FA_BIAS : FA_NO_BIAS;
    fa_bind_linear(b, &l->qkv.q, q_dim, d->dim, bias, "model.layers.%d.self_attn.q_proj", i);
    fa_bind_norm(b, &l->q_norm, hd, d->eps, 0, "model.layers.%d.self_attn.q_norm", i);
    l->qkv.q_norm = &l->q_norm;
    if (!c->shared[i]) {
        fa_bind_linear(b, &l->qkv.k, kv_dim, d->dim, bias, "model.layers.%d.self_attn.k_proj", i);
        l->qkv.v = l->qkv.k;
        if (!c->k_is_v || d->window[i])
            fa_bind_linear(b, &l->qkv.v, kv_dim, d->dim, bias, "model.layers.%d.self_attn.v_proj", i);
        fa_bind_norm(b, &l->k_norm, hd, d->eps, 0, "model.layers.%d.self_attn.k_norm", i);
        l->v_norm = (fa_norm){.dim = hd, .eps = (float)d->eps};
        l->qkv.k_norm = &l->k_norm;
        l->qkv.v_norm = &l->v_norm;
    }
    static const char *const unused[] = {"k_proj", "v_proj", "k_norm"};
    for (int k = 0; c->shared[i] && k < 3; k++) fa_bind_unused(b, "model.layers.%d.self_attn.%s", i, unused[k]);
    fa_bind_linear(b, &l->o, d->dim, q_dim, bias, "model.layers.%d.self_attn.o_proj", i);
}

static void bind_moe(fa_binder *b, const config *c, layer *l, int i) {
    const fa_dense_cfg *d = &c->dense;
    l->moe = (fa_moe_layer *)fa_bind_alloc(b, 1, sizeof *l->moe);
    if (!l->moe) return;
    fa_moe_bind(b, &d->moe, l->moe, d->dim, i);
    l->moe->route.expert_scale =
        fa_bind_vector(b, d->moe.route.n_expert, 1, "model.layers.%d.router.per_expert_scale", i);
    l->router_norm = (fa_norm){.dim = d->dim, .eps = (float)d->eps};
    l->router_norm.w = fa_bind_vector(b, d->dim, 1, "model.layers.%d.router.scale", i);
    fa_bind_norm(b, &l->mlp_norm_1, d->dim, d->eps, 0, "model.layers.%d.post_feedforward_layernorm_1", i);
    fa_bind_norm(b, &l->moe_norm_2, d->dim, d->eps, 0, "model.layers.%d.pre_feedforward_layernorm_2", i);
    fa_bind_norm(b, &l->post_moe_norm_2, d->dim, d->eps, 0, "model.layers.%d.post_feedforward_layernorm_2", i);
}

static void bind_layer(fa_binder *b, const config *c, layer *l, int i) {
    const fa_dense_cfg *d = &c->dense;
    int64_t ff = d->ff_dim * (c->wide_mlp && c->shared[i] ? 2 : 1);
    fa_bind_norm(b, &l->attn_norm, d->dim, d->eps, 0, "model.layers.%d.input_layernorm", i);
    fa_bind_norm(b, &l->post_attn_norm, d->dim, d->eps, 0, "model.layers.%d.post_attention_layernorm", i);
    fa_bind_norm(b, &l->mlp_norm, d->dim, d->eps, 0, "model.layers.%d.pre_feedforward_layernorm", i);
    fa_bind_norm(b, &l->post_mlp_norm, d->dim, d->eps, 0, "model.layers.%d.post_feedforward_layernorm", i);
    bind_attn(b, c, l, i);
    fa_bind_linear(b, &l->gate, ff, d->dim, FA_NO_BIAS, "model.layers.%d.mlp.gate_proj", i);
    fa_bind_linear(b, &l->up, ff, d->dim, FA_NO_BIAS, "model.layers.%d.mlp.up_proj", i);
    fa_bind_linear(b, &l->down, d->dim, ff, FA_NO_BIAS, "model.layers.%d.mlp.down_proj", i);
    if (c->moe) bind_moe(b, c, l, i);
    if (c->ple_dim) {
        fa_bind_linear(b, &l->ple_gate, c->ple_dim, d->dim, FA_NO_BIAS, "model.layers.%d.per_layer_input_gate", i);
        fa_bind_linear(b, &l->ple, d->dim, c->ple_dim, FA_NO_BIAS, "model.layers.%d.per_layer_projection", i);
        fa_bind_norm(b, &l->ple_norm, d->dim, d->eps, 0, "model.layers.%d.post_per_layer_input_norm", i);
    }
    l->scalar = fa_bind_scalar(b, 1, "model.layers.%d.layer_scalar", i);
}

static void bind(fa_binder *b, const void *cfg, void *out) {
    const config *c = (const config *)cfg;
    const fa_dense_cfg *d = &c->dense;
    weights *w = (weights *)out;
    fa_bind_embed(b, &w->dense.embed, d->vocab, d->dim, "model.embed_tokens");
    if (c->ple_dim) {
        int64_t all = d->n_layer * c->ple_dim;
        fa_bind_embed(b, &w->ple_embed, c->ple_vocab, all, "model.embed_tokens_per_layer");
        fa_bind_linear(b, &w->ple_project, all, d->dim, FA_NO_BIAS, "model.per_layer_model_projection");
        fa_bind_norm(b, &w->ple_norm, c->ple_dim, d->eps, 0, "model.per_layer_projection_norm");
    }
    w->layer = (layer *)fa_bind_alloc(b, (size_t)d->n_layer, sizeof *w->layer);
    for (int i = 0; w->layer && i < d->n_layer; i++) bind_layer(b, c, &w->layer[i], i);
    fa_bind_norm(b, &w->dense.norm, d->dim, d->eps, 0, "model.norm");
    fa_bind_head(b, &w->dense.head, &w->dense.embed, d->tied, "lm_head");
}

static void caches(const void *cfg, fa_kv_spec *spec) {
    const config *c = (const config *)cfg;
    const fa_dense_cfg *d = &c->dense;
    for (int64_t i = 0; i < d->n_layer; i++)
        spec[i] = (fa_kv_spec){.n_head = c->n_kv_head[i],
                               .head_dim = c->head_dim[i],
                               .window = d->window[i],
                               .rope = &d->rope[d->layer_rope[i]],
                               .shared = c->shared[i]};
}

/* ---- forward ---- */

/* p of all layers: [n_tok, n_layer * ple_dim]. e: the scaled embeddings. */
static fa_tensor per_layer_inputs(fa_cx *cx, const config *c, const weights *w, fa_tensor e) {
    fa_tensor p = fa_linear_op(cx, e, &w->ple_project);
    size_t mark = fa_arena_mark(cx->arena);
    fa_scale(cx, p, 1 / sqrtf((float)c->dense.dim));
    fa_head_norm(cx, p, &w->ple_norm);
    fa_add(cx, p, fa_embed(cx, &w->ple_embed, sqrtf((float)c->ple_dim)), 1);
    fa_scale(cx, p, sqrtf(0.5f));
    fa_arena_reset(cx->arena, mark);
    fa_tap(cx, "per_layer_inputs", p);
    return p;
}

/* h += norm(mlp [+ experts]) */
static void add_mlp(fa_cx *cx, const config *c, const layer *l, fa_tensor h) {
    const fa_dense_cfg *d = &c->dense;
    fa_tensor g = fa_norm_mlp_up(cx, h, &l->mlp_norm, &l->gate, &l->up, d->act);
    if (!l->moe) {
        fa_linear_add(cx, h, g, &l->down, &l->post_mlp_norm, 1);
        return;
    }
    fa_tensor m = fa_norm_op(cx, fa_linear_op(cx, g, &l->down), &l->mlp_norm_1);
    fa_tensor logits = fa_linear_op(cx, fa_norm_op(cx, h, &l->router_norm), &l->moe->router);
    fa_scale(cx, logits, 1 / sqrtf((float)d->dim));
    fa_tap(cx, "router", logits);
    fa_tensor choice = fa_route_op(cx, logits, &l->moe->route);
    fa_tensor e = fa_moe_op(cx, fa_norm_op(cx, h, &l->moe_norm_2), choice, &l->moe->experts);
    fa_add(cx, m, fa_norm_op(cx, e, &l->post_moe_norm_2), 1);
    fa_add(cx, h, fa_norm_op(cx, m, &l->post_mlp_norm), 1);
}

static void body(fa_cx *cx, const fa_lm *m, fa_tensor h) {
    const config *c = (const config *)m->cfg;
    const fa_dense_cfg *d = &c->dense;
    const weights *w = (const weights *)m->w;
    fa_tensor p = {0}, table[N_KIND];
    if (c->ple_dim) p = per_layer_inputs(cx, c, w, h);
    for (int k = 0; k < N_KIND; k++) table[k] = fa_rope_table(cx, &d->rope[k]);
    for (int i = 0; i < d->n_layer; i++) {
        const layer *l = &w->layer[i];
        const fa_kv *kv = &m->kv[i];
        const fa_rope *rope = &d->rope[d->layer_rope[i]];
        fa_attn attn = {(int)d->n_head, (int)c->n_kv_head[i], (int)c->head_dim[i], d->attn_scale, 0, NULL};
        size_t mark = fa_layer_begin(cx, i);
        fa_tensor q = fa_norm_qkv(cx, h, &l->attn_norm, &l->qkv, table[d->layer_rope[i]], rope->interleaved, kv);
        fa_tensor a = fa_attend(cx, q, kv, &attn);
        fa_tap(cx, "attn_out", a);
        fa_linear_add(cx, h, a, &l->o, &l->post_attn_norm, 1);
        add_mlp(cx, c, l, h);
        if (c->ple_dim) {
            fa_tensor gate = fa_linear_op(cx, h, &l->ple_gate);
            fa_tensor g = fa_glu(cx, gate, fa_cols(cx, p, i * c->ple_dim, c->ple_dim), d->act);
            fa_linear_add(cx, h, g, &l->ple, &l->ple_norm, 1);
        }
        fa_scale(cx, h, l->scalar);
        fa_tap(cx, "layer_out", h);
        fa_layer_end(cx, mark);
    }
}

static const fa_rename renames[] = {{".experts.", ".experts.switch_glu."} /* mlx */, {NULL, NULL}};

const fa_family fa_family_gemma4 = {
    .name = "gemma4",
    .model_types = "gemma4,gemma4_text,gemma4_unified,gemma4_unified_text",
    .archs = "Gemma4ForCausalLM,Gemma4ForConditionalGeneration,Gemma4UnifiedForCausalLM,"
             "Gemma4UnifiedForConditionalGeneration",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .cfg_size = sizeof(config),
    .weights_size = sizeof(weights),
    .config = read_config,
    .bind = bind,
    .caches = caches,
    .embed = fa_dense_embed,
    .body = body,
    .norm = fa_dense_norm,
    .head = fa_dense_head,
};
