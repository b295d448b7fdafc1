/* Global functions: jinja's, and those that transformers adds. */
#define _POSIX_C_SOURCE 200809L
#include "text/jinja/int.h"

#include <string.h>
#include <time.h>

enum { MAX_RANGE = 100000 };

static fa_jjv g_range(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)self;
    if (a->n_kw) fa_jj_type_error(m, "range() takes no keyword arguments");
    if (!a->n) fa_jj_type_error(m, "range expected at least 1 argument, got 0");
    if (a->n > 3) fa_jj_type_error(m, "range expected at most 3 arguments, got %zu", a->n);
    int64_t start = a->n > 1 ? fa_jj_index(m, a->v[0]) : 0, stop = fa_jj_index(m, a->v[a->n > 1]),
            step = a->n > 2 ? fa_jj_index(m, a->v[2]) : 1;
    if (!step) fa_jj_fail(m, FFAI_EINVAL, "range() arg 3 must not be zero");
    uint64_t n = 0;
    if (step > 0 && stop > start) n = ((uint64_t)stop - (uint64_t)start - 1) / (uint64_t)step + 1;
    if (step < 0 && start > stop) n = ((uint64_t)start - (uint64_t)stop - 1) / (0 - (uint64_t)step) + 1;
    if (n > MAX_RANGE)
        fa_jj_fail(m, FFAI_ELIMIT, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    fa_jjrange *r = (fa_jjrange *)fa_jj_alloc(m, 1, sizeof *r);
    *r = (fa_jjrange){start, stop, step, (size_t)n};
    return (fa_jjv){.t = FA_JJ_RANGE, .u.r = r};
}

/* dict(mapping or pairs, **kw) */
static fa_jjdict *make_dict(fa_jj *m, const fa_jjargs *a) {
    fa_jjdict *d = fa_jj_dict(m, 0);
    fa_jjv x;
    size_t i = 0;
    if (a->n > 1) fa_jj_type_error(m, "dict expected at most 1 argument, got %zu", a->n);
    if (a->n && a->v[0].t == FA_JJ_DICT) {
        d = fa_jj_dict_copy(m, a->v[0].u.d);
    } else if (a->n) {
        for (fa_jjiter *it = fa_jj_iter(m, a->v[0]); fa_jj_next(m, it, &x); i++) {
            if (!fa_jj_iterable(x))
                fa_jj_type_error(m, "cannot convert dictionary update sequence element #%zu to a sequence", i);
            fa_jjlist *pair = fa_jj_to_list(m, x);
            if (pair->n != 2)
                fa_jj_fail(m, FFAI_EINVAL, "dictionary update sequence element #%zu has length %zu; 2 is required", i,
                           pair->n);
            fa_jj_dict_set(m, d, pair->v[0], pair->v[1]);
        }
    }
    for (i = 0; i < a->n_kw; i++) fa_jj_dict_set(m, d, a->key[i], a->val[i]);
    return d;
}

static fa_jjv g_dict(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)self;
    return fa_jj_dictv(make_dict(m, a));
}

static fa_jjv g_namespace(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjdict *given = make_dict(m, a), *d = fa_jj_dict(m, given->n);
    fa_jjv ns = {.t = FA_JJ_NS, .u.d = d};
    (void)self;
    for (size_t i = 0; i < given->n; i++) {
        if (given->e[i].key.t == FA_JJ_STR)
            fa_jj_ns_set(m, ns, given->e[i].key.u.s, given->e[i].val);
        else
            fa_jj_dict_set(m, d, given->e[i].key, given->e[i].val);
    }
    return ns;
}

static fa_jjv g_cycler(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)self;
    if (a->n_kw) fa_jj_type_error(m, "Cycler.__init__() got an unexpected keyword argument");
    if (!a->n) fa_jj_fail(m, FFAI_EINVAL, "at least one item has to be provided");
    fa_jjcycler *c = (fa_jjcycler *)fa_jj_alloc(m, 1, sizeof *c);
    c->items = fa_jj_list(m, a->n);
    for (size_t i = 0; i < a->n; i++) fa_jj_push(m, c->items, a->v[i]);
    return (fa_jjv){.t = FA_JJ_CYCLER, .u.c = c};
}

static fa_jjv g_joiner(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    fa_jjcycler *c = (fa_jjcycler *)fa_jj_alloc(m, 1, sizeof *c);
    (void)self;
    c->items = fa_jj_list(m, 1);
    fa_jj_push(m, c->items, fa_jj_arg(a, 0, fa_jj_text(m, ", ")));
    return (fa_jjv){.t = FA_JJ_JOINER, .u.c = c};
}

static fa_jjv g_lipsum(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)self, (void)a;
    fa_jj_fail(m, FFAI_ENOTSUP, "lipsum is not supported: a prompt must not depend on chance");
}

static fa_jjv g_raise(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    (void)self;
    fa_jj_raise(m, fa_jj_str(m, a->v[0]));
}

static fa_jjv g_strftime(fa_jj *m, fa_jjv self, const fa_jjargs *a) {
    char buf[1024];
    struct tm tm;
    time_t now = (time_t)m->now;
    (void)self;
    if (a->v[0].t != FA_JJ_STR) fa_jj_type_error(m, "strftime() argument 1 must be str, not %s", fa_jj_type(a->v[0]));
    fa_jjstr *f = a->v[0].u.s;
    if (f->n > 256) fa_jj_fail(m, FFAI_ELIMIT, "a date format of %u bytes is too long", f->n);
    f = fa_jj_replace(m, f, fa_jj_ref(m, "%f", 2), fa_jj_ref(m, "000000", 6), -1);
    char *fmt = (char *)fa_jj_alloc(m, f->n + 2, 1); /* with a mark behind it: an empty result is no failure */
    memcpy(fmt, f->p, f->n);
    fmt[f->n] = '.';
    if (!localtime_r(&now, &tm)) fa_jj_fail(m, FFAI_EINVAL, "strftime_now: the time is unknown");
    size_t n = strftime(buf, sizeof buf, fmt, &tm);
    if (!n) fa_jj_fail(m, FFAI_ELIMIT, "strftime_now: the date is too long");
    return fa_jj_strv(fa_jj_copy(m, buf, n - 1));
}

static const fa_jjfunc globals[] = {{"range", g_range, NULL, NULL, false},
                                    {"dict", g_dict, NULL, NULL, false},
                                    {"namespace", g_namespace, NULL, NULL, false},
                                    {"cycler", g_cycler, NULL, NULL, false},
                                    {"joiner", g_joiner, "sep=", "Joiner.__init__", false},
                                    {"lipsum", g_lipsum, NULL, NULL, false},
                                    {"raise_exception", g_raise, "message", NULL, false},
                                    {"strftime_now", g_strftime, "format", NULL, false}};

const fa_jjfunc *fa_jj_global(const char *name, size_t n) {
    fa_jjstr s = {.p = name, .n = (uint32_t)n};
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (fa_jj_is(&s, globals[i].name)) return &globals[i];
    return NULL;
}
