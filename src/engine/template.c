/* Chat templates of a checkpoint: where they come from and which one is meant. */
#include "engine/model.h"

int ffai_template_parse(ffai_template **out, const char *source, size_t len, const char *what, ffai_error *err) {
    *out = NULL;
    (void)source, (void)len;
    return fa_fail(err, FFAI_ENOTSUP, "%s: chat templates are not supported yet", what);
}
void ffai_template_free(ffai_template *t) { (void)t; }
int ffai_template_render(const ffai_template *t, const char *json, size_t len, char **text, size_t *n,
                         ffai_error *err) {
    *text = NULL;
    *n = 0;
    (void)t, (void)json, (void)len;
    return fa_fail(err, FFAI_ENOTSUP, "chat templates are not supported yet");
}
int ffai_model_template_at(ffai_model *m, size_t i, const char **name, const char **source, ffai_error *err) {
    *name = *source = NULL;
    (void)m, (void)i, (void)err;
    return 0;
}
int ffai_chat_render(ffai_model *m, const char *name, const char *json, size_t len, char **text, size_t *n,
                     ffai_error *err) {
    (void)m, (void)name;
    return ffai_template_render(NULL, json, len, text, n, err);
}
