/* Recurrent layers on the CPU against the equations of backend/program.h in double precision, on every instruction set
 * of this machine: sequences of different lengths in one batch, beginnings and continuations, states in place and
 * moved, states kept in the middle of a piece; and the pieces against single rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "ops/internal.h"

enum { N_SEQ = 4, N_STATE = 8, MAX_ROWS = 180, KEEP_ROW = 61 /* of the batch, in sequence 2 */, KEEP_STATE = 6 };

/* Rows of each sequence, where it begins, where it ends. */
static const int rows_of[N_SEQ] = {1, 37, 75, 2};
static const int32_t state_in[N_SEQ] = {0, -1, 2, 3}, state_out[N_SEQ] = {0, 1, 5, 3};

typedef struct fixture {
    fa_arena arena;
    fa_backend *be;
    fa_program prog;
    fa_batch batch;
    fa_cx cx;
    int32_t row_start[N_SEQ + 1], in[N_SEQ], out[N_SEQ], keep[MAX_ROWS];
} fixture;

static bool begin(fixture *f, const char *isa) {
    fa_error err;
    memset(f, 0, sizeof *f);
    if (fa_backend_cpu_create(&f->be, 2, isa, true, &err)) return false; /* the machine lacks it */
    assert_int_equal(fa_arena_create(&f->arena, (size_t)1 << 30, NULL, &err), 0);
    for (int i = 0; i < N_SEQ; i++) f->row_start[i + 1] = f->row_start[i] + rows_of[i];
    memcpy(f->in, state_in, sizeof state_in);
    memcpy(f->out, state_out, sizeof state_out);
    for (int i = 0; i < MAX_ROWS; i++) f->keep[i] = i == KEEP_ROW ? KEEP_STATE : -1;
    f->batch = (fa_batch){.n_tok = f->row_start[N_SEQ],
                          .n_seq = N_SEQ,
                          .row_start = f->row_start,
                          .state_in = f->in,
                          .state_out = f->out,
                          .keep = f->keep};
    f->cx = (fa_cx){.be = f->be, .arena = &f->arena, .prog = &f->prog, .batch = &f->batch, .layer = -1};
    return true;
}

static void run(fixture *f) {
    fa_error err;
    if (f->cx.err.code) fail_msg("%s", f->cx.err.msg);
    assert_int_equal(f->be->run(f->be, &f->prog, &f->batch, NULL, &err), 0);
}

static void end(fixture *f) {
    fa_free(f->prog.rec);
    f->be->free(f->be);
    fa_arena_destroy(&f->arena);
}

static float value(uint64_t seed, int64_t i) { return (float)(fa_rng_at(seed, (uint64_t)i) >> 40) * 0x1p-23f - 1; }

static float *floats(uint64_t seed, int64_t n, float scale, float shift) {
    float *p = (float *)fa_calloc((size_t)n, sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = shift + scale * value(seed, i);
    return p;
}

static fa_tensor tensor(fixture *f, uint64_t seed, int64_t cols, float scale) {
    fa_tensor t = fa_cx_tensor(&f->cx, FA_OP_NOP, f->batch.n_tok, cols);
    for (int64_t i = 0; i < f->batch.n_tok * cols; i++) fa_f32(t)[i] = scale * value(seed, i);
    return t;
}

static double softplus(double x) { return x > 30 ? x : log1p(exp(x)); }

/* A layer's cells: what a step of sequence s, row i does to them in double, and the row's results. */
typedef void step_fn(const void *user, int64_t row, double *cells, double *y);

static void near(const char *isa, const char *what, int64_t i, double got, double want) {
    if (fabs(got - want) <= 2e-5 * (1 + fabs(want))) return;
    fail_msg("%s: %s %lld: %.9g, expected %.9g", isa, what, (long long)i, got, want);
}

/* Runs the equations over the batch and compares outputs [n_tok, n_out] and states [n_cell]. */
static void compare(const fixture *f, const char *isa, step_fn *step, const void *user, const float *before,
                    const float *after, int64_t n_cell, const float *out, int64_t n_out) {
    double *cells = (double *)fa_calloc((size_t)n_cell, sizeof *cells),
           *y = (double *)fa_calloc((size_t)n_out, sizeof *y);
    for (int s = 0; s < N_SEQ; s++) {
        for (int64_t c = 0; c < n_cell; c++) cells[c] = state_in[s] < 0 ? 0 : (double)before[state_in[s] * n_cell + c];
        for (int64_t i = f->row_start[s]; i < f->row_start[s + 1]; i++) {
            step(user, i, cells, y);
            for (int64_t j = 0; j < n_out; j++) near(isa, "output", i * n_out + j, (double)out[i * n_out + j], y[j]);
            for (int64_t c = 0; i == KEEP_ROW && c < n_cell; c++)
                near(isa, "kept state", c, (double)after[KEEP_STATE * n_cell + c], cells[c]);
        }
        for (int64_t c = 0; c < n_cell; c++) near(isa, "state", c, (double)after[state_out[s] * n_cell + c], cells[c]);
    }
    for (int64_t c = 0; c < n_cell; c++) { /* nobody's */
        assert_true(after[2 * n_cell + c] == before[2 * n_cell + c]);
        assert_true(after[7 * n_cell + c] == before[7 * n_cell + c]);
    }
    fa_free(cells);
    fa_free(y);
}

static const char *const isas[] = {"c", "avx2", "avx512", "avx512vnni", "neon", "neondot", "neoni8mm"};
#define EACH_ISA(isa, f)                                                                                               \
    for (size_t isa##_i = 0; isa##_i < sizeof isas / sizeof *isas; isa##_i++)                                          \
        if (begin(f, isas[isa##_i]))

static float *copy_of(const float *p, int64_t n) {
    float *q = (float *)fa_calloc((size_t)n, sizeof *q);
    memcpy(q, p, (size_t)n * sizeof *q);
    return q;
}

/* ---- convolution ---- */

typedef struct conv_case {
    fa_conv w;
    fa_view x;
} conv_case;

static void conv_step(const void *user, int64_t row, double *cells, double *y) {
    const conv_case *c = (const conv_case *)user;
    const int64_t n = c->w.n, before = c->w.kernel - 1;
    for (int64_t j = 0; j < n; j++) {
        double sum = c->w.bias ? (double)c->w.bias[j] : 0, x = (double)c->x.at[row * c->x.stride + j];
        for (int64_t k = 0; k < before; k++) sum += (double)c->w.w[j * c->w.kernel + k] * cells[k * n + j];
        sum += (double)c->w.w[j * c->w.kernel + before] * x;
        y[j] = c->w.act == FA_ACT_SILU ? sum / (1 + exp(-sum)) : sum;
        for (int64_t k = 0; k + 1 < before; k++) cells[k * n + j] = cells[(k + 1) * n + j];
        cells[(before - 1) * n + j] = x;
    }
}

static void check_conv(int64_t n, int kernel, bool bias, fa_act_fn act) {
    static fixture f;
    EACH_ISA(isa, &f) {
        const int64_t cells = n * (kernel - 1);
        float *w = floats(1, n * kernel, 1, 0), *b = floats(2, n, 1, 0), *before = floats(3, N_STATE * cells, 1, 0),
              *after = copy_of(before, N_STATE * cells);
        conv_case c = {{n, kernel, w, bias ? b : NULL, act, 3}, {0}};
        fa_state st = {after - 3 /* state_at */, NULL, cells};
        c.x = fa_from(&f.cx, tensor(&f, 4, n + 7, 1), 5);
        fa_tensor y = fa_conv_op(&f.cx, c.x, &c.w, &st);
        run(&f);
        compare(&f, isas[isa_i], conv_step, &c, before, after, cells, fa_f32(y), n);
        end(&f);
        fa_free(w), fa_free(b), fa_free(before), fa_free(after);
    }
}

static void test_conv(void **state) {
    (void)state;
    check_conv(133, 4, true, FA_ACT_SILU);
    check_conv(64, 3, false, FA_ACT_LINEAR);
    check_conv(5, 2, true, FA_ACT_LINEAR);
}

/* ---- Mamba 1 ---- */

typedef struct ssm1_case {
    fa_ssm1 w;
    fa_view x, dt, b, c;
} ssm1_case;

static double at(const fa_view *v, int64_t row, int64_t col) { return (double)v->at[row * v->stride + col]; }

static void ssm1_step(const void *user, int64_t row, double *h, double *y) {
    const ssm1_case *c = (const ssm1_case *)user;
    const int64_t D = c->w.dim;
    for (int64_t d = 0; d < D; d++) {
        double delta = softplus(at(&c->dt, row, d)), x = at(&c->x, row, d);
        y[d] = (double)c->w.d[d] * x;
        for (int64_t s = 0; s < c->w.n_state; s++) {
            double *cell = &h[s * D + d];
            *cell = exp(delta * (double)c->w.a[s * D + d]) * *cell + delta * at(&c->b, row, s) * x;
            y[d] += at(&c->c, row, s) * *cell;
        }
    }
}

static void check_ssm1(int64_t dim, int64_t n_state) {
    static fixture f;
    EACH_ISA(isa, &f) {
        const int64_t cells = dim * n_state;
        float *a = floats(1, cells, 0.4f, -0.6f), *d = floats(2, dim, 1, 0), *before = floats(3, N_STATE * cells, 1, 0),
              *after = copy_of(before, N_STATE * cells);
        ssm1_case c = {.w = {dim, n_state, a, d}};
        fa_state st = {NULL, after, cells};
        fa_tensor bc = tensor(&f, 6, 3 + 2 * n_state, 1);
        c.x = fa_from(&f.cx, tensor(&f, 4, dim, 1), 0);
        c.dt = fa_from(&f.cx, tensor(&f, 5, dim + 1, 4), 1);
        c.b = fa_from(&f.cx, bc, 3);
        c.c = fa_from(&f.cx, bc, 3 + n_state);
        fa_tensor y = fa_ssm1_op(&f.cx, c.x, c.dt, c.b, c.c, &c.w, &st);
        run(&f);
        compare(&f, isas[isa_i], ssm1_step, &c, before, after, cells, fa_f32(y), dim);
        end(&f);
        fa_free(a), fa_free(d), fa_free(before), fa_free(after);
    }
}

static void test_ssm1(void **state) {
    (void)state;
    check_ssm1(101, 16);
    check_ssm1(64, 5);
}

/* ---- Mamba 2 ---- */

typedef struct ssd_case {
    fa_ssd w;
    fa_view x, dt, b, c;
} ssd_case;

static void ssd_step(const void *user, int64_t row, double *h, double *y) {
    const ssd_case *c = (const ssd_case *)user;
    const int64_t P = c->w.head_dim, N = c->w.n_state;
    for (int64_t head = 0; head < c->w.n_head; head++) {
        int64_t g = head / (c->w.n_head / c->w.n_group);
        double delta = softplus(at(&c->dt, row, head) + (double)c->w.dt_bias[head]);
        delta = fmin(fmax(delta, (double)c->w.dt_min), (double)c->w.dt_max);
        for (int64_t p = 0; p < P; p++) {
            double x = at(&c->x, row, head * P + p), sum = (double)c->w.d[head] * x;
            for (int64_t s = 0; s < N; s++) {
                double *cell = &h[(head * N + s) * P + p];
                *cell = exp(delta * (double)c->w.a[head]) * *cell + delta * at(&c->b, row, g * N + s) * x;
                sum += at(&c->c, row, g * N + s) * *cell;
            }
            y[head * P + p] = sum;
        }
    }
}

static void check_ssd(int H, int P, int N, int G, float dt_min, float dt_max) {
    static fixture f;
    EACH_ISA(isa, &f) {
        const int64_t cells = (int64_t)H * P * N, dim = (int64_t)H * P;
        float *a = floats(1, H, 0.4f, -0.5f), *d = floats(2, H, 1, 0), *bias = floats(7, H, 1, 0),
              *before = floats(3, N_STATE * cells, 1, 0), *after = copy_of(before, N_STATE * cells);
        ssd_case c = {.w = {H, P, N, G, a, d, bias, dt_min, dt_max}};
        fa_state st = {NULL, after, cells};
        fa_tensor t = tensor(&f, 4, 2 + dim + 2 * G * N, 1);
        c.x = fa_from(&f.cx, t, 2);
        c.b = fa_from(&f.cx, t, 2 + dim);
        c.c = fa_from(&f.cx, t, 2 + dim + G * N);
        c.dt = fa_from(&f.cx, tensor(&f, 5, H, 2), 0);
        fa_tensor y = fa_ssd_op(&f.cx, c.x, c.dt, c.b, c.c, &c.w, &st);
        run(&f);
        compare(&f, isas[isa_i], ssd_step, &c, before, after, cells, fa_f32(y), dim);
        end(&f);
        fa_free(a), fa_free(d), fa_free(bias), fa_free(before), fa_free(after);
    }
}

static void test_ssd(void **state) {
    (void)state;
    check_ssd(4, 64, 33, 2, 0, INFINITY);
    check_ssd(3, 21, 16, 1, 0.1f, 1);
    check_ssd(2, 100, 128, 2, 0, INFINITY);
}

/* ---- gated delta rule ---- */

typedef struct delta_case {
    fa_delta w;
    fa_view q, k, v, beta, a;
} delta_case;

static double inverse_length(const fa_view *v, int64_t row, int64_t from, int64_t n, float eps) {
    double sum = (double)eps;
    for (int64_t i = 0; i < n; i++) sum += at(v, row, from + i) * at(v, row, from + i);
    return 1 / sqrt(sum);
}

static void delta_step(const void *user, int64_t row, double *S, double *y) {
    const delta_case *c = (const delta_case *)user;
    const int64_t K = c->w.k_dim, V = c->w.v_dim;
    for (int64_t head = 0; head < c->w.n_v_head; head++, S += K * V) {
        int64_t from = (c->w.tiled ? head % c->w.n_k_head : head / (c->w.n_v_head / c->w.n_k_head)) * K;
        double by_q = inverse_length(&c->q, row, from, K, c->w.eps) / sqrt((double)K),
               by_k = inverse_length(&c->k, row, from, K, c->w.eps);
        double b = (double)c->w.beta_scale / (1 + exp(-at(&c->beta, row, head)));
        double g = exp((double)c->w.decay[head] * softplus(at(&c->a, row, head) + (double)c->w.dt_bias[head]));
        for (int64_t v = 0; v < V; v++) {
            double u = at(&c->v, row, head * V + v), sum = 0;
            for (int64_t k = 0; k < K; k++) S[k * V + v] *= g;
            for (int64_t k = 0; k < K; k++) u -= S[k * V + v] * at(&c->k, row, from + k) * by_k;
            for (int64_t k = 0; k < K; k++) {
                S[k * V + v] += at(&c->k, row, from + k) * by_k * b * u;
                sum += S[k * V + v] * at(&c->q, row, from + k) * by_q;
            }
            y[head * V + v] = sum;
        }
    }
}

static void check_delta(int HK, int HV, int K, int V, float beta_scale, bool tiled) {
    static fixture f;
    EACH_ISA(isa, &f) {
        const int64_t cells = (int64_t)HV * K * V, keys = (int64_t)HK * K, values = (int64_t)HV * V;
        float *decay = floats(1, HV, 0.2f, -0.3f), *bias = floats(2, HV, 1, 0),
              *before = floats(3, N_STATE * cells, 0.3f, 0), *after = copy_of(before, N_STATE * cells);
        delta_case c = {.w = {HK, HV, K, V, decay, bias, beta_scale, 1e-6f, tiled}};
        fa_state st = {NULL, after, cells};
        fa_tensor t = tensor(&f, 4, 1 + 2 * keys + values, 1), ba = tensor(&f, 5, 2 * HV, 1);
        c.q = fa_from(&f.cx, t, 1);
        c.k = fa_from(&f.cx, t, 1 + keys);
        c.v = fa_from(&f.cx, t, 1 + 2 * keys);
        c.beta = fa_from(&f.cx, ba, 0);
        c.a = fa_from(&f.cx, ba, HV);
        fa_tensor y = fa_delta_op(&f.cx, c.q, c.k, c.v, c.beta, c.a, &c.w, &st);
        run(&f);
        compare(&f, isas[isa_i], delta_step, &c, before, after, cells, fa_f32(y), values);
        end(&f);
        fa_free(decay), fa_free(bias), fa_free(before), fa_free(after);
    }
}

static void test_delta(void **state) {
    (void)state;
    check_delta(2, 4, 32, 64, 1, false);
    check_delta(3, 6, 21, 37, 2, true);
    check_delta(1, 2, 128, 128, 1, false);
}

/* ---- gates ---- */

static void check_gate(int64_t n, int64_t group, bool shared, bool norm_first) {
    static fixture f;
    EACH_ISA(isa, &f) {
        float *w = floats(1, n, 1, 1), *scale = floats(2, n, 1, 0);
        fa_gate gate = {group, w, shared, norm_first, 1e-5f, FA_ACT_SILU};
        fa_tensor y = tensor(&f, 3, n, 2), z = tensor(&f, 4, n + 3, 2);
        float *was = copy_of(fa_f32(y), f.batch.n_tok * n);
        fa_gate_norm(&f.cx, y, fa_from(&f.cx, z, 3), &gate);
        fa_scale_cols(&f.cx, y, scale);
        run(&f);
        for (int64_t i = 0; i < f.batch.n_tok; i++)
            for (int64_t g = 0; g < n; g += group ? group : n) {
                const int64_t len = group ? group : n;
                double v[256], mean = 0;
                for (int64_t j = 0; j < len; j++) {
                    double x = (double)fa_f32(z)[i * (n + 3) + 3 + g + j], y0 = (double)was[i * n + g + j];
                    v[j] = norm_first && group ? y0 : y0 * x / (1 + exp(-x));
                    mean += v[j] * v[j] / (double)len;
                }
                for (int64_t j = 0; j < len; j++) {
                    double x = (double)fa_f32(z)[i * (n + 3) + 3 + g + j];
                    if (group) v[j] *= (double)w[shared ? j : g + j] / sqrt(mean + 1e-5);
                    if (group && norm_first) v[j] *= x / (1 + exp(-x));
                    near(isas[isa_i], "gated", i * n + g + j, (double)fa_f32(y)[i * n + g + j],
                         v[j] * (double)scale[g + j]);
                }
            }
        end(&f);
        fa_free(w), fa_free(scale), fa_free(was);
    }
}

static void test_gate(void **state) {
    (void)state;
    check_gate(96, 32, false, false);
    check_gate(96, 96, false, true);
    check_gate(105, 35, true, true);
    check_gate(77, 0, false, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),  cmocka_unit_test(test_ssm1), cmocka_unit_test(test_ssd),
        cmocka_unit_test(test_delta), cmocka_unit_test(test_gate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
