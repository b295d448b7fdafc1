/* Files that lie anywhere: GGUF and folder fixtures truncated everywhere that matters and with bytes of their headers
 * changed from a fixed seed. Whatever comes, the model runs or is refused with one line; the sanitizers watch. */
#define _XOPEN_SOURCE 700
#include "robust/broken.h"

#include "base/rng.h"
#include "families/gen.h"

enum { HEAD_ROUNDS = 120, TRUNCATIONS = 40 };

typedef struct fixture {
    char dir[256], model[512], file[600]; /* file: the one that is changed */
    char *text;
    size_t n, head; /* head: bytes before the data, about */
} fixture;

static void fixture_open(fixture *f, const char *name) {
    fx x;
    fa_error err;
    memset(f, 0, sizeof *f);
    make_dir(f->dir);
    assert_ok(fx_open(&x, FFAI_SOURCE_DIR "/tests/data/families", name, &err), &err);
    assert_ok(fx_write(&x, f->dir, f->model, &err), &err);
    bool gguf = x.gguf;
    fx_close(&x);
    if (gguf)
        snprintf(f->file, sizeof f->file, "%s", f->model);
    else
        snprintf(f->file, sizeof f->file, "%s/%s", f->model,
                 strncmp(name, "torch_", 6) ? "model.safetensors" : "pytorch_model.bin");
    assert_ok(fa_read_file(&f->text, &f->n, f->file, (size_t)1 << 28, &err), &err);
    f->head = f->n < 6000 ? f->n : 6000;
    assert_ok(open_and_run(f->model, &err), &err);
}

static void fixture_close(fixture *f) {
    fa_free(f->text);
    remove_dir(f->dir);
}

static void write_text(const char *path, const char *text, size_t n) {
    FILE *o = fopen(path, "wb");
    assert_non_null(o);
    if (n) assert_int_equal(fwrite(text, 1, n, o), n);
    assert_int_equal(fclose(o), 0);
}

/* Changes up to four bytes: to anything, to an extreme, or by one bit. */
static void change(char *text, size_t n, uint64_t seed) {
    static const uint8_t extremes[] = {0, 1, 0x7F, 0x80, 0xFF, '0', '9', '"', ']'};
    uint64_t k = 0, count = 1 + fa_rng_at(seed, k++) % 4;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t r = fa_rng_at(seed, k++), at = fa_rng_at(seed, k++) % n;
        uint8_t old = (uint8_t)text[at], b = (uint8_t)(r >> 8);
        if (r % 3 == 1) b = extremes[b % sizeof extremes];
        if (r % 3 == 2) b = (uint8_t)(old ^ 1u << b % 8);
        text[at] = (char)b;
    }
}

static void mutate(const char *name) {
    fixture f;
    ffai_error err;
    int ran = 0;
    fixture_open(&f, name);
    for (int i = 0; i < TRUNCATIONS; i++) {
        size_t n =
            i < TRUNCATIONS / 2
                ? f.head * (size_t)i / (TRUNCATIONS / 2)
                : f.n - 64 - (f.n - 64) * (size_t)(i - TRUNCATIONS / 2) / TRUNCATIONS; /* GGUF may end in padding */
        write_text(f.file, f.text, n);
        if (!open_and_run(f.model, &err)) fail_msg("%s runs with %zu of %zu bytes", name, n, f.n);
    }
    char *copy = fa_strndup(f.text, f.n);
    for (uint64_t i = 0; i < HEAD_ROUNDS; i++) {
        memcpy(copy, f.text, f.head);
        change(copy, i % 2 ? f.head : f.head / 8, i + 1);
        write_text(f.file, copy, f.n);
        ran += open_and_run(f.model, &err) == 0;
    }
    print_message("%s: %d of %d changed files still run\n", name, ran, HEAD_ROUNDS);
    fa_free(copy);
    fixture_close(&f);
}

static void gguf(void **state) {
    (void)state;
    static const char *const names[] = {"gguf_llama_q4_k",           "gguf_gemma3_mixed",    "gguf_qwen2_yarn",
                                        "gguf_llama_rope_freqs",     "gguf_llama_v2",        "gguf_gemma4_moe_mixed",
                                        "gguf_qwen35_next",          "gguf_qwen3next_mixed", "gguf_lfm2moe_q8_0",
                                        "gguf_nemotronh_latent_q5_0"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) mutate(names[i]);
}

static void safetensors(void **state) {
    (void)state;
    static const char *const names[] = {"llama_bf16",       "mlx_gemma3_b4_g64", "mlx_qwen3_mxfp4", "qwen3next_plain",
                                        "olmohybrid_types", "lfm2moe_plain",     "nemotronh_latent"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) mutate(names[i]);
}

/* What other tools wrote. */
static void imports(void **state) {
    (void)state;
    static const char *const names[] = {"torch_llama",           "torch_mamba2_ssm_cfg", "hf_llama_gptq4act",
                                        "hf_llama_packed4order", "hf_llama_awqgemv32",   "hf_llama_awqfast",
                                        "hf_llama_nvfp4",        "hf_llama_mxfp4",       "hf_qwen3moe_fp8stack"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) mutate(names[i]);
}

/* config.json with single characters changed: digits grow, names break, brackets open. */
static void configs(void **state) {
    (void)state;
    static const char *const names[] = {
        "llama_rope_longrope",  "gemma3_wrapper5", "mistral_tied_yarn", "mlx_qwen3_overrides",   "llama_rope_llama3",
        "qwen2_layer_types",    "gemma4_all_t5",   "gemma4_e2b",        "qwen35_wrapper",        "qwen35moe_square",
        "olmohybrid_rope",      "lfm2_types",      "nemotronh_groups",  "nemotronh_block_types", "torch_mamba_ssm_cfg",
        "torch_mamba2_ssm_cfg", "hf_llama_awqgemv"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fixture f;
        ffai_error err;
        size_t n;
        int ran = 0;
        char path[600];
        fixture_open(&f, names[i]);
        snprintf(path, sizeof path, "%s/config.json", f.model);
        char *text = slurp(f.model, "config.json", &n), *copy = fa_strndup(text, n);
        for (uint64_t k = 0; k < HEAD_ROUNDS; k++) {
            memcpy(copy, text, n);
            uint64_t at = fa_rng_at(99, 2 * k) % n, to = fa_rng_at(99, 2 * k + 1);
            while (k % 2 && !(copy[at] >= '0' && copy[at] <= '9')) at = (at + 1) % n; /* half of them change a number */
            copy[at] = k % 2 ? "0123456789-.e"[to % 13] : (char)(' ' + to % 95);
            write_text(path, copy, n);
            ran += open_and_run(f.model, &err) == 0;
        }
        print_message("%s: %d of %d changed configs still run\n", names[i], ran, HEAD_ROUNDS);
        fa_free(text);
        fa_free(copy);
        fixture_close(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gguf), cmocka_unit_test(safetensors), cmocka_unit_test(imports),
                                       cmocka_unit_test(configs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
