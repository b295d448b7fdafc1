/* What fast precision costs on a random model of ordinary widths: divergence from exact and perplexity, by weight
 * format and for every instruction set of this machine, whole prompts and single tokens. docs/precision.md has the
 * limits and what a real model shows (tools/check_quality.py).
 *
 * Random weights make flat distributions unless they are turned up: Granite's multipliers give logits a spread of about
 * 3, attention that looks at few keys, and layers that change the stream by as much as it holds. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "ffai.h"

enum { N = 1000, N_DECODED = 100, VOCAB = 1024, DRAWS = 32 /* tokens that "come" after each row */ };

static const char config[] =
    "{\"architectures\": [\"GraniteForCausalLM\"], \"model_type\": \"granite\", \"hidden_size\": 256, "
    "\"intermediate_size\": 768, \"num_hidden_layers\": 6, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"vocab_size\": 1024, \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
    "\"hidden_act\": \"silu\", \"tie_word_embeddings\": false, \"attention_bias\": false, \"mlp_bias\": false, "
    "\"embedding_multiplier\": 16.0, \"attention_multiplier\": 0.125, \"residual_multiplier\": 0.7, "
    "\"logits_scaling\": 0.4, \"bos_token_id\": 0, \"eos_token_id\": 0}";

/* Formats and the limit of their mean divergence: a third or more above what was measured. */
typedef struct format {
    const char *name;
    double mean, mean_bf16; /* the second with the dot products of bf16 */
} format;

static const format formats[] = {{"affine4g64", 7.5e-4, 0}, {"affine8g64", 7.5e-4, 0}, {"bf16", 1e-6, 1e-4},
                                 {"q4_k", 6e-4, 0},         {"q8_0", 6e-4, 0},         {"mxfp4", 3e-4, 0}};
static const double perplexity_change = 0.002;
static const char *const levels[] = {"c", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon"};

static int32_t ids[N];
static char dir[] = "/tmp/ffai-quality-XXXXXX";

static void keep(void *user, int64_t row, const float *logits, int64_t n) {
    memcpy((float *)user + row * n, logits, (size_t)n * sizeof *logits);
}

/* Log-probabilities [N, VOCAB] into x; false: this machine has no such instructions. */
static bool run(ffai_model *m, const char *precision, const char *cpu, int n, bool decode, float *x) {
    ffai_engine *e;
    ffai_error err;
    const ffai_engine_opts eo = {.device = "cpu", .precision = precision, .cpu = cpu, .n_ctx = N, .n_thread = 1};
    int rc = ffai_engine_create(&e, m, &eo, &err);
    if (rc && strcmp(cpu ? cpu : "c", "c")) return false; /* unknown on this machine */
    if (rc) fail_msg("%s", err.msg);
    ffai_engine_info in;
    ffai_engine_get_info(e, &in);
    if (cpu && strcmp(in.isa, cpu)) { /* less than was asked for */
        ffai_engine_free(e);
        return false;
    }
    const ffai_eval_opts o = {
        .ids = ids, .n_ids = (size_t)n, .decode_from = decode ? n - N_DECODED : 0, .logits = keep, .user = x};
    if (ffai_eval(e, &o, &err)) fail_msg("%s", err.msg);
    ffai_engine_free(e);
    for (int r = 0; r < n; r++, x += VOCAB) {
        double max = -INFINITY, sum = 0;
        for (int i = 0; i < VOCAB; i++) max = fmax(max, x[i]);
        for (int i = 0; i < VOCAB; i++) sum += exp(x[i] - max);
        for (int i = 0; i < VOCAB; i++) x[i] = (float)(x[i] - max - log(sum));
    }
    return true;
}

/* A token as the distribution gives them. */
static int draw(const float *x, uint64_t seed) {
    double u = (double)(fa_rng_at(99, seed) >> 11) * 0x1p-53;
    int i = 0;
    while (i < VOCAB - 1 && (u -= exp(x[i])) > 0) i++;
    return i;
}

typedef struct cost {
    double mean, max, perplexity, change; /* of the perplexity, relative */
    double same_top;
} cost;

static cost compare(const float *base, const float *x, int from, int to) {
    cost c = {0};
    double nll = 0, base_nll = 0;
    int n = to - from;
    for (int r = from; r < to; r++) {
        const float *p = base + r * VOCAB, *q = x + r * VOCAB;
        double kl = 0;
        int a = 0, b = 0;
        for (int i = 0; i < VOCAB; i++) {
            kl += exp(p[i]) * ((double)p[i] - q[i]);
            if (p[i] > p[a]) a = i;
            if (q[i] > q[b]) b = i;
        }
        for (int i = 0; i < DRAWS; i++) {
            int t = draw(p, (uint64_t)(r * DRAWS + i));
            nll -= q[t];
            base_nll -= p[t];
        }
        c.mean += kl / n;
        c.max = fmax(c.max, kl);
        c.same_top += (double)(a == b) / n;
    }
    c.perplexity = exp(base_nll / (n * DRAWS));
    c.change = exp((nll - base_nll) / (n * DRAWS)) - 1;
    return c;
}

static void one_format(const format *f) {
    ffai_error err;
    ffai_model *m;
    float *base = malloc(sizeof(float) * N * VOCAB), *x = malloc(sizeof(float) * N * VOCAB);
    int n_run = 0;
    const ffai_model_opts mo = {.synthetic = f->name};
    assert_true(base && x);
    if (ffai_model_open(&m, dir, &mo, &err)) fail_msg("%s", err.msg);
    assert_true(run(m, "exact", NULL, N, false, base));
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        bool bf16 = !strcmp(levels[i], "avx512bf16");
        double limit = bf16 ? f->mean_bf16 : f->mean;
        if (limit == 0) continue; /* the same kernels as the level before */
        for (int decode = 0; decode < 2; decode++) {
            int n = strcmp(levels[i], "c") ? N : 200, from = decode ? n - N_DECODED : 0; /* plain C is slow */
            if (!run(m, "fast", levels[i], n, decode, x)) break;
            n_run++;
            cost c = compare(base, x, from, n);
            print_message(
                "%-10s %-10s %s: mean KL %.3g, largest %.3g, same top token %.1f %%, perplexity %.2f %+.3f %%\n",
                f->name, levels[i], decode ? "tokens" : "prompt", c.mean, c.max, 100 * c.same_top, c.perplexity,
                100 * c.change);
            assert_true(c.mean <= limit);
            assert_true(fabs(c.change) <= perplexity_change);
            /* neither flat nor certain: there is something to lose */
            assert_true(c.perplexity > 5 && c.perplexity < VOCAB / 4);
        }
    }
    assert_true(n_run >= 2);
    ffai_model_free(m);
    free(base);
    free(x);
}

static void test_formats(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) one_format(&formats[i]);
}

static int set_up(void **state) {
    char path[64];
    (void)state;
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f || fputs(config, f) < 0 || fclose(f)) return -1;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(fa_rng_at(1, (uint64_t)i) % VOCAB);
    return 0;
}

static int tear_down(void **state) {
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "%s/config.json", dir);
    return remove(path) || rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formats)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
