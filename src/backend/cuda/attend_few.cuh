/* What the two kinds of keys share in attention of decode steps (attend_decode.cu): a unit's rows of q on their way to
 * the tensor cores, the pages of a split, the softmax, and the scores that several warps have a part of.
 *
 * Keys, and columns of values, are the rows of the products and the unit's rows their columns, 8 a product (NT products
 * for units of more): scores are [16 keys, 8 rows], results [columns, 8 rows]. So a unit of up to 8 rows (one query row
 * of up to 8 heads) takes half of the products, registers and softmax that 16 rows do. Here g = lane / 4 and t = lane %
 * 4. */
#ifndef FA_CUDA_ATTEND_FEW_CUH
#define FA_CUDA_ATTEND_FEW_CUH

#include "backend/cuda/attend.h"

/* Columns [0, DIMS) of 16-bit rows in shared memory: 16-byte pieces, swizzled so that 8 lanes that read one piece of 8
 * rows meet all banks. Index of piece c of row r. */
template <int DIMS> CU_DEV int piece(int r, int c) { return r * (DIMS / 8) + (c ^ (r & 7)); }

/* Walks the pages of a split: lane i holds the number of page 32 n + i. */
struct page_walk {
    const int32_t *table;
    int end; /* one past the split's last page */
    int held, next, first;
};

CU_DEV int held_page(const page_walk &w, int p) {
    const int i = p + (int)threadIdx.x % CU_WARP;
    return i < w.end ? w.table[i] : -1;
}

CU_DEV void walk_begin(page_walk *w, const int32_t *table, int from, int to) {
    w->table = table;
    w->first = from / FA_PAGE;
    w->end = (to + FA_PAGE - 1) / FA_PAGE;
    w->held = held_page(*w, w->first);
    w->next = held_page(*w, w->first + CU_WARP);
}

/* Page p; calls come in order and never skip 32. */
CU_DEV int walk_page(page_walk *w, int p) {
    if (p >= w->first + CU_WARP) {
        w->first += CU_WARP;
        w->held = w->next;
        w->next = held_page(*w, w->first + CU_WARP);
    }
    return __shfl_sync(0xFFFFFFFFu, w->held, p - w->first);
}

/* 4 elements of q from p on, as they lie, and in the type KV. */
CU_DEV void q_pairs(const float *p, float4 *v) { *v = *(const float4 *)p; }
CU_DEV void q_pairs(const uint16_t *p, uint2 *v) { *v = *(const uint2 *)p; }
template <int KV> CU_DEV uint2 q_as(float4 v) {
    if (KV == FA_BF16) return make_uint2(cu_to_bf16x2(v.x, v.y), cu_to_bf16x2(v.z, v.w));
    return make_uint2(cu_to_f16x2(v.x, v.y), cu_to_f16x2(v.z, v.w));
}
template <int KV> CU_DEV uint2 q_as(uint2 v) {
    return KV == FA_BF16 ? v
                         : q_as<KV>(make_float4(cu_bf16_lo(v.x), cu_bf16_hi(v.x), cu_bf16_lo(v.y), cu_bf16_hi(v.y)));
}

/* A warp's columns [dim0, dim0 + DIMS) of the unit's first ROWS rows of q in the type KV, to x in shared memory; zeros
 * for rows that do not exist. T: what q is made of, V: 4 of them. All loads of a turn start before the first is used.
 */
template <int DIMS, int ROWS, int KV, class T, class V>
CU_DEV void stage_q_of(const cu_att &a, const cu_att_item &it, int dim0, uint4 *x) {
    constexpr int QUADS = DIMS / 4, TURN = 8;
    const int lane = (int)threadIdx.x % CU_WARP, n_row = it.t.nq * a.group - it.rt * ATT_ROWS;
    const int64_t base = cu_att_at(a, it.t, it.head, 0);
    const int mine = (int)(cu_att_at(a, it.t, it.head, it.rt * ATT_ROWS + lane % ATT_ROWS) - base); /* of lane's row */
#pragma unroll
    for (int i0 = 0; i0 < ROWS * QUADS / CU_WARP; i0 += TURN) {
        V v[TURN];
#pragma unroll
        for (int u = 0; u < TURN && i0 + u < ROWS * QUADS / CU_WARP; u++) {
            const int i = (i0 + u) * CU_WARP + lane, r = i / QUADS, c = dim0 + i % QUADS * 4;
            const T *from = (const T *)a.q + base + __shfl_sync(0xFFFFFFFFu, mine, r) + c;
            v[u] = V();
            if (r < n_row && c < a.hd) q_pairs(from, &v[u]);
        }
#pragma unroll
        for (int u = 0; u < TURN && i0 + u < ROWS * QUADS / CU_WARP; u++) {
            const int i = (i0 + u) * CU_WARP + lane, r = i / QUADS, c = i % QUADS;
            ((uint2 *)(x + piece<DIMS>(r, c / 2)))[c % 2] = q_as<KV>(v[u]);
        }
    }
}

template <int DIMS, int ROWS, int KV> CU_DEV void stage_q(const cu_att &a, const cu_att_item &it, int dim0, uint4 *x) {
    if (a.q_bf16)
        stage_q_of<DIMS, ROWS, KV, uint16_t, uint2>(a, it, dim0, x);
    else
        stage_q_of<DIMS, ROWS, KV, float, float4>(a, it, dim0, x);
}

/* A warp's softmax and sums. DIMS: its columns; KV: the type of the right factors (weights). */
template <int DIMS, int NT, int KV> struct few_rows {
    static constexpr int SCORES = 4 * NT, SEEN = 2 * NT;

    uint32_t p[NT][2];      /* weights: keys 2 t, 2 t + 1 and those 8 behind, of row 8 n + g */
    float m[SEEN], l[SEEN]; /* l: this lane's part */
    float acc[NT][DIMS / 16][4];

    CU_DEV int key_of(int e) { return (int)threadIdx.x % CU_WARP / 4 + e / 2 % 2 * 8; }
    CU_DEV int seen_of(int e) { return e / 4 * 2 + e % 2; }
    CU_DEV int row_of(int i) { return i / 2 * 8 + 2 * ((int)threadIdx.x % 4) + i % 2; }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int n = 0; n < NT; n++) {
            m[2 * n] = m[2 * n + 1] = -INFINITY;
            l[2 * n] = l[2 * n + 1] = 0;
#pragma unroll
            for (int i = 0; i < DIMS / 16 * 4; i++) acc[n][i / 4][i % 4] = 0;
        }
    }

    /* The maxima of rows become those of all scores; earlier sums are scaled. */
    __device__ __forceinline__ void raise(const float *s) {
#pragma unroll
        for (int i = 0; i < SEEN; i++) {
            float top = fmaxf(s[i / 2 * 4 + i % 2], s[i / 2 * 4 + 2 + i % 2]);
            for (int d = 4; d < CU_WARP; d *= 2) top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, d));
            top = fmaxf(top, m[i]);
            const float keep = cu_exp2(m[i] - (top == -INFINITY ? 0.0f : top));
            m[i] = top;
            l[i] *= keep;
#pragma unroll
            for (int j = 0; j < DIMS / 8; j++) acc[i / 2][j / 2][j % 2 * 2 + i % 2] *= keep;
        }
    }

    /* Scores to weights. They are relative to a maximum that is at most 2^HIGHER too small, so that it seldom has to be
     * raised. */
    __device__ __forceinline__ void soften(const float *s) {
        constexpr float HIGHER = 8;
        bool higher = false;
#pragma unroll
        for (int e = 0; e < SCORES; e++) higher = higher || s[e] > m[seen_of(e)] + HIGHER;
        if (__any_sync(0xFFFFFFFFu, higher)) raise(s);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            float w[4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float top = m[2 * n + i], base = top == -INFINITY ? 0.0f : top;
                w[i] = cu_exp2(s[4 * n + i] - base);
                w[2 + i] = cu_exp2(s[4 * n + 2 + i] - base);
                l[2 * n + i] += w[i] + w[2 + i];
            }
            for (int h = 0; h < 2; h++) p[n][h] = cu_transpose_8x8(cu_att_pack<KV>(w[2 * h], w[2 * h + 1]));
        }
    }

    /* Sums of the rows, in all lanes that have them. */
    __device__ __forceinline__ void end() {
#pragma unroll
        for (int i = 0; i < SEEN; i++)
            for (int d = 4; d < CU_WARP; d *= 2) l[i] += __shfl_xor_sync(0xFFFFFFFFu, l[i], d);
    }

    CU_DEV bool names_row() { return threadIdx.x % CU_WARP < 4; } /* one lane of those with the same rows */
};

/* Sum of the N scores a lane of the WD warps of a key group, in order. x: shared, [4 warps, N, 32]. */
template <int WD, int N> CU_DEV void exchange(float *x, float *s) {
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP;
#pragma unroll
    for (int e = 0; e < N; e++) x[(warp * N + e) * CU_WARP + lane] = s[e];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < N; e++) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < WD; w++) sum += x[((warp / WD * WD + w) * N + e) * CU_WARP + lane];
        s[e] = sum;
    }
}

#endif
