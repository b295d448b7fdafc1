/* precompiled_charsmap of SentencePiece: checked once, then walked. */
#include "text/charsmap.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

struct fa_charsmap {
    uint32_t *unit;
    size_t n_unit;
    char *text; /* replacements, each with its NUL */
    size_t n_text;
};

/* ---- units of the double array ---- */

static inline bool has_leaf(uint32_t u) { return u >> 8 & 1; }
static inline uint32_t value(uint32_t u) { return u & 0x7FFFFFFFu; }
static inline uint32_t label(uint32_t u) { return u & 0x800000FFu; }
static inline uint32_t offset(uint32_t u) { return (u >> 10) << ((u & 0x200u) >> 6); }

static uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Every unit leads into the array, every value to the first byte of a character of the replacements. */
static int check(const fa_charsmap *m, const char *what, const char *key, fa_error *err) {
    for (size_t i = 0; i < m->n_text;) {
        uint32_t cp;
        size_t k = (size_t)fa_utf8_decode(m->text + i, m->n_text - i, &cp);
        if (cp == 0xFFFD && !(k == 3 && memcmp(m->text + i, "\xEF\xBF\xBD", 3) == 0))
            return fa_fail(err, FFAI_EFORMAT, "%s: %s: the replacements are not UTF-8 at byte %zu", what, key, i);
        i += k;
    }
    for (size_t i = 0; i < m->n_unit; i++) {
        uint32_t u = m->unit[i];
        if (u >> 31) {
            if (value(u) >= m->n_text || ((uint8_t)m->text[value(u)] & 0xC0) == 0x80)
                return fa_fail(err, FFAI_EFORMAT, "%s: %s: unit %zu has no replacement at byte %u", what, key, i,
                               (unsigned)value(u));
        } else if ((i ^ offset(u)) >= m->n_unit) {
            return fa_fail(err, FFAI_EFORMAT, "%s: %s: unit %zu leads to unit %zu of %zu", what, key, i,
                           (size_t)(i ^ offset(u)), m->n_unit);
        }
    }
    return FFAI_OK;
}

int fa_charsmap_new(fa_charsmap **out, const void *data, size_t n, const char *what, const char *key, fa_error *err) {
    const uint8_t *p = (const uint8_t *)data;
    fa_charsmap *m = *out = NULL;
    size_t bytes = n >= 4 ? load32(p) : 0;
    if (n && (n < 4 || bytes > n - 4 || bytes % 4 != 0 || !bytes))
        return fa_fail(err, FFAI_EFORMAT, "%s: %s: %zu bytes cannot hold a double array of %zu bytes", what, key, n,
                       bytes);
    m = FA_NEW(fa_charsmap);
    if (m && n) {
        m->n_unit = bytes / 4;
        m->n_text = n - 4 - bytes;
        m->unit = FA_NEWN(uint32_t, m->n_unit);
        m->text = FA_NEWN(char, m->n_text + 1);
    }
    if (!m || (n && (!m->unit || !m->text))) {
        fa_charsmap_free(m);
        return fa_fail(err, FFAI_ENOMEM, "%s: %s: no memory for %zu bytes", what, key, n);
    }
    for (size_t i = 0; i < m->n_unit; i++) m->unit[i] = load32(p + 4 + 4 * i);
    if (m->n_text) memcpy(m->text, p + 4 + bytes, m->n_text);
    int rc = check(m, what, key, err);
    if (rc) {
        fa_charsmap_free(m);
        return rc;
    }
    *out = m;
    return FFAI_OK;
}

void fa_charsmap_free(fa_charsmap *m) {
    if (!m) return;
    fa_free(m->unit);
    fa_free(m->text);
    fa_free(m);
}

/* ---- base64 ---- */

static int six(char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Bytes written to out (room for n / 4 * 3), or SIZE_MAX with the place of the fault in *at. */
static size_t decode64(const char *s, size_t n, uint8_t *out, size_t *at) {
    size_t k = 0, pad = n && s[n - 1] == '=' ? 1 + (n > 1 && s[n - 2] == '=') : 0;
    *at = n;
    if (n % 4 != 0) return SIZE_MAX;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t v = 0;
        size_t here = i + 4 == n ? 4 - pad : 4;
        for (size_t j = 0; j < 4; j++) {
            int x = j < here ? six(s[i + j]) : 0;
            if (x < 0) return *at = i + j, SIZE_MAX;
            v = v << 6 | (uint32_t)x;
        }
        if (v & ((1u << (4 - here) * 8) - 1)) return *at = i, SIZE_MAX; /* bits behind the end */
        for (size_t j = 0; j + 1 < here; j++) out[k++] = (uint8_t)(v >> (16 - 8 * j));
    }
    return k;
}

int fa_charsmap_from_base64(fa_charsmap **out, const char *text, size_t n, const char *what, const char *key,
                            fa_error *err) {
    size_t at;
    *out = NULL;
    uint8_t *raw = FA_NEWN(uint8_t, n / 4 * 3 + 1);
    if (!raw) return fa_fail(err, FFAI_ENOMEM, "%s: %s: no memory for %zu bytes", what, key, n);
    size_t k = decode64(text, n, raw, &at);
    int rc = k == SIZE_MAX ? fa_fail(err, FFAI_EFORMAT, "%s: %s is not base64 at character %zu", what, key, at)
                           : fa_charsmap_new(out, raw, k, what, key, err);
    fa_free(raw);
    return rc;
}

/* ---- look-up ---- */

static size_t walk(const fa_charsmap *m, const char *s, size_t n, const char **to, size_t *n_to, bool longest) {
    size_t found = 0;
    uint32_t at;
    if (!m->n_unit) return 0;
    at = offset(m->unit[0]);
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)s[i];
        at ^= c;
        if (!c || at >= m->n_unit || label(m->unit[at]) != c) break;
        uint32_t u = m->unit[at];
        at ^= offset(u);
        if (at >= m->n_unit) break;
        if (!has_leaf(u) || value(m->unit[at]) >= m->n_text) continue;
        *to = m->text + value(m->unit[at]);
        found = i + 1;
        if (!longest) break;
    }
    if (found) *n_to = strlen(*to);
    return found;
}

size_t fa_charsmap_longest(const fa_charsmap *m, const char *s, size_t n, const char **to, size_t *n_to) {
    return walk(m, s, n, to, n_to, true);
}

size_t fa_charsmap_shortest(const fa_charsmap *m, const char *s, size_t n, const char **to, size_t *n_to) {
    return walk(m, s, n, to, n_to, false);
}
