/* The backend: the operation table, how batches get to the device, running programs record by record, results.
 *
 * A step is: the batch's live integers in one copy out of a ring of pinned buffers (the host may be steps ahead of the
 * device), then the records (graph.cu replays those of decode steps). Nothing of it waits. */
#include "backend/cuda/scan.h"

extern "C" {
#include "base/alloc.h"
}
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- errors of launches ---- */

void cu_fail(fa_cuda *cu, int code, const char *fmt, ...) {
    char text[400];
    va_list ap;
    if (cu->err.code) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (cu->rec && cu->rec->layer >= 0)
        fa_fail(&cu->err, code, "%s: %s of layer %d: %s", cu->dev->name, cu_op_name(cu->rec->op), cu->rec->layer, text);
    else if (cu->rec)
        fa_fail(&cu->err, code, "%s: %s: %s", cu->dev->name, cu_op_name(cu->rec->op), text);
    else
        fa_fail(&cu->err, code, "%s: %s", cu->dev->name, text);
}

void cu_launch_failed(fa_cuda *cu, const char *kernel, cudaError_t rc) {
    fa_error err;
    cu_check(cu->dev, rc, kernel, &err); /* notes a fault that the device does not survive */
    cu_fail(cu, err.code, "kernel %s: %s (%s)", kernel, cudaGetErrorString(rc), cudaGetErrorName(rc));
}

int cu_take_error(fa_cuda *cu, fa_error *err) {
    int code = cu->err.code;
    if (!code) return 0;
    if (cu->dev->lost.code) {
        if (err) *err = cu->dev->lost;
    } else {
        if (err) *err = cu->err;
        /* a chain of launches that broke off may have left counters behind */
        if (!cu->capturing)
            cu_check(cu->dev, cudaMemsetAsync(cu->counter, 0, CU_COUNTERS * sizeof *cu->counter, cu->stream), "a fill",
                     NULL);
    }
    cu->err.code = 0;
    return code;
}

static __global__ void fault_kernel() {
    cu_pdl_launch();
    cu_pdl_wait();
    CU_TRAP();
}

void cu_inject_launch(fa_cuda *cu, const char *kernel) {
    if (cu_injected(cu->dev, FA_INJECT_LAUNCH)) cu_launch_failed(cu, kernel, cudaErrorLaunchOutOfResources);
    if (cu_injected(cu->dev, FA_INJECT_FAULT)) CU_LAUNCH(cu, fault_kernel, dim3(1), 1, 0);
}

/* ---- operations ---- */

/* NULL: none. NOP and TAP have no kernels. */
static const cu_op *op_of(int op) {
    switch ((fa_op)op) {
    case FA_OP_EMBED: return &cu_op_embed;
    case FA_OP_ROPE_TABLE: return &cu_op_rope_table;
    case FA_OP_NORM: return &cu_op_norm;
    case FA_OP_LINEAR: return &cu_op_linear;
    case FA_OP_HEAD_NORM: return &cu_op_head_norm;
    case FA_OP_ROPE: return &cu_op_rope;
    case FA_OP_APPEND: return &cu_op_append;
    case FA_OP_ATTEND: return &cu_op_attend;
    case FA_OP_GLU: return &cu_op_glu;
    case FA_OP_ADD: return &cu_op_add;
    case FA_OP_ROWS: return &cu_op_rows;
    case FA_OP_SOFTCAP: return &cu_op_softcap;
    case FA_OP_SCALE: return &cu_op_scale;
    case FA_OP_CLAMP: return &cu_op_clamp;
    case FA_OP_COLS: return &cu_op_cols;
    case FA_OP_PICK_COLS: return &cu_op_pick_cols;
    case FA_OP_ROW_GATE: return &cu_op_row_gate;
    case FA_OP_ROUTE: return &cu_op_route;
    case FA_OP_MOE: return &cu_op_moe;
    case FA_OP_LORA: return &cu_op_lora;
    case FA_OP_LORA_EMBED: return &cu_op_lora_embed;
    case FA_OP_NORM_QKV: return &cu_op_norm_qkv;
    case FA_OP_LINEAR_ADD: return &cu_op_linear_add;
    case FA_OP_NORM_MLP_UP: return &cu_op_norm_mlp_up;
    case FA_OP_CONV: return &cu_op_conv;
    case FA_OP_SSM1: return &cu_op_ssm1;
    case FA_OP_SSD: return &cu_op_ssd;
    case FA_OP_DELTA: return &cu_op_delta;
    case FA_OP_GATE_NORM: return &cu_op_gate_norm;
    case FA_OP_SCALE_COLS: return &cu_op_scale_cols;
    case FA_OP_NOP:
    case FA_OP_TAP:
    case FA_OP_COUNT: break;
    }
    return NULL;
}

static bool is_empty_op(int op) { return op == FA_OP_NOP || op == FA_OP_TAP; }

static int cuda_needs(const fa_backend *be, const fa_rec *rec, size_t *work, size_t *scratch, fa_error *err) {
    const fa_cuda *cu = (const fa_cuda *)be;
    *work = *scratch = 0;
    if (is_empty_op(rec->op)) return 0;
    const cu_op *op = op_of(rec->op);
    if (!op || !op->launch) return fa_fail(err, FFAI_ENOTSUP, "cuda: there is no kernel for %s", cu_op_name(rec->op));
    int64_t n = op->work ? op->work(cu, rec, err) : 0;
    if (n < 0) return (int)n;
    *work = (size_t)n;
    return 0;
}

/* ---- batches ----
 * The live part of every array, one after the other: a decode step sends a few hundred bytes, however large the
 * engine's arrays are. Where an array lies on the device follows from the batch's host fields, so the same shape has
 * the same addresses. */

enum { STAGES = 8, ARRAY_ALIGN = 16 };

struct cu_stage {
    size_t bytes;         /* of each buffer */
    uint8_t *dev;         /* the batch that runs */
    uint8_t *buf[STAGES]; /* pinned; buf[0] owns them all */
    cudaEvent_t sent[STAGES];
    unsigned at; /* steps sent */
};

/* Visits the arrays of a batch: host address, bytes, where the device address goes. A host address of NULL: the batch
 * has none. */
template <typename F> static void each_array(const fa_batch *h, cu_batch *b, F visit) {
    const size_t tok = (size_t)h->n_tok * 4, seq = (size_t)h->n_seq * 4;
#define FA_A(field, size) visit((const void *)h->field, (size_t)(size), (const void **)&b->field)
    FA_A(tok, tok);
    FA_A(pos, tok * (size_t)h->n_axes);
    FA_A(row_start, seq + 4);
    FA_A(row_seq, tok);
    FA_A(slot, seq);
    FA_A(len, seq);
    FA_A(rope_len, seq);
    for (int g = 0; g < FA_MAX_GROUP; g++) FA_A(kv_lo[g], tok);
    FA_A(kv_hi, tok);
    FA_A(place, tok);
    FA_A(out_row, (size_t)h->n_out * 4);
    FA_A(tile_seq, (size_t)h->n_tile * 4);
    FA_A(tile_row, (size_t)h->n_tile * 4);
    FA_A(adapt, seq * (size_t)h->n_adapt);
    if (h->n_cut) { /* recurrent layers */
        FA_A(state_in, seq);
        FA_A(state_out, seq);
        FA_A(keep, tok);
        FA_A(cut, (size_t)h->n_cut * 4 + 4);
        FA_A(seq_cut, seq + 4);
    }
    FA_A(embd_row, tok);
    FA_A(tree, tok * 2);
    FA_A(page[0], seq * (size_t)h->page_stride); /* all groups: they stand side by side */
#undef FA_A
}

/* At most how many there are. */
static size_t most_arrays(void) {
    fa_batch h;
    cu_batch b;
    size_t n = 0;
    memset(&h, 0, sizeof h);
    h.n_cut = 1;
    each_array(&h, &b, [&](const void *, size_t, const void **) { n++; });
    return n;
}

static void stage_free_buffers(fa_cuda *cu) {
    struct cu_stage *st = cu->stage;
    cu->dev->d.release(&cu->dev->d, st->dev); /* waits for steps that read it */
    if (st->buf[0]) cudaFreeHost(st->buf[0]);
    cudaGetLastError();
    st->dev = NULL;
    memset(st->buf, 0, sizeof st->buf);
    st->bytes = 0;
}

/* Room for batches of so many bytes. */
static int stage_room(fa_cuda *cu, size_t bytes, fa_error *err) {
    struct cu_stage *st = cu->stage;
    if (bytes <= st->bytes) return 0;
    stage_free_buffers(cu);
    bytes = (bytes + 4095) / 4096 * 4096;
    st->dev = (uint8_t *)cu->dev->d.alloc(&cu->dev->d, bytes, "batch integers", err);
    if (!st->dev) return FFAI_ENOMEM;
    int rc = cu_check(cu->dev, cudaHostAlloc((void **)&st->buf[0], bytes * STAGES, cudaHostAllocDefault),
                      "pinned memory for batches", err);
    if (rc) return rc;
    for (int i = 1; i < STAGES; i++) st->buf[i] = st->buf[0] + (size_t)i * bytes;
    st->bytes = bytes;
    return 0;
}

static int stage_create(fa_cuda *cu, const fa_batch *batch, fa_error *err) {
    struct cu_stage *st = cu->stage = FA_NEW(struct cu_stage);
    if (!st) return fa_fail(err, FFAI_ENOMEM, "no memory for a backend");
    int rc = stage_room(cu, (batch ? batch->block_bytes : 0) + most_arrays() * ARRAY_ALIGN, err);
    for (int i = 0; !rc && i < STAGES; i++)
        rc = cu_check(cu->dev, cudaEventCreateWithFlags(&st->sent[i], cudaEventDisableTiming), "making an event", err);
    return rc;
}

static void stage_free(fa_cuda *cu) {
    struct cu_stage *st = cu->stage;
    if (!st) return;
    stage_free_buffers(cu);
    for (int i = 0; i < STAGES; i++)
        if (st->sent[i]) cudaEventDestroy(st->sent[i]);
    cudaGetLastError();
    fa_free(st);
}

static size_t round_up(size_t n) { return (n + ARRAY_ALIGN - 1) / ARRAY_ALIGN * ARRAY_ALIGN; }

/* Page tables of the other groups, from the first one's. */
static int place_pages(const fa_cuda *cu, const fa_batch *h, cu_batch *b, fa_error *err) {
    for (int g = 1; g < FA_MAX_GROUP; g++) {
        if (!h->page[g]) continue;
        ptrdiff_t off = h->page[g] - h->page[0];
        if (off < 0 || off >= h->page_stride)
            return fa_fail(err, FFAI_EINTERNAL, "%s: page table %d does not stand beside the first one", cu->dev->name,
                           g);
        b->page[g] = b->page[0] + off;
    }
    return 0;
}

/* Sends the batch and fills *b with the device's view of it. */
static int send_batch(fa_cuda *cu, const fa_batch *h, cu_batch *b, fa_error *err) {
    struct cu_stage *st = cu->stage;
    memset(b, 0, sizeof *b); /* graphs compare it bytewise */
    b->n_tok = h->n_tok, b->n_seq = h->n_seq, b->n_out = h->n_out, b->n_dec = h->n_dec, b->max_q = h->max_q;
    b->n_tile = h->n_tile, b->n_axes = h->n_axes, b->page_stride = h->page_stride, b->n_adapt = h->n_adapt,
    b->n_cut = h->n_cut;
    b->embd = h->embd;
    b->last = cu->last;
    size_t bytes = 0, at = 0;
    each_array(h, b, [&](const void *host, size_t n, const void **) { bytes += host ? round_up(n) : 0; });
    int rc = stage_room(cu, bytes, err);
    unsigned slot = st->at % STAGES;
    if (!rc && st->at >= STAGES) rc = cu_check(cu->dev, cudaEventSynchronize(st->sent[slot]), "sending a batch", err);
    if (rc) return rc;
    each_array(h, b, [&](const void *host, size_t n, const void **dev) {
        if (!host) return;
        memcpy(st->buf[slot] + at, host, n);
        *dev = st->dev + at;
        at += round_up(n);
    });
    rc = place_pages(cu, h, b, err);
    if (rc || at == 0) return rc;
    st->at++;
    rc = cu_check(cu->dev, cudaMemcpyAsync(st->dev, st->buf[slot], at, cudaMemcpyHostToDevice, cu->stream),
                  "sending a batch", err);
    return rc ? rc : cu_check(cu->dev, cudaEventRecord(st->sent[slot], cu->stream), "sending a batch", err);
}

/* ---- results ---- */

enum { FETCH_BYTES = 1 << 20 };

static float bf16_value(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* bytes [0, n) of p to out as f32, through the pinned buffer. */
static int fetch_bytes(fa_cuda *cu, const uint8_t *p, size_t n, bool bf16, float *out, fa_error *err) {
    uint8_t *buf = cu->fetch;
    for (size_t at = 0; at < n; at += FETCH_BYTES) {
        size_t m = n - at < FETCH_BYTES ? n - at : (size_t)FETCH_BYTES;
        int rc = cu_check(cu->dev, cudaMemcpyAsync(buf, p + at, m, cudaMemcpyDeviceToHost, cu->stream), "a read", err);
        if (!rc) rc = cu_check(cu->dev, cudaStreamSynchronize(cu->stream), "a step", err);
        if (rc) return rc;
        if (!bf16)
            memcpy(out + at / 4, buf, m);
        else
            for (size_t i = 0; i < m / 2; i++) out[at / 2 + i] = bf16_value(((const uint16_t *)(const void *)buf)[i]);
    }
    return 0;
}

static int cuda_fetch(fa_backend *be, fa_tensor t, int64_t row, int64_t n, float *out, fa_error *err) {
    fa_cuda *cu = (fa_cuda *)be;
    int rc = cu_enter(cu->dev, err);
    if (rc) return rc;
    if (t.dtype != FA_F32 && t.dtype != FA_BF16)
        return fa_fail(err, FFAI_EINTERNAL, "%s: a fetch of dtype %d", cu->dev->name, t.dtype);
    if (!t.data || row < 0 || n < 0 || row + n > t.dim[0])
        return fa_fail(err, FFAI_EINTERNAL, "%s: a fetch of rows %lld to %lld of %lld", cu->dev->name, (long long)row,
                       (long long)(row + n), (long long)(t.data ? t.dim[0] : 0));
    bool bf16 = t.dtype == FA_BF16;
    size_t row_bytes = (size_t)(t.dim[1] * t.dim[2] * t.dim[3]) * (bf16 ? 2 : 4);
    return fetch_bytes(cu, (const uint8_t *)t.data + (size_t)row * row_bytes, (size_t)n * row_bytes, bf16, out, err);
}

static int cuda_wait(fa_backend *be, fa_error *err) {
    fa_cuda *cu = (fa_cuda *)be;
    int rc = cu_enter(cu->dev, err);
    return rc ? rc : cu_check(cu->dev, cudaStreamSynchronize(cu->stream), "a step", err);
}

/* ---- running ---- */

static int run_tap(fa_cuda *cu, const fa_rec *r, const fa_run_opts *opts, fa_error *err) {
    fa_tensor t = r->in[0];
    t.data = fa_calloc((size_t)fa_tensor_len(t), sizeof(float));
    if (!t.data) return fa_fail(err, FFAI_ENOMEM, "no memory for tap %s", r->p.tap.name);
    int rc = cuda_fetch(&cu->be, r->in[0], 0, t.dim[0], (float *)t.data, err);
    t.dtype = FA_F32;
    if (!rc) opts->tap(opts->tap_user, r->p.tap.name, r->layer, t);
    fa_free(t.data);
    return rc;
}

int cu_run_plain(fa_cuda *cu, const fa_program *prog, const cu_batch *b, const fa_run_opts *tap, fa_error *err) {
    int rc = 0;
    cu->digits = cu->gated = NULL;
    for (int i = 0; i < prog->n && !rc && !cu->err.code; i++) {
        const fa_rec *r = cu->rec = &prog->rec[i];
        if (cu->ranges) cu_ranges_record(cu, r);
        if (cu->profile) cu_profile_record(cu);
        if (r->op == FA_OP_TAP && tap) rc = run_tap(cu, r, tap, err);
        if (is_empty_op(r->op)) continue;
        const int done = r->op == FA_OP_NORM   ? cu_stream_normed(cu, r, prog->n - i)
                         : r->op == FA_OP_CONV ? cu_scan_step(cu, r, prog->n - i, b)
                                               : 0;
        if (done) {
            for (int k = 1; k < done && cu->profile; k++) cu_profile_record(cu); /* of records that took no time */
            i += done - 1;
            continue;
        }
        const cu_op *op = op_of(r->op);
        if (op && op->launch)
            op->launch(cu, r, b);
        else
            cu_fail(cu, FFAI_ENOTSUP, "there is no kernel");
    }
    /* of launches that looked at nothing themselves */
    cudaError_t e = rc || cu->err.code ? cudaSuccess : cudaGetLastError();
    if (e != cudaSuccess) cu_launch_failed(cu, "of the step", e);
    cu->rec = cu->gated = NULL;
    if (cu->ranges) cu_ranges_record(cu, NULL);
    int code = cu_take_error(cu, rc ? NULL : err);
    return rc ? rc : code;
}

static int cuda_run(fa_backend *be, fa_program *prog, const fa_batch *batch, const fa_run_opts *opts, fa_error *err) {
    fa_cuda *cu = (fa_cuda *)be;
    cu_batch b;
    int rc = cu_enter(cu->dev, err);
    if (!rc) rc = send_batch(cu, batch, &b, err);
    if (rc) return rc;
    bool tap = opts && opts->tap, profile = opts && (opts->times || opts->kernels);
    if (prog->repeats && !tap && !profile) return cu_graph_run(cu, prog, &b, err);
    if (profile) rc = cu_profile_start(cu, err);
    if (!rc) rc = cu_run_plain(cu, prog, &b, tap ? opts : NULL, err);
    if (profile) {
        int rc2 = cu_profile_stop(cu, prog, opts, rc ? NULL : err);
        if (!rc) rc = rc2;
    }
    return rc;
}

/* Few sizes, so that few programs and graphs serve all; the waste is small where it costs time. */
static int cuda_bucket(const fa_backend *be, int n) {
    (void)be;
    int b = 1;
    if (n <= 16) {
        while (b < n) b *= 2;
        return b;
    }
    return n <= 64 ? (n + 15) / 16 * 16 : (n + 63) / 64 * 64;
}

/* ---- creating ---- */

static void cuda_free(fa_backend *be) {
    fa_cuda *cu = (fa_cuda *)be;
    if (!cu) return;
    cu_enter(cu->dev, NULL); /* when it is lost the calls below fail, and what they would free is gone with it */
    if (!cu->dev->lost.code) cu_check(cu->dev, cudaStreamSynchronize(cu->stream), "waiting for its work", NULL);
    cu_sampler_free(cu);
    cu_blas_free(cu);
    cu_graph_free(cu);
    cu_profile_free(cu);
    cu_ranges_free(cu);
    stage_free(cu);
    cu->dev->d.release(&cu->dev->d, cu->counter);
    cu->dev->d.release(&cu->dev->d, cu->last);
    if (cu->fetch) cudaFreeHost(cu->fetch);
    cudaGetLastError();
    fa_free(cu);
}

/* n zeros of 4 bytes */
static int alloc_zeros(cu_device *dev, void **out, size_t n, const char *what, fa_error *err) {
    *out = dev->d.alloc(&dev->d, n * 4, what, err);
    return *out ? dev->d.fill(&dev->d, *out, 0, n * 4, err) : FFAI_ENOMEM;
}

static int create_parts(fa_cuda *cu, const fa_backend_opts *o, fa_error *err) {
    int rc = stage_create(cu, o->batch, err);
    if (!rc) rc = alloc_zeros(cu->dev, (void **)&cu->counter, CU_COUNTERS, "counters", err);
    if (!rc) rc = alloc_zeros(cu->dev, (void **)&cu->last, (size_t)cu->n_slot + 1, "picked tokens", err);
    if (!rc)
        rc = cu_check(cu->dev, cudaHostAlloc((void **)&cu->fetch, FETCH_BYTES, cudaHostAllocDefault), "pinned memory",
                      err);
    if (!rc) rc = cu_blas_create(cu, err);
    if (!rc) rc = cu_sampler_create(cu, err);
    if (!rc) cu_ranges_create(cu);
    return rc;
}

static void fill_table(fa_cuda *cu, bool exact) {
    fa_backend *be = &cu->be;
    be->name = "cuda";
    be->isa = cu->isa;
    be->exact = exact;
    be->attend_tile = CU_ATTEND_TILE;
    be->n_thread = 1;
    be->dev = &cu->dev->d;
    be->act = exact ? FA_F32 : FA_BF16;
    for (int i = 0; i < FA_OP_COUNT; i++) be->has_op[i] = is_empty_op(i) || (op_of(i) && op_of(i)->launch);
    be->needs = cuda_needs;
    be->run = cuda_run;
    be->wait = cuda_wait;
    be->fetch = cuda_fetch;
    be->bucket = cuda_bucket;
    be->forget = cu_graph_forget;
    be->history = cu_history;
    be->pick = cu_pick;
    be->picked = cu_picked;
    be->free = cuda_free;
}

int cu_backend_create(fa_device *d, fa_backend **out, const fa_backend_opts *o, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    *out = NULL;
    int rc = cu_enter(dev, err);
    if (rc) return rc;
    fa_cuda *cu = FA_NEW(fa_cuda);
    if (!cu) return fa_fail(err, FFAI_ENOMEM, "no memory for the cuda backend");
    cu->dev = dev;
    cu->stream = dev->stream;
    cu->n_sm = dev->n_sm;
    cu->arch = dev->arch;
    cu->smem_max = dev->smem_max;
    cu->pdl = dev->arch >= 90;
    cu->n_slot = o->n_slot > 0 ? o->n_slot : 1;
    cu->max_ctx = o->max_ctx;
    cu->vocab = o->vocab;
    snprintf(cu->isa, sizeof cu->isa, "sm_%d", dev->arch);
    fill_table(cu, o->exact);
    rc = create_parts(cu, o, err);
    if (rc) {
        cuda_free(&cu->be);
        return rc;
    }
    *out = &cu->be;
    return 0;
}
