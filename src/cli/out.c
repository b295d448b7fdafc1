/* JSON, tables, and numbers for people. */
#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include "cli/out.h"
#include "cli/term.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* ---- JSON ---- */

void out_json_begin(out_json *j, FILE *to, bool indent) {
    memset(j, 0, sizeof *j);
    j->to = to;
    j->indent = indent;
}

static void json_text(FILE *to, const char *s, size_t n);

static void json_key(out_json *j, const char *key) {
    if (j->depth > 0) {
        if (j->any[j->depth]) fputs(j->indent ? "," : ", ", j->to);
        j->any[j->depth] = 1;
        if (j->indent) fprintf(j->to, "\n%*s", 2 * j->depth, "");
    }
    if (key) {
        json_text(j->to, key, strlen(key));
        fputs(": ", j->to);
    }
}

void out_json_open(out_json *j, const char *key, char bracket) {
    json_key(j, key);
    fputc(bracket, j->to);
    if (j->depth + 1 < (int)sizeof j->any) j->depth++;
    j->any[j->depth] = 0;
}

void out_json_close(out_json *j, char bracket) {
    bool any = j->any[j->depth];
    if (j->depth > 0) j->depth--;
    if (j->indent && any) fprintf(j->to, "\n%*s", 2 * j->depth, "");
    fputc(bracket, j->to);
    if (j->depth == 0 && !j->bare) fputc('\n', j->to);
}

/* Length of the well-formed UTF-8 sequence at s (n > 0 bytes left), 0 if there is none. */
static size_t utf8_len(const unsigned char *s, size_t n) {
    size_t len = s[0] < 0x80                   ? 1
                 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                               : 0;
    if (len == 0 || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) ||
        (s[0] == 0xF4 && s[1] > 0x8F))
        return 0;
    return len;
}

static void json_text(FILE *to, const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    fputc('"', to);
    for (size_t i = 0; i < n;) {
        size_t len = utf8_len(s + i, n - i);
        unsigned char c = s[i];
        if (len == 0)
            fputs("\\ufffd", to);
        else if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", to);
        else if (c == '\t')
            fputs("\\t", to);
        else if (c == '\r')
            fputs("\\r", to);
        else if (c < 0x20 || c == 0x7F)
            fprintf(to, "\\u%04x", c);
        else
            fwrite(s + i, 1, len, to);
        i += len ? len : 1;
    }
    fputc('"', to);
}

void out_json_strn(out_json *j, const char *key, const char *s, size_t n) {
    json_key(j, key);
    if (s)
        json_text(j->to, s, n);
    else
        fputs("null", j->to);
}

void out_json_str(out_json *j, const char *key, const char *s) { out_json_strn(j, key, s, s ? strlen(s) : 0); }

void out_json_int(out_json *j, const char *key, int64_t v) {
    json_key(j, key);
    fprintf(j->to, "%lld", (long long)v);
}

void out_json_num(out_json *j, const char *key, double v) {
    json_key(j, key);
    if (isfinite(v))
        fprintf(j->to, "%.9g", v);
    else
        fputs("null", j->to);
}

void out_json_bool(out_json *j, const char *key, bool v) {
    json_key(j, key);
    fputs(v ? "true" : "false", j->to);
}

void out_json_list(out_json *j, const char *key, const char *s) {
    bool indent = j->indent;
    out_json_open(j, key, '[');
    j->indent = false;
    while (s && *s) {
        s += strspn(s, ", ");
        size_t n = strcspn(s, ",");
        if (n) out_json_strn(j, NULL, s, n);
        s += n;
    }
    out_json_close(j, ']');
    j->indent = indent;
}

void out_json_raw(out_json *j, const char *key, const char *json) {
    json_key(j, key);
    fputs(json ? json : "null", j->to);
}

/* ---- tables ---- */

void out_table_begin(out_table *t, const char *const *head, const char *align) {
    memset(t, 0, sizeof *t);
    t->head = head;
    t->align = align;
    t->n_col = (int)strlen(align);
}

char *out_plain(char *s) {
    for (char *p = s; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F) *p = '?';
    return s;
}

void out_cell(out_table *t, int row, int col, const char *fmt, ...) {
    if (t->failed) return;
    if (row >= t->n_row) {
        int n = row < 16 ? 16 : 2 * row;
        char **more = (char **)realloc(t->cell, (size_t)n * (size_t)t->n_col * sizeof *more);
        if (!more) {
            t->failed = true;
            return;
        }
        memset(more + (size_t)t->n_row * (size_t)t->n_col, 0, (size_t)(n - t->n_row) * (size_t)t->n_col * sizeof *more);
        t->cell = more;
        t->n_row = n;
    }
    va_list ap;
    va_start(ap, fmt);
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    out_plain(text);
    char **at = &t->cell[(size_t)row * (size_t)t->n_col + (size_t)col];
    free(*at);
    *at = strdup(text);
    if (!*at) t->failed = true;
}

/* Columns that text takes: code points, which is right for everything that these tables hold. */
static int columns(const char *s) {
    int n = 0;
    for (; s && *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

/* Nothing is padded behind the last text of a row. */
static void print_row(const out_table *t, FILE *to, const char *const *cells, const int *width) {
    int last = t->n_col - 1;
    while (last > 0 && (!cells[last] || !*cells[last])) last--;
    for (int c = 0; c <= last; c++) {
        const char *s = cells[c] ? cells[c] : "";
        int pad = width[c] - columns(s);
        if (t->align[c] == 'r')
            fprintf(to, "%*s%s", pad, "", s);
        else
            fprintf(to, "%s%*s", s, c == last ? 0 : pad, "");
        fputs(c == last ? "\n" : "  ", to);
    }
}

bool out_table_end(out_table *t, FILE *to) {
    int width[32] = {0};
    bool ok = !t->failed && t->n_col <= 32;
    for (int c = 0; ok && c < t->n_col; c++) {
        width[c] = columns(t->head[c]);
        for (int r = 0; r < t->n_row; r++) {
            int w = columns(t->cell[r * t->n_col + c]);
            if (w > width[c]) width[c] = w;
        }
    }
    if (ok) {
        fputs(term_sgr(to, TERM_BOLD), to);
        print_row(t, to, t->head, width);
        fputs(term_sgr(to, TERM_PLAIN), to);
        for (int r = 0; r < t->n_row && t->cell[r * t->n_col]; r++)
            print_row(t, to, (const char *const *)&t->cell[r * t->n_col], width);
    }
    for (int i = 0; t->cell && i < t->n_row * t->n_col; i++) free(t->cell[i]);
    free(t->cell);
    memset(t, 0, sizeof *t);
    return ok;
}

/* ---- numbers ---- */

static const char *scaled(char *buf, double v, double step, const char *const *unit) {
    int u = 0;
    while (v >= step && unit[u + 1]) v /= step, u++;
    snprintf(buf, 16, u == 0 || v >= 100 ? "%.0f %s" : v >= 10 ? "%.1f %s" : "%.2f %s", v, unit[u]);
    size_t n = strlen(buf);
    if (n && buf[n - 1] == ' ') buf[n - 1] = 0;
    return buf;
}

const char *out_bytes(char *buf, double bytes) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", NULL};
    return scaled(buf, bytes, 1024, unit);
}

const char *out_count(char *buf, double n) {
    static const char *const unit[] = {"", "K", "M", "G", "T", NULL};
    return scaled(buf, n, 1000, unit);
}

double out_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int64_t out_peak_rss(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (int64_t)u.ru_maxrss * 1024 : 0;
}
