/* The commands. A new one is a file cmd_<name>.c that defines its cli_command, a line here, and its options in
 * options.inc. */
#ifndef FFAI_CLI_COMMANDS_H
#define FFAI_CLI_COMMANDS_H

#include "cli/opts.h"

#define CLI_COMMANDS(X)                                                                                                \
    X(generate)                                                                                                        \
    X(chat)                                                                                                            \
    X(inspect)                                                                                                         \
    X(embed)                                                                                                           \
    X(tokenize)                                                                                                        \
    X(template)                                                                                                        \
    X(pull)                                                                                                            \
    X(list)                                                                                                            \
    X(rm)                                                                                                              \
    X(prune)                                                                                                           \
    X(models)                                                                                                          \
    X(devices)                                                                                                         \
    X(bench)                                                                                                           \
    X(perplexity)                                                                                                      \
    X(convert)                                                                                                         \
    X(help)                                                                                                            \
    X(version)

#define X(name) extern const cli_command cmd_##name;
CLI_COMMANDS(X)
#undef X

/* Options that every command with a model takes. */
#define CLI_MACHINE_OPTIONS OPT_DEVICE, OPT_THREADS, OPT_PIN, OPT_PRECISION, OPT_KV_CACHE, OPT_WEIGHTS, OPT_LORA
#define CLI_REPORT_OPTIONS  OPT_QUIET, OPT_VERBOSE
/* Options of commands that generate (cli/sampling.h reads them). */
#define CLI_SAMPLING_OPTIONS                                                                                           \
    OPT_GREEDY, OPT_TEMP, OPT_TOP_K, OPT_TOP_P, OPT_MIN_P, OPT_TYPICAL, OPT_TOP_N_SIGMA, OPT_XTC_PROB,                 \
        OPT_XTC_THRESHOLD, OPT_REPEAT_PENALTY, OPT_PRESENCE_PENALTY, OPT_FREQUENCY_PENALTY, OPT_REPEAT_LAST,           \
        OPT_DRY_MULTIPLIER, OPT_DRY_BASE, OPT_DRY_ALLOWED_LENGTH, OPT_DRY_LAST, OPT_DRY_BREAKER, OPT_DYNATEMP_RANGE,   \
        OPT_DYNATEMP_EXP, OPT_MIROSTAT_TAU, OPT_MIROSTAT_ETA, OPT_LOGIT_BIAS, OPT_SAMPLERS, OPT_SEED

/* Options of models that fill in blocks (cli/diffusion.h). */
#define CLI_DIFFUSION_OPTIONS                                                                                          \
    OPT_DIFFUSION, OPT_BLOCK_LENGTH, OPT_DIFFUSION_STEPS, OPT_DIFFUSION_SAMPLER, OPT_CONFIDENCE, OPT_MIN_CONFIDENCE,   \
        OPT_CONFIDENCE_FACTOR, OPT_TRANSFER, OPT_MAX_TRANSFER, OPT_DRAFT_LORA

/* Options of constrained output (constraint.h). */
#define CLI_CONSTRAINT_OPTIONS OPT_JSON_SCHEMA, OPT_GRAMMAR, OPT_REGEX

/* Options of a conversation. */
#define CLI_CHAT_OPTIONS                                                                                               \
    OPT_SYSTEM, OPT_MESSAGES, OPT_TOOLS, OPT_TEMPLATE, OPT_TEMPLATE_NAME, OPT_TEMPLATE_ARG, OPT_ANSWER_FORMAT,         \
        OPT_REASONING

#endif
