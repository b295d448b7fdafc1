/* Mixture of experts on the device against the CPU: choices of every kind, experts of every format with few and many
 * rows, gates or none, biases, clamped activations, scaled sums, experts that nobody or everybody chooses. */
#include "cuda/harness.h"

#include <math.h>
#include <string.h>

/* ---- choice ---- */

typedef struct route_case {
    harness *h;
    fa_route at[2];
    const float *x;
    int64_t rows;
    fa_tensor y[2];
} route_case;

static void route_body(fa_cx *cx, int side, void *arg) {
    route_case *c = arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->at[side].n_expert, FA_F32);
    fa_tensor y = fa_route_op(cx, x, &c->at[side]);
    hn_expect(c->h, side, "weights", fa_cols(cx, y, 0, c->at[side].n_used));
    c->y[side] = y; /* ids as bits: check_ids */
}

/* The same experts, in the same order. */
static void check_ids(const route_case *c) {
    const int n = c->at[0].n_used;
    const float *want = hn_values(c->h, HN_CPU, c->y[HN_CPU]), *got = hn_values(c->h, HN_DEV, c->y[HN_DEV]);
    for (int64_t m = 0; m < c->rows; m++)
        assert_memory_equal(want + (2 * m + 1) * n, got + (2 * m + 1) * n, (size_t)n * 4);
}

static void test_route(void **state) {
    (void)state;
    harness *h = hn_open(&(hn_opts){.exact = true});
    static const struct {
        int n_expert, n_used, n_group, n_group_used;
    } sizes[] = {{1, 1, 1, 1},  {4, 2, 1, 1},   {8, 8, 1, 1},    {32, 4, 4, 2},
                 {60, 5, 1, 1}, {128, 8, 8, 3}, {130, 33, 10, 7}};
    for (int i = 0; i < 7; i++)
        for (int v = 0; v < 12; v++) {
            const int n = sizes[i].n_expert;
            route_case c = {.h = h, .rows = v == 0 ? 1 : 5 + i};
            hn_case(h, "route %d of %d, variant %d", sizes[i].n_used, n, v);
            hn_seqs(h, (hn_seq[]){{.n = (int)c.rows}}, 1);
            fa_route o = {.n_expert = n, .n_used = sizes[i].n_used, .n_group = 1, .n_group_used = 1};
            o.score = (fa_score)(v % 3);
            o.normalise = v % 2;
            o.norm_eps = v % 4 == 1 ? 1e-3f : 0;
            o.scale = v < 6 ? 1 : 2.5f;
            if (v >= 6) o.n_group = sizes[i].n_group, o.n_group_used = sizes[i].n_group_used;
            c.at[0] = c.at[1] = o;
            if (v % 4 >= 2) {
                c.at[0].bias = hn_floats(h, n, 0.3f);
                c.at[1].bias = hn_upload(h, c.at[0].bias, (size_t)n * 4);
            }
            if (v % 5 == 4) {
                c.at[0].expert_scale = hn_floats(h, n, 2);
                c.at[1].expert_scale = hn_upload(h, c.at[0].expert_scale, (size_t)n * 4);
            }
            float *x = hn_floats(h, c.rows * n, 3);
            for (int j = 0; j < n && c.rows > 2; j++) x[2 * n + j] = (float)(j % 3); /* ties: the lower one */
            c.x = x;
            hn_run(h, route_body, &c);
            check_ids(&c);
        }
    hn_close(h);
}

/* ---- experts ---- */

typedef struct moe_case {
    harness *h;
    fa_moe at[2];
    const float *x, *choice, *out;
    int64_t rows, dim;
    int n_used;
    float scale;
    bool add;
} moe_case;

static void moe_body(fa_cx *cx, int side, void *arg) {
    moe_case *c = arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->dim, FA_F32);
    fa_tensor choice = hn_input(c->h, cx, side, c->choice, c->rows, 2 * c->n_used, FA_F32);
    if (c->add) {
        fa_tensor h = hn_input(c->h, cx, side, c->out, c->rows, c->dim, FA_F32);
        fa_moe_add(cx, h, x, choice, &c->at[side], c->scale);
        hn_expect(c->h, side, "h", h);
    } else {
        hn_expect(c->h, side, "y", fa_moe_op(cx, x, choice, &c->at[side]));
    }
}

/* A stack is one tall matrix on either side. */
static void make_stack(harness *h, fa_weight kind, int n, int64_t rows, int64_t cols, bool bias, fa_experts *cpu,
                       fa_experts *dev) {
    hn_weight *all = hn_make_weight(h, kind, n * rows, cols);
    float *b = bias ? hn_floats(h, n * rows, 1) : NULL;
    for (int side = 0; side < 2; side++) {
        fa_experts *e = side == HN_CPU ? cpu : dev;
        e->n = n;
        e->w = hn_host(h, (size_t)n * sizeof *e->w);
        for (int i = 0; i < n; i++) {
            fa_weight *w = &e->w[i];
            *w = all->at[side];
            w->rows = rows;
            w->codes += (size_t)(i * rows) * w->row_bytes;
            if (w->scales) w->scales += (size_t)(i * rows) * w->scale_row_bytes;
            if (w->biases) w->biases += (size_t)(i * rows) * w->scale_row_bytes;
        }
        if (b) e->bias = side == HN_CPU ? b : hn_upload(h, b, (size_t)(n * rows) * sizeof *b);
    }
}

typedef struct shape {
    int n_expert, n_used;
    int64_t rows, dim, ff;
    bool gated, bias, add;
    float limit, scale;
    fa_act_fn act;
    fa_weight down; /* fmt F32: as the others */
    int spread;     /* 0: any expert; 1: all rows the same ones */
} shape;

static void run_moe(harness *h, fa_weight kind, shape s) {
    moe_case c = {.h = h, .rows = s.rows, .dim = s.dim, .n_used = s.n_used, .scale = s.scale, .add = s.add};
    hn_seqs(h, (hn_seq[]){{.n = (int)s.rows}}, 1);
    for (int side = 0; side < 2; side++) c.at[side].act = s.act, c.at[side].limit = s.limit;
    if (s.gated) make_stack(h, kind, s.n_expert, s.ff, s.dim, s.bias, &c.at[0].gate, &c.at[1].gate);
    make_stack(h, kind, s.n_expert, s.ff, s.dim, s.bias, &c.at[0].up, &c.at[1].up);
    make_stack(h, s.down.fmt ? s.down : kind, s.n_expert, s.dim, s.ff, s.bias, &c.at[0].down, &c.at[1].down);
    float *x = hn_floats(h, s.rows * s.dim, 1); /* that bf16 holds: what is between two products is rounded as it is */
    for (int64_t i = 0; i < s.rows * s.dim; i++) x[i] = floorf(x[i] * 64) / 64;
    c.x = x;
    c.out = hn_floats(h, s.rows * s.dim, 4);
    float *choice = hn_floats(h, s.rows * 2 * s.n_used, 1);
    for (int64_t m = 0; m < s.rows; m++) {
        int32_t *id = (int32_t *)(void *)(choice + (m * 2 + 1) * s.n_used), *first = hn_ints(h, 1, s.n_expert);
        for (int k = 0; k < s.n_used; k++) id[k] = ((s.spread ? 1 : *first) + k) % s.n_expert;
    }
    c.choice = choice;
    hn_run(h, moe_body, &c);
}

/* Columns that a format can have. */
static int64_t cols_of(fa_weight kind, int i) {
    static const int64_t some[] = {64, 320, 96, 256, 512};
    if (fa_qfmts[kind.fmt].block == 256) return i % 2 ? 512 : 256;
    if (kind.group == 128) return i % 2 ? 384 : 128;
    return some[i % 5];
}

static void formats(harness *h, int rows, int from, int to) {
    for (int f = 0; f < hn_n_kinds; f++) {
        const fa_weight kind = hn_kinds[f];
        for (int v = from; v < to; v++) {
            shape s = {.n_expert = 5, .n_used = 2, .rows = rows, .gated = true, .scale = 1, .act = FA_ACT_SILU};
            s.dim = cols_of(kind, f + v), s.ff = cols_of(kind, f + v + 2);
            s.bias = v & 1, s.add = v & 1;
            if (v & 1) s.scale = 0.3f;
            if (!hn_fits(kind, s.dim) || !hn_fits(kind, s.ff)) s.dim = s.ff = 512;
            char buf[32];
            hn_case(h, "experts in %s %d/%d, %lld and %lld, %d rows", fa_weight_fmt_text(&kind, buf), kind.group,
                    kind.scale_dtype, (long long)s.dim, (long long)s.ff, rows);
            run_moe(h, kind, s);
        }
    }
}

static void shapes(harness *h, int rows) {
    static const fa_weight bf16 = {.fmt = FA_FMT_BF16}, f32 = {.fmt = FA_FMT_F32},
                           a4 = {.fmt = FA_FMT_AFFINE, .bits = 4, .group = 64, .scale_dtype = FA_BF16};
    static const shape list[] = {
        {1, 1, 0, 64, 64, true, false, false, 0, 1, FA_ACT_SILU, {0}, 0},
        {7, 3, 0, 66, 35, true, true, true, 0, 1.5f, FA_ACT_GELU_TANH, {0}, 0},
        {4, 2, 0, 50, 13, false, true, false, 0, 1, FA_ACT_RELU2, {0}, 0},
        {16, 9, 0, 130, 201, true, false, true, 0, 1, FA_ACT_SILU, {0}, 0},
        {6, 4, 0, 192, 96, true, true, true, 7, 1, FA_ACT_GELU_QUICK, {0}, 1},
        {3, 1, 0, 200, 1024, false, false, true, 0.5f, 0.25f, FA_ACT_SILU, {0}, 1},
        {40, 8, 0, 72, 40, true, false, true, 0, 1, FA_ACT_SILU, {0}, 0},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        for (int v = 0; v < 3; v++) {
            shape s = list[i];
            fa_weight kind = v == 0 ? bf16 : v == 1 ? f32 : a4;
            if (v == 2) s.dim = (s.dim + 63) / 64 * 64, s.ff = (s.ff + 63) / 64 * 64;
            if (v == 2 && i % 2) s.down = bf16;
            s.rows = rows;
            hn_case(h, "experts %zu in %s, %d rows", i, v == 0 ? "bf16" : v == 1 ? "f32" : "affine 4", rows);
            hn_repeats(h, i == 1 && rows < 64 ? 3 : 1);
            run_moe(h, kind, s);
        }
    hn_repeats(h, 1);
}

static void each_precision(void (*run)(harness *)) {
    for (int exact = 0; exact < 2; exact++) {
        harness *h = hn_open(&(hn_opts){.exact = exact});
        if (!exact) hn_limits(h, 0.1, 1e-4);
        run(h);
        hn_close(h);
    }
}

static void few(harness *h) {
    formats(h, 1, 0, 2);
    shapes(h, 1);
    shapes(h, 3);
}
/* More choices than one block sorts, several tiles of an expert. */
static void tall(harness *h) {
    static const fa_weight kinds[] = {{.fmt = FA_FMT_BF16},
                                      {.fmt = FA_FMT_F16},
                                      {.fmt = FA_FMT_AFFINE, .bits = 4, .group = 32, .scale_dtype = FA_F16}};
    for (int i = 0; i < 3; i++) {
        shape s = {5, 4, 270, 160, 96, true, true, true, 0, 0.5f, FA_ACT_SILU, {0}, 1};
        hn_case(h, "tall %d", i);
        run_moe(h, kinds[i], s);
    }
}
static void many(harness *h) {
    tall(h);
    formats(h, 37, 1, 2);
    shapes(h, 17);
    shapes(h, 150);
}

static void test_few(void **state) {
    (void)state;
    each_precision(few);
}
static void test_many(void **state) {
    (void)state;
    each_precision(many);
}

/* A gate in another format than the up projection; experts that do not lie at equal distances. */
static void test_mixed(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++)
        for (int rows = 2; rows < 80; rows += 60) {
            harness *h = hn_open(&(hn_opts){.exact = exact});
            moe_case c = {.h = h, .rows = rows, .dim = 128, .n_used = 2, .scale = 1};
            hn_case(h, "mixed experts");
            hn_seqs(h, (hn_seq[]){{.n = rows}}, 1);
            make_stack(h, (fa_weight){.fmt = FA_FMT_BF16}, 4, 64, 128, false, &c.at[0].gate, &c.at[1].gate);
            make_stack(h, (fa_weight){.fmt = FA_FMT_Q8_0}, 4, 64, 128, false, &c.at[0].up, &c.at[1].up);
            make_stack(h, (fa_weight){.fmt = FA_FMT_F16}, 4, 128, 64, false, &c.at[0].down, &c.at[1].down);
            c.x = hn_floats(h, rows * 128, 1);
            float *choice = hn_floats(h, rows * 4, 1);
            for (int i = 0; i < rows; i++) {
                int32_t *id = (int32_t *)(void *)(choice + i * 4 + 2);
                id[0] = i % 4, id[1] = (i / 4 + 1 + i) % 4;
            }
            c.choice = choice;
            hn_run(h, moe_body, &c);
            fa_weight swap = c.at[1].up.w[1];
            c.at[1].up.w[1] = c.at[1].up.w[2];
            c.at[1].up.w[2] = swap;
            assert_non_null(strstr(hn_refused(h, moe_body, &c), "equal distances"));
            hn_close(h);
        }
}

/* ---- norm, router, choice, experts ---- */

typedef struct layer_case {
    harness *h;
    hn_norm *norm;
    hn_linear *router;
    fa_route route;
    fa_moe at[2];
    const float *x;
    int64_t rows, dim;
    fa_tensor logits, choice; /* of the device */
} layer_case;

static void layer_body(fa_cx *cx, int side, void *arg) {
    layer_case *c = arg;
    fa_tensor h = hn_input(c->h, cx, side, c->x, c->rows, c->dim, FA_F32);
    fa_tensor x = fa_norm_op(cx, h, &c->norm->at[side]);
    fa_tensor logits = fa_linear_op(cx, x, &c->router->at[side]), choice = fa_route_op(cx, logits, &c->route);
    if (side == HN_DEV) c->logits = logits, c->choice = choice;
    hn_expect(c->h, side, "x", x);
    hn_expect(c->h, side, "logits", logits);
    if (c->route.n_used < c->route.n_expert) return; /* others may be chosen by logits that are nearly equal */
    fa_moe_add(cx, h, x, choice, &c->at[side], 1);
    hn_expect(c->h, side, "h", h);
}

/* The device's choice is the best by its own logits. */
static void check_choice(const layer_case *c) {
    const int n = c->route.n_expert, used = c->route.n_used;
    const float *logits = hn_values(c->h, HN_DEV, c->logits), *choice = hn_values(c->h, HN_DEV, c->choice);
    for (int64_t m = 0; m < c->rows; m++)
        for (int k = 0; k < used; k++) {
            int32_t e, before = -1;
            memcpy(&e, choice + (2 * m + 1) * used + k, 4);
            if (k) memcpy(&before, choice + (2 * m + 1) * used + k - 1, 4);
            assert_in_range(e, 0, n - 1);
            if (k) assert_true(logits[m * n + before] >= logits[m * n + e]);
            int better = 0;
            for (int i = 0; i < n; i++) better += logits[m * n + i] > logits[m * n + e];
            assert_in_range(better, 0, k);
        }
}

static void layers(harness *h, bool exact) {
    static const struct {
        int n_expert, n_used, rows;
        int64_t dim, ff;
    } sizes[] = {
        {128, 8, 1, 512, 64}, {5, 5, 3, 320, 64},   {9, 9, 16, 256, 192}, {40, 40, 2, 1088, 128},
        {64, 3, 17, 64, 64},  {512, 4, 4, 256, 64}, /* choosing takes more memory than what streams in */
    };
    static const fa_weight kinds[] = {{.fmt = FA_FMT_AFFINE, .bits = 4, .group = 64, .scale_dtype = FA_BF16},
                                      {.fmt = FA_FMT_AFFINE, .bits = 8, .group = 64, .scale_dtype = FA_F16},
                                      {.fmt = FA_FMT_BF16},
                                      {.fmt = FA_FMT_Q8_0},
                                      {.fmt = FA_FMT_NVFP4, .bits = 4, .group = 16, .scale_dtype = FA_F8_E4M3}};
    for (int i = 0; i < 6; i++)
        for (int f = i < 5 ? 0 : 4; f < (i < 5 ? 4 : 5); f++) {
            layer_case c = {.h = h, .rows = sizes[i].rows, .dim = sizes[i].dim};
            const int n = sizes[i].n_expert;
            hn_case(h, "layer %d of kind %d", i, f);
            hn_seqs(h, (hn_seq[]){{.n = (int)c.rows}}, 1);
            c.route = (fa_route){.n_expert = n, .n_used = sizes[i].n_used, .n_group = 1, .n_group_used = 1, .scale = 1};
            c.route.score = f % 2 ? FA_SCORE_SOFTMAX : FA_SCORE_TOP_SOFTMAX, c.route.normalise = f != 1;
            c.norm = hn_make_norm(h, c.dim, f & 1, f != 2);
            c.router = hn_make_linear(h, kinds[f], n, c.dim, f == 1);
            for (int side = 0; side < 2; side++) c.at[side].act = FA_ACT_SILU;
            if (sizes[i].n_used == n) {
                make_stack(h, kinds[f], n, sizes[i].ff, c.dim, false, &c.at[0].gate, &c.at[1].gate);
                make_stack(h, kinds[f], n, sizes[i].ff, c.dim, false, &c.at[0].up, &c.at[1].up);
                make_stack(h, kinds[f], n, c.dim, sizes[i].ff, false, &c.at[0].down, &c.at[1].down);
            }
            c.x = hn_floats(h, c.rows * c.dim, 2);
            if (!exact) hn_limits(h, 0.2, 1e-3);
            hn_repeats(h, 3);
            hn_run(h, layer_body, &c);
            if (c.route.score == FA_SCORE_TOP_SOFTMAX) check_choice(&c); /* shares that are 0 tie */
        }
}

static void test_layer(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        harness *h = hn_open(&(hn_opts){.exact = exact});
        layers(h, exact);
        hn_close(h);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_route), cmocka_unit_test(test_few),
                                       cmocka_unit_test(test_many), cmocka_unit_test(test_mixed),
                                       cmocka_unit_test(test_layer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
