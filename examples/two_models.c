/* Two models in one process, step by step in turn: each continues the text.    two_models MODEL MODEL TEXT
 *
 * One thread drives both here. An engine and its requests belong to one thread at a time, so two threads may just as
 * well drive one engine each; two engines may also share a model. */
#include <ffai.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct voice {
    ffai_model *model;
    ffai_engine *engine;
    char text[4096]; /* what it says */
    size_t len;
} voice;

/* Called by ffai_engine_step whenever there is more text. */
static void on_event(void *user, ffai_request *request, const ffai_event *event) {
    voice *v = user;
    (void)request;
    size_t n = event->text_len < sizeof v->text - 1 - v->len ? event->text_len : sizeof v->text - 1 - v->len;
    memcpy(v->text + v->len, event->text, n);
    v->len += n;
}

static int start(voice *v, const char *path, const char *text, ffai_error *err) {
    ffai_request *request;
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = ffai_model_open(&v->model, path, NULL, err);
    if (!rc) rc = ffai_engine_create(&v->engine, v->model, NULL, err);
    if (!rc) rc = ffai_tokenize(v->model, text, strlen(text), FFAI_TOK_SPECIAL, &ids, &n, err);
    ffai_request_opts opts = {.ids = ids, .n_ids = n, .max_new = 30, .event = on_event, .user = v};
    if (!rc) rc = ffai_submit(v->engine, &opts, &request, err);
    ffai_free(ids);
    return rc;
}

int main(int argc, char **argv) {
    static voice v[2];
    ffai_error err;
    int rc = 0, busy = 2;
    if (argc != 4) return fprintf(stderr, "usage: two_models MODEL MODEL TEXT\n"), 2;
    for (int i = 0; !rc && i < 2; i++) rc = start(&v[i], argv[i + 1], argv[3], &err);
    while (!rc && busy) {
        busy = 0;
        for (int i = 0; !rc && i < 2; i++) {
            int more = ffai_engine_step(v[i].engine, &err);
            if (more < 0) rc = more;
            busy += more > 0;
        }
    }
    for (int i = 0; !rc && i < 2; i++) printf("%s%s\n", argv[3], v[i].text);
    if (rc) fprintf(stderr, "two_models: %s\n", err.msg);
    for (int i = 0; i < 2; i++) {
        ffai_engine_free(v[i].engine);
        ffai_model_free(v[i].model);
    }
    return rc ? 1 : 0;
}
