/* Reading a message from a person: an editable line with history on a terminal, plain lines otherwise. */
#ifndef FFAI_CLI_LINE_H
#define FFAI_CLI_LINE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct line_reader line_reader;

typedef enum line_result { LINE_TEXT, LINE_END, LINE_INTERRUPTED } line_result;

/* path: file that keeps the lines of a terminal, or NULL. NULL: out of memory. */
line_reader *line_open(const char *path);
void line_close(line_reader *r);
/* One message: a line; a line that ends in a backslash goes on in the next; three double quotes begin and end a text of
 * several lines. *text is valid until the next call. */
line_result line_read(line_reader *r, const char **text);
/* Reads commands without a prompt when standard input is no terminal. */
bool line_is_terminal(const line_reader *r);
/* $XDG_STATE_HOME/ffai/chat_history (else below ~/.local/state), its folder made; free(). NULL when there is no home.
 */
char *line_history_path(void);

#endif
