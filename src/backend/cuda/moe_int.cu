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

enum { SLOTS = CU_MOE_INT_RING };

/* ---- weights ---- */

/* The choices of row m: lane k has the expert of choice k. */
CU_DEV int hold_experts(const cu_moe_few_args &a, int m) {
    const int lane = (int)threadIdx.x % CU_WARP;
    return lane < a.n_used ? cu_moe_expert(a, m, lane) : 0;
}
CU_DEV int expert_of(const cu_moe_few_args &a, int held, int m, int k) {
    return a.n_used <= CU_WARP ? __shfl_sync(0xffffffffu, held, k) : cu_moe_expert(a, m, k);
}

/* Starts the loads of step `step` of unit `unit` of expert e. */
template <int BITS> CU_DEV void fetch(const cu_moe_few_args &a, int e, int unit, int step, uint8_t *slot, int lane) {
    typedef cu_int_shape<BITS> S;
    const int t = lane % 4,
              left = (a.m[0].w.cols - step * CU_QCOLS) / 8 * BITS - t * 16; /* bytes of the row, from here */
    const int left_s = (a.m[0].w.cols - step * CU_QCOLS) / CU_INT_GROUP * 2 - t % 2 * 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const cu_moe_mat &m = a.m[h];
        const int row =
            min(a.n_mat == 2 ? unit * CU_TILE + lane / 4 : unit * CU_WIDE + h * CU_TILE + lane / 4, m.w.rows - 1);
        const uint8_t *codes = m.w.codes + e * m.stride + (int64_t)row * (int)m.w.row_bytes + (step * S::ROW + t * 16);
        const uint8_t *scales = (t < 2 ? m.w.scales : m.w.biases) + e * m.scale_stride +
                                (int64_t)row * (int)m.w.scale_row_bytes + (step * 8 + t % 2 * 4);
#pragma unroll
        for (int i = 0; i < S::PIECES; i++)
            cu_cp_async(slot + ((h * S::PIECES + i) * CU_WARP + lane) * 16, codes + i * 64, left > i * 64 ? 16 : 0);
        cu_cp_async4(slot + S::SCALES + (h * CU_TILE + lane / 4) * 16 + t * 4, scales, left_s > 0 ? 4 : 0);
    }
}

/* Where a warp's loads are: item `item` of a unit's n_item, which are steps of one expert's rows (up: that of choice
 * unit / a.n_unit) or of all choices' (down: item / a.n_step). */
template <int BITS, bool DOWN> struct int_feed {
    int m, held, unit, item;

    __device__ __forceinline__ void begin(const cu_moe_few_args &a, int row, int warp) {
        m = row;
        held = hold_experts(a, row);
        unit = (int)blockIdx.x;
        item = warp;
    }
    /* A group of its own even where nothing is left. */
    __device__ __forceinline__ void issue(const cu_moe_few_args &a, uint8_t *slot, int lane) {
        const int n_item = DOWN ? a.n_used * a.n_step : a.n_step, n_unit = DOWN ? a.n_unit : a.n_used * a.n_unit;
        if (unit < n_unit) {
            if (DOWN)
                fetch<BITS>(a, expert_of(a, held, m, item / a.n_step), unit, item % a.n_step, slot, lane);
            else
                fetch<BITS>(a, expert_of(a, held, m, unit / a.n_unit), unit % a.n_unit, item, slot, lane);
            item += (int)blockDim.x / CU_WARP;
            if (item >= n_item) item = (int)threadIdx.x / CU_WARP, unit += (int)gridDim.x;
        }
        cu_cp_commit();
    }
};

/* ---- input ---- */

/* 16 columns from x on, as pairs of bf16. */
template <int TYPE> CU_DEV void load16(const uint8_t *x, uint32_t p[8]) {
    if (TYPE == FA_F32) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 f = __ldcg((const float4 *)x + i);
            p[2 * i] = cu_to_bf16x2(f.x, f.y), p[2 * i + 1] = cu_to_bf16x2(f.z, f.w);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 v = __ldcg((const uint4 *)x + i);
            p[4 * i] = v.x, p[4 * i + 1] = v.y, p[4 * i + 2] = v.z, p[4 * i + 3] = v.w;
        }
    }
}

/* Rows [0, n_row) of x to shared memory: each a.n_step * 512 bytes of digits and then its groups, multiplied by
 * by [row] (NULL: 1). All threads of the block; two pieces of 16 columns each at a time. */
template <int BITS, int TYPE>
CU_DEV void stage(const cu_moe_few_args &a, const uint8_t *x, int n_row, const float *by, uint8_t *xs) {
    enum { TURN = 2 };
    const int per = a.n_step * (CU_QCOLS / 16), all = n_row * per, n_thread = (int)blockDim.x;
#pragma unroll 1
    for (int i0 = 0; i0 < all; i0 += TURN * n_thread) {
        uint32_t p[TURN][8] = {};
        float f[TURN];
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            const int i = i0 + u * n_thread + (int)threadIdx.x, row = i / per, k = i % per * 16;
            f[u] = by && i < all ? __ldcg(by + row) : 1.0f;
            if (i < all && k < a.m[0].w.cols)
                load16<TYPE>(x + ((int64_t)row * a.ldx + k) * (TYPE == FA_F32 ? 4 : 2), p[u]);
        }
#pragma unroll
        for (int u = 0; u < TURN; u++) {
            if (i0 + u * n_thread >= all) break; /* the same for all threads */
            const int i = i0 + u * n_thread + (int)threadIdx.x, row = i / per, k = i % per * 16;
            uint32_t w[8];
            const float2 group = cu_int_digits<BITS>(p[u], w);
            if (i >= all) continue;
            uint4 *to = (uint4 *)(xs + (int64_t)row * a.line + k * 2);
            to[0] = make_uint4(w[0], w[1], w[2], w[3]);
            to[1] = make_uint4(w[4], w[5], w[6], w[7]);
            if (k % CU_INT_GROUP == 0)
                ((float2 *)(xs + (int64_t)row * a.line + a.n_step * CU_QCOLS * 2))[k / CU_INT_GROUP] =
                    make_float2(group.x * f[u], group.y * f[u]);
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
    float *red;          /* [2][warps][16], one half after the other */
};

CU_DEV int_mem mem_of(const cu_moe_few_args &a, uint8_t *smem, int slot_bytes) {
    int_mem s;
    s.ring = smem + (int)threadIdx.x / CU_WARP * SLOTS * slot_bytes;
    s.xs = smem + a.at_x;
    s.red = (float *)(smem + a.at_red);
    s.none = (const uint8_t *)(s.red + 2 * ((int)blockDim.x / CU_WARP) * CU_WIDE);
    if (threadIdx.x < 16) ((float *)s.none)[threadIdx.x] = 0;
    return s;
}

/* acc [2] += rows g and g + 8 of a slot times the lane's group of 256 columns of digits. */
template <int BITS, int TYPE>
CU_DEV void step(const uint8_t *slot, const uint8_t *x, float2 group, const uint8_t *none, float acc[2]) {
    typedef cu_int_shape<BITS> S;
    const int lane = (int)threadIdx.x % CU_WARP;
    const cu_int_lane place = cu_int_place<BITS>(lane);
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

/* The block's next unit; its 16 results stand in the returned part of red. `slot` is the ring's next one. */
template <int BITS, int TYPE, bool DOWN>
CU_DEV const float *unit_sums(const cu_moe_few_args &a, const int_mem &s, int_feed<BITS, DOWN> &feed, int turn,
                              int *slot) {
    typedef cu_int_shape<BITS> S;
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int n_item = DOWN ? a.n_used * a.n_step : a.n_step;
    float acc[2] = {0, 0};
#pragma unroll 1
    for (int i = warp; i < n_item; i += n_warp) {
        cu_cp_wait<SLOTS - 1>();
        __syncwarp();
        const int k = DOWN ? i / a.n_step : 0, at = DOWN ? i % a.n_step : i;
        const uint8_t *x = s.xs + k * a.line;
        const float2 group = ((const float2 *)(x + a.n_step * CU_QCOLS * 2))[at * CU_STEP_GROUPS + lane % 4];
        step<BITS, TYPE>(s.ring + *slot * S::SLOT, x + at * CU_QCOLS * 2, group, s.none, acc);
        __syncwarp(); /* all lanes have read the slot */
        feed.issue(a, s.ring + *slot * S::SLOT, lane);
        *slot = *slot + 1 == SLOTS ? 0 : *slot + 1;
    }
    float *red = s.red + turn * n_warp * CU_WIDE;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float v = acc[h];
        v += __shfl_xor_sync(0xffffffffu, v, 1);
        v += __shfl_xor_sync(0xffffffffu, v, 2);
        if (lane % 4 == 0) red[warp * CU_WIDE + h * CU_TILE + lane / 4] = v;
    }
    __syncthreads();
    return red;
}

CU_DEV float total(const float *red, int i) {
    float v = 0;
    for (int w = 0; w < (int)blockDim.x / CU_WARP; w++) v += red[w * CU_WIDE + i];
    return v;
}

/* ---- kernels ---- */

/* What becomes of results of choice k of row m: rows of the hidden row h. */
CU_DEV void up_end(const cu_moe_few_args &a, int m, int k, int unit, const float *red) {
    const int i = (int)threadIdx.x, per = a.n_mat == 2 ? (int)CU_TILE : (int)CU_WIDE, row = unit * per + i;
    if (i >= per || row >= a.ld) return;
    const int64_t at = ((int64_t)m * a.n_used + k) * a.ld + row;
    const int n_row = a.m[0].w.rows;
    float v[2] = {total(red, i), a.n_mat == 2 ? total(red, i + CU_TILE) : 0.0f};
    for (int j = 0; j < a.n_mat && row < n_row; j++)
        if (a.m[j].bias) v[j] += a.m[j].bias[(int64_t)cu_moe_expert(a, m, k) * n_row + row];
    const float r = cu_moe_hidden(a, v, at);
    cu_put(a.out, a.out_type, at, row < n_row ? r : 0.0f); /* what pads a row is zeros */
}

/* Grid (blocks, input rows) */
template <int BITS, int TYPE>
__global__ void __launch_bounds__(256, 3) moe_up_int(const __grid_constant__ cu_moe_few_args a) {
    typedef cu_int_shape<BITS> S;
    CU_DYN_SMEM(smem);
    const int lane = (int)threadIdx.x % CU_WARP, m = (int)blockIdx.y;
    const int_mem s = mem_of(a, smem, S::SLOT);
    cu_pdl_wait();
    cu_pdl_launch(); /* not earlier: `down` looks at the choice at once */
    int_feed<BITS, false> feed;
    feed.begin(a, m, (int)threadIdx.x / CU_WARP);
#pragma unroll 1
    for (int i = 0; i < SLOTS; i++) feed.issue(a, s.ring + i * S::SLOT, lane);
    stage_any<BITS>(a, m, 1, NULL, s.xs);
    __syncthreads();
    int slot = 0, turn = 0;
#pragma unroll 1
    for (int u = (int)blockIdx.x; u < a.n_used * a.n_unit; u += (int)gridDim.x, turn ^= 1)
        up_end(a, m, u / a.n_unit, u % a.n_unit, unit_sums<BITS, TYPE>(a, s, feed, turn, &slot));
}

/* Grid (blocks, input rows) */
template <int BITS, int TYPE>
__global__ void __launch_bounds__(256, 3) moe_down_int(const __grid_constant__ cu_moe_few_args a) {
    typedef cu_int_shape<BITS> S;
    CU_DYN_SMEM(smem);
    const int lane = (int)threadIdx.x % CU_WARP, m = (int)blockIdx.y;
    const int_mem s = mem_of(a, smem, S::SLOT);
    const float *weight = a.choice + (int64_t)m * 2 * a.n_used;
    cu_pdl_launch();
    if (!a.early) cu_pdl_wait();
    int_feed<BITS, true> feed;
    feed.begin(a, m, (int)threadIdx.x / CU_WARP);
#pragma unroll 1
    for (int i = 0; i < SLOTS; i++) feed.issue(a, s.ring + i * S::SLOT, lane);
    if (a.early) cu_pdl_wait();
    stage_any<BITS>(a, (int64_t)m * a.n_used, a.n_used, weight, s.xs);
    __syncthreads();
    int slot = 0, turn = 0;
#pragma unroll 1
    for (int u = (int)blockIdx.x; u < a.n_unit; u += (int)gridDim.x, turn ^= 1) {
        const int i = (int)threadIdx.x, row = u * CU_WIDE + i;
        const bool mine = i < CU_WIDE && row < a.m[0].w.rows;
        float *out = (float *)a.out + (int64_t)m * a.ld + row;
        float sum = 0;
        const float old = mine && a.add ? __ldcg(out) : 0.0f;
        for (int k = 0; k < a.n_used && mine && a.m[0].bias; k++)
            sum = fmaf(__ldcg(weight + k), a.m[0].bias[(int64_t)cu_moe_expert(a, m, k) * a.m[0].w.rows + row], sum);
        const float *red = unit_sums<BITS, TYPE>(a, s, feed, turn, &slot);
        if (mine) *out = old + a.scale * (sum + total(red, i));
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
