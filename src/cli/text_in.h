/* Reading what the command line points to: prompts, token ids. */
#ifndef FFAI_CLI_TEXT_IN_H
#define FFAI_CLI_TEXT_IN_H

#include "cli/opts.h"

/* Reads a whole file, "-" is standard input. NUL-terminated, may contain NUL; free(). 0, or 1 after a message. `id`
 * names the flag. */
int text_read(const cli_opts *o, opt_id id, const char *path, char **text, size_t *len);

/* The text of -p (- reads standard input) or of the option `file_id`. Exactly one must be given. 0, 1 or 2 after a
 * message. */
int text_prompt(const cli_opts *o, opt_id file_id, char **text, size_t *len);

/* Token ids of an int32 (or int64) .npy file, or numbers in text separated by anything that is no number. free(). */
int text_ids_file(const cli_opts *o, opt_id id, const char *path, int32_t **ids, size_t *n);
int text_ids_parse(const cli_opts *o, const char *what, const char *text, size_t len, int32_t **ids, size_t *n);

#endif
