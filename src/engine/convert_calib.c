/* Calibration of a conversion: the model runs over a text, and of every linear layer's input the mean square of each
 * column is kept. The quantizer then weighs errors with it (tensor/qfmt/affine_fit.c), and widths can be chosen for a
 * budget: each matrix's error relative to its output, at every width, from a sample of its rows; bits go where they
 * take most error away. */
#include "base/alloc.h"
#include "base/cpus.h"
#include "base/smap.h"
#include "engine/convert.h"
#include "engine/engine.h"

#include <math.h>
#include <string.h>

enum { WINDOW = 512, SAMPLE = 96 /* rows */ };

/* ---- what goes into layers ---- */

typedef struct sums {
    cv_plan *p;
    fa_smap by_name; /* of tensors: place in p->stored */
    double *count;   /* [stored] rows that were added up */
    bool failed;
} sums;

static void add_rows(void *user, const char *name, int layer, const float *x, const int64_t *dim, int n_dim) {
    sums *s = (sums *)user;
    uint32_t at;
    (void)layer;
    if (n_dim != 2 || !name || !fa_smap_get(&s->by_name, name, strlen(name), &at)) return;
    const fa_stored *w = &s->p->stored.at[at];
    if (dim[1] != w->cols || w->ordered) return; /* what goes into those may be in their order */
    if (!s->p->input[at] && !(s->p->input[at] = (double *)fa_mem_calloc(&s->p->mem, (size_t)w->cols, sizeof(double)))) {
        s->failed = true;
        return;
    }
    double *to = s->p->input[at];
    for (int64_t r = 0; r < dim[0]; r++, x += dim[1])
        for (int64_t c = 0; c < dim[1]; c++) to[c] += (double)x[c] * (double)x[c];
    s->count[at] += (double)dim[0];
}

static void no_logits(void *user, int64_t row, const float *logits, int64_t vocab) {
    (void)user;
    (void)row;
    (void)logits;
    (void)vocab;
}

static int run_text(sums *s, const char *path, const ffai_convert_opts *o, fa_error *err) {
    ffai_model *m;
    ffai_engine *e = NULL;
    const size_t window = s->p->m->dims.max_ctx < WINDOW ? (size_t)s->p->m->dims.max_ctx : WINDOW;
    const ffai_engine_opts eo = {
        .device = "cpu", .precision = "exact", .n_thread = o->n_thread, .n_ctx = (int)window, .n_slot = 1};
    int rc = ffai_model_open(&m, path, NULL, err);
    if (rc) return rc;
    rc = ffai_engine_create(&e, m, &eo, err);
    if (!rc) e->inputs = true;
    for (size_t at = 0; !rc && at < o->n_calibration; at += window) {
        const size_t n = o->n_calibration - at < window ? o->n_calibration - at : window;
        rc = ffai_eval(e,
                       &(ffai_eval_opts){.ids = o->calibration + at,
                                         .n_ids = n,
                                         .tap = add_rows,
                                         .logits = m->headless ? NULL : no_logits,
                                         .user = s},
                       err);
        if (!rc && o->progress && !o->progress(o->user, 0, s->p->bytes)) rc = fa_fail(err, FFAI_ECANCEL, "cancelled");
    }
    ffai_engine_free(e);
    ffai_model_free(m);
    return rc;
}

/* Means; columns that the text never reached still count a little. An embedding that is the head too is also looked
 * rows up in, where all columns matter alike. */
static void make_weights(cv_plan *p, const double *count) {
    for (size_t i = 0; i < p->stored.n; i++) {
        double *h = p->input[i], mean = 0;
        const int64_t n = p->stored.at[i].cols;
        if (!h || !(count[i] > 0)) continue;
        for (int64_t c = 0; c < n; c++) mean += h[c] / (double)n;
        const bool table = strstr(p->stored.at[i].name, "embed_tokens") != NULL;
        const double floor = mean > 0 && isfinite(mean) ? (table ? 0.25 : 0.01) : 1;
        for (int64_t c = 0; c < n; c++) h[c] = (mean > 0 && isfinite(mean) ? h[c] / mean : 0) + floor;
    }
}

static int collect(cv_plan *p, const char *path, const ffai_convert_opts *o, fa_error *err) {
    sums s = {.p = p};
    p->input = (double **)fa_mem_calloc(&p->mem, p->stored.n + 1, sizeof *p->input);
    s.count = FA_NEWN(double, p->stored.n + 1);
    bool ok = p->input && s.count;
    for (size_t i = 0; ok && i < p->stored.n; i++) {
        const char *name = fa_ckpt_at(p->m->ckpt, p->stored.at[i].tensor)->name;
        ok = fa_smap_put(&s.by_name, name, strlen(name), (uint32_t)i) >= 0;
    }
    int rc = ok ? run_text(&s, path, o, err) : FFAI_ENOMEM;
    if (!rc && s.failed) rc = FFAI_ENOMEM;
    if (rc == FFAI_ENOMEM) fa_fail(err, rc, "%s: no memory for a calibration", path);
    if (!rc) make_weights(p, s.count);
    fa_smap_free(&s.by_name);
    fa_free(s.count);
    return rc;
}

/* ---- widths for a budget ---- */

static const uint8_t widths[] = {2, 3, 4, 5, 6, 8};
enum { N_WIDTH = sizeof widths };

typedef struct choice {
    cv_item *it;
    double cost[N_WIDTH]; /* error relative to the output, at each width, times what it does to the model's */
    double n;             /* values */
    int at;               /* width in use */
} choice;

typedef struct sample {
    const cv_plan *p;
    fa_pool *pool;
    choice *c;
    size_t n;
    float **x;     /* [threads][cols] */
    void **unpack; /* likewise */
    float **h;
    bool failed;
} sample;

/* Columns' weights of an item as floats. */
static void weights_of(const cv_plan *p, const cv_item *it, size_t part, float *h) {
    const double *in = p->input[it->part[part].source];
    for (int64_t c = 0; c < it->cols; c++) h[c] = in ? (float)in[c] : 1.0f;
}

/* How much of a matrix's relative error arrives at the logits: all of the embedding's and the head's; each layer adds
 * about the n-th part to the residual stream, and of what a matrix does there about a third comes through (on Gemma 3
 * 270M, the divergences of a model with its table alone and with its layers alone at 4 bits agree with that). */
static double reach(const cv_plan *p, const cv_item *it) {
    if (strstr(it->name, ".layers.")) return 1.0 / (3.0 * (double)p->m->dims.n_layer);
    return strstr(it->name, "embed") && p->m->dims.tied ? 2 : 1;
}

/* Errors of a sample of an item's rows at all widths. Only matrices whose rows lie in the file are looked at; of stacks
 * some experts. */
static void measure(sample *s, choice *c, float *x, void *unpack, float *h) {
    const cv_item *it = c->it;
    double power = 0, err[N_WIDTH] = {0};
    const int64_t total = (int64_t)it->n_matrix * it->rows, step = total > SAMPLE ? total / SAMPLE : 1;
    for (int64_t r = 0; r < total; r += step) {
        fa_weight w;
        int64_t row;
        const size_t part = cv_locate_row(s->p, it, r, &w, &row);
        if (!w.codes) continue;
        weights_of(s->p, it, part, h);
        fa_dequant_row(&w, row, x, unpack);
        for (int64_t k = 0; k < it->cols; k++) power += (double)h[k] * (double)x[k] * (double)x[k];
        for (int k = 0; k < N_WIDTH; k++) {
            const fa_weight shape = {.cols = it->cols,
                                     .fmt = FA_FMT_AFFINE,
                                     .bits = widths[k],
                                     .group = it->f.group,
                                     .scale_dtype = it->f.scale_dtype};
            err[k] += fa_quant_affine_fit(&shape, x, h, NULL, NULL, NULL);
        }
    }
    for (int k = 0; k < N_WIDTH; k++) c->cost[k] = power > 0 ? reach(s->p, it) * err[k] / power : 0;
}

static void work(void *arg, int ith, int n_thread) {
    sample *s = (sample *)arg;
    (void)n_thread;
    for (int64_t i; (i = fa_pool_take(s->pool, 1)) < (int64_t)s->n;)
        measure(s, &s->c[i], s->x[ith], s->unpack[ith], s->h[ith]);
}

/* The step that takes most error away for its bits, of all but one; false: none fits into what is left. */
static bool best_step(const sample *s, size_t but, double left, size_t *which) {
    double most = 0;
    for (size_t i = 0; i < s->n; i++) {
        const choice *c = &s->c[i];
        if (c->at + 1 >= N_WIDTH || i == but) continue;
        const double bits = (double)(widths[c->at + 1] - widths[c->at]) * c->n,
                     gain = (c->cost[c->at] - c->cost[c->at + 1]) / bits;
        if (bits > left || !(gain > most)) continue;
        most = gain;
        *which = i;
    }
    return most > 0;
}

static int list_choices(cv_plan *p, sample *s, double *spent, int64_t *cols, fa_error *err) {
    *spent = 0;
    *cols = 0;
    s->c = (choice *)fa_mem_calloc(&p->mem, p->n + 1, sizeof *s->c);
    if (!s->c) return fa_fail(err, FFAI_ENOMEM, "no memory to choose widths");
    for (size_t i = 0; i < p->n; i++) {
        cv_item *it = &p->item[i];
        if (!it->part) continue;
        const double n = (double)it->n_matrix * (double)it->rows * (double)it->cols;
        if (it->cols > *cols) *cols = it->cols;
        if (it->f.fmt != FA_FMT_AFFINE || it->f.said || it->f.as_is) {
            for (int k = 0; k < it->n_out; k++) *spent += 8.0 * (double)fa_st_out_bytes(&it->out[k]);
            continue;
        }
        s->c[s->n++] = (choice){.it = it, .n = n};
        *spent += n * (widths[0] + 16.0 * (double)fa_dtype_size((fa_dtype)it->f.scale_dtype) / it->f.group);
    }
    return 0;
}

static int take_sample(cv_plan *p, sample *s, int64_t cols, int n_thread, fa_error *err) {
    fa_mem mem = {0};
    int rc = fa_pool_create(&s->pool, n_thread > 0 ? n_thread : fa_cpu_threads(), err);
    if (rc) return rc;
    const int n = fa_pool_size(s->pool);
    s->x = (float **)fa_mem_calloc(&mem, (size_t)n, sizeof *s->x);
    s->h = (float **)fa_mem_calloc(&mem, (size_t)n, sizeof *s->h);
    s->unpack = (void **)fa_mem_calloc(&mem, (size_t)n, sizeof *s->unpack);
    bool ok = s->x && s->h && s->unpack;
    for (int i = 0; ok && i < n; i++) {
        s->x[i] = (float *)fa_mem_calloc(&mem, (size_t)cols, sizeof(float));
        s->h[i] = (float *)fa_mem_calloc(&mem, (size_t)cols, sizeof(float));
        s->unpack[i] = fa_mem_calloc(&mem, fa_dequant_scratch(cols) + 64, 1);
        ok = s->x[i] && s->h[i] && s->unpack[i];
    }
    if (ok)
        fa_pool_run(s->pool, work, s);
    else
        rc = fa_fail(err, FFAI_ENOMEM, "no memory to choose widths");
    fa_pool_free(s->pool);
    fa_mem_free(&mem);
    s->p = p;
    return rc;
}

/* Widths for what is left when matrix `big` has width k; the sum of errors, INFINITY when that alone is too much. */
static double spend(const sample *s, size_t big, int k, int lowest, double left) {
    double cost = 0;
    size_t which;
    for (size_t i = 0; i < s->n; i++) s->c[i].at = i == big ? k : lowest;
    for (size_t i = 0; i < s->n; i++) left -= (double)(widths[s->c[i].at] - widths[0]) * s->c[i].n;
    if (left < 0) return INFINITY;
    while (best_step(s, big, left, &which)) {
        choice *c = &s->c[which];
        left -= (double)(widths[c->at + 1] - widths[c->at]) * c->n;
        c->at++;
    }
    for (size_t i = 0; i < s->n; i++) cost += s->c[i].cost[s->c[i].at];
    return cost;
}

static int choose_widths(cv_plan *p, const ffai_convert_opts *o, fa_error *err) {
    sample s = {.p = p};
    double spent, all = 0;
    int64_t cols;
    size_t big = 0;
    int lowest = 0;
    double least = INFINITY, free_values = 0;
    int rc = list_choices(p, &s, &spent, &cols, err);
    if (!rc) rc = take_sample(p, &s, cols, o->n_thread, err);
    if (rc) return rc;
    for (size_t i = 0; i < p->n; i++)
        if (p->item[i].part) all += (double)p->item[i].n_matrix * (double)p->item[i].rows * (double)p->item[i].cols;
    double left = o->bits_per_weight * all - spent;
    for (size_t i = 0; i < s.n; i++) free_values += s.c[i].n;
    if (left < 0)
        return fa_fail(err, FFAI_EINVAL, "%.3g bits a weight: 2 bits and scales alone take %.3g", o->bits_per_weight,
                       spent / all);
    /* errors that are large do not add up: no matrix goes more than one bit below the width that was asked for, unless
     * the budget is as small as that */
    while (lowest + 1 < N_WIDTH && widths[lowest + 1] < p->wanted.bits) lowest++;
    while (lowest && (double)(widths[lowest] - widths[0]) * free_values > left) lowest--;
    /* one matrix, the table of a small model mostly, may be most of the model: it is tried at every width */
    for (size_t i = 0; i < s.n; i++)
        if (s.c[i].n > s.c[big].n) big = i;
    for (int k = lowest; s.n && k < N_WIDTH; k++) {
        const double cost = spend(&s, big, k, lowest, left);
        if (cost < least) {
            least = cost;
            for (size_t i = 0; i < s.n; i++) s.c[i].it->f.bits = widths[s.c[i].at];
        }
    }
    return 0;
}

int cv_calibrate(cv_plan *p, const char *path, const ffai_convert_opts *o, fa_error *err) {
    int rc = 0;
    if (o->n_calibration && p->wanted.fmt != FA_FMT_AFFINE)
        return fa_fail(err, FFAI_EINVAL, "calibration is for affine quantization");
    if (o->bits_per_weight > 0 && !o->n_calibration)
        return fa_fail(err, FFAI_EINVAL, "bits for a budget need a text to calibrate with");
    if (o->n_calibration) rc = collect(p, path, o, err);
    if (!rc && o->bits_per_weight > 0) rc = choose_widths(p, o, err);
    return rc;
}
