/* UTF-8 decoding and encoding (Unicode 15, table 3-7). */
#include "base/utf8.h"

/* Length of the sequence that lead byte c begins (0 = none), and the range its second byte must lie in. */
static int lead(unsigned c, unsigned *lo, unsigned *hi) {
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80) return 1;
    if (c < 0xC2 || c > 0xF4) return 0;
    if (c < 0xE0) return 2;
    if (c == 0xE0) *lo = 0xA0;
    if (c == 0xED) *hi = 0x9F;
    if (c < 0xF0) return 3;
    if (c == 0xF0) *lo = 0x90;
    if (c == 0xF4) *hi = 0x8F;
    return 4;
}

int fa_utf8_decode(const char *s, size_t n, uint32_t *cp) {
    const unsigned char *p = (const unsigned char *)s;
    unsigned lo, hi;
    int len = lead(p[0], &lo, &hi);
    *cp = 0xFFFD;
    if (len == 1) *cp = p[0];
    if (len <= 1) return 1;
    uint32_t v = p[0] & (0x7Fu >> len);
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n || p[i] < lo || p[i] > hi) return i;
        v = v << 6 | (p[i] & 0x3F);
        lo = 0x80;
        hi = 0xBF;
    }
    *cp = v;
    return len;
}

int fa_utf8_encode(uint32_t cp, char *out) {
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000)) cp = 0xFFFD;
    if (cp < 0x80) return out[0] = (char)cp, 1;
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)((0xF00u >> len & 0xF0) | cp);
    return len;
}

size_t fa_utf8_partial_tail(const char *s, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const char *p = s + n - back;
        unsigned lo, hi;
        int len = lead((unsigned char)*p, &lo, &hi);
        if (len == 0) continue; /* a continuation byte: look further back */
        uint32_t cp;
        return (size_t)len > back && (size_t)fa_utf8_decode(p, back, &cp) == back ? back : 0;
    }
    return 0;
}
