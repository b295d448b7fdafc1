/* What Python does with values of any type: truth, equality, order, membership. */
#include "text/jinja/int.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *fa_jj_type(fa_jjv v) {
    switch (v.t) {
    case FA_JJ_NONE: return "NoneType";
    case FA_JJ_BOOL: return "bool";
    case FA_JJ_INT:
    case FA_JJ_BIG: return "int";
    case FA_JJ_FLOAT: return "float";
    case FA_JJ_STR: return v.u.s->markup ? "Markup" : "str";
    case FA_JJ_LIST: return "list";
    case FA_JJ_TUPLE: return v.u.l->group ? "_GroupTuple" : "tuple";
    case FA_JJ_DICT: return "dict";
    case FA_JJ_RANGE: return "range";
    case FA_JJ_VIEW: return v.u.w->kind == 'k' ? "dict_keys" : v.u.w->kind == 'v' ? "dict_values" : "dict_items";
    case FA_JJ_ITER: return v.u.it->type;
    case FA_JJ_NS: return "TemplateNamespace";
    case FA_JJ_MACRO: return "Macro";
    case FA_JJ_FUNC: return "function";
    case FA_JJ_METHOD: return "builtin_function_or_method";
    case FA_JJ_LOOP: return "LoopContext";
    case FA_JJ_CYCLER: return "Cycler";
    case FA_JJ_JOINER: return "Joiner";
    case FA_JJ_MISSING:
    case FA_JJ_UNDEF: break;
    }
    return "Undefined";
}

/* ---- undefined values ---- */

fa_jjv fa_jj_undef(fa_jj *m, fa_jjv obj, fa_jjv name) {
    fa_jjundef *u = (fa_jjundef *)fa_jj_alloc(m, 1, sizeof *u);
    u->obj = obj;
    u->name = name;
    return (fa_jjv){.t = FA_JJ_UNDEF, .u.u = u};
}

fa_jjv fa_jj_undef_hint(fa_jj *m, const char *fmt, ...) {
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    fa_jjv v = fa_jj_undef(m, fa_jj_missing(), fa_jj_missing());
    v.u.u->hint = fa_jj_strv(fa_jj_copy(m, msg, n < 0 ? 0 : strlen(msg)));
    return v;
}

/* "X object" as jinja's object_type_repr says it */
static void type_repr(fa_jjv v, char *buf, size_t cap) {
    static const char *const module[] = {[FA_JJ_NS] = "transformers.utils.chat_template_utils.",
                                         [FA_JJ_MACRO] = "jinja2.runtime.",
                                         [FA_JJ_LOOP] = "jinja2.runtime.",
                                         [FA_JJ_CYCLER] = "jinja2.utils.",
                                         [FA_JJ_JOINER] = "jinja2.utils."};
    const char *mod = module[v.t] ? module[v.t] : "";
    if (v.t == FA_JJ_STR && v.u.s->markup) mod = "markupsafe.";
    if (v.t == FA_JJ_TUPLE && v.u.l->group) mod = "jinja2.filters.";
    snprintf(buf, cap, v.t == FA_JJ_NONE ? "None" : "%s%s object", mod, fa_jj_type(v));
}

void fa_jj_undef_fail(fa_jj *m, fa_jjv v) {
    const fa_jjundef *u = v.u.u;
    char type[96];
    if (u->hint.t == FA_JJ_STR) fa_jj_raise(m, u->hint.u.s);
    size_t mark = m->out.len;
    fa_jj_put_repr(m, &m->out, u->name);
    fa_jjstr *name = fa_jj_take(m, mark);
    if (u->obj.t == FA_JJ_MISSING) fa_jj_fail(m, FFAI_EINVAL, "%.*s is undefined", (int)name->n, name->p);
    type_repr(u->obj, type, sizeof type);
    if (u->name.t != FA_JJ_STR) fa_jj_fail(m, FFAI_EINVAL, "%s has no element %.*s", type, (int)name->n, name->p);
    fa_jj_fail(m, FFAI_EINVAL, "'%s' has no attribute %.*s", type, (int)name->n, name->p);
}

/* ---- truth, length ---- */

bool fa_jj_len(fa_jj *m, fa_jjv v, size_t *n) {
    switch (v.t) {
    case FA_JJ_STR: *n = fa_jj_ncp(m, v.u.s); return true;
    case FA_JJ_LIST:
    case FA_JJ_TUPLE: *n = v.u.l->n; return true;
    case FA_JJ_DICT: *n = v.u.d->n; return true;
    case FA_JJ_VIEW: *n = v.u.w->d->n; return true;
    case FA_JJ_RANGE: *n = v.u.r->n; return true;
    case FA_JJ_UNDEF: *n = 0; return true;
    case FA_JJ_LOOP: {
        bool found;
        fa_jjstr name = {.p = "length", .n = 6};
        *n = (size_t)fa_jj_loop_attr(m, v.u.lo, &name, &found).u.i;
        return true;
    }
    default: return false;
    }
}

bool fa_jj_truth(fa_jj *m, fa_jjv v) {
    size_t n;
    switch (v.t) {
    case FA_JJ_MISSING:
    case FA_JJ_UNDEF:
    case FA_JJ_NONE: return false;
    case FA_JJ_BOOL: return v.u.b;
    case FA_JJ_INT: return v.u.i != 0;
    case FA_JJ_FLOAT: return v.u.f != 0;
    case FA_JJ_STR: return v.u.s->n != 0;
    case FA_JJ_LIST:
    case FA_JJ_TUPLE: return v.u.l->n != 0;
    case FA_JJ_DICT: return v.u.d->n != 0;
    case FA_JJ_RANGE:
    case FA_JJ_VIEW:
    case FA_JJ_LOOP: return fa_jj_len(m, v, &n) && n;
    default: return true;
    }
}

int64_t fa_jj_index(fa_jj *m, fa_jjv v) {
    if (v.t == FA_JJ_UNDEF) fa_jj_type_error(m, "'Undefined' object cannot be interpreted as an integer");
    if (v.t == FA_JJ_BIG) fa_jj_fail(m, FFAI_ELIMIT, "integer %.*s is past 64 bits", (int)v.u.s->n, v.u.s->p);
    if (!fa_jj_is_int(v)) fa_jj_type_error(m, "'%s' object cannot be interpreted as an integer", fa_jj_type(v));
    return fa_jj_as_int(v);
}

/* ---- equality and order ---- */

static int order_float(double a, double b) { return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2; }

static int order_num(fa_jjv a, fa_jjv b) {
    if (a.t == FA_JJ_FLOAT && b.t == FA_JJ_FLOAT) return order_float(a.u.f, b.u.f);
    if (a.t == FA_JJ_FLOAT || b.t == FA_JJ_FLOAT) {
        double f = a.t == FA_JJ_FLOAT ? a.u.f : b.u.f;
        int64_t i = fa_jj_as_int(a.t == FA_JJ_FLOAT ? b : a);
        int o; /* of f against i, exact */
        if (isnan(f)) return 2;
        if (f >= 0x1p63)
            o = 1;
        else if (f < -0x1p63)
            o = -1;
        else {
            double whole = floor(f);
            int64_t w = (int64_t)whole;
            o = w < i ? -1 : w > i ? 1 : f > whole ? 1 : 0;
        }
        return a.t == FA_JJ_FLOAT ? o : -o;
    }
    int64_t x = fa_jj_as_int(a), y = fa_jj_as_int(b);
    return x < y ? -1 : x > y;
}

static bool eq_list(fa_jj *m, const fa_jjlist *a, const fa_jjlist *b) {
    if (a->n != b->n) return false;
    fa_jj_enter(m);
    bool same = true;
    for (size_t i = 0; i < a->n && same; i++) same = fa_jj_eq(m, a->v[i], b->v[i]);
    fa_jj_leave(m);
    return same;
}

static bool eq_dict(fa_jj *m, const fa_jjdict *a, const fa_jjdict *b) {
    if (a->n != b->n) return false;
    fa_jj_enter(m);
    bool same = true;
    for (size_t i = 0; i < a->n && same; i++) {
        fa_jjv *v = fa_jj_dict_get(m, b, a->e[i].key);
        same = v && fa_jj_eq(m, a->e[i].val, *v);
    }
    fa_jj_leave(m);
    return same;
}

bool fa_jj_eq(fa_jj *m, fa_jjv a, fa_jjv b) {
    fa_jj_step(m, 1);
    if (fa_jj_is_num(a) && fa_jj_is_num(b)) return order_num(a, b) == 0;
    if (a.t == FA_JJ_VIEW && b.t == FA_JJ_VIEW && a.u.w->kind == b.u.w->kind && a.u.w->kind != 'v')
        return a.u.w->d->n == b.u.w->d->n && (a.u.w->kind == 'i' ? eq_dict(m, a.u.w->d, b.u.w->d) : fa_jj_in(m, a, b));
    if (a.t != b.t) return false;
    switch (a.t) {
    case FA_JJ_MISSING:
    case FA_JJ_UNDEF:
    case FA_JJ_NONE: return true;
    case FA_JJ_STR:
    case FA_JJ_BIG: fa_jj_step(m, a.u.s->n / 256); return fa_jj_same(a.u.s, b.u.s);
    case FA_JJ_LIST:
    case FA_JJ_TUPLE: return a.u.l == b.u.l || eq_list(m, a.u.l, b.u.l);
    case FA_JJ_DICT: return a.u.d == b.u.d || eq_dict(m, a.u.d, b.u.d);
    case FA_JJ_RANGE:
        return a.u.r->n == b.u.r->n &&
               (!a.u.r->n || (a.u.r->start == b.u.r->start && (a.u.r->n == 1 || a.u.r->step == b.u.r->step)));
    default: return a.u.s == b.u.s;
    }
}

static int cmp_str(fa_jj *m, const fa_jjstr *a, const fa_jjstr *b) {
    size_t n = a->n < b->n ? a->n : b->n; /* the order of UTF-8 bytes is that of code points */
    fa_jj_step(m, n / 256);
    int c = n ? memcmp(a->p, b->p, n) : 0;
    return c ? (c < 0 ? -1 : 1) : a->n < b->n ? -1 : a->n > b->n;
}

static int cmp_list(fa_jj *m, const fa_jjlist *a, const fa_jjlist *b, const char *op) {
    int c = 0;
    size_t i = 0;
    fa_jj_enter(m);
    while (i < a->n && i < b->n && fa_jj_eq(m, a->v[i], b->v[i])) i++;
    if (i < a->n && i < b->n)
        c = fa_jj_cmp(m, a->v[i], b->v[i], op);
    else
        c = a->n < b->n ? -1 : a->n > b->n;
    fa_jj_leave(m);
    return c;
}

int fa_jj_cmp(fa_jj *m, fa_jjv a, fa_jjv b, const char *op) {
    fa_jj_step(m, 1);
    if (a.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, a);
    if (b.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, b);
    if (fa_jj_is_num(a) && fa_jj_is_num(b)) return order_num(a, b);
    if (a.t == FA_JJ_STR && b.t == FA_JJ_STR) return cmp_str(m, a.u.s, b.u.s);
    if (a.t == b.t && (a.t == FA_JJ_LIST || a.t == FA_JJ_TUPLE)) return cmp_list(m, a.u.l, b.u.l, op);
    fa_jj_type_error(m, "'%s' not supported between instances of '%s' and '%s'", op, fa_jj_type(a), fa_jj_type(b));
}

/* ---- membership ---- */

static bool in_range(fa_jj *m, fa_jjv v, const fa_jjrange *r) {
    if (!fa_jj_is_num(v) || !r->n) return false;
    if (v.t == FA_JJ_FLOAT && (v.u.f != floor(v.u.f) || fabs(v.u.f) >= 0x1p62)) return false;
    int64_t i = v.t == FA_JJ_FLOAT ? (int64_t)v.u.f : fa_jj_as_int(v), off;
    (void)m;
    if (__builtin_sub_overflow(i, r->start, &off) || off % r->step) return false;
    off /= r->step;
    return off >= 0 && (size_t)off < r->n;
}

bool fa_jj_in(fa_jj *m, fa_jjv v, fa_jjv seq) {
    if (seq.t == FA_JJ_STR) {
        if (v.t != FA_JJ_STR)
            fa_jj_type_error(m, "'in <string>' requires string as left operand, not %s", fa_jj_type(v));
        return fa_jj_find(m, seq.u.s, v.u.s, 0) != SIZE_MAX;
    }
    if (seq.t == FA_JJ_DICT || (seq.t == FA_JJ_VIEW && seq.u.w->kind == 'k' && v.t != FA_JJ_VIEW))
        return fa_jj_dict_get(m, seq.t == FA_JJ_DICT ? seq.u.d : seq.u.w->d, v) != NULL;
    if (seq.t == FA_JJ_RANGE && fa_jj_is_num(v)) return in_range(m, v, seq.u.r);
    if (!fa_jj_iterable(seq)) fa_jj_type_error(m, "argument of type '%s' is not iterable", fa_jj_type(seq));
    if (v.t == FA_JJ_VIEW && seq.t == FA_JJ_VIEW) { /* all keys of v; only for == */
        for (size_t i = 0; i < v.u.w->d->n; i++)
            if (!fa_jj_dict_get(m, seq.u.w->d, v.u.w->d->e[i].key)) return false;
        return true;
    }
    fa_jjiter *it = fa_jj_iter(m, seq);
    fa_jjv x;
    while (fa_jj_next(m, it, &x))
        if (fa_jj_eq(m, v, x)) return true;
    return false;
}
