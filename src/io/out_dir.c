/* A folder written beside its place and renamed into it. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE
#include "io/out_dir.h"
#include "base/alloc.h"
#include "base/map.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char *joined(const char *a, const char *between, const char *b) {
    size_t n = strlen(a) + strlen(between) + strlen(b) + 1;
    char *p = (char *)fa_calloc(n, 1);
    if (p) snprintf(p, n, "%s%s%s", a, between, b);
    return p;
}

static bool is_empty_dir(const char *path) {
    DIR *d = opendir(path);
    bool empty = d != NULL;
    for (struct dirent *e; empty && (e = readdir(d)) != NULL;)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    if (d) closedir(d);
    return empty;
}

/* The folder that `path` lies in. */
static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return !slash ? fa_strdup(".") : slash == path ? fa_strdup("/") : fa_strndup(path, (size_t)(slash - path));
}

/* What this program has put there: files, and folders of files. */
static void remove_tree(const char *path, int depth) {
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *p = joined(path, "/", e->d_name);
        if (p && unlink(p) != 0 && depth) remove_tree(p, depth - 1);
        fa_free(p);
    }
    if (d) closedir(d);
    rmdir(path);
}

/* ---- what processes that died have left ---- */

/* "<base>.partial-<process>-<number>": the process, or 0. */
static long partial_of(const char *name, const char *base) {
    static const char mark[] = ".partial-";
    const size_t n = strlen(base), m = sizeof mark - 1;
    char *end;
    if (strncmp(name, base, n) || strncmp(name + n, mark, m) || name[n + m] < '1' || name[n + m] > '9') return 0;
    const long pid = strtol(name + n + m, &end, 10);
    return *end == '-' && end[1] && strspn(end + 1, "0123456789") == strlen(end + 1) ? pid : 0;
}

/* A lock tells processes that are not to be seen from here (of other containers) that somebody is at work. */
static bool is_abandoned(const char *path, long pid) {
    if (kill((pid_t)pid, 0) == 0 || errno != ESRCH) return false;
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    const bool alone = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (fd >= 0) close(fd);
    return alone;
}

/* Removes the unfinished folders of this name whose makers are gone. */
static void remove_abandoned(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *parent = parent_of(path);
    DIR *d = parent ? opendir(parent) : NULL;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        const long pid = partial_of(e->d_name, base);
        char *p = pid ? joined(parent, "/", e->d_name) : NULL;
        if (p && is_abandoned(p, pid)) remove_tree(p, 2);
        fa_free(p);
    }
    if (d) closedir(d);
    fa_free(parent);
}

int fa_out_dir_open(fa_out_dir *d, const char *path, fa_error *err) {
    *d = (fa_out_dir){.lock = -1};
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    if (!n) return fa_fail(err, FFAI_EINVAL, "the name of the output folder is empty");
    struct stat st;
    if (lstat(path, &st) == 0 && !is_empty_dir(path))
        return fa_fail(err, FFAI_EIO, "%s: exists already; name a folder that does not, or remove it", path);
    d->path = fa_strndup(path, n);
    if (d->path) remove_abandoned(d->path);
    int bad = EEXIST;
    for (int i = 0; bad == EEXIST && i < 1000; i++) {
        char end[64];
        snprintf(end, sizeof end, "%ld-%d", (long)getpid(), i);
        fa_free(d->temp);
        d->temp = d->path ? joined(d->path, ".partial-", end) : NULL;
        if (!d->temp) {
            fa_out_dir_close(d);
            return fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
        }
        bad = mkdir(d->temp, 0777) == 0 ? 0 : errno;
    }
    if (!bad) {
        d->lock = open(d->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (d->lock >= 0) (void)flock(d->lock, LOCK_EX | LOCK_NB);
        return 0;
    }
    int rc = fa_fail(err, FFAI_EIO, "%s: cannot be made: %s", d->temp, strerror(bad));
    fa_free(d->temp); /* another one's */
    d->temp = NULL;
    fa_out_dir_close(d);
    return rc;
}

char *fa_out_dir_file(const fa_out_dir *d, const char *name, fa_error *err) {
    char *p = joined(d->temp, "/", name);
    if (!p) fa_fail(err, FFAI_ENOMEM, "%s: no memory", d->path);
    return p;
}

/* Writes all, or says why not. */
static int write_all(int fd, const void *data, size_t n) {
    const char *p = (const char *)data;
    while (n) {
        ssize_t got = write(fd, p, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? errno : ENOSPC;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

static int create(const fa_out_dir *d, const char *name, char **path, int *fd, fa_error *err) {
    *fd = -1;
    if (!(*path = fa_out_dir_file(d, name, err))) return FFAI_ENOMEM;
    *fd = open(*path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (*fd >= 0) return 0;
    int rc = fa_fail(err, FFAI_EIO, "%s: %s", *path, strerror(errno));
    fa_free(*path);
    *path = NULL;
    return rc;
}

static int finish(int fd, char *path, int bad, fa_error *err) {
    if (!bad && fsync(fd) != 0) bad = errno;
    if (close(fd) != 0 && !bad) bad = errno;
    int rc = bad ? fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(bad)) : 0;
    fa_free(path);
    return rc;
}

int fa_out_dir_write(const fa_out_dir *d, const char *name, const void *data, size_t n, fa_error *err) {
    char *path;
    int fd, rc = create(d, name, &path, &fd, err);
    return rc ? rc : finish(fd, path, write_all(fd, data, n), err);
}

int fa_out_dir_copy(const fa_out_dir *d, const char *name, const char *from, fa_error *err) {
    fa_map m;
    char *path;
    int fd, rc = fa_map_open(&m, from, err);
    if (rc) return rc;
    rc = create(d, name, &path, &fd, err);
    if (!rc) rc = finish(fd, path, write_all(fd, m.data, m.size), err);
    fa_map_close(&m);
    return rc;
}

int fa_out_dir_subdir(const fa_out_dir *d, const char *name, fa_error *err) {
    char *p = fa_out_dir_file(d, name, err);
    if (!p) return FFAI_ENOMEM;
    int rc = mkdir(p, 0777) == 0 || errno == EEXIST ? 0 : fa_fail(err, FFAI_EIO, "%s: %s", p, strerror(errno));
    fa_free(p);
    return rc;
}

static int sync_dir(const char *path, fa_error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int bad = fd < 0 || (fsync(fd) != 0 && errno != EINVAL) ? errno : 0; /* EINVAL: not a thing there */
    if (fd >= 0) close(fd);
    return bad ? fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(bad)) : 0;
}

int fa_out_dir_commit(fa_out_dir *d, fa_error *err) {
    char *parent = parent_of(d->path);
    int rc = parent ? sync_dir(d->temp, err) : fa_fail(err, FFAI_ENOMEM, "%s: no memory", d->path);
    if (!rc && rename(d->temp, d->path) != 0)
        rc = fa_fail(err, FFAI_EIO, "%s: cannot be renamed to %s: %s", d->temp, d->path, strerror(errno));
    if (!rc) {
        fa_free(d->temp);
        d->temp = NULL;
        rc = sync_dir(parent, err);
    }
    fa_free(parent);
    return rc;
}

void fa_out_dir_close(fa_out_dir *d) {
    if (d->temp) remove_tree(d->temp, 2);
    if (d->path && d->lock >= 0) close(d->lock);
    fa_free(d->temp);
    fa_free(d->path);
    *d = (fa_out_dir){.lock = -1};
}
