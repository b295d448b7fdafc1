/* The mixture-of-experts MLP: binding in the layouts of transformers and mlx, and the forward pass. */
#include "blocks/moe.h"

#include <stdio.h>

enum { NAME = 192 };

static void bind_experts(fa_binder *b, const fa_moe_cfg *c, fa_moe *m, int64_t dim, const char *block) {
    int64_t n = c->route.n_expert, ff = c->ff_dim;
    const fa_part all = {.step = 1, .total = ff}, down = {.step = 1, .total = dim, .turned = c->turned};
    const struct {
        fa_experts *e;
        const char *name;
        int64_t rows, cols;
    } at[3] = {{&m->gate, "gate_proj", ff, dim}, {&m->up, "up_proj", ff, dim}, {&m->down, "down_proj", dim, ff}};
    m->act = c->act;
    m->limit = c->limit;
    if (fa_bind_has(b, "%s.experts.gate_up_proj", block)) {
        fa_part gate = {.step = 1, .total = 2 * ff, .turned = c->turned}, up = gate;
        gate.step = up.step = c->interleaved ? 2 : 1;
        up.from = c->interleaved ? 1 : ff;
        fa_bind_experts(b, &m->gate, n, ff, dim, c->expert_bias, gate, "%s.experts.gate_up_proj", block);
        fa_bind_experts(b, &m->up, n, ff, dim, c->expert_bias, up, "%s.experts.gate_up_proj", block);
        fa_bind_experts(b, &m->down, n, dim, ff, c->expert_bias, down, "%s.experts.down_proj", block);
        return;
    }
    for (int i = 0; i < 3; i++) {
        const fa_part *part = i == 2 ? &down : &all;
        char before[NAME], after[NAME];
        if (fa_bind_has(b, "%s.switch_mlp.%s", block, at[i].name)) {
            fa_bind_experts(b, at[i].e, n, at[i].rows, at[i].cols, c->expert_bias, *part, "%s.switch_mlp.%s", block,
                            at[i].name);
        } else if (fa_bind_has(b, "%s.experts.%s", block, at[i].name)) {
            fa_bind_experts(b, at[i].e, n, at[i].rows, at[i].cols, c->expert_bias, *part, "%s.experts.%s", block,
                            at[i].name);
        } else {
            snprintf(before, sizeof before, "%s.experts.", block);
            snprintf(after, sizeof after, ".%s", at[i].name);
            fa_bind_each_expert(b, at[i].e, n, at[i].rows, at[i].cols, before, after);
        }
    }
}

void fa_moe_bind(fa_binder *b, const fa_moe_cfg *c, fa_moe_layer *l, int64_t dim, int layer) {
    const char *router = c->router ? c->router : "mlp.gate", *block = c->block ? c->block : "mlp",
               *shared = c->shared ? c->shared : "mlp.shared_expert",
               *gate = c->shared_gate_name ? c->shared_gate_name : "mlp.shared_expert_gate";
    char name[NAME];
    l->route = c->route;
    l->act = c->act;
    fa_bind_linear(b, &l->router, c->route.n_expert, dim, c->router_bias ? FA_BIAS : FA_NO_BIAS, "model.layers.%d.%s",
                   layer, router);
    snprintf(name, sizeof name, "model.layers.%d%s%s", layer, *block ? "." : "", block);
    bind_experts(b, c, &l->experts, dim, name);
    if (!c->shared_ff) return;
    fa_bind_linear(b, &l->s_gate, c->shared_ff, dim, FA_NO_BIAS, "model.layers.%d.%s.gate_proj", layer, shared);
    fa_bind_linear(b, &l->s_up, c->shared_ff, dim, FA_NO_BIAS, "model.layers.%d.%s.up_proj", layer, shared);
    fa_bind_linear(b, &l->s_down, dim, c->shared_ff, FA_NO_BIAS, "model.layers.%d.%s.down_proj", layer, shared);
    if (c->shared_gate) fa_bind_linear(b, &l->shared_gate, 1, dim, FA_NO_BIAS, "model.layers.%d.%s", layer, gate);
}

void fa_moe_layer_add(fa_cx *cx, fa_tensor h, fa_tensor x, const fa_moe_layer *l, float scale) {
    fa_tensor logits = fa_linear_op(cx, x, &l->router);
    fa_tap(cx, "router", logits);
    fa_tensor choice = fa_route_op(cx, logits, &l->route);
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
