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
    bool pooled; /* Pooling has been seen */
    fa_error *err;
} reader;

static const struct {
    const char *name, *key, *mode; /* public name; flag of 1_Pooling/config.json; its value of "pooling_mode" */
    fa_pool_kind kind;
} kinds[] = {/* in the order in which several of them are put together */
             {"cls", "pooling_mode_cls_token", "cls", FA_POOL_CLS},
             {"max", "pooling_mode_max_tokens", "max", FA_POOL_MAX},
             {"mean", "pooling_mode_mean_tokens", "mean", FA_POOL_MEAN},
             {NULL, "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", FA_POOL_MEAN_SQRT},
             {NULL, "pooling_mode_weightedmean_tokens", "weightedmean", FA_POOL_WEIGHTED},
             {"last", "pooling_mode_lasttoken", "lasttoken", FA_POOL_LAST}};
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

/* One value of "pooling_mode". */
static int add_mode(reader *r, const fa_jnode *mode, const char *file) {
    const char *said = fa_jstr(mode, NULL);
    for (int i = 0; said && i < N_KIND; i++) {
        if (strcmp(kinds[i].mode, said)) continue;
        if (r->p->n_kind == FA_POOL_KINDS) return fa_fail(r->err, FFAI_ELIMIT, "%s: too many pooling modes", file);
        r->p->kind[r->p->n_kind++] = kinds[i].kind;
        return 0;
    }
    return fa_fail(r->err, FFAI_ENOTSUP, "%s: \"pooling_mode\" \"%s\" is not known", file, said ? said : "(no string)");
}

/* "pooling_mode" (a name or a list) wins over the flags of older files; nothing said or on: mean. */
static int pooling_mode(reader *r, const fa_jnode *cfg, const char *file) {
    const fa_jnode *mode = fa_jget(cfg, "pooling_mode");
    int rc = 0;
    r->p->n_kind = 0;
    if (fa_jtype_of(mode) == FA_JARR)
        for (const fa_jnode *m = fa_jfirst(mode); !rc && m; m = fa_jnext(m)) rc = add_mode(r, m, file);
    else if (mode)
        rc = add_mode(r, mode, file);
    for (int i = 0; !mode && i < N_KIND; i++)
        if (fa_jbool(fa_jget(cfg, kinds[i].key), false)) r->p->kind[r->p->n_kind++] = kinds[i].kind;
    if (!r->p->n_kind) r->p->kind[r->p->n_kind++] = FA_POOL_MEAN;
    r->p->dim = r->p->n_kind * r->p->hidden;
    return rc;
}

static int read_pooling(reader *r, const fa_jnode *cfg, const char *file) {
    static const char *const widths[] = {"word_embedding_dimension", "embedding_dimension"};
    for (int i = 0; i < 2; i++) {
        const fa_jnode *n = fa_jget(cfg, widths[i]);
        if (n && fa_jint(n, -1) != r->p->hidden)
            return fa_fail(r->err, FFAI_EFORMAT, "%s: \"%s\" is not the model's %lld", file, widths[i],
                           (long long)r->p->hidden);
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

static const struct {
    const char *name;
    fa_pool_act act;
} acts[] = {{"Identity", FA_POOL_IDENTITY}, {"Tanh", FA_POOL_TANH},       {"ReLU", FA_POOL_RELU},
            {"GELU", FA_POOL_GELU},         {"Sigmoid", FA_POOL_SIGMOID}, {"SiLU", FA_POOL_SILU}};
enum { N_ACT = sizeof acts / sizeof acts[0] };

static int read_dense(reader *r, const fa_jnode *cfg, const char *file, const char *folder) {
    fa_pool_step *s = &r->p->step[r->p->n_step++];
    const char *act = fa_jstr(fa_jget(cfg, "activation_function"), NULL);
    s->in = fa_jint(fa_jget(cfg, "in_features"), -1);
    s->out = fa_jint(fa_jget(cfg, "out_features"), -1);
    const char *input = fa_jstr(fa_jget(cfg, "module_input_name"), NULL);
    if (fa_jbool(fa_jget(cfg, "use_residual"), false) || (input && strcmp(input, "sentence_embedding")))
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: \"use_residual\", \"module_input_name\": not supported", file);
    int k = 0;
    while (act && k < N_ACT && !ends_with(act, acts[k].name)) k++;
    if (k == N_ACT)
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: \"activation_function\" \"%s\" is not supported", file, act);
    s->act = act ? acts[k].act : FA_POOL_TANH; /* the module's default */
    if (s->in != r->p->dim || s->out < 1 || s->out > MAX_WIDTH)
        return fa_fail(r->err, FFAI_EFORMAT, "%s: %lld features in and %lld out, behind %lld", file, (long long)s->in,
                       (long long)s->out, (long long)r->p->dim);
    r->p->dim = s->out;
    return dense_weights(r, cfg, s, folder);
}

/* ---- the list ---- */

static int read_normalize(reader *r, const fa_jnode *cfg, const char *file) {
    const char *input = fa_jstr(fa_jget(cfg, "module_input_name"), NULL);
    if (input && strcmp(input, "sentence_embedding"))
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: \"module_input_name\" \"%s\": not supported", file, input);
    r->p->step[r->p->n_step++].normalize = true;
    return 0;
}

/* A module by its config.json, which Normalize may lack. */
static int with_config(reader *r, const char *type, const char *folder) {
    fa_buf path = {0};
    fa_json *doc = NULL;
    fa_buf_printf(&path, "%s/%s/config.json", r->dir, folder);
    int rc = path.failed ? fa_fail(r->err, FFAI_ENOMEM, "%s: no memory", r->dir) : 0;
    bool normalize = ends_with(type, "Normalize");
    if (!rc && !(normalize && !fa_path_exists(path.data))) rc = fa_json_load(&doc, path.data, r->err);
    const fa_jnode *cfg = fa_json_root(doc);
    if (!rc && doc && fa_jtype_of(cfg) != FA_JOBJ) rc = fa_fail(r->err, FFAI_EFORMAT, "%s: not an object", path.data);
    if (!rc)
        rc = normalize                    ? read_normalize(r, cfg, path.data)
             : ends_with(type, "Pooling") ? read_pooling(r, cfg, path.data)
                                          : read_dense(r, cfg, path.data, folder);
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
        return with_config(r, type, folder);
    }
    if (r->p->n_step == FA_POOL_STEPS)
        return fa_fail(r->err, FFAI_ELIMIT, "%s: more than %d modules behind the pooling", file, FA_POOL_STEPS);
    if (!r->pooled || (!ends_with(type, "Normalize") && !ends_with(type, "Dense")))
        return fa_fail(r->err, FFAI_ENOTSUP, "%s: module %d is a %s%s: not supported", file, index, type,
                       r->pooled ? "" : " before the pooling");
    return with_config(r, type, folder);
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
    p->kind[0] = by_number[v->i];
    return 0;
}

int fa_pooling_load(fa_pooling **out, const fa_ckpt *ckpt, int64_t dim, fa_error *err) {
    *out = NULL;
    fa_error e = {0};
    fa_pooling *p = FA_NEW(fa_pooling);
    if (!p) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the pooling", fa_ckpt_path(ckpt));
    *p = (fa_pooling){.n_kind = 1, .kind = {FA_POOL_MEAN}, .hidden = dim, .dim = dim};
    reader r = {.p = p, .dir = fa_ckpt_path(ckpt), .err = &e};
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

static double activate(fa_pool_act act, double x) {
    switch (act) {
    case FA_POOL_TANH: return tanh(x);
    case FA_POOL_RELU: return x > 0 ? x : 0;
    case FA_POOL_GELU: return 0.5 * x * (1 + erf(x * sqrt(0.5)));
    case FA_POOL_SIGMOID: return 1 / (1 + exp(-x));
    case FA_POOL_SILU: return x / (1 + exp(-x));
    case FA_POOL_IDENTITY: break;
    }
    return x;
}

static void apply(const fa_pool_step *s, float *x, float *work) {
    for (int64_t o = 0; o < s->out; o++) {
        double sum = s->bias ? (double)s->bias[o] : 0;
        for (int64_t i = 0; i < s->in; i++) sum += (double)s->w[o * s->in + i] * (double)x[i];
        work[o] = (float)activate(s->act, sum);
    }
    memcpy(x, work, (size_t)s->out * sizeof *x);
}

int64_t fa_pooling_width(const fa_pooling *p) {
    int64_t n = p->hidden * FA_POOL_KINDS;
    for (int i = 0; i < p->n_step; i++)
        if (p->step[i].out > n) n = p->step[i].out;
    return n;
}

void fa_pooling_finish(const fa_pooling *p, int normalize, float *x, int64_t n, float *work) {
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
