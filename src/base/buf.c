/* The growing byte buffer. */
#include "base/buf.h"
#include "base/alloc.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

void fa_buf_free(fa_buf *b) {
    fa_free(b->data);
    memset(b, 0, sizeof *b);
}

bool fa_buf_reserve(fa_buf *b, size_t extra) {
    if (b->failed) return false;
    if (extra >= SIZE_MAX / 2 - b->len) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + extra + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) cap *= 2;
    char *p = (char *)fa_realloc(b->data, cap, 1);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    b->data[b->len] = 0;
    return true;
}

void fa_buf_add(fa_buf *b, const void *data, size_t n) {
    if (!fa_buf_reserve(b, n)) return;
    if (n) memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = 0;
}

void fa_buf_puts(fa_buf *b, const char *s) { fa_buf_add(b, s, strlen(s)); }

void fa_buf_printf(fa_buf *b, const char *fmt, ...) {
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && fa_buf_reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap2);
        b->len += (size_t)n;
    }
    va_end(ap2);
}

void fa_buf_json(fa_buf *b, const char *s, size_t n) {
    fa_buf_puts(b, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)s[i];
        if (ch == '"' || ch == '\\')
            fa_buf_printf(b, "\\%c", ch);
        else if (ch < 0x20)
            fa_buf_printf(b, "\\u%04x", ch);
        else
            fa_buf_add(b, s + i, 1);
    }
    fa_buf_puts(b, "\"");
}
