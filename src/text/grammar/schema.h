/* JSON Schema to grammar, inside. A value must satisfy a set of schemas at once: $ref and allOf add to the set, anyOf
 * and oneOf split it, properties and items lead to the set for a part of the value. Equal sets are one rule, so
 * recursive schemas become recursive rules. */
#ifndef FA_TEXT_GRAM_SCHEMA_H
#define FA_TEXT_GRAM_SCHEMA_H

#include "base/mem.h"
#include "io/json.h"
#include "text/grammar/gram_int.h"

/* One schema of a set. Its anyOf and oneOf were split already, or not. */
typedef struct fa_sitem {
    const fa_jnode *node;
    uint32_t any_taken, one_taken;
} fa_sitem;

typedef struct fa_sset {
    fa_sitem *item;
    size_t n, cap;
    bool single; /* all come from one schema: unevaluatedProperties sees the others */
    bool never;  /* `false` is among them */
} fa_sset;

typedef enum fa_stype {
    FA_S_NULL = 1,
    FA_S_BOOL = 2,
    FA_S_INT = 4,
    FA_S_NUM = 8, /* with FA_S_INT: all numbers; alone: not used */
    FA_S_STR = 16,
    FA_S_ARR = 32,
    FA_S_OBJ = 64,
    FA_S_ALL = 127
} fa_stype;

typedef struct fa_srule {
    fa_sset set;
    uint32_t rule;
} fa_srule;

typedef struct fa_schema {
    fa_gb *b;
    fa_json *doc;
    const fa_jnode *root;
    fa_mem mem;
    fa_srule *rule; /* [n_rule], made in order; those behind n_done wait */
    size_t n_rule, cap_rule, n_done;
    fa_smap seen;
    uint32_t ws, string, character; /* rules that all values share, UINT32_MAX: not yet */
    const fa_jnode *listing;        /* whose enum or const is being gone through: its values need no search in it */
} fa_schema;

/* ---- schema.c ---- */

/* "<what>: line, column: <pointer of node>/<key>: ..." */
uint32_t fa_schema_fail(fa_schema *s, int code, const fa_jnode *node, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Adds a schema to a set; false after a failure. */
bool fa_sset_add(fa_schema *s, fa_sset *set, const fa_jnode *node);
/* Follows $ref and allOf until nothing is new. */
bool fa_sset_close(fa_schema *s, fa_sset *set);
void fa_sset_free(fa_sset *set);
/* A call of the rule for a set (closed here; the set is taken over). 0 after a failure. */
uint32_t fa_schema_rule(fa_schema *s, fa_sset *set);
/* The types that all schemas of a closed set allow. */
unsigned fa_sset_types(fa_schema *s, const fa_sset *set);
uint32_t fa_schema_ws(fa_schema *s);
uint32_t fa_schema_lit(fa_schema *s, const char *text);

/* Reads a keyword that counts: a whole number >= 0, else a failure. False: it is not there. */
bool fa_schema_count(fa_schema *s, const fa_jnode *node, const char *key, uint32_t *out);

/* ---- schema_val.c: strings and numbers ---- */
uint32_t fa_schema_string(fa_schema *s, const fa_sset *set);
uint32_t fa_schema_number(fa_schema *s, const fa_sset *set, bool integer);
/* The strings that a set's patterns, formats and lengths allow; *any: all of them, and nothing was made. */
bool fa_schema_texts(fa_schema *s, const fa_sset *set, fa_lang *out, bool *any);
/* The same, of those that enum and const name. */
bool fa_schema_lang(fa_schema *s, const fa_sset *set, fa_lang *out, bool *any);
/* The pattern as a language over whole strings. */
bool fa_schema_pattern(fa_schema *s, const fa_jnode *node, const char *key, const char *text, size_t len, fa_lang *out);

/* Smallest and largest number of a set. */
typedef struct fa_sbounds {
    double min, max;
    bool has_min, has_max, min_open, max_open;
    const fa_jnode *at;
} fa_sbounds;
fa_sbounds fa_schema_bounds(fa_schema *s, const fa_sset *set);
/* numbers.c: decimals between bounds. */
uint32_t fa_decimal_tree(fa_schema *s, const fa_sbounds *k, bool integer);

/* ---- schema_obj.c ---- */
uint32_t fa_schema_object(fa_schema *s, const fa_sset *set);
uint32_t fa_schema_array(fa_schema *s, const fa_sset *set);

/* ---- schema_lit.c: given values ---- */
void fa_json_quote(fa_buf *b, const char *s, size_t n);
/* The texts of a value, with the white space that all values may have. */
uint32_t fa_json_tree(fa_schema *s, const fa_jnode *v);
bool fa_json_equal(const fa_jnode *a, const fa_jnode *b);
/* Does a value satisfy a closed set? */
bool fa_schema_accepts(fa_schema *s, const fa_sset *set, const fa_jnode *v, int depth);
/* No value that is generated for one satisfies the other; false also when that is not clear. */
bool fa_schema_apart(fa_schema *s, const fa_sset *a, const fa_sset *b);

#endif
