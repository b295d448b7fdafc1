/* Laws of the engine, on the carried model: however a sequence is fed (whole, in chunks, token by token, in a batch,
 * through a slot that was used before, on any number of threads, by fused or composed operations), its logits are the
 * same; and requests give the same tokens alone and together. No golden values: the parity suite has those.
 *
 *     test_laws [DEVICE]         "cpu" by default; the module of "cuda:0" is $FFAI_CUDA_MODULE, or the emulated one */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kern.h"
#include "ffai.h"

enum { N = 150 /* more than two cache pages */, VOCAB_MAX = 8192 };

static const char *device = "cpu", *cuda_module;
static int n_row = N, n_gen = 40; /* fewer on an emulated device, which is slow */
static ffai_model *model;
static int32_t ids[N];
static int64_t vocab;

static int set_up(void **state) {
    (void)state;
    ffai_error err;
    char dir[1024];
    const char *source = getenv("FFAI_SOURCE_DIR"); /* elsewhere than where it was built */
    snprintf(dir, sizeof dir, "%s/models/ffai-demo-6m", source ? source : FFAI_SOURCE_DIR);
    if (ffai_model_open(&model, dir, NULL, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    ffai_model_info info;
    ffai_model_get_info(model, &info);
    vocab = info.vocab;
    uint32_t x = 12345; /* any fixed ids will do */
    for (int i = 0; i < N; i++) ids[i] = (int32_t)((x = x * 1664525u + 1013904223u) >> 8) % (int32_t)vocab;
    return vocab <= VOCAB_MAX ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    ffai_model_free(model);
    return 0;
}

static ffai_engine *engine(ffai_engine_opts o) {
    ffai_error err = {0};
    ffai_engine *e = NULL;
    if (!o.n_ctx) o.n_ctx = 256;
    o.device = device;
    o.cuda_module = cuda_module;
    if (ffai_engine_create(&e, model, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

typedef struct rows {
    float *x; /* [N, vocab] */
    int64_t n;
} rows;

static void keep(void *user, int64_t row, const float *logits, int64_t n) {
    rows *r = user;
    memcpy(r->x + row * n, logits, (size_t)n * sizeof *logits);
    r->n++;
}

static float *eval(ffai_engine *e, int chunk, int decode_from, int batch) {
    ffai_error err = {0};
    rows r = {malloc((size_t)N * (size_t)vocab * sizeof(float)), 0};
    assert_non_null(r.x);
    ffai_eval_opts o = {.ids = ids,
                        .n_ids = n_row,
                        .chunk = chunk,
                        .decode_from = decode_from,
                        .batch = batch,
                        .logits = keep,
                        .user = &r};
    if (ffai_eval(e, &o, &err)) fail_msg("%s", err.msg);
    assert_int_equal(r.n, n_row);
    return r.x;
}

static double difference(float *a, float *b) {
    double max = 0;
    for (int64_t i = 0; i < n_row * vocab; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= max)) max = d;
    }
    return max;
}

static void same(float *want, float *got, double limit, const char *what) {
    double d = difference(want, got);
    free(got);
    if (!(d <= limit)) fail_msg("%s: logits differ by %g, at most %g is allowed", what, d, limit);
}

/* All ways to feed a sequence, in exact precision. */
static void test_feeding(void **state) {
    (void)state;
    ffai_engine *e = engine((ffai_engine_opts){.precision = "exact", .n_slot = 3, .n_thread = 2});
    float *want = eval(e, 0, 0, 1);
    same(want, eval(e, 0, 0, 1), 0, "again");
    same(want, eval(e, 7, 0, 1), 2e-4, "chunks of 7");
    same(want, eval(e, 64, 0, 1), 2e-4, "chunks of 64");
    same(want, eval(e, 0, 1, 1), 2e-4, "token by token");
    same(want, eval(e, 0, n_row / 2 + 2, 1), 2e-4, "token by token from the middle");
    same(want, eval(e, 0, 0, 3), 2e-4, "batch of 3");
    same(want, eval(e, 5, n_row * 2 / 3, 3), 2e-4, "batch of 3, in chunks, then token by token");
    same(want, eval(e, 0, 0, 1), 0, "a used slot");
    ffai_engine_free(e);
    e = engine((ffai_engine_opts){.precision = "exact", .n_thread = 1});
    same(want, eval(e, 0, 0, 1), 2e-4, "one thread");
    ffai_engine_free(e);
    e = engine((ffai_engine_opts){.precision = "exact", .n_thread = 5, .composed = true});
    same(want, eval(e, 0, n_row * 2 / 5, 1), 2e-4, "composed operations, five threads");
    ffai_engine_free(e);
    free(want);
}

/* Mean Kullback-Leibler divergence of softmax(b) from softmax(a) over rows. */
static double divergence(const float *a, const float *b) {
    double sum = 0;
    for (int r = 0; r < n_row; r++, a += vocab, b += vocab) {
        double ma = -INFINITY, mb = -INFINITY, za = 0, zb = 0, kl = 0;
        for (int64_t i = 0; i < vocab; i++) ma = fmax(ma, a[i]), mb = fmax(mb, b[i]);
        for (int64_t i = 0; i < vocab; i++) za += exp(a[i] - ma), zb += exp(b[i] - mb);
        for (int64_t i = 0; i < vocab; i++) {
            double la = a[i] - ma - log(za), lb = b[i] - mb - log(zb);
            kl += exp(la) * (la - lb);
        }
        sum += kl;
    }
    return sum / n_row;
}

/* fast stays close to exact (docs/precision.md), and obeys the same laws within its own rounding. */
static void test_fast(void **state) {
    (void)state;
    ffai_engine *e = engine((ffai_engine_opts){.precision = "exact"});
    float *exact = eval(e, 0, 0, 1);
    ffai_engine_free(e);
    static const char *const kv[] = {"f32", "f16", "bf16", "q8"};
    for (int i = n_row < N; i < (n_row < N ? 2 : 4); i++) {
        e = engine((ffai_engine_opts){.precision = "fast", .kv_cache = kv[i], .n_slot = 6});
        float *fast = eval(e, 0, 0, 1), *pieces = eval(e, 9, n_row / 2, 2), *six = eval(e, 2, n_row / 2, 6);
        double kl = divergence(exact, fast), kl2 = divergence(exact, pieces), kl6 = divergence(exact, six);
        print_message("fast, %s cache: mean KL %.3g whole, %.3g in pieces, %.3g six at once\n", kv[i], kl, kl2, kl6);
        const double limit = i == 3 ? 3e-3 : 1e-3; /* 8 bits cost what bf16 activations do */
        assert_true(kl <= limit && kl2 <= limit && kl6 <= limit);
        free(fast);
        free(pieces);
        free(six);
        ffai_engine_free(e);
    }
    free(exact);
}

/* Every instruction set in fast precision, whose int8 products each level makes in its own way. */
static void test_levels(void **state) {
    (void)state;
    if (strcmp(device, "cpu") != 0) skip();
    ffai_engine *e = engine((ffai_engine_opts){.precision = "exact"});
    float *exact = eval(e, 0, 0, 1);
    ffai_engine_free(e);
    for (size_t i = 0; fa_kernels_level(i); i++) {
        fa_kernels k;
        if (fa_kernels_init(&k, fa_kernels_level(i), NULL)) continue;
        e = engine((ffai_engine_opts){.precision = "fast", .cpu = fa_kernels_level(i)});
        float *fast = eval(e, 0, n_row * 3 / 4, 1);
        double kl = divergence(exact, fast);
        print_message("fast, %s: mean KL %.3g\n", fa_kernels_level(i), kl);
        assert_true(kl <= 1e-3);
        free(fast);
        ffai_engine_free(e);
    }
    free(exact);
}

/* ---- requests ---- */

enum { GEN = 40 /* most */ };

static ffai_request *submit(ffai_engine *e, int first, int n, int max_new, ffai_sampling s) {
    ffai_error err = {0};
    ffai_request *r = NULL;
    ffai_request_opts o = {
        .ids = ids + first, .n_ids = (size_t)n, .max_new = max_new, .sampling = s, .ignore_eos = true};
    if (ffai_submit(e, &o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static void run_out(ffai_engine *e) {
    ffai_error err = {0};
    int rc;
    while ((rc = ffai_engine_step(e, &err)) > 0) {
    }
    if (rc < 0) fail_msg("%s", err.msg);
}

/* More requests than slots, prompts longer than a chunk: each gives what it gives alone. */
static void test_together(void **state) {
    (void)state;
    static const int first[5] = {0, 10, 31, 50, 90}, len[5] = {40, 1, 90, 25, 60};
    int n[5], n_prompt = 0;
    ffai_sampling s[5];
    for (int i = 0; i < 5; i++) n_prompt += n[i] = len[i] * n_row / N > 0 ? len[i] * n_row / N : 1;
    for (int i = 0; i < 5; i++)
        s[i] = (ffai_sampling){
            .temp = i % 2 ? 0.9f : 0, .top_k = i == 3 ? 20 : 0, .top_p = 0.95f, .seed = 7u + (unsigned)i};
    int32_t alone[5][GEN];
    for (int i = 0; i < 5; i++) {
        ffai_engine *e = engine((ffai_engine_opts){.precision = "exact"});
        ffai_request *r = submit(e, first[i], n[i], n_gen, s[i]);
        ffai_event ev;
        run_out(e);
        ffai_request_poll(r, &ev);
        assert_int_equal(ev.finish, FFAI_FINISH_LENGTH);
        assert_int_equal(ev.n_ids, n_gen);
        memcpy(alone[i], ev.ids, (size_t)n_gen * sizeof alone[i][0]);
        ffai_engine_free(e);
    }
    ffai_engine *e = engine((ffai_engine_opts){.precision = "exact", .n_slot = 2, .n_chunk = n_row < N ? 5 : 16});
    ffai_request *r[5];
    for (int i = 0; i < 5; i++) r[i] = submit(e, first[i], n[i], n_gen, s[i]);
    run_out(e);
    for (int i = 0; i < 5; i++) {
        ffai_event ev;
        ffai_request_poll(r[i], &ev);
        assert_int_equal(ev.n_ids, n_gen);
        assert_memory_equal(ev.ids, alone[i], (size_t)n_gen * sizeof alone[i][0]);
        ffai_request_free(r[i]);
    }
    ffai_engine_stats st;
    ffai_engine_get_stats(e, &st);
    assert_int_equal(st.gen_tokens, 5 * n_gen);
    assert_int_equal(st.prompt_tokens, n_prompt);
    ffai_engine_free(e);
}

/* The pieces that polls hand out are whole characters and add up to the text of all tokens. */
static void test_streaming(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine((ffai_engine_opts){0});
    int32_t *prompt, all[100];
    size_t n, n_all = 0, len;
    const int n_new = n_row < N ? 30 : 100;
    char *text, joined[4096] = "";
    assert_int_equal(ffai_tokenize(model, "It was", 6, FFAI_TOK_SPECIAL, &prompt, &n, &err), 0);
    ffai_request_opts o = {.ids = prompt,
                           .n_ids = n,
                           .max_new = n_new,
                           .sampling = {.temp = 1.5f, .top_p = 1, .seed = 3},
                           .ignore_eos = true};
    ffai_request *r = NULL;
    assert_int_equal(ffai_submit(e, &o, &r, &err), 0);
    for (int more = 1; more;) {
        ffai_event ev;
        more = ffai_engine_step(e, &err);
        assert_true(more >= 0);
        ffai_request_poll(r, &ev);
        strncat(joined, ev.text, ev.text_len);
        if (ev.text_len) assert_true(((unsigned char)ev.text[0] & 0xC0) != 0x80);
        for (size_t i = 0; i < ev.n_ids; i++) all[n_all++] = ev.ids[i];
    }
    assert_int_equal(n_all, n_new);
    assert_int_equal(ffai_detokenize(model, all, n_all, true, &text, &len, &err), 0);
    assert_string_equal(joined, text);

    /* the same request with a stop string from the middle of that text ends right before it */
    char stop[6] = {0};
    memcpy(stop, text + len / 2, 5);
    const char *stops[] = {"never occurs \x01", stop};
    o.stop = stops;
    o.n_stop = 2;
    ffai_request *r2 = NULL;
    assert_int_equal(ffai_submit(e, &o, &r2, &err), 0);
    size_t at = 0, want = (size_t)(strstr(text, stop) - text);
    ffai_event ev;
    do {
        ffai_engine_step(e, &err);
        ffai_request_poll(r2, &ev);
        assert_true(at + ev.text_len <= want);
        assert_memory_equal(ev.text, text + at, ev.text_len);
        at += ev.text_len;
    } while (ev.finish == FFAI_RUNNING);
    assert_int_equal(ev.finish, FFAI_FINISH_STOP);
    assert_int_equal(at, want);
    ffai_request_free(r);
    ffai_request_free(r2);
    ffai_free(text);
    ffai_free(prompt);
    ffai_engine_free(e);
}

static void test_cancel(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine((ffai_engine_opts){.precision = "exact"});
    ffai_sampling greedy = {.top_p = 1};
    ffai_request *a = submit(e, 0, 20, n_gen, greedy), *b = submit(e, 20, 20, n_gen, greedy),
                 *c = submit(e, 40, 20, n_gen, greedy);
    ffai_event ev;
    for (int i = 0; i < 5; i++) assert_int_equal(ffai_engine_step(e, &err), 1);
    ffai_request_cancel(a);
    ffai_request_poll(a, &ev);
    assert_int_equal(ev.finish, FFAI_FINISH_CANCEL);
    ffai_request_free(b); /* while it waits */
    run_out(e);
    ffai_request_poll(c, &ev);
    assert_int_equal(ev.n_ids, n_gen);
    int32_t first[GEN];
    memcpy(first, ev.ids, (size_t)n_gen * sizeof first[0]);
    ffai_request *d = submit(e, 40, 20, n_gen, greedy); /* the slot has been used by three */
    run_out(e);
    ffai_request_poll(d, &ev);
    assert_memory_equal(ev.ids, first, (size_t)n_gen * sizeof first[0]);
    ffai_engine_free(e); /* frees what is left */
}

/* ---- what is refused ---- */

static void refused(ffai_engine *e, ffai_request_opts o, const char *word) {
    ffai_error err = {0};
    ffai_request *r = (ffai_request *)&err;
    assert_true(ffai_submit(e, &o, &r, &err) < 0);
    assert_null(r);
    if (!strstr(err.msg, word)) fail_msg("\"%s\" does not say %s", err.msg, word);
}

static void test_refusals(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine((ffai_engine_opts){.n_ctx = 32});
    const char *empty = "";
    int32_t bad[2] = {1, (int32_t)vocab}, negative[1] = {-1};
    ffai_sampling greedy = {.top_p = 1};
    refused(e, (ffai_request_opts){.ids = ids, .n_ids = 0, .sampling = greedy}, "empty");
    refused(e, (ffai_request_opts){.ids = ids, .n_ids = 32, .sampling = greedy}, "32");
    refused(e, (ffai_request_opts){.ids = bad, .n_ids = 2, .sampling = greedy}, "number 1");
    refused(e, (ffai_request_opts){.ids = negative, .n_ids = 1, .sampling = greedy}, "-1");
    refused(e, (ffai_request_opts){.ids = ids, .n_ids = 1, .sampling = {.temp = -1, .top_p = 1}}, "temp");
    refused(e, (ffai_request_opts){.ids = ids, .n_ids = 1, .sampling = {.temp = NAN, .top_p = 1}}, "temp");
    refused(e, (ffai_request_opts){.ids = ids, .n_ids = 1, .sampling = {.top_p = -0.5f}}, "top-p");
    refused(e, (ffai_request_opts){.ids = ids, .n_ids = 1, .sampling = {.top_p = 1, .top_k = -1}}, "top-k");
    refused(e, (ffai_request_opts){.ids = ids, .n_ids = 1, .sampling = greedy, .stop = &empty, .n_stop = 1}, "stop");
    ffai_eval_opts o = {.ids = ids, .n_ids = 33};
    assert_true(ffai_eval(e, &o, &err) < 0);
    o = (ffai_eval_opts){.ids = ids, .n_ids = 4, .batch = 2};
    assert_true(ffai_eval(e, &o, &err) < 0);
    ffai_engine_free(e);
    static const ffai_engine_opts wrong[] = {{.precision = "exakt"}, {.kv_cache = "q3"}, {.device = "gpu"},
                                             {.cpu = "sse9"},        {.n_thread = -1},   {.n_ctx = -5},
                                             {.n_slot = -1},         {.n_chunk = -2}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ffai_engine *none = (ffai_engine *)&err;
        assert_true(ffai_engine_create(&none, model, &wrong[i], &err) < 0);
        assert_null(none);
        assert_true(err.msg[0] != 0);
    }
}

/* ---- greedy equals argmax of the logits; a full context ends the answer ---- */

static void test_length(void **state) {
    (void)state;
    ffai_engine *e = engine((ffai_engine_opts){.n_ctx = 50, .precision = "exact"});
    ffai_request *r = submit(e, 0, 20, 0, (ffai_sampling){.top_p = 1});
    ffai_event ev;
    run_out(e);
    ffai_request_poll(r, &ev);
    assert_int_equal(ev.finish, FFAI_FINISH_LENGTH);
    assert_int_equal(ev.n_ids, 30);
    ffai_engine_free(e);
}

int main(int argc, char **argv) {
    if (argc > 1) device = argv[1];
    cuda_module = getenv("FFAI_CUDA_MODULE");
#ifdef FFAI_CUDA_EMU_MODULE
    if (!cuda_module) cuda_module = FFAI_CUDA_EMU_MODULE;
    if (strcmp(device, "cpu") && !strcmp(cuda_module, FFAI_CUDA_EMU_MODULE)) n_row = 30, n_gen = 6;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_feeding),  cmocka_unit_test(test_fast),      cmocka_unit_test(test_levels),
        cmocka_unit_test(test_together), cmocka_unit_test(test_streaming), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_length),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
