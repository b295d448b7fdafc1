/* Gemma 4 in GGUF (architecture "gemma4"): its tensor names and metadata in HuggingFace words, see gguf_hf.c. Head
 * sizes differ by kind of layer: attention.key_length is that of full layers, attention.key_length_swa that of windows.
 * The number of key heads and the width of the MLP may be arrays, a value per layer. Unlike in Gemma 1 to 3, norms are
 * stored as they are. That values are keys is told by the absence of attn_v. */
#include "io/ckpt_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct name_row {
    const char *gguf, *hf; /* whole names */
} name_row;

static const name_row whole[] = {
    {"per_layer_token_embd.weight", "model.embed_tokens_per_layer.weight"},
    {"per_layer_model_proj.weight", "model.per_layer_model_projection.weight"},
    {"per_layer_proj_norm.weight", "model.per_layer_projection_norm.weight"},
};

/* behind "blk.<n>." */
static const name_row in_layer[] = {
    {"ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
    {"post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight"},
    {"pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight"},
    {"post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight"},
    {"ffn_gate_inp.weight", "router.proj.weight"},
    {"ffn_gate_inp.scale", "router.scale"},
    {"ffn_down_exps.scale", "router.per_expert_scale"},
    {"ffn_gate_up_exps.weight", "experts.gate_up_proj"},
    {"ffn_gate_exps.weight", "experts.gate_proj"},
    {"ffn_up_exps.weight", "experts.up_proj"},
    {"ffn_down_exps.weight", "experts.down_proj"},
    {"layer_output_scale.weight", "layer_scalar"},
    {"inp_gate.weight", "per_layer_input_gate.weight"},
    {"proj.weight", "per_layer_projection.weight"},
    {"post_norm.weight", "post_per_layer_input_norm.weight"},
};

bool fa_gguf_gemma4_name(const char *name, const char *prefix, char *buf, size_t size) {
    const name_row *rows = *prefix ? in_layer : whole;
    size_t n = *prefix ? sizeof in_layer / sizeof *in_layer : sizeof whole / sizeof *whole;
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].gguf, name) == 0) return (size_t)snprintf(buf, size, "%s%s", prefix, rows[i].hf) < size;
    return false;
}

/* ---- metadata ---- */

typedef struct source {
    const fa_ckpt *c;
    const char *file;
    fa_buf *json;
    fa_error *err; /* the first failure */
    int rc;
} source;

static void failed(source *s, const char *key, const char *what) {
    if (!s->rc) s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key gemma4.%s %s", s->file, key, what);
}

/* A value, or value i of an array of n; NULL-like `otherwise` when the key is absent (NAN: it must be there). */
static double number(source *s, const char *key, uint64_t i, uint64_t n, double otherwise) {
    char full[96];
    snprintf(full, sizeof full, "gemma4.%s", key);
    const fa_gguf_value *v = fa_gguf_find(s->c->gguf[0], full);
    double d = otherwise;
    if (v && v->type == FA_GGUF_ARR) {
        if (v->elem == FA_GGUF_STR || v->elem == FA_GGUF_ARR || v->n != n)
            failed(s, key, "is not a number for every layer");
        else
            d = fa_gguf_num_at(v, i);
    } else if (v && v->type == FA_GGUF_STR) {
        failed(s, key, "is not a number");
    } else if (v) {
        d = v->f;
    }
    if (isnan(d) && !s->rc) failed(s, key, "is missing");
    if (!isfinite(d)) {
        failed(s, key, "is not finite");
        return 1;
    }
    return d;
}

static int64_t whole_number(source *s, const char *key, uint64_t i, uint64_t n, double otherwise) {
    double d = number(s, key, i, n, otherwise);
    if (d >= 0 && d <= INT32_MAX && d == floor(d)) return (int64_t)d;
    failed(s, key, "is not a whole number");
    return 1;
}

static void put(source *s, const char *key, int64_t v) { fa_buf_printf(s->json, ",\"%s\":%lld", key, (long long)v); }

/* A value that is an f32 in the file. A host may have set a locale that writes 0,5. */
static void put_float(source *s, const char *key, double d) {
    char text[40];
    snprintf(text, sizeof text, "%.9g", d);
    for (char *p = text; *p; p++)
        if (*p == ',') *p = '.';
    fa_buf_printf(s->json, "\"%s\":%s", key, text);
}

/* Layers' kinds; *swa, *full: one layer of each, -1: none. */
static void put_layer_types(source *s, int64_t n_layer, int64_t *swa, int64_t *full) {
    *swa = *full = -1;
    fa_buf_puts(s->json, ",\"layer_types\":[");
    for (int64_t i = 0; i < n_layer && !s->rc; i++) {
        bool slides = number(s, "attention.sliding_window_pattern", (uint64_t)i, (uint64_t)n_layer, NAN) != 0;
        *(slides ? swa : full) = i;
        fa_buf_printf(s->json, "%s\"%s\"", i ? "," : "", slides ? "sliding_attention" : "full_attention");
    }
    fa_buf_puts(s->json, "]");
}

/* Does the layer have keys but no values? */
static bool keys_are_values(const source *s, int64_t layer) {
    char k[64], v[64];
    snprintf(k, sizeof k, "model.layers.%lld.self_attn.k_proj.weight", (long long)layer);
    snprintf(v, sizeof v, "model.layers.%lld.self_attn.v_proj.weight", (long long)layer);
    return fa_ckpt_find(s->c, k) && !fa_ckpt_find(s->c, v);
}

static void put_heads(source *s, int64_t n_layer) {
    uint64_t n = (uint64_t)n_layer;
    int64_t swa, full, first_full = -1, heads = whole_number(s, "attention.head_count", 0, n, NAN);
    put_layer_types(s, n_layer, &swa, &full);
    if (swa < 0) swa = 0;
    if (full < 0) full = 0;
    put(s, "num_attention_heads", heads);
    put(s, "head_dim", whole_number(s, "attention.key_length_swa", 0, n, number(s, "attention.key_length", 0, n, NAN)));
    put(s, "global_head_dim", whole_number(s, "attention.key_length", 0, n, NAN));
    put(s, "num_key_value_heads", whole_number(s, "attention.head_count_kv", (uint64_t)swa, n, (double)heads));
    put(s, "num_global_key_value_heads", whole_number(s, "attention.head_count_kv", (uint64_t)full, n, (double)heads));
    put(s, "sliding_window", whole_number(s, "attention.sliding_window", 0, n, 512));
    int64_t shared = whole_number(s, "attention.shared_kv_layers", 0, n, 0);
    put(s, "num_kv_shared_layers", shared);
    for (int64_t i = 0; i < n_layer - shared && first_full < 0 && !s->rc; i++)
        if (number(s, "attention.sliding_window_pattern", (uint64_t)i, n, NAN) == 0) first_full = i;
    fa_buf_printf(s->json, ",\"attention_k_eq_v\":%s",
                  first_full >= 0 && keys_are_values(s, first_full) ? "true" : "false");
    int64_t ff = whole_number(s, "feed_forward_length", 0, n, NAN);
    put(s, "intermediate_size", ff);
    bool wide = whole_number(s, "feed_forward_length", n - 1, n, NAN) == 2 * ff;
    fa_buf_printf(s->json, ",\"use_double_wide_mlp\":%s", wide ? "true" : "false");
}

/* The share of rotated pairs is in the tensor rope_freqs: others are divided by 1e30. */
static void put_ropes(source *s, int64_t n_layer) {
    uint64_t n = (uint64_t)n_layer;
    bool factors = fa_ckpt_find(s->c, "rope_freqs.weight") != NULL;
    fa_buf_printf(s->json,
                  ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"%s\",\"partial_rotary_factor\":0.25,",
                  factors ? "default" : "proportional");
    put_float(s, "rope_theta", number(s, "rope.freq_base", 0, n, 1e6));
    fa_buf_puts(s->json, "},\"sliding_attention\":{\"rope_type\":\"default\",");
    put_float(s, "rope_theta", number(s, "rope.freq_base_swa", 0, n, 1e4));
    fa_buf_puts(s->json, "}}");
}

static void put_experts(source *s, int64_t n_layer) {
    uint64_t n = (uint64_t)n_layer;
    int64_t experts = whole_number(s, "expert_count", 0, n, 0);
    if (!experts) return;
    fa_buf_puts(s->json, ",\"enable_moe_block\":true");
    put(s, "num_experts", experts);
    put(s, "top_k_experts", whole_number(s, "expert_used_count", 0, n, NAN));
    put(s, "moe_intermediate_size", whole_number(s, "expert_feed_forward_length", 0, n, NAN));
}

int fa_gguf_gemma4_config(fa_buf *json, const fa_ckpt *c, const char *file, fa_error *err) {
    source s = {c, file, json, err, 0};
    int64_t n_layer = whole_number(&s, "block_count", 0, 0, NAN);
    if (!s.rc && (n_layer < 1 || n_layer > 65536)) failed(&s, "block_count", "is no number of layers");
    if (s.rc) return s.rc;
    put(&s, "num_hidden_layers", n_layer);
    put(&s, "hidden_size", whole_number(&s, "embedding_length", 0, 0, NAN));
    put(&s, "max_position_embeddings", whole_number(&s, "context_length", 0, 0, 131072));
    put_heads(&s, n_layer);
    put_ropes(&s, n_layer);
    put_experts(&s, n_layer);
    const fa_ckpt_tensor *ple = fa_ckpt_find(c, "model.embed_tokens_per_layer.weight");
    put(&s, "hidden_size_per_layer_input", whole_number(&s, "embedding_length_per_layer_input", 0, 0, 0));
    if (ple && ple->n_dim == 2) put(&s, "vocab_size_per_layer_input", ple->dim[0]);
    fa_buf_puts(json, ",");
    put_float(&s, "rms_norm_eps", number(&s, "attention.layer_norm_rms_epsilon", 0, 0, 1e-6));
    fa_buf_puts(json, ",");
    put_float(&s, "final_logit_softcapping", number(&s, "final_logit_softcapping", 0, 0, 0));
    fa_buf_printf(json, ",\"tie_word_embeddings\":%s", fa_ckpt_find(c, "lm_head.weight") ? "false" : "true");
    return s.rc;
}
