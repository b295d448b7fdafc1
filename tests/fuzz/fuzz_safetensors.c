/* Any bytes as a safetensors file: what is accepted must lie inside the file, and the tensors must fill it. */
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fa_st *s;
    fa_error err;
    size_t total = 0;
    volatile uint8_t sink = 0;
    int rc = fa_st_parse(&s, data, size, "fuzz", &err);
    if ((rc == 0) != (s != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    for (size_t i = 0; i < fa_st_count(s); i++) {
        const fa_st_tensor *t = fa_st_at(s, i);
        if (fa_st_find(s, t->name) != t || t->n_dim > FA_ST_MAX_DIM) abort();
        if (t->bytes) sink = (uint8_t)(sink + t->data[0] + t->data[t->bytes - 1]);
        total += t->bytes;
    }
    if (s && total > size - 8) abort();
    fa_st_free(s);
    return 0;
}
