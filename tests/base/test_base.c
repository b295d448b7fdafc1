/* src/base: allocation faults, buffers, maps, UTF-8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/map.h"
#include "base/rng.h"
#include "base/smap.h"
#include "base/utf8.h"

static void test_alloc(void **state) {
    (void)state;
    unsigned char *p = fa_calloc(16, 4);
    assert_non_null(p);
    for (int i = 0; i < 64; i++) assert_int_equal(p[i], 0);
    p = fa_realloc(p, 128, 1);
    assert_non_null(p);
    assert_null(fa_realloc(p, SIZE_MAX / 2, 3)); /* the product overflows; the old block stays */
    fa_free(p);

    void *a = fa_aligned_calloc(64, 100);
    assert_non_null(a);
    assert_int_equal((uintptr_t)a % 64, 0);
    fa_free(a);
    assert_null(fa_aligned_calloc(64, SIZE_MAX - 3));

    fa_alloc_fail_at(2);
    p = fa_calloc(1, 1);
    assert_non_null(p);
    assert_null(fa_calloc(1, 1)); /* the second one, once */
    fa_free(p);
    p = fa_calloc(1, 1);
    assert_non_null(p);
    fa_free(p);
    fa_alloc_fail_at(0);
}

static void test_buf(void **state) {
    (void)state;
    fa_buf b = {0};
    for (int i = 0; i < 1000; i++) fa_buf_printf(&b, "%d,", i);
    fa_buf_add(&b, "\0x", 2);
    fa_buf_puts(&b, "end");
    assert_false(b.failed);
    assert_int_equal(b.data[b.len], 0);
    assert_memory_equal(b.data, "0,1,2,3,", 8);
    assert_memory_equal(b.data + b.len - 5, "\0xend", 5);
    fa_buf_free(&b);

    fa_alloc_fail_at(1);
    fa_buf_puts(&b, "lost");
    assert_true(b.failed); /* sticky: later appends add nothing */
    fa_buf_puts(&b, "too");
    assert_int_equal(b.len, 0);
    fa_alloc_fail_at(0);
    fa_buf_free(&b);
}

static void test_err(void **state) {
    (void)state;
    fa_error e;
    assert_int_equal(fa_fail(&e, FFAI_EIO, "%s: gone", "a.txt"), FFAI_EIO);
    assert_int_equal(fa_fail_prefix(&e, FFAI_EIO, "model %s", "x"), FFAI_EIO);
    assert_string_equal(e.msg, "model x: a.txt: gone");
    char big[2000];
    memset(big, 'a', sizeof big);
    big[sizeof big - 1] = 0;
    fa_fail(&e, FFAI_EINVAL, "%s", big);
    assert_true(strlen(e.msg) < sizeof e.msg);
    assert_int_equal(fa_fail(NULL, FFAI_EINVAL, "nobody listens"), FFAI_EINVAL);
}

static void test_smap(void **state) {
    (void)state;
    enum { N = 5000 };
    static char key[N][8];
    fa_smap m = {0};
    for (int i = 0; i < N; i++) {
        int len = snprintf(key[i], sizeof key[i], "k%d", i);
        assert_int_equal(fa_smap_put(&m, key[i], (size_t)len, (uint32_t)i), 1);
    }
    assert_int_equal(fa_smap_put(&m, "k7", 2, 1), 0);
    for (int i = 0; i < N; i++) {
        uint32_t v = 0;
        assert_true(fa_smap_get(&m, key[i], strlen(key[i]), &v));
        assert_int_equal(v, i);
    }
    uint32_t v;
    assert_false(fa_smap_get(&m, "k", 1, &v));
    fa_smap_free(&m);
}

/* One expected code point and length per step, as Python's bytes.decode(errors="replace") does it. */
static void test_utf8(void **state) {
    (void)state;
    static const struct {
        const char *s;
        size_t n;
        uint32_t cp;
        size_t used;
    } cases[] = {
        {"a", 1, 'a', 1},
        {"\xc3\xa9", 2, 0xe9, 2},
        {"\xe2\x82\xac", 3, 0x20ac, 3},
        {"\xf0\x9f\x98\x80", 4, 0x1f600, 4},
        {"\xc0\xaf", 2, 0xfffd, 1},
        {"\xed\xa0\x80", 3, 0xfffd, 1},
        {"\xe2\x82", 2, 0xfffd, 2},
        {"\xf0\x9f\x98", 3, 0xfffd, 3},
        {"\xf5\x80", 2, 0xfffd, 1},
        {"\x80", 1, 0xfffd, 1},
        {"\xe2\x28\xa1", 3, 0xfffd, 1},
        {"\xf4\x90\x80\x80", 4, 0xfffd, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t cp = 0;
        size_t used = (size_t)fa_utf8_decode(cases[i].s, cases[i].n, &cp);
        assert_int_equal(cp, cases[i].cp);
        assert_int_equal(used, cases[i].used);
    }
    char out[4];
    for (uint32_t c = 0; c < 0x110000; c += 7) {
        if (c >= 0xd800 && c < 0xe000) continue;
        uint32_t cp = 0;
        int n = fa_utf8_encode(c, out);
        assert_int_equal(fa_utf8_decode(out, (size_t)n, &cp), n);
        assert_int_equal(cp, c);
        for (int k = 1; k < n; k++) assert_int_equal(fa_utf8_partial_tail(out, (size_t)k), k);
        assert_int_equal(fa_utf8_partial_tail(out, (size_t)n), 0);
    }
    assert_int_equal(fa_utf8_encode(0xd800, out), 3);
    assert_memory_equal(out, "\xef\xbf\xbd", 3);
}

static void test_map(void **state) {
    (void)state;
    fa_map m;
    fa_error e;
    assert_int_equal(fa_map_open(&m, FFAI_SOURCE_DIR "/LICENSE", &e), 0);
    assert_memory_equal(m.data, "MIT License", 11);
    fa_map_close(&m);
    assert_int_not_equal(fa_map_open(&m, FFAI_SOURCE_DIR "/no-such-file", &e), 0);
    assert_non_null(strstr(e.msg, "no-such-file"));
    assert_int_not_equal(fa_map_open(&m, FFAI_SOURCE_DIR "/src", &e), 0);
    assert_int_not_equal(fa_map_open(&m, "/dev/zero", &e), 0);

    char *text = NULL;
    size_t len = 0;
    assert_int_equal(fa_read_file(&text, &len, FFAI_SOURCE_DIR "/LICENSE", 1 << 20, &e), 0);
    assert_int_equal(strlen(text), len);
    fa_free(text);
    assert_int_not_equal(fa_read_file(&text, &len, FFAI_SOURCE_DIR "/LICENSE", 10, &e), 0);
    assert_null(text);
    assert_true(fa_path_is_dir(FFAI_SOURCE_DIR));
    assert_true(fa_path_is_file(FFAI_SOURCE_DIR "/LICENSE"));
    assert_false(fa_path_is_file(FFAI_SOURCE_DIR));
}

/* The first values of splitmix64 with seed 0, as published: test weights depend on them. */
static void test_rng(void **state) {
    (void)state;
    assert_true(fa_rng_at(0, 0) == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(fa_rng_at(0, 1) == UINT64_C(0x6e789e6aa1b965f4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc), cmocka_unit_test(test_buf),  cmocka_unit_test(test_err),
        cmocka_unit_test(test_smap),  cmocka_unit_test(test_utf8), cmocka_unit_test(test_map),
        cmocka_unit_test(test_rng),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
