/* Attributes, items and slices with the lookup rules of jinja's sandbox, methods of values other than str, and calls.
 */
#include "text/jinja/int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- methods ---- */

static fa_jjv view(fa_jj *m, fa_jjdict *d, int kind) {
    fa_jjview *w = (fa_jjview *)fa_jj_alloc(m, 1, sizeof *w);
    w->d = d;
    w->kind = kind;
    return (fa_jjv){.t = FA_JJ_VIEW, .u.w = w};
}

static fa_jjv d_keys(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return (void)a, view(m, self.u.d, 'k'); }
static fa_jjv d_values(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return (void)a, view(m, self.u.d, 'v'); }
static fa_jjv d_items(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return (void)a, view(m, self.u.d, 'i'); }
static fa_jjv d_copy(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    return (void)a, fa_jj_dictv(fa_jj_dict_copy(m, self.u.d));
}

static fa_jjv d_get(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjv *v = fa_jj_dict_get(m, self.u.d, a->v[0]);
    return v ? *v : fa_jj_arg(a, 1, fa_jj_none());
}

static fa_jjv d_fromkeys(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjdict *d = fa_jj_dict(m, 0);
    fa_jjiter *it = fa_jj_iter(m, a->v[0]);
    fa_jjv k;
    (void)self;
    while (fa_jj_next(m, it, &k)) fa_jj_dict_set(m, d, k, fa_jj_arg(a, 1, fa_jj_none()));
    return fa_jj_dictv(d);
}

static fa_jjv l_copy(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return (void)a, fa_jj_listv(fa_jj_to_list(m, self)); }

static fa_jjv l_count(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    int64_t n = 0;
    fa_jjiter *it = fa_jj_iter(m, self);
    fa_jjv v;
    while (fa_jj_next(m, it, &v)) n += fa_jj_eq(m, v, a->v[0]);
    return fa_jj_int(n);
}

static fa_jjv l_index(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjlist *l = fa_jj_to_list(m, self);
    int64_t n = (int64_t)l->n, from = fa_jj_index(m, fa_jj_arg(a, 1, fa_jj_int(0))),
            to = fa_jj_index(m, fa_jj_arg(a, 2, fa_jj_int(INT64_MAX)));
    if (from < 0) from = from < -n ? 0 : from + n;
    if (to < 0) to += n;
    for (int64_t i = from; i < n && i < to; i++)
        if (fa_jj_eq(m, l->v[i], a->v[0])) return fa_jj_int(i);
    if (self.t == FA_JJ_TUPLE) fa_jj_fail(m, FFAI_EINVAL, "tuple.index(x): x not in tuple");
    fa_jjstr *r = fa_jj_repr(m, a->v[0]);
    fa_jj_fail(m, FFAI_EINVAL, "%.*s is not in %s", (int)(r->n < 200 ? r->n : 200), r->p, fa_jj_type(self));
}

static fa_jjv n_is_integer(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)m, (void)a;
    return fa_jj_bool(self.u.f == floor(self.u.f) && !isinf(self.u.f));
}

static fa_jjv n_bit_length(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    int64_t i = fa_jj_as_int(self), n = 0;
    (void)m, (void)a;
    for (uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i; u; u >>= 1) n++;
    return fa_jj_int(n);
}

static fa_jjv n_conjugate(fa_jj *m, fa_jjv self, const fa_jjargs *a) { return (void)m, (void)a, self; }

static fa_jjv lo_cycle(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    if (a->n_kw) fa_jj_type_error(m, "LoopContext.cycle() got an unexpected keyword argument");
    if (!a->n) fa_jj_type_error(m, "no items for cycling given");
    return a->v[self.u.lo->index0 % a->n];
}

static fa_jjv lo_changed(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjlist *l = fa_jj_list(m, a->n);
    for (size_t i = 0; i < a->n; i++) fa_jj_push(m, l, a->v[i]);
    fa_jjv now = fa_jj_tuplev(l);
    if (self.u.lo->changed.t == FA_JJ_TUPLE && fa_jj_eq(m, self.u.lo->changed, now)) return fa_jj_bool(false);
    self.u.lo->changed = now;
    return fa_jj_bool(true);
}

static fa_jjv c_next(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjcycler *c = self.u.c;
    fa_jjv v = c->items->v[c->pos];
    (void)m, (void)a;
    c->pos = (c->pos + 1) % c->items->n;
    return v;
}

static fa_jjv c_reset(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)m, (void)a;
    self.u.c->pos = 0;
    return fa_jj_none();
}

static const fa_jjfunc dict_methods[] = {{"keys", d_keys, "", "dict.keys", true},
                                         {"values", d_values, "", "dict.values", true},
                                         {"items", d_items, "", "dict.items", true},
                                         {"get", d_get, "key,default=", "get", true},
                                         {"copy", d_copy, "", "dict.copy", true},
                                         {"fromkeys", d_fromkeys, "iterable,value=", "fromkeys", true},
                                         {0}};
static const fa_jjfunc list_methods[] = {{"index", l_index, "value,start=,stop=", "index", true},
                                         {"count", l_count, "value", "list.count", true},
                                         {"copy", l_copy, "", "list.copy", true},
                                         {0}};
static const fa_jjfunc tuple_methods[] = {
    {"index", l_index, "value,start=,stop=", "index", true}, {"count", l_count, "value", "tuple.count", true}, {0}};
static const fa_jjfunc int_methods[] = {{"bit_length", n_bit_length, "", "int.bit_length", true},
                                        {"conjugate", n_conjugate, "", "int.conjugate", true},
                                        {0}};
static const fa_jjfunc float_methods[] = {{"is_integer", n_is_integer, "", "float.is_integer", true},
                                          {"conjugate", n_conjugate, "", "float.conjugate", true},
                                          {0}};
static const fa_jjfunc loop_methods[] = {
    {"cycle", lo_cycle, NULL, NULL, false}, {"changed", lo_changed, NULL, NULL, false}, {0}};
static const fa_jjfunc cycler_methods[] = {
    {"next", c_next, "", "Cycler.next", false}, {"reset", c_reset, "", "Cycler.reset", false}, {0}};

static const fa_jjfunc *method(fa_jjv obj, const fa_jjstr *name) {
    const fa_jjfunc *f = NULL;
    switch (obj.t) {
    case FA_JJ_STR: return fa_jj_str_method(name);
    case FA_JJ_DICT: f = dict_methods; break;
    case FA_JJ_LIST: f = list_methods; break;
    case FA_JJ_RANGE:
    case FA_JJ_TUPLE: f = tuple_methods; break;
    case FA_JJ_BOOL:
    case FA_JJ_INT: f = int_methods; break;
    case FA_JJ_FLOAT: f = float_methods; break;
    case FA_JJ_LOOP: f = loop_methods; break;
    case FA_JJ_CYCLER: f = cycler_methods; break;
    default: return NULL;
    }
    while (f->name && !fa_jj_is(name, f->name)) f++;
    return f->name ? f : NULL;
}

/* ---- what the sandbox refuses ---- */

static bool among(const fa_jjstr *name, const char *const *list) {
    for (; *list; list++)
        if (fa_jj_is(name, *list)) return true;
    return false;
}

/* Attributes that Python has and the sandbox does not give: those that change a container, internals. */
static bool unsafe(fa_jjv obj, const fa_jjstr *name) {
    static const char *const list[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove", NULL};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const dunder[] = {"__class__",
                                         "__doc__",
                                         "__init__",
                                         "__eq__",
                                         "__ne__",
                                         "__repr__",
                                         "__str__",
                                         "__hash__",
                                         "__dir__",
                                         "__format__",
                                         "__getattribute__",
                                         "__new__",
                                         "__reduce__",
                                         "__reduce_ex__",
                                         "__sizeof__",
                                         "__subclasshook__",
                                         "__init_subclass__",
                                         "__setattr__",
                                         "__delattr__",
                                         "__lt__",
                                         "__le__",
                                         "__gt__",
                                         "__ge__",
                                         NULL};
    static const char *const sized[] = {"__len__", "__iter__", "__contains__", "__getitem__", NULL};
    if (obj.t == FA_JJ_LIST && among(name, list)) return true;
    if (obj.t == FA_JJ_DICT && among(name, dict)) return true;
    if (obj.t == FA_JJ_NS) return fa_jj_is(name, "__class__");
    if (name->n < 5 || memcmp(name->p, "__", 2) != 0) return false;
    if (among(name, dunder)) return true;
    return (obj.t == FA_JJ_STR || obj.t == FA_JJ_LIST || obj.t == FA_JJ_TUPLE || obj.t == FA_JJ_DICT ||
            obj.t == FA_JJ_RANGE) &&
           among(name, sized);
}

/* Plain attributes that are no methods. */
static bool field(fa_jj *m, fa_jjv obj, fa_jjstr *name, fa_jjv *out) {
    bool found = false;
    switch (obj.t) {
    case FA_JJ_NS: {
        fa_jjv *v = fa_jj_dict_get(m, obj.u.d, fa_jj_strv(name));
        if (v) *out = *v;
        return v != NULL;
    }
    case FA_JJ_LOOP: *out = fa_jj_loop_attr(m, obj.u.lo, name, &found); return found;
    case FA_JJ_TUPLE:
        if (!obj.u.l->group || !(fa_jj_is(name, "grouper") || fa_jj_is(name, "list"))) return false;
        *out = obj.u.l->v[fa_jj_is(name, "list")];
        return true;
    case FA_JJ_RANGE:
        if (!fa_jj_is(name, "start") && !fa_jj_is(name, "stop") && !fa_jj_is(name, "step")) return false;
        *out = fa_jj_int(name->p[2] == 'a' ? obj.u.r->start : name->p[2] == 'o' ? obj.u.r->stop : obj.u.r->step);
        return true;
    case FA_JJ_BOOL:
    case FA_JJ_INT:
    case FA_JJ_FLOAT:
        if (fa_jj_is(name, "real"))
            *out = obj.t == FA_JJ_FLOAT ? obj : fa_jj_int(fa_jj_as_int(obj));
        else if (fa_jj_is(name, "imag"))
            *out = obj.t == FA_JJ_FLOAT ? fa_jj_float(0) : fa_jj_int(0);
        else if (obj.t != FA_JJ_FLOAT && fa_jj_is(name, "numerator"))
            *out = fa_jj_int(fa_jj_as_int(obj));
        else if (obj.t != FA_JJ_FLOAT && fa_jj_is(name, "denominator"))
            *out = fa_jj_int(1);
        else
            return false;
        return true;
    case FA_JJ_CYCLER:
        if (!fa_jj_is(name, "current")) return false;
        *out = obj.u.c->items->v[obj.u.c->pos];
        return true;
    case FA_JJ_MACRO:
        if (!fa_jj_is(name, "name")) return false;
        *out = obj.u.m->node->k == FA_JJ_N_MACRO ? fa_jj_strv(m->t->sym[obj.u.m->node->sym]) : fa_jj_none();
        return true;
    default: return false;
    }
}

bool fa_jj_attr(fa_jj *m, fa_jjv obj, fa_jjstr *name, fa_jjv *out) {
    if (obj.t == FA_JJ_UNDEF &&
        !(name->n >= 4 && memcmp(name->p, "__", 2) == 0 && memcmp(name->p + name->n - 2, "__", 2) == 0))
        fa_jj_undef_fail(m, obj);
    if (field(m, obj, name, out)) return true;
    const fa_jjfunc *f = method(obj, name);
    if (f) {
        fa_jjmethod *me = (fa_jjmethod *)fa_jj_alloc(m, 1, sizeof *me);
        me->self = obj;
        me->fn = f;
        *out = (fa_jjv){.t = FA_JJ_METHOD, .u.me = me};
        return true;
    }
    if (obj.t == FA_JJ_FUNC && fa_jj_is(name, "fromkeys") && !strcmp(obj.u.fn->name, "dict")) {
        fa_jjmethod *me = (fa_jjmethod *)fa_jj_alloc(m, 1, sizeof *me);
        me->self = obj;
        me->fn = &dict_methods[5];
        *out = (fa_jjv){.t = FA_JJ_METHOD, .u.me = me};
        return true;
    }
    if (!unsafe(obj, name)) return false;
    *out = fa_jj_undef_hint(m, "access to attribute '%.*s' of '%s' object is unsafe.", (int)name->n, name->p,
                            fa_jj_type(obj));
    return true;
}

fa_jjv fa_jj_getattr(fa_jj *m, fa_jjv obj, fa_jjstr *name) {
    fa_jjv v;
    if (fa_jj_attr(m, obj, name, &v)) return v;
    if (obj.t == FA_JJ_DICT) {
        fa_jjv *e = fa_jj_dict_get(m, obj.u.d, fa_jj_strv(name));
        if (e) return *e;
    }
    if (obj.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, obj);
    return fa_jj_undef(m, obj, fa_jj_strv(name));
}

/* ---- items ---- */

/* obj[i] for sequences; false: out of range */
static bool item(fa_jj *m, fa_jjv obj, int64_t i, fa_jjv *out) {
    size_t n, len;
    fa_jj_len(m, obj, &n);
    if (i < 0) i += (int64_t)n;
    if (i < 0 || (size_t)i >= n) return false;
    if (obj.t == FA_JJ_STR) {
        *out = fa_jj_strv(fa_jj_char(m, obj.u.s, fa_jj_offset(m, obj.u.s, (size_t)i), &len));
        if (obj.u.s->markup) out->u.s = fa_jj_mark(m, out->u.s);
    } else if (obj.t == FA_JJ_RANGE)
        *out = fa_jj_int(obj.u.r->start + i * obj.u.r->step);
    else
        *out = obj.u.l->v[i];
    return true;
}

fa_jjv fa_jj_getitem(fa_jj *m, fa_jjv obj, fa_jjv key) {
    fa_jjv v;
    if (obj.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, obj);
    if (obj.t == FA_JJ_DICT) {
        bool hashable = key.t != FA_JJ_LIST && key.t != FA_JJ_DICT; /* else a TypeError, which jinja swallows */
        fa_jjv *e = hashable ? fa_jj_dict_get(m, obj.u.d, key) : NULL;
        if (e) return *e;
    } else if ((obj.t == FA_JJ_STR || obj.t == FA_JJ_LIST || obj.t == FA_JJ_TUPLE || obj.t == FA_JJ_RANGE) &&
               fa_jj_is_int(key)) {
        if (item(m, obj, fa_jj_as_int(key), &v)) return v;
    }
    if (key.t == FA_JJ_STR && fa_jj_attr(m, obj, key.u.s, &v)) return v;
    return fa_jj_undef(m, obj, key);
}

/* ---- slices ---- */

static int64_t slice_index(fa_jj *m, fa_jjv v, int64_t otherwise) {
    if (v.t == FA_JJ_NONE) return otherwise;
    if (!fa_jj_is_int(v)) fa_jj_type_error(m, "slice indices must be integers or None or have an __index__ method");
    return fa_jj_as_int(v);
}

static int64_t clamp(int64_t i, int64_t n, int64_t lo, int64_t hi) {
    if (i < 0) i = i < -n ? -1 - n : i + n;
    return i < lo ? lo : i > hi ? hi : i;
}

static fa_jjv slice_str(fa_jj *m, fa_jjstr *s, int64_t from, int64_t to, int64_t step, size_t count) {
    if (step == 1 || !count)
        return fa_jj_strv(fa_jj_sub(m, s, fa_jj_offset(m, s, (size_t)from),
                                    count ? fa_jj_offset(m, s, (size_t)to) : fa_jj_offset(m, s, (size_t)from)));
    size_t mark = m->out.len, len;
    for (size_t k = 0; k < count; k++, from += step) {
        fa_jj_step(m, 1);
        fa_jjstr *c = fa_jj_char(m, s, fa_jj_offset(m, s, (size_t)from), &len);
        fa_jj_puts(m, &m->out, c->p, c->n);
    }
    fa_jjstr *r = fa_jj_take(m, mark);
    r->markup = s->markup;
    return fa_jj_strv(r);
}

fa_jjv fa_jj_slice(fa_jj *m, fa_jjv obj, fa_jjv start, fa_jjv stop, fa_jjv step) {
    size_t len;
    if (obj.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, obj);
    bool sliceable = obj.t == FA_JJ_STR || obj.t == FA_JJ_LIST || obj.t == FA_JJ_TUPLE || obj.t == FA_JJ_RANGE;
    if (!sliceable && m->folding) return fa_jj_undef(m, obj, fa_jj_none());
    if (obj.t == FA_JJ_DICT) fa_jj_type_error(m, "unhashable type: 'slice'");
    if (!sliceable) fa_jj_type_error(m, "'%s' object is not subscriptable", fa_jj_type(obj));
    fa_jj_len(m, obj, &len);
    int64_t n = (int64_t)len, by = slice_index(m, step, 1);
    if (by == 0) fa_jj_fail(m, FFAI_EINVAL, "slice step cannot be zero");
    if (by < -INT32_MAX) by = -INT32_MAX;
    if (by > INT32_MAX) by = INT32_MAX;
    int64_t lo = by < 0 ? -1 : 0, hi = by < 0 ? n - 1 : n;
    int64_t from = start.t == FA_JJ_NONE ? (by < 0 ? hi : lo) : clamp(slice_index(m, start, 0), n, lo, hi);
    int64_t to = stop.t == FA_JJ_NONE ? (by < 0 ? lo : hi) : clamp(slice_index(m, stop, 0), n, lo, hi);
    size_t count = by > 0 ? (to > from ? (size_t)((to - from - 1) / by + 1) : 0)
                          : (from > to ? (size_t)((from - to - 1) / -by + 1) : 0);
    if (obj.t == FA_JJ_STR) return slice_str(m, obj.u.s, from < 0 ? 0 : from, to, by, count);
    if (obj.t == FA_JJ_RANGE) {
        fa_jjrange *r = (fa_jjrange *)fa_jj_alloc(m, 1, sizeof *r);
        *r = (fa_jjrange){obj.u.r->start + from * obj.u.r->step, obj.u.r->start + to * obj.u.r->step,
                          obj.u.r->step * by, count};
        return (fa_jjv){.t = FA_JJ_RANGE, .u.r = r};
    }
    fa_jjlist *l = fa_jj_list(m, count);
    fa_jj_step(m, count / 4);
    for (size_t k = 0; k < count; k++, from += by) fa_jj_push(m, l, obj.u.l->v[from]);
    return obj.t == FA_JJ_LIST ? fa_jj_listv(l) : fa_jj_tuplev(l);
}

/* ---- namespaces ---- */

void fa_jj_ns_set(fa_jj *m, fa_jjv ns, fa_jjstr *name, fa_jjv v) {
    if (ns.t != FA_JJ_NS) fa_jj_fail(m, FFAI_EINVAL, "cannot assign attribute on non-namespace object");
    if (name->n && name->p[0] == '_')
        fa_jj_fail(m, FFAI_EINVAL,
                   "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '%.*s'. Please "
                   "rename the attribute.",
                   (int)name->n, name->p);
    fa_jj_dict_set(m, ns.u.d, fa_jj_strv(name), v);
}

/* ---- calls ---- */

enum { MAX_PARAM = 8 };

/* The next name of "a,b=,c"; *optional: it ends with '='. */
static const char *param(const char *p, size_t *n, bool *optional) {
    size_t k = strcspn(p, ",");
    *optional = k && p[k - 1] == '=';
    *n = k - *optional;
    return p[k] ? p + k + 1 : p + k;
}

/* Puts arguments where the parameters of f are. */
static void bind(fa_jj *m, const fa_jjfunc *f, const fa_jjargs *a, fa_jjv *v) {
    const char *name = f->pyname ? f->pyname : f->name, *p = f->params;
    size_t n = 0, len;
    bool optional, used[64] = {0};
    if (f->positional && a->n_kw) fa_jj_type_error(m, "%s() takes no keyword arguments", name);
    for (; *p; n++) {
        const char *q = p;
        p = param(p, &len, &optional);
        v[n] = n < a->n ? a->v[n] : fa_jj_missing();
        for (size_t k = 0; k < a->n_kw; k++) {
            const fa_jjstr *key = a->key[k].u.s;
            if (key->n != len || memcmp(key->p, q, len) != 0) continue;
            if (n < a->n) fa_jj_type_error(m, "%s() got multiple values for argument '%.*s'", name, (int)len, q);
            v[n] = a->val[k];
            if (k < 64) used[k] = true;
        }
        if (v[n].t == FA_JJ_MISSING && !optional) {
            if (f->positional && !strchr(f->params, ','))
                fa_jj_type_error(m, "%s() takes exactly one argument (0 given)", name);
            fa_jj_type_error(m, "%s() missing 1 required positional argument: '%.*s'", name, (int)len, q);
        }
    }
    if (a->n > n) {
        if (!n && f->positional) fa_jj_type_error(m, "%s() takes no arguments (%zu given)", name, a->n);
        fa_jj_type_error(m, "%s() takes at most %zu arguments (%zu given)", name, n, a->n);
    }
    for (size_t k = 0; k < a->n_kw; k++)
        if (k >= 64 || !used[k])
            fa_jj_type_error(m, "%s() got an unexpected keyword argument '%.*s'", name, (int)a->key[k].u.s->n,
                             a->key[k].u.s->p);
}

fa_jjv fa_jj_invoke(fa_jj *m, const fa_jjfunc *f, fa_jjv self, const fa_jjargs *a) {
    fa_jjv v[MAX_PARAM];
    fa_jj_enter(m);
    fa_jj_step(m, 1);
    fa_jjv r;
    if (f->params) {
        bind(m, f, a, v);
        fa_jjargs bound = {.v = v};
        r = f->fn(m, self, &bound);
    } else {
        r = f->fn(m, self, a);
    }
    fa_jj_leave(m);
    return r;
}

fa_jjv fa_jj_call(fa_jj *m, fa_jjv f, const fa_jjargs *a) {
    switch (f.t) {
    case FA_JJ_UNDEF: fa_jj_undef_fail(m, f);
    case FA_JJ_MACRO: return fa_jj_call_macro(m, f.u.m, a);
    case FA_JJ_FUNC: return fa_jj_invoke(m, f.u.fn, fa_jj_missing(), a);
    case FA_JJ_METHOD: return fa_jj_invoke(m, f.u.me->fn, f.u.me->self, a);
    case FA_JJ_LOOP:
        if (a->n != 1 || a->n_kw) fa_jj_type_error(m, "LoopContext.__call__() takes one argument");
        return fa_jj_call_loop(m, f.u.lo, a->v[0]);
    case FA_JJ_JOINER:
        if (f.u.c->pos++ == 0) return fa_jj_text(m, "");
        return f.u.c->items->v[0];
    default: fa_jj_type_error(m, "'%s' object is not callable", fa_jj_type(f));
    }
}
