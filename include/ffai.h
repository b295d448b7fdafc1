/* ffai - the public interface of libffai.
 *
 * One model is loaded once and is immutable; an engine runs requests against it; a request is one growing sequence of tokens. Functions that
 * can fail return 0 on success or a negative ffai_code and fill *err (err may be NULL). Out-parameters are NULL after a failure; every
 * *_free(NULL) is a no-op. A model and a tokenizer may be used by several threads at once; an engine and its requests by one at a time.
 */
#ifndef FFAI_H
#define FFAI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define FFAI_API
#else
#define FFAI_API __attribute__((visibility("default")))
#endif

#define FFAI_VERSION_MAJOR 0
#define FFAI_VERSION_MINOR 1
#define FFAI_VERSION_PATCH 0

/* ---- errors ---------------------------------------------------------------------------------------------------------------------- */

/* X(name, value, text) */
#define FFAI_CODES(X)                                                                                                                      \
    X(FFAI_OK, 0, "ok")                                                                                                                    \
    X(FFAI_EINVAL, -1, "invalid argument")                                                                                                 \
    X(FFAI_ENOMEM, -2, "out of memory")                                                                                                    \
    X(FFAI_EIO, -3, "file cannot be read or written")                                                                                      \
    X(FFAI_EFORMAT, -4, "malformed file")                                                                                                  \
    X(FFAI_ENOTSUP, -5, "not supported")                                                                                                   \
    X(FFAI_ELIMIT, -6, "limit exceeded")                                                                                                   \
    X(FFAI_ECANCEL, -7, "cancelled")                                                                                                       \
    X(FFAI_EINTERNAL, -8, "internal error")

typedef enum ffai_code {
#define FFAI_X(name, value, text) name = value,
    FFAI_CODES(FFAI_X)
#undef FFAI_X
} ffai_code;

/* What failed, for people: names the file, tensor, key or flag, and the value. One line. */
typedef struct ffai_error {
    int code;
    char msg[508];
} ffai_error;

FFAI_API const char *ffai_code_text(int code);
FFAI_API const char *ffai_version(void); /* "0.1.0" */

#ifdef __cplusplus
}
#endif
#endif
