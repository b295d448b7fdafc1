/* ffai: finds the command, parses its options, runs it. Exit status: 0 success, 1 failure (one line on stderr), 2 wrong
 * usage. */
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/term.h"

#include <stdio.h>
#include <string.h>

const cli_command *const cli_commands[] = {
#define X(name) &cmd_##name,
    CLI_COMMANDS(X)
#undef X
        NULL};

const cli_command *cli_find_command(const char *name) {
    for (const cli_command *const *c = cli_commands; *c; c++)
        if (!strcmp((*c)->name, name)) return *c;
    return NULL;
}

static int unknown_command(const char *name) {
    const char *words[32];
    size_t n = 0;
    for (const cli_command *const *c = cli_commands; *c && n < 31; c++) words[n++] = (*c)->name;
    words[n] = NULL;
    const char *near = cli_nearest(name, words);
    if (name[0] == '-') return cli_usage(NULL, "unknown option %s; options follow a command", name);
    if (near) return cli_usage(NULL, "unknown command \"%s\"; did you mean %s?", name, near);
    return cli_usage(NULL, "unknown command \"%s\"", name);
}

/* A full disk or a closed pipe must not look like success. */
static int flush_output(int status) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    if (status == 0) {
        fprintf(stderr, "ffai: standard output cannot be written\n");
        status = 1;
    }
    return status;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        help_overview(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) name = "help";
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) name = "version";
    const cli_command *cmd = cli_find_command(name);
    if (!cmd) return unknown_command(name);

    cli_opts o;
    int status = cli_parse(&o, cmd, argc - 2, argv + 2);
    if (status == 0) {
        term_catch_lost_page();
        term_init(cli_has(&o, OPT_QUIET), cli_has(&o, OPT_VERBOSE));
        if (cli_has(&o, OPT_HELP))
            help_command(stdout, cmd);
        else
            status = cmd->run(&o);
    }
    cli_opts_free(&o);
    return flush_output(status);
}
