/* Filters on values and sequences, and the table of all filters. */
#include "text/jinja/int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- attributes: "a.b.0" ---- */

typedef struct getter {
    fa_jjv *part; /* [n] */
    size_t n;
    bool fold;        /* strings are compared in lower case */
    fa_jjv otherwise; /* for what is undefined; MISSING or none: stays undefined */
} getter;

static fa_jjv part_of(fa_jj *m, fa_jjstr *s) {
    bool digits = s->n > 0 && s->n < 18;
    for (size_t i = 0; i < s->n; i++) digits = digits && s->p[i] >= '0' && s->p[i] <= '9';
    return digits ? fa_jj_int(strtoll(fa_jj_copy(m, s->p, s->n)->p, NULL, 10)) : fa_jj_strv(s);
}

static getter make_getter(fa_jj *m, fa_jjv attr, bool fold) {
    getter g = {.fold = fold};
    if (attr.t == FA_JJ_MISSING || attr.t == FA_JJ_NONE) return g;
    fa_jjlist *l = fa_jj_list(m, 2);
    if (attr.t == FA_JJ_STR) {
        size_t from = 0;
        for (size_t i = 0; i <= attr.u.s->n; i++) {
            if (i < attr.u.s->n && attr.u.s->p[i] != '.') continue;
            fa_jj_push(m, l, part_of(m, fa_jj_sub(m, attr.u.s, from, i)));
            from = i + 1;
        }
    } else {
        fa_jj_push(m, l, attr);
    }
    g.part = l->v;
    g.n = l->n;
    return g;
}

static fa_jjv folded(fa_jj *m, fa_jjv v) { return v.t == FA_JJ_STR ? fa_jj_strv(fa_jj_case(m, v.u.s, 'l')) : v; }

static fa_jjv get(fa_jj *m, const getter *g, fa_jjv v) {
    for (size_t i = 0; i < g->n; i++) {
        v = fa_jj_getitem(m, v, g->part[i]);
        if (v.t == FA_JJ_UNDEF && g->otherwise.t != FA_JJ_MISSING && g->otherwise.t != FA_JJ_NONE) v = g->otherwise;
    }
    return g->fold ? folded(m, v) : v;
}

/* ---- sorting ---- */

typedef struct keyed {
    fa_jjv key, v;
} keyed;

/* Merge sort, stable in both directions as Python's. */
static void sort(fa_jj *m, keyed *e, keyed *tmp, size_t n, bool reverse) {
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, k = 0;
    sort(m, e, tmp, h, reverse);
    sort(m, e + h, tmp, n - h, reverse);
    while (i < h && j < n) {
        int c = reverse ? fa_jj_cmp(m, e[i].key, e[j].key, "<") : fa_jj_cmp(m, e[j].key, e[i].key, "<");
        tmp[k++] = c == -1 ? e[j++] : e[i++];
    }
    while (i < h) tmp[k++] = e[i++];
    while (j < n) tmp[k++] = e[j++];
    memcpy(e, tmp, n * sizeof *e);
}

/* wrap: keys are lists even of one, whose order asks for equality first */
static keyed *sorted(fa_jj *m, fa_jjlist *l, const getter *g, size_t n_key, bool wrap, bool reverse) {
    keyed *e = (keyed *)fa_jj_alloc(m, l->n * 2 + 1, sizeof *e);
    for (size_t i = 0; i < l->n; i++) {
        e[i].v = l->v[i];
        if (!wrap) {
            e[i].key = get(m, g, l->v[i]);
        } else {
            fa_jjlist *keys = fa_jj_list(m, n_key);
            for (size_t k = 0; k < n_key; k++) fa_jj_push(m, keys, get(m, &g[k], l->v[i]));
            e[i].key = fa_jj_listv(keys);
        }
    }
    sort(m, e, e + l->n, l->n, reverse);
    return e;
}

static bool flag(fa_jj *m, const fa_jjargs *a, size_t i) { return fa_jj_truth(m, fa_jj_arg(a, i, fa_jj_bool(false))); }

/* sort(reverse, case_sensitive, attribute): attribute "a,b" sorts by both */
static fa_jjv f_sort(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv attr = fa_jj_arg(a, 2, fa_jj_none());
    bool fold = !flag(m, a, 1);
    getter g[16];
    size_t n = 0, from = 0;
    for (size_t i = 0; attr.t == FA_JJ_STR && i <= attr.u.s->n; i++) {
        if (i < attr.u.s->n && attr.u.s->p[i] != ',') continue;
        if (n == 16) fa_jj_fail(m, FFAI_ELIMIT, "sort by more than 16 attributes");
        g[n++] = make_getter(m, fa_jj_strv(fa_jj_sub(m, attr.u.s, from, i)), fold);
        from = i + 1;
    }
    if (attr.t != FA_JJ_STR) g[n++] = make_getter(m, attr, fold);
    fa_jjlist *l = fa_jj_to_list(m, v), *out = fa_jj_list(m, l->n);
    keyed *e = sorted(m, l, g, n, true, flag(m, a, 0));
    for (size_t i = 0; i < l->n; i++) fa_jj_push(m, out, e[i].v);
    return fa_jj_listv(out);
}

static fa_jjdict *want_dict(fa_jj *m, fa_jjv v, const char *method) {
    if (v.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, v);
    if (v.t != FA_JJ_DICT) fa_jj_type_error(m, "'%s' object has no attribute '%s'", fa_jj_type(v), method);
    return v.u.d;
}

/* dictsort(case_sensitive, by, reverse) */
static fa_jjv f_dictsort(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv by = fa_jj_arg(a, 1, fa_jj_text(m, "key"));
    bool key = by.t == FA_JJ_STR && fa_jj_is(by.u.s, "key");
    if (!key && !(by.t == FA_JJ_STR && fa_jj_is(by.u.s, "value")))
        fa_jj_fail(m, FFAI_EINVAL, "You can only sort by either \"key\" or \"value\"");
    fa_jjdict *d = want_dict(m, v, "items");
    fa_jjlist *l = fa_jj_list(m, d->n), *out = fa_jj_list(m, d->n);
    for (size_t i = 0; i < d->n; i++) fa_jj_push(m, l, fa_jj_pair(m, d->e[i].key, d->e[i].val));
    getter g = make_getter(m, fa_jj_int(!key), !flag(m, a, 0));
    keyed *e = sorted(m, l, &g, 1, false, flag(m, a, 2));
    for (size_t i = 0; i < l->n; i++) fa_jj_push(m, out, e[i].v);
    return fa_jj_listv(out);
}

/* groupby(attribute, default, case_sensitive) */
static fa_jjv f_groupby(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    bool fold = !flag(m, a, 2);
    getter g = make_getter(m, a->v[0], fold), plain;
    g.otherwise = fa_jj_arg(a, 1, fa_jj_none());
    plain = g;
    plain.fold = false;
    fa_jjlist *l = fa_jj_to_list(m, v), *out = fa_jj_list(m, 0), *items = NULL;
    keyed *e = sorted(m, l, &g, 1, false, false);
    for (size_t i = 0; i < l->n; i++) {
        if (!i || !fa_jj_eq(m, e[i].key, e[i - 1].key)) {
            items = fa_jj_list(m, 0);
            fa_jjv group = fa_jj_pair(m, fold ? get(m, &plain, e[i].v) : e[i].key, fa_jj_listv(items));
            group.u.l->group = true;
            fa_jj_push(m, out, group);
        }
        fa_jj_push(m, items, e[i].v);
    }
    return fa_jj_listv(out);
}

/* min, max (case_sensitive, attribute) */
static fa_jjv extreme(fa_jj *m, fa_jjv v, const fa_jjargs *a, bool max) {
    fa_jjiter *it = fa_jj_iter(m, v);
    fa_jjv best, key, x;
    if (!fa_jj_next(m, it, &best)) return fa_jj_undef_hint(m, "No aggregated item, sequence was empty.");
    getter g = make_getter(m, fa_jj_arg(a, 1, fa_jj_none()), !flag(m, a, 0));
    key = get(m, &g, best);
    while (fa_jj_next(m, it, &x)) {
        fa_jjv k = get(m, &g, x);
        if (fa_jj_cmp(m, k, key, max ? ">" : "<") != (max ? 1 : -1)) continue;
        best = x;
        key = k;
    }
    return best;
}

static fa_jjv f_min(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return extreme(m, v, a, false); }
static fa_jjv f_max(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return extreme(m, v, a, true); }

/* ---- generators ---- */

static fa_jjv generator(fa_jjiter *it) { return (fa_jjv){.t = FA_JJ_ITER, .u.it = it}; }

static fa_jjargs skip_args(const fa_jjargs *a, size_t n) {
    fa_jjargs r = *a;
    r.v = a->n ? a->v + n : NULL;
    r.n = a->n - n;
    return r;
}

/* The arguments of a call outlive it when they are kept by a generator: they are the arena's already. */
static const fa_jjfunc *named(fa_jj *m, fa_jjv name, const char *what) {
    const fa_jjfunc *f = NULL;
    if (name.t == FA_JJ_STR)
        f = *what == 'f' ? fa_jj_filter(name.u.s->p, name.u.s->n) : fa_jj_test(name.u.s->p, name.u.s->n);
    if (f) return f;
    fa_jjstr *s = fa_jj_repr(m, name);
    fa_jj_fail(m, FFAI_EINVAL, "No %s named %.*s.", what, (int)(s->n < 100 ? s->n : 100), s->p);
}

static bool begin(fa_jj *m, fa_jjiter *it) {
    it->started = true;
    if (it->done || !fa_jj_truth(m, it->src)) {
        it->done = true;
        return false;
    }
    return true;
}

static void begin_map(fa_jj *m, fa_jjiter *it) {
    fa_jjargs *a = &it->args;
    fa_jjv attr = fa_jj_missing();
    if (!begin(m, it)) return;
    for (size_t i = 0; i < a->n_kw; i++)
        if (!a->n && fa_jj_is(a->key[i].u.s, "attribute")) attr = a->val[i];
    if (attr.t != FA_JJ_MISSING) {
        getter *g = (getter *)fa_jj_alloc(m, 1, sizeof *g);
        *g = make_getter(m, attr, false);
        for (size_t i = 0; i < a->n_kw; i++) {
            if (fa_jj_is(a->key[i].u.s, "default"))
                g->otherwise = a->val[i];
            else if (!fa_jj_is(a->key[i].u.s, "attribute"))
                fa_jj_fail(m, FFAI_EINVAL, "Unexpected keyword argument '%.*s'", (int)a->key[i].u.s->n,
                           a->key[i].u.s->p);
        }
        it->more = g;
    } else {
        if (!a->n) fa_jj_fail(m, FFAI_EINVAL, "map requires a filter argument");
        it->a = a->v[0];
        *a = skip_args(a, 1);
    }
    it->in = fa_jj_iter(m, it->src);
}

static bool next_map(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    fa_jjv v;
    if (!it->started) begin_map(m, it);
    if (it->done || !fa_jj_next(m, it->in, &v)) return false;
    if (it->more) {
        *out = get(m, (const getter *)it->more, v);
        return true;
    }
    if (!it->fn) it->fn = named(m, it->a, "filter");
    *out = fa_jj_invoke(m, it->fn, v, &it->args);
    return true;
}

static fa_jjv f_map(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjiter *it = fa_jj_new_iter(m, next_map, "generator");
    it->src = v;
    it->args = *a;
    return generator(it);
}

static void begin_select(fa_jj *m, fa_jjiter *it) {
    size_t off = it->attr;
    if (!begin(m, it)) return;
    if (it->attr) {
        if (!it->args.n) fa_jj_fail(m, FFAI_EINVAL, "Missing parameter for attribute name");
        getter *g = (getter *)fa_jj_alloc(m, 1, sizeof *g);
        *g = make_getter(m, it->args.v[0], false);
        it->more = g;
    }
    it->b = it->args.n > off ? it->args.v[off] : fa_jj_missing();
    it->args = skip_args(&it->args, it->args.n > off ? off + 1 : it->args.n);
    it->in = fa_jj_iter(m, it->src);
}

static bool next_select(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    if (!it->started) begin_select(m, it);
    while (!it->done && fa_jj_next(m, it->in, out)) {
        fa_jjv v = it->more ? get(m, (const getter *)it->more, *out) : *out;
        if (it->b.t != FA_JJ_MISSING) {
            if (!it->fn) it->fn = named(m, it->b, "test");
            v = fa_jj_invoke(m, it->fn, v, &it->args);
        }
        if (fa_jj_truth(m, v) == it->flag) return true;
    }
    return false;
}

static fa_jjv select(fa_jj *m, fa_jjv v, const fa_jjargs *a, bool keep, bool attr) {
    fa_jjiter *it = fa_jj_new_iter(m, next_select, "generator");
    it->src = v;
    it->args = *a;
    it->flag = keep;
    it->attr = attr;
    return generator(it);
}

static fa_jjv f_select(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return select(m, v, a, true, false); }
static fa_jjv f_reject(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return select(m, v, a, false, false); }
static fa_jjv f_selectattr(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return select(m, v, a, true, true); }
static fa_jjv f_rejectattr(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return select(m, v, a, false, true); }

static bool next_unique(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    if (!it->in) it->in = fa_jj_iter(m, it->src);
    while (fa_jj_next(m, it->in, out)) {
        fa_jjv key = get(m, (const getter *)it->more, *out);
        if (fa_jj_dict_get(m, it->a.u.d, key)) continue;
        fa_jj_dict_set(m, it->a.u.d, key, fa_jj_none());
        return true;
    }
    return false;
}

/* unique(case_sensitive, attribute) */
static fa_jjv f_unique(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjiter *it = fa_jj_new_iter(m, next_unique, "generator");
    getter *g = (getter *)fa_jj_alloc(m, 1, sizeof *g);
    *g = make_getter(m, fa_jj_arg(a, 1, fa_jj_none()), !flag(m, a, 0));
    it->more = g;
    it->src = v;
    it->a = fa_jj_dictv(fa_jj_dict(m, 0));
    return generator(it);
}

static fa_jjv of_list(fa_jj *m, fa_jjlist *l) {
    fa_jjiter *it = fa_jj_iter(m, fa_jj_listv(l));
    it->type = "generator";
    return generator(it);
}

/* batch(linecount, fill_with) */
static fa_jjv f_batch(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjlist *l = fa_jj_to_list(m, v), *out = fa_jj_list(m, 0), *row = fa_jj_list(m, 0);
    fa_jjv fill = fa_jj_arg(a, 1, fa_jj_none()), width = a->v[0];
    for (size_t i = 0; i < l->n; i++) {
        if (fa_jj_eq(m, fa_jj_int((int64_t)row->n), width)) {
            fa_jj_push(m, out, fa_jj_listv(row));
            row = fa_jj_list(m, 0);
        }
        fa_jj_push(m, row, l->v[i]);
    }
    if (row->n) {
        if (fill.t != FA_JJ_NONE)
            for (int64_t n = fa_jj_index(m, width); (int64_t)row->n < n;) {
                fa_jj_step(m, 1);
                fa_jj_push(m, row, fill);
            }
        fa_jj_push(m, out, fa_jj_listv(row));
    }
    return of_list(m, out);
}

/* slice(slices, fill_with) */
static fa_jjv f_slice(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjlist *l = fa_jj_to_list(m, v), *out = fa_jj_list(m, 0);
    int64_t k = fa_jj_index(m, a->v[0]), n = (int64_t)l->n, offset = 0;
    fa_jjv fill = fa_jj_arg(a, 1, fa_jj_none());
    if (k == 0) fa_jj_fail(m, FFAI_EINVAL, "integer division or modulo by zero");
    for (int64_t i = 0; i < k; i++) {
        int64_t from = offset + i * (n / k);
        if (i < n % k) offset++;
        int64_t to = offset + (i + 1) * (n / k);
        fa_jjlist *row = fa_jj_list(m, (size_t)(to - from));
        for (int64_t j = from; j < to; j++) fa_jj_push(m, row, l->v[j]);
        if (fill.t != FA_JJ_NONE && i >= n % k) fa_jj_push(m, row, fill);
        fa_jj_push(m, out, fa_jj_listv(row));
        fa_jj_step(m, 1);
    }
    return of_list(m, out);
}

static bool next_item(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    if (it->src.t != FA_JJ_UNDEF && it->src.t != FA_JJ_DICT)
        fa_jj_type_error(m, "Can only get item pairs from a mapping.");
    if (it->src.t == FA_JJ_UNDEF || it->i >= it->src.u.d->n) return false;
    const fa_jjent *e = &it->src.u.d->e[it->i++];
    *out = fa_jj_pair(m, e->key, e->val);
    return true;
}

static fa_jjv f_items(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjiter *it = fa_jj_new_iter(m, next_item, "generator");
    (void)a;
    it->src = v;
    return generator(it);
}

/* ---- single values of sequences ---- */

static fa_jjv f_list(fa_jj *m, fa_jjv v, const fa_jjargs *a) { return (void)a, fa_jj_listv(fa_jj_to_list(m, v)); }

static fa_jjv f_length(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    size_t n;
    (void)a;
    if (!fa_jj_len(m, v, &n)) fa_jj_type_error(m, "object of type '%s' has no len()", fa_jj_type(v));
    return fa_jj_int((int64_t)n);
}

static fa_jjv f_first(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv x;
    (void)a;
    return fa_jj_next(m, fa_jj_iter(m, v), &x) ? x : fa_jj_undef_hint(m, "No first item, sequence was empty.");
}

static fa_jjv f_last(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    bool ok;
    fa_jjv r = fa_jj_reversed(m, v, &ok), x;
    (void)a;
    if (!ok) fa_jj_type_error(m, "'%s' object is not reversible", fa_jj_type(v));
    return fa_jj_next(m, r.u.it, &x) ? x : fa_jj_undef_hint(m, "No last item, sequence was empty.");
}

static fa_jjv f_reverse(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    bool ok;
    (void)a;
    if (v.t == FA_JJ_STR) return fa_jj_slice(m, v, fa_jj_none(), fa_jj_none(), fa_jj_int(-1));
    fa_jjv r = fa_jj_reversed(m, v, &ok);
    if (ok) return r;
    if (!fa_jj_iterable(v)) fa_jj_fail(m, FFAI_EINVAL, "argument must be iterable");
    fa_jjlist *l = fa_jj_to_list(m, v), *out = fa_jj_list(m, l->n);
    for (size_t i = l->n; i-- > 0;) fa_jj_push(m, out, l->v[i]);
    return fa_jj_listv(out);
}

/* sum(attribute, start) */
static fa_jjv f_sum(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv r = fa_jj_arg(a, 1, fa_jj_int(0)), x;
    getter g = make_getter(m, fa_jj_arg(a, 0, fa_jj_none()), false);
    fa_jjiter *it = fa_jj_iter(m, v);
    if (r.t == FA_JJ_STR) fa_jj_type_error(m, "sum() can't sum strings [use ''.join(seq) instead]");
    while (fa_jj_next(m, it, &x)) r = fa_jj_add(m, r, get(m, &g, x));
    return r;
}

/* join(d, attribute) */
static fa_jjv f_join(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjstr *d = fa_jj_str(m, fa_jj_arg(a, 0, fa_jj_text(m, "")));
    getter g = make_getter(m, fa_jj_arg(a, 1, fa_jj_none()), false);
    if (!fa_jj_iterable(v)) {
        if (g.n) fa_jj_type_error(m, "'%s' object is not iterable", fa_jj_type(v));
        fa_jj_type_error(m, "'%s' object is not iterable", fa_jj_type(v));
    }
    fa_jjlist *l = fa_jj_to_list(m, v);
    for (size_t i = 0; i < l->n; i++) l->v[i] = fa_jj_strv(fa_jj_str(m, get(m, &g, l->v[i])));
    size_t mark = m->out.len;
    for (size_t i = 0; i < l->n; i++) {
        if (i) fa_jj_puts(m, &m->out, d->p, d->n);
        fa_jj_puts(m, &m->out, l->v[i].u.s->p, l->v[i].u.s->n);
    }
    return fa_jj_strv(fa_jj_take(m, mark));
}

static fa_jjv f_random(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    (void)v, (void)a;
    fa_jj_fail(m, FFAI_ENOTSUP, "the filter \"random\" is not supported: a prompt must not depend on chance");
}

/* ---- any value ---- */

/* default(default_value, boolean) */
static fa_jjv f_default(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv d = fa_jj_arg(a, 0, fa_jj_text(m, ""));
    return v.t == FA_JJ_UNDEF || (flag(m, a, 1) && !fa_jj_truth(m, v)) ? d : v;
}

static fa_jjv f_attr(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv r;
    if (a->v[0].t != FA_JJ_STR) fa_jj_type_error(m, "attribute name must be string, not '%s'", fa_jj_type(a->v[0]));
    return fa_jj_attr(m, v, a->v[0].u.s, &r) ? r : fa_jj_undef(m, v, a->v[0]);
}

static fa_jjv f_abs(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    (void)a;
    if (v.t == FA_JJ_FLOAT) return fa_jj_float(fabs(v.u.f));
    if (!fa_jj_is_int(v)) fa_jj_type_error(m, "bad operand type for abs(): '%s'", fa_jj_type(v));
    int64_t i = fa_jj_as_int(v);
    return i < 0 ? fa_jj_negate(m, fa_jj_int(i), false) : fa_jj_int(i);
}

/* Python's round(): to even, from the exact decimal value */
static fa_jjv round_even(fa_jj *m, fa_jjv v, int64_t digits) {
    char buf[700];
    bool ok = false;
    if (fa_jj_is_int(v)) {
        int64_t i = fa_jj_as_int(v), unit = 1;
        if (digits >= 0) return fa_jj_int(i);
        for (; digits < 0; digits++)
            if (__builtin_mul_overflow(unit, (int64_t)10, &unit)) return fa_jj_int(0);
        int64_t q = i / unit, r = i % unit, half = unit / 2;
        int64_t up = r > half || (r == half && q & 1) ? 1 : r < -half || (r == -half && q & 1) ? -1 : 0;
        return fa_jj_int((q + up) * unit);
    }
    if (isnan(v.u.f) || isinf(v.u.f) || digits > 320) return v;
    if (digits < -310) return fa_jj_float(copysign(0, v.u.f));
    if (digits < 0) {
        double unit = pow(10, (double)-digits);
        return fa_jj_float(rint(v.u.f / unit) * unit);
    }
    int n = snprintf(buf, sizeof buf, "%.*f", (int)digits, v.u.f);
    for (int i = 0; i < n; i++)
        if (buf[i] == ',') buf[i] = '.';
    (void)m;
    return fa_jj_float(n < 390 ? fa_jj_strtod(buf, (size_t)n, &ok) : v.u.f);
}

/* round(precision, method) */
static fa_jjv f_round(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv precision = fa_jj_arg(a, 0, fa_jj_int(0)), how = fa_jj_arg(a, 1, fa_jj_text(m, "common"));
    bool ceiling = how.t == FA_JJ_STR && fa_jj_is(how.u.s, "ceil"),
         down = how.t == FA_JJ_STR && fa_jj_is(how.u.s, "floor");
    if (!ceiling && !down && !(how.t == FA_JJ_STR && fa_jj_is(how.u.s, "common")))
        fa_jj_fail(m, FFAI_EINVAL, "method must be common, ceil or floor");
    if (v.t == FA_JJ_UNDEF) fa_jj_type_error(m, "type Undefined doesn't define __round__ method");
    if (!fa_jj_is_num(v)) fa_jj_type_error(m, "type %s doesn't define __round__ method", fa_jj_type(v));
    if (!ceiling && !down) {
        if (precision.t == FA_JJ_NONE) return fa_jj_int((int64_t)rint(fa_jj_as_num(v)));
        return round_even(m, v, fa_jj_index(m, precision));
    }
    fa_jjv unit = fa_jj_binary(m, FA_JJ_N_POW, fa_jj_int(10), precision), x = fa_jj_binary(m, FA_JJ_N_MUL, v, unit);
    double f = fa_jj_as_num(x);
    f = ceiling ? ceil(f) : floor(f);
    if (isnan(f)) fa_jj_fail(m, FFAI_EINVAL, "cannot convert float NaN to integer");
    if (isinf(f)) fa_jj_fail(m, FFAI_EINVAL, "cannot convert float infinity to integer");
    return fa_jj_binary(m, FA_JJ_N_DIV, fabs(f) < 0x1p62 ? fa_jj_int((int64_t)f) : fa_jj_float(f), unit);
}

/* Digits of a number as Python's int() and float() read them: outer white space and single underscores are dropped. */
static size_t number_text(fa_jj *m, fa_jjstr *s, char *buf, size_t cap) {
    fa_jjstr *t = fa_jj_strip(m, s, NULL, 3);
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->p[i] == '_') {
            bool between = i > 0 && i + 1 < t->n && t->p[i - 1] != '_' && t->p[i + 1] != '_';
            if (!between || n == 0) return 0;
            continue;
        }
        if (n + 1 >= cap || t->p[i] == 0) return 0;
        buf[n++] = t->p[i];
    }
    buf[n] = 0;
    return n;
}

static bool parse_int(fa_jj *m, fa_jjstr *s, int64_t base, int64_t *out) {
    char buf[128], *p = buf, *end;
    size_t n = number_text(m, s, buf, sizeof buf);
    bool minus = false;
    if (!n || base < 0 || base == 1 || base > 36) return false;
    if (*p == '-' || *p == '+') minus = *p++ == '-';
    int prefix = *p == '0' && p[1] ? ((p[1] | 32) == 'x'   ? 16
                                      : (p[1] | 32) == 'o' ? 8
                                      : (p[1] | 32) == 'b' ? 2
                                                           : 0)
                                   : 0;
    if (prefix && (base == 0 || base == prefix)) {
        p += 2;
        base = prefix;
    }
    if (base == 0) base = 10;
    if (!*p || *p == '-' || *p == '+' || *p == ' ') return false;
    uint64_t v = strtoull(p, &end, (int)base);
    if (*end || (base == 16 && p[0] == '0' && (p[1] | 32) == 'x')) return false;
    if (v > (uint64_t)INT64_MAX) fa_jj_fail(m, FFAI_ELIMIT, "integer %.60s is past 64 bits", buf);
    *out = minus ? -(int64_t)v : (int64_t)v;
    return true;
}

static bool parse_float(fa_jj *m, fa_jjstr *s, double *out) {
    char buf[400];
    bool ok;
    size_t n = number_text(m, s, buf, sizeof buf);
    if (!n || strchr(buf, 'x') || strchr(buf, 'X') || strchr(buf, '(') || strchr(buf, ' ')) return false;
    *out = fa_jj_strtod(buf, n, &ok);
    return ok;
}

static fa_jjv to_int(fa_jj *m, double f, fa_jjv otherwise) {
    if (isnan(f)) return otherwise;
    if (isinf(f)) return otherwise;
    if (fabs(f) >= 0x1p63) fa_jj_fail(m, FFAI_ELIMIT, "integer %g is past 64 bits", f);
    return fa_jj_int((int64_t)f);
}

/* int(default, base) */
static fa_jjv f_int(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    fa_jjv d = fa_jj_arg(a, 0, fa_jj_int(0));
    int64_t i;
    double f;
    if (v.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, v);
    if (fa_jj_is_int(v)) return fa_jj_int(fa_jj_as_int(v));
    if (v.t == FA_JJ_BIG) return v;
    if (v.t == FA_JJ_FLOAT) {
        if (isinf(v.u.f)) fa_jj_fail(m, FFAI_EINVAL, "cannot convert float infinity to integer");
        return to_int(m, v.u.f, d);
    }
    if (v.t != FA_JJ_STR) return d;
    if (parse_int(m, v.u.s, fa_jj_index(m, fa_jj_arg(a, 1, fa_jj_int(10))), &i)) return fa_jj_int(i);
    return parse_float(m, v.u.s, &f) ? to_int(m, f, d) : d;
}

static fa_jjv f_float(fa_jj *m, fa_jjv v, const fa_jjargs *a) {
    double f;
    bool ok;
    if (v.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, v);
    if (fa_jj_is_num(v)) return fa_jj_float(fa_jj_as_num(v));
    if (v.t == FA_JJ_BIG) return fa_jj_float(fa_jj_strtod(v.u.s->p, v.u.s->n, &ok));
    if (v.t == FA_JJ_STR && parse_float(m, v.u.s, &f)) return fa_jj_float(f);
    return fa_jj_arg(a, 0, fa_jj_float(0));
}

/* ---- the table ---- */

static const fa_jjfunc filters[] = {
    {"tojson", fa_jj_tojson, "ensure_ascii=,indent=,separators=,sort_keys=", "tojson", false},
    {"length", f_length, "", "len", false},
    {"count", f_length, "", "len", false},
    {"default", f_default, "default_value=,boolean=", "do_default", false},
    {"d", f_default, "default_value=,boolean=", "do_default", false},
    {"join", f_join, "d=,attribute=", "do_join", false},
    {"items", f_items, "", "do_items", false},
    {"list", f_list, "", "do_list", false},
    {"map", f_map, NULL, "do_map", false},
    {"select", f_select, NULL, "do_select", false},
    {"reject", f_reject, NULL, "do_reject", false},
    {"selectattr", f_selectattr, NULL, "do_selectattr", false},
    {"rejectattr", f_rejectattr, NULL, "do_rejectattr", false},
    {"unique", f_unique, "case_sensitive=,attribute=", "do_unique", false},
    {"first", f_first, "", "do_first", false},
    {"last", f_last, "", "do_last", false},
    {"reverse", f_reverse, "", "do_reverse", false},
    {"sort", f_sort, "reverse=,case_sensitive=,attribute=", "do_sort", false},
    {"dictsort", f_dictsort, "case_sensitive=,by=,reverse=", "do_dictsort", false},
    {"groupby", f_groupby, "attribute,default=,case_sensitive=", "do_groupby", false},
    {"min", f_min, "case_sensitive=,attribute=", "do_min", false},
    {"max", f_max, "case_sensitive=,attribute=", "do_max", false},
    {"sum", f_sum, "attribute=,start=", "do_sum", false},
    {"batch", f_batch, "linecount,fill_with=", "do_batch", false},
    {"slice", f_slice, "slices,fill_with=", "do_slice", false},
    {"random", f_random, NULL, "do_random", false},
    {"attr", f_attr, "name", "do_attr", false},
    {"abs", f_abs, "", "abs", false},
    {"round", f_round, "precision=,method=", "do_round", false},
    {"int", f_int, "default=,base=", "do_int", false},
    {"float", f_float, "default=", "do_float", false}};

const fa_jjfunc *fa_jj_filter(const char *name, size_t n) {
    fa_jjstr s = {.p = name, .n = (uint32_t)n};
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (fa_jj_is(&s, filters[i].name)) return &filters[i];
    for (const fa_jjfunc *f = fa_jj_text_filters; f->name; f++)
        if (fa_jj_is(&s, f->name)) return f;
    return NULL;
}
