/* Embeddings: pooled hidden states. */
#include "engine/engine.h"

int ffai_embed(ffai_engine *e, const int32_t *ids, size_t n, const ffai_embed_opts *opts, float *out, ffai_error *err) {
    (void)e, (void)ids, (void)n, (void)opts, (void)out;
    return fa_fail(err, FFAI_ENOTSUP, "embeddings are not supported yet");
}
