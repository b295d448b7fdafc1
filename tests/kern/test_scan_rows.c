/* Kernels of recurrent layers: every level of this machine against plain C, over odd sizes and unaligned starts, with
 * canaries around what is written. The layers themselves are tested in tests/ops/test_scan.c. */
#include <string.h>

#include "kern/levels.h"

#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SIZE = 1 << 15, PAD = 64 };
static const float CANARY = -1.2345e33f;

/* Memory that a kernel writes to, twice: for plain C and for the level. */
typedef struct pair {
    float mem[2][SIZE + 2 * PAD];
    float *c, *v; /* inside, off by some floats */
    int64_t n;
} pair;

static void fill(float *p, int64_t n, uint64_t seed, float scale) {
    for (int64_t i = 0; i < n; i++) p[i] = scale * ((float)(fa_rng_at(seed, (uint64_t)i) >> 40) * 0x1p-23f - 1);
}

static void begin(pair *p, int64_t n, int off, uint64_t seed) {
    assert_true(n + off < SIZE);
    for (int64_t i = 0; i < SIZE + 2 * PAD; i++) p->mem[0][i] = p->mem[1][i] = CANARY;
    p->c = p->mem[0] + PAD + off;
    p->v = p->mem[1] + PAD + off;
    p->n = n;
    fill(p->c, n, seed, 1);
    memcpy(p->v, p->c, (size_t)n * sizeof *p->v);
}

static void same(const pair *p, const char *what, const char *isa) {
    for (int64_t i = 0; i < p->n; i++)
        if (!(fabsf(p->v[i] - p->c[i]) <= 1e-5f * (1 + fabsf(p->c[i]))))
            fail_msg("%s %s: value %lld is %.9g, in C %.9g", what, isa, (long long)i, (double)p->v[i], (double)p->c[i]);
    for (const float *q = p->mem[1]; q < p->mem[1] + SIZE + 2 * PAD; q++)
        if (q < p->v || q >= p->v + p->n) assert_true(*q == CANARY);
}

static float in[6][SIZE];
static pair out, cells, scratch;
static const int sizes[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100};
enum { N_SIZE = sizeof sizes / sizeof *sizes };

static void set_up(fa_kernels *c) {
    vec_level(0, c);
    for (int i = 0; i < 6; i++) fill(in[i], SIZE, (uint64_t)i + 9, 1);
}

static void test_products(void **state) {
    (void)state;
    fa_kernels c, k;
    set_up(&c);
    for (int l = 1; vec_level(l, &k); l++)
        for (int s = 0; s < 3 * N_SIZE; s++) {
            int n = sizes[s % N_SIZE], m = sizes[(s * 5 + 2) % N_SIZE], K = sizes[(s * 7 + 3) % N_SIZE],
                ldy = n + s % 3;
            bool turned = s % 2, add = s % 3 == 0;
            int64_t row = turned ? 1 : K + 1, col = turned ? m + 2 : 1;
            begin(&out, (int64_t)(m - 1) * ldy + n, s % 7, 1);
            c.product(in[0] + 1, row, col, m, K, in[1] + 3, n + 5, n, out.c, ldy, add);
            k.product(in[0] + 1, row, col, m, K, in[1] + 3, n + 5, n, out.v, ldy, add);
            same(&out, "product", k.isa);
            begin(&out, (int64_t)m * m, s % 5, 2);
            c.gram(in[0] + 1, K + 1, in[1] + 2, K + 3, m, K, out.c, m);
            k.gram(in[0] + 1, K + 1, in[1] + 2, K + 3, m, K, out.v, m);
            same(&out, "gram", k.isa);
        }
}

static void test_rows(void **state) {
    (void)state;
    fa_kernels c, k;
    set_up(&c);
    for (int l = 1; vec_level(l, &k); l++)
        for (int s = 0; s < 3 * N_SIZE; s++) {
            int n = sizes[s % N_SIZE], N = sizes[(s * 5 + 1) % N_SIZE];
            begin(&cells, (int64_t)n * N, s % 7, 3);
            begin(&out, n, s % 3, 4);
            c.ssd_row(cells.c, N, n, 0.7f, 0.3f, in[0] + 1, in[1] + 2, in[2] + 3, 0.4f, out.c);
            k.ssd_row(cells.v, N, n, 0.7f, 0.3f, in[0] + 1, in[1] + 2, in[2] + 3, 0.4f, out.v);
            same(&cells, "ssd_row", k.isa);
            same(&out, "ssd_row's y", k.isa);
            begin(&scratch, n, 1, 5);
            c.delta_row(cells.c, N, n, 0.8f, 0.5f, in[0] + 1, in[1] + 2, in[2] + 3, scratch.c, out.c);
            k.delta_row(cells.v, N, n, 0.8f, 0.5f, in[0] + 1, in[1] + 2, in[2] + 3, scratch.v, out.v);
            same(&cells, "delta_row", k.isa);
            same(&out, "delta_row's y", k.isa);
            begin(&out, n, s % 5, 6);
            for (int i = 0; i < n; i++) out.c[i] = out.v[i] = 40 * in[s % 6][i];
            c.softplus(out.c, n, out.c);
            k.softplus(out.v, n, out.v);
            same(&out, "softplus", k.isa);
        }
}

static void test_channels(void **state) {
    (void)state;
    fa_kernels c, k;
    set_up(&c);
    fill(in[5], SIZE, 77, 0.5f);
    for (int64_t i = 0; i < SIZE; i++) in[5][i] -= 0.5f; /* decays */
    for (int l = 1; vec_level(l, &k); l++)
        for (int s = 0; s < 2 * N_SIZE; s++) {
            int n = sizes[s % N_SIZE], rows = 1 + s % 9, kernel = 2 + s % 4, N = 1 + s % 17;
            begin(&out, (int64_t)(rows - 1) * (n + 2) + n, s % 7, 1);
            fa_conv_args a = {.x = in[0] + 1,
                              .ldx = n + 3,
                              .tail = s % 3 ? in[1] + 1 : NULL,
                              .ld_tail = n + 1,
                              .w = in[2] + 2,
                              .bias = s % 2 ? in[3] + 1 : NULL,
                              .n = n,
                              .rows = rows,
                              .kernel = kernel,
                              .silu = s % 5 > 1,
                              .y = out.c,
                              .ldy = n + 2};
            c.conv(&a);
            a.y = out.v;
            k.conv(&a);
            same(&out, "conv", k.isa);
            begin(&out, (int64_t)(rows - 1) * (n + 2) + n, s % 7, 1);
            begin(&cells, (int64_t)(N - 1) * (n + 1) + n, s % 3, 2);
            fa_ssm1_args b = {.x = in[0] + 1,
                              .delta = in[5] + 2000,
                              .b = in[1] + 1,
                              .c = in[2] + 3,
                              .ldx = n + 3,
                              .ld_delta = n,
                              .ldb = 20,
                              .ldc = 21,
                              .a = in[5],
                              .lda = n + 4,
                              .d = in[3] + 1,
                              .h = cells.c,
                              .ldh = n + 1,
                              .n = n,
                              .n_state = N,
                              .rows = rows,
                              .y = out.c,
                              .ldy = n + 2};
            c.ssm1(&b);
            b.h = cells.v, b.y = out.v;
            k.ssm1(&b);
            same(&cells, "ssm1", k.isa);
            same(&out, "ssm1's y", k.isa);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
