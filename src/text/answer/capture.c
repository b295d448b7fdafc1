/* One call while it is written: finds its end without understanding it, then asks its body parser.
 *
 * A call ends with its closing tag, with the tag of whatever comes next, with a special token, or (formats without a
 * closing tag) with the value that its arguments are; quotes hide all of these. Every byte is looked at once, so a call
 * that never ends costs no more than its length. */
#include "text/answer/answer_int.h"

#include <string.h>

enum { MAX_NAME = 512, MAX_RETRY = 8 }; /* bytes before a value begins; see retry() */

static void heat(fa_answer *a, const char *what) {
    if (what) a->hot[(uint8_t)what[0]] = 1;
}

static void heat_all(fa_answer *a) {
    const fa_ans_spec *p = a->spec;
    for (int i = 0; i < 256; i++) a->hot[i] = a->trie.root[i] != 0;
    for (int i = 0; i < 3; i++) heat(a, p->close[i]), heat(a, p->stop[i]);
    if (p->quote == FA_ANS_TAGGED) heat(a, p->from);
    if (p->quote == FA_ANS_JSON || p->quote == FA_ANS_PY) heat(a, "\"");
    if (p->quote == FA_ANS_PY) heat(a, "'");
    for (const char *c = p->value ? "{}[]()" : ""; *c; c++) heat(a, c);
}

void fa_ans_begin_call(fa_answer *a, const fa_ans_spec *spec, const char *open, size_t n) {
    a->mode = FA_ANS_M_CALL;
    a->spec = spec;
    a->cx.cut = false;
    a->open.len = 0;
    fa_buf_add(&a->open, open, n);
    a->failed |= a->open.failed;
    a->scan = a->depth = 0;
    a->close_in_quote = SIZE_MAX;
    a->sniffed = a->started = a->in_think = false;
    a->fits = !spec->fits;
    a->quote = 0;
    heat_all(a);
}

/* ---- the end of a call ---- */

static bool parse(fa_answer *a, size_t n) {
    a->cx.to = a->to.data;
    bool good = a->spec->body(&a->cx, a->in.data ? a->in.data + a->pos : "", n) && a->cx.n;
    for (size_t i = 0; i < a->cx.n; i++) a->cx.oom |= a->cx.call[i].args.failed;
    a->failed |= a->cx.oom;
    if (good && !a->failed) return true;
    fa_ans_drop(&a->cx);
    return false;
}

/* The body is in[pos..pos+n), closed by the `close` bytes behind it. */
static void end_call(fa_answer *a, size_t n, size_t close) {
    bool good = parse(a, n);
    if (a->failed) return;
    if (good) {
        a->lead.len = 0;
        a->lead_tag = false;
    } else {
        fa_ans_flush_lead(a);
        fa_ans_verbatim(a, a->open.data, a->open.len);
        fa_ans_verbatim(a, a->in.data ? a->in.data + a->pos : "", n + close);
    }
    a->pos += n + close;
    a->mode = !good && a->in_think ? FA_ANS_M_THINK : FA_ANS_M_TEXT;
    a->trim = good;
    a->bare_ok = good && a->fmt->bare;
}

/* A body that cannot be one: its first character is text, the rest is looked at again. */
static void give_up(fa_answer *a) {
    fa_ans_flush_lead(a);
    fa_ans_verbatim(a, a->open.data, a->open.len);
    a->mode = a->in_think ? FA_ANS_M_THINK : FA_ANS_M_TEXT;
    a->trim = a->bare_ok = false;
    if (!a->open.len) {
        fa_ans_emit(a, FA_ANSWER_TEXT, a->in.data + a->pos, 1); /* '{' or '[' */
        a->pos++;
    }
}

/* How many bytes at the end of the output began the closing tag. */
static size_t begun_close(const fa_answer *a, const char *s, size_t n) {
    for (int i = 0; i < 3 && a->spec->close[i]; i++) {
        size_t k = strlen(a->spec->close[i]);
        while (--k)
            if (k <= n && memcmp(s + n - k, a->spec->close[i], k) == 0) return k;
    }
    return 0;
}

/* The output has ended in the call. Without its closing tag it may still be whole; and if the tag stood in a quote that
 * never closed, the call ended there and the rest is looked at again (a few times: each costs a walk). */
static void retry(fa_answer *a) {
    size_t n = a->in.len - a->pos, at = a->close_in_quote;
    size_t k = a->quote || !n ? 0 : begun_close(a, a->in.data + a->pos, n);
    if (k && parse(a, n - k)) {
        fa_ans_drop(&a->cx);
        end_call(a, n - k, k);
        return;
    }
    a->cx.cut = true;
    if (at == SIZE_MAX || a->n_retry == MAX_RETRY) {
        end_call(a, n, 0);
        return;
    }
    if (parse(a, n)) {
        fa_ans_drop(&a->cx);
        end_call(a, n, 0);
        return;
    }
    a->n_retry++;
    a->cx.cut = false;
    end_call(a, at, strlen(a->spec->close[0]));
}

/* ---- the walk ---- */

typedef enum look { NOTHING, HERE, UNSURE } look;

static look is_at(const char *s, size_t n, const char *what) {
    size_t len = strlen(what), k = n < len ? n : len;
    if (memcmp(s, what, k) != 0) return NOTHING;
    return k == len ? HERE : UNSURE;
}

/* Which of the tags stands at s; the first that does. */
static look any_at(const char *s, size_t n, const char *const tags[3], const char **which) {
    look best = NOTHING;
    for (int i = 0; i < 3 && tags[i]; i++) {
        look l = is_at(s, n, tags[i]);
        if (l == HERE) return *which = tags[i], HERE;
        if (l == UNSURE) best = UNSURE;
    }
    return best;
}

/* Does a tag stand at s that no body of a call can hold? */
static look tag_at(const fa_answer *a, const char *s, size_t n, bool final) {
    int tag;
    bool more;
    size_t k = fa_ans_trie_match(&a->trie, s, n, &tag, &more);
    if (more && !final) return UNSURE;
    if (!k) return NOTHING;
    if (tag == FA_ANS_SPECIAL) return HERE;
    switch (a->fmt->tags[tag].kind) {
    case FA_ANS_CALL:
    case FA_ANS_SECTION_CALL: /* the next call; others are tags within this one */
        return !a->open.len || (a->open.len == k && memcmp(a->open.data, s, k) == 0) ? HERE : NOTHING;
    case FA_ANS_SECTION_END:
    case FA_ANS_MESSAGE_END:
    case FA_ANS_HEADER: return HERE;
    default: return NOTHING;
    }
}

/* One step inside a quote; UNSURE: more output is needed. */
static look in_quote(fa_answer *a, const char *s, size_t n, bool final) {
    const fa_ans_spec *p = a->spec;
    const char *end = a->quote == 'T' ? p->to : NULL, *close = p->close[0];
    for (; a->scan < n; a->scan++) {
        char c = s[a->scan];
        if (close && c == close[0] && a->close_in_quote == SIZE_MAX) {
            look l = is_at(s + a->scan, n - a->scan, close);
            if (l == UNSURE && !final) return UNSURE;
            if (l == HERE) a->close_in_quote = a->scan;
        }
        if (!end && c == '\\') {
            if (a->scan + 1 >= n && !final) return UNSURE;
            a->scan++;
        } else if (!end && c == a->quote) {
            a->scan++;
            a->quote = 0;
            return HERE;
        } else if (end && c == end[0]) {
            look l = is_at(s + a->scan, n - a->scan, end);
            if (l == UNSURE && !final) return UNSURE;
            if (l != HERE) continue;
            a->scan += strlen(end);
            a->quote = 0;
            return HERE;
        }
    }
    if (a->scan > n) a->scan = n;
    return UNSURE;
}

/* Brackets of a value; true: it ended with the byte at s[scan]. */
static bool bracket(fa_answer *a, const char *s) {
    char c = s[a->scan];
    if (!a->started) {
        a->started = c == '{' || (c == '[' && fa_ans_space(s, a->scan, 0) == a->scan);
        if (!a->started) return false;
    }
    if (c == '{' || c == '[' || c == '(') a->depth++;
    return (c == '}' || c == ']' || c == ')') && --a->depth == 0;
}

/* One byte out of quotes that needs a look. HERE: the call has ended. */
static look out_of_quote(fa_answer *a, const char *s, size_t n, bool final) {
    const fa_ans_spec *p = a->spec;
    const char *at = s + a->scan, *which;
    size_t left = n - a->scan;
    look l = any_at(at, left, p->close, &which), m;
    if (l == HERE) return end_call(a, a->scan, strlen(which)), HERE;
    m = any_at(at, left, p->stop, &which);
    if (m == HERE) return end_call(a, a->scan, 0), HERE;
    if ((l == UNSURE || m == UNSURE) && !final) return UNSURE;
    if (p->quote == FA_ANS_TAGGED && *at == p->from[0]) {
        l = is_at(at, left, p->from);
        if (l == UNSURE && !final) return UNSURE;
        if (l == HERE) {
            a->quote = 'T';
            a->scan += strlen(p->from);
            return NOTHING;
        }
    }
    if (a->trie.root[(uint8_t)*at]) {
        l = tag_at(a, at, left, final);
        if (l == UNSURE) return UNSURE;
        if (l == HERE) return end_call(a, a->scan, 0), HERE;
    }
    bool quotes = p->quote == FA_ANS_JSON || p->quote == FA_ANS_PY;
    if (quotes && (!p->value || a->started) && (*at == '"' || (*at == '\'' && p->quote == FA_ANS_PY)))
        a->quote = *at;
    else if (p->value && strchr("{}[]()", *at) && *at && bracket(a, s))
        return end_call(a, a->scan + 1, 0), HERE;
    a->scan++;
    return NOTHING;
}

/* The first byte of a body may say that it is in another notation. */
static bool sniff(fa_answer *a, const char *s, size_t n, bool final) {
    size_t i = fa_ans_space(s, n, a->scan);
    a->scan = i; /* white space ends nothing */
    if (i == n) return final;
    if ((s[i] == '{' || s[i] == '[') && a->spec->json)
        a->spec = a->spec->json;
    else if (s[i] == '<' && a->spec->xml)
        a->spec = a->spec->xml;
    a->sniffed = true;
    heat_all(a);
    return true;
}

bool fa_ans_step_call(fa_answer *a, bool final) {
    const char *s = a->in.data ? a->in.data + a->pos : "";
    size_t n = a->in.len - a->pos;
    if (!a->sniffed && !sniff(a, s, n, final)) return false;
    if (!a->fits) {
        int fits = a->spec->fits(s, n);
        if (fits == 0) return give_up(a), true;
        a->fits = fits > 0;
    }
    while (a->scan < n) {
        look l = NOTHING;
        if (a->quote) {
            l = in_quote(a, s, n, final);
            if (l == HERE) l = NOTHING;
        } else if (!a->hot[(uint8_t)s[a->scan]]) {
            a->scan++;
        } else {
            l = out_of_quote(a, s, n, final);
        }
        if (l == HERE) return true;
        if (l == UNSURE) break;
        if (a->spec->value && !a->started && a->scan > MAX_NAME) return give_up(a), true;
    }
    if (!final) return false;
    retry(a);
    return true;
}
