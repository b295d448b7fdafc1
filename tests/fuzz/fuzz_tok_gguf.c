/* Any bytes as a GGUF file with a tokenizer, which then encodes the end of the same bytes. */
#include "tok_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fa_gguf *g;
    fa_tok *t;
    fa_error err;
    if (fa_gguf_parse(&g, data, size, "fuzz", &err)) return 0;
    int rc = fa_tok_from_gguf(&t, g, &err);
    if ((rc == 0) != (t != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    size_t tail = size < 64 ? size : 64;
    if (!rc) check_text(t, (const char *)data + size - tail, tail, FA_TOK_SPECIAL);
    fa_tok_free(t);
    fa_gguf_free(g);
    return 0;
}
