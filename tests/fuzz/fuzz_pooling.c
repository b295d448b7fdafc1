/* Any bytes as the modules of a text embedding model: modules.json, 1_Pooling/config.json, 2_Dense/config.json, each
 * ended by a NUL, then 2_Dense/model.safetensors. What is accepted is applied to a vector. */
#define _XOPEN_SOURCE 700
#include "engine/pooling.h"
#include "folder.h"

enum { DIM = 8 };

static void apply(const fa_pooling *p) {
    const int64_t width = fa_pooling_width(p), n = p->hidden * p->n_kind;
    if (width < n || width > 1 << 20) abort();
    float *x = (float *)calloc((size_t)width, sizeof *x), *work = (float *)calloc((size_t)width, sizeof *work);
    for (int64_t i = 0; i < n; i++) x[i] = (float)i;
    for (int k = -1; k <= 1; k++) fa_pooling_finish(p, k, x, n, work);
    free(x);
    free(work);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"modules.json", "1_Pooling/config.json", "2_Dense/config.json"};
    pieces p = {data, data + size};
    fa_error err = {0};
    fa_ckpt *c;
    fa_pooling *pool = NULL;
    folder_make("1_Pooling");
    folder_make("2_Dense");
    folder_put("config.json", "{}", 2);
    for (int i = 0; i < 3; i++) {
        size_t n;
        const char *s = next_piece(&p, &n);
        folder_put(names[i], s, n);
    }
    folder_put("2_Dense/model.safetensors", p.at, (size_t)(p.end - p.at));
    if (fa_ckpt_open(&c, folder(), false, &err)) abort();
    int rc = fa_pooling_load(&pool, c, DIM, &err);
    check_error(rc, &err);
    if (!rc && pool) apply(pool);
    fa_pooling_free(pool);
    fa_ckpt_free(c);
    return 0;
}
