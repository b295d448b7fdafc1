/* The parser of statements, and what all of the parser shares: nodes, names, expectations, messages. */
#include "base/utf8.h"
#include "base/alloc.h"
#include "text/jinja/int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- shared ---- */

fa_jjnode *fa_jj_node(fa_jjparser *p, fa_jjkind k, const fa_jjtoken *at) {
    fa_jjnode *n = (fa_jjnode *)fa_jj_alloc(p->m, 1, sizeof *n);
    n->k = k;
    n->line = at->line;
    n->col = at->col;
    return n;
}

uint32_t fa_jj_sym(fa_jjparser *p, fa_jjstr *name) {
    fa_jjv *known = fa_jj_dict_get(p->m, p->sym_of, fa_jj_strv(name));
    if (known) return (uint32_t)known->u.i;
    if (p->n_sym == p->cap_sym) {
        uint32_t cap = p->cap_sym ? p->cap_sym * 2 : 64;
        fa_jjstr **s = (fa_jjstr **)fa_jj_alloc(p->m, cap, sizeof *s);
        if (p->n_sym) memcpy(s, p->sym, p->n_sym * sizeof *s);
        p->sym = s;
        p->cap_sym = cap;
    }
    p->sym[p->n_sym] = name;
    fa_jj_dict_set(p->m, p->sym_of, fa_jj_strv(name), fa_jj_int(p->n_sym));
    return p->n_sym++;
}

void fa_jj_syntax(fa_jjparser *p, const fa_jjtoken *at, const char *fmt, ...) {
    char msg[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    p->m->line = at->line;
    p->m->col = at->col;
    fa_jj_fail(p->m, FFAI_EFORMAT, "%s", msg);
}

void fa_jj_nest(fa_jjparser *p) {
    if (++p->nest <= FA_JJ_MAX_NEST) return;
    p->m->line = p->tok->line;
    p->m->col = p->tok->col;
    fa_jj_fail(p->m, FFAI_ELIMIT, "nested deeper than %d", FA_JJ_MAX_NEST);
}

bool fa_jj_at_op(const fa_jjparser *p, uint32_t op) { return p->tok->t == FA_JJ_T_OP && p->tok->op == op; }

bool fa_jj_at_name(const fa_jjparser *p, const char *name) {
    return p->tok->t == FA_JJ_T_NAME && fa_jj_is(p->tok->v.u.s, name);
}

bool fa_jj_skip_op(fa_jjparser *p, uint32_t op) {
    bool is = fa_jj_at_op(p, op);
    p->tok += is;
    return is;
}

bool fa_jj_skip_name(fa_jjparser *p, const char *name) {
    bool is = fa_jj_at_name(p, name);
    p->tok += is;
    return is;
}

_Noreturn static void unexpected(fa_jjparser *p, const char *want) {
    char buf[80];
    if (p->tok->t == FA_JJ_T_EOF) fa_jj_syntax(p, p->tok, "unexpected end of template, expected '%s'.", want);
    fa_jj_syntax(p, p->tok, "expected token '%s', got '%s'", want, fa_jj_token_text(p->tok, buf, sizeof buf));
}

const fa_jjtoken *fa_jj_expect(fa_jjparser *p, fa_jjtok t, const char *want) {
    if (p->tok->t != t) unexpected(p, want);
    return p->tok++;
}

const fa_jjtoken *fa_jj_expect_op(fa_jjparser *p, uint32_t op) {
    char want[3] = {(char)op, 0, 0};
    if (!fa_jj_at_op(p, op)) unexpected(p, want);
    return p->tok++;
}

static const fa_jjtoken *expect_name(fa_jjparser *p, const char *name) {
    if (!fa_jj_at_name(p, name)) unexpected(p, name);
    return p->tok++;
}

/* ---- messages about tags ---- */

static void looking_for(fa_buf *b, const char *const *end) {
    for (size_t i = 0; end[i]; i++) fa_buf_printf(b, "%s'%s'", i ? " or " : "", end[i]);
}

static bool awaited(const fa_jjparser *p, const fa_jjstr *name) {
    for (int i = 0; i < p->n_end; i++)
        for (size_t k = 0; p->end[i][k]; k++)
            if (fa_jj_is(name, p->end[i][k])) return true;
    return false;
}

/* name NULL: the template ended */
_Noreturn static void unknown_tag(fa_jjparser *p, const fa_jjtoken *at, const fa_jjstr *name) {
    fa_buf *b = &p->m->out;
    b->len = 0;
    if (name)
        fa_buf_printf(b, "Encountered unknown tag '%.*s'.", (int)(name->n < 60 ? name->n : 60), name->p);
    else
        fa_buf_puts(b, "Unexpected end of template.");
    if (p->n_end) {
        fa_buf_puts(b, name && awaited(p, name)
                           ? " You probably made a nesting mistake. Jinja is expecting this tag, but "
                             "currently looking for "
                           : " Jinja was looking for the following tags: ");
        looking_for(b, p->end[p->n_end - 1]);
        fa_buf_puts(b, ".");
    }
    if (p->n_tag) {
        const fa_jjstr *tag = p->tag[p->n_tag - 1];
        fa_buf_printf(b, " The innermost block that needs to be closed is '%.*s'.", (int)tag->n, tag->p);
    }
    fa_jj_syntax(p, at, "%s", b->data ? b->data : "");
}

/* ---- statements ---- */

static fa_jjnode *subparse(fa_jjparser *p, const char *const *end);

/* The body of a block up to one of the tags in `end`; the parser then stands at that tag's name. */
static fa_jjnode *body(fa_jjparser *p, const char *const *end) {
    fa_jj_skip_op(p, ':');
    fa_jj_expect(p, FA_JJ_T_BLOCK_END, "end of statement block");
    fa_jjnode *list = subparse(p, end);
    if (p->tok->t == FA_JJ_T_EOF) {
        p->end[p->n_end++] = end;
        unknown_tag(p, p->tok, NULL);
    }
    return list;
}

static fa_jjnode *body_to_end(fa_jjparser *p, const char *const *end) {
    fa_jjnode *list = body(p, end);
    p->tok++;
    return list;
}

static fa_jjnode *parse_if(fa_jjparser *p) {
    static const char *const end[] = {"elif", "else", "endif", NULL}, *const end_else[] = {"endif", NULL};
    bool soft = p->soft;
    fa_jjnode *first = NULL, *n = NULL;
    p->soft = true;
    do {
        fa_jjnode *branch = fa_jj_node(p, FA_JJ_N_IF, p->tok++);
        if (n)
            n->b = branch;
        else
            first = branch;
        n = branch;
        n->a = fa_jj_parse_tuple(p, false);
        n->list = body(p, end);
    } while (fa_jj_at_name(p, "elif"));
    if (fa_jj_skip_name(p, "else"))
        n->c = body_to_end(p, end_else);
    else
        p->tok++;
    p->soft = soft;
    return first;
}

static fa_jjnode *parse_for(fa_jjparser *p) {
    static const char *const end[] = {"endfor", "else", NULL}, *const end_else[] = {"endfor", NULL};
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_FOR, p->tok++);
    uint32_t stores = p->n_loop_store, uses = 0;
    bool soft = p->soft;
    n->a = fa_jj_parse_target(p, false);
    expect_name(p, "in");
    n->b = fa_jj_parse_tuple(p, false);
    p->soft = false;
    if (fa_jj_skip_name(p, "if")) n->c = fa_jj_parse_expr(p, true);
    n->flag = fa_jj_skip_name(p, "recursive");
    p->in_loop++;
    uses = p->n_use[3];
    n->list = body(p, end);
    n->uses = p->n_use[3] != uses ? FA_JJ_USES_LOOP : 0;
    p->in_loop--;
    if (fa_jj_skip_name(p, "else"))
        n->d = body_to_end(p, end_else);
    else
        p->tok++;
    p->soft = soft;
    if (p->n_loop_store != stores) {
        p->m->line = p->loop_line;
        p->m->col = 1;
        fa_jj_fail(p->m, FFAI_EFORMAT, "Can't assign to special loop variable in for-loop target");
    }
    return n;
}

static fa_jjnode *parse_set(fa_jjparser *p) {
    static const char *const end[] = {"endset", NULL};
    const fa_jjtoken *at = p->tok++;
    fa_jjnode *target = fa_jj_parse_target(p, true), *n;
    if (fa_jj_skip_op(p, '=')) {
        n = fa_jj_node(p, FA_JJ_N_SET, at);
        n->a = target;
        n->b = fa_jj_parse_tuple(p, true);
        return n;
    }
    bool soft = p->soft;
    n = fa_jj_node(p, FA_JJ_N_SETBLOCK, at);
    n->a = target;
    p->soft = false;
    n->b = fa_jj_parse_filter(p, NULL, false);
    n->list = body_to_end(p, end);
    p->soft = soft;
    return n;
}

/* (a, b=1): params in args, the defaults of the last n_kw in kw */
static void signature(fa_jjparser *p, fa_jjnode *n) {
    fa_jjnode **arg = &n->args, **def = &n->kw;
    fa_jj_expect_op(p, '(');
    while (!fa_jj_at_op(p, ')')) {
        if (n->args) fa_jj_expect_op(p, ',');
        fa_jjnode *a = fa_jj_parse_name_target(p);
        for (fa_jjnode *o = n->args; o; o = o->next)
            if (o->sym == a->sym)
                fa_jj_syntax(p, p->tok, "duplicate argument '%.*s' in function definition", (int)p->sym[a->sym]->n,
                             p->sym[a->sym]->p);
        if (fa_jj_skip_op(p, '=')) {
            *def = fa_jj_parse_expr(p, true);
            def = &(*def)->next;
            n->n_kw++;
        } else if (n->kw) {
            fa_jj_syntax(p, p->tok, "non-default argument follows default argument");
        }
        *arg = a;
        arg = &a->next;
        n->n_args++;
    }
    fa_jj_expect_op(p, ')');
}

/* The body of a macro, and which of the special variables it reads. */
static void macro_body(fa_jjparser *p, fa_jjnode *n, const char *const *end) {
    uint32_t use[3];
    bool soft = p->soft;
    int in_loop = p->in_loop;
    memcpy(use, p->n_use, sizeof use);
    p->soft = false;
    p->in_loop = 0;
    n->list = body_to_end(p, end);
    p->soft = soft;
    p->in_loop = in_loop;
    for (int i = 0; i < 3; i++)
        if (p->n_use[i] != use[i]) n->uses |= (uint8_t)(1 << i);
    uint32_t i = 0;
    for (fa_jjnode *a = n->args; a; a = a->next, i++) {
        const fa_jjstr *name = p->sym[a->sym];
        if (fa_jj_is(name, "kwargs")) n->uses &= (uint8_t)~FA_JJ_USES_KWARGS;
        if (fa_jj_is(name, "varargs")) n->uses &= (uint8_t)~FA_JJ_USES_VARARGS;
        if (fa_jj_is(name, "caller") && (n->uses & FA_JJ_USES_CALLER) && i + n->n_kw < n->n_args)
            fa_jj_syntax(p, p->tok,
                         "When defining macros or call blocks the special \"caller\" argument must be omitted or be "
                         "given a default.");
    }
}

static fa_jjnode *parse_macro(fa_jjparser *p) {
    static const char *const end[] = {"endmacro", NULL};
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_MACRO, p->tok++);
    n->sym = fa_jj_parse_name_target(p)->sym;
    signature(p, n);
    macro_body(p, n, end);
    return n;
}

static fa_jjnode *parse_call_block(fa_jjparser *p) {
    static const char *const end[] = {"endcall", NULL};
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_CALL_BLOCK, p->tok++);
    if (fa_jj_at_op(p, '(')) signature(p, n);
    n->a = fa_jj_parse_expr(p, true);
    if (n->a->k != FA_JJ_N_CALL) fa_jj_syntax(p, p->tok, "expected call");
    macro_body(p, n, end);
    return n;
}

static fa_jjnode *parse_filter_block(fa_jjparser *p) {
    static const char *const end[] = {"endfilter", NULL};
    bool soft = p->soft;
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_FILTER_BLOCK, p->tok++);
    p->soft = false;
    n->a = fa_jj_parse_filter(p, NULL, true);
    n->list = body_to_end(p, end);
    p->soft = soft;
    return n;
}

static fa_jjnode *parse_with(fa_jjparser *p) {
    static const char *const end[] = {"endwith", NULL};
    bool soft = p->soft;
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_WITH, p->tok++), **target = &n->args, **value = &n->kw;
    while (p->tok->t != FA_JJ_T_BLOCK_END) {
        if (n->args) fa_jj_expect_op(p, ',');
        *target = fa_jj_parse_target(p, false);
        target = &(*target)->next;
        fa_jj_expect_op(p, '=');
        *value = fa_jj_parse_expr(p, true);
        value = &(*value)->next;
    }
    p->soft = false;
    n->list = body_to_end(p, end);
    p->soft = soft;
    return n;
}

static fa_jjnode *parse_block(fa_jjparser *p) {
    static const char *const end[] = {"endblock", NULL};
    bool soft = p->soft;
    int in_loop = p->in_loop;
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_BLOCK, p->tok++);
    const fa_jjtoken *name = fa_jj_expect(p, FA_JJ_T_NAME, "name");
    n->sym = fa_jj_sym(p, name->v.u.s);
    n->flag = fa_jj_skip_name(p, "scoped");
    if (fa_jj_at_name(p, "required"))
        fa_jj_syntax(p, p->tok, "required blocks are not supported: a chat template has no child");
    if (fa_jj_at_op(p, '-'))
        fa_jj_syntax(p, p->tok,
                     "Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an "
                     "underscore instead.");
    p->soft = false;
    p->in_loop = 0;
    n->list = body_to_end(p, end);
    p->in_loop = in_loop;
    p->soft = soft;
    if (p->tok->t == FA_JJ_T_NAME && fa_jj_same(p->tok->v.u.s, name->v.u.s)) p->tok++;
    return n;
}

static fa_jjnode *parse_generation(fa_jjparser *p) {
    static const char *const end[] = {"endgeneration", NULL};
    fa_jjnode *n = fa_jj_node(p, FA_JJ_N_GENERATION, p->tok++);
    macro_body(p, n, end);
    return n;
}

static fa_jjnode *parse_control(fa_jjparser *p) {
    bool brk = fa_jj_at_name(p, "break");
    if (!p->in_loop) fa_jj_syntax(p, p->tok, brk ? "'break' outside loop" : "'continue' not properly in loop");
    return fa_jj_node(p, brk ? FA_JJ_N_BREAK : FA_JJ_N_CONTINUE, p->tok++);
}

/* {% print a, b %}: a chain of outputs */
static fa_jjnode *parse_print(fa_jjparser *p) {
    const fa_jjtoken *at = p->tok++;
    fa_jjnode *first = NULL, **last = &first;
    while (p->tok->t != FA_JJ_T_BLOCK_END) {
        if (first) fa_jj_expect_op(p, ',');
        fa_jjnode *n = fa_jj_node(p, FA_JJ_N_OUTPUT, at);
        n->a = fa_jj_parse_expr(p, true);
        *last = n;
        last = &n->next;
    }
    return first;
}

static fa_jjnode *refuse(fa_jjparser *p) {
    fa_jjstr *name = p->tok->v.u.s;
    p->m->line = p->tok->line;
    p->m->col = p->tok->col;
    fa_jj_fail(p->m, FFAI_ENOTSUP, "\"%.*s\" is not supported in chat templates: a template stands alone", (int)name->n,
               name->p);
}

static fa_jjnode *parse_statement(fa_jjparser *p) {
    static const struct {
        const char *name;
        fa_jjnode *(*parse)(fa_jjparser *p);
    } tags[] = {{"if", parse_if},           {"for", parse_for},
                {"set", parse_set},         {"macro", parse_macro},
                {"call", parse_call_block}, {"filter", parse_filter_block},
                {"with", parse_with},       {"block", parse_block},
                {"print", parse_print},     {"generation", parse_generation},
                {"break", parse_control},   {"continue", parse_control},
                {"include", refuse},        {"import", refuse},
                {"from", refuse},           {"extends", refuse},
                {"autoescape", refuse}};
    if (p->tok->t != FA_JJ_T_NAME) fa_jj_syntax(p, p->tok, "tag name expected");
    fa_jj_nest(p);
    const fa_jjtoken *at = p->tok;
    fa_jjnode *(*parse)(fa_jjparser *) = NULL;
    for (size_t i = 0; i < sizeof tags / sizeof *tags && !parse; i++)
        if (fa_jj_is(at->v.u.s, tags[i].name)) parse = tags[i].parse;
    if (!parse) unknown_tag(p, at, at->v.u.s);
    p->tag[p->n_tag++] = at->v.u.s;
    fa_jjnode *n = parse(p);
    p->n_tag--;
    p->nest--;
    return n;
}

static bool at_end(const fa_jjparser *p, const char *const *end) {
    for (size_t i = 0; end && end[i]; i++)
        if (fa_jj_at_name(p, end[i])) return true;
    return false;
}

_Noreturn static void unknown_builtin(fa_jjparser *p, const fa_jjnode *n) {
    p->m->line = n->line;
    p->m->col = n->col;
    fa_jj_fail(p->m, FFAI_EFORMAT, "No %s named '%.*s'.", n->k == FA_JJ_N_FILTER ? "filter" : "test", (int)n->v.u.s->n,
               n->v.u.s->p);
}

static fa_jjnode *subparse(fa_jjparser *p, const char *const *end) {
    fa_jjnode *first = NULL, **last = &first;
    if (end) p->end[p->n_end++] = end;
    while (p->tok->t != FA_JJ_T_EOF) {
        const fa_jjtoken *at = p->tok++;
        fa_jjnode *n = NULL;
        if (at->t == FA_JJ_T_DATA) {
            n = fa_jj_node(p, FA_JJ_N_DATA, at);
            n->v = at->v;
        } else if (at->t == FA_JJ_T_VAR_BEGIN) {
            n = fa_jj_node(p, FA_JJ_N_OUTPUT, at);
            n->a = fa_jj_parse_tuple(p, true);
            n->flag = fa_jj_is_const(n->a);
            fa_jj_expect(p, FA_JJ_T_VAR_END, "end of print statement");
        } else {
            if (at_end(p, end)) break;
            n = parse_statement(p);
            fa_jj_expect(p, FA_JJ_T_BLOCK_END, "end of statement block");
        }
        if (p->unknown) unknown_builtin(p, p->unknown);
        *last = n;
        while (*last) last = &(*last)->next;
    }
    if (end) p->n_end--;
    return first;
}

void fa_jj_parse_template(fa_jjparser *p, fa_jinja *t) {
    p->sym_of = fa_jj_dict(p->m, 64);
    t->sym_loop = fa_jj_sym(p, fa_jj_ref(p->m, "loop", 4));
    t->sym_caller = fa_jj_sym(p, fa_jj_ref(p->m, "caller", 6));
    t->sym_kwargs = fa_jj_sym(p, fa_jj_ref(p->m, "kwargs", 6));
    t->sym_varargs = fa_jj_sym(p, fa_jj_ref(p->m, "varargs", 7));
    t->body = subparse(p, NULL);
    t->sym = p->sym;
    t->n_sym = p->n_sym;
}

/* ---- the entry ---- */

/* Newlines are \n, one newline at the end is dropped, what is no UTF-8 becomes U+FFFD. */
static void normalize(fa_jj *m, fa_jinja *t, const char *src, size_t len) {
    char *out = (char *)fa_jj_alloc(m, len * 3 + 4, 1);
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        if (src[i] == '\r') {
            out[n++] = '\n';
            i += i + 1 < len && src[i + 1] == '\n' ? 2 : 1;
        } else {
            i += (size_t)fa_utf8_decode(src + i, len - i, &cp);
            n += (size_t)fa_utf8_encode(cp, out + n);
        }
    }
    if (n && out[n - 1] == '\n') n--;
    t->source = out;
    t->n_source = n;
}

enum { MAX_SOURCE = 16 << 20 };

/* What fails in here comes back to this one place. */
static int guarded(fa_jjparser *p, fa_jinja *t, const char *source, size_t len) {
    if (setjmp(p->m->jmp) != 0) return p->m->err.code;
    normalize(p->m, t, source, len);
    p->tok = fa_jj_lex(p->m, t->source, t->n_source);
    fa_jj_parse_template(p, t);
    p->m->sym_loop = t->sym_loop;
    fa_jj_track(p->m, t);
    return 0;
}

int fa_jinja_parse(fa_jinja **out, const char *source, size_t len, const char *what, fa_error *err) {
    *out = NULL;
    if (len > MAX_SOURCE) return fa_fail(err, FFAI_ELIMIT, "%s: a template of %zu bytes is too large", what, len);
    fa_jinja *t = FA_NEW(fa_jinja);
    fa_jj *m = FA_NEW(fa_jj);
    fa_jjparser *p = FA_NEW(fa_jjparser);
    int rc = 0;
    if (!t || !m || !p || !(t->what = fa_strdup(what))) {
        rc = fa_fail(err, FFAI_ENOMEM, "%s: no memory for a template", what);
    } else {
        m->mem.limit = (size_t)512 << 20;
        m->max_steps = UINT64_MAX;
        m->what = t->what;
        p->m = m;
        rc = guarded(p, t, source, len);
        if (rc && err) *err = m->err;
        t->mem = m->mem;
        fa_buf_free(&m->out);
    }
    fa_free(p);
    fa_free(m);
    if (rc)
        fa_jinja_free(t);
    else
        *out = t;
    return rc;
}

void fa_jinja_free(fa_jinja *t) {
    if (!t) return;
    fa_jj_arena_free(&t->mem);
    fa_free(t->what);
    fa_free(t);
}
