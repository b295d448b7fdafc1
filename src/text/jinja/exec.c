/* Execution of statements: output, scopes, loops, macros; and the entry that renders. */
#include "base/alloc.h"
#include "text/jinja/int.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* old: a scope of the same statement that has ended; it is used again unless something keeps it. */
static fa_jjscope *next_scope(fa_jj *m, fa_jjscope *old, fa_jjscope *up, const fa_jjundefs *undef) {
    fa_jjscope *s = old;
    if (!s || s->kept) s = (fa_jjscope *)fa_jj_alloc(m, 1, sizeof *s);
    s->n = 0;
    s->up = up;
    for (uint32_t i = 0; undef && i < undef->n; i++) fa_jj_store(m, undef->sym[i], s, fa_jj_missing());
    return s;
}

static fa_jjscope *new_scope(fa_jj *m, fa_jjscope *up, const fa_jjundefs *undef) {
    return next_scope(m, NULL, up, undef);
}

static void keep(fa_jjscope *s) {
    for (; s && !s->kept; s = s->up) s->kept = true;
}

/* ---- assignment ---- */

static void unpack(fa_jj *m, const fa_jjnode *target, fa_jjscope *s, fa_jjv v) {
    if (!fa_jj_iterable(v)) fa_jj_type_error(m, "cannot unpack non-iterable %s object", fa_jj_type(v));
    fa_jjiter *it = fa_jj_iter(m, v);
    fa_jjlist *l = fa_jj_list(m, target->n_args);
    fa_jjv x;
    while (l->n < target->n_args && fa_jj_next(m, it, &x)) fa_jj_push(m, l, x);
    if (l->n < target->n_args)
        fa_jj_fail(m, FFAI_EINVAL, "not enough values to unpack (expected %u, got %zu)", target->n_args, l->n);
    if (fa_jj_next(m, it, &x)) fa_jj_fail(m, FFAI_EINVAL, "too many values to unpack (expected %u)", target->n_args);
    size_t i = 0;
    for (const fa_jjnode *a = target->args; a; a = a->next) fa_jj_assign(m, a, s, l->v[i++]);
}

void fa_jj_assign(fa_jj *m, const fa_jjnode *target, fa_jjscope *s, fa_jjv v) {
    if (target->k == FA_JJ_N_NAME) {
        fa_jj_store(m, target->sym, s, v);
    } else if (target->k == FA_JJ_N_NSREF) {
        fa_jjv ns = fa_jj_lookup(m, target->sym, s);
        fa_jj_ns_set(m, ns, target->v.u.s, v);
    } else {
        unpack(m, target, s, v);
    }
}

/* Attributes can only be set on namespaces; that is checked before the value is computed. */
static void check_targets(fa_jj *m, const fa_jjnode *target, fa_jjscope *s) {
    if (target->k == FA_JJ_N_NSREF && fa_jj_lookup(m, target->sym, s).t != FA_JJ_NS)
        fa_jj_fail(m, FFAI_EINVAL, "cannot assign attribute on non-namespace object");
    if (target->k == FA_JJ_N_TUPLE)
        for (const fa_jjnode *a = target->args; a; a = a->next) check_targets(m, a, s);
}

/* ---- loops ---- */

/* The items that pass the loop's `if`: its own scope, in which the loop variable is not known. */
static bool next_filtered(fa_jj *m, fa_jjiter *it, fa_jjv *out) {
    fa_jjscope *s = NULL;
    while (fa_jj_next(m, it->in, out)) {
        s = next_scope(m, s, it->scope, NULL);
        fa_jj_assign(m, it->node->a, s, *out);
        if (fa_jj_truth(m, fa_jj_eval(m, it->node->c, s))) return true;
    }
    return false;
}

bool fa_jj_loop_next(fa_jj *m, fa_jjloop *lo) {
    fa_jjv v;
    if (lo->after.t != FA_JJ_MISSING) {
        v = lo->after;
        lo->after = fa_jj_missing();
    } else if (!fa_jj_next(m, lo->it, &v)) {
        return false;
    }
    lo->index0++;
    lo->before = lo->cur;
    lo->cur = v;
    return true;
}

static void run_loop(fa_jj *m, const fa_jjnode *n, fa_jjscope *s, fa_jjv seq, int depth0) {
    fa_jjloop *lo = (fa_jjloop *)fa_jj_alloc(m, 1, sizeof *lo);
    bool empty = true;
    lo->index0 = SIZE_MAX;
    lo->length = -1;
    lo->depth0 = depth0;
    lo->node = n;
    lo->scope = s;
    if (n->flag) keep(s);
    lo->iterable = seq;
    lo->it = fa_jj_iter(m, seq);
    if (n->c) {
        fa_jjiter *it = fa_jj_new_iter(m, next_filtered, "generator");
        it->in = lo->it;
        it->node = n;
        it->scope = s;
        lo->it = it;
        lo->iterable = (fa_jjv){.t = FA_JJ_ITER, .u.it = it};
    }
    fa_jjscope *body = NULL;
    while (fa_jj_loop_next(m, lo)) {
        body = next_scope(m, body, s, &n->undef);
        if (n->uses & FA_JJ_USES_LOOP || n->flag)
            fa_jj_store(m, m->t->sym_loop, body, (fa_jjv){.t = FA_JJ_LOOP, .u.lo = lo});
        fa_jj_assign(m, n->a, body, lo->cur);
        fa_jj_exec(m, n->list, body);
        bool broke = m->broke, left = broke || m->continued;
        m->broke = m->continued = false;
        if (!left) empty = false; /* as in jinja: a round that was cut short does not count */
        if (broke) break;
    }
    if (empty && n->d) fa_jj_exec(m, n->d, new_scope(m, s, &n->undef_else));
}

fa_jjv fa_jj_call_loop(fa_jj *m, fa_jjloop *lo, fa_jjv seq) {
    if (!lo->node->flag) fa_jj_type_error(m, "The loop must have the 'recursive' marker to be called recursively.");
    size_t mark = m->out.len;
    fa_jj_enter(m);
    run_loop(m, lo->node, lo->scope, seq, lo->depth0 + 1);
    fa_jj_leave(m);
    m->broke = m->continued = false;
    return fa_jj_strv(fa_jj_take(m, mark));
}

static fa_jjv peek(fa_jj *m, fa_jjloop *lo) {
    fa_jjv v;
    if (lo->after.t == FA_JJ_MISSING && fa_jj_next(m, lo->it, &v)) lo->after = v;
    return lo->after;
}

static int64_t loop_length(fa_jj *m, fa_jjloop *lo) {
    size_t n;
    if (lo->length >= 0) return lo->length;
    if (fa_jj_len(m, lo->iterable, &n)) return lo->length = (int64_t)n;
    fa_jjlist *rest = fa_jj_to_list(m, (fa_jjv){.t = FA_JJ_ITER, .u.it = lo->it});
    lo->it = fa_jj_iter(m, fa_jj_listv(rest));
    return lo->length = (int64_t)(rest->n + lo->index0 + 1 + (lo->after.t != FA_JJ_MISSING));
}

fa_jjv fa_jj_loop_attr(fa_jj *m, fa_jjloop *lo, fa_jjstr *name, bool *found) {
    int64_t i = (int64_t)lo->index0;
    *found = true;
    if (fa_jj_is(name, "index0")) return fa_jj_int(i);
    if (fa_jj_is(name, "index")) return fa_jj_int(i + 1);
    if (fa_jj_is(name, "first")) return fa_jj_bool(i == 0);
    if (fa_jj_is(name, "last")) return fa_jj_bool(peek(m, lo).t == FA_JJ_MISSING);
    if (fa_jj_is(name, "length")) return fa_jj_int(loop_length(m, lo));
    if (fa_jj_is(name, "revindex0")) return fa_jj_int(loop_length(m, lo) - i - 1);
    if (fa_jj_is(name, "revindex")) return fa_jj_int(loop_length(m, lo) - i);
    if (fa_jj_is(name, "depth")) return fa_jj_int(lo->depth0 + 1);
    if (fa_jj_is(name, "depth0")) return fa_jj_int(lo->depth0);
    if (fa_jj_is(name, "previtem")) return i ? lo->before : fa_jj_undef_hint(m, "there is no previous item");
    if (fa_jj_is(name, "nextitem")) {
        fa_jjv v = peek(m, lo);
        return v.t != FA_JJ_MISSING ? v : fa_jj_undef_hint(m, "there is no next item");
    }
    *found = false;
    return fa_jj_missing();
}

static void exec_for(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv seq = fa_jj_eval(m, n->b, s);
    m->line = n->line;
    m->col = n->col;
    run_loop(m, n, s, seq, 0);
}

/* ---- macros ---- */

static fa_jjv take_kw(fa_jjargs *a, const fa_jjstr *name) {
    for (size_t i = 0; i < a->n_kw; i++) {
        if (!fa_jj_same(a->key[i].u.s, name)) continue;
        fa_jjv v = a->val[i];
        for (size_t k = i + 1; k < a->n_kw; k++) {
            a->key[k - 1] = a->key[k];
            a->val[k - 1] = a->val[k];
        }
        a->n_kw--;
        return v;
    }
    return fa_jj_missing();
}

static fa_jjv kw_dict(fa_jj *m, const fa_jjargs *a) {
    fa_jjdict *d = fa_jj_dict(m, a->n_kw);
    for (size_t i = 0; i < a->n_kw; i++) fa_jj_dict_set(m, d, a->key[i], a->val[i]);
    return fa_jj_dictv(d);
}

/* What is left over must have a place to go: kwargs, varargs, or it is an error. */
static void macro_rest(fa_jj *m, const fa_jjnode *n, fa_jjscope *s, fa_jjargs *a, bool found_caller) {
    const fa_jjstr *name = n->k == FA_JJ_N_MACRO ? m->t->sym[n->sym] : fa_jj_ref(m, "None", 4);
    const char *q = n->k == FA_JJ_N_MACRO ? "'" : "";
    if (n->uses & FA_JJ_USES_CALLER && !found_caller) {
        fa_jjv c = take_kw(a, m->t->sym[m->t->sym_caller]);
        if (c.t == FA_JJ_MISSING || c.t == FA_JJ_NONE) {
            c = fa_jj_undef_hint(m, "No caller defined");
            c.u.u->name = fa_jj_strv(m->t->sym[m->t->sym_caller]);
        }
        fa_jj_store(m, m->t->sym_caller, s, c);
    }
    if (n->uses & FA_JJ_USES_KWARGS) {
        fa_jj_store(m, m->t->sym_kwargs, s, kw_dict(m, a));
    } else if (a->n_kw) {
        for (size_t i = 0; i < a->n_kw; i++)
            if (fa_jj_is(a->key[i].u.s, "caller"))
                fa_jj_type_error(m,
                                 "macro %s%.*s%s was invoked with two values for the special caller argument. This is "
                                 "most likely a bug.",
                                 q, (int)name->n, name->p, q);
        fa_jj_type_error(m, "macro %s%.*s%s takes no keyword argument '%.*s'", q, (int)name->n, name->p, q,
                         (int)a->key[0].u.s->n, a->key[0].u.s->p);
    }
    if (n->uses & FA_JJ_USES_VARARGS) {
        fa_jjlist *l = fa_jj_list(m, 0);
        for (size_t i = n->n_args; i < a->n; i++) fa_jj_push(m, l, a->v[i]);
        fa_jj_store(m, m->t->sym_varargs, s, fa_jj_tuplev(l));
    } else if (a->n > n->n_args) {
        fa_jj_type_error(m, "macro %s%.*s%s takes not more than %u argument(s)", q, (int)name->n, name->p, q,
                         n->n_args);
    }
}

fa_jjv fa_jj_call_macro(fa_jj *m, fa_jjmacro *mc, const fa_jjargs *given) {
    const fa_jjnode *n = mc->node, *def = n->kw;
    fa_jjscope *s = new_scope(m, mc->scope, &n->undef);
    fa_jjargs a = *given;
    bool found_caller = false, broke = m->broke, continued = m->continued;
    size_t i = 0;
    if (a.n_kw) { /* they are taken out one by one */
        a.key = (fa_jjv *)fa_jj_alloc(m, a.n_kw, sizeof *a.key);
        a.val = (fa_jjv *)fa_jj_alloc(m, a.n_kw, sizeof *a.val);
        memcpy(a.key, given->key, a.n_kw * sizeof *a.key);
        memcpy(a.val, given->val, a.n_kw * sizeof *a.val);
    }
    fa_jjv *val = (fa_jjv *)fa_jj_alloc(m, n->n_args + 1, sizeof *val);
    for (const fa_jjnode *p = n->args; p; p = p->next, i++) {
        bool caller = p->sym == m->t->sym_caller;
        val[i] = i < a.n ? a.v[i] : take_kw(&a, m->t->sym[p->sym]);
        if (caller) found_caller = true;
    }
    macro_rest(m, n, s, &a, found_caller);
    i = 0;
    for (const fa_jjnode *p = n->args; p; p = p->next, i++) {
        bool has_default = i + n->n_kw >= n->n_args;
        if (val[i].t == FA_JJ_MISSING && has_default) {
            val[i] = fa_jj_eval(m, def, s);
        } else if (val[i].t == FA_JJ_MISSING) {
            const fa_jjstr *name = m->t->sym[p->sym];
            val[i] = fa_jj_undef_hint(m, "parameter '%.*s' was not provided", (int)name->n, name->p);
        }
        if (has_default) def = def->next;
        fa_jj_store(m, p->sym, s, val[i]);
    }
    size_t mark = m->out.len;
    fa_jj_enter(m);
    fa_jj_exec(m, n->list, s);
    fa_jj_leave(m);
    m->broke = broke;
    m->continued = continued;
    return fa_jj_strv(fa_jj_take(m, mark));
}

static fa_jjv new_macro(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjmacro *mc = (fa_jjmacro *)fa_jj_alloc(m, 1, sizeof *mc);
    mc->node = n;
    mc->scope = s;
    keep(s);
    return (fa_jjv){.t = FA_JJ_MACRO, .u.m = mc};
}

static void exec_call_block(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv caller = new_macro(m, n, s), f = fa_jj_eval(m, n->a->a, s);
    fa_jjargs a = fa_jj_eval_args(m, n->a, s);
    fa_jjv *key = (fa_jjv *)fa_jj_alloc(m, a.n_kw + 1, sizeof *key);
    fa_jjv *val = (fa_jjv *)fa_jj_alloc(m, a.n_kw + 1, sizeof *val);
    for (size_t i = 0; i < a.n_kw; i++) {
        if (fa_jj_is(a.key[i].u.s, "caller")) fa_jj_type_error(m, "got multiple values for keyword argument 'caller'");
        key[i] = a.key[i];
        val[i] = a.val[i];
    }
    key[a.n_kw] = fa_jj_strv(m->t->sym[m->t->sym_caller]);
    val[a.n_kw++] = caller;
    a.key = key;
    a.val = val;
    m->line = n->line;
    m->col = n->col;
    fa_jj_put_str(m, &m->out, fa_jj_call(m, f, &a));
}

/* ---- blocks that capture ---- */

/* The text of a body; *left: a loop control leaves through it, then there is no text. */
static fa_jjv capture(fa_jj *m, const fa_jjnode *n, const fa_jjnode *filter, fa_jjscope *s, bool *left) {
    size_t mark = m->out.len;
    fa_jjscope *in = new_scope(m, s, &n->undef);
    fa_jj_exec(m, n->list, in);
    fa_jjv text = fa_jj_strv(fa_jj_take(m, mark));
    *left = m->broke || m->continued;
    if (*left || !filter) return text;
    /* a chain of filters: the innermost has no operand */
    const fa_jjnode *chain[FA_JJ_MAX_NEST];
    int k = 0;
    for (const fa_jjnode *f = filter; f && k < FA_JJ_MAX_NEST; f = f->a) chain[k++] = f;
    while (k-- > 0) text = fa_jj_apply_filter(m, chain[k], text, in);
    return text;
}

static void exec_with(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjscope *in = new_scope(m, s, &n->undef);
    const fa_jjnode *v = n->kw;
    for (const fa_jjnode *t = n->args; t; t = t->next, v = v->next) fa_jj_assign(m, t, in, fa_jj_eval(m, v, s));
    fa_jj_exec(m, n->list, in);
}

static void exec_if(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    for (; n; n = n->b) {
        if (fa_jj_truth(m, fa_jj_eval(m, n->a, s))) {
            fa_jj_exec(m, n->list, s);
            return;
        }
        if (n->c) {
            fa_jj_exec(m, n->c, s);
            return;
        }
    }
}

static void exec_generation(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jjv f = new_macro(m, n, s);
    fa_jjargs a = {0};
    fa_jj_put_str(m, &m->out, fa_jj_call_macro(m, f.u.m, &a));
}

static void exec_block(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    bool left;
    fa_jjv v;
    switch (n->k) {
    case FA_JJ_N_SETBLOCK:
        v = capture(m, n, n->b, s, &left);
        if (left) return;
        check_targets(m, n->a, s);
        fa_jj_assign(m, n->a, s, v);
        return;
    case FA_JJ_N_FILTER_BLOCK:
        v = capture(m, n, n->a, s, &left);
        if (left) return;
        if (v.t != FA_JJ_STR) fa_jj_type_error(m, "sequence item 0: expected str instance, %s found", fa_jj_type(v));
        fa_jj_put_str(m, &m->out, v);
        return;
    case FA_JJ_N_MACRO: fa_jj_store(m, n->sym, s, new_macro(m, n, s)); return;
    case FA_JJ_N_CALL_BLOCK: exec_call_block(m, n, s); return;
    case FA_JJ_N_WITH: exec_with(m, n, s); return;
    case FA_JJ_N_GENERATION: exec_generation(m, n, s); return;
    default: /* a block sees the top level only, unless it is scoped */
        fa_jj_exec(m, n->list, new_scope(m, n->flag ? s : NULL, NULL));
    }
}

static void exec_one(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    switch (n->k) {
    case FA_JJ_N_DATA: fa_jj_puts(m, &m->out, n->v.u.s->p, n->v.u.s->n); return;
    case FA_JJ_N_OUTPUT:
        m->folding = n->flag;
        fa_jj_put_str(m, &m->out, fa_jj_eval(m, n->a, s));
        m->folding = false;
        return;
    case FA_JJ_N_IF: exec_if(m, n, s); return;
    case FA_JJ_N_FOR: exec_for(m, n, s); return;
    case FA_JJ_N_SET:
        check_targets(m, n->a, s);
        fa_jj_assign(m, n->a, s, fa_jj_eval(m, n->b, s));
        return;
    case FA_JJ_N_BREAK: m->broke = true; return;
    case FA_JJ_N_CONTINUE: m->continued = true; return;
    default: exec_block(m, n, s);
    }
}

void fa_jj_exec(fa_jj *m, const fa_jjnode *n, fa_jjscope *s) {
    fa_jj_enter(m);
    for (; n; n = n->next) {
        fa_jj_step(m, 1);
        m->line = n->line;
        m->col = n->col;
        exec_one(m, n, s);
        if (m->broke || m->continued) break;
    }
    fa_jj_leave(m);
}

/* ---- the entry ---- */

static void bind_context(fa_jj *m, fa_jjdict *ctx, const fa_jinja_opts *o) {
    for (uint32_t i = 0; i < m->t->n_sym; i++) {
        const fa_jjstr *name = m->t->sym[i];
        fa_jjv *v = fa_jj_dict_get(m, ctx, fa_jj_strv(m->t->sym[i]));
        if (v) m->ctx[i] = *v;
        for (size_t k = 0; !v && o && k < o->n_var; k++)
            if (o->var[k].value && fa_jj_is(name, o->var[k].name)) {
                m->ctx[i] = fa_jj_text(m, o->var[k].value);
                break;
            }
        const fa_jjfunc *f = m->ctx[i].t == FA_JJ_MISSING ? fa_jj_global(name->p, name->n) : NULL;
        if (f) m->ctx[i] = (fa_jjv){.t = FA_JJ_FUNC, .u.fn = f};
    }
}

static void render(fa_jj *m, const char *json, size_t len, const fa_jinja_opts *o) {
    fa_jjstr *final = NULL;
    fa_jjv ctx = fa_jj_from_json(m, json, len, "the template's input");
    if (ctx.t != FA_JJ_DICT) {
        m->what = NULL;
        fa_jj_fail(m, FFAI_EFORMAT, "the template's input is no JSON object");
    }
    if (o && o->chat) fa_jj_chat(m, ctx.u.d, &final);
    m->root = (fa_jjv *)fa_jj_alloc(m, m->t->n_sym, sizeof *m->root);
    m->ctx = (fa_jjv *)fa_jj_alloc(m, m->t->n_sym, sizeof *m->ctx);
    bind_context(m, ctx.u.d, o);
    for (uint32_t i = 0; i < m->t->undef.n; i++) m->ctx[m->t->undef.sym[i]] = fa_jj_missing();
    m->now = o && o->now ? o->now : (int64_t)time(NULL);
    fa_jj_exec(m, m->t->body, NULL);
    m->line = 0;
    if (final) fa_jj_chat_cut(m, final);
    fa_jj_puts(m, &m->out, "", 0);
}

/* What fails in here comes back to this one place. */
static int guarded(fa_jj *m, const char *json, size_t len, const fa_jinja_opts *o) {
    if (setjmp(m->jmp) != 0) return m->err.code;
    render(m, json, len, o);
    return 0;
}

int fa_jinja_render(const fa_jinja *t, const char *json, size_t len, const fa_jinja_opts *opts, char **text, size_t *n,
                    fa_error *err) {
    *text = NULL;
    *n = 0;
    fa_jj *m = FA_NEW(fa_jj);
    if (!m) return fa_fail(err, FFAI_ENOMEM, "%s: no memory for a template", t->what);
    m->t = t;
    m->what = t->what;
    m->mem.limit = ((size_t)512 << 20) + (len < ((size_t)1 << 30) ? len : (size_t)1 << 30) * 32;
    m->max_steps = opts && opts->max_steps ? opts->max_steps : 20000000 + (uint64_t)len * 64;
    int rc = guarded(m, json, len, opts);
    if (!rc && !m->out.data) rc = fa_fail(&m->err, FFAI_ENOMEM, "%s: no memory for the text", t->what);
    if (rc) {
        fa_buf_free(&m->out);
        if (err) *err = m->err;
    } else {
        *text = m->out.data;
        *n = m->out.len;
    }
    fa_jj_arena_free(&m->mem);
    fa_free(m);
    return rc;
}
