/* Linear records with few input rows and affine weights of 4 or 8 bits in groups of 64: a kernel of its own beside that
 * of stream.cuh (fast mode), whose beginning and end it shares. These formats have so few bytes that the number of
 * instructions decides, and integer products need the fewest: codes are operands as they lie (8 bits) or after one
 * logical operation for 4 of them (4 bits).
 *
 * Input. A group of 64 staged bf16 columns becomes integers of 16 bits times a power of two: 2^(e - 14), where 2^e <=
 * the largest magnitude < 2^(e + 1). That is exact for what is at least 2^(e - 7), and an error of 2^(e - 15) for what
 * is smaller, far below that of bf16 in the group's norm. An integer is two digits of 8 bits with sign, 256 high + low.
 * In shared memory every 16 columns are 16 bytes of high digits and 16 of low ones, where their 32 bytes of bf16 were;
 * for 4 bits each 8 columns in the order 0 2 4 6 1 3 5 7. Behind a row's columns stand, for each group, what its
 * integers are multiplied by and the sum of its columns, f32.
 *
 * Products. 16 weight rows are operand a: two tiles of stream.cuh, those of the gate and of the up projection or
 * neighbours. One input row is all 8 columns of b: column 2 u + d has the digits d (0 high, 1 low) of group u of a step
 * of 4 groups, and zeros where a lane's columns belong to another group, so lane (g, t) ends with both digits' sums of
 * group t for weight rows g and g + 8. Other input rows are further products with the same a. Integer sums are exact:
 * a row's result cannot depend on the rows beside it. Then total += bias * sum + (scale * power) * products; lanes and
 * warps are added up in a fixed order.
 *
 * A slot: [piece][lane] 16 bytes of codes as lanes load and use them, then 16 bytes per row: 4 scales, 4 biases. */
#include "backend/cuda/stream_quant.cuh"

enum {
    WIDE = 2 * CU_TILE,
    GROUP = 64,
    SLOTS = 3,                     /* of a warp's ring */
    STEP_GROUPS = CU_QCOLS / GROUP /* one for each lane of a row */
};

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

/* The largest of both halves' magnitudes; as bf16 they are ordered like integers. */
CU_DEV uint32_t larger(uint32_t most, uint32_t pair) { return max(most, max(pair & 0x7FFF, pair >> 16 & 0x7FFF)); }

/* x / power + 3 2^22 as bits: the integer is the lower half of the word. 32640 would need a digit of 128. */
CU_DEV uint32_t rounded(float x, float inv) { return __float_as_uint(fminf(x * inv, 32639.0f) + 12582912.0f); }

CU_DEV uint32_t bytes_of(const uint32_t *q, int a, int b, int c, int d, uint32_t bias, uint32_t pick) {
    return __byte_perm(__byte_perm(q[a] + bias, q[b] + bias, pick), __byte_perm(q[c] + bias, q[d] + bias, pick),
                       0x5410);
}

/* Chunk c of the staged input as digits, in place; a thread takes 16 columns, 4 threads a group. */
template <int BITS> CU_DEV void digits(const cu_stream_args &a, int c, uint16_t *xs) {
    const int n = (min((c + 1) * a.chunk, a.n_step) - c * a.chunk) * CU_QCOLS / 16, all = a.M * n;
#pragma unroll 1
    for (int i0 = 0; i0 < all; i0 += (int)blockDim.x) {
        const int i = min(i0 + (int)threadIdx.x, all - 1), m = i / n, k = i % n * 16;
        const bool mine = i0 + (int)threadIdx.x < all;
        uint4 *p = (uint4 *)(xs + m * a.ldx + k);
        const uint4 none = make_uint4(0, 0, 0, 0); /* threads beyond the input only take part in the shuffles */
        const uint4 v0 = mine ? p[0] : none, v1 = mine ? p[1] : none;
        const uint32_t v[8] = {v0.x, v0.y, v0.z, v0.w, v1.x, v1.y, v1.z, v1.w};
        uint32_t most = 0, q[16], sum = 0;
#pragma unroll
        for (int j = 0; j < 8; j++) most = larger(most, v[j]);
        most = max(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = max(most, __shfl_xor_sync(0xffffffffu, most, 2));
        const uint32_t e = max(most >> 7, 16u);
        const bool bad = e == 255; /* infinity or NaN: so are the results */
        const float inv = bad ? 0.0f : __uint_as_float((268 - e) << 23);
        const float power = __uint_as_float(bad ? 0x7FC00000u : (e - 14) << 23);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            q[2 * j] = rounded(cu_bf16_lo(v[j]), inv), q[2 * j + 1] = rounded(cu_bf16_hi(v[j]), inv);
            sum += q[2 * j] + q[2 * j + 1];
        }
        sum -= 16 * 0x4B400000u;
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        uint32_t w[8];
#pragma unroll
        for (int d = 0; d < 2; d++) {
            const uint32_t bias = d ? 0 : 128, pick = d ? 0x0040 : 0x0051;
#pragma unroll
            for (int h = 0; h < 16; h += 8) {
                uint32_t *to = w + 4 * d + h / 4;
                if (BITS == 4) {
                    to[0] = bytes_of(q + h, 0, 2, 4, 6, bias, pick), to[1] = bytes_of(q + h, 1, 3, 5, 7, bias, pick);
                } else {
                    to[0] = bytes_of(q + h, 0, 1, 2, 3, bias, pick), to[1] = bytes_of(q + h, 4, 5, 6, 7, bias, pick);
                }
            }
        }
        if (!mine) continue;
        p[0] = make_uint4(w[0], w[1], w[2], w[3]);
        p[1] = make_uint4(w[4], w[5], w[6], w[7]);
        if (k % GROUP == 0) groups_of(a, xs, m)[k / GROUP] = make_float2(power, power * (float)(int)sum);
    }
}

/* ---- weights ---- */

template <int BITS> struct shape {
    enum {
        ROW = CU_QCOLS / 8 * BITS, /* bytes of a row's codes in a step */
        PIECES = ROW / 64,         /* of 16 bytes, that a lane loads of a row */
        SCALES = WIDE * ROW,       /* where they begin in a slot */
        SLOT = SCALES + WIDE * 16,
        RING = SLOTS
    };
};

/* Where a warp's loads are; see cu_feed. */
template <int BITS> struct wide_feed {
    typedef shape<BITS> S;
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
            const int left_s = (a.K - step * CU_QCOLS) / GROUP * 2 - t % 2 * 4;
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

/* ---- a step ---- */

template <int TYPE> CU_DEV float scale_of(const uint8_t *p) {
    return TYPE == FA_F16 ? cu_f16(*(const uint16_t *)p) : cu_bf16(*(const uint16_t *)p);
}

/* The operands a of piece i of rows g and g + 8: 4 (4 bits) or 2 products. */
template <int BITS> CU_DEV void operand(const uint8_t *slot, int lane, int i, uint32_t (*op)[4]) {
    typedef shape<BITS> S;
    const uint4 *piece = (const uint4 *)slot + lane;
    const uint4 p = piece[i * CU_WARP], q = piece[(S::PIECES + i) * CU_WARP];
    const uint32_t u[4] = {p.x, p.y, p.z, p.w}, v[4] = {q.x, q.y, q.z, q.w};
    if constexpr (BITS == 4) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            op[j][0] = u[j] & 0x0F0F0F0Fu, op[j][2] = u[j] >> 4 & 0x0F0F0F0Fu;
            op[j][1] = v[j] & 0x0F0F0F0Fu, op[j][3] = v[j] >> 4 & 0x0F0F0F0Fu;
        }
    } else {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            op[j][0] = u[2 * j], op[j][2] = u[2 * j + 1];
            op[j][1] = v[2 * j], op[j][3] = v[2 * j + 1];
        }
    }
}

/* The lane's place in a step's input: which pieces meet columns of the group that its column of b is for (-1: none),
 * and where these columns begin, bytes. */
struct wide_lane {
    int piece, at;
};
template <int BITS> CU_DEV wide_lane place_of(int lane) {
    const int g = lane / 4, t = lane % 4, u = g / 2;
    wide_lane l;
    l.piece = BITS == 8 ? u : t / 2 == u % 2 ? u / 2 : -1;
    l.at = (BITS == 8 ? u * 64 + t * 16 : u / 2 * 128 + t * 32) * 2 + g % 2 * 16;
    return l;
}

/* Piece i times one input row's columns of a step. x: the step's digits; none: zeros. */
template <int BITS>
CU_DEV void piece_products(const uint32_t (*op)[4], int i, const uint8_t *x, wide_lane l, const uint8_t *none,
                           int d[2][4]) {
    const uint8_t *p = l.piece == i ? x + l.at : none;
#pragma unroll
    for (int h = 0; h < (BITS == 4 ? 2 : 1); h++) {
        const uint4 v = *(const uint4 *)(p + 32 * h);
        const uint32_t b0[2] = {v.x, v.y}, b1[2] = {v.z, v.w};
        cu_mma_u8s8(d[0], op[2 * h], b0);
        cu_mma_u8s8(d[1], op[2 * h + 1], b1);
    }
}
/* acc [2] += rows g and g + 8 times the lane's group t. s [4]: scale and bias of g, of g + 8. */
CU_DEV void scaled(const int d[2][4], float2 group, const float s[4], float *acc) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int n = (d[0][2 * h] + d[1][2 * h]) * 256 + (d[0][2 * h + 1] + d[1][2 * h + 1]);
        acc[h] = fmaf(s[2 * h] * group.x, (float)n, fmaf(s[2 * h + 1], group.y, acc[h]));
    }
}

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
    typedef shape<BITS> S;
    enum { N_OUT = R * WIDE, OPS = 8 / S::PIECES };
    CU_DYN_SMEM(smem);
    cu_pdl_launch(); /* its blocks come when these go: nothing is gained by waiting */
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, n_warp = (int)blockDim.x / CU_WARP;
    const int n_unit = units_of(a);
    uint8_t *ring = smem + warp * S::RING * S::SLOT;
    uint16_t *xb = (uint16_t *)(smem + a.at_x);
    float *red = (float *)(smem + a.at_red), *sum = (float *)(smem + a.at_sum), *rms = sum + CU_WARP,
          *keep = (float *)(smem + a.at_keep);
    const uint8_t *none = (const uint8_t *)(sum + CU_WARP + 16);

    wide_feed<BITS> feed;
    feed.begin(a, warp, lane);
#pragma unroll 1
    for (int i = 0; i < S::RING - 1; i++) feed.issue(a, ring + i * S::SLOT, warp, lane, n_warp);
    if (threadIdx.x < 16) sum[CU_WARP + 16 + threadIdx.x] = 0;
    if (a.norm.w)
        for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i * 32 < a.K; i += (int)(gridDim.x * blockDim.x))
            cu_prefetch_l2(a.norm.w + i * 32);
    cu_pdl_wait();

    const wide_lane place = place_of<BITS>(lane);
    int slot = 0, turn = 0;
#pragma unroll 1
    for (int c = 0; c < a.n_chunk; c++) {
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
            const int out_m = o / WIDE;
            bool query = false;
            cu_ready ready = {0, 0, 0, 1, 0, 0, NULL};
            if (last && out_m < a.M) ready = ready_of(a, unit, out_m, o % WIDE, &query);
            float acc[2 * R] = {};
#pragma unroll 1
            for (int s = warp; s < n; s += n_warp) {
                cu_cp_wait<S::RING - 2>();
                __syncwarp();
                feed.issue(a, ring + (slot ? slot - 1 : S::RING - 1) * S::SLOT, warp, lane, n_warp);
                const uint8_t *at = ring + slot * S::SLOT, *sc = at + S::SCALES + lane / 4 * 16 + lane % 4 * 2;
                auto end = [&](const int d[2][4], int m) {
                    const float scale[4] = {scale_of<TYPE>(sc), scale_of<TYPE>(sc + 8),
                                            scale_of<TYPE>(sc + CU_TILE * 16), scale_of<TYPE>(sc + CU_TILE * 16 + 8)};
                    scaled(d, groups_of(a, xb, m)[s * STEP_GROUPS + lane % 4], scale, acc + 2 * m);
                };
                if constexpr (R == 1) { /* piece by piece, for the sake of registers */
                    int d[2][4] = {};
#pragma unroll
                    for (int i = 0; i < S::PIECES; i++) {
                        uint32_t op[OPS][4];
                        operand<BITS>(at, lane, i, op);
                        piece_products<BITS>(op, i, (const uint8_t *)(xb + s * CU_QCOLS), place, none, d);
                    }
                    end(d, 0);
                } else {
                    uint32_t op[8][4];
#pragma unroll
                    for (int i = 0; i < S::PIECES; i++) operand<BITS>(at, lane, i, op + i * OPS);
#pragma unroll
                    for (int m = 0; m < R; m++) {
                        if (m >= a.M) break;
                        int d[2][4] = {};
#pragma unroll
                        for (int i = 0; i < S::PIECES; i++)
                            piece_products<BITS>(op + i * OPS, i, (const uint8_t *)(xb + m * a.ldx + s * CU_QCOLS),
                                                 place, none, d);
                        end(d, m);
                    }
                }
                slot = slot + 1 == S::RING ? 0 : slot + 1;
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
                    if (lane % 4 == 0) mine[m * WIDE + h * CU_TILE + lane / 4] = v;
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
    if (a.end != CU_END_POST && a.end != CU_END_HEADS) return;
    __threadfence(); /* this block's results before its counts */
    __syncthreads();
    if (a.end == CU_END_HEADS)
        cu_stream_heads(a, (int *)smem);
    else if (cu_stream_last(a, (int *)smem))
        cu_stream_post(a, sum);
}

/* ---- the table ---- */

#define WIDE_FMT(bits, name, type)                                                                                     \
    {                                                                                                                  \
        "stream affine" #bits "g64" name, CU_QCOLS, shape<bits>::SLOT, 8, shape<bits>::RING,                           \
            cu_stream_line(CU_QCOLS, 32), 1,                                                                           \
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
