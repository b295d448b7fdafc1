/* JSON documents: memory and getters of the node tree that json_simd.cpp fills. */
#include "io/json_tree.h"
#include "base/alloc.h"
#include "base/map.h"

#include <stdint.h>
#include <string.h>

static size_t block_bytes(const fa_json *j) { return j->str_cap + j->cap_node * sizeof(fa_jnode); }

/* Doubling; the arena in front of the nodes is reserved but untouched memory until strings fill it. */
bool fa_json_grow(fa_json *j) {
    if (j->n_node < j->cap_node) return true;
    size_t cap = j->cap_node * 2;
    if (j->n_node >= FA_JSON_MAX_NODES) return false;
    uint8_t *p = (uint8_t *)fa_realloc(j->block, 1, j->str_cap + cap * sizeof(fa_jnode));
    if (!p) return false;
    j->block = p;
    j->cap_node = cap;
    return true;
}

/* Gives back what was reserved beyond the last node. */
static void shrink(fa_json *j) {
    j->cap_node = j->n_node;
    uint8_t *p = (uint8_t *)fa_realloc(j->block, 1, block_bytes(j));
    if (p) j->block = p;
}

static bool space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Line and column of a byte, for messages. */
static void line_col(const char *text, size_t at, size_t *line, size_t *col) {
    *line = *col = 1;
    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n') {
            ++*line;
            *col = 0;
        }
        ++*col;
    }
}

/* A document that begins as true, false or null do: decided here, because simdjson 3.0 misjudges them at the root. Adds
 * the node if it is right. */
static bool root_atom(fa_json *j, const char *text, size_t len) {
    static const char *const atoms[] = {"null", "false", "true"};
    if (!strchr("nft", text[0])) return false;
    for (int i = 0; i < 3; i++) {
        if (len != strlen(atoms[i]) || memcmp(text, atoms[i], len) != 0) continue;
        struct fa_jnode *n = fa_json_node(j, j->n_node++);
        n->next_type = i ? FA_JBOOL : FA_JNULL;
        n->v.i = i == 2;
    }
    return true;
}

/* text has FA_JSON_PAD readable bytes behind it. */
static int parse_padded(fa_json **out, const char *text, size_t len, const char *what, fa_error *err) {
    const char *why = "not valid JSON";
    size_t at, a = 0, z = len, line, col;
    *out = NULL;
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        return fa_fail(err, FFAI_EFORMAT, "%s: begins with a byte order mark, not JSON", what);
    while (a < z && space(text[a])) a++;
    while (z > a && space(text[z - 1])) z--;
    if (a == z) return fa_fail(err, FFAI_EFORMAT, "%s: empty, not JSON", what);
    fa_json *j = FA_NEW(fa_json);
    if (!j) return fa_fail(err, FFAI_ENOMEM, "%s: no memory", what);
    /* A string of n raw bytes needs n + 2 quotes + (unless it is the whole document) a separator, and n + 5 bytes in
     * the arena. */
    j->str_cap = ((z - a) / 3 * 5 + 16 + FA_JSON_PAD + 15) / 16 * 16;
    j->cap_node = (z - a) / 32 + 8;
    j->block = (uint8_t *)fa_calloc(1, block_bytes(j));
    int rc = j->block ? FFAI_OK : FFAI_ENOMEM;
    if (rc) {
        rc = fa_fail(err, rc, "%s: no memory for %zu bytes", what, block_bytes(j));
    } else if (root_atom(j, text + a, z - a)) {
        if (!j->n_node) rc = fa_fail(err, FFAI_EFORMAT, "%s: %s", what, why);
    } else if ((rc = fa_json_build(j, text + a, z - a, &why, &at)) != 0) {
        if (at == SIZE_MAX) {
            fa_fail(err, rc, "%s: %s", what, why);
        } else {
            line_col(text, a + at, &line, &col);
            if (memchr(text, '\n', z))
                fa_fail(err, rc, "%s: %s (near line %zu, column %zu)", what, why, line, col);
            else /* a line out of a file: `what` says which one */
                fa_fail(err, rc, "%s: %s (near column %zu)", what, why, col);
        }
    }
    if (rc) {
        fa_json_free(j);
        return rc;
    }
    shrink(j);
    *out = j;
    return FFAI_OK;
}

int fa_json_parse(fa_json **out, const char *text, size_t len, const char *what, fa_error *err) {
    *out = NULL;
    if (len > FA_JSON_MAX_BYTES)
        return fa_fail(err, FFAI_ELIMIT, "%s: %zu bytes of JSON, the limit is %zu", what, len, FA_JSON_MAX_BYTES);
    char *copy = (char *)fa_calloc(len + FA_JSON_PAD, 1);
    if (!copy) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for %zu bytes", what, len);
    if (len) memcpy(copy, text, len);
    int rc = parse_padded(out, copy, len, what, err);
    fa_free(copy);
    return rc;
}

/* The word Infinity, outside of strings, becomes a number as long as it. */
static void name_infinity(char *text, size_t len) {
    static const char word[] = "Infinity", number[] = "1e308   ";
    bool inside = false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"') inside = !inside;
        if (inside && text[i] == '\\') i++;
        if (!inside && len - i >= 8 && memcmp(text + i, word, 8) == 0) memcpy(text + i, number, 8);
    }
}

static int load(fa_json **out, const char *path, bool python, fa_error *err) {
    char *text;
    size_t len;
    *out = NULL;
    int rc = fa_read_file(&text, &len, path, FA_JSON_MAX_BYTES, err);
    if (rc) return rc;
    if (python) name_infinity(text, len);
    rc = parse_padded(out, text, len, path, err); /* fa_read_file pads */
    fa_free(text);
    return rc;
}

int fa_json_load(fa_json **out, const char *path, fa_error *err) { return load(out, path, false, err); }

int fa_json_load_python(fa_json **out, const char *path, fa_error *err) { return load(out, path, true, err); }

void fa_json_free(fa_json *j) {
    if (!j) return;
    fa_free(j->block);
    fa_free(j);
}

const fa_jnode *fa_json_root(const fa_json *j) { return j ? fa_json_node(j, 0) : NULL; }

/* ---- getters ---- */

fa_jtype fa_jtype_of(const fa_jnode *n) { return n ? (fa_jtype)(n->next_type & 7) : FA_JNULL; }

static const char *string_at(const fa_jnode *n, uint32_t back, size_t *len) {
    const char *p = (const char *)n - back;
    uint32_t k;
    memcpy(&k, p, sizeof k);
    if (len) *len = k;
    return p + sizeof k;
}

const fa_jnode *fa_jfirst(const fa_jnode *n) {
    fa_jtype t = fa_jtype_of(n);
    return (t == FA_JARR || t == FA_JOBJ) && n->v.s.n ? n + 1 : NULL;
}

const fa_jnode *fa_jnext(const fa_jnode *n) { return n && n->next_type >> 3 ? n + (n->next_type >> 3) : NULL; }

size_t fa_jlen(const fa_jnode *n) {
    fa_jtype t = fa_jtype_of(n);
    return t == FA_JARR || t == FA_JOBJ ? n->v.s.n : 0;
}

const char *fa_jkey(const fa_jnode *n, size_t *len) {
    if (len) *len = 0;
    return n && n->key ? string_at(n, n->key, len) : NULL;
}

const char *fa_jstr(const fa_jnode *n, size_t *len) {
    if (len) *len = 0;
    return fa_jtype_of(n) == FA_JSTR ? string_at(n, n->v.s.back, len) : NULL;
}

const fa_jnode *fa_jget(const fa_jnode *obj, const char *key) {
    const fa_jnode *found = NULL;
    size_t want = strlen(key), len;
    if (fa_jtype_of(obj) != FA_JOBJ) return NULL;
    for (const fa_jnode *n = fa_jfirst(obj); n; n = fa_jnext(n)) {
        const char *k = fa_jkey(n, &len);
        if (len == want && memcmp(k, key, len) == 0) found = n;
    }
    return found;
}

bool fa_jbool(const fa_jnode *n, bool otherwise) { return fa_jtype_of(n) == FA_JBOOL ? n->v.i != 0 : otherwise; }

int64_t fa_jint(const fa_jnode *n, int64_t otherwise) {
    fa_jtype t = fa_jtype_of(n);
    if (t == FA_JINT) return n->v.i;
    if (t != FA_JNUM || !(n->v.f >= -0x1p63 && n->v.f < 0x1p63)) return otherwise;
    int64_t i = (int64_t)n->v.f;
    return (double)i == n->v.f ? i : otherwise;
}

double fa_jnum(const fa_jnode *n, double otherwise) {
    fa_jtype t = fa_jtype_of(n);
    return t == FA_JINT ? (double)n->v.i : t == FA_JNUM ? n->v.f : otherwise;
}
