/* Gated delta nets in GGUF (architectures "qwen35", "qwen35moe", "qwen3next"): their tensor names and metadata in
 * HuggingFace words, see gguf_hf.c. The keys are those of state-space models: ssm.group_count key heads of
 * ssm.state_size, ssm.time_step_rank value heads that are ssm.inner_size wide together. The converter adds 1 to norms
 * (but those of the delta net), stores -exp(A_log), splits the fused projection of Qwen 3 Next (not its b and a), and
 * puts the value heads of Qwen 3.5 that share a key head apart: first the first one of each. Layers that predict
 * further tokens stand behind the others and are counted among them. */
#include "io/ckpt_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* behind "blk.<n>." */
static const struct {
    const char *gguf, *hf;
} in_layer[] = {
    {"attn_qkv.weight", "linear_attn.in_proj_qkv.weight"},
    {"attn_gate.weight", "linear_attn.in_proj_z.weight"},
    {"ssm_in.weight", "linear_attn.in_proj_qkvz.weight"},
    {"ssm_ba.weight", "linear_attn.in_proj_ba.weight"},
    {"ssm_beta.weight", "linear_attn.in_proj_b.weight"},
    {"ssm_alpha.weight", "linear_attn.in_proj_a.weight"},
    {"ssm_conv1d.weight", "linear_attn.conv1d.weight"},
    {"ssm_dt.bias", "linear_attn.dt_bias"},
    {"ssm_a", "linear_attn.A_log"},
    {"ssm_norm.weight", "linear_attn.norm.weight"},
    {"ssm_out.weight", "linear_attn.out_proj.weight"},
    {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate_up_exps.weight", "mlp.experts.gate_up_proj.weight"},
};

bool fa_gguf_is_gdn(const char *arch) {
    return strcmp(arch, "qwen35") == 0 || strcmp(arch, "qwen35moe") == 0 || strcmp(arch, "qwen3next") == 0;
}

bool fa_gguf_gdn_name(const char *name, const char *prefix, char *buf, size_t size) {
    for (size_t i = 0; i < sizeof in_layer / sizeof *in_layer; i++)
        if (strcmp(in_layer[i].gguf, name) == 0)
            return (size_t)snprintf(buf, size, "%s%s", prefix, in_layer[i].hf) < size;
    return false;
}

/* ---- metadata ---- */

typedef struct source {
    const fa_ckpt *c;
    const char *file, *arch;
    fa_error *err;
    int rc;
} source;

static const fa_gguf_value *meta(const source *s, const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", s->arch, key);
    return fa_gguf_find(s->c->gguf[0], full);
}

/* A whole number of at least `least`; absent: `otherwise`, or an error when that is negative. */
static int64_t whole(source *s, const char *key, int64_t least, int64_t otherwise) {
    const fa_gguf_value *v = meta(s, key);
    if (s->rc || (!v && otherwise >= 0)) return otherwise < 0 ? 1 : otherwise;
    if (!v)
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.%s is missing", s->file, s->arch, key);
    else if (v->type == FA_GGUF_STR || v->type == FA_GGUF_ARR || v->f != floor(v->f) || v->f < (double)least ||
             v->f > INT32_MAX)
        s->rc = fa_fail(s->err, FFAI_EFORMAT, "%s: key %s.%s is no whole number of at least %lld", s->file, s->arch,
                        key, (long long)least);
    else
        return (int64_t)v->f;
    return 1;
}

int fa_gguf_gdn_next_layers(const fa_ckpt *c, const char *file, const char *arch, int64_t *n, fa_error *err) {
    source s = {c, file, arch, err, 0};
    *n = whole(&s, "nextn_predict_layers", 0, 0);
    return s.rc;
}

/* A flag per layer says which have states; without it every so-manieth has none. */
static void put_layers(source *s, fa_buf *json, int64_t n_layer) {
    const fa_gguf_value *v = meta(s, "attention.recurrent_layers");
    fa_buf_printf(json, ",\"full_attention_interval\":%lld", (long long)whole(s, "full_attention_interval", 1, 4));
    if (!v || v->type != FA_GGUF_ARR || v->elem == FA_GGUF_STR || v->elem == FA_GGUF_ARR || v->n < (uint64_t)n_layer)
        return;
    fa_buf_puts(json, ",\"layer_types\":[");
    for (int64_t i = 0; i < n_layer; i++)
        fa_buf_printf(json, "%s\"%s\"", i ? "," : "",
                      fa_gguf_num_at(v, (uint64_t)i) != 0 ? "linear_attention" : "full_attention");
    fa_buf_puts(json, "]");
}

int fa_gguf_gdn_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, int64_t n_layer,
                       fa_error *err) {
    source s = {c, file, arch, err, 0};
    int64_t heads = whole(&s, "ssm.time_step_rank", 1, -1), inner = whole(&s, "ssm.inner_size", 1, -1);
    if (!s.rc && inner % heads)
        s.rc = fa_fail(err, FFAI_EFORMAT, "%s: key %s.ssm.inner_size %lld is no multiple of %s.ssm.time_step_rank %lld",
                       file, arch, (long long)inner, arch, (long long)heads);
    fa_buf_printf(json, ",\"linear_num_key_heads\":%lld", (long long)whole(&s, "ssm.group_count", 1, -1));
    fa_buf_printf(json, ",\"linear_num_value_heads\":%lld", (long long)heads);
    fa_buf_printf(json, ",\"linear_key_head_dim\":%lld", (long long)whole(&s, "ssm.state_size", 1, -1));
    fa_buf_printf(json, ",\"linear_value_head_dim\":%lld", (long long)(s.rc ? 1 : inner / heads));
    fa_buf_printf(json, ",\"linear_conv_kernel_dim\":%lld", (long long)whole(&s, "ssm.conv_kernel", 1, -1));
    fa_buf_printf(json, ",\"num_nextn_predict_layers\":%lld", (long long)whole(&s, "nextn_predict_layers", 0, 0));
    put_layers(&s, json, n_layer);
    fa_buf_puts(json, ",\"ffai_norm_offset_applied\":true,\"ffai_decay_applied\":true");
    if (strcmp(arch, "qwen3next") != 0) fa_buf_puts(json, ",\"ffai_linear_heads_tiled\":true");
    return s.rc;
}
