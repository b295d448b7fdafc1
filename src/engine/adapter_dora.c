/* Lengths of what adapters with magnitudes (DoRA) change. peft/tuners/lora/dora.py and mlx_lm/tuner/dora.py divide by
 * |W + s D|, D = B A, of every row (of PEFT's embeddings: of every column), for the scale s that holds at the time, so
 * the length is needed for any s that a request may ask for:
 *
 *     |w + s d|^2 = w.w + 2 s w.d + s^2 d.d = c + (p s + q)^2,   p = |d|, q = w.d / |d|, c = w.w - q^2 >= 0
 *
 * which is computed once, when the adapter is loaded: rows of W are widened one at a time, in as many threads as there
 * are processors. Sums are in double. */
#include "base/alloc.h"
#include "base/cpus.h"
#include "base/pool.h"
#include "engine/adapter.h"

#include <math.h>
#include <string.h>

typedef struct job {
    const fa_weight *w, *left; /* [rows, cols], [rows, rank]; D = left right */
    const float *right;        /* [rank, cols] */
    bool by_col;
    double *sums;    /* [threads of by_col, n, 3] w.w, w.d, d.d */
    uint8_t *memory; /* [threads, bytes] */
    size_t bytes;
    fa_pool *pool;
} job;

static size_t aligned(size_t n) { return (n + 63) / 64 * 64; }

/* A thread's memory: a row of W, of D and of left, and what widening needs. */
static size_t bytes_of(const fa_weight *w, const fa_weight *left) {
    int64_t most = w->cols > left->cols ? w->cols : left->cols;
    return 2 * aligned((size_t)w->cols * sizeof(float)) + aligned((size_t)left->cols * sizeof(float)) +
           aligned(fa_dequant_scratch(most));
}

static void row_of_d(const job *j, const float *left, float *d) {
    const int64_t n = j->w->cols, rank = j->left->cols;
    memset(d, 0, (size_t)n * sizeof *d);
    for (int64_t r = 0; r < rank; r++) {
        const float by = left[r], *from = j->right + r * n;
        for (int64_t k = 0; k < n; k++) d[k] += by * from[k];
    }
}

static void work(void *arg, int ith, int n_thread) {
    const job *j = (const job *)arg;
    const int64_t n = j->w->cols;
    uint8_t *mem = j->memory + (size_t)ith * j->bytes;
    float *w = (float *)(void *)mem, *d = (float *)(void *)(mem + aligned((size_t)n * sizeof *w)),
          *left = (float *)(void *)(mem + 2 * aligned((size_t)n * sizeof *w));
    void *scratch = (uint8_t *)left + aligned((size_t)j->left->cols * sizeof *left);
    double *column = j->sums + (size_t)ith * (size_t)(3 * n);
    (void)n_thread;
    for (int64_t i; (i = fa_pool_take(j->pool, 1)) < j->w->rows;) {
        fa_dequant_row(j->w, i, w, scratch);
        fa_dequant_row(j->left, i, left, scratch);
        row_of_d(j, left, d);
        double *sum = j->sums + 3 * i;
        for (int64_t k = 0; k < n; k++) {
            if (j->by_col) sum = column + 3 * k;
            sum[0] += (double)w[k] * (double)w[k];
            sum[1] += (double)w[k] * (double)d[k];
            sum[2] += (double)d[k] * (double)d[k];
        }
    }
    fa_pool_barrier(j->pool);
}

/* mag [4, n] of m and the sums, which lie in `parts` parts. */
static void finish(const double *sums, int parts, int64_t n, const float *m, float *mag) {
    for (int64_t i = 0; i < n; i++) {
        double s[3] = {0};
        for (int k = 0; k < 3 * parts; k++) s[k % 3] += sums[((int64_t)(k / 3) * n + i) * 3 + k % 3];
        double p = sqrt(s[2]), q = p > 0 ? s[1] / p : 0, c = s[0] - q * q;
        mag[i] = m[i];
        mag[n + i] = (float)(c > 0 ? c : 0);
        mag[2 * n + i] = (float)p;
        mag[3 * n + i] = (float)q;
    }
}

/* The matrix right [rank, cols]: a of a linear layer; of an embedding b [cols, rank], turned. */
static float *right_of(const fa_change *c, fa_error *err) {
    const fa_weight *w = c->table ? &c->lora.b : &c->lora.a;
    size_t n = (size_t)(w->rows * w->cols);
    float *out = FA_NEWN(float, n), *row = FA_NEWN(float, (size_t)w->cols);
    for (int64_t r = 0; out && row && r < w->rows; r++) {
        fa_dequant_row(w, r, row, NULL);
        for (int64_t k = 0; k < w->cols; k++) out[c->table ? k * w->rows + r : r * w->cols + k] = row[k];
    }
    if (!out || !row) {
        fa_fail(err, FFAI_ENOMEM, "no memory for %zu floats", n);
        fa_free(out);
        out = NULL;
    }
    fa_free(row);
    return out;
}

int fa_adapter_lengths(ffai_adapter *a, fa_change *c, const fa_weight *w, const float *m, const char *name,
                       fa_error *err) {
    fa_lora *l = &c->lora;
    job j = {.w = w, .left = c->table ? &l->a : &l->b, .by_col = c->table && !l->by_token};
    if (a->e->m->synthetic)
        return fa_fail(err, FFAI_ENOTSUP, "%s: %s: magnitudes need the rows of weights, and these are random", a->path,
                       name);
    int rc = fa_pool_create(&j.pool, fa_cpu_threads(), err), n_thread = rc ? 1 : fa_pool_size(j.pool),
        parts = j.by_col ? n_thread : 1;
    j.bytes = bytes_of(w, j.left);
    float *right = rc ? NULL : right_of(c, err),
          *mag = (float *)fa_mem_calloc(&a->mem, (size_t)l->n_mag, 4 * sizeof *mag);
    j.right = right;
    j.sums = FA_NEWN(double, (size_t)(3 * l->n_mag * parts));
    j.memory = (uint8_t *)fa_aligned_calloc(64, (size_t)n_thread * j.bytes);
    if (!rc && (!right || !mag || !j.sums || !j.memory))
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for the lengths of %s", a->path, name);
    if (!rc) {
        fa_pool_run(j.pool, work, &j);
        finish(j.sums, parts, l->n_mag, m, mag);
        l->mag = mag;
    }
    fa_pool_free(j.pool);
    fa_free(right);
    fa_free(j.sums);
    fa_free(j.memory);
    return rc;
}
