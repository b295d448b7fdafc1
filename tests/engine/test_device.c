/* The description of devices: filled for the CPU, ended after it, refused for an instruction set that nobody knows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cpus.h"

#include <ffai.h>

static void test_cpu(void **state) {
    ffai_device_info d;
    ffai_error err;
    (void)state;
    assert_int_equal(ffai_device_at(0, NULL, &d, &err), 1);
    assert_string_equal(d.name, "cpu");
    assert_true(*d.isa != 0);
    assert_string_equal(d.driver, "");
    assert_int_equal(d.n_thread, fa_cpu_count());
    assert_true(d.mem_bytes > 0);
    assert_in_range(d.mem_free_bytes, 0, d.mem_bytes);
    assert_non_null(memchr(d.model, 0, sizeof d.model));
    assert_int_equal(ffai_device_at(0, &(ffai_engine_opts){.cpu = "c"}, &d, &err), 1);
    assert_string_equal(d.isa, "c");
}

static void test_end(void **state) {
    ffai_device_info d;
    (void)state;
    ffai_error err;
    ffai_engine_opts no_module = {.cuda_module = "/nowhere/libffai_cuda.so"};
    assert_int_equal(ffai_device_at(1, &no_module, &d, &err), 0);
    assert_non_null(strstr(err.msg, "/nowhere/libffai_cuda.so"));
    assert_int_equal(ffai_device_at(1, &no_module, &d, NULL), 0);
    assert_int_equal(ffai_device_at(SIZE_MAX, NULL, &d, NULL), 0);
}

static void test_refused(void **state) {
    ffai_device_info d;
    ffai_error err;
    (void)state;
    assert_int_equal(ffai_device_at(0, &(ffai_engine_opts){.cpu = "sse9"}, &d, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "sse9"));
    fa_alloc_fail_at(1);
    assert_int_equal(ffai_device_at(0, NULL, &d, &err), FFAI_ENOMEM);
    fa_alloc_fail_at(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
