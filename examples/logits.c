/* The likeliest next tokens of a text, and how surprising each of its own tokens was.    logits MODEL "The sea was" */
#include <ffai.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct report {
    ffai_model *model;
    const int32_t *ids;
    size_t n;
} report;

static void print_token(ffai_model *model, int32_t id, double p) {
    char *text;
    size_t len;
    if (ffai_detokenize(model, &id, 1, false, &text, &len, NULL)) return;
    printf("%8.4f  %6d  \"%s\"\n", p, (int)id, text);
    ffai_free(text);
}

/* logits [vocab] of the token that follows ids[0..row]. */
static void on_row(void *user, int64_t row, const float *logits, int64_t vocab) {
    const report *r = user;
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < vocab; i++) max = fmax(max, logits[i]);
    for (int64_t i = 0; i < vocab; i++) sum += exp(logits[i] - max);
    if (row + 1 < (int64_t)r->n) {
        int32_t id = r->ids[row + 1];
        print_token(r->model, id, exp(logits[id] - max) / sum);
        return;
    }
    puts("next:");
    for (double limit = INFINITY, k = 0; k < 5; k++) {
        int64_t best = -1;
        for (int64_t i = 0; i < vocab; i++)
            if (logits[i] < limit && (best < 0 || logits[i] > logits[best])) best = i;
        if (best < 0) return;
        limit = logits[best];
        print_token(r->model, (int32_t)best, exp(limit - max) / sum);
    }
}

int main(int argc, char **argv) {
    ffai_error err;
    ffai_engine *engine = NULL;
    report r = {0};
    int32_t *ids = NULL;
    if (argc != 3) return fprintf(stderr, "usage: logits MODEL TEXT\n"), 2;
    int rc = ffai_model_open(&r.model, argv[1], NULL, &err);
    if (!rc) rc = ffai_tokenize(r.model, argv[2], strlen(argv[2]), FFAI_TOK_SPECIAL, &ids, &r.n, &err);
    r.ids = ids;
    ffai_engine_opts eo = {.precision = "exact"};
    if (!rc) rc = ffai_engine_create(&engine, r.model, &eo, &err);
    ffai_eval_opts opts = {.ids = ids, .n_ids = r.n, .logits = on_row, .user = &r};
    if (!rc) rc = ffai_eval(engine, &opts, &err);
    if (rc) fprintf(stderr, "logits: %s\n", err.msg);
    ffai_free(ids);
    ffai_engine_free(engine);
    ffai_model_free(r.model);
    return rc ? 1 : 0;
}
