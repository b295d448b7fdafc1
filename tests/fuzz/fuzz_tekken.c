/* Any bytes as tekken.json, up to the first NUL byte; what is behind it is encoded and decoded with it. */
#include "tok_check.h"
#include "text/tok_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *json = (const char *)data, *nul = size ? (const char *)memchr(json, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - json) : size;
    fa_tok *t;
    fa_error err;
    int rc = fa_tok_from_tekken(&t, json, len, "fuzz", &err);
    if ((rc == 0) != (t != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    if (!rc && nul) check_text(t, nul + 1, size - len - 1, FA_TOK_SPECIAL);
    fa_tok_free(t);
    return 0;
}
