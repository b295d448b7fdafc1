/* Files and parts of a download. */
#define _GNU_SOURCE
#include "hub/hub_job.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int fa_hub_job_init(fa_hub_job *j, fa_hub *h, fa_hub_file *f, fa_error *err) {
    memset(j, 0, sizeof *j);
    j->h = h;
    j->f = f;
    j->lock_fd = j->sink.fd = -1;
    j->blob = fa_mem_printf(&h->mem, "%s/blobs/%s", h->repo_dir, f->etag);
    j->tmp = fa_mem_printf(&h->mem, "%s/blobs/%s.incomplete", h->repo_dir, f->etag);
    j->lock = fa_mem_printf(&h->mem, "%s/%s.lock", h->lock_dir, f->etag);
    j->what = fa_mem_printf(&h->mem, "%s: %s", h->id.repo, f->name);
    char *middle = fa_mem_printf(&h->mem, "%s/resolve", h->id.repo);
    if (!j->blob || !j->tmp || !j->lock || !j->what || !middle)
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    return fa_hub_url(h, &j->url, err, middle, h->tree.commit, f->name);
}

static int open_copy(fa_hub_job *j, fa_hub_writer *w, fa_error *err) {
    struct stat st;
    fa_hub_sink *s = &j->sink;
    s->fd = open(j->tmp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (s->fd < 0 || fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return fa_fail(err, FFAI_EIO, "%s: cannot be written: %s", j->tmp, s->fd < 0 ? strerror(errno) : "not a file");
    int64_t begun = (int64_t)st.st_size;
    if (begun > j->f->size && ftruncate(s->fd, 0) != 0)
        return fa_fail(err, FFAI_EIO, "%s: %s", j->tmp, strerror(errno));
    if (begun > j->f->size) begun = 0;
    j->f->begun = begun;
    s->hash = fa_hub_hash_new(strlen(j->f->etag), j->f->size);
    s->size = j->f->size;
    s->etag = j->f->etag;
    s->path = j->tmp;
    j->next = j->fed = begun;
    if (!s->hash || ((begun || !s->size) && !fa_hub_writer_feed(w, s, NULL, (size_t)begun)))
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", j->what);
    return 0;
}

int fa_hub_job_start(fa_hub_job *j, fa_hub_writer *w, fa_error *err) {
    struct stat st;
    j->lock_fd = fa_hub_lock(j->lock, err);
    if (j->lock_fd == -2) return FFAI_EIO;
    if (j->lock_fd < 0) {
        j->lock_again = fa_now() + 0.2;
        return 0;
    }
    if (stat(j->blob, &st) == 0 && S_ISREG(st.st_mode) && (int64_t)st.st_size == j->f->size) {
        j->foreign = true;
        j->state = FA_HUB_FINISHED;
        fa_hub_job_close(j);
        return 0;
    }
    j->state = FA_HUB_RUNNING;
    return open_copy(j, w, err);
}

fa_hub_part *fa_hub_job_part(fa_hub_job *j, fa_hub_writer *w) {
    fa_hub_part *p = FA_NEW(fa_hub_part);
    int64_t left = j->f->size - j->next;
    size_t want = left < FA_HUB_BLOCK ? (size_t)left : FA_HUB_BLOCK;
    if (!p || !(p->data = (uint8_t *)fa_hub_writer_block(w))) {
        fa_free(p);
        return NULL;
    }
    p->job = j;
    p->at = j->next;
    p->want = want;
    j->next += (int64_t)want;
    if (j->last)
        j->last->next = p;
    else
        j->first = p;
    j->last = p;
    j->n_part++;
    return p;
}

static void pop_part(fa_hub_job *j, fa_hub_writer *w) {
    fa_hub_part *p = j->first;
    if (!(j->first = p->next)) j->last = NULL;
    fa_hub_reply_free(&p->reply);
    if (p->data) fa_hub_writer_give(w, p->data);
    fa_free(p);
    j->n_part--;
}

bool fa_hub_job_feed(fa_hub_job *j, fa_hub_writer *w, bool all) {
    while (j->first && j->first->state == FA_HUB_DONE) {
        fa_hub_part *p = j->first;
        void *data = p->data;
        size_t n = p->got;
        p->data = NULL;
        pop_part(j, w);
        j->fed += (int64_t)n;
        if (!fa_hub_writer_feed(w, &j->sink, data, n)) return false;
    }
    if (!all || !j->first || !j->first->got) return true;
    fa_hub_part *p = j->first;
    void *data = p->data;
    size_t n = p->got;
    p->data = NULL;
    pop_part(j, w);
    j->fed += (int64_t)n;
    return fa_hub_writer_feed(w, &j->sink, data, n);
}

void fa_hub_job_drop_parts(fa_hub_job *j, fa_hub_writer *w) {
    while (j->first) pop_part(j, w);
    j->next = j->fed;
}

int fa_hub_job_reset(fa_hub_job *j, fa_hub_writer *w, fa_error *err) {
    fa_hub_sink *s = &j->sink;
    fa_hub_job_drop_parts(j, w);
    fa_hub_writer_drain(w, s);
    fa_hub_hash_free(s->hash);
    s->hash = fa_hub_hash_new(strlen(j->f->etag), j->f->size);
    s->written = 0;
    s->done = s->bad = false;
    j->next = j->fed = j->f->begun = 0;
    j->known = j->whole = false;
    if (!s->hash) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", j->what);
    if (ftruncate(s->fd, 0) != 0) return fa_fail(err, FFAI_EIO, "%s: %s", j->tmp, strerror(errno));
    return 0;
}

int fa_hub_job_publish(fa_hub_job *j, fa_error *err) {
    struct stat st;
    /* where locks do not work somebody may have cut the file in the meantime */
    if (fstat(j->sink.fd, &st) != 0 || (int64_t)st.st_size != j->f->size)
        return fa_fail(err, FFAI_EIO, "%s: somebody else writes to it", j->tmp);
    if (rename(j->tmp, j->blob) != 0) return fa_fail(err, FFAI_EIO, "%s: %s", j->blob, strerror(errno));
    j->state = FA_HUB_FINISHED;
    fa_hub_job_close(j);
    return 0;
}

void fa_hub_job_close(fa_hub_job *j) {
    if (j->sink.fd >= 0) close(j->sink.fd);
    if (j->lock_fd >= 0) close(j->lock_fd);
    j->sink.fd = j->lock_fd = -1;
    fa_hub_hash_free(j->sink.hash);
    j->sink.hash = NULL;
}

int64_t fa_hub_job_bytes(const fa_hub_job *j) {
    if (j->state == FA_HUB_FINISHED) return j->f->size;
    int64_t n = j->state == FA_HUB_RUNNING ? j->fed : j->f->begun;
    for (const fa_hub_part *p = j->first; p; p = p->next) n += (int64_t)p->got;
    return n;
}
