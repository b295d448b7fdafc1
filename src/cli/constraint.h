/* --json-schema, --grammar, --regex: flags of constrained output. */
#ifndef FFAI_CLI_CONSTRAINT_H
#define FFAI_CLI_CONSTRAINT_H

#include "cli/opts.h"

#include <ffai.h>

/* More than one of the flags: 2 after a message, before a model is loaded. */
int constraint_check(const cli_opts *o);
/* What the flags say, compiled for the model; *g NULL when there are none. 0, or 1 after a message that names the flag
 * and the file. */
int constraint_compile(const cli_opts *o, ffai_model *m, ffai_grammar **g);

#endif
