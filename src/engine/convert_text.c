/* What stands beside the weights of a converted checkpoint: config.json with its quantization section, the files of the
 * tokenizer, and a model card. */
#define _POSIX_C_SOURCE 200809L
#include "base/alloc.h"
#include "base/map.h"
#include "engine/convert.h"
#include "io/ckpt_impl.h"
#include "text/tok_write.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static bool ends(const char *s, const char *suffix) {
    size_t a = strlen(s), b = strlen(suffix);
    return a >= b && strcmp(s + a - b, suffix) == 0;
}

static int write_buf(fa_buf *b, const fa_out_dir *d, const char *name, fa_error *err) {
    int rc = b->failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", name)
                       : fa_out_dir_write(d, name, b->data ? b->data : "", b->len, err);
    fa_buf_free(b);
    return rc;
}

/* ---- config.json ---- */

static const char *mode_name(int fmt) { return fa_qfmts[fmt].name; }

static bool alike(const cv_format *a, const cv_format *b) {
    return a->fmt == b->fmt && a->bits == b->bits && a->group == b->group;
}

/* The format that config.json says of all modules without an entry: what was asked for, else what most values have. */
static bool common_format(const cv_plan *p, cv_format *f) {
    int64_t most = 0;
    *f = p->wanted;
    if (p->wanted.fmt != FA_FMT_COUNT) return true;
    for (size_t i = 0; i < p->n; i++) {
        int64_t n = 0;
        if (!p->item[i].part || fa_fmt_plain(p->item[i].f.fmt)) continue;
        for (size_t k = i; k < p->n && !most; k++)
            if (p->item[k].part && alike(&p->item[k].f, &p->item[i].f)) n += p->item[k].rows * p->item[k].cols;
        if (most) continue;
        most = n;
        *f = p->item[i].f;
    }
    return most > 0;
}

static void add_format(fa_buf *b, const cv_format *f, int indent) {
    fa_buf_printf(b, "{\n%*s\"group_size\": %d,\n%*s\"bits\": %d,\n%*s\"mode\": \"%s\"", indent, "", f->group, indent,
                  "", f->bits, indent, "", mode_name(f->fmt));
}

static bool add_quantization(fa_buf *b, const cv_plan *p) {
    cv_format f;
    bool any = false;
    for (size_t i = 0; i < p->n; i++) any |= p->item[i].part && !fa_fmt_plain(p->item[i].f.fmt);
    if (!any || !common_format(p, &f)) return false;
    add_format(b, &f, 4);
    for (size_t i = 0; i < p->n; i++) {
        const cv_item *it = &p->item[i];
        if (!it->part || (fa_fmt_plain(it->f.fmt) ? !it->f.said : alike(&it->f, &f))) continue;
        fa_buf_puts(b, ",\n    ");
        fa_buf_json(b, it->name, strlen(it->name));
        fa_buf_puts(b, ": ");
        if (fa_fmt_plain(it->f.fmt)) {
            fa_buf_puts(b, "false");
        } else {
            add_format(b, &it->f, 6);
            fa_buf_puts(b, "\n    }");
        }
    }
    fa_buf_puts(b, "\n  }");
    return true;
}

/* Keys that are not handed on: what was undone, and how weights were stored. */
static bool dropped(const cv_plan *p, const char *key) {
    static const char *const always[] = {"quantization", "quantization_config", "compression_config",
                                         "ffai_rope_interleaved", "ffai_decay_applied"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (!strcmp(key, always[i])) return true;
    return !strcmp(key, "ffai_norm_offset_applied") && !strncmp(p->m->family->name, "gemma", 5);
}

static void add_member(fa_buf *b, const char *key, size_t len, int indent, bool *any) {
    fa_buf_printf(b, "%s\n%*s", *any ? "," : "{", indent, "");
    fa_buf_json(b, key, len);
    fa_buf_puts(b, ": ");
    *any = true;
}

static const char *dtype_text(int t) { return t == FA_F32 ? "float32" : t == FA_F16 ? "float16" : "bfloat16"; }

static void add_object(fa_buf *b, const cv_plan *p, const fa_jnode *n, int indent, bool *any) {
    for (const fa_jnode *v = fa_jfirst(n); v; v = fa_jnext(v)) {
        size_t len;
        const char *key = fa_jkey(v, &len);
        if (dropped(p, key)) continue;
        add_member(b, key, len, indent, any);
        bool inner = false;
        if (!strcmp(key, "text_config") && fa_jtype_of(v) == FA_JOBJ && fa_jlen(v)) {
            add_object(b, p, v, indent + 2, &inner);
            fa_buf_printf(b, inner ? "\n%*s}" : "%*s{}", inner ? indent : 0, "");
        } else if (!strcmp(key, "tie_word_embeddings") && p->untie) {
            fa_buf_puts(b, "false");
        } else if ((!strcmp(key, "torch_dtype") || !strcmp(key, "dtype")) && p->dtype >= 0) {
            fa_buf_printf(b, "\"%s\"", dtype_text(p->dtype));
        } else {
            fa_json_print(b, v, indent);
        }
    }
}

/* Keys of mixtures that mlx-lm insists on, where the config that is made for GGUF leaves them to their defaults. */
static void add_gguf_keys(fa_buf *b, const cv_plan *p, bool *any) {
    const fa_jnode *cfg = fa_ckpt_config(p->m->ckpt), *n = fa_jget(cfg, "num_local_experts");
    const char *family = p->m->family->name;
    if (!n || (strncmp(family, "qwen", 4) && strcmp(family, "lfm2_moe") && strcmp(family, "jamba"))) return;
    if (!fa_jget(cfg, "num_experts")) {
        add_member(b, "num_experts", 11, 2, any);
        fa_json_print(b, n, 2);
    }
    if (!strncmp(family, "qwen", 4) && !fa_jget(cfg, "decoder_sparse_step")) {
        add_member(b, "decoder_sparse_step", 19, 2, any);
        fa_buf_puts(b, "1");
    }
    if (!strncmp(family, "qwen", 4) && !fa_jget(cfg, "mlp_only_layers")) {
        add_member(b, "mlp_only_layers", 15, 2, any);
        fa_buf_puts(b, "[]");
    }
}

static int write_config(const cv_plan *p, const fa_out_dir *d, fa_error *err) {
    const fa_jnode *cfg = fa_ckpt_config(p->m->ckpt);
    fa_buf b = {0}, q = {0};
    bool any = false;
    add_object(&b, p, cfg, 2, &any);
    if (p->untie && !fa_jget(cfg, "tie_word_embeddings")) {
        add_member(&b, "tie_word_embeddings", 19, 2, &any);
        fa_buf_puts(&b, "false");
    }
    if (fa_ckpt_gguf(p->m->ckpt)) add_gguf_keys(&b, p, &any);
    if (add_quantization(&q, p)) {
        add_member(&b, "quantization", 12, 2, &any);
        fa_buf_puts(&b, q.data ? q.data : "{}");
        add_member(&b, "quantization_config", 19, 2, &any);
        fa_buf_puts(&b, q.data ? q.data : "{}");
    }
    b.failed |= q.failed;
    fa_buf_free(&q);
    fa_buf_puts(&b, any ? "\n}\n" : "{}\n");
    return write_buf(&b, d, "config.json", err);
}

/* ---- files that go along ---- */

static bool goes_along(const char *name) {
    static const char *const kinds[] = {".json", ".jinja", ".txt", ".jsonl", ".tiktoken", ".py"},
                             *const not [] = {"config.json",          "model.safetensors.index.json",
                                              "hf_quant_config.json", "quantize_config.json",
                                              "quant_config.json",    "adapter_config.json"};
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
        if (!strcmp(name, not [i])) return false;
    if (ends(name, ".index.json")) return false;
    if (!strcmp(name, "tokenizer.model") || !strcmp(name, "spiece.model") || ends(name, ".spm.model") ||
        !strncmp(name, "LICENSE", 7) || !strncmp(name, "NOTICE", 6))
        return true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (ends(name, kinds[i])) return true;
    return false;
}

/* Files of one folder; sub: its name with a slash, or "". Names of folders within go to *dirs. */
static int copy_files(const cv_plan *p, const fa_out_dir *d, const char *sub, fa_error *err) {
    char **names;
    size_t n;
    char *dir = fa_path_join(fa_ckpt_path(p->m->ckpt), sub);
    if (!dir) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", fa_ckpt_path(p->m->ckpt));
    int rc = fa_list_dir(&names, &n, dir, "", err);
    for (size_t i = 0; !rc && i < n; i++) {
        char *from = fa_path_join(dir, names[i]), *to = fa_path_join(*sub ? sub : ".", names[i]);
        if (!from || !to)
            rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir);
        else if (fa_path_is_file(from) &&
                 (*sub ? ends(names[i], ".json") || ends(names[i], ".jinja") : goes_along(names[i])))
            rc = fa_out_dir_copy(d, to, from, err);
        fa_free(from);
        fa_free(to);
    }
    if (!rc || n) fa_names_free(names, n);
    fa_free(dir);
    return rc;
}

/* Chat templates besides the first, and the modules of sentence-transformers. */
static int copy_folders(const cv_plan *p, const fa_out_dir *d, fa_error *err) {
    static const char *const folders[] = {"additional_chat_templates", "1_Pooling", "2_Normalize"};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof folders / sizeof *folders; i++) {
        char *from = fa_path_join(fa_ckpt_path(p->m->ckpt), folders[i]);
        if (!from) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", folders[i]);
        if (fa_path_is_dir(from)) {
            rc = fa_out_dir_subdir(d, folders[i], err);
            if (!rc) rc = copy_files(p, d, folders[i], err);
        }
        fa_free(from);
    }
    return rc;
}

/* ---- what a GGUF file holds of that ---- */

static int write_generation(const cv_plan *p, const fa_out_dir *d, fa_error *err) {
    const fa_gguf_value *bos = fa_gguf_find(fa_ckpt_gguf(p->m->ckpt), "tokenizer.ggml.bos_token_id");
    const ffai_sampling *s = &p->m->sampling;
    fa_buf b = {0};
    fa_buf_puts(&b, "{\n  \"_from_model_config\": false");
    if (bos && bos->type != FA_GGUF_STR && bos->type != FA_GGUF_ARR && bos->i >= 0 && bos->i < p->m->dims.vocab)
        fa_buf_printf(&b, ",\n  \"bos_token_id\": %lld", (long long)bos->i);
    for (int i = 0; i < p->m->n_eos; i++)
        fa_buf_printf(&b, "%s%d%s", i ? ", " : ",\n  \"eos_token_id\": [", p->m->eos[i],
                      i + 1 == p->m->n_eos ? "]" : "");
    if (s->temp > 0) fa_buf_printf(&b, ",\n  \"do_sample\": true,\n  \"temperature\": %.6g", (double)s->temp);
    if (s->temp > 0 && s->top_k > 0) fa_buf_printf(&b, ",\n  \"top_k\": %d", s->top_k);
    if (s->temp > 0 && s->top_p > 0) fa_buf_printf(&b, ",\n  \"top_p\": %.6g", (double)s->top_p);
    fa_buf_puts(&b, "\n}\n");
    return write_buf(&b, d, "generation_config.json", err);
}

static int write_gguf(const cv_plan *p, const fa_out_dir *d, fa_error *err) {
    fa_buf json = {0}, config = {0};
    bool done;
    (void)fa_model_tok(p->m, NULL); /* which may name a token that ends texts */
    int rc = write_generation(p, d, err);
    if (!rc) rc = fa_tok_write_gguf(fa_ckpt_gguf(p->m->ckpt), &json, &config, &done, err);
    if (!rc && done) rc = write_buf(&json, d, "tokenizer.json", err);
    if (!rc && done) rc = write_buf(&config, d, "tokenizer_config.json", err);
    fa_buf_free(&json);
    fa_buf_free(&config);
    return rc;
}

/* ---- model card ---- */

/* The head of a README (between lines of three dashes): members that say whose the model is are handed on. */
static void add_card_head(fa_buf *b, const char *text, size_t n) {
    static const char *const keep[] = {"license", "language", "base_model", "extra_gated", "datasets", "gated"};
    const char *end = text + n;
    bool on = false;
    if (n < 4 || strncmp(text, "---", 3)) return;
    const char *line = (const char *)memchr(text, '\n', n);
    while (line && ++line < end) {
        const char *stop = (const char *)memchr(line, '\n', (size_t)(end - line));
        const size_t len = stop ? (size_t)(stop - line) : (size_t)(end - line);
        if (len >= 3 && !strncmp(line, "---", 3)) return;
        if (len && line[0] != ' ' && line[0] != '-' && line[0] != '\t') {
            on = false;
            for (size_t i = 0; i < sizeof keep / sizeof *keep; i++)
                on |= len > strlen(keep[i]) && !strncmp(line, keep[i], strlen(keep[i]));
        }
        if (on) {
            fa_buf_add(b, line, len);
            fa_buf_puts(b, "\n");
        }
        line = stop;
    }
}

static const char *last_name(const char *path, size_t *len) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t at = n;
    while (at && path[at - 1] != '/') at--;
    *len = n - at;
    return path + at;
}

static int write_card(const cv_plan *p, const fa_out_dir *d, fa_error *err) {
    fa_buf b = {0};
    size_t len, n = 0;
    char *text = NULL, *readme = fa_path_join(fa_ckpt_path(p->m->ckpt), "README.md");
    const char *name = last_name(fa_ckpt_path(p->m->ckpt), &len);
    cv_format f;
    if (readme && fa_path_is_file(readme)) (void)fa_read_file(&text, &n, readme, 1 << 22, NULL);
    fa_buf_puts(&b, "---\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n");
    if (text) add_card_head(&b, text, n);
    fa_buf_printf(&b, "---\n\n# %.*s, converted\n\nThis is %.*s (%s) in mlx layout, written by ffai %s.", (int)len,
                  name, (int)len, name, p->m->model_type, ffai_version());
    if (common_format(p, &f))
        fa_buf_printf(&b, " Weights are quantized: %s, %d bits%s, groups of %d; %.3f bits a weight.", mode_name(f.fmt),
                      f.bits, "", f.group, cv_bits_per_weight(p));
    fa_buf_puts(&b, "\n\n    ffai chat -m FOLDER\n    mlx_lm.generate --model FOLDER --prompt \"hello\"\n");
    fa_free(text);
    fa_free(readme);
    return write_buf(&b, d, "README.md", err);
}

int cv_write_text(cv_plan *p, const fa_out_dir *d, fa_error *err) {
    int rc = write_config(p, d, err);
    if (!rc && fa_ckpt_gguf(p->m->ckpt)) rc = write_gguf(p, d, err);
    if (!rc && !fa_ckpt_gguf(p->m->ckpt)) rc = copy_files(p, d, "", err);
    if (!rc && !fa_ckpt_gguf(p->m->ckpt)) rc = copy_folders(p, d, err);
    return rc ? rc : write_card(p, d, err);
}
