/* ffai convert: a checkpoint in any layout to mlx's, quantized or not. */
#define _POSIX_C_SOURCE 200809L
#include "cli/commands.h"
#include "cli/hub.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/term.h"
#include "cli/text_in.h"

#include <errno.h>
#include <ffai.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- rules: REGEX=bits:8,group:32,mode:affine or REGEX=keep ---- */

/* One "key:value" of a rule. */
static int rule_word(const cli_opts *o, const char *given, char *word, ffai_convert_rule *r) {
    char *value = strchr(word, ':'), *end;
    if (!strcmp(word, "keep")) {
        r->keep = true;
        return 0;
    }
    if (!value) return cli_usage(o, "--rule %s: \"%s\" is not keep, bits:N, group:N or mode:MODE", given, word);
    *value++ = 0;
    const long n = strtol(value, &end, 10);
    const bool number = *value && !*end && n > 0 && n < 1000;
    if (!strcmp(word, "mode"))
        r->mode = value;
    else if (!strcmp(word, "bits") && number)
        r->bits = (int)n;
    else if ((!strcmp(word, "group") || !strcmp(word, "group-size")) && number)
        r->group_size = (int)n;
    else
        return cli_usage(o, "--rule %s: \"%s:%s\" is not bits:N, group:N or mode:MODE", given, word, value);
    return 0;
}

/* text: a copy of `given`, which the rule points into. The regular expression ends at the last "=". */
static int read_rule(const cli_opts *o, const char *given, char *text, ffai_convert_rule *r) {
    char *eq = strrchr(text, '=');
    if (!eq || eq == text || !eq[1])
        return cli_usage(o, "--rule %s is not REGEX=HOW, as 'mlp\\.down_proj=bits:8'", given);
    *eq = 0;
    *r = (ffai_convert_rule){.pattern = text};
    int rc = 0;
    for (char *word = eq + 1, *next; word && !rc; word = next) {
        next = strchr(word, ',');
        if (next) *next++ = 0;
        rc = rule_word(o, given, word, r);
    }
    return rc;
}

typedef struct rules {
    ffai_convert_rule *at;
    char **text;
    size_t n;
} rules;

static int read_rules(const cli_opts *o, rules *r) {
    const cli_value *v = &o->v[OPT_RULE];
    int rc = 0;
    r->at = (ffai_convert_rule *)calloc(v->n + 1, sizeof *r->at);
    r->text = (char **)calloc(v->n + 1, sizeof *r->text);
    if (!r->at || !r->text) return cli_fail(o, "out of memory");
    for (; !rc && r->n < v->n; r->n++) {
        const size_t len = strlen(v->strs[r->n]) + 1;
        if (!(r->text[r->n] = (char *)malloc(len))) return cli_fail(o, "out of memory");
        memcpy(r->text[r->n], v->strs[r->n], len);
        rc = read_rule(o, v->strs[r->n], r->text[r->n], &r->at[r->n]);
    }
    return rc;
}

static void rules_free(rules *r) {
    for (size_t i = 0; r->text && i < r->n; i++) free(r->text[i]);
    free(r->text);
    free(r->at);
}

/* ---- sizes ---- */

static int read_size(const cli_opts *o, opt_id id, int64_t *bytes) {
    const char *s = cli_str(o, id, NULL);
    char *end;
    *bytes = 0;
    if (!s) return 0;
    errno = 0;
    double v = strtod(s, &end);
    const double unit = !strcmp(end, "G") || !strcmp(end, "GB")   ? 1e9
                        : !strcmp(end, "M") || !strcmp(end, "MB") ? 1e6
                        : !strcmp(end, "GiB")                     ? 1073741824.0
                        : !strcmp(end, "MiB")                     ? 1048576.0
                        : !*end                                   ? 1
                                                                  : 0;
    if (end == s || errno || !isfinite(v) || unit == 0 || !(v * unit >= 1) || v * unit > 9e18)
        return cli_usage(o, "%s %s is no size, as 5G or 500M", cli_flag_name(id), s);
    *bytes = (int64_t)(v * unit);
    return 0;
}

/* ---- progress ---- */

typedef struct bar {
    bool on;
    double begun, shown;
} bar;

static bool progress(void *user, int64_t done, int64_t total) {
    bar *b = (bar *)user;
    char a[16], z[16];
    const double now = out_now();
    if (term_interrupted()) return false;
    if (b->on && (now - b->shown > 0.1 || done == total)) {
        fprintf(stderr, "\r%3d %%  %s of %s\x1b[K", (int)(100.0 * (double)done / (double)(total ? total : 1)),
                out_bytes(a, (double)done), out_bytes(z, (double)total));
        if (done == total) fputs("\r\x1b[K", stderr);
        fflush(stderr);
        b->shown = now;
    }
    return true;
}

static void report(const cli_opts *o, const ffai_convert_info *in, double seconds) {
    char bytes[16], count[16];
    if (cli_has(o, OPT_JSON)) {
        out_json j;
        out_json_begin(&j, stdout, true);
        out_json_open(&j, NULL, '{');
        out_json_str(&j, "path", cli_str(o, OPT_OUT, ""));
        out_json_int(&j, "tensors", in->n_tensor);
        out_json_int(&j, "files", in->n_file);
        out_json_int(&j, "bytes", in->bytes);
        out_json_int(&j, "weights", in->n_weight);
        out_json_num(&j, "bits_per_weight", in->bits_per_weight);
        out_json_int(&j, "requantized", in->n_requantized);
        out_json_num(&j, "seconds", seconds);
        out_json_close(&j, '}');
        return;
    }
    term_note("%s: %s in %d file%s, %s weights at %.3f bits, %.1f s", cli_str(o, OPT_OUT, ""),
              out_bytes(bytes, (double)in->bytes), in->n_file, in->n_file == 1 ? "" : "s",
              out_count(count, (double)in->n_weight), in->bits_per_weight, seconds);
    if (in->n_requantized)
        term_note("%lld matrices were quantized before: quantizing them once more adds to what they lost",
                  (long long)in->n_requantized);
}

/* The text to calibrate with, as tokens, at most MAX of them; ffai_free. */
static int read_calibration(const cli_opts *o, ffai_convert_opts *co, int32_t **ids) {
    enum { MAX = 16384 };
    ffai_model *m = NULL;
    ffai_error err;
    char *text = NULL;
    size_t len = 0;
    *ids = NULL;
    if (!cli_has(o, OPT_CALIBRATE)) return 0;
    int rc = text_read(o, OPT_CALIBRATE, cli_str(o, OPT_CALIBRATE, ""), &text, &len);
    if (!rc) rc = session_model(o, true, &m);
    if (!rc && ffai_tokenize(m, text, len, FFAI_TOK_SPECIAL, ids, &co->n_calibration, &err))
        rc = cli_fail(o, "%s", err.msg);
    if (!rc && co->n_calibration < 16)
        rc = cli_fail(o, "%s is too short to calibrate with", cli_str(o, OPT_CALIBRATE, ""));
    if (co->n_calibration > MAX) co->n_calibration = MAX;
    co->calibration = *ids;
    ffai_model_free(m);
    free(text);
    return rc;
}

static int run_convert(const cli_opts *o) {
    rules r = {0};
    int32_t *ids = NULL;
    ffai_error err;
    ffai_convert_info info;
    bar b = {.on = isatty(2) && !term_is_quiet(), .begun = out_now()};
    ffai_convert_opts co = {.mode = cli_str(o, OPT_MODE, NULL),
                            .bits = (int)cli_int(o, OPT_BITS, 0),
                            .group_size = (int)cli_int(o, OPT_GROUP_SIZE, 0),
                            .dtype = cli_str(o, OPT_DTYPE, NULL),
                            .bits_per_weight = cli_num(o, OPT_BITS_PER_WEIGHT, 0),
                            .dequantize = cli_has(o, OPT_DEQUANTIZE),
                            .n_thread = (int)cli_int(o, OPT_THREADS, 0),
                            .progress = progress,
                            .user = &b};
    char *model = NULL;
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) rc = cli_require(o, OPT_OUT);
    if (!rc) rc = read_size(o, OPT_SHARD_SIZE, &co.shard_bytes);
    if (!rc) rc = read_rules(o, &r);
    if (!rc) rc = hub_path(o, cli_str(o, OPT_MODEL, ""), false, &model);
    if (!rc) rc = read_calibration(o, &co, &ids);
    if (!rc && cli_has(o, OPT_CALIBRATE) && !co.mode) co.mode = "affine";
    co.rules = r.at;
    co.n_rule = r.n;
    if (!rc) {
        term_catch_interrupt(true);
        b.begun = out_now(); /* a download and a calibration came before */
        rc = ffai_convert(model, cli_str(o, OPT_OUT, ""), &co, &info, &err);
        if (rc && b.on) fputs("\r\x1b[K", stderr);
        if (rc == FFAI_ECANCEL)
            rc = cli_fail(o, "interrupted; nothing was written");
        else if (rc)
            rc = cli_fail(o, "%s", err.msg);
        else
            report(o, &info, out_now() - b.begun);
    }
    rules_free(&r);
    ffai_free(ids);
    free(model);
    return rc;
}

static const opt_id convert_options[] = {
    OPT_MODEL,      OPT_OUT,     OPT_BITS,      OPT_GROUP_SIZE,      OPT_MODE,
    OPT_DTYPE,      OPT_RULE,    OPT_CALIBRATE, OPT_BITS_PER_WEIGHT, OPT_DEQUANTIZE,
    OPT_SHARD_SIZE, OPT_THREADS, OPT_JSON,      CLI_REPORT_OPTIONS,  OPT_END};

const cli_command cmd_convert = {
    .name = "convert",
    .summary = "write a checkpoint in mlx layout, quantized or not",
    .usage = "-m MODEL -o DIR [--bits N] [--group-size N] [--mode MODE] [--rule REGEX=HOW ...] [options]",
    .text = "Reads a checkpoint in any layout that ffai runs (HuggingFace, mlx, GGUF, and what other quantizers left) "
            "and writes a folder in mlx layout, for ffai and mlx-lm: weights as safetensors, config.json, the "
            "tokenizer's files, the generation config and a model card.\n\n"
            "With --bits, --group-size or --mode all matrices of linear layers, embeddings and experts are quantized; "
            "affine gives the codes that mlx's own quantizer gives. Without, they stay as they are stored; blocks of "
            "GGUF become floats. Which modules are left out or get 8 bits (routers of experts, for example) is as in "
            "mlx-lm; --rule says otherwise. Weights that were quantized before are widened first.\n\n"
            "The model passes through piece by piece: memory does not grow with it. The folder appears whole under its "
            "name or not at all; while it is written it is called DIR.partial-*.",
    .examples = "convert -m models/Qwen3-0.6B -o qwen3-4bit --bits 4\n"
                "convert -m models/Qwen3-0.6B -o qwen3-mixed --bits 3 --rule 'v_proj|down_proj=bits:6' --rule "
                "'lm_head=keep'\n"
                "convert -m model.gguf -o model-mlx --mode mxfp4\n"
                "convert -m qwen3-4bit -o qwen3-bf16 --dequantize --dtype bf16",
    .options = convert_options,
    .run = run_convert,
};
