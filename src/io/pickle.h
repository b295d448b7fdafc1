/* A pickle as a graph of inert values: nothing is imported, called or built. Only the opcodes are known with which
 * Python's picklers (protocols 2 to 5) write dicts of tensors, and only the globals that the caller lists; everything
 * else is an error that names the opcode or the global. What a global would have been called with stays a tuple for the
 * caller to look at. Formats of the opcodes: CPython's Lib/pickletools.py. */
#ifndef FA_IO_PICKLE_H
#define FA_IO_PICKLE_H

#include "base/err.h"

typedef enum fa_ptype {
    FA_P_NONE,
    FA_P_BOOL,
    FA_P_INT,
    FA_P_FLOAT, /* its value is not kept */
    FA_P_STR,   /* bytes of the pickle */
    FA_P_TUPLE,
    FA_P_LIST,
    FA_P_DICT,   /* an OrderedDict too; keys may be there twice */
    FA_P_GLOBAL, /* one of the caller's list */
    FA_P_CALL,   /* a global with its arguments */
    FA_P_STORED  /* a persistent id: something outside of the pickle */
} fa_ptype;

typedef struct fa_pval {
    uint8_t type; /* fa_ptype */
    uint32_t n;   /* STR: bytes. TUPLE LIST DICT: elements. CALL: index of the global */
    union {
        int64_t i; /* BOOL, INT; GLOBAL: its index */
        const char *s;
        uint32_t at; /* TUPLE: its first item; CALL, STORED: the value behind it */
        struct {
            uint32_t first, last;
        } chain; /* LIST, DICT: pairs, 1 + index; 0: none */
    } u;
} fa_pval;

typedef struct fa_pickle fa_pickle;

enum { FA_PICKLE_MAX = 16 << 20 /* bytes that are looked at: values take up to 40 bytes of memory for each of them */ };

/* globals: "module name" of each, NULL at the end. data outlives the handle. used: bytes up to and with STOP; NULL:
 * nothing may follow it. what names the pickle in messages. */
int fa_pickle_parse(fa_pickle **out, const uint8_t *data, size_t size, const char *const *globals, size_t *used,
                    const char *what, fa_error *err);
void fa_pickle_free(fa_pickle *p);
const fa_pval *fa_pickle_root(const fa_pickle *p);
/* Item i of a tuple; the arguments (a tuple) of a call are fa_pickle_behind's. NULL: there is none. */
const fa_pval *fa_pickle_item(const fa_pickle *p, const fa_pval *tuple, uint32_t i);
const fa_pval *fa_pickle_behind(const fa_pickle *p, const fa_pval *v); /* CALL: its arguments; STORED: its id */
/* Pairs of a dict (of a list: the elements are values, keys NULL), in order: *it is 0 before the first. */
bool fa_pickle_next(const fa_pickle *p, const fa_pval *v, uint32_t *it, const fa_pval **key, const fa_pval **value);
bool fa_pval_is(const fa_pval *v, const char *text); /* a string of these bytes? NULL: no */
const char *fa_pval_kind(const fa_pval *v);          /* "a tuple", for messages */

#endif
