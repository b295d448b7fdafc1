/* A conversation: its messages, and what else a chat template is given. As JSON it is the input of `ffai template`. */
#ifndef FFAI_CLI_DIALOG_H
#define FFAI_CLI_DIALOG_H

#include "cli/opts.h"

typedef enum dialog_role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_OTHER } dialog_role;

/* A message: a JSON object, and what the program itself looks at. */
typedef struct dialog_message {
    dialog_role role;
    char *json;
} dialog_message;

typedef struct dialog {
    dialog_message *msg;
    size_t n, cap;
    char *tools;      /* JSON array or NULL */
    const char *args; /* more members of the template's input, '"a": 1, "b": 2', or NULL; not owned */
} dialog;

void dialog_free(dialog *d);
/* Removes messages from index `keep` on. */
void dialog_cut(dialog *d, size_t keep);
/* Appends a message of plain text. False: out of memory. */
bool dialog_add(dialog *d, dialog_role role, const char *text, size_t len);
/* Appends or replaces the system message, which is the first one; empty text removes it. */
bool dialog_set_system(dialog *d, const char *text);
/* Appends a message that is JSON already. */
bool dialog_add_json(dialog *d, dialog_role role, char *json);

/* The template's input, leaving out the messages after a system message and before `from`; free(). NULL: out of
 * memory. */
char *dialog_json(const dialog *d, size_t from, bool generation_prompt, size_t *len);
/* {"messages": [...], "tools": [...]} to and from a file. 0, or 1 after a message on stderr; a failed load changes
 * nothing. */
int dialog_save(const cli_opts *o, const dialog *d, const char *path);
int dialog_load(const cli_opts *o, dialog *d, const char *path);
/* Index of the first message that is no system message. */
size_t dialog_first(const dialog *d);

/* --template-arg NAME=JSON (or NAME=TEXT) as members of an object: '"name": value, ...'; free(). 0, 1 or 2 after a
 * message. */
int dialog_args(const cli_opts *o, opt_id id, char **members);
/* A JSON array of tools from a file; free(). */
int dialog_tools(const cli_opts *o, opt_id id, char **json);

#endif
