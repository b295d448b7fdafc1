/* ffai generate: continues a text, or answers a message, and streams what the model writes. */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/constraint.h"
#include "cli/diffusion.h"
#include "cli/out.h"
#include "cli/sampling.h"
#include "cli/session.h"
#include "cli/term.h"
#include "cli/text_in.h"

#include <stdlib.h>
#include <unistd.h>

/* Options that only mean something with a chat template. */
static const opt_id chat_only[] = {OPT_SYSTEM,        OPT_MESSAGES,     OPT_TOOLS, OPT_TEMPLATE,
                                   OPT_TEMPLATE_NAME, OPT_TEMPLATE_ARG, OPT_END};

/* --chat, --raw, an option that says so, or what the checkpoint was made for. */
static int choose_mode(const cli_opts *o, ffai_model *m, bool *as_chat) {
    const opt_id *id = chat_only;
    while (*id != OPT_END && !cli_has(o, *id)) id++;
    if (*id != OPT_END && cli_has(o, OPT_RAW))
        return cli_usage(o, "--%s means nothing with --raw", cli_options[*id].name);
    *as_chat = cli_has(o, OPT_CHAT) || *id != OPT_END || (!cli_has(o, OPT_RAW) && ffai_model_is_chat(m));
    return 0;
}

/* The conversation that the command line describes; the prompt is its last message. */
static int first_dialog(const cli_opts *o, dialog *d, const char *text, size_t len, char **args) {
    int rc = dialog_tools(o, OPT_TOOLS, &d->tools);
    if (!rc) rc = dialog_args(o, OPT_TEMPLATE_ARG, args);
    d->args = *args;
    if (!rc && cli_has(o, OPT_MESSAGES)) rc = dialog_load(o, d, cli_str(o, OPT_MESSAGES, ""));
    bool ok = true;
    if (!rc && cli_has(o, OPT_SYSTEM)) ok = dialog_set_system(d, cli_str(o, OPT_SYSTEM, ""));
    if (!rc && ok && text) ok = dialog_add(d, ROLE_USER, text, len);
    return ok ? rc : cli_fail(o, "out of memory");
}

static int generate(const cli_opts *o, ffai_model *m, ffai_engine *e, bool as_chat, const char *text, size_t len,
                    answer *a) {
    answer_env env = {0};
    dialog d = {0};
    char *args = NULL;
    int rc = answer_env_init(&env, o, m, e, as_chat);
    if (!rc && as_chat) rc = first_dialog(o, &d, text, len, &args);
    if (!rc) rc = as_chat ? answer_dialog(&env, &d, 0, a) : answer_text(&env, text, len, a);
    answer_env_free(&env);
    dialog_free(&d);
    free(args);
    free(a->message);
    if (a->t.loaded <= 0) return rc;                /* nothing ran */
    if (isatty(STDOUT_FILENO)) fputc('\n', stdout); /* a file or a pipe gets exactly the text */
    session_profile(o, e, NULL);
    if (rc == 0 && cli_has(o, OPT_STATS)) answer_stats(&env, &a->t);
    return rc;
}

static int run_generate(const cli_opts *o) {
    static const opt_id modes[] = {OPT_RAW, OPT_CHAT, OPT_END};
    answer a = {.t = {.start = out_now()}};
    ffai_model *m = NULL;
    ffai_engine *e = NULL;
    char *text = NULL;
    size_t len = 0;
    bool as_chat = false;
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) rc = cli_sampling_check(o);
    if (!rc) rc = constraint_check(o);
    if (!rc) rc = answer_check(o);
    if (!rc) rc = cli_diffusion_check(o);
    if (!rc) rc = cli_exclusive(o, modes);
    bool prompted = cli_has(o, OPT_PROMPT) || cli_has(o, OPT_PROMPT_FILE) || !cli_has(o, OPT_MESSAGES);
    if (!rc && prompted) rc = text_prompt(o, OPT_PROMPT_FILE, &text, &len);
    if (!rc) term_catch_interrupt(true);
    if (!rc) rc = session_model(o, false, &m);
    if (!rc) rc = choose_mode(o, m, &as_chat);
    ffai_engine_opts eo = session_engine_opts(o);
    if (!rc) rc = session_engine(o, m, &eo, &e);
    if (!rc) rc = generate(o, m, e, as_chat, text, len, &a);
    ffai_engine_free(e);
    ffai_model_free(m);
    free(text);
    return rc;
}

static const opt_id generate_options[] = {OPT_MODEL,
                                          OPT_CTX,
                                          OPT_PROMPT,
                                          OPT_PROMPT_FILE,
                                          OPT_CHAT,
                                          OPT_RAW,
                                          CLI_CHAT_OPTIONS,
                                          OPT_N,
                                          OPT_STOP,
                                          OPT_IGNORE_EOS,
                                          OPT_ECHO,
                                          OPT_LOGPROBS,
                                          OPT_JSON,
                                          CLI_CONSTRAINT_OPTIONS,
                                          CLI_SAMPLING_OPTIONS,
                                          CLI_DIFFUSION_OPTIONS,
                                          CLI_MACHINE_OPTIONS,
                                          OPT_STATS,
                                          OPT_PROFILE,
                                          CLI_REPORT_OPTIONS,
                                          OPT_END};

const cli_command cmd_generate = {
    .name = "generate",
    .summary = "continue a text or answer a message",
    .usage = "-m MODEL (-p TEXT | --prompt-file FILE | --messages FILE) [options]",
    .text =
        "Gives the text to the model and writes what the model makes of it to standard output as it is made, never "
        "a part of a character.\n\n"
        "With --chat the text is a user's message: it goes through the checkpoint's chat template, and the answer "
        "comes without the model's marks. Reasoning is shown on a terminal and left out of files and pipes "
        "(--reasoning), a tool call is one line of JSON. With --raw the model continues the text as it is; tokens "
        "that the checkpoint puts in front of a text are added. Without either, checkpoints whose chat template "
        "ends turns with a token that ends generation (instruction-tuned ones) chat, all others continue.\n\n"
        "Sampling values that are not given come from the checkpoint's generation_config.json; without one the "
        "likeliest token is taken. Samplers work in the order of --samplers; one that is not named there, or has no "
        "value, does nothing.\n\n"
        "Ctrl-C ends the text cleanly: what was made so far stands, --stats is still printed and the exit status "
        "is 0. A second Ctrl-C "
        "kills the program.",
    .examples = "generate -m models/gemma-3-270m-it -p \"Why is the sea salt?\" --system \"Answer in one sentence.\"\n"
                "generate -m models/gemma-3-270m --raw -p \"The sea was\" -n 40 --greedy\n"
                "generate -m model.gguf --prompt-file story.txt --temp 0.8 --top-p 0.95 --seed 7\n"
                "generate -m model.gguf -p - --stats=json < prompt.txt 2> stats.json",
    .options = generate_options,
    .run = run_generate,
};
