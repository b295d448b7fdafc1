/* ffai list, rm, prune: the cache of downloaded models. */
#include "cli/commands.h"
#include "cli/hub.h"
#include "cli/out.h"
#include "cli/term.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- list ---- */

static const char *ago(char *buf, size_t size, int64_t when) {
    static const struct {
        int64_t s;
        const char *name;
    } unit[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}};
    int64_t s = (int64_t)time(NULL) - when;
    snprintf(buf, size, "just now");
    for (size_t i = 0; i < 3; i++) {
        int64_t n = s / unit[i].s;
        if (n < 1) continue;
        snprintf(buf, size, "%lld %s%s ago", (long long)n, unit[i].name, n == 1 ? "" : "s");
        break;
    }
    return buf;
}

static void list_json(const ffai_hub_list *l) {
    ffai_hub_cached c;
    out_json j;
    out_json_begin(&j, stdout, true);
    out_json_open(&j, NULL, '[');
    for (size_t i = 0; ffai_hub_list_at(l, i, &c); i++) {
        out_json_open(&j, NULL, '{');
        out_json_str(&j, "repo", c.repo);
        out_json_str(&j, "commit", c.commit);
        out_json_list(&j, "refs", c.refs);
        out_json_int(&j, "files", c.n_file);
        out_json_int(&j, "bytes", c.bytes);
        out_json_int(&j, "own_bytes", c.own_bytes);
        out_json_int(&j, "last_used", c.used);
        out_json_bool(&j, "complete", c.complete);
        out_json_close(&j, '}');
    }
    out_json_close(&j, ']');
}

static void list_text(const ffai_hub_list *l) {
    static const char *const head[] = {"model", "revision", "commit", "files", "size", "last used", ""};
    ffai_hub_cached c;
    out_table t;
    char size[16], when[48];
    out_table_begin(&t, head, "lllrrll");
    for (int i = 0; ffai_hub_list_at(l, (size_t)i, &c); i++) {
        out_cell(&t, i, 0, "%s", c.repo);
        out_cell(&t, i, 1, "%s", *c.refs ? c.refs : "-");
        out_cell(&t, i, 2, "%.8s", c.commit);
        out_cell(&t, i, 3, "%lld", (long long)c.n_file);
        out_cell(&t, i, 4, "%s", out_bytes(size, (double)c.bytes));
        out_cell(&t, i, 5, "%s", ago(when, sizeof when, c.used));
        out_cell(&t, i, 6, "%s", c.complete ? "" : "partial");
    }
    out_table_end(&t, stdout);
    if (ffai_hub_list_loose_bytes(l) > 0)
        term_note("%s more in unfinished downloads and contents that no revision uses (ffai prune)",
                  out_bytes(size, (double)ffai_hub_list_loose_bytes(l)));
}

static int run_list(const cli_opts *o) {
    hub_env e;
    ffai_hub_list *l = NULL;
    ffai_hub_cached c;
    ffai_error err;
    int rc = hub_env_init(&e, o);
    if (rc) return rc;
    if (ffai_hub_list_create(&l, e.o.cache, &err) != 0)
        rc = cli_fail(o, "%s", err.msg);
    else if (cli_has(o, OPT_JSON))
        list_json(l);
    else if (ffai_hub_list_at(l, 0, &c))
        list_text(l);
    else
        term_note("no models in %s", e.o.cache);
    ffai_hub_list_free(l);
    hub_env_free(&e);
    return rc;
}

static const opt_id list_options[] = {OPT_JSON, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_list = {
    .name = "list",
    .summary = "list the downloaded models",
    .usage = "[--json]",
    .text =
        "One line for each revision of a model in the cache, whoever put it there: the branches and tags that stand "
        "for it, its commit, how many files of it are there and how large they are, and when it was last used. "
        "partial: files that ffai would need are missing; a command with -m fetches them.\n\n"
        "Revisions share the files in which they do not differ; own_bytes of --json says what rm would free.",
    .examples = "list\nlist --json",
    .options = list_options,
    .run = run_list,
};

/* ---- rm and prune ---- */

static void say_freed(const cli_opts *o, const char *what, int64_t bytes) {
    char size[16];
    bool dry = cli_has(o, OPT_DRY_RUN);
    printf("%s%s%s %s\n", what, *what ? ": " : "", dry ? "would free" : "freed", out_bytes(size, (double)bytes));
}

static int run_rm(const cli_opts *o) {
    if (!o->n_args) return cli_usage(o, "which model? ffai list names those that are there");
    hub_env e;
    ffai_error err;
    int rc = hub_env_init(&e, o);
    for (int i = 0; i < o->n_args && !rc; i++) {
        int64_t bytes;
        if (ffai_hub_remove(e.o.cache, o->args[i], cli_has(o, OPT_DRY_RUN), &bytes, &err) != 0)
            rc = cli_fail(o, "%s", err.msg);
        else
            say_freed(o, o->args[i], bytes);
    }
    hub_env_free(&e);
    return rc;
}

static const opt_id rm_options[] = {OPT_DRY_RUN, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_rm = {
    .name = "rm",
    .summary = "remove downloaded models",
    .usage = "ORG/NAME[@REVISION]... [--dry-run]",
    .text =
        "Removes a model from the cache with all its revisions, or with @REVISION (a branch, a tag, a commit or the "
        "beginning of one) this revision and the files that no other one uses. Python's huggingface_hub no longer "
        "has it then either. A model that another program downloads just now is left alone.",
    .examples = "rm Qwen/Qwen3-0.6B\nrm google/gemma-3-270m@9b0cfec8 --dry-run",
    .options = rm_options,
    .arg_name = "MODEL",
    .max_args = 64,
    .run = run_rm,
};

static int run_prune(const cli_opts *o) {
    hub_env e;
    ffai_error err;
    int64_t bytes;
    int rc = hub_env_init(&e, o);
    if (rc) return rc;
    if (ffai_hub_prune(e.o.cache, cli_has(o, OPT_DRY_RUN), &bytes, &err) != 0)
        rc = cli_fail(o, "%s", err.msg);
    else
        say_freed(o, "", bytes);
    hub_env_free(&e);
    return rc;
}

static const opt_id prune_options[] = {OPT_DRY_RUN, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_prune = {
    .name = "prune",
    .summary = "remove what no branch or tag of a downloaded model needs",
    .usage = "[--dry-run]",
    .text =
        "Removes from the cache: revisions that no branch or tag stands for (those that an update replaced, and those "
        "that were asked for by their commit), unfinished downloads, and contents that no revision uses. Models that "
        "another program downloads just now are left alone.",
    .examples = "prune --dry-run\nprune",
    .options = prune_options,
    .run = run_prune,
};
