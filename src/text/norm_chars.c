/* Normalizers that treat each character (or grapheme) by itself: the parts of BertNormalizer, Nmt, StripAccents,
 * Lowercase, ByteLevel, Precompiled. */
#include "text/norm_chars.h"
#include "text/ucd.h"
#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

/* ---- one character ---- */

static bool nmt_dropped(uint32_t cp) {
    return (cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F || cp == 0x8F || cp == 0x9F;
}

static bool nmt_space(uint32_t cp) {
    return cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 || (cp >= 0x200B && cp <= 0x200F) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD;
}

static uint32_t lower(uint32_t cp) {
    if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    size_t lo = 0, hi = fa_ucd_n_lower;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (fa_ucd_lower[mid][0] == cp) return fa_ucd_lower[mid][1];
        if (fa_ucd_lower[mid][0] < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

/* What becomes of one character s[0..n): appended to out. */
static void one(fa_norm_kind kind, uint32_t cp, const char *s, size_t n, fa_buf *out) {
    unsigned drop = kind == FA_NORM_CLEAN        ? FA_MORE_DROPPED
                    : kind == FA_NORM_DROP_MARKS ? FA_MORE_MARK
                                                 : FA_MORE_ACCENT;
    char c[4];
    switch (kind) {
    case FA_NORM_CLEAN:
        if (fa_ucd_more(cp) & FA_MORE_SPACE) {
            fa_buf_add(out, " ", 1);
            return;
        }
        break;
    case FA_NORM_NMT:
        if (nmt_dropped(cp)) return;
        fa_buf_add(out, nmt_space(cp) ? " " : s, nmt_space(cp) ? 1 : n);
        return;
    case FA_NORM_CHINESE:
        if (fa_ucd_more(cp) & FA_MORE_CHINESE) {
            fa_buf_add(out, " ", 1);
            fa_buf_add(out, s, n);
            fa_buf_add(out, " ", 1);
            return;
        }
        drop = 0;
        break;
    case FA_NORM_LOWER:
        if (cp == 0x130)
            fa_buf_add(out, "i\xCC\x87", 3); /* the one character whose lower case is two */
        else
            fa_buf_add(out, c, (size_t)fa_utf8_encode(lower(cp), c));
        return;
    case FA_NORM_BYTES:
        for (size_t i = 0; i < n; i++) fa_buf_add(out, c, (size_t)fa_char_of_byte((unsigned char)s[i], c));
        return;
    default: break;
    }
    if (!(fa_ucd_more(cp) & drop)) fa_buf_add(out, s, n);
}

/* Whether the step leaves ASCII characters as they are, all or none of those that are not listed here. */
static bool keeps_ascii(fa_norm_kind kind, unsigned char c) {
    switch (kind) {
    case FA_NORM_CLEAN:
    case FA_NORM_NMT: return c >= ' ' && c != 0x7F;
    case FA_NORM_CHINESE:
    case FA_NORM_DROP_MARKS:
    case FA_NORM_STRIP_ACCENTS: return true;
    case FA_NORM_LOWER: return c < 'A' || c > 'Z';
    default: return false;
    }
}

void fa_norm_chars(const fa_norm *m, const char *s, size_t n, fa_buf *out, size_t *zero) {
    size_t z = 0, len;
    if (!fa_buf_reserve(out, n + 1)) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i += len) {
        uint32_t cp;
        for (len = 0;
             i + len < n && (unsigned char)s[i + len] < 0x80 && keeps_ascii(m->kind, (unsigned char)s[i + len]);)
            len++;
        if (len) {
            fa_buf_add(out, s + i, len);
            if (*zero > i) z = out->len - (*zero < i + len ? i + len - *zero : 0);
            continue;
        }
        len = (size_t)fa_utf8_decode(s + i, n - i, &cp);
        one(m->kind, cp, s + i, len, out);
        if (*zero > i) z = out->len;
    }
    *zero = z;
}

/* ---- Precompiled ---- */

/* Which source character a written one is aligned to. The reference takes characters of the source one by one as it
 * writes, so what a rule leaves out at the very beginning shifts all that follows. */
typedef struct trace {
    const char *s;
    size_t n, at; /* the place in the source */
    size_t zero, out_zero;
} trace;

static void skip(trace *t, size_t chars) {
    while (chars-- && t->at < t->n)
        for (t->at++; t->at < t->n && ((unsigned char)t->s[t->at] & 0xC0) == 0x80;) t->at++;
}

static size_t count_chars(const char *s, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) k += ((unsigned char)s[i] & 0xC0) != 0x80;
    return k;
}

/* A part of the source has become to[0..n), at the end of what was written; `began` tells whether that was nothing. */
static void traced(trace *t, size_t old_chars, const char *to, size_t n, bool began) {
    size_t fresh = count_chars(to, n);
    if (t->at >= t->zero) return;
    if (!fresh && !began) return; /* nothing before it that could count for it */
    size_t replaced = fresh < old_chars ? fresh : old_chars;
    for (size_t i = 0; i < n; i++) {
        bool head = ((unsigned char)to[i] & 0xC0) != 0x80;
        if (head && replaced && t->at >= t->zero) return;
        t->out_zero++;
        bool last = i + 1 == n || ((unsigned char)to[i + 1] & 0xC0) != 0x80;
        if (last && replaced) {
            replaced--;
            skip(t, 1);
        }
    }
    if (fresh < old_chars) skip(t, old_chars - fresh);
}

/* End of the grapheme that begins at s[0..n). */
static size_t grapheme(const char *s, size_t n) {
    uint32_t a, b;
    utf8proc_int32_t state = 0;
    if (n > 1 && !((s[0] | s[1]) & 0x80) && *s != '\r') return 1;
    size_t len = (size_t)fa_utf8_decode(s, n, &a);
    while (len < n) {
        size_t k = (size_t)fa_utf8_decode(s + len, n - len, &b);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)a, (utf8proc_int32_t)b, &state)) break;
        a = b;
        len += k;
    }
    return len;
}

/* A grapheme of less than 6 bytes is replaced as a whole, by the shortest rule that it begins with; otherwise each of
 * its characters by itself, in the same way. */
bool fa_norm_precompiled(const fa_norm *m, const char *s, size_t n, fa_buf *out, size_t *zero) {
    enum { WHOLE = 6 };
    trace t = {s, n, 0, *zero, 0};
    bool changed = false;
    for (size_t i = 0, len; i < n; i += len) {
        const char *to;
        size_t n_to;
        len = grapheme(s + i, n - i);
        if (len < WHOLE && fa_charsmap_shortest(m->map, s + i, len, &to, &n_to)) {
            traced(&t, count_chars(s + i, len), to, n_to, out->len > 0);
            fa_buf_add(out, to, n_to);
            changed = true;
            continue;
        }
        for (size_t k = i, c; k < i + len; k += c) {
            uint32_t cp;
            c = (size_t)fa_utf8_decode(s + k, i + len - k, &cp);
            to = s + k;
            n_to = c;
            if (fa_charsmap_shortest(m->map, s + k, c, &to, &n_to)) changed = true;
            traced(&t, 1, to, n_to, out->len > 0);
            fa_buf_add(out, to, n_to);
        }
    }
    if (changed) *zero = t.out_zero;
    return changed;
}
