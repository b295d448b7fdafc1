/* Falcon H1: attention and a Mamba 2 mixer side by side in every layer, and a dozen multipliers. With n =
 * input_layernorm(h), f = pre_ff_layernorm(h) and the multipliers' config keys shortened:
 *
 *     h += ssm_out * mixer(ssm_in * n) + attention_out * attention(attention_in * n)
 *     h += mlp[1] * down_proj(up_proj(f) * silu(mlp[0] * gate_proj(f)))
 *
 * Keys are multiplied by key_multiplier, the parts z, x, B, C, dt of the mixer's projection by ssm_multipliers,
 * embeddings by embedding_multiplier, logits by lm_head_multiplier. Reference: transformers models/falcon_h1. What
 * bites: the mixer's width is mamba_d_ssm, 1024 without the key; the norm behind the scan is there with mamba_rms_norm
 * only, and stands before the gate unless mamba_norm_before_gate says no; rope_theta is 1e11 in published models.
 *
 * Conversions put multipliers into weights. GGUF: all of them. mlx: all but key_multiplier, attention_in for values
 * and, when the head is the embedding, what is left to lm_head_multiplier; mlx itself then leaves those out, which is
 * not the model. Only the convolution's layout tells: it is mlx's when a conversion has been at work. */
#include "blocks/mamba2.h"
#include "families/bind.h"

#include <math.h>

/* What is left to multiply with when the model runs. */
typedef struct scales {
    float embed, logits;
    float ssm_in, ssm_out;   /* of the mixer's rows (the rest of ssm_in is in in_scale), of what it adds */
    float attn_in, attn_out; /* of attention's rows, of what it adds */
    float rows, gate, down;  /* of the MLP: in mlp_norm's weights, or else of gates; of what it adds */
} scales;

typedef struct falcon_cfg {
    fa_dense_cfg d;
    fa_mamba2_cfg mix;
    scales s;        /* as published */
    float ssm[5];    /* of z, x, B, C, dt */
    float *in_scale; /* [fa_mamba2_in_rows] the same with ssm_in; NULL: all are 1 */
} falcon_cfg;

typedef struct falcon_layer {
    fa_dense_layer d; /* its norms, projections and MLP */
    fa_mamba2 mix;
} falcon_layer;

typedef struct falcon {
    fa_dense d; /* without layers; first, as fa_dense_norm looks for it */
    falcon_layer *layer;
    scales s;
} falcon;

/* ---- config ---- */

static float multiplier(fa_cfg *r, const char *key) { return (float)fa_cfg_num(r, key, 1); }

/* n multipliers under one key; 1 each without it. */
static void multipliers(fa_cfg *r, const char *key, float *to, size_t n) {
    const fa_jnode *list = fa_cfg_node(r, key), *m = fa_jfirst(list);
    if (list && fa_jlen(list) != n) fa_cfg_fail(r, "\"%s\" is no list of %zu numbers", key, n);
    for (size_t i = 0; i < n; i++, m = fa_jnext(m)) {
        double v = list ? fa_jnum(m, NAN) : 1;
        if (!(fabs(v) < 1e30)) fa_cfg_fail(r, "\"%s\": value %zu is not a usable number", key, i);
        to[i] = fabs(v) < 1e30 ? (float)v : 1;
    }
}

static void read_multipliers(fa_cfg *r, falcon_cfg *c) {
    float mlp[2];
    multipliers(r, "mlp_multipliers", mlp, 2);
    multipliers(r, "ssm_multipliers", c->ssm, 5);
    c->s = (scales){.embed = multiplier(r, "embedding_multiplier"),
                    .logits = multiplier(r, "lm_head_multiplier"),
                    .ssm_in = multiplier(r, "ssm_in_multiplier"),
                    .ssm_out = multiplier(r, "ssm_out_multiplier"),
                    .attn_in = multiplier(r, "attention_in_multiplier"),
                    .attn_out = multiplier(r, "attention_out_multiplier"),
                    .rows = 1,
                    .gate = mlp[0],
                    .down = mlp[1]};
    c->d.attn_scale *= multiplier(r, "key_multiplier");
}

static void read_mixer(fa_cfg *r, falcon_cfg *c) {
    bool by_hidden = fa_cfg_has(r, "mamba_d_ssm") && !fa_cfg_node(r, "mamba_d_ssm");
    int64_t expanded = fa_cfg_int(r, "mamba_expand", 2, 1, 1024) * c->d.dim;
    c->mix = (fa_mamba2_cfg){.dim = c->d.dim,
                             .width = by_hidden ? expanded : fa_cfg_int(r, "mamba_d_ssm", 1024, 1, 1 << 26),
                             .n_head = 128,
                             .n_state = 256,
                             .n_group = 1,
                             .kernel = 4,
                             .norm = fa_cfg_bool(r, "mamba_rms_norm", false),
                             .norm_first = fa_cfg_bool(r, "mamba_norm_before_gate", true),
                             .eps = c->d.eps,
                             .conv_bias = true};
    fa_mamba2_read(r, &c->mix, &fa_mamba2_hybrid_keys);
    c->mix.out_bias = fa_cfg_bool(r, "projectors_bias", false);
}

/* A factor for each row of in_proj. With a bias, ssm_in must come before it. */
static void fill_in_scale(fa_cfg *r, falcon_cfg *c) {
    const fa_mamba2_cfg *m = &c->mix;
    const int64_t bc = m->n_group * m->n_state, width[5] = {m->width, m->width, bc, bc, m->n_head};
    float by[5];
    bool any = false;
    for (int i = 0; i < 5; i++) any |= (by[i] = c->ssm[i] * (m->in_bias ? 1 : c->s.ssm_in)) != 1;
    if (!any) return;
    float *to = c->in_scale = (float *)fa_mem_calloc(r->mem, (size_t)fa_mamba2_in_rows(m), sizeof *to);
    if (!to) {
        fa_cfg_no_memory(r);
        return;
    }
    for (int part = 0; part < 5; part++)
        for (int64_t i = 0; i < width[part]; i++) *to++ = by[part];
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    falcon_cfg *c = (falcon_cfg *)cfg;
    static const fa_dense_defaults defaults = {.vocab = 128000,
                                               .dim = 4096,
                                               .ff_dim = 14336,
                                               .n_layer = 32,
                                               .n_head = 32,
                                               .n_kv_head = 8,
                                               .max_ctx = 8192,
                                               .eps = 1e-5,
                                               .act_key = "hidden_act",
                                               .act = "silu"};
    fa_dense_read(r, &c->d, dims, &defaults);
    c->d.qkv_bias = c->d.o_bias = fa_cfg_bool(r, "attention_bias", false);
    c->d.mlp_bias = fa_cfg_bool(r, "mlp_bias", false);
    fa_cfg_rope(r, &c->d.rope[0], NULL, c->d.head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
    read_multipliers(r, c);
    read_mixer(r, c);
    if (!r->err.code) fill_in_scale(r, c);
}

static void caches(const void *cfg, fa_kv_spec *spec) {
    const falcon_cfg *c = (const falcon_cfg *)cfg;
    fa_dense_caches(&c->d, spec);
    for (int64_t i = 0; i < c->d.n_layer; i++) fa_mamba2_spec(&c->mix, &spec[i]);
}

/* ---- weights ---- */

/* What mlx has put into weights. */
static scales after_mlx(fa_binder *b, const falcon_cfg *c) {
    const scales *s = &c->s;
    bool own_head = !c->d.tied || fa_bind_has(b, "lm_head");
    if (c->d.qkv_bias && s->attn_in == 0)
        fa_bind_fail(b, FFAI_ENOTSUP, NULL, "\"attention_in_multiplier\" is 0, and there are biases");
    return (scales){.embed = 1,
                    .logits = own_head ? 1 : s->logits / s->embed,
                    .ssm_in = 1,
                    .ssm_out = 1,
                    .attn_in = 1,
                    .attn_out = s->attn_in, /* of the values */
                    .rows = 1,
                    .gate = 1,
                    .down = 1};
}

/* Biases behind weights that have their multipliers in them: mlx has left these as they were. What attention adds is
 * multiplied by attention_in for the sake of its values' weights, so that its biases have to be divided by it. */
static void mlx_biases(fa_binder *b, const falcon_cfg *c, falcon_layer *l, int i) {
    const scales *s = &c->s;
    fa_bind_bias_times(b, &l->d.qkv.v, 1 / s->attn_in, NULL, "model.layers.%d.self_attn.v_proj", i);
    fa_bind_bias_times(b, &l->d.o, s->attn_out / s->attn_in, NULL, "model.layers.%d.self_attn.o_proj", i);
    fa_bind_bias_times(b, &l->d.gate, s->gate, NULL, "model.layers.%d.mlp.gate_proj", i);
    fa_bind_bias_times(b, &l->d.down, s->down, NULL, "model.layers.%d.mlp.down_proj", i);
    fa_bind_bias_times(b, &l->mix.in, 1, c->in_scale, "model.layers.%d.mamba.in_proj", i);
    fa_bind_bias_times(b, &l->mix.out, s->ssm_out, NULL, "model.layers.%d.mamba.out_proj", i);
}

static scales as_published(const falcon_cfg *c) {
    scales s = c->s;
    if (!c->mix.in_bias) s.ssm_in = 1; /* in_scale has it */
    if (c->d.mlp_bias || s.gate == 0) return s;
    s.rows = s.gate; /* gate(rows f) = rows gate(f), and up(rows f) = rows up(f) */
    s.down /= s.gate;
    s.gate = 1;
    return s;
}

static void bind_layer(fa_binder *b, const falcon_cfg *c, falcon *w, falcon_layer *l, int i) {
    bool mlx;
    fa_mamba2_bind(b, &c->mix, &l->mix, &mlx, "model.layers.%d.mamba", i);
    if (i == 0) w->s = mlx ? after_mlx(b, c) : as_published(c);
    fa_bind_norm(b, &l->d.attn_norm, c->d.dim, c->d.eps, 0, "model.layers.%d.input_layernorm", i);
    fa_dense_bind_attn(b, &c->d, &l->d, i);
    fa_bind_norm_times(b, &l->d.mlp_norm, c->d.dim, c->d.eps, w->s.rows, "model.layers.%d.pre_ff_layernorm", i);
    fa_dense_bind_mlp(b, &c->d, &l->d, i);
    if (mlx) mlx_biases(b, c, l, i);
    if (i == 0 && !mlx && c->in_scale) l->mix.in_scale = fa_bind_constants(b, c->in_scale, fa_mamba2_in_rows(&c->mix));
    l->mix.in_scale = w->layer[0].mix.in_scale;
}

static void bind(fa_binder *b, const void *cfg, void *weights) {
    const falcon_cfg *c = (const falcon_cfg *)cfg;
    falcon *w = (falcon *)weights;
    fa_bind_embed(b, &w->d.embed, c->d.vocab, c->d.dim, "model.embed_tokens");
    w->layer = (falcon_layer *)fa_bind_alloc(b, (size_t)c->d.n_layer, sizeof *w->layer);
    for (int i = 0; w->layer && i < c->d.n_layer; i++) bind_layer(b, c, w, &w->layer[i], i);
    fa_bind_norm(b, &w->d.norm, c->d.dim, c->d.eps, 0, "model.final_layernorm");
    fa_bind_head(b, &w->d.head, &w->d.embed, c->d.tied, "lm_head");
}

/* ---- forward ---- */

static fa_tensor embed(fa_cx *cx, const fa_lm *m) {
    const falcon *w = (const falcon *)m->w;
    fa_tensor h = fa_embed(cx, &w->d.embed, w->s.embed);
    fa_tap(cx, "embed", h);
    return h;
}

static fa_tensor scaled_norm(fa_cx *cx, fa_tensor h, const fa_norm *norm, float scale) {
    fa_tensor n = fa_norm_op(cx, h, norm);
    fa_scale(cx, n, scale);
    return n;
}

/* h += mixer and attention of the same rows */
static void mix(fa_cx *cx, const falcon_cfg *c, const falcon_layer *l, const scales *s, fa_tensor h, fa_tensor table,
                const fa_kv *kv, const fa_state *st) {
    fa_attn attn = {(int)c->d.n_head, (int)c->d.n_kv_head, (int)c->d.head_dim,
                    c->d.attn_scale,  c->d.attn_softcap,   NULL};
    fa_tensor n = scaled_norm(cx, h, &l->d.attn_norm, s->ssm_in);
    fa_tensor y = fa_mamba2_scan(cx, &c->mix, &l->mix, n, st);
    if (s->attn_in != s->ssm_in) n = scaled_norm(cx, h, &l->d.attn_norm, s->attn_in);
    fa_tensor q = fa_norm_qkv(cx, n, NULL, &l->d.qkv, table, c->d.rope[0].interleaved, kv);
    fa_tensor a = fa_attend(cx, q, kv, &attn);
    fa_tap(cx, "attn_out", a);
    fa_linear_add(cx, h, y, &l->mix.out, NULL, s->ssm_out);
    fa_linear_add(cx, h, a, &l->d.o, NULL, s->attn_out);
}

static void feed(fa_cx *cx, const falcon_cfg *c, const fa_dense_layer *l, const scales *s, fa_tensor h) {
    fa_tensor y;
    if (s->gate == 1) {
        y = fa_norm_mlp_up(cx, h, &l->mlp_norm, &l->gate, &l->up, c->d.act);
    } else {
        fa_tensor n = fa_norm_op(cx, h, &l->mlp_norm), gate = fa_linear_op(cx, n, &l->gate);
        fa_scale(cx, gate, s->gate);
        y = fa_glu(cx, gate, fa_linear_op(cx, n, &l->up), c->d.act);
    }
    fa_linear_add(cx, h, y, &l->down, NULL, s->down);
}

static void body(fa_cx *cx, const fa_lm *m, fa_tensor h) {
    const falcon_cfg *c = (const falcon_cfg *)m->cfg;
    const falcon *w = (const falcon *)m->w;
    fa_tensor table = fa_rope_table(cx, &c->d.rope[0]);
    for (int i = 0; i < c->d.n_layer; i++) {
        size_t mark = fa_layer_begin(cx, i);
        mix(cx, c, &w->layer[i], &w->s, h, table, &m->kv[i], &m->state[i]);
        feed(cx, c, &w->layer[i].d, &w->s, h);
        fa_tap(cx, "layer_out", h);
        fa_layer_end(cx, mark);
    }
}

static fa_tensor head(fa_cx *cx, const fa_lm *m, fa_tensor n) {
    const falcon *w = (const falcon *)m->w;
    fa_tensor logits = fa_linear_op(cx, n, &w->d.head);
    fa_scale(cx, logits, w->s.logits);
    return logits;
}

static const fa_rename renames[] = {{".mlp.", ".feed_forward."}, {"model.final_layernorm", "model.norm"}, {NULL, NULL}};

const fa_family fa_family_falcon_h1 = {
    .name = "falcon_h1",
    .model_types = "falcon_h1",
    .archs = "FalconH1ForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .cfg_size = sizeof(falcon_cfg),
    .weights_size = sizeof(falcon),
    .config = config,
    .bind = bind,
    .caches = caches,
    .embed = embed,
    .body = body,
    .norm = fa_dense_norm,
    .head = head,
};
