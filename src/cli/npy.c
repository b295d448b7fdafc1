/* .npy (format 1.0) and .npz. The zip part writes stored entries with sizes known in advance; archives past 4 GiB get
 * zip64 records. */
#include "cli/npy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct npz_entry {
    char name[120];
    uint32_t crc;
    uint64_t size, at;
};

/* The header with its padding: a multiple of 64 bytes. Returns its length. */
static size_t npy_header(unsigned char *out, size_t cap, const int64_t *dim, int n_dim) {
    char shape[200] = "", *text = (char *)out + 10;
    for (int i = 0, n = 0; i < n_dim; i++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, "%lld,%s", (long long)dim[i], i + 1 < n_dim ? " " : "");
    int len = snprintf(text, cap - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", shape);
    size_t total = (10 + (size_t)len + 1 + 63) / 64 * 64;
    memset(text + len, ' ', total - 10 - (size_t)len);
    out[total - 1] = '\n';
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (unsigned char)((total - 10) & 255);
    out[9] = (unsigned char)((total - 10) >> 8);
    return total;
}

static size_t elements(const int64_t *dim, int n_dim) {
    size_t n = 1;
    for (int i = 0; i < n_dim; i++) n *= (size_t)dim[i];
    return n;
}

FILE *npy_create(const char *path, const int64_t *dim, int n_dim) {
    unsigned char head[512];
    size_t len = npy_header(head, sizeof head, dim, n_dim);
    FILE *f = fopen(path, "wb");
    if (f && fwrite(head, 1, len, f) != len) {
        fclose(f);
        f = NULL;
    }
    return f;
}

/* ---- zip ---- */

static uint32_t crc32_add(uint32_t crc, const unsigned char *p, size_t n) {
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    crc = ~crc;
    for (size_t i = 0; i < n; i++) crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
    return ~crc;
}

static void put(npz_file *z, const void *p, size_t n) {
    if (!z->failed && fwrite(p, 1, n, z->f) != n) z->failed = true;
    z->at += n;
}

static void put_le(npz_file *z, uint64_t v, int bytes) {
    unsigned char b[8];
    for (int i = 0; i < bytes; i++) b[i] = (unsigned char)(v >> (8 * i));
    put(z, b, (size_t)bytes);
}

static uint64_t cap32(uint64_t v) { return v < 0xFFFFFFFFu ? v : 0xFFFFFFFFu; }

/* The fields that the local and the central header share. Sizes past 32 bits stand in a zip64 extra field. */
static void put_common(npz_file *z, const npz_entry *e, bool zip64, size_t extra) {
    put_le(z, zip64 ? 45 : 20, 2); /* version needed */
    put_le(z, 0, 2);               /* flags */
    put_le(z, 0, 2);               /* stored */
    put_le(z, 0, 2);               /* time */
    put_le(z, 0x21, 2);            /* date: 1980-01-01, so that equal arrays give equal files */
    put_le(z, e->crc, 4);
    put_le(z, zip64 ? 0xFFFFFFFFu : e->size, 4);
    put_le(z, zip64 ? 0xFFFFFFFFu : e->size, 4);
    put_le(z, strlen(e->name), 2);
    put_le(z, extra, 2);
}

bool npz_open(npz_file *z, const char *path) {
    memset(z, 0, sizeof *z);
    z->f = fopen(path, "wb");
    return z->f != NULL;
}

void npz_add(npz_file *z, const char *name, const float *data, const int64_t *dim, int n_dim) {
    if (z->failed) return;
    if ((z->n & (z->n - 1)) == 0) { /* grows at powers of two */
        npz_entry *more = (npz_entry *)realloc(z->entry, (z->n ? 2 * z->n : 1) * sizeof *more);
        if (!more) {
            z->failed = true;
            errno = ENOMEM;
            return;
        }
        z->entry = more;
    }
    unsigned char head[512];
    size_t len = npy_header(head, sizeof head, dim, n_dim), bytes = elements(dim, n_dim) * sizeof *data;
    npz_entry *e = &z->entry[z->n++];
    memset(e, 0, sizeof *e);
    snprintf(e->name, sizeof e->name, "%s.npy", name);
    e->crc = crc32_add(crc32_add(0, head, len), (const unsigned char *)data, bytes);
    e->size = len + bytes;
    e->at = z->at;
    bool zip64 = e->size >= 0xFFFFFFFFu;
    put_le(z, 0x04034B50, 4);
    put_common(z, e, zip64, zip64 ? 20 : 0);
    put(z, e->name, strlen(e->name));
    if (zip64) {
        put_le(z, 1, 2);
        put_le(z, 16, 2);
        put_le(z, e->size, 8);
        put_le(z, e->size, 8);
    }
    put(z, head, len);
    put(z, data, bytes);
}

static void put_central(npz_file *z, const npz_entry *e) {
    bool big = e->size >= 0xFFFFFFFFu, far = e->at >= 0xFFFFFFFFu;
    size_t extra = big || far ? 4 + (big ? 16u : 0u) + (far ? 8u : 0u) : 0;
    put_le(z, 0x02014B50, 4);
    put_le(z, 45, 2); /* made by */
    put_common(z, e, big, extra);
    put_le(z, 0, 2); /* comment */
    put_le(z, 0, 2); /* disk */
    put_le(z, 0, 2); /* attributes */
    put_le(z, 0, 4);
    put_le(z, cap32(e->at), 4);
    put(z, e->name, strlen(e->name));
    if (!extra) return;
    put_le(z, 1, 2);
    put_le(z, extra - 4, 2);
    if (big) {
        put_le(z, e->size, 8);
        put_le(z, e->size, 8);
    }
    if (far) put_le(z, e->at, 8);
}

bool npz_close(npz_file *z) {
    uint64_t dir = z->at;
    for (size_t i = 0; i < z->n; i++) put_central(z, &z->entry[i]);
    uint64_t size = z->at - dir, end64 = z->at;
    if (z->n >= 0xFFFF || dir >= 0xFFFFFFFFu) {
        put_le(z, 0x06064B50, 4);
        put_le(z, 44, 8);
        put_le(z, 45, 2);
        put_le(z, 45, 2);
        put_le(z, 0, 8); /* this disk, disk of the directory */
        put_le(z, z->n, 8);
        put_le(z, z->n, 8);
        put_le(z, size, 8);
        put_le(z, dir, 8);
        put_le(z, 0x07064B50, 4);
        put_le(z, 0, 4);
        put_le(z, end64, 8);
        put_le(z, 1, 4);
    }
    put_le(z, 0x06054B50, 4);
    put_le(z, 0, 4); /* disks */
    put_le(z, z->n < 0xFFFF ? z->n : 0xFFFF, 2);
    put_le(z, z->n < 0xFFFF ? z->n : 0xFFFF, 2);
    put_le(z, cap32(size), 4);
    put_le(z, cap32(dir), 4);
    put_le(z, 0, 2);
    bool ok = fclose(z->f) == 0 && !z->failed;
    free(z->entry);
    memset(z, 0, sizeof *z);
    return ok;
}
