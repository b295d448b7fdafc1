/* Embeddings against transformers' hidden states pooled by the modules of sentence-transformers (tests/data/embed, made
 * by tools/fixtures/make_embed.py): one by one, in a batch through several slots, in small chunks, by every kind of
 * pooling; base models without a head; broken modules. */
#define _GNU_SOURCE
#include "families/gen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/map.h"

#define DATA FFAI_SOURCE_DIR "/tests/data/embed"
enum { MAX_SEQ = 16, MAX_DIM = 512 };

static char root[64];

static int one_removed(const char *path, const struct stat *st, int type, struct FTW *f) {
    (void)st, (void)type, (void)f;
    return remove(path);
}

static int set_up(void **state) {
    (void)state;
    strcpy(root, "/tmp/ffai-embed-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return nftw(root, one_removed, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Copies what the fixture has of a module file. */
static void copy(const char *name, const char *file) {
    char from[600], to[600], *text;
    size_t n;
    snprintf(from, sizeof from, "%s/%s/%s", DATA, name, file);
    snprintf(to, sizeof to, "%s/%s/%s", root, name, file);
    if (fa_read_file(&text, &n, from, 1 << 20, NULL)) return;
    char *slash = strrchr(to, '/');
    *slash = 0;
    mkdir(to, 0777);
    *slash = '/';
    put(to, text, n);
    ffai_free(text);
}

/* The checkpoint with its modules; returns its folder. */
static const char *make(const char *name, fx *f) {
    static char model[512];
    char dir[200];
    fa_error err = {0};
    snprintf(dir, sizeof dir, "%s/%s", root, name);
    mkdir(dir, 0777);
    if (fx_open(f, DATA, name, &err) || fx_write(f, dir, model, &err)) fail_msg("%s", err.msg);
    static const char *const files[] = {"modules.json",
                                        "1_Pooling/config.json",
                                        "2_Normalize/config.json",
                                        "2_Dense/config.json",
                                        "2_Dense/model.safetensors",
                                        "3_Dense/config.json",
                                        "3_Dense/model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) copy(name, files[i]);
    return model;
}

typedef struct data {
    ffai_model *m;
    fa_json *golden;
    int32_t *ids[MAX_SEQ];
    size_t n[MAX_SEQ], n_seq;
    int64_t dim;
} data;

static void open_fixture(data *d, const char *name) {
    fx f;
    ffai_error err = {0};
    char path[600];
    memset(d, 0, sizeof *d);
    const char *dir = make(name, &f);
    for (const fa_jnode *s = fa_jfirst(fa_jget(f.root, "sequences")); s; s = fa_jnext(s)) {
        d->ids[d->n_seq] = calloc(fa_jlen(s), sizeof(int32_t));
        for (const fa_jnode *i = fa_jfirst(s); i; i = fa_jnext(i))
            d->ids[d->n_seq][d->n[d->n_seq]++] = (int32_t)fa_jint(i, -1);
        d->n_seq++;
    }
    fx_close(&f);
    snprintf(path, sizeof path, "%s/%s/golden.json", DATA, name);
    if (fa_json_load(&d->golden, path, &err) || ffai_model_open(&d->m, dir, NULL, &err) ||
        ffai_embed_dim(d->m, &d->dim, &err))
        fail_msg("%s", err.msg);
}

static void close_fixture(data *d) {
    for (size_t i = 0; i < d->n_seq; i++) free(d->ids[i]);
    fa_json_free(d->golden);
    ffai_model_free(d->m);
}

static ffai_engine *engine(ffai_model *m, int n_slot, int n_chunk) {
    ffai_engine *e = NULL;
    ffai_error err = {0};
    ffai_engine_opts o = {.precision = "exact", .n_slot = n_slot, .n_chunk = n_chunk, .n_ctx = 100, .n_thread = 2};
    if (ffai_engine_create(&e, m, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static double worst;

static void near(const float *x, const fa_jnode *want, int64_t dim, const char *what) {
    assert_int_equal(fa_jlen(want), dim);
    for (const fa_jnode *w = fa_jfirst(want); w; w = fa_jnext(w), x++) {
        double d = fabs((double)*x - fa_jnum(w, NAN));
        if (!(d <= worst)) worst = d;
        if (!(d <= 1e-4)) fail_msg("%s: %g, must be %g", what, (double)*x, fa_jnum(w, NAN));
    }
}

static const fa_jnode *nth(const fa_jnode *list, size_t i) {
    const fa_jnode *n = fa_jfirst(list);
    while (n && i--) n = fa_jnext(n);
    return n;
}

static const char *const names[] = {"qwen3_last", "gemma3_mean", "gemma3_mean_dense", "llama_several", "mistral_bare"};
enum { N_NAME = sizeof names / sizeof names[0] };

static void test_parity(void **state) {
    (void)state;
    static const int shapes[][2] = {{1, 0}, {3, 0}, {16, 0}, {2, 9}, {1, 1}};
    static float x[MAX_SEQ * MAX_DIM];
    for (int k = 0; k < N_NAME; k++) {
        data d;
        ffai_error err = {0};
        open_fixture(&d, names[k]);
        worst = 0;
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            ffai_engine *e = engine(d.m, shapes[s][0], shapes[s][1]);
            const fa_jnode *want = fa_jget(fa_json_root(d.golden), "modules");
            if (ffai_embed_batch(e, (const int32_t *const *)d.ids, d.n, d.n_seq, NULL, x, &err))
                fail_msg("%s", err.msg);
            for (size_t i = 0; i < d.n_seq; i++) near(x + (int64_t)i * d.dim, nth(want, i), d.dim, names[k]);
            for (size_t i = 0; i < d.n_seq; i++) {
                assert_int_equal(ffai_embed(e, d.ids[i], d.n[i], NULL, x, &err), 0);
                near(x, nth(want, i), d.dim, names[k]);
            }
            ffai_engine_free(e);
        }
        print_message("%s: largest difference %.2g\n", names[k], worst);
        close_fixture(&d);
    }
}

/* What the caller asks for instead of the modules. */
static void test_options(void **state) {
    (void)state;
    static const char *const kinds[] = {"mean", "last", "cls", "max"};
    static float x[MAX_DIM], y[MAX_DIM];
    for (int k = 0; k < N_NAME; k++) {
        data d;
        ffai_error err = {0};
        open_fixture(&d, names[k]);
        ffai_engine *e = engine(d.m, 2, 16);
        bool several = !strcmp(names[k], "llama_several"), dense = !strcmp(names[k], "gemma3_mean_dense");
        for (int p = 0; p < 4; p++) {
            ffai_embed_opts o = {.pooling = kinds[p], .normalize = -1};
            const fa_jnode *want = fa_jget(fa_jget(fa_json_root(d.golden), "kinds"), kinds[p]);
            for (size_t i = 0; i < d.n_seq; i++) {
                int rc = ffai_embed(e, d.ids[i], d.n[i], &o, x, &err);
                assert_int_equal(rc, several ? FFAI_EINVAL : 0);
                if (rc || dense) continue;
                near(x, nth(want, i), d.dim, kinds[p]);
                o.normalize = 1;
                assert_int_equal(ffai_embed(e, d.ids[i], d.n[i], &o, y, &err), 0);
                o.normalize = -1;
                double xx = 0, xy = 0, yy = 0;
                for (int64_t j = 0; j < d.dim; j++)
                    xx += (double)x[j] * x[j], xy += (double)x[j] * y[j], yy += (double)y[j] * y[j];
                assert_true(fabs(yy - 1) < 1e-5 && fabs(xy - sqrt(xx)) < 1e-3);
            }
        }
        ffai_embed_opts o = {.pooling = "median"};
        assert_int_equal(ffai_embed(e, d.ids[0], d.n[0], &o, x, &err), FFAI_EINVAL);
        assert_non_null(strstr(err.msg, "median"));
        int32_t far = 1 << 20;
        assert_int_equal(ffai_embed(e, &far, 1, NULL, x, &err), FFAI_EINVAL);
        assert_int_equal(ffai_embed(e, d.ids[0], 0, NULL, x, &err), FFAI_EINVAL);
        int32_t many[101] = {0};
        assert_int_equal(ffai_embed(e, many, 101, NULL, x, &err), FFAI_ELIMIT);
        ffai_engine_free(e);
        close_fixture(&d);
    }
}

static void any_row(void *user, int64_t row, const float *logits, int64_t vocab) {
    (void)user, (void)row, (void)logits, (void)vocab;
}

/* A base model embeds and says that it does not generate; one with a head does both, turn by turn. */
static void test_headless(void **state) {
    (void)state;
    data d;
    ffai_error err = {0};
    static float x[MAX_DIM], y[MAX_DIM];
    open_fixture(&d, "qwen3_last");
    ffai_engine *e = engine(d.m, 1, 0);
    ffai_request *r = NULL;
    ffai_request_opts o = {.ids = d.ids[1], .n_ids = d.n[1]};
    assert_int_equal(ffai_submit(e, &o, &r, &err), FFAI_ENOTSUP);
    assert_non_null(strstr(err.msg, "lm_head"));
    ffai_eval_opts eo = {.ids = d.ids[1], .n_ids = d.n[1], .logits = any_row};
    assert_int_equal(ffai_eval(e, &eo, &err), FFAI_ENOTSUP);
    ffai_plan plan;
    assert_int_equal(ffai_engine_plan(d.m, NULL, &plan, &err), 0);
    double seconds;
    assert_int_equal(ffai_bench(e, 1, 0, 5, 1, &seconds, &err), 0);
    ffai_engine_free(e);
    close_fixture(&d);

    open_fixture(&d, "mistral_bare");
    e = engine(d.m, 1, 0);
    assert_int_equal(ffai_embed(e, d.ids[3], d.n[3], NULL, x, &err), 0);
    o = (ffai_request_opts){.ids = d.ids[1], .n_ids = d.n[1], .max_new = 5, .ignore_eos = true};
    assert_int_equal(ffai_submit(e, &o, &r, &err), 0);
    assert_int_equal(ffai_engine_step(e, &err), 1);
    assert_int_equal(ffai_embed(e, d.ids[3], d.n[3], NULL, y, &err), FFAI_EINVAL); /* a request is running */
    while (ffai_engine_step(e, &err) > 0) {
    }
    assert_int_equal(ffai_embed(e, d.ids[3], d.n[3], NULL, y, &err), 0);
    assert_memory_equal(x, y, (size_t)d.dim * sizeof *x);
    ffai_engine_free(e);
    close_fixture(&d);
}

/* ---- broken modules ---- */

static void broken(const char *file, const char *text, const char *word) {
    data d;
    ffai_error err = {0};
    char path[300];
    int64_t dim = 1;
    open_fixture(&d, "gemma3_mean_dense");
    ffai_model_free(d.m);
    d.m = NULL;
    snprintf(path, sizeof path, "%s/gemma3_mean_dense", root);
    if (text) {
        strcat(path, "/");
        strcat(path, file);
        put(path, text, strlen(text));
        snprintf(path, sizeof path, "%s/gemma3_mean_dense", root);
    }
    assert_int_equal(ffai_model_open(&d.m, path, NULL, &err), 0); /* it still generates */
    int rc = ffai_embed_dim(d.m, &dim, &err);
    assert_true(rc < 0 && rc == err.code);
    assert_int_equal(dim, 0);
    if (!strstr(err.msg, word) || strchr(err.msg, '\n')) fail_msg("%s: \"%s\" does not say %s", file, err.msg, word);
    ffai_engine *e = engine(d.m, 1, 0);
    float x[MAX_DIM];
    assert_int_equal(ffai_embed(e, d.ids[0], d.n[0], NULL, x, &err), rc);
    ffai_engine_free(e);
    close_fixture(&d);
}

#define T      "{\"path\": \"\", \"type\": \"sentence_transformers.models.Transformer\"}"
#define P      "{\"path\": \"1_Pooling\", \"type\": \"sentence_transformers.models.Pooling\"}"
#define D(act) "{\"in_features\": 72, \"out_features\": 40, \"bias\": false, \"activation_function\": \"" act "\"}"

static void test_broken(void **state) {
    (void)state;
    static const struct {
        const char *file, *text, *word;
    } cases[] = {
        {"modules.json", "", "modules.json"},
        {"modules.json", "{}", "not a list"},
        {"modules.json", "[]", "not a list"},
        {"modules.json", "[1]", "module 0"},
        {"modules.json", "[" T ", {\"path\": 3, \"type\": \"x.Pooling\"}]", "module 1"},
        {"modules.json", "[" T ", {\"path\": \"../x\", \"type\": \"x.Pooling\"}]", "within the folder"},
        {"modules.json", "[" T ", {\"path\": \"/etc\", \"type\": \"x.Pooling\"}]", "within the folder"},
        {"modules.json", "[" T ", {\"path\": \"a/../../b\", \"type\": \"x.Pooling\"}]", "within the folder"},
        {"modules.json", "[" T ", {\"path\": \"9_None\", \"type\": \"x.Pooling\"}]", "9_None"},
        {"modules.json", "[" T "," P "," P "]", "second time"},
        {"modules.json", "[" P "]", "module 0 is a"},
        {"modules.json", "[" T "," T "]", "module 1 is a"},
        {"modules.json", "[" T "," P ", {\"path\": \"\", \"type\": \"sentence_transformers.models.LSTM\"}]", "LSTM"},
        {"modules.json", "[" T ", {\"path\": \"\", \"type\": \"sentence_transformers.models.Normalize\"}]",
         "before the pooling"},
        {"1_Pooling/config.json", "[1]", "not an object"},
        {"1_Pooling/config.json", "{\"word_embedding_dimension\": 71}", "72"},
        {"1_Pooling/config.json", "{\"pooling_mode\": \"median\"}", "median"},
        {"1_Pooling/config.json", "{\"pooling_mode\": 3}", "pooling_mode"},
        {"1_Pooling/config.json", "{\"pooling_mode\": [\"mean\", 3]}", "pooling_mode"},
        {"1_Pooling/config.json",
         "{\"pooling_mode\": [\"mean\", \"mean\", \"mean\", \"mean\", \"mean\", \"mean\", \"mean\"]}", "too many"},
        {"1_Pooling/config.json", "{\"pooling_mode\": [\"mean\", \"max\"]}", "behind 144"},
        {"2_Dense/config.json", "{}", "features"},
        {"2_Dense/config.json", "{\"in_features\": 72, \"out_features\": 99999999999}", "features"},
        {"2_Dense/config.json", D("torch.nn.modules.activation.Softmax2"), "Softmax2"},
        {"2_Dense/config.json", D("my.Tanhx"), "Tanhx"},
        {"2_Dense/config.json", "{\"in_features\": 72, \"out_features\": 40, \"use_residual\": true}", "residual"},
        {"2_Dense/config.json", "{\"in_features\": 72, \"out_features\": 40}", "linear.bias"},
        {"2_Dense/config.json", "{\"in_features\": 72, \"out_features\": 41}", "linear.weight"},
        {"2_Dense/model.safetensors", "xx", "model.safetensors"},
        {"3_Dense/model.safetensors", "\x02\0\0\0\0\0\0\0{}", "3_Dense"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) broken(cases[i].file, cases[i].text, cases[i].word);
}

/* ---- GGUF ---- */

static void put_le(uint8_t *p, uint64_t v, int n) {
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* Puts llama.pooling_type (and a key that fills up to the alignment of the data) in front of a file's metadata. */
static void add_pooling_type(const char *from, const char *to, uint32_t type) {
    static const char *const keys[] = {"llama.pooling_type", "filling.up.u32"};
    char *file;
    size_t n, at = 24;
    ffai_error err;
    if (fa_read_file(&file, &n, from, 1 << 24, &err)) fail_msg("%s", err.msg);
    uint8_t *out = calloc(n + 64, 1);
    assert_non_null(out);
    memcpy(out, file, 24);
    put_le(out + 16, (uint64_t)(uint8_t)file[16] + 2, 8);
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(keys[i]);
        put_le(out + at, len, 8);
        memcpy(out + at + 8, keys[i], len);
        put_le(out + at + 8 + len, 4, 4); /* u32 */
        put_le(out + at + 12 + len, type, 4);
        at += 16 + len;
    }
    assert_int_equal(at, 24 + 64);
    memcpy(out + at, file + 24, n - 24);
    put(to, (const char *)out, n + 64);
    free(out);
    ffai_free(file);
}

static void test_gguf(void **state) {
    (void)state;
    static const char *const kinds[] = {"mean", "mean", "cls", "last"};
    fx f;
    ffai_error err = {0};
    char model[512], changed[600];
    float x[MAX_DIM], y[MAX_DIM];
    const int32_t ids[] = {3, 1, 4, 1, 5};
    if (fx_open(&f, FFAI_SOURCE_DIR "/tests/data/families", "gguf_llama_f32", &err) || fx_write(&f, root, model, &err))
        fail_msg("%s", err.msg);
    fx_close(&f);
    snprintf(changed, sizeof changed, "%s/changed.gguf", root);
    for (uint32_t type = 0; type < 5; type++) {
        ffai_model *m = NULL;
        int64_t dim;
        add_pooling_type(model, changed, type);
        if (ffai_model_open(&m, changed, NULL, &err)) fail_msg("%s", err.msg);
        assert_int_equal(ffai_embed_dim(m, &dim, &err), type < 4 ? 0 : FFAI_ENOTSUP);
        if (type == 4) assert_non_null(strstr(err.msg, "llama.pooling_type"));
        ffai_engine *e = engine(m, 1, 0);
        ffai_embed_opts o = {.pooling = kinds[type % 4]};
        if (type < 4) {
            assert_int_equal(ffai_embed(e, ids, 5, NULL, x, &err), 0);
            assert_int_equal(ffai_embed(e, ids, 5, &o, y, &err), 0);
            assert_memory_equal(x, y, (size_t)dim * sizeof *x);
        }
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* The n-th allocation fails: reported, and gone the next time. */
static void test_fault(void **state) {
    (void)state;
    data d;
    static float x[MAX_DIM], y[MAX_DIM];
    ffai_error err = {0};
    open_fixture(&d, "gemma3_mean_dense");
    ffai_engine *e = engine(d.m, 2, 0);
    assert_int_equal(ffai_embed(e, d.ids[2], d.n[2], NULL, x, &err), 0);
    long n = 1;
    for (int rc = 1; rc; n++) {
        char path[300];
        snprintf(path, sizeof path, "%s/gemma3_mean_dense", root);
        ffai_engine_free(e);
        ffai_model_free(d.m);
        assert_int_equal(ffai_model_open(&d.m, path, NULL, &err), 0);
        e = engine(d.m, 2, 0);
        fa_alloc_fail_at(n);
        rc = ffai_embed(e, d.ids[2], d.n[2], NULL, y, &err);
        bool over = fa_alloc_fail_left() > 0;
        fa_alloc_fail_at(0);
        if (rc) assert_int_equal(rc, FFAI_ENOMEM);
        if (rc && !err.msg[0]) fail_msg("allocation %ld: no message", n);
        if (!rc) assert_memory_equal(x, y, (size_t)d.dim * sizeof *x);
        if (!over) rc = 1;
        assert_int_equal(ffai_embed(e, d.ids[2], d.n[2], NULL, y, &err), 0);
        assert_memory_equal(x, y, (size_t)d.dim * sizeof *x);
    }
    print_message("%ld allocations\n", n);
    assert_true(n > 30 && n < 10000);
    ffai_engine_free(e);
    close_fixture(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parity),   cmocka_unit_test(test_options),
                                       cmocka_unit_test(test_headless), cmocka_unit_test(test_broken),
                                       cmocka_unit_test(test_gguf),     cmocka_unit_test(test_fault)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
