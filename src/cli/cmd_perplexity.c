/* ffai perplexity: how well a model foresees a text, and how far it is from another model or precision on it. */
#define _POSIX_C_SOURCE 200809L
#include "cli/commands.h"
#include "cli/divergence.h"
#include "cli/hub.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/term.h"
#include "cli/text_in.h"
#include "io/npy.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A text in windows: each is fed from an empty cache, behind the token that begins texts if there is one, and the
 * tokens that no window before has scored are scored. */
typedef struct text {
    int32_t *ids; /* [n] */
    size_t n, bytes;
    int32_t bos;        /* -1: none */
    size_t len, stride; /* tokens of the text in a window; from one to the next */
    size_t n_window, n_scored;
} text;

typedef struct window {
    size_t from, to, first; /* tokens [from, to) are fed, [first, to) scored */
} window;

static window window_at(const text *t, size_t i) {
    window w = {.from = i * t->stride, .to = i * t->stride + t->len};
    if (w.to > t->n) w.to = t->n;
    w.first = i ? (i - 1) * t->stride + t->len : t->bos < 0;
    return w;
}

/* What logits of a window are compared with: rows of log-probabilities [scored, vocab]. */
typedef struct base {
    ffai_model *m; /* NULL: the same model, or saved logits */
    ffai_engine *e;
    fa_npy saved;
    void *map;
    size_t map_bytes, row; /* the next saved row */
    float *rows;
    size_t n_row;
    nll_sum nll;
} base;

typedef struct work {
    const cli_opts *o;
    const text *t;
    window w;
    int64_t vocab;
    float *x; /* a row */
    base *b;
    bool for_base; /* rows go to b->rows */
    nll_sum nll;
    kl_values kl;
    fa_npy_writer *save;
    bool failed;
    ffai_error err;
} work;

/* Row r of a window's logits foretells token r + 1 of what was fed, BOS first. */
static void take_row(void *user, int64_t row, const float *logits, int64_t vocab) {
    work *k = (work *)user;
    const size_t at = k->w.from + (size_t)row + (k->t->bos < 0); /* of the text */
    if (k->failed || at < k->w.first || at >= k->w.to) return;
    float *x = k->for_base ? k->b->rows + k->b->n_row++ * (size_t)vocab : k->x;
    memcpy(x, logits, (size_t)vocab * sizeof *x);
    if (!k->for_base && k->save && fa_npy_put(k->save, logits, vocab, &k->err)) {
        k->failed = true;
        k->save = NULL;
        return;
    }
    const double nll = div_log_softmax(x, vocab, k->t->ids[at]);
    div_nll_add(k->for_base ? &k->b->nll : &k->nll, nll);
    if (k->for_base || !k->b) return;
    const float *other = k->b->rows + (at - k->w.first) * (size_t)vocab;
    if (!div_kl_add(&k->kl, other, x, vocab, k->t->ids[at])) {
        k->failed = true;
        snprintf(k->err.msg, sizeof k->err.msg, "out of memory");
    }
}

static int feed(work *k, ffai_engine *e) {
    const size_t lead = k->t->bos >= 0, n = k->w.to - k->w.from + lead;
    int32_t *ids = (int32_t *)malloc(n * sizeof *ids);
    if (!ids) return cli_fail(k->o, "out of memory");
    if (lead) ids[0] = k->t->bos;
    memcpy(ids + lead, k->t->ids + k->w.from, (n - lead) * sizeof *ids);
    /* the last token foretells nothing that is known */
    const ffai_eval_opts eo = {.ids = ids, .n_ids = n - 1, .logits = take_row, .user = k};
    int rc = 0;
    if (n > 1 && ffai_eval(e, &eo, &k->err)) k->failed = true;
    if (k->failed) rc = cli_fail(k->o, "%s", k->err.msg);
    free(ids);
    return rc;
}

/* The base's rows of this window. */
static int base_rows(work *k, ffai_engine *e) {
    base *b = k->b;
    b->n_row = 0;
    if (b->e || !b->map) {
        k->for_base = true;
        int rc = feed(k, b->e ? b->e : e);
        k->for_base = false;
        return rc;
    }
    for (size_t at = k->w.first; at < k->w.to; at++, b->row++) {
        float *x = b->rows + b->n_row++ * (size_t)k->vocab;
        memcpy(x, b->saved.data + b->row * (size_t)k->vocab * sizeof *x, (size_t)k->vocab * sizeof *x);
        div_nll_add(&b->nll, div_log_softmax(x, k->vocab, k->t->ids[at]));
    }
    return 0;
}

static int run_windows(work *k, ffai_engine *e) {
    const double begun = out_now();
    int rc = 0;
    for (size_t i = 0; !rc && i < k->t->n_window; i++) {
        k->w = window_at(k->t, i);
        if (term_interrupted()) return cli_fail(k->o, "interrupted");
        if (k->b) rc = base_rows(k, e);
        if (!rc) rc = feed(k, e);
        if (!rc)
            term_detail("window %zu of %zu: perplexity %.4f, %.0f s", i + 1, k->t->n_window, div_perplexity(&k->nll),
                        out_now() - begun);
    }
    return rc;
}

/* ---- the text ---- */

/* Tokens of the file without what the checkpoint puts around a text, and the token that it puts in front. */
static int read_text(const cli_opts *o, ffai_model *m, text *t) {
    char *raw = NULL;
    ffai_error err;
    int32_t *around = NULL;
    size_t n_around = 0;
    int rc = text_prompt(o, OPT_FILE, &raw, &t->bytes);
    if (!rc && ffai_tokenize(m, raw, t->bytes, 0, &t->ids, &t->n, &err)) rc = cli_fail(o, "%s", err.msg);
    if (!rc && ffai_tokenize(m, "a", 1, FFAI_TOK_SPECIAL, &around, &n_around, &err)) rc = cli_fail(o, "%s", err.msg);
    t->bos = -1;
    if (!rc && n_around > 1) {
        int32_t *bare;
        size_t n_bare = 0;
        if (ffai_tokenize(m, "a", 1, 0, &bare, &n_bare, &err)) rc = cli_fail(o, "%s", err.msg);
        if (!rc && n_bare && around[0] != bare[0]) t->bos = around[0];
        if (!rc) ffai_free(bare);
    }
    if (!rc && t->n < 2)
        rc = cli_fail(o, "the text has %zu token%s; there is nothing to foretell", t->n, t->n == 1 ? "" : "s");
    ffai_free(around);
    free(raw);
    return rc;
}

static int cut(const cli_opts *o, text *t, int n_ctx) {
    t->len = (size_t)n_ctx - (t->bos >= 0);
    if (n_ctx < 2 + (t->bos >= 0)) return cli_usage(o, "--ctx %d leaves no room for a text", n_ctx);
    t->stride = (size_t)cli_int(o, OPT_STRIDE, (int64_t)(t->len + 1) / 2);
    if (t->stride > t->len) return cli_usage(o, "--stride %zu is more than a window's %zu tokens", t->stride, t->len);
    t->n_window = t->n <= t->len ? 1 : (t->n - t->len + t->stride - 1) / t->stride + 1;
    const size_t limit = (size_t)cli_int(o, OPT_WINDOWS, INT64_MAX);
    if (t->n_window > limit) t->n_window = limit;
    t->n_scored = window_at(t, t->n_window - 1).to - (t->bos < 0);
    return 0;
}

/* ---- what it is compared with ---- */

static int open_saved(const cli_opts *o, const char *path, int64_t vocab, const text *t, base *b) {
    ffai_error err;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size < 16) {
        if (fd >= 0) close(fd);
        return cli_fail(o, "%s: cannot be read", path);
    }
    b->map_bytes = (size_t)st.st_size;
    b->map = mmap(NULL, b->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (b->map == MAP_FAILED) {
        b->map = NULL;
        return cli_fail(o, "%s: cannot be mapped", path);
    }
    if (fa_npy_parse(&b->saved, (const uint8_t *)b->map, b->map_bytes, path, &err)) return cli_fail(o, "%s", err.msg);
    if (b->saved.dtype != FA_F32 || b->saved.n_dim != 2 || b->saved.dim[0] != (int64_t)t->n_scored ||
        b->saved.dim[1] != vocab)
        return cli_fail(o, "%s: logits [%lld, %lld], but this text and model make [%zu, %lld]", path,
                        (long long)b->saved.dim[0], (long long)(b->saved.n_dim > 1 ? b->saved.dim[1] : 1), t->n_scored,
                        (long long)vocab);
    return 0;
}

static bool ends_in(const char *s, const char *suffix) {
    const size_t a = strlen(s), z = strlen(suffix);
    return a > z && !strcmp(s + a - z, suffix);
}

/* --kld: "exact" or "fast" (the same model in that precision), a .npy of --save-logits, or another model. */
static int open_base(const cli_opts *o, ffai_model *m, const ffai_engine_opts *eo, const text *t, base *b) {
    const char *what = cli_str(o, OPT_KLD, "");
    ffai_engine_opts other = *eo;
    ffai_error err;
    ffai_model_info mine, its;
    ffai_model_get_info(m, &mine);
    if (ends_in(what, ".npy")) return open_saved(o, what, mine.vocab, t, b);
    const bool precision = !strcmp(what, "exact") || !strcmp(what, "fast");
    other.precision = precision ? what : cli_str(o, OPT_KLD_PRECISION, eo->precision);
    if (precision) other.kv_cache = NULL; /* that of the precision: what another costs is part of the answer */
    if (!precision) {
        char *path = NULL;
        int rc = hub_path(o, what, false, &path);
        if (!rc && ffai_model_open(&b->m, path, NULL, &err)) rc = cli_fail(o, "%s", err.msg);
        free(path);
        if (rc) return rc;
        ffai_model_get_info(b->m, &its);
        if (its.vocab != mine.vocab)
            return cli_fail(o, "%s has a vocabulary of %lld tokens, %s of %lld", its.path, (long long)its.vocab,
                            mine.path, (long long)mine.vocab);
    }
    if (ffai_engine_create(&b->e, b->m ? b->m : m, &other, &err)) return cli_fail(o, "%s", err.msg);
    return 0;
}

static void base_close(base *b) {
    ffai_engine_free(b->e);
    ffai_model_free(b->m);
    if (b->map) munmap(b->map, b->map_bytes);
    free(b->rows);
}

/* ---- reports ---- */

static void report_json(const work *k, kl_summary s, double seconds) {
    out_json j;
    out_json_begin(&j, stdout, true);
    out_json_open(&j, NULL, '{');
    out_json_num(&j, "perplexity", div_perplexity(&k->nll));
    out_json_num(&j, "perplexity_error", div_perplexity_error(&k->nll));
    out_json_num(&j, "nll", k->nll.sum / (double)k->nll.n);
    out_json_int(&j, "tokens", k->nll.n);
    out_json_int(&j, "windows", (int64_t)k->t->n_window);
    out_json_int(&j, "window", (int64_t)k->t->len);
    out_json_int(&j, "stride", (int64_t)k->t->stride);
    if (k->b) {
        out_json_num(&j, "base_perplexity", div_perplexity(&k->b->nll));
        out_json_open(&j, "kld", '{');
        out_json_num(&j, "mean", s.mean);
        out_json_num(&j, "mean_error", s.error);
        out_json_num(&j, "median", s.median);
        out_json_num(&j, "p90", s.p90);
        out_json_num(&j, "p95", s.p95);
        out_json_num(&j, "p99", s.p99);
        out_json_num(&j, "p99.9", s.p999);
        out_json_num(&j, "max", s.max);
        out_json_close(&j, '}');
        out_json_num(&j, "top1_agreement", s.same_top);
        out_json_num(&j, "rms_probability_change", s.rms_moved);
    }
    out_json_num(&j, "seconds", seconds);
    out_json_close(&j, '}');
}

static void report(const work *k, double seconds) {
    kl_summary s = {0};
    if (k->b) s = div_kl_summary((kl_values *)(uintptr_t)&k->kl);
    if (cli_has(k->o, OPT_JSON)) {
        report_json(k, s, seconds);
        return;
    }
    printf("perplexity        %.4f +- %.4f\n", div_perplexity(&k->nll), div_perplexity_error(&k->nll));
    printf("tokens            %lld in %zu windows of %zu, stride %zu\n", (long long)k->nll.n, k->t->n_window, k->t->len,
           k->t->stride);
    if (!k->b) return;
    printf("base perplexity   %.4f (%+.3f %%)\n", div_perplexity(&k->b->nll),
           100 * (div_perplexity(&k->nll) / div_perplexity(&k->b->nll) - 1));
    printf("KL divergence     mean %.6f +- %.6f, median %.6f\n", s.mean, s.error, s.median);
    printf("                  90 %% %.6f, 95 %% %.6f, 99 %% %.6f, 99.9 %% %.6f, max %.6f\n", s.p90, s.p95, s.p99,
           s.p999, s.max);
    printf("same top token    %.3f %%\n", 100 * s.same_top);
    printf("rms change of p   %.3f %%\n", 100 * s.rms_moved);
}

static int run_all(const cli_opts *o, ffai_model *m, text *t) {
    ffai_engine *e = NULL;
    ffai_engine_opts eo = session_engine_opts(o);
    ffai_model_info in;
    base b = {0};
    work k = {.o = o, .t = t};
    const double begun = out_now();
    ffai_model_get_info(m, &in);
    k.vocab = in.vocab;
    if (!cli_has(o, OPT_CTX)) eo.n_ctx = in.max_ctx < 1024 ? (int)in.max_ctx : 1024;
    int rc = cut(o, t, eo.n_ctx);
    for (size_t i = 0; !rc && i < t->n; i++)
        if (t->ids[i] < 0 || t->ids[i] >= in.vocab)
            rc = cli_fail(o, "token id %d is not in the model's vocabulary", t->ids[i]);
    if (!rc) rc = session_engine(o, m, &eo, &e);
    if (!rc && cli_has(o, OPT_KLD)) {
        rc = open_base(o, m, &eo, t, &b);
        k.b = &b;
        if (!rc && !(b.rows = (float *)malloc(t->len * (size_t)k.vocab * sizeof *b.rows)))
            rc = cli_fail(o, "out of memory for %zu rows of %lld logits; a smaller --ctx needs less", t->len,
                          (long long)k.vocab);
    }
    if (!rc && !(k.x = (float *)malloc((size_t)k.vocab * sizeof *k.x))) rc = cli_fail(o, "out of memory");
    if (!rc && cli_has(o, OPT_SAVE_LOGITS)) {
        const int64_t dim[2] = {(int64_t)t->n_scored, k.vocab};
        if (fa_npy_begin(&k.save, cli_str(o, OPT_SAVE_LOGITS, ""), FA_F32, 2, dim, &k.err))
            rc = cli_fail(o, "%s", k.err.msg);
    }
    if (!rc) rc = run_windows(&k, e);
    if (k.save && rc) fa_npy_abort(k.save);
    if (k.save && !rc && fa_npy_end(k.save, &k.err)) rc = cli_fail(o, "%s", k.err.msg);
    if (!rc) report(&k, out_now() - begun);
    if (!rc) session_profile(o, e, NULL);
    free(k.x);
    free(k.kl.kl);
    base_close(&b);
    ffai_engine_free(e);
    return rc;
}

static int run_perplexity(const cli_opts *o) {
    ffai_model *m = NULL;
    text t = {0};
    int rc = cli_require(o, OPT_MODEL);
    if (!rc) term_catch_interrupt(true);
    if (!rc) rc = session_model(o, false, &m);
    if (!rc) rc = read_text(o, m, &t);
    if (!rc) rc = run_all(o, m, &t);
    ffai_free(t.ids);
    ffai_model_free(m);
    return rc;
}

static const opt_id perplexity_options[] = {
    OPT_MODEL,   OPT_PROMPT,  OPT_FILE,           OPT_CTX,         OPT_STRIDE,
    OPT_WINDOWS, OPT_KLD,     OPT_KLD_PRECISION,  OPT_SAVE_LOGITS, CLI_MACHINE_OPTIONS,
    OPT_JSON,    OPT_PROFILE, CLI_REPORT_OPTIONS, OPT_END};

const cli_command cmd_perplexity = {
    .name = "perplexity",
    .summary = "how well a model foresees a text, and how far it is from another",
    .usage = "-m MODEL --file FILE [--ctx N] [--stride N] [--kld BASE] [options]",
    .text =
        "Prints the perplexity of a text: the exponential of the mean negative log-likelihood of its tokens, with "
        "its standard error. The text is fed in windows of --ctx tokens, each from an empty cache and behind the "
        "token that begins texts, if the checkpoint has one; the next window begins --stride tokens later, and "
        "only tokens that no window before has scored are scored.\n\n"
        "--kld BASE compares the distributions of all scored tokens with those of a base: another model of the same "
        "vocabulary, \"exact\" or \"fast\" (this model in that precision), or logits that --save-logits wrote. It "
        "prints the Kullback-Leibler divergence from base to model in nats (mean, median, the highest tenth, "
        "twentieth, hundredth and thousandth, and the maximum), how often both hold the same token for the "
        "likeliest, and by how much the probability of the right token changed.",
    .examples = "perplexity -m models/gemma-3-270m --file text.txt --ctx 2048\n"
                "perplexity -m gemma-4bit --file text.txt --kld models/gemma-3-270m --precision exact\n"
                "perplexity -m models/gemma-3-270m --file text.txt --precision fast --kld exact",
    .options = perplexity_options,
    .run = run_perplexity,
};
