/* GGUF in HuggingFace words: a config.json made from the metadata, so that families know one spelling only (tensor
 * names: gguf_names.c). Facts about what the GGUF converter changes in the weights go into the config under "ffai_"
 * keys; docs/formats.md lists them. */
#include "base/alloc.h"
#include "io/ckpt_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One row per architecture whose weights and metadata are understood. */
typedef struct arch_row {
    const char *arch, *model_type, *class_name;
    double rope_theta; /* when rope.freq_base is missing */
    bool gemma;        /* (1 + w) norms stored as 1 + w, gelu, scaled embeddings */
    bool pairs;        /* q/k rows permuted so that RoPE turns neighbours (2i, 2i+1) */
} arch_row;

static const arch_row archs[] = {
    {"llama", "llama", "LlamaForCausalLM", 10000, false, true},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", 10000, false, false},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", 10000, false, false},
    {"gemma", "gemma", "GemmaForCausalLM", 10000, true, false},
    {"gemma2", "gemma2", "Gemma2ForCausalLM", 10000, true, false},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", 1000000, true, false},
    {"granite", "granite", "GraniteForCausalLM", 10000, false, true},
    {"starcoder2", "starcoder2", "Starcoder2ForCausalLM", 10000, false, false},
    {"smollm3", "smollm3", "SmolLM3ForCausalLM", 10000, false, true},
    {"olmo", "olmo", "OlmoForCausalLM", 10000, false, true},
    {"gemma4", "gemma4_text", "Gemma4ForCausalLM", 1000000, false, false},
    {"internlm2", "internlm2", "InternLM2ForCausalLM", 10000, false, true},
    {"olmo2", "olmo2", "Olmo2ForCausalLM", 10000, false, false},
    {"phi3", "phi3", "Phi3ForCausalLM", 10000, false, false},
    {"qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM", 10000, false, false},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", 10000, false, false},
    {"qwen3vlmoe", "qwen3_vl_moe_text", "Qwen3VLMoeForConditionalGeneration", 10000, false, false},
    {"granitemoe", "granitemoe", "GraniteMoeForCausalLM", 10000, false, true},
    {"gpt-oss", "gpt_oss", "GptOssForCausalLM", 150000, false, false},
    {"mamba", "mamba", "MambaForCausalLM", 0, false, false},
    {"jamba", "jamba", "JambaForCausalLM", 0, false, false},
    {"mamba2", "mamba2", "Mamba2ForCausalLM", 0, false, false},
    {"granitehybrid", "granitemoehybrid", "GraniteMoeHybridForCausalLM", 10000, false, true},
    {"lfm2", "lfm2", "Lfm2ForCausalLM", 1000000, false, false},
    {"lfm2moe", "lfm2_moe", "Lfm2MoeForCausalLM", 1000000, false, false},
    {"nemotron_h", "nemotron_h", "NemotronHForCausalLM", 0, false, false},
    {"nemotron_h_moe", "nemotron_h", "NemotronHForCausalLM", 0, false, false},
    {"falcon-h1", "falcon_h1", "FalconH1ForCausalLM", 100000000000.0, false, false},
    {"qwen35", "qwen3_5_text", "Qwen3_5ForCausalLM", 10000, false, false},
    {"qwen35moe", "qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", 10000, false, false},
    {"qwen3next", "qwen3_next", "Qwen3NextForCausalLM", 10000, false, false},
};

static const arch_row *find_arch(const char *arch) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strcmp(archs[i].arch, arch) == 0) return &archs[i];
    return NULL;
}

/* ---- metadata ---- */

typedef struct maker {
    fa_buf *json;
    const fa_ckpt *c;
    const fa_gguf *g;
    const char *file, *arch;
    const arch_row
        *row; /* NULL: an architecture that is not understood; only put_model_type and put_token_ids see that */
    fa_error *err;
} maker;

static const fa_gguf_value *meta(const maker *m, const char *key) {
    char full[160];
    snprintf(full, sizeof full, "%s.%s", m->arch, key);
    return fa_gguf_find(m->g, full);
}

static bool is_number(fa_gguf_type t) { return t != FA_GGUF_STR && t != FA_GGUF_ARR; }

/* A number, or an array with one value for all layers. False: absent. Different values per layer are an error. */
static int number(const maker *m, const char *key, bool *found, double *value) {
    const fa_gguf_value *v = meta(m, key);
    *found = false;
    if (!v) return FFAI_OK;
    if (is_number(v->type)) {
        *value = v->f;
    } else if (v->type == FA_GGUF_ARR && v->elem != FA_GGUF_STR && v->n) {
        *value = fa_gguf_num_at(v, 0);
        for (uint64_t i = 1; i < v->n; i++)
            if (fa_gguf_num_at(v, i) != *value)
                return fa_fail(m->err, FFAI_ENOTSUP, "%s: key %s.%s differs from layer to layer", m->file, m->arch,
                               key);
    } else {
        return fa_fail(m->err, FFAI_EFORMAT, "%s: key %s.%s is not a number", m->file, m->arch, key);
    }
    if (!isfinite(*value)) return fa_fail(m->err, FFAI_EFORMAT, "%s: key %s.%s is not finite", m->file, m->arch, key);
    *found = true;
    return FFAI_OK;
}

/* A positive integer; *value keeps `otherwise` when the key is absent, or it is an error when otherwise is 0. */
static int dimension(const maker *m, const char *key, int64_t otherwise, int64_t *value) {
    bool found;
    double d = 0;
    int rc = number(m, key, &found, &d);
    *value = otherwise;
    if (rc) return rc;
    if (!found)
        return otherwise ? FFAI_OK : fa_fail(m->err, FFAI_EFORMAT, "%s: key %s.%s is missing", m->file, m->arch, key);
    if (!(d >= 1 && d <= INT32_MAX) || d != floor(d))
        return fa_fail(m->err, FFAI_EFORMAT, "%s: key %s.%s: %g is not a positive integer", m->file, m->arch, key, d);
    *value = (int64_t)d;
    return FFAI_OK;
}

/* Key heads, of which layers without attention have none: the first number that is not 0. */
static int key_heads(const maker *m, int64_t n_head, int64_t *n_kv) {
    const fa_gguf_value *v = meta(m, "attention.head_count_kv");
    bool list = v && v->type == FA_GGUF_ARR && v->elem != FA_GGUF_STR && v->elem != FA_GGUF_ARR;
    if (!list || !(fa_gguf_is_ssm(m->arch) || fa_gguf_is_hybrid(m->arch)))
        return dimension(m, "attention.head_count_kv", n_head, n_kv);
    double d = 0;
    for (uint64_t i = 0; i < v->n; i++) {
        double at = fa_gguf_num_at(v, i);
        if (at == 0) continue;
        if (!(at >= 1 && at <= INT32_MAX) || at != floor(at) || (d != 0 && at != d))
            return fa_fail(m->err, FFAI_ENOTSUP, "%s: key %s.attention.head_count_kv: %g key heads", m->file, m->arch,
                           at);
        d = at;
    }
    *n_kv = d != 0 ? (int64_t)d : n_head;
    return FFAI_OK;
}

static void put_int(const maker *m, const char *key, int64_t v) {
    fa_buf_printf(m->json, ",\"%s\":%lld", key, (long long)v);
}
static void put_text(const maker *m, const char *key, const char *v) {
    fa_buf_printf(m->json, ",\"%s\":\"%s\"", key, v);
}
static void put_bool(const maker *m, const char *key, bool v) {
    fa_buf_printf(m->json, ",\"%s\":%s", key, v ? "true" : "false");
}

/* Metadata floats are f32: the shortest decimal that reads back as the same float ("1e-06", not 9.99999997e-07). */
static void put_value(const maker *m, double v) {
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (back == v || ((double)(float)v == v && (float)back == (float)v)) break;
    }
    for (char *p = text; *p; p++) /* a host may have set a locale that writes 0,5 */
        if (*p == ',') *p = '.';
    fa_buf_puts(m->json, text);
}

static void put_num(const maker *m, const char *key, double v) {
    fa_buf_printf(m->json, ",\"%s\":", key);
    put_value(m, v);
}

/* Writes a number under another name if the file has it. */
static int copy_number(const maker *m, const char *from, const char *to) {
    bool found;
    double v;
    int rc = number(m, from, &found, &v);
    if (!rc && found) put_num(m, to, v);
    return rc;
}

/* Numbers that only change their names. Each belongs to a few families; the others do not read it. */
static int copy_numbers(const maker *m) {
    static const struct {
        const char *from, *to;
    } keys[] = {{"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
                {"attention.layer_norm_rms_epsilon", "layer_norm_epsilon"},
                {"attention.layer_norm_rms_epsilon", "norm_eps"},
                {"attention.layer_norm_epsilon", "norm_epsilon"},
                {"attention.clamp_kqv", "clip_qkv"},
                {"attention.scale", "attention_multiplier"},
                {"embedding_scale", "embedding_multiplier"},
                {"residual_scale", "residual_multiplier"},
                {"logit_scale", "logits_scaling"}};
    int rc = FFAI_OK;
    for (size_t i = 0; !rc && i < sizeof keys / sizeof *keys; i++) rc = copy_number(m, keys[i].from, keys[i].to);
    return rc;
}

/* Is the string value of a key one of this text? */
static bool text_is(const fa_gguf_value *v, const char *text) {
    return v && v->type == FA_GGUF_STR && v->n == strlen(text) && memcmp(v->data, text, v->n) == 0;
}

/* A list of factors from a tensor [n] of the file. */
static int put_factors(const maker *m, const char *key, const char *tensor) {
    const fa_ckpt_tensor *t = fa_ckpt_find(m->c, tensor);
    if (!t || t->dtype != FA_F32 || t->n_dim != 1 || t->dim[0] > 65536)
        return fa_fail(m->err, FFAI_EFORMAT, "%s: tensor %s is missing or is no list of F32 factors", m->file, tensor);
    fa_buf_printf(m->json, ",\"%s\":[", key);
    for (int64_t i = 0; i < t->dim[0]; i++) {
        float v;
        fa_to_f32(FA_F32, t->data + (size_t)i * sizeof v, 1, &v);
        if (!isfinite(v)) return fa_fail(m->err, FFAI_EFORMAT, "%s: tensor %s is not finite", m->file, tensor);
        if (i) fa_buf_puts(m->json, ",");
        put_value(m, v);
    }
    fa_buf_puts(m->json, "]");
    return FFAI_OK;
}

/* LongRoPE: two tensors of factors, and what cosines and sines are scaled with. */
static int put_longrope(const maker *m, bool has_attn, double attn) {
    fa_buf_puts(m->json, ",\"rope_scaling\":{\"rope_type\":\"longrope\"");
    int rc = put_factors(m, "short_factor", "rope_factors_short.weight");
    if (!rc) rc = put_factors(m, "long_factor", "rope_factors_long.weight");
    if (!rc && has_attn) put_num(m, "attention_factor", attn);
    fa_buf_puts(m->json, "}");
    return rc ? rc : copy_number(m, "rope.scaling.original_context_length", "original_max_position_embeddings");
}

static int put_rope_scaling(const maker *m) {
    bool found, has_attn, has_old;
    double factor = 1, attn = 1, old = 1;
    const fa_gguf_value *type = meta(m, "rope.scaling.type");
    int rc = number(m, "rope.scaling.factor", &found, &factor);
    if (!rc) rc = number(m, "rope.scaling.attn_factor", &has_attn, &attn);
    if (!rc && !has_attn) rc = number(m, "rope.scaling.yarn_attn_factor", &has_attn, &attn);
    if (!rc) rc = number(m, "rope.scale_linear", &has_old, &old); /* files of 2023 */
    if (rc) return rc;
    if (fa_ckpt_find(m->c, "rope_factors_long.weight")) return put_longrope(m, has_attn, attn);
    if (!type && !found && has_old) factor = old;
    bool yarn = text_is(type, "yarn"), linear = text_is(type, "linear") || (!type && (found || has_old));
    if (type && !yarn && !linear && !text_is(type, "none"))
        return fa_fail(m->err, FFAI_ENOTSUP,
                       "%s: key %s.rope.scaling.type: \"%.*s\" is not known (none, linear, yarn are)", m->file, m->arch,
                       type->type != FA_GGUF_STR || type->n > 60 ? 0 : (int)type->n, (const char *)type->data);
    bool gpt_oss = strcmp(m->arch, "gpt-oss") == 0; /* which has YaRN where nothing is said, with exact borders */
    if ((!yarn && !linear) || factor == 1) {
        if (gpt_oss) fa_buf_puts(m->json, ",\"rope_scaling\":{\"rope_type\":\"default\"}");
        return FFAI_OK;
    }
    if (!(factor > 0))
        return fa_fail(m->err, FFAI_EFORMAT, "%s: key %s.rope.scaling.factor: %g", m->file, m->arch, factor);
    fa_buf_printf(m->json, ",\"rope_scaling\":{\"rope_type\":\"%s\"", yarn ? "yarn" : "linear");
    put_num(m, "factor", factor);
    if (yarn) {
        if (gpt_oss) put_bool(m, "truncate", false);
        rc = copy_number(m, "rope.scaling.original_context_length", "original_max_position_embeddings");
        if (!rc) rc = copy_number(m, "rope.scaling.yarn_beta_fast", "beta_fast");
        if (!rc) rc = copy_number(m, "rope.scaling.yarn_beta_slow", "beta_slow");
        /* ggml multiplies YaRN's own factor; HuggingFace's attention_factor replaces it */
        if (has_attn && attn != 1) put_num(m, "attention_factor", attn * (factor > 1 ? 0.1 * log(factor) + 1 : 1));
    }
    fa_buf_puts(m->json, "}");
    return rc;
}

static int put_rope(const maker *m, int64_t head_dim) {
    bool found;
    double theta = 0;
    int64_t rope_dim;
    int rc = number(m, "rope.freq_base", &found, &theta);
    if (!rc) rc = dimension(m, "rope.dimension_count", head_dim, &rope_dim);
    if (rc) return rc;
    if (!found) theta = m->row->rope_theta;
    put_num(m, "rope_theta", theta);
    if (rope_dim != head_dim || fa_gguf_is_gdn(m->arch)) /* whose families rotate a part when nothing is said */
        put_num(m, "partial_rotary_factor", (double)rope_dim / (double)head_dim);
    return put_rope_scaling(m);
}

/* attention.sliding_window_pattern: one full layer in every n, or a flag per layer. */
static void put_window_pattern(const maker *m, int64_t n_layer, int64_t otherwise) {
    const fa_gguf_value *v = meta(m, "attention.sliding_window_pattern");
    if (v && v->type == FA_GGUF_ARR && v->elem != FA_GGUF_STR && v->n == (uint64_t)n_layer) {
        fa_buf_puts(m->json, ",\"layer_types\":[");
        for (uint64_t i = 0; i < v->n; i++)
            fa_buf_printf(m->json, "%s\"%s\"", i ? "," : "",
                          fa_gguf_num_at(v, i) != 0 ? "sliding_attention" : "full_attention");
        fa_buf_puts(m->json, "]");
        return;
    }
    put_int(m, "sliding_window_pattern", v && is_number(v->type) && v->i > 0 && v->i <= n_layer ? v->i : otherwise);
}

/* What Gemma has beyond the others. The attention scale is 1 / sqrt(head_dim), but 1 / sqrt(hidden / heads) in the two
 * 27B models, which GGUF does not say: as in llama.cpp, they are known by their number of layers. */
static int put_gemma(const maker *m, int64_t n_layer, int64_t hidden, int64_t n_head, int64_t head_dim) {
    bool v2 = strcmp(m->arch, "gemma2") == 0, v3 = strcmp(m->arch, "gemma3") == 0, found;
    int64_t window;
    double theta = 10000;
    put_text(m, "hidden_activation", "gelu_pytorch_tanh");
    put_bool(m, "ffai_norm_offset_applied", true);
    if (!v2 && !v3) return FFAI_OK;
    bool is_27b = n_layer == (v2 ? 46 : 62);
    put_num(m, "query_pre_attn_scalar", is_27b ? (double)hidden / (double)n_head : (double)head_dim);
    int rc = dimension(m, "attention.sliding_window", v2 ? 4096 : 1024, &window);
    if (!rc) put_int(m, "sliding_window", window);
    put_window_pattern(m, n_layer, v2 ? 2 : 6);
    if (!rc) rc = copy_number(m, "attn_logit_softcapping", "attn_logit_softcapping");
    if (!rc) rc = copy_number(m, "final_logit_softcapping", "final_logit_softcapping");
    if (rc || v2) return rc;
    rc = number(m, "rope.freq_base_swa", &found, &theta);
    if (!rc) put_num(m, "rope_local_base_freq", theta);
    return rc;
}

/* Token ids from the tokenizer's metadata. Several end tokens (of sequence, of turn, of message) become a list, as in
 * generation configs. */
static void put_token_ids(const maker *m) {
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    const fa_gguf_value *bos = fa_gguf_find(m->g, "tokenizer.ggml.bos_token_id"),
                        *pad = fa_gguf_find(m->g, "tokenizer.ggml.padding_token_id");
    int64_t id[3];
    int n = 0;
    if (bos && is_number(bos->type)) put_int(m, "bos_token_id", bos->i);
    if (pad && is_number(pad->type)) put_int(m, "pad_token_id", pad->i);
    for (size_t i = 0; i < 3; i++) {
        const fa_gguf_value *v = fa_gguf_find(m->g, ends[i]);
        bool fresh = v && is_number(v->type);
        for (int k = 0; k < n && fresh; k++) fresh = id[k] != v->i;
        if (fresh) id[n++] = v->i;
    }
    if (n == 1) put_int(m, "eos_token_id", id[0]);
    if (n < 2) return;
    fa_buf_puts(m->json, ",\"eos_token_id\":[");
    for (int k = 0; k < n; k++) fa_buf_printf(m->json, "%s%lld", k ? "," : "", (long long)id[k]);
    fa_buf_puts(m->json, "]");
}

/* Rows of the embedding; a file without it (metadata only) says the size itself. */
static int put_vocab(const maker *m) {
    const fa_ckpt_tensor *t = fa_ckpt_find(m->c, "model.embed_tokens.weight");
    const fa_gguf_value *tokens = fa_gguf_find(m->g, "tokenizer.ggml.tokens");
    int64_t n = t && t->n_dim == 2 ? t->dim[0] : 0;
    int rc = FFAI_OK;
    if (!n)
        rc = dimension(
            m, "vocab_size",
            tokens && tokens->type == FA_GGUF_ARR && tokens->n && tokens->n <= INT32_MAX ? (int64_t)tokens->n : 0, &n);
    if (!rc) put_int(m, "vocab_size", n);
    return rc;
}

/* The tensor of a layer; NULL: there is none. */
static const fa_ckpt_tensor *in_layer_tensor(const maker *m, int64_t layer, const char *name) {
    char full[128];
    snprintf(full, sizeof full, "model.layers.%lld.%s.weight", (long long)layer, name);
    return fa_ckpt_find(m->c, full);
}

/* Everything that can be read off the list of tensors. */
static void put_from_tensors(const maker *m, int64_t n_layer) {
    put_bool(m, "tie_word_embeddings", !fa_ckpt_find(m->c, "lm_head.weight"));
    int64_t i = 0; /* the first layer that attends */
    while (i < n_layer && !in_layer_tensor(m, i, "self_attn.q_proj")) i++;
    char name[64];
    snprintf(name, sizeof name, "model.layers.%lld.self_attn.q_proj.bias", (long long)i);
    bool bias = fa_ckpt_find(m->c, name) != NULL;
    put_bool(m, "attention_bias", bias);
    put_bool(m, "use_bias", bias); /* Starcoder 2's key */
    if (strcmp(m->arch, "internlm2") == 0) put_bool(m, "bias", bias);
    put_bool(m, "mlp_bias", fa_ckpt_find(m->c, "model.layers.0.mlp.gate_proj.bias") != NULL);
    if (m->row->pairs) put_bool(m, "ffai_rope_interleaved", true);
    if (fa_ckpt_find(m->c, "rope_freqs.weight")) put_bool(m, "ffai_rope_freqs", true);
}

static const char EXPERT_FF[] = "expert_feed_forward_length";

static bool has_experts(const maker *m) {
    const fa_gguf_value *n = meta(m, "expert_count");
    return n && is_number(n->type) && n->i > 0;
}

/* Layers of Qwen that have no router have an MLP; widths that old files do not say are those of the tensors. */
static int put_qwen_experts(const maker *m, int64_t n_layer) {
    int64_t width = 0, shared = 0;
    const char *comma = "";
    fa_buf_puts(m->json, ",\"mlp_only_layers\":[");
    for (int64_t i = 0; i < n_layer; i++) {
        const fa_ckpt_tensor *up = in_layer_tensor(m, i, "mlp.switch_mlp.up_proj"),
                             *one = in_layer_tensor(m, i, "mlp.shared_expert.up_proj");
        if (up && up->n_dim == 3) width = up->dim[1];
        if (one && one->n_dim == 2) shared = one->dim[0];
        if (up || !in_layer_tensor(m, i, "mlp.up_proj")) continue;
        fa_buf_printf(m->json, "%s%lld", comma, (long long)i);
        comma = ",";
    }
    fa_buf_puts(m->json, "]");
    const fa_gguf_value *norm = meta(m, "expert_weights_norm");
    put_bool(m, "norm_topk_prob", norm && norm->type == FA_GGUF_BOOL ? norm->i != 0 : strcmp(m->arch, "qwen2moe") != 0);
    put_bool(m, "qkv_bias",
             in_layer_tensor(m, 0, "self_attn.q_proj") && fa_ckpt_find(m->c, "model.layers.0.self_attn.q_proj.bias"));
    int rc = dimension(m, EXPERT_FF, width, &width);
    if (!rc) put_int(m, "moe_intermediate_size", width);
    if (!rc && shared) rc = dimension(m, "expert_shared_feed_forward_length", shared, &shared);
    if (!rc && shared) put_int(m, "shared_expert_intermediate_size", shared);
    return rc;
}

static int put_experts(const maker *m, int64_t n_layer) {
    int64_t n = 0, used = 0;
    int rc = dimension(m, "expert_count", 0, &n);
    if (!rc) rc = dimension(m, "expert_used_count", 0, &used);
    if (rc) return rc;
    put_int(m, "num_local_experts", n);
    put_int(m, "num_experts_per_tok", used);
    if (strncmp(m->arch, "qwen", 4) == 0) return put_qwen_experts(m, n_layer);
    if (strcmp(m->arch, "granitemoe") == 0 && in_layer_tensor(m, 0, "mlp.shared_expert.up_proj"))
        return fa_fail(m->err, FFAI_ENOTSUP, "%s: a shared expert is not known for architecture granitemoe", m->file);
    return FFAI_OK;
}

/* "model_type" and "architectures" begin the object. */
static void put_model_type(const maker *m) {
    const char *type = m->row ? m->row->model_type : m->arch, *class_name = m->row ? m->row->class_name : "";
    bool llama = strcmp(m->arch, "llama") == 0, gemma4 = strcmp(m->arch, "gemma4") == 0,
         moe = has_experts(m) && !fa_gguf_hf_moe(m->arch) && !gemma4;
    if (llama && has_experts(m)) {
        type = "mixtral";
        class_name = "MixtralForCausalLM";
    } else if (llama && meta(m, "attention.sliding_window")) {
        type = "mistral";
        class_name = "MistralForCausalLM";
    }
    if (m->row && strcmp(m->arch, "olmo2") == 0 && meta(m, "attention.sliding_window")) {
        type = "olmo3";
        class_name = "Olmo3ForCausalLM";
    }
    const fa_gguf_value *norms = strcmp(m->arch, "mamba") == 0 ? meta(m, "ssm.dt_b_c_rms") : NULL;
    if (norms && norms->type == FA_GGUF_BOOL && norms->i) {
        type = "falcon_mamba";
        class_name = "FalconMambaForCausalLM";
    }
    /* an architecture that is not understood must not be taken for the HuggingFace type of the same name */
    bool known = m->row && !moe;
    fa_buf_printf(m->json, "{\"model_type\":\"%s%s%s\"", known ? "" : "gguf:", type, moe ? "-moe" : "");
    if (known) fa_buf_printf(m->json, ",\"architectures\":[\"%s\"]", class_name);
    put_text(m, "ffai_gguf_architecture", m->arch);
}

/* The keys of an architecture that is understood. */
static int put_known(const maker *m) {
    int64_t hidden, n_layer, n_next = 0, n_head, n_kv, ffn, head_dim, value_dim, ctx;
    int rc = dimension(m, "embedding_length", 0, &hidden);
    if (!rc) rc = dimension(m, "block_count", 0, &n_layer);
    if (!rc && fa_gguf_is_gdn(m->arch)) rc = fa_gguf_gdn_next_layers(m->c, m->file, m->arch, &n_next, m->err);
    if (!rc && ((n_layer -= n_next) < 1 || n_layer > 65536))
        rc = fa_fail(m->err, FFAI_EFORMAT, "%s: key %s.block_count leaves %lld layers", m->file, m->arch,
                     (long long)n_layer);
    if (!rc) rc = dimension(m, "attention.head_count", 0, &n_head);
    if (!rc) rc = key_heads(m, n_head, &n_kv);
    /* those that are not here have experts in all layers */
    bool own_mlp = !has_experts(m) || strcmp(m->arch, "lfm2moe") == 0 ||
                   (strncmp(m->arch, "qwen", 4) == 0 && strcmp(m->arch, "qwen35moe") != 0);
    if (!rc) rc = dimension(m, own_mlp || meta(m, "feed_forward_length") ? "feed_forward_length" : EXPERT_FF, 0, &ffn);
    if (!rc && !own_mlp) rc = dimension(m, EXPERT_FF, ffn, &ffn);
    if (!rc) rc = dimension(m, "context_length", 2048, &ctx);
    if (!rc) rc = dimension(m, "attention.key_length", hidden / n_head ? hidden / n_head : 1, &head_dim);
    if (!rc) rc = dimension(m, "attention.value_length", head_dim, &value_dim);
    if (rc) return rc;
    if (value_dim != head_dim)
        return fa_fail(m->err, FFAI_ENOTSUP, "%s: keys of %lld and values of %lld per head", m->file,
                       (long long)head_dim, (long long)value_dim);
    put_int(m, "hidden_size", hidden);
    put_int(m, "num_hidden_layers", n_layer);
    put_int(m, "num_attention_heads", n_head);
    put_int(m, "num_key_value_heads", n_kv);
    put_int(m, "head_dim", head_dim);
    put_int(m, "intermediate_size", ffn);
    put_int(m, "max_position_embeddings", ctx);
    bool gelu = m->row->gemma || strcmp(m->arch, "starcoder2") == 0;
    put_text(m, "hidden_act", gelu ? "gelu_pytorch_tanh" : "silu");
    if ((rc = put_vocab(m)) != 0 || (rc = copy_numbers(m)) != 0) return rc;
    if ((rc = put_rope(m, head_dim)) != 0) return rc;
    if (m->row->gemma)
        rc = put_gemma(m, n_layer, hidden, n_head, head_dim);
    else
        rc = copy_number(m, "attention.sliding_window", "sliding_window");
    if (!rc && strcmp(m->arch, "olmo2") == 0 && meta(m, "attention.sliding_window")) put_window_pattern(m, n_layer, 4);
    if (!rc && has_experts(m)) rc = put_experts(m, n_layer);
    if (!rc && fa_gguf_is_gdn(m->arch)) rc = fa_gguf_gdn_config(m->json, m->c, m->file, m->arch, n_layer, m->err);
    if (rc) return rc;
    put_from_tensors(m, n_layer);
    return FFAI_OK;
}

int fa_gguf_hf_config(fa_buf *json, const fa_ckpt *c, const char *file, fa_error *err) {
    char arch[64] = "";
    const fa_gguf_value *name = fa_gguf_find(c->gguf[0], "general.architecture");
    if (name && name->n < sizeof arch) memcpy(arch, name->data, name->n);
    maker m = {json, c, c->gguf[0], file, arch, find_arch(arch), err};
    put_model_type(&m);
    if (m.row) {
        bool gemma4 = strcmp(arch, "gemma4") == 0, alone = fa_gguf_ssm_alone(arch);
        bool vocab_only = gemma4 || alone || strncmp(arch, "nemotron_h", 10) == 0;
        int rc = vocab_only ? put_vocab(&m) : put_known(&m);
        if (!rc && gemma4) rc = fa_gguf_gemma4_config(json, c, file, err);
        if (!rc && alone) rc = copy_numbers(&m);
        if (!rc && fa_gguf_is_hybrid(arch)) rc = fa_gguf_hybrid_config(json, c, file, arch, err);
        if (!rc && fa_gguf_is_ssm(arch)) rc = fa_gguf_ssm_config(json, c, file, arch, err);
        if (rc) return rc;
    }
    put_token_ids(&m);
    fa_buf_puts(json, "}");
    return FFAI_OK;
}
