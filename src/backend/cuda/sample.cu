/* Picking tokens on the device: memory, what goes there for a pick, and the ids that come back. The kernels are in
 * cu_sample.h and cu_draw.h.
 *
 * A pick of n rows is a few launches for each WAVE of them, whose options travel as kernel parameters; masks and biases
 * go through pinned memory. The ids are written to pinned host memory and awaited by an event. Two picks may be under
 * way: each has pinned memory and an event of its own. */
#include "backend/cuda/cu_draw.h"

extern "C" {
#include "base/alloc.h"
#include "base/rng.h"
}
#include <string.h>

enum { UNDER_WAY = 2 };

struct cu_sampler {
    pick_args args; /* all but the rows: addresses and sizes that stay */
    uint8_t *mem;   /* owns what the kernels share */
    int32_t *out;   /* pinned [UNDER_WAY, n_slot] */
    cudaEvent_t event[UNDER_WAY];
    int n_row[UNDER_WAY];
    unsigned begun, taken;     /* picks */
    uint8_t *stage[UNDER_WAY]; /* pinned: masks, bias ids, biases */
    size_t stage_bytes[UNDER_WAY];
    uint8_t *lists; /* the same on the device */
    size_t lists_bytes;
};

/* ---- memory ---- */

static uint8_t *dev_alloc(fa_cuda *cu, size_t n, const char *what, fa_error *err) {
    return (uint8_t *)cu->dev->d.alloc(&cu->dev->d, n, what, err);
}

/* Takes n bytes out of the block, or only counts them while there is none. */
static void *take(uint8_t *mem, size_t *at, size_t n) {
    void *p = mem ? mem + *at : NULL;
    *at += (n + 255) / 256 * 256;
    return p;
}

static size_t lay_out(pick_args *a, uint8_t *mem) {
    size_t at = 0, tiles = (size_t)WAVE * (size_t)a->n_tile;
    a->state = (row_state *)take(mem, &at, WAVE * sizeof *a->state);
    a->sum = (tile_sum *)take(mem, &at, tiles * sizeof *a->sum);
    a->weight = (u64 *)take(mem, &at, tiles * sizeof *a->weight);
    a->hist_n = (uint32_t *)take(mem, &at, (size_t)WAVE * BINS * sizeof *a->hist_n);
    a->hist_w = (u64 *)take(mem, &at, (size_t)WAVE * BINS * sizeof *a->hist_w);
    a->list = (u64 *)take(mem, &at, (size_t)WAVE * LIST * sizeof *a->list);
    return at;
}

int cu_sampler_create(fa_cuda *cu, fa_error *err) {
    struct cu_sampler *s = cu->sampler = FA_NEW(struct cu_sampler);
    if (!s) return fa_fail(err, FFAI_ENOMEM, "no memory for a sampler");
    pick_args *a = &s->args;
    a->vocab = cu->vocab;
    a->n_tile = (int)((cu->vocab + TILE - 1) / TILE);
    a->max_ctx = cu->max_ctx;
    a->last = cu->last;
    int bits = 44; /* sums of all weights stay below 2^62 */
    while (bits > 30 && cu->vocab > (int64_t)1 << (62 - bits)) bits--;
    a->wscale = (float)((int64_t)1 << bits);
    size_t bytes = lay_out(a, NULL);
    int rc = (s->mem = dev_alloc(cu, bytes, "the sampler", err)) ? 0 : FFAI_ENOMEM;
    if (!rc) rc = cu->dev->d.fill(&cu->dev->d, s->mem, 0, bytes, err);
    lay_out(a, s->mem);
    if (!rc)
        rc = cu_check(
            cu->dev,
            cudaHostAlloc((void **)&s->out, UNDER_WAY * sizeof(int32_t) * (size_t)cu->n_slot, cudaHostAllocDefault),
            "pinned memory", err);
    for (int i = 0; i < UNDER_WAY && !rc; i++)
        rc = cu_check(cu->dev, cudaEventCreateWithFlags(&s->event[i], cudaEventDisableTiming), "making an event", err);
    return rc;
}

void cu_sampler_free(fa_cuda *cu) {
    struct cu_sampler *s = cu->sampler;
    if (!s) return;
    fa_device *d = &cu->dev->d;
    d->release(d, s->mem);
    d->release(d, s->lists);
    d->release(d, s->args.count);
    d->release(d, s->args.history);
    if (s->out) cudaFreeHost(s->out);
    for (int i = 0; i < UNDER_WAY; i++) {
        if (s->stage[i]) cudaFreeHost(s->stage[i]);
        if (s->event[i]) cudaEventDestroy(s->event[i]);
    }
    fa_free(s);
    cu->sampler = NULL;
}

/* ---- history ---- */

/* Memory for penalties, the first time that they are asked for. */
static int make_history(fa_cuda *cu, fa_error *err) {
    struct cu_sampler *s = cu->sampler;
    fa_device *d = &cu->dev->d;
    size_t n = (size_t)cu->n_slot * (size_t)cu->max_ctx * sizeof(int32_t),
           m = WAVE * (size_t)cu->vocab * sizeof(uint32_t);
    if (!s->args.count) {
        uint32_t *count = (uint32_t *)dev_alloc(cu, m, "the penalties", err);
        int rc = count ? d->fill(d, count, 0, m, err) : FFAI_ENOMEM;
        if (rc) {
            d->release(d, count);
            return rc;
        }
        s->args.count = count;
    }
    if (!s->args.history && !(s->args.history = (int32_t *)dev_alloc(cu, n, "the penalties' history", err)))
        return FFAI_ENOMEM;
    return 0;
}

int cu_history(fa_backend *be, int slot, const int32_t *ids, int64_t n, fa_error *err) {
    fa_cuda *cu = (fa_cuda *)be;
    int rc = cu_enter(cu->dev, err);
    if (rc) return rc;
    if (slot < 0 || slot >= cu->n_slot || n > cu->max_ctx)
        return fa_fail(err, FFAI_EINTERNAL, "%s: a history of %lld tokens for slot %d", cu->dev->name, (long long)n,
                       slot);
    rc = make_history(cu, err);
    if (rc || n == 0) return rc;
    /* from pageable memory: it is read before the call returns */
    return cu_check(cu->dev,
                    cudaMemcpyAsync(cu->sampler->args.history + (int64_t)slot * cu->max_ctx, ids,
                                    (size_t)n * sizeof *ids, cudaMemcpyHostToDevice, cu->stream),
                    "sending a history", err);
}

/* ---- masks and biases ---- */

static size_t mask_bytes(const fa_cuda *cu) { return (size_t)(cu->vocab + 31) / 32 * 4; }

static int grow_stage(fa_cuda *cu, int at, size_t n, fa_error *err) {
    struct cu_sampler *s = cu->sampler;
    int rc = 0;
    if (n > s->stage_bytes[at]) {
        if (s->stage[at]) cudaFreeHost(s->stage[at]); /* the pick that used it has been taken */
        s->stage[at] = NULL;
        s->stage_bytes[at] = 0;
        rc =
            cu_check(cu->dev, cudaHostAlloc((void **)&s->stage[at], 2 * n, cudaHostAllocDefault), "pinned memory", err);
        if (!rc) s->stage_bytes[at] = 2 * n;
    }
    if (!rc && n > s->lists_bytes) {
        cu->dev->d.release(&cu->dev->d, s->lists); /* waits for what runs */
        s->lists_bytes = 0;
        if (!(s->lists = dev_alloc(cu, 2 * n, "token masks", err))) return FFAI_ENOMEM;
        s->lists_bytes = 2 * n;
    }
    return rc;
}

/* Masks and biases of all rows in one copy. n_bias: entries in all. */
static int send_lists(fa_cuda *cu, const fa_pick_opts *o, int n, int at, size_t n_mask, size_t n_bias, fa_error *err) {
    struct cu_sampler *s = cu->sampler;
    size_t each = mask_bytes(cu), bytes = n_mask * each + n_bias * 8;
    if (!bytes) return 0;
    int rc = grow_stage(cu, at, bytes, err);
    if (rc) return rc;
    uint8_t *mask = s->stage[at], *id = mask + n_mask * each, *bias = id + n_bias * 4;
    for (int i = 0; i < n; i++) {
        if (o[i].mask) {
            memcpy(mask, o[i].mask, each);
            mask += each;
        }
        if (o[i].n_bias <= 0) continue;
        size_t m = (size_t)o[i].n_bias * 4;
        memcpy(id, o[i].bias_id, m);
        memcpy(bias, o[i].bias, m);
        id += m;
        bias += m;
    }
    s->args.bias_id = (const int32_t *)(const void *)(s->lists + n_mask * each);
    s->args.bias = (const float *)(const void *)(s->lists + n_mask * each + n_bias * 4);
    return cu_check(cu->dev, cudaMemcpyAsync(s->lists, s->stage[at], bytes, cudaMemcpyHostToDevice, cu->stream),
                    "sending token masks", err);
}

/* ---- picking ---- */

/* The random number of a token depends on the seed and its place only: as in engine/sampler.c. */
static double draw_at(uint64_t seed, int64_t place) {
    uint64_t own = fa_rng_at(seed, 0);
    return (double)(fa_rng_at(own, (uint64_t)place) >> 11) * 0x1p-53;
}

static pick_row row_of(const fa_pick_opts *o) {
    pick_row r = {};
    r.u = draw_at(o->seed, o->n_history);
    r.temp = o->temp;
    r.top_p = o->top_p;
    r.min_log = o->min_p > 0 ? logf(o->min_p) : 1;
    r.n_sigma = o->top_n_sigma;
    r.top_k = o->top_k;
    r.slot = o->slot;
    r.place = o->n_history;
    r.from = o->repeat_from > 0 ? o->repeat_from : 0;
    r.repeat = o->repeat;
    r.presence = o->presence;
    r.frequency = o->frequency;
    r.n_bias = o->n_bias > 0 ? o->n_bias : 0;
    return r;
}

static bool row_penalises(const pick_row *r) { return r->repeat != 1 || r->presence != 0 || r->frequency != 0; }

/* Kernels of one wave, as few as its rows need. */
static void launch_wave(fa_cuda *cu, const pick_args *a, int n) {
    int n_bias = 0, window = 0;
    bool cuts = false, draws = false;
    for (int i = 0; i < n; i++) {
        const pick_row *r = &a->row[i];
        if (r->n_bias > n_bias) n_bias = r->n_bias;
        if (row_penalises(r) && r->place - r->from > window) window = r->place - r->from;
        draws = draws || r->temp > 0;
        cuts = cuts || (r->temp > 0 && (r->top_k > 0 || (r->top_p > 0 && r->top_p < 1)));
    }
    const unsigned rows = (unsigned)n, most = 64;
    dim3 tiles((unsigned)a->n_tile, rows);
    if (n_bias) CU_LAUNCH(cu, bias_kernel, dim3(cu_blocks(n_bias, PICK_THREADS), rows), PICK_THREADS, 0, *a);
    if (window) {
        unsigned blocks = cu_blocks(window, PICK_THREADS);
        dim3 grid(blocks < most ? blocks : most, rows);
        CU_LAUNCH(cu, count_kernel, grid, PICK_THREADS, 0, *a);
        CU_LAUNCH(cu, penalty_kernel, grid, PICK_THREADS, 0, *a);
    }
    CU_LAUNCH(cu, scan_kernel, tiles, PICK_THREADS, 0, *a);
    if (cuts) CU_LAUNCH(cu, hist_kernel, tiles, PICK_THREADS, 0, *a);
    if (draws) CU_LAUNCH(cu, draw_kernel, tiles, PICK_THREADS, 0, *a);
}

static int check_pick(fa_cuda *cu, fa_tensor logits, const fa_pick_opts *o, int n, fa_error *err) {
    struct cu_sampler *s = cu->sampler;
    const char *name = cu->dev->name;
    if (!logits.data || logits.dtype != FA_F32 || n < 1 || n > cu->n_slot || logits.dim[0] < n ||
        logits.dim[1] != cu->vocab)
        return fa_fail(err, FFAI_EINTERNAL, "%s: a pick of %d rows from [%lld, %lld]", name, n,
                       (long long)logits.dim[0], (long long)logits.dim[1]);
    if (s->begun - s->taken == UNDER_WAY)
        return fa_fail(err, FFAI_EINTERNAL, "%s: a third pick while two are under way", name);
    for (int i = 0; i < n; i++) {
        if (o[i].slot < 0 || o[i].slot >= cu->n_slot || o[i].n_history < 0)
            return fa_fail(err, FFAI_EINTERNAL, "%s: a pick for slot %d, place %d", name, o[i].slot, o[i].n_history);
        pick_row r = row_of(&o[i]);
        if (row_penalises(&r) && (!s->args.history || o[i].n_history > cu->max_ctx))
            return fa_fail(err, FFAI_EINTERNAL, "%s: penalties without a history", name);
    }
    return 0;
}

int cu_pick(fa_backend *be, fa_tensor logits, const fa_pick_opts *o, int n, fa_error *err) {
    fa_cuda *cu = (fa_cuda *)be;
    struct cu_sampler *s = cu->sampler;
    size_t n_mask = 0, n_bias = 0, each = mask_bytes(cu) / 4;
    int rc = cu_enter(cu->dev, err), at = (int)(s->begun % UNDER_WAY);
    if (!rc) rc = check_pick(cu, logits, o, n, err);
    for (int i = 0; i < n && !rc; i++) {
        n_mask += o[i].mask != NULL;
        n_bias += o[i].n_bias > 0 ? (size_t)o[i].n_bias : 0;
    }
    if (!rc) rc = send_lists(cu, o, n, at, n_mask, n_bias, err);
    if (rc) return rc;
    pick_args a = s->args;
    size_t mask = 0;
    int bias = 0;
    for (int i0 = 0; i0 < n; i0 += WAVE) {
        const int m = n - i0 < WAVE ? n - i0 : WAVE;
        a.logits = fa_f32(logits) + (int64_t)i0 * cu->vocab;
        a.vec = cu->vocab % 4 == 0 && (uintptr_t)logits.data % 16 == 0;
        a.out = s->out + at * cu->n_slot + i0;
        for (int i = 0; i < m; i++) {
            a.row[i] = row_of(&o[i0 + i]);
            a.row[i].bias_at = bias;
            bias += a.row[i].n_bias;
            if (o[i0 + i].mask) a.row[i].mask = (const uint32_t *)(const void *)s->lists + each * mask++;
        }
        launch_wave(cu, &a, m);
    }
    rc = cu_take_error(cu, err);
    if (!rc) rc = cu_check(cu->dev, cudaEventRecord(s->event[at], cu->stream), "a pick", err);
    if (rc) return rc;
    s->n_row[at] = n;
    s->begun++;
    return 0;
}

int cu_picked(fa_backend *be, int32_t *ids, int n, fa_error *err) {
    fa_cuda *cu = (fa_cuda *)be;
    struct cu_sampler *s = cu->sampler;
    int rc = cu_enter(cu->dev, err), at = (int)(s->taken % UNDER_WAY);
    if (rc) return rc;
    if (s->begun == s->taken || s->n_row[at] != n)
        return fa_fail(err, FFAI_EINTERNAL, "%s: no pick of %d rows is under way", cu->dev->name, n);
    s->taken++;
    rc = cu_check(cu->dev, cudaEventSynchronize(s->event[at]), "a pick", err);
    if (!rc) memcpy(ids, s->out + at * cu->n_slot, (size_t)n * sizeof *ids);
    return rc;
}
