/* Embeddings: sequences through the model, several at a time, their hidden states pooled as they come. */
#include "base/alloc.h"
#include "engine/engine.h"

#include <math.h>
#include <string.h>

/* A sequence on its way through a slot. */
typedef struct lane {
    int64_t seq;   /* which one; -1: the lane is idle */
    int64_t n_fed; /* its tokens that have been fed */
    double *acc;   /* [n_kind, hidden] sum, maximum or the one row that counts */
} lane;

typedef struct job {
    ffai_engine *e;
    const fa_pooling *p;
    int n_kind; /* the checkpoint's, or what was asked for */
    fa_pool_kind kind[FA_POOL_KINDS];
    bool first_only, last_only; /* of the states, only the first or the last token's counts */
    int normalize;
    const int32_t *const *ids;
    const size_t *n;
    size_t n_seq, next; /* next: the first that has no lane yet */
    float *out;
    lane *lane; /* [n_lane] */
    int n_lane;
    fa_seq_rows *rows; /* [n_lane] of the step */
    int *who;          /* [n_lane] and whose they are */
    double *acc;
    float *x, *work; /* [widest] */
} job;

/* Tokens of a sequence that matter: attention is causal, so the first token's state needs no others. */
static int64_t needed(const job *j, int64_t seq) { return j->first_only ? 1 : (int64_t)j->n[seq]; }

static void start(job *j, lane *l) {
    l->seq = -1;
    if (j->next == j->n_seq) return;
    l->seq = (int64_t)j->next++;
    l->n_fed = 0;
    for (int k = 0; k < j->n_kind; k++)
        for (int64_t i = 0; i < j->p->hidden; i++)
            l->acc[k * j->p->hidden + i] = j->kind[k] == FA_POOL_MAX ? -INFINITY : 0;
}

/* Rows of the next step, single ones first; the step's room is shared as it comes. */
static int plan(job *j) {
    int n = 0, room = j->e->n_chunk;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < j->n_lane; i++) {
            lane *l = &j->lane[i];
            if (l->seq < 0) continue;
            int64_t left = needed(j, l->seq) - l->n_fed;
            if ((left == 1) != (pass == 0) || (pass && !room)) continue;
            int rows = pass == 0 ? 1 : (int)(left < room ? left : room);
            if (pass) room -= rows;
            int n_out = !j->last_only ? rows : rows == left;
            j->who[n] = i;
            j->rows[n++] =
                (fa_seq_rows){i, j->ids[l->seq] + l->n_fed, rows, n_out, (int32_t)j->n[l->seq], NULL, {0}, false};
        }
    }
    return n;
}

/* Adds row number `at` of a sequence. */
static void add_row(const job *j, lane *l, const float *h, int64_t at) {
    for (int k = 0; k < j->n_kind; k++) {
        double *acc = l->acc + k * j->p->hidden, w = 1;
        if (j->kind[k] == FA_POOL_WEIGHTED) w = (double)(at + 1);
        if (j->kind[k] == FA_POOL_CLS) w = at == 0;
        if (j->kind[k] == FA_POOL_LAST) w = at == (int64_t)j->n[l->seq] - 1;
        if (j->kind[k] == FA_POOL_MAX)
            for (int64_t i = 0; i < j->p->hidden; i++) acc[i] = (double)h[i] > acc[i] ? (double)h[i] : acc[i];
        else if (w > 0)
            for (int64_t i = 0; i < j->p->hidden; i++) acc[i] += w * (double)h[i];
    }
}

static void done(job *j, lane *l) {
    double n = (double)j->n[l->seq];
    for (int k = 0; k < j->n_kind; k++) {
        double by = j->kind[k] == FA_POOL_MEAN        ? n
                    : j->kind[k] == FA_POOL_MEAN_SQRT ? sqrt(n)
                    : j->kind[k] == FA_POOL_WEIGHTED  ? n * (n + 1) / 2
                                                      : 1;
        for (int64_t i = k * j->p->hidden; i < (k + 1) * j->p->hidden; i++) j->x[i] = (float)(l->acc[i] / by);
    }
    fa_pooling_finish(j->p, j->normalize, j->x, j->n_kind * j->p->hidden, j->work);
    memcpy(j->out + l->seq * j->p->dim, j->x, (size_t)j->p->dim * sizeof *j->out);
}

static int step(job *j, int n, fa_error *err) {
    fa_tensor h = {0};
    float *rows = NULL;
    int64_t n_out = 0;
    for (int i = 0; i < n; i++) n_out += j->rows[i].n_out;
    int rc = fa_engine_hidden(j->e, j->rows, n, &h, err);
    if (!rc) rc = fa_engine_rows(j->e, h, n_out, &rows, err);
    const float *row = rows;
    for (int i = 0; !rc && i < n; i++) {
        lane *l = &j->lane[j->who[i]];
        const fa_seq_rows *s = &j->rows[i];
        l->n_fed += s->n;
        for (int k = 0; k < s->n_out; k++, row += j->p->hidden) add_row(j, l, row, l->n_fed - s->n_out + k);
        if (l->n_fed < needed(j, l->seq)) continue;
        done(j, l);
        fa_kv_reset(j->e->kv, j->who[i]);
        start(j, l);
    }
    return rc;
}

static int allocate(job *j, fa_error *err) {
    size_t n = (size_t)j->n_lane, dim = (size_t)(j->n_kind * j->p->hidden), width = (size_t)fa_pooling_width(j->p);
    j->lane = FA_NEWN(lane, n);
    j->rows = FA_NEWN(fa_seq_rows, n);
    j->who = FA_NEWN(int, n);
    j->acc = FA_NEWN(double, n *dim);
    j->x = FA_NEWN(float, width);
    j->work = FA_NEWN(float, width);
    if (!j->lane || !j->rows || !j->who || !j->acc || !j->x || !j->work)
        return fa_fail(err, FFAI_ENOMEM, "no memory for %d embeddings", j->n_lane);
    for (size_t i = 0; i < n; i++) j->lane[i].acc = j->acc + i * dim;
    return 0;
}

/* The kinds of pooling and what follows from them. */
static int choose(job *j, const ffai_embed_opts *o, fa_error *err) {
    const fa_pooling *p = j->p;
    j->normalize = o ? o->normalize : 0;
    j->n_kind = p->n_kind;
    memcpy(j->kind, p->kind, sizeof j->kind);
    if (o && o->pooling) {
        j->n_kind = 1;
        if (!fa_pool_kind_find(o->pooling, &j->kind[0]))
            return fa_fail(err, FFAI_EINVAL, "pooling: \"%s\" is not mean, last, cls or max", o->pooling);
        if (p->n_kind > 1)
            return fa_fail(err, FFAI_EINVAL, "pooling: \"%s\": the checkpoint's modules put %d kinds together",
                           o->pooling, p->n_kind);
    }
    j->first_only = j->n_kind == 1 && j->kind[0] == FA_POOL_CLS;
    j->last_only = j->n_kind == 1 && j->kind[0] == FA_POOL_LAST;
    return 0;
}

static int check(const job *j, fa_error *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < j->n_seq; i++) {
        if (!j->n[i]) rc = fa_fail(err, FFAI_EINVAL, "embedding %zu: there are no token ids", i);
        if (j->n[i] > (size_t)j->e->n_ctx)
            rc = fa_fail(err, FFAI_ELIMIT, "embedding %zu: %zu token ids do not fit the context of %d", i, j->n[i],
                         j->e->n_ctx);
        if (!rc) rc = fa_engine_check_ids(j->e, j->ids[i], j->n[i], err);
    }
    return rc;
}

int ffai_embed_dim(ffai_model *m, int64_t *dim, ffai_error *err) {
    *dim = 0;
    if (!m->family) return fa_fail(err, FFAI_EINVAL, "only the tokenizer was opened");
    fa_error e = {0};
    const fa_pooling *p = fa_model_pooling(m, &e);
    if (p)
        *dim = p->dim;
    else if (err)
        *err = e;
    return e.code;
}

int ffai_embed_batch(ffai_engine *e, const int32_t *const *ids, const size_t *n, size_t n_seq,
                     const ffai_embed_opts *opts, float *out, ffai_error *err) {
    fa_error why = {0};
    job j = {.e = e, .ids = ids, .n = n, .n_seq = n_seq, .out = out, .p = fa_model_pooling(e->m, &why)};
    if (!j.p) {
        if (err) *err = why;
        return why.code;
    }
    int rc = choose(&j, opts, err);
    if (rc) return rc;
    j.n_lane = n_seq < (size_t)e->n_slot ? (int)n_seq : e->n_slot;
    rc = check(&j, err);
    if (!rc) rc = allocate(&j, err);
    if (!rc) rc = fa_engine_take_slots(e, j.n_lane, err);
    bool begun = !rc;
    for (int i = 0; !rc && i < j.n_lane; i++) start(&j, &j.lane[i]);
    for (int rows; !rc && (rows = plan(&j)) > 0;) rc = step(&j, rows, err);
    for (int i = 0; begun && i < j.n_lane; i++) fa_kv_reset(e->kv, i);
    fa_free(j.lane);
    fa_free(j.rows);
    fa_free(j.who);
    fa_free(j.acc);
    fa_free(j.x);
    fa_free(j.work);
    return rc;
}

int ffai_embed(ffai_engine *e, const int32_t *ids, size_t n, const ffai_embed_opts *opts, float *out, ffai_error *err) {
    return ffai_embed_batch(e, &ids, &n, 1, opts, out, err);
}
