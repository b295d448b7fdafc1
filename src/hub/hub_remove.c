/* Removing from the cache. Names of revisions go first, then what they link to: what is interrupted leaves contents
 * that nothing uses, never a revision without contents. */
#define _GNU_SOURCE
#include "hub/hub_scan.h"
#include "base/alloc.h"
#include "base/map.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

/* The folder with all that is in it; links themselves, never where they lead. */
static int remove_tree(const char *path, fa_error *err) {
    if (!fa_path_exists(path) || nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0) return 0;
    return fa_fail(err, FFAI_EIO, "%s: cannot be removed: %s", path, strerror(errno));
}

static int remove_file(fa_error *err, const char *dir, const char *sub, const char *name, const char *end) {
    fa_buf b = {0};
    fa_buf_printf(&b, "%s/%s/%s%s", dir, sub, name, end);
    int rc = b.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir) : 0;
    if (!rc && unlink(b.data) != 0 && errno != ENOENT)
        rc = fa_fail(err, FFAI_EIO, "%s: cannot be removed: %s", b.data, strerror(errno));
    fa_buf_free(&b);
    return rc;
}

/* What a blob frees: a shared content goes with its last link. After the link itself, or before (dry). */
static int64_t freed_by(const fa_hub_repo *r, const fa_hub_blob *b, bool dry) {
    if (!*b->shared) return b->size;
    bool last = dry ? fa_hub_shared_users(r->cache, b->shared) == 1 : fa_hub_shared_drop(r->cache, b->shared);
    return last ? b->size : 0;
}

static int remove_repo(const fa_hub_repo *r, bool dry, int64_t *freed, fa_error *err) {
    for (size_t i = 0; i < r->n_blob && dry; i++) *freed += freed_by(r, &r->blob[i], true);
    for (size_t i = 0; i < r->n_rev; i++) { /* copies in place of links */
        int64_t links = 0;
        for (size_t k = 0; k < r->rev[i].n_blob; k++) links += r->blob[r->rev[i].blob[k]].size;
        *freed += r->rev[i].bytes - links;
    }
    if (dry) return 0;
    fa_buf refs = {0};
    fa_buf_printf(&refs, "%s/refs", r->dir);
    int rc = refs.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", r->dir) : remove_tree(refs.data, err);
    if (!rc) rc = remove_tree(r->dir, err);
    if (!rc) rc = remove_tree(r->lock_dir, err);
    for (size_t i = 0; i < r->n_blob && !rc; i++) *freed += freed_by(r, &r->blob[i], false);
    fa_buf_free(&refs);
    return rc;
}

static int remove_refs(const fa_hub_repo *r, const fa_hub_rev *v, fa_error *err) {
    int rc = 0;
    for (const char *p = v->refs; *p && !rc;) {
        size_t n = strcspn(p, ",");
        char name[512];
        snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : (int)sizeof name - 1, p);
        rc = remove_file(err, r->dir, "refs", name, "");
        p += n + (p[n] == ',');
    }
    return rc;
}

/* A revision, with the contents that nothing else uses afterwards. */
static int remove_rev(fa_hub_repo *r, const fa_hub_rev *v, bool dry, int64_t *freed, fa_error *err) {
    fa_buf b = {0};
    int rc = dry ? 0 : remove_refs(r, v, err);
    int64_t links = 0;
    fa_buf_printf(&b, "%s/snapshots/%s", r->dir, v->commit);
    if (b.failed) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", r->dir);
    if (!rc && !dry) rc = remove_tree(b.data, err);
    if (!rc && !dry) rc = remove_file(err, r->dir, "trees", v->commit, ".json");
    for (size_t i = 0; i < v->n_blob && !rc; i++) {
        fa_hub_blob *o = &r->blob[v->blob[i]];
        links += o->size;
        if (--o->n_user > 0) continue;
        if (!dry) rc = remove_file(err, r->dir, "blobs", o->name, "");
        if (!rc) *freed += freed_by(r, o, dry);
        o->n_user = -1; /* gone */
    }
    *freed += v->bytes - links;
    fa_buf_free(&b);
    return rc;
}

static fa_hub_rev *find_rev(fa_hub_repo *r, const char *name) {
    fa_hub_rev *found = NULL;
    size_t n = strlen(name);
    for (size_t i = 0; i < r->n_rev; i++)
        for (const char *p = r->rev[i].refs; *p; p += strcspn(p, ","), p += *p == ',')
            if (strcspn(p, ",") == n && !memcmp(p, name, n)) return &r->rev[i];
    for (size_t i = 0; i < r->n_rev && n >= 4; i++) {
        if (strncmp(r->rev[i].commit, name, n) != 0) continue;
        if (found) return NULL; /* two begin so */
        found = &r->rev[i];
    }
    return found;
}

static int not_there(const char *id, const char *cache, fa_error *err) {
    return fa_fail(err, FFAI_EINVAL, "%.200s is not in the cache (%s)", id, cache);
}

int ffai_hub_remove(const char *cache, const char *id, bool dry_run, int64_t *freed, fa_error *err) {
    char **name = NULL;
    size_t n = 0;
    int64_t bytes = 0;
    fa_mem mem = {0};
    if (freed) *freed = 0;
    if (!cache || !*cache || !id) return fa_fail(err, FFAI_EINVAL, "hub: no cache folder or no id was named");
    const char *at = strchr(id, '@');
    size_t len = at ? (size_t)(at - id) : strlen(id);
    bool found = false;
    int rc = fa_hub_names(&name, &n, cache, err);
    for (size_t i = 0; i < n && !rc && !found; i++) {
        fa_hub_repo r;
        if (strncmp(name[i], "models--", 8) != 0 || !name[i][8]) continue;
        const char *tail = name[i] + 8, *cut = strstr(tail, "--");
        size_t org = cut ? (size_t)(cut - tail) : 0; /* compare before the scan, which takes time */
        found = cut ? len == strlen(tail) - 1 && !strncmp(id, tail, org) && id[org] == '/' &&
                          !strncmp(id + org + 1, cut + 2, len - org - 1)
                    : len == strlen(tail) && !strncmp(id, tail, len);
        if (!found) continue;
        rc = fa_hub_scan_repo(&r, &mem, cache, name[i], err);
        fa_hub_rev *v = !rc && at ? find_rev(&r, at + 1) : NULL;
        if (!rc && at && !v) rc = not_there(id, cache, err);
        if (!rc && fa_hub_repo_busy(r.lock_dir))
            rc = fa_fail(err, FFAI_EIO, "%s: another program is downloading it", r.repo);
        if (!rc)
            rc = v && r.n_rev > 1 ? remove_rev(&r, v, dry_run, &bytes, err) : remove_repo(&r, dry_run, &bytes, err);
        fa_hub_repo_free(&r);
    }
    if (!rc && !found) rc = not_there(id, cache, err);
    fa_hub_names_free(name, n);
    fa_mem_free(&mem);
    if (freed && !rc) *freed = bytes;
    return rc;
}

/* ---- prune ---- */

/* Listings of commits that no snapshot is there of. */
static int prune_trees(const fa_hub_repo *r, fa_error *err) {
    fa_buf dir = {0};
    char **name = NULL;
    size_t n = 0;
    fa_buf_printf(&dir, "%s/trees", r->dir);
    int rc = dir.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", r->dir) : fa_hub_names(&name, &n, dir.data, err);
    for (size_t i = 0; i < n && !rc; i++) {
        fa_buf snap = {0};
        fa_buf_printf(&snap, "%s/snapshots/%.*s", r->dir, (int)strcspn(name[i], "."), name[i]);
        if (snap.failed)
            rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", r->dir);
        else if (!fa_path_is_dir(snap.data))
            rc = remove_file(err, r->dir, "trees", name[i], "");
        fa_buf_free(&snap);
    }
    fa_hub_names_free(name, n);
    fa_buf_free(&dir);
    return rc;
}

static int prune_repo(fa_hub_repo *r, bool dry, int64_t *freed, fa_error *err) {
    size_t kept = 0;
    for (size_t i = 0; i < r->n_rev; i++) kept += *r->rev[i].refs != 0;
    if (!kept) return remove_repo(r, dry, freed, err);
    int rc = 0;
    for (size_t i = 0; i < r->n_rev && !rc; i++)
        if (!*r->rev[i].refs) rc = remove_rev(r, &r->rev[i], dry, freed, err);
    for (size_t i = 0; i < r->n_blob && !rc; i++) {
        if (r->blob[i].n_user != 0) continue;
        if (!dry) rc = remove_file(err, r->dir, "blobs", r->blob[i].name, "");
        if (!rc) *freed += freed_by(r, &r->blob[i], dry);
    }
    return rc || dry ? rc : prune_trees(r, err);
}

int ffai_hub_prune(const char *cache, bool dry_run, int64_t *freed, fa_error *err) {
    char **name = NULL;
    size_t n = 0;
    int64_t bytes = 0;
    fa_mem mem = {0};
    if (freed) *freed = 0;
    if (!cache || !*cache) return fa_fail(err, FFAI_EINVAL, "hub: no cache folder was named");
    int rc = fa_hub_names(&name, &n, cache, err);
    for (size_t i = 0; i < n && !rc; i++) {
        fa_hub_repo r;
        if (strncmp(name[i], "models--", 8) != 0 || !name[i][8]) continue;
        rc = fa_hub_scan_repo(&r, &mem, cache, name[i], err);
        if (!rc && !fa_hub_repo_busy(r.lock_dir)) rc = prune_repo(&r, dry_run, &bytes, err);
        fa_hub_repo_free(&r);
    }
    fa_hub_names_free(name, n);
    fa_mem_free(&mem);
    if (freed && !rc) *freed = bytes;
    return rc;
}
