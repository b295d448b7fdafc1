/* Any bytes as a JSON document: the whole tree is walked, every key and string is read. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t walk(const fa_jnode *n, int depth) {
    size_t len = 0, sum = 0, count = 0;
    if (depth > FA_JSON_MAX_DEPTH + 1) abort();
    const char *s = fa_jkey(n, &len);
    for (size_t i = 0; s && i <= len; i++) sum += (unsigned char)s[i];
    s = fa_jstr(n, &len);
    if (s && s[len] != 0) abort();
    for (size_t i = 0; s && i < len; i++) sum += (unsigned char)s[i];
    for (const fa_jnode *c = fa_jfirst(n); c; c = fa_jnext(c), count++) sum += walk(c, depth + 1);
    if (count != fa_jlen(n)) abort();
    return sum + (size_t)fa_jint(n, 0) + fa_jbool(n, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fa_json *j;
    fa_error err;
    int rc = fa_json_parse(&j, (const char *)data, size, "fuzz", &err);
    if ((rc == 0) != (j != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    walk(fa_json_root(j), 0);
    fa_jget(fa_json_root(j), "a");
    fa_json_free(j);
    return 0;
}
