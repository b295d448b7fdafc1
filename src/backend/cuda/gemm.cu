/* Matrix products: the library behind them, and the linear records with many input rows. */
#include "backend/cuda/cu.h"

int64_t cu_many_work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    (void)cu, (void)r;
    return fa_fail(err, FFAI_ENOTSUP, "no kernel");
}
void cu_many_launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) { (void)cu, (void)r, (void)b; }

int cu_blas_create(fa_cuda *cu, fa_error *err) {
    (void)cu, (void)err;
    return 0;
}
void cu_blas_free(fa_cuda *cu) { (void)cu; }

void cu_gemm(fa_cuda *cu, fa_dtype type, int64_t M, int64_t N, int64_t K, const void *x, const void *w, void *y, int64_t ldy,
             fa_dtype y_type, bool add) {
    (void)type, (void)M, (void)N, (void)K, (void)x, (void)w, (void)y, (void)ldy, (void)y_type, (void)add;
    cu_fail(cu, FFAI_ENOTSUP, "no matrix library");
}

int cu_rates(cu_device *dev, fa_device_rates *out, fa_error *err) {
    (void)out;
    return fa_fail(err, FFAI_ENOTSUP, "%s: not measured yet", dev->name);
}
