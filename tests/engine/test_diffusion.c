/* Block diffusion and self-speculation: tokens and passes of the Python reference (tools/fixtures/
 * ref_nemotron_diffusion.py) for every sampler; drafts change nothing but the number of steps; requests of all modes in
 * one batch; ends inside a block; the cache afterwards; what is refused.
 *
 *     test_diffusion [DEVICE]    "cpu" by default; the module of "cuda:0" is $FFAI_CUDA_MODULE, or the emulated one */
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
#include "families/gen.h"
#include "ffai.h"

enum { N_FIXTURE = 2, MAX_IDS = 512 };

static const char *device = "cpu", *cuda_module;
static char dir[64] = "/tmp/ffai-diffusion-XXXXXX";
static bool few; /* on an emulated device everything takes long */
/* Each with an adapter that drafts. */
static const char *const fixtures[N_FIXTURE] = {"lora_nemotrondiffusion_steady", "lora_nemotrondiffusion_plain"};
static ffai_model *models[N_FIXTURE];
static char adapters[N_FIXTURE][200];
static fa_json *cases;

/* Letters and digits for the first tokens, so that there is text to stop at. */
static int write_tokenizer(const char *folder) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    char path[300];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *f = fopen(path, "w");
    if (!f) return -1;
    fprintf(f,
            "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": null, "
            "\"post_processor\": null, \"decoder\": {\"type\": \"Fuse\"}, \"model\": {\"type\": \"BPE\", \"merges\": "
            "[], \"vocab\": {");
    for (int i = 0; i < 61; i++) fprintf(f, "%s\"%c\": %d", i ? ", " : "", letters[i], i);
    fprintf(f, "}}}\n");
    return fclose(f);
}

static int set_up(void **state) {
    (void)state;
    const char *source = getenv("FFAI_SOURCE_DIR");
    char data[600], path[512], folder[200];
    ffai_error err = {0};
    snprintf(data, sizeof data, "%s/tests/data/diffusion.json", source ? source : FFAI_SOURCE_DIR);
    if (!mkdtemp(dir) || fa_json_load(&cases, data, &err)) return fprintf(stderr, "%s\n", err.msg), -1;
    snprintf(data, sizeof data, "%s/tests/data/families", source ? source : FFAI_SOURCE_DIR);
    for (int i = 0; i < N_FIXTURE; i++) {
        fx f;
        char cmd[300];
        snprintf(folder, sizeof folder, "%s/%d", dir, i);
        snprintf(cmd, sizeof cmd, "mkdir '%s'", folder);
        if (system(cmd) || fx_open(&f, data, fixtures[i], &err) || fx_write(&f, folder, path, &err) ||
            (i == 0 && write_tokenizer(folder)) || ffai_model_open(&models[i], path, NULL, &err))
            return fprintf(stderr, "%s: %s\n", fixtures[i], err.msg), -1;
        fx_close(&f);
        snprintf(adapters[i], sizeof adapters[i], "%s/adapter0", folder);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char cmd[100];
    for (int i = 0; i < N_FIXTURE; i++) ffai_model_free(models[i]);
    fa_json_free(cases);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

/* ---- engines and requests ---- */

static ffai_engine *engine(int fixture, const char *precision, int n_slot, int n_chunk) {
    ffai_error err = {0};
    ffai_engine *e = NULL;
    ffai_engine_opts o = {.device = device,
                          .cuda_module = cuda_module,
                          .precision = precision,
                          .n_ctx = 256,
                          .n_thread = 2,
                          .n_slot = n_slot,
                          .n_chunk = n_chunk};
    if (ffai_engine_create(&e, models[fixture], &o, &err)) fail_msg("%s", err.msg);
    return e;
}

static ffai_adapter_use draft_of(ffai_engine *e, int fixture) {
    ffai_error err = {0};
    ffai_adapter_use u = {.scale = 1};
    if (ffai_adapter_load(&u.adapter, e, adapters[fixture], &err)) fail_msg("%s", err.msg);
    return u;
}

static ffai_request *submit(ffai_engine *e, const ffai_request_opts *o) {
    ffai_error err = {0};
    ffai_request *r = NULL;
    if (ffai_submit(e, o, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

/* New tokens of a finished request, which is freed. */
typedef struct tokens {
    int32_t ids[MAX_IDS];
    float logprob[MAX_IDS], second_logprob[MAX_IDS]; /* second: the likeliest other token */
    int32_t second[MAX_IDS];
    char text[MAX_IDS];
    size_t n, n_text;
    ffai_finish finish;
    const char *name; /* for messages */
} tokens;

static void take(ffai_request *r, tokens *t) {
    ffai_event ev;
    ffai_request_poll(r, &ev);
    assert_true(t->n + ev.n_ids <= MAX_IDS && t->n_text + ev.text_len < MAX_IDS);
    for (size_t i = 0; i < ev.n_ids; i++) {
        t->ids[t->n + i] = ev.ids[i];
        if (ev.logprobs) assert_int_equal(ev.logprobs[i * (1 + ev.n_top)].id, ev.ids[i]);
        if (ev.logprobs) t->logprob[t->n + i] = ev.logprobs[i * (1 + ev.n_top)].logprob;
        for (int k = ev.logprobs ? ev.n_top : 0; k > 0; k--) {
            const ffai_logprob *p = &ev.logprobs[i * (1 + ev.n_top) + k];
            if (p->id == ev.ids[i]) continue;
            t->second[t->n + i] = p->id;
            t->second_logprob[t->n + i] = p->logprob;
        }
    }
    memcpy(t->text + t->n_text, ev.text, ev.text_len);
    t->n += ev.n_ids;
    t->n_text += ev.text_len;
    t->text[t->n_text] = 0;
    t->finish = ev.finish;
}

static tokens finished(ffai_request *r) {
    tokens t = {.n = 0};
    take(r, &t);
    if (t.finish == FFAI_FINISH_ERROR) fail_msg("%s", ffai_request_error(r)->msg);
    assert_int_not_equal(t.finish, FFAI_RUNNING);
    ffai_request_free(r);
    return t;
}

static tokens run_one(ffai_engine *e, const ffai_request_opts *o) {
    ffai_request *r = submit(e, o);
    run_out(e);
    return finished(r);
}

static void same(const tokens *a, const tokens *b) {
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++)
        if (a->ids[i] != b->ids[i])
            fail_msg("%s: token %zu is %d, not %d", a->name ? a->name : "", i, b->ids[i], a->ids[i]);
}

/* ---- the reference's cases ---- */

typedef struct one_case {
    const char *name;
    int fixture;
    int32_t prompt[MAX_IDS];
    tokens want;
    int64_t passes;
    const fa_jnode *node;
    ffai_diffusion diffusion;
    ffai_request_opts opts;
} one_case;

static size_t read_ids(const fa_jnode *n, int32_t *ids) {
    size_t k = 0;
    for (const fa_jnode *x = fa_jfirst(n); x; x = fa_jnext(x)) ids[k++] = (int32_t)fa_jint(x, -1);
    return k;
}

static void read_case(one_case *c, const fa_jnode *n, const ffai_adapter_use *draft) {
    const fa_jnode *o = fa_jget(n, "options");
    const char *weights = fa_jstr(fa_jget(n, "weights"), NULL);
    *c = (one_case){.name = fa_jstr(fa_jget(n, "name"), NULL), .node = n, .passes = fa_jint(fa_jget(n, "passes"), -1)};
    c->fixture = strstr(weights, "_steady") ? 0 : 1;
    bool spec = !strcmp(c->name, "spec");
    c->diffusion = (ffai_diffusion){.mode = spec ? FFAI_DIFFUSION_SELF_SPEC : FFAI_DIFFUSION_BLOCK,
                                    .block = (int)fa_jint(fa_jget(o, "block"), 0),
                                    .steps = (int)fa_jint(fa_jget(o, "steps"), 0),
                                    .sampler = fa_jstr(fa_jget(o, "sampler"), NULL),
                                    .confidence = (float)fa_jnum(fa_jget(o, "confidence"), 0),
                                    .min_confidence = (float)fa_jnum(fa_jget(o, "min_confidence"), 0),
                                    .factor = (float)fa_jnum(fa_jget(o, "factor"), 0),
                                    .n_transfer = (int)fa_jint(fa_jget(o, "n_transfer"), 0),
                                    .max_transfer = (int)fa_jint(fa_jget(o, "max_transfer"), 0),
                                    .draft = draft,
                                    .n_draft = spec};
    c->want.n = read_ids(fa_jget(n, "tokens"), c->want.ids);
    c->opts = (ffai_request_opts){.ids = c->prompt,
                                  .n_ids = read_ids(fa_jget(n, "prompt"), c->prompt),
                                  .max_new = (int64_t)c->want.n,
                                  .ignore_eos = true,
                                  .diffusion = &c->diffusion};
}

static void test_reference(void **state) {
    (void)state;
    int n_case = 0;
    for (int f = 0; f < (few ? 1 : N_FIXTURE); f++) {
        ffai_engine *e = engine(f, "exact", 1, 96);
        ffai_adapter_use draft = draft_of(e, f);
        for (const fa_jnode *n = fa_jfirst(fa_json_root(cases)); n; n = fa_jnext(n)) {
            one_case c;
            ffai_engine_stats before, after;
            read_case(&c, n, &draft);
            if (c.fixture != f || (few && c.want.n > 190)) continue;
            ffai_engine_get_stats(e, &before);
            tokens got = run_one(e, &c.opts);
            ffai_engine_get_stats(e, &after);
            c.want.name = got.name = c.name;
            same(&c.want, &got);
            assert_int_equal(after.block_passes - before.block_passes, c.passes);
            if (!c.diffusion.n_draft) continue;
            assert_int_equal(after.block_proposed - before.block_proposed, fa_jint(fa_jget(n, "proposed"), -1));
            assert_int_equal(after.block_accepted - before.block_accepted, fa_jint(fa_jget(n, "accepted"), -1));
            n_case++;
        }
        ffai_engine_free(e);
    }
    assert_true(n_case > (few ? 0 : 5));
}

/* All cases of a checkpoint at once, and one from left to right between them: each as alone. Steps hold fewer rows than
 * all of their blocks. */
static void test_batch(void **state) {
    (void)state;
    for (int f = 0; f < (few ? 1 : N_FIXTURE); f++) {
        ffai_engine *e = engine(f, "exact", 5, 70);
        ffai_adapter_use draft = draft_of(e, f);
        enum { MOST = 40 };
        one_case *c = calloc(MOST, sizeof *c);
        ffai_request *r[MOST], *plain[MOST];
        int n = 0, skipped = 0;
        assert_non_null(c);
        for (const fa_jnode *x = fa_jfirst(fa_json_root(cases)); x && n < MOST; x = fa_jnext(x)) {
            read_case(&c[n], x, &draft);
            n += c[n].fixture == f && (!few || n % 3 == 0 || ++skipped % 3 == 0);
        }
        for (int i = 0; i < n; i++) {
            ffai_request_opts o = c[i].opts;
            r[i] = submit(e, &o);
            o.diffusion = NULL;
            plain[i] = i % 4 == 3 ? submit(e, &o) : NULL;
        }
        run_out(e);
        for (int i = 0; i < n; i++) {
            tokens got = finished(r[i]);
            same(&c[i].want, &got);
            if (!plain[i]) continue;
            tokens left = finished(plain[i]);
            if (!strcmp(c[i].name, "spec") || !strcmp(c[i].name, "one")) same(&left, &got);
        }
        free(c);
        ffai_engine_free(e);
    }
}

/* ---- self-speculation ---- */

static void prompt_of(int32_t *ids, int n, int64_t vocab, uint32_t seed) {
    for (int i = 0; i < n; i++) ids[i] = (int32_t)((seed = seed * 1664525u + 1013904223u) >> 8) % (int32_t)vocab;
}

static int64_t vocab_of(int f) {
    ffai_model_info in;
    ffai_model_get_info(models[f], &in);
    assert_int_equal(in.block, 32);
    return in.vocab;
}

/* Whatever draws the tokens: what is drawn from left to right, with its log-probabilities. */
static void test_drafts_change_nothing(void **state) {
    (void)state;
    static const ffai_sampling how[] = {{.temp = 0},
                                        {.temp = 0.3f, .seed = 5},
                                        {.temp = 0.9f, .top_k = 9, .seed = 6},
                                        {.temp = 0.2f, .repeat_penalty = 1.05f, .repeat_last = 20, .seed = 7},
                                        {.temp = 0, .dry_multiplier = 0.1f},
                                        {.temp = 0.4f, .mirostat_tau = 2, .seed = 8}};
    for (int f = 0; f < (few ? 1 : N_FIXTURE); f++) {
        ffai_engine *e = engine(f, "exact", 1, 96);
        ffai_adapter_use draft = draft_of(e, f);
        int32_t ids[20];
        for (size_t i = 0; i < (few ? 3 : sizeof how / sizeof *how); i++) {
            ffai_diffusion d = {
                .mode = FFAI_DIFFUSION_SELF_SPEC, .draft = &draft, .n_draft = i != 1, .block = i % 2 ? 5 : 0};
            ffai_request_opts o = {.ids = ids,
                                   .n_ids = 20,
                                   .max_new = few ? 60 : 200,
                                   .sampling = how[i],
                                   .ignore_eos = true,
                                   .n_logprob = i % 3 ? 2 : 0};
            prompt_of(ids, 20, vocab_of(f), (uint32_t)(77 + i));
            tokens want = run_one(e, &o);
            o.diffusion = &d;
            tokens got = run_one(e, &o);
            same(&want, &got);
            for (size_t k = 0; k < want.n; k++) assert_true(fabsf(want.logprob[k] - got.logprob[k]) < 1e-3f);
        }
        ffai_engine_free(e);
    }
}

/* In fast precision inputs of 4-bit weights are 8-bit integers, and keys are f16: where the sum of a product has
 * another last bit because more rows are fed together, one of those may be another. Sums of the plain kernels have one
 * order for any number of rows: drafts change nothing. With others the texts part where two tokens are about as likely.
 */
static void test_fast(void **state) {
    (void)state;
    const char *kernels[] = {"c", NULL};
    const char *source = getenv("FFAI_SOURCE_DIR");
    char data[600], path[512], folder[200];
    ffai_error err = {0};
    ffai_model *m = NULL;
    ffai_model_info in;
    fx f;
    if (few) skip(); /* nothing that depends on the device */
    snprintf(data, sizeof data, "%s/tests/data/families", source ? source : FFAI_SOURCE_DIR);
    snprintf(folder, sizeof folder, "%s/fast", dir);
    assert_int_equal(mkdir(folder, 0700), 0);
    if (fx_open(&f, data, "mlx_nemotrondiffusion_b4_g64", &err) || fx_write(&f, folder, path, &err) ||
        ffai_model_open(&m, path, NULL, &err))
        fail_msg("%s", err.msg);
    ffai_model_get_info(m, &in);
    for (int k = 0; k < 2; k++) {
        ffai_engine *e = NULL;
        ffai_engine_opts eo = {.device = "cpu", .cpu = kernels[k], .precision = "fast", .n_ctx = 256, .n_thread = 2};
        if (ffai_engine_create(&e, m, &eo, &err)) fail_msg("%s", err.msg);
        for (uint32_t seed = 0; seed < 3; seed++) {
            int32_t ids[20];
            ffai_diffusion d = {.mode = FFAI_DIFFUSION_SELF_SPEC};
            ffai_request_opts o = {.ids = ids, .n_ids = 20, .max_new = 150, .ignore_eos = true, .n_logprob = 2};
            prompt_of(ids, 20, in.vocab, 1000 + seed);
            tokens want = run_one(e, &o);
            o.diffusion = &d;
            tokens got = run_one(e, &o);
            size_t i = 0;
            while (i < want.n && want.ids[i] == got.ids[i]) i++;
            if (i == want.n) continue;
            if (kernels[k]) fail_msg("prompt %u: token %zu is %d, not %d", seed, i, got.ids[i], want.ids[i]);
            float gap = want.logprob[i] - want.second_logprob[i];
            print_message("prompt %u: token %zu is %d, not %d; gap %.3f\n", seed, i, got.ids[i], want.ids[i],
                          (double)gap);
            assert_int_equal(want.second[i], got.ids[i]);
            assert_true(gap < 0.2f);
        }
        ffai_engine_free(e);
    }
    fx_close(&f);
    ffai_model_free(m);
}

/* ---- ends ---- */

static size_t where(const tokens *t, int32_t id) {
    size_t i = 0;
    while (i < t->n && t->ids[i] != id) i++;
    return i;
}

/* A token that ends the text, a stop string, a full context: what comes out is the beginning of what would have come.
 */
static void test_ends(void **state) {
    (void)state;
    ffai_engine *e = engine(0, "exact", 1, 96);
    ffai_adapter_use draft = draft_of(e, 0);
    int32_t ids[20];
    prompt_of(ids, 20, vocab_of(0), 3);
    for (int mode = FFAI_DIFFUSION_BLOCK; mode <= FFAI_DIFFUSION_SELF_SPEC; mode++) {
        for (int at = 0; at < (few ? 1 : 6); at++) {
            /* random numbers of a place do not depend on what ends the text */
            ffai_diffusion d = {.mode = (ffai_diffusion_mode)mode, .draft = &draft, .n_draft = 1, .confidence = 0.5f};
            const ffai_logit_bias often = {11, 11};
            ffai_request_opts o = {.ids = ids,
                                   .n_ids = 20,
                                   .max_new = 100 + at,
                                   .ignore_eos = true,
                                   .sampling = {.temp = 1.5f, .seed = (uint64_t)at, .bias = &often, .n_bias = 1},
                                   .diffusion = &d};
            tokens all = run_one(e, &o);
            assert_int_equal(all.n, 100 + at);
            assert_int_equal(all.finish, FFAI_FINISH_LENGTH);
            assert_int_equal(all.n_text, all.n);
            size_t end = where(&all, 11);
            assert_true(end < all.n);
            o.ignore_eos = false;
            tokens got = run_one(e, &o);
            assert_int_equal(got.finish, FFAI_FINISH_EOS);
            assert_int_equal(got.n, end);
            assert_memory_equal(got.ids, all.ids, end * sizeof *got.ids);
            /* two letters of the text behind its middle */
            char stop[3] = {all.text[57], all.text[58], 0};
            const char *list[] = {stop};
            o.ignore_eos = true;
            o.stop = list;
            o.n_stop = 1;
            got = run_one(e, &o);
            assert_int_equal(got.finish, FFAI_FINISH_STOP);
            assert_int_equal(got.n_text, strstr(all.text, stop) - all.text);
            assert_memory_equal(got.text, all.text, got.n_text);
        }
    }
    ffai_diffusion d = {.mode = FFAI_DIFFUSION_BLOCK, .steps = 2};
    ffai_request_opts o = {.ids = ids, .n_ids = 20, .ignore_eos = true, .diffusion = &d};
    tokens full = run_one(e, &o);
    assert_int_equal(full.n, 256 - 20);
    ffai_engine_free(e);
}

/* ---- the cache ---- */

/* Conversations go on in any mode, from what the cache holds or from a file, as if everything had been fed again. */
static void test_goes_on(void **state) {
    (void)state;
    ffai_error err = {0};
    char path[100];
    snprintf(path, sizeof path, "%s/session", dir);
    ffai_engine *e = engine(0, "exact", 2, 96), *fresh = engine(0, "exact", 1, 96);
    ffai_adapter_use draft = draft_of(e, 0), same_draft = draft_of(fresh, 0);
    for (int mode = FFAI_DIFFUSION_OFF; mode <= FFAI_DIFFUSION_SELF_SPEC; mode++) {
        for (int then = FFAI_DIFFUSION_OFF; then <= FFAI_DIFFUSION_SELF_SPEC; then++) {
            if (few && then != (mode + 1) % 3) continue;
            ffai_diffusion d = {.mode = (ffai_diffusion_mode)mode, .draft = &draft, .n_draft = 1, .confidence = 0.4f},
                           d2 = d;
            int32_t ids[MAX_IDS];
            const int32_t *all;
            size_t n, n_prompt, n_reused;
            prompt_of(ids, 30, 60, (uint32_t)(100 + 10 * mode + then));
            ffai_request_opts o = {.ids = ids, .n_ids = 30, .max_new = 50, .ignore_eos = true, .diffusion = &d};
            ffai_request *r = submit(e, &o);
            for (int k = 0; k < (then == 1 ? 9 : 1000) && ffai_engine_step(e, &err) > 0; k++) {
            }
            if (then == 1) assert_int_equal(ffai_session_save(r, path, &err), 0); /* in the middle of something */
            ffai_request_cancel(r);
            ffai_request_ids(r, &all, &n, &n_prompt, &n_reused);
            memcpy(ids, all, n * sizeof *ids);
            ffai_request_free(r);
            prompt_of(ids + n, 5, 60, 9);
            d2.mode = (ffai_diffusion_mode)then;
            o = (ffai_request_opts){.ids = ids, .n_ids = n + 5, .max_new = 40, .ignore_eos = true, .diffusion = &d2};
            r = submit(e, &o);
            run_out(e);
            ffai_request_ids(r, &all, &n, &n_prompt, &n_reused);
            assert_true(n_reused >= 30);
            tokens got = finished(r);
            d2.draft = &same_draft;
            o.fresh = true;
            tokens want = run_one(fresh, &o);
            same(&want, &got);
            if (then != 1) continue;
            int32_t *kept;
            size_t n_kept;
            o.fresh = false;
            assert_int_equal(ffai_session_load(fresh, path, &kept, &n_kept, &err), 0);
            ffai_free(kept);
            got = run_one(fresh, &o);
            same(&want, &got);
        }
    }
    ffai_engine_free(e);
    ffai_engine_free(fresh);
}

/* ---- drawing ---- */

static void test_drawn(void **state) {
    (void)state;
    ffai_engine *e = engine(1, "exact", 3, 96);
    int32_t ids[12];
    prompt_of(ids, 12, vocab_of(1), 4);
    tokens t[3], again;
    for (int k = 0; k < 3; k++) {
        ffai_diffusion d = {.mode = FFAI_DIFFUSION_BLOCK, .confidence = 0.3f, .block = 16};
        ffai_request_opts o = {.ids = ids,
                               .n_ids = 12,
                               .max_new = 60,
                               .sampling = {.temp = 1, .top_k = 20, .top_p = 0.9f, .seed = (uint64_t)(k / 2)},
                               .ignore_eos = true,
                               .n_logprob = -1,
                               .diffusion = &d};
        t[k] = run_one(e, &o);
        ffai_request *r[3];
        for (int i = 0; i < 3; i++) r[i] = submit(e, &o);
        run_out(e);
        for (int i = 0; i < 3; i++) again = finished(r[i]), same(&t[k], &again);
        for (size_t i = 0; i < t[k].n; i++) assert_true(t[k].logprob[i] <= 0 && t[k].logprob[i] > -20);
    }
    same(&t[0], &t[1]);
    assert_memory_not_equal(t[0].ids, t[2].ids, 60 * sizeof(int32_t));
    ffai_engine_free(e);
}

/* ---- refused ---- */

static void refused(ffai_engine *e, ffai_request_opts o, const char *what) {
    ffai_error err = {0};
    ffai_request *r = NULL;
    assert_int_not_equal(ffai_submit(e, &o, &r, &err), 0);
    assert_null(r);
    if (!strstr(err.msg, what)) fail_msg("\"%s\" says nothing of \"%s\"", err.msg, what);
}

static void no_mask(void *user, const int32_t *ids, size_t n, uint32_t *bits) {
    (void)user, (void)ids, (void)n, (void)bits;
}

static void test_refused(void **state) {
    (void)state;
    ffai_error err = {0};
    ffai_engine *e = engine(0, "exact", 1, 20), *other = engine(0, "exact", 1, 20);
    ffai_adapter_use draft = draft_of(e, 0), foreign = draft_of(other, 0), none = {NULL, 1};
    static const int32_t ids[] = {1, 2, 3};
    static const struct {
        ffai_diffusion d;
        const char *what;
    } bad[] = {{{.mode = FFAI_DIFFUSION_BLOCK, .block = 65}, "65 tokens, between 1 and 64"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = -1}, "-1 tokens"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 21}, "21 tokens does not fit a step of 20"},
               {{.mode = FFAI_DIFFUSION_BLOCK}, "32 tokens does not fit"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 8, .steps = -1}, "-1 steps"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 8, .n_transfer = -2}, "n_transfer -2"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 8, .max_transfer = -3}, "max_transfer -3"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 8, .sampler = "best"}, "\"best\" is none of native, fixed"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 8, .confidence = 1.5f}, "confidence is 1.5"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 8, .min_confidence = -1}, "min_confidence is -1"},
               {{.mode = FFAI_DIFFUSION_BLOCK, .block = 8, .factor = NAN}, "factor is"},
               {{.mode = (ffai_diffusion_mode)7, .block = 8}, "no mode 7"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(e, (ffai_request_opts){.ids = ids, .n_ids = 3, .diffusion = &bad[i].d}, bad[i].what);
    ffai_diffusion d = {.mode = FFAI_DIFFUSION_BLOCK, .block = 8};
    ffai_request_opts o = {.ids = ids, .n_ids = 3, .max_new = 30, .diffusion = &d};
    o.mask = no_mask;
    refused(e, o, "as a token mask needs it");
    o.mask = NULL;
    o.sampling.dry_multiplier = 1;
    refused(e, o, "as DRY needs it");
    o.sampling = (ffai_sampling){.temp = 1, .mirostat_tau = 1};
    refused(e, o, "as mirostat needs it");
    o.sampling = (ffai_sampling){.no_repeat_ngram = 2};
    refused(e, o, "n-grams");
    o.sampling = (ffai_sampling){0};
    d = (ffai_diffusion){.mode = FFAI_DIFFUSION_SELF_SPEC, .block = 8, .draft = &foreign, .n_draft = 1};
    refused(e, o, "another engine");
    d.draft = &none;
    refused(e, o, "NULL");
    d.draft = &draft;
    ffai_request *r = submit(e, &o);
    assert_int_not_equal(ffai_adapter_drop(draft.adapter, &err), 0); /* it drafts */
    run_out(e);
    ffai_request_free(r);
    assert_int_equal(ffai_adapter_drop(draft.adapter, &err), 0);
    ffai_engine_free(e);
    ffai_engine_free(other);
}

int main(int argc, char **argv) {
    if (argc > 1) device = argv[1];
    few = strcmp(device, "cpu") != 0;
    cuda_module = getenv("FFAI_CUDA_MODULE");
#ifdef FFAI_CUDA_EMU_MODULE
    if (!cuda_module) cuda_module = FFAI_CUDA_EMU_MODULE;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_batch),  cmocka_unit_test(test_drafts_change_nothing),
        cmocka_unit_test(test_fast),      cmocka_unit_test(test_ends),   cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_drawn),     cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
