/* That no kernel goes untested: every slot of the table has a test that calls it at every level of the machine, and a
 * level that fills a slot in its own way is seen here. Prints which slots each level has of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/kern.h"
#include "kern/amx_emulated.h"

typedef struct slot {
    const char *name;
    size_t at, size;
    const char *test, *levels; /* the test's file and what it takes its levels from; NULL: no kernel */
} slot;

#define SLOT(field, test, levels)                                                                                      \
    { #field, offsetof(fa_kernels, field), sizeof((fa_kernels *)NULL)->field, test, levels }
#define LINEAR(field) SLOT(field, "test_linear.c", "fa_kernels_level")
#define VEC(field)    SLOT(field, "test_vec.c", "vec_level")
#define SCAN(field)   SLOT(field, "test_scan_rows.c", "vec_level")
#define ATTEND(field) SLOT(field, "test_attend.c", "vec_level")
#define DATA(field)   SLOT(field, NULL, NULL)

static const slot slots[] = {DATA(isa),
                             SLOT(unpack, "test_unpack.c", "unpack_level"),
                             LINEAR(quant_act),
                             LINEAR(linear_q8),
                             LINEAR(turn_of),
                             LINEAR(turn_act),
                             LINEAR(linear_f32),
                             LINEAR(linear_bf16),
                             LINEAR(linear_scratch),
                             DATA(row_tile),
                             VEC(rms_norm),
                             VEC(rope),
                             VEC(silu_mul),
                             VEC(gelu_tanh_mul),
                             VEC(gelu_erf_mul),
                             VEC(relu_mul),
                             VEC(add),
                             VEC(convert),
                             VEC(exp_sum),
                             VEC(exp_mean),
                             VEC(moments),
                             VEC(range),
                             VEC(block_max),
                             VEC(masses),
                             VEC(between),
                             SCAN(conv),
                             SCAN(ssm1),
                             SCAN(softplus),
                             SCAN(product),
                             SCAN(gram),
                             SCAN(ssd_row),
                             SCAN(delta_row),
                             ATTEND(attend),
                             ATTEND(attend_scratch),
                             DATA(attend_q_tile),
                             ATTEND(attend_combine)};
enum { N_SLOT = sizeof slots / sizeof slots[0], WORD = sizeof(void (*)(void)) };

static bool covers(const slot *s, size_t at) {
    return at / WORD >= s->at / WORD && at / WORD <= (s->at + s->size - 1) / WORD;
}

static void test_table_is_whole(void **state) {
    (void)state;
    for (size_t at = 0; at < sizeof(fa_kernels); at += WORD) {
        bool known = false;
        for (size_t i = 0; i < N_SLOT; i++) known |= covers(&slots[i], at);
        if (!known)
            fail_msg("fa_kernels has a slot at byte %d that this table lacks: write its test, then its line here",
                     (int)at);
    }
}

static char *text_of(const char *file) {
    char path[512];
    snprintf(path, sizeof path, "%s/tests/kern/%s", FFAI_SOURCE_DIR, file);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot read %s", path);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) < (1 << 20) - 1);
    fclose(f);
    return text;
}

static bool is_word(char c) {
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* A table's member of that name: k.name, k->name */
static bool uses(const char *text, const char *name) {
    const size_t n = strlen(name);
    for (const char *p = text; (p = strstr(p, name)); p += n)
        if (p > text && (p[-1] == '.' || p[-1] == '>') && !is_word(p[n])) return true;
    return false;
}

static void test_every_slot_is_called(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SLOT; i++) {
        if (!slots[i].test) continue;
        char *text = text_of(slots[i].test);
        if (!uses(text, slots[i].name)) fail_msg("%s does not call %s", slots[i].test, slots[i].name);
        if (!strstr(text, slots[i].levels)) fail_msg("%s does not go through %s", slots[i].test, slots[i].levels);
        free(text);
    }
}

/* Slots in which k differs from the level below, by name. */
static void print_own(const fa_kernels *k, const fa_kernels *below) {
    print_message("%-16s", k->isa);
    for (size_t i = 0; i < N_SLOT; i++) {
        const char *a = (const char *)k + slots[i].at, *b = (const char *)below + slots[i].at;
        if (!slots[i].test || !memcmp(a, b, slots[i].size)) continue;
        int own = 0;
        for (size_t f = 0; f < slots[i].size; f += WORD) own += memcmp(a + f, b + f, WORD) != 0;
        print_message(slots[i].size > WORD ? " %s(%d)" : " %s", slots[i].name, own);
    }
    print_message("\n");
}

/* A level may leave slots alone but must not empty one of plain C's, and those that it fills are in the table. */
static void check_level(const fa_kernels *k, const fa_kernels *below) {
    fa_kernels c;
    assert_int_equal(fa_kernels_init(&c, "c", NULL), 0);
    for (size_t at = 0; at + WORD <= sizeof *k; at += WORD) {
        if (!memcmp((const char *)k + at, (const char *)below + at, WORD)) continue;
        const slot *s = NULL;
        for (size_t i = 0; i < N_SLOT; i++)
            if (covers(&slots[i], at)) s = &slots[i];
        if (!s) fail_msg("%s fills a slot at byte %d that no test covers", k->isa, (int)at);
        static const char none[WORD];
        if (!memcmp((const char *)k + at, none, WORD) && memcmp((const char *)&c + at, none, WORD))
            fail_msg("%s empties %s", k->isa, s->name);
    }
    assert_true(k->row_tile > 0 && k->attend_q_tile > 0);
    print_own(k, below);
}

static void test_levels(void **state) {
    (void)state;
    fa_kernels k, below = {0};
    assert_string_equal(fa_kernels_level(0), "c");
    for (size_t i = 0; fa_kernels_level(i); i++) {
        if (fa_kernels_init(&k, fa_kernels_level(i), NULL)) {
            print_message("%-16s (not on this machine)\n", fa_kernels_level(i));
            continue;
        }
        assert_string_equal(k.isa, fa_kernels_level(i));
        check_level(&k, &below);
        below = k;
        if (i) continue;
        for (size_t s = 0; s < N_SLOT; s++) { /* plain C fills them all but those that may be NULL */
            static const char none[WORD];
            const bool empty = !memcmp((const char *)&k + slots[s].at, none, WORD);
            if (slots[s].test && empty && strcmp(slots[s].name, "linear_bf16") && strcmp(slots[s].name, "unpack") &&
                strncmp(slots[s].name, "turn_", 5))
                fail_msg("plain C lacks %s", slots[s].name);
        }
    }
    if (amx_emulated_init(&k)) check_level(&k, &below);
}

/* Naming no level is naming the highest that is taken by itself. */
static void test_default(void **state) {
    (void)state;
    fa_kernels all, named;
    assert_int_equal(fa_kernels_init(&all, NULL, NULL), 0);
    assert_int_equal(fa_kernels_init(&named, all.isa, NULL), 0);
    assert_memory_equal(&all, &named, sizeof all);
    assert_int_equal(fa_kernels_init(&all, "sse9", NULL), FFAI_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table_is_whole),
                                       cmocka_unit_test(test_every_slot_is_called), cmocka_unit_test(test_levels),
                                       cmocka_unit_test(test_default)};
    return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
