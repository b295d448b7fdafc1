/* real_check FFAI MODEL GOLDENS.json TMP_DIR: a published model against what transformers made of the same weights
 * (tools/real):
 *   - each prompt with its 64 recorded greedy tokens is fed to `ffai inspect`, prompt as a prefill, the rest token by
 * token; the best logit must be the recorded token at every step, except where the reference's two best are closer than
 * 1e-3;
 *   - the same by `ffai generate`, as text, for prompts without such a near tie, when the model has a tokenizer;
 *   - the perplexity of the recorded text within 0.1 %.
 * Everything in exact precision. */
#define _POSIX_C_SOURCE 200809L
#include "base/alloc.h"
#include "base/buf.h"
#include "families/harness.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double NEAR_TIE = 1e-3;

typedef struct run_dir {
    const char *ffai, *model;
    char npy[600], ids[600], out[600], log[600], prompt[600];
} run_dir;

static bool put(const char *path, const char *text, size_t len) {
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(text, 1, len, f) == len;
    return f && fclose(f) == 0 && ok;
}

/* ids as text, one a line; two lists one after the other (the second may be NULL). */
static size_t put_ids(const char *path, const fa_jnode *a, const fa_jnode *b) {
    fa_buf t = {0};
    for (const fa_jnode *i = fa_jfirst(a); i; i = fa_jnext(i)) fa_buf_printf(&t, "%d\n", (int)fa_jint(i, 0));
    for (const fa_jnode *i = fa_jfirst(b); i; i = fa_jnext(i)) fa_buf_printf(&t, "%d\n", (int)fa_jint(i, 0));
    bool ok = !t.failed && put(path, t.data, t.len);
    fa_buf_free(&t);
    return ok ? fa_jlen(a) + fa_jlen(b) : 0;
}

/* Logits of the ids in d->ids; false after a message. from: decode from there, 0 = all at once. */
static bool logits(const run_dir *d, size_t from, size_t n, long vocab, fx_npy *out) {
    char k[24], msg[512];
    fa_error err = {0};
    snprintf(k, sizeof k, "%zu", from);
    const char *argv[] = {d->ffai,
                          "inspect",
                          "-m",
                          d->model,
                          "--token-ids-file",
                          d->ids,
                          "--logits",
                          d->npy,
                          from ? "--decode-from" : NULL,
                          k,
                          NULL};
    int status = fx_run((char *const *)(uintptr_t)argv, NULL, NULL, d->log, msg, sizeof msg);
    if (status) {
        printf("FAIL inspect: exit %d: %s\n", status, msg);
        return false;
    }
    if (fx_npy_open(out, d->npy, &err) || (size_t)out->rows != n || out->cols != vocab) {
        printf("FAIL logits: %s\n", err.msg[0] ? err.msg : "wrong shape");
        fx_npy_close(out);
        return false;
    }
    return true;
}

static long best(const fx_npy *a, long row) {
    long at = 0;
    for (long c = 1; c < a->cols; c++)
        if (fx_npy_at(a, row, c) > fx_npy_at(a, row, at)) at = c;
    return at;
}

/* One prompt, teacher forced. Adds to the counts; *drift: largest distance of a recorded best logit. */
static bool forced(const run_dir *d, const fa_jnode *p, int number, long vocab, int *steps, int *ties, double *drift) {
    const fa_jnode *ids = fa_jget(p, "ids"), *next = fa_jget(p, "next");
    fx_npy a = {0};
    size_t n_prompt = fa_jlen(ids), n = put_ids(d->ids, ids, next);
    if (!n || !logits(d, n_prompt, n, vocab, &a)) return false;
    bool ok = true;
    long row = (long)n_prompt - 1;
    const fa_jnode *gap = fa_jfirst(fa_jget(p, "gap")), *top = fa_jfirst(fa_jget(p, "top"));
    for (const fa_jnode *t = fa_jfirst(next); t;
         t = fa_jnext(t), gap = fa_jnext(gap), top = fa_jnext(top), row++, ++*steps) {
        long want = (long)fa_jint(t, -1), have = best(&a, row);
        double off = fabs((double)fx_npy_at(&a, row, want) - fa_jnum(top, 0));
        if (!(off <= *drift)) *drift = off;
        if (have == want) continue;
        if (fa_jnum(gap, 1) < NEAR_TIE) {
            ++*ties;
            continue;
        }
        printf("FAIL prompt %d, step %ld: token %ld, must be %ld (gap of the reference %g)\n", number,
               row - (long)n_prompt + 1, have, want, fa_jnum(gap, 1));
        ok = false;
        break;
    }
    fx_npy_close(&a);
    return ok;
}

/* A GGUF file carries its tokenizer; a folder has it when tokenizer.json is there. */
static bool has_tokenizer(const char *model) {
    char path[1024];
    snprintf(path, sizeof path, "%s/tokenizer.json", model);
    return !fa_path_is_dir(model) || fa_path_is_file(path);
}

static bool near_tie(const fa_jnode *p) {
    for (const fa_jnode *g = fa_jfirst(fa_jget(p, "gap")); g; g = fa_jnext(g))
        if (fa_jnum(g, 1) < NEAR_TIE) return true;
    return false;
}

/* The continuation as text. Special tokens are not text, so prompts that run into one are left out. */
static bool generated(const run_dir *d, const fa_jnode *p, int number, int *compared) {
    size_t len, n_want;
    char msg[512], *have = NULL;
    const char *text = fa_jstr(fa_jget(p, "text"), &len), *want = fa_jstr(fa_jget(p, "out"), &n_want);
    if (!text || !want || near_tie(p) || strstr(want, "<eos>") || strstr(want, "_of_turn>")) return true;
    if (!put(d->prompt, text, len)) return false;
    const char *argv[] = {d->ffai, "generate", "-m",           d->model,      "--raw", "--prompt-file", d->prompt, "-n",
                          "64",    "--greedy", "--ignore-eos", "--precision", "exact", "--quiet",       NULL};
    int status = fx_run((char *const *)(uintptr_t)argv, NULL, d->out, d->log, msg, sizeof msg);
    size_t n_have = 0;
    if (status || fa_read_file(&have, &n_have, d->out, 1 << 20, NULL)) {
        printf("FAIL prompt %d: generate: exit %d: %s\n", number, status, msg);
        return false;
    }
    if (n_have == n_want + 1 && have[n_want] == '\n') n_have--; /* the newline that ends the output */
    bool ok = n_have == n_want && memcmp(have, want, n_want) == 0;
    if (!ok) printf("FAIL prompt %d: generate says\n%s\nmust be\n%s\n", number, have, want);
    fa_free(have);
    ++*compared;
    return ok;
}

static bool perplexity(const run_dir *d, const fa_jnode *g, long vocab) {
    const fa_jnode *ids = fa_jget(g, "ids");
    double want = fa_jnum(fa_jget(g, "value"), 0), nll = 0;
    fx_npy a = {0};
    size_t n = put_ids(d->ids, ids, NULL);
    if (!n || !logits(d, 0, n, vocab, &a)) return false;
    long row = 0;
    for (const fa_jnode *t = fa_jnext(fa_jfirst(ids)); t; t = fa_jnext(t), row++) {
        double top = -INFINITY, sum = 0;
        for (long c = 0; c < a.cols; c++) top = fmax(top, (double)fx_npy_at(&a, row, c));
        for (long c = 0; c < a.cols; c++) sum += exp((double)fx_npy_at(&a, row, c) - top);
        nll += top + log(sum) - (double)fx_npy_at(&a, row, (long)fa_jint(t, 0));
    }
    fx_npy_close(&a);
    double have = exp(nll / (double)row);
    bool ok = fabs(have - want) <= 1e-3 * want;
    printf("%s perplexity over %zu tokens %.6f, reference %.6f (%.5f %% off)\n", ok ? "ok  " : "FAIL", n, have, want,
           100 * fabs(have - want) / want);
    return ok;
}

int main(int argc, char **argv) {
    fa_json *doc = NULL;
    fa_error err = {0};
    run_dir d = {.ffai = argc == 5 ? argv[1] : NULL, .model = argc == 5 ? argv[2] : NULL};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 5) {
        fprintf(stderr, "usage: real_check FFAI MODEL GOLDENS.json TMP_DIR\n");
        return 2;
    }
    snprintf(d.npy, sizeof d.npy, "%s/logits.npy", argv[4]);
    snprintf(d.ids, sizeof d.ids, "%s/ids.txt", argv[4]);
    snprintf(d.out, sizeof d.out, "%s/stdout.txt", argv[4]);
    snprintf(d.log, sizeof d.log, "%s/stderr.txt", argv[4]);
    snprintf(d.prompt, sizeof d.prompt, "%s/prompt.txt", argv[4]);
    if (fa_json_load(&doc, argv[3], &err)) {
        fprintf(stderr, "real_check: %s\n", err.msg);
        return 1;
    }
    const fa_jnode *g = fa_json_root(doc);
    long vocab = (long)fa_jint(fa_jget(g, "vocab"), 0);
    int number = 0, good = 0, steps = 0, ties = 0, compared = 0, same = 0;
    double drift = 0;
    for (const fa_jnode *p = fa_jfirst(fa_jget(g, "prompts")); p; p = fa_jnext(p))
        good += forced(&d, p, ++number, vocab, &steps, &ties, &drift);
    printf("%s %d of %d prompts, %d steps, %d near ties decided otherwise, recorded best logits within %.2e\n",
           good == number ? "ok  " : "FAIL", good, number, steps, ties, drift);
    bool tokens = number > 0 && good == number;
    number = 0;
    int text_bad = 0;
    bool talks = has_tokenizer(d.model);
    for (const fa_jnode *p = talks ? fa_jfirst(fa_jget(g, "prompts")) : NULL; p; p = fa_jnext(p))
        text_bad += !generated(&d, p, ++number, &compared);
    same = compared - text_bad;
    if (compared) printf("%s %d of %d generated texts equal\n", text_bad ? "FAIL" : "ok  ", same, compared);
    bool ppl = perplexity(&d, fa_jget(g, "perplexity"), vocab);
    remove(d.npy);
    fa_json_free(doc);
    return tokens && !text_bad && ppl ? 0 : 1;
}
