/* What kernels that work on rows share: reductions, loads and stores of activations by type, activation functions, and
 * the end of the q, k, v projections: heads are normalised, rotated and put where they belong. Formulas are those of
 * src/backend/cpu (ops_basic.c, kern_body_vec.h).
 *
 * Conventions: blocks are one-dimensional, a multiple of 32 threads; functions named cu_warp_* are called by all 32
 * lanes of a warp, cu_block_* by all threads of a block, which get the same result. */
#ifndef FA_CUDA_CU_ROWS_H
#define FA_CUDA_CU_ROWS_H

#include "backend/cuda/cu.h"

/* ---- reductions ---- */

CU_DEV float cu_warp_sum(float x) {
    for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}
CU_DEV double cu_warp_sum_wide(double x) {
    for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}
CU_DEV float cu_warp_max(float x) {
    for (int d = 16; d; d >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
    return x;
}

/* smem: 32 values for these calls alone; they wait for each other, so calls may follow one another. */
CU_DEV float cu_block_sum(float x, float *smem) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n = (int)blockDim.x / CU_WARP;
    x = cu_warp_sum(x);
    __syncthreads();
    if (lane == 0) smem[warp] = x;
    __syncthreads();
    return cu_warp_sum(lane < n ? smem[lane] : 0.0f);
}
CU_DEV double cu_block_sum_wide(double x, double *smem) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n = (int)blockDim.x / CU_WARP;
    x = cu_warp_sum_wide(x);
    __syncthreads();
    if (lane == 0) smem[warp] = x;
    __syncthreads();
    return cu_warp_sum_wide(lane < n ? smem[lane] : 0.0);
}
CU_DEV float cu_block_max(float x, float *smem) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n = (int)blockDim.x / CU_WARP;
    x = cu_warp_max(x);
    __syncthreads();
    if (lane == 0) smem[warp] = x;
    __syncthreads();
    return cu_warp_max(lane < n ? smem[lane] : -INFINITY);
}

/* ---- elements by type: fa_dtype F32, BF16 or F16; i counts elements ---- */

CU_DEV float cu_get(const void *p, int type, int64_t i) {
    if (type == FA_F32) return ((const float *)p)[i];
    uint16_t v = ((const uint16_t *)p)[i];
    return type == FA_BF16 ? cu_bf16(v) : cu_f16(v);
}
CU_DEV void cu_put(void *p, int type, int64_t i, float x) {
    if (type == FA_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = type == FA_BF16 ? cu_to_bf16(x) : cu_to_f16(x);
}
/* Elements i and i + 1; i even, p aligned to two elements. */
CU_DEV void cu_put2(void *p, int type, int64_t i, float x, float y) {
    if (type == FA_F32)
        ((float2 *)p)[i / 2] = make_float2(x, y);
    else
        ((uint32_t *)p)[i / 2] = type == FA_BF16 ? cu_to_bf16x2(x, y) : cu_to_f16x2(x, y);
}
/* Elements i .. i + 3; i a multiple of 4, p aligned to four elements. */
CU_DEV float4 cu_get4(const void *p, int type, int64_t i) {
    if (type == FA_F32) return ((const float4 *)p)[i / 4];
    uint2 v = ((const uint2 *)p)[i / 4];
    if (type == FA_BF16) return make_float4(cu_bf16_lo(v.x), cu_bf16_hi(v.x), cu_bf16_lo(v.y), cu_bf16_hi(v.y));
    return make_float4(cu_f16_lo(v.x), cu_f16_hi(v.x), cu_f16_lo(v.y), cu_f16_hi(v.y));
}
CU_DEV void cu_put4(void *p, int type, int64_t i, float4 x) {
    if (type == FA_F32)
        ((float4 *)p)[i / 4] = x;
    else if (type == FA_BF16)
        ((uint2 *)p)[i / 4] = make_uint2(cu_to_bf16x2(x.x, x.y), cu_to_bf16x2(x.z, x.w));
    else
        ((uint2 *)p)[i / 4] = make_uint2(cu_to_f16x2(x.x, x.y), cu_to_f16x2(x.z, x.w));
}

/* ---- activations ---- */

CU_DEV float cu_act_silu(float x) { return x / (1.0f + expf(-x)); } /* a large e^-x is infinite: the right 0 */
/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
CU_DEV float cu_act_gelu_tanh(float x) {
    const float c1 = -2 * 0.7978845608028654f, c3 = -2 * 0.7978845608028654f * 0.044715f;
    return x / (1.0f + expf(x * fmaf(x * x, c3, c1)));
}
CU_DEV float cu_act_gelu_erf(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

/* Any fa_act_fn; the same one for all threads. */
CU_DEV float cu_act(int act, float x) {
    switch (act) {
    case FA_ACT_SILU: return cu_act_silu(x);
    case FA_ACT_GELU_TANH: return cu_act_gelu_tanh(x);
    case FA_ACT_GELU_ERF: return cu_act_gelu_erf(x);
    case FA_ACT_RELU: return fmaxf(0.0f, x);
    case FA_ACT_GELU_QUICK: return x / (1.0f + expf(-1.702f * x));
    case FA_ACT_RELU2: return x > 0 ? x * x : 0;
    case FA_ACT_RELU6: return x > 6 ? 6 : x > 0 ? x : 0;
    case FA_ACT_LEAKY_RELU: return x > 0 ? x : 0.01f * x;
    case FA_ACT_SIGMOID: return 1.0f / (1.0f + expf(-x));
    case FA_ACT_TANH: return tanhf(x);
    case FA_ACT_MISH: return x * tanhf(x > 20 ? x : log1pf(expf(x)));
    default: return x;
    }
}

/* ---- RMS ---- */

/* 1 / sqrt(sum / n + eps) of a sum of squares; *wide: the sum left the comfortable range of float and is to be taken
 * again in double. */
CU_DEV float cu_inv_rms(float sum, int64_t n, float eps, bool *wide) {
    *wide = !(sum > 1e-30f && sum < 1e37f);
    return 1.0f / sqrtf(sum / (float)n + eps);
}
CU_DEV float cu_inv_rms_wide(double sum, int64_t n, float eps) {
    return (float)(1.0 / sqrt(sum / (double)n + (double)eps));
}

/* 1 / rms of x [n] (shared or global memory). */
CU_DEV float cu_warp_inv_rms(const float *x, int n, float eps) {
    const int lane = (int)threadIdx.x % CU_WARP;
    float s = 0;
    bool wide;
    for (int i = lane; i < n; i += CU_WARP) s = fmaf(x[i], x[i], s);
    float r = cu_inv_rms(cu_warp_sum(s), n, eps, &wide);
    if (!wide) return r; /* the same for all lanes */
    double w = 0;
#pragma unroll 1
    for (int i = lane; i < n; i += CU_WARP) w += (double)x[i] * (double)x[i];
    return cu_inv_rms_wide(cu_warp_sum_wide(w), n, eps);
}

/* A norm by value, for kernel parameters. */
typedef struct cu_norm {
    const float *w; /* device [dim] or NULL */
    float eps, offset;
    int on; /* 0: nothing is normalised */
} cu_norm;

static inline cu_norm cu_norm_of(const fa_norm *n) {
    cu_norm c = {NULL, 0, 0, 0};
    if (n) c.w = n->w, c.eps = n->eps, c.offset = n->offset, c.on = 1;
    return c;
}

/* ---- one head ---- */

/* A warp: out = rotate(norm(x)), x [dim] f32 in shared or global memory, out [dim] of `type`, which may be x itself
 * when F32; dim even. n: n.on 0, as is. cs: the row's [2, n_pair] cosines and sines, NULL: no rotation; 2 n_pair <=
 * dim.
 *
 * A lane does whole pairs (two neighbouring ones where they can be stored together), so in place is safe; what is not
 * rotated follows two by two. x, out: aligned to 8 bytes and to two elements. */
CU_DEV void cu_warp_head(const float *x, int dim, cu_norm n, const float *cs, int n_pair, int interleaved, void *out,
                         int type) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const float r = n.on ? cu_warp_inv_rms(x, dim, n.eps) : 1.0f;
    auto at = [&](int i) {
        float v = x[i] * r;
        return n.w ? v * (n.w[i] + n.offset) : v;
    };
    const int np = cs ? n_pair : 0;
    if (interleaved) {
        for (int i = lane; i < np; i += CU_WARP) {
            float u = at(2 * i), v = at(2 * i + 1), c = cs[i], s = cs[np + i];
            cu_put2(out, type, 2 * i, u * c - v * s, v * c + u * s);
        }
    } else if (np % 2 == 0) {
        for (int i = 2 * lane; i < np; i += 2 * CU_WARP) {
            float u0 = at(i), u1 = at(i + 1), v0 = at(np + i), v1 = at(np + i + 1);
            float c0 = cs[i], c1 = cs[i + 1], s0 = cs[np + i], s1 = cs[np + i + 1];
            cu_put2(out, type, i, u0 * c0 - v0 * s0, u1 * c1 - v1 * s1);
            cu_put2(out, type, np + i, v0 * c0 + u0 * s0, v1 * c1 + u1 * s1);
        }
    } else {
        for (int i = lane; i < np; i += CU_WARP) {
            float u = at(i), v = at(np + i), c = cs[i], s = cs[np + i];
            cu_put(out, type, i, u * c - v * s);
            cu_put(out, type, np + i, v * c + u * s);
        }
    }
    for (int i = 2 * np + 2 * lane; i < dim; i += 2 * CU_WARP) {
        float u = at(i), v = at(i + 1);
        cu_put2(out, type, i, u, v);
    }
}

/* ---- the cache ---- */

/* One layer's cache and where a batch's rows go in it; by value. */
typedef struct cu_cache {
    uint8_t *k, *v;
    int64_t page_bytes, head_bytes;
    int n_head, dim, type, page_stride;
    const int32_t *page, *place, *row_seq; /* of the batch; page: of the cache's group */
} cu_cache;

static inline cu_cache cu_cache_of(const fa_kv *kv, const cu_batch *b) {
    cu_cache c;
    c.k = kv->k, c.v = kv->v;
    c.page_bytes = (int64_t)kv->page_bytes, c.head_bytes = (int64_t)kv->head_bytes;
    c.n_head = (int)kv->n_head, c.dim = (int)kv->head_dim, c.type = (int)kv->dtype;
    c.page_stride = b->page_stride;
    c.page = b->page[kv->group], c.place = b->place, c.row_seq = b->row_seq;
    return c;
}

/* Where head `head` of row `row` goes, in c.k or c.v: the head's part of a page; *at: which row of it. NULL: the
 * sequence has no page there (rows that only fill up a step). */
CU_DEV uint8_t *cu_cache_head(const cu_cache &c, uint8_t *plane, int row, int head, int *at) {
    const int pos = c.place[row];
    if (pos < 0) return NULL;
    const int page = c.page[(int64_t)c.row_seq[row] * c.page_stride + pos / FA_PAGE];
    *at = pos % FA_PAGE;
    return page < 0 ? NULL : plane + (int64_t)page * c.page_bytes + (int64_t)head * c.head_bytes;
}

/* The same row of a cache of floats. */
CU_DEV void *cu_cache_at(const cu_cache &c, uint8_t *plane, int row, int head) {
    int at;
    uint8_t *p = cu_cache_head(c, plane, row, head, &at);
    return p ? p + (int64_t)at * c.dim * (c.type == FA_F32 ? 4 : 2) : NULL;
}

/* A warp: x [dim] f32 to row `at` of a head's part of a page in 8 bits; the bits of fa_kvq_row. */
CU_DEV void cu_warp_q8(const float *x, int dim, uint8_t *head, int at) {
    const int lane = (int)threadIdx.x % CU_WARP, groups = cu_kvq_groups(dim);
    uint16_t *scales = (uint16_t *)(head + (int64_t)FA_PAGE * dim) + at * groups;
    for (int g = 0; g < groups; g++) {
        const int i = g * FA_KVQ_GROUP + lane;
        const float v = i < dim ? x[i] : 0.0f;
        const unsigned top = __reduce_max_sync(0xFFFFFFFFu, __float_as_uint(fabsf(v))); /* as floats that are not < 0 */
        const bool bad = top >= 0x7F800000u;
        const uint16_t h = bad ? 0x7E00 : cu_to_f16(fminf(__fdiv_rn(__uint_as_float(top), 127.0f), 65504.0f));
        const float s = cu_f16(h), inv = s > 0 ? __fdiv_rn(1.0f, s) : 0.0f;
        const float q = fminf(fmaxf(rintf(v * inv), -127.0f), 127.0f);
        if (i < dim) head[(int64_t)at * dim + i] = bad ? 1 : (uint8_t)(int8_t)(s > 0 ? (int)q : 0);
        if (lane == 0) scales[g] = h;
    }
}

/* ---- the end of NORM_QKV ---- */

/* What becomes of the projections' outputs; by value in kernel parameters. Heads are counted through: n_q query heads,
 * then n_kv key heads, then n_kv value heads. */
typedef struct cu_qkv_finish {
    void *q;    /* [n_tok, n_q * dim] */
    int q_type; /* FA_F32 or FA_BF16 */
    int n_q, n_kv, dim;
    cu_norm q_norm, k_norm, v_norm;
    const float *table; /* [n_tok, 2, n_pair] or NULL */
    int n_pair, interleaved;
    cu_cache cache;
} cu_qkv_finish;

/* Host: of a NORM_QKV record. */
static inline cu_qkv_finish cu_qkv_finish_of(const fa_rec *r, const cu_batch *b) {
    const fa_qkv_param *p = &r->p.qkv;
    cu_qkv_finish f;
    f.q = r->out.data;
    f.q_type = r->out.dtype;
    f.dim = (int)p->kv->head_dim;
    f.n_q = (int)(p->q->w.rows / p->kv->head_dim);
    f.n_kv = p->k ? (int)p->kv->n_head : 0;
    f.q_norm = cu_norm_of(p->q_norm);
    f.k_norm = cu_norm_of(p->k_norm);
    f.v_norm = cu_norm_of(p->v_norm);
    f.table = p->rope_table;
    f.n_pair = (int)p->n_pair;
    f.interleaved = p->interleaved;
    f.cache = cu_cache_of(p->kv, b);
    return f;
}

/* A warp: head `head` of row `row` of the batch, x [dim] f32 with its bias added, in shared or global memory (written
 * before by this warp, or by others with a barrier or fence in between), 8-byte aligned; may be overwritten. After
 * cu_pdl_wait. */
CU_DEV void cu_warp_finish_head(const cu_qkv_finish &f, int row, int head, float *x) {
    const bool query = head < f.n_q, key = !query && head < f.n_q + f.n_kv;
    const cu_norm n = query ? f.q_norm : key ? f.k_norm : f.v_norm;
    const float *cs = f.table && (query || key) ? f.table + (int64_t)row * 2 * f.n_pair : NULL;
    void *out;
    if (!query && f.cache.type == FA_I8) {
        int at = 0;
        uint8_t *to = cu_cache_head(f.cache, key ? f.cache.k : f.cache.v, row, (head - f.n_q) % f.n_kv, &at);
        if (!to) return;
        cu_warp_head(x, f.dim, n, cs, f.n_pair, f.interleaved, x, FA_F32);
        __syncwarp();
        cu_warp_q8(x, f.dim, to, at);
        return;
    }
    if (query)
        out = (uint8_t *)f.q + (((int64_t)row * f.n_q + head) * f.dim << (f.q_type == FA_F32 ? 2 : 1));
    else
        out = cu_cache_at(f.cache, key ? f.cache.k : f.cache.v, row, (head - f.n_q) % f.n_kv);
    if (!out) return; /* the same for all lanes */
    cu_warp_head(x, f.dim, n, cs, f.n_pair, f.interleaved, out, query ? f.q_type : f.cache.type);
}

#endif
