/* Reading an architecture's metadata and writing it as config keys. */
#include "io/gguf_keys.h"

#include <math.h>
#include <stdio.h>

const fa_gguf_value *fa_gguf_key(const fa_gguf_keys *k, const char *key) {
    char full[160];
    snprintf(full, sizeof full, "%s.%s", k->arch, key);
    return fa_gguf_find(k->c->gguf[0], full);
}

bool fa_gguf_is_list(const fa_gguf_value *v) {
    return v && v->type == FA_GGUF_ARR && v->elem != FA_GGUF_STR && v->elem != FA_GGUF_ARR;
}

static bool is_number(const fa_gguf_value *v) { return v && v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR; }

int64_t fa_gguf_whole(fa_gguf_keys *k, const char *key, int64_t layer, int64_t least, int64_t otherwise) {
    const fa_gguf_value *v = fa_gguf_key(k, key);
    if (k->rc || (!v && otherwise >= 0)) return otherwise < 0 ? 1 : otherwise;
    double d = NAN;
    if (is_number(v)) d = v->f;
    if (fa_gguf_is_list(v) && layer >= 0 && (uint64_t)layer < v->n) d = fa_gguf_num_at(v, (uint64_t)layer);
    if (v && d >= (double)least && d <= INT32_MAX && d == floor(d)) return (int64_t)d;
    if (v)
        k->rc = fa_fail(k->err, FFAI_EFORMAT, "%s: key %s.%s is no whole number of at least %lld", k->file, k->arch,
                        key, (long long)least);
    else
        k->rc = fa_fail(k->err, FFAI_EFORMAT, "%s: key %s.%s is missing", k->file, k->arch, key);
    return 1;
}

double fa_gguf_number(fa_gguf_keys *k, const char *key, double otherwise) {
    const fa_gguf_value *v = fa_gguf_key(k, key);
    if (k->rc || !v) return otherwise;
    if (is_number(v) && isfinite(v->f)) return v->f;
    k->rc = fa_fail(k->err, FFAI_EFORMAT, "%s: key %s.%s is no finite number", k->file, k->arch, key);
    return otherwise;
}

bool fa_gguf_true(const fa_gguf_keys *k, const char *key, bool otherwise) {
    const fa_gguf_value *v = fa_gguf_key(k, key);
    return is_number(v) ? v->i != 0 : otherwise;
}

bool fa_gguf_in_layer(const fa_gguf_keys *k, int64_t layer, const char *name) {
    char full[160];
    snprintf(full, sizeof full, "model.layers.%lld.%s", (long long)layer, name);
    return fa_ckpt_find(k->c, full) != NULL;
}

bool fa_gguf_any_layer(const fa_gguf_keys *k, int64_t n_layer, const char *name) {
    for (int64_t i = 0; i < n_layer; i++)
        if (fa_gguf_in_layer(k, i, name)) return true;
    return false;
}

void fa_gguf_put_int(fa_gguf_keys *k, const char *key, int64_t v) {
    fa_buf_printf(k->json, ",\"%s\":%lld", key, (long long)v);
}

void fa_gguf_put_bool(fa_gguf_keys *k, const char *key, bool v) {
    fa_buf_printf(k->json, ",\"%s\":%s", key, v ? "true" : "false");
}

void fa_gguf_put_float(fa_gguf_keys *k, const char *key, double v) {
    char text[40];
    snprintf(text, sizeof text, "%.9g", v);
    for (char *p = text; *p; p++) /* a host may have set a locale that writes 0,5 */
        if (*p == ',') *p = '.';
    fa_buf_printf(k->json, ",\"%s\":%s", key, text);
}
