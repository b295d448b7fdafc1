/* The parser of expressions and assignment targets: jinja's grammar, level by level. */
#include "text/jinja/int.h"

#include <string.h>

static fa_jjnode *parse_unary(fa_jjparser *p, bool with_filter);
static fa_jjnode *parse_postfix(fa_jjparser *p, fa_jjnode *n);

static fa_jjnode *binary(fa_jjparser *p, fa_jjkind k, const fa_jjtoken *at, fa_jjnode *a, fa_jjnode *b) {
    fa_jjnode *n = fa_jj_node(p, k, at);
    n->a = a;
    n->b = b;
    return n;
}

static fa_jjnode *constant(fa_jjparser *p, const fa_jjtoken *at, fa_jjv v) {
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_CONST, at);
    n->v = v;
    return n;
}

/* Reads of the special variables are counted: macros and loops ask later whether there were any. */
static void count_use(fa_jjparser *p, const fa_jjstr *name) {
    static const char *const special[] = {"caller", "kwargs", "varargs", "loop"};
    for (int i = 0; i < 4; i++)
        if (fa_jj_is(name, special[i])) p->n_use[i]++;
}

/* ---- calls ---- */

typedef struct arg_list {
    fa_jjnode **arg, **kw;
} arg_list;

static void call_arg(fa_jjparser *p, fa_jjnode *n, arg_list *l, const fa_jjtoken *open) {
    bool ok = true;
    if (fa_jj_skip_op(p, '*')) {
        ok = !n->dyn_args && !n->dyn_kw;
        if (ok) n->dyn_args = fa_jj_parse_expr(p, true);
    } else if (fa_jj_skip_op(p, FA_JJ_OP2('*', '*'))) {
        ok = !n->dyn_kw;
        if (ok) n->dyn_kw = fa_jj_parse_expr(p, true);
    } else if (p->tok->t == FA_JJ_T_NAME && p->tok[1].t == FA_JJ_T_OP && p->tok[1].op == '=') {
        fa_jjv key = p->tok->v;
        ok = !n->dyn_kw;
        for (fa_jjnode *o = n->kw; o; o = o->next)
            if (fa_jj_same(o->v.u.s, key.u.s))
                fa_jj_syntax(p, p->tok, "keyword argument repeated: %.*s", (int)key.u.s->n, key.u.s->p);
        p->tok += 2;
        fa_jjnode *k = fa_jj_node(p, FA_JJ_N_CONST, p->tok);
        k->v = key;
        k->a = fa_jj_parse_expr(p, true);
        *l->kw = k;
        l->kw = &k->next;
        n->n_kw++;
    } else {
        ok = !n->dyn_args && !n->dyn_kw && !n->kw;
        fa_jjnode *a = fa_jj_parse_expr(p, true);
        *l->arg = a;
        l->arg = &a->next;
        n->n_args++;
    }
    if (!ok) fa_jj_syntax(p, open, "invalid syntax for function call expression");
}

static void call_args(fa_jjparser *p, fa_jjnode *n) {
    arg_list l = {&n->args, &n->kw};
    const fa_jjtoken *open = fa_jj_expect_op(p, '(');
    bool comma = false;
    while (!fa_jj_at_op(p, ')')) {
        if (comma) {
            fa_jj_expect_op(p, ',');
            if (fa_jj_at_op(p, ')')) break;
        }
        call_arg(p, n, &l, open);
        comma = true;
    }
    fa_jj_expect_op(p, ')');
}

static fa_jjnode *parse_call(fa_jjparser *p, fa_jjnode *f) {
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_CALL, p->tok);
    n->a = f;
    call_args(p, n);
    return n;
}

/* name(.name)* of a filter or test */
static fa_jjstr *dotted(fa_jjparser *p) {
    fa_jjstr *name = fa_jj_expect(p, FA_JJ_T_NAME, "name")->v.u.s;
    while (fa_jj_skip_op(p, '.')) {
        fa_jjstr *more = fa_jj_expect(p, FA_JJ_T_NAME, "name")->v.u.s;
        name = fa_jj_concat(p->m, fa_jj_concat(p->m, name, fa_jj_ref(p->m, ".", 1)).u.s, more).u.s;
    }
    return name;
}

fa_jjnode *fa_jj_parse_filter(fa_jjparser *p, fa_jjnode *node, bool inline_start) {
    while (inline_start || fa_jj_at_op(p, '|')) {
        if (!inline_start) p->tok++;
        inline_start = false;
        const fa_jjtoken *at = p->tok;
        fa_jjnode *n = fa_jj_node(p, FA_JJ_N_FILTER, at);
        fa_jjstr *name = dotted(p);
        n->a = node;
        n->v = fa_jj_strv(name);
        n->fn = fa_jj_filter(name->p, name->n);
        if (!n->fn && !p->soft && !p->unknown) p->unknown = n;
        if (fa_jj_at_op(p, '(')) call_args(p, n);
        node = n;
    }
    return node;
}

static bool starts_test_arg(const fa_jjparser *p) {
    if (p->tok->t == FA_JJ_T_NAME)
        return !fa_jj_at_name(p, "else") && !fa_jj_at_name(p, "or") && !fa_jj_at_name(p, "and");
    return p->tok->t == FA_JJ_T_STRING || p->tok->t == FA_JJ_T_INT || p->tok->t == FA_JJ_T_FLOAT ||
           fa_jj_at_op(p, '[') || fa_jj_at_op(p, '{');
}

static fa_jjnode *parse_primary(fa_jjparser *p, bool with_ns);

static fa_jjnode *parse_test(fa_jjparser *p, fa_jjnode *node) {
    const fa_jjtoken *at = p->tok++;
    bool negated = fa_jj_skip_name(p, "not");
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_TEST, p->tok);
    fa_jjstr *name = dotted(p);
    n->a = node;
    n->v = fa_jj_strv(name);
    n->fn = fa_jj_test(name->p, name->n);
    if (!n->fn && !p->soft && !p->unknown) p->unknown = n;
    if (fa_jj_at_op(p, '(')) {
        call_args(p, n);
    } else if (starts_test_arg(p)) {
        if (fa_jj_at_name(p, "is")) fa_jj_syntax(p, p->tok, "You cannot chain multiple tests with is");
        n->args = parse_postfix(p, parse_primary(p, false));
        n->n_args = 1;
    }
    return negated ? binary(p, FA_JJ_N_NOT, at, n, NULL) : n;
}

static fa_jjnode *parse_filter_expr(fa_jjparser *p, fa_jjnode *n) {
    for (;;) {
        if (fa_jj_at_op(p, '|'))
            n = fa_jj_parse_filter(p, n, false);
        else if (fa_jj_at_name(p, "is"))
            n = parse_test(p, n);
        else if (fa_jj_at_op(p, '('))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* ---- subscripts ---- */

static fa_jjnode *parse_subscribed(fa_jjparser *p) {
    const fa_jjtoken *at = p->tok;
    fa_jjnode *start = NULL;
    if (!fa_jj_at_op(p, ':')) {
        start = fa_jj_parse_expr(p, true);
        if (!fa_jj_at_op(p, ':')) return start;
    }
    p->tok++;
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_SLICE, at);
    n->a = start;
    if (!fa_jj_at_op(p, ':') && !fa_jj_at_op(p, ']') && !fa_jj_at_op(p, ',')) n->b = fa_jj_parse_expr(p, true);
    if (fa_jj_skip_op(p, ':') && !fa_jj_at_op(p, ']') && !fa_jj_at_op(p, ',')) n->c = fa_jj_parse_expr(p, true);
    return n;
}

static fa_jjnode *parse_subscript(fa_jjparser *p, fa_jjnode *node) {
    const fa_jjtoken *at = p->tok++;
    if (at->op == '.') {
        const fa_jjtoken *attr = p->tok++;
        if (attr->t == FA_JJ_T_NAME) {
            fa_jjnode *n = binary(p, FA_JJ_N_GETATTR, at, node, NULL);
            n->v = attr->v;
            return n;
        }
        if (attr->t != FA_JJ_T_INT) fa_jj_syntax(p, attr, "expected name or number");
        return binary(p, FA_JJ_N_GETITEM, at, node, constant(p, attr, attr->v));
    }
    fa_jjnode *first = NULL, **last = &first;
    uint32_t n_arg = 0;
    while (!fa_jj_at_op(p, ']')) {
        if (first) fa_jj_expect_op(p, ',');
        *last = parse_subscribed(p);
        last = &(*last)->next;
        n_arg++;
    }
    fa_jj_expect_op(p, ']');
    if (n_arg != 1) {
        fa_jjnode *t = fa_jj_node(p, FA_JJ_N_TUPLE, at);
        t->args = first;
        t->n_args = n_arg;
        first = t;
    }
    return binary(p, FA_JJ_N_GETITEM, at, node, first);
}

static fa_jjnode *parse_postfix(fa_jjparser *p, fa_jjnode *n) {
    for (;;) {
        if (fa_jj_at_op(p, '.') || fa_jj_at_op(p, '['))
            n = parse_subscript(p, n);
        else if (fa_jj_at_op(p, '('))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* ---- literals ---- */

static fa_jjnode *parse_list(fa_jjparser *p) {
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_LIST, p->tok++), **last = &n->args;
    while (!fa_jj_at_op(p, ']')) {
        if (n->args) fa_jj_expect_op(p, ',');
        if (fa_jj_at_op(p, ']')) break;
        *last = fa_jj_parse_expr(p, true);
        last = &(*last)->next;
        n->n_args++;
    }
    fa_jj_expect_op(p, ']');
    return n;
}

static fa_jjnode *parse_dict(fa_jjparser *p) {
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_DICT, p->tok++), **key = &n->args, **val = &n->kw;
    while (!fa_jj_at_op(p, '}')) {
        if (n->args) fa_jj_expect_op(p, ',');
        if (fa_jj_at_op(p, '}')) break;
        *key = fa_jj_parse_expr(p, true);
        key = &(*key)->next;
        fa_jj_expect_op(p, ':');
        *val = fa_jj_parse_expr(p, true);
        val = &(*val)->next;
        n->n_args++;
    }
    fa_jj_expect_op(p, '}');
    return n;
}

static fa_jjnode *parse_name(fa_jjparser *p, bool with_ns) {
    const fa_jjtoken *at = p->tok++;
    fa_jjstr *s = at->v.u.s;
    if (fa_jj_is(s, "true") || fa_jj_is(s, "True")) return constant(p, at, fa_jj_bool(true));
    if (fa_jj_is(s, "false") || fa_jj_is(s, "False")) return constant(p, at, fa_jj_bool(false));
    if (fa_jj_is(s, "none") || fa_jj_is(s, "None")) return constant(p, at, fa_jj_none());
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_NAME, at);
    if (with_ns && fa_jj_skip_op(p, '.')) {
        n->k = FA_JJ_N_NSREF;
        n->v = fa_jj_expect(p, FA_JJ_T_NAME, "name")->v;
    } else {
        count_use(p, s);
    }
    n->sym = fa_jj_sym(p, s);
    return n;
}

static fa_jjnode *parse_strings(fa_jjparser *p) {
    const fa_jjtoken *at = p->tok++;
    fa_jjv v = at->v;
    while (p->tok->t == FA_JJ_T_STRING) v = fa_jj_concat(p->m, v.u.s, p->tok++->v.u.s);
    return constant(p, at, v);
}

static fa_jjnode *tuple(fa_jjparser *p, bool simple, bool with_cond, bool parens, bool with_ns);

static fa_jjnode *parse_primary(fa_jjparser *p, bool with_ns) {
    char buf[80];
    fa_jjnode *n;
    const fa_jjtoken *at = p->tok;
    switch (at->t) {
    case FA_JJ_T_NAME: return parse_name(p, with_ns);
    case FA_JJ_T_STRING: return parse_strings(p);
    case FA_JJ_T_INT:
    case FA_JJ_T_FLOAT: p->tok++; return constant(p, at, at->v);
    default: break;
    }
    fa_jj_nest(p);
    if (fa_jj_skip_op(p, '(')) {
        n = tuple(p, false, true, true, false);
        fa_jj_expect_op(p, ')');
    } else if (fa_jj_at_op(p, '[')) {
        n = parse_list(p);
    } else if (fa_jj_at_op(p, '{')) {
        n = parse_dict(p);
    } else {
        fa_jj_syntax(p, at, "unexpected '%s'", fa_jj_token_text(at, buf, sizeof buf));
    }
    p->nest--;
    return n;
}

/* ---- operators, from tight to loose ---- */

static fa_jjnode *parse_unary(fa_jjparser *p, bool with_filter) {
    const fa_jjtoken *at = p->tok;
    fa_jjnode *n;
    fa_jj_nest(p);
    if (fa_jj_skip_op(p, '-'))
        n = binary(p, FA_JJ_N_NEG, at, parse_unary(p, false), NULL);
    else if (fa_jj_skip_op(p, '+'))
        n = binary(p, FA_JJ_N_POS, at, parse_unary(p, false), NULL);
    else
        n = parse_primary(p, false);
    n = parse_postfix(p, n);
    if (with_filter) n = parse_filter_expr(p, n);
    p->nest--;
    return n;
}

static fa_jjnode *parse_pow(fa_jjparser *p) {
    fa_jjnode *n = parse_unary(p, true);
    while (fa_jj_at_op(p, FA_JJ_OP2('*', '*'))) {
        const fa_jjtoken *at = p->tok++;
        n = binary(p, FA_JJ_N_POW, at, n, parse_unary(p, true));
    }
    return n;
}

static fa_jjnode *parse_math2(fa_jjparser *p) {
    fa_jjnode *n = parse_pow(p);
    for (;;) {
        const fa_jjtoken *at = p->tok;
        fa_jjkind k = fa_jj_at_op(p, '*')                   ? FA_JJ_N_MUL
                      : fa_jj_at_op(p, '/')                 ? FA_JJ_N_DIV
                      : fa_jj_at_op(p, FA_JJ_OP2('/', '/')) ? FA_JJ_N_FLOORDIV
                      : fa_jj_at_op(p, '%')                 ? FA_JJ_N_MOD
                                                            : FA_JJ_N_DATA;
        if (k == FA_JJ_N_DATA) return n;
        p->tok++;
        n = binary(p, k, at, n, parse_pow(p));
    }
}

static fa_jjnode *parse_concat(fa_jjparser *p) {
    const fa_jjtoken *at = p->tok;
    fa_jjnode *first = parse_math2(p);
    if (!fa_jj_at_op(p, '~')) return first;
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_CONCAT, at), **last = &first->next;
    n->args = first;
    n->n_args = 1;
    while (fa_jj_skip_op(p, '~')) {
        *last = parse_math2(p);
        last = &(*last)->next;
        n->n_args++;
    }
    return n;
}

static fa_jjnode *parse_math1(fa_jjparser *p) {
    fa_jjnode *n = parse_concat(p);
    while (fa_jj_at_op(p, '+') || fa_jj_at_op(p, '-')) {
        const fa_jjtoken *at = p->tok++;
        n = binary(p, at->op == '+' ? FA_JJ_N_ADD : FA_JJ_N_SUB, at, n, parse_concat(p));
    }
    return n;
}

/* The comparison here: its operator ("in" is 'i', "not in" 'n'), 0: none. Skips it. */
static uint32_t compare_op(fa_jjparser *p) {
    static const uint32_t ops[] = {FA_JJ_OP2('=', '='), FA_JJ_OP2('!', '='), '<', FA_JJ_OP2('<', '='), '>',
                                   FA_JJ_OP2('>', '=')};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (fa_jj_skip_op(p, ops[i])) return ops[i];
    if (fa_jj_skip_name(p, "in")) return 'i';
    if (fa_jj_at_name(p, "not") && p->tok[1].t == FA_JJ_T_NAME && fa_jj_is(p->tok[1].v.u.s, "in")) {
        p->tok += 2;
        return 'n';
    }
    return 0;
}

static fa_jjnode *parse_compare(fa_jjparser *p) {
    const fa_jjtoken *at = p->tok;
    fa_jjnode *expr = parse_math1(p), *n = NULL, **last = NULL;
    uint32_t op;
    while ((op = compare_op(p)) != 0) {
        if (!n) {
            n = binary(p, FA_JJ_N_COMPARE, at, expr, NULL);
            last = &n->args;
        }
        fa_jjnode *o = fa_jj_node(p, FA_JJ_N_OPERAND, p->tok);
        o->op = op;
        o->a = parse_math1(p);
        *last = o;
        last = &o->next;
    }
    return n ? n : expr;
}

static fa_jjnode *parse_not(fa_jjparser *p) {
    const fa_jjtoken *at = p->tok;
    if (!fa_jj_skip_name(p, "not")) return parse_compare(p);
    fa_jj_nest(p);
    fa_jjnode *n = binary(p, FA_JJ_N_NOT, at, parse_not(p), NULL);
    p->nest--;
    return n;
}

static fa_jjnode *parse_and(fa_jjparser *p) {
    fa_jjnode *n = parse_not(p);
    for (const fa_jjtoken *at = p->tok; fa_jj_skip_name(p, "and"); at = p->tok)
        n = binary(p, FA_JJ_N_AND, at, n, parse_not(p));
    return n;
}

static fa_jjnode *parse_or(fa_jjparser *p) {
    fa_jjnode *n = parse_and(p);
    for (const fa_jjtoken *at = p->tok; fa_jj_skip_name(p, "or"); at = p->tok)
        n = binary(p, FA_JJ_N_OR, at, n, parse_and(p));
    return n;
}

/* Unknown filters and tests inside a conditional expression fail only when they are used. */
static fa_jjnode *parse_cond(fa_jjparser *p) {
    const fa_jjtoken *at = p->tok;
    const fa_jjnode *unknown = p->unknown;
    fa_jj_nest(p);
    fa_jjnode *n = parse_or(p);
    while (fa_jj_skip_name(p, "if")) {
        fa_jjnode *c = fa_jj_node(p, FA_JJ_N_COND, at);
        c->b = n;
        c->a = parse_or(p);
        if (fa_jj_skip_name(p, "else")) c->c = parse_cond(p);
        n = c;
        p->unknown = unknown;
        at = p->tok;
    }
    p->nest--;
    return n;
}

fa_jjnode *fa_jj_parse_expr(fa_jjparser *p, bool with_cond) { return with_cond ? parse_cond(p) : parse_or(p); }

/* ---- tuples and targets ---- */

static bool tuple_end(const fa_jjparser *p) {
    return p->tok->t == FA_JJ_T_VAR_END || p->tok->t == FA_JJ_T_BLOCK_END || fa_jj_at_op(p, ')');
}

static fa_jjnode *tuple(fa_jjparser *p, bool simple, bool with_cond, bool parens, bool with_ns) {
    char buf[80];
    const fa_jjtoken *at = p->tok;
    fa_jjnode *first = NULL, **last = &first;
    uint32_t n = 0;
    bool is_tuple = false;
    for (;;) {
        if (first) fa_jj_expect_op(p, ',');
        if (tuple_end(p)) break;
        *last = simple ? parse_primary(p, with_ns) : fa_jj_parse_expr(p, with_cond);
        last = &(*last)->next;
        n++;
        if (!fa_jj_at_op(p, ',')) break;
        is_tuple = true;
    }
    if (!is_tuple && first) return first;
    if (!is_tuple && !parens)
        fa_jj_syntax(p, p->tok, "Expected an expression, got '%s'", fa_jj_token_text(p->tok, buf, sizeof buf));
    fa_jjnode *t = fa_jj_node(p, FA_JJ_N_TUPLE, at);
    t->args = first;
    t->n_args = n;
    return t;
}

fa_jjnode *fa_jj_parse_tuple(fa_jjparser *p, bool with_cond) { return tuple(p, false, with_cond, false, false); }

static const char *class_of(const fa_jjnode *n) {
    switch (n->k) {
    case FA_JJ_N_CONST: return "const";
    case FA_JJ_N_LIST: return "list";
    case FA_JJ_N_DICT: return "dict";
    case FA_JJ_N_TUPLE: return "tuple";
    case FA_JJ_N_CALL: return "call";
    case FA_JJ_N_GETATTR: return "getattr";
    case FA_JJ_N_GETITEM: return "getitem";
    case FA_JJ_N_FILTER: return "filter";
    case FA_JJ_N_TEST: return "test";
    default: return "expression";
    }
}

static bool assignable(fa_jjparser *p, const fa_jjnode *n) {
    if (n->k == FA_JJ_N_NSREF) return true;
    if (n->k == FA_JJ_N_NAME) {
        if (fa_jj_is(p->sym[n->sym], "loop")) {
            p->n_loop_store++;
            p->loop_line = n->line;
        }
        return true;
    }
    if (n->k != FA_JJ_N_TUPLE) return false;
    for (const fa_jjnode *a = n->args; a; a = a->next)
        if (!assignable(p, a)) return false;
    return true;
}

fa_jjnode *fa_jj_parse_target(fa_jjparser *p, bool with_ns) {
    uint32_t use[4];
    memcpy(use, p->n_use, sizeof use);
    const fa_jjtoken *at = p->tok;
    fa_jjnode *n = tuple(p, true, true, false, with_ns);
    memcpy(p->n_use, use, sizeof use); /* these are no reads */
    if (!assignable(p, n)) fa_jj_syntax(p, at, "can't assign to '%s'", class_of(n));
    return n;
}

fa_jjnode *fa_jj_parse_name_target(fa_jjparser *p) {
    const fa_jjtoken *at = fa_jj_expect(p, FA_JJ_T_NAME, "name");
    static const char *const fixed[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (fa_jj_is(at->v.u.s, fixed[i])) fa_jj_syntax(p, at, "can't assign to 'name'");
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_NAME, at);
    n->sym = fa_jj_sym(p, at->v.u.s);
    return n;
}

/* ---- constants ---- */

static bool all_const(const fa_jjnode *list) {
    for (; list; list = list->next)
        if (!fa_jj_is_const(list)) return false;
    return true;
}

bool fa_jj_is_const(const fa_jjnode *n) {
    for (; n; n = n->a) { /* down the left side without recursion: chains of operators are long */
        if (n->k == FA_JJ_N_NAME || n->k == FA_JJ_N_CALL || (n->k == FA_JJ_N_COND && !n->c)) return false;
        if (n->k == FA_JJ_N_FILTER && n->fn && !n->fn->params && !fa_jj_is(n->v.u.s, "format")) return false;
        if (!all_const(n->args) || !all_const(n->kw)) return false;
        if (n->b && !fa_jj_is_const(n->b)) return false;
        if (n->c && !fa_jj_is_const(n->c)) return false;
        if (n->dyn_args || n->dyn_kw) return false;
    }
    return true;
}
