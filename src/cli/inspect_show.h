/* The parts of `ffai inspect` that describe a checkpoint: summary and memory (inspect_show.c), its tensors
 * (inspect_tensors.c), the same as JSON (inspect_json.c). */
#ifndef FFAI_CLI_INSPECT_SHOW_H
#define FFAI_CLI_INSPECT_SHOW_H

#include "cli/opts.h"

#include <ffai.h>

/* What a chat template makes use of, found by rendering small conversations with it. */
typedef struct inspect_template {
    const char *name;
    size_t bytes;
    ffai_error error;   /* error.code: it cannot be parsed */
    bool system, tools; /* their text is in what it renders */
    const char *think;  /* the variable that turns reasoning on or off, NULL: none */
} inspect_template;

/* Template i; false: there is none. */
bool inspect_template_at(ffai_model *m, size_t i, inspect_template *t);
/* How the model writes reasoning and tool calls, into buf; "none" when its templates tell nothing. */
const char *inspect_answer_format(ffai_model *m, char buf[64]);
/* Files that the tensors are in. */
int64_t inspect_files(const ffai_model *m);

enum { INSPECT_PLANS = 5 };
/* Memory for some context lengths up to the longest, and for --ctx. Returns how many; 0 and err: none can be had. */
int inspect_plans(const cli_opts *o, ffai_model *m, ffai_plan plan[INSPECT_PLANS], ffai_error *err);

/* All print to standard output. Exit status, after a message on failure. */
int inspect_summary(const cli_opts *o, ffai_model *m);
int inspect_memory(const cli_opts *o, ffai_model *m);
/* One row for tensors that differ in nothing but the numbers in their names; with --tensors one for each. */
int inspect_tensors(const cli_opts *o, ffai_model *m);
int inspect_json(const cli_opts *o, ffai_model *m);

#endif
