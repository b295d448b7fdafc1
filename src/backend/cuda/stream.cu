/* Linear records with few input rows: the weight streams through the multiprocessors once. */
#include "backend/cuda/cu.h"

int64_t cu_stream_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    (void)cu, (void)r;
    return fa_fail(err, FFAI_ENOTSUP, "no kernel");
}
void cu_stream_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) { (void)cu, (void)r, (void)b; }
