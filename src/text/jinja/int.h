/* What the parts of the template interpreter share: values, memory, the machine, the syntax tree.
 *
 * Memory comes from an arena that is freed as a whole, so values need no owner, and strings share the bytes of the text
 * that they were cut from. Errors leave through longjmp to the one entry (fa_jinja_parse, fa_jinja_render): no function
 * here holds anything that the arena or the machine does not own. Values are Python's: text is code points, integers
 * are 64-bit (a result that does not fit is an error). */
#ifndef FA_TEXT_JINJA_INT_H
#define FA_TEXT_JINJA_INT_H

#include "base/buf.h"
#include "base/err.h"
#include "text/jinja/jinja.h"

#include <setjmp.h>
#include <stdint.h>

typedef struct fa_jj fa_jj;
typedef struct fa_jjnode fa_jjnode;

/* ---- memory ---- */

typedef struct fa_jjblock {
    struct fa_jjblock *next;
    size_t used, cap;
    max_align_t data[];
} fa_jjblock;

typedef struct fa_jjarena {
    fa_jjblock *head;
    size_t total, limit; /* bytes of all blocks */
} fa_jjarena;

/* ---- values ---- */

typedef enum fa_jjtype {
    FA_JJ_MISSING, /* no value at all: an argument that was not given, a variable that was not set */
    FA_JJ_UNDEF,
    FA_JJ_NONE,
    FA_JJ_BOOL,
    FA_JJ_INT,
    FA_JJ_FLOAT,
    FA_JJ_BIG, /* an integer of the input past 64 bits: its digits */
    FA_JJ_STR,
    FA_JJ_LIST,
    FA_JJ_TUPLE,
    FA_JJ_DICT,
    FA_JJ_RANGE,
    FA_JJ_VIEW, /* keys(), values(), items() of a dict */
    FA_JJ_ITER, /* generators and reversed(): read once */
    FA_JJ_NS,
    FA_JJ_MACRO,
    FA_JJ_FUNC,   /* a global function */
    FA_JJ_METHOD, /* a method bound to its object */
    FA_JJ_LOOP,
    FA_JJ_CYCLER,
    FA_JJ_JOINER
} fa_jjtype;

typedef struct fa_jjstr {
    const char *p; /* UTF-8, not NUL-terminated */
    uint32_t n;    /* bytes */
    uint32_t ncp;  /* code points; UINT32_MAX: not counted yet */
    bool markup;   /* markupsafe.Markup: what it meets is escaped */
} fa_jjstr;

typedef struct fa_jjv {
    fa_jjtype t;
    union {
        bool b;
        int64_t i;
        double f;
        fa_jjstr *s;
        struct fa_jjlist *l;
        struct fa_jjdict *d; /* DICT, NS */
        struct fa_jjundef *u;
        struct fa_jjrange *r;
        struct fa_jjview *w;
        struct fa_jjiter *it;
        struct fa_jjmacro *m;
        const struct fa_jjfunc *fn;
        struct fa_jjmethod *me;
        struct fa_jjloop *lo;
        struct fa_jjcycler *c;
    } u;
} fa_jjv;

typedef struct fa_jjlist {
    fa_jjv *v;
    size_t n, cap;
    bool group; /* a tuple of groupby: has .grouper and .list */
} fa_jjlist;

typedef struct fa_jjent {
    fa_jjv key, val;
    uint64_t hash;
} fa_jjent;

typedef struct fa_jjdict {
    fa_jjent *e; /* in order of insertion */
    size_t n, cap;
    uint32_t *idx; /* [n_idx] entry + 1, open addressing; NULL while the dict is small */
    size_t n_idx;
} fa_jjdict;

typedef struct fa_jjundef {
    fa_jjv hint; /* STR: the whole message */
    fa_jjv obj;  /* what was asked, MISSING: a variable */
    fa_jjv name;
} fa_jjundef;

typedef struct fa_jjrange {
    int64_t start, stop, step;
    size_t n;
} fa_jjrange;

typedef struct fa_jjview {
    fa_jjdict *d;
    int kind; /* 'k', 'v', 'i' */
} fa_jjview;

typedef struct fa_jjscope fa_jjscope;

typedef struct fa_jjmacro {
    const fa_jjnode *node; /* MACRO or CALL block */
    fa_jjscope *scope;     /* where it was defined */
} fa_jjmacro;

typedef struct fa_jjcycler { /* cycler: items; joiner: separator */
    fa_jjlist *items;
    size_t pos;
} fa_jjcycler;

/* ---- calls ---- */

typedef struct fa_jjargs {
    fa_jjv *v; /* [n] positional */
    size_t n;
    fa_jjv *key, *val; /* [n_kw] keywords; key is STR */
    size_t n_kw;
} fa_jjargs;

/* A builtin: filter, test, global or method. With `params` ("a,b=,c=", "=" after the name: may be left out) arguments
 * are bound before the call: args->v[i] is parameter i or MISSING. Without, the function takes them as they came. */
typedef struct fa_jjfunc {
    const char *name;
    fa_jjv (*fn)(fa_jj *m, fa_jjv self, const fa_jjargs *a);
    const char *params;
    const char *pyname; /* the name in messages, NULL: name */
    bool positional;    /* takes no keywords */
} fa_jjfunc;

typedef struct fa_jjmethod {
    fa_jjv self;
    const fa_jjfunc *fn;
} fa_jjmethod;

/* ---- iteration ---- */

typedef struct fa_jjiter fa_jjiter;
struct fa_jjiter {
    bool (*next)(fa_jj *m, fa_jjiter *it, fa_jjv *out);
    fa_jjv src;
    size_t i, n;         /* position, end */
    fa_jjiter *in;       /* what it reads from */
    const char *type;    /* "generator", "list_reverseiterator" */
    const fa_jjfunc *fn; /* of map, select */
    fa_jjargs args;
    fa_jjv a, b;
    bool started, done, flag, attr;
    void *more;
    const fa_jjnode *node;
    fa_jjscope *scope;
};

typedef struct fa_jjloop {
    fa_jjiter *it;
    fa_jjv iterable; /* for its length */
    fa_jjv cur, before, after, changed;
    size_t index0;
    int64_t length; /* -1: not known yet */
    int depth0;
    const fa_jjnode *node; /* a recursive loop */
    fa_jjscope *scope;
} fa_jjloop;

/* ---- scopes ---- */

typedef struct fa_jjslot {
    uint32_t sym;
    fa_jjv v;
} fa_jjslot;

struct fa_jjscope {
    fa_jjscope *up; /* NULL: the root */
    fa_jjslot *v;
    uint32_t n, cap;
    bool kept; /* something outlives the statement that opened it: a macro, a recursive loop */
};

/* ---- the machine ---- */

typedef struct fa_jjlimits {
    int depth;
    uint64_t steps;
    size_t heap, output;
} fa_jjlimits;

struct fa_jj {
    fa_jjarena mem;
    jmp_buf jmp;
    fa_error err;
    const char *what;
    uint32_t line, col; /* where we are, for messages */
    int depth;
    uint64_t steps, max_steps;
    /* rendering */
    const fa_jinja *t;
    uint32_t sym_loop;  /* parsing: the symbol of `loop`; caller, kwargs, varargs follow it */
    fa_buf out;         /* captures are the tail of it */
    fa_jjv *root, *ctx; /* [symbols] variables set at the top level; given ones and globals */
    fa_jjstr *one[128]; /* strings of one ASCII character */
    fa_jjstr *seen;     /* the last string that was indexed, and where */
    uint32_t seen_cp, seen_at;
    struct { /* buffers that strings were joined in: the next append goes on there */
        char *base;
        size_t used, cap;
    } grow[4];
    int grow_next;
    int64_t now;
    bool broke, continued; /* a loop control is on its way */
    bool folding; /* inside an output that jinja computes when it compiles: slices of what has none are undefined */
};

enum { FA_JJ_MAX_DEPTH = 1200, FA_JJ_MAX_NEST = 150 };

void *fa_jj_alloc(fa_jj *m, size_t n, size_t size); /* zeroed; leaves on failure */
void fa_jj_arena_free(fa_jjarena *a);
_Noreturn void fa_jj_fail(fa_jj *m, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Fails with a Python string as message. */
_Noreturn void fa_jj_raise(fa_jj *m, fa_jjstr *s);
#define fa_jj_type_error(m, ...) fa_jj_fail(m, FFAI_EINVAL, __VA_ARGS__)
void fa_jj_too_slow(fa_jj *m);
static inline void fa_jj_step(fa_jj *m, size_t n) {
    m->steps += n;
    if (m->steps > m->max_steps) fa_jj_too_slow(m);
}
void fa_jj_too_deep(fa_jj *m);
static inline void fa_jj_enter(fa_jj *m) {
    if (++m->depth > FA_JJ_MAX_DEPTH) fa_jj_too_deep(m);
}
static inline void fa_jj_leave(fa_jj *m) { m->depth--; }

/* ---- values: constructors ---- */

static inline fa_jjv fa_jj_none(void) { return (fa_jjv){.t = FA_JJ_NONE}; }
static inline fa_jjv fa_jj_missing(void) { return (fa_jjv){.t = FA_JJ_MISSING}; }
static inline fa_jjv fa_jj_bool(bool b) { return (fa_jjv){.t = FA_JJ_BOOL, .u.b = b}; }
static inline fa_jjv fa_jj_int(int64_t i) { return (fa_jjv){.t = FA_JJ_INT, .u.i = i}; }
static inline fa_jjv fa_jj_float(double f) { return (fa_jjv){.t = FA_JJ_FLOAT, .u.f = f}; }
static inline fa_jjv fa_jj_strv(fa_jjstr *s) { return (fa_jjv){.t = FA_JJ_STR, .u.s = s}; }
static inline fa_jjv fa_jj_listv(fa_jjlist *l) { return (fa_jjv){.t = FA_JJ_LIST, .u.l = l}; }
static inline fa_jjv fa_jj_tuplev(fa_jjlist *l) { return (fa_jjv){.t = FA_JJ_TUPLE, .u.l = l}; }
static inline fa_jjv fa_jj_dictv(fa_jjdict *d) { return (fa_jjv){.t = FA_JJ_DICT, .u.d = d}; }

fa_jjstr *fa_jj_ref(fa_jj *m, const char *p, size_t n);  /* shares p, which outlives the machine's work */
fa_jjstr *fa_jj_copy(fa_jj *m, const char *p, size_t n); /* copies */
fa_jjv fa_jj_text(fa_jj *m, const char *s);              /* of a C string that outlives */
fa_jjv fa_jj_undef(fa_jj *m, fa_jjv obj, fa_jjv name);
fa_jjv fa_jj_undef_hint(fa_jj *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void fa_jj_undef_fail(fa_jj *m, fa_jjv v);

fa_jjlist *fa_jj_list(fa_jj *m, size_t cap);
void fa_jj_push(fa_jj *m, fa_jjlist *l, fa_jjv v);
fa_jjv fa_jj_pair(fa_jj *m, fa_jjv a, fa_jjv b);
fa_jjdict *fa_jj_dict(fa_jj *m, size_t cap);
fa_jjv *fa_jj_dict_get(fa_jj *m, const fa_jjdict *d, fa_jjv key); /* NULL when absent */
void fa_jj_dict_set(fa_jj *m, fa_jjdict *d, fa_jjv key, fa_jjv val);
fa_jjv *fa_jj_dict_str(fa_jj *m, const fa_jjdict *d, const char *key);
fa_jjdict *fa_jj_dict_copy(fa_jj *m, const fa_jjdict *d);
uint64_t fa_jj_hash(fa_jj *m, fa_jjv v); /* fails for what Python cannot hash */

/* ---- values: what Python does with all of them ---- */

const char *fa_jj_type(fa_jjv v); /* type(v).__name__ */
bool fa_jj_truth(fa_jj *m, fa_jjv v);
bool fa_jj_eq(fa_jj *m, fa_jjv a, fa_jjv b);
int fa_jj_cmp(fa_jj *m, fa_jjv a, fa_jjv b, const char *op); /* <0, 0, >0; 2: unordered (nan); op for the message */
bool fa_jj_in(fa_jj *m, fa_jjv v, fa_jjv seq);
bool fa_jj_len(fa_jj *m, fa_jjv v, size_t *n); /* false: has none */
fa_jjv fa_jj_add(fa_jj *m, fa_jjv a, fa_jjv b);
fa_jjv fa_jj_binary(fa_jj *m, int op, fa_jjv a, fa_jjv b); /* op: FA_JJ_N_ADD .. */
fa_jjv fa_jj_negate(fa_jj *m, fa_jjv v, bool plus);
/* int or bool; else an error */
int64_t fa_jj_index(fa_jj *m, fa_jjv v);
static inline bool fa_jj_is_num(fa_jjv v) { return v.t == FA_JJ_INT || v.t == FA_JJ_BOOL || v.t == FA_JJ_FLOAT; }
static inline bool fa_jj_is_int(fa_jjv v) { return v.t == FA_JJ_INT || v.t == FA_JJ_BOOL; }
static inline int64_t fa_jj_as_int(fa_jjv v) { return v.t == FA_JJ_BOOL ? v.u.b : v.u.i; }
static inline double fa_jj_as_num(fa_jjv v) { return v.t == FA_JJ_FLOAT ? v.u.f : (double)fa_jj_as_int(v); }

/* ---- text of values (repr.c, json.c) ---- */

void fa_jj_puts(fa_jj *m, fa_buf *b, const char *p, size_t n); /* bounded append */
void fa_jj_put_str(fa_jj *m, fa_buf *b, fa_jjv v);             /* str(v) */
void fa_jj_put_repr(fa_jj *m, fa_buf *b, fa_jjv v);
fa_jjstr *fa_jj_str(fa_jj *m, fa_jjv v);  /* str(v), a Markup loses its mark */
fa_jjstr *fa_jj_soft(fa_jj *m, fa_jjv v); /* the same, a Markup stays one */
fa_jjstr *fa_jj_repr(fa_jj *m, fa_jjv v);
void fa_jj_put_float(fa_buf *b, double f);           /* repr */
size_t fa_jj_digits(double f, char *digits, int *e); /* shortest digits d1d2..: value 0.d1d2.. * 10^e */
double fa_jj_strtod(const char *s, size_t n, bool *ok);
/* What is built in m->out behind `mark` becomes a string, m->out is as before. */
fa_jjstr *fa_jj_take(fa_jj *m, size_t mark);
fa_jjv fa_jj_tojson(fa_jj *m, fa_jjv self, const fa_jjargs *a);
fa_jjv fa_jj_from_json(fa_jj *m, const char *text, size_t len, const char *what);

/* ---- strings (str.c) ---- */

uint32_t fa_jj_ncp(fa_jj *m, fa_jjstr *s);
size_t fa_jj_offset(fa_jj *m, fa_jjstr *s, size_t cp);                /* byte offset of code point cp */
size_t fa_jj_cp_at(fa_jj *m, fa_jjstr *s, size_t off);                /* code points before a byte offset */
fa_jjstr *fa_jj_sub(fa_jj *m, fa_jjstr *s, size_t from, size_t to);   /* bytes */
fa_jjstr *fa_jj_char(fa_jj *m, fa_jjstr *s, size_t off, size_t *len); /* the character at a byte offset */
fa_jjv fa_jj_concat(fa_jj *m, fa_jjstr *a, fa_jjstr *b);
bool fa_jj_same(const fa_jjstr *a, const fa_jjstr *b);
bool fa_jj_is(const fa_jjstr *s, const char *text);
/* First occurrence at or after byte `from`; SIZE_MAX: none. */
size_t fa_jj_find(fa_jj *m, const fa_jjstr *s, const fa_jjstr *what, size_t from);
fa_jjstr *fa_jj_escape(fa_jj *m, fa_jjv v); /* markupsafe.escape */
fa_jjstr *fa_jj_mark(fa_jj *m, fa_jjstr *s);
bool fa_jj_space(uint32_t cp); /* str.isspace of one character */
fa_jjstr *fa_jj_strip(fa_jj *m, fa_jjstr *s, const fa_jjstr *chars,
                      int side); /* 1 left, 2 right, 3 both; NULL: space */
fa_jjstr *fa_jj_replace(fa_jj *m, fa_jjstr *s, fa_jjstr *from, fa_jjstr *to, int64_t count);
fa_jjlist *fa_jj_splitlines(fa_jj *m, fa_jjstr *s, bool keep);
fa_jjstr *fa_jj_case(fa_jj *m, fa_jjstr *s, int how); /* 'u', 'l', 't'itle, 'c'apitalize, 's'wapcase, 'f'old */
fa_jjstr *fa_jj_pad(fa_jj *m, fa_jjstr *s, int64_t width, const char *fill, size_t n_fill, int align); /* < > ^ c */
fa_jjv fa_jj_percent(fa_jj *m, fa_jjstr *fmt, fa_jjv arg);
fa_jjv fa_jj_format(fa_jj *m, fa_jjstr *fmt, const fa_jjargs *a, const fa_jjv *map);
bool fa_jj_is_upper(uint32_t cp);
bool fa_jj_is_lower(uint32_t cp);

/* ---- access (attr.c) ---- */

fa_jjv fa_jj_getattr(fa_jj *m, fa_jjv obj, fa_jjstr *name);
fa_jjv fa_jj_getitem(fa_jj *m, fa_jjv obj, fa_jjv key);
fa_jjv fa_jj_slice(fa_jj *m, fa_jjv obj, fa_jjv start, fa_jjv stop, fa_jjv step);
bool fa_jj_attr(fa_jj *m, fa_jjv obj, fa_jjstr *name, fa_jjv *out); /* Python's getattr through the sandbox */
const fa_jjfunc *fa_jj_str_method(const fa_jjstr *name);
void fa_jj_ns_set(fa_jj *m, fa_jjv ns, fa_jjstr *name, fa_jjv v);

/* ---- iteration (iter.c) ---- */

fa_jjiter *fa_jj_iter(fa_jj *m, fa_jjv v); /* fails when v is not iterable */
bool fa_jj_iterable(fa_jjv v);
static inline bool fa_jj_next(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    fa_jj_step(m, 1);
    return it->next(m, it, out);
}
fa_jjlist *fa_jj_to_list(fa_jj *m, fa_jjv v);
fa_jjiter *fa_jj_new_iter(fa_jj *m, bool (*next)(fa_jj *, fa_jjiter *, fa_jjv *), const char *type);
fa_jjv fa_jj_reversed(fa_jj *m, fa_jjv v, bool *ok);

/* ---- builtins ---- */

const fa_jjfunc *fa_jj_filter(const char *name, size_t n);
const fa_jjfunc *fa_jj_test(const char *name, size_t n);
const fa_jjfunc *fa_jj_global(const char *name, size_t n);
extern const fa_jjfunc fa_jj_text_filters[]; /* filters_text.c; ends with a NULL name */
/* Calls a builtin: binds the arguments first. */
fa_jjv fa_jj_invoke(fa_jj *m, const fa_jjfunc *f, fa_jjv self, const fa_jjargs *a);
fa_jjv fa_jj_call(fa_jj *m, fa_jjv f, const fa_jjargs *a);
static inline fa_jjv fa_jj_arg(const fa_jjargs *a, size_t i, fa_jjv otherwise) {
    return a->v[i].t != FA_JJ_MISSING ? a->v[i] : otherwise;
}

/* ---- syntax ---- */

typedef enum fa_jjtok {
    FA_JJ_T_EOF,
    FA_JJ_T_DATA,
    FA_JJ_T_BLOCK_BEGIN,
    FA_JJ_T_BLOCK_END,
    FA_JJ_T_VAR_BEGIN,
    FA_JJ_T_VAR_END,
    FA_JJ_T_NAME,
    FA_JJ_T_STRING,
    FA_JJ_T_INT,
    FA_JJ_T_FLOAT,
    FA_JJ_T_OP /* the operator is in op: one or two characters */
} fa_jjtok;

#define FA_JJ_OP2(a, b) ((a) << 8 | (b))

typedef struct fa_jjtoken {
    fa_jjtok t;
    uint32_t op;
    uint32_t line, col;
    fa_jjv v; /* NAME, STRING, DATA: STR; INT, FLOAT */
} fa_jjtoken;

typedef enum fa_jjkind {
    /* statements */
    FA_JJ_N_DATA,         /* v */
    FA_JJ_N_OUTPUT,       /* a; flag: a constant */
    FA_JJ_N_IF,           /* a test, list body, b next IF (elif) or NULL, c else chain */
    FA_JJ_N_FOR,          /* a target, b iter, c test, list body, d else chain; flag: recursive */
    FA_JJ_N_SET,          /* a target, b value */
    FA_JJ_N_SETBLOCK,     /* a target, b filter chain or NULL, list body */
    FA_JJ_N_MACRO,        /* sym name, args params, kw defaults (the last ones), list body */
    FA_JJ_N_CALL_BLOCK,   /* args, kw as MACRO, a the call, list body */
    FA_JJ_N_FILTER_BLOCK, /* a filter chain, list body */
    FA_JJ_N_WITH,         /* args targets, kw values, list body */
    FA_JJ_N_BLOCK,        /* sym, list body; flag scoped */
    FA_JJ_N_GENERATION,   /* list body */
    FA_JJ_N_BREAK,
    FA_JJ_N_CONTINUE,
    /* expressions */
    FA_JJ_N_CONST, /* v */
    FA_JJ_N_NAME,  /* sym */
    FA_JJ_N_NSREF, /* sym, v attribute */
    FA_JJ_N_TUPLE, /* args */
    FA_JJ_N_LIST,  /* args */
    FA_JJ_N_DICT,  /* args: keys, kw: values */
    FA_JJ_N_COND,  /* a test, b then, c else or NULL */
    FA_JJ_N_OR,
    FA_JJ_N_AND,
    FA_JJ_N_NOT,
    FA_JJ_N_COMPARE, /* a, args: OPERAND */
    FA_JJ_N_OPERAND, /* op, a */
    FA_JJ_N_ADD,
    FA_JJ_N_SUB,
    FA_JJ_N_MUL,
    FA_JJ_N_DIV,
    FA_JJ_N_FLOORDIV,
    FA_JJ_N_MOD,
    FA_JJ_N_POW,
    FA_JJ_N_NEG,
    FA_JJ_N_POS,
    FA_JJ_N_CONCAT,  /* args */
    FA_JJ_N_GETATTR, /* a, v */
    FA_JJ_N_GETITEM, /* a, b */
    FA_JJ_N_SLICE,   /* a start, b stop, c step; each may be NULL */
    FA_JJ_N_CALL,    /* a, args, kw, dyn_args, dyn_kw */
    FA_JJ_N_FILTER,  /* a (NULL: the block's text), v name, fn, args .. */
    FA_JJ_N_TEST     /* a, v name, fn, args .. */
} fa_jjkind;

enum { FA_JJ_USES_CALLER = 1, FA_JJ_USES_KWARGS = 2, FA_JJ_USES_VARARGS = 4, FA_JJ_USES_LOOP = 8 };

/* Variables that a scope begins without (symbols.c). */
typedef struct fa_jjundefs {
    uint32_t *sym, n;
} fa_jjundefs;

struct fa_jjnode {
    fa_jjkind k;
    uint32_t line, col;
    uint32_t sym;
    uint32_t op;
    uint32_t n_args, n_kw;
    bool flag;
    uint8_t uses; /* MACRO, CALL_BLOCK, FOR */
    fa_jjnode *next;
    fa_jjnode *a, *b, *c, *d;
    fa_jjnode *list, *args, *kw, *dyn_args, *dyn_kw; /* chains by next; keywords carry their name in v */
    fa_jjv v;
    const fa_jjfunc *fn;
    fa_jjundefs undef, undef_else; /* of the scopes that a statement opens */
};

typedef struct fa_jjsym {
    fa_jjstr name;
} fa_jjsym;

struct fa_jinja {
    fa_jjarena mem;
    char *what;
    fa_jjnode *body;
    fa_jjundefs undef;
    fa_jjstr **sym;                                                /* [n_sym] names of variables */
    uint32_t n_sym, sym_loop, sym_caller, sym_kwargs, sym_varargs; /* in this order from 0 on */
    const char *source;                                            /* newlines normalized */
    size_t n_source;
};

/* Cuts the source into tokens; source is normalized (\n only) and outlives them. */
fa_jjtoken *fa_jj_lex(fa_jj *m, const char *src, size_t n);
const char *fa_jj_token_text(const fa_jjtoken *t, char *buf, size_t cap); /* jinja's name of a token */

/* The parser: statements in parse.c, expressions in parse_expr.c. */
typedef struct fa_jjparser {
    fa_jj *m;
    const fa_jjtoken *tok;
    fa_jjstr **sym;
    uint32_t n_sym, cap_sym;
    fa_jjdict *sym_of; /* name: index */
    int nest;
    bool soft;                /* inside an if: unknown filters and tests fail when they are used */
    const fa_jjnode *unknown; /* the first one outside: fails when its statement ends */
    int in_loop;              /* break and continue are allowed */
    int n_tag;
    const char *const *end[FA_JJ_MAX_NEST + 8]; /* what open blocks wait for, for messages */
    int n_end;
    fa_jjstr *tag[FA_JJ_MAX_NEST + 8];
    uint32_t loop_line; /* where `loop` was last assigned */
    uint32_t n_loop_store;
    uint32_t n_use[4]; /* how often caller, kwargs, varargs, loop were read so far */
} fa_jjparser;

fa_jjnode *fa_jj_node(fa_jjparser *p, fa_jjkind k, const fa_jjtoken *at);
uint32_t fa_jj_sym(fa_jjparser *p, fa_jjstr *name);
_Noreturn void fa_jj_syntax(fa_jjparser *p, const fa_jjtoken *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void fa_jj_nest(fa_jjparser *p);
bool fa_jj_at_op(const fa_jjparser *p, uint32_t op);
bool fa_jj_at_name(const fa_jjparser *p, const char *name);
bool fa_jj_skip_op(fa_jjparser *p, uint32_t op);
bool fa_jj_skip_name(fa_jjparser *p, const char *name);
const fa_jjtoken *fa_jj_expect_op(fa_jjparser *p, uint32_t op);
const fa_jjtoken *fa_jj_expect(fa_jjparser *p, fa_jjtok t, const char *what);
fa_jjnode *fa_jj_parse_expr(fa_jjparser *p, bool with_cond);
fa_jjnode *fa_jj_parse_tuple(fa_jjparser *p, bool with_cond);
fa_jjnode *fa_jj_parse_target(fa_jjparser *p, bool with_ns);
fa_jjnode *fa_jj_parse_name_target(fa_jjparser *p);
bool fa_jj_is_const(const fa_jjnode *n); /* no names, no calls */
fa_jjnode *fa_jj_parse_filter(fa_jjparser *p, fa_jjnode *node, bool inline_start);
void fa_jj_parse_template(fa_jjparser *p, fa_jinja *t);
void fa_jj_track(fa_jj *m, fa_jinja *t); /* fills the undef of all scopes (symbols.c) */

/* ---- evaluation: expressions in eval.c, statements in exec.c ---- */

fa_jjv fa_jj_eval(fa_jj *m, const fa_jjnode *n, fa_jjscope *s);
fa_jjargs fa_jj_eval_args(fa_jj *m, const fa_jjnode *n, fa_jjscope *s);
fa_jjv fa_jj_apply_filter(fa_jj *m, const fa_jjnode *n, fa_jjv v, fa_jjscope *s);
void fa_jj_exec(fa_jj *m, const fa_jjnode *list, fa_jjscope *s);
fa_jjv fa_jj_call_macro(fa_jj *m, fa_jjmacro *mc, const fa_jjargs *a);
fa_jjv fa_jj_call_loop(fa_jj *m, fa_jjloop *lo, fa_jjv seq);
bool fa_jj_loop_next(fa_jj *m, fa_jjloop *lo); /* its next item becomes lo->cur */
fa_jjv fa_jj_loop_attr(fa_jj *m, fa_jjloop *lo, fa_jjstr *name, bool *found);
fa_jjv fa_jj_lookup(fa_jj *m, uint32_t sym, const fa_jjscope *s);
void fa_jj_store(fa_jj *m, uint32_t sym, fa_jjscope *s, fa_jjv v);
void fa_jj_assign(fa_jj *m, const fa_jjnode *target, fa_jjscope *s, fa_jjv v);

/* ---- conversations (chat.c) ---- */

/* Completes the context as apply_chat_template does; *final: the text that the answer continues, NULL: none. */
void fa_jj_chat(fa_jj *m, fa_jjdict *ctx, fa_jjstr **final);
void fa_jj_chat_cut(fa_jj *m, fa_jjstr *final);

#endif
