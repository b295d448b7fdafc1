/* What the programs that test ffai from outside share: running it, and reading the numpy files it writes. */
#ifndef TESTS_FAMILIES_HARNESS_H
#define TESTS_FAMILIES_HARNESS_H

#include "base/map.h"

/* A float32 matrix in numpy's format. */
typedef struct npy {
    fa_map map;
    const uint8_t *data;
    long rows, cols;
} fx_npy;

int fx_npy_open(fx_npy *a, const char *path, fa_error *err); /* close it after a failure too */
void fx_npy_close(fx_npy *a);
float fx_npy_at(const fx_npy *a, long r, long c);

/* Runs argv with FFAI_CPU set (NULL: unset), stdout into out (NULL: dropped), stderr into log; the last line of stderr
 * goes to msg. Returns the exit status, 128 + n after signal n. */
int fx_run(char *const argv[], const char *cpu, const char *out, const char *log, char *msg, size_t cap);

#endif
