/* Mamba mixers in GGUF (architectures "mamba", also Falcon Mamba, "jamba"; Mamba 2: "mamba2", "granitehybrid",
 * "falcon-h1"): their tensor names and metadata in HuggingFace words, see gguf_hf.c. ssm.time_step_rank is the rank of
 * Mamba 1's dt, in Mamba 2 the number of heads, that are ssm.inner_size wide together. The converter stores
 * -exp(A_log), D with a second dimension, the gated norm as a row per group, and the second norm of Falcon H1 without
 * ".weight"; Falcon H1's multipliers are in its weights. Layers with mixers instead of attention are those with no key
 * heads. */
#include "io/ckpt_impl.h"

#include <math.h>
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

typedef struct source {
    const fa_ckpt *c;
    const char *file, *arch;
    fa_buf *json;
    fa_error *err;
    int rc; /* of the first failure */
} source;

static const fa_gguf_value *meta(const source *s, const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", s->arch, key);
    return fa_gguf_find(s->c->gguf[0], full);
}

static bool is_number(const fa_gguf_value *v) { return v && v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR; }

/* A positive integer; absent: `otherwise`, or an error when that is 0. */
static int64_t whole(source *s, const char *key, int64_t otherwise) {
    const fa_gguf_value *v = meta(s, key);
    if (s->rc || (!v && otherwise)) return otherwise ? otherwise : 1;
    if (!v)
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.%s is missing", s->file, s->arch, key);
    else if (!is_number(v) || !(v->f >= 1 && v->f <= INT32_MAX) || v->f != floor(v->f))
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.%s is not a positive integer", s->file, s->arch, key);
    else
        return (int64_t)v->f;
    return 1;
}

static void put(source *s, const char *key, int64_t v) { fa_buf_printf(s->json, ",\"%s\":%lld", key, (long long)v); }
static void put_bool(source *s, const char *key, bool v) {
    fa_buf_printf(s->json, ",\"%s\":%s", key, v ? "true" : "false");
}

/* Is there such a tensor in a layer? */
static bool any_layer(const source *s, int64_t n_layer, const char *block, const char *leaf) {
    char name[96];
    for (int64_t i = 0; i < n_layer; i++) {
        snprintf(name, sizeof name, "model.layers.%lld.%s.%s", (long long)i, block, leaf);
        if (fa_ckpt_find(s->c, name)) return true;
    }
    return false;
}

/* Keys of Mamba 1's mixer as transformers calls them in Mamba, or in Jamba. */
static void put_mixer1(source *s, int64_t hidden, int64_t n_layer, bool pure) {
    const char *block = pure ? "mixer" : "mamba";
    int64_t inner = whole(s, "ssm.inner_size", 0);
    if (!s->rc && !pure && inner % hidden)
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.ssm.inner_size %lld is no multiple of %lld columns", s->file,
                        s->arch, (long long)inner, (long long)hidden);
    if (s->rc) return;
    put(s, pure ? "intermediate_size" : "mamba_expand", pure ? inner : inner / hidden);
    put(s, pure ? "state_size" : "mamba_d_state", whole(s, "ssm.state_size", 0));
    put(s, pure ? "conv_kernel" : "mamba_d_conv", whole(s, "ssm.conv_kernel", 0));
    put(s, pure ? "time_step_rank" : "mamba_dt_rank", whole(s, "ssm.time_step_rank", 0));
    put_bool(s, pure ? "use_conv_bias" : "mamba_conv_bias", any_layer(s, n_layer, block, "conv1d.bias"));
    put_bool(s, pure ? "use_bias" : "mamba_proj_bias", any_layer(s, n_layer, block, "in_proj.bias"));
    put_bool(s, "ffai_decay_as_is", true);
}

/* A list of what layers have: a tensor of this name. */
static void put_layers(source *s, int64_t n_layer, const char *key, const char *tensor) {
    char name[96];
    fa_buf_printf(s->json, ",\"%s\":[", key);
    for (int64_t i = 0; i < n_layer; i++) {
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)i, tensor);
        fa_buf_printf(s->json, "%s%s", i ? "," : "", fa_ckpt_find(s->c, name) ? "true" : "false");
    }
    fa_buf_puts(s->json, "]");
}

/* Keys of the mixer as transformers calls them in Mamba 2, or elsewhere. */
static void put_mixer(source *s, int64_t hidden, int64_t n_layer, bool pure) {
    const char *block = pure ? "mixer" : "mamba";
    int64_t inner = whole(s, "ssm.inner_size", 0), heads = whole(s, "ssm.time_step_rank", 0);
    if (!s->rc && (inner % heads || (strcmp(s->arch, "falcon-h1") && inner % hidden)))
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.ssm.inner_size %lld does not fit %lld heads or %lld columns",
                        s->file, s->arch, (long long)inner, (long long)heads, (long long)hidden);
    if (s->rc) return;
    put(s, pure ? "num_heads" : "mamba_n_heads", heads);
    put(s, pure ? "head_dim" : "mamba_d_head", inner / heads);
    put(s, pure ? "state_size" : "mamba_d_state", whole(s, "ssm.state_size", 0));
    put(s, pure ? "n_groups" : "mamba_n_groups", whole(s, "ssm.group_count", 1));
    put(s, pure ? "conv_kernel" : "mamba_d_conv", whole(s, "ssm.conv_kernel", 0));
    put(s, pure ? "expand" : "mamba_expand", inner / hidden ? inner / hidden : 1);
    put_bool(s, pure ? "use_conv_bias" : "mamba_conv_bias", any_layer(s, n_layer, block, "conv1d.bias"));
    put_bool(s, pure ? "use_bias" : "mamba_proj_bias", any_layer(s, n_layer, block, "in_proj.bias"));
    put_bool(s, "ffai_decay_as_is", true);
    if (strcmp(s->arch, "falcon-h1")) return;
    put(s, "mamba_d_ssm", inner);
    put_bool(s, "mamba_rms_norm", any_layer(s, n_layer, block, "norm.weight"));
    put_bool(s, "mamba_norm_before_gate", false);
    put_bool(s, "projectors_bias", any_layer(s, n_layer, block, "out_proj.bias"));
}

/* attention.head_count_kv: a number, or one for each layer, 0 where there is no attention. */
static void put_granite(source *s, int64_t n_layer) {
    const fa_gguf_value *kv = meta(s, "attention.head_count_kv"), *rope = meta(s, "rope.scaling.finetuned");
    bool list = kv && kv->type == FA_GGUF_ARR && kv->elem != FA_GGUF_STR && kv->elem != FA_GGUF_ARR;
    if (list && kv->n < (uint64_t)n_layer)
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.attention.head_count_kv is not a number for every layer",
                        s->file, s->arch);
    if (s->rc) return;
    fa_buf_puts(s->json, ",\"layer_types\":[");
    for (int64_t i = 0; i < n_layer; i++) {
        bool attends = list ? fa_gguf_num_at(kv, (uint64_t)i) != 0 : !is_number(kv) || kv->f != 0;
        fa_buf_printf(s->json, "%s\"%s\"", i ? "," : "", attends ? "attention" : "mamba");
    }
    bool rotated = !is_number(rope) || rope->i != 0;
    fa_buf_printf(s->json, "],\"position_embedding_type\":\"%s\"", rotated ? "rope" : "nope");
    put(s, "shared_intermediate_size",
        whole(s, "expert_shared_feed_forward_length", whole(s, "feed_forward_length", 0)));
    if (!meta(s, "expert_count")) put(s, "num_local_experts", 0);
}

int fa_gguf_ssm_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, fa_error *err) {
    source s = {c, file, arch, json, err, 0};
    bool pure = is_pure(arch);
    int64_t hidden = whole(&s, "embedding_length", 0), n_layer = whole(&s, "block_count", 0);
    if (!s.rc && n_layer > 65536)
        s.rc = fa_fail(err, FFAI_EFORMAT, "%s: key %s.block_count is no number of layers", file, arch);
    if (!s.rc) (is_first(arch) ? put_mixer1 : put_mixer)(&s, hidden, n_layer, pure);
    if (!s.rc && strcmp(arch, "jamba") == 0) {
        put_layers(&s, n_layer, "ffai_mixer_layers", "mamba.A_log");
        put_layers(&s, n_layer, "ffai_expert_layers", "feed_forward.router.weight");
        if (!meta(&s, "expert_count")) put(&s, "num_local_experts", 0);
    }
    if (!s.rc && strcmp(arch, "granitehybrid") == 0) put_granite(&s, n_layer);
    if (s.rc || !pure) return s.rc;
    put(&s, "hidden_size", hidden);
    put(&s, "num_hidden_layers", n_layer);
    put(&s, "max_position_embeddings", whole(&s, "context_length", 1 << 20));
    put_bool(&s, "tie_word_embeddings", !fa_ckpt_find(c, "lm_head.weight"));
    return s.rc;
}
