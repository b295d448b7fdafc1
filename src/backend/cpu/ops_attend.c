/* Attention over the paged cache on the CPU. An item is (query tile, kv head, split of the keys). Decode steps with
 * less work than threads cut the keys into splits whose partial results a second phase merges. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum { MIN_SPLIT_PAGES = 2 /* fewer pages than this are not worth a split of their own */ };

/* Splits that a sequence of this length really uses: known to all threads from the batch. */
static int splits_of(const fa_attend_param *p, int32_t lo, int32_t hi) {
    int pages = (hi - 1) / FA_PAGE - lo / FA_PAGE + 1, n = pages / MIN_SPLIT_PAGES;
    return n < 1 ? 1 : n > p->n_split ? p->n_split : n;
}

static size_t partial_len(
    const fa_attend_param *p) { /* floats of one (tile, kv head, split) partial; splits are used with one query row */
    return (size_t)(p->n_head / (int)p->kv->n_head) * (size_t)(p->head_dim + 2);
}

static float *partial_at(const cpu_task *t, int tile, int head, int split) {
    const fa_attend_param *p = &t->r->p.attend;
    size_t i = ((size_t)tile * (size_t)p->kv->n_head + (size_t)head) * (size_t)p->n_split + (size_t)split;
    return (float *)t->r->work + i * partial_len(p);
}

static int64_t attend_items(const cpu_task *t, int phase) {
    const fa_attend_param *p = &t->r->p.attend;
    int64_t n = (int64_t)t->b->n_tile * p->kv->n_head;
    if (phase == 0) return n * p->n_split;
    return p->n_split > 1 ? n : 0;
}

/* Page pointers of positions [pos0, pos1) for one kv head, at their absolute page index. */
static void page_pointers(const fa_kv *kv, const int32_t *pages, int head, int32_t pos0, int32_t pos1, const void **k,
                          const void **v) {
    for (int32_t p = pos0 / FA_PAGE; p <= (pos1 - 1) / FA_PAGE; p++) {
        size_t at = (size_t)pages[p] * kv->page_bytes + (size_t)head * kv->head_bytes;
        k[p] = kv->k + at;
        v[p] = kv->v + at;
    }
}

/* acc = acc and part merged: both [group, 2 + head_dim] as fa_attend_args.partial */
static void merge_partial(float *acc, const float *part, int group, int head_dim) {
    for (int g = 0; g < group; g++, acc += head_dim + 2, part += head_dim + 2) {
        if (part[1] == 0) continue; /* nothing was visible */
        float m = acc[1] == 0 || part[0] > acc[0] ? part[0] : acc[0];
        float wa = acc[1] == 0 ? 0 : expf(acc[0] - m), wp = expf(part[0] - m);
        acc[0] = m;
        acc[1] = wa * acc[1] + wp * part[1];
        for (int i = 2; i < head_dim + 2; i++) acc[i] = wa * acc[i] + wp * part[i];
    }
}

/* Adds what row i of the tile sees of positions [lo, hi) to acc. acc: room for two partials, then the kernel's scratch.
 */
static void add_visible(const cpu_task *t, const fa_attend_args *a, int i, int32_t lo, int32_t hi, float *acc) {
    if (lo >= hi) return;
    size_t len = partial_len(&t->r->p.attend);
    float *part = acc + len, *scratch = part + len;
    fa_attend_args run = *a;
    run.q = a->q + i * a->q_stride;
    run.n_q = 1;
    run.kv_lo = &lo;
    run.kv_hi = &hi;
    run.pos0 = lo / FA_PAGE * FA_PAGE;
    run.pos1 = hi;
    run.partial = part;
    t->k->attend(&run, (uint8_t *)scratch + (64 - (uintptr_t)scratch % 64) % 64);
    merge_partial(acc, part, a->n_group, a->head_dim);
}

/* A row of a speculation tree: what came before the new rows (positions below base), then each run of new rows that it
 * sees. */
static void attend_tree_row(const cpu_task *t, const fa_attend_args *a, int i, int32_t base, uint64_t sees,
                            float *acc) {
    memset(acc, 0, partial_len(&t->r->p.attend) * sizeof *acc);
    add_visible(t, a, i, a->kv_lo[i], base, acc);
    for (int j = 0; j < 64; j++) {
        int first = j;
        while (j < 64 && (sees >> j & 1)) j++;
        add_visible(t, a, i, base + first, base + j, acc);
    }
    const float *all = acc;
    t->k->attend_combine(&all, 1, a->n_group, a->n_group, a->head_dim, a->sink, a->out + i * a->out_stride,
                         a->out_stride);
}

static void attend_tile(const cpu_task *t, int tile, int head, int split) {
    const fa_attend_param *p = &t->r->p.attend;
    const fa_kv *kv = p->kv;
    const fa_batch *b = t->b;
    int seq = b->tile_seq[tile], row = b->tile_row[tile], group = p->n_head / (int)kv->n_head;
    int n_q = (int)cpu_min(b->row_start[seq + 1] - row, t->cpu->be.attend_tile);
    int32_t lo = INT32_MAX, hi = 0;
    for (int i = row; i < row + n_q; i++) {
        if (b->kv_lo[kv->group][i] < lo) lo = b->kv_lo[kv->group][i];
        if (b->kv_hi[i] > hi) hi = b->kv_hi[i];
    }
    int32_t pos0 = lo / FA_PAGE * FA_PAGE, pos1 = hi;
    float *partial = NULL;
    if (p->n_split > 1) {
        int n = splits_of(p, lo, hi), pages = (hi - 1) / FA_PAGE - lo / FA_PAGE + 1;
        if (split >= n) return;
        pos1 = (int32_t)cpu_min(hi, pos0 + (int64_t)pages * (split + 1) / n * FA_PAGE);
        pos0 += (int32_t)((int64_t)pages * split / n * FA_PAGE);
        partial = partial_at(t, tile, head, split);
    }
    const void **k = (const void **)t->scratch, **v = k + b->page_stride;
    page_pointers(kv, b->page[kv->group] + (int64_t)seq * b->page_stride, head, pos0, pos1, k, v);
    int64_t stride = t->r->in[0].dim[1], at = row * stride + (int64_t)head * group * p->head_dim;
    fa_attend_args a = {.q = fa_f32(t->r->in[0]) + at,
                        .q_stride = stride,
                        .out = fa_f32(t->r->out) + at,
                        .out_stride = stride,
                        .n_q = n_q,
                        .n_group = group,
                        .head_dim = p->head_dim,
                        .k_page = k,
                        .v_page = v,
                        .kv_dtype = kv->dtype,
                        .kv_lo = b->kv_lo[kv->group] + row,
                        .kv_hi = b->kv_hi + row,
                        .pos0 = pos0,
                        .pos1 = pos1,
                        .scale = p->scale,
                        .softcap = p->softcap,
                        .sink = p->sink ? p->sink + head * group : NULL,
                        .partial = partial};
    uint8_t *rest = (uint8_t *)(v + b->page_stride);
    rest += (64 - (uintptr_t)rest % 64) % 64;
    if (!b->tree || p->n_split > 1) { /* a split step has one new row per sequence: nothing to branch */
        t->k->attend(&a, rest);
        return;
    }
    int32_t base = b->kv_hi[b->row_start[seq]] - 1;
    for (int i = 0; i < n_q; i++) attend_tree_row(t, &a, i, base, b->tree[row + i], (float *)(void *)rest);
}

static void combine(const cpu_task *t, int tile, int head) {
    const fa_attend_param *p = &t->r->p.attend;
    const fa_batch *b = t->b;
    int row = b->tile_row[tile], group = p->n_head / (int)p->kv->n_head;
    int n = splits_of(p, b->kv_lo[p->kv->group][row], b->kv_hi[row]);
    const float *part[32];
    for (int i = 0; i < n; i++) part[i] = partial_at(t, tile, head, i);
    int64_t stride = t->r->out.dim[1];
    t->k->attend_combine(part, n, group, group, p->head_dim, p->sink ? p->sink + head * group : NULL,
                         fa_f32(t->r->out) + row * stride + (int64_t)head * group * p->head_dim, stride);
}

static void attend_run(const cpu_task *t, int phase, int64_t item) {
    const fa_attend_param *p = &t->r->p.attend;
    int n_head = (int)p->kv->n_head;
    if (phase == 1) {
        combine(t, (int)(item / n_head), (int)(item % n_head));
        return;
    }
    int64_t unit = item / p->n_split;
    /* late tiles see more keys: hand them out first */
    attend_tile(t, t->b->n_tile - 1 - (int)(unit / n_head), (int)(unit % n_head), (int)(item % p->n_split));
}

static void attend_needs(const fa_cpu *cpu, const fa_rec *r, size_t *work, size_t *scratch) {
    const fa_attend_param *p = &r->p.attend;
    int group = p->n_head / (int)p->kv->n_head;
    if (p->n_split > 1)
        *work = (size_t)r->in[0].dim[0] * (size_t)p->kv->n_head * (size_t)p->n_split * partial_len(p) * sizeof(float);
    *scratch = 2 * sizeof(void *) * (size_t)cpu->be.max_pages + 128 + 2 * partial_len(p) * sizeof(float) +
               cpu->k.attend_scratch(cpu->be.attend_tile, group, p->head_dim);
}

const cpu_op cpu_attend = {2, attend_items, attend_run, attend_needs};
