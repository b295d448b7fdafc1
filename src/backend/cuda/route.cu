/* ROUTE: how rows choose their experts. The definition is src/backend/cpu/ops_moe.c; program.h tells the rules. */
#include "backend/cuda/cu_rows.h"

enum { WARPS = 4 };

typedef struct route_args {
    const float *logits; /* [n_row, n_expert] */
    float *out;          /* [n_row, 2 n_used] */
    int n_row, n_expert, n_used, n_group, n_group_used, score, normalise;
    float norm_eps, scale;
    const float *bias, *expert_scale; /* [n_expert] or NULL */
} route_args;

/* A warp's place in shared memory. */
typedef struct route_mem {
    float *s, *c;  /* [n_expert] what weights are made of, and what is chosen by; NaN: taken */
    float *weight; /* [n_used] of the chosen ones */
    int *expert;
    float *group; /* [n_group] */
} route_mem;

static __host__ __device__ int floats_of(int n_expert, int n_used, int n_group) {
    return 2 * n_expert + 2 * n_used + n_group;
}

/* The index of the largest of c [n], the lowest among equals; -1: all are NaN. The same for all lanes. */
CU_DEV int largest(const float *c, int n) {
    const int lane = (int)threadIdx.x % CU_WARP;
    int at = -1;
    float most = 0;
    for (int i = lane; i < n; i += CU_WARP) {
        const float v = c[i];
        if (v == v && (at < 0 || v > most)) at = i, most = v;
    }
    for (int d = 16; d; d >>= 1) {
        const float v = __shfl_xor_sync(0xffffffffu, most, d);
        const int i = __shfl_xor_sync(0xffffffffu, at, d);
        if (i >= 0 && (at < 0 || v > most || (v == most && i < at))) at = i, most = v;
    }
    return at;
}

CU_DEV void score(const route_args &a, const float *logits, route_mem w) {
    const int lane = (int)threadIdx.x % CU_WARP;
    float max = -INFINITY, sum = 0;
    if (a.score == FA_SCORE_SOFTMAX) {
        for (int i = lane; i < a.n_expert; i += CU_WARP) max = fmaxf(max, logits[i]);
        max = cu_warp_max(max);
    }
    for (int i = lane; i < a.n_expert; i += CU_WARP) {
        float s = logits[i];
        if (a.score == FA_SCORE_SIGMOID) s = 1.0f / (1.0f + expf(-s));
        if (a.score == FA_SCORE_SOFTMAX) s = expf(s - max), sum += s;
        w.s[i] = s;
    }
    if (a.score == FA_SCORE_SOFTMAX) sum = cu_warp_sum(sum);
    for (int i = lane; i < a.n_expert; i += CU_WARP) { /* the lane's own */
        float s = w.s[i];
        if (a.score == FA_SCORE_SOFTMAX) w.s[i] = s = s / sum;
        w.c[i] = a.bias ? s + a.bias[i] : s;
    }
    __syncwarp();
}

/* Experts outside of the groups with the largest sums of two count as 0. */
CU_DEV void limit_groups(const route_args &a, route_mem w) {
    const int lane = (int)threadIdx.x % CU_WARP, per = a.n_expert / a.n_group;
    for (int g = lane; g < a.n_group; g += CU_WARP) {
        float x = -INFINITY, y = -INFINITY;
        for (int i = g * per; i < (g + 1) * per; i++) {
            const float v = w.c[i];
            if (v > x)
                y = x, x = v;
            else if (v > y)
                y = v;
        }
        w.group[g] = per > 1 ? x + y : x;
    }
    __syncwarp();
    for (int k = 0; k < a.n_group_used; k++) {
        const int g = largest(w.group, a.n_group);
        __syncwarp();
        if (g >= 0 && lane == 0) w.group[g] = NAN;
        __syncwarp();
    }
    for (int i = lane; i < a.n_expert; i += CU_WARP)
        if (w.group[i / per] == w.group[i / per]) w.c[i] = 0;
    __syncwarp();
}

/* A warp: one row. */
static __global__ void __launch_bounds__(WARPS *CU_WARP) route_kernel(route_args a) {
    CU_DYN_SMEM(smem);
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP;
    const int row = (int)blockIdx.x * WARPS + warp;
    cu_pdl_launch();
    cu_pdl_wait();
    if (row >= a.n_row) return; /* the whole warp; no barriers of the block follow */
    route_mem w;
    w.s = (float *)smem + (int64_t)warp * floats_of(a.n_expert, a.n_used, a.n_group);
    w.c = w.s + a.n_expert;
    w.weight = w.c + a.n_expert;
    w.expert = (int *)(w.weight + a.n_used);
    w.group = (float *)(w.expert + a.n_used);
    score(a, a.logits + (int64_t)row * a.n_expert, w);
    if (a.n_group > 1) limit_groups(a, w);
    const bool top = a.score == FA_SCORE_TOP_SOFTMAX;
    float sum = 0, first = 0;
    for (int k = 0; k < a.n_used; k++) {
        int best = largest(w.c, a.n_expert);
        if (best < 0) best = 0;
        const float s = w.s[best];
        if (k == 0) first = s;
        const float v = top ? expf(s - first) : s;
        sum += v;
        __syncwarp();
        if (lane == 0) w.c[best] = NAN, w.weight[k] = v, w.expert[k] = best;
        __syncwarp();
    }
    const float by = top ? sum : a.normalise ? sum + a.norm_eps : 1.0f;
    float *out = a.out + (int64_t)row * 2 * a.n_used;
    for (int k = lane; k < a.n_used; k += CU_WARP) {
        out[k] = w.weight[k] / by * a.scale * (a.expert_scale ? a.expert_scale[w.expert[k]] : 1.0f);
        out[a.n_used + k] = __int_as_float(w.expert[k]);
    }
}

static size_t route_smem(const fa_route *o) {
    return (size_t)WARPS * (size_t)floats_of(o->n_expert, o->n_used, o->n_group) * sizeof(float);
}

static void route_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_route *o = r->p.route;
    route_args a;
    a.logits = (const float *)r->in[0].data, a.out = fa_f32(r->out);
    a.n_row = (int)r->out.dim[0], a.n_expert = o->n_expert, a.n_used = o->n_used;
    a.n_group = o->n_group, a.n_group_used = o->n_group_used;
    a.score = o->score, a.normalise = o->normalise, a.norm_eps = o->norm_eps, a.scale = o->scale;
    a.bias = o->bias, a.expert_scale = o->expert_scale;
    CU_LAUNCH(cu, route_kernel, dim3(cu_blocks(a.n_row, WARPS)), WARPS * CU_WARP, route_smem(o), a);
}

static int64_t route_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    if (r->in[0].dtype != FA_F32)
        return fa_fail(err, FFAI_ENOTSUP, "no kernel for router logits of %s", fa_dtype_name((fa_dtype)r->in[0].dtype));
    if (route_smem(r->p.route) > cu->smem_max)
        return fa_fail(err, FFAI_ENOTSUP, "%d experts do not fit the %zu bytes of shared memory", r->p.route->n_expert,
                       cu->smem_max);
    return 0;
}

extern const cu_op cu_op_route = {route_launch, route_work};
