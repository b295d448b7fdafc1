/* safetensors: good files of every type, and every way of lying in the header. */
#define _GNU_SOURCE
#include "io/util.h"

#include "io/safetensors.h"
#include "tensor/dtype.h"

/* header text + n data bytes as a file; data byte i is (uint8_t)i. */
static fa_buf image(const char *header, size_t n) {
    fa_buf b = {0};
    put_le(&b, strlen(header), 8);
    fa_buf_puts(&b, header);
    for (size_t i = 0; i < n; i++) put_le(&b, i & 0xFF, 1);
    return b;
}

/* Parses from a block of exactly the right size, so that the sanitizer sees reads past the end. */
static int parse(fa_st **s, const fa_buf *b, fa_error *err) {
    static uint8_t *block; /* outlives the handle; one at a time */
    free(block);
    block = (uint8_t *)malloc(b->len ? b->len : 1);
    if (b->len) memcpy(block, b->data, b->len);
    return fa_st_parse(s, block, b->len, "m.safetensors", err);
}

static void refuse(const char *header, size_t data, int code, const char *words) {
    fa_st *s;
    fa_error err = {0};
    fa_buf b = image(header, data);
    int rc = parse(&s, &b, &err);
    if (rc != code) print_error("%s\n", header);
    assert_failed(rc, &err, code, "m.safetensors");
    assert_failed(rc, &err, code, words);
    assert_null(s);
    fa_buf_free(&b);
}

static void good(void **state) {
    (void)state;
    fa_st *s;
    fa_error err = {0};
    fa_buf b = image(
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
        "\"a\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\",\"more\":[1]},\"empty\":{\"dtype\":\"I64\","
        "\"shape\":[7,0],\"data_offsets\":[16,16]}}   ",
        16);
    assert_ok(parse(&s, &b, &err), &err);
    assert_int_equal(fa_st_count(s), 3);
    const fa_st_tensor *t = fa_st_find(s, "b");
    assert_ptr_equal(t, fa_st_at(s, 0));
    assert_int_equal(t->n_dim, 2);
    assert_int_equal(t->dim[0], 2);
    assert_int_equal(t->dim[1], 3);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(t->dtype, FA_BF16);
    assert_string_equal(t->type_name, "BF16");
    assert_int_equal(t->data[0], 4);
    t = fa_st_find(s, "a");
    assert_int_equal(t->n_dim, 0);
    assert_int_equal(t->bytes, 4);
    assert_int_equal(t->data[3], 3);
    assert_int_equal(fa_st_find(s, "empty")->bytes, 0);
    assert_null(fa_st_find(s, "c"));
    assert_null(fa_st_at(s, 3));
    assert_string_equal(fa_jstr(fa_jget(fa_st_metadata(s), "format"), NULL), "pt");
    fa_st_free(s);
    fa_buf_free(&b);
    b = image("{}", 0);
    assert_ok(parse(&s, &b, &err), &err);
    assert_int_equal(fa_st_count(s), 0);
    fa_st_free(s);
    fa_buf_free(&b);
}

static void types(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int bits, dtype;
    } row[] = {
        {"BOOL", 8, FA_BOOL},
        {"U8", 8, FA_U8},
        {"I8", 8, FA_I8},
        {"F8_E5M2", 8, FA_F8_E5M2},
        {"F8_E4M3", 8, FA_F8_E4M3},
        {"F8_E8M0", 8, FA_F8_E8M0},
        {"I16", 16, FA_I16},
        {"U16", 16, FA_U16},
        {"F16", 16, FA_F16},
        {"BF16", 16, FA_BF16},
        {"I32", 32, FA_I32},
        {"U32", 32, FA_U32},
        {"F32", 32, FA_F32},
        {"F64", 64, FA_F64},
        {"I64", 64, FA_I64},
        {"U64", 64, FA_U64},
        {"F4", 4, -1},
        {"F6_E2M3", 6, -1},
        {"F6_E3M2", 6, -1},
        {"C64", 64, -1},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char header[200];
        fa_st *s;
        fa_error err = {0};
        int bytes = row[i].bits * 12 / 8;
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3,4],\"data_offsets\":[0,%d]}}",
                 row[i].name, bytes);
        fa_buf b = image(header, (size_t)bytes);
        assert_ok(parse(&s, &b, &err), &err);
        assert_int_equal(fa_st_at(s, 0)->dtype, row[i].dtype);
        assert_string_equal(fa_st_at(s, 0)->type_name, row[i].name);
        fa_st_free(s);
        fa_buf_free(&b);
    }
    refuse("{\"w.x\":{\"dtype\":\"F7\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, FFAI_EFORMAT, "w.x|F7");
    refuse("{\"w.x\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, FFAI_EFORMAT, "w.x|f32");
    refuse("{\"w.x\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, FFAI_EFORMAT, "w.x|dtype");
    refuse("{\"w.x\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, FFAI_EFORMAT, "w.x|whole bytes");
}

static void header_length(void **state) {
    (void)state;
    static const uint64_t lengths[] = {3,          100,           1000, 99999999, 100000001, UINT64_C(1) << 63,
                                       UINT64_MAX, UINT64_MAX - 7};
    fa_st *s;
    fa_error err = {0};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        fa_buf b = {0};
        put_le(&b, lengths[i], 8);
        fa_buf_puts(&b, "{}");
        assert_failed(parse(&s, &b, &err), &err, FFAI_EFORMAT, "m.safetensors|header length");
        fa_buf_free(&b);
    }
    fa_buf b = {0};
    for (int n = 0; n < 8; n++) {
        assert_failed(parse(&s, &b, &err), &err, FFAI_EFORMAT, "too short");
        put_le(&b, 0, 1);
    }
    assert_failed(parse(&s, &b, &err), &err, FFAI_EFORMAT, "begin with '{'"); /* length 0 */
    fa_buf_free(&b);
}

static void header_text(void **state) {
    (void)state;
    refuse("[]", 0, FFAI_EFORMAT, "begin with '{'");
    refuse(" {}", 0, FFAI_EFORMAT, "begin with '{'");
    refuse("{}x", 0, FFAI_EFORMAT, "");
    refuse("{} {}", 0, FFAI_EFORMAT, "");
    refuse("{\"a\":", 0, FFAI_EFORMAT, "");
    refuse("{\"a\xFF\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, FFAI_EFORMAT, "UTF-8");
    refuse("{\"a\\ud800\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, FFAI_EFORMAT, "escape");
    refuse("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, FFAI_EFORMAT, "NUL");
    refuse("{\"a\":3}", 0, FFAI_EFORMAT, "tensor a");
    refuse("{\"__metadata__\":3}", 0, FFAI_EFORMAT, "__metadata__");
    refuse("{\"__metadata__\":{\"k\":3}}", 0, FFAI_EFORMAT, "__metadata__|k");
    refuse("{\"__metadata__\":{},\"__metadata__\":{}}", 0, FFAI_EFORMAT, "__metadata__|twice");
    /* NUL padding and nesting */
    fa_st *s;
    fa_error err = {0};
    fa_buf b = {0};
    put_le(&b, 4, 8);
    fa_buf_add(&b, "{}\0\0", 4);
    assert_failed(parse(&s, &b, &err), &err, FFAI_EFORMAT, "m.safetensors");
    fa_buf_free(&b);
    put_le(&b, 5000000, 8);
    for (int i = 0; i < 1000000; i++) fa_buf_puts(&b, "{\"a\":");
    assert_int_not_equal(parse(&s, &b, &err), 0);
    fa_buf_free(&b);
}

static void shapes(void **state) {
    (void)state;
#define T(shape, off) "{\"w.q\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" off "}}"
    refuse(T("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, FFAI_ELIMIT, "w.q|9 dimensions");
    refuse(T("[-1]", "[0,4]"), 4, FFAI_EFORMAT, "w.q|non-negative");
    refuse(T("[1.0]", "[0,4]"), 4, FFAI_EFORMAT, "w.q|non-negative");
    refuse(T("[1e30]", "[0,4]"), 4, FFAI_EFORMAT, "w.q");
    refuse(T("[18446744073709551615]", "[0,4]"), 4, FFAI_EFORMAT, "w.q");
    refuse(T("[\"1\"]", "[0,4]"), 4, FFAI_EFORMAT, "w.q");
    refuse(T("4", "[0,4]"), 4, FFAI_EFORMAT, "w.q|shape");
    refuse(T("[4294967296,4294967296]", "[0,4]"), 4, FFAI_EFORMAT, "w.q|64 bits");
    refuse(T("[0,4294967296,4294967296]", "[0,0]"), 0, FFAI_EFORMAT, "w.q|64 bits");
    refuse(T("[1152921504606846976]", "[0,4]"), 4, FFAI_EFORMAT, "w.q|overflow");
    refuse(T("[9223372036854775807]", "[0,4]"), 4, FFAI_EFORMAT, "w.q");
    refuse(T("[2]", "[0,4]"), 4, FFAI_EFORMAT, "w.q|need 8");
    refuse(T("[0]", "[0,4]"), 4, FFAI_EFORMAT, "w.q|need 0");
    refuse("{\"w.q\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, FFAI_EFORMAT, "w.q|shape");
    refuse("{\"w.q\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, FFAI_EFORMAT, "w.q|data_offsets");
    refuse("{\"w.q\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, FFAI_EFORMAT, "w.q|dtype");
}

static void offsets(void **state) {
    (void)state;
    refuse(T("[1]", "[4,0]"), 4, FFAI_EFORMAT, "w.q|range");
    refuse(T("[1]", "[-4,0]"), 4, FFAI_EFORMAT, "w.q|range");
    refuse(T("[1]", "[0,8]"), 4, FFAI_EFORMAT, "w.q|truncated");
    refuse(T("[1]", "[9223372036854775803,9223372036854775807]"), 4, FFAI_EFORMAT, "w.q|truncated");
    refuse(T("[1]", "[0]"), 4, FFAI_EFORMAT, "w.q|pair");
    refuse(T("[1]", "[0,4,8]"), 4, FFAI_EFORMAT, "w.q|pair");
    refuse(T("[1]", "[0.0,4]"), 4, FFAI_EFORMAT, "w.q|pair");
    refuse(T("[1]", "\"0,4\""), 4, FFAI_EFORMAT, "w.q|pair");
    refuse(T("[1]", "[0,4]"), 5, FFAI_EFORMAT, "1 bytes after");
    refuse(T("[1]", "[1,5]"), 5, FFAI_EFORMAT, "w.q|hole");
    refuse("{}", 1, FFAI_EFORMAT, "after the last");
#define TWO(a, b)                                                                                                      \
    "{\"w.a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" a                                                     \
    "},\"w.b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" b "}}"
    refuse(TWO("[0,4]", "[2,6]"), 6, FFAI_EFORMAT, "w.b|overlap");
    refuse(TWO("[0,4]", "[0,4]"), 4, FFAI_EFORMAT, "overlap");
    refuse(TWO("[0,4]", "[5,9]"), 9, FFAI_EFORMAT, "w.b|hole");
    refuse(TWO("[0,4]", "[4,8]"), 9, FFAI_EFORMAT, "after the last");
    refuse("{\"w.a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"w.a\":{\"dtype\":\"U8\",\"shape\":[4],"
           "\"data_offsets\":[4,8]}}",
           8, FFAI_EFORMAT, "w.a|twice");
    refuse("{\"w.a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"z\":{\"dtype\":\"U8\",\"shape\":[0],"
           "\"data_offsets\":[2,2]}}",
           4, FFAI_EFORMAT, "overlap");
    fa_st *s;
    fa_error err = {0};
    fa_buf b = image(TWO("[4,8]", "[0,4]"), 8); /* any order in the header */
    assert_ok(parse(&s, &b, &err), &err);
    assert_int_equal(fa_st_find(s, "w.a")->data[0], 4);
    fa_st_free(s);
    fa_buf_free(&b);
}

static void many_tensors(void **state) {
    (void)state;
    enum { N = 200000 };
    fa_buf h = {0};
    for (int i = 0; i < N; i++)
        fa_buf_printf(&h, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "{", i, i,
                      i + 1);
    fa_buf_puts(&h, "}");
    fa_buf b = image(h.data, N);
    fa_st *s;
    fa_error err = {0};
    assert_ok(parse(&s, &b, &err), &err);
    assert_int_equal(fa_st_count(s), N);
    assert_int_equal(fa_st_find(s, "t123456")->data[0], 123456 & 0xFF);
    fa_st_free(s);
    fa_buf_free(&b);
    fa_buf_free(&h);
}

static void truncation(void **state) {
    (void)state;
    fa_buf b = image("{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},\"a\":{\"dtype\":\"F32\","
                     "\"shape\":[],\"data_offsets\":[0,4]}}",
                     16);
    fa_st *s;
    fa_error err = {0};
    size_t whole = b.len;
    for (b.len = 0; b.len < whole; b.len++) assert_failed(parse(&s, &b, &err), &err, FFAI_EFORMAT, "m.safetensors");
    b.len = whole;
    for (long n = 1; n < 30; n++) {
        fa_alloc_fail_at(n);
        int rc = parse(&s, &b, &err);
        fa_alloc_fail_at(0);
        if (rc) assert_int_equal(rc, FFAI_ENOMEM);
        fa_st_free(s);
    }
    fa_buf_free(&b);
}

static void files(void **state) {
    (void)state;
    char dir[256], path[512];
    fa_st *s;
    fa_error err = {0};
    make_dir(dir);
    fa_buf b = image(T("[1]", "[0,4]"), 4);
    put_file(dir, "m.safetensors", b.data, b.len);
    path_in(path, dir, "m.safetensors");
    assert_ok(fa_st_open(&s, path, &err), &err);
    assert_string_equal(fa_st_what(s), path);
    fa_st_free(s);
    put_file(dir, "m.safetensors", "", 0);
    assert_failed(fa_st_open(&s, path, &err), &err, FFAI_EFORMAT, "m.safetensors|too short");
    drop_file(dir, "m.safetensors");
    assert_failed(fa_st_open(&s, path, &err), &err, FFAI_EIO, "m.safetensors|No such");
    assert_int_equal(mkfifo(path, 0600), 0); /* must not block */
    assert_failed(fa_st_open(&s, path, &err), &err, FFAI_EIO, "not a regular file");
    drop_file(dir, "m.safetensors");
    rmdir(dir);
    fa_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),         cmocka_unit_test(types),      cmocka_unit_test(header_length),
        cmocka_unit_test(header_text),  cmocka_unit_test(shapes),     cmocka_unit_test(offsets),
        cmocka_unit_test(many_tensors), cmocka_unit_test(truncation), cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
