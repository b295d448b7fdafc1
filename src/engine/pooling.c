/* sentence-transformers modules: modules.json lists them in order, each has a folder with config.json. Transformer is
 * the model itself; Pooling, Dense and Normalize are done here; what else there may be is refused by name. */
#define _GNU_SOURCE
#include "engine/pooling.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/map.h"
#include "io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 20 };

/* One loading: sticky first error. */
typedef struct reader {
    fa_pooling *p;
    const char *dir;
    int64_t dim;
    bool pooled; /* Pooling has been seen */
    fa_error *err;
} reader;

static const struct {
    const char *name, *key, *mode; /* public name; flag of 1_Pooling/config.json; its value of "pooling_mode" */
    fa_pool_kind kind;
} kinds[] = {{"mean", "pooling_mode_mean_tokens", "mean", FA_POOL_MEAN},
             {"last", "pooling_mode_lasttoken", "lasttoken", FA_POOL_LAST},
             {"cls", "pooling_mode_cls_token", "cls", FA_POOL_CLS},
             {"max", "pooling_mode_max_tokens", "max", FA_POOL_MAX},
             {NULL, "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", FA_POOL_MEAN_SQRT},
             {NULL, "pooling_mode_weightedmean_tokens", "weightedmean", FA_POOL_WEIGHTED}};
enum { N_KIND = sizeof kinds / sizeof kinds[0] };

bool fa_pool_kind_find(const char *name, fa_pool_kind *kind) {
    for (int i = 0; i < N_KIND; i++) {
        if (!kinds[i].name || strcmp(kinds[i].name, name)) continue;
        *kind = kinds[i].kind;
        return true;
    }
    return false;
}

/* ---- Pooling ---- */

static int pooling_mode(reader *r, const fa_jnode *cfg, const char *file) {
    const fa_jnode *mode = fa_jget(cfg, "pooling_mode");
    const char *said = fa_jstr(mode, NULL);
    int on = 0;
    if (said) {
        for (int i = 0; i < N_KIND; i++)
            if (!strcmp(kinds[i].mode, said)) r->p->kind = kinds[i].kind, on++;
        return on ? 0 : fa_fail(r->err, FFAI_ENOTSUP, "%s: \"pooling_mode\" \"%s\" is not known", file, said);
    }
    for (int i = 0; i < N_KIND; i++) {
        if (!fa_jbool(fa_jget(cfg, kinds[i].key), false)) continue;
        r->p->kind = kinds[i].kind;
        on++;
    }
    if (on > 1 || mode) return fa_fail(r->err, FFAI_ENOTSUP, "%s: more than one kind of pooling", file);
    const fa_jnode *mean = fa_jget(cfg, kinds[0].key);
    if (!on && fa_jtype_of(mean) == FA_JBOOL)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: no kind of pooling is on", file);
    return 0; /* without any key: mean */
}

static int read_pooling(reader *r, const fa_jnode *cfg, const char *file) {
    static const char *const widths[] = {"word_embedding_dimension", "embedding_dimension"};
    for (int i = 0; i < 2; i++) {
        const fa_jnode *n = fa_jget(cfg, widths[i]);
        if (n && fa_jint(n, -1) != r->dim)
            return fa_fail(r->err, FFAI_EFORMAT, "%s: \"%s\" is not the model's %lld", file, widths[i],
                           (long long)r->dim);
    }
    r->pooled = true;
    return pooling_mode(r, cfg, file);
}

/* ---- Dense ---- */

/* A tensor of the module as f32 in model memory. */
static const float *floats(reader *r, const fa_st *st, const char *name, int64_t rows, int64_t cols) {
    const fa_st_tensor *t = fa_st_find(st, name);
    if (!t || t->n_dim != (cols ? 2 : 1) || t->dim[0] != rows || (cols && t->dim[1] != cols) ||
        (t->dtype != FA_F32 && t->dtype != FA_F16 && t->dtype != FA_BF16)) {
        fa_fail(r->err, FFAI_EFORMAT, "%s: no float tensor \"%s\" of %lld rows and %lld columns", fa_st_what(st), name,
                (long long)rows, (long long)(cols ? cols : 1));
        return NULL;
    }
    int64_t n = rows * (cols ? cols : 1);
    float *p = (float *)fa_mem_calloc(&r->p->mem, (size_t)n, sizeof *p);
    if (p)
        fa_to_f32((fa_dtype)t->dtype, t->data, n, p);
    else
        fa_fail(r->err, FFAI_ENOMEM, "%s: no memory for %lld floats", fa_st_what(st), (long long)n);
    return p;
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0 && (n == k || s[n - k - 1] == '.');
}

static int dense_weights(reader *r, const fa_jnode *cfg, fa_pool_step *s, const char *folder) {
    fa_buf path = {0};
    fa_st *st = NULL;
    fa_buf_printf(&path, "%s/%s/model.safetensors", r->dir, folder);
    int rc = path.failed ? fa_fail(r->err, FFAI_ENOMEM, "%s: no memory", r->dir) : fa_st_open(&st, path.data, r->err);
    if (!rc && !(s->w = floats(r, st, "linear.weight", s->out, s->in))) rc = FFAI_EFORMAT;
    if (!rc && fa_jbool(fa_jget(cfg, "bias"), true) && !(s->bias = floats(r, st, "linear.bias", s->out, 0)))
        rc = FFAI_EFORMAT;
    fa_st_free(st);
    fa_buf_free(&path);
    return rc;
}

static int read_dense(reader *r, const fa_jnode *cfg, const char *file, const char *folder) {
    fa_pool_step *s = &r->p->step[r->p->n_step++];
    const char *act = fa_jstr(fa_jget(cfg, "activation_function"), NULL);
    s->in = fa_jint(fa_jget(cfg, "in_features"), -1);
    s->out = fa_jint(fa_jget(cfg, "out_features"), -1);
    s->tanh = !act || ends_with(act, "Tanh"); /* the module's default */
    if (!s->tanh && !ends_with(act, "Identity"))
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: \"activation_function\" \"%s\" (Identity, Tanh)", file, act);
    if (s->in != r->p->dim || s->out < 1 || s->out > MAX_WIDTH)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: %lld features in and %lld out, behind %lld", file, (long long)s->in,
                       (long long)s->out, (long long)r->p->dim);
    r->p->dim = s->out;
    if (s->out > r->p->widest) r->p->widest = s->out;
    return dense_weights(r, cfg, s, folder);
}

/* ---- the list ---- */

/* A module's config.json. */
static int with_config(reader *r, const char *folder, bool dense) {
    fa_buf path = {0};
    fa_json *doc = NULL;
    fa_buf_printf(&path, "%s/%s/config.json", r->dir, folder);
    int rc =
        path.failed ? fa_fail(r->err, FFAI_ENOMEM, "%s: no memory", r->dir) : fa_json_load(&doc, path.data, r->err);
    if (!rc && fa_jtype_of(fa_json_root(doc)) != FA_JOBJ)
        rc = fa_fail(r->err, FFAI_EFORMAT, "%s: not an object", path.data);
    if (!rc)
        rc =
            dense ? read_dense(r, fa_json_root(doc), path.data, folder) : read_pooling(r, fa_json_root(doc), path.data);
    fa_json_free(doc);
    fa_buf_free(&path);
    return rc;
}

static bool leaves_folder(const char *path) {
    return path[0] == '/' || !strcmp(path, "..") || !strncmp(path, "../", 3) || strstr(path, "/../") ||
           (strlen(path) > 2 && !strcmp(path + strlen(path) - 3, "/.."));
}

static int read_module(reader *r, const fa_jnode *m, int index, const char *file) {
    const char *type = fa_jstr(fa_jget(m, "type"), NULL), *folder = fa_jstr(fa_jget(m, "path"), NULL);
    if (!type || !folder || leaves_folder(folder))
        return fa_fail(r->err, FFAI_EFORMAT, "%s: module %d has no \"type\" or no \"path\" within the folder", file,
                       index);
    if (index == 0 || ends_with(type, "Transformer")) {
        if (index == 0 && ends_with(type, "Transformer")) return 0;
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: module %d is a %s: not supported there", file, index, type);
    }
    if (ends_with(type, "Dropout")) return 0; /* of training */
    if (ends_with(type, "Pooling")) {
        if (r->pooled) return fa_fail(r->err, FFAI_ENOTSUP, "%s: module %d pools a second time", file, index);
        return with_config(r, folder, false);
    }
    if (r->p->n_step == FA_POOL_STEPS)
        return fa_fail(r->err, FFAI_ELIMIT, "%s: more than %d modules behind the pooling", file, FA_POOL_STEPS);
    if (!r->pooled || (!ends_with(type, "Normalize") && !ends_with(type, "Dense")))
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: module %d is a %s%s: not supported", file, index, type,
                       r->pooled ? "" : " before the pooling");
    if (ends_with(type, "Dense")) return with_config(r, folder, true);
    r->p->step[r->p->n_step++].normalize = true;
    return 0;
}

static int read_modules(reader *r, const char *file) {
    fa_json *doc = NULL;
    int rc = fa_json_load(&doc, file, r->err), index = 0;
    const fa_jnode *root = fa_json_root(doc);
    if (!rc && (fa_jtype_of(root) != FA_JARR || !fa_jlen(root)))
        rc = fa_fail(r->err, FFAI_EFORMAT, "%s: not a list of modules", file);
    for (const fa_jnode *m = rc ? NULL : fa_jfirst(root); !rc && m; m = fa_jnext(m))
        rc = read_module(r, m, index++, file);
    fa_json_free(doc);
    return rc;
}

/* GGUF: 1 mean, 2 cls, 3 last; 0 (none) and what is absent: mean. */
static int from_gguf(fa_pooling *p, const fa_ckpt *c, fa_error *err) {
    static const fa_pool_kind by_number[] = {FA_POOL_MEAN, FA_POOL_MEAN, FA_POOL_CLS, FA_POOL_LAST};
    const fa_gguf *g = fa_ckpt_gguf(c);
    const fa_gguf_value *arch = fa_gguf_find(g, "general.architecture"), *v;
    char key[160];
    bool named = arch && arch->type == FA_GGUF_STR && arch->n < 100;
    snprintf(key, sizeof key, "%.*s.pooling_type", named ? (int)arch->n : 0, named ? (const char *)arch->data : "");
    v = fa_gguf_find(g, key);
    if (!v) return 0;
    if (v->type == FA_GGUF_STR || v->type == FA_GGUF_ARR || v->i < 0 || v->i > 3)
        return fa_fail(err, FFAI_ENOTSUP, "%s: %s is not 0 to 3 (none, mean, cls, last)", fa_ckpt_path(c), key);
    p->kind = by_number[v->i];
    return 0;
}

int fa_pooling_load(fa_pooling **out, const fa_ckpt *ckpt, int64_t dim, fa_error *err) {
    *out = NULL;
    fa_error e = {0};
    fa_pooling *p = FA_NEW(fa_pooling);
    if (!p) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the pooling", fa_ckpt_path(ckpt));
    *p = (fa_pooling){.kind = FA_POOL_MEAN, .hidden = dim, .dim = dim, .widest = dim};
    reader r = {.p = p, .dir = fa_ckpt_path(ckpt), .dim = dim, .err = &e};
    int rc = 0;
    fa_buf file = {0};
    fa_buf_printf(&file, "%s/modules.json", r.dir);
    if (file.failed)
        rc = fa_fail(&e, FFAI_ENOMEM, "%s: no memory for the pooling", r.dir);
    else if (fa_ckpt_gguf(ckpt))
        rc = from_gguf(p, ckpt, &e);
    else if (fa_path_exists(file.data))
        rc = read_modules(&r, file.data);
    fa_buf_free(&file);
    if (rc) {
        fa_pooling_free(p);
        if (err) *err = e;
        return e.code;
    }
    *out = p;
    return 0;
}

void fa_pooling_free(fa_pooling *p) {
    if (!p) return;
    fa_mem_free(&p->mem);
    fa_free(p);
}

/* ---- behind the pooling ---- */

static void to_length_1(float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    double length = sqrt(sum);
    if (!(length > 1e-12)) length = 1e-12; /* as torch.nn.functional.normalize */
    for (int64_t i = 0; i < n; i++) x[i] = (float)(x[i] / length);
}

static void apply(const fa_pool_step *s, float *x, float *work) {
    for (int64_t o = 0; o < s->out; o++) {
        double sum = s->bias ? (double)s->bias[o] : 0;
        for (int64_t i = 0; i < s->in; i++) sum += (double)s->w[o * s->in + i] * (double)x[i];
        work[o] = (float)(s->tanh ? tanh(sum) : sum);
    }
    memcpy(x, work, (size_t)s->out * sizeof *x);
}

void fa_pooling_finish(const fa_pooling *p, int normalize, float *x, float *work) {
    int64_t n = p->hidden;
    for (int i = 0; i < p->n_step; i++) {
        const fa_pool_step *s = &p->step[i];
        if (!s->normalize) {
            apply(s, x, work);
            n = s->out;
        } else if (normalize >= 0) {
            to_length_1(x, n);
        }
    }
    if (normalize > 0) to_length_1(x, n);
}
