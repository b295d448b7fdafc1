/* Prompts and token ids from arguments, files and standard input. */
#define _POSIX_C_SOURCE 200809L
#include "cli/text_in.h"
#include "cli/term.h"
#include "io/npy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_TEXT = 1 << 30 };

static int read_stream(const cli_opts *o, FILE *f, const char *flag, const char *path, char **text, size_t *len) {
    size_t cap = 1 << 14, n = 0;
    char *p = (char *)malloc(cap);
    while (p) {
        size_t got = fread(p + n, 1, cap - 1 - n, f);
        n += got;
        if (n < cap - 1) break;
        char *more = cap < MAX_TEXT ? (char *)realloc(p, cap * 2) : NULL;
        if (!more) {
            free(p);
            return cli_fail(o, "--%s %s: longer than %zu bytes", flag, path, cap - 1);
        }
        p = more;
        cap *= 2;
    }
    if (!p) return cli_fail(o, "--%s %s: out of memory", flag, path);
    if (ferror(f)) {
        int e = errno;
        free(p);
        return term_interrupted() ? cli_fail(o, "interrupted") : cli_fail(o, "--%s %s: %s", flag, path, strerror(e));
    }
    p[n] = 0;
    *text = p;
    *len = n;
    return 0;
}

int text_read(const cli_opts *o, opt_id id, const char *path, char **text, size_t *len) {
    const char *flag = cli_options[id].name;
    *text = NULL;
    *len = 0;
    if (!strcmp(path, "-")) return read_stream(o, stdin, flag, path, text, len);
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f) return cli_fail(o, "--%s %s: %s", flag, path, strerror(errno));
    int rc;
    if (fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode))
        rc = cli_fail(o, "--%s %s: is a directory", flag, path);
    else
        rc = read_stream(o, f, flag, path, text, len);
    fclose(f);
    return rc;
}

int text_prompt(const cli_opts *o, opt_id file_id, char **text, size_t *len) {
    const opt_id both[] = {OPT_PROMPT, file_id, OPT_END};
    *text = NULL;
    *len = 0;
    int rc = cli_exclusive(o, both);
    if (rc) return rc;
    if (cli_has(o, file_id)) return text_read(o, file_id, cli_str(o, file_id, ""), text, len);
    if (!cli_has(o, OPT_PROMPT)) return cli_usage(o, "no text: give -p TEXT or --%s FILE", cli_options[file_id].name);
    const char *p = cli_str(o, OPT_PROMPT, "");
    if (!strcmp(p, "-")) return text_read(o, OPT_PROMPT, "-", text, len);
    *text = strdup(p);
    *len = strlen(p);
    return *text ? 0 : cli_fail(o, "-p: out of memory");
}

/* ---- token ids ---- */

int text_ids_parse(const cli_opts *o, const char *what, const char *text, size_t len, int32_t **ids, size_t *n) {
    size_t cap = len / 2 + 1;
    *n = 0;
    *ids = (int32_t *)malloc(cap * sizeof **ids);
    if (!*ids) return cli_fail(o, "%s: out of memory", what);
    for (const char *p = text, *end = text + len; p < end;) {
        if (strchr(" \t\r\n,;[]", *p)) { /* NUL counts as a separator too */
            p++;
            continue;
        }
        char *stop;
        errno = 0;
        long v = strtol(p, &stop, 10);
        if (stop == p || errno || v < INT32_MIN || v > INT32_MAX || (stop < end && !strchr(" \t\r\n,;[]", *stop))) {
            int w = (int)strcspn(p, " \t\r\n,;[]");
            free(*ids);
            *ids = NULL;
            return cli_fail(o, "%s: \"%.*s\" is not a token id", what, w > 40 ? 40 : w, p);
        }
        (*ids)[(*n)++] = (int32_t)v;
        p = stop;
    }
    return 0;
}

static int ids_npy(const cli_opts *o, const char *what, const char *data, size_t len, int32_t **ids, size_t *n) {
    fa_npy a;
    ffai_error err;
    if (fa_npy_parse(&a, (const uint8_t *)data, len, what, &err)) return cli_fail(o, "%s", err.msg);
    if (a.dtype != FA_I32 && a.dtype != FA_I64)
        return cli_fail(o, "%s: a .npy of token ids must be int32 or int64", what);
    *ids = (int32_t *)malloc(((size_t)a.n + 1) * sizeof **ids);
    if (!*ids) return cli_fail(o, "%s: out of memory", what);
    for (int64_t i = 0; i < a.n; i++) {
        int64_t v = fa_npy_int(&a, i);
        if (v < INT32_MIN || v > INT32_MAX) {
            free(*ids);
            *ids = NULL;
            return cli_fail(o, "%s: value %lld is %lld, not a token id", what, (long long)i, (long long)v);
        }
        (*ids)[i] = (int32_t)v;
    }
    *n = (size_t)a.n;
    return 0;
}

int text_ids_file(const cli_opts *o, opt_id id, const char *path, int32_t **ids, size_t *n) {
    char *data, what[600];
    size_t len;
    *ids = NULL;
    *n = 0;
    int rc = text_read(o, id, path, &data, &len);
    if (rc) return rc;
    snprintf(what, sizeof what, "--%s %s", cli_options[id].name, path);
    rc = len >= 6 && !memcmp(data, "\x93NUMPY", 6) ? ids_npy(o, what, data, len, ids, n)
                                                   : text_ids_parse(o, what, data, len, ids, n);
    free(data);
    return rc;
}
