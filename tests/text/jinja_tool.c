/* Renders many templates in one process, for the scripts in tools/ that compare with the reference: one JSON object a
 * line in, {"template", "context", "chat", "now"}; one a line out, {"text"} or {"error"}. */
#include "base/buf.h"
#include "io/json.h"
#include "text/jinja/jinja.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(const char *key, const char *s, size_t n) {
    printf("{\"%s\": \"", key);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    printf("\"}\n");
}

static void run(const char *line, size_t len) {
    fa_json *j;
    fa_error err = {0};
    fa_jinja *t = NULL;
    char *text = NULL;
    size_t n = 0, n_template, n_context;
    if (fa_json_parse(&j, line, len, "line", &err)) {
        put("error", err.msg, strlen(err.msg));
        return;
    }
    const fa_jnode *root = fa_json_root(j);
    const char *source = fa_jstr(fa_jget(root, "template"), &n_template),
               *context = fa_jstr(fa_jget(root, "context"), &n_context);
    fa_jinja_opts o = {.chat = fa_jbool(fa_jget(root, "chat"), false), .now = fa_jint(fa_jget(root, "now"), 0)};
    if (source && context && fa_jinja_parse(&t, source, n_template, "t", &err) == 0 &&
        fa_jinja_render(t, context, n_context, &o, &text, &n, &err) == 0)
        put("text", text, n);
    else
        put("error", err.msg, strlen(err.msg));
    ffai_free(text);
    fa_jinja_free(t);
    fa_json_free(j);
}

int main(void) {
    char *line = NULL;
    size_t cap = 0, len = 0;
    for (int c; (c = getchar()) != EOF;) {
        if (len + 1 >= cap) {
            char *p = (char *)realloc(line, cap = cap ? cap * 2 : 1 << 16);
            if (!p) return 1;
            line = p;
        }
        if (c != '\n') {
            line[len++] = (char)c;
            continue;
        }
        run(line, len);
        len = 0;
    }
    free(line);
    return 0;
}
