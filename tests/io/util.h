/* For the tests of src/io: files in a fresh folder, and assertions that look at the whole error. */
#ifndef TESTS_IO_UTIL_H
#define TESTS_IO_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/err.h"

/* A fresh folder below TMPDIR. */
static inline void make_dir(char dir[256]) {
    const char *base = getenv("TMPDIR");
    snprintf(dir, 256, "%s/ffai-io-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
}

static inline void path_in(char out[512], const char *dir, const char *name) { snprintf(out, 512, "%s/%s", dir, name); }

static inline void put_file(const char *dir, const char *name, const void *data, size_t n) {
    char path[512];
    path_in(path, dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (n) assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void drop_file(const char *dir, const char *name) {
    char path[512];
    path_in(path, dir, name);
    unlink(path);
}

/* The call failed with this code and a one-line message that says all of these words (separated by '|'). */
static inline void check_failed(int rc, const fa_error *err, int code, const char *words, const char *file, int line) {
    char w[512];
    snprintf(w, sizeof w, "%s", words);
    if (rc == 0 || rc != code || err->code != code || strchr(err->msg, '\n')) {
        print_error("%s:%d: got %d (%s), expected %d\n", file, line, rc, rc ? err->msg : "success", code);
        _fail(file, line);
    }
    char *save = NULL;
    for (char *t = strtok_r(w, "|", &save); t; t = strtok_r(NULL, "|", &save)) {
        if (strstr(err->msg, t)) continue;
        print_error("%s:%d: \"%s\" does not say \"%s\"\n", file, line, err->msg, t);
        _fail(file, line);
    }
}
#define assert_failed(rc, err, code, words) check_failed((rc), (err), (code), (words), __FILE__, __LINE__)

static inline void check_ok(int rc, const fa_error *err, const char *file, int line) {
    if (rc == 0) return;
    print_error("%s:%d: %d: %s\n", file, line, rc, err->msg);
    _fail(file, line);
}
#define assert_ok(rc, err) check_ok((rc), (err), __FILE__, __LINE__)

/* Little-endian integers. */
static inline void put_le(fa_buf *b, uint64_t v, int n) {
    for (; n > 0; n--, v >>= 8) {
        uint8_t byte = (uint8_t)v;
        fa_buf_add(b, &byte, 1);
    }
}

#endif
