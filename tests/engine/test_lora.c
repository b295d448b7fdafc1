/* Adapters in an engine (of dense layers, of experts, with magnitudes): off is the model itself, to the bit; sequences
 * with different adapters in one batch answer as alone; they change at run time; what the cache holds is found by those
 * who use the same adapters at the same scales, in files too; what is wrong with a file is told and leaves the engine
 * as it was. Parity is in tests/families.
 *
 *     test_lora [DEVICE]         "cpu" by default; the module of "cuda:0" is $FFAI_CUDA_MODULE, or the emulated one */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/run.h"
#include "base/alloc.h"
#include "families/gen.h"
#include "ffai.h"

enum { N = 24, MAX_VOCAB = 512, GEN = 6, N_SLOT = 4 };

static const char *device = "cpu", *cuda_module;
static char dir[64], first[600], second[600];
static const char *fixture; /* the group's */
static bool magnitudes;     /* its first adapter has them */
static ffai_model *model;
static int32_t ids[N];
static int64_t vocab;

/* A fixture with two adapters on some of the same matrices. */
static int set_up(void **state) {
    (void)state;
    fx f;
    ffai_error err = {0};
    char path[512];
    const char *source = getenv("FFAI_SOURCE_DIR");
    char data[600];
    snprintf(data, sizeof data, "%s/tests/data/families", source ? source : FFAI_SOURCE_DIR);
    snprintf(dir, sizeof dir, "/tmp/ffai-lora-XXXXXX");
    if (!mkdtemp(dir) || fx_open(&f, data, fixture, &err) || fx_write(&f, dir, path, &err) ||
        ffai_model_open(&model, path, NULL, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    fx_close(&f);
    snprintf(first, sizeof first, "%s/adapter0", dir);
    snprintf(second, sizeof second, "%s/adapter1", dir);
    ffai_model_info info;
    ffai_model_get_info(model, &info);
    vocab = info.vocab;
    uint32_t x = 12345;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)((x = x * 1664525u + 1013904223u) >> 8) % (int32_t)vocab;
    return vocab <= MAX_VOCAB ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    char cmd[100];
    ffai_model_free(model);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static ffai_engine *engine(const char *precision, int n_slot) {
    ffai_error err = {0};
    ffai_engine *e = NULL;
    ffai_engine_opts o = {.device = device,
                          .cuda_module = cuda_module,
                          .precision = precision,
                          .n_ctx = 64,
                          .n_thread = 2,
                          .n_slot = n_slot,
                          .n_chunk = 16};
    if (ffai_engine_create(&e, model, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static ffai_adapter *load(ffai_engine *e, const char *path) {
    ffai_error err = {0};
    ffai_adapter *a = NULL;
    if (ffai_adapter_load(&a, e, path, &err)) fail_msg("%s", err.msg);
    return a;
}

static void use(ffai_engine *e, ffai_adapter *a, float scale) {
    ffai_error err = {0};
    ffai_adapter_use u = {a, scale};
    if (ffai_engine_use_adapters(e, &u, a ? 1 : 0, &err)) fail_msg("%s", err.msg);
}

typedef struct rows {
    float x[N * MAX_VOCAB];
    int n;
} rows;

static void keep(void *user, int64_t row, const float *logits, int64_t n) {
    rows *r = user;
    memcpy(r->x + row * n, logits, (size_t)n * sizeof *logits);
    r->n++;
}

static rows *eval(ffai_engine *e, int chunk, int decode_from, int batch) {
    ffai_error err = {0};
    rows *r = calloc(1, sizeof *r);
    assert_non_null(r);
    ffai_eval_opts o = {
        .ids = ids, .n_ids = N, .chunk = chunk, .decode_from = decode_from, .batch = batch, .logits = keep, .user = r};
    if (ffai_eval(e, &o, &err)) fail_msg("%s", err.msg);
    assert_int_equal(r->n, N);
    return r;
}

static double apart(const rows *a, const rows *b) {
    double d = 0;
    for (int64_t i = 0; i < N * vocab; i++) d = fmax(d, fabs((double)a->x[i] - (double)b->x[i]));
    return d;
}

static void same(rows *a, rows *b) {
    assert_memory_equal(a->x, b->x, (size_t)(N * vocab) * sizeof(float));
    free(b);
}

/* ---- on and off ---- */

static void test_off(void **state) {
    (void)state;
    static const char *const precisions[] = {"exact", "fast"};
    for (int p = 0; p < 2; p++) {
        ffai_engine *bare = engine(precisions[p], 1), *e = engine(precisions[p], 1);
        rows *want = eval(bare, 0, N / 2, 1);
        ffai_adapter *a = load(e, first), *b = load(e, second);
        same(want, eval(e, 0, N / 2, 1));
        use(e, a, 1);
        rows *on = eval(e, 0, N / 2, 1);
        assert_true(apart(want, on) > 0.1);
        use(e, b, 1);
        rows *other = eval(e, 0, N / 2, 1);
        assert_true(apart(want, other) > 0.1 && apart(on, other) > 0.1);
        use(e, a, 0);
        same(want, eval(e, 0, N / 2, 1));
        use(e, a, 1);
        same(on, eval(e, 0, N / 2, 1));
        use(e, NULL, 0);
        ffai_error err = {0};
        assert_int_equal(ffai_adapter_drop(a, &err), 0);
        same(want, eval(e, 0, N / 2, 1));
        use(e, b, 1);
        rows *still = eval(e, 0, N / 2, 1);
        /* sums that go straight to the residual stream wait while there are magnitudes */
        assert_true(apart(other, still) <= (magnitudes ? p ? 0.1 : 1e-4 : 0));
        free(still);
        assert_int_equal(ffai_adapter_drop(b, &err), 0); /* what the engine uses by itself may go */
        same(want, eval(e, 0, N / 2, 1));
        assert_int_equal(ffai_adapter_drop(NULL, &err), 0);
        free(want), free(on), free(other);
        ffai_engine_free(e);
        ffai_engine_free(bare);
    }
}

/* Twice the scale of one adapter is that adapter twice, and the file's scale is part of it. */
static void test_scales(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("exact", 1);
    ffai_adapter *a = load(e, first), *again = load(e, first);
    use(e, a, 2);
    rows *want = eval(e, 0, 0, 1);
    ffai_adapter_use both[] = {{a, 0.5f}, {again, 1}, {a, 0.5f}};
    assert_int_equal(ffai_engine_use_adapters(e, both, 3, &err), 0);
    rows *got = eval(e, 0, 0, 1);
    assert_true(apart(want, got) < 1e-4);
    ffai_adapter_info in;
    ffai_adapter_get_info(a, &in);
    assert_string_equal(in.kind, "peft");
    assert_string_equal(in.path, first);
    assert_true(in.n_matrix > 0 && in.rank == 1 && in.bytes > 0);
    free(want), free(got);
    ffai_engine_free(e);
}

static void test_pieces(void **state) {
    (void)state;
    ffai_engine *e = engine("exact", 3);
    ffai_adapter *b = load(e, second);
    use(e, b, 0.5f);
    rows *want = eval(e, 0, 0, 1);
    static const int how[][3] = {{5, 0, 1}, {0, 9, 1}, {0, 0, 3}, {7, 20, 3}, {1, 0, 2}};
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        rows *got = eval(e, how[i][0], how[i][1], how[i][2]);
        assert_true(apart(want, got) < 1e-4);
        free(got);
    }
    free(want);
    ffai_engine_free(e);
}

/* ---- requests ---- */

typedef struct answer {
    int32_t ids[GEN];
    float logprob[GEN];
    int reused;
} answer;

static ffai_request *submit(ffai_engine *e, int n, const ffai_adapter_use *u, size_t n_use, bool logprobs) {
    ffai_error err = {0};
    ffai_request *r = NULL;
    ffai_request_opts o = {.ids = ids,
                           .n_ids = (size_t)n,
                           .max_new = GEN,
                           .ignore_eos = true,
                           .n_logprob = logprobs ? 2 : 0,
                           .adapters = u,
                           .n_adapter = n_use};
    if (ffai_submit(e, &o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static answer result(ffai_request *r) {
    answer a = {.reused = 0};
    ffai_event ev;
    const int32_t *all;
    size_t n, n_prompt, reused;
    ffai_request_poll(r, &ev);
    assert_int_equal(ev.finish, FFAI_FINISH_LENGTH);
    for (size_t i = 0; ev.logprobs && i < ev.n_ids; i++) a.logprob[i] = ev.logprobs[i * (1 + ev.n_top)].logprob;
    ffai_request_ids(r, &all, &n, &n_prompt, &reused);
    memcpy(a.ids, all + n_prompt, sizeof a.ids);
    a.reused = (int)reused;
    ffai_request_free(r);
    return a;
}

static answer ask(ffai_engine *e, int n, const ffai_adapter_use *u, size_t n_use) {
    ffai_request *r = submit(e, n, u, n_use, true);
    run_out(e);
    return result(r);
}

static void close_to(const answer *a, const answer *b) {
    for (int i = 0; i < GEN; i++) {
        assert_int_equal(a->ids[i], b->ids[i]);
        assert_true(fabsf(a->logprob[i] - b->logprob[i]) < 1e-4f);
    }
}

/* Sequence k of a mixed batch: none, the one, the other at half, both. */
static size_t mix(int k, ffai_adapter *a, ffai_adapter *b, ffai_adapter_use u[2]) {
    u[0] = (ffai_adapter_use){k == 2 ? b : a, k == 2 ? 0.5f : 1};
    u[1] = (ffai_adapter_use){b, -1.5f};
    return k == 0 ? 0 : k == 3 ? 2 : 1;
}

static void test_mixed_batch(void **state) {
    (void)state;
    static const int prompt[N_SLOT] = {11, 20, 1, 13};
    for (int logprobs = 0; logprobs < 2; logprobs++) { /* without them a device picks by itself */
        ffai_engine *e = engine("exact", N_SLOT);
        ffai_adapter *a = load(e, first), *b = load(e, second);
        ffai_request *r[N_SLOT];
        ffai_adapter_use u[2];
        for (int k = 0; k < N_SLOT; k++) r[k] = submit(e, prompt[k], u, mix(k, a, b, u), logprobs);
        run_out(e);
        for (int k = 0; k < N_SLOT; k++) {
            ffai_engine *alone = engine("exact", 1);
            ffai_adapter *a1 = magnitudes ? load(alone, first) : NULL, *b1 = load(alone, second);
            if (!a1) a1 = load(alone, first); /* magnitudes are for what adapters before have made */
            size_t n = mix(k, a1, b1, u);
            ffai_request *one = submit(alone, prompt[k], u, n, logprobs);
            run_out(alone);
            answer want = result(one), got = result(r[k]);
            close_to(&want, &got);
            ffai_engine_free(alone);
        }
        ffai_engine_free(e);
    }
}

/* Adapters come and go while a request runs. */
static void test_while_running(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("exact", 2), *alone = engine("exact", 1);
    ffai_adapter *a = load(e, first), *a1 = load(alone, first), *b;
    ffai_adapter_use u = {a, 1}, u1 = {a1, 1};
    answer want = ask(alone, 9, &u1, 1);
    ffai_request *r = submit(e, 9, &u, 1, true);
    assert_int_equal(ffai_adapter_drop(a, &err), FFAI_EINVAL);
    for (int i = 0; i < 3; i++) assert_true(ffai_engine_step(e, &err) >= 0);
    assert_int_equal(ffai_adapter_drop(a, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "unfinished request"));
    b = load(e, second);
    assert_true(ffai_engine_step(e, &err) >= 0);
    assert_int_equal(ffai_adapter_drop(b, &err), 0);
    run_out(e);
    answer got = result(r);
    close_to(&want, &got);
    assert_int_equal(ffai_adapter_drop(a, &err), 0);
    ffai_engine_free(e);
    ffai_engine_free(alone);
}

/* The engine's own choice is what a request has that names none; an empty list is none. */
static void test_default(void **state) {
    (void)state;
    ffai_engine *e = engine("exact", 1);
    ffai_adapter *a = load(e, first);
    ffai_adapter_use u = {a, 1};
    answer plain = ask(e, 9, NULL, 0), on = ask(e, 9, &u, 1);
    use(e, a, 1);
    answer by_default = ask(e, 9, NULL, 0), none = ask(e, 9, &u, 0);
    close_to(&on, &by_default);
    close_to(&plain, &none);
    assert_true(memcmp(on.ids, plain.ids, sizeof on.ids) != 0 || fabsf(on.logprob[0] - plain.logprob[0]) > 1e-3f);
    ffai_engine_free(e);
}

/* ---- the cache ---- */

static void test_reuse(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("exact", 1);
    ffai_adapter *a = load(e, first);
    ffai_adapter_use u = {a, 1}, half = {a, 0.5f};
    answer plain = ask(e, 20, NULL, 0), with = ask(e, 20, &u, 1), again = ask(e, 20, &u, 1);
    assert_int_equal(plain.reused, 0);
    assert_int_equal(with.reused, 0);
    assert_int_equal(again.reused, 19);
    close_to(&with, &again);
    assert_int_equal(ask(e, 20, &half, 1).reused, 0);
    assert_int_equal(ask(e, 20, NULL, 0).reused, 0);
    answer back = ask(e, 20, NULL, 0);
    assert_int_equal(back.reused, 19);
    close_to(&plain, &back);
    /* another adapter in the place of one that went */
    ask(e, 20, &u, 1);
    assert_int_equal(ffai_adapter_drop(a, &err), 0);
    answer without = ask(e, 20, NULL, 0); /* what it made is no beginning of anything */
    assert_int_equal(without.reused, 0);
    close_to(&plain, &without);
    ffai_adapter *b = load(e, second);
    ffai_adapter_use ub = {b, 1};
    assert_int_equal(ask(e, 20, &ub, 1).reused, 0);
    ffai_engine_free(e);
}

static void test_sessions(void **state) {
    (void)state;
    ffai_error err = {0};
    char path[100];
    snprintf(path, sizeof path, "%s/session", dir);
    ffai_engine *e = engine("exact", 1);
    load(e, second);
    ffai_adapter *a = load(e, first);
    ffai_adapter_use u = {a, 0.5f};
    ffai_request *r = submit(e, 20, &u, 1, false);
    run_out(e);
    if (ffai_session_save(r, path, &err)) fail_msg("%s", err.msg);
    ffai_request_free(r);
    answer want = ask(e, 22, &u, 1);
    ffai_engine_free(e);

    int32_t *got = NULL;
    size_t n = 0;
    e = engine("exact", 1);
    assert_int_equal(ffai_session_load(e, path, &got, &n, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "adapters that are not loaded"));
    ffai_adapter *a2 = load(e, first);
    if (ffai_session_load(e, path, &got, &n, &err)) fail_msg("%s", err.msg);
    ffai_free(got);
    ffai_adapter_use u2 = {a2, 0.5f};
    answer on = ask(e, 22, &u2, 1);
    assert_true(on.reused >= 20);
    close_to(&want, &on);
    if (ffai_session_load(e, path, &got, &n, &err)) fail_msg("%s", err.msg);
    ffai_free(got);
    assert_int_equal(ask(e, 22, NULL, 0).reused, 0);
    ffai_engine_free(e);
}

/* ---- what is refused ---- */

static void copy_file(const char *from, const char *to, size_t most) {
    FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
    assert_non_null(f);
    assert_non_null(g);
    for (int c; most-- && (c = fgetc(f)) != EOF;) fputc(c, g);
    fclose(f);
    fclose(g);
}

/* An adapter folder with the first adapter's matrices, cut to `most` bytes, and this config; NULL: its own. */
static const char *variant(const char *config, size_t most) {
    static char path[200];
    static int n;
    char from[700], to[300];
    snprintf(path, sizeof path, "%s/variant%d", dir, n++);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(from, sizeof from, "%s/adapter_model.safetensors", first);
    snprintf(to, sizeof to, "%s/adapter_model.safetensors", path);
    copy_file(from, to, most);
    snprintf(to, sizeof to, "%s/adapter_config.json", path);
    if (config) {
        FILE *f = fopen(to, "w");
        assert_non_null(f);
        fputs(config, f);
        fclose(f);
    } else {
        snprintf(from, sizeof from, "%s/adapter_config.json", first);
        copy_file(from, to, (size_t)-1);
    }
    return path;
}

static void refused(ffai_engine *e, const char *path, int code, const char *words) {
    ffai_error err = {0};
    ffai_adapter *a = (ffai_adapter *)(void *)&err;
    int rc = ffai_adapter_load(&a, e, path, &err);
    if (rc != code) fail_msg("%d (%s), not %d", rc, err.msg, code);
    assert_null(a);
    if (!strstr(err.msg, words)) fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *config;
        int code;
        const char *words;
    } wrong[] = {
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 2}", FFAI_EFORMAT, "rank 1, adapter_config.json says 2"},
        {"{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1e400}", FFAI_EFORMAT, ""},
        {"{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": \"x\"}", 0, NULL},
        {"{\"peft_type\": \"LORA\", \"r\": 1, \"use_dora\": true}", FFAI_EFORMAT, "magnitudes are missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 1, \"modules_to_save\": [\"lm_head\"]}", FFAI_ENOTSUP, "modules_to_save"},
        {"{\"peft_type\": \"LORA\", \"r\": 1, \"bias\": \"all\"}", FFAI_ENOTSUP, "\"bias\" is \"all\""},
        {"{\"peft_type\": \"LORA\", \"r\": 1, \"init_lora_weights\": \"pissa_niter_4\"}", FFAI_ENOTSUP,
         "pissa_niter_4"},
        {"{\"peft_type\": \"LORA\", \"r\": 1, \"rank_pattern\": {\"(\": 1}}", FFAI_EFORMAT, ""},
        {"{\"peft_type\": \"IA3\"}", FFAI_ENOTSUP, "IA3"},
        {"{\"fine_tune_type\": \"full\"}", FFAI_ENOTSUP, "only lora and dora"},
        {"{\"fine_tune_type\": \"dora\", \"lora_parameters\": {\"scale\": 1}}", FFAI_ENOTSUP, "no low-rank"},
        {"{\"lora_parameters\": {\"rank\": 1}}", FFAI_ENOTSUP, ""},
        {"{}", FFAI_ENOTSUP, "peft_type"},
        {"[]", FFAI_EFORMAT, "not a JSON object"},
        {"{", FFAI_EFORMAT, ""},
    };
    ffai_engine *e = engine("exact", 1);
    char path[700];
    rows *want = eval(e, 0, 0, 1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (wrong[i].code) refused(e, variant(wrong[i].config, (size_t)-1), wrong[i].code, wrong[i].words);
    refused(e, variant(NULL, 100), FFAI_EFORMAT, "");
    refused(e, "/nonexistent/adapter", FFAI_EIO, "/nonexistent/adapter");
    refused(e, dir, FFAI_EIO, "adapter_model.safetensors");
    snprintf(path, sizeof path, "%s/model.safetensors", dir); /* no adapter_config.json beside it */
    refused(e, path, FFAI_EIO, "adapter_config.json");
    refused(e, NULL, FFAI_EINVAL, "NULL");
    same(want, eval(e, 0, 0, 1));
    free(want);
    ffai_engine_free(e);
}

/* Another model's adapter: everything that does not fit is named at once. */
static void test_other_model(void **state) {
    (void)state;
    fx f;
    ffai_error err = {0};
    char other[200], path[512];
    snprintf(other, sizeof other, "%s/other", dir);
    mkdir(other, 0777);
    assert_int_equal(fx_open(&f, FFAI_SOURCE_DIR "/tests/data/families", "lora_phi3_fused", &err), 0);
    assert_int_equal(fx_write(&f, other, path, &err), 0);
    fx_close(&f);
    snprintf(path, sizeof path, "%s/adapter0", other);
    ffai_engine *e = engine("exact", 1);
    refused(e, path, FFAI_EFORMAT, "model.layers.{0-");
    refused(e, path, FFAI_EFORMAT, "self_attn.qkv_proj");
    refused(e, path, FFAI_EFORMAT, "mlp.gate_up_proj");
    assert_int_equal(fx_open(&f, FFAI_SOURCE_DIR "/tests/data/families", "lora_gemma3_scaled", &err), 0);
    assert_int_equal(fx_write(&f, other, path, &err), 0);
    fx_close(&f);
    snprintf(path, sizeof path, "%s/adapter0", other);
    refused(e, path, FFAI_EFORMAT, "model.layers.{3-5}.self_attn.o_proj");
    refused(e, path, FFAI_EFORMAT, "model.layers.0.mlp.up_proj: matrices [");
    ffai_engine_free(e);
}

static void test_use_refused(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("exact", 1), *other = engine("exact", 1);
    ffai_adapter *a = load(e, first), *b = load(other, first);
    ffai_adapter_use bad[] = {{a, NAN}, {a, INFINITY}, {b, 1}, {NULL, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ffai_request *r = NULL;
        ffai_request_opts o = {.ids = ids, .n_ids = 3, .max_new = 1, .adapters = &bad[i], .n_adapter = 1};
        assert_int_equal(ffai_engine_use_adapters(e, &bad[i], 1, &err), FFAI_EINVAL);
        assert_int_equal(ffai_submit(e, &o, &r, &err), FFAI_EINVAL);
        assert_null(r);
    }
    ffai_adapter *more;
    for (int i = 1; i < 64; i++) load(e, first);
    assert_int_equal(ffai_adapter_load(&more, e, first, &err), FFAI_ELIMIT);
    ffai_engine_free(e);
    ffai_engine_free(other);
}

/* The n-th allocation fails: an error, and nothing has changed. */
static void test_no_memory(void **state) {
    (void)state;
    ffai_engine *e = engine("exact", 1);
    ffai_adapter *a = load(e, first), *b = NULL;
    use(e, a, 1);
    rows *want = eval(e, 0, 0, 1);
    int failed = 0;
    bool came = true;
    for (long n = 1; came; n += n < 40 ? 1 : 7) {
        ffai_error err = {0};
        fa_alloc_fail_at(n);
        int rc = ffai_adapter_load(&b, e, magnitudes ? first : second, &err);
        came = fa_alloc_fail_left() == 0;
        fa_alloc_fail_at(0);
        if (rc && (rc != FFAI_ENOMEM || !came)) fail_msg("allocation %ld: %s", n, err.msg);
        failed += rc != 0;
        assert_int_equal(ffai_adapter_drop(b, &err), 0); /* some blocks are a convenience */
    }
    assert_true(failed > 40);
    same(want, eval(e, 0, 0, 1));
    free(want);
    ffai_engine_free(e);
}

/* ---- files for experts: shapes are all that there is to them ---- */

typedef struct made {
    const char *name, *shape;
    int64_t n; /* values of 4 bytes */
} made;

/* An adapter folder with these tensors, all zeros. */
static const char *folder_of(const char *config, const char *file, const made *t, int n) {
    static char path[200];
    static int number;
    char to[300], head[4000];
    int len = 0;
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        len += snprintf(head + len, sizeof head - (size_t)len,
                        "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%lld,%lld]}", i ? "," : "{",
                        t[i].name, t[i].shape, (long long)(4 * at), (long long)(4 * (at + t[i].n)));
        at += t[i].n;
    }
    len += snprintf(head + len, sizeof head - (size_t)len, "}");
    while (len % 8) head[len++] = ' ';
    snprintf(path, sizeof path, "%s/made%d", dir, number++);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(to, sizeof to, "%s/%s", path, file);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    uint64_t size = (uint64_t)len;
    fwrite(&size, 8, 1, f);
    fwrite(head, 1, (size_t)len, f);
    for (int64_t i = 0; i < 4 * at; i++) fputc(0, f);
    fclose(f);
    snprintf(to, sizeof to, "%s/adapter_config.json", path);
    f = fopen(to, "w");
    assert_non_null(f);
    fputs(config, f);
    fclose(f);
    return path;
}

#define EXPERTS "model.layers.0.mlp.experts"
#define SWITCH  "model.layers.1.mlp.switch_mlp"

/* Of 8 experts with 40 values each in a model of 72. */
static void test_expert_files(void **state) {
    (void)state;
    static const char one[] = "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 2}",
                      dora[] = "{\"peft_type\": \"LORA\", \"r\": 2, \"use_dora\": true}",
                      stack[] = "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 2, \"target_parameters\": "
                                "[\"experts.gate_up_proj\", \"experts.down_proj\"]}",
                      mlx[] = "{\"fine_tune_type\": \"lora\", \"lora_parameters\": {\"rank\": 2, \"scale\": 2.0}}";
    static const struct {
        const char *config;
        made t[4];
        int n, code;
        const char *words;
    } files[] = {
        /* experts of their own: some of them are enough */
        {one,
         {{EXPERTS ".3.gate_proj.lora_A.weight", "2,72", 144}, {EXPERTS ".3.gate_proj.lora_B.weight", "40,2", 80}},
         2,
         0,
         ""},
        {one,
         {{EXPERTS ".8.gate_proj.lora_A.weight", "2,72", 144}, {EXPERTS ".8.gate_proj.lora_B.weight", "40,2", 80}},
         2,
         FFAI_EFORMAT,
         "number 8 of 8 experts of [40, 72]"},
        {one,
         {{EXPERTS ".99999999999999999999.up_proj.lora_A.weight", "2,72", 144},
          {EXPERTS ".99999999999999999999.up_proj.lora_B.weight", "40,2", 80}},
         2,
         FFAI_EFORMAT,
         "does not have"},
        {one,
         {{EXPERTS ".-1.up_proj.lora_A.weight", "2,72", 144}, {EXPERTS ".-1.up_proj.lora_B.weight", "40,2", 80}},
         2,
         FFAI_EFORMAT,
         "does not have"},
        {one,
         {{EXPERTS ".3.other.lora_A.weight", "2,72", 144}, {EXPERTS ".3.other.lora_B.weight", "40,2", 80}},
         2,
         FFAI_EFORMAT,
         EXPERTS ".3.other"},
        {one,
         {{EXPERTS ".3.down_proj.lora_A.weight", "2,72", 144}, {EXPERTS ".3.down_proj.lora_B.weight", "40,2", 80}},
         2,
         FFAI_EFORMAT,
         EXPERTS ".3.down_proj: matrices [2, 72] and [40, 2] for number 3 of 8 experts of [72, 40]"},
        {one,
         {{EXPERTS ".3.down_proj.lora_A.weight", "3,40", 120}, {EXPERTS ".3.down_proj.lora_B.weight", "72,3", 216}},
         2,
         FFAI_EFORMAT,
         "rank 3"},
        {one,
         {{EXPERTS ".3.down_proj.lora_A.weight", "2,40", 80},
          {EXPERTS ".3.down_proj.lora_B.weight", "72,2", 144},
          {EXPERTS ".03.down_proj.lora_A.weight", "2,40", 80},
          {EXPERTS ".03.down_proj.lora_B.weight", "72,2", 144}},
         4,
         FFAI_EFORMAT,
         "same expert's"},
        {one, {{EXPERTS ".3.down_proj.lora_A.weight", "2,40", 80}}, 1, FFAI_EFORMAT, "second matrix is missing"},
        {dora,
         {{EXPERTS ".3.gate_proj.lora_A.weight", "2,72", 144},
          {EXPERTS ".3.gate_proj.lora_B.weight", "40,2", 80},
          {EXPERTS ".3.gate_proj.lora_magnitude_vector", "40", 40}},
         3,
         FFAI_ENOTSUP,
         "magnitudes of experts"},
        /* stacks of PEFT: the outer wrapper is down_proj */
        {stack, {{EXPERTS ".lora_A.weight", "16,40", 640}, {EXPERTS ".lora_B.weight", "72,16", 1152}}, 2, 0, ""},
        {stack,
         {{EXPERTS ".base_layer.lora_A.weight", "16,72", 1152}, {EXPERTS ".base_layer.lora_B.weight", "80,16", 1280}},
         2,
         0,
         ""},
        {stack,
         {{EXPERTS ".lora_A.weight", "15,40", 600}, {EXPERTS ".lora_B.weight", "72,15", 1080}},
         2,
         FFAI_EFORMAT,
         "of 8 experts of [72, 40]"},
        {stack,
         {{EXPERTS ".lora_A.weight", "24,40", 960}, {EXPERTS ".lora_B.weight", "72,24", 1728}},
         2,
         FFAI_EFORMAT,
         "rank 24, adapter_config.json says 2 for each expert"},
        {stack,
         {{EXPERTS ".lora_A.weight", "16,41", 656}, {EXPERTS ".lora_B.weight", "72,16", 1152}},
         2,
         FFAI_EFORMAT,
         "[16, 41]"},
        {stack,
         {{EXPERTS ".lora_A.weight", "16,40", 640},
          {EXPERTS ".lora_B.weight", "72,16", 1152},
          {EXPERTS ".lora_B.bias", "72", 72}},
         3,
         FFAI_ENOTSUP,
         "biases of experts"},
        {stack,
         {{EXPERTS ".lora_A.weight", "0,40", 0}, {EXPERTS ".lora_B.weight", "72,0", 0}},
         2,
         FFAI_EFORMAT,
         "no rank"},
        {stack,
         {{EXPERTS ".lora_A.weight", "4611686018427387904,40", 0}, {EXPERTS ".lora_B.weight", "72,16", 1152}},
         2,
         FFAI_EFORMAT,
         ""},
        {stack,
         {{"model.layers.0.mlp.gate.lora_A.weight", "16,72", 1152},
          {"model.layers.0.mlp.gate.lora_B.weight", "8,16", 128}},
         2,
         FFAI_EFORMAT,
         "rank 16"},
        /* stacks of mlx-lm */
        {mlx, {{SWITCH ".up_proj.lora_a", "8,2,72", 1152}, {SWITCH ".up_proj.lora_b", "8,40,2", 640}}, 2, 0, ""},
        {mlx,
         {{SWITCH ".up_proj.lora_a", "7,2,72", 1008}, {SWITCH ".up_proj.lora_b", "7,40,2", 560}},
         2,
         FFAI_EFORMAT,
         SWITCH ".up_proj: matrices [7, 2, 72] and [7, 40, 2] of 8 experts of [40, 72]"},
        {mlx,
         {{SWITCH ".up_proj.lora_a", "8,2,72", 1152}, {SWITCH ".up_proj.lora_b", "8,40,3", 960}},
         2,
         FFAI_EFORMAT,
         "no rank"},
        {mlx,
         {{SWITCH ".up_proj.lora_a", "8,2,72", 1152}, {SWITCH ".up_proj.lora_b", "40,2", 80}},
         2,
         FFAI_EFORMAT,
         "no rank"},
        {mlx,
         {{SWITCH ".up_proj.lora_a", "72,2", 144}, {SWITCH ".up_proj.lora_b", "2,40", 80}},
         2,
         FFAI_EFORMAT,
         "of 8 experts of [40, 72]"},
        {mlx,
         {{"model.layers.0.self_attn.q_proj.lora_a", "8,2,72", 1152},
          {"model.layers.0.self_attn.q_proj.lora_b", "8,40,2", 640}},
         2,
         FFAI_EFORMAT,
         "q_proj: matrices"},
    };
    ffai_engine *e = engine("exact", 1);
    rows *want = eval(e, 0, 0, 1);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *weights = files[i].config == mlx ? "adapters.safetensors" : "adapter_model.safetensors",
                   *path = folder_of(files[i].config, weights, files[i].t, files[i].n);
        if (files[i].code) {
            refused(e, path, files[i].code, files[i].words);
            continue;
        }
        ffai_error err = {0};
        ffai_adapter *a = load(e, path);
        use(e, a, 1); /* zeros change nothing */
        rows *got = eval(e, 0, 0, 1);
        assert_true(apart(want, got) < 1e-4);
        free(got);
        use(e, NULL, 0);
        assert_int_equal(ffai_adapter_drop(a, &err), 0);
    }
    same(want, eval(e, 0, 0, 1));
    free(want);
    ffai_engine_free(e);
}

/* Magnitudes: a scale is not how often the adapter is used, and 0 is the model itself. */
static void test_magnitudes(void **state) {
    (void)state;
    static const char dora[] = "{\"peft_type\": \"LORA\", \"r\": 2, \"use_dora\": true}";
    static const made few[] = {{"model.layers.0.self_attn.q_proj.lora_A.weight", "2,64", 128},
                               {"model.layers.0.self_attn.q_proj.lora_B.weight", "64,2", 128},
                               {"model.layers.0.self_attn.q_proj.lora_magnitude_vector", "63", 63}};
    ffai_engine *e = engine("exact", 1);
    ffai_adapter *a = load(e, first);
    rows *want = eval(e, 0, 0, 1);
    use(e, a, 1e-6f);
    rows *almost = eval(e, 0, 0, 1); /* rows have their own lengths already */
    assert_true(apart(want, almost) > 0.01);
    use(e, a, 0);
    same(want, eval(e, 0, 0, 1));
    refused(e, folder_of(dora, "adapter_model.safetensors", few, 2), FFAI_EFORMAT, "magnitudes are missing");
    refused(e, folder_of(dora, "adapter_model.safetensors", few, 3), FFAI_EFORMAT, "q_proj");
    free(want), free(almost);
    ffai_engine_free(e);
}

/* They are applied in the order in which they were loaded, also where one takes the place of another that went. */
static void test_order(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine("exact", 1);
    ffai_adapter *a = load(e, first), *b = load(e, second);
    ffai_adapter_use both[] = {{a, 1}, {b, 1}};
    assert_int_equal(ffai_engine_use_adapters(e, both, 2, &err), 0);
    rows *ab = eval(e, 0, 0, 1);
    assert_int_equal(ffai_adapter_drop(a, &err), 0);
    both[0].adapter = load(e, first); /* where a was */
    assert_int_equal(ffai_engine_use_adapters(e, both, 2, &err), 0);
    rows *ba = eval(e, 0, 0, 1);
    assert_true(apart(ab, ba) > 0.01);
    ffai_engine *other = engine("exact", 1);
    both[1].adapter = load(other, second), both[0].adapter = load(other, first);
    assert_int_equal(ffai_engine_use_adapters(other, both, 2, &err), 0);
    rows *want = eval(other, 0, 0, 1);
    assert_true(apart(want, ba) < 1e-4);
    free(ab), free(ba), free(want);
    ffai_engine_free(e);
    ffai_engine_free(other);
}

static int run_group(const char *name, const struct CMUnitTest *tests, size_t n) {
    fixture = name;
    magnitudes = strstr(name, "_dora") != NULL;
    return _cmocka_run_group_tests(name, tests, n, set_up, tear_down);
}
#define RUN(name, tests) run_group(name, tests, sizeof tests / sizeof *tests)

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off),         cmocka_unit_test(test_scales),        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_mixed_batch), cmocka_unit_test(test_while_running), cmocka_unit_test(test_default),
        cmocka_unit_test(test_reuse),       cmocka_unit_test(test_sessions),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_other_model), cmocka_unit_test(test_use_refused),   cmocka_unit_test(test_no_memory)};
    const struct CMUnitTest experts[] = {cmocka_unit_test(test_off),         cmocka_unit_test(test_pieces),
                                         cmocka_unit_test(test_mixed_batch), cmocka_unit_test(test_while_running),
                                         cmocka_unit_test(test_no_memory),   cmocka_unit_test(test_expert_files)};
    const struct CMUnitTest lengths[] = {cmocka_unit_test(test_off),         cmocka_unit_test(test_pieces),
                                         cmocka_unit_test(test_mixed_batch), cmocka_unit_test(test_while_running),
                                         cmocka_unit_test(test_no_memory),   cmocka_unit_test(test_magnitudes),
                                         cmocka_unit_test(test_order)};
    if (argc > 1) device = argv[1];
    cuda_module = getenv("FFAI_CUDA_MODULE");
#ifdef FFAI_CUDA_EMU_MODULE
    if (!cuda_module) cuda_module = FFAI_CUDA_EMU_MODULE;
#endif
    return RUN("lora_llama_two", tests) + RUN("lora_qwen3moe_params", experts) + RUN("lora_llama_dora_two", lengths);
}
