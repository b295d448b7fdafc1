/* Read-only file mapping, and what is to be known when the file changes below it. */
#ifndef FA_BASE_MAP_H
#define FA_BASE_MAP_H

#include "base/err.h"

typedef struct fa_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
    uint64_t dev, ino;  /* which file it is */
    int64_t changed[2]; /* when it was written last: seconds and nanoseconds */
} fa_map;

/* Maps a regular file; a directory, a device or an unreadable file is an error that names it. */
int fa_map_open(fa_map *m, const char *path, fa_error *err);
void fa_map_close(fa_map *m);
/* Is the file still what was mapped? One that was written since is an error. One that was removed, or replaced by
 * another file of that name, lives on in the mapping. */
int fa_map_check(const fa_map *m, const char *path, fa_error *err);
/* Does the address lie in the mapping? Then its page is replaced by zeros: for a handler of SIGBUS, after the file
 * became shorter. Only calls that a signal handler may make. */
bool fa_map_patch(const fa_map *m, const void *address);
/* Reads the whole file into a fresh block (free with fa_free) that 64 zero bytes follow (a NUL for strings, room for
 * wide reads); refuses more than max bytes before allocating. */
int fa_read_file(char **out, size_t *len, const char *path, size_t max, fa_error *err);
bool fa_path_is_file(const char *path);
bool fa_path_exists(const char *path); /* as anything at all, a dangling link too */
bool fa_path_is_dir(const char *path);

#endif
