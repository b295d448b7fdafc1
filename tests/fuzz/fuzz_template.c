/* Any bytes as a chat template and its input: the template, a NUL, the JSON. What parses is rendered, as a conversation
 * and plainly; text is always whole UTF-8 and errors are one line. */
#include "base/utf8.h"
#include "text/jinja/jinja.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void render(const fa_jinja *t, const char *json, size_t len, bool chat) {
    static const fa_jinja_var var[] = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    fa_jinja_opts o = {.chat = chat, .var = var, .n_var = 2, .now = 1, .max_steps = 200000};
    char *text;
    size_t n;
    fa_error err;
    int rc = fa_jinja_render(t, json, len, &o, &text, &n, &err);
    if ((rc == 0) != (text != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    for (size_t i = 0; text && i < n;) {
        uint32_t cp;
        size_t k = (size_t)fa_utf8_decode(text + i, n - i, &cp);
        if (cp == 0xFFFD && k != 3) abort();
        i += k;
    }
    if (text && text[n]) abort();
    ffai_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char json[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
        "\"content\": [{\"type\": \"text\", \"text\": \"yo\"}], \"tool_calls\": [{\"name\": \"f\", "
        "\"arguments\": {\"a\": 1.5}}]}], \"tools\": [{\"name\": \"f\"}], \"x\": \"K\xC3\xA4se\", "
        "\"l\": [3, 1, 2], \"n\": -7}";
    const uint8_t *nul = size ? (const uint8_t *)memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    fa_jinja *t;
    fa_error err;
    int rc = fa_jinja_parse(&t, (const char *)data, n, "fuzz", &err);
    if ((rc == 0) != (t != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    if (!t) return 0;
    render(t, json, sizeof json - 1, true);
    for (int chat = 0; nul && chat < 2; chat++) render(t, (const char *)nul + 1, size - n - 1, chat);
    fa_jinja_free(t);
    return 0;
}
