/* One prompt, one answer: what generate and chat share. Renders, tokenizes, submits, streams the parts of the answer
 * and measures. */
#ifndef FFAI_CLI_ANSWER_H
#define FFAI_CLI_ANSWER_H

#include "cli/dialog.h"
#include "cli/diffusion.h"
#include "cli/sampling.h"

#include <ffai.h>

/* Seconds since some point in time, and tokens. */
typedef struct answer_times {
    double start, loaded, first, end; /* program began, submitted, first token, last token */
    size_t n_prompt, n_reused, n_gen; /* n_reused: prompt tokens that were in the cache already */
} answer_times;

/* What an answer is made with; fixed for all answers of a program. */
typedef struct answer_env {
    const cli_opts *o;
    ffai_model *m;
    ffai_engine *e;
    ffai_request_opts request; /* ids are filled in per answer */
    const char **stop;         /* --stop, and what ends an answer in the template */
    char *end;
    ffai_grammar *grammar;     /* request.grammar, when there are flags for it */
    sampling_flags sampling;   /* owns what request.sampling points to */
    diffusion_flags diffusion; /* likewise, request.diffusion */
    bool show_reasoning, as_chat;
} answer_env;

typedef struct answer {
    char *message; /* as_chat: the assistant message as JSON; free() */
    ffai_finish finish;
    answer_times t;
} answer;

/* --answer-format: 2 after a message when there is no such format. */
int answer_check(const cli_opts *o);
/* Sets up *env from the command line: stop strings, length, sampling, what is shown. */
int answer_env_init(answer_env *env, const cli_opts *o, ffai_model *m, ffai_engine *e, bool as_chat);
void answer_env_free(answer_env *env);
/* Continues plain text. */
int answer_text(answer_env *env, const char *text, size_t len, answer *a);
/* Answers a conversation; messages from `from` on (see dialog_json) are shown to the model. */
int answer_dialog(answer_env *env, const dialog *d, size_t from, answer *a);
/* The prompt's tokens of a conversation; free with ffai_free. */
int answer_prompt(answer_env *env, const dialog *d, size_t from, char **text, size_t *len, int32_t **ids, size_t *n);

/* --stats, as text or as JSON; last: it is the last line of stderr. */
void answer_stats(const answer_env *env, const answer_times *t);

#endif
