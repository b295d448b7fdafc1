/* Grammars: masks against a slow recogniser on random grammars, against stepping byte by byte with a real vocabulary,
 * and lists of texts that Python's jsonschema and re have judged (tools/check_grammars.py --write). Also messages,
 * tokens by name, limits, threads and failing allocations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "gram_ref.h"
#include "io/json.h"

static fa_error err;

static bool bit(const uint32_t *bits, int i) { return bits[i / 32] >> (i % 32) & 1; }

static fa_gram *compile(const fa_vocab *v, const char *kind, const char *text) {
    fa_gram *g;
    if (fa_gram_compile(&g, v, kind, text, strlen(text), &err)) fail_msg("%s\n%s", text, err.msg);
    return g;
}

static fa_gram_run *begin(fa_gram *g) {
    fa_gram_run *r;
    if (fa_gram_run_new(&r, g, &err)) fail_msg("%s", err.msg);
    return r;
}

/* ---- random grammars ---- */

static fa_rng rng = {.seed = 1};
static unsigned rnd(unsigned n) { return (unsigned)(fa_rng_next(&rng) % n); }

typedef struct draft {
    char s[4000];
    int n;
} draft;

static void put(draft *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(draft *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    t->n += vsnprintf(t->s + t->n, sizeof t->s - (size_t)t->n, fmt, ap);
    va_end(ap);
    assert_true((size_t)t->n < sizeof t->s);
}

static void expression(draft *t, int depth, int n_rule) {
    unsigned least = rnd(4), more = rnd(200);
    switch (rnd(depth > 3 ? 4 : 12)) {
    case 0: put(t, "\"%c\"", "abc"[rnd(3)]); return;
    case 1: put(t, "[ab]"); return;
    case 2: put(t, "\"%c%c\"", "abc"[rnd(3)], "abc"[rnd(3)]); return;
    case 3: put(t, "%s", rnd(2) ? "[^a]" : "[\xC3\xA9-\xC3\xBC]"); return;
    case 4:
    case 5:
        put(t, "(");
        expression(t, depth + 1, n_rule);
        put(t, "%s", rnd(2) ? " | " : " ");
        expression(t, depth + 1, n_rule);
        put(t, ")");
        return;
    case 6:
    case 7:
    case 8:
        put(t, "(");
        expression(t, depth + 1, n_rule);
        put(t, ")");
        if (rnd(3) == 0)
            put(t, "%c", "*+?"[rnd(3)]);
        else if (rnd(2))
            put(t, "{%u,%u}", least, least + more);
        else
            put(t, "{%u,}", least);
        return;
    case 9:
    case 10: put(t, "(\"%c\" r%u)", "abc"[rnd(3)], rnd((unsigned)n_rule)); return;
    default: put(t, "(r%u | \"c\")", rnd((unsigned)n_rule)); return;
    }
}

static const char *const fixed[] = {
    "root ::= e\ne ::= t \"+\" e | t\nt ::= \"1\" | \"(\" e \")\"",
    "root ::= a\na ::= \"a\" a \"b\" | \"a\" a \"c\" | \"\"",
    "root ::= \"a\"{0,1000000}",
    "root ::= ((\"a\"{1,100000}){2,100000} \"b\"){3,1000}",
    "root ::= x{2,5} \"c\"\nx ::= \"a\"* \"b\"?",
    "root ::= l\nl ::= \"a\" l | \"a\"",
    "root ::= ([a-c]{0,20} \"+\"){1,3}",
    "root ::= . . .",
    "root ::= [^abc]* \"a\"",
    "root ::= (r r)*\nr ::= \"a\" root \"b\" | \"c\"",
    "root ::= [a-c]* [a] [a-c]{3}",
};
enum { N_FIXED = sizeof fixed / sizeof *fixed, N_RANDOM = 70 };

static const char *const pieces[] = {"a",  "b",   "c",    "ab",   "bc",       "abc",     "aa",       "aaa",
                                     "bb", "cab", "\xC3", "\xA9", "\xC3\xA9", "a\xC3",   "\xA9\x62", "\xC3\xBC",
                                     "cc", "bca", "abab", "(",    ")",        "((",      "))",       "()",
                                     "1",  "+",   "1+",   "+1",   "(1",       "aaaaaaa", "",         "z"};
enum { N_PIECE = sizeof pieces / sizeof *pieces, EOS = N_PIECE };

static fa_vocab *small_vocab(void) {
    static fa_vocab_token list[N_PIECE + 1];
    const int32_t eos = EOS;
    fa_vocab *v;
    for (int i = 0; i < N_PIECE; i++) list[i] = (fa_vocab_token){pieces[i], strlen(pieces[i])};
    list[EOS] = (fa_vocab_token){"</s>", 4};
    if (fa_vocab_from_list(&v, list, N_PIECE + 1, &eos, 1, &err)) fail_msg("%s", err.msg);
    return v;
}

/* Compares the mask with the recogniser; picks a token, -1: none or the text is long enough. */
static int check_mask(const fa_gb *b, fa_gram_run *r, const char *s, size_t n, size_t *checks) {
    const uint32_t *bits;
    size_t count, allowed = 0;
    char longer[REF_MAX + 1];
    int pick = -1;
    if (fa_gram_mask(r, &bits, &count, &err)) fail_msg("%s\n%s", b->text, err.msg);
    memcpy(longer, s, n);
    for (int t = 0; t < N_PIECE; t++) {
        size_t k = strlen(pieces[t]);
        if (n + k > REF_MAX) return -1;
        memcpy(longer + n, pieces[t], k);
        bool want = k && ref_match(b, longer, n + k).viable;
        if (want != bit(bits, t))
            fail_msg("%s\nbehind \"%.*s\" token \"%s\" is %s", b->text, (int)n, s, pieces[t],
                     want ? "refused" : "allowed");
        allowed += want;
        if (want && rnd((unsigned)allowed) == 0) pick = t;
        ++*checks;
    }
    bool whole = ref_match(b, s, n).whole;
    if (whole != bit(bits, EOS) || whole != fa_gram_complete(r))
        fail_msg("%s\nend behind \"%.*s\"", b->text, (int)n, s);
    assert_int_equal(allowed, count);
    return pick;
}

static void random_grammars(void **state) {
    (void)state;
    fa_vocab *v = small_vocab();
    size_t checks = 0, compiled = 0;
    for (int k = 0; k < N_FIXED + N_RANDOM; k++) {
        draft t = {.n = 0};
        int n_rule = 1 + (int)rnd(4);
        put(&t, "%s", k < N_FIXED ? fixed[k] : "root ::= ");
        if (k >= N_FIXED) expression(&t, 0, n_rule);
        for (int i = 0; k >= N_FIXED && i < n_rule; i++) {
            put(&t, "\nr%d ::= ", i);
            expression(&t, 0, n_rule);
        }
        fa_gram *g;
        if (fa_gram_compile(&g, v, "gbnf", t.s, (size_t)t.n, &err)) {
            if (!strstr(err.msg, "left rec") && !strstr(err.msg, "no text")) fail_msg("%s\n%s", t.s, err.msg);
            continue;
        }
        compiled++;
        fa_gb b = {.text = t.s, .len = (size_t)t.n, .what = "grammar", .v = v, .err = &err};
        fa_gbnf_read(&b);
        for (int walk = 0; walk < 4; walk++) {
            fa_gram_run *r = begin(g);
            char s[REF_MAX + 1];
            size_t n = 0;
            for (int step = 0; step < 10; step++) {
                int p = check_mask(&b, r, s, n, &checks);
                if (p < 0) break;
                memcpy(s + n, pieces[p], strlen(pieces[p]));
                n += strlen(pieces[p]);
                if (fa_gram_accept(r, p, &err)) fail_msg("%s", err.msg);
            }
            fa_gram_run_free(r);
        }
        fa_gb_free(&b);
        fa_gram_free(g);
    }
    print_message("%zu grammars, %zu tokens judged\n", compiled, checks);
    assert_true(compiled > N_FIXED + N_RANDOM / 2);
    fa_vocab_free(v);
}

/* ---- a real vocabulary against single bytes ---- */

static fa_vocab *bytes_vocab(void) {
    static char bytes[256];
    fa_vocab_token list[257] = {{NULL, 0}};
    const int32_t eos = 256;
    fa_vocab *v;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        list[i] = (fa_vocab_token){bytes + i, 1};
    }
    if (fa_vocab_from_list(&v, list, 257, &eos, 1, &err)) fail_msg("%s", err.msg);
    return v;
}

static fa_tok *open_tok(const char *dir) {
    fa_tok *t;
    char path[512];
    snprintf(path, sizeof path, FFAI_SOURCE_DIR "/%s", dir);
    if (fa_tok_from_dir(&t, path, &err)) fail_msg("%s", err.msg);
    return t;
}

/* A run over bytes that stands where `ids` lead. */
static fa_gram_run *replay(fa_gram *g, const fa_vocab *v, const int32_t *ids, size_t n) {
    fa_gram_run *r = begin(g);
    for (size_t k = 0; k < n; k++)
        for (uint32_t i = v->off[ids[k]]; i < v->off[ids[k] + 1]; i++)
            if (!(k == 0 && i == v->off[ids[0]] && v->eat_space && v->pool[i] == ' ') &&
                fa_gram_accept(r, (unsigned char)v->pool[i], &err))
                fail_msg("%s", err.msg);
    return r;
}

static bool steps(fa_gram *g, const fa_vocab *v, const int32_t *ids, size_t n, int32_t id) {
    fa_gram_run *r = replay(g, v, ids, n);
    uint32_t i = v->off[id], end = v->off[id + 1];
    if (!n && v->eat_space && i < end && v->pool[i] == ' ') i++;
    bool ok = i < end;
    while (ok && i < end) ok = !fa_gram_accept(r, (unsigned char)v->pool[i++], NULL);
    fa_gram_run_free(r);
    return ok;
}

static void walk_real(const fa_vocab *v, const char *kind, const char *grammar) {
    fa_vocab *bytes = bytes_vocab();
    fa_gram *g = compile(v, kind, grammar), *slow = compile(bytes, kind, grammar);
    for (int walk = 0; walk < 3; walk++) {
        fa_gram_run *r = begin(g);
        int32_t ids[40];
        size_t n = 0;
        for (; n < 40; n++) {
            const uint32_t *bits;
            size_t count, seen = 0;
            int32_t pick = -1;
            if (fa_gram_mask(r, &bits, &count, &err)) fail_msg("%s", err.msg);
            for (size_t i = 0; i < v->n_id; i++) {
                if ((size_t)(v->eos[0]) == i || !bit(bits, (int)i)) continue;
                if (rnd((unsigned)++seen) == 0) pick = (int32_t)i;
            }
            assert_int_equal(seen, count);
            for (int k = 0; k < 60; k++) { /* tokens at random, and those beside the chosen one */
                int32_t id = (int32_t)rnd((unsigned)v->n_id);
                if (id == v->eos[0]) continue;
                if (steps(slow, v, ids, n, id) != bit(bits, id))
                    fail_msg("%s: token %d behind %zu others", grammar, id, n);
            }
            if (pick < 0) break;
            if (!steps(slow, v, ids, n, pick)) fail_msg("%s: token %d is allowed", grammar, pick);
            if (fa_gram_accept(r, pick, &err)) fail_msg("%s", err.msg);
            ids[n] = pick;
        }
        fa_gram_run_free(r);
    }
    fa_gram_free(g);
    fa_gram_free(slow);
    fa_vocab_free(bytes);
}

static void real_vocabulary(void **state) {
    (void)state;
    static const char *const dirs[] = {"models/ffai-demo-6m", "tests/data/tok/llama2", "tests/data/tok/gemma3"};
    for (size_t d = 0; d < sizeof dirs / sizeof *dirs; d++) {
        fa_tok *t = open_tok(dirs[d]);
        fa_vocab *v;
        const int32_t eos = 1;
        if (fa_vocab_new(&v, t, fa_tok_size(t), &eos, 1, &err)) fail_msg("%s", err.msg);
        walk_real(v, "json-schema", "{}");
        walk_real(v, "json-schema",
                  "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\","
                  "\"minLength\":"
                  "3,\"maxLength\":7},\"b\":{\"$ref\":\"#\"},\"c\":{\"enum\":[\"the\",\"a\",1]}},\"required\":[\"a\"]},"
                  "\"maxItems\":40}");
        walk_real(v, "regex", "[a-z ]{1,30}(\\. ?[A-Z][a-z ]*){2,}\\.");
        walk_real(v, "gbnf", "root ::= \" \" word (\" \" word)*\nword ::= [a-z]+ | \"(\" root \")\"");
        fa_vocab_free(v);
        fa_tok_free(t);
    }
}

/* The bytes of the tokens of a text are the text. */
static void token_bytes(void **state) {
    (void)state;
    static const char text[] = "Hello  world! {\"a\": [1, 22.5, true]}\n\tH\xC3\xA9llo \xE4\xB8\xAD\xE6\x96\x87 "
                               "\xF0\x9F\x98\x80 don't  x";
    static const char *const dirs[] = {"models/ffai-demo-6m",      "tests/data/tok/llama2", "tests/data/tok/gemma3",
                                       "tests/data/tok/llama3",    "tests/data/tok/qwen3",  "tests/data/tok/gptoss",
                                       "tests/data/tok/gpt2",      "tests/data/tok/tekken", "tests/data/tok/starcoder",
                                       "tests/data/tok/metaspace", "tests/data/tok/prepend"};
    for (size_t d = 0; d < sizeof dirs / sizeof *dirs; d++) {
        fa_tok *t = open_tok(dirs[d]);
        int32_t *ids;
        size_t n;
        fa_buf got = {0}, want = {0};
        assert_true(fa_tok_has_bytes(t));
        if (fa_tok_encode(t, text, sizeof text - 1, 0, &ids, &n, &err)) fail_msg("%s", err.msg);
        if (fa_tok_decode(t, ids, n, true, &want, &err)) fail_msg("%s", err.msg);
        for (size_t i = 0; i < n; i++) fa_tok_bytes(t, ids[i], &got);
        size_t skip = fa_tok_eats_space(t) && got.len && got.data[0] == ' ';
        if (got.len - skip != want.len || memcmp(got.data + skip, want.data, want.len) != 0)
            fail_msg("%s: \"%s\", not \"%s\"", dirs[d], got.data + skip, want.data);
        fa_buf_free(&got);
        fa_buf_free(&want);
        fa_free(ids);
        fa_tok_free(t);
    }
}

/* ---- lists ---- */

static bool whole(fa_gram *g, const char *s, size_t n) {
    fa_gram_run *r = begin(g);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) rc = fa_gram_accept(r, (unsigned char)s[i], NULL);
    bool ok = !rc && fa_gram_complete(r);
    fa_gram_run_free(r);
    return ok;
}

static size_t judge(const fa_vocab *v, const char *kind, const fa_jnode *list) {
    size_t n = 0, len;
    for (const fa_jnode *c = fa_jfirst(list); c; c = fa_jnext(c)) {
        const char *grammar = fa_jstr(fa_jget(c, "grammar"), &len);
        fa_gram *g;
        if (fa_gram_compile(&g, v, kind, grammar, len, &err)) fail_msg("%s\n%s", grammar, err.msg);
        for (int good = 0; good < 2; good++)
            for (const fa_jnode *t = fa_jfirst(fa_jget(c, good ? "good" : "bad")); t; t = fa_jnext(t), n++) {
                const char *s = fa_jstr(t, &len);
                if (whole(g, s, len) != (good == 1))
                    fail_msg("%s: %s is %s", fa_jstr(fa_jget(c, "name"), NULL), s, good ? "refused" : "accepted");
            }
        fa_gram_free(g);
    }
    return n;
}

static void lists(void **state) {
    (void)state;
    fa_json *j;
    fa_vocab *v = bytes_vocab();
    if (fa_json_load(&j, FFAI_SOURCE_DIR "/tests/data/grammar/lists.json", &err)) fail_msg("%s", err.msg);
    const fa_jnode *root = fa_json_root(j);
    size_t n = judge(v, "json-schema", fa_jget(root, "schemas")) + judge(v, "regex", fa_jget(root, "regexes")) +
               judge(v, "gbnf", fa_jget(root, "gbnf"));
    print_message("%zu texts\n", n);
    assert_true(n > 500);
    for (const fa_jnode *c = fa_jfirst(fa_jget(root, "refused")); c; c = fa_jnext(c)) {
        size_t len;
        const char *grammar = fa_jstr(fa_jget(c, "grammar"), &len);
        fa_gram *g;
        int rc = fa_gram_compile(&g, v, fa_jstr(fa_jget(c, "kind"), NULL), grammar, len, &err);
        if (!rc) fail_msg("compiled: %s", grammar);
        assert_null(g);
        assert_int_equal(rc, err.code);
        for (const fa_jnode *w = fa_jfirst(fa_jget(c, "words")); w; w = fa_jnext(w))
            if (!strstr(err.msg, fa_jstr(w, NULL))) fail_msg("%s\n%s\nlacks %s", grammar, err.msg, fa_jstr(w, NULL));
    }
    fa_json_free(j);
    fa_vocab_free(v);
}

/* ---- tokens by name ---- */

static void named_tokens(void **state) {
    (void)state;
    fa_vocab *v = small_vocab();
    fa_gram *g = compile(v, "gbnf", "root ::= <[0]> !<[1]>* <[1]> \"(\"");
    fa_gram_run *r = begin(g);
    const uint32_t *bits;
    size_t n;
    assert_int_equal(fa_gram_mask(r, &bits, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_true(bit(bits, 0));
    assert_int_not_equal(fa_gram_accept(r, 1, &err), 0);
    assert_int_equal(fa_gram_accept(r, 0, &err), 0);
    assert_int_equal(fa_gram_mask(r, &bits, &n, &err), 0);
    assert_int_equal(n, N_PIECE - 1); /* all but the empty one, and 1 ends it */
    assert_false(bit(bits, EOS));
    assert_int_equal(fa_gram_accept(r, 5, &err), 0);
    assert_int_equal(fa_gram_accept(r, 1, &err), 0);
    assert_false(fa_gram_complete(r));
    assert_int_equal(fa_gram_accept(r, 19, &err), 0);
    assert_true(fa_gram_complete(r) && fa_gram_ended(r));
    assert_int_not_equal(fa_gram_accept(r, 0, &err), 0);
    assert_int_equal(err.code, FFAI_EINVAL);
    fa_gram_run_free(r);
    fa_gram_free(g);
    fa_vocab_free(v);
}

/* ---- limits ---- */

static void compile_fails(const fa_vocab *v, const char *kind, const char *text, size_t n) {
    fa_gram *g;
    clock_t t = clock(); /* of the processor: others may be using it */
    if (!fa_gram_compile(&g, v, kind, text, n, &err)) fail_msg("compiled: %.200s", text);
    assert_true((double)(clock() - t) / CLOCKS_PER_SEC < 20);
}

static void limits(void **state) {
    (void)state;
    fa_vocab *v = bytes_vocab();
    /* deep texts: nothing recurses, and what they cost does not grow */
    fa_gram *g = compile(v, "json-schema", "{}");
    fa_gram_run *r = begin(g);
    const uint32_t *bits;
    size_t n;
    for (int i = 0; i < 100000; i++) {
        if (i % 1000 == 0) assert_int_equal(fa_gram_mask(r, &bits, &n, &err), 0);
        assert_int_equal(fa_gram_accept(r, '[', &err), 0);
    }
    for (int i = 0; i < 100000; i++) assert_int_equal(fa_gram_accept(r, ']', &err), 0);
    assert_true(fa_gram_ended(r));
    fa_gram_run_free(r);
    fa_gram_free(g);
    /* many readings: bounded time, an error at worst */
    g = compile(v, "gbnf",
                "root ::= (a a a a)*\na ::= (\"x\"{0,400}){0,400} b\nb ::= \"x\"{0,900} | \"x\" b \"y\" | \"x\" b "
                "\"z\" | \"\"");
    r = begin(g);
    double t = fa_now();
    int rc = 0;
    for (int i = 0; i < 60 && !rc; i++) {
        rc = fa_gram_mask(r, &bits, &n, &err);
        if (!rc) rc = fa_gram_accept(r, 'x', &err);
    }
    assert_true(!rc || rc == FFAI_ELIMIT);
    print_message("ambiguous: %.1f s, %s\n", fa_now() - t, rc ? err.msg : "ok");
    fa_gram_run_free(r);
    fa_gram_free(g);
    fa_buf b = {0};
    fa_buf_puts(&b, "{\"type\":\"string\",\"enum\":["); /* long lists are not short of anything */
    for (int i = 0; i < 10000; i++) fa_buf_printf(&b, "%s\"value number %d\"", i ? "," : "", i);
    fa_buf_puts(&b, "]}");
    fa_gram_free(compile(v, "json-schema", b.data));
    b.len = 0;
    for (int i = 0; i < 300000; i++) fa_buf_puts(&b, "(");
    compile_fails(v, "regex", b.data, b.len);
    compile_fails(v, "gbnf", b.data, b.len);
    compile_fails(v, "json-schema", b.data, b.len);
    b.len = 0;
    fa_buf_puts(&b, "root ::= ");
    for (int i = 0; i < 300000; i++) fa_buf_puts(&b, "[^\\x01-\\x02\\u0800-\\uF000] ");
    compile_fails(v, "gbnf", b.data, b.len);
    b.len = 0; /* anyOf in anyOf: combinations */
    fa_buf_puts(&b, "{\"allOf\":[");
    for (int i = 0; i < 30; i++)
        fa_buf_printf(&b, "%s{\"anyOf\":[{\"minLength\":%d},{\"maxLength\":%d},{\"pattern\":\"^%d\"}]}", i ? "," : "",
                      i, 1000 + i, i);
    fa_buf_puts(&b, "]}");
    compile_fails(v, "json-schema", b.data, b.len);
    const char *big = "{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){18}\",\"maxLength\":5000}";
    compile_fails(v, "json-schema", big, strlen(big));
    fa_buf_free(&b);
    fa_vocab_free(v);
}

/* ---- threads ---- */

static void *work(void *arg) {
    fa_gram *g = (fa_gram *)arg;
    for (int k = 0; k < 30; k++) {
        static const char s[] = "{\"a\": [1, 2.5, \"x\\n\", {\"b\": null}], \"c\": true}";
        fa_gram_run *r;
        const uint32_t *bits;
        size_t n;
        if (fa_gram_run_new(&r, g, NULL)) return arg;
        for (size_t i = 0; s[i]; i++)
            if (fa_gram_mask(r, &bits, &n, NULL) || !bit(bits, s[i]) || fa_gram_accept(r, s[i], NULL)) return arg;
        bool ok = fa_gram_ended(r);
        fa_gram_run_free(r);
        if (!ok) return arg;
    }
    return NULL;
}

static void threads(void **state) {
    (void)state;
    fa_vocab *v = bytes_vocab();
    fa_gram *g = compile(v, "json-schema", "true");
    pthread_t t[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, work, g), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        assert_null(failed);
    }
    fa_gram_free(g);
    fa_vocab_free(v);
}

/* ---- failing allocations ---- */

static int whole_run(const char *kind, const char *grammar, const char *s) {
    fa_vocab *v = NULL;
    fa_gram *g = NULL;
    fa_gram_run *r = NULL;
    const uint32_t *bits;
    size_t n;
    static fa_vocab_token list[129];
    static char bytes[128];
    const int32_t eos = 128;
    for (int i = 0; i < 128; i++) {
        bytes[i] = (char)i;
        list[i] = (fa_vocab_token){bytes + i, 1};
    }
    int rc = fa_vocab_from_list(&v, list, 129, &eos, 1, &err);
    if (!rc) rc = fa_gram_compile(&g, v, kind, grammar, strlen(grammar), &err);
    if (!rc) rc = fa_gram_run_new(&r, g, &err);
    for (; !rc && *s; s++) {
        rc = fa_gram_mask(r, &bits, &n, &err);
        if (!rc) assert_true(bit(bits, *s));
        if (!rc) rc = fa_gram_accept(r, *s, &err);
    }
    if (!rc) assert_true(fa_gram_complete(r));
    fa_gram_run_free(r);
    fa_gram_free(g);
    fa_vocab_free(v);
    return rc;
}

static void allocations(void **state) {
    (void)state;
    static const char *const jobs[][3] = {
        {"gbnf", "root ::= (a | b){2,300}\na ::= \"x\" [a-z]* | \"<\" root \">\"\nb ::= [^x\xC3\xA9]", "xab1<xx>2"},
        {"regex", "^(?i:ab)+[^\\W\\d]{2,90}(x|y$)", "aBabqqx"},
        {"json-schema",
         "{\"$defs\":{\"n\":{\"type\":\"integer\",\"minimum\":-5,\"maximum\":70}},\"type\":\"object\",\"properties\":{"
         "\"a\":{"
         "\"$ref\":\"#/$defs/"
         "n\"},\"s\":{\"type\":\"string\",\"pattern\":\"^a+\",\"maxLength\":4},\"t\":{\"oneOf\":[{\"const\":"
         "[1,{\"k\":2}]},{\"type\":\"null\"}]}},\"patternProperties\":{\"^z\":{\"type\":\"number\",\"maximum\":2.5}},"
         "\"propertyNames\":{\"maxLength\":3},\"additionalProperties\":{\"type\":\"array\",\"maxItems\":2}}",
         "{\"a\": 12,\"s\":\"aab\",\"t\":[1,{\"k\": 2}], \"zz\": 1.5,\n \"q\":[]}"}};
    for (size_t k = 0; k < sizeof jobs / sizeof *jobs; k++) {
        if (whole_run(jobs[k][0], jobs[k][1], jobs[k][2])) fail_msg("%s: %s", jobs[k][0], err.msg);
        long n = 1, failed = 0;
        for (; n < 1000000; n += n < 2000 ? 1 : 7) {
            memset(&err, 0, sizeof err);
            fa_alloc_fail_at(n);
            int rc = whole_run(jobs[k][0], jobs[k][1], jobs[k][2]);
            long left = fa_alloc_fail_left();
            fa_alloc_fail_at(0);
            if (left > 0) break;
            if (!rc) continue;
            failed++;
            if (rc != FFAI_ENOMEM || err.code != rc || !err.msg[0])
                fail_msg("%s, allocation %ld: %d \"%s\"", jobs[k][0], n, rc, err.msg);
        }
        print_message("%s: %ld allocations, %ld end in an error\n", jobs[k][0], n, failed);
        assert_true(failed > 20);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_grammars), cmocka_unit_test(real_vocabulary),
                                       cmocka_unit_test(token_bytes),     cmocka_unit_test(lists),
                                       cmocka_unit_test(named_tokens),    cmocka_unit_test(limits),
                                       cmocka_unit_test(threads),         cmocka_unit_test(allocations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
