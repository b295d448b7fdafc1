/* Continues a text.    simple MODEL "The sea was"
 *
 *     cc simple.c -o simple $(pkg-config --cflags --libs ffai) */
#include <ffai.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    ffai_error err;
    ffai_model *model = NULL;
    ffai_engine *engine = NULL;
    ffai_request *request = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = argc == 3 ? 0 : 2;
    if (rc) return fprintf(stderr, "usage: simple MODEL TEXT\n"), rc;
    rc = ffai_model_open(&model, argv[1], NULL, &err);
    if (!rc) rc = ffai_engine_create(&engine, model, NULL, &err);
    if (!rc) rc = ffai_tokenize(model, argv[2], strlen(argv[2]), FFAI_TOK_SPECIAL, &ids, &n, &err);
    ffai_request_opts opts = {.ids = ids, .n_ids = n, .max_new = 40}; /* zeroed sampling: greedy */
    if (!rc) rc = ffai_submit(engine, &opts, &request, &err);
    for (int more = 1; !rc && more > 0;) {
        ffai_event event;
        if ((more = ffai_engine_step(engine, &err)) < 0) rc = more;
        ffai_request_poll(request, &event);
        fwrite(event.text, 1, event.text_len, stdout);
    }
    puts("");
    if (rc) fprintf(stderr, "simple: %s\n", err.msg);
    ffai_free(ids);
    ffai_engine_free(engine); /* its requests too */
    ffai_model_free(model);
    return rc ? 1 : 0;
}
