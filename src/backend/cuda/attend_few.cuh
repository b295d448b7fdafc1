/* What the two kinds of keys share in attention of decode steps (attend_decode.cu): a unit's rows of q on their way to
 * the tensor cores, the pages of a split, and the scores that several warps have a part of. */
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
