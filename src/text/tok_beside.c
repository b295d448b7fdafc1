/* What the JSON files beside a vocabulary say: tokens that were added to it, the names of the special tokens, and what
 * goes around a text. */
#include "text/tok_files.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

/* A token name: a string, or an object with `content`. */
static const char *text_of(const fa_jnode *v, size_t *n) {
    const char *s = fa_jstr(fa_jtype_of(v) == FA_JOBJ ? fa_jget(v, "content") : v, n);
    return s && *n ? s : NULL;
}

static const char *const named_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};
enum { N_NAMED = sizeof named_keys / sizeof *named_keys };

/* The name of a special token, from the config or the map. */
static const char *name_of(const fa_tok_about *about, const char *key, size_t *n) {
    const char *s = text_of(fa_jget(about->config, key), n);
    return s ? s : text_of(fa_jget(about->special, key), n);
}

/* One more token that is cut out of the text; one that the vocabulary has keeps its id. */
static int add(fa_tok *t, const char *s, size_t n, int64_t id, const fa_jnode *options, bool special, fa_error *err) {
    int32_t have = fa_strtab_find(&t->name, s, n);
    if (have >= 0) id = have;
    if (id < 0 || id > (int64_t)t->name.n_id + FA_TOK_ID_SLACK)
        return fa_fail(err, FFAI_EFORMAT, "%s: added token \"%.60s\" has no usable id", t->what, s);
    fa_added a = {.text = (char *)s, .len = n, .id = (int32_t)id};
    a.special = fa_jbool(fa_jget(options, "special"), special);
    a.single_word = fa_jbool(fa_jget(options, "single_word"), false);
    a.lstrip = fa_jbool(fa_jget(options, "lstrip"), false);
    a.rstrip = fa_jbool(fa_jget(options, "rstrip"), false);
    a.normalized = !t->spm && fa_jbool(fa_jget(options, "normalized"), !a.special);
    return fa_tok_add(t, &a, err);
}

static int add_decoder(fa_tok *t, const fa_jnode *list, fa_error *err) {
    int rc = FFAI_OK;
    for (const fa_jnode *v = fa_jfirst(list); v && !rc; v = fa_jnext(v)) {
        size_t n;
        const char *key = fa_jkey(v, NULL), *s = fa_jstr(fa_jget(v, "content"), &n);
        char *stop;
        long long id = key && *key ? strtoll(key, &stop, 10) : -1;
        if (!key || !*key || *stop || id < 0 || !s)
            return fa_fail(err, FFAI_EFORMAT, "%s: added_tokens_decoder: \"%.40s\" is not an id with content", t->what,
                           key ? key : "");
        rc = add(t, s, n, id, v, false, err);
    }
    return rc;
}

static int add_map(fa_tok *t, const fa_jnode *map, fa_error *err) {
    int rc = FFAI_OK;
    for (const fa_jnode *v = fa_jfirst(map); v && !rc; v = fa_jnext(v)) {
        size_t n;
        const char *s = fa_jkey(v, &n);
        rc = add(t, s, n, fa_jint(v, -1), NULL, false, err);
    }
    return rc;
}

/* Special tokens that only have names: those that the vocabulary spells. */
static int add_named(fa_tok *t, const fa_jnode *v, fa_error *err) {
    size_t n;
    const char *s = text_of(v, &n);
    if (!s || fa_strtab_find(&t->name, s, n) < 0) return FFAI_OK;
    return add(t, s, n, -1, fa_jtype_of(v) == FA_JOBJ ? v : NULL, true, err);
}

int fa_tok_beside_added(fa_tok *t, const fa_tok_about *about, size_t extra, fa_error *err) {
    static const fa_tok_about none = {0};
    if (!about) about = &none;
    const fa_jnode *decoder = fa_jget(about->config, "added_tokens_decoder");
    const fa_jnode *more[] = {fa_jget(about->config, "additional_special_tokens"),
                              fa_jget(about->special, "additional_special_tokens")};
    size_t n = extra + fa_jlen(decoder) + fa_jlen(about->added) + 2 * N_NAMED + fa_jlen(more[0]) + fa_jlen(more[1]);
    t->added = FA_NEWN(fa_added, n + 1);
    if (!t->added || !fa_smap_reserve(&t->added_id, n + 1)) return no_memory(t, err);
    int rc = add_decoder(t, decoder, err);
    for (size_t i = 0; i < N_NAMED && !rc; i++) {
        rc = add_named(t, fa_jget(about->config, named_keys[i]), err);
        if (!rc) rc = add_named(t, fa_jget(about->special, named_keys[i]), err);
    }
    for (int i = 0; i < 2; i++)
        for (const fa_jnode *v = fa_jfirst(more[i]); v && !rc; v = fa_jnext(v)) rc = add_named(t, v, err);
    return rc ? rc : add_map(t, about->added, err);
}

static void read_name(const fa_tok *t, const fa_tok_about *about, const char *key, int32_t *id) {
    size_t n;
    const char *s = name_of(about, key, &n);
    int32_t found = s ? fa_tok_id(t, s, n) : -1;
    if (found >= 0) *id = found;
}

int fa_tok_beside_wrap(fa_tok *t, const fa_tok_about *about, bool bos, bool eos, fa_error *err) {
    static const fa_tok_about none = {0};
    if (!about) about = &none;
    read_name(t, about, "bos_token", &t->bos);
    read_name(t, about, "eos_token", &t->eos);
    read_name(t, about, "pad_token", &t->pad);
    read_name(t, about, "unk_token", &t->unk);
    bos = fa_jbool(fa_jget(about->config, "add_bos_token"), bos) && t->bos >= 0;
    eos = fa_jbool(fa_jget(about->config, "add_eos_token"), eos) && t->eos >= 0;
    return fa_tok_wrap(t, &t->bos, bos, &t->eos, eos, err);
}
