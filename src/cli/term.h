/* The terminal: colour only where a person looks, notes on stderr unless --quiet, Ctrl-C as a flag. */
#ifndef FFAI_CLI_TERM_H
#define FFAI_CLI_TERM_H

#include <stdbool.h>
#include <stdio.h>

typedef enum term_style { TERM_PLAIN, TERM_BOLD, TERM_DIM, TERM_UNDERLINE, TERM_RED } term_style;

void term_init(bool quiet, bool verbose);
/* The escape sequence that begins a style on this stream, "" when it is no terminal or NO_COLOR is set; TERM_PLAIN ends
 * it. */
const char *term_sgr(FILE *to, term_style style);
/* Columns of the terminal, 100 when there is none. */
int term_width(FILE *to);

/* One line on stderr; nothing with --quiet. term_detail: only with --verbose. */
void term_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void term_detail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool term_is_quiet(void);

/* From here on Ctrl-C (or SIGTERM) only sets a flag, so that the work ends cleanly. once: a second one
 * kills as usual; two within a quarter of a second are one, as `timeout` sends them. */
void term_catch_interrupt(bool once);
/* Makes SIGBUS (a mapped model file was truncated) end the program with a line that names the file, and status 1. */
void term_catch_lost_page(void);
bool term_interrupted(void);
bool term_terminated(void); /* by SIGTERM, which counts as an interrupt too */
/* Forgets that Ctrl-C was pressed; returns whether it was. */
bool term_clear_interrupt(void);

#endif
