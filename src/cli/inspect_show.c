/* What a checkpoint is and what it needs, for people: a summary that fits a terminal of 80 columns, how its weights are
 * stored, memory for several context lengths. */
#include "cli/inspect_show.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/term.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- templates ---- */

/* What the template makes of a conversation; NULL: it refuses. Free with ffai_free. */
static char *rendered(ffai_model *m, const char *name, const char *json) {
    char *text = NULL;
    size_t n;
    ffai_error err;
    return ffai_chat_render(m, name, json, strlen(json), &text, &n, &err) ? NULL : text;
}

static bool mentions(ffai_model *m, const char *name, const char *json, const char *word) {
    char *text = rendered(m, name, json);
    bool found = text && strstr(text, word);
    ffai_free(text);
    return found;
}

#define ASK "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true"
#define TOOL                                                                                                           \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"qzx_tool\", \"description\": \"d\", "             \
    "\"parameters\": {\"type\": \"object\", \"properties\": {}}}}]}"
#define SYSTEM                                                                                                         \
    "{\"messages\": [{\"role\": \"system\", \"content\": \"qzx_system\"}, {\"role\": \"user\", "                       \
    "\"content\": \"Hi\"}], \"add_generation_prompt\": true}"

/* The variable whose value changes what an empty conversation becomes. */
static const char *think_variable(ffai_model *m, const char *name) {
    static const struct {
        const char *variable, *on, *off;
    } all[] = {{"enable_thinking", ASK ", \"enable_thinking\": true}", ASK ", \"enable_thinking\": false}"},
               {"thinking", ASK ", \"thinking\": true}", ASK ", \"thinking\": false}"},
               {"reasoning_effort", ASK ", \"reasoning_effort\": \"high\"}", ASK ", \"reasoning_effort\": \"low\"}"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char *on = rendered(m, name, all[i].on), *off = rendered(m, name, all[i].off);
        bool differ = on && off && strcmp(on, off) != 0;
        ffai_free(on);
        ffai_free(off);
        if (differ) return all[i].variable;
    }
    return NULL;
}

bool inspect_template_at(ffai_model *m, size_t i, inspect_template *t) {
    const char *source;
    ffai_template *parsed;
    memset(t, 0, sizeof *t);
    if (ffai_model_template_at(m, i, &t->name, &source, NULL) != 1) return false;
    t->bytes = strlen(source);
    if (ffai_template_parse(&parsed, source, t->bytes, "it", &t->error)) return true;
    ffai_template_free(parsed);
    t->error.code = 0;
    t->system = mentions(m, t->name, SYSTEM, "qzx_system");
    t->tools = mentions(m, t->name, ASK ", " TOOL, "qzx_tool");
    t->think = think_variable(m, t->name);
    return true;
}

const char *inspect_answer_format(ffai_model *m, char buf[64]) {
    ffai_parser_opts po = {0};
    ffai_parser *p;
    snprintf(buf, 64, "none");
    if (ffai_parser_create(&p, m, &po, NULL)) return buf;
    snprintf(buf, 64, "%s", ffai_parser_format(p));
    ffai_parser_free(p);
    return buf;
}

/* ---- summary ---- */

static void label(const char *name) {
    printf("%s%-12s%s", term_sgr(stdout, TERM_BOLD), name, term_sgr(stdout, TERM_PLAIN));
}

static void field(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "name   text"; text comes from files too: nothing in it steers the terminal. */
static void field(const char *name, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    label(name);
    puts(out_plain(text));
}

/* "default (4116 bytes): system message, tools, reasoning (enable_thinking)" */
static void print_templates(ffai_model *m) {
    inspect_template t;
    char format[64];
    size_t n = 0;
    for (; inspect_template_at(m, n, &t); n++) {
        if (t.error.code) {
            field(n ? "" : "template", "%s (%zu bytes), not usable: %s", t.name, t.bytes, t.error.msg);
            continue;
        }
        field(n ? "" : "template", "%s (%zu bytes)%s%s%s%s%s%s%s", t.name, t.bytes,
              t.system || t.tools || t.think ? ": " : "", t.system ? "system message" : "",
              t.system && t.tools ? ", " : "", t.tools ? "tools" : "", t.think && (t.system || t.tools) ? ", " : "",
              t.think ? "reasoning by " : "", t.think ? t.think : "");
    }
    if (!n) {
        ffai_error err;
        const char *name, *source;
        int rc = ffai_model_template_at(m, 0, &name, &source, &err);
        field("template", "none%s%s", rc < 0 ? ": " : "", rc < 0 ? err.msg : "");
    } else if (strcmp(inspect_answer_format(m, format), "none") != 0) {
        field("answers", "in the format %s", format);
    }
}

int64_t inspect_files(const ffai_model *m) {
    ffai_tensor_info t;
    const char **seen = NULL;
    int64_t n = 0, cap = 0;
    for (size_t i = 0; ffai_model_tensor_at(m, i, &t); i++) {
        int64_t k = n;
        while (k > 0 && strcmp(seen[k - 1], t.file) != 0) k--; /* mostly that of the tensor before */
        if (k) continue;
        if (n == cap) {
            const char **more = (const char **)realloc(seen, (size_t)(cap = 2 * cap + 16) * sizeof *seen);
            if (!more) break;
            seen = more;
        }
        seen[n++] = t.file;
    }
    free(seen);
    return n;
}

static void print_shape(const ffai_model_info *in) {
    if (in->ff_dim)
        field("layers", "%lld of width %lld, mlp %lld", (long long)in->n_layer, (long long)in->dim,
              (long long)in->ff_dim);
    else
        field("layers", "%lld of width %lld", (long long)in->n_layer, (long long)in->dim);
    if (in->n_expert)
        field("experts", "%lld of width %lld, %lld for a token", (long long)in->n_expert, (long long)in->expert_dim,
              (long long)in->n_expert_used);
    if (!in->n_head)
        field("attention", "none");
    else if (in->n_kv_head == in->n_head)
        field("attention", "%lld heads of %lld", (long long)in->n_head, (long long)in->head_dim);
    else
        field("attention", "%lld heads of %lld, %lld of keys and values", (long long)in->n_head,
              (long long)in->head_dim, (long long)in->n_kv_head);
    field("context", "%lld tokens", (long long)in->max_ctx);
    if (in->block) field("diffusion", "blocks of %d tokens", in->block);
    field("vocabulary", "%lld%s", (long long)in->vocab, in->tied ? ", head tied to the embedding" : "");
}

static double bits_each(int64_t bytes, int64_t n) { return n ? 8.0 * (double)bytes / (double)n : 0; }

static int print_kinds(const cli_opts *o, ffai_model *m, const ffai_model_info *in) {
    static const char *const head[] = {"weights", "matrices", "parameters", "bytes", "share", "bits a weight"};
    ffai_weight_kind k;
    out_table table;
    char text[16];
    int64_t bytes = in->weight_bytes, n = in->n_param;
    int row = 0;
    out_table_begin(&table, head, "lrrrrr");
    for (bool more = true; more; row++) {
        more = ffai_model_kind_at(m, (size_t)row, &k);
        if (more) {
            out_cell(&table, row, 0, "%s", k.format);
            out_cell(&table, row, 1, "%lld", (long long)k.n_matrix);
            bytes -= k.bytes;
            n -= k.n_param;
        } else { /* the rest */
            if (n <= 0) break;
            out_cell(&table, row, 0, "vectors");
            k.bytes = bytes;
            k.n_param = n;
        }
        out_cell(&table, row, 2, "%s", out_count(text, (double)k.n_param));
        out_cell(&table, row, 3, "%s", out_bytes(text, (double)k.bytes));
        out_cell(&table, row, 4, "%.1f %%", in->weight_bytes ? 100.0 * (double)k.bytes / (double)in->weight_bytes : 0);
        out_cell(&table, row, 5, "%.2f", bits_each(k.bytes, k.n_param));
    }
    putchar('\n');
    return out_table_end(&table, stdout) ? 0 : cli_fail(o, "out of memory");
}

int inspect_summary(const cli_opts *o, ffai_model *m) {
    ffai_model_info in;
    ffai_error err;
    char size[16], params[16], active[32] = "", tok[400];
    int64_t n_file = inspect_files(m);
    ffai_model_get_info(m, &in);
    field("model", "%s", in.path);
    field("family", "%s (model_type %.80s, %.80s)", in.family, in.model_type, in.arch);
    if (in.n_active != in.n_param) {
        char text[16];
        snprintf(active, sizeof active, ", %s for a token", out_count(text, (double)in.n_active));
    }
    field("parameters", "%s%s", out_count(params, (double)in.n_param), active);
    field("size", "%s, %.2f bits a weight, mostly %s", out_bytes(size, (double)in.weight_bytes),
          bits_each(in.weight_bytes, in.n_param), in.format);
    print_shape(&in);
    if (ffai_tokenizer_text(m, tok, sizeof tok, &err) == 0)
        field("tokenizer", "%s", tok);
    else
        field("tokenizer", "none: %s", err.msg);
    print_templates(m);
    char unused[48] = "";
    if (in.n_unused) snprintf(unused, sizeof unused, ", %lld of them not used", (long long)in.n_unused);
    field("files", "%lld of %s with %lld tensors%s", (long long)n_file, in.container, (long long)in.n_tensor, unused);
    return print_kinds(o, m, &in);
}

/* ---- memory ---- */

int inspect_plans(const cli_opts *o, ffai_model *m, ffai_plan plan[INSPECT_PLANS], ffai_error *err) {
    static const int usual[] = {4096, 32768, 131072};
    ffai_engine_opts eo = session_engine_opts(o);
    ffai_model_info in;
    int64_t want[INSPECT_PLANS], given = eo.n_ctx;
    int n = 0, got = 0;
    ffai_model_get_info(m, &in);
    if (given) want[n++] = given;
    for (size_t i = 0; i < 3; i++)
        if (usual[i] != given && usual[i] < in.max_ctx) want[n++] = usual[i];
    if (in.max_ctx != given && in.max_ctx > 0 && in.max_ctx <= 16777216) want[n++] = in.max_ctx;
    for (int i = 1; i < n; i++) /* the shortest first */
        for (int k = i; k > 0 && want[k] < want[k - 1]; k--) {
            int64_t t = want[k];
            want[k] = want[k - 1];
            want[k - 1] = t;
        }
    if (!eo.device) eo.device = "cpu"; /* what can be told without asking a GPU */
    for (int i = 0; i < n; i++) {
        eo.n_ctx = (int)want[i];
        if (!ffai_engine_plan(m, &eo, &plan[got], err)) got++;
    }
    return got;
}

int inspect_memory(const cli_opts *o, ffai_model *m) {
    static const char *const head[] = {"context", "weights", "cache", "work", "memory"};
    ffai_plan plan[INSPECT_PLANS];
    ffai_error err = {0};
    out_table table;
    char text[16];
    int n = inspect_plans(o, m, plan, &err);
    putchar('\n');
    if (!n) {
        field("memory", "%s", err.code ? err.msg : "the context length is not known; --plan --ctx N tells");
        return 0;
    }
    out_table_begin(&table, head, "rrrrr");
    for (int i = 0; i < n; i++) {
        out_cell(&table, i, 0, "%d", plan[i].n_ctx);
        out_cell(&table, i, 1, "%s", out_bytes(text, (double)plan[i].weight_bytes));
        out_cell(&table, i, 2, "%s", out_bytes(text, (double)plan[i].cache_bytes));
        out_cell(&table, i, 3, "%s", out_bytes(text, (double)plan[i].arena_bytes));
        out_cell(&table, i, 4, "%s", out_bytes(text, (double)plan[i].total_bytes));
    }
    return out_table_end(&table, stdout) ? 0 : cli_fail(o, "out of memory");
}
