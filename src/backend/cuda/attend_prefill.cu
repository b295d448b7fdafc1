/* Attention of prompts on tensor cores, in the cache's 16-bit type with f32 sums (flash attention: one pass over the
 * keys with a running maximum and sum). A cache of 8 bits is widened first (attend_widen.cu).
 *
 * A block does one query tile (64 rows) of MT heads that share their keys: warp w of a group of 4 has rows [16 w, + 16)
 * of each of the MT heads, so that a fragment of K or V read from shared memory serves MT products, and K and V come
 * from the second-level cache once for MT heads. Head sizes above 256 have WD groups of 4 warps with DV output columns
 * each, which all compute the scores. Blocks of KB keys (KB divides a page) are copied with cp.async while the one
 * before is worked on. q stays in registers where there is room and in shared memory elsewhere. Blocks that see the
 * most keys, the late tiles, start first; heads of one group are neighbours in the grid.
 *
 * Keys outside of what the tile sees become zeros while they are copied, so that a weight of 0 meets no NaN of memory
 * that was never written; within, what a row does not see is masked, only in blocks that some row of the warp does not
 * see whole. */
#include "backend/cuda/attend.h"

/* 16-byte pieces of rows of HD elements, placed so that 8 lanes that read one piece of 8 rows meet all banks: swizzled,
 * or with an odd pitch. */
template <int HD> struct pieces { static constexpr int n = HD / 8, pitch = n % 8 ? n | 1 : n; };
template <int HD> CU_DEV int piece(int r, int c) {
    return r * pieces<HD>::pitch + (pieces<HD>::n % 8 ? c : c ^ (r & 7));
}

/* Byte offset of piece c (0 or 1) of row r of rows that begin at byte `at`, a multiple of 128; and from there, of the
 * piece 2 i further on. */
template <int HD> CU_DEV int spot(int at, int r, int c) { return at + 16 * piece<HD>(r, c); }
template <int HD> CU_DEV int further(int spot, int i) {
    return pieces<HD>::n % 8 ? spot + 32 * i : (spot ^ i % 4 * 32) + i / 4 * 128;
}

/* Shared memory in pieces: q (QREG: none), then two stages of K and V. */
template <int HD, int KB, int WD, int MT> struct shape {
    static constexpr bool qreg = WD == 1 && HD * MT <= 192;
    static constexpr int threads = 128 * WD, dv = HD / WD, q_rows = qreg ? 0 : CU_ATTEND_TILE * MT;
    static constexpr int plane = KB * pieces<HD>::pitch, q_pieces = q_rows * pieces<HD>::pitch;
    static constexpr size_t smem = 16 * (size_t)(q_pieces + 4 * plane);
};

/* Positions [lo, hi) that rows of the tile see, and the same of the warp's 16 rows from r0 on: some row sees positions
 * outside of [all_lo, all_hi) not. */
struct bounds {
    int lo, hi, warp_lo, warp_hi, all_lo, all_hi;
};

CU_DEV bounds find_bounds(const cu_att &a, const cu_att_tile &t, int r0) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const unsigned all = 0xFFFFFFFFu;
    bounds b;
    int lo = INT32_MAX, hi = 0, wlo = INT32_MAX, whi = 0, alo = 0, ahi = INT32_MAX;
    for (int r = lane; r < t.nq; r += CU_WARP) {
        const int l = a.kv_lo[t.row + r], h = a.kv_hi[t.row + r], in = r >= r0 && r < r0 + 16;
        const int from = a.tree ? min(l, t.base) : l, to = a.tree ? t.base + t.n_new : h;
        if (in) { /* a row that sees nothing ends what all see */
            alo = max(alo, l);
            ahi = min(ahi, a.tree ? t.base : h);
        }
        if (from >= to) continue;
        lo = min(lo, from);
        hi = max(hi, to);
        if (!in) continue;
        wlo = min(wlo, from);
        whi = max(whi, to);
    }
    b.hi = __reduce_max_sync(all, hi);
    b.lo = min(__reduce_min_sync(all, lo), b.hi);
    b.warp_lo = __reduce_min_sync(all, wlo);
    b.warp_hi = __reduce_max_sync(all, whi);
    b.all_lo = __reduce_max_sync(all, alo);
    b.all_hi = __reduce_min_sync(all, ahi);
    return b;
}

/* Begins to copy keys and values of positions [pos, pos + KB), zeros for those outside of [lo, hi). at: bytes of the
 * page's head within the planes. */
template <int HD, int KB, int THREADS>
CU_DEV void copy_block(const cu_att &a, int64_t at, int pos, int lo, int hi, uint4 *k) {
    constexpr int CH = HD / 8, N = KB * CH;
    static_assert(N % THREADS == 0, "whole rounds");
    uint4 *v = k + KB * pieces<HD>::pitch;
    const int tid = (int)threadIdx.x;
    if constexpr (THREADS % CH == 0) { /* a thread stays in its column: addresses go on by the same step */
        constexpr int ROWS = THREADS / CH;
        const int c = tid % CH, step = ROWS * a.hd * 2;
        at += 2 * ((pos % FA_PAGE + tid / CH) * a.hd + 8 * c);
#pragma unroll
        for (int i = 0; i < N / THREADS; i++, at += step) {
            const int r = tid / CH + i * ROWS;
            const bool there = 8 * c < a.hd && pos + r >= lo && pos + r < hi;
            cu_cp_async(k + piece<HD>(r, c), a.k + (there ? at : 0), there ? 16 : 0);
            cu_cp_async(v + piece<HD>(r, c), a.v + (there ? at : 0), there ? 16 : 0);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N / THREADS; i++) {
            const int e = i * THREADS + tid, r = e / CH, c = e % CH;
            const bool there = pos + r >= lo && pos + r < hi && 8 * c < a.hd;
            const int64_t from = there ? at + 2 * ((pos % FA_PAGE + r) * a.hd + 8 * c) : 0;
            cu_cp_async(k + piece<HD>(r, c), a.k + from, there ? 16 : 0);
            cu_cp_async(v + piece<HD>(r, c), a.v + from, there ? 16 : 0);
        }
    }
}

/* q of the tile to shared memory: row m * 64 + r is query row r of head + m. */
template <int HD, int MT, int THREADS, int KV>
CU_DEV void store_q(const cu_att &a, const cu_att_tile &t, int head, uint4 *q) {
    for (int e = (int)threadIdx.x; e < MT * CU_ATTEND_TILE * (HD / 8); e += THREADS) {
        const int row = e / (HD / 8), c = e % (HD / 8), r = row % CU_ATTEND_TILE;
        const int64_t at = cu_att_row_at(a, t, head + row / CU_ATTEND_TILE, r);
        const bool there = r < t.nq;
        q[piece<HD>(row, c)] =
            make_uint4(cu_att_q_pair<KV>(a, at, 8 * c, there), cu_att_q_pair<KV>(a, at, 8 * c + 2, there),
                       cu_att_q_pair<KV>(a, at, 8 * c + 4, there), cu_att_q_pair<KV>(a, at, 8 * c + 6, there));
    }
}

/* Left factors of q k^T for the warp's rows: fragments of 16 columns. */
template <int HD, int KV>
CU_DEV void load_q(const cu_att &a, const cu_att_tile &t, int head, int r0, uint32_t (*q)[4]) {
    const int lane = (int)threadIdx.x % CU_WARP;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = r0 + lane / 4 + 8 * h;
        const int64_t at = cu_att_row_at(a, t, head, r);
#pragma unroll
        for (int i = 0; i < HD / 16; i++) {
            q[i][h] = cu_att_q_pair<KV>(a, at, 16 * i + 2 * (lane % 4), r < t.nq);
            q[i][2 + h] = cu_att_q_pair<KV>(a, at, 16 * i + 8 + 2 * (lane % 4), r < t.nq);
        }
    }
}

/* Scores become f * s in the base-2 domain: the common scale is left to the exponent's multiply-add. */
template <int MT, int KB> CU_DEV float scale_scores(const cu_att &a, float (*s)[KB / 8][4]) {
    if (a.cap == 0.0f && a.scale2 > 0.0f) return a.scale2;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int e = 0; e < KB / 2; e++) s[m][e / 4][e % 4] = cu_att_score(a, s[m][e / 4][e % 4]);
    return 1.0f;
}

/* What the warp's rows do not see of [pos, pos + KB) becomes -inf. Reads the rows' bounds again, to hold no registers
 * in the many blocks that are seen whole. */
template <int MT, int KB> CU_DEV void mask_scores(const cu_att &a, int tile, int r0, int pos, float (*s)[KB / 8][4]) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const cu_att_tile t = cu_att_tile_of(a, tile);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const cu_att_sees sees = cu_att_row(a, t, (r0 + lane / 4 + 8 * h) * a.group);
#pragma unroll
        for (int e = 0; e < KB / 4; e++) {
            const bool seen = cu_att_visible(sees, pos + e / 2 * 8 + 2 * (lane % 4) + e % 2);
#pragma unroll
            for (int m = 0; m < MT; m++)
                if (!seen) s[m][e / 2][2 * h + e % 2] = -INFINITY;
        }
    }
}

/* Scores (times f > 0) to weights, in place; earlier sums are scaled. One head; m, l: of rows g and g + 8 (l: this
 * lane's part). */
template <int KB, int DV> CU_DEV void soften(float (*s)[4], float f, float *m, float *l, float (*acc)[4]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = s[0][2 * h];
#pragma unroll
        for (int n = 0; n < KB / 8; n++) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
        top = fmaxf(top * f, m[h]);
        const float base = top == -INFINITY ? 0.0f : top, keep = cu_exp2(m[h] - base);
        m[h] = top;
        l[h] *= keep;
#pragma unroll
        for (int i = 0; i < DV / 8; i++) {
            acc[i][2 * h] *= keep;
            acc[i][2 * h + 1] *= keep;
        }
#pragma unroll
        for (int n = 0; n < KB / 8; n++) {
            s[n][2 * h] = cu_exp2(fmaf(s[n][2 * h], f, -base));
            s[n][2 * h + 1] = cu_exp2(fmaf(s[n][2 * h + 1], f, -base));
            l[h] += s[n][2 * h] + s[n][2 * h + 1];
        }
    }
}

template <int HD, int KB, int WD, int MT, int MINB, int KV>
__global__ void __launch_bounds__(128 * WD, MINB) attend_prefill(const cu_att a) {
    typedef shape<HD, KB, WD, MT> S;
    constexpr int DV = S::dv, THREADS = S::threads;
    CU_DYN_SMEM(smem);
    cu_pdl_launch();
    cu_pdl_wait();
    const int warp = (int)threadIdx.x / CU_WARP, lane = (int)threadIdx.x % CU_WARP, r0 = warp % 4 * 16,
              c0 = warp / 4 * DV;
    const int per = a.n_head / MT, head = (int)blockIdx.x % per * MT;
    const int tile = a.n_tile - 1 - (int)blockIdx.x / per;
    const cu_att_tile t = cu_att_tile_of(a, tile);
    const bounds b = find_bounds(a, t, r0);
    const int from = b.lo / KB * KB, n = b.hi > b.lo ? (b.hi - from + KB - 1) / KB : 0;
    const int32_t *table = a.page + (int64_t)t.seq * a.page_stride;
    uint4 *shared_q = (uint4 *)smem, *stages = shared_q + S::q_pieces;
    int ahead = n ? table[from / FA_PAGE] : -1; /* the page of the next block to copy */
    auto copy = [&](int step) {
        if (step < n) {
            const int pos = from + step * KB, page = ahead;
            if (step + 1 < n) ahead = table[(pos + KB) / FA_PAGE];
            const int64_t at = page * a.page_bytes + head / a.group * a.head_bytes;
            uint4 *to = stages + step % 2 * 2 * S::plane;
            copy_block<HD, KB, THREADS>(a, at, pos, b.lo, page < 0 ? 0 : b.hi, to);
        }
        cu_cp_commit();
    };
    copy(0);
    uint32_t q[S::qreg ? MT : 1][S::qreg ? HD / 16 : 1][4];
    if (S::qreg) {
#pragma unroll
        for (int m = 0; m < MT; m++) load_q<HD, KV>(a, t, head + m, r0, q[S::qreg ? m : 0]);
    } else {
        store_q<HD, MT, THREADS, KV>(a, t, head, shared_q);
    }
    float acc[MT][DV / 8][4] = {}, top[MT][2], sum[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        top[m][0] = top[m][1] = -INFINITY;
        sum[m][0] = sum[m][1] = 0;
    }
    for (int step = 0; step < n; step++) {
        copy(step + 1);
        cu_cp_wait<1>();
        __syncthreads();
        const int pos = from + step * KB, stage = 16 * (S::q_pieces + step % 2 * 2 * S::plane);
        if (pos < b.warp_hi && pos + KB > b.warp_lo) { /* the same for all lanes */
            float s[MT][KB / 8][4] = {};
            const int kat = spot<HD>(stage, lane / 16 * 8 + lane % 8, lane / 8 % 2);
            const int qat = spot<HD>(0, r0 + lane % 16, lane / 16);
#pragma unroll
            for (int i = 0; i < HD / 16; i++) {
                uint32_t f[MT][4];
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    if (S::qreg) {
#pragma unroll
                        for (int e = 0; e < 4; e++) f[m][e] = q[S::qreg ? m : 0][S::qreg ? i : 0][e];
                    } else {
                        cu_ldmatrix_x4(f[m], smem + further<HD>(qat, i) + 16 * m * CU_ATTEND_TILE * pieces<HD>::pitch);
                    }
                }
#pragma unroll
                for (int j = 0; j < KB / 16; j++) {
                    uint32_t x[4];
                    cu_ldmatrix_x4(x, smem + further<HD>(kat, i) + 16 * j * 16 * pieces<HD>::pitch);
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        cu_att_mma<KV>(s[m][2 * j], f[m], x);
                        cu_att_mma<KV>(s[m][2 * j + 1], f[m], x + 2);
                    }
                }
            }
            float f = scale_scores<MT, KB>(a, s);
            if (pos < b.all_lo || pos + KB > b.all_hi) mask_scores<MT, KB>(a, tile, r0, pos, s);
#pragma unroll
            for (int m = 0; m < MT; m++) soften<KB, DV>(s[m], f, top[m], sum[m], acc[m]);
            const int vat = spot<HD>(stage + 16 * S::plane, lane / 8 % 2 * 8 + lane % 8, lane / 16);
#pragma unroll
            for (int j = 0; j < KB / 16; j++) {
                uint32_t p[MT][4];
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        p[m][e] = cu_att_pack<KV>(s[m][2 * j + e / 2][e % 2 * 2], s[m][2 * j + e / 2][e % 2 * 2 + 1]);
#pragma unroll
                for (int i = 0; i < DV / 16; i++) {
                    uint32_t x[4];
                    cu_ldmatrix_x4_trans(x, smem + further<HD>(vat, c0 / 16 + i) + 16 * j * 16 * pieces<HD>::pitch);
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        cu_att_mma<KV>(acc[m][2 * i], p[m], x);
                        cu_att_mma<KV>(acc[m][2 * i + 1], p[m], x + 2);
                    }
                }
            }
        }
        __syncthreads(); /* the stage may be overwritten */
    }
    cu_cp_wait<0>();
#pragma unroll
    for (int m = 0; m < MT; m++)
        cu_att_put_rows<DV>(a, cu_att_tile_of(a, tile), head + m, r0, c0, top[m], sum[m], acc[m]);
}

/* MINB: blocks that registers should leave room for on one multiprocessor. */
template <int HD, int KB, int WD, int MT, int MINB> static bool start(fa_cuda *cu, const cu_att *a, fa_dtype kv) {
    typedef shape<HD, KB, WD, MT> S;
    if (a->group % MT || S::smem > cu->smem_max) return false;
    const int64_t blocks = (int64_t)(a->n_tile - a->tile0) * (a->n_head / MT);
    if (kv == FA_F16)
        CU_LAUNCH(cu, (attend_prefill<HD, KB, WD, MT, MINB, FA_F16>), dim3((unsigned)blocks), S::threads, S::smem, *a);
    else
        CU_LAUNCH(cu, (attend_prefill<HD, KB, WD, MT, MINB, FA_BF16>), dim3((unsigned)blocks), S::threads, S::smem, *a);
    return true;
}

bool cu_att_prefill(fa_cuda *cu, const cu_att *a, fa_dtype kv) {
    if (cu_att_wgmma(cu, a, kv)) return true;
    if (a->hd <= 64) return start<64, 64, 1, 2, 2>(cu, a, kv) || start<64, 64, 1, 1, 3>(cu, a, kv);
    if (a->hd <= 96) return start<96, 64, 1, 1, 2>(cu, a, kv);
    if (a->hd <= 128) return start<128, 32, 1, 2, 2>(cu, a, kv) || start<128, 64, 1, 1, 2>(cu, a, kv);
    if (a->hd <= 192) return start<192, 32, 1, 1, 2>(cu, a, kv);
    if (a->hd <= 256) return start<256, 32, 1, 1, 2>(cu, a, kv);
    return start<512, 16, 2, 1, 1>(cu, a, kv);
}
