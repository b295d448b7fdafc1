/* Experts of many rows on Hopper: the two products of moe_many.cu with wgmma, and the order of columns that they need.
 *
 * A warpgroup computes d [64 weight rows, N places] = W [64, k] x [N, k]^T, sums in registers. The weights are the
 * operand from registers: a lane unpacks what it needs of them, and nothing unpacked passes through shared memory. The
 * rows of x are the operand from shared memory. Each multiprocessor has one block, which goes through the tiles: its
 * first warpgroup copies (cp.async: rows of x are gathered by the sorted list, weights come as stored) into a ring of
 * stages of 64 columns of k, the other four have 64 weight rows each and run behind: while one unpacks or finishes, the
 * others multiply. N is 16 to 128, as many as the tile has places, so that empty places are not multiplied; a weight is
 * unpacked once per tile.
 *
 * Order of columns. Of 64 columns lane t of a quad reads 16 neighbours of a weight row, columns 16 t and on: 8 bytes of
 * 4-bit codes, one load. The operand wants in step s (16 columns) the elements 2 t + b + 8 c. Element s, c, b of a lane
 * is its column 8 (s / 2) + 2 (s % 2) + c + 4 b: columns 4 apart stand 16 bits apart in a word of 4-bit codes. x has
 * its columns in this order (place_of), by the kernel that makes bf16 of it; h by the first product, which gives the
 * rows of its weights to lanes such that they write 8 neighbours in it.
 *
 * Rows of weights. Row 16 q + 8 half + e of a block is row 8 half + e of warp q of those that multiply: lane g = e has
 * it with half 0 and 1. With gates half 0 is the gate and half 1 up, so that a lane has both. */
#include "backend/cuda/cu_wgmma.h"
#include "backend/cuda/moe_many.cuh"

enum {
    COPIERS = 128,
    GROUPS = 4, /* warpgroups that multiply */
    THREADS = COPIERS + 128 * GROUPS,
    ROWS = 64 * GROUPS,       /* of weights of a block */
    TN = CU_MOE_WGMMA_ROWS,   /* places of a tile */
    BK = 64,                  /* columns of a stage */
    X_BYTES = TN * BK * 2,    /* of a stage */
    CHUNKS = 3,               /* slots of scales, each of 16 bytes of scales of each row */
    CHUNK_BYTES = ROWS * 32,  /* scales and biases */
    SMEM = (227 << 10) - 512, /* static: barriers */
    MAX_STAGES = 8,
    FEW_REGS = 32, /* of the 96 that all begin with: 96 * THREADS are there */
    MANY_REGS = 112
};

/* ---- formats ---- */

template <int KIND> struct fmt {
    static constexpr bool is_float = KIND == CU_K_BF16 || KIND == CU_K_F16;
    static constexpr int bits = is_float ? 16 : KIND == CU_K_MXFP4 ? 4 : cu_kind_info<KIND>::bits;
    static constexpr int row = bits * BK / 8; /* bytes of a weight row in a stage */
    static constexpr int words = bits / 2;    /* of a lane's 16 columns */
    static constexpr int held = is_float ? 4 : words;
    static constexpr int planes = is_float ? 0 : KIND == CU_K_MXFP4 ? 1 : 2;
    static constexpr int stage = X_BYTES + ROWS * row;
    static constexpr int at_chunks = 1024; /* room to begin at a multiple of 1024 */
    static constexpr int fit = (SMEM - at_chunks - (planes ? CHUNKS * CHUNK_BYTES : 0)) / stage;
    static constexpr int stages = fit < MAX_STAGES ? fit : MAX_STAGES;
    static constexpr int smem = at_chunks + stages * stage + (planes ? CHUNKS * CHUNK_BYTES : 0);
};

#if CU_HAS_WGMMA

/* The operand's elements of step s, half c: columns 8 (s / 2) + p and p + 4 of a lane's 16, p = 2 (s % 2) + c. */
typedef struct scaled {
    float s, lo, hi; /* value = number * s + lo (hi: of the upper half of a pair) */
    uint32_t two;    /* mxfp4: the scale in both halves */
} scaled;

CU_DEV uint32_t pair_of(uint32_t p, const scaled &v) {
    return cu_to_bf16x2(fmaf(cu_bf16_lo(p), v.s, v.lo), fmaf(__uint_as_float(p), v.s, v.hi));
}

template <int KIND> CU_DEV uint32_t element(const uint32_t *u, const scaled &v, int s, int c) {
    const int h = s / 2, p = 2 * (s % 2) + c;
    if constexpr (KIND == CU_K_A4) {
        return pair_of(cu_and_or(u[h] >> 4 * p, 0x000F000Fu, 0x43004300u), v);
    } else if constexpr (KIND == CU_K_A2) {
        return pair_of(cu_and_or(__byte_perm(u[0] >> (16 * h + 2 * p), 0, 0x4140), 0x00030003u, 0x43004300u), v);
    } else if constexpr (KIND == CU_K_A6) {
        const int lo = 48 * h + 6 * p, hi = lo + 24;
        const uint32_t a = __funnelshift_r(u[lo / 32], u[lo / 32 < 2 ? lo / 32 + 1 : 2], (unsigned)lo % 32);
        const uint32_t b = __funnelshift_r(u[hi / 32], u[hi / 32 < 2 ? hi / 32 + 1 : 2], (unsigned)hi % 32);
        return pair_of(cu_and_or(__byte_perm(a, b, 0x5410), 0x003F003Fu, 0x43004300u), v);
    } else if constexpr (KIND == CU_K_A8) { /* 2^23 + code is a float */
        const float a = __uint_as_float(__byte_perm(u[2 * h], 0x4B000000u, 0x7440u | (unsigned)p)) - 8388608.0f;
        const float b = __uint_as_float(__byte_perm(u[2 * h + 1], 0x4B000000u, 0x7440u | (unsigned)p)) - 8388608.0f;
        return cu_to_bf16x2(fmaf(a, v.s, v.lo), fmaf(b, v.s, v.lo));
    } else if constexpr (KIND == CU_K_MXFP4) {
        return cu_bf16x2_fma(cu_e2m1_pair(u[h] << (12 - 4 * p)), v.two, 0x80008000u);
    } else {
        const uint32_t two = __byte_perm(u[p / 2], u[p / 2 + 2], p % 2 ? 0x7632 : 0x5410);
        return KIND == CU_K_BF16 ? two : cu_to_bf16x2(cu_f16_lo(two), cu_f16_hi(two));
    }
}

/* Lane t's 16 columns of row r of a stage. */
template <int KIND> CU_DEV void load_row(const uint8_t *w, int r, int t, uint32_t *u) {
    const uint8_t *p = w + r * fmt<KIND>::row + t * fmt<KIND>::words * 4;
    if constexpr (fmt<KIND>::words == 4) {
        const uint4 v = *(const uint4 *)p;
        u[0] = v.x, u[1] = v.y, u[2] = v.z, u[3] = v.w;
    } else if constexpr (fmt<KIND>::words == 2) {
        const uint2 v = *(const uint2 *)p;
        u[0] = v.x, u[1] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i < fmt<KIND>::words; i++) u[i] = ((const uint32_t *)p)[i];
    }
}

/* 8 of the 16 columns of a row of 2-byte floats, 128 bytes a row. Rows have their pieces of 16 bytes swapped in odd
 * rows, so that loads meet no bank twice. */
CU_DEV void load_half(const uint8_t *w, int r, int t, int half, uint32_t *u) {
    const uint4 v = *(const uint4 *)(w + r * 128 + 16 * ((2 * t + half) ^ (r & 1)));
    u[0] = v.x, u[1] = v.y, u[2] = v.z, u[3] = v.w;
}

/* The number of `type` at a byte of 16, without branches. */
CU_DEV float number_at(const uint8_t *p, int at, int type) {
    const uint32_t word = *(const uint32_t *)(p + (at & ~3)), half = word >> 8 * (at & 2) & 0xFFFFu;
    const float f16 = cu_f16((uint16_t)half);
    const uint32_t two = type == FA_F16 ? __float_as_uint(f16) : half << 16;
    return __uint_as_float(type == FA_F32 ? word : two);
}

/* chunk: of the row, scales and behind them biases; at: byte in each. */
template <int KIND> CU_DEV scaled load_scale(const uint8_t *chunk, int at, int type) {
    scaled v = {};
    if constexpr (KIND == CU_K_MXFP4) {
        const uint32_t e = chunk[at], s = __float_as_uint(2.0f * cu_half_e8m0(e)) >> 16;
        v.two = s | s << 16;
    } else if constexpr (fmt<KIND>::planes == 2) {
        v.s = number_at(chunk, at, type);
        const float b = number_at(chunk + 16, at, type);
        if constexpr (KIND == CU_K_A8) {
            v.lo = b;
        } else { /* numbers are 128 + code; the upper half of a pair is taken with the lower: 0x43xx / 2^16 more */
            v.lo = fmaf(-128.0f, v.s, b);
            v.hi = fmaf(-128.26171875f, v.s, b);
        }
    }
    return v;
}

/* ---- where things are ---- */

/* Column of the output (of gate or up: half does not matter) that is a block's weight row r, from the block's first. A
 * sum of what each bit of r gives. */
CU_DEV constexpr int column_of(int r, bool paired) {
    const int e = r & 7, half = r >> 3 & 1, q = r >> 4;
    if (!paired) return 16 * q + 4 * (e >> 1) + 2 * half + (e & 1);
    return 64 * (q >> 3) + 8 * (q >> 2 & 1) + 2 * (q >> 1 & 1) + (q & 1) + 16 * (e >> 1) + 4 * (e & 1);
}
/* Barriers: full and empty of each stage, then empty of each slot of scales. A place is an address in shared memory. */
enum { N_BARRIER = 2 * MAX_STAGES + CHUNKS };
CU_DEV uint32_t full_of(uint32_t bars, int stage) { return bars + 8 * (unsigned)stage; }
CU_DEV uint32_t empty_of(uint32_t bars, int stage) { return bars + 8 * (unsigned)(MAX_STAGES + stage); }
CU_DEV uint32_t chunk_of(uint32_t bars, int slot) { return bars + 8 * (unsigned)(2 * MAX_STAGES + slot); }

CU_DEV int chunk_columns(const cu_moe_product &a) { /* that 16 bytes of a row's scales are for */
    const int size = a.w[0].kind == CU_K_MXFP4 ? 1 : a.w[0].scale_dtype == FA_F32 ? 4 : 2;
    return (16 / size) << a.w[0].group_log;
}
CU_DEV int scale_byte(const cu_moe_product &a, int k) {
    const int size = a.w[0].kind == CU_K_MXFP4 ? 1 : a.w[0].scale_dtype == FA_F32 ? 4 : 2;
    return (k >> a.w[0].group_log) * size;
}

/* A block's tiles: columns of one tile of places after one another. The next one is fetched early. */
template <bool PAIRED> struct walk {
    int item, n_item, n_col, col0;
    int4 tile, next;

    static constexpr int wide = PAIRED ? ROWS / 2 : ROWS; /* columns of the output */

    __device__ __forceinline__ explicit walk(const cu_moe_product &a) {
        n_col = (int)((a.ld + wide - 1) / wide);
        n_item = *a.n_tile * n_col;
        item = (int)blockIdx.x - (int)gridDim.x;
        if ((int)blockIdx.x < n_item) next = a.tile[(int)blockIdx.x / n_col];
    }
    __device__ __forceinline__ bool step(const cu_moe_product &a) {
        item += (int)gridDim.x;
        if (item >= n_item) return false;
        tile = next;
        col0 = item % n_col * wide;
        if (item + (int)gridDim.x < n_item) next = a.tile[(item + (int)gridDim.x) / n_col];
        return true;
    }
};

/* ---- copying ---- */

/* A thread copies 16 bytes at a time: of rows of x two pieces of TN / 32 rows, of weights the same piece of every
 * per-th row. Places that a tile does not have get its last row: their sums are never looked at. */
template <int KIND, bool PAIRED> struct copier {
    const cu_moe_product &a;
    const uint8_t *codes, *x[TN / 32]; /* go along with k */
    uint32_t there;                    /* bit j: the j-th row of weights */
    int room;                          /* bytes of a row of codes that are left from this thread's piece on */
    int pitch;                         /* of rows of codes */
    walk<PAIRED> w;

    static constexpr int pieces = fmt<KIND>::row / 16; /* of a row of a stage */
    /* A thread has row `first` and the rows that differ from it in higher bits; A6 has three pieces a row. */
    static constexpr int per = pieces == 3 ? COPIERS : COPIERS / pieces;

    __device__ __forceinline__ int first() const { return pieces == 3 ? (int)threadIdx.x : (int)threadIdx.x / pieces; }
    __device__ __forceinline__ int piece() const { return pieces == 3 ? 0 : (int)threadIdx.x % pieces; }

    __device__ __forceinline__ explicit copier(const cu_moe_product &args) : a(args), w(args) {}

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (int j = 0; j < TN / 32; j++) {
            const int m = min((int)threadIdx.x / 4 + 32 * j, w.tile.z - 1);
            x[j] = (const uint8_t *)a.x + cu_moe_source(a, w.tile.y + m) * a.ldx * 2 + (int)threadIdx.x % 4 * 16;
        }
        const int mat = PAIRED ? first() >> 3 & 1 : 0, col = w.col0 + column_of(first(), PAIRED);
        pitch = (int)a.w[mat].row_bytes;
        codes = a.w[mat].codes + w.tile.x * a.stride[mat] + (int64_t)col * pitch + 16 * piece();
        room = pitch - 16 * piece();
        there = 0;
#pragma unroll
        for (int j = 0; j < ROWS / per; j++) there |= (uint32_t)(col + column_of(j * per, PAIRED) < a.N) << j;
    }

    __device__ __forceinline__ void rows(uint8_t *xs) {
        const int r = (int)threadIdx.x / 4, c = (int)threadIdx.x % 4;
        uint8_t *to = xs + r * 128;
#pragma unroll
        for (int j = 0; j < TN / 32; j++) {
            if (32 * j >= w.tile.z) break;
            cu_cp_async(to + 32 * 128 * j + (c ^ (r & 7)) * 16, x[j]);
            cu_cp_async(to + 32 * 128 * j + ((c + 4) ^ (r & 7)) * 16, x[j] + 64);
        }
#pragma unroll
        for (int j = 0; j < TN / 32; j++) x[j] += 128;
    }
    __device__ __forceinline__ void weights(uint8_t *ws) {
#pragma unroll
        for (int i = 0; i < (pieces == 3 ? 3 : 1); i++) {
            const int left = room - 16 * i, n = left < 0 ? 0 : left < 16 ? left : 16;
            const int c = fmt<KIND>::is_float ? piece() ^ (first() & 1) : piece() + i;
            uint8_t *to = ws + first() * fmt<KIND>::row + 16 * c;
#pragma unroll
            for (int j = 0; j < ROWS / per; j++)
                cu_cp_async(to + j * per * fmt<KIND>::row, codes + (int64_t)column_of(j * per, PAIRED) * pitch + 16 * i,
                            there >> j & 1 ? n : 0);
        }
        codes += fmt<KIND>::row;
        room -= fmt<KIND>::row;
    }
    /* 16 bytes of scales of two rows. */
    __device__ __forceinline__ void scales(int k0, uint8_t *chunk) const {
        const int at = scale_byte(a, k0);
#pragma unroll
        for (int j = 0; j < ROWS / COPIERS; j++) {
            const int r = (int)threadIdx.x + COPIERS * j, m = PAIRED ? r >> 3 & 1 : 0;
            const int n0 = w.col0 + column_of(r, PAIRED), left = (int)a.w[m].scale_row_bytes - at;
            const int n = n0 < a.N && left > 0 ? min(left, 16) : 0;
            const int64_t from = w.tile.x * a.scale_stride[m] + n0 * a.w[m].scale_row_bytes + at;
            cu_cp_async(chunk + r * 32, a.w[m].scales + from, n);
            if constexpr (fmt<KIND>::planes == 2) cu_cp_async(chunk + r * 32 + 16, a.w[m].biases + from, n);
        }
    }
};

template <int KIND, bool PAIRED> CU_DEV void copy_all(const cu_moe_product &a, uint32_t bars, uint8_t *stages) {
    typedef fmt<KIND> F;
    copier<KIND, PAIRED> c(a);
    uint8_t *chunks = stages + F::stages * F::stage;
    cu_ring<F::stages> st = {0, 1}; /* all slots are free at first */
    cu_ring<CHUNKS> ch = {0, 1};
    const int span = F::planes ? chunk_columns(a) : 1;
    while (c.w.step(a)) {
        c.begin();
        for (int k = 0; k < a.K; k += BK) {
            uint8_t *at = stages + st.slot * F::stage;
            cu_mbar_wait(empty_of(bars, st.slot), st.phase);
            if (F::planes && (k & (span - 1)) == 0) {
                cu_mbar_wait(chunk_of(bars, ch.slot), ch.phase);
                c.scales(k, chunks + ch.slot * CHUNK_BYTES);
                ch.step();
            }
            c.rows(at);
            c.weights(at + X_BYTES);
            cu_mbar_arrive_cp(full_of(bars, st.slot));
            st.step();
        }
    }
}

/* ---- products ---- */

template <int KIND, bool PAIRED> struct consumer {
    const cu_moe_product &a;
    uint32_t bars;
    uint8_t *stages;
    cu_ring<fmt<KIND>::stages> st;
    cu_ring<CHUNKS> ch;
    int span, row0; /* row0: first row of this lane in a stage */
    walk<PAIRED> w;

    __device__ __forceinline__ consumer(const cu_moe_product &args, uint32_t b, uint8_t *s)
        : a(args), bars(b), stages(s), w(args) {
        const int lane = (int)threadIdx.x % CU_WARP, q = ((int)threadIdx.x - COPIERS) / CU_WARP;
        st = {0, 0}, ch = {0, 0};
        span = fmt<KIND>::planes ? chunk_columns(a) : 1;
        row0 = 16 * q + lane / 4;
    }

    __device__ __forceinline__ void release(int slot, int chunk) const { /* chunk -1: not yet */
        __syncwarp();
        if (threadIdx.x % CU_WARP) return;
        cu_mbar_arrive(empty_of(bars, slot));
        if (chunk >= 0) cu_mbar_arrive(chunk_of(bars, chunk));
    }

    /* This lane's weights of a stage, as they are stored, with their scales; floats are fetched by halves. */
    struct raw {
        uint32_t u[2][fmt<KIND>::held];
        scaled v[2];
    };

    __device__ __forceinline__ const uint8_t *weights() const { return stages + st.slot * fmt<KIND>::stage + X_BYTES; }

    __device__ __forceinline__ void load(int k, raw *w) const {
        typedef fmt<KIND> F;
        const int t = (int)threadIdx.x % 4;
        const uint8_t *chunk = stages + F::stages * F::stage + ch.slot * CHUNK_BYTES;
        cu_mbar_wait(full_of(bars, st.slot), st.phase);
        cu_proxy_fence();
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if constexpr (!F::is_float) load_row<KIND>(weights(), row0 + 8 * r, t, w->u[r]);
            w->v[r] = load_scale<KIND>(chunk + (row0 + 8 * r) * 32, F::planes ? scale_byte(a, k + 16 * t) & 15 : 0,
                                       a.w[0].scale_dtype);
        }
    }

    /* The operands of two steps. */
    __device__ __forceinline__ void unpack(raw &w, int half, uint32_t (&f)[2][4]) const {
        if constexpr (fmt<KIND>::is_float) {
            const int t = (int)threadIdx.x % 4;
#pragma unroll
            for (int r = 0; r < 2; r++) load_half(weights(), row0 + 8 * r, t, half, w.u[r]);
        }
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                f[s][e] = element<KIND>(w.u[e % 2], w.v[e % 2], 2 * half + s, e / 2);
                cu_pin(f[s][e]);
            }
    }

    template <int N>
    __device__ __forceinline__ static void begin(float (&acc)[N / 2], const uint32_t (&f)[2][4], uint64_t b) {
        cu_wgmma_fence();
#pragma unroll
        for (int s = 0; s < 2; s++) cu_wgmma_bf16<N>(acc, f[s], b + 2 * (unsigned)s);
        cu_wgmma_commit();
    }

    template <int N> __device__ __forceinline__ void multiply(float (&acc)[N / 2]) {
        typedef fmt<KIND> F;
        raw w;
        uint32_t f[2][2][4];
        load(0, &w);
        unpack(w, 0, f[0]);
        for (int k = 0; k < a.K; k += BK) {
            const uint64_t b = cu_wgmma_desc(cu_smem_addr(stages + st.slot * F::stage));
            const int old = st.slot;
            int old_chunk = -1;
            begin<N>(acc, f[0], b);
            unpack(w, 1, f[1]);
            cu_wgmma_wait<0>();
            begin<N>(acc, f[1], b + 4);
            st.step();
            if (F::planes && (((k + BK) & (span - 1)) == 0 || k + BK >= a.K)) {
                old_chunk = ch.slot;
                ch.step();
            }
            if (k + BK < a.K) {
                load(k + BK, &w);
                unpack(w, 0, f[0]);
            }
            cu_wgmma_wait<0>();
            release(old, old_chunk);
        }
    }

    /* h: a lane has of each 8 places two of gate and up, and after the exchange two columns of one place. */
    template <int N> __device__ __forceinline__ void finish_pair(const float (&acc)[N / 2]) const {
        const int g = (int)threadIdx.x % CU_WARP / 4, t = (int)threadIdx.x % 4;
        const int to = w.col0 + row0 / 16 * 8 + 2 * t, n = w.col0 + column_of(row0, true);
        uint16_t *out = (uint16_t *)a.out + ((int64_t)w.tile.y + g) * a.ld + to;
        const float b0 = cu_moe_bias(a, 0, w.tile.x, n), b1 = cu_moe_bias(a, 1, w.tile.x, n);
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            float h[2];
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const float gate = acc[4 * j + c] + b0;
                h[c] = __fdividef(gate, 1.0f + __expf(-gate)) * (acc[4 * j + 2 + c] + b1);
            }
            const uint32_t v = cu_transpose_8x8(cu_to_bf16x2(h[0], h[1]));
            if (8 * j + g < w.tile.z && to < a.ld) *(uint32_t *)(out + 8 * j * a.ld) = v;
        }
    }
    template <int N> __device__ __forceinline__ void finish(const float (&acc)[N / 2]) const {
        const int g = (int)threadIdx.x % CU_WARP / 4, t = (int)threadIdx.x % 4;
        const int to = w.col0 + row0 / 16 * 16 + 4 * t;
        uint16_t *out = (uint16_t *)a.out + ((int64_t)w.tile.y + g) * a.ld + to;
        const float b0 = cu_moe_bias(a, 0, w.tile.x, w.col0 + column_of(row0, false)),
                    b1 = cu_moe_bias(a, 0, w.tile.x, w.col0 + column_of(row0 + 8, false));
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            const float *p = acc + 4 * j;
            const uint2 v = make_uint2(cu_transpose_8x8(cu_to_bf16x2(p[0] + b0, p[1] + b0)),
                                       cu_transpose_8x8(cu_to_bf16x2(p[2] + b1, p[3] + b1)));
            if (8 * j + g < w.tile.z && to < a.ld) *(uint2 *)(out + 8 * j * a.ld) = v;
        }
    }

    template <int N> __device__ __forceinline__ void run() {
        float acc[N / 2] = {};
        multiply<N>(acc);
        if constexpr (PAIRED)
            finish_pair<N>(acc);
        else
            finish<N>(acc);
    }
};

template <int KIND, bool PAIRED> CU_DEV void multiply_all(const cu_moe_product &a, uint32_t bars, uint8_t *stages) {
    consumer<KIND, PAIRED> c(a, bars, stages);
    while (c.w.step(a)) {
        switch ((c.w.tile.z + 15) / 16) {
        case 1: c.template run<16>(); break;
        case 2: c.template run<32>(); break;
        case 3: c.template run<48>(); break;
        case 4: c.template run<64>(); break;
        case 5: c.template run<80>(); break;
        case 6: c.template run<96>(); break;
        case 7: c.template run<112>(); break;
        default: c.template run<128>(); break;
        }
    }
}

#endif /* CU_HAS_WGMMA */

/* Grid: a block for each multiprocessor. */
template <int KIND, bool PAIRED>
static __global__ void __launch_bounds__(THREADS, 1) moe_wgmma(const __grid_constant__ cu_moe_product a) {
#if CU_HAS_WGMMA
    __shared__ __align__(8) uint64_t bar[N_BARRIER];
    CU_DYN_SMEM(smem);
    uint8_t *stages = smem + ((1024 - (cu_smem_addr(smem) & 1023)) & 1023);
    uint32_t bars = cu_smem_addr(bar);
    cu_pin(bars); /* not to be found anew each time */
    if (threadIdx.x == 0) {
        for (int i = 0; i < fmt<KIND>::stages; i++) {
            cu_mbar_init(full_of(bars, i), COPIERS);
            cu_mbar_init(empty_of(bars, i), 4 * GROUPS);
        }
        for (int i = 0; i < CHUNKS; i++) cu_mbar_init(chunk_of(bars, i), 4 * GROUPS);
    }
    cu_pdl_launch();
    cu_pdl_wait();
    __syncthreads();
    if (threadIdx.x < COPIERS) {
        cu_fewer_registers<FEW_REGS>();
        copy_all<KIND, PAIRED>(a, bars, stages);
    } else {
        cu_more_registers<MANY_REGS>();
        multiply_all<KIND, PAIRED>(a, bars, stages);
    }
#else
    (void)a;
#endif
}

/* ---- rows ---- */

/* Where column c of 64 stands in the order of x and h. */
CU_DEV int place_of(int c) {
    const int t = c >> 4, h = c >> 3 & 1, b = c >> 2 & 1, p = c & 3;
    return 16 * (2 * h + (p >> 1)) + 8 * (p & 1) + 2 * t + b;
}

/* out [M, ld] bf16 = x [M, K] in the order of products, zeros from K on. Grid (M, pieces of 8 * 256): a thread makes 8
 * columns. ld is a multiple of 64. */
static __global__ void __launch_bounds__(256)
    moe_rows(const void *x, int x_type, int64_t K, int vec, uint16_t *out, int64_t ld) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t i = 8 * ((int64_t)blockIdx.y * 256 + threadIdx.x), in = (int64_t)blockIdx.x * K + i;
    if (i >= ld) return;
    float v[8] = {};
    if (vec) { /* K is a multiple of 4 */
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if (i + 4 * h >= K) break;
            const float4 f = cu_get4(x, x_type, in + 4 * h);
            v[4 * h] = f.x, v[4 * h + 1] = f.y, v[4 * h + 2] = f.z, v[4 * h + 3] = f.w;
        }
    } else {
        for (int j = 0; j < 8; j++)
            if (i + j < K) v[j] = cu_get(x, x_type, in + j);
    }
    uint16_t *to = out + (int64_t)blockIdx.x * ld + i / 64 * 64;
#pragma unroll
    for (int p = 0; p < 4; p++) *(uint32_t *)(to + place_of((int)(i % 64) + p)) = cu_to_bf16x2(v[p], v[p + 4]);
}

void cu_moe_wgmma_rows(fa_cuda *cu, const void *x, int x_type, int64_t M, int64_t K, void *out, int64_t ld) {
    const int vec = K % 4 == 0 && (uintptr_t)x % 16 == 0;
    CU_LAUNCH(cu, moe_rows, dim3((unsigned)M, cu_blocks(ld, 8 * 256)), 256, 0, x, x_type, K, vec, (uint16_t *)out, ld);
}

/* ---- choosing ---- */

#define FORMATS(X) X(BF16) X(F16) X(A2) X(A4) X(A6) X(A8) X(MXFP4)

static bool stack_fits(const fa_experts *e) {
    const cu_wmat w = cu_wmat_of(&e->w[0]);
    switch (w.kind) {
#define CU_X(id) case CU_K_##id:
        FORMATS(CU_X)
#undef CU_X
        return w.row_bytes % 16 == 0 && w.scale_row_bytes % 16 == 0 && w.row_bytes < INT32_MAX;
    default: return false;
    }
}

/* Does the device's code hold the kernels? Those for other architectures are empty and have no static shared memory. */
static bool compiled(void) {
#ifdef FA_CUDA_EMU
    return true;
#else
    cudaFuncAttributes f = {};
    return cudaFuncGetAttributes(&f, (const void *)moe_wgmma<CU_K_A4, true>) == cudaSuccess && f.sharedSizeBytes > 0;
#endif
}

bool cu_moe_wgmma_fits(const fa_cuda *cu, const fa_moe *m) {
    if (cu->be.exact || cu->arch != 90 || cu->smem_max < (size_t)(227 << 10) || !m->gate.n) return false;
    if (m->act != FA_ACT_SILU || m->limit > 0) return false;
    const cu_wmat g = cu_wmat_of(&m->gate.w[0]), u = cu_wmat_of(&m->up.w[0]);
    if (g.kind != u.kind || g.group_log != u.group_log || g.scale_dtype != u.scale_dtype) return false;
    return stack_fits(&m->gate) && stack_fits(&m->up) && stack_fits(&m->down) && compiled();
}

void cu_moe_wgmma(fa_cuda *cu, const cu_moe_product *a) {
    const dim3 grid((unsigned)cu->n_sm);
    switch (a->w[0].kind) {
#define CU_X(id)                                                                                                       \
    case CU_K_##id:                                                                                                    \
        if (a->paired)                                                                                                 \
            CU_LAUNCH(cu, (moe_wgmma<CU_K_##id, true>), grid, THREADS, fmt<CU_K_##id>::smem, *a);                      \
        else                                                                                                           \
            CU_LAUNCH(cu, (moe_wgmma<CU_K_##id, false>), grid, THREADS, fmt<CU_K_##id>::smem, *a);                     \
        break;
        FORMATS(CU_X)
#undef CU_X
    default: break;
    }
}
