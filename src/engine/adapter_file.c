/* Reading adapters. Formulas: peft/tuners/lora/layer.py (y += (B (A x) + bias) * alpha / r, or alpha / sqrt(r); stacks
 * of experts: ParamWrapper), dora.py there, and mlx_lm/tuner/lora.py (y += scale * ((x A) B); stacks of experts:
 * LoRASwitchLinear), dora.py there. */
#include "engine/adapter_file.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/smap.h"
#include "tensor/dtype.h"
#include "text/tok_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char PEFT_FILE[] = "adapter_model.safetensors", MLX_FILE[] = "adapters.safetensors",
                  CONFIG_FILE[] = "adapter_config.json";

/* ---- files ---- */

/* *path NULL: no memory. */
static bool exists_in(fa_mem *mem, const char *dir, const char *name, char **path) {
    *path = fa_mem_printf(mem, "%s/%s", dir, name);
    return !*path || fa_path_is_file(*path);
}

/* The weight file and the config beside it. */
static int open_files(fa_adapter_file *f, const char *path, fa_error *err) {
    char *weights, *config, *dir = fa_mem_printf(&f->mem, "%s", path), *other;
    if (!dir) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for an adapter", path);
    if (!fa_path_exists(path)) return fa_fail(err, FFAI_EIO, "%s: there is no such adapter", path);
    if (fa_path_is_dir(path)) {
        if (!exists_in(&f->mem, dir, PEFT_FILE, &weights) && !exists_in(&f->mem, dir, MLX_FILE, &weights))
            return fa_fail(err, FFAI_EIO, "%s: no adapter: neither %s nor %s is there%s", path, PEFT_FILE, MLX_FILE,
                           exists_in(&f->mem, dir, "adapter_model.bin", &other)
                               ? "; adapter_model.bin is not read, save it as safetensors"
                               : "");
    } else {
        weights = fa_mem_printf(&f->mem, "%s", path);
        char *slash = strrchr(dir, '/');
        if (slash)
            slash[slash == dir] = 0;
        else
            dir = fa_mem_printf(&f->mem, ".");
    }
    if (!weights || !dir) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for an adapter", path);
    bool there = exists_in(&f->mem, dir, CONFIG_FILE, &config);
    if (!config) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for an adapter", path);
    if (!there)
        return fa_fail(err, FFAI_EIO, "%s: %s is missing beside it: it tells the adapter's scale", weights,
                       CONFIG_FILE);
    int rc = fa_json_load(&f->config, config, err);
    if (!rc && fa_jtype_of(fa_json_root(f->config)) != FA_JOBJ)
        rc = fa_fail(err, FFAI_EFORMAT, "%s: not a JSON object", config);
    if (!rc) rc = fa_st_open(&f->st, weights, err);
    return rc;
}

/* ---- tensors to modules ---- */

typedef enum part { PART_NONE, PART_A, PART_B, PART_BIAS, PART_MAG, PART_BASE } part;

/* Which part of a module a tensor is; *len: the length of the module's name. */
static part part_of(const char *name, bool mlx, size_t *len, bool *table) {
    static const struct {
        const char *mark;
        part part;
        bool mlx, table;
    } marks[] = {{".lora_A", PART_A, false, false},
                 {".lora_B", PART_B, false, false},
                 {".lora_embedding_A", PART_A, false, true},
                 {".lora_embedding_B", PART_B, false, true},
                 {".lora_magnitude_vector", PART_MAG, false, false},
                 {".base_layer", PART_BASE, false, false},
                 {".lora_a", PART_A, true, false},
                 {".lora_b", PART_B, true, false}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *at = marks[i].mlx == mlx ? strstr(name, marks[i].mark) : NULL;
        if (!at) continue;
        const char *rest = at + strlen(marks[i].mark);
        if (!mlx && !strncmp(rest, ".default", 8)) rest += 8; /* the adapter's name, in files of old versions */
        *len = (size_t)(at - name);
        *table = marks[i].table;
        if (marks[i].part == PART_BASE) return strcmp(rest, ".weight") ? PART_NONE : PART_BASE;
        if (!*rest || (!mlx && !strcmp(rest, ".weight"))) return marks[i].part;
        return !mlx && marks[i].part == PART_B && !strcmp(rest, ".bias") ? PART_BIAS : PART_NONE;
    }
    *table = false;
    *len = strlen(name);
    *len -= *len > 2 ? 2 : *len;
    return mlx && !strcmp(name + *len, ".m") ? PART_MAG : PART_NONE;
}

/* The name of a module without what PEFT puts in front. */
static const char *module_name(fa_adapter_file *f, const char *name, size_t len) {
    static const char front[] = "base_model.model.";
    size_t skip = !f->mlx && !strncmp(name, front, sizeof front - 1) ? sizeof front - 1 : 0;
    return fa_mem_printf(&f->mem, "%.*s", (int)(len - skip), name + skip);
}

static bool has_floats(const fa_st_tensor *t) {
    return t->dtype == FA_F32 || t->dtype == FA_F16 || t->dtype == FA_BF16;
}

/* A module of that name, new or known; NULL: no memory. */
static fa_adapter_module *module_at(fa_adapter_file *f, fa_smap *known, const char *name) {
    uint32_t i = (uint32_t)f->n;
    int put = fa_smap_put(known, name, strlen(name), i);
    if (put < 0) return NULL;
    if (!put)
        fa_smap_get(known, name, strlen(name), &i);
    else
        f->module[f->n++].name = name;
    return &f->module[i];
}

static int add_tensor(fa_adapter_file *f, fa_smap *known, const fa_st_tensor *t, fa_buf *others, int *n_other,
                      fa_error *err) {
    size_t len;
    bool table;
    part p = part_of(t->name, f->mlx, &len, &table);
    if (p == PART_NONE || (p == PART_MAG && !f->dora)) {
        fa_buf_printf(others, "%s%s", (*n_other)++ ? ", " : "", t->name);
        return 0;
    }
    const char *name = module_name(f, t->name, len);
    fa_adapter_module *m = name ? module_at(f, known, name) : NULL;
    if (!m) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", fa_st_what(f->st), fa_st_count(f->st));
    const int n_dim = p == PART_BIAS || p == PART_MAG ? 1 : f->mlx && t->n_dim == 3 ? 3 : 2;
    if (p != PART_BASE && (!has_floats(t) || t->n_dim != n_dim))
        return fa_fail(err, FFAI_ENOTSUP, "%s: tensor %s: %d-dimensional %s, not a float matrix or vector",
                       fa_st_what(f->st), t->name, t->n_dim, t->type_name);
    m->table = m->table || table;
    if (p == PART_A) m->a = t;
    if (p == PART_B) m->b = t;
    if (p == PART_BIAS) m->bias = t;
    if (p == PART_MAG) m->mag = t;
    if (p == PART_BASE) m->base = t;
    return 0;
}

/* Both matrices of every module, with one rank, and what else it must or must not have. */
static int check_pairs(fa_adapter_file *f, fa_error *err) {
    for (size_t i = 0; i < f->n; i++) {
        fa_adapter_module *m = &f->module[i];
        const char *missing = !m->a ? "first matrix is" : !m->b ? "second matrix is" : "magnitudes are";
        if (!m->a || !m->b || (f->dora && !m->mag))
            return fa_fail(err, FFAI_EFORMAT, "%s: module %s: its %s missing", fa_st_what(f->st), m->name, missing);
        if (f->dora && m->bias)
            return fa_fail(err, FFAI_ENOTSUP, "%s: module %s: magnitudes together with a bias are not supported",
                           fa_st_what(f->st), m->name);
        const int64_t *a = m->a->dim, *b = m->b->dim;
        const bool stack = m->a->n_dim == 3 && m->b->n_dim == 3 && a[0] == b[0];
        m->rank = f->mlx ? a[1] : a[0];
        int64_t b_rank = stack ? b[2] : f->mlx ? b[0] : b[1];
        if (m->rank != b_rank || m->rank < 1 || (!stack && (m->a->n_dim != 2 || m->b->n_dim != 2)))
            return fa_fail(
                err, FFAI_EFORMAT, "%s: module %s: matrices [%lld, %lld%s] and [%lld, %lld%s] have no rank in common",
                fa_st_what(f->st), m->name, (long long)a[0], (long long)a[1], m->a->n_dim == 3 ? ", ..." : "",
                (long long)b[0], (long long)b[1], m->b->n_dim == 3 ? ", ..." : "");
    }
    return 0;
}

static int read_modules(fa_adapter_file *f, fa_error *err) {
    fa_smap known = {0};
    fa_buf others = {0};
    size_t n = fa_st_count(f->st);
    int n_other = 0, rc = 0;
    f->module = (fa_adapter_module *)fa_mem_calloc(&f->mem, n ? n : 1, sizeof *f->module);
    if (!f->module) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", fa_st_what(f->st), n);
    for (size_t i = 0; i < n && !rc; i++) rc = add_tensor(f, &known, fa_st_at(f->st, i), &others, &n_other, err);
    if (!rc && n_other)
        rc = fa_fail(err, FFAI_ENOTSUP,
                     "%s: %d tensor%s no low-rank matri%s (biases and modules_to_save are not supported): %s",
                     fa_st_what(f->st), n_other, n_other > 1 ? "s are" : " is", n_other > 1 ? "ces" : "x",
                     others.data ? others.data : "");
    if (!rc && !f->n) rc = fa_fail(err, FFAI_EFORMAT, "%s: no adapter: it holds no matrices", fa_st_what(f->st));
    if (!rc) rc = check_pairs(f, err);
    fa_smap_free(&known);
    fa_buf_free(&others);
    return rc;
}

/* ---- mlx's config ---- */

static int check_mlx(fa_adapter_file *f, fa_error *err) {
    const fa_jnode *node = fa_jget(fa_json_root(f->config), "fine_tune_type");
    const char *type = fa_jstr(node, NULL);
    f->dora = type && !strcmp(type, "dora");
    if (!node || f->dora || (type && !strcmp(type, "lora"))) return 0;
    return fa_fail(err, FFAI_ENOTSUP, "%s: \"fine_tune_type\" is %s, only lora and dora are supported",
                   fa_st_what(f->st), type ? type : "no string");
}

static int read_mlx(fa_adapter_file *f, fa_error *err) {
    const fa_jnode *lora = fa_jget(fa_json_root(f->config), "lora_parameters"), *scale = fa_jget(lora, "scale");
    float s = (float)fa_jnum(scale, NAN);
    if (!isfinite(s))
        return fa_fail(err, FFAI_EFORMAT, "%s: adapter_config.json: \"lora_parameters\" has no finite \"scale\"",
                       fa_st_what(f->st));
    for (size_t i = 0; i < f->n; i++) {
        const char *dot = strrchr(f->module[i].name, '.'), *last = dot ? dot + 1 : f->module[i].name;
        f->module[i].scale = s;
        f->module[i].table = strstr(last, "embed") || !strcmp(last, "wte");
    }
    return 0;
}

/* ---- PEFT's config ---- */

/* Does a member ask for something? Not when it is absent, null, false, empty. */
static bool is_set(const fa_jnode *n) {
    switch (fa_jtype_of(n)) {
    case FA_JNULL: return false;
    case FA_JBOOL: return fa_jbool(n, false);
    case FA_JARR:
    case FA_JOBJ: return fa_jlen(n) > 0;
    default: return true;
    }
}

/* Keys that change what is computed. */
static int check_peft(fa_adapter_file *f, fa_error *err) {
    static const char *const no[] = {"use_qalora",          "use_bdlora",       "layer_replication",
                                     "kasa_config",         "arrow_config",     "alora_invocation_tokens",
                                     "velora_config",       "modules_to_save",  "trainable_token_indices",
                                     "ensure_weight_tying", "monteclora_config"};
    /* these are drawn at random or taken from data; all others change the base model too */
    static const char *const plain_init[] = {"gaussian", "orthogonal", "eva"};
    const fa_jnode *root = fa_json_root(f->config), *init = fa_jget(root, "init_lora_weights");
    const char *type = fa_jstr(fa_jget(root, "peft_type"), NULL), *how = fa_jstr(init, NULL),
               *bias = fa_jstr(fa_jget(root, "bias"), NULL);
    if (!type || strcmp(type, "LORA") != 0)
        return fa_fail(err, FFAI_ENOTSUP, "%s: \"peft_type\" is %s, only LORA is supported", fa_st_what(f->st),
                       type ? type : "not there");
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (is_set(fa_jget(root, no[i])))
            return fa_fail(err, FFAI_ENOTSUP, "%s: adapter_config.json: \"%s\" is not supported", fa_st_what(f->st),
                           no[i]);
    if (bias && strcmp(bias, "none") != 0)
        return fa_fail(err, FFAI_ENOTSUP,
                       "%s: adapter_config.json: \"bias\" is \"%s\": changed biases are not supported",
                       fa_st_what(f->st), bias);
    f->dora = is_set(fa_jget(root, "use_dora"));
    bool plain = !how;
    for (size_t i = 0; i < sizeof plain_init / sizeof *plain_init; i++) plain = plain || !strcmp(how, plain_init[i]);
    if (!plain)
        return fa_fail(
            err, FFAI_ENOTSUP,
            "%s: adapter_config.json: \"init_lora_weights\" is \"%s\", which changes the base model: convert "
            "it to a plain adapter",
            fa_st_what(f->st), how);
    return 0;
}

/* The value of the first pattern that matches the module's name, as PEFT's get_pattern_key: (.*\.)?(key)$ from the
 * beginning. *out stays when there is none. */
static int by_pattern(const fa_adapter_file *f, const char *key, const char *name, double *out, fa_error *err) {
    const fa_jnode *patterns = fa_jget(fa_json_root(f->config), key);
    int rc = 0;
    for (const fa_jnode *p = fa_jfirst(patterns); p && !rc; p = fa_jnext(p)) {
        fa_buf text = {0};
        fa_regex *re = NULL;
        fa_regex_run *run = NULL;
        fa_regex_at at = {0};
        fa_buf_printf(&text, "\\A(?:.*\\.)?(?:%s)\\z", fa_jkey(p, NULL));
        rc = text.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory for a pattern", fa_st_what(f->st))
                         : fa_regex_new(&re, text.data, text.len, key, err);
        if (rc && rc != FFAI_ENOMEM) fa_fail_prefix(err, rc = FFAI_EFORMAT, "%s", fa_st_what(f->st));
        fa_regex_run_begin(run);
        if (!rc) rc = fa_regex_next(re, &run, name, strlen(name), &at, err);
        if (rc == 1) *out = fa_jnum(p, NAN);
        fa_regex_run_free(run);
        fa_regex_free(re);
        fa_buf_free(&text);
    }
    return rc < 0 ? rc : 0;
}

bool fa_adapter_file_targets(const fa_adapter_file *f, const char *name) {
    const fa_jnode *list = fa_jget(fa_json_root(f->config), "target_parameters");
    size_t n = strlen(name);
    for (const fa_jnode *t = fa_jfirst(list); t; t = fa_jnext(t)) {
        const char *text = fa_jstr(t, NULL) ? fa_jstr(t, NULL) : "";
        size_t len = strlen(text);
        if (len && len <= n && !strcmp(name + n - len, text) && (len == n || name[n - len - 1] == '.')) return true;
    }
    return false;
}

bool fa_adapter_file_old_stacks(const fa_adapter_file *f) {
    const char *version = fa_jstr(fa_jget(fa_json_root(f->config), "peft_version"), NULL);
    int major = 0, minor = 0; /* 0.18 was the first to write it */
    return !version || sscanf(version, "%9d.%9d", &major, &minor) != 2 || (major == 0 && minor < 19);
}

int fa_adapter_file_scale(const fa_adapter_file *f, fa_adapter_module *m, const char *name, int64_t n_expert,
                          fa_error *err) {
    if (f->mlx) return 0;
    const fa_jnode *root = fa_json_root(f->config);
    bool root_of_rank = fa_jbool(fa_jget(root, "use_rslora"), false);
    double rank = fa_jnum(fa_jget(root, "r"), 8), alpha = fa_jnum(fa_jget(root, "lora_alpha"), 8);
    int rc = by_pattern(f, "rank_pattern", name, &rank, err);
    if (!rc) rc = by_pattern(f, "alpha_pattern", name, &alpha, err);
    if (rc) return rc;
    if (rank * (double)(n_expert ? n_expert : 1) != (double)m->rank)
        return fa_fail(err, FFAI_EFORMAT, "%s: module %s: its matrices have rank %lld, adapter_config.json says %g%s",
                       fa_st_what(f->st), m->name, (long long)m->rank, rank, n_expert ? " for each expert" : "");
    m->rank = (int64_t)rank;
    m->scale = (float)(root_of_rank ? alpha / sqrt(rank) : alpha / rank);
    if (!isfinite(m->scale))
        return fa_fail(err, FFAI_EFORMAT, "%s: module %s: adapter_config.json: the alpha is no finite number",
                       fa_st_what(f->st), m->name);
    return 0;
}

/* ---- the whole ---- */

static void hash_tensor(uint64_t h[4], const fa_st_tensor *t) {
    if (!t) return;
    h[1] = fa_hash(t->name, strlen(t->name));
    h[2] = fa_hash(t->dim, t->n_dim * sizeof t->dim[0]) + t->bytes;
    h[3] = fa_hash(t->data, t->bytes);
    h[0] = fa_hash(h, 4 * sizeof *h);
}

uint64_t fa_adapter_file_hash(const fa_adapter_file *f) {
    uint64_t h[4] = {0};
    for (size_t i = 0; i < f->n; i++) {
        const fa_adapter_module *m = &f->module[i];
        uint32_t bits;
        memcpy(&bits, &m->scale, sizeof bits);
        h[0] += bits;
        hash_tensor(h, m->a);
        hash_tensor(h, m->b);
        hash_tensor(h, m->bias);
        hash_tensor(h, m->mag);
    }
    return h[0];
}

int fa_adapter_file_open(fa_adapter_file *f, const char *path, fa_error *err) {
    memset(f, 0, sizeof *f);
    int rc = open_files(f, path, err);
    if (!rc) {
        const fa_jnode *root = fa_json_root(f->config);
        f->mlx = !fa_jget(root, "peft_type") && (fa_jget(root, "lora_parameters") || fa_jget(root, "fine_tune_type"));
        rc = f->mlx ? check_mlx(f, err) : check_peft(f, err);
    }
    if (!rc) rc = read_modules(f, err);
    if (!rc && f->mlx) rc = read_mlx(f, err);
    if (rc) fa_adapter_file_close(f);
    return rc;
}

void fa_adapter_file_close(fa_adapter_file *f) {
    fa_st_free(f->st);
    fa_json_free(f->config);
    fa_mem_free(&f->mem);
    memset(f, 0, sizeof *f);
}
