/* A JSON tree as text again: keys in file order, objects a member a line. */
#include "io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With as few digits as give the same number back, and with a point or an exponent: what was no integer stays none. */
static void print_number(fa_buf *b, double v) {
    char text[40];
    int digits = 15;
    do {
        snprintf(text, sizeof text, "%.*g", digits, v);
    } while (digits++ < 17 && strtod(text, NULL) != v);
    for (char *p = strchr(text, ','); p; p = NULL) *p = '.'; /* the host's locale */
    fa_buf_puts(b, text);
    if (!strpbrk(text, ".en")) fa_buf_puts(b, ".0");
}

void fa_json_print(fa_buf *b, const fa_jnode *n, int indent) {
    size_t len;
    const char *s;
    bool obj = fa_jtype_of(n) == FA_JOBJ;
    switch (fa_jtype_of(n)) {
    case FA_JNULL: fa_buf_puts(b, "null"); return;
    case FA_JBOOL: fa_buf_puts(b, fa_jbool(n, false) ? "true" : "false"); return;
    case FA_JINT: fa_buf_printf(b, "%lld", (long long)fa_jint(n, 0)); return;
    case FA_JNUM: print_number(b, fa_jnum(n, 0)); return;
    case FA_JSTR:
        s = fa_jstr(n, &len);
        fa_buf_json(b, s, len);
        return;
    case FA_JARR:
    case FA_JOBJ: break;
    }
    fa_buf_puts(b, obj ? "{" : "[");
    for (const fa_jnode *v = fa_jfirst(n); v; v = fa_jnext(v)) {
        if (obj) {
            fa_buf_printf(b, "\n%*s", indent + 2, "");
            s = fa_jkey(v, &len);
            fa_buf_json(b, s, len);
            fa_buf_puts(b, ": ");
        }
        fa_json_print(b, v, indent + 2);
        if (fa_jnext(v)) fa_buf_puts(b, obj ? "," : ", ");
    }
    if (obj && fa_jlen(n)) fa_buf_printf(b, "\n%*s", indent, "");
    fa_buf_puts(b, obj ? "}" : "]");
}
