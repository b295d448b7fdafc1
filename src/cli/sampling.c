/* Sampling flags, and the reports of --logprobs. */
#define _POSIX_C_SOURCE 200809L
#include "cli/sampling.h"
#include "cli/out.h"
#include "cli/term.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- flags ---- */

/* "ID=V[,ID=V...]" to b[*n...]; V may be -inf. */
static int parse_bias(const cli_opts *o, const char *text, ffai_logit_bias *b, size_t *n) {
    for (const char *p = text;; p++) {
        char *stop, *end;
        size_t len = strcspn(p, ",");
        long long id = strtoll(p, &stop, 10);
        double v = *stop == '=' ? strtod(stop + 1, &end) : NAN;
        if (stop == p || *stop != '=' || end != p + len || end == stop + 1 || isnan(v) || id < 0 || id > INT32_MAX)
            return cli_usage(o, "--logit-bias: \"%.*s\" is not ID=BIAS, e.g. 15=-2.5 or 15=-inf",
                             len > 40 ? 40 : (int)len, p);
        b[(*n)++] = (ffai_logit_bias){(int32_t)id, (float)v};
        p += len;
        if (!*p) return 0;
    }
}

/* The checkpoint's biases, then those of the flags. */
static int set_bias(const cli_opts *o, sampling_flags *out) {
    const cli_value *v = &o->v[OPT_LOGIT_BIAS];
    size_t n = out->s.n_bias;
    if (!v->n) return 0;
    for (size_t i = 0; i < v->n; i++) {
        n++;
        for (const char *p = v->strs[i]; *p; p++) n += *p == ',';
    }
    out->bias = (ffai_logit_bias *)calloc(n, sizeof *out->bias);
    if (!out->bias) return cli_fail(o, "--logit-bias: out of memory");
    n = out->s.n_bias;
    if (n) memcpy(out->bias, out->s.bias, n * sizeof *out->bias);
    int rc = 0;
    for (size_t i = 0; !rc && i < v->n; i++) rc = parse_bias(o, v->strs[i], out->bias, &n);
    out->s.bias = out->bias;
    out->s.n_bias = n;
    return rc;
}

static int set_breakers(const cli_opts *o, sampling_flags *out) {
    const cli_value *v = &o->v[OPT_DRY_BREAKER];
    if (!v->n) return 0;
    out->breakers = (const char **)calloc(v->n, sizeof *out->breakers);
    if (!out->breakers) return cli_fail(o, "--dry-breaker: out of memory");
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++) {
        const char *s = v->strs[i];
        if (!strcmp(s, "none")) {
            n = 0; /* those before it, and the usual ones, do not hold */
            continue;
        }
        out->breakers[n++] = !strcmp(s, "\\n") ? "\n" : !strcmp(s, "\\t") ? "\t" : s;
    }
    out->s.dry_breakers = out->breakers;
    out->s.n_dry_breaker = n;
    return 0;
}

/* Flags that shape a draw do nothing where nothing is drawn. */
static void note_greedy(const cli_opts *o) {
    static const opt_id idle[] = {OPT_TOP_K,        OPT_TOP_P,    OPT_MIN_P,         OPT_TYPICAL,
                                  OPT_TOP_N_SIGMA,  OPT_XTC_PROB, OPT_XTC_THRESHOLD, OPT_DYNATEMP_RANGE,
                                  OPT_MIROSTAT_TAU, OPT_END};
    for (const opt_id *id = idle; *id != OPT_END; id++) {
        if (!cli_has(o, *id)) continue;
        term_note("--%s changes nothing: the likeliest token is taken, as %s; --temp T draws", cli_options[*id].name,
                  cli_has(o, OPT_GREEDY) || cli_has(o, OPT_TEMP) ? "you say" : "the checkpoint says");
        return;
    }
}

static void set_numbers(const cli_opts *o, ffai_sampling *s) {
    const struct {
        opt_id id;
        float *to;
    } nums[] = {{OPT_TEMP, &s->temp},
                {OPT_DYNATEMP_RANGE, &s->temp_range},
                {OPT_DYNATEMP_EXP, &s->temp_exponent},
                {OPT_TOP_P, &s->top_p},
                {OPT_MIN_P, &s->min_p},
                {OPT_TYPICAL, &s->typical},
                {OPT_TOP_N_SIGMA, &s->top_n_sigma},
                {OPT_XTC_PROB, &s->xtc_prob},
                {OPT_XTC_THRESHOLD, &s->xtc_threshold},
                {OPT_REPEAT_PENALTY, &s->repeat_penalty},
                {OPT_PRESENCE_PENALTY, &s->presence_penalty},
                {OPT_FREQUENCY_PENALTY, &s->frequency_penalty},
                {OPT_DRY_MULTIPLIER, &s->dry_multiplier},
                {OPT_DRY_BASE, &s->dry_base},
                {OPT_MIROSTAT_TAU, &s->mirostat_tau},
                {OPT_MIROSTAT_ETA, &s->mirostat_eta}};
    for (size_t i = 0; i < sizeof nums / sizeof nums[0]; i++) *nums[i].to = (float)cli_num(o, nums[i].id, *nums[i].to);
    if (cli_has(o, OPT_TOP_P) && s->top_p < 1e-9f) s->top_p = 1e-9f; /* a share of nothing: the likeliest alone */
    s->top_k = (int)cli_int(o, OPT_TOP_K, s->top_k);
    s->repeat_last = (int)cli_int(o, OPT_REPEAT_LAST, s->repeat_last);
    s->dry_allowed_length = (int)cli_int(o, OPT_DRY_ALLOWED_LENGTH, s->dry_allowed_length);
    s->dry_last = (int)cli_int(o, OPT_DRY_LAST, s->dry_last);
}

int cli_sampling_check(const cli_opts *o) {
    static const opt_id heat[] = {OPT_GREEDY, OPT_TEMP, OPT_END};
    if (cli_has(o, OPT_JSON) && !cli_has(o, OPT_LOGPROBS))
        return cli_usage(o, "--json says how --logprobs K reports; without that it has nothing to do");
    return cli_exclusive(o, heat);
}

int cli_sampling(const cli_opts *o, ffai_model *m, sampling_flags *out) {
    memset(out, 0, sizeof *out);
    ffai_sampling_default(m, &out->s);
    set_numbers(o, &out->s);
    if (cli_has(o, OPT_GREEDY)) out->s.temp = 0;
    out->s.samplers = cli_str(o, OPT_SAMPLERS, out->s.samplers);
    /* Without --seed every run is another one. */
    out->s.seed = cli_has(o, OPT_SEED) ? (uint64_t)cli_int(o, OPT_SEED, 0) : (uint64_t)(out_now() * 1e9);
    ffai_model_info in;
    ffai_model_get_info(m, &in);
    if (*in.ignored) term_note("the checkpoint asks for sampling that ffai does not do: %s", in.ignored);
    int rc = set_bias(o, out);
    if (!rc) rc = set_breakers(o, out);
    ffai_error err;
    if (!rc && ffai_sampling_check(m, &out->s, &err))
        rc = err.code == FFAI_ENOMEM ? cli_fail(o, "%s", err.msg) : cli_usage(o, "--%s", err.msg);
    if (!rc && !(out->s.temp > 0)) note_greedy(o);
    if (rc) cli_sampling_free(out);
    return rc;
}

void cli_sampling_free(sampling_flags *s) {
    free(s->bias);
    free((void *)s->breakers);
    memset(s, 0, sizeof *s);
}

/* ---- --logprobs ---- */

int cli_n_logprob(const cli_opts *o) {
    if (!cli_has(o, OPT_LOGPROBS)) return 0;
    int k = (int)cli_int(o, OPT_LOGPROBS, 0);
    return k ? k : -1;
}

void logprobs_begin(cli_logprobs *l, const cli_opts *o, ffai_model *m) {
    memset(l, 0, sizeof *l);
    l->m = m;
    l->on = cli_has(o, OPT_LOGPROBS);
    l->json = l->on && cli_has(o, OPT_JSON);
}

/* The text of one token; "" when it has none. free with ffai_free. */
static char *token_text(const cli_logprobs *l, int32_t id) {
    char *text = NULL;
    size_t len;
    return id >= 0 && !ffai_detokenize(l->m, &id, 1, false, &text, &len, NULL) ? text : NULL;
}

static void json_entry(const cli_logprobs *l, out_json *j, ffai_logprob lp) {
    char *text = token_text(l, lp.id);
    out_json_int(j, "id", lp.id);
    out_json_str(j, "token", text ? text : "");
    out_json_num(j, "logprob", (double)lp.logprob);
    ffai_free(text);
}

static void json_line(const cli_logprobs *l, const ffai_logprob *row, size_t n_top) {
    out_json j;
    out_json_begin(&j, stdout, false);
    out_json_open(&j, NULL, '{');
    json_entry(l, &j, row[0]);
    out_json_open(&j, "top", '[');
    for (size_t i = 1; i <= n_top && row[i].id >= 0; i++) {
        out_json_open(&j, NULL, '{');
        json_entry(l, &j, row[i]);
        out_json_close(&j, '}');
    }
    out_json_close(&j, ']');
    out_json_close(&j, '}');
    fflush(stdout);
}

bool logprobs_event(cli_logprobs *l, const ffai_event *ev) {
    if (!l->on || !ev->logprobs) return l->json;
    size_t width = 1 + ev->n_top;
    l->n_top = ev->n_top;
    if (l->json) {
        for (size_t i = 0; i < ev->n_ids; i++) json_line(l, ev->logprobs + i * width, ev->n_top);
        return true;
    }
    while (l->n + ev->n_ids > l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        ffai_logprob *row = (ffai_logprob *)realloc(l->row, cap * width * sizeof *row);
        if (!row) return false; /* the table ends here */
        l->row = row;
        l->cap = cap;
    }
    if (ev->n_ids) memcpy(l->row + l->n * width, ev->logprobs, ev->n_ids * width * sizeof *l->row);
    l->n += ev->n_ids;
    return false;
}

/* A cell of the table: what a token spells, line ends and the like visible. */
static void text_cell(const cli_logprobs *l, out_table *t, int row, int col, ffai_logprob lp, bool with_number) {
    char *text = token_text(l, lp.id);
    out_json j; /* quotes and escapes */
    char buf[128] = "";
    FILE *f = fmemopen(buf, sizeof buf - 1, "w");
    if (f) {
        out_json_begin(&j, f, false);
        j.depth = 1;
        out_json_str(&j, NULL, text ? text : "");
        fclose(f);
    }
    if (with_number)
        out_cell(t, row, col, "%s %.3f", buf, (double)lp.logprob);
    else
        out_cell(t, row, col, "%s", buf);
    ffai_free(text);
}

static void print_table(const cli_logprobs *l) {
    enum { SHOWN = 5 };
    static const char *const head[] = {"token", "id", "logprob", "prob", "likeliest", "", "", "", ""};
    int n_top = l->n_top < SHOWN ? (int)l->n_top : SHOWN;
    char align[4 + SHOWN + 1] = "lrrrlllll";
    align[4 + n_top] = 0;
    out_table t;
    out_table_begin(&t, head, align);
    for (size_t i = 0; i < l->n; i++) {
        const ffai_logprob *row = l->row + i * (1 + l->n_top);
        text_cell(l, &t, (int)i, 0, row[0], false);
        out_cell(&t, (int)i, 1, "%d", (int)row[0].id);
        out_cell(&t, (int)i, 2, "%.4f", (double)row[0].logprob);
        out_cell(&t, (int)i, 3, "%.2f %%", 100 * exp((double)row[0].logprob));
        for (int k = 1; k <= n_top; k++) text_cell(l, &t, (int)i, 3 + k, row[k], true);
    }
    fflush(stdout);
    fputc('\n', stderr); /* the text ended without a line end */
    out_table_end(&t, stderr);
}

void logprobs_end(cli_logprobs *l) {
    if (l->on && !l->json && l->n) print_table(l);
    free(l->row);
    memset(l, 0, sizeof *l);
}
