/* Loading: path -> checkpoint -> family -> config -> bound weights; and what the public interface tells about a model.
 */
#define _DEFAULT_SOURCE
#include "engine/model.h"
#include "base/alloc.h"
#include "base/cpus.h"
#include "base/map.h"
#include "text/grammar/grammar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ffai_free(void *p) { fa_free(p); }

bool ffai_family_at(size_t i, ffai_family_info *info) {
    memset(info, 0, sizeof *info);
    if (i >= fa_n_family) return false;
    const fa_family *f = fa_families[i];
    *info =
        (ffai_family_info){f->name,     f->model_types, f->archs,
                           f->modality, f->task,        "f32,f16,bf16,affine,mxfp4,mxfp8,nvfp4,fp8,int8,awq,gptq,gguf",
                           "cpu,cuda",  f->repos,       f->parity};
    return true;
}

static const char *str_or(const fa_jnode *n, const char *otherwise) {
    const char *s = fa_jstr(n, NULL);
    return s ? s : otherwise;
}

static int unknown_family(const ffai_model *m, fa_error *err) {
    const char *file = fa_ckpt_gguf(m->ckpt) ? "" : "/config.json";
    fa_buf names = {0};
    for (size_t i = 0; i < fa_n_family; i++) fa_buf_printf(&names, "%s%s", i ? ", " : "", fa_families[i]->name);
    int rc = fa_fail(err, FFAI_ENOTSUP, "%s%s: model_type \"%s\" (%s) is not a family that ffai knows: %s",
                     fa_ckpt_path(m->ckpt), file, m->model_type, m->arch, names.data ? names.data : "");
    fa_buf_free(&names);
    return rc;
}

static int find_family(ffai_model *m, fa_error *err) {
    const fa_jnode *cfg = fa_ckpt_config(m->ckpt), *text = fa_jget(cfg, "text_config");
    m->model_type = str_or(fa_jget(cfg, "model_type"), "");
    m->arch = str_or(fa_jfirst(fa_jget(cfg, "architectures")), "");
    /* a wrapper of several kinds of text models runs as what its text_config says, an unknown one too */
    if (text) m->family = fa_family_find(str_or(fa_jget(text, "model_type"), ""), NULL);
    if (!m->family) m->family = fa_family_find(m->model_type, m->arch);
    return m->family ? 0 : unknown_family(m, err);
}

/* An id or a list of ids. Ids that the model does not have (-1 in some checkpoints) can never come: left out. */
static int add_eos(ffai_model *m, const fa_jnode *obj, const char *file, fa_error *err) {
    const fa_jnode *n = fa_jget(obj, "eos_token_id");
    bool list = fa_jtype_of(n) == FA_JARR;
    for (const fa_jnode *v = list ? fa_jfirst(n) : n; v; v = list ? fa_jnext(v) : NULL) {
        if (fa_jtype_of(v) == FA_JNULL) continue;
        if (fa_jtype_of(v) != FA_JINT)
            return fa_fail(err, FFAI_EFORMAT, "%s: %s: \"eos_token_id\" is neither an integer nor a list of integers",
                           fa_ckpt_path(m->ckpt), file);
        int64_t id = fa_jint(v, -1);
        if (id < 0 || id >= m->dims.vocab) continue;
        if (m->n_eos == FA_MAX_EOS)
            return fa_fail(err, FFAI_ELIMIT, "%s: %s: \"eos_token_id\" lists more than %d ids", fa_ckpt_path(m->ckpt),
                           file, FA_MAX_EOS);
        m->eos[m->n_eos++] = (int32_t)id;
    }
    return 0;
}

/* generation_config.json, then config.json, then text_config: the first that names any. */
static int read_eos(ffai_model *m, fa_error *err) {
    const fa_jnode *cfg = fa_ckpt_config(m->ckpt);
    int rc = add_eos(m, fa_ckpt_generation_config(m->ckpt), "generation_config.json", err);
    if (!rc && !m->n_eos) rc = add_eos(m, cfg, "config.json", err);
    if (!rc && !m->n_eos) rc = add_eos(m, fa_jget(cfg, "text_config"), "config.json", err);
    return rc;
}

const fa_jnode *fa_model_stop_strings(const ffai_model *m) {
    const fa_jnode *n = fa_jget(fa_ckpt_generation_config(m->ckpt), "stop_strings");
    return fa_jtype_of(n) == FA_JNULL ? NULL : n;
}

static bool is_text(const fa_jnode *n) {
    const char *s = fa_jstr(n, NULL);
    return s && *s;
}

static int check_stop_strings(const ffai_model *m, fa_error *err) {
    const fa_jnode *n = fa_model_stop_strings(m);
    bool ok = !n || fa_jtype_of(n) == FA_JARR || is_text(n);
    for (const fa_jnode *s = fa_jtype_of(n) == FA_JARR ? fa_jfirst(n) : NULL; s; s = fa_jnext(s)) ok = ok && is_text(s);
    return ok ? 0
              : fa_fail(err, FFAI_EFORMAT,
                        "%s: generation_config.json: \"stop_strings\" is no text and no list of texts",
                        fa_ckpt_path(m->ckpt));
}

static int read_config(ffai_model *m, fa_error *err) {
    fa_cfg r = {.root = fa_ckpt_config(m->ckpt), .path = fa_ckpt_path(m->ckpt), .mem = &m->mem};
    if (!fa_ckpt_gguf(m->ckpt) && !(r.path = fa_mem_printf(&m->mem, "%s/config.json", fa_ckpt_path(m->ckpt))))
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the config", fa_ckpt_path(m->ckpt));
    const fa_jnode *text = fa_jget(r.root, "text_config");
    if (fa_jtype_of(text) == FA_JOBJ) r.text = text;
    const fa_ckpt_tensor *factors = fa_ckpt_find(m->ckpt, "rope_freqs.weight");
    if (factors && factors->dtype == FA_F32 && factors->n_dim == 1) {
        float *f = (float *)fa_mem_calloc(&m->mem, (size_t)factors->dim[0], sizeof *f);
        if (!f) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for rope_freqs", r.path);
        fa_to_f32(FA_F32, factors->data, factors->dim[0], f);
        r.rope_factors = f;
        r.n_rope_factors = factors->dim[0];
        m->used[factors - fa_ckpt_at(m->ckpt, 0)] = FA_USE_FLOATS;
    }
    static const char *const in_config[] = {"rope_factors_short.weight", "rope_factors_long.weight"};
    for (size_t i = 0; i < 2; i++) /* GGUF: numbers of the config (io/gguf_hf.c) */
        if ((factors = fa_ckpt_find(m->ckpt, in_config[i]))) m->used[factors - fa_ckpt_at(m->ckpt, 0)] = FA_USE_FLOATS;
    m->cfg = fa_mem_calloc(&m->mem, 1, m->family->cfg_size);
    m->w = fa_mem_calloc(&m->mem, 1, m->family->weights_size);
    if (!m->cfg || !m->w) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the config", r.path);
    m->family->config(&r, m->cfg, &m->dims);
    if (r.err.code) {
        if (err) *err = r.err;
        return r.err.code;
    }
    m->spec = (fa_kv_spec *)fa_mem_calloc(&m->mem, (size_t)m->dims.n_layer, sizeof *m->spec);
    if (!m->spec) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for %lld layers", r.path, (long long)m->dims.n_layer);
    m->family->caches(m->cfg, m->spec);
    return 0;
}

static int more_bytes(const void *a, const void *b) {
    const fa_weight_kind *x = (const fa_weight_kind *)a, *y = (const fa_weight_kind *)b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes) : strcmp(x->text, y->text);
}

static int keep_kinds(ffai_model *m, const fa_binder *b, fa_error *err) {
    m->kind = (fa_weight_kind *)fa_mem_calloc(&m->mem, (size_t)b->n_kind + 1, sizeof *m->kind);
    if (!m->kind) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for %d formats", fa_ckpt_path(m->ckpt), b->n_kind);
    memcpy(m->kind, b->kind, (size_t)b->n_kind * sizeof *m->kind);
    m->n_kind = b->n_kind;
    qsort(m->kind, (size_t)m->n_kind, sizeof *m->kind, more_bytes);
    return 0;
}

/* To host memory; random weights get shapes only. */
static int bind_weights(ffai_model *m, bool private_copy, fa_error *err) {
    fa_binder b;
    fa_placer shapes;
    int rc = fa_binder_open(&b, m->ckpt, m->family->renames, &m->mem, err),
        rc2 = fa_placer_open(&shapes, m->ckpt, rc ? NULL : err);
    if (!rc) rc = rc2;
    shapes.base = shapes.vectors = (uint8_t *)(uintptr_t)FA_ARENA_ALIGN;
    shapes.dry = true;
    b.private_copy = private_copy;
    b.targets = &m->targets;
    if (m->synthetic) {
        b.synth = &m->synth;
        b.placer = &shapes;
    }
    bool spread = private_copy && fa_spread_begin();
    if (!rc) m->family->bind(&b, m->cfg, m->w);
    fa_spread_end(spread);
    if (!rc) rc = fa_binder_finish(&b, err);
    if (!rc) rc = fa_ckpt_check(m->ckpt, err);
    m->mapped = !private_copy && !m->synthetic;
    if (!rc) {
        for (size_t i = 0; i < fa_ckpt_count(m->ckpt); i++) m->used[i] |= b.used[i] & ~FA_USE_NAMED;
        m->extra = fa_binder_extra(&b, &m->mem);
        m->widened = fa_binder_widened(&b, &m->mem);
        m->n_param = b.n_param;
        m->n_active = b.n_param - b.n_idle;
        m->n_expert = b.n_expert;
        m->n_expert_used = b.n_expert_used;
        m->expert_dim = b.expert_dim;
        m->weight_bytes = b.bytes;
        rc = keep_kinds(m, &b, err);
    }
    if (!rc) {
        m->bound = true;
        m->headless = b.headless;
    }
    fa_binder_close(&b);
    fa_placer_close(&shapes);
    return rc;
}

static int check_opts(const ffai_model_opts *o, bool *private_copy, fa_error *err) {
    const char *w = o && o->weights ? o->weights : "auto";
    *private_copy = strcmp(w, "private") == 0;
    if (*private_copy || strcmp(w, "map") == 0 || strcmp(w, "auto") == 0) return 0;
    return fa_fail(err, FFAI_EINVAL, "weights: \"%s\" is not map, private or auto", w);
}

/* Nothing but the tokenizer: works for families that do not run, and for folders that hold no model. */
static int open_tokenizer(ffai_model *m, const char *path, fa_error *err) {
    int rc = 0;
    fa_error e = {0};
    if (!fa_path_is_dir(path) && !fa_tok_is_file(path))
        rc = fa_ckpt_open(&m->ckpt, path, false, &e);
    else if (!(m->tok_dir = fa_mem_printf(&m->mem, "%s", path)))
        rc = fa_fail(&e, FFAI_ENOMEM, "%s: no memory", path);
    if (!rc && !fa_model_tok(m, &e)) {
        const char *name, *source; /* a folder with nothing but a chat template can render it */
        if (e.code == FFAI_ENOMEM || ffai_model_template_at(m, 0, &name, &source, NULL) != 1) rc = e.code;
    }
    if (rc && err) *err = e;
    return rc;
}

static int open_model(ffai_model **out, const char *path, const ffai_model_opts *opts, bool bind, fa_error *err) {
    *out = NULL;
    if (!path) return fa_fail(err, FFAI_EINVAL, "ffai_model_open: path is NULL");
    const char *synthetic = opts ? opts->synthetic : NULL;
    bool private_copy, config_only = (opts && opts->config_only) || synthetic;
    int rc = check_opts(opts, &private_copy, err);
    if (rc) return rc;
    ffai_model *m = FA_NEW(ffai_model);
    if (!m) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for a model", path);
    pthread_mutex_init(&m->tok_lock, NULL);
    pthread_mutex_init(&m->tmpl_lock, NULL);
    pthread_mutex_init(&m->weight_lock, NULL);
    if (opts && opts->chat_template && !(m->own_template = fa_strdup(opts->chat_template))) {
        ffai_model_free(m);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory for a chat template", path);
    }
    if (opts && opts->tokenizer_only) {
        rc = open_tokenizer(m, path, err);
        if (rc)
            ffai_model_free(m);
        else
            *out = m;
        return rc;
    }
    rc = fa_ckpt_open(&m->ckpt, path, !config_only, err);
    if (!rc && !(m->used = (uint8_t *)fa_mem_calloc(&m->mem, fa_ckpt_count(m->ckpt) + 1, 1)))
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu tensors", path, fa_ckpt_count(m->ckpt));
    if (!rc) rc = find_family(m, err);
    if (!rc) rc = read_config(m, err);
    if (!rc) rc = read_eos(m, err);
    if (!rc) rc = check_stop_strings(m, err);
    if (!rc) rc = fa_model_read_sampling(m, err);
    if (!rc && (m->synthetic = synthetic != NULL)) rc = fa_synth_parse(&m->synth, synthetic, err);
    if (!rc && bind && (!config_only || synthetic || fa_ckpt_count(m->ckpt))) rc = bind_weights(m, private_copy, err);
    if (rc) {
        ffai_model_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

int ffai_model_open(ffai_model **out, const char *path, const ffai_model_opts *opts, ffai_error *err) {
    return open_model(out, path, opts, true, err);
}

int fa_model_open_unbound(ffai_model **out, const char *path, fa_error *err) {
    return open_model(out, path, NULL, false, err);
}

bool ffai_model_lost_page(ffai_model *m, const void *address) {
    return m && m->ckpt && fa_ckpt_patch(m->ckpt, address);
}

void ffai_model_free(ffai_model *m) {
    if (!m) return;
    fa_vocab_free(m->vocab);
    fa_tok_free(m->tok);
    fa_pooling_free(m->pooling);
    fa_model_weights_free_all(m);
    fa_ckpt_free(m->ckpt);
    fa_mem_free(&m->mem);
    fa_free(m->config_text);
    fa_free(m->own_template);
    fa_templates_free(m->tmpl);
    pthread_mutex_destroy(&m->tok_lock);
    pthread_mutex_destroy(&m->tmpl_lock);
    pthread_mutex_destroy(&m->weight_lock);
    fa_free(m);
}

void ffai_model_get_info(const ffai_model *m, ffai_model_info *info) {
    int64_t unused = 0, n = (int64_t)fa_ckpt_count(m->ckpt);
    if (!m->family) { /* only the tokenizer was opened */
        *info = (ffai_model_info){.path = m->tok_dir ? m->tok_dir : fa_ckpt_path(m->ckpt),
                                  .family = "",
                                  .model_type = "",
                                  .arch = "",
                                  .format = "",
                                  .container = "",
                                  .ignored = "",
                                  .extra = "",
                                  .widened = ""};
        return;
    }
    for (int64_t i = 0; i < n; i++) unused += !m->used[i];
    *info = (ffai_model_info){.path = fa_ckpt_path(m->ckpt),
                              .family = m->family->name,
                              .model_type = m->model_type,
                              .arch = m->arch,
                              .format = m->n_kind ? m->kind[0].text : "",
                              .container = fa_ckpt_container(m->ckpt),
                              .n_param = m->n_param,
                              .n_active = m->n_active,
                              .weight_bytes = m->weight_bytes,
                              .n_tensor = n,
                              .n_unused = unused,
                              .n_layer = m->dims.n_layer,
                              .dim = m->dims.dim,
                              .n_head = m->dims.n_head,
                              .n_kv_head = m->dims.n_kv_head,
                              .head_dim = m->dims.head_dim,
                              .ff_dim = m->dims.ff_dim,
                              .vocab = m->dims.vocab,
                              .max_ctx = m->dims.max_ctx,
                              .n_expert = m->n_expert,
                              .n_expert_used = m->n_expert_used,
                              .expert_dim = m->expert_dim,
                              .tied = m->dims.tied,
                              .block = m->dims.block,
                              .ignored = m->ignored ? m->ignored : "",
                              .extra = m->extra ? m->extra : "",
                              .widened = m->widened ? m->widened : ""};
}

bool ffai_model_tensor_at(const ffai_model *m, size_t i, ffai_tensor_info *info) {
    memset(info, 0, sizeof *info);
    if (i >= fa_ckpt_count(m->ckpt)) return false;
    const fa_ckpt_tensor *t = fa_ckpt_at(m->ckpt, i);
    *info = (ffai_tensor_info){.name = t->name,
                               .dtype = t->type_name,
                               .file = t->file,
                               .n_dim = t->n_dim,
                               .bytes = (int64_t)t->bytes,
                               .used = m->used[i] != 0,
                               .format = ""};
    memcpy(info->dim, t->dim, sizeof info->dim);
    if (m->used[i])
        info->format = t->fmt >= 0 ? fa_qfmts[t->fmt].name : m->used[i] == FA_USE_MATRIX ? "quantized" : "f32";
    return true;
}

bool ffai_model_kind_at(const ffai_model *m, size_t i, ffai_weight_kind *kind) {
    memset(kind, 0, sizeof *kind);
    if (i >= (size_t)m->n_kind) return false;
    const fa_weight_kind *k = &m->kind[i];
    *kind = (ffai_weight_kind){.format = k->text, .n_matrix = k->n, .n_param = k->n_param, .bytes = k->bytes};
    return true;
}

const char *ffai_model_config_text(const ffai_model *model) {
    ffai_model *m = (ffai_model *)(uintptr_t)model; /* built once, on first use */
    pthread_mutex_lock(&m->tok_lock);
    if (!m->config_text) {
        fa_buf b = {0};
        fa_json_print(&b, fa_ckpt_config(m->ckpt), 0);
        if (b.failed) fa_buf_free(&b); /* tried again next time */
        m->config_text = b.data;
    }
    pthread_mutex_unlock(&m->tok_lock);
    return m->config_text ? m->config_text : "";
}

/* ---- synthetic checkpoints ---- */

/* The members of config.json that do not describe how weights are stored. */
static void print_unquantized(fa_buf *b, const fa_jnode *config) {
    bool any = false;
    for (const fa_jnode *v = fa_jfirst(config); v; v = fa_jnext(v)) {
        size_t len;
        const char *key = fa_jkey(v, &len);
        if (!strcmp(key, "quantization") || !strcmp(key, "quantization_config")) continue;
        fa_buf_puts(b, any ? ",\n  " : "{\n  ");
        fa_buf_json(b, key, len);
        fa_buf_puts(b, ": ");
        fa_json_print(b, v, 2);
        any = true;
    }
}

/* config.json with the quantization section that describes the weights. */
static int write_config(const ffai_model *m, const char *path, fa_error *err) {
    fa_buf text = {0};
    print_unquantized(&text, fa_ckpt_config(m->ckpt));
    if (text.failed) {
        fa_buf_free(&text);
        return fa_fail(err, FFAI_ENOMEM, "%s: no memory", path);
    }
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(text.data, 1, text.len, f) == text.len;
    fa_buf_free(&text);
    const int fmt = m->synth.widened ? FA_FMT_F32 : m->synth.fmt;
    if (ok && fmt == FA_FMT_AFFINE)
        ok = fprintf(f, ",\n  \"quantization\": {\"group_size\": %d, \"bits\": %d}\n", m->synth.group, m->synth.bits) >
             0;
    else if (ok && fmt == FA_FMT_FP8)
        ok = fputs(",\n  \"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
                   "\"float-quantized\"}\n",
                   f) >= 0;
    else if (ok && fa_fmt_planar(fmt))
        ok = fprintf(f, ",\n  \"quantization\": {\"group_size\": %d, \"bits\": %d, \"mode\": \"%s\"}\n", m->synth.group,
                     m->synth.bits, fa_qfmts[fmt].name) > 0;
    ok = ok && fputs("}\n", f) >= 0;
    if (f && fclose(f) != 0) ok = false;
    return ok ? 0 : fa_fail(err, FFAI_EIO, "%s: %s", path, strerror(errno));
}

int ffai_model_write_synthetic(const ffai_model *model, const char *dir, ffai_error *err) {
    ffai_model *m = (ffai_model *)(uintptr_t)model; /* made once, on first use */
    const fa_st_item *item = NULL;
    size_t n_item = 0;
    if (!m->synthetic)
        return fa_fail(err, FFAI_EINVAL, "%s: its weights are its own, not synthetic", fa_ckpt_path(m->ckpt));
    if (m->synth.fmt > FA_FMT_FP8 && !m->synth.widened)
        return fa_fail(err, FFAI_ENOTSUP, "synthetic: %s has no safetensors type, so it cannot be written",
                       fa_qfmts[m->synth.fmt].name);
    int rc = fa_model_items(m, &item, &n_item, err);
    if (rc) return rc;
    fa_buf path = {0};
    fa_buf_printf(&path, "%s/config.json", dir);
    rc = path.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir) : write_config(m, path.data, err);
    path.len = 0;
    fa_buf_printf(&path, "%s/model.safetensors", dir);
    if (!rc)
        rc = path.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir) : fa_st_write(path.data, item, n_item, err);
    fa_buf_free(&path);
    return rc;
}

/* ---- tokens ---- */

/* A folder, or one tokenizer file by itself. */
static void open_tok(fa_tok **out, const char *path, fa_error *err) {
    if (fa_tok_is_file(path))
        fa_tok_from_file(out, path, err);
    else
        fa_tok_from_dir(out, path, err);
}

const fa_tok *fa_model_tok(ffai_model *m, fa_error *err) {
    pthread_mutex_lock(&m->tok_lock);
    if (!m->tok_tried) {
        m->tok_tried = true;
        if (fa_ckpt_gguf(m->ckpt))
            fa_tok_from_gguf(&m->tok, fa_ckpt_gguf(m->ckpt), &m->tok_err);
        else
            open_tok(&m->tok, m->tok_dir ? m->tok_dir : fa_ckpt_path(m->ckpt), &m->tok_err);
        if (m->tok && !m->n_eos && fa_tok_eos(m->tok) >= 0) m->eos[m->n_eos++] = fa_tok_eos(m->tok);
    }
    pthread_mutex_unlock(&m->tok_lock);
    if (!m->tok && err) *err = m->tok_err;
    return m->tok;
}

const fa_pooling *fa_model_pooling(ffai_model *m, fa_error *err) {
    pthread_mutex_lock(&m->tok_lock);
    if (!m->pooling) fa_pooling_load(&m->pooling, m->ckpt, m->dims.dim, err);
    pthread_mutex_unlock(&m->tok_lock);
    return m->pooling;
}

bool fa_model_is_eos(const ffai_model *m, int32_t id) {
    for (int i = 0; i < m->n_eos; i++)
        if (m->eos[i] == id) return true;
    return false;
}

int ffai_tokenizer_text(ffai_model *m, char *buf, size_t cap, ffai_error *err) {
    fa_error e = {0};
    const fa_tok *t = fa_model_tok(m, &e);
    if (err) *err = e;
    if (!t) return e.code;
    fa_tok_describe(t, buf, cap);
    return 0;
}

int ffai_tokenize(ffai_model *m, const char *text, size_t len, unsigned flags, int32_t **ids, size_t *n,
                  ffai_error *err) {
    fa_error e = {0};
    *ids = NULL;
    *n = 0;
    const fa_tok *t = fa_model_tok(m, &e);
    int rc = e.code;
    unsigned f = (flags & FFAI_TOK_SPECIAL ? FA_TOK_SPECIAL : 0) |
                 (flags & FFAI_TOK_NO_PARSE_SPECIAL ? FA_TOK_NO_PARSE_SPECIAL : 0) |
                 (flags & FFAI_TOK_PARSE_SPECIAL ? FA_TOK_PARSE_SPECIAL : 0);
    if (t) rc = fa_tok_encode(t, text, len, f, ids, n, &e);
    if (rc && err) *err = e;
    return rc;
}

int ffai_detokenize(ffai_model *m, const int32_t *ids, size_t n, bool skip_special, char **text, size_t *len,
                    ffai_error *err) {
    fa_error e = {0};
    fa_buf b = {0};
    *text = NULL;
    *len = 0;
    const fa_tok *t = fa_model_tok(m, &e);
    int rc = e.code;
    if (t) rc = fa_tok_decode(t, ids, n, skip_special, &b, &e);
    if (!rc) fa_buf_puts(&b, "");
    if (!rc && (b.failed || !b.data)) rc = fa_fail(&e, FFAI_ENOMEM, "no memory for decoded text");
    if (rc) {
        fa_buf_free(&b);
        if (err) *err = e;
        return rc;
    }
    *text = b.data;
    *len = b.len;
    return 0;
}
