/* SentencePiece models: refused until their loader stands here. */
#include "text/tok_files.h"

int fa_tok_from_spm(fa_tok **out, const char *data, size_t len, const fa_tok_about *about, const char *what,
                    fa_error *err) {
    (void)data;
    (void)len;
    (void)about;
    *out = NULL;
    return fa_fail(err, FFAI_ENOTSUP, "%s: SentencePiece models are not supported", what);
}
