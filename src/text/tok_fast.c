/* The quick way through a large tokenizer.json: the vocabulary and the merge list are read where they lie, so that no
 * tree of a million nodes is built. The rest of the file, with the two emptied, goes through the JSON reader as any
 * document does.
 *
 * This only ever accepts what the slow way accepts, with the same result: at anything unusual (another model than BPE,
 * another order of keys, a double key, any mistake) it stops, and the slow way starts over and finds the words for it.
 * So nothing here reports what is wrong with a file. */
#include "text/tok_steps.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

typedef struct cursor {
    const char *p, *end;
    bool bad;
    char text[4096]; /* strings with escapes, decoded; valid until reset */
    size_t n_text;
} cursor;

typedef struct piece {
    const char *s;
    size_t n;
} piece;

static inline uint64_t load8(const char *s) {
    uint64_t v;
    memcpy(&v, s, 8);
    return v;
}

/* ---- JSON ---- */

static inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static inline void skip_space(cursor *c) {
    while (c->p < c->end && is_space(*c->p)) {
        c->p++;
        while (c->end - c->p >= 8 && load8(c->p) == UINT64_C(0x2020202020202020)) c->p += 8;
    }
}

/* The next character that is no space is `what`, and is taken. */
static inline bool take(cursor *c, char what) {
    skip_space(c);
    if (c->p >= c->end || *c->p != what) return false;
    c->p++;
    return true;
}

static int hex4(const char *s) {
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

/* \uXXXX, a pair of surrogates too; s is behind the u. Bytes used, 0 when it is bad. */
static size_t escaped_char(const char *s, const char *end, uint32_t *cp) {
    int v = end - s >= 4 ? hex4(s) : -1, w;
    if (v < 0 || (v >= 0xDC00 && v < 0xE000)) return 0;
    *cp = (uint32_t)v;
    if (v < 0xD800 || v >= 0xE000) return 4;
    if (end - s < 10 || s[4] != '\\' || s[5] != 'u' || (w = hex4(s + 6)) < 0xDC00 || w >= 0xE000) return 0;
    *cp = 0x10000 + ((uint32_t)(v & 0x3FF) << 10 | (uint32_t)(w & 0x3FF));
    return 10;
}

/* s[0..n) is what stands between the quotes. */
static bool unescape(cursor *c, const char *s, size_t n, piece *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *end = s + n, *at;
    char *w = c->text + c->n_text;
    if (n > sizeof c->text - c->n_text) return false; /* decoded strings are never longer */
    out->s = w;
    while (s < end) {
        if (*s != '\\') {
            *w++ = *s++;
        } else if (s[1] == 'u') { /* s[1] is there: the closing quote is not escaped */
            uint32_t cp;
            size_t k = escaped_char(s + 2, end, &cp);
            if (!k) return false;
            s += 2 + k;
            w += fa_utf8_encode(cp, w);
        } else {
            if (!s[1] || !(at = strchr(from, s[1]))) return false;
            *w++ = to[at - from];
            s += 2;
        }
    }
    out->n = (size_t)(w - out->s);
    c->n_text += out->n;
    return true;
}

/* The next byte from p on that is a quote, a backslash or a control character. */
static inline const char *find_special(const char *p, const char *end) {
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones * 0x80;
    for (; end - p >= 8; p += 8) {
        uint64_t w = load8(p), q = w ^ ones * '"', b = w ^ ones * '\\';
        uint64_t hit = (((q - ones) & ~q) | ((b - ones) & ~b) | ((w - ones * 0x20) & ~w)) & tops;
        if (hit) return p + (__builtin_ctzll(hit) >> 3);
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20) p++;
    return p;
}

/* What stands between two values (quotes, commas, brackets, white space) is the same thousands of times: once it has
 * been read character by character it is known. */
typedef struct gap {
    uint64_t word[6], mask[6];
    size_t n; /* bytes; 0: not known */
} gap;

static void learn(gap *g, const char *s, size_t n) {
    memset(g, 0, sizeof *g);
    if (n > sizeof g->word) return;
    memcpy(g->word, s, n);
    memset(g->mask, 0xFF, n);
    g->n = n;
}

/* Takes these characters, with white space in front of each; otherwise takes nothing. */
static inline bool take_gap(cursor *c, gap *g, const char *chars) {
    const char *from = c->p;
    if (g->n && (size_t)(c->end - from) >= sizeof g->word) {
        uint64_t differ = 0;
        for (size_t i = 0; i < sizeof g->word / 8; i++) differ |= (load8(from + 8 * i) ^ g->word[i]) & g->mask[i];
        if (!differ) return c->p += g->n, true;
    }
    for (; *chars; chars++)
        if (!take(c, *chars)) return c->p = from, false;
    learn(g, from, (size_t)(c->p - from));
    return true;
}

/* A string from behind its first quote; its bytes are not checked to be UTF-8. */
static inline bool string(cursor *c, piece *out) {
    const char *s = c->p, *z = find_special(s, c->end);
    bool plain = z < c->end && *z == '"';
    while (z < c->end && *z == '\\') z = c->end - z > 1 ? find_special(z + 2, c->end) : c->end;
    if (z >= c->end || *z != '"') return false;
    c->p = z + 1;
    if (!plain) return unescape(c, s, (size_t)(z - s), out);
    *out = (piece){s, (size_t)(z - s)};
    return true;
}

/* Passes over a value. What it looks like inside is of no interest: the JSON reader sees it later. */
static bool skip_value(cursor *c) {
    size_t depth = 0;
    do {
        piece s;
        skip_space(c);
        if (c->p >= c->end) return false;
        char k = *c->p;
        if (k == '"') {
            c->p++;
            if (!string(c, &s)) return false;
            c->n_text = 0;
        } else {
            c->p++;
            if (k == '{' || k == '[') depth++;
            if ((k == '}' || k == ']') && !depth--) return false;
            if (!depth && k != '}' && k != ']') /* a number or a word */
                while (c->p < c->end && !is_space(*c->p) && *c->p != ',' && *c->p != '}' && *c->p != ']') c->p++;
        }
    } while (depth);
    return true;
}

static bool is(piece s, const char *what) { return s.n == strlen(what) && memcmp(s.s, what, s.n) == 0; }

/* From the inside of an object up to the value of a key; other keys are passed over, `on` sees them first. */
typedef bool on_key(cursor *c, piece key, void *ctx);

static bool find_key(cursor *c, const char *key, on_key *on, void *ctx) {
    for (bool first = true;; first = false) {
        piece k;
        if ((!first && !take(c, ',')) || !take(c, '"') || !string(c, &k) || !take(c, ':')) return false;
        if (is(k, key)) return true;
        const char *at = c->p;
        if (on && !on(c, k, ctx)) return false;
        c->p = at;
        c->n_text = 0;
        if (!skip_value(c)) return false;
    }
}

/* ---- the two large values ---- */

static inline bool follows(char c) { return ((unsigned char)c & 0xC0) == 0x80; }

static bool valid_utf8(piece s) {
    for (size_t i = 0, k; i < s.n; i += k) {
        unsigned char c = (unsigned char)s.s[i];
        uint32_t cp;
        if (c < 0x80) {
            k = 1;
        } else if (s.n - i > 1 && c >= 0xC2 && c < 0xE0 && follows(s.s[i + 1])) {
            k = 2;
        } else if (s.n - i > 2 && c > 0xE0 && c < 0xED && follows(s.s[i + 1]) && follows(s.s[i + 2])) {
            k = 3;
        } else {
            k = (size_t)fa_utf8_decode(s.s + i, s.n - i, &cp);
            if (cp == 0xFFFD && !(k == 3 && memcmp(s.s + i, "\xEF\xBF\xBD", 3) == 0)) return false;
        }
    }
    return true;
}

/* An integer without sign, fraction or exponent. */
static inline bool number(cursor *c, uint32_t *out) {
    uint64_t v = 0;
    const char *s = c->p;
    while (c->p < c->end && *c->p >= '0' && *c->p <= '9' && v <= INT32_MAX) v = v * 10 + (uint64_t)(*c->p++ - '0');
    *out = (uint32_t)v;
    return c->p > s && v <= INT32_MAX && (*s != '0' || c->p == s + 1);
}

/* {"token": id, ...} into t->name. */
static int vocabulary(cursor *c, fa_tok *t, size_t *n_tok) {
    uint64_t limit = (uint64_t)(c->end - c->p) + FA_TOK_ID_SLACK; /* more than the slow way allows; see accept() */
    gap open = {{0}, {0}, 0}, colon = open, comma = open;
    uint32_t id;
    piece s;
    *n_tok = 0;
    fa_strtab_reserve(&t->name, (size_t)(c->end - c->p) / 32, (size_t)(c->end - c->p) / 4);
    c->bad = !take_gap(c, &open, "{\"");
    while (!c->bad) {
        c->n_text = 0;
        c->bad = !string(c, &s) || !valid_utf8(s) || !take_gap(c, &colon, ":");
        skip_space(c);
        if (c->bad || !number(c, &id) || id >= limit || fa_strtab_has(&t->name, id)) return c->bad = true, FFAI_OK;
        if (!fa_strtab_set(&t->name, id, s.s, s.n)) return FFAI_ENOMEM;
        ++*n_tok;
        if (!take_gap(c, &comma, ",\"")) break;
    }
    c->bad = c->bad || !take(c, '}');
    fa_strtab_shrink(&t->name);
    return c->bad || fa_strtab_index(&t->name, NULL) ? FFAI_OK : FFAI_ENOMEM;
}

/* "a b" in two; not a version line, which is no merge. */
static bool halves(piece *a, piece *b) {
    const char *space = a->n ? (const char *)memchr(a->s, ' ', a->n) : NULL;
    if (!space || (a->n >= 8 && memcmp(a->s, "#version", 8) == 0)) return false;
    *b = (piece){space + 1, (size_t)(a->s + a->n - space) - 1};
    a->n = (size_t)(space - a->s);
    return !b->n || !memchr(b->s, ' ', b->n);
}

/* All merges, from the first quote on: ["a", "b"], ... or "a b", ... up to the end of the list. */
static int merge_list(cursor *c, void *g, bool pairs) {
    gap middle = {{0}, {0}, 0}, comma = middle;
    int rc;
    do {
        piece a, b;
        if (c->n_text > sizeof c->text / 2) {
            if ((rc = fa_tok_merges_flush(g, NULL))) return rc;
            c->n_text = 0;
        }
        if (!string(c, &a) || !(pairs ? take_gap(c, &middle, ",\"") && string(c, &b) : halves(&a, &b)))
            return FFAI_EFORMAT;
        const char *lim = c->n_text ? NULL : c->end;
        if ((rc = fa_tok_merge_pair(g, a.s, a.n, b.s, b.n, lim, NULL))) return rc;
    } while (take_gap(c, &comma, pairs ? "],[\"" : ",\""));
    return (pairs && !take(c, ']')) || !take(c, ']') ? FFAI_EFORMAT : FFAI_OK;
}

static int merges(cursor *c, fa_tok *t) {
    void *g;
    c->bad = !take(c, '[');
    bool pairs = !c->bad && take(c, '[');
    if (c->bad || !take(c, '"')) return c->bad = true, FFAI_OK;
    int rc = fa_tok_merges_begin(&g, t, (size_t)(c->end - c->p) / 16, NULL);
    rc = fa_tok_merges_end(g, rc ? rc : merge_list(c, g, pairs), NULL);
    c->bad = rc && rc != FFAI_ENOMEM;
    return c->bad ? FFAI_OK : rc;
}

/* ---- the file ---- */

/* Keys of the model in front of its vocabulary. */
static bool early_key(cursor *c, piece key, void *ctx) {
    piece s;
    if (is(key, "type")) return *(bool *)ctx = take(c, '"') && string(c, &s) && is(s, "BPE");
    return !is(key, "merges");
}

/* Between vocabulary and merges. */
static bool late_key(cursor *c, piece key, void *ctx) {
    (void)c, (void)ctx;
    return !is(key, "vocab");
}

typedef struct parts { /* where the two values lie */
    const char *vocab, *behind_vocab, *merges, *behind_merges;
    size_t n_tok;
} parts;

static int read_parts(cursor *c, fa_tok *t, parts *p) {
    bool bpe = false;
    int rc;
    c->bad = true;
    if (!take(c, '{') || !find_key(c, "model", NULL, NULL) || !take(c, '{') || !find_key(c, "vocab", early_key, &bpe) ||
        !bpe)
        return FFAI_OK;
    c->bad = false;
    skip_space(c);
    p->vocab = c->p;
    if ((rc = vocabulary(c, t, &p->n_tok)) || c->bad) return rc;
    p->behind_vocab = c->p;
    c->bad = !take(c, ',') || !find_key(c, "merges", late_key, NULL);
    if (c->bad) return FFAI_OK;
    skip_space(c);
    p->merges = c->p;
    rc = merges(c, t);
    p->behind_merges = c->p;
    return rc;
}

/* The file without what the two values hold. */
static int read_rest(fa_json **rest, const parts *p, const char *json, size_t len, const char *what) {
    fa_buf b = {0};
    fa_buf_reserve(&b, (size_t)(p->vocab - json) + (size_t)(p->merges - p->behind_vocab) +
                           (size_t)(json + len - p->behind_merges) + 8);
    fa_buf_add(&b, json, (size_t)(p->vocab - json));
    fa_buf_add(&b, "{}", 2);
    fa_buf_add(&b, p->behind_vocab, (size_t)(p->merges - p->behind_vocab));
    fa_buf_add(&b, "[]", 2);
    fa_buf_add(&b, p->behind_merges, (size_t)(json + len - p->behind_merges));
    int rc = b.failed ? FFAI_ENOMEM : fa_json_parse(rest, b.data, b.len, what, NULL);
    fa_buf_free(&b);
    return rc;
}

static size_t count_key(const fa_jnode *obj, const char *key) {
    size_t n = 0, len;
    for (const fa_jnode *v = fa_jfirst(obj); v; v = fa_jnext(v)) {
        const char *k = fa_jkey(v, &len);
        n += len == strlen(key) && memcmp(k, key, len) == 0;
    }
    return n;
}

/* What only the whole file tells: no key is there twice, nothing that the merges depend on came after them, and ids are
 * as dense as the slow way wants them. */
static bool accept(const fa_tok *t, const fa_json *rest, size_t n_tok) {
    const fa_jnode *r = fa_json_root(rest), *m = fa_jget(r, "model");
    const char *prefix = fa_jstr(fa_jget(m, "continuing_subword_prefix"), NULL);
    return count_key(r, "model") == 1 && count_key(m, "vocab") == 1 && count_key(m, "merges") == 1 &&
           count_key(m, "type") == 1 && (!prefix || !*prefix) &&
           t->name.n_id <= n_tok * 4 + fa_jlen(fa_jget(r, "added_tokens")) * 4 + FA_TOK_ID_SLACK;
}

int fa_tok_fast(fa_tok **out, fa_json **rest, const char *json, size_t len, const char *what, fa_error *err) {
    cursor *c = FA_NEW(cursor);
    fa_tok *t = c ? fa_tok_alloc(what) : NULL;
    fa_json *j = NULL;
    parts p = {NULL, NULL, NULL, NULL, 0};
    int rc = t ? FFAI_OK : FFAI_ENOMEM;
    if (t) {
        c->p = json;
        c->end = json + len;
        rc = read_parts(c, t, &p);
        if (!rc && !c->bad && (rc = read_rest(&j, &p, json, len, what)) && rc != FFAI_ENOMEM) {
            c->bad = true;
            rc = FFAI_OK;
        }
        if (rc || c->bad || !accept(t, j, p.n_tok)) {
            fa_json_free(j);
            fa_tok_free(t);
            j = NULL;
            t = NULL;
        }
    }
    fa_free(c);
    *out = t;
    *rest = j;
    return rc ? fa_fail(err, rc, "%s: no memory for the tokenizer", what) : FFAI_OK;
}
