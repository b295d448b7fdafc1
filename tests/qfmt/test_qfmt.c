/* Weight formats against bytes made by gguf-py and mlx (tests/data/qfmt/vectors.bin, written by
 * tools/make_qfmt_vectors.py), the laws of the element types, and what fa_weight_check refuses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tensor/qfmt.h"

/* One record of the file, as views into it (any alignment). */
typedef struct record {
    fa_weight w;
    int kind;
    const uint8_t *values, *x;
    size_t n_codes, n_scales;
} record;

typedef struct vectors {
    uint8_t *data;
    size_t len, pos;
    uint32_t left;
    const uint8_t *last_x;
} vectors;

static uint32_t u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static float f32(const uint8_t *p) {
    float v;
    memcpy(&v, p, 4);
    return v;
}

static void vectors_open(vectors *v) {
    FILE *f = fopen(FFAI_SOURCE_DIR "/tests/data/qfmt/vectors.bin", "rb");
    assert_non_null(f);
    memset(v, 0, sizeof *v);
    v->data = malloc(1 << 20);
    assert_non_null(v->data);
    v->len = fread(v->data, 1, 1 << 20, f);
    fclose(f);
    assert_true(v->len > 8 && !memcmp(v->data, "FAQV", 4));
    v->left = u32(v->data + 4);
    v->pos = 8;
}

static bool vectors_next(vectors *v, record *r) {
    static const uint8_t fmts[] = {
        FA_FMT_AFFINE, FA_FMT_MXFP4,  FA_FMT_Q4_0,    FA_FMT_Q4_1,   FA_FMT_Q5_0,    FA_FMT_Q5_1,    FA_FMT_Q8_0,
        FA_FMT_Q2_K,   FA_FMT_Q3_K,   FA_FMT_Q4_K,    FA_FMT_Q5_K,   FA_FMT_Q6_K,    FA_FMT_NVFP4,   FA_FMT_MXFP8,
        FA_FMT_IQ1_S,  FA_FMT_IQ1_M,  FA_FMT_IQ2_XXS, FA_FMT_IQ2_XS, FA_FMT_IQ2_S,   FA_FMT_IQ3_XXS, FA_FMT_IQ3_S,
        FA_FMT_IQ4_NL, FA_FMT_IQ4_XS, FA_FMT_TQ1_0,   FA_FMT_TQ2_0,  FA_FMT_MXFP4_B, FA_FMT_NVFP4_B};
    static const uint8_t dtypes[] = {0, FA_F32, FA_F16, FA_BF16, FA_U8, FA_F8_E4M3};
    if (!v->left) {
        assert_int_equal(v->pos, v->len);
        free(v->data);
        return false;
    }
    v->left--;
    const uint8_t *p = v->data + v->pos;
    memset(r, 0, sizeof *r);
    r->kind = p[0];
    r->w = (fa_weight){.fmt = fmts[p[1]], .bits = p[2], .scale_dtype = dtypes[p[3]], .name = "vector"};
    r->w.group = (uint16_t)u32(p + 4);
    r->w.rows = u32(p + 8);
    r->w.cols = u32(p + 12);
    r->n_codes = u32(p + 16);
    r->n_scales = u32(p + 20);
    const size_t n_x = u32(p + 24);
    r->w.row_bytes = r->n_codes / (size_t)r->w.rows;
    r->w.scale_row_bytes = r->n_scales / (size_t)r->w.rows;
    r->w.codes = p + 28;
    r->w.scales = r->n_scales ? r->w.codes + r->n_codes : NULL;
    r->w.biases = r->w.fmt == FA_FMT_AFFINE ? r->w.scales + r->n_scales : NULL;
    r->values = r->w.codes + r->n_codes + r->n_scales * (r->w.biases ? 2 : 1);
    r->x = r->values + r->w.rows * r->w.cols * 4;
    v->pos = (size_t)(r->x + n_x - v->data);
    if (n_x) v->last_x = r->x;
    r->x = r->kind ? v->last_x : NULL;
    return true;
}

/* GGUF values are exact (== lets the sign of a zero differ), affine within 1e-6 of the larger term. */
static void check_row(const record *r, const fa_weight *w, int64_t row, const char *what) {
    float *out = malloc((size_t)w->cols * sizeof(float));
    void *scratch = malloc(fa_dequant_scratch(w->cols));
    char text[32];
    fa_dequant_row(w, row, out, scratch);
    for (int64_t k = 0; k < w->cols; k++) {
        const float want = f32(r->values + 4 * (row * w->cols + k));
        const float tol = w->fmt == FA_FMT_AFFINE ? 1e-6f * fmaxf(fabsf(want), 1.0f) : 0;
        if (!(fabsf(out[k] - want) <= tol))
            fail_msg("%s (%s): row %d value %d is %.9g, want %.9g", fa_weight_fmt_text(w, text), what, (int)row, (int)k,
                     (double)out[k], (double)want);
    }
    free(out);
    free(scratch);
}

static void test_dequant_vectors(void **state) {
    (void)state;
    vectors v;
    record r;
    int n = 0;
    vectors_open(&v);
    for (; vectors_next(&v, &r); n++) {
        fa_error err;
        assert_int_equal(fa_weight_check(&r.w, &err), 0);
        assert_int_equal(r.w.row_bytes, fa_qfmt_row_bytes((fa_fmt)r.w.fmt, r.w.bits, r.w.cols));
        for (int64_t row = 0; row < r.w.rows; row++) check_row(&r, &r.w, row, "in place");
    }
    assert_true(n > 60);
}

/* The same with every plane starting at every offset from a 8-byte boundary, in a block without slack (for the address
 * sanitizer). */
static void test_dequant_unaligned(void **state) {
    (void)state;
    vectors v;
    record r;
    vectors_open(&v);
    while (vectors_next(&v, &r)) {
        for (size_t off = 0; off < 8; off++) {
            uint8_t *c = malloc(off + r.n_codes), *s = malloc(off + r.n_scales + 1), *b = malloc(off + r.n_scales + 1);
            fa_weight w = r.w;
            w.codes = memcpy(c + off, r.w.codes, r.n_codes);
            if (r.w.scales) w.scales = memcpy(s + off, r.w.scales, r.n_scales);
            if (r.w.biases) w.biases = memcpy(b + off, r.w.biases, r.n_scales);
            for (int64_t row = 0; row < w.rows; row++) check_row(&r, &w, row, "moved");
            free(c), free(s), free(b);
        }
    }
}

/* Encoders give the bytes of the original tools. */
static void test_quantize_vectors(void **state) {
    (void)state;
    vectors v;
    record r;
    char text[32];
    vectors_open(&v);
    while (vectors_next(&v, &r)) {
        if (!r.kind) continue;
        uint8_t *c = malloc(r.n_codes), *s = malloc(r.n_scales + 1), *b = malloc(r.n_scales + 1);
        float *x = malloc((size_t)(r.w.rows * r.w.cols) * sizeof(float));
        memcpy(x, r.x, (size_t)(r.w.rows * r.w.cols) * sizeof(float));
        for (int64_t row = 0; row < r.w.rows; row++) {
            const size_t so = (size_t)row * r.w.scale_row_bytes;
            fa_qfmts[r.w.fmt].quant_row(&r.w, x + row * r.w.cols, c + (size_t)row * r.w.row_bytes, s + so, b + so);
        }
        fa_weight_fmt_text(&r.w, text);
        if (memcmp(c, r.w.codes, r.n_codes)) fail_msg("%s: codes differ", text);
        if (r.n_scales && memcmp(s, r.w.scales, r.n_scales)) fail_msg("%s: scales differ", text);
        if (r.w.biases && memcmp(b, r.w.biases, r.n_scales)) fail_msg("%s: biases differ", text);
        free(c), free(s), free(b), free(x);
    }
}

/* Encode and decode random rows: no value may be off by more than a step of its group. step: relative to the group's
 * largest magnitude. */
static void round_trip(fa_weight w, float step) {
    const int64_t n = w.cols = 256;
    float x[256], y[256];
    uint8_t c[1024], s[64], b[64], scratch[2048];
    char text[32];
    w.rows = 1;
    w.codes = c, w.scales = s, w.biases = b;
    fa_rng rng = {w.fmt * 100u + w.bits, 0};
    for (int64_t k = 0; k < n; k++) x[k] = (float)((int)(fa_rng_next(&rng) % 2001) - 1000) * 1e-3f;
    fa_qfmts[w.fmt].quant_row(&w, x, c, s, b);
    fa_dequant_row(&w, 0, y, scratch);
    for (int64_t k = 0; k < n; k++)
        if (!(fabsf(x[k] - y[k]) <= step))
            fail_msg("%s: %g becomes %g", fa_weight_fmt_text(&w, text), (double)x[k], (double)y[k]);
}

static fa_weight good(fa_fmt fmt) {
    fa_weight w = {.fmt = (uint8_t)fmt, .rows = 3, .cols = 256, .name = "blk.0.w"};
    if (fmt == FA_FMT_AFFINE) w.bits = 4, w.group = 64, w.scale_dtype = FA_BF16;
    if (fmt == FA_FMT_MXFP4) w.bits = 4, w.group = 32, w.scale_dtype = FA_U8;
    if (fmt == FA_FMT_NVFP4) w.bits = 4, w.group = 16, w.scale_dtype = FA_F8_E4M3;
    if (fmt == FA_FMT_MXFP8) w.bits = 8, w.group = 32, w.scale_dtype = FA_U8;
    if (fmt == FA_FMT_FP8) w.bits = 8, w.group = 128, w.scale_dtype = FA_F32;
    return w;
}

static void test_round_trip(void **state) {
    (void)state;
    for (int f = 0; f < FA_FMT_COUNT; f++) {
        static const float steps[FA_FMT_COUNT] = {
            [FA_FMT_F32] = 0,       [FA_FMT_F16] = 0x1p-11f,  [FA_FMT_BF16] = 0x1p-8f, [FA_FMT_MXFP4] = 0.21f,
            [FA_FMT_NVFP4] = 0.21f, [FA_FMT_MXFP8] = 0.0628f, [FA_FMT_FP8] = 0.0628f,  [FA_FMT_Q4_0] = 0.13f,
            [FA_FMT_Q4_1] = 0.07f,  [FA_FMT_Q5_0] = 0.0635f,  [FA_FMT_Q5_1] = 0.0335f, [FA_FMT_Q8_0] = 0.0045f};
        if (f == FA_FMT_AFFINE || !fa_qfmts[f].quant_row) continue;
        fa_weight w = {.fmt = (uint8_t)f};
        if (fa_fmt_planar(f)) w = good((fa_fmt)f);
        round_trip(w, steps[f]);
    }
    static const uint8_t bits[] = {2, 3, 4, 5, 6, 8}, types[] = {FA_F32, FA_F16, FA_BF16};
    for (int i = 0; i < 6; i++)
        for (int g = 32; g <= 128; g *= 2)
            for (int t = 0; t < 3; t++) {
                fa_weight w = {.fmt = FA_FMT_AFFINE, .bits = bits[i], .group = (uint16_t)g, .scale_dtype = types[t]};
                /* The grid hits zero and one end exactly, so the other end may lose up to a step; bf16 scales add their
                 * rounding. */
                round_trip(w, 2.0f / (float)((1 << bits[i]) - 1) * 1.1f + 0.01f);
            }
}

static void test_float_rows(void **state) {
    (void)state;
    uint8_t buf[64 * 4 + 8];
    float x[64], y[64];
    for (int k = 0; k < 64; k++) x[k] = (float)(k - 20) * 0.25f;
    for (int f = FA_FMT_F32; f <= FA_FMT_BF16; f++)
        for (int off = 0; off < 8; off++) {
            fa_weight w = {.fmt = (uint8_t)f, .rows = 2, .cols = 32, .codes = buf + off};
            w.row_bytes = fa_qfmt_row_bytes((fa_fmt)f, 0, 32);
            for (int r = 0; r < 2; r++)
                fa_qfmts[f].quant_row(&w, x + 32 * r, buf + off + (size_t)r * w.row_bytes, NULL, NULL);
            for (int r = 0; r < 2; r++) fa_dequant_row(&w, r, y + 32 * r, NULL);
            assert_memory_equal(x, y, sizeof x);
            fa_qfmts[f].to_f32(&w, 1, 5, 7, y);
            assert_memory_equal(x + 37, y, 7 * sizeof(float));
        }
}

static void test_canonical_extremes(void **state) {
    (void)state;
    uint8_t nib[16], e[1], codes[32];
    float scale, min;
    memset(nib, 0x70, sizeof nib);
    fa_weight w = {.fmt = FA_FMT_MXFP4, .rows = 1, .cols = 32, .bits = 4, .group = 32, .scale_dtype = FA_U8};
    w.codes = nib, w.scales = e, w.row_bytes = 16, w.scale_row_bytes = 1;
    for (int i = 0; i < 256; i++) {
        e[0] = (uint8_t)i;
        fa_qfmts[FA_FMT_MXFP4].unpack(&w, 0, codes, &scale, &min);
        if (i == 255) {
            assert_true(isnan(scale) && isnan(min));
        } else {
            assert_true(scale == ldexpf(1.0f, i - 128));
            assert_true(min == -12.0f * scale);
        }
        assert_int_equal(codes[0], 12);
        assert_int_equal(codes[1], 24);
    }
    /* Infinite and NaN scales travel on. */
    static const uint16_t halves[] = {0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF};
    uint8_t block[34] = {0};
    fa_weight q = {.fmt = FA_FMT_Q8_0, .rows = 1, .cols = 32, .codes = block, .row_bytes = 34};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        memcpy(block, &halves[i], 2);
        fa_qfmts[FA_FMT_Q8_0].unpack(&q, 0, codes, &scale, &min);
        assert_true(!isfinite(scale) && !isfinite(min));
    }
}

static void refused(fa_weight w, const char *part) {
    fa_error err = {0};
    assert_true(fa_weight_check(&w, &err) < 0);
    if (!strstr(err.msg, part) || !strstr(err.msg, "blk.0.w")) fail_msg("message \"%s\" lacks \"%s\"", err.msg, part);
}

static void test_check(void **state) {
    (void)state;
    fa_weight w;
    for (int f = 0; f < FA_FMT_COUNT; f++) {
        w = good((fa_fmt)f);
        assert_int_equal(fa_weight_check(&w, NULL), 0);
        if (f <= FA_FMT_BF16) continue;
        if (f == FA_FMT_FP8) continue; /* any row length */
        w.cols = 255, refused(w, "255 columns");
        w.cols = fa_qfmts[f].block == 256 ? 128 : 40, refused(w, "not a multiple");
    }
    static const uint8_t bad_bits[] = {0, 1, 7, 9, 16};
    for (int i = 0; i < 5; i++) w = good(FA_FMT_AFFINE), w.bits = bad_bits[i], refused(w, "bits");
    static const uint16_t bad_groups[] = {0, 16, 33, 256};
    for (int i = 0; i < 4; i++) w = good(FA_FMT_AFFINE), w.group = bad_groups[i], refused(w, "groups of");
    w = good(FA_FMT_AFFINE), w.group = 128, w.cols = 192, refused(w, "multiple of 128");
    w = good(FA_FMT_AFFINE), w.scale_dtype = FA_U8, refused(w, "U8 scales");
    w = good(FA_FMT_AFFINE), w.scale_dtype = 200, refused(w, "scales");
    w = good(FA_FMT_AFFINE), w.row_bytes = 127, refused(w, "needs 128");
    w = good(FA_FMT_AFFINE), w.scale_row_bytes = 7, refused(w, "needs 8");
    w = good(FA_FMT_MXFP4), w.bits = 8, refused(w, "8 bits");
    w = good(FA_FMT_MXFP4), w.group = 16, refused(w, "groups of 16");
    w = good(FA_FMT_MXFP4), w.scale_dtype = FA_BF16, refused(w, "BF16");
    w = good(FA_FMT_MXFP8), w.group = 64, refused(w, "groups of 64");
    w = good(FA_FMT_NVFP4), w.scale_dtype = FA_U8, refused(w, "U8");
    w = good(FA_FMT_FP8), w.scale_dtype = FA_BF16, refused(w, "BF16");
    w = good(FA_FMT_FP8), w.group = 16, refused(w, "groups of 16");
    w = good(FA_FMT_FP8), w.cols = 300, w.scale_row_bytes = 8, refused(w, "needs 12");
    w = good(FA_FMT_FP8), w.group = 0, w.scale_row_bytes = 3, refused(w, "needs 4");
    w = good(FA_FMT_Q4_K), w.bits = 4, refused(w, "takes neither");
    w = good(FA_FMT_Q4_K), w.row_bytes = 143, refused(w, "needs 144");
    w = good(FA_FMT_F16), w.cols = 0, refused(w, "shape");
    w = good(FA_FMT_F16), w.rows = -1, refused(w, "shape");
    w = good(FA_FMT_F16), w.cols = INT64_MAX, refused(w, "shape");
    w = good(FA_FMT_F16), w.rows = INT64_MAX, refused(w, "too large");
    w = good(FA_FMT_F16), w.fmt = FA_FMT_COUNT, refused(w, "format");
}

static void test_names(void **state) {
    (void)state;
    char text[32];
    fa_weight w = good(FA_FMT_AFFINE);
    assert_string_equal(fa_weight_fmt_text(&w, text), "affine 4-bit g64");
    w = good(FA_FMT_Q4_K);
    assert_string_equal(fa_weight_fmt_text(&w, text), "q4_k");
    static const char *const names[] = {
#define FA_X(id, name) name,
        FA_FMTS(FA_X)
#undef FA_X
    };
    for (int f = 0; f < FA_FMT_COUNT; f++) assert_string_equal(fa_qfmts[f].name, names[f]);
    assert_int_equal(fa_dtype_from_name("BF16", 4), FA_BF16);
    assert_int_equal(fa_dtype_from_name("BF16x", 5), -1);
    assert_int_equal(fa_dtype_from_name("BF", 2), -1);
    assert_string_equal(fa_dtype_name(FA_F8_E4M3), "F8_E4M3");
    assert_int_equal(fa_dtype_size(FA_F64), 8);
    assert_int_equal(fa_dtype_size(FA_DTYPE_COUNT), 0);
}

/* Every f16 survives the trip to float and back; midpoints between neighbours go to the even one. */
static void test_f16(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = fa_f16_to_f32((uint16_t)h);
        const int exp = h >> 10 & 31, man = h & 0x3FF;
        if (exp == 31 && man) {
            assert_true(isnan(f));
            assert_int_equal(fa_f32_to_f16(f), h | 0x200);
            continue;
        }
        const double want = exp == 31 ? INFINITY : exp ? ldexp(1024 + man, exp - 25) : ldexp(man, -24);
        assert_true((double)f == (h & 0x8000 ? -want : want));
        assert_int_equal(fa_f32_to_f16(f), h);
        if (exp == 31 || (h & 0x7FFF) == 0) continue;
        const float next = (h & 0x7FFF) == 0x7BFF ? copysignf(65536, f) : fa_f16_to_f32((uint16_t)(h + 1));
        const float mid = (f + next) / 2, even = (float)(h & 1);
        assert_int_equal(fa_f32_to_f16(mid), even != 0 ? h + 1 : h);
        assert_int_equal(fa_f32_to_f16(nextafterf(mid, 0)), h);
        assert_int_equal(fa_f32_to_f16(nextafterf(mid, copysignf(INFINITY, f))), h + 1);
    }
    assert_int_equal(fa_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(fa_f32_to_f16(nextafterf(0x1p-25f, 1)), 1);
    assert_int_equal(fa_f32_to_f16(-1e-30f), 0x8000);
}

static void test_small_floats(void **state) {
    (void)state;
    for (int v = 0; v < 256; v++) {
        const float e4 = fa_f8e4m3_to_f32((uint8_t)v), e5 = fa_f8e5m2_to_f32((uint8_t)v);
        const int s = v & 128 ? -1 : 1, x4 = v >> 3 & 15, m4 = v & 7, x5 = v >> 2 & 31, m5 = v & 3;
        if ((v & 127) == 127)
            assert_true(isnan(e4));
        else
            assert_true((double)e4 == s * (x4 ? ldexp(8 + m4, x4 - 10) : ldexp(m4, -9)));
        if (x5 == 31)
            assert_true(m5 ? isnan(e5) : (double)e5 == s * (double)INFINITY);
        else
            assert_true((double)e5 == s * (x5 ? ldexp(4 + m5, x5 - 17) : ldexp(m5, -16)));
    }
    assert_true(fa_bf16_to_f32(fa_f32_to_bf16(1.00390625f)) == 1.0f); /* a tie, to even */
    assert_true(isnan(fa_bf16_to_f32(fa_f32_to_bf16(NAN))));
    uint8_t raw[9 * 2 + 1] = {0};
    const double d[2] = {1.5, -1e300};
    float out[3];
    memcpy(raw + 1, d, 16);
    fa_to_f32(FA_F64, raw + 1, 2, out);
    assert_true(out[0] == 1.5f && isinf(out[1]) && out[1] < 0);
    const uint8_t e8[3] = {0, 127, 255};
    fa_to_f32(FA_F8_E8M0, e8, 3, out);
    assert_true(out[0] == 0x1p-127f && out[1] == 1.0f && isnan(out[2]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequant_vectors),
        cmocka_unit_test(test_dequant_unaligned),
        cmocka_unit_test(test_quantize_vectors),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_float_rows),
        cmocka_unit_test(test_canonical_extremes),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_small_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
