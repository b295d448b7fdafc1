/* Granite 4: 350M, 1B, Micro (dense, attention only, rotated), their -H- twins (Mamba 2 mixers, few layers of attention
 * without positions), Tiny and Small (the same with experts).
 *
 * Granite's decoder (four multipliers) in which layer_types says which layers mix with Mamba 2 (blocks/mamba2.h) and
 * which attend. The second half of a layer is an MLP of shared_intermediate_size, beside experts of intermediate_size
 * where there are any. Reference: transformers models/granitemoehybrid. What bites: no layer_types means Mamba
 * everywhere; "mamba" and "attention" are "linear_attention" and "full_attention" in newer configs; queries and keys
 * are rotated only when position_embedding_type is "rope"; num_local_experts 0 comes with num_experts_per_tok 0; the
 * MLP is one matrix, gates before ups, that mlx splits in models without experts only; the time step is not clamped,
 * unless time_step_limit says so. */
#include "blocks/mamba2.h"

#include <string.h>

static void bind_mlp(fa_binder *b, const fa_dense_cfg *c, fa_dense_layer *l, int i) {
    if (fa_bind_has(b, "model.layers.%d.mlp.gate_proj", i)) { /* mlx, GGUF */
        fa_dense_bind_mlp(b, c, l, i);
        return;
    }
    fa_bind_halves(b, &l->gate, &l->up, c->ff_dim, c->dim, "model.layers.%d.shared_mlp.input_linear", i);
    fa_bind_linear(b, &l->down, c->dim, c->ff_dim, FA_NO_BIAS, "model.layers.%d.shared_mlp.output_linear", i);
}

/* Which layers have mixers; false: none. */
static bool read_layers(fa_cfg *r, fa_dense_cfg *c) {
    static const fa_layer_kind names[] = {
        {"attention", 0}, {"full_attention", 0}, {"mamba", 1}, {"linear_attention", 1}, {NULL, 0}};
    const char *key = fa_cfg_node(r, "layer_types") ? "layer_types" : "layers_block_type";
    if (!fa_cfg_layer_kinds(r, key, names, c->n_layer, c->layer_mix)) memset(c->layer_mix, 1, (size_t)c->n_layer);
    return memchr(c->layer_mix, 1, (size_t)c->n_layer) != NULL;
}

static void read_mixer(fa_cfg *r, fa_dense_cfg *c) {
    fa_mamba2_cfg *m = fa_mamba2_in_dense(r, c);
    if (!m || !read_layers(r, c)) return;
    *m = (fa_mamba2_cfg){.dim = c->dim,
                         .width = fa_cfg_int(r, "mamba_expand", 2, 1, 1024) * c->dim,
                         .n_head = 128,
                         .n_state = 256,
                         .n_group = 1,
                         .kernel = 4,
                         .norm = true,
                         .eps = c->eps,
                         .conv_bias = true,
                         .block = "mamba"};
    fa_mamba2_read(r, m, &fa_mamba2_hybrid_keys);
}

static void config(fa_cfg *r, void *cfg, fa_lm_dims *dims) {
    fa_dense_cfg *c = (fa_dense_cfg *)cfg;
    fa_dense_read(r, c, dims, &fa_dense_llama);
    c->qkv_bias = c->o_bias = fa_cfg_bool(r, "attention_bias", false);
    fa_dense_granite_scales(r, c);
    fa_dense_granite_experts(r, c);
    int64_t shared = fa_cfg_int(r, "shared_intermediate_size", 1024, 1, 1 << 24);
    c->moe.shared_ff = c->ff_dim = dims->ff_dim = shared;
    c->moe.shared = "shared_mlp";
    c->moe.shared_gate_up = "input_linear";
    c->moe.shared_down = "output_linear";
    c->bind_mlp = bind_mlp;
    const char *position = fa_jstr(fa_cfg_node(r, "position_embedding_type"), NULL);
    if (position && !strcmp(position, "rope"))
        fa_cfg_rope(r, &c->rope[0], NULL, c->head_dim, fa_cfg_num(r, "rope_theta", 10000.0), true);
    read_mixer(r, c);
}

/* as transformers 5 has them in memory; GGUF's shared expert */
static const fa_rename renames[] = {{"router.layer", "router"},
                                    {"block_sparse_moe.input_linear", "block_sparse_moe.experts.gate_up_proj"},
                                    {"block_sparse_moe.output_linear", "block_sparse_moe.experts.down_proj"},
                                    {"shared_mlp.", "mlp.shared_expert."},
                                    {NULL, NULL}};

const fa_family fa_family_granitemoehybrid = {
    .name = "granitemoehybrid",
    .model_types = "granitemoehybrid",
    .archs = "GraniteMoeHybridForCausalLM",
    .modality = "text",
    .task = "generate",
    .repos = "",
    .parity = true,
    .renames = renames,
    .config = config,
    FA_DENSE_FORWARD,
};
