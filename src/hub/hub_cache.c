/* The cache folder: names, refs, listings, links, locks. Files appear under their name by rename only. */
#define _GNU_SOURCE
#include "hub/hub.h"
#include "base/alloc.h"
#include "base/map.h"
#include "io/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int no_memory(const fa_hub *h, fa_error *err) { return fa_fail(err, FFAI_ENOMEM, "%s: no memory", h->id.repo); }

int fa_hub_open_dirs(fa_hub *h, fa_error *err) {
    const char *slash = strchr(h->id.repo, '/');
    int org = (int)(slash - h->id.repo);
    h->repo_dir = fa_mem_printf(&h->mem, "%s/models--%.*s--%s", h->o.cache, org, h->id.repo, slash + 1);
    h->lock_dir = fa_mem_printf(&h->mem, "%s/.locks/models--%.*s--%s", h->o.cache, org, h->id.repo, slash + 1);
    return h->repo_dir && h->lock_dir ? 0 : no_memory(h, err);
}

int fa_hub_mkdirs(const char *path, bool with_last, fa_error *err) {
    char *p = fa_strdup(path);
    int rc = p ? 0 : fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
    for (char *s = p ? p + 1 : NULL; !rc && s;) {
        s = strchr(s, '/');
        if (!s && !with_last) break;
        if (s) *s = 0;
        const int bad = mkdir(p, 0777) == 0 ? 0 : errno;
        if (bad && bad != EEXIST && !fa_path_is_dir(p))
            rc = fa_fail(err, FFAI_EIO, "%s: folder cannot be made: %s", p, strerror(bad));
        if (s) *s++ = '/';
    }
    fa_free(p);
    return rc;
}

/* false: errno says why */
static bool write_all(int fd, const char *text, size_t len) {
    while (len) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = ENOSPC;
        if (n <= 0) return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

int fa_hub_write_file(const char *path, const char *text, size_t len, fa_error *err) {
    fa_buf tmp = {0};
    int rc = fa_hub_mkdirs(path, false, err);
    fa_buf_printf(&tmp, "%s.%lx.tmp", path, (unsigned long)getpid());
    if (!rc && tmp.failed) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
    if (!rc) {
        int fd = open(tmp.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
        int bad = fd >= 0 && write_all(fd, text, len) ? 0 : errno;
        if (fd >= 0 && close(fd) != 0 && !bad) bad = errno;
        if (!bad && rename(tmp.data, path) != 0) bad = errno;
        if (bad) {
            rc = fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(bad));
            unlink(tmp.data);
        }
    }
    fa_buf_free(&tmp);
    return rc;
}

/* ---- refs ---- */

static bool read_commit(const char *path, char commit[41]) {
    char *text;
    size_t len;
    if (fa_read_file(&text, &len, path, 256, NULL) != 0) return false;
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r' || text[len - 1] == ' ')) text[--len] = 0;
    bool ok = fa_hub_is_hex(text, 40);
    if (ok) memcpy(commit, text, 41);
    fa_free(text);
    return ok;
}

bool fa_hub_ref_read(const fa_hub *h, const char *revision, char commit[41]) {
    if (fa_hub_is_hex(revision, 40)) {
        strcpy(commit, revision);
        return true;
    }
    fa_buf path = {0};
    fa_buf_printf(&path, "%s/refs/%s", h->repo_dir, revision);
    bool ok = !path.failed && read_commit(path.data, commit);
    fa_buf_free(&path);
    return ok;
}

int fa_hub_ref_write(const fa_hub *h, fa_error *err) {
    char was[41];
    if (fa_hub_ref_read(h, h->id.revision, was) && !strcmp(was, h->tree.commit)) return 0;
    fa_buf path = {0};
    fa_buf_printf(&path, "%s/refs/%s", h->repo_dir, h->id.revision);
    int rc = path.failed ? no_memory(h, err) : fa_hub_write_file(path.data, h->tree.commit, 40, err);
    fa_buf_free(&path);
    return rc;
}

/* ---- trees/COMMIT.json, as huggingface_hub 1.x and later write and read it ---- */

int fa_hub_tree_write(const fa_hub *h, fa_error *err) {
    fa_buf b = {0}, path = {0};
    fa_buf_puts(&b, "{\n \"format_version\": 1,\n \"files\": {");
    for (size_t i = 0; i < h->tree.n; i++) {
        const fa_hub_file *f = &h->tree.file[i];
        fa_buf_puts(&b, i ? ",\n  " : "\n  ");
        fa_buf_json(&b, f->name, strlen(f->name));
        fa_buf_printf(&b, ": {\n   \"size\": %lld,\n   \"blob_id\": \"%s\"", (long long)f->size, f->oid);
        if (strlen(f->etag) == 64)
            fa_buf_printf(&b, ",\n   \"lfs_sha256\": \"%s\",\n   \"lfs_size\": %lld", f->etag, (long long)f->size);
        if (*f->xet) fa_buf_printf(&b, ",\n   \"xet_hash\": \"%s\"", f->xet);
        fa_buf_puts(&b, "\n  }");
    }
    fa_buf_puts(&b, "\n }\n}");
    fa_buf_printf(&path, "%s/trees/%s.json", h->repo_dir, h->tree.commit);
    int rc = b.failed || path.failed ? no_memory(h, err) : 0;
    if (!rc && !fa_path_exists(path.data)) rc = fa_hub_write_file(path.data, b.data, b.len, err);
    fa_buf_free(&b);
    fa_buf_free(&path);
    return rc;
}

static int tree_parse(fa_hub *h, const fa_jnode *root, const char *path, fa_error *err) {
    if (fa_jint(fa_jget(root, "format_version"), 0) != 1) return fa_fail(err, FFAI_EFORMAT, "%s: not version 1", path);
    int rc = 0;
    for (const fa_jnode *f = fa_jfirst(fa_jget(root, "files")); f && !rc; f = fa_jnext(f)) {
        size_t len;
        const char *name = fa_jkey(f, &len);
        const char *sha = fa_jstr(fa_jget(f, "lfs_sha256"), NULL);
        rc = fa_hub_tree_add(&h->tree, name, len, fa_jint(fa_jget(f, sha ? "lfs_size" : "size"), -1),
                             fa_jstr(fa_jget(f, "blob_id"), NULL), sha, fa_jstr(fa_jget(f, "xet_hash"), NULL), path,
                             err);
    }
    return rc ? rc : fa_hub_tree_sort(&h->tree, path, err);
}

int fa_hub_tree_read(fa_hub *h, const char *commit, fa_error *err) {
    fa_buf path = {0};
    fa_json *j = NULL;
    fa_hub_tree_free(&h->tree);
    fa_buf_printf(&path, "%s/trees/%s.json", h->repo_dir, commit);
    if (path.failed) return no_memory(h, err);
    int rc = fa_path_is_file(path.data) ? fa_json_load(&j, path.data, err) : FFAI_EIO;
    if (!rc) rc = tree_parse(h, fa_json_root(j), path.data, err);
    if (rc) fa_hub_tree_free(&h->tree); /* a broken listing is as good as none: the hub is asked again */
    strcpy(h->tree.commit, commit);
    fa_json_free(j);
    fa_buf_free(&path);
    return rc == FFAI_ENOMEM ? rc : !rc && h->tree.n > 0;
}

/* ---- contents ---- */

static int64_t size_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
}

int fa_hub_find_blobs(fa_hub *h, fa_error *err) {
    fa_buf path = {0};
    for (size_t i = 0; i < h->tree.n && !path.failed; i++) {
        fa_hub_file *f = &h->tree.file[i];
        path.len = 0;
        fa_buf_printf(&path, "%s/blobs/%s", h->repo_dir, f->etag);
        f->have = !path.failed && size_of(path.data) == f->size;
        fa_buf_puts(&path, ".incomplete");
        f->begun = f->have || path.failed ? 0 : size_of(path.data);
        if (f->begun < 0 || f->begun > f->size) f->begun = 0;
        if (f->have || path.failed) continue;
        path.len = 0; /* a cache without symbolic links holds copies */
        fa_buf_printf(&path, "%s/snapshots/%s/%s", h->repo_dir, h->tree.commit, f->name);
        f->have = !path.failed && size_of(path.data) == f->size;
    }
    int rc = path.failed ? no_memory(h, err) : 0;
    fa_buf_free(&path);
    return rc;
}

/* Does the link at path lead to target already? */
static bool links_to(const char *path, const char *target) {
    char is[600];
    ssize_t n = readlink(path, is, sizeof is);
    return n > 0 && (size_t)n == strlen(target) && !memcmp(is, target, (size_t)n);
}

int fa_hub_link(const fa_hub *h, const fa_hub_file *f, fa_error *err) {
    fa_buf path = {0}, target = {0}, tmp = {0};
    struct stat st;
    fa_buf_printf(&path, "%s/snapshots/%s/%s", h->repo_dir, h->tree.commit, f->name);
    fa_buf_puts(&target, "../../");
    for (const char *p = f->name; (p = strchr(p, '/')); p++) fa_buf_puts(&target, "../");
    fa_buf_printf(&target, "blobs/%s", f->etag);
    fa_buf_printf(&tmp, "%s.%lx.tmp", path.data ? path.data : "", (unsigned long)getpid());
    int rc = path.failed || target.failed || tmp.failed ? no_memory(h, err) : 0;
    if (!rc && !links_to(path.data, target.data) &&
        !(lstat(path.data, &st) == 0 && S_ISREG(st.st_mode) && (int64_t)st.st_size == f->size)) {
        rc = fa_hub_mkdirs(path.data, false, err);
        unlink(tmp.data);
        if (!rc && (symlink(target.data, tmp.data) != 0 || rename(tmp.data, path.data) != 0)) {
            rc = fa_fail(err, FFAI_EIO, "%s: link cannot be made: %s", path.data, strerror(errno));
            unlink(tmp.data);
        }
    }
    fa_buf_free(&path);
    fa_buf_free(&target);
    fa_buf_free(&tmp);
    return rc;
}

void fa_hub_touch(const fa_hub *h) {
    const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};
    fa_buf path = {0};
    for (size_t i = 0; i < h->tree.n && !path.failed; i++) {
        if (!h->tree.file[i].wanted) continue;
        path.len = 0;
        fa_buf_printf(&path, "%s/snapshots/%s/%s", h->repo_dir, h->tree.commit, h->tree.file[i].name);
        if (!path.failed) (void)utimensat(AT_FDCWD, path.data, now, 0); /* somebody else's cache: not ours to note */
    }
    fa_buf_free(&path);
}

/* ---- locks: what Python's filelock does ---- */

int fa_hub_lock(const char *path, fa_error *err) {
    for (int tries = 0; tries < 100; tries++) {
        struct stat a, b;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
        if (fd < 0) {
            fa_fail(err, FFAI_EIO, "%s: lock cannot be made: %s", path, strerror(errno));
            return -2;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int e = errno;
            if (e == ENOSYS || e == EOPNOTSUPP || e == ENOLCK) return fd; /* no locks here: they only save traffic */
            close(fd);
            if (e == EWOULDBLOCK || e == EACCES || e == EINTR) return -1;
            fa_fail(err, FFAI_EIO, "%s: cannot be locked: %s", path, strerror(e));
            return -2;
        }
        /* whoever had it may have removed the file in between: then this lock holds nothing */
        if (fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev) return fd;
        close(fd);
    }
    return -1;
}

bool fa_hub_repo_busy(const char *lock_dir) {
    DIR *d = opendir(lock_dir);
    bool busy = false;
    for (struct dirent *e; d && !busy && (e = readdir(d));) {
        if (!fa_hub_ends(e->d_name, ".lock")) continue;
        int fd = openat(dirfd(d), e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) continue;
        busy = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        close(fd);
    }
    if (d) closedir(d);
    return busy;
}
