/* Conversion: a checkpoint of every family and layout gives the same logits after it as before, floats to the bit of
 * sums, also out of GGUF and out of what other quantizers left; quantized ones the same as their dequantized copies;
 * and rules, shards, types and what is refused. Codes against mlx's own quantizer: tests/qfmt and
 * tools/check_convert.py. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "families/gen.h"
#include "ffai.h"
#include "io/ckpt.h"
#include "tensor/qfmt.h"

static char dir[64] = "/tmp/ffai-convert-XXXXXX";
static char data[600];

enum { MAX_IDS = 512 };

static int set_up(void **state) {
    (void)state;
    const char *source = getenv("FFAI_SOURCE_DIR");
    snprintf(data, sizeof data, "%s/tests/data/families", source ? source : FFAI_SOURCE_DIR);
    return mkdtemp(dir) ? 0 : -1;
}

static void remove_all(const char *what) {
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf '%s/%s'", dir, what);
    if (system(cmd)) fprintf(stderr, "%s: failed\n", cmd);
}

static int tear_down(void **state) {
    (void)state;
    remove_all("");
    return 0;
}

/* Writes a fixture to dir/model; its ids. */
static size_t fixture(const char *name, char model[512], int32_t ids[MAX_IDS]) {
    fx f;
    ffai_error err = {0};
    char folder[200];
    size_t n = 0;
    remove_all("model");
    snprintf(folder, sizeof folder, "%s/model", dir);
    mkdir(folder, 0777);
    if (fx_open(&f, data, name, &err) || fx_write(&f, folder, model, &err)) fail_msg("%s: %s", name, err.msg);
    for (const fa_jnode *i = fa_jfirst(fa_jget(f.root, "ids")); i && n < MAX_IDS; i = fa_jnext(i))
        ids[n++] = (int32_t)fa_jint(i, 0);
    fx_close(&f);
    return n;
}

typedef struct rows {
    float *x;
    size_t n;
} rows;

static void keep(void *user, int64_t row, const float *logits, int64_t vocab) {
    rows *r = (rows *)user;
    (void)row;
    r->x = (float *)realloc(r->x, (r->n + (size_t)vocab) * sizeof(float));
    memcpy(r->x + r->n, logits, (size_t)vocab * sizeof(float));
    r->n += (size_t)vocab;
}

static rows logits_of(const char *model, const int32_t *ids, size_t n) {
    ffai_model *m;
    ffai_engine *e;
    ffai_error err = {0};
    rows r = {0};
    if (ffai_model_open(&m, model, NULL, &err)) fail_msg("%s", err.msg);
    const ffai_engine_opts eo = {.device = "cpu", .precision = "exact", .n_thread = 2, .n_ctx = (int)n};
    if (ffai_engine_create(&e, m, &eo, &err)) fail_msg("%s", err.msg);
    if (ffai_eval(e, &(ffai_eval_opts){.ids = ids, .n_ids = n, .logits = keep, .user = &r}, &err))
        fail_msg("%s", err.msg);
    ffai_engine_free(e);
    ffai_model_free(m);
    return r;
}

static double difference(const rows *a, const rows *b) {
    double worst = 0;
    if (a->n != b->n) return INFINITY;
    for (size_t i = 0; i < a->n; i++) {
        const double d = fabs((double)a->x[i] - (double)b->x[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static void convert(const char *from, const char *to, const ffai_convert_opts *o, const char *what) {
    ffai_error err = {0};
    if (ffai_convert(from, to, o, NULL, &err)) fail_msg("%s: %s", what, err.msg);
}

static void path_in(char out[200], const char *name) { snprintf(out, 200, "%s/%s", dir, name); }

/* The same logits as floats; with a quantization, those of its dequantized copy. */
static void check_fixture(const char *name) {
    static const ffai_convert_opts how[] = {{.mode = "affine", .bits = 4, .group_size = 32},
                                            {.mode = "affine", .bits = 3, .group_size = 64},
                                            {.mode = "mxfp4"},
                                            {.mode = "mxfp8"},
                                            {.mode = "nvfp4"}};
    static int turn;
    char model[512], to[200], wide[200];
    int32_t ids[MAX_IDS];
    const size_t n = fixture(name, model, ids);
    path_in(to, "to");
    path_in(wide, "wide");
    rows before = logits_of(model, ids, n);
    convert(model, to, &(ffai_convert_opts){.dtype = "f32"}, name);
    rows after = logits_of(to, ids, n);
    if (!(difference(&before, &after) <= 1e-4)) fail_msg("%s: logits differ by %g", name, difference(&before, &after));
    remove_all("to");
    convert(model, to, &how[turn++ % 5], name);
    rows quantized = logits_of(to, ids, n);
    convert(to, wide, &(ffai_convert_opts){.dequantize = true, .dtype = "f32"}, name);
    rows dequantized = logits_of(wide, ids, n);
    if (!(difference(&quantized, &dequantized) <= 1e-3))
        fail_msg("%s: dequantized logits differ by %g", name, difference(&quantized, &dequantized));
    remove_all("to");
    remove_all("wide");
    free(before.x);
    free(after.x);
    free(quantized.x);
    free(dequantized.x);
}

/* Fixtures that say something of their own about layouts; variants of config are left out. */
static bool is_layout(const char *name) {
    static const char *const ends_of[] = {
        "_plain",    "_wrapper",   "_wrapper5",  "_moe",    "_f16",    "_q8_0",
        "_q4_k",     "_mixed",     "_each",      "_square", "_blocks", "_tied_with_head",
        "_bias",     "_experts",   "_latent",    "_fused",  "_dense",  "_turned",
        "_sharded",  "_overrides", "_a4b",       "_e2b",    "_vl",     "_modes",
        "_headless", "_no_prefix", "_rope_freqs"};
    const size_t n = strlen(name);
    if (!strncmp(name, "lora_", 5)) return false;
    if (!strncmp(name, "hf_", 3)) return true;
    for (size_t i = 0; i < sizeof ends_of / sizeof *ends_of; i++)
        if (n > strlen(ends_of[i]) && !strcmp(name + n - strlen(ends_of[i]), ends_of[i])) return true;
    return false;
}

static void test_families(void **state) {
    (void)state;
    struct dirent **at;
    int n = scandir(data, &at, NULL, alphasort), used = 0;
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        if (is_layout(at[i]->d_name)) {
            check_fixture(at[i]->d_name);
            used++;
        }
        free(at[i]);
    }
    free(at);
    print_message("%d checkpoints\n", used);
    assert_true(used > 60);
}

/* ---- what a result holds ---- */

static fa_ckpt *opened(const char *path) {
    fa_ckpt *c;
    ffai_error err = {0};
    if (fa_ckpt_open(&c, path, true, &err)) fail_msg("%s", err.msg);
    return c;
}

static void test_rules(void **state) {
    (void)state;
    char model[512], to[200];
    int32_t ids[MAX_IDS];
    fixture("llama_wide_bf16", model, ids);
    path_in(to, "to");
    const ffai_convert_rule rules[] = {{.pattern = "v_proj$|down_proj", .bits = 8, .group_size = 32},
                                       {.pattern = "layers\\.0\\..*up_proj", .mode = "mxfp4"},
                                       {.pattern = "embed_tokens", .keep = true}};
    ffai_convert_info info;
    ffai_error err = {0};
    const ffai_convert_opts o = {.bits = 3, .rules = rules, .n_rule = 3, .dtype = "f16"};
    if (ffai_convert(model, to, &o, &info, &err)) fail_msg("%s", err.msg);
    fa_ckpt *c = opened(to);
    const fa_jnode *q = fa_jget(fa_ckpt_config(c), "quantization");
    assert_int_equal(fa_jint(fa_jget(q, "bits"), 0), 3);
    assert_int_equal(fa_jint(fa_jget(q, "group_size"), 0), 64);
    assert_int_equal(fa_jint(fa_jget(fa_jget(q, "model.layers.1.self_attn.v_proj"), "bits"), 0), 8);
    assert_string_equal(fa_jstr(fa_jget(fa_jget(q, "model.layers.0.mlp.up_proj"), "mode"), NULL), "mxfp4");
    assert_int_equal(fa_jtype_of(fa_jget(q, "model.embed_tokens")), FA_JBOOL);
    assert_null(fa_jget(q, "model.layers.1.mlp.up_proj"));
    assert_int_equal(fa_ckpt_find(c, "model.embed_tokens.weight")->dtype, FA_F16);
    assert_int_equal(fa_ckpt_find(c, "model.layers.0.mlp.up_proj.scales")->dtype, FA_U8);
    assert_int_equal(fa_ckpt_find(c, "model.layers.1.mlp.up_proj.scales")->dtype, FA_F16);
    assert_int_equal(fa_ckpt_find(c, "model.norm.weight")->dtype, FA_F16);
    assert_true(info.bits_per_weight > 3 && info.bits_per_weight < 16);
    assert_int_equal(info.n_tensor, fa_ckpt_count(c));
    fa_ckpt_free(c);
    remove_all("to");
}

static void test_shards(void **state) {
    (void)state;
    char model[512], to[200], again[200];
    int32_t ids[MAX_IDS];
    const size_t n = fixture("llama_wide_bf16", model, ids);
    path_in(to, "to");
    path_in(again, "again");
    ffai_convert_info info;
    ffai_error err = {0};
    if (ffai_convert(model, to, &(ffai_convert_opts){.shard_bytes = 1 << 20}, &info, &err)) fail_msg("%s", err.msg);
    assert_true(info.n_file > 1);
    rows a = logits_of(model, ids, n), b = logits_of(to, ids, n);
    assert_true(difference(&a, &b) == 0);
    /* nothing asked for, nothing changes: converted twice is the same file */
    convert(to, again, &(ffai_convert_opts){.n_thread = 1}, "again");
    fa_ckpt *c = opened(to), *d = opened(again);
    assert_int_equal(fa_ckpt_count(c), fa_ckpt_count(d));
    for (size_t i = 0; i < fa_ckpt_count(c); i++) {
        const fa_ckpt_tensor *t = fa_ckpt_at(c, i), *u = fa_ckpt_find(d, t->name);
        assert_non_null(u);
        assert_int_equal(t->bytes, u->bytes);
        assert_memory_equal(t->data, u->data, t->bytes);
    }
    fa_ckpt_free(c);
    fa_ckpt_free(d);
    free(a.x);
    free(b.x);
    remove_all("to");
    remove_all("again");
}

static bool stop_half_way(void *user, int64_t done, int64_t total) {
    (void)user;
    return done * 2 < total;
}

static int count_in_dir(void) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

static void test_refused(void **state) {
    (void)state;
    char model[512], to[200];
    int32_t ids[MAX_IDS];
    ffai_error err;
    fixture("llama_bf16", model, ids);
    path_in(to, "to");
    const int before = count_in_dir();
    const ffai_convert_rule bad_regex = {.pattern = "(", .bits = 4}, bad_bits = {.pattern = "a", .bits = 7};
    const ffai_convert_opts wrong[] = {{.bits = 7},
                                       {.bits = 4, .group_size = 48},
                                       {.mode = "q4_k"},
                                       {.mode = "mxfp4", .bits = 3},
                                       {.mode = "nvfp4", .group_size = 32},
                                       {.bits = 4, .dequantize = true},
                                       {.dtype = "int8"},
                                       {.rules = &bad_regex, .n_rule = 1},
                                       {.rules = &bad_bits, .n_rule = 1},
                                       {.progress = stop_half_way}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err = (ffai_error){0};
        assert_int_not_equal(ffai_convert(model, to, &wrong[i], NULL, &err), 0);
        assert_true(err.msg[0] != 0);
        assert_int_equal(count_in_dir(), before); /* nothing is left */
    }
    assert_int_not_equal(ffai_convert("/no/such/model", to, NULL, NULL, &err), 0);
    assert_int_not_equal(ffai_convert(model, "/no/such/folder/out", NULL, NULL, &err), 0);
    assert_int_not_equal(ffai_convert(model, "", NULL, NULL, &err), 0);
    assert_int_not_equal(ffai_convert(model, dir, NULL, NULL, &err), 0); /* exists and is not empty */
    assert_int_equal(count_in_dir(), before);
    mkdir(to, 0777); /* an empty folder is fine */
    convert(model, to, NULL, "into an empty folder");
    assert_int_not_equal(ffai_convert(model, to, NULL, NULL, &err), 0);
    remove_all("to");
}

/* ---- calibration ---- */

static double weighted(const fa_weight *w, const float *x, const float *h) {
    float y[256];
    char scratch[4096];
    double e = 0;
    fa_dequant_row(w, 0, y, scratch);
    for (int64_t i = 0; i < w->cols; i++)
        e += (double)h[i] * ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return e;
}

/* Never worse than mlx's grid by its own measure, and the error that it tells is the error of what it stores. */
static void test_fit(void **state) {
    (void)state;
    static const int bits[] = {2, 3, 4, 5, 6, 8};
    uint64_t seed = 1;
    double better = 0, plain = 0;
    for (int turn = 0; turn < 600; turn++) {
        float x[256], h[256];
        uint8_t codes[256], scales[64], biases[64];
        for (int i = 0; i < 256; i++) {
            float v[3];
            for (int k = 0; k < 3; k++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                v[k] = (float)(seed >> 40) * 0x1p-24f;
            }
            x[i] = (v[0] - 0.5f) * (turn % 7 == 0 ? 0 : 1) + (turn % 11 == 0 && i % 32 == 3 ? 20.0f : 0);
            h[i] = 0.01f + v[2] * v[2] * 10;
        }
        fa_weight w = {.rows = 1,
                       .cols = 256,
                       .fmt = FA_FMT_AFFINE,
                       .bits = (uint8_t)bits[turn % 6],
                       .group = (uint16_t)(32 << turn % 3),
                       .scale_dtype = (uint8_t)(turn % 2 ? FA_BF16 : FA_F16),
                       .codes = codes,
                       .scales = scales,
                       .biases = biases};
        w.row_bytes = fa_qfmt_row_bytes(FA_FMT_AFFINE, w.bits, 256);
        w.scale_row_bytes = 2 * 256u / w.group;
        fa_qfmts[FA_FMT_AFFINE].quant_row(&w, x, codes, scales, biases);
        const double before = weighted(&w, x, h), told = fa_quant_affine_fit(&w, x, h, codes, scales, biases),
                     after = weighted(&w, x, h);
        if (!(after <= before * 1.0001 + 1e-9)) fail_msg("turn %d: %g became %g", turn, before, after);
        if (!(fabs(after - told) <= 1e-4 * after + 1e-6)) fail_msg("turn %d: %g is said to be %g", turn, after, told);
        if (turn % 7 && turn % 11) plain += before, better += after;
    }
    assert_true(better < 0.8 * plain);
}

static void check_calibrated(const char *name) {
    char model[512], to[200];
    int32_t ids[MAX_IDS];
    const size_t n = fixture(name, model, ids);
    path_in(to, "to");
    ffai_convert_info info;
    ffai_error err = {0};
    ffai_convert_opts o = {.bits = 4, .group_size = 32, .calibration = ids, .n_calibration = n};
    if (ffai_convert(model, to, &o, &info, &err)) fail_msg("%s: %s", name, err.msg);
    rows r = logits_of(to, ids, n);
    assert_true(r.n > 0 && isfinite(r.x[0]));
    free(r.x);
    remove_all("to");
    o.bits_per_weight = 5.2; /* too few where many matrices are no whole groups and stay floats */
    if (ffai_convert(model, to, &o, &info, &err)) o.bits_per_weight = 33;
    if (o.bits_per_weight == 33 && ffai_convert(model, to, &o, &info, &err)) fail_msg("%s: %s", name, err.msg);
    r = logits_of(to, ids, n);
    assert_true(r.n > 0 && isfinite(r.x[0]));
    free(r.x);
    remove_all("to");
    o.bits_per_weight = 2.5; /* less than 2 bits and scales */
    assert_int_not_equal(ffai_convert(model, to, &o, &info, &err), 0);
}

static void test_calibration(void **state) {
    (void)state;
    static const char *const names[] = {"llama_wide_bf16", "qwen3moe_plain",  "gguf_qwen3_q4_k", "jamba_plain",
                                        "lfm2_plain",      "nemotronh_plain", "gemma4_a4b",      "qwen35_plain"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_calibrated(names[i]);
    /* a budget is kept: this model's matrices are whole groups */
    char model[512], to[200];
    int32_t ids[MAX_IDS], bad = -1;
    const size_t n = fixture("llama_wide_bf16", model, ids);
    path_in(to, "to");
    ffai_convert_info info;
    ffai_error err = {0};
    for (double b = 3; b < 8.6; b += 0.75) {
        const ffai_convert_opts o = {.bits = 4, .calibration = ids, .n_calibration = n, .bits_per_weight = b};
        if (ffai_convert(model, to, &o, &info, &err)) fail_msg("%s", err.msg);
        assert_true(info.bits_per_weight <= b + 1e-6 && info.bits_per_weight > b - 0.8);
        remove_all("to");
    }
    const ffai_convert_opts wrong[] = {{.mode = "mxfp4", .calibration = ids, .n_calibration = n},
                                       {.bits = 4, .bits_per_weight = 4},
                                       {.bits = 4, .calibration = &bad, .n_calibration = 1}};
    for (size_t i = 0; i < 3; i++) assert_int_not_equal(ffai_convert(model, to, &wrong[i], NULL, &err), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_families), cmocka_unit_test(test_rules),
                                       cmocka_unit_test(test_shards),   cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_fit),      cmocka_unit_test(test_calibration)};
    return cmocka_run_group_tests_name("convert", tests, set_up, tear_down);
}
