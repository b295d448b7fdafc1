/* .npz archives: a zip file whose members are stored .npy files. Members are written as they come, the directory at the
 * end. */
#include "base/alloc.h"
#include "io/npy_head.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct fa_npz {
    FILE *f;
    char *path;
    fa_buf directory;
    uint64_t at; /* bytes written */
    uint32_t members;
    uint32_t crc[4][256]; /* tables of the CRC over 4 bytes at once */
};

enum {
    MAX_MEMBERS = 65535,
    ZIP_VERSION = 20,
    ZIP_DATE = 1 << 5 | 1 /* 1980-01-01: archives of equal content are equal */
};

static void crc_tables(uint32_t crc[4][256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
        crc[0][i] = c;
    }
    for (int t = 1; t < 4; t++)
        for (uint32_t i = 0; i < 256; i++) crc[t][i] = crc[t - 1][i] >> 8 ^ crc[0][crc[t - 1][i] & 0xFF];
}

/* Continues a CRC-32 (begin with 0). */
static uint32_t crc32_of(uint32_t crc[4][256], uint32_t c, const void *data, size_t n) {
    const uint8_t *p = (const uint8_t *)data;
    c = ~c;
    for (; n >= 4; n -= 4, p += 4) {
        c ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        c = crc[3][c & 0xFF] ^ crc[2][c >> 8 & 0xFF] ^ crc[1][c >> 16 & 0xFF] ^ crc[0][c >> 24];
    }
    while (n--) c = c >> 8 ^ crc[0][(c ^ *p++) & 0xFF];
    return ~c;
}

static void le16(fa_buf *b, uint32_t v) {
    uint8_t p[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    fa_buf_add(b, p, 2);
}

static void le32(fa_buf *b, uint32_t v) {
    le16(b, v & 0xFFFF);
    le16(b, v >> 16);
}

/* The fields that the local header and the directory entry have in common. */
static void common(fa_buf *b, uint32_t crc, uint32_t size, size_t name) {
    le16(b, ZIP_VERSION);
    le16(b, 0x0800); /* names are UTF-8 */
    le16(b, 0);      /* stored */
    le16(b, 0);
    le16(b, ZIP_DATE);
    le32(b, crc);
    le32(b, size);
    le32(b, size);
    le16(b, (uint32_t)name);
    le16(b, 0); /* no extra field */
}

void fa_npz_abort(fa_npz *z) {
    if (!z) return;
    if (z->f) fclose(z->f);
    fa_buf_free(&z->directory);
    fa_free(z->path);
    fa_free(z);
}

int fa_npz_begin(fa_npz **out, const char *path, fa_error *err) {
    *out = NULL;
    fa_npz *z = FA_NEW(fa_npz);
    if (!z || !(z->path = fa_strdup(path))) {
        fa_npz_abort(z);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
    }
    crc_tables(z->crc);
    if (!(z->f = fopen(path, "wb"))) {
        int rc = fa_fail(err, FFAI_EIO, "%s: cannot write: %s", path, strerror(errno));
        fa_npz_abort(z);
        return rc;
    }
    *out = z;
    return FFAI_OK;
}

static int put(fa_npz *z, const void *data, size_t n, fa_error *err) {
    if (n && fwrite(data, 1, n, z->f) != n)
        return fa_fail(err, FFAI_EIO, "%s: cannot write: %s", z->path, strerror(errno));
    z->at += n;
    return FFAI_OK;
}

/* npy: the header of the member's .npy; then come `bytes` of data. */
static int put_member(fa_npz *z, const char *name, const fa_buf *npy, const void *data, size_t bytes, fa_error *err) {
    fa_buf local = {0};
    size_t len = strlen(name) + 4;
    uint32_t crc = crc32_of(z->crc, 0, npy->data, npy->len), size = (uint32_t)(npy->len + bytes),
             offset = (uint32_t)z->at;
    crc = crc32_of(z->crc, crc, data, bytes);
    le32(&local, 0x04034b50);
    common(&local, crc, size, len);
    fa_buf_printf(&local, "%s.npy", name);
    le32(&z->directory, 0x02014b50);
    le16(&z->directory, ZIP_VERSION);
    common(&z->directory, crc, size, len);
    le16(&z->directory, 0); /* no comment */
    le16(&z->directory, 0); /* disk 0 */
    le16(&z->directory, 0);
    le32(&z->directory, 0);
    le32(&z->directory, offset);
    fa_buf_printf(&z->directory, "%s.npy", name);
    int rc = local.failed || z->directory.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", z->path)
                                                 : put(z, local.data, local.len, err);
    if (!rc) rc = put(z, npy->data, npy->len, err);
    if (!rc) rc = put(z, data, bytes, err);
    fa_buf_free(&local);
    z->members++;
    return rc;
}

int fa_npz_add(fa_npz *z, const char *name, fa_dtype dtype, int n_dim, const int64_t *dim, const void *data,
               fa_error *err) {
    fa_buf npy = {0};
    int64_t bytes = 0;
    int rc = fa_npy_header(&npy, dtype, n_dim, dim, &bytes);
    if (rc)
        rc = fa_fail(err, rc, "%s: member %.100s: %s", z->path, name,
                     rc == FFAI_ENOMEM ? "no memory" : "no array that can be written");
    else if (strlen(name) > 1000)
        rc = fa_fail(err, FFAI_EINVAL, "%s: the name of a member has %zu bytes", z->path, strlen(name));
    /* the directory at the end must begin, and end, below 4 GiB */
    else if (z->members == MAX_MEMBERS || (uint64_t)bytes + z->at + z->directory.len + 8192 > UINT32_MAX)
        rc = fa_fail(err, FFAI_ELIMIT, "%s: member %.100s: an archive cannot grow past 4 GiB or 65535 members", z->path,
                     name);
    else
        rc = put_member(z, name, &npy, data, (size_t)bytes, err);
    fa_buf_free(&npy);
    if (rc) fa_npz_abort(z);
    return rc;
}

int fa_npz_end(fa_npz *z, fa_error *err) {
    fa_buf *d = &z->directory;
    uint32_t offset = (uint32_t)z->at, size = (uint32_t)d->len;
    le32(d, 0x06054b50);
    le16(d, 0);
    le16(d, 0);
    le16(d, z->members);
    le16(d, z->members);
    le32(d, size);
    le32(d, offset);
    le16(d, 0);
    int rc = d->failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", z->path) : put(z, d->data, d->len, err);
    FILE *f = z->f;
    z->f = NULL;
    if (fclose(f) != 0 && !rc) rc = fa_fail(err, FFAI_EIO, "%s: cannot write: %s", z->path, strerror(errno));
    fa_npz_abort(z);
    return rc;
}
