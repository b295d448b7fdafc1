/* Loads tokenizer.json (HuggingFace `tokenizers`): the vocabulary, merges and added tokens here, the pipeline in
 * tok_steps.c. Anything this does not know is an error that names the file, the key and the value; truncation and
 * padding blocks have no meaning here and are passed over. */
#include "text/tok_steps.h"
#include "base/alloc.h"
#include "base/map.h"

#include <stdio.h>
#include <string.h>

static int no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

/* ---- vocabulary ---- */

static int read_vocab(fa_tok *t, const fa_jnode *vocab, size_t n_added, fa_error *err) {
    if (t->name.n_slot) return FFAI_OK; /* tok_fast.c has read it */
    if (fa_jtype_of(vocab) != FA_JOBJ || !fa_jlen(vocab))
        return fa_fail(err, FFAI_EFORMAT, "%s: model.vocab is not an object with tokens", t->what);
    uint64_t limit = (uint64_t)fa_jlen(vocab) * 4 + n_added * 4 + FA_TOK_ID_SLACK;
    for (const fa_jnode *v = fa_jfirst(vocab); v; v = fa_jnext(v)) {
        size_t len;
        const char *s = fa_jkey(v, &len);
        int64_t id = fa_jint(v, -1);
        if (id < 0 || (uint64_t)id >= limit)
            return fa_fail(err, FFAI_EFORMAT, "%s: model.vocab: token \"%.60s\" has no usable id", t->what, s);
        if (fa_strtab_has(&t->name, id))
            return fa_fail(err, FFAI_EFORMAT, "%s: model.vocab: \"%.60s\" and \"%.60s\" both have the id %lld", t->what,
                           t->name.pool + t->name.span[id].off, s, (long long)id);
        if (!fa_strtab_set(&t->name, (uint32_t)id, s, len)) return no_memory(t, err);
    }
    return fa_strtab_index(&t->name, NULL) ? FFAI_OK : no_memory(t, err);
}

/* ---- merges ---- */

/* A batch of merges: all look-ups are begun before the first is ended, because each is a cache miss. */
enum { BATCH = 64 };

typedef struct merges {
    fa_tok *t;
    size_t skip;   /* bytes of continuing_subword_prefix, which the joined token has once */
    fa_buf joined; /* spelling of a joined token */
    struct {
        const char *s[2];
        size_t len[2];
        fa_strkey key[2];
    } m[BATCH];
    size_t n;
    uint32_t last; /* the token that the merge before made */
    uint64_t *ab;  /* the pairs by rank: a << 32 | b */
    uint32_t *to;  /* what they become */
    size_t rank, cap;
} merges;

static int unknown_part(const merges *g, size_t i, const char *s, size_t n, fa_error *err) {
    return fa_fail(err, FFAI_EFORMAT, "%s: model.merges[%zu]: \"%.*s\" is not in the vocabulary", g->t->what,
                   g->rank + i, (int)(n > 60 ? 60 : n), s);
}

/* The token that a and b make. Lists of merges are in the order of these tokens: it is the one of the merge before or
 * the next, most of the time. With two ids for one spelling only the look-up says which. */
static int joined(merges *g, size_t i, int32_t *id, fa_error *err) {
    const fa_strtab *names = &g->t->name;
    const char *a = g->m[i].s[0], *b = g->m[i].s[1];
    size_t na = g->m[i].len[0], nb = g->m[i].len[1], skip = g->skip < nb ? g->skip : nb;
    for (uint32_t k = g->last; k - g->last < 2 && !names->doubles && !skip; k++)
        if (fa_strtab_is(names, k, a, na, g->m[i].key[0], b, nb, g->m[i].key[1]))
            return *id = (int32_t)(g->last = k), FFAI_OK;
    b += skip;
    nb -= skip;
    g->joined.len = 0;
    fa_buf_add(&g->joined, a, na);
    fa_buf_add(&g->joined, b, nb);
    if (g->joined.failed) return no_memory(g->t, err);
    *id = fa_strtab_find(names, g->joined.data, na + nb);
    if (*id < 0) return unknown_part(g, i, g->joined.data, na + nb, err);
    g->last = (uint32_t)*id;
    return FFAI_OK;
}

static bool room(merges *g, size_t n) {
    if (g->rank + n <= g->cap) return true;
    size_t cap = g->cap * 2 > g->rank + n ? g->cap * 2 : g->rank + n;
    uint64_t *ab = (uint64_t *)fa_realloc(g->ab, cap, sizeof *ab);
    if (ab) g->ab = ab;
    uint32_t *to = ab ? (uint32_t *)fa_realloc(g->to, cap, sizeof *to) : NULL;
    if (!to) return false;
    g->to = to;
    g->cap = cap;
    return true;
}

int fa_tok_merges_flush(void *merges_, fa_error *err) {
    merges *g = (merges *)merges_;
    fa_tok *t = g->t;
    if (!room(g, g->n)) return no_memory(t, err);
    for (size_t i = 0; i < g->n; i++)
        for (int k = 0; k < 2; k++)
            if (g->m[i].len[k] > 8) fa_strtab_fetch_long(&t->name, g->m[i].key[k]);
    for (size_t i = 0; i < g->n; i++) {
        int32_t id[3] = {-1, -1, -1};
        for (int k = 0; k < 2; k++) {
            id[k] = fa_strtab_end(&t->name, g->m[i].s[k], g->m[i].len[k], g->m[i].key[k]);
            if (id[k] < 0) return unknown_part(g, i, g->m[i].s[k], g->m[i].len[k], err);
        }
        int rc = joined(g, i, &id[2], err);
        if (rc) return rc;
        g->ab[g->rank + i] = (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1];
        g->to[g->rank + i] = (uint32_t)id[2];
    }
    g->rank += g->n;
    g->n = 0;
    return FFAI_OK;
}

static int bad_merge(const fa_tok *t, size_t i, fa_error *err) {
    return fa_fail(err, FFAI_EFORMAT, "%s: model.merges[%zu] is not a pair of tokens", t->what, i);
}

int fa_tok_merge_pair(void *merges_, const char *a, size_t na, const char *b, size_t nb, const char *lim,
                      fa_error *err) {
    merges *g = (merges *)merges_;
    size_t i = g->n++;
    g->m[i].s[0] = a;
    g->m[i].len[0] = na;
    g->m[i].s[1] = b;
    g->m[i].len[1] = nb;
    g->m[i].key[0] = fa_strtab_begin(&g->t->name, a, na, lim > a ? lim : a + na);
    g->m[i].key[1] = fa_strtab_begin(&g->t->name, b, nb, lim > b ? lim : b + nb);
    return g->n == BATCH ? fa_tok_merges_flush(g, err) : FFAI_OK;
}

int fa_tok_merge_text(void *merges_, const char *s, size_t n, size_t i, fa_error *err) {
    merges *g = (merges *)merges_;
    const char *space = n ? (const char *)memchr(s, ' ', n) : NULL;
    size_t at = space ? (size_t)(space - s) : 0;
    if (!space || memchr(space + 1, ' ', n - at - 1)) return bad_merge(g->t, i, err);
    return fa_tok_merge_pair(g, s, at, space + 1, n - at - 1, s + n, err);
}

int fa_tok_merges_begin(void **out, fa_tok *t, size_t n, fa_error *err) {
    merges *g = FA_NEW(merges);
    *out = g;
    if (!g) return no_memory(t, err);
    g->t = t;
    g->skip = t->bpe.prefix ? strlen(t->bpe.prefix) : 0;
    return room(g, n) ? FFAI_OK : no_memory(t, err);
}

/* The table of pairs, when their number is known. */
static int put_pairs(merges *g, fa_error *err) {
    enum { AHEAD = 16 };
    fa_bpe *m = &g->t->bpe;
    if (g->rank >= UINT32_MAX || !fa_bpe_reserve_pairs(m, g->rank, g->to)) return no_memory(g->t, err);
    g->to = NULL;
    uint32_t *less = (uint32_t *)fa_realloc(m->rank_to, g->rank, sizeof *less);
    if (less) m->rank_to = less;
    for (size_t i = 0; i < g->rank; i++) {
        if (i + AHEAD < g->rank)
            fa_bpe_prefetch_pair(m, (uint32_t)(g->ab[i + AHEAD] >> 32), (uint32_t)g->ab[i + AHEAD]);
        if (!fa_bpe_put_pair(m, (uint32_t)(g->ab[i] >> 32), (uint32_t)g->ab[i], (uint32_t)i))
            return fa_fail(err, FFAI_ELIMIT, "%s: %zu token ids with %zu merges are too many", g->t->what,
                           g->t->name.n_id, g->rank);
    }
    return FFAI_OK;
}

int fa_tok_merges_end(void *merges_, int rc, fa_error *err) {
    merges *g = (merges *)merges_;
    if (!rc) rc = fa_tok_merges_flush(g, err);
    if (!rc) rc = put_pairs(g, err);
    if (g) {
        fa_buf_free(&g->joined);
        fa_free(g->ab);
        fa_free(g->to);
    }
    fa_free(g);
    return rc;
}

static int read_merges(fa_tok *t, const fa_jnode *list, fa_error *err) {
    void *g;
    size_t i = 0;
    if (t->bpe.n_pair) return FFAI_OK; /* tok_fast.c has read them */
    if (fa_jtype_of(list) != FA_JARR) return fa_fail(err, FFAI_EFORMAT, "%s: model.merges is not an array", t->what);
    int rc = fa_tok_merges_begin(&g, t, fa_jlen(list), err);
    for (const fa_jnode *m = fa_jfirst(list); m && !rc; m = fa_jnext(m), i++) {
        size_t na, nb;
        const char *s = fa_jstr(m, &na);
        if (s) { /* the reference skips what merges.txt begins with */
            bool version = na >= 8 && memcmp(s, "#version", 8) == 0;
            rc = version ? FFAI_OK : fa_tok_merge_text(g, s, na, i, err);
            continue;
        }
        const fa_jnode *first = fa_jfirst(m), *second = fa_jnext(first);
        const char *a = fa_jstr(first, &na), *b = fa_jstr(second, &nb);
        rc = fa_jtype_of(m) == FA_JARR && a && b && !fa_jnext(second) ? fa_tok_merge_pair(g, a, na, b, nb, NULL, err)
                                                                      : bad_merge(t, i, err);
    }
    return fa_tok_merges_end(g, rc, err);
}

/* ---- model ---- */

enum { MAX_AFFIX = 256 };

/* A string that is not empty, or NULL. */
static int read_affix(char **out, const fa_tok *t, const fa_jnode *model, const char *key, fa_error *err) {
    const char *s = fa_jstr(fa_jget(model, key), NULL);
    if (!s || !*s) return FFAI_OK;
    if (strlen(s) > MAX_AFFIX)
        return fa_fail(err, FFAI_ELIMIT, "%s: model.%s has more than %d bytes", t->what, key, MAX_AFFIX);
    *out = fa_strdup(s);
    return *out ? FFAI_OK : no_memory(t, err);
}

/* With byte-level words and ignore_merges, words are looked up whole: the vocabulary as bytes. Tokens with other
 * characters are no words. */
static int build_raw(fa_tok *t, fa_error *err) {
    fa_buf b = {0};
    for (size_t i = 0; i < t->name.n_id; i++) {
        if (t->name.span[i].off == UINT32_MAX) continue;
        if (!fa_tok_bytes_of_piece(t->name.pool + t->name.span[i].off, t->name.span[i].len, &b)) continue;
        if (b.failed || !fa_strtab_set(&t->raw, (uint32_t)i, b.data ? b.data : "", b.len)) break;
    }
    bool ok = !b.failed && fa_strtab_index(&t->raw, NULL);
    fa_buf_free(&b);
    return ok ? FFAI_OK : no_memory(t, err);
}

int fa_tok_prepare_words(fa_tok *t, fa_error *err) {
    fa_bpe *m = &t->bpe;
    m->word = &t->name;
    if (!m->byte_level) return FFAI_OK;
    m->word = m->ignore_merges ? &t->raw : NULL;
    return m->ignore_merges ? build_raw(t, err) : FFAI_OK;
}

static int read_bpe(fa_tok *t, const fa_jnode *model, size_t n_added, fa_error *err) {
    const char *unk;
    size_t n;
    fa_bpe *m = &t->bpe;
    m->byte_fallback = fa_jbool(fa_jget(model, "byte_fallback"), false);
    m->fuse_unk = fa_jbool(fa_jget(model, "fuse_unk"), false);
    m->ignore_merges = fa_jbool(fa_jget(model, "ignore_merges"), false);
    int rc = read_affix(&m->prefix, t, model, "continuing_subword_prefix", err);
    if (!rc) rc = read_affix(&m->suffix, t, model, "end_of_word_suffix", err);
    if (!rc) rc = read_vocab(t, fa_jget(model, "vocab"), n_added, err);
    if (!rc) rc = read_merges(t, fa_jget(model, "merges"), err);
    if (!rc && (unk = fa_jstr(fa_jget(model, "unk_token"), &n))) m->unk = fa_strtab_find(&t->name, unk, n);
    return rc;
}

static int read_model(fa_tok *t, const fa_jnode *model, size_t n_added, fa_error *err) {
    if (fa_jtype_of(model) != FA_JOBJ) return fa_fail(err, FFAI_EFORMAT, "%s: no model", t->what);
    const char *type = fa_tok_model_type(model);
    bool pieces = strcmp(type, "WordPiece") == 0;
    if (strcmp(type, "BPE") == 0) return read_bpe(t, model, n_added, err);
    if (strcmp(type, "Unigram") == 0) return fa_tok_read_unigram(t, model, err);
    if (!pieces && strcmp(type, "WordLevel") != 0)
        return fa_fail(err, FFAI_ENOTSUP, "%s: model.type \"%.60s\" is not supported", t->what, type);
    int rc = read_vocab(t, fa_jget(model, "vocab"), n_added, err);
    if (rc) return rc;
    return pieces ? fa_tok_read_wordpiece(t, model, err) : fa_tok_read_wordlevel(t, model, err);
}

/* ---- added tokens ---- */

int fa_tok_add(fa_tok *t, const fa_added *a, fa_error *err) {
    fa_added *p = &t->added[t->n_added];
    if (!a->len) return FFAI_OK;
    *p = *a;
    p->spelled_normalized = a->normalized;
    p->text = fa_strndup(a->text, a->len);
    if (!p->text) return no_memory(t, err);
    t->n_added++;
    int put = fa_smap_put(&t->added_id, p->text, p->len, (uint32_t)(t->n_added - 1));
    if (put < 0) return no_memory(t, err);
    if (put == 0) { /* the same content again: its flags replace the first one's, but once special is special */
        uint32_t i;
        fa_free(p->text);
        *p = (fa_added){0};
        t->n_added--;
        if (!fa_smap_get(&t->added_id, a->text, a->len, &i)) return FFAI_OK;
        fa_added old = t->added[i];
        t->added[i] = *a;
        t->added[i].text = old.text;
        t->added[i].id = old.id;
        t->added[i].special |= old.special;
        t->added[i].spelled_normalized = old.spelled_normalized || a->normalized;
        return FFAI_OK;
    }
    bool taken = fa_strtab_has(&t->name, a->id),
         same = taken && t->name.span[a->id].len == a->len &&
                memcmp(t->name.pool + t->name.span[a->id].off, a->text, a->len) == 0;
    /* the model keeps its token of that id; outwards the id is the added one */
    return same || fa_strtab_set(taken ? &t->shown : &t->name, (uint32_t)a->id, a->text, a->len) ? FFAI_OK
                                                                                                 : no_memory(t, err);
}

/* The id of a token that the model has is the model's. Others are numbered behind the model's tokens in the order of
 * the file, as in the reference, which takes no notice of the ids that the file gives. */
static int read_added(fa_tok *t, const fa_jnode *list, fa_error *err) {
    size_t n = fa_jlen(list), i = 0;
    int64_t next = 0;
    if (!n) return FFAI_OK;
    for (size_t k = 0; k < t->name.n_id; k++) next += t->name.span[k].off != UINT32_MAX;
    t->added = FA_NEWN(fa_added, n);
    if (!t->added || !fa_smap_reserve(&t->added_id, n)) return no_memory(t, err);
    for (const fa_jnode *v = fa_jfirst(list); v; v = fa_jnext(v), i++) {
        fa_added a = {0};
        const char *s = fa_jstr(fa_jget(v, "content"), &a.len);
        if (!s) return fa_fail(err, FFAI_EFORMAT, "%s: added_tokens[%zu] has no content", t->what, i);
        a.text = (char *)s;
        int64_t id = fa_strtab_find(&t->name, s, a.len);
        uint32_t before;
        if (fa_jint(fa_jget(v, "id"), -1) < 0)
            return fa_fail(err, FFAI_EFORMAT, "%s: added_tokens[%zu] \"%.60s\" has no usable id", t->what, i, s);
        if (id < 0) id = fa_smap_get(&t->added_id, s, a.len, &before) ? t->added[before].id : a.len ? next++ : 0;
        a.id = (int32_t)id;
        a.single_word = fa_jbool(fa_jget(v, "single_word"), false);
        a.lstrip = fa_jbool(fa_jget(v, "lstrip"), false);
        a.rstrip = fa_jbool(fa_jget(v, "rstrip"), false);
        a.special = fa_jbool(fa_jget(v, "special"), false);
        a.normalized = fa_jbool(fa_jget(v, "normalized"), !a.special);
        int rc = fa_tok_add(t, &a, err);
        if (rc) return rc;
    }
    return FFAI_OK;
}

/* ---- tokenizer_config.json ---- */

/* A token name: a string, or an object with `content`. */
static int32_t named(const fa_tok *t, const fa_jnode *config, const char *key) {
    const fa_jnode *v = fa_jget(config, key);
    size_t n;
    const char *s = fa_jstr(fa_jtype_of(v) == FA_JOBJ ? fa_jget(v, "content") : v, &n);
    return s ? fa_tok_id(t, s, n) : -1;
}

static int read_config(fa_tok *t, const char *config, size_t len, const char *what, fa_error *err) {
    fa_json *j;
    int rc = fa_json_parse(&j, config, len, what, err);
    if (rc) return rc;
    const fa_jnode *c = fa_json_root(j);
    if (t->bos < 0) t->bos = named(t, c, "bos_token");
    if (t->eos < 0) t->eos = named(t, c, "eos_token");
    if (t->pad < 0) t->pad = named(t, c, "pad_token");
    if (t->unk < 0) t->unk = named(t, c, "unk_token");
    fa_json_free(j);
    return FFAI_OK;
}

/* ---- the whole file ---- */

static int read_root(fa_tok *t, const fa_jnode *r, fa_error *err) {
    if (fa_jtype_of(r) != FA_JOBJ) return fa_fail(err, FFAI_EFORMAT, "%s: not a JSON object", t->what);
    const fa_jnode *added = fa_jget(r, "added_tokens");
    int rc = read_model(t, fa_jget(r, "model"), fa_jlen(added), err);
    if (!rc) rc = fa_tok_read_normalizer(t, fa_jget(r, "normalizer"), err);
    if (!rc) rc = fa_tok_read_pre_tokenizer(t, fa_jget(r, "pre_tokenizer"), err);
    if (!rc && t->kind == FA_MODEL_BPE) rc = fa_tok_prepare_words(t, err);
    if (!rc) rc = read_added(t, added, err);
    if (!rc) rc = fa_tok_read_post_processor(t, fa_jget(r, "post_processor"), err);
    if (!rc) rc = fa_tok_read_decoder(t, fa_jget(r, "decoder"), err);
    return rc ? rc : fa_tok_finish(t, err);
}

/* json has been read in the quick way, or has to be read as a whole. */
static int from_text(fa_tok **out, const char *json, size_t len, const char *what, fa_error *err) {
    fa_json *j = NULL;
    fa_tok *t = NULL;
    *out = NULL;
    int rc = fa_tok_fast(&t, &j, json, len, what, err);
    if (!rc && !j) rc = fa_json_parse(&j, json, len, what, err);
    if (!rc && !t && !(t = fa_tok_alloc(what))) rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    if (!rc) rc = read_root(t, fa_json_root(j), err);
    fa_json_free(j);
    if (rc)
        fa_tok_free(t);
    else
        *out = t;
    return rc;
}

int fa_tok_from_json(fa_tok **out, const char *json, size_t len, const char *config, size_t config_len,
                     const char *what, fa_error *err) {
    int rc = from_text(out, json, len, what, err);
    if (!rc && config && (rc = read_config(*out, config, config_len, what, err))) {
        fa_tok_free(*out);
        *out = NULL;
    }
    return rc;
}

/* dir/name, when there is such a file, for the tokens that nothing has named yet. */
static int read_config_file(fa_tok *t, const char *dir, const char *name, fa_error *err) {
    enum { MAX_CONFIG = 64 << 20 };
    fa_buf path = {0};
    char *text = NULL;
    size_t len = 0;
    int rc = FFAI_OK;
    fa_buf_printf(&path, "%s/%s", dir, name);
    if (path.failed) {
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir);
    } else if (fa_path_is_file(path.data)) {
        rc = fa_read_file(&text, &len, path.data, MAX_CONFIG, err);
        if (!rc) rc = read_config(t, text, len, path.data, err);
    }
    fa_free(text);
    fa_buf_free(&path);
    return rc;
}

int fa_tok_from_hf_dir(fa_tok **out, const char *dir, fa_error *err) {
    fa_buf path = {0};
    fa_map m = {0};
    *out = NULL;
    fa_buf_printf(&path, "%s/tokenizer.json", dir);
    int rc = path.failed ? fa_fail(err, FFAI_ENOMEM, "%s: no memory", dir) : fa_map_open(&m, path.data, err);
    if (!rc) rc = from_text(out, (const char *)m.data, m.size, path.data, err);
    fa_map_close(&m);
    if (!rc) rc = read_config_file(*out, dir, "tokenizer_config.json", err);
    if (!rc) rc = read_config_file(*out, dir, "special_tokens_map.json", err);
    if (rc) {
        fa_tok_free(*out);
        *out = NULL;
    }
    fa_buf_free(&path);
    return rc;
}
