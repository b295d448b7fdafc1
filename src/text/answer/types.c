/* Arguments written as text (XML formats): what type the tool's schema gives them, and calls as they are collected. */
#include "text/answer/answer_int.h"
#include "base/alloc.h"

#include <string.h>

/* ---- calls ---- */

fa_ans_call *fa_ans_add(fa_ans_cx *cx, const char *name, size_t len, const char *id, size_t id_len) {
    if (len == 0 || memchr(name, 0, len) || (id && memchr(id, 0, id_len))) return NULL;
    if (cx->n == cx->cap) {
        size_t cap = cx->cap ? cx->cap * 2 : 4;
        fa_ans_call *p = (fa_ans_call *)fa_realloc(cx->call, cap, sizeof *p);
        if (!p) return cx->oom = true, NULL;
        cx->call = p;
        cx->cap = cap;
    }
    fa_ans_call *c = &cx->call[cx->n];
    memset(c, 0, sizeof *c);
    c->name = fa_strndup(name, len);
    c->id = id && id_len ? fa_strndup(id, id_len) : NULL;
    cx->n++;
    if (!c->name || (id && id_len && !c->id)) return cx->oom = true, NULL;
    return c;
}

void fa_ans_drop(fa_ans_cx *cx) {
    for (size_t i = 0; i < cx->n; i++) {
        fa_free(cx->call[i].name);
        fa_free(cx->call[i].id);
        fa_buf_free(&cx->call[i].args);
    }
    fa_free(cx->call);
    cx->call = NULL;
    cx->n = cx->cap = 0;
}

/* ---- schemas ---- */

enum {
    T_STRING = 1,
    T_INTEGER = 2,
    T_NUMBER = 4,
    T_BOOLEAN = 8,
    T_NULL = 16,
    T_OBJECT = 32,
    T_ARRAY = 64,
    T_ANY = T_INTEGER | T_NUMBER | T_BOOLEAN | T_NULL | T_OBJECT | T_ARRAY,
    MAX_DEPTH = 16
};

static unsigned named(const fa_jnode *name) {
    static const char *const names[] = {"string", "integer", "number", "boolean", "null", "object", "array"};
    const char *s = fa_jstr(name, NULL);
    for (unsigned i = 0; s && i < 7; i++)
        if (strcmp(s, names[i]) == 0) return 1u << i;
    return 0;
}

static unsigned of_value(const fa_jnode *v) {
    static const unsigned type[] = {
        [FA_JNULL] = T_NULL,  [FA_JBOOL] = T_BOOLEAN, [FA_JINT] = T_INTEGER, [FA_JNUM] = T_NUMBER,
        [FA_JSTR] = T_STRING, [FA_JARR] = T_ARRAY,    [FA_JOBJ] = T_OBJECT};
    return type[fa_jtype_of(v)];
}

/* The types that a schema allows; 0: it does not say. */
static unsigned types(const fa_jnode *schema, int depth) {
    static const char *const unions[] = {"anyOf", "oneOf", "allOf"};
    unsigned t = 0;
    const fa_jnode *type = fa_jget(schema, "type"), *k;
    if (!schema || depth > MAX_DEPTH) return 0;
    t |= named(type);
    if (fa_jtype_of(type) == FA_JARR)
        for (k = fa_jfirst(type); k; k = fa_jnext(k)) t |= named(k);
    for (int i = 0; i < 3; i++)
        for (k = fa_jfirst(fa_jget(schema, unions[i])); k; k = fa_jnext(k)) t |= types(k, depth + 1);
    if (!t) {
        for (k = fa_jfirst(fa_jget(schema, "enum")); k; k = fa_jnext(k)) t |= of_value(k);
        k = fa_jget(schema, "const");
        if (k) t |= of_value(k);
        if (fa_jget(schema, "properties")) t |= T_OBJECT;
        if (fa_jget(schema, "items")) t |= T_ARRAY;
    }
    if (t && fa_jbool(fa_jget(schema, "nullable"), false)) t |= T_NULL;
    return t;
}

const fa_jnode *fa_ans_props(const fa_ans_cx *cx, const char *fn) {
    for (const fa_jnode *t = fa_jfirst(cx->tools); t; t = fa_jnext(t)) {
        const fa_jnode *f = fa_jget(t, "function");
        if (!f) f = t;
        const char *name = fa_jstr(fa_jget(f, "name"), NULL);
        if (!name || strcmp(name, fn) != 0) continue;
        const fa_jnode *p = fa_jget(f, "parameters");
        if (!p) p = fa_jget(f, "input_schema");
        if (!p) p = fa_jget(f, "inputSchema");
        return fa_jget(p, "properties");
    }
    return NULL;
}

/* ---- text by type ---- */

static bool is_word(const char *s, size_t n, const char *w) {
    if (n != strlen(w)) return false;
    for (size_t i = 0; i < n; i++)
        if ((s[i] | 0x20) != w[i]) return false;
    return true;
}

/* s as a value of one of the types t; false: it is none. A string only when `t` says nothing else fits. */
static bool cast(unsigned t, const char *s, size_t n, fa_buf *out) {
    size_t from = fa_ans_space(s, n, 0), mark = out->len;
    while (n > from && fa_ans_is_space(s[n - 1])) n--;
    s += from;
    n -= from;
    if (n == 0) return false;
    bool is_num = *s == '-' || (*s >= '0' && *s <= '9');
    unsigned is = *s == '{' ? T_OBJECT : *s == '[' ? T_ARRAY : is_num ? T_NUMBER | T_INTEGER : 0;
    if (t & T_BOOLEAN && (is_word(s, n, "true") || is_word(s, n, "false")))
        return fa_buf_puts(out, (s[0] | 0x20) == 't' ? "true" : "false"), true;
    if (t & T_NULL && (is_word(s, n, "null") || is_word(s, n, "none"))) return fa_buf_puts(out, "null"), true;
    if (is & t) {
        if ((t & (T_NUMBER | T_INTEGER)) == T_INTEGER && is_num) { /* 3.0 is an integer, 3.5 is none */
            const char *dot = (const char *)memchr(s, '.', n);
            for (const char *p = dot ? dot + 1 : s + n; p < s + n; p++)
                if (*p != '0') return false;
        }
        if (fa_ans_whole(&fa_ans_json, s, n, out)) return true;
        if (out->failed) return false;
        out->len = mark;
        if (!is_num && fa_ans_whole(&fa_ans_python, s, n, out)) return true;
        if (!out->failed) out->len = mark;
    }
    return false;
}

void fa_ans_typed(const fa_jnode *props, const char *key, const char *s, size_t n, fa_buf *out) {
    unsigned t = types(fa_jget(props, key), 0);
    if (!t) t = T_ANY;
    if (t == T_STRING || !cast(t, s, n, out)) fa_ans_quoted(out, s, n);
}
