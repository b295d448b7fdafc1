/* How alike texts are: cosines of their embeddings to the first one's.    embeddings MODEL TEXT TEXT... */
#include <ffai.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 64 };

int main(int argc, char **argv) {
    ffai_error err;
    ffai_model *model = NULL;
    ffai_engine *engine = NULL;
    int32_t *ids[MAX_TEXT] = {NULL};
    size_t len[MAX_TEXT], n = (size_t)argc - 2;
    int64_t dim = 0;
    float *x = NULL;
    if (argc < 4 || n > MAX_TEXT) return fprintf(stderr, "usage: embeddings MODEL TEXT TEXT...\n"), 2;
    int rc = ffai_model_open(&model, argv[1], NULL, &err);
    for (size_t i = 0; !rc && i < n; i++)
        rc = ffai_tokenize(model, argv[i + 2], strlen(argv[i + 2]), FFAI_TOK_SPECIAL, &ids[i], &len[i], &err);
    ffai_engine_opts eo = {.n_slot = (int)n, .n_ctx = 512}; /* all texts at once */
    if (!rc) rc = ffai_engine_create(&engine, model, &eo, &err);
    if (!rc) rc = ffai_embed_dim(model, &dim, &err);
    if (!rc) x = malloc(n * (size_t)dim * sizeof *x);
    ffai_embed_opts opts = {.normalize = 1}; /* length 1: a dot product is a cosine */
    if (!rc && x) rc = ffai_embed_batch(engine, (const int32_t *const *)ids, len, n, &opts, x, &err);
    for (size_t i = 0; !rc && x && i < n; i++) {
        double dot = 0;
        for (int64_t k = 0; k < dim; k++) dot += (double)x[k] * x[(int64_t)i * dim + k];
        printf("%.4f  %s\n", dot, argv[i + 2]);
    }
    if (rc) fprintf(stderr, "embeddings: %s\n", err.msg);
    for (size_t i = 0; i < n; i++) ffai_free(ids[i]);
    free(x);
    ffai_engine_free(engine);
    ffai_model_free(model);
    return rc || !x ? 1 : 0;
}
