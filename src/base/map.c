/* mmap of whole files, and small whole-file reads. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE
#include "base/map.h"
#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_regular(int *fd, struct stat *st, const char *path, fa_error *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(errno));
    if (fstat(*fd, st) != 0 || !S_ISREG(st->st_mode)) {
        close(*fd);
        return fa_fail(err, FFAI_EIO, "%s: not a regular file", path);
    }
    return 0;
}

#ifdef __APPLE__
#define WRITTEN(st) (st).st_mtimespec
#else
#define WRITTEN(st) (st).st_mtim
#endif

int fa_map_open(fa_map *m, const char *path, fa_error *err) {
    int fd;
    struct stat st;
    memset(m, 0, sizeof *m);
    int rc = open_regular(&fd, &st, path, err);
    if (rc) return rc;
    *m = (fa_map){NULL, (size_t)st.st_size, st.st_dev, st.st_ino, {WRITTEN(st).tv_sec, WRITTEN(st).tv_nsec}};
    if (m->size) {
        void *p = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            rc = fa_fail(err, FFAI_EIO, "%s: cannot map %zu bytes: %s", path, m->size, strerror(errno));
            m->size = 0;
        } else {
            m->data = (const uint8_t *)p;
#ifdef MADV_HUGEPAGE
            /* A hint: file systems with large folios then read and map 2 MiB at a time, which streams of weights need.
             */
            if (m->size >= (size_t)2 << 20) (void)madvise(p, m->size, MADV_HUGEPAGE);
#endif
        }
    }
    close(fd);
    return rc;
}

void fa_map_close(fa_map *m) {
    if (m && m->data) munmap((void *)(uintptr_t)m->data, m->size);
    if (m) memset(m, 0, sizeof *m);
}

int fa_map_check(const fa_map *m, const char *path, fa_error *err) {
    struct stat st;
    if (!m->data || stat(path, &st) != 0 || st.st_dev != m->dev || st.st_ino != m->ino) return 0;
    if ((uint64_t)st.st_size < m->size)
        return fa_fail(err, FFAI_EIO, "%s: became shorter while it was in use: %lld bytes, was %zu", path,
                       (long long)st.st_size, m->size);
    if ((uint64_t)st.st_size == m->size && WRITTEN(st).tv_sec == m->changed[0] && WRITTEN(st).tv_nsec == m->changed[1])
        return 0;
    return fa_fail(err, FFAI_EIO, "%s: was written while it was in use", path);
}

bool fa_map_patch(const fa_map *m, const void *address) {
    const uintptr_t at = (uintptr_t)address, from = (uintptr_t)m->data;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = at / page * page;
    if (!m->data || at < from || at >= (from + m->size + page - 1) / page * page) return false;
    return mmap((void *)first, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

int fa_read_file(char **out, size_t *len, const char *path, size_t max, fa_error *err) {
    int fd;
    struct stat st;
    *out = NULL;
    *len = 0;
    int rc = open_regular(&fd, &st, path, err);
    if (rc) return rc;
    char *p = NULL;
    const size_t size = (size_t)st.st_size;
    size_t got = 0;
    if (size > max)
        rc = fa_fail(err, FFAI_ELIMIT, "%s: %zu bytes, the limit is %zu", path, size, max);
    else if (!(p = (char *)fa_calloc(size + 64, 1)))
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu bytes", path, size);
    while (!rc && got < size) {
        ssize_t n = read(fd, p + got, size - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            rc = fa_fail(err, FFAI_EIO, "%s: %s", path, n ? strerror(errno) : "file became shorter while reading");
        else
            got += (size_t)n;
    }
    close(fd);
    if (rc) {
        fa_free(p);
        return rc;
    }
    *out = p;
    *len = size;
    return 0;
}

bool fa_path_is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool fa_path_exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

bool fa_path_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
