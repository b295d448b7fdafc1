/* ffai generate: continues a text and streams the continuation. */
#include "cli/commands.h"
#include "cli/out.h"
#include "cli/sampling.h"
#include "cli/session.h"
#include "cli/term.h"
#include "cli/text_in.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What --stats reports, in seconds since the program began. */
typedef struct gen_times {
    double start, loaded, first, end;
    size_t n_prompt, n_gen;
} gen_times;

static void stats_json(const ffai_engine_stats *s, const ffai_engine_info *in, const ffai_model_info *mi,
                       const gen_times *t, double decode_tok_s) {
    out_json j;
    out_json_begin(&j, stderr, false);
    out_json_open(&j, NULL, '{');
    out_json_num(&j, "load_s", t->loaded - t->start);
    out_json_int(&j, "prompt_tokens", (int64_t)t->n_prompt);
    out_json_num(&j, "prefill_s", s->prefill_s);
    out_json_num(&j, "prefill_tok_s", s->prefill_s > 0 ? (double)t->n_prompt / s->prefill_s : 0);
    out_json_int(&j, "gen_tokens", (int64_t)t->n_gen);
    out_json_num(&j, "decode_s", s->decode_s);
    out_json_num(&j, "decode_tok_s", decode_tok_s);
    out_json_num(&j, "ttft_s", t->first > 0 ? t->first - t->start : 0);
    out_json_num(&j, "total_s", t->end - t->start);
    out_json_int(&j, "peak_rss_bytes", out_peak_rss());
    out_json_int(&j, "device_bytes", mi->weight_bytes + in->cache_bytes + in->arena_bytes);
    out_json_str(&j, "device", in->device);
    out_json_str(&j, "isa", in->isa);
    out_json_int(&j, "threads", in->n_thread);
    out_json_str(&j, "precision", in->precision);
    out_json_str(&j, "kv_cache", in->kv_cache);
    out_json_close(&j, '}');
}

static void stats_text(const ffai_engine_stats *s, const ffai_engine_info *in, const gen_times *t,
                       double decode_tok_s) {
    char rss[16];
    if (!isatty(STDOUT_FILENO)) fputc('\n', stderr); /* the text ended without a line end; both may go to one log */
    fprintf(stderr, "load     %8.3f s\n", t->loaded - t->start);
    fprintf(stderr, "prompt   %8.3f s  %6zu tokens  %9.1f tokens/s\n", s->prefill_s, t->n_prompt,
            s->prefill_s > 0 ? (double)t->n_prompt / s->prefill_s : 0);
    fprintf(stderr, "decode   %8.3f s  %6zu tokens  %9.1f tokens/s\n", s->decode_s, t->n_gen, decode_tok_s);
    if (t->first > 0) fprintf(stderr, "start to first token %.3f s, ", t->first - t->start);
    fprintf(stderr, "peak memory %s, %s (%s), %d threads, %s\n", out_bytes(rss, (double)out_peak_rss()), in->device,
            in->isa, in->n_thread, in->precision);
}

static void print_stats(const cli_opts *o, const ffai_engine *e, const ffai_model *m, const gen_times *t) {
    if (!cli_has(o, OPT_STATS)) return;
    ffai_engine_stats s;
    ffai_engine_info in;
    ffai_model_info mi;
    ffai_engine_get_stats(e, &s);
    ffai_engine_get_info(e, &in);
    ffai_model_get_info(m, &mi);
    /* The step that ends the prompt also gives the first token: decode steps are one fewer than tokens. */
    double decode_tok_s = t->n_gen > 1 && s.decode_s > 0 ? (double)(t->n_gen - 1) / s.decode_s : 0;
    fflush(stdout);
    if (cli_str(o, OPT_STATS, NULL))
        stats_json(&s, &in, &mi, t, decode_tok_s);
    else
        stats_text(&s, &in, t, decode_tok_s);
}

/* Writes what became final; returns how the request stands. */
static ffai_finish drain(ffai_request *r, gen_times *t, cli_logprobs *lp) {
    ffai_event ev;
    ffai_request_poll(r, &ev);
    if (ev.n_ids && t->first <= 0) t->first = out_now();
    t->n_gen += ev.n_ids;
    if (!logprobs_event(lp, &ev) && ev.text_len) {
        fwrite(ev.text, 1, ev.text_len, stdout);
        fflush(stdout);
    }
    return ev.finish;
}

/* Steps until the request ends. A closed or full standard output ends it too. */
static int stream(const cli_opts *o, ffai_engine *e, ffai_request *r, gen_times *t, cli_logprobs *lp) {
    ffai_error err;
    int rc = 1;
    while (rc > 0) {
        rc = ffai_engine_step(e, &err);
        if (rc < 0) return cli_fail(o, "%s", err.msg);
        ffai_finish f = drain(r, t, lp);
        if (f == FFAI_FINISH_ERROR) return cli_fail(o, "%s", ffai_request_error(r)->msg);
        if (f != FFAI_RUNNING) return 0;
        if (term_interrupted() || ferror(stdout)) {
            ffai_request_cancel(r);
            drain(r, t, lp);
            return 0;
        }
    }
    return 0;
}

static int generate(const cli_opts *o, ffai_model *m, ffai_engine *e, const char *text, size_t len, gen_times *t) {
    ffai_error err;
    int32_t *ids = NULL;
    if (ffai_tokenize(m, text, len, FFAI_TOK_SPECIAL, &ids, &t->n_prompt, &err)) return cli_fail(o, "%s", err.msg);
    if (!t->n_prompt) {
        ffai_free(ids);
        return cli_fail(o, "the prompt is empty, and this model puts no token in front of a text");
    }
    const cli_value *stop = &o->v[OPT_STOP];
    cli_sampling sampling;
    cli_logprobs lp;
    int rc = sampling_from_flags(o, m, &sampling);
    if (rc) {
        ffai_free(ids);
        return rc;
    }
    ffai_request_opts ro = {.ids = ids,
                            .n_ids = t->n_prompt,
                            .max_new = cli_int(o, OPT_N, 256),
                            .sampling = sampling.s,
                            .n_logprob = sampling_n_logprob(o),
                            .stop = stop->strs,
                            .n_stop = stop->n,
                            .ignore_eos = cli_has(o, OPT_IGNORE_EOS)};
    ffai_request *r = NULL;
    rc = ffai_submit(e, &ro, &r, &err);
    ffai_free(ids);
    sampling_free(&sampling);
    if (rc) return cli_fail(o, "%s", err.msg);
    t->loaded = out_now();
    logprobs_begin(&lp, o, m);
    if (cli_has(o, OPT_ECHO) && !lp.json) fwrite(text, 1, len, stdout);
    rc = stream(o, e, r, t, &lp);
    t->end = out_now();
    ffai_request_free(r);
    if (isatty(STDOUT_FILENO) && !lp.json) fputc('\n', stdout); /* a file or a pipe gets exactly the text */
    logprobs_end(&lp);
    session_profile(o, e);
    if (rc == 0) print_stats(o, e, m, t); /* last: its JSON is the last line of stderr */
    return rc;
}

static int run_generate(const cli_opts *o) {
    static const opt_id modes[] = {OPT_RAW, OPT_CHAT, OPT_END};
    gen_times t = {.start = out_now()};
    ffai_model *m = NULL;
    ffai_engine *e = NULL;
    char *text = NULL;
    size_t len = 0;
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) rc = cli_exclusive(o, modes);
    if (!rc) rc = sampling_check_flags(o);
    if (!rc && cli_has(o, OPT_CHAT))
        rc = cli_fail(o,
                      "--chat: chat templates are not supported yet; without it the prompt goes to the model as it is");
    if (!rc) rc = text_prompt(o, OPT_PROMPT_FILE, &text, &len);
    if (!rc) term_catch_interrupt();
    if (!rc) rc = session_model(o, false, &m);
    ffai_engine_opts eo = session_engine_opts(o);
    if (!rc) rc = session_engine(o, m, &eo, &e);
    if (!rc) rc = generate(o, m, e, text, len, &t);
    ffai_engine_free(e);
    ffai_model_free(m);
    free(text);
    return rc;
}

static const opt_id generate_options[] = {OPT_MODEL,
                                          OPT_CTX,
                                          OPT_PROMPT,
                                          OPT_PROMPT_FILE,
                                          OPT_RAW,
                                          OPT_CHAT,
                                          OPT_N,
                                          OPT_STOP,
                                          OPT_IGNORE_EOS,
                                          OPT_ECHO,
                                          OPT_LOGPROBS,
                                          OPT_JSON,
                                          CLI_SAMPLING_OPTIONS,
                                          CLI_MACHINE_OPTIONS,
                                          OPT_STATS,
                                          OPT_PROFILE,
                                          CLI_REPORT_OPTIONS,
                                          OPT_END};

const cli_command cmd_generate = {
    .name = "generate",
    .summary = "continue a text",
    .usage = "-m MODEL (-p TEXT | --prompt-file FILE) [options]",
    .text = "Gives the text to the model and writes the continuation to standard output as it is made, never a part of "
            "a character. Tokens "
            "that the checkpoint puts in front of a text are added.\n\n"
            "Sampling values that are not given come from the checkpoint's generation_config.json; without one the "
            "likeliest token is taken. "
            "Samplers work in the order that --samplers names; what is off there or has no value does nothing.\n\n"
            "Ctrl-C ends the text cleanly: what was made so far stands, --stats is still printed and the exit status "
            "is 0. A second Ctrl-C "
            "kills the program.",
    .examples = "generate -m models/gemma-3-270m -p \"The sea was\" -n 40 --greedy\n"
                "generate -m model.gguf --prompt-file story.txt --temp 0.8 --top-p 0.95 --seed 7\n"
                "generate -m model.gguf -p - --stats=json < prompt.txt 2> stats.json",
    .options = generate_options,
    .run = run_generate,
};
