/* The emulator itself: barriers, shuffles, matrix instructions against plain loops, streams, graphs, faults. */
#include "backend/cuda/cu_wgmma.h"

#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" long long emu_control(const char *what, long long value);

static int failed;
#define CHECK(x) ((x) ? (void)0 : (void)(failed++, printf("%s:%d: %s\n", __FILE__, __LINE__, #x)))

template <typename... P, typename... A>
static cudaError_t launch(cudaStream_t s, void (*k)(P...), dim3 grid, dim3 block, size_t smem, A... a) {
    return emu_launch("kernel", s, grid, block, smem, [=] { k(static_cast<P>(a)...); });
}

/* Sum of n floats by blocks of 128: warp shuffles, static shared memory, a counter for the last block. */
static __global__ void sum(const float *x, int n, float *part, uint32_t *counter, float *out) {
    __shared__ float w[4];
    __shared__ bool last;
    cu_pdl_launch();
    cu_pdl_wait();
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    float v = i < n ? x[i] : 0.0f;
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, d);
    if (threadIdx.x % 32 == 0) w[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        part[blockIdx.x] = w[0] + w[1] + w[2] + w[3];
        __threadfence();
        last = atomicAdd(counter, 1u) == gridDim.x - 1;
        if (last) *counter = 0;
    }
    __syncthreads();
    if (!last || threadIdx.x) return;
    float s = 0;
    for (unsigned b = 0; b < gridDim.x; b++) s += part[b];
    *out = s;
}

/* d [64, 16] = a [64, 64] b [16, 64]^T by a warpgroup, a from registers; b comes by copies that a barrier counts. */
static __global__ void group_product(const uint16_t *a, const uint16_t *b, float *d) {
    __shared__ uint64_t bar;
    uint8_t *sm = (uint8_t *)emu_dyn_smem();
    sm += (1024 - (cu_smem_addr(sm) & 1023)) & 1023;
    cu_pdl_wait();
    const int i = (int)threadIdx.x, row = i / 32 * 16 + i % 32 / 4, t = i % 4;
    if (i == 0) cu_mbar_init(cu_smem_addr(&bar), 128);
    __syncthreads();
    cu_cp_async(sm + i / 8 * 128 + ((i ^ i / 8) & 7) * 16, b + 8 * i);
    cu_mbar_arrive_cp(cu_smem_addr(&bar));
    cu_mbar_wait(cu_smem_addr(&bar), 0);
    cu_proxy_fence();
    float acc[8] = {};
    for (int k = 0; k < 4; k++) {
        uint32_t f[4];
        for (int e = 0; e < 4; e++) {
            const uint16_t *p = a + (row + e % 2 * 8) * 64 + 16 * k + e / 2 * 8 + 2 * t;
            f[e] = (uint32_t)p[1] << 16 | p[0];
        }
        /* rows of 128 bytes, 128-byte swizzle, eight rows after 1024 bytes */
        const uint64_t desc = (cu_smem_addr(sm) >> 4) + 2 * (unsigned)k + (1ull << 62) + (64ull << 32);
        cu_wgmma_fence();
        cu_wgmma_bf16<16>(acc, f, desc);
        cu_wgmma_commit();
    }
    CHECK(acc[0] == 0); /* until the wait */
    cu_wgmma_wait<0>();
    for (int j = 0; j < 8; j++) d[(row + j % 4 / 2 * 8) * 16 + j / 4 * 8 + 2 * t + j % 2] = acc[j];
    /* element (r, c) is 8 r + c; lane (g, t) gets (2t, g) and (2t + 1, g) */
    const unsigned g = (unsigned)i % 32 / 4, two = 8 * g + 2 * (unsigned)t, back = 16 * (unsigned)t + g;
    CHECK(cu_transpose_8x8((two + 1) << 16 | two) == ((back + 8) << 16 | back));
}

/* d [64, 64] = a [64, 64] b [64, 64], f16, by a warpgroup, whose operands the second one's first thread has brought: a
 * from shared memory by rows, b as it lies (k outermost), its rows from 40 on outside of the array. */
static __global__ void engine_product(const __grid_constant__ cu_tma a, const __grid_constant__ cu_tma b, float *d) {
    __shared__ uint64_t bar;
    uint8_t *sm = (uint8_t *)emu_dyn_smem();
    sm += (1024 - (cu_smem_addr(sm) & 1023)) & 1023;
    cu_pdl_wait();
    const int i = (int)threadIdx.x, row = i % 128 / 32 * 16 + i % 32 / 4, t = i % 4;
    if (i == 0) cu_mbar_init(cu_smem_addr(&bar), 1);
    __syncthreads();
    if (i == 128) {
        cu_mbar_expect(cu_smem_addr(&bar), 2 * 8192);
        cu_tma_load(cu_smem_addr(sm), &a, cu_smem_addr(&bar), 0, 0, 1, 0);
        cu_tma_load(cu_smem_addr(sm) + 8192, &b, cu_smem_addr(&bar), 0, 0, 0, 2);
    }
    if (i >= 128) {
        cu_bar_arrive(5, 256);
        return;
    }
    cu_bar_sync(5, 256);
    cu_mbar_wait(cu_smem_addr(&bar), 0);
    float s[32], p[32];
    for (int j = 0; j < 32; j++) s[j] = p[j] = NAN;
    uint32_t f[4];
    const uint64_t da = cu_wgmma_desc(cu_smem_addr(sm)), db = cu_wgmma_desc_n(cu_smem_addr(sm) + 8192, 8192);
    for (int k = 0; k < 4; k++) { /* s = a a^T by descriptors; p = (rows of a) b from registers */
        for (int e = 0; e < 4; e++) {
            const int r = row + e % 2 * 8, c = 16 * k + e / 2 * 8 + 2 * t;
            memcpy(&f[e], sm + r * 128 + ((c / 8 ^ r) & 7) * 16 + c % 8 * 2, 4);
        }
        cu_wgmma_fence();
        k ? cu_wgmma_ss<64, true, false>(s, da + 2 * (unsigned)k, da + 2 * (unsigned)k)
          : cu_wgmma_ss<64, true, true>(s, da, da);
        k ? cu_wgmma_rs<64, true, true>(p, f, db + 128 * (unsigned)k) : cu_wgmma_rs<64, true, true, true>(p, f, db);
        cu_wgmma_commit();
    }
    cu_wgmma_wait<0>();
    for (int j = 0; j < 32; j++) {
        const int at = (row + j % 4 / 2 * 8) * 64 + j / 4 * 8 + 2 * t + j % 2;
        d[at] = s[j], d[4096 + at] = p[j];
    }
}

/* d [16, 8] = a [16, 16] b [16, 8], bf16: b [k][n] through ldmatrix.trans, a through ldmatrix. */
static __global__ void product(const uint16_t *a, const uint16_t *b, float *d) {
    uint8_t *sm = (uint8_t *)emu_dyn_smem();
    cu_pdl_wait();
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    uint16_t *sa = (uint16_t *)sm, *sb = sa + 256;
    cu_cp_async(sa + 8 * lane, a + 8 * lane);
    if (lane < 16) cu_cp_async(sb + 8 * lane, b + 8 * lane);
    cu_cp_commit();
    CHECK(sa[8 * lane] == 0xFFFF);
    cu_cp_wait<0>();
    __syncwarp();
    uint32_t fa[4], fb[4];
    cu_ldmatrix_x4(fa, sa + 16 * (lane % 8 + 8 * (lane / 8 % 2)) + 8 * (lane / 16));
    cu_ldmatrix_x4_trans(fb, sb + 8 * (lane % 16)); /* rows k of b */
    float acc[4] = {};
    cu_mma_bf16(acc, fa, fb);
    for (int i = 0; i < 4; i++) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = acc[i];
    const uint32_t row_wise = (uint32_t)(8 * g + 2 * t) | (uint32_t)(8 * g + 2 * t + 1) << 16;
    CHECK(cu_transpose_8x8(row_wise) == ((uint32_t)(8 * 2 * t + g) | (uint32_t)(8 * (2 * t + 1) + g) << 16));
}

static __global__ void diverge(int) {
    cu_pdl_wait();
    if (threadIdx.x < 40) __syncthreads();
}
static __global__ void overrun(float *p, int n) {
    cu_pdl_wait();
    p[n + (int)threadIdx.x] = 1;
}
static __global__ void fill(int *p, int v) {
    cu_pdl_wait();
    p[blockIdx.x * blockDim.x + threadIdx.x] = v;
}

/* Does f end the process? */
template <typename F> static bool dies(F f) {
    fflush(stdout);
    const pid_t pid = fork();
    if (!pid) {
        fclose(stderr);
        f();
        _exit(0);
    }
    int st = 0;
    waitpid(pid, &st, 0);
    return WIFSIGNALED(st);
}

int main() {
    emu_control("align", 16);
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s) == cudaSuccess);
    enum { N = 1000, B = 8 };
    float *x, *part, *out, *h, *ho;
    uint32_t *counter;
    cudaMalloc(&x, N * 4), cudaMalloc(&part, B * 4), cudaMalloc(&out, 4), cudaMalloc(&counter, 4);
    cudaMallocHost(&h, N * 4), cudaMallocHost(&ho, 4);
    CHECK(isnan(x[0]) && isnan(x[N - 1]));
    for (int i = 0; i < N; i++) h[i] = (float)i;
    cudaMemsetAsync(counter, 0, 4, s);
    cudaMemcpyAsync(x, h, N * 4, cudaMemcpyHostToDevice, s);
    CHECK(launch(s, sum, dim3(B), dim3(128), 0, x, (int)N, part, counter, out) == cudaSuccess);
    *ho = -1;
    cudaMemcpyAsync(ho, out, 4, cudaMemcpyDeviceToHost, s);
    CHECK(*ho == -1); /* nobody waited yet */
    CHECK(cudaStreamSynchronize(s) == cudaSuccess && *ho == N * (N - 1) / 2.0f && *counter == 0);

    /* The same as a graph, replayed with other data, in other orders. */
    cudaGraph_t gr;
    cudaGraphExec_t ex;
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    cudaMemcpyAsync(x, h, N * 4, cudaMemcpyHostToDevice, s);
    launch(s, sum, dim3(B), dim3(128), 0, x, (int)N, part, counter, out);
    void *none;
    CHECK(emu_malloc(&none, 4) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(s, &gr) == cudaErrorStreamCaptureInvalidated);
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    cudaMemcpyAsync(x, h, N * 4, cudaMemcpyHostToDevice, s);
    launch(s, sum, dim3(B), dim3(128), 0, x, (int)N, part, counter, out);
    cudaMemcpyAsync(ho, out, 4, cudaMemcpyDeviceToHost, s);
    CHECK(cudaStreamEndCapture(s, &gr) == cudaSuccess && cudaGraphInstantiate(&ex, gr) == cudaSuccess);
    cudaGraphDestroy(gr);
    for (int seed = 0; seed < 5; seed++) {
        emu_control("seed", seed);
        for (int i = 0; i < N; i++) h[i] = (float)(i + seed);
        CHECK(cudaGraphLaunch(ex, s) == cudaSuccess && cudaStreamSynchronize(s) == cudaSuccess);
        CHECK(*ho == N * (N - 1) / 2.0f + N * seed);
    }
    cudaGraphExecDestroy(ex);
    emu_control("seed", 0);

    /* Matrix instructions. */
    uint16_t *a, *b;
    float *d, want[128] = {};
    cudaMalloc(&a, 512), cudaMalloc(&b, 256), cudaMalloc(&d, 512);
    for (int i = 0; i < 256; i++) a[i] = cu_to_bf16((float)(i % 13) - 6);
    for (int i = 0; i < 128; i++) b[i] = cu_to_bf16((float)(i % 7) - 3);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 16; k++) want[8 * i + j] += cu_bf16(a[16 * i + k]) * cu_bf16(b[8 * k + j]);
    launch(s, product, dim3(1), dim3(32), 768, a, b, d);
    cudaStreamSynchronize(s);
    CHECK(!memcmp(d, want, sizeof want));
    uint16_t *ga, *gb;
    float *gd, gwant[64 * 16] = {};
    cudaMalloc(&ga, 64 * 64 * 2), cudaMalloc(&gb, 16 * 64 * 2), cudaMalloc(&gd, sizeof gwant);
    for (int i = 0; i < 64 * 64; i++) ga[i] = cu_to_bf16((float)(i % 11) - 5);
    for (int i = 0; i < 16 * 64; i++) gb[i] = cu_to_bf16((float)(i % 17) - 8);
    for (int i = 0; i < 64 * 16; i++)
        for (int k = 0; k < 64; k++) gwant[i] += cu_bf16(ga[i / 16 * 64 + k]) * cu_bf16(gb[i % 16 * 64 + k]);
    launch(s, group_product, dim3(1), dim3(128), 3072, ga, gb, gd);
    cudaStreamSynchronize(s);
    CHECK(!memcmp(gd, gwant, sizeof gwant));
    /* The copy engine: matrix 1 of 2, and page 2 of 3 with 40 of 64 rows. */
    uint16_t *ea, *eb;
    float *ed;
    static float ewant[2][64 * 64];
    cudaMalloc(&ea, 2 * 8192), cudaMalloc(&eb, 3 * 40 * 128), cudaMalloc(&ed, sizeof ewant);
    for (int i = 0; i < 2 * 4096; i++) ea[i] = cu_to_f16((float)(i % 13) - 6);
    for (int i = 0; i < 3 * 2560; i++) eb[i] = cu_to_f16((float)(i % 19) - 9);
    for (int i = 0; i < 64 * 64; i++)
        for (int k = 0; k < 64; k++) {
            const uint16_t *u = ea + 4096, *v = eb + 2 * 2560;
            ewant[0][i] += cu_f16(u[i / 64 * 64 + k]) * cu_f16(u[i % 64 * 64 + k]);
            if (k < 40) ewant[1][i] += cu_f16(u[i / 64 * 64 + k]) * cu_f16(v[64 * k + i % 64]);
        }
    CUresult (*encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                       const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", (void **)&encode, 0, nullptr);
    const cuuint64_t adim[] = {64, 64, 2, 1}, bdim[] = {64, 40, 1, 3}, astep[] = {128, 8192, 16384},
                     bstep[] = {128, 5120, 5120};
    const cuuint32_t box[] = {64, 64, 1, 1}, one[] = {1, 1, 1, 1};
    cu_tma ma, mb;
    for (int i = 0; i < 2; i++)
        CHECK(encode(i ? &mb : &ma, CU_TENSOR_MAP_DATA_TYPE_UINT16, 4, i ? eb : ea, i ? bdim : adim, i ? bstep : astep,
                     box, one, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
    launch(s, engine_product, dim3(1), dim3(256), 17408, ma, mb, ed);
    cudaStreamSynchronize(s);
    CHECK(!memcmp(ed, ewant, sizeof ewant));
    CHECK(cu_to_f16(65519.0f) == 0x7BFF && cu_to_f16(65520.0f) == 0x7C00 && cu_f16(0x0001) == 0x1p-24f);
    CHECK(cu_bf16_lo(cu_bf16x2_fma(0x3F803F80, 0x3F803F80, 0x40004000)) == 3.0f);
    CHECK(__byte_perm(0x33221100, 0x77665544, 0x7410) == 0x77441100);

    /* Memory that does not fit, is returned, lies in address space. */
    const long long used = emu_control("used", 0);
    emu_control("mem", used + (4 << 20));
    CHECK(emu_malloc(&none, (4 << 20) + 1) == cudaErrorMemoryAllocation);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess);
    CUresult (*reserve)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
    CUresult (*create)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long);
    CUresult (*map)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
    CUresult (*access)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
    CUresult (*unmap)(CUdeviceptr, size_t), (*release)(CUmemGenericAllocationHandle), (*unreserve)(CUdeviceptr, size_t);
    cudaGetDriverEntryPoint("cuMemAddressReserve", (void **)&reserve, 0);
    cudaGetDriverEntryPoint("cuMemCreate", (void **)&create, 0);
    cudaGetDriverEntryPoint("cuMemMap", (void **)&map, 0);
    cudaGetDriverEntryPoint("cuMemSetAccess", (void **)&access, 0);
    cudaGetDriverEntryPoint("cuMemUnmap", (void **)&unmap, 0);
    cudaGetDriverEntryPoint("cuMemRelease", (void **)&release, 0);
    cudaGetDriverEntryPoint("cuMemAddressFree", (void **)&unreserve, 0);
    CUdeviceptr va = 0;
    CUmemGenericAllocationHandle hd[3];
    CHECK(!reserve(&va, 64 << 20, 0, 0, 0));
    CHECK(!create(&hd[0], 2 << 20, nullptr, 0) && !create(&hd[1], 2 << 20, nullptr, 0));
    CHECK(create(&hd[2], 2 << 20, nullptr, 0) == CUDA_ERROR_OUT_OF_MEMORY);
    for (int i = 0; i < 2; i++)
        CHECK(!map(va + (2 << 20) * i, 2 << 20, 0, hd[i], 0) && !access(va + (2 << 20) * i, 2 << 20, nullptr, 1) &&
              !release(hd[i]));
    CHECK(cudaMemsetAsync((void *)va, 7, 4 << 20, s) == cudaSuccess && cudaStreamSynchronize(s) == cudaSuccess);
    CHECK(unreserve(va, 64 << 20) != CUDA_SUCCESS && !unmap(va, 4 << 20) && !unreserve(va, 64 << 20));
    CHECK(emu_control("used", 0) == used);
    emu_control("mem", 1 << 30);

    /* Events order streams. */
    cudaStream_t s2;
    cudaEvent_t e0, e1;
    int *p;
    cudaStreamCreate(&s2), cudaEventCreate(&e0), cudaEventCreate(&e1), cudaMalloc(&p, 1024);
    cudaEventRecord(e0, s);
    launch(s, fill, dim3(2), dim3(128), 0, p, 1);
    cudaEventRecord(e1, s);
    cudaStreamWaitEvent(s2, e1);
    launch(s2, fill, dim3(2), dim3(128), 0, p, 2);
    cudaStreamSynchronize(s2);
    float ms = -1;
    CHECK(p[0] == 2 && p[255] == 2 && cudaEventElapsedTime(&ms, e0, e1) == cudaSuccess && ms >= 0);

    /* Mistakes. */
    CHECK(dies([&] { launch(s, diverge, dim3(1), dim3(64), 0, 0), cudaStreamSynchronize(s); }));
    CHECK(dies([&] { launch(s, overrun, dim3(1), dim3(1), 0, x, (int)N), cudaStreamSynchronize(s); }));
    CHECK(dies([&] { cudaMemcpy(x, h, N * 4 + 4, cudaMemcpyHostToDevice); }));
    CHECK(launch(s, fill, dim3(1), dim3(2048), 0, p, 3) == cudaErrorInvalidConfiguration);
    emu_control("fail_launch", 2);
    CHECK(launch(s, fill, dim3(1), dim3(32), 0, p, 3) == cudaSuccess);
    CHECK(launch(s, fill, dim3(1), dim3(32), 0, p, 4) == cudaErrorLaunchOutOfResources);
    CHECK(cudaStreamSynchronize(s) == cudaSuccess && p[0] == 3);
    emu_control("fault_kernel", 1);
    CHECK(launch(s, fill, dim3(1), dim3(32), 0, p, 5) == cudaSuccess);
    CHECK(cudaStreamSynchronize(s) == cudaErrorIllegalAddress && cudaMemset(p, 0, 4) == cudaErrorIllegalAddress);
    printf("%s\n", failed ? "failed" : "ok");
    return failed != 0;
}
