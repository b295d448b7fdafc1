/* Zip archives of stored members. */
#include "io/zip.h"
#include "base/alloc.h"
#include "base/smap.h"

#include <stdlib.h>
#include <string.h>

enum {
    END = 0x06054b50,     /* end of the directory, 22 bytes and a comment */
    END64 = 0x06064b50,   /* the same with 64-bit numbers, 56 bytes or more */
    WHERE64 = 0x07064b50, /* 20 bytes before END: where END64 is */
    ENTRY = 0x02014b50,   /* of the directory, 46 bytes, then name, extra fields, comment */
    LOCAL = 0x04034b50,   /* before a member's data, 30 bytes, then name and extra fields */
    ENTRY_BYTES = 46,
    LOCAL_BYTES = 30,
    END_BYTES = 22
};

struct fa_zip {
    const uint8_t *data;
    size_t size;
    const char *what;
    fa_zip_member *member;
    size_t n;
    fa_smap by_name;
};

/* Bytes of the archive that belong to a member, its local header included. */
typedef struct span {
    size_t begin, end;
} span;

/* The directory: where it is and how many entries it says to have. */
typedef struct directory {
    uint64_t at, bytes, n;
} directory;

static uint64_t le(const uint8_t *p, int n) {
    uint64_t v = 0;
    while (n-- > 0) v = v << 8 | p[n];
    return v;
}

const char *fa_zip_shown(char out[104], const char *name, size_t len) {
    size_t n = len < 100 ? len : 100;
    for (size_t i = 0; i < n; i++) out[i] = name[i] < ' ' || name[i] > '~' ? '?' : name[i];
    out[n] = 0;
    return out;
}

static int bad(const fa_zip *z, fa_error *err, const char *why) {
    return fa_fail(err, FFAI_EFORMAT, "%s: zip archive: %s", z->what, why);
}

static int bad_member(const fa_zip *z, fa_error *err, const fa_zip_member *m, const char *why) {
    char shown[104];
    return fa_fail(err, FFAI_EFORMAT, "%s: zip member %s: %s", z->what, fa_zip_shown(shown, m->name, m->name_len), why);
}

/* The 64-bit end record, when there is one; end: where the plain one begins. */
static int find_directory64(const fa_zip *z, size_t end, directory *d, fa_error *err) {
    if (end < 20 || le(z->data + end - 20, 4) != WHERE64) return FFAI_OK;
    const uint64_t at = le(z->data + end - 12, 8);
    if (at > end - 20 || end - 20 - at < 56 || le(z->data + at, 4) != END64)
        return bad(z, err, "its 64-bit end record is not where it should be");
    const uint8_t *p = z->data + at;
    if (le(p + 16, 4) || le(p + 20, 4) || le(p + 24, 8) != le(p + 32, 8)) return bad(z, err, "it has several parts");
    *d = (directory){le(p + 48, 8), le(p + 40, 8), le(p + 32, 8)};
    return FFAI_OK;
}

static int find_directory(const fa_zip *z, directory *d, fa_error *err) {
    const size_t most = 0xFFFF;
    for (size_t i = 0; i <= most && i + END_BYTES <= z->size; i++) {
        const size_t end = z->size - END_BYTES - i;
        const uint8_t *p = z->data + end;
        if (le(p, 4) != END || le(p + 20, 2) != i) continue;
        *d = (directory){le(p + 16, 4), le(p + 12, 4), le(p + 10, 2)};
        if (le(p + 4, 2) || le(p + 6, 2) || le(p + 8, 2) != d->n) return bad(z, err, "it has several parts");
        const int rc = find_directory64(z, end, d, err);
        if (rc) return rc;
        if (d->at > end || d->bytes > end - d->at) return bad(z, err, "its directory is not within the file");
        if (d->n > d->bytes / ENTRY_BYTES) return bad(z, err, "its directory is too short for its entries");
        return FFAI_OK;
    }
    return bad(z, err, "it has no directory at its end (truncated file?)");
}

/* 64-bit numbers of an entry, in an extra field of kind 1, in this order and only where the plain one is all ones. */
static bool wide(uint64_t *const *v, int n, const uint8_t *extra, size_t len) {
    bool any = false;
    for (int i = 0; i < n; i++) any |= *v[i] == 0xFFFFFFFFu;
    while (any && len >= 4) {
        const size_t kind = (size_t)le(extra, 2), bytes = (size_t)le(extra + 2, 2);
        if (bytes > len - 4) return false;
        if (kind == 1) {
            size_t at = 0;
            for (int i = 0; i < n; i++) {
                if (*v[i] != 0xFFFFFFFFu) continue;
                if (bytes - at < 8) return false;
                *v[i] = le(extra + 4 + at, 8);
                at += 8;
            }
            return true;
        }
        extra += 4 + bytes;
        len -= 4 + bytes;
    }
    return !any;
}

/* One entry of the directory at p, of which len bytes are left: the member, its bytes, and the entry's length. */
static int read_entry(const fa_zip *z, const uint8_t *p, size_t len, size_t data_end, fa_zip_member *m, span *s,
                      size_t *used, fa_error *err) {
    if (len < ENTRY_BYTES || le(p, 4) != ENTRY) return bad(z, err, "its directory ends before its entries");
    const size_t name = (size_t)le(p + 28, 2), extra = (size_t)le(p + 30, 2), comment = (size_t)le(p + 32, 2);
    *used = ENTRY_BYTES + name + extra + comment;
    if (*used > len) return bad(z, err, "its directory ends inside an entry");
    *m = (fa_zip_member){.name = (const char *)p + ENTRY_BYTES, .name_len = name};
    if (!name || memchr(m->name, 0, name)) return bad_member(z, err, m, "the name is empty or holds a NUL");
    uint64_t packed = le(p + 20, 4), bytes = le(p + 24, 4), at = le(p + 42, 4);
    uint64_t *const numbers[] = {&bytes, &packed, &at};
    if (!wide(numbers, 3, p + ENTRY_BYTES + name, extra)) return bad_member(z, err, m, "its 64-bit sizes are missing");
    if (le(p + 8, 2) & 1) return bad_member(z, err, m, "it is encrypted");
    if (le(p + 10, 2) != 0 || packed != bytes)
        return bad_member(z, err, m, "it is compressed; only stored members are read");
    if (at > data_end || data_end - at < LOCAL_BYTES || le(z->data + at, 4) != LOCAL)
        return bad_member(z, err, m, "it has no header where it should begin");
    const uint8_t *h = z->data + at;
    const size_t skip = LOCAL_BYTES + (size_t)le(h + 26, 2) + (size_t)le(h + 28, 2);
    if (le(h + 26, 2) != name || data_end - at < skip || memcmp(h + LOCAL_BYTES, m->name, name) != 0 ||
        le(h + 8, 2) != 0)
        return bad_member(z, err, m, "its header is that of another member");
    if (bytes > data_end - at - skip)
        return bad_member(z, err, m, "its data end outside of the file (truncated file?)");
    m->data = h + skip;
    m->bytes = (size_t)bytes;
    *s = (span){(size_t)at, (size_t)at + skip + (size_t)bytes};
    return FFAI_OK;
}

static int by_begin(const void *a, const void *b) {
    const span *x = (const span *)a, *y = (const span *)b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int read_directory(fa_zip *z, const directory *d, span *spans, fa_error *err) {
    const uint8_t *p = z->data + d->at;
    size_t left = (size_t)d->bytes, used = 0;
    for (; z->n < d->n; z->n++, p += used, left -= used) {
        fa_zip_member *m = &z->member[z->n];
        int rc = read_entry(z, p, left, (size_t)d->at, m, &spans[z->n], &used, err);
        if (rc) return rc;
        int put = fa_smap_put(&z->by_name, m->name, m->name_len, (uint32_t)z->n);
        if (put == 0) return bad_member(z, err, m, "it stands twice in the directory");
        if (put < 0) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for its zip directory", z->what);
    }
    if (z->n) qsort(spans, z->n, sizeof *spans, by_begin);
    for (size_t i = 1; i < z->n; i++)
        if (spans[i].begin < spans[i - 1].end) return bad(z, err, "two members share bytes");
    return FFAI_OK;
}

int fa_zip_parse(fa_zip **out, const uint8_t *data, size_t size, const char *what, fa_error *err) {
    directory d = {0};
    *out = NULL;
    fa_zip *z = FA_NEW(fa_zip);
    if (!z) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    z->data = data;
    z->size = size;
    z->what = what;
    int rc = find_directory(z, &d, err);
    span *spans = rc ? NULL : FA_NEWN(span, (size_t)d.n);
    if (!rc) z->member = FA_NEWN(fa_zip_member, (size_t)d.n);
    if (!rc && (!spans || !z->member || d.n > UINT32_MAX || !fa_smap_reserve(&z->by_name, (size_t)d.n)))
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for its zip directory", what);
    if (!rc) rc = read_directory(z, &d, spans, err);
    fa_free(spans);
    if (rc) {
        fa_zip_free(z);
        return rc;
    }
    *out = z;
    return FFAI_OK;
}

void fa_zip_free(fa_zip *z) {
    if (!z) return;
    fa_smap_free(&z->by_name);
    fa_free(z->member);
    fa_free(z);
}

size_t fa_zip_count(const fa_zip *z) { return z ? z->n : 0; }
const fa_zip_member *fa_zip_at(const fa_zip *z, size_t i) { return i < fa_zip_count(z) ? &z->member[i] : NULL; }

const fa_zip_member *fa_zip_find(const fa_zip *z, const char *name, size_t len) {
    uint32_t i;
    return z && fa_smap_get(&z->by_name, name, len, &i) ? &z->member[i] : NULL;
}
