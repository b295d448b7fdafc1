/* Any bytes as a file of torch.save: what is accepted must lie inside the file or in copies no larger than it. */
#include <stdlib.h>
#include <string.h>

#include "io/torch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fa_pt *p;
    fa_error err;
    size_t copied = 0;
    volatile uint8_t sink = 0;
    int rc = fa_pt_parse(&p, data, size, "fuzz", &err);
    if ((rc == 0) != (p != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    for (size_t i = 0; i < fa_pt_count(p); i++) {
        const fa_st_tensor *t = fa_pt_at(p, i);
        if (fa_pt_find(p, t->name) != t || t->n_dim > FA_ST_MAX_DIM || !t->type_name) abort();
        if (t->bytes) sink = (uint8_t)(sink + t->data[0] + t->data[t->bytes - 1]);
        if (t->copied)
            copied += t->bytes;
        else if (t->data < data || t->bytes > size || t->data > data + size - t->bytes)
            abort();
    }
    if (copied > size) abort();
    fa_pt_free(p);
    return 0;
}
