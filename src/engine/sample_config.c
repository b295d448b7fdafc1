/* What a checkpoint says about sampling: checked and read once, when the model is loaded; of folders
 * generation_config.json, of GGUF files sample_gguf.c's keys. Keys
 * are those of transformers' GenerationConfig; those that ffai does not follow are in docs/sampling.md. */
#include "engine/model.h"
#include "engine/sample_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct reader {
    ffai_model *m;
    const fa_jnode *g; /* generation_config.json's object, or NULL */
    fa_error *err;
    int rc;
} reader;

static int refuse(reader *r, const char *key, const char *want) {
    r->rc = fa_fail(r->err, FFAI_EFORMAT, "%s: generation_config.json: \"%s\" is no %s", fa_ckpt_path(r->m->ckpt), key,
                    want);
    return r->rc;
}

static const fa_jnode *get(const reader *r, const char *key) {
    const fa_jnode *n = fa_jget(r->g, key);
    return n && fa_jtype_of(n) != FA_JNULL ? n : NULL;
}

/* A number in [lo, hi], `otherwise` when the key is absent. */
static double number(reader *r, const char *key, double lo, double hi, double otherwise) {
    const fa_jnode *n = get(r, key);
    if (r->rc || !n) return otherwise;
    bool num = fa_jtype_of(n) == FA_JINT || fa_jtype_of(n) == FA_JNUM;
    double v = fa_jnum(n, NAN);
    if (num && v >= lo && v <= hi) return v;
    r->rc = fa_fail(r->err, FFAI_EFORMAT, "%s: generation_config.json: \"%s\" is no number between %g and %g",
                    fa_ckpt_path(r->m->ckpt), key, lo, hi);
    return otherwise;
}

/* ---- lists of ids ---- */

/* Ids of an array to *ids (in the model's memory); those that the model does not have can never come: left out. */
static size_t ids_of(reader *r, const char *key, const fa_jnode *list, int32_t **ids) {
    *ids = NULL;
    if (fa_jtype_of(list) != FA_JARR) return (size_t)refuse(r, key, "list of token ids") * 0;
    size_t n = 0;
    if (!(*ids = (int32_t *)fa_mem_calloc(&r->m->mem, fa_jlen(list) + 1, sizeof **ids))) {
        r->rc = fa_fail(r->err, FFAI_ENOMEM, "%s: no memory for \"%s\"", fa_ckpt_path(r->m->ckpt), key);
        return 0;
    }
    for (const fa_jnode *v = fa_jfirst(list); v; v = fa_jnext(v)) {
        if (fa_jtype_of(v) != FA_JINT) return (size_t)refuse(r, key, "list of token ids") * 0;
        int64_t id = fa_jint(v, -1);
        if (id >= 0 && id < r->m->dims.vocab) (*ids)[n++] = (int32_t)id;
    }
    return n;
}

static bool is_eos(const ffai_model *m, int32_t id) {
    for (int i = 0; i < m->n_eos; i++)
        if (m->eos[i] == id) return true;
    return false;
}

/* A bias of a sequence of one token; longer sequences are not followed. */
static void read_sequence_bias(reader *r, ffai_logit_bias *bias, size_t *n, bool *longer) {
    const fa_jnode *list = get(r, "sequence_bias");
    if (r->rc || !list) return;
    if (fa_jtype_of(list) != FA_JARR) {
        refuse(r, "sequence_bias", "list of [[token ids], bias]");
        return;
    }
    for (const fa_jnode *v = fa_jfirst(list); v && !r->rc; v = fa_jnext(v)) {
        const fa_jnode *ids = fa_jfirst(v), *b = fa_jnext(ids);
        int64_t id = fa_jint(fa_jfirst(ids), -1);
        double value = fa_jnum(b, NAN);
        if (fa_jtype_of(ids) != FA_JARR || !(fabs(value) <= 1e30))
            refuse(r, "sequence_bias", "list of [[token ids], bias]");
        *longer |= fa_jlen(ids) > 1;
        if (fa_jlen(ids) == 1 && id >= 0 && id < r->m->dims.vocab)
            bias[(*n)++] = (ffai_logit_bias){(int32_t)id, (float)value};
    }
}

/* suppress_tokens, as biases that forbid, and sequence_bias. */
static void read_bias(reader *r, ffai_sampling *s, bool *longer) {
    const fa_jnode *list = get(r, "suppress_tokens");
    int32_t *ids = NULL;
    size_t n = !r->rc && list ? ids_of(r, "suppress_tokens", list, &ids) : 0;
    if (r->rc || (!list && !get(r, "sequence_bias"))) return;
    ffai_logit_bias *bias =
        (ffai_logit_bias *)fa_mem_calloc(&r->m->mem, n + fa_jlen(get(r, "sequence_bias")) + 1, sizeof *bias);
    if (!bias) {
        r->rc = fa_fail(r->err, FFAI_ENOMEM, "%s: no memory for token biases", fa_ckpt_path(r->m->ckpt));
        return;
    }
    for (size_t i = 0; i < n; i++) bias[i] = (ffai_logit_bias){ids[i], -INFINITY};
    read_sequence_bias(r, bias, &n, longer);
    s->bias = bias;
    s->n_bias = n;
}

static void read_begin(reader *r, ffai_sampling *s) {
    const fa_jnode *list = get(r, "begin_suppress_tokens");
    if (r->rc || !list) return;
    int32_t *ids;
    s->n_begin_suppress = ids_of(r, "begin_suppress_tokens", list, &ids);
    s->begin_suppress = ids;
}

/* bad_words_ids: lists of ids. An end-of-text token alone is no bad word (so transformers); a list with an id that the
 * model lacks can never come to be. */
static void read_bad_words(reader *r, ffai_sampling *s) {
    const fa_jnode *lists = get(r, "bad_words_ids");
    if (r->rc || !lists) return;
    if (fa_jtype_of(lists) != FA_JARR) {
        refuse(r, "bad_words_ids", "list of lists of token ids");
        return;
    }
    ffai_token_list *words = (ffai_token_list *)fa_mem_calloc(&r->m->mem, fa_jlen(lists) + 1, sizeof *words);
    if (!words) r->rc = fa_fail(r->err, FFAI_ENOMEM, "%s: no memory for \"bad_words_ids\"", fa_ckpt_path(r->m->ckpt));
    size_t n = 0;
    for (const fa_jnode *v = fa_jfirst(lists); v && !r->rc; v = fa_jnext(v)) {
        int32_t *ids;
        size_t len = ids_of(r, "bad_words_ids", v, &ids);
        if (r->rc || !len || len != fa_jlen(v) || (len == 1 && is_eos(r->m, ids[0]))) continue;
        words[n++] = (ffai_token_list){ids, len};
    }
    s->bad_words = words;
    s->n_bad_word = n;
}

/* Names the keys that ask for what is not there: their value is neither null, false nor the one that does nothing. */
static void note_ignored(reader *r, bool longer_bias) {
    static const struct {
        const char *key;
        double idle;
    } keys[] = {{"num_beams", 1},
                {"num_beam_groups", 1},
                {"diversity_penalty", 0},
                {"penalty_alpha", 0},
                {"guidance_scale", 1},
                {"forced_bos_token_id", -1},
                {"forced_eos_token_id", -1},
                {"exponential_decay_length_penalty", NAN},
                {"constraints", NAN},
                {"force_words_ids", NAN},
                {"stop_strings", NAN},
                {"watermarking_config", NAN},
                {"dola_layers", NAN},
                {"token_healing", NAN},
                {"max_time", NAN}};
    char list[400] = "";
    size_t at = 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const fa_jnode *n = get(r, keys[i].key);
        bool off = !n || (fa_jtype_of(n) == FA_JBOOL && !fa_jbool(n, true)) || fa_jnum(n, NAN) == keys[i].idle;
        if (!off) at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", keys[i].key);
    }
    if (longer_bias) snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", "sequence_bias");
    if (list[0] && !(r->m->ignored = fa_mem_printf(&r->m->mem, "%s", list)))
        r->rc = fa_fail(r->err, FFAI_ENOMEM, "%s: no memory", fa_ckpt_path(r->m->ckpt));
}

static int read_gguf(ffai_model *m, fa_error *err) {
    fa_buf order = {0}, ignored = {0};
    fa_error e = {0};
    const char *path = fa_ckpt_path(m->ckpt);
    int rc = fa_sampling_from_gguf(fa_ckpt_gguf(m->ckpt), &m->sampling, &order, &ignored, &e);
    if (rc) fa_fail(err, rc, "%s: %s", path, e.msg);
    bool failed = order.failed || ignored.failed;
    if (order.len) failed |= !(m->sampling.samplers = fa_mem_printf(&m->mem, "%s", order.data));
    if (ignored.len) failed |= !(m->ignored = fa_mem_printf(&m->mem, "%s", ignored.data));
    if (!rc && failed) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
    fa_buf_free(&order);
    fa_buf_free(&ignored);
    return rc;
}

int fa_model_read_sampling(ffai_model *m, fa_error *err) {
    if (fa_ckpt_gguf(m->ckpt)) return read_gguf(m, err);
    reader r = {.m = m, .g = fa_ckpt_generation_config(m->ckpt), .err = err};
    ffai_sampling s = {.top_p = 1};
    bool sample = fa_jbool(fa_jget(r.g, "do_sample"), false);
    float temp = (float)number(&r, "temperature", 0, 1000, 1);
    s.temp = sample ? temp : 0;
    s.top_k = (int)number(&r, "top_k", -1, INT32_MAX, sample ? 50 : 0); /* -1 is how some say "all" */
    if (s.top_k < 0) s.top_k = 0;
    s.top_p = (float)number(&r, "top_p", 0, 1, 1);
    if (s.top_p < 1e-9f) s.top_p = 1e-9f; /* 0: the likeliest token alone */
    s.min_p = (float)number(&r, "min_p", 0, 1, 0);
    s.typical = (float)number(&r, "typical_p", 0, 1, 0);
    s.top_h = (float)number(&r, "top_h", 0, 1, 0);
    s.epsilon_cutoff = (float)number(&r, "epsilon_cutoff", 0, 1, 0);
    s.eta_cutoff = (float)number(&r, "eta_cutoff", 0, 1, 0);
    if (s.epsilon_cutoff >= 1) s.epsilon_cutoff = 0; /* 1 is off there */
    if (s.eta_cutoff >= 1) s.eta_cutoff = 0;
    s.repeat_penalty = (float)number(&r, "repetition_penalty", 0, 1000, 0);
    s.no_repeat_ngram = (int)number(&r, "no_repeat_ngram_size", 0, INT32_MAX, 0);
    s.min_new = (int)number(&r, "min_new_tokens", 0, INT32_MAX, 0);
    s.min_length = (int)number(&r, "min_length", 0, INT32_MAX, 0);
    if (s.min_new > 0) s.min_length = 0; /* overrides, in transformers too */
    bool longer = false;
    read_bias(&r, &s, &longer);
    read_begin(&r, &s);
    read_bad_words(&r, &s);
    if (!r.rc) note_ignored(&r, longer);
    m->sampling = s;
    return r.rc;
}

void ffai_sampling_default(const ffai_model *m, ffai_sampling *s) { *s = m->sampling; }

int ffai_sampling_check(ffai_model *m, const ffai_sampling *s, ffai_error *err) {
    fa_sampler *made;
    fa_sampler_env env = {.vocab = m->dims.vocab, .tok = fa_model_tok(m, NULL)};
    int rc = fa_sampler_new(&made, s, &env, err);
    fa_sampler_free(made);
    return rc;
}
