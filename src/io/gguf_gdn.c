/* Gated delta nets in GGUF (architectures "qwen35", "qwen35moe", "qwen3next"): their tensor names and metadata in
 * HuggingFace words, see gguf_hf.c. The keys are those of state-space models: ssm.group_count key heads of
 * ssm.state_size, ssm.time_step_rank value heads that are ssm.inner_size wide together. The converter adds 1 to norms
 * (but those of the delta net), stores -exp(A_log), splits the fused projection of Qwen 3 Next (not its b and a), and
 * puts the value heads of Qwen 3.5 that share a key head apart: first the first one of each. Layers that predict
 * further tokens stand behind the others and are counted among them. */
#include "io/gguf_keys.h"

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

int fa_gguf_gdn_next_layers(const fa_ckpt *c, const char *file, const char *arch, int64_t *n, fa_error *err) {
    fa_gguf_keys s = {c, file, arch, NULL, err, 0};
    *n = fa_gguf_whole(&s, "nextn_predict_layers", -1, 0, 0);
    return s.rc;
}

/* A flag per layer says which have states; without it every so-manieth has none. */
static void put_layers(fa_gguf_keys *s, fa_buf *json, int64_t n_layer) {
    const fa_gguf_value *v = fa_gguf_key(s, "attention.recurrent_layers");
    fa_buf_printf(json, ",\"full_attention_interval\":%lld",
                  (long long)fa_gguf_whole(s, "full_attention_interval", -1, 1, 4));
    if (!fa_gguf_is_list(v) || v->n < (uint64_t)n_layer) return;
    fa_buf_puts(json, ",\"layer_types\":[");
    for (int64_t i = 0; i < n_layer; i++)
        fa_buf_printf(json, "%s\"%s\"", i ? "," : "",
                      fa_gguf_num_at(v, (uint64_t)i) != 0 ? "linear_attention" : "full_attention");
    fa_buf_puts(json, "]");
}

int fa_gguf_gdn_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, int64_t n_layer,
                       fa_error *err) {
    fa_gguf_keys s = {c, file, arch, json, err, 0};
    int64_t heads = fa_gguf_whole(&s, "ssm.time_step_rank", -1, 1, -1),
            inner = fa_gguf_whole(&s, "ssm.inner_size", -1, 1, -1);
    if (!s.rc && inner % heads)
        s.rc = fa_fail(err, FFAI_EFORMAT, "%s: key %s.ssm.inner_size %lld is no multiple of %s.ssm.time_step_rank %lld",
                       file, arch, (long long)inner, arch, (long long)heads);
    fa_gguf_put_int(&s, "linear_num_key_heads", fa_gguf_whole(&s, "ssm.group_count", -1, 1, -1));
    fa_gguf_put_int(&s, "linear_num_value_heads", heads);
    fa_gguf_put_int(&s, "linear_key_head_dim", fa_gguf_whole(&s, "ssm.state_size", -1, 1, -1));
    fa_gguf_put_int(&s, "linear_value_head_dim", s.rc ? 1 : inner / heads);
    fa_gguf_put_int(&s, "linear_conv_kernel_dim", fa_gguf_whole(&s, "ssm.conv_kernel", -1, 1, -1));
    fa_gguf_put_int(&s, "num_nextn_predict_layers", fa_gguf_whole(&s, "nextn_predict_layers", -1, 0, 0));
    put_layers(&s, json, n_layer);
    fa_buf_puts(json, ",\"ffai_norm_offset_applied\":true,\"ffai_decay_applied\":true");
    if (strcmp(arch, "qwen3next") != 0) fa_buf_puts(json, ",\"ffai_linear_heads_tiled\":true");
    return s.rc;
}
