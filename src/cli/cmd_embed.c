/* ffai embed: texts to vectors. */
#include "cli/commands.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/term.h"
#include "cli/text_in.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 16 /* texts at a time */, GROUP = 64 /* texts between two looks at what is to be printed */ };

/* All texts as tokens. */
typedef struct texts {
    int32_t **ids; /* [n] */
    size_t *len;   /* [n] */
    size_t n, cap, longest;
} texts;

static void texts_free(texts *t) {
    for (size_t i = 0; i < t->n; i++) ffai_free(t->ids[i]);
    free(t->ids);
    free(t->len);
}

/* where: "" or "FILE:LINE: " */
static int add_text(const cli_opts *o, ffai_model *m, texts *t, const char *where, const char *text, size_t len) {
    ffai_error err;
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        int32_t **ids = (int32_t **)realloc(t->ids, cap * sizeof *ids);
        if (ids) t->ids = ids;
        size_t *lens = ids ? (size_t *)realloc(t->len, cap * sizeof *lens) : NULL;
        if (!lens) return cli_fail(o, "%sout of memory", where);
        t->len = lens;
        t->cap = cap;
    }
    if (ffai_tokenize(m, text, len, FFAI_TOK_SPECIAL, &t->ids[t->n], &t->len[t->n], &err))
        return cli_fail(o, "%s%s", where, err.msg);
    size_t n = t->len[t->n++];
    if (n > t->longest) t->longest = n;
    return n ? 0 : cli_fail(o, "%sthe text is empty, and this model puts no token around a text", where);
}

/* A JSON string a line; empty lines are skipped. */
static int add_lines(const cli_opts *o, ffai_model *m, texts *t, const char *text, size_t len) {
    int rc = 0;
    size_t line = 1;
    for (const char *p = text, *end = text + len; p < end && !rc; line++) {
        const char *stop = (const char *)memchr(p, '\n', (size_t)(end - p));
        char at[600], where[610];
        ffai_error err;
        fa_json *j;
        if (!stop) stop = end;
        size_t n = (size_t)(stop - p), n_text;
        if (n && p[n - 1] == '\r') n--;
        snprintf(at, sizeof at, "%s:%zu", cli_str(o, OPT_EMBED_JSONL, ""), line);
        snprintf(where, sizeof where, "%s: ", at);
        if (n && fa_json_parse(&j, p, n, at, &err)) return cli_fail(o, "%s", err.msg);
        if (n) {
            const char *s = fa_jstr(fa_json_root(j), &n_text);
            rc = s ? add_text(o, m, t, where, s, n_text) : cli_fail(o, "%snot a JSON string", where);
            fa_json_free(j);
        }
        p = stop + 1;
    }
    return rc;
}

static void print_one(const cli_opts *o, const texts *t, size_t i, const float *x, int64_t dim) {
    out_json j;
    bool whole = cli_has(o, OPT_JSON);
    out_json_begin(&j, stdout, false);
    if (whole) {
        out_json_open(&j, NULL, '{');
        out_json_int(&j, "index", (int64_t)i);
        out_json_int(&j, "tokens", (int64_t)t->len[i]);
    }
    out_json_open(&j, whole ? "embedding" : NULL, '[');
    for (int64_t k = 0; k < dim; k++) out_json_num(&j, NULL, (double)x[k]);
    out_json_close(&j, ']');
    if (whole) out_json_close(&j, '}');
}

static int embed_all(const cli_opts *o, ffai_engine *e, const texts *t, int64_t dim) {
    const char *normalize = cli_str(o, OPT_NORMALIZE, "yes");
    ffai_embed_opts eo = {.pooling = cli_str(o, OPT_POOLING, NULL),
                          .normalize = !cli_has(o, OPT_NORMALIZE)     ? 0
                                       : strcmp(normalize, "no") == 0 ? -1
                                                                      : 1};
    ffai_error err;
    float *x = (float *)malloc((size_t)dim * GROUP * sizeof *x);
    if (!x) return cli_fail(o, "out of memory");
    int rc = 0;
    for (size_t at = 0; !rc && at < t->n && !ferror(stdout); at += GROUP) {
        size_t n = t->n - at < GROUP ? t->n - at : GROUP;
        if (term_interrupted())
            rc = cli_fail(o, "interrupted");
        else if (ffai_embed_batch(e, (const int32_t *const *)t->ids + at, t->len + at, n, &eo, x, &err))
            rc = cli_fail(o, "%s", err.msg);
        for (size_t i = 0; !rc && i < n; i++) print_one(o, t, at + i, x + (int64_t)i * dim, dim);
        fflush(stdout);
    }
    free(x);
    return rc;
}

static int run(const cli_opts *o, ffai_model *m, const texts *t) {
    ffai_error err;
    ffai_engine *e = NULL;
    ffai_engine_opts eo = session_engine_opts(o);
    ffai_model_info in;
    int64_t dim;
    ffai_model_get_info(m, &in);
    if (!cli_has(o, OPT_CTX)) eo.n_ctx = (int)t->longest;
    if ((int64_t)t->longest > (eo.n_ctx < in.max_ctx ? eo.n_ctx : in.max_ctx))
        return cli_fail(o, "a text of %zu tokens does not fit the context of %lld", t->longest,
                        (long long)(eo.n_ctx < in.max_ctx ? eo.n_ctx : in.max_ctx));
    eo.n_slot = t->n < SLOTS ? (int)t->n : SLOTS;
    if (ffai_embed_dim(m, &dim, &err)) return cli_fail(o, "%s", err.msg);
    int rc = session_engine(o, m, &eo, &e);
    if (!rc) rc = embed_all(o, e, t, dim);
    if (!rc) session_profile(o, e, NULL);
    ffai_engine_free(e);
    return rc;
}

static int run_embed(const cli_opts *o) {
    static const opt_id inputs[] = {OPT_PROMPT, OPT_FILE, OPT_EMBED_JSONL, OPT_END};
    ffai_model *m = NULL;
    texts t = {0};
    char *text = NULL;
    size_t len = 0;
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) rc = cli_exclusive(o, inputs);
    if (!rc) {
        if (cli_has(o, OPT_EMBED_JSONL))
            rc = text_read(o, OPT_EMBED_JSONL, cli_str(o, OPT_EMBED_JSONL, ""), &text, &len);
        else
            rc = text_prompt(o, OPT_FILE, &text, &len);
    }
    if (!rc) term_catch_interrupt(true);
    if (!rc) rc = session_model(o, false, &m);
    if (!rc) rc = cli_has(o, OPT_EMBED_JSONL) ? add_lines(o, m, &t, text, len) : add_text(o, m, &t, "", text, len);
    if (!rc && t.n) rc = run(o, m, &t);
    texts_free(&t);
    ffai_model_free(m);
    free(text);
    return rc;
}

static const opt_id embed_options[] = {OPT_MODEL,       OPT_CTX,     OPT_PROMPT,         OPT_FILE,
                                       OPT_EMBED_JSONL, OPT_POOLING, OPT_NORMALIZE,      CLI_MACHINE_OPTIONS,
                                       OPT_JSON,        OPT_PROFILE, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_embed = {
    .name = "embed",
    .summary = "texts to vectors",
    .usage = "-m MODEL (-p TEXT | --file FILE | --jsonl FILE) [options]",
    .text = "Prints one vector for each text, a JSON array of numbers on a line of its own: the model's hidden states "
            "after the final norm, pooled over the tokens of the text. Tokens that the checkpoint puts around a text "
            "are added. With --json a line is an object: index, tokens and embedding.\n\n"
            "How states are pooled, and whether dense layers and normalisation follow, comes from the checkpoint's "
            "sentence-transformers modules (modules.json) or a GGUF file's pooling_type; without them it is the mean "
            "as it is. --pooling and --normalize say otherwise.\n\n"
            "--jsonl reads one JSON string a line. Several texts go through the model at a time.\n\n"
            "Checkpoints without an output head (base models such as Qwen3-Embedding) are enough.",
    .examples = "embed -m models/Qwen3-Embedding-0.6B -p \"The sea was calm.\"\n"
                "embed -m models/gemma-3-270m --jsonl texts.jsonl --pooling mean --normalize > vectors.jsonl",
    .options = embed_options,
    .run = run_embed,
};
