/* Linear records with few input rows and affine weights of 4 or 8 bits in groups of 64: a kernel of its own beside that
 * of stream.cuh (fast mode), whose beginning and end it shares. These formats have so few bytes that the number of
 * instructions decides; stream_int.cuh has their arithmetic.
 *
 * 16 weight rows are two tiles of stream.cuh: those of the gate and of the up projection, or neighbours. Behind a
 * staged row's columns stand, for each group, what its integers are multiplied by and the sum of its columns, f32. */
#include "backend/cuda/stream_int.cuh"

enum { SLOTS = 3 /* of a warp's ring */ };

CU_DEV int units_of(const cu_stream_args &a) { return a.paired ? a.n_tile : (a.n_tile + 1) / 2; }

/* Half `half` of unit u; false: there is none (then it is the other one again). */
CU_DEV bool half_of(const cu_stream_args &a, int u, int half, cu_job *job) {
    const int tile = a.paired ? u : 2 * u + half;
    *job = cu_stream_at(a, min(tile, a.n_tile - 1), half);
    return tile < a.n_tile;
}

/* The first tile behind part p. */
CU_DEV int next_part(const cu_stream_args &a, int p) {
    return p == CU_PARTS - 1 ? a.n_tile : min(a.part[p + 1].tile, a.n_tile);
}

/* ---- input ---- */

CU_DEV float2 *groups_of(const cu_stream_args &a, uint16_t *x, int m) {
    return (float2 *)(x + m * a.ldx + a.chunk * CU_QCOLS);
}

/* Chunk c of the staged input as digits, in place; a thread takes 16 columns, 4 threads a group. */
template <int BITS> CU_DEV void digits(const cu_stream_args &a, int c, uint16_t *xs) {
    const int n = (min((c + 1) * a.chunk, a.n_step) - c * a.chunk) * CU_QCOLS / 16, all = a.M * n;
#pragma unroll 1
    for (int i0 = 0; i0 < all; i0 += (int)blockDim.x) {
        const int i = min(i0 + (int)threadIdx.x, all - 1), m = a.M == 1 ? 0 : i / n, k = (i - m * n) * 16;
        const bool mine = i0 + (int)threadIdx.x < all;
        uint4 *p = (uint4 *)(xs + m * a.ldx + k);
        const uint4 none = make_uint4(0, 0, 0, 0); /* threads beyond the input only take part in the shuffles */
        const uint4 v0 = mine ? p[0] : none, v1 = mine ? p[1] : none;
        const uint32_t v[8] = {v0.x, v0.y, v0.z, v0.w, v1.x, v1.y, v1.z, v1.w};
        uint32_t w[8];
        const float2 group = cu_int_digits<BITS>(v, w);
        if (!mine) continue;
        p[0] = make_uint4(w[0], w[1], w[2], w[3]);
        p[1] = make_uint4(w[4], w[5], w[6], w[7]);
        if (k % CU_INT_GROUP == 0) groups_of(a, xs, m)[k / CU_INT_GROUP] = group;
    }
}

/* ---- weights ---- */

/* Where a warp's loads are; see cu_feed. */
template <int BITS> struct wide_feed {
    typedef cu_int_shape<BITS> S;
    const uint8_t *codes[2], *scales[2]; /* the lane's first bytes in rows g and g + 8, at the next step */
    int chunk, unit, step, end, n_unit;

    __device__ __forceinline__ void tile(const cu_stream_args &a, int warp, int lane) {
        step = chunk * a.chunk + warp;
        end = min((chunk + 1) * a.chunk, a.n_step);
        const int tile0 = a.paired ? unit : 2 * unit;
        const cu_job j0 = cu_stream_at(a, tile0, 0);
        at(a.part[j0.part].w, j0.tile, 0, lane);
        cu_job j1 = j0;
        if (a.paired)
            j1.part = 1;
        else if (a.part[j0.part].pairs || tile0 + 1 >= next_part(a, j0.part))
            half_of(a, unit, 1, &j1);
        else
            j1.tile.row += CU_TILE;
        at(a.part[j1.part].w, j1.tile, 1, lane);
    }
    __device__ __forceinline__ void at(const cu_mat &w, cu_tile tile, int h, int lane) {
        const int t = lane % 4, row = min(cu_tile_row(tile, lane / 4), w.rows - 1);
        codes[h] = w.codes + (int64_t)row * (int)w.row_bytes + (step * S::ROW + t * 16);
        scales[h] = (t < 2 ? w.scales : w.biases) + (int64_t)row * (int)w.scale_row_bytes + (step * 8 + t % 2 * 4);
    }
    __device__ __forceinline__ void skip(const cu_stream_args &a, int warp, int lane) {
        while (step >= end) {
            unit += (int)gridDim.x;
            if (unit >= n_unit) {
                unit = (int)blockIdx.x;
                if (++chunk >= a.n_chunk) return;
            }
            tile(a, warp, lane);
        }
    }
    __device__ __forceinline__ void begin(const cu_stream_args &a, int warp, int lane) {
        chunk = 0;
        unit = (int)blockIdx.x;
        n_unit = units_of(a);
        tile(a, warp, lane);
        skip(a, warp, lane);
    }
    __device__ __forceinline__ void issue(const cu_stream_args &a, uint8_t *slot, int warp, int lane, int n_warp) {
        if (chunk < a.n_chunk) {
            const int t = lane % 4, left = (a.K - step * CU_QCOLS) / 8 * BITS - t * 16; /* of the row, from here */
            const int left_s = (a.K - step * CU_QCOLS) / CU_INT_GROUP * 2 - t % 2 * 4;
#pragma unroll
            for (int h = 0; h < 2; h++) {
#pragma unroll
                for (int i = 0; i < S::PIECES; i++)
                    cu_cp_async(slot + ((h * S::PIECES + i) * CU_WARP + lane) * 16, codes[h] + i * 64,
                                left > i * 64 ? 16 : 0);
                cu_cp_async4(slot + S::SCALES + (h * CU_TILE + lane / 4) * 16 + t * 4, scales[h], left_s > 0 ? 4 : 0);
                codes[h] += n_warp * S::ROW;
                scales[h] += n_warp * 8;
            }
            step += n_warp;
            skip(a, warp, lane);
        }
        cu_cp_commit();
    }
};

/* ---- the kernel ---- */

/* The end of a tile for this thread's output: what it needs, and where it goes. With paired parts the thread of the up
 * projection finishes both; pair_bias: the gate's. */
CU_DEV cu_ready ready_of(const cu_stream_args &a, int unit, int m, int i, bool *query) {
    cu_job job;
    cu_ready r = {0, 0, 0, 1, 0, 0, NULL};
    if (!half_of(a, unit, i / CU_TILE, &job) || (a.paired && i < CU_TILE)) return r;
    const cu_part &p = a.part[job.part];
    r = cu_stream_ready(a, p, job.tile, i % CU_TILE, m);
    if (a.paired && r.to && a.part[0].bias) r.pair_bias = a.part[0].bias[cu_tile_row(job.tile, i % CU_TILE)];
    *query = p.col + job.tile.row < a.heads.n_q * a.heads.dim;
    return r;
}

/* Shared memory as in stream.cuh, with [rows * 16] results of a tile; behind at_sum's floats 64 bytes of zeros. */
template <int BITS, int TYPE, int R>
__global__ void __launch_bounds__(256, 2) wide_kernel(const __grid_constant__ cu_stream_args a) {
    typedef cu_int_shape<BITS> S;
    enum { N_OUT = R * CU_WIDE };
    CU_DYN_SMEM(smem);
    cu_pdl_launch(); /* its blocks come when these go: nothing is gained by waiting */
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int n_unit = units_of(a);
    uint8_t *ring = smem + warp * SLOTS * S::SLOT;
    uint16_t *xb = (uint16_t *)(smem + a.at_x);
    float *red = (float *)(smem + a.at_red), *sum = (float *)(smem + a.at_sum), *rms = sum + CU_WARP,
          *keep = (float *)(smem + a.at_keep);
    const uint8_t *none = (const uint8_t *)(sum + CU_WARP + 16);

    cu_stream_bulk bulk;
    bulk.begin(a, sum);
    wide_feed<BITS> feed;
    feed.begin(a, warp, lane);
    int asked = 0;
    const int early = a.bulk ? SLOTS / 2 : SLOTS - 1; /* stream.cuh, cu_stream_bulk */
#pragma unroll 1
    for (; asked < early; asked++) feed.issue(a, ring + asked * S::SLOT, warp, lane, n_warp);
    if (threadIdx.x < 16) sum[CU_WARP + 16 + threadIdx.x] = 0;
    if (a.norm.w && !a.bulk)
        for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i * 32 < a.K; i += (int)(gridDim.x * blockDim.x))
            cu_prefetch_l2(a.norm.w + i * 32);
    cu_pdl_wait();

    const cu_int_lane place = cu_int_place<BITS>(lane);
    int slot = 0, turn = 0;
#pragma unroll 1
    for (int c = 0; c < a.n_chunk; c++) {
        uint8_t *land = ring + (SLOTS - 1) * S::SLOT;
        if (a.bulk) bulk.ask(a, CU_QCOLS, c, xb, land);
#pragma unroll 1
        for (; asked < SLOTS - 1; asked++) feed.issue(a, ring + asked * S::SLOT, warp, lane, n_warp);
        if (a.bulk)
            bulk.take(a, c, xb, sum, land);
        else
            cu_stream_stage(a, CU_QCOLS, c, xb, sum);
        __syncthreads();
        digits<BITS>(a, c, xb);
        __syncthreads();
        const bool last = c == a.n_chunk - 1;
        if (last && a.norm.on) cu_stream_rms(a, sum, rms);
        const int n = min(a.chunk, a.n_step - c * a.chunk);
        int first = 0, j = 0;
#pragma unroll 1
        for (int unit = (int)blockIdx.x; unit < n_unit; unit += (int)gridDim.x, j++) {
            const int who = (int)threadIdx.x - first * CU_WARP, o = who < 0 ? who + (int)blockDim.x : who;
            const int out_m = o / CU_WIDE;
            bool query = false;
            cu_ready ready = {0, 0, 0, 1, 0, 0, NULL};
            if (last && out_m < a.M) ready = ready_of(a, unit, out_m, o % CU_WIDE, &query);
            float acc[2 * R] = {};
#pragma unroll 1
            for (int s = warp; s < n; s += n_warp) {
                cu_cp_wait<SLOTS - 2>();
                __syncwarp();
                feed.issue(a, ring + (slot ? slot - 1 : SLOTS - 1) * S::SLOT, warp, lane, n_warp);
                const uint8_t *at = ring + slot * S::SLOT, *sc = at + S::SCALES + lane / 4 * 16 + lane % 4 * 2;
                auto end = [&](const int d[2][4], int m) {
                    const float scale[4] = {cu_int_scale<TYPE>(sc), cu_int_scale<TYPE>(sc + 8),
                                            cu_int_scale<TYPE>(sc + CU_TILE * 16),
                                            cu_int_scale<TYPE>(sc + CU_TILE * 16 + 8)};
                    cu_int_scaled(d, groups_of(a, xb, m)[s * CU_STEP_GROUPS + lane % 4], scale, acc + 2 * m);
                };
                if constexpr (R == 1) { /* piece by piece, for the sake of registers */
                    int d[2][4] = {};
#pragma unroll
                    for (int i = 0; i < S::PIECES; i++) {
                        uint32_t op[S::OPS][4];
                        cu_int_operand<BITS>(at, lane, i, op);
                        cu_int_products<BITS>(op, i, (const uint8_t *)(xb + s * CU_QCOLS), place, none, d);
                    }
                    end(d, 0);
                } else {
                    uint32_t op[8][4];
#pragma unroll
                    for (int i = 0; i < S::PIECES; i++) cu_int_operand<BITS>(at, lane, i, op + i * S::OPS);
#pragma unroll
                    for (int m = 0; m < R; m++) {
                        if (m >= a.M) break;
                        int d[2][4] = {};
#pragma unroll
                        for (int i = 0; i < S::PIECES; i++)
                            cu_int_products<BITS>(op + i * S::OPS, i, (const uint8_t *)(xb + m * a.ldx + s * CU_QCOLS),
                                                  place, none, d);
                        end(d, m);
                    }
                }
                slot = slot + 1 == SLOTS ? 0 : slot + 1;
            }
            float *mine = red + (turn * n_warp + warp) * N_OUT;
#pragma unroll
            for (int m = 0; m < R; m++) {
                if (m >= a.M) break;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float v = acc[2 * m + h];
                    v += __shfl_xor_sync(0xffffffffu, v, 1);
                    v += __shfl_xor_sync(0xffffffffu, v, 2);
                    if (lane % 4 == 0) mine[m * CU_WIDE + h * CU_TILE + lane / 4] = v;
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
                    if (a.paired) {
                        const float gate = total(o ^ CU_TILE) * scale + ready.pair_bias;
                        cu_put(ready.to, a.out_type, 0, cu_act(a.act, gate) * v);
                    } else {
                        if (a.end == CU_END_ROTATE && ready.flip)
                            v = v * ready.cos + (total(o ^ ready.flip) * scale + ready.pair_bias) * ready.sin;
                        cu_stream_end(a, ready, 0, query, v, NULL);
                    }
                }
            }
            turn ^= 1;
            first = first + 1 == n_warp ? 0 : first + 1;
        }
    }
    cu_stream_after(a, smem, sum, rms);
}

/* ---- the table ---- */

#define WIDE_FMT(bits, name, type)                                                                                     \
    {                                                                                                                  \
        "stream affine" #bits "g64" name, CU_QCOLS, cu_int_shape<bits>::SLOT, 8, SLOTS, cu_stream_line(CU_QCOLS, 32),  \
            1,                                                                                                         \
            {wide_kernel<bits, type, 1>, wide_kernel<bits, type, 8>, wide_kernel<bits, type, 16>,                      \
             cu_stream_kernel<cu_fmt_exact, CU_EXACT1>, cu_stream_kernel<cu_fmt_exact, CU_EXACT16>},                   \
        {                                                                                                              \
            NULL, NULL, NULL, NULL                                                                                     \
        } /* experts: stream_quant.cu */                                                                               \
    }
static const cu_stream_fmt wide_fmts[2][2] = {{WIDE_FMT(4, "", FA_BF16), WIDE_FMT(4, " f16", FA_F16)},
                                              {WIDE_FMT(8, "", FA_BF16), WIDE_FMT(8, " f16", FA_F16)}};

/* w: 4 or 8 bits, groups of 64, scales of 16 bits. */
const cu_stream_fmt *cu_stream_find_int(const fa_weight *w) {
    return &wide_fmts[w->bits == 8][w->scale_dtype == FA_F16];
}
