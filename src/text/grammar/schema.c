/* JSON Schema: keywords, references, sets of schemas and the rules made of them. */
#include "text/grammar/schema.h"
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 20000, MAX_SET = 1000, WS_RUN = 20 };

/* ---- messages ---- */

/* The JSON pointer of a node, and how many values stand before it in the text. */
static bool pointer_of(const fa_jnode *at, const fa_jnode *want, fa_buf *path, size_t *before) {
    if (at == want) return true;
    size_t len = path->len, i = 0, n;
    ++*before;
    for (const fa_jnode *k = fa_jfirst(at); k; k = fa_jnext(k), i++) {
        const char *key = fa_jkey(k, &n);
        if (key) {
            fa_buf_puts(path, "/");
            for (size_t c = 0; c < n; c++) {
                const char *esc = key[c] == '~' ? "~0" : key[c] == '/' ? "~1" : NULL;
                fa_buf_add(path, esc ? esc : key + c, esc ? 2 : 1);
            }
        } else {
            fa_buf_printf(path, "/%zu", i);
        }
        if (pointer_of(k, want, path, before)) return true;
        path->len = len;
    }
    return false;
}

static size_t skip_string(const char *s, size_t n, size_t i) {
    for (i++; i < n && s[i] != '"'; i++) i += s[i] == '\\';
    return i + 1;
}

/* Where value number `k` of a JSON text begins (the text was parsed before). */
static size_t value_at(const char *s, size_t n, size_t k) {
    for (size_t i = 0; i < n;) {
        if (strchr(" \t\r\n,:]}", s[i])) {
            i++;
            continue;
        }
        size_t from = i;
        if (s[i] == '"') {
            i = skip_string(s, n, i);
            size_t j = i;
            while (j < n && strchr(" \t\r\n", s[j])) j++;
            if (j < n && s[j] == ':') continue; /* a key */
        } else if (s[i] == '{' || s[i] == '[') {
            i++;
        } else {
            while (i < n && !strchr(" \t\r\n,:]}", s[i])) i++;
        }
        if (!k--) return from;
    }
    return 0;
}

uint32_t fa_schema_fail(fa_schema *s, int code, const fa_jnode *node, const char *key, const char *fmt, ...) {
    char msg[300];
    fa_buf path = {0};
    size_t before = 0;
    va_list ap;
    if (s->b->rc) return 0;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    const fa_jnode *value = key ? fa_jget(node, key) : NULL;
    pointer_of(s->root, value ? value : node, &path, &before);
    if (key && !value) fa_buf_printf(&path, "/%s", key);
    fa_gb_fail(s->b, code, value_at(s->b->text, s->b->len, before), "%.150s: %s",
               path.data && path.len ? path.data : "the schema", msg);
    fa_buf_free(&path);
    return 0;
}

/* ---- keywords ---- */

/* Keywords that would change what is valid. The second list counts only when its value is not false. */
static const char *const refused[] = {"not",          "if",           "dependentRequired", "dependentSchemas",
                                      "dependencies", "contains",     "multipleOf",        "unevaluatedItems",
                                      "$dynamicRef",  "$recursiveRef"};

static bool harmless(const fa_jnode *node, const char *key) {
    const fa_jnode *v = fa_jget(node, key);
    if (!strcmp(key, "multipleOf"))
        return fa_jnum(v, 0) == 1 && fa_jtype_of(fa_jget(node, "type")) == FA_JSTR &&
               !strcmp(fa_jstr(fa_jget(node, "type"), NULL), "integer");
    if (!strcmp(key, "if")) return !fa_jget(node, "then") && !fa_jget(node, "else");
    if (!strcmp(key, "unevaluatedItems") || !strcmp(key, "not"))
        return fa_jtype_of(v) == FA_JBOOL && fa_jbool(v, false) == (key[0] == 'u');
    return fa_jtype_of(v) == FA_JOBJ && !fa_jlen(v) && key[0] == 'd';
}

static bool check_keywords(fa_schema *s, const fa_jnode *node) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (fa_jget(node, refused[i]) && !harmless(node, refused[i]))
            return fa_schema_fail(s, FFAI_ENOTSUP, node, refused[i], "this keyword is not supported"), false;
    const fa_jnode *unique = fa_jget(node, "uniqueItems");
    if (fa_jbool(unique, false) && !(fa_jget(node, "maxItems") && fa_jint(fa_jget(node, "maxItems"), 2) <= 1))
        return fa_schema_fail(s, FFAI_ENOTSUP, node, "uniqueItems", "this keyword is not supported"), false;
    return true;
}

bool fa_schema_count(fa_schema *s, const fa_jnode *node, const char *key, uint32_t *out) {
    const fa_jnode *v = fa_jget(node, key);
    if (!v) return false;
    int64_t n = fa_jint(v, -1);
    if (n < 0) return fa_schema_fail(s, FFAI_EFORMAT, node, key, "must be a whole number that is not negative"), false;
    *out = n > INT32_MAX ? INT32_MAX : (uint32_t)n;
    return true;
}

/* ---- references ---- */

static int hex(int c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* One step of a JSON pointer in a URI fragment, decoded into out (as long as the input). */
static size_t pointer_step(const char *p, size_t n, char *out) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)p[i];
        if (c == '%' && i + 2 < n + 0 && hex(p[i + 1]) >= 0 && hex(p[i + 2]) >= 0) {
            c = hex(p[i + 1]) * 16 + hex(p[i + 2]);
            i += 2;
        }
        if (c == '~' && i + 1 < n && (p[i + 1] == '0' || p[i + 1] == '1')) c = p[++i] == '0' ? '~' : '/';
        out[k++] = (char)c;
    }
    return k;
}

static const fa_jnode *child(const fa_jnode *node, const char *name, size_t n) {
    size_t i = 0, len, want = 0;
    bool index = fa_jtype_of(node) == FA_JARR && n && n < 10;
    for (size_t k = 0; k < n && index; k++) {
        index = name[k] >= '0' && name[k] <= '9';
        want = want * 10 + (size_t)(name[k] - '0');
    }
    const fa_jnode *found = NULL;
    for (const fa_jnode *k = fa_jfirst(node); k; k = fa_jnext(k), i++) {
        const char *key = fa_jkey(k, &len);
        if (key ? len == n && memcmp(key, name, n) == 0 : index && i == want) found = k;
    }
    return found;
}

static const fa_jnode *find_anchor(const fa_jnode *at, const char *name, size_t n) {
    size_t len;
    const char *a = fa_jstr(fa_jget(at, "$anchor"), &len);
    if (a && len == n && memcmp(a, name, n) == 0) return at;
    for (const fa_jnode *k = fa_jfirst(at); k; k = fa_jnext(k)) {
        const fa_jnode *f = find_anchor(k, name, n);
        if (f) return f;
    }
    return NULL;
}

static const fa_jnode *resolve(fa_schema *s, const fa_jnode *node) {
    size_t n, id_len = 0;
    const char *ref = fa_jstr(fa_jget(node, "$ref"), &n);
    if (!ref) return fa_schema_fail(s, FFAI_EFORMAT, node, "$ref", "must be a string"), NULL;
    const char *id = fa_jstr(fa_jget(s->root, "$id"), &id_len), *p = ref;
    while (id && id_len && id[id_len - 1] == '#') id_len--;
    if (id && id_len && n >= id_len && memcmp(ref, id, id_len) == 0 && (n == id_len || ref[id_len] == '#')) {
        p += id_len;
        n -= id_len;
    }
    if (n && *p != '#')
        return fa_schema_fail(s, FFAI_ENOTSUP, node, "$ref",
                              "\"%.80s\" is not in this schema; only local references (#/...) are supported", ref),
               NULL;
    const fa_jnode *at = s->root;
    if (n > 1 && p[1] != '/') {
        at = find_anchor(s->root, p + 1, n - 1);
    } else if (n > 1) {
        char *name = (char *)fa_calloc(n + 1, 1);
        if (!name) return fa_gb_nomem(s->b), NULL;
        for (size_t i = 1; i < n && at;) { /* p[i] is a slash */
            size_t e = i + 1;
            while (e < n && p[e] != '/') e++;
            at = child(at, name, pointer_step(p + i + 1, e - i - 1, name));
            i = e;
        }
        fa_free(name);
    }
    if (!at) fa_schema_fail(s, FFAI_EFORMAT, node, "$ref", "\"%.80s\" leads nowhere", ref);
    return at;
}

/* ---- sets ---- */

static bool put(fa_schema *s, fa_sset *set, fa_sitem item) {
    for (size_t i = 0; i < set->n; i++) {
        const fa_sitem *k = &set->item[i];
        if (k->node == item.node && k->any_taken == item.any_taken && k->one_taken == item.one_taken) return true;
    }
    if (set->n >= MAX_SET)
        return fa_schema_fail(s, FFAI_ELIMIT, item.node, NULL, "more than %d schemas for one value", MAX_SET), false;
    if (set->n == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 4;
        void *p = fa_realloc(set->item, cap, sizeof *set->item);
        if (!p) return fa_gb_nomem(s->b), false;
        set->item = (fa_sitem *)p;
        set->cap = cap;
    }
    set->item[set->n++] = item;
    return true;
}

void fa_sset_free(fa_sset *set) {
    fa_free(set->item);
    *set = (fa_sset){0};
}

bool fa_sset_add(fa_schema *s, fa_sset *set, const fa_jnode *node) {
    if (s->b->rc) return false;
    if (fa_jtype_of(node) == FA_JBOOL) {
        set->never = set->never || !fa_jbool(node, true);
        return true;
    }
    if (fa_jtype_of(node) != FA_JOBJ)
        return fa_schema_fail(s, FFAI_EFORMAT, node, NULL, "a schema must be an object or a boolean"), false;
    if (!fa_jlen(node)) return true;
    set->single = !set->n;
    return put(s, set, (fa_sitem){node, 0, 0});
}

bool fa_sset_close(fa_schema *s, fa_sset *set) {
    bool single = set->single;
    for (size_t i = 0; i < set->n && !s->b->rc; i++) {
        const fa_jnode *node = set->item[i].node, *all = fa_jget(node, "allOf");
        if (!check_keywords(s, node)) return false;
        if (all && fa_jtype_of(all) != FA_JARR)
            return fa_schema_fail(s, FFAI_EFORMAT, node, "allOf", "must be an array of schemas"), false;
        for (const fa_jnode *k = fa_jfirst(all); k; k = fa_jnext(k))
            if (!fa_sset_add(s, set, k)) return false;
        if (!fa_jget(node, "$ref")) continue;
        const fa_jnode *to = resolve(s, node);
        if (!to || !fa_sset_add(s, set, to)) return false;
    }
    set->single = single;
    return !s->b->rc;
}

/* ---- types ---- */

static unsigned type_bit(fa_schema *s, const fa_jnode *node, const fa_jnode *t) {
    static const struct {
        const char *name;
        unsigned bits;
    } rows[] = {{"null", FA_S_NULL},  {"boolean", FA_S_BOOL}, {"integer", FA_S_INT}, {"number", FA_S_INT | FA_S_NUM},
                {"string", FA_S_STR}, {"array", FA_S_ARR},    {"object", FA_S_OBJ}};
    const char *name = fa_jstr(t, NULL);
    for (size_t i = 0; name && i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name)) return rows[i].bits;
    fa_schema_fail(s, FFAI_EFORMAT, node, "type", "unknown type \"%.40s\"", name ? name : "");
    return 0;
}

unsigned fa_sset_types(fa_schema *s, const fa_sset *set) {
    unsigned types = set->never ? 0 : FA_S_ALL;
    for (size_t i = 0; i < set->n; i++) {
        const fa_jnode *node = set->item[i].node, *t = fa_jget(node, "type");
        unsigned bits = 0;
        if (!t) continue;
        if (fa_jtype_of(t) != FA_JARR) bits = type_bit(s, node, t);
        for (const fa_jnode *k = fa_jtype_of(t) == FA_JARR ? fa_jfirst(t) : NULL; k; k = fa_jnext(k))
            bits |= type_bit(s, node, k);
        types &= bits;
    }
    return types;
}

/* ---- rules ---- */

uint32_t fa_schema_lit(fa_schema *s, const char *text) { return fa_gx_lit(s->b, text, strlen(text), 0); }

/* What may stand between the parts of a value: nothing, a space, or a line end with a bounded indentation. */
uint32_t fa_schema_ws(fa_schema *s) {
    if (s->ws == UINT32_MAX) {
        uint32_t indent[2][2] = {{' ', ' '}, {'\t', '\t'}};
        bool json = s->b->json;
        s->b->json = false;
        s->ws = fa_gb_rule(s->b, NULL, 0, 0);
        uint32_t alt = fa_gx_new(s->b, FA_GX_ALT, 0);
        fa_gx_add(s->b, alt, fa_gx_new(s->b, FA_GX_EMPTY, 0));
        fa_gx_add(s->b, alt, fa_schema_lit(s, " "));
        fa_gx_add(s->b, alt,
                  fa_gx_seq2(s->b, fa_schema_lit(s, "\n"),
                             fa_gx_rep(s->b, fa_gx_set(s->b, indent, 2, false, 0), 0, WS_RUN, 0)));
        s->b->json = json;
        if (s->b->rc) return 0;
        s->b->rule[s->ws].body = alt;
    }
    return fa_gx_rule(s->b, s->ws, 0);
}

static int by_item(const void *a, const void *b) { return memcmp(a, b, sizeof(fa_sitem)); }

uint32_t fa_schema_rule(fa_schema *s, fa_sset *set) {
    uint32_t index = 0;
    if (s->b->rc || !fa_sset_close(s, set)) return fa_sset_free(set), 0;
    size_t bytes = set->n * sizeof(fa_sitem) + 1;
    char *key = (char *)fa_mem_calloc(&s->mem, bytes, 1);
    if (!key) return fa_sset_free(set), fa_gb_nomem(s->b);
    if (set->n) memcpy(key, set->item, bytes - 1);
    if (set->n) qsort(key, set->n, sizeof(fa_sitem), by_item);
    key[bytes - 1] = (char)((set->never ? 1 : 0) + (set->single ? 2 : 0));
    if (fa_smap_get(&s->seen, key, bytes, &index)) {
        fa_sset_free(set);
        return fa_gx_rule(s->b, s->rule[index].rule, 0);
    }
    if (s->n_rule >= MAX_RULES) {
        fa_sset_free(set);
        return fa_schema_fail(s, FFAI_ELIMIT, s->root, NULL, "the schema is too large: more than %d combinations",
                              MAX_RULES);
    }
    if (s->n_rule == s->cap_rule) {
        size_t cap = s->cap_rule ? s->cap_rule * 2 : 64;
        void *p = fa_realloc(s->rule, cap, sizeof *s->rule);
        if (!p) return fa_sset_free(set), fa_gb_nomem(s->b);
        s->rule = (fa_srule *)p;
        s->cap_rule = cap;
    }
    uint32_t rule = fa_gb_rule(s->b, NULL, 0, 0);
    if (s->b->rc || fa_smap_put(&s->seen, key, bytes, (uint32_t)s->n_rule) < 0)
        return fa_sset_free(set), fa_gb_nomem(s->b);
    s->rule[s->n_rule++] = (fa_srule){*set, rule};
    *set = (fa_sset){0};
    return fa_gx_rule(s->b, rule, 0);
}

/* The set with branch `k` in place of the choice of its item i. */
static bool branch(fa_schema *s, const fa_sset *set, size_t i, bool one, const fa_jnode *k, fa_sset *out) {
    *out = (fa_sset){.never = set->never};
    for (size_t j = 0; j < set->n; j++) {
        fa_sitem item = set->item[j];
        if (j == i && one) item.one_taken = 1;
        if (j == i && !one) item.any_taken = 1;
        if (!put(s, out, item)) return false;
    }
    bool ok = fa_sset_add(s, out, k) && fa_sset_close(s, out);
    out->single = set->single;
    return ok;
}

/* At most one branch of a oneOf may hold: what is written for one must not satisfy another. */
static void check_apart(fa_schema *s, const fa_sset *set, size_t i) {
    const fa_jnode *node = set->item[i].node;
    size_t x = 0;
    for (const fa_jnode *a = fa_jfirst(fa_jget(node, "oneOf")); a && !s->b->rc; a = fa_jnext(a), x++) {
        size_t y = x + 1;
        for (const fa_jnode *c = fa_jnext(a); c && !s->b->rc; c = fa_jnext(c), y++) {
            fa_sset p, q;
            bool ok = branch(s, set, i, true, a, &p);
            ok = branch(s, set, i, true, c, &q) && ok;
            if (ok && !fa_schema_apart(s, &p, &q))
                fa_schema_fail(s, FFAI_ENOTSUP, node, "oneOf",
                               "a value may satisfy branches %zu and %zu; oneOf is supported when types, constants or "
                               "required properties keep its branches apart (else use anyOf)",
                               x, y);
            fa_sset_free(&p);
            fa_sset_free(&q);
        }
    }
}

/* Splits the first choice of a set; 0 when there is none (or after a failure). */
static uint32_t choices(fa_schema *s, const fa_sset *set) {
    for (size_t i = 0; i < set->n && !s->b->rc; i++) {
        const fa_jnode *node = set->item[i].node;
        const fa_jnode *any = set->item[i].any_taken ? NULL : fa_jget(node, "anyOf");
        const fa_jnode *one = set->item[i].one_taken ? NULL : fa_jget(node, "oneOf");
        const fa_jnode *list = any ? any : one;
        if (!list) continue;
        if (fa_jtype_of(list) != FA_JARR || !fa_jlen(list))
            return fa_schema_fail(s, FFAI_EFORMAT, node, any ? "anyOf" : "oneOf", "must be an array of schemas");
        if (!any) check_apart(s, set, i);
        uint32_t alt = fa_gx_new(s->b, FA_GX_ALT, 0);
        for (const fa_jnode *k = fa_jfirst(list); k && !s->b->rc; k = fa_jnext(k)) {
            fa_sset out;
            if (!branch(s, set, i, !any, k, &out)) {
                fa_sset_free(&out);
                return 0;
            }
            fa_gx_add(s->b, alt, fa_schema_rule(s, &out));
        }
        return alt;
    }
    return 0;
}

/* enum and const: the values of the first that all others allow. */
static uint32_t constants(fa_schema *s, const fa_sset *set) {
    for (size_t i = 0; i < set->n; i++) {
        const fa_jnode *node = set->item[i].node, *one = fa_jget(node, "const"), *list = fa_jget(node, "enum");
        if (!one && !list) continue;
        if (!one && (fa_jtype_of(list) != FA_JARR || !fa_jlen(list)))
            return fa_schema_fail(s, FFAI_EFORMAT, node, "enum", "must be an array of values");
        uint32_t alt = fa_gx_new(s->b, FA_GX_ALT, 0);
        fa_gx_add(s->b, alt, fa_gx_new(s->b, FA_GX_NEVER, 0));
        s->listing = one && list ? NULL : node;
        for (const fa_jnode *v = one ? one : fa_jfirst(list); v && !s->b->rc; v = one ? NULL : fa_jnext(v)) {
            if (fa_schema_accepts(s, set, v, 0)) fa_gx_add(s->b, alt, fa_json_tree(s, v));
        }
        s->listing = NULL;
        return alt;
    }
    return 0;
}

static uint32_t body(fa_schema *s, const fa_sset *set) {
    uint32_t x = set->never ? fa_gx_new(s->b, FA_GX_NEVER, 0) : choices(s, set);
    if (!x && !s->b->rc) x = constants(s, set);
    if (x || s->b->rc) return x;
    unsigned types = fa_sset_types(s, set);
    uint32_t alt = fa_gx_new(s->b, FA_GX_ALT, 0);
    if (types & FA_S_OBJ) fa_gx_add(s->b, alt, fa_schema_object(s, set));
    if (types & FA_S_ARR) fa_gx_add(s->b, alt, fa_schema_array(s, set));
    if (types & FA_S_STR) fa_gx_add(s->b, alt, fa_schema_string(s, set));
    if (types & FA_S_INT) fa_gx_add(s->b, alt, fa_schema_number(s, set, !(types & FA_S_NUM)));
    if (types & FA_S_BOOL) fa_gx_add(s->b, alt, fa_schema_lit(s, "true"));
    if (types & FA_S_BOOL) fa_gx_add(s->b, alt, fa_schema_lit(s, "false"));
    if (types & FA_S_NULL) fa_gx_add(s->b, alt, fa_schema_lit(s, "null"));
    if (!types) fa_gx_add(s->b, alt, fa_gx_new(s->b, FA_GX_NEVER, 0));
    return alt;
}

void fa_schema_read(fa_gb *b) {
    fa_schema s = {.b = b, .ws = UINT32_MAX, .string = UINT32_MAX, .character = UINT32_MAX};
    fa_error e = {0};
    if (fa_json_parse(&s.doc, b->text, b->len, b->what, &e)) {
        b->rc = e.code;
        if (b->err) *b->err = e;
        return;
    }
    s.root = fa_json_root(s.doc);
    b->json = true;
    fa_sset set = {0};
    uint32_t root = fa_gb_rule(b, NULL, 0, 0);
    if (fa_sset_add(&s, &set, s.root)) {
        uint32_t x = fa_schema_rule(&s, &set);
        if (!b->rc) b->rule[root].body = x;
    }
    fa_sset_free(&set);
    for (; s.n_done < s.n_rule && !b->rc; s.n_done++) {
        fa_sset copy = s.rule[s.n_done].set; /* the array may move while the body is made */
        uint32_t x = body(&s, &copy);
        if (!b->rc) b->rule[s.rule[s.n_done].rule].body = x;
    }
    b->root = root;
    b->where = NULL;
    for (size_t i = 0; i < s.n_rule; i++) fa_sset_free(&s.rule[i].set);
    fa_free(s.rule);
    fa_smap_free(&s.seen);
    fa_mem_free(&s.mem);
    fa_json_free(s.doc);
}
