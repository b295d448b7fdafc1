/* How a row chooses its experts, by a warp: what route.cu (ROUTE by itself) and stream.cuh (behind a norm and the
 * router) share. The definition is src/backend/cpu/ops_route.c; program.h tells the rules. */
#ifndef FA_CUDA_ROUTE_CUH
#define FA_CUDA_ROUTE_CUH

#include "backend/cuda/cu_rows.h"

/* By value, for kernel parameters. */
typedef struct cu_route {
    const float *logits; /* [n_row, n_expert] */
    float *out;          /* [n_row, 2 n_used] */
    int n_row, n_expert, n_used, n_group, n_group_used, score, normalise;
    float norm_eps, scale;
    const float *bias, *expert_scale; /* [n_expert] or NULL */
} cu_route;

static inline cu_route cu_route_of(const fa_rec *r) {
    const fa_route *o = r->p.route;
    cu_route a;
    a.logits = (const float *)r->in[0].data, a.out = fa_f32(r->out);
    a.n_row = (int)r->out.dim[0], a.n_expert = o->n_expert, a.n_used = o->n_used;
    a.n_group = o->n_group, a.n_group_used = o->n_group_used;
    a.score = o->score, a.normalise = o->normalise, a.norm_eps = o->norm_eps, a.scale = o->scale;
    a.bias = o->bias, a.expert_scale = o->expert_scale;
    return a;
}

/* A warp's place in shared memory. */
typedef struct cu_route_mem {
    float *s, *c;  /* [n_expert] what weights are made of, and what is chosen by; NaN: taken */
    float *weight; /* [n_used] of the chosen ones */
    int *expert;
    float *group; /* [n_group] */
} cu_route_mem;

/* Of a warp. */
static __host__ __device__ inline int cu_route_floats(int n_expert, int n_used, int n_group) {
    return 2 * n_expert + 2 * n_used + n_group;
}

/* Floats as integers in the same order; 0 is less than all of them. */
CU_DEV uint32_t cu_route_key(float v) {
    const uint32_t bits = __float_as_uint(v + 0.0f);
    return bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
}
/* Of the lanes' best keys and the places of these: the place of the largest key, the lowest among equals; -1: no lane
 * has one. The same for all lanes. */
CU_DEV int cu_route_best(uint32_t key, uint32_t at) {
    const uint32_t top = __reduce_max_sync(0xffffffffu, key);
    return (int)__reduce_min_sync(0xffffffffu, key == top ? at : UINT32_MAX);
}

/* The index of the largest of c [n], the lowest among equals; -1: all are NaN. The same for all lanes. */
CU_DEV int cu_route_largest(const float *c, int n) {
    const int lane = (int)threadIdx.x % CU_WARP;
    uint32_t most = 0, at = UINT32_MAX;
    for (int i = lane; i < n; i += CU_WARP) {
        const uint32_t key = cu_route_key(c[i]);
        if (c[i] == c[i] && key > most) most = key, at = (uint32_t)i;
    }
    return cu_route_best(most, at);
}

CU_DEV void cu_route_score(const cu_route &a, const float *logits, cu_route_mem w) {
    const int lane = (int)threadIdx.x % CU_WARP;
    float max = -INFINITY, sum = 0;
    if (a.score == FA_SCORE_SOFTMAX) {
        for (int i = lane; i < a.n_expert; i += CU_WARP) max = fmaxf(max, __ldcg(logits + i));
        max = cu_warp_max(max);
    }
    for (int i = lane; i < a.n_expert; i += CU_WARP) {
        float s = __ldcg(logits + i);
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

/* Experts outside of the groups with the largest sums of two are not chosen. */
CU_DEV void cu_route_groups(const cu_route &a, cu_route_mem w) {
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
        const int g = cu_route_largest(w.group, a.n_group);
        __syncwarp();
        if (g >= 0 && lane == 0) w.group[g] = NAN;
        __syncwarp();
    }
    for (int i = lane; i < a.n_expert; i += CU_WARP)
        if (w.group[i / per] == w.group[i / per]) w.c[i] = -INFINITY;
    __syncwarp();
}

/* What stands in front of a row's weights: sum: of all that were chosen. */
CU_DEV float cu_route_by(const cu_route &a, float sum) {
    return a.score == FA_SCORE_TOP_SOFTMAX ? sum : a.normalise ? sum + a.norm_eps : 1.0f;
}
CU_DEV void cu_route_put(const cu_route &a, float *out, int k, float weight, int expert, float by) {
    out[k] = weight / by * a.scale * (a.expert_scale ? a.expert_scale[expert] : 1.0f);
    out[a.n_used + k] = __int_as_float(expert);
}

/* The common case, in registers: at most N * 32 experts without groups, at most 32 chosen. As cu_warp_route. */
template <int N> CU_DEV void cu_warp_route_few(const cu_route a, int row) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const float *logits = a.logits + (int64_t)row * a.n_expert;
    float s[N], max = -INFINITY, sum = 0;
    uint32_t key[N]; /* 0: taken, NaN, or not there */
#pragma unroll
    for (int j = 0; j < N; j++) {
        s[j] = -INFINITY;
        if (lane + j * CU_WARP < a.n_expert) s[j] = __ldcg(logits + lane + j * CU_WARP);
        max = fmaxf(max, s[j]);
    }
    if (a.score == FA_SCORE_SOFTMAX) {
        max = cu_warp_max(max);
#pragma unroll
        for (int j = 0; j < N; j++) {
            s[j] = expf(s[j] - max);
            if (lane + j * CU_WARP < a.n_expert) sum += s[j];
        }
        sum = cu_warp_sum(sum);
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        const bool there = lane + j * CU_WARP < a.n_expert;
        if (a.score == FA_SCORE_SOFTMAX) s[j] = s[j] / sum;
        if (a.score == FA_SCORE_SIGMOID) s[j] = 1.0f / (1.0f + expf(-s[j]));
        float c = s[j];
        if (a.bias && there) c += a.bias[lane + j * CU_WARP];
        key[j] = there && c == c ? cu_route_key(c) : 0;
    }
    float weight = 0, first = 0; /* of choice `lane` */
    int expert = 0;
    sum = 0;
    for (int k = 0; k < a.n_used; k++) {
        uint32_t most = 0, at = UINT32_MAX;
#pragma unroll
        for (int j = 0; j < N; j++)
            if (key[j] > most) most = key[j], at = (uint32_t)(lane + j * CU_WARP);
        int best = cu_route_best(most, at);
        if (best < 0) best = 0;
        float mine = 0;
#pragma unroll
        for (int j = 0; j < N; j++)
            if (lane + j * CU_WARP == best) mine = s[j], key[j] = 0;
        float v = __shfl_sync(0xffffffffu, mine, best % CU_WARP);
        if (k == 0) first = v;
        if (a.score == FA_SCORE_TOP_SOFTMAX) v = expf(v - first);
        sum += v;
        if (lane == k) weight = v, expert = best;
    }
    if (lane < a.n_used)
        cu_route_put(a, a.out + (int64_t)row * 2 * a.n_used, lane, weight, expert, cu_route_by(a, sum));
}

/* A warp: one row. mem: cu_route_floats in shared memory. */
CU_DEV void cu_warp_route(const cu_route &a, int row, float *mem) {
    const int lane = (int)threadIdx.x % CU_WARP;
    if (a.n_group == 1 && a.n_used <= CU_WARP && a.n_expert <= 8 * CU_WARP) {
        if (a.n_expert <= 4 * CU_WARP)
            cu_warp_route_few<4>(a, row);
        else
            cu_warp_route_few<8>(a, row);
        return;
    }
    cu_route_mem w;
    w.s = mem;
    w.c = w.s + a.n_expert;
    w.weight = w.c + a.n_expert;
    w.expert = (int *)(w.weight + a.n_used);
    w.group = (float *)(w.expert + a.n_used);
    cu_route_score(a, a.logits + (int64_t)row * a.n_expert, w);
    if (a.n_group > 1) cu_route_groups(a, w);
    const bool top = a.score == FA_SCORE_TOP_SOFTMAX;
    float sum = 0, first = 0;
    for (int k = 0; k < a.n_used; k++) {
        int best = cu_route_largest(w.c, a.n_expert);
        if (best < 0) best = 0;
        const float s = w.s[best];
        if (k == 0) first = s;
        const float v = top ? expf(s - first) : s;
        sum += v;
        __syncwarp();
        if (lane == 0) w.c[best] = NAN, w.weight[k] = v, w.expert[k] = best;
        __syncwarp();
    }
    for (int k = lane; k < a.n_used; k += CU_WARP)
        cu_route_put(a, a.out + (int64_t)row * 2 * a.n_used, k, w.weight[k], w.expert[k], cu_route_by(a, sum));
}

#endif
