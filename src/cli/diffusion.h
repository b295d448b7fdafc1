/* The flags of block diffusion and self-speculation as options of a request. */
#ifndef FFAI_CLI_DIFFUSION_H
#define FFAI_CLI_DIFFUSION_H

#include "cli/opts.h"

#include <ffai.h>

typedef struct diffusion_flags {
    ffai_diffusion d;
    ffai_adapter_use draft; /* what d.draft points to; it goes with its engine */
} diffusion_flags;

/* Flags that mean nothing in the mode that is asked for: 2 after a message, before a model is loaded. */
int cli_diffusion_check(const cli_opts *o);
/* Reads the flags and loads the adapter of drafts. 0, or 1/2 after a message. *f must stay where it is. */
int cli_diffusion(const cli_opts *o, ffai_model *m, ffai_engine *e, diffusion_flags *f);

#endif
