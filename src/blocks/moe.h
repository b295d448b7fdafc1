/* The mixture-of-experts MLP: a router, its experts, and where the family has one an expert that every row goes to.
 *
 *     y = sum over chosen e of weight_e * down_e(act(gate_e x) * (up_e x))  [+ gate(shared_gate x) * shared(x)]
 *
 * Plain ones have no gates: down_e(act(up_e x)). With a latent width the sum is fc2 of experts that take fc1 x. */
#ifndef FA_BLOCKS_MOE_H
#define FA_BLOCKS_MOE_H

#include "families/family.h"

typedef struct fa_moe_cfg {
    fa_route route;    /* its bias and expert_scale are bound per layer */
    int64_t ff_dim;    /* of an expert */
    int64_t shared_ff; /* of the shared expert; 0: there is none */
    fa_act_fn act;
    float limit;      /* see fa_moe */
    bool shared_gate; /* the shared expert is multiplied by sigmoid(shared_gate x) */
    bool plain; /* experts and the shared one have no gates; stacks are switch_mlp.fc1 and fc2, or experts.up_proj and
                   down_proj */
    int64_t latent;   /* > 0: columns that experts take and give, between fc1_latent_proj and fc2_latent_proj */
    bool shared_bias; /* of the plain shared expert and the latent projections */
    bool router_bias, expert_bias;
    bool interleaved; /* fused gate_up rows alternate: gate, up, gate, up, ... */
    bool turned;      /* square stacks of floats without ".weight" are stored transposed */
    /* Names after "model.layers.N."; NULL: "mlp.gate", "mlp", "mlp.shared_expert", "mlp.shared_expert_gate". */
    const char *router, *block, *shared, *shared_gate_name;
    const char *score_bias; /* what is added to scores for the choice [n_expert], likewise; NULL: nothing */
    /* Below the shared expert: gate and up as one matrix, and down, where "gate_proj" is not there; or NULL. */
    const char *shared_gate_up, *shared_down;
    /* Below the block ("": the layer itself): mlx's stacks switch_mlp.{gate,up,down}_proj; stacks
     * experts.{gate,up,down}_proj; the fused ones, whose names NULL are "experts.gate_up_proj" and "experts.down_proj"
     * (own_fused: they are what the family's checkpoints have); else experts.E.* with the names of an expert's
     * matrices, NULL: "gate_proj", "up_proj", "down_proj". */
    const char *gate_up, *fused_down, *name[3];
    bool own_fused;
} fa_moe_cfg;

typedef struct fa_moe_layer {
    fa_linear router; /* [n_expert, dim] */
    fa_route route;
    fa_moe experts;
    fa_linear shared_gate;          /* [1, dim]; no rows: none */
    fa_linear s_gate, s_up, s_down; /* no rows: no shared expert; a plain one's up is in s_gate */
    fa_linear fc1, fc2;             /* [latent, dim], [dim, latent]; no rows: experts are as wide as the model */
    fa_act_fn act;
} fa_moe_layer;

/* num_experts (or num_local_experts) and num_experts_per_tok; softmax over all experts. */
void fa_moe_read(fa_cfg *r, fa_moe_cfg *c, int64_t n_expert, int64_t n_used);
void fa_moe_bind(fa_binder *b, const fa_moe_cfg *c, fa_moe_layer *l, int64_t dim, int layer);
/* h += scale * y(x); x: the normalised rows. */
void fa_moe_layer_add(fa_cx *cx, fa_tensor h, fa_tensor x, const fa_moe_layer *l, float scale);

#endif
