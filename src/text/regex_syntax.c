/* Patterns in Oniguruma's syntax, written in PCRE2's. What differs: classes nest and intersect ([a[bc]], [a&&[^b]]),
 * \w, \s, \h, \b and the POSIX classes mean other sets, (?m) is "dot matches a newline", {n}? and {n,m}+ are a
 * quantifier of a quantifier. General categories get the code points that are younger than PCRE2's table. */
#include "text/tok_int.h"
#include "text/ucd.h"
#include "base/alloc.h"

#include <string.h>

void fa_regex_translate(fa_buf *b, const char *p, size_t n) {
    static const char word[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    static const char space[] =
        "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
        "\\x{205f}\\x{3000}";
    bool in_class = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\\' || i + 1 == n) {
            if (p[i] == '[') in_class = true;
            if (p[i] == ']') in_class = false;
            fa_buf_add(b, p + i, 1);
            continue;
        }
        char c = p[++i];
        if (c == 's')
            fa_buf_printf(b, in_class ? "%s" : "[%s]", space);
        else if (c == 'S' && !in_class)
            fa_buf_printf(b, "[^%s]", space);
        else if (c == 'w')
            fa_buf_printf(b, in_class ? "%s" : "[%s]", word);
        else if (c == 'W' && !in_class)
            fa_buf_printf(b, "[^%s]", word);
        else if (c == 'h')
            fa_buf_puts(b, in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");
        else
            fa_buf_add(b, p + i - 1, 2);
    }
}
