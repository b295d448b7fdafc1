/* Picking tokens on the device. */
#include "backend/cuda/cu.h"

int cu_sampler_create(fa_cuda *cu, fa_error *err) {
    (void)cu, (void)err;
    return 0;
}
void cu_sampler_free(fa_cuda *cu) { (void)cu; }
int cu_history(fa_backend *be, int slot, const int32_t *ids, int64_t n, fa_error *err) {
    (void)be, (void)slot, (void)ids, (void)n;
    return fa_fail(err, FFAI_ENOTSUP, "no sampler");
}
int cu_pick(fa_backend *be, fa_tensor logits, const fa_pick_opts *o, int n, fa_error *err) {
    (void)be, (void)logits, (void)o, (void)n;
    return fa_fail(err, FFAI_ENOTSUP, "no sampler");
}
int cu_picked(fa_backend *be, int32_t *ids, int n, fa_error *err) {
    (void)be, (void)ids, (void)n;
    return fa_fail(err, FFAI_ENOTSUP, "no sampler");
}
