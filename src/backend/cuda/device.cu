/* The GPU as a device: memory, copies, address space, faults; and what the module exports. */
#include "backend/cuda/cu.h"

int cu_check(cu_device *dev, cudaError_t rc, const char *what, fa_error *err) {
    if (rc == cudaSuccess) return 0;
    return fa_fail(err, FFAI_EINTERNAL, "%s: %s: %s", dev->name, what, cudaGetErrorString(rc));
}

extern "C" __attribute__((visibility("default"))) const fa_module *fa_module_get(void) {
    static const fa_module m = {FA_MODULE_VERSION, (uint32_t)sizeof(fa_rec), NULL, NULL, NULL};
    return &m;
}
