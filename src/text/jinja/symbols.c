/* Which variables a scope begins without a value, as jinja's compiler decides it: a name that a scope assigns, that it
 * has not read before, and that no outer scope knows is undefined until the assignment ran, even where the caller gave
 * a variable of that name. Everything else is found by walking outwards. */
#include "text/jinja/int.h"

#include <string.h>

typedef enum load { LOAD_NONE, LOAD_PARAM, LOAD_RESOLVE, LOAD_ALIAS, LOAD_UNDEF } load;

typedef struct symbol {
    uint32_t level; /* of the innermost scope that knows it, 0: none */
    uint8_t load;
    bool stored, outer; /* by that scope; known to a scope around it */
} symbol;

typedef struct change {
    uint32_t sym;
    symbol before;
} change;

typedef struct tracker {
    fa_jj *m;
    symbol *s; /* [n_sym] */
    change *log;
    size_t n_log, cap_log;
    uint32_t level;
    int depth;
} tracker;

/* Remembers a symbol before it changes. */
static symbol *touch(tracker *t, uint32_t sym) {
    if (t->n_log == t->cap_log) {
        size_t cap = t->cap_log ? t->cap_log * 2 : 128;
        change *p = (change *)fa_jj_alloc(t->m, cap, sizeof *p);
        if (t->n_log) memcpy(p, t->log, t->n_log * sizeof *p);
        t->log = p;
        t->cap_log = cap;
    }
    t->log[t->n_log++] = (change){sym, t->s[sym]};
    return &t->s[sym];
}

static void undo(tracker *t, size_t mark) {
    while (t->n_log > mark) {
        t->n_log--;
        t->s[t->log[t->n_log].sym] = t->log[t->n_log].before;
    }
}

static void define(tracker *t, uint32_t sym, load how) {
    bool outer = t->s[sym].level != 0 && (t->s[sym].level != t->level || t->s[sym].outer);
    *touch(t, sym) = (symbol){t->level, (uint8_t)how, how == LOAD_PARAM, outer};
}

static void read_name(tracker *t, uint32_t sym) {
    if (!t->s[sym].level) define(t, sym, LOAD_RESOLVE);
}

static void store_name(tracker *t, uint32_t sym) {
    if (t->s[sym].level != t->level) define(t, sym, t->s[sym].level ? LOAD_ALIAS : LOAD_UNDEF);
    touch(t, sym)->stored = true;
}

/* ---- what the statements of one scope do to its names ---- */

static void visit(tracker *t, const fa_jjnode *n);

static void visit_all(tracker *t, const fa_jjnode *list) {
    for (; list; list = list->next) visit(t, list);
}

/* An expression: everything below it is read. */
static void visit_expr(tracker *t, const fa_jjnode *n) {
    for (; n; n = n->a) { /* down the left side without recursion */
        if (n->k == FA_JJ_N_NAME || n->k == FA_JJ_N_NSREF) read_name(t, n->sym);
        for (const fa_jjnode *x = n->args; x; x = x->next) visit_expr(t, x);
        for (const fa_jjnode *x = n->kw; x; x = x->next) visit_expr(t, x);
        if (n->b) visit_expr(t, n->b);
        if (n->c) visit_expr(t, n->c);
        if (n->dyn_args) visit_expr(t, n->dyn_args);
        if (n->dyn_kw) visit_expr(t, n->dyn_kw);
    }
}

static void visit_target(tracker *t, const fa_jjnode *n, bool param) {
    if (n->k == FA_JJ_N_TUPLE)
        for (const fa_jjnode *x = n->args; x; x = x->next) visit_target(t, x, param);
    else if (n->k == FA_JJ_N_NSREF)
        read_name(t, n->sym);
    else if (param)
        define(t, n->sym, LOAD_PARAM);
    else
        store_name(t, n->sym);
}

/* One branch begins with what was known before the if; what it changed is kept in `kept` and undone. */
static size_t branch(tracker *t, const fa_jjnode *list, change **kept, size_t n_kept) {
    size_t mark = t->n_log;
    visit_all(t, list);
    size_t n = t->n_log - mark;
    change *all = (change *)fa_jj_alloc(t->m, n_kept + n + 1, sizeof *all);
    if (n_kept) memcpy(all, *kept, n_kept * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        uint32_t sym = t->log[mark + i].sym;
        all[n_kept + i] = (change){sym, t->s[sym]};
    }
    undo(t, mark);
    *kept = all;
    return n_kept + n;
}

/* After an if a name that some branch stored comes from outside where no branch ran. */
static void visit_if(tracker *t, const fa_jjnode *n) {
    change *kept = NULL;
    visit_expr(t, n->a);
    size_t k = branch(t, n->list, &kept, 0);
    if (n->b) { /* elif: an if of its own in the second branch */
        size_t mark = t->n_log;
        visit_if(t, n->b);
        size_t more = t->n_log - mark;
        change *all = (change *)fa_jj_alloc(t->m, k + more + 1, sizeof *all);
        memcpy(all, kept, k * sizeof *all);
        for (size_t i = 0; i < more; i++) {
            uint32_t sym = t->log[mark + i].sym;
            all[k + i] = (change){sym, t->s[sym]};
        }
        undo(t, mark);
        kept = all;
        k += more;
    }
    if (n->c) k = branch(t, n->c, &kept, k);
    for (size_t i = 0; i < k; i++) {
        symbol *s = &t->s[kept[i].sym];
        bool before = s->level == t->level && s->stored;
        symbol now = kept[i].before;
        if (now.stored && !before) now.load = now.outer ? LOAD_ALIAS : LOAD_RESOLVE;
        if (s->level == t->level && s->stored) continue;
        *touch(t, kept[i].sym) = now;
    }
}

static void visit(tracker *t, const fa_jjnode *n) {
    switch (n->k) {
    case FA_JJ_N_OUTPUT: visit_expr(t, n->a); return;
    case FA_JJ_N_IF: visit_if(t, n); return;
    case FA_JJ_N_FOR: visit_expr(t, n->b); return;
    case FA_JJ_N_SET:
        visit_expr(t, n->b);
        visit_target(t, n->a, false);
        return;
    case FA_JJ_N_SETBLOCK: visit_target(t, n->a, false); return;
    case FA_JJ_N_MACRO: store_name(t, n->sym); return;
    case FA_JJ_N_CALL_BLOCK:
    case FA_JJ_N_FILTER_BLOCK: visit_expr(t, n->a); return;
    case FA_JJ_N_WITH:
        for (const fa_jjnode *v = n->kw; v; v = v->next) visit_expr(t, v);
        return;
    default: return;
    }
}

/* ---- scopes ---- */

static void scopes(tracker *t, fa_jjnode *list);

/* The names of this scope that begin undefined. */
static uint32_t *collect(tracker *t, size_t mark, uint32_t *n) {
    uint32_t *l = (uint32_t *)fa_jj_alloc(t->m, t->n_log - mark + 1, sizeof *l), k = 0;
    for (size_t i = mark; i < t->n_log; i++) {
        uint32_t sym = t->log[i].sym;
        bool seen = false;
        if (t->s[sym].level != t->level || t->s[sym].load != LOAD_UNDEF) continue;
        for (uint32_t j = 0; j < k && !seen; j++) seen = l[j] == sym;
        if (!seen) l[k++] = sym;
    }
    *n = k;
    return l;
}

/* A scope with `list` as its statements; the caller has opened it and declared its parameters. */
static void close_scope(tracker *t, fa_jjnode *list, size_t mark, fa_jjundefs *out) {
    visit_all(t, list);
    out->sym = collect(t, mark, &out->n);
    scopes(t, list);
    undo(t, mark);
    t->level--;
}

static size_t open_scope(tracker *t) {
    t->level++;
    return t->n_log;
}

static void for_scopes(tracker *t, fa_jjnode *n) {
    size_t mark = open_scope(t);
    if (n->uses & FA_JJ_USES_LOOP || n->flag) define(t, t->m->sym_loop, LOAD_PARAM);
    visit_target(t, n->a, true);
    close_scope(t, n->list, mark, &n->undef);
    if (!n->d) return;
    mark = open_scope(t);
    close_scope(t, n->d, mark, &n->undef_else);
}

static void macro_scope(tracker *t, fa_jjnode *n) {
    size_t mark = open_scope(t);
    for (const fa_jjnode *a = n->args; a; a = a->next) define(t, a->sym, LOAD_PARAM);
    for (uint32_t i = 0; i < 3; i++)
        if (n->uses & 1u << i) define(t, t->m->sym_loop + 1 + i, LOAD_PARAM);
    for (const fa_jjnode *d = n->kw; d; d = d->next) visit_expr(t, d);
    close_scope(t, n->list, mark, &n->undef);
}

/* The scopes that statements open, all inside the current one. */
static void scopes(tracker *t, fa_jjnode *list) {
    size_t mark;
    for (fa_jjnode *n = list; n; n = n->next) {
        switch (n->k) {
        case FA_JJ_N_IF:
            for (fa_jjnode *x = n; x; x = x->b) {
                scopes(t, x->list);
                scopes(t, x->c);
            }
            break;
        case FA_JJ_N_FOR: for_scopes(t, n); break;
        case FA_JJ_N_MACRO:
        case FA_JJ_N_CALL_BLOCK:
        case FA_JJ_N_GENERATION: macro_scope(t, n); break;
        case FA_JJ_N_SETBLOCK:
        case FA_JJ_N_FILTER_BLOCK:
            mark = open_scope(t);
            close_scope(t, n->list, mark, &n->undef);
            break;
        case FA_JJ_N_WITH:
            mark = open_scope(t);
            for (const fa_jjnode *a = n->args; a; a = a->next) visit_target(t, a, true);
            close_scope(t, n->list, mark, &n->undef);
            break;
        default: break;
        }
    }
}

void fa_jj_track(fa_jj *m, fa_jinja *t) {
    tracker k = {.m = m};
    k.s = (symbol *)fa_jj_alloc(m, t->n_sym + 1, sizeof *k.s);
    size_t mark = open_scope(&k);
    close_scope(&k, t->body, mark, &t->undef);
}
