/* Errors: one type, filled once at the place that knows most. The type is the public one so that messages pass through
 * unchanged. */
#ifndef FA_BASE_ERR_H
#define FA_BASE_ERR_H

#include "ffai.h"

typedef ffai_error fa_error;

/* Fills *err (NULL is fine) and returns code, so that callers write `return fa_fail(err, FFAI_EIO, "%s: ...", path)`.
 */
int fa_fail(fa_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<text>: " in front of the message that is already there; returns err->code. */
int fa_fail_prefix(fa_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
