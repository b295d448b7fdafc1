/* LFM2 (architectures "lfm2", "lfm2moe") and Nemotron H ("nemotron_h", "nemotron_h_moe") in GGUF: tensor names and
 * metadata in HuggingFace words, see gguf_hf.c. attention.head_count_kv is a list with 0 for layers that do not attend;
 * Nemotron's feed_forward_length is one with 0 for layers that are no MLP, and where both are 0 there is a Mamba mixer.
 * LFM2's final norm was called output_norm before it was token_embd_norm; its MLP's width is the one in use. Nemotron's
 * mixers are stored as gguf_ssm.c tells; the layers behind the last that attend or mix predict further tokens. */
#include "io/gguf_keys.h"

#include <stdio.h>
#include <string.h>

typedef struct name_row {
    const char *gguf, *hf; /* whole names behind "blk.<n>." */
} name_row;

static const name_row lfm2[] = {
    {"shortconv.in_proj.weight", "conv.in_proj.weight"},   {"shortconv.in_proj.bias", "conv.in_proj.bias"},
    {"shortconv.conv.weight", "conv.conv.weight"},         {"shortconv.conv.bias", "conv.conv.bias"},
    {"shortconv.out_proj.weight", "conv.out_proj.weight"}, {"shortconv.out_proj.bias", "conv.out_proj.bias"},
    {"exp_probs_b.bias", "feed_forward.expert_bias"},
};

static const name_row nemotron[] = {
    {"attn_norm.weight", "norm.weight"},
    {"attn_q.weight", "mixer.q_proj.weight"},
    {"attn_k.weight", "mixer.k_proj.weight"},
    {"attn_v.weight", "mixer.v_proj.weight"},
    {"attn_output.weight", "mixer.o_proj.weight"},
    {"ffn_up.weight", "mixer.up_proj.weight"},
    {"ffn_up.bias", "mixer.up_proj.bias"},
    {"ffn_down.weight", "mixer.down_proj.weight"},
    {"ffn_down.bias", "mixer.down_proj.bias"},
    {"ffn_gate_inp.weight", "mixer.gate.weight"},
    {"exp_probs_b.bias", "mixer.gate.e_score_correction_bias"},
    {"ffn_up_exps.weight", "mixer.switch_mlp.fc1.weight"},
    {"ffn_down_exps.weight", "mixer.switch_mlp.fc2.weight"},
    {"ffn_up_shexp.weight", "mixer.shared_experts.up_proj.weight"},
    {"ffn_down_shexp.weight", "mixer.shared_experts.down_proj.weight"},
    {"ffn_latent_down.weight", "mixer.fc1_latent_proj.weight"},
    {"ffn_latent_up.weight", "mixer.fc2_latent_proj.weight"},
};

static bool is_nemotron(const char *arch) { return strncmp(arch, "nemotron_h", 10) == 0; }

bool fa_gguf_is_hybrid(const char *arch) {
    return strcmp(arch, "lfm2") == 0 || strcmp(arch, "lfm2moe") == 0 || strcmp(arch, "nemotron_h") == 0 ||
           strcmp(arch, "nemotron_h_moe") == 0;
}

bool fa_gguf_hybrid_name(const char *arch, const char *name, const char *prefix, char *buf, size_t size) {
    bool nemo = is_nemotron(arch);
    const name_row *row = nemo ? nemotron : lfm2;
    size_t n = nemo ? sizeof nemotron / sizeof *nemotron : sizeof lfm2 / sizeof *lfm2;
    if (!*prefix)
        return !nemo && strcmp(name, "token_embd_norm.weight") == 0 &&
               (size_t)snprintf(buf, size, "model.embedding_norm.weight") < size;
    for (size_t i = 0; i < n; i++)
        if (strcmp(row[i].gguf, name) == 0) return (size_t)snprintf(buf, size, "%s%s", prefix, row[i].hf) < size;
    return nemo && fa_gguf_ssm_name(arch, name, prefix, buf, size);
}

/* ---- metadata ---- */

/* More than put_known writes. */
static void put_lfm2(fa_gguf_keys *k, int64_t n_layer) {
    const fa_gguf_value *kv = fa_gguf_key(k, "attention.head_count_kv");
    fa_buf_puts(k->json, ",\"layer_types\":[");
    for (int64_t i = 0; i < n_layer && !k->rc; i++) {
        bool mixes = fa_gguf_is_list(kv) ? fa_gguf_whole(k, "attention.head_count_kv", i, 0, -1) == 0
                                         : fa_gguf_in_layer(k, i, "conv.in_proj.weight");
        fa_buf_printf(k->json, "%s\"%s\"", i ? "," : "", mixes ? "conv" : "full_attention");
    }
    fa_buf_puts(k->json, "],\"block_auto_adjust_ff_dim\":false");
    fa_gguf_put_int(k, "conv_L_cache", fa_gguf_whole(k, "shortconv.l_cache", 0, 1, 3));
    fa_gguf_put_bool(k, "conv_bias", fa_gguf_any_layer(k, n_layer, "conv.conv.bias"));
    if (strcmp(k->arch, "lfm2moe") != 0) return;
    fa_gguf_put_int(k, "moe_intermediate_size", fa_gguf_whole(k, "expert_feed_forward_length", 0, 1, -1));
    fa_gguf_put_int(k, "num_dense_layers", fa_gguf_whole(k, "leading_dense_block_count", 0, 0, 0));
    fa_gguf_put_bool(k, "use_expert_bias", fa_gguf_any_layer(k, n_layer, "feed_forward.expert_bias"));
    fa_gguf_put_bool(k, "norm_topk_prob", fa_gguf_true(k, "expert_weights_norm", true));
    double scale = fa_gguf_number(k, "expert_weights_scale", 0);
    fa_gguf_put_float(k, "routed_scaling_factor", scale != 0 ? scale : 1);
}

/* The pattern of layers, and the numbers that only some of them have. */
static void put_layers(fa_gguf_keys *k, int64_t n_layer) {
    int64_t kv = 0, ff = 0;
    bool moe = fa_gguf_key(k, "expert_count") && fa_gguf_whole(k, "expert_count", 0, 0, 0) > 0;
    fa_buf_puts(k->json, ",\"hybrid_override_pattern\":\"");
    for (int64_t i = 0; i < n_layer && !k->rc; i++) {
        int64_t heads = fa_gguf_whole(k, "attention.head_count_kv", i, 0, -1),
                wide = fa_gguf_whole(k, "feed_forward_length", i, 0, -1);
        bool router = fa_gguf_in_layer(k, i, "mixer.gate.weight");
        fa_buf_puts(k->json, wide ? (moe && router ? "E" : "-") : heads ? "*" : "M");
        if (wide && !router) ff = wide;
        if (!wide && heads) kv = heads;
    }
    fa_buf_puts(k->json, "\"");
    if (ff) fa_gguf_put_int(k, "intermediate_size", ff);
    if (kv) fa_gguf_put_int(k, "num_key_value_heads", kv);
    fa_gguf_put_bool(k, "mlp_bias", fa_gguf_any_layer(k, n_layer, "mixer.up_proj.bias"));
    if (!moe) return;
    static const char *const numbers[][2] = {
        {"expert_count", "n_routed_experts"},
        {"expert_used_count", "num_experts_per_tok"},
        {"expert_feed_forward_length", "moe_intermediate_size"},
        {"expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size"}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        fa_gguf_put_int(k, numbers[i][1], fa_gguf_whole(k, numbers[i][0], 0, 1, -1));
    int64_t groups = fa_gguf_whole(k, "expert_group_count", 0, 1, 1);
    fa_gguf_put_int(k, "n_group", groups);
    fa_gguf_put_int(k, "topk_group", fa_gguf_whole(k, "expert_group_used_count", 0, 1, groups));
    if (fa_gguf_key(k, "moe_latent_size"))
        fa_gguf_put_int(k, "moe_latent_size", fa_gguf_whole(k, "moe_latent_size", 0, 1, -1));
    fa_gguf_put_bool(k, "norm_topk_prob", fa_gguf_true(k, "expert_weights_norm", false));
    double scale = fa_gguf_number(k, "expert_weights_scale", 0);
    fa_gguf_put_float(k, "routed_scaling_factor", scale != 0 ? scale : 1);
}

/* All keys but the vocabulary. */
static void put_nemotron(fa_gguf_keys *k, int64_t n_layer) {
    int64_t hidden = fa_gguf_whole(k, "embedding_length", 0, 1, -1),
            inner = fa_gguf_whole(k, "ssm.inner_size", 0, 1, -1),
            heads = fa_gguf_whole(k, "ssm.time_step_rank", 0, 1, -1),
            n_head = fa_gguf_whole(k, "attention.head_count", 0, 1, -1);
    if (!k->rc && inner % heads)
        k->rc = fa_fail(k->err, FFAI_EFORMAT, "%s: key %s.ssm.inner_size %lld is no multiple of %lld heads", k->file,
                        k->arch, (long long)inner, (long long)heads);
    if (k->rc) return;
    fa_gguf_put_int(k, "hidden_size", hidden);
    fa_gguf_put_int(k, "num_hidden_layers", n_layer);
    fa_gguf_put_int(k, "num_attention_heads", n_head);
    fa_gguf_put_int(k, "head_dim",
                    fa_gguf_whole(k, "attention.key_length", 0, 1, hidden / n_head ? hidden / n_head : 1));
    fa_gguf_put_int(k, "max_position_embeddings", fa_gguf_whole(k, "context_length", 0, 1, 4096));
    fa_gguf_put_int(k, "mamba_num_heads", heads);
    fa_gguf_put_int(k, "mamba_head_dim", inner / heads);
    fa_gguf_put_int(k, "ssm_state_size", fa_gguf_whole(k, "ssm.state_size", 0, 1, -1));
    fa_gguf_put_int(k, "n_groups", fa_gguf_whole(k, "ssm.group_count", 0, 1, 1));
    fa_gguf_put_int(k, "conv_kernel", fa_gguf_whole(k, "ssm.conv_kernel", 0, 1, -1));
    fa_gguf_put_bool(k, "use_conv_bias", fa_gguf_any_layer(k, n_layer, "mixer.conv1d.bias"));
    fa_gguf_put_bool(k, "use_bias", fa_gguf_any_layer(k, n_layer, "mixer.in_proj.bias"));
    double eps =
        fa_gguf_number(k, "attention.layer_norm_rms_epsilon", fa_gguf_number(k, "attention.layer_norm_epsilon", 1e-5));
    fa_gguf_put_float(k, "layer_norm_epsilon", eps);
    fa_buf_puts(k->json, ",\"ffai_decay_applied\":true");
    fa_gguf_put_bool(k, "tie_word_embeddings", !fa_ckpt_find(k->c, "lm_head.weight"));
    put_layers(k, n_layer);
}

int fa_gguf_hybrid_config(fa_buf *json, const fa_ckpt *c, const char *file, const char *arch, fa_error *err) {
    fa_gguf_keys k = {c, file, arch, json, err, 0};
    int64_t n_layer = fa_gguf_whole(&k, "block_count", 0, 1, -1);
    if (!k.rc) n_layer -= fa_gguf_whole(&k, "nextn_predict_layers", 0, 0, 0);
    if (!k.rc && (n_layer < 1 || n_layer > 65536))
        k.rc = fa_fail(err, FFAI_EFORMAT, "%s: key %s.block_count leaves %lld layers", file, arch, (long long)n_layer);
    if (k.rc) return k.rc;
    if (is_nemotron(arch))
        put_nemotron(&k, n_layer);
    else
        put_lfm2(&k, n_layer);
    return k.rc;
}
