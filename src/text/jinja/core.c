/* Memory and errors of the template interpreter: the arena with its limit, and the way out. */
#include "base/alloc.h"
#include "text/jinja/int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 64 << 10 };

static void *take(fa_jjblock *b, size_t bytes) {
    if (!b || b->cap - b->used < bytes) return NULL;
    void *p = (char *)b->data + b->used;
    b->used += bytes;
    return p;
}

void *fa_jj_alloc(fa_jj *m, size_t n, size_t size) {
    fa_jjarena *a = &m->mem;
    if (size && n > a->limit / size) fa_jj_fail(m, FFAI_ELIMIT, "the template needs too much memory");
    size_t bytes = (n * size + 15) & ~(size_t)15;
    void *p = take(a->head, bytes);
    if (p) return p;
    size_t cap = bytes > BLOCK / 8 ? bytes : a->head ? BLOCK : BLOCK / 8; /* large ones get their own */
    if (cap > a->limit - a->total)
        fa_jj_fail(m, FFAI_ELIMIT, "the template needs more than %zu MB of memory", a->limit >> 20);
    fa_jjblock *b = (fa_jjblock *)fa_calloc(1, sizeof *b + cap);
    if (!b) fa_jj_fail(m, FFAI_ENOMEM, "no memory for a template");
    b->cap = cap;
    a->total += cap;
    if (cap != bytes || !a->head) { /* a large block stands behind the one that still has room */
        b->next = a->head;
        a->head = b;
    } else {
        b->next = a->head->next;
        a->head->next = b;
    }
    return take(b, bytes);
}

void fa_jj_arena_free(fa_jjarena *a) {
    while (a->head) {
        fa_jjblock *b = a->head;
        a->head = b->next;
        fa_free(b);
    }
}

_Noreturn static void leave(fa_jj *m, int code, const char *msg) {
    if (m->line && m->what)
        fa_fail(&m->err, code, "%s: line %u, column %u: %s", m->what, m->line, m->col, msg);
    else if (m->what)
        fa_fail(&m->err, code, "%s: %s", m->what, msg);
    else
        fa_fail(&m->err, code, "%s", msg);
    longjmp(m->jmp, 1);
}

void fa_jj_fail(fa_jj *m, int code, const char *fmt, ...) {
    char msg[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    leave(m, code, msg);
}

void fa_jj_raise(fa_jj *m, fa_jjstr *s) {
    char msg[1024];
    size_t n = s->n < sizeof msg ? s->n : sizeof msg - 1;
    memcpy(msg, s->p, n);
    msg[n] = 0;
    for (size_t i = 0; i < n; i++)
        if (msg[i] == '\n' || msg[i] == 0) msg[i] = ' '; /* a message is one line */
    leave(m, FFAI_EINVAL, msg);
}

void fa_jj_too_slow(fa_jj *m) {
    m->steps = 0;
    fa_jj_fail(m, FFAI_ELIMIT, "the template took more than %llu steps", (unsigned long long)m->max_steps);
}

void fa_jj_too_deep(fa_jj *m) { fa_jj_fail(m, FFAI_ELIMIT, "nested deeper than %d", FA_JJ_MAX_DEPTH); }
