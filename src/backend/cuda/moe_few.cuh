/* Experts of few rows (decode): what a format of stream.cuh needs to be one of experts too. Two kernels: `up` makes
 * h = act(gate x) * (up x) of every choice (row, k), `down` the weighted sum of the choices' down h. Both are bound by
 * the speed at which the chosen experts' rows come from memory.
 *
 * Geometry. A tile is 8 rows of an expert's matrix. A block of `up` is a tile of one choice: half of its warps take the
 * gate's rows, half the up projection's, each a part of the columns. A block of `down` is a tile of one input row: its
 * warps share the choices, and where there are few of these the columns, so the weighted sum needs no second pass over
 * memory and no atomics. A warp has its own ring of slots and waits for nobody but at the ends; blocks are short and
 * many fit a multiprocessor, so that loads of one hide the beginning and end of another. `up` can fetch nothing before
 * the kernel before has ended: the choice decides what; it lets `down` start only then, and `down` fetches its first
 * weights while `up` runs. Sums are added in a fixed order, so that a row's bits do not
 * depend on what else is in the batch. Rows that chose the same expert read it each for themselves.
 *
 * Arithmetic is the format's (fast, exact): all 8 rows of the tensor cores' operand are the same input row. */
#ifndef FA_CUDA_MOE_FEW_CUH
#define FA_CUDA_MOE_FEW_CUH

#include "backend/cuda/stream.cuh"

enum {
    CU_MOE_UP_WARPS = 4,
    CU_MOE_DOWN_WARPS = 8,
    CU_MOE_RING = 5,     /* slots of a warp at most */
    CU_MOE_INT_RING = 3, /* of moe_int.cu's warps */
    CU_MOE_INT_UNITS = 4,
    CU_MOE_UP = 0, /* kernels of a format */
    CU_MOE_DOWN,
    CU_MOE_UP_EXACT,
    CU_MOE_DOWN_EXACT,
};

/* What `up` makes of a row's results */
enum {
    CU_MOE_GLU,  /* act(m[0]) * m[1] */
    CU_MOE_ACT,  /* act(m[0]), there are no gates */
    CU_MOE_GATE, /* m[0] as it is: a gate in another format than the up projection */
    CU_MOE_WITH  /* act(what GATE left) * m[0] */
};

/* A stack of experts: expert e's planes are e strides behind the first's. */
typedef struct cu_moe_mat {
    cu_mat w;
    int64_t stride, scale_stride;
    const float *bias; /* [n_expert, rows] or NULL */
} cu_moe_mat;

struct cu_moe_few_args {
    cu_moe_mat m[2]; /* up: gate and up, or one; down */
    int n_mat, n_expert, n_used;
    const float *choice;  /* [rows, 2 n_used] */
    const void *x;        /* up: [rows, ldx] f32 or bf16; down: h, [rows * n_used, ldx] */
    int x_type, ldx, vec; /* vec: rows may be read 16 bytes at a time */
    int n_step, parts;    /* steps of the columns; parts that they are cut into */
    int at_x, at_red;     /* places in shared memory, bytes */
    int line;             /* bytes of a staged row, or of a warp's part of one (down) */
    /* moe_int.cu: units of a choice (up), of a row (down); bytes from one unit, and from one expert, to the next, in
     * either plane; what a warp's next step of all choices' is (down): so many choices and so many steps on */
    int n_unit, unit_codes, unit_scales, step_codes, step_scales, turn_k, turn_s;
    const uint8_t *digits; /* ... the input rows as digits, `line` bytes each, or NULL */
    int early;             /* down: the kernel before lets this one start when the choice is there */
    void *out;             /* up: h; down: [rows, ld] f32 */
    int out_type, ld;
    int end, act;
    float limit;
    float scale; /* down */
    int add;
};

CU_DEV int cu_moe_expert(const cu_moe_few_args &a, int m, int k) {
    const unsigned e = (unsigned)__float_as_int(__ldcg(a.choice + (int64_t)m * 2 * a.n_used + a.n_used + k));
    return (int)(e < (unsigned)a.n_expert ? e : 0);
}

CU_DEV cu_mat cu_moe_mat_of(const cu_moe_mat &m, int e) {
    cu_mat w = m.w;
    w.codes += e * m.stride;
    w.scales += e * m.scale_stride;
    w.biases += e * m.scale_stride;
    return w;
}

/* gate and up as fa_moe says */
CU_DEV float cu_moe_glu(int act, float limit, float gate, float up) {
    if (limit > 0) gate = fminf(gate, limit), up = fminf(fmaxf(up, -limit), limit) + 1.0f;
    return cu_act(act, gate) * up;
}
CU_DEV float cu_moe_act(int act, float limit, float up) {
    if (limit > 0) up = fminf(fmaxf(up, -limit), limit) + 1.0f;
    return cu_act(act, up);
}

/* What `up` makes of results v [n_mat]; at: their place in the hidden rows. */
CU_DEV float cu_moe_hidden(const cu_moe_few_args &a, const float v[2], int64_t at) {
    switch (a.end) {
    case CU_MOE_GLU: return cu_moe_glu(a.act, a.limit, v[0], v[1]);
    case CU_MOE_ACT: return cu_moe_act(a.act, a.limit, v[0]);
    case CU_MOE_WITH: return cu_moe_glu(a.act, a.limit, cu_get(a.out, a.out_type, at), v[0]);
    default: return v[0];
    }
}

/* ---- input ---- */

/* Columns k .. k + 15 of a row of K; zeros from K on. */
CU_DEV void cu_moe_load16(const void *x, int type, int vec, int k, int K, float v[16]) {
    if (vec && k + 16 <= K) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float4 f;
            if (type == FA_F32) {
                f = __ldcg((const float4 *)x + k / 4 + i);
            } else {
                const uint2 b = __ldcg((const uint2 *)x + k / 4 + i);
                f = make_float4(cu_bf16_lo(b.x), cu_bf16_hi(b.x), cu_bf16_lo(b.y), cu_bf16_hi(b.y));
            }
            v[4 * i] = f.x, v[4 * i + 1] = f.y, v[4 * i + 2] = f.z, v[4 * i + 3] = f.w;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 16; i++) v[i] = k + i < K ? cu_get(x, type, k + i) : 0.0f;
}

/* Columns [from, to) of a row to xs as the format wants them (f32 in exact mode), with their sums behind. n warps share
 * the work, this is the i-th of them; from and to are multiples of 64. */
template <int CODES, class T>
CU_DEV void cu_moe_stage(const void *x, int type, int vec, int K, int from, int to, int i, int n, T *xs) {
    const int lane = (int)threadIdx.x % CU_WARP;
    float *sums = (float *)(xs + (to - from));
    for (int k0 = from + i * 512; k0 < to; k0 += n * 512) {
        const int k = k0 + lane * 16;
        float v[16], s = 0;
        if (k < to) {
            cu_moe_load16(x, type, vec, k, K, v);
            if constexpr (sizeof(T) == 4) {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    ((float4 *)(xs + (k - from)))[j] = make_float4(v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3]);
            } else {
                uint32_t p[8];
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const int at = j / 4 * 8;
                    p[j] = CODES ? cu_to_bf16x2(v[at + j % 4], v[at + j % 4 + 4])
                                 : cu_to_bf16x2(v[at + j % 4 * 2], v[at + j % 4 * 2 + 1]);
                    if (CODES) s += cu_bf16_lo(p[j]) + cu_bf16_hi(p[j]);
                }
                ((uint4 *)(xs + (k - from)))[0] = make_uint4(p[0], p[1], p[2], p[3]);
                ((uint4 *)(xs + (k - from)))[1] = make_uint4(p[4], p[5], p[6], p[7]);
            }
        }
        if constexpr (CODES != 0) {
#pragma unroll
            for (int d = 1; d < CODES / 16; d *= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
            if (k < to && k % CODES == 0) sums[(k - from) / CODES] = s;
        }
    }
}

/* ---- 8 rows times one input row, by a warp ---- */

template <class F, bool EXACT> struct cu_moe_rows {
    enum { RING = (int)F::RING < (int)CU_MOE_RING ? (int)F::RING : (int)CU_MOE_RING };
    typename F::cursor cur;
    cu_mat w;
    int step, end;

    __device__ __forceinline__ void issue(uint8_t *slot, int s, int lane) {
        if (s < end) F::fetch(slot, w, cur, s, lane);
        cu_cp_commit();
    }
    /* Starts the loads of steps from .. to - 1. */
    __device__ __forceinline__ void begin(const cu_mat &m, int tile, int from, int to, uint8_t *ring, int lane) {
        const cu_tile t = {tile * CU_TILE, 4};
        w = m;
        cur = F::at(w, t, lane);
        step = from, end = to;
        for (int i = 0; i < RING - 1; i++) issue(ring + i * F::SLOT, from + i, lane);
    }
    /* The results to red [8]. xs: staged columns, the first of step `step`; sums: theirs. */
    template <class T>
    __device__ __forceinline__ void run(const T *xs, const float *sums, uint8_t *ring, float *red, int lane) {
        float acc[8] = {};
        int slot = 0;
        for (int s = step; s < end; s++) {
            cu_cp_wait<RING - 2>();
            __syncwarp();
            issue(ring + (slot ? slot - 1 : RING - 1) * F::SLOT, s + RING - 1, lane);
            const T *x = xs + (s - step) * F::COLS;
            if constexpr (EXACT) {
                F::template exact<1>(ring + slot * F::SLOT, w, s, lane, x, 0, 1, acc);
            } else if constexpr (F::CODES != 0) {
                const float *sum = sums + (s - step) * (F::COLS / F::CODES);
                F::template fast<false>(ring + slot * F::SLOT, w, s, lane, x, x, sum, sum, (float(*)[4])acc);
            } else {
                F::template fast<false>(ring + slot * F::SLOT, w, s, lane, x, x, (float(*)[4])acc);
            }
            slot = slot + 1 == RING ? 0 : slot + 1;
        }
        if constexpr (EXACT) {
            float v = acc[0];
            v += __shfl_xor_sync(0xffffffffu, v, 1);
            v += __shfl_xor_sync(0xffffffffu, v, 2);
            if (lane % 4 == 0) red[lane / 4] = v;
        } else if (lane < 4) {
            red[2 * lane] = acc[0] + acc[4];
            red[2 * lane + 1] = acc[1] + acc[5];
        }
        __syncwarp(); /* the ring and xs are free */
    }
};

/* ---- kernels ---- */

template <bool EXACT> struct cu_moe_elem { typedef uint16_t type; };
template <> struct cu_moe_elem<true> { typedef float type; };

/* Sums that stand in front of step s. */
template <class F> CU_DEV int cu_moe_sums(int s) {
    if constexpr (F::CODES != 0)
        return s * (F::COLS / F::CODES);
    else
        return 0;
}

/* Grid (tiles of out's columns, choices). Shared memory: rings, the input row, red [warps][8]. */
template <class F, bool EXACT>
__global__ void __launch_bounds__(CU_MOE_UP_WARPS *CU_WARP, 4) cu_moe_up(const __grid_constant__ cu_moe_few_args a) {
    typedef cu_moe_rows<F, EXACT> rows_of;
    typedef typename cu_moe_elem<EXACT>::type T;
    CU_DYN_SMEM(smem);
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP;
    const int m = (int)blockIdx.y / a.n_used, cols = a.n_step * F::COLS, n_row = a.m[0].w.rows;
    uint8_t *ring = smem + warp * rows_of::RING * F::SLOT;
    T *xs = (T *)(smem + a.at_x);
    float *red = (float *)(smem + a.at_red);
    cu_pdl_wait();
    cu_pdl_launch(); /* not earlier: `down` looks at the choice at once */
    const int e = cu_moe_expert(a, m, (int)blockIdx.y % a.n_used), mat = warp / a.parts, part = warp % a.parts;
    const int from = a.n_step * part / a.parts, to = a.n_step * (part + 1) / a.parts;
    rows_of rows;
    rows.begin(cu_moe_mat_of(a.m[mat], e), (int)blockIdx.x, from, to, ring, lane);
    cu_moe_stage<F::CODES>((const uint8_t *)a.x + (int64_t)m * a.ldx * (a.x_type == FA_F32 ? 4 : 2), a.x_type, a.vec,
                           a.m[0].w.cols, 0, cols, warp, CU_MOE_UP_WARPS, xs);
    __syncthreads();
    rows.run(xs + from * F::COLS, (const float *)(xs + cols) + cu_moe_sums<F>(from), ring, red + warp * CU_TILE, lane);
    __syncthreads();
    const int i = (int)threadIdx.x, row = (int)blockIdx.x * CU_TILE + i;
    if (i >= CU_TILE || row >= a.ld) return;
    const int64_t at = (int64_t)blockIdx.y * a.ld + row;
    float v[2] = {0, 0};
    for (int j = 0; j < a.n_mat && row < n_row; j++) {
        for (int p = 0; p < a.parts; p++) v[j] += red[(j * a.parts + p) * CU_TILE + i];
        if (a.m[j].bias) v[j] += a.m[j].bias[(int64_t)e * n_row + row];
    }
    v[0] = cu_moe_hidden(a, v, at);
    cu_put(a.out, a.out_type, at, row < n_row ? v[0] : 0.0f); /* what pads a row is zeros */
}

/* Grid (tiles, input rows). Shared memory: rings, a part of h for each warp, red [choices * parts][8]. */
template <class F, bool EXACT>
__global__ void __launch_bounds__(CU_MOE_DOWN_WARPS *CU_WARP, 2)
    cu_moe_down(const __grid_constant__ cu_moe_few_args a) {
    typedef cu_moe_rows<F, EXACT> rows_of;
    typedef typename cu_moe_elem<EXACT>::type T;
    CU_DYN_SMEM(smem);
    const int lane = (int)threadIdx.x % CU_WARP, warp = (int)threadIdx.x / CU_WARP, m = (int)blockIdx.y;
    uint8_t *ring = smem + warp * rows_of::RING * F::SLOT;
    T *xs = (T *)(smem + a.at_x + warp * a.line);
    float *red = (float *)(smem + a.at_red);
    cu_pdl_launch();
    bool waits = a.early != 0; /* for the hidden rows, behind the first loads of weights */
    if (!waits || warp >= a.n_used * a.parts) cu_pdl_wait();
    for (int i = warp; i < a.n_used * a.parts; i += CU_MOE_DOWN_WARPS) {
        const int k = i / a.parts, part = i % a.parts;
        const int from = a.n_step * part / a.parts, to = a.n_step * (part + 1) / a.parts;
        const int64_t h = ((int64_t)m * a.n_used + k) * a.ldx * (a.x_type == FA_F32 ? 4 : 2);
        rows_of rows;
        rows.begin(cu_moe_mat_of(a.m[0], cu_moe_expert(a, m, k)), (int)blockIdx.x, from, to, ring, lane);
        if (waits) cu_pdl_wait();
        waits = false;
        cu_moe_stage<F::CODES>((const uint8_t *)a.x + h, a.x_type, a.vec, a.m[0].w.cols, from * F::COLS, to * F::COLS,
                               0, 1, xs);
        __syncwarp();
        rows.run(xs, (const float *)(xs + (to - from) * F::COLS), ring, red + i * CU_TILE, lane);
    }
    __syncthreads();
    const int i = (int)threadIdx.x, row = (int)blockIdx.x * CU_TILE + i;
    if (i >= CU_TILE || row >= a.m[0].w.rows) return;
    float sum = 0;
    for (int k = 0; k < a.n_used; k++) {
        float v = 0;
        for (int p = 0; p < a.parts; p++) v += red[(k * a.parts + p) * CU_TILE + i];
        if (a.m[0].bias) v += a.m[0].bias[(int64_t)cu_moe_expert(a, m, k) * a.m[0].w.rows + row];
        sum = fmaf(a.choice[(int64_t)m * 2 * a.n_used + k], v, sum);
    }
    float *out = (float *)a.out + (int64_t)m * a.ld + row;
    *out = (a.add ? *out : 0.0f) + a.scale * sum;
}

#endif
