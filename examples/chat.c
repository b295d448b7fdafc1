/* A conversation: one line in, one answer out, until the input ends.    chat MODEL
 *
 * Every turn renders the whole conversation with the checkpoint's template. The engine finds what it has seen before in
 * its cache, so only the new part is computed. */
#include <ffai.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The conversation as the template wants it: {"messages": [..., ...], "add_generation_prompt": true} */
static char json[1 << 20] = "{\"add_generation_prompt\": true, \"messages\": [";
static char answer[1 << 16];

/* Appends {"role": role, "content": text}. */
static int add_message(const char *role, const char *text) {
    size_t n = strlen(json);
    if (sizeof json - n < 6 * strlen(text) + 100) return -1;
    char *p = json + n;
    p += sprintf(p, "%s{\"role\": \"%s\", \"content\": \"", p[-1] == '[' ? "" : ", ", role);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') *p++ = '\\';
        if ((unsigned char)*text < 0x20)
            p += sprintf(p, "\\u%04x", (unsigned)*text);
        else
            *p++ = *text;
    }
    strcpy(p, "\"}");
    return 0;
}

static void on_event(void *user, ffai_request *request, const ffai_event *event) {
    (void)user, (void)request;
    fwrite(event->text, 1, event->text_len, stdout);
    fflush(stdout);
    size_t n = strlen(answer);
    if (n + event->text_len < sizeof answer) memcpy(answer + n, event->text, event->text_len);
}

static int reply(ffai_model *model, ffai_engine *engine, ffai_error *err) {
    char *prompt = NULL, *stop = NULL;
    int32_t *ids = NULL;
    size_t len, n = 0;
    ffai_request *request = NULL;
    memset(answer, 0, sizeof answer);
    strcat(json, "]}");
    int rc = ffai_chat_render(model, NULL, json, strlen(json), &prompt, &len, err);
    json[strlen(json) - 2] = 0;
    /* the template has written the special tokens, so none are added */
    if (!rc) rc = ffai_tokenize(model, prompt, len, 0, &ids, &n, err);
    if (!rc) rc = ffai_chat_stop(model, NULL, &stop, err);
    ffai_request_opts opts = {.ids = ids, .n_ids = n, .max_new = 200, .event = on_event};
    opts.stop = (const char *const *)&stop;
    opts.n_stop = stop != NULL;
    ffai_sampling_default(model, &opts.sampling);
    if (!rc) rc = ffai_submit(engine, &opts, &request, err);
    for (int more = 1; !rc && more > 0;)
        if ((more = ffai_engine_step(engine, err)) < 0) rc = more;
    ffai_request_free(request); /* its cache stays */
    ffai_free(prompt);
    ffai_free(stop);
    ffai_free(ids);
    puts("");
    return rc ? rc : add_message("assistant", answer);
}

int main(int argc, char **argv) {
    ffai_error err = {0, "the conversation is too long"};
    ffai_model *model = NULL;
    ffai_engine *engine = NULL;
    char line[4096];
    if (argc != 2) return fprintf(stderr, "usage: chat MODEL\n"), 2;
    int rc = ffai_model_open(&model, argv[1], NULL, &err);
    if (!rc) rc = ffai_engine_create(&engine, model, NULL, &err);
    while (!rc && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        rc = add_message("user", line);
        if (!rc) rc = reply(model, engine, &err);
    }
    if (rc) fprintf(stderr, "chat: %s\n", err.msg);
    ffai_engine_free(engine);
    ffai_model_free(model);
    return rc ? 1 : 0;
}
