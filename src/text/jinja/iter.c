/* Iteration: every value that Python can iterate, generators are lazy and read once. */
#include "base/utf8.h"
#include "text/jinja/int.h"

#include <string.h>

fa_jjiter *fa_jj_new_iter(fa_jj *m, bool (*next)(fa_jj *, fa_jjiter *, fa_jjv *), const char *type) {
    fa_jjiter *it = (fa_jjiter *)fa_jj_alloc(m, 1, sizeof *it);
    it->next = next;
    it->type = type;
    return it;
}

static bool next_none(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    (void)m, (void)it, (void)out;
    return false;
}

static bool next_list(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    (void)m;
    if (it->i >= it->src.u.l->n) return false;
    *out = it->src.u.l->v[it->i++];
    return true;
}

static bool next_str(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    size_t len;
    if (it->i >= it->src.u.s->n) return false;
    *out = fa_jj_strv(fa_jj_char(m, it->src.u.s, it->i, &len));
    it->i += len;
    return true;
}

static fa_jjv entry(fa_jj *m, const fa_jjent *e, int kind) {
    return kind == 'k' ? e->key : kind == 'v' ? e->val : fa_jj_pair(m, e->key, e->val);
}

static bool next_dict(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    if (it->i >= it->src.u.d->n) return false;
    *out = entry(m, &it->src.u.d->e[it->i++], 'k');
    return true;
}

static bool next_view(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    if (it->i >= it->src.u.w->d->n) return false;
    *out = entry(m, &it->src.u.w->d->e[it->i++], it->src.u.w->kind);
    return true;
}

static bool next_range(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    const fa_jjrange *r = it->src.u.r;
    (void)m;
    if (it->i >= r->n) return false;
    *out = fa_jj_int(r->start + (int64_t)it->i++ * r->step);
    return true;
}

/* A loop iterated by hand, which moves it on: pairs of item and loop. */
static bool next_loop(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    fa_jjloop *lo = it->src.u.lo;
    if (!fa_jj_loop_next(m, lo)) return false;
    *out = fa_jj_pair(m, lo->cur, it->src);
    return true;
}

bool fa_jj_iterable(fa_jjv v) {
    switch (v.t) {
    case FA_JJ_UNDEF:
    case FA_JJ_STR:
    case FA_JJ_LIST:
    case FA_JJ_TUPLE:
    case FA_JJ_DICT:
    case FA_JJ_RANGE:
    case FA_JJ_VIEW:
    case FA_JJ_ITER:
    case FA_JJ_LOOP: return true;
    default: return false;
    }
}

fa_jjiter *fa_jj_iter(fa_jj *m, fa_jjv v) {
    bool (*next)(fa_jj *, fa_jjiter *, fa_jjv *) = NULL;
    switch (v.t) {
    case FA_JJ_ITER: return v.u.it;
    case FA_JJ_UNDEF: next = next_none; break;
    case FA_JJ_STR: next = next_str; break;
    case FA_JJ_LIST:
    case FA_JJ_TUPLE: next = next_list; break;
    case FA_JJ_DICT: next = next_dict; break;
    case FA_JJ_VIEW: next = next_view; break;
    case FA_JJ_RANGE: next = next_range; break;
    case FA_JJ_LOOP: next = next_loop; break;
    default: fa_jj_type_error(m, "'%s' object is not iterable", fa_jj_type(v));
    }
    fa_jjiter *it = fa_jj_new_iter(m, next, "iterator");
    it->src = v;
    return it;
}

fa_jjlist *fa_jj_to_list(fa_jj *m, fa_jjv v) {
    fa_jjiter *it = fa_jj_iter(m, v);
    size_t n;
    fa_jjlist *l = fa_jj_list(m, fa_jj_len(m, v, &n) && n < 1000000 ? n : 0);
    fa_jjv x;
    while (fa_jj_next(m, it, &x)) fa_jj_push(m, l, x);
    return l;
}

/* ---- backwards ---- */

static bool next_back(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    if (!it->i) return false;
    it->i--;
    switch (it->src.t) {
    case FA_JJ_RANGE: *out = fa_jj_int(it->src.u.r->start + (int64_t)it->i * it->src.u.r->step); break;
    case FA_JJ_DICT: *out = it->src.u.d->e[it->i].key; break;
    case FA_JJ_VIEW: *out = entry(m, &it->src.u.w->d->e[it->i], it->src.u.w->kind); break;
    default: *out = it->src.u.l->v[it->i];
    }
    return true;
}

static bool next_back_str(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    size_t len;
    if (!it->i) return false;
    do it->i--;
    while (it->i > 0 && ((unsigned char)it->src.u.s->p[it->i] & 0xC0) == 0x80);
    *out = fa_jj_strv(fa_jj_char(m, it->src.u.s, it->i, &len));
    return true;
}

fa_jjv fa_jj_reversed(fa_jj *m, fa_jjv v, bool *ok) {
    static const char *const types[] = {[FA_JJ_LIST] = "list_reverseiterator",
                                        [FA_JJ_DICT] = "dict_reversekeyiterator",
                                        [FA_JJ_VIEW] = "dict_reverseitemiterator",
                                        [FA_JJ_RANGE] = "range_iterator"};
    size_t n = 0;
    *ok = v.t == FA_JJ_LIST || v.t == FA_JJ_TUPLE || v.t == FA_JJ_DICT || v.t == FA_JJ_VIEW || v.t == FA_JJ_RANGE ||
          v.t == FA_JJ_STR || v.t == FA_JJ_UNDEF;
    if (!*ok) return v;
    const char *type = v.t < sizeof types / sizeof *types && types[v.t] ? types[v.t] : "reversed";
    fa_jjiter *it = fa_jj_new_iter(m,
                                   v.t == FA_JJ_STR     ? next_back_str
                                   : v.t == FA_JJ_UNDEF ? next_none
                                                        : next_back,
                                   type);
    it->src = v;
    if (v.t == FA_JJ_STR)
        n = v.u.s->n;
    else
        fa_jj_len(m, v, &n);
    it->i = n;
    return (fa_jjv){.t = FA_JJ_ITER, .u.it = it};
}
