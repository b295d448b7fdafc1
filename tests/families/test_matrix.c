/* No family refuses a format: every family's plain fixture, made a little larger so that blocks of 256 fit, with random
 * weights in every format, against the same values as plain f32. Logits must agree as exact mode promises. */
#define _DEFAULT_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ffai.h"
#include "tensor/qfmt.h"

enum { MAX_FAMILY = 128, N_TOK = 5, MAX_TEXT = 1 << 16 };
#ifdef FFAI_SANITIZED
enum { EVERY = 5 }; /* pairs: sanitizers are slow, and a format is bound alike in all families */
#else
enum { EVERY = 1 };
#endif

typedef struct family {
    char name[64], fixture[256];
} family;

/* ---- a plain fixture of each family ---- */

/* The text of a fixture's config.json; false: it has none. */
static bool read_config(const char *fixture, char text[MAX_TEXT]) {
    char path[512];
    snprintf(path, sizeof path, FFAI_SOURCE_DIR "/tests/data/families/%s/config.json", fixture);
    FILE *in = fopen(path, "rb");
    if (!in) return false;
    text[fread(text, 1, MAX_TEXT / 2, in)] = 0;
    fclose(in);
    return true;
}

/* Lists of RoPE factors are as long as the sizes that are changed here ask for. */
static bool usable(const char *fixture) {
    static char text[MAX_TEXT];
    return read_config(fixture, text) && !strstr(text, "_factor\": [") && !strstr(text, "_factor\":[");
}

/* <family>_plain, or else the first of its fixtures in alphabetical order. */
static int list_families(family *out) {
    struct dirent **entry;
    const int n = scandir(FFAI_SOURCE_DIR "/tests/data/families", &entry, NULL, alphasort);
    int count = 0;
    for (int i = 0; i < n; i++) {
        const char *name = entry[i]->d_name;
        const size_t len = strcspn(name, "_");
        char head[64];
        snprintf(head, sizeof head, "%.*s", (int)len, name);
        const bool other =
            !strcmp(head, "mlx") || !strcmp(head, "gguf") || !strcmp(head, "hf") || !strcmp(head, "lora");
        if (!other && name[len] == '_' && usable(name) && count < MAX_FAMILY) {
            family *f = count && !strcmp(out[count - 1].name, head) ? &out[count - 1] : &out[count];
            if (f == &out[count] || !strcmp(name + len, "_plain")) snprintf(f->fixture, sizeof f->fixture, "%s", name);
            if (f == &out[count]) memcpy(out[count++].name, head, sizeof head);
        }
        free(entry[i]);
    }
    if (n >= 0) free(entry);
    return count;
}

/* ---- its config, larger ---- */

static long number_of(const char *text, const char *key) {
    const char *at = strstr(text, key);
    if (!at) return 0;
    at += strlen(key) + strspn(at + strlen(key), ": \t\n");
    return strtol(at, NULL, 10);
}

/* Every integer under the key becomes n. */
static void set_number(char *text, const char *key, long n) {
    for (char *at = strstr(text, key); at; at = strstr(at + 1, key)) {
        char *digits = at + strlen(key), num[32], *end;
        digits += strspn(digits, ": \t\n");
        if (!isdigit((unsigned char)*digits)) continue;
        end = digits + strspn(digits, "0123456789");
        const size_t len = (size_t)snprintf(num, sizeof num, "%ld", n);
        memmove(digits + len, end, strlen(end) + 1);
        memcpy(digits, num, len);
    }
}

static long gcd(long a, long b) { return b ? gcd(b, a % b) : a; }

static void make_folder(const family *f, const char *dir) {
    static const char *const widths[] = {"\"intermediate_size\"", "\"moe_intermediate_size\"",
                                         "\"shared_expert_intermediate_size\"", "\"shared_intermediate_size\""};
    static char text[MAX_TEXT];
    char path[512];
    assert_true(read_config(f->fixture, text));
    const long heads = number_of(text, "\"num_attention_heads\""), one = heads > 0 ? heads : 1;
    set_number(text, "\"hidden_size\"", number_of(text, "\"head_dim\"") ? 256 : 256 * one / gcd(256, one));
    const long expand = number_of(text, "\"expand\""), mixer = number_of(text, "\"num_heads\"");
    if (expand && mixer) set_number(text, "\"head_dim\"", expand * 256 / mixer); /* Mamba 2 */
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) set_number(text, widths[i], 256);
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

/* ---- logits ---- */

typedef struct rows {
    float *v;
    size_t n, cap;
} rows;

static void on_row(void *user, int64_t row, const float *logits, int64_t vocab) {
    rows *r = (rows *)user;
    (void)row;
    if (r->n + (size_t)vocab > r->cap) {
        r->cap = 2 * (r->n + (size_t)vocab);
        r->v = realloc(r->v, r->cap * sizeof *r->v);
        assert_non_null(r->v);
    }
    memcpy(r->v + r->n, logits, (size_t)vocab * sizeof *logits);
    r->n += (size_t)vocab;
}

/* Prefill, then one token at a time, so that both ways through the kernels are taken. */
static int run(const char *dir, const char *format, rows *out, char name[64], ffai_error *err) {
    static const int32_t ids[N_TOK] = {7, 45, 3, 120, 66};
    ffai_model *m = NULL;
    ffai_engine *e = NULL;
    ffai_model_info info;
    *out = (rows){0};
    int rc = ffai_model_open(&m, dir, &(ffai_model_opts){.synthetic = format}, err);
    if (!rc)
        rc = ffai_engine_create(
            &e, m, &(ffai_engine_opts){.device = "cpu", .precision = "exact", .n_ctx = 64, .n_thread = 1}, err);
    if (!rc) {
        ffai_model_get_info(m, &info);
        snprintf(name, 64, "%s", info.format);
        rc = ffai_eval(
            e, &(ffai_eval_opts){.ids = ids, .n_ids = N_TOK, .decode_from = N_TOK - 1, .logits = on_row, .user = out},
            err);
    }
    ffai_engine_free(e);
    ffai_model_free(m);
    return rc;
}

static bool compare(const family *f, const char *dir, const char *format) {
    char wide[64], have[64], other[64];
    rows a, b;
    ffai_error err = {0};
    bool good = false;
    snprintf(wide, sizeof wide, "f32:%s", format);
    if (run(dir, format, &a, have, &err) || run(dir, wide, &b, other, &err)) {
        print_error("%s in %s: %s\n", f->name, format, err.msg);
        free(a.v);
        return false;
    }
    double worst = 0, size = 0;
    for (size_t i = 0; i < a.n && i < b.n; i++) {
        worst = fmax(worst, fabs((double)a.v[i] - (double)b.v[i]));
        size = fmax(size, fabs((double)b.v[i]));
        if (!isfinite(a.v[i])) worst = INFINITY;
    }
    /* what few matrices whose rows are no multiple of 256 are in may weigh more than all others */
    const bool named = strncmp(have, format, 6) == 0 || strcmp(have, "bf16") == 0;
    if (!named || strcmp(other, "f32") != 0)
        print_error("%s in %s: its weights are %s and %s\n", f->name, format, have, other);
    else if (!a.n || a.n != b.n || !(worst <= 1e-3) || size < 0.05)
        print_error("%s in %s: logits differ by %g of %g\n", f->name, format, worst, size);
    else
        good = true;
    free(a.v);
    free(b.v);
    return good;
}

static void matrix(void **state) {
    (void)state;
    static family list[MAX_FAMILY];
    static const char *const affine[] = {"affine2g32",  "affine3g64", "affine4g64",
                                         "affine5g128", "affine6g32", "affine8g128"};
    const int n = list_families(list), n_affine = sizeof affine / sizeof *affine;
    const char *only = getenv("FFAI_TEST_FAMILY");
    int bad = 0, done = 0;
    assert_true(n >= 5);
    for (int i = 0; i < n; i++) {
        if (only && strcmp(only, list[i].name) != 0) continue;
        char dir[] = "/tmp/ffai_matrix_XXXXXX", path[64];
        assert_non_null(mkdtemp(dir));
        make_folder(&list[i], dir);
        int pair = i; /* another beginning in each family */
        for (int f = 0; f < FA_FMT_COUNT; f++)
            for (int k = 0; k < (f == FA_FMT_AFFINE ? n_affine : 1); k++) {
                if (pair++ % EVERY) continue;
                bad += !compare(&list[i], dir, f == FA_FMT_AFFINE ? affine[k] : fa_qfmts[f].name);
                done++;
            }
        snprintf(path, sizeof path, "%s/config.json", dir);
        unlink(path);
        rmdir(dir);
    }
    print_message("%d families, %d pairs\n", n, done);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matrix)};
    return cmocka_run_group_tests_name("every family in every format", tests, NULL, NULL);
}
