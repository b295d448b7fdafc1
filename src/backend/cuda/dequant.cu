/* Weights of every format as floats: rows for embeddings, panels for matrix products. */
#include "backend/cuda/cu.h"

extern const cu_op cu_op_embed = {NULL, NULL};

void cu_dequant(fa_cuda *cu, const fa_weight *w, int64_t row, int64_t n, void *out, fa_dtype type) {
    (void)row, (void)n, (void)out, (void)type;
    cu_fail(cu, FFAI_ENOTSUP, "no kernel unpacks %s", fa_qfmts[w->fmt].name);
}

int cu_weight_ok(const fa_weight *w, fa_error *err) { return fa_fail(err, FFAI_ENOTSUP, "no kernel for %s", w->name); }
