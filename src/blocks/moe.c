/* The mixture-of-experts MLP: binding in the layouts of transformers and mlx, and the forward pass. */
#include "blocks/moe.h"

#include <stdio.h>

enum { NAME = 192 };

void fa_moe_read(fa_cfg *r, fa_moe_cfg *c, int64_t n_expert, int64_t n_used) {
    const char *key = fa_cfg_node(r, "num_experts") ? "num_experts" : "num_local_experts";
    int64_t n = fa_cfg_int(r, key, n_expert, 0, 65536),
            used = fa_cfg_int(r, "num_experts_per_tok", n_used, 1, n ? n : 65536);
    if (n && used > n) fa_cfg_fail(r, "\"num_experts_per_tok\" is %lld of %lld", (long long)used, (long long)n);
    c->route = (fa_route){.n_expert = (int)n,
                          .n_used = (int)used,
                          .n_group = 1,
                          .n_group_used = 1,
                          .score = FA_SCORE_SOFTMAX,
                          .scale = 1};
}

static const char *either(const char *name, const char *otherwise) { return name ? name : otherwise; }

/* gate and up as the rows of one stack, the second half or every other one */
static void bind_fused(fa_binder *b, const fa_moe_cfg *c, fa_moe *m, int64_t dim, const char *gate_up,
                       const char *down) {
    int64_t n = c->route.n_expert, ff = c->ff_dim;
    fa_part gate = {.step = c->interleaved ? 2 : 1, .total = 2 * ff, .turned = c->turned}, up = gate;
    up.from = c->interleaved ? 1 : ff;
    fa_bind_experts(b, &m->gate, n, ff, dim, c->expert_bias, gate, "%s", gate_up);
    fa_bind_experts(b, &m->up, n, ff, dim, c->expert_bias, up, "%s", gate_up);
    fa_bind_experts(b, &m->down, n, dim, ff, c->expert_bias, (fa_part){.step = 1, .total = dim, .turned = c->turned},
                    "%s", down);
}

static void bind_experts(fa_binder *b, const fa_moe_cfg *c, fa_moe *m, int64_t dim, const char *block) {
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};
    int64_t n = c->route.n_expert, ff = c->ff_dim;
    fa_experts *const to[3] = {&m->gate, &m->up, &m->down};
    char stack[NAME], other[NAME], fused[NAME], down[NAME], after[NAME];
    m->act = c->act;
    m->limit = c->limit;
    snprintf(fused, sizeof fused, "%s.%s", block, either(c->gate_up, "experts.gate_up_proj"));
    snprintf(down, sizeof down, "%s.%s", block, either(c->fused_down, "experts.down_proj"));
    snprintf(stack, sizeof stack, "%s.switch_mlp.gate_proj", block);
    snprintf(other, sizeof other, "%s.experts.gate_proj", block);
    bool switched = fa_bind_has(b, "%s", stack), stacked = fa_bind_has(b, "%s", other);
    if (fa_bind_has(b, "%s", fused) || (c->own_fused && !switched && !stacked && !fa_bind_random(b))) {
        bind_fused(b, c, m, dim, fused, down);
        return;
    }
    /* made-up ones are named as mlx has them */
    const char *kind = switched || (fa_bind_random(b) && (c->gate_up || !c->own_fused)) ? "switch_mlp" : "experts";
    for (int i = 0; i < 3; i++) {
        int64_t rows = i == 2 ? dim : ff, cols = i == 2 ? ff : dim;
        snprintf(stack, sizeof stack, "%s.%s.%s", block, kind, names[i]);
        snprintf(other, sizeof other, "%s.experts.", block);
        snprintf(after, sizeof after, ".%s", either(c->name[i], names[i]));
        if (switched || stacked || fa_bind_random(b))
            fa_bind_experts(b, to[i], n, rows, cols, c->expert_bias,
                            (fa_part){.step = 1, .total = rows, .turned = c->turned}, "%s", stack);
        else
            fa_bind_each_expert(b, to[i], n, rows, cols, other, after);
    }
}

/* up and down alone */
static void bind_plain(fa_binder *b, const fa_moe_cfg *c, fa_moe *m, int64_t dim, const char *block) {
    static const char *const mlx[2] = {"switch_mlp.fc1", "switch_mlp.fc2"}, *const names[2] = {"up_proj", "down_proj"};
    const int64_t n = c->route.n_expert;
    fa_experts *const to[2] = {&m->up, &m->down};
    char switched[NAME], stack[NAME], before[NAME], after[NAME];
    m->act = c->act;
    for (int i = 0; i < 2; i++) {
        int64_t rows = i ? dim : c->ff_dim, cols = i ? c->ff_dim : dim;
        const fa_part whole = {.step = 1, .total = rows, .turned = c->turned};
        snprintf(switched, sizeof switched, "%s.%s", block, mlx[i]);
        snprintf(stack, sizeof stack, "%s.experts.%s", block, names[i]);
        snprintf(before, sizeof before, "%s.experts.", block);
        snprintf(after, sizeof after, ".%s", names[i]);
        if (fa_bind_random(b) || fa_bind_has(b, "%s", switched))
            fa_bind_experts(b, to[i], n, rows, cols, c->expert_bias, whole, "%s", switched);
        else if (fa_bind_has(b, "%s", stack))
            fa_bind_experts(b, to[i], n, rows, cols, c->expert_bias, whole, "%s", stack);
        else
            fa_bind_each_expert(b, to[i], n, rows, cols, before, after);
    }
}

/* What adapters may call the experts: stacks as in mlx, an expert's own matrices without the number, the fused stack.
 */
static void name_experts(fa_binder *b, const fa_moe_cfg *c, fa_moe *m, const char *block) {
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"}, *const plain[3] = {"", "fc1", "fc2"};
    fa_experts *const of[3] = {&m->gate, &m->up, &m->down};
    const int64_t ff = c->ff_dim;
    for (int i = 0; i < 3; i++) {
        const fa_part whole = {.step = 1, .total = of[i]->n ? of[i]->w[0].rows : 0, .turned = c->turned};
        fa_bind_stack(b, of[i], whole, "%s.experts.%s", block, names[i]);
        if (c->name[i]) fa_bind_stack(b, of[i], whole, "%s.experts.%s", block, c->name[i]);
        if (c->plain) fa_bind_stack(b, of[i], whole, "%s.experts.%s", block, plain[i]);
        if (i == 2 && c->fused_down) fa_bind_stack(b, of[i], whole, "%s.%s", block, c->fused_down);
        if (i == 2 || c->plain) continue;
        const fa_part part = {.from = i ? c->interleaved ? 1 : ff : 0,
                              .step = c->interleaved ? 2 : 1,
                              .total = 2 * ff,
                              .turned = c->turned};
        fa_bind_stack(b, of[i], part, "%s.experts.gate_up_proj", block);
        if (c->gate_up) fa_bind_stack(b, of[i], part, "%s.%s", block, c->gate_up);
    }
}

static void bind_latent(fa_binder *b, const fa_moe_cfg *c, fa_moe_layer *l, int64_t dim, const char *block) {
    fa_bias bias = c->shared_bias ? FA_BIAS : FA_NO_BIAS;
    fa_bind_linear(b, &l->fc1, c->latent, dim, bias, "%s.fc1_latent_proj", block);
    fa_bind_linear(b, &l->fc2, dim, c->latent, bias, "%s.fc2_latent_proj", block);
}

static void bind_shared(fa_binder *b, const fa_moe_cfg *c, fa_moe_layer *l, int64_t dim, int layer,
                        const char *shared) {
    const int64_t ff = c->shared_ff;
    if (c->plain) {
        fa_bias bias = c->shared_bias ? FA_BIAS : FA_NO_BIAS;
        fa_bind_linear(b, &l->s_gate, ff, dim, bias, "model.layers.%d.%s.up_proj", layer, shared);
        fa_bind_linear(b, &l->s_down, dim, ff, bias, "model.layers.%d.%s.down_proj", layer, shared);
        return;
    }
    bool fused = c->shared_gate_up && !fa_bind_has(b, "model.layers.%d.%s.gate_proj", layer, shared);
    if (fused) {
        fa_bind_halves(b, &l->s_gate, &l->s_up, ff, dim, "model.layers.%d.%s.%s", layer, shared, c->shared_gate_up);
    } else {
        fa_bind_linear(b, &l->s_gate, ff, dim, FA_NO_BIAS, "model.layers.%d.%s.gate_proj", layer, shared);
        fa_bind_linear(b, &l->s_up, ff, dim, FA_NO_BIAS, "model.layers.%d.%s.up_proj", layer, shared);
    }
    fa_bind_linear(b, &l->s_down, dim, ff, FA_NO_BIAS, "model.layers.%d.%s.%s", layer, shared,
                   fused ? c->shared_down : "down_proj");
}

void fa_moe_bind(fa_binder *b, const fa_moe_cfg *c, fa_moe_layer *l, int64_t dim, int layer) {
    const char *router = either(c->router, "mlp.gate"), *block = either(c->block, "mlp"),
               *shared = either(c->shared, "mlp.shared_expert"),
               *gate = either(c->shared_gate_name, "mlp.shared_expert_gate");
    char name[NAME];
    l->route = c->route;
    l->act = c->act;
    fa_bind_linear(b, &l->router, c->route.n_expert, dim, c->router_bias ? FA_BIAS : FA_NO_BIAS, "model.layers.%d.%s",
                   layer, router);
    if (c->score_bias)
        l->route.bias = fa_bind_vector(b, c->route.n_expert, 0, "model.layers.%d.%s", layer, c->score_bias);
    snprintf(name, sizeof name, "model.layers.%d%s%s", layer, *block ? "." : "", block);
    (c->plain ? bind_plain : bind_experts)(b, c, &l->experts, c->latent ? c->latent : dim, name);
    name_experts(b, c, &l->experts, name);
    if (c->latent) bind_latent(b, c, l, dim, name);
    fa_bind_mixture(b, &l->experts, c->route.n_used);
    if (!c->shared_ff) return;
    bind_shared(b, c, l, dim, layer, shared);
    if (c->shared_gate) fa_bind_linear(b, &l->shared_gate, 1, dim, FA_NO_BIAS, "model.layers.%d.%s", layer, gate);
}

void fa_moe_layer_add(fa_cx *cx, fa_tensor h, fa_tensor x, const fa_moe_layer *l, float scale) {
    fa_tensor logits = fa_linear_op(cx, x, &l->router);
    fa_tap(cx, "router", logits);
    fa_tensor choice = fa_route_op(cx, logits, &l->route);
    if (l->fc1.w.rows)
        fa_linear_add(cx, h, fa_moe_op(cx, fa_linear_op(cx, x, &l->fc1), choice, &l->experts), &l->fc2, NULL, scale);
    else
        fa_moe_add(cx, h, x, choice, &l->experts, scale);
    if (!l->s_gate.w.rows) return;
    fa_tensor g = fa_norm_mlp_up(cx, x, NULL, &l->s_gate, &l->s_up, l->act);
    if (!l->shared_gate.w.rows) {
        fa_linear_add(cx, h, g, &l->s_down, NULL, scale);
        return;
    }
    fa_tensor y = fa_linear_op(cx, g, &l->s_down);
    fa_row_gate(cx, y, fa_linear_op(cx, x, &l->shared_gate), FA_ACT_SIGMOID);
    fa_add(cx, h, y, scale);
}
