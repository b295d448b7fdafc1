/* Weights of every format with random contents, and the speed of the linear kernels over them. Included by
 * test_linear.c only. */
#ifndef TESTS_KERN_LINEAR_BENCH_H
#define TESTS_KERN_LINEAR_BENCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/kern.h"
#include "base/clock.h"
#include "base/rng.h"
#include "qfmt/fill.h"

#define KIND(f)                                                                                                        \
    { .fmt = FA_FMT_##f }
#define AFFINE(b, g, dt)                                                                                               \
    { .fmt = FA_FMT_AFFINE, .bits = b, .group = g, .scale_dtype = dt }
static const fa_weight bench_kinds[] = {KIND(F32),
                                        KIND(F16),
                                        KIND(BF16),
                                        KIND(Q8_0),
                                        KIND(Q4_0),
                                        KIND(Q4_1),
                                        KIND(Q5_0),
                                        KIND(Q5_1),
                                        KIND(Q2_K),
                                        KIND(Q3_K),
                                        KIND(Q4_K),
                                        KIND(Q5_K),
                                        KIND(Q6_K),
                                        FILL_PLANAR_KINDS,
                                        FILL_TABLE_KINDS,
                                        AFFINE(2, 64, FA_F16),
                                        AFFINE(3, 32, FA_BF16),
                                        AFFINE(4, 64, FA_BF16),
                                        AFFINE(4, 128, FA_F16),
                                        AFFINE(4, 32, FA_F32),
                                        AFFINE(5, 128, FA_F16),
                                        AFFINE(6, 64, FA_F32),
                                        AFFINE(8, 64, FA_BF16)};
static const size_t bench_kind_count = sizeof bench_kinds / sizeof bench_kinds[0];

static void bench_weight_sizes(fa_weight *w) {
    w->name = "test.weight";
    fill_sizes(w);
}

static void bench_weight_fill(const fa_weight *w, uint8_t *codes, uint8_t *scales, uint8_t *biases, fa_rng *r) {
    fill_codes(w, codes, r);
    fill_scales(w, scales, w->fmt == FA_FMT_AFFINE ? biases : NULL, r);
}

/* ---- speed ---- */

typedef struct bench_job {
    const fa_kernels *k;
    fa_weight w;
    int64_t copies, items, item_rows,
        M; /* copies of the weight, one after the other, so that one row streams from memory */
    const fa_act *act;
    const float *x;
    float *y;
    bool q8;
    atomic_long next;
} bench_job;

static void *bench_worker(void *arg) {
    bench_job *j = (bench_job *)arg;
    void *scratch = aligned_alloc(64, (j->k->linear_scratch(j->w.cols, j->M) + 63) / 64 * 64);
    for (;;) {
        int64_t i = atomic_fetch_add(&j->next, 1);
        if (i >= j->items * j->copies) break;
        fa_weight w = j->w;
        size_t copy = (size_t)(i / j->items);
        w.codes += copy * (size_t)w.rows * w.row_bytes;
        if (w.scales) w.scales += copy * (size_t)w.rows * w.scale_row_bytes;
        if (w.biases) w.biases += copy * (size_t)w.rows * w.scale_row_bytes;
        int64_t r0 = i % j->items * j->item_rows, r1 = r0 + j->item_rows < w.rows ? r0 + j->item_rows : w.rows;
        if (j->q8)
            j->k->linear_q8(j->k, &w, r0, r1, j->act, j->y, w.rows, false, scratch);
        else
            j->k->linear_f32(j->k, &w, r0, r1, j->x, w.cols, j->M, j->y, w.rows, false, scratch);
    }
    free(scratch);
    return NULL;
}

/* One thread: its processor time, so that other programs on the machine disturb less. */
static double bench_alone(bench_job *j) {
    struct timespec a, b;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    bench_worker(j);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

static double bench_once(bench_job *j, int threads) {
    pthread_t t[2];
    atomic_store(&j->next, 0);
    if (threads == 1) return bench_alone(j);
    double t0 = fa_now();
    for (int i = 1; i < threads; i++) pthread_create(&t[i], NULL, bench_worker, j);
    bench_worker(j);
    for (int i = 1; i < threads; i++) pthread_join(t[i], NULL);
    return fa_now() - t0;
}

static void *big_alloc(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p) memset(p, 0, bytes);
    return p;
}

/* Best of a few runs; GB/s of weights for M = 1, else GOP/s. */
static void bench_shape(const fa_kernels *k, const fa_weight *kind, int64_t rows, int64_t K, int64_t M, bool q8) {
    bench_job j = {.k = k, .w = *kind, .M = M, .q8 = q8, .copies = 1};
    j.w.rows = rows;
    j.w.cols = K;
    bench_weight_sizes(&j.w);
    size_t bytes = (size_t)rows * j.w.row_bytes, sbytes = (size_t)rows * j.w.scale_row_bytes,
           row = j.w.row_bytes + 2 * j.w.scale_row_bytes;
    if (M == 1) j.copies = (int64_t)(((size_t)300 << 20) / (bytes + 2 * sbytes)) + 1;
    uint8_t *codes = big_alloc(bytes * (size_t)j.copies), *scales = big_alloc(sbytes * (size_t)j.copies),
            *biases = big_alloc(sbytes * (size_t)j.copies);
    fa_rng r = {1, 2};
    bench_weight_fill(&j.w, codes, scales, biases, &r);
    for (int64_t c = 1; c < j.copies; c++) {
        memcpy(codes + bytes * (size_t)c, codes, bytes);
        memcpy(scales + sbytes * (size_t)c, scales, sbytes);
        memcpy(biases + sbytes * (size_t)c, biases, sbytes);
    }
    j.w.codes = codes;
    if (sbytes) j.w.scales = scales, j.w.biases = biases;
    float *x = big_alloc((size_t)(M * K) * 4);
    for (int64_t i = 0; i < M * K; i++) x[i] = fa_rng_f32(&r) - 0.5f;
    fa_act a = {big_alloc((size_t)(M * K)),
                big_alloc((size_t)(M * K / 8)),
                big_alloc((size_t)(M * K / 8)),
                big_alloc((size_t)(M * K / 4)),
                M,
                K,
                NULL,
                0};
    k->quant_act(x, K, 0, M, &a);
    j.x = x;
    j.act = &a;
    j.y = big_alloc((size_t)(M * rows) * 4);
    int64_t want = M == 1 ? (int64_t)(65536 / row) : 64;
    if (want < 16) want = 16;
    j.item_rows = (want + k->row_tile - 1) / k->row_tile * k->row_tile;
    j.items = (rows + j.item_rows - 1) / j.item_rows;
    for (int threads = 1; threads <= 2; threads++) {
        double best = 1e9;
        for (int i = 0; i < (M == 1 ? 3 : 5); i++) {
            double t = bench_once(&j, threads);
            if (t < best) best = t;
        }
        if (M == 1)
            printf("  %8.2f", (double)row * (double)rows * (double)j.copies / best * 1e-9);
        else
            printf("  %8.1f", 2.0 * (double)(M * rows * K) / best * 1e-9);
    }
    fflush(stdout);
    free(codes), free(scales), free(biases), free(x), free(j.y), free(a.q), free(a.scale), free(a.sum32), free(a.sum16);
}

static void bench_kind(const fa_kernels *k, const fa_weight *kind, bool q8, const char *only) {
    static const int64_t shapes[][2] = {{2048, 640}, {640, 2048}, {4096, 4096}, {262144, 640}};
    char text[32];
    printf("%-10s %-14s %-3s", k->isa, fa_weight_fmt_text(kind, text), q8 ? "q8" : "f32");
    for (int i = 2; i < 4 && (!only || *only == '1'); i++)
        bench_shape(k, kind, shapes[i][0], fill_unit(kind) == 256 ? (shapes[i][1] + 255) / 256 * 256 : shapes[i][1], 1,
                    q8);
    printf(" |");
    for (int i = 0; i < 3 && (!only || *only == '5'); i++)
        bench_shape(k, kind, shapes[i][0], fill_unit(kind) == 256 ? (shapes[i][1] + 255) / 256 * 256 : shapes[i][1],
                    512, q8);
    printf("\n");
}

/* isa and format NULL: the best level and all formats; only "1" or "512" input rows */
static int bench_linear(const char *isa, const char *format, const char *only) {
    fa_kernels k;
    fa_error err;
    if (fa_kernels_init(&k, isa, &err)) {
        printf("%s\n", err.msg);
        return 1;
    }
    printf("GB/s of weights, M = 1 (1, 2 threads): 4096x4096, 262144x640 | GOP/s, M = 512: 2048x640, 640x2048, "
           "4096x4096\n");
    for (size_t i = 0; i < bench_kind_count; i++) {
        char text[32];
        fa_weight_fmt_text(&bench_kinds[i], text);
        if (format && strcmp(format, "all") && strncmp(text, format, strlen(format))) continue;
        if (fa_qfmts[bench_kinds[i].fmt].ugroup) bench_kind(&k, &bench_kinds[i], true, only);
        if (!fa_qfmts[bench_kinds[i].fmt].ugroup || (format && !strcmp(format, text)))
            bench_kind(&k, &bench_kinds[i], false, only);
    }
    return 0;
}

#endif
