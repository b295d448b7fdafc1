/* ffai inspect: what a checkpoint is, what it will need, and what it computes for given token ids. */
#include "cli/commands.h"
#include "cli/inspect_run.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/term.h"

#include <string.h>

static void shape_text(char *buf, size_t cap, const ffai_tensor_info *t) {
    int k = snprintf(buf, cap, "[");
    for (int i = 0; i < t->n_dim && k < (int)cap - 24; i++)
        k += snprintf(buf + k, cap - (size_t)k, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    snprintf(buf + k, cap - (size_t)k, "]");
}

/* ---- text ---- */

/* "default (4116 bytes), tool_use (812 bytes)" */
static void print_templates(ffai_model *m) {
    const char *name, *source;
    char text[100];
    ffai_error err;
    int rc = 1;
    printf("%stemplate%s   ", term_sgr(stdout, TERM_BOLD), term_sgr(stdout, TERM_PLAIN));
    for (size_t i = 0; (rc = ffai_model_template_at(m, i, &name, &source, &err)) == 1; i++) {
        snprintf(text, sizeof text, "%s", name);
        printf("%s%s (%zu bytes)", i ? ", " : "", out_plain(text), strlen(source));
        ffai_template *t;
        if (ffai_template_parse(&t, source, strlen(source), "it", &err)) printf(", not usable: %s", err.msg);
        ffai_template_free(t);
    }
    if (rc < 0) printf("none: %s", err.msg);
    if (rc == 0 && ffai_model_template_at(m, 0, &name, &source, NULL) != 1) printf("none");
    putchar('\n');
}

static void json_templates(out_json *j, ffai_model *m) {
    const char *name, *source;
    ffai_error err;
    out_json_open(j, "templates", '[');
    for (size_t i = 0; ffai_model_template_at(m, i, &name, &source, &err) == 1; i++) {
        ffai_template *t;
        int rc = ffai_template_parse(&t, source, strlen(source), "it", &err);
        out_json_open(j, NULL, '{');
        out_json_str(j, "name", name);
        out_json_int(j, "bytes", (int64_t)strlen(source));
        out_json_str(j, "error", rc ? err.msg : NULL);
        out_json_close(j, '}');
        ffai_template_free(t);
    }
    out_json_close(j, ']');
}

static void print_summary(ffai_model *m) {
    ffai_model_info in;
    ffai_error err;
    char bytes[16], params[16], tok[400], type[100], arch[100];
    ffai_model_get_info(m, &in);
    snprintf(type, sizeof type, "%s", in.model_type);
    snprintf(arch, sizeof arch, "%s", in.arch);
    const char *b = term_sgr(stdout, TERM_BOLD), *p = term_sgr(stdout, TERM_PLAIN);
    printf("%smodel%s      %s\n", b, p, in.path);
    printf("%sfamily%s     %s (model_type %s, %s)\n", b, p, in.family, out_plain(type), out_plain(arch));
    printf("%sfiles%s      %s, %lld tensors", b, p, in.container, (long long)in.n_tensor);
    if (in.n_unused) printf(", %lld of them not used", (long long)in.n_unused);
    printf("\n%sweights%s    %s parameters, mostly %s, %s\n", b, p, out_count(params, (double)in.n_param), in.format,
           out_bytes(bytes, (double)in.weight_bytes));
    printf("%sshape%s      %lld layers of dim %lld", b, p, (long long)in.n_layer, (long long)in.dim);
    if (in.n_head) /* else no layer attends */
        printf(", %lld heads (%lld kv) of dim %lld", (long long)in.n_head, (long long)in.n_kv_head,
               (long long)in.head_dim);
    if (in.ff_dim) printf(", mlp %lld", (long long)in.ff_dim);
    printf(", vocabulary %lld%s\n", (long long)in.vocab, in.tied ? ", head tied to the embedding" : "");
    if (in.n_expert)
        printf("%sexperts%s    %lld of dim %lld, %lld for a token: %s active parameters\n", b, p,
               (long long)in.n_expert, (long long)in.expert_dim, (long long)in.n_expert_used,
               out_count(params, (double)in.n_active));
    printf("%scontext%s    %lld tokens\n", b, p, (long long)in.max_ctx);
    if (ffai_tokenizer_text(m, tok, sizeof tok, &err) == 0)
        printf("%stokenizer%s  %s\n", b, p, out_plain(tok));
    else
        printf("%stokenizer%s  none: %s\n", b, p, err.msg);
    print_templates(m);
}

static int print_tensors(const cli_opts *o, ffai_model *m) {
    static const char *const head[] = {"tensor", "dtype", "shape", "bytes", "format"};
    ffai_tensor_info t;
    out_table table;
    out_table_begin(&table, head, "lllrl");
    for (int i = 0; ffai_model_tensor_at(m, (size_t)i, &t); i++) {
        char shape[200];
        shape_text(shape, sizeof shape, &t);
        out_cell(&table, i, 0, "%s", t.name);
        out_cell(&table, i, 1, "%s", t.dtype);
        out_cell(&table, i, 2, "%s", shape);
        out_cell(&table, i, 3, "%lld", (long long)t.bytes);
        out_cell(&table, i, 4, "%s", t.used ? t.format : "not used");
    }
    putchar('\n');
    return out_table_end(&table, stdout) ? 0 : cli_fail(o, "out of memory");
}

static void plan_line(const char *what, int64_t bytes, const char *note) {
    char text[16];
    printf("  %-10s%12s  %s\n", what, out_bytes(text, (double)bytes), note);
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

/* ---- JSON ---- */

static void json_plan(out_json *j, const ffai_plan *p) {
    out_json_open(j, "plan", '{');
    out_json_int(j, "n_ctx", p->n_ctx);
    out_json_int(j, "n_chunk", p->n_chunk);
    out_json_int(j, "weight_bytes", p->weight_bytes);
    out_json_int(j, "cache_bytes", p->cache_bytes);
    out_json_int(j, "cache_bytes_per_token", p->cache_bytes_per_token);
    out_json_int(j, "arena_bytes", p->arena_bytes);
    out_json_int(j, "total_bytes", p->total_bytes);
    out_json_int(j, "operations", p->n_record);
    out_json_num(j, "decode_bytes", p->decode_bytes);
    out_json_num(j, "decode_flops", p->decode_flops);
    out_json_num(j, "prefill_bytes", p->prefill_bytes);
    out_json_num(j, "prefill_flops", p->prefill_flops);
    out_json_close(j, '}');
}

static void json_summary(out_json *j, ffai_model *m) {
    ffai_model_info in;
    ffai_error err;
    char tok[400];
    ffai_model_get_info(m, &in);
    out_json_str(j, "path", in.path);
    out_json_str(j, "family", in.family);
    out_json_str(j, "model_type", in.model_type);
    out_json_str(j, "architecture", in.arch);
    out_json_str(j, "container", in.container);
    out_json_str(j, "format", in.format);
    out_json_int(j, "parameters", in.n_param);
    out_json_int(j, "active_parameters", in.n_active);
    out_json_int(j, "weight_bytes", in.weight_bytes);
    out_json_int(j, "n_layer", in.n_layer);
    out_json_int(j, "dim", in.dim);
    out_json_int(j, "n_head", in.n_head);
    out_json_int(j, "n_kv_head", in.n_kv_head);
    out_json_int(j, "head_dim", in.head_dim);
    out_json_int(j, "ff_dim", in.ff_dim);
    out_json_int(j, "vocab", in.vocab);
    out_json_int(j, "n_expert", in.n_expert);
    out_json_int(j, "n_expert_used", in.n_expert_used);
    out_json_int(j, "expert_dim", in.expert_dim);
    out_json_int(j, "max_ctx", in.max_ctx);
    out_json_bool(j, "tied", in.tied);
    out_json_str(j, "tokenizer", ffai_tokenizer_text(m, tok, sizeof tok, &err) == 0 ? tok : NULL);
    json_templates(j, m);
    out_json_raw(j, "config", ffai_model_config_text(m));
    out_json_int(j, "n_tensor", in.n_tensor);
    out_json_int(j, "n_unused", in.n_unused);
}

static void json_tensors(out_json *j, ffai_model *m) {
    ffai_tensor_info t;
    out_json_open(j, "tensors", '[');
    for (size_t i = 0; ffai_model_tensor_at(m, i, &t); i++) {
        out_json_open(j, NULL, '{');
        bool indent = j->indent;
        j->indent = false; /* one tensor a line */
        out_json_str(j, "name", t.name);
        out_json_str(j, "dtype", t.dtype);
        out_json_open(j, "shape", '[');
        for (int k = 0; k < t.n_dim; k++) out_json_int(j, NULL, t.dim[k]);
        out_json_close(j, ']');
        out_json_int(j, "bytes", t.bytes);
        out_json_str(j, "format", t.format);
        out_json_bool(j, "used", t.used);
        out_json_str(j, "file", t.file);
        out_json_close(j, '}');
        j->indent = indent;
    }
    out_json_close(j, ']');
}

static int describe(const cli_opts *o, ffai_model *m) {
    ffai_error err;
    ffai_plan plan;
    ffai_engine_opts eo = session_engine_opts(o);
    bool with_plan = cli_has(o, OPT_PLAN);
    if (with_plan && ffai_engine_plan(m, &eo, &plan, &err)) return cli_fail(o, "%s", err.msg);
    if (cli_has(o, OPT_JSON)) {
        out_json j;
        out_json_begin(&j, stdout, true);
        out_json_open(&j, NULL, '{');
        json_summary(&j, m);
        if (with_plan) json_plan(&j, &plan);
        json_tensors(&j, m);
        out_json_close(&j, '}');
        return 0;
    }
    print_summary(m);
    if (with_plan) print_plan(&plan);
    return with_plan ? 0 : print_tensors(o, m);
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

static const opt_id inspect_options[] = {
    OPT_MODEL,           OPT_CTX,  OPT_TOKEN_IDS, OPT_TOKEN_IDS_FILE, OPT_CHUNK, OPT_DECODE_FROM,
    OPT_BATCH,           OPT_PLAN, OPT_LOGITS,    OPT_LAYER_TRACE,    OPT_TAPS,  OPT_COMPOSED,
    CLI_MACHINE_OPTIONS, OPT_JSON, OPT_PROFILE,   CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_inspect = {
    .name = "inspect",
    .summary = "describe a checkpoint, plan its memory, run token ids",
    .usage = "-m MODEL [--json] [--plan --ctx N] [--token-ids IDS ...]",
    .text = "Without token ids it prints family, shape, tokenizer, chat templates and every tensor; with --plan what "
            "the model needs "
            "for a context length.\n\n"
            "With token ids it runs them, in exact precision unless --precision says otherwise, and writes what was "
            "asked for: logits as float32 "
            "[T, V], taps (named intermediate values) as arrays NAME.LAYER. No tokenizer is needed. Without any output "
            "option it prints the five "
            "likeliest next tokens. --chunk, --decode-from and --batch change how the ids are fed, never the result.",
    .examples = "inspect -m models/gemma-3-270m\ninspect -m model.gguf --plan --ctx 32768\n"
                "inspect -m models/tiny --token-ids 1,2,3 --logits out.npy --layer-trace",
    .options = inspect_options,
    .run = run_inspect,
};
