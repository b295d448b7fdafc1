/* Pre-tokenizers: cutting a normalized piece into words. The steps run depth first: each hands the pieces it finds to
 * the next, the last one's pieces are words. Nothing is collected, so a step costs no memory unless it rewrites its
 * piece. */
#include "text/words.h"
#include "text/ucd.h"
#include "base/utf8.h"

#include <string.h>

static void step(fa_enc *e, size_t k, const char *s, size_t n, size_t zero);

static inline size_t zero_at(size_t zero, size_t at) { return zero > at ? zero - at : 0; }

static inline void word(fa_enc *e, const char *s, size_t n) {
    switch (e->t->kind) {
    case FA_MODEL_BPE: fa_words_put(e, s, n); break;
    case FA_MODEL_UNIGRAM: fa_unigram_word(e, s, n); break;
    case FA_MODEL_WORDPIECE: fa_wordpiece_word(e, s, n); break;
    case FA_MODEL_WORDLEVEL: fa_wordlevel_word(e, s, n); break;
    case FA_MODEL_RWKV: fa_rwkv_word(e, s, n); break;
    case FA_MODEL_PLAMO: fa_plamo_word(e, s, n); break;
    }
}

/* The buffer of step k, to be written anew: words that lie in it are encoded first. */
static fa_buf *own_buffer(fa_enc *e, size_t k) {
    fa_words_flush(e);
    return &e->pre[k];
}

/* ---- patterns with a behaviour ---- */

/* What split_next() walks: matches and the gaps between them, in order. */
typedef struct splitter {
    const fa_pre *m;
    const char *s;
    size_t n, pos, at; /* pos: where the search goes on; at: end of what was handed out */
    size_t a, b;       /* a match that waits behind a gap */
    bool waiting;
    fa_regex_at it;
} splitter;

static int find_literal(splitter *p, size_t *a, size_t *b) {
    const fa_pre *m = p->m;
    if (!m->n_text) return 0;
    while (p->n - p->pos >= m->n_text) {
        const char *hit = (const char *)memchr(p->s + p->pos, m->text[0], p->n - p->pos - m->n_text + 1);
        if (!hit) break;
        p->pos = (size_t)(hit - p->s);
        if (memcmp(hit, m->text, m->n_text) == 0) {
            *a = p->pos;
            *b = p->pos += m->n_text;
            return 1;
        }
        p->pos++;
    }
    p->pos = p->n;
    return 0;
}

static bool in_class(const fa_pre *m, uint32_t cp) {
    return (m->set && (fa_ucd_set(cp) & m->set)) || (m->more && (fa_ucd_more(cp) & m->more));
}

static int find_class(splitter *p, size_t *a, size_t *b) {
    while (p->pos < p->n) {
        uint32_t cp;
        *a = p->pos;
        *b = p->pos += (size_t)fa_utf8_decode(p->s + p->pos, p->n - p->pos, &cp);
        if (in_class(p->m, cp)) return 1;
    }
    return 0;
}

static int find_scan(splitter *p, size_t *a, size_t *b) {
    const char *end = p->s + p->n;
    while (p->pos < p->n) {
        const char *from = p->s + p->pos, *to = p->m->scan(from, end);
        if (to != from) {
            *a = p->pos;
            *b = p->pos = (size_t)(to - p->s);
            return 1;
        }
        for (p->pos++; p->pos < p->n && ((unsigned char)p->s[p->pos] & 0xC0) == 0x80;) p->pos++;
    }
    return 0;
}

/* The next match or gap: 1 and *a, *b, *match; 0 at the end; <0 error. Empty matches are handed out too. */
static int split_next(fa_enc *e, splitter *p, size_t *a, size_t *b, bool *match) {
    int rc = 1;
    if (!p->waiting) {
        switch (p->m->kind) {
        case FA_PRE_REGEX:
            rc = fa_regex_next(p->m->re, &e->re, p->s, p->n, &p->it, e->err);
            p->a = p->it.a;
            p->b = p->it.b;
            break;
        case FA_PRE_LITERAL: rc = find_literal(p, &p->a, &p->b); break;
        case FA_PRE_SCAN: rc = find_scan(p, &p->a, &p->b); break;
        default: rc = find_class(p, &p->a, &p->b); break;
        }
        if (rc < 0) return e->rc = rc;
        if (rc == 0) p->a = p->b = p->n;
    }
    *match = rc > 0 && p->a == p->at;
    p->waiting = rc > 0 && !*match;
    *a = p->at;
    *b = p->at = *match ? p->b : p->a;
    *match ^= p->m->invert;
    return rc > 0 || *a < *b;
}

/* A split is held back while the next one may still be merged into it. */
static void split(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    const fa_pre *m = &e->t->pre[k];
    splitter p = {.m = m, .s = s, .n = n};
    size_t a, b, from = 0, to = 0; /* the split that is held back: [from, to) */
    bool match, was = false, held = false;
    while (!e->rc && split_next(e, &p, &a, &b, &match) > 0) {
        bool merge = false;
        switch (m->behavior) {
        case FA_REMOVED:
        case FA_ISOLATED: break;
        case FA_MERGED_PREV: merge = match && !was; break;
        case FA_MERGED_NEXT: merge = was && !match; break;
        case FA_CONTIGUOUS: merge = match == was; break;
        }
        if (held && merge) {
            to = b;
        } else {
            if (held && to > from) step(e, k + 1, s + from, to - from, zero_at(zero, from));
            from = a;
            to = m->behavior == FA_REMOVED && match ? a : b;
            held = true;
        }
        was = match;
    }
    if (held && to > from) step(e, k + 1, s + from, to - from, zero_at(zero, from));
}

/* The common case: isolated matches of a scanner, the words of the model when it is the last step. */
static void scan(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    fa_scan *find = e->t->pre[k].scan;
    bool last = k + 1 == e->t->n_pre;
    const char *p = s, *end = s + n, *gap = s;
    while (p < end && !e->rc) {
        const char *q = find(p, end);
        if (q == p) {
            for (p++; p < end && ((unsigned char)*p & 0xC0) == 0x80;) p++;
            continue;
        }
        if (gap < p) step(e, k + 1, gap, (size_t)(p - gap), zero_at(zero, (size_t)(gap - s)));
        if (last)
            word(e, p, (size_t)(q - p));
        else
            step(e, k + 1, p, (size_t)(q - p), zero_at(zero, (size_t)(p - s)));
        gap = p = q;
    }
    if (gap < end) step(e, k + 1, gap, (size_t)(end - gap), zero_at(zero, (size_t)(gap - s)));
}

/* ---- the other steps ---- */

static void runs(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    size_t from = 0;
    bool was = false;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp;
        len = (size_t)fa_utf8_decode(s + i, n - i, &cp);
        bool in = in_class(&e->t->pre[k], cp);
        if (i && in != was) {
            step(e, k + 1, s + from, i - from, zero_at(zero, from));
            from = i;
        }
        was = in;
    }
    if (from < n) step(e, k + 1, s + from, n - from, zero_at(zero, from));
}

/* Runs the next step over a piece that step k has written into its buffer; words may be read up to the end of that
 * buffer. */
static void rewritten(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    const char *lim = e->lim;
    e->lim = s + n;
    step(e, k + 1, s, n, zero);
    e->lim = lim;
}

static void metaspace(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    const fa_pre *m = &e->t->pre[k];
    fa_buf *b = own_buffer(e, k);
    b->len = 0;
    if (!fa_buf_reserve(b, n + m->n_text + 1)) b->failed = true;
    bool has = (n >= m->n_text && memcmp(s, m->text, m->n_text) == 0) || *s == ' ';
    size_t z = zero, put = !has && (m->prepend == 2 || (m->prepend == 1 && zero)) ? m->n_text : 0;
    fa_buf_add(b, m->text, put);
    for (const char *p = s, *end = s + n; p < end;) {
        const char *hit = (const char *)memchr(p, ' ', (size_t)(end - p));
        if (!hit) hit = end;
        fa_buf_add(b, p, (size_t)(hit - p));
        if (hit < end) fa_buf_add(b, m->text, m->n_text);
        if (hit < end && (size_t)(hit - s) < z) zero += m->n_text - 1;
        p = hit + (hit < end);
    }
    if (z) zero += put;
    if (b->failed) {
        e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for %zu bytes of text", n);
        return;
    }
    if (!m->split) {
        rewritten(e, k, b->data, b->len, zero);
        return;
    }
    const char *lim = e->lim, *p = b->data, *end = b->data + b->len;
    e->lim = end;
    while (p < end && !e->rc) { /* each replacement begins a word */
        const char *q = p + 1;
        while ((q = (const char *)memchr(q, m->text[0], (size_t)(end - q))) &&
               ((size_t)(end - q) < m->n_text || memcmp(q, m->text, m->n_text) != 0))
            q++;
        if (!q) q = end;
        step(e, k + 1, p, (size_t)(q - p), zero_at(zero, (size_t)(p - b->data)));
        p = q;
    }
    e->lim = lim;
}

static void space_prefix(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    fa_buf *b = own_buffer(e, k);
    if (*s == ' ') {
        step(e, k + 1, s, n, zero);
        return;
    }
    b->len = 0;
    fa_buf_add(b, " ", 1);
    fa_buf_add(b, s, n);
    if (b->failed)
        e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for %zu bytes of text", n);
    else
        rewritten(e, k, b->data, b->len, zero ? zero + 1 : 0);
}

/* Bytes become characters; from here on no step sees the text itself. */
static void bytes(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    fa_buf *b = own_buffer(e, k);
    size_t z = 0;
    b->len = 0;
    if (!fa_buf_reserve(b, n * 2 + 1)) {
        e->rc = fa_fail(e->err, FFAI_ENOMEM, "tokenizer: no memory for %zu bytes of text", n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        b->len += (size_t)fa_char_of_byte((unsigned char)s[i], b->data + b->len);
        if (i < zero) z = b->len;
    }
    rewritten(e, k, b->data, b->len, z);
}

/* ---- other cuts ---- */

/* A cut before each character whose script is not that of the last one that had any. What is before the first such
 * character is left out, as in the reference. */
static void scripts(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    unsigned last = FA_SCRIPT_ANY;
    size_t from = n, len;
    for (size_t i = 0; i < n && !e->rc; i += len) {
        uint32_t cp;
        len = (size_t)fa_utf8_decode(s + i, n - i, &cp);
        unsigned script = fa_ucd_script(cp);
        if (script == FA_SCRIPT_ANY || script == last) continue;
        if (from < i) step(e, k + 1, s + from, i - from, zero_at(zero, from));
        from = i;
        last = script;
    }
    if (from < n) step(e, k + 1, s + from, n - from, zero_at(zero, from));
}

static void lengths(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    size_t from = 0, chars = 0;
    for (size_t i = 0; i < n && !e->rc; i++) {
        if (((unsigned char)s[i] & 0xC0) == 0x80 || chars++ < e->t->pre[k].length) continue;
        step(e, k + 1, s + from, i - from, zero_at(zero, from));
        from = i;
        chars = 1;
    }
    step(e, k + 1, s + from, n - from, zero_at(zero, from));
}

static void step(fa_enc *e, size_t k, const char *s, size_t n, size_t zero) {
    if (e->rc || !n) return;
    if (k == e->t->n_pre) {
        word(e, s, n);
        return;
    }
    const fa_pre *m = &e->t->pre[k];
    switch (m->kind) {
    case FA_PRE_SCAN:
        if (m->behavior == FA_ISOLATED && !m->invert)
            scan(e, k, s, n, zero);
        else
            split(e, k, s, n, zero);
        break;
    case FA_PRE_REGEX:
    case FA_PRE_LITERAL:
    case FA_PRE_CLASS: split(e, k, s, n, zero); break;
    case FA_PRE_RUNS: runs(e, k, s, n, zero); break;
    case FA_PRE_METASPACE: metaspace(e, k, s, n, zero); break;
    case FA_PRE_SPACE_PREFIX: space_prefix(e, k, s, n, zero); break;
    case FA_PRE_BYTES: bytes(e, k, s, n, zero); break;
    case FA_PRE_SCRIPTS: scripts(e, k, s, n, zero); break;
    case FA_PRE_LENGTH: lengths(e, k, s, n, zero); break;
    case FA_PRE_CUT: fa_cut_run(e, s, n); break;
    }
}

void fa_pre_run(fa_enc *e, const char *s, size_t n, size_t zero) {
    step(e, 0, s, n, zero);
    fa_words_flush(e);
}
