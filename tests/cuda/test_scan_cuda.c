/* Recurrent layers on the device against their definitions on the CPU: outputs and every state that is written, from
 * zeros and from states, in place and from one to another, with copies kept on the way; ragged batches, decode steps
 * with sequences that nobody reads, graphs. States that no sequence writes must stay as they are. */
#include "cuda/harness.h"

#include <math.h>
#include <string.h>

/* Batches: sequences and their states. */
typedef struct shape {
    const char *name;
    int n, repeats;
    hn_seq seq[6];
    hn_recur recur[6];
} shape;

static const shape shapes[] = {
    {"one row", 1, 1, {{.n = 1}}, {{.in = -1, .out = 0}}},
    {"one row from a state, in place", 1, 1, {{.past = 9, .n = 1}}, {{.in = 1, .out = 1}}},
    {"a prompt", 1, 1, {{.n = 37}}, {{.in = -1, .out = 2}}},
    {"a prompt of more than two pieces, kept", 1, 1, {{.n = 150}}, {{.in = -1, .out = 0, .keep = {70, 129}}}},
    {"a prompt that goes on, in place", 1, 1, {{.past = 70, .n = 131}}, {{.in = 0, .out = 0}}},
    {"ragged",
     5,
     1,
     {{.past = 3, .n = 1}, {.n = 1}, {.past = 5, .n = 2}, {.past = 64, .n = 65}, {.n = 130}},
     {{.in = 0, .out = 1},
      {.in = -1, .out = 2},
      {.in = 3, .out = 4, .keep = {1}},
      {.in = 5, .out = 6, .keep = {1, 64}},
      {.in = -1, .out = 7, .keep = {2, 3}}}},
    /* the last two fill up the step: both write the spare state, from zeros */
    {"decode, repeated",
     4,
     4,
     {{.past = 3, .n = 1}, {.past = 8, .n = 1}, {.n = 1}, {.n = 1}},
     {{.in = 4, .out = 1}, {.in = 2, .out = 2}, {.in = -1, .out = 0}, {.in = -1, .out = 0}}},
    {"a prompt, repeated", 2, 3, {{.past = 3, .n = 66}, {.n = 5}}, {{.in = 0, .out = 1}, {.in = -1, .out = 2}}},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct ctx {
    harness *h;
    int rows, x_cols, at[5]; /* of the input: columns, and where parts begin */
    int keys, values;        /* columns */
    const float *x, *z;
    hn_states *st;
    fa_conv conv[2];
    fa_ssm1 ssm1[2];
    fa_ssd ssd[2];
    fa_delta delta[2];
    fa_gate gate[2];
    const float *scale[2];
    hn_linear *proj; /* behind a step's gate, or NULL */
    const float *res;
} ctx;

/* Begins a case with a batch. */
static void begin(ctx *c, const shape *s, const char *what) {
    hn_case(c->h, "%s: %s", what, s->name);
    hn_seqs(c->h, s->seq, s->n);
    hn_repeats(c->h, s->repeats);
    c->rows = hn_batch(c->h, HN_CPU)->n_tok;
    if (strstr(s->name, "decode")) /* sequences that fill up a step have the same token, and here the same input */
        assert_int_equal(hn_batch(c->h, HN_CPU)->n_dec, s->n);
}

/* The input's rows; those of the last two sequences of a decode step are the same, since both go to one state. */
static void make_input(ctx *c, const shape *s, int cols, float scale) {
    float *x = hn_floats(c->h, (int64_t)c->rows * cols, scale);
    if (strstr(s->name, "decode")) memcpy(x + (c->rows - 1) * cols, x + (c->rows - 2) * cols, (size_t)cols * sizeof *x);
    c->x = x, c->x_cols = cols;
}

/* n floats on both sides: low + (high - low) * random */
static void vector(harness *h, int64_t n, float low, float high, const float **cpu, const float **dev) {
    float *x = hn_floats(h, n, 1);
    for (int64_t i = 0; i < n; i++) x[i] = low + (high - low) * (0.5f * x[i] + 0.5f);
    *cpu = x;
    *dev = hn_upload(h, x, (size_t)n * sizeof *x);
}

static fa_view from(ctx *c, fa_cx *cx, fa_tensor t, int part) { return fa_from(cx, t, c->at[part]); }
static fa_tensor input(ctx *c, fa_cx *cx, int side) {
    return hn_input(c->h, cx, side, c->x, c->rows, c->x_cols, FA_F32);
}

/* ---- convolution ---- */

static void conv_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    hn_expect(c->h, side, "conv", fa_conv_op(cx, from(c, cx, input(c, cx, side), 0), &c->conv[side], &c->st->at[side]));
}

static void test_conv(void **state) {
    static const struct {
        int n, kernel, front, act;
        bool bias;
    } sizes[] = {{5, 4, 3, FA_ACT_SILU, true},     {200, 4, 8, FA_ACT_SILU, false}, {129, 3, 0, FA_ACT_LINEAR, true},
                 {64, 2, 1, FA_ACT_LINEAR, false}, {33, 7, 2, FA_ACT_SILU, true},   {3, 1, 0, FA_ACT_SILU, true}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int i = 0; i < N_SHAPES; i++) {
            const int n = sizes[k].n, kernel = sizes[k].kernel;
            ctx c = {.h = (harness *)*state, .at = {sizes[k].front}};
            begin(&c, &shapes[i], "conv");
            make_input(&c, &shapes[i], n + sizes[k].front + 2, 2);
            fa_conv w = {.n = n, .kernel = kernel, .act = (fa_act_fn)sizes[k].act, .state_at = i % 2 * 3};
            c.conv[0] = c.conv[1] = w;
            vector(c.h, n * kernel, -1, 1, &c.conv[0].w, &c.conv[1].w);
            if (sizes[k].bias) vector(c.h, n, -1, 1, &c.conv[0].bias, &c.conv[1].bias);
            c.st = hn_make_states(c.h, (int64_t)n * (kernel - 1) + 3, 5, shapes[i].recur);
            c.st->n_conv -= 3, c.st->conv_at = w.state_at;
            c.st->n_scan = 0; /* nothing writes those */
            hn_run(c.h, conv_body, &c);
        }
}

/* ---- Mamba 1 ---- */

static void ssm1_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = input(c, cx, side);
    hn_expect(c->h, side, "ssm1",
              fa_ssm1_op(cx, from(c, cx, x, 0), from(c, cx, x, 1), from(c, cx, x, 2), from(c, cx, x, 3), &c->ssm1[side],
                         &c->st->at[side]));
}

static void test_ssm1(void **state) {
    static const struct {
        int dim, n_state;
    } sizes[] = {{64, 16}, {37, 16}, {130, 8}, {5, 1}, {9, 5}, {21, 65}, {17, 256}, {12, 64}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int i = 0; i < N_SHAPES; i++) {
            const int dim = sizes[k].dim, n = sizes[k].n_state;
            ctx c = {.h = (harness *)*state, .at = {1, 1 + dim, 2 + 2 * dim, 2 + 2 * dim + n}};
            begin(&c, &shapes[i], "ssm1");
            make_input(&c, &shapes[i], 2 + 2 * dim + 2 * n, 1.5f);
            c.ssm1[0] = c.ssm1[1] = (fa_ssm1){.dim = dim, .n_state = n};
            vector(c.h, dim * n, -1, -0.02f, &c.ssm1[0].a, &c.ssm1[1].a);
            vector(c.h, dim, -1, 1, &c.ssm1[0].d, &c.ssm1[1].d);
            c.st = hn_make_states(c.h, 3, (int64_t)dim * n, shapes[i].recur);
            c.st->n_conv = 0;
            hn_run(c.h, ssm1_body, &c);
        }
}

/* ---- Mamba 2 ---- */

static void ssd_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = input(c, cx, side);
    hn_expect(c->h, side, "ssd",
              fa_ssd_op(cx, from(c, cx, x, 0), from(c, cx, x, 1), from(c, cx, x, 2), from(c, cx, x, 3), &c->ssd[side],
                        &c->st->at[side]));
}

/* heads, groups, columns and states of a head; pad: columns in front of the parts */
typedef struct head_size {
    int n_head, n_group, p, n, pad;
} head_size;

static void run_ssd(harness *h, const shape *s, head_size z, float dt) {
    const int dim = z.n_head * z.p, bc = z.n_group * z.n;
    ctx c = {.h = h, .at = {z.pad, z.pad + dim, (z.pad + dim + z.n_head + 3) & ~3}};
    c.at[3] = c.at[2] + bc;
    begin(&c, s, "ssd");
    make_input(&c, s, (c.at[3] + bc + 7) & ~3, 1.2f);
    c.ssd[0] = (fa_ssd){.n_head = z.n_head, .head_dim = z.p, .n_state = z.n, .n_group = z.n_group};
    c.ssd[0].dt_min = 0.001f, c.ssd[0].dt_max = dt > 0 ? 1e30f : 0.4f;
    c.ssd[1] = c.ssd[0];
    vector(h, z.n_head, -1.2f, -0.02f, &c.ssd[0].a, &c.ssd[1].a);
    vector(h, z.n_head, -1, 1, &c.ssd[0].d, &c.ssd[1].d);
    vector(h, z.n_head, dt - 3, dt, &c.ssd[0].dt_bias, &c.ssd[1].dt_bias);
    c.st = hn_make_states(h, 3, (int64_t)dim * z.n, s->recur);
    c.st->n_conv = 0;
    hn_run(h, ssd_body, &c);
}

static void test_ssd(void **state) {
    static const head_size sizes[] = {{2, 1, 64, 128, 4}, {4, 2, 8, 16, 0},   {3, 3, 5, 7, 1}, {6, 2, 33, 70, 3},
                                      {2, 2, 16, 256, 0}, {2, 1, 48, 64, 12}, {1, 1, 1, 1, 0}, {2, 1, 40, 32, 2}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int i = 0; i < N_SHAPES; i++) run_ssd((harness *)*state, &shapes[i], sizes[k], k % 3 == 2 ? 3.0f : 0.0f);
}

/* ---- gated delta rule ---- */

static void delta_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = input(c, cx, side);
    hn_expect(c->h, side, "delta",
              fa_delta_op(cx, from(c, cx, x, 0), from(c, cx, x, 1), from(c, cx, x, 2), from(c, cx, x, 3),
                          from(c, cx, x, 4), &c->delta[side], &c->st->at[side]));
}

/* n_head value heads, n_group key heads, n: of keys, p: of values; slow: decays near 1, so that states grow old */
static void run_delta(harness *h, const shape *s, head_size z, bool slow) {
    const int keys = z.n_group * z.n, values = z.n_head * z.p;
    ctx c = {.h = h, .at = {z.pad, z.pad + keys, z.pad + 2 * keys}};
    c.at[3] = c.at[2] + values, c.at[4] = c.at[3] + z.n_head;
    begin(&c, s, "delta");
    make_input(&c, s, (c.at[4] + z.n_head + 7) & ~3, 1.2f);
    fa_delta w = {.n_k_head = z.n_group, .n_v_head = z.n_head, .k_dim = z.n, .v_dim = z.p, .eps = 1e-6f};
    w.beta_scale = slow ? 2.0f : 1.0f;
    w.tiled = slow;
    c.delta[0] = c.delta[1] = w;
    vector(h, z.n_head, slow ? -0.02f : -2, -0.01f, &c.delta[0].decay, &c.delta[1].decay);
    vector(h, z.n_head, -1, 1, &c.delta[0].dt_bias, &c.delta[1].dt_bias);
    c.st = hn_make_states(h, 3, (int64_t)values * z.n, s->recur);
    c.st->n_conv = 0;
    hn_run(h, delta_body, &c);
}

static void test_delta(void **state) {
    static const head_size sizes[] = {{2, 1, 128, 128, 4}, {4, 2, 8, 16, 0},  {3, 3, 5, 7, 1}, {6, 2, 33, 70, 3},
                                      {2, 2, 16, 256, 0},  {2, 1, 48, 64, 8}, {1, 1, 1, 1, 0}, {2, 1, 40, 32, 2}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int i = 0; i < N_SHAPES; i++) run_delta((harness *)*state, &shapes[i], sizes[k], k % 2);
}

/* ---- gates ---- */

static void gate_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor z = hn_input(c->h, cx, side, c->z, c->rows, c->x_cols + c->at[0] + 1, FA_F32);
    fa_tensor y = input(c, cx, side);
    fa_gate_norm(cx, y, from(c, cx, z, 0), &c->gate[side]);
    hn_expect(c->h, side, "gated", y);
    fa_tensor x = input(c, cx, side);
    fa_scale_cols(cx, x, c->scale[side]);
    hn_expect(c->h, side, "scaled", x);
}

static void test_gate(void **state) {
    static const struct {
        int n, group;
    } sizes[] = {{1, 1}, {24, 8}, {35, 7}, {35, 0}, {512, 128}, {600, 300}, {4608, 4608}, {777, 259}, {4096, 0}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int v = 0; v < 6; v++) {
            const shape s = {"rows", 1, v == 5 ? 3 : 1, {{.n = v == 4 ? 1 : 11}}, {{0}}};
            const int n = sizes[k].n, group = sizes[k].group;
            ctx c = {.h = (harness *)*state, .at = {v}};
            begin(&c, &s, "gate");
            make_input(&c, &s, n, v == 3 ? 1e20f : 2);
            c.z = hn_floats(c.h, (int64_t)c.rows * (n + v + 1), 4);
            fa_gate w = {.group = group, .shared = v & 1, .norm_first = v & 2, .eps = 1e-5f};
            w.act = v == 4 ? FA_ACT_SIGMOID : FA_ACT_SILU;
            c.gate[0] = c.gate[1] = w;
            if (group) vector(c.h, w.shared ? group : n, -1, 2, &c.gate[0].w, &c.gate[1].w);
            vector(c.h, n, -1, 2, &c.scale[0], &c.scale[1]);
            hn_run(c.h, gate_body, &c);
        }
}

/* ---- decode steps: a convolution, a scan and a gate, one after the other ---- */

enum { PROJ_ROWS = 19 };

static void step_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    const bool delta = c->delta[side].n_v_head > 0;
    const int64_t keys = c->keys, values = c->values;
    fa_tensor p = input(c, cx, side); /* z | dt, beta | channels */
    fa_tensor h = {0};
    if (c->proj) h = hn_input(c->h, cx, side, c->res, c->rows, PROJ_ROWS, FA_F32);
    fa_tensor u = fa_conv_op(cx, from(c, cx, p, 2), &c->conv[side], &c->st->at[side]), y;
    if (delta)
        y = fa_delta_op(cx, fa_from(cx, u, 0), fa_from(cx, u, keys), fa_from(cx, u, 2 * keys), from(c, cx, p, 1),
                        fa_from(cx, p, c->at[1] + c->delta[0].n_v_head), &c->delta[side], &c->st->at[side]);
    else
        y = fa_ssd_op(cx, fa_from(cx, u, 0), from(c, cx, p, 1), fa_from(cx, u, values), fa_from(cx, u, values + keys),
                      &c->ssd[side], &c->st->at[side]);
    if (c->gate[side].eps > 0) fa_gate_norm(cx, y, from(c, cx, p, 0), &c->gate[side]);
    if (c->proj) { /* may take a norm of all columns along; y must be there as well */
        fa_linear_add(cx, h, y, &c->proj->at[side], NULL, 1);
        hn_expect(c->h, side, "projected", h);
    }
    hn_expect(c->h, side, "convolved", u);
    hn_expect(c->h, side, "y", y);
}

/* group: heads of a norm's group; 0: no norm; -1: no gate */
static void run_step(harness *h, const shape *s, head_size z, bool delta, int group, int kernel, bool first) {
    const int n_bc = z.n_group * z.n, dim = z.n_head * z.p;
    ctx c = {.h = h, .keys = n_bc, .values = dim, .at = {1, 1 + dim, 1 + dim + 2 * z.n_head}};
    begin(&c, s, delta ? "delta step" : "ssd step");
    make_input(&c, s, c.at[2] + 2 * n_bc + dim, 1.2f);
    c.conv[0] = c.conv[1] = (fa_conv){.n = 2 * n_bc + dim, .kernel = kernel, .act = FA_ACT_SILU};
    vector(h, c.conv[0].n * kernel, -1, 1, &c.conv[0].w, &c.conv[1].w);
    if (first) vector(h, c.conv[0].n, -1, 1, &c.conv[0].bias, &c.conv[1].bias);
    if (delta) {
        c.delta[0] = (fa_delta){.n_k_head = z.n_group, .n_v_head = z.n_head, .k_dim = z.n, .v_dim = z.p};
        c.delta[0].eps = 1e-6f, c.delta[0].beta_scale = 1, c.delta[0].tiled = first;
        c.delta[1] = c.delta[0];
        vector(h, z.n_head, -1, -0.01f, &c.delta[0].decay, &c.delta[1].decay);
        vector(h, z.n_head, -1, 1, &c.delta[0].dt_bias, &c.delta[1].dt_bias);
    } else {
        c.ssd[0] = (fa_ssd){.n_head = z.n_head, .head_dim = z.p, .n_state = z.n, .n_group = z.n_group};
        c.ssd[0].dt_max = 1e30f;
        c.ssd[1] = c.ssd[0];
        vector(h, z.n_head, -1.2f, -0.02f, &c.ssd[0].a, &c.ssd[1].a);
        vector(h, z.n_head, -1, 1, &c.ssd[0].d, &c.ssd[1].d);
        vector(h, z.n_head, -1, 1, &c.ssd[0].dt_bias, &c.ssd[1].dt_bias);
    }
    fa_gate w = {.group = group > 0 ? group * z.p : 0, .norm_first = first, .shared = delta, .eps = 1e-5f};
    w.act = first ? FA_ACT_SIGMOID : FA_ACT_SILU;
    if (group < 0) w.eps = 0;
    c.gate[0] = c.gate[1] = w;
    if (w.group) vector(h, delta ? w.group : dim, -1, 2, &c.gate[0].w, &c.gate[1].w);
    c.st = hn_make_states(h, (int64_t)c.conv[0].n * (kernel - 1), (int64_t)dim * z.n, s->recur);
    if (group > 0) {
        c.proj = hn_make_linear(h, (fa_weight){.fmt = kernel == 4 ? FA_FMT_BF16 : FA_FMT_F32}, PROJ_ROWS, dim, first);
        c.res = hn_floats(h, (int64_t)c.rows * PROJ_ROWS, 1);
    }
    hn_run(h, step_body, &c);
}

static void test_step(void **state) {
    static const shape steps[] = {
        {"one row", 1, 3, {{.n = 1}}, {{.in = -1, .out = 0}}},
        {"decode, repeated",
         4,
         4,
         {{.past = 3, .n = 1}, {.past = 8, .n = 1}, {.n = 1}, {.n = 1}},
         {{.in = 4, .out = 1}, {.in = 2, .out = 3}, {.in = -1, .out = 0}, {.in = -1, .out = 0}}},
        {"a row to keep",
         2,
         1,
         {{.past = 3, .n = 1}, {.n = 1}},
         {{.in = 1, .out = 2, .keep = {1}}, {.in = -1, .out = 0}}},
        {"a prompt", 1, 1, {{.n = 20}}, {{.in = -1, .out = 2}}}, /* three kernels */
    };
    static const head_size sizes[] = {{2, 1, 64, 128, 0}, {6, 2, 8, 16, 0}, {3, 3, 5, 7, 0},  {6, 2, 33, 70, 0},
                                      {2, 2, 16, 256, 0}, {1, 1, 1, 1, 0},  {4, 1, 40, 32, 0}};
    for (int k = 0; k < (int)(sizeof sizes / sizeof sizes[0]); k++)
        for (int i = 0; i < (int)(sizeof steps / sizeof steps[0]); i++)
            for (int delta = 0; delta < 2; delta++) {
                const int per = sizes[k].n_head / sizes[k].n_group, kernel = k == 4 ? 3 : k == 5 ? 1 : k == 6 ? 6 : 4;
                const int group = k == 2 ? -1 : k == 3 ? 0 : delta ? 1 : per;
                run_step((harness *)*state, &steps[i], sizes[k], delta, group, kernel, (i + k) % 2);
            }
}

static void test_refused(void **state) {
    ctx c = {.h = (harness *)*state, .at = {0, 1, 2, 260}};
    begin(&c, &shapes[0], "too many states");
    make_input(&c, &shapes[0], 600, 1);
    c.ssd[1] = (fa_ssd){.n_head = 1, .head_dim = 1, .n_state = 257, .n_group = 1};
    c.st = hn_make_states(c.h, 0, 257, shapes[0].recur);
    assert_non_null(strstr(hn_refused(c.h, ssd_body, &c), "257 states"));
}

static int setup(void **state) {
    *state = hn_open(&(hn_opts){.exact = true});
    return 0;
}
static int setup_fast(void **state) {
    *state = hn_open(&(hn_opts){.exact = false});
    hn_limits((harness *)*state, 2e-2, 2e-5);
    return 0;
}
static int teardown(void **state) {
    hn_close((harness *)*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest exact[] = {cmocka_unit_test(test_conv),   cmocka_unit_test(test_ssm1),
                                       cmocka_unit_test(test_ssd),    cmocka_unit_test(test_delta),
                                       cmocka_unit_test(test_gate),   cmocka_unit_test(test_step),
                                       cmocka_unit_test(test_refused)};
    const struct CMUnitTest fast[] = {cmocka_unit_test(test_ssd), cmocka_unit_test(test_delta)};
    int failed = cmocka_run_group_tests(exact, setup, teardown);
    return failed + cmocka_run_group_tests(fast, setup_fast, teardown);
}
