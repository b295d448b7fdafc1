/* inspect --token-ids: one sequence through the model in exact precision; logits to .npy, taps to .npz, a trace to
 * stdout.
 *
 * A sequence that is fed in pieces (--chunk, --decode-from) hits a tap once a piece; the pieces are joined along the
 * first axis, so that the file holds what one whole prefill would have given. In a batch (--batch B) the rows of all
 * copies come together, the first copy first; its share is kept. */
#include "cli/inspect_run.h"
#include "cli/out.h"
#include "cli/session.h"
#include "cli/text_in.h"
#include "io/npy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct tap {
    char name[100]; /* "layer_out.3"; without ".N" outside layers */
    float *data;
    size_t n;
    int64_t dim[FA_NPY_MAX_DIM];
    int n_dim;
} tap;

typedef struct taps {
    tap *at;
    size_t n, cap;
    int64_t batch;
    bool keep, trace;
    bool failed;
    const char *mismatch; /* a tap whose pieces do not fit together */
} taps;

static void trace_line(const char *name, int layer, const float *x, const int64_t *dim, int n_dim, size_t n) {
    double sum = 0, sq = 0, lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i];
        sum += v;
        sq += v * v;
        if (v < lo) lo = v;
        if (v > hi) hi = v;
    }
    char shape[120] = "";
    for (int i = 0, k = 0; i < n_dim && k < 100; i++)
        k += snprintf(shape + k, sizeof shape - (size_t)k, "%s%lld", i ? "," : "", (long long)dim[i]);
    double count = n ? (double)n : 1;
    printf("%-20s %4d  [%s]  mean %.6g  rms %.6g  min %.6g  max %.6g\n", name, layer, shape, sum / count,
           sqrt(sq / count), lo, hi);
}

static tap *find_tap(taps *t, const char *name, const int64_t *dim, int n_dim) {
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->at[i].name, name)) return &t->at[i];
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        tap *more = (tap *)realloc(t->at, cap * sizeof *more);
        if (!more) return NULL;
        t->at = more;
        t->cap = cap;
    }
    tap *a = &t->at[t->n++];
    memset(a, 0, sizeof *a);
    snprintf(a->name, sizeof a->name, "%s", name);
    a->n_dim = n_dim;
    memcpy(a->dim, dim, (size_t)n_dim * sizeof *dim);
    a->dim[0] = 0;
    return a;
}

static void on_tap(void *user, const char *name, int layer, const float *data, const int64_t *dim_in, int n_dim) {
    taps *t = (taps *)user;
    int64_t dim[FA_NPY_MAX_DIM];
    if (n_dim < 1 || n_dim > FA_NPY_MAX_DIM || t->failed) return;
    memcpy(dim, dim_in, (size_t)n_dim * sizeof *dim);
    if (t->batch > 1 && dim[0] % t->batch == 0) dim[0] /= t->batch;
    size_t row = 1;
    for (int i = 1; i < n_dim; i++) row *= (size_t)dim[i];
    size_t n = row * (size_t)dim[0];
    if (t->trace) trace_line(name, layer, data, dim, n_dim, n);
    if (!t->keep) return;

    char full[100];
    snprintf(full, sizeof full, layer >= 0 ? "%s.%d" : "%s", name, layer);
    tap *a = find_tap(t, full, dim, n_dim);
    float *more = a ? (float *)realloc(a->data, (a->n + n + 1) * sizeof *more) : NULL;
    if (!more) {
        t->failed = true;
        return;
    }
    a->data = more;
    if (a->n_dim != n_dim || memcmp(a->dim + 1, dim + 1, (size_t)(n_dim - 1) * sizeof *dim)) {
        t->mismatch = a->name;
        return;
    }
    memcpy(a->data + a->n, data, n * sizeof *data);
    a->n += n;
    a->dim[0] += dim[0];
}

static int write_taps(const cli_opts *o, taps *t) {
    const char *path = cli_str(o, OPT_TAPS, "");
    if (t->failed) return cli_fail(o, "--taps: out of memory");
    if (t->mismatch)
        return cli_fail(o, "--taps: the pieces of %s have different shapes; run it without --chunk and --decode-from",
                        t->mismatch);
    fa_npz *z;
    ffai_error err;
    int rc = fa_npz_begin(&z, path, &err);
    for (size_t i = 0; i < t->n && !rc; i++)
        rc = fa_npz_add(z, t->at[i].name, FA_F32, t->at[i].n_dim, t->at[i].dim, t->at[i].data, &err);
    if (!rc) rc = fa_npz_end(z, &err);
    return rc ? cli_fail(o, "--taps %s", err.msg) : 0;
}

static void free_taps(taps *t) {
    for (size_t i = 0; i < t->n; i++) free(t->at[i].data);
    free(t->at);
}

/* The likeliest next tokens after the sequence: the answer when no file was asked for. */
static void print_top(ffai_model *m, const float *row, int64_t vocab) {
    enum { TOP = 5 };
    int64_t best[TOP];
    int n = 0;
    for (int64_t v = 0; v < vocab; v++) {
        int at = n < TOP ? n++ : TOP;
        while (at > 0 && row[v] > row[best[at - 1]]) {
            if (at < TOP) best[at] = best[at - 1];
            at--;
        }
        if (at < TOP) best[at] = v;
    }
    for (int i = 0; i < n; i++) {
        int32_t id = (int32_t)best[i];
        char *text = NULL;
        size_t len = 0;
        printf("%8d  %10.4f", (int)id, (double)row[id]);
        if (ffai_detokenize(m, &id, 1, false, &text, &len, NULL) == 0) {
            out_json j;
            fputs("  ", stdout);
            out_json_begin(&j, stdout, false);
            out_json_strn(&j, NULL, text, len);
            ffai_free(text);
        }
        putchar('\n');
    }
}

bool inspect_has_ids(const cli_opts *o) { return cli_has(o, OPT_TOKEN_IDS) || cli_has(o, OPT_TOKEN_IDS_FILE); }

static int read_ids(const cli_opts *o, int32_t **ids, size_t *n) {
    if (cli_has(o, OPT_TOKEN_IDS_FILE))
        return text_ids_file(o, OPT_TOKEN_IDS_FILE, cli_str(o, OPT_TOKEN_IDS_FILE, ""), ids, n);
    const cli_value *v = &o->v[OPT_TOKEN_IDS];
    *n = v->n;
    *ids = (int32_t *)malloc((v->n + 1) * sizeof **ids);
    if (!*ids) return cli_fail(o, "--token-ids: out of memory");
    for (size_t i = 0; i < v->n; i++) (*ids)[i] = (int32_t)v->ints[i];
    return 0;
}

/* What one run writes: ffai_eval gives one user pointer for rows and taps. */
typedef struct run {
    taps taps;
    fa_npy_writer *npy;   /* --logits; NULL without it and after a row could not be written */
    ffai_error write_err; /* why not; code 0: all rows so far are written */
    float *last;          /* [vocab], the logits of the last row seen */
} run;

static void on_row(void *user, int64_t row, const float *logits, int64_t vocab) {
    run *r = (run *)user;
    (void)row; /* rows come in order */
    memcpy(r->last, logits, (size_t)vocab * sizeof *logits);
    if (r->npy && fa_npy_put(r->npy, logits, vocab, &r->write_err)) r->npy = NULL; /* the writer is gone */
}

static void on_run_tap(void *user, const char *name, int layer, const float *data, const int64_t *dim, int n_dim) {
    on_tap(&((run *)user)->taps, name, layer, data, dim, n_dim);
}

static int open_logits(const cli_opts *o, run *r, size_t n, int64_t vocab) {
    const char *path = cli_str(o, OPT_LOGITS, NULL);
    const int64_t dim[] = {(int64_t)n, vocab};
    r->last = (float *)malloc((size_t)vocab * sizeof *r->last + 1);
    if (!r->last) return cli_fail(o, "out of memory for %lld logits", (long long)vocab);
    if (!path) return 0;
    ffai_error err;
    return fa_npy_begin(&r->npy, path, FA_F32, 2, dim, &err) ? cli_fail(o, "--logits %s", err.msg) : 0;
}

static int close_logits(const cli_opts *o, run *r) {
    if (r->npy) fa_npy_end(r->npy, &r->write_err);
    r->npy = NULL;
    return r->write_err.code ? cli_fail(o, "--logits %s", r->write_err.msg) : 0;
}

static int eval(const cli_opts *o, ffai_model *m, const int32_t *ids, size_t n, run *r) {
    ffai_error err;
    ffai_engine *e = NULL;
    ffai_engine_opts eo = session_engine_opts(o);
    ffai_model_info in;
    ffai_model_get_info(m, &in);
    bool taps_on = r->taps.keep || r->taps.trace;
    if (!eo.precision) eo.precision = "exact";
    if (!eo.n_ctx) eo.n_ctx = n < INT32_MAX ? (int)n : INT32_MAX;
    if (n > (size_t)eo.n_ctx) return cli_fail(o, "--ctx %d: %zu token ids do not fit", eo.n_ctx, n);
    eo.n_slot = (int)r->taps.batch;
    eo.composed = cli_has(o, OPT_COMPOSED);
    int rc = session_engine(o, m, &eo, &e);
    if (!rc) rc = open_logits(o, r, n, in.vocab);
    ffai_eval_opts ev = {.ids = ids,
                         .n_ids = n,
                         .chunk = (int)cli_int(o, OPT_CHUNK, 0),
                         .decode_from = (int)cli_int(o, OPT_DECODE_FROM, 0),
                         .batch = (int)r->taps.batch,
                         .logits = on_row,
                         .tap = taps_on ? on_run_tap : NULL,
                         .user = r};
    if (!rc && ffai_eval(e, &ev, &err)) rc = cli_fail(o, "%s", err.msg);
    if (!rc) rc = close_logits(o, r);
    if (!rc && !cli_has(o, OPT_LOGITS) && !taps_on) print_top(m, r->last, in.vocab);
    if (e) session_profile(o, e, NULL);
    ffai_engine_free(e);
    fa_npy_abort(r->npy);
    free(r->last);
    return rc;
}

int inspect_run(const cli_opts *o, ffai_model *m) {
    int32_t *ids = NULL;
    size_t n = 0;
    run r = {.taps = {.batch = cli_int(o, OPT_BATCH, 1),
                      .keep = cli_has(o, OPT_TAPS),
                      .trace = cli_has(o, OPT_LAYER_TRACE)}};
    int rc = read_ids(o, &ids, &n);
    if (!rc && n == 0) rc = cli_fail(o, "no token ids");
    if (!rc && cli_int(o, OPT_DECODE_FROM, 0) > (int64_t)n)
        rc = cli_fail(o, "--decode-from %lld: there are only %zu ids", (long long)cli_int(o, OPT_DECODE_FROM, 0), n);
    if (!rc) rc = eval(o, m, ids, n, &r);
    if (!rc && r.taps.keep) rc = write_taps(o, &r.taps);
    free_taps(&r.taps);
    free(ids);
    return rc;
}
