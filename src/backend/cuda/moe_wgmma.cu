/* Experts of many rows on Hopper: the two products of moe_many.cu with wgmma, and the order of columns that they need.
 *
 * A warpgroup computes d [64 weight rows, N places] = W [64, k] x [N, k]^T, sums in registers. The weights are the
 * operand from registers: a lane unpacks what it needs of them, and nothing unpacked passes through shared memory. The
 * rows of x are the operand from shared memory. A block is one of each multiprocessor's own and goes through the tiles:
 * its first warpgroup copies (cp.async: rows of x are gathered by the sorted list, weights come as stored) into a ring
 * of stages of 64 columns of k, the other two have 128 weight rows each, as two products, and run behind. N is 16 to
 * 160, as many as the tile has places, so that empty places are not multiplied; a weight is unpacked once per tile.
 *
 * Order of columns. Of 64 columns lane t of a quad reads 16 neighbours of a weight row, columns 16 t and on: 8 bytes of
 * 4-bit codes, one load. The operand wants in step s (16 columns) the elements 2 t + b + 8 c. Element s, c, b of a lane
 * is its column 8 (s / 2) + 2 (s % 2) + c + 4 b: columns 4 apart stand 16 bits apart in a word of 4-bit codes. x has
 * its columns in this order (place_of), by the kernel that makes bf16 of it; h by the first product, which gives the
 * rows of its weights to lanes such that they write 8 neighbours in it.
 *
 * Rows of weights. Row 32 q + 16 i + 8 half + e of a block is row 8 half + e of product i of warp q % 4 of warpgroup q
 * / 4: lane g = e has it with half 0 and 1. With gates half 0 is the gate and half 1 up, so that a lane has both. */
#include "backend/cuda/cu_wgmma.h"
#include "backend/cuda/moe_many.cuh"

enum {
    COPIERS = 128,
    THREADS = COPIERS + 256,
    ROWS = 256,               /* of weights of a block */
    TN = CU_MOE_WGMMA_ROWS,   /* places of a tile */
    BK = 64,                  /* columns of a stage */
    X_BYTES = TN * BK * 2,    /* of a stage */
    CHUNKS = 3,               /* slots of scales, each of 16 bytes of scales of each row */
    CHUNK_BYTES = ROWS * 32,  /* scales and biases */
    SMEM = (227 << 10) - 512, /* static: barriers */
    MAX_STAGES = 8
};

/* ---- formats ---- */

template <int KIND> struct fmt {
    static constexpr bool is_float = KIND == CU_K_BF16 || KIND == CU_K_F16;
    static constexpr int bits = is_float ? 16 : KIND == CU_K_MXFP4 ? 4 : cu_kind_info<KIND>::bits;
    static constexpr int row = bits * BK / 8; /* bytes of a weight row in a stage */
    static constexpr int words = bits / 2;    /* of a lane's 16 columns */
    static constexpr int planes = is_float ? 0 : KIND == CU_K_MXFP4 ? 1 : 2;
    static constexpr int stage = X_BYTES + ROWS * row;
    static constexpr int at_chunks = 1024; /* room to begin at a multiple of 1024 */
    static constexpr int fit = (SMEM - at_chunks - (planes ? CHUNKS * CHUNK_BYTES : 0)) / stage;
    static constexpr int stages = fit < MAX_STAGES ? fit : MAX_STAGES;
    static constexpr int smem = at_chunks + stages * stage + (planes ? CHUNKS * CHUNK_BYTES : 0);
};

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
        const uint32_t two = __byte_perm(u[4 * h + p / 2], u[4 * h + p / 2 + 2], p % 2 ? 0x7632 : 0x5410);
        return KIND == CU_K_BF16 ? two : cu_to_bf16x2(cu_f16_lo(two), cu_f16_hi(two));
    }
}

/* Lane t's 16 columns of row r of a stage. Rows of 128 bytes have their pieces of 16 swapped in odd rows, so that loads
 * of 16 bytes meet no bank twice. */
template <int KIND> CU_DEV void load_row(const uint8_t *w, int r, int t, uint32_t *u) {
    const uint8_t *p = w + r * fmt<KIND>::row + t * fmt<KIND>::words * 4;
    if constexpr (fmt<KIND>::is_float) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 v = *(const uint4 *)(w + r * fmt<KIND>::row + 16 * ((2 * t + i) ^ (r & 1)));
            u[4 * i] = v.x, u[4 * i + 1] = v.y, u[4 * i + 2] = v.z, u[4 * i + 3] = v.w;
        }
    } else if constexpr (fmt<KIND>::words == 4) {
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

/* chunk: of the row, scales and behind them biases; at: byte in each. */
template <int KIND> CU_DEV scaled load_scale(const uint8_t *chunk, int at, int type) {
    scaled v = {};
    if constexpr (KIND == CU_K_MXFP4) {
        const uint32_t e = chunk[at], s = __float_as_uint(2.0f * cu_half_e8m0(e)) >> 16;
        v.two = s | s << 16;
    } else if constexpr (fmt<KIND>::planes == 2) {
        v.s = cu_scale_at(chunk + at, 0, type);
        const float b = cu_scale_at(chunk + 16 + at, 0, type);
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
    const int e = r & 7, half = r >> 3 & 1, i = r >> 4 & 1, q = r >> 5;
    if (!paired) return 32 * q + 8 * (e >> 1) + 4 * i + 2 * half + (e & 1);
    return 64 * (q >> 2) + 16 * (2 * (e >> 1 & 1) + i) + 8 * (q >> 1 & 1) + 2 * (q & 1) + (e >> 2) + 4 * (e & 1);
}
/* Where column c of 64 stands in the order of x and h. */
CU_DEV int place_of(int c) {
    const int t = c >> 4, h = c >> 3 & 1, b = c >> 2 & 1, p = c & 3;
    return 16 * (2 * h + (p >> 1)) + 8 * (p & 1) + 2 * t + b;
}

typedef struct barriers {
    uint64_t full[MAX_STAGES], empty[MAX_STAGES], chunk_empty[CHUNKS];
} barriers;

/* Places in rings: slot and the parity of its phase. */
template <int N> struct ring {
    int slot, phase;
    __device__ __forceinline__ void step() {
        if (++slot == N) slot = 0, phase ^= 1;
    }
};

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

#if CU_HAS_WGMMA

/* ---- copying ---- */

template <int KIND, bool PAIRED> struct copier {
    const cu_moe_product &a;
    const uint8_t *codes; /* of this thread's first row */
    const uint8_t *x;
    int n_x, source[TN / 16]; /* rows of x, -1: none */
    int col;                  /* of the thread's first row of weights */
    int mat, room;            /* room: bytes of a row of codes from this thread's piece on */
    walk<PAIRED> w;

    static constexpr int pieces = fmt<KIND>::row / 16; /* of a row of a stage */
    /* A thread has row `first` and the rows that differ from it in higher bits; A6 has three pieces a row. */
    static constexpr int per = pieces == 3 ? COPIERS : COPIERS / pieces;

    __device__ __forceinline__ int first() const { return pieces == 3 ? (int)threadIdx.x : (int)threadIdx.x / pieces; }
    __device__ __forceinline__ int piece() const { return pieces == 3 ? 0 : (int)threadIdx.x % pieces; }

    __device__ __forceinline__ explicit copier(const cu_moe_product &args) : a(args), w(args) {}

    __device__ __forceinline__ void begin() {
        n_x = (w.tile.z + 15) / 16;
        x = (const uint8_t *)a.x + (int)threadIdx.x % 8 * 16;
#pragma unroll
        for (int i = 0; i < TN / 16; i++) {
            const int m = (int)threadIdx.x / 8 + 16 * i;
            source[i] = m < w.tile.z ? cu_moe_source(a, w.tile.y + m) : -1;
        }
        mat = PAIRED ? first() >> 3 & 1 : 0;
        col = w.col0 + column_of(first(), PAIRED);
        codes = a.w[mat].codes + w.tile.x * a.stride[mat] + col * a.w[mat].row_bytes + 16 * piece();
        room = (int)a.w[mat].row_bytes - 16 * piece();
    }

    __device__ __forceinline__ void rows(int k0, uint8_t *xs) const {
        const int r = (int)threadIdx.x / 8, c = (int)threadIdx.x % 8;
        uint8_t *to = xs + r * 128 + (c ^ (r & 7)) * 16;
#pragma unroll
        for (int i = 0; i < TN / 16; i++) {
            if (i >= n_x) break;
            const uint8_t *from = x + (source[i] * a.ldx + k0) * 2;
            cu_cp_async(to + i * 16 * 128, source[i] < 0 ? a.x : (const void *)from, source[i] < 0 ? 0 : 16);
        }
    }
    __device__ __forceinline__ void piece_to(uint8_t *ws, int j, int more, int byte) const {
        const int r = first() + j * per, at = column_of(j * per, PAIRED), left = room - byte;
        const int c = fmt<KIND>::is_float ? (piece() + more) ^ (r & 1) : piece() + more;
        const int n = col + at < a.N && left > 0 ? min(left, 16) : 0;
        cu_cp_async(ws + r * fmt<KIND>::row + 16 * c, n ? codes + at * a.w[mat].row_bytes + byte : a.w[mat].codes, n);
    }
    __device__ __forceinline__ void weights(int k0, uint8_t *ws) const {
        const int byte = k0 / 8 * fmt<KIND>::bits;
#pragma unroll
        for (int j = 0; j < ROWS / per; j++) {
            piece_to(ws, j, 0, byte);
            if constexpr (pieces == 3) {
                piece_to(ws, j, 1, byte + 16);
                piece_to(ws, j, 2, byte + 32);
            }
        }
    }
    /* 16 bytes of scales of two rows. */
    __device__ __forceinline__ void scales(int k0, uint8_t *chunk) const {
        const int at = scale_byte(a, k0);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int r = (int)threadIdx.x + 128 * j, m = PAIRED ? r >> 3 & 1 : 0;
            const int n0 = w.col0 + column_of(r, PAIRED), left = (int)a.w[m].scale_row_bytes - at;
            const int n = n0 < a.N && left > 0 ? min(left, 16) : 0;
            const int64_t from = w.tile.x * a.scale_stride[m] + n0 * a.w[m].scale_row_bytes + at;
            cu_cp_async(chunk + r * 32, n ? a.w[m].scales + from : a.w[m].codes, n);
            if constexpr (fmt<KIND>::planes == 2)
                cu_cp_async(chunk + r * 32 + 16, n ? a.w[m].biases + from : a.w[m].codes, n);
        }
    }
};

template <int KIND, bool PAIRED> CU_DEV void copy_all(const cu_moe_product &a, barriers *bar, uint8_t *stages) {
    typedef fmt<KIND> F;
    copier<KIND, PAIRED> c(a);
    uint8_t *chunks = stages + F::stages * F::stage;
    ring<F::stages> st = {0, 1}; /* all slots are free at first */
    ring<CHUNKS> ch = {0, 1};
    const int span = F::planes ? chunk_columns(a) : 1;
    while (c.w.step(a)) {
        c.begin();
        for (int k = 0; k < a.K; k += BK) {
            uint8_t *at = stages + st.slot * F::stage;
            cu_mbar_wait(&bar->empty[st.slot], st.phase);
            if (F::planes && k % span == 0) {
                cu_mbar_wait(&bar->chunk_empty[ch.slot], ch.phase);
                c.scales(k, chunks + ch.slot * CHUNK_BYTES);
                ch.step();
            }
            c.rows(k, at);
            c.weights(k, at + X_BYTES);
            cu_mbar_arrive_cp(&bar->full[st.slot]);
            st.step();
        }
    }
}

/* ---- products ---- */

template <int KIND, bool PAIRED> struct consumer {
    const cu_moe_product &a;
    barriers *bar;
    uint8_t *stages;
    ring<fmt<KIND>::stages> st;
    ring<CHUNKS> ch;
    int span, row0; /* row0: first row of this lane in a stage */
    walk<PAIRED> w;

    __device__ __forceinline__ consumer(const cu_moe_product &args, barriers *b, uint8_t *s)
        : a(args), bar(b), stages(s), w(args) {
        const int lane = (int)threadIdx.x % CU_WARP, q = ((int)threadIdx.x - COPIERS) / CU_WARP;
        st = {0, 0}, ch = {0, 0};
        span = fmt<KIND>::planes ? chunk_columns(a) : 1;
        row0 = 32 * q + lane / 4;
    }

    __device__ __forceinline__ void release(int slot, int chunk) const { /* chunk -1: not yet */
        __syncwarp();
        if (threadIdx.x % CU_WARP) return;
        cu_mbar_arrive(&bar->empty[slot]);
        if (chunk >= 0) cu_mbar_arrive(&bar->chunk_empty[chunk]);
    }

    /* This lane's weights of a stage, as they are stored, with their scales. */
    struct raw {
        uint32_t u[4][fmt<KIND>::words];
        scaled v[4];
    };

    __device__ __forceinline__ void load(int k, raw *w) const {
        typedef fmt<KIND> F;
        const int t = (int)threadIdx.x % 4;
        const uint8_t *at = stages + st.slot * F::stage, *chunk = stages + F::stages * F::stage + ch.slot * CHUNK_BYTES;
        cu_mbar_wait(&bar->full[st.slot], st.phase);
        cu_proxy_fence();
#pragma unroll
        for (int r = 0; r < 4; r++) {
            load_row<KIND>(at + X_BYTES, row0 + 8 * r, t, w->u[r]);
            w->v[r] = load_scale<KIND>(chunk + (row0 + 8 * r) * 32, F::planes ? scale_byte(a, k + 16 * t) & 15 : 0,
                                       a.w[0].scale_dtype);
        }
    }

    /* The operands of two steps, two products each. */
    __device__ __forceinline__ static void unpack(const raw &w, int half, uint32_t (&f)[2][2][4]) {
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    f[s][i][e] = element<KIND>(w.u[2 * i + e % 2], w.v[2 * i + e % 2], 2 * half + s, e / 2);
                    cu_pin(f[s][i][e]);
                }
    }

    template <int N>
    __device__ __forceinline__ static void begin(float (&acc)[2][N / 2], const uint32_t (&f)[2][2][4], uint64_t b) {
        cu_wgmma_fence();
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int i = 0; i < 2; i++) cu_wgmma_bf16<N>(acc[i], f[s][i], b + 2 * (unsigned)s);
        cu_wgmma_commit();
    }

    template <int N> __device__ __forceinline__ void multiply(float (&acc)[2][N / 2]) {
        typedef fmt<KIND> F;
        raw w;
        uint32_t f[2][2][2][4];
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
            if (F::planes && ((k + BK) % span == 0 || k + BK >= a.K)) {
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

    /* h: a lane has of each 8 places two of gate and up, and after the exchange two columns of one place of each i. */
    template <int N> __device__ __forceinline__ void finish_pair(const float (&acc)[2][N / 2]) const {
        const int g = (int)threadIdx.x % CU_WARP / 4, t = (int)threadIdx.x % 4, q = row0 / 32;
        const int to = w.col0 + 16 * q + 4 * t;
        uint16_t *out = (uint16_t *)a.out + ((int64_t)w.tile.y + g) * a.ld + to;
        float bias[2][2];
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int mat = 0; mat < 2; mat++)
                bias[i][mat] = cu_moe_bias(a, mat, w.tile.x, w.col0 + column_of(32 * q + 16 * i + g, true));
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            uint32_t v[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float h[2];
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const float gate = acc[i][4 * j + c] + bias[i][0];
                    h[c] = __fdividef(gate, 1.0f + __expf(-gate)) * (acc[i][4 * j + 2 + c] + bias[i][1]);
                }
                v[i] = cu_transpose8(cu_to_bf16x2(h[0], h[1]));
            }
            if (8 * j + g < w.tile.z && to < a.ld) *(uint2 *)(out + 8 * j * a.ld) = make_uint2(v[0], v[1]);
        }
    }
    template <int N> __device__ __forceinline__ void finish(const float (&acc)[2][N / 2]) const {
        const int g = (int)threadIdx.x % CU_WARP / 4, t = (int)threadIdx.x % 4, q = row0 / 32;
        const int to = w.col0 + 32 * q + 8 * t;
        uint16_t *out = (uint16_t *)a.out + ((int64_t)w.tile.y + g) * a.ld + to;
        float bias[4];
#pragma unroll
        for (int r = 0; r < 4; r++) bias[r] = cu_moe_bias(a, 0, w.tile.x, w.col0 + column_of(row0 + 8 * r, false));
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            uint32_t v[4];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float *p = acc[r / 2] + 4 * j + 2 * (r % 2);
                v[r] = cu_transpose8(cu_to_bf16x2(p[0] + bias[r], p[1] + bias[r]));
            }
            if (8 * j + g < w.tile.z && to < a.ld) *(uint4 *)(out + 8 * j * a.ld) = make_uint4(v[0], v[1], v[2], v[3]);
        }
    }

    template <int N> __device__ __forceinline__ void run() {
        float acc[2][N / 2] = {};
        multiply<N>(acc);
        if constexpr (PAIRED)
            finish_pair<N>(acc);
        else
            finish<N>(acc);
    }
};

template <int KIND, bool PAIRED> CU_DEV void multiply_all(const cu_moe_product &a, barriers *bar, uint8_t *stages) {
    consumer<KIND, PAIRED> c(a, bar, stages);
    while (c.w.step(a)) {
        switch ((c.w.tile.z + 15) / 16) {
        case 1: c.template run<16>(); break;
        case 2: c.template run<32>(); break;
        case 3: c.template run<48>(); break;
        case 4: c.template run<64>(); break;
        case 5: c.template run<80>(); break;
        case 6: c.template run<96>(); break;
        case 7: c.template run<112>(); break;
        case 8: c.template run<128>(); break;
        case 9: c.template run<144>(); break;
        default: c.template run<160>(); break;
        }
    }
}

#endif /* CU_HAS_WGMMA */

/* Grid: a block for each multiprocessor. */
template <int KIND, bool PAIRED>
static __global__ void __launch_bounds__(THREADS, 1) moe_wgmma(const __grid_constant__ cu_moe_product a) {
#if CU_HAS_WGMMA
    __shared__ barriers bar;
    CU_DYN_SMEM(smem);
    uint8_t *stages = smem + ((1024 - (cu_smem_addr(smem) & 1023)) & 1023);
    if (threadIdx.x == 0) {
        for (int i = 0; i < fmt<KIND>::stages; i++) {
            cu_mbar_init(&bar.full[i], COPIERS);
            cu_mbar_init(&bar.empty[i], 256 / CU_WARP);
        }
        for (int i = 0; i < CHUNKS; i++) cu_mbar_init(&bar.chunk_empty[i], 256 / CU_WARP);
    }
    cu_pdl_launch();
    cu_pdl_wait();
    __syncthreads();
    if (threadIdx.x < COPIERS) {
        cu_fewer_registers<56>();
        copy_all<KIND, PAIRED>(a, &bar, stages);
    } else {
        cu_more_registers<224>();
        multiply_all<KIND, PAIRED>(a, &bar, stages);
    }
#else
    (void)a;
#endif
}

/* ---- rows ---- */

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

#ifdef TRY
#define FORMATS(X) X(A4) X(BF16)
#else
#define FORMATS(X) X(BF16) X(F16) X(A2) X(A4) X(A6) X(A8) X(MXFP4)
#endif

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
