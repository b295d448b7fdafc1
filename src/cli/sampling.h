/* Sampling flags as options of a request, for every command that generates; and the reports of --logprobs. */
#ifndef FFAI_CLI_SAMPLING_H
#define FFAI_CLI_SAMPLING_H

#include "cli/opts.h"

#include <ffai.h>

typedef struct sampling_flags {
    ffai_sampling s;
    ffai_logit_bias *bias; /* what s.bias points to when there were flags for it */
    const char **breakers;
} sampling_flags;

/* Flags that contradict each other: 2 after a message, before a model is loaded. */
int cli_sampling_check(const cli_opts *o);
/* The checkpoint's defaults with the flags over them. 0, or 1/2 after a message. */
int cli_sampling(const cli_opts *o, ffai_model *m, sampling_flags *out);
void cli_sampling_free(sampling_flags *s);

/* ---- --logprobs ---- */

/* ffai_request_opts.n_logprob as --logprobs says. */
int cli_n_logprob(const cli_opts *o);

/* Collects the events of a request. With --json each token is a line of JSON on standard output at once; else
 * logprobs_end prints a table on standard error. */
typedef struct cli_logprobs {
    ffai_model *m;
    bool on, json;
    size_t n, cap, n_top;
    ffai_logprob *row; /* [n, 1 + n_top] */
} cli_logprobs;

void logprobs_begin(cli_logprobs *l, const cli_opts *o, ffai_model *m);
/* Takes what an event reports. True: the text of the event is not to be written, JSON stands for it. */
bool logprobs_event(cli_logprobs *l, const ffai_event *ev);
void logprobs_end(cli_logprobs *l);

#endif
