/* Kernels that pick tokens, but for the last pass (cu_draw.h): what src/engine/sampler.c does in the default order of
 * samplers, without sorting a row.
 *
 * Every cut (top_n_sigma, top_k, top_p, min_p) keeps the best candidates by (logit / temperature falling, id rising),
 * so together they are one cut: a key. Three passes over the row, a block per TILE of it, the last block of a row (it
 * counts them) drawing the conclusion: scan  the greatest, the range, the moments; greedy rows end here. hist  rows
 * with top_k or top_p: candidates and weight by distance from the greatest, in BINS bins. Tells the few bins in which
 * the cut lies, and what stands before them. draw  weight of what is surely kept, per tile; the candidates of those
 * bins as a list, which is sorted to find the cut; then the tile and the token where the running weight passes the
 * random number. Should the list be too long (thousands of equal logits), one block selects from the row bit by bit.
 *
 * Weights e^(l - greatest) are integers, multiples of 1 / wscale: sums depend on no order, so a pick is the same
 * however blocks run. What is less likely than 2^-44 of the likeliest weighs nothing. */
#ifndef FA_CUDA_CU_SAMPLE_H
#define FA_CUDA_CU_SAMPLE_H

#include "backend/cuda/cu_rows.h"

typedef unsigned long long u64;

enum {
    PICK_THREADS = 256,
    PICK_WARPS = PICK_THREADS / CU_WARP,
    PICK_EACH = 16, /* elements of a tile per thread: four times four neighbours */
    TILE = PICK_THREADS * PICK_EACH,
    BINS = 2048,
    LIST = 4096, /* candidates that are sorted */
    WAVE = 32    /* rows per launch */
};

/* Options of one row, as the samplers see them. */
typedef struct pick_row {
    double u;                      /* random number of the draw, [0, 1) */
    float temp;                    /* 0: greedy */
    float top_p, min_log, n_sigma; /* 0: off; min_log: ln min_p, 1: off */
    int top_k;                     /* 0: off */
    int slot, place;               /* the token goes to `last[slot]` and to place `place` of the slot's history */
    int from;                      /* penalties look at history [from, place) */
    float repeat, presence, frequency;
    int bias_at, n_bias;  /* entries of the bias lists */
    const uint32_t *mask; /* NULL: all are allowed */
} pick_row;

/* What a tile tells about itself. Moments are of x - (the tile's greatest). */
typedef struct tile_sum {
    u64 best; /* key of x, 0: no candidate */
    double s1, s2;
    float min;
    int n;
} tile_sum;

/* A row between the passes. */
typedef struct row_state {
    uint32_t done; /* blocks that have finished */
    int n_list;
    int ended;            /* the token is picked */
    int from, to;         /* bins that are listed; all before `from` is kept. from = BINS: nothing is cut by bins */
    int k_left;           /* of the list, at most so many are kept */
    float max, scale;     /* the greatest l; bins per unit of l */
    float t_sigma, t_min; /* least x and least l to keep */
    u64 above;            /* weight of the bins before `from` */
    u64 all;              /* of all candidates; 0: top_k takes the worst of them away */
} row_state;

typedef struct pick_args {
    float *logits; /* [rows, vocab] */
    int64_t vocab;
    int n_tile, vec; /* vec: rows may be read four by four */
    float wscale;
    row_state *state; /* [WAVE] */
    tile_sum *sum;    /* [WAVE, n_tile] */
    u64 *weight;      /* [WAVE, n_tile] kept weight of each tile */
    uint32_t *hist_n; /* [WAVE, BINS], zero between launches */
    u64 *hist_w;      /* the same */
    u64 *list;        /* [WAVE, LIST] keys */
    uint32_t *count;  /* [WAVE, vocab] zero between launches; NULL until penalties are asked for */
    const int32_t *bias_id;
    const float *bias;
    int32_t *history; /* [n_slot, max_ctx] or NULL */
    int64_t max_ctx;
    int32_t *last; /* [n_slot] */
    int32_t *out;  /* [rows] host memory */
    pick_row row[WAVE];
} pick_args;
static_assert(sizeof(pick_args) <= 4000, "kernel parameters");

/* ---- keys: the greater float first, of equal ones the lower id; 0 is no candidate ---- */

CU_DEV u64 key_of(float x, int id) {
    uint32_t u = __float_as_uint(x);
    u ^= u >> 31 ? 0xffffffffu : 0x80000000u;
    return (u64)u << 32 | (0xffffffffu - (uint32_t)id);
}
CU_DEV float key_value(u64 key) {
    uint32_t u = (uint32_t)(key >> 32);
    return __uint_as_float(u >> 31 ? u ^ 0x80000000u : ~u);
}
CU_DEV int key_id(u64 key) { return (int)(0xffffffffu - (uint32_t)key); }

/* ---- blocks ---- */

CU_DEV u64 warp_max_key(u64 k) {
    for (int d = 16; d; d >>= 1) {
        u64 other = __shfl_xor_sync(0xffffffffu, k, d);
        k = other > k ? other : k;
    }
    return k;
}
/* part: [PICK_WARPS] for these calls alone. */
CU_DEV u64 block_max_key(u64 k, u64 *part) {
    k = warp_max_key(k);
    __syncthreads();
    if (threadIdx.x % CU_WARP == 0) part[threadIdx.x / CU_WARP] = k;
    __syncthreads();
    for (int i = 0; i < PICK_WARPS; i++) k = part[i] > k ? part[i] : k;
    return k;
}
/* Sum of v over the threads before this one; *total: over all. */
CU_DEV u64 block_scan(u64 v, u64 *total, u64 *part) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP;
    u64 incl = v, before = 0, all = 0;
    for (int d = 1; d < CU_WARP; d *= 2) {
        u64 other = __shfl_up_sync(0xffffffffu, incl, d);
        if (lane >= d) incl += other;
    }
    __syncthreads();
    if (lane == CU_WARP - 1) part[warp] = incl;
    __syncthreads();
    for (int i = 0; i < PICK_WARPS; i++) {
        before += i < warp ? part[i] : 0;
        all += part[i];
    }
    *total = all;
    return before + incl - v;
}

/* Is this the last of a row's blocks? Then it sees what the others wrote, and sets the counter back. */
CU_DEV bool last_of_row(uint32_t *done, int n, int *flag) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *flag = atomicAdd(done, 1u) == (uint32_t)n - 1;
        if (*flag) *done = 0;
    }
    __syncthreads();
    if (!*flag) return false;
    __threadfence();
    return true;
}

/* ---- elements ---- */

/* Where this thread's elements 4 j .. 4 j + 3 of a tile lie: whole warps read 512 bytes. */
CU_DEV int64_t place_of(int tile, int j) { return (int64_t)tile * TILE + j * (TILE / 4) + 4 * (int)threadIdx.x; }

/* This thread's logits of a tile; -inf for what is no candidate (NaN, masked, past the end). */
CU_DEV void load_tile(const pick_args &a, int r, int tile, float x[PICK_EACH]) {
    const float *row = a.logits + (int64_t)r * a.vocab;
    const uint32_t *mask = a.row[r].mask;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int64_t i = place_of(tile, j);
        float4 v = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
        if (a.vec && i + 4 <= a.vocab) {
            v = *(const float4 *)(row + i);
        } else {
            if (i < a.vocab) v.x = row[i];
            if (i + 1 < a.vocab) v.y = row[i + 1];
            if (i + 2 < a.vocab) v.z = row[i + 2];
            if (i + 3 < a.vocab) v.w = row[i + 3];
        }
        uint32_t bits = mask && i < a.vocab ? mask[i / 32] >> (i % 32) : 15u; /* the four share a word */
        x[4 * j] = v.x, x[4 * j + 1] = v.y, x[4 * j + 2] = v.z, x[4 * j + 3] = v.w;
#pragma unroll
        for (int c = 0; c < 4; c++) {
            float f = x[4 * j + c] + 0.0f; /* -0 and 0 are equal */
            x[4 * j + c] = f > -INFINITY && (bits >> c & 1) ? f : -INFINITY;
        }
    }
}

/* l = x / temp, -inf when it is no candidate after top_n_sigma. */
CU_DEV float scaled(const pick_row &o, const row_state &s, float x) {
    return x >= s.t_sigma ? x / o.temp + 0.0f : -INFINITY;
}
CU_DEV int bin_of(const row_state &s, float l) { return (int)fminf((s.max - l) * s.scale, (float)(BINS - 1)); }
CU_DEV u64 weight_of(const pick_args &a, const row_state &s, float l) { return (u64)(expf(l - s.max) * a.wscale); }

/* The pick of row r; one thread. */
CU_DEV void give(const pick_args &a, int r, int id) {
    const pick_row &o = a.row[r];
    a.state[r].ended = 1;
    a.out[r] = id;
    a.last[o.slot] = id < 0 ? 0 : id; /* an embedding of it may be looked up already */
    if (a.history && id >= 0 && o.place < a.max_ctx) a.history[o.slot * a.max_ctx + o.place] = id;
}

/* ---- before: bias and penalties ---- */

static __global__ void bias_kernel(const __grid_constant__ pick_args a) {
    cu_pdl_launch();
    cu_pdl_wait();
    const pick_row &o = a.row[blockIdx.y];
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < o.n_bias) a.logits[blockIdx.y * a.vocab + a.bias_id[o.bias_at + i]] += a.bias[o.bias_at + i];
}

CU_DEV bool penalises(const pick_row &o) { return o.repeat != 1 || o.presence != 0 || o.frequency != 0; }

/* Counts the tokens of the windows. */
static __global__ void count_kernel(const __grid_constant__ pick_args a) {
    cu_pdl_launch();
    cu_pdl_wait();
    const pick_row &o = a.row[blockIdx.y];
    if (!penalises(o)) return;
    const int32_t *ids = a.history + o.slot * a.max_ctx;
    for (int64_t i = o.from + (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < o.place; i += gridDim.x * blockDim.x)
        if (ids[i] >= 0 && ids[i] < a.vocab) atomicAdd(&a.count[blockIdx.y * a.vocab + ids[i]], 1u);
}

/* Of the occurrences of a token the first to come takes the count, which leaves zero. */
static __global__ void penalty_kernel(const __grid_constant__ pick_args a) {
    cu_pdl_launch();
    cu_pdl_wait();
    const pick_row &o = a.row[blockIdx.y];
    if (!penalises(o)) return;
    const int32_t *ids = a.history + o.slot * a.max_ctx;
    for (int64_t i = o.from + (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < o.place;
         i += gridDim.x * blockDim.x) {
        if (ids[i] < 0 || ids[i] >= a.vocab) continue;
        uint32_t n = atomicExch(&a.count[blockIdx.y * a.vocab + ids[i]], 0u);
        if (!n) continue;
        float *x = &a.logits[blockIdx.y * a.vocab + ids[i]], l = *x;
        l = l <= 0 ? l * o.repeat : l / o.repeat;
        *x = __fsub_rn(l, __fadd_rn(__fmul_rn((float)n, o.frequency), o.presence));
    }
}

/* ---- scan ---- */

/* Least x that top_n_sigma keeps: so many deviations below the greatest. All threads. */
static __device__ float sigma_cut(const pick_args &a, int r, float x, double *part) {
    const float n_sigma = a.row[r].n_sigma;
    double n = 0, s1 = 0, s2 = 0;
    if (!(n_sigma > 0) || !isfinite(x)) return -INFINITY;
    for (int i = (int)threadIdx.x; i < a.n_tile; i += PICK_THREADS) {
        const tile_sum t = a.sum[(int64_t)r * a.n_tile + i];
        double c = t.n ? (double)key_value(t.best) - (double)x : 0; /* from the tile's greatest to the row's */
        s1 += t.s1 + t.n * c;
        s2 += t.s2 + 2 * c * t.s1 + t.n * c * c;
        n += t.n;
    }
    n = cu_block_sum_wide(n, part);
    s1 = cu_block_sum_wide(s1, part);
    s2 = cu_block_sum_wide(s2, part);
    double mean = s1 / n, var = fmax(0.0, s2 / n - mean * mean);
    float t = x - (float)((double)n_sigma * sqrt(var));
    return isfinite(t) ? fminf(x, t) : -INFINITY;
}

/* What the next passes need, or the row's end; thread 0. */
static __device__ void begin_row(const pick_args &a, int r, u64 best, float min, float t_sigma) {
    const pick_row &o = a.row[r];
    row_state &s = a.state[r];
    float x = key_value(best), l = x / o.temp;
    s.n_list = s.ended = 0;
    if (!best) {
        give(a, r, -1);
        return;
    }
    /* the limit of ever smaller temperatures is the likeliest alone; so is what overflows */
    if (!(o.temp > 0) || !isfinite(l)) {
        give(a, r, key_id(best));
        return;
    }
    s.max = l + 0.0f;
    s.t_sigma = t_sigma;
    s.t_min = o.min_log < 1 ? fminf(s.max, s.max + o.min_log) : -INFINITY;
    /* 32 units of l are all that weighs something; a narrower range has finer bins, and none falls into the last */
    float range = s.max - min / o.temp;
    s.scale = range > 1e-30f && range < 32 ? (BINS - 2) / range : (BINS - 1) / 32.0f;
    s.from = s.to = BINS;
    s.k_left = INT32_MAX;
    s.above = s.all = 0;
}

static __global__ void __launch_bounds__(PICK_THREADS) scan_kernel(const __grid_constant__ pick_args a) {
    __shared__ u64 part[PICK_WARPS];
    __shared__ float fpart[CU_WARP];
    __shared__ double dpart[CU_WARP];
    __shared__ int flag;
    cu_pdl_launch();
    cu_pdl_wait();
    const int r = (int)blockIdx.y, tile = (int)blockIdx.x;
    float x[PICK_EACH], low = INFINITY;
    u64 best = 0;
    load_tile(a, r, tile, x);
#pragma unroll
    for (int e = 0; e < PICK_EACH; e++) {
        if (!(x[e] > -INFINITY)) continue;
        u64 k = key_of(x[e], (int)place_of(tile, e / 4) + e % 4);
        best = k > best ? k : best;
        low = fminf(low, x[e]);
    }
    tile_sum t = {};
    t.best = block_max_key(best, part);
    t.min = -cu_block_max(-low, fpart);
    if (a.row[r].n_sigma > 0 && t.best) { /* the same for all threads */
        double s1 = 0, s2 = 0;
        int n = 0;
        const double top = (double)key_value(t.best);
        for (int e = 0; e < PICK_EACH; e++) {
            double d = x[e] > -INFINITY ? (double)x[e] - top : 0;
            s1 += d;
            s2 += d * d;
            n += x[e] > -INFINITY;
        }
        t.s1 = cu_block_sum_wide(s1, dpart);
        t.s2 = cu_block_sum_wide(s2, dpart);
        t.n = (int)cu_block_sum_wide((double)n, dpart);
    }
    if (threadIdx.x == 0) a.sum[(int64_t)r * a.n_tile + tile] = t;
    if (!last_of_row(&a.state[r].done, a.n_tile, &flag)) return;
    best = 0;
    low = INFINITY;
    for (int i = (int)threadIdx.x; i < a.n_tile; i += PICK_THREADS) {
        const tile_sum &q = a.sum[(int64_t)r * a.n_tile + i];
        best = q.best > best ? q.best : best;
        low = fminf(low, q.min);
    }
    best = block_max_key(best, part);
    low = -cu_block_max(-low, fpart);
    float t_sigma = sigma_cut(a, r, key_value(best), dpart);
    if (threadIdx.x == 0) begin_row(a, r, best, low, t_sigma);
}

/* ---- hist ---- */

CU_DEV bool cuts_by_k(const pick_args &a, const pick_row &o) { return o.top_k > 0 && o.top_k < a.vocab; }
CU_DEV bool cuts_by_p(const pick_row &o) { return o.top_p > 0 && o.top_p < 1; }

/* What must stand before a candidate for top_p to drop it, when all weigh z. */
CU_DEV u64 share_of(float top_p, u64 z) {
    u64 t = (u64)ceil((double)top_p * (double)z);
    return t ? t : 1;
}

/* Sum of the bins before b (n: of counts), by all threads; bins are in shared memory. */
template <typename T>
static __device__ int first_reaching(const T *bin, u64 target, int most, u64 *before, u64 *part, int *found) {
    const int each = BINS / PICK_THREADS, b0 = (int)threadIdx.x * each;
    u64 own = 0, total;
    for (int i = 0; i < each; i++) own += bin[b0 + i];
    u64 at = block_scan(own, &total, part);
    if (threadIdx.x == 0) *found = most;
    __syncthreads();
    if (at < target && at + own >= target) { /* one thread at most */
        int b = b0;
        for (u64 sum = at; (sum += bin[b]) < target;) b++;
        if (b < most) *found = b;
    }
    __syncthreads();
    const int b = *found;
    own = 0;
    for (int i = 0; i < each; i++) own += b0 + i < b ? bin[b0 + i] : 0;
    block_scan(own, before, part);
    return b;
}

/* Which bins hold the cut. The last bin is never one of them: what lies there weighs nothing or is the end of all. */
static __device__ void choose_bins(const pick_args &a, int r, const uint32_t *n, const u64 *w, u64 *part, int *found) {
    const pick_row &o = a.row[r];
    row_state &s = a.state[r];
    const int last = BINS - 1;
    u64 count = 0, above = 0, z = 0;
    int bk = BINS, from = BINS;
    if (cuts_by_k(a, o)) bk = first_reaching(n, (u64)o.top_k, last, &count, part, found);
    if (bk == last) bk = BINS;
    from = bk;
    if (cuts_by_p(o)) {
        /* with top_k the share is one of what top_k leaves, at least of the bins before its own */
        u64 own = 0;
        for (int i = (int)threadIdx.x; i < BINS; i += PICK_THREADS) own += i < bk ? w[i] : 0;
        block_scan(own, &z, part);
        from = first_reaching(w, share_of(o.top_p, z), bk < last ? bk : last, &above, part, found);
        if (from == last) from = BINS;
        if (bk < BINS && from < bk) { /* candidates before the list */
            own = 0;
            for (int i = (int)threadIdx.x; i < BINS; i += PICK_THREADS) own += i < from ? n[i] : 0;
            block_scan(own, &count, part);
        }
    }
    if (threadIdx.x) return;
    s.from = from;
    s.to = bk < BINS ? bk : from;
    s.k_left = bk < BINS ? o.top_k - (int)count : INT32_MAX;
    s.above = above;
    s.all = bk < BINS ? 0 : z;
}

static __global__ void __launch_bounds__(PICK_THREADS) hist_kernel(const __grid_constant__ pick_args a) {
    __shared__ u64 w[BINS];
    __shared__ uint32_t n[BINS];
    __shared__ u64 part[PICK_WARPS];
    __shared__ int flag;
    cu_pdl_launch();
    cu_pdl_wait();
    const int r = (int)blockIdx.y, tile = (int)blockIdx.x;
    const pick_row &o = a.row[r];
    const bool by_k = cuts_by_k(a, o), by_p = cuts_by_p(o);
    const row_state s = a.state[r];
    if (s.ended || !(by_k || by_p)) return;
    for (int i = (int)threadIdx.x; i < BINS; i += PICK_THREADS) w[i] = n[i] = 0;
    float x[PICK_EACH];
    load_tile(a, r, tile, x);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < PICK_EACH; e++) {
        float l = scaled(o, s, x[e]);
        if (!(l > -INFINITY)) continue;
        int b = bin_of(s, l);
        if (by_k) atomicAdd(&n[b], 1u);
        u64 v = by_p ? weight_of(a, s, l) : 0;
        if (v) atomicAdd(&w[b], v);
    }
    __syncthreads();
    uint32_t *all_n = a.hist_n + (int64_t)r * BINS;
    u64 *all_w = a.hist_w + (int64_t)r * BINS;
    for (int i = (int)threadIdx.x; i < BINS; i += PICK_THREADS) {
        if (n[i]) atomicAdd(&all_n[i], n[i]);
        if (w[i]) atomicAdd(&all_w[i], w[i]);
    }
    if (!last_of_row(&a.state[r].done, a.n_tile, &flag)) return;
    for (int i = (int)threadIdx.x; i < BINS; i += PICK_THREADS) {
        n[i] = all_n[i], all_n[i] = 0;
        w[i] = all_w[i], all_w[i] = 0;
    }
    __syncthreads();
    choose_bins(a, r, n, w, part, &flag);
}

#endif
