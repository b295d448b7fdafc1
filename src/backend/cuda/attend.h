/* What the attention kernels share: how a launch's work is cut into items, which positions a row sees, and how a
 * block's result becomes output.
 *
 * A unit of work is 16 rows of one query tile for one kv head. Row r of a tile is query row r / group and head r %
 * group of the group, so that the heads that share keys stand together and K and V are read once for all of them. Units
 * of decode tiles (few query rows) are cut along the keys into splits of whole pages. How many is decided on the
 * device: the host gives the number of splits that would fill the machine (n_part), the kernel shares it out by the
 * lengths of the batch, and blocks without an item leave. So a launch's geometry does not depend on lengths and can be
 * replayed.
 *
 * Scores live in the base-2 domain: s2 = log2(e) * softcap(scale * q k), weights are 2^(s2 - m). A partial result of a
 * split is, per row, the maximum m, the sum l and the unnormalised output; the last block of a unit merges them in
 * order of the splits, so results do not depend on timing. */
#ifndef FA_CUDA_ATTEND_H
#define FA_CUDA_ATTEND_H

#include "backend/cuda/cu.h"

enum {
    ATT_ROWS = 16,       /* rows of a unit */
    ATT_FEW = 16,        /* query rows of a sequence up to which its keys are split */
    ATT_MIN_PAGES = 4,   /* pages below which a split costs more than it gains */
    ATT_MAX_SPLIT = 256, /* splits of one unit */
    ATT_MERGE_BYTES = ATT_MAX_SPLIT * ATT_ROWS * 4
};

#define ATT_LOG2E 1.4426950408889634f

typedef struct cu_att {
    const void *q; /* [n_tok, n_head * hd] f32 or bf16 */
    void *out;     /* the same shape, f32 or bf16 */
    const uint8_t *k, *v;
    const float *sink; /* [n_head] or NULL */
    const int32_t *kv_lo, *kv_hi, *page, *row_start, *tile_seq, *tile_row;
    const uint64_t *tree; /* NULL: none */
    float *part;          /* slots of slot_floats: [prow, hp] outputs, [prow] m, [prow] l */
    uint32_t *counter;    /* one per (tile, kv head, rt) */
    int64_t page_bytes, head_bytes;
    float scale2;    /* scale * log2(e) */
    float cap, rcap; /* softcap * log2(e) (0: none), scale / softcap */
    int n_head, n_kv, group, hd, page_stride, q_bf16, out_bf16, exact;
    int n_dec;                 /* tiles below are sequences of one row: tile, sequence and row are the same number */
    int tile0, n_tile;         /* the tiles of this launch: [tile0, n_tile) */
    int n_rt;                  /* 16-row parts of a tile */
    int n_part;                /* splits to share out among the tiles; 0: one split each, items name units directly */
    int prow, hp, slot_floats; /* rows of a partial, hd rounded up to 4 */
} cu_att;

/* A query tile: nq rows from row on, of sequence seq. */
typedef struct cu_att_tile {
    int seq, row, nq;
    int base, n_new; /* trees: position of the sequence's first new row, and how many there are */
} cu_att_tile;

typedef struct cu_att_item {
    cu_att_tile t;
    int tile, head, rt, split, n_split;
    int lo, hi;           /* positions that some row of the tile sees lie in [lo, hi) */
    int slot0, slot_step; /* slots of the unit's partials: slot0 + split * slot_step */
} cu_att_item;

/* Where a block's search for its next item goes on: items come in rising order. first: a tile, and the splits and the
 * splits with slots of the tiles before it. Begins as {tile0}. */
typedef struct cu_att_cursor {
    int first, before, slots;
} cu_att_cursor;

/* What one row sees: [lo, hi), and base + j for the bits j. */
typedef struct cu_att_sees {
    int lo, hi, base;
    uint64_t bits;
} cu_att_sees;

CU_DEV cu_att_tile cu_att_tile_of(const cu_att &a, int tile) {
    cu_att_tile t = {tile, tile, 1, 0, 1};
    int first = tile;
    if (tile >= a.n_dec) {
        t.seq = a.tile_seq[tile];
        t.row = a.tile_row[tile];
        first = a.row_start[t.seq];
        const int end = a.row_start[t.seq + 1];
        t.nq = min(end - t.row, (int)CU_ATTEND_TILE);
        t.n_new = end - first;
    }
    if (a.tree) t.base = a.kv_hi[first] - 1;
    return t;
}

/* The positions that rows [i0, i1) of the tile see lie in [*lo, *hi); *lo = *hi when there are none. */
CU_DEV void cu_att_range(const cu_att &a, const cu_att_tile &t, int i0, int i1, int *lo, int *hi) {
    int from = INT32_MAX, to = 0;
    for (int i = i0; i < i1; i++) {
        const int l = a.kv_lo[t.row + i], h = a.kv_hi[t.row + i];
        if (!a.tree && l >= h) continue;
        from = min(from, a.tree ? min(l, t.base) : l);
        to = max(to, a.tree ? t.base + t.n_new : h);
    }
    *lo = min(max(from, 0), to);
    *hi = to;
}

CU_DEV int cu_att_pages(int lo, int hi) { return hi > lo ? (hi - 1) / FA_PAGE - lo / FA_PAGE + 1 : 0; }

CU_DEV int cu_att_splits(int pages, int chunk) {
    return pages <= chunk ? 1 : min((pages + chunk - 1) / chunk, (int)ATT_MAX_SPLIT);
}

/* Pages that a split has at least, from the lengths of all tiles of the launch: sum over tiles of pages / chunk is at
 * most n_part. Called by whole warps. */
CU_DEV int cu_att_chunk(const cu_att &a) {
    if (!a.n_part) return INT32_MAX;
    const bool one = a.n_tile - a.tile0 == 1; /* all lanes look at it */
    int sum = 0;
    for (int i = a.tile0 + (one ? 0 : (int)threadIdx.x % CU_WARP); i < a.n_tile; i += CU_WARP) {
        int lo, hi;
        const cu_att_tile t = cu_att_tile_of(a, i);
        cu_att_range(a, t, 0, t.nq, &lo, &hi);
        sum += cu_att_pages(lo, hi);
    }
    if (!one) sum = __reduce_add_sync(0xFFFFFFFFu, sum);
    return max((sum + a.n_part - 1) / a.n_part, (int)ATT_MIN_PAGES);
}

/* Inclusive sum over the lanes of a warp. */
CU_DEV int cu_att_scan(int v) {
    const int lane = (int)threadIdx.x % CU_WARP;
    for (int d = 1; d < CU_WARP; d *= 2) {
        const int o = __shfl_up_sync(0xFFFFFFFFu, v, (unsigned)d);
        if (lane >= d) v += o;
    }
    return v;
}

/* Without splits: item number i is a unit, late tiles first because they see the most. */
CU_DEV bool cu_att_unit(const cu_att &a, int i, cu_att_item *it) {
    const int per = a.n_kv * a.n_rt, tile = a.n_tile - 1 - i / per, hr = i % per;
    if (tile < a.tile0) return false;
    it->t = cu_att_tile_of(a, tile);
    it->tile = tile;
    it->head = hr / a.n_rt;
    it->rt = hr % a.n_rt;
    it->split = it->slot0 = it->slot_step = 0;
    it->n_split = 1;
    const int i0 = it->rt * ATT_ROWS / a.group, i1 = (it->rt * ATT_ROWS + ATT_ROWS - 1) / a.group + 1;
    cu_att_range(a, it->t, i0, min(i1, it->t.nq), &it->lo, &it->hi);
    return true;
}

/* Item number i of a launch of one tile: nothing to search for. */
CU_DEV bool cu_att_only(const cu_att &a, int chunk, int i, cu_att_item *it) {
    const int per = a.n_kv * a.n_rt, hr = i % per;
    it->t = cu_att_tile_of(a, a.tile0);
    cu_att_range(a, it->t, 0, it->t.nq, &it->lo, &it->hi);
    it->tile = a.tile0;
    it->head = hr / a.n_rt;
    it->rt = hr % a.n_rt;
    it->split = i / per;
    it->n_split = cu_att_splits(cu_att_pages(it->lo, it->hi), chunk);
    it->slot0 = hr;
    it->slot_step = per;
    return it->split < it->n_split;
}

/* Item number i of the launch; false: there are fewer. Called by whole warps with the same arguments. */
CU_DEV bool cu_att_find(const cu_att &a, int chunk, int i, cu_att_cursor *at, cu_att_item *it) {
    if (!a.n_part) return cu_att_unit(a, i, it);
    if (a.n_tile - a.tile0 == 1) return cu_att_only(a, chunk, i, it);
    const int lane = (int)threadIdx.x % CU_WARP, per = a.n_kv * a.n_rt, unit = i / per, hr = i % per;
    for (; at->first < a.n_tile; at->first += CU_WARP) {
        const int first = at->first;
        int lo = 0, hi = 0, n = 0;
        if (first + lane < a.n_tile) {
            const cu_att_tile t = cu_att_tile_of(a, first + lane);
            cu_att_range(a, t, 0, t.nq, &lo, &hi);
            n = cu_att_splits(cu_att_pages(lo, hi), chunk);
        }
        const int cut = n > 1 ? n : 0, sum = cu_att_scan(n), sum_cut = cu_att_scan(cut);
        const unsigned hit = __ballot_sync(0xFFFFFFFFu, unit < at->before + sum);
        if (hit) {
            const int src = __ffs((int)hit) - 1;
            it->tile = first + src;
            it->t = cu_att_tile_of(a, it->tile);
            it->head = hr / a.n_rt;
            it->rt = hr % a.n_rt;
            it->split = unit - at->before - __shfl_sync(0xFFFFFFFFu, sum - n, src);
            it->n_split = __shfl_sync(0xFFFFFFFFu, n, src);
            it->lo = __shfl_sync(0xFFFFFFFFu, lo, src);
            it->hi = __shfl_sync(0xFFFFFFFFu, hi, src);
            it->slot0 = (at->slots + __shfl_sync(0xFFFFFFFFu, sum_cut - cut, src)) * per + hr;
            it->slot_step = per;
            return true;
        }
        at->before += __shfl_sync(0xFFFFFFFFu, sum, CU_WARP - 1);
        at->slots += __shfl_sync(0xFFFFFFFFu, sum_cut, CU_WARP - 1);
    }
    return false;
}

/* Has the unit no rows, because its tile has fewer than others? The same for all splits, so nobody counts them. */
CU_DEV bool cu_att_empty(const cu_att &a, const cu_att_item &it) { return it.rt * ATT_ROWS / a.group >= it.t.nq; }

/* The positions of the item's split: [*from, *to), *from a multiple of step (which divides a page) at or before the
 * first that counts. */
CU_DEV void cu_att_span(const cu_att_item &it, int step, int *from, int *to) {
    const int first = it.lo / FA_PAGE, pages = cu_att_pages(it.lo, it.hi);
    const int p0 = first + (int)((int64_t)pages * it.split / it.n_split);
    const int p1 = first + (int)((int64_t)pages * (it.split + 1) / it.n_split);
    *from = max(p0 * FA_PAGE, it.lo / step * step);
    *to = min(p1 * FA_PAGE, it.hi);
}

/* What row r (counted within the tile) sees; nothing when it does not exist. */
CU_DEV cu_att_sees cu_att_row(const cu_att &a, const cu_att_tile &t, int r) {
    cu_att_sees s = {0, 0, t.base, 0};
    const int i = r / a.group;
    if (i >= t.nq) return s;
    s.lo = a.kv_lo[t.row + i];
    s.hi = a.kv_hi[t.row + i];
    if (a.tree) {
        s.hi = t.base;
        s.bits = a.tree[t.row + i];
    }
    return s;
}

CU_DEV bool cu_att_visible(const cu_att_sees &s, int pos) {
    if (pos >= s.lo && pos < s.hi) return true;
    const int j = pos - s.base;
    return s.bits && j >= 0 && j < 64 && (s.bits >> j & 1);
}

/* Offset of row r's head in q and out: elements. */
CU_DEV int64_t cu_att_at(const cu_att &a, const cu_att_tile &t, int head, int r) {
    return ((int64_t)(t.row + r / a.group) * a.n_head + head * a.group + r % a.group) * a.hd;
}

/* A score in the base-2 domain from the plain product. */
CU_DEV float cu_att_score(const cu_att &a, float x) {
    if (a.cap == 0.0f) return x * a.scale2;
    if (a.exact) return a.cap * tanhf(x * a.rcap);
    /* tanh(y) = 1 - 2 / (e^2y + 1), right at both ends too */
    return a.cap * (1.0f - __fdividef(2.0f, cu_exp2(x * a.rcap * (2 * ATT_LOG2E)) + 1.0f));
}

/* Elements [c, c + 4) of one output row at offset at; those from hd on do not exist. */
CU_DEV void cu_att_store(const cu_att &a, int64_t at, int c, float4 v) {
    if (a.hd % 4 == 0) {
        if (a.out_bf16)
            *(uint2 *)((uint16_t *)a.out + at + c) = make_uint2(cu_to_bf16x2(v.x, v.y), cu_to_bf16x2(v.z, v.w));
        else
            *(float4 *)((float *)a.out + at + c) = v;
        return;
    }
    const float e[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) {
        if (c + i >= a.hd) break;
        if (a.out_bf16)
            ((uint16_t *)a.out)[at + c + i] = cu_to_bf16(e[i]);
        else
            ((float *)a.out)[at + c + i] = e[i];
    }
}

CU_DEV void cu_att_add(float4 *s, float w, float4 v) {
    s->x += w * v.x;
    s->y += w * v.y;
    s->z += w * v.z;
    s->w += w * v.w;
}

/* 2^(m - top), 0 for an m that nobody raised */
CU_DEV float cu_att_weight(float m, float top) { return m == -INFINITY ? 0.0f : cu_exp2(m - top); }

CU_DEV float cu_att_sink(const cu_att &a, const cu_att_item &it, int r) {
    return a.sink ? a.sink[it.head * a.group + (it.rt * ATT_ROWS + r) % a.group] * ATT_LOG2E : -INFINITY;
}

/* Merges the unit's partials, which all lie in a.part. w: shared, [n_split, prow]. */
CU_DEV void cu_att_merge(const cu_att &a, const cu_att_item &it, float *w) {
    const int tid = (int)threadIdx.x, lane = tid % CU_WARP, n_thread = (int)blockDim.x, n = it.n_split;
    const float *part = a.part + (int64_t)it.slot0 * a.slot_floats;
    const int64_t step = (int64_t)it.slot_step * a.slot_floats;
    for (int r = tid / CU_WARP; r < a.prow; r += n_thread / CU_WARP) {
        const float *ml = part + a.prow * a.hp + r, sink = cu_att_sink(a, it, r);
        float top = sink, sum = 0;
        for (int s = lane; s < n; s += CU_WARP) top = fmaxf(top, __ldcg(ml + s * step));
        for (int d = 16; d; d /= 2) top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, d));
        for (int s = lane; s < n; s += CU_WARP) {
            const float x = cu_att_weight(__ldcg(ml + s * step), top);
            w[s * a.prow + r] = x;
            sum += x * __ldcg(ml + s * step + a.prow);
        }
        for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, d);
        sum += cu_att_weight(sink, top);
        const float inv = sum > 0 ? 1.0f / sum : 0.0f;
        for (int s = lane; s < n; s += CU_WARP) w[s * a.prow + r] *= inv;
    }
    __syncthreads();
    const int vecs = a.hp / 4;
    for (int e = tid; e < a.prow * vecs; e += n_thread) {
        const int r = e / vecs, c = e % vecs * 4, row = it.rt * ATT_ROWS + r;
        if (row / a.group >= it.t.nq) continue;
        float4 o = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (int s = 0; s < n; s++)
            cu_att_add(&o, w[s * a.prow + r], __ldcg((const float4 *)(part + s * step + r * a.hp + c)));
        cu_att_store(a, cu_att_at(a, it.t, it.head, row), c, o);
    }
}

/* The end of an item. Shared: acc [nw, ATT_ROWS, lda] unnormalised outputs of nw groups of warps that saw different
 * keys, m and l [nw, ATT_ROWS]; ready after a barrier. w: ATT_MERGE_BYTES of shared memory, may lie over acc. Called by
 * all threads of the block; the shared memory may be used again when it returns. */
CU_DEV void cu_att_finish(const cu_att &a, const cu_att_item &it, const float *acc, int lda, int nw, float *m, float *l,
                          float *w) {
    __shared__ int last;
    const int tid = (int)threadIdx.x, n_thread = (int)blockDim.x, vecs = a.hp / 4;
    const bool whole = it.n_split == 1;
    float *part = a.part + ((int64_t)it.slot0 + (int64_t)it.split * it.slot_step) * a.slot_floats;
    if (tid < a.prow) { /* m becomes the groups' weights */
        const float sink = whole ? cu_att_sink(a, it, tid) : -INFINITY;
        float top = sink, sum = 0;
        for (int g = 0; g < nw; g++) top = fmaxf(top, m[g * ATT_ROWS + tid]);
        for (int g = 0; g < nw; g++) {
            const float x = cu_att_weight(m[g * ATT_ROWS + tid], top);
            m[g * ATT_ROWS + tid] = x;
            sum += x * l[g * ATT_ROWS + tid];
        }
        sum += cu_att_weight(sink, top);
        const float inv = sum > 0 ? 1.0f / sum : 0.0f;
        for (int g = 0; whole && g < nw; g++) m[g * ATT_ROWS + tid] *= inv;
        if (!whole) {
            part[a.prow * a.hp + tid] = top;
            part[a.prow * a.hp + a.prow + tid] = sum;
        }
    }
    __syncthreads();
    for (int e = tid; e < a.prow * vecs; e += n_thread) {
        const int r = e / vecs, c = e % vecs * 4, row = it.rt * ATT_ROWS + r;
        float4 o = make_float4(0, 0, 0, 0);
        for (int g = 0; g < nw; g++)
            cu_att_add(&o, m[g * ATT_ROWS + r], *(const float4 *)(acc + (g * ATT_ROWS + r) * lda + c));
        if (!whole)
            *(float4 *)(part + r * a.hp + c) = o;
        else if (row / a.group < it.t.nq)
            cu_att_store(a, cu_att_at(a, it.t, it.head, row), c, o);
    }
    if (!whole) {
        __threadfence(); /* the partial is visible before the count */
        __syncthreads();
        if (tid == 0) {
            uint32_t *count = a.counter + (it.tile * a.n_kv + it.head) * a.n_rt + it.rt;
            last = atomicAdd(count, 1u) == (uint32_t)it.n_split - 1;
            if (last) *count = 0;
            __threadfence();
        }
        __syncthreads();
        if (last) cu_att_merge(a, it, w);
    }
    __syncthreads();
}

/* Pair (c, c + 1) of a row of q in the cache's 16-bit type KV; 0 when it does not exist. */
template <int KV> CU_DEV uint32_t cu_att_q_pair(const cu_att &a, int64_t at, int c, bool there) {
    if (!there || c >= a.hd) return 0;
    if (a.q_bf16) {
        const uint32_t v = *(const uint32_t *)((const uint16_t *)a.q + at + c);
        return KV == FA_BF16 ? v : cu_to_f16x2(cu_bf16_lo(v), cu_bf16_hi(v));
    }
    const float2 v = *(const float2 *)((const float *)a.q + at + c);
    return KV == FA_BF16 ? cu_to_bf16x2(v.x, v.y) : cu_to_f16x2(v.x, v.y);
}

template <int KV> CU_DEV void cu_att_mma(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    if (KV == FA_BF16)
        cu_mma_bf16(d, a, b);
    else
        cu_mma_f16(d, a, b);
}

/* Codes of an 8-bit cache as f16: a byte under the byte 0x64 is 1024 + byte, so a code is that less 1152 once its sign
 * bit is turned (w: a word of codes ^ ATT_TURN). Its two low and its two high codes, + 1152; and codes times scales. */
#define ATT_TURN 0x80808080u
CU_DEV uint32_t cu_att_code_lo(uint32_t w) { return __byte_perm(w, 0x64646464u, 0x4140); }
CU_DEV uint32_t cu_att_code_hi(uint32_t w) { return __byte_perm(w, 0x64646464u, 0x4342); }
CU_DEV uint32_t cu_att_code_scaled(uint32_t biased, uint32_t scales) {
    return cu_f16x2_mul(cu_f16x2_sub(biased, 0x64806480u), scales);
}

/* Offset of query row r of the tile and a head in q and out. */
CU_DEV int64_t cu_att_row_at(const cu_att &a, const cu_att_tile &t, int head, int r) {
    return ((int64_t)(t.row + r) * a.n_head + head) * a.hd;
}

template <int KV> CU_DEV uint32_t cu_att_pack(float lo, float hi) {
    return KV == FA_BF16 ? cu_to_bf16x2(lo, hi) : cu_to_f16x2(lo, hi);
}

/* Output rows r0 and on of one head: warps of 16 rows, lanes with rows g and g + 8, columns c0 + 8 i + 2 t and on. m,
 * l: running maximum and (this lane's part of the) sum. */
template <int DV>
CU_DEV void cu_att_put_rows(const cu_att &a, const cu_att_tile &t, int head, int r0, int c0, const float *m,
                            const float *l, float (*acc)[4]) {
    const int lane = (int)threadIdx.x % CU_WARP;
    const float sink = a.sink ? a.sink[head] * ATT_LOG2E : -INFINITY;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = r0 + lane / 4 + 8 * h;
        float sum = l[h];
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
        const float top = fmaxf(m[h], sink), w = cu_att_weight(m[h], top);
        sum = sum * w + cu_att_weight(sink, top);
        const float f = sum > 0 ? w / sum : 0.0f;
        if (r >= t.nq) continue;
        const int64_t at = cu_att_row_at(a, t, head, r);
#pragma unroll
        for (int i = 0; i < DV / 8; i++) {
            const int c = c0 + 8 * i + 2 * (lane % 4);
            if (c >= a.hd) continue;
            const float x = acc[i][2 * h] * f, y = acc[i][2 * h + 1] * f;
            if (a.out_bf16)
                *(uint32_t *)((uint16_t *)a.out + at + c) = cu_to_bf16x2(x, y);
            else
                *(float2 *)((float *)a.out + at + c) = make_float2(x, y);
        }
    }
}

/* Tensor core kernels for a cache of 16 or 8 bits (kv: its type) with rows of whole 16-byte pieces; false when the
 * device has too little shared memory for them. Nothing is launched then. */
bool cu_att_decode(fa_cuda *cu, const cu_att *a, fa_dtype kv, int grid); /* attend_decode.cu: ATT_FEW rows or less */
bool cu_att_prefill(fa_cuda *cu, const cu_att *a, fa_dtype kv);          /* attend_prefill.cu */
bool cu_att_wgmma(fa_cuda *cu, const cu_att *a, fa_dtype kv); /* attend_wgmma.cu: what of it Hopper does faster */
/* attend_widen.cu: *a with keys and values as f16, what sequences [n_dec, n_seq) see, at `to`, which has room for
 * cu_att_widen_bytes. */
int64_t cu_att_widen_bytes(const fa_kv *kv);
void cu_att_widen(fa_cuda *cu, cu_att *a, const fa_kv *kv, int n_seq, uint8_t *to);

#endif
