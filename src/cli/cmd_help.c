/* ffai help [COMMAND], ffai version; also prints the man page and the completions. */
#include "cli/commands.h"
#include "cli/help.h"

#include <ffai.h>
#include <stdio.h>
#include <string.h>

static int run_help(const cli_opts *o) {
    if (cli_has(o, OPT_MAN)) {
        help_man(stdout);
        return 0;
    }
    if (cli_has(o, OPT_COMPLETION)) {
        const char *shell = cli_str(o, OPT_COMPLETION, "");
        if (!strcmp(shell, "bash")) help_bash(stdout);
        if (!strcmp(shell, "zsh")) help_zsh(stdout);
        if (!strcmp(shell, "fish")) help_fish(stdout);
        return 0;
    }
    if (o->n_args == 0) {
        help_overview(stdout);
        return 0;
    }
    const cli_command *cmd = cli_find_command(o->args[0]);
    if (!cmd) return cli_usage(NULL, "unknown command \"%s\"", o->args[0]);
    help_command(stdout, cmd);
    return 0;
}

static const opt_id help_options[] = {OPT_MAN, OPT_COMPLETION, OPT_END};

const cli_command cmd_help = {
    .name = "help",
    .summary = "describe a command",
    .usage = "[COMMAND]",
    .text = "Without COMMAND it lists the commands. The man page and the shell completions are made from the same "
            "table as this text.",
    .examples = "help generate\nhelp --completion bash > ~/.local/share/bash-completion/completions/ffai",
    .options = help_options,
    .arg_name = "COMMAND",
    .max_args = 1,
    .run = run_help,
};

static int run_version(const cli_opts *o) {
    (void)o;
    printf("ffai %s\n", ffai_version());
    return 0;
}

static const opt_id version_options[] = {OPT_END};

const cli_command cmd_version = {
    .name = "version",
    .summary = "print the version",
    .usage = "",
    .text = "Prints the version of the program and of the library inside it.",
    .options = version_options,
    .run = run_version,
};
