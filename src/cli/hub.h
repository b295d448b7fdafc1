/* Model hubs on the command line: what the environment says about them, progress on the terminal, and ids in the place
 * of paths. */
#ifndef FFAI_CLI_HUB_H
#define FFAI_CLI_HUB_H

#include "cli/opts.h"

#include <ffai.h>

/* Options from HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE and the proxy variables,
 * with the meaning that Python's huggingface_hub gives them. */
typedef struct hub_env {
    ffai_hub_opts o;
    char *cache, *token; /* owned; the rest is the environment's */
    const cli_opts *cli;
    double began, said;
    bool shown;         /* a progress line stands on the terminal */
    int64_t bytes, had; /* all, and what was there at the start */
} hub_env;

/* 0, or 1 after a message. */
int hub_env_init(hub_env *e, const cli_opts *o);
void hub_env_free(hub_env *e);
/* Pulls with progress on stderr. 0, or 1 after a message. */
int hub_pull(hub_env *e, const char *id, ffai_hub_model **m);
/* A path as it was given when something is there or it is no id; else the model is looked for in the cache and on the
 * hub. *path: free(). 0, or 1/2 after a message. */
int hub_path(const cli_opts *o, const char *given, bool no_weights, char **path);

#endif
