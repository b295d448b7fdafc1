/* JSON Schema: objects and arrays. Members come in the order of `properties`, those that are not required may be left
 * out; other keys, where they are allowed, come behind them. */
#include "text/grammar/schema.h"
#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATTERNS = 6, MAX_COUNTED = 20000 };

typedef struct member {
    const char *name;
    size_t len;
    bool required;
    uint32_t value; /* rule call is made anew for each use: the rule */
} member;

/* A kind of key that has no name of its own: those that match some patterns and no others. */
typedef struct extra {
    uint32_t key, value; /* rules */
} extra;

typedef struct object {
    fa_schema *s;
    const fa_sset *set;
    member *m;
    size_t n, cap;
    extra *x;
    size_t n_x;
    fa_smap names; /* -> index in m */
    uint32_t min, max;
    bool never;
} object;

/* ---- members ---- */

static member *add_member(object *o, const char *name, size_t len) {
    uint32_t k;
    fa_gb *b = o->s->b;
    if (fa_smap_get(&o->names, name, len, &k)) return &o->m[k];
    if (o->n == o->cap) {
        size_t cap = o->cap ? o->cap * 2 : 16;
        void *p = fa_realloc(o->m, cap, sizeof *o->m);
        if (!p) return fa_gb_nomem(b), NULL;
        o->m = (member *)p;
        o->cap = cap;
    }
    if (fa_smap_put(&o->names, name, len, (uint32_t)o->n) < 0) return fa_gb_nomem(b), NULL;
    o->m[o->n] = (member){.name = name, .len = len};
    return &o->m[o->n++];
}

static void collect(object *o) {
    fa_schema *s = o->s;
    for (size_t i = 0; i < o->set->n && !s->b->rc; i++) {
        const fa_jnode *node = o->set->item[i].node, *p = fa_jget(node, "properties");
        size_t len;
        if (p && fa_jtype_of(p) != FA_JOBJ) fa_schema_fail(s, FFAI_EFORMAT, node, "properties", "must be an object");
        for (const fa_jnode *k = fa_jfirst(p); k && !s->b->rc; k = fa_jnext(k)) {
            const char *name = fa_jkey(k, &len);
            add_member(o, name, len);
        }
    }
    for (size_t i = 0; i < o->set->n && !s->b->rc; i++) {
        const fa_jnode *node = o->set->item[i].node, *r = fa_jget(node, "required");
        size_t len;
        if (r && fa_jtype_of(r) == FA_JBOOL) continue; /* draft 3 */
        if (r && fa_jtype_of(r) != FA_JARR)
            fa_schema_fail(s, FFAI_EFORMAT, node, "required", "must be an array of names");
        for (const fa_jnode *k = fa_jfirst(r); k && !s->b->rc; k = fa_jnext(k)) {
            const char *name = fa_jstr(k, &len);
            if (!name) {
                fa_schema_fail(s, FFAI_EFORMAT, node, "required", "must be an array of names");
                break;
            }
            member *m = add_member(o, name, len);
            if (m) m->required = true;
        }
    }
}

static const fa_jnode *property(const fa_jnode *node, const char *name, size_t len) {
    const fa_jnode *found = NULL;
    for (const fa_jnode *k = fa_jfirst(fa_jget(node, "properties")); k; k = fa_jnext(k)) {
        size_t n;
        const char *key = fa_jkey(k, &n);
        if (n == len && memcmp(key, name, n) == 0) found = k;
    }
    return found;
}

static bool matches(fa_schema *s, const fa_jnode *pattern, const char *name, size_t len, bool *yes) {
    fa_lang l;
    size_t n;
    const char *text = fa_jkey(pattern, &n);
    bool ok = fa_schema_pattern(s, pattern, NULL, text, n, &l);
    *yes = ok && fa_lang_has(&l, name, len);
    fa_lang_free(&l);
    return ok;
}

/* The schemas of one named member. */
static void member_set(object *o, const member *m, fa_sset *out) {
    fa_schema *s = o->s;
    *out = (fa_sset){0};
    for (size_t i = 0; i < o->set->n && !s->b->rc; i++) {
        const fa_jnode *node = o->set->item[i].node, *p = property(node, m->name, m->len);
        bool known = p != NULL, yes = false;
        if (p) fa_sset_add(s, out, p);
        for (const fa_jnode *k = fa_jfirst(fa_jget(node, "patternProperties")); k && !s->b->rc; k = fa_jnext(k)) {
            if (!matches(s, k, m->name, m->len, &yes) || !yes) continue;
            fa_sset_add(s, out, k);
            known = true;
        }
        const fa_jnode *rest = fa_jget(node, "additionalProperties"), *closed = fa_jget(node, "unevaluatedProperties");
        if (!known && rest) fa_sset_add(s, out, rest);
        if (!known && closed && !rest && m->required && !fa_jbool(closed, true)) {
            bool elsewhere = false;
            for (size_t j = 0; j < o->set->n; j++)
                elsewhere = elsewhere || property(o->set->item[j].node, m->name, m->len);
            out->never = out->never || !elsewhere;
        }
    }
}

/* The names that one propertyNames allows; *any: all. */
static bool name_lang(fa_schema *s, const fa_jnode *node, const fa_jnode *names, fa_lang *out, bool *any) {
    fa_sset set = {0};
    *out = (fa_lang){0};
    bool ok = fa_sset_add(s, &set, names) && fa_sset_close(s, &set);
    for (size_t k = 0; ok && k < set.n; k++)
        if (fa_jget(set.item[k].node, "anyOf") || fa_jget(set.item[k].node, "oneOf"))
            ok = fa_schema_fail(s, FFAI_ENOTSUP, node, "propertyNames", "anyOf and oneOf are not supported here");
    if (ok && !(fa_sset_types(s, &set) & FA_S_STR))
        *any = false; /* no name is */
    else if (ok)
        ok = fa_schema_lang(s, &set, out, any);
    fa_sset_free(&set);
    return ok && !s->b->rc;
}

/* propertyNames, for names that are given. */
static bool name_allowed(object *o, const member *m) {
    fa_schema *s = o->s;
    bool good = true;
    for (size_t i = 0; i < o->set->n && good && !s->b->rc; i++) {
        const fa_jnode *node = o->set->item[i].node, *p = fa_jget(node, "propertyNames");
        fa_lang l;
        bool any;
        if (!p) continue;
        if (name_lang(s, node, p, &l, &any)) good = any || fa_lang_has(&l, m->name, m->len);
        fa_lang_free(&l);
    }
    return good;
}

static uint32_t rule_index(fa_schema *s, uint32_t call) { return call ? s->b->x[call].a : 0; }

static void member_values(object *o) {
    size_t kept = 0;
    for (size_t i = 0; i < o->n && !o->s->b->rc; i++) {
        member m = o->m[i];
        fa_sset set;
        member_set(o, &m, &set);
        if (!fa_sset_close(o->s, &set)) {
            fa_sset_free(&set);
            return;
        }
        if (set.never || !name_allowed(o, &m)) {
            o->never = o->never || m.required;
            fa_sset_free(&set);
            continue;
        }
        m.value = rule_index(o->s, fa_schema_rule(o->s, &set));
        o->m[kept++] = m;
    }
    o->n = kept;
}

/* ---- keys without a name ---- */

typedef struct pattern {
    const fa_jnode *node; /* the schema under the pattern */
    fa_lang lang;
} pattern;

/* Everything that a key may be, but for the names of members. */
static bool free_keys(object *o, fa_lang *out, bool *any) {
    fa_schema *s = o->s;
    bool limited = o->n > 0;
    *any = false;
    if (!fa_lang_lengths(s->b, 0, FA_GX_INF, out)) return false;
    for (size_t i = 0; i < o->set->n; i++) {
        const fa_jnode *p = fa_jget(o->set->item[i].node, "propertyNames");
        fa_lang l;
        bool all, ok = true;
        if (!p) continue;
        limited = true;
        ok = name_lang(s, o->set->item[i].node, p, &l, &all);
        if (ok && !all && !l.n_state)
            fa_lang_free(out);
        else if (ok && !all && out->n_state)
            ok = fa_lang_both(s->b, out, &l);
        fa_lang_free(&l);
        if (!ok) return false;
    }
    if (o->n) { /* the names as one expression */
        bool json = s->b->json;
        fa_lang l = {0};
        s->b->json = false;
        uint32_t alt = fa_gx_new(s->b, FA_GX_ALT, 0);
        for (size_t i = 0; i < o->n; i++) fa_gx_add(s->b, alt, fa_gx_lit(s->b, o->m[i].name, o->m[i].len, 0));
        bool ok = !s->b->rc && fa_lang_from_tree(s->b, alt, &l) && (!out->n_state || fa_lang_without(s->b, out, &l));
        s->b->json = json;
        fa_lang_free(&l);
        if (!ok) return false;
    }
    *any = !limited;
    return true;
}

static bool put_extra(object *o, const fa_lang *keys, bool any, fa_sset *set) {
    fa_schema *s = o->s;
    if (!fa_sset_close(s, set)) return fa_sset_free(set), false;
    if (set->never || (!any && fa_lang_empty(keys))) return fa_sset_free(set), true;
    uint32_t rule = fa_gb_rule(s->b, NULL, 0, 0), x;
    fa_sset all = {0};
    if (any) {
        x = fa_schema_string(s, &all);
    } else {
        x = fa_gx_new(s->b, FA_GX_SEQ, 0);
        fa_gx_add(s->b, x, fa_schema_lit(s, "\""));
        fa_gx_add(s->b, x, fa_lang_tree(s->b, keys));
        fa_gx_add(s->b, x, fa_schema_lit(s, "\""));
    }
    uint32_t value = fa_schema_rule(s, set);
    if (s->b->rc) return false;
    s->b->rule[rule].body = x;
    o->x[o->n_x++] = (extra){rule, rule_index(s, value)};
    return true;
}

/* Keys that match just the patterns of `mask`. The schemas: of these patterns, and additionalProperties of nodes that
 * have none of them. */
static bool put_subset(object *o, const pattern *p, size_t n, const fa_lang *keys, bool any, unsigned mask, bool open) {
    fa_schema *s = o->s;
    fa_lang l = {0};
    fa_sset set = {0};
    bool ok = true, allowed = open || mask;
    for (size_t i = 0; i < o->set->n && ok; i++) {
        const fa_jnode *node = o->set->item[i].node, *rest = fa_jget(node, "additionalProperties");
        bool known = false;
        for (size_t k = 0; k < n; k++) {
            if (!(mask >> k & 1)) continue;
            for (const fa_jnode *q = fa_jfirst(fa_jget(node, "patternProperties")); q; q = fa_jnext(q))
                known = known || q == p[k].node;
        }
        if (!known && rest) ok = fa_sset_add(s, &set, rest);
    }
    for (size_t k = 0; k < n && ok; k++)
        if (mask >> k & 1) ok = fa_sset_add(s, &set, p[k].node);
    if (!ok || !allowed) return fa_sset_free(&set), ok;
    if (n && keys->n_state) {
        ok = fa_lang_lengths(s->b, 0, FA_GX_INF, &l);
        if (ok) ok = fa_lang_both(s->b, &l, keys);
        for (size_t k = 0; k < n && ok; k++)
            ok = mask >> k & 1 ? fa_lang_both(s->b, &l, &p[k].lang) : fa_lang_without(s->b, &l, &p[k].lang);
    }
    if (ok)
        ok = put_extra(o, n ? &l : keys, any && !n, &set);
    else
        fa_sset_free(&set);
    fa_lang_free(&l);
    return ok;
}

/* Whether keys may be there that no schema names. Where properties are listed and nothing is said, they may not: a
 * model asked for three members should not invent a fourth. */
static bool is_open(object *o) {
    bool listed = false, said = false;
    for (size_t i = 0; i < o->set->n; i++) {
        const fa_jnode *node = o->set->item[i].node, *rest = fa_jget(node, "additionalProperties");
        const fa_jnode *closed = fa_jget(node, "unevaluatedProperties");
        listed = listed || fa_jget(node, "properties") || fa_jget(node, "patternProperties");
        said = said || rest;
        if (closed && !fa_jbool(closed, true)) listed = true;
    }
    return said || !listed;
}

static bool check_unevaluated(object *o) {
    for (size_t i = 0; i < o->set->n; i++) {
        const fa_jnode *node = o->set->item[i].node, *u = fa_jget(node, "unevaluatedProperties");
        if (!u || fa_jbool(u, false)) continue;
        if (fa_jtype_of(u) != FA_JBOOL || i || !o->set->single)
            return fa_schema_fail(o->s, FFAI_ENOTSUP, node, "unevaluatedProperties",
                                  "this keyword is not supported here"),
                   false;
    }
    return true;
}

static void extras(object *o) {
    fa_schema *s = o->s;
    pattern p[MAX_PATTERNS];
    size_t n = 0;
    fa_lang keys = {0};
    bool any, open = is_open(o), ok = check_unevaluated(o);
    for (size_t i = 0; i < o->set->n && ok; i++) {
        const fa_jnode *node = o->set->item[i].node, *list = fa_jget(node, "patternProperties");
        for (const fa_jnode *k = fa_jfirst(list); k && ok; k = fa_jnext(k)) {
            size_t len;
            const char *text = fa_jkey(k, &len);
            if (n == MAX_PATTERNS) {
                fa_schema_fail(s, FFAI_ELIMIT, node, "patternProperties", "more than %d patterns", MAX_PATTERNS);
                ok = false;
            } else {
                p[n].node = k;
                ok = fa_schema_pattern(s, k, NULL, text, len, &p[n].lang);
                n += ok;
            }
        }
    }
    if (ok && (open || n)) {
        ok = free_keys(o, &keys, &any);
        o->x = ok ? FA_NEWN(extra, (size_t)1 << n) : NULL;
        if (ok && !o->x) ok = fa_gb_nomem(s->b);
        for (unsigned mask = 0; mask < 1u << n && ok; mask++) ok = put_subset(o, p, n, &keys, any, mask, open);
    }
    fa_lang_free(&keys);
    for (size_t i = 0; i < n; i++) fa_lang_free(&p[i].lang);
}

/* ---- the text ---- */

static uint32_t key_value(object *o, const member *m) {
    fa_gb *b = o->s->b;
    fa_buf text = {0};
    uint32_t seq = fa_gx_new(b, FA_GX_SEQ, 0);
    fa_json_quote(&text, m->name, m->len);
    fa_buf_puts(&text, ":");
    if (text.failed) fa_gb_nomem(b);
    if (!b->rc) fa_gx_add(b, seq, fa_gx_lit(b, text.data, text.len, 0));
    fa_buf_free(&text);
    fa_gx_add(b, seq, fa_gx_rep(b, fa_schema_lit(o->s, " "), 0, 1, 0));
    fa_gx_add(b, seq, fa_gx_rule(b, m->value, 0));
    return seq;
}

static uint32_t any_extra(object *o) {
    fa_gb *b = o->s->b;
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    for (size_t i = 0; i < o->n_x; i++) {
        uint32_t seq = fa_gx_new(b, FA_GX_SEQ, 0);
        fa_gx_add(b, seq, fa_gx_rule(b, o->x[i].key, 0));
        fa_gx_add(b, seq, fa_schema_lit(o->s, ":"));
        fa_gx_add(b, seq, fa_gx_rep(b, fa_schema_lit(o->s, " "), 0, 1, 0));
        fa_gx_add(b, seq, fa_gx_rule(b, o->x[i].value, 0));
        fa_gx_add(b, alt, seq);
    }
    if (!o->n_x) fa_gx_add(b, alt, fa_gx_new(b, FA_GX_NEVER, 0));
    return alt;
}

static uint32_t comma(object *o, uint32_t x) {
    fa_gb *b = o->s->b;
    uint32_t seq = fa_gx_new(b, FA_GX_SEQ, 0);
    fa_gx_add(b, seq, fa_schema_lit(o->s, ","));
    fa_gx_add(b, seq, fa_schema_ws(o->s));
    fa_gx_add(b, seq, x);
    return seq;
}

/* Extras behind `count` members: between min and max in all. */
static uint32_t tail(object *o, uint32_t count) {
    fa_gb *b = o->s->b;
    uint32_t min = o->min > count ? o->min - count : 0, max = o->max == FA_GX_INF ? FA_GX_INF : o->max - count;
    if (o->max != FA_GX_INF && count > o->max) return fa_gx_new(b, FA_GX_NEVER, 0);
    if (!o->n_x) return fa_gx_new(b, min ? FA_GX_NEVER : FA_GX_EMPTY, 0);
    if (count) return max ? fa_gx_rep(b, comma(o, any_extra(o)), min, max, 0) : fa_gx_new(b, FA_GX_EMPTY, 0);
    if (!max) return fa_gx_new(b, FA_GX_EMPTY, 0);
    uint32_t some = fa_gx_seq2(
        b, any_extra(o), fa_gx_rep(b, comma(o, any_extra(o)), min ? min - 1 : 0, max == FA_GX_INF ? max : max - 1, 0));
    return min ? some : fa_gx_rep(b, some, 0, 1, 0);
}

/* rest[i * width + c]: the rule for what follows when the members before i are done and c of them were written (counted
 * up to width - 1). */
static uint32_t members(object *o) {
    fa_gb *b = o->s->b;
    uint32_t top = o->max != FA_GX_INF ? o->max + 1 : o->min > 1 ? o->min : 1;
    size_t width = (size_t)(top > o->n ? o->n : top) + 1;
    if ((o->n + 1) * width > MAX_COUNTED)
        return fa_schema_fail(o->s, FFAI_ELIMIT, o->set->item[0].node, NULL, "too many properties to count");
    uint32_t *rest = FA_NEWN(uint32_t, (o->n + 1) * width);
    if (!rest) return fa_gb_nomem(b);
    for (size_t i = 0; i < (o->n + 1) * width; i++) rest[i] = fa_gb_rule(b, NULL, 0, 0);
    for (size_t i = 0; i <= o->n && !b->rc; i++)
        for (size_t c = 0; c < width && !b->rc; c++) {
            uint32_t x;
            if (i == o->n) {
                x = tail(o, (uint32_t)c);
            } else {
                size_t next = c + 1 < width ? c + 1 : c;
                uint32_t kv = key_value(o, &o->m[i]);
                if (c) kv = comma(o, kv);
                x = fa_gx_new(b, FA_GX_ALT, 0);
                fa_gx_add(b, x, fa_gx_seq2(b, kv, fa_gx_rule(b, rest[(i + 1) * width + next], 0)));
                if (!o->m[i].required) fa_gx_add(b, x, fa_gx_rule(b, rest[(i + 1) * width + c], 0));
            }
            if (!b->rc) b->rule[rest[i * width + c]].body = x;
        }
    uint32_t first = b->rc ? 0 : fa_gx_rule(b, rest[0], 0);
    fa_free(rest);
    return first;
}

static void counts(object *o) {
    size_t required = 0;
    o->max = FA_GX_INF;
    for (size_t i = 0; i < o->set->n; i++) {
        uint32_t n;
        const fa_jnode *node = o->set->item[i].node;
        if (fa_schema_count(o->s, node, "minProperties", &n) && n > o->min) o->min = n;
        if (fa_schema_count(o->s, node, "maxProperties", &n) && n < o->max) o->max = n;
    }
    for (size_t i = 0; i < o->n; i++) required += o->m[i].required;
    if (o->min <= required) o->min = 0;
    /* two keys that are not named could be equal, and count once */
    if (o->min > 1 && o->n_x && o->min > required + 1)
        fa_schema_fail(o->s, FFAI_ENOTSUP, o->set->item[0].node, "minProperties",
                       "more than one property that is not required is supported only without additional properties");
}

uint32_t fa_schema_object(fa_schema *s, const fa_sset *set) {
    fa_gb *b = s->b;
    object o = {.s = s, .set = set};
    uint32_t seq = 0;
    collect(&o);
    if (!b->rc) member_values(&o);
    if (!b->rc && !o.never) extras(&o);
    if (!b->rc) counts(&o);
    if (!b->rc && o.never) {
        seq = fa_gx_new(b, FA_GX_NEVER, 0);
    } else if (!b->rc) {
        seq = fa_gx_new(b, FA_GX_SEQ, 0);
        fa_gx_add(b, seq, fa_schema_lit(s, "{"));
        fa_gx_add(b, seq, fa_schema_ws(s));
        fa_gx_add(b, seq, members(&o));
        fa_gx_add(b, seq, fa_schema_ws(s));
        fa_gx_add(b, seq, fa_schema_lit(s, "}"));
    }
    fa_free(o.m);
    fa_free(o.x);
    fa_smap_free(&o.names);
    return b->rc ? 0 : seq;
}

/* ---- arrays ---- */

/* The schemas of element i; fixed: some schema lists elements one by one up to here. */
static void element_set(fa_schema *s, const fa_sset *set, size_t i, fa_sset *out) {
    *out = (fa_sset){0};
    for (size_t k = 0; k < set->n && !s->b->rc; k++) {
        const fa_jnode *node = set->item[k].node, *items = fa_jget(node, "items"), *list = fa_jget(node, "prefixItems");
        const fa_jnode *rest = items;
        if (!list && fa_jtype_of(items) == FA_JARR) { /* up to draft 2019-09 */
            list = items;
            rest = fa_jget(node, "additionalItems");
        }
        const fa_jnode *e = i < fa_jlen(list) ? fa_jfirst(list) : NULL;
        for (size_t j = 0; e && j < i; j++) e = fa_jnext(e);
        if (e)
            fa_sset_add(s, out, e);
        else if (rest)
            fa_sset_add(s, out, rest);
    }
}

static size_t prefix_len(fa_schema *s, const fa_sset *set) {
    size_t n = 0;
    for (size_t k = 0; k < set->n; k++) {
        const fa_jnode *node = set->item[k].node, *items = fa_jget(node, "items"), *list = fa_jget(node, "prefixItems");
        if (list && fa_jtype_of(list) != FA_JARR)
            fa_schema_fail(s, FFAI_EFORMAT, node, "prefixItems", "must be an array of schemas");
        if (!list && fa_jtype_of(items) == FA_JARR) list = items;
        if (fa_jlen(list) > n) n = fa_jlen(list);
    }
    return n;
}

static uint32_t separated(fa_schema *s, uint32_t x) {
    uint32_t seq = fa_gx_new(s->b, FA_GX_SEQ, 0);
    fa_gx_add(s->b, seq, fa_schema_lit(s, ","));
    fa_gx_add(s->b, seq, fa_schema_ws(s));
    fa_gx_add(s->b, seq, x);
    return seq;
}

/* Elements from `i` on, `first`: none is written yet. */
static uint32_t elements(fa_schema *s, const fa_sset *set, size_t n_fixed, uint32_t min, uint32_t max) {
    fa_gb *b = s->b;
    uint32_t next = 0; /* rule of what follows */
    fa_sset out;
    element_set(s, set, n_fixed, &out);
    bool closed = !fa_sset_close(s, &out) || out.never;
    uint32_t fixed = (uint32_t)n_fixed, item = closed ? 0 : rule_index(s, fa_schema_rule(s, &out));
    if (closed) fa_sset_free(&out);
    uint32_t more = max == FA_GX_INF ? max : max > fixed ? max - fixed : 0, least = min > fixed ? min - fixed : 0;
    uint32_t x;
    if (b->rc) return 0;
    if (closed || !more) {
        x = fa_gx_new(b, least ? FA_GX_NEVER : FA_GX_EMPTY, 0);
    } else if (fixed) {
        x = fa_gx_rep(b, separated(s, fa_gx_rule(b, item, 0)), least, more, 0);
    } else {
        x = fa_gx_seq2(b, fa_gx_rule(b, item, 0),
                       fa_gx_rep(b, separated(s, fa_gx_rule(b, item, 0)), least ? least - 1 : 0,
                                 more == FA_GX_INF ? more : more - 1, 0));
        if (!least) x = fa_gx_rep(b, x, 0, 1, 0);
    }
    for (uint32_t i = fixed; i-- > 0 && !b->rc;) {
        next = fa_gb_rule(b, NULL, 0, 0);
        if (b->rc) return 0;
        b->rule[next].body = x;
        element_set(s, set, i, &out);
        bool never = !fa_sset_close(s, &out) || out.never || i >= max;
        if (never) {
            fa_sset_free(&out);
            x = fa_gx_new(b, i >= min ? FA_GX_EMPTY : FA_GX_NEVER, 0);
            continue;
        }
        uint32_t e = fa_schema_rule(s, &out);
        x = fa_gx_seq2(b, i ? separated(s, e) : e, fa_gx_rule(b, next, 0));
        if (i >= min) x = fa_gx_rep(b, x, 0, 1, 0);
    }
    return x;
}

uint32_t fa_schema_array(fa_schema *s, const fa_sset *set) {
    fa_gb *b = s->b;
    uint32_t min = 0, max = FA_GX_INF, n;
    for (size_t i = 0; i < set->n; i++) {
        if (fa_schema_count(s, set->item[i].node, "minItems", &n) && n > min) min = n;
        if (fa_schema_count(s, set->item[i].node, "maxItems", &n) && n < max) max = n;
    }
    size_t fixed = prefix_len(s, set);
    if (b->rc) return 0;
    if (min > max) return fa_gx_new(b, FA_GX_NEVER, 0);
    uint32_t seq = fa_gx_new(b, FA_GX_SEQ, 0);
    fa_gx_add(b, seq, fa_schema_lit(s, "["));
    fa_gx_add(b, seq, fa_schema_ws(s));
    fa_gx_add(b, seq, elements(s, set, fixed, min, max));
    fa_gx_add(b, seq, fa_schema_ws(s));
    fa_gx_add(b, seq, fa_schema_lit(s, "]"));
    return b->rc ? 0 : seq;
}
