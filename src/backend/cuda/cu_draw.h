/* The last pass of picking tokens (cu_sample.h): where the cut lies, and which of the kept candidates the random number
 * means. */
#ifndef FA_CUDA_CU_DRAW_H
#define FA_CUDA_CU_DRAW_H

#include "backend/cuda/cu_sample.h"

/* keys [n] in shared memory, falling; room for the next power of two. Bitonic: n log^2 n / 4 exchanges. */
static __device__ void sort_keys(u64 *key, int n) {
    int size = 2;
    while (size < n) size *= 2;
    for (int i = n + (int)threadIdx.x; i < size; i += PICK_THREADS) key[i] = 0;
    __syncthreads();
    for (int k = 2; k <= size; k *= 2)
        for (int j = k / 2; j; j /= 2) {
            for (int t = (int)threadIdx.x; t < size / 2; t += PICK_THREADS) {
                int lo = 2 * t - (t & (j - 1)), hi = lo + j; /* the pair that differs in bit j */
                u64 x = key[lo], y = key[hi];
                bool falling = (lo & k) == 0;
                if ((x < y) == falling) key[lo] = y, key[hi] = x;
            }
            __syncthreads();
        }
}

/* The last key to keep, from the sorted list. */
static __device__ u64 cut_of_list(const pick_args &a, int r, const row_state &s, const u64 *key, int n, u64 *part,
                                  int *kept) {
    const pick_row &o = a.row[r];
    const int keep = s.k_left < n ? s.k_left : n, each = (n + PICK_THREADS - 1) / PICK_THREADS;
    if (!cuts_by_p(o)) return key[keep - 1];
    const int i0 = (int)threadIdx.x * each, i1 = i0 + each < keep ? i0 + each : keep;
    u64 own = 0, total;
    for (int i = i0; i < i1; i++) own += weight_of(a, s, key_value(key[i]));
    u64 at = s.above + block_scan(own, &total, part), target = share_of(o.top_p, s.all ? s.all : s.above + total);
    if (threadIdx.x == 0) *kept = 0;
    __syncthreads();
    int m = 0; /* of this thread's, those before which less than the share stands; they come first */
    for (int i = i0; i < i1; i++) {
        m += at < target;
        at += weight_of(a, s, key_value(key[i]));
    }
    if (m) atomicMax(kept, i0 + m);
    __syncthreads();
    return key[*kept > 0 ? *kept - 1 : 0];
}

/* A block over the whole row: f(key, l) of every candidate. */
template <typename F> static __device__ void each_candidate(const pick_args &a, int r, const row_state &s, F f) {
    float x[PICK_EACH];
    for (int tile = 0; tile < a.n_tile; tile++) {
        load_tile(a, r, tile, x);
        for (int e = 0; e < PICK_EACH; e++) {
            float l = scaled(a.row[r], s, x[e]);
            if (l > -INFINITY) f(key_of(l, (int)place_of(tile, e / 4) + e % 4), l);
        }
    }
}

/* The last key to keep when the best are taken while their number (weight) is below target; byte by byte. h [256]. */
static __device__ u64 select_key(const pick_args &a, int r, const row_state &s, bool by_weight, u64 target, u64 *h) {
    u64 prefix = 0, before = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = (int)threadIdx.x; i < 256; i += PICK_THREADS) h[i] = 0;
        __syncthreads();
        each_candidate(a, r, s, [&](u64 key, float l) {
            if (shift < 56 && key >> (shift + 8) != prefix) return;
            u64 v = by_weight ? weight_of(a, s, l) : 1;
            if (v) atomicAdd(&h[key >> shift & 255], v);
        });
        __syncthreads();
        int b = 255; /* all threads alike */
        while (b > 0 && before + h[b] < target) before += h[b--];
        prefix = prefix << 8 | (u64)b;
        __syncthreads();
    }
    return prefix;
}

/* The cut of a row whose list is too long, and the tiles' weights. */
static __device__ u64 slow_cut(const pick_args &a, int r, const row_state &s, u64 *h, u64 *part) {
    const pick_row &o = a.row[r];
    u64 cut = s.k_left < INT32_MAX ? select_key(a, r, s, false, (u64)o.top_k, h) : 0;
    if (cuts_by_p(o)) {
        u64 own = 0, z;
        each_candidate(a, r, s, [&](u64 key, float l) { own += key >= cut ? weight_of(a, s, l) : 0; });
        block_scan(own, &z, part);
        u64 p = select_key(a, r, s, true, share_of(o.top_p, z), h);
        cut = p > cut ? p : cut;
    }
    return cut;
}

CU_DEV u64 kept_weight(const pick_args &a, int r, const row_state &s, u64 cut, float x, int id) {
    float l = scaled(a.row[r], s, x);
    return l > -INFINITY && l >= s.t_min && key_of(l, id) >= cut ? weight_of(a, s, l) : 0;
}

/* Weight of a tile; all threads get it. */
static __device__ u64 tile_weight(const pick_args &a, int r, const row_state &s, u64 cut, int tile, u64 *part) {
    float x[PICK_EACH];
    u64 own = 0, total;
    load_tile(a, r, tile, x);
    for (int e = 0; e < PICK_EACH; e++) own += kept_weight(a, r, s, cut, x[e], (int)place_of(tile, e / 4) + e % 4);
    block_scan(own, &total, part);
    return total;
}

/* The token of a tile at which the running weight passes `at`. */
static __device__ void find_in_tile(const pick_args &a, int r, const row_state &s, u64 cut, int tile, u64 at,
                                    u64 *part) {
    float x[PICK_EACH];
    u64 base = 0, total;
    load_tile(a, r, tile, x);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        u64 v[4], own = 0;
        const int id = (int)place_of(tile, j);
#pragma unroll
        for (int c = 0; c < 4; c++) own += v[c] = kept_weight(a, r, s, cut, x[4 * j + c], id + c);
        u64 sum = base + block_scan(own, &total, part);
        if (at >= sum && at < sum + own) {
            int c = 0;
            while ((sum += v[c]) <= at) c++;
            give(a, r, id + c);
        }
        base += total;
    }
}

/* The last block: the tile in which the running weight of all passes u of it, then the token. */
static __device__ void find_token(const pick_args &a, int r, const row_state &s, u64 cut, u64 *part, u64 *found) {
    const u64 *w = a.weight + (int64_t)r * a.n_tile;
    u64 own = 0, total, base = 0, sum;
    for (int i = (int)threadIdx.x; i < a.n_tile; i += PICK_THREADS) own += w[i];
    block_scan(own, &total, part);
    u64 at = (u64)(a.row[r].u * (double)total);
    if (at >= total) at = total - 1;
    for (int i0 = 0; i0 < a.n_tile; i0 += PICK_THREADS, base += sum) {
        const int i = i0 + (int)threadIdx.x;
        own = i < a.n_tile ? w[i] : 0;
        u64 before = base + block_scan(own, &sum, part);
        if (at >= before && at < before + own) found[0] = (u64)i, found[1] = at - before;
    }
    __syncthreads();
    find_in_tile(a, r, s, cut, (int)found[0], found[1], part);
}

static __global__ void __launch_bounds__(PICK_THREADS) draw_kernel(const __grid_constant__ pick_args a) {
    __shared__ u64 key[LIST];
    __shared__ u64 part[PICK_WARPS], found[2];
    __shared__ int flag;
    cu_pdl_launch();
    cu_pdl_wait();
    const int r = (int)blockIdx.y, tile = (int)blockIdx.x;
    const row_state s = a.state[r];
    if (s.ended) return;
    u64 *list = a.list + (int64_t)r * LIST, *weight = a.weight + (int64_t)r * a.n_tile, own = 0, total, cut = 0;
    float x[PICK_EACH];
    load_tile(a, r, tile, x);
#pragma unroll
    for (int e = 0; e < PICK_EACH; e++) {
        float l = scaled(a.row[r], s, x[e]);
        if (!(l > -INFINITY)) continue;
        int b = s.from < BINS ? bin_of(s, l) : 0;
        if (b < s.from) {
            own += l >= s.t_min ? weight_of(a, s, l) : 0;
        } else if (b <= s.to) {
            int at = atomicAdd(&a.state[r].n_list, 1);
            if (at < LIST) list[at] = key_of(l, (int)place_of(tile, e / 4) + e % 4);
        }
    }
    block_scan(own, &total, part);
    if (threadIdx.x == 0) weight[tile] = total;
    if (!last_of_row(&a.state[r].done, a.n_tile, &flag)) return;
    const int n = a.state[r].n_list;
    if (n > LIST) {
        cut = slow_cut(a, r, s, key, part);
        for (int i = 0; i < a.n_tile; i++) {
            total = tile_weight(a, r, s, cut, i, part);
            if (threadIdx.x == 0) weight[i] = total;
        }
    } else if (n > 0) {
        for (int i = (int)threadIdx.x; i < n; i += PICK_THREADS) key[i] = list[i];
        __syncthreads();
        sort_keys(key, n);
        cut = cut_of_list(a, r, s, key, n, part, &flag);
        for (int i = (int)threadIdx.x; i < n; i += PICK_THREADS) {
            float l = key_value(key[i]);
            if (key[i] >= cut && l >= s.t_min) atomicAdd(&weight[key_id(key[i]) / TILE], weight_of(a, s, l));
        }
    }
    __threadfence(); /* what the block wrote last, before all of it reads that */
    __syncthreads();
    find_token(a, r, s, cut, part, found);
}

#endif
