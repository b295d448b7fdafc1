/* No checkpoint of the parity tests has tensors in its text model that its family does not know: users are not told of
 * layers for the prediction of several tokens, towers of multimodal wrappers, or buffers. */
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
#include <unistd.h>

#include <cmocka.h>

#include "ffai.h"

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

/* 0: nothing is left over. */
static int look(const char *data, const char *name) {
    char dir[] = "/tmp/ffai-known-XXXXXX", path[512];
    fx f;
    fa_error gen = {0};
    ffai_error err = {0};
    ffai_model *m = NULL;
    ffai_model_info info;
    assert_non_null(mkdtemp(dir));
    int rc = fx_open(&f, data, name, &gen);
    assert_int_equal(rc, 0);
    rc = fx_write(&f, dir, path, &gen) ? -1 : ffai_model_open(&m, path, NULL, &err);
    if (rc) {
        print_error("%s: %s%s\n", name, gen.msg, err.msg);
    } else {
        ffai_model_get_info(m, &info);
        const bool floats =
            strstr(name, "gptq4order") || strstr(name, "mixtral_gptqact"); /* groups of several sizes; experts */
        if ((rc = *info.extra != 0)) print_error("%s: not known: %s\n", name, info.extra);
        if (!rc && (rc = floats != (*info.widened != 0))) print_error("%s: widened: %s\n", name, info.widened);
    }
    ffai_model_free(m);
    fx_close(&f);
    remove_dir(dir);
    return rc;
}

static void known(void **state) {
    (void)state;
    const char *data = FFAI_SOURCE_DIR "/tests/data/families";
    int n = 0, bad = 0;
    DIR *d = opendir(data);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') bad += look(data, e->d_name) != 0, n++;
    closedir(d);
    assert_true(n > 100);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known)};
    return cmocka_run_group_tests_name("tensors of fixtures", tests, NULL, NULL);
}
