/* Regular expressions for pre-tokenizer and normalizer patterns that have no hand-written scanner: PCRE2 with its JIT,
 * Unicode classes, and the line-anchor rule of the engine that the reference uses (^ and $ at each line). Matching is
 * bounded: a pattern that backtracks without end is an error. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tok_int.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <pcre2.h>

/* PCRE2 limits the work of a match from one place of the text only. So a search covers WINDOW places at a time, and
 * between the windows of one encode the clock is looked at. */
enum { MATCH_LIMIT = 5000000, WINDOW = 64, MAX_SECONDS = 10, JIT_STACK_MAX = 64 << 20 };

struct fa_regex {
    pcre2_code *code;
    char *what;
};

struct fa_regex_run {
    pcre2_general_context *gc;
    pcre2_match_context *mc;
    pcre2_match_data *md;
    pcre2_jit_stack *stack;
    double from, cpu; /* when the encode that uses it began: the clock, and the thread's processor time */
    size_t tried;     /* places where a match was tried since the clock was looked at */
};

static void *take(size_t n, void *unused) {
    (void)unused;
    return fa_calloc(1, n);
}

static void give(void *p, void *unused) {
    (void)unused;
    fa_free(p);
}

int fa_regex_new(fa_regex **out, const char *pattern, size_t len, const char *what, fa_error *err) {
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR text[120];
    fa_buf own = {0};
    fa_regex *r = *out = NULL;
    pcre2_general_context *gc = pcre2_general_context_create(take, give, NULL);
    pcre2_compile_context *cc = gc ? pcre2_compile_context_create(gc) : NULL;
    if (cc) {
        pcre2_set_max_pattern_length(cc, 1 << 18);
        pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
        r = FA_NEW(fa_regex);
    }
    if (r) r->what = fa_strdup(what);
    fa_regex_translate(&own, pattern, len);
    int rc = r && r->what && !own.failed ? FFAI_OK : fa_fail(err, FFAI_ENOMEM, "%s: no memory for a pattern", what);
    if (!rc) {
        r->code = pcre2_compile(
            (PCRE2_SPTR)(own.data ? own.data : ""), own.len,
            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT, &code, &at, cc);
        if (!r->code) {
            pcre2_get_error_message(code, text, sizeof text);
            rc = code == PCRE2_ERROR_HEAP_FAILED ? fa_fail(err, FFAI_ENOMEM, "%s: no memory for a pattern", what)
                                                 : fa_fail(err, FFAI_ENOTSUP, "%s: pattern \"%.200s\": %s at byte %zu",
                                                           what, pattern, (const char *)text, (size_t)at);
        } else {
            pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without JIT it is only slower */
        }
    }
    fa_buf_free(&own);
    pcre2_compile_context_free(cc);
    pcre2_general_context_free(gc);
    if (rc) {
        fa_regex_free(r);
        r = NULL;
    }
    *out = r;
    return rc;
}

void fa_regex_free(fa_regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    fa_free(r->what);
    fa_free(r);
}

void fa_regex_run_free(fa_regex_run *r) {
    if (!r) return;
    pcre2_match_data_free(r->md);
    pcre2_jit_stack_free(r->stack);
    pcre2_match_context_free(r->mc);
    pcre2_general_context_free(r->gc);
    fa_free(r);
}

void fa_regex_run_begin(fa_regex_run *r) {
    if (!r) return;
    r->from = fa_now();
    r->cpu = fa_thread_now();
}

static fa_regex_run *new_run(void) {
    fa_regex_run *r = FA_NEW(fa_regex_run);
    if (!r) return NULL;
    r->gc = pcre2_general_context_create(take, give, NULL);
    if (r->gc) {
        r->mc = pcre2_match_context_create(r->gc);
        r->md = pcre2_match_data_create(1, r->gc);
        r->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_MAX, r->gc);
    }
    if (!r->mc || !r->md || !r->stack) return fa_regex_run_free(r), NULL;
    pcre2_set_match_limit(r->mc, MATCH_LIMIT);
    pcre2_jit_stack_assign(r->mc, NULL, r->stack);
    fa_regex_run_begin(r);
    return r;
}

static int match(const fa_regex *r, fa_regex_run *run, const char *s, size_t n, size_t from) {
    size_t last = n - from < WINDOW ? n : from + WINDOW;
    while (last < n && ((unsigned char)s[last] & 0xC0) == 0x80) last++;
    pcre2_set_offset_limit(run->mc, last);
    int rc = pcre2_match(r->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, run->md, run->mc);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(r->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->md, run->mc);
    return rc == 0 ? 1 : rc; /* 0: a match with more groups than the one that is kept */
}

/* Asked before each window. Short words have several searches for each character, so the clock is looked at when a
 * whole window of places was tried, and the processor time, which costs a system call, when the clock says that it may
 * be too much. */
static bool too_long(fa_regex_run *run, size_t n) {
    double max = MAX_SECONDS + (double)n * 1e-5;
    if (run->tried < WINDOW) return false;
    run->tried = 0;
    return fa_now() - run->from > max && fa_thread_now() - run->cpu > max;
}

/* The first match at or behind `at`; the result of PCRE2. */
static int search(const fa_regex *r, fa_regex_run *run, const char *s, size_t n, size_t at) {
    int rc = PCRE2_ERROR_NOMATCH;
    for (; at <= n && rc == PCRE2_ERROR_NOMATCH; at += WINDOW) {
        while (at < n && ((unsigned char)s[at] & 0xC0) == 0x80) at++;
        if (too_long(run, n)) return PCRE2_ERROR_MATCHLIMIT;
        rc = match(r, run, s, n, at);
        run->tried += rc > 0 ? pcre2_get_ovector_pointer(run->md)[0] - at + 1 : n - at < WINDOW ? n - at + 1 : WINDOW;
    }
    return rc;
}

int fa_regex_next(const fa_regex *r, fa_regex_run **run, const char *s, size_t n, fa_regex_at *at, fa_error *err) {
    if (!*run && !(*run = new_run())) return fa_fail(err, FFAI_ENOMEM, "%s: no memory to match a pattern", r->what);
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer((*run)->md);
    int rc = search(r, *run, s, n, at->pos);
    if (rc > 0 && v[0] == v[1] && at->any && v[1] == at->b) { /* empty, and directly behind the last one */
        size_t next = at->pos + 1;
        while (next < n && ((unsigned char)s[next] & 0xC0) == 0x80) next++;
        if (next > n) return 0;
        rc = search(r, *run, s, n, next);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc == PCRE2_ERROR_NOMEMORY) return fa_fail(err, FFAI_ENOMEM, "%s: no memory to match a pattern", r->what);
    if (rc < 0)
        return fa_fail(err, FFAI_ELIMIT, "%s: a pattern takes too long on the text behind byte %zu (PCRE2 error %d)",
                       r->what, at->pos, rc);
    if (v[0] > v[1] || v[0] < at->pos)
        return fa_fail(err, FFAI_ENOTSUP, "%s: a pattern moves the start of its match", r->what);
    at->a = v[0];
    at->b = at->pos = v[1];
    at->any = true;
    return 1;
}
