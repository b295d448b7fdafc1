/* For the tests of this suite: a copy of the carried model with one thing broken, opened and run through ffai.h. */
#ifndef TESTS_ROBUST_BROKEN_H
#define TESTS_ROBUST_BROKEN_H

#include "io/util.h"

#include "base/map.h"
#include "ffai.h"

#define DEMO FFAI_SOURCE_DIR "/models/ffai-demo-6m"

/* A whole file; free with fa_free. */
static inline char *slurp(const char *dir, const char *name, size_t *n) {
    char path[600], *text;
    fa_error err;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(fa_read_file(&text, n, path, (size_t)1 << 30, &err), &err);
    return text;
}

static inline void put_text(const char *dir, const char *name, const char *text) {
    put_file(dir, name, text, strlen(text));
}

static inline void copy_file(const char *to, const char *from, const char *name) {
    size_t n;
    char *text = slurp(from, name, &n);
    put_file(to, name, text, n);
    fa_free(text);
}

/* Writes `name` of folder `from` with one more member at the end of its object: of keys that come twice the last one
 * counts. */
static inline void put_json(const char *to, const char *from, const char *name, const char *key, const char *value) {
    size_t n;
    char *text = slurp(from, name, &n);
    while (n && text[n - 1] != '}') n--;
    fa_buf b = {0};
    fa_buf_add(&b, text, n - 1);
    fa_buf_printf(&b, ", \"%s\": %s}", key, value);
    put_file(to, name, b.data, b.len);
    fa_buf_free(&b);
    fa_free(text);
}

static const char *const demo_files[] = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                                         "tokenizer_config.json"};

/* A fresh folder with the carried model in it. */
static inline void demo_copy(char dir[256]) {
    make_dir(dir);
    for (size_t i = 0; i < sizeof demo_files / sizeof *demo_files; i++) copy_file(dir, DEMO, demo_files[i]);
}

/* Empties and removes a folder of plain files, links and empty folders. */
static inline void remove_dir(const char *dir) {
    char cmd[600];
    snprintf(cmd, sizeof cmd, "rm -rf -- '%s'", dir);
    assert_int_equal(system(cmd), 0);
}

/* Opens the model and runs a few tokens. 0: it ran. */
static inline int open_and_run(const char *path, ffai_error *err) {
    static const int32_t ids[] = {1, 2, 3};
    ffai_model *m = NULL;
    ffai_engine *e = NULL;
    ffai_request *r = NULL;
    ffai_engine_opts eo = {.n_thread = 1, .n_ctx = 8};
    ffai_request_opts ro = {.ids = ids, .n_ids = 3, .max_new = 3, .sampling = {.top_p = 1}, .ignore_eos = true};
    memset(err, 0, sizeof *err);
    int rc = ffai_model_open(&m, path, NULL, err);
    if (!rc) rc = ffai_engine_create(&e, m, &eo, err);
    if (!rc) rc = ffai_submit(e, &ro, &r, err);
    for (int more = 1; !rc && more > 0;)
        if ((more = ffai_engine_step(e, err)) < 0) rc = more;
    if (!rc && ffai_request_error(r)->code) {
        *err = *ffai_request_error(r);
        rc = err->code;
    }
    ffai_engine_free(e);
    ffai_model_free(m);
    if (rc) { /* every failure is one line of text */
        assert_true(rc < 0 && err->code == rc && err->msg[0] && !strchr(err->msg, '\n'));
        assert_true(strlen(err->msg) < sizeof err->msg);
    }
    return rc;
}

/* It must fail and say all of the words (separated by '|'). */
static inline void check_refused(const char *path, const char *words, const char *what, const char *file, int line) {
    ffai_error err;
    int rc = open_and_run(path, &err);
    if (!rc) {
        print_error("%s:%d: %s: runs\n", file, line, what);
        _fail(file, line);
    }
    char w[512], *save = NULL;
    snprintf(w, sizeof w, "%s", words);
    for (char *t = strtok_r(w, "|", &save); t; t = strtok_r(NULL, "|", &save)) {
        if (strstr(err.msg, t)) continue;
        print_error("%s:%d: %s: \"%s\" does not say \"%s\"\n", file, line, what, err.msg, t);
        _fail(file, line);
    }
}
#define assert_refused(path, words, what) check_refused((path), (words), (what), __FILE__, __LINE__)

/* Most bytes that the heap and the mappings of this process ever held: an upper bound for what a refused file cost. */
static inline long peak_kib(void) {
    char line[200];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return kib;
}

#endif
