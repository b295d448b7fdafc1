/* ffai chat: a conversation at a terminal. Each answer goes on from the cache of the one before. */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/constraint.h"
#include "cli/diffusion.h"
#include "cli/line.h"
#include "cli/out.h"
#include "cli/sampling.h"
#include "cli/session.h"
#include "cli/term.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct chat {
    const cli_opts *o;
    ffai_model *m;
    ffai_engine *e;
    answer_env env;
    dialog d;
    size_t from;   /* first message that the model still sees, see dialog_json */
    uint64_t seed; /* of the next answer */
    double start;  /* of the program, for the first answer's stats */
    size_t n_answer;
    answer_times last;
    line_reader *lines;
    bool quit;
} chat;

typedef struct chat_command {
    const char *name, *arg, *help;
    int (*run)(chat *c, const char *arg); /* 1 after a message; the chat goes on */
} chat_command;

enum { N_COMMAND = 10 };
static const chat_command commands[N_COMMAND]; /* below; the last one has no name */

/* ---- answers ---- */

/* Leaves out the oldest turns until the prompt and a quarter of the context for the answer fit. */
static int make_room(chat *c) {
    ffai_engine_info in;
    ffai_engine_get_info(c->e, &in);
    size_t first = dialog_first(&c->d), dropped = 0;
    if (c->from < first) c->from = first;
    for (;;) {
        char *text;
        int32_t *ids;
        size_t len, n;
        int rc = answer_prompt(&c->env, &c->d, c->from, &text, &len, &ids, &n);
        if (rc) return rc;
        ffai_free(text);
        ffai_free(ids);
        size_t next = c->from + 1; /* a turn begins with a user message */
        while (next < c->d.n && c->d.msg[next].role != ROLE_USER) next++;
        if (n + (size_t)in.n_ctx / 4 < (size_t)in.n_ctx || next >= c->d.n) break;
        c->from = next;
        dropped++;
    }
    if (dropped)
        term_note("the conversation outgrew the context of %d tokens: the model no longer sees its beginning "
                  "(/reset begins anew, --ctx makes room)",
                  in.n_ctx);
    return 0;
}

/* Answers the conversation as it stands; without success the messages from `keep` on are withdrawn. */
static int reply(chat *c, size_t keep) {
    answer a = {.t = {.start = c->n_answer ? out_now() : c->start}};
    c->env.request.sampling.seed = c->seed++;
    int rc = make_room(c);
    if (!rc) rc = answer_dialog(&c->env, &c->d, c->from, &a);
    if (a.t.loaded > 0) putchar('\n');
    if (rc) {
        dialog_cut(&c->d, keep);
        free(a.message);
        return rc;
    }
    if (line_is_terminal(c->lines)) putchar('\n');
    if (term_clear_interrupt()) term_note("stopped");
    c->last = a.t;
    c->n_answer++;
    if (!dialog_add_json(&c->d, ROLE_ASSISTANT, a.message)) return cli_fail(c->o, "out of memory");
    if (cli_has(c->o, OPT_STATS)) answer_stats(&c->env, &c->last);
    return 0;
}

static int say(chat *c, const char *text) {
    size_t keep = c->d.n;
    if (!dialog_add(&c->d, ROLE_USER, text, strlen(text))) return cli_fail(c->o, "out of memory");
    return reply(c, keep);
}

/* ---- commands ---- */

static int cmd_help_run(chat *c, const char *arg) {
    (void)c, (void)arg;
    for (const chat_command *k = commands; k->name; k++) {
        char left[32];
        snprintf(left, sizeof left, "/%s %s", k->name, k->arg ? k->arg : "");
        fprintf(stderr, "  %-16s%s\n", left, k->help);
    }
    fputs("  a line that ends in \\ goes on in the next; \"\"\" begins and ends a text of several lines\n"
          "  Ctrl-C stops an answer, Ctrl-D leaves\n",
          stderr);
    return 0;
}

static int cmd_system_run(chat *c, const char *arg) {
    if (!dialog_set_system(&c->d, arg)) return cli_fail(c->o, "out of memory");
    c->from = 0;
    term_note(*arg ? "system message set" : "no system message");
    return 0;
}

static int cmd_reset_run(chat *c, const char *arg) {
    (void)arg;
    dialog_cut(&c->d, dialog_first(&c->d));
    c->from = 0;
    term_note("a new conversation");
    return 0;
}

static int cmd_save_run(chat *c, const char *arg) {
    if (!*arg) return cli_fail(c->o, "/save: a file name is missing");
    int rc = dialog_save(c->o, &c->d, arg);
    if (!rc) term_note("%zu message%s saved to %s", c->d.n, c->d.n == 1 ? "" : "s", arg);
    return rc;
}

static int cmd_load_run(chat *c, const char *arg) {
    if (!*arg) return cli_fail(c->o, "/load: a file name is missing");
    int rc = dialog_load(c->o, &c->d, arg);
    if (rc) return rc;
    c->from = 0;
    term_note("%zu message%s loaded from %s", c->d.n, c->d.n == 1 ? "" : "s", arg);
    if (c->d.n && c->d.msg[c->d.n - 1].role == ROLE_USER) return reply(c, c->d.n);
    return 0;
}

static int cmd_regen_run(chat *c, const char *arg) {
    (void)arg;
    size_t n = c->d.n;
    while (n && c->d.msg[n - 1].role != ROLE_USER) n--;
    if (!n) return cli_fail(c->o, "/regen: there is no answer yet");
    dialog_cut(&c->d, n);
    return reply(c, n);
}

static int cmd_stats_run(chat *c, const char *arg) {
    ffai_engine_info in;
    (void)arg;
    if (!c->n_answer) return cli_fail(c->o, "/stats: there is no answer yet");
    const answer_times *t = &c->last;
    ffai_engine_get_info(c->e, &in);
    double wait = t->first > t->loaded ? t->first - t->loaded : 0, decode = t->end - t->first;
    fprintf(stderr, "prompt   %6zu tokens, %zu of them from the cache, first token after %.3f s\n", t->n_prompt,
            t->n_reused, wait);
    fprintf(stderr, "answer   %6zu tokens, %.1f tokens/s\n", t->n_gen,
            t->n_gen > 1 && decode > 0 ? (double)(t->n_gen - 1) / decode : 0);
    fprintf(stderr, "context  %6zu of %d tokens\n", t->n_prompt + t->n_gen, in.n_ctx);
    return 0;
}

static int cmd_quit_run(chat *c, const char *arg) {
    (void)arg;
    c->quit = true;
    return 0;
}

static const chat_command commands[N_COMMAND] = {
    {"help", NULL, "this list", cmd_help_run},
    {"system", "TEXT", "set the system message; without TEXT remove it", cmd_system_run},
    {"reset", NULL, "begin a new conversation; the system message stays", cmd_reset_run},
    {"save", "FILE", "write the conversation as JSON, the form of --messages", cmd_save_run},
    {"load", "FILE", "go on with a saved conversation", cmd_load_run},
    {"regen", NULL, "answer the last message once more", cmd_regen_run},
    {"stats", NULL, "speed of the last answer, and how full the context is", cmd_stats_run},
    {"quit", NULL, "leave", cmd_quit_run},
    {"exit", NULL, "the same", cmd_quit_run},
    {NULL, NULL, NULL, NULL}};

/* "/name argument" */
static int command(chat *c, const char *line) {
    const char *names[N_COMMAND];
    size_t n = strcspn(line + 1, " \t"), count = 0;
    const char *arg = line + 1 + n;
    while (isspace((unsigned char)*arg)) arg++;
    for (const chat_command *k = commands; k->name; k++) {
        if (strlen(k->name) == n && !strncmp(k->name, line + 1, n)) return k->run(c, arg);
        names[count++] = k->name;
    }
    names[count] = NULL;
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)(n < 31 ? n : 31), line + 1);
    const char *near = cli_nearest(word, names);
    if (near) return cli_fail(c->o, "unknown command /%s; did you mean /%s?", word, near);
    return cli_fail(c->o, "unknown command /%s; /help lists them", word);
}

/* ---- the conversation ---- */

static bool is_blank(const char *s) {
    while (isspace((unsigned char)*s)) s++;
    return !*s;
}

/* Reads and answers until the end. Without a terminal the first failure is the program's. */
static int converse(chat *c) {
    int rc = 0;
    bool warned = false;
    while (!c->quit && !ferror(stdout) && !term_terminated()) {
        const char *text;
        line_result got = line_read(c->lines, &text);
        if (got == LINE_END) {
            if (line_is_terminal(c->lines)) putchar('\n');
            break;
        }
        if (got == LINE_INTERRUPTED) {
            if (!line_is_terminal(c->lines)) return 0;
            if (term_terminated()) break;
            putchar('\n');
            if (!warned) term_note("Ctrl-D or /quit leaves");
            warned = true;
            continue;
        }
        if (is_blank(text)) continue;
        rc = *text == '/' ? command(c, text) : say(c, text);
        fflush(stdout);
        if (rc && !line_is_terminal(c->lines)) return rc;
    }
    return line_is_terminal(c->lines) ? 0 : rc;
}

static int begin(chat *c, const char *args) {
    const cli_opts *o = c->o;
    int rc = answer_env_init(&c->env, o, c->m, c->e, true);
    if (!rc) rc = dialog_tools(o, OPT_TOOLS, &c->d.tools);
    c->d.args = args;
    if (!rc && cli_has(o, OPT_MESSAGES)) rc = dialog_load(o, &c->d, cli_str(o, OPT_MESSAGES, ""));
    if (!rc && cli_has(o, OPT_SYSTEM) && !dialog_set_system(&c->d, cli_str(o, OPT_SYSTEM, "")))
        rc = cli_fail(o, "out of memory");
    if (rc) return rc;
    const char *name, *source;
    ffai_error err;
    ffai_model_info mi;
    ffai_model_get_info(c->m, &mi);
    rc = ffai_model_template_at(c->m, 0, &name, &source, &err);
    if (rc < 0) return cli_fail(o, "%s", err.msg);
    if (rc == 0) return cli_fail(o, "%s: the checkpoint has no chat template; ffai generate continues texts", mi.path);
    char *history = isatty(STDIN_FILENO) ? line_history_path() : NULL;
    c->lines = line_open(history);
    free(history);
    if (!c->lines) return cli_fail(o, "out of memory");
    c->seed = c->env.request.sampling.seed;
    if (line_is_terminal(c->lines)) term_note("%s, %s. /help lists the commands.", mi.path, mi.format);
    return 0;
}

static int run_chat(const cli_opts *o) {
    chat c = {.o = o, .start = out_now()};
    char *args = NULL;
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) rc = cli_sampling_check(o);
    if (!rc) rc = constraint_check(o);
    if (!rc) rc = answer_check(o);
    if (!rc) rc = cli_diffusion_check(o);
    if (!rc) rc = dialog_args(o, OPT_TEMPLATE_ARG, &args);
    if (!rc) rc = session_model(o, false, &c.m);
    ffai_engine_opts eo = session_engine_opts(o);
    if (!rc) rc = session_engine(o, c.m, &eo, &c.e);
    if (!rc) term_catch_interrupt(!isatty(STDIN_FILENO));
    if (!rc) rc = begin(&c, args);
    if (!rc) rc = converse(&c);
    line_close(c.lines);
    answer_env_free(&c.env);
    dialog_free(&c.d);
    free(args);
    ffai_engine_free(c.e);
    ffai_model_free(c.m);
    return rc;
}

static const opt_id chat_options[] = {OPT_MODEL,
                                      OPT_CTX,
                                      CLI_CHAT_OPTIONS,
                                      OPT_N,
                                      OPT_STOP,
                                      OPT_IGNORE_EOS,
                                      CLI_CONSTRAINT_OPTIONS,
                                      CLI_SAMPLING_OPTIONS,
                                      CLI_DIFFUSION_OPTIONS,
                                      CLI_MACHINE_OPTIONS,
                                      OPT_STATS,
                                      CLI_REPORT_OPTIONS,
                                      OPT_END};

const cli_command cmd_chat = {
    .name = "chat",
    .summary = "talk with a model",
    .usage = "-m MODEL [options]",
    .text = "Reads messages and writes the model's answers as they are made. On a terminal lines can be edited and "
            "earlier ones come back with the arrow keys (they are kept in ~/.local/state/ffai/chat_history); a line "
            "that ends in a backslash goes on in the next, and three double quotes begin and end a text of several "
            "lines. Ctrl-C stops the answer, not the program.\n\n"
            "Commands: /system TEXT, /reset, /save FILE, /load FILE, /regen, /stats, /help, /quit.\n\n"
            "Without a terminal every line of standard input is a message or a command, and only the answers are "
            "written to standard output.\n\n"
            "When the conversation outgrows the context, its oldest turns are no longer shown to the model.",
    .examples = "chat -m models/gemma-3-270m-it --system \"You are a pirate.\"\n"
                "chat -m model.gguf --ctx 8192 --temp 0.7\n"
                "chat -m model.gguf --quiet < questions.txt > answers.txt",
    .options = chat_options,
    .run = run_chat,
};
