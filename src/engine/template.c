/* Chat templates of a checkpoint: where they come from and which one is meant.
 *
 * Folders, as transformers 5 reads them: chat_template.jinja and additional_chat_templates/NAME.jinja; else
 * tokenizer_config.json's chat_template (a string, or a list of {name, template}); else the processor's
 * chat_template.json or processor_config.json. GGUF: tokenizer.chat_template and tokenizer.chat_template.NAME. Special
 * tokens are the *_token members of tokenizer_config.json, for GGUF those of the tokenizer.ggml.*_token_id. */
#include "engine/model.h"
#include "base/alloc.h"
#include "base/map.h"
#include "io/ckpt_impl.h"
#include "text/jinja/jinja.h"

#include <string.h>

struct ffai_template {
    fa_jinja *j;
};

typedef struct entry {
    const char *name, *source, *what; /* what: the file, for messages */
    size_t len;
    fa_jinja *parsed; /* on first use */
} entry;

enum { MAX_ENTRY = 64, MAX_VAR = 64, MAX_FILE = 16 << 20 };

struct fa_templates {
    fa_mem mem;
    pthread_mutex_t lock; /* of `parsed` */
    entry *e;             /* [n] */
    size_t n;
    fa_jinja_var *var; /* [n_var] special tokens */
    size_t n_var;
    const char *what; /* the model's path */
};

/* ---- a template by itself ---- */

int ffai_template_parse(ffai_template **out, const char *source, size_t len, const char *what, ffai_error *err) {
    *out = NULL;
    ffai_template *t = FA_NEW(ffai_template);
    if (!t) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for a template", what);
    int rc = fa_jinja_parse(&t->j, source, len, what ? what : "template", err);
    if (rc)
        fa_free(t);
    else
        *out = t;
    return rc;
}

void ffai_template_free(ffai_template *t) {
    if (!t) return;
    fa_jinja_free(t->j);
    fa_free(t);
}

int ffai_template_render(const ffai_template *t, const char *json, size_t len, char **text, size_t *n,
                         ffai_error *err) {
    fa_jinja_opts o = {.chat = true};
    return fa_jinja_render(t->j, json, len, &o, text, n, err);
}

/* ---- finding them ---- */

static int no_memory(const struct fa_templates *s, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for chat templates", s->what);
}

static char *copy(struct fa_templates *s, const char *text, size_t len) {
    char *p = (char *)fa_mem_calloc(&s->mem, len + 1, 1);
    if (p && len) memcpy(p, text, len);
    return p;
}

/* A template of a name that is there already replaces it. */
static int add(struct fa_templates *s, const char *name, size_t n_name, const char *source, size_t len,
               const char *what, fa_error *err) {
    entry *e = NULL;
    for (size_t i = 0; i < s->n && !e; i++)
        if (strlen(s->e[i].name) == n_name && memcmp(s->e[i].name, name, n_name) == 0) e = &s->e[i];
    if (!e && s->n == MAX_ENTRY) return fa_fail(err, FFAI_ELIMIT, "%s: more than %d chat templates", what, MAX_ENTRY);
    entry x = {copy(s, name, n_name), copy(s, source, len), copy(s, what, strlen(what)), len, NULL};
    if (!x.name || !x.source || !x.what) return no_memory(s, err);
    if (!e) e = &s->e[s->n++];
    *e = x;
    return 0;
}

static int add_file(struct fa_templates *s, const char *path, const char *name, size_t n_name, fa_error *err) {
    char *text = NULL;
    size_t len;
    int rc = fa_read_file(&text, &len, path, MAX_FILE, err);
    if (!rc) rc = add(s, name, n_name, text, len, path, err);
    fa_free(text);
    return rc;
}

/* chat_template of a JSON file: a string or a list of {name, template} */
static int add_json(struct fa_templates *s, const fa_jnode *n, const char *path, fa_error *err) {
    size_t len, n_name;
    const char *text = fa_jstr(n, &len), *name;
    int rc = 0;
    if (!n || fa_jtype_of(n) == FA_JNULL) return 0;
    if (text) return add(s, "default", 7, text, len, path, err);
    if (fa_jtype_of(n) != FA_JARR && fa_jtype_of(n) != FA_JOBJ)
        return fa_fail(err, FFAI_EFORMAT, "%s: \"chat_template\" is neither a string nor a list", path);
    for (const fa_jnode *v = fa_jfirst(n); v && !rc; v = fa_jnext(v)) {
        bool list = fa_jtype_of(n) == FA_JARR; /* else an object of name: template */
        name = list ? fa_jstr(fa_jget(v, "name"), &n_name) : fa_jkey(v, &n_name);
        text = fa_jstr(list ? fa_jget(v, "template") : v, &len);
        if (!name || !text)
            return fa_fail(err, FFAI_EFORMAT, "%s: an entry of \"chat_template\" has no name or no template", path);
        rc = add(s, name, n_name, text, len, path, err);
    }
    return rc;
}

static int load_json(fa_json **j, struct fa_templates *s, const char *dir, const char *file, char **path,
                     fa_error *err) {
    *j = NULL;
    if (!(*path = fa_path_join(dir, file))) return no_memory(s, err);
    return fa_path_exists(*path) ? fa_json_load(j, *path, err) : 0;
}

static int jinja_files(struct fa_templates *s, const char *dir, fa_error *err) {
    char **names = NULL, *path = fa_path_join(dir, "chat_template.jinja"),
         *more = fa_path_join(dir, "additional_chat_templates");
    size_t n = 0;
    int rc = path && more ? 0 : no_memory(s, err);
    if (!rc && fa_path_exists(path)) rc = add_file(s, path, "default", 7, err);
    if (!rc && fa_path_is_dir(more)) rc = fa_list_dir(&names, &n, more, ".jinja", err);
    for (size_t i = 0; i < n && !rc; i++) {
        char *file = fa_path_join(more, names[i]);
        rc = file ? add_file(s, file, names[i], strlen(names[i]) - 6, err) : no_memory(s, err);
        fa_free(file);
    }
    if (names) fa_names_free(names, n);
    fa_free(path);
    fa_free(more);
    return rc;
}

static int processor_files(struct fa_templates *s, const char *dir, fa_error *err) {
    static const char *const files[] = {"chat_template.json", "processor_config.json"};
    int rc = 0;
    for (size_t i = 0; i < 2 && !rc && !s->n; i++) {
        fa_json *j;
        char *path;
        rc = load_json(&j, s, dir, files[i], &path, err);
        if (!rc && j) rc = add_json(s, fa_jget(fa_json_root(j), "chat_template"), path, err);
        fa_json_free(j);
        fa_free(path);
    }
    return rc;
}

/* ---- special tokens ---- */

static int add_var(struct fa_templates *s, const char *name, size_t n_name, const char *value, size_t len,
                   fa_error *err) {
    size_t i = 0;
    while (i < s->n_var && (strlen(s->var[i].name) != n_name || memcmp(s->var[i].name, name, n_name) != 0)) i++;
    if (i == MAX_VAR) return 0;
    fa_jinja_var v = {copy(s, name, n_name), copy(s, value, len)};
    if (!v.name || !v.value) return no_memory(s, err);
    s->var[i] = v;
    if (i == s->n_var) s->n_var++;
    return 0;
}

/* The members NAME_token whose value is a string or an added token; all members where `any`. */
static int add_tokens(struct fa_templates *s, const fa_jnode *obj, bool any, fa_error *err) {
    int rc = 0;
    for (const fa_jnode *v = fa_jtype_of(obj) == FA_JOBJ ? fa_jfirst(obj) : NULL; v && !rc; v = fa_jnext(v)) {
        size_t n_key, len;
        const char *key = fa_jkey(v, &n_key), *text = fa_jstr(v, &len);
        if (!text) text = fa_jstr(fa_jget(v, "content"), &len);
        bool named = n_key > 6 && memcmp(key + n_key - 6, "_token", 6) == 0;
        if (text && (any || named) && strlen(text) == len) rc = add_var(s, key, n_key, text, len, err);
    }
    return rc;
}

static int read_config(struct fa_templates *s, const char *dir, fa_error *err) {
    fa_json *j = NULL, *map = NULL;
    char *path, *map_path = NULL;
    int rc = load_json(&j, s, dir, "tokenizer_config.json", &path, err);
    const fa_jnode *root = fa_json_root(j);
    if (!rc && j && !s->n) rc = add_json(s, fa_jget(root, "chat_template"), path, err);
    if (!rc) rc = add_tokens(s, root, false, err);
    if (!rc) rc = add_tokens(s, fa_jget(root, "extra_special_tokens"), true, err);
    if (!rc && !fa_jget(root, "added_tokens_decoder"))
        rc = load_json(&map, s, dir, "special_tokens_map.json", &map_path, err);
    if (!rc) rc = add_tokens(s, fa_json_root(map), false, err);
    fa_json_free(j);
    fa_json_free(map);
    fa_free(path);
    fa_free(map_path);
    return rc;
}

static int read_dir(struct fa_templates *s, const char *dir, fa_error *err) {
    int rc = jinja_files(s, dir, err);
    if (!rc) rc = read_config(s, dir, err);
    return rc || s->n ? rc : processor_files(s, dir, err);
}

static int read_gguf(struct fa_templates *s, ffai_model *m, const fa_gguf *g, fa_error *err) {
    static const char prefix[] = "tokenizer.chat_template", ids[] = "tokenizer.ggml.";
    const fa_tok *tok = fa_model_tok(m, NULL);
    int rc = 0;
    for (size_t i = 0; i < fa_gguf_n_kv(g) && !rc; i++) {
        const fa_gguf_value *v = fa_gguf_kv_at(g, i);
        const char *k = v->key;
        size_t n = strlen(k), len = sizeof prefix - 1;
        if (v->type == FA_GGUF_STR && strncmp(k, prefix, len) == 0 && (!k[len] || (k[len] == '.' && k[len + 1]))) {
            const char *name = k[len] ? k + len + 1 : "default";
            rc = add(s, name, strlen(name), (const char *)v->data, (size_t)v->n, s->what, err);
        }
        if (!tok || strncmp(k, ids, sizeof ids - 1) != 0 || n < 9 || strcmp(k + n - 9, "_token_id") != 0) continue;
        if (v->type == FA_GGUF_STR || v->type == FA_GGUF_ARR || v->i < 0 || v->i > INT32_MAX) continue;
        const char *piece = fa_tok_piece(tok, (int32_t)v->i, &len), *name = k + sizeof ids - 1;
        size_t n_name = strlen(name) - 9; /* bos, eos, unknown, padding, seperator .. */
        char var[64];
        if (!piece || n_name > 40) continue;
        if (n_name == 7 && !strncmp(name, "unknown", 7))
            strcpy(var, "unk_token");
        else if (n_name == 7 && !strncmp(name, "padding", 7))
            strcpy(var, "pad_token");
        else if (n_name == 9 && (!strncmp(name, "seperator", 9) || !strncmp(name, "separator", 9)))
            strcpy(var, "sep_token");
        else
            memcpy(var, name, n_name), strcpy(var + n_name, "_token");
        rc = add_var(s, var, strlen(var), piece, len, err);
    }
    return rc;
}

static struct fa_templates *load(ffai_model *m, fa_error *err) {
    struct fa_templates *s = FA_NEW(struct fa_templates);
    const char *dir = m->tok_dir ? m->tok_dir : fa_ckpt_path(m->ckpt);
    int rc = 0;
    if (!s) {
        fa_fail(err, FFAI_ENOMEM, "%s: no memory for chat templates", dir);
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    s->what = dir;
    s->e = (entry *)fa_mem_calloc(&s->mem, MAX_ENTRY, sizeof *s->e);
    s->var = (fa_jinja_var *)fa_mem_calloc(&s->mem, MAX_VAR + 1, sizeof *s->var);
    if (!s->e || !s->var)
        rc = no_memory(s, err);
    else if (m->ckpt && fa_ckpt_gguf(m->ckpt))
        rc = read_gguf(s, m, fa_ckpt_gguf(m->ckpt), err);
    else if (fa_path_is_dir(dir))
        rc = read_dir(s, dir, err);
    if (!rc && m->own_template) { /* tokens are the checkpoint's all the same */
        s->n = 0;
        rc = add(s, "default", 7, m->own_template, strlen(m->own_template), "chat template", err);
    }
    if (!rc) return s;
    fa_templates_free(s);
    return NULL;
}

void fa_templates_free(struct fa_templates *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) fa_jinja_free(s->e[i].parsed);
    pthread_mutex_destroy(&s->lock);
    fa_mem_free(&s->mem);
    fa_free(s);
}

/* Loaded on first use; NULL with the reason. A failure is tried again: it may have been memory. */
static struct fa_templates *templates(ffai_model *m, fa_error *err) {
    pthread_mutex_lock(&m->tmpl_lock);
    if (!m->tmpl) m->tmpl = load(m, err);
    struct fa_templates *s = m->tmpl;
    pthread_mutex_unlock(&m->tmpl_lock);
    return s;
}

/* ---- the public side ---- */

int ffai_model_template_at(ffai_model *m, size_t i, const char **name, const char **source, ffai_error *err) {
    fa_error e = {0};
    *name = *source = NULL;
    struct fa_templates *s = templates(m, &e);
    if (!s) {
        if (err) *err = e;
        return e.code;
    }
    if (i >= s->n) return 0;
    *name = s->e[i].name;
    *source = s->e[i].source;
    return 1;
}

/* "a, b, c" */
static void list_names(const struct fa_templates *s, fa_buf *b) {
    for (size_t i = 0; i < s->n; i++) fa_buf_printf(b, "%s%s", i ? ", " : "", s->e[i].name);
    fa_buf_puts(b, "");
}

static entry *find(struct fa_templates *s, const char *name) {
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->e[i].name, name) == 0) return &s->e[i];
    return NULL;
}

/* Is there anything under "tools"? */
static bool has_tools(const char *json, size_t len) {
    fa_json *j;
    bool has = false;
    if (fa_json_parse(&j, json, len, "input", NULL) == 0) {
        const fa_jnode *t = fa_jget(fa_json_root(j), "tools");
        has = t && fa_jtype_of(t) != FA_JNULL;
        fa_json_free(j);
    }
    return has;
}

static entry *pick(struct fa_templates *s, const char *name, const char *json, size_t len, fa_error *err) {
    entry *e = NULL;
    if (!s->n) {
        fa_fail(err, FFAI_ENOTSUP, "%s: the checkpoint has no chat template", s->what);
        return NULL;
    }
    if (name)
        e = find(s, name);
    else if (find(s, "tool_use") && has_tools(json, len))
        e = find(s, "tool_use");
    else if (!(e = find(s, "default")) && s->n == 1)
        e = &s->e[0];
    if (e) return e;
    fa_buf b = {0};
    list_names(s, &b);
    if (name)
        fa_fail(err, FFAI_EINVAL, "%s: no chat template \"%s\"; there are: %s", s->what, name, b.data ? b.data : "");
    else
        fa_fail(err, FFAI_EINVAL, "%s: several chat templates and no default: name one of %s", s->what,
                b.data ? b.data : "");
    fa_buf_free(&b);
    return NULL;
}

int ffai_chat_render(ffai_model *m, const char *name, const char *json, size_t len, char **text, size_t *n,
                     ffai_error *err) {
    fa_error e = {0};
    *text = NULL;
    *n = 0;
    struct fa_templates *s = templates(m, &e);
    entry *t = s ? pick(s, name, json, len, &e) : NULL;
    int rc = t ? 0 : e.code;
    if (!rc) {
        pthread_mutex_lock(&s->lock);
        if (!t->parsed) rc = fa_jinja_parse(&t->parsed, t->source, t->len, t->what, &e);
        pthread_mutex_unlock(&s->lock);
    }
    if (!rc) {
        fa_jinja_opts o = {.chat = true, .var = s->var, .n_var = s->n_var};
        rc = fa_jinja_render(t->parsed, json, len, &o, text, n, &e);
    }
    if (rc && err) *err = e;
    return rc;
}
