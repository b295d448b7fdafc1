/* CUDA on the host, for tests: with -DFA_CUDA_EMU the sources of src/backend/cuda compile as plain C++ against this
 * header instead of cuda_runtime.h, and their kernels run on the CPU, one block after the other, each thread of a block
 * on a fiber of its own (emu.cpp). Barriers, shuffles and warp-wide matrix instructions are meeting points of fibers
 * with the results that the hardware gives; what the hardware leaves undefined stops the program with a message that
 * names kernel, block and thread. This file is the language and the device functions; emu_rt.h is the runtime API.
 *
 * Made to find mistakes rather than to be fast:
 *   - shared memory is full of 0xFF bytes (NaN) at the start of a block; device memory when it is allocated;
 *   - every device allocation ends at an unreadable page;
 *   - cp.async poisons its destination at once and delivers at the wait that promises it, not before;
 *   - streams run what they hold when somebody waits, so that host code that forgets to wait sees old data;
 *   - FFAI_EMU=seed=N runs blocks and warps in shuffled orders.
 * Not emulated: data races between warps, timing, the caches, register and static shared memory limits. */
#ifndef FA_CUDA_EMU_H
#define FA_CUDA_EMU_H

#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tmmintrin.h>
#include <type_traits>

/* ---- keywords ---- */
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* All thread-local memory of the module is static shared memory: the emulator has none of its own, and fills it. */
#define __shared__          static thread_local
#define __builtin_assume(x) ((void)0)
#define CU_DEV              static inline

/* ---- vector types ---- */
struct alignas(2) uchar2 {
    unsigned char x, y;
};
struct alignas(4) uchar4 {
    unsigned char x, y, z, w;
};
struct alignas(4) char4 {
    signed char x, y, z, w;
};
struct alignas(4) ushort2 {
    unsigned short x, y;
};
struct alignas(8) ushort4 {
    unsigned short x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct int3 {
    int x, y, z;
};
struct uint3 {
    unsigned x, y, z;
};
struct float3 {
    float x, y, z;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};
struct alignas(16) longlong2 {
    long long x, y;
};
struct alignas(16) double2 {
    double x, y;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline ushort2 make_ushort2(unsigned short x, unsigned short y) { return {x, y}; }
static inline uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) {
    return {x, y, z, w};
}
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

/* ---- the running thread ---- */
struct emu_thread_id {
    uint3 tid;
    int lane;
};
struct emu_block_id {
    uint3 bid;
    dim3 grid, block;
};
extern emu_thread_id *emu_self;
extern emu_block_id emu_where;
#define threadIdx (emu_self->tid)
#define blockIdx  (emu_where.bid)
#define blockDim  (emu_where.block)
#define gridDim   (emu_where.grid)
static constexpr int warpSize = 32;

void emu_fault(); /* a kernel's fault, after which the device is lost */
[[noreturn]] void emu_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *emu_dyn_smem();
/* Meeting of the block. *n_true: how many threads came with v != 0. */
void emu_barrier(int v, int *n_true);
/* Meeting of the warp: this lane brings `bytes` <= EMU_LANE_BYTES; returns what lane i brought at + i * EMU_LANE_BYTES,
 * valid until the lane's next meeting. `op` must be the same in all lanes. */
enum { EMU_LANE_BYTES = 64 };
const uint8_t *emu_meet(const char *op, unsigned mask, const void *mine, size_t bytes);
void emu_cp_async(void *smem, const void *p, int n, int size = 16);
void emu_cp_commit();
void emu_cp_wait(int pending);
void emu_pdl(int wait);

static inline void __syncthreads() { emu_barrier(0, nullptr); }
static inline int __syncthreads_count(int v) {
    int n;
    emu_barrier(v, &n);
    return n;
}
static inline int __syncthreads_or(int v) { return __syncthreads_count(v) > 0; }
static inline int __syncthreads_and(int v) { return __syncthreads_count(!v) == 0; }
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { emu_meet("__syncwarp", mask, nullptr, 0); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
static inline void __trap() { emu_die("__trap"); }
static inline void __nanosleep(unsigned) {}
static inline long long clock64() { return (long long)__builtin_ia32_rdtsc(); }

/* ---- warp functions ---- */
template <typename T> static inline T emu_lane_value(const uint8_t *all, int lane) {
    T v;
    memcpy(&v, all + lane * EMU_LANE_BYTES, sizeof v);
    return v;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int src, int width = 32) {
    const uint8_t *all = emu_meet("__shfl_sync", mask, &v, sizeof v);
    const int base = emu_self->lane & ~(width - 1);
    return emu_lane_value<T>(all, base + (src & (width - 1)));
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
    const uint8_t *all = emu_meet("__shfl_xor_sync", mask, &v, sizeof v);
    const int lane = emu_self->lane, src = lane ^ x;
    return src >= (lane & ~(width - 1)) + width ? v : emu_lane_value<T>(all, src);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32) {
    const uint8_t *all = emu_meet("__shfl_down_sync", mask, &v, sizeof v);
    const int lane = emu_self->lane, src = lane + (int)d;
    return src >= (lane & ~(width - 1)) + width ? v : emu_lane_value<T>(all, src);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32) {
    const uint8_t *all = emu_meet("__shfl_up_sync", mask, &v, sizeof v);
    const int lane = emu_self->lane, src = lane - (int)d;
    return src < (lane & ~(width - 1)) ? v : emu_lane_value<T>(all, src);
}
static inline unsigned __ballot_sync(unsigned mask, int v) {
    const uint8_t *all = emu_meet("vote", mask, &v, sizeof v);
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (unsigned)(emu_lane_value<int>(all, i) != 0) << i;
    return r;
}
static inline int __any_sync(unsigned mask, int v) { return __ballot_sync(mask, v) != 0; }
static inline int __all_sync(unsigned mask, int v) { return __ballot_sync(mask, v) == 0xFFFFFFFFu; }
template <typename T> static inline unsigned __match_any_sync(unsigned mask, T v) {
    const uint8_t *all = emu_meet("__match_any_sync", mask, &v, sizeof v);
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (unsigned)(emu_lane_value<T>(all, i) == v) << i;
    return r;
}
template <typename T, typename F> static inline T emu_reduce(unsigned mask, T v, F f) {
    const uint8_t *all = emu_meet("__reduce_sync", mask, &v, sizeof v);
    T r = emu_lane_value<T>(all, 0);
    for (int i = 1; i < 32; i++) r = f(r, emu_lane_value<T>(all, i));
    return r;
}
template <typename T> static inline T __reduce_add_sync(unsigned mask, T v) {
    return (T)emu_reduce(mask, (unsigned)v, [](unsigned a, unsigned b) { return a + b; });
}
template <typename T> static inline T __reduce_min_sync(unsigned mask, T v) {
    return emu_reduce(mask, v, [](T a, T b) { return b < a ? b : a; });
}
template <typename T> static inline T __reduce_max_sync(unsigned mask, T v) {
    return emu_reduce(mask, v, [](T a, T b) { return a < b ? b : a; });
}
static inline unsigned __reduce_or_sync(unsigned mask, unsigned v) {
    return emu_reduce(mask, v, [](unsigned a, unsigned b) { return a | b; });
}
static inline unsigned __reduce_and_sync(unsigned mask, unsigned v) {
    return emu_reduce(mask, v, [](unsigned a, unsigned b) { return a & b; });
}
static inline unsigned __reduce_xor_sync(unsigned mask, unsigned v) {
    return emu_reduce(mask, v, [](unsigned a, unsigned b) { return a ^ b; });
}

/* ---- integers and bits ---- */
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
static inline unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    const unsigned which = (s & 7) | (s & 0x70) << 4 | (s & 0x700) << 8 | (s & 0x7000) << 12;
    const __m128i all = _mm_set_epi32(0, 0, (int)b, (int)a);
    return (unsigned)_mm_cvtsi128_si32(_mm_shuffle_epi8(all, _mm_cvtsi32_si128((int)which)));
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (n & 31));
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)((((uint64_t)hi << 32 | lo) << (n & 31)) >> 32);
}
static inline unsigned __funnelshift_rc(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (n < 32 ? n : 32));
}
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> 8 * i & 0xFF) * (b >> 8 * i & 0xFF);
    return c;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
__extension__ typedef unsigned __int128 emu_u128;
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((emu_u128)a * b >> 64);
}
static inline unsigned emu_bytes(unsigned a, unsigned b, int (*f)(int, int)) {
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)(f((int8_t)(a >> 8 * i), (int8_t)(b >> 8 * i)) & 0xFF) << 8 * i;
    return r;
}
static inline unsigned __vsub4(unsigned a, unsigned b) {
    return emu_bytes(a, b, [](int x, int y) { return x - y; });
}
static inline unsigned __vadd4(unsigned a, unsigned b) {
    return emu_bytes(a, b, [](int x, int y) { return x + y; });
}
static inline unsigned __vsubss4(unsigned a, unsigned b) {
    return emu_bytes(a, b, [](int x, int y) { return x - y < -128 ? -128 : x - y > 127 ? 127 : x - y; });
}
template <typename A, typename B> static inline std::common_type_t<A, B> min(A a, B b) {
    typedef std::common_type_t<A, B> T;
    if constexpr (std::is_floating_point<T>::value)
        return std::fmin((T)a, (T)b);
    else
        return (T)b < (T)a ? (T)b : (T)a;
}
template <typename A, typename B> static inline std::common_type_t<A, B> max(A a, B b) {
    typedef std::common_type_t<A, B> T;
    if constexpr (std::is_floating_point<T>::value)
        return std::fmax((T)a, (T)b);
    else
        return (T)a < (T)b ? (T)b : (T)a;
}

/* ---- floats ---- */
template <typename T, typename F> static inline T emu_cast(F f) {
    static_assert(sizeof(T) == sizeof(F), "bit cast");
    T t;
    memcpy(&t, &f, sizeof t);
    return t;
}
static inline float __uint_as_float(unsigned v) { return emu_cast<float>(v); }
static inline unsigned __float_as_uint(float v) { return emu_cast<unsigned>(v); }
static inline float __int_as_float(int v) { return emu_cast<float>(v); }
static inline int __float_as_int(float v) { return emu_cast<int>(v); }
static inline double __longlong_as_double(long long v) { return emu_cast<double>(v); }
static inline long long __double_as_longlong(double v) { return emu_cast<long long>(v); }
/* macros: the C library has declarations of these names */
#define __expf(x)          expf(x)
#define __exp10f(x)        exp10f(x)
#define __logf(x)          logf(x)
#define __log2f(x)         log2f(x)
#define __log10f(x)        log10f(x)
#define __powf(x, y)       powf(x, y)
#define __sinf(x)          sinf(x)
#define __cosf(x)          cosf(x)
#define __tanf(x)          tanf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)
static inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
static inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __int2float_rn(int a) { return (float)a; }
static inline float __uint2float_rn(unsigned a) { return (float)a; }
static inline float __ll2float_rn(long long a) { return (float)a; }
static inline float __ull2float_rn(unsigned long long a) { return (float)a; }
static inline float __double2float_rn(double a) { return (float)a; }
static inline int emu_to_int(float a) {
    return a != a ? 0 : a >= 2147483648.0f ? INT32_MAX : a < -2147483648.0f ? INT32_MIN : (int)a;
}
static inline int __float2int_rn(float a) { return emu_to_int(rintf(a)); }
static inline int __float2int_rd(float a) { return emu_to_int(floorf(a)); }
static inline int __float2int_ru(float a) { return emu_to_int(ceilf(a)); }
static inline int __float2int_rz(float a) { return emu_to_int(truncf(a)); }
static inline unsigned __float2uint_rz(float a) {
    return a != a || a <= 0.0f ? 0u : a >= 4294967296.0f ? 0xFFFFFFFFu : (unsigned)a;
}
static inline unsigned __float2uint_rn(float a) { return __float2uint_rz(rintf(a)); }

/* ---- memory ---- */
template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline T __ldca(const T *p) { return *p; }
template <typename T> static inline T __ldcv(const T *p) { return *p; }
template <typename T> static inline T __ldlu(const T *p) { return *p; }
template <typename T> static inline void __stcs(T *p, T v) { *p = v; }
template <typename T> static inline void __stcg(T *p, T v) { *p = v; }
template <typename T> static inline void __stwt(T *p, T v) { *p = v; }

/* One thread runs at a time, so plain accesses are atomic. */
template <typename T> struct emu_type { typedef T t; };
#define EMU_ATOMIC(name, expr)                                                                                         \
    template <typename T> static inline T name(T *p, typename emu_type<T>::t v) {                                      \
        const T old = *p;                                                                                              \
        *p = (T)(expr);                                                                                                \
        return old;                                                                                                    \
    }                                                                                                                  \
    template <typename T> static inline T name##_block(T *p, typename emu_type<T>::t v) { return name(p, v); }         \
    template <typename T> static inline T name##_system(T *p, typename emu_type<T>::t v) { return name(p, v); }
EMU_ATOMIC(atomicAdd, old + v)
EMU_ATOMIC(atomicSub, old - v)
EMU_ATOMIC(atomicMax, old < v ? v : old)
EMU_ATOMIC(atomicMin, v < old ? v : old)
EMU_ATOMIC(atomicExch, v)
EMU_ATOMIC(atomicOr, old | v)
EMU_ATOMIC(atomicAnd, old &v)
EMU_ATOMIC(atomicXor, old ^ v)
EMU_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
EMU_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef EMU_ATOMIC
template <typename T> static inline T atomicCAS(T *p, typename emu_type<T>::t want, typename emu_type<T>::t v) {
    const T old = *p;
    if (old == want) *p = v;
    return old;
}

/* ---- cu_ptx.h ---- */
CU_DEV float cu_bf16(uint16_t v) { return __uint_as_float((uint32_t)v << 16); }
CU_DEV float cu_bf16_lo(uint32_t v) { return __uint_as_float(v << 16); }
CU_DEV float cu_bf16_hi(uint32_t v) { return __uint_as_float(v & 0xFFFF0000u); }
/* Round to nearest even; the machine's NaN is 0x7FFF. */
CU_DEV uint16_t cu_to_bf16(float f) {
    const uint32_t u = __float_as_uint(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}
CU_DEV uint32_t cu_to_bf16x2(float lo, float hi) { return (uint32_t)cu_to_bf16(hi) << 16 | cu_to_bf16(lo); }
float emu_f16_to_f32(uint16_t v);
uint16_t emu_f32_to_f16(float f);
CU_DEV float cu_f16(uint16_t v) { return emu_f16_to_f32(v); }
CU_DEV float cu_f16_lo(uint32_t v) { return cu_f16((uint16_t)v); }
CU_DEV float cu_f16_hi(uint32_t v) { return cu_f16((uint16_t)(v >> 16)); }
CU_DEV uint16_t cu_to_f16(float f) { return emu_f32_to_f16(f); }
CU_DEV uint32_t cu_to_f16x2(float lo, float hi) { return (uint32_t)cu_to_f16(hi) << 16 | cu_to_f16(lo); }
/* The float that keeps the way a double rounds: nearest, with the last bit set when inexact (round to odd). */
CU_DEV float emu_round_odd(double d) {
    float f = (float)d;
    if ((double)f == d || f != f || isinf(f)) return f;
    uint32_t u = __float_as_uint(f);
    if (fabs((double)f) > fabs(d)) u--;
    return __uint_as_float(u | 1);
}
CU_DEV uint32_t cu_bf16x2_fma(uint32_t a, uint32_t b, uint32_t c) {
    return cu_to_bf16x2(emu_round_odd((double)cu_bf16_lo(a) * cu_bf16_lo(b) + cu_bf16_lo(c)),
                        emu_round_odd((double)cu_bf16_hi(a) * cu_bf16_hi(b) + cu_bf16_hi(c)));
}
CU_DEV uint32_t cu_f16x2_sub(uint32_t a, uint32_t b) {
    return cu_to_f16x2(cu_f16_lo(a) - cu_f16_lo(b), cu_f16_hi(a) - cu_f16_hi(b));
}
CU_DEV uint32_t cu_f16x2_mul(uint32_t a, uint32_t b) {
    return cu_to_f16x2(cu_f16_lo(a) * cu_f16_lo(b), cu_f16_hi(a) * cu_f16_hi(b));
}
CU_DEV uint32_t cu_and_or(uint32_t a, uint32_t b, uint32_t c) { return (a & b) | c; }
CU_DEV float cu_exp2(float x) {
    const float r = x < -126.0f ? 0.0f : exp2f(x);
    return r < 0x1p-126f ? 0.0f : r;
}
CU_DEV uint4 cu_ld_stream(const void *p) {
    if ((uintptr_t)p & 15) emu_die("cu_ld_stream of %p: not 16-byte aligned", p);
    return *(const uint4 *)p;
}
CU_DEV void cu_prefetch_l2(const void *) {}
CU_DEV void cu_cp_async(void *smem, const void *p, int n = 16) { emu_cp_async(smem, p, n); }
CU_DEV void cu_cp_async4(void *smem, const void *p, int n = 4) { emu_cp_async(smem, p, n, 4); }
CU_DEV void cu_cp_commit() { emu_cp_commit(); }
template <int N> CU_DEV void cu_cp_wait() { emu_cp_wait(N); }
void emu_mma(float d[4], const float a[8], const float b[4], const char *op);
CU_DEV void cu_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    const float fa[8] = {cu_bf16_lo(a[0]), cu_bf16_hi(a[0]), cu_bf16_lo(a[1]), cu_bf16_hi(a[1]),
                         cu_bf16_lo(a[2]), cu_bf16_hi(a[2]), cu_bf16_lo(a[3]), cu_bf16_hi(a[3])};
    const float fb[4] = {cu_bf16_lo(b[0]), cu_bf16_hi(b[0]), cu_bf16_lo(b[1]), cu_bf16_hi(b[1])};
    emu_mma(d, fa, fb, "mma bf16");
}
CU_DEV void cu_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    const float fa[8] = {cu_f16_lo(a[0]), cu_f16_hi(a[0]), cu_f16_lo(a[1]), cu_f16_hi(a[1]),
                         cu_f16_lo(a[2]), cu_f16_hi(a[2]), cu_f16_lo(a[3]), cu_f16_hi(a[3])};
    const float fb[4] = {cu_f16_lo(b[0]), cu_f16_hi(b[0]), cu_f16_lo(b[1]), cu_f16_hi(b[1])};
    emu_mma(d, fa, fb, "mma f16");
}
CU_DEV uint32_t cu_to_tf32(float f) { /* ties go away from zero */
    const uint32_t u = __float_as_uint(f);
    if ((u & 0x7F800000u) == 0x7F800000u) return u & 0x7FFFFFu ? 0x7FFFE000u : u;
    return (u + 0x1000u) & 0xFFFFE000u;
}
/* The wider product with zeros at the odd places. */
CU_DEV void cu_mma_tf32(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    const uint32_t m = 0xFFFFE000u;
    const float fa[8] = {__uint_as_float(a[0] & m), 0, __uint_as_float(a[1] & m), 0,
                         __uint_as_float(a[2] & m), 0, __uint_as_float(a[3] & m), 0};
    const float fb[4] = {__uint_as_float(b[0] & m), 0, __uint_as_float(b[1] & m), 0};
    emu_mma(d, fa, fb, "mma tf32");
}
/* As two products of half of the columns; exact while sums stay below 2^24. */
CU_DEV void cu_mma_u8s8(int d[4], const uint32_t a[4], const uint32_t b[2]) {
    float fd[4] = {(float)d[0], (float)d[1], (float)d[2], (float)d[3]};
    for (int h = 0; h < 2; h++) {
        float fa[8], fb[4];
        for (int i = 0; i < 8; i++) fa[i] = (float)(uint8_t)(a[i / 2] >> (16 * h + i % 2 * 8));
        for (int i = 0; i < 4; i++) fb[i] = (float)(int8_t)(b[i / 2] >> (16 * h + i % 2 * 8));
        emu_mma(fd, fa, fb, "mma u8 s8");
    }
    for (int i = 0; i < 4; i++) d[i] = (int)fd[i];
}
void emu_ldmatrix_x4(uint32_t r[4], const void *smem_row, bool trans);
CU_DEV void cu_ldmatrix_x4(uint32_t r[4], const void *smem_row) { emu_ldmatrix_x4(r, smem_row, false); }
CU_DEV void cu_ldmatrix_x4_trans(uint32_t r[4], const void *smem_row) { emu_ldmatrix_x4(r, smem_row, true); }
CU_DEV uint32_t cu_transpose_8x8(uint32_t v) {
    const uint8_t *all = emu_meet("movmatrix", 0xFFFFFFFFu, &v, sizeof v);
    const int g = emu_self->lane / 4, t = emu_self->lane % 4;
    const uint32_t lo = emu_lane_value<uint32_t>(all, 8 * t + g / 2),
                   hi = emu_lane_value<uint32_t>(all, 8 * t + 4 + g / 2);
    return (lo >> (g % 2 * 16) & 0xFFFFu) | hi >> (g % 2 * 16) << 16;
}
CU_DEV void cu_here(const uint8_t *&) {}

/* ---- cu_wgmma.h ---- */
uint32_t emu_smem_addr(const void *p);
void emu_mbar_init(uint32_t bar, int n);
void emu_mbar_arrive(uint32_t bar, bool copies);
void emu_mbar_wait(uint32_t bar, int parity);
void emu_proxy_fence();
void emu_wgmma_fence();
void emu_wgmma_commit();
void emu_wgmma_wait(int pending);
enum { EMU_WG_F16 = 1, EMU_WG_TRANS = 2, EMU_WG_FRESH = 4 };
void emu_wgmma(float *d, int n, const uint32_t *a, uint64_t da, uint64_t db, int flags); /* a NULL: da has it */
void emu_mbar_expect(uint32_t bar, int bytes);
void emu_bar(int id, int n, bool wait);
struct CUtensorMap_st;
typedef CUtensorMap_st cu_tma;
void emu_tma_load(uint32_t to, const cu_tma *map, uint32_t bar, const int c[4]);
void emu_bulk_load(uint32_t to, const void *from, uint32_t bar, int n);
CU_DEV uint32_t cu_smem_addr(const void *smem) { return emu_smem_addr(smem); }
CU_DEV void cu_mbar_init(uint32_t bar, int n) { emu_mbar_init(bar, n); }
CU_DEV void cu_mbar_arrive(uint32_t bar) { emu_mbar_arrive(bar, false); }
CU_DEV void cu_mbar_arrive_cp(uint32_t bar) { emu_mbar_arrive(bar, true); }
CU_DEV void cu_mbar_wait(uint32_t bar, int parity) { emu_mbar_wait(bar, parity); }
CU_DEV void cu_proxy_fence() { emu_proxy_fence(); }
CU_DEV void cu_pin(uint32_t &) {}
template <int N> CU_DEV void cu_more_registers() {}
template <int N> CU_DEV void cu_fewer_registers() {}
CU_DEV void cu_wgmma_fence() { emu_wgmma_fence(); }
CU_DEV void cu_wgmma_commit() { emu_wgmma_commit(); }
template <int N> CU_DEV void cu_wgmma_wait() { emu_wgmma_wait(N); }
template <int N, bool F16 = false, bool TRANS = false, bool FRESH = false>
CU_DEV void cu_wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {
    static_assert(N % 16 == 0 && N <= 256, "width of a product");
    emu_wgmma(d, N, a, 0, b, (F16 ? EMU_WG_F16 : 0) | (TRANS ? EMU_WG_TRANS : 0) | (FRESH ? EMU_WG_FRESH : 0));
}
template <int N> CU_DEV void cu_wgmma_bf16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {
    cu_wgmma_rs<N>(d, a, b);
}
template <int N, bool F16, bool FRESH> CU_DEV void cu_wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b) {
    emu_wgmma(d, N, nullptr, a, b, (F16 ? EMU_WG_F16 : 0) | (FRESH ? EMU_WG_FRESH : 0));
}
CU_DEV void cu_mbar_expect(uint32_t bar, int bytes) { emu_mbar_expect(bar, bytes); }
CU_DEV void cu_bar_sync(int id, int n) { emu_bar(id, n, true); }
CU_DEV void cu_bar_arrive(int id, int n) { emu_bar(id, n, false); }
CU_DEV void cu_tma_load(uint32_t to, const cu_tma *map, uint32_t bar, int c0, int c1, int c2, int c3) {
    const int c[4] = {c0, c1, c2, c3};
    emu_tma_load(to, map, bar, c);
}
CU_DEV void cu_bulk_load(uint32_t to, const void *from, uint32_t bar, int n) { emu_bulk_load(to, from, bar, n); }
CU_DEV void cu_pdl_wait() { emu_pdl(1); }
CU_DEV void cu_pdl_launch() { emu_pdl(0); }

#include "emu_rt.h"

#endif
