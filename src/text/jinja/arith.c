/* Operators on values: + - * / // % ** and signs, with Python's types, rounding and messages. Integers past 64 bits are
 * an error, sequences are repeated within the memory limit. */
#include "text/jinja/int.h"

#include <math.h>
#include <string.h>

static const char *op_text(int op) {
    switch (op) {
    case FA_JJ_N_ADD: return "+";
    case FA_JJ_N_SUB: return "-";
    case FA_JJ_N_MUL: return "*";
    case FA_JJ_N_DIV: return "/";
    case FA_JJ_N_FLOORDIV: return "//";
    case FA_JJ_N_MOD: return "%";
    default: return "** or pow()";
    }
}

_Noreturn static void overflow(fa_jj *m, int op) {
    fa_jj_fail(m, FFAI_ELIMIT, "integer overflow: the result of %s does not fit 64 bits", op_text(op));
}

_Noreturn static void bad_types(fa_jj *m, int op, fa_jjv a, fa_jjv b) {
    if (a.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, a);
    if (b.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, b);
    if (a.t == FA_JJ_BIG || b.t == FA_JJ_BIG) overflow(m, op);
    fa_jj_type_error(m, "unsupported operand type(s) for %s: '%s' and '%s'", op_text(op), fa_jj_type(a), fa_jj_type(b));
}

static fa_jjv join_lists(fa_jj *m, const fa_jjlist *a, const fa_jjlist *b) {
    fa_jjlist *l = fa_jj_list(m, a->n + b->n);
    fa_jj_step(m, (a->n + b->n) / 8);
    if (a->n) memcpy(l->v, a->v, a->n * sizeof *l->v);
    if (b->n) memcpy(l->v + a->n, b->v, b->n * sizeof *l->v);
    l->n = a->n + b->n;
    return fa_jj_listv(l);
}

/* str + str; Markup escapes what it meets */
static fa_jjv add_str(fa_jj *m, fa_jjstr *a, fa_jjstr *b) {
    if (!a->markup && !b->markup) return fa_jj_concat(m, a, b);
    if (!a->markup) a = fa_jj_escape(m, fa_jj_strv(a));
    if (!b->markup) b = fa_jj_escape(m, fa_jj_strv(b));
    return fa_jj_strv(fa_jj_mark(m, fa_jj_concat(m, a, b).u.s));
}

fa_jjv fa_jj_add(fa_jj *m, fa_jjv a, fa_jjv b) {
    int64_t r;
    if (a.t == FA_JJ_STR && b.t == FA_JJ_STR) return add_str(m, a.u.s, b.u.s);
    if (fa_jj_is_int(a) && fa_jj_is_int(b)) {
        if (__builtin_add_overflow(fa_jj_as_int(a), fa_jj_as_int(b), &r)) overflow(m, FA_JJ_N_ADD);
        return fa_jj_int(r);
    }
    if (fa_jj_is_num(a) && fa_jj_is_num(b)) return fa_jj_float(fa_jj_as_num(a) + fa_jj_as_num(b));
    if (a.t == FA_JJ_LIST && b.t == FA_JJ_LIST) return join_lists(m, a.u.l, b.u.l);
    if (a.t == FA_JJ_TUPLE && b.t == FA_JJ_TUPLE) {
        fa_jjv v = join_lists(m, a.u.l, b.u.l);
        v.t = FA_JJ_TUPLE;
        return v;
    }
    if (a.t == FA_JJ_UNDEF || b.t == FA_JJ_UNDEF) bad_types(m, FA_JJ_N_ADD, a, b);
    if (a.t == FA_JJ_STR || a.t == FA_JJ_LIST || a.t == FA_JJ_TUPLE) {
        const char *t = a.t == FA_JJ_STR ? "str" : fa_jj_type(a);
        fa_jj_type_error(m, "can only concatenate %s (not \"%s\") to %s", t, fa_jj_type(b), t);
    }
    bad_types(m, FA_JJ_N_ADD, a, b);
}

static fa_jjv repeat(fa_jj *m, fa_jjv seq, fa_jjv times) {
    if (!fa_jj_is_int(times)) fa_jj_type_error(m, "can't multiply sequence by non-int of type '%s'", fa_jj_type(times));
    int64_t k = fa_jj_as_int(times);
    size_t n = k < 0 ? 0 : (size_t)k, one = seq.t == FA_JJ_STR ? seq.u.s->n : seq.u.l->n;
    if (!one) n = 0;
    if (n && one > UINT32_MAX / n)
        fa_jj_fail(m, FFAI_ELIMIT, "a sequence repeated %lld times is too large", (long long)k);
    fa_jj_step(m, n * one / 16 + n / 4);
    if (seq.t == FA_JJ_STR) {
        char *p = (char *)fa_jj_alloc(m, n * one + 1, 1);
        for (size_t i = 0; i < n; i++) memcpy(p + i * one, seq.u.s->p, one);
        fa_jjstr *s = fa_jj_ref(m, p, n * one);
        return fa_jj_strv(seq.u.s->markup ? fa_jj_mark(m, s) : s);
    }
    fa_jjlist *l = fa_jj_list(m, n * one);
    for (size_t i = 0; i < n; i++) memcpy(l->v + i * one, seq.u.l->v, one * sizeof *l->v);
    l->n = n * one;
    return seq.t == FA_JJ_LIST ? fa_jj_listv(l) : fa_jj_tuplev(l);
}

static bool is_seq(fa_jjv v) { return v.t == FA_JJ_STR || v.t == FA_JJ_LIST || v.t == FA_JJ_TUPLE; }

/* Python's % of floats has the sign of the divisor. */
static double float_mod(double a, double b) {
    double r = fmod(a, b);
    if (r != 0 && (r < 0) != (b < 0)) r += b;
    return r == 0 ? copysign(0, b) : r;
}

static double float_floordiv(double a, double b) {
    double mod = fmod(a, b), div = (a - mod) / b;
    if (mod != 0 && (b < 0) != (mod < 0)) div -= 1;
    if (div == 0) return copysign(0, a / b);
    double f = floor(div);
    return div - f > 0.5 ? f + 1 : f;
}

static int64_t int_floordiv(fa_jj *m, int64_t a, int64_t b) {
    if (a == INT64_MIN && b == -1) overflow(m, FA_JJ_N_FLOORDIV);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t int_mod(int64_t a, int64_t b) {
    if (b == -1) return 0;
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

static fa_jjv int_pow(fa_jj *m, int64_t a, int64_t b) {
    int64_t r = 1;
    if (b < 0) {
        if (a == 0) fa_jj_fail(m, FFAI_EINVAL, "0.0 cannot be raised to a negative power");
        return fa_jj_float(pow((double)a, (double)b));
    }
    if (a == 0 || a == 1) return fa_jj_int(b ? a : 1);
    if (a == -1) return fa_jj_int(b & 1 ? -1 : 1);
    if (b > 64) overflow(m, FA_JJ_N_POW);
    while (b-- > 0)
        if (__builtin_mul_overflow(r, a, &r)) overflow(m, FA_JJ_N_POW);
    return fa_jj_int(r);
}

static fa_jjv float_op(fa_jj *m, int op, double a, double b) {
    double r;
    if (b == 0 && (op == FA_JJ_N_DIV || op == FA_JJ_N_FLOORDIV || op == FA_JJ_N_MOD))
        fa_jj_fail(m, FFAI_EINVAL,
                   op == FA_JJ_N_DIV        ? "float division by zero"
                   : op == FA_JJ_N_FLOORDIV ? "float floor division by zero"
                                            : "float modulo");
    switch (op) {
    case FA_JJ_N_SUB: return fa_jj_float(a - b);
    case FA_JJ_N_MUL: return fa_jj_float(a * b);
    case FA_JJ_N_DIV: return fa_jj_float(a / b);
    case FA_JJ_N_FLOORDIV: return fa_jj_float(float_floordiv(a, b));
    case FA_JJ_N_MOD: return fa_jj_float(float_mod(a, b));
    default: break;
    }
    if (a == 0 && b < 0) fa_jj_fail(m, FFAI_EINVAL, "0.0 cannot be raised to a negative power");
    r = pow(a, b);
    if (isnan(r) && !isnan(a) && !isnan(b)) fa_jj_fail(m, FFAI_ENOTSUP, "a power with a complex result");
    if (isinf(r) && !isinf(a) && !isinf(b)) fa_jj_fail(m, FFAI_EINVAL, "(34, 'Numerical result out of range')");
    return fa_jj_float(r);
}

static fa_jjv int_op(fa_jj *m, int op, int64_t a, int64_t b) {
    int64_t r;
    bool bad = false;
    if (b == 0 && (op == FA_JJ_N_DIV || op == FA_JJ_N_FLOORDIV || op == FA_JJ_N_MOD))
        fa_jj_fail(m, FFAI_EINVAL,
                   op == FA_JJ_N_DIV        ? "division by zero"
                   : op == FA_JJ_N_FLOORDIV ? "integer division or modulo by zero"
                                            : "integer modulo by zero");
    switch (op) {
    case FA_JJ_N_SUB: bad = __builtin_sub_overflow(a, b, &r); break;
    case FA_JJ_N_MUL: bad = __builtin_mul_overflow(a, b, &r); break;
    case FA_JJ_N_DIV: return fa_jj_float((double)a / (double)b);
    case FA_JJ_N_FLOORDIV: r = int_floordiv(m, a, b); break;
    case FA_JJ_N_MOD: r = int_mod(a, b); break;
    default: return int_pow(m, a, b);
    }
    if (bad) overflow(m, op);
    return fa_jj_int(r);
}

fa_jjv fa_jj_binary(fa_jj *m, int op, fa_jjv a, fa_jjv b) {
    if (op == FA_JJ_N_ADD) return fa_jj_add(m, a, b);
    if (a.t == FA_JJ_STR && op == FA_JJ_N_MOD && b.t != FA_JJ_UNDEF) return fa_jj_percent(m, a.u.s, b);
    if (fa_jj_is_int(a) && fa_jj_is_int(b)) return int_op(m, op, fa_jj_as_int(a), fa_jj_as_int(b));
    if (fa_jj_is_num(a) && fa_jj_is_num(b)) return float_op(m, op, fa_jj_as_num(a), fa_jj_as_num(b));
    if (op == FA_JJ_N_MUL && a.t != FA_JJ_UNDEF && b.t != FA_JJ_UNDEF) {
        if (is_seq(a)) return repeat(m, a, b);
        if (is_seq(b)) return repeat(m, b, a);
    }
    if (a.t == FA_JJ_STR && op == FA_JJ_N_MOD) return fa_jj_percent(m, a.u.s, b);
    bad_types(m, op, a, b);
}

fa_jjv fa_jj_negate(fa_jj *m, fa_jjv v, bool plus) {
    if (v.t == FA_JJ_UNDEF) fa_jj_undef_fail(m, v);
    if (v.t == FA_JJ_FLOAT) return fa_jj_float(plus ? v.u.f : -v.u.f);
    if (!fa_jj_is_int(v)) {
        if (v.t == FA_JJ_BIG) overflow(m, FA_JJ_N_SUB);
        fa_jj_type_error(m, "bad operand type for unary %s: '%s'", plus ? "+" : "-", fa_jj_type(v));
    }
    int64_t i = fa_jj_as_int(v);
    if (!plus && i == INT64_MIN) overflow(m, FA_JJ_N_SUB);
    return fa_jj_int(plus ? i : -i);
}
