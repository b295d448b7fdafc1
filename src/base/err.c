/* Error messages and the names of the error codes. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 8192, HEAD_KEPT = 200 };

/* Formats into msg. A text that does not fit (paths can be 4 KiB long) loses its middle, not the reason at its end. */
static void format(char *msg, size_t size, const char *fmt, va_list ap) {
    char text[TEXT_MAX];
    int n = vsnprintf(text, sizeof text, fmt, ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    if (n < 0) text[0] = 0;
    if (len < size)
        memcpy(msg, text, len + 1);
    else
        snprintf(msg, size, "%.*s...%s", HEAD_KEPT, text, text + len - (size - HEAD_KEPT - 4));
}

int fa_fail(fa_error *err, int code, const char *fmt, ...) {
    if (!err) return code;
    va_list ap;
    va_start(ap, fmt);
    err->code = code;
    format(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    /* one line: bytes of a hostile file may end up in a message */
    for (char *p = err->msg; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    return code;
}

int fa_fail_prefix(fa_error *err, int code, const char *fmt, ...) {
    if (!err) return code;
    char old[sizeof err->msg], head[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    format(head, sizeof head, fmt, ap);
    va_end(ap);
    return fa_fail(err, code, "%s: %s", head, old);
}

const char *ffai_code_text(int code) {
    switch (code) {
#define FFAI_X(name, value, text)                                                                                      \
    case value: return text;
        FFAI_CODES(FFAI_X)
#undef FFAI_X
    default: return "unknown error";
    }
}

#define FA_STR2(x) #x
#define FA_STR(x)  FA_STR2(x)

int ffai_version_number(void) { return FFAI_VERSION; }

const char *ffai_version(void) {
    return FA_STR(FFAI_VERSION_MAJOR) "." FA_STR(FFAI_VERSION_MINOR) "." FA_STR(FFAI_VERSION_PATCH);
}
