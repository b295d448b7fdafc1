/* A helper of tools/check_tokenizers.py and of measurements (bench/tokenizers.py): encodes, decodes or times a
 * tokenizer. tok_tool encode|special|plain|decode|all|stream MODEL records on stdin, results on stdout: each is a u32
 * count and that many bytes or i32 ids tok_tool each MODEL records that begin with t (text) or i (ids); each is
 * answered by three records: encode, special, plain or decode, all, stream; ~0 in place of a count: an error tok_tool
 * bench MODEL FILE load time, and MB/s of encoding FILE cold, warm and decoding tok_tool serve MODEL commands on stdin,
 * one line of answer each: "load" loads the model once more, "fresh" makes that one the one in use, with nothing in its
 * word cache, "encode FILE", "ids FILE OUT" writes the ids Times are processor seconds of the thread. MODEL is a folder
 * with tokenizer.json or a .gguf file. */
#define _POSIX_C_SOURCE 200809L
#include "base/alloc.h"
#include "base/map.h"
#include "text/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static fa_error err;

static int fail(void) {
    fprintf(stderr, "tok_tool: %s\n", err.msg);
    return 1;
}

static int open_model(fa_tok **t, const char *path) {
    size_t n = strlen(path);
    if (fa_tok_is_file(path)) return fa_tok_from_file(t, path, &err);
    if (n < 5 || strcmp(path + n - 5, ".gguf") != 0) return fa_tok_from_dir(t, path, &err);
    fa_gguf *g;
    int rc = fa_gguf_open(&g, path, &err);
    if (rc) return rc;
    rc = fa_tok_from_gguf(t, g, &err);
    fa_gguf_free(g);
    return rc;
}

static int stream(const fa_tok *t, const int32_t *ids, size_t n, fa_buf *out) {
    fa_tok_stream *s;
    int rc = fa_tok_stream_new(&s, t, false, &err);
    for (size_t i = 0; i < n && !rc; i++) rc = fa_tok_stream_push(s, ids[i], out, &err);
    if (!rc) rc = fa_tok_stream_flush(s, out, &err);
    fa_tok_stream_free(s);
    return rc;
}

static int record(const fa_tok *t, const char *mode, char *data, uint32_t n) {
    unsigned flags = strcmp(mode, "special") == 0 ? FA_TOK_SPECIAL
                     : strcmp(mode, "plain") == 0 ? FA_TOK_NO_PARSE_SPECIAL
                                                  : 0;
    fa_buf out = {0};
    int32_t *ids = NULL;
    size_t n_ids;
    int rc;
    if (strcmp(mode, "decode") == 0 || strcmp(mode, "all") == 0 || strcmp(mode, "stream") == 0) {
        rc = mode[0] != 's' ? fa_tok_decode(t, (int32_t *)(void *)data, n / 4, mode[0] == 'd', &out, &err)
                            : stream(t, (int32_t *)(void *)data, n / 4, &out);
        n = (uint32_t)out.len;
        fwrite(&n, 4, 1, stdout);
        fwrite(out.data, 1, out.len, stdout);
        fa_buf_free(&out);
    } else {
        rc = fa_tok_encode(t, data, n, flags, &ids, &n_ids, &err);
        n = (uint32_t)n_ids * 4;
        fwrite(&n, 4, 1, stdout);
        fwrite(ids, 4, n_ids, stdout);
        fa_free(ids);
    }
    return rc;
}

/* One answer of `each`; an error is an answer too. */
static void answer(int rc, const void *data, size_t n) {
    uint32_t len = rc ? UINT32_MAX : (uint32_t)n;
    fwrite(&len, 4, 1, stdout);
    if (!rc) fwrite(data, 1, n, stdout);
}

static void each(const fa_tok *t, char *data, uint32_t n) {
    static const unsigned flags[3] = {0, FA_TOK_SPECIAL, FA_TOK_NO_PARSE_SPECIAL};
    int32_t *ids;
    for (int i = 0; i < 3; i++) {
        if (*data == 't') {
            size_t n_ids;
            int rc = fa_tok_encode(t, data + 1, n - 1, flags[i], &ids, &n_ids, &err);
            answer(rc, ids, n_ids * 4);
            fa_free(ids);
        } else {
            fa_buf out = {0};
            size_t n_ids = (n - 1) / 4;
            ids = (int32_t *)malloc(n_ids * 4 + 1);
            memcpy(ids, data + 1, n_ids * 4);
            int rc = i == 2 ? stream(t, ids, n_ids, &out) : fa_tok_decode(t, ids, n_ids, i == 0, &out, &err);
            answer(rc, out.data, out.len);
            fa_buf_free(&out);
            free(ids);
        }
    }
}

/* Processor seconds: what the machine does beside does not count. */
static double now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int bench(const char *model, const char *path) {
    fa_tok *t;
    char *text;
    size_t n, n_ids = 0;
    int32_t *ids = NULL;
    double t0 = now();
    if (open_model(&t, model) || fa_read_file(&text, &n, path, (size_t)1 << 30, &err)) return fail();
    double t1 = now(), best = 1e9, cold = 0;
    for (int i = 0; i < 6; i++) {
        double a = now();
        fa_free(ids);
        if (fa_tok_encode(t, text, n, 0, &ids, &n_ids, &err)) return fail();
        double b = now() - a;
        if (i == 0)
            cold = b;
        else if (b < best)
            best = b;
    }
    fa_buf out = {0};
    double a = now();
    if (fa_tok_decode(t, ids, n_ids, false, &out, &err)) return fail();
    double d = now() - a;
    double mb = (double)n * 1e-6;
    printf("load %.1f ms, %zu ids, first %.1f MB/s, then %.1f MB/s, decode %.1f MB/s\n", (t1 - t0) * 1e3, n_ids,
           mb / cold, mb / best, mb / d);
    fa_buf_free(&out);
    fa_free(ids);
    fa_free(text);
    fa_tok_free(t);
    return 0;
}

static int write_ids(FILE *f, const int32_t *ids, size_t n) { return f && fwrite(ids, 4, n, f) != n; }

/* Encodes text, as one or as records; prints the time and the number of ids. */
static int timed(const fa_tok *t, const char *text, size_t len, bool records, FILE *out) {
    double sum = 0;
    size_t n_ids = 0;
    int rc = 0;
    for (size_t at = 0; at < len && !rc;) {
        int32_t *ids;
        uint32_t n = (uint32_t)len;
        size_t k;
        if (records) {
            if (len - at < 4) return 1;
            memcpy(&n, text + at, 4);
            at += 4;
            if (n > len - at) return 1;
        }
        double t0 = now();
        if (fa_tok_encode(t, text + at, n, 0, &ids, &k, &err)) return fail();
        sum += now() - t0;
        rc = write_ids(out, ids, k);
        at += n;
        n_ids += k;
        fa_free(ids);
    }
    printf("%.9f %zu\n", sum, n_ids);
    return rc;
}

/* The rest of a command behind its name: "FILE" or "FILE OUT". The file stays in memory for the next time. */
static int serve_encode(const fa_tok *t, char *path, bool records) {
    static char *text, last[4096];
    static size_t len;
    char *out = strchr(path, ' ');
    FILE *f = NULL;
    if (out) *out++ = 0;
    if (!text || strcmp(last, path) != 0) {
        fa_free(text);
        snprintf(last, sizeof last, "%s", path);
        if (fa_read_file(&text, &len, path, (size_t)1 << 30, &err)) return text = NULL, fail();
    }
    if (out && !(f = fopen(out, "wb"))) return 1;
    int rc = timed(t, text, len, records, f);
    return (f && fclose(f)) || rc;
}

/* The most memory this process has had, in kB (ru_maxrss would count what its parent had). */
static long peak_kb(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kb = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmHWM:", 6) == 0) kb = strtol(line + 6, NULL, 10);
    if (f) fclose(f);
    return kb;
}

static int serve(const char *model) {
    fa_tok *t, *next = NULL;
    char line[4096];
    double t0 = now();
    if (open_model(&t, model)) return fail();
    t0 = now() - t0;
    printf("%.9f %ld\n", t0, peak_kb());
    fflush(stdout);
    int rc = 0;
    while (!rc && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "encode ", 7) == 0) {
            rc = serve_encode(t, line + 7, false);
        } else if (strncmp(line, "docs ", 5) == 0 || strncmp(line, "ids ", 4) == 0) {
            rc = serve_encode(t, strchr(line, ' ') + 1, true);
        } else {
            t0 = now();
            if ((rc = open_model(&next, model))) break;
            printf("%.9f 0\n", now() - t0);
            if (strcmp(line, "fresh") == 0) {
                fa_tok *old = t;
                t = next;
                next = old;
            }
            fa_tok_free(next);
        }
        fflush(stdout);
    }
    fa_tok_free(t);
    return rc ? fail() : 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
    if (argc == 4 && strcmp(argv[1], "bench") == 0) return bench(argv[2], argv[3]);
    if (argc != 3) return 2;
    fa_tok *t;
    if (open_model(&t, argv[2])) return fail();
    uint32_t n;
    int rc = 0;
    while (!rc && fread(&n, 4, 1, stdin) == 1) {
        char *data = malloc((size_t)n + 1);
        if (!data || fread(data, 1, n, stdin) != n)
            rc = 1;
        else if (strcmp(argv[1], "each") == 0 && n)
            each(t, data, n);
        else if ((rc = record(t, argv[1], data, n)) != 0)
            fail();
        free(data);
        fflush(stdout);
    }
    fa_tok_free(t);
    return rc != 0;
}
