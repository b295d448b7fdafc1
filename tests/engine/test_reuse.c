/* The cache of finished requests: a prompt that goes on from one gives what it gives fed from the start, whatever the
 * model's windows and rotation; slots are chosen by what they hold; sessions in files continue as if nothing had
 * happened, and broken ones are refused with the engine unharmed; callbacks. Random weights: sampled tokens of them
 * show any difference at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/run.h"
#include "ffai.h"

#define FIXTURES FFAI_SOURCE_DIR "/tests/data/families/"
enum { MAX_IDS = 2048, GEN = 30 };

/* Attention of every kind: full, windows of 64 in five of six layers, windows everywhere, rotation that depends on the
 * length, layers that share caches; and every kind of recurrent layer, alone and beside attention. */
static const char *const kinds[] = {
    "llama_default",     "gemma3_swa_long", "mistral_swa_long", "llama_rope_dynamic_long", "llama_rope_longrope",
    "gemma4_share_long", "mamba2_long",     "mamba_plain",      "falconh1_plain",          "qwen35_plain"};
enum { N_KIND = sizeof kinds / sizeof kinds[0], FIRST_RECURRENT = 6 };

static ffai_model *open_model(const char *name) {
    ffai_error err = {0};
    ffai_model *m = NULL;
    char path[600];
    snprintf(path, sizeof path, "%s%s", FIXTURES, name);
    ffai_model_opts o = {.synthetic = "bf16"};
    if (ffai_model_open(&m, path, &o, &err)) fail_msg("%s", err.msg);
    return m;
}

static const char *cache_type; /* of the engines that name none; NULL: the default */

static ffai_engine *engine(ffai_model *m, ffai_engine_opts o) {
    ffai_error err = {0};
    if (!o.kv_cache) o.kv_cache = cache_type;
    ffai_engine *e = NULL;
    if (!o.precision) o.precision = "exact";
    if (!o.n_ctx) o.n_ctx = 400;
    o.n_thread = 1;
    if (ffai_engine_create(&e, m, &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static void any_ids(int32_t *ids, int n, uint32_t seed) {
    for (int i = 0; i < n; i++) ids[i] = (int32_t)(((seed = seed * 1664525u + 1013904223u) >> 8) % 300u);
}

static ffai_request *submit(ffai_engine *e, const int32_t *ids, int n, int max_new) {
    ffai_error err = {0};
    ffai_request *r = NULL;
    ffai_request_opts o = {.ids = ids,
                           .n_ids = (size_t)n,
                           .max_new = max_new,
                           .sampling = {.temp = 1, .top_p = 1, .seed = (uint64_t)n},
                           .ignore_eos = true};
    if (ffai_submit(e, &o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

/* Runs one request to its end: all its tokens into out, how many of the prompt were reused. */
static int ask(ffai_engine *e, const int32_t *ids, int n, int max_new, int32_t *out, int *reused) {
    ffai_request *r = submit(e, ids, n, max_new);
    run_out(e);
    const int32_t *all;
    size_t n_all, n_prompt, n_reused;
    ffai_request_ids(r, &all, &n_all, &n_prompt, &n_reused);
    assert_int_equal(n_prompt, n);
    assert_int_equal(n_all, n + max_new);
    memcpy(out, all, n_all * sizeof *out);
    if (reused) *reused = (int)n_reused;
    ffai_request_free(r);
    return (int)n_all;
}

/* The same in an engine of its own. */
static void same_as_fresh(ffai_model *m, const int32_t *all, int n_prompt, int max_new, const char *what) {
    ffai_engine *e = engine(m, (ffai_engine_opts){0});
    int32_t want[MAX_IDS];
    int reused;
    ask(e, all, n_prompt, max_new, want, &reused);
    assert_int_equal(reused, 0);
    for (int i = 0; i < n_prompt + max_new; i++)
        if (want[i] != all[i]) fail_msg("%s: token %d is %d, without reuse %d", what, i, all[i], want[i]);
    ffai_engine_free(e);
}

/* ---- laws ---- */

/* A chat: each prompt is everything so far and something new. */
static void turns(ffai_model *m, const char *kind, bool every) {
    ffai_engine *e = engine(m, (ffai_engine_opts){.n_chunk = 48});
    int32_t ids[MAX_IDS];
    any_ids(ids, 20, 5);
    int n = 20, reused;
    for (int turn = 0; turn < 5; turn++) {
        int n_all = ask(e, ids, n, GEN, ids, &reused);
        if (every) assert_int_equal(reused, turn ? n - 18 : 0);
        same_as_fresh(m, ids, n, GEN, kind);
        any_ids(ids + n_all, 17, (uint32_t)turn);
        n = n_all + 17;
    }
    ffai_engine_free(e);
}

static void test_turns(void **state) {
    (void)state;
    for (int k = 0; k < N_KIND; k++) {
        ffai_model *m = open_model(kinds[k]);
        turns(m, kinds[k], k != 3 && k != 4);
        ffai_model_free(m);
    }
}

/* The same prompt again, and prompts that leave the old one earlier and earlier. */
static void test_again(void **state) {
    (void)state;
    for (int k = 0; k < N_KIND; k++) {
        ffai_model *m = open_model(kinds[k]);
        ffai_engine *e = engine(m, (ffai_engine_opts){.n_chunk = 32});
        int32_t ids[MAX_IDS], out[MAX_IDS];
        any_ids(ids, 200, 9);
        int reused;
        ask(e, ids, 200, 3, out, NULL);
        same_as_fresh(m, out, 200, 3, kinds[k]);
        ask(e, ids, 200, 3, out, &reused);
        assert_int_equal(reused, 199); /* also in windows: three tokens give nothing back, and the length is the same */
        same_as_fresh(m, out, 200, 3, "again");
        for (int n = 190; n > 0; n -= 27) {
            ids[n - 1]++; /* differs from the last prompt at its end */
            ask(e, ids, n, 3, out, &reused);
            same_as_fresh(m, out, n, 3, kinds[k]);
            if (k == 0) assert_int_equal(reused, n - 1);
            assert_true(reused < n);
        }
        /* a long answer moves windows past the prompt: nothing of it can be used then */
        ask(e, ids, 100, 280, out, NULL);
        ask(e, ids, 100, 5, out, &reused);
        same_as_fresh(m, out, 100, 5, kinds[k]);
        assert_int_equal(reused, k == 1 || k == 2 || k == 5 ? 0 : 99);
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* Recurrent states are kept where prompts were seen to part: the third of them begins there. Without attention the
 * cache is the same for every length of the context. */
static void test_parting(void **state) {
    (void)state;
    for (int k = FIRST_RECURRENT; k < N_KIND; k++) {
        ffai_model *m = open_model(kinds[k]);
        ffai_engine *e = engine(m, (ffai_engine_opts){.n_chunk = 48}),
                    *longer = engine(m, (ffai_engine_opts){.n_ctx = 4000});
        ffai_engine_info a, b;
        ffai_engine_get_info(e, &a);
        ffai_engine_get_info(longer, &b);
        if (strncmp(kinds[k], "mamba", 5) == 0) assert_true(a.cache_bytes == b.cache_bytes && a.cache_bytes > 0);
        ffai_engine_free(longer);
        int32_t ids[MAX_IDS], out[MAX_IDS];
        any_ids(ids, 130, 4);
        for (int i = 0; i < 4; i++) {
            int reused, n = 100 + 7 * i;
            any_ids(ids + 90, n - 90, (uint32_t)(20 + i));
            ids[90] = i; /* 90 tokens are the same */
            ask(e, ids, n, 8, out, &reused);
            same_as_fresh(m, out, n, 8, kinds[k]);
            assert_int_equal(reused, i < 2 ? 0 : 90);
        }
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* A profile of every kind: attention counts where there is some; models without any have no page groups to look at. */
static void test_profile(void **state) {
    (void)state;
    int32_t ids[MAX_IDS], out[MAX_IDS];
    any_ids(ids, 9, 3);
    for (int k = 0; k < N_KIND; k++) {
        ffai_model *m = open_model(kinds[k]);
        ffai_engine *e = engine(m, (ffai_engine_opts){.profile = true});
        ask(e, ids, 9, 3, out, NULL);
        ffai_profile_row row;
        double flops = -1;
        for (size_t i = 0; ffai_engine_profile(e, i, &row); i++)
            if (!row.kernel && strcmp(row.op, "attend") == 0) flops = row.flops;
        const bool none = strncmp(kinds[k], "mamba", 5) == 0;
        assert_true(none ? flops == 0 : flops > 0);
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* Rotation that depends on the length: reuse stops where the keys would have been rotated otherwise. */
static void test_rotation(void **state) {
    (void)state;
    int32_t ids[MAX_IDS], out[MAX_IDS];
    int reused;
    any_ids(ids, 300, 11);
    ffai_model *m = open_model("llama_rope_longrope"); /* original context of 64 */
    ffai_engine *e = engine(m, (ffai_engine_opts){0});
    ask(e, ids, 40, 5, out, NULL);
    ask(e, ids, 60, 5, out, &reused); /* both within */
    assert_int_equal(reused, 40);
    ask(e, ids, 70, 5, out, &reused); /* grows beyond: every key is rotated anew */
    assert_int_equal(reused, 0);
    ask(e, ids, 80, 5, out, &reused);
    assert_int_equal(reused, 70);
    same_as_fresh(m, out, 80, 5, "longrope");
    ask(e, ids, 60, 5, out, &reused);
    assert_int_equal(reused, 0);
    ffai_engine_free(e);
    ffai_model_free(m);
    m = open_model("llama_rope_dynamic_long"); /* original context of 16 */
    e = engine(m, (ffai_engine_opts){0});
    ask(e, ids, 30, 5, out, NULL);
    ask(e, ids, 31, 5, out, &reused); /* every length beyond has frequencies of its own */
    assert_int_equal(reused, 0);
    ask(e, ids, 31, 9, out, &reused);
    assert_int_equal(reused, 30);
    same_as_fresh(m, out, 31, 9, "dynamic");
    ask(e, ids, 10, 3, out, &reused);
    assert_int_equal(reused, 0);
    ask(e, ids, 12, 3, out, &reused);
    assert_int_equal(reused, 10);
    ffai_engine_free(e);
    ffai_model_free(m);
}

/* Several conversations in fewer and more slots; each finds its own. */
static void test_slots(void **state) {
    (void)state;
    ffai_model *m = open_model("gemma3_swa_long");
    ffai_engine *e = engine(m, (ffai_engine_opts){.n_slot = 3, .n_chunk = 40});
    static int32_t talk[4][MAX_IDS];
    int n[4], reused;
    for (int i = 0; i < 4; i++) any_ids(talk[i], n[i] = 30 + i, 100u + (uint32_t)i);
    for (int turn = 0; turn < 4; turn++)
        for (int i = 0; i < 3; i++) {
            int all = ask(e, talk[i], n[i], 10, talk[i], &reused);
            assert_int_equal(reused, turn ? n[i] - 6 : 0);
            same_as_fresh(m, talk[i], n[i], 10, "its slot");
            any_ids(talk[i] + all, 5, (uint32_t)(turn * 3 + i));
            n[i] = all + 5;
        }
    /* one that shares a first token, as all do that begin with BOS, takes no conversation's slot but the oldest */
    talk[3][0] = talk[1][0];
    ask(e, talk[1], n[1], 1, talk[1], &reused);
    assert_int_equal(reused, n[1] - 6);
    /* a fourth takes the slot that was used first; the others keep theirs */
    ask(e, talk[3], n[3], 10, talk[3], &reused);
    assert_int_equal(reused, 0);
    ask(e, talk[2], n[2], 10, talk[2], &reused);
    assert_int_equal(reused, n[2] - 6);
    ask(e, talk[1], n[1], 10, talk[1], &reused);
    assert_int_equal(reused, n[1] - 1);
    ask(e, talk[0], n[0], 10, talk[0], &reused);
    assert_int_equal(reused, 0);
    ffai_engine_free(e);
    ffai_model_free(m);
}

/* All at once, more than there are slots, twice: together as alone. */
static void test_crowd(void **state) {
    (void)state;
    for (int k = 0; k < N_KIND; k++) {
        ffai_model *m = open_model(kinds[k]);
        ffai_engine *e = engine(m, (ffai_engine_opts){.n_slot = 3, .n_chunk = 16});
        int32_t ids[MAX_IDS];
        any_ids(ids, 300, 21);
        ffai_request *r[12];
        for (int i = 0; i < 12; i++) { /* prompts that share beginnings of many lengths */
            int n = 10 + 23 * (i % 6);
            ids[n - 1] = i;
            r[i] = submit(e, ids, n, 8 + i);
        }
        for (int i = 0; i < 20; i++) ffai_engine_step(e, NULL);
        ffai_request_cancel(r[1]);
        ffai_request_free(r[2]);
        run_out(e);
        for (int i = 0; i < 12; i++) {
            const int32_t *all;
            size_t n, n_prompt, n_reused;
            if (i == 1 || i == 2) continue;
            ffai_request_ids(r[i], &all, &n, &n_prompt, &n_reused);
            same_as_fresh(m, all, (int)n_prompt, (int)(n - n_prompt), kinds[k]);
        }
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* What cancel leaves behind is good; evaluations use slots and leave nothing. */
static void test_interrupted(void **state) {
    (void)state;
    ffai_model *m = open_model("gemma3_swa_long");
    ffai_engine *e = engine(m, (ffai_engine_opts){.n_chunk = 16});
    ffai_error err = {0};
    int32_t ids[MAX_IDS], out[MAX_IDS];
    int reused;
    any_ids(ids, 200, 31);
    for (int steps = 1; steps < 9; steps += 3) {
        ffai_request *r = submit(e, ids, 100, 0);
        for (int i = 0; i < steps; i++) assert_int_equal(ffai_engine_step(e, &err), 1);
        ffai_request_cancel(r);
        ffai_request_free(r);
        ask(e, ids, 100, 20, out, &reused);
        assert_int_equal(reused, steps * 16 < 99 ? steps * 16 : 99);
        same_as_fresh(m, out, 100, 20, "after a cancel");
        ffai_eval_opts o = {.ids = ids + 50, .n_ids = 60};
        assert_int_equal(ffai_eval(e, &o, &err), 0);
        ask(e, ids + 50, 100, 20, out, &reused);
        assert_int_equal(reused, 0);
        same_as_fresh(m, out, 100, 20, "after an evaluation");
        double s[2];
        assert_int_equal(ffai_bench(e, 1, 10, 1, 2, s, &err), 0);
    }
    ffai_engine_stats st;
    ffai_engine_get_stats(e, &st);
    assert_int_equal(st.reused_tokens, 16 + 64 + 99);
    ffai_request_opts fresh = {.ids = out, .n_ids = 100, .max_new = 1, .fresh = true};
    ffai_request *r = NULL;
    assert_int_equal(ffai_submit(e, &fresh, &r, &err), 0);
    run_out(e);
    ffai_engine_get_stats(e, &st);
    assert_int_equal(st.reused_tokens, 16 + 64 + 99);
    ffai_engine_free(e);
    ffai_model_free(m);
}

/* ---- sessions ---- */

static char file[600];

static int set_up(void **state) {
    (void)state;
    const char *dir = getenv("TMPDIR");
    snprintf(file, sizeof file, "%s/ffai-session-%ld", dir ? dir : "/tmp", (long)getpid());
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    return 0;
}

/* Saved in one engine, gone on in another with other slots and chunks: the tokens of the engine that went on without.
 */
static void continue_elsewhere(ffai_model *m, const char *kind, int n, int gen, int chunk, bool running) {
    ffai_error err = {0};
    ffai_engine *a = engine(m, (ffai_engine_opts){.n_chunk = 50, .n_slot = 2});
    int32_t ids[MAX_IDS], out[MAX_IDS], other[MAX_IDS];
    any_ids(ids, n, (uint32_t)n);
    ffai_request *r = submit(a, ids, n, running ? gen + 100 : gen);
    for (int i = 0; running && i < gen; i++) ffai_engine_step(a, &err);
    if (!running) run_out(a);
    if (ffai_session_save(r, file, &err)) fail_msg("%s", err.msg);
    const int32_t *all;
    size_t n_all, n_prompt, n_reused;
    ffai_request_ids(r, &all, &n_all, &n_prompt, &n_reused);
    int had = (int)n_all;
    memcpy(ids, all, n_all * sizeof *all);
    ffai_request_free(r);

    ffai_engine *b = engine(m, (ffai_engine_opts){.n_chunk = chunk, .n_slot = 3, .n_ctx = 500});
    any_ids(other, 90, 77);
    ask(b, other, 90, 4, out, NULL);
    int32_t *back = NULL;
    size_t n_back = 0;
    if (ffai_session_load(b, file, &back, &n_back, &err)) fail_msg("%s", err.msg);
    assert_int_equal(n_back, had);
    assert_memory_equal(back, ids, n_back * sizeof *back);
    ffai_free(back);
    any_ids(ids + had, 11, 3);
    int ra, rb;
    ask(a, ids, had + 11, GEN, out, &ra);
    ask(b, ids, had + 11, GEN, other, &rb);
    assert_int_equal(ra, rb);
    assert_memory_equal(out, other, (size_t)(had + 11 + GEN) * sizeof *out);
    same_as_fresh(m, other, had + 11, GEN, kind);
    ffai_engine_free(a);
    ffai_engine_free(b);
}

static void test_continue(void **state) {
    (void)state;
    for (int k = 0; k < N_KIND; k++) {
        ffai_model *m = open_model(kinds[k]);
        continue_elsewhere(m, kinds[k], 20, 5, 32, false);
        continue_elsewhere(m, kinds[k], 64, 1, 7, false);
        continue_elsewhere(m, kinds[k], 150, 100, 50, false);
        continue_elsewhere(m, kinds[k], 150, 100, 3, true);
        continue_elsewhere(m, kinds[k], 129, 2, 200, true); /* in the middle of its prompt */
        cache_type = "q8";                                  /* scales too */
        continue_elsewhere(m, kinds[k], 150, 20, 50, false);
        cache_type = NULL;
        ffai_model_free(m);
    }
}

static char *read_all(long *n) {
    FILE *f = fopen(file, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = ftell(f);
    rewind(f);
    char *p = malloc((size_t)*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t)*n, f), *n);
    fclose(f);
    return p;
}

static void write_all(const char *p, long n) {
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, (size_t)n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void refused(ffai_engine *e, const char *word) {
    ffai_error err = {0};
    int32_t *ids = (int32_t *)&err;
    size_t n = 1;
    int rc = ffai_session_load(e, file, &ids, &n, &err);
    assert_true(rc < 0 && rc == err.code && rc != FFAI_EINTERNAL);
    assert_null(ids);
    assert_int_equal(n, 0);
    if (!strstr(err.msg, word) || !strstr(err.msg, file)) fail_msg("\"%s\" does not say %s", err.msg, word);
}

/* Every byte of the header changed, cuts of every kind, lengthened: refused, and the slot's cache is what it was. */
static void test_damaged(void **state) {
    (void)state;
    ffai_model *m = open_model("gemma3_swa_long");
    ffai_engine *e = engine(m, (ffai_engine_opts){.n_ctx = 200});
    ffai_error err = {0};
    int32_t ids[MAX_IDS], out[MAX_IDS];
    any_ids(ids, 100, 1);
    ffai_request *r = submit(e, ids, 100, 3);
    run_out(e);
    if (ffai_session_save(r, file, &err)) fail_msg("%s", err.msg);
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    ffai_request_free(r);
    long n;
    char *p = read_all(&n);
    uint32_t x = 7;
    for (long i = 0; i < 400; i++) {
        long at = i < 96 ? i : 96 + (long)((x = x * 1664525u + 1013904223u) >> 4) % (n - 96);
        p[at] ^= (char)(1 << i % 8);
        write_all(p, n);
        refused(e, at < 8 ? "not a session" : at < 12 ? "format" : at < 96 ? "damaged" : "checksum");
        p[at] ^= (char)(1 << i % 8);
    }
    for (long cut = 0; cut < n; cut += cut < 100 ? 1 : 5003) {
        write_all(p, cut);
        refused(e, cut < 96 ? "not a session" : "bytes");
    }
    p[n] = 0;
    write_all(p, n + 1);
    refused(e, "bytes");
    write_all(p, n);
    int reused;
    ask(e, ids, 100, 3, out, &reused);
    assert_int_equal(reused, 99); /* nothing was lost */
    unlink(file);
    refused(e, "No such file");
    assert_int_equal(mkdir(file, 0700), 0);
    refused(e, "not a regular file");
    assert_int_equal(rmdir(file), 0);
    free(p);
    ffai_engine_free(e);
    ffai_model_free(m);
}

/* The header's own hash, so that hostile values reach the checks behind it. */
static void seal(char *p);

static void test_mismatch(void **state) {
    (void)state;
    ffai_model *m = open_model("gemma3_swa_long"), *other = open_model("mistral_swa_long");
    ffai_model *weights = NULL;
    ffai_error err = {0};
    ffai_model_opts mo = {.synthetic = "f16"};
    assert_int_equal(ffai_model_open(&weights, NULL, &mo, &err), FFAI_EINVAL);
    assert_int_equal(ffai_model_open(&weights, FIXTURES "gemma3_swa_long", &mo, &err), 0);
    ffai_engine *e = engine(m, (ffai_engine_opts){.n_ctx = 200});
    int32_t ids[MAX_IDS];
    any_ids(ids, 100, 1);
    ffai_request *r = submit(e, ids, 100, 3);
    assert_int_equal(ffai_session_save(r, file, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "has not begun"));
    run_out(e);
    assert_int_equal(ffai_session_save(r, file, &err), 0);
    assert_int_equal(ffai_session_save(r, "/nowhere/at/all", &err), FFAI_EIO);
    assert_int_equal(ffai_session_save(r, "/", &err), FFAI_EIO);
    assert_int_equal(ffai_session_save(r, NULL, &err), FFAI_EINVAL);
    static const struct {
        ffai_engine_opts o;
        const char *word;
    } wrong[] = {{{.n_ctx = 200, .kv_cache = "f16"}, "cache is"}, {{.n_ctx = 100}, "context holds 100"}};
    for (int i = 0; i < 2; i++) {
        ffai_engine *w = engine(m, wrong[i].o);
        refused(w, wrong[i].word);
        ffai_engine_free(w);
    }
    ffai_engine *w = engine(other, (ffai_engine_opts){0});
    refused(w, "another model");
    ffai_engine_free(w);
    w = engine(weights, (ffai_engine_opts){0});
    refused(w, "another model");
    ffai_engine_free(w);
    /* a slot that was used again */
    ffai_request *next = submit(e, ids + 3, 50, 3);
    run_out(e);
    assert_int_equal(ffai_session_save(r, file, &err), FFAI_EINVAL);
    assert_non_null(strstr(err.msg, "used again"));
    assert_int_equal(ffai_session_save(next, file, &err), 0);
    /* no slot free */
    ffai_request *busy = submit(e, ids, 50, 3);
    ffai_engine_step(e, &err);
    refused(e, "no slot");
    ffai_request_free(busy);
    ffai_engine_free(e);
    ffai_model_free(m);
    ffai_model_free(other);
    ffai_model_free(weights);
}

#include "base/smap.h"

static void seal(char *p) {
    uint64_t h = fa_hash(p, 88);
    for (int i = 0; i < 8; i++) p[88 + i] = (char)(h >> 8 * i);
}

/* Hostile numbers under a valid seal. */
static void test_hostile(void **state) {
    (void)state;
    for (int k = 0; k < 5; k += 4) {
        ffai_model *m = open_model(kinds[1 + k * 3 / 4]);
        ffai_engine *e = engine(m, (ffai_engine_opts){.n_ctx = 300});
        ffai_error err = {0};
        int32_t ids[MAX_IDS];
        any_ids(ids, 210, 1);
        ffai_request *r = submit(e, ids, 200, 3);
        run_out(e);
        assert_int_equal(ffai_session_save(r, file, &err), 0);
        long n;
        char *p = read_all(&n), head[96];
        memcpy(head, p, sizeof head);
        static const uint64_t values[] = {0,   1,          2,          63,         64,         65,         299,  300,
                                          301, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1ull << 40, 1ull << 62, ~0ull};
        int loaded = 0;
        for (int at = 12; at < 88; at += 4)
            for (int wide = 4; wide <= 8; wide += 4)
                for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
                    for (int i = 0; i < wide && at + i < 88; i++) p[at + i] = (char)(values[v] >> 8 * i);
                    seal(p);
                    write_all(p, n);
                    int32_t *back;
                    size_t n_back;
                    int rc = ffai_session_load(e, file, &back, &n_back, &err);
                    if (rc && (!err.msg[0] || rc == FFAI_EINTERNAL || rc == FFAI_ENOMEM)) fail_msg("%s", err.msg);
                    loaded += !rc;
                    ffai_free(back);
                    memcpy(p, head, sizeof head);
                }
        assert_true(loaded > 0); /* some change nothing */
        int32_t out[MAX_IDS];
        ask(e, ids, 210, 5, out, NULL);
        same_as_fresh(m, out, 210, 5, "after hostile files");
        free(p);
        ffai_engine_free(e);
        ffai_model_free(m);
    }
}

/* ---- callbacks ---- */

typedef struct listener {
    ffai_engine *e;
    ffai_request *other;
    int32_t ids[MAX_IDS];
    int n, finishes, submitted;
    ffai_finish finish;
} listener;

static void on_event(void *user, ffai_request *r, const ffai_event *ev) {
    listener *l = user;
    memcpy(l->ids + l->n, ev->ids, ev->n_ids * sizeof *ev->ids);
    l->n += (int)ev->n_ids;
    l->finish = ev->finish;
    l->finishes += ev->finish != FFAI_RUNNING;
    ffai_error err = {0};
    assert_int_equal(ffai_engine_step(l->e, &err), FFAI_EINVAL);
    if (ev->finish != FFAI_RUNNING) ffai_request_free(r);
    if (l->n == 4 && l->other) ffai_request_cancel(l->other);
}

static void test_events(void **state) {
    (void)state;
    ffai_model *m = open_model("llama_default");
    ffai_engine *e = engine(m, (ffai_engine_opts){.n_slot = 3});
    ffai_error err = {0};
    static listener l[3];
    int32_t ids[MAX_IDS], want[MAX_IDS];
    any_ids(ids, 50, 3);
    ask(e, ids, 20, 12, want, NULL);
    ffai_request *r[3] = {NULL, NULL, NULL};
    memset(l, 0, sizeof l);
    for (int i = 0; i < 3; i++) {
        ffai_request_opts o = {.ids = ids,
                               .n_ids = 20,
                               .max_new = i == 1 ? 100 : 12,
                               .sampling = {.temp = 1, .top_p = 1, .seed = 20},
                               .ignore_eos = true,
                               .event = on_event,
                               .user = &l[i]};
        l[i].e = e;
        assert_int_equal(ffai_submit(e, &o, &r[i], &err), 0);
    }
    l[2].other = r[1];
    run_out(e);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(l[i].finishes, 1);
        assert_int_equal(l[i].n, i == 1 ? 4 : 12);
        assert_int_equal(l[i].finish, i == 1 ? FFAI_FINISH_CANCEL : FFAI_FINISH_LENGTH);
        assert_memory_equal(l[i].ids, want + 20, (size_t)l[i].n * sizeof *want);
    }
    assert_int_equal(ffai_engine_step(e, &err), 0);
    ffai_engine_free(e);
    ffai_model_free(m);
}

/* An event that submits the next request keeps the engine busy; a request cancelled between steps still tells. */
static void chain(void *user, ffai_request *r, const ffai_event *ev) {
    listener *l = user;
    l->finishes += ev->finish != FFAI_RUNNING;
    if (ev->finish == FFAI_RUNNING || l->submitted == 5) return;
    int32_t id = 7;
    ffai_error err = {0};
    ffai_request *next = NULL;
    ffai_request_opts o = {.ids = &id, .n_ids = 1, .max_new = 2, .ignore_eos = true, .event = chain, .user = user};
    assert_int_equal(ffai_submit(l->e, &o, &next, &err), 0);
    l->submitted++;
    (void)r;
}

static void test_chain(void **state) {
    (void)state;
    ffai_model *m = open_model("llama_default");
    ffai_engine *e = engine(m, (ffai_engine_opts){0});
    static listener l;
    memset(&l, 0, sizeof l);
    l.e = e;
    int32_t id = 3;
    ffai_error err = {0};
    ffai_request *r = NULL;
    ffai_request_opts o = {.ids = &id, .n_ids = 1, .max_new = 9, .ignore_eos = true, .event = chain, .user = &l};
    assert_int_equal(ffai_submit(e, &o, &r, &err), 0);
    ffai_request_cancel(r);
    assert_int_equal(l.finishes, 0);
    run_out(e);
    assert_int_equal(l.submitted, 5);
    assert_int_equal(l.finishes, 6);
    ffai_engine_free(e);
    ffai_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),       cmocka_unit_test(test_again),    cmocka_unit_test(test_parting),
        cmocka_unit_test(test_rotation),    cmocka_unit_test(test_slots),    cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_continue), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_mismatch),    cmocka_unit_test(test_hostile),  cmocka_unit_test(test_events),
        cmocka_unit_test(test_chain),       cmocka_unit_test(test_profile),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
