/* Reads the sections of tokenizer.json that come after the model: post_processor and decoder. */
#include "text/tok_steps_util.h"
#include "base/utf8.h"

/* ---- post_processor ---- */

/* [ids of a, then of b], a fresh block; NULL: out of memory. */
static int32_t *joined(const int32_t *a, size_t na, const int32_t *b, size_t nb) {
    int32_t *p = FA_NEWN(int32_t, na + nb + 1);
    if (p && na) memcpy(p, a, na * sizeof *p);
    if (p && nb) memcpy(p + na, b, nb * sizeof *p);
    return p;
}

int fa_tok_wrap(fa_tok *t, const int32_t *before, size_t n_before, const int32_t *after, size_t n_after,
                fa_error *err) {
    fa_post *p = &t->post;
    int32_t *b = joined(before, n_before, p->before, p->n_before), *a = joined(p->after, p->n_after, after, n_after);
    if (!a || !b) {
        fa_free(a);
        fa_free(b);
        return fa_step_no_memory(t, err);
    }
    fa_free(p->before);
    fa_free(p->after);
    p->before = b;
    p->after = a;
    p->n_before += n_before;
    p->n_after += n_after;
    return FFAI_OK;
}

enum { MAX_ITEMS = 4096, SEQUENCE = -1 };

/* What a template makes of the sequence: ids, and SEQUENCE for the sequence itself. */
typedef struct items {
    int32_t v[MAX_ITEMS];
    size_t n;
} items;

static int add_item(const fa_tok *t, items *list, int32_t item, fa_error *err) {
    if (list->n == MAX_ITEMS)
        return fa_fail(err, FFAI_ELIMIT, "%s: post_processor adds more than %d tokens", t->what, MAX_ITEMS);
    list->v[list->n++] = item;
    return FFAI_OK;
}

/* What the processors before this one have made of the sequence. */
static int add_sequence(const fa_tok *t, items *list, fa_error *err) {
    const fa_post *p = &t->post;
    int rc = FFAI_OK;
    for (size_t i = 0; i < p->n_before && !rc; i++) rc = add_item(t, list, p->before[i], err);
    if (!rc && !p->dropped) rc = add_item(t, list, SEQUENCE, err);
    for (size_t i = 0; i < p->n_again && !rc; i++) rc = add_item(t, list, p->again[i], err);
    for (size_t i = 0; i < p->n_after && !rc; i++) rc = add_item(t, list, p->after[i], err);
    return rc;
}

/* ids of one SpecialToken of a template. */
static int add_special(const fa_tok *t, items *list, const fa_jnode *tokens, const char *name, fa_error *err) {
    const fa_jnode *ids = fa_jget(fa_jget(tokens, name), "ids");
    int rc = FFAI_OK;
    if (fa_jtype_of(ids) != FA_JARR)
        return fa_fail(err, FFAI_EFORMAT, "%s: post_processor: special token \"%.60s\" has no ids", t->what, name);
    for (const fa_jnode *k = fa_jfirst(ids); k && !rc; k = fa_jnext(k)) {
        int64_t id = fa_jint(k, -1);
        if (!fa_strtab_has(&t->name, id))
            return fa_fail(err, FFAI_EFORMAT, "%s: post_processor: id %lld of \"%.60s\" has no token", t->what,
                           (long long)id, name);
        rc = add_item(t, list, (int32_t)id, err);
    }
    return rc;
}

/* Takes the list apart at its first and last sequence. */
static int set_post(fa_tok *t, const items *list, fa_error *err) {
    size_t first = 0, last = list->n;
    while (first < list->n && list->v[first] != SEQUENCE) first++;
    while (last > first && list->v[last - 1] != SEQUENCE) last--; /* one behind the last */
    fa_post *p = &t->post, fresh = {.dropped = first == list->n, .n_before = first};
    size_t behind = first < list->n ? first + 1 : first;
    if (last < behind) last = behind;
    fresh.n_again = last - behind;
    fresh.n_after = list->n - last;
    fresh.before = joined(list->v, first, NULL, 0);
    fresh.again = joined(list->v + behind, fresh.n_again, NULL, 0);
    fresh.after = joined(list->v + last, fresh.n_after, NULL, 0);
    bool ok = fresh.before && fresh.again && fresh.after;
    fa_post old = ok ? *p : fresh;
    if (ok) *p = fresh;
    fa_free(old.before);
    fa_free(old.again);
    fa_free(old.after);
    return ok ? FFAI_OK : fa_step_no_memory(t, err);
}

static int read_template(fa_tok *t, const fa_jnode *n, fa_error *err) {
    int rc = FFAI_OK;
    const fa_jnode *tokens = fa_jget(n, "special_tokens"), *single = fa_jget(n, "single");
    if (fa_jtype_of(single) != FA_JARR)
        return fa_fail(err, FFAI_EFORMAT, "%s: post_processor: TemplateProcessing.single is not an array", t->what);
    items *list = FA_NEW(items);
    if (!list) return fa_step_no_memory(t, err);
    for (const fa_jnode *k = fa_jfirst(single); k && !rc; k = fa_jnext(k)) {
        const char *name = fa_jstr(fa_jget(fa_jget(k, "SpecialToken"), "id"), NULL);
        const char *which = fa_jstr(fa_jget(fa_jget(k, "Sequence"), "id"), NULL);
        if (name)
            rc = add_special(t, list, tokens, name, err);
        else if (fa_step_is(which, "A"))
            rc = add_sequence(t, list, err);
        else
            rc = fa_fail(err, FFAI_EFORMAT,
                         "%s: post_processor: TemplateProcessing.single has a part that is neither a special token nor "
                         "sequence A",
                         t->what);
    }
    if (!rc) rc = set_post(t, list, err);
    fa_free(list);
    return rc;
}

/* ["</s>", 2] */
static int read_pair(const fa_tok *t, const fa_jnode *n, const char *key, int32_t *out, fa_error *err) {
    int64_t id = fa_jint(fa_jnext(fa_jfirst(fa_jget(n, key))), -1);
    if (!fa_strtab_has(&t->name, id))
        return fa_fail(err, FFAI_EFORMAT, "%s: post_processor: %s does not name a token", t->what, key);
    *out = (int32_t)id;
    return FFAI_OK;
}

int fa_tok_read_post_processor(fa_tok *t, const fa_jnode *n, fa_error *err) {
    const char *type = fa_step_type(n);
    int32_t cls, sep;
    int rc = FFAI_OK;
    if (fa_jtype_of(n) == FA_JNULL || fa_step_is(type, "ByteLevel")) return FFAI_OK; /* that one moves offsets only */
    if (fa_step_is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "processors")); k && !rc; k = fa_jnext(k))
            rc = fa_tok_read_post_processor(t, k, err);
        return rc;
    }
    if (fa_step_is(type, "TemplateProcessing")) return read_template(t, n, err);
    if (fa_step_is(type, "BertProcessing") || fa_step_is(type, "RobertaProcessing")) {
        rc = read_pair(t, n, "cls", &cls, err);
        if (!rc) rc = read_pair(t, n, "sep", &sep, err);
        return rc ? rc : fa_tok_wrap(t, &cls, 1, &sep, 1, err);
    }
    return fa_step_unsupported(t, "post_processor", "type", type, err);
}

/* ---- decoder ---- */

static fa_dec *new_decoder(fa_tok *t, fa_dec_kind kind) {
    t->has_decoder = true;
    if (t->n_dec == FA_TOK_MAX_STEPS) return NULL;
    fa_dec *d = &t->dec[t->n_dec];
    if (t->n_dec) d->joined = d[-1].joined || d[-1].kind == FA_DEC_FUSE || d[-1].kind == FA_DEC_BYTE_LEVEL;
    t->n_dec++;
    d->kind = kind;
    return d;
}

int fa_tok_put_decoder(fa_tok *t, fa_dec_kind kind, const char *from, size_t n_from, const char *to, size_t n_to,
                       size_t start, size_t stop, fa_error *err) {
    fa_dec *d = new_decoder(t, kind);
    if (!d) return fa_step_too_many(t, "decoder", err);
    d->from = fa_step_copy(from, n_from);
    d->to = fa_step_copy(to, n_to);
    d->n_from = from ? n_from : 0;
    d->n_to = to ? n_to : 0;
    d->start = start;
    d->stop = stop;
    return d->from && d->to ? FFAI_OK : fa_step_no_memory(t, err);
}

static int read_strip(fa_tok *t, const fa_jnode *n, fa_error *err) {
    size_t len;
    uint32_t cp;
    const char *s = fa_jstr(fa_jget(n, "content"), &len);
    int64_t start = fa_jint(fa_jget(n, "start"), -1), stop = fa_jint(fa_jget(n, "stop"), -1);
    if (!s || !len || (size_t)fa_utf8_decode(s, len, &cp) != len || start < 0 || stop < 0 || start > INT32_MAX ||
        stop > INT32_MAX)
        return fa_fail(err, FFAI_EFORMAT, "%s: decoder: Strip needs a character, start and stop", t->what);
    return fa_tok_put_decoder(t, FA_DEC_STRIP, s, len, NULL, 0, (size_t)start, (size_t)stop, err);
}

static int read_replace(fa_tok *t, const fa_jnode *n, fa_error *err) {
    size_t len, n_to;
    bool regex;
    const char *s = fa_step_pattern(fa_jget(n, "pattern"), &len, &regex), *to = fa_jstr(fa_jget(n, "content"), &n_to);
    if (!s || !to) return fa_fail(err, FFAI_EFORMAT, "%s: decoder: Replace needs pattern and content", t->what);
    bool literal = !regex && len; /* an empty literal stands between all characters, as an empty pattern does */
    int rc = fa_tok_put_decoder(t, literal ? FA_DEC_REPLACE : FA_DEC_REPLACE_RE, s, len, to, n_to, 0, 0, err);
    return rc || literal ? rc : fa_regex_new(&t->dec[t->n_dec - 1].re, s, len, t->what, err);
}

static int read_metaspace(fa_tok *t, const fa_jnode *n, fa_error *err) {
    int scheme, rc;
    size_t len;
    const char *s = fa_jstr(fa_jget(n, "replacement"), &len);
    if (!s || !len) return fa_fail(err, FFAI_EFORMAT, "%s: decoder: Metaspace has no replacement", t->what);
    rc = fa_step_scheme(t, n, "decoder", &scheme, err);
    return rc ? rc : fa_tok_put_decoder(t, FA_DEC_METASPACE, s, len, NULL, 0, scheme != 0, 0, err);
}

/* A decoder with up to two strings and a `cleanup`. */
static int read_words(fa_tok *t, const fa_jnode *n, fa_dec_kind kind, const char *key, const char *key2,
                      fa_error *err) {
    size_t len, len2 = 0;
    const char *s = fa_jstr(fa_jget(n, key), &len), *s2 = key2 ? fa_jstr(fa_jget(n, key2), &len2) : NULL;
    if (!s || (key2 && !s2))
        return fa_fail(err, FFAI_EFORMAT, "%s: decoder: %s has no %s", t->what, fa_step_type(n), s ? key2 : key);
    return fa_tok_put_decoder(t, kind, s, len, s2, len2, fa_jbool(fa_jget(n, "cleanup"), true), 0, err);
}

int fa_tok_read_decoder(fa_tok *t, const fa_jnode *n, fa_error *err) {
    static const struct {
        const char *type;
        fa_dec_kind kind;
    } plain[] = {{"ByteLevel", FA_DEC_BYTE_LEVEL}, {"ByteFallback", FA_DEC_BYTE_FALLBACK}, {"Fuse", FA_DEC_FUSE}};
    const char *type = fa_step_type(n);
    int rc = FFAI_OK;
    if (fa_jtype_of(n) == FA_JNULL) return FFAI_OK;
    t->has_decoder = true;
    if (fa_step_is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "decoders")); k && !rc; k = fa_jnext(k))
            rc = fa_tok_read_decoder(t, k, err);
        return rc;
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (fa_step_is(type, plain[i].type)) return fa_tok_put_decoder(t, plain[i].kind, NULL, 0, NULL, 0, 0, 0, err);
    if (fa_step_is(type, "Strip")) return read_strip(t, n, err);
    if (fa_step_is(type, "Replace")) return read_replace(t, n, err);
    if (fa_step_is(type, "Metaspace")) return read_metaspace(t, n, err);
    if (fa_step_is(type, "WordPiece")) return read_words(t, n, FA_DEC_WORDPIECE, "prefix", NULL, err);
    if (fa_step_is(type, "BPEDecoder")) return read_words(t, n, FA_DEC_BPE, "suffix", NULL, err);
    if (fa_step_is(type, "CTC")) return read_words(t, n, FA_DEC_CTC, "pad_token", "word_delimiter_token", err);
    return fa_step_unsupported(t, "decoder", "type", type, err);
}
