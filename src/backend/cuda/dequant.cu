/* Weights of every format as floats: rows for embeddings, panels for matrix products, and the check that a weight is
 * one that the kernels know.
 *
 * Geometry of both kernels: blockIdx.x is a row (so any number of rows), blockIdx.y and the threads share its columns,
 * 8 columns a thread: one 16-byte store of bf16 or two of f32, neighbouring threads side by side. The work is bound by
 * the bytes written; codes are read by short loads that hit the first-level cache. */
#include "backend/cuda/dequant.cuh"

static const char *fmt_name(int fmt) {
    static const char *const names[FA_FMT_COUNT] = {
#define FA_X(id, name) name,
        FA_FMTS(FA_X)
#undef FA_X
    };
    return fmt >= 0 && fmt < FA_FMT_COUNT ? names[fmt] : "unknown";
}

/* 8 values to out, of which n are wanted; `whole`: out is 16-byte aligned. */
template <typename T> static __device__ __forceinline__ void store8(T *out, const float v[8], int n, bool whole);
template <> __device__ __forceinline__ void store8(float *out, const float v[8], int n, bool whole) {
    if (whole && n == 8) {
        ((float4 *)out)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)out)[1] = make_float4(v[4], v[5], v[6], v[7]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < n) out[i] = v[i];
}
template <> __device__ __forceinline__ void store8(uint16_t *out, const float v[8], int n, bool whole) {
    if (whole && n == 8) {
        *(uint4 *)out = make_uint4(cu_to_bf16x2(v[0], v[1]), cu_to_bf16x2(v[2], v[3]), cu_to_bf16x2(v[4], v[5]),
                                   cu_to_bf16x2(v[6], v[7]));
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < n) out[i] = cu_to_bf16(v[i]);
}

/* ---- panels ---- */

enum { PIECE = 8 /* columns of a thread */ };

/* Threads of a block for rows of n columns, and blocks that share a row. */
static int row_threads(int64_t cols) {
    const int64_t n = (cols + PIECE - 1) / PIECE;
    return n >= 256 ? 256 : (int)((n + 31) / 32 * 32);
}
static unsigned row_blocks(int64_t cols) { return cu_blocks(cols, (int64_t)row_threads(cols) * PIECE); }

template <int KIND, typename T> static __global__ void dequant_kernel(cu_wmat w, int64_t row, T *out) {
    const int64_t k = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * PIECE;
    cu_pdl_launch();
    cu_pdl_wait(); /* the panel may still be read by the product before */
    if (k >= w.cols) return;
    float v[8];
    cu_values8<KIND>(w, cu_row_of(w, row + blockIdx.x), k, v);
    const int64_t left = w.cols - k;
    store8(out + (int64_t)blockIdx.x * w.cols + k, v, left < 8 ? (int)left : 8, w.cols % 8 == 0);
}

void cu_dequant(fa_cuda *cu, const fa_weight *w, int64_t row, int64_t n, void *out, fa_dtype type) {
    const cu_wmat m = cu_wmat_of(w);
    const dim3 grid((unsigned)n, row_blocks(w->cols));
    const int threads = row_threads(w->cols);
    if (type != FA_F32 && type != FA_BF16) {
        cu_fail(cu, FFAI_EINTERNAL, "%s: panels of element type %d", w->name ? w->name : "weight", type);
        return;
    }
    if (type == FA_F32) {
        CU_WITH_KIND(m.kind, CU_LAUNCH(cu, (dequant_kernel<KIND, float>), grid, threads, 0, m, row, (float *)out))
    } else {
        CU_WITH_KIND(m.kind, CU_LAUNCH(cu, (dequant_kernel<KIND, uint16_t>), grid, threads, 0, m, row, (uint16_t *)out))
    }
}

/* ---- embeddings ---- */

/* The row that token place i stands for. A pick that found nothing (< 0 in `last`) ends its sequence on the host; its
 * row is computed from token 0 and thrown away. */
static __device__ __forceinline__ int64_t token_row(const cu_batch &b, int i, int64_t rows) {
    int32_t t = b.tok[i];
    if (t < 0) t = b.last[-1 - t];
    return t < 0 || t >= rows ? 0 : t;
}

template <int KIND> static __global__ void embed_kernel(cu_wmat w, cu_batch b, float scale, float *out) {
    const int i = (int)blockIdx.x;
    const int64_t k = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * PIECE;
    cu_pdl_launch();
    cu_pdl_wait();
    if (k >= w.cols) return;
    const int64_t left = w.cols - k;
    const int n = left < 8 ? (int)left : 8;
    const int32_t given = b.embd && b.embd_row ? b.embd_row[i] : -1;
    float v[8];
    if (given >= 0) {
        const float *src = b.embd + (int64_t)given * w.cols + k;
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = j < n ? src[j] : 0;
    } else {
        cu_values8<KIND>(w, cu_row_of(w, token_row(b, i, w.rows)), k, v);
        if (scale != 1.0f) {
#pragma unroll
            for (int j = 0; j < 8; j++) v[j] *= scale;
        }
    }
    store8(out + (int64_t)i * w.cols + k, v, n, w.cols % 4 == 0);
}

static void embed_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_weight *w = r->p.embed.w;
    const cu_wmat m = cu_wmat_of(w);
    const dim3 grid((unsigned)r->out.dim[0], row_blocks(w->cols));
    CU_WITH_KIND(m.kind, CU_LAUNCH(cu, embed_kernel<KIND>, grid, row_threads(w->cols), 0, m, *b, r->p.embed.scale,
                                   (float *)r->out.data))
}

static int64_t embed_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    (void)cu;
    return cu_weight_ok(r->p.embed.w, err) ? -1 : 0;
}

extern const cu_op cu_op_embed = {embed_launch, embed_work};

/* ---- which weights ---- */

/* Rows are a multiple of so many columns. */
static int block_of(int fmt) {
    switch (fmt) {
#define CU_X(id, name, values, bytes, group, at, offset)                                                               \
    case FA_FMT_##id: return values;
        FA_IQ_FMTS(CU_X)
#undef CU_X
    case FA_FMT_NVFP4: return 16;
    case FA_FMT_MXFP4:
    case FA_FMT_MXFP8: return 32;
    default: return fmt >= FA_FMT_Q2_K ? 256 : fmt >= FA_FMT_Q4_0 ? 32 : 1;
    }
}

/* The combinations of fa_weight_check, and rows at multiples of 16 bytes. */
int cu_weight_ok(const fa_weight *w, fa_error *err) {
    const char *name = w->name ? w->name : "weight";
    if (w->fmt >= FA_FMT_COUNT) return fa_fail(err, FFAI_ENOTSUP, "%s: no kernel for weight format %d", name, w->fmt);
    const char *fmt = fmt_name(w->fmt);
    if (w->rows <= 0 || w->cols <= 0 || w->rows > INT32_MAX || w->cols > INT32_MAX)
        return fa_fail(err, FFAI_ENOTSUP, "%s: no kernel for shape [%lld, %lld]", name, (long long)w->rows,
                       (long long)w->cols);
    int block = block_of(w->fmt);
    bool known = true;
    if (w->fmt == FA_FMT_AFFINE) {
        known = w->bits >= 2 && w->bits <= 8 && w->bits != 7 && (w->group == 32 || w->group == 64 || w->group == 128) &&
                (w->scale_dtype == FA_F32 || w->scale_dtype == FA_F16 || w->scale_dtype == FA_BF16);
        block = w->group ? w->group : 1;
    } else if (w->fmt == FA_FMT_MXFP4) {
        known = w->bits == 4 && w->group == 32 && w->scale_dtype == FA_U8;
    } else if (w->fmt == FA_FMT_MXFP8) {
        known = w->bits == 8 && w->group == 32 && w->scale_dtype == FA_U8;
    } else if (w->fmt == FA_FMT_NVFP4) {
        known = w->bits == 4 && w->group == 16 && (w->scale_dtype == FA_F8_E4M3 || w->scale_dtype == FA_F32);
    } else if (w->fmt == FA_FMT_FP8) {
        known = w->bits == 8 && (w->group == 0 || w->group == 32 || w->group == 64 || w->group == 128) &&
                w->scale_dtype == FA_F32;
    }
    if (!known)
        return fa_fail(err, FFAI_ENOTSUP, "%s: no kernel for %s with %d bits, groups of %d and %s scales", name, fmt,
                       w->bits, w->group, fa_dtype_name((fa_dtype)w->scale_dtype));
    if (w->cols % block)
        return fa_fail(err, FFAI_ENOTSUP, "%s: %lld columns in %s are not a multiple of %d", name, (long long)w->cols,
                       fmt, block);
    if (((uintptr_t)w->codes | (uintptr_t)w->scales | (uintptr_t)w->biases | w->row_bytes | w->scale_row_bytes) & 15)
        return fa_fail(err, FFAI_EINTERNAL,
                       "%s: rows on the device are not aligned to 16 bytes (pitch %zu, scales %zu)", name, w->row_bytes,
                       w->scale_row_bytes);
    return 0;
}
