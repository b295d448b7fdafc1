/* JSON Schema: given values. Writing them, checking them against schemas, and whether two schemas can both hold for one
 * value. */
#include "text/grammar/schema.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 60 };

void fa_json_quote(fa_buf *b, const char *s, size_t n) {
    fa_buf_puts(b, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *names = "\"\\\b\f\n\r\t", *p = c ? strchr(names, c) : NULL;
        if (p)
            fa_buf_printf(b, "\\%c", "\"\\bfnrt"[p - names]);
        else if (c < 0x20)
            fa_buf_printf(b, "\\u%04x", c);
        else
            fa_buf_add(b, s + i, 1);
    }
    fa_buf_puts(b, "\"");
}

static void write_scalar(fa_buf *b, const fa_jnode *v) {
    size_t n;
    const char *s;
    char num[40];
    switch (fa_jtype_of(v)) {
    case FA_JBOOL: fa_buf_puts(b, fa_jbool(v, false) ? "true" : "false"); break;
    case FA_JINT: fa_buf_printf(b, "%lld", (long long)fa_jint(v, 0)); break;
    case FA_JNUM:
        for (int k = 1; k <= 17; k++) {
            snprintf(num, sizeof num, "%.*g", k, fa_jnum(v, 0));
            if (strtod(num, NULL) == fa_jnum(v, 0)) break;
        }
        fa_buf_puts(b, num);
        break;
    case FA_JSTR:
        s = fa_jstr(v, &n);
        fa_json_quote(b, s, n);
        break;
    default: fa_buf_puts(b, "null");
    }
}

uint32_t fa_json_tree(fa_schema *s, const fa_jnode *v) {
    fa_gb *b = s->b;
    fa_jtype t = fa_jtype_of(v);
    if (t != FA_JARR && t != FA_JOBJ) {
        fa_buf text = {0};
        write_scalar(&text, v);
        uint32_t x = text.failed ? fa_gb_nomem(b) : fa_gx_lit(b, text.data, text.len, 0);
        fa_buf_free(&text);
        return x;
    }
    uint32_t seq = fa_gx_new(b, FA_GX_SEQ, 0);
    fa_gx_add(b, seq, fa_schema_lit(s, t == FA_JARR ? "[" : "{"));
    for (const fa_jnode *k = fa_jfirst(v); k && !b->rc; k = fa_jnext(k)) {
        size_t n;
        const char *key = fa_jkey(k, &n);
        if (k != fa_jfirst(v)) fa_gx_add(b, seq, fa_schema_lit(s, ","));
        fa_gx_add(b, seq, fa_schema_ws(s));
        if (key) {
            fa_buf text = {0};
            fa_json_quote(&text, key, n);
            fa_buf_puts(&text, ":");
            fa_gx_add(b, seq, text.failed ? fa_gb_nomem(b) : fa_gx_lit(b, text.data, text.len, 0));
            fa_gx_add(b, seq, fa_gx_rep(b, fa_schema_lit(s, " "), 0, 1, 0));
            fa_buf_free(&text);
        }
        fa_gx_add(b, seq, fa_json_tree(s, k));
    }
    fa_gx_add(b, seq, fa_schema_ws(s));
    fa_gx_add(b, seq, fa_schema_lit(s, t == FA_JARR ? "]" : "}"));
    return b->rc ? 0 : seq;
}

static const fa_jnode *member(const fa_jnode *obj, const char *key, size_t n) {
    const fa_jnode *found = NULL;
    size_t len;
    for (const fa_jnode *k = fa_jfirst(obj); k; k = fa_jnext(k)) {
        const char *name = fa_jkey(k, &len);
        if (len == n && memcmp(name, key, n) == 0) found = k;
    }
    return found;
}

bool fa_json_equal(const fa_jnode *a, const fa_jnode *b) {
    fa_jtype t = fa_jtype_of(a), u = fa_jtype_of(b);
    size_t n, m;
    bool numbers = (t == FA_JINT || t == FA_JNUM) && (u == FA_JINT || u == FA_JNUM);
    if (numbers) return t == u && t == FA_JINT ? fa_jint(a, 0) == fa_jint(b, 0) : fa_jnum(a, 0) == fa_jnum(b, 0);
    if (t != u) return false;
    switch (t) {
    case FA_JNULL: return true;
    case FA_JBOOL: return fa_jbool(a, false) == fa_jbool(b, false);
    case FA_JSTR: {
        const char *s = fa_jstr(a, &n), *p = fa_jstr(b, &m);
        return n == m && memcmp(s, p, n) == 0;
    }
    case FA_JARR:
        if (fa_jlen(a) != fa_jlen(b)) return false;
        for (a = fa_jfirst(a), b = fa_jfirst(b); a; a = fa_jnext(a), b = fa_jnext(b))
            if (!fa_json_equal(a, b)) return false;
        return true;
    default:
        if (fa_jlen(a) != fa_jlen(b)) return false;
        for (const fa_jnode *k = fa_jfirst(a); k; k = fa_jnext(k)) {
            const char *key = fa_jkey(k, &n);
            const fa_jnode *other = member(b, key, n);
            if (!other || !fa_json_equal(k, other)) return false;
        }
        return true;
    }
}

/* ---- does a value satisfy? ---- */

static bool accepts_one(fa_schema *s, const fa_jnode *schema, const fa_jnode *v, int depth) {
    fa_sset set = {0};
    bool ok = fa_sset_add(s, &set, schema) && fa_sset_close(s, &set) && fa_schema_accepts(s, &set, v, depth + 1);
    fa_sset_free(&set);
    return ok;
}

static unsigned type_of(const fa_jnode *v) {
    double d = fa_jnum(v, 0);
    switch (fa_jtype_of(v)) {
    case FA_JNULL: return FA_S_NULL;
    case FA_JBOOL: return FA_S_BOOL;
    case FA_JINT: return FA_S_INT;
    case FA_JNUM: return d == floor(d) ? FA_S_INT : FA_S_NUM;
    case FA_JSTR: return FA_S_STR;
    case FA_JARR: return FA_S_ARR;
    default: return FA_S_OBJ;
    }
}

static bool constants_allow(const fa_jnode *node, const fa_jnode *v) {
    const fa_jnode *one = fa_jget(node, "const"), *list = fa_jget(node, "enum");
    if (one && !fa_json_equal(one, v)) return false;
    if (!list) return true;
    for (const fa_jnode *k = fa_jfirst(list); k; k = fa_jnext(k))
        if (fa_json_equal(k, v)) return true;
    return false;
}

static bool string_allowed(fa_schema *s, const fa_sset *set, const fa_jnode *v) {
    size_t n;
    const char *text = fa_jstr(v, &n);
    fa_lang l;
    bool any, ok = fa_schema_texts(s, set, &l, &any) && (any || fa_lang_has(&l, text, n));
    fa_lang_free(&l);
    return ok;
}

static bool choices_allow(fa_schema *s, const fa_jnode *node, const fa_jnode *v, int depth) {
    const fa_jnode *any = fa_jget(node, "anyOf"), *one = fa_jget(node, "oneOf");
    int n = 0;
    for (const fa_jnode *k = fa_jfirst(any); k; k = fa_jnext(k)) n += accepts_one(s, k, v, depth);
    if (any && !n) return false;
    n = 0;
    for (const fa_jnode *k = fa_jfirst(one); k; k = fa_jnext(k)) n += accepts_one(s, k, v, depth);
    return !one || n == 1;
}

static bool object_allowed(fa_schema *s, const fa_jnode *node, const fa_jnode *v, int depth) {
    const fa_jnode *props = fa_jget(node, "properties"), *rest = fa_jget(node, "additionalProperties");
    size_t n;
    uint32_t count;
    if (fa_schema_count(s, node, "minProperties", &count) && fa_jlen(v) < count) return false;
    if (fa_schema_count(s, node, "maxProperties", &count) && fa_jlen(v) > count) return false;
    for (const fa_jnode *k = fa_jfirst(fa_jget(node, "required")); k; k = fa_jnext(k)) {
        const char *name = fa_jstr(k, &n);
        if (name && !member(v, name, n)) return false;
    }
    for (const fa_jnode *k = fa_jfirst(v); k; k = fa_jnext(k)) {
        const char *name = fa_jkey(k, &n);
        const fa_jnode *p = member(props, name, n);
        bool known = p != NULL;
        if (p && !accepts_one(s, p, k, depth)) return false;
        for (const fa_jnode *q = fa_jfirst(fa_jget(node, "patternProperties")); q; q = fa_jnext(q)) {
            fa_lang l;
            size_t len;
            const char *text = fa_jkey(q, &len);
            bool hit = fa_schema_pattern(s, q, NULL, text, len, &l) && fa_lang_has(&l, name, n);
            fa_lang_free(&l);
            known = known || hit;
            if (hit && !accepts_one(s, q, k, depth)) return false;
        }
        if (!known && rest && !accepts_one(s, rest, k, depth)) return false;
    }
    return !fa_jget(node, "propertyNames") && !fa_jget(node, "unevaluatedProperties");
}

static bool array_allowed(fa_schema *s, const fa_jnode *node, const fa_jnode *v, int depth) {
    const fa_jnode *items = fa_jget(node, "items"), *list = fa_jget(node, "prefixItems"), *rest = items;
    uint32_t count;
    if (!list && fa_jtype_of(items) == FA_JARR) {
        list = items;
        rest = fa_jget(node, "additionalItems");
    }
    if (fa_schema_count(s, node, "minItems", &count) && fa_jlen(v) < count) return false;
    if (fa_schema_count(s, node, "maxItems", &count) && fa_jlen(v) > count) return false;
    const fa_jnode *e = fa_jfirst(list);
    for (const fa_jnode *k = fa_jfirst(v); k; k = fa_jnext(k), e = e ? fa_jnext(e) : NULL) {
        const fa_jnode *schema = e ? e : rest;
        if (schema && !accepts_one(s, schema, k, depth)) return false;
    }
    return true;
}

bool fa_schema_accepts(fa_schema *s, const fa_sset *set, const fa_jnode *v, int depth) {
    unsigned type = type_of(v);
    if (set->never || depth > MAX_DEPTH || s->b->rc || !(fa_sset_types(s, set) & type)) return false;
    for (size_t i = 0; i < set->n; i++) {
        const fa_jnode *node = set->item[i].node;
        if (!(depth == 0 && node == s->listing) && !constants_allow(node, v)) return false;
        if (!choices_allow(s, node, v, depth)) return false;
        if (type == FA_S_OBJ && !object_allowed(s, node, v, depth)) return false;
        if (type == FA_S_ARR && !array_allowed(s, node, v, depth)) return false;
    }
    if (type == FA_S_STR) return string_allowed(s, set, v);
    if (type != FA_S_INT && type != FA_S_NUM) return !s->b->rc;
    fa_sbounds k = fa_schema_bounds(s, set);
    double d = fa_jnum(v, 0);
    return !s->b->rc && !(k.has_min && (d < k.min || (d == k.min && k.min_open))) &&
           !(k.has_max && (d > k.max || (d == k.max && k.max_open)));
}

/* ---- can two sets hold for one value? ---- */

static const fa_jnode *property(const fa_jnode *node, const char *name, size_t n) {
    return member(fa_jget(node, "properties"), name, n);
}

/* The values that a set is down to, NULL: not to a list. */
static const fa_jnode *list_of(const fa_sset *set, bool *one) {
    for (size_t i = 0; i < set->n; i++) {
        const fa_jnode *c = fa_jget(set->item[i].node, "const"), *e = fa_jget(set->item[i].node, "enum");
        *one = c != NULL;
        if (c || e) return c ? c : fa_jfirst(e);
    }
    return NULL;
}

/* What is generated for `a` has this member when it is an object. */
static bool requires(const fa_sset *a, const char *name, size_t n) {
    size_t len;
    for (size_t i = 0; i < a->n; i++)
        for (const fa_jnode *k = fa_jfirst(fa_jget(a->item[i].node, "required")); k; k = fa_jnext(k)) {
            const char *r = fa_jstr(k, &len);
            if (r && len == n && memcmp(r, name, n) == 0) return true;
        }
    return false;
}

/* And what is generated for it never has this one. */
static bool lacks(const fa_sset *a, const char *name, size_t n) {
    bool listed = false;
    if (requires(a, name, n)) return false;
    for (size_t i = 0; i < a->n; i++) {
        const fa_jnode *node = a->item[i].node, *rest = fa_jget(node, "additionalProperties"),
                       *p = property(node, name, n);
        if (p && !(fa_jtype_of(p) == FA_JBOOL && !fa_jbool(p, true))) return false;
        if (fa_jget(node, "patternProperties") || (rest && !(fa_jtype_of(rest) == FA_JBOOL && !fa_jbool(rest, true))) ||
            (fa_jget(node, "anyOf") && !a->item[i].any_taken) || (fa_jget(node, "oneOf") && !a->item[i].one_taken))
            return false;
        listed = listed || fa_jget(node, "properties") || rest;
    }
    return listed;
}

static bool property_set(fa_schema *s, const fa_sset *a, const char *name, size_t n, fa_sset *out) {
    *out = (fa_sset){0};
    for (size_t i = 0; i < a->n; i++) {
        const fa_jnode *p = property(a->item[i].node, name, n);
        if (p && !fa_sset_add(s, out, p)) return false;
    }
    return fa_sset_close(s, out);
}

static bool apart(fa_schema *s, const fa_sset *a, const fa_sset *b, int depth);

/* What is written for `a` has a member whose value `b` forbids. */
static bool member_apart(fa_schema *s, const fa_sset *a, const fa_sset *b, int depth) {
    size_t n;
    for (size_t i = 0; i < a->n; i++)
        for (const fa_jnode *k = fa_jfirst(fa_jget(a->item[i].node, "required")); k; k = fa_jnext(k)) {
            const char *name = fa_jstr(k, &n);
            fa_sset p = {0}, q = {0};
            bool yes = name && property_set(s, a, name, n, &p) && property_set(s, b, name, n, &q) &&
                       apart(s, &p, &q, depth + 1);
            fa_sset_free(&p);
            fa_sset_free(&q);
            if (yes) return true;
        }
    return false;
}

/* Or it never has one that `b` requires. */
static bool objects_apart(fa_schema *s, const fa_sset *a, const fa_sset *b, int depth) {
    size_t n;
    for (size_t i = 0; i < b->n; i++)
        for (const fa_jnode *k = fa_jfirst(fa_jget(b->item[i].node, "required")); k; k = fa_jnext(k)) {
            const char *name = fa_jstr(k, &n);
            if (name && lacks(a, name, n)) return true;
        }
    return member_apart(s, a, b, depth);
}

static bool strings_apart(fa_schema *s, const fa_sset *a, const fa_sset *b) {
    fa_lang x, y;
    bool any, other;
    bool ok = fa_schema_lang(s, a, &x, &any);
    ok = fa_schema_lang(s, b, &y, &other) && ok;
    ok = ok && !any && !other && fa_lang_both(s->b, &x, &y) && fa_lang_empty(&x);
    fa_lang_free(&x);
    fa_lang_free(&y);
    return ok;
}

static bool numbers_apart(fa_schema *s, const fa_sset *a, const fa_sset *b) {
    fa_sbounds x = fa_schema_bounds(s, a), y = fa_schema_bounds(s, b);
    bool below = x.has_max && y.has_min && (x.max < y.min || (x.max == y.min && (x.max_open || y.min_open)));
    bool above = y.has_max && x.has_min && (y.max < x.min || (y.max == x.min && (y.max_open || x.min_open)));
    return below || above;
}

/* No value of the list holds for the set. */
static bool list_apart(fa_schema *s, const fa_jnode *v, bool one, const fa_sset *own, const fa_sset *other) {
    for (; v; v = one ? NULL : fa_jnext(v))
        if (fa_schema_accepts(s, own, v, 0) && fa_schema_accepts(s, other, v, 0)) return false;
    return true;
}

static bool apart(fa_schema *s, const fa_sset *a, const fa_sset *b, int depth) {
    bool one;
    if (a->never || b->never) return true;
    if (depth > 8 || s->b->rc) return false;
    const fa_jnode *v = list_of(a, &one);
    if (v) return list_apart(s, v, one, a, b);
    if ((v = list_of(b, &one))) return list_apart(s, v, one, b, a);
    unsigned both = fa_sset_types(s, a) & fa_sset_types(s, b);
    if (both & (FA_S_NULL | FA_S_BOOL | FA_S_ARR)) return false;
    if ((both & FA_S_OBJ) && !objects_apart(s, a, b, depth)) return false;
    if ((both & FA_S_STR) && !strings_apart(s, a, b)) return false;
    if ((both & (FA_S_INT | FA_S_NUM)) && !numbers_apart(s, a, b)) return false;
    return !s->b->rc;
}

bool fa_schema_apart(fa_schema *s, const fa_sset *a, const fa_sset *b) {
    return apart(s, a, b, 0) && apart(s, b, a, 0);
}
