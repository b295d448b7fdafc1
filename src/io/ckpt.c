/* A checkpoint: opens a folder or a GGUF model and keeps one index of named tensors over all of its files. */
#define _POSIX_C_SOURCE 200809L
#include "io/ckpt_impl.h"
#include "base/alloc.h"
#include "base/map.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names and folders ---- */

char *fa_path_join(const char *dir, const char *name) {
    size_t a = strlen(dir), b = strlen(name);
    while (a > 1 && dir[a - 1] == '/') a--;
    char *p = (char *)fa_calloc(a + b + 2, 1);
    if (!p) return NULL;
    memcpy(p, dir, a);
    p[a] = '/';
    memcpy(p + a + 1, name, b);
    return p;
}

void fa_names_free(char **names, size_t n) {
    for (size_t i = 0; names && i < n; i++) fa_free(names[i]);
    fa_free(names);
}

static bool ends_in(const char *s, const char *suffix) {
    size_t a = strlen(s), b = strlen(suffix);
    return a > b && memcmp(s + a - b, suffix, b) == 0;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int fa_list_dir(char ***names, size_t *n, const char *dir, const char *suffix, fa_error *err) {
    size_t cap = 0;
    int rc = FFAI_OK;
    *names = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d) return fa_fail(err, FFAI_EIO, "%s: %s", dir, strerror(errno));
    for (struct dirent *e; !rc && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || !ends_in(e->d_name, suffix)) continue;
        if (*n >= FA_CKPT_MAX_FILES) {
            rc = fa_fail(err, FFAI_ELIMIT, "%s: more than %d *%s files", dir, FA_CKPT_MAX_FILES, suffix);
            break;
        }
        if (*n == cap) {
            char **p = (char **)fa_realloc(*names, cap = cap ? cap * 2 : 16, sizeof *p);
            if (!p)
                rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir);
            else
                *names = p;
        }
        if (!rc && !((*names)[*n] = fa_strdup(e->d_name))) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir);
        if (!rc) ++*n;
    }
    closedir(d);
    if (*n) qsort(*names, *n, sizeof **names, by_bytes);
    if (rc) {
        fa_names_free(*names, *n);
        *names = NULL;
        *n = 0;
    }
    return rc;
}

static bool five_digits(const char *s, unsigned *v) {
    *v = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        *v = *v * 10 + (unsigned)(s[i] - '0');
    }
    return true;
}

bool fa_split_name(const char *name, const char *suffix, size_t *stem, unsigned *part, unsigned *parts) {
    size_t tail = 1 + 5 + 4 + 5 + strlen(suffix), n = strlen(name);
    if (n < tail || strcmp(name + n - strlen(suffix), suffix) != 0) return false;
    const char *p = name + n - tail;
    *stem = n - tail;
    return p[0] == '-' && five_digits(p + 1, part) && memcmp(p + 6, "-of-", 4) == 0 && five_digits(p + 10, parts) &&
           *part >= 1 && *part <= *parts;
}

/* ---- the handle ---- */

int fa_ckpt_add(fa_ckpt *c, const fa_ckpt_tensor *t, fa_error *err) {
    int put = fa_smap_put(&c->by_name, t->name, strlen(t->name), (uint32_t)c->n_tensor);
    if (put == 0) {
        uint32_t i = 0;
        fa_smap_get(&c->by_name, t->name, strlen(t->name), &i);
        return fa_fail(err, FFAI_EFORMAT, "%s: tensor %.150s is in two files: %.100s and %.100s", c->path, t->name,
                       c->tensor[i].file, t->file);
    }
    if (put < 0) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tensor index", c->path);
    c->tensor[c->n_tensor++] = *t;
    return FFAI_OK;
}

/* A folder without config.json: the one GGUF model in it (first part of a split one), if there is exactly one. */
static int lone_gguf(char **found, const char *dir, fa_error *err) {
    char **names;
    size_t n, count = 0, stem;
    unsigned part, parts;
    *found = NULL;
    int rc = fa_list_dir(&names, &n, dir, ".gguf", err);
    if (rc) return rc;
    const char *one = NULL;
    for (size_t i = 0; i < n; i++) {
        if (fa_split_name(names[i], ".gguf", &stem, &part, &parts) && part != 1) continue;
        if (strncmp(names[i], "mmproj", 6) == 0) continue; /* the vision part of a model */
        one = names[i];
        count++;
    }
    if (count == 1 && !(*found = fa_path_join(dir, one)))
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir);
    else if (count == 0)
        rc = fa_fail(err, FFAI_EIO, "%s: no config.json and no .gguf file in this folder", dir);
    else if (count > 1)
        rc = fa_fail(err, FFAI_EINVAL, "%s: no config.json and %zu .gguf models in this folder; name one of them", dir,
                     count);
    fa_names_free(names, n);
    return rc;
}

/* "org/repo" or "org/repo@revision": one slash, in the middle, and no file name's ending. */
static bool looks_like_repo(const char *s) {
    const char *slash = strchr(s, '/');
    return slash && slash != s && slash[1] && !strchr(slash + 1, '/') && s[0] != '.' && !ends_in(s, ".gguf");
}

static int open_any(fa_ckpt *c, bool need_weights, fa_error *err) {
    if (!fa_path_is_dir(c->path)) {
        if (fa_path_is_file(c->path) && !ends_in(c->path, ".gguf"))
            return fa_fail(err, FFAI_EINVAL, "%s: neither a folder nor a .gguf file", c->path);
        if (!fa_path_exists(c->path) && looks_like_repo(c->path))
            return fa_fail(err, FFAI_EIO, "%s: no such folder or file", c->path);
        return fa_ckpt_open_gguf(c, c->path, err); /* a file that does not exist is reported there */
    }
    char *config = fa_path_join(c->path, "config.json"), *gguf;
    if (!config) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", c->path);
    bool has_config = fa_path_exists(config);
    fa_free(config);
    if (has_config) return fa_ckpt_open_dir(c, need_weights, err);
    int rc = lone_gguf(&gguf, c->path, err);
    if (!rc) rc = fa_ckpt_open_gguf(c, gguf, err);
    fa_free(gguf);
    return rc;
}

int fa_ckpt_open(fa_ckpt **out, const char *path, bool need_weights, fa_error *err) {
    *out = NULL;
    fa_ckpt *c = FA_NEW(fa_ckpt);
    if (!c || !(c->path = fa_strdup(path))) {
        fa_ckpt_free(c);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
    }
    int rc = open_any(c, need_weights, err);
    if (rc) {
        fa_ckpt_free(c);
        return rc;
    }
    *out = c;
    return FFAI_OK;
}

void fa_ckpt_free(fa_ckpt *c) {
    if (!c) return;
    fa_smap_free(&c->by_name);
    fa_free(c->tensor);
    fa_names_free(c->owned, c->n_owned);
    for (size_t i = 0; i < c->n_shard; i++) {
        fa_st_free(c->shard[i].st);
        fa_pt_free(c->shard[i].pt);
    }
    fa_free(c->shard);
    for (size_t i = 0; i < c->n_gguf; i++) fa_gguf_free(c->gguf[i]);
    fa_free(c->gguf);
    fa_names_free(c->gguf_path, c->n_gguf);
    fa_json_free(c->config);
    fa_json_free(c->generation_config);
    fa_free(c->path);
    fa_free(c);
}

size_t fa_ckpt_count(const fa_ckpt *c) { return c ? c->n_tensor : 0; }
const fa_ckpt_tensor *fa_ckpt_at(const fa_ckpt *c, size_t i) { return i < fa_ckpt_count(c) ? &c->tensor[i] : NULL; }
const fa_jnode *fa_ckpt_config(const fa_ckpt *c) { return c ? fa_json_root(c->config) : NULL; }
const fa_jnode *fa_ckpt_generation_config(const fa_ckpt *c) { return c ? fa_json_root(c->generation_config) : NULL; }
const fa_gguf *fa_ckpt_gguf(const fa_ckpt *c) { return c && c->n_gguf ? c->gguf[0] : NULL; }
const char *fa_ckpt_container(const fa_ckpt *c) {
    return fa_ckpt_gguf(c) ? "gguf" : c && c->torch ? "torch" : "safetensors";
}
const char *fa_ckpt_path(const fa_ckpt *c) { return c ? c->path : NULL; }

const fa_ckpt_tensor *fa_ckpt_find(const fa_ckpt *c, const char *name) {
    uint32_t i;
    return c && fa_smap_get(&c->by_name, name, strlen(name), &i) ? &c->tensor[i] : NULL;
}

/* ---- files that change while they are open ---- */

static size_t n_file(const fa_ckpt *c) { return c->n_shard + c->n_gguf; }

static const fa_map *file_at(const fa_ckpt *c, size_t i, const char **path) {
    if (i >= c->n_shard) {
        *path = c->gguf_path[i - c->n_shard];
        return fa_gguf_map(c->gguf[i - c->n_shard]);
    }
    const fa_shard *s = &c->shard[i];
    *path = s->st ? fa_st_what(s->st) : fa_pt_what(s->pt);
    return s->st ? fa_st_map(s->st) : fa_pt_map(s->pt);
}

int fa_ckpt_check(fa_ckpt *c, fa_error *err) {
    const char *path;
    for (size_t i = 0; i < n_file(c); i++) {
        const fa_map *m = file_at(c, i, &path);
        int rc = fa_map_check(m, path, err);
        if (rc) {
            atomic_store(&c->lost, true);
            return rc;
        }
    }
    return fa_ckpt_lost(c) ? fa_fail(err, FFAI_EIO, "%s: a file of it could not be read while it was in use", c->path)
                           : 0;
}

bool fa_ckpt_patch(fa_ckpt *c, const void *address) {
    const char *path;
    for (size_t i = 0; i < n_file(c); i++) {
        if (!fa_map_patch(file_at(c, i, &path), address)) continue;
        atomic_store(&c->lost, true);
        return true;
    }
    return false;
}

bool fa_ckpt_lost(const fa_ckpt *c) { return atomic_load_explicit(&c->lost, memory_order_relaxed); }
