/* The backend: the operation table, running programs plainly or as graphs, profiles. */
#include "backend/cuda/cu.h"

int cu_backend_create(fa_device *d, fa_backend **out, const fa_backend_opts *o, fa_error *err) {
    (void)o;
    *out = NULL;
    return fa_fail(err, FFAI_ENOTSUP, "%s: not yet", d->name);
}
void cu_launch_failed(fa_cuda *cu, const char *kernel, cudaError_t rc) {
    cu_fail(cu, FFAI_EINTERNAL, "%s: %s: %s", cu->dev->name, kernel, cudaGetErrorString(rc));
}
void cu_fail(fa_cuda *cu, int code, const char *fmt, ...) {
    if (!cu->err.code) fa_fail(&cu->err, code, "%s", fmt);
}
void cu_profile_begin(fa_cuda *cu, const char *kernel) { (void)cu, (void)kernel; }
void cu_profile_end(fa_cuda *cu) { (void)cu; }
