/* The parts of the hub by themselves: ids, names, patterns, origins, hashes, what is selected; then a pull from
 * hub_tool (tests/hub/hub_tool.c) with every allocation failing in turn, and its cancellation. */
#define _GNU_SOURCE
#include "base/alloc.h"
#include "hub/hub.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- names ---- */

static void test_ids(void **state) {
    (void)state;
    fa_hub_id id;
    assert_int_equal(fa_hub_id_parse(&id, "Qwen/Qwen3-0.6B", NULL), 0);
    assert_string_equal(id.repo, "Qwen/Qwen3-0.6B");
    assert_string_equal(id.revision, "main");
    assert_string_equal(id.pick, "");
    assert_int_equal(fa_hub_id_parse(&id, "a/b_c.d:Q8_0@refs/pr/1", NULL), 0);
    assert_string_equal(id.repo, "a/b_c.d");
    assert_string_equal(id.revision, "refs/pr/1");
    assert_string_equal(id.pick, "Q8_0");
    static const char *const bad[] = {"",        "a",       "/",          "a/",      "/b",      "a/b/c",
                                      "../b",    "a/..",    "a/.b",       "a./b",    "-a/b",    "a/b-",
                                      "a--b/c",  "a/b..c",  "a/b.git",    "a b/c",   "a/b\n",   "a\\b/c",
                                      "a/b@",    "a/b@..",  "a/b@x/../y", "a/b@/x",  "a/b@x y", "a/b@x~1",
                                      "a/b@x:y", "a/b@C:x", "a/b:",       "a/b:x/y", "~/b",     "http://a/b",
                                      "a/b?c",   "a/b#c",   "\xc3\xa4/b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ffai_error err = {0};
        assert_int_equal(fa_hub_id_parse(&id, bad[i], &err), FFAI_EINVAL);
        assert_true(*err.msg);
        assert_false(ffai_hub_is_id(bad[i]));
    }
    assert_false(ffai_hub_is_id(NULL));
    assert_false(ffai_hub_is_id("folder/model.gguf")); /* a file */
    char longest[400];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = 0;
    longest[96] = '/';
    longest[193] = 0;
    assert_true(ffai_hub_is_id(longest));
    longest[193] = 'a';
    longest[194] = 0;
    assert_false(ffai_hub_is_id(longest));
}

static void test_names(void **state) {
    (void)state;
    static const char *const good[] = {"a",   "a/b",           "a b+c%.json", ".gitattributes", "a/.b", "..a",
                                       "a..", "\xc3\xa4.json", "..."};
    static const char *const bad[] = {"",    "/",    "/a",    "a/",     "a//b",  ".",    "..",
                                      "./a", "../a", "a/..",  "a/../b", "a/./b", "a\\b", "..\\a",
                                      "C:",  "C:a",  "a/C:b", "a\nb",   "a\x7f", "\x01"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(fa_hub_name_ok(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(fa_hub_name_ok(bad[i], strlen(bad[i])));
    assert_false(fa_hub_name_ok("a\0b", 3));
    char longer[1200];
    memset(longer, 'a', sizeof longer);
    longer[241] = 0;
    assert_false(fa_hub_name_ok(longer, 241));
    assert_true(fa_hub_is_hex("0123456789abcdef", 16));
    assert_false(fa_hub_is_hex("0123456789abcdeF", 16));
    assert_false(fa_hub_is_hex("0123", 5));
    assert_false(fa_hub_is_hex(NULL, 4));
}

/* As Python's fnmatch.fnmatchcase; "dir/" as huggingface_hub reads it. */
static void test_globs(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *name;
        bool is;
    } t[] = {{"*.json", "config.json", true},
             {"*.json", "a/config.json", true},
             {"*.json", "config.jsonl", false},
             {"a/*", "a/b/c", true},
             {"a/", "a/b/c", true},
             {"a/", "ab", false},
             {"*", "anything/at/all", true},
             {"", "", true},
             {"", "a", false},
             {"m?del", "model", true},
             {"m?del", "mdel", false},
             {"[abc]x", "bx", true},
             {"[!abc]x", "bx", false},
             {"[a-c]x", "bx", true},
             {"[a-c]x", "dx", false},
             {"[]]x", "]x", true},
             {"[x", "[x", true},
             {"[x", "x", false},
             {"*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
             {"*q8*", "Model-q8_0.gguf", true},
             {"*Q8*", "Model-q8_0.gguf", false}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (fa_hub_glob(t[i].pattern, t[i].name) != t[i].is) fail_msg("%s against %s", t[i].pattern, t[i].name);
}

static void test_origins(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool same, follow;
    } t[] = {{"https://hub.co", "https://hub.co/a/b?c", true, true},
             {"https://hub.co", "https://HUB.co:443/a", true, true},
             {"https://hub.co", "https://hub.co:444/a", false, true},
             {"https://hub.co", "http://hub.co/a", false, false},
             {"http://hub.co", "https://hub.co/a", false, true},
             {"https://hub.co", "https://hub.co.evil.org/", false, true},
             {"https://hub.co", "https://hub.co@evil.org/", false, false},
             {"https://hub.co", "https://evil.org@hub.co/", false, false},
             {"https://hub.co", "https://evil.org/hub.co", false, true},
             {"https://hub.co", "https://evil.org\\@hub.co/", false, false},
             {"https://hub.co", "file:///etc/passwd", false, false},
             {"https://hub.co", "ftp://hub.co/", false, false},
             {"https://hub.co", "//hub.co/", false, false},
             {"https://hub.co", "", false, false}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        if (fa_hub_same_origin(t[i].a, t[i].b) != t[i].same) fail_msg("origin: %s", t[i].b);
        if (fa_hub_may_follow(t[i].a, t[i].b) != t[i].follow) fail_msg("follow: %s", t[i].b);
    }
    char host[256];
    fa_hub_host("https://store.co/a/b?X-Signature=secret#x", host, sizeof host);
    assert_string_equal(host, "https://store.co:443");
}

static void test_hashes(void **state) {
    (void)state;
    char hex[65];
    fa_hub_hash *h = fa_hub_hash_new(40, 6); /* git hash-object */
    assert_true(fa_hub_hash_add(h, "hel", 3) && fa_hub_hash_add(h, "lo\n", 3) && fa_hub_hash_hex(h, hex));
    assert_string_equal(hex, "ce013625030ba8dba906f756967f9e9ca394464a");
    fa_hub_hash_free(h);
    h = fa_hub_hash_new(40, 0);
    assert_true(fa_hub_hash_hex(h, hex));
    assert_string_equal(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    fa_hub_hash_free(h);
    h = fa_hub_hash_new(64, 3); /* FIPS 180-2, appendix B.1 */
    assert_true(fa_hub_hash_add(h, "abc", 3) && fa_hub_hash_hex(h, hex));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    fa_hub_hash_free(h);
}

/* ---- what a model needs ---- */

static const char zeros[] = "0000000000000000000000000000000000000000";

/* The names that are selected of a repository, with blanks between; or the error. */
static void selects(const char *id, const char *names, const char *want, const char *file, bool no_weights) {
    fa_hub h = {0};
    ffai_error err = {0};
    fa_buf got = {0};
    char text[2000];
    h.o.no_weights = no_weights;
    assert_int_equal(fa_hub_id_parse(&h.id, id, NULL), 0);
    snprintf(text, sizeof text, "%s", names);
    for (char *s = strtok(text, " "); s; s = strtok(NULL, " "))
        assert_int_equal(fa_hub_tree_add(&h.tree, s, strlen(s), 1, zeros, NULL, NULL, "test", &err), 0);
    assert_int_equal(fa_hub_tree_sort(&h.tree, "test", &err), 0);
    if (fa_hub_select(&h, &err) != 0)
        fa_buf_puts(&got, "none ");
    else
        for (size_t i = 0; i < h.tree.n; i++)
            if (h.tree.file[i].wanted) fa_buf_printf(&got, "%s ", h.tree.file[i].name);
    got.data[got.len - 1] = 0;
    assert_string_equal(got.data, want);
    if (file) assert_string_equal(fa_hub_model_file(&h.tree), file);
    fa_buf_free(&got);
    fa_hub_tree_free(&h.tree);
}

static void test_select(void **state) {
    (void)state;
    selects(
        "a/b",
        "README.md config.json model.safetensors model.fp16.safetensors pytorch_model.bin tokenizer.json x.py LICENSE",
        "config.json model.safetensors tokenizer.json", "", false);
    selects(
        "a/b",
        "config.json model.safetensors model.safetensors.index.json model-00001-of-00002.safetensors tokenizer.model",
        "config.json model.safetensors tokenizer.model", "", false);
    selects("a/b",
            "config.json model.safetensors.index.json pytorch_model.bin.index.json model-00001-of-00002.safetensors "
            "model-00002-of-00002.safetensors consolidated.safetensors tekken.json params.json",
            "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors "
            "model.safetensors.index.json params.json "
            "tekken.json",
            "", false);
    selects("a/b", "config.json consolidated.safetensors", "config.json consolidated.safetensors", "", false);
    selects("a/b", "config.json weights.00.safetensors weights.01.safetensors",
            "config.json weights.00.safetensors weights.01.safetensors", "", false);
    selects("a/b", "adapter_config.json adapter_model.safetensors", "adapter_config.json adapter_model.safetensors", "",
            false);
    selects("a/b",
            "config.json model.safetensors 1_Pooling/config.json 2_Dense/model.safetensors 2_Dense/config.json "
            "modules.json",
            "1_Pooling/config.json 2_Dense/config.json 2_Dense/model.safetensors config.json model.safetensors "
            "modules.json",
            "", false);
    selects("a/b", "config.json model.safetensors original/consolidated.00.pth onnx/model.onnx unet/model.safetensors",
            "config.json model.safetensors", "", false);
    selects("a/b", "config.json model.safetensors tokenizer.json chat_template.jinja",
            "chat_template.jinja config.json tokenizer.json", "", true);
    selects("a/b", "config.json pytorch_model.bin", "none", NULL, false);
    selects("a/b", "config.json pytorch_model.bin", "config.json", "", true);
    selects("a/b", "README.md", "none", NULL, false);
    selects("a/b", "README.md", "none", NULL, true);
}

static void test_select_gguf(void **state) {
    (void)state;
    static const char all[] =
        "README.md config.json m-BF16.gguf m-IQ4_XS.gguf m-Q2_K.gguf m-Q4_0.gguf m-Q4_K_M.gguf m-Q4_K_S.gguf "
        "m-Q5_K_M.gguf "
        "m-Q8_0.gguf mmproj-F16.gguf m-imatrix.gguf F32/m-F32-00001-of-00002.gguf F32/m-F32-00002-of-00002.gguf";
    selects("a/b", all, "m-Q4_K_M.gguf", "m-Q4_K_M.gguf", false);
    selects("a/b", all, "m-Q4_K_M.gguf", "m-Q4_K_M.gguf", true);
    selects("a/b:q8_0", all, "m-Q8_0.gguf", "m-Q8_0.gguf", false);
    selects("a/b:Q8", all, "m-Q8_0.gguf", "m-Q8_0.gguf", false);
    selects("a/b:q4_k", all, "m-Q4_K_M.gguf", "m-Q4_K_M.gguf", false);
    selects("a/b:Q4_K_S", all, "m-Q4_K_S.gguf", "m-Q4_K_S.gguf", false);
    selects("a/b:bf16", all, "m-BF16.gguf", "m-BF16.gguf", false);
    selects("a/b:f32", all, "F32/m-F32-00001-of-00002.gguf F32/m-F32-00002-of-00002.gguf",
            "F32/m-F32-00001-of-00002.gguf", false);
    selects("a/b:q3", all, "none", NULL, false);
    selects("a/b", "config.json model.safetensors m-Q8_0.gguf", "config.json model.safetensors", "", false);
    selects("a/b:q8_0", "config.json model.safetensors m-Q8_0.gguf", "m-Q8_0.gguf", "m-Q8_0.gguf", false);
    selects("a/b", "x.gguf", "x.gguf", "x.gguf", false);
    selects("a/b", "gemma-2b.F16.gguf gemma-2b.Q6_K.gguf", "gemma-2b.Q6_K.gguf", "gemma-2b.Q6_K.gguf", false);
    selects("a/b", ".gguf", "none", NULL, false);
}

/* ---- against a server ---- */

typedef struct fixture {
    char dir[100], cache[200], endpoint[100];
    pid_t server;
} fixture;

static void put(const char *dir, const char *name, size_t n) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (size_t i = 0; i < n; i++) fputc((int)(i * 2654435761u >> 13 & 255), f);
    fclose(f);
}

static int start(void **state) {
    fixture *x = (fixture *)calloc(1, sizeof *x);
    char root[200], ports[200], log[200], tool[400], cmd[600];
    *state = x;
    strcpy(x->dir, "/tmp/ffai_hub_XXXXXX");
    if (!mkdtemp(x->dir)) return -1;
    snprintf(root, sizeof root, "%s/root", x->dir);
    snprintf(ports, sizeof ports, "%s/ports", x->dir);
    snprintf(log, sizeof log, "%s/log", x->dir);
    snprintf(x->cache, sizeof x->cache, "%s/cache", x->dir);
    snprintf(cmd, sizeof cmd, "mkdir -p %s/acme/m/main", root);
    if (system(cmd) != 0) return -1;
    snprintf(cmd, sizeof cmd, "%s/acme/m/main", root);
    put(cmd, "config.json", 20);
    put(cmd, "tokenizer.json", 3000);
    put(cmd, "model.safetensors", 300000);
    ssize_t n = readlink("/proc/self/exe", tool, sizeof tool - 20);
    if (n < 0) return -1;
    tool[n] = 0;
    strcpy(strrchr(tool, '/'), "/hub_tool");
    x->server = fork();
    if (x->server == 0) {
        execl(tool, tool, root, ports, log, (char *)NULL);
        _exit(127);
    }
    int hub = 0;
    for (int i = 0; i < 500 && !hub; i++) {
        FILE *f = fopen(ports, "r");
        if (f && fscanf(f, "%d", &hub) != 1) hub = 0;
        if (f) fclose(f);
        usleep(20000);
    }
    snprintf(x->endpoint, sizeof x->endpoint, "http://127.0.0.1:%d/", hub);
    return hub ? 0 : -1;
}

static void clear(const fixture *x) {
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf %s", x->cache);
    assert_int_equal(system(cmd), 0);
}

static int stop(void **state) {
    fixture *x = (fixture *)*state;
    char cmd[300];
    kill(x->server, SIGKILL);
    waitpid(x->server, NULL, 0);
    snprintf(cmd, sizeof cmd, "rm -rf %s", x->dir);
    int rc = system(cmd);
    free(x);
    return rc;
}

/* Every allocation of a pull, then of a list, a removal, fails once: an error each time, never a crash or a wrong
 * cache. */
static void test_no_memory(void **state) {
    const fixture *x = (const fixture *)*state;
    ffai_hub_opts o = {.cache = x->cache, .endpoint = x->endpoint};
    for (long n = 1; n < 5000; n++) {
        ffai_hub_model *m;
        ffai_error err = {0};
        clear(x);
        fa_alloc_fail_at(n);
        int rc = ffai_hub_pull(&m, "acme/m", &o, &err);
        bool over = fa_alloc_fail_left() > 0;
        fa_alloc_fail_at(0);
        if (rc) {
            assert_null(m);
            assert_true(*err.msg);
        }
        ffai_hub_model_free(m);
        if (over) {
            assert_int_equal(rc, 0);
            assert_true(n > 50);
            break;
        }
        rc = ffai_hub_pull(&m, "acme/m", &o, &err); /* and then it works */
        if (rc) fail_msg("after allocation %ld: %s", n, err.msg);
        ffai_hub_model_info in;
        ffai_hub_model_get_info(m, &in);
        assert_int_equal(in.n_file, 3);
        ffai_hub_model_free(m);
    }
    for (long n = 1; n < 5000; n++) {
        ffai_hub_list *l;
        ffai_hub_cached c;
        fa_alloc_fail_at(n);
        int rc = ffai_hub_list_create(&l, x->cache, NULL);
        bool over = fa_alloc_fail_left() > 0;
        fa_alloc_fail_at(0);
        if (!rc) assert_true(ffai_hub_list_at(l, 0, &c) && !strcmp(c.repo, "acme/m") && !ffai_hub_list_at(l, 1, &c));
        ffai_hub_list_free(l);
        if (over) break;
    }
    for (long n = 1; n < 5000; n++) {
        int64_t freed;
        fa_alloc_fail_at(n);
        int rc = ffai_hub_remove(x->cache, "acme/m", false, &freed, NULL);
        bool over = fa_alloc_fail_left() > 0;
        fa_alloc_fail_at(0);
        if (!rc) assert_int_equal(freed, 303020);
        if (!rc) break;
        assert_false(over);
    }
}

static bool cancel(void *user, const ffai_hub_progress *p) {
    int *calls = (int *)user;
    (void)p;
    return ++*calls < 3;
}

static void test_cancel(void **state) {
    const fixture *x = (const fixture *)*state;
    ffai_hub_model *m;
    ffai_error err = {0};
    int calls = 0;
    ffai_hub_opts o = {.cache = x->cache, .endpoint = x->endpoint, .progress = cancel, .user = &calls};
    clear(x);
    assert_int_equal(ffai_hub_pull(&m, "acme/m", &o, &err), FFAI_ECANCEL);
    assert_null(m);
    assert_true(calls >= 3);
}

static void test_options(void **state) {
    const fixture *x = (const fixture *)*state;
    ffai_hub_model *m;
    ffai_error err;
    ffai_hub_opts o = {.cache = x->cache, .endpoint = x->endpoint};
    assert_int_equal(ffai_hub_pull(&m, NULL, &o, &err), FFAI_EINVAL);
    assert_int_equal(ffai_hub_pull(&m, "acme/m", NULL, &err), FFAI_EINVAL);
    o.cache = "";
    assert_int_equal(ffai_hub_pull(&m, "acme/m", &o, &err), FFAI_EINVAL);
    o.cache = x->cache;
    o.n_connection = 65;
    assert_int_equal(ffai_hub_pull(&m, "acme/m", &o, &err), FFAI_EINVAL);
    o.n_connection = 1;
    o.token = "secret\r\nX-Evil: 1";
    assert_int_equal(ffai_hub_pull(&m, "acme/m", &o, &err), FFAI_EINVAL);
    assert_null(strstr(err.msg, "secret"));
    o.token = NULL;
    clear(x);
    assert_int_equal(ffai_hub_pull(&m, "acme/m", &o, &err), 0); /* one connection */
    ffai_hub_model_info in;
    ffai_hub_file_info f;
    ffai_hub_model_get_info(m, &in);
    assert_string_equal(in.repo, "acme/m");
    assert_string_equal(in.revision, "main");
    assert_int_equal(strlen(in.commit), 40);
    assert_int_equal(in.bytes, 303020);
    assert_int_equal(in.bytes_fetched, 303020);
    assert_true(ffai_hub_model_file_at(m, 1, &f) && !strcmp(f.name, "model.safetensors") && f.used &&
                f.fetch == 300000);
    assert_false(ffai_hub_model_file_at(m, 3, &f));
    ffai_hub_model_free(m);
    int64_t freed;
    assert_int_equal(ffai_hub_prune(x->cache, false, &freed, &err), 0);
    assert_int_equal(freed, 0);
    /* a cache that cannot be written: one line that says so */
    o.cache = "/proc/ffai-cache";
    assert_int_equal(ffai_hub_pull(&m, "acme/m", &o, &err), FFAI_EIO);
    assert_non_null(strstr(err.msg, "/proc/ffai-cache"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),         cmocka_unit_test(test_names),   cmocka_unit_test(test_globs),
        cmocka_unit_test(test_origins),     cmocka_unit_test(test_hashes),  cmocka_unit_test(test_select),
        cmocka_unit_test(test_select_gguf), cmocka_unit_test(test_options), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
