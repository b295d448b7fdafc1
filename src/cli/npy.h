/* Writing arrays for NumPy: .npy files, and .npz (a zip of .npy files, stored, written entry by entry). */
#ifndef FFAI_CLI_NPY_H
#define FFAI_CLI_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A float32 array of a known shape, row-major: the file with its header written, ready for the data. NULL: errno says
 * why. */
FILE *npy_create(const char *path, const int64_t *dim, int n_dim);

typedef struct npz_entry npz_entry;
typedef struct npz_file {
    FILE *f;
    npz_entry *entry;
    size_t n;
    uint64_t at;
    bool failed;
} npz_file;

bool npz_open(npz_file *z, const char *path);
void npz_add(npz_file *z, const char *name, const float *data, const int64_t *dim, int n_dim);
bool npz_close(npz_file *z); /* writes the directory; false if anything failed since npz_open */

#endif
