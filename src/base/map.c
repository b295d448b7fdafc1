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

static int open_regular(int *fd, size_t *size, const char *path, fa_error *err) {
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(errno));
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        return fa_fail(err, FFAI_EIO, "%s: not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return 0;
}

int fa_map_open(fa_map *m, const char *path, fa_error *err) {
    int fd;
    m->data = NULL;
    m->size = 0;
    int rc = open_regular(&fd, &m->size, path, err);
    if (rc) return rc;
    if (m->size) {
        void *p = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            rc = fa_fail(err, FFAI_EIO, "%s: cannot map %zu bytes: %s", path, m->size, strerror(errno));
            m->size = 0;
        } else {
            m->data = (const uint8_t *)p;
        }
    }
    close(fd);
    return rc;
}

void fa_map_close(fa_map *m) {
    if (m && m->data) munmap((void *)(uintptr_t)m->data, m->size);
    if (m) memset(m, 0, sizeof *m);
}

int fa_read_file(char **out, size_t *len, const char *path, size_t max, fa_error *err) {
    int fd;
    size_t size, got = 0;
    *out = NULL;
    *len = 0;
    int rc = open_regular(&fd, &size, path, err);
    if (rc) return rc;
    char *p = NULL;
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
