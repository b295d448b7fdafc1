/* Reading the two shapes of JSON that `ffai tokenize --jsonl` takes: a string, or an array of integers. */
#ifndef FFAI_CLI_JSON_IN_H
#define FFAI_CLI_JSON_IN_H

#include <stdbool.h>
#include <stddef.h>

/* Decodes the JSON string that is all of s[0..n) but white space, in place: *out points into s, *len bytes. False: it
 * is none. A lone surrogate becomes U+FFFD. */
bool json_in_string(char *s, size_t n, char **out, size_t *len);

#endif
