/* ffai template: a conversation as the text that the model is given. */
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/text_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is wrong with the input is said with its file's name; templates name themselves. */
static int failed(const cli_opts *o, const ffai_error *err) {
    static const char input[] = "the template's input";
    if (strncmp(err->msg, input, sizeof input - 1)) return cli_fail(o, "%s", err->msg);
    return cli_fail(o, "--messages %s%s", cli_str(o, OPT_CONVERSATION, ""), err->msg + sizeof input - 1);
}

static int render_file(const cli_opts *o, const char *json, size_t len, char **text, size_t *n) {
    const char *path = cli_str(o, OPT_TEMPLATE, "");
    char *source = NULL;
    size_t n_source;
    ffai_error err;
    ffai_template *t = NULL;
    int rc = text_read(o, OPT_TEMPLATE, path, &source, &n_source);
    if (rc) return rc;
    if (ffai_template_parse(&t, source, n_source, path, &err) || ffai_template_render(t, json, len, text, n, &err))
        rc = failed(o, &err);
    ffai_template_free(t);
    free(source);
    return rc;
}

static int render_model(const cli_opts *o, const char *json, size_t len, char **text, size_t *n) {
    ffai_model *m;
    ffai_error err;
    int rc = session_model(o, true, &m);
    if (rc) return rc;
    if (ffai_chat_render(m, cli_str(o, OPT_TEMPLATE_NAME, NULL), json, len, text, n, &err)) rc = failed(o, &err);
    ffai_model_free(m);
    return rc;
}

static int run_template(const cli_opts *o) {
    char *json = NULL, *text = NULL;
    size_t len, n;
    if (!cli_has(o, OPT_MODEL) && !cli_has(o, OPT_TEMPLATE))
        return cli_usage(o, "-m MODEL or --template FILE is missing");
    if (cli_has(o, OPT_TEMPLATE_NAME) && !cli_has(o, OPT_MODEL)) return cli_usage(o, "--template-name needs -m MODEL");
    int rc = cli_require(o, OPT_CONVERSATION);
    if (!rc) rc = text_read(o, OPT_CONVERSATION, cli_str(o, OPT_CONVERSATION, ""), &json, &len);
    if (!rc) rc = cli_has(o, OPT_MODEL) ? render_model(o, json, len, &text, &n) : render_file(o, json, len, &text, &n);
    if (!rc) {
        fwrite(text, 1, n, stdout); /* exactly the text; a person gets a line end too */
        if (isatty(STDOUT_FILENO)) putchar('\n');
    }
    ffai_free(text);
    free(json);
    return rc;
}

static const opt_id template_options[] = {OPT_MODEL,         OPT_TEMPLATE,       OPT_CONVERSATION,
                                          OPT_TEMPLATE_NAME, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_template = {
    .name = "template",
    .summary = "a conversation as the text that the model is given",
    .usage = "(-m MODEL | --template FILE) --messages FILE",
    .text = "Renders a chat template as transformers' apply_chat_template does, byte for byte, and prints the text and "
            "nothing else.\n\n"
            "The messages file is a JSON object: \"messages\", and if wanted \"tools\", \"documents\", "
            "\"add_generation_prompt\", \"continue_final_message\"; every other member is a variable of the template. "
            "With -m the special tokens of the checkpoint (bos_token, ...) are variables too, also for the template of "
            "--template.\n\n"
            "A model may have several templates: tool_use is taken when there are tools, else default; "
            "--template-name says which one.",
    .examples = "template -m models/qwen3-0.6b --messages chat.json\n"
                "template --template chat_template.jinja --messages - < chat.json",
    .options = template_options,
    .run = run_template,
};
