/* What the files of text/answer share: the rows of the table, the matcher of tags, values, body parsers. */
#ifndef FA_TEXT_ANSWER_INT_H
#define FA_TEXT_ANSWER_INT_H

#include "io/json.h"
#include "text/answer/answer.h"

/* ---- calls as body parsers hand them over ---- */

typedef struct fa_ans_call {
    char *name, *id; /* id may be NULL */
    fa_buf args;
} fa_ans_call;

/* What a body parser works with. Calls are taken only when it returns true. */
typedef struct fa_ans_cx {
    const fa_jnode *tools; /* array, or NULL */
    const char *to;        /* recipient that a message's header named; else NULL */
    fa_ans_call *call;
    size_t n, cap;
    bool cut; /* the output ended before the closing tag began */
    bool oom;
} fa_ans_cx;

/* A new call, filled by the caller through its args; NULL when memory is out or the name is unfit (empty, with a NUL).
 */
fa_ans_call *fa_ans_add(fa_ans_cx *cx, const char *name, size_t len, const char *id, size_t id_len);
void fa_ans_drop(fa_ans_cx *cx); /* frees all calls */

typedef bool fa_ans_body(fa_ans_cx *cx, const char *s, size_t n);

/* ---- rows ---- */

/* Inside quotes nothing ends a call. */
typedef enum fa_ans_quote {
    FA_ANS_PLAIN, /* there are none */
    FA_ANS_JSON,  /* "..." with backslashes */
    FA_ANS_PY,    /* '...' too */
    FA_ANS_TAGGED /* from `from` to `to`, as written */
} fa_ans_quote;

typedef struct fa_ans_spec {
    fa_ans_body *body;
    const char *close[3]; /* end the call and belong to it */
    const char *stop[3];  /* end the call and do not */
    fa_ans_quote quote;
    const char *from, *to;
    bool value;                           /* ends with the first JSON (Python) value after its name */
    const struct fa_ans_spec *json, *xml; /* taken instead when the body begins with { or [, with < */
    /* Can a body begin with s[0..n)? -1: that depends on what follows. Looks at FA_ANS_MAX_FIT bytes at most. */
    int (*fits)(const char *s, size_t n);
} fa_ans_spec;

typedef enum fa_ans_kind {
    FA_ANS_NO_TAG,
    FA_ANS_THINK,        /* reasoning begins */
    FA_ANS_THINK_END,    /* and ends; dropped when there is none */
    FA_ANS_CALL,         /* a call begins */
    FA_ANS_SECTION,      /* calls follow */
    FA_ANS_SECTION_END,  /* no more calls */
    FA_ANS_SECTION_CALL, /* a call begins if a section is open; else text */
    FA_ANS_SECTION_DROP, /* no text if a section is open */
    FA_ANS_INNER,        /* stands within calls, no text elsewhere */
    FA_ANS_DROP,         /* no text, nor reasoning */
    FA_ANS_HEADER,       /* a message's header begins */
    FA_ANS_HEADER_END,   /* its text begins */
    FA_ANS_MESSAGE_END
} fa_ans_kind;

typedef struct fa_ans_tag {
    const char *text;
    fa_ans_kind kind;
    const fa_ans_spec *call;
} fa_ans_tag;

enum { FA_ANS_MAX_TAG = 24, FA_ANS_MAX_MARK = 4, FA_ANS_MAX_FIT = 128 };

/* What follows a header. */
typedef enum fa_ans_mode {
    FA_ANS_M_TEXT,
    FA_ANS_M_THINK,
    FA_ANS_M_CALL,
    FA_ANS_M_HEADER,
    FA_ANS_M_SECTION
} fa_ans_mode;

typedef struct fa_ans_format {
    const char *name;
    const char *marks[FA_ANS_MAX_MARK]; /* all in the template; a newline parts spellings of which one is enough */
    fa_ans_tag tags[FA_ANS_MAX_TAG];
    const fa_ans_spec *bare; /* calls that no tag announces: at the beginning and after one another */
    /* Reads a header (what stands between HEADER and the tag `end`): recipient of a call into *to. */
    fa_ans_mode (*header)(const char *s, size_t n, const char *end, fa_buf *to);
    const fa_ans_spec *message; /* of FA_ANS_M_CALL */
    const char *header_word;    /* how the rest of a header can begin that the prompt began; NULL: anyhow */
    bool call_in_think;         /* a call may stand in the reasoning, and ends it */
} fa_ans_format;

const fa_ans_format *fa_ans_find(const char *name);

/* ---- the matcher: all tags of a format and all special tokens ---- */

typedef struct fa_ans_node {
    uint32_t child, next; /* 0: none */
    int16_t tag;          /* of the format; -1: a special token; FA_ANS_NONE: no end here */
    uint8_t byte;
} fa_ans_node;

enum { FA_ANS_NONE = -2, FA_ANS_SPECIAL = -1 };

typedef struct fa_ans_trie {
    fa_ans_node *node;
    uint32_t n, cap;
    uint32_t root[256];
    bool special; /* it has special tokens */
} fa_ans_trie;

bool fa_ans_trie_add(fa_ans_trie *t, const char *s, size_t n, int tag); /* first come, first kept; false: no memory */
void fa_ans_trie_free(fa_ans_trie *t);
/* The longest tag at s[0..n), n >= 1: its length, and which into *tag. 0: none. *more: further bytes could make (a
 * longer) one. */
size_t fa_ans_trie_match(const fa_ans_trie *t, const char *s, size_t n, int *tag, bool *more);

/* ---- the splitter ---- */

typedef struct fa_ans_part {
    fa_answer_kind kind;
    fa_buf text;
    char *name, *id;
} fa_ans_part;

struct fa_answer {
    const fa_ans_format *fmt;
    fa_ans_trie trie;
    fa_json *tools;
    fa_ans_cx cx;
    /* Output that is not split yet: in[pos..]. Valid UTF-8; carry: the beginning of a character. */
    fa_buf in;
    size_t pos, n_carry;
    char carry[4];
    fa_ans_mode mode;
    fa_buf lead;      /* white space and opening tags of sections that come out only if text follows */
    bool lead_tag;    /* lead is more than white space */
    bool trim;        /* white space that comes next is dropped: after reasoning and calls */
    bool section;     /* calls may follow without a tag of their own */
    bool section_bad; /* its opening tag came out as text, and so will the closing one */
    bool bare_ok;     /* a call without a tag may begin here */
    bool fresh;       /* a header whose beginning the prompt holds, nothing of it was written yet */
    fa_buf head, to;  /* a header so far; the recipient it named */
    /* A call: its opening tag, and its body as far as in[pos..pos+scan) was looked at. */
    const fa_ans_spec *spec;
    fa_buf open;
    size_t scan, depth, close_in_quote;    /* SIZE_MAX: none */
    bool sniffed, fits, started, in_think; /* in_think: it stands in the reasoning, and is part of it if it is none */
    char quote;                            /* the one that is open: '"', '\'', 'T' for a tagged one, 0 */
    uint8_t hot[256];                      /* bytes out of quotes that need a look */
    int n_retry;                           /* of calls that were not closed */
    /* Parts: part[first..n), and the one that the caller looks at. */
    fa_ans_part *part, taken;
    size_t first, n, cap;
    bool failed, done;
};

void fa_ans_emit(fa_answer *a, fa_answer_kind kind, const char *s, size_t n);
/* s without special tokens, as text or, in a call that stands there, as reasoning. */
void fa_ans_verbatim(fa_answer *a, const char *s, size_t n);
void fa_ans_flush_lead(fa_answer *a);
void fa_ans_begin_call(fa_answer *a, const fa_ans_spec *spec, const char *open, size_t n);
/* Goes on with the call in in[pos..]; false: more output is needed. */
bool fa_ans_step_call(fa_answer *a, bool final);

/* ---- values ---- */

typedef struct fa_ans_dialect {
    const char *quote; /* strings stand between two of these, as written; NULL: no such strings */
    bool python;       /* '...', True, False, None, tuples, a comma before the bracket */
    bool bare;         /* keys without quotes, and words as strings */
    bool none;         /* True, False, None, but no '...' */
} fa_ans_dialect;

extern const fa_ans_dialect fa_ans_json, fa_ans_python;

size_t fa_ans_space(const char *s, size_t n, size_t i); /* the first i that is no white space */
bool fa_ans_is_space(char c);
/* Reads one value at s[*i]; appends it as JSON in Python's spacing ({"a": 1, "b": [1, 2]}), numbers as spelled. Depth
 * is bounded. On failure *out holds rubbish. */
bool fa_ans_value(const fa_ans_dialect *d, const char *s, size_t n, size_t *i, fa_buf *out);
/* Reads one string and appends what it means. */
bool fa_ans_string(const fa_ans_dialect *d, const char *s, size_t n, size_t *i, fa_buf *out);
void fa_ans_quoted(fa_buf *out, const char *s, size_t n); /* s as a JSON string */
/* The whole of s[0..n), white space around it aside, is one value. */
bool fa_ans_whole(const fa_ans_dialect *d, const char *s, size_t n, fa_buf *out);

/* Arguments that are written as text, by the tool's schema. */
const fa_jnode *fa_ans_props(const fa_ans_cx *cx, const char *fn); /* properties of a tool's parameters, or NULL */
void fa_ans_typed(const fa_jnode *props, const char *key, const char *s, size_t n, fa_buf *out);

/* ---- body parsers ---- */

fa_ans_body fa_ans_body_json;   /* {"name":..., "arguments":...}, one, several, or in an array */
fa_ans_body fa_ans_body_bare;   /* the same, but arguments must be there */
fa_ans_body fa_ans_body_keyed;  /* [{"name": {arguments}}, ...] */
fa_ans_body fa_ans_body_python; /* [f(a=1), g()] */
fa_ans_body fa_ans_body_python_or_json, fa_ans_body_bare_or_python; /* by the look */
fa_ans_body fa_ans_body_code;                                       /* tool.call(a=1), else code for "python" */
fa_ans_body fa_ans_body_mistral;                                    /* name[CALL_ID]id[ARGS]{...} or an array */
fa_ans_body fa_ans_body_named;                                      /* name>{...} */
fa_ans_body fa_ans_body_to;                                         /* {...} for the header's recipient */
fa_ans_body fa_ans_body_deepseek; /* name<sep>{...}, function<sep>name\n```json\n{...}\n``` */
fa_ans_body fa_ans_body_kimi;     /* functions.name:0<|tool_call_argument_begin|>{...} */
fa_ans_body fa_ans_body_solar;    /* id<|tool_call:name|>name<|tool_call:args|>{...} */
fa_ans_body fa_ans_body_gemma;    /* call:name{key:<|"|>text<|"|>} */
fa_ans_body fa_ans_body_gemma_fn; /* the same with <escape> */
fa_ans_body fa_ans_body_action;   /* Action: ```json [...] ``` */
fa_ans_body fa_ans_body_function; /* <function=name><parameter=key>value</parameter></function> */
fa_ans_body fa_ans_body_invoke;   /* name="..."><parameter name="key">value</parameter> */
fa_ans_body fa_ans_body_dsml, fa_ans_body_atem, fa_ans_body_param, fa_ans_body_kimi3, fa_ans_body_minimax3;
fa_ans_body fa_ans_body_glm; /* name<arg_key>key</arg_key><arg_value>value</arg_value> */
fa_ans_body fa_ans_body_hy;  /* the same with :opensource behind the tags' names */

#endif
