/* Linear records with many input rows (src/backend/cuda/many.cu, gemm.cu) against the CPU: formats, odd sizes, panels,
 * biases, norms. */
#include "cuda/harness.h"

typedef struct linear_case {
    harness *h;
    hn_linear *w, *up;
    hn_norm *norm, *post;
    float *x, *y;
    int64_t M, K, N;
    fa_dtype in; /* of the input rows where an operation takes either */
    fa_act_fn act;
} linear_case;

static const fa_weight kind_f32 = {.fmt = FA_FMT_F32}, kind_f16 = {.fmt = FA_FMT_F16}, kind_bf16 = {.fmt = FA_FMT_BF16};
static const fa_weight kind_q4k = {.fmt = FA_FMT_Q4_K},
                       kind_affine4 = {.fmt = FA_FMT_AFFINE, .bits = 4, .group = 64, .scale_dtype = FA_BF16};

static void linear_body(fa_cx *cx, int side, void *arg) {
    linear_case *c = arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, c->K, c->in);
    hn_expect(c->h, side, "y", fa_linear_op(cx, x, &c->w->at[side]));
}

static void add_body(fa_cx *cx, int side, void *arg) {
    linear_case *c = arg;
    fa_tensor h = hn_input(c->h, cx, side, c->y, c->M, c->N, FA_F32);
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, c->K, c->in);
    fa_linear_add(cx, h, x, &c->w->at[side], c->post ? &c->post->at[side] : NULL, 1);
    hn_expect(c->h, side, "h", h);
}

static void mlp_body(fa_cx *cx, int side, void *arg) {
    linear_case *c = arg;
    fa_tensor h = hn_input(c->h, cx, side, c->x, c->M, c->K, FA_F32);
    hn_expect(c->h, side, "mlp", fa_norm_mlp_up(cx, h, &c->norm->at[side], &c->w->at[side], &c->up->at[side], c->act));
}

/* LINEAR, LINEAR_ADD and NORM_MLP_UP of one shape; bias and post norm as `extra` says. */
static void check_linear(harness *h, const char *what, fa_weight kind, int64_t M, int64_t K, int64_t N, bool extra,
                         fa_dtype in) {
    const hn_seq seq = {.n = (int)M};
    hn_case(h, "%s %lld x %lld x %lld%s%s", what, (long long)M, (long long)K, (long long)N, extra ? ", bias" : "",
            in == FA_BF16 ? ", bf16 rows" : "");
    hn_seqs(h, &seq, 1);
    linear_case c = {.h = h, .M = M, .K = K, .N = N, .in = in, .act = extra ? FA_ACT_GELU_TANH : FA_ACT_SILU};
    c.w = hn_make_linear(h, kind, N, K, extra);
    c.up = hn_make_linear(h, kind, N, K, extra);
    c.x = hn_floats(h, M * K, 1);
    c.y = hn_floats(h, M * N, 1);
    c.norm = hn_make_norm(h, K, extra ? 1 : 0, !extra);
    hn_run(h, linear_body, &c);
    hn_run(h, add_body, &c);
    c.post = hn_make_norm(h, N, extra ? 1 : 0, true);
    hn_run(h, add_body, &c);
    hn_run(h, mlp_body, &c);
}

static void check_shapes(harness *h, bool exact) {
    const fa_dtype in = exact ? FA_F32 : FA_BF16;
    check_linear(h, "f32", kind_f32, 17, 64, 96, false, FA_F32);
    check_linear(h, "f32", kind_f32, 70, 77, 91, true, FA_F32);
    check_linear(h, "bf16", kind_bf16, 33, 128, 200, true, in);
    check_linear(h, "bf16", kind_bf16, 65, 75, 51, false, in);
    check_linear(h, "bf16", kind_bf16, 70, 8, 1, false, FA_F32);
    check_linear(h, "f16", kind_f16, 64, 130, 67, true, in);
    check_linear(h, "affine", kind_affine4, 70, 192, 136, false, in);
    check_linear(h, "q4_k", kind_q4k, 66, 256, 40, true, FA_F32);
}

/* ---- q, k, v ---- */

typedef struct qkv_case {
    harness *h;
    hn_linear *q, *k, *v; /* k NULL: none, nor v */
    hn_norm *norm, *q_norm, *k_norm, *v_norm;
    hn_kv *kv;
    float *x;
    int64_t M, K;
    fa_rope rope;
    bool interleaved;
} qkv_case;

static void qkv_body(fa_cx *cx, int side, void *arg) {
    qkv_case *c = arg;
    fa_tensor h = hn_input(c->h, cx, side, c->x, c->M, c->K, FA_F32), table = {0};
    fa_qkv w = {.q = c->q->at[side],
                .q_norm = c->q_norm ? &c->q_norm->at[side] : NULL,
                .k_norm = c->k_norm ? &c->k_norm->at[side] : NULL,
                .v_norm = c->v_norm ? &c->v_norm->at[side] : NULL};
    if (c->k) w.k = c->k->at[side], w.v = c->v->at[side];
    fa_qkv *keep = hn_host(c->h, sizeof *keep); /* records point to it */
    *keep = w;
    if (c->rope.n_pair) table = fa_rope_table(cx, &c->rope);
    hn_expect(c->h, side, "q", fa_norm_qkv(cx, h, &c->norm->at[side], keep, table, c->interleaved, &c->kv->at[side]));
    if (c->k) hn_expect_kv(c->h, side, c->kv);
}

/* q, k of one kind and v of another: runs of weights that are unpacked end where one is not. */
static void check_qkv(harness *h, const char *what, fa_weight kind, fa_weight kind_v, int64_t K, int n, int n_q,
                      int n_kv, int dim, int n_pair, fa_dtype cache, bool extra, bool interleaved) {
    const hn_seq seq[] = {{.past = 3, .n = n - 30}, {.past = 70, .n = 1}, {.past = 60, .n = 29}};
    float freq[256];
    hn_case(h, "%s %d and %d heads of %d%s", what, n_q, n_kv, dim, extra ? ", bias" : "");
    hn_seqs(h, seq, 3);
    for (int i = 0; i < n_pair; i++) freq[i] = 1.0f / (float)(1 + 3 * i);
    qkv_case c = {.h = h, .M = n, .K = K, .interleaved = interleaved};
    c.rope = (fa_rope){.n_pair = n_pair, .inv_freq = freq, .mscale = 1};
    c.q = hn_make_linear(h, kind, n_q * dim, K, extra);
    c.k = hn_make_linear(h, kind, n_kv * dim, K, extra);
    c.v = hn_make_linear(h, kind_v, n_kv * dim, K, extra);
    c.norm = hn_make_norm(h, K, 0, true);
    if (extra) c.q_norm = hn_make_norm(h, dim, 1, true), c.k_norm = hn_make_norm(h, dim, 0, true);
    if (extra && n_kv > 1) c.v_norm = hn_make_norm(h, dim, 0, false);
    c.kv = hn_make_kv(h, n_kv, dim, cache, 0);
    c.x = hn_floats(h, c.M * K, 1);
    hn_run(h, qkv_body, &c);
    c.k = c.v = NULL; /* queries alone */
    hn_run(h, qkv_body, &c);
}

/* A 16-bit cache where a last bit that rounds the other way is no error. */
static void check_heads(harness *h, bool exact) {
    const fa_dtype f16 = exact ? FA_F32 : FA_F16, bf16 = exact ? FA_F32 : FA_BF16;
    check_qkv(h, "f32", kind_f32, kind_f32, 96, 70, 4, 2, 32, 16, FA_F32, false, false);
    check_qkv(h, "bf16", kind_bf16, kind_bf16, 72, 70, 6, 1, 34, 7, bf16, true, false);
    check_qkv(h, "bf16 and f16", kind_bf16, kind_f16, 64, 70, 3, 3, 18, 9, f16, true, true);
    check_qkv(h, "affine and q4_k", kind_affine4, kind_q4k, 256, 70, 8, 2, 64, 32, bf16, false, true);
    check_qkv(h, "f16 and f32", kind_f16, kind_f32, 64, 70, 2, 1, 96, 0, f16, true, false);
}

/* Panels of a few rows: weights are cut, and cut across the border of two. */
static void check_panels(harness *h, bool exact) {
    fa_backend *be = hn_backend(h, HN_DEV);
    const size_t usual = be->panel_bytes;
    assert_true(usual > 0);
    for (size_t bytes = 1; bytes < 100000; bytes *= 60) {
        be->panel_bytes = bytes;
        check_linear(h, "panels of f16", kind_f16, 65, 40, 91, true, FA_F32);
        check_linear(h, "panels of affine", kind_affine4, 65, 64, 80, false, exact ? FA_F32 : FA_BF16);
        check_qkv(h, "panels", kind_affine4, kind_q4k, 256, 70, 3, 1, 40, 20, FA_F32, true, false);
    }
    be->panel_bytes = usual;
}

/* Fast: the largest error is that of a product of two sums, which has outliers; the mean one is what bf16 gives. */
static harness *open_harness(bool exact) {
    harness *h = hn_open(&(hn_opts){.exact = exact});
    if (exact)
        hn_limits(h, 3e-5, 1e-10);
    else
        hn_limits(h, 0.3, 1e-4);
    return h;
}

static void check_all(bool exact) {
    harness *h = open_harness(exact);
    check_shapes(h, exact);
    check_heads(h, exact);
    check_panels(h, exact);
    hn_close(h);
}

/* Few enough rows that quantized weights are streamed several times. */
static void test_between(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        harness *h = open_harness(exact);
        const fa_dtype in = exact ? FA_F32 : FA_BF16;
        check_linear(h, "affine", kind_affine4, 17, 192, 72, true, in);
        check_linear(h, "q4_k", kind_q4k, 50, 256, 40, false, FA_F32);
        check_qkv(h, "affine", kind_affine4, kind_q4k, 256, 40, 4, 2, 64, 32, exact ? FA_F32 : FA_BF16, true, false);
        hn_close(h);
    }
}
static void test_exact(void **state) {
    (void)state;
    check_all(true);
}
static void test_fast(void **state) {
    (void)state;
    check_all(false);
}

/* A step that comes again is captured: products and their workspace must not mind. */
static void test_repeats(void **state) {
    (void)state;
    harness *h = open_harness(false);
    hn_repeats(h, 4);
    check_linear(h, "again bf16", kind_bf16, 40, 64, 128, true, FA_BF16);
    check_linear(h, "again affine", kind_affine4, 66, 64, 128, false, FA_BF16);
    hn_close(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_fast),
                                       cmocka_unit_test(test_between), cmocka_unit_test(test_repeats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
