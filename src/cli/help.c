/* Help for people: the list of commands and the page of one command. */
#include "cli/help.h"
#include "cli/term.h"

#include <ffai.h>
#include <string.h>

enum { HELP_COLUMN = 30 };

void help_wrapped(FILE *to, const char *text, int col, int indent, int width) {
    bool fresh = true; /* nothing on this line yet */
    while (*text) {
        int len = (int)strcspn(text, " \n");
        if (len && !fresh && col + 1 + len > width) {
            fprintf(to, "\n%*s", indent, "");
            col = indent;
            fresh = true;
        }
        if (len) {
            fprintf(to, "%s%.*s", fresh ? "" : " ", len, text);
            col += len + !fresh;
            fresh = false;
        }
        text += len;
        if (*text == ' ') {
            text++;
        } else if (*text == '\n') { /* a blank line between paragraphs stays */
            bool paragraph = text[1] == '\n';
            fprintf(to, "\n%s%*s", paragraph ? "\n" : "", indent, "");
            text += paragraph ? 2 : 1;
            col = indent;
            fresh = true;
        }
    }
    fputc('\n', to);
}

static void option_line(FILE *to, const opt_row *r, int width) {
    char left[80];
    int n = 0;
    if (r->letter)
        n = snprintf(left, sizeof left, "  -%c, --%s", r->letter, r->name);
    else
        n = snprintf(left, sizeof left, "      --%s", r->name);
    const char *value = r->kind == KIND_CHOICE ? r->choices : r->arg;
    if (value) n += snprintf(left + n, sizeof left - (size_t)n, r->kind == KIND_OPT_CHOICE ? "[=%s]" : " %s", value);
    fprintf(to, "%s", left);
    if (n >= HELP_COLUMN)
        fprintf(to, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(to, "%*s", HELP_COLUMN - n, "");
    help_wrapped(to, r->help, HELP_COLUMN, HELP_COLUMN, width);
}

static void heading(FILE *to, const char *text) {
    fprintf(to, "%s%s%s\n", term_sgr(to, TERM_BOLD), text, term_sgr(to, TERM_PLAIN));
}

void help_overview(FILE *to) {
    fprintf(to, "ffai %s - runs published model checkpoints\n\n", ffai_version());
    heading(to, "usage: ffai COMMAND [options]");
    fputc('\n', to);
    for (const cli_command *const *c = cli_commands; *c; c++) fprintf(to, "  %-12s%s\n", (*c)->name, (*c)->summary);
    fprintf(to, "\nffai help COMMAND describes one of them. Exit status: 0 success, 1 failure, 2 wrong usage.\n");
}

void help_command(FILE *to, const cli_command *cmd) {
    int width = term_width(to);
    fprintf(to, "ffai %s - %s\n\n", cmd->name, cmd->summary);
    fputs(term_sgr(to, TERM_BOLD), to);
    int col = fprintf(to, "usage: ffai %s%s", cmd->name, *cmd->usage ? " " : "");
    help_wrapped(to, cmd->usage, col, col, width);
    fprintf(to, "%s\n", term_sgr(to, TERM_PLAIN));
    help_wrapped(to, cmd->text, 0, 0, width);
    for (int g = 0; g < GROUP_COUNT; g++) {
        bool any = false;
        for (const opt_id *id = cmd->options;; id++) {
            opt_id at = *id == OPT_END ? OPT_HELP : *id;
            if (cli_options[at].group == (opt_group)g) {
                if (!any) {
                    fputc('\n', to);
                    heading(to, cli_group_names[g]);
                    any = true;
                }
                option_line(to, &cli_options[at], width);
            }
            if (*id == OPT_END) break;
        }
    }
    if (!cmd->examples) return;
    fputc('\n', to);
    heading(to, "Examples");
    for (const char *p = cmd->examples; *p;) {
        int len = (int)strcspn(p, "\n");
        fprintf(to, "  ffai %.*s\n", len, p);
        p += len + (p[len] == '\n');
    }
}
