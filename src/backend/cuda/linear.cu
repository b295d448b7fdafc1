/* Linear records: few input rows stream the weight (stream.cu), many go through matrix products (many.cu). */
#include "backend/cuda/cu.h"

static bool few(const fa_rec *r) { return r->in[0].dim[0] <= CU_FEW; }

static int64_t work(const fa_cuda *cu, const fa_rec *r, fa_error *err) {
    return few(r) ? cu_stream_work(cu, r, err) : cu_many_work(cu, r, err);
}

static void launch(fa_cuda *cu, const fa_rec *r, const cu_batch *b) {
    if (few(r))
        cu_stream_launch(cu, r, b);
    else
        cu_many_launch(cu, r, b);
}

extern const cu_op cu_op_linear = {launch, work};
extern const cu_op cu_op_linear_add = {launch, work};
extern const cu_op cu_op_norm_qkv = {launch, work};
extern const cu_op cu_op_norm_mlp_up = {launch, work};
