/* Adapters on the GPU: low-rank changes of linear layers and embeddings for the rows whose sequences use them. The
 * definition is src/backend/cpu/ops_lora.c. Two kernels: u = scale * (a x), then out += b u + scale * bias, times
 * magnitudes, all in f32.
 * Which adapters there are is part of the record; which row uses which, and how strongly, is read on the device, so
 * that graphs stay valid when that changes. Rows that use none of them are not touched. */
#include "backend/cuda/lora.cuh"

enum { THREADS = 128, WARPS = THREADS / CU_WARP, ROWS = 8 /* that a block works on when there are many */, CHUNK = 64 };

/* What result i is to be multiplied by. */
static __device__ float lora_magnitude(const fa_lora &l, int64_t i, float scale) {
    const float *m = l.mag + i, slope = fmaf(m[2 * l.n_mag], scale, m[3 * l.n_mag]);
    const float length = sqrtf(fmaf(slope, slope, m[l.n_mag]));
    return length > 0 ? m[0] / length : 0.0f;
}

/* A warp: one row of one adapter's a, times R rows of x. */
template <int R>
static __global__ void lora_down_kernel(const fa_lora *item, cu_batch b, const int32_t *out_row, const void *x,
                                        int x_type, int64_t M, int64_t K, bool vec, float *u, int64_t ldu) {
    const fa_lora &l = item[blockIdx.y];
    const int lane = (int)threadIdx.x % CU_WARP;
    const int64_t m0 = (int64_t)blockIdx.x * R, r = (int64_t)blockIdx.z * WARPS + threadIdx.x / CU_WARP;
    cu_pdl_launch();
    cu_pdl_wait();
    float s[R], acc[R];
    bool any = false;
#pragma unroll
    for (int j = 0; j < R; j++) {
        s[j] = cu_lora_scale(l, b, out_row, m0 + j, M);
        acc[j] = 0;
        any = any || s[j] != 0;
    }
    if (!any || r >= l.a.rows) return; /* the same for all lanes */
    const uint8_t *a = l.a.codes + (size_t)r * l.a.row_bytes;
    const int type = cu_lora_type(l.a);
    const uint8_t *row = (const uint8_t *)x + m0 * K * (x_type == FA_F32 ? 4 : 2);
    const int64_t pitch = K * (x_type == FA_F32 ? 4 : 2);
    for (int64_t k = 4 * lane; vec && k < K; k += 4 * CU_WARP) {
        const float4 w = cu_get4(a, type, k);
#pragma unroll
        for (int j = 0; j < R; j++) {
            if (s[j] == 0) continue;
            const float4 v = cu_get4(row + j * pitch, x_type, k);
            acc[j] = fmaf(w.x, v.x, fmaf(w.y, v.y, fmaf(w.z, v.z, fmaf(w.w, v.w, acc[j]))));
        }
    }
    for (int64_t k = lane; !vec && k < K; k += CU_WARP) {
        const float w = cu_get(a, type, k);
#pragma unroll
        for (int j = 0; j < R; j++)
            if (s[j] != 0) acc[j] = fmaf(w, cu_get(row + j * pitch, x_type, k), acc[j]);
    }
#pragma unroll
    for (int j = 0; j < R; j++) {
        const float sum = cu_warp_sum(acc[j]);
        if (lane == 0 && s[j] != 0) u[(m0 + j) * ldu + l.u_from + r] = s[j] * sum;
    }
}

/* A block: THREADS columns of R rows of out, a thread one column of all. */
template <int R>
static __global__ void lora_up_kernel(const fa_lora *item, int n_item, cu_batch b, const int32_t *out_row,
                                      const float *u, int64_t ldu, int64_t M, int64_t N, const float *bias,
                                      float *out) {
    __shared__ float part[R][CHUNK];
    const int64_t m0 = (int64_t)blockIdx.y * R, n = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    cu_pdl_launch();
    cu_pdl_wait();
    float acc[R], by[R]; /* the result: by times what out holds without the layer's bias, + acc */
    bool used[R];
#pragma unroll
    for (int j = 0; j < R; j++) acc[j] = 0, by[j] = 1, used[j] = false;
    for (int i = 0; i < n_item; i++) {
        const fa_lora &l = item[i];
        float s[R];
        bool any = false;
#pragma unroll
        for (int j = 0; j < R; j++) {
            s[j] = cu_lora_scale(l, b, out_row, m0 + j, M);
            used[j] = used[j] || s[j] != 0;
            any = any || s[j] != 0;
        }
        if (!any) continue; /* the same for all threads */
        const uint8_t *row = l.b.codes + (size_t)(n < N ? n : 0) * l.b.row_bytes;
        const int type = cu_lora_type(l.b);
        const int64_t rank = l.b.cols;
        for (int64_t r0 = 0; r0 < rank; r0 += CHUNK) {
            __syncthreads();
#pragma unroll
            for (int j = 0; j < R; j++)
                for (int c = (int)threadIdx.x; c < CHUNK; c += THREADS)
                    part[j][c] = s[j] != 0 && r0 + c < rank ? u[(m0 + j) * ldu + l.u_from + r0 + c] : 0;
            __syncthreads();
            const int end = rank - r0 < CHUNK ? (int)(rank - r0) : (int)CHUNK;
            for (int c = 0; c < end; c += 4) {
                const float4 w = cu_get4(row, type, r0 + c);
#pragma unroll
                for (int j = 0; j < R; j++)
                    acc[j] =
                        fmaf(w.x, part[j][c],
                             fmaf(w.y, part[j][c + 1], fmaf(w.z, part[j][c + 2], fmaf(w.w, part[j][c + 3], acc[j]))));
            }
        }
        if (n >= N) continue;
#pragma unroll
        for (int j = 0; j < R; j++) {
            if (s[j] == 0) continue;
            if (l.bias) acc[j] = fmaf(s[j], l.bias[n], acc[j]);
            if (!l.mag) continue;
            const float m = lora_magnitude(l, n, s[j]);
            acc[j] *= m, by[j] *= m;
        }
    }
    const float b0 = bias && n < N ? bias[n] : 0.0f;
#pragma unroll
    for (int j = 0; j < R; j++) {
        if (!used[j] || n >= N) continue;
        float *o = out + (m0 + j) * N + n;
        *o = by[j] == 1.0f ? *o + acc[j] : fmaf(*o - b0, by[j], acc[j]) + b0;
    }
}

template <int R> static void launch_rows(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_loras *l = r->p.lora.list;
    const fa_tensor x = r->in[0];
    const int64_t M = x.dim[0], K = x.dim[1], N = r->out.dim[1];
    const int32_t *out_row = r->p.lora.out_rows ? b->out_row : NULL;
    const bool vec = K % 4 == 0 && (uintptr_t)x.data % 16 == 0;
    float *u = (float *)r->work;
    const dim3 down(cu_blocks(M, R), (unsigned)l->n, cu_blocks(l->max_rank, WARPS)),
        up(cu_blocks(N, THREADS), cu_blocks(M, R));
    CU_LAUNCH(cu, lora_down_kernel<R>, down, THREADS, 0, l->dev_item, *b, out_row, (const void *)x.data, (int)x.dtype,
              M, K, vec, u, l->rank);
    CU_LAUNCH(cu, lora_up_kernel<R>, up, THREADS, 0, l->dev_item, l->n, *b, out_row, (const float *)u, l->rank, M, N,
              r->p.lora.bias, fa_f32(r->out));
}

static void lora_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    if (r->in[0].dim[0] <= CU_FEW)
        launch_rows<1>(cu, r, b);
    else
        launch_rows<ROWS>(cu, r, b);
}

static int64_t lora_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    const fa_tensor x = r->in[0];
    if ((x.dtype != FA_F32 && x.dtype != FA_BF16) || r->out.dtype != FA_F32)
        return fa_fail(err, FFAI_ENOTSUP, "no kernel for %s to %s", fa_dtype_name((fa_dtype)x.dtype),
                       fa_dtype_name((fa_dtype)r->out.dtype));
    return x.dim[0] * r->p.lora.list->rank * (int64_t)sizeof(float);
}
extern const cu_op cu_op_lora = {lora_launch, lora_work};

/* ---- embeddings ---- */

/* A block: THREADS columns of one row. */
static __global__ void lora_embed_kernel(const fa_lora *item, int n_item, cu_batch b, float scale, int64_t N,
                                         float *out) {
    const int i = (int)blockIdx.x;
    const int64_t n = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    cu_pdl_launch();
    cu_pdl_wait();
    if (n >= N || (b.embd && b.embd_row && b.embd_row[i] >= 0)) return;
    int32_t t = b.tok[i];
    if (t < 0) t = b.last[-1 - t];
    float sum = 0, by = 1;
    bool used = false;
    for (int k = 0; k < n_item; k++) {
        const fa_lora &l = item[k];
        const float s = cu_lora_scale(l, b, NULL, i, b.n_tok);
        if (s == 0 || t < 0 || t >= l.a.rows) continue;
        const uint8_t *ar = l.a.codes + (size_t)t * l.a.row_bytes, *br = l.b.codes + (size_t)n * l.b.row_bytes;
        const int at = cu_lora_type(l.a), bt = cu_lora_type(l.b);
        float acc = 0;
        for (int64_t r = 0; r < l.b.cols; r += 4) {
            const float4 v = cu_get4(ar, at, r), w = cu_get4(br, bt, r);
            acc = fmaf(w.x, v.x, fmaf(w.y, v.y, fmaf(w.z, v.z, fmaf(w.w, v.w, acc))));
        }
        sum = fmaf(s * scale, acc, sum);
        used = true;
        if (!l.mag) continue;
        const float m = lora_magnitude(l, l.by_token ? t : n, s);
        sum *= m, by *= m;
    }
    if (used) out[i * N + n] = fmaf(out[i * N + n], by, sum);
}

static void lora_embed_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_loras *l = r->p.lora.list;
    const int64_t N = r->out.dim[1];
    CU_LAUNCH(cu, lora_embed_kernel, dim3((unsigned)r->out.dim[0], cu_blocks(N, THREADS)), THREADS, 0, l->dev_item,
              l->n, *b, r->p.lora.embed, N, fa_f32(r->out));
}
extern const cu_op cu_op_lora_embed = {lora_embed_launch, NULL};
