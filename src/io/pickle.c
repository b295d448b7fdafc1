/* The pickle machine. A stack of indices of values; values never move in meaning, so references through the memo are
 * indices too. Every opcode makes at most one value and one pair, and no value is walked into: neither cycles nor depth
 * matter. */
#include "io/pickle.h"
#include "base/alloc.h"
#include "io/zip.h"

#include <string.h>

typedef struct pair {
    uint32_t key, value, next; /* next: 1 + index; key NOTHING: an element of a list */
} pair;

#define NOTHING UINT32_MAX /* on the stack: a mark */

typedef struct list {
    uint32_t *v;
    size_t n, cap;
} list;

struct fa_pickle {
    fa_pval *val;
    size_t n_val, cap_val;
    pair *pair;
    size_t n_pair, cap_pair;
    list item; /* of tuples: indices of values */
    uint32_t root;
};

typedef struct machine {
    fa_pickle *p;
    const uint8_t *data;
    size_t size, at;
    list stack, memo; /* memo: 1 + index of a value; 0: nothing */
    const char *const *globals;
    const char *what;
    fa_error *err;
    int rc;
} machine;

enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_POP = '0',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_PERSID = 'Q',
    OP_REDUCE = 'R',
    OP_STR = 'X',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_APPENDS = 'e',
    OP_GET = 'h',
    OP_LONG_GET = 'j',
    OP_EMPTY_LIST = ']',
    OP_PUT = 'q',
    OP_LONG_PUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_EMPTY_TUPLE = ')',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_FLOAT = 'G',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_TRUE = 0x88,
    OP_FALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_SHORT_STR = 0x8c,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95
};

static const char ordered_dict[] = "collections OrderedDict";

/* ---- errors and growing lists ---- */

static void fail(machine *m, const char *why) {
    if (!m->rc) m->rc = fa_fail(m->err, FFAI_EFORMAT, "%s: pickle, byte %zu: %s", m->what, m->at, why);
}

static void no_memory(machine *m) {
    if (!m->rc) m->rc = fa_fail(m->err, FFAI_ENOMEM, "%s: no memory for its pickle", m->what);
}

/* Room for one more of `size` bytes. */
static bool grow(machine *m, void **v, size_t n, size_t *cap, size_t size) {
    if (n < *cap) return true;
    const size_t more = *cap ? *cap + *cap / 2 : 256;
    void *p = fa_realloc(*v, more, size);
    if (!p) {
        no_memory(m);
        return false;
    }
    *v = p;
    *cap = more;
    return true;
}

static void push(machine *m, uint32_t v) {
    if (grow(m, (void **)&m->stack.v, m->stack.n, &m->stack.cap, sizeof *m->stack.v)) m->stack.v[m->stack.n++] = v;
}

/* A new value, on the stack. */
static fa_pval *make(machine *m, fa_ptype type) {
    fa_pickle *p = m->p;
    if (!grow(m, (void **)&p->val, p->n_val, &p->cap_val, sizeof *p->val)) return NULL;
    fa_pval *v = &p->val[p->n_val++];
    *v = (fa_pval){.type = (uint8_t)type};
    push(m, (uint32_t)(p->n_val - 1));
    return m->rc ? NULL : v;
}

/* The topmost value, taken from the stack or not; an error when there is none. */
static uint32_t top(machine *m, bool take) {
    if (!m->stack.n || m->stack.v[m->stack.n - 1] == NOTHING) {
        fail(m, "an opcode without its operands");
        return NOTHING;
    }
    return m->stack.v[take ? --m->stack.n : m->stack.n - 1];
}

/* Where on the stack what stands after the last mark begins. */
static size_t after_mark(machine *m) {
    for (size_t i = m->stack.n; i > 0; i--)
        if (m->stack.v[i - 1] == NOTHING) return i;
    fail(m, "an opcode without its mark");
    return m->stack.n;
}

/* ---- operands in the pickle ---- */

static const uint8_t *take(machine *m, uint64_t n) {
    if (m->rc || n > m->size - m->at) {
        fail(m, "it ends inside an opcode (truncated file?)");
        return NULL;
    }
    m->at += (size_t)n;
    return m->data + m->at - n;
}

static uint64_t number(machine *m, int n) {
    const uint8_t *p = take(m, (uint64_t)n);
    uint64_t v = 0;
    while (p && n-- > 0) v = v << 8 | p[n];
    return v;
}

static void make_int(machine *m, int64_t i) {
    fa_pval *v = make(m, FA_P_INT);
    if (v) v->u.i = i;
}

static void make_bool(machine *m, bool is) {
    fa_pval *v = make(m, FA_P_BOOL);
    if (v) v->u.i = is;
}

/* Little-endian, signed, of any number of bytes up to 8. */
static void make_long(machine *m) {
    const int n = (int)number(m, 1);
    if (n > 8) {
        fail(m, "an integer of more than 64 bits");
        return;
    }
    uint64_t v = number(m, n);
    if (n && n < 8 && v >> (8 * n - 1)) v |= ~UINT64_C(0) << 8 * n;
    if (!m->rc) make_int(m, (int64_t)v);
}

static void make_str(machine *m, int size_bytes) {
    const uint64_t n = number(m, size_bytes);
    const uint8_t *s = take(m, n);
    fa_pval *v = s ? make(m, FA_P_STR) : NULL;
    if (!v) return;
    v->n = (uint32_t)n;
    v->u.s = (const char *)s;
}

/* ---- globals ---- */

/* Is global text "a b" the module and the name? */
static bool same_global(const char *text, const char *mod, size_t n_mod, const char *name, size_t n_name) {
    return strlen(text) == n_mod + 1 + n_name && !memcmp(text, mod, n_mod) && text[n_mod] == ' ' &&
           !memcmp(text + n_mod + 1, name, n_name);
}

static void make_global(machine *m, const char *mod, size_t n_mod, const char *name, size_t n_name) {
    char a[104], b[104];
    int64_t i = -1;
    if (!same_global(ordered_dict, mod, n_mod, name, n_name)) {
        for (i = 0; m->globals[i] && !same_global(m->globals[i], mod, n_mod, name, n_name);) i++;
        if (!m->globals[i]) {
            if (!m->rc)
                m->rc = fa_fail(m->err, FFAI_ENOTSUP,
                                "%s: pickle, byte %zu: global \"%s.%s\" is not one of tensors; nothing of it is run",
                                m->what, m->at, fa_zip_shown(a, mod, n_mod), fa_zip_shown(b, name, n_name));
            return;
        }
    }
    fa_pval *v = make(m, FA_P_GLOBAL);
    if (v) v->u.i = i;
}

/* "module\nname\n" in the pickle. */
static void op_global(machine *m) {
    const uint8_t *mod = m->data + m->at, *end = m->data + m->size;
    const uint8_t *a = (const uint8_t *)memchr(mod, '\n', (size_t)(end - mod));
    const uint8_t *b = a ? (const uint8_t *)memchr(a + 1, '\n', (size_t)(end - a - 1)) : NULL;
    if (!b) {
        fail(m, "it ends inside an opcode (truncated file?)");
        return;
    }
    m->at = (size_t)(b + 1 - m->data);
    make_global(m, (const char *)mod, (size_t)(a - mod), (const char *)a + 1, (size_t)(b - a - 1));
}

static void op_stack_global(machine *m) {
    const uint32_t b = top(m, true), a = m->rc ? b : top(m, true);
    if (m->rc) return;
    const fa_pval x = m->p->val[a], y = m->p->val[b];
    if (x.type != FA_P_STR || y.type != FA_P_STR)
        fail(m, "the name of a global is no string");
    else
        make_global(m, x.u.s, x.n, y.u.s, y.n);
}

/* ---- containers ---- */

/* The values on the stack from `from` on, as a tuple. */
static void make_tuple(machine *m, size_t from) {
    list *l = &m->p->item;
    const size_t first = l->n;
    if (m->rc) return;
    for (size_t i = from; i < m->stack.n; i++) {
        if (m->stack.v[i] == NOTHING) fail(m, "an opcode without its operands");
        if (m->rc || !grow(m, (void **)&l->v, l->n, &l->cap, sizeof *l->v)) return;
        l->v[l->n++] = m->stack.v[i];
    }
    m->stack.n = from;
    fa_pval *v = make(m, FA_P_TUPLE);
    if (!v) return;
    v->n = (uint32_t)(l->n - first);
    v->u.at = (uint32_t)first;
}

static void small_tuple(machine *m, size_t n) {
    if (m->stack.n < n)
        fail(m, "an opcode without its operands");
    else
        make_tuple(m, m->stack.n - n);
}

/* Moves what stands on the stack from `from` on into the container below it (and below the mark, if there is one): as
 * elements or as keys and values. */
static void fill(machine *m, size_t from, bool marked, fa_ptype type) {
    fa_pickle *p = m->p;
    const size_t each = type == FA_P_DICT ? 2 : 1, end = m->stack.n, below = from - marked;
    if (m->rc) return;
    if (!below || m->stack.v[below - 1] == NOTHING || (end - from) % each ||
        p->val[m->stack.v[below - 1]].type != type) {
        fail(m, type == FA_P_DICT ? "keys and values for what is no dict" : "elements for what is no list");
        return;
    }
    fa_pval *c = &p->val[m->stack.v[below - 1]];
    for (size_t i = from; i < end; i += each) {
        if (!grow(m, (void **)&p->pair, p->n_pair, &p->cap_pair, sizeof *p->pair)) return;
        const uint32_t key = each == 2 ? m->stack.v[i] : NOTHING, value = m->stack.v[i + each - 1];
        if ((each == 2 && key == NOTHING) || value == NOTHING) fail(m, "an opcode without its operands");
        p->pair[p->n_pair++] = (pair){key, value, 0};
        const uint32_t at = (uint32_t)p->n_pair;
        if (c->u.chain.last)
            p->pair[c->u.chain.last - 1].next = at;
        else
            c->u.chain.first = at;
        c->u.chain.last = at;
        c->n++;
    }
    m->stack.n = below;
}

static void fill_one(machine *m, size_t n, fa_ptype type) {
    if (m->stack.n < n + 1)
        fail(m, "an opcode without its operands");
    else
        fill(m, m->stack.n - n, false, type);
}

/* A global called with a tuple: an empty OrderedDict, or for the caller to understand. */
static void op_reduce(machine *m) {
    const uint32_t args = top(m, true), fn = m->rc ? args : top(m, true);
    if (m->rc) return;
    const fa_pval f = m->p->val[fn], a = m->p->val[args];
    if (f.type != FA_P_GLOBAL || a.type != FA_P_TUPLE) {
        fail(m, "a call of what is no global, or not with a tuple");
    } else if (f.u.i < 0) {
        if (a.n)
            fail(m, "an OrderedDict with arguments");
        else
            make(m, FA_P_DICT);
    } else {
        fa_pval *v = make(m, FA_P_CALL);
        if (!v) return;
        v->n = (uint32_t)f.u.i;
        v->u.at = args;
    }
}

/* Attributes of a dict (torch's _metadata: versions of modules) are dropped. */
static void op_build(machine *m) {
    top(m, true);
    const uint32_t v = m->rc ? NOTHING : top(m, false);
    if (!m->rc && m->p->val[v].type != FA_P_DICT) fail(m, "attributes of what is no dict");
}

static void op_persid(machine *m) {
    const uint32_t id = top(m, true);
    fa_pval *v = m->rc ? NULL : make(m, FA_P_STORED);
    if (v) v->u.at = id;
}

/* ---- the memo ---- */

/* Picklers number the memo one by one: a number beyond the pickle's length is none of theirs. */
static void put(machine *m, uint64_t i) {
    list *l = &m->memo;
    const uint32_t v = top(m, false);
    if (m->rc) return;
    if (i > m->size) {
        fail(m, "a memo number beyond the pickle's length");
        return;
    }
    if (i >= l->cap) {
        size_t cap = l->cap ? l->cap : 256;
        while (cap <= i) cap *= 2;
        uint32_t *p = (uint32_t *)fa_realloc(l->v, cap, sizeof *p);
        if (!p) {
            no_memory(m);
            return;
        }
        memset(p + l->cap, 0, (cap - l->cap) * sizeof *p);
        l->v = p;
        l->cap = cap;
    }
    l->v[i] = v + 1;
}

static void get(machine *m, uint64_t i) {
    if (m->rc) return;
    if (i >= m->memo.cap || !m->memo.v[i])
        fail(m, "a memo number that was not put");
    else
        push(m, m->memo.v[i] - 1);
}

/* ---- the loop ---- */

/* One opcode that only makes or fills containers; false: it is none of these. */
static bool container_op(machine *m, int op) {
    switch (op) {
    case OP_MARK: push(m, NOTHING); return true;
    case OP_EMPTY_DICT: make(m, FA_P_DICT); return true;
    case OP_EMPTY_LIST: make(m, FA_P_LIST); return true;
    case OP_EMPTY_TUPLE: make(m, FA_P_TUPLE); return true;
    case OP_TUPLE1: small_tuple(m, 1); return true;
    case OP_TUPLE2: small_tuple(m, 2); return true;
    case OP_TUPLE3: small_tuple(m, 3); return true;
    case OP_TUPLE: {
        const size_t from = after_mark(m);
        make_tuple(m, from);
        if (m->rc) return true;
        m->stack.v[m->stack.n - 2] = m->stack.v[m->stack.n - 1]; /* over the mark */
        m->stack.n--;
        return true;
    }
    case OP_SETITEM: fill_one(m, 2, FA_P_DICT); return true;
    case OP_SETITEMS: fill(m, after_mark(m), true, FA_P_DICT); return true;
    case OP_APPEND: fill_one(m, 1, FA_P_LIST); return true;
    case OP_APPENDS: fill(m, after_mark(m), true, FA_P_LIST); return true;
    default: return false;
    }
}

static void step(machine *m, int op) {
    if (container_op(m, op)) return;
    switch (op) {
    case OP_PROTO:
        if (number(m, 1) > 5) fail(m, "a protocol beyond 5");
        return;
    case OP_FRAME: take(m, 8); return;
    case OP_POP: top(m, true); return;
    case OP_NONE: make(m, FA_P_NONE); return;
    case OP_TRUE: make_bool(m, true); return;
    case OP_FALSE: make_bool(m, false); return;
    case OP_BININT: make_int(m, (int32_t)number(m, 4)); return;
    case OP_BININT1: make_int(m, (int64_t)number(m, 1)); return;
    case OP_BININT2: make_int(m, (int64_t)number(m, 2)); return;
    case OP_LONG1: make_long(m); return;
    case OP_FLOAT:
        take(m, 8);
        if (!m->rc) make(m, FA_P_FLOAT);
        return;
    case OP_STR: make_str(m, 4); return;
    case OP_SHORT_STR: make_str(m, 1); return;
    case OP_GLOBAL: op_global(m); return;
    case OP_STACK_GLOBAL: op_stack_global(m); return;
    case OP_REDUCE: op_reduce(m); return;
    case OP_BUILD: op_build(m); return;
    case OP_PERSID: op_persid(m); return;
    case OP_PUT: put(m, number(m, 1)); return;
    case OP_LONG_PUT: put(m, number(m, 4)); return;
    case OP_MEMOIZE: put(m, m->memo.n++); return;
    case OP_GET: get(m, number(m, 1)); return;
    case OP_LONG_GET: get(m, number(m, 4)); return;
    default: break;
    }
    m->rc = fa_fail(m->err, FFAI_ENOTSUP, "%s: pickle, byte %zu: opcode 0x%02x ('%c') is not one of dicts of tensors",
                    m->what, m->at - 1, (unsigned)op, op > ' ' && op < 0x7F ? op : '?');
}

static void run(machine *m) {
    while (!m->rc) {
        const int op = (int)number(m, 1);
        if (m->rc) return;
        if (op == OP_STOP) break;
        step(m, op);
    }
    if (!m->rc) m->p->root = top(m, true);
    if (!m->rc && m->stack.n) fail(m, "values are left on its stack");
}

int fa_pickle_parse(fa_pickle **out, const uint8_t *data, size_t size, const char *const *globals, size_t *used,
                    const char *what, fa_error *err) {
    *out = NULL;
    const size_t seen = size < FA_PICKLE_MAX ? size : FA_PICKLE_MAX;
    if (seen < size && !used)
        return fa_fail(err, FFAI_ELIMIT, "%s: a pickle of %zu bytes, the limit is %d", what, size, FA_PICKLE_MAX);
    machine m = {.p = FA_NEW(fa_pickle), .data = data, .size = seen, .globals = globals, .what = what, .err = err};
    if (!m.p) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    run(&m);
    if (!m.rc && !used && m.at != size) fail(&m, "bytes after its end");
    if (used) *used = m.at;
    fa_free(m.stack.v);
    fa_free(m.memo.v);
    if (m.rc) {
        fa_pickle_free(m.p);
        return m.rc;
    }
    *out = m.p;
    return FFAI_OK;
}

void fa_pickle_free(fa_pickle *p) {
    if (!p) return;
    fa_free(p->val);
    fa_free(p->pair);
    fa_free(p->item.v);
    fa_free(p);
}

/* ---- looking at it ---- */

const fa_pval *fa_pickle_root(const fa_pickle *p) { return &p->val[p->root]; }

const fa_pval *fa_pickle_item(const fa_pickle *p, const fa_pval *tuple, uint32_t i) {
    if (!tuple || tuple->type != FA_P_TUPLE || i >= tuple->n) return NULL;
    return &p->val[p->item.v[tuple->u.at + i]];
}

const fa_pval *fa_pickle_behind(const fa_pickle *p, const fa_pval *v) {
    return v && (v->type == FA_P_CALL || v->type == FA_P_STORED) ? &p->val[v->u.at] : NULL;
}

bool fa_pickle_next(const fa_pickle *p, const fa_pval *v, uint32_t *it, const fa_pval **key, const fa_pval **value) {
    if (!v || (v->type != FA_P_DICT && v->type != FA_P_LIST)) return false;
    const uint32_t at = *it ? p->pair[*it - 1].next : v->u.chain.first;
    if (!at) return false;
    const pair *pr = &p->pair[at - 1];
    *it = at;
    *key = pr->key == NOTHING ? NULL : &p->val[pr->key];
    *value = &p->val[pr->value];
    return true;
}

bool fa_pval_is(const fa_pval *v, const char *text) {
    return v && v->type == FA_P_STR && v->n == strlen(text) && !memcmp(v->u.s, text, v->n);
}

const char *fa_pval_kind(const fa_pval *v) {
    static const char *const kinds[] = {"None",   "a bool", "an integer", "a float", "a string", "a tuple",
                                        "a list", "a dict", "a global",   "a call",  "a storage"};
    return v ? kinds[v->type] : "nothing";
}
