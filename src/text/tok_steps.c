/* Reads the pipeline sections of tokenizer.json - normalizer, pre_tokenizer, post_processor, decoder - into flat lists
 * of steps. */
#include "text/tok_steps.h"
#include "text/ucd.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

static int no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

static int too_many(const fa_tok *t, const char *section, fa_error *err) {
    return fa_fail(err, FFAI_ELIMIT, "%s: %s has more than %d steps", t->what, section, FA_TOK_MAX_STEPS);
}

static int unsupported(const fa_tok *t, const char *section, const char *key, const char *value, fa_error *err) {
    return fa_fail(err, FFAI_ENOTSUP, "%s: %s: %s \"%.80s\" is not supported", t->what, section, key,
                   value ? value : "(none)");
}

static bool is(const char *a, const char *b) { return a && strcmp(a, b) == 0; }
static const char *type_of(const fa_jnode *n) { return fa_jstr(fa_jget(n, "type"), NULL); }

static char *copy(const char *s, size_t n) { return fa_strndup(s ? s : "", s ? n : 0); }

/* {"String": s} or {"Regex": s}; a plain string is a String. */
static const char *pattern_of(const fa_jnode *n, size_t *len, bool *regex) {
    const char *s = fa_jstr(n, len);
    *regex = false;
    if (!s) s = fa_jstr(fa_jget(n, "String"), len);
    if (!s && (s = fa_jstr(fa_jget(n, "Regex"), len))) *regex = true;
    return s;
}

/* ---- normalizer ---- */

static fa_norm *new_norm(fa_tok *t, fa_norm_kind kind) {
    if (t->n_norm == FA_TOK_MAX_STEPS) return NULL;
    fa_norm *m = &t->norm[t->n_norm++];
    m->kind = kind;
    return m;
}

int fa_tok_put_replace(fa_tok *t, const char *from, size_t n_from, const char *to, size_t n_to, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_REPLACE);
    if (!m) return too_many(t, "normalizer", err);
    m->from = copy(from, n_from);
    m->to = copy(to, n_to);
    m->n_from = n_from;
    m->n_to = n_to;
    return m->from && m->to ? FFAI_OK : no_memory(t, err);
}

int fa_tok_put_prepend(fa_tok *t, const char *text, size_t n, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_PREPEND);
    if (!m) return too_many(t, "normalizer", err);
    m->to = copy(text, n);
    m->n_to = n;
    return m->to ? FFAI_OK : no_memory(t, err);
}

int fa_tok_put_unicode(fa_tok *t, bool compose, bool compat, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_UNICODE);
    if (!m) return too_many(t, "normalizer", err);
    m->compose = compose;
    m->compat = compat;
    return FFAI_OK;
}

int fa_tok_put_lower(fa_tok *t, fa_error *err) {
    return new_norm(t, FA_NORM_LOWER) ? FFAI_OK : too_many(t, "normalizer", err);
}

int fa_tok_put_strip(fa_tok *t, bool left, bool right, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_STRIP);
    if (!m) return too_many(t, "normalizer", err);
    m->left = left;
    m->right = right;
    return FFAI_OK;
}

int fa_tok_put_bert(fa_tok *t, bool clean_text, bool chinese_chars, bool strip_accents, bool lowercase, fa_error *err) {
    int rc = FFAI_OK;
    if (clean_text && !new_norm(t, FA_NORM_CLEAN)) return too_many(t, "normalizer", err);
    if (chinese_chars && !new_norm(t, FA_NORM_CHINESE)) return too_many(t, "normalizer", err);
    if (strip_accents) rc = fa_tok_put_unicode(t, false, false, err);
    if (!rc && strip_accents && !new_norm(t, FA_NORM_DROP_MARKS)) return too_many(t, "normalizer", err);
    return rc || !lowercase ? rc : fa_tok_put_lower(t, err);
}

int fa_tok_put_precompiled(fa_tok *t, fa_charsmap *map, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_PRECOMPILED);
    if (m)
        m->map = map;
    else
        fa_charsmap_free(map);
    return m ? FFAI_OK : too_many(t, "normalizer", err);
}

static int read_replace(fa_tok *t, const fa_jnode *n, fa_error *err) {
    size_t len, n_to = 0;
    bool regex;
    const char *s = pattern_of(fa_jget(n, "pattern"), &len, &regex), *to = fa_jstr(fa_jget(n, "content"), &n_to);
    if (!s || !to) return fa_fail(err, FFAI_EFORMAT, "%s: normalizer: Replace needs pattern and content", t->what);
    if (!regex) return fa_tok_put_replace(t, s, len, to, n_to, err);
    fa_norm *m = new_norm(t, FA_NORM_REPLACE_RE);
    if (!m) return too_many(t, "normalizer", err);
    m->to = copy(to, n_to);
    m->n_to = n_to;
    return m->to ? fa_regex_new(&m->re, s, len, t->what, err) : no_memory(t, err);
}

int fa_tok_read_normalizer(fa_tok *t, const fa_jnode *n, fa_error *err) {
    const char *type = type_of(n), *s;
    size_t len;
    int rc = FFAI_OK;
    if (fa_jtype_of(n) == FA_JNULL) return FFAI_OK;
    if (is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "normalizers")); k && !rc; k = fa_jnext(k))
            rc = fa_tok_read_normalizer(t, k, err);
        return rc;
    }
    if (is(type, "Prepend") && (s = fa_jstr(fa_jget(n, "prepend"), &len))) return fa_tok_put_prepend(t, s, len, err);
    if (is(type, "Replace")) return read_replace(t, n, err);
    if (is(type, "NFC") || is(type, "NFD") || is(type, "NFKC") || is(type, "NFKD"))
        return fa_tok_put_unicode(t, type[strlen(type) - 1] == 'C', type[2] == 'K', err);
    if (is(type, "Lowercase")) return new_norm(t, FA_NORM_LOWER) ? FFAI_OK : too_many(t, "normalizer", err);
    if (is(type, "Strip")) {
        fa_norm *m = new_norm(t, FA_NORM_STRIP);
        if (!m) return too_many(t, "normalizer", err);
        m->left = fa_jbool(fa_jget(n, "strip_left"), true);
        m->right = fa_jbool(fa_jget(n, "strip_right"), true);
        return FFAI_OK;
    }
    return unsupported(t, "normalizer", "type", type, err);
}

/* ---- pre_tokenizer ---- */

static fa_pre *new_pre(fa_tok *t, fa_pre_kind kind) {
    if (t->n_pre == FA_TOK_MAX_STEPS) return NULL;
    fa_pre *m = &t->pre[t->n_pre++];
    m->kind = kind;
    m->behavior = FA_ISOLATED;
    return m;
}

int fa_tok_put_pattern(fa_tok *t, const char *pattern, size_t n, fa_behavior b, bool invert, fa_error *err) {
    fa_pre *m = new_pre(t, FA_PRE_SCAN);
    if (!m) return too_many(t, "pre_tokenizer", err);
    m->behavior = b;
    m->invert = invert;
    m->scan = fa_scan_find(pattern, n);
    if (m->scan) return FFAI_OK;
    m->kind = FA_PRE_REGEX;
    return fa_regex_new(&m->re, pattern, n, t->what, err);
}

int fa_tok_put_spm(fa_tok *t, fa_error *err) {
    return new_norm(t, FA_NORM_SPM) ? FFAI_OK : too_many(t, "normalizer", err);
}

int fa_tok_put_literal(fa_tok *t, const char *s, size_t n, fa_behavior b, bool invert, fa_error *err) {
    fa_pre *m = new_pre(t, FA_PRE_LITERAL);
    if (!m) return too_many(t, "pre_tokenizer", err);
    m->behavior = b;
    m->invert = invert;
    m->text = copy(s, n);
    m->n_text = n;
    return m->text ? FFAI_OK : no_memory(t, err);
}

static int put_class(fa_tok *t, fa_pre_kind kind, uint32_t set, unsigned more, fa_behavior b, fa_error *err) {
    fa_pre *m = new_pre(t, kind);
    if (!m) return too_many(t, "pre_tokenizer", err);
    m->behavior = b;
    m->set = set;
    m->more = more;
    return FFAI_OK;
}

int fa_tok_put_bert_words(fa_tok *t, fa_error *err) {
    int rc = put_class(t, FA_PRE_CLASS, FA_SET_SPACE, 0, FA_REMOVED, err);
    return rc ? rc : put_class(t, FA_PRE_CLASS, 0, FA_MORE_PUNCT, FA_ISOLATED, err);
}

static int read_behavior(const fa_tok *t, const fa_jnode *n, fa_behavior *b, fa_error *err) {
    static const char *const name[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *s = fa_jstr(n, NULL);
    if (!n) return FFAI_OK;
    for (int i = 0; i < 5; i++)
        if (is(s, name[i])) return *b = (fa_behavior)i, FFAI_OK;
    return unsupported(t, "pre_tokenizer", "behavior", s, err);
}

static int read_split(fa_tok *t, const fa_jnode *n, fa_error *err) {
    fa_behavior b = FA_ISOLATED;
    size_t len;
    bool regex, invert = fa_jbool(fa_jget(n, "invert"), false);
    const char *s = pattern_of(fa_jget(n, "pattern"), &len, &regex);
    if (!s) return fa_fail(err, FFAI_EFORMAT, "%s: pre_tokenizer: Split has no pattern", t->what);
    int rc = read_behavior(t, fa_jget(n, "behavior"), &b, err);
    if (rc) return rc;
    return regex ? fa_tok_put_pattern(t, s, len, b, invert, err) : fa_tok_put_literal(t, s, len, b, invert, err);
}

static int read_prepend_scheme(const fa_tok *t, const fa_jnode *n, const char *section, int *scheme, fa_error *err) {
    const char *s = fa_jstr(fa_jget(n, "prepend_scheme"), NULL);
    *scheme = fa_jbool(fa_jget(n, "add_prefix_space"), true) ? 2 : 0;
    if (is(s, "never"))
        *scheme = 0;
    else if (is(s, "first"))
        *scheme = 1;
    else if (is(s, "always"))
        *scheme = 2;
    else if (s)
        return unsupported(t, section, "prepend_scheme", s, err);
    return FFAI_OK;
}

int fa_tok_put_metaspace(fa_tok *t, const char *replacement, size_t n, int scheme, bool split, fa_error *err) {
    fa_pre *m = new_pre(t, FA_PRE_METASPACE);
    if (!m) return too_many(t, "pre_tokenizer", err);
    m->text = copy(replacement, n);
    m->n_text = n;
    m->split = split;
    m->prepend = scheme;
    return m->text ? FFAI_OK : no_memory(t, err);
}

static int read_metaspace(fa_tok *t, const fa_jnode *n, fa_error *err) {
    size_t len;
    const char *s = fa_jstr(fa_jget(n, "replacement"), &len);
    if (!s || !len) return fa_fail(err, FFAI_EFORMAT, "%s: pre_tokenizer: Metaspace has no replacement", t->what);
    int scheme, rc = read_prepend_scheme(t, n, "pre_tokenizer", &scheme, err);
    return rc ? rc : fa_tok_put_metaspace(t, s, len, scheme, fa_jbool(fa_jget(n, "split"), true), err);
}

/* ByteLevel: an optional space in front, an optional cut by GPT-2's pattern, and words that are bytes from here on. */
static int read_byte_level(fa_tok *t, const fa_jnode *n, fa_error *err) {
    fa_pre *m;
    if (fa_jbool(fa_jget(n, "add_prefix_space"), true) && !new_pre(t, FA_PRE_SPACE_PREFIX))
        return too_many(t, "pre_tokenizer", err);
    if (fa_jbool(fa_jget(n, "use_regex"), true)) {
        if (!(m = new_pre(t, FA_PRE_SCAN))) return too_many(t, "pre_tokenizer", err);
        m->scan = fa_scan_gpt2;
    }
    t->bpe.byte_level = true;
    return FFAI_OK;
}

int fa_tok_read_pre_tokenizer(fa_tok *t, const fa_jnode *n, fa_error *err) {
    const char *type = type_of(n), *s;
    size_t len;
    int rc = FFAI_OK;
    fa_behavior b = FA_ISOLATED;
    if (fa_jtype_of(n) == FA_JNULL) return FFAI_OK;
    if (is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "pretokenizers")); k && !rc; k = fa_jnext(k))
            rc = fa_tok_read_pre_tokenizer(t, k, err);
        return rc;
    }
    if (t->bpe.byte_level)
        return fa_fail(err, FFAI_ENOTSUP, "%s: pre_tokenizer: \"%.60s\" after ByteLevel is not supported", t->what,
                       type ? type : "(none)");
    if (is(type, "ByteLevel")) return read_byte_level(t, n, err);
    if (is(type, "Split")) return read_split(t, n, err);
    if (is(type, "Metaspace")) return read_metaspace(t, n, err);
    if (is(type, "Digits"))
        return put_class(t, fa_jbool(fa_jget(n, "individual_digits"), false) ? FA_PRE_CLASS : FA_PRE_RUNS, 0,
                         FA_MORE_NUMERIC, b, err);
    if (is(type, "Punctuation")) {
        rc = read_behavior(t, fa_jget(n, "behavior"), &b, err);
        return rc ? rc : put_class(t, FA_PRE_CLASS, 0, FA_MORE_PUNCT, b, err);
    }
    if (is(type, "WhitespaceSplit")) return put_class(t, FA_PRE_CLASS, FA_SET_SPACE, 0, FA_REMOVED, err);
    if (is(type, "Whitespace")) {
        fa_pre *m = new_pre(t, FA_PRE_SCAN);
        if (!m) return too_many(t, "pre_tokenizer", err);
        m->scan = fa_scan_words;
        m->behavior = FA_REMOVED;
        m->invert = true;
        return FFAI_OK;
    }
    if (is(type, "CharDelimiterSplit") && (s = fa_jstr(fa_jget(n, "delimiter"), &len)))
        return fa_tok_put_literal(t, s, len, FA_REMOVED, false, err);
    if (is(type, "BertPreTokenizer")) return fa_tok_put_bert_words(t, err);
    return unsupported(t, "pre_tokenizer", "type", type, err);
}

/* ---- post_processor ---- */

int fa_tok_wrap(fa_tok *t, const int32_t *before, size_t n_before, const int32_t *after, size_t n_after,
                fa_error *err) {
    fa_post *p = &t->post;
    int32_t *b = FA_NEWN(int32_t, p->n_before + n_before + 1), *a = FA_NEWN(int32_t, p->n_after + n_after + 1);
    if (!a || !b) {
        fa_free(a);
        fa_free(b);
        return no_memory(t, err);
    }
    if (n_before) memcpy(b, before, n_before * sizeof *b);
    if (p->n_before) memcpy(b + n_before, p->before, p->n_before * sizeof *b);
    if (p->n_after) memcpy(a, p->after, p->n_after * sizeof *a);
    if (n_after) memcpy(a + p->n_after, after, n_after * sizeof *a);
    fa_free(p->before);
    fa_free(p->after);
    p->before = b;
    p->after = a;
    p->n_before += n_before;
    p->n_after += n_after;
    return FFAI_OK;
}

/* ids of one SpecialToken of a template, appended to list. */
static int template_ids(fa_tok *t, const fa_jnode *tokens, const char *name, int32_t *list, size_t *n, size_t cap,
                        fa_error *err) {
    const fa_jnode *ids = fa_jget(fa_jget(tokens, name), "ids");
    if (fa_jtype_of(ids) != FA_JARR)
        return fa_fail(err, FFAI_EFORMAT, "%s: post_processor: special token \"%.60s\" has no ids", t->what, name);
    for (const fa_jnode *k = fa_jfirst(ids); k; k = fa_jnext(k)) {
        int64_t id = fa_jint(k, -1);
        if (!fa_strtab_has(&t->name, id))
            return fa_fail(err, FFAI_EFORMAT, "%s: post_processor: id %lld of \"%.60s\" has no token", t->what,
                           (long long)id, name);
        if (*n == cap) return fa_fail(err, FFAI_ELIMIT, "%s: post_processor adds more than %zu tokens", t->what, cap);
        list[(*n)++] = (int32_t)id;
    }
    return FFAI_OK;
}

static int read_template(fa_tok *t, const fa_jnode *n, fa_error *err) {
    enum { CAP = 64 };
    int32_t ids[2][CAP];
    size_t count[2] = {0, 0};
    int side = 0, rc = FFAI_OK;
    const fa_jnode *tokens = fa_jget(n, "special_tokens");
    for (const fa_jnode *k = fa_jfirst(fa_jget(n, "single")); k && !rc; k = fa_jnext(k)) {
        const fa_jnode *special = fa_jget(k, "SpecialToken");
        const char *name = fa_jstr(fa_jget(special, "id"), NULL);
        if (name)
            rc = template_ids(t, tokens, name, ids[side], &count[side], CAP, err);
        else if (fa_jget(k, "Sequence") && side == 0)
            side = 1;
        else
            rc = fa_fail(err, FFAI_ENOTSUP,
                         "%s: post_processor: TemplateProcessing.single has a part that is neither a special token nor "
                         "its one sequence",
                         t->what);
    }
    return rc ? rc : fa_tok_wrap(t, ids[0], count[0], ids[1], count[1], err);
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
    const char *type = type_of(n);
    int32_t cls, sep;
    int rc = FFAI_OK;
    if (fa_jtype_of(n) == FA_JNULL || is(type, "ByteLevel")) return FFAI_OK; /* ByteLevel moves offsets only */
    if (is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "processors")); k && !rc; k = fa_jnext(k))
            rc = fa_tok_read_post_processor(t, k, err);
        return rc;
    }
    if (is(type, "TemplateProcessing")) return read_template(t, n, err);
    if (is(type, "BertProcessing") || is(type, "RobertaProcessing")) {
        rc = read_pair(t, n, "cls", &cls, err);
        if (!rc) rc = read_pair(t, n, "sep", &sep, err);
        return rc ? rc : fa_tok_wrap(t, &cls, 1, &sep, 1, err);
    }
    return unsupported(t, "post_processor", "type", type, err);
}

/* ---- decoder ---- */

int fa_tok_put_decoder(fa_tok *t, fa_dec_kind kind, const char *from, size_t n_from, const char *to, size_t n_to,
                       size_t start, size_t stop, fa_error *err) {
    t->has_decoder = true;
    if (t->n_dec == FA_TOK_MAX_STEPS) return too_many(t, "decoder", err);
    fa_dec *d = &t->dec[t->n_dec];
    if (t->n_dec) d->joined = d[-1].joined || d[-1].kind == FA_DEC_FUSE || d[-1].kind == FA_DEC_BYTE_LEVEL;
    t->n_dec++;
    d->kind = kind;
    d->from = copy(from, n_from);
    d->to = copy(to, n_to);
    d->n_from = from ? n_from : 0;
    d->n_to = to ? n_to : 0;
    d->start = start;
    d->stop = stop;
    return d->from && d->to ? FFAI_OK : no_memory(t, err);
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

static int read_decoder_replace(fa_tok *t, const fa_jnode *n, fa_error *err) {
    size_t len, n_to;
    bool regex;
    const char *s = pattern_of(fa_jget(n, "pattern"), &len, &regex), *to = fa_jstr(fa_jget(n, "content"), &n_to);
    if (!s || !to) return fa_fail(err, FFAI_EFORMAT, "%s: decoder: Replace needs pattern and content", t->what);
    if (regex) return unsupported(t, "decoder", "Replace with the regex", s, err);
    return fa_tok_put_decoder(t, FA_DEC_REPLACE, s, len, to, n_to, 0, 0, err);
}

int fa_tok_read_decoder(fa_tok *t, const fa_jnode *n, fa_error *err) {
    const char *type = type_of(n), *s;
    size_t len;
    int rc = FFAI_OK, scheme;
    if (fa_jtype_of(n) == FA_JNULL) return FFAI_OK;
    t->has_decoder = true;
    if (is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "decoders")); k && !rc; k = fa_jnext(k))
            rc = fa_tok_read_decoder(t, k, err);
        return rc;
    }
    if (is(type, "ByteLevel")) return fa_tok_put_decoder(t, FA_DEC_BYTE_LEVEL, NULL, 0, NULL, 0, 0, 0, err);
    if (is(type, "ByteFallback")) return fa_tok_put_decoder(t, FA_DEC_BYTE_FALLBACK, NULL, 0, NULL, 0, 0, 0, err);
    if (is(type, "Fuse")) return fa_tok_put_decoder(t, FA_DEC_FUSE, NULL, 0, NULL, 0, 0, 0, err);
    if (is(type, "Strip")) return read_strip(t, n, err);
    if (is(type, "Replace")) return read_decoder_replace(t, n, err);
    if (is(type, "Metaspace") && (s = fa_jstr(fa_jget(n, "replacement"), &len)) && len) {
        rc = read_prepend_scheme(t, n, "decoder", &scheme, err);
        return rc ? rc : fa_tok_put_decoder(t, FA_DEC_METASPACE, s, len, NULL, 0, scheme != 0, 0, err);
    }
    return unsupported(t, "decoder", "type", type, err);
}
