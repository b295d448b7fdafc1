/* Random weights made in device memory: value for value what fa_synth_matrix (src/families/synth.c) makes on the host,
 * so that a synthetic model does not depend on where it was made. The generator is counter-based (base/rng.h), so every
 * thread makes its own piece; rows lie `row_bytes` apart here and side by side there, so a piece's place in the random
 * stream is computed from its place in an unpadded row. Pads are zero.
 *
 * Float arithmetic is written in rounded single steps (__fmul_rn, __fadd_rn): the host's build does not contract
 * either. blockIdx.x is a row everywhere. The generator costs about 30 integer instructions per 8 bytes; an 8B model
 * takes a few milliseconds. */
#include "backend/cuda/dequant.cuh"
#include "tensor/synth_fields.h"

#include <math.h>
#include <stdio.h>

static __device__ __forceinline__ uint64_t rng_at(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

/* A uniform value of unit variance. */
static __device__ __forceinline__ float unit(uint64_t seed, uint64_t i) {
    const float u = __fmul_rn((float)(uint32_t)(rng_at(seed, i) >> 40), 0x1p-24f);
    return __fmul_rn(__fsub_rn(u, 0.5f), 3.4641016f);
}

/* ---- codes of planar formats: random bytes ---- */

/* row_bytes: of an unpadded row; mask: bits that stay; a thread fills 16 bytes of a row of `pitch` bytes. */
static __global__ void bytes_kernel(uint8_t *out, int64_t row_bytes, int64_t pitch, uint64_t seed, uint64_t mask) {
    const int64_t j = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * 16;
    cu_pdl_wait();
    if (j >= pitch) return;
    const uint64_t at = (uint64_t)blockIdx.x * (uint64_t)row_bytes + (uint64_t)j, i = at / 8;
    const int shift = (int)(at % 8) * 8;
    uint64_t a = 0, b = 0;
    if (j < row_bytes) {
        const uint64_t v0 = rng_at(seed, i), v1 = rng_at(seed, i + 1), v2 = shift ? rng_at(seed, i + 2) : 0;
        a = shift ? v0 >> shift | v1 << (64 - shift) : v0;
        b = shift ? v1 >> shift | v2 << (64 - shift) : v1;
        const int64_t left = row_bytes - j;
        if (left < 8) a &= (1ull << 8 * left) - 1;
        if (left <= 8)
            b = 0;
        else if (left < 16)
            b &= (1ull << 8 * (left - 8)) - 1;
    }
    a &= mask;
    b &= mask;
    *(uint4 *)(out + (int64_t)blockIdx.x * pitch + j) =
        make_uint4((uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32));
}

/* f16 scales and biases of affine weights: step = width / deviation of a code, levels - 1 = top. */
static __global__ void affine_scales_kernel(uint16_t *scales, uint16_t *biases, int64_t groups, int64_t pitch,
                                            float step, float top, uint64_t seed) {
    const int64_t g = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    cu_pdl_wait();
    if (g >= pitch) return;
    uint16_t s = 0, b = 0;
    if (g < groups) {
        const float u = unit(seed, (uint64_t)blockIdx.x * (uint64_t)groups + (uint64_t)g);
        const float scale = __fmul_rn(step, __fadd_rn(1.0f, __fmul_rn(0.2f, u)));
        s = cu_to_f16(scale);
        b = cu_to_f16(__fmul_rn(-scale, top) / 2);
    }
    scales[(int64_t)blockIdx.x * pitch + g] = s;
    biases[(int64_t)blockIdx.x * pitch + g] = b;
}

/* One byte in all groups. */
static __global__ void same_bytes_kernel(uint8_t *out, int64_t n, int64_t pitch, uint8_t v) {
    const int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    cu_pdl_wait();
    if (i < pitch) out[(int64_t)blockIdx.x * pitch + i] = i < n ? v : 0;
}

/* One float in all groups. */
static __global__ void same_floats_kernel(uint32_t *out, int64_t n, int64_t pitch, uint32_t v) {
    const int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    cu_pdl_wait();
    if (i < pitch) out[(int64_t)blockIdx.x * pitch + i] = i < n ? v : 0;
}

/* Scales of random blocks; a thread has one block. */
static __global__ void fields_kernel(uint8_t *out, int64_t n, int bytes, int64_t pitch, fa_synth_fields fields) {
    const int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    cu_pdl_wait();
    if (i >= n) return;
    uint8_t *p = out + (int64_t)blockIdx.x * pitch + i * bytes;
    for (int j = 0; j < fields.n; j++)
        p[fields.f[j].at] = (uint8_t)((p[fields.f[j].at] & fields.f[j].keep) | fields.f[j].byte);
}

/* ---- formats that encode random values ---- */

static __device__ __forceinline__ void put16(uint8_t *p, uint32_t v) { *(uint16_t *)p = (uint16_t)v; }

template <int KIND>
static __global__ void floats_kernel(uint8_t *out, int64_t cols, int64_t pitch, float width, uint64_t seed) {
    constexpr int size = KIND == CU_K_F32 ? 4 : 2;
    const int64_t k = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    cu_pdl_wait();
    if (k * size >= pitch) return;
    const float x = __fmul_rn(width, unit(seed, (uint64_t)blockIdx.x * (uint64_t)cols + (uint64_t)k));
    uint8_t *p = out + (int64_t)blockIdx.x * pitch + k * size;
    if constexpr (KIND == CU_K_F32)
        *(float *)p = k < cols ? x : 0;
    else
        put16(p, k >= cols ? 0 : KIND == CU_K_F16 ? cu_to_f16(x) : cu_to_bf16(x));
}

/* The encoders of src/tensor/qfmt/gguf_legacy.c for one block of 32 values. */
static __device__ __forceinline__ uint32_t code_at(float x, float sub, float inv, float offset, float top) {
    const float v = __fadd_rn(__fmul_rn(__fsub_rn(x, sub), inv), offset);
    return (uint32_t)(v > 0 ? v < top ? v : top : 0.0f);
}

static __device__ void encode_q8_0(const float x[32], uint8_t *p) {
    float amax = 0;
    for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[i]));
    const float d = amax / 127.0f, inv = d != 0 ? 1.0f / d : 0;
    put16(p, cu_to_f16(d));
    for (int i = 0; i < 32; i += 2) {
        uint32_t pair = 0;
        for (int j = 0; j < 2; j++) {
            const float v = roundf(__fmul_rn(x[i + j], inv));
            pair |= ((uint32_t)(int32_t)(v > -128 ? v < 127 ? v : 127.0f : -128.0f) & 255) << 8 * j;
        }
        put16(p + 2 + i, pair);
    }
}

template <int KIND> static __device__ void encode_block(const float x[32], uint8_t *p) {
    if constexpr (KIND == CU_K_Q8_0) {
        encode_q8_0(x, p);
    } else {
        constexpr bool ranged = KIND == CU_K_Q4_1 || KIND == CU_K_Q5_1, five = KIND == CU_K_Q5_0 || KIND == CU_K_Q5_1;
        constexpr int top = five ? 31 : 15;
        float d, sub = 0, offset = 0.5f;
        if constexpr (ranged) {
            float lo = x[0], hi = x[0];
            for (int i = 1; i < 32; i++) {
                if (x[i] < lo) lo = x[i];
                if (x[i] > hi) hi = x[i];
            }
            d = (hi - lo) / (float)top;
            sub = lo;
        } else {
            float edge = 0;
            for (int i = 0; i < 32; i++)
                if (fabsf(x[i]) > fabsf(edge)) edge = x[i];
            d = edge / (float)(five ? -16 : -8);
            offset = five ? 16.5f : 8.5f;
        }
        const float inv = d != 0 ? 1.0f / d : 0;
        uint32_t high = 0, q[32];
        for (int i = 0; i < 32; i++) {
            q[i] = code_at(x[i], sub, inv, offset, (float)top);
            high |= (q[i] >> 4) << i;
        }
        put16(p, cu_to_f16(d));
        p += 2;
        if constexpr (ranged) {
            put16(p, cu_to_f16(sub));
            p += 2;
        }
        if constexpr (five) {
            put16(p, high & 0xFFFF);
            put16(p + 2, high >> 16);
            p += 4;
        }
        for (int i = 0; i < 16; i += 2)
            put16(p + i, (q[i] & 15) | (q[16 + i] & 15) << 4 | (q[i + 1] & 15) << 8 | (q[17 + i] & 15) << 12);
    }
}

/* A thread makes one block of 32; the last of a row clears the pad. */
template <int KIND>
static __global__ void blocks_kernel(uint8_t *out, int64_t cols, int64_t pitch, float width, uint64_t seed) {
    constexpr int bytes = cu_kind_info<KIND>::block_bytes;
    const int64_t b = (int64_t)blockIdx.y * blockDim.x + threadIdx.x, n = cols / 32;
    cu_pdl_wait();
    if (b >= n) return;
    uint8_t *row = out + (int64_t)blockIdx.x * pitch;
    float x[32];
    for (int i = 0; i < 32; i++)
        x[i] = __fmul_rn(width, unit(seed, (uint64_t)blockIdx.x * (uint64_t)cols + (uint64_t)(b * 32 + i)));
    encode_block<KIND>(x, row + b * bytes);
    if (b == n - 1)
        for (int64_t i = n * bytes; i < pitch; i++) row[i] = 0;
}

/* ---- host ---- */

enum { THREADS = 128 };

static dim3 rows_by(int64_t rows, int64_t per_row) { return dim3((unsigned)rows, cu_blocks(per_row, THREADS)); }

static void random_row_bytes(fa_cuda *cu, const fa_weight *w, int64_t row_bytes, uint64_t seed, uint64_t mask) {
    const int64_t pitch = (int64_t)w->row_bytes;
    CU_LAUNCH(cu, bytes_kernel, rows_by(w->rows, pitch / 16), THREADS, 0, (uint8_t *)w->codes, row_bytes, pitch, seed,
              mask);
}
static void random_bytes(fa_cuda *cu, const fa_weight *w, uint64_t seed) {
    random_row_bytes(cu, w, w->cols * w->bits / 8, seed, ~0ull);
}

static void small_float(fa_cuda *cu, const fa_weight *w, uint64_t seed) {
    const uint32_t scale = fa_synth_scale(w->fmt, 1 / sqrtf((float)w->cols));
    const int64_t n = w->group ? w->cols / w->group : 1, pitch = (int64_t)w->scale_row_bytes;
    random_row_bytes(cu, w, w->cols * w->bits / 8, seed,
                     w->bits == 8 ? 0x0101010101010101ull * FA_SYNTH_E4M3_MASK : ~0ull);
    if (w->fmt == FA_FMT_FP8)
        CU_LAUNCH(cu, same_floats_kernel, rows_by(w->rows, pitch / 4), THREADS, 0, (uint32_t *)w->scales, n, pitch / 4,
                  scale);
    else
        CU_LAUNCH(cu, same_bytes_kernel, rows_by(w->rows, pitch), THREADS, 0, (uint8_t *)w->scales, n, pitch,
                  (uint8_t)scale);
}

static void random_blocks(fa_cuda *cu, const fa_weight *w, const fa_synth_fields &fields, uint64_t seed) {
    int block = 1, bytes = 0;
    CU_WITH_KIND(cu_kind_at(w->fmt, w->bits), block = cu_kind_info<KIND>::block,
                 bytes = cu_kind_info<KIND>::block_bytes)
    const int64_t n = w->cols / block;
    random_row_bytes(cu, w, n * bytes, seed, ~0ull);
    CU_LAUNCH(cu, fields_kernel, rows_by(w->rows, n), THREADS, 0, (uint8_t *)w->codes, n, bytes, (int64_t)w->row_bytes,
              fields);
}

static void affine(fa_cuda *cu, const fa_weight *w, uint64_t seed) {
    const float levels = (float)(1 << w->bits), deviation = sqrtf((levels * levels - 1) / 12);
    const float width = 1 / sqrtf((float)w->cols);
    const int64_t pitch = (int64_t)w->scale_row_bytes / 2;
    random_bytes(cu, w, seed);
    CU_LAUNCH(cu, affine_scales_kernel, rows_by(w->rows, pitch), THREADS, 0, (uint16_t *)w->scales,
              (uint16_t *)w->biases, w->cols / w->group, pitch, width / deviation, levels - 1, seed + 1);
}

static void mxfp4(fa_cuda *cu, const fa_weight *w, uint64_t seed) {
    const uint8_t e = (uint8_t)(127 + (int)lroundf(log2f(1 / (2.9f * sqrtf((float)w->cols)))));
    const int64_t pitch = (int64_t)w->scale_row_bytes;
    random_bytes(cu, w, seed);
    CU_LAUNCH(cu, same_bytes_kernel, rows_by(w->rows, pitch), THREADS, 0, (uint8_t *)w->scales, w->cols / 32, pitch, e);
}

#define FLOATS(kind, size)                                                                                             \
    CU_LAUNCH(&cu, floats_kernel<kind>, rows_by(w->rows, (int64_t)w->row_bytes / (size)), THREADS, 0,                  \
              (uint8_t *)w->codes, w->cols, (int64_t)w->row_bytes, width, seed)
#define BLOCKS(kind)                                                                                                   \
    CU_LAUNCH(&cu, blocks_kernel<kind>, rows_by(w->rows, w->cols / 32), THREADS, 0, (uint8_t *)w->codes, w->cols,      \
              (int64_t)w->row_bytes, width, seed)

int cu_synth(cudaStream_t stream, const fa_weight *w, uint64_t seed, fa_error *err) {
    if (cu_weight_ok(w, err)) return err->code;
    if (w->fmt == FA_FMT_AFFINE && w->scale_dtype != FA_F16)
        return fa_fail(err, FFAI_ENOTSUP, "%s: random affine weights have F16 scales, not %s", w->name,
                       fa_dtype_name((fa_dtype)w->scale_dtype));
    const float width = 1 / sqrtf((float)w->cols);
    cu_device dev = {}; /* only what launching looks at */
    fa_cuda cu = {};
    snprintf(dev.name, sizeof dev.name, "device");
    cu.dev = &dev;
    cu.stream = stream;
    switch (w->fmt) {
    case FA_FMT_AFFINE: affine(&cu, w, seed); break;
    case FA_FMT_MXFP4: mxfp4(&cu, w, seed); break;
    case FA_FMT_F32: FLOATS(CU_K_F32, 4); break;
    case FA_FMT_F16: FLOATS(CU_K_F16, 2); break;
    case FA_FMT_BF16: FLOATS(CU_K_BF16, 2); break;
    case FA_FMT_Q4_0: BLOCKS(CU_K_Q4_0); break;
    case FA_FMT_Q4_1: BLOCKS(CU_K_Q4_1); break;
    case FA_FMT_Q5_0: BLOCKS(CU_K_Q5_0); break;
    case FA_FMT_Q5_1: BLOCKS(CU_K_Q5_1); break;
    case FA_FMT_Q8_0: BLOCKS(CU_K_Q8_0); break;
    case FA_FMT_NVFP4:
    case FA_FMT_MXFP8:
    case FA_FMT_FP8: small_float(&cu, w, seed); break;
    default: random_blocks(&cu, w, fa_synth_fields_of(w->fmt, width), seed); break;
    }
    if (cu.err.code) *err = cu.err;
    return cu.err.code;
}
