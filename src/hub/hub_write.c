/* The writer's thread and its queue. */
#define _GNU_SOURCE
#include "hub/hub_write.h"
#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { READ_STEP = 1 << 20, N_SPARE = 8 };

typedef struct block {
    struct block *next;
    fa_hub_sink *sink;
    uint8_t *data; /* NULL: bytes 0..n of the file itself */
    size_t n;
} block;

struct fa_hub_writer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    block *first, **last;
    size_t n_block;       /* queued or in the writer's hands */
    void *spare[N_SPARE]; /* blocks for use again */
    size_t n_spare;
    bool quit;
    void (*wake)(void *user);
    void *user;
};

/* ---- one block ---- */

static int write_block(fa_hub_sink *s, const uint8_t *data, size_t n, int64_t at) {
    while (n) {
        ssize_t k = pwrite(s->fd, data, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k < 0 ? errno : ENOSPC;
        data += k;
        at += k;
        n -= (size_t)k;
    }
    return 0;
}

/* Hashes the beginning of the file, which an earlier attempt left. */
static int hash_prefix(fa_hub_sink *s, size_t n) {
    uint8_t *buf = (uint8_t *)fa_calloc(READ_STEP, 1);
    if (!buf) return ENOMEM;
    int e = 0;
    for (size_t at = 0; at < n && !e;) {
        ssize_t k = pread(s->fd, buf, n - at < READ_STEP ? n - at : READ_STEP, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0)
            e = k < 0 ? errno : EIO;
        else if (!fa_hub_hash_add(s->hash, buf, (size_t)k))
            e = EIO;
        else
            at += (size_t)k;
    }
    fa_free(buf);
    return e;
}

/* Pieces small enough that a piece is hashed while it is in the cache that the write just read it into. */
static int take(fa_hub_sink *s, const block *b, int64_t at) {
    enum { PIECE = 256 << 10 };
    if (!b->data) return hash_prefix(s, b->n);
    for (size_t i = 0; i < b->n; i += PIECE) {
        size_t n = b->n - i < PIECE ? b->n - i : PIECE;
        int e = write_block(s, b->data + i, n, at + (int64_t)i);
        if (e) return e;
        if (!fa_hub_hash_add(s->hash, b->data + i, n)) return EIO;
    }
    return 0;
}

void *fa_hub_writer_block(fa_hub_writer *w) {
    pthread_mutex_lock(&w->lock);
    void *p = w->n_spare ? w->spare[--w->n_spare] : NULL;
    pthread_mutex_unlock(&w->lock);
    return p ? p : fa_realloc(NULL, FA_HUB_BLOCK, 1);
}

void fa_hub_writer_give(fa_hub_writer *w, void *data) {
    pthread_mutex_lock(&w->lock);
    bool keep = data && w->n_spare < N_SPARE;
    if (keep) w->spare[w->n_spare++] = data;
    pthread_mutex_unlock(&w->lock);
    if (!keep) fa_free(data);
}

static void *run(void *arg) {
    fa_hub_writer *w = (fa_hub_writer *)arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->first && !w->quit) pthread_cond_wait(&w->work, &w->lock);
        block *b = w->first;
        if (!b) break;
        if (!(w->first = b->next)) w->last = &w->first;
        fa_hub_sink *s = b->sink;
        int e = s->error;
        int64_t at = s->written;
        bool done = false, bad = false;
        pthread_mutex_unlock(&w->lock);

        if (!e) e = take(s, b, at);
        if (!e && at + (int64_t)b->n == s->size) {
            if (!fa_hub_hash_hex(s->hash, s->got)) e = EIO;
            done = !e;
            bad = done && strcmp(s->got, s->etag) != 0;
        }
        fa_hub_writer_give(w, b->data);

        pthread_mutex_lock(&w->lock);
        s->error = e;
        if (!e) s->written += (int64_t)b->n;
        s->done = done;
        s->bad = bad;
        s->queued--;
        w->n_block--;
        fa_free(b);
        pthread_cond_broadcast(&w->idle);
        pthread_mutex_unlock(&w->lock);
        w->wake(w->user);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the feeder's side ---- */

int fa_hub_writer_start(fa_hub_writer **out, void (*wake)(void *user), void *user, fa_error *err) {
    fa_hub_writer *w = FA_NEW(fa_hub_writer);
    sigset_t all, old;
    *out = NULL;
    if (!w) return fa_fail(err, FFAI_ENOMEM, "download: no memory");
    w->last = &w->first;
    w->wake = wake;
    w->user = user;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    pthread_cond_init(&w->idle, NULL);
    sigfillset(&all); /* Ctrl-C is the caller's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e) {
        fa_free(w);
        return fa_fail(err, FFAI_ENOMEM, "download: no thread: %s", strerror(e));
    }
    *out = w;
    return 0;
}

void fa_hub_writer_stop(fa_hub_writer *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->work);
    pthread_cond_destroy(&w->idle);
    while (w->n_spare) fa_free(w->spare[--w->n_spare]);
    fa_free(w);
}

bool fa_hub_writer_feed(fa_hub_writer *w, fa_hub_sink *s, void *data, size_t n) {
    block *b = FA_NEW(block);
    if (!b) {
        fa_free(data);
        return false;
    }
    b->sink = s;
    b->data = (uint8_t *)data;
    b->n = n;
    pthread_mutex_lock(&w->lock);
    *w->last = b;
    w->last = &b->next;
    w->n_block++;
    s->queued++;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    return true;
}

void fa_hub_writer_wait(fa_hub_writer *w, size_t most) {
    pthread_mutex_lock(&w->lock);
    while (w->n_block > most) pthread_cond_wait(&w->idle, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

size_t fa_hub_writer_queued(fa_hub_writer *w) {
    pthread_mutex_lock(&w->lock);
    size_t n = w->n_block;
    pthread_mutex_unlock(&w->lock);
    return n;
}

void fa_hub_writer_drain(fa_hub_writer *w, const fa_hub_sink *s) {
    pthread_mutex_lock(&w->lock);
    while (s->queued) pthread_cond_wait(&w->idle, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

fa_hub_sink_state fa_hub_writer_state(fa_hub_writer *w, const fa_hub_sink *s) {
    pthread_mutex_lock(&w->lock);
    fa_hub_sink_state st = {s->written, s->queued, s->error, s->done, s->bad};
    pthread_mutex_unlock(&w->lock);
    return st;
}
