/* safetensors out, piece by piece: the header is written when the file is made, arrays are put in their places. */
#define _GNU_SOURCE
#include "io/st_stream.h"
#include "base/alloc.h"
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

struct fa_st_stream {
    int fd;
    char *path;
    atomic_int error; /* errno of the first failure */
};

size_t fa_st_out_bytes(const fa_st_out *t) {
    size_t n = fa_dtype_size(t->dtype);
    for (int i = 0; i < t->n_dim; i++) n *= (size_t)t->dim[i];
    return n;
}

/* `at` and `bytes` of all items are filled, from the beginning of the data. */
static void make_header(fa_buf *h, fa_st_out *item, size_t n) {
    uint64_t at = 0;
    fa_buf_puts(h, "{\"__metadata__\":{\"format\":\"mlx\"}");
    for (size_t i = 0; i < n; i++) {
        fa_st_out *t = &item[i];
        t->at = at;
        t->bytes = fa_st_out_bytes(t);
        at += t->bytes;
        fa_buf_puts(h, ",");
        fa_buf_json(h, t->name, strlen(t->name));
        fa_buf_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", fa_dtype_name(t->dtype));
        for (int d = 0; d < t->n_dim; d++) fa_buf_printf(h, "%s%lld", d ? "," : "", (long long)t->dim[d]);
        fa_buf_printf(h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->at, (unsigned long long)at);
    }
    fa_buf_puts(h, "}");
    while (!h->failed && (8 + h->len) % 64) fa_buf_puts(h, " ");
}

static void put_at(fa_st_stream *s, const void *data, size_t bytes, uint64_t at) {
    const uint8_t *p = (const uint8_t *)data;
    while (bytes && !atomic_load_explicit(&s->error, memory_order_relaxed)) {
        const size_t piece = bytes < ((size_t)1 << 30) ? bytes : (size_t)1 << 30;
        ssize_t got = pwrite(s->fd, p, piece, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            int none = 0;
            atomic_compare_exchange_strong(&s->error, &none, got < 0 ? errno : ENOSPC);
            return;
        }
        p += got;
        at += (uint64_t)got;
        bytes -= (size_t)got;
    }
}

int fa_st_stream_open(fa_st_stream **out, const char *path, fa_st_out *item, size_t n, fa_error *err) {
    *out = NULL;
    fa_buf h = {0};
    uint8_t len[8];
    uint64_t end = 0;
    fa_st_stream *s = FA_NEW(fa_st_stream);
    if (s) s->fd = -1;
    make_header(&h, item, n);
    if (!s || h.failed || !(s->path = fa_strdup(path))) {
        fa_st_stream_close(s, false, NULL);
        fa_buf_free(&h);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the header", path);
    }
    for (int i = 0; i < 8; i++) len[i] = (uint8_t)((uint64_t)h.len >> 8 * i);
    for (size_t i = 0; i < n; i++) {
        end = item[i].at + item[i].bytes;
        item[i].at += 8 + h.len;
    }
    s->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)(end + 8 + h.len)) != 0) atomic_store(&s->error, errno);
    put_at(s, len, 8, 0);
    put_at(s, h.data, h.len, 8);
    fa_buf_free(&h);
    if (fa_st_stream_failed(s)) return fa_st_stream_close(s, true, err);
    *out = s;
    return 0;
}

void fa_st_stream_put(fa_st_stream *s, const fa_st_out *item, size_t from, const void *data, size_t bytes) {
    put_at(s, data, bytes, item->at + from);
}

bool fa_st_stream_failed(const fa_st_stream *s) { return atomic_load(&s->error) != 0; }

void fa_st_stream_flush(fa_st_stream *s) {
#if defined(__linux__)
    (void)!sync_file_range(s->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
#else
    (void)s;
#endif
}

int fa_st_stream_close(fa_st_stream *s, bool keep, fa_error *err) {
    if (!s) return 0;
    int bad = atomic_load(&s->error), rc = 0;
    if (keep && !bad && fsync(s->fd) != 0) bad = errno;
    if (s->fd >= 0 && close(s->fd) != 0 && keep && !bad) bad = errno;
    if (keep && bad) rc = fa_fail(err, FFAI_EIO, "%s: %s", s->path, strerror(bad));
    fa_free(s->path);
    fa_free(s);
    return rc;
}
