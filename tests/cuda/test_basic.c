/* Row-wise operations on the device against the CPU: odd sizes, sizes that are moved four by four, in-place ones, both
 * input types, caches of all types with scattered pages in several groups, rotations of all kinds at late positions. */
#include "cuda/harness.h"

#include <math.h>
#include <string.h>

typedef struct ctx {
    harness *h;
    int64_t rows, cols, heads;
    fa_dtype type;
    const float *x, *y;
    hn_norm *norm;
    const fa_rope *rope;
    bool interleaved;
    fa_act_fn act;
    hn_kv *kv[3];
    int n_kv;
    const float *order[2]; /* of columns, on either side */
} ctx;

static const int64_t all_cols[] = {1, 2, 3, 7, 8, 60, 64, 127, 256, 1023, 1024, 1536, 4096, 5121};
enum { N_COLS = sizeof all_cols / sizeof all_cols[0] };

/* ---- norms ---- */

static void norm_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->cols, c->type);
    hn_expect(c->h, side, "norm", fa_norm_op(cx, x, &c->norm->at[side]));
}

static void test_norm(void **state) {
    harness *h = (harness *)*state;
    for (int i = 0; i < N_COLS; i++)
        for (int v = 0; v < 4; v++) {
            ctx c = {.h = h, .rows = 1 + (i + v) % 5, .cols = all_cols[i], .type = v == 3 ? FA_BF16 : FA_F32};
            hn_case(h, "norm [%lld, %lld] variant %d", (long long)c.rows, (long long)c.cols, v);
            hn_seqs(h, (hn_seq[]){{.n = (int)c.rows}}, 1);
            /* a bf16 input is made of values that both sides hold alike */
            float *x = hn_floats(h, c.rows * c.cols, 3);
            for (int64_t j = 0; j < c.rows * c.cols && v == 3; j++) x[j] = floorf(x[j] * 32) / 32;
            c.x = x;
            c.norm = hn_make_norm(h, c.cols, v == 1 ? 1.0f : 0.0f, v != 2);
            hn_run(h, norm_body, &c);
        }
    /* sums of squares that leave the range of float */
    for (int v = 0; v < 2; v++) {
        ctx c = {.h = h, .rows = 2, .cols = 96 + v, .type = FA_F32};
        hn_case(h, "norm of %s values", v ? "tiny" : "huge");
        hn_seqs(h, (hn_seq[]){{.n = 2}}, 1);
        c.x = hn_floats(h, c.rows * c.cols, v ? 1e-21f : 1e20f);
        c.norm = hn_make_norm(h, c.cols, 0, true);
        hn_run(h, norm_body, &c);
    }
}

/* As a norm of the whole width works in place. */
static void norm_in_place_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->cols, FA_F32);
    fa_rec r = {.in = {x}, .out = x};
    r.p.norm = &c->norm->at[side];
    fa_cx_record(cx, FA_OP_NORM, &r);
    hn_expect(c->h, side, "in place", x);
}

static void add_norm_bias(harness *h, hn_norm *n, int64_t dim) {
    const float *b = hn_floats(h, dim, 1);
    n->at[HN_CPU].b = b;
    n->at[HN_DEV].b = hn_upload(h, b, (size_t)dim * sizeof *b);
}

static void test_layer_norm(void **state) {
    harness *h = (harness *)*state;
    for (int i = 0; i < N_COLS; i++)
        for (int v = 0; v < 4; v++) {
            ctx c = {.h = h, .rows = 1 + (i + v) % 4, .cols = all_cols[i], .type = v == 3 ? FA_BF16 : FA_F32};
            hn_case(h, "layer norm [%lld, %lld] variant %d", (long long)c.rows, (long long)c.cols, v);
            hn_seqs(h, (hn_seq[]){{.n = (int)c.rows}}, 1);
            float *x = hn_floats(h, c.rows * c.cols, 3);
            for (int64_t j = 0; j < c.rows * c.cols; j++) x[j] = floorf(x[j] * 32) / 32 + (v == 1 ? 100 : 0);
            c.x = x;
            c.norm = hn_make_norm(h, c.cols, v == 1 ? 1.0f : 0.0f, v != 2);
            c.norm->at[HN_CPU].center = c.norm->at[HN_DEV].center = true;
            if (v % 2) add_norm_bias(h, c.norm, c.cols);
            hn_run(h, norm_body, &c);
            hn_run(h, norm_in_place_body, &c);
            c.norm->at[HN_CPU].center = c.norm->at[HN_DEV].center = false;
            hn_run(h, norm_in_place_body, &c);
        }
}

static void head_norm_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->heads * c->cols, FA_F32);
    fa_head_norm(cx, x, &c->norm->at[side]);
    hn_expect(c->h, side, "heads", x);
}

static void test_head_norm(void **state) {
    harness *h = (harness *)*state;
    static const int64_t dims[] = {2, 5, 32, 64, 80, 128, 130, 256, 512, 1000};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        ctx c = {.h = h, .rows = 1 + (int64_t)i * 3, .cols = dims[i], .heads = 1 + (int64_t)i % 4};
        hn_case(h, "head_norm %lld rows, %lld heads of %lld", (long long)c.rows, (long long)c.heads, (long long)c.cols);
        hn_seqs(h, (hn_seq[]){{.n = (int)c.rows}}, 1);
        c.x = hn_floats(h, c.rows * c.heads * c.cols, i == 2 ? 1e20f : 2);
        c.norm = hn_make_norm(h, c.cols, i % 2 ? 1.0f : 0.0f, i != 3);
        hn_run(h, head_norm_body, &c);
        if (i == 2) continue;
        c.norm->at[HN_CPU].center = c.norm->at[HN_DEV].center = true;
        if (i % 2) add_norm_bias(h, c.norm, c.cols);
        hn_run(h, head_norm_body, &c);
    }
}

/* ---- rotation ---- */

static void rope_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->heads * c->cols, FA_F32);
    fa_tensor t = fa_rope_table(cx, c->rope);
    fa_rope_apply(cx, x, t, c->cols, c->interleaved);
    hn_expect(c->h, side, "table", t);
    hn_expect(c->h, side, "rotated", x);
}

/* Two sequences, the second one late; its rows' positions start at `late`. */
static void place(harness *h, int n, int32_t late) {
    hn_seqs(h, (hn_seq[]){{.past = 5, .n = n - n / 2}, {.past = 1000, .n = n / 2}}, 2);
    for (int side = 0; side < 2; side++) {
        fa_batch *b = hn_batch(h, side);
        for (int i = 0; i < n; i++)
            if (b->row_seq[i] == 1) b->pos[i] += late;
    }
}

static void test_rope(void **state) {
    harness *h = (harness *)*state;
    static const int pairs[] = {1, 2, 3, 16, 32, 37, 64, 128, 256};
    for (int i = 0; i < 9; i++)
        for (int kind = 0; kind < 5; kind++) {
            int np = pairs[i];
            float *inv = NULL, *inv_long = NULL;
            ctx c = {.h = h, .rows = 9, .cols = 2 * np + (kind == 1 ? 6 : 0), .heads = 3, .interleaved = kind == 2};
            hn_case(h, "rope %d pairs of %lld, kind %d", np, (long long)c.cols, kind);
            place(h, (int)c.rows, kind == 0 ? 1000000 : 20000);
            inv = hn_floats(h, np, 1);
            inv_long = hn_floats(h, np, 1);
            for (int j = 0; j < np; j++) {
                inv[j] = powf(10000.0f, -(float)j / (float)np);
                inv_long[j] = inv[j] / (float)(j + 2);
            }
            fa_rope rope = {.n_pair = np,
                            .dim = 2 * np - np % 2,
                            .inv_freq = inv,
                            .inv_freq_long = kind == 3 ? inv_long : NULL,
                            .mscale = kind == 3 ? 1.19f : 1,
                            .interleaved = c.interleaved,
                            .dynamic = kind == 4 && np > 1,
                            .theta = 10000,
                            .factor = 4,
                            .original_ctx = kind >= 3 ? 512 : 0};
            c.rope = &rope;
            c.x = hn_floats(h, c.rows * c.heads * c.cols, 2);
            hn_run(h, rope_body, &c);
        }
    fa_rope big = {.n_pair = 257, .mscale = 1};
    ctx c = {.h = h, .rows = 1, .cols = 514, .heads = 1, .rope = &big};
    hn_case(h, "rope of too many pairs");
    hn_seqs(h, (hn_seq[]){{.n = 1}}, 1);
    big.inv_freq = hn_floats(h, 257, 1);
    c.x = hn_floats(h, 514, 1);
    assert_non_null(strstr(hn_refused(h, rope_body, &c), "257 pairs"));
}

/* ---- cache ---- */

static void append_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    for (int i = 0; i < c->n_kv; i++) {
        fa_tensor k = hn_input(c->h, cx, side, c->x + i, c->rows, c->heads * c->cols, FA_F32);
        fa_tensor v = hn_input(c->h, cx, side, c->y + i, c->rows, c->heads * c->cols, FA_F32);
        fa_append(cx, k, v, &c->kv[i]->at[side]);
        hn_expect_kv(c->h, side, c->kv[i]);
    }
}

static void test_append(void **state) {
    harness *h = (harness *)*state;
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16, FA_I8};
    static const int dims[] = {2, 6, 32, 64, 128, 192, 256, 512};
    for (int i = 0; i < 8; i++)
        for (int t = 0; t < 4; t++) {
            ctx c = {.h = h, .cols = dims[i], .heads = 1 + i % 3, .n_kv = 2};
            hn_seq seq[] = {{.past = 63, .n = 1}, {.past = 0, .n = 70}, {.past = 130, .n = 3 + i}, {.past = 7, .n = 1}};
            hn_case(h, "append %lld heads of %d as %s", (long long)c.heads, dims[i], fa_kv_type_name(types[t]));
            hn_seqs(h, seq, 4);
            c.rows = 75 + i;
            c.x = hn_floats(h, c.rows * c.heads * c.cols + 1, 4);
            c.y = hn_floats(h, c.rows * c.heads * c.cols + 1, 4);
            for (int g = 0; g < 2; g++) c.kv[g] = hn_make_kv(h, (int)c.heads, dims[i], types[t], g);
            hn_run(h, append_body, &c);
        }
}

/* ---- elementwise ---- */

static void glu_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor g = hn_input(c->h, cx, side, c->x, c->rows, c->cols, FA_F32);
    fa_tensor u = hn_input(c->h, cx, side, c->y, c->rows, c->cols, FA_F32);
    hn_expect(c->h, side, "glu", fa_glu(cx, g, u, c->act));
    hn_expect(c->h, side, "act", fa_glu(cx, g, (fa_tensor){0}, c->act));
}

static void test_glu(void **state) {
    harness *h = (harness *)*state;
    for (int act = 0; act <= FA_ACT_LINEAR; act++)
        for (int i = 0; i < 4; i++) {
            static const int64_t cols[] = {5, 64, 333, 1024};
            ctx c = {.h = h, .rows = 1 + i, .cols = cols[i], .act = (fa_act_fn)act};
            hn_case(h, "glu %d [%lld, %lld]", act, (long long)c.rows, (long long)c.cols);
            hn_seqs(h, (hn_seq[]){{.n = (int)c.rows}}, 1);
            c.x = hn_floats(h, c.rows * c.cols, i == 1 ? 60 : 8);
            c.y = hn_floats(h, c.rows * c.cols, 2);
            hn_run(h, glu_body, &c);
        }
}

static void add_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor y = hn_input(c->h, cx, side, c->x, c->rows, c->cols, FA_F32);
    fa_tensor x = hn_input(c->h, cx, side, c->y, c->rows, c->cols, FA_F32);
    fa_add(cx, y, x, 1);
    fa_softcap(cx, x, 1.5f);
    hn_expect(c->h, side, "sum", y);
    hn_expect(c->h, side, "capped", x);
}

static void change_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor y = hn_input(c->h, cx, side, c->x, c->rows, c->cols, FA_F32);
    fa_tensor x = hn_input(c->h, cx, side, c->y, c->rows, c->cols, FA_F32);
    fa_tensor g = hn_input(c->h, cx, side, c->y, c->rows, 1, FA_F32);
    fa_add(cx, y, x, -0.37f);
    hn_expect(c->h, side, "scaled sum", y);
    fa_clamp(cx, x, 1.25f);
    fa_scale(cx, x, 0.77f);
    hn_expect(c->h, side, "clamped", x);
    const int64_t from = c->cols / 3, n = c->cols - from - c->cols / 5;
    fa_tensor part = fa_cols(cx, x, from, n);
    fa_row_gate(cx, part, g, FA_ACT_SIGMOID);
    hn_expect(c->h, side, "gated columns", part);
    hn_expect(c->h, side, "picked columns", fa_pick_cols(cx, x, c->order[side], c->cols));
}

static void rows_body(fa_cx *cx, int side, void *arg) {
    ctx *c = (ctx *)arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->rows, c->cols, FA_F32);
    hn_expect(c->h, side, "rows", fa_out_rows(cx, x));
}

static void test_elementwise(void **state) {
    harness *h = (harness *)*state;
    for (int i = 0; i < N_COLS; i++) {
        ctx c = {.h = h, .cols = all_cols[i], .rows = 9};
        hn_case(h, "elementwise [9, %lld]", (long long)c.cols);
        hn_seqs(h, (hn_seq[]){{.n = 1}, {.n = 5, .n_out = 3}, {.n = 3, .n_out = -1}}, 3);
        c.x = hn_floats(h, c.rows * c.cols, 3);
        c.y = hn_floats(h, c.rows * c.cols, 3);
        float *order = hn_floats(h, c.cols, 1);
        for (int64_t j = 0; j < c.cols; j++) order[j] = (float)((j * 7 + 3) % c.cols);
        c.order[0] = order;
        c.order[1] = (const float *)hn_upload(h, order, (size_t)c.cols * sizeof *order);
        hn_run(h, add_body, &c);
        hn_run(h, change_body, &c);
        hn_run(h, rows_body, &c);
    }
}

/* The same through graphs: what was captured is replayed on other memory contents. */
static void test_repeated(void **state) {
    harness *h = (harness *)*state;
    float inv[16];
    for (int j = 0; j < 16; j++) inv[j] = powf(10000.0f, -(float)j / 16);
    fa_rope rope = {.n_pair = 16, .inv_freq = inv, .mscale = 1};
    ctx c = {.h = h, .rows = 3, .cols = 32, .heads = 2, .rope = &rope};
    hn_case(h, "rope, repeated");
    hn_seqs(h, (hn_seq[]){{.past = 3, .n = 1}, {.past = 70, .n = 1}, {.past = 0, .n = 1}}, 3);
    c.x = hn_floats(h, 3 * 64, 1);
    hn_repeats(h, 4);
    hn_run(h, rope_body, &c);
    hn_repeats(h, 1);
}

static int setup(void **state) {
    *state = hn_open(&(hn_opts){.exact = true, .n_group = 2, .window = {0, 100}});
    return 0;
}
static int teardown(void **state) {
    hn_close((harness *)*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm),     cmocka_unit_test(test_head_norm),  cmocka_unit_test(test_rope),
        cmocka_unit_test(test_append),   cmocka_unit_test(test_glu),        cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_repeated), cmocka_unit_test(test_layer_norm),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
