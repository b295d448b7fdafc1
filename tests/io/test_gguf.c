/* GGUF: metadata of every type, tensors, and headers that lie. */
#define _GNU_SOURCE
#include "io/gguf_make.h"

/* Parses from a block of exactly the right size, so that the sanitizer sees reads past the end; frees *b. */
static int parse(fa_gguf **g, fa_buf *b, fa_error *err) {
    static uint8_t *block; /* outlives the handle; one at a time */
    free(block);
    block = (uint8_t *)malloc(b->len ? b->len : 1);
    if (b->len) memcpy(block, b->data, b->len);
    int rc = fa_gguf_parse(g, block, b->len, "m.gguf", err);
    fa_buf_free(b);
    return rc;
}

static void refuse_buf(fa_buf *b, int code, const char *words, int line) {
    fa_gguf *g;
    fa_error err = {0};
    check_failed(parse(&g, b, &err), &err, code, "m.gguf", __FILE__, line);
    check_failed(err.code, &err, code, words, __FILE__, line);
    assert_null(g);
}

static void refuse_make(gguf_make *m, int code, const char *words, int line) {
    fa_buf b = mk_file(m, 3);
    refuse_buf(&b, code, words, line);
}
#define REFUSE(m, code, words)     refuse_make((m), (code), (words), __LINE__)
#define REFUSE_BUF(b, code, words) refuse_buf((b), (code), (words), __LINE__)

static void scalar(gguf_make *m, const char *key, uint32_t type, uint64_t v, int bytes) {
    mk_key(m, key, type);
    put_le(&m->kv, v, bytes);
}

static gguf_make every_type(void) {
    gguf_make m = {0};
    scalar(&m, "u8", FA_GGUF_U8, 200, 1);
    scalar(&m, "i8", FA_GGUF_I8, 200, 1);
    scalar(&m, "u16", FA_GGUF_U16, 60000, 2);
    scalar(&m, "i16", FA_GGUF_I16, 60000, 2);
    scalar(&m, "u32", FA_GGUF_U32, 4000000000u, 4);
    scalar(&m, "i32", FA_GGUF_I32, 4000000000u, 4);
    scalar(&m, "u64", FA_GGUF_U64, INT64_MAX, 8);
    scalar(&m, "i64", FA_GGUF_I64, UINT64_MAX, 8);
    scalar(&m, "bool", FA_GGUF_BOOL, 1, 1);
    mk_f32(&m, "f32", 1.5f);
    scalar(&m, "f64", FA_GGUF_F64, UINT64_C(0x4004000000000000), 8);
    mk_text(&m, "str", "hello");
    mk_text(&m, "none", "");
    mk_key(&m, "words", FA_GGUF_ARR);
    put_le(&m.kv, FA_GGUF_STR, 4);
    put_le(&m.kv, 3, 8);
    mk_str(&m.kv, "a");
    mk_str(&m.kv, "");
    mk_str(&m.kv, "\xFF xyz");
    mk_key(&m, "nums", FA_GGUF_ARR);
    put_le(&m.kv, FA_GGUF_I16, 4);
    put_le(&m.kv, 2, 8);
    put_le(&m.kv, 7, 2);
    put_le(&m.kv, 0xFFFE, 2);
    mk_key(&m, "void", FA_GGUF_ARR);
    put_le(&m.kv, FA_GGUF_F32, 4);
    put_le(&m.kv, 0, 8);
    return m;
}

static void metadata(void **state) {
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        gguf_make m = every_type();
        fa_buf b = mk_file(&m, version);
        fa_gguf *g;
        fa_error err = {0};
        size_t pos = 0, len;
        const char *s;
        assert_ok(parse(&g, &b, &err), &err);
        assert_int_equal(fa_gguf_n_kv(g), 16);
        assert_int_equal(fa_gguf_n_tensor(g), 0);
        assert_string_equal(fa_gguf_kv_at(g, 0)->key, "u8");
        assert_null(fa_gguf_kv_at(g, 16));
        assert_int_equal(fa_gguf_find(g, "u8")->i, 200);
        assert_int_equal(fa_gguf_find(g, "i8")->i, -56);
        assert_int_equal(fa_gguf_find(g, "u16")->i, 60000);
        assert_int_equal(fa_gguf_find(g, "i16")->i, -5536);
        assert_true(fa_gguf_find(g, "u32")->i == 4000000000);
        assert_true(fa_gguf_find(g, "u32")->f == 4e9);
        assert_int_equal(fa_gguf_find(g, "i32")->i, -294967296);
        assert_true(fa_gguf_find(g, "u64")->i == INT64_MAX);
        assert_int_equal(fa_gguf_find(g, "i64")->i, -1);
        assert_int_equal(fa_gguf_find(g, "bool")->i, 1);
        assert_true(fa_gguf_find(g, "f32")->f == 1.5);
        assert_true(fa_gguf_find(g, "f64")->f == 2.5);
        assert_memory_equal(fa_gguf_find(g, "str")->data, "hello", 5);
        assert_int_equal(fa_gguf_find(g, "none")->n, 0);
        assert_null(fa_gguf_find(g, "absent"));
        const fa_gguf_value *v = fa_gguf_find(g, "words");
        assert_int_equal(v->n, 3);
        assert_true(fa_gguf_next_str(v, &pos, &s, &len) && len == 1 && s[0] == 'a');
        assert_true(fa_gguf_next_str(v, &pos, &s, &len) && len == 0);
        assert_true(fa_gguf_next_str(v, &pos, &s, &len) && len == 5 && memcmp(s, "\xFF xyz", 5) == 0);
        assert_false(fa_gguf_next_str(v, &pos, &s, &len));
        v = fa_gguf_find(g, "nums");
        assert_true(fa_gguf_num_at(v, 0) == 7 && fa_gguf_num_at(v, 1) == -2 && fa_gguf_num_at(v, 2) == 0);
        assert_int_equal(fa_gguf_find(g, "void")->n, 0);
        fa_gguf_free(g);
    }
}

static void tensors(void **state) {
    (void)state;
    for (uint32_t align = 1; align <= 4096; align *= 8) {
        gguf_make m = {.align = align};
        uint64_t d[4] = {64, 3, 2, 1};
        fa_gguf *g;
        fa_error err = {0};
        mk_u32(&m, "general.alignment", align);
        mk_tensor(&m, "q", 2, 2, d, 2 * 3 * 18, 5);
        mk_tensor(&m, "f", 1, 4, d, 64 * 6 * 2, 6);
        mk_tensor(&m, "scalar", 0, 0, d, 4, 7);
        d[1] = 0;
        mk_tensor(&m, "empty", 0, 2, d, 0, 0);
        fa_buf b = mk_file(&m, 3);
        assert_ok(parse(&g, &b, &err), &err);
        assert_int_equal(fa_gguf_n_tensor(g), 4);
        const fa_gguf_tensor *t = fa_gguf_tensor_at(g, 0);
        assert_string_equal(t->name, "q");
        assert_int_equal(t->n_dim, 2);
        assert_int_equal(t->dim[0], 3);
        assert_int_equal(t->dim[1], 64);
        assert_int_equal(t->bytes, 108);
        assert_int_equal(t->data[0], 5);
        assert_int_equal(t->data[107], 5);
        t = fa_gguf_tensor_at(g, 1);
        assert_int_equal(t->dim[0], 1);
        assert_int_equal(t->dim[3], 64);
        assert_int_equal(t->data[767], 6);
        t = fa_gguf_tensor_at(g, 2);
        assert_int_equal(t->bytes, 4);
        assert_int_equal(t->data[0], 7);
        assert_int_equal(fa_gguf_tensor_at(g, 3)->bytes, 0);
        fa_gguf_free(g);
    }
}

static void type_table(void **state) {
    (void)state;
    int values, bytes;
    static const struct {
        uint32_t type;
        const char *name;
        int values, bytes;
    } some[] = {{0, "F32", 1, 4},   {12, "Q4_K", 256, 144}, {14, "Q6_K", 256, 210}, {23, "IQ4_XS", 256, 136},
                {30, "BF16", 1, 2}, {35, "TQ2_0", 256, 66}, {39, "MXFP4", 32, 17},  {40, "NVFP4", 64, 36}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        assert_string_equal(fa_ggml_type_name(some[i].type), some[i].name);
        assert_true(fa_ggml_type_block(some[i].type, &values, &bytes));
        assert_int_equal(values, some[i].values);
        assert_int_equal(bytes, some[i].bytes);
    }
    static const uint32_t gone[] = {4, 5, 31, 32, 33, 36, 37, 38, 42, 1000, UINT32_MAX};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        assert_null(fa_ggml_type_name(gone[i]));
        assert_false(fa_ggml_type_block(gone[i], &values, &bytes));
        gguf_make m = {0};
        uint64_t d[1] = {32};
        mk_tensor(&m, "blk.0.x", gone[i], 1, d, 128, 0);
        REFUSE(&m, FFAI_ENOTSUP, "blk.0.x|type");
    }
}

static void headers(void **state) {
    (void)state;
    fa_buf b = {0};
    fa_buf_puts(&b, "GGML....................");
    REFUSE_BUF(&b, FFAI_EFORMAT, "not a GGUF");
    REFUSE_BUF(&b, FFAI_EFORMAT, "not a GGUF"); /* empty */
    static const uint32_t versions[] = {0, 1, 4, 0x03000000};
    for (int i = 0; i < 4; i++) {
        gguf_make m = {0};
        b = mk_file(&m, versions[i]);
        REFUSE_BUF(&b, FFAI_ENOTSUP, i == 3 ? "big-endian" : "version");
    }
    static const uint64_t counts[] = {1, 3, 1000, UINT64_C(1) << 32, UINT64_C(1) << 60, UINT64_MAX};
    for (int i = 0; i < 12; i++) {
        fa_buf_puts(&b, "GGUF");
        put_le(&b, 3, 4);
        put_le(&b, i < 6 ? counts[i] : 0, 8);
        put_le(&b, i < 6 ? 0 : counts[i - 6], 8);
        put_le(&b, 0, 8);
        REFUSE_BUF(&b, FFAI_EFORMAT, i < 6 ? "tensors" : "metadata");
    }
}

static void bad_metadata(void **state) {
    (void)state;
    gguf_make m = {0};
    scalar(&m, "k.x", FA_GGUF_U64, UINT64_C(1) << 63, 8);
    REFUSE(&m, FFAI_EFORMAT, "k.x|64-bit");
    scalar(&m, "k.x", 13, 0, 8);
    REFUSE(&m, FFAI_EFORMAT, "k.x|type 13");
    scalar(&m, "k.x", UINT32_MAX, 0, 8); /* a negative type */
    REFUSE(&m, FFAI_EFORMAT, "k.x|type");
    mk_u32(&m, "k.x", 1);
    mk_u32(&m, "k.x", 1);
    REFUSE(&m, FFAI_EFORMAT, "k.x|twice");
    mk_u32(&m, "", 1);
    REFUSE(&m, FFAI_EFORMAT, "name");
    put_le(&m.kv, 3, 8);
    fa_buf_add(&m.kv, "a\0b", 3);
    put_le(&m.kv, FA_GGUF_U32, 4);
    put_le(&m.kv, 1, 4);
    m.n_kv = 1;
    REFUSE(&m, FFAI_EFORMAT, "NUL");
    fa_buf long_key = {0};
    for (int i = 0; i < 70000; i++) fa_buf_puts(&long_key, "k");
    mk_u32(&m, long_key.data, 1);
    REFUSE(&m, FFAI_EFORMAT, "70000 bytes");
    fa_buf_free(&long_key);
    static const uint64_t lengths[] = {1000, UINT64_C(1) << 32, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (int i = 0; i < 5; i++) {
        mk_key(&m, "k.x", FA_GGUF_STR);
        put_le(&m.kv, lengths[i], 8);
        put_le(&m.kv, 0, 8);
        REFUSE(&m, FFAI_EFORMAT, "k.x|bytes left");
        put_le(&m.kv, lengths[i], 8); /* a key */
        put_le(&m.kv, 0, 8);
        m.n_kv = 1;
        REFUSE(&m, FFAI_EFORMAT, "bytes left");
        for (uint32_t elem = 0; elem <= 12; elem++) {
            mk_key(&m, "k.x", FA_GGUF_ARR);
            put_le(&m.kv, elem, 4);
            put_le(&m.kv, lengths[i], 8);
            put_le(&m.kv, 0, 8);
            REFUSE(&m, elem == FA_GGUF_ARR ? FFAI_ENOTSUP : FFAI_EFORMAT,
                   elem == FA_GGUF_ARR ? "k.x|array of arrays" : "k.x|elements");
        }
        mk_key(&m, "k.x", FA_GGUF_ARR); /* a string inside an array */
        put_le(&m.kv, FA_GGUF_STR, 4);
        put_le(&m.kv, 2, 8);
        mk_str(&m.kv, "ok");
        put_le(&m.kv, lengths[i], 8);
        REFUSE(&m, FFAI_EFORMAT, "k.x|bytes left");
    }
    mk_key(&m, "k.x", FA_GGUF_ARR);
    put_le(&m.kv, 13, 4);
    put_le(&m.kv, 0, 8);
    REFUSE(&m, FFAI_EFORMAT, "k.x|type 13");
}

static void bad_alignment(void **state) {
    (void)state;
    static const uint32_t bad[] = {0, 3, 24, 33, 1u << 21, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gguf_make m = {0};
        mk_u32(&m, "general.alignment", bad[i]);
        REFUSE(&m, FFAI_EFORMAT, "general.alignment|power of two");
    }
    gguf_make m = {0};
    mk_text(&m, "general.alignment", "32");
    REFUSE(&m, FFAI_EFORMAT, "general.alignment");
    mk_f32(&m, "general.alignment", 32);
    REFUSE(&m, FFAI_EFORMAT, "general.alignment");
}

/* One tensor whose info says what the arguments say, with `bytes` of data behind. */
static void bad_tensor(uint32_t type, uint32_t n_dim, uint64_t a, uint64_t b, uint64_t c, uint64_t offset, size_t bytes,
                       const char *words, int line) {
    gguf_make m = {0};
    uint64_t dims[4] = {a, b, c, 1};
    mk_str(&m.info, "t.x");
    put_le(&m.info, n_dim, 4);
    for (uint32_t i = 0; i < n_dim && i < 4; i++) put_le(&m.info, dims[i], 8);
    put_le(&m.info, type, 4);
    put_le(&m.info, offset, 8);
    for (size_t i = 0; i < bytes; i++) put_le(&m.data, 0, 1);
    m.n_tensor = 1;
    refuse_make(&m, FFAI_EFORMAT, words, line);
}
#define BAD(...) bad_tensor(__VA_ARGS__, __LINE__)

static void bad_tensors(void **state) {
    (void)state;
    const uint64_t big = UINT64_C(1) << 32, huge = UINT64_C(1) << 62;
    BAD(0, 5, 1, 1, 1, 0, 4, "t.x|5 dimensions");
    BAD(0, UINT32_MAX, 1, 1, 1, 0, 4, "t.x|dimensions");
    BAD(0, 1, UINT64_C(1) << 63, 1, 1, 0, 4, "t.x|dimension");
    BAD(0, 1, UINT64_MAX, 1, 1, 0, 4, "t.x|dimension");
    BAD(0, 2, big, big, 1, 0, 4, "t.x|overflow");
    BAD(0, 3, big, big, big, 0, 4, "t.x|overflow");
    BAD(0, 1, huge, 1, 1, 0, 4, "t.x|overflow");
    BAD(0, 1, huge / 2, 1, 1, 0, 4, "t.x|overflow");
    BAD(0, 1, huge / 8, 1, 1, 0, 4, "t.x|data area");
    BAD(12, 3, huge, 8, 1, 0, 4, "t.x|overflow");
    BAD(2, 1, 33, 1, 1, 0, 64, "t.x|Q4_0");
    BAD(12, 2, 128, 2, 1, 0, 200, "t.x|Q4_K");
    BAD(0, 1, 2, 1, 1, 0, 7, "t.x|data area");
    BAD(0, 1, 1, 1, 1, 32, 32, "t.x|data area");
    BAD(0, 1, 1, 1, 1, 4, 64, "t.x|alignment");
    BAD(0, 1, 1, 1, 1, UINT64_MAX - 31, 64, "t.x|data area");
    BAD(0, 1, 8, 1, 1, UINT64_MAX - 63, 64, "t.x|data area");
    gguf_make m = {0};
    for (int i = 0; i < 2; i++) { /* both at offset 0 */
        mk_str(&m.info, i ? "t.b" : "t.a");
        put_le(&m.info, 1, 4);
        put_le(&m.info, 1, 8);
        put_le(&m.info, 0, 4);
        put_le(&m.info, 0, 8);
    }
    put_le(&m.data, 0, 8);
    m.n_tensor = 2;
    REFUSE(&m, FFAI_EFORMAT, "t.a|t.b|overlap");
    mk_f32_tensor(&m, "t.a", 1, 0);
    mk_f32_tensor(&m, "t.a", 1, 0);
    REFUSE(&m, FFAI_EFORMAT, "t.a|twice");
}

static void truncation(void **state) {
    (void)state;
    gguf_make m = every_type();
    mk_f32_tensor(&m, "a", 3, 2);
    mk_f32_tensor(&m, "b", 5, 0);
    fa_buf whole = mk_file(&m, 3);
    for (size_t n = 0; n < whole.len; n++) {
        fa_buf b = {0};
        fa_buf_add(&b, whole.data, n);
        REFUSE_BUF(&b, FFAI_EFORMAT, "m.gguf");
    }
    for (long n = 1; n < 60; n++) {
        fa_gguf *g;
        fa_error err = {0};
        fa_alloc_fail_at(n);
        int rc = fa_gguf_parse(&g, (const uint8_t *)whole.data, whole.len, "m.gguf", &err);
        fa_alloc_fail_at(0);
        if (rc) assert_int_equal(rc, FFAI_ENOMEM);
        fa_gguf_free(g);
    }
    fa_buf_free(&whole);
}

static void files(void **state) {
    (void)state;
    char dir[256], path[512];
    fa_gguf *g;
    fa_error err = {0};
    make_dir(dir);
    gguf_make m = every_type();
    mk_f32_tensor(&m, "a", 3, 2);
    fa_buf b = mk_file(&m, 3);
    put_file(dir, "m.gguf", b.data, b.len);
    path_in(path, dir, "m.gguf");
    assert_ok(fa_gguf_open(&g, path, &err), &err);
    assert_int_equal(fa_gguf_n_tensor(g), 1);
    fa_gguf_free(g);
    drop_file(dir, "m.gguf");
    assert_failed(fa_gguf_open(&g, path, &err), &err, FFAI_EIO, "m.gguf|No such");
    rmdir(dir);
    fa_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata),    cmocka_unit_test(tensors),      cmocka_unit_test(type_table),
        cmocka_unit_test(headers),     cmocka_unit_test(bad_metadata), cmocka_unit_test(bad_alignment),
        cmocka_unit_test(bad_tensors), cmocka_unit_test(truncation),   cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
