/* Any bytes as an adapter: adapter_config.json, a NUL, the safetensors file. 'M' before it: mlx's names of the files.
 */
#define _XOPEN_SOURCE 700
#include "engine/adapter_file.h"
#include "folder.h"

static void look(const fa_adapter_file *f) {
    volatile float sink = (float)fa_adapter_file_hash(f) + (float)fa_adapter_file_old_stacks(f);
    for (size_t i = 0; i < f->n; i++) {
        fa_adapter_module m = f->module[i];
        fa_error err;
        for (int64_t n_expert = 0; n_expert <= 4; n_expert += 4) {
            fa_adapter_module one = m;
            int rc = fa_adapter_file_scale(f, &one, one.name, n_expert, &err);
            check_error(rc, &err);
            if (!rc) sink = sink + one.scale;
        }
        sink = sink + (float)fa_adapter_file_targets(f, m.name);
        if (m.a && m.a->bytes) sink = sink + m.a->data[m.a->bytes - 1];
        if (m.b && m.b->bytes) sink = sink + m.b->data[m.b->bytes - 1];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const files[] = {"adapter_model.safetensors", "adapters.safetensors"};
    pieces p = {data, data + size};
    size_t n;
    fa_adapter_file f;
    fa_error err = {0};
    char other[600];
    const bool mlx = size && data[0] == 'M';
    p.at += mlx;
    const char *config = next_piece(&p, &n);
    folder_put("adapter_config.json", config, n);
    folder_put(files[mlx], p.at, (size_t)(p.end - p.at));
    snprintf(other, sizeof other, "%s/%s", folder(), files[!mlx]);
    unlink(other);
    int rc = fa_adapter_file_open(&f, folder(), &err);
    check_error(rc, &err);
    if (!rc) look(&f);
    fa_adapter_file_close(&f);
    return 0;
}
