/* Lists, and dicts that keep the order of insertion and find a key as Python does: 1, 1.0 and True are one key. */
#include "base/smap.h"
#include "text/jinja/int.h"

#include <math.h>
#include <string.h>

fa_jjlist *fa_jj_list(fa_jj *m, size_t cap) {
    fa_jjlist *l = (fa_jjlist *)fa_jj_alloc(m, 1, sizeof *l);
    if (cap) l->v = (fa_jjv *)fa_jj_alloc(m, cap, sizeof *l->v);
    l->cap = cap;
    return l;
}

void fa_jj_push(fa_jj *m, fa_jjlist *l, fa_jjv v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        fa_jjv *p = (fa_jjv *)fa_jj_alloc(m, cap, sizeof *p);
        if (l->n) memcpy(p, l->v, l->n * sizeof *p);
        l->v = p;
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

fa_jjv fa_jj_pair(fa_jj *m, fa_jjv a, fa_jjv b) {
    fa_jjlist *l = fa_jj_list(m, 2);
    l->v[0] = a;
    l->v[1] = b;
    l->n = 2;
    return fa_jj_tuplev(l);
}

fa_jjdict *fa_jj_dict(fa_jj *m, size_t cap) {
    fa_jjdict *d = (fa_jjdict *)fa_jj_alloc(m, 1, sizeof *d);
    if (cap) d->e = (fa_jjent *)fa_jj_alloc(m, cap, sizeof *d->e);
    d->cap = cap;
    return d;
}

static uint64_t mix(uint64_t h) {
    h *= UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}

static uint64_t hash_float(double f) {
    uint64_t bits;
    if (f == floor(f) && fabs(f) < 0x1p62) return mix((uint64_t)(int64_t)f); /* equal to that integer */
    memcpy(&bits, &f, sizeof bits);
    return mix(bits ^ 0x5555);
}

uint64_t fa_jj_hash(fa_jj *m, fa_jjv v) {
    uint64_t h = 7;
    switch (v.t) {
    case FA_JJ_STR:
    case FA_JJ_BIG: fa_jj_step(m, v.u.s->n / 64); return fa_hash(v.u.s->p, v.u.s->n);
    case FA_JJ_INT: return mix((uint64_t)v.u.i);
    case FA_JJ_BOOL: return mix(v.u.b);
    case FA_JJ_FLOAT: return hash_float(v.u.f);
    case FA_JJ_NONE: return 11;
    case FA_JJ_UNDEF: return 13;
    case FA_JJ_TUPLE:
        fa_jj_enter(m);
        for (size_t i = 0; i < v.u.l->n; i++) h = mix(h ^ fa_jj_hash(m, v.u.l->v[i]));
        fa_jj_leave(m);
        fa_jj_step(m, v.u.l->n);
        return h;
    case FA_JJ_RANGE: return mix(v.u.r->n ^ (uint64_t)v.u.r->start << 20);
    case FA_JJ_LIST:
    case FA_JJ_DICT:
    case FA_JJ_VIEW: fa_jj_type_error(m, "unhashable type: '%s'", fa_jj_type(v));
    default: return mix((uint64_t)(uintptr_t)v.u.s);
    }
}

static bool same_key(fa_jj *m, const fa_jjent *e, fa_jjv key, uint64_t hash) {
    return e->hash == hash && fa_jj_eq(m, e->key, key);
}

static fa_jjent *find(fa_jj *m, const fa_jjdict *d, fa_jjv key, uint64_t hash) {
    if (!d->idx) {
        for (size_t i = 0; i < d->n; i++)
            if (same_key(m, &d->e[i], key, hash)) return &d->e[i];
        return NULL;
    }
    for (size_t i = hash & (d->n_idx - 1);; i = (i + 1) & (d->n_idx - 1)) {
        if (!d->idx[i]) return NULL;
        fa_jj_step(m, 1); /* keys made to collide cost steps */
        if (same_key(m, &d->e[d->idx[i] - 1], key, hash)) return &d->e[d->idx[i] - 1];
    }
}

static void index_all(fa_jj *m, fa_jjdict *d) {
    d->n_idx = 32;
    while (d->n_idx < d->cap * 2) d->n_idx *= 2;
    d->idx = (uint32_t *)fa_jj_alloc(m, d->n_idx, sizeof *d->idx);
    for (size_t k = 0; k < d->n; k++) {
        size_t i = d->e[k].hash & (d->n_idx - 1);
        while (d->idx[i]) i = (i + 1) & (d->n_idx - 1);
        d->idx[i] = (uint32_t)k + 1;
    }
}

void fa_jj_dict_set(fa_jj *m, fa_jjdict *d, fa_jjv key, fa_jjv val) {
    uint64_t hash = fa_jj_hash(m, key);
    fa_jjent *e = find(m, d, key, hash);
    if (e) {
        e->val = val;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 8;
        fa_jjent *p = (fa_jjent *)fa_jj_alloc(m, cap, sizeof *p);
        if (d->n) memcpy(p, d->e, d->n * sizeof *p);
        d->e = p;
        d->cap = cap;
        d->idx = NULL;
    }
    d->e[d->n++] = (fa_jjent){key, val, hash};
    if (d->n <= 8) return;
    if (!d->idx) {
        index_all(m, d);
        return;
    }
    size_t i = hash & (d->n_idx - 1);
    while (d->idx[i]) i = (i + 1) & (d->n_idx - 1);
    d->idx[i] = (uint32_t)d->n;
}

fa_jjv *fa_jj_dict_get(fa_jj *m, const fa_jjdict *d, fa_jjv key) {
    fa_jjent *e = find(m, d, key, fa_jj_hash(m, key));
    return e ? &e->val : NULL;
}

fa_jjv *fa_jj_dict_str(fa_jj *m, const fa_jjdict *d, const char *key) {
    fa_jjstr s = {.p = key, .n = (uint32_t)strlen(key)};
    fa_jjent *e = find(m, d, fa_jj_strv(&s), fa_hash(s.p, s.n));
    return e ? &e->val : NULL;
}

fa_jjdict *fa_jj_dict_copy(fa_jj *m, const fa_jjdict *d) {
    fa_jjdict *c = fa_jj_dict(m, d->n + 4);
    fa_jj_step(m, d->n);
    for (size_t i = 0; i < d->n; i++) fa_jj_dict_set(m, c, d->e[i].key, d->e[i].val);
    return c;
}
