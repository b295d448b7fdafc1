/* Preloaded into the program by test_faults.sh: the n-th call of one kind fails. Not part of any build of CMake's.
 *
 *   FAULT=KIND:N:ERRNO[:ever]   the N-th call of the kind fails with that errno; ever: all later ones too
 *   FAULT_HIT=FILE              made when a call failed
 *
 * Kinds: write (write, pwrite, fwrite, fclose), sync (fsync, sync_file_range), size (ftruncate), name (rename, link,
 * symlink, mkdir), open (open, fopen, opendir), read (read, pread), map (mmap), thread (pthread_create). Only regular
 * files and folders count, none of the system's. What glibc calls inside itself does not pass through here. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls;

/* Is this call the one that fails? Then errno is set. */
static bool fails(const char *kind) {
    const char *f = getenv("FAULT");
    const size_t n = strlen(kind);
    if (!f || strncmp(f, kind, n) || f[n] != ':') return false;
    char *end;
    const long at = strtol(f + n + 1, &end, 10), code = *end == ':' ? strtol(end + 1, &end, 10) : EIO;
    const long now = atomic_fetch_add(&calls, 1) + 1;
    if (now != at && !(now > at && *end)) return false;
    const char *hit = getenv("FAULT_HIT");
    if (hit && now == at) {
        long fd = syscall(SYS_openat, AT_FDCWD, hit, O_WRONLY | O_CREAT, 0666);
        if (fd >= 0) syscall(SYS_close, fd);
    }
    errno = (int)code;
    return true;
}

static bool is_file(int fd) {
    struct stat st;
    return fd > 2 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_ours(const char *path) {
    return strncmp(path, "/proc/", 6) && strncmp(path, "/sys/", 5) && strncmp(path, "/etc/", 5) &&
           strncmp(path, "/usr/", 5) && strncmp(path, "/dev/", 5);
}

#define REAL(name)                                                                                                     \
    static __typeof__(&name) real;                                                                                     \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *p, size_t n) {
    REAL(write);
    return is_file(fd) && fails("write") ? -1 : real(fd, p, n);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    REAL(pwrite);
    return is_file(fd) && fails("write") ? -1 : real(fd, p, n, at);
}

size_t fwrite(const void *p, size_t size, size_t n, FILE *f) {
    REAL(fwrite);
    return is_file(fileno(f)) && fails("write") ? 0 : real(p, size, n, f);
}

int fclose(FILE *f) {
    REAL(fclose);
    if (!is_file(fileno(f)) || !fails("write")) return real(f);
    int code = errno;
    real(f);
    errno = code;
    return EOF;
}

int fsync(int fd) {
    REAL(fsync);
    return fails("sync") ? -1 : real(fd);
}

int sync_file_range(int fd, off_t from, off_t n, unsigned flags) {
    REAL(sync_file_range);
    return fails("sync") ? -1 : real(fd, from, n, flags);
}

int ftruncate(int fd, off_t n) {
    REAL(ftruncate);
    return fails("size") ? -1 : real(fd, n);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fails("name") ? -1 : real(from, to);
}

int link(const char *from, const char *to) {
    REAL(link);
    return fails("name") ? -1 : real(from, to);
}

int symlink(const char *from, const char *to) {
    REAL(symlink);
    return fails("name") ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return fails("name") ? -1 : real(path, mode);
}

int open(const char *path, int flags, ...) {
    REAL(open);
    va_list ap;
    va_start(ap, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return is_ours(path) && fails("open") ? -1 : real(path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) {
    REAL(fopen);
    return is_ours(path) && fails("open") ? NULL : real(path, mode);
}

DIR *opendir(const char *path) {
    REAL(opendir);
    return is_ours(path) && fails("open") ? NULL : real(path);
}

ssize_t read(int fd, void *p, size_t n) {
    REAL(read);
    return is_file(fd) && fails("read") ? -1 : real(fd, p, n);
}

ssize_t __read_chk(int fd, void *p, size_t n, size_t room);
ssize_t __read_chk(int fd, void *p, size_t n, size_t room) {
    if (n > room) abort();
    return read(fd, p, n);
}

ssize_t pread(int fd, void *p, size_t n, off_t at) {
    REAL(pread);
    return is_file(fd) && fails("read") ? -1 : real(fd, p, n, at);
}

ssize_t __pread_chk(int fd, void *p, size_t n, off_t at, size_t room);
ssize_t __pread_chk(int fd, void *p, size_t n, off_t at, size_t room) {
    if (n > room) abort();
    return pread(fd, p, n, at);
}

void *mmap(void *where, size_t n, int prot, int flags, int fd, off_t at) {
    if (fails("map")) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, where, n, prot, flags, fd, at); /* called before dlsym works */
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg) {
    REAL(pthread_create);
    return fails("thread") ? errno : real(t, a, f, arg);
}
