/* What the commands with a model share: opening it and creating an engine as the common flags say, and reports about
 * both. */
#ifndef FFAI_CLI_SESSION_H
#define FFAI_CLI_SESSION_H

#include "cli/opts.h"

#include <ffai.h>

/* -m. 0, or 1/2 after a message. tokenizer_only: nothing else of the checkpoint is needed, its family may be unknown.
 */
int session_model(const cli_opts *o, bool tokenizer_only, ffai_model **m);
/* The common flags as engine options; the caller changes what its command decides itself. */
ffai_engine_opts session_engine_opts(const cli_opts *o);
int session_engine(const cli_opts *o, ffai_model *m, const ffai_engine_opts *eo, ffai_engine **e);
/* FILE[:SCALE] of the option `id`, loaded into the engine. 0, or 1/2 after a message. */
int session_adapter(const cli_opts *o, opt_id id, const char *given, ffai_engine *e, ffai_adapter_use *use);
/* What a device does at best: bytes read, products with weights as this engine computes them, products in f32; 0:
 * unknown. */
typedef struct session_limits {
    double read_bytes_s, matrix_ops_s, f32_ops_s;
} session_limits;
/* --profile: the table of operations on stderr; with limits (else NULL) also what the device would need at best. */
void session_profile(const cli_opts *o, const ffai_engine *e, const session_limits *l);

#endif
