/* Options of the program: the one table (options.inc), the commands, and parsing. Everything that a command line can
 * say is declared here and nowhere else; help, man page and completions are printed from it. */
#ifndef FFAI_CLI_OPTS_H
#define FFAI_CLI_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum opt_kind {
    KIND_FLAG,
    KIND_STR,
    KIND_PATH,
    KIND_STRS,
    KIND_INT,
    KIND_NUM,
    KIND_INTS,
    KIND_CHOICE,
    KIND_OPT_CHOICE
} opt_kind;

typedef enum opt_group {
    GROUP_MODEL,
    GROUP_INPUT,
    GROUP_OUTPUT,
    GROUP_SAMPLING,
    GROUP_DIFFUSION,
    GROUP_MACHINE,
    GROUP_REPORT,
    GROUP_COUNT
} opt_group;

typedef enum opt_id {
    OPT_END, /* ends the list of a command */
#define X(id, name, letter, kind, arg, lo, hi, choices, group, help) OPT_##id,
#include "cli/options.inc"
#undef X
    OPT_COUNT
} opt_id;

typedef struct opt_row {
    const char *name;
    char letter;
    opt_kind kind;
    const char *arg;
    double lo, hi;
    const char *choices;
    opt_group group;
    const char *help;
} opt_row;

extern const opt_row cli_options[OPT_COUNT];
extern const char *const cli_group_names[GROUP_COUNT];

struct cli_opts;

typedef struct cli_command {
    const char *name;
    const char *summary;   /* one line */
    const char *usage;     /* what follows "ffai NAME" */
    const char *text;      /* paragraphs for help and man page, a blank line between them */
    const char *examples;  /* command lines, one a line, without "ffai" in front */
    const opt_id *options; /* ends with OPT_END; --help is added by itself */
    const char *arg_name;  /* positional arguments for messages and completion, or NULL when the command takes none */
    int max_args;
    int (*run)(const struct cli_opts *o); /* exit status */
} cli_command;

/* All commands, NULL at the end. */
extern const cli_command *const cli_commands[];
const cli_command *cli_find_command(const char *name);

typedef struct cli_value {
    int count;         /* how often it was given */
    const char *str;   /* STR, PATH, CHOICE, OPT_CHOICE (NULL without a value) */
    int64_t i;         /* INT */
    double num;        /* NUM */
    const char **strs; /* STRS: [n] */
    int64_t *ints;     /* INTS: [n] */
    size_t n;
} cli_value;

typedef struct cli_opts {
    const cli_command *cmd;
    cli_value v[OPT_COUNT];
    const char **args; /* positional */
    int n_args;
} cli_opts;

/* Parses argv[0..argc) (after the command name). 0, or 2 after one line on stderr. */
int cli_parse(cli_opts *o, const cli_command *cmd, int argc, char **argv);
void cli_opts_free(cli_opts *o);

bool cli_has(const cli_opts *o, opt_id id);
const char *cli_str(const cli_opts *o, opt_id id, const char *otherwise);
int64_t cli_int(const cli_opts *o, opt_id id, int64_t otherwise);
double cli_num(const cli_opts *o, opt_id id, double otherwise);

/* "-m MODEL" or "--ctx N": how messages and help name an option. */
const char *cli_flag_name(opt_id id);

/* One line on stderr, "ffai CMD: ...". cli_usage returns 2 and points to the help, cli_fail returns 1. */
int cli_usage(const cli_opts *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_fail(const cli_opts *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Fails with usage unless the option was given. */
int cli_require(const cli_opts *o, opt_id id);
/* Fails with usage if more than one of the options was given; the list ends with OPT_END. */
int cli_exclusive(const cli_opts *o, const opt_id *ids);

/* The word among `words` (NULL-terminated) that was probably meant, or NULL. */
const char *cli_nearest(const char *word, const char *const *words);

#endif
