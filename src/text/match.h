/* Does a regular expression match anywhere in a short text? For names; pre-tokenizers use tok_int.h. */
#ifndef FA_TEXT_MATCH_H
#define FA_TEXT_MATCH_H

#include "base/err.h"

typedef struct fa_match fa_match;

/* what: for messages. */
int fa_match_new(fa_match **out, const char *pattern, const char *what, fa_error *err);
void fa_match_free(fa_match *m);
/* 1: somewhere in the text; 0: nowhere; < 0: error. */
int fa_match_in(const fa_match *m, const char *text, fa_error *err);

#endif
