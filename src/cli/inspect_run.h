/* The part of `ffai inspect` that runs a token sequence and writes logits and taps. */
#ifndef FFAI_CLI_INSPECT_RUN_H
#define FFAI_CLI_INSPECT_RUN_H

#include "cli/opts.h"

#include <ffai.h>

/* --token-ids or --token-ids-file was given. */
bool inspect_has_ids(const cli_opts *o);
/* Runs the ids as the options say. Exit status, after a message on failure. */
int inspect_run(const cli_opts *o, ffai_model *m);

#endif
