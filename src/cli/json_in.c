/* The decoder of one JSON string. Works in place: no escape is shorter than what it stands for. */
#include "cli/json_in.h"

#include <stdint.h>
#include <string.h>

static bool hex4(const char *s, uint32_t *v) {
    *v = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        uint32_t d;
        if (c >= '0' && c <= '9')
            d = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            d = (uint32_t)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            d = (uint32_t)(c - 'A' + 10);
        else
            return false;
        *v = *v << 4 | d;
    }
    return true;
}

static char *put_utf8(char *w, uint32_t cp) {
    if (cp < 0x80) {
        *w++ = (char)cp;
    } else if (cp < 0x800) {
        *w++ = (char)(0xC0 | cp >> 6);
        *w++ = (char)(0x80 | (cp & 0x3F));
    } else if (cp < 0x10000) {
        *w++ = (char)(0xE0 | cp >> 12);
        *w++ = (char)(0x80 | (cp >> 6 & 0x3F));
        *w++ = (char)(0x80 | (cp & 0x3F));
    } else {
        *w++ = (char)(0xF0 | cp >> 18);
        *w++ = (char)(0x80 | (cp >> 12 & 0x3F));
        *w++ = (char)(0x80 | (cp >> 6 & 0x3F));
        *w++ = (char)(0x80 | (cp & 0x3F));
    }
    return w;
}

/* \uXXXX at s[0..n) (s[0] is the u); returns the bytes read, 0 if it is malformed. */
static size_t unicode_escape(const char *s, size_t n, uint32_t *cp) {
    uint32_t low;
    if (n < 5 || !hex4(s + 1, cp)) return 0;
    if (*cp >= 0xD800 && *cp < 0xDC00 && n >= 11 && s[5] == '\\' && s[6] == 'u' && hex4(s + 7, &low) && low >= 0xDC00 &&
        low < 0xE000) {
        *cp = 0x10000 + ((*cp - 0xD800) << 10) + (low - 0xDC00);
        return 11;
    }
    if (*cp >= 0xD800 && *cp < 0xE000) *cp = 0xFFFD;
    return 5;
}

bool json_in_string(char *s, size_t n, char **out, size_t *len) {
    while (n && strchr(" \t\r\n", s[n - 1]) && s[n - 1]) n--;
    while (n && (*s == ' ' || *s == '\t')) s++, n--;
    if (n < 2 || s[0] != '"' || s[n - 1] != '"') return false;
    char *w = s + 1;
    for (size_t i = 1; i < n - 1;) {
        char c = s[i++];
        if (c == '"' || (unsigned char)c < 0x20) return false;
        if (c != '\\') {
            *w++ = c;
            continue;
        }
        if (i >= n - 1) return false;
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *at = s[i] ? strchr(from, s[i]) : NULL;
        uint32_t cp;
        size_t used = 1;
        if (at)
            *w++ = to[at - from];
        else if (s[i] == 'u' && (used = unicode_escape(s + i, n - 1 - i, &cp)) != 0)
            w = put_utf8(w, cp);
        else
            return false;
        i += used;
    }
    *out = s + 1;
    *len = (size_t)(w - (s + 1));
    return true;
}
