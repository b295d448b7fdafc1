/* Linear records of a few to 64 input rows with quantized weights: y [M, N] = x [M, K] w [N, K]^T, each weight read
 * once. skinny.cu has the host's side and the preparation of x; many.cu what stands around the product.
 *
 * A block multiplies tiles of 128 weight rows: 8 warps with 16 rows each, which are the rows of cu_mma_bf16's operand
 * a; input rows are columns of b, 8 a product, NT products. Stages of F::cols columns of the weights (as stored), their
 * scales, x and its sums come by cp.async into a ring in shared memory. With paired parts a warp has 8 rows of the gate
 * (rows g of the product) and the same 8 of the up projection (rows g + 8).
 *
 * Arithmetic. Codes are multiplied, not values: 128 + code (up to 127) or code (8 bits) or the number itself (E2M1,
 * E4M3) are exact in bf16. Sums of a group of columns are exact but for f32, then total += s * sum + m * (sum of x over
 * the group), with m = min - 128 s. So only x is rounded, as in stream.cuh.
 *
 * Order of columns. Of 32 columns lane t of a quad has 8 t .. 8 t + 7 of a weight row, in the pairs (0, 4), (1, 5), (2,
 * 6), (3, 7): nibbles 4 apart stand 16 bits apart. x stands in that order, so the 16 bytes of lane t are its operands
 * of two products. Where a scale is for 16 columns (F::g16) lane t has columns 4 t .. 4 t + 3 of each 16 instead, in
 * their order.
 *
 * Who does what. The (tile, stage) units of a product, one tile after the other, are cut into equal runs, one a block.
 * A tile that several blocks have parts of is added up by the last of them to be done, in the order of the parts: the
 * same bits every time. */
#ifndef FA_CUDA_SKINNY_CUH
#define FA_CUDA_SKINNY_CUH

#include "backend/cuda/cu_rows.h"
#include "backend/cuda/dequant.cuh"
#include "backend/cuda/skinny.h"

enum {
    SK_THREADS = 256,
    SK_ROWS = 128,           /* of weights of a tile */
    SK_SMEM_TWO = 110 << 10, /* of a block where two share a multiprocessor */
    SK_SMEM_ONE = 220 << 10
};

typedef struct sk_part {
    cu_wmat w;
    const float *bias;
    int tile; /* its first tile; INT_MAX: no such part */
    int col;  /* its first column in out */
} sk_part;

typedef struct cu_skinny_args {
    sk_part part[CU_SKINNY_PARTS];
    int paired, n_tile, n_step, M;
    const uint16_t *x; /* [M, ldx] in order */
    int64_t ldx;
    const float *sums; /* [ldx / columns of a sum, 8 NT] */
    float *partial;    /* [2 * blocks][NT][threads] float4 */
    uint32_t *counter;
    int end, act;
    void *out;
    int out_type;
    int64_t ld;
} cu_skinny_args;

/* ---- formats ---- */

/* UNITS: times 32 columns that have one scale, 1 or 2; of F::g16 1. COLS: 128 or 256 columns of a stage; of blocks of
 * 256 columns 256. */
template <int KIND_, int UNITS_, int COLS_> struct sk_fmt {
    typedef cu_kind_info<KIND_> I;
    static constexpr int KIND = KIND_, UNITS = UNITS_, cols = COLS_ /* of a stage */;
    static constexpr bool is_f8 = KIND == CU_K_F8, is_mx = KIND == CU_K_MXFP4, is_nv = KIND == CU_K_NVFP4;
    static constexpr bool planar = I::bits != 0 || is_f8 || is_mx || is_nv;
    static constexpr bool g16 = I::group == 16 && (is_nv || !planar);
    static constexpr bool has_min = !is_f8 && !is_mx;
    static constexpr int planes = !planar ? 0 : I::bits ? 2 : 1;
    static constexpr int sum = g16 ? 16 : 32 * UNITS; /* columns of a sum */
    static constexpr int bits = I::bits ? I::bits : is_f8 ? 8 : 4;
    static constexpr int bytes = planar ? cols * bits / 8 : cols / (planar ? 1 : I::block) * I::block_bytes;
    static constexpr int align = bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : 2;
    static constexpr int pieces = (bytes + 16 - align + 15) / 16;             /* of 16 bytes, of a row of a stage */
    static constexpr int per = pieces % 8 == 0 ? 8 : pieces % 4 == 0 ? 4 : 2; /* threads that copy a row */
    /* rows that are read together meet no bank twice: 4 bytes a lane, 8 of 8-bit codes */
    static constexpr int pitch = I::bits == 8 || is_f8 ? pieces * 16 + 32 : pieces * 16 + (pieces % 2 ? 0 : 16);
    static constexpr int scale_bytes = !planar ? 0 : is_nv ? 32 : 16; /* of a row in a chunk */
    static_assert(planar ? cols / 32 / UNITS * (is_mx ? 1 : 4) <= scale_bytes || g16 || is_f8 : cols % I::block == 0,
                  "scales of a stage");
    static constexpr int room = scale_bytes ? scale_bytes : 1;
    static constexpr int steps = cols / 32 / UNITS;
    static constexpr int groups = g16 ? 2 : 1; /* scales of a step */
};

template <class F, int NT> struct sk_shape {
    static constexpr int x_pitch = F::cols * 2 + 64; /* 8 lanes of two rows of x meet no bank twice */
    static constexpr int at_x = SK_ROWS * F::pitch;
    static constexpr int at_sum = at_x + 8 * NT * x_pitch;
    static constexpr int stage = at_sum + F::cols / F::sum * 8 * NT * 4;
    static constexpr int chunk = SK_ROWS * F::planes * F::scale_bytes; /* as many as stages, behind these */
    static constexpr int fit2 = SK_SMEM_TWO / (stage + chunk), fit1 = SK_SMEM_ONE / (stage + chunk);
    static constexpr int blocks = fit2 >= 3 ? 2 : 1;
    static constexpr int stages = blocks == 2 ? (fit2 < 8 ? fit2 : 8) : fit1 < 6 ? fit1 : 6;
    static constexpr int smem = stages * (stage + chunk);
};

/* Four codes of bytes 2 i and on of c as operands, two a word: bytes lo and hi of the 8. */
CU_DEV uint32_t sk_pair(uint2 c, unsigned lo, unsigned hi) {
    return cu_and_or(__byte_perm(c.x, c.y, lo | hi << 8), 0x00FF00FFu, 0x43004300u);
}
/* Codes up to 255: 2^23 + code is a float. */
CU_DEV uint32_t sk_pair_wide(uint2 c, unsigned lo, unsigned hi) {
    const uint32_t a = lo < 4 ? c.x : c.y, b = hi < 4 ? c.x : c.y;
    const float f = __uint_as_float(__byte_perm(a, 0x4B000000u, 0x7440u | (lo & 3))) - 8388608.0f;
    const float h = __uint_as_float(__byte_perm(b, 0x4B000000u, 0x7440u | (hi & 3))) - 8388608.0f;
    return __byte_perm(__float_as_uint(f), __float_as_uint(h), 0x7632);
}

/* The operands of 8 columns from k on of a row, k the lane's: op [4]. Where a scale is for 16 columns: of 4 columns of
 * each of the two 16. */
template <class F> CU_DEV void sk_unpack(const uint8_t *row, int k, uint32_t op[4]) {
    constexpr int KIND = F::KIND;
    if constexpr (KIND == CU_K_A4) {
        const uint32_t u = *(const uint32_t *)(row + k / 2);
#pragma unroll
        for (int p = 0; p < 4; p++) op[p] = cu_and_or(u >> 4 * p, 0x000F000Fu, 0x43004300u);
    } else if constexpr (KIND == CU_K_A2) {
        const uint32_t v = cu_ld16(row + k / 4), u = v | v << 8;
#pragma unroll
        for (int p = 0; p < 4; p++) op[p] = cu_and_or(u >> 2 * p, 0x00030003u, 0x43004300u);
    } else if constexpr (KIND == CU_K_MXFP4) {
        const uint32_t u = *(const uint32_t *)(row + k / 2);
#pragma unroll
        for (int p = 0; p < 4; p++) op[p] = cu_e2m1_pair(u << (12 - 4 * p));
    } else if constexpr (KIND == CU_K_F8) {
        const uint2 c = *(const uint2 *)(row + k);
#pragma unroll
        for (int p = 0; p < 4; p++) op[p] = cu_to_bf16x2(cu_e4m3(c.x >> 8 * p & 255), cu_e4m3(c.y >> 8 * p & 255));
    } else if constexpr (F::g16) {
        const int lane = (int)threadIdx.x % CU_WARP, t = lane % 4;
        const uint2 c = cu_codes8<KIND>(row, k);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int from = (lane & ~3) + 2 * h + t / 2;
            const uint32_t a = __shfl_sync(0xffffffffu, c.x, from), b = __shfl_sync(0xffffffffu, c.y, from);
            const uint2 v = make_uint2(t & 1 ? b : a, 0);
            op[2 * h] = sk_pair(v, 0, 1), op[2 * h + 1] = sk_pair(v, 2, 3);
        }
    } else {
        const uint2 c = cu_codes8<KIND>(row, k);
#pragma unroll
        for (unsigned p = 0; p < 4; p++) {
            if constexpr (F::I::wide)
                op[p] = sk_pair_wide(c, p, p + 4);
            else
                op[p] = sk_pair(c, p, p + 4);
        }
    }
}

/* What the sum over operands (x) and the sum of x (y) are multiplied by, at column k of the stage. */
template <class F> CU_DEV float2 sk_scale(const cu_wrow &r, int k, int group_log, int scale_dtype) {
    if constexpr (F::is_mx) return make_float2(2.0f * cu_half_e8m0(r.scales[k >> 5]), 0);
    if constexpr (F::is_f8) return make_float2(cu_fp8_scale(r.scales, k >> group_log, scale_dtype), 0);
    const float2 v = cu_scale_min<F::KIND>(r, k, group_log, scale_dtype);
    return make_float2(v.x, F::I::wide ? v.y : fmaf(-128.0f, v.x, v.y));
}

/* ---- units ---- */

/* A unit: stage `step` of a tile. */
struct sk_unit {
    int tile, step;
    __device__ __forceinline__ void next(const cu_skinny_args &a) {
        if (++step == a.n_step) step = 0, tile++;
    }
};
/* The first unit of block b. */
CU_DEV int sk_first(const cu_skinny_args &a, int b) {
    return (int)((unsigned)(a.n_tile * a.n_step) * (unsigned)b / gridDim.x);
}
/* The block that has unit u. */
CU_DEV int sk_owner(const cu_skinny_args &a, int u) {
    return (int)(((unsigned)(u + 1) * gridDim.x - 1) / (unsigned)(a.n_tile * a.n_step));
}
CU_DEV int sk_part_of(const cu_skinny_args &a, int tile) { return (tile >= a.part[1].tile) + (tile >= a.part[2].tile); }

/* Row r of a tile: the part and its row there, which may be beyond the end. */
CU_DEV int sk_row(const cu_skinny_args &a, int tile, int r, int *part) {
    if (a.paired) {
        *part = r >> 3 & 1;
        return tile * (SK_ROWS / 2) + (r >> 4) * 8 + (r & 7);
    }
    *part = sk_part_of(a, tile);
    return (tile - a.part[*part].tile) * SK_ROWS + r;
}

/* ---- copies ---- */

/* Where a row's bytes of a stage begin, from the multiple of 16 that is copied. */
template <class F> CU_DEV int sk_skew(int step) { return F::align == 16 ? 0 : step * F::bytes & 15; }
template <class F> CU_DEV int sk_scale_at(const cu_skinny_args &a, int step) { /* byte in the row of scales */
    const int log = a.part[0].w.group_log, type = a.part[0].w.scale_dtype;
    const int size = type == FA_F32 ? 4 : F::is_nv || F::is_mx || F::is_f8 ? 1 : 2;
    return (step * F::cols >> log) * size;
}

/* Where a thread copies weights from: F::per threads share a row's pieces of 16 bytes, a thread has the rows that are
 * threads / F::per apart. Of scales it has one row, odd threads the biases. */
template <class F> struct sk_source {
    const uint8_t *codes, *scales;
    int row_bytes, scale_bytes;
    int left, gap; /* rows from this one to the end of the matrix, from one of the thread's rows to the next */

    __device__ __forceinline__ void begin(const cu_skinny_args &a, int tile) {
        int part;
        const int n = sk_row(a, tile, (int)threadIdx.x / F::per, &part);
        const cu_wmat &w = a.part[part].w;
        codes = w.codes + min(n, (int)w.rows - 1) * w.row_bytes;
        row_bytes = (int)w.row_bytes, left = (int)w.rows - n, gap = SK_THREADS / F::per / (a.paired ? 2 : 1);
        if (F::planes == 0) return;
        const int m = sk_row(a, tile, (int)threadIdx.x / 2, &part);
        const cu_wmat &v = a.part[part].w;
        scale_bytes = (int)v.scale_row_bytes;
        scales =
            (F::planes == 2 && (threadIdx.x & 1) ? v.biases : v.scales) + min(m, (int)v.rows - 1) * v.scale_row_bytes;
    }
    __device__ __forceinline__ void copy(int step, uint8_t *slot) const {
        const int r = (int)threadIdx.x / F::per, c0 = (int)threadIdx.x % F::per * 16;
        const int at = step * F::bytes - sk_skew<F>(step) + c0;
        uint8_t *to = slot + r * F::pitch + c0;
#pragma unroll
        for (int j = 0; j < F::per / 2; j++) {
            const uint8_t *from = codes + (int64_t)(j * gap) * row_bytes + at;
#pragma unroll
            for (int c = 0; c < F::pieces * 16; c += 16 * F::per) {
                if (F::pieces % F::per && c + c0 >= F::pieces * 16) break;
                const int n = j * gap < left ? row_bytes - at - c : 0;
                cu_cp_async(to + j * (SK_THREADS / F::per) * F::pitch + c, n > 0 ? from + c : codes,
                            n < 0    ? 0
                            : n < 16 ? n
                                     : 16);
            }
        }
    }
    /* A chunk of scales: `first` is the byte where it begins in the row. */
    __device__ __forceinline__ void copy_scales(int first, uint8_t *chunk) const {
        const int r = (int)threadIdx.x / 2, odd = (int)threadIdx.x % 2;
        if (odd >= F::planes) return;
        uint8_t *to = chunk + (odd * SK_ROWS + r) * F::scale_bytes;
#pragma unroll
        for (int i = 0; i < F::scale_bytes; i += 16) {
            const int n = scale_bytes - first - i;
            cu_cp_async(to + i, n > 0 ? scales + first + i : scales, n < 0 ? 0 : n < 16 ? n : 16);
        }
    }
};

/* The chunk of scales that a stage needs, in a ring of as many as there are stages: one chunk is for several stages
 * where 16 bytes of scales are for more columns than a stage has. */
template <class F, int STAGES> struct sk_chunk {
    int slot;
    __device__ __forceinline__ static bool begins(const cu_skinny_args &a, int step) {
        return sk_scale_at<F>(a, step) % F::room == 0 &&
               (step == 0 || sk_scale_at<F>(a, step - 1) != sk_scale_at<F>(a, step));
    }
    /* true: the stage is the first of the run, or of its chunk */
    __device__ __forceinline__ bool step_to(const cu_skinny_args &a, int step, bool first) {
        if (F::planes == 0 || !(first || begins(a, step))) return false;
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        return true;
    }
};

/* x and its sums. ASYNC: by cp.async. */
template <bool ASYNC> CU_DEV void sk_copy16(void *to, const void *from) {
    if (ASYNC)
        cu_cp_async(to, from);
    else
        *(uint4 *)to = __ldcg((const uint4 *)from);
}
template <class F, int NT, bool ASYNC> CU_DEV void sk_copy_x(const cu_skinny_args &a, int step, uint8_t *slot) {
    typedef sk_shape<F, NT> S;
    constexpr int per = F::cols / 8, sums = F::cols / F::sum * 2 * NT; /* pieces of 16 bytes */
    const int c = (int)threadIdx.x % per, s = (int)threadIdx.x;
    const uint16_t *from = a.x + step * F::cols + c * 8;
    for (int r = (int)threadIdx.x / per; r < a.M; r += SK_THREADS / per)
        sk_copy16<ASYNC>(slot + S::at_x + r * S::x_pitch + c * 16, from + r * a.ldx);
    static_assert(sums <= SK_THREADS, "sums of a stage");
    if (F::has_min && s < sums) sk_copy16<ASYNC>(slot + S::at_sum + s * 16, a.sums + ((int64_t)step * sums + s) * 4);
}

/* ---- products ---- */

template <class F, int NT>
CU_DEV void sk_multiply(const cu_skinny_args &a, int step, const uint8_t *slot, const uint8_t *chunk,
                        float (&acc)[NT][4]) {
    typedef sk_shape<F, NT> S;
    constexpr int U = F::UNITS, G = F::groups, PER = 2 * U / G; /* products of a scale */
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, g = lane / 4, t = lane % 4;
    const int group_log = a.part[0].w.group_log, type = a.part[0].w.scale_dtype;
    cu_wrow row[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int at = 16 * warp + 8 * r + g;
        row[r].codes = slot + at * F::pitch + sk_skew<F>(step);
        row[r].scales = chunk + at * F::scale_bytes + (F::planes ? sk_scale_at<F>(a, step) % F::room : 0);
        row[r].biases = row[r].scales + SK_ROWS * F::scale_bytes;
    }
    const uint8_t *x = slot + S::at_x + g * S::x_pitch + t * 16;
    const float *sum = (const float *)(slot + S::at_sum) + 2 * t;
#pragma unroll
    for (int st = 0; st < F::steps; st++) {
        uint32_t op[2 * U][4];
        float2 sc[G][2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int u = 0; u < U; u++) {
                uint32_t w[4];
                sk_unpack<F>(row[r].codes, 32 * (st * U + u) + 8 * t, w);
                op[2 * u][r] = w[0], op[2 * u][2 + r] = w[1];
                op[2 * u + 1][r] = w[2], op[2 * u + 1][2 + r] = w[3];
            }
#pragma unroll
            for (int i = 0; i < G; i++) sc[i][r] = sk_scale<F>(row[r], 32 * st * U + 16 * i, group_log, type);
        }
        constexpr int SIDE = NT < 4 ? NT : 4; /* products that do not wait for each other stand side by side */
#pragma unroll
        for (int n0 = 0; n0 < NT; n0 += SIDE) {
            uint32_t b[SIDE][2 * U][2];
#pragma unroll
            for (int n = 0; n < SIDE; n++) {
#pragma unroll
                for (int u = 0; u < U; u++) {
                    const uint4 v = *(const uint4 *)(x + 8 * (n0 + n) * S::x_pitch + (st * U + u) * 64);
                    b[n][2 * u][0] = v.x, b[n][2 * u][1] = v.y, b[n][2 * u + 1][0] = v.z, b[n][2 * u + 1][1] = v.w;
                }
            }
#pragma unroll
            for (int i = 0; i < G; i++) {
                float d[SIDE][4] = {};
#pragma unroll
                for (int k = 0; k < PER; k++) {
#pragma unroll
                    for (int n = 0; n < SIDE; n++) cu_mma_bf16(d[n], op[i * PER + k], b[n][i * PER + k]);
                }
#pragma unroll
                for (int n = 0; n < SIDE; n++) {
                    float2 q = make_float2(0, 0);
                    if constexpr (F::has_min) q = *(const float2 *)(sum + ((st * G + i) * NT + n0 + n) * 8);
#pragma unroll
                    for (int r = 0; r < 2; r++) {
                        const float2 s = sc[i][r];
                        float *to = acc[n0 + n] + 2 * r;
                        to[0] = fmaf(s.x, d[n][2 * r], F::has_min ? fmaf(s.y, q.x, to[0]) : to[0]);
                        to[1] = fmaf(s.x, d[n][2 * r + 1], F::has_min ? fmaf(s.y, q.y, to[1]) : to[1]);
                    }
                }
            }
        }
    }
}

/* ---- results ---- */

/* A tile that other blocks have parts of, too; from: this block's first step of it. true: this block has it all now. */
template <int NT> CU_DEV bool sk_gather(const cu_skinny_args &a, int tile, int from, float (&acc)[NT][4], int *flag) {
    const int first = sk_owner(a, tile * a.n_step), last = sk_owner(a, (tile + 1) * a.n_step - 1);
    if (first == last) return true;
    float4 *mem = (float4 *)a.partial + threadIdx.x;
    float4 *mine = mem + (int64_t)(2 * (int)blockIdx.x + (from == 0)) * NT * SK_THREADS;
#pragma unroll
    for (int n = 0; n < NT; n++) mine[n * SK_THREADS] = make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence(); /* the block's results before its count */
        *flag = atomicAdd(a.counter + tile, 1u) + 1 == (uint32_t)(last - first + 1);
        if (*flag) a.counter[tile] = 0;
        __threadfence();
    }
    __syncthreads();
    if (!*flag) return false;
#pragma unroll
    for (int n = 0; n < NT; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0;
    for (int b = first; b <= last; b++) {
        const float4 *part = mem + (int64_t)(2 * b + (b == first)) * NT * SK_THREADS;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const float4 v = __ldcg(part + n * SK_THREADS);
            acc[n][0] += v.x, acc[n][1] += v.y, acc[n][2] += v.z, acc[n][3] += v.w;
        }
    }
    return true;
}

/* acc[n][2 r + c]: row g + 8 r of the warp's 16, input row 8 n + 2 t + c. */
template <int NT> CU_DEV void sk_finish(const cu_skinny_args &a, int tile, const float (&acc)[NT][4]) {
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int part;
        const int row = sk_row(a, tile, 16 * warp + 8 * r + g, &part);
        const sk_part &p = a.part[part];
        if (row >= p.w.rows || (a.paired && r)) continue;
        const float bias = p.bias ? p.bias[row] : 0.0f;
        const float up_bias = a.paired && a.part[1].bias ? a.part[1].bias[row] : 0.0f;
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const int m = 8 * n + 2 * t + c;
                if (m >= a.M) continue;
                const int64_t at = m * a.ld + p.col + row;
                float v = acc[n][2 * r + c] + bias;
                if (a.paired)
                    cu_put(a.out, a.out_type, at, cu_act(a.act, v) * (acc[n][2 + c] + up_bias));
                else
                    ((float *)a.out)[at] = a.end == CU_SKINNY_ADD ? __ldcg((const float *)a.out + at) + v : v;
            }
        }
    }
}

/* ---- the kernel ---- */

template <class F, int NT>
static __global__ void __launch_bounds__(SK_THREADS, sk_shape<F, NT>::blocks)
    skinny_kernel(const __grid_constant__ cu_skinny_args a) {
    typedef sk_shape<F, NT> S;
    CU_DYN_SMEM(smem);
    __shared__ int flag;
    const int u0 = sk_first(a, (int)blockIdx.x), u1 = sk_first(a, (int)blockIdx.x + 1);
    sk_unit put = {u0 / a.n_step, u0 % a.n_step}, at = put;
    sk_source<F> source;
    int next = u0, from = at.step;
    source.begin(a, min(put.tile, a.n_tile - 1));
    /* the next unit's weights; behind them others of a new tile are looked for */
    uint8_t *chunks = smem + S::stages * S::stage;
    sk_chunk<F, S::stages> put_chunk = {S::stages - 1}, at_chunk = put_chunk;
    auto fetch = [&](uint8_t *to) {
        source.copy(put.step, to);
        if (put_chunk.step_to(a, put.step, next == u0))
            source.copy_scales(sk_scale_at<F>(a, put.step) / F::room * F::room, chunks + put_chunk.slot * S::chunk);
        put.next(a), next++;
        if (put.step == 0 && next < u1) source.begin(a, put.tile);
    };
#pragma unroll 1
    for (int i = 0; i < S::stages - 1; i++) {
        if (next < u1) fetch(smem + i * S::stage);
        cu_cp_commit();
    }
    cu_pdl_launch();
    cu_pdl_wait();
    sk_unit early = at;
#pragma unroll 1
    for (int i = 0; i < S::stages - 1 && u0 + i < u1; i++) {
        sk_copy_x<F, NT, false>(a, early.step, smem + i * S::stage);
        early.next(a);
    }
    float acc[NT][4] = {};
    int slot = 0;
#pragma unroll 1
    for (int u = u0; u < u1; u++) {
        cu_cp_wait<S::stages - 2>();
        __syncthreads(); /* this stage is there for all, and the one before is no longer read */
        if (next < u1) {
            uint8_t *to = smem + (slot ? slot - 1 : S::stages - 1) * S::stage;
            sk_copy_x<F, NT, true>(a, put.step, to);
            fetch(to);
        }
        cu_cp_commit();
        at_chunk.step_to(a, at.step, u == u0);
        sk_multiply<F, NT>(a, at.step, smem + slot * S::stage, chunks + at_chunk.slot * S::chunk, acc);
        slot = slot + 1 == S::stages ? 0 : slot + 1;
        if (at.step == a.n_step - 1 || u == u1 - 1) {
            if (sk_gather<NT>(a, at.tile, from, acc, &flag)) sk_finish<NT>(a, at.tile, acc);
#pragma unroll
            for (int n = 0; n < NT; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0;
            from = 0;
        }
        at.next(a);
    }
}

/* ---- the table ---- */

typedef void cu_skinny_fn(const cu_skinny_args a);

typedef struct cu_skinny_fmt {
    const char *name;
    int kind, units, sum;
    int least; /* rows from which on this is faster than streaming */
    struct {
        cu_skinny_fn *fn; /* NULL: the next one */
        int cols, smem, blocks;
    } by[4]; /* of 8, 16, 32 and 64 rows */
} cu_skinny_fmt;

#define SK_ROW(NT, ...)                                                                                                \
    {                                                                                                                  \
        skinny_kernel<sk_fmt<__VA_ARGS__>, NT>, sk_fmt<__VA_ARGS__>::cols, sk_shape<sk_fmt<__VA_ARGS__>, NT>::smem,    \
            sk_shape<sk_fmt<__VA_ARGS__>, NT>::blocks                                                                  \
    }
#define SK_NO_ROW                                                                                                      \
    { NULL, 0, 0, 0 }
/* COLS4: of the kernel for 32 rows, where two blocks would not have room for longer stages. */
#define SK_FMT(text, KIND, UNITS, COLS, COLS4, least)                                                                  \
    {                                                                                                                  \
        "skinny " text, KIND, UNITS, sk_fmt<KIND, UNITS, COLS>::sum, least, {                                          \
            SK_ROW(1, KIND, UNITS, COLS), SK_ROW(2, KIND, UNITS, COLS), SK_ROW(4, KIND, UNITS, COLS4),                 \
                SK_ROW(8, KIND, UNITS, COLS)                                                                           \
        }                                                                                                              \
    }
/* The same for formats that are not as common: kernels of 16 and 64 rows alone. */
#define SK_FMT_FEW(text, KIND, UNITS, COLS, least)                                                                     \
    {                                                                                                                  \
        "skinny " text, KIND, UNITS, sk_fmt<KIND, UNITS, COLS>::sum, least, {                                          \
            SK_NO_ROW, SK_ROW(2, KIND, UNITS, COLS), SK_NO_ROW, SK_ROW(8, KIND, UNITS, COLS)                           \
        }                                                                                                              \
    }
/* The format of a kind; NULL: not in this file. */
const cu_skinny_fmt *cu_skinny_find_planar(int kind, int units); /* skinny_planar.cu */
const cu_skinny_fmt *cu_skinny_find_gguf(int kind, int units);   /* skinny_gguf.cu */

#endif
