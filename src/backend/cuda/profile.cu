/* Where the time of a step goes: events around every launch, read when the step has ended, and named ranges for
 * NVIDIA's tools (NVTX).
 *
 * A profiled step runs without graph and without overlap of launches, so its sum is more than the step's usual time;
 * the shares are what it is for. A record's time is that of its kernels; one that put none on the stream under a name
 * gets the time between its beginning and the next record's. */
#include "backend/cuda/cu.h"

extern "C" {
#include "base/alloc.h"
}
#include <stdio.h>
#include <string.h>

#if !defined(FA_CUDA_EMU) && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define HAVE_NVTX 1
#endif

/* ---- profiles ---- */

enum { NAMES = FA_KERNEL_TIMES, NAME_BYTES = 64 };

/* What stands between event i and the next: a kernel, or (kernel NULL) the host's work on a record. */
typedef struct mark {
    cudaEvent_t event;
    const char *kernel; /* of names */
    int rec;            /* record's place in the program */
} mark;

struct cu_profile {
    mark *m; /* [cap]; events are kept */
    int n, cap;
    int rec, in_kernel;
    char names[NAMES][NAME_BYTES]; /* kernels seen, without template arguments */
    int n_name;
};

int cu_profile_start(fa_cuda *cu, fa_error *err) {
    if (!cu->profile_mem && !(cu->profile_mem = FA_NEW(struct cu_profile)))
        return fa_fail(err, FFAI_ENOMEM, "no memory for a profile");
    cu->profile = cu->profile_mem;
    cu->profile->n = 0;
    cu->profile->rec = -1;
    return 0;
}

/* "(rows_kernel<T, 4>)" -> "rows_kernel" */
static const char *intern(struct cu_profile *p, const char *text) {
    char name[NAME_BYTES];
    text += strspn(text, "( ");
    size_t n = strcspn(text, "<()");
    while (n > 0 && text[n - 1] == ' ') n--;
    if (n >= sizeof name) n = sizeof name - 1;
    memcpy(name, text, n);
    name[n] = 0;
    for (int i = 0; i < p->n_name; i++)
        if (strcmp(p->names[i], name) == 0) return p->names[i];
    if (p->n_name == NAMES) return p->names[NAMES - 1];
    memcpy(p->names[p->n_name], name, sizeof name);
    return p->names[p->n_name++];
}

/* The next mark; an event that cannot be made or recorded fails the step. */
static void put_mark(fa_cuda *cu, const char *kernel) {
    struct cu_profile *p = cu->profile;
    if (p->n == p->cap) {
        int cap = p->cap ? p->cap * 2 : 512;
        mark *m = (mark *)fa_realloc(p->m, (size_t)cap, sizeof *m);
        if (!m) {
            cu_fail(cu, FFAI_ENOMEM, "no memory for a profile");
            return;
        }
        memset(m + p->cap, 0, (size_t)(cap - p->cap) * sizeof *m);
        p->m = m;
        p->cap = cap;
    }
    mark *m = &p->m[p->n];
    fa_error err;
    int rc = m->event
                 ? 0
                 : cu_check(cu->dev, cudaEventCreateWithFlags(&m->event, cudaEventDefault), "making an event", &err);
    if (!rc) rc = cu_check(cu->dev, cudaEventRecord(m->event, cu->stream), "recording an event", &err);
    if (rc) {
        cu_fail(cu, rc, "no event for a profile");
        return;
    }
    m->kernel = kernel;
    m->rec = p->rec;
    p->n++;
}

void cu_profile_record(fa_cuda *cu) {
    cu->profile->rec++;
    put_mark(cu, NULL);
}
void cu_profile_begin(fa_cuda *cu, const char *kernel) { put_mark(cu, intern(cu->profile, kernel)); }
void cu_profile_end(fa_cuda *cu) { put_mark(cu, NULL); }

static void add_kernel(fa_kernel_time *list, const char *kernel, int op, double seconds) {
    for (int i = 0; i < FA_KERNEL_TIMES; i++) {
        fa_kernel_time *t = &list[i];
        if (t->kernel && (t->op != op || strcmp(t->kernel, kernel) != 0)) continue;
        t->kernel = kernel;
        t->op = op;
        t->calls++;
        t->seconds += seconds;
        return;
    }
}

/* Marks [from, to) are of record r; to is the mark after them. */
static int add_record(fa_cuda *cu, const fa_rec *r, int from, int to, const fa_run_opts *opts, fa_error *err) {
    const mark *m = cu->profile_mem->m;
    double kernels = 0, all = 0;
    int n_kernel = 0;
    for (int i = from; i < to; i++) {
        float ms = 0;
        int rc = cu_check(cu->dev, cudaEventElapsedTime(&ms, m[i].event, m[i + 1].event), "reading an event", err);
        if (rc) return rc;
        all += ms * 1e-3;
        if (!m[i].kernel) continue;
        n_kernel++;
        kernels += ms * 1e-3;
        if (opts->kernels) add_kernel(opts->kernels, m[i].kernel, r->op, ms * 1e-3);
    }
    if (!opts->times) return 0;
    fa_op_time *t = &opts->times[r->op];
    t->calls++;
    t->seconds += n_kernel ? kernels : all;
    t->bytes += r->bytes;
    t->flops += r->flops;
    return 0;
}

int cu_profile_stop(fa_cuda *cu, const fa_program *prog, const fa_run_opts *opts, fa_error *err) {
    struct cu_profile *p = cu->profile;
    if (!p) return 0;
    int rc = 0;
    put_mark(cu, NULL); /* the end of the last record */
    rc = cu_take_error(cu, err);
    cu->profile = NULL;
    if (!rc) rc = cu_check(cu->dev, cudaStreamSynchronize(cu->stream), "a step", err);
    for (int i = 0; !rc && i + 1 < p->n;) {
        int from = i, rec = p->m[i].rec;
        while (i + 1 < p->n && p->m[i].rec == rec) i++;
        if (rec >= 0 && rec < prog->n) rc = add_record(cu, &prog->rec[rec], from, i, opts, err);
    }
    return rc;
}

void cu_profile_free(fa_cuda *cu) {
    struct cu_profile *p = cu->profile_mem;
    if (!p) return;
    for (int i = 0; i < p->cap; i++)
        if (p->m[i].event) cudaEventDestroy(p->m[i].event);
    fa_free(p->m);
    fa_free(p);
    cu->profile = cu->profile_mem = NULL;
}

/* ---- ranges ---- */

#ifdef HAVE_NVTX

struct cu_ranges {
    nvtxDomainHandle_t domain;
    int layer; /* whose range is open; INT16_MIN: none */
    bool rec;  /* a record's range is open */
};

static void push(struct cu_ranges *r, const char *text) {
    nvtxEventAttributes_t a = {};
    a.version = NVTX_VERSION;
    a.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    a.messageType = NVTX_MESSAGE_TYPE_ASCII;
    a.message.ascii = text;
    nvtxDomainRangePushEx(r->domain, &a);
}

void cu_ranges_create(fa_cuda *cu) {
    nvtxDomainHandle_t domain = nvtxDomainCreateA("ffai"); /* NULL when no tool listens */
    if (!domain || !(cu->ranges = FA_NEW(struct cu_ranges))) return;
    cu->ranges->domain = domain;
    cu->ranges->layer = INT16_MIN;
}

void cu_ranges_record(fa_cuda *cu, const fa_rec *r) {
    struct cu_ranges *x = cu->ranges;
    int layer = r ? r->layer : INT16_MIN;
    if (x->rec) nvtxDomainRangePop(x->domain);
    x->rec = r != NULL;
    if (layer != x->layer) {
        char text[32];
        if (x->layer != INT16_MIN) nvtxDomainRangePop(x->domain);
        x->layer = layer;
        snprintf(text, sizeof text, layer < 0 ? "no layer" : "layer %d", layer);
        if (layer != INT16_MIN) push(x, text);
    }
    if (r) push(x, cu_op_name(r->op));
}

void cu_ranges_free(fa_cuda *cu) {
    if (!cu->ranges) return;
    nvtxDomainDestroy(cu->ranges->domain);
    fa_free(cu->ranges);
    cu->ranges = NULL;
}

#else

void cu_ranges_create(fa_cuda *cu) { (void)cu; }
void cu_ranges_record(fa_cuda *cu, const fa_rec *r) { (void)cu, (void)r; }
void cu_ranges_free(fa_cuda *cu) { (void)cu; }

#endif
