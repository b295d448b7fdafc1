/* Chat templates: an interpreter for the Jinja2 dialect of HuggingFace checkpoints, equal byte for byte to the renderer
 * of transformers (jinja2's immutable sandbox with trim_blocks, lstrip_blocks, loop controls, the `generation` tag and
 * its own tojson). docs/chat-templates.md says what is refused.
 *
 * A parsed template is immutable and may be rendered by several threads at once. Rendering is bounded in steps, memory
 * and depth, whatever the template and its data are. */
#ifndef FA_TEXT_JINJA_JINJA_H
#define FA_TEXT_JINJA_JINJA_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

typedef struct fa_jinja fa_jinja;

/* source is not kept; what names it in messages. Syntax errors name line and column. */
int fa_jinja_parse(fa_jinja **out, const char *source, size_t len, const char *what, fa_error *err);
void fa_jinja_free(fa_jinja *t);

/* One more set of variables: those that are in the context already win. */
typedef struct fa_jinja_var {
    const char *name, *value; /* a string variable */
} fa_jinja_var;

typedef struct fa_jinja_opts {
    bool chat;               /* the context is a conversation: messages, tools, documents are checked and completed as
                                apply_chat_template does, continue_final_message is obeyed */
    const fa_jinja_var *var; /* [n_var] defaults: special tokens */
    size_t n_var;
    int64_t now;        /* seconds since 1970 for strftime_now; 0: the clock */
    uint64_t max_steps; /* 0: by the size of the input */
} fa_jinja_opts;

/* json: an object, its members are the template's variables. *text: NUL-terminated, fa_free. opts may be NULL. */
int fa_jinja_render(const fa_jinja *t, const char *json, size_t len, const fa_jinja_opts *opts, char **text, size_t *n,
                    fa_error *err);

#endif
