/* Attention of decode steps on tensor cores: few rows against long keys, in the cache's 16-bit type (8 bits: in f16)
 * with f32 sums.
 *
 * A block of 4 warps does one item: the 16 rows of a unit (query rows times the heads of a group; rows that do not
 * exist are zero) against a split's keys, a stage of WT * 16 keys at a time. The warps are WT key groups of WD column
 * groups: warp (wt, wd) copies, with cp.async, columns [wd * DIMS, + DIMS) of its 16 keys and values of each stage and
 * reads no other, so stages need no barrier of the block; STAGES of them are under way. With WD > 1 (head sizes above
 * 128, whose accumulators do not fit one warp) the partial scores of a key group's warps are added through shared
 * memory.
 *
 * An 8-bit cache: codes and scales arrive in stages of their own, and a warp turns a stage into f16 keys and values in
 * shared memory before it reads them. Of the 300 cycles that memory needs for a stage that takes about 40.
 *
 * Arithmetic: a multiprocessor takes about 14 bytes a cycle from memory, which is one 16x8x16 product per 18 cycles for
 * K and one for V: the tensor cores are nearly idle and what counts is bytes under way, 2 blocks of 2 stages of 32 KiB.
 */
#include "backend/cuda/attend.h"

enum { THREADS = 128 };

/* Columns [0, DIMS) of 16 keys or values: 16-byte pieces, swizzled so that 8 lanes that read one piece of 8 rows meet
 * all banks. Index of piece c of row r. */
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

/* Begins to copy this warp's part of the keys and values of positions [pos, pos + 16), zeros for those outside of
 * [lo, to). at: bytes of the page's head within the planes. A lane has column piece c of every 32 / CH-th row. */
template <int DIMS> CU_DEV void copy_stage(const cu_att &a, int64_t at, int pos, int lo, int to, int dim0, uint4 *k) {
    constexpr int CH = DIMS / 8, ROWS = CU_WARP / CH;
    const int lane = (int)threadIdx.x % CU_WARP, r0 = lane / CH, c = lane % CH;
    const int64_t from = at + 2 * ((pos % FA_PAGE + r0) * a.hd + dim0 + 8 * c); /* 16 positions lie in one page */
    const int first = dim0 + 8 * c < a.hd ? lo - pos : 16, end = to - pos;
    uint4 *v = k + 16 * CH;
#pragma unroll
    for (int i = 0; i < CH / 2; i++) {
        const int r = r0 + i * ROWS, n = r >= first && r < end ? 16 : 0;
        const int64_t row = from + i * (2 * ROWS * a.hd);
        cu_cp_async(k + piece<DIMS>(r, c), a.k + row, n);
        cu_cp_async(v + piece<DIMS>(r, c), a.v + row, n);
    }
}

/* A warp's shared memory in pieces. 8 bits: stages of codes and scales [16, groups] of K and of V, then room for one of
 * f16. */
template <int HD, int DIMS, int STAGES, int KV> struct room {
    static constexpr int codes = 16 * DIMS / 16, scales = 2 * cu_kvq_groups(HD);
    static constexpr int wide = 2 * 16 * DIMS / 8, stage = KV == FA_I8 ? 2 * (codes + scales) : wide;
    static constexpr int all = STAGES * stage + (KV == FA_I8 ? wide : 0);
};

/* copy_stage of an 8-bit cache. at: the head's part of a page. All scales of a row are taken, by each warp. */
template <class R, int DIMS>
CU_DEV void copy_codes(const cu_att &a, int64_t at, int pos, int lo, int to, int dim0, uint4 *k) {
    constexpr int CH = DIMS / 16;
    const int lane = (int)threadIdx.x % CU_WARP, groups = cu_kvq_groups(a.hd), t = pos % FA_PAGE;
    uint4 *v = k + R::codes + R::scales;
#pragma unroll
    for (int i = 0; i < R::codes / CU_WARP; i++) {
        const int e = i * CU_WARP + lane, r = e / CH, c = dim0 + e % CH * 16;
        const int n = pos + r >= lo && pos + r < to && c < a.hd ? 16 : 0;
        const int64_t from = n ? at + (t + r) * a.hd + c : 0;
        cu_cp_async(k + e, a.k + from, n);
        cu_cp_async(v + e, a.v + from, n);
    }
    if (lane < 2 * groups) { /* of 16 rows: those of a page that is there can be read, whatever they are */
        const int n = pos < to ? 16 : 0;
        const int64_t from = n ? at + (int64_t)FA_PAGE * a.hd + 2 * t * groups + 16 * lane : 0;
        cu_cp_async(k + R::codes + lane, a.k + from, n);
        cu_cp_async(v + R::codes + lane, a.v + from, n);
    }
}

/* A stage of codes to keys and values in f16, zeros outside of [lo, to). */
template <class R, int DIMS>
CU_DEV void widen_stage(const cu_att &a, int pos, int lo, int to, int dim0, const uint4 *from, uint4 *out) {
    constexpr int CH = DIMS / 16;
    const int lane = (int)threadIdx.x % CU_WARP, groups = cu_kvq_groups(a.hd);
#pragma unroll
    for (int i = 0; i < 2 * R::codes / CU_WARP; i++) {
        const int part = i >= R::codes / CU_WARP, e = i % (R::codes / CU_WARP) * CU_WARP + lane, r = e / CH, c = e % CH;
        const uint4 *p = from + part * (R::codes + R::scales);
        const uint16_t *scales = (const uint16_t *)(p + R::codes);
        uint4 x[2] = {};
        if (pos + r >= lo && pos + r < to && dim0 + 16 * c < a.hd)
            cu_att_widen_16(p[e], scales[r * groups + (dim0 + 16 * c) / FA_KVQ_GROUP], x, x + 1);
        out[part * (R::wide / 2) + piece<DIMS>(r, 2 * c)] = x[0];
        out[part * (R::wide / 2) + piece<DIMS>(r, 2 * c + 1)] = x[1];
    }
}

/* 4 elements of q from p on, as they lie, and in the cache's type. */
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

/* This warp's columns of the unit's rows of q in the cache's type, to x in shared memory; zeros for rows that do not
 * exist. T: what q is made of, V: 4 of them. All loads of a turn start before the first is used. */
template <int DIMS, int KV, class T, class V>
CU_DEV void stage_q(const cu_att &a, const cu_att_item &it, int dim0, uint4 *x) {
    constexpr int QUADS = DIMS / 4, TURN = 8;
    const int lane = (int)threadIdx.x % CU_WARP, n_row = it.t.nq * a.group - it.rt * ATT_ROWS;
    const int64_t base = cu_att_at(a, it.t, it.head, 0);
    const int mine = (int)(cu_att_at(a, it.t, it.head, it.rt * ATT_ROWS + lane % ATT_ROWS) - base); /* of lane's row */
#pragma unroll
    for (int i0 = 0; i0 < ATT_ROWS * QUADS / CU_WARP; i0 += TURN) {
        V v[TURN];
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const int i = (i0 + u) * CU_WARP + lane, r = i / QUADS, c = dim0 + i % QUADS * 4;
            const T *from = (const T *)a.q + base + __shfl_sync(0xFFFFFFFFu, mine, r) + c;
            v[u] = V();
            if (r < n_row && c < a.hd) q_pairs(from, &v[u]);
        }
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const int i = (i0 + u) * CU_WARP + lane, r = i / QUADS, c = i % QUADS;
            ((uint2 *)(x + piece<DIMS>(r, c / 2)))[c % 2] = q_as<KV>(v[u]);
        }
    }
}

/* The same as left factors; x: room for them, of this warp alone. */
template <int DIMS, int KV>
CU_DEV void load_q(const cu_att &a, const cu_att_item &it, int dim0, uint4 *x, uint32_t (*q)[4]) {
    const int lane = (int)threadIdx.x % CU_WARP, r = lane / 8 % 2 * 8 + lane % 8, half = lane / 16;
    if (a.q_bf16)
        stage_q<DIMS, KV, uint16_t, uint2>(a, it, dim0, x);
    else
        stage_q<DIMS, KV, float, float4>(a, it, dim0, x);
    __syncwarp();
#pragma unroll
    for (int j = 0; j < DIMS / 16; j++) cu_ldmatrix_x4(q[j], x + piece<DIMS>(r, 2 * j + half));
    __syncwarp();
}

/* s = q k^T over this warp's columns: s[n][e] belongs to key 8 n + 2 t + (e & 1) and row g + 8 (e / 2). */
template <int DIMS, int KV> CU_DEV void products(const uint32_t (*q)[4], const uint4 *k, float (*s)[4]) {
    const int lane = (int)threadIdx.x % CU_WARP, r = lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = 0;
#pragma unroll
    for (int i = 0; i < DIMS / 16; i++) {
        uint32_t b[4];
        cu_ldmatrix_x4(b, k + piece<DIMS>(r, 2 * i + half));
        cu_att_mma<KV>(s[0], q[i], b);
        cu_att_mma<KV>(s[1], q[i], b + 2);
    }
}

/* Sum of the scores of the WD warps of a key group, in order. x: shared, [4 warps, 8, 32]. */
template <int WD> CU_DEV void exchange(float *x, float (*s)[4]) {
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP;
#pragma unroll
    for (int e = 0; e < 8; e++) x[(warp * 8 + e) * CU_WARP + lane] = s[e / 4][e % 4];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 8; e++) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < WD; w++) sum += x[((warp / WD * WD + w) * 8 + e) * CU_WARP + lane];
        s[e / 4][e % 4] = sum;
    }
}

/* Running maximum and (this lane's part of the) sum of rows g and g + 8, and the output columns of this warp. */
template <int DIMS> struct rows_state { float m[2], l[2], acc[DIMS / 8][4]; };

/* Scores of 16 keys to weights, packed as the left factor of the product with V; earlier sums are scaled. */
template <int DIMS, int KV> CU_DEV void soften(rows_state<DIMS> *st, float (*s)[4], uint32_t *p) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = fmaxf(fmaxf(s[0][2 * h], s[0][2 * h + 1]), fmaxf(s[1][2 * h], s[1][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
        top = fmaxf(top, st->m[h]);
        const float base = top == -INFINITY ? 0.0f : top, keep = cu_exp2(st->m[h] - base);
        st->m[h] = top;
        st->l[h] *= keep;
#pragma unroll
        for (int i = 0; i < DIMS / 8; i++) {
            st->acc[i][2 * h] *= keep;
            st->acc[i][2 * h + 1] *= keep;
        }
#pragma unroll
        for (int n = 0; n < 2; n++) {
            const float x = cu_exp2(s[n][2 * h] - base), y = cu_exp2(s[n][2 * h + 1] - base);
            st->l[h] += x + y;
            p[2 * n + h] = KV == FA_BF16 ? cu_to_bf16x2(x, y) : cu_to_f16x2(x, y);
        }
    }
}

/* acc += p v over 16 keys */
template <int DIMS, int KV> CU_DEV void add_values(rows_state<DIMS> *st, const uint32_t *p, const uint4 *v) {
    const int lane = (int)threadIdx.x % CU_WARP, r = lane / 8 % 2 * 8 + lane % 8, half = lane / 16;
#pragma unroll
    for (int i = 0; i < DIMS / 16; i++) {
        uint32_t b[4];
        cu_ldmatrix_x4_trans(b, v + piece<DIMS>(r, 2 * i + half));
        cu_att_mma<KV>(st->acc[2 * i], p, b);
        cu_att_mma<KV>(st->acc[2 * i + 1], p, b + 2);
    }
}

/* Hands the warp's result to cu_att_finish: acc [WT, 16, lda], ml [2][WT * 16]. */
template <int DIMS>
CU_DEV void put_state(const cu_att &a, rows_state<DIMS> *st, int wt, int wd, float *acc, int lda, float *m, float *l) {
    const int lane = (int)threadIdx.x % CU_WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = g + 8 * h;
        float sum = st->l[h];
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
        if (wd == 0 && t == 0) {
            m[wt * ATT_ROWS + r] = st->m[h];
            l[wt * ATT_ROWS + r] = sum;
        }
        if (r >= a.prow) continue;
#pragma unroll
        for (int i = 0; i < DIMS / 8; i++) {
            const int c = wd * DIMS + 8 * i + 2 * t;
            if (c < a.hp)
                *(float2 *)(acc + (wt * ATT_ROWS + r) * lda + c) =
                    make_float2(st->acc[i][2 * h], st->acc[i][2 * h + 1]);
        }
    }
}

template <int HD, int WD, int STAGES, int KIND>
__global__ void __launch_bounds__(THREADS) attend_decode(const cu_att a) {
    typedef room<HD, HD / WD, STAGES, KIND> R;
    constexpr int DIMS = HD / WD, WT = 4 / WD, TOK = 16 * WT, PART = R::stage, KV = cu_att_as<KIND>::type;
    CU_DYN_SMEM(smem);
    __shared__ float ml[2][WT * ATT_ROWS];
    __shared__ float xs[2][WD > 1 ? 4 * 8 * CU_WARP : 1];
    cu_pdl_launch();
    bool waits = true; /* for q and the new keys: what the batch tells and keys of earlier steps are there already */
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP, wt = warp / WD, wd = warp % WD;
    uint4 *mine = (uint4 *)smem + warp * R::all, *wide = mine + STAGES * PART;
    const int chunk = cu_att_chunk(a), lda = a.hp + 8;
    cu_att_cursor cursor = {a.tile0, 0, 0};
    cu_att_item it;
    for (int i = (int)blockIdx.x; cu_att_find(a, chunk, i, &cursor, &it); i += (int)gridDim.x) {
        if (cu_att_empty(a, it)) continue;
        int from, to;
        cu_att_span(it, TOK, &from, &to);
        const int n = to > from ? (to - from + TOK - 1) / TOK : 0;
        page_walk walk;
        walk_begin(&walk, a.page + (int64_t)it.t.seq * a.page_stride, from, to);
        auto copy = [&](int step) {
            if (step < n) {
                const int pos = from + step * TOK, page = walk_page(&walk, pos / FA_PAGE);
                const int64_t at = page * a.page_bytes + it.head * a.head_bytes;
                uint4 *stage = mine + step % STAGES * PART;
                if constexpr (KIND == FA_I8)
                    copy_codes<R, DIMS>(a, at, pos + 16 * wt, it.lo, page < 0 ? 0 : to, wd * DIMS, stage);
                else
                    copy_stage<DIMS>(a, at, pos + 16 * wt, it.lo, page < 0 ? 0 : to, wd * DIMS, stage);
            }
            cu_cp_commit();
        };
        const int old = it.hi - it.t.n_new; /* positions below are older than this step */
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (waits && from + (s + 1) * TOK > old) cu_pdl_wait(), waits = false;
            copy(s);
        }
        if (waits) cu_pdl_wait(), waits = false;

        uint32_t q[DIMS / 16][4];
        /* where nothing is on its way to yet */
        load_q<DIMS, KV>(a, it, wd * DIMS, KIND == FA_I8 ? wide : mine + (STAGES - 1) * PART, q);
        cu_att_sees sees[2];
#pragma unroll
        for (int h = 0; h < 2; h++) sees[h] = cu_att_row(a, it.t, it.rt * ATT_ROWS + lane / 4 + 8 * h);
        const int seen = it.t.nq == 1 ? it.lo : it.lo + it.t.n_new; /* from here to `old` every row sees all */
        rows_state<DIMS> st = {};
        st.m[0] = st.m[1] = -INFINITY;
        for (int step = 0; step < n; step++) {
            cu_cp_wait<STAGES - 2>();
            __syncwarp(); /* all lanes' copies of this stage are there, and all have read the one before */
            copy(step + STAGES - 1);
            const uint4 *k = mine + step % STAGES * PART;
            if constexpr (KIND == FA_I8) {
                widen_stage<R, DIMS>(a, from + step * TOK + 16 * wt, it.lo, to, wd * DIMS, k, wide);
                __syncwarp();
                k = wide;
            }
            float s[2][4];
            products<DIMS, KV>(q, k, s);
            if (WD > 1) exchange<WD>(xs[step % 2], s);
            const int pos = from + step * TOK + 16 * wt + 2 * (lane % 4);
            const bool all = from + step * TOK >= seen && from + (step + 1) * TOK <= old;
#pragma unroll
            for (int e = 0; e < 8; e++) {
                float *x = &s[e / 4][e % 4];
                *x = cu_att_score(a, *x);
                if (!all && !cu_att_visible(sees[e / 2 % 2], pos + e / 4 * 8 + e % 2)) *x = -INFINITY;
            }
            uint32_t p[4];
            soften<DIMS, KV>(&st, s, p);
            add_values<DIMS, KV>(&st, p, k + R::wide / 2);
        }
        cu_cp_wait<0>();
        __syncthreads(); /* stages become room for results */
        put_state<DIMS>(a, &st, wt, wd, (float *)smem, lda, ml[0], ml[1]);
        __syncthreads();
        cu_att_finish(a, it, (const float *)smem, lda, WT, ml[0], ml[1], (float *)smem);
    }
    if (waits && blockIdx.x == 0) cu_pdl_wait(); /* the others without an item make room for the next kernel's blocks */
}

template <int HD, int WD, int STAGES, int KV> static bool start_as(fa_cuda *cu, const cu_att *a, int grid) {
    const size_t stages = (size_t)16 * 4 * room<HD, HD / WD, STAGES, KV>::all,
                 ends = (size_t)(4 / WD) * ATT_ROWS * (HD + 8) * 4;
    const size_t fixed = 1024 + (WD > 1 ? 8192 : 0); /* at least what the kernel declares */
    size_t smem = stages > ends ? stages : ends;
    if (smem < (size_t)ATT_MERGE_BYTES) smem = (size_t)ATT_MERGE_BYTES;
    if (smem + fixed > cu->smem_max) return false;
    CU_LAUNCH(cu, (attend_decode<HD, WD, STAGES, KV>), dim3((unsigned)grid), THREADS, smem, *a);
    return true;
}

template <int HD, int WD, int STAGES> static bool start(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid) {
    return kv == FA_F16  ? start_as<HD, WD, STAGES, FA_F16>(cu, a, grid)
           : kv == FA_I8 ? start_as<HD, WD, STAGES, FA_I8>(cu, a, grid)
                         : start_as<HD, WD, STAGES, FA_BF16>(cu, a, grid);
}

bool cu_att_decode(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid) {
    if (a->hd <= 64) return start<64, 1, 3>(cu, a, kv, grid);
    if (a->hd <= 128) return start<128, 1, 3>(cu, a, kv, grid);
    if (a->hd <= 256) return start<256, 2, 3>(cu, a, kv, grid) || start<256, 2, 2>(cu, a, kv, grid);
    return start<512, 4, 3>(cu, a, kv, grid) || start<512, 4, 2>(cu, a, kv, grid);
}
