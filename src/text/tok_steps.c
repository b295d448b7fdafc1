/* Reads the sections of tokenizer.json that come before the model - normalizer and pre_tokenizer - into flat lists of
 * steps. */
#include "text/tok_steps_util.h"
#include "text/ucd.h"
#include "base/utf8.h"

/* ---- normalizer ---- */

static fa_norm *new_norm(fa_tok *t, fa_norm_kind kind) {
    if (t->n_norm == FA_TOK_MAX_STEPS) return NULL;
    fa_norm *m = &t->norm[t->n_norm++];
    m->kind = kind;
    return m;
}

int fa_tok_put_replace(fa_tok *t, const char *from, size_t n_from, const char *to, size_t n_to, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_REPLACE);
    if (!m) return fa_step_too_many(t, "normalizer", err);
    m->from = fa_step_copy(from, n_from);
    m->to = fa_step_copy(to, n_to);
    m->n_from = n_from;
    m->n_to = n_to;
    return m->from && m->to ? FFAI_OK : fa_step_no_memory(t, err);
}

int fa_tok_put_prepend(fa_tok *t, const char *text, size_t n, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_PREPEND);
    if (!m) return fa_step_too_many(t, "normalizer", err);
    m->to = fa_step_copy(text, n);
    m->n_to = n;
    return m->to ? FFAI_OK : fa_step_no_memory(t, err);
}

int fa_tok_put_unicode(fa_tok *t, bool compose, bool compat, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_UNICODE);
    if (!m) return fa_step_too_many(t, "normalizer", err);
    m->compose = compose;
    m->compat = compat;
    return FFAI_OK;
}

int fa_tok_put_lower(fa_tok *t, fa_error *err) {
    return new_norm(t, FA_NORM_LOWER) ? FFAI_OK : fa_step_too_many(t, "normalizer", err);
}

int fa_tok_put_strip(fa_tok *t, bool left, bool right, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_STRIP);
    if (!m) return fa_step_too_many(t, "normalizer", err);
    m->left = left;
    m->right = right;
    return FFAI_OK;
}

int fa_tok_put_bert(fa_tok *t, bool clean_text, bool chinese_chars, bool strip_accents, bool lowercase, fa_error *err) {
    int rc = FFAI_OK;
    if (clean_text && !new_norm(t, FA_NORM_CLEAN)) return fa_step_too_many(t, "normalizer", err);
    if (chinese_chars && !new_norm(t, FA_NORM_CHINESE)) return fa_step_too_many(t, "normalizer", err);
    if (strip_accents) rc = fa_tok_put_unicode(t, false, false, err);
    if (!rc && strip_accents && !new_norm(t, FA_NORM_DROP_MARKS)) return fa_step_too_many(t, "normalizer", err);
    return rc || !lowercase ? rc : fa_tok_put_lower(t, err);
}

int fa_tok_put_precompiled(fa_tok *t, fa_charsmap *map, fa_error *err) {
    fa_norm *m = new_norm(t, FA_NORM_PRECOMPILED);
    if (m)
        m->map = map;
    else
        fa_charsmap_free(map);
    return m ? FFAI_OK : fa_step_too_many(t, "normalizer", err);
}

static int read_replace(fa_tok *t, const fa_jnode *n, fa_error *err) {
    size_t len, n_to = 0;
    bool regex;
    const char *s = fa_step_pattern(fa_jget(n, "pattern"), &len, &regex), *to = fa_jstr(fa_jget(n, "content"), &n_to);
    if (!s || !to) return fa_fail(err, FFAI_EFORMAT, "%s: normalizer: Replace needs pattern and content", t->what);
    if (!regex && len) return fa_tok_put_replace(t, s, len, to, n_to, err);
    fa_norm *m = new_norm(t, FA_NORM_REPLACE_RE);
    if (!m) return fa_step_too_many(t, "normalizer", err);
    m->to = fa_step_copy(to, n_to);
    m->n_to = n_to;
    return m->to ? fa_regex_new(&m->re, s, len, t->what, err) : fa_step_no_memory(t, err);
}

static int read_precompiled(fa_tok *t, const fa_jnode *n, fa_error *err) {
    static const char key[] = "normalizer: precompiled_charsmap";
    const fa_jnode *v = fa_jget(n, "precompiled_charsmap");
    size_t len = 0;
    const char *s = fa_jstr(v, &len);
    fa_charsmap *map;
    if (!s && fa_jtype_of(v) != FA_JNULL) return fa_fail(err, FFAI_EFORMAT, "%s: %s is not a string", t->what, key);
    int rc = fa_charsmap_from_base64(&map, s, len, t->what, key, err);
    return rc ? rc : fa_tok_put_precompiled(t, map, err);
}

static int read_bert(fa_tok *t, const fa_jnode *n, fa_error *err) {
    bool lower = fa_jbool(fa_jget(n, "lowercase"), true);
    return fa_tok_put_bert(t, fa_jbool(fa_jget(n, "clean_text"), true),
                           fa_jbool(fa_jget(n, "handle_chinese_chars"), true),
                           fa_jbool(fa_jget(n, "strip_accents"), lower), lower, err);
}

int fa_tok_read_normalizer(fa_tok *t, const fa_jnode *n, fa_error *err) {
    static const struct {
        const char *type;
        fa_norm_kind kind;
    } plain[] = {{"Lowercase", FA_NORM_LOWER},
                 {"Nmt", FA_NORM_NMT},
                 {"StripAccents", FA_NORM_STRIP_ACCENTS},
                 {"ByteLevel", FA_NORM_BYTES}};
    const char *type = fa_step_type(n), *s;
    size_t len;
    int rc = FFAI_OK;
    if (fa_jtype_of(n) == FA_JNULL) return FFAI_OK;
    if (fa_step_is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "normalizers")); k && !rc; k = fa_jnext(k))
            rc = fa_tok_read_normalizer(t, k, err);
        return rc;
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (fa_step_is(type, plain[i].type))
            return new_norm(t, plain[i].kind) ? FFAI_OK : fa_step_too_many(t, "normalizer", err);
    if (fa_step_is(type, "Prepend") && (s = fa_jstr(fa_jget(n, "prepend"), &len)))
        return fa_tok_put_prepend(t, s, len, err);
    if (fa_step_is(type, "Replace")) return read_replace(t, n, err);
    if (fa_step_is(type, "NFC") || fa_step_is(type, "NFD") || fa_step_is(type, "NFKC") || fa_step_is(type, "NFKD"))
        return fa_tok_put_unicode(t, type[strlen(type) - 1] == 'C', type[2] == 'K', err);
    if (fa_step_is(type, "Strip"))
        return fa_tok_put_strip(t, fa_jbool(fa_jget(n, "strip_left"), true), fa_jbool(fa_jget(n, "strip_right"), true),
                                err);
    if (fa_step_is(type, "Precompiled")) return read_precompiled(t, n, err);
    if (fa_step_is(type, "BertNormalizer")) return read_bert(t, n, err);
    return fa_step_unsupported(t, "normalizer", "type", type, err);
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
    if (!m) return fa_step_too_many(t, "pre_tokenizer", err);
    m->behavior = b;
    m->invert = invert;
    m->scan = fa_scan_find(pattern, n);
    if (m->scan) return FFAI_OK;
    m->kind = FA_PRE_REGEX;
    return fa_regex_new(&m->re, pattern, n, t->what, err);
}

int fa_tok_put_spm(fa_tok *t, fa_error *err) {
    return new_norm(t, FA_NORM_SPM) ? FFAI_OK : fa_step_too_many(t, "normalizer", err);
}

int fa_tok_put_literal(fa_tok *t, const char *s, size_t n, fa_behavior b, bool invert, fa_error *err) {
    fa_pre *m = new_pre(t, FA_PRE_LITERAL);
    if (!m) return fa_step_too_many(t, "pre_tokenizer", err);
    m->behavior = b;
    m->invert = invert;
    m->text = fa_step_copy(s, n);
    m->n_text = n;
    return m->text ? FFAI_OK : fa_step_no_memory(t, err);
}

static int put_class(fa_tok *t, fa_pre_kind kind, uint32_t set, unsigned more, fa_behavior b, fa_error *err) {
    fa_pre *m = new_pre(t, kind);
    if (!m) return fa_step_too_many(t, "pre_tokenizer", err);
    m->behavior = b;
    m->set = set;
    m->more = more;
    return FFAI_OK;
}

int fa_tok_put_white_split(fa_tok *t, fa_error *err) {
    return put_class(t, FA_PRE_CLASS, FA_SET_SPACE, 0, FA_REMOVED, err);
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
        if (fa_step_is(s, name[i])) return *b = (fa_behavior)i, FFAI_OK;
    return fa_step_unsupported(t, "pre_tokenizer", "behavior", s, err);
}

static int read_split(fa_tok *t, const fa_jnode *n, fa_error *err) {
    fa_behavior b = FA_ISOLATED;
    size_t len;
    bool regex, invert = fa_jbool(fa_jget(n, "invert"), false);
    const char *s = fa_step_pattern(fa_jget(n, "pattern"), &len, &regex);
    if (!s) return fa_fail(err, FFAI_EFORMAT, "%s: pre_tokenizer: Split has no pattern", t->what);
    int rc = read_behavior(t, fa_jget(n, "behavior"), &b, err);
    if (rc) return rc;
    return regex || !len ? fa_tok_put_pattern(t, s, len, b, invert, err)
                         : fa_tok_put_literal(t, s, len, b, invert, err);
}

int fa_tok_put_metaspace(fa_tok *t, const char *replacement, size_t n, int scheme, bool split, fa_error *err) {
    fa_pre *m = new_pre(t, FA_PRE_METASPACE);
    if (!m) return fa_step_too_many(t, "pre_tokenizer", err);
    m->text = fa_step_copy(replacement, n);
    m->n_text = n;
    m->split = split;
    m->prepend = scheme;
    return m->text ? FFAI_OK : fa_step_no_memory(t, err);
}

static int read_metaspace(fa_tok *t, const fa_jnode *n, fa_error *err) {
    size_t len;
    const char *s = fa_jstr(fa_jget(n, "replacement"), &len);
    if (!s || !len) return fa_fail(err, FFAI_EFORMAT, "%s: pre_tokenizer: Metaspace has no replacement", t->what);
    int scheme, rc = fa_step_scheme(t, n, "pre_tokenizer", &scheme, err);
    return rc ? rc : fa_tok_put_metaspace(t, s, len, scheme, fa_jbool(fa_jget(n, "split"), true), err);
}

/* ByteLevel: an optional space in front, an optional cut by GPT-2's pattern, then characters in place of bytes. */
static int read_byte_level(fa_tok *t, const fa_jnode *n, fa_error *err) {
    fa_pre *m;
    if (fa_jbool(fa_jget(n, "add_prefix_space"), true) && !new_pre(t, FA_PRE_SPACE_PREFIX))
        return fa_step_too_many(t, "pre_tokenizer", err);
    if (fa_jbool(fa_jget(n, "use_regex"), true)) {
        if (!(m = new_pre(t, FA_PRE_SCAN))) return fa_step_too_many(t, "pre_tokenizer", err);
        m->scan = fa_scan_gpt2;
    }
    return new_pre(t, FA_PRE_BYTES) ? FFAI_OK : fa_step_too_many(t, "pre_tokenizer", err);
}

static int read_whitespace(fa_tok *t, fa_error *err) {
    fa_pre *m = new_pre(t, FA_PRE_SCAN);
    if (!m) return fa_step_too_many(t, "pre_tokenizer", err);
    m->scan = fa_scan_words;
    m->behavior = FA_REMOVED;
    m->invert = true;
    return FFAI_OK;
}

static int read_length(fa_tok *t, const fa_jnode *n, fa_error *err) {
    const fa_jnode *v = fa_jget(n, "length");
    int64_t length = v ? fa_jint(v, 0) : 5;
    if (length < 1)
        return fa_fail(err, FFAI_EFORMAT, "%s: pre_tokenizer: FixedLength.length is not a positive integer", t->what);
    fa_pre *m = new_pre(t, FA_PRE_LENGTH);
    if (!m) return fa_step_too_many(t, "pre_tokenizer", err);
    m->length = (size_t)length;
    return FFAI_OK;
}

static int read_punctuation(fa_tok *t, const fa_jnode *n, fa_error *err) {
    fa_behavior b = FA_ISOLATED;
    int rc = read_behavior(t, fa_jget(n, "behavior"), &b, err);
    return rc ? rc : put_class(t, FA_PRE_CLASS, 0, FA_MORE_PUNCT, b, err);
}

static int read_digits(fa_tok *t, const fa_jnode *n, fa_error *err) {
    bool single = fa_jbool(fa_jget(n, "individual_digits"), false);
    return put_class(t, single ? FA_PRE_CLASS : FA_PRE_RUNS, 0, FA_MORE_NUMERIC, FA_ISOLATED, err);
}

static int read_pre(fa_tok *t, const fa_jnode *n, fa_error *err) {
    const char *type = fa_step_type(n), *s;
    size_t len;
    int rc = FFAI_OK;
    if (fa_jtype_of(n) == FA_JNULL) return FFAI_OK;
    if (fa_step_is(type, "Sequence")) {
        for (const fa_jnode *k = fa_jfirst(fa_jget(n, "pretokenizers")); k && !rc; k = fa_jnext(k))
            rc = read_pre(t, k, err);
        return rc;
    }
    if (fa_step_is(type, "ByteLevel")) return read_byte_level(t, n, err);
    if (fa_step_is(type, "Split")) return read_split(t, n, err);
    if (fa_step_is(type, "Metaspace")) return read_metaspace(t, n, err);
    if (fa_step_is(type, "Digits")) return read_digits(t, n, err);
    if (fa_step_is(type, "Punctuation")) return read_punctuation(t, n, err);
    if (fa_step_is(type, "WhitespaceSplit")) return put_class(t, FA_PRE_CLASS, FA_SET_SPACE, 0, FA_REMOVED, err);
    if (fa_step_is(type, "Whitespace")) return read_whitespace(t, err);
    if (fa_step_is(type, "CharDelimiterSplit") && (s = fa_jstr(fa_jget(n, "delimiter"), &len)) && len)
        return fa_tok_put_literal(t, s, len, FA_REMOVED, false, err);
    if (fa_step_is(type, "BertPreTokenizer")) return fa_tok_put_bert_words(t, err);
    if (fa_step_is(type, "FixedLength")) return read_length(t, n, err);
    if (fa_step_is(type, "UnicodeScripts"))
        return new_pre(t, FA_PRE_SCRIPTS) ? FFAI_OK : fa_step_too_many(t, "pre_tokenizer", err);
    return fa_step_unsupported(t, "pre_tokenizer", "type", type, err);
}

int fa_tok_read_pre_tokenizer(fa_tok *t, const fa_jnode *n, fa_error *err) {
    int rc = read_pre(t, n, err);
    size_t bytes = 0;
    for (size_t i = 0; i < t->n_pre; i++) bytes += t->pre[i].kind == FA_PRE_BYTES;
    /* The common case: ByteLevel comes last, and BPE works on bytes itself. */
    if (!rc && bytes == 1 && t->pre[t->n_pre - 1].kind == FA_PRE_BYTES && t->kind == FA_MODEL_BPE &&
        !t->bpe.byte_fallback) {
        t->n_pre--;
        t->bpe.byte_level = true;
    }
    return rc;
}
