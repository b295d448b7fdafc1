/* Row-wise operations on the GPU: rotation tables, norms, rotation, cache writes, activations, copies. The definitions
 * are in src/backend/cpu/ops_basic.c. Norms and everything elementwise may work in place. These run in unfused
 * programs, around the layers (final norm, softcap) and in every step once (rotation tables); memory-bound, so a thread
 * does a vector of four where addresses allow it. */
#include "backend/cuda/cu_rows.h"

enum { THREADS = 256, WARPS = THREADS / CU_WARP, MAX_PAIRS = 256 };

static int64_t rows_of(fa_tensor t) { return t.dim[0]; }
static int64_t cols_of(fa_tensor t) { return t.dim[1]; }

/* Can elements of t be moved four at a time, from the start of every row on? */
static bool by_four(const void *p, int type, int64_t n) {
    return n % 4 == 0 && (uintptr_t)p % (4 * fa_dtype_size((fa_dtype)type)) == 0;
}
static bool four(fa_tensor t) { return by_four(t.data, t.dtype, cols_of(t)); }

static int64_t only_floats(const fa_rec *r, fa_error *err) {
    const fa_tensor *t[3] = {&r->out, &r->in[0], &r->in[1]};
    for (int i = 0; i < 3; i++)
        if (t[i]->data && t[i]->dtype != FA_F32 && (i == 0 || t[i]->dtype != FA_BF16))
            return fa_fail(err, FFAI_ENOTSUP, "no kernel for %s of %s", i ? "an input" : "an output",
                           fa_dtype_name((fa_dtype)t[i]->dtype));
    return 0;
}
static int64_t float_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) { return only_floats(r, err); }

static int64_t even_heads(int64_t dim, fa_error *err) {
    return dim % 2 ? fa_fail(err, FFAI_ENOTSUP, "no kernel for heads of %lld, an odd number", (long long)dim) : 0;
}

/* ---- rotation tables ---- */

typedef struct rope_args {
    float *out; /* [n_tok, 2, n_pair] */
    int n_pair, dim, n_tok, dynamic, has_long;
    float mscale, factor, theta, growth;
    int64_t growth_ctx;
    int64_t original_ctx; /* 0: nothing depends on the length */
    float inv[MAX_PAIRS], inv_long[MAX_PAIRS];
} rope_args;

/* theta' = theta * (factor * len / ctx - (factor - 1)) ^ (d / (d - 2)); powers in double, so that their error does not
 * show in the angles of late positions. */
static __device__ float dynamic_inv(const rope_args &a, int len, int j) {
    double d = a.dim, f = a.factor;
    double ratio = f * (double)len / (double)a.original_ctx - (f - 1);
    float base = (float)((double)a.theta * pow(ratio, d / (d - 2)));
    return 1.0f / (float)pow((double)base, (double)((float)(2 * j) / (float)a.dim));
}

/* A thread: one pair of one row. */
static __global__ void rope_table_kernel(rope_args a, cu_batch b) {
    cu_pdl_launch();
    cu_pdl_wait();
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (int64_t)a.n_tok * a.n_pair) return;
    int row = (int)(at / a.n_pair), j = (int)(at % a.n_pair);
    float inv = a.inv[j];
    if (a.original_ctx > 0 && (a.dynamic || a.has_long)) {
        int len = b.rope_len[b.row_seq[row]];
        if (len > a.original_ctx && a.has_long) inv = a.inv_long[j];
        if (len > a.original_ctx && a.dynamic) inv = dynamic_inv(a, len, j);
    }
    float s, c, pos = (float)b.pos[row], angle = pos * inv, scale = a.mscale;
    if (a.growth != 0) scale *= 1 + a.growth * logf(1 + floorf(pos / (float)a.growth_ctx));
    sincosf(angle, &s, &c);
    float *out = a.out + (int64_t)row * 2 * a.n_pair;
    out[j] = c * scale;
    out[a.n_pair + j] = s * scale;
}

static void rope_table_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_rope *rope = r->p.rope_table;
    rope_args a = {};
    a.out = fa_f32(r->out);
    a.n_pair = (int)rope->n_pair;
    a.dim = (int)rope->dim;
    a.n_tok = (int)rows_of(r->out);
    a.dynamic = rope->dynamic;
    a.has_long = rope->inv_freq_long != NULL;
    a.mscale = rope->mscale;
    a.growth = rope->growth;
    a.growth_ctx = rope->growth_ctx;
    a.factor = rope->factor;
    a.theta = rope->theta;
    a.original_ctx = rope->original_ctx;
    for (int i = 0; i < a.n_pair; i++) {
        a.inv[i] = rope->inv_freq[i];
        if (a.has_long) a.inv_long[i] = rope->inv_freq_long[i];
    }
    CU_LAUNCH(cu, rope_table_kernel, dim3(cu_blocks((int64_t)a.n_tok * a.n_pair, 64)), 64, 0, a, *b);
}

static int64_t rope_table_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    int64_t n = r->p.rope_table->n_pair;
    if (n <= MAX_PAIRS) return 0;
    return fa_fail(err, FFAI_ENOTSUP, "no kernel for rotations of %lld pairs, at most %d", (long long)n, MAX_PAIRS);
}

extern const cu_op cu_op_rope_table = {rope_table_launch, rope_table_work};

/* ---- norms ---- */

typedef struct norm_args {
    const void *x;
    float *out;
    cu_norm n;
    int64_t dim;
    int x_type;
    bool vec;
} norm_args;

/* Sum of squares of this thread's part of a row. */
template <typename T> static __device__ T squares(const norm_args &a, const void *x) {
    T s = 0;
    if (a.vec) {
        for (int64_t i = threadIdx.x; i < a.dim / 4; i += blockDim.x) {
            float4 v = cu_get4(x, a.x_type, 4 * i);
            s += (T)v.x * (T)v.x + (T)v.y * (T)v.y + (T)v.z * (T)v.z + (T)v.w * (T)v.w;
        }
        return s;
    }
    for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) {
        T v = (T)cu_get(x, a.x_type, i);
        s += v * v;
    }
    return s;
}

/* A block: one row, read twice (the second time from the cache). */
static __global__ void norm_kernel(norm_args a) {
    __shared__ double part[CU_WARP];
    cu_pdl_launch();
    cu_pdl_wait();
    const char *x = (const char *)a.x + (int64_t)blockIdx.x * a.dim * (a.x_type == FA_F32 ? 4 : 2);
    float *out = a.out + (int64_t)blockIdx.x * a.dim;
    bool wide;
    float r = cu_inv_rms(cu_block_sum(squares<float>(a, x), (float *)part), a.dim, a.n.eps, &wide);
    if (wide) r = cu_inv_rms_wide(cu_block_sum_wide(squares<double>(a, x), part), a.dim, a.n.eps);
    if (a.vec) {
        for (int64_t i = threadIdx.x; i < a.dim / 4; i += blockDim.x) {
            float4 v = cu_get4(x, a.x_type, 4 * i), w = make_float4(1, 1, 1, 1);
            if (a.n.w) {
                w = cu_get4(a.n.w, FA_F32, 4 * i);
                w = make_float4(w.x + a.n.offset, w.y + a.n.offset, w.z + a.n.offset, w.w + a.n.offset);
            }
            cu_put4(out, FA_F32, 4 * i, make_float4(v.x * r * w.x, v.y * r * w.y, v.z * r * w.z, v.w * r * w.w));
        }
        return;
    }
    for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float v = cu_get(x, a.x_type, i) * r;
        out[i] = a.n.w ? v * (a.n.w[i] + a.n.offset) : v;
    }
}

typedef struct layer_norm_args {
    const void *x;
    float *out; /* may be x */
    const float *w, *b;
    int64_t dim;
    float eps, offset;
    int x_type;
} layer_norm_args;

/* A block: one row, centred. Mean and variance in double: rows are short, and their mean may be large beside their
 * spread. A thread reads for itself what it writes. */
static __global__ void layer_norm_kernel(layer_norm_args a) {
    __shared__ double part[CU_WARP];
    cu_pdl_launch();
    cu_pdl_wait();
    const char *x = (const char *)a.x + (int64_t)blockIdx.x * a.dim * (a.x_type == FA_F32 ? 4 : 2);
    float *out = a.out + (int64_t)blockIdx.x * a.dim;
    double sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) sum += (double)cu_get(x, a.x_type, i);
    const double mean = cu_block_sum_wide(sum, part) / (double)a.dim;
    for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) {
        const double v = (double)cu_get(x, a.x_type, i) - mean;
        squares += v * v;
    }
    const float r = cu_inv_rms_wide(cu_block_sum_wide(squares, part), a.dim, a.eps), m = (float)mean;
    for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float v = (cu_get(x, a.x_type, i) - m) * r;
        if (a.w) v *= a.w[i] + a.offset;
        out[i] = a.b ? v + a.b[i] : v;
    }
}

/* rows of n->dim elements */
static void layer_norm_launch(fa_cuda *cu, const fa_norm *n, const void *x, int x_type, float *out, int64_t rows) {
    const int threads = n->dim >= 4096 ? 1024 : n->dim >= 1024 ? 256 : 64;
    layer_norm_args a = {x, out, n->w, n->b, n->dim, n->eps, n->offset, x_type};
    CU_LAUNCH(cu, layer_norm_kernel, dim3((unsigned)rows), threads, 0, a);
}

static void norm_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    if (r->p.norm->center) {
        layer_norm_launch(cu, r->p.norm, r->in[0].data, r->in[0].dtype, fa_f32(r->out), rows_of(r->out));
        return;
    }
    norm_args a = {r->in[0].data, fa_f32(r->out), cu_norm_of(r->p.norm), cols_of(r->out), r->in[0].dtype, false};
    int threads = a.dim >= 4096 ? 1024 : a.dim >= 1024 ? 256 : 64;
    a.vec = four(r->in[0]) && four(r->out) && (!a.n.w || by_four(a.n.w, FA_F32, a.dim));
    CU_LAUNCH(cu, norm_kernel, dim3((unsigned)rows_of(r->out)), threads, 0, a);
}
extern const cu_op cu_op_norm = {norm_launch, float_work};

/* A warp: one head, in place. */
static __global__ void head_norm_kernel(float *x, int64_t n_head, int dim, cu_norm n) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int lane = (int)threadIdx.x % CU_WARP;
    int64_t h = (int64_t)blockIdx.x * WARPS + threadIdx.x / CU_WARP;
    if (h >= n_head) return;
    x += h * dim;
    float r = cu_warp_inv_rms(x, dim, n.eps);
    for (int i = lane; i < dim; i += CU_WARP) {
        float v = x[i] * r;
        x[i] = n.w ? v * (n.w[i] + n.offset) : v;
    }
}

static void head_norm_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_norm *n = r->p.norm;
    int64_t heads = rows_of(r->out) * (cols_of(r->out) / n->dim);
    if (n->center) {
        layer_norm_launch(cu, n, r->out.data, FA_F32, fa_f32(r->out), heads);
        return;
    }
    CU_LAUNCH(cu, head_norm_kernel, dim3(cu_blocks(heads, WARPS)), THREADS, 0, fa_f32(r->out), heads, (int)n->dim,
              cu_norm_of(n));
}
extern const cu_op cu_op_head_norm = {head_norm_launch, float_work};

/* ---- rotation ---- */

/* A warp: one head, in place. */
static __global__ void rope_kernel(float *x, int64_t n_head, int per_row, int dim, const float *table, int n_pair,
                                   int interleaved) {
    cu_pdl_launch();
    cu_pdl_wait();
    int64_t h = (int64_t)blockIdx.x * WARPS + threadIdx.x / CU_WARP;
    if (h >= n_head) return;
    const cu_norm none = {NULL, 0, 0, 0};
    x += h * dim;
    cu_warp_head(x, dim, none, table + h / per_row * 2 * n_pair, n_pair, interleaved, x, FA_F32);
}

static void rope_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    int dim = (int)r->p.rope.head_dim, per_row = (int)(cols_of(r->out) / dim);
    int64_t heads = rows_of(r->out) * per_row;
    CU_LAUNCH(cu, rope_kernel, dim3(cu_blocks(heads, WARPS)), THREADS, 0, fa_f32(r->out), heads, per_row, dim,
              r->p.rope.table, (int)r->p.rope.n_pair, (int)r->p.rope.interleaved);
}
static int64_t rope_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    int64_t rc = only_floats(r, err);
    return rc ? rc : even_heads(r->p.rope.head_dim, err);
}
extern const cu_op cu_op_rope = {rope_launch, rope_work};

/* ---- cache ---- */

/* A warp: one head of k or v of one row. */
static __global__ void append_kernel(const float *k, const float *v, int64_t n_row, cu_cache c) {
    cu_pdl_launch();
    cu_pdl_wait();
    int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / CU_WARP;
    if (at >= n_row * 2 * c.n_head) return;
    const cu_norm none = {NULL, 0, 0, 0};
    int64_t row = at / (2 * c.n_head);
    int head = (int)(at % c.n_head);
    bool key = at % (2 * c.n_head) < c.n_head;
    const float *x = (key ? k : v) + (row * c.n_head + head) * c.dim;
    if (c.type == FA_I8) {
        int at = 0;
        uint8_t *part = cu_cache_head(c, key ? c.k : c.v, (int)row, head, &at);
        if (part) cu_warp_q8(x, c.dim, part, at);
        return;
    }
    void *to = cu_cache_at(c, key ? c.k : c.v, (int)row, head);
    if (to) cu_warp_head(x, c.dim, none, NULL, 0, 0, to, c.type);
}

static void append_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const fa_kv *kv = r->p.append.kv;
    int64_t n = rows_of(r->in[0]);
    CU_LAUNCH(cu, append_kernel, dim3(cu_blocks(n * 2 * kv->n_head, WARPS)), THREADS, 0, (const float *)r->in[0].data,
              (const float *)r->in[1].data, n, cu_cache_of(kv, b));
}
static int64_t append_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    if (r->in[0].dtype != FA_F32 || r->in[1].dtype != FA_F32)
        return fa_fail(err, FFAI_ENOTSUP, "no kernel for keys of %s", fa_dtype_name((fa_dtype)r->in[0].dtype));
    return even_heads(r->p.append.kv->head_dim, err);
}
extern const cu_op cu_op_append = {append_launch, append_work};

/* ---- elementwise: a thread does four elements, the last ones one by one ---- */

/* up NULL: act(gate) alone */
static __global__ void glu_kernel(const void *gate, int gate_type, const void *up, int up_type, int act, int64_t n,
                                  bool vec, float *out) {
    cu_pdl_launch();
    cu_pdl_wait();
    int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (vec && i + 4 <= n) {
        float4 g = cu_get4(gate, gate_type, i), u = make_float4(1, 1, 1, 1);
        if (up) u = cu_get4(up, up_type, i);
        cu_put4(out, FA_F32, i,
                make_float4(cu_act(act, g.x) * u.x, cu_act(act, g.y) * u.y, cu_act(act, g.z) * u.z,
                            cu_act(act, g.w) * u.w));
        return;
    }
    for (int64_t end = i + 4; i < end && i < n; i++)
        out[i] = cu_act(act, cu_get(gate, gate_type, i)) * (up ? cu_get(up, up_type, i) : 1.0f);
}

static __global__ void add_kernel(float *y, const void *x, int x_type, float scale, int64_t n, bool vec) {
    cu_pdl_launch();
    cu_pdl_wait();
    int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (vec && i + 4 <= n) {
        float4 a = cu_get4(y, FA_F32, i), b = cu_get4(x, x_type, i);
        cu_put4(y, FA_F32, i, make_float4(a.x + scale * b.x, a.y + scale * b.y, a.z + scale * b.z, a.w + scale * b.w));
        return;
    }
    for (int64_t end = i + 4; i < end && i < n; i++) y[i] += scale * cu_get(x, x_type, i);
}

/* What SOFTCAP, SCALE and CLAMP do to one element. */
template <int OP> CU_DEV float changed(float x, float p) {
    if (OP == FA_OP_SOFTCAP) return p * tanhf(x / p);
    if (OP == FA_OP_SCALE) return x * p;
    return x > p ? p : x < -p ? -p : x;
}

template <int OP> static __global__ void change_kernel(float *x, float p, int64_t n, bool vec) {
    cu_pdl_launch();
    cu_pdl_wait();
    int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (vec && i + 4 <= n) {
        float4 a = cu_get4(x, FA_F32, i);
        cu_put4(x, FA_F32, i,
                make_float4(changed<OP>(a.x, p), changed<OP>(a.y, p), changed<OP>(a.z, p), changed<OP>(a.w, p)));
        return;
    }
    for (int64_t end = i + 4; i < end && i < n; i++) x[i] = changed<OP>(x[i], p);
}

static dim3 grid_for(int64_t n) { return dim3(cu_blocks(n, 4 * THREADS)); }

static void glu_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    fa_tensor g = r->in[0], u = r->in[1];
    bool vec = by_four(g.data, g.dtype, 4) && by_four(r->out.data, FA_F32, 4);
    if (u.data) vec = vec && by_four(u.data, u.dtype, 4);
    int64_t n = rows_of(r->out) * cols_of(r->out);
    CU_LAUNCH(cu, glu_kernel, grid_for(n), THREADS, 0, (const void *)g.data, (int)g.dtype, (const void *)u.data,
              (int)u.dtype, (int)r->p.glu, n, vec, fa_f32(r->out));
}
extern const cu_op cu_op_glu = {glu_launch, float_work};

static void add_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    fa_tensor x = r->in[0];
    int64_t n = rows_of(r->out) * cols_of(r->out);
    bool vec = by_four(x.data, x.dtype, 4) && by_four(r->out.data, FA_F32, 4);
    CU_LAUNCH(cu, add_kernel, grid_for(n), THREADS, 0, fa_f32(r->out), (const void *)x.data, (int)x.dtype, r->p.add, n,
              vec);
}
extern const cu_op cu_op_add = {add_launch, float_work};

template <int OP> static void change(fa_cuda *cu, fa_tensor x, float p) {
    int64_t n = rows_of(x) * cols_of(x);
    CU_LAUNCH(cu, change_kernel<OP>, grid_for(n), THREADS, 0, fa_f32(x), p, n, by_four(x.data, FA_F32, 4));
}
static void softcap_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    change<FA_OP_SOFTCAP>(cu, r->out, r->p.softcap);
}
static void scale_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    change<FA_OP_SCALE>(cu, r->out, r->p.scale);
}
static void clamp_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    change<FA_OP_CLAMP>(cu, r->out, r->p.clamp);
}
extern const cu_op cu_op_softcap = {softcap_launch, float_work};
extern const cu_op cu_op_scale = {scale_launch, float_work};
extern const cu_op cu_op_clamp = {clamp_launch, float_work};

/* A block: a piece of THREADS columns of a row, times act(gate of the row). */
static __global__ void row_gate_kernel(float *x, const void *gate, int gate_type, int act, int64_t dim) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (i < dim) x[(int64_t)blockIdx.x * dim + i] *= cu_act(act, cu_get(gate, gate_type, blockIdx.x));
}

static void row_gate_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const int64_t dim = cols_of(r->out);
    CU_LAUNCH(cu, row_gate_kernel, dim3((unsigned)rows_of(r->out), cu_blocks(dim, THREADS)), THREADS, 0, fa_f32(r->out),
              (const void *)r->in[0].data, (int)r->in[0].dtype, (int)r->p.row_gate, dim);
}
extern const cu_op cu_op_row_gate = {row_gate_launch, float_work};

/* A block: a piece of THREADS columns of a row. x: at the first column that is wanted, ld elements a row. */
static __global__ void cols_kernel(const void *x, int x_type, int64_t from, int64_t ld, int64_t n, float *out) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x, row = blockIdx.x;
    if (i < n) out[row * n + i] = cu_get(x, x_type, row * ld + from + i);
}

static void cols_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const int64_t n = cols_of(r->out);
    CU_LAUNCH(cu, cols_kernel, dim3((unsigned)rows_of(r->out), cu_blocks(n, THREADS)), THREADS, 0,
              (const void *)r->in[0].data, (int)r->in[0].dtype, r->p.cols, cols_of(r->in[0]), n, fa_f32(r->out));
}
extern const cu_op cu_op_cols = {cols_launch, float_work};

/* The same for n columns in any order; ld: columns of x. */
static __global__ void pick_kernel(const void *x, int x_type, const float *order, int64_t ld, int64_t n, float *out) {
    cu_pdl_launch();
    cu_pdl_wait();
    const int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x, row = blockIdx.x;
    if (i < n) out[row * n + i] = cu_get(x, x_type, row * ld + (int64_t)order[i]);
}

static void pick_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    const int64_t n = cols_of(r->out);
    CU_LAUNCH(cu, pick_kernel, dim3((unsigned)rows_of(r->out), cu_blocks(n, THREADS)), THREADS, 0,
              (const void *)r->in[0].data, (int)r->in[0].dtype, r->p.pick_cols, cols_of(r->in[0]), n, fa_f32(r->out));
}
extern const cu_op cu_op_pick_cols = {pick_launch, float_work};

/* ---- rows ---- */

/* A block: a piece of 4 * THREADS columns of one output row. */
static __global__ void rows_kernel(const void *x, int x_type, const int32_t *from, int64_t dim, bool vec, float *out) {
    cu_pdl_launch();
    cu_pdl_wait();
    const char *in = (const char *)x + (int64_t)from[blockIdx.x] * dim * (x_type == FA_F32 ? 4 : 2);
    out += (int64_t)blockIdx.x * dim;
    int64_t i = 4 * ((int64_t)blockIdx.y * blockDim.x + threadIdx.x);
    if (vec && i + 4 <= dim) {
        cu_put4(out, FA_F32, i, cu_get4(in, x_type, i));
        return;
    }
    for (int64_t end = i + 4; i < end && i < dim; i++) out[i] = cu_get(in, x_type, i);
}

static void rows_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    fa_tensor x = r->in[0];
    int64_t dim = cols_of(r->out);
    dim3 grid((unsigned)rows_of(r->out), cu_blocks(dim, 4 * THREADS));
    CU_LAUNCH(cu, rows_kernel, grid, THREADS, 0, (const void *)x.data, (int)x.dtype, b->out_row, dim,
              four(x) && four(r->out), fa_f32(r->out));
}
extern const cu_op cu_op_rows = {rows_launch, float_work};
