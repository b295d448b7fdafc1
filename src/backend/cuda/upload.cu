/* Weights on their way from mapped files to the device.
 *
 * The copies of a list are cut into batches of at most PIECE device bytes, small copies together in one. Reader threads
 * take batch after batch: a reader brings the source pages in (ahead of its own faults), lays the bytes out in a pinned
 * buffer as they shall lie on the device, zeros between rows included, and sends them as one plain copy per span on a
 * stream of its own. With two buffers each it fills one while the other is under way; several readers are what it takes
 * to fill the bus, since one core copies slower than that, and to keep a disk busy.
 *
 * Threads and buffers live for one call, which is nothing next to a model; the first reader's buffers stay. */
#include "backend/cuda/cu.h"

extern "C" {
#include "base/alloc.h"
}
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    PIECE = 4 << 20,
    MAX_READER = 8,
    MIN_READER = 4, /* even on few cores: a reader also waits for disks */
    BUFFERS = 2,
    SPANS = 64,          /* most spans of one batch */
    SPAN_ALIGN = 16,     /* of spans within a buffer */
    ADVISE_MIN = 1 << 18 /* bytes of a source worth a system call */
};

/* Device bytes [from, from + bytes) of copy c, counted from its start. */
typedef struct span {
    const fa_copy *c;
    size_t from, bytes;
} span;

typedef struct batch {
    int n;
    span s[SPANS];
} batch;

typedef struct reader {
    pthread_t thread;
    cudaStream_t stream;
    uint8_t *buf[BUFFERS]; /* [PIECE] pinned */
    cudaEvent_t sent[BUFFERS];
    struct job *job;
} reader;

struct cu_upload {
    reader r[MAX_READER];
};

typedef struct job {
    cu_device *dev;
    const fa_copy *list;
    size_t n;
    pthread_mutex_t lock; /* of all below */
    size_t at, from;      /* what comes next: copy, device byte of it */
    fa_error err;         /* the first one; the others stop then */
} job;

static size_t pitch_of(const fa_copy *c) { return c->pitch > c->row_bytes ? c->pitch : c->row_bytes; }
static size_t total_of(const fa_copy *c) { return c->rows * pitch_of(c); }

/* The next spans in order, at most PIECE bytes with their alignment; b->n 0: nothing is left. */
static void take(job *j, batch *b) {
    size_t room = PIECE;
    b->n = 0;
    pthread_mutex_lock(&j->lock);
    while (!j->err.code && j->at < j->n && b->n < SPANS && room > 0) {
        const fa_copy *c = &j->list[j->at];
        size_t left = total_of(c) - j->from, n = left < room ? left : room;
        if (n > 0) b->s[b->n++] = {c, j->from, n};
        j->from += n;
        if (n == left) j->at++, j->from = 0;
        size_t used = (n + SPAN_ALIGN - 1) / SPAN_ALIGN * SPAN_ALIGN;
        room -= used < room ? used : room;
    }
    pthread_mutex_unlock(&j->lock);
}

/* cu_check for the readers, which share the device's record of its faults. */
static int check(job *j, cudaError_t rc) {
    if (rc == cudaSuccess) return 0;
    pthread_mutex_lock(&j->lock);
    fa_error err = {};
    int code = cu_check(j->dev, rc, "an upload", &err);
    if (!j->err.code) j->err = err;
    pthread_mutex_unlock(&j->lock);
    return code;
}

/* Asks the system for the source's pages at once instead of fault by fault. Both calls may fail without harm. */
static void bring_in(const uint8_t *p, size_t bytes) {
    if (bytes < ADVISE_MIN) return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), a = (uintptr_t)p / page * page;
    size_t n = (size_t)((uintptr_t)p + bytes - a);
    madvise((void *)a, n, MADV_WILLNEED); /* reads a whole piece ahead ... */
#ifdef MADV_POPULATE_READ
    madvise((void *)a, n, MADV_POPULATE_READ); /* ... and maps it in one go */
#endif
}

/* The span's bytes as they shall lie on the device: parts of rows, zeros between them. */
static void lay_out(const span *s, uint8_t *out) {
    const fa_copy *c = s->c;
    const uint8_t *host = (const uint8_t *)c->host;
    size_t pitch = pitch_of(c);
    if (pitch == c->row_bytes) {
        bring_in(host + s->from, s->bytes);
        memcpy(out, host + s->from, s->bytes);
        return;
    }
    size_t row = s->from / pitch, col = s->from % pitch, end = (s->from + s->bytes - 1) / pitch + 1;
    bring_in(host + row * c->row_bytes, (end - row) * c->row_bytes);
    for (size_t left = s->bytes; left > 0; row++, col = 0) {
        size_t n = pitch - col < left ? pitch - col : left;        /* of this row, with its pad */
        size_t real = col < c->row_bytes ? c->row_bytes - col : 0; /* of that, bytes of the source */
        if (real > n) real = n;
        memcpy(out, host + row * c->row_bytes + col, real);
        memset(out + real, 0, n - real);
        out += n;
        left -= n;
    }
}

static void read_all(reader *r) {
    job *j = r->job;
    batch b;
    int i = 0;
    if (check(j, cudaSetDevice(j->dev->index))) return;
    for (take(j, &b); b.n > 0; take(j, &b), i = (i + 1) % BUFFERS) {
        if (check(j, cudaEventSynchronize(r->sent[i]))) return; /* an event never recorded is done */
        size_t at = 0;
        for (int k = 0; k < b.n; k++) {
            const span *s = &b.s[k];
            lay_out(s, r->buf[i] + at);
            if (check(j, cudaMemcpyAsync((uint8_t *)s->c->dev + s->from, r->buf[i] + at, s->bytes,
                                         cudaMemcpyHostToDevice, r->stream)))
                return;
            at += (s->bytes + SPAN_ALIGN - 1) / SPAN_ALIGN * SPAN_ALIGN;
        }
        if (check(j, cudaEventRecord(r->sent[i], r->stream))) return;
    }
}

static void *reader_main(void *arg) {
    read_all((reader *)arg);
    return NULL;
}

static int open_reader(cu_device *dev, reader *r, fa_error *err) {
    int rc = 0;
    if (!r->stream) rc = cu_check(dev, cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking), "an upload", err);
    for (int i = 0; !rc && i < BUFFERS; i++) {
        if (!r->sent[i])
            rc = cu_check(dev, cudaEventCreateWithFlags(&r->sent[i], cudaEventDisableTiming), "an upload", err);
        if (!rc && !r->buf[i])
            rc = cu_check(dev, cudaHostAlloc((void **)&r->buf[i], PIECE, cudaHostAllocDefault), "pinned memory", err);
    }
    return rc;
}

static void close_reader(reader *r) {
    for (int i = 0; i < BUFFERS; i++) {
        if (r->sent[i]) cudaEventDestroy(r->sent[i]);
        if (r->buf[i]) cudaFreeHost(r->buf[i]);
    }
    if (r->stream) cudaStreamDestroy(r->stream);
    cudaGetLastError();
    memset(r, 0, sizeof *r);
}

static int n_reader_for(const job *j) {
    size_t total = 0;
    for (size_t i = 0; i < j->n; i++) total += total_of(&j->list[i]);
    long n = sysconf(_SC_NPROCESSORS_ONLN), most = (long)(total / PIECE + 1);
    if (n < MIN_READER) n = MIN_READER;
    if (n > MAX_READER) n = MAX_READER;
    return (int)(n < most ? n : most);
}

int cu_upload(fa_device *d, const fa_copy *list, size_t n, fa_error *err) {
    cu_device *dev = (cu_device *)d;
    int rc = cu_enter(dev, err), n_open = 0, n_thread = 0;
    if (!rc) rc = cu_check(dev, cudaStreamSynchronize(dev->stream), "an upload", err);
    if (rc || n == 0) return rc;
    if (!dev->up && !(dev->up = FA_NEW(struct cu_upload))) return fa_fail(err, FFAI_ENOMEM, "no memory for an upload");
    reader *r = dev->up->r;
    job j = {dev, list, n, PTHREAD_MUTEX_INITIALIZER, 0, 0, {}};
    for (int most = n_reader_for(&j); n_open < most; n_open++) {
        rc = open_reader(dev, &r[n_open], err);
        if (rc && (n_open == 0 || dev->lost.code)) return rc; /* fewer readers will do */
        if (rc) {
            close_reader(&r[n_open]);
            break;
        }
        r[n_open].job = &j;
    }
    for (; n_thread + 1 < n_open; n_thread++)
        if (pthread_create(&r[n_thread + 1].thread, NULL, reader_main, &r[n_thread + 1]) != 0) break;
    read_all(&r[0]); /* the caller reads too */
    for (int i = 1; i <= n_thread; i++) pthread_join(r[i].thread, NULL);
    for (int i = 0; i <= n_thread; i++) check(&j, cudaStreamSynchronize(r[i].stream)); /* even after an error */
    pthread_mutex_destroy(&j.lock);
    for (int i = 1; i < n_open; i++) close_reader(&r[i]); /* the first one stays for small uploads */
    if (err && j.err.code) *err = j.err;
    return j.err.code;
}

void cu_upload_free(cu_device *dev) {
    if (!dev->up) return;
    for (int i = 0; i < MAX_READER; i++) close_reader(&dev->up->r[i]);
    fa_free(dev->up);
    dev->up = NULL;
}
