/* Every linear kernel that this machine can run against sums in double: all formats, odd shapes, inputs at the very end
 * of readable memory, canaries around outputs and scratch. `SEED PATTERN` runs the tests of that name, as
 * "*neondot"; `--bench [isa [format [M]]]` measures instead (GB/s for one input row, GOP/s for 512). */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/cpu/kern.h"
#include "base/rng.h"
#include "kern/amx_emulated.h"
#include "kern/linear_bench.h"

static uint64_t seed = 20240601;

/* A level by its name, or the emulated one. */
static const char amx_emulated[] = "amx (emulated)";
static bool level(const char *name, fa_kernels *k) {
    return strcmp(name, amx_emulated) ? !fa_kernels_init(k, name, NULL) : amx_emulated_init(k);
}

/* ---- memory that ends where the process may no longer read ---- */

typedef struct edge {
    uint8_t *base, *p;
    size_t mapped;
} edge;

static edge edge_new(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
    edge e = {.mapped = body + page};
    e.base = mmap(NULL, e.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(e.base != MAP_FAILED);
    assert_int_equal(mprotect(e.base + body, page, PROT_NONE), 0);
    e.p = e.base + body - bytes;
    return e;
}

static void edge_free(edge *e) { munmap(e->base, e->mapped); }

static edge edge_floats(int64_t n, fa_rng *r) {
    edge e = edge_new((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) ((float *)(void *)e.p)[i] = (fa_rng_f32(r) - 0.5f) * 4.0f;
    return e;
}

/* ---- the truth ---- */

/* value of the canonical form in double, and the magnitude that bounds rounding errors */
static void row_values(const fa_weight *w, int64_t r, double *value, double *size) {
    const fa_qfmt *f = &fa_qfmts[w->fmt];
    int64_t K = w->cols;
    if (f->to_f32) {
        float *row = malloc((size_t)K * 4);
        f->to_f32(w, r, 0, K, row);
        for (int64_t k = 0; k < K; k++) value[k] = row[k], size[k] = fabs(value[k]);
        free(row);
        return;
    }
    uint8_t *codes = malloc((size_t)K);
    float *scale = malloc((size_t)K / f->ugroup * 4), *min = malloc((size_t)K / f->ugroup * 4);
    f->unpack(w, r, codes, scale, min);
    for (int64_t k = 0; k < K; k++) {
        double s = scale[k / f->ugroup], mn = min[k / f->ugroup];
        value[k] = codes[k] * s + mn;
        size[k] = fabs(codes[k] * s) + fabs(mn);
    }
    free(codes);
    free(scale);
    free(min);
}

static void quantize(const fa_kernels *k, const float *x, int64_t ldx, fa_act *a) { k->quant_act(x, ldx, 0, a->M, a); }

typedef struct act_mem {
    edge q, scale, sum32, sum16;
    fa_act a;
} act_mem;

/* Planes that end `off` values before the edge. */
static act_mem act_new(int64_t M, int64_t K, int64_t off) {
    act_mem m = {edge_new((size_t)(M * K + off)),
                 edge_new((size_t)(M * K / 32 + off) * 4),
                 edge_new((size_t)(M * K / 32 + off) * 4),
                 edge_new((size_t)(M * K / 16 + off) * 4),
                 {0}};
    m.a = (fa_act){(int8_t *)m.q.p,
                   (float *)(void *)m.scale.p,
                   (float *)(void *)m.sum32.p,
                   (float *)(void *)m.sum16.p,
                   M,
                   K,
                   NULL,
                   0};
    return m;
}

static void act_free(act_mem *m) {
    edge_free(&m->q);
    edge_free(&m->scale);
    edge_free(&m->sum32);
    edge_free(&m->sum16);
}

/* ---- one product ---- */

typedef struct shape {
    int64_t rows, r0, M, K;
} shape;

enum { PAD = 5, CANARY = 64 };

static void check_range(const fa_kernels *k, const fa_weight *w, const shape *s, const double *x, const float *got,
                        int64_t ldy, bool add, const char *what) {
    double *value = malloc((size_t)s->K * 8), *size = malloc((size_t)s->K * 8);
    for (int64_t r = 0; r < s->rows; r++) {
        row_values(w, r, value, size);
        for (int64_t m = 0; m < s->M; m++) {
            double sum = 0, mag = 0, init = (double)(float)(0.25 * (double)(m + r));
            for (int64_t i = 0; i < s->K; i++)
                sum += value[i] * x[m * s->K + i], mag += size[i] * fabs(x[m * s->K + i]);
            double want = r < s->r0 ? init : add ? sum + init : sum, y = got[m * ldy + r];
            double limit = r < s->r0 ? 0 : 1e-6 * mag + 1e-6 * fabs(want);
            if (!(fabs(y - want) <= limit)) {
                char text[32];
                fail_msg("%s %s %s rows %d from %d M %d K %d add %d seed %llu: y[%d][%d] = %.9g, want %.9g +- %g",
                         k->isa, what, fa_weight_fmt_text(w, text), (int)s->rows, (int)s->r0, (int)s->M, (int)s->K, add,
                         (unsigned long long)seed, (int)m, (int)r, y, want, limit);
            }
        }
        for (int64_t m = 0; m < s->M; m++)
            for (int64_t p = s->rows; p < ldy; p++) assert_true(got[m * ldy + p] == (float)(0.25 * (double)(m + p)));
    }
    free(value);
    free(size);
}

/* Input rows in one of three forms, the others NULL: f32 rows K + 3 apart, int8, bf16 rows K + 1 apart. */
typedef struct input {
    const float *f32;
    const fa_act *q8;
    const uint16_t *bf16;
} input;

static double input_value(const input *x, const shape *s, int64_t m, int64_t i) {
    if (x->q8) return (double)x->q8->q[m * s->K + i] * x->q8->scale[m * (s->K / 32) + i / 32];
    return x->bf16 ? fa_bf16_to_f32(x->bf16[m * (s->K + 1) + i]) : x->f32[m * (s->K + 3) + i];
}

static void run_shape(const fa_kernels *k, const fa_weight *w, const shape *s, const input *x, bool add) {
    const int64_t ldy = s->rows + PAD;
    size_t need = k->linear_scratch(s->K, s->M), room = (need + CANARY + 63) / 64 * 64;
    uint8_t *scratch = aligned_alloc(64, room);
    memset(scratch, 0xFF, room); /* NaN as floats */
    edge y = edge_new((size_t)(s->M * ldy) * 4);
    float *out = (float *)(void *)y.p;
    for (int64_t m = 0; m < s->M; m++)
        for (int64_t r = 0; r < ldy; r++) out[m * ldy + r] = (float)(0.25 * (double)(m + r));
    if (x->q8)
        k->linear_q8(k, w, s->r0, s->rows, x->q8, out, ldy, add, scratch);
    else if (x->bf16)
        k->linear_bf16(k, w, s->r0, s->rows, x->bf16, s->K + 1, s->M, out, ldy, add, scratch);
    else
        k->linear_f32(k, w, s->r0, s->rows, x->f32, s->K + 3, s->M, out, ldy, add, scratch);
    for (size_t i = need; i < room; i++) assert_int_equal(scratch[i], 0xFF);
    double *xd = malloc((size_t)(s->M * s->K) * 8);
    for (int64_t m = 0; m < s->M; m++)
        for (int64_t i = 0; i < s->K; i++) xd[m * s->K + i] = input_value(x, s, m, i);
    check_range(k, w, s, xd, out, ldy, add, x->q8 ? "q8" : x->bf16 ? "bf16" : "f32");
    free(xd);
    free(scratch);
    edge_free(&y);
}

/* bf16 rows as the engine makes them; between the rows lies NaN. */
static void check_bf16(const fa_kernels *k, const fa_weight *w, const shape *s, const float *x) {
    edge e = edge_new((size_t)(s->M * (s->K + 1) - 1 + (s->rows & 1)) * 2);
    uint16_t *rows = (uint16_t *)(void *)e.p;
    for (int64_t m = 0; m < s->M; m++) {
        k->convert(x + m * (s->K + 3), FA_BF16, s->K, rows + m * (s->K + 1));
        for (int64_t i = 0; i < s->K; i++)
            assert_int_equal(rows[m * (s->K + 1) + i], fa_f32_to_bf16(x[m * (s->K + 3) + i]));
        if (m + 1 < s->M) rows[m * (s->K + 1) + s->K] = 0xFFFF;
    }
    for (int add = 0; add < 2; add++) run_shape(k, w, s, &(input){.bf16 = rows}, add);
    edge_free(&e);
}

/* The input turned beforehand, in pieces of any size. */
static void check_turned(const fa_kernels *k, const fa_weight *w, const shape *s, fa_act *a) {
    edge e = edge_new(fa_turned_bytes(s->M, s->K));
    a->turned = e.p;
    for (int64_t m = 0, n; m < s->M; m += n) {
        n = 1 + m % 3;
        if (m / 8 != (m + n - 1) / 8) n = 8 - m % 8;
        if (n > s->M - m) n = s->M - m;
        k->turn_act(a, m, m + n);
    }
    for (int add = 0; add < 2; add++) run_shape(k, w, s, &(input){.q8 = a}, add);
    edge_free(&e);
}

static void check_weight(const fa_kernels *k, const fa_weight *kind, shape s) {
    fa_rng r = {seed, (uint64_t)(s.rows * 7919 + s.M * 31 + s.K)};
    edge codes, scales = {0}, biases = {0};
    fa_weight w = *kind;
    w.rows = s.rows;
    w.cols = s.K;
    bench_weight_sizes(&w);
    codes = edge_new((size_t)w.rows * w.row_bytes + (size_t)(s.M & 1)); /* odd addresses in every second shape */
    w.codes = codes.p;
    if (w.scale_row_bytes) {
        scales = edge_new((size_t)w.rows * w.scale_row_bytes);
        biases = edge_new((size_t)w.rows * w.scale_row_bytes);
        w.scales = scales.p;
        if (w.fmt == FA_FMT_AFFINE) w.biases = biases.p;
    }
    bench_weight_fill(&w, codes.p, scales.p, biases.p, &r);
    fa_error err = {0};
    if (fa_weight_check(&w, &err)) fail_msg("%s", err.msg);
    edge x = edge_floats(s.M * (s.K + 3) - 3 + (s.rows & 1), &r);
    const float *xf = (const float *)(const void *)x.p;
    for (int add = 0; add < 2; add++) run_shape(k, &w, &s, &(input){.f32 = xf}, add);
    if (w.fmt == FA_FMT_BF16 && k->linear_bf16 && s.M > 4) check_bf16(k, &w, &s, xf);
    if (s.K % 32 == 0 && fa_qfmts[w.fmt].ugroup) {
        act_mem a = act_new(s.M, s.K, s.M & 1);
        quantize(k, xf, s.K + 3, &a.a);
        for (int add = 0; add < 2; add++) run_shape(k, &w, &s, &(input){.q8 = &a.a}, add);
        if (k->turn_of && (a.a.turn = k->turn_of(&w, s.M))) check_turned(k, &w, &s, &a.a);
        act_free(&a);
    }
    edge_free(&x);
    edge_free(&codes);
    if (w.scale_row_bytes) {
        edge_free(&scales);
        edge_free(&biases);
    }
}

/* ---- tests ---- */

static const shape shapes[] = {{1, 0, 1, 32},    {3, 0, 2, 96},    {17, 0, 3, 640},  {33, 16, 4, 32},  {17, 1, 5, 2048},
                               {49, 0, 6, 96},   {33, 0, 7, 640},  {130, 48, 9, 96}, {48, 0, 31, 640}, {20, 0, 65, 32},
                               {5, 2, 135, 544}, {64, 0, 8, 2048}, {16, 0, 1, 2048}, {7, 0, 131, 2048}};

/* K as the format allows it: a multiple of its block; float formats also get odd ones. */
static shape fit(const fa_weight *kind, shape s, size_t i) {
    int64_t block = fill_unit(kind);
    s.K = (s.K + block - 1) / block * block;
    if (block == 1 && i % 2) s.K -= (int64_t)(i % 29);
    return s;
}

/* Every count of input rows up to two tiles of any level, over small matrices. */
static void all_counts(const fa_kernels *k, const fa_weight *kind) {
    static const int64_t rows[] = {1, 2, 3, 5, 17, 16, 33, 49};
    for (int64_t M = 1; M <= 34; M++) {
        const shape s = {rows[M % 8], M % 5 == 1 ? rows[M % 8] / 2 : 0, M < 34 ? M : 97, 32 + 32 * (M % 3)};
        check_weight(k, kind, fit(kind, s, (size_t)M));
    }
}

/* A format that the table of kinds lacks would go untested. */
static void test_formats(void **state) {
    (void)state;
    for (int f = 0; f < FA_FMT_COUNT; f++) {
        bool there = false;
        for (size_t i = 0; i < bench_kind_count; i++) there |= bench_kinds[i].fmt == f;
        if (!there) fail_msg("bench_kinds lacks %s", fa_qfmts[f].name);
    }
}

static void test_linear(void **state) {
    fa_kernels k;
    if (!level((const char *)*state, &k)) skip();
    for (size_t f = 0; f < bench_kind_count; f++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            check_weight(&k, &bench_kinds[f], fit(&bench_kinds[f], shapes[i], i));
        all_counts(&k, &bench_kinds[f]);
    }
    assert_true(amx_emulated_at_rest());
}

static void check_quant_act(const fa_kernels *k, const int64_t K) {
    fa_kernels c;
    assert_int_equal(fa_kernels_init(&c, "c", NULL), 0);
    const int64_t M = 7, ldx = K + 1;
    fa_rng r = {seed, 1};
    edge x = edge_floats(M * ldx - 1, &r);
    float *xf = (float *)(void *)x.p;
    for (int64_t i = 0; i < M * ldx - 1; i++) {
        if (i / 100 % 3 == 1) xf[i] *= 1e-30f;
        if (i / 100 % 5 == 2) xf[i] = 0;
        if (i / 100 % 7 == 3) xf[i] *= 1e-39f;
        if (i / 100 % 7 == 4) xf[i] *= 1e37f;
    }
    act_mem want = act_new(M, K, 0), got = act_new(M, K, K / 32 & 1);
    memset(want.a.q, 99, (size_t)(M * K));
    memset(got.a.q, 99, (size_t)(M * K));
    c.quant_act(xf, ldx, 1, M - 1, &want.a);
    k->quant_act(xf, ldx, 1, M - 1, &got.a);
    for (int64_t i = 0; i < M * K; i++) {
        assert_int_equal(want.a.q[i], got.a.q[i]);
        assert_true(want.a.q[i] >= -127);
    }
    for (int64_t i = 0; i < M * K / 32; i++) {
        assert_memory_equal(want.a.scale + i, got.a.scale + i, 4);
        assert_memory_equal(want.a.sum32 + i, got.a.sum32 + i, 4);
    }
    for (int64_t i = 0; i < M * K / 16; i++) assert_memory_equal(want.a.sum16 + i, got.a.sum16 + i, 4);
    xf[2 * ldx - 2] = NAN; /* must not vanish */
    k->quant_act(xf, ldx, 1, 2, &got.a);
    assert_true(isnan(got.a.scale[2 * (K / 32) - 1]));
    act_free(&want);
    act_free(&got);
    edge_free(&x);
}

static void test_quant_act(void **state) {
    fa_kernels k;
    if (!level((const char *)*state, &k)) skip();
    for (int64_t K = 32; K <= 672; K += 32) check_quant_act(&k, K);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench"))
        return bench_linear(argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL, argc > 4 ? argv[4] : NULL);
    if (argc > 1) seed = strtoull(argv[1], NULL, 0);
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    printf("seed %llu\n", (unsigned long long)seed);
    enum { MOST = 16 };
    struct CMUnitTest tests[2 * MOST + 1] = {cmocka_unit_test(test_formats)};
    char names[2 * MOST + 1][32];
    size_t n = 1;
    for (size_t i = 0; n < 2 * MOST; i++) {
        const char *name = fa_kernels_level(i) ? fa_kernels_level(i) : amx_emulated;
        snprintf(names[n], 32, "quant_act %s", name);
        snprintf(names[n + 1], 32, "linear %s", name);
        tests[n] = (struct CMUnitTest){names[n], test_quant_act, NULL, NULL, (void *)(uintptr_t)name};
        tests[n + 1] = (struct CMUnitTest){names[n + 1], test_linear, NULL, NULL, (void *)(uintptr_t)name};
        n += 2;
        if (name == amx_emulated) break;
    }
    return _cmocka_run_group_tests("linear kernels", tests, n, NULL, NULL);
}
