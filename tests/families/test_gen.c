/* The generator of test checkpoints against Python's: every fixture's weight files must have the checksums that the
 * Python tool took. And what is said of their weights adds up, in every format and container. */
#define _POSIX_C_SOURCE 200809L
#include "families/gen.h"

#include <ffai.h>

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void remove_dir(const char *dir) {
    char path[1024];
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && remove(path)) remove_dir(path); /* adapters lie in folders */
    }
    if (d) closedir(d);
    rmdir(dir);
}

/* Kinds and vectors make up the model; the largest kind is first and gives the model its format. */
static void adds_up(const char *name, const char *path) {
    ffai_model *m;
    ffai_error err;
    ffai_model_info in;
    ffai_weight_kind k;
    if (ffai_model_open(&m, path, NULL, &err)) fail_msg("%s: %s", name, err.msg);
    ffai_model_get_info(m, &in);
    int64_t n = in.n_param, bytes = in.weight_bytes, last = INT64_MAX, i = 0;
    for (; ffai_model_kind_at(m, (size_t)i, &k); i++) {
        if (k.bytes > last || k.n_matrix < 1 || k.n_param < 1 || (!i && strcmp(k.format, in.format) != 0))
            fail_msg("%s: kind %d: %s, %lld bytes", name, (int)i, k.format, (long long)k.bytes);
        last = k.bytes;
        n -= k.n_param;
        bytes -= k.bytes;
    }
    if (!i || n < 0 || bytes < 0)
        fail_msg("%s: %lld parameters and %lld bytes too few", name, (long long)-n, (long long)-bytes);
    assert_false(ffai_model_kind_at(m, (size_t)i + 100, &k));
    assert_null(k.format);
    /* vectors are floats of 2 or 4 bytes; imported formats have more beside them (zeros, orders, scales of scales) */
    if (strncmp(name, "hf_", 3) != 0 && strncmp(name, "lora_", 5) != 0 && (bytes < n || bytes > 8 * n + 64))
        fail_msg("%s: %lld bytes for %lld values of vectors", name, (long long)bytes, (long long)n);
    ffai_model_free(m);
}

static void checksums(void **state) {
    (void)state;
    const char *data = FFAI_SOURCE_DIR "/tests/data/families";
    char dir[] = "/tmp/ffai-gen-XXXXXX", model[512];
    int n = 0;
    assert_non_null(mkdtemp(dir));
    DIR *d = opendir(data);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        fx f;
        fa_error err = {0};
        if (e->d_name[0] == '.') continue;
        int rc = fx_open(&f, data, e->d_name, &err);
        if (!rc && !f.twin) rc = fx_write(&f, dir, model, &err);
        if (rc) print_error("%s: %s\n", e->d_name, err.msg);
        assert_int_equal(rc, 0);
        if (!f.twin) {
            adds_up(e->d_name, model);
            remove_dir(dir);
            mkdir(dir, 0777);
        }
        fx_close(&f);
        n++;
    }
    closedir(d);
    remove_dir(dir);
    assert_true(n > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(checksums)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
