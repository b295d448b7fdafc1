/* Tests: what stands behind `is`. */
#include "text/jinja/int.h"

#include <string.h>

#define TEST(name, expr)                                                                                               \
    static fa_jjv name(fa_jj *m, fa_jjv v, const fa_jjargs *a) {                                                       \
        (void)m, (void)v, (void)a;                                                                                     \
        return fa_jj_bool(expr);                                                                                       \
    }

static bool mod_is(fa_jj *m, fa_jjv v, fa_jjv by, int64_t rest) {
    return fa_jj_eq(m, fa_jj_binary(m, FA_JJ_N_MOD, v, by), fa_jj_int(rest));
}

static bool has_case(fa_jj *m, fa_jjv v, const char *method) {
    fa_jjstr s = {.p = method, .n = (uint32_t)strlen(method)};
    fa_jjargs none = {0};
    return fa_jj_str_method(&s)->fn(m, fa_jj_strv(fa_jj_str(m, v)), &none).u.b;
}

static bool is_callable(fa_jjv v) {
    return v.t == FA_JJ_UNDEF || v.t == FA_JJ_FUNC || v.t == FA_JJ_METHOD || v.t == FA_JJ_MACRO || v.t == FA_JJ_LOOP ||
           v.t == FA_JJ_JOINER;
}

static bool is_sequence(fa_jjv v) {
    return v.t == FA_JJ_STR || v.t == FA_JJ_LIST || v.t == FA_JJ_TUPLE || v.t == FA_JJ_DICT || v.t == FA_JJ_RANGE ||
           v.t == FA_JJ_UNDEF;
}

/* `is` of Python: small integers and the empty string are one object each */
static bool same(fa_jjv x, fa_jjv y) {
    if (x.t != y.t) return false;
    if (x.t == FA_JJ_NONE) return true;
    if (x.t == FA_JJ_BOOL) return x.u.b == y.u.b;
    if (x.t == FA_JJ_INT) return x.u.i == y.u.i && x.u.i >= -5 && x.u.i <= 256;
    if (x.t == FA_JJ_FLOAT) return false;
    return x.u.s == y.u.s || (x.t == FA_JJ_STR && fa_jj_same(x.u.s, y.u.s) && x.u.s->n <= 1);
}

static bool known(fa_jj *m, fa_jjv v, bool filter) {
    if (v.t != FA_JJ_STR) {
        fa_jj_hash(m, v); /* unhashable types fail */
        return false;
    }
    return (filter ? fa_jj_filter(v.u.s->p, v.u.s->n) : fa_jj_test(v.u.s->p, v.u.s->n)) != NULL;
}

static bool order(fa_jj *m, fa_jjv v, fa_jjv w, const char *op) {
    int c = fa_jj_cmp(m, v, w, op);
    if (op[1]) return c == 0 || c == (*op == '<' ? -1 : 1);
    return c == (*op == '<' ? -1 : 1);
}

TEST(t_defined, v.t != FA_JJ_UNDEF)
TEST(t_undefined, v.t == FA_JJ_UNDEF)
TEST(t_none, v.t == FA_JJ_NONE)
TEST(t_boolean, v.t == FA_JJ_BOOL)
TEST(t_true, v.t == FA_JJ_BOOL && v.u.b)
TEST(t_false, v.t == FA_JJ_BOOL && !v.u.b)
TEST(t_integer, v.t == FA_JJ_INT || v.t == FA_JJ_BIG)
TEST(t_float, v.t == FA_JJ_FLOAT)
TEST(t_number, fa_jj_is_num(v) || v.t == FA_JJ_BIG)
TEST(t_string, v.t == FA_JJ_STR)
TEST(t_mapping, v.t == FA_JJ_DICT)
TEST(t_sequence, is_sequence(v))
TEST(t_iterable, fa_jj_iterable(v))
TEST(t_callable, is_callable(v))
TEST(t_escaped, v.t == FA_JJ_STR && v.u.s->markup)
TEST(t_odd, mod_is(m, v, fa_jj_int(2), 1))
TEST(t_even, mod_is(m, v, fa_jj_int(2), 0))
TEST(t_divisibleby, mod_is(m, v, a->v[0], 0))
TEST(t_lower, has_case(m, v, "islower"))
TEST(t_upper, has_case(m, v, "isupper"))
TEST(t_sameas, same(v, a->v[0]))
TEST(t_filter, known(m, v, true))
TEST(t_test, known(m, v, false))
TEST(t_in, fa_jj_in(m, v, a->v[0]))
TEST(t_eq, fa_jj_eq(m, v, a->v[0]))
TEST(t_ne, !fa_jj_eq(m, v, a->v[0]))
TEST(t_lt, order(m, v, a->v[0], "<"))
TEST(t_le, order(m, v, a->v[0], "<="))
TEST(t_gt, order(m, v, a->v[0], ">"))
TEST(t_ge, order(m, v, a->v[0], ">="))

static const fa_jjfunc tests[] = {{"defined", t_defined, "", "test_defined", false},
                                  {"undefined", t_undefined, "", "test_undefined", false},
                                  {"none", t_none, "", "test_none", false},
                                  {"boolean", t_boolean, "", "test_boolean", false},
                                  {"true", t_true, "", "test_true", false},
                                  {"false", t_false, "", "test_false", false},
                                  {"integer", t_integer, "", "test_integer", false},
                                  {"float", t_float, "", "test_float", false},
                                  {"number", t_number, "", "test_number", false},
                                  {"string", t_string, "", "test_string", false},
                                  {"mapping", t_mapping, "", "test_mapping", false},
                                  {"sequence", t_sequence, "", "test_sequence", false},
                                  {"iterable", t_iterable, "", "test_iterable", false},
                                  {"callable", t_callable, "", "callable", false},
                                  {"escaped", t_escaped, "", "test_escaped", false},
                                  {"odd", t_odd, "", "test_odd", false},
                                  {"even", t_even, "", "test_even", false},
                                  {"divisibleby", t_divisibleby, "num", "test_divisibleby", false},
                                  {"lower", t_lower, "", "test_lower", false},
                                  {"upper", t_upper, "", "test_upper", false},
                                  {"sameas", t_sameas, "other", "test_sameas", false},
                                  {"filter", t_filter, "", "test_filter", false},
                                  {"test", t_test, "", "test_test", false},
                                  {"in", t_in, "seq", "test_in", false},
                                  {"==", t_eq, "other", "eq", false},
                                  {"eq", t_eq, "other", "eq", false},
                                  {"equalto", t_eq, "other", "eq", false},
                                  {"!=", t_ne, "other", "ne", false},
                                  {"ne", t_ne, "other", "ne", false},
                                  {"<", t_lt, "other", "lt", false},
                                  {"lt", t_lt, "other", "lt", false},
                                  {"lessthan", t_lt, "other", "lt", false},
                                  {"<=", t_le, "other", "le", false},
                                  {"le", t_le, "other", "le", false},
                                  {">", t_gt, "other", "gt", false},
                                  {"gt", t_gt, "other", "gt", false},
                                  {"greaterthan", t_gt, "other", "gt", false},
                                  {">=", t_ge, "other", "ge", false},
                                  {"ge", t_ge, "other", "ge", false}};

const fa_jjfunc *fa_jj_test(const char *name, size_t n) {
    fa_jjstr s = {.p = name, .n = (uint32_t)n};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (fa_jj_is(&s, tests[i].name)) return &tests[i];
    return NULL;
}
