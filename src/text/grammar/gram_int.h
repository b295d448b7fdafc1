/* Inside of grammars: the expression tree that the three notations are read into (tree.c), the automata that it is
 * compiled to (net.c), and the machine that runs them (machine.c, masks.c). */
#ifndef FA_TEXT_GRAM_INT_H
#define FA_TEXT_GRAM_INT_H

#include "base/buf.h"
#include "base/smap.h"
#include "text/grammar/grammar.h"

#include <pthread.h>

/* ---- vocab.c ---- */

/* The trie in depth-first order: the children of a node stand behind it, `skip` leads past all of them. Tokens are
 * sorted by their bytes; those that end at node i are order[tok(i) .. tok(i + 1)), those below it reach to
 * tok(skip). Node 0 is the root. */
typedef struct fa_vnode {
    uint32_t skip, tok;
    uint16_t depth; /* bytes from the root */
    uint8_t byte;
} fa_vnode;

struct fa_vocab {
    const fa_tok *tok; /* NULL in tests */
    size_t n_id;
    char *pool;
    uint32_t *off;   /* [n_id + 1] bytes of a token in the pool; empty: never written */
    uint32_t *order; /* [n_order] ids by their bytes */
    size_t n_order;
    fa_vnode *node; /* [n_node + 1], the last one closes */
    size_t n_node;
    uint32_t max_len; /* bytes of the longest token */
    bool eat_space;   /* the tokenizer takes a space off the front of a text: the first token loses it */
    int32_t *eos;
    size_t n_eos;
};

/* ---- tree.c: expressions ---- */

typedef enum fa_gx_kind {
    FA_GX_EMPTY,
    FA_GX_NEVER,     /* matches nothing */
    FA_GX_LIT,       /* bytes a .. a + b of lit */
    FA_GX_SET,       /* one code point out of ranges: pairs a .. a + b */
    FA_GX_SEQ,       /* children, first a, last b */
    FA_GX_ALT,       /* the same */
    FA_GX_REP,       /* child a, min to max times */
    FA_GX_RULE,      /* rule a */
    FA_GX_TOKEN,     /* token a */
    FA_GX_NOT_TOKEN, /* any ordinary token but a */
    FA_GX_NET,       /* an automaton: min states, the first begins; each child is an edge, a sequence from state min to
                        state max (max FA_GX_INF: the end) */
    FA_GX_BEGIN,     /* pattern.c only: ^ and $; gone when it is done */
    FA_GX_END
} fa_gx_kind;

#define FA_GX_INF 0xFFFFFFFFu

/* A node has one parent; what is used twice is a rule. */
typedef struct fa_gx {
    uint32_t next; /* sibling, 0: none */
    uint32_t a, b, min, max;
    uint32_t at; /* where in the text */
    uint8_t kind;
} fa_gx;

typedef struct fa_grule {
    const char *name; /* not NUL-terminated, NULL: made up */
    size_t n_name;
    uint32_t body; /* 0: not defined */
    uint32_t at;   /* where it is defined, or first used */
} fa_grule;

/* Everything that the readers share. rc is sticky: after a failure nothing more is added and node 0 is returned. */
typedef struct fa_gb {
    const char *text;
    size_t len;
    const char *what; /* "grammar", "schema", "regex": begins messages */
    const fa_vocab *v;
    fa_gx *x;
    size_t n_x, cap_x;
    uint32_t *range; /* code points, first and last */
    size_t n_range, cap_range;
    fa_buf lit;
    fa_grule *rule;
    size_t n_rule, cap_rule;
    uint32_t root;
    bool json;         /* sets and characters stand inside a JSON string */
    const char *where; /* schema: JSON pointer of the keyword that is read, begins messages of its pattern */
    int rc;
    fa_error *err;
} fa_gb;

enum { FA_GX_MAX_NODES = 1 << 21, FA_GX_MAX_DEPTH = 200, FA_GX_MAX_REPEATS = 4 };

void fa_gb_free(fa_gb *b);
/* "<what>: line L, column C: ..."; columns count characters. Returns 0 as the node that there is not. */
uint32_t fa_gb_fail(fa_gb *b, int code, size_t at, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Out of memory, or past a limit. */
uint32_t fa_gb_nomem(fa_gb *b);
uint32_t fa_gx_new(fa_gb *b, fa_gx_kind kind, size_t at);
void fa_gx_add(fa_gb *b, uint32_t parent, uint32_t child);
uint32_t fa_gx_lit(fa_gb *b, const char *s, size_t n, size_t at);
/* Ranges in any order, they may overlap; with b->json the way JSON writes these characters in a string. */
uint32_t fa_gx_set(fa_gb *b, uint32_t (*ranges)[2], size_t n, bool negate, size_t at);
uint32_t fa_gx_cp(fa_gb *b, uint32_t cp, size_t at);
uint32_t fa_gx_rep(fa_gb *b, uint32_t child, uint32_t min, uint32_t max, size_t at);
uint32_t fa_gx_rule(fa_gb *b, uint32_t rule, size_t at);
uint32_t fa_gx_seq2(fa_gb *b, uint32_t first, uint32_t second);
/* Index of a new rule, UINT32_MAX after a failure. */
uint32_t fa_gb_rule(fa_gb *b, const char *name, size_t n_name, size_t at);
/* Sorts and joins ranges in place, negates them; returns how many (room for n + 1). Surrogates are left out. */
size_t fa_ranges_tidy(uint32_t (*r)[2], size_t n, bool negate);

/* ---- the readers: fill b->rule and b->root ---- */
void fa_gbnf_read(fa_gb *b);
void fa_regex_read(fa_gb *b);
void fa_schema_read(fa_gb *b);
/* A regular expression as an expression. search: it may match anywhere in the string, else all of it. */
uint32_t fa_regex_tree(fa_gb *b, const char *pattern, size_t len, bool search);

/* ---- lang.c: languages of short strings, with the operations that expressions lack ---- */

/* A deterministic automaton over code points. Class k holds cut[k] .. cut[k + 1] - 1; state 0 begins. */
typedef struct fa_lang {
    uint32_t *cut, *to; /* [n_cls], [n_state, n_cls]: UINT32_MAX: no way */
    uint8_t *accept;    /* [n_state] */
    uint32_t n_cls, n_state;
} fa_lang;

void fa_lang_free(fa_lang *l);
/* From an expression without rules and without JSON escapes. All of these return false after a failure (b->rc). */
bool fa_lang_from_tree(fa_gb *b, uint32_t node, fa_lang *out);
bool fa_lang_lengths(fa_gb *b, uint32_t min, uint32_t max, fa_lang *out);
/* *a becomes what is in both; and: in a but not in c. */
bool fa_lang_both(fa_gb *b, fa_lang *a, const fa_lang *c);
bool fa_lang_without(fa_gb *b, fa_lang *a, const fa_lang *c);
bool fa_lang_empty(const fa_lang *l);
bool fa_lang_has(const fa_lang *l, const char *s, size_t n);
/* As an expression, with b->json the inside of a JSON string. */
uint32_t fa_lang_tree(fa_gb *b, const fa_lang *l);

/* ---- net.c: automata ---- */

typedef enum fa_gedge_kind { FA_GE_EPS, FA_GE_BYTES, FA_GE_CALL, FA_GE_TOKEN, FA_GE_NOT_TOKEN } fa_gedge_kind;

typedef struct fa_gedge {
    uint32_t to;
    uint32_t arg; /* CALL: call; tokens: the id */
    uint8_t kind, lo, hi;
} fa_gedge;

/* A call that runs `rule` between min and max times and goes on at `to`. An empty rule has min 0. */
typedef struct fa_gcall {
    uint32_t rule, to, min, max;
} fa_gcall;

typedef struct fa_gnet_rule {
    uint32_t start, end; /* end has no edges */
    uint32_t rank;       /* a rule that begins by calling another has the lower rank */
    bool nullable;
} fa_gnet_rule;

typedef struct fa_gnet {
    uint32_t *edge_of; /* [n_state + 1] */
    fa_gedge *edge;
    fa_gcall *call;
    fa_gnet_rule *rule;
    uint8_t *is_end;   /* [n_state] 1: the end of a rule; 2: has edges with text or calls */
    uint32_t *by_rank; /* [n_rule] rules */
    size_t n_state, n_edge, n_call, n_rule;
    uint32_t root;
    uint8_t cls[256], rep[256]; /* byte -> class, class -> a byte */
    uint32_t n_cls;
} fa_gnet;

int fa_gnet_build(fa_gnet *net, fa_gb *b);
void fa_gnet_free(fa_gnet *net);

#endif
