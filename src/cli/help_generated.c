/* Man page and completions for bash, zsh and fish, from the option table. */
#include "cli/help.h"

#include <ffai.h>
#include <string.h>

/* ---- man page ---- */

/* Text for roff: a backslash and a leading dot or quote mean something there, and a hyphen in a flag must stay one. */
static void roff(FILE *to, const char *s) {
    for (bool start = true; *s; s++) {
        if (start && (*s == '.' || *s == '\'')) fputs("\\&", to);
        start = *s == '\n';
        if (*s == '\\')
            fputs("\\e", to);
        else if (*s == '-')
            fputs("\\-", to);
        else if (*s == '\n' && s[1] == '\n') {
            fputs("\n.PP\n", to);
            s++;
        } else
            fputc(*s, to);
    }
}

static void man_option(FILE *to, const opt_row *r) {
    fputs(".TP\n", to);
    if (r->letter) fprintf(to, "\\fB\\-%c\\fR, ", r->letter);
    fputs("\\fB\\-\\-", to);
    roff(to, r->name);
    fputs("\\fR", to);
    const char *value = r->kind == KIND_CHOICE ? r->choices : r->arg;
    if (value) {
        fputs(r->kind == KIND_OPT_CHOICE ? "[=\\fI" : " \\fI", to);
        roff(to, value);
        fputs(r->kind == KIND_OPT_CHOICE ? "\\fR]" : "\\fR", to);
    }
    fputc('\n', to);
    roff(to, r->help);
    fputs(".\n", to);
}

static void man_command(FILE *to, const cli_command *c) {
    fprintf(to, ".SH FFAI %s\n.B ffai %s\n", c->name, c->name);
    roff(to, c->usage);
    fputs("\n.PP\n", to);
    roff(to, c->text);
    fputc('\n', to);
    for (int g = 0; g < GROUP_COUNT; g++) {
        bool any = false;
        for (const opt_id *id = c->options; *id != OPT_END; id++) {
            if (cli_options[*id].group != (opt_group)g) continue;
            if (!any) fprintf(to, ".SS %s\n", cli_group_names[g]);
            any = true;
            man_option(to, &cli_options[*id]);
        }
    }
    if (!c->examples) return;
    fputs(".SS Examples\n.nf\n", to);
    for (const char *p = c->examples; *p;) {
        size_t len = strcspn(p, "\n");
        char line[256];
        snprintf(line, sizeof line, "ffai %.*s", (int)len, p);
        roff(to, line);
        fputc('\n', to);
        p += len + (p[len] == '\n');
    }
    fputs(".fi\n", to);
}

void help_man(FILE *to) {
    fprintf(to, ".TH FFAI 1 \"\" \"ffai %s\" \"User Commands\"\n", ffai_version());
    fputs(".SH NAME\nffai \\- runs published model checkpoints\n.SH SYNOPSIS\n.B ffai\n.I COMMAND\n[options]\n.SH "
          "DESCRIPTION\n",
          to);
    fputs("The result goes to standard output and nothing else does; progress, warnings and statistics go to standard "
          "error. Colour is used only "
          "on a terminal.\n.SH COMMANDS\n",
          to);
    for (const cli_command *const *c = cli_commands; *c; c++) {
        fprintf(to, ".TP\n.B %s\n", (*c)->name);
        roff(to, (*c)->summary);
        fputs(".\n", to);
    }
    for (const cli_command *const *c = cli_commands; *c; c++) man_command(to, *c);
    fputs(".SH EXIT STATUS\n0 success, 1 failure (one line on standard error says what, where and the value), 2 wrong "
          "usage.\n",
          to);
    fputs(".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nwhen set and not empty, no colour.\n", to);
    fputs(".TP\n.B FFAI_CPU\nthe highest instruction set to use, e.g. c, avx2, avx512, neon, neondot.\n", to);
}

/* ---- completions ---- */

static bool has_choices(const opt_row *r) { return r->choices || r == &cli_options[OPT_ANSWER_FORMAT]; }

/* The values that an option can have, with spaces between. */
static void choices(FILE *to, const opt_row *r) {
    const char *name;
    if (r == &cli_options[OPT_ANSWER_FORMAT]) {
        fputs("auto", to);
        for (size_t i = 0; (name = ffai_parser_format_at(i)); i++) fprintf(to, " %s", name);
        return;
    }
    for (const char *p = r->choices; *p; p++) fputc(*p == '|' ? ' ' : *p, to);
}

/* case lines of bash for the values of an option; `optional`: those options whose value needs "=" */
static void bash_values(FILE *to, bool optional) {
    for (const cli_command *const *c = cli_commands; *c; c++)
        for (const opt_id *id = (*c)->options; *id != OPT_END; id++) {
            const opt_row *r = &cli_options[*id];
            if (r->kind == KIND_FLAG || (r->kind == KIND_OPT_CHOICE) != optional) continue;
            fprintf(to, "    \"%s --%s\"", (*c)->name, r->name);
            if (r->letter) fprintf(to, " | \"%s -%c\"", (*c)->name, r->letter);
            if (r->kind == KIND_PATH) {
                fputs(") compopt -o default; return ;;\n", to);
            } else if (has_choices(r)) {
                fputs(") COMPREPLY=($(compgen -W \"", to);
                choices(to, r);
                fputs("\" -- \"$cur\")); return ;;\n", to);
            } else {
                fputs(") return ;;\n", to);
            }
        }
}

void help_bash(FILE *to) {
    fputs("# bash completion for ffai, printed by `ffai help --completion bash`\n_ffai() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}\n    "
          "COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W \"",
          to);
    for (const cli_command *const *c = cli_commands; *c; c++)
        fprintf(to, "%s%s", c == cli_commands ? "" : " ", (*c)->name);
    fputs("\" -- \"$cur\"))\n        return\n    fi\n", to);
    /* readline takes --flag=value for three words */
    fputs("    if [ \"$cur\" = = ] || [ \"$prev\" = = ]; then\n"
          "        if [ \"$cur\" = = ]; then cur=; else prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
          "    case \"$cmd $prev\" in\n",
          to);
    bash_values(to, true);
    fputs("    esac\n    fi\n    case \"$cmd $prev\" in\n", to);
    bash_values(to, false);
    fputs("    esac\n    case \"$cmd\" in\n", to);
    for (const cli_command *const *c = cli_commands; *c; c++) {
        fprintf(to, "    %s) COMPREPLY=($(compgen -W \"--help", (*c)->name);
        for (const opt_id *id = (*c)->options; *id != OPT_END; id++) fprintf(to, " --%s", cli_options[*id].name);
        if (!strcmp((*c)->name, "help"))
            for (const cli_command *const *d = cli_commands; *d; d++) fprintf(to, " %s", (*d)->name);
        fputs("\" -- \"$cur\")) ;;\n", to);
    }
    fputs("    esac\n}\ncomplete -F _ffai ffai\n", to);
}

/* Text inside single quotes of zsh's _arguments or of fish. */
static void quoted(FILE *to, const char *s, bool zsh) {
    for (; *s; s++) {
        if (*s == '\'')
            fputs(zsh ? "'\\''" : "\\'", to);
        else if (zsh && (*s == '[' || *s == ']' || *s == ':'))
            fprintf(to, "\\%c", *s);
        else
            fputc(*s, to);
    }
}

static void zsh_option(FILE *to, const opt_row *r) {
    const char *many = r->kind == KIND_STRS ? "*" : "";
    for (int form = 0; form < (r->letter ? 2 : 1); form++) {
        if (form)
            fprintf(to, "            '%s-%c", many, r->letter);
        else
            fprintf(to, "            '%s--%s%s", many, r->name,
                    r->kind == KIND_OPT_CHOICE ? "=-"
                    : r->kind == KIND_FLAG     ? ""
                                               : "=");
        fputc('[', to);
        quoted(to, r->help, true);
        fputc(']', to);
        if (r->kind != KIND_FLAG) {
            fprintf(to, r->kind == KIND_OPT_CHOICE ? "::%s:" : ":%s:", r->arg);
            if (r->kind == KIND_PATH) fputs("_files", to);
            if (has_choices(r)) {
                fputc('(', to);
                choices(to, r);
                fputc(')', to);
            }
        }
        fputs("' \\\n", to);
    }
}

void help_zsh(FILE *to) {
    fputs("#compdef ffai\n# zsh completion for ffai, printed by `ffai help --completion zsh`\n_ffai() {\n    local -a "
          "commands\n    commands=(\n",
          to);
    for (const cli_command *const *c = cli_commands; *c; c++) {
        fprintf(to, "        '%s:", (*c)->name);
        quoted(to, (*c)->summary, true);
        fputs("'\n", to);
    }
    fputs("    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n"
          "    local cmd=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $cmd in\n",
          to);
    for (const cli_command *const *c = cli_commands; *c; c++) {
        fprintf(to, "        %s) _arguments \\\n", (*c)->name);
        for (const opt_id *id = (*c)->options; *id != OPT_END; id++) zsh_option(to, &cli_options[*id]);
        zsh_option(to, &cli_options[OPT_HELP]);
        if (!strcmp((*c)->name, "help"))
            fputs("            '1:command:{_describe command commands}' ;;\n", to);
        else
            fputs("            ;;\n", to);
    }
    fputs("    esac\n}\n_ffai \"$@\"\n", to);
}

void help_fish(FILE *to) {
    fputs("# fish completion for ffai, printed by `ffai help --completion fish`\ncomplete -c ffai -f\n", to);
    for (const cli_command *const *c = cli_commands; *c; c++) {
        fprintf(to, "complete -c ffai -n __fish_use_subcommand -a %s -d '", (*c)->name);
        quoted(to, (*c)->summary, false);
        fputs("'\n", to);
        for (const opt_id *id = (*c)->options;; id++) {
            const opt_row *r = &cli_options[*id == OPT_END ? OPT_HELP : *id];
            fprintf(to, "complete -c ffai -n '__fish_seen_subcommand_from %s' -l %s", (*c)->name, r->name);
            if (r->letter) fprintf(to, " -s %c", r->letter);
            if (r->kind != KIND_FLAG && r->kind != KIND_OPT_CHOICE) fputs(r->kind == KIND_PATH ? " -r -F" : " -x", to);
            if (has_choices(r)) {
                fputs(" -a '", to);
                choices(to, r);
                fputc('\'', to);
            }
            fputs(" -d '", to);
            quoted(to, r->help, false);
            fputs("'\n", to);
            if (*id == OPT_END) break;
        }
    }
}
