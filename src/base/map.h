/* Read-only file mapping. */
#ifndef FA_BASE_MAP_H
#define FA_BASE_MAP_H

#include "base/err.h"

typedef struct fa_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
} fa_map;

/* Maps a regular file; a directory, a device or an unreadable file is an error that names it. */
int fa_map_open(fa_map *m, const char *path, fa_error *err);
void fa_map_close(fa_map *m);
/* Reads the whole file into a fresh block (free with fa_free) that 64 zero bytes follow (a NUL for strings, room for
 * wide reads); refuses more than max bytes before allocating. */
int fa_read_file(char **out, size_t *len, const char *path, size_t max, fa_error *err);
bool fa_path_is_file(const char *path);
bool fa_path_exists(const char *path); /* as anything at all, a dangling link too */
bool fa_path_is_dir(const char *path);

#endif
