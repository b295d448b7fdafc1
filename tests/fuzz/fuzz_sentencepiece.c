/* Any bytes as a SentencePiece model, which then encodes the end of the same bytes. */
#include "tok_check.h"
#include "text/tok_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fa_tok *t;
    fa_error err;
    int rc = fa_tok_from_spm(&t, (const char *)data, size, NULL, "fuzz", &err);
    if ((rc == 0) != (t != NULL) || (rc && strchr(err.msg, '\n'))) abort();
    size_t tail = size < 64 ? size : 64;
    if (!rc) check_text(t, (const char *)data + size - tail, tail, FA_TOK_SPECIAL);
    fa_tok_free(t);
    return 0;
}
