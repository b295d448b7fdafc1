/* The sampling flags. */
#ifndef FFAI_CLI_SAMPLING_H
#define FFAI_CLI_SAMPLING_H

#include "cli/opts.h"

#include <ffai.h>

/* Flags that contradict each other: 0, or 2 after a message. For before the model is opened. */
int cli_sampling_check(const cli_opts *o);
/* The checkpoint's defaults with what the command line says instead. 0, or 2 after a message. */
int cli_sampling(const cli_opts *o, const ffai_model *m, ffai_sampling *s);

#endif
