/* Random weights made in device memory. */
#include "backend/cuda/cu.h"

int cu_synth(cudaStream_t stream, const fa_weight *w, uint64_t seed, fa_error *err) {
    (void)stream, (void)seed;
    return fa_fail(err, FFAI_ENOTSUP, "no kernel makes %s", w->name);
}
