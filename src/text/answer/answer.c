/* The splitter: walks the output once, with the tags of its format, and keeps the queue of parts.
 *
 * A byte that could begin a tag waits until the matcher knows. White space waits too (in `lead`): before a tag it is
 * layout and goes, before text it stays. So any cut of the output gives the same parts. */
#include "text/answer/answer_int.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <string.h>

enum { MAX_HEADER = 4096 }; /* what is longer is text */

/* ---- parts ---- */

static void part_free(fa_ans_part *p) {
    fa_buf_free(&p->text);
    fa_free(p->name);
    fa_free(p->id);
    memset(p, 0, sizeof *p);
}

static fa_ans_part *part_new(fa_answer *a, fa_answer_kind kind) {
    if (a->first && a->first >= a->n - a->first) { /* a part moves only when as many went */
        memmove(a->part, a->part + a->first, (a->n - a->first) * sizeof *a->part);
        a->n -= a->first;
        a->first = 0;
    }
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 8;
        fa_ans_part *p = (fa_ans_part *)fa_realloc(a->part, cap, sizeof *p);
        if (!p) return a->failed = true, NULL;
        a->part = p;
        a->cap = cap;
    }
    fa_ans_part *p = &a->part[a->n++];
    memset(p, 0, sizeof *p);
    p->kind = kind;
    return p;
}

void fa_ans_emit(fa_answer *a, fa_answer_kind kind, const char *s, size_t n) {
    if (!n || a->failed) return;
    fa_ans_part *p = a->n > a->first ? &a->part[a->n - 1] : NULL;
    if (!p || p->kind != kind) p = part_new(a, kind);
    if (!p) return;
    fa_buf_add(&p->text, s, n);
    if (p->text.failed) a->failed = true;
}

static void take_calls(fa_answer *a) {
    for (size_t i = 0; i < a->cx.n; i++) {
        fa_ans_call *c = &a->cx.call[i];
        fa_ans_part *p = part_new(a, FA_ANSWER_CALL);
        if (!p) break;
        p->text = c->args;
        p->name = c->name;
        p->id = c->id;
        memset(c, 0, sizeof *c);
    }
}

bool fa_answer_next(fa_answer *a, fa_answer_part *part) {
    part_free(&a->taken);
    memset(part, 0, sizeof *part);
    if (a->first == a->n || (a->failed && !a->part[a->first].text.data)) return false;
    a->taken = a->part[a->first++];
    *part = (fa_answer_part){a->taken.kind, a->taken.text.data, a->taken.text.len, a->taken.name, a->taken.id};
    return true;
}

/* ---- text ---- */

static void keep(fa_answer *a, fa_buf *b, const char *s, size_t n) {
    fa_buf_add(b, s, n);
    if (b->failed) a->failed = true;
}

/* What text is where the splitter stands. */
static fa_answer_kind text_kind(const fa_answer *a) {
    bool think = a->mode == FA_ANS_M_THINK || (a->mode == FA_ANS_M_CALL && a->in_think);
    return think ? FA_ANSWER_REASONING : FA_ANSWER_TEXT;
}

void fa_ans_flush_lead(fa_answer *a) {
    fa_ans_emit(a, text_kind(a), a->lead.data, a->lead.len);
    a->lead.len = 0;
    if (a->lead_tag) a->section_bad = a->section;
    a->lead_tag = false;
}

static void drop_lead(fa_answer *a) {
    if (a->lead_tag) fa_ans_flush_lead(a);
    a->lead.len = 0;
}

/* s is text of the answer or of the reasoning; white space at its end waits. */
static void text(fa_answer *a, const char *s, size_t n) {
    size_t from = a->trim ? fa_ans_space(s, n, 0) : 0, end = n;
    while (end > from && fa_ans_is_space(s[end - 1])) end--;
    if (from == n) return;
    if (end > from) {
        fa_ans_flush_lead(a);
        fa_ans_emit(a, text_kind(a), s + from, end - from);
        a->trim = a->bare_ok = false;
        from = end;
    }
    keep(a, &a->lead, s + from, n - from);
}

static size_t char_len(char c) {
    unsigned char b = (unsigned char)c;
    return b < 0xC0 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

static fa_ans_kind kind_of(const fa_answer *a, int tag) {
    return tag == FA_ANS_SPECIAL ? FA_ANS_NO_TAG : a->fmt->tags[tag].kind;
}

void fa_ans_verbatim(fa_answer *a, const char *s, size_t n) {
    size_t from = 0, i = 0, k;
    int tag;
    bool more;
    while (i < n) {
        k = fa_ans_trie_match(&a->trie, s + i, n - i, &tag, &more);
        fa_ans_kind kind = k ? kind_of(a, tag) : FA_ANS_CALL;
        if (kind == FA_ANS_NO_TAG || kind == FA_ANS_MESSAGE_END) {
            fa_ans_emit(a, text_kind(a), s + from, i - from);
            from = i + k;
        }
        i += k ? k : 1;
    }
    fa_ans_emit(a, text_kind(a), s + from, n - from);
}

/* ---- tags ---- */

static void to_text(fa_answer *a) {
    a->mode = FA_ANS_M_TEXT;
    a->trim = true;
    a->section = a->section_bad = false;
    a->bare_ok = a->fmt->bare != NULL;
}

/* `tag` began it and stays in it: GPT-OSS may leave out all that stands before <|channel|>. */
static void begin_header(fa_answer *a, const char *tag, size_t n) {
    drop_lead(a);
    a->mode = FA_ANS_M_HEADER;
    a->head.len = 0;
    keep(a, &a->head, tag, n);
    a->fresh = false;
}

/* The header is complete; `end` is the tag that ended it. */
static void end_header(fa_answer *a, const char *end) {
    a->to.len = 0;
    keep(a, &a->to, "", 0);
    fa_ans_mode m = a->fmt->header(a->head.data ? a->head.data : "", a->head.len, end, &a->to);
    a->failed |= a->to.failed;
    a->head.len = 0;
    a->section = m == FA_ANS_M_SECTION;
    a->mode = m == FA_ANS_M_SECTION ? FA_ANS_M_TEXT : m;
    a->trim = a->mode == FA_ANS_M_THINK || a->section;
    a->bare_ok = false;
    if (m == FA_ANS_M_CALL) fa_ans_begin_call(a, a->fmt->message, "", 0);
}

/* A tag in the reasoning; false: it is text there. */
static bool tag_in_think(fa_answer *a, fa_ans_kind kind, const char *s, size_t n) {
    switch (kind) {
    case FA_ANS_NO_TAG:
    case FA_ANS_DROP:
    case FA_ANS_THINK: return true;
    case FA_ANS_THINK_END:
    case FA_ANS_MESSAGE_END:
        drop_lead(a);
        to_text(a);
        return true;
    case FA_ANS_HEADER: begin_header(a, s, n); return true;
    default: return false;
    }
}

static bool section_tag(fa_answer *a, const char *s, size_t n, bool opens) {
    if (opens) {
        keep(a, &a->lead, s, n);
        a->lead_tag = a->section = true;
        a->section_bad = false;
        return true;
    }
    bool bad = a->section_bad;
    a->section = a->section_bad = false;
    if (a->lead_tag) { /* nothing stood in the section */
        text(a, s, n);
        return true;
    }
    if (bad) return false;
    drop_lead(a);
    to_text(a);
    return true;
}

/* The tag at s; false: it is text here. */
static bool tag_in_text(fa_answer *a, const fa_ans_tag *t, const char *s, size_t n) {
    switch (t->kind) {
    case FA_ANS_THINK:
        drop_lead(a);
        a->mode = FA_ANS_M_THINK;
        a->trim = true;
        return true;
    case FA_ANS_THINK_END:
    case FA_ANS_MESSAGE_END:
        drop_lead(a);
        to_text(a);
        return true;
    case FA_ANS_SECTION_DROP: return a->section;
    case FA_ANS_SECTION_CALL:
        if (!a->section) return false;
        fa_ans_begin_call(a, t->call, s, n);
        return true;
    case FA_ANS_CALL: fa_ans_begin_call(a, t->call, s, n); return true;
    case FA_ANS_SECTION:
    case FA_ANS_SECTION_END: return section_tag(a, s, n, t->kind == FA_ANS_SECTION);
    case FA_ANS_HEADER: begin_header(a, s, n); return true;
    case FA_ANS_HEADER_END: return !fa_ans_is_space(t->text[0]);
    default: return true;
    }
}

static bool on_tag(fa_answer *a, int tag, const char *s, size_t n) {
    if (tag == FA_ANS_SPECIAL) return true;
    const fa_ans_tag *t = &a->fmt->tags[tag];
    if (a->mode != FA_ANS_M_THINK) return tag_in_text(a, t, s, n);
    if (a->fmt->call_in_think && t->kind == FA_ANS_CALL) {
        fa_ans_begin_call(a, t->call, s, n);
        a->in_think = true;
        return true;
    }
    if (a->fmt->call_in_think && t->kind == FA_ANS_SECTION) return section_tag(a, s, n, true);
    return tag_in_think(a, t->kind, s, n);
}

/* ---- steps ---- */

/* A call that no tag announces may begin at in[pos]: after white space, and after what separates it from the last. */
static bool step_bare(fa_answer *a) {
    const char *s = a->in.data + a->pos;
    size_t n = a->in.len - a->pos, i = fa_ans_space(s, n, 0);
    if (i) {
        text(a, s, i);
        a->pos += i;
        return true;
    }
    if (a->trim && (*s == ';' || *s == ',') && !a->lead_tag) {
        keep(a, &a->lead, s, 1);
        a->lead_tag = true;
        a->pos++;
        return true;
    }
    if (a->fmt->bare->fits(s, n) == 0) return false;
    fa_ans_begin_call(a, a->fmt->bare, "", 0);
    return true;
}

static bool step_text(fa_answer *a, bool final) {
    if (a->mode == FA_ANS_M_TEXT && a->bare_ok && step_bare(a)) return true;
    const char *s = a->in.data + a->pos;
    size_t n = a->in.len - a->pos, i = 0;
    while (i < n && !a->trie.root[(uint8_t)s[i]]) i++;
    if (i == 0) {
        int tag;
        bool more;
        size_t k = fa_ans_trie_match(&a->trie, s, n, &tag, &more);
        if (more && !final) return false;
        a->pos += k;
        if (k && on_tag(a, tag, s, k)) return true;
        a->pos -= k;
        i = char_len(s[0]);
    }
    text(a, s, i);
    a->pos += i;
    return true;
}

/* Is what stands at s the rest of a header that the prompt began? -1: not known yet. */
static int is_header(const fa_answer *a, const char *s, size_t n) {
    const char *w = a->fmt->header_word;
    size_t i = fa_ans_space(s, n, 0), len = strlen(w), k = n - i < len ? n - i : len;
    int tag;
    bool more;
    if (i > FA_ANS_MAX_FIT) return 0;
    if (i == n) return -1;
    if (memcmp(s + i, w, k) == 0) return k == len ? 1 : -1;
    k = fa_ans_trie_match(&a->trie, s + i, n - i, &tag, &more);
    return more ? -1 : k != 0;
}

static bool header_tag(fa_answer *a, int tag, const char *s, size_t k) {
    switch (kind_of(a, tag)) {
    case FA_ANS_NO_TAG: return true;
    case FA_ANS_HEADER_END: end_header(a, a->fmt->tags[tag].text); return true;
    case FA_ANS_MESSAGE_END: to_text(a); return true;
    default: keep(a, &a->head, s, k); return true;
    }
}

static bool step_header(fa_answer *a, bool final) {
    const char *s = a->in.data + a->pos;
    size_t n = a->in.len - a->pos, i = 0;
    if (a->fresh && a->fmt->header_word) {
        int is = is_header(a, s, n);
        if (is < 0 && !final) return false;
        if (is != 1) {
            a->mode = FA_ANS_M_TEXT;
            return true;
        }
    }
    a->fresh = false;
    while (i < n && !a->trie.root[(uint8_t)s[i]]) i++;
    if (i == 0) {
        int tag;
        bool more;
        size_t k = fa_ans_trie_match(&a->trie, s, n, &tag, &more);
        if (more && !final) return false;
        a->pos += k;
        if (k && header_tag(a, tag, s, k)) return true;
        a->pos -= k;
        i = char_len(s[0]);
    }
    keep(a, &a->head, s, i);
    a->pos += i;
    if (a->head.len > MAX_HEADER) { /* no header */
        a->mode = FA_ANS_M_TEXT;
        fa_ans_verbatim(a, a->head.data, a->head.len);
    }
    return true;
}

static void run(fa_answer *a, bool final) {
    bool on = true;
    while (on && !a->failed && a->pos < a->in.len) {
        if (a->mode == FA_ANS_M_CALL)
            on = fa_ans_step_call(a, final);
        else if (a->mode == FA_ANS_M_HEADER)
            on = step_header(a, final);
        else
            on = step_text(a, final);
        if (a->cx.n && !a->failed) take_calls(a);
        fa_ans_drop(&a->cx);
    }
    if (a->pos && (a->pos == a->in.len || a->pos > a->in.len / 2)) {
        a->in.len -= a->pos;
        memmove(a->in.data, a->in.data + a->pos, a->in.len);
        a->pos = 0;
    }
}

/* ---- bytes ---- */

/* Appends valid UTF-8, with U+FFFD for what is none. */
static void add_fixed(fa_buf *b, const char *s, size_t n) {
    size_t from = 0, i = 0;
    while (i < n) {
        if (!(s[i] & 0x80)) {
            i++;
            continue;
        }
        uint32_t cp;
        size_t used = (size_t)fa_utf8_decode(s + i, n - i, &cp);
        if (cp == 0xFFFD) {
            fa_buf_add(b, s + from, i - from);
            fa_buf_add(b, "\xEF\xBF\xBD", 3);
            from = i + used;
        }
        i += used;
    }
    fa_buf_add(b, s + from, n - from);
}

/* The same, with the beginning of a character carried from one push to the next. */
static void add_bytes(fa_answer *a, const char *s, size_t n) {
    size_t i = 0;
    while (a->n_carry && i < n) {
        a->carry[a->n_carry++] = s[i++];
        if (fa_utf8_partial_tail(a->carry, a->n_carry) == a->n_carry) continue;
        uint32_t cp;
        size_t used = (size_t)fa_utf8_decode(a->carry, a->n_carry, &cp);
        i -= a->n_carry - used;
        add_fixed(&a->in, a->carry, used);
        a->n_carry = 0;
    }
    if (i < n) {
        size_t tail = fa_utf8_partial_tail(s + i, n - i);
        add_fixed(&a->in, s + i, n - i - tail);
        memcpy(a->carry, s + n - tail, tail);
        a->n_carry = tail;
    }
    if (a->in.failed) a->failed = true;
}

static int outcome(const fa_answer *a, fa_error *err) {
    return a->failed ? fa_fail(err, FFAI_ENOMEM, "answer: out of memory") : 0;
}

int fa_answer_push(fa_answer *a, const char *s, size_t len, fa_error *err) {
    part_free(&a->taken);
    if (a->done) return fa_fail(err, FFAI_EINVAL, "answer: it has ended already");
    if (len && !a->failed) {
        add_bytes(a, s, len);
        run(a, false);
    }
    return outcome(a, err);
}

int fa_answer_finish(fa_answer *a, fa_error *err) {
    part_free(&a->taken);
    if (a->done || a->failed) return outcome(a, err);
    a->done = true;
    if (a->n_carry) add_fixed(&a->in, a->carry, a->n_carry);
    a->failed |= a->in.failed;
    run(a, true);
    if (a->mode == FA_ANS_M_CALL && !a->failed) fa_ans_step_call(a, true);
    if (a->cx.n && !a->failed) take_calls(a);
    fa_ans_drop(&a->cx);
    if (!a->failed) fa_ans_flush_lead(a);
    return outcome(a, err);
}

const char *fa_answer_format(const fa_answer *a) { return a->fmt->name; }

/* ---- creation ---- */

/* The prompt says where the answer begins: in a header, in reasoning, after it. */
static void read_prompt(fa_answer *a, const char *s, size_t n) {
    bool bounded = false, think = false; /* a special token ended what came before the tag of reasoning */
    size_t i = 0, k, end = n;
    int tag;
    bool more;
    for (; i < n; i += k ? k : 1) {
        k = fa_ans_trie_match(&a->trie, s + i, n - i, &tag, &more);
        fa_ans_kind kind = k ? kind_of(a, tag) : FA_ANS_CALL;
        if (a->mode == FA_ANS_M_HEADER && (!k || kind == FA_ANS_HEADER || kind == FA_ANS_DROP)) {
            if (a->head.len <= MAX_HEADER) keep(a, &a->head, s + i, k ? k : 1);
        } else if (k && kind == FA_ANS_HEADER) {
            begin_header(a, s + i, k);
        } else if (k && kind == FA_ANS_HEADER_END && a->mode == FA_ANS_M_HEADER) {
            end_header(a, a->fmt->tags[tag].text);
        } else if (k && kind == FA_ANS_MESSAGE_END) {
            a->mode = FA_ANS_M_TEXT;
        } else if (k && kind == FA_ANS_NO_TAG) {
            bounded = true;
            think = false;
            a->mode = FA_ANS_M_TEXT;
        } else if (k && (kind == FA_ANS_THINK || kind == FA_ANS_THINK_END)) {
            think = kind == FA_ANS_THINK;
        }
    }
    a->fresh = true;
    a->section = a->section_bad = a->lead_tag = false;
    a->lead.len = 0;
    while (end && fa_ans_is_space(s[end - 1])) end--;
    bool opened = false, closed = false;
    for (const fa_ans_tag *t = a->fmt->tags; t->text; t++) {
        size_t len = strlen(t->text);
        while (len && fa_ans_is_space(t->text[len - 1])) len--; /* tags that end with a line */
        bool here = end >= len && len && memcmp(s + end - len, t->text, len) == 0;
        opened |= here && t->kind == FA_ANS_THINK;
        closed |= here && t->kind == FA_ANS_THINK_END;
    }
    if (a->mode == FA_ANS_M_TEXT || a->mode == FA_ANS_M_THINK) a->trim = opened || closed;
    if (opened || (think && bounded)) {
        a->mode = FA_ANS_M_THINK;
        a->bare_ok = false;
    }
}

static int add_specials(fa_answer *a, const fa_tok *tok, fa_error *err) {
    for (size_t id = 0; id < fa_tok_size(tok); id++) {
        if (!fa_tok_is_special(tok, (int32_t)id)) continue;
        size_t n;
        const char *s = fa_tok_piece(tok, (int32_t)id, &n);
        if (!s || n < 3 || (s[0] >= '0' && s[0] <= '9') || ((s[0] | 0x20) >= 'a' && (s[0] | 0x20) <= 'z')) continue;
        if (!fa_ans_trie_add(&a->trie, s, n, FA_ANS_SPECIAL)) return fa_fail(err, FFAI_ENOMEM, "answer: out of memory");
    }
    return 0;
}

static int set_up(fa_answer *a, const fa_answer_opts *o, fa_error *err) {
    a->fmt = fa_ans_find(o->format);
    if (!a->fmt) return fa_fail(err, FFAI_EINVAL, "answer format \"%s\" is unknown", o->format);
    for (int i = 0; i < FA_ANS_MAX_TAG && a->fmt->tags[i].text; i++)
        if (!fa_ans_trie_add(&a->trie, a->fmt->tags[i].text, strlen(a->fmt->tags[i].text), i))
            return fa_fail(err, FFAI_ENOMEM, "answer: out of memory");
    int rc = o->tok ? add_specials(a, o->tok, err) : 0;
    if (rc) return rc;
    if (o->tools) {
        rc = fa_json_parse(&a->tools, o->tools, strlen(o->tools), "tools", err);
        if (rc) return rc;
        a->cx.tools = fa_json_root(a->tools);
        if (fa_jtype_of(a->cx.tools) != FA_JARR && fa_jtype_of(a->cx.tools) != FA_JNULL)
            return fa_fail(err, FFAI_EINVAL, "tools: not a JSON array");
    }
    a->mode = FA_ANS_M_TEXT;
    a->bare_ok = a->fmt->bare != NULL;
    if (o->prompt && o->prompt_len) {
        read_prompt(a, o->prompt, o->prompt_len);
    } else if (a->fmt->header) {
        a->mode = FA_ANS_M_HEADER;
        a->fresh = true;
    }
    return outcome(a, err);
}

int fa_answer_new(fa_answer **out, const fa_answer_opts *opts, fa_error *err) {
    *out = NULL;
    fa_answer *a = FA_NEW(fa_answer);
    if (!a) return fa_fail(err, FFAI_ENOMEM, "answer: out of memory");
    int rc = set_up(a, opts, err);
    if (rc)
        fa_answer_free(a);
    else
        *out = a;
    return rc;
}

void fa_answer_free(fa_answer *a) {
    if (!a) return;
    while (a->first < a->n) part_free(&a->part[a->first++]);
    part_free(&a->taken);
    fa_free(a->part);
    fa_ans_drop(&a->cx);
    fa_ans_trie_free(&a->trie);
    fa_json_free(a->tools);
    fa_buf *const bufs[] = {&a->in, &a->lead, &a->head, &a->to, &a->open};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) fa_buf_free(bufs[i]);
    fa_free(a);
}
