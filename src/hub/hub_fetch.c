/* The transfers: files of a repository, several at once and large ones in several ranges, by one libcurl multi handle
 * on the calling thread; the writer (hub_write.h) takes the bytes. A request that fails in a way that may pass is made
 * again later for what is missing; one that does not ends everything, and what has come so far stays for the next
 * attempt. */
#include "hub/hub_job.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum {
    SMALL = 1 << 20, /* shorter files are asked for as a whole */
    WINDOW = 256,    /* files that are looked at, from the first that is not finished */
    MAX_HOPS = 5,
    MAX_RESTARTS = 3,
    MAX_RENEWALS = 3,
    N_RATE = 32,
    SPARE = 64 << 20 /* bytes of the disk that stay free */
};

typedef struct fetch {
    fa_hub *h;
    CURLM *multi;
    fa_hub_writer *w;
    fa_hub_job *job;      /* [n] */
    size_t n, n_done, lo; /* job[0, lo) are finished */
    int n_conn, n_active;
    int64_t net; /* bytes that came over the network */
    double rate_t[N_RATE];
    int64_t rate_n[N_RATE];
    size_t n_rate;
    double last_tick;
} fetch;

static void wake(void *user) { curl_multi_wakeup((CURLM *)user); }

static int out_of_memory(const fa_hub_job *j, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory", j->what);
}

/* ---- bytes that arrive ---- */

/* The answer's head: is the body what was asked for? */
static bool check_answer(fa_hub_part *p) {
    fa_hub_job *j = p->job;
    long status = 0;
    curl_easy_getinfo((CURL *)p->easy, CURLINFO_RESPONSE_CODE, &status);
    int64_t from = p->at + (int64_t)p->got;
    p->checked = true;
    if (status == 206) {
        p->wrong = p->reply.range_at != from || (p->reply.range_total >= 0 && p->reply.range_total != j->f->size);
        j->known = true;
        return !p->wrong;
    }
    p->skip = status != 200;
    if (p->skip) return true;
    p->restart = from != 0 || j->n_part > 1;
    j->whole = p->ranged;
    return !p->restart;
}

/* Where there are no ranges one request goes on through the parts of the file. */
static bool next_block(fetch *x, fa_hub_part *p) {
    fa_hub_job *j = p->job;
    int64_t left = j->f->size - (p->at + (int64_t)p->got);
    size_t want = left < FA_HUB_BLOCK ? (size_t)left : FA_HUB_BLOCK, n = p->got;
    uint8_t *full = p->data;
    p->wrong = !j->whole || left <= 0;
    if (p->wrong) return false;
    p->data = (uint8_t *)fa_hub_writer_block(x->w);
    if (!p->data) {
        p->data = full;
        return false;
    }
    p->at += (int64_t)n;
    p->got = p->asked_got = 0;
    p->want = want;
    j->fed = p->at;
    j->next = p->at + (int64_t)want;
    fa_hub_writer_wait(x->w, 4);
    return fa_hub_writer_feed(x->w, &j->sink, full, n);
}

static size_t on_data(char *data, size_t one, size_t n, void *user) {
    fa_hub_part *p = (fa_hub_part *)user;
    fetch *x = NULL;
    (void)one;
    curl_easy_getinfo((CURL *)p->easy, CURLINFO_PRIVATE, (char **)&x);
    if (!p->checked && !check_answer(p)) return 0;
    if (p->skip) return n;
    x->net += (int64_t)n;
    for (size_t i = 0; i < n;) {
        if (p->got == p->want && !next_block(x, p)) return 0;
        size_t k = n - i < p->want - p->got ? n - i : p->want - p->got;
        memcpy(p->data + p->got, data + i, k);
        p->got += k;
        i += k;
    }
    return n;
}

/* ---- requests ---- */

static int begin_request(fetch *x, fa_hub_part *p, fa_error *err) {
    fa_hub_job *j = p->job;
    char range[64];
    CURL *c = curl_easy_init();
    if (!c) return out_of_memory(j, err);
    p->easy = c;
    p->checked = p->skip = p->wrong = p->restart = false;
    p->asked_got = p->got;
    p->reply.status = 0;
    int rc = fa_hub_prepare(x->h, c, j->moved ? j->moved : j->url, &p->reply, &p->headers, err);
    snprintf(range, sizeof range, "%lld-%lld", (long long)p->at + (long long)p->got,
             (long long)p->at + (long long)p->want - 1);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, p);
    curl_easy_setopt(c, CURLOPT_PRIVATE, x);
    p->ranged = j->f->size > SMALL || p->got;
    p->used = j->moved;
    if (p->ranged && curl_easy_setopt(c, CURLOPT_RANGE, range) != CURLE_OK) rc = out_of_memory(j, err);
    if (!rc && curl_multi_add_handle(x->multi, c) != CURLM_OK) rc = out_of_memory(j, err);
    if (rc) {
        curl_slist_free_all((struct curl_slist *)p->headers);
        curl_easy_cleanup(c);
        p->easy = p->headers = NULL;
        return rc;
    }
    p->state = FA_HUB_ACTIVE;
    j->n_active++;
    x->n_active++;
    return 0;
}

static void end_request(fetch *x, fa_hub_part *p) {
    if (!p->easy) return;
    curl_multi_remove_handle(x->multi, (CURL *)p->easy);
    curl_easy_cleanup((CURL *)p->easy);
    curl_slist_free_all((struct curl_slist *)p->headers);
    p->easy = p->headers = NULL;
    p->state = FA_HUB_IDLE;
    p->job->n_active--;
    x->n_active--;
}

static int restart(fetch *x, fa_hub_job *j, fa_error *err) {
    if (++j->restarts > MAX_RESTARTS) return fa_fail(err, FFAI_EIO, "%s: the transfer was cut too often", j->what);
    for (fa_hub_part *p = j->first; p; p = p->next) end_request(x, p);
    return fa_hub_job_reset(j, x->w, err);
}

/* ---- answers ---- */

static int redirected(fa_hub_part *p, const char *to, fa_error *err) {
    fa_hub_job *j = p->job;
    const char *from = j->moved ? j->moved : j->url;
    if (!to || !fa_hub_may_follow(from, to))
        return fa_fail(err, FFAI_EIO, "%s: redirected to an address that is not followed", j->what);
    if (++p->hops > MAX_HOPS) return fa_fail(err, FFAI_EIO, "%s: redirected without end", j->what);
    j->moved = fa_mem_printf(&j->h->mem, "%s", to);
    return j->moved ? 0 : out_of_memory(j, err);
}

/* The same later, or the end. */
static int again(fetch *x, fa_hub_part *p, CURLcode code, fa_error *err) {
    fa_hub_job *j = p->job;
    char host[256];
    if (p->got >= p->asked_got + (64 << 10) || (p->got > p->asked_got && p->got == p->want)) p->tries = 0;
    double wait = fa_hub_backoff(p->tries++, &p->reply);
    fa_hub_host(j->moved ? j->moved : j->url, host, sizeof host);
    if (wait < 0 && code)
        return fa_fail(err, FFAI_EIO, "%s: %s cannot be reached: %s", j->what, host, fa_hub_why(code));
    if (wait < 0 && p->reply.status / 100 == 2)
        return fa_fail(err, FFAI_EIO, "%s: %s ends the transfer early each time", j->what, host);
    if (wait < 0) return fa_hub_refused(x->h, j->what, &p->reply, err);
    if (j->whole) { /* what came cannot be gone on with */
        int rc = restart(x, j, err);
        if (rc) return rc;
        j->lock_again = fa_now() + wait;
        return 0;
    }
    p->not_before = fa_now() + wait;
    return 0;
}

static int settle(fetch *x, fa_hub_part *p, CURLcode code, fa_error *err) {
    fa_hub_job *j = p->job;
    char *to = NULL, host[256];
    curl_easy_getinfo((CURL *)p->easy, CURLINFO_RESPONSE_CODE, &p->reply.status);
    curl_easy_getinfo((CURL *)p->easy, CURLINFO_REDIRECT_URL, &to);
    long status = p->reply.status;
    int rc = 0;
    bool moved = code == CURLE_OK && status / 100 == 3;
    if (moved) rc = redirected(p, to, err); /* `to` belongs to the request */
    end_request(x, p);
    if (rc || moved) return rc;
    fa_hub_host(j->moved ? j->moved : j->url, host, sizeof host);
    if (p->wrong)
        return fa_fail(err, FFAI_EIO, "%s: %s sends other bytes than were asked for; the file should have %lld",
                       j->what, host, (long long)j->f->size);
    if (p->restart || (status == 416 && p->at)) return restart(x, j, err);
    if (!code && status / 100 == 2 && p->got == p->want && (!j->whole || p->at + (int64_t)p->got == j->f->size)) {
        p->state = FA_HUB_DONE;
        j->renewals = 0;
        return fa_hub_job_feed(j, x->w, false) ? 0 : out_of_memory(j, err);
    }
    if (code ? fa_hub_curl_again(code) : fa_hub_status_again(status) || status / 100 == 2)
        return again(x, p, code, err);
    if (code && code != CURLE_WRITE_ERROR)
        return fa_fail(err, FFAI_EIO, "%s: %s cannot be reached: %s", j->what, host, fa_hub_why(code));
    if (code) return out_of_memory(j, err);
    if (p->used && p->used != j->moved) return 0; /* another part noticed before */
    if (p->used && !fa_hub_same_origin(p->used, x->h->endpoint) && j->renewals++ < MAX_RENEWALS) {
        j->moved = NULL; /* such addresses hold for a while only: the hub gives another one */
        p->hops = 0;
        return 0;
    }
    return fa_hub_refused(x->h, j->what, &p->reply, err);
}

/* ---- the loop ---- */

static size_t window(const fetch *x) { return x->n - x->lo < WINDOW ? x->n : x->lo + WINDOW; }

/* Whether there is memory for one more part. The part that comes next in its file is always allowed, once the writer
 * has little to do: nothing else can free the blocks behind it. */
static bool room(const fetch *x, const fa_hub_job *j) {
    size_t queued = fa_hub_writer_queued(x->w), n = queued, most = (size_t)x->n_conn + 4;
    for (size_t i = x->lo; i < window(x); i++) n += (size_t)x->job[i].n_part;
    return n < most || (!j->n_part && queued < 2);
}

/* Gives the free connections work: `first` round, a request for each file that has none; then further parts of them. */
static int hand_out(fetch *x, bool first, fa_error *err) {
    double now = fa_now();
    for (size_t i = x->lo; i < window(x) && x->n_active < x->n_conn; i++) {
        fa_hub_job *j = &x->job[i];
        if (j->state == FA_HUB_WAITING && first && now >= j->lock_again) {
            int rc = fa_hub_job_start(j, x->w, err);
            if (rc) return rc;
            x->n_done += j->state == FA_HUB_FINISHED;
        }
        if (j->state != FA_HUB_RUNNING || now < j->lock_again || (first && j->n_active)) continue;
        for (fa_hub_part *p = j->first; p && x->n_active < x->n_conn; p = p->next) {
            if (p->state != FA_HUB_IDLE || now < p->not_before || (j->n_active && !j->known)) continue;
            int rc = begin_request(x, p, err);
            if (rc) return rc;
        }
        while (x->n_active < x->n_conn && j->next < j->f->size && !j->whole && (j->known || !j->n_part) && room(x, j)) {
            if (first && j->n_active) break;
            fa_hub_part *p = fa_hub_job_part(j, x->w);
            int rc = p ? begin_request(x, p, err) : out_of_memory(j, err);
            if (rc) return rc;
        }
    }
    return 0;
}

static int finish_jobs(fetch *x, fa_error *err) {
    while (x->lo < x->n && x->job[x->lo].state == FA_HUB_FINISHED) x->lo++;
    for (size_t i = x->lo; i < window(x); i++) {
        fa_hub_job *j = &x->job[i];
        if (j->state != FA_HUB_RUNNING) continue;
        fa_hub_sink_state s = fa_hub_writer_state(x->w, &j->sink);
        if (s.error) return fa_fail(err, FFAI_EIO, "%s: %s", j->tmp, strerror(s.error));
        if (!s.done || s.queued) continue;
        if (s.bad && j->mismatches++ == 0) { /* an old beginning may be to blame, or the network */
            j->moved = NULL;
            int rc = restart(x, j, err);
            if (rc) return rc;
            continue;
        }
        if (s.bad) {
            fa_hub_job_reset(j, x->w, NULL);
            return fa_fail(err, FFAI_EIO, "%s: its %s is %s, the hub says %s", j->what,
                           strlen(j->f->etag) == 64 ? "SHA-256" : "git blob id", j->sink.got, j->f->etag);
        }
        int rc = fa_hub_job_publish(j, err);
        if (rc) return rc;
        x->n_done++;
    }
    return 0;
}

/* Bytes per second over the last seconds. */
static double rate(fetch *x, double now) {
    size_t at = x->n_rate++ % N_RATE;
    x->rate_t[at] = now;
    x->rate_n[at] = x->net;
    size_t old = x->n_rate > N_RATE ? x->n_rate % N_RATE : 0;
    double t = now - x->rate_t[old];
    return t > 0 ? (double)(x->net - x->rate_n[old]) / t : 0;
}

static int report(fetch *x, bool last, fa_error *err) {
    double now = fa_now();
    if (!x->h->o.progress || (!last && now - x->last_tick < 0.1)) return 0;
    x->last_tick = now;
    ffai_hub_progress p = {.repo = x->h->id.repo, .n_file = (int64_t)x->n, .n_file_done = (int64_t)x->n_done};
    bool locked = false;
    for (size_t i = 0; i < x->n; i++) {
        const fa_hub_job *j = &x->job[i];
        p.bytes += j->f->size;
        p.bytes_done += fa_hub_job_bytes(j);
        locked |= j->state == FA_HUB_WAITING && j->lock_again > 0;
    }
    p.bytes_per_s = rate(x, now);
    if (!x->n_active && x->n_done < x->n && !fa_hub_writer_queued(x->w))
        p.waiting = locked ? "another program downloads it" : "the server is busy";
    if (x->h->o.progress(x->h->o.user, &p)) return 0;
    return fa_fail(err, FFAI_ECANCEL, "%s: interrupted", x->h->id.repo);
}

static int run_all(fetch *x, fa_error *err) {
    while (x->n_done < x->n) {
        int running, left;
        bool settled = false;
        int rc = hand_out(x, true, err);
        if (!rc) rc = hand_out(x, false, err);
        if (!rc && curl_multi_perform(x->multi, &running) != CURLM_OK)
            rc = fa_fail(err, FFAI_EINTERNAL, "%s: transfers cannot go on", x->h->id.repo);
        for (CURLMsg *m; !rc && (m = curl_multi_info_read(x->multi, &left));) {
            if (m->msg != CURLMSG_DONE) continue;
            fa_hub_part *p = NULL;
            for (size_t i = x->lo; i < window(x) && !p; i++)
                for (p = x->job[i].first; p && p->easy != m->easy_handle;) p = p->next;
            if (p) rc = settle(x, p, m->data.result, err);
            settled = true; /* something can begin at once */
        }
        if (!rc) rc = finish_jobs(x, err);
        if (!rc) rc = report(x, x->n_done == x->n, err);
        if (rc) return rc;
        if (x->n_done < x->n) curl_multi_poll(x->multi, NULL, 0, settled ? 0 : 50, NULL);
    }
    return 0;
}

/* ---- before and after ---- */

static int by_size(const void *a, const void *b) {
    int64_t x = (*(fa_hub_file *const *)a)->size, y = (*(fa_hub_file *const *)b)->size;
    return x < y ? 1 : x > y ? -1 : strcmp((*(fa_hub_file *const *)a)->etag, (*(fa_hub_file *const *)b)->etag);
}

/* One job for each content that is missing, the largest first. */
static int make_jobs(fetch *x, fa_error *err) {
    fa_hub_tree *t = &x->h->tree;
    size_t n = 0;
    fa_hub_file **f = FA_NEWN(fa_hub_file *, t->n);
    int rc = f && (x->job = FA_NEWN(fa_hub_job, t->n)) ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory", x->h->id.repo);
    for (size_t i = 0; i < t->n && !rc; i++)
        if (t->file[i].wanted && !t->file[i].have) f[n++] = &t->file[i];
    if (!rc && n) qsort(f, n, sizeof *f, by_size);
    for (size_t i = 0; i < n && !rc; i++) {
        if (i && !strcmp(f[i]->etag, f[i - 1]->etag)) continue;
        rc = fa_hub_job_init(&x->job[x->n], x->h, f[i], err);
        if (!rc) x->n++;
    }
    fa_free(f);
    return rc;
}

/* Refuses to begin what the disk cannot hold. */
static int check_space(const fetch *x, fa_error *err) {
    struct statvfs v;
    uint64_t need = 0;
    for (size_t i = 0; i < x->n; i++) {
        uint64_t more = (uint64_t)(x->job[i].f->size - x->job[i].f->begun);
        need = need > UINT64_MAX - more ? UINT64_MAX : need + more;
    }
    if (!x->n || statvfs(x->h->o.cache, &v) != 0) return 0;
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    if (need < UINT64_MAX - SPARE && need + SPARE <= room) return 0;
    return fa_fail(err, FFAI_EIO, "%s: %.2f GB are to be fetched, %s has room for %.2f GB", x->h->id.repo,
                   (double)need * 1e-9, x->h->o.cache, (double)room * 1e-9);
}

static int make_folders(const fa_hub *h, fa_error *err) {
    fa_buf blobs = {0};
    fa_buf_printf(&blobs, "%s/blobs", h->repo_dir);
    int rc =
        blobs.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo) : fa_hub_mkdirs(blobs.data, true, err);
    if (!rc) rc = fa_hub_mkdirs(h->lock_dir, true, err);
    fa_buf_free(&blobs);
    return rc;
}

int fa_hub_fetch(fa_hub *h, fa_error *err) {
    fetch x = {.h = h, .n_conn = h->o.n_connection > 0 ? h->o.n_connection : 8};
    int rc = make_folders(h, err);
    if (!rc) rc = make_jobs(&x, err);
    if (!rc) rc = check_space(&x, err);
    if (!rc && x.n && !(x.multi = curl_multi_init())) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo);
    if (!rc && x.n) rc = fa_hub_writer_start(&x.w, wake, x.multi, err);
    if (!rc && x.n) {
        curl_multi_setopt(x.multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)x.n_conn);
        rc = run_all(&x, err);
    }
    for (size_t i = 0; i < x.n && x.w; i++) { /* after an error: what came in order is kept */
        fa_hub_job *j = &x.job[i];
        for (fa_hub_part *p = j->first; p; p = p->next) end_request(&x, p);
        if (j->state == FA_HUB_RUNNING) fa_hub_job_feed(j, x.w, true);
        fa_hub_job_drop_parts(j, x.w);
    }
    fa_hub_writer_stop(x.w);
    for (size_t i = 0; i < x.n; i++) fa_hub_job_close(&x.job[i]);
    if (x.multi) curl_multi_cleanup(x.multi);
    fa_free(x.job);
    return rc;
}
