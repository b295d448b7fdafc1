/* For fuzz targets of what is read from folders: one scratch folder for the process, files that are put into it, and a
 * way to cut the input at its NUL bytes. */
#ifndef TESTS_FUZZ_FOLDER_H
#define TESTS_FUZZ_FOLDER_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder_path[300];

static int folder_drop(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void folder_remove(void) { nftw(folder_path, folder_drop, 8, FTW_DEPTH | FTW_PHYS); }

static inline const char *folder(void) {
    const char *base = getenv("TMPDIR");
    if (folder_path[0]) return folder_path;
    snprintf(folder_path, sizeof folder_path, "%s/ffai-fuzz-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    if (!mkdtemp(folder_path)) abort();
    atexit(folder_remove);
    return folder_path;
}

static inline void folder_put(const char *name, const void *data, size_t n) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    FILE *f = fopen(path, "wb");
    if (!f || (n && fwrite(data, 1, n, f) != n) || fclose(f) != 0) abort();
}

static inline void folder_make(const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    mkdir(path, 0700);
}

/* The next piece of the input, up to a NUL byte or the end. */
typedef struct pieces {
    const uint8_t *at, *end;
} pieces;

static inline const char *next_piece(pieces *p, size_t *n) {
    const uint8_t *s = p->at, *nul = s < p->end ? (const uint8_t *)memchr(s, 0, (size_t)(p->end - s)) : NULL;
    *n = (size_t)((nul ? nul : p->end) - s);
    p->at = nul ? nul + 1 : p->end;
    return (const char *)s;
}

static inline void check_error(int rc, const fa_error *err) {
    if (rc && (rc > 0 || !err->msg[0] || strchr(err->msg, '\n'))) abort();
}

#endif
