/* GGUF in HuggingFace words: names of tensors. What an architecture has of its own stands in gguf_gemma4.c, gguf_ssm.c,
 * gguf_gdn.c and gguf_hybrid.c; the config is gguf_hf.c's. */
#include "io/ckpt_impl.h"

#include <stdio.h>
#include <string.h>

typedef struct rename_row {
    const char *gguf, *hf;
} rename_row;

static const rename_row whole[] = {
    {"token_embd.", "model.embed_tokens."},
    {"output_norm.", "model.norm."},
    {"output.", "lm_head."},
};

/* behind "blk.<n>." */
static const rename_row in_layer[] = {
    {"attn_norm.", "input_layernorm."},    {"attn_q.", "self_attn.q_proj."},
    {"attn_qkv.", "self_attn.qkv_proj."},  {"attn_k.", "self_attn.k_proj."},
    {"attn_v.", "self_attn.v_proj."},      {"attn_output.", "self_attn.o_proj."},
    {"attn_q_norm.", "self_attn.q_norm."}, {"attn_k_norm.", "self_attn.k_norm."},
    {"ffn_gate.", "mlp.gate_proj."},       {"ffn_up.", "mlp.up_proj."},
    {"ffn_down.", "mlp.down_proj."},       {"ffn_norm.", "post_attention_layernorm."},
};

/* the same, for architectures with norms before and after both halves of a layer; looked at first */
static const char *const four_norms[] = {"gemma2", "gemma3", "olmo2"};
static const rename_row in_layer_four_norms[] = {
    {"post_attention_norm.", "post_attention_layernorm."},
    {"ffn_norm.", "pre_feedforward_layernorm."},
    {"post_ffw_norm.", "post_feedforward_layernorm."},
};

/* Phi 3: gate and up are one tensor */
static const rename_row in_layer_phi3[] = {{"ffn_up.", "mlp.gate_up_proj."}};

/* Mixtures of experts: where the router and the stacks of experts belong. */
static const struct {
    const char *arch, *router, *experts;
} in_layer_moe[] = {
    {"llama", "block_sparse_moe.gate", "block_sparse_moe.switch_mlp"}, /* Mixtral */
    {"qwen2moe", "mlp.gate", "mlp.switch_mlp"},
    {"qwen3moe", "mlp.gate", "mlp.switch_mlp"},
    {"qwen3vlmoe", "mlp.gate", "mlp.switch_mlp"},
    {"granitemoe", "block_sparse_moe.router.layer", "block_sparse_moe.switch_mlp"},
    {"gpt-oss", "mlp.router", "mlp.experts"},
    {"jamba", "feed_forward.router", "feed_forward.switch_mlp"},
    {"lfm2moe", "feed_forward.gate", "feed_forward.switch_mlp"},
    {"nemotron_h_moe", "mixer.gate", "mixer.switch_mlp"},
    {"granitehybrid", "block_sparse_moe.router.layer", "block_sparse_moe.switch_mlp"},
    {"qwen35moe", "mlp.gate", "mlp.experts"},
    {"qwen3next", "mlp.gate", "mlp.experts"},
};

static const rename_row in_layer_shared_expert[] = {
    {"ffn_gate_inp_shexp.", "mlp.shared_expert_gate."},
    {"ffn_gate_shexp.", "mlp.shared_expert.gate_proj."},
    {"ffn_up_shexp.", "mlp.shared_expert.up_proj."},
    {"ffn_down_shexp.", "mlp.shared_expert.down_proj."},
};

static const rename_row in_layer_gpt_oss[] = {{"post_attention_norm.", "post_attention_layernorm."}};

/* Replaces the row's prefix of name; NULL rows end nothing: count says how many. */
static bool apply(const rename_row *rows, size_t count, const char *name, const char *prefix, char *buf, size_t size) {
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(rows[i].gguf);
        if (strncmp(name, rows[i].gguf, n) != 0) continue;
        if (strcmp(name + n, "weight") != 0 && strcmp(name + n, "bias") != 0) return false;
        return (size_t)snprintf(buf, size, "%s%s%s", prefix, rows[i].hf, name + n) < size;
    }
    return false;
}

#define ROWS(table) table, sizeof(table) / sizeof *(table)

enum { N_MOE = sizeof in_layer_moe / sizeof *in_layer_moe };

/* N_MOE: its mixtures are not understood. */
static size_t moe_row(const char *arch) {
    size_t k = 0;
    while (k < N_MOE && strcmp(in_layer_moe[k].arch, arch) != 0) k++;
    return k;
}

/* Names of an architecture with experts. Files of 2023 have a tensor per expert: ffn_gate.7.weight. */
static bool apply_moe(const char *arch, const char *name, const char *prefix, char *buf, size_t size) {
    static const char *const parts[] = {"ffn_gate", "gate_proj", "w1",        "ffn_up", "up_proj",
                                        "w3",       "ffn_down",  "down_proj", "w2"};
    size_t k = moe_row(arch);
    if (k == N_MOE) return false;
    if (strcmp(name, "attn_sinks.weight") == 0) return (size_t)snprintf(buf, size, "%sself_attn.sinks", prefix) < size;
    if (strncmp(name, "ffn_gate_inp.", 13) == 0)
        return (size_t)snprintf(buf, size, "%s%s.%s", prefix, in_layer_moe[k].router, name + 13) < size;
    for (size_t i = 0; i < 9; i += 3) {
        size_t len = strlen(parts[i]);
        if (strncmp(name, parts[i], len) != 0) continue;
        const char *rest = name + len;
        if (strncmp(rest, "_exps.", 6) == 0)
            return (size_t)snprintf(buf, size, "%s%s.%s.%s", prefix, in_layer_moe[k].experts, parts[i + 1], rest + 6) <
                   size;
        size_t digits = rest[0] == '.' ? strspn(rest + 1, "0123456789") : 0;
        if (k == 0 && digits && strcmp(rest + 1 + digits, ".weight") == 0)
            return (size_t)snprintf(buf, size, "%sblock_sparse_moe.experts%.*s.%s.weight", prefix, (int)digits + 1,
                                    rest, parts[i + 2]) < size;
    }
    if (strcmp(arch, "gpt-oss") == 0 && apply(ROWS(in_layer_gpt_oss), name, prefix, buf, size)) return true;
    return apply(ROWS(in_layer_shared_expert), name, prefix, buf, size);
}

bool fa_gguf_hf_moe(const char *arch) { return moe_row(arch) < N_MOE; }

static bool has_four_norms(const char *arch) {
    for (size_t i = 0; i < sizeof four_norms / sizeof *four_norms; i++)
        if (strcmp(four_norms[i], arch) == 0) return true;
    return false;
}

bool fa_gguf_hf_name(const char *arch, const char *name, char *buf, size_t size) {
    char prefix[32];
    bool gemma4 = strcmp(arch, "gemma4") == 0;
    if (strncmp(name, "blk.", 4) != 0)
        return (gemma4 && fa_gguf_gemma4_name(name, "", buf, size)) ||
               (fa_gguf_is_hybrid(arch) && fa_gguf_hybrid_name(arch, name, "", buf, size)) ||
               apply(ROWS(whole), name, "", buf, size);
    size_t digits = strspn(name + 4, "0123456789");
    if (digits == 0 || digits > 6 || name[4 + digits] != '.') return false;
    snprintf(prefix, sizeof prefix, "model.layers.%.*s.", (int)digits, name + 4);
    name += 4 + digits + 1;
    if (gemma4 && fa_gguf_gemma4_name(name, prefix, buf, size)) return true;
    if (fa_gguf_is_hybrid(arch) && fa_gguf_hybrid_name(arch, name, prefix, buf, size)) return true;
    if (fa_gguf_is_ssm(arch) && fa_gguf_ssm_name(arch, name, prefix, buf, size)) return true;
    if (fa_gguf_is_gdn(arch) && fa_gguf_gdn_name(name, prefix, buf, size)) return true;
    if (has_four_norms(arch) && apply(ROWS(in_layer_four_norms), name, prefix, buf, size)) return true;
    if (strcmp(arch, "phi3") == 0 && apply(ROWS(in_layer_phi3), name, prefix, buf, size)) return true;
    return apply_moe(arch, name, prefix, buf, size) || apply(ROWS(in_layer), name, prefix, buf, size);
}
