/* Sessions: the tokens and the cache of a sequence in a file.
 *
 * A header of HEAD_BYTES (read_head names its fields), then the payload: the adapters that made it, the tokens, the
 * rotation lengths where the model's rotation depends on them, layer by layer the keys and the values as [head,
 * position, head_dim] for the positions that the layer's page group holds, and the recurrent state where the model has
 * one. No page numbers: what page a position lies on is the loader's affair. Little-endian, as every machine that ffai
 * runs on. */
#define _GNU_SOURCE
#include "base/alloc.h"
#include "base/map.h"
#include "base/smap.h"
#include "cache/state.h"
#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, HEAD_BYTES = 96, BLOCK = 1 << 18 /* bytes that are hashed and moved at a time */ };
enum { DEVICE_FAILED = -2 };

static const char magic[8] = {'f', 'f', 'a', 'i', 's', 'e', 's', 's'};

typedef struct head {
    uint32_t dtype, n_layer, n_group;
    uint64_t model, payload_hash;
    int64_t n_tok, n_kept;        /* tokens; of those, the first that are in the cache */
    uint32_t first[FA_MAX_GROUP]; /* first position that a group holds */
    bool lens;                    /* rotation lengths follow the tokens */
    uint32_t n_adapter;
    int64_t payload; /* bytes */
} head;

static void put(uint8_t *p, uint64_t v, int n) {
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get(const uint8_t *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static void write_head(const head *h, uint8_t *p) {
    memset(p, 0, HEAD_BYTES);
    memcpy(p, magic, 8);
    put(p + 8, VERSION, 4);
    put(p + 12, h->dtype, 4);
    put(p + 16, h->model, 8);
    put(p + 24, h->payload_hash, 8);
    put(p + 32, (uint64_t)h->n_tok, 8);
    put(p + 40, (uint64_t)h->n_kept, 8);
    put(p + 48, h->n_layer, 4);
    put(p + 52, h->n_group, 4);
    for (int g = 0; g < FA_MAX_GROUP; g++) put(p + 56 + 4 * g, h->first[g], 4);
    put(p + 72, h->lens, 4);
    put(p + 76, h->n_adapter, 4);
    put(p + 80, (uint64_t)h->payload, 8);
    put(p + 88, fa_hash(p, 88), 8);
}

/* What the model is: its config, its tensors' names, types and shapes, and a few bytes of each, so that two fine-tunes
 * of one model differ. -1: no memory. */
static int model_hash(const ffai_model *m, uint64_t *out) {
    const char *config = ffai_model_config_text(m);
    if (!*config) return -1;
    uint64_t h[4] = {fa_hash(config, strlen(config)), m->synth.fmt, m->synth.bits, m->synth.group};
    h[0] = fa_hash(h, sizeof h);
    for (int64_t i = 0; i < m->dims.n_layer; i++) {
        h[1] = (uint64_t)m->spec[i].n_head;
        h[2] = (uint64_t)m->spec[i].head_dim;
        h[3] = (uint64_t)m->spec[i].window | (uint64_t)m->spec[i].shared << 32;
        h[0] = fa_hash(h, sizeof h);
        h[1] = (uint64_t)m->spec[i].n_conv;
        h[2] = (uint64_t)m->spec[i].n_scan;
        if (h[1] | h[2]) h[0] = fa_hash(h, sizeof h);
    }
    for (size_t i = 0; i < fa_ckpt_count(m->ckpt); i++) {
        const fa_ckpt_tensor *t = fa_ckpt_at(m->ckpt, i);
        h[1] = fa_hash(t->name, strlen(t->name)) ^ fa_hash(t->type_name, strlen(t->type_name));
        h[2] = fa_hash(t->dim, t->n_dim * sizeof t->dim[0]) + t->bytes;
        h[3] = 0;
        for (size_t k = 0; k < 4 && t->bytes >= 64; k++)
            h[3] = h[3] * 31 + fa_hash(t->data + (t->bytes - 64) / 4 * k, 64);
        h[0] = fa_hash(h, sizeof h);
    }
    *out = h[0];
    return 0;
}

/* ---- the payload, in order ---- */

/* A file that is written or read block by block; the hash is over all blocks. */
typedef struct stream {
    int fd;
    bool writes;
    uint8_t *buf;  /* [BLOCK] */
    size_t at, n;  /* writing: buf[0..at) is filled; reading: buf[at..n) is left */
    int64_t ahead; /* reading: bytes of the payload that are not in buf yet */
    uint64_t hash;
    int error;    /* errno, or -1: the file ended, or DEVICE_FAILED */
    fa_error why; /* DEVICE_FAILED */
} stream;

static void move_block(stream *s, size_t n) {
    for (uint8_t *p = s->buf, *end = p + n; p < end && !s->error;) {
        ssize_t k = s->writes ? write(s->fd, p, (size_t)(end - p)) : read(s->fd, p, (size_t)(end - p));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0)
            s->error = k ? errno : -1;
        else
            p += k;
    }
    uint64_t h[2] = {s->hash, s->error ? 0 : fa_hash(s->buf, n)};
    s->hash = fa_hash(h, sizeof h);
}

static void flush(stream *s) {
    if (s->at) move_block(s, s->at);
    s->at = 0;
}

static void refill(stream *s) {
    s->n = s->ahead < BLOCK ? (size_t)s->ahead : BLOCK;
    s->at = 0;
    s->ahead -= (int64_t)s->n;
    if (s->n)
        move_block(s, s->n);
    else
        s->error = -1;
}

/* Moves n bytes between the file and data; NULL: read and dropped. */
static void move(stream *s, void *data, size_t n) {
    uint8_t *p = (uint8_t *)data;
    while (n && !s->error) {
        if (!s->writes && s->at == s->n) refill(s);
        size_t room = s->writes ? BLOCK - s->at : s->n - s->at, k = n < room ? n : room;
        if (s->error) return;
        if (s->writes)
            memcpy(s->buf + s->at, p, k);
        else if (p)
            memcpy(p, s->buf + s->at, k);
        s->at += k;
        if (p) p += k;
        n -= k;
        if (s->writes && s->at == BLOCK) flush(s);
    }
}

/* Keys or values of one layer, wherever they lie: page p of the sequence is at base + table[p] * page_bytes. */
typedef struct plane {
    const fa_kv *l;
    uint8_t *base;
    const int32_t *table; /* -1: no page */
} plane;

/* Rows of `row` bytes, FA_PAGE of them at `first` in a head's part of a page: positions from .. to; those whose page
 * the slot lacks are skipped. */
static void move_rows(stream *s, const plane *p, int64_t h, size_t first, size_t row, int32_t from, int32_t to) {
    const fa_kv *l = p->l;
    for (int32_t pos = from, next; pos < to; pos = next) {
        int32_t page = p->table[pos / FA_PAGE];
        next = (pos / FA_PAGE + 1) * FA_PAGE;
        if (next > to) next = to;
        uint8_t *at = p->base + (size_t)(page < 0 ? 0 : page) * l->page_bytes + (size_t)h * l->head_bytes + first +
                      (size_t)(pos % FA_PAGE) * row;
        move(s, page < 0 ? NULL : at, (size_t)(next - pos) * row);
    }
}

/* Head by head; an 8-bit head's scales follow its codes. */
static void move_plane(stream *s, const plane *p, const head *h) {
    const fa_kv *l = p->l;
    const size_t row = (size_t)l->head_dim * fa_dtype_size(l->dtype),
                 rest = (size_t)fa_kv_row_bytes(l->dtype, l->head_dim) - row;
    const int32_t from = (int32_t)h->first[l->group], to = (int32_t)h->n_kept;
    for (int64_t j = 0; j < l->n_head; j++) {
        move_rows(s, p, j, 0, row, from, to);
        if (rest) move_rows(s, p, j, FA_PAGE * row, rest, from, to);
    }
}

/* Pages of a device's plane to or from staging memory, where page p of the sequence is number p; to_device: back. */
static void stage_pages(stream *s, fa_device *d, const plane *p, uint8_t *stage, int32_t n_page, bool to_device) {
    size_t bytes = p->l->page_bytes;
    for (int32_t i = 0; i < n_page && !s->error; i++) {
        if (p->table[i] < 0) continue;
        uint8_t *there = p->base + (size_t)p->table[i] * bytes, *here = stage + (size_t)i * bytes;
        int rc = to_device ? d->write(d, there, here, bytes, &s->why) : d->read(d, here, there, bytes, &s->why);
        if (rc) s->error = DEVICE_FAILED;
    }
}

/* A plane at a time goes through host memory, because the file has whole heads one after the other, pages have all. */
static void move_device_cache(stream *s, const fa_kv_cache *c, int slot, const head *h) {
    int32_t n_page = (int32_t)((h->n_kept + FA_PAGE - 1) / FA_PAGE);
    size_t most = 0;
    for (int i = 0; i < c->n_own; i++) most = c->own[i]->page_bytes > most ? c->own[i]->page_bytes : most;
    uint8_t *stage = (uint8_t *)fa_calloc((size_t)n_page, most);
    int32_t *number = FA_NEWN(int32_t, (size_t)n_page);
    if (!stage || !number) s->error = ENOMEM;
    for (int i = 0; i < 2 * c->n_own && !s->error; i++) {
        const fa_kv *l = c->own[i / 2];
        plane there = {l, i % 2 ? l->v : l->k, c->group[l->group].table + (int64_t)slot * c->page_stride};
        plane here = {l, stage, number};
        for (int32_t p = 0; p < n_page; p++) number[p] = there.table[p] < 0 ? -1 : p;
        if (s->writes) stage_pages(s, c->dev, &there, stage, n_page, false);
        move_plane(s, &here, h);
        if (!s->writes) stage_pages(s, c->dev, &there, stage, n_page, true);
    }
    fa_free(stage);
    fa_free(number);
}

static void move_cache(stream *s, const fa_kv_cache *c, int slot, const head *h) {
    if (c->dev) {
        move_device_cache(s, c, slot, h);
        return;
    }
    for (int i = 0; i < c->n_own; i++) {
        const fa_kv *l = c->own[i];
        const int32_t *table = c->group[l->group].table + (int64_t)slot * c->page_stride;
        move_plane(s, &(plane){l, l->k, table}, h);
        move_plane(s, &(plane){l, l->v, table}, h);
    }
}

/* The recurrent state after h->n_kept tokens; at: where it lies. */
static void move_state(stream *s, const fa_states *st, float *at) {
    size_t bytes = (size_t)st->stride * sizeof *at;
    if (!st->dev) {
        move(s, at, bytes);
        return;
    }
    float *stage = FA_NEWN(float, (size_t)st->stride);
    if (!stage) s->error = ENOMEM;
    if (!s->error && s->writes && st->dev->read(st->dev, stage, at, bytes, &s->why)) s->error = DEVICE_FAILED;
    move(s, stage, bytes);
    if (!s->error && !s->writes && st->dev->write(st->dev, at, stage, bytes, &s->why)) s->error = DEVICE_FAILED;
    fa_free(stage);
}

/* An adapter in a file. */
typedef struct used_adapter {
    uint64_t hash;
    float scale;
    uint32_t zero;
} used_adapter;

/* Bytes of the payload; -1: more than there can be. */
static int64_t payload_bytes(const ffai_engine *e, const head *h) {
    const fa_kv_cache *c = e->kv;
    int64_t sum = 4 * (h->n_tok + (h->lens ? h->n_kept : 0)) + (int64_t)h->n_adapter * (int64_t)sizeof(used_adapter);
    for (int i = 0; i < c->n_own; i++) {
        const fa_kv *l = c->own[i];
        int64_t rows = h->n_kept - h->first[l->group], bytes;
        if (__builtin_mul_overflow(rows, 2 * l->n_head * fa_kv_row_bytes(l->dtype, l->head_dim), &bytes) ||
            __builtin_add_overflow(sum, bytes, &sum))
            return -1;
    }
    if (c->states) sum += c->states->stride * (int64_t)sizeof(float);
    return sum;
}

/* ---- saving ---- */

/* Scales of the adapters that made what a slot holds. */
static float *use_of(const ffai_engine *e, int slot) { return e->slot_use + (int64_t)slot * FA_ADAPTERS; }

static void write_adapters(stream *s, const ffai_engine *e, int slot) {
    for (int k = 0; k < e->adapters.n; k++) {
        used_adapter a = {0, use_of(e, slot)[k], 0};
        if (a.scale == 0) continue;
        a.hash = fa_adapter_hash(e, k);
        move(s, &a, sizeof a);
    }
}

static int describe(ffai_engine *e, int slot, int64_t n_tok, head *h, const char *path, fa_error *err) {
    *h = (head){.dtype = (uint32_t)e->kv->dtype,
                .n_layer = (uint32_t)e->kv->n_layer,
                .n_group = (uint32_t)e->kv->n_group,
                .n_tok = n_tok,
                .n_kept = e->kv->len[slot],
                .lens = e->kept_len != NULL};
    for (int g = 0; g < e->kv->n_group; g++) {
        const int32_t *table = e->kv->group[g].table + (int64_t)slot * e->kv->page_stride;
        while (h->first[g] < h->n_kept && table[h->first[g] / FA_PAGE] < 0) h->first[g] += FA_PAGE;
    }
    for (int k = 0; k < e->adapters.n; k++) h->n_adapter += use_of(e, slot)[k] != 0;
    h->payload = payload_bytes(e, h);
    return model_hash(e->m, &h->model) ? fa_fail(err, FFAI_ENOMEM, "%s: no memory for the model's config", path) : 0;
}

static int write_file(int fd, ffai_engine *e, int slot, const int32_t *ids, head *h, uint8_t *buf, fa_error *why) {
    uint8_t head_bytes[HEAD_BYTES] = {0};
    stream s = {.fd = fd, .writes = true, .buf = buf};
    memcpy(s.buf, head_bytes, HEAD_BYTES); /* its place: what stands there is known at the end */
    move_block(&s, HEAD_BYTES);
    s.hash = 0;
    write_adapters(&s, e, slot);
    move(&s, (void *)(uintptr_t)ids, (size_t)h->n_tok * sizeof *ids);
    if (h->lens) move(&s, e->kept_len + (int64_t)slot * e->n_ctx, (size_t)h->n_kept * sizeof *ids);
    move_cache(&s, e->kv, slot, h);
    const fa_states *st = e->kv->states;
    if (st) move_state(&s, st, st->mem + fa_states_find(st, slot, (int32_t)h->n_kept) * st->stride);
    flush(&s);
    h->payload_hash = s.hash;
    write_head(h, head_bytes);
    memcpy(s.buf, head_bytes, HEAD_BYTES);
    if (!s.error && lseek(fd, 0, SEEK_SET) != 0) s.error = errno;
    if (!s.error) move_block(&s, HEAD_BYTES);
    if (!s.error && fsync(fd) != 0) s.error = errno;
    *why = s.why;
    return s.error;
}

/* The folder's own entry, as far as the system lets us. */
static void sync_folder(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) slash[slash == path] = 0;
    int fd = open(slash ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)!fsync(fd);
    close(fd);
}

static int save(ffai_engine *e, int slot, const int32_t *ids, head *h, const char *path, char *temp, uint8_t *buf,
                fa_error *err) {
    int fd = mkostemp(temp, O_CLOEXEC), bad;
    if (fd < 0) return fa_fail(err, FFAI_EIO, "%s: %s", temp, strerror(errno));
    fa_error why = {0};
    bad = write_file(fd, e, slot, ids, h, buf, &why);
    if (close(fd) != 0 && !bad) bad = errno;
    if (!bad && rename(temp, path) != 0) bad = errno;
    if (bad) {
        unlink(temp);
        if (bad == DEVICE_FAILED) return fa_fail(err, why.code, "%s: %s", path, why.msg);
        return fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(bad));
    }
    sync_folder(temp);
    return 0;
}

int ffai_session_save(ffai_request *r, const char *path, ffai_error *err) {
    ffai_engine *e;
    int64_t n;
    int slot;
    bool waits;
    const float *use;
    head h;
    if (!path) return fa_fail(err, FFAI_EINVAL, "ffai_session_save: path is NULL");
    const int32_t *ids = fa_request_tokens(r, &e, &n, &slot, &use, &waits);
    if (!waits && slot < 0) slot = fa_slot_holding(e, ids, n, use);
    if (waits || slot < 0)
        return fa_fail(err, FFAI_EINVAL, "%s: %s", path,
                       waits ? "the request has not begun" : "the request's cache is gone: its slot was used again");
    if (fa_path_exists(path) && !fa_path_is_file(path)) return fa_fail(err, FFAI_EIO, "%s: not a regular file", path);
    int rc = describe(e, slot, n, &h, path, err);
    if (rc) return rc;
    fa_buf temp = {0};
    uint8_t *buf = (uint8_t *)fa_calloc(BLOCK, 1);
    fa_buf_printf(&temp, "%s.XXXXXX", path);
    if (!buf || temp.failed)
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for a session", path);
    else
        rc = save(e, slot, ids, &h, path, temp.data, buf, err);
    fa_buf_free(&temp);
    fa_free(buf);
    return rc;
}

/* ---- loading ---- */

static int bad_file(fa_error *err, const char *path, const char *what) {
    return fa_fail(err, FFAI_EFORMAT, "%s: %s", path, what);
}

/* Reads and checks the header against the engine and the file's size. */
static int read_head(ffai_engine *e, const uint8_t *p, int64_t size, head *h, const char *path, fa_error *err) {
    uint64_t model;
    if (memcmp(p, magic, 8) != 0) return bad_file(err, path, "not a session of ffai");
    if (get(p + 8, 4) != VERSION)
        return fa_fail(err, FFAI_ENOTSUP, "%s: session format %llu, this build reads %d", path,
                       (unsigned long long)get(p + 8, 4), VERSION);
    if (get(p + 88, 8) != fa_hash(p, 88)) return bad_file(err, path, "the header of the session is damaged");
    *h = (head){.dtype = (uint32_t)get(p + 12, 4),
                .model = get(p + 16, 8),
                .payload_hash = get(p + 24, 8),
                .n_tok = (int64_t)get(p + 32, 8),
                .n_kept = (int64_t)get(p + 40, 8),
                .n_layer = (uint32_t)get(p + 48, 4),
                .n_group = (uint32_t)get(p + 52, 4),
                .lens = get(p + 72, 4) != 0,
                .n_adapter = (uint32_t)get(p + 76, 4),
                .payload = (int64_t)get(p + 80, 8)};
    for (int g = 0; g < FA_MAX_GROUP; g++) h->first[g] = (uint32_t)get(p + 56 + 4 * g, 4);
    if (model_hash(e->m, &model)) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the model's config", path);
    if (h->model != model || h->n_layer != (uint32_t)e->kv->n_layer || h->n_group != (uint32_t)e->kv->n_group ||
        h->lens != (e->kept_len != NULL))
        return fa_fail(err, FFAI_EINVAL, "%s: the session of another model than %s", path, fa_ckpt_path(e->m->ckpt));
    fa_dtype t = e->kv->dtype;
    if (h->dtype != (uint32_t)t)
        return fa_fail(err, FFAI_EINVAL, "%s: the session's cache is %s, the engine's is %s", path,
                       fa_kv_type_name((fa_dtype)(h->dtype < FA_DTYPE_COUNT ? h->dtype : FA_DTYPE_COUNT)),
                       fa_kv_type_name(t));
    if (h->n_tok > e->n_ctx)
        return fa_fail(err, FFAI_ELIMIT, "%s: the session has %lld tokens, the context holds %d", path,
                       (long long)h->n_tok, e->n_ctx);
    bool ok = h->n_kept > 0 && h->n_kept <= h->n_tok && h->n_adapter <= FA_ADAPTERS;
    for (int g = 0; ok && g < e->kv->n_group; g++)
        ok = h->first[g] < h->n_kept && (e->kv->group[g].window || !h->first[g]);
    if (!ok || payload_bytes(e, h) != h->payload) return bad_file(err, path, "the sizes in the session are impossible");
    if (size != HEAD_BYTES + h->payload)
        return fa_fail(err, FFAI_EFORMAT, "%s: %lld bytes, a session of %lld tokens has %lld", path, (long long)size,
                       (long long)h->n_tok, (long long)(HEAD_BYTES + h->payload));
    return 0;
}

static int open_session(int *fd, ffai_engine *e, head *h, const char *path, fa_error *err) {
    struct stat st;
    uint8_t p[HEAD_BYTES];
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(errno));
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) return fa_fail(err, FFAI_EIO, "%s: not a regular file", path);
    if (st.st_size < HEAD_BYTES) return bad_file(err, path, "not a session of ffai");
    ssize_t n = pread(*fd, p, sizeof p, 0);
    if (n != (ssize_t)sizeof p) return fa_fail(err, FFAI_EIO, "%s: %s", path, n < 0 ? strerror(errno) : "cut short");
    return read_head(e, p, st.st_size, h, path, err);
}

static stream reader(int fd, const head *h, uint8_t *buf) {
    stream s = {.fd = fd, .buf = buf, .ahead = h->payload};
    if (lseek(fd, HEAD_BYTES, SEEK_SET) < 0) s.error = errno;
    return s;
}

static int read_failed(const stream *s, const char *path, fa_error *err) {
    if (s->error == DEVICE_FAILED) return fa_fail(err, s->why.code, "%s: %s", path, s->why.msg);
    if (s->error == ENOMEM) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
    return fa_fail(err, FFAI_EIO, "%s: %s", path, s->error > 0 ? strerror(s->error) : "cut short");
}

/* The adapters that made the session as scales of those of the engine; *lacks: some are not loaded. */
static void read_adapters(stream *s, const ffai_engine *e, const head *h, float *use, bool *lacks) {
    memset(use, 0, FA_ADAPTERS * sizeof *use);
    *lacks = false;
    for (uint32_t i = 0; i < h->n_adapter && !s->error; i++) {
        used_adapter a = {0};
        move(s, &a, sizeof a);
        int k = s->error ? -1 : fa_adapter_find(e, a.hash);
        if (k < 0)
            *lacks = true;
        else
            use[k] = a.scale;
    }
}

/* First pass: the payload is whole; its tokens and adapters. Nothing in the engine changes. */
static int check_payload(ffai_engine *e, int fd, const head *h, uint8_t *buf, int32_t *ids, float *use,
                         const char *path, fa_error *err) {
    bool lacks;
    stream s = reader(fd, h, buf);
    read_adapters(&s, e, h, use, &lacks);
    move(&s, ids, (size_t)h->n_tok * sizeof *ids);
    while (!s.error && s.ahead) refill(&s);
    if (s.error) return read_failed(&s, path, err);
    if (s.hash != h->payload_hash) return bad_file(err, path, "the session is damaged: its checksum is wrong");
    if (lacks) return fa_fail(err, FFAI_EINVAL, "%s: the session was made with adapters that are not loaded", path);
    fa_error why = {0};
    return fa_engine_check_ids(e, ids, (size_t)h->n_tok, &why) ? fa_fail(err, FFAI_EFORMAT, "%s: %s", path, why.msg)
                                                               : 0;
}

/* Second pass: into the slot. */
static int fill_slot(ffai_engine *e, int fd, const head *h, uint8_t *buf, const int32_t *ids, int slot,
                     const char *path, fa_error *err) {
    bool lacks;
    stream s = reader(fd, h, buf);
    int64_t at = (int64_t)slot * e->n_ctx;
    int rc = fa_kv_restore(e->kv, slot, h->first, (int32_t)h->n_kept, err);
    if (rc) {
        fa_fail_prefix(err, rc, "%s", path);
        return rc;
    }
    read_adapters(&s, e, h, use_of(e, slot), &lacks);
    move(&s, NULL, (size_t)h->n_tok * sizeof *ids);
    if (h->lens) move(&s, e->kept_len + at, (size_t)h->n_kept * sizeof *ids);
    memcpy(e->kept + at, ids, (size_t)h->n_kept * sizeof *ids);
    move_cache(&s, e->kv, slot, h);
    if (e->kv->states) move_state(&s, e->kv->states, fa_states_restore(e->kv->states, slot, (int32_t)h->n_kept));
    e->slot_used[slot] = ++e->n_step;
    if (!s.error && s.hash == h->payload_hash) return 0;
    fa_kv_reset(e->kv, slot); /* the file changed between the passes */
    return s.error ? read_failed(&s, path, err) : bad_file(err, path, "changed while it was read");
}

int ffai_session_load(ffai_engine *e, const char *path, int32_t **ids, size_t *n, ffai_error *err) {
    int fd = -1, slot = fa_slot_oldest(e);
    head h;
    float use[FA_ADAPTERS];
    uint8_t *buf = NULL;
    *ids = NULL;
    *n = 0;
    if (!path) return fa_fail(err, FFAI_EINVAL, "ffai_session_load: path is NULL");
    if (slot < 0) return fa_fail(err, FFAI_ELIMIT, "%s: no slot is free: all %d run requests", path, e->n_slot);
    int rc = open_session(&fd, e, &h, path, err);
    if (!rc) {
        buf = (uint8_t *)fa_calloc(BLOCK, 1);
        *ids = FA_NEWN(int32_t, (size_t)h.n_tok);
        if (!buf || !*ids) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for %lld tokens", path, (long long)h.n_tok);
    }
    if (!rc) rc = check_payload(e, fd, &h, buf, *ids, use, path, err);
    if (!rc) rc = fill_slot(e, fd, &h, buf, *ids, slot, path, err);
    if (fd >= 0) close(fd);
    fa_free(buf);
    if (rc) {
        fa_free(*ids);
        *ids = NULL;
        return rc;
    }
    *n = (size_t)h.n_tok;
    return 0;
}
