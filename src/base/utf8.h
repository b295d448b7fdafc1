/* UTF-8: decoding with the replacement rule of Unicode (maximal subparts), which is also Python's errors="replace". */
#ifndef FA_BASE_UTF8_H
#define FA_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes one code point at s[0..n), n >= 1. Returns the bytes used (1..4). An ill-formed sequence gives U+FFFD and the
 * length of its maximal subpart, so that the caller always advances. */
int fa_utf8_decode(const char *s, size_t n, uint32_t *cp);
/* Writes cp to out[4], returns the bytes written; a surrogate or a value past U+10FFFF is written as U+FFFD. */
int fa_utf8_encode(uint32_t cp, char *out);
/* Bytes of the character that begins at s, which is well-formed. */
static inline size_t fa_utf8_char_len(const char *s) {
    unsigned char c = (unsigned char)*s;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}
/* How many of the last bytes of s[0..n) are the beginning of a sequence that more bytes could complete (0..3). */
size_t fa_utf8_partial_tail(const char *s, size_t n);

#endif
