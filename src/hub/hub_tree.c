/* Listings of repositories: checked on the way in, whether they come from a server or from a file in the cache. */
#include "base/alloc.h"
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 200000 };

int fa_hub_tree_add(fa_hub_tree *t, const char *name, size_t len, int64_t size, const char *oid, const char *sha256,
                    const char *xet, const char *what, fa_error *err) {
    if (!name || !fa_hub_name_ok(name, len))
        return fa_fail(err, FFAI_EFORMAT, "%s: a file is named \"%.200s\", which is no path inside a repository", what,
                       name ? name : "");
    if (!fa_hub_is_hex(oid, 40) || (sha256 && !fa_hub_is_hex(sha256, 64)))
        return fa_fail(err, FFAI_EFORMAT, "%s: %.200s: \"%.80s\" is no hash", what, name,
                       sha256 ? sha256
                       : oid  ? oid
                              : "");
    if (size < 0) return fa_fail(err, FFAI_EFORMAT, "%s: %.200s has no size", what, name);
    if (t->n >= MAX_FILES) return fa_fail(err, FFAI_ELIMIT, "%s: more than %d files", what, MAX_FILES);
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        fa_hub_file *more = (fa_hub_file *)fa_realloc(t->file, cap, sizeof *more);
        if (!more) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu files", what, cap);
        t->file = more;
        t->cap = cap;
    }
    fa_hub_file *f = &t->file[t->n];
    memset(f, 0, sizeof *f);
    f->name = fa_mem_printf(&t->mem, "%s", name);
    if (!f->name) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    f->size = size;
    strcpy(f->oid, oid);
    strcpy(f->etag, sha256 ? sha256 : oid);
    if (xet && fa_hub_is_hex(xet, 64)) strcpy(f->xet, xet);
    t->n++;
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const fa_hub_file *)a)->name, ((const fa_hub_file *)b)->name);
}

int fa_hub_tree_sort(fa_hub_tree *t, const char *what, fa_error *err) {
    if (t->n) qsort(t->file, t->n, sizeof *t->file, by_name);
    for (size_t i = 1; i < t->n; i++)
        if (!strcmp(t->file[i].name, t->file[i - 1].name))
            return fa_fail(err, FFAI_EFORMAT, "%s: %.200s is there twice", what, t->file[i].name);
    return 0;
}

fa_hub_file *fa_hub_tree_find(const fa_hub_tree *t, const char *name) {
    fa_hub_file key = {0};
    key.name = (char *)(uintptr_t)name;
    return t->n ? (fa_hub_file *)bsearch(&key, t->file, t->n, sizeof key, by_name) : NULL;
}

void fa_hub_tree_free(fa_hub_tree *t) {
    fa_mem_free(&t->mem);
    fa_free(t->file);
    memset(t, 0, sizeof *t);
}
