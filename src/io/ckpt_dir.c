/* Folders in HuggingFace or mlx layout: config.json, generation_config.json, and weights as one file, as shards with an
 * index, as whatever *.safetensors there is, or as parts of torch files. */
#include "base/alloc.h"
#include "base/map.h"
#include "io/ckpt_impl.h"
#include "tensor/dtype.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int no_memory(const fa_ckpt *c, fa_error *err) { return fa_fail(err, FFAI_ENOMEM, "%s: no memory", c->path); }

/* dir/name as a JSON object; *j stays NULL when the file is missing and optional. One that is there but cannot be read
 * is an error. */
static int load_json(fa_json **j, const fa_ckpt *c, const char *name, bool optional, fa_error *err) {
    char *path = fa_path_join(c->path, name);
    int rc = FFAI_OK;
    if (!path) return no_memory(c, err);
    if (!optional || fa_path_exists(path)) rc = fa_json_load_python(j, path, err);
    if (!rc && *j && fa_jtype_of(fa_json_root(*j)) != FA_JOBJ)
        rc = fa_fail(err, FFAI_EFORMAT, "%s: not a JSON object", path);
    fa_free(path);
    return rc;
}

/* ---- shards of either kind ---- */

static size_t shard_count(const fa_shard *s) { return s->st ? fa_st_count(s->st) : fa_pt_count(s->pt); }
static const char *shard_what(const fa_shard *s) { return s->st ? fa_st_what(s->st) : fa_pt_what(s->pt); }

static const fa_st_tensor *shard_at(const fa_shard *s, size_t i) {
    return s->st ? fa_st_at(s->st, i) : fa_pt_at(s->pt, i);
}

static bool shard_has(const fa_shard *s, const char *name) {
    return s->st ? fa_st_find(s->st, name) != NULL : fa_pt_find(s->pt, name) != NULL;
}

/* Opens one more shard; c->shard has room. */
static int open_shard(fa_ckpt *c, const char *name, const char *index, fa_error *err) {
    char *path = fa_path_join(c->path, name);
    if (!path) return no_memory(c, err);
    fa_shard *s = &c->shard[c->n_shard];
    *s = (fa_shard){NULL, NULL};
    int rc = c->torch ? fa_pt_open(&s->pt, path, err) : fa_st_open(&s->st, path, err);
    if (!rc)
        c->n_shard++;
    else if (index)
        fa_fail_prefix(err, rc, "shard of %s", index);
    fa_free(path);
    return rc;
}

/* A shard must be a plain file name inside the folder. */
static bool plain_name(const char *s, size_t len) {
    if (len == 0 || len > 255 || strlen(s) != len || strchr(s, '/') || strchr(s, '\\')) return false;
    return strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

/* Opens every shard that the weight map names, in the order of first mention. */
static int open_map_shards(fa_ckpt *c, const fa_jnode *map, fa_smap *shard, const char *index, fa_error *err) {
    size_t cap = 0, len;
    for (const fa_jnode *n = fa_jfirst(map); n; n = fa_jnext(n)) {
        const char *name = fa_jstr(n, &len);
        if (!name)
            return fa_fail(err, FFAI_EFORMAT, "%s: weight_map: \"%.200s\" is not a string", index, fa_jkey(n, NULL));
        if (!plain_name(name, len))
            return fa_fail(err, FFAI_EFORMAT, "%s: weight_map: \"%.100s\" is no file name: \"%.100s\"", index,
                           fa_jkey(n, NULL), name);
        int put = fa_smap_put(shard, name, len, (uint32_t)c->n_shard);
        if (put == 0) continue;
        if (put < 0) return no_memory(c, err);
        if (c->n_shard >= FA_CKPT_MAX_FILES)
            return fa_fail(err, FFAI_ELIMIT, "%s: more than %d shards", index, FA_CKPT_MAX_FILES);
        if (c->n_shard == cap) {
            fa_shard *p = (fa_shard *)fa_realloc(c->shard, cap = cap ? cap * 2 : 16, sizeof *p);
            if (!p) return no_memory(c, err);
            c->shard = p;
        }
        int rc = open_shard(c, name, index, err);
        if (rc) return rc;
    }
    return FFAI_OK;
}

static int open_index(fa_ckpt *c, const char *file, fa_error *err) {
    fa_json *j = NULL;
    fa_smap shard = {0};
    uint32_t at = 0;
    size_t len;
    char *index = fa_path_join(c->path, file);
    int rc = index ? load_json(&j, c, file, false, err) : no_memory(c, err);
    const fa_jnode *map = fa_jget(fa_json_root(j), "weight_map");
    if (!rc && (fa_jtype_of(map) != FA_JOBJ || !fa_jlen(map)))
        rc = fa_fail(err, FFAI_EFORMAT, "%s: no weight_map", index);
    if (!rc) rc = open_map_shards(c, map, &shard, index, err);
    for (const fa_jnode *n = fa_jfirst(map); n && !rc; n = fa_jnext(n)) {
        const char *name = fa_jstr(n, &len), *tensor = fa_jkey(n, NULL);
        if (fa_smap_get(&shard, name, len, &at) && !shard_has(&c->shard[at], tensor))
            rc = fa_fail(err, FFAI_EFORMAT, "%s: tensor %.150s is not in its shard %.100s", index, tensor, name);
    }
    fa_smap_free(&shard);
    fa_json_free(j);
    fa_free(index);
    return rc;
}

static const char *suffix(const fa_ckpt *c) { return c->torch ? ".bin" : ".safetensors"; }

/* Is name part k of the set that `first` belongs to? */
static bool is_part(const fa_ckpt *c, const char *first, const char *name, unsigned k) {
    size_t a, b;
    unsigned part, parts, p, q;
    return fa_split_name(first, suffix(c), &a, &part, &parts) && fa_split_name(name, suffix(c), &b, &p, &q) && a == b &&
           memcmp(first, name, a) == 0 && q == parts && (k == 0 || p == k);
}

/* Shards without an index: every part that a name promises must be there. names are sorted, so a set stands together.
 */
static int check_parts(const fa_ckpt *c, char **names, size_t n, fa_error *err) {
    size_t stem;
    unsigned part, parts;
    char want[300];
    for (size_t i = 0; i < n; i++) {
        if (!fa_split_name(names[i], suffix(c), &stem, &part, &parts) || stem > 255) continue;
        if (i && is_part(c, names[i], names[i - 1], 0)) continue; /* its set was checked */
        for (unsigned k = 1; k <= parts; k++) {
            if (i + k - 1 < n && is_part(c, names[i], names[i + k - 1], k)) continue;
            snprintf(want, sizeof want, "%.*s-%05u-of-%05u%s", (int)stem, names[i], k, parts, suffix(c));
            return fa_fail(err, FFAI_EIO, "%s: shard %s is missing", c->path, want);
        }
    }
    return FFAI_OK;
}

/* Keeps names that begin with pytorch_model-: other .bin files (training_args, optimizers) are no weights. */
static size_t keep_parts(char **names, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        char *name = names[i];
        names[i] = NULL;
        if (strncmp(name, "pytorch_model-", 14) == 0)
            names[kept++] = name;
        else
            fa_free(name);
    }
    return kept;
}

/* Every file with the suffix; *found: there is one. */
static int open_all(fa_ckpt *c, bool *found, fa_error *err) {
    char **names;
    size_t n;
    int rc = fa_list_dir(&names, &n, c->path, suffix(c), err);
    if (rc) return rc;
    if (c->torch) n = keep_parts(names, n);
    *found = n > 0;
    rc = check_parts(c, names, n, err);
    if (!rc && n && !(c->shard = FA_NEWN(fa_shard, n))) rc = no_memory(c, err);
    for (size_t i = 0; i < n && !rc; i++) rc = open_shard(c, names[i], NULL, err);
    fa_names_free(names, n);
    return rc;
}

static int exists(bool *yes, const fa_ckpt *c, const char *name, fa_error *err) {
    char *path = fa_path_join(c->path, name);
    if (!path) return no_memory(c, err);
    *yes = fa_path_exists(path);
    fa_free(path);
    return FFAI_OK;
}

/* The layouts that transformers looks for, in its order; then whatever is there. */
static int open_weights(fa_ckpt *c, bool need_weights, fa_error *err) {
    static const char *const single[] = {"model.safetensors", "pytorch_model.bin"}, *const index[] = {
                                                                                        "model.safetensors.index.json",
                                                                                        "pytorch_model.bin.index.json"};
    bool found = false;
    int rc = FFAI_OK;
    for (int kind = 0; kind < 2 && !rc; kind++) {
        c->torch = kind == 1;
        rc = exists(&found, c, single[kind], err);
        if (!rc && found && !(c->shard = FA_NEWN(fa_shard, 1))) return no_memory(c, err);
        if (!rc && found) return open_shard(c, single[kind], NULL, err);
        if (!rc) rc = exists(&found, c, index[kind], err);
        if (!rc && found) return open_index(c, index[kind], err);
    }
    for (int kind = 0; kind < 2 && !rc && !found; kind++) {
        c->torch = kind == 1;
        rc = open_all(c, &found, err);
    }
    if (!found) c->torch = false;
    if (!rc && !found && need_weights)
        rc = fa_fail(err, FFAI_EIO, "%s: no *.safetensors file and no pytorch_model.bin in this folder", c->path);
    return rc;
}

static int8_t fmt_of(int dtype) {
    return dtype == FA_F32 ? FA_FMT_F32 : dtype == FA_F16 ? FA_FMT_F16 : dtype == FA_BF16 ? FA_FMT_BF16 : -1;
}

static int index_tensors(fa_ckpt *c, fa_error *err) {
    size_t total = 0;
    for (size_t i = 0; i < c->n_shard; i++) total += shard_count(&c->shard[i]);
    if (!(c->tensor = FA_NEWN(fa_ckpt_tensor, total)) || total > UINT32_MAX || !fa_smap_reserve(&c->by_name, total))
        return no_memory(c, err);
    for (size_t i = 0; i < c->n_shard; i++) {
        for (size_t k = 0; k < shard_count(&c->shard[i]); k++) {
            const fa_st_tensor *s = shard_at(&c->shard[i], k);
            fa_ckpt_tensor t = {.name = s->name,
                                .file = shard_what(&c->shard[i]),
                                .type_name = s->type_name,
                                .data = s->data,
                                .bytes = s->bytes,
                                .n_dim = s->n_dim,
                                .dtype = s->dtype,
                                .copied = s->copied,
                                .fmt = fmt_of(s->dtype)};
            memcpy(t.dim, s->dim, sizeof t.dim);
            int rc = fa_ckpt_add(c, &t, err);
            if (rc) return rc;
        }
    }
    return FFAI_OK;
}

/* Configs of other packages in the words of transformers. */
static int translate_config(fa_ckpt *c, fa_error *err) {
    char *path = fa_path_join(c->path, "config.json");
    int rc = path ? fa_mamba_ssm_config(&c->config, path, err) : no_memory(c, err);
    fa_free(path);
    return rc;
}

int fa_ckpt_open_dir(fa_ckpt *c, bool need_weights, fa_error *err) {
    int rc = load_json(&c->config, c, "config.json", false, err);
    if (!rc) rc = translate_config(c, err);
    if (!rc) rc = load_json(&c->generation_config, c, "generation_config.json", true, err);
    if (!rc) rc = open_weights(c, need_weights, err);
    return rc ? rc : index_tensors(c, err);
}
