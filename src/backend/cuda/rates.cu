/* What the device can do: bytes per second of a read stream, operations per second of matrix products. Speeds are
 * measured against these, on the same device on the same day. */
#include "backend/cuda/cu.h"

#include <string.h>

#ifdef FA_CUDA_EMU
static const size_t READ_BYTES = (size_t)1 << 20;
enum { BF16_SIZE = 128, F32_SIZE = 64, TIMES = 2 };
#else
static const size_t READ_BYTES = (size_t)2 << 30;
enum { BF16_SIZE = 8192, F32_SIZE = 4096, TIMES = 10 };
#endif
enum { THREADS = 512, DEEP = 8 /* 16-byte loads that a thread has under way */ };

/* A block reads pieces of THREADS * DEEP * 16 bytes, gridDim.x pieces apart. The sum keeps the loads alive: it is
 * random enough never to be the one value that is stored. n: bytes, a multiple of a piece. */
static __global__ void __launch_bounds__(THREADS) read_all(const uint8_t *p, int64_t n, uint32_t *never) {
    const int64_t piece = (int64_t)THREADS * DEEP * 16;
    uint32_t sum = 0;
    cu_pdl_launch();
    cu_pdl_wait();
    for (int64_t at = blockIdx.x * piece; at < n; at += gridDim.x * piece) {
        uint4 v[DEEP];
#pragma unroll
        for (int i = 0; i < DEEP; i++) v[i] = cu_ld_stream(p + at + ((int64_t)i * THREADS + threadIdx.x) * 16);
#pragma unroll
        for (int i = 0; i < DEEP; i++) sum += v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
    }
    if (sum == 0x9E3779B9u) *never = sum;
}

/* Random numbers in [-1, 1): zeros would draw less power and run faster than anything real. */
static __global__ void __launch_bounds__(THREADS) randomize(void *p, int64_t n, int bf16) {
    cu_pdl_launch();
    cu_pdl_wait();
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
        uint32_t h = (uint32_t)i * 0x9E3779B1u + 0x7F4A7C15u;
        h = (h ^ h >> 15) * 0x85EBCA77u;
        h = (h ^ h >> 13) * 0xC2B2AE3Du;
        const float v = (float)((h ^ h >> 16) >> 8) * 0x1p-23f - 1.0f;
        if (bf16)
            ((uint16_t *)p)[i] = cu_to_bf16(v);
        else
            ((float *)p)[i] = v;
    }
}

typedef struct meter {
    fa_cuda *cu;
    cudaEvent_t from, to;
    uint8_t *mem; /* everything that is read and written */
    size_t bytes;
} meter;

typedef void work_fn(meter *m);

/* Shortest of TIMES runs, in seconds; < 0 with *err after a fault. */
static double shortest(meter *m, work_fn *work, const char *what, fa_error *err) {
    cu_device *dev = m->cu->dev;
    double best = -1;
    for (int i = 0; i < TIMES + 1; i++) { /* the first warms up */
        float ms = 0;
        int rc = cu_check(dev, cudaEventRecord(m->from, m->cu->stream), what, err);
        if (!rc) work(m);
        if (!rc) rc = cu_check(dev, cudaEventRecord(m->to, m->cu->stream), what, err);
        if (!rc) rc = cu_check(dev, cudaEventSynchronize(m->to), what, err);
        if (!rc) rc = cu_check(dev, cudaEventElapsedTime(&ms, m->from, m->to), what, err);
        if (!rc && m->cu->err.code) rc = fa_fail(err, m->cu->err.code, "%s", m->cu->err.msg);
        if (rc) return -1;
        if (i && (best < 0 || ms < best)) best = ms;
    }
    return best * 1e-3 > 1e-9 ? best * 1e-3 : 1e-9; /* clocks may stand still under emulation */
}

static void read_work(meter *m) {
    CU_LAUNCH(m->cu, read_all, dim3((unsigned)m->cu->n_sm * 4), THREADS, 0, (const uint8_t *)m->mem, (int64_t)m->bytes,
              (uint32_t *)m->mem);
}

/* x and w, then y, in m->mem */
static void product_work(meter *m, fa_dtype type, int64_t n) {
    const size_t one = (size_t)(n * n) * fa_dtype_size(type);
    cu_product p;
    memset(&p, 0, sizeof p);
    p.M = p.N = p.K = p.ldx = p.ldw = p.ldy = n;
    p.x = m->mem, p.w = m->mem + one, p.y = m->mem + 2 * one;
    p.type = p.y_type = (uint8_t)type;
    cu_gemm(m->cu, &p);
}
static void bf16_work(meter *m) { product_work(m, FA_BF16, BF16_SIZE); }
static void f32_work(meter *m) { product_work(m, FA_F32, F32_SIZE); }

static void fill(meter *m, fa_dtype type) {
    CU_LAUNCH(m->cu, randomize, dim3((unsigned)m->cu->n_sm * 4), THREADS, 0, (void *)m->mem,
              (int64_t)(m->bytes / fa_dtype_size(type)), type == FA_BF16 ? 1 : 0);
}

static int measure(meter *m, fa_device_rates *out, fa_error *err) {
    fill(m, FA_F32);
    double s = shortest(m, read_work, "measuring the read rate", err);
    if (s < 0) return err ? err->code : FFAI_EINTERNAL;
    out->read_bytes_s = (double)m->bytes / s;
    fill(m, FA_BF16);
    s = shortest(m, bf16_work, "measuring the bf16 rate", err);
    if (s < 0) return err ? err->code : FFAI_EINTERNAL;
    out->bf16_ops_s = 2.0 * BF16_SIZE * BF16_SIZE * BF16_SIZE / s;
    fill(m, FA_F32);
    s = shortest(m, f32_work, "measuring the f32 rate", err);
    if (s < 0) return err ? err->code : FFAI_EINTERNAL;
    out->f32_ops_s = 2.0 * F32_SIZE * F32_SIZE * F32_SIZE / s;
    return 0;
}

int cu_rates(cu_device *dev, fa_device_rates *out, fa_error *err) {
    const size_t piece = (size_t)THREADS * DEEP * 16, least = 3 * (size_t)BF16_SIZE * BF16_SIZE * 2;
    int64_t total = 0, avail = 0;
    fa_cuda cu;
    meter m;
    memset((void *)&cu, 0, sizeof cu);
    memset(&m, 0, sizeof m);
    cu.dev = dev, cu.stream = dev->stream, cu.n_sm = dev->n_sm, cu.arch = dev->arch, cu.smem_max = dev->smem_max;
    m.cu = &cu;
    int rc = dev->d.memory(&dev->d, &total, &avail, err);
    if (rc) return rc;
    m.bytes = (size_t)avail / 2 < READ_BYTES ? (size_t)avail / 2 : READ_BYTES;
    if (m.bytes < least) m.bytes = least;
    m.bytes -= m.bytes % piece;
    if (m.bytes < least) m.bytes += piece;
    rc = cu_blas_create(&cu, err);
    if (!rc) rc = cu_blas_ready(&cu, err);
    if (!rc) {
        m.mem = (uint8_t *)dev->d.alloc(&dev->d, m.bytes, "measuring its rates", err);
        if (!m.mem) rc = FFAI_ENOMEM;
    }
    if (!rc) rc = cu_check(dev, cudaEventCreate(&m.from), "an event", err);
    if (!rc) rc = cu_check(dev, cudaEventCreate(&m.to), "an event", err);
    if (!rc) rc = measure(&m, out, err);
    if (m.from) cudaEventDestroy(m.from);
    if (m.to) cudaEventDestroy(m.to);
    dev->d.release(&dev->d, m.mem);
    cu_blas_free(&cu);
    return rc;
}
