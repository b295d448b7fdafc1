/* The two sides of an operation test: module and backends, contents on both, batches, running, comparing. */
#define _DEFAULT_SOURCE
#include "cuda/harness.h"
#include "qfmt/fill.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/smap.h"

enum { MAX_INPUT = 32, MAX_EXPECT = 32, MAX_KV = 8, ARENA = 1 << 28 };

typedef struct input {
    fa_tensor t;
    const float *x;
} input;

typedef struct expect {
    const char *name;
    fa_tensor t;
} expect;

typedef struct kv_state {
    hn_kv kv;
    size_t bytes;         /* of keys; as many values follow */
    uint8_t *image, *dev; /* contents at the start of a run; device memory */
} kv_state;

typedef struct layer_states {
    hn_states st;
    int n;             /* states */
    uint8_t *written;  /* [n] */
    float *image, *at; /* contents at the start of a run; the CPU's */
    float *dev;
} layer_states;

typedef struct side_state {
    fa_backend *be;
    fa_arena arena;
    fa_program prog;
    fa_batch batch;
    input in[MAX_INPUT];
    expect ex[MAX_EXPECT];
    int n_in, n_ex;
} side_state;

struct harness {
    hn_opts o;
    void *lib;
    const fa_module *mod;
    fa_device *dev;
    side_state s[2];
    char what[160];
    fa_rng rng;
    double max_err, nmse;
    int repeats, n_page, n_phys;
    void **host, **device; /* what the case owns */
    int n_host, n_device, cap_host, cap_device;
    kv_state *kv[MAX_KV];
    hn_kv *ex_kv[MAX_KV];
    int n_kv, n_ex_kv;
    layer_states *states; /* of the case; NULL: none */
};

/* ---- module ---- */

const char *hn_module_path(void) {
    const char *p = getenv("FFAI_CUDA_MODULE");
#ifdef FFAI_CUDA_EMU_MODULE
    return p && *p ? p : FFAI_CUDA_EMU_MODULE;
#else
    if (p && *p) return p;
    printf("no FFAI_CUDA_MODULE\n");
    exit(77);
#endif
}

const char *hn_source_dir(void) {
    const char *p = getenv("FFAI_SOURCE_DIR");
    return p && *p ? p : FFAI_SOURCE_DIR;
}

static void *symbol(const char *name) {
    void *lib = dlopen(hn_module_path(), RTLD_NOW | RTLD_LOCAL);
    if (!lib) fail_msg("%s", dlerror());
    return dlsym(lib, name);
}

bool hn_emulated(void) { return symbol("emu_control") != NULL; }

long long hn_emu_control(const char *what, long long value) {
    long long (*f)(const char *, long long);
    void *p = symbol("emu_control");
    memcpy(&f, &p, sizeof f);
    return f ? f(what, value) : -1;
}

static const fa_module *get_module(void) {
    const fa_module *(*get)(void);
    void *p = symbol("fa_module_get");
    assert_non_null(p);
    memcpy(&get, &p, sizeof get);
    const fa_module *m = get();
    assert_int_equal(m->version, FA_MODULE_VERSION);
    assert_int_equal(m->rec_bytes, sizeof(fa_rec));
    return m;
}

/* ---- memory of the case ---- */

static void own(void ***list, int *n, int *cap, void *p) {
    if (*n == *cap) {
        *cap = *cap ? 2 * *cap : 64;
        *list = realloc(*list, (size_t)*cap * sizeof **list);
        assert_non_null(*list);
    }
    (*list)[(*n)++] = p;
}

void *hn_host(harness *h, size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    assert_non_null(p);
    own(&h->host, &h->n_host, &h->cap_host, p);
    return p;
}

static void *device_memory(harness *h, size_t bytes) {
    fa_error err = {0};
    void *p = h->dev->alloc(h->dev, bytes, "test", &err);
    if (!p) fail_msg("%s: %s", h->what, err.msg);
    own(&h->device, &h->n_device, &h->cap_device, p);
    return p;
}

static void ok(harness *h, int rc, const fa_error *err) {
    if (rc) fail_msg("%s: %s", h->what, err->msg);
}

void *hn_upload(harness *h, const void *host, size_t bytes) {
    fa_error err = {0};
    void *p = device_memory(h, bytes);
    ok(h, h->dev->write(h->dev, p, host, bytes, &err), &err);
    return p;
}

fa_rng *hn_rng(harness *h) { return &h->rng; }

float *hn_floats(harness *h, int64_t n, float scale) {
    float *x = hn_host(h, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (2 * fa_rng_f32(&h->rng) - 1) * scale;
    return x;
}

int32_t *hn_ints(harness *h, int64_t n, int32_t below) {
    int32_t *x = hn_host(h, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (int32_t)(fa_rng_next(&h->rng) % (uint64_t)below);
    return x;
}

/* ---- open, close, cases ---- */

static void make_batch(harness *h, fa_batch *b) {
    b->n_axes = 1;
    b->n_group = h->o.n_group;
    b->page_stride = h->n_page * h->o.n_group;
    fa_batch_lay_out(b, h->o.max_rows, h->o.max_seq);
    b->block = fa_aligned_calloc(64, b->block_bytes);
    assert_non_null(b->block);
    fa_batch_lay_out(b, h->o.max_rows, h->o.max_seq);
}

static void *dev_reserve(void *user, size_t *bytes, fa_error *err) {
    fa_device *d = user;
    return d->reserve(d, bytes, err);
}
static int dev_commit(void *user, void *base, size_t from, size_t to) {
    fa_device *d = user;
    return d->commit(d, base, from, to);
}
static void dev_unreserve(void *user, void *base, size_t bytes, size_t committed) {
    fa_device *d = user;
    d->unreserve(d, base, bytes, committed);
}

harness *hn_open(const hn_opts *o) {
    fa_error err = {0};
    harness *h = calloc(1, sizeof *h);
    assert_non_null(h);
    h->o = *o;
    if (!h->o.max_rows) h->o.max_rows = 600;
    if (!h->o.max_seq) h->o.max_seq = 40;
    if (!h->o.max_ctx) h->o.max_ctx = 2048;
    if (!h->o.n_group) h->o.n_group = 1;
    if (!h->o.vocab) h->o.vocab = 1000;
    h->n_page = (h->o.max_ctx + FA_PAGE - 1) / FA_PAGE;
    snprintf(h->what, sizeof h->what, "open");
    h->mod = get_module();
    if (h->mod->count(&err) <= 0) {
        printf("no GPU: %s\n", err.msg);
        exit(77);
    }
    hn_emu_control("align", 16);
    ok(h, h->mod->open(&h->dev, 0, &err), &err);
    for (int i = 0; i < 2; i++) make_batch(h, &h->s[i].batch);
    ok(h, fa_backend_cpu_create(&h->s[HN_CPU].be, 1, NULL, true, &err), &err);
    const fa_backend_opts bo = {.exact = o->exact,
                                .n_slot = h->o.max_seq,
                                .max_ctx = h->o.max_ctx,
                                .vocab = h->o.vocab,
                                .batch = &h->s[HN_DEV].batch};
    ok(h, h->dev->backend(h->dev, &h->s[HN_DEV].be, &bo, &err), &err);
    const fa_arena_source source = {h->dev, dev_reserve, dev_commit, dev_unreserve};
    ok(h, fa_arena_create(&h->s[HN_CPU].arena, ARENA, NULL, &err), &err);
    ok(h, fa_arena_create(&h->s[HN_DEV].arena, ARENA, &source, &err), &err);
    for (int i = 0; i < 2; i++) h->s[i].be->max_pages = h->n_page * h->o.n_group;
    h->repeats = 1;
    hn_limits(h, o->exact ? 1e-4 : 5e-2, o->exact ? 1e-9 : 2e-4);
    return h;
}

static void drop_case(harness *h) {
    for (int i = 0; i < h->n_device; i++) h->dev->release(h->dev, h->device[i]);
    for (int i = 0; i < h->n_host; i++) free(h->host[i]);
    h->n_device = h->n_host = h->n_kv = h->n_ex_kv = 0;
    h->states = NULL;
    for (int i = 0; i < 2; i++) h->s[i].batch.n_cut = 0;
}

void hn_case(harness *h, const char *fmt, ...) {
    drop_case(h);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(h->what, sizeof h->what, fmt, ap);
    va_end(ap);
    h->rng = (fa_rng){fa_hash(h->what, strlen(h->what)), 0};
}

void hn_close(harness *h) {
    drop_case(h);
    fa_backend *be = h->s[HN_DEV].be;
    if (be->forget) be->forget(be, &h->s[HN_DEV].prog);
    for (int i = 0; i < 2; i++) {
        fa_arena_destroy(&h->s[i].arena);
        h->s[i].be->free(h->s[i].be);
        fa_free(h->s[i].prog.rec);
        fa_free(h->s[i].batch.block);
    }
    h->dev->free(h->dev);
    free(h->host);
    free(h->device);
    free(h);
}

fa_device *hn_device(harness *h) { return h->dev; }
fa_backend *hn_backend(harness *h, int side) { return h->s[side].be; }
fa_batch *hn_batch(harness *h, int side) { return &h->s[side].batch; }
const fa_module *hn_module(harness *h) { return h->mod; }
void hn_limits(harness *h, double max_err, double nmse) { h->max_err = max_err, h->nmse = nmse; }
void hn_repeats(harness *h, int n) { h->repeats = n; }

/* ---- weights ---- */

#define KIND(f)                                                                                                        \
    { .fmt = FA_FMT_##f }
#define AFFINE(b, g, dt)                                                                                               \
    { .fmt = FA_FMT_AFFINE, .bits = b, .group = g, .scale_dtype = dt }
const fa_weight hn_kinds[] = {KIND(F32),
                              KIND(F16),
                              KIND(BF16),
                              KIND(Q4_0),
                              KIND(Q4_1),
                              KIND(Q5_0),
                              KIND(Q5_1),
                              KIND(Q8_0),
                              KIND(Q2_K),
                              KIND(Q3_K),
                              KIND(Q4_K),
                              KIND(Q5_K),
                              KIND(Q6_K),
                              FILL_PLANAR_KINDS,
                              FILL_TABLE_KINDS,
                              AFFINE(2, 32, FA_F32),
                              AFFINE(2, 64, FA_F16),
                              AFFINE(2, 128, FA_BF16),
                              AFFINE(3, 32, FA_BF16),
                              AFFINE(3, 64, FA_F16),
                              AFFINE(3, 128, FA_F32),
                              AFFINE(4, 32, FA_F16),
                              AFFINE(4, 64, FA_BF16),
                              AFFINE(4, 128, FA_F32),
                              AFFINE(5, 32, FA_F32),
                              AFFINE(5, 64, FA_BF16),
                              AFFINE(5, 128, FA_F16),
                              AFFINE(6, 32, FA_BF16),
                              AFFINE(6, 64, FA_F32),
                              AFFINE(6, 128, FA_F16),
                              AFFINE(8, 32, FA_F16),
                              AFFINE(8, 64, FA_BF16),
                              AFFINE(8, 128, FA_F32)};
const int hn_n_kinds = (int)(sizeof hn_kinds / sizeof *hn_kinds);

bool hn_fits(fa_weight kind, int64_t cols) { return cols > 0 && cols % fill_unit(&kind) == 0; }

/* rows of n bytes, 16-byte aligned, with zeros behind each. */
static const uint8_t *upload_rows(harness *h, const uint8_t *host, int64_t rows, size_t n, size_t pitch) {
    fa_error err = {0};
    if (!host) return NULL;
    void *p = device_memory(h, (size_t)rows * pitch);
    ok(h, h->dev->fill(h->dev, p, 0, (size_t)rows * pitch, &err), &err);
    const fa_copy c = {p, host, (size_t)rows, n, pitch};
    ok(h, h->dev->upload(h->dev, &c, 1, &err), &err);
    return p;
}

static void make_weight(harness *h, fa_weight kind, int64_t rows, int64_t cols, fa_weight *cpu, fa_weight *dev) {
    fa_error err = {0};
    fa_weight w = kind;
    w.rows = rows, w.cols = cols, w.name = "test.weight";
    fill_sizes(&w);
    ok(h, fa_weight_check(&w, &err), &err);
    uint8_t *codes = hn_host(h, (size_t)rows * w.row_bytes), *scales = NULL, *biases = NULL;
    if (w.scale_row_bytes) scales = hn_host(h, (size_t)rows * w.scale_row_bytes);
    if (w.fmt == FA_FMT_AFFINE) biases = hn_host(h, (size_t)rows * w.scale_row_bytes);
    fill_codes(&w, codes, &h->rng);
    if (w.scale_row_bytes) fill_scales(&w, scales, biases, &h->rng);
    w.codes = codes, w.scales = scales, w.biases = biases;
    *cpu = *dev = w;
    dev->row_bytes = (w.row_bytes + 15) / 16 * 16;
    dev->scale_row_bytes = (w.scale_row_bytes + 15) / 16 * 16;
    dev->codes = upload_rows(h, codes, rows, w.row_bytes, dev->row_bytes);
    dev->scales = upload_rows(h, scales, rows, w.scale_row_bytes, dev->scale_row_bytes);
    dev->biases = upload_rows(h, biases, rows, w.scale_row_bytes, dev->scale_row_bytes);
}

hn_weight *hn_make_weight(harness *h, fa_weight kind, int64_t rows, int64_t cols) {
    hn_weight *w = hn_host(h, sizeof *w);
    make_weight(h, kind, rows, cols, &w->at[HN_CPU], &w->at[HN_DEV]);
    return w;
}

hn_linear *hn_make_linear(harness *h, fa_weight kind, int64_t rows, int64_t cols, bool bias) {
    hn_linear *l = hn_host(h, sizeof *l);
    make_weight(h, kind, rows, cols, &l->at[HN_CPU].w, &l->at[HN_DEV].w);
    if (bias) {
        l->at[HN_CPU].bias = hn_floats(h, rows, 2);
        l->at[HN_DEV].bias = hn_upload(h, l->at[HN_CPU].bias, (size_t)rows * sizeof(float));
    }
    return l;
}

hn_norm *hn_make_norm(harness *h, int64_t dim, float offset, bool weight) {
    hn_norm *n = hn_host(h, sizeof *n);
    n->at[HN_CPU] = n->at[HN_DEV] = (fa_norm){.dim = dim, .eps = 1e-5f, .offset = offset};
    if (weight) {
        n->at[HN_CPU].w = hn_floats(h, dim, 1.5f);
        n->at[HN_DEV].w = hn_upload(h, n->at[HN_CPU].w, (size_t)dim * sizeof(float));
    }
    return n;
}

/* ---- batch and cache ---- */

static void fill_rows(harness *h, side_state *s, int i, const hn_seq *q) {
    fa_batch *b = &s->batch;
    const int row = b->row_start[i], n_out = q->n_out < 0 ? 0 : q->n_out ? q->n_out : 1;
    for (int j = 0; j < q->n; j++) {
        const int32_t pos = q->past + j;
        b->pos[row + j] = pos;
        b->row_seq[row + j] = i;
        b->kv_hi[row + j] = pos + 1;
        b->place[row + j] = pos;
        for (int g = 0; g < b->n_group; g++) {
            const int32_t w = h->o.window[g];
            b->kv_lo[g][row + j] = w && pos + 1 > w ? pos + 1 - w : 0;
        }
        if (j >= q->n - n_out) b->out_row[b->n_out++] = row + j;
        if (j % s->be->attend_tile == 0) {
            b->tile_seq[b->n_tile] = i;
            b->tile_row[b->n_tile++] = row + j;
        }
    }
}

/* Pages of every group: those that positions [first seen, len) lie on, physically in a shuffled order. */
static void fill_pages(harness *h, const hn_seq *seq, int n_seq) {
    int32_t *phys = hn_host(h, (size_t)h->n_phys * sizeof *phys);
    for (int g = 0; g < h->o.n_group; g++) {
        int n = 0;
        for (int i = 0; i < h->n_phys; i++) phys[i] = i;
        for (int i = h->n_phys - 1; i > 0; i--) {
            const int j = (int)(fa_rng_next(&h->rng) % (uint64_t)(i + 1));
            const int32_t t = phys[i];
            phys[i] = phys[j], phys[j] = t;
        }
        for (int i = 0; i < n_seq; i++) {
            const int32_t w = h->o.window[g], lowest = w && seq[i].past + 1 > w ? seq[i].past + 1 - w : 0;
            for (int p = 0; p < h->n_page; p++) {
                const bool used = (p + 1) * FA_PAGE > lowest && p * FA_PAGE < seq[i].past + seq[i].n;
                const int32_t page = used ? phys[n++] : -1;
                for (int s = 0; s < 2; s++) h->s[s].batch.page[g][(int64_t)i * h->s[s].batch.page_stride + p] = page;
            }
        }
    }
}

void hn_seqs(harness *h, const hn_seq *seq, int n_seq) {
    assert_true(n_seq <= h->o.max_seq);
    h->n_phys = 3; /* some that nobody uses */
    for (int i = 0; i < n_seq; i++) {
        assert_true(seq[i].past + seq[i].n <= h->o.max_ctx);
        h->n_phys += (seq[i].past + seq[i].n + FA_PAGE - 1) / FA_PAGE;
    }
    const int first_slot = (int)(fa_rng_next(&h->rng) % (uint64_t)h->o.max_seq);
    const uint64_t seed = fa_rng_next(&h->rng);
    for (int k = 0; k < 2; k++) {
        fa_batch *b = &h->s[k].batch;
        b->n_tok = b->n_out = b->n_dec = b->max_q = b->n_tile = 0;
        b->n_seq = n_seq;
        b->embd = NULL, b->embd_row = NULL, b->tree = NULL;
        for (int i = 0; i < n_seq; i++) {
            const hn_seq *q = &seq[i];
            assert_true(b->n_tok + q->n <= h->o.max_rows);
            b->row_start[i] = b->n_tok;
            b->slot[i] = (first_slot + 7 * i) % h->o.max_seq;
            b->len[i] = b->rope_len[i] = q->past + q->n;
            if (q->n == 1 && b->n_dec == i) b->n_dec++;
            if (q->n > b->max_q) b->max_q = q->n;
            fill_rows(h, &h->s[k], i, q);
            b->n_tok += q->n;
        }
        b->row_start[n_seq] = b->n_tok;
        for (int i = 0; i < b->n_tok; i++) b->tok[i] = (int32_t)(fa_rng_at(seed, (uint64_t)i) % (uint64_t)h->o.vocab);
        b->used = (size_t)((uint8_t *)(b->page[0] + (int64_t)n_seq * b->page_stride) - b->block);
    }
    fill_pages(h, seq, n_seq);
}

/* Offset of element d of position pos, head j of sequence i; -1: no page. */
static int64_t kv_at(const fa_kv *kv, const fa_batch *b, int i, int64_t j, int32_t pos, int64_t d) {
    const int32_t page = b->page[kv->group][(int64_t)i * b->page_stride + pos / FA_PAGE];
    if (page < 0) return -1;
    return (int64_t)page * (int64_t)kv->page_bytes + j * (int64_t)kv->head_bytes +
           (pos % FA_PAGE * kv->head_dim + d) * (int64_t)fa_dtype_size(kv->dtype);
}

/* The same of the scale of element d of an 8-bit cache. */
static int64_t scale_at(const fa_kv *kv, const fa_batch *b, int i, int64_t j, int32_t pos, int64_t d) {
    const int64_t head = kv_at(kv, b, i, j, pos / FA_PAGE * FA_PAGE, 0);
    return head < 0
               ? -1
               : head + FA_PAGE * kv->head_dim + 2 * (pos % FA_PAGE * fa_kvq_groups(kv->head_dim) + d / FA_KVQ_GROUP);
}

static void fill_cache_scales(harness *h, const fa_kv *kv, int i, int64_t j, int32_t pos, uint8_t *plane) {
    for (int64_t d = 0; kv->dtype == FA_I8 && d < kv->head_dim; d += FA_KVQ_GROUP) {
        const int64_t at = scale_at(kv, &h->s[HN_CPU].batch, i, j, pos, d);
        if (at >= 0) fill_float(FA_F16, plane + at, (0.5f + fa_rng_f32(&h->rng)) / 127);
    }
}

hn_kv *hn_make_kv(harness *h, int n_head, int head_dim, fa_dtype type, int group) {
    assert_true(h->n_kv < MAX_KV);
    kv_state *k = hn_host(h, sizeof *k);
    h->kv[h->n_kv++] = k;
    fa_kv *c = &k->kv.at[HN_CPU];
    c->n_head = n_head, c->head_dim = head_dim, c->n_page = h->n_phys, c->group = group, c->dtype = type;
    c->head_bytes = FA_PAGE * (size_t)fa_kv_row_bytes(type, head_dim);
    c->page_bytes = c->head_bytes * (size_t)n_head;
    k->bytes = c->page_bytes * (size_t)h->n_phys;
    c->k = hn_host(h, 2 * k->bytes);
    c->v = c->k + k->bytes;
    k->image = hn_host(h, 2 * k->bytes);
    memset(k->image, 0xFF, 2 * k->bytes);
    const fa_batch *b = &h->s[HN_CPU].batch;
    for (int i = 0; i < b->n_seq; i++)
        for (int32_t pos = 0; pos < b->len[i] - (b->row_start[i + 1] - b->row_start[i]); pos++)
            for (int64_t j = 0; j < n_head; j++) {
                for (int64_t d = 0; d < head_dim; d++) {
                    const int64_t at = kv_at(c, b, i, j, pos, d);
                    if (at < 0) continue;
                    for (int v = 0; v < 2; v++) {
                        uint8_t *to = k->image + (size_t)v * k->bytes + at;
                        const float x = 2 * fa_rng_f32(&h->rng) - 1;
                        if (type == FA_I8)
                            *to = (uint8_t)(int8_t)(127 * x);
                        else
                            fill_float(type, to, x);
                    }
                }
                fill_cache_scales(h, c, i, j, pos, k->image);
                fill_cache_scales(h, c, i, j, pos, k->image + k->bytes);
            }
    k->dev = device_memory(h, 2 * k->bytes);
    k->kv.at[HN_DEV] = *c;
    k->kv.at[HN_DEV].k = k->dev;
    k->kv.at[HN_DEV].v = k->dev + k->bytes;
    return &k->kv;
}

/* ---- recurrent states ---- */

static void cut_pieces(fa_batch *b, const hn_recur *r) {
    b->n_cut = 0;
    for (int i = 0; i < b->n_seq; i++) {
        const int row = b->row_start[i], n = b->row_start[i + 1] - row;
        b->state_in[i] = r[i].in, b->state_out[i] = r[i].out, b->seq_cut[i] = b->n_cut;
        for (int j = 0; j < n; j++) b->keep[row + j] = -1;
        for (int k = 0; k < 2; k++)
            if (r[i].keep[k]) b->keep[row + r[i].keep[k] - 1] = r[b->n_seq].out + 2 * i + k;
        for (int j = 0, last = 0; j < n; j++) {
            if (j && j - last < FA_SCAN && b->keep[row + j - 1] < 0) continue;
            b->cut[b->n_cut++] = row + j;
            last = j;
        }
    }
    b->seq_cut[b->n_seq] = b->n_cut;
    b->cut[b->n_cut] = b->n_tok;
}

hn_states *hn_make_states(harness *h, int64_t n_conv, int64_t n_scan, const hn_recur *recur) {
    const int n_seq = h->s[HN_CPU].batch.n_seq;
    const int64_t conv = (n_conv + 63) / 64 * 64, stride = conv + (n_scan + 63) / 64 * 64;
    layer_states *s = h->states = hn_host(h, sizeof *s);
    hn_recur *r = hn_host(h, ((size_t)n_seq + 1) * sizeof *r); /* the last one: first state for kept ones */
    memcpy(r, recur, (size_t)n_seq * sizeof *r);
    for (int i = 0; i < n_seq; i++) {
        const int most = r[i].in > r[i].out ? r[i].in : r[i].out;
        if (most >= r[n_seq].out) r[n_seq].out = most + 1;
    }
    s->n = r[n_seq].out + 2 * n_seq + 1;
    s->written = hn_host(h, (size_t)s->n);
    s->image = hn_floats(h, s->n * stride, 1);
    for (int k = 0; k < 2; k++) cut_pieces(&h->s[k].batch, r);
    const fa_batch *b = &h->s[HN_CPU].batch;
    for (int i = 0; i < n_seq; i++) s->written[b->state_out[i]] = 1;
    for (int i = 0; i < b->n_tok; i++)
        if (b->keep[i] >= 0) s->written[b->keep[i]] = 1;
    for (int i = 0; i < s->n; i++) {
        bool read = false;
        for (int k = 0; k < n_seq; k++) read = read || r[k].in == i;
        if (s->written[i] && !read) memset(s->image + i * stride, 0xFF, (size_t)stride * sizeof(float));
    }
    const size_t bytes = (size_t)(s->n * stride) * sizeof(float);
    s->at = hn_host(h, bytes);
    s->dev = hn_upload(h, s->image, bytes);
    s->st.at[HN_CPU] = (fa_state){s->at, s->at + conv, stride};
    s->st.at[HN_DEV] = (fa_state){s->dev, s->dev + conv, stride};
    s->st.n_conv = n_conv, s->st.n_scan = n_scan;
    return &s->st;
}

/* Written ones like the CPU's, the others as they were. */
static void compare_states(harness *h) {
    fa_error err = {0};
    const layer_states *s = h->states;
    const int64_t stride = s->st.at[HN_CPU].stride, conv = s->st.at[HN_CPU].scan - s->st.at[HN_CPU].conv;
    float *got = hn_host(h, (size_t)(s->n * stride) * sizeof *got);
    ok(h, h->dev->read(h->dev, got, s->dev, (size_t)(s->n * stride) * sizeof *got, &err), &err);
    for (int i = 0; i < s->n; i++) {
        const float *want = s->at + i * stride, *is = got + i * stride;
        if (s->written[i]) {
            if (s->st.n_conv)
                hn_compare(h, "state of the convolution", want + s->st.conv_at, is + s->st.conv_at, s->st.n_conv);
            if (s->st.n_scan) hn_compare(h, "state of the scan", want + conv, is + conv, s->st.n_scan);
        } else if (memcmp(is, s->image + i * stride, (size_t)stride * sizeof *is)) {
            fail_msg("%s: state %d was not to be written", h->what, i);
        }
    }
}

/* ---- running ---- */

fa_tensor hn_input(harness *h, fa_cx *cx, int side, const float *x, int64_t d0, int64_t d1, fa_dtype type) {
    side_state *s = &h->s[side];
    assert_true(s->n_in < MAX_INPUT);
    fa_tensor t = fa_cx_tensor(cx, FA_OP_NOP, d0, d1);
    if (side == HN_DEV) t.dtype = (uint8_t)type; /* the CPU computes in f32: it gets the rounded values */
    if (!t.data) return t;
    if (side == HN_CPU && type == FA_BF16) {
        float *r = hn_host(h, (size_t)(d0 * d1) * sizeof *r);
        for (int64_t i = 0; i < d0 * d1; i++) r[i] = fa_bf16_to_f32(fa_f32_to_bf16(x[i]));
        x = r;
    }
    s->in[s->n_in++] = (input){t, x};
    return t;
}

void hn_expect(harness *h, int side, const char *name, fa_tensor t) {
    side_state *s = &h->s[side];
    assert_true(s->n_ex < MAX_EXPECT);
    s->ex[s->n_ex++] = (expect){name, t};
}

void hn_expect_kv(harness *h, int side, hn_kv *kv) {
    if (side == HN_CPU) return;
    assert_true(h->n_ex_kv < MAX_KV);
    h->ex_kv[h->n_ex_kv++] = kv;
}

static void write_side(harness *h, int side, void *to, const void *from, size_t n) {
    fa_error err = {0};
    if (side == HN_CPU)
        memcpy(to, from, n);
    else if (n)
        ok(h, h->dev->write(h->dev, to, from, n, &err), &err);
}

/* The memory that every run starts from. */
static void restore(harness *h, int side) {
    fa_error err = {0};
    side_state *s = &h->s[side];
    if (side == HN_CPU)
        memset(s->arena.base, 0xFF, s->arena.committed);
    else if (s->arena.committed)
        ok(h, h->dev->fill(h->dev, s->arena.base, 0xFF, s->arena.committed, &err), &err);
    for (int i = 0; i < s->n_in; i++) {
        const int64_t n = fa_tensor_len(s->in[i].t);
        if (s->in[i].t.dtype == FA_F32) {
            write_side(h, side, s->in[i].t.data, s->in[i].x, (size_t)n * 4);
            continue;
        }
        uint16_t *r = hn_host(h, (size_t)n * 2);
        for (int64_t k = 0; k < n; k++) r[k] = fa_f32_to_bf16(s->in[i].x[k]);
        write_side(h, side, s->in[i].t.data, r, (size_t)n * 2);
    }
    for (int i = 0; i < h->n_kv; i++)
        write_side(h, side, h->kv[i]->kv.at[side].k, h->kv[i]->image, 2 * h->kv[i]->bytes);
    const layer_states *st = h->states;
    if (st)
        write_side(h, side, st->st.at[side].conv, st->image,
                   (size_t)(st->n * st->st.at[side].stride) * sizeof *st->image);
}

static int record(harness *h, int side, hn_body *body, void *arg, fa_error *err) {
    side_state *s = &h->s[side];
    if (s->be->forget) s->be->forget(s->be, &s->prog);
    s->prog.n = 0, s->prog.scratch = 0;
    s->prog.repeats = side == HN_DEV && h->repeats > 1;
    s->n_in = s->n_ex = 0;
    if (side == HN_DEV) h->n_ex_kv = 0;
    fa_arena_reset(&s->arena, 0);
    fa_cx cx = {.be = s->be, .arena = &s->arena, .prog = &s->prog, .batch = &s->batch, .layer = -1};
    body(&cx, side, arg);
    if (cx.err.code && err) *err = cx.err;
    return cx.err.code;
}

int hn_run_device(harness *h, hn_body *body, void *arg, fa_error *err) {
    int rc = record(h, HN_DEV, body, arg, err);
    if (rc) return rc;
    side_state *s = &h->s[HN_DEV];
    restore(h, HN_DEV);
    rc = s->be->run(s->be, &s->prog, &s->batch, NULL, err);
    return rc ? rc : s->be->wait(s->be, err);
}

float *hn_values(harness *h, int side, fa_tensor t) {
    fa_error err = {0};
    const int64_t n = fa_tensor_len(t);
    float *x = hn_host(h, (size_t)n * sizeof *x);
    if (!n) return x;
    fa_backend *be = h->s[side].be;
    if (side == HN_CPU)
        memcpy(x, t.data, (size_t)n * sizeof *x);
    else
        ok(h, be->fetch(be, t, 0, t.dim[0], x, &err), &err);
    return x;
}

/* The distance of neighbouring numbers of a type near x: two results that agree may be rounded to either side. */
static double step_of(fa_dtype type, float x) {
    int e;
    if (type == FA_F32 || !isfinite(x)) return 0;
    frexpf(x, &e);
    return ldexp(1, e - (type == FA_BF16 ? 8 : 11));
}

/* stored: the type that both were rounded to. */
static void compare_values(harness *h, const char *name, const float *want, const float *got, int64_t n,
                           fa_dtype stored) {
    double sum = 0, diff = 0, worst = -1;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        if (want[i] == got[i]) { /* infinities too */
            sum += isfinite(want[i]) ? (double)want[i] * want[i] : 0;
            continue;
        }
        const double e = fabs((double)want[i] - (double)got[i]), beyond = fmax(e - step_of(stored, want[i]), 0);
        sum += (double)want[i] * want[i], diff += e * e;
        if (isnan(e) || beyond > worst) worst = isnan(e) ? (double)INFINITY : beyond, at = i;
    }
    const double rms = sqrt(sum / (double)(n ? n : 1)), nmse = sum > 0 ? diff / sum : diff;
    const double limit = h->max_err * (rms > 1e-30 ? rms : 1);
    if (worst > limit || !(nmse <= h->nmse))
        fail_msg("%s: %s: value %lld of %lld is %.9g, the CPU's %.9g (off by %.3g of the rms, limit %.3g; nmse %.3g, "
                 "limit %.3g)",
                 h->what, name, (long long)at, (long long)n, (double)got[at], (double)want[at],
                 rms > 0 ? worst / rms : worst, h->max_err, nmse, h->nmse);
}

void hn_compare(harness *h, const char *name, const float *want, const float *got, int64_t n) {
    compare_values(h, name, want, got, n, FA_F32);
}

/* A value of an 8-bit cache on both sides; a neighbouring code is taken for the same, and counted. wide: by how much of
 * themselves the scales may differ. */
static int codes_value(size_t plane, int64_t at, int64_t scale, const uint8_t *cpu, const uint8_t *dev, float wide,
                       float *want, float *got) {
    float s[2];
    fa_to_f32(FA_F16, cpu + plane + scale, 1, s);
    fa_to_f32(FA_F16, dev + plane + scale, 1, s + 1);
    *want = (float)(int8_t)cpu[(int64_t)plane + at] * s[0];
    *got = (float)(int8_t)dev[(int64_t)plane + at] * s[1];
    if (fabsf(*want - *got) <= 1.02f * fmaxf(s[0], s[1]) + wide * fabsf(*want)) *got = *want;
    return cpu[(int64_t)plane + at] != dev[(int64_t)plane + at];
}

/* New positions like the CPU's, everything else as it was. */
static void compare_kv(harness *h, const kv_state *k, const uint8_t *dev) {
    const fa_kv *c = &k->kv.at[HN_CPU];
    const fa_batch *b = &h->s[HN_CPU].batch;
    const size_t size = fa_dtype_size(c->dtype);
    uint8_t *isnew = hn_host(h, k->bytes);
    const bool strict = h->max_err < 1e-3;
    int64_t n = 0, flips = 0, most = (int64_t)(2 * k->bytes / size);
    float *want = hn_host(h, (size_t)most * sizeof *want), *got = hn_host(h, (size_t)most * sizeof *got);
    for (int row = 0; row < b->n_tok; row++)
        for (int64_t j = 0; j < c->n_head; j++)
            for (int64_t d = 0; d < c->head_dim; d++) {
                const int64_t at = kv_at(c, b, b->row_seq[row], j, b->pos[row], d);
                if (at < 0) continue;
                memset(isnew + at, 1, size);
                if (c->dtype == FA_I8) {
                    const int64_t scale = scale_at(c, b, b->row_seq[row], j, b->pos[row], d);
                    memset(isnew + scale, 1, 2);
                    for (int v = 0; v < 2; v++, n++)
                        flips += codes_value((size_t)v * k->bytes, at, scale, c->k, dev, strict ? 1e-3f : 8e-3f,
                                             want + n, got + n);
                    continue;
                }
                for (int v = 0; v < 2; v++, n++) {
                    fa_to_f32(c->dtype, c->k + (size_t)v * k->bytes + at, 1, want + n);
                    fa_to_f32(c->dtype, dev + (size_t)v * k->bytes + at, 1, got + n);
                }
            }
    /* sums of f32 rarely round to another code; bf16 inputs often do */
    if (strict && flips > n / 100 + 2)
        fail_msg("%s: cache: %lld of %lld codes are not the CPU's", h->what, (long long)flips, (long long)n);
    compare_values(h, "cache", want, got, n, c->dtype);
    for (size_t i = 0; i < 2 * k->bytes; i++)
        if (!isnew[i % k->bytes] && dev[i] != k->image[i])
            fail_msg("%s: cache: byte %zu of %zu was %02x, is %02x, and belongs to no new row", h->what, i,
                     2 * k->bytes, k->image[i], dev[i]);
}

static void compare(harness *h) {
    fa_error err = {0};
    const side_state *c = &h->s[HN_CPU], *d = &h->s[HN_DEV];
    assert_int_equal(c->n_ex, d->n_ex);
    for (int i = 0; i < c->n_ex; i++) {
        assert_int_equal(fa_tensor_len(c->ex[i].t), fa_tensor_len(d->ex[i].t));
        hn_compare(h, c->ex[i].name, hn_values(h, HN_CPU, c->ex[i].t), hn_values(h, HN_DEV, d->ex[i].t),
                   fa_tensor_len(c->ex[i].t));
    }
    for (int i = 0; i < h->n_ex_kv; i++) {
        const kv_state *k = (const kv_state *)(const void *)h->ex_kv[i]; /* its first member */
        uint8_t *dev = hn_host(h, 2 * k->bytes);
        ok(h, h->dev->read(h->dev, dev, k->dev, 2 * k->bytes, &err), &err);
        compare_kv(h, k, dev);
    }
    if (h->states) compare_states(h);
}

void hn_run(harness *h, hn_body *body, void *arg) {
    fa_error err = {0};
    side_state *c = &h->s[HN_CPU], *d = &h->s[HN_DEV];
    ok(h, record(h, HN_CPU, body, arg, &err), &err);
    restore(h, HN_CPU);
    ok(h, c->be->run(c->be, &c->prog, &c->batch, NULL, &err), &err);
    ok(h, record(h, HN_DEV, body, arg, &err), &err);
    for (int i = 0; i < h->repeats; i++) {
        restore(h, HN_DEV);
        ok(h, d->be->run(d->be, &d->prog, &d->batch, NULL, &err), &err);
        ok(h, d->be->wait(d->be, &err), &err);
        compare(h);
    }
}

const char *hn_refused(harness *h, hn_body *body, void *arg) {
    fa_error *err = hn_host(h, sizeof *err);
    if (!record(h, HN_DEV, body, arg, err)) fail_msg("%s: was recorded, should have been refused", h->what);
    return err->msg;
}
