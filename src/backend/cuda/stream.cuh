/* Linear records with few input rows: one kernel for every operation and format (but for the commonest codes, which
 * stream_int.cu multiplies in fast mode, with this beginning and end). It is bound by the speed at which
 * weights come from memory, so everything else is arranged around a steady stream of loads (docs/cuda.md, "Decode:
 * streaming weights").
 *
 * Geometry. A tile is 8 rows of a weight, over all its columns: neighbours, or two times 4 that rotation pairs. The
 * grid is about one block per multiprocessor; block b takes tiles b, b + grid, ... The columns are cut into steps of
 * F::COLS; warp i of a block takes steps i, i + warps, ... of each of its tiles. Each warp has a ring of F::RING slots
 * in shared memory, a slot holding what one step reads: cp.async keeps F::RING - 1 steps of the warp in flight, across
 * the ends of tiles and beginning before the kernel that comes before has finished (only weights are read then). Then
 * the input rows are put into shared memory ([M, columns of a chunk] as bf16, f32 in exact mode; normalised but for the
 * factor 1 / rms, which the results are multiplied by), the steps are multiplied, the warps' partial sums of a tile
 * meet in shared memory in a fixed order, and a few threads do with the results what the operation wants. Input that
 * does not fit is cut into chunks of columns: then the sums of all the block's tiles are kept in shared memory from
 * chunk to chunk. Results do not depend on the number of blocks, nor on timing.
 *
 * Arithmetic. Fast mode multiplies with bf16 tensor-core instructions, the weight's 8 rows being columns of b and the
 * input rows (1..8, or 9..16) rows of a: one row costs as much as eight, and a row's result is the same whatever stands
 * beside it. As every product's sum may run over its columns in any order, weight and input are taken in the order in
 * which a lane finds 16 bytes of the weight together. Exact mode multiplies f32 by f32.
 *
 * What a format gives: a struct F of static members. (g = lane / 4, t = lane % 4 throughout.)
 *
 *   COLS, SLOT, WARPS        columns of a step, a multiple of 32; bytes of a slot, a multiple of 16; warps of a block
 * (8; 16 where arithmetic is the narrow place). At most 64 registers with 16 warps, 128 with 8. struct cursor a lane's
 * addresses within the tile that it loads; few registers. cursor at(w, row0, lane) of the tile with rows [row0, row0 +
 * 8); rows from w.rows on do not exist and must not be read: they count as zeros or anything finite. fetch(slot, w,
 * cursor, step, lane) by all lanes: cu_cp_async of what columns [step * COLS, + COLS) need (codes, scales, biases), in
 * any layout. Columns from w.cols on must become finite values (zeros: n = 0). Other lanes' bytes may be read later, a
 * lane waits and __syncwarp stands in between. fast<HI>(slot, w, step, lane, x, xh, acc) adds the products of a step to
 * acc [2][4], two accumulators of cu_mma_bf16 that the caller adds up. x: input row g, xh: input row g + 8 (only if
 * HI), bf16 in shared memory, at the step's first column, 16-byte aligned; columns from w.cols on are zeros. cu_mma8
 * helps. d[0..1] belong to (input row g, weight rows 2t, 2t + 1), d[2..3] to input row g + 8. exact<R>(slot, w, step,
 * lane, x, ldx, M, acc) acc [R] += of row g, columns of the lane's own choice, times input rows 0..M-1 <= R: f32 in
 * shared memory, row m at x + m * ldx. The lanes of a g are added up by the caller.
 *
 * All are CU_FMT (static device functions). CU_STREAM_FMT(name, F) is the format's row of a table in the .cu file that
 * has it, whose cu_stream_find_* returns that row for the weights it fits; name is what profiles show.
 *
 *   RING, CODES              slots of a warp's ring; CODES != 0: 16-bit input is staged for formats of codes: within
 * every 8 columns in the order 0 4 1 5 2 6 3 7 (codes come out of words in pairs that lie 16 bits apart), and behind a
 * row's columns stand the sums of each CODES of them (16, 32 or 64; as rounded) as f32. fast then has two arguments
 * more, after xh: xs and xsh, the sums of the step's columns for input rows g and g + 8, 16-byte aligned. COLS is a
 * multiple of 256.
 *
 * Formats with a scale per group multiply codes (exact in bf16) and scale the accumulators: acc = {0} per group, then
 * total += scale[row] * acc + bias[row] * (sum of x over the group). */
#ifndef FA_CUDA_STREAM_CUH
#define FA_CUDA_STREAM_CUH

#include "backend/cuda/cu_wgmma.h"
#include "backend/cuda/digits.cuh"
#include "backend/cuda/route.cuh"

enum {
    CU_TILE = 8,  /* weight rows of a tile */
    CU_PARTS = 3, /* weights of a record */
    CU_FAST1 = 0, /* kinds of the kernel: bf16 input, one row */
    CU_FAST8,     /* up to 8 */
    CU_FAST16,    /* 9 to 16 rows */
    CU_EXACT1,    /* f32 input, one row */
    CU_EXACT16,
    CU_STREAM_KINDS
};

enum {
    CU_ROUTE_AT = 16,                                  /* bytes of shared memory in front of cu_stream_choose's */
    CU_STREAM_WARPS = 16,                              /* of a block, at most */
    CU_STREAM_SUMS = 2 * CU_WARP + 2 * CU_STREAM_WARPS /* floats at at_sum: see the kernel */
};

/* What becomes of a result v (with 1 / rms and bias) of input row m and weight row r. */
enum {
    CU_END_STORE, /* out[m, r] = v */
    CU_END_ADD,   /* out[m, r] += v */
    CU_END_GLU,   /* paired: out[m, r] = act(v of part 0) * v of part 1 */
    CU_END_GATE,  /* out[m, r] = act(work[m, r]) * v */
    CU_END_WORK,  /* work[m, r] = v */
    CU_END_POST,  /* the same; the block that finishes last does out += norm(work) */
    CU_END_HEADS, /* the same; the block that completes a head finishes it */
    CU_END_ROUTE, /* out[m, r] = v; the block that finishes last chooses experts by out */
    CU_END_ROTATE /* q, k, v without head norms: rotated and put where they belong at once; pairs lie within tiles */
};

/* A weight matrix by value; fields as in fa_weight. */
typedef struct cu_mat {
    const uint8_t *codes, *scales, *biases;
    int64_t row_bytes, scale_row_bytes;
    int rows, cols;
    int bits, group, scale_dtype, fmt;
} cu_mat;

typedef struct cu_part {
    cu_mat w;
    const float *bias;
    int tile;  /* its first tile in the record; INT_MAX: no such part */
    int col;   /* its first column in out and work */
    int pairs; /* CU_END_ROTATE: tiles are rows 4 u .. + 3 and pairs + 4 u .. + 3 of a head, as far as it goes; else 0
                */
} cu_part;

typedef struct cu_stream_args {
    cu_part part[CU_PARTS];
    int paired;                        /* a tile means the same rows of parts 0 and 1 */
    int wide;                          /* stream_int.cu's kernel, which takes two tiles at a time */
    int n_tile, M, K;                  /* K columns; M input rows */
    int n_step, n_chunk;               /* steps of K; chunks of the input, */
    int chunk;                         /* in steps of a chunk */
    int n_seg, seg;                    /* see cu_stream_stage */
    int ldx;                           /* elements from one input row to the next in shared memory */
    int at_x, at_red, at_sum, at_keep; /* places in shared memory, bytes: see stage, reduce */
    const void *x;                     /* [M, K] f32 or bf16 */
    int x_type, vec;                   /* vec: rows of x and norm.w may be read 16 bytes at a time */
    int bulk;                          /* rows come by the copy engine: see cu_stream_bulk */
    cu_norm norm;                      /* of x, which is f32 then */
    int end, act;
    void *out;
    int out_type; /* BF16 is possible where act is */
    int ld;       /* columns of out and work */
    float *work;
    uint32_t *counter;
    cu_norm post;
    cu_qkv_finish heads;
    float *normed;    /* where norm(x) goes as well, [M, K], or NULL */
    cu_digits digits; /* ... and as digits */
    cu_route route;
} cu_stream_args;

typedef void cu_stream_fn(const cu_stream_args a);

/* moe_few.cuh: the kernels for experts in this format; NULL: it has none. */
enum { CU_MOE_KERNELS = 4 };
struct cu_moe_few_args;
typedef void cu_moe_few_fn(const struct cu_moe_few_args a);

typedef struct cu_stream_fmt {
    const char *name;
    int cols, slot, warps, ring;
    int line; /* elements that a step takes in a 16-bit input row */
    int wide; /* fast kernels take two tiles at a time; of experts: they are those of moe_int.cu */
    cu_stream_fn *kernel[CU_STREAM_KINDS];
    cu_moe_few_fn *moe[CU_MOE_KERNELS];
} cu_stream_fmt;

/* The kernels for w; NULL: none. Each file with formats has such a function; stream.cu asks them in turn. */
const cu_stream_fmt *cu_stream_find_quant(const fa_weight *w); /* stream_quant.cu */
const cu_stream_fmt *cu_stream_find_int(const fa_weight *w);   /* stream_int.cu */
/* The same for experts: a row whose `moe` is there. */
const cu_stream_fmt *cu_stream_find_moe(const fa_weight *w);   /* stream.cu */
const cu_stream_fmt *cu_stream_find_codes(const fa_weight *w); /* moe_int.cu: of what stream_int.cu streams */
const cu_stream_fmt *cu_stream_find_any(const fa_weight *w);   /* stream_quant.cu: affine of any group, slower */
cu_mat cu_mat_of(const fa_weight *w);                          /* stream.cu */
/* moe.cu: where the kernels of a MOE record look for its input as digits; to NULL: they do not. */
cu_digits cu_moe_digits(const fa_cuda *cu, const fa_rec *r);

static constexpr int cu_stream_line(int cols, int codes) { return codes ? cols + cols / codes * 2 : cols; }

#define CU_STREAM_FMT(text, F)                                                                                         \
    {                                                                                                                  \
        text, F::COLS, F::SLOT, F::WARPS, F::RING, cu_stream_line(F::COLS, F::CODES), 0,                               \
            {cu_stream_kernel<F, CU_FAST8>, cu_stream_kernel<F, CU_FAST8>, cu_stream_kernel<F, CU_FAST16>,             \
             cu_stream_kernel<F, CU_EXACT1>, cu_stream_kernel<F, CU_EXACT16>},                                         \
            CU_MOE_KERNELS_OF(F, F)                                                                                    \
    }

/* In the order of moe_few.cuh; exact: the format whose kernels exact mode takes. */
#define CU_MOE_KERNELS_OF(exact, ...)                                                                                  \
    { cu_moe_up<__VA_ARGS__, false>, cu_moe_down<__VA_ARGS__, false>, cu_moe_up<exact, true>, cu_moe_down<exact, true> }

/* Rows row .. row + 3 and row + half .. + 3. */
typedef struct cu_tile {
    int row, half;
} cu_tile;

CU_DEV int cu_tile_row(cu_tile t, int i) { return t.row + (i & 3) + (i >> 2) * t.half; }

/* ---- help for formats ---- */

#define CU_FMT static __device__ __forceinline__ /* a member of a format */

/* acc += 8 columns of every lane: b8 holds 8 bf16 of weight row g, x and xh point to the same columns of input rows g
 * and g + 8. The columns of the four lanes of a g must be different ones; which, is up to the caller. */
template <bool HI> CU_DEV void cu_mma8(uint4 b8, const uint16_t *x, const uint16_t *xh, float acc[4]) {
    const uint4 lo = *(const uint4 *)x, hi = HI ? *(const uint4 *)xh : make_uint4(0, 0, 0, 0);
    const uint32_t a0[4] = {lo.x, hi.x, lo.y, hi.y}, a1[4] = {lo.z, hi.z, lo.w, hi.w};
    const uint32_t b0[2] = {b8.x, b8.y}, b1[2] = {b8.z, b8.w};
    cu_mma_bf16(acc, a0, b0);
    cu_mma_bf16(acc, a1, b1);
}

/* v = hi + lo in bf16, as two products: f16 has no bit that is lost (11 = 8 + 3), f32 keeps 16 of 24. */
template <bool HI> CU_DEV void cu_mma_split(const float v[8], const uint16_t *x, const uint16_t *xh, float acc[2][4]) {
    uint32_t hi[4], lo[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        hi[i] = cu_to_bf16x2(v[2 * i], v[2 * i + 1]);
        lo[i] = cu_to_bf16x2(v[2 * i] - cu_bf16_lo(hi[i]), v[2 * i + 1] - cu_bf16_hi(hi[i]));
    }
    cu_mma8<HI>(make_uint4(hi[0], hi[1], hi[2], hi[3]), x, xh, acc[0]);
    cu_mma8<HI>(make_uint4(lo[0], lo[1], lo[2], lo[3]), x, xh, acc[1]);
}

/* acc[m] += v . x[m] for 8 columns; x: row 0 at the first of them, 16-byte aligned. */
template <int R> CU_DEV void cu_dot8(const float v[8], const float *x, int ldx, int M, float *acc) {
#pragma unroll
    for (int m = 0; m < R; m++) {
        if (m >= M) break;
        const float4 p = *(const float4 *)(x + m * ldx), q = *(const float4 *)(x + m * ldx + 4);
        float s = acc[m];
        s = fmaf(v[0], p.x, s), s = fmaf(v[1], p.y, s), s = fmaf(v[2], p.z, s), s = fmaf(v[3], p.w, s);
        s = fmaf(v[4], q.x, s), s = fmaf(v[5], q.y, s), s = fmaf(v[6], q.z, s), s = fmaf(v[7], q.w, s);
        acc[m] = s;
    }
}

/* ---- the way of a block through its tiles ---- */

/* Job j of a block is its j-th tile, or with paired parts the half j % 2 of tile j / 2. */
struct cu_job {
    int part;
    cu_tile tile;
};

CU_DEV int cu_stream_tiles(const cu_stream_args &a) {
    return (a.n_tile - (int)blockIdx.x + (int)gridDim.x - 1) / (int)gridDim.x;
}

/* `tile`, or with paired parts its half. */
CU_DEV cu_job cu_stream_at(const cu_stream_args &a, int tile, int half) {
    cu_job job;
    job.tile.half = 4;
    if (a.paired) {
        job.part = half;
        job.tile.row = tile * CU_TILE;
        return job;
    }
    job.part = (tile >= a.part[1].tile) + (tile >= a.part[2].tile);
    const cu_part &p = a.part[job.part];
    job.tile.row = (tile - p.tile) * CU_TILE;
    if (p.pairs) {
        const int in = job.tile.row % a.heads.dim; /* rows from 2 pairs on are not rotated */
        if (in < 2 * p.pairs) job.tile.row -= in / 2, job.tile.half = p.pairs;
    }
    return job;
}

CU_DEV cu_job cu_stream_job(const cu_stream_args &a, int j) {
    return cu_stream_at(a, (int)blockIdx.x + (a.paired ? j >> 1 : j) * (int)gridDim.x, j & 1);
}

/* Where a warp's loads are: the same steps in the same order as its arithmetic, F::RING - 1 ahead. */
template <class F> struct cu_feed {
    typename F::cursor cur;
    int chunk, job, part, step, end, n_job; /* end: of the chunk's steps; chunk == a.n_chunk: nothing is left */

    __device__ __forceinline__ void tile(const cu_stream_args &a, int warp, int lane) {
        const cu_job j = cu_stream_job(a, job);
        part = j.part;
        cur = F::at(a.part[part].w, j.tile, lane);
        step = chunk * a.chunk + warp;
        end = min((chunk + 1) * a.chunk, a.n_step);
    }
    __device__ __forceinline__ void skip(const cu_stream_args &a, int warp, int lane) {
        while (step >= end) {
            if (++job == n_job) {
                job = 0;
                if (++chunk >= a.n_chunk) return;
            }
            tile(a, warp, lane);
        }
    }
    __device__ __forceinline__ void begin(const cu_stream_args &a, int warp, int lane, int n) {
        chunk = job = 0;
        n_job = n;
        tile(a, warp, lane);
        skip(a, warp, lane);
    }
    /* Starts the next step's loads; a group of its own even where nothing is left, so that groups can be counted. */
    __device__ __forceinline__ void issue(const cu_stream_args &a, uint8_t *slot, int warp, int lane) {
        if (chunk < a.n_chunk) {
            F::fetch(slot, a.part[part].w, cur, step, lane);
            step += (int)blockDim.x / CU_WARP;
            skip(a, warp, lane);
        }
        cu_cp_commit();
    }
};

/* ---- input rows ---- */

CU_DEV void cu_stream_put4(uint16_t *to, float4 v) {
    *(uint2 *)to = make_uint2(cu_to_bf16x2(v.x, v.y), cu_to_bf16x2(v.z, v.w));
}
CU_DEV void cu_stream_put4(float *to, float4 v) { *(float4 *)to = v; }

/* Rows are shared out among the warps: a warp takes whole rows, or where there are fewer rows than warps one of n_seg
 * segments of `seg` columns (of a chunk; the last one may be shorter). Item i of M * n_seg is segment i % n_seg of row
 * i / n_seg. One row is the common case, and divisions are what a step of few instructions would wait for. */

/* A warp puts columns [from, to) of row m in shared memory, zeros from K on; returns the lane's sum of squares. All
 * loads of a turn start before the first is used: the time until they arrive is most of what this takes. */
template <int TYPE, class T> CU_DEV float cu_stream_row(const cu_stream_args &a, int m, int from, int to, T *xs) {
    enum { TURN = 4 };
    const uint8_t *x = (const uint8_t *)a.x + (int64_t)m * a.K * (TYPE == FA_F32 ? 4 : 2);
    const float *w = a.norm.w;
    float s = 0;
    for (int k0 = from + (int)threadIdx.x % CU_WARP * 4; k0 < to; k0 += CU_WARP * 4 * TURN) {
        float4 v[TURN], g[TURN];
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const int k = k0 + u * CU_WARP * 4;
            v[u] = make_float4(0, 0, 0, 0);
            if (k >= to || k >= a.K) continue;
            if (TYPE == FA_F32) {
                v[u] = __ldcg((const float4 *)(x + (int64_t)k * 4));
            } else {
                const uint2 b = __ldcg((const uint2 *)(x + (int64_t)k * 2));
                v[u] = make_float4(cu_bf16_lo(b.x), cu_bf16_hi(b.x), cu_bf16_lo(b.y), cu_bf16_hi(b.y));
            }
        }
        if (TYPE == FA_F32 && w) {
#pragma unroll
            for (int u = 0; u < TURN; u++) {
                const int k = k0 + u * CU_WARP * 4;
                g[u] = make_float4(0, 0, 0, 0);
                if (k < to && k < a.K) g[u] = *(const float4 *)(w + k);
            }
        }
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const int k = k0 + u * CU_WARP * 4;
            float4 p = v[u];
            if (TYPE == FA_F32) s = fmaf(p.x, p.x, fmaf(p.y, p.y, fmaf(p.z, p.z, fmaf(p.w, p.w, s))));
            if (TYPE == FA_F32 && w) {
                const float o = a.norm.offset;
                p = make_float4(p.x * (g[u].x + o), p.y * (g[u].y + o), p.z * (g[u].z + o), p.w * (g[u].w + o));
            }
            if (k < to) cu_stream_put4(xs + (k - from), p);
        }
    }
    return s;
}
/* The same for bf16 that stays bf16. */
CU_DEV void cu_stream_copy(const cu_stream_args &a, int m, int from, int to, uint16_t *xs) {
    enum { TURN = 8 };
    const uint16_t *x = (const uint16_t *)a.x + (int64_t)m * a.K;
    for (int k0 = from + (int)threadIdx.x % CU_WARP * 8; k0 < to; k0 += CU_WARP * 8 * TURN) {
        uint4 v[TURN];
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const int k = k0 + u * CU_WARP * 8;
            v[u] = make_uint4(0, 0, 0, 0);
            if (k < to && k < a.K) v[u] = __ldcg((const uint4 *)(x + k));
        }
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const int k = k0 + u * CU_WARP * 8;
            if (k < to) *(uint4 *)(xs + (k - from)) = v[u];
        }
    }
}
/* The same for rows that are not aligned to 16 bytes. */
template <class T> CU_DEV float cu_stream_row_any(const cu_stream_args &a, int m, int from, int to, T *xs) {
    float s = 0;
#pragma unroll 1
    for (int k = from + (int)threadIdx.x % CU_WARP; k < to; k += CU_WARP) {
        float v = k < a.K ? cu_get(a.x, a.x_type, (int64_t)m * a.K + k) : 0.0f;
        s = fmaf(v, v, s);
        if (a.norm.w && k < a.K) v *= a.norm.w[k] + a.norm.offset;
        if constexpr (sizeof(T) == 4)
            xs[k - from] = v;
        else
            xs[k - from] = cu_to_bf16(v);
    }
    return s;
}

/* Chunk c of the input to xs [M, ldx]; sum [M * n_seg] gathers the squares. */
template <class T> CU_DEV void cu_stream_stage(const cu_stream_args &a, int cols, int c, T *xs, float *sum) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int k0 = c * a.chunk * cols, k1 = min((c + 1) * a.chunk, a.n_step) * cols;
#pragma unroll 1
    for (int i = warp; i < a.M * a.n_seg; i += n_warp) {
        const int m = a.M == 1 ? 0 : i / a.n_seg, at = (i - m * a.n_seg) * a.seg;
        const int from = min(k0 + at, k1), to = min(from + a.seg, k1);
        T *to_x = xs + m * a.ldx + at;
        float s = 0;
        if (!a.vec)
            s = cu_stream_row_any(a, m, from, to, to_x);
        else if (a.x_type == FA_F32)
            s = cu_stream_row<FA_F32>(a, m, from, to, to_x);
        else if constexpr (sizeof(T) == 2)
            cu_stream_copy(a, m, from, to, to_x);
        else
            s = cu_stream_row<FA_BF16>(a, m, from, to, to_x);
        if (a.norm.on) {
            s = cu_warp_sum(s);
            if (lane == 0) sum[i] = c ? sum[i] + s : s;
        }
    }
}

/* The copy engine's way, in fast mode: `ask` begins copies, `take` waits for them. Rows of bf16 go to their place. One
 * row of f32 (in one chunk) goes to the last slots of the warps' rings, where nothing is on its way to yet, a segment
 * to each; the norm's weight, at most 4 CU_BULK_TURN columns a lane, is in registers since before the rings began.
 *
 * Copies wait behind all that was asked of memory before, and full rings ask for 13 MB, four microseconds of it. So the
 * rings begin with half of their slots and ask for the rest between `ask` and `take`. */
enum { CU_BULK_TURN = 4 };

struct cu_stream_bulk {
    uint32_t bar; /* the warp's barrier */
    float4 g[CU_BULK_TURN];

    CU_DEV int column(int u) { return u * CU_WARP * 4 + (int)threadIdx.x % CU_WARP * 4; } /* of the segment */

    __device__ __forceinline__ void begin(const cu_stream_args &a, float *sum) {
#if CU_HAS_BULK
        const int warp = (int)threadIdx.x / CU_WARP;
        bar = cu_smem_addr(sum + 2 * CU_WARP + 2 * warp);
        if (!a.bulk) return;
        if (threadIdx.x % CU_WARP == 0) {
            cu_mbar_init(bar, 1);
            cu_proxy_fence();
        }
        __syncwarp();
        const int from = warp * a.seg, to = min(from + a.seg, a.K);
#pragma unroll
        for (int u = 0; u < CU_BULK_TURN; u++) {
            g[u] = make_float4(1, 1, 1, 1);
            if (a.norm.w && from + column(u) < to) g[u] = *(const float4 *)(a.norm.w + from + column(u));
        }
#endif
    }

    /* Copies of chunk c. land: room for the warp's segment of f32. */
    __device__ __forceinline__ void ask(const cu_stream_args &a, int cols, int c, uint16_t *xs, uint8_t *land) const {
#if CU_HAS_BULK
        const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP;
        const int n_warp = (int)blockDim.x / CU_WARP, n_item = a.M * a.n_seg, shift = a.x_type == FA_F32 ? 2 : 1;
        const int k0 = c * a.chunk * cols, k1 = min((c + 1) * a.chunk, a.n_step) * cols;
        int bytes = 0;
#pragma unroll 1
        for (int i = warp; i < n_item; i += n_warp) { /* segments of rows */
            const int m = a.M == 1 ? 0 : i / a.n_seg, at = (i - m * a.n_seg) * a.seg, from = min(k0 + at, k1);
            const int to = min(from + a.seg, k1), n = max(min(to, a.K) - from, 0), size = n << shift;
            uint16_t *to_x = xs + m * a.ldx + at;
            if (n && lane == 0)
                cu_bulk_load(cu_smem_addr(shift == 2 ? land : (uint8_t *)to_x),
                             (const uint8_t *)a.x + (((int64_t)m * a.K + from) << shift), bar, size);
            bytes += size;
            for (int k = n + lane * 8; k < to - from; k += CU_WARP * 8) /* from column K on */
                *(uint4 *)(to_x + k) = make_uint4(0, 0, 0, 0);
        }
        if (lane == 0) cu_mbar_expect(bar, bytes);
        __syncwarp();
#endif
    }

    __device__ __forceinline__ void take(const cu_stream_args &a, int c, uint16_t *xs, float *sum,
                                         const uint8_t *land) const {
#if CU_HAS_BULK
        cu_mbar_wait(bar, c & 1);
        if (a.x_type != FA_F32) return;
        const int warp = (int)threadIdx.x / CU_WARP, from = warp * a.seg, n = min(a.seg, a.K - from);
        const float o = a.norm.w ? a.norm.offset : 0.0f;
        float s = 0;
#pragma unroll
        for (int u = 0; u < CU_BULK_TURN; u++) {
            const int k = column(u);
            if (k >= n) break;
            const float4 p = *(const float4 *)(land + 4 * k);
            s = fmaf(p.x, p.x, fmaf(p.y, p.y, fmaf(p.z, p.z, fmaf(p.w, p.w, s))));
            cu_stream_put4(xs + from + k,
                           make_float4(p.x * (g[u].x + o), p.y * (g[u].y + o), p.z * (g[u].z + o), p.w * (g[u].w + o)));
        }
        if (!a.norm.on) return;
        s = cu_warp_sum(s);
        if (threadIdx.x % CU_WARP == 0) sum[warp] = s;
#endif
    }
};

/* For formats of codes: the staged columns in their order, and the sums of each SUM of them. A thread takes 16 columns,
 * neighbours add up their sums; a row is a multiple of 256 columns, so none belongs to two rows. */
template <int SUM> CU_DEV float *cu_stream_sums(const cu_stream_args &a, int cols, uint16_t *xs, int m, int k) {
    return (float *)(xs + m * a.ldx + a.chunk * cols) + k / SUM;
}
template <int SUM> CU_DEV void cu_stream_codes(const cu_stream_args &a, int cols, int c, uint16_t *xs) {
    const int n = (min((c + 1) * a.chunk, a.n_step) - c * a.chunk) * cols / 16, all = a.M * n;
#pragma unroll 1
    for (int i0 = 0; i0 < all; i0 += (int)blockDim.x) {
        const int i = i0 + (int)threadIdx.x, m = a.M == 1 ? 0 : i / n, k = (i - m * n) * 16;
        float s = 0;
        if (i < all) {
            uint4 *p = (uint4 *)(xs + m * a.ldx + k);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint4 v = p[h];
                s += ((cu_bf16_lo(v.x) + cu_bf16_hi(v.x)) + (cu_bf16_lo(v.y) + cu_bf16_hi(v.y))) +
                     ((cu_bf16_lo(v.z) + cu_bf16_hi(v.z)) + (cu_bf16_lo(v.w) + cu_bf16_hi(v.w)));
                p[h] = make_uint4(__byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632),
                                  __byte_perm(v.y, v.w, 0x5410), __byte_perm(v.y, v.w, 0x7632));
            }
        }
#pragma unroll
        for (int d = 1; d < SUM / 16; d *= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
        if (i < all && k % SUM == 0) *cu_stream_sums<SUM>(a, cols, xs, m, k) = s;
    }
}

/* For sums that left the range of float: rare, so that its code stays out of the way. */
CU_COLD float cu_stream_rms_again(const float *x, int n, float eps) { return cu_warp_inv_rms(x, n, eps); }

/* rms [m] = 1 / rms of row m, from the sums of all chunks. */
CU_DEV void cu_stream_rms(const cu_stream_args &a, const float *sum, float *rms) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int n_seg = a.n_seg;
    for (int m = warp; m < a.M; m += n_warp) {
        const float s = cu_warp_sum(lane < n_seg ? sum[m * n_seg + lane] : 0.0f);
        bool wide;
        float r = cu_inv_rms(s, a.K, a.norm.eps, &wide);
        if (wide) r = cu_stream_rms_again((const float *)a.x + (int64_t)m * a.K, a.K, a.norm.eps);
        if (lane == 0) rms[m] = r;
    }
}

/* ---- results ---- */

/* What the end of a result needs besides it, loaded before the multiplications so that nothing waits for it then. */
typedef struct cu_ready {
    float bias, old;           /* old: of out, or the gate */
    float pair_bias, cos, sin; /* CU_END_ROTATE: v = v cos + (v of output o ^ flip) sin */
    int flip;                  /* 0: it has no pair */
    void *to;                  /* where it goes; NULL: nowhere */
} cu_ready;

/* For weight row `row` of part p, i-th of its tile, and input row m. */
CU_DEV void cu_stream_rotate(const cu_stream_args &a, const cu_part &p, cu_tile tile, int i, int m, cu_ready *r) {
    const cu_qkv_finish &f = a.heads;
    const int at = p.col + cu_tile_row(tile, i), head = at / f.dim, d = at % f.dim, np = f.table ? f.n_pair : 0;
    const bool query = head < f.n_q, value = head >= f.n_q + f.n_kv;
    r->cos = 1, r->sin = 0, r->flip = 0, r->pair_bias = 0;
    if (!value && d < 2 * np) {
        const int pair = f.interleaved ? d >> 1 : d < np ? d : d - np;
        const bool second = f.interleaved ? d & 1 : d >= np;
        const float *cs = f.table + (int64_t)m * 2 * np + pair;
        r->flip = f.interleaved ? 1 : 4;
        r->cos = cs[0];
        r->sin = second ? cs[np] : -cs[np];
        if (p.bias) r->pair_bias = p.bias[cu_tile_row(tile, i ^ r->flip)];
    }
    if (query) {
        r->to = (uint8_t *)f.q + ((((int64_t)m * f.n_q + head) * f.dim + d) << (f.q_type == FA_F32 ? 2 : 1));
    } else {
        r->to = cu_cache_at(f.cache, value ? f.cache.v : f.cache.k, m, (head - f.n_q) % f.n_kv);
        if (r->to) r->to = (uint8_t *)r->to + (d << (f.cache.type == FA_F32 ? 2 : 1));
    }
}

CU_DEV cu_ready cu_stream_ready(const cu_stream_args &a, const cu_part &p, cu_tile tile, int i, int m) {
    const int row = cu_tile_row(tile, i);
    const int64_t at = (int64_t)m * a.ld + p.col + row;
    cu_ready r = {0, 0, 0, 1, 0, 0, NULL};
    if (row >= p.w.rows) return r;
    if (p.bias) r.bias = p.bias[row];
    if (a.end == CU_END_ROTATE) {
        cu_stream_rotate(a, p, tile, i, m, &r);
    } else if (a.end == CU_END_GLU || a.end == CU_END_GATE) {
        r.to = (uint8_t *)a.out + (at << (a.out_type == FA_F32 ? 2 : 1));
        if (a.end == CU_END_GATE) r.old = __ldcg(a.work + at);
    } else {
        const bool out = a.end == CU_END_STORE || a.end == CU_END_ADD || a.end == CU_END_ROUTE;
        r.to = (out ? (float *)a.out : a.work) + at;
        if (a.end == CU_END_ADD) r.old = __ldcg((const float *)r.to);
    }
    return r;
}

/* keep: this output's place in shared memory for a gate that waits for its up part. */
CU_DEV void cu_stream_end(const cu_stream_args &a, const cu_ready &r, int part, bool query, float v, float *keep) {
    switch (a.end) {
    case CU_END_ADD: *(float *)r.to = r.old + v; break;
    case CU_END_GLU:
    case CU_END_GATE:
        if (a.end == CU_END_GLU && part == 0)
            *keep = v;
        else
            cu_put(r.to, a.out_type, 0, cu_act(a.act, a.end == CU_END_GLU ? *keep : r.old) * v);
        break;
    case CU_END_ROTATE: cu_put(r.to, query ? a.heads.q_type : a.heads.cache.type, 0, v); break;
    default: *(float *)r.to = v; break;
    }
}

/* out += norm(work), by one block after all others are done. sum [M * n_seg]. */
CU_DEV void cu_stream_post(const cu_stream_args &a, float *sum) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int n_seg = a.n_seg, per = (a.ld + n_seg - 1) / n_seg;
    for (int i = warp; i < a.M * n_seg; i += n_warp) {
        const float *y = a.work + (int64_t)(i / n_seg) * a.ld;
        const int from = i % n_seg * per, to = min(from + per, a.ld);
        float s = 0;
#pragma unroll 8
        for (int k = from + lane; k < to; k += CU_WARP) {
            const float v = __ldcg(y + k);
            s = fmaf(v, v, s);
        }
        s = cu_warp_sum(s);
        if (lane == 0) sum[i] = s;
    }
    __syncthreads();
    for (int i = warp; i < a.M * n_seg; i += n_warp) {
        const int m = i / n_seg, from = i % n_seg * per, to = min(from + per, a.ld);
        const float *y = a.work + (int64_t)m * a.ld;
        float *h = (float *)a.out + (int64_t)m * a.ld;
        bool wide;
        float r = cu_inv_rms(cu_warp_sum(lane < n_seg ? sum[m * n_seg + lane] : 0.0f), a.ld, a.post.eps, &wide);
        if (wide) r = cu_stream_rms_again(y, a.ld, a.post.eps);
#pragma unroll 4
        for (int k = from + lane; k < to; k += CU_WARP) {
            const float v = __ldcg(y + k) * r;
            h[k] += a.post.w ? v * (a.post.w[k] + a.post.offset) : v;
        }
    }
}

/* Tells the heads that the tiles of this block are part of that they are there, and finishes those that are complete.
 * list: shared, n_q + 2 n_kv integers and one before them. */
CU_DEV void cu_stream_heads(const cu_stream_args &a, int *list) {
    const int warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP, dim = a.heads.dim;
    int *n_list = list, *head = list + 1;
    if (threadIdx.x == 0) *n_list = 0;
    __syncthreads();
    for (int t = (int)threadIdx.x;; t += (int)blockDim.x) {
        const int tile =
            a.wide ? 2 * ((int)blockIdx.x + (t >> 1) * (int)gridDim.x) + (t & 1) : (int)blockIdx.x + t * (int)gridDim.x;
        if (tile >= a.n_tile) break;
        const cu_job j = cu_stream_at(a, tile, 0);
        const cu_part &p = a.part[j.part];
        const int last = min(j.tile.row + CU_TILE, p.w.rows) - 1;
        for (int h = j.tile.row / dim; h <= last / dim; h++) { /* heads of this part */
            const int tiles = ((h + 1) * dim - 1) / CU_TILE - h * dim / CU_TILE + 1, all = p.col / dim + h;
            __threadfence(); /* the block's results before its count: a fence by all threads takes longer */
            if (atomicAdd(a.counter + all, 1u) + 1 != (uint32_t)tiles) continue;
            __threadfence(); /* what the other blocks wrote is read after their counts */
            a.counter[all] = 0;
            head[atomicAdd(n_list, 1)] = all;
        }
    }
    __syncthreads();
    const int n = *n_list;
    for (int i = warp; i < n * a.M; i += n_warp) {
        const int h = head[i / a.M], m = i % a.M;
        cu_warp_finish_head(a.heads, m, h, a.work + (int64_t)m * a.ld + (int64_t)h * dim);
    }
}

/* This block's share of norm(x). The first warp, which may still have chosen experts, comes last; so do the first
 * blocks, which may have a tile more than others. */
CU_COLD void cu_stream_put_norm(const cu_stream_args &a, const float *rms) {
    const int who = (int)threadIdx.x - CU_WARP, thread = who < 0 ? who + (int)blockDim.x : who;
    const int block = (int)(gridDim.x - 1 - blockIdx.x);
    const float o = a.norm.offset;
    if (!a.digits.to) {
        const int64_t all = (int64_t)a.M * a.K;
        for (int64_t i = (int64_t)block * blockDim.x + thread; i < all; i += (int64_t)gridDim.x * blockDim.x) {
            const int m = (int)(i / a.K), k = (int)(i % a.K);
            const float v = __ldcg((const float *)a.x + i) * rms[m];
            a.normed[i] = a.norm.w ? v * (a.norm.w[k] + o) : v;
        }
        return;
    }
    const int per = a.digits.cols / 16, all = a.M * per;
    for (int i0 = block * (int)blockDim.x; i0 < all; i0 += (int)(gridDim.x * blockDim.x)) {
        const int i = min(i0 + thread, all - 1), m = i / per, k = i % per * 16;
        const bool there = i0 + thread < all;
        float v[16] = {};
        for (int j = 0; j < 16 && k < a.K; j += 4) {
            const float4 x = __ldcg((const float4 *)((const float *)a.x + (int64_t)m * a.K + k + j));
            float4 w = make_float4(1, 1, 1, 1);
            if (a.norm.w) w = *(const float4 *)(a.norm.w + k + j), w = make_float4(w.x + o, w.y + o, w.z + o, w.w + o);
            v[j] = x.x * rms[m] * w.x, v[j + 1] = x.y * rms[m] * w.y;
            v[j + 2] = x.z * rms[m] * w.z, v[j + 3] = x.w * rms[m] * w.w;
            if (there)
                *(float4 *)(a.normed + (int64_t)m * a.K + k + j) = make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]);
        }
        cu_put_digits(a.digits, m, k, v, there);
    }
}
/* CU_END_ROUTE, what the last block does. mem: cu_route_floats for each warp. */
CU_COLD void cu_stream_choose(const cu_stream_args &a, float *mem) {
    const int warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const cu_route route = a.route; /* read once: behind a pointer it would be read again after every store */
    mem += warp * cu_route_floats(route.n_expert, route.n_used, route.n_group);
    for (int m = warp; m < a.M; m += n_warp) {
        cu_warp_route(route, m, mem);
        __syncwarp();
    }
}

/* Is this the last block of the grid? What all blocks wrote before can be read then. flag: shared. */
CU_DEV bool cu_stream_last(const cu_stream_args &a, int *flag) {
    if (threadIdx.x == 0) {
        __threadfence(); /* the block's results before its count: a fence by all threads takes longer */
        *flag = atomicAdd(a.counter, 1u) + 1 == gridDim.x;
        if (*flag) *a.counter = 0;
        __threadfence();
    }
    __syncthreads();
    return *flag != 0;
}

/* What follows when all of a block's results are there; smem: its shared memory from the beginning. */
CU_DEV void cu_stream_after(const cu_stream_args &a, uint8_t *smem, float *sum, const float *rms) {
    const bool counts = a.end == CU_END_POST || a.end == CU_END_HEADS || a.end == CU_END_ROUTE;
    if (counts) __syncthreads(); /* this block's results before its counts */
    if (a.end == CU_END_HEADS)
        cu_stream_heads(a, (int *)smem);
    else if (counts && cu_stream_last(a, (int *)smem)) {
        if (a.end == CU_END_POST)
            cu_stream_post(a, sum);
        else
            cu_stream_choose(a, (float *)(smem + CU_ROUTE_AT));
    }
    if (a.normed) cu_stream_put_norm(a, rms);
}

/* ---- the kernel ---- */

/* Shared memory: the rings, at_x the input, at_red [2][warps][rows * 8] partial sums, at_sum [32] sums
 * of squares, [16] 1 / rms, 16 for stream_int.cu, barriers of the warps; at_keep [jobs or 1][rows * 8] sums of earlier
 * chunks and gates that wait. */
template <class F, int KIND>
__global__ void __launch_bounds__(F::WARPS *CU_WARP, 2) cu_stream_kernel(const __grid_constant__ cu_stream_args a) {
    constexpr bool FAST = KIND == CU_FAST8 || KIND == CU_FAST16, HI = KIND == CU_FAST16;
    constexpr int R = KIND == CU_FAST8 ? 8 : KIND == CU_EXACT1 ? 1 : 16, N_OUT = R * CU_TILE;
    CU_DYN_SMEM(smem);
    cu_pdl_launch(); /* its blocks come when these go: nothing is gained by waiting */
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int n_tile = cu_stream_tiles(a), n_job = a.paired ? 2 * n_tile : n_tile;
    uint8_t *ring = smem + warp * F::RING * F::SLOT;
    uint16_t *xb = (uint16_t *)(smem + a.at_x);
    float *xf = (float *)(smem + a.at_x), *red = (float *)(smem + a.at_red), *sum = (float *)(smem + a.at_sum),
          *rms = sum + CU_WARP, *keep = (float *)(smem + a.at_keep);

    cu_stream_bulk bulk;
    if (FAST) bulk.begin(a, sum);
    cu_feed<F> feed;
    feed.begin(a, warp, lane, n_job);
    int asked = 0; /* steps, till the ring is full for the first time */
    const int early = FAST && a.bulk ? F::RING / 2 : F::RING - 1;
    for (; asked < early; asked++) feed.issue(a, ring + asked * F::SLOT, warp, lane);
    if (a.norm.w && !a.bulk) /* a line of it for each thread, so that it waits in the second-level cache */
        for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i * 32 < a.K; i += (int)(gridDim.x * blockDim.x))
            cu_prefetch_l2(a.norm.w + i * 32);
    cu_pdl_wait();

    int slot = 0, turn = 0; /* the ring's next slot to multiply; which half of red */
    for (int c = 0; c < a.n_chunk; c++) {
        uint8_t *land = ring + (F::RING - 1) * F::SLOT;
        if (FAST && a.bulk) bulk.ask(a, F::COLS, c, xb, land);
        for (; asked < F::RING - 1; asked++) feed.issue(a, ring + asked * F::SLOT, warp, lane);
        if (FAST && a.bulk)
            bulk.take(a, c, xb, sum, land);
        else if constexpr (FAST)
            cu_stream_stage(a, F::COLS, c, xb, sum);
        else
            cu_stream_stage(a, F::COLS, c, xf, sum);
        __syncthreads();
        if constexpr (FAST && F::CODES != 0) {
            cu_stream_codes<F::CODES>(a, F::COLS, c, xb);
            __syncthreads();
        }
        const bool last = c == a.n_chunk - 1;
        if (last && a.norm.on) cu_stream_rms(a, sum, rms); /* read after the barrier of the first tile */
        const int end = min((c + 1) * a.chunk, a.n_step);
        int first = 0; /* the warp that takes the end of the tile */
        for (int j = 0; j < n_job; j++) {
            const cu_job job = cu_stream_job(a, j);
            const cu_part &p = a.part[job.part];
            /* this thread's output, if it has one; the warps take turns with the ends of tiles, so that none falls
             * behind, and a tile's is always the same one's */
            const int who = (int)threadIdx.x - first * CU_WARP, o = who < 0 ? who + (int)blockDim.x : who;
            const int out_m = o / CU_TILE, out_i = o % CU_TILE;
            cu_ready ready;
            ready.to = NULL;
            if (last && out_m < a.M) ready = cu_stream_ready(a, p, job.tile, out_i, out_m);
            float acc[FAST ? 8 : R] = {};
            for (int s = c * a.chunk + warp; s < end; s += n_warp) {
                cu_cp_wait<F::RING - 2>();
                __syncwarp(); /* the slot's loads are there for all lanes, and the slot before is no longer read */
                feed.issue(a, ring + (slot ? slot - 1 : F::RING - 1) * F::SLOT, warp, lane);
                const int k = (s - c * a.chunk) * F::COLS;
                if constexpr (FAST) {
                    const int g = lane / 4;
                    const uint16_t *x = xb + min(g, a.M - 1) * a.ldx + k, *xh = xb + min(g + 8, a.M - 1) * a.ldx + k;
                    if constexpr (F::CODES != 0) {
                        const float *xs = cu_stream_sums<F::CODES>(a, F::COLS, xb, min(g, a.M - 1), k);
                        const float *xsh = cu_stream_sums<F::CODES>(a, F::COLS, xb, min(g + 8, a.M - 1), k);
                        F::template fast<HI>(ring + slot * F::SLOT, p.w, s, lane, x, xh, xs, xsh, (float(*)[4])acc);
                    } else {
                        F::template fast<HI>(ring + slot * F::SLOT, p.w, s, lane, x, xh, (float(*)[4])acc);
                    }
                } else {
                    F::template exact<R>(ring + slot * F::SLOT, p.w, s, lane, xf + k, a.ldx, R == 1 ? 1 : a.M, acc);
                }
                slot = slot + 1 == F::RING ? 0 : slot + 1;
            }
            float *mine = red + (turn * n_warp + warp) * N_OUT;
            if constexpr (FAST) {
                const int at = lane / 4 * CU_TILE + lane % 4 * 2;
                *(float2 *)(mine + at) = make_float2(acc[0] + acc[4], acc[1] + acc[5]);
                if (HI) *(float2 *)(mine + at + 8 * CU_TILE) = make_float2(acc[2] + acc[6], acc[3] + acc[7]);
            } else {
#pragma unroll
                for (int m = 0; m < R; m++) {
                    if (m >= a.M) break;
                    float v = acc[m];
                    v += __shfl_xor_sync(0xffffffffu, v, 1);
                    v += __shfl_xor_sync(0xffffffffu, v, 2);
                    if (lane % 4 == 0) mine[m * CU_TILE + lane / 4] = v;
                }
            }
            __syncthreads();
            if (out_m < a.M) {
                const float *kept = keep + (a.n_chunk > 1 ? j * N_OUT : 0);
                auto total = [&](int at) {
                    float v = c ? kept[at] : 0.0f;
                    for (int w = 0; w < n_warp; w++) v += red[(turn * n_warp + w) * N_OUT + at];
                    return v;
                };
                float v = total(o);
                if (!last) {
                    keep[j * N_OUT + o] = v;
                } else if (ready.to) {
                    const float scale = a.norm.on ? rms[out_m] : 1.0f;
                    v = v * scale + ready.bias;
                    if (a.end == CU_END_ROTATE && ready.flip)
                        v = v * ready.cos + (total(o ^ ready.flip) * scale + ready.pair_bias) * ready.sin;
                    /* a gate waits where its up part looks for it */
                    cu_stream_end(a, ready, job.part, p.col + job.tile.row < a.heads.n_q * a.heads.dim, v,
                                  keep + (a.n_chunk > 1 ? (j & ~1) * N_OUT : 0) + o);
                }
            }
            turn ^= 1;
            if (!a.paired || (j & 1)) first = first + 1 == n_warp ? 0 : first + 1;
        }
    }
    cu_stream_after(a, smem, sum, rms);
}

#endif
