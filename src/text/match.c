/* Regular expressions on names: the pre-tokenizers' engine with its limits. */
#include "text/match.h"
#include "text/tok_int.h"

#include <string.h>

/* fa_match is fa_regex: nothing is kept between two texts. */
int fa_match_new(fa_match **out, const char *pattern, const char *what, fa_error *err) {
    return fa_regex_new((fa_regex **)(void *)out, pattern, strlen(pattern), what, err);
}

void fa_match_free(fa_match *m) { fa_regex_free((fa_regex *)(void *)m); }

int fa_match_in(const fa_match *m, const char *text, fa_error *err) {
    fa_regex_run *run = NULL;
    fa_regex_at at = {0};
    const int rc = fa_regex_next((const fa_regex *)(const void *)m, &run, text, strlen(text), &at, err);
    fa_regex_run_free(run);
    return rc;
}
