/* ffai models: the families that the library knows. */
#include "cli/commands.h"
#include "cli/out.h"

#include <ffai.h>

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

static int run_models(const cli_opts *o) {
    static const char *const head[] = {"family", "model types", "modality", "task", "devices", "parity", "formats"};
    ffai_family_info f;
    if (cli_has(o, OPT_JSON)) {
        models_json();
        return 0;
    }
    out_table t;
    out_table_begin(&t, head, "lllllll");
    for (int i = 0; ffai_family_at((size_t)i, &f); i++) {
        out_cell(&t, i, 0, "%s", f.name);
        out_cell(&t, i, 1, "%s", f.model_types);
        out_cell(&t, i, 2, "%s", f.modality);
        out_cell(&t, i, 3, "%s", f.task);
        out_cell(&t, i, 4, "%s", f.devices);
        out_cell(&t, i, 5, "%s", f.parity ? "tested" : "-");
        out_cell(&t, i, 6, "%s", f.formats);
    }
    return out_table_end(&t, stdout) ? 0 : cli_fail(o, "out of memory");
}

static const opt_id models_options[] = {OPT_JSON, OPT_END};

const cli_command cmd_models = {
    .name = "models",
    .summary = "list the model families",
    .usage = "[--json]",
    .text = "One line for each family: the model types of config.json that it runs, what it does, where it runs, and "
            "whether its output is tested "
            "against the official implementation. --json adds architecture strings and the repositories whose "
            "checkpoints were verified.",
    .examples = "models\nmodels --json",
    .options = models_options,
    .run = run_models,
};
