/* Front end of the mixture of experts: shape rules, outputs, records. */
#include "ops/internal.h"

fa_tensor fa_route_op(fa_cx *cx, fa_tensor logits, const fa_route *route) {
    fa_rec r = {.in = {logits}};
    if (!fa_cx_check_cols(cx, FA_OP_ROUTE, logits, route->n_expert, "the router")) return r.out;
    enum { MAX_GROUP = 1024 };
    if (route->n_group > MAX_GROUP || route->n_used < 1 || route->n_used > route->n_expert || route->n_group < 1 ||
        route->n_expert % route->n_group || route->n_group_used < 1 || route->n_group_used > route->n_group) {
        fa_cx_fail(cx, FA_OP_ROUTE, "%d of %d experts, %d of %d groups", route->n_used, route->n_expert,
                   route->n_group_used, route->n_group);
        return r.out;
    }
    r.out = fa_cx_tensor(cx, FA_OP_ROUTE, logits.dim[0], 2 * (int64_t)route->n_used);
    r.p.route = route;
    r.bytes = 4 * (double)logits.dim[0] * (double)(route->n_expert + 2 * route->n_used);
    r.flops = 8 * (double)logits.dim[0] * (double)route->n_expert;
    fa_cx_record(cx, FA_OP_ROUTE, &r);
    return r.out;
}

/* Bytes of the experts' weights that n rows with k choices each read: each expert once, no more than there are
 * choices. */
static double expert_traffic(const fa_experts *e, double choices) {
    return e->n ? fa_weight_traffic(&e->w[0]) * (choices < (double)e->n ? choices : (double)e->n) : 0;
}

static bool fits(fa_cx *cx, const fa_experts *e, int64_t n, int64_t rows, int64_t cols) {
    if (e->n == n && e->w[0].rows == rows && e->w[0].cols == cols) return true;
    fa_cx_fail(cx, FA_OP_MOE, "%lld experts of [%lld, %lld], expected %lld of [%lld, %lld]", (long long)e->n,
               (long long)(e->n ? e->w[0].rows : 0), (long long)(e->n ? e->w[0].cols : 0), (long long)n,
               (long long)rows, (long long)cols);
    return false;
}

/* What adapters change on the experts; false: not possible. */
static bool adapted(fa_cx *cx, fa_rec *r, const fa_moe *m, double choices) {
    const fa_experts *e[3] = {&m->gate, &m->up, &m->down};
    for (int i = 0; i < 3; i++) {
        const fa_loras *l = e[i]->n ? fa_cx_loras(cx, &e[i]->w[0]) : NULL;
        if (l && !fa_cx_lora_rows(cx, FA_OP_MOE, &e[i]->w[0], r->in[0].dim[0], &r->p.moe.out_rows)) return false;
        r->p.moe.lora[i] = l;
        if (l) r->flops += choices * 2 * (double)l->rank * (double)(e[i]->w[0].rows + e[i]->w[0].cols);
    }
    return true;
}

static void record_moe(fa_cx *cx, fa_tensor out, fa_tensor x, fa_tensor choice, const fa_moe *m, float scale,
                       bool add) {
    if (!fa_cx_ok(cx)) return;
    int64_t n = m->up.n, dim = x.dim[1], ff = n ? m->up.w[0].rows : 0;
    if (n < 1 || !fits(cx, &m->up, n, ff, dim) || !fits(cx, &m->down, n, dim, ff) ||
        (m->gate.n && !fits(cx, &m->gate, n, ff, dim)))
        return;
    if (choice.dim[0] != x.dim[0] || choice.dim[1] % 2) {
        fa_cx_fail(cx, FA_OP_MOE, "choices [%lld, %lld] for %lld rows", (long long)choice.dim[0],
                   (long long)choice.dim[1], (long long)x.dim[0]);
        return;
    }
    if (cx->inputs && m->gate.n) fa_tap(cx, m->gate.w[0].name, x);
    if (cx->inputs && (!m->gate.n || m->gate.w[0].name != m->up.w[0].name)) fa_tap(cx, m->up.w[0].name, x);
    fa_rec r = {.in = {x, choice}, .out = out};
    r.p.moe.moe = m;
    r.p.moe.scale = scale;
    r.p.moe.add = add;
    r.p.moe.n_used = (int)(choice.dim[1] / 2);
    double choices = (double)x.dim[0] * r.p.moe.n_used;
    r.bytes = expert_traffic(&m->gate, choices) + expert_traffic(&m->up, choices) + expert_traffic(&m->down, choices) +
              8 * (double)x.dim[0] * (double)dim;
    r.flops = choices * 2 * (double)dim * (double)ff * (m->gate.n ? 3 : 2);
    if (cx->adapted && !adapted(cx, &r, m, choices)) return;
    fa_cx_record(cx, FA_OP_MOE, &r);
}

fa_tensor fa_moe_op(fa_cx *cx, fa_tensor x, fa_tensor choice, const fa_moe *moe) {
    fa_tensor y = fa_cx_tensor(cx, FA_OP_MOE, x.dim[0], x.dim[1]);
    record_moe(cx, y, x, choice, moe, 1, false);
    return y;
}

void fa_moe_add(fa_cx *cx, fa_tensor h, fa_tensor x, fa_tensor choice, const fa_moe *moe, float scale) {
    if (!fa_cx_check_cols(cx, FA_OP_MOE, x, h.dim[1], "h")) return;
    record_moe(cx, h, x, choice, moe, scale, true);
}
