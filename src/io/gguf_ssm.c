/* Mamba mixers in GGUF (architectures "mamba", also Falcon Mamba, "jamba"; Mamba 2: "mamba2", "granitehybrid",
 * "falcon-h1"): their tensor names and metadata in HuggingFace words, see gguf_hf.c. ssm.time_step_rank is the rank of
 * Mamba 1's dt, in Mamba 2 the number of heads, that are ssm.inner_size wide together. The converter stores
 * -exp(A_log), D with a second dimension, the gated norm as a row per group, and the second norm of Falcon H1 without
 * ".weight"; Falcon H1's multipliers are in its weights. Layers with mixers instead of attention are those with no key
 * heads. */
#include "io/gguf_keys.h"

#include <stdio.h>
#include <string.h>

/* behind "blk.<n>." */
typedef struct rename_row {
    const char *gguf, *hf; /* below the mixer */
} rename_row;

static const rename_row mixer[] = {
    {"ssm_in.weight", "in_proj.weight"},
    {"ssm_in.bias", "in_proj.bias"},
    {"ssm_conv1d.weight", "conv1d.weight"},
    {"ssm_conv1d.bias", "conv1d.bias"},
    {"ssm_dt.bias", "dt_bias"},
    {"ssm_a", "A_log"},
    {"ssm_d", "D"},
    {"ssm_norm.weight", "norm.weight"},
    {"ssm_out.weight", "out_proj.weight"},
    {"ssm_out.bias", "out_proj.bias"},
};

/* the same of Mamba 1, looked at first */
static const rename_row mixer1[] = {
    {"ssm_x.weight", "x_proj.weight"},
    {"ssm_dt.weight", "dt_proj.weight"},
    {"ssm_dt.bias", "dt_proj.bias"},
    {"ssm_dt_norm.weight", "dt_layernorm.weight"},
    {"ssm_b_norm.weight", "b_layernorm.weight"},
    {"ssm_c_norm.weight", "c_layernorm.weight"},
};

/* Is the mixer that of Mamba 1? Are there layers of other kinds? */
static bool is_first(const char *arch) { return strcmp(arch, "mamba") == 0 || strcmp(arch, "jamba") == 0; }
static bool is_pure(const char *arch) { return strcmp(arch, "mamba") == 0 || strcmp(arch, "mamba2") == 0; }

bool fa_gguf_is_ssm(const char *arch) {
    return is_pure(arch) || is_first(arch) || strcmp(arch, "granitehybrid") == 0 || strcmp(arch, "falcon-h1") == 0;
}

bool fa_gguf_ssm_alone(const char *arch) { return is_pure(arch); }

/* What a tensor is called below the mixer; NULL: it is none of its. */
static const char *mixer_name(const rename_row *rows, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].gguf, name) == 0) return rows[i].hf;
    return NULL;
}

bool fa_gguf_ssm_name(const char *arch, const char *name, const char *prefix, char *buf, size_t size) {
    const char *block = is_pure(arch) || strncmp(arch, "nemotron_h", 10) == 0 ? "mixer" : "mamba";
    const char *hf = is_first(arch) ? mixer_name(mixer1, sizeof mixer1 / sizeof *mixer1, name) : NULL;
    if (!hf) hf = mixer_name(mixer, sizeof mixer / sizeof *mixer, name);
    if (hf) return (size_t)snprintf(buf, size, "%s%s.%s", prefix, block, hf) < size;
    bool second = strcmp(arch, "falcon-h1") == 0 && (!strcmp(name, "ffn_norm") || !strcmp(name, "ffn_norm.weight"));
    return second && (size_t)snprintf(buf, size, "%spre_ff_layernorm.weight", prefix) < size;
}

bool fa_gguf_ssm_vector(const char *name) {
    const char *leaf = strncmp(name, "blk.", 4) == 0 ? strchr(name + 4, '.') : NULL;
    return leaf && (strcmp(leaf, ".ssm_d") == 0 || strcmp(leaf, ".ssm_norm.weight") == 0);
}

/* ---- metadata ---- */

static bool any_layer(const fa_gguf_keys *s, int64_t n_layer, const char *block, const char *leaf) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", block, leaf);
    return fa_gguf_any_layer(s, n_layer, name);
}

/* Keys of Mamba 1's mixer as transformers calls them in Mamba, or in Jamba. */
static void put_mixer1(fa_gguf_keys *s, int64_t hidden, int64_t n_layer, bool pure) {
    const char *block = pure ? "mixer" : "mamba";
    int64_t inner = fa_gguf_whole(s, "ssm.inner_size", -1, 1, -1);
    if (!s->rc && !pure && inner % hidden)
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.ssm.inner_size %lld is no multiple of %lld columns", s->file,
                        s->arch, (long long)inner, (long long)hidden);
    if (s->rc) return;
    fa_gguf_put_int(s, pure ? "intermediate_size" : "mamba_expand", pure ? inner : inner / hidden);
    fa_gguf_put_int(s, pure ? "state_size" : "mamba_d_state", fa_gguf_whole(s, "ssm.state_size", -1, 1, -1));
    fa_gguf_put_int(s, pure ? "conv_kernel" : "mamba_d_conv", fa_gguf_whole(s, "ssm.conv_kernel", -1, 1, -1));
    fa_gguf_put_int(s, pure ? "time_step_rank" : "mamba_dt_rank", fa_gguf_whole(s, "ssm.time_step_rank", -1, 1, -1));
    fa_gguf_put_bool(s, pure ? "use_conv_bias" : "mamba_conv_bias", any_layer(s, n_layer, block, "conv1d.bias"));
    fa_gguf_put_bool(s, pure ? "use_bias" : "mamba_proj_bias", any_layer(s, n_layer, block, "in_proj.bias"));
    fa_gguf_put_bool(s, "ffai_decay_applied", true);
}

/* A list of what layers have: a tensor of this name. */
static void put_layers(fa_gguf_keys *s, int64_t n_layer, const char *key, const char *tensor) {
    fa_buf_printf(s->json, ",\"%s\":[", key);
    for (int64_t i = 0; i < n_layer; i++)
        fa_buf_printf(s->json, "%s%s", i ? "," : "", fa_gguf_in_layer(s, i, tensor) ? "true" : "false");
    fa_buf_puts(s->json, "]");
}

/* Keys of the mixer as transformers calls them in Mamba 2, or elsewhere. */
static void put_mixer(fa_gguf_keys *s, int64_t hidden, int64_t n_layer, bool pure) {
    const char *block = pure ? "mixer" : "mamba";
    int64_t inner = fa_gguf_whole(s, "ssm.inner_size", -1, 1, -1),
            heads = fa_gguf_whole(s, "ssm.time_step_rank", -1, 1, -1);
    if (!s->rc && (inner % heads || (strcmp(s->arch, "falcon-h1") && inner % hidden)))
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.ssm.inner_size %lld does not fit %lld heads or %lld columns",
                        s->file, s->arch, (long long)inner, (long long)heads, (long long)hidden);
    if (s->rc) return;
    fa_gguf_put_int(s, pure ? "num_heads" : "mamba_n_heads", heads);
    fa_gguf_put_int(s, pure ? "head_dim" : "mamba_d_head", inner / heads);
    fa_gguf_put_int(s, pure ? "state_size" : "mamba_d_state", fa_gguf_whole(s, "ssm.state_size", -1, 1, -1));
    fa_gguf_put_int(s, pure ? "n_groups" : "mamba_n_groups", fa_gguf_whole(s, "ssm.group_count", -1, 1, 1));
    fa_gguf_put_int(s, pure ? "conv_kernel" : "mamba_d_conv", fa_gguf_whole(s, "ssm.conv_kernel", -1, 1, -1));
    fa_gguf_put_int(s, pure ? "expand" : "mamba_expand", inner / hidden ? inner / hidden : 1);
    fa_gguf_put_bool(s, pure ? "use_conv_bias" : "mamba_conv_bias", any_layer(s, n_layer, block, "conv1d.bias"));
    fa_gguf_put_bool(s, pure ? "use_bias" : "mamba_proj_bias", any_layer(s, n_layer, block, "in_proj.bias"));
    fa_gguf_put_bool(s, "ffai_decay_applied", true);
    if (strcmp(s->arch, "falcon-h1")) return;
    fa_gguf_put_int(s, "mamba_d_ssm", inner);
    fa_gguf_put_bool(s, "mamba_rms_norm", any_layer(s, n_layer, block, "norm.weight"));
    fa_gguf_put_bool(s, "mamba_norm_before_gate", false);
    fa_gguf_put_bool(s, "projectors_bias", any_layer(s, n_layer, block, "out_proj.bias"));
}

/* attention.head_count_kv: a number, or one for each layer, 0 where there is no attention. */
static void put_granite(fa_gguf_keys *s, int64_t n_layer) {
    fa_buf_puts(s->json, ",\"layer_types\":[");
    for (int64_t i = 0; i < n_layer && !s->rc; i++) {
        bool attends = fa_gguf_whole(s, "attention.head_count_kv", i, 0, 1) != 0;
        fa_buf_printf(s->json, "%s\"%s\"", i ? "," : "", attends ? "attention" : "mamba");
    }
    bool rotated = fa_gguf_true(s, "rope.scaling.finetuned", true);
    fa_buf_printf(s->json, "],\"position_embedding_type\":\"%s\"", rotated ? "rope" : "nope");
    fa_gguf_put_int(s, "shared_intermediate_size",
                    fa_gguf_whole(s, "expert_shared_feed_forward_length", -1, 1,
                                  fa_gguf_whole(s, "feed_forward_length", -1, 1, -1)));
    if (!fa_gguf_key(s, "expert_count")) fa_gguf_put_int(s, "num_local_experts", 0);
}

int fa_gguf_ssm_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, fa_error *err) {
    fa_gguf_keys s = {c, file, arch, json, err, 0};
    bool pure = is_pure(arch);
    int64_t hidden = fa_gguf_whole(&s, "embedding_length", -1, 1, -1),
            n_layer = fa_gguf_whole(&s, "block_count", -1, 1, -1);
    if (!s.rc && n_layer > 65536)
        s.rc = fa_fail(err, FFAI_EFORMAT, "%s: key %s.block_count is no number of layers", file, arch);
    if (!s.rc) (is_first(arch) ? put_mixer1 : put_mixer)(&s, hidden, n_layer, pure);
    if (!s.rc && strcmp(arch, "jamba") == 0) {
        put_layers(&s, n_layer, "ffai_mixer_layers", "mamba.A_log");
        put_layers(&s, n_layer, "ffai_expert_layers", "feed_forward.router.weight");
        if (!fa_gguf_key(&s, "expert_count")) fa_gguf_put_int(&s, "num_local_experts", 0);
    }
    if (!s.rc && strcmp(arch, "granitehybrid") == 0) put_granite(&s, n_layer);
    if (s.rc || !pure) return s.rc;
    fa_gguf_put_int(&s, "hidden_size", hidden);
    fa_gguf_put_int(&s, "num_hidden_layers", n_layer);
    fa_gguf_put_int(&s, "max_position_embeddings", fa_gguf_whole(&s, "context_length", -1, 1, 1 << 20));
    fa_gguf_put_bool(&s, "tie_word_embeddings", !fa_ckpt_find(c, "lm_head.weight"));
    return s.rc;
}
