/* Small things that the readers of tokenizer.json share (tok_steps.c, tok_post.c, tok_models.c). */
#ifndef FA_TEXT_TOK_STEPS_UTIL_H
#define FA_TEXT_TOK_STEPS_UTIL_H

#include "text/tok_steps.h"
#include "base/alloc.h"

#include <string.h>

static inline int fa_step_no_memory(const fa_tok *t, fa_error *err) {
    return fa_fail(err, FFAI_ENOMEM, "%s: no memory for the tokenizer", t->what);
}

static inline int fa_step_too_many(const fa_tok *t, const char *section, fa_error *err) {
    return fa_fail(err, FFAI_ELIMIT, "%s: %s has more than %d steps", t->what, section, FA_TOK_MAX_STEPS);
}

static inline int fa_step_unsupported(const fa_tok *t, const char *section, const char *key, const char *value,
                                      fa_error *err) {
    return fa_fail(err, FFAI_ENOTSUP, "%s: %s: %s \"%.80s\" is not supported", t->what, section, key,
                   value ? value : "(none)");
}

static inline bool fa_step_is(const char *a, const char *b) { return a && strcmp(a, b) == 0; }
static inline const char *fa_step_type(const fa_jnode *n) { return fa_jstr(fa_jget(n, "type"), NULL); }
static inline char *fa_step_copy(const char *s, size_t n) { return fa_strndup(s ? s : "", s ? n : 0); }

/* {"String": s} or {"Regex": s}; a plain string is a String. */
static inline const char *fa_step_pattern(const fa_jnode *n, size_t *len, bool *regex) {
    const char *s = fa_jstr(n, len);
    *regex = false;
    if (!s) s = fa_jstr(fa_jget(n, "String"), len);
    if (!s && (s = fa_jstr(fa_jget(n, "Regex"), len))) *regex = true;
    return s;
}

/* prepend_scheme of Metaspace (0 never, 1 first, 2 always), or the older add_prefix_space. */
static inline int fa_step_scheme(const fa_tok *t, const fa_jnode *n, const char *section, int *scheme, fa_error *err) {
    static const char *const name[] = {"never", "first", "always"};
    const char *s = fa_jstr(fa_jget(n, "prepend_scheme"), NULL);
    *scheme = fa_jbool(fa_jget(n, "add_prefix_space"), true) ? 2 : 0;
    if (!s) return FFAI_OK;
    for (int i = 0; i < 3; i++)
        if (fa_step_is(s, name[i])) return *scheme = i, FFAI_OK;
    return fa_step_unsupported(t, section, "prepend_scheme", s, err);
}

#endif
