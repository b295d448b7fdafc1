/* JSON Schema: strings (lengths, patterns, formats) and the bounds of numbers. */
#include "text/grammar/schema.h"
#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Formats as patterns. Each is a part of what its standard allows: whatever matches is valid. */
#define D2_60 "[0-5][0-9]"
#define DATE                                                                                                           \
    "[1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0" \
    "-8]))"
#define TIME  "([01][0-9]|2[0-3]):" D2_60 ":" D2_60 "(\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):" D2_60 ")"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define HOST  LABEL "(\\." LABEL "){0,4}"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define PCHAR "([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})"
#define URI   "(https?|ftp)://" LABEL "(\\." LABEL "){1,4}(:[1-9][0-9]{0,3})?(/" PCHAR "{0,60}){0,8}(\\?" PCHAR "{0,99})?"
#define CLOCK "T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S)"
#define HEX4  "[0-9a-f]{1,4}"

static const struct {
    const char *name, *pattern; /* NULL: known and not supported */
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P([0-9]{1,4}W|([0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?|[0-9]{1,4}M([0-9]{1,4}D)?|[0-9]{1,4}D)(" CLOCK
                 ")?|" CLOCK ")"},
    {"email", "[A-Za-z0-9_%+-]{1,20}(\\.[A-Za-z0-9_%+-]{1,20}){0,2}@" LABEL "(\\." LABEL "){1,3}"},
    {"idn-email", "[A-Za-z0-9_%+-]{1,20}(\\.[A-Za-z0-9_%+-]{1,20}){0,2}@" LABEL "(\\." LABEL "){1,3}"},
    {"hostname", HOST},
    {"idn-hostname", HOST},
    {"ipv4", OCTET "(\\." OCTET "){3}"},
    {"ipv6", "(" HEX4 ":){7}" HEX4},
    {"uri", URI},
    {"iri", URI},
    {"uri-reference", URI},
    {"iri-reference", URI},
    {"uri-template", URI},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"json-pointer", "(/([^/~]|~[01])*)*"},
    {"relative-json-pointer", "(0|[1-9][0-9]{0,2})(#|(/([^/~]|~[01])*)*)"},
    {"regex", NULL},
};

/* What a set says about strings. */
typedef struct limits {
    uint32_t min, max;
    const fa_jnode *pattern[8];
    const char *key[8];
    const char *text[8];
    size_t len[8];
    int n;
} limits;

static void add_pattern(fa_schema *s, limits *k, const fa_jnode *node, const char *key, const char *text, size_t len) {
    for (int i = 0; i < k->n; i++)
        if (k->len[i] == len && memcmp(k->text[i], text, len) == 0) return;
    if (k->n == 8) {
        fa_schema_fail(s, FFAI_ELIMIT, node, key, "more than 8 patterns for one string");
        return;
    }
    k->pattern[k->n] = node;
    k->key[k->n] = key;
    k->text[k->n] = text;
    k->len[k->n++] = len;
}

static limits string_limits(fa_schema *s, const fa_sset *set) {
    limits k = {.max = FA_GX_INF};
    for (size_t i = 0; i < set->n; i++) {
        const fa_jnode *node = set->item[i].node, *p = fa_jget(node, "pattern");
        const char *format = fa_jstr(fa_jget(node, "format"), NULL), *text;
        uint32_t n;
        size_t len;
        if (fa_schema_count(s, node, "minLength", &n) && n > k.min) k.min = n;
        if (fa_schema_count(s, node, "maxLength", &n) && n < k.max) k.max = n;
        text = fa_jstr(p, &len);
        if (p && !text) fa_schema_fail(s, FFAI_EFORMAT, node, "pattern", "must be a string");
        if (text) add_pattern(s, &k, node, "pattern", text, len);
        for (size_t f = 0; format && f < sizeof formats / sizeof *formats; f++) {
            if (strcmp(formats[f].name, format) != 0) continue;
            if (!formats[f].pattern)
                fa_schema_fail(s, FFAI_ENOTSUP, node, "format", "\"%s\" is not supported", format);
            else
                add_pattern(s, &k, node, "format", formats[f].pattern, strlen(formats[f].pattern));
        }
    }
    return k;
}

/* Reads pattern i. In b->where stands its place, for messages. */
static uint32_t pattern_tree(fa_schema *s, const fa_jnode *node, const char *key, const char *text, size_t len) {
    fa_error e = {0};
    fa_error *err = s->b->err;
    uint32_t x;
    if (s->b->rc) return 0;
    s->b->err = &e;
    s->b->where = ""; /* positions are in the pattern */
    x = fa_regex_tree(s->b, text, len, !key || strcmp(key, "format") != 0);
    s->b->err = err;
    s->b->where = NULL;
    if (!s->b->rc) return x;
    int code = s->b->rc;
    const char *msg = strstr(e.msg, ": : ");
    s->b->rc = 0;
    return fa_schema_fail(s, code, node, key, "%s", msg ? msg + 4 : e.msg);
}

bool fa_schema_pattern(fa_schema *s, const fa_jnode *node, const char *key, const char *text, size_t len,
                       fa_lang *out) {
    bool json = s->b->json;
    *out = (fa_lang){0};
    s->b->json = false;
    uint32_t x = pattern_tree(s, node, key, text, len);
    bool ok = x && fa_lang_from_tree(s->b, x, out);
    s->b->json = json;
    return ok;
}

static bool language(fa_schema *s, const limits *k, fa_lang *out) {
    if (!fa_lang_lengths(s->b, k->min, k->max, out)) return false;
    for (int i = 0; i < k->n; i++) {
        fa_lang p;
        bool ok =
            fa_schema_pattern(s, k->pattern[i], k->key[i], k->text[i], k->len[i], &p) && fa_lang_both(s->b, out, &p);
        fa_lang_free(&p);
        if (!ok) return fa_lang_free(out), false;
    }
    return true;
}

/* *l becomes what is in it and among the strings of enum or const. */
static bool keep_constants(fa_schema *s, fa_lang *l, const fa_jnode *one, const fa_jnode *list) {
    fa_gb *b = s->b;
    bool json = b->json;
    fa_lang few = {0};
    b->json = false;
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0);
    for (const fa_jnode *v = one ? one : fa_jfirst(list); v; v = one ? NULL : fa_jnext(v)) {
        size_t n;
        const char *text = fa_jstr(v, &n);
        if (text) fa_gx_add(b, alt, fa_gx_lit(b, text, n, 0));
    }
    bool ok = !b->rc && fa_lang_from_tree(b, alt, &few) && fa_lang_both(b, l, &few);
    b->json = json;
    fa_lang_free(&few);
    return ok;
}

bool fa_schema_texts(fa_schema *s, const fa_sset *set, fa_lang *out, bool *any) {
    limits k = string_limits(s, set);
    *out = (fa_lang){0};
    *any = !k.n && !k.min && k.max == FA_GX_INF;
    return !s->b->rc && (*any || language(s, &k, out));
}

bool fa_schema_lang(fa_schema *s, const fa_sset *set, fa_lang *out, bool *any) {
    bool listed = false, ok = fa_schema_texts(s, set, out, any);
    for (size_t i = 0; i < set->n; i++)
        listed = listed || fa_jget(set->item[i].node, "enum") || fa_jget(set->item[i].node, "const");
    if (ok && *any && listed) ok = fa_lang_lengths(s->b, 0, FA_GX_INF, out);
    *any = *any && !listed;
    for (size_t i = 0; i < set->n && ok; i++) {
        const fa_jnode *one = fa_jget(set->item[i].node, "const"), *list = fa_jget(set->item[i].node, "enum");
        if (one || list) ok = keep_constants(s, out, one, list);
    }
    if (!ok) fa_lang_free(out);
    return ok;
}

/* One character of a string, any of its forms: itself, a short escape, \uXXXX or a pair of them. */
static uint32_t any_character(fa_schema *s) {
    fa_gb *b = s->b;
    if (s->character != UINT32_MAX) return fa_gx_rule(b, s->character, 0);
    uint32_t plain[4][2] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
    bool json = b->json;
    b->json = false;
    s->character = fa_gb_rule(b, NULL, 0, 0);
    uint32_t alt = fa_gx_new(b, FA_GX_ALT, 0), raw = fa_gx_set(b, plain, 3, false, 0);
    static const char escapes[] = "\\\\([\"\\\\/bfnrt]|u([0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2}"
                                  "|[Dd][89ABab][0-9A-Fa-f]{2}\\\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}))";
    fa_gx_add(b, alt, raw);
    fa_gx_add(b, alt, fa_regex_tree(b, escapes, sizeof escapes - 1, false));
    b->json = json;
    if (b->rc) return 0;
    b->rule[s->character].body = alt;
    return fa_gx_rule(b, s->character, 0);
}

static uint32_t quoted(fa_schema *s, uint32_t inside) {
    uint32_t seq = fa_gx_new(s->b, FA_GX_SEQ, 0);
    fa_gx_add(s->b, seq, fa_schema_lit(s, "\""));
    fa_gx_add(s->b, seq, inside);
    fa_gx_add(s->b, seq, fa_schema_lit(s, "\""));
    return s->b->rc ? 0 : seq;
}

uint32_t fa_schema_string(fa_schema *s, const fa_sset *set) {
    fa_gb *b = s->b;
    limits k = string_limits(s, set);
    if (b->rc) return 0;
    if (k.min > k.max) return fa_gx_new(b, FA_GX_NEVER, 0);
    bool any_length = !k.min && k.max == FA_GX_INF;
    if (!k.n && !any_length) return quoted(s, fa_gx_rep(b, any_character(s), k.min, k.max, 0));
    if (k.n == 1 && any_length) return quoted(s, pattern_tree(s, k.pattern[0], k.key[0], k.text[0], k.len[0]));
    if (k.n) {
        fa_lang l;
        uint32_t x = language(s, &k, &l) ? fa_lang_tree(b, &l) : 0;
        fa_lang_free(&l);
        return b->rc ? 0 : quoted(s, x);
    }
    if (s->string == UINT32_MAX) {
        s->string = fa_gb_rule(b, NULL, 0, 0);
        uint32_t x = quoted(s, fa_gx_rep(b, any_character(s), 0, FA_GX_INF, 0));
        if (b->rc) return 0;
        b->rule[s->string].body = x;
    }
    return fa_gx_rule(b, s->string, 0);
}

/* ---- bounds ---- */

static void lower(fa_sbounds *k, double v, bool open, const fa_jnode *at) {
    if (k->has_min && (v < k->min || (v == k->min && !open))) return;
    k->has_min = true;
    k->min = v;
    k->min_open = open;
    k->at = at;
}

static void upper(fa_sbounds *k, double v, bool open, const fa_jnode *at) {
    if (k->has_max && (v > k->max || (v == k->max && !open))) return;
    k->has_max = true;
    k->max = v;
    k->max_open = open;
    k->at = at;
}

/* minimum and the like: false when it is not there. */
static bool bound(fa_schema *s, const fa_jnode *node, const char *key, double *v) {
    const fa_jnode *n = fa_jget(node, key);
    if (!n) return false;
    if (fa_jtype_of(n) != FA_JINT && fa_jtype_of(n) != FA_JNUM)
        return fa_schema_fail(s, FFAI_EFORMAT, node, key, "must be a number"), false;
    *v = fa_jnum(n, 0);
    return true;
}

fa_sbounds fa_schema_bounds(fa_schema *s, const fa_sset *set) {
    fa_sbounds k = {0};
    for (size_t i = 0; i < set->n && !s->b->rc; i++) {
        const fa_jnode *node = set->item[i].node;
        const fa_jnode *open_min = fa_jget(node, "exclusiveMinimum"), *open_max = fa_jget(node, "exclusiveMaximum");
        double v;
        /* draft 4: exclusiveMinimum is a boolean beside minimum */
        if (bound(s, node, "minimum", &v)) lower(&k, v, fa_jbool(open_min, false), node);
        if (bound(s, node, "maximum", &v)) upper(&k, v, fa_jbool(open_max, false), node);
        if (open_min && fa_jtype_of(open_min) != FA_JBOOL && bound(s, node, "exclusiveMinimum", &v))
            lower(&k, v, true, node);
        if (open_max && fa_jtype_of(open_max) != FA_JBOOL && bound(s, node, "exclusiveMaximum", &v))
            upper(&k, v, true, node);
    }
    return k;
}

/* Where there are bounds, numbers have up to 15 digits: a bound beyond those, like the ends of 64 bits, is none. */
static bool within_digits(fa_schema *s, fa_sbounds *k) {
    const double end = 1e15;
    if ((k->has_min && k->min >= end) || (k->has_max && k->max <= -end)) {
        static const char *const keys[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", NULL};
        const char *const *key = keys;
        while (*key && fabs(fa_jnum(fa_jget(k->at, *key), 0)) < end) key++;
        return fa_schema_fail(s, FFAI_ELIMIT, k->at, *key, "numbers of 1e15 and more are not supported"), false;
    }
    k->has_min = k->has_min && k->min > -end;
    k->has_max = k->has_max && k->max < end;
    return true;
}

uint32_t fa_schema_number(fa_schema *s, const fa_sset *set, bool integer) {
    static const char any[] = "-?(0|[1-9][0-9]{0,15})(\\.[0-9]{1,16})?([eE][+-]?[0-9]{1,2})?",
                      whole[] = "0|-?[1-9][0-9]{0,14}";
    fa_sbounds k = fa_schema_bounds(s, set);
    bool bounded = k.has_min || k.has_max;
    if (s->b->rc || !within_digits(s, &k)) return 0;
    if (bounded) return fa_decimal_tree(s, &k, integer);
    const char *p = integer ? whole : any;
    bool json = s->b->json;
    s->b->json = false;
    uint32_t x = fa_regex_tree(s->b, p, strlen(p), false);
    s->b->json = json;
    return x;
}
