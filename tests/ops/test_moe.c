#define _POSIX_C_SOURCE 199309L /* clock_gettime */
/* Experts and their choice on the CPU against the plain definitions of program.h in double: odd sizes, every kind of
 * score, formats, strided and unaligned weights, one row to many, one thread and several, every instruction set. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/cpu.h"
#include "base/alloc.h"
#include "base/rng.h"
#include "ops/internal.h"

static fa_rng rng = {.seed = 77};
static float uniform(float size) { return (2 * fa_rng_f32(&rng) - 1) * size; }

typedef struct machine {
    fa_backend *be;
    fa_arena arena;
    fa_program prog;
    fa_batch batch;
    fa_cx cx;
} machine;

/* false: this machine has no such instruction set */
static bool begin(machine *f, int n_thread, const char *isa, bool exact, int rows) {
    fa_error err;
    memset(f, 0, sizeof *f);
    if (fa_backend_cpu_create(&f->be, n_thread, isa, exact, &err)) return false;
    assert_int_equal(fa_arena_create(&f->arena, (size_t)1 << 30, NULL, &err), 0);
    f->batch = (fa_batch){.n_tok = rows, .n_seq = 1, .n_out = 1};
    f->cx = (fa_cx){.be = f->be, .arena = &f->arena, .prog = &f->prog, .batch = &f->batch, .layer = -1};
    return true;
}

static void end(machine *f) {
    fa_free(f->prog.rec);
    f->be->free(f->be);
    fa_arena_destroy(&f->arena);
}

static void run(machine *f) {
    fa_error err;
    if (f->cx.err.code) fail_msg("%s", f->cx.err.msg);
    assert_int_equal(f->be->run(f->be, &f->prog, &f->batch, NULL, &err), 0);
}

static fa_tensor tensor_of(machine *f, const float *x, int64_t rows, int64_t cols) {
    fa_tensor t = fa_cx_tensor(&f->cx, FA_OP_NOP, rows, cols);
    memcpy(t.data, x, (size_t)(rows * cols) * sizeof(float));
    return t;
}

/* ---- weights ---- */

typedef struct kind {
    fa_fmt fmt;
    int bits, group;
} kind;

static void put_half(uint8_t *p, float x) {
    uint16_t h = fa_f32_to_f16(x);
    memcpy(p, &h, 2);
}

static void put_bf16(uint8_t *p, float x) {
    uint16_t h = fa_f32_to_bf16(x);
    memcpy(p, &h, 2);
}

/* Random values of about 1 / sqrt(cols) */
static void fill_row(const fa_weight *w, uint8_t *codes, uint8_t *scales, uint8_t *biases) {
    const float size = 1.7f / sqrtf((float)w->cols);
    size_t bytes = fa_qfmt_row_bytes((fa_fmt)w->fmt, w->bits, w->cols);
    if (w->fmt == FA_FMT_F32) {
        for (int64_t i = 0; i < w->cols; i++) {
            float x = uniform(size);
            memcpy(codes + 4 * i, &x, 4);
        }
        return;
    }
    if (w->fmt == FA_FMT_BF16) {
        for (int64_t i = 0; i < w->cols; i++) put_bf16(codes + 2 * i, uniform(size));
        return;
    }
    for (size_t i = 0; i < bytes; i++) codes[i] = (uint8_t)fa_rng_next(&rng);
    for (int64_t i = 0; w->group && i < w->cols / w->group; i++) {
        if (w->fmt == FA_FMT_MXFP4) {
            scales[i] = (uint8_t)(126 + (int)floorf(log2f(size / 6)) + (int)(fa_rng_next(&rng) % 2));
            continue;
        }
        float s = 2 * size / (float)(1 << w->bits) * (1 + uniform(0.3f));
        put_bf16(scales + 2 * i, s);
        put_bf16(biases + 2 * i, -s * (float)(1 << w->bits) / 2 + uniform(size / 8));
    }
    size_t block = fa_qfmts[w->fmt].block_bytes;
    for (size_t i = 0; w->fmt == FA_FMT_Q4_K && i < bytes; i += block)
        put_half(codes + i, size / 300), put_half(codes + i + 2, size / 40);
    for (size_t i = 0; w->fmt == FA_FMT_Q8_0 && i < bytes; i += block) put_half(codes + i, size / 127);
}

/* A stack of experts in one block of memory that begins at an odd address; `apart`: rows of other matrices between
 * rows. */
typedef struct stack {
    fa_experts e;
    uint8_t *codes, *scales, *biases;
    float *bias;
} stack;

static stack stack_new(kind f, int64_t n, int64_t rows, int64_t cols, int apart, bool bias) {
    stack s = {.e = {.n = n}};
    size_t row = fa_qfmt_row_bytes(f.fmt, f.bits, cols), group = 0;
    if (f.fmt == FA_FMT_AFFINE) group = (size_t)(cols / f.group) * 2;
    if (f.fmt == FA_FMT_MXFP4) group = (size_t)(cols / f.group);
    size_t step = row * (size_t)apart, gstep = group * (size_t)apart, all = (size_t)(n * rows);
    s.e.w = calloc((size_t)n, sizeof *s.e.w);
    s.codes = calloc(1, all * step + 1);
    s.scales = calloc(1, all * gstep + 1);
    s.biases = calloc(1, all * gstep + 1);
    for (int64_t i = 0; i < n; i++) {
        size_t at = (size_t)(i * rows);
        s.e.w[i] = (fa_weight){.rows = rows,
                               .cols = cols,
                               .codes = s.codes + 1 + at * step,
                               .row_bytes = step,
                               .name = "test.experts",
                               .fmt = (uint8_t)f.fmt,
                               .bits = (uint8_t)f.bits,
                               .group = (uint16_t)f.group};
        fa_weight *w = &s.e.w[i];
        if (group) w->scales = s.scales + 1 + at * gstep, w->scale_row_bytes = gstep;
        if (f.fmt == FA_FMT_AFFINE) w->biases = s.biases + 1 + at * gstep, w->scale_dtype = FA_BF16;
        if (f.fmt == FA_FMT_MXFP4) w->scale_dtype = FA_U8;
        for (int64_t r = 0; r < rows; r++)
            fill_row(w, s.codes + 1 + (at + (size_t)r) * step, s.scales + 1 + (at + (size_t)r) * gstep,
                     s.biases + 1 + (at + (size_t)r) * gstep);
    }
    if (bias) {
        s.e.bias = s.bias = malloc(all * sizeof(float));
        for (size_t i = 0; i < all; i++) s.bias[i] = uniform(0.5f);
    }
    return s;
}

static void stack_free(stack *s) {
    free(s->e.w);
    free(s->codes);
    free(s->scales);
    free(s->biases);
    free(s->bias);
}

/* ---- the experts' definition ---- */

static double act(fa_act_fn f, double x) {
    switch (f) {
    case FA_ACT_SILU: return x / (1 + exp(-x));
    case FA_ACT_GELU_QUICK: return x / (1 + exp(-1.702 * x));
    case FA_ACT_RELU2: return x > 0 ? x * x : 0;
    default: return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); /* GELU_TANH */
    }
}

static void multiply(const fa_experts *e, int32_t i, const double *x, double *y) {
    const fa_weight *w = &e->w[i];
    float *row = malloc((size_t)w->cols * 4);
    void *scratch = malloc(fa_dequant_scratch(w->cols));
    for (int64_t r = 0; r < w->rows; r++) {
        fa_dequant_row(w, r, row, scratch);
        y[r] = e->bias ? e->bias[i * w->rows + r] : 0;
        for (int64_t k = 0; k < w->cols; k++) y[r] += row[k] * x[k];
    }
    free(row);
    free(scratch);
}

static double within(double x, double l) { return x > l ? l : x < -l ? -l : x; }

static void expert(const fa_moe *m, int32_t i, const double *x, double *y) {
    int64_t ff = m->up.w[0].rows;
    double *gate = malloc((size_t)ff * 8), *up = malloc((size_t)ff * 8);
    if (m->gate.n) multiply(&m->gate, i, x, gate);
    multiply(&m->up, i, x, up);
    for (int64_t k = 0; k < ff; k++) {
        double u = m->limit > 0 ? within(up[k], m->limit) + 1 : up[k],
               g = m->limit > 0 && gate[k] > m->limit ? m->limit : gate[k];
        up[k] = m->gate.n ? act(m->act, g) * u : act(m->act, u);
    }
    multiply(&m->down, i, up, y);
    free(gate);
    free(up);
}

/* ---- experts ---- */

typedef struct shape {
    int64_t n, used, dim, ff;
    kind up, down;
    int apart; /* 2: gate and up interleaved */
    bool bias, no_gate;
    fa_act_fn act;
    float limit, scale; /* scale 1: put, else added */
    bool uneven;        /* all rows want expert 1 */
} shape;

typedef struct problem {
    fa_moe m;
    stack gate, up, down;
    int64_t rows;
    float *x, *choice, *h; /* h: what out holds before */
    double *want;          /* of the sum of experts */
} problem;

static void problem_new(problem *p, const shape *s, int64_t rows) {
    *p = (problem){.rows = rows};
    p->up = stack_new(s->up, s->n, s->ff, s->dim, s->apart, s->bias);
    p->down = stack_new(s->down, s->n, s->dim, s->ff, 1, s->bias);
    if (!s->no_gate) p->gate = stack_new(s->up, s->n, s->ff, s->dim, s->apart, s->bias);
    p->m = (fa_moe){.gate = p->gate.e, .up = p->up.e, .down = p->down.e, .act = s->act, .limit = s->limit};
    p->x = malloc((size_t)(rows * s->dim) * 4);
    p->h = malloc((size_t)(rows * s->dim) * 4);
    p->choice = malloc((size_t)(rows * 2 * s->used) * 4);
    p->want = calloc((size_t)(rows * s->dim), 8);
    for (int64_t i = 0; i < rows * s->dim; i++) p->x[i] = uniform(2), p->h[i] = uniform(1);
    double *x = malloc((size_t)s->dim * 8), *y = malloc((size_t)s->dim * 8);
    for (int64_t i = 0; i < rows; i++) {
        float *weight = p->choice + i * 2 * s->used;
        int32_t *e = (int32_t *)(void *)(weight + s->used);
        for (int64_t d = 0; d < s->dim; d++) x[d] = p->x[i * s->dim + d];
        for (int64_t k = 0; k < s->used; k++) {
            bool again = true;
            while (again) {
                e[k] = k == 0 && s->uneven ? 1 : (int32_t)(fa_rng_next(&rng) % (uint64_t)s->n);
                again = false;
                for (int64_t j = 0; j < k; j++) again |= e[j] == e[k];
            }
            weight[k] = 0.05f + fa_rng_f32(&rng);
            expert(&p->m, e[k], x, y);
            for (int64_t d = 0; d < s->dim; d++) p->want[i * s->dim + d] += weight[k] * y[d];
        }
    }
    free(x);
    free(y);
}

static void problem_free(problem *p) {
    stack_free(&p->gate);
    stack_free(&p->up);
    stack_free(&p->down);
    free(p->x);
    free(p->h);
    free(p->choice);
    free(p->want);
}

/* Rows [r0, r1) in one step; false: no such instruction set */
static bool compute(const problem *p, const shape *s, int n_thread, const char *isa, bool exact, int64_t r0, int64_t r1,
                    float *out) {
    machine f;
    if (!begin(&f, n_thread, isa, exact, (int)(r1 - r0))) return false;
    int64_t n = r1 - r0;
    fa_tensor x = tensor_of(&f, p->x + r0 * s->dim, n, s->dim),
              choice = tensor_of(&f, p->choice + r0 * 2 * s->used, n, 2 * s->used), y;
    if (s->scale == 1) {
        y = fa_moe_op(&f.cx, x, choice, &p->m);
    } else {
        y = tensor_of(&f, p->h + r0 * s->dim, n, s->dim);
        fa_moe_add(&f.cx, y, x, choice, &p->m, s->scale);
    }
    run(&f);
    memcpy(out + r0 * s->dim, y.data, (size_t)(n * s->dim) * 4);
    end(&f);
    return true;
}

static void compare(const problem *p, const shape *s, const float *got, double limit, const char *what) {
    double sq = 0, n = (double)(p->rows * s->dim);
    for (int64_t i = 0; i < p->rows * s->dim; i++) sq += p->want[i] * p->want[i];
    double size = sqrt(sq / n) * (s->scale > 1 ? s->scale : 1) + 1;
    for (int64_t i = 0; i < p->rows * s->dim; i++) {
        double want = s->scale == 1 ? p->want[i] : (double)p->h[i] + s->scale * p->want[i], d = got[i] - want;
        if (!(fabs(d) <= limit * size))
            fail_msg("%s: %d experts of [%d, %d], %d rows, %s: row %d column %d is %g, not %g", what, (int)s->n,
                     (int)s->ff, (int)s->dim, (int)p->rows, fa_qfmts[s->up.fmt].name, (int)(i / s->dim),
                     (int)(i % s->dim), got[i], want);
    }
}

static const char *const levels[] = {NULL,  "c",       "avx2", "avxvnni", "avx512",   "avx512vnni", "avx512bf16",
                                     "amx", "amxint8", "neon", "neondot", "neoni8mm", "neonbf16"};

/* On every instruction set, in both precisions: right, and the same bits with several threads; on the best one also
 * when the rows come in two steps. */
static void check(const shape *s, int64_t rows) {
    problem p;
    problem_new(&p, s, rows);
    size_t bytes = (size_t)(rows * s->dim) * 4;
    float *a = malloc(bytes), *b = malloc(bytes);
    for (int exact = 0; exact < 2; exact++)
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
            double limit = exact ? 1e-5 : 0.05;
            if (!compute(&p, s, 1, levels[i], exact, 0, rows, a)) continue;
            compare(&p, s, a, limit, levels[i] ? levels[i] : "best");
            assert_true(compute(&p, s, 3, levels[i], exact, 0, rows, b));
            assert_memory_equal(a, b, bytes);
            if (levels[i] || rows < 2) continue;
            compute(&p, s, 2, levels[i], exact, 0, rows / 3 + 1, b);
            compute(&p, s, 2, levels[i], exact, rows / 3 + 1, rows, b);
            compare(&p, s, b, limit, "in two steps");
            for (int64_t k = 0; k < rows * s->dim; k++) assert_true(fabsf(a[k] - b[k]) <= 1e-4f * (1 + fabsf(a[k])));
        }
    free(a);
    free(b);
    problem_free(&p);
}

#define F32                                                                                                            \
    { FA_FMT_F32, 0, 0 }
#define BF16                                                                                                           \
    { FA_FMT_BF16, 0, 0 }
#define AFF(b, g)                                                                                                      \
    { FA_FMT_AFFINE, b, g }
#define MXFP4                                                                                                          \
    { FA_FMT_MXFP4, 4, 32 }
#define Q4_K                                                                                                           \
    { FA_FMT_Q4_K, 0, 0 }
#define Q8_0                                                                                                           \
    { FA_FMT_Q8_0, 0, 0 }

static const shape shapes[] = {
    /* n, used, dim, ff, up, down, apart, bias, no_gate, act, limit, scale, uneven */
    {5, 2, 37, 19, F32, F32, 1, false, false, FA_ACT_SILU, 0, 1, false},
    {4, 4, 50, 33, BF16, BF16, 1, true, false, FA_ACT_GELU_TANH, 0, 0.5f, false},
    {3, 1, 64, 40, BF16, BF16, 1, false, true, FA_ACT_RELU2, 0, 1, true},
    {8, 3, 96, 160, AFF(4, 32), AFF(4, 32), 1, false, false, FA_ACT_SILU, 0, 1, false},
    {8, 2, 128, 64, AFF(6, 64), AFF(3, 32), 1, true, true, FA_ACT_SILU, 0, 2.5f, true},
    {6, 4, 160, 96, MXFP4, MXFP4, 2, true, false, FA_ACT_GELU_QUICK, 1.5f, 1, false},
    {6, 4, 64, 96, BF16, MXFP4, 2, true, false, FA_ACT_GELU_QUICK, 1.5f, 1, true},
    {16, 5, 256, 512, Q4_K, Q4_K, 1, false, false, FA_ACT_SILU, 0, 0.25f, false},
    {4, 2, 96, 40, Q8_0, F32, 1, false, false, FA_ACT_GELU_TANH, 0, 1, true},
    {7, 3, 64, 32, F32, Q8_0, 1, true, false, FA_ACT_SILU, 0, 1, false},
};

static void test_experts(void **state) {
    (void)state;
    const int64_t rows[] = {1, 2, 3, 7, 40};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < sizeof rows / sizeof *rows; j++) check(&shapes[i], rows[j]);
}

/* More rows than the kernels' blocks take at once, most of them for one expert */
static void test_many_rows(void **state) {
    (void)state;
    const shape s = {9, 2, 64, 96, AFF(4, 64), AFF(4, 32), 1, false, false, FA_ACT_SILU, 0, 1, true};
    check(&s, 300);
}

/* ---- choice ---- */

typedef struct want {
    double weight[64];
    int expert[64];
} want;

/* The definition, with every expert's rank counted instead of picked. */
static void choose(const fa_route *o, const float *logits, want *w) {
    double s[64], c[64], group[64], sum = 0;
    int n = o->n_expert, per = n / o->n_group;
    for (int i = 0; i < n; i++) s[i] = o->score == FA_SCORE_SIGMOID ? 1 / (1 + exp(-(double)logits[i])) : logits[i];
    if (o->score == FA_SCORE_SOFTMAX) {
        for (int i = 0; i < n; i++) sum += s[i] = exp(s[i]);
        for (int i = 0; i < n; i++) s[i] /= sum;
    }
    for (int i = 0; i < n; i++) c[i] = s[i] + (o->bias ? (double)o->bias[i] : 0);
    for (int g = 0; g < o->n_group; g++) {
        double a = -INFINITY, b = -INFINITY;
        for (int i = g * per; i < (g + 1) * per; i++) {
            if (c[i] > a)
                b = a, a = c[i];
            else if (c[i] > b)
                b = c[i];
        }
        group[g] = per > 1 ? a + b : a;
    }
    for (int g = 0; o->n_group > 1 && g < o->n_group; g++) {
        int rank = 0;
        for (int k = 0; k < o->n_group; k++) rank += group[k] > group[g] || (group[k] == group[g] && k < g);
        for (int i = g * per; rank >= o->n_group_used && i < (g + 1) * per; i++) c[i] = -INFINITY;
    }
    for (int i = 0; i < n; i++) {
        int rank = 0;
        for (int k = 0; k < n; k++) rank += c[k] > c[i] || (c[k] == c[i] && k < i);
        if (rank < o->n_used) w->expert[rank] = i;
    }
    sum = 0;
    for (int k = 0; k < o->n_used; k++) {
        w->weight[k] = s[w->expert[k]];
        if (o->score == FA_SCORE_TOP_SOFTMAX) w->weight[k] = exp(w->weight[k]);
        sum += w->weight[k];
    }
    double by = o->score == FA_SCORE_TOP_SOFTMAX ? sum : o->normalise ? sum + o->norm_eps : 1;
    for (int k = 0; k < o->n_used; k++)
        w->weight[k] *= o->scale / by * (o->expert_scale ? (double)o->expert_scale[w->expert[k]] : 1);
}

enum { ROUTE_ROWS = 33 };

static void check_route(const fa_route *o, const float *logits, int n_thread, const char *isa) {
    machine f;
    if (!begin(&f, n_thread, isa, true, ROUTE_ROWS)) return;
    fa_tensor y = fa_route_op(&f.cx, tensor_of(&f, logits, ROUTE_ROWS, o->n_expert), o);
    run(&f);
    for (int i = 0; i < ROUTE_ROWS; i++) {
        want w;
        const float *got = fa_f32(y) + i * 2 * o->n_used;
        const int32_t *e = (const int32_t *)(const void *)(got + o->n_used);
        choose(o, logits + i * o->n_expert, &w);
        for (int k = 0; k < o->n_used; k++)
            if (e[k] != w.expert[k] || !(fabs(got[k] - w.weight[k]) <= 1e-6 * (1 + fabs(w.weight[k]))))
                fail_msg("score %d, %d of %d experts, %d of %d groups, row %d, rank %d: expert %d by %g, not %d by %g",
                         o->score, o->n_used, o->n_expert, o->n_group_used, o->n_group, i, k, e[k], got[k], w.expert[k],
                         w.weight[k]);
    }
    end(&f);
}

static void test_route(void **state) {
    (void)state;
    static float logits[ROUTE_ROWS * 64], bias[64], scale[64];
    for (int i = 0; i < 64; i++) bias[i] = uniform(0.3f), scale[i] = 0.5f + fa_rng_f32(&rng);
    for (int i = 0; i < ROUTE_ROWS * 64; i++) logits[i] = uniform(4);
    const int experts[] = {1, 3, 8, 24, 60, 64}, used[] = {1, 2, 5, 24};
    for (int v = 0; v < 3 * 16; v++)
        for (int i = 0; i < 6; i++)
            for (int j = 0; j < 4; j++)
                for (int g = 1; g <= 12; g += 3) {
                    fa_route o = {.n_expert = experts[i],
                                  .n_used = used[j],
                                  .n_group = g,
                                  .n_group_used = (g + 1) / 2,
                                  .score = (fa_score)(v % 3),
                                  .normalise = v / 3 & 1,
                                  .norm_eps = v / 3 & 2 ? 1e-3f : 0,
                                  .scale = v / 3 & 2 ? 2.5f : 1,
                                  .bias = v / 3 & 4 ? bias : NULL,
                                  .expert_scale = v / 3 & 8 ? scale : NULL};
                    if (o.n_used > o.n_expert || o.n_expert % g) continue;
                    check_route(&o, logits, 1 + v % 2, NULL);
                    if (v < 3) check_route(&o, logits, 1, "c");
                }
}

/* Equal scores: the lower expert. NaN: the weights show it, the experts are different ones all the same. */
static void test_route_odd(void **state) {
    (void)state;
    static float logits[ROUTE_ROWS * 16];
    for (int i = 0; i < ROUTE_ROWS * 16; i++) logits[i] = (float)(int)(fa_rng_next(&rng) % 3);
    for (int score = 0; score < 3; score++) {
        const fa_route o = {16, 6, 1, 1, (fa_score)score, true, 0, 1, NULL, NULL};
        check_route(&o, logits, 2, NULL);
    }
    for (int score = 0; score < 3; score++)
        for (int nan = 1; nan <= 16; nan += 5) {
            machine f;
            const fa_route o = {16, 6, 4, 2, (fa_score)score, true, 0, 1, NULL, NULL};
            float x[16] = {0};
            for (int i = 0; i < nan; i++) x[15 - i] = NAN;
            assert_true(begin(&f, 1, NULL, true, 1));
            fa_tensor y = fa_route_op(&f.cx, tensor_of(&f, x, 1, 16), &o);
            run(&f);
            const int32_t *e = (const int32_t *)(const void *)(fa_f32(y) + 6);
            uint32_t seen = 0;
            for (int k = 0; k < 6; k++) {
                assert_in_range(e[k], 0, 15);
                assert_false(seen >> e[k] & 1);
                seen |= 1u << e[k];
                if (score == FA_SCORE_SOFTMAX || nan == 16) assert_true(isnan(fa_f32(y)[k]));
            }
            end(&f);
        }
}

/* ---- speed: test_moe --bench [rows [experts]] ---- */

/* The experts of Qwen3-30B-A3B on one thread, by its own time: what it needs on a machine that is busy otherwise, too.
 */
static void bench(int64_t rows, int n) {
    const shape s = {n, 8, 2048, 768, AFF(4, 64), AFF(4, 64), 1, false, false, FA_ACT_SILU, 0, 1, false};
    problem p = {.up = stack_new(s.up, s.n, s.ff, s.dim, 1, false),
                 .gate = stack_new(s.up, s.n, s.ff, s.dim, 1, false),
                 .down = stack_new(s.down, s.n, s.dim, s.ff, 1, false)};
    const fa_moe m = {.gate = p.gate.e, .up = p.up.e, .down = p.down.e, .act = s.act};
    const fa_route route = {n, 8, 1, 1, FA_SCORE_SOFTMAX, true, 0, 1, NULL, NULL};
    machine f;
    assert_true(begin(&f, 1, NULL, false, (int)rows));
    fa_tensor x = fa_cx_tensor(&f.cx, FA_OP_NOP, rows, s.dim), logits = fa_cx_tensor(&f.cx, FA_OP_NOP, rows, s.n);
    for (int64_t i = 0; i < rows * s.dim; i++) fa_f32(x)[i] = uniform(2);
    for (int64_t i = 0; i < rows * s.n; i++) fa_f32(logits)[i] = uniform(2);
    fa_tensor choice = fa_route_op(&f.cx, logits, &route);
    fa_moe_op(&f.cx, x, choice, &m);
    double best[2] = {1e9, 1e9};
    for (int i = 0; i < 12; i++) {
        struct timespec a, b;
        fa_program one = f.prog;
        one.n = 1;
        for (int k = 0; k < 2; k++) {
            one.rec = f.prog.rec + k;
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
            f.be->run(f.be, &one, &f.batch, NULL, &f.cx.err);
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
            double ms = 1e3 * (double)(b.tv_sec - a.tv_sec) + 1e-6 * (double)(b.tv_nsec - a.tv_nsec);
            if (ms < best[k]) best[k] = ms;
        }
    }
    print_message("%d rows: choice %.3f ms, experts %.2f ms, %.0f Gop/s, %.1f GB/s of weights at most\n", (int)rows,
                  best[0], best[1], f.prog.rec[1].flops / best[1] * 1e-6, f.prog.rec[1].bytes / best[1] * 1e-6);
    end(&f);
    problem_free(&p);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench(argc > 2 ? atoi(argv[2]) : 512, argc > 3 ? atoi(argv[3]) : 128);
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_experts), cmocka_unit_test(test_many_rows),
                                       cmocka_unit_test(test_route), cmocka_unit_test(test_route_odd)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
