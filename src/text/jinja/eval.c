/* Evaluation of expressions. */
#include "text/jinja/int.h"

#include <string.h>

/* ---- names ---- */

fa_jjv fa_jj_lookup(fa_jj *m, uint32_t sym, const fa_jjscope *s) {
    for (; s; s = s->up)
        for (uint32_t i = s->n; i-- > 0;)
            if (s->v[i].sym == sym) return s->v[i].v;
    if (m->root[sym].t != FA_JJ_MISSING) return m->root[sym];
    return m->ctx[sym];
}

void fa_jj_store(fa_jj *m, uint32_t sym, fa_jjscope *s, fa_jjv v) {
    if (!s) {
        m->root[sym] = v;
        return;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->v[i].sym != sym) continue;
        s->v[i].v = v;
        return;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        fa_jjslot *p = (fa_jjslot *)fa_jj_alloc(m, cap, sizeof *p);
        if (s->n) memcpy(p, s->v, s->n * sizeof *p);
        s->v = p;
        s->cap = cap;
    }
    s->v[s->n++] = (fa_jjslot){sym, v};
}

static fa_jjv eval_name(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv v = fa_jj_lookup(m, n->sym, s);
    return v.t != FA_JJ_MISSING ? v : fa_jj_undef(m, fa_jj_missing(), fa_jj_strv(m->t->sym[n->sym]));
}

/* ---- literals ---- */

static fa_jjlist *eval_list(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjlist *l = fa_jj_list(m, n->n_args);
    for (const fa_jjnode *a = n->args; a; a = a->next) fa_jj_push(m, l, fa_jj_eval(m, a, s));
    return l;
}

static fa_jjv eval_dict(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjdict *d = fa_jj_dict(m, n->n_args);
    const fa_jjnode *v = n->kw;
    for (const fa_jjnode *k = n->args; k; k = k->next, v = v->next) {
        fa_jjv key = fa_jj_eval(m, k, s), val = fa_jj_eval(m, v, s);
        fa_jj_dict_set(m, d, key, val);
    }
    return fa_jj_dictv(d);
}

/* ---- operators ---- */

static bool compare(fa_jj *m, uint32_t op, fa_jjv a, fa_jjv b) {
    int c;
    switch (op) {
    case FA_JJ_OP2('=', '='): return fa_jj_eq(m, a, b);
    case FA_JJ_OP2('!', '='): return !fa_jj_eq(m, a, b);
    case 'i': return fa_jj_in(m, a, b);
    case 'n': return !fa_jj_in(m, a, b);
    case '<': return fa_jj_cmp(m, a, b, "<") == -1;
    case '>': return fa_jj_cmp(m, a, b, ">") == 1;
    case FA_JJ_OP2('<', '='): c = fa_jj_cmp(m, a, b, "<="); return c == -1 || c == 0;
    default: c = fa_jj_cmp(m, a, b, ">="); return c == 1 || c == 0;
    }
}

static fa_jjv eval_compare(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv a = fa_jj_eval(m, n->a, s);
    for (const fa_jjnode *o = n->args; o; o = o->next) {
        fa_jjv b = fa_jj_eval(m, o->a, s);
        m->line = n->line;
        m->col = n->col;
        if (!compare(m, o->op, a, b)) return fa_jj_bool(false);
        a = b;
    }
    return fa_jj_bool(true);
}

static fa_jjv eval_concat(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjstr *r = NULL;
    for (const fa_jjnode *a = n->args; a; a = a->next) {
        fa_jjstr *x = fa_jj_str(m, fa_jj_eval(m, a, s));
        r = r ? fa_jj_concat(m, r, x).u.s : x;
    }
    return fa_jj_strv(r);
}

static fa_jjv eval_cond(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    if (fa_jj_truth(m, fa_jj_eval(m, n->a, s))) return fa_jj_eval(m, n->b, s);
    if (n->c) return fa_jj_eval(m, n->c, s);
    return fa_jj_undef_hint(
        m, "the inline if-expression on line %u evaluated to false and no else section was defined.", n->line);
}

static fa_jjv eval_opt(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) { return n ? fa_jj_eval(m, n, s) : fa_jj_none(); }

static fa_jjv eval_item(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv obj = fa_jj_eval(m, n->a, s);
    if (n->b->k != FA_JJ_N_SLICE) return fa_jj_getitem(m, obj, fa_jj_eval(m, n->b, s));
    fa_jjv a = eval_opt(m, n->b->a, s), b = eval_opt(m, n->b->b, s), c = eval_opt(m, n->b->c, s);
    m->line = n->line;
    m->col = n->col;
    return fa_jj_slice(m, obj, a, b, c);
}

/* ---- calls ---- */

static void spread(fa_jj *m, fa_jjargs *a, fa_jjv v) {
    if (!fa_jj_iterable(v)) fa_jj_type_error(m, "argument after * must be an iterable, not %s", fa_jj_type(v));
    fa_jjlist *l = fa_jj_to_list(m, v);
    fa_jjv *all = (fa_jjv *)fa_jj_alloc(m, a->n + l->n + 1, sizeof *all);
    if (a->n) memcpy(all, a->v, a->n * sizeof *all);
    if (l->n) memcpy(all + a->n, l->v, l->n * sizeof *all);
    a->v = all;
    a->n += l->n;
}

static void spread_kw(fa_jj *m, fa_jjargs *a, fa_jjv v) {
    fa_jjdict *d = v.u.d;
    if (v.t != FA_JJ_DICT) fa_jj_type_error(m, "argument after ** must be a mapping, not %s", fa_jj_type(v));
    fa_jjv *key = (fa_jjv *)fa_jj_alloc(m, a->n_kw + d->n + 1, sizeof *key);
    fa_jjv *val = (fa_jjv *)fa_jj_alloc(m, a->n_kw + d->n + 1, sizeof *val);
    if (a->n_kw) {
        memcpy(key, a->key, a->n_kw * sizeof *key);
        memcpy(val, a->val, a->n_kw * sizeof *val);
    }
    for (size_t i = 0; i < d->n; i++) {
        fa_jjv k = d->e[i].key;
        if (k.t != FA_JJ_STR) fa_jj_type_error(m, "keywords must be strings");
        for (size_t j = 0; j < a->n_kw; j++)
            if (fa_jj_same(key[j].u.s, k.u.s))
                fa_jj_type_error(m, "got multiple values for keyword argument '%.*s'", (int)k.u.s->n, k.u.s->p);
        key[a->n_kw + i] = k;
        val[a->n_kw + i] = d->e[i].val;
    }
    a->key = key;
    a->val = val;
    a->n_kw += d->n;
}

fa_jjargs fa_jj_eval_args(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjargs a = {0};
    if (n->n_args) a.v = (fa_jjv *)fa_jj_alloc(m, n->n_args, sizeof *a.v);
    for (const fa_jjnode *x = n->args; x; x = x->next) a.v[a.n++] = fa_jj_eval(m, x, s);
    if (n->n_kw) {
        a.key = (fa_jjv *)fa_jj_alloc(m, n->n_kw + 1, sizeof *a.key);
        a.val = (fa_jjv *)fa_jj_alloc(m, n->n_kw + 1, sizeof *a.val);
    }
    for (const fa_jjnode *x = n->kw; x; x = x->next, a.n_kw++) {
        a.key[a.n_kw] = x->v;
        a.val[a.n_kw] = fa_jj_eval(m, x->a, s);
    }
    if (n->dyn_args) spread(m, &a, fa_jj_eval(m, n->dyn_args, s));
    if (n->dyn_kw) spread_kw(m, &a, fa_jj_eval(m, n->dyn_kw, s));
    return a;
}

static fa_jjv eval_call(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv f = fa_jj_eval(m, n->a, s);
    fa_jjargs a = fa_jj_eval_args(m, n, s);
    m->line = n->line;
    m->col = n->col;
    return fa_jj_call(m, f, &a);
}

fa_jjv fa_jj_apply_filter(fa_jj *m, const fa_jjnode *n, fa_jjv v, fa_jjscope *s) {
    fa_jjargs a = fa_jj_eval_args(m, n, s);
    m->line = n->line;
    m->col = n->col;
    if (!n->fn)
        fa_jj_fail(m, FFAI_EINVAL, "No %s named '%.*s' found.", n->k == FA_JJ_N_FILTER ? "filter" : "test",
                   (int)n->v.u.s->n, n->v.u.s->p);
    return fa_jj_invoke(m, n->fn, v, &a);
}

/* ---- all ---- */

static fa_jjv eval_binary(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv a = fa_jj_eval(m, n->a, s), b = fa_jj_eval(m, n->b, s);
    m->line = n->line;
    m->col = n->col;
    return fa_jj_binary(m, (int)n->k, a, b);
}

static fa_jjv eval_attr(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv obj = fa_jj_eval(m, n->a, s);
    m->line = n->line;
    m->col = n->col;
    return fa_jj_getattr(m, obj, n->v.u.s);
}

static fa_jjv eval_logic(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv a = fa_jj_eval(m, n->a, s);
    return fa_jj_truth(m, a) == (n->k == FA_JJ_N_AND) ? fa_jj_eval(m, n->b, s) : a;
}

fa_jjv fa_jj_eval(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv v;
    fa_jj_step(m, 1);
    if (n->k == FA_JJ_N_CONST) return n->v;
    m->line = n->line;
    m->col = n->col;
    if (n->k == FA_JJ_N_NAME) return eval_name(m, n, s);
    fa_jj_enter(m);
    switch (n->k) {
    case FA_JJ_N_TUPLE: v = fa_jj_tuplev(eval_list(m, n, s)); break;
    case FA_JJ_N_LIST: v = fa_jj_listv(eval_list(m, n, s)); break;
    case FA_JJ_N_DICT: v = eval_dict(m, n, s); break;
    case FA_JJ_N_COND: v = eval_cond(m, n, s); break;
    case FA_JJ_N_OR:
    case FA_JJ_N_AND: v = eval_logic(m, n, s); break;
    case FA_JJ_N_NOT: v = fa_jj_bool(!fa_jj_truth(m, fa_jj_eval(m, n->a, s))); break;
    case FA_JJ_N_COMPARE: v = eval_compare(m, n, s); break;
    case FA_JJ_N_NEG:
    case FA_JJ_N_POS: v = fa_jj_negate(m, fa_jj_eval(m, n->a, s), n->k == FA_JJ_N_POS); break;
    case FA_JJ_N_CONCAT: v = eval_concat(m, n, s); break;
    case FA_JJ_N_GETATTR: v = eval_attr(m, n, s); break;
    case FA_JJ_N_GETITEM: v = eval_item(m, n, s); break;
    case FA_JJ_N_CALL: v = eval_call(m, n, s); break;
    case FA_JJ_N_FILTER:
    case FA_JJ_N_TEST: v = fa_jj_apply_filter(m, n, fa_jj_eval(m, n->a, s), s); break;
    case FA_JJ_N_SLICE: fa_jj_fail(m, FFAI_ENOTSUP, "a slice inside a tuple of subscripts");
    default: v = eval_binary(m, n, s); break;
    }
    fa_jj_leave(m);
    return v;
}
