/* GBNF, llama.cpp's grammar notation. */
#include "text/grammar/gram_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

typedef struct reader {
    fa_gb *b;
    const char *s;
    size_t n, i;
    fa_smap names; /* -> rule */
    int depth;
} reader;

static int at(const reader *r, size_t k) { return r->i + k < r->n ? (unsigned char)r->s[r->i + k] : -1; }

static bool is_word(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Spaces and comments; line ends too where they mean nothing. */
static void space(reader *r, bool lines) {
    for (int c = at(r, 0); c == ' ' || c == '\t' || c == '#' || (lines && (c == '\r' || c == '\n')); c = at(r, 0)) {
        r->i++;
        while (c == '#' && at(r, 0) != -1 && at(r, 0) != '\r' && at(r, 0) != '\n') r->i++;
    }
}

static uint32_t fail(reader *r, const char *what) {
    int c = at(r, 0);
    if (c < 0) return fa_gb_fail(r->b, FFAI_EFORMAT, r->i, "%s, not the end of the text", what);
    if (c == '\n' || c == '\r') return fa_gb_fail(r->b, FFAI_EFORMAT, r->i, "%s, not the end of the line", what);
    uint32_t cp;
    int k = fa_utf8_decode(r->s + r->i, r->n - r->i, &cp);
    return fa_gb_fail(r->b, FFAI_EFORMAT, r->i, "%s, not \"%.*s\"", what, cp == 0xFFFD ? 0 : k, r->s + r->i);
}

static int hex(int c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* One character of a literal or a class. */
static uint32_t character(reader *r) {
    uint32_t cp = 0;
    size_t from = r->i;
    if (at(r, 0) != '\\') {
        int k = fa_utf8_decode(r->s + r->i, r->n - r->i, &cp);
        if (cp == 0xFFFD && k < 3) fa_gb_fail(r->b, FFAI_EFORMAT, r->i, "not UTF-8");
        r->i += (size_t)k;
        return cp;
    }
    int c = at(r, 1), digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    r->i += 2;
    for (int k = 0; k < digits; k++, r->i++) {
        int h = hex(at(r, 0));
        if (h < 0) return fa_gb_fail(r->b, FFAI_EFORMAT, from, "\\%c needs %d hexadecimal digits", c, digits);
        cp = cp << 4 | (uint32_t)h;
    }
    if (digits) {
        if (cp > 0x10FFFF) return fa_gb_fail(r->b, FFAI_EFORMAT, from, "there is no character U+%X", (unsigned)cp);
        return cp;
    }
    switch (c) {
    case 't': return '\t';
    case 'r': return '\r';
    case 'n': return '\n';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^': return (uint32_t)c;
    default: break;
    }
    r->i = from;
    return fa_gb_fail(r->b, FFAI_EFORMAT, from,
                      "unknown escape; there are \\x \\u \\U \\t \\r \\n \\\\ \\\" \\[ \\] \\- \\^");
}

static bool surrogate(uint32_t cp) { return cp >= 0xD800 && cp <= 0xDFFF; }

static uint32_t literal(reader *r) {
    size_t from = r->i++;
    fa_buf text = {0};
    while (!r->b->rc && at(r, 0) != '"') {
        char s[4];
        size_t c = r->i;
        if (at(r, 0) < 0) {
            fa_gb_fail(r->b, FFAI_EFORMAT, from, "a literal that is not closed");
            break;
        }
        uint32_t cp = character(r);
        if (surrogate(cp)) fa_gb_fail(r->b, FFAI_EFORMAT, c, "U+%04X is no character of its own", (unsigned)cp);
        fa_buf_add(&text, s, (size_t)fa_utf8_encode(cp, s));
    }
    r->i++;
    if (text.failed) fa_gb_nomem(r->b);
    uint32_t x = r->b->rc ? 0 : fa_gx_lit(r->b, text.data, text.len, from);
    fa_buf_free(&text);
    return x;
}

static uint32_t char_class(reader *r) {
    size_t from = r->i++, n = 0, cap = 0;
    uint32_t(*set)[2] = NULL;
    bool negate = at(r, 0) == '^';
    r->i += negate;
    while (!r->b->rc && at(r, 0) != ']') {
        if (at(r, 0) < 0) {
            fa_gb_fail(r->b, FFAI_EFORMAT, from, "a character class that is not closed");
            break;
        }
        if (n + 2 > cap) {
            cap = cap ? cap * 2 : 16;
            void *p = fa_realloc(set, cap, sizeof *set);
            if (!p) {
                fa_gb_nomem(r->b);
                break;
            }
            set = (uint32_t(*)[2])p;
        }
        size_t c = r->i;
        uint32_t lo = character(r), hi = lo;
        if (!r->b->rc && at(r, 0) == '-' && at(r, 1) != ']' && at(r, 1) >= 0) {
            r->i++;
            hi = character(r);
        }
        if (lo > hi) fa_gb_fail(r->b, FFAI_EFORMAT, c, "a range that ends before it begins");
        set[n][0] = lo;
        set[n++][1] = hi;
    }
    if (!r->b->rc && !n) fa_gb_fail(r->b, FFAI_EFORMAT, from, "an empty character class");
    r->i++;
    uint32_t x = r->b->rc ? 0 : fa_gx_set(r->b, set, n, negate, from);
    fa_free(set);
    return x;
}

/* <[12]>, <text>, and either with ! in front. */
static uint32_t token(reader *r) {
    const fa_vocab *v = r->b->v;
    size_t from = r->i;
    bool negate = at(r, 0) == '!';
    int64_t id = -1;
    r->i += negate;
    if (at(r, 0) != '<') return fail(r, "a token in angle brackets is wanted behind \"!\"");
    size_t open = r->i;
    while (at(r, 0) >= 0 && at(r, 0) != '>' && at(r, 0) != '\n') r->i++;
    if (at(r, 0) != '>') return fa_gb_fail(r->b, FFAI_EFORMAT, from, "a token that is not closed by \">\"");
    r->i++;
    const char *p = r->s + open;
    size_t n = r->i - open;
    if (n > 4 && p[1] == '[' && p[n - 2] == ']') {
        id = 0;
        for (size_t k = 2; k + 2 < n && id >= 0; k++)
            id = p[k] < '0' || p[k] > '9' || id > INT32_MAX / 10 ? -1 : id * 10 + (p[k] - '0');
        if (id < 0) return fa_gb_fail(r->b, FFAI_EFORMAT, from, "\"%.*s\" is no token id", (int)(n < 40 ? n : 40), p);
        if ((size_t)id >= v->n_id)
            return fa_gb_fail(r->b, FFAI_EINVAL, from, "there is no token %lld: the vocabulary has %zu", (long long)id,
                              v->n_id);
    } else {
        id = v->tok ? fa_tok_id(v->tok, p, n) : -1;
        if (id < 0 || (size_t)id >= v->n_id)
            return fa_gb_fail(r->b, FFAI_EINVAL, from, "the vocabulary has no token \"%.*s\"", (int)(n < 80 ? n : 80),
                              p);
    }
    uint32_t x = fa_gx_new(r->b, negate ? FA_GX_NOT_TOKEN : FA_GX_TOKEN, from);
    if (x) r->b->x[x].a = (uint32_t)id;
    return x;
}

static uint32_t rule_of(reader *r, const char *name, size_t n, size_t place) {
    uint32_t k;
    if (fa_smap_get(&r->names, name, n, &k)) return k;
    k = fa_gb_rule(r->b, name, n, place);
    if (!r->b->rc && fa_smap_put(&r->names, name, n, k) < 0) fa_gb_nomem(r->b);
    return k;
}

static size_t name(reader *r) {
    size_t n = 0;
    while (is_word(at(r, n))) n++;
    return n;
}

static bool number(reader *r, uint32_t *out) {
    uint64_t n = 0;
    size_t from = r->i;
    while (at(r, 0) >= '0' && at(r, 0) <= '9' && n <= INT32_MAX) n = n * 10 + (uint64_t)(r->s[r->i++] - '0');
    if (r->i == from) return fail(r, "a number is wanted"), false;
    if (n > INT32_MAX) {
        fa_gb_fail(r->b, FFAI_ELIMIT, from, "a repetition of more than %d", INT32_MAX);
        return false;
    }
    *out = (uint32_t)n;
    return true;
}

/* * + ? {m} {m,} {m,n} {,n} behind an item; 0 after a failure. */
static uint32_t repeated(reader *r, uint32_t x, bool lines) {
    size_t from = r->i;
    uint32_t min = 0, max = FA_GX_INF;
    int c = at(r, 0);
    r->i++;
    if (c == '+') min = 1;
    if (c == '?') max = 1;
    if (c == '{') {
        space(r, lines);
        if (at(r, 0) != ',' && !number(r, &min)) return 0;
        space(r, lines);
        max = min;
        if (at(r, 0) == ',') {
            r->i++;
            space(r, lines);
            max = FA_GX_INF;
            if (at(r, 0) != '}' && !number(r, &max)) return 0;
            space(r, lines);
        }
        if (at(r, 0) != '}') return fail(r, "\"}\" is wanted");
        r->i++;
        if (min > max) return fa_gb_fail(r->b, FFAI_EFORMAT, from, "a repetition from %u to %u", min, max);
    }
    return fa_gx_rep(r->b, x, min, max, from);
}

static uint32_t alternatives(reader *r, bool nested);

static uint32_t item(reader *r) {
    int c = at(r, 0);
    if (c == '"') return literal(r);
    if (c == '[') return char_class(r);
    if (c == '<' || c == '!') return token(r);
    if (c == '.') {
        uint32_t any[2][2] = {{0, 0x10FFFF}};
        return fa_gx_set(r->b, any, 1, false, r->i++);
    }
    if (c == '(') {
        size_t from = r->i++;
        if (++r->depth > FA_GX_MAX_DEPTH) return fa_gb_fail(r->b, FFAI_ELIMIT, from, "brackets nest too deep");
        space(r, true);
        uint32_t x = alternatives(r, true);
        if (!r->b->rc && at(r, 0) != ')') return fail(r, "\")\" is wanted");
        r->i++;
        r->depth--;
        return x;
    }
    size_t n = name(r), from = r->i;
    uint32_t rule = rule_of(r, r->s + r->i, n, from);
    r->i += n;
    return fa_gx_rule(r->b, rule, from);
}

static bool begins_item(int c) {
    return c == '"' || c == '[' || c == '<' || c == '!' || c == '.' || c == '(' || is_word(c);
}

static uint32_t sequence(reader *r, bool nested) {
    uint32_t seq = fa_gx_new(r->b, FA_GX_SEQ, r->i);
    while (!r->b->rc && begins_item(at(r, 0))) {
        uint32_t x = item(r);
        int times = 0;
        if (r->b->rc) return 0;
        space(r, nested);
        for (int c = at(r, 0); !r->b->rc && (c == '*' || c == '+' || c == '?' || c == '{'); c = at(r, 0)) {
            if (++times > FA_GX_MAX_REPEATS)
                return fa_gb_fail(r->b, FFAI_ELIMIT, r->i, "too many repetitions of one item");
            x = repeated(r, x, nested);
            space(r, nested);
        }
        fa_gx_add(r->b, seq, x);
    }
    int c = at(r, 0);
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return fa_gb_fail(r->b, FFAI_EFORMAT, r->i, "\"%c\" has nothing in front that it could repeat", c);
    return seq;
}

static uint32_t alternatives(reader *r, bool nested) {
    uint32_t alt = fa_gx_new(r->b, FA_GX_ALT, r->i);
    fa_gx_add(r->b, alt, sequence(r, nested));
    while (!r->b->rc && at(r, 0) == '|') {
        r->i++;
        space(r, true);
        fa_gx_add(r->b, alt, sequence(r, nested));
    }
    return alt;
}

static void rule(reader *r) {
    size_t from = r->i, n = name(r);
    const char *s = r->s + r->i;
    if (!n) {
        fail(r, "the name of a rule is wanted");
        return;
    }
    uint32_t k = rule_of(r, s, n, from);
    r->i += n;
    space(r, false);
    if (at(r, 0) != ':' || at(r, 1) != ':' || at(r, 2) != '=') {
        fail(r, "\"::=\" is wanted");
        return;
    }
    r->i += 3;
    space(r, true);
    uint32_t body = alternatives(r, false);
    if (r->b->rc) return;
    if (at(r, 0) != -1 && at(r, 0) != '\n' && at(r, 0) != '\r') {
        fail(r, "the end of the line is wanted");
        return;
    }
    if (r->b->rule[k].body) {
        fa_gb_fail(r->b, FFAI_EFORMAT, from, "rule \"%.*s\" is defined twice", (int)(n < 100 ? n : 100), s);
        return;
    }
    r->b->rule[k].body = body;
    r->b->rule[k].at = (uint32_t)from;
}

void fa_gbnf_read(fa_gb *b) {
    reader r = {.b = b, .s = b->text, .n = b->len};
    uint32_t root;
    for (space(&r, true); !b->rc && r.i < r.n; space(&r, true)) rule(&r);
    for (size_t i = 0; i < b->n_rule && !b->rc; i++) {
        const fa_grule *g = &b->rule[i];
        if (!g->body)
            fa_gb_fail(b, FFAI_EFORMAT, g->at, "rule \"%.*s\" is not defined", (int)(g->n_name < 100 ? g->n_name : 100),
                       g->name);
    }
    if (!b->rc && !fa_smap_get(&r.names, "root", 4, &root))
        fa_gb_fail(b, FFAI_EFORMAT, SIZE_MAX, "there is no rule \"root\"");
    if (!b->rc) b->root = root;
    fa_smap_free(&r.names);
}
