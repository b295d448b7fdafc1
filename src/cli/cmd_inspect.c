/* ffai inspect: what a checkpoint is, what it will need, and what it computes for given token ids. */
#include "cli/commands.h"
#include "cli/inspect_run.h"
#include "cli/inspect_show.h"
#include "cli/out.h"
#include "cli/session.h"

#include <string.h>

static void plan_line(const char *what, int64_t bytes, const char *note) {
    char text[16];
    printf("  %-10s%12s%s%s\n", what, out_bytes(text, (double)bytes), *note ? "  " : "", note);
}

static void print_plan(const ffai_plan *p) {
    char note[160];
    printf("\nmemory for a context of %d tokens, %d at a time\n", p->n_ctx, p->n_chunk);
    plan_line("weights", p->weight_bytes, "");
    snprintf(note, sizeof note, "%lld bytes a token", (long long)p->cache_bytes_per_token);
    plan_line("cache", p->cache_bytes, note);
    plan_line("work", p->arena_bytes, "");
    plan_line("total", p->total_bytes, "");
    printf("a decode step at the end of the context: %.3f GB read, %.3f Gop, %d operations\n", p->decode_bytes * 1e-9,
           p->decode_flops * 1e-9, p->n_record);
}

static int describe(const cli_opts *o, ffai_model *m) {
    ffai_error err;
    ffai_plan plan;
    ffai_engine_opts eo = session_engine_opts(o);
    bool with_plan = cli_has(o, OPT_PLAN);
    if (cli_has(o, OPT_JSON)) return inspect_json(o, m);
    if (with_plan && ffai_engine_plan(m, &eo, &plan, &err)) return cli_fail(o, "%s", err.msg);
    int rc = inspect_summary(o, m);
    if (rc || with_plan) {
        if (!rc) print_plan(&plan);
        return rc;
    }
    rc = inspect_memory(o, m);
    return rc ? rc : inspect_tensors(o, m);
}

static int run_inspect(const cli_opts *o) {
    static const opt_id ids[] = {OPT_TOKEN_IDS, OPT_TOKEN_IDS_FILE, OPT_END};
    static const opt_id need_ids[] = {OPT_LOGITS,      OPT_TAPS,  OPT_LAYER_TRACE, OPT_CHUNK,
                                      OPT_DECODE_FROM, OPT_BATCH, OPT_COMPOSED,    OPT_END};
    ffai_model *m = NULL;
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) rc = cli_exclusive(o, ids);
    for (const opt_id *id = need_ids; !rc && *id != OPT_END; id++)
        if (cli_has(o, *id) && !inspect_has_ids(o))
            rc = cli_usage(o, "--%s needs --token-ids or --token-ids-file", cli_options[*id].name);
    if (!rc && inspect_has_ids(o) && cli_has(o, OPT_PLAN))
        rc = cli_usage(o, "--plan and token ids cannot be given together");
    if (!rc) rc = session_model(o, false, &m);
    if (!rc) rc = inspect_has_ids(o) ? inspect_run(o, m) : describe(o, m);
    ffai_model_free(m);
    return rc;
}

static const opt_id inspect_options[] = {OPT_MODEL,          OPT_CTX,
                                         OPT_TOKEN_IDS,      OPT_TOKEN_IDS_FILE,
                                         OPT_CHUNK,          OPT_DECODE_FROM,
                                         OPT_BATCH,          OPT_PLAN,
                                         OPT_TENSORS,        OPT_LOGITS,
                                         OPT_LAYER_TRACE,    OPT_TAPS,
                                         OPT_COMPOSED,       CLI_MACHINE_OPTIONS,
                                         OPT_JSON,           OPT_PROFILE,
                                         CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_inspect = {
    .name = "inspect",
    .summary = "describe a checkpoint, plan its memory, run token ids",
    .usage = "-m MODEL [--json] [--tensors] [--plan --ctx N] [--token-ids IDS ...]",
    .text = "Without token ids it prints what the checkpoint is: family, parameters, shape, tokenizer, what its chat "
            "templates can do, how weights are stored, memory for several context lengths, and its tensors, those of "
            "all layers that are alike in one line (--tensors: one line each). With --plan it prints what the model "
            "needs for one context length. --json says all of it, and every tensor.\n\n"
            "With token ids it runs them, in exact precision unless --precision says otherwise, and writes what was "
            "asked for: logits as float32 "
            "[T, V], taps (named intermediate values) as arrays NAME.LAYER. No tokenizer is needed. Without any output "
            "option it prints the five "
            "likeliest next tokens. --chunk, --decode-from and --batch change how the ids are fed, never the result.",
    .examples = "inspect -m models/gemma-3-270m\ninspect -m org/name --json\ninspect -m model.gguf --plan --ctx 32768\n"
                "inspect -m models/tiny --token-ids 1,2,3 --logits out.npy --layer-trace",
    .options = inspect_options,
    .run = run_inspect,
};
