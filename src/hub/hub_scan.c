/* Scanning the cache: revisions, what they link to, what nothing links to. Links are read, not followed out of the
 * repository; what does not look like the layout is left alone. */
#define _GNU_SOURCE
#include "hub/hub_scan.h"
#include "base/alloc.h"
#include "base/map.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 16, MAX_NAMES = 1 << 20 };

static int no_memory(const char *what, fa_error *err) { return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what); }

/* ---- names in a folder ---- */

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void fa_hub_names_free(char **names, size_t n) {
    for (size_t i = 0; names && i < n; i++) fa_free(names[i]);
    fa_free(names);
}

int fa_hub_names(char ***names, size_t *n, const char *dir, fa_error *err) {
    size_t cap = 0;
    int rc = 0;
    *names = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d) return errno == ENOENT || errno == ENOTDIR ? 0 : fa_fail(err, FFAI_EIO, "%s: %s", dir, strerror(errno));
    for (struct dirent *e; !rc && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (*n == cap) {
            cap = cap ? 2 * cap : 16;
            char **more = cap > MAX_NAMES ? NULL : (char **)fa_realloc(*names, cap, sizeof *more);
            if (!more)
                rc = no_memory(dir, err);
            else
                *names = more;
        }
        if (!rc && !((*names)[*n] = fa_strdup(e->d_name))) rc = no_memory(dir, err);
        if (!rc) ++*n;
    }
    closedir(d);
    if (*n) qsort(*names, *n, sizeof **names, by_bytes);
    if (!rc) return 0;
    fa_hub_names_free(*names, *n);
    *names = NULL;
    *n = 0;
    return rc;
}

/* Calls fn for every file below dir; name: its path from there. */
typedef int (*visit)(void *user, const char *name, const char *path, fa_error *err);

static int walk(const char *dir, const char *below, int depth, visit fn, void *user, fa_error *err) {
    char **name;
    size_t n;
    if (depth > MAX_DEPTH) return fa_fail(err, FFAI_ELIMIT, "%s: folders too deep", dir);
    int rc = fa_hub_names(&name, &n, dir, err);
    for (size_t i = 0; i < n && !rc; i++) {
        fa_buf path = {0}, in = {0};
        struct stat st;
        fa_buf_printf(&path, "%s/%s", dir, name[i]);
        fa_buf_printf(&in, "%s%s%s", below, *below ? "/" : "", name[i]);
        if (path.failed || in.failed)
            rc = no_memory(dir, err);
        else if (lstat(path.data, &st) == 0 && S_ISDIR(st.st_mode))
            rc = walk(path.data, in.data, depth + 1, fn, user, err);
        else
            rc = fn(user, in.data, path.data, err);
        fa_buf_free(&path);
        fa_buf_free(&in);
    }
    fa_hub_names_free(name, n);
    return rc;
}

/* ---- a snapshot as a listing ---- */

static int add_file(void *user, const char *name, const char *path, fa_error *err) {
    fa_hub *h = (fa_hub *)user;
    static const char unknown[] = "0000000000000000000000000000000000000000";
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || !fa_hub_name_ok(name, strlen(name))) return 0;
    int rc = fa_hub_tree_add(&h->tree, name, strlen(name), (int64_t)st.st_size, unknown, NULL, NULL, path, err);
    if (!rc) h->tree.file[h->tree.n - 1].have = true;
    return rc;
}

int fa_hub_scan_snapshot(fa_hub *h, const char *dir, fa_error *err) {
    char commit[41];
    strcpy(commit, h->tree.commit);
    fa_hub_tree_free(&h->tree);
    strcpy(h->tree.commit, commit);
    int rc = walk(dir, "", 0, add_file, h, err);
    if (!rc) rc = fa_hub_tree_sort(&h->tree, dir, err);
    return rc ? rc : h->tree.n > 0;
}

/* ---- a repository ---- */

static char *join(fa_mem *mem, const char *a, const char *b) { return fa_mem_printf(mem, "%s/%s", a, b); }

static int scan_blobs(fa_hub_repo *r, fa_mem *mem, fa_error *err) {
    char **name, *dir = join(mem, r->dir, "blobs");
    size_t n;
    if (!dir) return no_memory(r->dir, err);
    int rc = fa_hub_names(&name, &n, dir, err);
    if (!rc && n && !(r->blob = FA_NEWN(fa_hub_blob, n))) rc = no_memory(r->dir, err);
    for (size_t i = 0; i < n && !rc; i++) {
        struct stat st;
        fa_hub_blob *b = &r->blob[r->n_blob];
        char *path = join(mem, dir, name[i]);
        b->name = fa_mem_printf(mem, "%s", name[i]);
        if (!path || !b->name)
            rc = no_memory(r->dir, err);
        else if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            b->size = (int64_t)st.st_size;
            b->used = (int64_t)st.st_atime;
            fa_hub_shared_hash(path, b->shared);
            r->n_blob++;
        }
    }
    fa_hub_names_free(name, n);
    return rc;
}

static int blob_name(const void *key, const void *b) {
    return strcmp((const char *)key, ((const fa_hub_blob *)b)->name);
}

typedef struct scan {
    fa_hub_repo *r;
    fa_hub_rev *v;
} scan;

static int count_file(void *user, const char *name, const char *path, fa_error *err) {
    scan *s = (scan *)user;
    fa_hub_rev *v = s->v;
    char target[4096];
    struct stat st;
    (void)name;
    ssize_t n = readlink(path, target, sizeof target - 1);
    v->n_file++;
    if (n < 0) { /* a copy */
        if (stat(path, &st) != 0) return 0;
        v->bytes += (int64_t)st.st_size;
        v->own += (int64_t)st.st_size;
        if ((int64_t)st.st_atime > v->used) v->used = (int64_t)st.st_atime;
        return 0;
    }
    target[n] = 0;
    const char *base = strrchr(target, '/');
    fa_hub_blob *b = s->r->n_blob ? (fa_hub_blob *)bsearch(base ? base + 1 : target, s->r->blob, s->r->n_blob,
                                                           sizeof *s->r->blob, blob_name)
                                  : NULL;
    if (!b) return 0; /* a broken link, or one to somewhere else */
    size_t me = (size_t)(v - s->r->rev) + 1;
    if (b->used > v->used) v->used = b->used;
    if (b->last_user == me) return 0;
    b->last_user = me;
    b->n_user++;
    v->bytes += b->size;
    if (v->n_blob == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 16;
        size_t *more = (size_t *)fa_realloc(v->blob, cap, sizeof *more);
        if (!more) return no_memory(path, err);
        v->blob = more;
        v->cap = cap;
    }
    v->blob[v->n_blob++] = (size_t)(b - s->r->blob);
    return 0;
}

static int scan_revs(fa_hub_repo *r, fa_mem *mem, fa_error *err) {
    char **name, *dir = join(mem, r->dir, "snapshots");
    size_t n;
    if (!dir) return no_memory(r->dir, err);
    int rc = fa_hub_names(&name, &n, dir, err);
    if (!rc && n && !(r->rev = FA_NEWN(fa_hub_rev, n))) rc = no_memory(r->dir, err);
    for (size_t i = 0; i < n && !rc; i++) {
        char *path = join(mem, dir, name[i]);
        fa_hub_rev *v = &r->rev[r->n_rev];
        scan s = {r, v};
        if (path && (!fa_hub_is_hex(name[i], 40) || !fa_path_is_dir(path))) continue;
        v->commit = fa_mem_printf(mem, "%s", name[i]);
        v->refs = fa_mem_printf(mem, "%s", "");
        if (!path || !v->commit || !v->refs) rc = no_memory(r->dir, err);
        if (!rc) r->n_rev++;
        if (!rc) rc = walk(path, "", 0, count_file, &s, err);
    }
    fa_hub_names_free(name, n);
    for (size_t i = 0; i < r->n_rev; i++)
        for (size_t k = 0; k < r->rev[i].n_blob; k++) {
            const fa_hub_blob *b = &r->blob[r->rev[i].blob[k]];
            if (b->n_user == 1) r->rev[i].own += b->size;
        }
    return rc;
}

typedef struct ref_scan {
    fa_hub_repo *r;
    fa_mem *mem;
} ref_scan;

static int add_ref(void *user, const char *name, const char *path, fa_error *err) {
    ref_scan *s = (ref_scan *)user;
    char *text;
    size_t len;
    if (!fa_hub_name_ok(name, strlen(name)) || fa_read_file(&text, &len, path, 256, NULL) != 0) return 0;
    int rc = 0;
    for (size_t i = 0; i < s->r->n_rev && !rc; i++) {
        fa_hub_rev *v = &s->r->rev[i];
        if (strncmp(text, v->commit, 40) != 0) continue;
        v->refs = fa_mem_printf(s->mem, "%s%s%s", v->refs, *v->refs ? "," : "", name);
        if (!v->refs) rc = no_memory(path, err);
    }
    fa_free(text);
    return rc;
}

int fa_hub_scan_repo(fa_hub_repo *r, fa_mem *mem, const char *cache, const char *folder, fa_error *err) {
    const char *name = folder + strlen("models--"), *cut = strstr(name, "--");
    memset(r, 0, sizeof *r);
    r->repo = cut ? fa_mem_printf(mem, "%.*s/%s", (int)(cut - name), name, cut + 2) : fa_mem_printf(mem, "%s", name);
    r->dir = join(mem, cache, folder);
    r->lock_dir = fa_mem_printf(mem, "%s/.locks/%s", cache, folder);
    r->cache = cache;
    if (!r->repo || !r->dir || !r->lock_dir) return no_memory(cache, err);
    ref_scan s = {r, mem};
    char *refs = join(mem, r->dir, "refs");
    int rc = refs ? scan_blobs(r, mem, err) : no_memory(cache, err);
    if (!rc) rc = scan_revs(r, mem, err);
    if (!rc) rc = walk(refs, "", 0, add_ref, &s, err);
    return rc;
}

void fa_hub_repo_free(fa_hub_repo *r) {
    for (size_t i = 0; i < r->n_rev; i++) fa_free(r->rev[i].blob);
    fa_free(r->rev);
    fa_free(r->blob);
}

/* ---- the whole cache ---- */

/* Would ffai find all that it needs of this revision? */
static bool is_complete(const char *cache, const fa_hub_repo *r, const fa_hub_rev *v) {
    fa_hub h = {0};
    h.o.cache = cache;
    h.repo_dir = r->dir;
    strcpy(h.id.revision, v->commit);
    bool ok = strlen(r->repo) < sizeof h.id.repo;
    if (ok) strcpy(h.id.repo, r->repo);
    ok = ok && fa_hub_look(&h, NULL) == 1;
    fa_hub_tree_free(&h.tree);
    fa_mem_free(&h.mem);
    return ok;
}

int ffai_hub_list_create(ffai_hub_list **out, const char *cache, fa_error *err) {
    char **name = NULL;
    size_t n = 0;
    *out = NULL;
    if (!cache || !*cache) return fa_fail(err, FFAI_EINVAL, "hub: no cache folder was named");
    ffai_hub_list *l = FA_NEW(ffai_hub_list);
    if (!l) return no_memory(cache, err);
    int rc = fa_hub_names(&name, &n, cache, err);
    if (!rc && n && !(l->repo = FA_NEWN(fa_hub_repo, n))) rc = no_memory(cache, err);
    for (size_t i = 0; i < n && !rc; i++) {
        if (strncmp(name[i], "models--", 8) != 0 || !name[i][8]) continue;
        fa_hub_repo *r = &l->repo[l->n++];
        rc = fa_hub_scan_repo(r, &l->mem, cache, name[i], err);
        for (size_t k = 0; k < r->n_blob; k++) l->loose += r->blob[k].n_user ? 0 : r->blob[k].size;
        for (size_t k = 0; k < r->n_rev && !rc; k++) r->rev[k].complete = is_complete(cache, r, &r->rev[k]);
    }
    fa_hub_names_free(name, n);
    if (rc)
        ffai_hub_list_free(l);
    else
        *out = l;
    return rc;
}

void ffai_hub_list_free(ffai_hub_list *l) {
    if (!l) return;
    for (size_t i = 0; i < l->n; i++) fa_hub_repo_free(&l->repo[i]);
    fa_free(l->repo);
    fa_mem_free(&l->mem);
    fa_free(l);
}

bool ffai_hub_list_at(const ffai_hub_list *l, size_t i, ffai_hub_cached *c) {
    for (size_t k = 0; k < l->n; i -= l->repo[k++].n_rev) {
        if (i >= l->repo[k].n_rev) continue;
        const fa_hub_rev *v = &l->repo[k].rev[i];
        *c = (ffai_hub_cached){.repo = l->repo[k].repo,
                               .commit = v->commit,
                               .refs = v->refs,
                               .n_file = v->n_file,
                               .bytes = v->bytes,
                               .own_bytes = v->own,
                               .used = v->used,
                               .complete = v->complete};
        return true;
    }
    return false;
}

int64_t ffai_hub_list_loose_bytes(const ffai_hub_list *l) { return l->loose; }
