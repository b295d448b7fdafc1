/* Any bytes as a .npy file: every value of what is accepted is read. */
#include <stdlib.h>
#include <string.h>

#include "io/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fa_npy a;
    fa_error err;
    volatile double sink = 0;
    int rc = fa_npy_parse(&a, data, size, "fuzz", &err);
    if (rc && strchr(err.msg, '\n')) abort();
    if (rc) return 0;
    if (a.n < 0 || (size_t)a.n > size || a.n_dim > FA_NPY_MAX_DIM) abort();
    for (int64_t i = 0; i < a.n; i++) sink = sink + fa_npy_num(&a, i) + (double)fa_npy_int(&a, i);
    fa_npy_free(&a);
    return 0;
}
