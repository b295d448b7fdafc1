/* norm_chars.c for norm.c: each appends the normalized s[0..n) to out, and moves *zero as fa_norm_run has it. */
#ifndef FA_TEXT_NORM_CHARS_H
#define FA_TEXT_NORM_CHARS_H

#include "text/tok_int.h"

/* CLEAN, CHINESE, DROP_MARKS, STRIP_ACCENTS, NMT, LOWER, BYTES */
void fa_norm_chars(const fa_norm *m, const char *s, size_t n, fa_buf *out, size_t *zero);
/* False: no rule applied, and out holds s. */
bool fa_norm_precompiled(const fa_norm *m, const char *s, size_t n, fa_buf *out, size_t *zero);

#endif
