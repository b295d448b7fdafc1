/* Texts made from the option table: help, man page, shell completions. */
#ifndef FFAI_CLI_HELP_H
#define FFAI_CLI_HELP_H

#include "cli/opts.h"

#include <stdio.h>

void help_overview(FILE *to);
void help_command(FILE *to, const cli_command *cmd);
void help_man(FILE *to);
void help_bash(FILE *to);
void help_zsh(FILE *to);
void help_fish(FILE *to);
/* Writes text in lines of at most `width` columns, each but the first indented; the cursor stands at column `col`. */
void help_wrapped(FILE *to, const char *text, int col, int indent, int width);

#endif
