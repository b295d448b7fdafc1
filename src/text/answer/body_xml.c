/* Body parsers of formats that write each argument between tags of its own. One reader serves all notations with one
 * level of parameters (a style is a row of tags); MiniMax M3, which nests, has its own. */
#include "text/answer/answer_int.h"

#include <string.h>

typedef struct reader {
    const char *s;
    size_t n, i;
} reader;

static bool at(const reader *r, const char *what) {
    size_t k = strlen(what);
    return r->n - r->i >= k && memcmp(r->s + r->i, what, k) == 0;
}

static void space(reader *r) { r->i = fa_ans_space(r->s, r->n, r->i); }

/* Steps over `what` if it stands here. */
static bool skip(reader *r, const char *what) {
    if (!at(r, what)) return false;
    r->i += strlen(what);
    return true;
}

/* Where the next `what` begins; false: nowhere. */
static bool seek(const reader *r, const char *what, size_t *where) {
    size_t k = strlen(what);
    const char *p = r->s + r->i, *end = r->s + r->n;
    while ((size_t)(end - p) >= k && (p = (const char *)memchr(p, what[0], (size_t)(end - p)))) {
        if ((size_t)(end - p) < k) break;
        if (memcmp(p, what, k) == 0) return *where = (size_t)(p - r->s), true;
        p++;
    }
    return false;
}

static void trim(const char *s, size_t *from, size_t *to) {
    while (*from < *to && fa_ans_is_space(s[*from])) ++*from;
    while (*to > *from && fa_ans_is_space(s[*to - 1])) --*to;
}

/* Takes the text up to `end`, and steps over that. */
static bool until(reader *r, const char *end, const char **s, size_t *n) {
    size_t where;
    if (!seek(r, end, &where)) return false;
    *s = r->s + r->i;
    *n = where - r->i;
    r->i = where + strlen(end);
    return true;
}

/* ---- one level of parameters ---- */

typedef enum newlines {
    NL_KEEP,
    NL_PAIR
} newlines; /* a newline behind the opening tag, and then one before the closing, are layout */

typedef struct style {
    const char *fn, *fn_end;               /* around the name of the function; fn may be missing at the beginning */
    const char *tag_end;                   /* of opening tags with attributes, NULL: the name's end is the tag's */
    const char *param, *param_end, *close; /* around the key, and behind the value */
    const char *fn_close;
    const char *text, *other;        /* attributes that say: a string, JSON */
    const char *whole, *whole_close; /* around all arguments as one object, another way to write them */
    bool cdata;
    newlines nl;
} style;

static bool contains(const char *s, size_t n, const char *what) {
    reader r = {s, n, 0};
    size_t where;
    return what && seek(&r, what, &where);
}

/* The value of a parameter, up to its closing tag and without layout; CDATA hides that tag. */
static bool value_of(reader *r, const style *st, const char **s, size_t *n) {
    if (st->cdata && skip(r, "<![CDATA[")) return until(r, "]]>", s, n) && skip(r, st->close);
    if (!until(r, st->close, s, n)) return false;
    if (st->nl == NL_PAIR && *n && **s == '\n') {
        ++*s, --*n;
        if (*n && (*s)[*n - 1] == '\n') --*n;
    }
    return true;
}

/* One parameter, whose opening tag has just been passed over up to its key. */
static bool param(reader *r, const style *st, const fa_jnode *props, fa_buf *args) {
    const char *key, *attr = NULL, *val;
    size_t key_n, attr_n = 0, val_n, from = 0;
    if (!until(r, st->param_end, &key, &key_n)) return false;
    if (st->tag_end && !until(r, st->tag_end, &attr, &attr_n)) return false;
    trim(key, &from, &key_n);
    key += from;
    key_n -= from;
    if (!key_n || memchr(key, '\n', key_n) || !value_of(r, st, &val, &val_n)) return false;
    fa_buf name = {0};
    fa_buf_add(&name, key, key_n);
    if (name.failed) return args->failed = true, false;
    if (args->len > 1) fa_buf_puts(args, ", ");
    fa_ans_quoted(args, key, key_n);
    fa_buf_puts(args, ": ");
    size_t mark = args->len;
    bool is_text = contains(attr, attr_n, st->text);
    bool json = !is_text && contains(attr, attr_n, st->other) && fa_ans_whole(&fa_ans_json, val, val_n, args);
    if (!json && !args->failed) args->len = mark;
    if (is_text)
        fa_ans_quoted(args, val, val_n);
    else if (!json)
        fa_ans_typed(props, name.data, val, val_n, args);
    fa_buf_free(&name);
    return !args->failed;
}

static bool function(fa_ans_cx *cx, reader *r, const style *st) {
    const char *name, *rest;
    size_t name_n, rest_n, from = 0;
    space(r);
    skip(r, st->fn);
    if (!until(r, st->fn_end, &name, &name_n)) return false;
    if (st->tag_end && !until(r, st->tag_end, &rest, &rest_n)) return false;
    trim(name, &from, &name_n);
    if (memchr(name, '\n', name_n) || memchr(name, '<', name_n)) return false;
    fa_ans_call *c = fa_ans_add(cx, name + from, name_n - from, NULL, 0);
    if (!c) return false;
    const fa_jnode *props = fa_ans_props(cx, c->name);
    space(r);
    if (st->whole && skip(r, st->whole)) {
        if (!until(r, st->whole_close, &rest, &rest_n)) return false;
        if (!fa_ans_whole(&fa_ans_json, rest, rest_n, &c->args) || c->args.data[0] != '{') return false;
        space(r);
        return skip(r, st->fn_close) || r->i == r->n;
    }
    fa_buf_puts(&c->args, "{");
    for (; skip(r, st->param); space(r))
        if (!param(r, st, props, &c->args)) return cx->oom |= c->args.failed, false;
    fa_buf_puts(&c->args, "}");
    if (!skip(r, st->fn_close) && r->i < r->n) return false;
    space(r);
    return true;
}

static bool functions(fa_ans_cx *cx, const style *st, const char *s, size_t n) {
    reader r = {s, n, 0};
    do {
        if (!function(cx, &r, st)) return false;
    } while (r.i < r.n);
    return true;
}

bool fa_ans_body_function(fa_ans_cx *cx, const char *s, size_t n) {
    static const style st = {.fn = "<function=",
                             .fn_end = ">",
                             .param = "<parameter=",
                             .param_end = ">",
                             .close = "</parameter>",
                             .fn_close = "</function>",
                             .nl = NL_PAIR};
    return functions(cx, &st, s, n);
}

bool fa_ans_body_invoke(fa_ans_cx *cx, const char *s, size_t n) {
    static const style st = {.fn = "<invoke name=\"",
                             .fn_end = "\"",
                             .tag_end = ">",
                             .param = "<parameter name=\"",
                             .param_end = "\"",
                             .close = "</parameter>",
                             .fn_close = "</invoke>",
                             .nl = NL_PAIR};
    return functions(cx, &st, s, n);
}

bool fa_ans_body_dsml(fa_ans_cx *cx, const char *s, size_t n) {
    static const style st = {.fn = "<｜DSML｜invoke name=\"",
                             .fn_end = "\"",
                             .tag_end = ">",
                             .param = "<｜DSML｜parameter name=\"",
                             .param_end = "\"",
                             .close = "</｜DSML｜parameter>",
                             .fn_close = "</｜DSML｜invoke>",
                             .text = "string=\"true\"",
                             .other = "string=\"false\""};
    return functions(cx, &st, s, n);
}

bool fa_ans_body_atem(fa_ans_cx *cx, const char *s, size_t n) {
    static const style st = {.fn = "<atem:invoke name=\"",
                             .fn_end = "\"",
                             .tag_end = ">",
                             .param = "<atem:parameter name=\"",
                             .param_end = "\"",
                             .close = "</atem:parameter>",
                             .fn_close = "</atem:invoke>"};
    return functions(cx, &st, s, n);
}

bool fa_ans_body_param(fa_ans_cx *cx, const char *s, size_t n) {
    static const style st = {.fn = "<function name=\"",
                             .fn_end = "\"",
                             .tag_end = ">",
                             .param = "<param name=\"",
                             .param_end = "\"",
                             .close = "</param>",
                             .fn_close = "</function>",
                             .cdata = true};
    return functions(cx, &st, s, n);
}

bool fa_ans_body_kimi3(fa_ans_cx *cx, const char *s, size_t n) {
    static const style st = {.fn = "<|open|>call tool=\"",
                             .fn_end = "\"",
                             .tag_end = "<|sep|>",
                             .param = "<|open|>argument key=\"",
                             .param_end = "\"",
                             .close = "<|close|>argument<|sep|>",
                             .fn_close = "<|close|>call<|sep|>",
                             .text = "type=\"string\"",
                             .other = "type=\"",
                             .whole = "<|open|>json type=\"object\"<|sep|>",
                             .whole_close = "<|close|>json<|sep|>"};
    return functions(cx, &st, s, n);
}

/* ---- keys and values in tags of their own ---- */

typedef struct pairs {
    const char *sep, *key, *key_end, *val, *val_end;
} pairs;

static bool glm(fa_ans_cx *cx, const pairs *p, const char *s, size_t n) {
    reader r = {s, n, 0};
    const char *key, *val;
    size_t key_n, val_n, from = 0, to;
    if (!(p->sep && seek(&r, p->sep, &to)) && !seek(&r, p->key, &to)) to = n;
    r.i = to;
    trim(s, &from, &to);
    for (size_t i = from; i < to; i++) /* a name, not prose about the tag */
        if (fa_ans_is_space(s[i]) || strchr("<>`\"'", s[i])) return false;
    if (cx->cut && r.i == n) return false; /* a name alone may be half a name */
    fa_ans_call *c = fa_ans_add(cx, s + from, to - from, NULL, 0);
    if (!c) return false;
    const fa_jnode *props = fa_ans_props(cx, c->name);
    fa_buf name = {0};
    bool good = true;
    if (p->sep) skip(&r, p->sep);
    fa_buf_puts(&c->args, "{");
    for (space(&r); good && skip(&r, p->key); space(&r)) {
        good = until(&r, p->key_end, &key, &key_n);
        space(&r);
        good = good && skip(&r, p->val) && until(&r, p->val_end, &val, &val_n);
        if (!good) break;
        name.len = 0;
        fa_buf_add(&name, key, key_n);
        if (name.failed) break;
        if (c->args.len > 1) fa_buf_puts(&c->args, ", ");
        fa_ans_quoted(&c->args, key, key_n);
        fa_buf_puts(&c->args, ": ");
        fa_ans_typed(props, name.data, val, val_n, &c->args);
    }
    fa_buf_puts(&c->args, "}");
    cx->oom |= name.failed;
    fa_buf_free(&name);
    return good && r.i == n;
}

bool fa_ans_body_glm(fa_ans_cx *cx, const char *s, size_t n) {
    static const pairs p = {NULL, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"};
    return glm(cx, &p, s, n);
}

bool fa_ans_body_hy(fa_ans_cx *cx, const char *s, size_t n) {
    static const pairs p = {"<tool_sep:opensource>", "<arg_key:opensource>", "</arg_key:opensource>",
                            "<arg_value:opensource>", "</arg_value:opensource>"};
    return glm(cx, &p, s, n);
}

/* ---- MiniMax M3: values nest, every tag is announced by a mark that text cannot hold ---- */

#define M3 "]<]minimax[>["

enum { M3_DEPTH = 64 };

/* The type of text at a leaf comes from the schema of the outermost key only when that key is the leaf; deeper ones are
 * guessed. */
static bool m3_value(reader *r, const fa_jnode *props, const char *key, size_t key_n, fa_buf *out, int depth);

static bool m3_tag(reader *r, const char **name, size_t *n) {
    if (!skip(r, M3 "<") || at(r, "/")) return false;
    return until(r, ">", name, n) && *n && *n < 256;
}

static bool m3_close(reader *r, const char *name, size_t n) {
    if (!skip(r, M3 "</") || r->n - r->i <= n || memcmp(r->s + r->i, name, n) != 0 || r->s[r->i + n] != '>')
        return false;
    r->i += n + 1;
    return true;
}

/* Members of an object, or elements of a list (tags named "item"), up to a closing tag. */
static bool m3_members(reader *r, const fa_jnode *props, fa_buf *out, int depth, bool array) {
    const char *name;
    size_t n;
    fa_buf_puts(out, array ? "[" : "{");
    for (bool first = true; space(r), !at(r, M3 "</") && (depth || r->i < r->n); first = false) {
        if (!m3_tag(r, &name, &n)) return false;
        if (!first) fa_buf_puts(out, ", ");
        if (array != (n == 4 && memcmp(name, "item", 4) == 0)) return false;
        if (!array) {
            fa_ans_quoted(out, name, n);
            fa_buf_puts(out, ": ");
        }
        if (!m3_value(r, props, name, n, out, depth) || !m3_close(r, name, n)) return false;
    }
    fa_buf_puts(out, array ? "]" : "}");
    return !out->failed;
}

static bool m3_value(reader *r, const fa_jnode *props, const char *key, size_t key_n, fa_buf *out, int depth) {
    size_t mark = r->i, end;
    char name[256];
    if (depth > M3_DEPTH) return false;
    space(r);
    if (at(r, M3 "<") && !at(r, M3 "</")) return m3_members(r, NULL, out, depth + 1, at(r, M3 "<item>"));
    r->i = mark;
    if (!seek(r, M3, &end)) return false;
    memcpy(name, key, key_n);
    name[key_n] = 0;
    fa_ans_typed(props, name, r->s + r->i, end - r->i, out);
    r->i = end;
    return true;
}

bool fa_ans_body_minimax3(fa_ans_cx *cx, const char *s, size_t n) {
    reader r = {s, n, 0};
    const char *name;
    size_t len;
    skip(&r, M3 "<invoke name=\"");
    if (!until(&r, "\">", &name, &len)) return false;
    fa_ans_call *c = fa_ans_add(cx, name, len, NULL, 0);
    if (!c || !m3_members(&r, fa_ans_props(cx, c->name), &c->args, 0, false)) return false;
    skip(&r, M3 "</invoke>");
    space(&r);
    return r.i == r.n;
}
