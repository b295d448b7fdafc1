/* generation_config.json as publishers write it, beside configs of their families (ids cut to the tiny vocabularies):
 * what it says are the defaults, as transformers takes them, and its ends of text come before those of config.json.
 * Options on the command line win over them: tests/cli/defaults.txt. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model.h"

typedef struct expected {
    const char *fixture, *text; /* generation_config.json; NULL: there is none */
    float temp;
    int top_k;
    float top_p, repeat;
    int n_eos, eos[4];
} expected;

static const expected cases[] = {
    /* Llama 3.1 Instruct */
    {"llama_bf16",
     "{\"bos_token_id\": 200, \"do_sample\": true, \"eos_token_id\": [201, 208, 209], \"temperature\": 0.6, "
     "\"top_p\": 0.9, \"transformers_version\": \"4.42.3\"}",
     0.6f,
     50,
     0.9f,
     0,
     3,
     {201, 208, 209}},
    /* Mistral v0.1: no sampling */
    {"mistral_full", "{\"_from_model_config\": true, \"bos_token_id\": 1, \"eos_token_id\": 2}", 0, 0, 1, 0, 1, {2}},
    /* Qwen 2.5 Instruct, Qwen 3 */
    {"qwen2_plain",
     "{\"bos_token_id\": 143, \"pad_token_id\": 143, \"do_sample\": true, \"eos_token_id\": [145, 143], "
     "\"repetition_penalty\": 1.05, \"temperature\": 0.7, \"top_p\": 0.8, \"top_k\": 20}",
     0.7f,
     20,
     0.8f,
     1.05f,
     2,
     {145, 143}},
    {"qwen3_plain",
     "{\"bos_token_id\": 143, \"do_sample\": true, \"eos_token_id\": [145, 143], \"pad_token_id\": 143, "
     "\"temperature\": 0.6, \"top_k\": 20, \"top_p\": 0.95}",
     0.6f,
     20,
     0.95f,
     0,
     2,
     {145, 143}},
    {"qwen35_plain",
     "{\"do_sample\": true, \"eos_token_id\": [145, 143], \"temperature\": 1.0, \"top_k\": 20, "
     "\"top_p\": 0.95}",
     1,
     20,
     0.95f,
     0,
     2,
     {145, 143}},
    /* Gemma 2 (says nothing of sampling), Gemma 3 (text, and the wrapper, whose config has a list too) */
    {"gemma2_plain",
     "{\"_from_model_config\": true, \"bos_token_id\": 2, \"cache_implementation\": \"hybrid\", "
     "\"eos_token_id\": [1, 107], \"pad_token_id\": 0}",
     0,
     0,
     1,
     0,
     2,
     {1, 107}},
    {"gemma3_plain",
     "{\"cache_implementation\": \"hybrid\", \"do_sample\": true, \"eos_token_id\": [1, 106], "
     "\"top_k\": 64, \"top_p\": 0.95}",
     1,
     64,
     0.95f,
     0,
     2,
     {1, 106}},
    {"gemma3_wrapper4",
     "{\"do_sample\": true, \"eos_token_id\": [3], \"top_k\": 64, \"top_p\": 0.95}",
     1,
     64,
     0.95f,
     0,
     1,
     {3}},
    /* GPT-OSS: do_sample alone is temperature 1 and top_k 50 */
    {"gptoss_plain",
     "{\"bos_token_id\": 198, \"do_sample\": true, \"eos_token_id\": [202, 199, 212], "
     "\"pad_token_id\": 199}",
     1,
     50,
     1,
     0,
     3,
     {202, 199, 212}},
    /* Phi 4 mini, OLMo 2, Granite 4, Falcon H1, Nemotron H, LFM2, Mamba */
    {"phi3_mini4k",
     "{\"bos_token_id\": 199, \"eos_token_id\": [200, 199], \"pad_token_id\": 199}",
     0,
     0,
     1,
     0,
     2,
     {200, 199}},
    {"olmo2_plain", "{\"eos_token_id\": 257, \"pad_token_id\": 277, \"max_new_tokens\": 512}", 0, 0, 1, 0, 1, {257}},
    {"granitemoehybrid_plain",
     "{\"bos_token_id\": 257, \"eos_token_id\": 257, \"pad_token_id\": 256}",
     0,
     0,
     1,
     0,
     1,
     {257}},
    {"falconh1_plain",
     "{\"eos_token_id\": [11, 228], \"do_sample\": true, \"temperature\": 0.1}",
     0.1f,
     50,
     1,
     0,
     2,
     {11, 228}},
    {"nemotronh_plain",
     "{\"do_sample\": true, \"eos_token_id\": [2, 11, 12], \"temperature\": 1.0, \"top_p\": 1.0}",
     1,
     50,
     1,
     0,
     3,
     {2, 11, 12}},
    {"lfm2_plain",
     "{\"bos_token_id\": 1, \"do_sample\": true, \"eos_token_id\": 7, \"min_p\": 0.15, "
     "\"repetition_penalty\": 1.05, \"temperature\": 0.3}",
     0.3f,
     50,
     1,
     1.05f,
     1,
     {7}},
    {"mamba_plain", "{\"bos_token_id\": 0, \"eos_token_id\": 5, \"pad_token_id\": 0}", 0, 0, 1, 0, 1, {5}},
    /* do_sample false keeps what it would draw with, for users who ask for a temperature */
    {"llama_bf16",
     "{\"do_sample\": false, \"eos_token_id\": 2, \"temperature\": 0.9, \"top_k\": 7, \"top_p\": 0.6}",
     0,
     7,
     0.6f,
     0,
     1,
     {2}},
    /* no file, and one that names no end: config.json's */
    {"mamba_plain", NULL, 0, 0, 1, 0, 1, {0}},
    {"falconh1_plain", "{\"do_sample\": true}", 1, 50, 1, 0, 1, {11}},
    {"gemma3_wrapper4", NULL, 0, 0, 1, 0, 2, {1, 106}},
};

static bool near(float a, float b) { return a - b < 1e-6f && b - a < 1e-6f; }

static void one(const expected *e) {
    char dir[] = "/tmp/ffai-defaults-XXXXXX", text[600];
    ffai_error err;
    ffai_model *m;
    ffai_sampling s;
    assert_non_null(mkdtemp(dir));
    snprintf(text, sizeof text, "cp '%s/tests/data/families/%s/config.json' '%s'", FFAI_SOURCE_DIR, e->fixture, dir);
    assert_int_equal(system(text), 0);
    if (e->text) {
        snprintf(text, sizeof text, "%s/generation_config.json", dir);
        FILE *f = fopen(text, "wb");
        assert_non_null(f);
        fputs(e->text, f);
        fclose(f);
    }
    if (ffai_model_open(&m, dir, &(ffai_model_opts){.config_only = true}, &err))
        fail_msg("%s: %s", e->fixture, err.msg);
    ffai_sampling_default(m, &s);
    if (!near(s.temp, e->temp) || s.top_k != e->top_k || !near(s.top_p, e->top_p) || !near(s.repeat_penalty, e->repeat))
        fail_msg("%s: temperature %g, top_k %d, top_p %g, penalty %g", e->fixture, (double)s.temp, s.top_k,
                 (double)s.top_p, (double)s.repeat_penalty);
    if (m->n_eos != e->n_eos) fail_msg("%s: %d ends of text", e->fixture, m->n_eos);
    for (int i = 0; i < e->n_eos; i++)
        if (m->eos[i] != e->eos[i]) fail_msg("%s: end of text %d is %d", e->fixture, i, (int)m->eos[i]);
    ffai_model_free(m);
    snprintf(text, sizeof text, "rm -r '%s'", dir);
    assert_int_equal(system(text), 0);
}

static void defaults(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) one(&cases[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(defaults)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
