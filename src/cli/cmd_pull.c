/* ffai pull: a model from the hub into the cache. */
#include "cli/commands.h"
#include "cli/hub.h"
#include "cli/out.h"
#include "cli/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Patterns as the library takes them: NULL at the end. */
static const char **patterns(const cli_opts *o, opt_id id) {
    const cli_value *v = &o->v[id];
    const char **p = (const char **)calloc(v->n + 1, sizeof *p);
    if (p && v->n) memcpy((void *)p, (const void *)v->strs, v->n * sizeof *p);
    return p;
}

static void print_plan(const ffai_hub_model *m) {
    static const char *const head[] = {"file", "size", "to fetch"};
    ffai_hub_file_info f;
    ffai_hub_model_info in;
    out_table t;
    char size[16], fetch[16];
    int row = 0;
    out_table_begin(&t, head, "lrr");
    for (size_t i = 0; ffai_hub_model_file_at(m, i, &f); i++) {
        if (!f.used) continue;
        out_cell(&t, row, 0, "%s", f.name);
        out_cell(&t, row, 1, "%s", out_bytes(size, (double)f.bytes));
        out_cell(&t, row++, 2, "%s", f.fetch ? out_bytes(fetch, (double)f.fetch) : "-");
    }
    ffai_hub_model_get_info(m, &in);
    out_cell(&t, row, 0, "%lld files", (long long)in.n_file);
    out_cell(&t, row, 1, "%s", out_bytes(size, (double)in.bytes));
    out_cell(&t, row, 2, "%s", in.bytes_fetched ? out_bytes(fetch, (double)in.bytes_fetched) : "-");
    out_table_end(&t, stdout);
}

static void print_json(const ffai_hub_model *m, bool dry) {
    ffai_hub_file_info f;
    ffai_hub_model_info in;
    out_json j;
    ffai_hub_model_get_info(m, &in);
    out_json_begin(&j, stdout, true);
    out_json_open(&j, NULL, '{');
    out_json_str(&j, "repo", in.repo);
    out_json_str(&j, "revision", in.revision);
    out_json_str(&j, "commit", in.commit);
    out_json_str(&j, "path", dry ? NULL : in.path);
    out_json_int(&j, "bytes", in.bytes);
    out_json_int(&j, "fetched_bytes", dry ? 0 : in.bytes_fetched);
    out_json_open(&j, "files", '[');
    for (size_t i = 0; ffai_hub_model_file_at(m, i, &f); i++) {
        if (!f.used) continue;
        out_json_open(&j, NULL, '{');
        out_json_str(&j, "name", f.name);
        out_json_int(&j, "bytes", f.bytes);
        out_json_int(&j, dry ? "to_fetch" : "fetched", f.fetch);
        out_json_close(&j, '}');
    }
    out_json_close(&j, ']');
    out_json_close(&j, '}');
}

static int run_pull(const cli_opts *o) {
    if (o->n_args != 1) return cli_usage(o, "which model? give org/name or org/name@revision");
    hub_env e;
    ffai_hub_model *m = NULL;
    ffai_hub_model_info in;
    int rc = hub_env_init(&e, o);
    if (rc) return rc;
    const char **include = patterns(o, OPT_INCLUDE), **exclude = patterns(o, OPT_EXCLUDE);
    e.o.include = include;
    e.o.exclude = exclude;
    e.o.update = true;
    e.o.dry_run = cli_has(o, OPT_DRY_RUN);
    e.o.n_connection = (int)cli_int(o, OPT_CONNECTIONS, 0);
    if (!ffai_hub_is_id(o->args[0]))
        rc = cli_usage(o, "\"%s\" is no model id; it would be org/name or org/name@revision", o->args[0]);
    if (!rc && (!include || !exclude)) rc = cli_fail(o, "out of memory");
    term_catch_interrupt(true);
    if (!rc) rc = hub_pull(&e, o->args[0], &m);
    if (!rc) {
        ffai_hub_model_get_info(m, &in);
        if (cli_has(o, OPT_JSON))
            print_json(m, e.o.dry_run);
        else if (e.o.dry_run)
            print_plan(m);
        else
            puts(in.path);
        if (!in.n_fetched) term_note("%s: everything is in the cache", in.repo);
    }
    ffai_hub_model_free(m);
    hub_env_free(&e);
    free((void *)include);
    free((void *)exclude);
    return rc;
}

static const opt_id pull_options[] = {OPT_INCLUDE, OPT_EXCLUDE,        OPT_DRY_RUN, OPT_CONNECTIONS,
                                      OPT_JSON,    CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_pull = {
    .name = "pull",
    .summary = "download a model, or what is new in it",
    .usage = "ORG/NAME[:PART][@REVISION] [--include PATTERN] [--exclude PATTERN] [--dry-run]",
    .text =
        "Downloads what ffai needs of a model into the cache that Python's huggingface_hub uses too, and prints the "
        "path "
        "of the model there: weights of one format (safetensors, else one GGUF file), config, tokenizer and templates. "
        "What the cache has is not fetched again; what an interrupted download left is used. Every file is verified by "
        "its size and hash before it gets its name.\n\n"
        "REVISION is a branch, a tag or a commit (default: main). PART is a part of the name of a GGUF file, for "
        "repositories with several, as Q8_0 (default: Q4_K_M or what comes near it). Commands with -m take the same "
        "ids and download by themselves, but do not ask for anything newer than the cache holds; pull does.\n\n"
        "HF_HUB_CACHE, or hub in HF_HOME (~/.cache/huggingface), is the cache. HF_TOKEN, or the file that "
        "HF_TOKEN_PATH "
        "names (HF_HOME/token), is the access token for private and gated models. HF_ENDPOINT names another hub, "
        "HF_HUB_OFFLINE=1 forbids the network; https_proxy, http_proxy, all_proxy and no_proxy are honoured.",
    .examples =
        "pull Qwen/Qwen3-0.6B\npull unsloth/gemma-3-270m-it-GGUF:Q8_0\npull google/gemma-3-270m@main --dry-run\n"
        "pull org/name --include \"*.json\" --exclude \"onnx/*\"",
    .options = pull_options,
    .arg_name = "MODEL",
    .max_args = 1,
    .run = run_pull,
};
