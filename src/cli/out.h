/* Output: JSON and aligned tables, numbers and byte counts for people. */
#ifndef FFAI_CLI_OUT_H
#define FFAI_CLI_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A JSON writer. Keys and values in the order of the calls; commas and nesting are its business. Inside an object every
 * value has a key, in an array key is NULL. */
typedef struct out_json {
    FILE *to;
    int depth;
    bool indent;            /* one value a line */
    bool bare;              /* no line end after the whole */
    unsigned char any[264]; /* per depth: a value was written */
} out_json;

void out_json_begin(out_json *j, FILE *to, bool indent);
void out_json_open(out_json *j, const char *key, char bracket); /* '{' or '[' */
void out_json_close(out_json *j, char bracket);                 /* '}' or ']' */
void out_json_str(out_json *j, const char *key,
                  const char *s); /* NULL gives null; bytes that are not UTF-8 become U+FFFD */
void out_json_strn(out_json *j, const char *key, const char *s, size_t n);
void out_json_int(out_json *j, const char *key, int64_t v);
void out_json_num(out_json *j, const char *key, double v); /* not finite gives null */
void out_json_bool(out_json *j, const char *key, bool v);
/* "a, b,c" as an array of strings */
void out_json_list(out_json *j, const char *key, const char *comma_separated);
/* Text that is JSON already. */
void out_json_raw(out_json *j, const char *key, const char *json);

/* A table of text cells: columns as wide as their widest cell, right-aligned ones flush right. Cells are copied. */
typedef struct out_table {
    int n_col, n_row;
    const char *const *head;
    const char *align; /* one letter a column: 'l' or 'r' */
    char **cell;       /* [n_row, n_col] */
    bool failed;
} out_table;

void out_table_begin(out_table *t, const char *const *head, const char *align);
/* Control characters become '?': names out of files must not steer a terminal. Returns s. */
char *out_plain(char *s);
/* The next cell in reading order. */
void out_cell(out_table *t, int row, int col, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Prints and frees; false: out of memory. */
bool out_table_end(out_table *t, FILE *to);

/* "1.5 GiB", "12 KiB" into buf[16]; "1.2 G" for counts */
const char *out_bytes(char *buf, double bytes);
const char *out_count(char *buf, double n);

/* Monotonic seconds, and peak resident memory of the process in bytes. */
double out_now(void);
int64_t out_peak_rss(void);

#endif
