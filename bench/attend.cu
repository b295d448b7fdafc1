/* Attention of prompts alone on a GPU: both kernels over a paged cache with shuffled pages, their times and how far
 * their results are apart. Not part of the build; after `ninja -C build libffai_cuda.so`:
 *
 *     nvcc -std=c++17 -O2 -gencode arch=compute_90a,code=sm_90a -Isrc -Iinclude bench/attend.cu \
 *         build/cuda/attend_prefill.o build/cuda/attend_wgmma.o build/cuda/vm.o src/base/err.c src/base/alloc.c \
 *         -o build/bench_attend
 *     build/bench_attend [name of a case, ...]
 *
 * A line each: milliseconds (median of 5 launches) and TFLOP/s of what is not masked. */
#include "backend/cuda/attend.h"

#include <algorithm>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define OK(x)                                                                                                          \
    do {                                                                                                               \
        const cudaError_t rc_ = (x);                                                                                   \
        if (rc_ != cudaSuccess) printf("%s: %s\n", #x, cudaGetErrorString(rc_)), exit(1);                              \
    } while (0)

/* What the kernels' launchers need of the rest of the backend. */
void cu_launch_failed(fa_cuda *, const char *kernel, cudaError_t rc) {
    printf("%s: %s\n", kernel, cudaGetErrorString(rc));
    exit(1);
}
void cu_inject_launch(fa_cuda *, const char *) {}
void cu_profile_begin(fa_cuda *, const char *) {}
void cu_profile_end(fa_cuda *) {}
int cu_enter(cu_device *, fa_error *) { return 0; }
int cu_check(cu_device *, cudaError_t, const char *, fa_error *) { return 0; }
bool cu_injected(cu_device *, int) { return false; }

struct shape {
    const char *name;
    int n_head, n_kv, hd, rows, past, n_seq, window;
    float cap;
    bool sink, bf16, q_f32;
};
static const shape shapes[] = {{"8k", 32, 8, 128, 8192, 0, 1, 0, 0, 0, 0, 0},
                               {"2k", 32, 8, 128, 2048, 0, 1, 0, 0, 0, 0, 0},
                               {"512", 32, 8, 128, 512, 0, 1, 0, 0, 0, 0, 0},
                               {"32k", 32, 8, 128, 32768, 0, 1, 0, 0, 0, 0, 0},
                               {"8k bf16", 32, 8, 128, 8192, 0, 1, 0, 0, 0, 1, 0},
                               {"2k at 6001", 32, 8, 128, 2048, 6001, 1, 0, 0, 0, 0, 0},
                               {"64 x 128", 32, 8, 128, 128, 0, 64, 0, 0, 0, 0, 0},
                               {"16 x 333 f32", 32, 8, 128, 333, 0, 16, 0, 0, 0, 0, 1},
                               {"4 kv heads 4k", 32, 4, 128, 4096, 0, 1, 0, 0, 0, 0, 0},
                               {"groups of 7 4k", 28, 4, 128, 4096, 0, 1, 0, 0, 0, 0, 0},
                               {"no groups 4k", 32, 32, 128, 4096, 0, 1, 0, 0, 0, 0, 0},
                               {"hd 96 4k", 32, 32, 96, 4096, 0, 1, 0, 0, 0, 0, 0},
                               {"hd 64 8k", 32, 8, 64, 8192, 0, 1, 0, 0, 0, 0, 0},
                               {"hd 64 window", 64, 8, 64, 8192, 0, 1, 128, 0, 1, 0, 0},
                               {"hd 192 4k", 16, 8, 192, 4096, 0, 1, 0, 0, 0, 0, 0},
                               {"hd 256 8k", 16, 8, 256, 8192, 0, 1, 0, 0, 0, 0, 0},
                               {"hd 256 window", 16, 8, 256, 8192, 0, 1, 1024, 0, 0, 0, 0},
                               {"hd 256 softcap", 16, 8, 256, 4096, 0, 1, 0, 50, 0, 1, 0},
                               {"ragged", 8, 8, 128, 201, 77, 11, 0, 0, 1, 0, 0}};

/* Numbers in [-1.7, 1.7) that depend on their place. kind: 0 bf16, 1 f16, 2 f32. */
static __global__ void fill(void *p, size_t n, int kind, uint32_t seed) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u + seed;
        h = (h ^ h >> 16) * 0x85EBCA6Bu;
        h = (h ^ h >> 13) * 0xC2B2AE35u;
        const float v = ((float)((h ^ h >> 16) >> 8) / 8388608.0f - 1) * 1.7f;
        if (kind == 2)
            ((float *)p)[i] = v;
        else
            ((uint16_t *)p)[i] = kind ? cu_to_f16(v) : cu_to_bf16(v);
    }
}

static std::vector<void *> held; /* device memory of a case */
static void *take(size_t bytes) {
    void *p;
    OK(cudaMalloc(&p, bytes));
    held.push_back(p);
    return p;
}
static void *numbers(size_t n, int kind, uint32_t seed) {
    void *p = take(n * (kind == 2 ? 4 : 2));
    fill<<<512, 256>>>(p, n, kind, seed);
    return p;
}
template <class T> static T *upload(const std::vector<T> &v) {
    T *p = (T *)take(v.size() * sizeof(T));
    OK(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
    return p;
}

/* The batch and the cache of a case; returns its floating point operations. */
static double make(const shape &s, cu_att *a) {
    const int end = s.past + s.rows, pages = (end + FA_PAGE - 1) / FA_PAGE, n_tok = s.rows * s.n_seq;
    const size_t cache = (size_t)pages * s.n_seq * s.n_kv * FA_PAGE * s.hd;
    std::vector<int32_t> lo, hi, page((size_t)pages * s.n_seq), start, tile_seq, tile_row;
    std::vector<float> sink(s.n_head);
    double pairs = 0;
    for (int q = 0; q < s.n_seq; q++) {
        start.push_back(q * s.rows);
        for (int i = 0; i < s.rows; i++) {
            const int p = s.past + i;
            lo.push_back(s.window && p + 1 > s.window ? p + 1 - s.window : 0);
            hi.push_back(p + 1);
            pairs += hi.back() - lo.back();
            if (i % CU_ATTEND_TILE) continue;
            tile_seq.push_back(q);
            tile_row.push_back(q * s.rows + i);
        }
    }
    start.push_back(n_tok);
    for (size_t i = 0; i < page.size(); i++) page[i] = (int32_t)i;
    for (size_t i = page.size(); i > 1; i--) std::swap(page[i - 1], page[(size_t)rand() % i]);
    for (float &x : sink) x = (float)(rand() % 400) / 100 - 2;
    *a = {};
    a->q = numbers((size_t)n_tok * s.n_head * s.hd, s.q_f32 ? 2 : 0, 1);
    a->k = (const uint8_t *)numbers(cache, !s.bf16, 2);
    a->v = (const uint8_t *)numbers(cache, !s.bf16, 3);
    a->sink = s.sink ? upload(sink) : NULL;
    a->kv_lo = upload(lo), a->kv_hi = upload(hi), a->page = upload(page), a->row_start = upload(start);
    a->tile_seq = upload(tile_seq), a->tile_row = upload(tile_row);
    a->head_bytes = (int64_t)FA_PAGE * s.hd * 2, a->page_bytes = a->head_bytes * s.n_kv;
    const float scale = 1 / sqrtf((float)s.hd);
    a->scale2 = scale * ATT_LOG2E;
    if (s.cap > 0) a->cap = s.cap * ATT_LOG2E, a->rcap = scale / s.cap;
    a->n_head = s.n_head, a->n_kv = s.n_kv, a->group = s.n_head / s.n_kv, a->hd = a->hp = s.hd;
    a->page_stride = pages, a->q_bf16 = !s.q_f32, a->out_bf16 = 1, a->n_tile = (int)tile_seq.size();
    return 4 * pairs * s.n_head * s.hd;
}

/* Median milliseconds of a kernel; out gets the result. */
static float measure(fa_cuda *cu, cu_att a, fa_dtype kv, bool wgmma, std::vector<uint16_t> *out) {
    std::vector<float> ms;
    cudaEvent_t from, to;
    OK(cudaEventCreate(&from));
    OK(cudaEventCreate(&to));
    a.out = take(out->size() * 2);
    OK(cudaMemset(a.out, 0xFF, out->size() * 2));
    cu->arch = wgmma ? 90 : 80;
    for (int i = 0; i < 7; i++) {
        OK(cudaEventRecord(from, cu->stream));
        if (!cu_att_prefill(cu, &a, kv)) return NAN;
        OK(cudaEventRecord(to, cu->stream));
        OK(cudaEventSynchronize(to));
        float x;
        OK(cudaEventElapsedTime(&x, from, to));
        if (i >= 2) ms.push_back(x);
    }
    OK(cudaMemcpy(out->data(), a.out, out->size() * 2, cudaMemcpyDeviceToHost));
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
}

static float widened(uint16_t v) {
    const uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static void run(fa_cuda *cu, const shape &s) {
    cu_att a;
    const double flop = make(s, &a);
    std::vector<uint16_t> out[2];
    a.counter = cu->counter;
    float ms[2];
    for (int w = 0; w < 2; w++) {
        out[w].resize((size_t)s.rows * s.n_seq * s.n_head * s.hd);
        ms[w] = measure(cu, a, s.bf16 ? FA_BF16 : FA_F16, w, &out[w]);
    }
    double worst = 0, sum = 0;
    long bad = 0;
    for (size_t i = 0; i < out[0].size(); i++) {
        const float x = widened(out[0][i]), d = fabsf(x - widened(out[1][i]));
        if (!(d < 1e30f)) bad++;
        worst = fmax(worst, d), sum += (double)x * x;
    }
    printf("%-15s mma.sync %8.3f ms %6.1f TFLOP/s   wgmma %8.3f ms %6.1f TFLOP/s   %.2fx   difference %.4f of the rms, "
           "%ld not finite\n",
           s.name, (double)ms[0], flop / ms[0] / 1e9, (double)ms[1], flop / ms[1] / 1e9, (double)(ms[0] / ms[1]),
           worst / sqrt(sum / (double)out[0].size()), bad);
    fflush(stdout);
    for (void *p : held) cudaFree(p);
    held.clear();
}

int main(int argc, char **argv) {
    static cu_device dev;
    static fa_cuda cu;
    cudaDeviceProp p;
    OK(cudaGetDeviceProperties(&p, 0));
    cu.dev = &dev;
    cu.n_sm = p.multiProcessorCount;
    cu.smem_max = p.sharedMemPerBlockOptin;
    OK(cudaStreamCreate(&cu.stream));
    OK(cudaMalloc(&cu.counter, CU_COUNTERS * sizeof *cu.counter));
    OK(cudaMemset(cu.counter, 0, CU_COUNTERS * sizeof *cu.counter));
    for (const shape &s : shapes) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++) wanted = wanted || !strcmp(argv[i], s.name);
        if (wanted) run(&cu, s);
    }
    return 0;
}
