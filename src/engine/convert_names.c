/* What mlx-lm calls things: its layouts are HuggingFace's but for wrappers' prefixes, stacks of experts, and parts of
 * fused projections (source: sanitize() and quant_predicate() of mlx-lm's models). The result is what sanitize() would
 * leave as it is, so that it loads there and here. */
#include "engine/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_family(const cv_plan *p, const char *name) { return strcmp(p->m->family->name, name) == 0; }

static bool ends(const char *s, const char *suffix) {
    size_t a = strlen(s), b = strlen(suffix);
    return a >= b && strcmp(s + a - b, suffix) == 0;
}

static bool begins(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

/* ---- prefixes ---- */

void cv_choose_prefixes(cv_plan *p, const fa_binder *b) {
    const char *body = b->body, *head = b->head;
    bool wrapped = !strcmp(body, "model.language_model.") || !strcmp(body, "language_model.model.");
    bool backbone =
        fa_ckpt_gguf(p->m->ckpt) && (is_family(p, "mamba") || is_family(p, "mamba2") || is_family(p, "nemotron_h"));
    snprintf(p->body, sizeof p->body, "%s", body);
    snprintf(p->head, sizeof p->head, "%s", head);
    snprintf(p->out_body, sizeof p->out_body, "%s",
             wrapped    ? "language_model.model."
             : backbone ? "backbone."
             : *body    ? body
                        : "model.");
    snprintf(p->out_head, sizeof p->out_head, "%s", wrapped ? "language_model." : head);
}

/* A name of the checkpoint with the result's prefix. */
static void prefixed(const cv_plan *p, const char *name, char out[CV_NAME]) {
    static const char *const beside[] = {"vision_tower.", "multi_modal_projector.", "audio_tower.",
                                         "embed_audio.",  "embed_vision.",          "vision_embedder."};
    const bool wrapped = begins(p->out_body, "language_model.");
    if (begins(name, p->body) && (*p->body || !begins(name, "lm_head"))) {
        snprintf(out, CV_NAME, "%s%s", p->out_body, name + strlen(p->body));
        return;
    }
    if (begins(name, p->head) && begins(name + strlen(p->head), "lm_head")) {
        snprintf(out, CV_NAME, "%s%s", p->out_head, name + strlen(p->head));
        return;
    }
    for (size_t i = 0; wrapped && begins(name, "model.") && i < sizeof beside / sizeof *beside; i++)
        if (begins(name + 6, beside[i]) && !(begins(p->m->family->name, "qwen3_5") && begins(name, "model.visual.")))
            name += 6;
    snprintf(out, CV_NAME, "%s", name);
}

/* ---- modules ---- */

static const char *mlx_leaf(const cv_plan *p, const char *leaf) {
    static const char *const names[][2] = {{"w1", "gate_proj"}, {"w2", "down_proj"}, {"w3", "up_proj"}};
    if (is_family(p, "nemotron_h")) return !strcmp(leaf, "up_proj") ? "fc1" : !strcmp(leaf, "down_proj") ? "fc2" : leaf;
    for (size_t i = 0; i < 3; i++)
        if (!strcmp(leaf, names[i][0])) return names[i][1];
    return leaf;
}

/* One target with all rows: what stands before `at` in name, then the rest. */
static int whole(cv_target *t, const char *name, const char *at, const char *rest, const char *leaf) {
    *t = (cv_target){.step = 1, .expert = -1};
    snprintf(t->name, CV_NAME, "%.*s%s%s", (int)(at - name), name, rest, leaf);
    return 1;
}

/* Gates and ups of a fused matrix: halves, or every other row. */
static int halves(cv_target out[2], const char *name, const char *at, const char *rest, int64_t rows, bool mixed) {
    whole(&out[0], name, at, rest, "gate_proj");
    whole(&out[1], name, at, rest, "up_proj");
    for (int i = 0; i < 2; i++) {
        out[i].count = rows / 2;
        out[i].step = mixed ? 2 : 1;
        out[i].from = mixed ? i : i * (rows / 2);
    }
    return 2;
}

static int experts_of(const cv_plan *p, const char *name, const char *at, int64_t rows, cv_target out[2]) {
    const char *leaf = at + 9; /* behind ".experts." */
    char *end;
    const char *stack = is_family(p, "gpt_oss")  ? ".experts."
                        : is_family(p, "gemma4") ? ".experts.switch_glu."
                                                 : ".switch_mlp.";
    if (*leaf >= '0' && *leaf <= '9') {
        const long long e = strtoll(leaf, &end, 10);
        whole(out, name, at, stack, mlx_leaf(p, *end == '.' ? end + 1 : end));
        out->expert = e;
        return 1;
    }
    if (begins(leaf, "switch_glu.")) leaf += 11;
    if (!strcmp(leaf, "gate_up_proj")) return halves(out, name, at, stack, rows, is_family(p, "gpt_oss"));
    return whole(out, name, at, stack, mlx_leaf(p, leaf));
}

int cv_targets_of(const cv_plan *p, const char *checkpoint, int64_t rows, cv_target out[2]) {
    char name[CV_NAME];
    const char *at;
    prefixed(p, checkpoint, name);
    if ((at = strstr(name, ".experts."))) return experts_of(p, name, at, rows, out);
    if ((at = strstr(name, ".block_sparse_moe.input_linear")))
        return halves(out, name, at, ".block_sparse_moe.switch_mlp.", rows, false);
    if ((at = strstr(name, ".block_sparse_moe.output_linear")))
        return whole(out, name, at, ".block_sparse_moe.switch_mlp.", "down_proj");
    if (is_family(p, "granitemoehybrid") && !p->experts) {
        if ((at = strstr(name, ".shared_mlp.input_linear"))) return halves(out, name, at, ".mlp.", rows, false);
        if ((at = strstr(name, ".shared_mlp.output_linear"))) return whole(out, name, at, ".mlp.", "down_proj");
    }
    if (is_family(p, "lfm2_moe") && (at = strstr(name, ".feed_forward.w")) && strlen(at) == 16)
        return whole(out, name, at, ".feed_forward.", mlx_leaf(p, at + 14));
    return whole(out, name, name + strlen(name), "", "");
}

bool cv_rename(const cv_plan *p, const char *name, char out[CV_NAME]) {
    static const char *const dead[] = {
        "rotary_emb.inv_freq", ".rope.inv_freq", ".attn.masked_bias", ".k_scale", ".v_scale", ".input_scale"};
    if (begins(name, "mtp.") || strstr(name, ".mtp.")) return false;
    for (size_t i = 0; i < sizeof dead / sizeof *dead; i++)
        if (ends(name, dead[i])) return false;
    prefixed(p, name, out);
    return true;
}

/* ---- which are quantized how ---- */

int cv_predicate(const cv_plan *p, const char *module) {
    static const struct {
        const char *family, *module;
        int bits;
    } table[] = {{"qwen3_moe", "mlp.gate", 8},
                 {"qwen3_next", "mlp.gate", 8},
                 {"qwen3_next", "shared_expert_gate", 8},
                 {"qwen3_5_moe", "mlp.gate", 8},
                 {"qwen3_5_moe", "shared_expert_gate", 8},
                 {"granitemoe", "block_sparse_moe.router.layer", 8},
                 {"granitemoe", "self_attn.o_proj", 8},
                 {"granitemoe", "mlp.down_proj", 8},
                 {"granitemoe", "lm_head", 8},
                 {"granite", "self_attn.o_proj", 8},
                 {"granite", "mlp.down_proj", 8},
                 {"granite", "lm_head", 8},
                 {"granitemoehybrid", "router.layer", 8},
                 {"gpt_oss", "router", 8},
                 {"jamba", "router", 8},
                 {"lfm2_moe", "feed_forward.gate", 8},
                 {"gemma4", "router.proj", 8},
                 {"nemotron_h", "mixer.gate", -1}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (is_family(p, table[i].family) && ends(module, table[i].module)) return table[i].bits;
    return 0;
}
