/* ffai models: the families that the library knows. */
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/out.h"
#include "cli/term.h"

#include <ffai.h>
#include <string.h>

static void models_json(void) {
    ffai_family_info f;
    out_json j;
    out_json_begin(&j, stdout, true);
    out_json_open(&j, NULL, '[');
    for (size_t i = 0; ffai_family_at(i, &f); i++) {
        out_json_open(&j, NULL, '{');
        out_json_str(&j, "family", f.name);
        out_json_list(&j, "model_types", f.model_types);
        out_json_list(&j, "architectures", f.archs);
        out_json_str(&j, "modality", f.modality);
        out_json_str(&j, "task", f.task);
        out_json_list(&j, "formats", f.formats);
        out_json_list(&j, "devices", f.devices);
        out_json_bool(&j, "parity_tested", f.parity);
        out_json_list(&j, "repos", f.repos);
        out_json_close(&j, '}');
    }
    out_json_close(&j, ']');
}

/* "a,b" as "a, b" */
static const char *spaced(char *buf, size_t cap, const char *list) {
    size_t n = 0;
    for (; *list && n + 3 < cap; list++) {
        buf[n++] = *list;
        if (*list == ',' && list[1] != ' ') buf[n++] = ' ';
    }
    buf[n] = 0;
    return buf;
}

/* What a family does, where, and in which formats: mostly the same for all, and then said once. */
static void print_abilities(const ffai_family_info *f, const char *who, int col, int width) {
    char formats[400], devices[100], text[700];
    snprintf(text, sizeof text, "%s%s, %s; on %s; %s; weights as %s", who, f->modality, f->task,
             spaced(devices, sizeof devices, f->devices),
             f->parity ? "tested against the official implementation"
                       : "not tested against the official implementation",
             spaced(formats, sizeof formats, f->formats));
    help_wrapped(stdout, text, col, col, width);
}

static bool alike(const ffai_family_info *a, const ffai_family_info *b) {
    return !strcmp(a->modality, b->modality) && !strcmp(a->task, b->task) && !strcmp(a->devices, b->devices) &&
           !strcmp(a->formats, b->formats) && a->parity == b->parity;
}

static int run_models(const cli_opts *o) {
    ffai_family_info f, first;
    char types[400];
    int name = 6, width = term_width(stdout);
    bool same = true;
    if (cli_has(o, OPT_JSON)) {
        models_json();
        return 0;
    }
    ffai_family_at(0, &first);
    for (size_t i = 0; ffai_family_at(i, &f); i++) {
        if ((int)strlen(f.name) > name) name = (int)strlen(f.name);
        same = same && alike(&f, &first);
    }
    name += 2;
    printf("%s%-*smodel types%s\n", term_sgr(stdout, TERM_BOLD), name, "family", term_sgr(stdout, TERM_PLAIN));
    for (size_t i = 0; ffai_family_at(i, &f); i++) {
        printf("%-*s", name, f.name);
        help_wrapped(stdout, spaced(types, sizeof types, f.model_types), name, name, width);
        if (same) continue;
        printf("%*s", name, "");
        print_abilities(&f, "", name, width);
    }
    putchar('\n');
    if (same) print_abilities(&first, "All of them: ", 0, width);
    return 0;
}

static const opt_id models_options[] = {OPT_JSON, OPT_END};

const cli_command cmd_models = {
    .name = "models",
    .summary = "list the model families",
    .usage = "[--json]",
    .text =
        "The families with the model types of config.json that they run, what they do, where, with which weights, and "
        "whether their output is tested against the official implementation. --json adds architecture strings and the "
        "repositories whose "
        "checkpoints were verified.",
    .examples = "models\nmodels --json",
    .options = models_options,
    .run = run_models,
};
