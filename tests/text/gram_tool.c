#define _POSIX_C_SOURCE 200809L
/* A helper of tools/check_grammars.py and of measurements: grammars without a model.
 *   gram_tool accept KIND FILE               records on stdin (a u32 count and bytes), a line 0 or 1 for each: is it a
 *                                            whole sentence? 2: it is the beginning of one
 *   gram_tool sample KIND FILE N SEED        N random sentences as records; those that get too long are left out
 *   gram_tool bench MODEL KIND FILE TEXT     the masks along TEXT, tokenized by MODEL: count, median, 99 %, worst
 * KIND: gbnf, json-schema, regex. MODEL: a tokenizer's folder or a .gguf file. */
#include "base/alloc.h"
#include "base/map.h"
#include "base/rng.h"
#include "text/grammar/grammar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static fa_error err;

static int fail(void) {
    fprintf(stderr, "gram_tool: %s\n", err.msg);
    return 1;
}

enum { EOS = 256 };

/* One token a byte. */
static int byte_vocab(fa_vocab **v) {
    static char bytes[256];
    fa_vocab_token list[257] = {{NULL, 0}};
    const int32_t eos = EOS;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        list[i] = (fa_vocab_token){bytes + i, 1};
    }
    list[EOS] = (fa_vocab_token){"", 0};
    return fa_vocab_from_list(v, list, 257, &eos, 1, &err);
}

static int compile(fa_gram **g, const fa_vocab *v, const char *kind, const char *path) {
    char *text;
    size_t n;
    if (fa_read_file(&text, &n, path, 1 << 24, &err)) return 1;
    int rc = fa_gram_compile(g, v, kind, text, n, &err);
    fa_free(text);
    return rc;
}

static int accept(fa_gram *g) {
    uint32_t n;
    while (fread(&n, 4, 1, stdin) == 1) {
        char *s = (char *)malloc((size_t)n + 1);
        if (!s || fread(s, 1, n, stdin) != n) return 1;
        fa_gram_run *r;
        if (fa_gram_run_new(&r, g, &err)) return fail();
        int rc = 0;
        for (uint32_t i = 0; i < n && !rc; i++) rc = fa_gram_accept(r, (unsigned char)s[i], &err);
        printf("%d\n", rc ? 0 : fa_gram_complete(r) ? 1 : 2);
        fflush(stdout);
        fa_gram_run_free(r);
        free(s);
    }
    return 0;
}

/* A byte that is allowed; those that close something more often, so that texts end. */
static int choose(const uint32_t *bits, fa_rng *rng, int depth) {
    int all[257], close[257], n = 0, m = 0;
    for (int i = 0; i < 257; i++) {
        if (!(bits[i / 32] >> (i % 32) & 1)) continue;
        all[n++] = i;
        if (i == EOS || strchr("\"]}", i)) close[m++] = i;
    }
    if (m && (int)(fa_rng_next(rng) % 100) < 12 + depth / 8) return close[fa_rng_next(rng) % (unsigned)m];
    return n ? all[fa_rng_next(rng) % (unsigned)n] : -1;
}

static int sample(fa_gram *g, int count, uint64_t seed) {
    fa_rng rng = {.seed = seed};
    for (int k = 0; k < count; k++) {
        static char text[4096];
        uint32_t n = 0;
        fa_gram_run *r;
        if (fa_gram_run_new(&r, g, &err)) return fail();
        for (; n < sizeof text; n++) {
            const uint32_t *bits;
            size_t some;
            if (fa_gram_mask(r, &bits, &some, &err)) return fail();
            int c = choose(bits, &rng, (int)n);
            if (c < 0 || c == EOS) break;
            if (fa_gram_accept(r, c, &err)) return fail();
            text[n] = (char)c;
        }
        if (fa_gram_complete(r)) {
            fwrite(&n, 4, 1, stdout);
            fwrite(text, 1, n, stdout);
        }
        fa_gram_run_free(r);
    }
    return 0;
}

/* Processor seconds of this thread: what else runs on the machine does not count. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_time(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int open_tok(fa_tok **t, const char *path) {
    size_t n = strlen(path);
    if (n < 5 || strcmp(path + n - 5, ".gguf") != 0) return fa_tok_from_dir(t, path, &err);
    fa_gguf *g;
    int rc = fa_gguf_open(&g, path, &err);
    if (!rc) rc = fa_tok_from_gguf(t, g, &err);
    if (!rc) fa_gguf_free(g);
    return rc;
}

/* One pass over the tokens; times of the masks in microseconds. */
static size_t pass(fa_gram *g, const int32_t *ids, size_t n, double *us) {
    fa_gram_run *r;
    size_t k = 0;
    if (fa_gram_run_new(&r, g, &err)) return 0;
    for (; k < n; k++) {
        const uint32_t *bits;
        size_t some;
        double t = now();
        if (fa_gram_mask(r, &bits, &some, &err)) break;
        us[k] = (now() - t) * 1e6;
        if (fa_gram_accept(r, ids[k], &err)) break;
    }
    if (k < n) fprintf(stderr, "gram_tool: token %zu of %zu: %s\n", k, n, err.msg);
    fa_gram_run_free(r);
    return k;
}

static int bench(const char *model, const char *kind, const char *file, const char *path) {
    fa_tok *t;
    fa_vocab *v;
    fa_gram *g;
    char *text;
    size_t len, n;
    int32_t *ids;
    if (open_tok(&t, model) || fa_read_file(&text, &len, path, 1 << 24, &err)) return fail();
    int32_t eos = fa_tok_eos(t);
    double t0 = now();
    if (fa_vocab_new(&v, t, fa_tok_size(t), &eos, eos >= 0, &err)) return fail();
    double t1 = now();
    if (compile(&g, v, kind, file)) return fail();
    double t2 = now();
    if (fa_tok_encode(t, text, len, 0, &ids, &n, &err)) return fail();
    double *us = (double *)calloc(n + 1, sizeof *us);
    printf("%zu tokens in the vocabulary (%.1f ms), compiled in %.2f ms, text of %zu tokens\n", fa_tok_size(t),
           (t1 - t0) * 1e3, (t2 - t1) * 1e3, n);
    for (int i = 0; us && i < 3; i++) {
        size_t k = pass(g, ids, n, us);
        double sum = 0;
        for (size_t j = 0; j < k; j++) sum += us[j];
        if (!k) return fail();
        qsort(us, k, sizeof *us, by_time);
        printf("%s: mean %.1f, median %.1f, 90 %% %.1f, 99 %% %.1f, worst %.1f us\n", i ? "again" : "first",
               sum / (double)k, us[k / 2], us[k * 9 / 10], us[k * 99 / 100], us[k - 1]);
    }
    free(us);
    fa_free(ids);
    fa_free(text);
    fa_gram_free(g);
    fa_vocab_free(v);
    fa_tok_free(t);
    return 0;
}

int main(int argc, char **argv) {
    fa_vocab *v;
    fa_gram *g;
    if (argc == 6 && !strcmp(argv[1], "bench")) return bench(argv[2], argv[3], argv[4], argv[5]);
    if (argc < 4 || byte_vocab(&v)) return 2;
    if (compile(&g, v, argv[2], argv[3])) {
        fa_vocab_free(v);
        return fail();
    }
    int rc = 2;
    if (!strcmp(argv[1], "accept")) rc = accept(g);
    if (!strcmp(argv[1], "sample") && argc == 6) rc = sample(g, atoi(argv[4]), strtoull(argv[5], NULL, 10));
    fa_gram_free(g);
    fa_vocab_free(v);
    return rc;
}
