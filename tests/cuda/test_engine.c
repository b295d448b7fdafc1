/* Engines on a GPU against engines on the CPU: logits however a sequence is fed, requests, sessions, embeddings, random
 * weights; choosing a device, what does not fit, injected failures, and memory that comes back. The model is tiny and
 * random, with two kinds of layers (a window, none) and odd sizes. */
#define _DEFAULT_SOURCE
#include "cuda/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/registry.h"
#include "base/alloc.h"
#include "engine/engine.h"

static const char config[] = "{\"model_type\": \"qwen3\", \"architectures\": [\"Qwen3ForCausalLM\"], \"hidden_size\": "
                             "96, \"num_hidden_layers\": 2,"
                             " \"num_attention_heads\": 6, \"num_key_value_heads\": 2, \"head_dim\": 24, "
                             "\"intermediate_size\": 160, \"vocab_size\": 301,"
                             " \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000.0, \"max_position_embeddings\": 4194304, "
                             "\"tie_word_embeddings\": false,"
                             " \"use_sliding_window\": true, \"sliding_window\": 20, \"max_window_layers\": 1}";
enum { N = 70 /* more than a cache page */, N_NEW = 12 };

static ffai_model *model;
static char shape[] = "/tmp/ffai_shape_XXXXXX", folder[] = "/tmp/ffai_engine_XXXXXX"; /* config.json; a checkpoint */
static int32_t ids[N];
static int64_t vocab;

static int write_config(void) {
    char path[64];
    snprintf(path, sizeof path, "%s/config.json", shape);
    FILE *f = fopen(path, "w");
    bool ok = f && fputs(config, f) >= 0;
    return f && fclose(f) == 0 && ok ? 0 : -1;
}

/* A checkpoint of bf16 matrices in a scratch folder. */
static int set_up(void **state) {
    (void)state;
    ffai_error err;
    ffai_model *random = NULL;
    ffai_model_info info;
    if (!mkdtemp(folder) || !mkdtemp(shape) || write_config()) return -1;
    int rc = ffai_model_open(&random, shape, &(ffai_model_opts){.synthetic = "bf16"}, &err);
    if (!rc) rc = ffai_model_write_synthetic(random, folder, &err);
    ffai_model_free(random);
    if (!rc) rc = ffai_model_open(&model, folder, NULL, &err);
    if (rc) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    ffai_model_get_info(model, &info);
    vocab = info.vocab;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(fa_rng_at(7, (uint64_t)i) % (uint64_t)vocab);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char path[64];
    ffai_model_free(model);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", i < 2 ? folder : shape, i ? "config.json" : "model.safetensors");
        unlink(path);
    }
    return rmdir(folder) || rmdir(shape);
}

static ffai_engine *engine_of(ffai_model *m, const char *device, ffai_engine_opts o) {
    ffai_error err = {0};
    ffai_engine *e = NULL;
    o.device = device;
    o.cuda_module = hn_module_path();
    if (!o.n_ctx) o.n_ctx = 128;
    if (ffai_engine_create(&e, m, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static ffai_engine *engine(const char *device, ffai_engine_opts o) { return engine_of(model, device, o); }

static void keep(void *user, int64_t row, const float *logits, int64_t n) {
    memcpy((float *)user + row * n, logits, (size_t)n * sizeof *logits);
}

static float *eval(ffai_engine *e, int n, int chunk, int decode_from, int batch) {
    ffai_error err = {0};
    float *x = calloc((size_t)n * (size_t)vocab, sizeof *x);
    ffai_eval_opts o = {.ids = ids,
                        .n_ids = (size_t)n,
                        .chunk = chunk,
                        .decode_from = decode_from,
                        .batch = batch,
                        .logits = keep,
                        .user = x};
    if (ffai_eval(e, &o, &err)) fail_msg("%s", err.msg);
    return x;
}

static void same(const float *want, float *got, int n, double limit, const char *what) {
    double max = 0;
    for (int64_t i = 0; i < n * vocab; i++) {
        double d = fabs((double)want[i] - (double)got[i]);
        if (!(d <= max)) max = d;
    }
    free(got);
    if (!(max <= limit)) fail_msg("%s: logits differ by %g, at most %g is allowed", what, max, limit);
}

/* ---- logits ---- */

static void test_exact(void **state) {
    (void)state;
    ffai_engine *cpu = engine("cpu", (ffai_engine_opts){.precision = "exact"});
    ffai_engine *gpu = engine("cuda", (ffai_engine_opts){.precision = "exact", .n_slot = 3});
    float *want = eval(cpu, N, 0, 0, 1);
    same(want, eval(gpu, N, 0, 0, 1), N, 2e-4, "whole");
    same(want, eval(gpu, N, 7, 0, 1), N, 2e-4, "chunks of 7");
    same(want, eval(gpu, N, 40, 50, 3), N, 2e-4, "batch of 3, token by token from 50");
    ffai_engine_free(gpu);
    gpu = engine("cuda:0", (ffai_engine_opts){.precision = "exact", .composed = true});
    same(want, eval(gpu, N, 0, 64, 1), N, 2e-4, "composed");
    ffai_engine_free(gpu);
    ffai_engine_free(cpu);
    free(want);
}

/* Mean divergence of the fast from the exact distribution. */
static void test_fast(void **state) {
    (void)state;
    ffai_engine *cpu = engine("cpu", (ffai_engine_opts){.precision = "exact"});
    ffai_engine *gpu = engine("cuda", (ffai_engine_opts){.precision = "fast"});
    float *a = eval(cpu, N, 0, 0, 1), *b = eval(gpu, N, 0, 32, 1);
    double sum = 0;
    for (int64_t r = 0; r < N; r++) {
        double za = 0, zb = 0, kl = 0;
        const float *x = a + r * vocab, *y = b + r * vocab;
        for (int64_t i = 0; i < vocab; i++) za += exp((double)x[i]), zb += exp((double)y[i]);
        for (int64_t i = 0; i < vocab; i++)
            kl += exp((double)x[i]) / za * ((double)x[i] - log(za) - (double)y[i] + log(zb));
        sum += kl / N;
    }
    assert_true(sum < 1e-3);
    free(a);
    free(b);
    ffai_engine_free(gpu);
    ffai_engine_free(cpu);
}

/* Random weights that the device makes are those that the CPU makes. */
static void test_synthetic(void **state) {
    (void)state;
    static const char *const formats[] = {"bf16", "affine4g64", "mxfp4", "q8_0"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        ffai_error err;
        ffai_model *m;
        if (ffai_model_open(&m, shape, &(ffai_model_opts){.synthetic = formats[i]}, &err)) fail_msg("%s", err.msg);
        ffai_engine *gpu = engine_of(m, "cuda", (ffai_engine_opts){.precision = "exact"});
        assert_null(m->host); /* nobody needed them here */
        ffai_engine *cpu = engine_of(m, "cpu", (ffai_engine_opts){.precision = "exact"});
        float *want = eval(cpu, 20, 0, 0, 1);
        same(want, eval(gpu, 20, 0, 18, 1), 20, 2e-4, formats[i]);
        free(want);
        ffai_engine_free(cpu);
        ffai_engine_free(gpu);
        ffai_model_free(m);
    }
}

/* ---- requests and sessions ---- */

static ffai_request *submit(ffai_engine *e, const int32_t *prompt, size_t n, int64_t n_new) {
    ffai_error err;
    ffai_request *r;
    ffai_request_opts o = {.ids = prompt, .n_ids = n, .max_new = n_new, .ignore_eos = true};
    if (ffai_submit(e, &o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static void run_all(ffai_engine *e) {
    ffai_error err = {0};
    int rc;
    while ((rc = ffai_engine_step(e, &err)) > 0) {
    }
    if (rc) fail_msg("%s", err.msg);
}

static void answer(ffai_engine *e, const int32_t *prompt, size_t n, int32_t out[N_NEW]) {
    ffai_request *r = submit(e, prompt, n, N_NEW);
    const int32_t *all;
    size_t n_all, n_prompt, n_reused;
    run_all(e);
    ffai_request_ids(r, &all, &n_all, &n_prompt, &n_reused);
    assert_int_equal(n_all, n + N_NEW);
    memcpy(out, all + n, N_NEW * sizeof *out);
    ffai_request_free(r);
}

static void test_requests(void **state) {
    (void)state;
    ffai_engine *cpu = engine("cpu", (ffai_engine_opts){.precision = "exact"});
    ffai_engine *gpu = engine("cuda", (ffai_engine_opts){.precision = "exact", .n_slot = 3});
    int32_t want[3][N_NEW], got[N_NEW];
    ffai_request *r[3];
    for (size_t i = 0; i < 3; i++) answer(cpu, ids + i, 10 + 9 * i, want[i]);
    answer(gpu, ids, 10, got);
    assert_memory_equal(got, want[0], sizeof got);
    for (size_t i = 0; i < 3; i++) r[i] = submit(gpu, ids + i, 10 + 9 * i, N_NEW);
    run_all(gpu);
    for (size_t i = 0; i < 3; i++) {
        const int32_t *all;
        size_t n, n_prompt, n_reused;
        ffai_request_ids(r[i], &all, &n, &n_prompt, &n_reused);
        assert_memory_equal(all + n_prompt, want[i], sizeof want[i]);
        ffai_request_free(r[i]);
    }
    ffai_engine_free(gpu);
    ffai_engine_free(cpu);
}

/* Saved on one device, continued on both. */
static void test_sessions(void **state) {
    (void)state;
    static const char *const device[] = {"cpu", "cuda"};
    char path[64];
    ffai_error err;
    ffai_engine *e[2];
    int32_t want[N_NEW], got[N_NEW], whole[N + N_NEW];
    snprintf(path, sizeof path, "%s/s", folder);
    for (int i = 0; i < 2; i++) e[i] = engine(device[i], (ffai_engine_opts){.precision = "exact"});
    answer(e[0], ids, N, want);
    for (int from = 0; from < 2; from++) {
        ffai_request *r = submit(e[from], ids, N, 4);
        run_all(e[from]);
        if (ffai_session_save(r, path, &err)) fail_msg("%s", err.msg);
        ffai_request_free(r);
        for (int to = 0; to < 2; to++) {
            int32_t *known;
            size_t n, n_all, n_prompt, n_reused;
            const int32_t *all;
            ffai_engine *fresh = engine(device[to], (ffai_engine_opts){.precision = "exact"});
            if (ffai_session_load(fresh, path, &known, &n, &err)) fail_msg("%s", err.msg);
            assert_int_equal(n, N + 4);
            memcpy(whole, known, n * sizeof *whole);
            ffai_free(known);
            r = submit(fresh, whole, n, N_NEW - 4);
            run_all(fresh);
            ffai_request_ids(r, &all, &n_all, &n_prompt, &n_reused);
            assert_int_equal(n_reused, n - 1);
            memcpy(got, all + N, sizeof got);
            assert_memory_equal(got, want, sizeof got);
            ffai_request_free(r);
            ffai_engine_free(fresh);
        }
    }
    unlink(path);
    for (int i = 0; i < 2; i++) ffai_engine_free(e[i]);
}

static void test_embeddings(void **state) {
    (void)state;
    ffai_engine *cpu = engine("cpu", (ffai_engine_opts){.precision = "exact"});
    ffai_engine *gpu = engine("cuda", (ffai_engine_opts){.precision = "exact", .n_slot = 2});
    const int32_t *text[] = {ids, ids + 5, ids + 9};
    static const size_t n[] = {1, 33, 20};
    int64_t dim;
    assert_int_equal(ffai_embed_dim(model, &dim, NULL), 0);
    float *a = calloc(3 * (size_t)dim, sizeof *a), *b = calloc(3 * (size_t)dim, sizeof *b);
    assert_int_equal(ffai_embed_batch(cpu, text, n, 3, NULL, a, NULL), 0);
    assert_int_equal(ffai_embed_batch(gpu, text, n, 3, NULL, b, NULL), 0);
    for (int64_t i = 0; i < 3 * dim; i++) assert_float_equal(a[i], b[i], 1e-4);
    free(a);
    free(b);
    ffai_engine_free(gpu);
    ffai_engine_free(cpu);
}

/* Two engines of one model in two threads, created at the same time: weights are loaded once. */
static void *other_thread(void *arg) {
    float **x = arg;
    ffai_engine *e = engine("cuda", (ffai_engine_opts){.precision = "exact", .n_slot = 2});
    *x = eval(e, N, 9, 40, 2);
    ffai_engine_free(e);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    ffai_engine *cpu = engine("cpu", (ffai_engine_opts){.precision = "exact"});
    float *want = eval(cpu, N, 0, 0, 1), *got[2];
    pthread_t t[2];
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&t[i], NULL, other_thread, &got[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 2; i++) same(want, got[i], N, 2e-4, i ? "one thread" : "another thread");
    assert_null(model->on_device->next);
    free(want);
    ffai_engine_free(cpu);
}

/* ---- choosing ---- */

static void refused(ffai_engine_opts o, int code, const char *part) {
    ffai_error err = {0};
    ffai_engine *e;
    if (!o.cuda_module) o.cuda_module = hn_module_path();
    assert_int_equal(ffai_engine_create(&e, model, &o, &err), code);
    assert_null(e);
    if (!strstr(err.msg, part)) fail_msg("message \"%s\" lacks \"%s\"", err.msg, part);
}

static void test_choice(void **state) {
    (void)state;
    ffai_engine_info in;
    ffai_engine *e = engine("auto", (ffai_engine_opts){0});
    ffai_engine_get_info(e, &in);
    assert_string_equal(in.device, "cuda:0");
    assert_string_equal(in.passed_over, "");
    assert_true(in.device_bytes > in.cache_bytes + in.arena_bytes);
    ffai_engine_free(e);
    e = engine("auto", (ffai_engine_opts){.cpu = "c"});
    ffai_engine_get_info(e, &in);
    assert_string_equal(in.device, "cpu");
    ffai_engine_free(e);
    refused((ffai_engine_opts){.device = "cuda:999"}, FFAI_EINVAL, "cuda:999");
    refused((ffai_engine_opts){.device = "cuda:"}, FFAI_EINVAL, "cuda:N");
    refused((ffai_engine_opts){.device = "cuda:0x"}, FFAI_EINVAL, "\"cuda:0x\"");
    refused((ffai_engine_opts){.device = "gpu"}, FFAI_EINVAL, "\"gpu\"");
    refused((ffai_engine_opts){.device = "cuda", .cuda_module = "/no/such.so"}, FFAI_ENOTSUP, "/no/such.so");
    ffai_engine_opts o = {.n_ctx = 64, .cuda_module = "/no/such.so"};
    ffai_error err;
    if (ffai_engine_create(&e, model, &o, &err)) fail_msg("%s", err.msg);
    ffai_engine_get_info(e, &in);
    assert_string_equal(in.device, "cpu");
    assert_non_null(strstr(in.passed_over, "/no/such.so"));
    ffai_engine_free(e);
}

static void test_plan(void **state) {
    (void)state;
    ffai_plan with, without, cpu;
    ffai_engine_opts o = {.device = "cuda", .n_ctx = 256, .cuda_module = hn_module_path()};
    assert_int_equal(ffai_engine_plan(model, &o, &with, NULL), 0);
    o.cuda_module = "/no/such.so";
    assert_int_equal(ffai_engine_plan(model, &o, &without, NULL), 0);
    o.device = "cpu";
    assert_int_equal(ffai_engine_plan(model, &o, &cpu, NULL), 0);
    assert_int_equal(with.weight_bytes, without.weight_bytes);
    assert_in_range(with.weight_bytes, cpu.weight_bytes, 2 * cpu.weight_bytes);
    assert_in_range(with.cache_bytes, without.cache_bytes, 2 * without.cache_bytes);
    assert_true(with.arena_bytes >= without.arena_bytes && without.arena_bytes > 0);
    assert_true(fabs(with.decode_bytes - cpu.decode_bytes) < 0.2 * cpu.decode_bytes);
}

/* ---- what goes wrong ---- */

static int64_t available(void) {
    const fa_module *mod;
    fa_device *d = NULL;
    int64_t total, avail = 0;
    fa_error err;
    int rc = fa_module_open(&mod, hn_module_path(), &err);
    if (!rc) rc = mod->open(&d, 0, &err);
    if (!rc) rc = d->memory(d, &total, &avail, &err);
    if (rc) fail_msg("%s", err.msg);
    d->free(d);
    return avail;
}

/* A real driver keeps some memory for itself when kernels are first used. */
static void came_back(int64_t before) {
    int64_t now = available();
    if (hn_emulated())
        assert_int_equal(now, before);
    else
        assert_true(now >= before - (64 << 20));
}

static void test_no_room(void **state) {
    (void)state;
    refused((ffai_engine_opts){.device = "cuda", .n_ctx = 1 << 20, .n_slot = 1000 /* more than any GPU holds */},
            FFAI_ENOMEM, "GiB (weights");
    refused((ffai_engine_opts){.device = "cuda", .n_ctx = 1 << 20, .n_slot = 1000}, FFAI_ENOMEM, "cuda:0 has");
    ffai_engine_info in;
    ffai_engine *e = engine("auto", (ffai_engine_opts){.n_ctx = 1 << 20, .n_slot = 1000});
    ffai_engine_get_info(e, &in);
    assert_string_equal(in.device, "cpu");
    assert_non_null(strstr(in.passed_over, "GiB"));
    ffai_engine_free(e);
}

/* Weights are loaded once a model and go with it; engines give back what they took. */
static void test_memory(void **state) {
    (void)state;
    ffai_error err;
    ffai_model *m;
    int64_t before = available(), loaded = 0;
    if (ffai_model_open(&m, folder, NULL, &err)) fail_msg("%s", err.msg);
    for (int i = 0; i < 20; i++) {
        ffai_engine *a = engine_of(m, "cuda", (ffai_engine_opts){0}), *b = engine_of(m, "cuda", (ffai_engine_opts){0});
        free(eval(a, 3, 0, 1, 1));
        free(eval(b, 3, 0, 1, 1));
        ffai_engine_free(a);
        free(eval(b, 3, 0, 1, 1));
        ffai_engine_free(b);
        if (i == 0) loaded = available();
        came_back(loaded);
    }
    if (hn_emulated()) assert_true(loaded < before);
    ffai_model_free(m);
    came_back(before);
}

/* The carried model loaded and left again and again; $FFAI_TEST_CYCLES times, 25 unless it is set. */
static void test_cycles(void **state) {
    (void)state;
    const char *text = getenv("FFAI_TEST_CYCLES");
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/models/ffai-demo-6m", hn_source_dir());
    int64_t before = available();
    for (int i = 0, n = text ? atoi(text) : 25; i < n; i++) {
        ffai_error err;
        ffai_model *m;
        if (ffai_model_open(&m, dir, NULL, &err)) fail_msg("%s", err.msg);
        ffai_engine_free(engine_of(m, "cuda", (ffai_engine_opts){0}));
        ffai_model_free(m);
        came_back(before);
    }
}

/* No memory for activations in the middle of a run. */
static void test_no_activations(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("cuda", (ffai_engine_opts){0});
    ffai_request *r = submit(e, ids, 20, 2);
    int rc;
    e->dev->inject(e->dev, FA_INJECT_ALLOC, 1);
    while ((rc = ffai_engine_step(e, &err)) > 0) {
    }
    assert_int_equal(rc, FFAI_ENOMEM);
    assert_non_null(strstr(ffai_request_error(r)->msg, "activations"));
    ffai_request_free(r);
    r = submit(e, ids, 20, 2);
    run_all(e);
    ffai_request_free(r);
    ffai_engine_free(e);
}

/* A launch or an allocation that fails: the step's requests say so, the next ones run. */
static void test_failures(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("cuda", (ffai_engine_opts){.precision = "exact", .n_slot = 2});
    int32_t want[N_NEW], got[N_NEW];
    answer(e, ids, 20, want);
    for (int what = FA_INJECT_ALLOC; what <= FA_INJECT_LAUNCH; what++) {
        ffai_request *r = submit(e, ids + 3, 50 + (size_t)what, 4);
        e->dev->inject(e->dev, what, 1);
        int rc;
        while ((rc = ffai_engine_step(e, &err)) > 0) {
        }
        e->dev->inject(e->dev, what, 0);
        if (what == FA_INJECT_LAUNCH) {
            assert_true(rc < 0);
            assert_non_null(strstr(err.msg, "cuda:0"));
            assert_non_null(strstr(ffai_request_error(r)->msg, "cuda:0"));
        }
        ffai_request_free(r);
        answer(e, ids, 20, got);
        assert_memory_equal(got, want, sizeof got);
    }
    ffai_engine_free(e);
    int64_t before = available();
    for (long n = 1; n < 40; n++) { /* every allocation on the way to an engine */
        ffai_model *m;
        if (ffai_model_open(&m, folder, NULL, &err)) fail_msg("%s", err.msg);
        fa_alloc_fail_at(n);
        ffai_engine_opts o = {.device = "cuda", .n_ctx = 64, .cuda_module = hn_module_path()};
        int rc = ffai_engine_create(&e, m, &o, &err);
        fa_alloc_fail_at(0);
        if (rc) assert_int_equal(rc, FFAI_ENOMEM);
        ffai_engine_free(e);
        ffai_model_free(m);
        came_back(before);
    }
}

/* The last test: the device does not come back. */
static void test_lost(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("cuda", (ffai_engine_opts){0});
    ffai_request *r = submit(e, ids, 20, 4);
    int rc;
    e->dev->inject(e->dev, FA_INJECT_FAULT, 1);
    while ((rc = ffai_engine_step(e, &err)) > 0) {
    }
    assert_true(rc < 0);
    assert_int_equal(ffai_request_error(r)->code, rc);
    ffai_request_free(r);
    r = submit(e, ids, 5, 2);
    assert_true(ffai_engine_step(e, &err) < 0);
    assert_non_null(strstr(err.msg, "cuda:0"));
    ffai_request_free(r);
    ffai_engine_free(e);
    e = engine("cpu", (ffai_engine_opts){0}); /* the process goes on */
    free(eval(e, 3, 0, 0, 1));
    ffai_engine_free(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),    cmocka_unit_test(test_exact),          cmocka_unit_test(test_fast),
        cmocka_unit_test(test_requests),   cmocka_unit_test(test_sessions),       cmocka_unit_test(test_choice),
        cmocka_unit_test(test_embeddings), cmocka_unit_test(test_plan),           cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_memory),     cmocka_unit_test(test_synthetic),      cmocka_unit_test(test_failures),
        cmocka_unit_test(test_cycles),     cmocka_unit_test(test_no_activations), cmocka_unit_test(test_lost),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
