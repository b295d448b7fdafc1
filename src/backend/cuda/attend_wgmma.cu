/* Attention of prompts on Hopper: what attend_prefill.cu computes, with wgmma and the copy engine. The plan is that of
 * FlashAttention-3 (arXiv 2407.08608).
 *
 * Each multiprocessor has one block of three warpgroups, which takes items from a counter, those that see the most keys
 * first. Two warpgroups multiply: 64 query rows each, against the same keys. With an even number of heads in a group
 * they have two heads of one tile, otherwise two tiles of one head (one of them nothing, where a sequence ends between
 * the two). The first warp of the third group has the copy engine bring keys and values into rings of STAGES blocks of
 * KB positions, a page at a time: the map of the cache is [pages, heads, positions, columns], and pages that the item
 * does not see are the page -1, which gives zeros. Its other warps turn q into the cache's type.
 *
 * A group that multiplies: scores of block j + 1 = q k^T, both in shared memory, then output += weights of block j
 * times v, the weights from registers as the lanes have them from the scores, v read across its rows. While the second
 * product runs, the new scores become weights. The groups take turns in starting products (PING), so that one computes
 * exponentials while the other multiplies.
 *
 * v outside of what the item sees, in a page of which it sees a part, may be NaN and is overwritten with zeros by both
 * groups; what k has there is masked. */
#include "backend/cuda/attend.h"
#include "backend/cuda/cu_wgmma.h"

enum {
    GROUPS = 2, /* warpgroups that multiply */
    THREADS = 128 * (GROUPS + 1),
    TILE = CU_ATTEND_TILE,
    ROW = 128,      /* bytes of 64 columns of a row */
    SLOTS = 2,      /* of items */
    MAX_STAGES = 4, /* of keys and values */
    LOADERS = 96,   /* threads that bring q */
    FEW_REGS = 40,  /* of the 168 that all begin with */
    MANY_REGS = 232
};
static_assert(TILE == 64, "rows of a warpgroup");

typedef struct att_group {
    cu_att a;
    int n_item, by_tile; /* by_tile: the groups have two tiles, not two heads */
    uint32_t *next;      /* items that are taken, blocks that are through; zeros between launches */
} att_group;

/* Bytes of shared memory: q of each group, then stages of keys, then stages of values; 64 columns of all rows after one
 * another. */
template <int HD, int KB, int STAGES> struct shape {
    static constexpr int chunks = (HD + 63) / 64, q_bytes = chunks * TILE * ROW, plane = chunks * KB * ROW;
    static constexpr int at_k = GROUPS * q_bytes, at_v = at_k + STAGES * plane;
    static constexpr int smem = 1024 + at_v + STAGES * plane; /* room to begin at a multiple of 1024 */
};

#if CU_HAS_WGMMA

/* Barriers; a place is an address in shared memory. */
enum { N_BARRIER = 4 * MAX_STAGES + 2 * SLOTS + 2 };
CU_DEV uint32_t full_k(uint32_t bars, int stage) { return bars + 8 * (unsigned)stage; }
CU_DEV uint32_t empty_k(uint32_t bars, int stage) { return bars + 8 * (unsigned)(MAX_STAGES + stage); }
CU_DEV uint32_t full_v(uint32_t bars, int stage) { return bars + 8 * (unsigned)(2 * MAX_STAGES + stage); }
CU_DEV uint32_t empty_v(uint32_t bars, int stage) { return bars + 8 * (unsigned)(3 * MAX_STAGES + stage); }
CU_DEV uint32_t full_item(uint32_t bars, int slot) { return bars + 8 * (unsigned)(4 * MAX_STAGES + slot); }
CU_DEV uint32_t empty_item(uint32_t bars, int slot) { return bars + 8 * (unsigned)(4 * MAX_STAGES + SLOTS + slot); }
CU_DEV uint32_t full_q(uint32_t bars) { return bars + 8 * (unsigned)(4 * MAX_STAGES + 2 * SLOTS); }
CU_DEV uint32_t empty_q(uint32_t bars) { return full_q(bars) + 8; }

/* An item: n_row rows from `row` on of a sequence, all against positions [lo, hi), those that some row sees. By tile
 * group g has the rows 64 g and on, otherwise the head `head` + g; head -1: there are no more items. */
struct task {
    int head, seq, row, n_row, lo, hi;
};

/* Shared memory beside the stages. */
struct board {
    uint64_t bar[N_BARRIER];
    task item[SLOTS];
};

/* The rows of a group. */
CU_DEV cu_att_tile rows_of(const att_group &x, const task &w, int g) {
    const int skip = x.by_tile ? g * TILE : 0;
    return {w.seq, w.row + skip, max(min(w.n_row - skip, (int)TILE), 0), 0, 0};
}
CU_DEV int head_of(const att_group &x, const task &w, int g) { return w.head + (x.by_tile ? 0 : g); }

/* Does an item have two tiles of different sequences? Then it is done in two passes. */
CU_DEV bool two_passes(const att_group &x, int item) {
    const int first = x.a.tile0 + 2 * ((x.n_item - 1 - item) / x.a.n_head);
    return x.by_tile && first + 1 < x.a.n_tile && x.a.tile_seq[first] != x.a.tile_seq[first + 1];
}

/* pass: 0 all of it, 1 and 2 one tile of two. Called by whole warps. */
CU_DEV task task_of(const att_group &x, int item, int pass) {
    const cu_att &a = x.a;
    const int per = x.by_tile ? a.n_head : a.n_head / 2, i = x.n_item - 1 - item;
    const int tile = a.tile0 + (x.by_tile ? 2 * (i / per) + (pass == 2) : i / per);
    task w;
    w.head = x.by_tile ? i % per : i % per * 2;
    w.seq = a.tile_seq[tile];
    w.row = a.tile_row[tile];
    w.n_row = min(a.row_start[w.seq + 1] - w.row, x.by_tile && !pass ? 2 * TILE : TILE);
    int from = INT32_MAX, to = 0;
    for (int r = (int)threadIdx.x % CU_WARP; r < w.n_row; r += CU_WARP) {
        const int l = a.kv_lo[w.row + r], h = a.kv_hi[w.row + r];
        if (l >= h) continue;
        from = min(from, l);
        to = max(to, h);
    }
    w.hi = __reduce_max_sync(0xFFFFFFFFu, to);
    w.lo = min(max(__reduce_min_sync(0xFFFFFFFFu, from), 0), w.hi);
    return w;
}

/* ---- bringing ---- */

/* The blocks of an item: keys of block j + 1 before values of block j. soon: called when the first keys are on their
 * way. */
template <int HD, int KB, int STAGES, class F>
CU_DEV void copy_item(const att_group &x, const cu_tma *map_k, const cu_tma *map_v, const task &w, uint32_t bars,
                      uint32_t base, cu_ring<STAGES> *rk, cu_ring<STAGES> *rv, F soon) {
    typedef shape<HD, KB, STAGES> S;
    constexpr int PAGES = KB / FA_PAGE;
    const int lane = (int)threadIdx.x % CU_WARP;
    const int lo = w.lo, hi = w.hi, from = lo / KB * KB, n = hi > lo ? (hi - from + KB - 1) / KB : 0;
    const int kv_head = w.head / x.a.group;
    const int32_t *table = x.a.page + (int64_t)w.seq * x.a.page_stride;
    /* Lanes below PAGES hold the pages of a block. */
    auto page_of = [&](int step) {
        const int p = from / FA_PAGE + step * PAGES + lane;
        return lane < PAGES && step < n && p * FA_PAGE < hi && (p + 1) * FA_PAGE > lo ? table[p] : -1;
    };
    auto copy = [&](const cu_tma *map, uint32_t bar, uint32_t to, int page) {
        if (lane == 0) cu_mbar_expect(bar, S::plane);
        __syncwarp();
        if (lane >= PAGES) return;
#pragma unroll
        for (int c = 0; c < S::chunks; c++)
            cu_tma_load(to + (unsigned)(c * KB * ROW + lane * FA_PAGE * ROW), map, bar, 64 * c, 0, kv_head, page);
    };
    int page = page_of(0), before = -1;
    for (int step = 0; step <= n; step++) {
        const int next = page_of(step + 1);
        if (step < n) {
            cu_mbar_wait(empty_k(bars, rk->slot), rk->phase);
            copy(map_k, full_k(bars, rk->slot), base + (unsigned)(S::at_k + rk->slot * S::plane), page);
            rk->step();
        }
        if (step == 0) soon();
        if (step > 0) {
            cu_mbar_wait(empty_v(bars, rv->slot), rv->phase);
            copy(map_v, full_v(bars, rv->slot), base + (unsigned)(S::at_v + rv->slot * S::plane), before);
            rv->step();
        }
        before = page, page = next;
    }
}

/* The first warp of its group: says which items there are, each while the one before is being copied, and copies. */
template <int HD, int KB, int STAGES>
CU_DEV void copy_all(const att_group &x, const cu_tma *map_k, const cu_tma *map_v, board *b, uint32_t base) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const uint32_t bars = cu_smem_addr(b->bar);
    cu_ring<STAGES> rk = {0, 1}, rv = {0, 1}; /* all are free at first */
    cu_ring<SLOTS> ri = {0, 1};
    auto say = [&](const task &w) {
        cu_mbar_wait(empty_item(bars, ri.slot), ri.phase);
        if (lane == 0) {
            b->item[ri.slot] = w;
            cu_mbar_arrive(full_item(bars, ri.slot));
        }
        __syncwarp();
        ri.step();
    };
    int item = (int)blockIdx.x, pass = two_passes(x, item); /* the grid has no more blocks than there are items */
    task now = task_of(x, item, pass);
    say(now);
    while (now.head >= 0) {
        unsigned taken = 0;
        if (lane == 0 && pass != 1) taken = atomicAdd(x.next, 1u);
        task next = {-1, 0, 0, 0, 0, 0};
        copy_item<HD, KB, STAGES>(x, map_k, map_v, now, bars, base, &rk, &rv, [&] {
            if (pass != 1) {
                item = (int)(gridDim.x + __shfl_sync(0xFFFFFFFFu, taken, 0));
                pass = item < x.n_item && two_passes(x, item);
            } else {
                pass = 2;
            }
            if (item < x.n_item) next = task_of(x, item, pass);
            say(next);
        });
        now = next;
    }
    if (lane) return;
    __threadfence();
    if (atomicAdd(x.next + 1, 1u) == gridDim.x - 1) x.next[0] = x.next[1] = 0;
}

/* The next item, by whole warps; each of those that read must call it. */
CU_DEV task hear(board *b, cu_ring<SLOTS> *r) {
    const uint32_t bars = cu_smem_addr(b->bar);
    cu_mbar_wait(full_item(bars, r->slot), r->phase);
    const task v = b->item[r->slot];
    __syncwarp();
    if (threadIdx.x % CU_WARP == 0) cu_mbar_arrive(empty_item(bars, r->slot));
    r->step();
    return v;
}

/* 8 neighbouring elements of q, as they lie, and in the cache's type. */
struct eight_floats {
    float4 u, v;
};
CU_DEV void q_load(const float *p, eight_floats *v) { *v = {*(const float4 *)p, *(const float4 *)(p + 4)}; }
CU_DEV void q_load(const uint16_t *p, uint4 *v) { *v = *(const uint4 *)p; }
template <int KV> CU_DEV uint4 q_as(const eight_floats &v) {
    return make_uint4(cu_att_pack<KV>(v.u.x, v.u.y), cu_att_pack<KV>(v.u.z, v.u.w), cu_att_pack<KV>(v.v.x, v.v.y),
                      cu_att_pack<KV>(v.v.z, v.v.w));
}
template <int KV> CU_DEV uint4 q_as(const uint4 &v) {
    if (KV == FA_BF16) return v;
    return make_uint4(cu_to_f16x2(cu_bf16_lo(v.x), cu_bf16_hi(v.x)), cu_to_f16x2(cu_bf16_lo(v.y), cu_bf16_hi(v.y)),
                      cu_to_f16x2(cu_bf16_lo(v.z), cu_bf16_hi(v.z)), cu_to_f16x2(cu_bf16_lo(v.w), cu_bf16_hi(v.w)));
}

/* The other warps of that group: q of each item, in the swizzled rows of wgmma. T: what q is made of, V: 8 of them. A
 * thread has the same 8 columns of every ROUND-th row; all loads of a turn start before the first is used. */
template <int HD, int KV, class T, class V> CU_DEV void bring_q(const att_group &x, board *b, uint8_t *q) {
    constexpr int PER = (HD + 63) / 64 * 8, ROUND = LOADERS / PER, TURN = 64 / (int)sizeof(V);
    static_assert(LOADERS % PER == 0, "whole rows");
    const uint32_t bars = cu_smem_addr(b->bar);
    const int tid = (int)threadIdx.x - CU_WARP, c = tid % PER, stride = x.a.n_head * x.a.hd;
    uint8_t *to = q + c / 8 * TILE * ROW;
    cu_ring<SLOTS> ri = {0, 0};
    int phase = 1;
    for (;;) {
        const task w = hear(b, &ri);
        if (w.head < 0) return;
        const T *from = (const T *)x.a.q + ((int64_t)w.row * x.a.n_head + w.head) * x.a.hd + 8 * c;
        const int other = x.by_tile ? TILE * stride : x.a.hd; /* from a row of the first group to one of the second */
        const int n0 = 8 * c < x.a.hd ? min(w.n_row, (int)TILE) : 0;
        const int n1 = 8 * c < x.a.hd && x.by_tile ? w.n_row - TILE : n0;
        cu_mbar_wait(empty_q(bars), phase);
        phase ^= 1;
        for (int r0 = tid / PER; r0 < GROUPS * TILE; r0 += TURN * ROUND) {
            V v[TURN];
#pragma unroll
            for (int u = 0; u < TURN; u++) {
                const int r = r0 + u * ROUND, in = r % TILE;
                v[u] = V();
                if (r < TILE ? in < n0 : r < GROUPS * TILE && in < n1)
                    q_load(from + in * stride + (r < TILE ? 0 : other), &v[u]);
            }
#pragma unroll
            for (int u = 0; u < TURN; u++) {
                const int r = r0 + u * ROUND, in = r % TILE;
                if (r < GROUPS * TILE)
                    *(uint4 *)(to + (r < TILE ? 0 : PER / 8 * TILE * ROW) + in * ROW + ((c ^ in) & 7) * 16) =
                        q_as<KV>(v[u]);
            }
        }
        cu_proxy_fence();
        cu_mbar_arrive(full_q(bars));
    }
}

/* ---- multiplying ---- */

/* What lane (g, t) of a warp knows of its rows g and g + 8: positions [lo, lo + n) are seen. Rows that do not exist see
 * everything. All rows of the warp see [all_lo, all_hi). */
struct sight {
    int lo[2];
    unsigned n[2];
    int all_lo, all_hi;
};

CU_DEV sight sight_of(const cu_att &a, const cu_att_tile &t) {
    const int lane = (int)threadIdx.x % CU_WARP, r0 = (int)threadIdx.x / CU_WARP % 4 * 16 + lane / 4;
    sight s;
    int from = 0, to = INT32_MAX;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const bool there = r0 + 8 * h < t.nq;
        const int lo = there ? a.kv_lo[t.row + r0 + 8 * h] : 0, hi = there ? a.kv_hi[t.row + r0 + 8 * h] : INT32_MAX;
        s.lo[h] = lo;
        s.n[h] = (unsigned)max(hi - lo, 0);
        from = max(from, lo);
        to = min(to, hi);
    }
    s.all_lo = __reduce_max_sync(0xFFFFFFFFu, from);
    s.all_hi = __reduce_min_sync(0xFFFFFFFFu, to);
    return s;
}

/* Scores of positions from pos on become f * s in the base-2 domain, -inf where a row does not see them; gives f. */
template <int KB> CU_DEV float mask_scores(const cu_att &a, const sight &see, int pos, float (&s)[KB / 2]) {
    float f = a.scale2;
    if (a.cap != 0.0f || !(a.scale2 > 0.0f)) {
#pragma unroll
        for (int e = 0; e < KB / 2; e++) s[e] = cu_att_score(a, s[e]);
        f = 1.0f;
    }
    if (pos >= see.all_lo && pos + KB <= see.all_hi) return f;
    const int at = pos + 2 * ((int)threadIdx.x % 4);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int first = at - see.lo[h];
#pragma unroll
        for (int e = 0; e < KB / 4; e++) {
            float *x = &s[e / 2 * 4 + 2 * h + e % 2];
            *x = (unsigned)(first + e / 2 * 8 + e % 2) < see.n[h] ? *x : -INFINITY;
        }
    }
    return f;
}

/* Scores (times f > 0) to weights, in place. m: maximum, l: this lane's part of the sum, of rows g and g + 8; keep: the
 * factor of what was summed before. */
template <int KB> CU_DEV void soften(float (&s)[KB / 2], float f, float (&m)[2], float (&l)[2], float (&keep)[2]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = s[2 * h], more = s[2 * h + 1]; /* two chains */
#pragma unroll
        for (int n = 1; n < KB / 8; n++) {
            top = fmaxf(top, s[4 * n + 2 * h]);
            more = fmaxf(more, s[4 * n + 2 * h + 1]);
        }
        top = fmaxf(top, more);
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
        top = fmaxf(top * f, m[h]);
        const float base = top == -INFINITY ? 0.0f : top;
        keep[h] = cu_exp2(m[h] - base);
        m[h] = top;
        float sum = 0, other = 0;
#pragma unroll
        for (int n = 0; n < KB / 8; n++) {
            s[4 * n + 2 * h] = cu_exp2(fmaf(s[4 * n + 2 * h], f, -base));
            s[4 * n + 2 * h + 1] = cu_exp2(fmaf(s[4 * n + 2 * h + 1], f, -base));
            sum += s[4 * n + 2 * h];
            other += s[4 * n + 2 * h + 1];
        }
        l[h] = l[h] * keep[h] + (sum + other);
    }
}

template <int HD, int KB, int STAGES, int KV> struct multiplier {
    typedef shape<HD, KB, STAGES> S;
    static constexpr bool f16 = KV == FA_F16, qreg = HD <= 128; /* q stays in registers */
    const att_group &x;
    board *b;
    uint8_t *smem;
    uint32_t bars, base;
    int group, lo, hi; /* of the item: what its rows see */
    cu_ring<STAGES> k, v;

    __device__ __forceinline__ multiplier(const att_group &args, board *on, uint8_t *s)
        : x(args), b(on), smem(s), bars(cu_smem_addr(on->bar)), base(cu_smem_addr(s)) {
        group = (int)threadIdx.x / 128 - 1;
        k = {0, 0}, v = {0, 0};
        cu_pin(bars);
    }

    __device__ __forceinline__ void release(uint32_t bar) const {
        __syncwarp();
        if (threadIdx.x % CU_WARP == 0) cu_mbar_arrive(bar);
    }

    typedef uint32_t fragments[qreg ? HD / 16 : 1][4];

    __device__ __forceinline__ void take_q(fragments &q) const {
        const int lane = (int)threadIdx.x % CU_WARP, r = (int)threadIdx.x / CU_WARP % 4 * 16 + lane % 16;
        const uint8_t *at = smem + group * S::q_bytes + r * ROW;
#pragma unroll
        for (int i = 0; i < HD / 16; i++)
            cu_ldmatrix_x4(q[qreg ? i : 0], at + i / 4 * TILE * ROW + (((2 * i + lane / 16) ^ r) & 7) * 16);
        release(empty_q(bars));
    }

    /* s = q k^T, begun. */
    __device__ __forceinline__ void begin_scores(float (&s)[KB / 2], const fragments &qf) const {
        if constexpr (qreg) {
            const uint64_t kd = cu_wgmma_desc(base + (unsigned)(S::at_k + k.slot * S::plane));
            cu_wgmma_fence();
            cu_wgmma_rs<KB, f16, false, true>(s, qf[0], kd);
#pragma unroll
            for (int i = 1; i < HD / 16; i++)
                cu_wgmma_rs<KB, f16>(s, qf[i], kd + (unsigned)(i / 4 * (KB * ROW / 16) + i % 4 * 2));
            cu_wgmma_commit();
            return;
        }
        const uint64_t q = cu_wgmma_desc(base + (unsigned)(group * S::q_bytes));
        const uint64_t kd = cu_wgmma_desc(base + (unsigned)(S::at_k + k.slot * S::plane));
        cu_wgmma_fence();
        cu_wgmma_ss<KB, f16, true>(s, q, kd);
#pragma unroll
        for (int i = 1; i < HD / 16; i++)
            cu_wgmma_ss<KB, f16, false>(s, q + (unsigned)(i / 4 * (TILE * ROW / 16) + i % 4 * 2),
                                        kd + (unsigned)(i / 4 * (KB * ROW / 16) + i % 4 * 2));
        cu_wgmma_commit();
    }

    /* o += p v, begun. */
    __device__ __forceinline__ void begin_output(float (&o)[HD / 2], const uint32_t (&p)[KB / 16][4]) const {
        const uint64_t vd = cu_wgmma_desc_n(base + (unsigned)(S::at_v + v.slot * S::plane), KB * ROW);
        cu_wgmma_fence();
#pragma unroll
        for (int j = 0; j < KB / 16; j++) cu_wgmma_rs<HD, f16, true>(o, p[j], vd + (unsigned)(j * 16 * ROW / 16));
        cu_wgmma_commit();
    }

    /* Zeros for values of the block at pos that the item does not see in pages of which it sees a part. */
    __device__ __forceinline__ void clean(int pos) const {
        const bool head = lo % FA_PAGE && pos <= lo, tail = hi % FA_PAGE && pos + KB > hi;
        if (!head && !tail) return; /* the same for all threads of the group */
        uint8_t *at = smem + S::at_v + v.slot * S::plane;
        for (int e = (int)threadIdx.x % 128; e < S::chunks * KB * 8; e += 128) {
            const int r = e / 8 % KB, here = pos + r;
            if (here < lo || here >= hi)
                *(uint4 *)(at + e / 8 / KB * KB * ROW + r * ROW + e % 8 * 16) = make_uint4(0, 0, 0, 0);
        }
        cu_proxy_fence();
        cu_bar_sync(3 + group, 128);
    }

    __device__ __forceinline__ static void to_weights(const float (&s)[KB / 2], uint32_t (&p)[KB / 16][4]) {
#pragma unroll
        for (int j = 0; j < KB / 16; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) p[j][e] = cu_att_pack<KV>(s[8 * j + 2 * e], s[8 * j + 2 * e + 1]);
    }

    __device__ __forceinline__ void item(const task &w) {
        float o[HD / 2] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
        const cu_att_tile t = rows_of(x, w, group);
        lo = w.lo, hi = w.hi;
        const int from = lo / KB * KB, n = hi > lo ? (hi - from + KB - 1) / KB : 0;
        fragments q;
        if (qreg) take_q(q);
        if (n) {
            float s[KB / 2], keep[2];
            uint32_t p[KB / 16][4];
            cu_mbar_wait(full_k(bars, k.slot), k.phase);
            begin_scores(s, q);
            const sight see = sight_of(x.a, t);
            cu_wgmma_wait<0>();
            release(empty_k(bars, k.slot));
            k.step();
            float f = mask_scores<KB>(x.a, see, from, s);
            soften<KB>(s, f, m, l, keep);
            to_weights(s, p);
            for (int step = 1; step < n; step++) {
                cu_mbar_wait(full_k(bars, k.slot), k.phase);
                cu_bar_sync(1 + group, 256);
                begin_scores(s, q);
                cu_mbar_wait(full_v(bars, v.slot), v.phase);
                clean(from + (step - 1) * KB);
                begin_output(o, p);
                cu_bar_arrive(2 - group, 256);
                cu_wgmma_wait<1>();
                release(empty_k(bars, k.slot));
                k.step();
                f = mask_scores<KB>(x.a, see, from + step * KB, s);
                soften<KB>(s, f, m, l, keep);
                cu_wgmma_wait<0>();
                release(empty_v(bars, v.slot));
                v.step();
#pragma unroll
                for (int e = 0; e < HD / 2; e++) o[e] *= keep[e / 2 % 2];
                to_weights(s, p);
            }
            if (!qreg) release(empty_q(bars));
            cu_mbar_wait(full_v(bars, v.slot), v.phase);
            clean(from + (n - 1) * KB);
            begin_output(o, p);
            cu_wgmma_wait<0>();
            release(empty_v(bars, v.slot));
            v.step();
        } else if (!qreg) {
            release(empty_q(bars));
        }
        const int head = head_of(x, w, group), r0 = (int)threadIdx.x / CU_WARP % 4 * 16;
        cu_att_put_rows<HD>(x.a, t, head, r0, 0, m, l, (float(*)[4])o);
    }

    __device__ __forceinline__ void all() {
        cu_ring<SLOTS> ri = {0, 0};
        int phase = 0;
        if (group == 1) cu_bar_arrive(1, 256);
        for (;;) {
            const task w = hear(b, &ri);
            if (w.head < 0) break;
            cu_mbar_wait(full_q(bars), phase);
            phase ^= 1;
            item(w);
        }
    }
};

#endif /* CU_HAS_WGMMA */

/* Grid: a block for each multiprocessor, or for each item when there are fewer. */
template <int HD, int KB, int STAGES, int KV>
__global__ void __launch_bounds__(THREADS, 1)
    attend_wgmma(const att_group x, const __grid_constant__ cu_tma map_k, const __grid_constant__ cu_tma map_v) {
#if CU_HAS_WGMMA
    __shared__ board b;
    CU_DYN_SMEM(dyn);
    uint8_t *smem = dyn + ((1024 - (cu_smem_addr(dyn) & 1023)) & 1023);
    const uint32_t bars = cu_smem_addr(b.bar);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            cu_mbar_init(full_k(bars, i), 1);
            cu_mbar_init(full_v(bars, i), 1);
            cu_mbar_init(empty_k(bars, i), 4 * GROUPS);
            cu_mbar_init(empty_v(bars, i), 4 * GROUPS);
        }
        for (int i = 0; i < SLOTS; i++) {
            cu_mbar_init(full_item(bars, i), 1);
            cu_mbar_init(empty_item(bars, i), 4 * GROUPS + LOADERS / CU_WARP);
        }
        cu_mbar_init(full_q(bars), LOADERS);
        cu_mbar_init(empty_q(bars), 4 * GROUPS);
        cu_proxy_fence();
    }
    cu_pdl_launch();
    cu_pdl_wait();
    __syncthreads();
    if (threadIdx.x < 128) {
        cu_fewer_registers<FEW_REGS>();
        if (threadIdx.x < CU_WARP)
            copy_all<HD, KB, STAGES>(x, &map_k, &map_v, &b, cu_smem_addr(smem));
        else if (x.a.q_bf16)
            bring_q<HD, KV, uint16_t, uint4>(x, &b, smem);
        else
            bring_q<HD, KV, float, eight_floats>(x, &b, smem);
    } else {
        cu_more_registers<MANY_REGS>();
        multiplier<HD, KB, STAGES, KV>(x, &b, smem).all();
    }
#else
    (void)x, (void)map_k, (void)map_v;
#endif
}

/* ---- choosing ---- */

/* Does the device's code hold the kernels? Those for other architectures are empty and have no static shared memory. */
static bool compiled(void) {
#ifdef FA_CUDA_EMU
    return true;
#else
    cudaFuncAttributes f = {};
    return cudaFuncGetAttributes(&f, (const void *)attend_wgmma<128, 128, 2, FA_F16>) == cudaSuccess &&
           f.sharedSizeBytes > 0;
#endif
}

/* Keys or values as [pages, heads, positions, columns]. The number of pages is not known here; none beyond the cache is
 * ever asked for. */
static bool map_of(fa_cuda *cu, const cu_att *a, const uint8_t *p, cu_tma *m) {
    const int64_t dim[4] = {a->hd, FA_PAGE, a->n_kv, INT32_MAX};
    const int64_t stride[3] = {2 * a->hd, a->head_bytes, a->page_bytes};
    const int box[4] = {64, FA_PAGE, 1, 1};
    return cu_tensor_map(cu->dev, m, p, dim, stride, box);
}

template <int HD, int KB, int STAGES> static bool start(fa_cuda *cu, const cu_att *a, fa_dtype kv) {
    typedef shape<HD, KB, STAGES> S;
    att_group x = {*a, 0, a->group % 2, cu->counter};
    cu_tma k, v;
    const int n_tile = a->n_tile - a->tile0;
    const int64_t n = x.by_tile ? (int64_t)(n_tile + 1) / 2 * a->n_head : (int64_t)n_tile * (a->n_head / 2);
    if ((size_t)S::smem + 1024 > cu->smem_max || n > INT32_MAX / 2) return false;
    if (!map_of(cu, a, a->k, &k) || !map_of(cu, a, a->v, &v)) return false;
    x.n_item = (int)n;
    const dim3 grid((unsigned)(n < cu->n_sm ? n : cu->n_sm));
    if (kv == FA_F16)
        CU_LAUNCH(cu, (attend_wgmma<HD, KB, STAGES, FA_F16>), grid, THREADS, S::smem, x, k, v);
    else
        CU_LAUNCH(cu, (attend_wgmma<HD, KB, STAGES, FA_BF16>), grid, THREADS, S::smem, x, k, v);
    return true;
}

bool cu_att_wgmma(fa_cuda *cu, const cu_att *a, fa_dtype kv) {
    if (cu->arch != 90 || a->tree || a->hd > 256 || a->exact || !compiled()) return false;
    if (((uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v) % 16) return false;
    if (a->hd <= 64) return start<64, 128, 4>(cu, a, kv);
    if (a->hd <= 96) return start<96, 128, 2>(cu, a, kv);
    if (a->hd <= 128) return start<128, 128, 2>(cu, a, kv);
    if (a->hd <= 192) return start<192, 64, 3>(cu, a, kv);
    return start<256, 64, 2>(cu, a, kv);
}
