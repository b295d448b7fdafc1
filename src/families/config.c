/* Reading config.json for families: scalars with ranges, activations, and RoPE in every spelling that transformers 4
 * and 5 write. */
#define _GNU_SOURCE
#include "families/family.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void fa_cfg_fail(fa_cfg *c, const char *fmt, ...) {
    if (c->err.code) return;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fa_fail(&c->err, FFAI_EFORMAT, "%s: %s", c->path, text);
}

void fa_cfg_no_memory(fa_cfg *c) {
    if (!c->err.code) fa_fail(&c->err, FFAI_ENOMEM, "%s: no memory for the config", c->path);
}

static const fa_jnode *present(const fa_jnode *n) { return n && fa_jtype_of(n) != FA_JNULL ? n : NULL; }

const fa_jnode *fa_cfg_node(fa_cfg *c, const char *key) {
    const fa_jnode *n = present(fa_jget(c->text, key));
    return n ? n : present(fa_jget(c->root, key));
}

bool fa_cfg_has(const fa_cfg *c, const char *key) { return fa_jget(c->text, key) || fa_jget(c->root, key); }

static bool is_number(const fa_jnode *n) { return fa_jtype_of(n) == FA_JINT || fa_jtype_of(n) == FA_JNUM; }

int64_t fa_cfg_int(fa_cfg *c, const char *key, int64_t otherwise, int64_t min, int64_t max) {
    const fa_jnode *n = fa_cfg_node(c, key);
    if (!n) return otherwise;
    int64_t v = fa_jint(n, INT64_MIN);
    if (v == INT64_MIN)
        fa_cfg_fail(c, "\"%s\" is not an integer", key);
    else if (v < min || v > max)
        fa_cfg_fail(c, "\"%s\" is %lld, not between %lld and %lld", key, (long long)v, (long long)min, (long long)max);
    else
        return v;
    return otherwise;
}

static double finite_num(fa_cfg *c, const char *key, const fa_jnode *n, double otherwise) {
    if (!n) return otherwise;
    double v = fa_jnum(n, NAN);
    if (isfinite(v) && fabs(v) < 1e30) return v;
    fa_cfg_fail(c, "\"%s\" is not a usable number", key);
    return otherwise;
}

double fa_cfg_num(fa_cfg *c, const char *key, double otherwise) {
    return finite_num(c, key, fa_cfg_node(c, key), otherwise);
}

double fa_cfg_eps(fa_cfg *c, const char *key, double otherwise) {
    double v = fa_cfg_num(c, key, otherwise);
    if (v < 0 || v > 1) fa_cfg_fail(c, "\"%s\" is %g, not between 0 and 1", key, v);
    return v;
}

bool fa_cfg_bool(fa_cfg *c, const char *key, bool otherwise) {
    const fa_jnode *n = fa_cfg_node(c, key);
    if (n && fa_jtype_of(n) != FA_JBOOL) fa_cfg_fail(c, "\"%s\" is not true or false", key);
    return fa_jbool(n, otherwise);
}

const char *fa_cfg_type(fa_cfg *c) {
    const char *s = fa_jstr(fa_cfg_node(c, "model_type"), NULL);
    return s ? s : "";
}

bool fa_cfg_within(fa_cfg *c, const char *type) {
    const char *s = fa_jstr(fa_jget(c->root, "model_type"), NULL);
    return c->text && s && strcmp(s, type) == 0;
}

bool fa_cfg_tied(fa_cfg *c, bool otherwise) {
    static const char *const by_default[] = {"mistral3", "paligemma", "gemma3"}; /* their classes say true */
    bool tied = fa_cfg_bool(c, "tie_word_embeddings", otherwise);
    const fa_jnode *outer = present(fa_jget(c->root, "tie_word_embeddings"));
    if (!c->text || tied) return tied;
    for (size_t i = 0; !outer && i < sizeof by_default / sizeof by_default[0]; i++)
        if (fa_cfg_within(c, by_default[i])) return true;
    return fa_jbool(outer, false);
}

fa_act_fn fa_cfg_act(fa_cfg *c, const char *key, const char *otherwise) {
    static const struct {
        const char *name;
        fa_act_fn fn;
    } names[] = {{"silu", FA_ACT_SILU},
                 {"swish", FA_ACT_SILU},
                 {"gelu_pytorch_tanh", FA_ACT_GELU_TANH},
                 {"gelu_new", FA_ACT_GELU_TANH},
                 {"gelu_fast", FA_ACT_GELU_TANH},
                 {"gelu_accurate", FA_ACT_GELU_TANH},
                 {"gelu", FA_ACT_GELU_ERF},
                 {"gelu_python", FA_ACT_GELU_ERF},
                 {"quick_gelu", FA_ACT_GELU_QUICK},
                 {"relu", FA_ACT_RELU},
                 {"relu2", FA_ACT_RELU2},
                 {"relu6", FA_ACT_RELU6},
                 {"leaky_relu", FA_ACT_LEAKY_RELU},
                 {"sigmoid", FA_ACT_SIGMOID},
                 {"tanh", FA_ACT_TANH},
                 {"mish", FA_ACT_MISH},
                 {"linear", FA_ACT_LINEAR}};
    const fa_jnode *n = fa_cfg_node(c, key);
    const char *s = n ? fa_jstr(n, NULL) : otherwise;
    for (size_t i = 0; s && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(s, names[i].name) == 0) return names[i].fn;
    fa_cfg_fail(c, "\"%s\": activation %s is not known (silu, gelu, gelu_pytorch_tanh, quick_gelu, relu, relu2, ...)",
                key, s ? s : "that is no string");
    return FA_ACT_SILU;
}

/* -1: not in the list. */
static int kind_of(const fa_layer_kind *names, const char *s, size_t len) {
    for (; s && names->name; names++)
        if (strlen(names->name) == len && memcmp(names->name, s, len) == 0) return names->kind;
    return -1;
}

bool fa_cfg_layer_kinds(fa_cfg *c, const char *key, const fa_layer_kind *names, int64_t n_layer, uint8_t *kind) {
    const fa_jnode *list = fa_cfg_node(c, key), *n = fa_jfirst(list);
    if (!list || c->err.code) return false;
    if (fa_jtype_of(list) != FA_JARR) fa_cfg_fail(c, "\"%s\" is no list", key);
    if ((int64_t)fa_jlen(list) < n_layer)
        fa_cfg_fail(c, "\"%s\" lists %zu of %lld layers", key, fa_jlen(list), (long long)n_layer);
    for (int64_t i = 0; !c->err.code && i < n_layer; i++, n = fa_jnext(n)) {
        size_t len = 0;
        const char *s = fa_jstr(n, &len);
        int k = kind_of(names, s, len);
        if (k < 0) fa_cfg_fail(c, "\"%s\": layer %lld is \"%.60s\"", key, (long long)i, s ? s : "no string");
        kind[i] = (uint8_t)(k > 0 ? k : 0);
    }
    return !c->err.code;
}

/* ---- RoPE (formulas: transformers, modeling_rope_utils.py) ---- */

/* Where the numbers of one rope come from: its own dict, then older places. */
typedef struct rope_src {
    fa_cfg *c;
    const fa_jnode *dict;
    bool per_layer; /* of one layer type */
} rope_src;

static double src_num(const rope_src *s, const char *key, double otherwise) {
    return finite_num(s->c, key, present(fa_jget(s->dict, key)), otherwise);
}

/* A number that something is divided by or whose logarithm is taken. */
static double positive(const rope_src *s, const char *key, double v) {
    if (v > 1e-6 && v < 1e31) return v;
    fa_cfg_fail(s->c, "rope: \"%s\" is %g, not a usable positive number", key, v);
    return 1;
}

static double src_positive(const rope_src *s, const char *key, double otherwise) {
    return positive(s, key, src_num(s, key, otherwise));
}

static double src_required(const rope_src *s, const char *type, const char *key) {
    const fa_jnode *n = present(fa_jget(s->dict, key));
    if (!is_number(n)) fa_cfg_fail(s->c, "rope type \"%s\" needs \"%s\"", type, key);
    return positive(s, key, finite_num(s->c, key, n, 1.0));
}

static void scale_llama3(const rope_src *s, float *inv, int64_t n, double ctx) {
    double factor = src_required(s, "llama3", "factor"), low = src_required(s, "llama3", "low_freq_factor"),
           high = src_required(s, "llama3", "high_freq_factor");
    if (high == low) fa_cfg_fail(s->c, "rope: \"low_freq_factor\" and \"high_freq_factor\" are both %g", low);
    for (int64_t i = 0; i < n; i++) {
        double wavelen = 2 * M_PI / inv[i];
        if (wavelen > ctx / low) {
            inv[i] = (float)(inv[i] / factor);
        } else if (wavelen >= ctx / high) {
            double smooth = (ctx / wavelen - low) / (high - low);
            inv[i] = (float)((1 - smooth) * inv[i] / factor + smooth * inv[i]);
        }
    }
}

static double yarn_mscale(double scale, double m) { return scale <= 1 ? 1.0 : 0.1 * m * log(scale) + 1.0; }

static void scale_yarn(const rope_src *s, fa_rope *r, float *inv, double theta, double ctx, double max_ctx) {
    int64_t n = r->n_pair;
    double dim = (double)r->dim, factor = src_positive(s, "factor", max_ctx / ctx);
    double m = src_num(s, "mscale", 0), m_all = src_num(s, "mscale_all_dim", 0);
    double def = m != 0 && m_all != 0 ? yarn_mscale(factor, m) / yarn_mscale(factor, m_all) : yarn_mscale(factor, 1);
    r->mscale = (float)positive(s, "attention_factor", src_num(s, "attention_factor", def));
    double fast = src_num(s, "beta_fast", 32), slow = src_num(s, "beta_slow", 1);
    if (fast == 0) fast = 32;
    if (slow == 0) slow = 1;
    fast = positive(s, "beta_fast", fast);
    slow = positive(s, "beta_slow", slow);
    if (theta == 1) fa_cfg_fail(s->c, "rope: yarn cannot scale a \"rope_theta\" of 1");
    double lo = dim * log(ctx / (fast * 2 * M_PI)) / (2 * log(theta)),
           hi = dim * log(ctx / (slow * 2 * M_PI)) / (2 * log(theta));
    if (fa_jbool(s->per_layer ? NULL : present(fa_jget(s->dict, "truncate")),
                 true)) /* transformers looks for it at the top only */
        lo = floor(lo), hi = ceil(hi);
    lo = lo > 0 ? lo : 0;
    hi = hi < dim - 1 ? hi : dim - 1;
    if (lo == hi) hi += 0.001;
    for (int64_t i = 0; i < n; i++) {
        double ramp = ((double)i - lo) / (hi - lo);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        inv[i] = (float)(inv[i] / factor * ramp + inv[i] * (1 - ramp));
    }
}

/* Divides inv by a list of n factors. */
static void divide_list(const rope_src *s, const char *key, float *inv, int64_t n) {
    const fa_jnode *list = present(fa_jget(s->dict, key));
    if (fa_jtype_of(list) != FA_JARR || (int64_t)fa_jlen(list) != n) {
        fa_cfg_fail(s->c, "rope: \"%s\" must list %lld factors", key, (long long)n);
        return;
    }
    int64_t i = 0;
    for (const fa_jnode *v = fa_jfirst(list); v; v = fa_jnext(v)) {
        inv[i] = (float)(inv[i] / positive(s, key, fa_jnum(v, 0)));
        i++;
    }
}

static void scale_longrope(const rope_src *s, fa_rope *r, float *inv, double ctx, double max_ctx) {
    float *longer = (float *)fa_mem_calloc(s->c->mem, (size_t)r->n_pair, sizeof *longer);
    if (!longer) {
        fa_cfg_no_memory(s->c);
        return;
    }
    memcpy(longer, inv, (size_t)r->n_pair * sizeof *inv);
    divide_list(s, "short_factor", inv, r->n_pair);
    divide_list(s, "long_factor", longer, r->n_pair);
    double factor = src_positive(s, "factor", max_ctx / ctx);
    double def = factor <= 1 || ctx <= 1 ? 1.0 : sqrt(1 + log(factor) / log(ctx));
    r->mscale = (float)positive(s, "attention_factor", src_num(s, "attention_factor", def));
    r->inv_freq_long = longer;
    r->original_ctx = (int64_t)ctx;
}

/* The dict that describes the rope of layer_type: rope_parameters[layer_type], rope_parameters, or rope_scaling. */
static const fa_jnode *rope_dict(fa_cfg *c, const char *layer_type, bool scaled) {
    const fa_jnode *p = fa_cfg_node(c, "rope_parameters");
    if (p && layer_type) {
        const fa_jnode *own = present(fa_jget(p, layer_type));
        if (own) return own;
        if (present(fa_jget(p, "full_attention")) || present(fa_jget(p, "sliding_attention"))) return NULL;
    }
    const fa_jnode *old = scaled ? fa_cfg_node(c, "rope_scaling") : NULL;
    if (old) return old;
    if (!p && scaled) return c->rope_default;
    return scaled || !layer_type ? p : NULL;
}

/* dim may be odd: the next one rotates as well. */
static void read_rope(fa_cfg *c, fa_rope *r, const char *layer_type, int64_t dim, double theta, bool scaled) {
    rope_src s = {c, rope_dict(c, layer_type, scaled), layer_type != NULL};
    if (s.dict && fa_jtype_of(s.dict) != FA_JOBJ)
        fa_cfg_fail(c, "\"rope_scaling\" or \"rope_parameters\" is no object");
    memset(r, 0, sizeof *r);
    r->n_pair = (dim + 1) / 2;
    r->dim = dim;
    r->mscale = 1;
    r->interleaved = fa_cfg_bool(c, "ffai_rope_interleaved", false);
    theta = src_num(&s, "rope_theta", theta);
    double max_ctx = (double)fa_cfg_int(c, "max_position_embeddings", c->max_ctx ? c->max_ctx : 2048, 1, INT32_MAX);
    double ctx = src_num(&s, "original_max_position_embeddings", max_ctx);
    const fa_jnode *outer = fa_cfg_node(c, "original_max_position_embeddings");
    if (outer) /* transformers gives the config's own key priority */
        ctx = finite_num(c, "original_max_position_embeddings", outer, ctx);
    if (c->original_ctx) ctx = (double)c->original_ctx;
    if (!(theta >= 1e-3 && theta < 1e30)) fa_cfg_fail(c, "\"rope_theta\" is %g, not a usable positive number", theta);
    if (!(ctx >= 1 && ctx <= INT32_MAX))
        fa_cfg_fail(c, "\"original_max_position_embeddings\" is %g, not between 1 and %d", ctx, INT32_MAX);
    float *inv = (float *)fa_mem_calloc(c->mem, (size_t)r->n_pair + 1, sizeof *inv);
    if (!inv || c->err.code) { /* the first failure stays */
        fa_cfg_no_memory(c);
        r->n_pair = 0;
        return;
    }
    r->inv_freq = inv;
    for (int64_t i = 0; i < r->n_pair; i++)
        inv[i] = 1.0f / powf((float)theta, (float)(2 * i) / (float)dim); /* in f32, as torch does */
    if (c->rope_factors && scaled && c->n_rope_factors != r->n_pair)
        fa_cfg_fail(c, "tensor rope_freqs.weight holds %lld factors for %lld rotated pairs",
                    (long long)c->n_rope_factors, (long long)r->n_pair);
    else if (c->rope_factors && scaled)
        for (int64_t i = 0; i < r->n_pair; i++)
            inv[i] = (float)(inv[i] / positive(&s, "rope_freqs.weight", (double)c->rope_factors[i]));
    const fa_jnode *t = present(fa_jget(s.dict, "rope_type"));
    if (!t) t = present(fa_jget(s.dict, "type"));
    const char *type = t ? fa_jstr(t, NULL) : "default";
    if (!type) type = "(no string)";
    if (strcmp(type, "linear") == 0) {
        double f = src_required(&s, type, "factor");
        for (int64_t i = 0; i < r->n_pair; i++) inv[i] = (float)(inv[i] / f);
    } else if (strcmp(type, "proportional") == 0) {
        /* the leading share of the pairs rotates, at the frequencies of the full width */
        double f = src_positive(&s, "factor", 1), share = src_num(&s, "partial_rotary_factor", 1);
        for (int64_t i = 0; i < r->n_pair; i++)
            inv[i] = (double)i < floor(share * (double)r->n_pair) ? (float)(inv[i] / f) : 0;
    } else if (strcmp(type, "llama3") == 0) {
        scale_llama3(&s, inv, r->n_pair, ctx);
    } else if (strcmp(type, "yarn") == 0 && !present(fa_jget(s.dict, "short_factor"))) {
        scale_yarn(&s, r, inv, theta, ctx, max_ctx);
    } else if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0 || strcmp(type, "yarn") == 0) {
        scale_longrope(&s, r, inv, ctx, max_ctx);
    } else if (strcmp(type, "dynamic") == 0) {
        r->dynamic = true;
        r->theta = (float)theta;
        r->factor = (float)src_required(&s, type, "factor");
        r->original_ctx = (int64_t)max_ctx;
    } else if (strcmp(type, "default") != 0 && strcmp(type, "mrope") != 0) {
        fa_cfg_fail(c, "rope type \"%s\" is not known (default, linear, dynamic, yarn, longrope, llama3, proportional)",
                    type);
    }
}

void fa_cfg_rope(fa_cfg *c, fa_rope *r, const char *layer_type, int64_t head_dim, double theta, bool scaled) {
    if (!c->err.code && head_dim % 2) fa_cfg_fail(c, "head_dim %lld is odd", (long long)head_dim);
    read_rope(c, r, layer_type, head_dim, theta, scaled);
}

void fa_cfg_partial_rope(fa_cfg *c, fa_rope *r, const char *layer_type, int64_t head_dim, double share, double theta,
                         bool scaled) {
    rope_src s = {c, rope_dict(c, layer_type, scaled), layer_type != NULL};
    share = src_num(&s, "partial_rotary_factor", fa_cfg_num(c, "partial_rotary_factor", share));
    if (!(share > 0 && share <= 1)) fa_cfg_fail(c, "\"partial_rotary_factor\" is %g, not between 0 and 1", share);
    const int64_t dim = c->err.code ? head_dim : (int64_t)((double)head_dim * share);
    if (!c->err.code && dim == head_dim && dim % 2) fa_cfg_fail(c, "head_dim %lld is odd", (long long)head_dim);
    read_rope(c, r, layer_type, dim, theta, scaled);
}
