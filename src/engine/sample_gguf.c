/* What a GGUF file says about sampling: general.sampling.*, which llama.cpp takes as defaults. Its converter copies
 * them from generation_config.json, but without do_sample: a temperature there means drawing. */
#include "engine/sample_int.h"

#include <stdio.h>
#include <string.h>

typedef struct reader {
    const fa_gguf *g;
    fa_error *err;
    int rc;
} reader;

/* A number in [lo, hi], `otherwise` when the key is absent. */
static double number(reader *r, const char *name, double lo, double hi, double otherwise) {
    char key[64];
    snprintf(key, sizeof key, "general.sampling.%s", name);
    const fa_gguf_value *v = fa_gguf_find(r->g, key);
    if (r->rc || !v) return otherwise;
    bool num = v->type != FA_GGUF_STR && v->type != FA_GGUF_ARR && v->type != FA_GGUF_BOOL;
    if (num && v->f >= lo && v->f <= hi) return v->f;
    r->rc = fa_fail(r->err, FFAI_EFORMAT, "%s is no number between %g and %g", key, lo, hi);
    return otherwise;
}

/* The window of the penalties: -1 the whole sequence, as here 0 does; 0 turns them off. */
static void read_penalty(reader *r, ffai_sampling *s) {
    double last = number(r, "penalty_last_n", -1, INT32_MAX, -1);
    s->repeat_penalty = (float)number(r, "penalty_repeat", 0, 1000, 0);
    if (last == 0) s->repeat_penalty = 0;
    s->repeat_last = last > 0 ? (int)last : 0;
}

static void read_mirostat(reader *r, ffai_sampling *s, fa_buf *ignored) {
    double version = number(r, "mirostat", 0, 2, 0), tau = number(r, "mirostat_tau", 0, 1000, 5),
           eta = number(r, "mirostat_eta", 0, 1000, 0);
    if (version == 2) {
        s->mirostat_tau = (float)tau;
        s->mirostat_eta = (float)eta;
    } else if (version != 0) {
        fa_buf_printf(ignored, "%smirostat 1", ignored->len ? ", " : "");
    }
}

/* An order with a sampler that is not known here is left out. */
static void read_order(reader *r, fa_buf *order, fa_buf *ignored) {
    const fa_gguf_value *v = fa_gguf_find(r->g, "general.sampling.sequence");
    uint8_t kinds[FA_SAMPLE_KINDS];
    int n;
    if (r->rc || !v) return;
    if (v->type != FA_GGUF_STR || v->n > 500) {
        r->rc = fa_fail(r->err, FFAI_EFORMAT, "general.sampling.sequence is no list of samplers");
        return;
    }
    fa_buf_add(order, v->data, (size_t)v->n);
    if (!order->failed && (!v->n || strlen(order->data) != v->n || fa_sampler_order(order->data, kinds, &n, NULL))) {
        fa_buf_free(order);
        fa_buf_printf(ignored, "%ssampling.sequence", ignored->len ? ", " : "");
    }
}

int fa_sampling_from_gguf(const fa_gguf *g, ffai_sampling *s, fa_buf *order, fa_buf *ignored, fa_error *err) {
    reader r = {.g = g, .err = err};
    s->temp = (float)number(&r, "temp", 0, 1000, 0);
    s->top_k = (int)number(&r, "top_k", -1, INT32_MAX, 0);
    if (s->top_k < 0) s->top_k = 0;
    s->top_p = fmaxf(1e-9f, (float)number(&r, "top_p", 0, 1, 1));
    s->min_p = (float)number(&r, "min_p", 0, 1, 0);
    s->xtc_prob = (float)number(&r, "xtc_probability", 0, 1, 0);
    s->xtc_threshold = (float)number(&r, "xtc_threshold", 0, 1, 0);
    read_penalty(&r, s);
    read_mirostat(&r, s, ignored);
    read_order(&r, order, ignored);
    return r.rc;
}
