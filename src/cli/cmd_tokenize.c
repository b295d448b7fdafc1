/* ffai tokenize: text to token ids and back. */
#include "cli/commands.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/text_in.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned tok_flags(const cli_opts *o) {
    return (cli_has(o, OPT_SPECIAL) ? (unsigned)FFAI_TOK_SPECIAL : 0u) |
           (cli_has(o, OPT_NO_PARSE_SPECIAL) ? (unsigned)FFAI_TOK_NO_PARSE_SPECIAL : 0u);
}

/* where: "" or "FILE:LINE: " */
static int print_ids(const cli_opts *o, ffai_model *m, const char *where, const char *text, size_t len) {
    ffai_error err;
    int32_t *ids;
    size_t n;
    if (ffai_tokenize(m, text, len, tok_flags(o), &ids, &n, &err)) return cli_fail(o, "%s%s", where, err.msg);
    putchar('[');
    for (size_t i = 0; i < n; i++) printf(i ? ", %d" : "%d", (int)ids[i]);
    puts("]");
    ffai_free(ids);
    return 0;
}

static int print_text(const cli_opts *o, ffai_model *m, const char *where, const char *list, size_t len, bool as_json) {
    ffai_error err;
    int32_t *ids;
    size_t n, text_len;
    char *text, what[700];
    snprintf(what, sizeof what, "%s--decode", where);
    int rc = text_ids_parse(o, what, list, len, &ids, &n);
    if (rc) return rc;
    rc = ffai_detokenize(m, ids, n, false, &text, &text_len, &err);
    free(ids);
    if (rc) return cli_fail(o, "%s%s", where, err.msg);
    if (as_json) {
        out_json j;
        out_json_begin(&j, stdout, false);
        out_json_strn(&j, NULL, text, text_len);
        putchar('\n');
    } else {
        fwrite(text, 1, text_len, stdout); /* exactly the text; a person gets a line end too */
        if (isatty(STDOUT_FILENO)) putchar('\n');
    }
    ffai_free(text);
    return 0;
}

/* at: "FILE:LINE" */
static int run_line(const cli_opts *o, ffai_model *m, const char *at, const char *line, size_t len) {
    char where[610];
    ffai_error err;
    fa_json *j;
    size_t n;
    snprintf(where, sizeof where, "%s: ", at);
    if (cli_has(o, OPT_DECODE)) return print_text(o, m, where, line, len, true);
    if (fa_json_parse(&j, line, len, at, &err)) return cli_fail(o, "%s", err.msg);
    const char *text = fa_jstr(fa_json_root(j), &n);
    int rc = text ? print_ids(o, m, where, text, n) : cli_fail(o, "%snot a JSON string", where);
    fa_json_free(j);
    return rc;
}

/* Empty lines are skipped, a line end at the end of the file is no line. */
static int run_jsonl(const cli_opts *o, ffai_model *m, const char *text, size_t len) {
    const char *path = cli_str(o, OPT_JSONL, "");
    int rc = 0;
    size_t line = 1;
    for (const char *p = text, *end = text + len; p < end && rc == 0; line++) {
        const char *stop = (const char *)memchr(p, '\n', (size_t)(end - p));
        char at[600];
        if (!stop) stop = end;
        size_t n = (size_t)(stop - p);
        if (n && p[n - 1] == '\r') n--;
        snprintf(at, sizeof at, "%s:%zu", path, line);
        if (n) rc = run_line(o, m, at, p, n);
        p = stop + 1;
    }
    return rc;
}

static int run_tokenize(const cli_opts *o) {
    static const opt_id inputs[] = {OPT_PROMPT, OPT_FILE, OPT_JSONL, OPT_END};
    ffai_model *m = NULL;
    char *text = NULL;
    size_t len = 0;
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) rc = cli_exclusive(o, inputs);
    if (!rc) {
        if (cli_has(o, OPT_JSONL))
            rc = text_read(o, OPT_JSONL, cli_str(o, OPT_JSONL, ""), &text, &len);
        else
            rc = text_prompt(o, OPT_FILE, &text, &len);
    }
    if (!rc) rc = session_model(o, true, &m);
    if (!rc) {
        if (cli_has(o, OPT_JSONL))
            rc = run_jsonl(o, m, text, len);
        else if (cli_has(o, OPT_DECODE))
            rc = print_text(o, m, "", text, len, false);
        else
            rc = print_ids(o, m, "", text, len);
    }
    ffai_model_free(m);
    free(text);
    return rc;
}

static const opt_id tokenize_options[] = {OPT_MODEL,   OPT_PROMPT, OPT_FILE,           OPT_JSONL, OPT_NO_PARSE_SPECIAL,
                                          OPT_SPECIAL, OPT_DECODE, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids and back",
    .usage = "-m MODEL (-p TEXT | --file FILE | --jsonl FILE) [options]",
    .text = "Prints the token ids of a text as a JSON array. With --decode the input is ids (any text with numbers "
            "between commas or spaces) and the "
            "output is exactly the text that they stand for.\n\n"
            "--jsonl reads one JSON string a line and prints one JSON array a line; with --decode it reads arrays and "
            "prints strings.\n\n"
            "The names of special tokens in the text become those tokens, as in the original implementation; "
            "--no-parse-special turns that off.",
    .examples = "tokenize -m models/gemma-3-270m -p \"Hello, world\" --special\ntokenize -m model.gguf --decode -p "
                "9259,236764,1902",
    .options = tokenize_options,
    .run = run_tokenize,
};
