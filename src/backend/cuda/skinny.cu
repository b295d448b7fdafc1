/* Products of a few to 64 input rows with quantized weights: x as skinny.cuh's kernels want it, and the host's side. */
#include "backend/cuda/skinny.cuh"

#include <limits.h>

enum { ROWS_THREADS = 512 };

/* ---- x ---- */

typedef struct rows_args {
    const void *x;          /* [M, K] of x_type */
    int x_type, vec, vec_w; /* may be read four at a time */
    int64_t K;
    cu_norm norm;
    uint16_t *out; /* [M, ldx] */
    int64_t ldx;   /* a multiple of 256 */
    float *sums;   /* [ldx / sum, pad] */
    int sum, pad;  /* sum: 16, 32 or 64 columns */
} rows_args;

/* v [8] = columns [k, k + 8) of row m, zeros from K on. */
CU_DEV void rows_load(const rows_args &a, int64_t at, int64_t k, float v[8]) {
#pragma unroll
    for (int h = 0; h < 8; h += 4) {
        float4 f = make_float4(0, 0, 0, 0);
        if (a.vec && k + h < a.K) f = cu_get4(a.x, a.x_type, at + k + h); /* K is a multiple of 4 */
        v[h] = f.x, v[h + 1] = f.y, v[h + 2] = f.z, v[h + 3] = f.w;
    }
    for (int i = 0; !a.vec && i < 8 && k + i < a.K; i++) v[i] = cu_get(a.x, a.x_type, at + k + i);
}

/* The norm's weight at columns [k, k + 8); beyond K it does not matter. */
CU_DEV void rows_weight(const rows_args &a, int64_t k, float w[8]) {
#pragma unroll
    for (int h = 0; h < 8; h += 4)
        if (a.vec_w && k + h < a.K) {
            const float4 f = *(const float4 *)(a.norm.w + k + h);
            w[h] = f.x, w[h + 1] = f.y, w[h + 2] = f.z, w[h + 3] = f.w;
        }
    for (int i = 0; !a.vec_w && i < 8 && k + i < a.K; i++) w[i] = a.norm.w[k + i];
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] += a.norm.offset;
}

/* x as bf16, normalised when norm.on, in the order of skinny.cuh, and the sums of its columns as rounded. Grid (M,
 * pieces): of a row that is normalised one block has all columns; a thread makes 8 at a time. */
static __global__ void __launch_bounds__(ROWS_THREADS) skinny_rows(const rows_args a) {
    __shared__ float sums[32];
    __shared__ double wide_sums[32];
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t in = (int64_t)blockIdx.x * a.K, first = (int64_t)(blockIdx.y * blockDim.x + threadIdx.x) * 8;
    const int64_t step = (int64_t)(gridDim.y * blockDim.x) * 8;
    float r = 1, v[8];
    if (a.norm.on) {
        float s = 0;
        bool wide;
        for (int64_t k = first; k < a.K; k += step) {
            rows_load(a, in, k, v);
#pragma unroll
            for (int i = 0; i < 8; i++) s = fmaf(v[i], v[i], s);
        }
        r = cu_inv_rms(cu_block_sum(s, sums), a.K, a.norm.eps, &wide);
        if (wide) { /* the same for all threads */
            double d = 0;
            for (int64_t k = first; k < a.K; k += step) {
                rows_load(a, in, k, v);
                for (int i = 0; i < 8; i++) d += (double)v[i] * (double)v[i];
            }
            r = cu_inv_rms_wide(cu_block_sum_wide(d, wide_sums), a.K, a.norm.eps);
        }
    }
    for (int64_t k = first; k < a.ldx; k += step) { /* whole warps */
        rows_load(a, in, k, v);
        if (a.norm.on) {
            float w[8] = {1, 1, 1, 1, 1, 1, 1, 1};
            if (a.norm.w) rows_weight(a, k, w);
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = v[i] * r * w[i];
        }
        uint16_t *to = a.out + (int64_t)blockIdx.x * a.ldx + k;
        uint32_t p[4];
        const int pair = a.sum == 16 ? 1 : 4; /* columns that stand side by side */
#pragma unroll
        for (int i = 0; i < 4; i++)
            p[i] = pair == 4 ? cu_to_bf16x2(v[i], v[i + 4]) : cu_to_bf16x2(v[2 * i], v[2 * i + 1]);
        if (pair == 4) {
            *(uint4 *)to = make_uint4(p[0], p[1], p[2], p[3]);
        } else { /* 4 columns of lane 2 j and 4 of the next, of half h of 32 */
            const int j = (int)(k % 16) / 8, h = (int)(k % 32) / 16;
            to -= k % 32;
            *(uint2 *)(to + 16 * j + 4 * h) = make_uint2(p[0], p[1]);
            *(uint2 *)(to + 16 * j + 8 + 4 * h) = make_uint2(p[2], p[3]);
        }
        float s = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) s += cu_bf16_lo(p[i]) + cu_bf16_hi(p[i]);
        for (int d = 1; d < a.sum / 8; d *= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
        if (k % a.sum == 0) a.sums[k / a.sum * a.pad + (int)blockIdx.x] = s;
    }
}

/* ---- choosing ---- */

static const cu_skinny_fmt *find(const fa_weight *w) {
    const int kind = cu_kind_at(w->fmt, w->bits);
    if (kind <= CU_K_BF16) return NULL;
    if (kind >= CU_K_Q4_0) return cu_skinny_find_gguf(kind, 1);
    return cu_skinny_find_planar(kind, w->fmt == FA_FMT_AFFINE && w->group >= 64 ? 2 : 1);
}

static int kernel_of(const cu_skinny_fmt *f, int64_t M) { /* of those for 8, 16, 32, 64 rows */
    for (int i = 0; i < 4; i++)
        if (f->by[i].fn && M <= 8 << i) return i;
    return -1;
}

static int64_t tiles_of(const fa_weight *w) { return (w->rows + SK_ROWS - 1) / SK_ROWS; }

/* Units of a product with lin[0..n), blocks for them. */
static int64_t units_of(int cols, const fa_linear *const *lin, int n) {
    int64_t tiles = 0;
    for (int i = 0; i < n; i++) tiles += tiles_of(&lin[i]->w);
    return tiles * ((lin[0]->w.cols + cols - 1) / cols);
}
static int64_t blocks_of(const fa_cuda *cu, const cu_skinny_fmt *f, int kernel, int64_t units) {
    const int64_t most = (int64_t)cu->n_sm * f->by[kernel].blocks, want = (units + 1) / 2;
    return want < most ? want : most;
}

bool cu_skinny_same(const fa_linear *a, const fa_linear *b) {
    return a->w.fmt == b->w.fmt && a->w.bits == b->w.bits && a->w.group == b->w.group &&
           a->w.scale_dtype == b->w.scale_dtype;
}

bool cu_skinny_fits(const fa_cuda *cu, const fa_linear *const *lin, int n, int64_t M) {
    if (cu->be.exact || M > CU_SKINNY_MOST) return false;
    for (int i = 0; i < n; i++) {
        const fa_weight *w = &lin[i]->w;
        const cu_skinny_fmt *f = find(w);
        const int k = f && M >= f->least ? kernel_of(f, M) : -1;
        if (k < 0 || (size_t)f->by[k].smem > cu->smem_max) return false;
        if (w->rows <= 0 || w->cols <= 0 || w->row_bytes % 16 || w->scale_row_bytes % 16 || w->row_bytes > INT_MAX / 4)
            return false;
        const int64_t units = units_of(f->by[k].cols, lin, n);
        if (tiles_of(w) * n > CU_COUNTERS / 4 || units > INT_MAX / 2 / (2 * cu->n_sm + 1)) return false;
    }
    return true;
}

/* ---- work memory: x, its sums, partial results ---- */

static size_t up256(size_t n) { return (n + 255) / 256 * 256; }
static int64_t ldx_of(int64_t K) { return (K + 255) / 256 * 256; }
static size_t x_bytes(int64_t M, int64_t K) { return up256((size_t)(M * ldx_of(K)) * 2); }
static size_t sum_bytes(int64_t K) { return up256((size_t)(ldx_of(K) / 16) * CU_SKINNY_MOST * 4); }

size_t cu_skinny_bytes(const fa_cuda *cu, const fa_linear *const *lin, int n, int64_t M, int64_t K) {
    size_t most = 0;
    for (int i = 0; i < n; i++) {
        const cu_skinny_fmt *f = find(&lin[i]->w);
        const int k = kernel_of(f, M);
        const size_t bytes = (size_t)(2 * (int64_t)cu->n_sm * f->by[k].blocks) * (size_t)(1 << k) * SK_THREADS * 16;
        if (bytes > most) most = bytes;
    }
    return x_bytes(M, K) + sum_bytes(K) + most;
}

/* ---- launching ---- */

static void launch_rows(fa_cuda *cu, const cu_skinny_product *p, int sum, int pad) {
    rows_args a = {};
    a.x = p->x, a.x_type = p->x_type, a.K = p->K, a.norm = p->norm;
    a.vec = p->K % 4 == 0 && (uintptr_t)p->x % 16 == 0;
    a.vec_w = p->K % 4 == 0 && (uintptr_t)p->norm.w % 16 == 0;
    a.out = (uint16_t *)p->work, a.ldx = ldx_of(p->K);
    a.sums = (float *)((uint8_t *)p->work + x_bytes(p->M, p->K));
    a.sum = sum, a.pad = pad;
    const unsigned pieces = p->norm.on ? 1 : cu_blocks(a.ldx, ROWS_THREADS * 8);
    CU_LAUNCH(cu, skinny_rows, dim3((unsigned)p->M, pieces), ROWS_THREADS, 0, a);
}

/* lin[i..j) of p, of one format; col: the first's column. */
static void launch(fa_cuda *cu, const cu_skinny_product *p, int i, int j, int64_t col) {
    const cu_skinny_fmt *f = find(&p->lin[i]->w);
    const int k = kernel_of(f, p->M);
    cu_skinny_args a = {};
    int64_t tile = 0;
    a.paired = p->end == CU_SKINNY_GLU;
    for (int l = 0; l < CU_SKINNY_PARTS; l++) {
        sk_part *part = &a.part[l];
        part->tile = INT_MAX;
        if (i + l >= j) continue;
        const fa_linear *lin = p->lin[i + l];
        part->w = cu_wmat_of(&lin->w);
        part->bias = p->bias ? lin->bias : NULL;
        if (a.paired) {
            part->tile = 0;
            tile = (lin->w.rows + SK_ROWS / 2 - 1) / (SK_ROWS / 2);
            continue;
        }
        part->tile = (int)tile, part->col = (int)col;
        tile += tiles_of(&lin->w), col += lin->w.rows;
    }
    a.n_tile = (int)tile, a.n_step = (int)((p->K + f->by[k].cols - 1) / f->by[k].cols), a.M = (int)p->M;
    uint8_t *mem = (uint8_t *)p->work;
    a.x = (const uint16_t *)mem, a.ldx = ldx_of(p->K);
    a.sums = (const float *)(mem + x_bytes(p->M, p->K));
    a.partial = (float *)(mem + x_bytes(p->M, p->K) + sum_bytes(p->K));
    a.counter = cu->counter;
    a.end = p->end, a.act = p->act, a.out = p->out, a.out_type = p->out_type, a.ld = p->ld;
    const int64_t blocks = blocks_of(cu, f, k, (int64_t)a.n_tile * a.n_step);
    cu_launch_as(cu, f->name, f->by[k].fn, dim3((unsigned)blocks), SK_THREADS, (size_t)f->by[k].smem, a);
}

void cu_skinny_run(fa_cuda *cu, const cu_skinny_product *p) {
    int sum = 0, pad = 0; /* of x as it lies there */
    int64_t col = 0;
    for (int i = 0, j; i < p->n; i = j) {
        const cu_skinny_fmt *f = find(&p->lin[i]->w);
        const int k = kernel_of(f, p->M);
        for (j = i + 1; j < p->n && cu_skinny_same(p->lin[i], p->lin[j]);) j++;
        if (f->sum != sum || 8 << k != pad) launch_rows(cu, p, sum = f->sum, pad = 8 << k);
        launch(cu, p, i, j, col);
        for (int l = i; l < j; l++) col += p->lin[l]->w.rows;
    }
}
