/* Experts of many rows (prefill, large batches). On Hopper moe_wgmma.cu has the products of most formats. The choices
 * (row, k) are sorted by expert, an expert's choices are cut into tiles of rows, and each tile is multiplied with the
 * expert's matrices:
 *
 *     sort     count: choices per expert in pieces of 1024; place: where each expert's begin, the list of tiles, the
 * choices in order of (expert, choice), which is the same in every run rows     fast mode: x [M, K] as bf16 up       h
 * [choices in order, ff] = act(gate x) * (up x); gate and up are multiplied by the same block down     y [choices in
 * order, dim] = down h + bias combine  out [M, dim] = sum over k of weight * y of the choice, in the order of k
 *
 * Everything is on the device: grids are as large as any choice can make them, blocks without a tile leave.
 *
 * Products in fast mode: a block of 8 warps makes 128 rows x 128 columns, a warp 4 x 16 rows and 32 columns, with
 * mma.m16n8k16 in bf16. 64 columns of k at a time lie in shared memory, twice: while one half is multiplied the rows of
 * x for the other arrive by cp.async, and a thread holds 32 columns of one weight row in registers as stored, which it
 * turns to bf16 after the products. Rows are 144 bytes apart, so that ldmatrix and the stores meet no bank twice. Of 64
 * columns the products are 512 instructions of a block, unpacking 4 bits 8 * 120 of other units. 16 rows of a tile that
 * do not exist are not multiplied. With gates, 16 rows of the gate and the same 16 of the up projection make a warp's
 * columns, so a thread has both.
 *
 * Exact mode: 64 x 64 tiles of f32 products and sums, as in gemm.cu. */
#include "backend/cuda/moe_many.cuh"

enum {
    THREADS = 256,
    PART = 1024, /* choices that a block sorts */
    BM = 128,    /* tile of fast products: rows, */
    BN = 128,    /* columns, */
    BK = 64,     /* columns of k at a time */
    PITCH = BK + 8,
    STAGE = (BM + BN) * PITCH * 2, /* bytes */
    XM = 64,                       /* the same of exact products */
    XK = 16,
    XLD = XM + 4,
    ANY = -1 /* a kind that is found out in the kernel */
};

/* ---- sorting ---- */

typedef struct sort_args {
    const float *choice;                                /* [M, 2 n_used] */
    int n_pair, n_used, n_expert, tile_rows, tile_step; /* tile_step: 0, or see cu_moe_wgmma */
    int n_part;
    int32_t *part;   /* [n_part, n_expert] choices of a piece of PART of them, per expert */
    int32_t *n_tile; /* [1] */
    int4 *tile;      /* expert, first place, rows */
    int32_t *list;   /* [n_pair] the choice at a place: row * n_used + k */
    int32_t *place;  /* [n_pair] the place of a choice */
} sort_args;

CU_DEV int expert_at(const sort_args &a, int pair) {
    const unsigned m = (unsigned)pair / (unsigned)a.n_used, k = (unsigned)pair % (unsigned)a.n_used;
    const unsigned e = (unsigned)__float_as_int(a.choice[(int64_t)m * 2 * a.n_used + a.n_used + k]);
    return (int)(e < (unsigned)a.n_expert ? e : 0);
}

/* The sum of x over lanes up to this one. */
CU_DEV int scan(int x) {
    const int lane = (int)threadIdx.x % CU_WARP;
    for (int d = 1; d < CU_WARP; d *= 2) {
        const int y = __shfl_up_sync(0xffffffffu, x, (unsigned)d);
        if (lane >= d) x += y;
    }
    return x;
}

/* A block: the counts of one piece. */
static __global__ void __launch_bounds__(PART) count_kernel(sort_args a) {
    CU_DYN_SMEM(smem);
    int *count = (int *)smem;
    const int p = (int)blockIdx.x * PART + (int)threadIdx.x;
    cu_pdl_launch();
    cu_pdl_wait();
    for (int e = (int)threadIdx.x; e < a.n_expert; e += PART) count[e] = 0;
    __syncthreads();
    if (p < a.n_pair) atomicAdd(count + expert_at(a, p), 1);
    __syncthreads();
    for (int e = (int)threadIdx.x; e < a.n_expert; e += PART) a.part[(int64_t)blockIdx.x * a.n_expert + e] = count[e];
}

/* One warp: from the counts of all (total) the first place of each expert (to first) and, `list`, the tiles. */
CU_DEV void lay_out(const sort_args &a, const int *total, int *first, bool list) {
    int at = 0, tiles = 0;
    for (int e0 = 0; e0 < a.n_expert; e0 += CU_WARP) {
        const int e = e0 + (int)threadIdx.x, n = e < a.n_expert ? total[e] : 0;
        int rows = a.tile_rows, n_tile = (n + rows - 1) / rows;
        if (a.tile_step && n_tile > 1) { /* tiles of about the same size */
            rows = ((n + n_tile - 1) / n_tile + a.tile_step - 1) / a.tile_step * a.tile_step;
            n_tile = (n + rows - 1) / rows;
        }
        const int to = at + scan(n), to_tile = tiles + scan(n_tile);
        if (e < a.n_expert) first[e] = to - n;
        for (int i = 0; list && i < n_tile; i++)
            a.tile[to_tile - n_tile + i] = make_int4(e, to - n + i * rows, min(rows, n - i * rows), 0);
        at = __shfl_sync(0xffffffffu, to, CU_WARP - 1);
        tiles = __shfl_sync(0xffffffffu, to_tile, CU_WARP - 1);
    }
    if (list && threadIdx.x == 0) *a.n_tile = tiles;
}

/* A block: the places of one piece. A place is the expert's first, and how many choices of the expert are in pieces
 * before this one, in warps before this one, in lanes before this one. Shared memory: per expert the first, the ones in
 * pieces before, and 16 bits a warp. */
static __global__ void __launch_bounds__(PART) place_kernel(sort_args a) {
    CU_DYN_SMEM(smem);
    int *first = (int *)smem, *before = first + a.n_expert;
    uint16_t *warps = (uint16_t *)(before + a.n_expert); /* [PART / CU_WARP, n_expert] */
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP;
    const int p = (int)blockIdx.x * PART + (int)threadIdx.x;
    cu_pdl_launch();
    cu_pdl_wait();
    for (int i = (int)threadIdx.x; i < PART / CU_WARP * a.n_expert; i += PART) warps[i] = 0;
    for (int e = (int)threadIdx.x; e < a.n_expert; e += PART) {
        int all = 0, mine = 0;
        for (int b = 0; b < a.n_part; b++) {
            const int n = a.part[(int64_t)b * a.n_expert + e];
            all += n;
            if (b < (int)blockIdx.x) mine += n;
        }
        first[e] = all, before[e] = mine;
    }
    __syncthreads();
    if (warp == 0) lay_out(a, first, first, blockIdx.x == 0);
    const int e = p < a.n_pair ? expert_at(a, p) : -1;
    const uint32_t same = __match_any_sync(0xffffffffu, e), under = same & ((1u << lane) - 1);
    if (e >= 0 && !under) warps[warp * a.n_expert + e] = (uint16_t)__popc(same);
    __syncthreads();
    if (e < 0) return;
    int at = first[e] + before[e] + __popc(under);
    for (int i = 0; i < warp; i++) at += warps[i * a.n_expert + e];
    a.list[at] = p;
    a.place[p] = at;
}

/* ---- rows ---- */

/* out [M, ld] bf16 = x [M, K], zeros from K on. Grid (M, pieces of 4 * THREADS). */
static __global__ void __launch_bounds__(THREADS)
    rows_kernel(const void *x, int x_type, int64_t K, int vec, uint16_t *out, int64_t ld) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t i = 4 * ((int64_t)blockIdx.y * THREADS + threadIdx.x), in = (int64_t)blockIdx.x * K + i;
    if (i >= ld) return;
    float4 v = make_float4(0, 0, 0, 0);
    if (vec) { /* K is a multiple of 4 */
        if (i < K) v = cu_get4(x, x_type, in);
    } else {
        if (i < K) v.x = cu_get(x, x_type, in);
        if (i + 1 < K) v.y = cu_get(x, x_type, in + 1);
        if (i + 2 < K) v.z = cu_get(x, x_type, in + 2);
        if (i + 3 < K) v.w = cu_get(x, x_type, in + 3);
    }
    cu_put4(out, FA_BF16, (int64_t)blockIdx.x * ld + i, v);
}

/* ---- products ---- */

CU_DEV float glu_of(const cu_moe_product &a, float gate, float up) {
    if (a.limit > 0) gate = fminf(gate, a.limit), up = fminf(fmaxf(up, -a.limit), a.limit) + 1.0f;
    return cu_act(a.act, gate) * up;
}
CU_DEV float act_of(const cu_moe_product &a, float up) {
    if (!a.activate) return up;
    if (a.limit > 0) up = fminf(fmaxf(up, -a.limit), a.limit) + 1.0f;
    return cu_act(a.act, up);
}
/* -- 32 columns of a weight row: as stored, then as bf16 -- */

typedef struct raw32 {
    uint4 c[2];
    uint32_t scale, bias; /* bits as stored */
} raw32;

CU_DEV uint32_t scale_bits(const uint8_t *p, int64_t i, int type) {
    return type == FA_F32 ? ((const uint32_t *)p)[i] : ((const uint16_t *)p)[i];
}
CU_DEV float scale_value(uint32_t bits, int type) {
    return type == FA_F32 ? __uint_as_float(bits) : type == FA_F16 ? cu_f16((uint16_t)bits) : cu_bf16((uint16_t)bits);
}

/* Columns [k, k + 8) of any format. */
CU_DEV void any8(const cu_wmat &w, const cu_wrow &r, int k, float v[8]) {
    CU_WITH_KIND(w.kind, cu_values8<KIND>(w, r, k, v))
}

/* Columns [k, k + 32), k < cols. */
template <int KIND> CU_DEV void raw_load(const cu_wmat &w, const cu_wrow &r, int k, raw32 *v) {
    if constexpr (KIND == CU_K_A4 || KIND == CU_K_MXFP4) v->c[0] = *(const uint4 *)(r.codes + k / 2);
    if constexpr (KIND == CU_K_A8) {
        v->c[0] = *(const uint4 *)(r.codes + k);
        v->c[1] = *(const uint4 *)(r.codes + k + 16);
    }
    if constexpr (KIND == CU_K_A4 || KIND == CU_K_A8) {
        v->scale = scale_bits(r.scales, k >> w.group_log, w.scale_dtype);
        v->bias = scale_bits(r.biases, k >> w.group_log, w.scale_dtype);
    }
    if constexpr (KIND == CU_K_MXFP4) v->scale = r.scales[k >> 5];
}

/* value = (number in a half of p) * s + c of two halves each: elements 0, 1 (lo) and 4, 5 (hi) of 8 */
CU_DEV void pairs_to_bf16(const uint32_t p[4], float s, float c, uint4 *out) {
    out->x = cu_to_bf16x2(fmaf(cu_bf16_lo(p[0]), s, c), fmaf(cu_bf16_lo(p[1]), s, c));
    out->y = cu_to_bf16x2(fmaf(cu_bf16_lo(p[2]), s, c), fmaf(cu_bf16_lo(p[3]), s, c));
    out->z = cu_to_bf16x2(fmaf(cu_bf16_hi(p[0]), s, c), fmaf(cu_bf16_hi(p[1]), s, c));
    out->w = cu_to_bf16x2(fmaf(cu_bf16_hi(p[2]), s, c), fmaf(cu_bf16_hi(p[3]), s, c));
}

/* to: 32 bf16. */
template <int KIND> CU_DEV void raw_store(const cu_wmat &w, const cu_wrow &r, int k, const raw32 &v, uint16_t *to) {
    uint4 *out = (uint4 *)to;
    if constexpr (KIND == CU_K_A4) { /* 128 + code is a bf16 number */
        const float s = scale_value(v.scale, w.scale_dtype), c = fmaf(-128.0f, s, scale_value(v.bias, w.scale_dtype));
        const uint32_t u[4] = {v.c[0].x, v.c[0].y, v.c[0].z, v.c[0].w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t p[4];
#pragma unroll
            for (int j = 0; j < 4; j++) p[j] = cu_and_or(u[i] >> 4 * j, 0x000F000Fu, 0x43004300u);
            pairs_to_bf16(p, s, c, out + i);
        }
    } else if constexpr (KIND == CU_K_MXFP4) {
        const float s = 2.0f * cu_half_e8m0(v.scale);
        const uint32_t u[4] = {v.c[0].x, v.c[0].y, v.c[0].z, v.c[0].w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t p[4];
#pragma unroll
            for (int j = 0; j < 4; j++) p[j] = cu_e2m1_pair(u[i] << (12 - 4 * j));
            pairs_to_bf16(p, s, 0.0f, out + i);
        }
    } else if constexpr (KIND == CU_K_A8) { /* 2^23 + code is a float */
        const float s = scale_value(v.scale, w.scale_dtype), c = scale_value(v.bias, w.scale_dtype);
        const uint32_t u[8] = {v.c[0].x, v.c[0].y, v.c[0].z, v.c[0].w, v.c[1].x, v.c[1].y, v.c[1].z, v.c[1].w};
        uint32_t p[16];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float f[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                f[j] = fmaf(__uint_as_float(__byte_perm(u[i], 0x4B000000u, 0x7440u | (unsigned)j)) - 8388608.0f, s, c);
            p[2 * i] = cu_to_bf16x2(f[0], f[1]);
            p[2 * i + 1] = cu_to_bf16x2(f[2], f[3]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) out[i] = make_uint4(p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]);
    } else {
#pragma unroll 1
        for (int i = 0; i < 4; i++) {
            float f[8] = {};
            if (k + 8 * i < w.cols) {
                any8(w, r, k + 8 * i, f);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (k + 8 * i + j >= w.cols) f[j] = 0;
            }
            out[i] = make_uint4(cu_to_bf16x2(f[0], f[1]), cu_to_bf16x2(f[2], f[3]), cu_to_bf16x2(f[4], f[5]),
                                cu_to_bf16x2(f[6], f[7]));
        }
    }
}

/* -- fast -- */

/* What a thread loads: four pieces of 16 bytes of rows of x, 32 columns of one weight row. */
template <int KIND> struct loader {
    const uint16_t *x[4];
    cu_wrow row;
    int mat;
    bool there; /* the weight row */

    __device__ __forceinline__ void begin(const cu_moe_product &a, const int4 tile) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int m = (int)threadIdx.x / 8 + 32 * i;
            x[i] = NULL;
            if (m < tile.z)
                x[i] = (const uint16_t *)a.x + (int64_t)cu_moe_source(a, tile.y + m) * a.ldx + (int)threadIdx.x % 8 * 8;
        }
        const int n = (int)threadIdx.x / 2;
        int at = (int)blockIdx.x * BN + n;
        mat = 0;
        if (a.paired) at = (int)blockIdx.x * (BN / 2) + n / 32 * 16 + n % 16, mat = n / 16 % 2;
        there = at < a.N;
        row = cu_moe_row(a, mat, tile.x, there ? at : 0);
    }
    __device__ __forceinline__ void rows(const cu_moe_product &a, int k0, uint16_t *xs) const {
        const int k = k0 + (int)threadIdx.x % 8 * 8;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool in = x[i] && k < a.ldx;
            cu_cp_async(xs + ((int)threadIdx.x / 8 + 32 * i) * PITCH + (int)threadIdx.x % 8 * 8,
                        in ? (const void *)(x[i] + k0) : a.x, in ? 16 : 0);
        }
    }
    __device__ __forceinline__ uint16_t *place(uint16_t *ws) const {
        return ws + (int)threadIdx.x / 2 * PITCH + (int)threadIdx.x % 2 * 32;
    }
    /* Starts the weight's loads: to registers, bf16 to shared memory. */
    __device__ __forceinline__ void weights(const cu_moe_product &a, int k0, raw32 *raw, uint16_t *ws) const {
        const int k = k0 + (int)threadIdx.x % 2 * 32;
        if constexpr (KIND == CU_K_BF16) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const bool in = there && k + 8 * i < a.K; /* rows end in zeros at a multiple of 16 bytes */
                cu_cp_async(place(ws) + 8 * i, in ? row.codes + 2 * (k + 8 * i) : row.codes, in ? 16 : 0);
            }
        } else if constexpr (KIND != ANY) {
            if (there && k < a.K) raw_load<KIND>(a.w[mat], row, k, raw);
        }
    }
    __device__ __forceinline__ void store(const cu_moe_product &a, int k0, const raw32 &raw, uint16_t *ws) const {
        const int k = k0 + (int)threadIdx.x % 2 * 32;
        if constexpr (KIND != CU_K_BF16) {
            if (there && k < a.K) {
                raw_store<KIND>(a.w[mat], row, k, raw, place(ws));
                return;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) ((uint4 *)place(ws))[i] = make_uint4(0, 0, 0, 0);
        }
    }
};

/* 64 columns of k: a warp's 4 x 16 rows and 32 columns. */
CU_DEV void multiply(const uint16_t *xs, const uint16_t *ws, int rows, float acc[4][4][4]) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, wm = warp / 4, wn = warp % 4;
    const uint16_t *x = xs + (wm * 16 + lane % 16) * PITCH + lane / 16 * 8;
    const uint16_t *w = ws + (wn * 32 + lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 8;
#pragma unroll
    for (int kk = 0; kk < BK; kk += 16) {
        uint32_t b[2][4];
        cu_ldmatrix_x4(b[0], w + kk);
        cu_ldmatrix_x4(b[1], w + 16 * PITCH + kk);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i * 32 + wm * 16 >= rows) break;
            uint32_t f[4];
            cu_ldmatrix_x4(f, x + i * 32 * PITCH + kk);
#pragma unroll
            for (int j = 0; j < 4; j++) cu_mma_bf16(acc[i][j], f, b[j / 2] + j % 2 * 2);
        }
    }
}

/* Results of rows and columns (n, n + 1) of the tile's place, from n = N on zeros as far as rows reach. */
CU_DEV void put_pair(const cu_moe_product &a, int64_t at, int n, float v0, float v1) {
    if (n >= a.ld) return;
    cu_put2(a.out, a.out_type, at * a.ld + n, n < a.N ? v0 : 0.0f, n + 1 < a.N ? v1 : 0.0f);
}

CU_DEV void finish(const cu_moe_product &a, const int4 tile, const float acc[4][4][4]) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, wm = warp / 4, wn = warp % 4;
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (a.paired && j >= 2) break;
        const int n = a.paired ? (int)blockIdx.x * (BN / 2) + wn * 16 + j * 8 + 2 * t
                               : (int)blockIdx.x * BN + wn * 32 + j * 8 + 2 * t;
        const float b0 = cu_moe_bias(a, 0, tile.x, n), b1 = cu_moe_bias(a, 0, tile.x, n + 1);
        const float u0 = a.paired ? cu_moe_bias(a, 1, tile.x, n) : 0.0f,
                    u1 = a.paired ? cu_moe_bias(a, 1, tile.x, n + 1) : 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int m = i * 32 + wm * 16 + h * 8 + g;
                if (m >= tile.z) continue;
                const float v0 = acc[i][j][2 * h] + b0, v1 = acc[i][j][2 * h + 1] + b1;
                if (a.paired)
                    put_pair(a, tile.y + m, n, glu_of(a, v0, acc[i][(j + 2) % 4][2 * h] + u0),
                             glu_of(a, v1, acc[i][(j + 2) % 4][2 * h + 1] + u1));
                else
                    put_pair(a, tile.y + m, n, act_of(a, v0), act_of(a, v1));
            }
    }
}

/* Grid (columns, tiles). */
template <int KIND>
static __global__ void __launch_bounds__(THREADS, 2) moe_product(const __grid_constant__ cu_moe_product a) {
    CU_DYN_SMEM(smem);
    cu_pdl_launch();
    cu_pdl_wait();
    if ((int)blockIdx.y >= *a.n_tile) return; /* the whole block */
    const int4 tile = a.tile[blockIdx.y];
    float acc[4][4][4] = {};
    loader<KIND> load;
    raw32 raw = {};
    load.begin(a, tile);
    uint16_t *xs = (uint16_t *)smem, *ws = xs + BM * PITCH;
    load.rows(a, 0, xs);
    load.weights(a, 0, &raw, ws);
    cu_cp_commit();
    load.store(a, 0, raw, ws);
    int half = 0;
    for (int k = 0; k < a.K; k += BK, half ^= 1) {
        uint16_t *now = (uint16_t *)(smem + half * STAGE), *next = (uint16_t *)(smem + (half ^ 1) * STAGE);
        const bool more = k + BK < a.K;
        cu_cp_wait<0>();
        __syncthreads(); /* this half has arrived for all, the other is no longer read */
        if (more) {
            load.rows(a, k + BK, next);
            load.weights(a, k + BK, &raw, next + BM * PITCH);
        }
        cu_cp_commit();
        multiply(now, now + BM * PITCH, tile.z, acc);
        if (more) load.store(a, k + BK, raw, next + BM * PITCH);
    }
    finish(a, tile, acc);
}

/* -- exact -- */

/* Grid (columns, tiles). A thread makes 4 rows x 4 columns; with gates 2 of the gate and the same 2 of the up
 * projection. */
static __global__ void __launch_bounds__(THREADS) moe_product_exact(const __grid_constant__ cu_moe_product a) {
    __shared__ __align__(16) float xs[XK][XLD];
    __shared__ __align__(16) float ws[XK][XLD];
    cu_pdl_launch();
    cu_pdl_wait();
    if ((int)blockIdx.y >= *a.n_tile) return;
    const int4 tile = a.tile[blockIdx.y];
    const int tm = (int)threadIdx.x / 16 * 4, tn = (int)threadIdx.x % 16 * 4;
    float acc[4][4] = {};
    const int xm = (int)threadIdx.x / 4, xk = (int)threadIdx.x % 4 * 4;
    const float *x = xm < tile.z ? (const float *)a.x + (int64_t)cu_moe_source(a, tile.y + xm) * a.ldx : NULL;
    const int wn = (int)threadIdx.x / 2 % XM, wk = (int)threadIdx.x % 2 * 8; /* of threads below 128 */
    const int n = a.paired ? (int)blockIdx.x * (XM / 2) + wn / 4 * 2 + wn % 2 : (int)blockIdx.x * XM + wn;
    const int mat = a.paired ? wn / 2 % 2 : 0;
    const cu_wmat &w = a.w[mat];
    const cu_wrow row = cu_moe_row(a, mat, tile.x, n < a.N ? n : 0);
    for (int k0 = 0; k0 < a.K; k0 += XK) {
        for (int i = 0; i < 4; i++) xs[xk + i][xm] = x && k0 + xk + i < a.K ? x[k0 + xk + i] : 0.0f;
        if (threadIdx.x < 2 * XM) {
            float v[8] = {};
            const int k = k0 + wk;
            if (n < a.N && k < a.K) any8(w, row, k, v);
#pragma unroll
            for (int i = 0; i < 8; i++) ws[wk + i][wn] = k + i < a.K ? v[i] : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < XK; k++) {
            const float4 p = *(const float4 *)&xs[k][tm], q = *(const float4 *)&ws[k][tn];
            const float xa[4] = {p.x, p.y, p.z, p.w}, wa[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = fmaf(xa[i], wa[j], acc[i][j]);
        }
        __syncthreads();
    }
    for (int j = 0; j < (a.paired ? 2 : 4); j++) {
        const int c = a.paired ? (int)blockIdx.x * (XM / 2) + tn / 2 + j : (int)blockIdx.x * XM + tn + j;
        for (int i = 0; i < 4 && c < a.ld; i++) {
            if (tm + i >= tile.z) break;
            float v = acc[i][j] + cu_moe_bias(a, 0, tile.x, c);
            v = a.paired ? glu_of(a, v, acc[i][j + 2] + cu_moe_bias(a, 1, tile.x, c)) : act_of(a, v);
            ((float *)a.out)[(int64_t)(tile.y + tm + i) * a.ld + c] = c < a.N ? v : 0.0f;
        }
    }
}

/* ---- combine ---- */

typedef struct combine_args {
    const void *y; /* [places, ld] */
    int y_type;
    int64_t ld, dim;
    const float *choice;
    const int32_t *place;
    int n_used, add;
    float scale;
    float *out;
} combine_args;

/* Grid (rows, pieces of 4 * THREADS): a thread makes four columns. ld is a multiple of 4. */
static __global__ void __launch_bounds__(THREADS) combine_kernel(combine_args a) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t m = blockIdx.x, i = 4 * ((int64_t)blockIdx.y * THREADS + threadIdx.x);
    if (i >= a.dim) return;
    float4 s = make_float4(0, 0, 0, 0);
    for (int k = 0; k < a.n_used; k++) {
        const float w = a.choice[m * 2 * a.n_used + k];
        const float4 v = cu_get4(a.y, a.y_type, a.place[m * a.n_used + k] * a.ld + i);
        s = make_float4(fmaf(w, v.x, s.x), fmaf(w, v.y, s.y), fmaf(w, v.z, s.z), fmaf(w, v.w, s.w));
    }
    float *out = a.out + m * a.dim + i;
    const float v[4] = {s.x, s.y, s.z, s.w};
    if (a.dim % 4 == 0) {
        float4 o = a.add ? *(const float4 *)out : make_float4(0, 0, 0, 0);
        *(float4 *)out =
            make_float4(o.x + a.scale * v[0], o.y + a.scale * v[1], o.z + a.scale * v[2], o.w + a.scale * v[3]);
        return;
    }
    for (int j = 0; j < 4 && i + j < a.dim; j++) out[j] = (a.add ? out[j] : 0.0f) + a.scale * v[j];
}

/* ---- a record ---- */

typedef struct plan {
    int64_t M, P, dim, ff, ldx, ldh, ldy, n_tile, n_part; /* n_tile: most tiles that there can be */
    int tile_rows;
    bool x_work, wgmma, lora; /* lora: adapters change gate or up, which are multiplied apart then */
    size_t part_at, tile_at, list_at, place_at, x_at, h_at, gate_at, up_at, y_at, u_at, bytes;
} plan;

static int64_t up_to(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Shared memory of place_kernel. */
static size_t sort_bytes(int64_t n_expert) { return (size_t)n_expert * (8 + 2 * PART / CU_WARP); }

static size_t take(plan *p, int64_t bytes) {
    const size_t at = p->bytes;
    p->bytes += (size_t)up_to(bytes, 256);
    return at;
}

static plan plan_of(const fa_cuda *cu, const fa_rec *r) {
    const fa_moe *m = r->p.moe.moe;
    const bool exact = cu->be.exact;
    const int64_t elem = exact ? 4 : 2, n_expert = m->up.n;
    plan p = {};
    p.M = r->in[0].dim[0], p.P = p.M * r->p.moe.n_used;
    p.dim = r->out.dim[1], p.ff = m->up.w[0].rows;
    p.lora = cu_moe_lora_on(r, true);
    /* whose hidden rows are in an order that adapters do not know */
    p.wgmma = !p.lora && !cu_moe_lora_on(r, false) && cu_moe_wgmma_fits(cu, m);
    p.tile_rows = exact ? (int)XM : p.wgmma ? (int)CU_MOE_WGMMA_ROWS : (int)BM;
    p.n_tile = (n_expert < p.P ? n_expert : p.P) + p.P / p.tile_rows;
    p.x_work = r->in[0].dtype != (exact ? FA_F32 : FA_BF16) || (!exact && p.dim % 8) || p.wgmma;
    p.ldx = exact ? p.dim : up_to(p.dim, p.wgmma ? 64 : 8);
    p.ldh = up_to(p.ff, p.wgmma ? 64 : 8), p.ldy = up_to(p.dim, 8);
    p.n_part = (p.P + PART - 1) / PART;
    p.part_at = take(&p, (p.n_part * n_expert + 1) * 4); /* with the number of tiles */
    p.tile_at = take(&p, p.n_tile * 16);
    p.list_at = take(&p, p.P * 4);
    p.place_at = take(&p, p.P * 4);
    p.x_at = take(&p, p.x_work ? p.M * p.ldx * elem : 0);
    p.h_at = take(&p, p.P * p.ldh * elem);
    p.gate_at = take(&p, p.lora && m->gate.n ? p.P * p.ldh * 4 : 0);
    p.up_at = take(&p, p.lora ? p.P * p.ldh * 4 : 0);
    p.y_at = take(&p, p.P * p.ldy * elem);
    p.u_at = take(&p, cu_moe_lora_bytes(r));
    return p;
}

int64_t cu_moe_many_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    const plan p = plan_of(cu, r);
    if (p.P > INT32_MAX / 2 || p.n_tile > 65535 || sort_bytes(r->p.moe.moe->up.n) > cu->smem_max ||
        (!cu->be.exact && (size_t)2 * STAGE > cu->smem_max))
        return fa_fail(err, FFAI_ENOTSUP, "no kernel for %lld rows with %d of %lld experts", (long long)p.M,
                       r->p.moe.n_used, (long long)r->p.moe.moe->up.n);
    if (r->in[0].dtype == FA_BF16 && cu->be.exact)
        return fa_fail(err, FFAI_ENOTSUP, "no kernel for experts of bf16 rows in exact mode");
    return (int64_t)p.bytes;
}

static void add_stack(cu_moe_product *a, int i, const fa_experts *e) {
    const cu_moe_stack s = cu_moe_stack_of(e);
    a->w[i] = cu_wmat_of(s.w);
    a->stride[i] = s.stride, a->scale_stride[i] = s.scale_stride, a->bias[i] = s.bias;
    a->N = (int)s.w->rows, a->K = (int)s.w->cols;
}

static void product(fa_cuda *cu, const plan *p, const cu_moe_product *a) {
    if (p->wgmma) {
        cu_moe_wgmma(cu, a);
        return;
    }
    if (cu->be.exact) {
        const dim3 grid(cu_blocks(a->ld, a->paired ? XM / 2 : XM), (unsigned)p->n_tile);
        CU_LAUNCH(cu, moe_product_exact, grid, THREADS, 0, *a);
        return;
    }
    const dim3 grid(cu_blocks(a->ld, a->paired ? BN / 2 : BN), (unsigned)p->n_tile);
    const int kind = a->paired && a->w[0].kind != a->w[1].kind ? (int)CU_KIND_COUNT : (int)a->w[0].kind;
    switch (kind) {
    case CU_K_BF16: CU_LAUNCH(cu, moe_product<CU_K_BF16>, grid, THREADS, 2 * STAGE, *a); break;
    case CU_K_A4: CU_LAUNCH(cu, moe_product<CU_K_A4>, grid, THREADS, 2 * STAGE, *a); break;
    case CU_K_A8: CU_LAUNCH(cu, moe_product<CU_K_A8>, grid, THREADS, 2 * STAGE, *a); break;
    case CU_K_MXFP4: CU_LAUNCH(cu, moe_product<CU_K_MXFP4>, grid, THREADS, 2 * STAGE, *a); break;
    default: CU_LAUNCH(cu, moe_product<ANY>, grid, THREADS, 2 * STAGE, *a); break;
    }
}

static void sort(fa_cuda *cu, const plan *p, const fa_rec *r, uint8_t *work) {
    sort_args s;
    s.choice = (const float *)r->in[1].data;
    s.n_pair = (int)p->P, s.n_used = r->p.moe.n_used, s.n_expert = (int)r->p.moe.moe->up.n;
    s.tile_rows = p->tile_rows, s.tile_step = p->wgmma ? CU_MOE_WGMMA_STEP : 0;
    s.n_part = (int)p->n_part;
    s.part = (int32_t *)(work + p->part_at);
    s.n_tile = s.part + p->n_part * s.n_expert;
    s.tile = (int4 *)(work + p->tile_at);
    s.list = (int32_t *)(work + p->list_at), s.place = (int32_t *)(work + p->place_at);
    const dim3 grid((unsigned)s.n_part);
    CU_LAUNCH(cu, count_kernel, grid, PART, (size_t)s.n_expert * 4, s);
    CU_LAUNCH(cu, place_kernel, grid, PART, sort_bytes(s.n_expert), s);
}

/* Gate and up apart as f32, what adapters add to them, the activation. */
static void adapted_up(fa_cuda *cu, const fa_rec *r, const cu_batch *b, const plan *p, cu_moe_product a) {
    const fa_moe *m = r->p.moe.moe;
    uint8_t *work = (uint8_t *)r->work;
    float *u = (float *)(void *)(work + p->u_at);
    const cu_moe_lora_rows x = {r->in[0].data, r->in[0].dtype, r->in[0].dim[1], true};
    const cu_moe_lora_rows gate = {m->gate.n ? work + p->gate_at : NULL, FA_F32, p->ldh, false},
                           up = {work + p->up_at, FA_F32, p->ldh, false}, h = {a.out, a.out_type, p->ldh, false};
    a.activate = a.paired = 0;
    a.out_type = FA_F32;
    a.out = up.at;
    add_stack(&a, 0, &m->up);
    product(cu, p, &a);
    if (m->gate.n) {
        a.out = gate.at;
        add_stack(&a, 0, &m->gate);
        product(cu, p, &a);
    }
    cu_moe_lora(cu, r, b, 0, a.list, x, gate, u);
    cu_moe_lora(cu, r, b, 1, a.list, x, up, u);
    cu_moe_lora_activate(cu, r, gate, up, h);
}

void cu_moe_many_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_moe *m = r->p.moe.moe;
    const plan p = plan_of(cu, r);
    uint8_t *work = (uint8_t *)r->work;
    const void *x = r->in[0].data;
    if (p.M == 0) return;
    sort(cu, &p, r, work);
    if (p.wgmma) {
        cu_moe_wgmma_rows(cu, x, (int)r->in[0].dtype, p.M, p.dim, work + p.x_at, p.ldx);
        x = work + p.x_at;
    } else if (p.x_work) {
        const int vec = p.dim % 4 == 0 && (uintptr_t)x % 16 == 0;
        x = work + p.x_at;
        CU_LAUNCH(cu, rows_kernel, dim3((unsigned)p.M, cu_blocks(p.ldx, 4 * THREADS)), THREADS, 0,
                  (const void *)r->in[0].data, (int)r->in[0].dtype, p.dim, vec, (uint16_t *)(work + p.x_at), p.ldx);
    }
    cu_moe_product a = {};
    a.n_used = r->p.moe.n_used;
    a.tile = (const int4 *)(work + p.tile_at);
    a.n_tile = (const int32_t *)(work + p.part_at) + p.n_part * m->up.n;
    a.act = m->act, a.limit = m->limit, a.activate = 1;
    a.paired = m->gate.n > 0;
    if (a.paired) add_stack(&a, 0, &m->gate);
    add_stack(&a, a.paired, &m->up);
    a.x = x, a.ldx = p.ldx, a.list = (const int32_t *)(work + p.list_at);
    a.out = work + p.h_at, a.ld = p.ldh;
    a.out_type = cu->be.exact ? FA_F32 : FA_BF16;
    if (p.lora)
        adapted_up(cu, r, b, &p, a);
    else
        product(cu, &p, &a);
    const int32_t *list = a.list;
    a.paired = a.activate = 0;
    a.bias[1] = NULL;
    add_stack(&a, 0, &m->down);
    a.x = work + p.h_at, a.ldx = p.ldh, a.list = NULL;
    a.out = work + p.y_at, a.ld = p.ldy;
    product(cu, &p, &a);
    const int type = a.out_type;
    const cu_moe_lora_rows h = {work + p.h_at, type, p.ldh, false}, y = {work + p.y_at, type, p.ldy, false};
    cu_moe_lora(cu, r, b, 2, list, h, y, (float *)(void *)(work + p.u_at));
    combine_args c;
    c.y = y.at, c.y_type = type, c.ld = p.ldy, c.dim = p.dim;
    c.choice = (const float *)r->in[1].data;
    c.place = (const int32_t *)(work + p.place_at);
    c.n_used = a.n_used, c.add = r->p.moe.add, c.scale = r->p.moe.scale;
    c.out = fa_f32(r->out);
    CU_LAUNCH(cu, combine_kernel, dim3((unsigned)p.M, cu_blocks(p.dim, 4 * THREADS)), THREADS, 0, c);
}
