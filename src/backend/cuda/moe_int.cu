/* Experts of few rows (decode) whose weights are affine of 4 or 8 bits in groups of 64, in fast mode: the two kernels
 * of moe_few.cuh with the integer products of stream_int.cuh. Both read weights once and have little else to do, so
 * what counts is that all multiprocessors have enough loads under way from the first moment on.
 *
 * Geometry. A unit is 16 weight rows: of `up` 8 of the gate and the same 8 of the up projection of one choice (or 16 of
 * the only matrix), of `down` 16 output columns of one input row. About two blocks per multiprocessor share out the
 * units; a block's input row stands in its shared memory once for all of them, as digits. The warps of a block share a
 * unit's steps of 256 columns: those of the expert's row (up), or of the rows of all choices (down), whose weights are
 * multiplied into the powers of the input, so that a sum runs over choices as it does over columns. Each warp has SLOTS
 * steps under way: with one row of a model of 8 experts of [768, 2048] that is everything (6,144 steps of 2,304 bytes
 * for 2,112 warps).
 *
 * Between kernels. `up` cannot fetch before the choice is known; it lets `down` start only then, so that `down` may
 * look at the choice and fetch its weights while `up` runs, and has only to wait for the hidden rows. */
#include "backend/cuda/stream_int.cuh"

enum {
    SLOTS = CU_MOE_INT_RING,
    UNITS = CU_MOE_INT_UNITS /* whose results wait in shared memory for one barrier */
};

/* ---- weights ---- */

/* The choices of row m: lane k has the expert of choice k. */
CU_DEV int hold_experts(const cu_moe_few_args &a, int m) {
    const int lane = (int)threadIdx.x % CU_WARP;
    return lane < a.n_used ? cu_moe_expert(a, m, lane) : 0;
}
CU_DEV int expert_of(const cu_moe_few_args &a, int held, int m, int k) {
    return a.n_used <= CU_WARP ? __shfl_sync(0xffffffffu, held, k) : cu_moe_expert(a, m, k);
}

/* A warp's way through the steps of its units: step `s` of the rows of choice k, unit `unit` of these. `up` takes steps
 * s, s + warps, ... of one choice's unit after the other, `down` every step of all choices of a unit. */
template <bool DOWN> struct int_walk {
    int k, s, unit; /* unit: of the expert's rows */
    __device__ __forceinline__ void begin(const cu_moe_few_args &a) {
        const int warp = (int)threadIdx.x / CU_WARP;
        k = DOWN ? warp / a.n_step : (int)blockIdx.x / a.n_unit;
        s = DOWN ? warp % a.n_step : warp;
        unit = DOWN ? (int)blockIdx.x : (int)blockIdx.x % a.n_unit;
    }
    __device__ __forceinline__ bool in_unit(const cu_moe_few_args &a) const {
        return DOWN ? k < a.n_used : s < a.n_step;
    }
    __device__ __forceinline__ bool there(const cu_moe_few_args &a) const {
        return DOWN ? unit < a.n_unit : k < a.n_used;
    }
    /* Within the unit. */
    __device__ __forceinline__ void next(const cu_moe_few_args &a) {
        s += DOWN ? a.turn_s : (int)blockDim.x / CU_WARP;
        if (!DOWN) return;
        k += a.turn_k;
        if (s >= a.n_step) s -= a.n_step, k++;
    }
    __device__ __forceinline__ void next_unit(const cu_moe_few_args &a) {
        const int warp = (int)threadIdx.x / CU_WARP;
        unit += (int)gridDim.x;
        s = warp;
        if (DOWN) {
            k = warp / a.n_step;
            s = warp % a.n_step;
        } else {
            while (unit >= a.n_unit) unit -= a.n_unit, k++;
        }
    }
};

/* Where a warp's loads are. */
template <int BITS, bool DOWN> struct int_feed {
    typedef cu_int_shape<BITS> S;
    int_walk<DOWN> at;
    const uint8_t *codes[2], *scales[2]; /* the lane's first bytes in rows g and g + 8 of unit 0 of expert 0 */
    int m, held;

    /* What does not depend on the choice. */
    __device__ __forceinline__ void begin(const cu_moe_few_args &a) {
        const int lane = (int)threadIdx.x % CU_WARP, t = lane % 4;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const cu_mat &w = a.m[h].w;
            const int row = lane / 4 + (a.n_mat == 2 ? 0 : h * CU_TILE);
            codes[h] = w.codes + (int64_t)row * (int)w.row_bytes + t * 16;
            scales[h] = (t < 2 ? w.scales : w.biases) + (int64_t)row * (int)w.scale_row_bytes + t % 2 * 4;
            cu_here(codes[h]);
            cu_here(scales[h]);
        }
        at.begin(a);
    }
    __device__ __forceinline__ void choose(const cu_moe_few_args &a, int row) {
        m = row;
        held = hold_experts(a, row);
    }
    /* A group of its own even where nothing is left. */
    __device__ __forceinline__ void issue(const cu_moe_few_args &a, uint8_t *slot) {
        const int lane = (int)threadIdx.x % CU_WARP, t = lane % 4;
        while (at.there(a) && !at.in_unit(a)) at.next_unit(a);
        if (at.there(a)) {
            const int e = expert_of(a, held, m, at.k), left = a.m[0].w.cols - at.s * CU_QCOLS; /* columns */
            const int64_t from = (int64_t)e * a.step_codes + (at.unit * a.unit_codes + at.s * S::ROW);
            const int64_t from_s = (int64_t)e * a.step_scales + (at.unit * a.unit_scales + at.s * 8);
#pragma unroll
            for (int h = 0; h < 2; h++) {
#pragma unroll
                for (int i = 0; i < S::PIECES; i++)
                    cu_cp_async(slot + ((h * S::PIECES + i) * CU_WARP + lane) * 16, codes[h] + from + i * 64,
                                left > (i * 64 + t * 16) * 8 / BITS ? 16 : 0);
                cu_cp_async4(slot + S::SCALES + (h * CU_TILE + lane / 4) * 16 + t * 4, scales[h] + from_s,
                             left > t % 2 * 2 * CU_INT_GROUP ? 4 : 0);
            }
            at.next(a);
        }
        cu_cp_commit();
    }
};

/* ---- input ---- */

/* 16 columns, as they lie and as pairs of bf16. */
template <int TYPE> struct cols16 {
    enum { N = TYPE == FA_F32 ? 4 : 2 };
    uint4 v[N];
    __device__ __forceinline__ void load(const uint8_t *x, bool there) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[i] = make_uint4(0, 0, 0, 0);
            if (there) v[i] = __ldcg((const uint4 *)x + i);
        }
    }
    __device__ __forceinline__ void pairs(uint32_t p[8]) const {
        const uint32_t w[16] = {v[0].x,     v[0].y,     v[0].z,     v[0].w,     v[1].x,     v[1].y,
                                v[1].z,     v[1].w,     v[N - 2].x, v[N - 2].y, v[N - 2].z, v[N - 2].w,
                                v[N - 1].x, v[N - 1].y, v[N - 1].z, v[N - 1].w};
#pragma unroll
        for (int i = 0; i < 8; i++)
            p[i] = TYPE == FA_F32 ? cu_to_bf16x2(__uint_as_float(w[2 * i]), __uint_as_float(w[2 * i + 1])) : w[i];
    }
};

/* Rows [0, n_row) of x to shared memory: each a.n_step * 512 bytes of digits and then its groups, multiplied by
 * by [row] (NULL: 1). All threads of the block; two pieces of 16 columns each at a time. */
template <int BITS, int TYPE>
CU_DEV void stage(const cu_moe_few_args &a, const uint8_t *x, int n_row, const float *by, uint8_t *xs) {
    enum { TURN = 2 };
    const int per = a.n_step * (CU_QCOLS / 16), n_thread = (int)blockDim.x;
    int at[TURN], row[TURN]; /* the thread's pieces: 16 columns each */
#pragma unroll
    for (int u = 0; u < TURN; u++) {
        at[u] = u * n_thread + (int)threadIdx.x;
        row[u] = n_row > 1 ? at[u] / per : 0;
        at[u] -= row[u] * per;
    }
#pragma unroll 1
    for (int left = n_row * per; left > 0; left -= TURN * n_thread) {
        cols16<TYPE> cols[TURN];
        float f[TURN];
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const bool there = row[u] < n_row && at[u] < per;
            f[u] = 1.0f;
            if (by && there) f[u] = __ldcg(by + row[u]);
            cols[u].load(x + ((int64_t)row[u] * a.ldx + at[u] * 16) * (TYPE == FA_F32 ? 4 : 2),
                         there && at[u] * 16 < a.m[0].w.cols);
        }
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            if (u * n_thread >= left) break; /* the same for all threads */
            uint32_t p[8], w[8];
            cols[u].pairs(p);
            const float2 group = cu_int_digits<BITS>(p, w);
            const bool there = row[u] < n_row && at[u] < per;
            uint8_t *line = xs + row[u] * a.line;
            if (there) {
                ((uint4 *)line)[2 * at[u]] = make_uint4(w[0], w[1], w[2], w[3]);
                ((uint4 *)line)[2 * at[u] + 1] = make_uint4(w[4], w[5], w[6], w[7]);
            }
            if (there && at[u] % 4 == 0)
                ((float2 *)(line + per * 32))[at[u] / 4] = make_float2(group.x * f[u], group.y * f[u]);
            at[u] += TURN * n_thread;
            while (at[u] >= per && n_row > 1) at[u] -= per, row[u]++;
        }
    }
}
template <int BITS>
CU_DEV void stage_any(const cu_moe_few_args &a, int64_t row, int n_row, const float *by, uint8_t *xs) {
    const uint8_t *x = (const uint8_t *)a.x + row * a.ldx * (a.x_type == FA_F32 ? 4 : 2);
    if (a.x_type == FA_F32)
        stage<BITS, FA_F32>(a, x, n_row, by, xs);
    else
        stage<BITS, FA_BF16>(a, x, n_row, by, xs);
}

/* ---- a unit ---- */

/* A block's shared memory. */
struct int_mem {
    uint8_t *ring, *xs;
    const uint8_t *none; /* zeros */
    float *red;          /* [UNITS][warps][16] */
};

CU_DEV int_mem mem_of(const cu_moe_few_args &a, uint8_t *smem, int slot_bytes) {
    int_mem s;
    s.ring = smem + (int)threadIdx.x / CU_WARP * SLOTS * slot_bytes;
    s.xs = smem + a.at_x;
    s.red = (float *)(smem + a.at_red);
    s.none = (const uint8_t *)(s.red + UNITS * ((int)blockDim.x / CU_WARP) * CU_WIDE);
    if (threadIdx.x < 16) ((float *)s.none)[threadIdx.x] = 0;
    return s;
}

/* acc [2] += rows g and g + 8 of a slot times the lane's group of 256 columns of digits. */
template <int BITS, int TYPE>
CU_DEV void step(const uint8_t *slot, const uint8_t *x, float2 group, cu_int_lane place, const uint8_t *none,
                 float acc[2]) {
    typedef cu_int_shape<BITS> S;
    const int lane = (int)threadIdx.x % CU_WARP;
    int d[2][4] = {};
#pragma unroll
    for (int i = 0; i < S::PIECES; i++) {
        uint32_t op[S::OPS][4];
        cu_int_operand<BITS>(slot, lane, i, op);
        cu_int_products<BITS>(op, i, x, place, none, d);
    }
    const uint8_t *sc = slot + S::SCALES + lane / 4 * 16 + lane % 4 * 2;
    const float scale[4] = {cu_int_scale<TYPE>(sc), cu_int_scale<TYPE>(sc + 8), cu_int_scale<TYPE>(sc + CU_TILE * 16),
                            cu_int_scale<TYPE>(sc + CU_TILE * 16 + 8)};
    cu_int_scaled(d, group, scale, acc);
}

/* The block's next units, n of them: each warp's part of their 16 results to red. `slot` is the ring's next one. */
template <int BITS, int TYPE, bool DOWN>
CU_DEV void units(const cu_moe_few_args &a, const int_mem &s, int_feed<BITS, DOWN> &feed, int_walk<DOWN> &at, int n,
                  int *slot) {
    typedef cu_int_shape<BITS> S;
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const cu_int_lane place = cu_int_place<BITS>(lane);
#pragma unroll 1
    for (int j = 0; j < n; j++) {
        float acc[2] = {0, 0};
#pragma unroll 1
        for (; at.in_unit(a); at.next(a)) {
            cu_cp_wait<SLOTS - 1>();
            __syncwarp();
            const uint8_t *x = s.xs + (DOWN ? at.k * a.line : 0);
            const float2 group = ((const float2 *)(x + a.n_step * CU_QCOLS * 2))[at.s * CU_STEP_GROUPS + lane % 4];
            step<BITS, TYPE>(s.ring + *slot * S::SLOT, x + at.s * CU_QCOLS * 2, group, place, s.none, acc);
            __syncwarp(); /* all lanes have read the slot */
            feed.issue(a, s.ring + *slot * S::SLOT);
            *slot = *slot + 1 == SLOTS ? 0 : *slot + 1;
        }
        at.next_unit(a);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v = acc[h];
            v += __shfl_xor_sync(0xffffffffu, v, 1);
            v += __shfl_xor_sync(0xffffffffu, v, 2);
            if (lane % 4 == 0) s.red[(j * n_warp + warp) * CU_WIDE + h * CU_TILE + lane / 4] = v;
        }
    }
}

/* The sum of result lane % 16 of unit j. By a warp. */
CU_DEV float total(const int_mem &s, int j) {
    const int lane = (int)threadIdx.x % CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const float *red = s.red + j * n_warp * CU_WIDE + lane % CU_WIDE;
    float v = 0;
#pragma unroll 4
    for (int w = lane / CU_WIDE; w < n_warp; w += 2) v += red[w * CU_WIDE];
    return v + __shfl_xor_sync(0xffffffffu, v, CU_WIDE);
}

/* ---- kernels ---- */

/* What becomes of unit j of the batch, the block's u-th: rows of the hidden row h of a choice. By a warp. */
CU_DEV void up_end(const cu_moe_few_args &a, const int_mem &s, int m, int u, int j) {
    const int i = (int)threadIdx.x % CU_WARP, per = a.n_mat == 2 ? (int)CU_TILE : (int)CU_WIDE;
    const int k = u / a.n_unit, row = u % a.n_unit * per + i;
    float v[2];
    v[0] = total(s, j);
    v[1] = __shfl_down_sync(0xffffffffu, v[0], CU_TILE); /* of the up projection */
    if (i >= per) return;
    const int64_t at = ((int64_t)m * a.n_used + k) * a.ld + row;
    for (int b = 0; b < a.n_mat; b++)
        if (a.m[b].bias) v[b] += a.m[b].bias[(int64_t)cu_moe_expert(a, m, k) * a.m[0].w.rows + row];
    cu_put(a.out, a.out_type, at, cu_moe_hidden(a, v, at));
}

/* Grid (blocks, input rows) */
template <int BITS, int TYPE>
__global__ void __launch_bounds__(256, 3) moe_up_int(const __grid_constant__ cu_moe_few_args a) {
    typedef cu_int_shape<BITS> S;
    CU_DYN_SMEM(smem);
    const int m = (int)blockIdx.y, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int_mem s = mem_of(a, smem, S::SLOT);
    int_feed<BITS, false> feed;
    int_walk<false> at;
    feed.begin(a);
    at = feed.at;
    cu_pdl_wait();
    cu_pdl_launch(); /* not earlier: `down` looks at the choice at once */
    feed.choose(a, m);
    if (a.digits)
        for (int i = (int)threadIdx.x * 16; i < a.line; i += (int)blockDim.x * 16)
            cu_cp_async(s.xs + i, a.digits + m * a.line + i);
#pragma unroll 1
    for (int i = 0; i < SLOTS; i++) feed.issue(a, s.ring + i * S::SLOT);
    if (a.digits)
        cu_cp_wait<SLOTS - 1>(); /* they went with the first step */
    else
        stage_any<BITS>(a, m, 1, NULL, s.xs);
    __syncthreads();
    int slot = 0;
#pragma unroll 1
    for (int u = (int)blockIdx.x; u < a.n_used * a.n_unit; u += UNITS * (int)gridDim.x) {
        const int left = (a.n_used * a.n_unit - u + (int)gridDim.x - 1) / (int)gridDim.x, n = min(left, (int)UNITS);
        units<BITS, TYPE>(a, s, feed, at, n, &slot);
        __syncthreads();
        for (int j = warp; j < n; j += n_warp) up_end(a, s, m, u + j * (int)gridDim.x, j);
        if (left > UNITS) __syncthreads();
    }
}

/* Row `row` of the sum of biases of the choices of row m. */
CU_DEV float down_bias(const cu_moe_few_args &a, const float *weight, int m, int row) {
    float sum = 0;
    for (int k = 0; k < a.n_used && a.m[0].bias; k++)
        sum = fmaf(__ldcg(weight + k), a.m[0].bias[(int64_t)cu_moe_expert(a, m, k) * a.m[0].w.rows + row], sum);
    return sum;
}

/* Grid (blocks, input rows) */
template <int BITS, int TYPE>
__global__ void __launch_bounds__(256, 3) moe_down_int(const __grid_constant__ cu_moe_few_args a) {
    typedef cu_int_shape<BITS> S;
    CU_DYN_SMEM(smem);
    const int lane = (int)threadIdx.x % CU_WARP, m = (int)blockIdx.y, warp = (int)threadIdx.x / CU_WARP,
              n_warp = (int)blockDim.x / CU_WARP;
    const int_mem s = mem_of(a, smem, S::SLOT);
    const float *weight = a.choice + (int64_t)m * 2 * a.n_used;
    int_feed<BITS, true> feed;
    int_walk<true> at;
    cu_pdl_launch();
    if (!a.early) cu_pdl_wait();
    feed.begin(a);
    at = feed.at;
    feed.choose(a, m);
#pragma unroll 1
    for (int i = 0; i < SLOTS; i++) feed.issue(a, s.ring + i * S::SLOT);
    if (a.early) cu_pdl_wait();
    stage_any<BITS>(a, (int64_t)m * a.n_used, a.n_used, weight, s.xs);
    __syncthreads();
    int slot = 0;
#pragma unroll 1
    for (int u = (int)blockIdx.x; u < a.n_unit; u += UNITS * (int)gridDim.x) {
        const int left = (a.n_unit - u + (int)gridDim.x - 1) / (int)gridDim.x, n = min(left, (int)UNITS);
        /* what a result needs besides, for the unit that this warp ends, if it is one */
        float *out = (float *)a.out + (int64_t)m * a.ld + (u + warp * (int)gridDim.x) * CU_WIDE + lane;
        float old = 0;
        if (warp < n && lane < CU_WIDE && a.add) old = __ldcg(out);
        units<BITS, TYPE>(a, s, feed, at, n, &slot);
        __syncthreads();
        for (int j = warp; j < n; j += n_warp) {
            const float v = total(s, j);
            if (lane >= CU_WIDE) continue;
            out = (float *)a.out + (int64_t)m * a.ld + (u + j * (int)gridDim.x) * CU_WIDE + lane;
            if (j != warp) old = a.add ? *out : 0.0f;
            *out = old + a.scale * (down_bias(a, weight, m, (u + j * (int)gridDim.x) * CU_WIDE + lane) + v);
        }
        if (left > UNITS) __syncthreads();
    }
}

/* ---- the table ---- */

#define MOE_INT_FMT(bits, type)                                                                                        \
    {                                                                                                                  \
        "moe affine" #bits "g64", CU_QCOLS, cu_int_shape<bits>::SLOT, 8, SLOTS, 0, 1, {}, {                            \
            moe_up_int<bits, type>, moe_down_int<bits, type>, cu_moe_up<cu_fmt_exact, true>,                           \
                cu_moe_down<cu_fmt_exact, true>                                                                        \
        }                                                                                                              \
    }
static const cu_stream_fmt int_fmts[2][2] = {{MOE_INT_FMT(4, FA_BF16), MOE_INT_FMT(4, FA_F16)},
                                             {MOE_INT_FMT(8, FA_BF16), MOE_INT_FMT(8, FA_F16)}};

const cu_stream_fmt *cu_stream_find_codes(const fa_weight *w) {
    return &int_fmts[w->bits == 8][w->scale_dtype == FA_F16];
}
