/* Paged attention: every level of this machine against a naive double-precision softmax, over shapes, types, windows,
 * caps, sinks and splits. Tokens outside every row's range hold NaN and pages wholly outside are NULL, so that touching
 * them shows. With --bench: GB/s of decode and GFLOP/s of prompt tiles. */
#include "kern/levels.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PAGE = 64, SEED = 20240612, MAX_PAGES = 64 };

typedef struct problem {
    fa_attend_args a;
    int32_t len;
    float *q, *k, *v; /* [n_q][q_stride]; [len, head_dim] as the kernel sees them */
    double *want;     /* [n_q * n_group, head_dim] */
    uint8_t *mem[2 * MAX_PAGES];
    const void *kp[MAX_PAGES], *vp[MAX_PAGES];
    int32_t lo[64], hi[64];
    float sink[16];
} problem;

static float normal(fa_rng *g) { return fa_rng_f32(g) + fa_rng_f32(g) + fa_rng_f32(g) + fa_rng_f32(g) - 2.0f; }

static void put(fa_dtype t, uint8_t *p, int64_t i, float x) {
    uint16_t h = t == FA_F16 ? fa_f32_to_f16(x) : fa_f32_to_bf16(x);
    if (t == FA_F32) {
        memcpy(p + 4 * i, &x, 4);
    } else {
        memcpy(p + 2 * i, &h, 2);
    }
}

static float get(fa_dtype t, const uint8_t *p, int64_t i) {
    float x;
    uint16_t h;
    if (t == FA_F32) {
        memcpy(&x, p + 4 * i, 4);
        return x;
    }
    memcpy(&h, p + 2 * i, 2);
    return t == FA_F16 ? fa_f16_to_f32(h) : fa_bf16_to_f32(h);
}

/* Row i of a page: what was drawn, as the kernel sees it to `seen`. */
static void put_row(fa_dtype t, uint8_t *page, int64_t i, int d, const float *x, float *seen) {
    int8_t codes[512];
    uint16_t scale[16];
    const size_t scales = 2 * (size_t)fa_kvq_groups(d);
    if (t != FA_I8) {
        for (int c = 0; c < d; c++) put(t, page, i * d + c, x[c]), seen[c] = get(t, page, i * d + c);
        return;
    }
    fa_kvq_row(x, d, codes, scale);
    memcpy(page + i * d, codes, (size_t)d);
    memcpy(page + PAGE * d + (size_t)i * scales, scale, scales);
    for (int c = 0; c < d; c++) seen[c] = (float)codes[c] * fa_f16_to_f32(scale[c / FA_KVQ_GROUP]);
}

static bool anyone_sees(const problem *p, int32_t pos) {
    for (int i = 0; i < p->a.n_q; i++)
        if (pos >= p->lo[i] && pos < p->hi[i]) return true;
    return false;
}

/* One plane of pages; odd byte offsets so that nothing is aligned. */
static void fill_pages(problem *p, int plane, float *values, const void **pages, fa_rng *g) {
    const int d = p->a.head_dim;
    const fa_dtype t = p->a.kv_dtype;
    for (int32_t b = 0; b * PAGE < p->len; b++) {
        bool used = false;
        for (int32_t i = b * PAGE; i < (b + 1) * PAGE; i++) used |= anyone_sees(p, i);
        pages[b] = NULL;
        if (!used) continue;
        const size_t bytes = PAGE * (size_t)fa_kv_row_bytes(t, d);
        uint8_t *m = malloc(bytes + 1); /* exact end: a sanitizer sees an overrun */
        p->mem[plane * MAX_PAGES + b] = m;
        pages[b] = m + 1;
        for (int32_t i = 0; i < PAGE; i++) {
            const bool seen = anyone_sees(p, b * PAGE + i);
            float x[512], back[512];
            for (int c = 0; c < d; c++) x[c] = seen ? normal(g) : NAN;
            put_row(t, m + 1, i, d, x, back);
            if (b * PAGE + i < p->len) memcpy(values + ((int64_t)b * PAGE + i) * d, back, sizeof *back * (size_t)d);
        }
    }
}

static void reference(problem *p) {
    const fa_attend_args *a = &p->a;
    const int d = a->head_dim;
    double *s = malloc(sizeof *s * (size_t)p->len);
    for (int r = 0; r < a->n_q * a->n_group; r++) {
        const int i = r / a->n_group, j = r % a->n_group;
        double m = a->sink ? a->sink[j] : -INFINITY, l = 0, *o = p->want + (ptrdiff_t)r * d;
        for (int32_t t = p->lo[i]; t < p->hi[i]; t++) {
            s[t] = 0;
            for (int c = 0; c < d; c++) s[t] += (double)a->q[i * a->q_stride + j * d + c] * p->k[(int64_t)t * d + c];
            s[t] *= a->scale;
            if (a->softcap > 0) s[t] = a->softcap * tanh(s[t] / a->softcap);
            m = s[t] > m ? s[t] : m;
        }
        if (a->sink) l = exp(a->sink[j] - m);
        for (int c = 0; c < d; c++) o[c] = 0;
        for (int32_t t = p->lo[i]; t < p->hi[i]; t++) {
            double w = exp(s[t] - m);
            l += w;
            for (int c = 0; c < d; c++) o[c] += w * p->v[(int64_t)t * d + c];
        }
        for (int c = 0; c < d; c++) o[c] /= l;
    }
    free(s);
}

/* kind of rows: 0 causal, 1 causal with a sliding window, 2 all see everything, 3 unrelated ranges. */
static void set_rows(problem *p, int kind, fa_rng *g) {
    for (int i = 0; i < p->a.n_q; i++) {
        p->lo[i] = 0;
        p->hi[i] = p->len;
        if (kind == 0 || kind == 1) p->hi[i] = p->len - p->a.n_q + 1 + i;
        if (p->hi[i] < 1) p->hi[i] = 1;
        if (kind == 1) p->lo[i] = p->hi[i] > 37 ? p->hi[i] - 37 : 0;
        if (kind == 3) {
            p->lo[i] = (int32_t)(fa_rng_next(g) % (uint64_t)p->len);
            p->hi[i] = p->lo[i] + 1 + (int32_t)(fa_rng_next(g) % (uint64_t)(p->len - p->lo[i]));
        }
    }
}

static void begin(problem *p, int n_q, int n_group, int d, fa_dtype t, int32_t len, int kind, bool cap, bool sink,
                  fa_rng *g) {
    memset(p, 0, sizeof *p);
    p->len = len;
    p->a = (fa_attend_args){.q_stride = (int64_t)n_group * d + 3,
                            .out_stride = (int64_t)n_group * d + 5,
                            .n_q = n_q,
                            .n_group = n_group,
                            .head_dim = d,
                            .k_page = p->kp,
                            .v_page = p->vp,
                            .kv_dtype = t,
                            .kv_lo = p->lo,
                            .kv_hi = p->hi,
                            .pos1 = len,
                            .scale = 1.5f / sqrtf((float)d),
                            .softcap = cap ? 5.0f : 0,
                            .sink = sink ? p->sink : NULL};
    set_rows(p, kind, g);
    p->q = malloc(sizeof(float) * (size_t)p->a.q_stride * (size_t)n_q);
    for (int64_t i = 0; i < p->a.q_stride * n_q; i++) p->q[i] = normal(g);
    p->a.q = p->q;
    for (int j = 0; j < 16; j++) p->sink[j] = normal(g);
    p->k = malloc(sizeof(float) * (size_t)len * (size_t)d);
    p->v = malloc(sizeof(float) * (size_t)len * (size_t)d);
    p->want = malloc(sizeof(double) * (size_t)n_q * (size_t)n_group * (size_t)d);
    fill_pages(p, 0, p->k, p->kp, g);
    fill_pages(p, 1, p->v, p->vp, g);
    reference(p);
}

static void end(problem *p) {
    for (int i = 0; i < 2 * MAX_PAGES; i++) free(p->mem[i]);
    free(p->q), free(p->k), free(p->v), free(p->want);
}

static void compare(const problem *p, const fa_kernels *k, const float *out, const char *how) {
    const fa_attend_args *a = &p->a;
    const int d = a->head_dim;
    for (int i = 0; i < a->n_q; i++) {
        for (int64_t c = 0; c < a->out_stride; c++) {
            const float got = out[i * a->out_stride + c];
            if (c >= (int64_t)a->n_group * d) {
                if (i < a->n_q - 1) assert_true(got == 7e30f);
                continue;
            }
            const double want = p->want[(int64_t)i * a->n_group * d + c];
            if (fabs(got - want) <= 4e-6) continue;
            fail_msg(
                "attend %s %s: n_q %d n_group %d head_dim %d %s len %d row %d col %d [%d, %d): got %.9g, want %.9g",
                k->isa, how, a->n_q, a->n_group, d, fa_kv_type_name(a->kv_dtype), p->len, i, (int)c, p->lo[i], p->hi[i],
                (double)got, want);
        }
    }
}

static void *scratch_for(const fa_kernels *k, const fa_attend_args *a, size_t *bytes) {
    *bytes = k->attend_scratch(a->n_q, a->n_group, a->head_dim);
    uint8_t *s = fa_aligned_calloc(64, *bytes + 64);
    memset(s, 0xFF, *bytes); /* NaN */
    memset(s + *bytes, 0xA5, 64);
    return s;
}

static void check_whole(problem *p, const fa_kernels *k) {
    size_t bytes, n = (size_t)(p->a.out_stride * (p->a.n_q - 1)) + (size_t)p->a.n_group * (size_t)p->a.head_dim;
    uint8_t *s = scratch_for(k, &p->a, &bytes);
    float *out = malloc(sizeof(float) * (size_t)p->a.out_stride * (size_t)p->a.n_q);
    for (size_t i = 0; i < (size_t)p->a.out_stride * (size_t)p->a.n_q; i++) out[i] = 7e30f;
    p->a.out = out;
    k->attend(&p->a, s);
    compare(p, k, out, "whole");
    for (size_t i = n; i < (size_t)p->a.out_stride * (size_t)p->a.n_q; i++) assert_true(out[i] == 7e30f);
    for (int i = 0; i < 64; i++) assert_int_equal(s[bytes + (size_t)i], 0xA5);
    free(out);
    fa_free(s);
}

/* Every split sees its own pages only; the merge must equal the whole. */
static void check_split(problem *p, const fa_kernels *k, int n_split) {
    fa_attend_args a = p->a;
    const int64_t rows = (int64_t)a.n_q * a.n_group, each = rows * (a.head_dim + 2);
    const int32_t pages = (p->len + PAGE - 1) / PAGE;
    size_t bytes;
    uint8_t *s = scratch_for(k, &a, &bytes);
    float *mem = malloc(sizeof(float) * (size_t)(each * n_split + 1));
    const float *part[8];
    for (int i = 0; i < n_split; i++) {
        a.partial = mem + each * i;
        a.partial[each] = 3e31f;
        a.pos0 = pages * i / n_split * PAGE;
        a.pos1 = i == n_split - 1 ? p->len : pages * (i + 1) / n_split * PAGE;
        part[i] = a.partial;
        k->attend(&a, s);
        assert_true(a.partial[each] == 3e31f);
    }
    float *out = malloc(sizeof(float) * (size_t)a.out_stride * (size_t)a.n_q);
    for (int64_t i = 0; i < a.out_stride * a.n_q; i++) out[i] = 7e30f;
    k->attend_combine(part, n_split, rows, a.n_group, a.head_dim, a.sink, out, a.out_stride);
    compare(p, k, out, "split");
    free(out);
    free(mem);
    fa_free(s);
}

static void check(int n_q, int n_group, int d, fa_dtype t, int32_t len, int kind, bool cap, bool sink, fa_rng *g) {
    static problem p;
    fa_kernels k;
    begin(&p, n_q, n_group, d, t, len, kind, cap, sink, g);
    for (int l = 0; vec_level(l, &k); l++) {
        check_whole(&p, &k);
        check_split(&p, &k, 1 + (n_q + len) % 4);
    }
    end(&p);
}

static void test_shapes(void **state) {
    (void)state;
    static const int dims[] = {32, 64, 80, 96, 128, 256, 512, 33, 72, 100, 47};
    static const int groups[] = {1, 2, 3, 4, 8, 7, 16};
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16, FA_I8};
    fa_rng g = {SEED, 0};
    for (int c = 0; c < 700; c++) {
        const int n_q = c % 3 == 0 ? 1 : 1 + (int)(fa_rng_next(&g) % 40);
        const int d = dims[fa_rng_next(&g) % (c % 4 ? 6 : 11)], n_group = groups[fa_rng_next(&g) % (d > 200 ? 4 : 7)];
        const int32_t len = 1 + (int32_t)(fa_rng_next(&g) % (c % 5 ? 300 : 70));
        const uint64_t flags = fa_rng_next(&g);
        check(n_q, n_group, d, types[c % 4], len, (int)(fa_rng_next(&g) % 4), flags % 3 == 0, flags / 3 % 3 == 0, &g);
    }
}

static void test_every_length(void **state) {
    (void)state;
    fa_rng g = {SEED, 1};
    for (int32_t len = 1; len <= 200; len++)
        check(1, 1 + len % 4, 64, len % 2 ? FA_BF16 : FA_F32, len, 0, false, len % 5 == 0, &g);
    for (int n_q = 1; n_q <= 40; n_q++) check(n_q, 2, 64, FA_BF16, n_q + n_q * 3 % 100, 0, false, false, &g);
}

/* Scores so large that only the running maximum keeps them finite, and so low that all weights but one vanish. */
static void test_extremes(void **state) {
    (void)state;
    static problem p;
    fa_kernels k;
    fa_rng g = {SEED, 2};
    for (int c = 0; c < 4; c++) {
        begin(&p, c % 2 ? 20 : 1, 2, 64, FA_F32, 150, 0, false, c > 1, &g);
        p.a.scale = c % 2 ? -300.0f : 300.0f;
        if (c > 1) p.sink[0] = -1e30f, p.sink[1] = -INFINITY;
        reference(&p);
        for (int l = 0; vec_level(l, &k); l++) {
            size_t bytes;
            void *s = scratch_for(&k, &p.a, &bytes);
            float *out = calloc((size_t)p.a.out_stride * (size_t)p.a.n_q, sizeof(float));
            p.a.out = out;
            k.attend(&p.a, s);
            for (int r = 0; r < p.a.n_q * 2; r++)
                for (int i = 0; i < 64; i++)
                    assert_true(fabs(out[r / 2 * p.a.out_stride + r % 2 * 64 + i] - p.want[r * 64 + i]) < 2e-3);
            free(out);
            fa_free(s);
        }
        end(&p);
    }
}

/* A split whose range none of the rows reaches touches no page and reports nothing. */
static void test_nothing_visited(void **state) {
    (void)state;
    fa_kernels k;
    const void *pages[4] = {NULL, NULL, NULL, NULL};
    const int32_t lo = 10, hi = 60;
    const float q[64] = {1}, sink = 0.5f;
    float part[66], out[64];
    fa_attend_args a = {.q = q,
                        .q_stride = 64,
                        .n_q = 1,
                        .n_group = 1,
                        .head_dim = 64,
                        .k_page = pages,
                        .v_page = pages,
                        .kv_dtype = FA_BF16,
                        .kv_lo = &lo,
                        .kv_hi = &hi,
                        .pos0 = 64,
                        .pos1 = 256,
                        .scale = 1,
                        .partial = part,
                        .out = out};
    for (int l = 0; vec_level(l, &k); l++) {
        size_t bytes;
        void *s = scratch_for(&k, &a, &bytes);
        k.attend(&a, s);
        assert_true(part[0] == -INFINITY && part[1] == 0);
        const float *one = part;
        for (int with = 0; with < 2; with++) {
            memset(out, 0xFF, sizeof out);
            k.attend_combine(&one, 1, 1, 1, 64, with ? &sink : NULL, out, 64);
            for (int i = 0; i < 64; i++) assert_true(out[i] == 0);
        }
        fa_free(s);
    }
}

/* One kv head; several heads' worth of pages in turn, so that decode reads memory and not the cache of the last round.
 */
static void bench_one(const fa_kernels *k, int n_q, int n_group, int d, fa_dtype t, int32_t len, int heads) {
    const size_t bytes = PAGE * (size_t)fa_kv_row_bytes(t, d);
    const int32_t pages = len / PAGE;
    uint8_t *mem = fa_aligned_calloc(64, bytes * 2 * (size_t)(pages * heads));
    const void **kp = fa_calloc((size_t)(2 * pages * heads), sizeof *kp);
    for (int32_t i = 0; i < 2 * pages * heads; i++) {
        float x[512], seen[512];
        for (int r = 0; r < PAGE; r++) {
            for (int c = 0; c < d; c++) x[c] = (float)((i + r * d + c) % 7) * 0.1f;
            put_row(t, mem + bytes * (size_t)i, r, d, x, seen);
        }
        kp[i] = mem + bytes * (size_t)i;
    }
    int32_t lo[64] = {0}, hi[64];
    for (int i = 0; i < n_q; i++) hi[i] = len - n_q + 1 + i;
    float *q = fa_calloc((size_t)(2 * n_q * n_group * d), sizeof(float)), *out = q + (ptrdiff_t)n_q * n_group * d;
    for (int i = 0; i < n_q * n_group * d; i++) q[i] = (float)(i % 5) * 0.1f;
    size_t sb;
    void *s = scratch_for(k, &(fa_attend_args){.n_q = n_q, .n_group = n_group, .head_dim = d}, &sb);
    double best = 1e9, start = fa_now();
    for (int r = 0; r < 50 && (r < 3 || fa_now() - start < 0.4); r++) {
        double t0 = fa_now();
        for (int h = 0; h < heads; h++) {
            fa_attend_args a = {.q = q,
                                .q_stride = (int64_t)n_group * d,
                                .out = out,
                                .out_stride = (int64_t)n_group * d,
                                .n_q = n_q,
                                .n_group = n_group,
                                .head_dim = d,
                                .k_page = kp + (ptrdiff_t)2 * h * pages,
                                .v_page = kp + (ptrdiff_t)(2 * h + 1) * pages,
                                .kv_dtype = t,
                                .kv_lo = lo,
                                .kv_hi = hi,
                                .pos1 = len,
                                .scale = 0.1f};
            k->attend(&a, s);
        }
        double dt = (fa_now() - t0) / heads;
        best = dt < best ? dt : best;
    }
    double visible = 0;
    for (int i = 0; i < n_q; i++) visible += hi[i];
    printf("%-8s n_q %2d group %2d dim %3d %-4s len %4d: %9.1f us  %6.2f GB/s  %7.1f GFLOP/s\n", k->isa, n_q, n_group,
           d, fa_kv_type_name(t), len, best * 1e6, 2.0 * (double)bytes * pages / best * 1e-9,
           4.0 * visible * n_group * d / best * 1e-9);
    fa_free(s), fa_free(q), fa_free(kp), fa_free(mem);
}

/* part: 'l' decode out of the second-level cache, 'd' decode out of memory, 'p' prompt tiles */
static void bench(char part) {
    static const int dims[] = {64, 128, 256};
    fa_kernels k;
    for (int l = 1; vec_level(l, &k); l++) {
        for (int g = 1; g <= 16 && part == 'l'; g *= 2) bench_one(&k, 1, g, 128, FA_BF16, 1024, 1);
        for (int i = 0; i < 3; i++) {
            for (int g = 1; g <= 8 && part == 'd'; g *= 2) bench_one(&k, 1, g, dims[i], FA_BF16, 4096, 32);
            for (int g = 1; g <= 4 && part == 'p'; g *= 4) {
                bench_one(&k, 32, g, dims[i], FA_BF16, 512, 2);
                bench_one(&k, 32, g, dims[i], FA_BF16, 2048, 2);
            }
        }
        for (int i = 0; i < 2 && part == 'l'; i++) bench_one(&k, 1, 4, 128, i ? FA_F16 : FA_F32, 1024, 1);
        for (int i = 0; i < 2 && part == 'd'; i++) bench_one(&k, 1, 4, 128, i ? FA_F16 : FA_F32, 4096, 32);
        for (int g = 1; g <= 8 && part == 'd'; g *= 2) bench_one(&k, 1, g, 128, FA_I8, 4096, 32);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench")) {
        for (const char *part = argc > 2 ? argv[2] : "ldp"; *part; part++) bench(*part);
        return 0;
    }
    print_message("seed %d\n", SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_every_length),
                                       cmocka_unit_test(test_extremes), cmocka_unit_test(test_nothing_visited)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
