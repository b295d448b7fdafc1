#define _GNU_SOURCE
/* The dense decoder: shared config keys, binding and the forward pass. */
#include "blocks/dense.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const fa_dense_defaults fa_dense_llama = {.vocab = 32000,
                                          .dim = 4096,
                                          .ff_dim = 11008,
                                          .n_layer = 32,
                                          .n_head = 32,
                                          .max_ctx = 2048,
                                          .act_key = "hidden_act",
                                          .act = "silu"};

void fa_dense_read(fa_cfg *r, fa_dense_cfg *c, fa_lm_dims *dims, const fa_dense_defaults *d) {
    c->dim = fa_cfg_int(r, "hidden_size", d->dim, 1, 1 << 20);
    c->n_layer = fa_cfg_int(r, "num_hidden_layers", d->n_layer, 1, 4096);
    c->n_head = fa_cfg_int(r, "num_attention_heads", d->n_head, 1, 65536);
    c->n_kv_head =
        fa_cfg_int(r, "num_key_value_heads",
                   fa_cfg_has(r, "num_key_value_heads") || !d->n_kv_head ? c->n_head : d->n_kv_head, 1, 65536);
    c->head_dim = fa_cfg_int(r, "head_dim", d->head_dim ? d->head_dim : c->dim / c->n_head, 1, 4096);
    c->ff_dim = fa_cfg_int(r, "intermediate_size", d->ff_dim, 1, 1 << 24);
    c->vocab = fa_cfg_int(r, "vocab_size", d->vocab, 1, 1 << 26);
    c->eps = fa_cfg_eps(r, "rms_norm_eps", d->eps > 0 ? d->eps : 1e-6);
    c->act = fa_cfg_act(r, d->act_key, d->act);
    c->tied = fa_cfg_tied(r, d->tied);
    c->embed_scale = c->residual_scale = c->logit_scale = 1;
    if (c->head_dim < 1) { /* more heads than columns, and no head_dim of its own */
        fa_cfg_fail(r, "num_attention_heads %lld do not fit hidden_size %lld", (long long)c->n_head, (long long)c->dim);
        c->head_dim = 1;
    }
    c->attn_scale = 1 / sqrtf((float)c->head_dim);
    if (!r->err.code && c->n_head % c->n_kv_head)
        fa_cfg_fail(r, "num_attention_heads %lld is no multiple of num_key_value_heads %lld", (long long)c->n_head,
                    (long long)c->n_kv_head);
    c->layer_rope = (uint8_t *)fa_mem_calloc(r->mem, (size_t)c->n_layer, 1);
    c->window = (int32_t *)fa_mem_calloc(r->mem, (size_t)c->n_layer, sizeof(int32_t));
    if (!c->layer_rope || !c->window) fa_cfg_no_memory(r);
    r->max_ctx = d->max_ctx;
    *dims = (fa_lm_dims){.n_layer = c->n_layer,
                         .dim = c->dim,
                         .n_head = c->n_head,
                         .n_kv_head = c->n_kv_head,
                         .head_dim = c->head_dim,
                         .ff_dim = c->ff_dim,
                         .vocab = c->vocab,
                         .max_ctx = fa_cfg_int(r, "max_position_embeddings", d->max_ctx, 1, INT32_MAX),
                         .tied = c->tied};
}

void fa_dense_read_mixers(fa_cfg *r, fa_dense_cfg *c, fa_lm_dims *dims, const fa_dense_defaults *d) {
    c->dim = fa_cfg_int(r, "hidden_size", d->dim, 1, 1 << 20);
    c->n_layer = fa_cfg_int(r, "num_hidden_layers", d->n_layer, 1, 4096);
    c->vocab = fa_cfg_int(r, "vocab_size", d->vocab, 1, 1 << 26);
    c->eps = fa_cfg_eps(r, "layer_norm_epsilon", d->eps);
    c->tied = fa_cfg_tied(r, d->tied);
    c->embed_scale = c->residual_scale = c->logit_scale = 1;
    c->no_mlp = true;
    *dims =
        (fa_lm_dims){.n_layer = c->n_layer, .dim = c->dim, .vocab = c->vocab, .max_ctx = d->max_ctx, .tied = c->tied};
}

void fa_dense_windows(fa_cfg *r, fa_dense_cfg *c, int64_t window, bool (*sliding)(const void *user, int64_t layer),
                      const void *user) {
    static const fa_layer_kind names[] = {{"full_attention", 0}, {"sliding_attention", 1}, {NULL, 0}};
    uint8_t *slides = (uint8_t *)fa_mem_calloc(r->mem, (size_t)c->n_layer, 1);
    if (!slides) fa_cfg_no_memory(r);
    if (r->err.code) return;
    const bool told = fa_cfg_layer_kinds(r, "layer_types", names, c->n_layer, slides);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) {
        if (!told) slides[i] = sliding && sliding(user, i);
        c->window[i] = slides[i] ? (int32_t)window : 0;
    }
}

void *fa_dense_mixers(fa_cfg *r, fa_dense_cfg *c, size_t size, const fa_dense_mixer *mixer) {
    void *own = fa_mem_calloc(r->mem, 1, size);
    c->layer_mix = (uint8_t *)fa_mem_calloc(r->mem, (size_t)c->n_layer, 1);
    if (!own || !c->layer_mix) {
        fa_cfg_no_memory(r);
        return NULL;
    }
    c->mix_cfg = own;
    c->mixer = mixer;
    return own;
}

static bool late_layer(const void *user, int64_t layer) { return layer >= *(const int64_t *)user; }

void fa_dense_late_windows(fa_cfg *r, fa_dense_cfg *c, int64_t first) {
    bool slides = fa_cfg_bool(r, "use_sliding_window", false);
    first = fa_cfg_int(r, "max_window_layers", first, 0, INT32_MAX);
    fa_dense_windows(r, c, slides ? fa_cfg_int(r, "sliding_window", 4096, 0, INT32_MAX) : 0, late_layer, &first);
}

void fa_dense_granite_scales(fa_cfg *r, fa_dense_cfg *c) {
    c->embed_scale = (float)fa_cfg_num(r, "embedding_multiplier", 1);
    c->attn_scale = (float)fa_cfg_num(r, "attention_multiplier", 1);
    c->residual_scale = (float)fa_cfg_num(r, "residual_multiplier", 1);
    double scaling = fa_cfg_num(r, "logits_scaling", 1);
    if (scaling == 0) fa_cfg_fail(r, "\"logits_scaling\" is 0");
    c->logit_scale = (float)(1 / scaling);
}

void fa_dense_granite_experts(fa_cfg *r, fa_dense_cfg *c) {
    const char *key = "num_local_experts";
    if (fa_cfg_int(r, key, fa_cfg_has(r, key) ? 0 : 8, 0, 65536) == 0) return; /* num_experts_per_tok is 0 as well */
    fa_moe_read(r, &c->moe, 8, 2);
    c->moe.ff_dim = fa_cfg_int(r, "intermediate_size", c->ff_dim, 1, 1 << 24);
    c->moe.act = c->act;
    c->moe.route.score = FA_SCORE_TOP_SOFTMAX;
    c->moe.router = "block_sparse_moe.router.layer";
    c->moe.block = "block_sparse_moe";
    c->moe.gate_up = "input_linear";
    c->moe.fused_down = "output_linear";
    c->moe.own_fused = true;
    fa_dense_all_experts(r, c);
}

void fa_dense_q_growth(fa_cfg *r, fa_dense_cfg *c, int64_t otherwise) {
    static const float still[1];
    const fa_jnode *rope = fa_cfg_node(r, "rope_parameters");
    if (!rope) rope = fa_cfg_node(r, "rope_scaling");
    double beta = fa_jnum(fa_jget(rope, "llama_4_scaling_beta"), 0);
    int64_t ctx = fa_jint(fa_jget(rope, "original_max_position_embeddings"), otherwise);
    if (!(fabs(beta) < 1e6) || ctx < 1)
        fa_cfg_fail(r, "\"rope_parameters\": queries cannot be scaled by %g every %lld positions", beta,
                    (long long)ctx);
    if (beta != 0)
        c->q_growth = (fa_rope){.n_pair = 1, .inv_freq = still, .mscale = 1, .growth = (float)beta, .growth_ctx = ctx};
}

void fa_dense_all_experts(fa_cfg *r, fa_dense_cfg *c) {
    c->layer_moe = (uint8_t *)fa_mem_calloc(r->mem, (size_t)c->n_layer, 1);
    if (!c->layer_moe) fa_cfg_no_memory(r);
    for (int64_t i = 0; !r->err.code && i < c->n_layer; i++) c->layer_moe[i] = c->moe.route.n_expert > 0;
}

void fa_dense_qwen_experts(fa_cfg *r, fa_dense_cfg *c, int64_t n_expert, int64_t n_used, int64_t ff_dim) {
    fa_moe_read(r, &c->moe, n_expert, n_used);
    c->moe.ff_dim = fa_cfg_int(r, "moe_intermediate_size", ff_dim, 1, 1 << 24);
    c->moe.act = c->act;
    int64_t step = fa_cfg_int(r, "decoder_sparse_step", 1, 1, INT32_MAX);
    const fa_jnode *plain = fa_cfg_node(r, "mlp_only_layers");
    if (plain && fa_jtype_of(plain) != FA_JARR) fa_cfg_fail(r, "\"mlp_only_layers\" is no list");
    c->layer_moe = (uint8_t *)fa_mem_calloc(r->mem, (size_t)c->n_layer, 1);
    if (!c->layer_moe) fa_cfg_no_memory(r);
    if (r->err.code) return;
    for (int64_t i = 0; i < c->n_layer; i++) c->layer_moe[i] = c->moe.route.n_expert > 0 && (i + 1) % step == 0;
    for (const fa_jnode *n = fa_jfirst(plain); n; n = fa_jnext(n)) {
        int64_t i = fa_jint(n, -1);
        if (i >= 0 && i < c->n_layer) c->layer_moe[i] = 0;
    }
}

/* A norm of the kind that the family has. */
static void bind_norm(fa_binder *b, const fa_dense_cfg *c, fa_norm *out, int64_t dim, const char *fmt, int i) {
    char name[128];
    snprintf(name, sizeof name, fmt, i);
    if (c->norm_bare)
        *out = (fa_norm){.dim = dim, .eps = (float)c->eps, .center = c->layer_norm};
    else if (c->layer_norm)
        fa_bind_layer_norm(b, out, dim, c->eps, c->norm_bias, "%s", name);
    else
        fa_bind_norm(b, out, dim, c->eps, c->norm_offset, "%s", name);
}

void fa_dense_bind_attn(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    int64_t q_dim = c->n_head * c->head_dim, kv_dim = c->n_kv_head * c->head_dim;
    fa_bias qkv_bias = c->qkv_bias ? FA_BIAS : FA_NO_BIAS, o_bias = c->o_bias ? FA_BIAS : FA_NO_BIAS;
    fa_bind_linear(b, &l->qkv.q, q_dim, c->dim, qkv_bias, "model.layers.%d.self_attn.q_proj", i);
    fa_bind_linear(b, &l->qkv.k, kv_dim, c->dim, qkv_bias, "model.layers.%d.self_attn.k_proj", i);
    fa_bind_linear(b, &l->qkv.v, kv_dim, c->dim, qkv_bias, "model.layers.%d.self_attn.v_proj", i);
    fa_bind_linear(b, &l->o, c->dim, q_dim, o_bias, "model.layers.%d.self_attn.o_proj", i);
}

void fa_dense_bind_mlp(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    fa_bias bias = c->mlp_bias ? FA_BIAS : FA_NO_BIAS;
    if (!c->plain_mlp) fa_bind_linear(b, &l->gate, c->ff_dim, c->dim, bias, "model.layers.%d.mlp.gate_proj", i);
    fa_bind_linear(b, c->plain_mlp ? &l->gate : &l->up, c->ff_dim, c->dim, bias, "model.layers.%d.mlp.up_proj", i);
    fa_bind_linear(b, &l->down, c->dim, c->ff_dim, bias, "model.layers.%d.mlp.down_proj", i);
}

/* attends: the layer has queries and keys */
static void bind_norms(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i, bool attends) {
    int64_t q_dim = c->n_head * c->head_dim, kv_dim = c->n_kv_head * c->head_dim;
    const bool post_only = c->post_only && attends;
    if (!post_only) bind_norm(b, c, &l->attn_norm, c->dim, "model.layers.%d.input_layernorm", i);
    if (attends && (c->qk_norm || c->wide_qk_norm)) {
        bind_norm(b, c, &l->q_norm, c->wide_qk_norm ? q_dim : c->head_dim, "model.layers.%d.self_attn.q_norm", i);
        bind_norm(b, c, &l->k_norm, c->wide_qk_norm ? kv_dim : c->head_dim, "model.layers.%d.self_attn.k_norm", i);
        l->qkv.q_norm = &l->q_norm;
        l->qkv.k_norm = &l->k_norm;
    }
    if (c->sandwich || post_only) {
        bind_norm(b, c, &l->post_attn_norm, c->dim, "model.layers.%d.post_attention_layernorm", i);
        bind_norm(b, c, &l->post_mlp_norm, c->dim, "model.layers.%d.post_feedforward_layernorm", i);
    }
    if (c->sandwich) bind_norm(b, c, &l->mlp_norm, c->dim, "model.layers.%d.pre_feedforward_layernorm", i);
    if (!c->sandwich && !post_only && !c->no_mlp)
        bind_norm(b, c, &l->mlp_norm, c->dim, "model.layers.%d.post_attention_layernorm", i);
}

static void bind_layer(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    const bool mix = c->layer_mix && c->layer_mix[i];
    if (mix)
        c->mixer->bind(b, c, l, i);
    else
        (c->bind_attn ? c->bind_attn : fa_dense_bind_attn)(b, c, l, i);
    l->qkv.clip = c->clip_qkv;
    bind_norms(b, c, l, i, !mix);
    if (c->no_mlp) return;
    if (!c->layer_moe || !c->layer_moe[i]) {
        (c->bind_mlp ? c->bind_mlp : fa_dense_bind_mlp)(b, c, l, i);
    } else if ((l->moe = (fa_moe_layer *)fa_bind_alloc(b, 1, sizeof *l->moe))) {
        fa_moe_bind(b, &c->moe, l->moe, c->dim, i);
    }
}

void fa_dense_bind(fa_binder *b, const void *cfg, void *weights) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)cfg;
    fa_dense *w = (fa_dense *)weights;
    fa_bind_embed(b, &w->embed, c->vocab, c->dim, "model.embed_tokens");
    w->layer = (fa_dense_layer *)fa_bind_alloc(b, (size_t)c->n_layer, sizeof *w->layer);
    for (int i = 0; w->layer && i < c->n_layer; i++) bind_layer(b, c, &w->layer[i], i);
    bind_norm(b, c, &w->norm, c->dim, "model.norm", 0);
    fa_bind_head(b, &w->head, &w->embed, c->tied, "lm_head");
}

void fa_dense_norms_applied(const fa_dense_cfg *c, fa_dense *w) {
    w->norm.offset = 0;
    for (int64_t i = 0; w->layer && i < c->n_layer; i++) {
        fa_dense_layer *l = &w->layer[i];
        fa_norm *const norms[] = {&l->attn_norm,     &l->mlp_norm, &l->post_attn_norm,
                                  &l->post_mlp_norm, &l->q_norm,   &l->k_norm};
        for (size_t k = 0; k < sizeof norms / sizeof *norms; k++) norms[k]->offset = 0;
    }
}

void fa_dense_caches(const void *cfg, fa_kv_spec *spec) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)cfg;
    for (int64_t i = 0; i < c->n_layer; i++) {
        if (c->layer_mix && c->layer_mix[i])
            c->mixer->spec(c, &spec[i]);
        else
            spec[i] = (fa_kv_spec){.n_head = c->n_kv_head,
                                   .head_dim = c->head_dim,
                                   .window = c->window[i],
                                   .rope = &c->rope[c->layer_rope[i]]};
    }
}

fa_tensor fa_dense_embed(fa_cx *cx, const fa_lm *m) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)m->cfg;
    const fa_dense *w = (const fa_dense *)m->w;
    fa_tensor h = fa_embed(cx, &w->embed, c->embed_scale);
    fa_tap(cx, "embed", h);
    return h;
}

/* h += residual_scale * o_proj(attention(norm(h))); growth: what queries are multiplied by, or empty */
static void attend(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h, const fa_kv *kv, int rope,
                   fa_tensor table, fa_tensor growth) {
    fa_attn attn = {(int)c->n_head, (int)c->n_kv_head, (int)c->head_dim, c->attn_scale, c->attn_softcap, l->sink};
    fa_tensor q =
        fa_norm_qkv(cx, h, c->post_only ? NULL : &l->attn_norm, &l->qkv, table, c->rope[rope].interleaved, kv);
    if (c->q_growth.n_pair) fa_row_gate(cx, q, growth, FA_ACT_LINEAR);
    fa_tensor a = fa_attend(cx, q, kv, &attn);
    if (l->attn_gate.w.rows)
        a = fa_glu(cx, fa_linear_op(cx, fa_norm_op(cx, h, &l->attn_norm), &l->attn_gate), a, FA_ACT_SIGMOID);
    fa_tap(cx, "attn_out", a);
    fa_linear_add(cx, h, a, &l->o, c->sandwich || c->post_only ? &l->post_attn_norm : NULL, c->residual_scale);
}

/* h += residual_scale * mlp(norm(h)), or the experts */
static void mlp(fa_cx *cx, const fa_dense_cfg *c, const fa_dense_layer *l, fa_tensor h) {
    const bool post_only = c->post_only && !l->mix; /* where a mixer stands its norms come first */
    const fa_norm *norm = post_only ? NULL : &l->mlp_norm;
    if (l->moe) {
        fa_moe_layer_add(cx, h, norm ? fa_norm_op(cx, h, norm) : h, l->moe, c->residual_scale);
        return;
    }
    fa_tensor g = fa_norm_mlp_up(cx, h, norm, &l->gate, &l->up, c->act);
    fa_linear_add(cx, h, g, &l->down, c->sandwich || post_only ? &l->post_mlp_norm : NULL, c->residual_scale);
}

void fa_dense_body(fa_cx *cx, const fa_lm *m, fa_tensor h) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)m->cfg;
    const fa_dense *w = (const fa_dense *)m->w;
    fa_tensor table[FA_DENSE_ROPES];
    for (int i = 0; i < FA_DENSE_ROPES; i++) table[i] = fa_rope_table(cx, &c->rope[i]);
    fa_tensor growth = fa_rope_table(cx, &c->q_growth);
    if (c->q_growth.n_pair) growth = fa_cols(cx, growth, 0, 1);
    for (int i = 0; i < c->n_layer; i++) {
        const fa_dense_layer *l = &w->layer[i];
        size_t mark = fa_layer_begin(cx, i);
        if (l->mix)
            c->mixer->add(cx, c, l, h, m->state ? &m->state[i] : NULL);
        else
            attend(cx, c, l, h, &m->kv[i], c->layer_rope[i], table[c->layer_rope[i]], growth);
        if (!c->no_mlp) mlp(cx, c, l, h);
        fa_tap(cx, "layer_out", h);
        fa_layer_end(cx, mark);
    }
}

fa_tensor fa_dense_norm(fa_cx *cx, const fa_lm *m, fa_tensor h) {
    const fa_dense *w = (const fa_dense *)m->w;
    fa_tensor n = fa_norm_op(cx, fa_out_rows(cx, h), &w->norm);
    fa_tap(cx, "final_norm", n);
    return n;
}

fa_tensor fa_dense_head(fa_cx *cx, const fa_lm *m, fa_tensor n) {
    const fa_dense_cfg *c = (const fa_dense_cfg *)m->cfg;
    const fa_dense *w = (const fa_dense *)m->w;
    fa_tensor logits = fa_linear_op(cx, n, &w->head);
    fa_scale(cx, logits, c->logit_scale);
    fa_softcap(cx, logits, c->final_softcap);
    return logits;
}
