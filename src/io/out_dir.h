/* A folder that appears whole under its name or not at all: files are written into a folder beside it, made durable,
 * and the folder is renamed at the end. */
#ifndef FA_IO_OUT_DIR_H
#define FA_IO_OUT_DIR_H

#include "base/err.h"

typedef struct fa_out_dir {
    char *path; /* what it will be called */
    char *temp; /* what it is called now: <path>.partial-<process>-<number> */
    int lock;   /* temp, locked as long as somebody is at work; -1: it could not be */
} fa_out_dir;

/* path must not exist, or be an empty folder. Unfinished folders of this name are removed when their makers are gone.
 */
int fa_out_dir_open(fa_out_dir *d, const char *path, fa_error *err);
/* temp/name; free with fa_free. NULL: no memory (an error then). */
char *fa_out_dir_file(const fa_out_dir *d, const char *name, fa_error *err);
int fa_out_dir_write(const fa_out_dir *d, const char *name, const void *data, size_t n, fa_error *err);
/* A copy of a regular file. */
int fa_out_dir_copy(const fa_out_dir *d, const char *name, const char *from, fa_error *err);
int fa_out_dir_subdir(const fa_out_dir *d, const char *name, fa_error *err);
/* Gives the folder its name. */
int fa_out_dir_commit(fa_out_dir *d, fa_error *err);
/* Removes what was not committed. */
void fa_out_dir_close(fa_out_dir *d);

#endif
