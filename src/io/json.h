/* JSON documents. simdjson reads the text (io/json_simd.cpp, the only C++ file); what callers see is a compact tree of
 * plain C nodes that lives until fa_json_free. All getters accept NULL and nodes of another type, and answer "absent"
 * for them, so that lookups chain. */
#ifndef FA_IO_JSON_H
#define FA_IO_JSON_H

#include "base/buf.h"
#include "base/err.h"

typedef enum fa_jtype { FA_JNULL, FA_JBOOL, FA_JINT, FA_JNUM, FA_JSTR, FA_JARR, FA_JOBJ } fa_jtype;

typedef struct fa_json fa_json;   /* a document, owns all nodes and strings */
typedef struct fa_jnode fa_jnode; /* a value inside a document */

/* Nesting deeper than this is refused. */
enum { FA_JSON_MAX_DEPTH = 256 };

/* `what` names the source in messages ("/x/config.json"). Duplicate keys are kept in order (fa_jget finds the last, as
 * Python does). Numbers: integers that fit int64 are FA_JINT, all others FA_JNUM; NaN and Infinity literals are
 * refused. Trailing non-space text is an error. */
int fa_json_parse(fa_json **out, const char *text, size_t len, const char *what, fa_error *err);
int fa_json_load(fa_json **out, const char *path, fa_error *err);
/* A file that Python may have written: Infinity stands for a number and reads as 1e308. */
int fa_json_load_python(fa_json **out, const char *path, fa_error *err);
void fa_json_free(fa_json *j);
const fa_jnode *fa_json_root(const fa_json *j);

fa_jtype fa_jtype_of(const fa_jnode *n);                       /* FA_JNULL for NULL */
const fa_jnode *fa_jget(const fa_jnode *obj, const char *key); /* member or NULL; linear in the number of members */
const fa_jnode *fa_jfirst(const fa_jnode *n);                  /* first child of an array or object, or NULL */
const fa_jnode *fa_jnext(const fa_jnode *n);                   /* next sibling or NULL */
size_t fa_jlen(const fa_jnode *n);                             /* number of children */
const char *fa_jkey(const fa_jnode *n,
                    size_t *len); /* key of an object member (UTF-8, NUL-terminated, may contain NUL), or NULL */
const char *fa_jstr(const fa_jnode *n, size_t *len); /* NULL when n is no string; len may be NULL */
bool fa_jbool(const fa_jnode *n, bool otherwise);
int64_t fa_jint(const fa_jnode *n, int64_t otherwise); /* accepts a FA_JNUM with an integral value in range */
double fa_jnum(const fa_jnode *n, double otherwise);   /* FA_JINT or FA_JNUM */

/* The tree as text, keys in file order; indent: of the line that it begins on. */
void fa_json_print(fa_buf *b, const fa_jnode *n, int indent);

#endif
