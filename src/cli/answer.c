/* From a prompt to a streamed answer. */
#define _POSIX_C_SOURCE 200809L
#include "cli/answer.h"
#include "cli/constraint.h"
#include "cli/out.h"
#include "cli/term.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The stop strings of the command line; in a conversation with a model whose EOS does not end turns, the template's
 * mark too. */
static int collect_stops(answer_env *env) {
    const cli_value *v = &env->o->v[OPT_STOP];
    ffai_error err;
    if (env->as_chat && !cli_has(env->o, OPT_IGNORE_EOS) &&
        ffai_chat_stop(env->m, cli_str(env->o, OPT_TEMPLATE_NAME, NULL), &env->end, &err))
        return cli_fail(env->o, "%s", err.msg);
    env->stop = (const char **)calloc(v->n + 1, sizeof *env->stop);
    if (!env->stop) return cli_fail(env->o, "out of memory");
    for (size_t i = 0; i < v->n; i++) env->stop[i] = v->strs[i];
    env->stop[v->n] = env->end;
    env->request.stop = env->stop;
    env->request.n_stop = v->n + (env->end != NULL);
    return 0;
}

int answer_check(const cli_opts *o) {
    const char *given = cli_str(o, OPT_ANSWER_FORMAT, "auto"), *name = "auto";
    for (size_t i = 0; name && strcmp(name, given); i++) name = ffai_parser_format_at(i);
    if (name) return 0;
    char list[1200] = "auto";
    size_t n = strlen(list);
    for (size_t i = 0; (name = ffai_parser_format_at(i)) && n + strlen(name) + 3 < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, ", %s", name);
    return cli_usage(o, "--answer-format: \"%s\" is none of %s", given, list);
}

int answer_env_init(answer_env *env, const cli_opts *o, ffai_model *m, ffai_engine *e, bool as_chat) {
    const char *reasoning = cli_str(o, OPT_REASONING, "auto");
    *env = (answer_env){.o = o, .m = m, .e = e, .as_chat = as_chat};
    env->show_reasoning = !strcmp(reasoning, "show") || (!strcmp(reasoning, "auto") && isatty(STDOUT_FILENO));
    env->request = (ffai_request_opts){.max_new = cli_int(o, OPT_N, as_chat ? 0 : 256),
                                       .ignore_eos = cli_has(o, OPT_IGNORE_EOS),
                                       .keep_special = as_chat};
    env->request.n_logprob = cli_n_logprob(o);
    int rc = collect_stops(env);
    if (!rc) rc = cli_sampling(o, m, &env->sampling);
    env->request.sampling = env->sampling.s;
    if (!rc) rc = constraint_compile(o, m, &env->grammar);
    env->request.grammar = env->grammar;
    if (!rc) rc = cli_diffusion(o, m, e, &env->diffusion);
    env->request.diffusion = &env->diffusion.d;
    return rc;
}

void answer_env_free(answer_env *env) {
    free(env->stop);
    ffai_free(env->end);
    ffai_grammar_free(env->grammar);
    cli_sampling_free(&env->sampling);
}

/* ---- parts of an answer ---- */

/* The answer in progress: what was shown last, and what the message will hold. */
typedef struct sink {
    const answer_env *env;
    ffai_part_kind last;
    bool any; /* something was written */
    FILE *text, *reasoning, *calls;
    char *text_data, *reasoning_data, *calls_data;
    size_t text_len, reasoning_len, calls_len, n_call;
    cli_logprobs logprobs;
} sink;

static bool sink_open(sink *s, const answer_env *env) {
    memset(s, 0, sizeof *s);
    s->env = env;
    logprobs_begin(&s->logprobs, env->o, env->m);
    s->text = open_memstream(&s->text_data, &s->text_len);
    s->reasoning = open_memstream(&s->reasoning_data, &s->reasoning_len);
    s->calls = open_memstream(&s->calls_data, &s->calls_len);
    return s->text && s->reasoning && s->calls;
}

static void sink_close(sink *s) {
    logprobs_end(&s->logprobs);
    if (s->text) fclose(s->text);
    if (s->reasoning) fclose(s->reasoning);
    if (s->calls) fclose(s->calls);
    free(s->text_data);
    free(s->reasoning_data);
    free(s->calls_data);
}

/* What a model writes must not steer the terminal: control characters other than line ends and tabs are left out there.
 */
static void show(const char *s, size_t n) {
    if (!isatty(STDOUT_FILENO)) {
        fwrite(s, 1, n, stdout);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == 0xC2 && i + 1 < n && (unsigned char)s[i + 1] < 0xA0) /* U+0080..U+009F */
            i++;
        else if ((c >= 0x20 && c != 0x7F) || c == '\n' || c == '\t')
            fputc(c, stdout);
    }
}

static void write_call(FILE *to, const ffai_part *p) {
    out_json j;
    out_json_begin(&j, to, false);
    j.bare = true;
    out_json_open(&j, NULL, '{');
    if (p->id) out_json_str(&j, "id", p->id);
    out_json_str(&j, "type", "function");
    out_json_open(&j, "function", '{');
    out_json_str(&j, "name", p->name);
    out_json_raw(&j, "arguments", p->text);
    out_json_close(&j, '}');
    out_json_close(&j, '}');
}

static void take_call(sink *s, const ffai_part *p) {
    if (s->n_call++) fputs(", ", s->calls);
    write_call(s->calls, p);
    if (s->any && s->last != FFAI_PART_TOOL_CALL) putchar('\n');
    out_json j;
    out_json_begin(&j, stdout, false);
    out_json_open(&j, NULL, '{');
    out_json_open(&j, "tool_call", '{');
    if (p->id) out_json_str(&j, "id", p->id);
    out_json_str(&j, "name", p->name);
    out_json_raw(&j, "arguments", p->text);
    out_json_close(&j, '}');
    out_json_close(&j, '}');
    s->any = true;
}

static void take_part(sink *s, const ffai_part *p) {
    bool reasoning = p->kind == FFAI_PART_REASONING;
    if (p->kind == FFAI_PART_TOOL_CALL) {
        take_call(s, p);
    } else if (p->len) {
        fwrite(p->text, 1, p->len, reasoning ? s->reasoning : s->text);
        if (reasoning && !s->env->show_reasoning) return;
        if (s->any && s->last != p->kind && s->last == FFAI_PART_REASONING) fputs("\n\n", stdout);
        if (reasoning) fputs(term_sgr(stdout, TERM_DIM), stdout);
        show(p->text, p->len);
        if (reasoning) fputs(term_sgr(stdout, TERM_PLAIN), stdout);
        s->any = true;
    } else {
        return;
    }
    s->last = p->kind;
    fflush(stdout);
}

/* The message that stands for this answer in the conversation. */
static char *message(sink *s) {
    char *json = NULL;
    size_t size;
    FILE *f = open_memstream(&json, &size);
    if (!f || fflush(s->text) || fflush(s->reasoning) || fflush(s->calls)) {
        if (f) fclose(f);
        free(json);
        return NULL;
    }
    out_json j;
    out_json_begin(&j, f, false);
    j.bare = true;
    out_json_open(&j, NULL, '{');
    out_json_str(&j, "role", "assistant");
    out_json_strn(&j, "content", s->text_data, s->text_len);
    if (s->reasoning_len) out_json_strn(&j, "reasoning_content", s->reasoning_data, s->reasoning_len);
    if (s->n_call) {
        out_json_open(&j, "tool_calls", '[');
        out_json_raw(&j, NULL, s->calls_data);
        out_json_close(&j, ']');
    }
    out_json_close(&j, '}');
    if (fclose(f) == 0) return json;
    free(json);
    return NULL;
}

/* ---- running a request ---- */

static int push(const answer_env *env, ffai_parser *p, sink *s, const char *text, size_t len) {
    ffai_error err;
    ffai_part part;
    if (!p) {
        part = (ffai_part){.kind = FFAI_PART_TEXT, .text = text, .len = len};
        take_part(s, &part);
        return 0;
    }
    int rc = text ? ffai_parser_push(p, text, len, &err) : ffai_parser_finish(p, &err);
    while (!rc && ffai_parser_next(p, &part)) take_part(s, &part);
    return rc ? cli_fail(env->o, "%s", err.msg) : 0;
}

/* Takes what became final; *finish is how the request stands. */
static int drain(const answer_env *env, ffai_request *r, ffai_parser *p, sink *s, answer *a) {
    ffai_event ev;
    ffai_request_poll(r, &ev);
    if (ev.n_ids && a->t.first <= 0) a->t.first = out_now();
    a->t.n_gen += ev.n_ids;
    a->finish = ev.finish;
    if (logprobs_event(&s->logprobs, &ev)) return 0;
    return ev.text_len ? push(env, p, s, ev.text, ev.text_len) : 0;
}

/* Steps until the request ends. Ctrl-C and a closed or full standard output end it too. */
static int stream(const answer_env *env, ffai_request *r, ffai_parser *p, sink *s, answer *a) {
    ffai_error err;
    int rc = 1;
    while (rc > 0) {
        rc = ffai_engine_step(env->e, &err);
        if (rc < 0) return cli_fail(env->o, "%s", err.msg);
        if (drain(env, r, p, s, a)) return 1;
        if (a->finish == FFAI_FINISH_ERROR) return cli_fail(env->o, "%s", ffai_request_error(r)->msg);
        if (a->finish != FFAI_RUNNING) break;
        if (term_interrupted() || ferror(stdout)) {
            ffai_request_cancel(r);
            if (drain(env, r, p, s, a)) return 1;
            break;
        }
    }
    return p ? push(env, p, s, NULL, 0) : 0;
}

static int run(answer_env *env, const int32_t *ids, size_t n, ffai_parser *p, answer *a) {
    ffai_error err;
    ffai_request *r = NULL;
    ffai_request_opts ro = env->request;
    ro.ids = ids;
    ro.n_ids = n;
    a->t.n_prompt = n;
    if (ffai_submit(env->e, &ro, &r, &err)) return cli_fail(env->o, "%s", err.msg);
    a->t.loaded = out_now();
    sink s;
    int rc = sink_open(&s, env) ? stream(env, r, p, &s, a) : cli_fail(env->o, "out of memory");
    a->t.end = out_now();
    if (!rc && env->as_chat && !(a->message = message(&s))) rc = cli_fail(env->o, "out of memory");
    const int32_t *all;
    size_t n_all, n_prompt;
    ffai_request_ids(r, &all, &n_all, &n_prompt, &a->t.n_reused);
    sink_close(&s);
    ffai_request_free(r);
    return rc;
}

int answer_text(answer_env *env, const char *text, size_t len, answer *a) {
    ffai_error err;
    int32_t *ids;
    size_t n;
    if (ffai_tokenize(env->m, text, len, FFAI_TOK_SPECIAL, &ids, &n, &err)) return cli_fail(env->o, "%s", err.msg);
    int rc = n ? 0 : cli_fail(env->o, "the prompt is empty, and this model puts no token in front of a text");
    if (!rc && cli_has(env->o, OPT_ECHO)) fwrite(text, 1, len, stdout);
    if (!rc) rc = run(env, ids, n, NULL, a);
    ffai_free(ids);
    return rc;
}

int answer_prompt(answer_env *env, const dialog *d, size_t from, char **text, size_t *len, int32_t **ids, size_t *n) {
    ffai_error err;
    size_t json_len;
    char *json = dialog_json(d, from, true, &json_len);
    *text = NULL;
    *ids = NULL;
    if (!json) return cli_fail(env->o, "out of memory");
    int rc = ffai_chat_render(env->m, cli_str(env->o, OPT_TEMPLATE_NAME, NULL), json, json_len, text, len, &err);
    free(json);
    if (!rc)
        rc = ffai_tokenize(env->m, *text, *len, FFAI_TOK_PARSE_SPECIAL, ids, n,
                           &err); /* the template writes BOS itself */
    if (!rc && *n) return 0;
    ffai_free(*text);
    *text = NULL;
    return cli_fail(env->o, "%s", rc ? err.msg : "the chat template gives an empty prompt");
}

int answer_dialog(answer_env *env, const dialog *d, size_t from, answer *a) {
    ffai_error err;
    ffai_parser *p = NULL;
    char *text;
    int32_t *ids;
    size_t len, n;
    int rc = answer_prompt(env, d, from, &text, &len, &ids, &n);
    if (rc) return rc;
    /* What the grammar allows is the answer, also when it looks like a tool call. */
    ffai_parser_opts po = {.format = cli_str(env->o, OPT_ANSWER_FORMAT, env->grammar ? "none" : NULL),
                           .prompt = text,
                           .prompt_len = len,
                           .tools = d->tools};
    rc = ffai_parser_create(&p, env->m, &po, &err);
    if (rc) rc = cli_fail(env->o, "%s", err.msg);
    if (!rc && cli_has(env->o, OPT_ECHO)) fwrite(text, 1, len, stdout);
    if (!rc) rc = run(env, ids, n, p, a);
    ffai_parser_free(p);
    ffai_free(text);
    ffai_free(ids);
    return rc;
}

/* ---- reports ---- */

static void stats_json(const ffai_engine_stats *s, const ffai_engine_info *in, const answer_times *t,
                       double decode_tok_s) {
    out_json j;
    out_json_begin(&j, stderr, false);
    out_json_open(&j, NULL, '{');
    out_json_num(&j, "load_s", t->loaded - t->start);
    out_json_int(&j, "prompt_tokens", (int64_t)t->n_prompt);
    out_json_num(&j, "prefill_s", s->prefill_s);
    out_json_num(&j, "prefill_tok_s", s->prefill_s > 0 ? (double)s->prompt_tokens / s->prefill_s : 0);
    out_json_int(&j, "gen_tokens", (int64_t)t->n_gen);
    out_json_num(&j, "decode_s", s->decode_s);
    out_json_num(&j, "decode_tok_s", decode_tok_s);
    out_json_num(&j, "ttft_s", t->first > 0 ? t->first - t->start : 0);
    out_json_num(&j, "total_s", t->end - t->start);
    out_json_int(&j, "peak_rss_bytes", out_peak_rss());
    out_json_int(&j, "device_bytes", in->device_bytes);
    out_json_str(&j, "device", in->device);
    out_json_str(&j, "sampler", s->device_picks ? "device" : "host");
    if (s->host_steps) out_json_num(&j, "host_s_per_step", s->host_s / (double)s->host_steps);
    out_json_str(&j, "isa", in->isa);
    if (s->blocks) {
        out_json_int(&j, "blocks", s->blocks);
        out_json_int(&j, "block_passes", s->block_passes);
        out_json_int(&j, "block_proposed", s->block_proposed);
        out_json_int(&j, "block_accepted", s->block_accepted);
    }
    out_json_int(&j, "threads", in->n_thread);
    out_json_str(&j, "precision", in->precision);
    out_json_str(&j, "kv_cache", in->kv_cache);
    out_json_close(&j, '}');
}

static void stats_text(const ffai_engine_stats *s, const ffai_engine_info *in, const answer_times *t,
                       double decode_tok_s) {
    char rss[16], size[16], where[64];
    if (!strcmp(in->device, "cpu"))
        snprintf(where, sizeof where, "%d threads", in->n_thread);
    else
        snprintf(where, sizeof where, "%s there, sampler on the %s", out_bytes(size, (double)in->device_bytes),
                 s->device_picks ? "device" : "host");
    if (!isatty(STDOUT_FILENO)) fputc('\n', stderr); /* the text ended without a line end; both may go to one log */
    fprintf(stderr, "load     %8.3f s\n", t->loaded - t->start);
    fprintf(stderr, "prompt   %8.3f s  %6zu tokens  %9.1f tokens/s\n", s->prefill_s, t->n_prompt,
            s->prefill_s > 0 ? (double)s->prompt_tokens / s->prefill_s : 0);
    fprintf(stderr, "decode   %8.3f s  %6zu tokens  %9.1f tokens/s\n", s->decode_s, t->n_gen, decode_tok_s);
    if (s->blocks)
        fprintf(stderr, "blocks   %10lld    %6.2f passes each, %lld of %lld proposed tokens kept\n",
                (long long)s->blocks, (double)s->block_passes / (double)s->blocks, (long long)s->block_accepted,
                (long long)s->block_proposed);
    if (t->first > 0) fprintf(stderr, "start to first token %.3f s, ", t->first - t->start);
    fprintf(stderr, "peak memory %s, %s (%s), %s, %s\n", out_bytes(rss, (double)out_peak_rss()), in->device, in->isa,
            where, in->precision);
}

void answer_stats(const answer_env *env, const answer_times *t) {
    ffai_engine_stats s;
    ffai_engine_info in;
    ffai_engine_get_stats(env->e, &s);
    ffai_engine_get_info(env->e, &in);
    /* The step that ends the prompt also gives the first token: decode steps are one fewer than tokens. */
    double decode_tok_s = t->n_gen > 1 && s.decode_s > 0 ? (double)(t->n_gen - 1) / s.decode_s : 0;
    fflush(stdout);
    if (cli_str(env->o, OPT_STATS, NULL))
        stats_json(&s, &in, t, decode_tok_s);
    else
        stats_text(&s, &in, t, decode_tok_s);
}
