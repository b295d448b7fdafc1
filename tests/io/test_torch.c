/* Files of torch.save: those that torch wrote (tests/fuzz/corpus/torch), archives that lie, and pickles that want to do
 * something else. */
#define _GNU_SOURCE
#include "io/util.h"

#include "base/map.h"
#include "io/torch.h"
#include "tensor/dtype.h"

/* ---- what torch wrote ---- */

static fa_pt *open_seed(const char *name) {
    char path[512];
    fa_pt *p;
    fa_error err = {0};
    snprintf(path, sizeof path, "%s/tests/fuzz/corpus/torch/%s", FFAI_SOURCE_DIR, name);
    assert_ok(fa_pt_open(&p, path, &err), &err);
    return p;
}

/* Value k of t, whatever the type. */
static double value(const fa_st_tensor *t, int64_t k) {
    int64_t v = 0;
    float f;
    double d;
    const size_t size = fa_dtype_size((fa_dtype)t->dtype);
    const uint8_t *at = t->data + (size_t)k * size;
    switch (t->dtype) {
    case FA_I8: return (int8_t)*at;
    case FA_I16:
    case FA_I32:
    case FA_I64:
    case FA_U8:
    case FA_U16:
    case FA_U32: memcpy(&v, at, size); return (double)v;
    case FA_F64: memcpy(&d, at, 8); return d;
    default: fa_to_f32((fa_dtype)t->dtype, at, 1, &f); return f;
    }
}

/* The tensor holds from, from + 1, ... */
static void counts(const fa_st_tensor *t, int from, int n) {
    assert_non_null(t);
    assert_int_equal(t->bytes, (size_t)n * fa_dtype_size((fa_dtype)t->dtype));
    for (int i = 0; i < n; i++) {
        if (value(t, i) != from + i) print_error("%s: value %d is %g\n", t->name, i, value(t, i));
        assert_true(value(t, i) == from + i);
    }
}

static void a_and_b(void **state) {
    (void)state;
    static const char *const names[] = {"plain", "parameters", "protocol4", "before_1_6"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fa_pt *p = open_seed(names[i]);
        assert_int_equal(fa_pt_count(p), 2);
        const fa_st_tensor *a = fa_pt_find(p, "a"), *b = fa_pt_find(p, "b");
        assert_ptr_equal(a, fa_pt_at(p, 0));
        assert_null(fa_pt_find(p, "c"));
        assert_string_equal(a->type_name, "F32");
        assert_int_equal(a->n_dim, 2);
        assert_int_equal(a->dim[0], 2);
        assert_int_equal(a->dim[1], 3);
        assert_false(a->copied);
        counts(a, 0, 6);
        assert_string_equal(b->type_name, "F16");
        counts(b, 1, 4);
        fa_pt_free(p);
    }
}

static void kinds(void **state) {
    (void)state;
    static const char *const types[] = {"F32", "F16", "BF16", "F64", "I8",      "U8",     "I16",
                                        "I32", "I64", "U16",  "U32", "F8_E4M3", "F8_E5M2"};
    fa_pt *p = open_seed("types");
    assert_int_equal(fa_pt_count(p), 13);
    for (int i = 0; i < 13; i++) {
        const fa_st_tensor *t = fa_pt_at(p, (size_t)i);
        assert_string_equal(t->type_name, types[i]);
        if (i < 12) counts(t, i, 3); /* 13 is no value of E5M2 */
    }
    fa_pt_free(p);
    p = open_seed("module");
    counts(fa_pt_find(p, "weight"), 0, 6);
    counts(fa_pt_find(p, "bias"), 1, 3);
    fa_pt_free(p);
    p = open_seed("transposed");
    counts(fa_pt_find(p, "a"), 0, 6);
    counts(fa_pt_find(p, "b"), 1, 8);
    assert_true(fa_pt_find(p, "a")->copied && fa_pt_find(p, "b")->copied);
    fa_pt_free(p);
    p = open_seed("views");
    counts(fa_pt_find(p, "a"), 0, 3);
    counts(fa_pt_find(p, "b"), 1, 4);
    counts(fa_pt_find(p, "c"), 2, 1);
    assert_int_equal(fa_pt_find(p, "c")->n_dim, 0);
    assert_int_equal(fa_pt_find(p, "d")->bytes, 0);
    fa_pt_free(p);
    p = open_seed("before_1_6_views");
    counts(fa_pt_find(p, "b"), 1, 4);
    fa_pt_free(p);
    p = open_seed("tied");
    assert_int_equal(fa_pt_count(p), 2);
    assert_ptr_equal(fa_pt_find(p, "a")->data, fa_pt_find(p, "c")->data);
    fa_pt_free(p);
}

static void no_dicts(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"list", "a list"}, {"nested", "\"model\" is a dict"}, {"storage", "holds a call, not a dict"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        fa_pt *p;
        fa_error err = {0};
        snprintf(path, sizeof path, "%s/tests/fuzz/corpus/torch/%s", FFAI_SOURCE_DIR, cases[i][0]);
        assert_failed(fa_pt_open(&p, path, &err), &err, FFAI_EFORMAT, cases[i][1]);
    }
}

/* ---- archives of our own ---- */

typedef struct archive {
    fa_buf out, directory;
    int n;
} archive;

typedef struct lie {
    uint32_t method, flags, packed, local_method; /* what an entry says */
    int64_t shift;                                /* of its offset */
    bool one_off;                                 /* the header's name is another */
} lie;

static void add(archive *a, const char *name, const void *data, size_t n, const lie *l) {
    static const lie honest = {0};
    const size_t at = a->out.len, len = strlen(name);
    if (!l) l = &honest;
    put_le(&a->out, 0x04034b50, 4);
    put_le(&a->out, 0, 4);
    put_le(&a->out, l->local_method, 2);
    put_le(&a->out, 0, 16);
    put_le(&a->out, len, 2);
    put_le(&a->out, 0, 2);
    fa_buf_add(&a->out, name, len - l->one_off);
    if (l->one_off) fa_buf_puts(&a->out, "!");
    fa_buf_add(&a->out, data, n);
    put_le(&a->directory, 0x02014b50, 4);
    put_le(&a->directory, 0, 4);
    put_le(&a->directory, l->flags, 2);
    put_le(&a->directory, l->method, 2);
    put_le(&a->directory, 0, 8);
    put_le(&a->directory, n + l->packed, 4);
    put_le(&a->directory, n, 4);
    put_le(&a->directory, len, 2);
    put_le(&a->directory, 0, 12);
    put_le(&a->directory, (uint64_t)((int64_t)at + l->shift), 4);
    fa_buf_add(&a->directory, name, len);
    a->n++;
}

/* The whole of it; n: entries that the end says to have. */
static fa_buf finish(archive *a, int n) {
    const size_t at = a->out.len, bytes = a->directory.len;
    fa_buf b = a->out;
    fa_buf_add(&b, a->directory.data, bytes);
    put_le(&b, 0x06054b50, 4);
    put_le(&b, 0, 4);
    put_le(&b, (uint64_t)n, 2);
    put_le(&b, (uint64_t)n, 2);
    put_le(&b, bytes, 4);
    put_le(&b, at, 4);
    put_le(&b, 0, 2);
    fa_buf_free(&a->directory);
    *a = (archive){0};
    return b;
}

/* Parses from a block of exactly the right size, so that the sanitizer sees reads past the end. */
static int parse(fa_pt **p, const void *data, size_t n, fa_error *err) {
    static uint8_t *block; /* outlives the handle; one at a time */
    free(block);
    block = (uint8_t *)malloc(n ? n : 1);
    if (n) memcpy(block, data, n);
    return fa_pt_parse(p, block, n, "m.bin", err);
}

static void refuse_file(fa_buf *b, int code, const char *words) {
    fa_pt *p;
    fa_error err = {0};
    int rc = parse(&p, b->data, b->len, &err);
    assert_failed(rc, &err, code, "m.bin");
    assert_failed(rc, &err, code, words);
    assert_null(p);
    fa_buf_free(b);
}

static const char floats[24] = {0};

/* An archive with this pickle and a storage "0" of 24 bytes. */
static fa_buf with_pickle(const char *text, size_t n) {
    archive a = {0};
    add(&a, "x/data.pkl", text, n, NULL);
    add(&a, "x/data/0", floats, sizeof floats, NULL);
    return finish(&a, 2);
}

static void refuse(const char *text, size_t n, int code, const char *words) {
    fa_buf b = with_pickle(text, n);
    refuse_file(&b, code, words);
}
#define REFUSE(text, code, words) refuse(text, sizeof(text) - 1, code, words)

/* Pieces of pickles. */
#define STORED "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\6tQ"
#define V2     "}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n("
#define HOOKS  "\x89}"

static void good_pickle(const char *text, size_t n, int count) {
    fa_pt *p;
    fa_error err = {0};
    fa_buf b = with_pickle(text, n);
    assert_ok(parse(&p, b.data, b.len, &err), &err);
    assert_int_equal(fa_pt_count(p), count);
    fa_pt_free(p);
    fa_buf_free(&b);
}
#define GOOD(text, count) good_pickle(text, sizeof(text) - 1, count)

static void programs(void **state) {
    (void)state;
    GOOD("\x80\2}.", 0);
    GOOD("\x80\2" V2 STORED "K\0K\2K\3\x86K\3K\1\x86" HOOKS "tRs.", 1);
    REFUSE("\x80\2cos\nsystem\nX\4\0\0\0true\x85R.", FFAI_ENOTSUP, "\"os.system\"|nothing of it is run");
    REFUSE("\x80\4\x8c\2os\x8c\6system\x93.", FFAI_ENOTSUP, "\"os.system\"");
    REFUSE("\x80\2ctorch.storage\n_load_from_bytes\n.", FFAI_ENOTSUP, "_load_from_bytes");
    REFUSE("\x80\2cx\n\n.", FFAI_ENOTSUP, "\"x.\"");
    REFUSE("\x80\2ccollections\nOrderedDict\n}R.", FFAI_EFORMAT, "not with a tuple");
    REFUSE("\x80\2ccollections\nOrderedDict\nN\x85R.", FFAI_EFORMAT, "OrderedDict with arguments");
    REFUSE("\x80\2}\x81.", FFAI_ENOTSUP, "opcode 0x81");  /* NEWOBJ */
    REFUSE("\x80\2i", FFAI_ENOTSUP, "opcode 0x69 ('i')"); /* INST */
    REFUSE("\x80\2\x82\1.", FFAI_ENOTSUP, "opcode 0x82"); /* EXT1 */
    REFUSE("\x80\6}.", FFAI_EFORMAT, "protocol");
    REFUSE("\x80\2]N.", FFAI_EFORMAT, "left on its stack");
    REFUSE("\x80\2}..", FFAI_EFORMAT, "after its end");
    REFUSE("\x80\2Nb.", FFAI_EFORMAT, "without its operands");
    REFUSE("\x80\2NNb.", FFAI_EFORMAT, "no dict");
    REFUSE("\x80\2].", FFAI_EFORMAT, "a list");
}

static void stacks(void **state) {
    (void)state;
    static const char *const without[] = {".", "s", "u", "a",   "e",    "t",    "R",
                                          "b", "Q", "0", "q\1", "\x85", "\x93", "\x94"};
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        refuse(without[i], strlen(without[i]), FFAI_EFORMAT, "pickle, byte");
        char marked[8];
        snprintf(marked, sizeof marked, "(%s.", without[i]);
        if (*without[i] != 't') refuse(marked, strlen(marked), FFAI_EFORMAT, "pickle, byte");
    }
    REFUSE("", FFAI_EFORMAT, "truncated");
    REFUSE("X\377\377\377\377abc.", FFAI_EFORMAT, "truncated");
    REFUSE("\x8c\x10", FFAI_EFORMAT, "truncated");
    REFUSE("cos\nsystem", FFAI_EFORMAT, "truncated");
    REFUSE("J\1\2", FFAI_EFORMAT, "truncated");
    REFUSE("\x8a\x09\1\1\1\1\1\1\1\1\1.", FFAI_EFORMAT, "64 bits");
    REFUSE("h\1.", FFAI_EFORMAT, "was not put");
    REFUSE("Nr\377\377\377\377.", FFAI_EFORMAT, "memo number");
    REFUSE("]K\1K\2s.", FFAI_EFORMAT, "no dict");
    REFUSE("](K\1u.", FFAI_EFORMAT, "no dict");
    REFUSE("}(K\1K\2K\3u.", FFAI_EFORMAT, "no dict");
    REFUSE("}K\1a.", FFAI_EFORMAT, "no list");
    REFUSE("K\1K\2\x93.", FFAI_EFORMAT, "no string");
    /* a dict that holds itself, a hundred thousand tuples in tuples: nothing walks into them */
    REFUSE("}q\1X\1\0\0\0ah\1s.", FFAI_EFORMAT, "\"a\" is a dict");
    fa_buf b = {0};
    fa_buf_puts(&b, "}X\3");
    put_le(&b, 0, 3);
    fa_buf_puts(&b, "abcN");
    for (int i = 0; i < 100000; i++) fa_buf_puts(&b, "\x85");
    fa_buf_puts(&b, "s.");
    refuse(b.data, b.len, FFAI_EFORMAT, "\"abc\" is a tuple");
    fa_buf_free(&b);
}

static void tensors(void **state) {
    (void)state;
    REFUSE(V2 STORED "K\0K\2K\3\x86K\3K\1\x86\x89tRs.", FFAI_EFORMAT, "tensor a|not made as torch");
    REFUSE(V2 "NK\0K\2K\3\x86K\3K\1\x86" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|not made as torch");
    REFUSE(V2 STORED "K\1K\2K\3\x86K\3K\1\x86" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|beyond its storage");
    REFUSE(V2 STORED "K\0K\2K\3\x86K\4K\1\x86" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|beyond its storage");
    REFUSE(V2 STORED "K\0K\x63K\3\x86K\0K\1\x86" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|repeats values");
    REFUSE(V2 STORED "K\0K\2\x85K\3K\1\x86" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|two tuples");
    REFUSE(V2 STORED "K\0J\377\377\377\377\x85K\1\x85" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|two tuples");
    REFUSE(V2 STORED "NK\1\x85K\1\x85" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|offset");
    REFUSE(V2 STORED "K\7K\0\x85K\1\x85" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|outside");
    REFUSE(V2 STORED "K\0\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86K\1K\1\x86" HOOKS "tRs.", FFAI_EFORMAT,
           "tensor a|beyond");
    REFUSE(V2 STORED "K\0K\2\x85\x8a\x08\377\377\377\377\377\377\377\x7f\x85" HOOKS "tRs.", FFAI_EFORMAT,
           "tensor a|beyond");
    REFUSE(V2 STORED "K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1tq\1h\1" HOOKS "tRs.", FFAI_EFORMAT, "tensor a|at most 8");
    REFUSE(V2 STORED "K\0K\1\x85K\1\x85" HOOKS "}X\4\0\0\0conj\x88stRs.", FFAI_EFORMAT, "tensor a|conjugate");
    REFUSE(V2 "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0001X\3\0\0\0cpuK\6tQK\0K\2\x85K\1\x85" HOOKS "tRs.",
           FFAI_EFORMAT, "tensor a|storage 1 is not in the file");
    REFUSE(V2 "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\7tQK\0K\2\x85K\1\x85" HOOKS "tRs.",
           FFAI_EFORMAT, "tensor a|24 bytes|28");
    REFUSE(
        V2
        "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpu\x8a\x08\377\377\377\377\377\377\377\x7ftQK\0"
        "K\2\x85K\1\x85" HOOKS "tRs.",
        FFAI_EFORMAT, "tensor a|not made");
    REFUSE("}K\1NsX\1\0\0\0aNs.", FFAI_EFORMAT, "an integer and no name");
    REFUSE("}X\0\0\0\0Ns.", FFAI_EFORMAT, "no name");
    REFUSE("}X\2\0\0\0a\0Ns.", FFAI_EFORMAT, "no name");
    REFUSE(V2 STORED "K\0K\2\x85K\1\x85" HOOKS "tRsX\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" STORED
                     "K\0K\2\x85K\1\x85" HOOKS "tRs.",
           FFAI_EFORMAT, "tensor a|twice");
}

static void archives(void **state) {
    (void)state;
    static const lie packed = {.method = 8}, shorter = {.packed = 1}, secret = {.flags = 1}, past = {.shift = 1 << 20},
                     moved = {.shift = 1}, inner = {.local_method = 8}, other = {.one_off = true};
    static const struct {
        const lie *l;
        const char *words;
    } lies[] = {{&packed, "data/0|compressed"},   {&shorter, "data/0|compressed"}, {&secret, "data/0|encrypted"},
                {&past, "data/0|no header"},      {&moved, "data/0|no header"},    {&inner, "data/0|another member"},
                {&other, "data/0|another member"}};
    archive a = {0};
    fa_buf b;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        add(&a, "x/data.pkl", "}.", 2, NULL);
        add(&a, "x/data/0", floats, sizeof floats, lies[i].l);
        b = finish(&a, 2);
        refuse_file(&b, FFAI_EFORMAT, lies[i].words);
    }
    add(&a, "x/data.pkl", "}.", 2, NULL);
    b = finish(&a, 0xFFFF);
    refuse_file(&b, FFAI_EFORMAT, "too short for its entries");
    add(&a, "x/data.pkl", "}.", 2, NULL);
    add(&a, "x/data.pkl", "}.", 2, NULL);
    b = finish(&a, 2);
    refuse_file(&b, FFAI_EFORMAT, "twice");
    const lie same = {.shift = -42}; /* both say the first one's bytes: their names are of one length */
    add(&a, "x/data.pkl", "}.", 2, NULL);
    add(&a, "x/data.pkm", "}.", 2, &same);
    b = finish(&a, 2);
    refuse_file(&b, FFAI_EFORMAT, "another member");
    fa_buf inside = {0}; /* a member whose data hold a whole other member */
    archive in = {0};
    add(&in, "x/data/0", floats, sizeof floats, NULL);
    fa_buf_add(&inside, in.out.data, in.out.len);
    add(&a, "x/data.pkl", inside.data, inside.len, NULL);
    fa_buf_free(&in.directory);
    fa_buf_free(&in.out);
    fa_buf_free(&inside);
    const lie back = {.shift = -(int64_t)(30 + 8 + 24)};
    const size_t keep = a.out.len;
    add(&a, "x/data/0", floats, sizeof floats, &back);
    a.out.len = keep;
    b = finish(&a, 2);
    refuse_file(&b, FFAI_EFORMAT, "share bytes");
    add(&a, "data.pkl", "}.", 2, NULL);
    b = finish(&a, 1);
    refuse_file(&b, FFAI_EFORMAT, "no folder");
    add(&a, "x/other", "}.", 2, NULL);
    b = finish(&a, 1);
    refuse_file(&b, FFAI_EFORMAT, "no data.pkl");
    add(&a, "x/data.pkl", "}.", 2, NULL);
    add(&a, "x/constants.pkl", "}.", 2, NULL);
    b = finish(&a, 2);
    refuse_file(&b, FFAI_ENOTSUP, "TorchScript");
    add(&a, "x/data.pkl", "}.", 2, NULL);
    add(&a, "x/byteorder", "big", 3, NULL);
    b = finish(&a, 2);
    refuse_file(&b, FFAI_ENOTSUP, "little-endian");
    b = (fa_buf){0};
    fa_buf_puts(&b, "GGUF, no");
    refuse_file(&b, FFAI_EFORMAT, "not a file of torch.save");
}

/* ---- every torch file, cut and bent at every byte ---- */

static void broken(void **state) {
    (void)state;
    static const char *const names[] = {"plain", "parameters", "protocol4", "before_1_6", "transposed", "tied"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512], *text;
        size_t n;
        fa_pt *p;
        fa_error err = {0};
        snprintf(path, sizeof path, "%s/tests/fuzz/corpus/torch/%s", FFAI_SOURCE_DIR, names[i]);
        assert_ok(fa_read_file(&text, &n, path, 1 << 20, &err), &err);
        for (size_t k = 0; k < n; k++) {
            assert_int_not_equal(parse(&p, text, k, &err), 0);
            for (int bit = 0; bit < 8; bit += 3) {
                text[k] ^= (char)(1 << bit);
                int rc = parse(&p, text, n, &err);
                if (rc) assert_null(strchr(err.msg, '\n'));
                fa_pt_free(p);
                text[k] ^= (char)(1 << bit);
            }
        }
        for (long at = 1; at < 40; at++) {
            fa_alloc_fail_at(at);
            int rc = parse(&p, text, n, &err);
            fa_alloc_fail_at(0);
            if (rc) assert_int_equal(rc, FFAI_ENOMEM);
            fa_pt_free(p);
        }
        fa_free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_and_b), cmocka_unit_test(kinds),   cmocka_unit_test(no_dicts), cmocka_unit_test(programs),
        cmocka_unit_test(stacks),  cmocka_unit_test(tensors), cmocka_unit_test(archives), cmocka_unit_test(broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
