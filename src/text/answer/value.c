/* Values as models write them (JSON, Python literals, Gemma's notation), read and written as JSON in one pass. */
#include "text/answer/answer_int.h"
#include "base/utf8.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 128 };

const fa_ans_dialect fa_ans_json = {0};
const fa_ans_dialect fa_ans_python = {.python = true};

typedef struct reader {
    const fa_ans_dialect *d;
    const char *s;
    size_t n, i;
    fa_buf *out;
    int depth;
} reader;

static bool value(reader *r);

bool fa_ans_is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

size_t fa_ans_space(const char *s, size_t n, size_t i) {
    while (i < n && fa_ans_is_space(s[i])) i++;
    return i;
}

static bool at(const reader *r, const char *word) {
    size_t n = strlen(word);
    return r->n - r->i >= n && memcmp(r->s + r->i, word, n) == 0;
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c & 0x80);
}

/* ---- strings ---- */

static void put_escaped(fa_buf *out, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    char e[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    switch (c) {
    case '"': fa_buf_add(out, "\\\"", 2); return;
    case '\\': fa_buf_add(out, "\\\\", 2); return;
    case '\n': fa_buf_add(out, "\\n", 2); return;
    case '\r': fa_buf_add(out, "\\r", 2); return;
    case '\t': fa_buf_add(out, "\\t", 2); return;
    case '\b': fa_buf_add(out, "\\b", 2); return;
    case '\f': fa_buf_add(out, "\\f", 2); return;
    default: fa_buf_add(out, e, 6);
    }
}

/* Bytes of a string into out: as they are, or escaped for JSON. */
static void put(fa_buf *out, bool json, const char *s, size_t n) {
    size_t from = 0;
    for (size_t i = 0; json && i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        fa_buf_add(out, s + from, i - from);
        put_escaped(out, c);
        from = i + 1;
    }
    fa_buf_add(out, s + from, n - from);
}

void fa_ans_quoted(fa_buf *out, const char *s, size_t n) {
    fa_buf_add(out, "\"", 1);
    put(out, true, s, n);
    fa_buf_add(out, "\"", 1);
}

/* digits hexadecimal digits at r->i; false when they are not there. */
static bool hex(reader *r, int digits, uint32_t *v) {
    *v = 0;
    if (r->n - r->i < (size_t)digits) return false;
    for (int k = 0; k < digits; k++) {
        char c = r->s[r->i + (size_t)k];
        uint32_t h = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 99;
        if (h > 15) return false;
        *v = *v << 4 | h;
    }
    r->i += (size_t)digits;
    return true;
}

/* What follows a backslash. Surrogates that have no partner become U+FFFD. */
static bool escape(reader *r, bool json) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->i >= r->n) return false;
    char c = r->s[r->i++], utf8[4];
    const char *k = c ? strchr(from, c) : NULL;
    if (k) return put(r->out, json, &to[k - from], 1), true;
    uint32_t cp = 0, low;
    if (c == 'u') {
        if (!hex(r, 4, &cp)) return false;
        if (cp >= 0xD800 && cp < 0xDC00 && at(r, "\\u")) {
            size_t back = r->i;
            r->i += 2;
            if (!hex(r, 4, &low)) return false;
            if (low >= 0xDC00 && low < 0xE000)
                cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
            else
                r->i = back;
        }
    } else if (!r->d->python) {
        return false;
    } else if (c == 'x' || c == 'U') {
        if (!hex(r, c == 'x' ? 2 : 8, &cp)) return false;
    } else if (c == '\'') {
        cp = '\'';
    } else if (c == '0') {
        cp = 0;
    } else if (c == '\n') {
        return true;
    } else { /* Python keeps what it does not know */
        put(r->out, json, "\\", 1);
        put(r->out, json, &c, 1);
        return true;
    }
    put(r->out, json, utf8, (size_t)fa_utf8_encode(cp, utf8));
    return true;
}

/* A string between quotes; control characters in it are taken as meant. */
static bool string(reader *r, bool json) {
    const char *q = r->d->quote;
    if (q && at(r, q)) {
        size_t n = strlen(q);
        const char *from = r->s + (r->i += n), *end = r->s + r->n, *p = from;
        while (p && (size_t)(end - p) >= n && memcmp(p, q, n) != 0) {
            p = (const char *)memchr(p + 1, q[0], (size_t)(end - p - 1));
        }
        if (!p || (size_t)(end - p) < n) return false;
        put(r->out, json, from, (size_t)(p - from));
        r->i = (size_t)(p - r->s) + n;
        return true;
    }
    if (r->i >= r->n) return false;
    char c = r->s[r->i];
    if (c != '"' && !(c == '\'' && r->d->python)) return false;
    for (size_t from = ++r->i; r->i < r->n;) {
        char k = r->s[r->i++];
        if (k != c && k != '\\') continue;
        put(r->out, json, r->s + from, r->i - 1 - from);
        if (k == c) return true;
        if (!escape(r, json)) return false;
        from = r->i;
    }
    return false;
}

bool fa_ans_string(const fa_ans_dialect *d, const char *s, size_t n, size_t *i, fa_buf *out) {
    reader r = {d, s, n, *i, out, 0};
    bool good = string(&r, false);
    *i = r.i;
    return good && !out->failed;
}

/* ---- the rest ---- */

static size_t digits(const reader *r, size_t i) {
    size_t from = i;
    while (i < r->n && r->s[i] >= '0' && r->s[i] <= '9') i++;
    return i - from;
}

/* Whether readers of JSON take it: those beyond a double they refuse, or make infinite. */
static bool fits(reader *r, size_t n) {
    fa_json *j;
    int rc = fa_json_parse(&j, r->s + r->i, n, "number", NULL);
    r->out->failed |= rc == FFAI_ENOMEM;
    fa_json_free(j);
    return rc == 0;
}

/* A number in JSON's grammar, copied as it is spelled. */
static bool number(reader *r) {
    enum { SURE = 300 }; /* digits that fit without an exponent */
    size_t i = r->i, k;
    bool big = false;
    if (i < r->n && r->s[i] == '-') i++;
    k = digits(r, i);
    if (k == 0 || (k > 1 && r->s[i] == '0')) return false;
    i += k;
    if (i < r->n && r->s[i] == '.') {
        if ((k = digits(r, i + 1)) == 0) return false;
        i += 1 + k;
    }
    if (i < r->n && (r->s[i] == 'e' || r->s[i] == 'E')) {
        i++;
        if (i < r->n && (r->s[i] == '+' || r->s[i] == '-')) i++;
        if ((k = digits(r, i)) == 0) return false;
        i += k;
        big = true;
    }
    big |= i - r->i > SURE;
    if (big && !fits(r, i - r->i)) return false;
    if (i < r->n && is_word(r->s[i])) return false;
    fa_buf_add(r->out, r->s + r->i, i - r->i);
    r->i = i;
    return true;
}

static bool literal(reader *r) {
    static const struct {
        const char *word, *json;
        bool python;
    } words[] = {{"true", "true", false}, {"false", "false", false}, {"null", "null", false},
                 {"True", "true", true},  {"False", "false", true},  {"None", "null", true}};
    for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
        size_t n = strlen(words[k].word);
        if (!at(r, words[k].word) || (words[k].python && !r->d->python && !r->d->none)) continue;
        if (r->i + n < r->n && is_word(r->s[r->i + n])) return false;
        fa_buf_puts(r->out, words[k].json);
        r->i += n;
        return true;
    }
    return false;
}

/* A word without quotes, up to what can only be the end of a value or a key. */
static bool word(reader *r, bool key) {
    size_t from = r->i, end;
    while (r->i < r->n && !strchr(key ? ":{}[],\"'" : ",{}[]\"", r->s[r->i]) && r->s[r->i]) r->i++;
    for (end = r->i; end > from && fa_ans_is_space(r->s[end - 1]);) end--;
    if (end == from) return false;
    fa_ans_quoted(r->out, r->s + from, end - from);
    return true;
}

static bool key(reader *r) {
    char c = r->i < r->n ? r->s[r->i] : 0;
    bool quoted = c == '"' || (c == '\'' && r->d->python) || (r->d->quote && at(r, r->d->quote));
    if (!quoted) return r->d->bare && word(r, true);
    fa_buf_add(r->out, "\"", 1);
    if (!string(r, true)) return false;
    fa_buf_add(r->out, "\"", 1);
    return true;
}

/* Members or elements up to the bracket `end`. */
static bool list(reader *r, char end, bool object) {
    fa_buf_add(r->out, object ? "{" : "[", 1);
    for (size_t k = 0;; k++) {
        r->i = fa_ans_space(r->s, r->n, r->i);
        if (r->i >= r->n) return false;
        if (r->s[r->i] == end && (k == 0 || r->d->python)) break;
        if (k) fa_buf_add(r->out, ", ", 2);
        if (object) {
            if (!key(r)) return false;
            r->i = fa_ans_space(r->s, r->n, r->i);
            if (r->i >= r->n || r->s[r->i++] != ':') return false;
            fa_buf_add(r->out, ": ", 2);
        }
        if (!value(r)) return false;
        r->i = fa_ans_space(r->s, r->n, r->i);
        if (r->i >= r->n) return false;
        if (r->s[r->i] == end) break;
        if (r->s[r->i++] != ',') return false;
    }
    r->i++;
    fa_buf_add(r->out, object ? "}" : "]", 1);
    return true;
}

static bool value(reader *r) {
    r->i = fa_ans_space(r->s, r->n, r->i);
    if (r->i >= r->n || r->out->failed) return false;
    char c = r->s[r->i];
    bool good;
    if (c == '{' || c == '[' || (c == '(' && r->d->python)) {
        if (++r->depth > MAX_DEPTH) return false;
        r->i++;
        good = list(r, c == '{' ? '}' : c == '[' ? ']' : ')', c == '{');
        r->depth--;
        return good;
    }
    if (c == '"' || (c == '\'' && r->d->python) || (r->d->quote && at(r, r->d->quote))) {
        fa_buf_add(r->out, "\"", 1);
        good = string(r, true);
        fa_buf_add(r->out, "\"", 1);
        return good;
    }
    return number(r) || literal(r) || (r->d->bare && word(r, false));
}

bool fa_ans_value(const fa_ans_dialect *d, const char *s, size_t n, size_t *i, fa_buf *out) {
    reader r = {d, s, n, *i, out, 0};
    bool good = value(&r);
    *i = r.i;
    return good && !out->failed;
}

bool fa_ans_whole(const fa_ans_dialect *d, const char *s, size_t n, fa_buf *out) {
    size_t i = 0;
    return fa_ans_value(d, s, n, &i, out) && fa_ans_space(s, n, i) == n;
}
