/* What a converted checkpoint will hold: the family says which tensors are matrices, the names say what they become,
 * and options, rules and the family's predicate say how each is stored. Nothing is read but headers. */
#include "base/alloc.h"
#include "base/smap.h"
#include "engine/convert.h"

#include <stdio.h>
#include <string.h>

static int no_memory(const cv_plan *p, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for a plan of its conversion", fa_ckpt_path(p->m->ckpt));
}

static bool ends(const char *s, const char *suffix) {
    size_t a = strlen(s), b = strlen(suffix);
    return a >= b && strcmp(s + a - b, suffix) == 0;
}

/* ---- options ---- */

static const struct {
    const char *name;
    uint8_t fmt, bits, group;
} modes[] = {{"affine", FA_FMT_AFFINE, 4, 64},
             {"mxfp4", FA_FMT_MXFP4, 4, 32},
             {"mxfp8", FA_FMT_MXFP8, 8, 32},
             {"nvfp4", FA_FMT_NVFP4, 4, 16}};

static bool affine_bits(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8; }

/* bits, group 0: the mode's own. what: "" or a rule, for messages. */
static int format_of(cv_format *f, const char *mode, int bits, int group, const char *what, fa_error *err) {
    const size_t n = sizeof modes / sizeof *modes;
    size_t i = 0;
    while (i < n && strcmp(modes[i].name, mode)) i++;
    if (i == n) return fa_fail(err, FFAI_EINVAL, "%smode \"%s\" is not affine, mxfp4, mxfp8 or nvfp4", what, mode);
    *f = (cv_format){.fmt = modes[i].fmt,
                     .bits = (uint8_t)(bits ? bits : modes[i].bits),
                     .group = (uint16_t)(group ? group : modes[i].group)};
    if (i && (bits && bits != modes[i].bits))
        return fa_fail(err, FFAI_EINVAL, "%s%s has %d bits, not %d", what, mode, modes[i].bits, bits);
    if (i && (group && group != modes[i].group))
        return fa_fail(err, FFAI_EINVAL, "%s%s has groups of %d, not %d", what, mode, modes[i].group, group);
    if (!i && bits && !affine_bits(bits))
        return fa_fail(err, FFAI_EINVAL, "%s%d bits: affine has 2, 3, 4, 5, 6 or 8", what, bits);
    if (!i && group && group != 32 && group != 64 && group != 128)
        return fa_fail(err, FFAI_EINVAL, "%sgroups of %d: affine has 32, 64 or 128", what, group);
    return 0;
}

static int read_dtype(int *dtype, const char *name, fa_error *err) {
    static const struct {
        const char *name;
        fa_dtype t;
    } names[] = {{"f32", FA_F32},   {"float32", FA_F32}, {"f16", FA_F16},
                 {"bf16", FA_BF16}, {"float16", FA_F16}, {"bfloat16", FA_BF16}};
    *dtype = -1;
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i].name)) *dtype = names[i].t;
    return !name || *dtype >= 0 ? 0 : fa_fail(err, FFAI_EINVAL, "dtype \"%s\" is not f32, f16 or bf16", name);
}

static int read_rules(cv_plan *p, const ffai_convert_opts *o, fa_error *err) {
    if (!o->n_rule) return 0;
    p->rule = (cv_rule *)fa_mem_calloc(&p->mem, o->n_rule, sizeof *p->rule);
    if (!p->rule) return no_memory(p, err);
    for (size_t i = 0; i < o->n_rule; i++) {
        const ffai_convert_rule *r = &o->rules[i];
        char what[200];
        snprintf(what, sizeof what, "rule \"%s\": ", r->pattern);
        int rc = fa_match_new(&p->rule[i].regex, r->pattern, "rule", err);
        p->n_rule = i + 1;
        if (!rc && r->keep)
            p->rule[i].f.fmt = FA_FMT_COUNT;
        else if (!rc)
            rc = format_of(&p->rule[i].f, r->mode ? r->mode : "affine", r->bits, r->group_size, what, err);
        if (rc) return rc;
    }
    return 0;
}

static int read_options(cv_plan *p, const ffai_convert_opts *o, fa_error *err) {
    const bool any = o->mode || o->bits || o->group_size || o->n_rule;
    p->wanted.fmt = FA_FMT_COUNT;
    p->dequantize = o->dequantize;
    if (any && o->dequantize) return fa_fail(err, FFAI_EINVAL, "dequantize and a quantization were both asked for");
    int rc = read_dtype(&p->dtype, o->dtype, err);
    if (!rc && (o->mode || o->bits || o->group_size))
        rc = format_of(&p->wanted, o->mode ? o->mode : "affine", o->bits, o->group_size, "", err);
    return rc ? rc : read_rules(p, o, err);
}

/* ---- what the family finds ---- */

static int find_stored(cv_plan *p, fa_error *err) {
    ffai_model *m = p->m;
    fa_binder b;
    fa_placer shapes;
    void *w = fa_mem_calloc(&p->mem, 1, m->family->weights_size);
    uint8_t *used = (uint8_t *)fa_mem_calloc(&p->mem, fa_ckpt_count(m->ckpt) + 1, 1);
    if (!w || !used) return no_memory(p, err);
    int rc = fa_placer_open(&shapes, m->ckpt, err);
    if (rc) return rc;
    shapes.base = shapes.vectors = (uint8_t *)(uintptr_t)FA_ARENA_ALIGN;
    shapes.dry = true;
    if (!(rc = fa_binder_open(&b, m->ckpt, m->family->renames, &p->mem, err))) {
        b.placer = &shapes;
        b.stored = &p->stored;
        m->family->bind(&b, m->cfg, w);
        rc = fa_binder_finish(&b, err);
        memcpy(used, b.used, fa_ckpt_count(m->ckpt));
        p->used = used;
        p->experts = b.n_expert > 0;
        cv_choose_prefixes(p, &b);
        fa_binder_close(&b);
    }
    fa_placer_close(&shapes);
    return rc;
}

/* ---- items ---- */

static cv_item *new_item(cv_plan *p, const char *name, fa_error *err) {
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 512;
        cv_item *grown = (cv_item *)fa_realloc(p->item, cap, sizeof *grown);
        if (!grown) {
            no_memory(p, err);
            return NULL;
        }
        p->item = grown;
        p->cap = cap;
    }
    cv_item *it = &p->item[p->n];
    *it = (cv_item){.name = fa_mem_printf(&p->mem, "%s", name)};
    if (!it->name) {
        no_memory(p, err);
        return NULL;
    }
    p->n++;
    return it;
}

/* Room for part `at` of an item; parts between are not there yet. */
static cv_part *part_at(cv_plan *p, cv_item *it, size_t at, fa_error *err) {
    if (at >= it->n_part) {
        size_t cap = 1;
        while (cap <= at) cap *= 2;
        size_t had = 1;
        while (had < it->n_part) had *= 2;
        if (!it->n_part || cap > had) {
            cv_part *grown = (cv_part *)fa_mem_calloc(&p->mem, cap, sizeof *grown);
            if (!grown) {
                no_memory(p, err);
                return NULL;
            }
            if (it->n_part) memcpy(grown, it->part, it->n_part * sizeof *grown);
            for (size_t i = it->n_part; i < cap; i++) grown[i].source = SIZE_MAX;
            it->part = grown;
        }
        it->n_part = at + 1;
    }
    return &it->part[at];
}

/* GGUF files of some architectures have q and k rows in another order (fa_rope.interleaved). */
static int64_t heads_to_turn(const cv_plan *p, const char *name) {
    const fa_lm_dims *d = &p->m->dims;
    if (!fa_jbool(fa_jget(fa_ckpt_config(p->m->ckpt), "ffai_rope_interleaved"), false)) return 0;
    return ends(name, ".self_attn.q_proj") ? d->n_head : ends(name, ".self_attn.k_proj") ? d->n_kv_head : 0;
}

static int add_matrix(cv_plan *p, fa_smap *names, size_t source, fa_error *err) {
    const fa_stored *s = &p->stored.at[source];
    cv_target t[2];
    const int n = cv_targets_of(p, s->real, s->rows, t);
    for (int i = 0; i < n; i++) {
        uint32_t at;
        if (!fa_smap_get(names, t[i].name, strlen(t[i].name), &at)) {
            cv_item *it = new_item(p, t[i].name, err);
            if (!it) return FFAI_ENOMEM;
            at = (uint32_t)(p->n - 1);
            it->cols = s->cols;
            it->rows = t[i].count ? t[i].count : s->rows;
            it->stacked = s->n || t[i].expert >= 0;
            if (fa_smap_put(names, it->name, strlen(it->name), at) < 0) return no_memory(p, err);
        }
        cv_item *it = &p->item[at];
        cv_part *part = part_at(p, it, t[i].expert >= 0 ? (size_t)t[i].expert : 0, err);
        if (!part) return FFAI_ENOMEM;
        *part = (cv_part){.source = source,
                          .from = t[i].from,
                          .step = t[i].step,
                          .count = it->rows,
                          .heads = heads_to_turn(p, s->real)};
        it->n_matrix = (int64_t)it->n_part * (s->n ? s->n : 1);
    }
    return 0;
}

/* Does the name belong to a stored matrix, as its scales or whatever its quantizer left? */
static bool beside_matrix(const fa_smap *real, const char *name, bool *bias, size_t *source) {
    static const char *const kinds[] = {
        ".scales",       ".biases",           ".qweight",       ".qzeros",       ".g_idx",
        ".weight_scale", ".weight_scale_inv", ".weight_packed", ".weight_shape", ".weight_zero_point",
        ".global_scale", "_blocks",           "_scales",        "_scale_inv",    "_scale",
        ".input_scale",  ".weight_scale_2",   ".weight_g_idx",  ".bias",         "_bias"};
    const size_t n = strlen(name);
    uint32_t at;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!ends(name, kinds[i]) || !fa_smap_get(real, name, n - strlen(kinds[i]), &at)) continue;
        *bias = strstr(kinds[i], "bias") && strcmp(kinds[i], ".biases") != 0;
        *source = at;
        return true;
    }
    return false;
}

/* The shape of a vector; what convolutions are to mlx: [channels, kernel, inputs], in other words the last two
 * dimensions change places (one of them is 1, so the values stay where they are). */
static int shape_vector(cv_plan *p, cv_item *it, fa_error *err) {
    const fa_ckpt_tensor *t = it->v.t;
    fa_st_out *out = &it->out[0];
    *out = (fa_st_out){.n_dim = t->n_dim, .dtype = (fa_dtype)t->dtype};
    for (int i = 0; i < t->n_dim; i++) out->dim[i] = t->dim[i];
    if (it->v.total) out->dim[t->n_dim - 1] = it->v.count;
    if (t->dtype < 0)
        return fa_fail(err, FFAI_ENOTSUP, "%s: tensor %s: type %s cannot be written", t->file, t->name, t->type_name);
    /* Falcon H1's layout tells that multipliers are in the weights, which mlx-lm does badly
     * (families/text/falcon_h1.c): it stays as published */
    const bool conv = (ends(t->name, "conv1d.weight") || ends(t->name, ".conv.conv.weight")) &&
                      strcmp(p->m->family->name, "falcon_h1") != 0;
    if (conv && t->n_dim == 3 && t->dim[1] == 1 && t->dim[2] != 1) {
        out->dim[1] = t->dim[2];
        out->dim[2] = 1;
        p->unsanitized = true;
    }
    if (conv && t->n_dim == 2 && fa_ckpt_gguf(p->m->ckpt)) { /* [channels, kernel] */
        out->n_dim = 3;
        out->dim[2] = 1;
    }
    return 0;
}

static int add_vector(cv_plan *p, const fa_ckpt_tensor *t, const fa_smap *real, fa_error *err) {
    char name[CV_NAME];
    size_t source = 0;
    bool bias = false, beside = beside_matrix(real, t->name, &bias, &source);
    if ((beside && !bias) || !cv_rename(p, t->name, name)) return 0;
    if (!beside) {
        cv_item *it = new_item(p, name, err);
        if (!it) return FFAI_ENOMEM;
        it->v.t = t;
        return shape_vector(p, it, err);
    }
    cv_target g[2];
    const fa_stored *s = &p->stored.at[source];
    const int n = cv_targets_of(p, s->real, s->rows, g);
    for (int i = 0; i < n; i++) {
        if (g[i].expert >= 0)
            return fa_fail(err, FFAI_ENOTSUP, "%s: tensor %s: biases of single experts cannot be stacked", t->file,
                           t->name);
        snprintf(name, sizeof name, "%.*s.bias", CV_NAME - 6, g[i].name);
        cv_item *it = new_item(p, name, err);
        if (!it) return FFAI_ENOMEM;
        it->v.t = t;
        if (g[i].count && t->n_dim && t->dim[t->n_dim - 1] == s->rows)
            it->v = (cv_vector){.t = t, .total = s->rows, .from = g[i].from, .step = g[i].step, .count = g[i].count};
        if (!it->v.total && t->n_dim == 1 && heads_to_turn(p, s->real))
            it->v = (cv_vector){t, 0, false, s->rows, 0, 1, s->rows, heads_to_turn(p, s->real)};
        int rc = shape_vector(p, it, err);
        if (rc) return rc;
    }
    return 0;
}

static int list_items(cv_plan *p, fa_error *err) {
    const fa_ckpt *c = p->m->ckpt;
    const size_t n = fa_ckpt_count(c);
    fa_smap names = {0}, real = {0};
    uint32_t *source = FA_NEWN(uint32_t, n + 1); /* 1 + place in p->stored */
    int rc = source ? 0 : no_memory(p, err);
    for (size_t i = 0; !rc && i < p->stored.n; i++) {
        source[p->stored.at[i].tensor] = (uint32_t)i + 1;
        if (fa_smap_put(&real, p->stored.at[i].real, strlen(p->stored.at[i].real), (uint32_t)i) < 0)
            rc = no_memory(p, err);
    }
    for (size_t i = 0; !rc && i < n; i++)
        rc = source[i] ? add_matrix(p, &names, source[i] - 1, err) : add_vector(p, fa_ckpt_at(c, i), &real, err);
    fa_smap_free(&names);
    fa_smap_free(&real);
    fa_free(source);
    return rc;
}

/* ---- values that change ---- */

/* mlx has norms of Qwen 3.5 and Next with the 1 that is added to their weights. */
static bool wants_one(const cv_plan *p, const cv_item *it) {
    static const char *const norms[] = {".input_layernorm.weight", ".post_attention_layernorm.weight",
                                        "model.norm.weight", ".q_norm.weight", ".k_norm.weight"};
    if (strncmp(p->m->family->name, "qwen3_5", 7) && strcmp(p->m->family->name, "qwen3_next")) return false;
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        if (ends(it->name, norms[i])) return it->v.t->n_dim == 1;
    return false;
}

static void change_values(cv_plan *p) {
    const fa_jnode *cfg = fa_ckpt_config(p->m->ckpt);
    const bool gemma =
        !strncmp(p->m->family->name, "gemma", 5) && fa_jbool(fa_jget(cfg, "ffai_norm_offset_applied"), false);
    const bool decay = fa_jbool(fa_jget(cfg, "ffai_decay_applied"), false);
    for (size_t i = 0; i < p->n; i++) {
        cv_item *it = &p->item[i];
        if (it->part) continue;
        if (p->unsanitized && wants_one(p, it)) it->v.add = 1;
        if (gemma && ends(it->name, "norm.weight") && it->v.t->n_dim == 1) it->v.add = -1;
        if (decay && ends(it->name, "A_log")) it->v.log_of_minus = true;
    }
}

/* ---- the head ---- */

static cv_item *find_item(cv_plan *p, const char *prefix, const char *name) {
    char full[CV_NAME];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    for (size_t i = 0; i < p->n; i++)
        if (p->item[i].part && !strcmp(p->item[i].name, full)) return &p->item[i];
    return NULL;
}

/* mlx-lm has no head when the config ties it. One that is stored counts here, so it stays unless it is the embedding
 * once more. */
static void settle_head(cv_plan *p) {
    cv_item *head = find_item(p, p->out_head, "lm_head"), *embed = find_item(p, p->out_body, "embed_tokens");
    if (!p->m->dims.tied || !head) return;
    const fa_ckpt_tensor *h = fa_ckpt_at(p->m->ckpt, p->stored.at[head->part[0].source].tensor);
    const fa_ckpt_tensor *e = embed ? fa_ckpt_at(p->m->ckpt, p->stored.at[embed->part[0].source].tensor) : NULL;
    if (e && e->dtype == h->dtype && e->fmt == h->fmt && e->bytes == h->bytes && h->fmt >= 0 &&
        !memcmp(e->data, h->data, h->bytes)) {
        const size_t at = (size_t)(head - p->item);
        memmove(head, head + 1, (p->n - at - 1) * sizeof *head);
        p->n--;
    } else {
        p->untie = true;
    }
}

/* ---- formats ---- */

static int plain_fmt(int dtype) { return dtype == FA_F32 ? FA_FMT_F32 : dtype == FA_F16 ? FA_FMT_F16 : FA_FMT_BF16; }

static fa_dtype dtype_of_fmt(int fmt) { return fmt == FA_FMT_F32 ? FA_F32 : fmt == FA_FMT_F16 ? FA_F16 : FA_BF16; }

/* Floats that stored ones of another kind become: what was asked for, what the config says, or bf16. */
static fa_dtype model_dtype(const cv_plan *p) {
    const fa_jnode *cfg = fa_ckpt_config(p->m->ckpt), *text = fa_jget(cfg, "text_config");
    const fa_jnode *const said[] = {fa_jget(cfg, "torch_dtype"), fa_jget(cfg, "dtype"), fa_jget(text, "torch_dtype"),
                                    fa_jget(text, "dtype")};
    int t;
    if (p->dtype >= 0) return (fa_dtype)p->dtype;
    for (size_t i = 0; i < 4; i++)
        if (fa_jstr(said[i], NULL) && !read_dtype(&t, fa_jstr(said[i], NULL), NULL)) return (fa_dtype)t;
    return FA_BF16;
}

/* A rule's format for a module; NULL: none matches. The last one that does counts. */
static int match_rules(const cv_plan *p, const char *name, const cv_format **f, fa_error *err) {
    int rc = 0;
    *f = NULL;
    for (size_t i = 0; i < p->n_rule && rc >= 0; i++)
        if ((rc = fa_match_in(p->rule[i].regex, name, err)) > 0) *f = &p->rule[i].f;
    return rc < 0 ? rc : 0;
}

/* Are all parts stored in one quantized format that mlx has? */
static bool same_planes(const cv_plan *p, const cv_item *it) {
    const fa_weight *a = &p->stored.at[it->part[0].source].w;
    for (size_t i = 0; i < it->n_part; i++)
        if (p->stored.at[it->part[i].source].ordered) return false;
    if (a->fmt != FA_FMT_AFFINE && a->fmt != FA_FMT_MXFP4 && a->fmt != FA_FMT_MXFP8 &&
        (a->fmt != FA_FMT_NVFP4 || a->scale_dtype != FA_F8_E4M3))
        return false;
    for (size_t i = 1; i < it->n_part; i++) {
        const fa_weight *w = &p->stored.at[it->part[i].source].w;
        if (w->fmt != a->fmt || w->bits != a->bits || w->group != a->group || w->scale_dtype != a->scale_dtype)
            return false;
    }
    return true;
}

static void plain_format(const cv_plan *p, cv_item *it, fa_dtype t) {
    const fa_weight *w = &p->stored.at[it->part[0].source].w;
    bool same = true;
    for (size_t i = 1; i < it->n_part; i++) same = same && p->stored.at[it->part[i].source].w.fmt == w->fmt;
    it->f = (cv_format){.fmt = (uint8_t)plain_fmt(t), .said = it->f.said};
    it->f.as_is = same && w->fmt == it->f.fmt;
}

static int choose_format(cv_plan *p, cv_item *it, fa_error *err) {
    const fa_weight *w = &p->stored.at[it->part[0].source].w;
    const fa_dtype t = fa_fmt_plain(w->fmt) && p->dtype < 0 ? dtype_of_fmt(w->fmt) : model_dtype(p);
    const cv_format *f;
    int rc = match_rules(p, it->name, &f, err);
    if (rc) return rc;
    const int special = !f && p->wanted.fmt != FA_FMT_COUNT ? cv_predicate(p, it->name) : 0;
    if (f)
        it->f = *f;
    else if (special > 0)
        it->f = (cv_format){.fmt = FA_FMT_AFFINE, .bits = (uint8_t)special, .group = 64};
    else
        it->f = p->wanted;
    it->f.said = f || special > 0;
    if (special < 0 || p->dequantize) {
        plain_format(p, it, t);
        return 0;
    }
    if (it->f.fmt == FA_FMT_COUNT) { /* nothing is wanted of it */
        if (!f && same_planes(p, it)) {
            it->f = (cv_format){w->fmt, w->bits, w->group, w->scale_dtype, true, false, 0};
            return 0;
        }
        plain_format(p, it, t);
        return 0;
    }
    if (special > 0 && it->cols % 64) it->f.group = 32;
    if (it->cols % it->f.group || (!f && it->cols % p->wanted.group)) {
        it->f.said = false;
        plain_format(p, it, t);
        return 0;
    }
    it->f.scale_dtype = it->f.fmt == FA_FMT_AFFINE ? (uint8_t)t : it->f.fmt == FA_FMT_NVFP4 ? FA_F8_E4M3 : FA_U8;
    it->f.round = (uint8_t)t;
    p->n_requantized += !fa_fmt_plain(w->fmt);
    return 0;
}

/* Float tensors change their type when one was asked for; what mlx-lm keeps in full (cast_predicate) stays. */
static void vector_dtype(const cv_plan *p, cv_item *it) {
    const int from = it->v.t->dtype;
    const bool floats = from == FA_F32 || from == FA_F16 || from == FA_BF16;
    const bool gguf = fa_ckpt_gguf(p->m->ckpt) != NULL; /* has all vectors in f32 */
    if (!floats || ends(it->name, "A_log") || strstr(it->name, "expert_bias") || strstr(it->name, "correction_bias") ||
        !strcmp(it->name, "rope_freqs.weight"))
        return;
    if (p->dtype >= 0)
        it->out[0].dtype = (fa_dtype)p->dtype;
    else if (gguf)
        it->out[0].dtype = model_dtype(p);
}

/* Shapes and types of what is written. */
static int shape_out(cv_item *it) {
    it->n_out = !it->part || fa_fmt_plain(it->f.fmt) ? 1 : it->f.fmt == FA_FMT_AFFINE ? 3 : 2;
    for (int k = 0; it->part && k < it->n_out; k++) {
        fa_st_out *o = &it->out[k];
        const bool plain = fa_fmt_plain(it->f.fmt);
        o->n_dim = it->stacked ? 3 : 2;
        o->dim[0] = it->n_matrix;
        o->dim[o->n_dim - 2] = it->rows;
        o->dim[o->n_dim - 1] = plain ? it->cols : k ? it->cols / it->f.group : it->cols * it->f.bits / 32;
        o->dtype = plain                             ? dtype_of_fmt(it->f.fmt)
                   : !k                              ? FA_U32
                   : it->f.scale_dtype == FA_F8_E4M3 ? FA_U8
                                                     : (fa_dtype)it->f.scale_dtype;
    }
    return 0;
}

/* The same once more, as widths may have changed, and names. */
static int lay_out(cv_plan *p, cv_item *it, fa_error *err) {
    static const char *const ends_of[] = {".weight", ".scales", ".biases"};
    shape_out(it);
    for (int k = 0; k < it->n_out; k++) {
        it->out_name[k] = fa_mem_printf(&p->mem, "%s%s", it->name, it->part ? ends_of[k] : "");
        it->out[k].name = it->out_name[k];
        if (!it->out_name[k]) return no_memory(p, err);
        p->bytes += (int64_t)fa_st_out_bytes(&it->out[k]);
    }
    return 0;
}

static void make_shards(cv_plan *p, int64_t limit) {
    int64_t size = 0;
    for (size_t i = 0; i < p->n; i++) {
        int64_t bytes = 0;
        for (int k = 0; k < p->item[i].n_out; k++) bytes += (int64_t)fa_st_out_bytes(&p->item[i].out[k]);
        if (!p->n_shard || (size && size + bytes > limit)) {
            p->n_shard++;
            size = 0;
        }
        size += bytes;
        p->item[i].shard = p->n_shard - 1;
    }
}

/* Every expert of a stack must be there. */
static int check_parts(const cv_plan *p, const cv_item *it, fa_error *err) {
    for (size_t i = 0; i < it->n_part; i++) {
        const fa_stored *s = it->part[i].source == SIZE_MAX ? NULL : &p->stored.at[it->part[i].source];
        if (!s)
            return fa_fail(err, FFAI_EFORMAT, "%s: %s: expert %zu of %zu is missing", fa_ckpt_path(p->m->ckpt),
                           it->name, i, it->n_part);
        if (s->cols != it->cols || (it->n_part > 1 && (s->n || s->rows != it->rows)))
            return fa_fail(err, FFAI_EFORMAT, "%s: %s: expert %zu is [%lld, %lld], others [%lld, %lld]",
                           fa_ckpt_path(p->m->ckpt), it->name, i, (long long)s->rows, (long long)s->cols,
                           (long long)it->rows, (long long)it->cols);
    }
    return 0;
}

int cv_plan_make(cv_plan *p, const char *path, const ffai_convert_opts *o, fa_error *err) {
    int rc = read_options(p, o, err);
    if (!rc) rc = find_stored(p, err);
    if (!rc) rc = list_items(p, err);
    if (rc) return rc;
    change_values(p);
    settle_head(p);
    for (size_t i = 0; !rc && i < p->n; i++) {
        cv_item *it = &p->item[i];
        if (it->part) {
            rc = check_parts(p, it, err);
            if (!rc) rc = choose_format(p, it, err);
        } else {
            vector_dtype(p, it);
        }
        if (!rc) rc = shape_out(it);
    }
    if (!rc) rc = cv_calibrate(p, path, o, err);
    for (size_t i = 0; !rc && i < p->n; i++) rc = lay_out(p, &p->item[i], err);
    if (rc) return rc;
    const int64_t limit = o->shard_bytes > 0 ? o->shard_bytes : (int64_t)5 << 30;
    make_shards(p, limit);
    return p->n ? 0 : fa_fail(err, FFAI_EFORMAT, "%s: no tensors to convert", fa_ckpt_path(p->m->ckpt));
}

void cv_plan_free(cv_plan *p) {
    for (size_t i = 0; i < p->n_rule; i++) fa_match_free(p->rule[i].regex);
    fa_free(p->item);
    fa_mem_free(&p->mem);
}
