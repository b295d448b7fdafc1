/* Weights of every format on the device: embedding rows and panels bit for bit as fa_dequant_row has them, random
 * weights as fa_synth_matrix makes them, linear records with up to 16 input rows in both precisions. */
#include "cuda/harness.h"
#include "qfmt/fill.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "families/synth.h"
#include "ops/ops.h"

static const char *kind_text(const fa_weight *w, char text[48]) {
    char fmt[32];
    snprintf(text, 48, "%s%s%s", fa_weight_fmt_text(w, fmt), w->fmt == FA_FMT_AFFINE ? " " : "",
             w->fmt == FA_FMT_AFFINE ? fa_dtype_name((fa_dtype)w->scale_dtype) : "");
    return text;
}

/* The columns to test a format with: the smallest row, one that ends within 256 columns, more than a step. */
static int64_t cols_of(fa_weight kind, int i) {
    const int64_t unit = fill_unit(&kind);
    if (unit == 1) return (const int64_t[]){5, 63, 300}[i];
    return unit == 256 ? (const int64_t[]){256, 512, 2816}[i] : unit * (const int64_t[]){1, 7, 21}[i];
}
enum { N_COLS = 3 };

/* ---- embedding rows ---- */

typedef struct embed_case {
    harness *h;
    hn_weight *w;
    float scale;
    fa_tensor y[2];
} embed_case;

static void embed_body(fa_cx *cx, int side, void *arg) {
    embed_case *c = arg;
    c->y[side] = fa_embed(cx, &c->w->at[side], c->scale);
    hn_expect(c->h, side, "embedding", c->y[side]);
}

static void embed(void **state) {
    (void)state;
    enum { ROWS = 37 };
    harness *h = hn_open(&(hn_opts){.exact = true, .vocab = ROWS});
    for (int f = 0; f < hn_n_kinds; f++)
        for (int i = 0; i < N_COLS; i++) {
            char text[48];
            const int64_t cols = cols_of(hn_kinds[f], i);
            embed_case c = {.h = h, .scale = i ? 1.0f : 0.3f};
            hn_case(h, "%s, %d columns", kind_text(&hn_kinds[f], text), (int)cols);
            hn_seqs(h, (hn_seq[]){{.n = 11}}, 1);
            c.w = hn_make_weight(h, hn_kinds[f], ROWS, cols);
            hn_run(h, embed_body, &c);
            const float *want = hn_values(h, HN_CPU, c.y[HN_CPU]), *got = hn_values(h, HN_DEV, c.y[HN_DEV]);
            assert_memory_equal(want, got, (size_t)(11 * cols) * sizeof *got);
        }
    hn_close(h);
}

/* All bytes that an mxfp4 scale can have: the smallest are not normal numbers. */
static void mxfp4_scales(void **state) {
    (void)state;
    harness *h = hn_open(&(hn_opts){.exact = true, .vocab = 1});
    embed_case c = {.h = h, .scale = 1};
    const int64_t cols = 32 * 252;
    hn_case(h, "mxfp4 scales");
    hn_seqs(h, (hn_seq[]){{.n = 1}}, 1);
    c.w = hn_make_weight(h, (fa_weight){.fmt = FA_FMT_MXFP4, .bits = 4, .group = 32, .scale_dtype = FA_U8}, 1, cols);
    uint8_t scales[252], codes[32 * 252 / 2];
    for (int i = 0; i < 252; i++) scales[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 31 + i / 16 * 17);
    memcpy((uint8_t *)(uintptr_t)c.w->at[HN_CPU].scales, scales, sizeof scales);
    memcpy((uint8_t *)(uintptr_t)c.w->at[HN_CPU].codes, codes, sizeof codes);
    c.w->at[HN_DEV].scales = hn_upload(h, scales, sizeof scales);
    c.w->at[HN_DEV].codes = hn_upload(h, codes, sizeof codes);
    hn_run(h, embed_body, &c);
    const float *want = hn_values(h, HN_CPU, c.y[HN_CPU]), *got = hn_values(h, HN_DEV, c.y[HN_DEV]);
    assert_memory_equal(want, got, (size_t)cols * sizeof *got);
    hn_close(h);
}

/* ---- linear records ---- */

typedef struct linear_case {
    harness *h;
    const float *x, *out;
    hn_linear *lin;
    hn_norm *post;
    int64_t M;
    fa_dtype type;
    fa_tensor y[2];
} linear_case;

static void linear_body(fa_cx *cx, int side, void *arg) {
    linear_case *c = arg;
    const fa_linear *lin = &c->lin->at[side];
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, lin->w.cols, side == HN_DEV ? c->type : FA_F32);
    c->y[side] = fa_linear_op(cx, x, lin);
    hn_expect(c->h, side, "y", c->y[side]);
}

static void add_body(fa_cx *cx, int side, void *arg) {
    linear_case *c = arg;
    const fa_linear *lin = &c->lin->at[side];
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, lin->w.cols, side == HN_DEV ? c->type : FA_F32);
    fa_tensor out = hn_input(c->h, cx, side, c->out, c->M, lin->w.rows, FA_F32);
    fa_linear_add(cx, out, x, lin, c->post ? &c->post->at[side] : NULL, 1);
    hn_expect(c->h, side, "h", out);
}

/* Random floats that bf16 holds: only the order of sums is left to differ. */
static const float *bf16_floats(harness *h, int64_t n, float scale) {
    const float *x = hn_floats(h, n, scale);
    float *y = hn_host(h, (size_t)n * sizeof *y);
    for (int64_t i = 0; i < n; i++) y[i] = fa_bf16_to_f32(fa_f32_to_bf16(x[i]));
    return y;
}

/* Rows of the unit matrix as input give the weight itself: panels (more than 64 rows) and streaming, without rounding
 * in exact mode, and panels rounded to bf16 otherwise. */
static void identity(void **state) {
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        harness *h = hn_open(&(hn_opts){.exact = exact});
        for (int f = 0; f < hn_n_kinds; f++) {
            const fa_weight kind = hn_kinds[f];
            const int64_t rows = 9, cols = cols_of(kind, fa_qfmts[kind.fmt].block == 256 ? 0 : 1);
            char text[48];
            for (int few = 0; few <= exact; few++) {
                linear_case c = {.h = h, .M = few ? 16 : 70, .type = exact ? FA_F32 : FA_BF16};
                hn_case(h, "%s, unit rows, %d", kind_text(&kind, text), (int)c.M);
                float *x = hn_host(h, (size_t)(c.M * cols) * sizeof *x);
                for (int64_t m = 0; m < c.M; m++) x[m * cols + m * 13 % cols] = 1;
                c.x = x;
                hn_seqs(h, (hn_seq[]){{.n = (int)c.M}}, 1);
                c.lin = hn_make_linear(h, kind, rows, cols, false);
                hn_run(h, linear_body, &c);
                const float *got = hn_values(h, HN_DEV, c.y[HN_DEV]);
                float *want = hn_host(h, (size_t)cols * sizeof *want);
                void *scratch = hn_host(h, fa_dequant_scratch(cols));
                for (int64_t r = 0; r < rows; r++) {
                    fa_dequant_row(&c.lin->at[HN_CPU].w, r, want, scratch);
                    for (int64_t m = 0; m < c.M; m++) {
                        const float w = want[m * 13 % cols], v = exact ? w : fa_bf16_to_f32(fa_f32_to_bf16(w));
                        const float is = got[m * rows + r];
                        if (is != v)
                            fail_msg("%s: [%d, %d] is %g, not %g", text, (int)r, (int)m, (double)is, (double)v);
                    }
                }
            }
        }
        hn_close(h);
    }
}

static const int rows_of_input[] = {1, 2, 5, 8, 9, 16};
enum { N_ROWS = sizeof rows_of_input / sizeof *rows_of_input };

static void stream(bool exact) {
    harness *h = hn_open(&(hn_opts){.exact = exact});
    hn_limits(h, exact ? 2e-5 : 1e-4, exact ? 1e-10 : 1e-9);
    for (int f = 0; f < hn_n_kinds; f++) {
        if (!fa_qfmts[hn_kinds[f].fmt].unpack) continue;
        for (int i = 0; i < N_COLS; i++)
            for (int m = 0; m < N_ROWS; m++) {
                if (hn_emulated() && (f + i + m) % 2) continue;
                static const int64_t some[] = {1, 13, 40};
                const int64_t M = rows_of_input[m], rows = some[(i + m) % 3], cols = cols_of(hn_kinds[f], i);
                linear_case c = {.h = h, .M = M, .type = (i + m) % 4 < 2 && !exact ? FA_BF16 : FA_F32};
                char text[48];
                hn_case(h, "%s [%d, %d] x %d rows of %s", kind_text(&hn_kinds[f], text), (int)rows, (int)cols, (int)M,
                        fa_dtype_name(c.type));
                hn_seqs(h, (hn_seq[]){{.n = (int)M}}, 1);
                c.x = bf16_floats(h, M * cols, 2);
                c.out = hn_floats(h, M * rows, 1);
                c.lin = hn_make_linear(h, hn_kinds[f], rows, cols, (i + m) % 3 == 1);
                hn_run(h, linear_body, &c);
                if (m % 3 == 2) c.post = hn_make_norm(h, rows, 1.0f, true);
                if (i == 1) hn_run(h, add_body, &c);
            }
    }
    hn_close(h);
}
static void stream_exact(void **state) { (void)state, stream(true); }
static void stream_fast(void **state) { (void)state, stream(false); }

/* Up to 64 rows, as products that read each weight once: tiles that end within their rows, tiles that several blocks
 * have parts of, stages that end within their columns. */
static void skinny(void **state) {
    (void)state;
    static const int some[] = {1, 3, 5, 8, 9, 15, 16, 17, 31, 33, 63, 64};
    enum { N_SOME = sizeof some / sizeof *some };
    harness *h = hn_open(&(hn_opts){0});
    hn_limits(h, 1e-4, 1e-9);
    for (int f = 0; f < hn_n_kinds; f++) {
        if (hn_kinds[f].fmt == FA_FMT_F32 || hn_kinds[f].fmt == FA_FMT_F16 || hn_kinds[f].fmt == FA_FMT_BF16) continue;
        for (int m = 0; m < N_SOME; m++) {
            if (hn_emulated() && (f + m) % 3) continue;
            static const int64_t many[] = {130, 45, 257};
            const int i = (f / 3 + m) % 4;
            const int64_t M = some[m], rows = many[(f + m / 3) % 3], cols = i < 3 ? cols_of(hn_kinds[f], i) : 1024;
            linear_case c = {.h = h, .M = M, .type = m % 2 ? FA_BF16 : FA_F32};
            char text[48];
            hn_case(h, "%s [%d, %d] x %d rows", kind_text(&hn_kinds[f], text), (int)rows, (int)cols, (int)M);
            hn_seqs(h, (hn_seq[]){{.n = (int)M}}, 1);
            c.x = bf16_floats(h, M * cols, 2);
            c.out = hn_floats(h, M * rows, 1);
            c.lin = hn_make_linear(h, hn_kinds[f], rows, cols, m % 3 == 1);
            hn_run(h, linear_body, &c);
            if (m % 2) c.post = hn_make_norm(h, rows, 1.0f, true);
            if (m % 4 > 1) hn_run(h, add_body, &c);
        }
    }
    hn_close(h);
}

/* Input beyond shared memory, and more tiles than blocks. */
static void large(void **state) {
    (void)state;
    static const fa_weight kinds[] = {
        {.fmt = FA_FMT_AFFINE, .bits = 4, .group = 64, .scale_dtype = FA_BF16},
        {.fmt = FA_FMT_Q6_K},
        {.fmt = FA_FMT_MXFP4, .bits = 4, .group = 32, .scale_dtype = FA_U8},
        {.fmt = FA_FMT_AFFINE, .bits = 8, .group = 64, .scale_dtype = FA_F16},
    };
    for (int exact = 0; exact < 2; exact++) {
        harness *h = hn_open(&(hn_opts){.exact = exact});
        hn_limits(h, exact ? 2e-5 : 1e-4, exact ? 1e-10 : 1e-9);
        for (int f = 0; f < 4; f++)
            for (int i = 0; i < 2; i++) {
                linear_case c = {.h = h, .M = i ? 1 : 16, .type = exact ? FA_F32 : FA_BF16};
                const int64_t rows = i ? 1291 : 21, cols = i ? 256 : 3840;
                char text[48];
                hn_case(h, "%s [%d, %d] x %d rows", kind_text(&kinds[f], text), (int)rows, (int)cols, (int)c.M);
                hn_seqs(h, (hn_seq[]){{.n = (int)c.M}}, 1);
                c.x = bf16_floats(h, c.M * cols, 1);
                c.lin = hn_make_linear(h, kinds[f], rows, cols, true);
                hn_run(h, linear_body, &c);
            }
        hn_close(h);
    }
}

/* The same rows alone and among others: the same bits. In fast mode from five rows on: they are multiplied by another
 * kernel than fewer are, whose sums run in another order. */
static void same_bits_of(bool exact) {
    harness *h = hn_open(&(hn_opts){.exact = exact});
    for (int f = 0; f < hn_n_kinds; f++) {
        if (!fa_qfmts[hn_kinds[f].fmt].unpack) continue;
        const int first[] = {0, 0, 11}, count[] = {16, 8, exact ? 1 : 5};
        const int64_t rows = 11, cols = 512;
        linear_case c = {.h = h, .type = FA_F32};
        char text[48];
        const float *all = NULL;
        hn_case(h, "%s alone and together", kind_text(&hn_kinds[f], text));
        c.lin = hn_make_linear(h, hn_kinds[f], rows, cols, true);
        const float *x = hn_floats(h, 16 * cols, 1);
        for (int i = 0; i < 3; i++) {
            hn_seqs(h, (hn_seq[]){{.n = count[i]}}, 1);
            c.M = count[i];
            c.x = x + first[i] * cols;
            hn_run(h, linear_body, &c);
            const float *y = hn_values(h, HN_DEV, c.y[HN_DEV]);
            if (!all) all = y;
            assert_memory_equal(y, all + first[i] * rows, (size_t)(count[i] * rows) * sizeof *y);
        }
    }
    hn_close(h);
}
static void same_bits(void **state) { (void)state, same_bits_of(false), same_bits_of(true); }

/* ---- fused records, also with several formats in one ---- */

typedef struct fused_case {
    harness *h;
    const float *x;
    hn_norm *norm;
    hn_linear *a, *b, *c;
    hn_kv *kv;
    int64_t M;
} fused_case;

static void mlp_body(fa_cx *cx, int side, void *arg) {
    fused_case *c = arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, c->a->at[side].w.cols, FA_F32);
    hn_expect(c->h, side, "mlp",
              fa_norm_mlp_up(cx, x, &c->norm->at[side], &c->a->at[side], &c->b->at[side], FA_ACT_SILU));
}

static void qkv_body(fa_cx *cx, int side, void *arg) {
    fused_case *c = arg;
    fa_tensor x = hn_input(c->h, cx, side, c->x, c->M, c->a->at[side].w.cols, FA_F32), table = {0};
    fa_qkv *w = hn_host(c->h, sizeof *w); /* the record points into it */
    *w = (fa_qkv){.q = c->a->at[side], .k = c->b->at[side], .v = c->c->at[side]};
    hn_expect(c->h, side, "q", fa_norm_qkv(cx, x, &c->norm->at[side], w, table, false, &c->kv->at[side]));
    if (side == HN_DEV) hn_expect_kv(c->h, side, c->kv);
}

static void fused(void **state) {
    (void)state;
    static const fa_weight kinds[] = {
        {.fmt = FA_FMT_AFFINE, .bits = 4, .group = 64, .scale_dtype = FA_F16},
        {.fmt = FA_FMT_AFFINE, .bits = 6, .group = 64, .scale_dtype = FA_F16},
        {.fmt = FA_FMT_Q4_K},
        {.fmt = FA_FMT_Q6_K},
        {.fmt = FA_FMT_BF16},
        {.fmt = FA_FMT_Q8_0},
    };
    for (int exact = 0; exact < 2; exact++) {
        harness *h = hn_open(&(hn_opts){.exact = exact});
        hn_limits(h, exact ? 1e-4 : 1e-1, exact ? 1e-10 : 1e-4);
        for (int f = 0; f < 12; f++) {
            const fa_weight one = kinds[f / 2], other = kinds[f % 2 ? (f / 2 + 1) % 6 : f / 2];
            fused_case c = {.h = h, .M = f % 3 == 2 ? 11 : 1 + f % 3};
            const int64_t cols = 512, dim = 32;
            char t1[48], t2[48];
            hn_case(h, "%s and %s, %d rows", kind_text(&one, t1), kind_text(&other, t2), (int)c.M);
            hn_seqs(h, (hn_seq[]){{.past = 60, .n = (int)c.M}}, 1);
            c.x = hn_floats(h, c.M * cols, 2);
            c.norm = hn_make_norm(h, cols, 0, true);
            c.a = hn_make_linear(h, one, 45, cols, f % 2);
            c.b = hn_make_linear(h, other, 45, cols, f % 2);
            hn_run(h, mlp_body, &c);
            c.a = hn_make_linear(h, one, 2 * dim, cols, f % 2);
            c.b = hn_make_linear(h, one, dim, cols, false);
            c.c = hn_make_linear(h, other, dim, cols, f % 2);
            c.kv = hn_make_kv(h, 1, (int)dim, exact ? FA_F32 : FA_BF16, 0);
            hn_run(h, qkv_body, &c);
        }
        hn_close(h);
    }
}

/* ---- random weights ---- */

static size_t pitch_of(size_t n) { return (n + 15) / 16 * 16; }

/* Rows of n bytes at `dev`, which pads follow, are those of `host`. */
static void check_plane(fa_device *d, const char *what, const uint8_t *host, const uint8_t *dev, int64_t rows,
                        size_t n) {
    static uint8_t got[1 << 16];
    fa_error err;
    assert_true((size_t)rows * pitch_of(n) <= sizeof got);
    assert_int_equal(d->read(d, got, dev, (size_t)rows * pitch_of(n), &err), 0);
    for (int64_t r = 0; r < rows; r++)
        for (size_t i = 0; i < pitch_of(n); i++) {
            const uint8_t want = i < n ? host[(size_t)r * n + i] : 0, is = got[(size_t)r * pitch_of(n) + i];
            if (is != want) fail_msg("%s: byte %zu of row %d is %d, not %d", what, i, (int)r, is, want);
        }
}

static void synth(void **state) {
    (void)state;
    static const char *const texts[] = {
        "affine2g32", "affine2g128", "affine3g32", "affine3g64", "affine4g32",  "affine4g64", "affine5g32",
        "affine5g64", "affine6g64",  "affine6g32", "affine8g32", "affine8g128", "mxfp4",      "f32",
        "f16",        "bf16",        "q4_0",       "q4_1",       "q5_0",        "q5_1",       "q8_0",
        "nvfp4",      "mxfp8",       "fp8",        "q2_k",       "q3_k",        "q4_k",       "q5_k",
        "q6_k",       "iq1_s",       "iq1_m",      "iq2_xxs",    "iq2_xs",      "iq2_s",      "iq3_xxs",
        "iq3_s",      "iq4_nl",      "iq4_xs",     "tq1_0",      "tq2_0",       "mxfp4_b",    "nvfp4_b"};
    harness *h = hn_open(&(hn_opts){.exact = true});
    fa_device *d = hn_device(h);
    for (size_t f = 0; f < sizeof texts / sizeof *texts; f++)
        for (int i = 0; i < 3; i++) {
            fa_synth s;
            fa_error err;
            fa_mem mem = {0};
            assert_int_equal(fa_synth_parse(&s, texts[f], &err), 0);
            const int64_t unit = s.group ? s.group : fa_qfmts[s.fmt].block;
            fa_weight w = {
                .rows = 11, .cols = unit == 1 ? (const int[]){5, 64, 301}[i] : unit * (1 + 3 * i), .name = texts[f]};
            hn_case(h, "%s, %d columns", texts[f], (int)w.cols);
            assert_int_equal(fa_synth_matrix(&s, &w, 77 + f, &mem, &err), 0);
            fa_weight v = w;
            v.row_bytes = pitch_of(w.row_bytes);
            v.scale_row_bytes = pitch_of(w.scale_row_bytes);
            uint8_t *zero = hn_host(h, 11 * (v.row_bytes + v.scale_row_bytes));
            memset(zero, 0xCC, 11 * (v.row_bytes + v.scale_row_bytes));
            v.codes = hn_upload(h, zero, 11 * v.row_bytes);
            if (w.scales) v.scales = hn_upload(h, zero, 11 * v.scale_row_bytes);
            if (w.biases) v.biases = hn_upload(h, zero, 11 * v.scale_row_bytes);
            if (d->synth(d, &v, 77 + f, &err)) fail_msg("%s: %s", texts[f], err.msg);
            check_plane(d, texts[f], w.codes, v.codes, 11, w.row_bytes);
            if (w.scales) check_plane(d, texts[f], w.scales, v.scales, 11, w.scale_row_bytes);
            if (w.biases) check_plane(d, texts[f], w.biases, v.biases, 11, w.scale_row_bytes);
            fa_mem_free(&mem);
        }
    hn_close(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(embed),       cmocka_unit_test(mxfp4_scales),
                                       cmocka_unit_test(synth),       cmocka_unit_test(stream_exact),
                                       cmocka_unit_test(stream_fast), cmocka_unit_test(skinny),
                                       cmocka_unit_test(large),       cmocka_unit_test(same_bits),
                                       cmocka_unit_test(fused),       cmocka_unit_test(identity)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
