/* A growing byte buffer that is always NUL-terminated. Append calls are sticky: after an allocation failure `failed` is
 * set and nothing is added; check it once at the end. */
#ifndef FA_BASE_BUF_H
#define FA_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fa_buf {
    char *data; /* NULL until the first append */
    size_t len, cap;
    bool failed;
} fa_buf;

void fa_buf_free(fa_buf *b);
bool fa_buf_reserve(fa_buf *b, size_t extra);
void fa_buf_add(fa_buf *b, const void *data, size_t n);
void fa_buf_puts(fa_buf *b, const char *s);
/* s[0..n), UTF-8, as a JSON string with its quotes. */
void fa_buf_json(fa_buf *b, const char *s, size_t n);
void fa_buf_printf(fa_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
