/* Row operations: every level of this machine against double precision, over odd lengths, unaligned starts and extreme
 * values, with canaries around each output. With --bench: nanoseconds per row. */
#include "kern/levels.h"

#include "base/clock.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MAX_N = 2048, PAD = 32, SEED = 20240611 };
static const float CANARY = -1.2345e33f;

typedef struct row {
    float mem[MAX_N + 2 * PAD];
    float *at; /* inside mem, off by some floats */
    int64_t n;
} row;

static void row_begin(row *r, int64_t n, int off) {
    for (size_t i = 0; i < sizeof r->mem / sizeof r->mem[0]; i++) r->mem[i] = CANARY;
    r->at = r->mem + PAD / 2 + off;
    r->n = n;
}

static void row_check(const row *r) {
    for (const float *p = r->mem; p < r->mem + MAX_N + 2 * PAD; p++)
        if (p < r->at || p >= r->at + r->n) assert_true(*p == CANARY);
}

static int64_t length(int i) {
    static const int64_t more[] = {96, 128, 256, 640, 641, 2048};
    return i < 67 ? i + 1 : more[i - 67];
}
enum { LENGTHS = 67 + 6 };

/* Mostly ordinary values, with the extremes mixed in when asked. */
static float value(fa_rng *g, bool extreme) {
    static const float edge[] = {0.0f,    -0.0f, 1e-45f, -1e-40f, 1e-38f, 88.8f,  -88.8f, 104.0f,
                                 -104.0f, 1e4f,  -1e4f,  1e18f,   -1e18f, -3e38f, 3e38f};
    float u = fa_rng_f32(g);
    if (extreme && fa_rng_f32(g) < 0.3f) return edge[(size_t)(u * 15)];
    return (u - 0.5f) * (fa_rng_f32(g) < 0.5f ? 4.0f : 30.0f);
}

static void near(const char *what, const char *isa, float got, double want, double tol, float x) {
    if (fabs((double)got - want) <= tol) return;
    fail_msg("%s %s: x = %.9g: got %.9g, want %.9g, tolerance %.3g", what, isa, (double)x, (double)got, want, tol);
}

static double silu(double x) { return x / (1 + exp(-x)); }
static double gelu_tanh(double x) { return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x))); }
static double gelu_erf(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }
static double relu(double x) { return x > 0 ? x : 0; }

typedef void mul_fn(const float *gate, const float *up, int64_t n, float *out);

static void check_mul(const fa_kernels *k, const char *what, mul_fn *f, double (*ref)(double)) {
    static row g, u, o;
    fa_rng rng = {SEED, 0};
    for (int c = 0; c < LENGTHS; c++) {
        int64_t n = length(c);
        row_begin(&g, n, c % 7);
        row_begin(&u, n, c % 5);
        row_begin(&o, n, c % 3);
        for (int64_t i = 0; i < n; i++) {
            g.at[i] = value(&rng, c % 2);
            u.at[i] = fabsf(g.at[i]) > 1e30f ? 0.5f : value(&rng, false);
        }
        f(g.at, u.at, n, o.at);
        row_check(&o);
        /* The error of 1 + erf(x) and its like is relative to 1, not to the product. */
        for (int64_t i = 0; i < n; i++)
            near(what, k->isa, o.at[i], ref(g.at[i]) * u.at[i],
                 5e-7 * fabs((double)g.at[i] * u.at[i]) + 2e-45 * (1 + fabs((double)u.at[i])), g.at[i]);
        f(g.at, u.at, n, g.at); /* in place */
        assert_memory_equal(g.at, o.at, (size_t)n * sizeof(float));
        row_check(&g);
    }
}

static void test_activations(void **state) {
    (void)state;
    fa_kernels k;
    for (int i = 0; vec_level(i, &k); i++) {
        check_mul(&k, "silu", k.silu_mul, silu);
        check_mul(&k, "gelu_tanh", k.gelu_tanh_mul, gelu_tanh);
        check_mul(&k, "gelu_erf", k.gelu_erf_mul, gelu_erf);
        check_mul(&k, "relu", k.relu_mul, relu);
    }
}

/* silu(x) / x is a sigmoid, whose relative error shows the exponential's own over the whole range. */
static void test_exp_error(void **state) {
    (void)state;
    fa_kernels k;
    static float x[4096], one[4096], y[4096];
    for (int l = 0; vec_level(l, &k); l++) {
        double worst = 0;
        for (int b = 0; b < 64; b++) {
            for (int i = 0; i < 4096; i++) x[i] = -87.0f + (float)(b * 4096 + i) * (107.0f / (64 * 4096)), one[i] = 1;
            k.silu_mul(x, one, 4096, y);
            for (int i = 0; i < 4096; i++) {
                if (x[i] == 0) continue;
                double e = fabs((double)y[i] / silu(x[i]) - 1);
                worst = e > worst ? e : worst;
            }
        }
        print_message("%s: silu within %.2f ulp on [-87, 20]\n", k.isa, worst * 0x1p23);
        assert_true(worst < 3.5 * 0x1p-23);
    }
}

static void check_norm(const fa_kernels *k, int64_t n, int kind, fa_rng *rng) {
    static row x, w, o;
    static const float mag[] = {1, 1e-25f, 3e19f, 0};
    row_begin(&x, n, 1);
    row_begin(&w, n, 2);
    row_begin(&o, n, 3);
    double ss = 0;
    for (int64_t i = 0; i < n; i++) {
        x.at[i] = value(rng, false) * mag[kind];
        w.at[i] = value(rng, false);
        ss += (double)x.at[i] * x.at[i];
    }
    const float offset = kind == 1 ? 0 : 1, eps = kind == 1 ? 1e-37f : 1e-6f;
    for (int pass = 0; pass < 3; pass++) {
        const float *weight = pass == 1 ? NULL : w.at;
        if (pass < 2) k->rms_norm(x.at, weight, offset, eps, n, o.at);
        if (pass == 2) {
            memcpy(o.at, x.at, (size_t)n * sizeof(float));
            k->rms_norm(o.at, weight, offset, eps, n, o.at);
        }
        row_check(&o);
        for (int64_t i = 0; i < n; i++) {
            double want =
                x.at[i] / sqrt(ss / (double)n + (double)eps) * (weight ? (double)w.at[i] + (double)offset : 1);
            near("rms_norm", k->isa, o.at[i], want, 1e-6 * fabs(want) + 2e-7 * fabs(want) * (double)offset + 1e-42,
                 x.at[i]);
        }
    }
}

static void test_norm(void **state) {
    (void)state;
    fa_kernels k;
    fa_rng rng = {SEED, 1};
    for (int l = 0; vec_level(l, &k); l++)
        for (int c = 0; c < LENGTHS; c++)
            for (int kind = 0; kind < 4; kind++) check_norm(&k, length(c), kind, &rng);
}

static void check_rope(const fa_kernels *k, int64_t n, bool inter, fa_rng *rng) {
    static row x, cs, sn;
    static float old[MAX_N];
    const int64_t half = n / 2;
    row_begin(&x, n, 1);
    row_begin(&cs, half, 2);
    row_begin(&sn, half, 3);
    for (int64_t i = 0; i < n; i++) old[i] = x.at[i] = value(rng, false);
    for (int64_t i = 0; i < half; i++) {
        float a = 6.28f * fa_rng_f32(rng);
        cs.at[i] = cosf(a), sn.at[i] = sinf(a);
    }
    k->rope(x.at, cs.at, sn.at, n, inter);
    row_check(&x);
    for (int64_t i = 0; i < half; i++) {
        int64_t a = inter ? 2 * i : i, b = inter ? 2 * i + 1 : i + half;
        double c = cs.at[i], s = sn.at[i], tol = 2e-7 * (fabs((double)old[a]) + fabs((double)old[b]));
        near("rope", k->isa, x.at[a], old[a] * c - old[b] * s, tol, old[a]);
        near("rope", k->isa, x.at[b], old[b] * c + old[a] * s, tol, old[b]);
    }
}

static void test_rope(void **state) {
    (void)state;
    fa_kernels k;
    fa_rng rng = {SEED, 2};
    for (int l = 0; vec_level(l, &k); l++)
        for (int64_t n = 2; n <= 260; n += 2) check_rope(&k, n, false, &rng), check_rope(&k, n, true, &rng);
}

static void test_add(void **state) {
    (void)state;
    fa_kernels k;
    static row x, y;
    fa_rng rng = {SEED, 3};
    for (int l = 0; vec_level(l, &k); l++) {
        for (int c = 0; c < LENGTHS; c++) {
            int64_t n = length(c);
            float want[MAX_N];
            row_begin(&x, n, c % 5);
            row_begin(&y, n, c % 3);
            for (int64_t i = 0; i < n; i++) {
                x.at[i] = value(&rng, false), y.at[i] = value(&rng, false);
                want[i] = x.at[i] + y.at[i];
            }
            k.add(y.at, x.at, n);
            row_check(&y);
            assert_memory_equal(want, y.at, (size_t)n * sizeof(float));
        }
    }
}

/* Any bit pattern, often near the halfway points of the narrow types. */
static float any_float(fa_rng *rng) {
    uint32_t u = (uint32_t)fa_rng_next(rng);
    uint64_t how = fa_rng_next(rng) % 4;
    if (how == 1) u = (u & 0xFFFF0000u) | 0x8000u;
    if (how == 2) u = (u & 0x83FFFFFFu) + (112u << 23) - (13u << 23); /* around the smallest f16 */
    if (how == 3) u = (u & 0x87FFE000u) | 0x38001000u;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static bool same_half(fa_dtype t, uint16_t a, uint16_t b) {
    uint16_t top = t == FA_F16 ? 0x7C00 : 0x7F80;
    bool nan_a = (a & 0x7FFF) > top, nan_b = (b & 0x7FFF) > top;
    return a == b || (nan_a && nan_b);
}

static void test_convert(void **state) {
    (void)state;
    fa_kernels k;
    static float x[MAX_N + 1];
    static uint8_t out[4 * MAX_N + 64];
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
    fa_rng rng = {SEED, 4};
    for (int l = 0; vec_level(l, &k); l++) {
        for (int c = 0; c < LENGTHS * 3 * 20; c++) {
            fa_dtype t = types[c % 3];
            int64_t n = length(c / 3 % LENGTHS);
            size_t size = t == FA_F32 ? 4 : 2, off = (size_t)(c % 5);
            memset(out, 0xA5, sizeof out);
            for (int64_t i = 0; i < n; i++) x[i + 1] = any_float(&rng);
            k.convert(x + 1, t, n, out + 16 + off);
            for (size_t i = 0; i < sizeof out; i++)
                if (i < 16 + off || i >= 16 + off + size * (size_t)n) assert_int_equal(out[i], 0xA5);
            if (t == FA_F32) assert_memory_equal(x + 1, out + 16 + off, 4 * (size_t)n);
            for (int64_t i = 0; i < n && t != FA_F32; i++) {
                uint16_t got, want = t == FA_F16 ? fa_f32_to_f16(x[i + 1]) : fa_f32_to_bf16(x[i + 1]);
                memcpy(&got, out + 16 + off + 2 * i, 2);
                if (!same_half(t, got, want))
                    fail_msg("convert %s: %a to %04x, want %04x", k.isa, (double)x[i + 1], got, want);
            }
        }
    }
}

/* Best of many short runs, as the machine may be busy. */
/* ---- what samplers use ---- */

/* Logits with absent ones among them. */
static void logits(fa_rng *g, row *x, int64_t n, int off, bool extreme) {
    static const float odd[] = {-INFINITY, NAN, -3e38f, -104.0f, 40.0f, 0.0f};
    row_begin(x, n, off);
    for (int64_t i = 0; i < n; i++) {
        float u = fa_rng_f32(g);
        x->at[i] = extreme && u < 0.3f ? odd[(size_t)(u * 20)] : 60 * u - 20;
    }
}

static void check_exp_sum(const fa_kernels *k, const row *x, float scale) {
    static row o;
    float base = -INFINITY;
    double want = 0;
    for (int64_t i = 0; i < x->n; i++)
        if (x->at[i] > base) base = x->at[i];
    if (base == -INFINITY) base = 0;
    row_begin(&o, x->n, 3);
    double sum = k->exp_sum(x->at, x->n, base, scale, o.at);
    row_check(&o);
    for (int64_t i = 0; i < x->n; i++) {
        float arg = (x->at[i] - base) * scale;
        double e = x->at[i] > -INFINITY ? exp((double)arg) : 0;
        near("exp_sum", k->isa, o.at[i], e, 3e-7 * e + 2e-45, x->at[i]);
        want += e;
    }
    assert_true(fabs(sum - want) <= 2e-6 * want);
    assert_true(k->exp_sum(x->at, x->n, base, scale, NULL) == sum);
}

static void check_block_max(const fa_kernels *k, const row *x) {
    static row o;
    int64_t n = (x->n + 63) / 64;
    row_begin(&o, n, 1);
    k->block_max(x->at, x->n, o.at);
    row_check(&o);
    for (int64_t b = 0; b < n; b++) {
        float want = -INFINITY;
        for (int64_t i = 64 * b; i < x->n && i < 64 * b + 64; i++)
            if (x->at[i] > want) want = x->at[i];
        assert_true(o.at[b] == want);
    }
}

static void check_sums(const fa_kernels *k, const row *x, float scale) {
    double dot, s1, s2, d1 = 0, d2 = 0, z = 0, zd = 0, size = 0;
    int64_t live, count = 0;
    float base = -INFINITY, least = INFINITY, lo, hi;
    for (int64_t i = 0; i < x->n; i++) {
        if (x->at[i] > base) base = x->at[i];
        if (x->at[i] > -INFINITY && x->at[i] < least) least = x->at[i];
    }
    k->range(x->at, x->n, &lo, &hi);
    assert_true(lo == least && hi == base);
    if (base == -INFINITY) base = 0;
    for (int64_t i = 0; i < x->n; i++) {
        if (!(x->at[i] > -INFINITY)) continue;
        const float d = x->at[i] - base, e = expf(d * scale);
        z += (double)e, zd += e > 0 ? (double)(e * d) : 0, size += fabs((double)d);
        d1 += (double)d, d2 += (double)(d * d), count++;
    }
    double sum = k->exp_mean(x->at, x->n, base, scale, &dot, &live);
    assert_int_equal(live, count);
    assert_true(fabs(sum - z) <= 2e-6 * z && fabs(dot - zd) <= 4e-6 * (fabs(zd) + z));
    assert_int_equal(k->moments(x->at, x->n, base, &s1, &s2), count);
    assert_true(isinf(d2) || fabs(s1 - d1) <= 2e-6 * size);
    assert_true(d2 == s2 || fabs(s2 - d2) <= 2e-6 * d2);
}

/* Thresholds that elements meet exactly, and beyond all of them. */
static void check_masses(const fa_kernels *k, const row *x, fa_rng *g) {
    static row key, w;
    float t[FA_MASSES];
    double got[FA_MASSES];
    row_begin(&key, x->n, 1);
    row_begin(&w, x->n, 5);
    for (int64_t i = 0; i < x->n; i++) key.at[i] = isnan(x->at[i]) ? 7 : x->at[i], w.at[i] = fa_rng_f32(g);
    for (int j = 0; j < FA_MASSES; j++)
        t[j] = j == 0 || x->n == 0 ? -INFINITY : j == 1 ? INFINITY : key.at[(int64_t)(fa_rng_f32(g) * (float)x->n)];
    for (int use = 0; use < 2; use++) {
        k->masses(key.at, use ? w.at : NULL, x->n, t, got);
        for (int j = 0; j < FA_MASSES; j++) {
            double want = 0;
            for (int64_t i = 0; i < x->n; i++) want += key.at[i] >= t[j] ? (use ? (double)w.at[i] : 1) : 0;
            assert_true(use ? fabs(got[j] - want) <= 2e-6 * want : got[j] == want);
        }
    }
}

static void check_between(const fa_kernels *k, const row *x, float div, float lo, float hi) {
    static row out, ids;
    static int32_t id[MAX_N];
    static float want[MAX_N];
    int64_t m = 0;
    for (int64_t i = 0; i < x->n; i++) {
        const float v = x->at[i] / div;
        if (v >= lo && v <= hi && v > -INFINITY) want[m] = v, id[m++] = 1000 + (int32_t)i;
    }
    for (int in_place = 0; in_place < 2; in_place++) {
        row_begin(&out, x->n, 2);
        row_begin(&ids, x->n, 3);
        if (in_place && x->n) memcpy(out.at, x->at, (size_t)x->n * sizeof *x->at);
        assert_int_equal(
            k->between(in_place ? out.at : x->at, x->n, div, lo, hi, 1000, out.at, (int32_t *)(void *)ids.at), m);
        row_check(&out);
        row_check(&ids);
        assert_memory_equal(out.at, want, (size_t)m * sizeof *want);
        assert_memory_equal(ids.at, id, (size_t)m * sizeof *id);
    }
}

static void check_lists(const fa_kernels *k, const row *x, fa_rng *g) {
    check_masses(k, x, g);
    float v = x->n ? x->at[x->n / 2] : 0;
    check_between(k, x, 1, -INFINITY, INFINITY);
    check_between(k, x, 1, v, v);
    check_between(k, x, 1, v, INFINITY);
    check_between(k, x, 0.7f, -3, 25);
    check_between(k, x, 1e-3f, -INFINITY, v / 1e-3f);
}

static void test_sampling(void **state) {
    (void)state;
    fa_kernels k;
    static row x;
    for (int l = 0; vec_level(l, &k); l++) {
        fa_rng g = {SEED + 5, 0};
        for (int c = 0; c < 2 * LENGTHS; c++) {
            logits(&g, &x, length(c / 2), c % 7, c % 2);
            check_exp_sum(&k, &x, c % 3 ? 1 : 1.25f);
            check_block_max(&k, &x);
            check_sums(&k, &x, c % 3 ? 1 : 1.25f);
            check_lists(&k, &x, &g);
        }
        row_begin(&x, 130, 0);
        for (int i = 0; i < 130; i++) x.at[i] = i % 2 ? NAN : -INFINITY;
        check_exp_sum(&k, &x, 1);
        check_block_max(&k, &x);
        check_sums(&k, &x, 1);
        check_lists(&k, &x, &g);
    }
}

static double bench_mul(mul_fn *f, const float *x, const float *w, int64_t n, float *y) {
    double best = 1;
    for (int r = 0; r < 300; r++) {
        double t0 = fa_now();
        for (int i = 0; i < 50; i++) f(x, w, n, y);
        double dt = (fa_now() - t0) / 50;
        best = dt < best ? dt : best;
    }
    return best * 1e9;
}

static void bench_level(const fa_kernels *k, int64_t n) {
    static float x[MAX_N], w[MAX_N], y[MAX_N];
    double norm = 1, conv = 1;
    for (int i = 0; i < MAX_N; i++) x[i] = (float)(i % 13) - 6, w[i] = 1;
    for (int r = 0; r < 300; r++) {
        double t0 = fa_now();
        for (int i = 0; i < 50; i++) k->rms_norm(x, w, 0, 1e-6f, n, y);
        double t1 = fa_now();
        for (int i = 0; i < 50; i++) k->convert(x, FA_BF16, n, y);
        double t2 = fa_now();
        norm = fmin(norm, (t1 - t0) / 50), conv = fmin(conv, (t2 - t1) / 50);
    }
    printf(
        "%-8s n %5d: rms_norm %7.1f ns  silu_mul %7.1f  gelu_tanh_mul %7.1f  gelu_erf_mul %7.1f  convert bf16 %7.1f\n",
        k->isa, (int)n, norm * 1e9, bench_mul(k->silu_mul, x, w, n, y), bench_mul(k->gelu_tanh_mul, x, w, n, y),
        bench_mul(k->gelu_erf_mul, x, w, n, y), conv * 1e9);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench")) {
        fa_kernels k;
        for (int i = 0; vec_level(i, &k); i++) bench_level(&k, 640), bench_level(&k, 2048);
        return 0;
    }
    print_message("seed %d\n", SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_activations), cmocka_unit_test(test_exp_error),
                                       cmocka_unit_test(test_norm),        cmocka_unit_test(test_rope),
                                       cmocka_unit_test(test_add),         cmocka_unit_test(test_convert),
                                       cmocka_unit_test(test_sampling)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
