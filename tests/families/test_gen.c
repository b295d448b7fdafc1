/* The generator of test checkpoints against Python's: every fixture's weight files must have the checksums that the
 * Python tool took. */
#define _POSIX_C_SOURCE 200809L
#include "families/gen.h"

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
