/* The directory of a zip archive whose members are stored, not compressed: what torch writes. Members are views of the
 * archive's bytes, so there is nothing to inflate and no zip bomb to fear. Checked before a member is believed: counts
 * against the bytes that could hold them, names, sizes and offsets (zip64 too), that each local header names the same
 * member, and that no two members share bytes. Layout: PKWARE's APPNOTE 6.3. */
#ifndef FA_IO_ZIP_H
#define FA_IO_ZIP_H

#include "base/err.h"

typedef struct fa_zip fa_zip;

typedef struct fa_zip_member {
    const char *name;    /* not NUL-terminated, holds no NUL */
    size_t name_len;     /* >= 1 */
    const uint8_t *data; /* any alignment */
    size_t bytes;
} fa_zip_member;

/* data outlives the handle; what names the archive in messages. */
int fa_zip_parse(fa_zip **out, const uint8_t *data, size_t size, const char *what, fa_error *err);
void fa_zip_free(fa_zip *z);
size_t fa_zip_count(const fa_zip *z);
const fa_zip_member *fa_zip_at(const fa_zip *z, size_t i); /* in the order of the directory */
const fa_zip_member *fa_zip_find(const fa_zip *z, const char *name, size_t len);
/* Text of a foreign name in a message: at most 100 bytes, unprintable ones as '?'. */
const char *fa_zip_shown(char out[104], const char *name, size_t len);

#endif
