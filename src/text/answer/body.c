/* Body parsers of formats whose arguments are one JSON object, Python's keywords or Gemma's notation: what stood
 * between a call's tags, to names, ids and arguments. A parser returns false for what is no call of its format; the
 * text is then passed on as it was. */
#include "text/answer/answer_int.h"
#include "base/alloc.h"

#include <string.h>

/* ---- small readers ---- */

static bool starts(const char *s, size_t n, size_t i, const char *what) {
    size_t k = strlen(what);
    return n - i >= k && memcmp(s + i, what, k) == 0;
}

/* The first `what` in s[i..n), else n. */
static size_t find(const char *s, size_t n, size_t i, const char *what) {
    size_t k = strlen(what);
    while (i < n && n - i >= k) {
        const char *p = (const char *)memchr(s + i, what[0], n - i);
        if (!p) break;
        i = (size_t)(p - s);
        if (starts(s, n, i, what)) return i;
        i++;
    }
    return n;
}

static void trim(const char *s, size_t *from, size_t *to) {
    while (*from < *to && fa_ans_is_space(s[*from])) ++*from;
    while (*to > *from && fa_ans_is_space(s[*to - 1])) --*to;
}

/* A JSON string that holds an object. */
static bool object_in_string(const char *s, size_t n, size_t *i, fa_buf *args) {
    fa_buf text = {0};
    bool good = fa_ans_string(&fa_ans_json, s, n, i, &text) && text.data &&
                fa_ans_whole(&fa_ans_json, text.data, text.len, args) && args->data[0] == '{';
    args->failed |= text.failed;
    fa_buf_free(&text);
    return good;
}

/* One object at s[*i] as the arguments of a new call; nothing at all is {}. */
static bool object(fa_ans_cx *cx, const char *name, size_t len, const char *id, size_t id_len, const char *s, size_t n,
                   size_t *i) {
    fa_ans_call *c = fa_ans_add(cx, name, len, id, id_len);
    if (!c) return false;
    *i = fa_ans_space(s, n, *i);
    if (*i == n) return fa_buf_puts(&c->args, "{}"), true;
    if (s[*i] == '"') return object_in_string(s, n, i, &c->args);
    return s[*i] == '{' && fa_ans_value(&fa_ans_json, s, n, i, &c->args);
}

static bool object_rest(fa_ans_cx *cx, const char *name, size_t len, const char *s, size_t n) {
    size_t i = 0;
    return object(cx, name, len, NULL, 0, s, n, &i) && fa_ans_space(s, n, i) == n;
}

/* ---- JSON ---- */

typedef struct fields {
    fa_buf key, name, id, args, skip;
    bool has_name, has_args;
} fields;

static void fields_free(fields *f) {
    fa_buf_free(&f->key);
    fa_buf_free(&f->name);
    fa_buf_free(&f->id);
    fa_buf_free(&f->args);
    fa_buf_free(&f->skip);
}

static bool among(const fa_buf *key, const char *names) {
    char quoted[32];
    if (key->len + 3 > sizeof quoted) return false;
    quoted[0] = ' ';
    if (key->len) memcpy(quoted + 1, key->data, key->len);
    memcpy(quoted + 1 + key->len, " ", 2);
    return key->len && !memchr(key->data, ' ', key->len) && strstr(names, quoted);
}

static bool members(fields *f, const char *s, size_t n, size_t *i, bool inner);

/* Arguments: an object, null, or either as a string. */
static bool arguments(fields *f, const char *s, size_t n, size_t *i) {
    f->args.len = 0;
    f->has_args = true;
    if (*i < n && s[*i] == '"') return object_in_string(s, n, i, &f->args);
    if (!fa_ans_value(&fa_ans_json, s, n, i, &f->args)) return false;
    if (f->args.len == 4 && memcmp(f->args.data, "null", 4) == 0) {
        f->args.len = 0;
        fa_buf_puts(&f->args, "{}");
    }
    return f->args.len && f->args.data[0] == '{';
}

static bool member(fields *f, const char *s, size_t n, size_t *i, bool inner) {
    char c = *i < n ? s[*i] : 0;
    if (among(&f->key, " name tool_name function tool ") && c == '"') {
        f->name.len = 0;
        f->has_name = true;
        return fa_ans_string(&fa_ans_json, s, n, i, &f->name);
    }
    if (!inner && among(&f->key, " function ") && c == '{') return members(f, s, n, i, true);
    if (among(&f->key, " arguments parameters args ")) return arguments(f, s, n, i);
    if (among(&f->key, " id tool_call_id call_id ") && c == '"') {
        f->id.len = 0;
        return fa_ans_string(&fa_ans_json, s, n, i, &f->id);
    }
    f->skip.len = 0;
    return fa_ans_value(&fa_ans_json, s, n, i, &f->skip);
}

/* The members of the object at s[*i]. */
static bool members(fields *f, const char *s, size_t n, size_t *i, bool inner) {
    if (*i >= n || s[(*i)++] != '{') return false;
    for (bool first = true;; first = false) {
        *i = fa_ans_space(s, n, *i);
        if (*i >= n) return false;
        if (first && s[*i] == '}') break;
        f->key.len = 0;
        if (!fa_ans_string(&fa_ans_json, s, n, i, &f->key)) return false;
        *i = fa_ans_space(s, n, *i);
        if (*i >= n || s[(*i)++] != ':') return false;
        *i = fa_ans_space(s, n, *i);
        if (!member(f, s, n, i, inner)) return false;
        *i = fa_ans_space(s, n, *i);
        if (*i >= n) return false;
        if (s[*i] == '}') break;
        if (s[(*i)++] != ',') return false;
    }
    ++*i;
    return true;
}

static bool take(fa_ans_cx *cx, fields *f, bool need_args) {
    if (!f->has_name || !f->name.len || (need_args && !f->has_args)) return false;
    fa_ans_call *c = fa_ans_add(cx, f->name.data, f->name.len, f->id.data, f->id.len);
    if (!c) return false;
    if (!f->has_args) return fa_buf_puts(&c->args, "{}"), true;
    c->args = f->args;
    memset(&f->args, 0, sizeof f->args);
    return true;
}

static bool json_call(fa_ans_cx *cx, const char *s, size_t n, size_t *i, bool need_args) {
    fields f = {0};
    bool good = members(&f, s, n, i, false) && take(cx, &f, need_args);
    cx->oom |= f.key.failed || f.name.failed || f.id.failed || f.args.failed || f.skip.failed;
    fields_free(&f);
    return good;
}

/* Objects one after another, with or without an array around them and commas or semicolons between them. */
static bool json_calls(fa_ans_cx *cx, const char *s, size_t n, size_t i, bool need_args) {
    i = fa_ans_space(s, n, i);
    bool array = i < n && s[i] == '[';
    for (i += array; (i = fa_ans_space(s, n, i)) < n && s[i] != ']';) {
        if (!json_call(cx, s, n, &i, need_args)) return false;
        i = fa_ans_space(s, n, i);
        if (i < n && (s[i] == ',' || s[i] == ';')) i++;
    }
    if (array && (i >= n || s[i++] != ']')) return false;
    return cx->n && fa_ans_space(s, n, i) == n;
}

bool fa_ans_body_json(fa_ans_cx *cx, const char *s, size_t n) { return json_calls(cx, s, n, 0, false); }
bool fa_ans_body_bare(fa_ans_cx *cx, const char *s, size_t n) { return json_calls(cx, s, n, 0, true); }

bool fa_ans_body_action(fa_ans_cx *cx, const char *s, size_t n) {
    size_t i = fa_ans_space(s, n, 0);
    if (starts(s, n, i, "```json")) i += 7;
    size_t end = find(s, n, i, "```");
    return json_calls(cx, s, end, i, false);
}

/* {"name": {arguments}}: every member is a call. */
bool fa_ans_body_keyed(fa_ans_cx *cx, const char *s, size_t n) {
    size_t i = fa_ans_space(s, n, 0);
    if (i >= n || s[i++] != '[') return false;
    fa_buf name = {0};
    bool good = true;
    while (good) {
        i = fa_ans_space(s, n, i);
        if (i >= n || s[i] != '{') break;
        i = fa_ans_space(s, n, i + 1);
        name.len = 0;
        good = fa_ans_string(&fa_ans_json, s, n, &i, &name);
        i = fa_ans_space(s, n, i);
        good = good && i < n && s[i++] == ':' && name.len && (i = fa_ans_space(s, n, i)) < n &&
               object(cx, name.data, name.len, NULL, 0, s, n, &i);
        i = fa_ans_space(s, n, i);
        good = good && i < n && s[i++] == '}';
        i = fa_ans_space(s, n, i);
        if (good && i < n && s[i] == ',') i++;
    }
    cx->oom |= name.failed;
    fa_buf_free(&name);
    return good && cx->n && i < n && s[i] == ']' && fa_ans_space(s, n, i + 1) == n;
}

/* ---- a name, then JSON ---- */

bool fa_ans_body_named(fa_ans_cx *cx, const char *s, size_t n) {
    size_t end = find(s, n, 0, ">"), from = 0, to = end;
    if (end == n) return false;
    trim(s, &from, &to);
    return object_rest(cx, s + from, to - from, s + end + 1, n - end - 1);
}

/* For the python tool the text itself is the argument. */
static bool code(fa_ans_cx *cx, const char *name, const char *s, size_t n) {
    fa_ans_call *c = fa_ans_add(cx, name, strlen(name), NULL, 0);
    if (!c) return false;
    fa_buf_puts(&c->args, "{\"code\": ");
    fa_ans_quoted(&c->args, s, n);
    fa_buf_puts(&c->args, "}");
    return true;
}

bool fa_ans_body_to(fa_ans_cx *cx, const char *s, size_t n) {
    const char *name = cx->to ? cx->to : "";
    if (strncmp(name, "functions.", 10) == 0) name += 10;
    if (object_rest(cx, name, strlen(name), s, n)) return true;
    if (cx->oom || strcmp(name, "python") != 0) return false;
    fa_ans_drop(cx);
    return code(cx, name, s, n);
}

bool fa_ans_body_mistral(fa_ans_cx *cx, const char *s, size_t n) {
    size_t i = fa_ans_space(s, n, 0);
    if (i < n && (s[i] == '[' || s[i] == '{')) return json_calls(cx, s, n, i, false);
    size_t brace = find(s, n, 0, "{"), args = find(s, brace, 0, "[ARGS]"), id = find(s, brace, 0, "[CALL_ID]");
    size_t from = 0, to = id < args ? id : args, id_from = id, id_to = args;
    trim(s, &from, &to);
    if (id < args) id_from += 9;
    trim(s, &id_from, &id_to);
    if (brace == n) return false;
    i = args < brace ? args + 6 : brace;
    return object(cx, s + from, to - from, id < args ? s + id_from : NULL, id < args ? id_to - id_from : 0, s, n, &i) &&
           fa_ans_space(s, n, i) == n;
}

/* Three spellings: <｜tool▁sep｜>, <｜tool_sep｜>, <｜tool sep｜>; "function" before it and a code block behind it in
 * the older notation. */
bool fa_ans_body_deepseek(fa_ans_cx *cx, const char *s, size_t n) {
    static const char *const seps[] = {"<｜tool▁sep｜>", "<｜tool_sep｜>", "<｜tool sep｜>", "<｜tool\\_sep｜>"};
    size_t at = n, len = 0;
    for (int k = 0; k < 4 && at == n; k++) {
        at = find(s, n, 0, seps[k]);
        len = strlen(seps[k]);
    }
    if (at == n) return false;
    size_t from = 0, to = at, i = at + len;
    trim(s, &from, &to);
    size_t block = find(s, n, i, "```json");
    if (block < n && find(s, block, i, "{") == block) {
        from = i;
        to = block;
        trim(s, &from, &to);
        i = block + 7;
        size_t end = n;
        while (end > i && fa_ans_is_space(s[end - 1])) end--;
        n = end - i >= 3 && memcmp(s + end - 3, "```", 3) == 0 ? end - 3 : end;
    }
    return object(cx, s + from, to - from, NULL, 0, s, n, &i) && fa_ans_space(s, n, i) == n;
}

/* functions.name:0 - all of it is the id. */
bool fa_ans_body_kimi(fa_ans_cx *cx, const char *s, size_t n) {
    static const char sep[] = "<|tool_call_argument_begin|>";
    size_t at = find(s, n, 0, sep), from = 0, to = at;
    if (at == n) return false;
    trim(s, &from, &to);
    size_t name = starts(s, to, from, "functions.") ? from + 10 : from, end = to;
    while (end > name && s[end - 1] >= '0' && s[end - 1] <= '9') end--;
    if (end > name + 1 && end < to && s[end - 1] == ':')
        end--;
    else
        end = to;
    size_t i = at + sizeof sep - 1;
    return object(cx, s + name, end - name, s + from, to - from, s, n, &i) && fa_ans_space(s, n, i) == n;
}

bool fa_ans_body_solar(fa_ans_cx *cx, const char *s, size_t n) {
    static const char name[] = "<|tool_call:name|>", args[] = "<|tool_call:args|>";
    size_t a = find(s, n, 0, name), b = find(s, n, a, args);
    if (b == n) return false;
    size_t from = a + sizeof name - 1, to = b, id = 0, id_to = a, i = b + sizeof args - 1;
    trim(s, &from, &to);
    trim(s, &id, &id_to);
    return object(cx, s + from, to - from, s + id, id_to - id, s, n, &i) && fa_ans_space(s, n, i) == n;
}

/* ---- call:name{...} ---- */

static bool gemma(fa_ans_cx *cx, const fa_ans_dialect *d, const char *s, size_t n) {
    size_t i = fa_ans_space(s, n, 0);
    if (!starts(s, n, i, "call:")) return false;
    size_t from = i + 5, brace = find(s, n, from, "{"), to = brace;
    trim(s, &from, &to);
    if (brace == n) return false;
    fa_ans_call *c = fa_ans_add(cx, s + from, to - from, NULL, 0);
    return c && fa_ans_value(d, s, n, &brace, &c->args) && fa_ans_space(s, n, brace) == n;
}

bool fa_ans_body_gemma(fa_ans_cx *cx, const char *s, size_t n) {
    static const fa_ans_dialect d = {.quote = "<|\"|>", .bare = true, .none = true};
    return gemma(cx, &d, s, n);
}

bool fa_ans_body_gemma_fn(fa_ans_cx *cx, const char *s, size_t n) {
    static const fa_ans_dialect d = {.quote = "<escape>", .bare = true, .none = true};
    return gemma(cx, &d, s, n);
}

/* ---- Python calls ---- */

static bool is_name(char c, bool first) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) ||
           (!first && ((c >= '0' && c <= '9') || c == '.' || c == '-'));
}

static size_t name_end(const char *s, size_t n, size_t i) {
    size_t from = i;
    while (i < n && is_name(s[i], i == from)) i++;
    return i;
}

/* name(key=value, ...) at s[*i]. */
static bool python_call(fa_ans_cx *cx, const char *s, size_t n, size_t *i, const char *name, size_t len) {
    if (*i >= n || s[(*i)++] != '(') return false;
    fa_ans_call *c = fa_ans_add(cx, name, len, NULL, 0);
    if (!c) return false;
    fa_buf_puts(&c->args, "{");
    for (bool first = true;; first = false) {
        *i = fa_ans_space(s, n, *i);
        if (*i < n && s[*i] == ')') break;
        size_t from = *i, end = name_end(s, n, from);
        if (end == from) return false;
        *i = fa_ans_space(s, n, end);
        if (*i >= n || s[(*i)++] != '=') return false;
        if (!first) fa_buf_puts(&c->args, ", ");
        fa_ans_quoted(&c->args, s + from, end - from);
        fa_buf_puts(&c->args, ": ");
        if (!fa_ans_value(&fa_ans_python, s, n, i, &c->args)) return false;
        *i = fa_ans_space(s, n, *i);
        if (*i < n && s[*i] == ',')
            ++*i;
        else if (*i >= n || s[*i] != ')')
            return false;
    }
    ++*i;
    fa_buf_puts(&c->args, "}");
    return true;
}

bool fa_ans_body_python(fa_ans_cx *cx, const char *s, size_t n) {
    size_t i = fa_ans_space(s, n, 0);
    bool array = i < n && s[i] == '[';
    for (i += array; (i = fa_ans_space(s, n, i)) < n && s[i] != ']';) {
        size_t from = i, end = name_end(s, n, i);
        i = fa_ans_space(s, n, end);
        if (end == from || !python_call(cx, s, n, &i, s + from, end - from)) return false;
        i = fa_ans_space(s, n, i);
        if (i < n && (s[i] == ',' || s[i] == ';')) i++;
    }
    if (array && (i >= n || s[i++] != ']')) return false;
    return cx->n && fa_ans_space(s, n, i) == n;
}

/* JSON begins with an object, Python calls with a name. */
bool fa_ans_body_python_or_json(fa_ans_cx *cx, const char *s, size_t n) {
    size_t i = fa_ans_space(s, n, 0);
    if (i < n && s[i] == '[') i = fa_ans_space(s, n, i + 1);
    return i < n && s[i] == '{' ? fa_ans_body_json(cx, s, n) : fa_ans_body_python(cx, s, n);
}

bool fa_ans_body_bare_or_python(fa_ans_cx *cx, const char *s, size_t n) {
    return n && s[0] == '[' ? fa_ans_body_python(cx, s, n) : fa_ans_body_bare(cx, s, n);
}

/* Built-in tools of Llama 3: brave_search.call(query="..."); what is none is a program. */
bool fa_ans_body_code(fa_ans_cx *cx, const char *s, size_t n) {
    size_t from = 0, to = n;
    trim(s, &from, &to);
    size_t end = name_end(s, to, from), i = end;
    if (end > from + 5 && memcmp(s + end - 5, ".call", 5) == 0) {
        if (python_call(cx, s, to, &i, s + from, end - 5 - from) && i == to) return true;
        if (cx->oom) return false;
        fa_ans_drop(cx);
    }
    return to > from && code(cx, "python", s + from, to - from);
}
